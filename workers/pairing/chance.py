"""The chance level of a pairing: what the same vectors would reach without anyone choosing.

In spaces of few non-negative dimensions almost any two vectors look alike, so a similarity says something only
beside the level that a random one-to-one assignment of the same vectors reaches. How the figures are shown, and
baselines that run a rule again, are left to others (see workers.pairing.evaluation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.pairing.similarity import UNITS, Floats, Measure, Units, blocks, measure_for

REPEATS = 100
"""Random assignments that are drawn unless told otherwise."""
_TOLD: Final = 1e-5
"""Similarities from a store that keeps single precision are compared to this precision."""


@dataclass(frozen=True)
class Chance:
    """A pairing beside chance. Similarities as the measure gives them; everything None or empty without pairs.

    Attributes:
        pairs: number of pairs.
        mean: mean similarity of the pairs.
        chance: mean similarity over `repeats` random one-to-one assignments of as many pairs.
        spread: standard deviation of that mean from one random assignment to the next.
        lift: mean / chance; None where chance is not above 0 (centred spaces, where a ratio says nothing).
        deviations: (mean - chance) / spread, the distance from chance in spreads; None where spread is 0.
        percentiles: artwork id -> percentage (0-100) of all cross pairs that this pair's similarity exceeds,
            equal ones counted half, so that a pair made by chance has 50 on average.
        repeats: random assignments drawn.
        sampled: True when percentiles come from a sample of the cross pairs instead of all.
    """

    pairs: int
    mean: float | None
    chance: float | None
    spread: float | None
    lift: float | None
    deviations: float | None
    percentiles: dict[str, float]
    repeats: int
    sampled: bool


def chance_of(
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    pairs: Mapping[str, tuple[str, float]],
    measure: Measure,
    *,
    seed: int = 0,
    repeats: int = REPEATS,
    most: int = 1_000_000,
) -> Chance:
    """The chance level of `pairs` among all present artworks and tracks.

    Args:
        artworks: id -> vector [dimension], paired or not.
        tracks: the same.
        pairs: artwork id -> (track id, similarity), as `Rule.pairs` gives it.
        measure: the similarity of the space that is judged in; similarities are computed anew in it, so pairs
            made in another space can be judged too.
        seed: random assignments and samples are the same for the same seed and items.
        repeats: random assignments to draw, at least 2.
        most: up to this many cross pairs percentiles are exact, above it from a seeded sample of that size.

    Raises:
        ValueError: a pair names an item that is not given, or repeats is below 2.
    """
    if repeats < 2:
        raise ValueError(f"a spread needs at least 2 random assignments, not {repeats}")
    if not pairs:
        return Chance(0, None, None, None, None, None, {}, repeats, False)
    left_names, right_names = sorted(artworks), sorted(tracks)
    row_of = {name: index for index, name in enumerate(left_names)}
    column_of = {name: index for index, name in enumerate(right_names)}
    for artwork, (track, _) in pairs.items():
        if artwork not in row_of or track not in column_of:
            missing = artwork if artwork not in row_of else track
            raise ValueError(f"the pair {artwork} with {track} names {missing}, whose vector is not given")
    left = measure.prepare(np.asarray([artworks[name] for name in left_names], dtype=np.float64))
    right = measure.prepare(np.asarray([tracks[name] for name in right_names], dtype=np.float64))
    units = measure.paired(
        left[[row_of[artwork] for artwork in pairs]], right[[column_of[track] for track, _ in pairs.values()]]
    )
    means = random_means(left, right, len(units), measure, seed=seed, repeats=repeats)
    mean, chance, spread = float(units.mean()) / UNITS, float(means.mean()), float(means.std(ddof=1))
    shares, sampled = percentiles_of(units, left, right, measure, seed=seed, most=most)
    return Chance(
        pairs=len(units),
        mean=mean,
        chance=chance,
        spread=spread,
        lift=lift_of(mean, chance, spread),
        deviations=(mean - chance) / spread if spread > 0 else None,
        percentiles=dict(zip(pairs, shares.tolist(), strict=True)),
        repeats=repeats,
        sampled=sampled,
    )


@dataclass(frozen=True)
class Nearness:
    """Similarities of one query to some items, beside those to all.

    Attributes:
        chance: mean similarity of the query to an item drawn at random; None where there is nothing to draw from.
        lifts: each similarity / chance; None where chance is not clearly above 0.
        percentiles: percentage (0-100) of all items that are less similar, equal ones counted half; None likewise.
    """

    chance: float | None
    lifts: list[float | None]
    percentiles: list[float | None]


def nearness_of(similarities: Sequence[float], query: ArrayLike, others: ArrayLike) -> Nearness:
    """How much of the cosines that a search found any item would reach.

    Args:
        similarities: cosines of the query with the items that were found [any number].
        query: a vector [dimension].
        others: the vectors of all items that could be found, or of a random sample of them [n, dimension].
    """
    measure = measure_for("cosine")
    found = np.rint(np.asarray(similarities, dtype=np.float64) / _TOLD)
    if not np.size(others):
        nobody: list[None] = [None] * len(found)
        return Nearness(None, [*nobody], [*nobody])
    every = measure.row(measure.prepare(query), measure.prepare(others)) / UNITS
    chance, error = float(every.mean()), float(every.std()) / np.sqrt(len(every))
    # Stores compute in single precision: what rounds alike counts as equal.
    rounded = np.sort(np.rint(every / _TOLD))
    below, up_to = (np.searchsorted(rounded, found, side=side) for side in ("left", "right"))
    return Nearness(
        chance,
        [lift_of(float(each), chance, error) for each in similarities],
        ((below + up_to) * (50.0 / len(every))).tolist(),
    )


def lift_of(mean: float, chance: float, spread: float) -> float | None:
    """mean / chance, or None where chance is not clearly (by two spreads) above 0."""
    return mean / chance if chance > max(2 * spread, 1e-6) else None


def random_means(
    left: Floats, right: Floats, count: int, measure: Measure, *, seed: int, repeats: int
) -> NDArray[np.float64]:
    """Mean similarities of `repeats` random one-to-one assignments of `count` pairs: [repeats].

    Args:
        left, right: prepared vectors [n, dimension] and [m, dimension]; count <= min(n, m).
    """
    generator = np.random.default_rng(seed)
    if len(left) * len(right) <= 250_000:
        # Few items: all similarities at once, then every draw is only a look-up.
        matrix = measure.matrix(left, right)
        rows = generator.random((repeats, len(left))).argsort(axis=1)[:, :count]
        columns = generator.random((repeats, len(right))).argsort(axis=1)[:, :count]
        means: NDArray[np.float64] = matrix[rows, columns].mean(axis=1) / UNITS
        return means
    drawn = [
        measure.paired(
            left[generator.permutation(len(left))[:count]], right[generator.permutation(len(right))[:count]]
        )
        for _ in range(repeats)
    ]
    return np.array([float(units.mean()) for units in drawn]) / UNITS


def percentiles_of(
    units: Units, left: Floats, right: Floats, measure: Measure, *, seed: int, most: int
) -> tuple[NDArray[np.float64], bool]:
    """Percentage of cross pairs that each of `units` exceeds, ties counted half: [len(units)]; and if sampled."""
    every, sampled = cross_similarities(left, right, measure, seed=seed, most=most)
    below, up_to = np.searchsorted(every, units, side="left"), np.searchsorted(every, units, side="right")
    shares: NDArray[np.float64] = (below + up_to).astype(np.float64) * (50.0 / len(every))
    return shares, sampled


def cross_similarities(
    left: Floats, right: Floats, measure: Measure, *, seed: int = 0, most: int = 1_000_000
) -> tuple[Units, bool]:
    """Similarities of all cross pairs in units, rising; above `most` of them a seeded sample so large, and True."""
    sampled = len(left) * len(right) > most
    if sampled:
        generator = np.random.default_rng(seed)
        chosen = generator.integers(len(left), size=most), generator.integers(len(right), size=most)
        every = measure.paired(left[chosen[0]], right[chosen[1]])
    else:
        every = np.concatenate([block.ravel() for _, block in blocks(left, right, measure)])
    every.sort()
    return every, sampled
