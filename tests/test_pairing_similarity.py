"""What must hold of similarities: the papers' formulas, exact rounding, and the same number in every shape."""

from __future__ import annotations

import math

import numpy as np
import pytest

from workers.pairing.similarity import (
    DEFAULT_SIGMA,
    UNITS,
    Cosine,
    Measure,
    ValenceArousal,
    as_similarity,
    as_units,
    blocks,
    mean_distance,
    measure_for,
)


@pytest.mark.parametrize("measure", [Cosine(), ValenceArousal(0.34)], ids=["cosine", "va"])
@pytest.mark.parametrize("dimension", [2, 3, 15, 384])
def test_a_similarity_is_the_same_alone_in_a_row_and_in_a_matrix(measure: Measure, dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    left, right = (measure.prepare(generator.normal(size=(count, dimension))) for count in (40, 70))
    matrix = measure.matrix(left, right)
    for index, vector in enumerate(left):
        assert (measure.row(vector, right) == matrix[index]).all()
        assert (measure.paired(np.tile(vector, (70, 1)), right) == matrix[index]).all()
    assert (matrix == measure.matrix(right, left).T).all()
    assert (np.concatenate([block for _, block in blocks(left, right, measure, rows=7)]) == matrix).all()


def test_values_at_a_rounding_boundary_round_alike_in_every_shape() -> None:
    cosine = Cosine()
    generator = np.random.default_rng(5)
    # Pairs of plane vectors whose cosine lies within a few 1e-17 of half a unit.
    targets = (generator.integers(0, UNITS - 1, size=500) + 0.5) / UNITS
    angles = np.arccos(targets)
    others = cosine.prepare(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    alone = np.array([cosine.paired(np.array([[1.0, 0.0]]), other[None, :])[0] for other in others])
    turned = cosine.prepare([[1.0, 0.0]])
    assert (cosine.row(turned[0], others) == alone).all()
    assert (cosine.matrix(turned, others)[0] == alone).all()
    assert (cosine.matrix(others, turned)[:, 0] == alone).all()


def test_cosine_is_the_cosine_and_zero_vectors_are_similar_to_nothing() -> None:
    cosine = Cosine()
    assert cosine.row(
        cosine.prepare([3.0, 4.0]), cosine.prepare([[4.0, 3.0], [-3.0, -4.0], [0.0, 0.0]])
    ).tolist() == [
        as_units(0.96),
        -UNITS,
        0,
    ]
    assert cosine.paired(cosine.prepare([[0.0, 0.0]]), cosine.prepare([[0.0, 0.0]])).tolist() == [0]


def test_huge_and_tiny_vectors_keep_their_direction() -> None:
    cosine = Cosine()
    units = cosine.paired(
        cosine.prepare([[1e300, 1e300], [1e-300, 0.0]]), cosine.prepare([[1e-300, 1e-300], [1.0, 0.0]])
    )
    assert units.tolist() == [UNITS, UNITS]


def test_va_similarity_is_mmvas_formula() -> None:
    measure = ValenceArousal(0.34)
    units = measure.row(measure.prepare([0.2, 0.9]), measure.prepare([[0.5, 0.5], [0.2, 0.9]]))
    assert as_similarity(units[0]) == pytest.approx(math.exp(-0.5 / 0.34), abs=5.1e-8)
    assert units[1] == UNITS


def test_sigma_is_the_mean_distance_over_all_pairs() -> None:
    left, right = [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    expected = (0 + 1 + math.sqrt(2) + 1 + math.sqrt(2) + 1) / 6
    assert mean_distance(left, right) == pytest.approx(expected)
    assert mean_distance(left, right, sample=5) == mean_distance(left, right, sample=5)
    assert mean_distance([], right) == DEFAULT_SIGMA
    assert mean_distance([[0.5, 0.5]], [[0.5, 0.5]]) == DEFAULT_SIGMA


def test_bad_vectors_and_measures_are_refused_in_plain_words() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Cosine().prepare([1.0, float("nan")])
    with pytest.raises(ValueError, match="cannot be paired"):
        Cosine().prepare([])
    with pytest.raises(ValueError, match="sigma"):
        ValenceArousal(0.0)
    with pytest.raises(ValueError, match="cosine or euclidean"):
        measure_for("manhattan")
    assert measure_for("cosine") == Cosine()
    assert measure_for("euclidean") == ValenceArousal(DEFAULT_SIGMA)
    assert measure_for("euclidean", 0.5) == ValenceArousal(0.5)
