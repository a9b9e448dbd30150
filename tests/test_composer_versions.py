"""A composer that declares its version: settings and weights of the model server are part of what a piece is.

How a composer of the full profile finds its version is tested where torch is (tests/models).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from schemas.events import MusicRequested
from schemas.failures import Lasting, Passing
from schemas.profile import ModelEntry
from streams.compose import Asker, ComposeHandler
from tests.music_standin import MUSIC_PROFILE, MadeComposer, MusicWorld, studio_world
from workers import compose
from workers.compose import Studio
from workers.contract import Tools
from workers.models import DECLARE

__all__ = ["studio_world"]

PROFILE = MUSIC_PROFILE.model_copy(
    update={
        "models": {
            **MUSIC_PROFILE.models,
            "compose_music": ModelEntry(version="1", reads=("measurements",), declares=True),
        }
    }
)


class Declaring(MadeComposer):
    """Declares a version, which is in its reports too."""

    def __init__(self) -> None:
        super().__init__()
        self.version = "1+steps=20"
        self.away = False
        self.declarations = 0

    async def stream(self, model: str, inputs: Any, outputs: Any, *, stall_seconds: float) -> Any:
        """As `MadeComposer.stream`."""
        if self.away:
            raise Passing("model server", "it is away")
        version = self.version
        if json.loads(inputs["WISHES"][0]) == DECLARE:
            self.declarations += 1
            yield {"REPORT": np.array([json.dumps({"version": version}).encode()], dtype=object)}
            return
        async for answer in super().stream(model, inputs, outputs, stall_seconds=stall_seconds):
            report = answer["REPORT"][0]
            if report:
                answer["REPORT"][0] = json.dumps({**json.loads(report), "version": version}).encode()
            yield answer


@pytest.fixture
def composer() -> Declaring:
    return Declaring()


@pytest.fixture
def world(studio_world: MusicWorld, composer: Declaring, monkeypatch: pytest.MonkeyPatch) -> MusicWorld:
    """A world whose composer declares, and is asked each time."""
    monkeypatch.setattr(compose, "_DECLARED_SECONDS", -1.0)
    world = studio_world
    world.inference = composer
    world.restart()
    world.tools = Tools(composer, PROFILE, world.vectors)
    world.studio = Studio(world.records, world.tools, world.folder)
    world.asker = Asker(world.records, world.studio, seconds=5)
    world.composing = ComposeHandler(world.records, world.studio, world.tools, world.publish, world.withdrawing.undo)
    world.handlers[MusicRequested] = world.composing
    return world


async def test_other_settings_of_the_server_are_another_piece(world: MusicWorld, composer: Declaring) -> None:
    (artwork,) = await world.hang("sea")
    before = await world.studio.question(artwork)
    assert before.version == "1+steps=20"
    assert (await world.studio.question(artwork)).piece == before.piece
    composer.version = "1+steps=200"
    after = await world.studio.question(artwork)
    assert after.version == "1+steps=200" and after.piece != before.piece
    # While the server is away, what it said last names the piece.
    composer.away = True
    assert (await world.studio.question(artwork)).piece == after.piece
    fresh = Studio(world.records, world.tools, world.folder)
    assert (await fresh.question(artwork)).version == "1"


async def test_its_word_holds_for_a_moment(
    world: MusicWorld, composer: Declaring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "_DECLARED_SECONDS", 60.0)
    (artwork,) = await world.hang("sea")
    for seed in range(3):
        await world.studio.question(artwork, seed=seed)
    assert composer.declarations == 1


async def test_the_record_names_the_version_and_a_changed_one_is_asked_for_anew(
    world: MusicWorld, composer: Declaring
) -> None:
    (artwork,) = await world.hang("sea")
    await world.handle(await world.ask(artwork, seconds=5))
    (record,) = await world.records.pieces(artwork)
    assert record.provenance.models["compose_music"] == record.report["version"] == "1+steps=20"
    # The wish waited while the server was started with other settings: it is another piece now, and made as that.
    event = await world.ask(artwork, seconds=5, seed=7)
    composer.version = "1+steps=200"
    await world.handle(event)
    await world.settle()
    made = {each.provenance.models["compose_music"]: each.piece for each in await world.records.pieces(artwork)}
    assert set(made) == {"1+steps=20", "1+steps=200"}
    assert event.piece not in made.values()


async def test_a_piece_that_was_composed_otherwise_than_asked_is_not_kept(
    world: MusicWorld, composer: Declaring
) -> None:
    (artwork,) = await world.hang("sea")
    question = await world.studio.question(artwork, 5.0)
    composer.version = "1+steps=200"
    spool = world.studio.spool(question)
    try:
        with pytest.raises(Lasting, match=r"asked as version 1\+steps=20 and composed as 1\+steps=200"):
            await world.studio.compose(question, spool, live=True)
    finally:
        spool.close()
