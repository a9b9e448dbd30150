"""Compaction: what goes is what nobody reads any more."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from infra.records import media_key
from infra.vectors import Vectors
from promenade import compaction
from promenade.settings import ports_from
from promenade.supervisor import StackError
from promenade.supervisor.processes import free_ports
from schemas.media import Kind
from schemas.records import Catalogue
from streams import exhibitions, upkeep
from tests.made_world import PROFILE, HookedObjects, World
from tests.stack_fixtures import Stack, need_parts, put_item
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


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[tuple[World, Stack]]:
    """A world over the embedded store of a data folder, with its vectors where the embedded worker has them."""
    stack = await asyncio.to_thread(Stack, data, ("store",))
    reached = stack.reached()
    objects = HookedObjects(reached.endpoint, reached.access_key, reached.secret_key, stack.settings.bucket)
    vectors = Vectors(PROFILE.all_spaces(), folder=data / "qdrant")
    try:
        await vectors.prepare()
        yield World(objects, vectors), stack
    finally:
        await vectors.close()
        objects.close()
        await asyncio.to_thread(stack.close)


def files_with(folder: Path, text: str) -> list[str]:
    """Every file below the folder that holds the text."""
    found = [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
    return sorted(str(path.relative_to(folder)) for path in found)


async def test_what_was_taken_down_is_on_the_disk_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_parts()
    data = tmp_path / "data"
    titles = {name: f"{name} {secrets.token_hex(20)}" for name in ("kept", "gone", "gone in a fall", "song")}
    async with house(data) as (world, stack):
        item = {}
        for number, (name, title) in enumerate(titles.items()):
            kind = Kind.TRACK if name == "song" else Kind.ARTWORK
            # What stands for the file's bytes holds the title too.
            content = title * 20
            item[name] = await put_item(
                world.records, content, kind, catalogue=Catalogue(title=title), sequence=number
            )
            await world.announce(item[name])
            await world.settle()
            await world.pairing.settled()
        assert len(await world.points()) == len(titles)
        for title in titles.values():
            held = files_with(data, title)
            assert {Path(file).name for file in held} == {"promenade_1.dat", "storage.sqlite"}, held
        for name in ("gone", "gone in a fall"):
            await upkeep.withdraw(world.records, world.publish, item[name], "asked for")
            await world.settle()
            await world.pairing.settled()
        # Killed before it marked what the second takedown removed.
        await asyncio.to_thread(stack.wait, stack.parts.kill("store"))
    for name in ("gone", "gone in a fall"):
        assert "store/promenade_1.dat" in files_with(data, titles[name])

    told: list[str] = []
    with ExitStack() as others:
        # Another folder's stack is up on the usual ports.
        for name, port in ports_from(free_ports(20)).items():
            monkeypatch.setenv(f"PROMENADE_{name.upper()}", str(port))
            others.enter_context(socket.create_server(("127.0.0.1", port)))
        done = await compaction.compact(data, told.append)
    assert done.freed_bytes is not None
    assert done.freed_bytes > 0
    assert "wiped from the stores" in told[-1]
    assert {name: files_with(data, titles[name]) for name in ("gone", "gone in a fall")} == {
        "gone": [],
        "gone in a fall": [],
    }
    # All else is as it was.
    async with house(data) as (world, _):
        for name in ("kept", "song"):
            assert await world.records.objects.get(media_key(item[name], 0)) == (titles[name] * 20).encode()
            assert (await world.records.state(item[name])).alive
        assert await world.points() == {(item["kept"], 0), (item["song"], 0)}
        pairing = await read_state(world.records, (await exhibitions.settings_of(world.records, "default")).home)
        assert len(pairing.pairs) == 1
        with pytest.raises(StackError, match="another process has the vector store"):
            compaction.vacuum_vectors(data / "qdrant")


def test_the_local_vector_store_keeps_no_removed_rows(tmp_path: Path) -> None:
    file = tmp_path / "qdrant" / "collection" / "made" / "storage.sqlite"
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        # Some builds of SQLite overwrite what is removed, others do not.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)")
        connection.executemany(
            "INSERT INTO points VALUES (?, ?)", [("1", b"it stays " * 2000), ("2", b"it goes " * 2000)]
        )
        connection.commit()
        connection.execute("DELETE FROM points WHERE id = '2'")
    assert files_with(tmp_path, "it goes ") != []
    assert compaction.vacuum_vectors(tmp_path / "qdrant") > 10_000
    assert files_with(tmp_path, "it goes ") == []
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT id, point FROM points").fetchall() == [("1", b"it stays " * 2000)]


def test_a_vector_store_that_was_never_made_has_nothing_to_wipe(tmp_path: Path) -> None:
    assert compaction.vacuum_vectors(tmp_path / "qdrant") == 0
