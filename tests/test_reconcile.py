"""Reconcile: an event that was lost at any place is made up for, and nothing is announced without need."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

import streams.upkeep
from infra.progress import next_stage, progress_of
from schemas.events import Arrived, Captioned, Embedded, Event, Indexed, PairingCommand, Scored
from schemas.media import Kind
from schemas.records import ExhibitionSettings, Stage, now
from streams.upkeep import Reconciler
from tests.made_world import World
from tests.stack_fixtures import put_item
from workers.pair import read_state

pytestmark = pytest.mark.stack


@pytest.mark.parametrize(
    ("lost", "stage"),
    [(Arrived, "caption"), (Captioned, "score"), (Scored, "embed"), (Embedded, "index"), (PairingCommand, "pair")],
    ids=["caption", "score", "embed", "index", "pair"],
)
async def test_an_event_lost_before_any_stage_is_announced_again(world: World, lost: type[Event], stage: str) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle(until=lost)
    assert [type(event) for event in world.published.take()] == [lost]
    calls = len(world.inference.calls)
    reconciler = Reconciler(world.records, world.publish, 0)
    assert await reconciler.run_once(at_once=True) == {stage: 1}
    await world.settle()
    assert item in (await read_state(world.records, "default")).members
    assert len(world.inference.calls) - calls < 8
    assert await reconciler.run_once(at_once=True) == {}


async def test_nothing_is_announced_where_all_is_done(world: World) -> None:
    for number in range(4):
        await world.announce(await put_item(world.records, f"{number}"))
    await world.settle()
    before = len(world.everything)
    assert await Reconciler(world.records, world.publish, 0).run_once(at_once=True) == {}
    assert len(world.everything) == before


async def test_a_fresh_item_is_left_in_peace_until_patience_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_item(world.records, "a")
    reconciler = Reconciler(world.records, world.publish, 300)
    assert await reconciler.run_once() == {}
    later = now() + timedelta(seconds=400)
    clock = time.monotonic()
    monkeypatch.setattr(streams.upkeep, "now", lambda: later)
    monkeypatch.setattr("streams.upkeep.time.monotonic", lambda: clock)
    assert await reconciler.run_once() == {"caption": 1}
    # What is announced again waits longer each time.
    for seconds, wanted in ((400, {}), (650, {"caption": 1}), (1200, {}), (1900, {"caption": 1})):
        monkeypatch.setattr("streams.upkeep.time.monotonic", lambda seconds=seconds: clock + seconds)
        assert await reconciler.run_once() == wanted, seconds


async def test_a_long_queue_is_no_lost_event(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old items wait, but the stage finished another one just now: it is at work."""
    first = await put_item(world.records, "first")
    await put_item(world.records, "waiting")
    moment = now() + timedelta(seconds=400)
    await world.announce(first)
    await world.settle(until=Captioned)
    states = await world.records.all_states()
    for state in states:
        if state.item == first:
            for times in state.results.values():
                for digest in times:
                    times[digest] = moment

    async def seen() -> object:
        return states

    monkeypatch.setattr(world.records, "all_states", seen)
    monkeypatch.setattr(streams.upkeep, "now", lambda: moment)
    counts = await Reconciler(world.records, world.publish, 300).run_once()
    assert "caption" not in counts


async def test_an_item_is_brought_to_an_exhibition_made_later_and_away_from_one_that_it_left(world: World) -> None:
    item = await put_item(world.records, "a", collections=("spring",))
    await world.announce(item)
    await world.settle()
    await world.records.objects.put(
        "exhibitions/wall/settings.json",
        ExhibitionSettings(name="wall", collections=("spring",)).model_dump_json().encode(),
    )
    assert await Reconciler(world.records, world.publish, 0).run_once(at_once=True) == {"pair": 1}
    await world.settle()
    assert item in (await read_state(world.records, "wall")).members
    await world.records.objects.put(
        "exhibitions/wall/settings.json",
        ExhibitionSettings(name="wall", collections=("autumn",)).model_dump_json().encode(),
    )
    world.restart()
    assert await Reconciler(world.records, world.publish, 0).run_once(at_once=True) == {"pair": 1}
    await world.settle()
    assert item not in (await read_state(world.records, "wall")).members
    assert item in (await read_state(world.records, "default")).members


async def test_marks_of_dead_workers_go_when_others_have_done_their_items(world: World) -> None:
    done, waiting = await put_item(world.records, "done"), await put_item(world.records, "waiting")
    await world.announce(done)
    await world.settle()
    await world.records.mark_attempt(Stage.CAPTION, "dead-1", [done])
    await world.records.mark_attempt(Stage.CAPTION, "dead-2", [done, waiting])
    await Reconciler(world.records, world.publish, 3600).run_once()
    assert len(await world.records.open_attempts(Stage.CAPTION)) == 2
    await Reconciler(world.records, world.publish, 0).run_once()
    assert list(await world.records.open_attempts(Stage.CAPTION)) == ["attempts/caption/dead-2.json"]
    await world.settle()
    await Reconciler(world.records, world.publish, 0).run_once()
    assert await world.records.open_attempts(Stage.CAPTION) == {}


async def test_progress_counts_from_records(world: World) -> None:
    for number in range(3):
        await world.announce(await put_item(world.records, f"picture {number}", collections=("a", "b")))
    track = await put_item(world.records, "track", Kind.TRACK)
    await world.settle()
    states = await world.records.all_states()
    found = progress_of(states, now())
    assert found.items == {"artwork": 3, "track": 1}
    assert found.collections == {
        "a": {"artwork": 3, "track": 0},
        "b": {"artwork": 3, "track": 0},
        "spring": {"artwork": 0, "track": 1},
    }
    assert [(name, count.done, count.waiting, count.failed) for name, count in found.stages.items()] == [
        ("caption", 3, 1, 0),
        ("score", 3, 0, 0),
        ("embed", 3, 0, 0),
        ("index", 3, 0, 0),
    ]
    assert len(found.complete) == 3
    assert [next_stage(state) for state in states if state.item == track] == [Stage.CAPTION]
    assert len([event for event in world.everything if isinstance(event, Indexed)]) == 3
