"""Music over HTTP: a person asks, hears the piece while it is made, and finds it kept afterwards.

`LiveMusic` runs what people ask for in this process, a few pieces at once, straight over the composer's stream; a
piece goes on when its listeners leave, and ends at once when it is cancelled. `music_routes` is what a browser calls.
How a piece is composed and kept is `workers.compose`'s; background pieces are the stream's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.metrics import MUSIC_FIRST_SECONDS, MUSIC_LIVE, MUSIC_PIECES, MUSIC_QUEUE_SECONDS, MUSIC_REAL_TIME
from infra.objects import NotFound
from infra.records import SOUND_TYPES, ItemState, Records, compose_letter, dead_key, media_key, piece_key
from schemas.events import Event, MusicComposed, new_trace
from schemas.failures import Declined, Lasting, Passing, Refused
from schemas.faults import fault_text
from schemas.media import Kind, split_item_id
from schemas.records import DEFAULT_SECONDS, EVERY_COMPOSER, MusicRecord
from workers.compose import Gone, Made, NoComposer, Place, Question, Studio, Unknown
from workers.spool import Spool

log = logging.getLogger(__name__)

MOST_LIVE: Final = 4
"""Pieces that are composed for people at once: 2 cores make about so many as fast as they are heard."""
LIVE: Final = "live"

_KEEP_SECONDS: Final = 600.0
"""How long a finished piece waits for a store or broker that is away before it is given up."""
_REMEMBERED_SECONDS: Final = 600.0
_REMEMBERED: Final = 100
_EARLY_SECONDS: Final = 0.25
"""A composer that is away says so by then, so that the request itself can be answered with it."""
_CLOSE_SECONDS: Final = 2.0
_MOST_BODY: Final = 16 * 1024
_BLOCK: Final = 512 * 1024

_NAME: Final = re.compile(r"(?P<piece>[0-9a-f]{20})(\.(?P<form>wav|ogg))?")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_ORIGINAL_TYPES: Final = {
    "WAV": "audio/wav",
    "FLAC": "audio/flac",
    "OGG": "audio/ogg",
    "MP3": "audio/mpeg",
    "M4A": "audio/mp4",
}

Publish = Callable[[Sequence[Event]], Awaitable[None]]
Ask = Callable[[Question, Place, str], Awaitable[Event | None]]
Undo = Callable[[str, int], Awaitable[None]]


class TooMany(Refused):
    """As many pieces are composed for people as this machine makes."""


class MusicWish(BaseModel):
    """What a person asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artwork: str = Field(max_length=100)
    seconds: float = DEFAULT_SECONDS
    seed: int = 0
    wishes: dict[str, str | float] = {}
    composer: str | None = Field(
        default=None, max_length=40, description="None: the exhibition's, or the profile's first one"
    )
    exhibition: str | None = Field(default=None, max_length=63, description="on whose wall it is looked at")
    background: bool = Field(default=False, description="nobody waits: queue it")


State = Literal["composing", "keeping", "kept", "failed", "cancelled"]


@dataclass(slots=True)
class LivePiece:
    """A piece that a person asked for, from the request until a while after its end."""

    question: Question
    spool: Spool
    exhibition: str | None
    begun: float = field(default_factory=time.monotonic)
    state: State = "composing"
    reason: str = ""
    declined: bool = False
    """The composer does not take such a question."""
    ended: float | None = None
    task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """It is composed or kept."""
        return self.state in ("composing", "keeping")

    def view(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **described(self.question),
            "state": self.state,
            "seconds": round(self.spool.seconds, 3),
            "asked_seconds": self.question.seconds,
            **({"detail": self.reason} if self.reason else {}),
        }


def links(piece: str) -> dict[str, str]:
    """A piece with the addresses of its forms."""
    base = f"/api/music/{piece}"
    return {"piece": piece, "stream": f"{base}/stream", "wav": f"{base}.wav", "ogg": f"{base}.ogg"}


def described(question: Question) -> dict[str, str]:
    """A piece by its question: its addresses, for whom, by whom."""
    return {**links(question.piece), "artwork": question.artwork, "composer": question.composer}


class LiveMusic:
    """Pieces that people wait for.

    Args:
        records: the truth.
        studio: composes and keeps.
        publish: announces events.
        ask: writes a wish for the background down; the event that announces it.
        undo: removes what a withdrawn picture left.
        most: pieces at once.
    """

    def __init__(
        self, records: Records, studio: Studio, publish: Publish, ask: Ask, undo: Undo, most: int = MOST_LIVE
    ) -> None:
        self.records = records
        self.studio = studio
        self._publish = publish
        self._ask = ask
        self._undo = undo
        self._most = most
        self._pieces: dict[str, LivePiece] = {}

    def find(self, piece: str) -> LivePiece | None:
        """A piece that is made here, or ended here a little while ago."""
        return self._pieces.get(piece)

    def running(self) -> list[LivePiece]:
        """What is composed or kept now."""
        return [piece for piece in self._pieces.values() if piece.running]

    async def begin(self, question: Question, exhibition: str | None) -> LivePiece:
        """Have a piece made; one that is being made already is that one.

        Raises:
            TooMany: wait a little.
        """
        held = self._pieces.get(question.piece)
        if held is not None and held.running:
            return held
        if len(self.running()) >= self._most:
            raise TooMany(
                f"{self._most} pieces are being composed for people at this moment, and more would only stutter; "
                "ask again in half a minute."
            )
        live = LivePiece(question, self.studio.spool(question), exhibition)
        self._pieces[question.piece] = live
        self._forget()
        MUSIC_LIVE.set(len(self.running()))
        MUSIC_QUEUE_SECONDS.labels(LIVE).observe(0.0)
        live.task = asyncio.create_task(self._run(live), name=f"music {question.piece}")
        return live

    async def queue(self, question: Question, exhibition: str | None) -> None:
        """Want a piece in the background."""
        event = await self._ask(question, await self.studio.place_of(question.artwork, exhibition), new_trace())
        await self._publish([] if event is None else [event])

    async def cancel(self, live: LivePiece) -> None:
        """End a piece: the composer stops, its listeners' streams end, nothing is kept."""
        live.state, live.reason = "cancelled", "the piece was cancelled."
        if live.task is not None:
            live.task.cancel()
            await asyncio.wait({live.task}, timeout=_CLOSE_SECONDS)

    async def close(self) -> None:
        """The process ends: what is nearly kept gets a moment, the rest is given up."""
        tasks = [piece.task for piece in self.running() if piece.task is not None]
        keeping = [piece.task for piece in self.running() if piece.task is not None and piece.state == "keeping"]
        if keeping:
            await asyncio.wait(keeping, timeout=_CLOSE_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self) -> None:
        """Pieces that ended a while ago, and the oldest where there are many."""
        ended = sorted(
            (piece.ended, name) for name, piece in self._pieces.items() if not piece.running and piece.ended
        )
        for place, (moment, name) in enumerate(ended):
            if time.monotonic() - moment > _REMEMBERED_SECONDS or len(ended) - place > _REMEMBERED:
                del self._pieces[name]

    async def _run(self, live: LivePiece) -> None:
        question = live.question
        try:
            made = await self.studio.compose(question, live.spool, live=True)
            live.state = "keeping"
            MUSIC_FIRST_SECONDS.labels(LIVE).observe(made.first_chunk_seconds)
            MUSIC_REAL_TIME.labels(LIVE).observe(made.compose_seconds / live.spool.seconds)
            await self._keep(live, made)
            live.state = "kept"
            MUSIC_PIECES.labels(LIVE, "kept").inc()
        except asyncio.CancelledError:
            live.state, live.reason = "cancelled", "the piece was cancelled."
            MUSIC_PIECES.labels(LIVE, "cancelled").inc()
            raise
        except Gone as gone:
            live.state, live.reason = "cancelled", f"{gone}."
            MUSIC_PIECES.labels(LIVE, "withdrawn").inc()
            await self._take_back(question)
        except (Passing, Lasting) as trouble:
            live.declined = isinstance(trouble, Declined)
            self._failed(live, str(trouble))
        except Exception as defect:
            log.exception("live music: a defect while %s was made", question.piece)
            self._failed(live, f"the piece met a defect: {type(defect).__name__}: {defect}.")
        finally:
            live.ended = time.monotonic()
            if not live.spool.ended:
                live.spool.fail(Lasting(live.reason or "the piece was given up."))
            live.spool.close()
            MUSIC_LIVE.set(len(self.running()))

    def _failed(self, live: LivePiece, reason: str) -> None:
        live.state, live.reason = "failed", reason
        MUSIC_PIECES.labels(LIVE, "failed").inc()
        log.warning("live music: %s for %s failed: %s", live.question.piece, live.question.artwork, reason)

    async def _keep(self, live: LivePiece, made: Made) -> None:
        """Keep and announce; a store or a broker that is away is waited for, since somebody heard the piece."""
        question = live.question
        until, wait = time.monotonic() + _KEEP_SECONDS, 0.5
        while True:
            try:
                place = await self.studio.place_of(question.artwork, live.exhibition)
                record, key = await self.studio.keep(question, live.spool, made, asked=LIVE, place=place)
                version = record.generation, record.revision
                letter = dead_key(question.artwork, version, compose_letter(question.piece))
                await self.records.objects.delete([letter])
                await self._publish([MusicComposed.of(record, key, new_trace())])
                return
            except Passing as trouble:
                if time.monotonic() + wait > until:
                    raise
                log.info("live music: %s waits to be kept: %s", question.piece, trouble)
                await asyncio.sleep(wait)
                wait = min(2 * wait, 5.0)

    async def _take_back(self, question: Question) -> None:
        with contextlib.suppress(Passing):
            if await self.records.withdrawn(question.artwork, question.generation):
                await self._undo(question.artwork, question.generation)
            else:
                await self.records.delete_piece(question.artwork, question.generation, question.piece)


# -- what a browser may do ---------------------------------------------------------------------------------


def _loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def foreign(request: Request) -> str | None:
    """Why a request that changes something does not come from our own pages or programs; None: it does.

    A page of another site can make a browser send requests here, and a name that points to loopback gives it their
    answers. So the page's origin must be this very server, and a server on loopback is asked under a name of it.
    """
    host = request.headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return "the request's Host cannot be read."
    server = request.scope.get("server")
    if server is not None and _loopback(server[0]) and not _loopback(name):
        return f"this server is asked as localhost, not as {host[:100]!r}."
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return f"pages of {origin[:100]!r} may not ask for music here."
    return None


def byte_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that a Range header asks for; None: all of it.

    Several ranges, and what is not understood, are answered with the whole, as RFC 9110 (14.2) allows.

    Raises:
        ValueError: nothing of the object lies in the range.
    """
    found = _RANGE.fullmatch(text.replace(" ", "")) if text else None
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        if not length:
            raise ValueError("an empty range")
        return size - length, size
    start = int(found[1])
    end = int(found[2]) + 1 if found[2] else size
    if found[2] and end <= start:
        return None
    if start >= size:
        raise ValueError("a range behind the end")
    return start, min(end, size)


async def stored(records: Records, key: str, media_type: str, request: Request, name: str) -> Response:
    """An object with ranges, fetched a block at a time as the client takes it.

    Raises:
        NotFound: there is none.
    """
    size = await records.objects.size(key)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{name}"',
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    wanted = request.headers.get("range")
    if request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        wanted = None
    try:
        part = byte_range(wanted, size)
    except ValueError:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)

    async def blocks() -> AsyncIterator[bytes]:
        place = start
        while place < end:
            content = await records.objects.get_part(key, place, min(_BLOCK, end - place))
            if not content:
                return
            place += len(content)
            yield content

    return StreamingResponse(blocks(), status, headers=headers, media_type=media_type)


def music_routes(music: LiveMusic) -> APIRouter:
    """The endpoints of music."""
    routes = APIRouter()
    records, studio = music.records, music.studio

    async def instead(artwork: str) -> dict[str, Any]:
        """The track beside the picture, for a person whose piece fails; nothing where it hangs nowhere."""
        with contextlib.suppress(Passing, Lasting):
            track = (await studio.place_of(artwork)).track
            if track is not None:
                return {"instead": {"track": track, "audio": f"/api/items/{track}/audio"}}
        return {"instead": None}

    async def sorry(detail: str, artwork: str, **more: Any) -> JSONResponse:
        return JSONResponse({"detail": detail, **more, **await instead(artwork)}, 503, headers={"Retry-After": "10"})

    def guarded(request: Request) -> JSONResponse | None:
        reason = foreign(request)
        return None if reason is None else JSONResponse({"detail": reason}, 403)

    async def allowed(question: Question, exhibition: str | None) -> None:
        """Raise `Refused` where every exhibition that shows the picture (or the one named) wants no music."""
        held = set(question.revision.collections)
        found = [
            settings
            for settings in await records.exhibitions()
            if exhibition in (None, settings.name)
            and held & (held if settings.collections is None else set(settings.collections))
        ]
        if exhibition is not None and not found:
            raise Refused(f"the exhibition {exhibition!r} does not show this picture.")
        if found and all(settings.music == "never" for settings in found):
            names = ", ".join(settings.name for settings in found)
            raise Refused(
                f"music is never composed in {names}; "
                f"`promenade exhibition change {found[0].name} --music 'on request'` changes that."
            )

    async def chosen(wish: MusicWish) -> str | None:
        """Who composes: whom the person names, or else whom the exhibition names where that is one."""
        if wish.composer is not None or wish.exhibition is None:
            return wish.composer
        settings = await records.exhibition(wish.exhibition)
        return None if settings is None or settings.composer == EVERY_COMPOSER else settings.composer

    @routes.post("/api/music", status_code=202)
    async def ask(request: Request) -> Response:
        """Ask for a piece: JSON of artwork, seconds, seed, wishes, composer. Its addresses come at once."""
        refusal = guarded(request)
        if refusal is not None:
            return refusal
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return JSONResponse({"detail": "send JSON, as Content-Type application/json."}, 415)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BODY:
                return JSONResponse({"detail": f"the request has more than {_MOST_BODY} bytes."}, 413)
        try:
            wish = MusicWish.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # A field's name is the asker's own text, of any length; deeper steps name kinds, not fields.
            where = ".".join(str(step) for step in first["loc"][:2])[:100] or "request"
            return JSONResponse({"detail": f"{where}: {fault_text(first)[:300]}."}, 422)
        try:
            composer = await chosen(wish)
            question = await studio.question(wish.artwork, wish.seconds, wish.seed, wish.wishes, composer)
        except NoComposer as reason:
            return await sorry(str(reason), wish.artwork)
        except Unknown:
            raise
        except Refused as reason:
            return JSONResponse({"detail": str(reason)}, 422)
        try:
            await allowed(question, wish.exhibition)
        except Refused as reason:
            return JSONResponse({"detail": str(reason)}, 403)
        place = (question.artwork, question.generation, question.piece)
        names = await records.piece_names(*place)
        if "record.json" in names and "deleted.json" not in names:
            return JSONResponse({**described(question), "state": "kept"}, 200)
        if "deleted.json" in names:
            await records.want_again(*place)
        if wish.background:
            await music.queue(question, wish.exhibition)
            return JSONResponse({**described(question), "state": "waiting"}, 202)
        try:
            live = await music.begin(question, wish.exhibition)
        except TooMany as reason:
            return JSONResponse({"detail": str(reason)}, 429, headers={"Retry-After": "30"})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(live.spool.begun(), _EARLY_SECONDS)
        if live.declined:
            return JSONResponse({"detail": live.reason, "piece": question.piece}, 422)
        if live.state == "failed":
            return await sorry(live.reason, question.artwork, piece=question.piece)
        return JSONResponse(live.view(), 202)

    @routes.get("/api/music")
    async def pieces(artwork: str | None = Query(None, max_length=100)) -> dict[str, Any]:
        """Complete pieces, newest first (of one picture, or all), what is composed now, and how many wait."""
        if artwork is not None:
            _picture(artwork)
            states = [await records.state(artwork)]
        else:
            states = await records.all_states()
        found = await records.pieces_of(states)
        return {
            "composers": studio.composers,
            "pieces": [each.model_dump(mode="json") for each in found],
            "composing": [each.view() for each in music.running() if artwork in (None, each.question.artwork)],
            "waiting": [piece for state in states if state.alive for piece in state.wanted_pieces()],
        }

    async def located(piece: str) -> tuple[ItemState, set[str], MusicRecord | None]:
        """Where a piece lies in the record.

        Raises:
            Refused: nowhere.
        """
        found = await records.find_piece(piece)
        if found is None or "deleted.json" in found[1]:
            raise Refused(f"there is no piece {piece}; `promenade music list` shows them.")
        state, names = found
        assert state.latest is not None
        record = await records.piece(state.item, state.latest[0], piece) if "record.json" in names else None
        return state, names, record

    def named(name: str) -> tuple[str, str | None]:
        found = _NAME.fullmatch(name)
        if found is None:
            raise Refused(f"{name[:40]!r} is no piece: it has 20 hexadecimal digits, and perhaps .wav or .ogg.")
        return found["piece"], found["form"]

    @routes.api_route("/api/music/{name}", methods=["GET", "HEAD"])
    async def piece(name: str, request: Request) -> Response:
        """A piece's record (202 while it is made), or its sound as .wav or .ogg with ranges."""
        identity, form = named(name)
        live = music.find(identity)
        if form is None and live is not None and live.state in ("composing", "keeping", "cancelled"):
            return JSONResponse(live.view(), 200 if live.state == "cancelled" else 202)
        if form is None and live is not None and live.declined:
            return JSONResponse({"detail": live.reason, "piece": identity}, 422)
        if form is None and live is not None and live.state == "failed":
            return await sorry(live.reason, live.question.artwork, piece=identity, state="failed")
        state, _, record = await located(identity)
        assert state.latest is not None
        if form is not None:
            if record is None:
                raise Refused(f"the piece {identity} is not complete; listen at /api/music/{identity}/stream.")
            key = piece_key(state.item, state.latest[0], identity, f"piece.{form}")
            return await stored(records, key, SOUND_TYPES[form], request, f"{identity}.{form}")
        if record is not None:
            return JSONResponse({**links(identity), "state": "kept", **record.model_dump(mode="json")})
        for version, stage in state.dead:
            if stage == compose_letter(identity):
                letter = await records.dead_letter(dead_key(state.item, version, stage))
                if letter is not None:
                    return await sorry(letter.reason, state.item, piece=identity, state="failed")
        return JSONResponse({**links(identity), "artwork": state.item, "state": "waiting"}, 202)

    @routes.get("/api/music/{name}/stream")
    async def stream(name: str, request: Request) -> Response:
        """The sound from its beginning: while it is made, or of a piece that is kept."""
        identity, form = named(name)
        if form is not None:
            raise Refused("the stream of a piece is /api/music/PIECE/stream.")
        live = music.find(identity)
        if live is not None and live.state == "composing":
            await live.spool.begun()
        if live is not None and live.state == "failed":
            return await sorry(live.reason, live.question.artwork, piece=identity)
        if live is not None and live.running:
            headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
            return StreamingResponse(live.spool.listen(), media_type=SOUND_TYPES["wav"], headers=headers)
        state, _, record = await located(identity)
        assert state.latest is not None
        if record is None:
            raise Refused(f"the piece {identity} is not made for a person who waits; look at /api/music/{identity}.")
        key = piece_key(state.item, state.latest[0], identity, "piece.wav")
        return await stored(records, key, SOUND_TYPES["wav"], request, f"{identity}.wav")

    @routes.delete("/api/music/{name}")
    async def remove(name: str, request: Request) -> Response:
        """Cancel a piece while it is made; delete it afterwards, for good."""
        refusal = guarded(request)
        if refusal is not None:
            return refusal
        identity, form = named(name)
        if form is not None:
            raise Refused("a piece is deleted with all its forms: DELETE /api/music/PIECE.")
        live = music.find(identity)
        if live is not None and live.running:
            await music.cancel(live)
            question = live.question
            await records.delete_piece(question.artwork, question.generation, identity, mark=False)
            return JSONResponse({"piece": identity, "state": "cancelled"})
        state, _, _ = await located(identity)
        assert state.latest is not None
        await records.delete_piece(state.item, state.latest[0], identity)
        return JSONResponse({"piece": identity, "state": "deleted"})

    @routes.api_route("/api/items/{item}/audio", methods=["GET", "HEAD"])
    async def audio(item: str, request: Request) -> Response:
        """A track's original, with ranges."""
        try:
            kind, _ = split_item_id(item)
        except ValueError as error:
            raise Refused(str(error)) from None
        state = await records.state(item)
        if kind is not Kind.TRACK or not state.alive or state.latest is None:
            raise Refused(f"there is no track {item}.")
        revision = await records.revision(item, state.latest)
        media_type = _ORIGINAL_TYPES.get(revision.media.format, "application/octet-stream")
        try:
            return await stored(records, media_key(item, state.latest[0]), media_type, request, item)
        except NotFound:
            raise Refused(f"the sound of {item} is not here.") from None

    return routes


def _picture(item: str) -> None:
    try:
        kind, _ = split_item_id(item)
    except ValueError as error:
        raise Refused(str(error)) from None
    if kind is not Kind.ARTWORK:
        raise Refused("music is composed for pictures; this is the id of a track.")
