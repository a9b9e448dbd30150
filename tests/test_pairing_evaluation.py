"""What must hold of an evaluation: Table V's figures are right, and only real structure rises above chance."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from schemas.media import Kind, digest_of, item_id
from workers.pairing.evaluation import (
    RANDOM_ASSIGNMENT,
    SHUFFLED_COORDINATES,
    UNIFORM_RGB,
    Evaluation,
    Judge,
    Vectors,
    evaluate,
    judged_in,
)
from workers.pairing.greedy import batch_greedy
from workers.pairing.optimal import batch_optimal
from workers.pairing.rules import Pairs, batch_stable
from workers.pairing.similarity import Cosine, Measure, ValenceArousal


def side(kind: Kind, vectors: np.ndarray) -> dict[str, np.ndarray]:
    return {item_id(kind, digest_of(f"{kind} {index}".encode())): vector for index, vector in enumerate(vectors)}


def test_the_figures_are_those_of_table_v_with_median_and_fifth_percentile() -> None:
    generator = np.random.default_rng(1)
    artworks, tracks = side(Kind.ARTWORK, generator.random((25, 3))), side(Kind.TRACK, generator.random((20, 3)))
    pairs = batch_stable(artworks, tracks, Cosine(), floor=0.9)
    result = evaluate(artworks, tracks, pairs, Cosine())
    values = [similarity for _, similarity in pairs.values()]
    assert (result.pairs, result.unpaired_artworks, result.unpaired_tracks) == (
        len(pairs),
        25 - len(pairs),
        20 - len(pairs),
    )
    assert (result.minimum, result.maximum) == (min(values), max(values))
    assert result.mean == pytest.approx(np.mean(values))
    assert result.median == pytest.approx(np.median(values))
    assert result.fifth_percentile == pytest.approx(np.percentile(values, 5))
    assert result.similarities == tuple(values)
    assert [each.name for each in result.baselines] == [RANDOM_ASSIGNMENT]


def test_nothing_paired_is_said_plainly() -> None:
    artworks = side(Kind.ARTWORK, np.ones((2, 3)))
    assert evaluate(artworks, {}, {}, Cosine()) == Evaluation(0, 2, 0, None, None, None, None, None, (), ())


def planted(share: float) -> Evaluation:
    """160 + 160 items with a hidden mood each; `share` of a vector's variance comes from it. Pairs are made in one
    space and judged in another that has its own noise."""
    generator = np.random.default_rng(8)
    mood = generator.integers(0, 8, size=320)
    centres = generator.random((8, 6)) ** 4

    def made() -> np.ndarray:
        return share * centres[mood] + (1 - share) * generator.random((320, 6)) ** 4

    pairing, other = made(), made()
    one, two = side(Kind.ARTWORK, pairing[:160]), side(Kind.TRACK, pairing[160:])
    judge = Judge("another", Cosine(), side(Kind.ARTWORK, other[:160]), side(Kind.TRACK, other[160:]))
    pairer = partial(batch_stable, measure=Cosine())
    return evaluate(one, two, pairer(one, two), Cosine(), pairer=pairer, judges=[judge], rule_repeats=4)


def test_planted_structure_is_seen_as_lift_and_its_absence_as_none() -> None:
    with_structure, without = planted(0.9), planted(0.0)
    other = judged_in("another")
    lifted, level = with_structure.baseline(other), without.baseline(other)
    assert lifted.lift is not None and level.lift is not None
    assert lifted.lift > 1.5
    assert lifted.deviations is not None and lifted.deviations > 10
    assert level.lift == pytest.approx(1, abs=0.1)
    shuffled, unstructured = (each.baseline(SHUFFLED_COORDINATES) for each in (with_structure, without))
    assert shuffled.lift is not None and unstructured.lift is not None
    assert shuffled.lift > 1.03
    assert unstructured.lift == pytest.approx(1, abs=0.02)
    # A random assignment is beaten by any rule, structure or not: alone it proves nothing.
    assert (without.baseline(RANDOM_ASSIGNMENT).lift or 0) > 1.2


def test_uniform_random_colours_reach_the_published_height_of_rgb_similarities() -> None:
    generator = np.random.default_rng(9)
    artworks = side(Kind.ARTWORK, generator.uniform(0, 255, (300, 3)))
    tracks = side(Kind.TRACK, generator.uniform(0, 255, (300, 3)))
    pairer = partial(batch_greedy, measure=Cosine())
    result = evaluate(
        artworks, tracks, pairer(artworks, tracks), Cosine(), pairer=pairer, uniform_rgb=True, rule_repeats=3
    )
    uniform = result.baseline(UNIFORM_RGB)
    assert uniform.mean is not None and uniform.mean > 0.92
    assert uniform.lift == pytest.approx(1, abs=0.02)
    with pytest.raises(KeyError, match="no baseline"):
        result.baseline("another")


@pytest.mark.parametrize("measure", [Cosine(), ValenceArousal()], ids=["cosine", "va"])
def test_the_optimum_has_the_highest_mean_and_in_rgb_the_best_worst_pair(measure: Measure) -> None:
    generator = np.random.default_rng(10)
    artworks, tracks = side(Kind.ARTWORK, generator.random((200, 3))), side(Kind.TRACK, generator.random((200, 3)))
    greedy, stable, optimal = (
        evaluate(artworks, tracks, batch(artworks, tracks, measure), measure)
        for batch in (batch_greedy, batch_stable, batch_optimal)
    )
    assert optimal.mean is not None and stable.mean is not None and greedy.mean is not None
    assert optimal.mean >= max(stable.mean, greedy.mean)
    if measure == Cosine():  # exp(-d/sigma) is convex in d: there a bad pair can be worth its price
        assert (optimal.minimum or 0) > max(stable.minimum or 0, greedy.minimum or 0)


def faint(share: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """100 + 100 items in 120 numbers; `share` of each vector is what it has in common with one of the other side."""
    generator = np.random.default_rng(21)
    common = generator.normal(size=(100, 120))
    one, two = (share * common + (1 - share) * generator.normal(size=(100, 120)) for _ in range(2))
    return side(Kind.ARTWORK, one), side(Kind.TRACK, two)


def test_with_a_floor_the_number_of_pairs_tells_structure_that_the_means_hide() -> None:
    pairer = partial(batch_stable, measure=Cosine(), floor=0.28)
    structured, without = (
        evaluate(*sides, pairer(*sides), Cosine(), pairer=pairer) for sides in (faint(0.38), faint(0.0))
    )
    shuffled, level = structured.baseline(SHUFFLED_COORDINATES), without.baseline(SHUFFLED_COORDINATES)
    # Whatever reaches the floor lies just above it: the means are nearly the same with structure and without.
    assert shuffled.lift is not None and shuffled.lift < 1.15
    assert structured.pairs > 3 * shuffled.pairs > 0
    assert structured.pairs - shuffled.pairs > 5 * shuffled.pairs_spread > 0
    assert level.pairs > 0
    assert abs(without.pairs - level.pairs) <= 3 * level.pairs_spread
    random = structured.baseline(RANDOM_ASSIGNMENT)
    assert (random.pairs, random.pairs_spread, random.empty) == (structured.pairs, 0, 0)


def test_runs_that_pair_nothing_are_left_out_of_the_mean_and_counted() -> None:
    artworks, tracks = faint(0.7)
    pairs = batch_stable(artworks, tracks, Cosine())
    runs = iter([0, 1, 0, 2, 3, 0])

    def pairer(left: Vectors, right: Vectors) -> Pairs:
        return dict(zip(sorted(left), [(track, 0.8) for track in sorted(right)][: next(runs)], strict=False))

    (_, shuffled) = evaluate(artworks, tracks, pairs, Cosine(), pairer=pairer, rule_repeats=6).baselines
    assert shuffled.mean == pytest.approx(0.8), "0.4 if an empty run counted as a mean of 0"
    assert (shuffled.repeats, shuffled.empty, shuffled.pairs) == (6, 3, 1)
    assert shuffled.pairs_spread == pytest.approx(np.std([0, 1, 0, 2, 3, 0], ddof=1))
    (_, nothing) = evaluate(artworks, tracks, pairs, Cosine(), pairer=lambda *_: {}, rule_repeats=3).baselines
    assert (nothing.mean, nothing.spread, nothing.lift, nothing.deviations) == (None, None, None, None)
    assert (nothing.pairs, nothing.empty) == (0, 3)


def test_a_pair_without_a_vector_is_named() -> None:
    artworks = side(Kind.ARTWORK, np.ones((1, 3)))
    with pytest.raises(ValueError, match="track-missing"):
        evaluate(artworks, {}, {next(iter(artworks)): ("track-missing", 1.0)}, Cosine())
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(artworks, {}, {}, Cosine(), repeats=1)
