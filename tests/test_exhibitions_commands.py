"""The exhibition commands as a person types them, over made records."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.records import Records
from promenade import cli
from promenade.settings import Settings
from schemas.events import Event
from schemas.media import Kind
from streams import exhibitions
from tests.made_world import World
from tests.stack_fixtures import Reached, put_item
from workers.pair import read_state

pytestmark = pytest.mark.stack


class Typed:
    """Runs `promenade exhibition ...` against the tests' bucket and hands what it publishes to the world."""

    def __init__(self, world: World, store: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.events: list[Event] = []

        @contextlib.asynccontextmanager
        async def changing(data: Any) -> AsyncIterator[Any]:
            async with reading(data, None) as (settings, records):
                yield settings, records, self

        @contextlib.asynccontextmanager
        async def reading(data: Any, say: Any, *, patient: bool = True) -> AsyncIterator[Any]:
            objects = store.objects()
            try:
                yield Settings(), Records(objects)
            finally:
                objects.close()

        monkeypatch.setattr(cli, "changing", changing)
        monkeypatch.setattr(cli, "reading", reading)

    def publish(self, events: Sequence[Event]) -> None:
        """The producer's part."""
        self.events += events

    async def __call__(self, *words: str, status: int = 0, told: bool = False) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.application, list(words))
        assert result.exit_code == status, result.output
        events, self.events = self.events, []
        await self.world.publish(events)
        while self.world.published.events:
            await self.world.settle()
            await self.world.pairing.settled()
        return result.stderr if told else result.stdout


@pytest.fixture
async def typed(world: World, object_store: Reached, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """The command line over a world with three pictures and two tracks in `spring`."""
    for kind, count in ((Kind.ARTWORK, 3), (Kind.TRACK, 2)):
        for number in range(count):
            await world.announce(await put_item(world.records, f"{kind.value}{number}", kind, sequence=number))
    await world.settle()
    return Typed(world, object_store, monkeypatch)


async def test_an_exhibition_is_made_shown_changed_pinned_and_deleted(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = typed.world.records
    await typed("exhibition", "create", "best", "--collections", "spring", "--mix", "rgb15=0.5,va=0.5",
                "--rule", "optimal", "--floor", "0.1", "--no-wait")  # fmt: skip
    shown = json.loads(await typed("exhibition", "show", "best", "--json"))
    assert (shown["space"], shown["mix"], shown["rule"]) == ("mix", {"rgb15": 0.5, "va": 0.5}, "optimal")
    assert (shown["collections"], shown["floor"], shown["threshold"]) == (["spring"], 0.1, 0.1)
    assert (shown["artworks"], shown["tracks"], shown["hung"]) == (3, 2, 2)
    assert [each["name"] for each in json.loads(await typed("exhibition", "list", "--json"))] == ["best", "default"]

    await typed("exhibition", "change", "best", "--space", "va", "--floor", "none", "--hour", "4", "--no-wait")
    made = await exhibitions.settings_of(records, "best")
    assert (made.space, made.mix, made.floor, made.hour, made.rule) == ("va", (), None, 4, "optimal")
    state = await read_state(records, made.home)
    assert state.basis is not None
    assert state.basis.fits(made)
    artwork = next(item for item in sorted(state.members) if item.startswith("artwork"))
    track = next(
        item for item in sorted(state.members) if item.startswith("track") and (artwork, item) not in state.pairs
    )
    await typed("exhibition", "pin", "best", artwork[:20], track[:16], "--no-wait")
    pairs = json.loads(await typed("pairs", "--exhibition", "best", "--json"))
    assert [(each["artwork"]["id"], each["track"]["id"]) for each in pairs["pairs"] if each["pinned"]] == [
        (artwork, track)
    ]
    assert (pairs["shown"], pairs["space"], pairs["rule"]) == ("hung", "va", "optimal")
    assert pairs["lift"] is not None
    text = await typed("pairs", "--exhibition", "best", "--target")
    assert "pairs of the target of exhibition 'best' (space va (sigma " in " ".join(text.split())
    assert "pinned: artwork-" in await typed("exhibition", "show", "best")
    await typed("exhibition", "unpin", "best", artwork, track, "--no-wait")
    # Nobody hears from it before it is there, and says so.
    elsewhere = await put_item(records, "elsewhere", Kind.TRACK, collections=("autumn",))
    said: list[str] = []
    monkeypatch.setattr(cli, "say", said.append)
    await typed("exhibition", "pin", "best", artwork, elsewhere, "--no-wait")
    assert [each.split(":")[0] for each in said] == [f"{elsewhere} does not hang in exhibition best"]
    await typed("exhibition", "unpin", "best", artwork, elsewhere, "--no-wait")
    await typed("exhibition", "delete", "best")
    assert await records.objects.list("exhibitions/best/") == []


async def test_waiting_returns_once_everything_is_paired_so(typed: Typed) -> None:
    waiting = asyncio.create_task(typed("exhibition", "create", "best", "--space", "rgb", "--json"))
    while not typed.events:  # noqa: ASYNC110 - the command runs in a thread of its own
        await asyncio.sleep(0.05)
    # The command waits; the stream carries its commands out meanwhile.
    await typed.world.publish(typed.events)
    while typed.world.published.events:
        await typed.world.settle()
        await typed.world.pairing.settled()
    shown = json.loads(await waiting)
    assert (shown["hung"], shown["pairing_anew"]) == (2, False)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("create", "Best"), 2, "no name for an exhibition"),
        (("create", "best", "--space", "smell"), 1, "nothing fills the space 'smell'"),
        (("create", "best", "--rule", "random"), 1, "no pairing rule 'random'"),
        (("create", "best", "--mix", "rgb15"), 1, "has no weight"),
        (("create", "best", "--mix", "rgb=1", "--space", "va"), 1, "not both"),
        (("create", "best", "--floor", "high"), 1, "floor is a number"),
        (("create", "best", "--hour", "24"), 1, "hour"),
        (("create", "default",), 1, "always there"),
        (("change", "default"), 1, "name what shall change"),
        (("change", "none", "--rule", "greedy"), 1, "no exhibition called 'none'"),
        (("show", "none"), 1, "no exhibition called 'none'"),
        (("delete", "default"), 1, "always there"),
        (("pin", "default", "track-0000", "artwork-0000"), 1, "no items begin with"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_said_in_one_sentence(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int, says: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(cli, "say", said.append)
    await typed("exhibition", *words, status=status)
    assert says in " ".join(said)
    assert not typed.events
