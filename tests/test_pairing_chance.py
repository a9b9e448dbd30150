"""What must hold of the chance level: it is the mean over random assignments, and structure shows above it."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.media import Kind, digest_of, item_id
from workers.pairing.chance import Chance, chance_of
from workers.pairing.rules import StableRule, batch_stable
from workers.pairing.similarity import Cosine, Measure, ValenceArousal


def side(kind: Kind, vectors: np.ndarray) -> dict[str, np.ndarray]:
    return {item_id(kind, digest_of(f"{kind} {index}".encode())): vector for index, vector in enumerate(vectors)}


def test_without_pairs_there_is_no_chance_level() -> None:
    assert chance_of({}, {}, {}, Cosine()) == Chance(0, None, None, None, None, None, {}, 100, False)


@pytest.mark.parametrize("counts", [(30, 9), (300, 900)], ids=["few", "many"])
def test_chance_is_the_mean_of_all_cross_pairs_whatever_the_pairing(counts: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    artworks = side(Kind.ARTWORK, generator.random((counts[0], 3)))
    tracks = side(Kind.TRACK, generator.random((counts[1], 3)))
    measure = Cosine()
    result = chance_of(artworks, tracks, batch_stable(artworks, tracks, measure), measure, repeats=400)
    every = measure.matrix(measure.prepare(list(artworks.values())), measure.prepare(list(tracks.values()))) / 1e7
    assert result.chance is not None and result.spread is not None and result.lift is not None
    assert abs(result.chance - every.mean()) < 5 * result.spread / np.sqrt(400) + 1e-9
    assert result.lift == pytest.approx(result.mean / result.chance)
    assert result.pairs == min(counts)


def test_the_same_seed_gives_the_same_figures() -> None:
    generator = np.random.default_rng(2)
    artworks, tracks = side(Kind.ARTWORK, generator.random((20, 3))), side(Kind.TRACK, generator.random((8, 3)))
    pairs = batch_stable(artworks, tracks, Cosine())
    assert chance_of(artworks, tracks, pairs, Cosine(), seed=4) == chance_of(
        artworks, tracks, pairs, Cosine(), seed=4
    )
    assert chance_of(artworks, tracks, pairs, Cosine(), seed=4) != chance_of(
        artworks, tracks, pairs, Cosine(), seed=5
    )


def test_percentiles_count_the_cross_pairs_below_and_half_of_the_equal_ones() -> None:
    artworks = side(Kind.ARTWORK, np.array([[1.0, 0.0], [0.0, 1.0]]))
    tracks = side(Kind.TRACK, np.array([[1.0, 0.0], [0.0, 1.0]]))
    pairs = batch_stable(artworks, tracks, Cosine())
    result = chance_of(artworks, tracks, pairs, Cosine())
    assert list(result.percentiles.values()) == [75.0, 75.0]  # above two zeros, level with two ones
    assert not result.sampled


def test_sampled_percentiles_are_near_the_exact_ones() -> None:
    generator = np.random.default_rng(3)
    artworks, tracks = side(Kind.ARTWORK, generator.random((90, 3))), side(Kind.TRACK, generator.random((80, 3)))
    pairs = batch_stable(artworks, tracks, Cosine())
    exact = chance_of(artworks, tracks, pairs, Cosine())
    sampled = chance_of(artworks, tracks, pairs, Cosine(), most=3000)
    assert sampled.sampled and not exact.sampled
    assert max(abs(sampled.percentiles[name] - exact.percentiles[name]) for name in pairs) < 5


@pytest.mark.parametrize("measure", [Cosine(), ValenceArousal()], ids=["cosine", "va"])
def test_planted_structure_lifts_pairs_judged_in_another_space_and_noise_does_not(measure: Measure) -> None:
    generator = np.random.default_rng(6)
    hidden = generator.random((150, 2)) ** 3

    def noisy(scale: float) -> np.ndarray:
        return hidden + generator.normal(scale=scale, size=hidden.shape)

    judged = side(Kind.ARTWORK, noisy(0.02)), side(Kind.TRACK, noisy(0.02))
    lifts = {}
    for name, (one, two) in {
        "planted": (noisy(0.02), noisy(0.02)),
        "unrelated": (generator.random((150, 2)), generator.random((150, 2))),
    }.items():
        made = StableRule(ValenceArousal())
        for kind, vectors in ((Kind.ARTWORK, one), (Kind.TRACK, two)):
            for identity, vector in side(kind, vectors).items():
                made.join(kind, identity, vector)
        lifts[name] = chance_of(*judged, made.pairs(), measure)
    planted, unrelated = lifts["planted"], lifts["unrelated"]
    assert planted.lift is not None and unrelated.lift is not None
    assert planted.lift > 1.2
    assert unrelated.lift == pytest.approx(1, abs=0.1)
    assert planted.deviations is not None and planted.deviations > 5
    assert np.mean(list(planted.percentiles.values())) > 75
    assert np.mean(list(unrelated.percentiles.values())) == pytest.approx(50, abs=8)


def test_a_pair_of_an_unknown_item_is_named() -> None:
    artworks, tracks = side(Kind.ARTWORK, np.ones((1, 3))), side(Kind.TRACK, np.ones((1, 3)))
    with pytest.raises(ValueError, match="track-missing"):
        chance_of(artworks, tracks, {next(iter(artworks)): ("track-missing", 1.0)}, Cosine())
    with pytest.raises(ValueError, match="at least 2"):
        chance_of(artworks, tracks, {}, Cosine(), repeats=1)
