"""Several composers behind one capability: who is asked, how pieces are told apart, and what is said of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.records import DEFAULT_EXHIBITION
from promenade.compose import side_by_side
from schemas.events import MusicComposed, MusicRequested
from schemas.failures import Lasting, Refused
from schemas.media import Kind
from schemas.profile import ModelEntry, Profile
from schemas.records import ExhibitionSettings, MusicRequest, inputs_digest
from streams.compose import Asker, ComposeHandler
from streams.exhibitions import check
from tests.made_world import PROFILE
from tests.music_standin import MUSIC_PROFILE, MadeComposer, MusicWorld, studio_world
from tests.stack_fixtures import made_item
from tests.test_music_live import serving, until_kept
from workers.compose import NoSuchComposer, Studio
from workers.contract import Tools
from workers.models import Models, unpack

__all__ = ["studio_world"]

TWO = MUSIC_PROFILE.model_copy(
    update={
        "models": {**MUSIC_PROFILE.models, "compose_second": ModelEntry(version="7", reads=("measurements",))},
        "composers": {"edge": "compose_music", "second": "compose_second"},
        # The one space of the edge profile that holds both kinds stands in for ImageBind's.
        "composer_space": PROFILE.caption_space,
    }
)


class Asked(MadeComposer):
    """Remembers which model was asked, and with which vector."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []

    def stream(self, model: str, inputs: Any, outputs: Any, *, stall_seconds: float) -> Any:
        """As `MadeComposer.stream`."""
        self.asked.append((model, len(inputs["VECTOR"])))
        return super().stream(model, inputs, outputs, stall_seconds=stall_seconds)


@pytest.fixture
def world(studio_world: MusicWorld) -> MusicWorld:
    """A world with two composers."""
    world = studio_world
    world.inference = Asked()
    world.restart()
    world.tools = Tools(world.inference, TWO, world.vectors)
    world.studio = Studio(world.records, world.tools, world.folder)
    world.asker = Asker(world.records, world.studio, seconds=5)
    world.composing = ComposeHandler(world.records, world.studio, world.tools, world.publish, world.withdrawing.undo)
    world.handlers[MusicRequested] = world.composing
    world.live.studio = world.studio
    world.live._ask = world.asker.ask
    return world


def asked_of(world: MusicWorld) -> list[tuple[str, int]]:
    assert isinstance(world.inference, Asked)
    return world.inference.asked


async def test_the_composer_is_part_of_what_a_piece_is(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    first = await world.studio.question(artwork)
    second = await world.studio.question(artwork, composer="second")
    assert first.piece == (await world.studio.question(artwork, composer="edge")).piece
    assert (first.composer, first.model, second.composer, second.model) == (
        "edge",
        "compose_music",
        "second",
        "compose_second",
    )
    assert first.piece != second.piece
    with pytest.raises(NoSuchComposer, match="there are edge, second"):
        await world.studio.question(artwork, composer="third")


async def test_pieces_that_are_older_than_the_choice_keep_their_names(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    question = await world.studio.question(artwork, 30.0, 4, {"tempo": 96})
    _, results = await world.records.understood(artwork) or (None, {})
    digests = {stage.value: result.digest for stage, result in results.items()}
    # As they were named when there was one composer.
    asked = {
        "artwork": artwork,
        "version": [0, 1],
        "inputs": [digests["caption"], digests["score"]],
        "seconds": 30.0,
        "seed": 4,
        "wishes": {"tempo": 96.0},
        "composer": ["edge", "stand-in 1"],
    }
    assert question.piece == artwork.split("-")[1][:8] + inputs_digest(asked)[:12]


async def test_a_request_names_its_composer_and_the_event_says_how_near_it_came(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5, composer="second")
    assert event.composer == "second"
    await world.handle(event)
    (record,) = await world.records.pieces(artwork)
    assert (record.composer, record.provenance.models["compose_second"]) == ("second", "7")
    assert "compose_music" not in record.provenance.models
    assert asked_of(world) == [("compose_second", 384)]
    (said,) = [each for each in world.everything if isinstance(each, MusicComposed)]
    assert said.composer == "second"
    near = {to: record.listened(to) for to in ("picture", "track")}
    assert record.listening_space == PROFILE.caption_space and near["picture"] and near["track"]
    assert said.picture_score == near["picture"].similarity and said.track_score == near["track"].similarity
    assert near["picture"].space == near["track"].space == PROFILE.caption_space


async def test_without_a_space_that_hears_and_looks_no_such_score_is_said(studio_world: MusicWorld) -> None:
    (artwork,) = await studio_world.hang("sea")
    await studio_world.handle(await studio_world.ask(artwork, seconds=5))
    (record,) = await studio_world.records.pieces(artwork)
    assert record.similarities and record.listening_space is None and record.listened("picture") is None
    (said,) = [each for each in studio_world.everything if isinstance(each, MusicComposed)]
    assert (said.composer, said.picture_score, said.track_score) == ("edge", None, None)


async def test_a_request_without_a_composer_is_the_edge_composers(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    event = await world.ask(artwork, seconds=5)
    request = await world.records.request(event.request)
    old = request.model_dump(mode="json")
    del old["composer"]
    assert MusicRequest.model_validate(old) == request


async def test_a_wall_wants_its_own_composer_or_every_one(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    settings = ExhibitionSettings(name="default", music="always", composer="second")
    events = await world.asker.wall(settings, {artwork: made_item("song", Kind.TRACK)}, "0" * 32)
    assert [each.composer for each in events if isinstance(each, MusicRequested)] == ["second"]
    settings = settings.model_copy(update={"composer": "all"})
    events = await world.asker.wall(settings, {artwork: made_item("song", Kind.TRACK)}, "0" * 32)
    assert sorted(each.composer for each in events if isinstance(each, MusicRequested)) == ["edge", "second"]
    settings = settings.model_copy(update={"composer": "gone"})
    assert await world.asker.wall(settings, {artwork: made_item("song", Kind.TRACK)}, "0" * 32) == []


def test_an_exhibition_names_a_composer_that_is_served() -> None:
    for name in (None, "edge", "second", "all"):
        check(ExhibitionSettings(name="spring", composer=name), TWO)
    with pytest.raises(Refused, match="no composer 'third'; there are edge, second"):
        check(ExhibitionSettings(name="spring", composer="third"), TWO)


async def test_a_person_chooses_or_the_wall_does(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    present = await world.records.exhibition(DEFAULT_EXHIBITION)
    assert present is not None
    changed = present.model_copy(update={"composer": "second", "number": present.number + 1})
    assert await world.records.put_exhibition(changed)
    async with serving(world) as client:

        async def piece(**how: Any) -> dict[str, Any]:
            answer = await client.post("/api/music", json={"artwork": artwork, "seconds": 5, **how})
            assert answer.status_code in (200, 202), answer.text
            asked = answer.json()
            record = await until_kept(client, asked["piece"])
            assert record["composer"] == asked["composer"]
            return record

        assert (await piece())["composer"] == "edge"
        assert (await piece(exhibition="default"))["composer"] == "second"
        assert (await piece(exhibition="default", composer="edge"))["composer"] == "edge"
        known = (await client.get("/api/music", params={"artwork": artwork})).json()
        assert known["composers"] == {"edge": "stand-in 1", "second": "7"}
        assert sorted(each["composer"] for each in known["pieces"]) == ["edge", "second"]
        refused = await client.post("/api/music", json={"artwork": artwork, "composer": "third"})
        assert refused.status_code == 422 and "there are edge, second" in refused.json()["detail"]


async def test_a_picture_without_a_vector_for_composers_is_set_aside_not_made_up(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    question = await world.studio.question(artwork)
    assert world.studio._shown(question).shape == (384,)
    world.studio._tools = Tools(world.inference, TWO.model_copy(update={"composer_space": "imagebind-1"}))
    with pytest.raises(Lasting, match="no vector in imagebind-1"):
        world.studio._shown(question)
    world.studio._tools = Tools(world.inference, TWO.model_copy(update={"composer_space": None}))
    assert world.studio._shown(question).tolist() == unpack(question.said.tag_vector).tolist()


async def test_a_composer_that_works_before_it_sounds_is_not_taken_for_a_silent_one(world: MusicWorld) -> None:
    class Working:
        async def stream(self, *_: Any, **__: Any) -> Any:
            for _ in range(3):
                yield {"SAMPLES": unpack("").reshape(0, 2)}
            report = b"{}"
            yield {"SAMPLES": unpack("").reshape(0, 2), "REPORT": np.array([report], dtype=object)}

    (artwork,) = await world.hang("sea")
    question = await world.studio.question(artwork)
    models = Models(Working(), TWO)  # type: ignore[arg-type]
    chunks = models.compose(
        "compose_second",
        question.score,
        question.said,
        world.studio._shown(question),
        seconds=5,
        seed=0,
        wishes={},
        live=True,
        stall_seconds=5,
    )
    assert [(chunk.alive, chunk.report) async for chunk in chunks] == [(True, None)] * 3 + [(True, {})]


async def test_pieces_side_by_side(world: MusicWorld) -> None:
    (artwork,) = await world.hang("sea")
    for composer in ("edge", "second"):
        await world.handle(await world.ask(artwork, seconds=5, composer=composer))
    pieces = await world.records.pieces(artwork)
    table = side_by_side(pieces)
    shown = [list(column.cells) for column in table.columns]
    assert sorted(shown[0]) == ["edge", "second"]
    for record, cell in zip(pieces, shown[4], strict=True):
        near = record.listened("picture")
        assert near is not None and str(cell).startswith(f"{near.similarity:.3f}")
    assert PROFILE.caption_space in str(table.caption)


def test_a_profile_with_a_composer_that_is_no_model_is_refused() -> None:
    plain = PROFILE.model_dump(mode="json")
    with pytest.raises(ValueError, match="'compose_nothing', which is not among the models"):
        Profile.model_validate({**plain, "composers": {"edge": "compose_nothing"}})
    with pytest.raises(ValueError, match="'sense-9', which is not among the spaces"):
        Profile.model_validate({**plain, "composer_space": "sense-9"})
    assert PROFILE.listening_space() is None, "the edge profile has no model that looks and hears in one space"
    assert TWO.listening_space() == PROFILE.caption_space
