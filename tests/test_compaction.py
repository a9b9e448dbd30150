"""Compaction: what goes is what nobody reads any more."""

from __future__ import annotations

import pytest

from promenade import compaction
from schemas.media import Kind
from streams import exhibitions
from tests.made_world import World
from tests.stack_fixtures import put_item
from workers import pair
from workers.pair import read_state

pytestmark = pytest.mark.stack


async def numbers(world: World, home: str) -> list[int]:
    """The revisions of a pairing that are left."""
    listing = await world.records.objects.list(f"exhibitions/{home}/log/")
    return [int(info.key.rpartition("/")[2].removesuffix(".json")) for info in listing]


async def bring(world: World, first: int, count: int) -> None:
    """Pictures and tracks in turn, each to the end, so that each makes a revision."""
    for number in range(first, first + count):
        kind = list(Kind)[number % 2]
        await world.announce(await put_item(world.records, f"{number}", kind, sequence=number))
        await world.settle()
        await world.pairing.settled()


async def test_old_revisions_go_and_the_pairing_stays_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "SNAPSHOT_EVERY", 3)
    monkeypatch.setattr(compaction, "SNAPSHOT_EVERY", 3)
    await bring(world, 0, 10)
    settings = await exhibitions.settings_of(world.records, "default")
    before = await read_state(world.records, settings.home)
    snapshot = await world.records.pairing_snapshot(settings.home)
    assert snapshot is not None
    assert snapshot.number > 6
    assert await numbers(world, settings.home) == list(range(1, before.number + 1))

    assert await compaction.prune(world.records) == snapshot.number - 4
    assert await numbers(world, settings.home) == list(range(snapshot.number - 3, before.number + 1))
    assert await read_state(world.records, settings.home) == before
    assert await world.records.last_pairing(settings.home) == before.number
    assert await compaction.prune(world.records) == 0

    # Whoever takes it over afterwards goes on as if nothing had gone.
    world.restart()
    await bring(world, 10, 4)
    after = await read_state(world.records, settings.home)
    assert len(after.members) == 14
    assert len(after.pairs) == 7
    assert after.number > before.number


async def test_a_pairing_without_snapshot_keeps_its_whole_log(world: World) -> None:
    await bring(world, 0, 4)
    settings = await exhibitions.settings_of(world.records, "default")
    whole = await numbers(world, settings.home)
    assert len(whole) > 3
    assert await world.records.pairing_snapshot(settings.home) is None
    assert await compaction.prune(world.records) == 0
    assert await numbers(world, settings.home) == whole
