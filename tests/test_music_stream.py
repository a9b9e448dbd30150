"""Music in the background: who asks, that a wish is one piece whatever happens, and that a takedown wins."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping

import pytest
import soundfile

from infra.objects import NotFound
from infra.records import DEFAULT_EXHIBITION, compose_letter, piece_key
from schemas.events import DeadLettered, Event, MusicComposed, MusicRequested, PairingChanged, PairingCommand
from schemas.failures import Lasting, Passing
from schemas.media import split_item_id
from schemas.records import ExhibitionSettings, MusicRecord, now
from streams.compose import TRIES, requested
from streams.exhibitions import command
from streams.pairing import PairHandler
from streams.upkeep import Reconciler, retry, withdraw
from tests.made_world import PROFILE, Died
from tests.music_standin import MadeComposer, MusicWorld, studio_world
from tests.stack_fixtures import everything_of
from workers.compose import NoComposer, Studio
from workers.contract import Tools
from workers.spool import RATE

__all__ = ["studio_world"]


def composer(world: MusicWorld) -> MadeComposer:
    assert isinstance(world.inference, MadeComposer)
    return world.inference


async def only(world: MusicWorld, artwork: str) -> MusicRecord:
    """The one piece of a picture."""
    (record,) = await world.records.pieces(artwork)
    return record


def at(number: int, work: Callable[[], Awaitable[object]]) -> Callable[[int, bool], Awaitable[None]]:
    """A hook that does something before a chunk."""

    async def hook(chunk: int, live: bool) -> None:
        if chunk == number:
            await work()

    return hook


# -- a piece and what is kept of it ------------------------------------------------------------------------


async def test_a_wish_becomes_a_piece_with_its_sound_in_two_forms_and_its_record(studio_world: MusicWorld) -> None:
    world = studio_world
    artwork, *_ = await world.hang("sea", "night", "snow")
    event = await world.ask(artwork, seconds=6, seed=3, wishes={"tempo": 90, "key": "D minor"})
    await world.handle(event)

    record = await only(world, artwork)
    assert (record.piece, record.artwork, record.seed, record.asked) == (event.piece, artwork, 3, "background")
    assert record.piece.startswith(split_item_id(artwork)[1][:8])
    assert record.wishes == {"tempo": 90.0, "key": "D minor"}
    assert record.exhibition == DEFAULT_EXHIBITION and record.track is not None
    assert record.report["key"] == "D"
    assert record.queue_seconds is not None and record.real_time_factor > 0
    assert record.provenance.models["compose_music"] == "stand-in 1"
    assert "measure_sound" in record.provenance.models
    for form in ("wav", "ogg"):
        content = await world.records.objects.get(piece_key(artwork, 0, record.piece, f"piece.{form}"))
        assert len(content) == record.sizes[form]
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            assert (sound.samplerate, sound.channels, sound.frames) == (RATE, 2, 6 * RATE)
            assert "sea" in sound.title
            assert artwork in sound.comment and "seed 3" in sound.comment
    (composed,) = world.published.of(MusicComposed)
    assert isinstance(composed, MusicComposed)
    assert composed.result == piece_key(artwork, 0, record.piece, "record.json")


async def test_a_piece_is_compared_with_picture_and_track_beside_chance(studio_world: MusicWorld) -> None:
    world = studio_world
    artwork, *_ = await world.hang("sea", "night", "snow", "field")
    await world.handle(await world.ask(artwork, seconds=5))
    record = await only(world, artwork)
    assert record.feelings is not None
    assert len(record.feelings.rgb_parts) == len(record.feelings.va_parts) == 5
    assert record.feelings.words
    spaces = {to: {each.space for each in record.similarities if each.to == to} for to in ("picture", "track")}
    assert spaces["picture"] == {"rgb", "rgb15", "va", "caption-minilm-1"}
    # Both are sounds, so the sound model's own space is theirs too.
    assert spaces["track"] == spaces["picture"] | {"sound-tags-1"}
    for each in record.similarities:
        assert each.chance is not None and each.percentile is not None
        assert -1 <= each.similarity <= 1
        assert 0 <= each.percentile <= 100


async def test_a_piece_that_nobody_can_listen_to_is_kept_all_the_same(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")

    async def refuse(model: str) -> None:
        if model == "measure_sound":
            raise Lasting("the model measure_sound refuses it.")

    world.inference.before = refuse
    await world.handle(await world.ask(artwork, seconds=5))
    record = await only(world, artwork)
    assert record.feelings is None and record.similarities == ()


# -- one wish, one piece -----------------------------------------------------------------------------------


async def test_the_same_question_is_the_same_piece(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    first = await world.ask(artwork, seconds=5)
    assert (await world.ask(artwork, seconds=5.0, seed=0, wishes={})).piece == first.piece
    for other in ({"seconds": 6}, {"seed": 1}, {"wishes": {"tempo": 90}}):
        assert (await world.ask(artwork, **{"seconds": 5, **other})).piece != first.piece
    for _ in range(3):
        await world.handle(first)
    assert len(composer(world).composed) == 1
    assert len(await world.records.pieces(artwork)) == 1
    assert len(world.published.of(MusicComposed)) == 3


async def test_a_worker_killed_at_any_call_to_the_store_leaves_one_piece(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)
    objects = world.records.objects
    objects.arm(0, None)  # type: ignore[attr-defined]
    place = 1
    while True:
        objects.arm(place, objects.die)  # type: ignore[attr-defined]
        try:
            await world.handle(event)
            break
        except Died:
            objects.disarm()  # type: ignore[attr-defined]
            world.restart()
            # It is delivered again to whoever takes over.
        place += 1
        assert place < 100
    objects.disarm()  # type: ignore[attr-defined]
    await world.handle(event)
    assert place > 10
    record = await only(world, artwork)
    names = await world.records.piece_names(artwork, 0, record.piece)
    assert names == {"request.json", "piece.wav", "piece.ogg", "record.json"}
    assert composer(world).running == 0


async def test_what_was_asked_under_old_captions_is_asked_anew(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    old = await world.ask(artwork, seconds=5)
    state = await world.records.state(artwork)
    assert state.latest is not None
    latest = await world.records.revision(artwork, state.latest)
    following = latest.model_copy(
        update={"revision": 2, "catalogue": latest.catalogue.model_copy(update={"year": "1890"})}
    )
    assert await world.records.create_revision(following)
    await world.announce(artwork, revision=2)
    await world.settle()
    await world.handle(old)
    (new,) = world.published.of(MusicRequested)
    assert isinstance(new, MusicRequested)
    assert new.piece != old.piece and new.revision == 2
    await world.settle()
    assert (await only(world, artwork)).piece == new.piece
    assert await world.records.piece_names(artwork, 0, old.piece) == set()


# -- what walls want ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["never", "on request"])
async def test_a_wall_that_does_not_always_want_music_asks_for_none(studio_world: MusicWorld, policy: str) -> None:
    world = studio_world
    await world.hang("sea", "night", music=policy)
    assert [event for event in world.everything if isinstance(event, MusicRequested)] == []


async def test_a_wall_that_always_wants_music_has_a_piece_for_each_picture_that_hangs(
    studio_world: MusicWorld,
) -> None:
    world = studio_world
    pictures = await world.hang("sea", "night", music="always")
    await world.settle()
    for artwork in pictures:
        record = await only(world, artwork)
        place = await world.studio.place_of(artwork)
        assert record.track == place.track and record.exhibition == DEFAULT_EXHIBITION
    assert len(composer(world).composed) == 2


async def test_a_wall_told_to_want_music_asks_for_what_hangs_already(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    await world.hang(music="always")
    await world.publish([command(DEFAULT_EXHIBITION, "changed")])
    await world.settle()
    assert (await only(world, artwork)).asked == "background"


async def test_a_large_wall_told_to_want_music_does_not_stand_in_the_way_of_its_pairing(
    studio_world: MusicWorld,
) -> None:
    world = studio_world
    go_on = asyncio.Event()

    async def slowly(settings: ExhibitionSettings, hung: Mapping[str, str], trace: str) -> list[Event]:
        await go_on.wait()
        return await world.asker.wall(settings, hung, trace)

    world.pairing = PairHandler(world.records, world.publish, slowly)
    world.handlers[PairingCommand] = world.pairing
    pictures = await world.hang("sea", "night", "snow", "field", "dawn")
    await world.hang(music="always")
    # Both return although nobody has been asked for anything yet.
    await world.handle(command(DEFAULT_EXHIBITION, "changed"))
    await world.handle(command(DEFAULT_EXHIBITION, "hang"))
    assert world.published.of(MusicRequested) == []
    go_on.set()
    await world.settle()
    for artwork in pictures:
        assert (await only(world, artwork)).asked == "background"


async def test_a_crash_between_writing_and_announcing_loses_no_music(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea", music="always")
    world.published.take()
    # The broker never heard of the revision, nor of the wish that came with it.
    world.restart()
    await world.publish([command(DEFAULT_EXHIBITION, "hang")])
    await world.settle(until=PairingChanged)
    assert world.published.of(MusicRequested)
    await world.settle()
    assert (await only(world, artwork)).asked == "background"


async def test_reconcile_announces_again_what_waits(studio_world: MusicWorld) -> None:
    world = studio_world
    one, two = await world.hang("sea", "night")
    await world.ask(one, seconds=5)
    reconciler = Reconciler(world.records, world.publish, 0.0, world.asker.wall)
    assert (await reconciler.run_once(at_once=True))["compose"] == 1
    await world.settle()
    assert (await only(world, one)).asked == "background"
    # A wall's wish that was never written down is made up for.
    await world.hang(music="always")
    counts = await reconciler.run_once(at_once=True)
    assert counts["compose"] >= 1
    await world.settle()
    assert await world.records.pieces(two)
    assert "compose" not in await reconciler.run_once(at_once=True)


async def test_an_exhibition_told_never_drops_what_it_wanted(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea", music="always")
    await world.hang(music="never")
    await world.settle()
    assert await world.records.pieces(artwork) == []
    assert (await world.records.state(artwork)).wanted_pieces() == []
    assert composer(world).composed == []


async def test_a_profile_without_composer_asks_for_nothing_and_refuses_in_plain_words(
    studio_world: MusicWorld,
) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)
    models = {name: entry for name, entry in PROFILE.models.items() if name != "compose_music"}
    tools = Tools(world.inference, PROFILE.model_copy(update={"models": models}))
    studio = Studio(world.records, tools, world.folder)
    with pytest.raises(NoComposer, match="serves no composer"):
        await studio.question(artwork)
    world.composing._studio = studio
    await world.handle(event)
    ((_, letter),) = await world.records.dead_letters()
    assert "serves no composer" in letter.reason


# -- takedowns and deletions -------------------------------------------------------------------------------


async def test_a_takedown_takes_the_music_along(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    await world.handle(await world.ask(artwork, seconds=5))
    await withdraw(world.records, world.publish, artwork, "")
    await world.settle()
    left = await everything_of(world.records, artwork)
    assert left == [f"items/{artwork}/tombstones/000000.json"]
    assert await world.records.find_piece(artwork.split("-")[1][:8] + "0" * 12) is None


async def test_a_takedown_stops_a_running_composition_and_wins(
    studio_world: MusicWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = studio_world
    monkeypatch.setattr("workers.compose._CHECK_SECONDS", 0.0)
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=30)
    reached: list[int] = []

    async def taken_down(chunk: int, live: bool) -> None:
        reached.append(chunk)
        if chunk == 2:
            await withdraw(world.records, world.publish, artwork, "")

    composer(world).hook = taken_down
    await world.handle(event)
    await world.settle()
    assert max(reached) <= 4
    assert composer(world).running == 0
    assert await everything_of(world.records, artwork) == [f"items/{artwork}/tombstones/000000.json"]
    assert world.published.of(MusicComposed) == []


async def test_a_takedown_at_any_call_to_the_store_leaves_nothing(studio_world: MusicWorld) -> None:
    world = studio_world
    objects = world.records.objects
    place = 1
    while True:
        (artwork,) = await world.hang(f"sea {place}")
        event = await world.ask(artwork, seconds=5)

        async def taken_down(artwork: str = artwork) -> None:
            await withdraw(world.records, world.publish, artwork, "")

        objects.arm(place, taken_down)  # type: ignore[attr-defined]
        await world.handle(event)
        counted = objects.disarm()  # type: ignore[attr-defined]
        await world.settle()
        if counted < place:
            break
        left = await everything_of(world.records, artwork)
        assert left == [f"items/{artwork}/tombstones/000000.json"], place
        place += 4


async def test_a_piece_that_a_person_deleted_is_not_asked_for_again(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea", music="always")
    await world.settle()
    record = await only(world, artwork)
    await world.records.delete_piece(artwork, 0, record.piece)
    assert await world.records.pieces(artwork) == []
    with pytest.raises(NotFound):
        await world.records.objects.get(piece_key(artwork, 0, record.piece, "piece.wav"))
    await Reconciler(world.records, world.publish, 0.0, world.asker.wall).run_once(at_once=True)
    await world.settle()
    assert await world.records.pieces(artwork) == []
    assert len(composer(world).composed) == 1


async def test_a_piece_deleted_while_it_is_composed_is_not_kept(
    studio_world: MusicWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = studio_world
    monkeypatch.setattr("workers.compose._CHECK_SECONDS", 0.0)
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=20)
    composer(world).hook = at(3, lambda: world.records.delete_piece(artwork, 0, event.piece))
    await world.handle(event)
    assert await world.records.pieces(artwork) == []
    assert await world.records.piece_names(artwork, 0, event.piece) == {"deleted.json"}


# -- trouble -----------------------------------------------------------------------------------------------


async def test_a_composer_that_fails_is_asked_again_and_then_the_piece_is_set_aside(
    studio_world: MusicWorld,
) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)

    async def broken() -> None:
        raise Lasting("the model compose_music failed: the strings broke", "See the model server's log.")

    composer(world).hook = at(2, broken)
    await world.handle(event)
    assert len(composer(world).composed) == TRIES
    ((key, letter),) = await world.records.dead_letters()
    assert "the strings broke" in letter.reason and letter.stage == "compose"
    assert key.endswith(f"/{compose_letter(event.piece)}.json")
    assert len(world.published.of(DeadLettered)) == 1
    assert (await world.records.state(artwork)).wanted_pieces() == []
    # Put right, it is retried like any dead letter, which then goes.
    composer(world).hook = None
    world.published.take()
    await retry(world.records, world.publish, key)
    await world.settle()
    assert await world.records.dead_letters() == []
    assert (await only(world, artwork)).piece == event.piece


async def test_one_failure_by_chance_costs_nothing_but_time(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    failures = iter([True])

    async def once() -> None:
        if next(failures, False):
            raise Lasting("the model compose_music failed: by chance")

    composer(world).hook = at(1, once)
    await world.handle(await world.ask(artwork, seconds=5))
    assert (await only(world, artwork)).seconds == 5
    assert await world.records.dead_letters() == []


async def test_a_model_server_that_is_away_holds_the_wish(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)

    async def away() -> None:
        raise Passing("model server", "does not answer")

    composer(world).hook = at(0, away)
    with pytest.raises(Passing):
        await world.handle(event)
    composer(world).hook = None
    await world.handle(event)
    assert (await only(world, artwork)).piece == event.piece


async def test_an_endless_composer_is_stopped(studio_world: MusicWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)
    question = await world.studio.question(artwork, 5)
    spool = world.studio.spool(question)
    spool._most = 2 * RATE
    try:
        with pytest.raises(Lasting, match="does not stop"):
            await world.studio.compose(question, spool, live=False)
    finally:
        spool.close()
    assert composer(world).running == 0
    assert event.piece == question.piece


async def test_an_event_that_names_a_foreign_request_is_set_aside(studio_world: MusicWorld) -> None:
    world = studio_world
    one, two = await world.hang("sea", "night")
    mine, other = await world.ask(one, seconds=5), await world.ask(two, seconds=5)
    await world.handle(mine.model_copy(update={"request": other.request}))
    (letter,) = [each for _, each in await world.records.dead_letters()]
    assert "another request" in letter.reason
    assert composer(world).composed == []


async def test_a_request_is_announced_as_it_was_written(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)
    again = requested(await world.records.request(event.request))
    assert again.model_dump(exclude={"trace", "happened"}) == event.model_dump(exclude={"trace", "happened"})
    assert (now() - (await world.records.request(event.request)).made).total_seconds() < 60
    await asyncio.sleep(0)
