"""An exhibition's agent: whatever comes, changes, crashes or is overtaken, target and wall are what they must be."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import workers.pair
from schemas.failures import Passing
from schemas.media import Kind, digest_of, item_id, split_item_id
from schemas.records import ExhibitionSettings, PairingRevision, PairingSnapshot, now
from workers.pair import ExhibitionPairing, PairingState, Prepared, Ready, read_state
from workers.pairing.calm import hanging
from workers.pairing.greedy import batch_greedy
from workers.pairing.optimal import batch_optimal
from workers.pairing.rules import batch_stable
from workers.pairing.spaces import pairing_space

ITEMS = [item_id(kind, digest_of(f"{number}".encode())) for kind in Kind for number in range(4)]
ARTWORKS, TRACKS = ITEMS[:4], ITEMS[4:]
SPACES = (
    {"space": "rgb", "mix": ()},
    {"space": "va", "mix": ()},
    {"space": "mix", "mix": (("rgb", 0.5), ("va", 0.5))},
)


class Died(Exception):
    """The process was killed."""


class MemoryLog:
    """A log that compares and sets as the object store does, and where a process may die before or after a write."""

    def __init__(self) -> None:
        self.revisions: dict[int, PairingRevision] = {}
        self.snapshots: list[PairingSnapshot] = []
        self.die: str = ""

    async def pairing_snapshot(self, exhibition: str) -> PairingSnapshot | None:
        return max(self.snapshots, key=lambda each: each.number, default=None)

    async def pairing_log(self, exhibition: str, after: int) -> list[PairingRevision]:
        return [self.revisions[number] for number in sorted(self.revisions) if number > after]

    async def append_pairing(self, revision: PairingRevision) -> bool:
        await asyncio.sleep(0)
        die, self.die = self.die, ""
        if die == "before":
            raise Died
        if revision.number in self.revisions:
            return False
        self.revisions[revision.number] = PairingRevision.model_validate_json(revision.model_dump_json())
        if die == "after":
            raise Died
        return True

    async def put_pairing_snapshot(self, snapshot: PairingSnapshot) -> None:
        self.snapshots.append(PairingSnapshot.model_validate_json(snapshot.model_dump_json()))

    def replayed(self) -> PairingState:
        """The state by all revisions from the first; both pairings are one-to-one after each single change."""
        assert sorted(self.revisions) == list(range(1, len(self.revisions) + 1))
        state = PairingState(0, {}, {})
        for number in sorted(self.revisions):
            revision = self.revisions[number]
            for pairs, changes in ((state.pairs, revision.changes), (state.hung, revision.hung or ())):
                seen = dict(pairs)
                for change in changes:
                    pair = change.artwork, change.track
                    assert change.why
                    assert (pair in seen) == (change.what != "formed")
                    if change.what == "parted":
                        del seen[pair]
                    else:
                        seen[pair] = change.similarity
                    for side in (0, 1):
                        assert len({each[side] for each in seen}) == len(seen)
            state.apply(revision)
            assert {item for pair in state.hung for item in pair} <= set(state.members)
        return state


class MemoryMembers:
    """The records: which items are there now, under which version, with which vectors."""

    def __init__(self) -> None:
        self.present: dict[str, Ready] = {}
        self.reasons: dict[str, str] = {}

    async def ready(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, Ready]:
        return {item: self.present[item] for item in items if item in self.present}

    async def why_left(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, str]:
        return {item: self.reasons.get(item, "withdrawn") for item in items}


def definition(state: PairingState, present: Mapping[str, Ready]) -> dict[tuple[str, str], float]:
    """What the rule of the state's basis demands of all present items, by its batch definition."""
    assert state.basis is not None
    space = pairing_space(state.basis.space, state.basis.mix)
    measure = space.measure(state.basis.constants)
    sides: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}
    for item, ready in present.items():
        kind = split_item_id(item)[0]
        vector = None if measure is None else space.vector(kind, ready.vectors)
        if vector is not None:
            sides[kind][item] = vector
    if measure is None:
        return {}
    more = {"floor": state.basis.floor, "pins": sorted(state.pins)}
    both = sides[Kind.ARTWORK], sides[Kind.TRACK]
    if state.basis.rule == "greedy":
        sequences = {item: ready.sequence for item, ready in present.items()}
        found = batch_greedy(*both, measure, sequences=sequences, **more)  # type: ignore[arg-type]
    elif state.basis.rule == "stable":
        found = batch_stable(*both, measure, **more)  # type: ignore[arg-type]
    else:
        found = batch_optimal(*both, measure, **more)  # type: ignore[arg-type]
    return {(artwork, track): similarity for artwork, (track, similarity) in found.items()}


def assert_exact(state: PairingState, present: Mapping[str, Ready]) -> None:
    wanted = definition(state, present)
    assert state.basis is not None
    if state.basis.rule == "optimal":
        # Several pairings may have the greatest total; pinned pairs are in each of them.
        assert round(sum(state.pairs.values()), 6) == round(sum(wanted.values()), 6)
        assert len(state.pairs) == len(wanted)
    else:
        assert state.pairs == wanted


VECTORS = st.builds(
    lambda rgb, va: {"rgb": np.array(rgb, np.float32) + np.float32(0.25), "va": np.array(va, np.float32) / 4},
    st.tuples(*[st.integers(0, 3)] * 3),
    st.tuples(*[st.integers(0, 4)] * 2),
)


async def pair_anew(agent: ExhibitionPairing) -> None:
    """What the stream does aside, to its end."""
    while agent.stale:
        await agent.switch(await agent.prepare())


class Curated(RuleBasedStateMachine):
    """Two owners that take turns, die and interrupt each other, while items and settings change."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = ExhibitionSettings(name="spring", creation="c", space="rgb")
        self.log = MemoryLog()
        self.members = MemoryMembers()
        self.owners = [self.owner() for _ in range(2)]
        self.prepared: list[Prepared | None] = [None, None]
        self.waiting: list[str] = []
        self.versions = 0

    def owner(self) -> ExhibitionPairing:
        return ExhibitionPairing(self.settings, self.log, self.members)

    def set(self, **values: Any) -> None:
        number = self.settings.number + 1
        self.settings = self.settings.model_copy(update={**values, "number": number})

    @rule(item=st.sampled_from(ITEMS), vectors=VECTORS, whole=st.integers(0, 5))
    def arrives_or_changes(self, item: str, vectors: Any, whole: int) -> None:
        self.versions += 1
        if not whole:
            vectors = {"rgb": vectors["rgb"]}
        self.members.present[item] = Ready(f"000000.{self.versions:06d}", self.versions, vectors)
        self.waiting.append(item)

    @rule(item=st.sampled_from(ITEMS))
    def leaves(self, item: str) -> None:
        if self.members.present.pop(item, None) is not None:
            self.waiting.append(item)

    @rule(space=st.sampled_from(SPACES))
    def space_changes(self, space: dict[str, Any]) -> None:
        self.set(**space)

    @rule(name=st.sampled_from(["greedy", "stable", "optimal"]))
    def rule_changes(self, name: str) -> None:
        self.set(rule=name)

    @rule(floor=st.sampled_from([None, 0.5, 0.9]), threshold=st.sampled_from([0.0, 0.05]))
    def floor_and_threshold_change(self, floor: float | None, threshold: float) -> None:
        self.set(floor=floor, threshold=threshold)

    @rule(artwork=st.sampled_from(ARTWORKS), track=st.sampled_from(TRACKS))
    def pinned_or_unpinned(self, artwork: str, track: str) -> None:
        kept = tuple(pin for pin in self.settings.pins if artwork not in pin and track not in pin)
        self.set(pins=kept if (artwork, track) in self.settings.pins else (*kept, (artwork, track)))

    @rule(when=st.sampled_from(["before", "after"]))
    def dies_at_the_next_write(self, when: str) -> None:
        self.log.die = when

    def attempt(self, owner: int, work: Any) -> bool:
        try:
            asyncio.run(work())
        except Passing:
            return False
        except Died:
            self.owners[owner], self.prepared[owner] = self.owner(), None
            return False
        return True

    @rule(owner=st.integers(0, 1), count=st.integers(0, 4))
    def handles(self, owner: int, count: int) -> None:
        """One try, as the stream makes it: on trouble the commands stay waiting."""
        chosen = self.waiting[:count]

        async def work() -> None:
            agent = self.owners[owner]
            agent.settings = self.settings
            await agent.take_over()
            await agent.refresh(chosen)

        if self.attempt(owner, work):
            del self.waiting[:count]
            # What the agent kept in mind from change to change misses no exchange that has to move.
            state, chosen = self.owners[owner].state, self.settings
            assert not hanging(state.hung, state.pairs, threshold=chosen.threshold, why={}, pinned=set(chosen.pins))

    @precondition(lambda self: any(agent.stale for agent in self.owners))
    @rule(owner=st.integers(0, 1))
    def prepares(self, owner: int) -> None:
        async def work() -> None:
            if self.owners[owner].stale:
                self.prepared[owner] = await self.owners[owner].prepare()

        self.attempt(owner, work)

    @precondition(lambda self: any(self.prepared))
    @rule(owner=st.integers(0, 1))
    def switches(self, owner: int) -> None:
        prepared, self.prepared[owner] = self.prepared[owner], None

        async def work() -> None:
            if prepared is not None:
                await self.owners[owner].switch(prepared)

        self.attempt(owner, work)

    @invariant()
    def the_snapshot_and_its_tail_equal_the_whole_log(self) -> None:
        whole, short = self.log.replayed(), asyncio.run(read_state(self.log, "spring"))
        assert short == whole

    def teardown(self) -> None:
        """Everything is handled in the end; then the target is exact on all complete items."""
        self.log.die = ""
        last = self.owner()

        async def settle() -> None:
            await last.take_over()
            await last.refresh(self.waiting)
            await pair_anew(last)

        asyncio.run(settle())
        state = self.log.replayed()
        assert state.members == {item: ready.version for item, ready in self.members.present.items()}
        assert state.basis is not None
        assert state.basis.fits(self.settings)
        assert set(state.pins) == set(self.settings.pins)
        assert_exact(state, self.members.present)
        if self.settings.threshold == 0:
            assert state.hung == state.pairs
        for pair in state.hung.keys() & state.pairs.keys():
            assert state.hung[pair] == state.pairs[pair]
        for pin in self.settings.pins:
            assert (pin in state.hung) == (pin in state.pairs)
        if self.settings.floor is not None:
            assert all(
                similarity >= self.settings.floor or pair in self.settings.pins
                for pair, similarity in state.hung.items()
            )


def test_target_and_wall_are_right_after_any_arrivals_settings_pins_crashes_and_takeovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers.pair, "SNAPSHOT_EVERY", 4)
    # One row in a block, as if there were many items.
    monkeypatch.setattr("workers.pairing.candidates.BLOCK", 1)
    run_state_machine_as_test(
        Curated,
        settings=settings(
            max_examples=150,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


# -- one thing at a time -----------------------------------------------------------------------------------


def some(count: int, seed: int = 0, names: Sequence[str] = ("rgb", "va")) -> dict[str, Ready]:
    generator = np.random.default_rng(seed)
    found: dict[str, Ready] = {}
    for number in range(count):
        for kind in Kind:
            item = item_id(kind, digest_of(f"{seed}-{number}".encode()))
            vectors = {name: generator.random(2 if name == "va" else 3).astype(np.float32) for name in names}
            found[item] = Ready("000000.000001", len(found), vectors)
    return found


async def agent_of(present: dict[str, Ready], **values: Any) -> tuple[ExhibitionPairing, MemoryLog, MemoryMembers]:
    log, members = MemoryLog(), MemoryMembers()
    members.present = dict(present)
    agent = ExhibitionPairing(ExhibitionSettings.model_validate({"name": "spring", **values}), log, members)
    await agent.take_over()
    await agent.refresh(list(present))
    await pair_anew(agent)
    return agent, log, members


def set_on(agent: ExhibitionPairing, **values: Any) -> None:
    agent.settings = agent.settings.model_copy(update=values)


async def test_another_space_and_rule_come_into_force_in_one_revision_of_target_and_wall() -> None:
    agent, log, members = await agent_of(some(12), space="rgb", threshold=0.5)
    before = dict(agent.state.pairs)
    set_on(agent, space="va", rule="optimal")
    await agent.refresh([])
    assert agent.state.pairs == before
    assert agent.stale
    number = agent.state.number
    prepared = await agent.prepare()
    assert agent.state.number == number
    revision = await agent.switch(prepared)
    assert revision is not None
    assert agent.state.number == number + 1
    assert revision.basis is not None
    assert (revision.basis.space, revision.basis.rule) == ("va", "optimal")
    assert agent.state.hung == agent.state.pairs != before
    assert {change.why for change in (*revision.changes, *(revision.hung or ()))} == {
        "re-paired: space va, rule optimal"
    }
    assert not agent.stale
    assert_exact(log.replayed(), members.present)


@pytest.mark.parametrize("name", ["stable", "greedy"])
async def test_the_few_pairs_above_a_selective_floor_are_found_among_many_items(name: str) -> None:
    """Over 2,001 x 2,000 pairs, where nearly everybody is free both before and after the floor changes."""
    generator = np.random.default_rng(1)
    present: dict[str, Ready] = {}
    for kind, count in ((Kind.ARTWORK, 2001), (Kind.TRACK, 2000)):
        for number, vector in enumerate(generator.normal(size=(count, 32))):
            present[f"{kind.value}-{number:064x}"] = Ready("000000.000001", number, {"rgb": vector})
    planted = {(f"artwork-{number:064x}", f"track-{number:064x}") for number in (500, 1000, 1900)}
    for artwork, track in planted:
        present[track] = Ready("000000.000001", 0, {"rgb": present[artwork].vectors["rgb"] * 2})
    log, members = MemoryLog(), MemoryMembers()
    members.present = present
    chosen = ExhibitionSettings(name="spring", space="rgb", rule=name, floor=0.9)
    joined = tuple(f"{item}@{ready.version}" for item, ready in present.items())
    log.revisions[1] = PairingRevision(exhibition="spring", number=1, owner="before", joined=joined, made=now())
    agent = ExhibitionPairing(chosen, log, members)
    await agent.take_over()
    set_on(agent, floor=0.91)
    await pair_anew(agent)
    assert agent.state.pairs.keys() == planted


async def test_commands_go_on_while_an_exhibition_is_paired_anew_and_the_switch_catches_up() -> None:
    present = some(10)
    late, gone, changed, *_ = present
    agent, log, members = await agent_of({item: each for item, each in present.items() if item != late}, space="rgb")
    set_on(agent, rule="optimal")
    prepared = await agent.prepare()
    members.present[late] = present[late]
    del members.present[gone]
    members.present[changed] = Ready("000000.000002", 0, some(1, seed=9)[next(iter(some(1, seed=9)))].vectors)
    revision = await agent.refresh([late, gone, changed])
    assert revision is not None
    assert late in agent.state.members
    assert_exact(agent.state, members.present)
    switched = await agent.switch(prepared)
    assert switched is not None
    assert switched.joined == switched.left == ()
    assert gone not in agent.state.members
    assert_exact(log.replayed(), members.present)


async def test_what_was_prepared_for_settings_that_changed_again_is_not_used() -> None:
    agent, log, members = await agent_of(some(6), space="rgb")
    set_on(agent, rule="optimal")
    prepared = await agent.prepare()
    set_on(agent, rule="greedy")
    number = agent.state.number
    assert await agent.switch(prepared) is None
    assert agent.state.number == number
    await pair_anew(agent)
    assert agent.state.basis is not None
    assert agent.state.basis.rule == "greedy"
    assert_exact(log.replayed(), members.present)


async def test_what_was_prepared_by_an_owner_that_was_overtaken_is_not_written() -> None:
    agent, log, members = await agent_of(some(6), space="rgb")
    set_on(agent, rule="optimal")
    prepared = await agent.prepare()
    other = ExhibitionPairing(agent.settings, log, members)
    await other.take_over()
    written = dict(log.revisions)
    with pytest.raises(Passing, match="taken the exhibition 'spring' over"):
        await agent.switch(prepared)
    assert log.revisions == written
    await agent.take_over()
    assert await agent.switch(prepared) is None


async def test_sigma_is_kept_until_it_drifts_and_then_taken_anew_in_one_switch() -> None:
    present = some(30)
    agent, log, members = await agent_of(present, space="va")
    assert agent.state.basis is not None
    sigma = agent.state.basis.constants.sigma
    points = [ready.vectors["va"] for ready in present.values()]
    distances = [float(np.linalg.norm(one - two)) for one in points[::2] for two in points[1::2]]
    assert sigma == pytest.approx(np.mean(distances), rel=0.05)
    # One more item like the others moves nothing.
    one = next(iter(some(1, seed=5).items()))
    members.present[one[0]] = one[1]
    await agent.refresh([one[0]])
    assert not agent.stale
    assert agent.state.basis.constants.sigma == sigma
    # Many in one corner do.
    corner = {
        item: Ready(ready.version, ready.sequence, {"va": np.array([0.9, 0.9], np.float32)})
        for item, ready in some(30, seed=7).items()
    }
    members.present |= corner
    number = agent.state.number
    await agent.refresh(list(corner))
    assert agent.stale
    assert agent.state.basis.constants.sigma == sigma
    await pair_anew(agent)
    assert agent.state.number == number + 2
    assert agent.state.basis is not None
    assert agent.state.basis.constants.sigma is not None
    assert abs(agent.state.basis.constants.sigma / sigma - 1) > 0.05
    assert log.revisions[number + 2].changes[0].why.startswith("re-paired: sigma went from")
    assert_exact(log.replayed(), members.present)


@pytest.mark.parametrize("version", ["000000.000001", "000000.000002"])
async def test_sigma_is_looked_at_when_items_get_other_vectors_under_the_same_version_too(version: str) -> None:
    present = some(30)
    agent, log, members = await agent_of(present, space="va")
    assert agent.state.basis is not None
    sigma = agent.state.basis.constants.sigma
    assert sigma is not None
    members.present = {
        item: Ready(version, ready.sequence, {"va": ready.vectors["va"] / 4}) for item, ready in present.items()
    }
    await agent.refresh(list(present))
    assert agent.stale
    await pair_anew(agent)
    assert agent.state.basis.constants.sigma == pytest.approx(sigma / 4)
    assert_exact(log.replayed(), members.present)


async def test_a_mix_whose_constants_nobody_made_yet_is_paired_after_the_first_items_came() -> None:
    agent, log, members = await agent_of(some(8), space="mix", mix=(("rgb", 1.0), ("va", 3.0)))
    assert len(agent.state.pairs) == 8
    assert agent.state.basis is not None
    assert agent.state.basis.constants.dimensions == (3, 2)
    assert set(agent.state.basis.constants.calibrations) == {"rgb", "va"}
    assert_exact(log.replayed(), members.present)


async def test_an_item_without_a_vector_in_the_space_is_a_member_that_stays_free_until_it_has_one() -> None:
    present = some(4)
    item = next(iter(present))
    bare = Ready("000000.000001", 0, {"rgb": present[item].vectors["rgb"]})
    agent, log, members = await agent_of({**present, item: bare}, space="va")
    assert item in agent.state.members
    assert item not in {each for pair in agent.state.pairs for each in pair}
    assert len(agent.state.pairs) == 3
    members.present[item] = present[item]
    await agent.refresh([item])
    await pair_anew(agent)
    assert len(agent.state.pairs) == 4
    assert_exact(log.replayed(), members.present)


async def test_a_vector_of_another_dimension_keeps_its_item_free_and_harms_nobody() -> None:
    present = some(4)
    item = next(iter(present))
    agent, log, members = await agent_of(present, space="rgb")
    members.present[item] = Ready("000000.000002", 0, {"rgb": np.ones(7, np.float32)})
    await agent.refresh([item])
    assert len(agent.state.pairs) == 3
    fresh = ExhibitionPairing(agent.settings, log, members)
    await fresh.take_over()
    assert fresh.state.pairs == agent.state.pairs


def lengthened(ready: Ready) -> Ready:
    """An item that other models read: one number more in each vector."""
    return Ready(ready.version, ready.sequence, {name: np.append(each, 0.5) for name, each in ready.vectors.items()})


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("odd", [(0,), (5,), (7,), (0, 1, 2)])
async def test_items_whose_vectors_have_another_dimension_than_most_stay_free_in_any_order_of_arrival(
    space: dict[str, Any], odd: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    present = {
        item: lengthened(ready) if number in odd else ready for number, (item, ready) in enumerate(some(4).items())
    }
    odd_ones = {item for number, item in enumerate(present) if number in odd}
    log, members = MemoryLog(), MemoryMembers()
    agent = ExhibitionPairing(ExhibitionSettings.model_validate({"name": "spring", **space}), log, members)
    await agent.take_over()
    for item, ready in present.items():
        members.present[item] = ready
        await agent.refresh([item])
        await pair_anew(agent)
    usual = {item: ready for item, ready in present.items() if item not in odd_ones}
    assert len(agent.state.pairs) == min(sum(split_item_id(item)[0] is kind for item in usual) for kind in Kind)
    assert_exact(log.replayed(), usual)
    assert {item for item in odd_ones if f"{item} stays free" in caplog.text} == odd_ones
    after = ExhibitionPairing(agent.settings, log, members)
    await after.take_over()
    assert not after.stale
    assert after.state.pairs == agent.state.pairs


async def test_when_most_items_have_vectors_of_another_dimension_the_exhibition_is_paired_by_those() -> None:
    present = some(4)
    agent, log, members = await agent_of(present, space="rgb")
    for item in list(present)[:5]:
        members.present[item] = lengthened(present[item])
        await agent.refresh([item])
    assert agent.stale
    number = agent.state.number
    await pair_anew(agent)
    assert agent.state.number == number + 1
    assert {change.why for change in log.revisions[number + 1].changes} == {
        "re-paired: most items have vectors of another dimension now"
    }
    assert_exact(log.replayed(), {item: members.present[item] for item in list(present)[:5]})


def vectors_of(angle: float) -> dict[str, Any]:
    return {"rgb": np.array([np.cos(angle), np.sin(angle), 0], np.float32)}


async def a_wall_that_waits(**values: Any) -> tuple[ExhibitionPairing, MemoryMembers, Any]:
    """Two pairs hang; a third artwork then comes that fits one track a little better."""
    members = MemoryMembers()
    log = MemoryLog()
    for number, (item, angle) in enumerate(
        [(ARTWORKS[0], 0.10), (TRACKS[0], 0.0), (ARTWORKS[1], 1.0), (TRACKS[1], 1.0)]
    ):
        members.present[item] = Ready("000000.000001", number, vectors_of(angle))
    clock = {"hour": 3}

    def time() -> datetime.datetime:
        return now().replace(hour=clock["hour"])

    chosen = ExhibitionSettings.model_validate({"name": "spring", "space": "rgb", "threshold": 0.02, **values})
    agent = ExhibitionPairing(chosen, log, members, time)
    await agent.take_over()
    await agent.refresh(ITEMS)
    members.present[ARTWORKS[2]] = Ready("000000.000001", 9, vectors_of(0.01))
    await agent.refresh([ARTWORKS[2]])
    return agent, members, clock


async def test_an_exchange_that_gains_less_than_the_threshold_waits_and_the_target_is_exact_all_the_same() -> None:
    agent, members, _ = await a_wall_that_waits()
    assert (ARTWORKS[2], TRACKS[0]) in agent.state.pairs
    assert (ARTWORKS[0], TRACKS[0]) in agent.state.hung
    assert_exact(agent.state, members.present)


async def test_an_exchange_that_gains_enough_hangs_and_says_what_it_gains() -> None:
    agent, _, _ = await a_wall_that_waits(threshold=0.001)
    assert agent.state.hung == agent.state.pairs
    waited, members, _ = await a_wall_that_waits()
    members.present[ARTWORKS[0]] = Ready("000000.000002", 0, vectors_of(1.5))
    revision = await waited.refresh([ARTWORKS[0]])
    assert revision is not None
    assert waited.state.hung == waited.state.pairs
    assert any("displaced by" in change.why and "gains" in change.why for change in revision.hung or ())


async def test_in_the_set_hour_the_wall_follows_whatever_it_gains() -> None:
    agent, _, clock = await a_wall_that_waits(hour=4)
    assert agent.state.hung != agent.state.pairs
    assert await agent.refresh([]) is None
    clock["hour"] = 4
    revision = await agent.refresh([])
    assert revision is not None
    assert revision.changes == ()
    assert agent.state.hung == agent.state.pairs


async def test_a_withdrawn_item_leaves_the_wall_at_once() -> None:
    agent, members, _ = await a_wall_that_waits()
    del members.present[ARTWORKS[0]]
    revision = await agent.refresh([ARTWORKS[0]])
    assert revision is not None
    parted = [change for change in revision.hung or () if change.what == "parted"]
    assert [change.why for change in parted] == [f"withdrawn: {ARTWORKS[0]}"]
    # Its track is free now, so that what the rule demands hangs at once.
    assert agent.state.hung == agent.state.pairs


@pytest.mark.parametrize("by", ["a command", "a take-over"])
async def test_the_wall_tells_items_that_were_taken_down_from_those_elsewhere_or_without_a_vector(by: str) -> None:
    agent, log, members = await agent_of(some(3), space="va", threshold=0.5)
    withdrawn, moved, blind = (artwork for artwork, _ in agent.state.hung)
    del members.present[withdrawn], members.present[moved]
    members.reasons[moved] = "no longer in its collections"
    members.present[blind] = Ready("000000.000002", 0, {})
    if by == "a command":
        revision = await agent.refresh([withdrawn, moved, blind])
    else:
        revision = await ExhibitionPairing(agent.settings, log, members).take_over()
    assert revision is not None
    assert revision.hung is not None
    parted = {change.artwork: change.why for change in revision.hung if change.what == "parted"}
    assert parted == {
        withdrawn: f"withdrawn: {withdrawn}",
        moved: f"no longer in its collections: {moved}",
        blind: f"no vector in the space va: {blind}",
    }


async def test_a_pinned_pair_hangs_at_once_and_an_unpinned_one_is_the_rules_again() -> None:
    agent, members, _ = await a_wall_that_waits(threshold=5.0)
    set_on(agent, pins=((ARTWORKS[1], TRACKS[0]),))
    revision = await agent.refresh([])
    assert revision is not None
    assert revision.pins == ((ARTWORKS[1], TRACKS[0]),)
    assert (ARTWORKS[1], TRACKS[0]) in agent.state.hung
    assert any("pinned" in change.why for change in revision.hung or ())
    assert_exact(agent.state, members.present)
    fresh = ExhibitionPairing(agent.settings, agent._store, members)
    await fresh.take_over()
    assert fresh.state.pairs == agent.state.pairs
    set_on(fresh, pins=())
    await fresh.refresh([])
    assert_exact(fresh.state, members.present)
    assert (ARTWORKS[1], TRACKS[0]) not in fresh.state.pairs


async def test_a_pair_that_was_read_anew_and_fell_below_the_floor_leaves_the_wall_at_once() -> None:
    one = {
        ARTWORKS[0]: Ready("000000.000001", 0, vectors_of(0.1)),
        TRACKS[0]: Ready("000000.000001", 1, vectors_of(0)),
    }
    agent, log, members = await agent_of(one, space="rgb", floor=0.9, threshold=0.5)
    assert len(agent.state.hung) == 1
    members.present[ARTWORKS[0]] = Ready("000000.000002", 0, vectors_of(1.4))
    revision = await agent.refresh([ARTWORKS[0]])
    assert revision is not None
    assert [(change.what, change.why) for change in revision.hung or ()] == [("parted", "below the floor")]
    assert agent.state.pairs == agent.state.hung == {}
    log.replayed()


async def test_an_unpinned_pair_below_the_floor_leaves_the_wall_at_once_and_a_pinned_one_stays() -> None:
    pin = ARTWORKS[0], TRACKS[0]
    far = {pin[0]: Ready("000000.000001", 0, vectors_of(1.3)), pin[1]: Ready("000000.000001", 1, vectors_of(0))}
    agent, log, members = await agent_of(far, space="rgb", floor=0.9, threshold=0.5, pins=(pin,))
    members.present[pin[0]] = Ready("000000.000002", 0, vectors_of(1.4))
    await agent.refresh([pin[0]])
    assert agent.state.hung.keys() == {pin}
    set_on(agent, pins=())
    revision = await agent.refresh([])
    assert revision is not None
    assert [(change.what, change.why) for change in revision.hung or ()] == [("parted", "below the floor")]
    assert log.replayed().hung == {}


async def test_pairs_that_a_drift_of_sigma_brings_below_the_floor_leave_the_wall_with_the_switch() -> None:
    """A hundred points far apart let near ones look alike; without them sigma is small, and they do not any more."""
    points = {
        item: Ready(ready.version, ready.sequence, {"va": ready.vectors["va"] / 10})
        for item, ready in some(20).items()
    }
    far = {
        item: Ready(ready.version, ready.sequence, {"va": np.array([0.0, number % 2 * 9.0], np.float32)})
        for number, (item, ready) in enumerate(some(20, seed=4).items())
    }
    agent, log, members = await agent_of({**points, **far}, space="va", floor=0.98, threshold=0.5)
    for item in far:
        del members.present[item]
    await agent.refresh(list(far))
    await pair_anew(agent)
    assert_exact(agent.state, members.present)
    assert 0 < len(agent.state.hung) < 20
    assert min(agent.state.hung.values()) >= 0.98
    log.replayed()


async def test_logs_from_before_bases_and_walls_are_read_and_continued() -> None:
    log, members = MemoryLog(), MemoryMembers()
    pair = {"artwork": ARTWORKS[0], "track": TRACKS[0], "similarity": 1.0}
    members.present = {item: Ready("000000.000001", 0, vectors_of(0.5)) for item in (ARTWORKS[0], TRACKS[0])}
    old = {
        "exhibition": "default",
        "number": 1,
        "owner": "before",
        "joined": [f"{item}@000000.000001" for item in members.present],
        "changes": [{**pair, "what": "formed", "why": "formed by the arrival of something"}],
        "made": now().isoformat(),
    }
    log.revisions[1] = PairingRevision.model_validate(old)
    assert (await read_state(log, "default")).hung == {(ARTWORKS[0], TRACKS[0]): 1.0}
    agent = ExhibitionPairing(ExhibitionSettings(name="default", space="rgb"), log, members)
    revision = await agent.take_over()
    assert revision is not None
    assert revision.changes == ()
    assert revision.hung == ()
    assert revision.basis is not None
    assert not agent.stale
