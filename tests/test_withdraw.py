"""Withdraw wins: whatever is in flight, retried, replayed or reconciled, nothing is left but the tombstone."""

from __future__ import annotations

import numpy as np
import pytest

from infra.records import media_key, tombstone_key
from schemas.events import Arrived, Captioned, Embedded, Event, Indexed, PairingCommand, Scored, Withdrawn, new_trace
from schemas.failures import Lasting, Refused
from schemas.media import Kind
from schemas.records import ExhibitionSettings, Stage
from streams.upkeep import Reconciler, leave_collection, mend_index, retry, undo_and_tell, withdraw
from tests.made_world import HookedObjects, World
from tests.stack_fixtures import everything_of, made_item, put_item
from workers.pair import read_state

pytestmark = pytest.mark.stack

STAGES: dict[type[Event], str] = {
    Arrived: "caption",
    Captioned: "score",
    Scored: "embed",
    Embedded: "index",
    PairingCommand: "pair",
}


async def assert_only_the_tombstone(world: World, item: str, generation: int = 0) -> None:
    assert await everything_of(world.records, item) == [tombstone_key(item, generation)]
    assert item not in {each for each, _ in await world.points()}
    for exhibition in await world.records.exhibitions():
        state = await read_state(world.records, exhibition.name)
        assert item not in state.members
        assert not any(item in pair for pair in state.pairs)


async def test_a_takedown_removes_everything_everywhere_and_frees_the_partner(world: World) -> None:
    picture = await put_item(world.records, "picture")
    track = await put_item(world.records, "track", Kind.ARTWORK)
    for item in (picture, track):
        await world.announce(item)
    await world.settle()
    assert len(await world.points()) == 2
    await withdraw(world.records, world.publish, picture, "asked by the artist")
    await world.settle()
    await assert_only_the_tombstone(world, picture)
    assert {each for each, _ in await world.points()} == {track}
    assert (await world.records.state(track)).alive


@pytest.mark.parametrize("consumed", list(STAGES), ids=list(STAGES.values()))
@pytest.mark.parametrize("carried_out", ["at once", "later"])
async def test_a_takedown_at_any_moment_of_any_stage_leaves_only_the_tombstone(
    world: World, consumed: type[Event], carried_out: str
) -> None:
    """The takedown is written before the n-th call of the stage to the object store, for every n."""
    objects = world.records.objects
    assert isinstance(objects, HookedObjects)
    number = 0
    while True:
        number += 1
        item = await put_item(world.records, f"{STAGES[consumed]}-{number}")
        await world.announce(item)
        await world.settle(until=consumed)
        (event,) = world.published.take()
        late: list[Event] = []

        async def take_down(item: str = item, late: list[Event] = late) -> None:
            async def publish(events: object) -> None:
                late.extend(events)  # type: ignore[arg-type]

            await withdraw(world.records, publish, item, "")
            if carried_out == "at once":
                await world.handle(*late)
                late.clear()

        objects.arm(number, take_down)
        await world.handle(event)
        happened = objects.disarm() >= number
        if not happened:
            await take_down()
        await world.publish(late)
        await world.settle()
        await assert_only_the_tombstone(world, item)
        if not happened:
            break
    assert number > 2


async def test_a_takedown_while_the_model_works_is_found_after_the_work(world: World) -> None:
    item = await put_item(world.records, "a")

    async def take_down(model: str) -> None:
        world.inference.before = None
        await withdraw(world.records, world.publish, item, "")

    world.inference.before = take_down
    await world.announce(item)
    await world.settle()
    await assert_only_the_tombstone(world, item)
    assert not [event for event in world.everything if isinstance(event, Captioned)]


async def test_a_replay_of_the_whole_log_brings_nothing_back(world: World) -> None:
    items = [await put_item(world.records, name) for name in ("a", "b", "c")]
    for item in items:
        await world.announce(item)
    await world.settle()
    await withdraw(world.records, world.publish, items[1], "")
    await world.settle()
    before = {key: await world.records.objects.get(key) for key in await everything_of(world.records, items[0])}
    log, calls = list(world.everything), len(world.inference.calls)
    for order in (log, log[::-1]):
        world.restart()
        await world.publish(order)
        await world.settle()
        await assert_only_the_tombstone(world, items[1])
        assert {each for each, _ in await world.points()} == {items[0], items[2]}
    after = {key: await world.records.objects.get(key) for key in await everything_of(world.records, items[0])}
    assert after == before
    assert len(world.inference.calls) == calls


@pytest.mark.parametrize("order", ["withdraw first", "retry first", "letter read before"])
async def test_a_retry_racing_a_takedown_brings_nothing_back(world: World, order: str) -> None:
    item = await put_item(world.records, "a")

    async def refuse(model: str) -> None:
        raise Lasting("no.", "")

    world.inference.before = refuse
    await world.announce(item)
    await world.settle()
    world.inference.before = None
    ((key, _),) = await world.records.dead_letters()
    if order == "withdraw first":
        await withdraw(world.records, world.publish, item, "")
        await retry(world.records, world.publish, key)
        await world.settle()
        with pytest.raises(Refused):
            await retry(world.records, world.publish, key)
    elif order == "retry first":
        await retry(world.records, world.publish, key)
        await withdraw(world.records, world.publish, item, "")
    else:
        objects = world.records.objects
        assert isinstance(objects, HookedObjects)

        async def take_down() -> None:
            await withdraw(world.records, world.publish, item, "")
            await world.settle()

        objects.arm(2, take_down)
        await retry(world.records, world.publish, key)
        objects.disarm()
    await world.settle()
    await assert_only_the_tombstone(world, item)


async def test_reconcile_racing_a_takedown_brings_nothing_back(world: World) -> None:
    objects = world.records.objects
    assert isinstance(objects, HookedObjects)
    for number in range(1, 7):
        item = await put_item(world.records, f"{number}")

        async def take_down(item: str = item) -> None:
            await withdraw(world.records, world.publish, item, "")

        objects.arm(number, take_down)
        await Reconciler(world.records, world.publish, 0).run_once(at_once=True)
        if objects.disarm() < number:
            await take_down()
        await world.settle()
        await assert_only_the_tombstone(world, item)


async def test_what_a_takedown_left_because_its_event_was_lost_is_found_by_reconcile(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle()
    await withdraw(world.records, world.publish, item, "")
    lost = world.published.take()
    assert [type(event) for event in lost] == [Withdrawn]
    counts = await Reconciler(world.records, world.publish, 0).run_once()
    assert counts["withdraw"] == 1
    await world.settle()
    await assert_only_the_tombstone(world, item)
    assert await Reconciler(world.records, world.publish, 0).run_once(at_once=True) == {}


async def test_withdrawing_twice_is_said_and_announced_again(world: World) -> None:
    item = await put_item(world.records, "a")
    await withdraw(world.records, world.publish, item, "")
    with pytest.raises(Refused, match="withdrawn before"):
        await withdraw(world.records, world.publish, item, "")
    assert len(world.published.of(Withdrawn)) == 2
    with pytest.raises(Refused, match="no item"):
        await withdraw(world.records, world.publish, made_item("unknown"), "")
    await world.settle()
    with pytest.raises(Refused, match="withdrawn before"):
        await withdraw(world.records, world.publish, item, "")
    await world.settle()
    await assert_only_the_tombstone(world, item)


async def test_a_forged_takedown_without_a_tombstone_removes_nothing(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle()
    before = await everything_of(world.records, item)
    await world.publish([Withdrawn(trace=new_trace(), item=item, generation=0)])
    await world.settle()
    assert await everything_of(world.records, item) == before
    assert await world.points() == {(item, 0)}
    assert item in (await read_state(world.records, "default")).members


async def test_a_later_generation_lives_beside_the_tombstone_and_old_events_do_not_touch_it(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle()
    old = [event for event in world.everything if not isinstance(event, PairingCommand)]
    await withdraw(world.records, world.publish, item, "")
    await world.settle()
    await put_item(world.records, "a", generation=1)
    await world.announce(item, generation=1)
    await world.settle()
    keys = await everything_of(world.records, item)
    await world.publish([*old, Withdrawn(trace=new_trace(), item=item, generation=0)])
    await world.settle()
    assert await everything_of(world.records, item) == keys
    assert tombstone_key(item, 0) in keys
    assert media_key(item, 1) in keys
    assert await world.points() == {(item, 1)}
    assert (await read_state(world.records, "default")).members[item] == "000001.000001"
    await withdraw(world.records, world.publish, item, "")
    await world.settle()
    assert sorted(await everything_of(world.records, item)) == [tombstone_key(item, 0), tombstone_key(item, 1)]
    assert await world.points() == set()


async def test_a_process_without_the_vector_store_removes_what_it_can_and_tells_the_others(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle(until=Captioned)
    (captioned,) = world.published.take()
    await withdraw(world.records, world.publish, item, "")
    world.published.take()
    world.items[Stage.SCORE]._undo = undo_and_tell(world.records, world.publish)
    await world.handle(captioned)
    assert [type(event) for event in world.published.events] == [Withdrawn]
    await world.settle()
    await assert_only_the_tombstone(world, item)


async def test_leaving_a_collection_is_no_takedown(world: World) -> None:
    await world.records.objects.put(
        "exhibitions/wall/settings.json",
        ExhibitionSettings(name="wall", collections=("b",)).model_dump_json().encode(),
    )
    item = await put_item(world.records, "a", collections=("a", "b"))
    await world.announce(item)
    await world.settle()
    assert item in (await read_state(world.records, "wall")).members
    calls = len(world.inference.calls)
    assert await leave_collection(world.records, world.publish, item, "b")
    await world.settle()
    assert len(world.inference.calls) == calls
    assert item not in (await read_state(world.records, "wall")).members
    assert (await read_state(world.records, "default")).members[item] == "000000.000002"
    assert not await leave_collection(world.records, world.publish, item, "b")
    # The last collection: the item hangs nowhere, but it stays in the house.
    assert await leave_collection(world.records, world.publish, item, "a")
    await world.settle()
    assert item not in (await read_state(world.records, "default")).members
    assert (await world.records.state(item)).alive


async def test_an_item_that_left_its_last_collection_leaves_the_walls_though_its_event_is_lost(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle()
    await leave_collection(world.records, world.publish, item, "spring")
    world.published.take()
    await Reconciler(world.records, world.publish, 0).run_once(at_once=True)
    await world.settle()
    await Reconciler(world.records, world.publish, 0).run_once(at_once=True)
    await world.settle()
    assert item not in (await read_state(world.records, "default")).members


async def test_the_vector_store_is_mended_from_the_records(world: World) -> None:
    kept, lost = await put_item(world.records, "kept"), await put_item(world.records, "lost")
    for item in (kept, lost):
        await world.announce(item)
    await world.settle()
    vectors = await world.vectors.fetch(Kind.ARTWORK, lost, 0)
    assert vectors is not None
    await world.vectors.remove(Kind.ARTWORK, lost, 0)
    await world.vectors.upsert([(Kind.ARTWORK, made_item("stray"), 0, vectors, {})])
    assert await mend_index(world.records, world.vectors, world.publish) == (1, 1)
    await world.settle()
    assert await world.points() == {(kept, 0), (lost, 0)}
    again = await world.vectors.fetch(Kind.ARTWORK, lost, 0)
    assert again is not None
    assert all(np.allclose(again[name], vector) for name, vector in vectors.items())
    assert len([event for event in world.everything if isinstance(event, Indexed)]) == 3
    assert await mend_index(world.records, world.vectors, world.publish) == (0, 0)
