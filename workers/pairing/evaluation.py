"""Truth about a pairing: CMEAN's Table V figures, each beside baselines that say how much of it is chance.

Shuffling whole vectors among the items of a side changes nothing, because any rule finds the same values again.
The baselines here are those that mean something: a random one-to-one assignment of the same vectors; the same
rule after each coordinate is shuffled independently within its side; the same rule on uniform random RGB (for
CMEAN's published figure); and the pairs judged in another space, against random pairs there.

Reading vectors, printing and drawing are left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.spaces import RGB, RGB15
from workers.pairing.chance import lift_of, random_means
from workers.pairing.rules import Pairs
from workers.pairing.similarity import UNITS, Floats, Measure
from workers.pairing.spaces import FRAGMENT_SPACES

Vectors = Mapping[str, ArrayLike]
"""Item id -> vector [dimension]."""
Pairer = Callable[[Vectors, Vectors], Pairs]
"""A rule over complete sets, such as `batch_stable` with its measure bound."""


@dataclass(frozen=True)
class Baseline:
    """One comparison: what the pairs reach, and what the same would reach without meaning.

    Attributes:
        name: which baseline, in plain words.
        observed: mean similarity of the pairs in the space of the comparison.
        mean: mean similarity of the baseline over those of its repeats that pair anything; None where none does.
        spread: standard deviation of that mean from repeat to repeat; None below two repeats that pair anything.
        lift: observed / mean; None where the baseline is not clearly above 0 (a ratio then says nothing).
        deviations: (observed - mean) / spread; None where the spread is 0 or not known.
        repeats: how often the baseline was drawn.
        pairs: number of pairs, on average over all repeats. With a floor it tells as much as the mean: where little
            reaches the floor, what does lies just above it, with meaning and without.
        pairs_spread: standard deviation of that number from repeat to repeat.
        empty: repeats that paired nothing. They have no mean, but count in `pairs`.
    """

    name: str
    observed: float
    mean: float | None
    spread: float | None
    lift: float | None
    deviations: float | None
    repeats: int
    pairs: float
    pairs_spread: float
    empty: int = 0


@dataclass(frozen=True)
class Evaluation:
    """A pairing in the form of CMEAN's Table V (pairs, unpaired, mean, max, min), with median, 5th percentile
    and baselines. Similarities as the measure gives them; None without pairs."""

    pairs: int
    unpaired_artworks: int
    unpaired_tracks: int
    mean: float | None
    maximum: float | None
    minimum: float | None
    median: float | None
    fifth_percentile: float | None
    baselines: tuple[Baseline, ...]
    similarities: tuple[float, ...]

    def baseline(self, name: str) -> Baseline:
        """The baseline of that name.

        Raises:
            KeyError: it was not asked for.
        """
        for each in self.baselines:
            if each.name == name:
                return each
        raise KeyError(f"no baseline {name!r}; there are {[each.name for each in self.baselines]}")


RANDOM_ASSIGNMENT = "random assignment"
SHUFFLED_COORDINATES = "same rule, coordinates shuffled"
UNIFORM_RGB = "same rule, uniform random RGB"
_RGB_SPACES: Final = (RGB.name, *FRAGMENT_SPACES, RGB15.name)


def is_rgb(space: str) -> bool:
    """True for a space of RGB triples, where uniform random RGB is a baseline that means something."""
    return space in _RGB_SPACES


def judged_in(space: str) -> str:
    """Name of the baseline that judges the pairs in another space."""
    return f"judged in {space}, against random pairs"


@dataclass(frozen=True)
class Judge:
    """Another space to judge pairs in: its name, its measure, and the vectors of at least all paired items."""

    space: str
    measure: Measure
    artworks: Vectors
    tracks: Vectors


def evaluate(
    artworks: Vectors,
    tracks: Vectors,
    pairs: Mapping[str, tuple[str, float]],
    measure: Measure,
    *,
    pairer: Pairer | None = None,
    judges: Iterable[Judge] = (),
    uniform_rgb: bool = False,
    seed: int = 0,
    repeats: int = 100,
    rule_repeats: int = 10,
) -> Evaluation:
    """Judge a pairing of `artworks` and `tracks`.

    Args:
        artworks, tracks: all present items with their vectors in the pairing space.
        pairs: artwork id -> (track id, similarity); similarities are computed anew.
        measure: the similarity of the pairing space.
        pairer: the rule that made the pairs; without it the baselines that run it again are left out.
        judges: other spaces to judge the pairs in.
        uniform_rgb: also pair uniform random RGB (see `uniform_baseline`) of the same counts and dimension.
        seed: the same seed, items and pairs give the same figures.
        repeats: random assignments to draw.
        rule_repeats: times that a rule is run again for each baseline that needs it.

    Raises:
        ValueError: a pair names an item without a vector, or a number of repeats is below 2.
    """
    if min(repeats, rule_repeats) < 2:
        raise ValueError("a spread needs at least 2 repeats")
    similarities = _similarities(artworks, tracks, pairs, measure)
    unpaired = len(artworks) - len(pairs), len(tracks) - len(pairs)
    if not pairs:
        return Evaluation(0, *unpaired, None, None, None, None, None, (), ())
    mean = float(similarities.mean())
    left, right = _prepared(artworks, measure), _prepared(tracks, measure)
    random = random_means(left, right, len(pairs), measure, seed=seed, repeats=repeats)
    baselines = [_baseline(RANDOM_ASSIGNMENT, mean, random, [len(pairs)] * repeats)]
    generator = np.random.default_rng(seed)
    if pairer is not None:
        runs = [
            pairer(_coordinates_shuffled(artworks, generator), _coordinates_shuffled(tracks, generator))
            for _ in range(rule_repeats)
        ]
        baselines.append(_baseline_of_runs(SHUFFLED_COORDINATES, mean, runs))
        if uniform_rgb:
            counts, dimension = (len(artworks), len(tracks)), left.shape[1]
            baselines.append(uniform_baseline(mean, counts, dimension, pairer, seed=seed, repeats=rule_repeats))
    for judge in judges:
        observed = float(_similarities(judge.artworks, judge.tracks, pairs, judge.measure).mean())
        means = random_means(
            _prepared(judge.artworks, judge.measure),
            _prepared(judge.tracks, judge.measure),
            len(pairs),
            judge.measure,
            seed=seed,
            repeats=repeats,
        )
        baselines.append(_baseline(judged_in(judge.space), observed, means, [len(pairs)] * repeats))
    return Evaluation(
        len(pairs),
        *unpaired,
        mean=mean,
        maximum=float(similarities.max()),
        minimum=float(similarities.min()),
        median=float(np.median(similarities)),
        fifth_percentile=float(np.percentile(similarities, 5)),
        baselines=tuple(baselines),
        similarities=tuple(similarities.tolist()),
    )


def uniform_baseline(
    observed: float, counts: tuple[int, int], dimension: int, pairer: Pairer, *, seed: int = 0, repeats: int = 10
) -> Baseline:
    """The same rule on uniform random RGB: what CMEAN's published mean similarity is to be read beside.

    Args:
        observed: mean similarity of the pairs that are judged.
        counts: artworks and tracks to draw.
        dimension: 3 for one triple, 15 for the five that CMEAN's code compares; every number in 0-255.
        pairer: the rule.
        seed: the same seed gives the same figures.
        repeats: times that the rule is run, at least 2.
    """
    generator = np.random.default_rng([seed, dimension])

    def drawn(side: str, count: int) -> dict[str, NDArray[np.float64]]:
        table = generator.uniform(0, 255, size=(count, dimension))
        return {f"{side}-{index:09d}": vector for index, vector in enumerate(table)}

    runs = [pairer(drawn("artwork", counts[0]), drawn("track", counts[1])) for _ in range(repeats)]
    return _baseline_of_runs(UNIFORM_RGB, observed, runs)


def _prepared(vectors: Vectors, measure: Measure) -> Floats:
    return measure.prepare(np.asarray([vectors[name] for name in sorted(vectors)], dtype=np.float64))


def _similarities(
    artworks: Vectors, tracks: Vectors, pairs: Mapping[str, tuple[str, float]], measure: Measure
) -> NDArray[np.float64]:
    """Similarity of every pair in the space of these vectors: [pairs]."""
    if not pairs:
        return np.zeros(0)
    for artwork, (track, _) in pairs.items():
        if artwork not in artworks or track not in tracks:
            missing = artwork if artwork not in artworks else track
            raise ValueError(f"the pair {artwork} with {track} names {missing}, whose vector is not given")
    left = measure.prepare(np.asarray([artworks[artwork] for artwork in pairs], dtype=np.float64))
    right = measure.prepare(np.asarray([tracks[track] for track, _ in pairs.values()], dtype=np.float64))
    return measure.paired(left, right) / UNITS


def _baseline_of_runs(name: str, observed: float, runs: Sequence[Pairs]) -> Baseline:
    """The baseline that runs of a rule make; those that pair nothing have no mean similarity."""
    means = [np.mean([similarity for _, similarity in run.values()]) for run in runs if run]
    return _baseline(name, observed, np.array(means), [len(run) for run in runs])


def _baseline(name: str, observed: float, means: NDArray[np.float64], counts: Sequence[int]) -> Baseline:
    """A baseline from the mean of each repeat that paired anything, and the number of pairs of every repeat."""
    mean = float(means.mean()) if len(means) else None
    spread = float(means.std(ddof=1)) if len(means) > 1 else None
    lift = deviations = None
    if mean is not None and spread is not None:
        lift = lift_of(observed, mean, spread)
        deviations = (observed - mean) / spread if spread > 0 else None
    return Baseline(
        name,
        observed,
        mean,
        spread,
        lift,
        deviations,
        repeats=len(counts),
        pairs=float(np.mean(counts)),
        pairs_spread=float(np.std(counts, ddof=1)),
        empty=len(counts) - len(means),
    )


def _coordinates_shuffled(vectors: Vectors, generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Every coordinate keeps its values within the side, but each goes to items of its own."""
    names = sorted(vectors)
    table = generator.permuted(np.asarray([vectors[name] for name in names], dtype=np.float64), axis=0)
    return dict(zip(names, table, strict=True))
