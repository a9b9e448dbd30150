"""Music for a person who waits, over HTTP: heard while it is made, cancelled, kept, refused; ranges; who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
import uvicorn

from gallery.api import Reach, make_api
from gallery.music import MOST_LIVE, byte_range
from infra.inference import Inference
from infra.records import piece_key
from schemas.events import MusicComposed
from schemas.failures import Lasting, Passing
from streams.upkeep import withdraw
from tests.browser import new_page, running_chromium
from tests.made_world import SOUND
from tests.music_standin import MUSIC_PROFILE, MadeComposer, MusicWorld, studio_world
from tests.patience import patient
from tests.stack_fixtures import everything_of
from workers.spool import FRAME_BYTES, RATE

__all__ = ["studio_world"]


class Gate:
    """Lets the composer make so many chunks and no more."""

    def __init__(self, world: MusicWorld, chunks: int) -> None:
        assert isinstance(world.inference, MadeComposer)
        self.composer = world.inference
        self.composer.hook = self._wait
        self._room = asyncio.Semaphore(chunks)

    async def _wait(self, chunk: int, live: bool) -> None:
        await self._room.acquire()

    def open(self) -> None:
        """Let everything through from now on."""
        self.composer.hook = None
        for _ in range(1000):
            self._room.release()


@contextlib.asynccontextmanager
async def serving(world: MusicWorld) -> AsyncIterator[httpx.AsyncClient]:
    """The API on a real socket, and a client of it."""

    async def ready() -> dict[str, str]:
        return {}

    reach = Reach(world.records, MUSIC_PROFILE, Inference("127.0.0.1:1"), None, {}, ready, world.live)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_api(reach), log_level="warning", lifespan="off"))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve([listener]))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=patient(20)) as client:
            yield client
    finally:
        await world.live.close()
        server.should_exit = True
        await task
        listener.close()


async def until_kept(client: httpx.AsyncClient, piece: str) -> dict[str, Any]:
    """Its record."""
    for _ in range(400):
        answer = await client.get(f"/api/music/{piece}")
        if answer.status_code == 200:
            return dict(answer.json())
        assert answer.status_code == 202, answer.text
        await asyncio.sleep(0.05)
    raise AssertionError(f"{piece} is not kept")


def running(world: MusicWorld) -> int:
    assert isinstance(world.inference, MadeComposer)
    return world.inference.running


# -- hearing -----------------------------------------------------------------------------------------------


async def test_a_piece_is_heard_while_it_is_made_and_kept_afterwards(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    gate = Gate(world, 2)
    async with serving(world) as client:
        answer = await client.post("/api/music", json={"artwork": artwork, "seconds": 6, "seed": 4})
        assert answer.status_code == 202
        asked = answer.json()
        assert asked["state"] == "composing"
        heard = b""
        async with client.stream("GET", asked["stream"]) as sound:
            assert sound.status_code == 200
            assert sound.headers["content-type"] == "audio/wav"
            assert "content-length" not in sound.headers
            async for part in sound.aiter_bytes():
                heard += part
                if len(heard) > RATE * FRAME_BYTES and gate.composer.hook is not None:
                    # A second of it plays although the rest is not made.
                    assert (await client.get(f"/api/music/{asked['piece']}")).json()["seconds"] < 6
                    gate.open()
        # While it grows, the header says that nobody knows how long it will be.
        assert heard[:4] == b"RIFF" and heard[4:8] == b"\xff\xff\xff\xff"
        place = heard.index(b"data")
        assert struct.unpack("<I", heard[place + 4 : place + 8])[0] == 0xFFFFFFFF
        assert len(heard) - place - 8 == 6 * RATE * FRAME_BYTES

        record = await until_kept(client, asked["piece"])
        assert record["asked"] == "live" and record["seed"] == 4 and record["artwork"] == artwork
        kept = (await client.get(asked["wav"])).content
        # The same sound, with its length now.
        assert kept[place:][8:] == heard[place:][8:]
        with soundfile.SoundFile(io.BytesIO(kept)) as file:
            assert file.frames == 6 * RATE
        assert [event.piece for event in world.published.of(MusicComposed)] == [asked["piece"]]  # type: ignore[attr-defined]
        # Who asks the same again, hears what is kept.
        again = await client.post("/api/music", json={"artwork": artwork, "seconds": 6, "seed": 4})
        assert again.status_code == 200 and again.json()["state"] == "kept"
        assert (await client.get(asked["stream"])).content == kept
        assert len(gate.composer.composed) == 1


async def test_many_hear_the_same_piece_from_its_start_and_may_leave(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    gate = Gate(world, 2)
    async with serving(world) as client:
        asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 8})).json()

        async def listen() -> bytes:
            return (await client.get(asked["stream"])).content

        early = [asyncio.create_task(listen()) for _ in range(3)]
        async with client.stream("GET", asked["stream"]) as sound:
            async for _ in sound.aiter_bytes():
                break
        # That one left; another one comes late, and asking again is no second piece.
        again = await client.post("/api/music", json={"artwork": artwork, "seconds": 8})
        assert again.json()["piece"] == asked["piece"]
        late = asyncio.create_task(listen())
        await asyncio.sleep(0.1)
        gate.open()
        heard = await asyncio.gather(*early, late)
        assert len({*heard}) == 1
        assert len(heard[0]) > 8 * RATE * FRAME_BYTES
        assert len(gate.composer.composed) == 1
        await until_kept(client, asked["piece"])


async def test_a_listener_that_does_not_listen_holds_no_sound_in_memory(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    question = await world.studio.question(artwork, 30)
    live = await world.live.begin(question, None)
    slow = live.spool.listen()
    first = await anext(slow)
    assert live.task is not None
    await live.task
    # The piece is whole although nobody took it; the listener goes on where it was.
    assert live.spool.frames == 30 * RATE
    size = live.spool.size
    rest = [part async for part in slow]
    assert len(first) + sum(map(len, rest)) == size
    assert max(map(len, rest)) <= 64 * 1024


async def test_a_background_piece_may_be_asked_for_by_a_person(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    async with serving(world) as client:
        asked = await client.post("/api/music", json={"artwork": artwork, "seconds": 5, "background": True})
        assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
        assert (await client.get("/api/music")).json()["waiting"] == [asked.json()["piece"]]
        await world.settle()
        record = await until_kept(client, asked.json()["piece"])
        assert record["asked"] == "background"
        listed = (await client.get("/api/music", params={"artwork": artwork})).json()
        assert [each["piece"] for each in listed["pieces"]] == [record["piece"]]
        assert listed["composers"] == {"edge": "stand-in 1"} and listed["waiting"] == []


# -- ending ------------------------------------------------------------------------------------------------


async def test_cancel_in_the_middle_frees_everything(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    Gate(world, 2)
    async with serving(world) as client:
        asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 60})).json()
        async with client.stream("GET", asked["stream"]) as sound:
            parts = sound.aiter_bytes()
            await anext(parts)
            assert running(world) == 1
            answer = await client.delete(f"/api/music/{asked['piece']}")
            assert answer.json()["state"] == "cancelled"
            # The listeners' stream ends.
            async for _ in parts:
                pass
        assert running(world) == 0
        assert (await client.get(f"/api/music/{asked['piece']}")).json()["state"] == "cancelled"
        assert await world.records.pieces(artwork) == []
        assert await world.records.piece_names(artwork, 0, asked["piece"]) == set()
        assert world.left_in_folder() == []
        # Room for others again.
        assert world.live.running() == []


async def test_delete_removes_a_kept_piece_until_somebody_asks_again(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    async with serving(world) as client:
        asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 5})).json()
        await until_kept(client, asked["piece"])
        assert (await client.delete(f"/api/music/{asked['piece']}")).json()["state"] == "deleted"
        for path in (f"/api/music/{asked['piece']}", asked["wav"], asked["ogg"], asked["stream"]):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.delete(f"/api/music/{asked['piece']}")).status_code == 404
        again = await client.post("/api/music", json={"artwork": artwork, "seconds": 5})
        assert again.status_code == 202
        assert (await until_kept(client, asked["piece"]))["piece"] == asked["piece"]


async def test_a_takedown_ends_the_music_that_is_heard(
    studio_world: MusicWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = studio_world
    monkeypatch.setattr("workers.compose._CHECK_SECONDS", 0.0)
    (artwork,) = await world.hang("sea")
    gate = Gate(world, 2)
    async with serving(world) as client:
        asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 60})).json()
        async with client.stream("GET", asked["stream"]) as sound:
            parts = sound.aiter_bytes()
            await anext(parts)
            await withdraw(world.records, world.publish, artwork, "")
            await world.settle()
            gate.open()
            async for _ in parts:
                pass
        assert "withdrawn" in (await client.get(f"/api/music/{asked['piece']}")).json()["detail"]
        assert await everything_of(world.records, artwork) == [f"items/{artwork}/tombstones/000000.json"]


async def test_no_more_pieces_at_once_than_play_without_stutter(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    gate = Gate(world, MOST_LIVE)
    async with serving(world) as client:
        for seed in range(MOST_LIVE):
            answer = await client.post("/api/music", json={"artwork": artwork, "seconds": 5, "seed": seed})
            assert answer.status_code == 202
        refused = await client.post("/api/music", json={"artwork": artwork, "seconds": 5, "seed": 99})
        assert refused.status_code == 429
        assert "ask again" in refused.json()["detail"] and "retry-after" in refused.headers
        gate.open()
        for live in world.live.running():
            await until_kept(client, live.question.piece)
        assert (
            await client.post("/api/music", json={"artwork": artwork, "seed": 99, "seconds": 5})
        ).status_code == 202


# -- trouble -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble", [Lasting("the model compose_music failed: no strings"), Passing("model server", "is away")]
)
async def test_a_failing_composer_gives_the_person_the_track_and_the_reason(
    studio_world: MusicWorld, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    track = (await world.studio.place_of(artwork)).track

    async def fail(chunk: int, live: bool) -> None:
        raise trouble

    assert isinstance(world.inference, MadeComposer)
    world.inference.hook = fail
    async with serving(world) as client:
        answer = await client.post("/api/music", json={"artwork": artwork, "seconds": 5})
        assert answer.status_code == 503
        assert str(trouble) in answer.json()["detail"]
        assert answer.json()["instead"] == {"track": track, "audio": f"/api/items/{track}/audio"}
        piece = answer.json()["piece"]
        assert (await client.get(f"/api/music/{piece}")).status_code == 503
        assert (await client.get(f"/api/music/{piece}/stream")).json()["instead"]["track"] == track
        assert str(trouble) in caplog.text
        assert (await client.get(answer.json()["instead"]["audio"])).status_code == 200
        # Mended, the same question is asked anew.
        world.inference.hook = None
        assert (await client.post("/api/music", json={"artwork": artwork, "seconds": 5})).status_code == 202
        await until_kept(client, piece)


async def test_a_piece_that_breaks_in_the_middle_ends_and_says_why(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")

    async def fail(chunk: int, live: bool) -> None:
        if chunk == 3:
            raise Lasting("the strings broke")

    assert isinstance(world.inference, MadeComposer)
    world.inference.hook = fail
    async with serving(world) as client:
        asked = await client.post("/api/music", json={"artwork": artwork, "seconds": 20})
        heard = await client.get(f"/api/music/{asked.json()['piece']}/stream")
        assert heard.status_code in (200, 503)
        answer = await client.get(f"/api/music/{asked.json()['piece']}")
        assert answer.status_code == 503 and "the strings broke" in answer.json()["detail"]
    assert await world.records.pieces(artwork) == []


async def test_a_store_that_is_away_for_a_while_loses_no_finished_piece(
    studio_world: MusicWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    put, tries = world.records.put_sound, iter(range(100))

    async def away_at_first(*arguments: Any) -> None:
        if next(tries) < 2:
            raise Passing("object store", "does not answer")
        await put(*arguments)

    monkeypatch.setattr(world.records, "put_sound", away_at_first)
    async with serving(world) as client:
        asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 5})).json()
        assert (await until_kept(client, asked["piece"]))["asked"] == "live"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"artwork": "artwork-" + "0" * 64}, 404, "not here"),
        ({"artwork": "../../etc/passwd"}, 404, "not an item id"),
        ({"artwork": "track-" + "0" * 64}, 422, "for pictures"),
        ({"seconds": 4}, 422, "5 to 180"),
        ({"seconds": 181}, 422, "5 to 180"),
        ({"seconds": "long"}, 422, "seconds"),
        ({"artwork": 5}, 422, "artwork: it is not text"),
        ({"seed": -1}, 422, "a seed is a whole number from 0"),
        ({"wishes": {"tempo": [1]}}, 422, "wishes"),
        ({"wishes": {f"wish {number}": 1 for number in range(11)}}, 422, "too many"),
        ({"colour": "red"}, 422, "colour"),
        ({"c" * 600: "red"}, 422, "c: extra inputs are not permitted."),
        ({"exhibition": "nowhere"}, 403, "does not show"),
    ],
)
async def test_a_request_that_cannot_be_met_is_refused_in_plain_words(
    studio_world: MusicWorld, body: dict[str, Any], status: int, words: str
) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    async with serving(world) as client:
        answer = await client.post("/api/music", json={"artwork": artwork, "seconds": 5} | body)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
        assert "Traceback" not in answer.text
    assert world.live.running() == []


async def test_an_exhibition_that_never_wants_music_is_obeyed(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea", music="never")
    async with serving(world) as client:
        answer = await client.post("/api/music", json={"artwork": artwork})
        assert answer.status_code == 403 and "never composed in default" in answer.json()["detail"]


async def test_pages_of_other_sites_cannot_ask(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    body = json.dumps({"artwork": artwork, "seconds": 5})
    good = {"content-type": "application/json"}
    async with serving(world) as client:
        own = str(client.base_url).rstrip("/")
        for headers, status in (
            ({"content-type": "text/plain"}, 415),
            ({"content-type": "application/x-www-form-urlencoded"}, 415),
            (good | {"origin": "https://evil.example"}, 403),
            (good | {"origin": "null"}, 403),
            (good | {"origin": "http://127.0.0.1:1"}, 403),
            (good | {"host": "evil.example:7610"}, 403),
            (good | {"host": "127.0.0.1.evil.example"}, 403),
        ):
            answer = await client.post("/api/music", content=body, headers=headers)
            assert answer.status_code == status, headers
        assert (
            await client.delete("/api/music/" + "0" * 20, headers={"origin": "https://evil.example"})
        ).status_code == 403
        assert (await client.post("/api/music", content=b"x" * 20_000, headers=good)).status_code == 413
        answer = await client.post("/api/music", content=body, headers=good | {"origin": own})
        assert answer.status_code == 202
        await until_kept(client, answer.json()["piece"])


# -- fetching ----------------------------------------------------------------------------------------------


async def test_a_kept_piece_is_fetched_with_ranges(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    async with serving(world) as client:
        asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 8})).json()
        record = await until_kept(client, asked["piece"])
        for form, kind in (("wav", "audio/wav"), ("ogg", "audio/ogg")):
            path, size = asked[form], record["sizes"][form]
            whole = await client.get(path)
            assert (whole.status_code, whole.headers["content-type"], len(whole.content)) == (200, kind, size)
            assert whole.headers["accept-ranges"] == "bytes"
            head = await client.head(path)
            assert (head.status_code, int(head.headers["content-length"]), head.content) == (200, size, b"")
            for asked_range, start, end in (
                ("bytes=0-99", 0, 100),
                ("bytes=100-", 100, size),
                ("bytes=-50", size - 50, size),
                (f"bytes={size - 1}-{size + 999}", size - 1, size),
                (f"bytes=-{size * 2}", 0, size),
            ):
                part = await client.get(path, headers={"range": asked_range})
                assert part.status_code == 206, asked_range
                assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
                assert part.content == whole.content[start:end]
            for beyond in (f"bytes={size}-", "bytes=-0", f"bytes={size + 5}-{size + 9}"):
                refused = await client.get(path, headers={"range": beyond})
                assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}"), beyond
            for strange in ("bytes=5-2", "bytes=0-1,5-9", "seconds=1-2", "bytes=-", "bytes=a-b"):
                assert (await client.get(path, headers={"range": strange})).status_code == 200, strange
            other = {"range": "bytes=0-9", "if-range": '"another"'}
            assert (await client.get(path, headers=other)).status_code == 200


def test_a_range_is_the_bytes_that_were_asked_for() -> None:
    assert byte_range(None, 10) is None
    assert byte_range("bytes=2-4", 10) == (2, 5)
    assert byte_range("bytes=-3", 10) == (7, 10)
    with pytest.raises(ValueError, match="behind"):
        byte_range("bytes=10-", 10)


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fsecret", "0" * 19, "0" * 21, "0" * 20 + ".mp3", "0" * 20 + ".wav.json", "A" * 20, "%00" * 20, "*"],
)
async def test_strange_names_of_pieces_are_refused(studio_world: MusicWorld, name: str) -> None:
    async with serving(studio_world) as client:
        for path in (f"/api/music/{name}", f"/api/music/{name}/stream"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.delete(f"/api/music/{name}")).status_code == 404
        assert (await client.get(f"/api/items/{name}/audio")).status_code == 404


async def test_a_track_is_heard_in_its_original(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    track = (await world.studio.place_of(artwork)).track
    async with serving(world) as client:
        answer = await client.get(f"/api/items/{track}/audio", headers={"range": "bytes=0-2"})
        assert (answer.status_code, answer.content) == (206, b"sea")
        assert (await client.get(f"/api/items/{artwork}/audio")).status_code == 404
    assert SOUND


async def test_a_piece_without_record_is_none(studio_world: MusicWorld) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    piece = artwork.split("-")[1][:8] + "0" * 12
    await world.records.objects.put(piece_key(artwork, 0, piece, "piece.wav"), b"half")
    async with serving(world) as client:
        assert (await client.get(f"/api/music/{piece}.wav")).status_code == 404
        assert (await client.get("/api/music")).json()["pieces"] == []


# -- in a browser ------------------------------------------------------------------------------------------


async def test_an_audio_element_plays_a_piece_while_it_is_made(studio_world: MusicWorld, tmp_path: Path) -> None:
    world = studio_world
    (artwork,) = await world.hang("sea")
    gate = Gate(world, 4)
    with running_chromium(tmp_path / "chromium") as port:
        async with serving(world) as client, new_page(port) as browser:
            asked = (await client.post("/api/music", json={"artwork": artwork, "seconds": 9})).json()
            page = tmp_path / "page.html"
            source = str(client.base_url).rstrip("/") + asked["stream"]
            page.write_text(f"<button onclick=\"sound = new Audio('{source}'); sound.play()\">Play</button>")
            await browser.open(page)
            await browser.click("button")
            await browser.until("sound.currentTime > 0.2")
            assert world.live.running()[0].spool.frames < 9 * RATE
            gate.open()
            await until_kept(client, asked["piece"])
            await browser.until("sound.ended || sound.currentTime > 4.5")
            assert await browser.ask("sound.error") is None
