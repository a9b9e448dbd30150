"""What must hold of every rule: after any arrivals, departures and pins it equals its definition, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.media import Kind, digest_of, item_id
from schemas.records import PairChange
from workers.pairing.by_name import RULES, rule_named
from workers.pairing.greedy import GreedyRule, batch_greedy
from workers.pairing.optimal import OptimalRule, batch_optimal, rest_units
from workers.pairing.rules import Member, Pairs, Rule, StableRule, batch_stable
from workers.pairing.similarity import Cosine, Measure, ValenceArousal, as_units

Vector = tuple[float, ...]


def name_of(kind: Kind, number: int) -> str:
    return item_id(kind, digest_of(f"{kind} {number}".encode()))


class World:
    """The complete set of items as a plain dictionary, beside the rule that is tested, and a wall that only
    applies the changes that the rule reports."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.items: dict[Kind, dict[str, Vector]] = {kind: {} for kind in Kind}
        self.sequences: dict[str, int] = {}
        self.pins: set[tuple[str, str]] = set()
        self.wall: Pairs = {}

    def join(self, kind: Kind, number: int, vector: Vector, sequence: int = 0) -> list[PairChange]:
        identity = name_of(kind, number)
        self.items[kind][identity] = vector
        self.sequences[identity] = sequence
        return self.hang(self.rule.join(kind, identity, vector, sequence))

    def leave(self, kind: Kind, number: int) -> list[PairChange]:
        self.items[kind].pop(name_of(kind, number), None)
        return self.hang(self.rule.leave(name_of(kind, number)))

    def pin(self, one: int, two: int) -> list[PairChange]:
        pair = name_of(Kind.ARTWORK, one), name_of(Kind.TRACK, two)
        if pair in self.pins:
            self.pins.remove(pair)
            return self.hang(self.rule.unpin(*pair))
        if any(pair[0] == artwork or pair[1] == track for artwork, track in self.pins):
            with pytest.raises(ValueError, match="unpin that pair first"):
                self.rule.pin(*pair)
            return []
        self.pins.add(pair)
        return self.hang(self.rule.pin(*pair))

    def hang(self, changes: list[PairChange]) -> list[PairChange]:
        for change in changes:
            if change.what == "parted":
                track, similarity = self.wall.pop(change.artwork)
                assert (track, similarity) == (change.track, change.similarity)
            else:
                assert change.artwork not in self.wall
                assert change.track not in {track for track, _ in self.wall.values()}
                self.wall[change.artwork] = change.track, change.similarity
            assert change.why
        return changes

    def members(self) -> list[Member]:
        return [
            Member(kind, identity, vector, self.sequences[identity])
            for kind, side in self.items.items()
            for identity, vector in side.items()
        ]


# Few items, few values: ties, duplicates, zero vectors and unequal counts are the rule, not the exception.
NUMBERS = st.integers(0, 6)
KINDS = st.sampled_from(list(Kind))
COARSE = st.tuples(*[st.integers(-1, 2).map(float)] * 2)
FINE = st.tuples(*[st.floats(-2, 2, allow_nan=False, width=32)] * 2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), KINDS, NUMBERS, st.one_of(COARSE, FINE), st.integers(0, 4)),
        st.tuples(st.just("join"), KINDS, NUMBERS, COARSE, st.integers(0, 4)),
        st.tuples(st.just("leave"), KINDS, NUMBERS),
        st.tuples(st.just("pin"), NUMBERS, NUMBERS),
    ),
    max_size=40,
)
MEASURES = st.sampled_from([Cosine(), ValenceArousal(0.4)])
FLOORS = st.sampled_from([None, None, -0.5, 0.0, 0.6, 1.0])


def play(world: World, steps: Sequence[tuple]) -> None:  # type: ignore[type-arg]
    for what, *rest in steps:
        getattr(world, what)(*rest)


@settings(max_examples=300, deadline=None)
@given(STEPS, MEASURES, FLOORS)
def test_stable_equals_all_pairs_sorted_and_taken_after_every_step(
    steps: Sequence[tuple],  # type: ignore[type-arg]
    measure: Measure,
    floor: float | None,
) -> None:
    world = World(StableRule(measure, floor=floor))
    for step in steps:
        play(world, [step])
        expected = batch_stable(
            world.items[Kind.ARTWORK], world.items[Kind.TRACK], measure, floor=floor, pins=world.pins
        )
        assert world.rule.pairs() == expected
        assert world.wall == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(KINDS, COARSE), max_size=14).flatmap(
        lambda items: st.tuples(
            st.permutations([(kind, number, vector) for number, (kind, vector) in enumerate(items)]),
            st.permutations([(kind, number, vector) for number, (kind, vector) in enumerate(items)]),
        )
    )
)
def test_stable_does_not_depend_on_the_order_of_arrival(orders: tuple[list, list]) -> None:  # type: ignore[type-arg]
    results = []
    for order in orders:
        world = World(StableRule(Cosine()))
        for kind, number, vector in order:
            world.join(kind, number, vector)
        results.append(world.rule.pairs())
    assert results[0] == results[1]


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first look in single precision, as in wide spaces, that is wrong by as much as it may be."""
    monkeypatch.setattr("workers.pairing.rules._WIDE", 1)
    nearly = Cosine.nearly

    def hardly(self: Cosine, vector: Any, others: Any) -> Any:
        generator = np.random.default_rng(len(others))
        off = self.single_slack(others.shape[1])
        assert off is not None and others.dtype == np.float32
        # Single precision itself is off by less than three units in so few numbers.
        return nearly(self, vector, others) + generator.choice([3 - off, 0, off - 3], size=len(others))

    monkeypatch.setattr(Cosine, "nearly", hardly)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, FLOORS)
def test_every_rule_is_exact_where_single_precision_is_looked_at_first(
    single: None,
    steps: Sequence[tuple],  # type: ignore[type-arg]
    floor: float | None,
) -> None:
    for test in (
        test_stable_equals_all_pairs_sorted_and_taken_after_every_step,
        test_greedy_equals_tracks_choosing_in_order_of_arrival_after_every_step,
        test_optimal_has_the_greatest_total_after_every_step,
    ):
        test.hypothesis.inner_test(steps, Cosine(), floor)  # type: ignore[attr-defined]


@pytest.mark.parametrize("dimension", [3, 15, 100])
def test_stable_equals_its_definition_on_larger_random_sides(dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    world = World(StableRule(Cosine()))
    for number in generator.permutation(400).tolist():
        world.join(Kind.ARTWORK if number < 250 else Kind.TRACK, number, tuple(generator.random(dimension)))
    for number in generator.choice(400, size=150, replace=False).tolist():
        world.leave(Kind.ARTWORK if number < 250 else Kind.TRACK, number)
    for number in generator.choice(400, size=60, replace=False).tolist():
        world.join(Kind.ARTWORK if number < 250 else Kind.TRACK, number, tuple(generator.random(dimension)))
    expected = batch_stable(world.items[Kind.ARTWORK], world.items[Kind.TRACK], Cosine())
    assert world.rule.pairs() == world.wall == expected


@pytest.mark.parametrize("dimension", [3, 15, 100])
def test_greedy_equals_its_definition_on_larger_random_sides(dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    world = World(GreedyRule(Cosine()))

    def join(number: int) -> None:
        kind = Kind.ARTWORK if number < 130 else Kind.TRACK
        world.join(kind, number, tuple(generator.normal(size=dimension)), int(generator.integers(200)))

    for number in generator.permutation(250).tolist():
        join(number)
    for number in generator.choice(250, size=90, replace=False).tolist():
        world.leave(Kind.ARTWORK if number < 130 else Kind.TRACK, number)
    for number in generator.choice(250, size=60, replace=False).tolist():
        join(number)
    expected = batch_greedy(world.items[Kind.ARTWORK], world.items[Kind.TRACK], Cosine(), sequences=world.sequences)
    assert world.rule.pairs() == world.wall == expected


@settings(max_examples=200, deadline=None)
@given(STEPS, MEASURES, FLOORS)
def test_greedy_equals_tracks_choosing_in_order_of_arrival_after_every_step(
    steps: Sequence[tuple],  # type: ignore[type-arg]
    measure: Measure,
    floor: float | None,
) -> None:
    world = World(GreedyRule(measure, floor=floor))
    for step in steps:
        play(world, [step])
        expected = batch_greedy(
            world.items[Kind.ARTWORK],
            world.items[Kind.TRACK],
            measure,
            sequences=world.sequences,
            floor=floor,
            pins=world.pins,
        )
        assert world.rule.pairs() == expected
        assert world.wall == expected


def gain_of(pairs: Pairs, pins: set[tuple[str, str]], rest: int) -> int:
    """Total gain in units over the pairs that the rule chose itself."""
    return sum(as_units(value) - rest for one, (two, value) in pairs.items() if (one, two) not in pins)


@settings(max_examples=300, deadline=None)
@given(STEPS, MEASURES, FLOORS)
def test_optimal_has_the_greatest_total_after_every_step(
    steps: Sequence[tuple],  # type: ignore[type-arg]
    measure: Measure,
    floor: float | None,
) -> None:
    rule = OptimalRule(measure, floor=floor)
    world = World(rule)
    for step in steps:
        play(world, [step])
        expected = batch_optimal(
            world.items[Kind.ARTWORK], world.items[Kind.TRACK], measure, floor=floor, pins=world.pins
        )
        pairs, rest = rule.pairs(), rest_units(measure, floor)
        assert gain_of(pairs, world.pins, rest) == gain_of(expected, world.pins, rest)
        assert world.wall == pairs
        for artwork, (track, similarity) in pairs.items():
            assert (artwork, track) in world.pins or floor is None or similarity >= floor
        prices = rule.prices()
        assert sum(prices.values()) == gain_of(pairs, world.pins, rest)  # the proof: duals meet the primal
        assert min(prices.values(), default=0) >= 0


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of two and no search nearby: bounds seldom prove enough, so that everything wider is used too."""
    monkeypatch.setattr("workers.pairing.optimal._WIDTH", 2)
    monkeypatch.setattr("workers.pairing.optimal._NEARBY", 0)
    monkeypatch.setattr("workers.pairing.optimal._NEARBY_EQUAL", 0)


@pytest.mark.filterwarnings("error:Graph has negative weights")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, MEASURES, FLOORS)
def test_optimal_is_exact_where_lists_prove_nothing(
    narrow: None,
    steps: Sequence[tuple],  # type: ignore[type-arg]
    measure: Measure,
    floor: float | None,
) -> None:
    test_optimal_has_the_greatest_total_after_every_step.hypothesis.inner_test(steps, measure, floor)


@pytest.mark.filterwarnings("error:Graph has negative weights")
@pytest.mark.parametrize("width", [2, 8, 32])
@pytest.mark.parametrize("counts", [(150, 150), (150, 160)])
@pytest.mark.parametrize("dimension", [3, 15, 100])
def test_optimal_stays_optimal_while_items_of_large_sides_come_and_go(
    narrow: None, width: int, counts: tuple[int, int], dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pairing.optimal._WIDTH", width)
    generator = np.random.default_rng([dimension, width])
    rule = OptimalRule(Cosine())
    world = World(rule)
    sides = list(zip(Kind, counts, strict=True))
    for kind, count in sides:
        for number in range(count):
            world.join(kind, number, tuple(generator.normal(size=dimension)))
    for step in range(60):
        kind, count = sides[step % 2]
        world.leave(kind, int(generator.integers(count)))
        if step % 3:
            world.join(kind, int(generator.integers(count)), tuple(generator.normal(size=dimension)))
        if step % 10 == 9:
            expected = batch_optimal(world.items[Kind.ARTWORK], world.items[Kind.TRACK], Cosine())
            rest = rest_units(Cosine(), None)
            assert gain_of(rule.pairs(), set(), rest) == gain_of(expected, set(), rest)
            assert sum(rule.prices().values()) == gain_of(expected, set(), rest)
            assert world.wall == rule.pairs()


@pytest.mark.parametrize("dimension", [3, 15])
def test_optimal_equals_the_batch_solver_on_larger_random_sides(dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    rule = OptimalRule(Cosine())
    world = World(rule)
    for number in generator.permutation(300).tolist():
        world.join(Kind.ARTWORK if number < 160 else Kind.TRACK, number, tuple(generator.random(dimension)))
    for number in generator.choice(300, size=80, replace=False).tolist():
        world.leave(Kind.ARTWORK if number < 160 else Kind.TRACK, number)
    expected = batch_optimal(world.items[Kind.ARTWORK], world.items[Kind.TRACK], Cosine())
    assert rule.total() == pytest.approx(sum(value for _, value in expected.values()), abs=1e-6)
    assert len(rule.pairs()) == len(expected)


def test_rules_are_known_by_name() -> None:
    assert set(RULES) == {"greedy", "stable", "optimal"}
    assert all(rule_named(name).name == name for name in RULES)
    with pytest.raises(ValueError, match="greedy, optimal, stable"):
        rule_named("random")


RULE_CLASSES: list[type[Rule]] = list(RULES.values())


@pytest.mark.parametrize("made", RULE_CLASSES)
@settings(max_examples=60, deadline=None)
@given(STEPS, MEASURES, FLOORS)
def test_a_restored_rule_goes_on_as_if_nothing_had_happened(
    made: type[Rule],
    steps: Sequence[tuple],  # type: ignore[type-arg]
    measure: Measure,
    floor: float | None,
) -> None:
    world = World(made(measure, floor=floor))
    play(world, steps)
    pairs = [(artwork, track, similarity) for artwork, (track, similarity) in world.rule.pairs().items()]
    restored = made.restore(measure, world.members(), pairs, floor=floor, pins=world.pins)
    assert restored.agreed and not restored.changes
    assert restored.rule.pairs() == world.rule.pairs()
    assert restored.rule.pins() == world.pins
    world.rule = restored.rule
    for step in steps[:10]:
        play(world, [step])
        assert world.wall == world.rule.pairs()


@pytest.mark.parametrize("block", [4_000_000, 1], ids=["in one block", "row by row"])
@pytest.mark.parametrize("made", RULE_CLASSES)
def test_a_snapshot_that_does_not_fit_is_computed_anew_and_the_difference_told(
    made: type[Rule], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pairing.candidates.BLOCK", block)
    world = World(made(Cosine()))
    for number in range(6):
        world.join(Kind.ARTWORK, number, (1.0, float(number)))
        world.join(Kind.TRACK, number, (1.0, number + 0.1))
    right = world.rule.pairs()
    rows = [(artwork, track, similarity) for artwork, (track, similarity) in right.items()]
    (one, two), rest = rows[:2], rows[2:]
    crossed = [(one[0], two[1], 0.5), (two[0], one[1], 0.5)]
    honest = Cosine()
    vectors = {member.identity: honest.prepare(member.vector) for member in world.members()}
    swapped = [
        (artwork, track, int(honest.paired(vectors[artwork][None], vectors[track][None])[0]) / 1e7)
        for artwork, track, _ in crossed
    ]
    assert made.restore(Cosine(), world.members(), rows).agreed
    wrong = {
        "wrong similarity": [(one[0], one[1], one[2] - 0.1), two, *rest],
        "a pair too few": rows[1:],
        "unknown item": [(one[0], name_of(Kind.TRACK, 99), 0.5), *rows[1:]],
        "twice the same track": [*rows, (one[0], two[1], 0.5)],
        "not what the rule demands": [*swapped, *rest],
        "nothing": [],
    }
    for what, pairs in wrong.items():
        restored = made.restore(Cosine(), world.members(), pairs)
        assert not restored.agreed, what
        assert restored.rule.pairs() == right, what
        wall = {(artwork, track): similarity for artwork, track, similarity in pairs}
        for change in restored.changes:
            if change.what == "parted":
                assert as_units(wall.pop((change.artwork, change.track))) == as_units(change.similarity)
            else:
                wall[change.artwork, change.track] = change.similarity
        assert {(artwork, track): similarity for artwork, track, similarity in rows} == wall, what


@pytest.mark.parametrize("made", RULE_CLASSES)
@settings(max_examples=100, deadline=None)
@given(STEPS, MEASURES, FLOORS, st.integers(0, 20), STEPS)
def test_a_snapshot_of_other_vectors_is_taken_over_only_where_it_is_what_the_rule_demands(
    made: type[Rule],
    steps: Sequence[tuple],  # type: ignore[type-arg]
    measure: Measure,
    floor: float | None,
    block: int,
    more: Sequence[tuple],  # type: ignore[type-arg]
) -> None:
    world = World(made(measure, floor=floor))
    play(world, steps)
    pairs = [(artwork, track, similarity) for artwork, (track, similarity) in world.rule.pairs().items()]
    play(world, more[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.pairing.candidates.BLOCK", 1 + block)
        restored = made.restore(measure, world.members(), pairs, floor=floor, pins=world.pins)
    demanded = made.filled(measure, world.members(), floor=floor, pins=world.pins).pairs()
    if made is OptimalRule:
        rest = rest_units(measure, floor)
        assert gain_of(restored.rule.pairs(), world.pins, rest) == gain_of(demanded, world.pins, rest)
    else:
        assert restored.rule.pairs() == demanded
        assert restored.agreed == (sorted(pairs) == sorted((one, *other) for one, other in demanded.items()))


@pytest.mark.parametrize(("made", "batch"), [(StableRule, batch_stable), (GreedyRule, batch_greedy)])
def test_one_item_that_was_read_anew_is_found_among_many(made: type[Rule], batch: Any) -> None:
    """Over 2,020 x 2,000 pairs, one of the free pictures now is the very track that had to take the least."""
    generator = np.random.default_rng(3)
    members = [
        Member(kind, name_of(kind, number), vector, number)
        for kind, count in zip(Kind, (2020, 2000), strict=True)
        for number, vector in enumerate(generator.random((count, 15)))
    ]
    found = made.filled(Cosine(), members).pairs()
    pairs = [(artwork, track, similarity) for artwork, (track, similarity) in found.items()]
    assert made.restore(Cosine(), members, pairs).agreed
    least = min(pairs, key=lambda pair: pair[2])[1]
    free = next(each.identity for each in members if each.kind is Kind.ARTWORK and each.identity not in found)
    copied = next(each.vector for each in members if each.identity == least)
    changed = [
        Member(each.kind, each.identity, copied, each.sequence) if each.identity == free else each for each in members
    ]
    restored = made.restore(Cosine(), changed, pairs)
    assert not restored.agreed
    sides = {kind: {each.identity: each.vector for each in changed if each.kind is kind} for kind in Kind}
    more = {"sequences": {each.identity: each.sequence for each in changed}} if made is GreedyRule else {}
    assert restored.rule.pairs() == batch(sides[Kind.ARTWORK], sides[Kind.TRACK], Cosine(), **more)
    assert free in restored.rule.pairs()


@pytest.mark.parametrize("listed", [2, 32])
@pytest.mark.parametrize("made", RULE_CLASSES)
def test_all_items_at_once_are_paired_as_one_by_one(
    made: type[Rule], listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pairing.rules._LISTED", listed)

    @settings(max_examples=60, deadline=None)
    @given(STEPS, MEASURES, FLOORS)
    def same(steps: Sequence[tuple], measure: Measure, floor: float | None) -> None:  # type: ignore[type-arg]
        world = World(made(measure, floor=floor))
        play(world, steps)
        restored = made.restore(measure, world.members(), [], floor=floor, pins=world.pins)
        if made is OptimalRule:
            rest = rest_units(measure, floor)
            assert gain_of(restored.rule.pairs(), world.pins, rest) == gain_of(world.rule.pairs(), world.pins, rest)
        else:
            assert restored.rule.pairs() == world.rule.pairs()
        world.rule, world.wall = restored.rule, restored.rule.pairs()
        for step in steps[:6]:
            play(world, [step])
            assert world.wall == world.rule.pairs()

    same()


@pytest.mark.parametrize("dimension", [3, 100])
@pytest.mark.parametrize("made", [StableRule, GreedyRule])
def test_larger_sides_at_once_are_what_the_definition_demands(made: type[Rule], dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    sides = {
        kind: {name_of(kind, number): generator.normal(size=dimension) for number in range(count)}
        for kind, count in zip(Kind, (700, 800), strict=True)
    }
    members = [Member(kind, name, vector, len(name)) for kind, side in sides.items() for name, vector in side.items()]
    batch = batch_stable if made is StableRule else batch_greedy
    expected = batch(sides[Kind.ARTWORK], sides[Kind.TRACK], Cosine())
    assert made.restore(Cosine(), members, []).rule.pairs() == expected


def test_every_change_says_why() -> None:
    world = World(StableRule(Cosine()))
    first, second = name_of(Kind.ARTWORK, 0), name_of(Kind.ARTWORK, 1)
    track = name_of(Kind.TRACK, 0)
    assert world.join(Kind.ARTWORK, 0, (1.0, 1.0)) == []
    (formed,) = world.join(Kind.TRACK, 0, (1.0, 0.0))
    assert (formed.what, formed.why) == ("formed", f"formed by the arrival of {track}")
    parted, formed = world.join(Kind.ARTWORK, 1, (1.0, 0.1))
    assert (parted.artwork, parted.what, parted.why) == (first, "parted", f"displaced by {second}")
    assert (formed.artwork, formed.why) == (second, f"formed by the arrival of {second}")
    parted, formed = world.leave(Kind.ARTWORK, 1)
    assert (parted.artwork, parted.why) == (second, f"withdrawn: {second}")
    assert (formed.artwork, formed.why) == (first, f"formed after {track} came free")
    parted, formed = world.join(Kind.ARTWORK, 0, (1.0, 0.5))
    assert (parted.why, formed.why) == (f"{first} changed", f"formed after {first} changed")
    assert parted.similarity < formed.similarity
    assert world.pin(0, 0) == []
    assert world.rule.partner_of(track) == first
    assert world.rule.partner_of(second) is None


def test_the_same_item_again_and_an_unknown_departure_change_nothing() -> None:
    world = World(StableRule(Cosine()))
    world.join(Kind.ARTWORK, 0, (1.0, 1.0))
    world.join(Kind.TRACK, 0, (1.0, 0.0))
    assert world.join(Kind.TRACK, 0, (1.0, 0.0)) == []
    assert world.join(Kind.TRACK, 0, (2.0, 0.0)) == []  # the same direction is the same similarity
    assert world.leave(Kind.TRACK, 7) == []
    assert world.rule.count(Kind.TRACK) == 1 and name_of(Kind.TRACK, 0) in world.rule


def test_bad_arrivals_are_refused_and_leave_everything_as_it_was() -> None:
    rule = StableRule(Cosine())
    artwork, track = name_of(Kind.ARTWORK, 0), name_of(Kind.TRACK, 0)
    rule.join(Kind.ARTWORK, artwork, [1.0, 0.0])
    rule.join("track", track, [1.0, 0.0])
    before = rule.pairs()
    with pytest.raises(ValueError, match=r"3 numbers .* 2"):
        rule.join(Kind.TRACK, name_of(Kind.TRACK, 1), [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="not finite"):
        rule.join(Kind.TRACK, track, [1.0, float("inf")])
    with pytest.raises(ValueError, match="ids begin with their kind"):
        rule.join(Kind.TRACK, artwork, [1.0, 0.0])
    with pytest.raises(ValueError, match="one item has one vector"):
        rule.join(Kind.TRACK, track, [[1.0, 0.0]])
    with pytest.raises(ValueError, match="artwork, then track"):
        rule.pin(track, artwork)
    assert rule.pairs() == before


def test_slots_of_items_that_left_are_used_again() -> None:
    world = World(StableRule(Cosine()))
    for number in range(200):
        world.join(Kind.ARTWORK, number, (1.0, float(number)))
        world.join(Kind.TRACK, number, (float(number), 1.0))
        if number >= 3:
            world.leave(Kind.ARTWORK, number - 3)
            world.leave(Kind.TRACK, number - 3)
    assert {side.used for side in world.rule._sides.values()} == {4}
    assert world.wall == world.rule.pairs()
    assert len(world.wall) == 3
