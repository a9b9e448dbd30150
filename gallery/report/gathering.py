"""What the page shows, read from the records: pairs with their parts, palettes, pictures, sounds and pieces.

Sound comes in one of three ways: embedded in the page, in files beside it, or not at all. Originals in Ogg and MP3
are taken as they came; others become Ogg/Opus in the decoding child. What is missing (a picture that was taken down
meanwhile, a sound that cannot be decoded) is said on the page and stops nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from gallery.report.pictures import THUMBNAIL_SIDE, Shown, scaled, size_for, uri_of
from gallery.views import PairView, SideView, WallView, wall_view
from infra.objects import NotFound
from infra.records import Records, media_key, piece_key, rendition_key
from schemas.failures import Lasting
from schemas.media import RENDITION_NAMES, WHOLE, Kind, MediaFacts, parts_of, split_item_id
from schemas.records import CaptionBody, Catalogue, MusicRecord, ScoreBody, Stage
from workers.feelings import feeling_words

Audio = Literal["embed", "beside", "none"]

EMBEDDED_BYTES: Final = 48 * 2**20
"""Of sound in one page, at most, unless told otherwise: in base64 64 MiB, which browsers still open at once."""
EMBEDDED_PAIRS: Final = 60
"""Pairs whose sound is embedded, at most, unless told otherwise."""
AS_IT_CAME_BYTES: Final = 16 * 2**20
"""An Ogg or MP3 original of more than this is made anew, and shorter, before it is embedded."""
LONGEST_SOUND: Final = 600.0
"""Seconds of a track that a listening copy holds."""
THUMBNAILS_ALONE: Final = 60
"""Pictures without a partner that are shown; the others are named."""
_AT_ONCE: Final = 4
_OPUS_BYTES_A_SECOND: Final = 13_000
_AS_IT_CAME: Final = {"OGG": ("audio/ogg", "ogg"), "MP3": ("audio/mpeg", "mp3")}


class Listening(Protocol):
    """Makes listening copies; `workers.media.pool.DecoderPool` does."""

    async def listening_copy(self, original: bytes, seconds: float) -> bytes:
        """The first `seconds` of a track as Ogg/Opus."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One of five parts and what it makes people feel."""

    name: str
    caption: str
    rgb: tuple[float, float, float]
    valence: float
    arousal: float
    feeling: str


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour of a picture's palette with its share of the picture."""

    name: str
    rgb: tuple[int, int, int]
    share: float


@dataclass(frozen=True, slots=True)
class Sound:
    """Something to listen to: its address (data URI or a file beside the page), or why there is none."""

    address: str | None
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a pair, whole."""

    side: SideView
    catalogue: Catalogue
    media: MediaFacts | None
    parts: tuple[Part, ...]
    """Fragments 1-4, then the whole; none where the item was withdrawn just now."""
    palette: tuple[Colour, ...]
    carried: tuple[str, ...]
    """Words and measurements that carried the feeling of the whole most."""


@dataclass(slots=True)
class Composed:
    """One composer's piece for a picture."""

    record: MusicRecord
    sound: Sound | None = None


@dataclass(slots=True)
class Hanging:
    """A pair on the wall with everything that is shown of it."""

    number: int
    pair: PairView
    artwork: Half
    track: Half
    picture: Shown | None = None
    thumbnail: Shown | None = None
    track_sound: Sound | None = None
    composed: list[Composed] = field(default_factory=list)
    """A piece of each composer that made one for this picture, by the composers' names."""


@dataclass(slots=True)
class Gathered:
    """Everything on the page."""

    wall: WallView
    audio: Audio
    hanging: list[Hanging] = field(default_factory=list)
    thumbnails: dict[str, Shown] = field(default_factory=dict)
    """Of pictures without a partner, by id."""
    files: list[str] = field(default_factory=list)
    """Names of the files beside the page."""

    @property
    def pieces(self) -> int:
        """Pieces that were composed for the pictures shown."""
        return sum(len(each.composed) for each in self.hanging)


async def gather(
    records: Records,
    exhibition: str,
    pool: Listening,
    *,
    audio: Audio | None = None,
    beside: Callable[[str, bytes], str],
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Gathered:
    """Read all that the page shows.

    Args:
        exhibition: its name.
        pool: makes listening copies of what browsers do not play, or of what is large.
        audio: None: embedded where that stays small enough to open at once, in files beside the page otherwise.
        beside: writes a file beside the page (name, content) and returns the address that the page calls it by.
        step: told how many items of how many are done.

    Raises:
        Refused: there is no such exhibition.
        Passing: the store does not answer.
    """
    wall = await wall_view(records, exhibition)
    pairs = wall.pairs.pairs
    total = 2 * len(pairs)
    halves: dict[str, Half] = {}
    pieces: dict[str, list[MusicRecord]] = {}
    done = 0
    turns = asyncio.Semaphore(_AT_ONCE)

    def count(steps: int = 1) -> None:
        nonlocal done
        done += steps
        step(done, total)

    async def read(pair: PairView) -> None:
        async with turns:
            for side in (pair.artwork, pair.track):
                halves[side.id] = await _half(records, side)
            pieces[pair.artwork.id] = await _pieces(records, pair)
        count()

    await asyncio.gather(*(read(pair) for pair in pairs))
    if audio is None:
        size = sum(
            _expected_bytes(halves[pair.track.id].media)
            + sum(piece.sizes.get("ogg", 0) for piece in pieces[pair.artwork.id])
            for pair in pairs
        )
        audio = "embed" if len(pairs) <= EMBEDDED_PAIRS and size <= EMBEDDED_BYTES else "beside"
    found = Gathered(wall, audio)
    found.hanging = [
        Hanging(
            place,
            pair,
            halves[pair.artwork.id],
            halves[pair.track.id],
            composed=[Composed(piece) for piece in pieces[pair.artwork.id]],
        )
        for place, pair in enumerate(pairs, 1)
    ]
    side, quality = size_for(len(pairs))

    def kept(name: str, suffix: str, media_type: str, content: bytes) -> str:
        if audio == "embed":
            return uri_of(content, media_type)
        found.files.append(f"{name}.{suffix}")
        return beside(f"{name}.{suffix}", content)

    async def dress(each: Hanging) -> None:
        async with turns:
            each.picture, each.thumbnail = await _pictures(records, each.artwork.side.id, side, quality)
            if audio != "none":
                each.track_sound = await _track_sound(records, each.track, pool, kept)
                for composed in each.composed:
                    composed.sound = await _piece_sound(records, composed.record, kept)
        count()

    await asyncio.gather(*(dress(each) for each in found.hanging))
    alone = [side for side in wall.alone if split_item_id(side.id)[0] is Kind.ARTWORK][:THUMBNAILS_ALONE]

    async def miniature(one: SideView) -> None:
        async with turns:
            _, small = await _pictures(records, one.id, None, quality)
        if small is not None:
            found.thumbnails[one.id] = small

    await asyncio.gather(*(miniature(one) for one in alone))
    return found


async def _half(records: Records, side: SideView) -> Half:
    state = await records.state(side.id)
    kind = split_item_id(side.id)[0]
    if not state.alive or state.latest is None:
        return Half(side, Catalogue(), None, (), (), ())
    revision = await records.revision(side.id, state.latest)
    said = await records.newest_result(state, Stage.CAPTION)
    score = await records.newest_result(state, Stage.SCORE)
    captions = said.body if said is not None and isinstance(said.body, CaptionBody) else None
    scored = score.body if score is not None and isinstance(score.body, ScoreBody) else None
    parts: tuple[Part, ...] = ()
    carried: tuple[str, ...] = ()
    if scored is not None:
        parts = tuple(
            Part(
                name=name,
                caption=captions.texts[place] if captions is not None else "",
                rgb=scored.rgb[place],
                valence=scored.va[place][0],
                arousal=scored.va[place][1],
                feeling=feeling_words(scored.rgb[place], scored.va[place]),
            )
            for place, name in enumerate(parts_of(kind))
        )
        names = (str(each.get("what", "")) for each in scored.evidence[WHOLE][:6])
        carried = tuple(dict.fromkeys(name for name in names if name))
    palette = _palette(captions.measurements[WHOLE]) if captions is not None and kind is Kind.ARTWORK else ()
    return Half(side, revision.catalogue, revision.media, parts, palette, carried)


def _palette(measured: Mapping[str, Any]) -> tuple[Colour, ...]:
    """The palette of a picture's measurements; entries that do not read are passed over."""
    entries: Iterable[Any] = measured.get("palette") or ()
    colours = []
    for entry in entries:
        try:
            red, green, blue = (min(255, max(0, round(float(value)))) for value in entry["rgb"])
            colours.append(Colour(str(entry.get("name", "")), (red, green, blue), max(0.0, float(entry["share"]))))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return tuple(colours)


async def _pieces(records: Records, pair: PairView) -> list[MusicRecord]:
    """Each composer's newest piece for a picture, before others one that was composed beside the present track."""
    found: dict[str, MusicRecord] = {}
    for piece in await records.pieces(pair.artwork.id):
        held = found.get(piece.composer)
        if held is None or (held.track != pair.track.id == piece.track):
            found[piece.composer] = piece
    return [found[name] for name in sorted(found)]


async def _pictures(records: Records, item: str, side: int | None, quality: int) -> tuple[Shown | None, Shown | None]:
    """The large picture (where a side is given) and the small one; None where the picture is not there."""
    state = await records.state(item)
    if not state.alive or state.latest is None:
        return None, None
    key = rendition_key(item, state.latest[0], RENDITION_NAMES[Kind.ARTWORK])
    try:
        rendition = await records.objects.get(key)
        large = None if side is None else await asyncio.to_thread(scaled, rendition, side, quality)
        return large, await asyncio.to_thread(scaled, rendition, THUMBNAIL_SIDE, 70)
    except (NotFound, OSError):
        return None, None


def _expected_bytes(media: MediaFacts | None) -> int:
    """Bytes that a track will take in the page, about."""
    if media is None:
        return 0
    if _as_it_came(media):
        return media.byte_count
    return round(min(media.seconds or 0.0, LONGEST_SOUND) * _OPUS_BYTES_A_SECOND)


def _as_it_came(media: MediaFacts) -> bool:
    return media.format in _AS_IT_CAME and media.byte_count <= AS_IT_CAME_BYTES


Keep = Callable[[str, str, str, bytes], str]


async def _track_sound(records: Records, half: Half, pool: Listening, keep: Keep) -> Sound:
    state = await records.state(half.side.id)
    if half.media is None or not state.alive or state.latest is None:
        return Sound(None, 0.0, "This track was taken down while the page was written.")
    seconds = half.media.seconds or 0.0
    name = f"track-{split_item_id(half.side.id)[1][:20]}"
    try:
        original = await records.objects.get(media_key(half.side.id, state.latest[0]))
        if _as_it_came(half.media):
            media_type, suffix = _AS_IT_CAME[half.media.format]
            return Sound(await asyncio.to_thread(keep, name, suffix, media_type, original), seconds)
        copy = await pool.listening_copy(original, LONGEST_SOUND)
    except NotFound:
        return Sound(None, seconds, "The sound of this track is not there any more.")
    except Lasting as failure:
        return Sound(None, seconds, f"This track cannot be played here: {failure.reason}")
    note = "The first ten minutes." if seconds > LONGEST_SOUND else ""
    address = await asyncio.to_thread(keep, name, "ogg", "audio/ogg", copy)
    return Sound(address, min(seconds, LONGEST_SOUND), note)


async def _piece_sound(records: Records, piece: MusicRecord, keep: Keep) -> Sound:
    try:
        content = await records.objects.get(piece_key(piece.artwork, piece.generation, piece.piece, "piece.ogg"))
    except NotFound:
        return Sound(None, piece.seconds, "The sound of this piece is not there any more.")
    address = await asyncio.to_thread(keep, f"piece-{piece.piece}", "ogg", "audio/ogg", content)
    return Sound(address, piece.seconds)
