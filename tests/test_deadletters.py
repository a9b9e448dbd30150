"""Dead letters: what is set aside can be seen, tried again, and dropped, and nothing else changes by that."""

from __future__ import annotations

import pytest

from infra.progress import progress_of
from infra.records import dead_key
from promenade.cli import check_letter
from schemas.events import Arrived, Captioned, DeadLettered, Indexed, new_trace
from schemas.failures import Lasting, Refused
from schemas.records import Catalogue, DeadLetter, Stage, now
from streams.upkeep import Reconciler, drop, event_of, retry
from tests.made_world import World
from tests.stack_fixtures import made_item, put_item

pytestmark = pytest.mark.stack


async def failing(world: World, *models: str) -> None:
    async def refuse(model: str) -> None:
        if model in models:
            raise Lasting(f"the model {model} refuses it: too dark.", "Bring a lighter one.")

    world.inference.before = refuse


@pytest.mark.parametrize(
    ("stage", "model"),
    [(Stage.CAPTION, "measure_picture"), (Stage.SCORE, "score_emotion"), (Stage.EMBED, "embed_picture")],
)
async def test_a_retry_takes_the_item_up_at_its_stage_and_settles_the_letter(
    world: World, stage: Stage, model: str
) -> None:
    item = await put_item(world.records, "a")
    await failing(world, model)
    await world.announce(item)
    await world.settle()
    ((key, letter),) = await world.records.dead_letters()
    assert (key, letter.stage) == (dead_key(item, (0, 1), stage), stage.value)
    counts = progress_of([await world.records.state(item)], now())
    assert counts.stages[stage.value].failed == 1
    assert counts.dead_letters == 1
    world.inference.before = None
    calls = list(world.inference.calls)
    event = await retry(world.records, world.publish, key)
    assert event.happened > letter.made
    await world.settle()
    assert await world.records.dead_letters() == []
    assert any(isinstance(each, Indexed) for each in world.everything)
    # What was done before the failing stage was not done again.
    again = world.inference.calls[len(calls) :]
    assert ("caption_picture" in again) is (stage is Stage.CAPTION)


async def test_a_retry_that_fails_again_writes_a_new_letter(world: World) -> None:
    item = await put_item(world.records, "a")
    await failing(world, "measure_picture")
    await world.announce(item)
    await world.settle()
    ((key, first),) = await world.records.dead_letters()
    await retry(world.records, world.publish, key)
    assert await world.records.dead_letters() == []
    await world.settle()
    ((again, second),) = await world.records.dead_letters()
    assert again == key
    assert second.made > first.made
    assert second.reason == first.reason
    assert len([event for event in world.everything if isinstance(event, DeadLettered)]) == 2


async def test_dropping_a_letter_changes_nothing_else_and_a_second_time_is_refused(world: World) -> None:
    item = await put_item(world.records, "a")
    await failing(world, "score_emotion")
    await world.announce(item)
    await world.settle()
    ((key, _),) = await world.records.dead_letters()
    before = [info.key for info in await world.records.objects.list("items/")]
    await drop(world.records, key)
    assert [info.key for info in await world.records.objects.list("items/")] == [
        each for each in before if each != key
    ]
    for work in (drop(world.records, key), retry(world.records, world.publish, key)):
        with pytest.raises(Refused, match="no dead letter"):
            await work


async def test_a_retry_of_a_replaced_revision_is_dropped_by_the_stage(world: World) -> None:
    item = await put_item(world.records, "a")
    await failing(world, "measure_picture")
    await world.announce(item)
    await world.settle()
    world.inference.before = None
    await put_item(world.records, "a", revision=2, catalogue=Catalogue(title="newer"))
    ((key, _),) = await world.records.dead_letters()
    await retry(world.records, world.publish, key)
    await world.settle()
    assert await world.records.dead_letters() == []
    assert not [event for event in world.everything if isinstance(event, Captioned)]


async def test_an_event_that_could_not_be_read_can_only_be_dropped(world: World) -> None:
    handler = world.items[Stage.CAPTION]
    await handler.handle(
        [world.delivery(content, "promenade.arrived") for content in (b"", b"\xff\x00", b'{"type": 1}')]
    )
    letters = await world.records.dead_letters()
    assert len(letters) == 3
    for key, letter in letters:
        assert letter.item == ""
        assert letter.reference.startswith("promenade.arrived/0/")
        assert event_of(letter) is None
        with pytest.raises(Refused, match="cannot be announced again"):
            await retry(world.records, world.publish, key)
        await drop(world.records, key)
    assert await world.records.dead_letters() == []


async def test_events_of_a_topic_made_anew_do_not_replace_earlier_letters(world: World) -> None:
    """The same topic, partition and offset, but another event; and the same event once more."""
    handler = world.items[Stage.CAPTION]
    first, second, again = (world.delivery(content, "promenade.arrived") for content in (b"?", b"!", b"?"))
    second.offset = again.offset = first.offset
    for delivery in (first, second, again):
        await handler.handle([delivery])
    letters = await world.records.dead_letters()
    assert len({key for key, _ in letters}) == 2
    assert {letter.reference for _, letter in letters} == {first.reference}
    assert sorted(str((letter.event or {})["first bytes"]) for _, letter in letters) == ["!", "?"]
    for key, _ in letters:
        assert check_letter(key) == key


async def test_letters_of_every_kind_are_listed_with_items_first(world: World) -> None:
    await world.handle(Arrived(trace=new_trace(), item=made_item("no record"), generation=0, revision=1))
    await world.withdrawing.handle([world.delivery(b"?", "promenade.withdrawn")])
    await world.pairing.handle([world.delivery(b"?", "promenade.pairing")])
    letters = await world.records.dead_letters()
    assert letters[0][1].stage == "caption"
    assert sorted(letter.stage for _, letter in letters) == ["caption", "pair", "withdraw"]
    assert all(letter.reason.endswith(".") for _, letter in letters)
    assert (await world.records.all_states())[0].alive is False


async def test_reconcile_leaves_what_was_set_aside_alone(world: World) -> None:
    item = await put_item(world.records, "a")
    await failing(world, "measure_picture")
    await world.announce(item)
    await world.settle()
    assert await Reconciler(world.records, world.publish, 0).run_once(at_once=True) == {}
    assert world.published.events == []


def test_the_event_of_a_letter_is_announced_anew_with_a_trace_of_its_own() -> None:
    event = Arrived(trace="0" * 32, item=made_item("a"), generation=0, revision=3)
    letter = DeadLetter(
        item=event.item, stage="caption", reason="r", reference="x", event=event.model_dump(mode="json"), made=now()
    )
    again = event_of(letter)
    assert isinstance(again, Arrived)
    assert (again.item, again.revision) == (event.item, 3)
    assert again.trace != event.trace
    assert again.happened > event.happened
