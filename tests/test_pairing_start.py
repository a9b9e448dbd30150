"""What must hold where all items come in at once: the library's dense optimum, proven by prices, and kept after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.media import Kind, digest_of, item_id
from workers.pairing.candidates import largest
from workers.pairing.optimal import OptimalRule, batch_optimal, rest_units
from workers.pairing.rules import Member
from workers.pairing.similarity import Cosine, Floats, Measure, ValenceArousal, as_units

Sides = dict[Kind, dict[str, Floats]]
Pins = list[tuple[str, str]]

MEASURES: list[Measure] = [Cosine(), ValenceArousal(0.4)]


def name_of(kind: Kind, number: int) -> str:
    return item_id(kind, digest_of(f"{kind} {number}".encode()))


def sides_of(artworks: Sequence[Sequence[float]], tracks: Sequence[Sequence[float]]) -> Sides:
    return {
        kind: {name_of(kind, number): np.asarray(vector, dtype=np.float64) for number, vector in enumerate(vectors)}
        for kind, vectors in zip(Kind, (artworks, tracks), strict=True)
    }


def started(sides: Sides, measure: Measure, floor: float | None, pins: Pins) -> OptimalRule:
    members = [Member(kind, name, vector) for kind, side in sides.items() for name, vector in side.items()]
    return OptimalRule.restore(measure, members, [], floor=floor, pins=pins).rule


def check(rule: OptimalRule, sides: Sides, measure: Measure, floor: float | None, pins: Pins) -> None:
    """The rule's total is the dense solver's, to the unit, and its prices prove it over every single pair."""
    rest = rest_units(measure, floor)
    pairs, prices = rule.pairs(), rule.prices()
    expected = batch_optimal(sides[Kind.ARTWORK], sides[Kind.TRACK], measure, floor=floor, pins=pins)
    fixed = {artwork: track for artwork, track in pins if artwork in pairs and pairs[artwork][0] == track}
    assert {
        artwork for artwork, track in pins if artwork in sides[Kind.ARTWORK] and track in sides[Kind.TRACK]
    } == set(fixed)

    def total(found: dict[str, tuple[str, float]]) -> int:
        return sum(as_units(value) - rest for artwork, (_, value) in found.items() if artwork not in fixed)

    assert total(pairs) == total(expected)
    assert len({track for track, _ in pairs.values()}) == len(pairs)
    closed = set(fixed) | set(fixed.values())
    taken = {track: artwork for artwork, (track, _) in pairs.items()}
    for name, price in prices.items():
        assert price >= 0
        if name in closed or (name not in pairs and name not in taken):
            assert price == 0
    left = [name for name in sides[Kind.ARTWORK] if name not in closed]
    right = [name for name in sides[Kind.TRACK] if name not in closed]
    if not left or not right:
        return
    prepared = [
        measure.prepare(np.asarray([sides[kind][name] for name in names]))
        for kind, names in zip(Kind, (left, right), strict=True)
    ]
    units = measure.matrix(prepared[0], prepared[1])
    lowest = measure.lowest if floor is None else as_units(floor)
    both = np.array([prices[name] for name in left])[:, None] + np.array([prices[name] for name in right])
    assert ((both >= units - rest) | (units < lowest)).all()
    for row, artwork in enumerate(left):
        if artwork in pairs:
            column = right.index(pairs[artwork][0])
            assert units[row, column] >= lowest
            assert both[row, column] == units[row, column] - rest
            assert as_units(pairs[artwork][1]) == units[row, column]


COARSE = st.tuples(*[st.integers(-1, 2).map(float)] * 2)
FINE = st.tuples(*[st.floats(-2, 2, allow_nan=False, width=32)] * 2)
VECTORS = st.lists(st.one_of(COARSE, FINE, st.just((1.0, 1.0))), max_size=12)
PINNED = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=3)


@pytest.fixture(params=["wide", "narrow"])
def lists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists as they are; or of two, so that the first solution over them is seldom the best, and half of what is
    wrong left over."""
    if request.param == "wide":
        return
    monkeypatch.setattr("workers.pairing.start._WIDTH", 2)
    monkeypatch.setattr("workers.pairing.optimal._WIDTH", 2)
    monkeypatch.setattr("workers.pairing.optimal._MENDED", 2)


def _pins(numbers: list[tuple[int, int]]) -> Pins:
    artworks, tracks = {}, set()
    for one, two in numbers:
        if one not in artworks and two not in tracks:
            artworks[one] = two
            tracks.add(two)
    return [(name_of(Kind.ARTWORK, one), name_of(Kind.TRACK, two)) for one, two in artworks.items()]


@pytest.mark.usefixtures("lists")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    VECTORS, VECTORS, st.sampled_from(MEASURES), st.sampled_from([None, None, -0.5, 0.0, 0.6, 1.0]), PINNED, st.data()
)
def test_the_start_is_the_dense_optimum_and_stays_optimal(
    artworks: list[tuple[float, ...]],
    tracks: list[tuple[float, ...]],
    measure: Measure,
    floor: float | None,
    pinned: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    sides, pins = sides_of(artworks, tracks), _pins(pinned)
    rule = started(sides, measure, floor, pins)
    check(rule, sides, measure, floor, pins)
    for number in range(4):
        kind = data.draw(st.sampled_from(list(Kind)))
        if sides[kind] and data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(sides[kind])))
            del sides[kind][name]
            rule.leave(name)
        else:
            name, vector = name_of(kind, 20 + number), np.asarray(data.draw(st.one_of(COARSE, FINE)))
            sides[kind][name] = vector
            rule.join(kind, name, vector)
        check(rule, sides, measure, floor, pins)


@pytest.mark.parametrize("dimension", [3, 15, 100])
@pytest.mark.parametrize("counts", [(400, 400), (400, 440), (440, 400)])
@pytest.mark.usefixtures("lists")
def test_larger_random_sides_start_optimal_and_stay_so(dimension: int, counts: tuple[int, int]) -> None:
    generator = np.random.default_rng([dimension, *counts])
    vectors = [generator.random((count, dimension)) - 0.2 for count in counts]
    # Some are the same as others, on both sides.
    for side in vectors:
        side[:40] = side[40:80]
    vectors[1][:20] = vectors[0][:20]
    sides = sides_of(*vectors)
    rule = started(sides, Cosine(), None, [])
    check(rule, sides, Cosine(), None, [])
    for step in range(12):
        kind = list(Kind)[step % 2]
        name = sorted(sides[kind])[int(generator.integers(len(sides[kind])))]
        del sides[kind][name]
        rule.leave(name)
        name, vector = name_of(kind, 1000 + step), generator.random(dimension) - 0.2
        sides[kind][name] = vector
        rule.join(kind, name, vector)
    check(rule, sides, Cosine(), None, [])


@pytest.mark.parametrize("floor", [None, 0.9])
def test_many_alike_start_optimal(floor: float | None) -> None:
    generator = np.random.default_rng(1)
    few = generator.random((3, 3))
    sides = sides_of(few[generator.integers(3, size=900)], few[generator.integers(3, size=950)])
    rule = started(sides, Cosine(), floor, [])
    check(rule, sides, Cosine(), floor, [])


def test_of_many_equal_values_every_row_keeps_others() -> None:
    values = np.zeros((50, 5000), dtype=np.float32)
    chosen, bound = largest(values, 32, np.arange(50))
    assert (chosen >= 0).all() and (bound == 0).all()
    assert all(len(set(row.tolist())) == 32 for row in chosen)
    assert len(np.unique(chosen)) > 800  # 50 rows of 32 drawn at random from 5,000 hold about 1,370 of them
    same, _ = largest(values, 32)
    assert len(np.unique(same)) == 32
