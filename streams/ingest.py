"""Ingest: originals into the object store, their record begun, and `Arrived` announced.

An original is looked at before anything is announced: its bytes tell the kind, a child process decodes it within
limits, and what the models will see or hear is stored beside it. The order of the writes makes every crash
harmless: bytes, rendition, membership, revision, event; whoever ingests the same file again goes on where it
stopped. The same bytes are one item in as many collections as hold it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from infra.objects import NotFound, Refusing
from infra.records import ItemState, Records, media_key, rendition_key
from schemas.events import Arrived, Event, new_trace
from schemas.failures import Lasting, Passing
from schemas.media import RENDITION_NAMES, Kind, digest_of, item_id
from schemas.records import Catalogue, Membership, Revision, Stage, merged_catalogue, now
from workers.media.child import open_regular
from workers.media.detect import HEAD_BYTES, PICTURES, detect
from workers.media.pool import DecoderPool, Prepared

SIDE_BY_SIDE: Final = 4
"""Files on their way at once: while one is decoded, others are read and stored."""

PATIENCE_SECONDS: Final = 120.0
"""How long ingest waits for one part: longer than any restart of the embedded stack, not for ever."""

REFUSAL_SECONDS: Final = 5.0
"""How long ingest asks again a store that says no: one that starts may say so before it has read its accounts."""

T = TypeVar("T")

_CONTENT_TYPES: Final = {"picture.jpg": "image/jpeg", "sound.flac": "audio/flac"}


NO_CATALOGUE: Final = Catalogue()


@dataclass(frozen=True, slots=True)
class Source:
    """One file to bring in: where its bytes come from, its name for people, what people say of it."""

    name: str
    content: Path | Callable[[], Awaitable[bytes]]
    catalogue: Catalogue = NO_CATALOGUE


class Outcome(StrEnum):
    """What became of one file."""

    NEW = "new"
    JOINED = "joined"
    """A known item, now in this collection too."""
    CHANGED = "changed"
    """Known here, with other catalogue data than before."""
    KNOWN = "known"
    WITHDRAWN = "withdrawn"
    """It was taken down before; only a deliberate `--again` brings it back."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one file, in plain words."""

    name: str
    outcome: Outcome
    item: str = ""
    reason: str = ""
    advice: str = ""
    notes: tuple[str, ...] = ()


class Ingest:
    """Brings files in.

    Args:
        records: the truth.
        pool: decodes within limits.
        publish: announces events; may be called from several tasks.
        again: bring back what was withdrawn, as a new generation.
        say: told what is waited for while a part is away.
    """

    def __init__(
        self,
        records: Records,
        pool: DecoderPool,
        publish: Callable[[Sequence[Event]], Awaitable[None]],
        *,
        again: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._records = records
        self._pool = pool
        self._say = say
        self._publish = publish
        self._again = again
        self._last_sequence = 0
        self._busy: dict[str, asyncio.Lock] = {}

    async def add_all(self, sources: AsyncIterator[Source | Report], collection: str) -> AsyncIterator[Report]:
        """Bring files in, a few side by side; a report for each as it is done, in no fixed order.

        A source that is a report already (a bad row of a manifest) is handed on. Trouble with one file never
        stops the others; while a part is away, the files in hand wait for it, and with them those that follow.

        Raises:
            Passing: a part stayed away for longer than `PATIENCE_SECONDS`.
        """
        running: set[asyncio.Task[Report]] = set()
        following: asyncio.Task[Source | Report | None] | None = None
        ended = False
        try:
            while running or not ended:
                # The next source and the files in hand are waited for together, so that a file is reported when it
                # is done, also where the next one comes much later or never (a watched folder).
                if following is None and not ended and len(running) < SIDE_BY_SIDE:
                    following = asyncio.create_task(_next(sources))
                waited: set[asyncio.Task[Any]] = {*running} if following is None else {*running, following}
                done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in [each for each in running if each in done]:
                    running.discard(task)
                    yield task.result()
                if following is None or following not in done:
                    continue
                source, following = following.result(), None
                if source is None:
                    ended = True
                elif isinstance(source, Report):
                    yield source
                else:
                    running.add(asyncio.create_task(self._add_patiently(source, collection)))
        finally:
            for left in (*running, *(() if following is None else (following,))):
                left.cancel()

    async def _add_patiently(self, source: Source, collection: str) -> Report:
        return await patiently(lambda: self.add(source, collection), self._say)

    async def add(self, source: Source, collection: str) -> Report:
        """Bring one file in.

        Raises:
            Passing: a part is away; nothing half-written is left that a second call does not mend.
        """
        identity = ""
        try:
            content = await self._read(source)
            kind = Kind.ARTWORK if detect(content[:HEAD_BYTES]) in PICTURES else Kind.TRACK
            identity = item_id(kind, await asyncio.to_thread(digest_of, content))
            # Two files with the same bytes in one run take turns, so that the second finds the first's record.
            lock = self._busy.setdefault(identity, asyncio.Lock())
            async with lock:
                report = await self._add(source, collection, kind, identity, content)
            self._busy.pop(identity, None)
            return report
        except NotFound:
            # It was withdrawn between the look at its record and the reading of it.
            return Report(
                source.name,
                Outcome.WITHDRAWN,
                identity,
                "it was withdrawn at this moment.",
                "Use --again to bring it back deliberately.",
            )
        except Lasting as failure:
            return Report(source.name, Outcome.REFUSED, "", failure.reason, failure.advice)

    async def _read(self, source: Source) -> bytes:
        limit = self._pool.limits.maximum_bytes
        if not isinstance(source.content, Path):
            return await source.content()
        return await asyncio.to_thread(read_file, source.content, limit)

    async def _add(self, source: Source, collection: str, kind: Kind, identity: str, content: bytes) -> Report:
        state = await self._records.state(identity)
        if state.buried >= 0 and not state.alive:
            if not self._again:
                return Report(
                    source.name,
                    Outcome.WITHDRAWN,
                    identity,
                    "it was withdrawn before.",
                    "Use --again to bring it back deliberately.",
                )
            return await self._begin(source, collection, kind, content, state, state.buried + 1)
        if state.latest is None:
            return await self._begin(source, collection, kind, content, state, 0)
        return await self._join(source, collection, state)

    async def _begin(
        self, source: Source, collection: str, kind: Kind, content: bytes, before: ItemState, generation: int
    ) -> Report:
        identity = before.item
        prepared = await self._pool.prepare(content, name=source.name)
        if prepared.item != identity:
            raise Lasting(
                "the file seems to be another kind than its first bytes say.", "Bring it in another format."
            )
        await self._store(prepared, content, generation)
        await self._put_membership(source, collection, before, generation)
        state = await self._records.state(identity)
        collections = tuple(sorted(state.memberships_by_generation.get(generation, {collection})))
        revision = Revision(
            item=identity,
            kind=kind,
            generation=generation,
            revision=1,
            sequence=self._sequence(),
            media=prepared.facts,
            catalogue=await self._merged(identity, generation, collections),
            collections=collections,
            made=now(),
        )
        created = await self._records.create_revision(revision)
        if await self._records.withdrawn(identity, generation):
            # Somebody else began the item too and it was taken down, all since the first look: the takedown has
            # swept already, so what was written after it is swept here.
            await self._records.erase(identity)
            raise NotFound(identity)
        if created:
            await self._announce(revision)
            return Report(source.name, Outcome.NEW, identity, notes=prepared.facts.notes)
        # Somebody else began the same item in this moment: this collection joins theirs.
        following = await self._records.refresh_revision(identity, now())
        if following is not None:
            await self._announce(following)
        return Report(source.name, Outcome.JOINED, identity, notes=prepared.facts.notes)

    async def _store(self, prepared: Prepared, content: bytes, generation: int) -> None:
        await self._records.objects.put(media_key(prepared.item, generation), content)
        name = prepared.rendition_name
        await self._records.objects.put(
            rendition_key(prepared.item, generation, name), prepared.rendition, _CONTENT_TYPES[name]
        )

    async def _merged(self, identity: str, generation: int, collections: Sequence[str]) -> Catalogue:
        found = [await self._records.membership(identity, generation, each) for each in collections]
        return merged_catalogue([each for each in found if each is not None])

    async def _put_membership(self, source: Source, collection: str, state: ItemState, generation: int) -> Outcome:
        known = await self._records.membership(state.item, generation, collection)
        # A file brought in again without catalogue data says nothing new about what is known.
        if known is not None and (source.catalogue.is_empty() or known.catalogue == source.catalogue):
            if collection not in state.memberships_by_generation.get(generation, ()):
                # No listing told of it: writing it again brings to light what a store that was killed kept half.
                await self._records.put_membership(known)
            return Outcome.KNOWN
        await self._records.put_membership(
            Membership.model_validate(
                {
                    "item": state.item,
                    "collection": collection,
                    "catalogue": source.catalogue,
                    "source": source.name[:2000],
                    "generation": generation,
                    "added": now() if known is None else known.added,
                }
            )
        )
        return Outcome.JOINED if known is None else Outcome.CHANGED

    async def _join(self, source: Source, collection: str, state: ItemState) -> Report:
        assert state.latest is not None
        identity = state.item
        outcome = await self._put_membership(source, collection, state, state.latest[0])
        revision = await self._records.refresh_revision(identity, now())
        if revision is None and not (await self._records.state(identity)).alive:
            # Withdrawn after the first look: what was written just now goes too.
            await self._records.erase(identity)
            raise NotFound(identity)
        if revision is None and state.done(Stage.CAPTION) is None and not state.failed(Stage.CAPTION.value):
            # An earlier run may have died before its announcement; a second one is harmless.
            revision = await self._records.revision(identity, state.latest)
        if revision is not None:
            await self._announce(revision)
        return Report(source.name, outcome, identity)

    async def _announce(self, revision: Revision) -> None:
        await self._publish(
            [
                Arrived(
                    trace=new_trace(),
                    item=revision.item,
                    generation=revision.generation,
                    revision=revision.revision,
                )
            ]
        )

    def _sequence(self) -> int:
        """Microseconds since 1970, never twice the same in one run."""
        self._last_sequence = max(self._last_sequence + 1, time.time_ns() // 1000)
        return self._last_sequence


async def _next(sources: AsyncIterator[Source | Report]) -> Source | Report | None:
    """The next source, or None at the end."""
    return await anext(sources, None)


def read_file(path: Path, limit: int) -> bytes:
    """A regular file's bytes.

    Raises:
        Lasting: it is none, cannot be read, or is larger than `limit` bytes.
    """
    try:
        with os.fdopen(open_regular(str(path)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise Lasting(
                    f"the file has {size / 2**20:.0f} MiB, more than {limit / 2**20:.0f}.", "Bring a smaller version."
                )
            return file.read(limit + 1)
    except OSError as error:
        raise Lasting(f"it cannot be read: {error.strerror}.", "Check the file's rights and the disk.") from None


async def load_rendition(records: Records, pool: DecoderPool, item: str, generation: int) -> bytes:
    """The form of an item that models see or hear; made again from the original where it is missing.

    Raises:
        Lasting: the original is missing too, or cannot be decoded.
    """
    kind = Kind(item.split("-", 1)[0])
    key = rendition_key(item, generation, RENDITION_NAMES[kind])
    try:
        return await records.objects.get(key)
    except NotFound:
        pass
    try:
        content = await records.objects.get(media_key(item, generation))
    except NotFound:
        raise Lasting("its original bytes are missing from the object store.", "Ingest the file again.") from None
    prepared = await pool.prepare(content)
    if prepared.item != item:
        raise Lasting(
            "the stored original is not what its name says.", "Somebody changed it; withdraw and ingest it again."
        )
    await records.objects.put(key, prepared.rendition, _CONTENT_TYPES[prepared.rendition_name])
    return prepared.rendition


async def patiently(
    work: Callable[[], Awaitable[T]], say: Callable[[str], None], limit_seconds: float = PATIENCE_SECONDS
) -> T:
    """Try again while a part is away, telling what is waited for.

    A store that refuses is given `REFUSAL_SECONDS` only: a person must mend something, and should hear of it.

    Raises:
        Passing: it stayed away for longer than the limit.
    """
    started, wait = time.monotonic(), 0.5
    refusing_since: float | None = None
    while True:
        try:
            return await work()
        except Passing as trouble:
            moment = time.monotonic()
            # Counted from the first refusal in a row: a store that was away and starts may refuse for a moment.
            refusing_since = (refusing_since or moment) if isinstance(trouble, Refusing) else None
            if moment - started > limit_seconds:
                raise
            if refusing_since is not None and moment - refusing_since > REFUSAL_SECONDS:
                raise
            say(f"waiting for the {trouble.part}: {trouble.reason}")
            await asyncio.sleep(wait)
            wait = min(wait * 2, 5.0)
