"""The pair stage: whatever comes, goes, crashes or is overtaken, the log tells the stable pairing of what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import workers.pair
from schemas.events import PairingChanged, PairingCommand
from schemas.failures import Passing
from schemas.media import Kind, digest_of, item_id, split_item_id
from schemas.records import ExhibitionSettings, PairChange, PairingRevision, PairingSnapshot, now
from streams.pairing import RecordMembers
from tests.made_world import World
from tests.stack_fixtures import put_item
from workers.pair import ExhibitionPairing, PairingState, Ready, net_changes, read_state
from workers.pairing.rules import batch_stable
from workers.pairing.similarity import measure_for

SETTINGS = ExhibitionSettings(name="default", space="rgb")
ITEMS = [item_id(kind, digest_of(f"{number}".encode())) for kind in Kind for number in range(5)]


class MemoryLog:
    """A log that compares and sets as the object store does: a number is written once."""

    def __init__(self) -> None:
        self.revisions: dict[int, PairingRevision] = {}
        self.snapshots: list[PairingSnapshot] = []
        self.lose_answer = False

    async def pairing_snapshot(self, exhibition: str) -> PairingSnapshot | None:
        return max(self.snapshots, key=lambda each: each.number, default=None)

    async def pairing_log(self, exhibition: str, after: int) -> list[PairingRevision]:
        return [self.revisions[number] for number in sorted(self.revisions) if number > after]

    async def append_pairing(self, revision: PairingRevision) -> bool:
        await asyncio.sleep(0)
        if revision.number in self.revisions:
            return False
        self.revisions[revision.number] = PairingRevision.model_validate_json(revision.model_dump_json())
        if self.lose_answer:
            self.lose_answer = False
            raise Passing("object store", "went away after it wrote")
        return True

    async def put_pairing_snapshot(self, snapshot: PairingSnapshot) -> None:
        self.snapshots.append(PairingSnapshot.model_validate_json(snapshot.model_dump_json()))

    def replayed(self) -> PairingState:
        """The state by all revisions from the first, checking that pairs stay one-to-one at every step."""
        assert sorted(self.revisions) == list(range(1, len(self.revisions) + 1))
        state = PairingState(0, {}, {})
        for number in sorted(self.revisions):
            state.apply(self.revisions[number])
            for side in (0, 1):
                names = [pair[side] for pair in state.pairs]
                assert len(set(names)) == len(names)
        return state


class MemoryMembers:
    """The records: which items are there now, under which version, with which vector."""

    def __init__(self) -> None:
        self.present: dict[str, Ready] = {}

    async def ready(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, Ready]:
        return {item: self.present[item] for item in items if item in self.present}

    async def why_left(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, str]:
        return dict.fromkeys(items, "withdrawn")


VECTORS = st.tuples(*[st.integers(0, 3)] * 3).map(lambda numbers: np.array(numbers, np.float32) + np.float32(0.25))


class Exhibition(RuleBasedStateMachine):
    """Two owners that take turns and interrupt each other, over one log and one set of records."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        self.members = MemoryMembers()
        self.owners = [ExhibitionPairing(SETTINGS, self.log, self.members) for _ in range(2)]
        self.waiting: list[str] = []
        self.versions = 0

    def run(self, work: Any) -> Any:
        return asyncio.run(work)

    @rule(item=st.sampled_from(ITEMS), vector=VECTORS)
    def arrives_or_changes(self, item: str, vector: Any) -> None:
        self.versions += 1
        self.members.present[item] = Ready(f"000000.{self.versions:06d}", self.versions, {"rgb": vector})
        self.waiting.append(item)

    @rule(item=st.sampled_from(ITEMS))
    def leaves(self, item: str) -> None:
        if self.members.present.pop(item, None) is not None:
            self.waiting.append(item)

    @rule(owner=st.integers(0, 1))
    def forgets(self, owner: int) -> None:
        self.owners[owner].forget()

    @rule()
    def loses_the_next_answer(self) -> None:
        self.log.lose_answer = True

    @precondition(lambda self: self.waiting)
    @rule(owner=st.integers(0, 1), count=st.integers(1, 4))
    def handles(self, owner: int, count: int) -> None:
        """One try, as the runner makes it: on passing trouble the commands stay waiting."""
        chosen = self.waiting[:count]
        agent = self.owners[owner]
        before = len(self.log.revisions)

        async def work() -> None:
            await agent.take_over()
            await agent.refresh(chosen)

        try:
            self.run(work())
        except Passing:
            # Overtaken, or the answer was lost: at most what was acknowledged by the log is there.
            assert len(self.log.revisions) <= before + 2
            return
        del self.waiting[:count]

    @rule(owner=st.integers(0, 1), item=st.sampled_from(ITEMS))
    def repeats(self, owner: int, item: str) -> None:
        """A command that came before, or for nothing at all."""
        self.waiting.append(item)

    @invariant()
    def the_snapshot_and_its_tail_equal_the_whole_log(self) -> None:
        whole = self.log.replayed()
        short = self.run(read_state(self.log, "default"))
        assert short.members == whole.members
        assert short.pairs == whole.pairs
        assert short.number == whole.number

    def teardown(self) -> None:
        """Everything is handled in the end; then the log tells the stable pairing of what is there."""
        self.log.lose_answer = False
        last = ExhibitionPairing(SETTINGS, self.log, self.members)

        async def settle() -> None:
            await last.take_over()
            if self.waiting:
                await last.refresh(self.waiting)

        self.run(settle())
        state = self.log.replayed()
        assert state.members == {item: ready.version for item, ready in self.members.present.items()}
        sides: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}
        for item, ready in self.members.present.items():
            sides[split_item_id(item)[0]][item] = ready.vectors["rgb"]
        wanted = batch_stable(sides[Kind.ARTWORK], sides[Kind.TRACK], measure_for("cosine"))
        assert {artwork: (track, value) for (artwork, track), value in state.pairs.items()} == wanted


def test_the_log_tells_the_stable_pairing_after_any_arrivals_departures_crashes_and_takeovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers.pair, "SNAPSHOT_EVERY", 4)
    run_state_machine_as_test(
        Exhibition,
        settings=settings(
            max_examples=150,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


async def test_a_paused_old_owner_cannot_write_after_a_new_one_took_over() -> None:
    log, members = MemoryLog(), MemoryMembers()
    old, new = (ExhibitionPairing(SETTINGS, log, members) for _ in range(2))
    members.present = {item: Ready("000000.000001", 0, {"rgb": np.ones(3, np.float32)}) for item in ITEMS}
    await old.take_over()
    await old.refresh(ITEMS[:3])
    await new.take_over()
    await new.refresh(ITEMS[3:7])
    written = dict(log.revisions)
    with pytest.raises(Passing, match="taken the exhibition 'default' over"):
        await old.refresh(ITEMS[7:])
    assert log.revisions == written
    # It reads everything anew and goes on from there, and then the other one is refused.
    await old.take_over()
    assert set(old.state.members) == set(ITEMS[:7])
    with pytest.raises(Passing):
        await new.refresh(ITEMS[7:])
    owners = [log.revisions[number].owner for number in sorted(log.revisions)]
    assert len(set(owners)) == 3


async def test_of_two_that_take_over_at_once_one_is_refused() -> None:
    log, members = MemoryLog(), MemoryMembers()
    agents = [ExhibitionPairing(SETTINGS, log, members) for _ in range(5)]
    answers = await asyncio.gather(*(agent.take_over() for agent in agents), return_exceptions=True)
    assert sum(isinstance(answer, PairingRevision) for answer in answers) == 1
    assert sum(isinstance(answer, Passing) for answer in answers) == 4
    assert len(log.revisions) == 1


def test_what_is_done_and_undone_within_a_revision_is_no_change() -> None:
    def change(what: Any, similarity: float = 0.5) -> PairChange:
        return PairChange(artwork=ITEMS[0], track=ITEMS[5], similarity=similarity, what=what, why="")

    assert net_changes([change("formed"), change("parted")]) == []
    assert net_changes([change("parted"), change("formed")]) == []
    assert net_changes([change("parted", 0.5), change("formed", 0.75)]) == [
        change("parted", 0.5),
        change("formed", 0.75),
    ]
    assert net_changes([change("formed"), change("parted"), change("formed")]) == [change("formed")]


# -- with the stream around it -----------------------------------------------------------------------------------


def numbers(world: World) -> list[int]:
    return [event.number for event in world.everything if isinstance(event, PairingChanged)]


@pytest.mark.stack
async def test_a_revision_whose_announcement_failed_is_announced_when_the_broker_is_back(world: World) -> None:
    for name in ("a", "b"):
        await world.announce(await put_item(world.records, name))
    await world.settle()
    item = await put_item(world.records, "c")
    await world.announce(item)
    publish = world.pairing._publish
    lost = 0

    async def away(events: Any) -> None:
        nonlocal lost
        lost += 1
        raise Passing("broker", "away")

    await world.settle(until=PairingCommand)
    (command,) = world.published.take()
    world.pairing._publish = away
    for _ in range(3):
        with pytest.raises(Passing):
            await world.handle(command)
    world.pairing._publish = publish
    await world.handle(command)
    state = await read_state(world.records, "default")
    assert lost == 3
    assert numbers(world)[-1] == state.number
    assert sorted(set(numbers(world))) == list(range(1, state.number + 1))
    assert item in state.members


@pytest.mark.stack
async def test_a_revision_written_before_a_crash_is_announced_by_whoever_takes_over(world: World) -> None:
    await world.announce(await put_item(world.records, "a"))
    await world.settle(until=PairingCommand)
    (command,) = world.published.take()
    agent = ExhibitionPairing(SETTINGS, world.records, RecordMembers(world.records))
    await agent.take_over()
    revision = await agent.refresh([command.item])  # type: ignore[attr-defined]
    assert revision is not None
    assert numbers(world) == []
    world.restart()
    await world.handle(command)
    assert revision.number in numbers(world)
    assert numbers(world) == [revision.number, revision.number + 1]


@pytest.mark.stack
async def test_the_log_of_real_records_fences_and_snapshots(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.pair, "SNAPSHOT_EVERY", 3)
    members = MemoryMembers()
    members.present = {
        item: Ready("000000.000001", number, {"rgb": np.array([1, number, 2], np.float32)})
        for number, item in enumerate(ITEMS)
    }
    old = ExhibitionPairing(SETTINGS, world.records, members)
    await old.take_over()
    for item in ITEMS:
        await old.refresh([item])
    listing = [info.key for info in await world.records.objects.list("exhibitions/default/snapshots/")]
    assert listing == ["exhibitions/default/snapshots/000000000009.json"]
    new = ExhibitionPairing(SETTINGS, world.records, members)
    await new.take_over()
    assert new.state.pairs == old.state.pairs
    assert len(new.state.pairs) == 5
    members.present[ITEMS[0]] = Ready("000000.000002", 0, {"rgb": np.array([3, 1, 1], np.float32)})
    with pytest.raises(Passing):
        await old.refresh([ITEMS[0]])
    revision = PairingRevision(exhibition="default", number=new.state.number, owner="late", made=now())
    assert not await world.records.append_pairing(revision)
    await world.records.objects.delete(listing)
    assert (await read_state(world.records, "default")).pairs == new.state.pairs
