"""A stage over items on a real object store: one truth, whatever comes twice, late, at once, or dies in between."""

from __future__ import annotations

import asyncio

import pytest

from infra.records import Records, dead_key, result_key, tombstone_key
from schemas.events import (
    Arrived,
    Captioned,
    DeadLettered,
    Embedded,
    Event,
    Indexed,
    PairingChanged,
    Scored,
    new_trace,
)
from schemas.failures import Lasting, Passing
from schemas.media import Kind
from schemas.records import Catalogue, DeadLetter, Stage, Tombstone, now
from streams.runner import STRIKES
from tests.made_world import PROFILE, Died, HookedObjects, World, stage_events
from tests.stack_fixtures import made_item, put_item

pytestmark = pytest.mark.stack


def arrived(item: str, revision: int = 1, generation: int = 0) -> Arrived:
    return Arrived(trace=new_trace(), item=item, generation=generation, revision=revision)


async def results_of(records: Records, item: str, stage: Stage) -> list[str]:
    return [info.key for info in await records.objects.list(f"items/{item}/results/{stage.value}/")]


async def letters_of(world: World) -> list[DeadLetter]:
    return [letter for _, letter in await world.records.dead_letters()]


async def test_an_item_goes_all_the_way(world: World) -> None:
    picture = await put_item(world.records, "picture")
    other = await put_item(world.records, "other", Kind.ARTWORK)
    await world.announce(picture)
    await world.announce(other)
    await world.settle()
    kinds = [type(event) for event in world.everything if getattr(event, "item", "") == picture]
    assert [kind for kind in kinds if kind in (Arrived, Captioned, Scored, Embedded, Indexed)] == [
        Arrived,
        Captioned,
        Scored,
        Embedded,
        Indexed,
    ]
    assert len({event.trace for event in world.everything if getattr(event, "item", "") == picture}) == 1
    state = await world.records.state(picture)
    assert all(state.done(stage) is not None for stage in (Stage.CAPTION, Stage.SCORE, Stage.EMBED, Stage.INDEX))
    assert await world.points() == {(picture, 0), (other, 0)}
    assert any(isinstance(event, PairingChanged) for event in world.everything)
    result = await world.records.newest_result(state, Stage.CAPTION)
    assert result is not None
    assert result.provenance.models == {
        name: PROFILE.version(name) for name in ("measure_picture", "caption_picture")
    }
    assert await world.records.objects.list("attempts/") == []


async def test_of_two_workers_at_once_one_answer_stays_and_both_announce_it(world: World) -> None:
    item = await put_item(world.records, "a")
    together = asyncio.Barrier(2)

    async def meet(model: str) -> None:
        if model == "caption_picture":
            await together.wait()

    world.inference.before = meet
    other = World(world.records.objects, world.vectors)
    other.inference = world.inference
    other.restart()
    await asyncio.gather(world.handle(arrived(item)), other.handle(arrived(item)))
    assert world.inference.calls.count("caption_picture") == 2
    (key,) = await results_of(world.records, item, Stage.CAPTION)
    for each in (world, other):
        assert [event.result for event in each.published.of(Captioned)] == [key]  # type: ignore[attr-defined]


async def test_a_repeated_delivery_announces_the_same_result_and_computes_nothing(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.handle(arrived(item))
    calls = len(world.inference.calls)
    world.restart()
    before = stage_events(Stage.CAPTION, "repeated")
    await world.handle(arrived(item))
    first, second = world.published.of(Captioned)
    assert first.result == second.result  # type: ignore[attr-defined]
    assert len(world.inference.calls) == calls
    assert stage_events(Stage.CAPTION, "repeated") == before + 1


async def test_an_event_of_an_older_revision_is_dropped(world: World) -> None:
    item = await put_item(world.records, "a")
    await put_item(world.records, "a", revision=2, catalogue=Catalogue(title="another"))
    await world.handle(arrived(item, 1))
    assert world.published.events == []
    assert await results_of(world.records, item, Stage.CAPTION) == []
    await world.handle(arrived(item, 2))
    (event,) = world.published.of(Captioned)
    assert "000000.000002" in event.result  # type: ignore[attr-defined]


async def test_the_same_question_of_an_earlier_revision_is_copied_not_asked_again(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle()
    calls = len(world.inference.calls)
    # Another collection with nothing new to say: the catalogue stays, so the caption does.
    await put_item(world.records, "a", revision=2, collections=("autumn", "spring"))
    await world.announce(item, revision=2)
    await world.settle()
    assert len(world.inference.calls) == calls
    state = await world.records.state(item)
    for stage in (Stage.CAPTION, Stage.SCORE, Stage.EMBED, Stage.INDEX):
        assert len(state.results[((0, 2), stage)]) == 1
    found = await world.records.newest_result(state, Stage.CAPTION)
    first = await world.records.result((await results_of(world.records, item, Stage.CAPTION))[0])
    assert found is not None
    assert (found.revision, found.body, found.digest) == (2, first.body, first.digest)
    (point,) = await world.vectors.nearest(
        Kind.ARTWORK, "rgb", (await world.vectors.fetch(Kind.ARTWORK, item, 0) or {})["rgb"], 5, collection="autumn"
    )
    assert point.payload["revision"] == 2


async def test_a_changed_catalogue_is_captioned_anew(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle()
    await put_item(world.records, "a", revision=2, catalogue=Catalogue(title="another"))
    before = world.inference.calls.count("caption_picture")
    await world.announce(item, revision=2)
    await world.settle()
    assert world.inference.calls.count("caption_picture") == before + 1
    assert await world.points() == {(item, 0)}


async def test_a_refusal_becomes_a_dead_letter_in_plain_words_and_hurts_no_neighbour(world: World) -> None:
    good, bad = await put_item(world.records, "good"), await put_item(world.records, "bad")

    async def refuse(model: str) -> None:
        if model == "measure_picture" and asyncio.current_task() is not None and refuse_next:
            refuse_next.pop()
            raise Lasting("the model measure_picture refuses it: it is all dark.", "Bring a lighter one.")

    refuse_next = [True]
    world.inference.before = refuse
    await world.handle(arrived(bad), arrived(good))
    (letter,) = await letters_of(world)
    assert letter.item in (good, bad)
    assert letter.stage == "caption"
    assert letter.reason == "the model measure_picture refuses it: it is all dark."
    assert letter.advice == "Bring a lighter one."
    assert letter.event is not None
    assert letter.event["type"] == "arrived"
    assert len(world.published.of(Captioned)) == 1
    (told,) = world.published.of(DeadLettered)
    assert told.result == dead_key(letter.item, (0, 1), "caption")  # type: ignore[attr-defined]


async def test_a_defect_of_the_stage_costs_only_the_item_that_meets_it(world: World) -> None:
    good, bad = await put_item(world.records, "good"), await put_item(world.records, "bad")
    load = world._load

    async def broken(item: str, generation: int) -> bytes:
        if item == bad:
            raise ZeroDivisionError("oh")
        return await load(item, generation)

    world.items[Stage.CAPTION]._load_rendition = broken
    await world.handle(arrived(bad), arrived(good))
    (letter,) = await letters_of(world)
    assert letter.item == bad
    assert "defect of its own: ZeroDivisionError" in letter.reason
    assert [event.item for event in world.published.of(Captioned)] == [good]  # type: ignore[attr-defined]


async def test_passing_trouble_leaves_no_mark_and_no_letter(world: World) -> None:
    item = await put_item(world.records, "a")

    async def away(model: str) -> None:
        raise Passing("model server", "away")

    world.inference.before = away
    with pytest.raises(Passing):
        await world.handle(arrived(item))
    assert await world.records.objects.list("attempts/") == []
    assert await letters_of(world) == []
    assert world.published.events == []
    world.inference.before = None
    await world.handle(arrived(item))
    assert len(world.published.of(Captioned)) == 1


async def test_success_settles_an_earlier_dead_letter(world: World) -> None:
    item = await put_item(world.records, "a")

    async def refuse(model: str) -> None:
        raise Lasting("no.", "")

    world.inference.before = refuse
    await world.handle(arrived(item))
    assert len(await letters_of(world)) == 1
    world.inference.before = None
    await world.handle(arrived(item))
    assert await letters_of(world) == []


@pytest.mark.parametrize("stage", [Stage.CAPTION, Stage.SCORE, Stage.EMBED, Stage.INDEX])
async def test_a_worker_killed_at_any_write_leaves_nothing_that_a_redelivery_does_not_mend(
    world: World, stage: Stage
) -> None:
    objects = world.records.objects
    assert isinstance(objects, HookedObjects)
    waits_for: dict[Stage, type[Event]] = {
        Stage.CAPTION: Arrived,
        Stage.SCORE: Captioned,
        Stage.EMBED: Scored,
        Stage.INDEX: Embedded,
    }
    consumed = waits_for[stage]
    number = 0
    while True:
        number += 1
        item = await put_item(world.records, f"{stage}-{number}")
        await world.announce(item)
        await world.settle(until=consumed)
        (event,) = world.published.take()
        objects.arm(number, objects.die)
        try:
            await world.handle(event)
            killed = False
        except Died:
            killed = True
        objects.disarm()
        world.restart()
        for handler in world.items.values():
            await handler.load_marks()
        world.published.take()
        await world.handle(event)
        await world.settle()
        state = await world.records.state(item)
        for each in (Stage.CAPTION, Stage.SCORE, Stage.EMBED, Stage.INDEX):
            assert len(state.results[((0, 1), each)]) == 1, (number, each)
        assert state.dead == {}
        assert (item, 0) in await world.points()
        assert await objects.list("attempts/") == [], number
        if not killed:
            break
    assert number > 4


async def test_an_item_that_kills_its_worker_again_and_again_becomes_a_dead_letter(world: World) -> None:
    objects = world.records.objects
    assert isinstance(objects, HookedObjects)
    killer, neighbour = await put_item(world.records, "killer"), await put_item(world.records, "neighbour")
    handler_batches: list[list[str]] = []

    async def kill(item: str, generation: int) -> bytes:
        if item == killer:
            await objects.die()
        return await World._load(world, item, generation)

    async def process(*batch: Arrived) -> bool:
        """One life of a worker, from its start to its death or the end of the batch."""
        world.restart()
        handler = world.items[Stage.CAPTION]
        handler._load_rendition = kill
        await handler.load_marks()
        deliveries = [world.delivery(event) for event in batch]
        suspects = [each for each in deliveries if handler.alone(each)]
        groups = [[each] for each in suspects] or [deliveries]
        groups += [[each for each in deliveries if each not in suspects]] if suspects else []
        try:
            for group in filter(None, groups):
                handler_batches.append([each.key for each in group])
                await handler.handle(group)
        except Died:
            objects.disarm()
            return False
        return True

    lives = 0
    while not await process(arrived(killer), arrived(neighbour)):
        lives += 1
        assert lives < 10
    # Killed once with its neighbour in hand (which only isolates both), then alone until it is enough.
    assert handler_batches[0] == [killer, neighbour]
    assert all(batch == [killer] for batch in handler_batches[1:lives])
    assert lives == STRIKES + 2
    letters = await letters_of(world)
    assert [letter.item for letter in letters] == [killer]
    assert "died" in letters[0].reason
    assert len(await results_of(world.records, neighbour, Stage.CAPTION)) == 1
    assert await objects.list("attempts/") == []


async def test_an_event_that_cannot_be_read_is_set_aside_with_its_first_bytes(world: World) -> None:
    good = await put_item(world.records, "good")
    handler = world.items[Stage.CAPTION]
    await handler.handle([world.delivery(b"{broken", "promenade.arrived"), world.delivery(arrived(good))])
    (letter,) = await letters_of(world)
    assert "not JSON" in letter.reason
    assert letter.event == {"first bytes": "{broken"}
    assert letter.reference.startswith("promenade.arrived/0/")
    assert len(world.published.of(Captioned)) == 1


async def test_an_event_without_a_record_and_one_ahead_of_it_are_set_aside(world: World) -> None:
    known = await put_item(world.records, "known")
    await world.handle(arrived(made_item("never ingested")))
    await world.handle(arrived(known, revision=7))
    reasons = sorted(letter.reason for letter in await letters_of(world))
    assert "no record" in reasons[0]
    assert "names revision 0.7" in reasons[1]


async def test_a_stage_whose_input_is_missing_says_so(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.handle(Captioned(trace=new_trace(), item=item, generation=0, revision=1, result="items/nothing"))
    (letter,) = await letters_of(world)
    assert "no caption result" in letter.reason
    assert "reconcile" in letter.advice


async def test_a_result_harmed_by_other_hands_hurts_no_neighbour(world: World) -> None:
    harmed, good = await put_item(world.records, "harmed"), await put_item(world.records, "good")
    await world.handle(arrived(harmed))
    (key,) = await results_of(world.records, harmed, Stage.CAPTION)
    await world.records.objects.put(key, b'{"half": ')
    world.restart()
    world.published.take()
    await world.handle(arrived(harmed), arrived(good))
    (letter,) = await letters_of(world)
    assert letter.item == harmed
    assert key in letter.reason
    assert [event.item for event in world.published.of(Captioned)] == [good]  # type: ignore[attr-defined]


async def test_a_new_model_version_asks_anew_and_keeps_the_old_answer(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.handle(arrived(item))
    handler = world.items[Stage.CAPTION]
    models = dict(PROFILE.models)
    models["caption_picture"] = models["caption_picture"].model_copy(update={"version": "next"})
    newer = PROFILE.model_copy(update={"models": models})
    # S3 tells when an object was written in whole seconds, and the newest answer is found by that.
    await asyncio.sleep(1.1)
    handler._tools = type(handler._tools)(world.inference, newer, world.vectors)
    await world.handle(arrived(item))
    keys = await results_of(world.records, item, Stage.CAPTION)
    assert len(keys) == 2
    state = await world.records.state(item)
    newest = await world.records.newest_result(state, Stage.CAPTION)
    assert newest is not None
    assert newest.provenance.models["caption_picture"] == "next"
    assert world.published.of(Captioned)[1].result == result_key(item, (0, 1), Stage.CAPTION, newest.digest)  # type: ignore[attr-defined]


async def test_a_takedown_between_two_stages_is_seen_though_the_listing_is_remembered(world: World) -> None:
    item = await put_item(world.records, "a")
    await world.announce(item)
    await world.settle(until=Captioned)
    (captioned,) = world.published.take()
    other = Records(world.records.objects)
    await other.bury(Tombstone(item=item, generation=0, reason="asked for", made=now()))
    await world.handle(captioned)
    assert world.published.of(Scored) == []
    await world.settle()
    state = await world.records.state(item)
    assert state.keys == [tombstone_key(item, 0)]
