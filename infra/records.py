"""Records in the object store: where each fact lies, and how it is read and written.

The names of the objects tell an item's whole state (`ItemState`), so a step costs one listing before and one
after. Every key carries the item's generation: a takedown removes what its own generation and earlier ones
wrote, and can never hurt what a later, deliberate ingest writes.

    media/<sha256>/<generation>                                  the original bytes
    renditions/<id>/<generation>/picture.jpg | sound.flac        what the models see and hear
    items/<id>/revisions/<generation>.<revision>.json            facts by people, immutable, numbered
    items/<id>/memberships/<generation>/<collection>.json        one collection's catalogue data
    items/<id>/results/<stage>/<generation>.<revision>/<digest>.json
    items/<id>/dead/<generation>.<revision>/<stage>.json
    items/<id>/music/<generation>/<piece>/request.json           what was asked; piece.wav, piece.ogg: the sound;
                                                                 record.json: written last; deleted.json: by a person
    items/<id>/tombstones/<generation>.json                      all that a takedown leaves
    dead/events/<topic>-<partition>-<offset>-<digest>.json       events that could not be read
    attempts/<stage>/<uuid>.json                                 items in hand; what is left names the suspects
    exhibitions/<name>/settings/<number>.json                    numbered: creating the next one is compare and set
    exhibitions/<name>[/<creation>]/log/<number>.json            its pairing's revisions, fenced in the same way
    exhibitions/<name>[/<creation>]/snapshots/<number>.json
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from infra.objects import NotFound, ObjectInfo, Objects
from schemas.failures import Lasting
from schemas.faults import first_fault
from schemas.media import RENDITION_NAMES, Kind, split_item_id
from schemas.records import (
    DeadLetter,
    ExhibitionSettings,
    Membership,
    MusicRecord,
    MusicRequest,
    PairingRevision,
    PairingSnapshot,
    Result,
    Revision,
    Stage,
    Tombstone,
    merged_catalogue,
    now,
)

log = logging.getLogger(__name__)

STATE_SECONDS: Final = 10.0
"""How long a listing of an item is believed on its announcement's way through this process."""

Version = tuple[int, int]
"""Generation and revision of an item."""

ITEMS: Final = "items/"
EXHIBITIONS: Final = "exhibitions/"
DEFAULT_EXHIBITION: Final = "default"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Names become parts of keys, so none other is looked for."""
Stored = TypeVar("Stored", bound=BaseModel)


def version_text(version: Version) -> str:
    """`000000.000001`: sorts as the numbers do."""
    return f"{version[0]:06d}.{version[1]:06d}"


def parse_version(text: str) -> Version:
    """Read back `version_text`; ValueError when it is not one."""
    generation, revision = text.split(".")
    return int(generation), int(revision)


def media_key(item: str, generation: int) -> str:
    """Where the original bytes of an item lie."""
    return f"media/{split_item_id(item)[1]}/{generation:06d}"


def rendition_key(item: str, generation: int, name: str) -> str:
    """Where the form of an item that models see or hear lies."""
    return f"renditions/{item}/{generation:06d}/{name}"


def revision_key(item: str, version: Version) -> str:
    """Where one numbered state of the facts by people lies."""
    return f"{ITEMS}{item}/revisions/{version_text(version)}.json"


def membership_key(item: str, generation: int, collection: str) -> str:
    """Where a collection's own catalogue data of an item lies."""
    return f"{ITEMS}{item}/memberships/{generation:06d}/{collection}.json"


def result_key(item: str, version: Version, stage: Stage, digest: str) -> str:
    """Where one immutable result lies."""
    return f"{ITEMS}{item}/results/{stage.value}/{version_text(version)}/{digest}.json"


def dead_key(item: str, version: Version, stage: str) -> str:
    """Where the dead letter of an item at a stage lies."""
    return f"{ITEMS}{item}/dead/{version_text(version)}/{stage}.json"


def tombstone_key(item: str, generation: int) -> str:
    """Where the mark of a takedown lies."""
    return f"{ITEMS}{item}/tombstones/{generation:06d}.json"


PIECE_NAMES: Final = ("request.json", "piece.wav", "piece.ogg", "record.json", "deleted.json")
"""What may lie in a piece's folder."""


SOUND_TYPES: Final = {"wav": "audio/wav", "ogg": "audio/ogg"}


def piece_key(artwork: str, generation: int, piece: str, name: str) -> str:
    """Where something of a piece of music lies; `name` is one of `PIECE_NAMES`."""
    return f"{ITEMS}{artwork}/music/{generation:06d}/{piece}/{name}"


def compose_letter(piece: str) -> str:
    """What the dead letter of a piece is called, in the place of a stage: a picture may have many pieces."""
    return f"{Stage.COMPOSE.value}-{piece}"


@dataclass(slots=True)
class ItemState:
    """What the names of an item's objects tell. Versions are (generation, revision)."""

    item: str
    latest: Version | None = None
    latest_time: datetime | None = None
    buried: int = -1
    """Highest generation with a tombstone; -1 when there is none."""
    memberships: set[str] = field(default_factory=set)
    """Collections that hold the item in its latest generation."""
    results: dict[tuple[Version, Stage], dict[str, datetime]] = field(default_factory=dict)
    """(version, stage) -> digest -> when it was written."""
    dead: dict[tuple[Version, str], datetime] = field(default_factory=dict)
    memberships_by_generation: dict[int, set[str]] = field(default_factory=dict)
    music: dict[tuple[int, str], dict[str, datetime]] = field(default_factory=dict)
    """(generation, piece) -> name of an object in its folder -> when it was written."""
    keys: list[str] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """True when the item is there and its latest generation is not withdrawn."""
        return self.latest is not None and self.latest[0] > self.buried

    def withdrawn(self, generation: int) -> bool:
        """True when this generation was taken down."""
        return generation <= self.buried

    def pieces(self, name: str = "record.json") -> list[str]:
        """Pieces of the latest generation whose folder holds an object of this name, newest first."""
        if self.latest is None:
            return []
        found = [
            (names[name], piece)
            for (generation, piece), names in self.music.items()
            if generation == self.latest[0] and name in names and "deleted.json" not in names
        ]
        return [piece for _, piece in sorted(found, reverse=True)]

    def wanted_pieces(self) -> list[str]:
        """Pieces of the latest generation that were asked for and are neither complete nor set aside."""
        done, failed = set(self.pieces()), {stage for _, stage in self.dead}
        return [
            piece
            for piece in self.pieces("request.json")
            if piece not in done and compose_letter(piece) not in failed
        ]

    def done(self, stage: Stage) -> datetime | None:
        """When the stage's newest result for the latest version was written; None when there is none."""
        if self.latest is None:
            return None
        times = self.results.get((self.latest, stage))
        return max(times.values()) if times else None

    def failed(self, stage: str) -> datetime | None:
        """When the latest version was set aside at this stage; None when it was not."""
        return None if self.latest is None else self.dead.get((self.latest, stage))

    def newest_result_key(self, stage: Stage) -> str | None:
        """Key of the newest result of a stage for the latest version."""
        if self.latest is None:
            return None
        times = self.results.get((self.latest, stage))
        if not times:
            return None
        digest = max(times, key=lambda each: (times[each], each))
        return result_key(self.item, self.latest, stage, digest)

    def add(self, info: ObjectInfo) -> None:
        """Take one object's name into account; names that are not ours are passed over."""
        self.keys.append(info.key)
        steps = info.key[len(ITEMS) + len(self.item) + 1 :].removesuffix(".json").split("/")
        try:
            match steps:
                case ["revisions", version]:
                    parsed = parse_version(version)
                    if self.latest is None or parsed > self.latest:
                        self.latest, self.latest_time = parsed, info.modified
                case ["memberships", generation, collection]:
                    self.memberships_by_generation.setdefault(int(generation), set()).add(collection)
                case ["results", stage, version, digest]:
                    self.results.setdefault((parse_version(version), Stage(stage)), {})[digest] = info.modified
                case ["dead", version, stage]:
                    self.dead[(parse_version(version), stage)] = info.modified
                case ["music", generation, piece, _]:
                    names = self.music.setdefault((int(generation), piece), {})
                    names[info.key.rpartition("/")[2]] = info.modified
                case ["tombstones", generation]:
                    self.buried = max(self.buried, int(generation))
                case _:
                    return
        except ValueError:
            return

    def close(self) -> ItemState:
        """Finish after the last name: memberships count for the latest generation only."""
        if self.latest is not None:
            self.memberships = self.memberships_by_generation.get(self.latest[0], set())
        return self


def states_from(listing: Iterable[ObjectInfo]) -> list[ItemState]:
    """Item states out of a listing of `items/` in order of key."""
    states: list[ItemState] = []
    for info in listing:
        item = info.key[len(ITEMS) :].split("/", 1)[0]
        if not states or states[-1].item != item:
            if states:
                states[-1].close()
            states.append(ItemState(item))
        states[-1].add(info)
    if states:
        states[-1].close()
    return states


def _generation_of(text: str, state: ItemState) -> int:
    """The generation that a part of a key names; what names none belongs to the item's last."""
    try:
        return int(text.split(".")[0])
    except ValueError:
        return state.latest[0] if state.latest is not None else state.buried


class Records:
    """Reading and writing records. Immutable objects are kept in a small memory of the process.

    Args:
        objects: the bucket.
        remembered: how many immutable results are kept in memory, so that the next stage in the same process
            need not fetch what the last one wrote (about 40 KB each).
    """

    def __init__(self, objects: Objects, remembered: int = 512) -> None:
        self.objects = objects
        self._memory: dict[str, BaseModel] = {}
        self._states: dict[str, tuple[str, float, ItemState]] = {}
        """Item -> trace, when it was listed, and its state with what this process wrote since."""
        self._remembered = remembered

    # -- items ---------------------------------------------------------------------------------------------

    async def state(self, item: str) -> ItemState:
        """The item's state by one listing; an unknown item has `latest` None."""
        state = ItemState(item)
        for info in await self.objects.list(f"{ITEMS}{item}/"):
            state.add(info)
        return state.close()

    async def state_for(self, item: str, trace: str) -> ItemState:
        """As `state`, from memory where this process listed the item for the same trace a moment ago.

        One announcement goes from stage to stage in one trace, often in one process within a second. What others did
        to the item meanwhile is not seen, so this is for work without an effect outside the record, whose writing is
        first-wins and is followed by `withdrawn`.
        """
        known = self._states.get(item)
        if known is not None and known[0] == trace and time.monotonic() - known[1] < STATE_SECONDS:
            return known[2]
        return await self.fresh_state(item, trace)

    async def fresh_state(self, item: str, trace: str) -> ItemState:
        """As `state`, and kept for `state_for`."""
        moment = time.monotonic()
        state = await self.state(item)
        self._states.pop(item, None)
        self._states[item] = (trace, moment, state)
        if len(self._states) > self._remembered:
            self._states.pop(next(iter(self._states)), None)
        return state

    async def withdrawn(self, item: str, generation: int) -> bool:
        """True when this generation of an item was taken down.

        Its own tombstone tells: a generation begins only behind the tombstone of the one before, and no tombstone is
        ever removed.
        """
        key = tombstone_key(item, generation)
        if not await self.objects.exists(key):
            return False
        # Whoever buried it may have ended with the store, half-way.
        await self.objects.show([key])
        return True

    async def all_states(self) -> list[ItemState]:
        """Every item's state by one listing, in order of id."""
        return states_from(await self.objects.list(ITEMS))

    async def revision(self, item: str, version: Version) -> Revision:
        """One numbered state of an item's facts.

        Raises:
            NotFound: there is none.
        """
        return await self._immutable(revision_key(item, version), Revision)

    async def create_revision(self, revision: Revision) -> bool:
        """Write a revision under its number; False when somebody else made that number first."""
        key = revision_key(revision.item, (revision.generation, revision.revision))
        return await self._create(key, revision)

    async def memberships(self, state: ItemState) -> list[Membership]:
        """The memberships of the item's latest generation."""
        if state.latest is None:
            return []
        keys = [membership_key(state.item, state.latest[0], each) for each in sorted(state.memberships)]
        return [
            self._read(key, content, Membership)
            async for key, content in self.objects.get_many(keys)
            if content is not None
        ]

    async def membership(self, item: str, generation: int, collection: str) -> Membership | None:
        """One membership, or None."""
        key = membership_key(item, generation, collection)
        try:
            return self._read(key, await self.objects.get(key), Membership)
        except NotFound:
            return None

    async def put_membership(self, membership: Membership) -> None:
        """Write one collection's facts. Only that collection's ingest writes this key; the last one wins."""
        key = membership_key(membership.item, membership.generation, membership.collection)
        await self.objects.put(key, membership.model_dump_json().encode(), "application/json")

    async def refresh_revision(self, item: str, made: datetime) -> Revision | None:
        """Make the next revision when the memberships say something else than the latest one.

        Returns:
            The new revision, or None when nothing changed. Of two writers at once one makes the number and the
            other looks again, so the last state of the memberships always gets a revision.
        """
        while True:
            state = await self.state(item)
            if not state.alive or state.latest is None:
                return None
            latest = await self.revision(item, state.latest)
            facts = {
                "catalogue": merged_catalogue(await self.memberships(state)),
                "collections": tuple(sorted(state.memberships)),
            }
            if facts == {"catalogue": latest.catalogue, "collections": latest.collections}:
                return None
            following = latest.model_copy(update={**facts, "revision": latest.revision + 1, "made": made})
            if await self.create_revision(following):
                return following

    # -- results -------------------------------------------------------------------------------------------

    async def result(self, key: str) -> Result:
        """A stage's result by its key.

        Raises:
            NotFound: there is none.
            Lasting: it does not parse.
        """
        return await self._immutable(key, Result)

    async def write_result(self, result: Result) -> tuple[str, bool]:
        """Write a result first-wins.

        Returns:
            Its key, and True when this call wrote it (False: an equal question was answered before, and that
            answer stays).
        """
        stage = Stage(result.body.stage)
        key = result_key(result.item, (result.generation, result.revision), stage, result.digest)
        written = await self._create(key, result)
        if result.item in self._states:
            self._states[result.item][2].add(ObjectInfo(key, 0, now()))
        return key, written

    async def earlier_result(self, state: ItemState, stage: Stage, digest: str) -> Result | None:
        """A result with this digest under an earlier revision of the latest generation: the same question."""
        if state.latest is None:
            return None
        for version, each in sorted(state.results, reverse=True):
            if each is stage and version[0] == state.latest[0] and digest in state.results[(version, each)]:
                return await self.result(result_key(state.item, version, stage, digest))
        return None

    async def newest_result(self, state: ItemState, stage: Stage) -> Result | None:
        """The newest result of a stage for the item's latest version."""
        key = state.newest_result_key(stage)
        return None if key is None else await self.result(key)

    # -- music ---------------------------------------------------------------------------------------------

    async def write_request(self, request: MusicRequest) -> tuple[str, bool]:
        """Write what was asked, first-wins; its key, and True when this call wrote it."""
        key = piece_key(request.artwork, request.generation, request.piece, "request.json")
        return key, await self._create(key, request)

    async def request(self, key: str) -> MusicRequest:
        """What was asked for a piece.

        Raises:
            NotFound: there is none.
        """
        return await self._immutable(key, MusicRequest)

    async def write_piece(self, record: MusicRecord) -> tuple[str, bool]:
        """Write a piece's record, first-wins, which completes it; its key, and True when this call wrote it."""
        key = piece_key(record.artwork, record.generation, record.piece, "record.json")
        return key, await self.objects.put_if_absent(key, record.model_dump_json().encode())

    async def piece(self, artwork: str, generation: int, piece: str) -> MusicRecord | None:
        """A complete piece's record, or None."""
        key = piece_key(artwork, generation, piece, "record.json")
        try:
            return self._read(key, await self.objects.get(key), MusicRecord)
        except NotFound:
            return None

    async def pieces(self, artwork: str) -> list[MusicRecord]:
        """The complete pieces of a picture, newest first; none where it is withdrawn."""
        return await self.pieces_of([await self.state(artwork)])

    async def all_pieces(self) -> list[MusicRecord]:
        """Every complete piece of every picture that is there, newest first."""
        return await self.pieces_of(await self.all_states())

    async def pieces_of(self, states: Sequence[ItemState]) -> list[MusicRecord]:
        """The complete pieces of these items, newest first."""
        keys = [
            piece_key(state.item, state.latest[0], piece, "record.json")
            for state in states
            if state.alive and state.latest is not None
            for piece in state.pieces()
        ]
        found = [
            self._read(key, content, MusicRecord)
            async for key, content in self.objects.get_many(keys)
            if content is not None
        ]
        return sorted(found, key=lambda record: record.provenance.made, reverse=True)

    async def find_piece(self, piece: str) -> tuple[ItemState, set[str]] | None:
        """The state of the picture that a piece was asked for, and what lies in the piece's folder; None: nothing.

        A piece's id begins as its picture's hash does, so only the few items that begin so are listed.
        """
        for state in states_from(await self.objects.list(f"{ITEMS}{Kind.ARTWORK.value}-{piece[:8]}")):
            if state.alive and state.latest is not None and (state.latest[0], piece) in state.music:
                return state, set(state.music[(state.latest[0], piece)])
        return None

    async def put_sound(
        self, artwork: str, generation: int, piece: str, name: str, descriptor: int, size: int
    ) -> None:
        """Keep a piece's sound: `piece.wav` or `piece.ogg` out of an open file of so many bytes."""
        key = piece_key(artwork, generation, piece, name)
        await self.objects.put_file(key, descriptor, size, SOUND_TYPES[name.rpartition(".")[2]])

    async def piece_names(self, artwork: str, generation: int, piece: str) -> set[str]:
        """What lies in a piece's folder."""
        folder = piece_key(artwork, generation, piece, "")
        return {info.key.removeprefix(folder) for info in await self.objects.list(folder)}

    async def delete_piece(self, artwork: str, generation: int, piece: str, *, mark: bool = True) -> None:
        """Remove a piece. With `mark` it stays removed: the same question is not answered again unless a person asks.

        The record goes first, so that a piece that is half removed counts as none.
        """
        names = [piece_key(artwork, generation, piece, name) for name in PIECE_NAMES]
        if mark:
            await self.objects.put(names.pop(), b"{}", "application/json")
        self._memory.pop(names[0], None)
        await self.objects.delete([piece_key(artwork, generation, piece, "record.json")])
        await self.objects.delete(names)

    async def want_again(self, artwork: str, generation: int, piece: str) -> None:
        """A person asks for a piece that was removed: the mark goes."""
        await self.objects.delete([piece_key(artwork, generation, piece, "deleted.json")])

    async def understood(self, item: str) -> tuple[Revision, dict[Stage, Result]] | None:
        """A living item's latest revision with the newest result of each stage that has one; None: it is not here."""
        state = await self.state(item)
        if not state.alive or state.latest is None:
            return None
        try:
            revision = await self.revision(item, state.latest)
            found = {stage: await self.newest_result(state, stage) for stage in Stage}
        except NotFound:
            # A takedown went by.
            return None
        return revision, {stage: result for stage, result in found.items() if result is not None}

    # -- takedown ------------------------------------------------------------------------------------------

    async def bury(self, tombstone: Tombstone) -> bool:
        """Write a tombstone; True when this call wrote it."""
        return await self.objects.put_if_absent(
            tombstone_key(tombstone.item, tombstone.generation), tombstone.model_dump_json().encode()
        )

    async def erase(self, item: str) -> int:
        """Remove all that withdrawn generations of an item left, but their tombstones. Safe to repeat.

        Returns:
            How many objects were removed.
        """
        self._states.pop(item, None)
        state = await self.state(item)
        if state.buried < 0:
            return 0
        known = {version for version, _ in [*state.results, *state.dead]} | {state.latest or (0, 1)}
        buried = {version for version in known if version[0] <= state.buried} | {(state.buried, 1)}
        await self.objects.show(self._folders(item, buried))
        state = await self.state(item)
        gone = self.left_behind(state)
        for prefix in (f"media/{split_item_id(item)[1]}/", f"renditions/{item}/"):
            for info in await self.objects.list(prefix):
                if _generation_of(info.key[len(prefix) :].split("/")[0], state) <= state.buried:
                    gone.append(info.key)
        for key in gone:
            self._memory.pop(key, None)
        # Media by their names too: a store that was killed may hold one that no listing tells of (infra.objects).
        kind, generations = split_item_id(item)[0], range(state.buried + 1)
        unlisted = [media_key(item, each) for each in generations]
        unlisted += [rendition_key(item, each, RENDITION_NAMES[kind]) for each in generations]
        await self.objects.delete({*gone, *unlisted})
        return len(gone)

    @classmethod
    def left_behind(cls, state: ItemState) -> list[str]:
        """Keys of withdrawn generations that are still there, whether or not a later generation lives."""
        if state.buried < 0:
            return []
        return [key for key in state.keys if cls._is_buried(state, key, ITEMS + state.item)]

    async def show_begun(self) -> None:
        """Bring to light what a killed store kept half of items whose ingest nobody finished (see `infra.objects`).

        To be called before anybody removes what no listing tells of.
        """
        known = {state.item: state for state in await self.all_states()}
        for item in {info.key.split("/")[1] for info in await self.objects.list("renditions/")}:
            state = known.get(item, ItemState(item))
            if state.latest is None or not state.alive:
                await self.objects.show(self._folders(item, {(state.buried + 1, 1)}))

    @staticmethod
    def _folders(item: str, versions: Iterable[Version]) -> list[str]:
        """A key in every folder in which a killed store may hold something that no listing tells of."""
        keys = [revision_key(item, (0, 0))]
        keys += [membership_key(item, each, "any") for each in {version[0] for version in versions}]
        for version in versions:
            keys.append(dead_key(item, version, "any"))
            keys += [result_key(item, version, stage, "any") for stage in Stage]
        return keys

    @staticmethod
    def _is_buried(state: ItemState, key: str, prefix: str) -> bool:
        steps = key[len(prefix) + 1 :].split("/")
        if steps[0] == "tombstones":
            return False
        place = 2 if steps[0] == "results" else 1
        return _generation_of(steps[place] if place < len(steps) else "", state) <= state.buried

    # -- dead letters --------------------------------------------------------------------------------------

    async def set_aside(self, letter: DeadLetter, name: str | None = None) -> str:
        """Write a dead letter of an item, in the place of an earlier one of the same stage (or `name`); its key."""
        key = dead_key(letter.item, (letter.generation, letter.revision), name or letter.stage)
        self._states.pop(letter.item, None)
        await self.objects.put(key, letter.model_dump_json().encode(), "application/json")
        return key

    async def set_event_aside(self, name: str, letter: DeadLetter) -> str:
        """Write the dead letter of an event that could not be read; its key."""
        key = f"dead/events/{name}.json"
        await self.objects.put(key, letter.model_dump_json().encode(), "application/json")
        return key

    async def dead_letters(self) -> list[tuple[str, DeadLetter]]:
        """Every dead letter with its key: items' first, then unreadable events'."""
        keys = [
            f"{ITEMS}{state.item}/dead/{version_text(version)}/{stage}.json"
            for state in await self.all_states()
            for version, stage in state.dead
        ]
        keys += [info.key for info in await self.objects.list("dead/events/")]
        return [
            (key, self._read(key, content, DeadLetter))
            async for key, content in self.objects.get_many(keys)
            if content is not None
        ]

    async def dead_letter(self, key: str) -> DeadLetter | None:
        """One dead letter, or None."""
        try:
            return self._read(key, await self.objects.get(key), DeadLetter)
        except NotFound:
            return None

    # -- attempts ------------------------------------------------------------------------------------------

    async def mark_attempt(self, stage: Stage, name: str, items: Sequence[str]) -> None:
        """Note that a worker took these items in hand, before it does anything with them."""
        await self.objects.put(f"attempts/{stage.value}/{name}.json", "\n".join(items).encode(), "text/plain")

    async def clear_attempt(self, stage: Stage, name: str) -> None:
        """The batch ended without harm."""
        await self.objects.delete([f"attempts/{stage.value}/{name}.json"])

    async def open_attempts(self, stage: Stage) -> dict[str, tuple[list[str], datetime]]:
        """Marks that nobody cleared: key -> items, when written. A worker at work has one; a dead one left one."""
        written = {info.key: info.modified for info in await self.objects.list(f"attempts/{stage.value}/")}
        return {
            key: (content.decode().splitlines(), written[key])
            async for key, content in self.objects.get_many(list(written))
            if content is not None
        }

    # -- exhibitions ---------------------------------------------------------------------------------------

    async def exhibitions(self) -> list[ExhibitionSettings]:
        """All exhibitions by name; the default one (every collection) exists when nobody made any.

        One whose settings cannot be read is left out, and said: the others go on.
        """
        names = {*await self._exhibition_names(), DEFAULT_EXHIBITION}
        read = await asyncio.gather(*map(self.exhibition, names), return_exceptions=True)
        found: list[ExhibitionSettings] = []
        for name, each in zip(names, read, strict=True):
            if isinstance(each, Lasting):
                log.warning("the exhibition %s is left out: %s It can be deleted.", name, each.reason)
            elif isinstance(each, BaseException):
                raise each
            elif each is not None:
                found.append(each)
        return sorted(found, key=lambda each: each.name)

    async def _exhibition_names(self) -> list[str]:
        # One level only: the logs below grow with every item.
        folders = await self.objects.folders(EXHIBITIONS)
        return [folder.removeprefix(EXHIBITIONS).rstrip("/") for folder in folders]

    async def exhibition(self, name: str) -> ExhibitionSettings | None:
        """The newest settings of an exhibition; None when there is none of that name, or it can be no name."""
        if not _NAME.fullmatch(name):
            return None
        keys = [info.key for info in await self.objects.list(f"{EXHIBITIONS}{name}/settings")]
        # `settings.json` is what was written before settings were numbered; it sorts before the numbers.
        for key in reversed(keys):
            try:
                return self._read(key, await self.objects.get(key), ExhibitionSettings)
            except NotFound:
                # Deleted just now.
                continue
        return ExhibitionSettings(name=name) if name == DEFAULT_EXHIBITION else None

    async def put_exhibition(self, settings: ExhibitionSettings) -> bool:
        """Write settings under their number; False when somebody else wrote that number first."""
        key = f"{EXHIBITIONS}{settings.name}/settings/{settings.number:06d}.json"
        return await self.objects.put_if_absent(key, settings.model_dump_json().encode())

    async def delete_exhibition(self, name: str) -> None:
        """Remove an exhibition's settings; whoever pairs it then forgets its pairing."""
        keys = [info.key for info in await self.objects.list(f"{EXHIBITIONS}{name}/settings")]
        # The oldest first: one that is left is then the newest, never an older state.
        for key in keys:
            await self.objects.delete([key])

    async def erase_pairing(self, name: str) -> int:
        """Remove logs and snapshots that no settings point to; how many objects went.

        All of them where the exhibition was deleted, and those of earlier creations where it was made again.
        """
        gone = [info.key for folder in await self._unused(name) for info in await self.objects.list(folder)]
        await self.objects.delete(gone)
        return len(gone)

    async def _unused(self, name: str) -> list[str]:
        """Folders of an exhibition to which its settings do not point; none while they cannot be read."""
        prefix = f"{EXHIBITIONS}{name}/"
        folders = await self.objects.folders(prefix)
        # Read after the listing: what a later creation makes meanwhile is not in it.
        try:
            settings = await self.exhibition(name)
        except Lasting:
            return []
        used = {f"{prefix}settings/"}
        if settings is not None:
            home = f"{EXHIBITIONS}{settings.home}/"
            used |= {home, f"{home}log/", f"{home}snapshots/"}
        return [folder for folder in folders if folder not in used]

    async def deleted_exhibitions(self) -> list[str]:
        """Names of exhibitions of which something is left that no settings point to (see `erase_pairing`)."""
        found = []
        for name in await self._exhibition_names():
            # A store may show a folder for a while after the last object in it went.
            if any([await self.objects.list(folder) for folder in await self._unused(name)]):
                found.append(name)
        return found

    async def pairing_log(self, exhibition: str, after: int) -> list[PairingRevision]:
        """The revisions of an exhibition's pairing with a number above `after`, in order."""
        last = pairing_revision_key(exhibition, after)
        keys = [info.key for info in await self.objects.list(f"exhibitions/{exhibition}/log/", after=last)]
        return [
            self._read(key, content, PairingRevision)
            async for key, content in self.objects.get_many(keys)
            if content is not None
        ]

    async def last_pairing(self, exhibition: str) -> int:
        """Number of the last revision of an exhibition's pairing; 0 where there is none."""
        listing = await self.objects.list(f"exhibitions/{exhibition}/log/")
        return int(listing[-1].key.rpartition("/")[2].removesuffix(".json")) if listing else 0

    async def prune_pairing(self, exhibition: str, before: int) -> int:
        """Remove the revisions of an exhibition's pairing with a lower number than `before`; how many went.

        Their numbers fence off owners that were overtaken, so nobody may own the pairing meanwhile; and a snapshot
        must hold what they said.
        """
        first_kept = pairing_revision_key(exhibition, max(0, before))
        listing = await self.objects.list(f"exhibitions/{exhibition}/log/")
        gone = [info.key for info in listing if info.key < first_kept]
        await self.objects.delete(gone)
        return len(gone)

    async def append_pairing(self, revision: PairingRevision) -> bool:
        """Continue the log; False when this number was written by somebody else: the writer lost its place."""
        key = pairing_revision_key(revision.exhibition, revision.number)
        return await self.objects.put_if_absent(key, revision.model_dump_json().encode())

    async def pairing_snapshot(self, exhibition: str) -> PairingSnapshot | None:
        """The newest snapshot, or None."""
        while listing := await self.objects.list(f"exhibitions/{exhibition}/snapshots/"):
            key = listing[-1].key
            try:
                return self._read(key, await self.objects.get(key), PairingSnapshot)
            except NotFound:
                # The owner wrote a newer one just now and removed this one.
                continue
        return None

    async def put_pairing_snapshot(self, snapshot: PairingSnapshot) -> None:
        """Write a snapshot and remove the ones before it."""
        prefix = f"exhibitions/{snapshot.exhibition}/snapshots/"
        older = [info.key for info in await self.objects.list(prefix)]
        key = f"{prefix}{snapshot.number:012d}.json"
        await self.objects.put(key, snapshot.model_dump_json().encode(), "application/json")
        await self.objects.delete([each for each in older if each < key])

    # -- helpers -------------------------------------------------------------------------------------------

    async def _create(self, key: str, content: BaseModel) -> bool:
        written = await self.objects.put_if_absent(key, content.model_dump_json().encode())
        if written:
            self._remember(key, content)
        return written

    async def _immutable(self, key: str, model: type[Stored]) -> Stored:
        held = self._memory.get(key)
        if isinstance(held, model):
            return held
        found = self._read(key, await self.objects.get(key), model)
        self._remember(key, found)
        return found

    def _remember(self, key: str, content: BaseModel) -> None:
        self._memory.pop(key, None)
        self._memory[key] = content
        while len(self._memory) > self._remembered:
            self._memory.pop(next(iter(self._memory)))

    @staticmethod
    def _read(key: str, content: bytes, model: type[Stored]) -> Stored:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            where, words = first_fault(error)
            raise Lasting(
                f"the object {key} does not fit its schema at {where}: {words}.",
                "It was changed by other hands; withdraw the item and ingest it again.",
            ) from None


def pairing_revision_key(exhibition: str, number: int) -> str:
    """Where one step of an exhibition's pairing lies."""
    return f"exhibitions/{exhibition}/log/{number:012d}.json"
