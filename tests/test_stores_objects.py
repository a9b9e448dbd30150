"""What every object store must keep: conditional writes with one winner, listings, absence, and what it acknowledged.

Runs on the embedded server, and on any other that PROMENADE_TEST_S3_* names.
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

import minio.datatypes
import pytest
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from urllib3.response import HTTPResponse

from infra.objects import NotFound, Objects, Refusing
from infra.records import Records, rendition_key, tombstone_key
from promenade.reach import plain
from schemas.failures import Passing
from schemas.records import Catalogue, DeadLetter, IndexBody, Membership, Provenance, Result, Tombstone, now
from tests.stack_fixtures import Reached, Stack, made_item, put_item

pytestmark = pytest.mark.stack


async def test_what_is_put_is_got(objects: Objects) -> None:
    content = os.urandom(100_000)
    await objects.put("a/b", content)
    assert await objects.get("a/b") == content
    await objects.put("a/b", b"other")
    assert await objects.get("a/b") == b"other"
    await objects.put("a/empty", b"")
    assert await objects.get("a/empty") == b""


async def test_large_content_goes_up_whole(objects: Objects) -> None:
    content = os.urandom(12 * 1024 * 1024)
    await objects.put("large", content)
    assert await objects.get("large") == content
    assert [info.size for info in await objects.list("large")] == [len(content)]


async def test_a_missing_object_is_said_to_be_missing(objects: Objects) -> None:
    with pytest.raises(NotFound):
        await objects.get("nothing/here")
    assert not await objects.exists("nothing/here")
    await objects.put("something", b"x")
    assert await objects.exists("something")
    assert [pair async for pair in objects.get_many(["something", "nothing", "something"])] == [
        ("something", b"x"),
        ("nothing", None),
        ("something", b"x"),
    ]


async def test_the_first_conditional_write_wins_and_stays(objects: Objects) -> None:
    assert await objects.put_if_absent("k", b"first")
    assert not await objects.put_if_absent("k", b"second")
    assert await objects.get("k") == b"first"
    await objects.delete(["k"])
    assert await objects.put_if_absent("k", b"third")


async def test_of_eight_writers_at_once_exactly_one_wins(object_store: Reached, objects: Objects) -> None:
    """Eight threads with a client each, so that no client's own order can help."""
    rounds, writers = 5, 8
    barrier = threading.Barrier(writers)
    won: list[tuple[int, int]] = []

    def write(writer: int) -> None:
        client = object_store.objects()
        try:
            for turn in range(rounds):
                barrier.wait(30)
                if asyncio.run(client.put_if_absent(f"race/{turn}", f"{writer}".encode())):
                    won.append((turn, writer))
        finally:
            client.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
    assert sorted(turn for turn, _ in won) == list(range(rounds))
    for turn, writer in won:
        assert await objects.get(f"race/{turn}") == f"{writer}".encode()


async def test_a_listing_is_complete_beyond_a_thousand_keys_and_in_order(objects: Objects) -> None:
    keys = [f"many/{number:05d}/x.json" for number in range(1_150)]
    for start in range(0, len(keys), 50):
        await asyncio.gather(*(objects.put(key, b"") for key in keys[start : start + 50]))
    assert [info.key for info in await objects.list("many/")] == keys
    assert [info.key for info in await objects.list("many/0000")] == keys[:10]
    assert await objects.list("none/") == []
    await objects.delete(keys)
    assert await objects.list("many/") == []


async def test_a_prefix_that_ends_inside_a_name_lists_no_sibling(objects: Objects) -> None:
    for key in ("items/a/x", "items/a-b/x", "items/ab/x"):
        await objects.put(key, b"")
    assert [info.key for info in await objects.list("items/a/")] == ["items/a/x"]


async def test_removing_what_is_not_there_is_no_fault(objects: Objects) -> None:
    await objects.put("here", b"x")
    await objects.delete(["here", "never/was", "here"])
    assert not await objects.exists("here")
    await objects.delete([])


async def test_names_with_letters_of_any_alphabet_are_kept(objects: Objects) -> None:
    keys = sorted(["odd/naïve é.json", "odd/日本.json", "odd/a+b&c=d%20.json", "odd/it's (1).json"])
    for key in keys:
        await objects.put(key, key.encode())
    assert sorted(info.key for info in await objects.list("odd/")) == keys
    for key in keys:
        assert await objects.get(key) == key.encode()


async def test_a_store_that_is_away_is_passing_trouble_that_names_it() -> None:
    client = Objects("127.0.0.1:9", "nobody", "nothing-at-all", "promenade")
    try:
        for call in (client.get("k"), client.put("k", b""), client.list(""), client.put_if_absent("k", b"")):
            with pytest.raises(Passing, match="object store"):
                await call
    finally:
        client.close()


async def test_wrong_credentials_are_said_to_be_wrong(object_store: Reached, objects: Objects) -> None:
    client = Objects(object_store.endpoint, object_store.access_key, "not-the-secret-key", objects.bucket)
    try:
        with pytest.raises(Refusing, match="credentials"):
            await client.list("")
    finally:
        client.close()


async def test_a_missing_bucket_is_said_to_be_missing(object_store: Reached, objects: Objects) -> None:
    client = Objects(object_store.endpoint, object_store.access_key, object_store.secret_key, "no-such-bucket")
    try:
        # Other calls are the server's own business: the embedded one makes a bucket on the first write.
        with pytest.raises(Refusing, match=r"no bucket 'no-such-bucket'; `promenade prepare` makes it"):
            await client.ping()
    finally:
        client.close()


@pytest.mark.parametrize(
    ("status", "code", "refuses", "says"),
    [
        (403, "AccessDenied", True, "check PROMENADE_S3_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", True, "clock"),
        (404, "NoSuchBucket", True, "there is no bucket 'promenade'"),
        (400, "AuthorizationHeaderMalformed", True, "PROMENADE_S3_REGION"),
        (405, "MethodNotAllowed", True, "it refuses: MethodNotAllowed: the words of the server"),
        (409, "OperationAborted", False, "answered OperationAborted"),
        (429, "TooManyRequests", False, "answered TooManyRequests"),
        (503, "SlowDown", False, "answered SlowDown"),
    ],
)
async def test_answers_that_a_person_must_change_are_told_from_those_that_pass(
    status: int, code: str, refuses: bool, says: str
) -> None:
    """A server of the test's own that answers everything with one fault."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = f"<Error><Code>{code}</Code><Message>the words of the server</Message></Error>".encode()
        head = f"HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = Objects(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "somebody", "something-secret", "promenade")
    try:
        with pytest.raises(Passing) as trouble:
            await client.get("k")
        assert isinstance(trouble.value, Refusing) is refuses
        assert says in trouble.value.reason
        told = plain(trouble.value)
        assert ("is there, but it refuses" in told) is refuses
        assert ("is away" in told) is not refuses
    finally:
        client.close()
        server.close()


async def test_a_killed_store_keeps_all_that_it_acknowledged(own_store: Stack) -> None:
    client = own_store.reached().objects()
    acknowledged: list[str] = []
    enough = asyncio.Event()
    try:
        await client.prepare()

        async def write(lane: int) -> None:
            for number in range(10_000):
                key = f"kept/{lane}/{number:05d}"
                try:
                    if await client.put_if_absent(key, key.encode() * 20):
                        acknowledged.append(key)
                    if len(acknowledged) >= 120:
                        enough.set()
                except Passing:
                    return

        lanes = [asyncio.create_task(write(lane)) for lane in range(4)]
        await asyncio.wait_for(enough.wait(), 60)
        await asyncio.to_thread(own_store.wait, own_store.parts.kill("store"))
        await asyncio.gather(*lanes)
        await asyncio.to_thread(own_store.wait, own_store.parts.start("store"))
        listed = {info.key for info in await client.list("kept/")}
        assert set(acknowledged) <= listed
        async for key, content in client.get_many(acknowledged):
            assert content == key.encode() * 20, key
        # A key whose write was never acknowledged is whole or absent, and can be decided again.
        for key in listed - set(acknowledged):
            assert await client.get(key) == key.encode() * 20
            assert not await client.put_if_absent(key, b"other")
    finally:
        client.close()


async def test_what_a_kill_cut_short_is_listed_once_it_is_written_again(own_store: Stack) -> None:
    client = own_store.reached().objects()
    try:
        await client.prepare()
        for kill in range(3):
            ended, tried = asyncio.Event(), set[str]()

            async def write(
                lane: int, kill: int = kill, ended: asyncio.Event = ended, tried: set[str] = tried
            ) -> None:
                for number in range(10_000):
                    # Each in folders of its own: those are what a killed server may not have made yet.
                    key = f"cut/{kill}-{lane}-{number}/one/two/object"
                    tried.add(key)
                    try:
                        await (client.put if lane % 2 else client.put_if_absent)(key, key.encode())
                    except Passing:
                        return
                    if ended.is_set():
                        return

            lanes = [asyncio.create_task(write(lane)) for lane in range(10)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_store.wait, own_store.parts.kill("store"))
            ended.set()
            await asyncio.gather(*lanes)
            await asyncio.to_thread(own_store.wait, own_store.parts.start("store"))
            for key in tried:
                await (client.put if "-1-" in key else client.put_if_absent)(key, key.encode())
            assert {info.key for info in await client.list("cut/")} >= tried
    finally:
        client.close()


class HalfKept:
    """A server's client as far as writing and listing go; its server may be killed between object and folders."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.folders: set[str] = set()
        self.dies_before: str | None = None

    def put_object(self, bucket: str, key: str, content: BinaryIO, size: int, kind: str = "") -> None:
        known, self.objects[key] = key in self.objects, content.read(size)
        above = [key[: place + 1] for place, letter in enumerate(key) if letter == "/"]
        if known:
            # What is there already is only replaced.
            return
        for folder in reversed(above):
            if folder == self.dies_before:
                self.dies_before = None
                raise urllib3.exceptions.ProtocolError("connection broken")
            if folder in self.folders:
                return
            self.folders.add(folder)

    def put_with_headers(self, bucket: str, key: str, content: bytes, headers: dict[str, str]) -> str:
        if key in self.objects:
            answer = HTTPResponse(status=412)
            raise S3Error(answer, "PreconditionFailed", None, key, None, None)
        self.put_object(bucket, key, io.BytesIO(content), len(content))
        return ""

    def remove_object(self, bucket: str, key: str) -> None:
        if self.dies_before == "removal":
            self.dies_before = None
            raise urllib3.exceptions.ProtocolError("connection broken")
        del self.objects[key]

    def remove_objects(self, bucket: str, keys: Iterable[DeleteObject]) -> list[Any]:
        for key in keys:
            self.objects.pop(key.name, None)
        return []

    def stat_object(self, bucket: str, key: str) -> None:
        if key not in self.objects:
            raise S3Error(HTTPResponse(status=404), "NoSuchKey", None, key, None, None)

    def get_object(self, bucket: str, key: str) -> HTTPResponse:
        self.stat_object(bucket, key)
        return HTTPResponse(io.BytesIO(self.objects[key]), status=200, preload_content=False)

    def list_objects(
        self, bucket: str, prefix: str = "", recursive: bool = False, start_after: str | None = None
    ) -> list[minio.datatypes.Object]:
        found = []
        for key in sorted(self.objects):
            above = [key[: place + 1] for place, letter in enumerate(key) if letter == "/"]
            if key.startswith(prefix) and all(folder in self.folders for folder in above):
                # One level below the prefix, or everything.
                cut = key.find("/", len(prefix)) + 1
                name = key if recursive or cut == 0 else key[:cut]
                found.append(minio.datatypes.Object(bucket, name, last_modified=datetime.now(UTC), size=1))
        return found


@pytest.fixture
def half_kept() -> Iterator[tuple[Objects, HalfKept]]:
    objects = Objects("127.0.0.1:1", "key", "secret", "bucket")
    server = HalfKept()
    objects._client = server  # type: ignore[assignment]
    yield objects, server
    objects.close()


@pytest.mark.parametrize("dies_before", ["a/", "a/b/", "a/b/c/"])
@pytest.mark.parametrize("again", ["put", "put_if_absent"])
async def test_an_object_without_its_folders_is_found_again_by_whoever_writes_it(
    half_kept: tuple[Objects, HalfKept], dies_before: str, again: str
) -> None:
    objects, server = half_kept
    server.dies_before = dies_before
    with pytest.raises(Passing):
        await objects.put("a/b/c/object", b"first")
    assert await objects.list("") == []
    if again == "put":
        await objects.put("a/b/c/object", b"second")
    else:
        assert not await objects.put_if_absent("a/b/c/object", b"second")
    assert [info.key for info in await objects.list("")] == ["a/b/c/object"]
    assert server.objects == {"a/b/c/object": b"second" if again == "put" else b"first"}


async def test_a_kill_while_folders_are_made_leaves_nothing_that_anybody_sees(
    half_kept: tuple[Objects, HalfKept],
) -> None:
    objects, server = half_kept
    server.dies_before = "a/"
    with pytest.raises(Passing):
        await objects.put("a/object", b"first")
    server.dies_before = "removal"
    with pytest.raises(Passing):
        await objects.put("a/object", b"first")
    assert len(server.objects) == 2
    assert [info.key for info in await objects.list("")] == ["a/object"]
    assert await objects.folders("a/") == []


async def test_an_ingest_that_nobody_finished_is_brought_to_light(half_kept: tuple[Objects, HalfKept]) -> None:
    objects, server = half_kept
    records = Records(objects)
    finished, begun = await put_item(records, "a"), made_item("b")
    await objects.put(rendition_key(begun, 0, "picture.jpg"), b"b")
    membership = Membership(
        item=begun, generation=0, collection="spring", catalogue=Catalogue(), source="b", added=now()
    )
    server.dies_before = f"items/{begun}/"
    with pytest.raises(Passing):
        await records.put_membership(membership)
    assert [state.item for state in await records.all_states()] == [finished]
    await records.show_begun()
    assert (await records.state(begun)).memberships_by_generation == {0: {"spring"}}


async def test_a_takedown_finds_what_a_killed_store_kept_half(half_kept: tuple[Objects, HalfKept]) -> None:
    objects, server = half_kept
    records = Records(objects)
    item = await put_item(records, "a")
    provenance = Provenance(models={}, profile="made", made=now(), seconds=0)
    indexed = Result(
        item=item, generation=0, revision=1, digest="0" * 32, provenance=provenance, body=IndexBody(spaces=())
    )
    letter = DeadLetter(item=item, revision=1, stage="score", reason="none", reference="x", made=now())
    everything = {f"items/{item}/{rest}" for rest in ("results/", "dead/", "memberships/000000/")}
    for cut, write in (
        (f"items/{item}/results/", records.write_result(indexed)),
        (f"items/{item}/dead/", records.set_aside(letter)),
    ):
        server.dies_before = cut
        with pytest.raises(Passing):
            await write
    assert everything - server.folders == {f"items/{item}/results/", f"items/{item}/dead/"}

    # The takedown itself may be cut short as well: it counts, and whoever meets the item next goes on with it.
    server.dies_before = f"items/{item}/tombstones/"
    tombstone = Tombstone(item=item, generation=0, made=now())
    with pytest.raises(Passing):
        await records.bury(tombstone)
    assert (await records.state(item)).alive
    assert await records.withdrawn(item, 0)
    assert not (await records.state(item)).alive
    assert await records.erase(item) > 0
    assert list(server.objects) == [tombstone_key(item, 0)]
