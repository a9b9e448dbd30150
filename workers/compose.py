"""Music for a picture: what is asked, its composing into a spool, and what is kept of it.

Used twice: by the compose stage for pieces that are wanted in the background, and by the web process for a person
who waits. A piece is named by its question (picture, its revision and results, seconds, seed, wishes, composer and
its version), and a composer answers the same question with the same samples; so whoever is first writes the record,
and whoever comes later finds it. The record is written last: a piece that has one is complete. When to ask, what to
announce, and how trouble is met, is left to the callers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from schemas.failures import Lasting, Passing, Refused
from schemas.media import WHOLE, Kind, MediaFacts, digest_of, item_id, split_item_id
from schemas.records import (
    DEFAULT_SECONDS,
    EDGE_COMPOSER,
    EVERY_COMPOSER,
    HIGHEST_SEED,
    LONGEST_PIECE,
    SHORTEST_PIECE,
    CaptionBody,
    Catalogue,
    ExhibitionSettings,
    MusicFeelings,
    MusicRecord,
    MusicSimilarity,
    Provenance,
    Result,
    Revision,
    ScoreBody,
    Stage,
    Wish,
    inputs_digest,
    now,
)
from schemas.spaces import Space
from workers import caption, embed, score
from workers.contract import Array, Job, Outcome, StageWork, Tools
from workers.feelings import feeling_words
from workers.index import vectors_of
from workers.models import Models, unpack
from workers.pair import Log, read_state
from workers.pairing.similarity import UNITS, Measure, Units, measure_for
from workers.spool import Spool

log = logging.getLogger(__name__)

STALL_SECONDS: Final = 20.0
"""A living composer that says nothing for so long while a person waits is given up."""
BACKGROUND_STALL_SECONDS: Final = 1800.0
"""Background pieces wait for live ones, of which several may follow each other."""

_DECLARED_SECONDS: Final = 5.0
"""How long a composer's word about its version holds."""
_CHECK_SECONDS: Final = 2.0
"""How often a running composition asks whether its picture was taken down: rare enough to cost nothing."""
_PATIENCE_SECONDS: Final = 60.0
"""How long a finished piece waits for the models that listen to it; then it is kept without its feelings."""
_BACKDROP_SECONDS: Final = 600.0
_BACKDROP_ITEMS: Final = 100
"""Items of each kind that chance is taken from: their 10,000 pairs tell a percentile to about 1%."""
_MOST_WISHES: Final = 10


class NoComposer(Refused):
    """The profile serves no composer."""


class NoSuchComposer(Refused):
    """The profile serves composers, but none of that name."""


class Unknown(Refused):
    """There is no such picture, or it is not understood yet."""


class Gone(Exception):
    """The picture was withdrawn, or the piece was deleted, while it was made; `why` says which."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the {why}")
        self.why = why


class Shelf(Log, Protocol):
    """Where pieces are kept and pictures are known, as `infra.records.Records` implements it."""

    async def understood(self, item: str) -> tuple[Revision, dict[Stage, Result]] | None:
        """A living item's latest revision with the newest results of the item stages; None: withdrawn or unknown."""
        ...

    async def withdrawn(self, item: str, generation: int) -> bool:
        """True when this generation of an item was taken down."""
        ...

    async def piece_names(self, artwork: str, generation: int, piece: str) -> set[str]:
        """What lies in a piece's folder."""
        ...

    async def piece(self, artwork: str, generation: int, piece: str) -> MusicRecord | None:
        """A complete piece."""
        ...

    async def put_sound(
        self, artwork: str, generation: int, piece: str, name: str, descriptor: int, size: int
    ) -> None:
        """Keep `piece.wav` or `piece.ogg`."""
        ...

    async def write_piece(self, record: MusicRecord) -> tuple[str, bool]:
        """Complete a piece, first-wins; its key, and True when this call did."""
        ...

    async def delete_piece(self, artwork: str, generation: int, piece: str, *, mark: bool = True) -> None:
        """Remove a piece."""
        ...

    async def exhibitions(self) -> list[ExhibitionSettings]:
        """All exhibitions."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the composer, by which a piece is named."""

    revision: Revision
    said: CaptionBody
    score: ScoreBody
    vectors: Mapping[str, Array]
    seconds: float
    seed: int
    wishes: Mapping[str, Wish]
    composer: str
    model: str
    """The composer's."""
    piece: str
    version: str = ""
    """The composer's, as it was asked; empty: the profile's."""

    @property
    def artwork(self) -> str:
        """The picture's id."""
        return self.revision.item

    @property
    def generation(self) -> int:
        """The picture's."""
        return self.revision.generation

    @property
    def title(self) -> str:
        """What the piece is called."""
        return f"Music for {self.revision.catalogue.title or 'an untitled picture'}"

    @property
    def tags(self) -> dict[str, str]:
        """For the sound files; see `workers.spool.wav_header`."""
        by = self.revision.catalogue.artist
        comment = f"for the picture {self.artwork}{f' by {by}' if by else ''}; seed {self.seed}; "
        comment += f"composer {self.composer}; piece {self.piece}"
        return {"INAM": self.title, "IART": "Promenade", "ICMT": comment, "ISFT": "Promenade"}


@dataclass(frozen=True, slots=True)
class Made:
    """A piece in its spool: the composer's report and how long it took, in seconds."""

    report: dict[str, Any]
    first_chunk_seconds: float
    compose_seconds: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture hangs: the exhibition and the track beside it; None for a picture that hangs nowhere."""

    exhibition: str | None = None
    track: str | None = None


@dataclass(slots=True)
class _Backdrop:
    """Vectors of an exhibition's items, by kind, and MMVA's sigma: what chance is taken from."""

    vectors: dict[Kind, dict[str, Mapping[str, Array]]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    sigma: float | None = None
    since: float = 0.0


def checked_wishes(wishes: Mapping[str, Any]) -> dict[str, Wish]:
    """Wishes as a record keeps them; which of them the composer knows is left to the composer.

    Raises:
        Refused: too many, too long, or neither words nor numbers.
    """
    if len(wishes) > _MOST_WISHES:
        raise Refused(f"{len(wishes)} wishes are too many; give at most {_MOST_WISHES}.")
    found: dict[str, Wish] = {}
    for name, value in wishes.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
        if not 0 < len(name) <= 40 or not (number or (isinstance(value, str) and len(value) <= 200)):
            raise Refused(f"the wish {name[:40]!r} is neither a short text nor a number, for example tempo=96.")
        found[name] = value if isinstance(value, str) else float(value)
    return found


class Studio:
    """Composes pieces and keeps them.

    Args:
        shelf: the record.
        tools: the model server and the profile.
        folder: where spools lie while pieces are made.
    """

    def __init__(self, shelf: Shelf, tools: Tools, folder: Path) -> None:
        self._shelf = shelf
        self._tools = tools
        self._models = Models(tools.inference, tools.profile)
        self._folder = folder
        self._backdrops: dict[str, _Backdrop] = {}
        self._declared: dict[str, tuple[float, str]] = {}
        """Model -> when it declared its version, and which."""

    @property
    def composers(self) -> dict[str, str]:
        """Composer -> its version, the default one first; none where the profile serves none."""
        profile = self._tools.profile
        return {name: profile.version(model) for name, model in profile.served_composers().items()}

    def composer(self, name: str | None = None) -> str:
        """The composer of that name; None: the default one.

        Raises:
            NoComposer: the profile serves none.
            NoSuchComposer: none of that name.
        """
        known = self.composers
        if not known:
            raise NoComposer(
                f"no music can be composed: the profile {self._tools.profile.name!r} serves no composer."
            )
        if name is None:
            return next(iter(known))
        if name not in known:
            raise NoSuchComposer(f"there is no composer {name[:40]!r} here; there are {', '.join(known)}.")
        return name

    def composers_for(self, settings: ExhibitionSettings) -> list[str]:
        """Who composes for a wall.

        Raises:
            NoComposer, NoSuchComposer: as `composer`.
        """
        if settings.composer == EVERY_COMPOSER:
            return list(self.composers)
        return [self.composer(settings.composer)]

    async def version(self, composer: str) -> str:
        """What a composer composes as: the version that it declares, where its profile says that it does.

        While the model server is away, what it declared last; then what the profile says.
        """
        profile = self._tools.profile
        model = profile.composers[composer]
        entry = profile.models[model]
        if not entry.declares:
            return entry.version
        held = self._declared.get(model)
        if held is None or time.monotonic() - held[0] > _DECLARED_SECONDS:
            try:
                held = self._declared[model] = time.monotonic(), await self._models.declared(model)
            except (Passing, Lasting) as trouble:
                log.info("compose: %s does not declare its version: %s", model, trouble)
        return entry.version if held is None else held[1]

    # -- asking --------------------------------------------------------------------------------------------

    async def question(
        self,
        artwork: str,
        seconds: float = DEFAULT_SECONDS,
        seed: int = 0,
        wishes: Mapping[str, Any] | None = None,
        composer: str | None = None,
    ) -> Question:
        """The question about a picture as it is known now, to a composer (None: the profile's first one).

        Raises:
            NoComposer: the profile serves none.
            Refused: no such picture, not understood yet, no such composer, or asked for what cannot be.
        """
        who = self.composer(composer)
        try:
            kind, digest = split_item_id(artwork)
        except ValueError as error:
            raise Unknown(f"{error}; `promenade pairs --json` lists ids.") from None
        if kind is not Kind.ARTWORK:
            raise Refused("music is composed for pictures; this is the id of a track.")
        if not SHORTEST_PIECE <= seconds <= LONGEST_PIECE:
            raise Refused(f"a piece lasts {SHORTEST_PIECE:g} to {LONGEST_PIECE:g} seconds, not {seconds:g}.")
        if not 0 <= seed <= HIGHEST_SEED:
            raise Refused(f"a seed is a whole number from 0 to {HIGHEST_SEED}, not {seed}.")
        known = await self._shelf.understood(artwork)
        if known is None:
            raise Unknown(f"{artwork} is not here; `promenade status` shows what is there.")
        revision, results = known
        if not {Stage.CAPTION, Stage.SCORE, Stage.EMBED} <= set(results):
            raise Unknown(f"{artwork} is not understood yet; `promenade show` tells how far it is.")
        said, scored = results[Stage.CAPTION].body, results[Stage.SCORE].body
        assert isinstance(said, CaptionBody) and isinstance(scored, ScoreBody)
        wanted = checked_wishes(wishes or {})
        version = await self.version(who)
        asked = {
            "artwork": artwork,
            "version": [revision.generation, revision.revision],
            "inputs": [results[Stage.CAPTION].digest, results[Stage.SCORE].digest],
            "seconds": round(float(seconds), 3),
            "seed": seed,
            "wishes": wanted,
            # The first composer's pieces were named before there were others, and keep their names.
            "composer": [self._tools.profile.name, version, *([] if who == EDGE_COMPOSER else [who])],
        }
        return Question(
            revision=revision,
            said=said,
            score=scored,
            vectors=vectors_of(Kind.ARTWORK, results, self._tools.profile),
            composer=who,
            model=self._tools.profile.composers[who],
            seconds=round(float(seconds), 3),
            seed=seed,
            wishes=wanted,
            piece=digest[:8] + inputs_digest(asked)[:12],
            version=version,
        )

    async def place_of(self, artwork: str, exhibition: str | None = None) -> Place:
        """Where a picture hangs: in this exhibition, or in the first one by name that shows it."""
        for settings in await self._shelf.exhibitions():
            if exhibition is not None and settings.name != exhibition:
                continue
            for left, track in (await read_state(self._shelf, settings.home)).hung:
                if left == artwork:
                    return Place(settings.name, track)
        return Place(exhibition)

    def spool(self, question: Question) -> Spool:
        """An empty spool for a piece; close it."""
        return Spool(self._folder, question.seconds, question.tags)

    # -- composing -----------------------------------------------------------------------------------------

    async def check(self, question: Question) -> None:
        """Whether the piece is still wanted.

        Raises:
            Gone: it is not.
        """
        if await self._shelf.withdrawn(question.artwork, question.generation):
            raise Gone("picture was withdrawn")
        if "deleted.json" in await self._shelf.piece_names(question.artwork, question.generation, question.piece):
            raise Gone("piece was deleted")

    async def compose(self, question: Question, spool: Spool, *, live: bool) -> Made:
        """Have the piece made into the spool, and end the spool.

        Raises:
            Gone: it is not wanted any more.
            Passing, Lasting: see `Models.compose`; the spool is then left as it is.
        """
        begun = looked = time.monotonic()
        first: float | None = None
        report: dict[str, Any] | None = None
        chunks = self._models.compose(
            question.model,
            question.score,
            question.said,
            self._shown(question),
            seconds=question.seconds,
            seed=question.seed,
            wishes=question.wishes,
            live=live,
            stall_seconds=STALL_SECONDS if live else BACKGROUND_STALL_SECONDS,
        )
        quiet_since = begun
        try:
            async for chunk in chunks:
                if len(chunk.samples):
                    spool.write(chunk.samples)
                    first = time.monotonic() - begun if first is None else first
                if chunk.alive:
                    quiet_since = time.monotonic()
                elif live and time.monotonic() - quiet_since > STALL_SECONDS:
                    raise Passing("model server", f"the composer was silent for {STALL_SECONDS:.0f} s")
                report = chunk.report if chunk.report is not None else report
                if time.monotonic() - looked > _CHECK_SECONDS:
                    looked = time.monotonic()
                    try:
                        await self.check(question)
                    except Passing:
                        # A store that is away for a moment stops no music; it is asked again before anything is kept.
                        log.info("compose: the store is away while %s is made", question.piece)
        finally:
            await chunks.aclose()
        if first is None or report is None:
            raise Lasting("the composer answered without any sound.", "See the model server's log.")
        said = str(report.get("version", ""))
        if self._tools.profile.models[question.model].declares and said != question.version:
            # It would be kept under the name of another piece; who asks anew asks for this one.
            self._declared.pop(question.model, None)
            raise Lasting(
                f"the composer was asked as version {question.version} and composed as {said}: the settings of the "
                "model server changed.",
                "Ask again.",
            )
        spool.finish()
        return Made(report, first, time.monotonic() - begun)

    def _shown(self, question: Question) -> Array:
        """The picture's vector as composers are handed it.

        Raises:
            Lasting: the picture has none in that space.
        """
        space = self._tools.profile.composer_space
        if space is None:
            return unpack(question.said.tag_vector)
        if space not in question.vectors:
            raise Lasting(
                f"the picture has no vector in {space}, which composers are handed.",
                "It was embedded under another profile; reconcile embeds it again.",
            )
        return question.vectors[space]

    # -- keeping -------------------------------------------------------------------------------------------

    async def keep(
        self,
        question: Question,
        spool: Spool,
        made: Made,
        *,
        asked: str,
        place: Place,
        queue_seconds: float | None = None,
    ) -> tuple[MusicRecord, str]:
        """Keep a finished piece: sound first, record last.

        Returns:
            The record as it stands (somebody else's, where that was first), and its key.

        Raises:
            Gone: it is not wanted any more; what was written of it is for the caller to undo.
            Passing: the store is away.
        """
        started = time.monotonic()
        rendition = await asyncio.to_thread(spool.to_rendition)
        feelings, similarities = await self._listened(question, rendition, place)
        ogg = await asyncio.to_thread(spool.to_ogg, self._folder)
        try:
            ogg_size = os.fstat(ogg.fileno()).st_size
            await self.check(question)
            where = (question.artwork, question.generation, question.piece)
            await self._shelf.put_sound(*where, "piece.wav", spool.descriptor, spool.size)
            await self._shelf.put_sound(*where, "piece.ogg", ogg.fileno(), ogg_size)
        finally:
            ogg.close()
        profile = self._tools.profile
        listeners = {
            name: profile.version(name)
            for stage in _LISTENING
            for name in stage.models(Kind.TRACK, profile)
            if feelings is not None
        }
        record = MusicRecord.model_validate(
            {
                "piece": question.piece,
                "artwork": question.artwork,
                "generation": question.generation,
                "revision": question.revision.revision,
                "exhibition": place.exhibition,
                "track": place.track,
                "title": question.title,
                "seconds": round(spool.seconds, 4),
                "asked_seconds": question.seconds,
                "seed": question.seed,
                "wishes": dict(question.wishes),
                "composer": question.composer,
                "asked": asked,
                "report": made.report,
                "sizes": {"wav": spool.size, "ogg": ogg_size},
                "queue_seconds": None if queue_seconds is None else round(max(0.0, queue_seconds), 3),
                "first_chunk_seconds": round(made.first_chunk_seconds, 4),
                "compose_seconds": round(made.compose_seconds, 4),
                "real_time_factor": round(made.compose_seconds / max(spool.seconds, 1e-3), 5),
                "provenance": Provenance(
                    models={question.model: question.version or profile.version(question.model), **listeners},
                    profile=profile.name,
                    made=now(),
                    seconds=round(made.compose_seconds + time.monotonic() - started, 4),
                ),
                "feelings": feelings,
                "similarities": similarities,
                "listening_space": profile.listening_space() if similarities else None,
            }
        )
        key, written = await self._shelf.write_piece(record)
        await self.check(question)
        if not written:
            record = await self._shelf.piece(*where) or record
        return record, key

    async def _listened(
        self, question: Question, rendition: bytes, place: Place
    ) -> tuple[MusicFeelings | None, tuple[MusicSimilarity, ...]]:
        """What the piece feels like and what it is like; nothing where the models refuse it or stay away."""
        until, wait = time.monotonic() + _PATIENCE_SECONDS, 0.5
        while True:
            try:
                feelings, vectors = await hear(rendition, self._tools)
                return feelings, await self._similarities(question, vectors, place)
            except Lasting as failure:
                log.warning("compose: %s is kept without its feelings: %s", question.piece, failure)
                return None, ()
            except Passing as trouble:
                if time.monotonic() + wait > until:
                    log.warning("compose: %s is kept without its feelings: %s", question.piece, trouble)
                    return None, ()
                await asyncio.sleep(wait)
                wait = min(2 * wait, 5.0)

    async def _similarities(
        self, question: Question, vectors: Mapping[str, Array], place: Place
    ) -> tuple[MusicSimilarity, ...]:
        backdrop = await self._backdrop(place.exhibition)
        partner = None if place.track is None else await self._vectors(place.track)
        spaces = self._tools.profile.all_spaces()
        pictures, tracks = backdrop.vectors[Kind.ARTWORK], backdrop.vectors[Kind.TRACK]

        def work() -> tuple[MusicSimilarity, ...]:
            found = beside_chance("picture", question.vectors, vectors, pictures, tracks, spaces, backdrop.sigma)
            if partner is not None:
                found += beside_chance("track", partner, vectors, tracks, tracks, spaces, backdrop.sigma)
            return tuple(found)

        return await asyncio.to_thread(work)

    async def _vectors(self, item: str) -> Mapping[str, Array] | None:
        known = await self._shelf.understood(item)
        if known is None or not {Stage.CAPTION, Stage.SCORE, Stage.EMBED} <= set(known[1]):
            return None
        return vectors_of(known[0].kind, known[1], self._tools.profile)

    async def _backdrop(self, exhibition: str | None) -> _Backdrop:
        """The vectors of an exhibition's items (of so many a sample), read anew every ten minutes."""
        settings = [each for each in await self._shelf.exhibitions() if each.name == exhibition]
        if not settings:
            return _Backdrop()
        held = self._backdrops.get(settings[0].home)
        if held is not None and time.monotonic() - held.since < _BACKDROP_SECONDS:
            return held
        pairing = await read_state(self._shelf, settings[0].home)
        found = _Backdrop(since=time.monotonic())
        if pairing.basis is not None:
            found.sigma = pairing.basis.constants.sigma
        for kind in Kind:
            members = sorted(item for item in pairing.members if split_item_id(item)[0] is kind)
            chosen = random.Random(0).sample(members, min(len(members), _BACKDROP_ITEMS))
            for start in range(0, len(chosen), 16):
                part = chosen[start : start + 16]
                for item, known in zip(part, await asyncio.gather(*map(self._vectors, part)), strict=True):
                    if known is not None:
                        found.vectors[kind][item] = known
        self._backdrops = {
            name: each for name, each in self._backdrops.items() if time.monotonic() - each.since < _BACKDROP_SECONDS
        } | {settings[0].home: found}
        return found


# -- listening to a piece ----------------------------------------------------------------------------------

_LISTENING: Final[tuple[StageWork, ...]] = (caption.STAGE, score.STAGE, embed.STAGE)


async def hear(rendition: bytes, tools: Tools) -> tuple[MusicFeelings, dict[str, Array]]:
    """A piece as the stages hear a track that nobody said anything about.

    Args:
        rendition: mono 16 kHz FLAC.

    Returns:
        Its feelings, and its vectors by space.

    Raises:
        Lasting, Passing: as the stages.
    """
    revision = Revision(
        item=item_id(Kind.TRACK, digest_of(rendition)),
        kind=Kind.TRACK,
        generation=0,
        revision=1,
        sequence=0,
        media=MediaFacts(format="FLAC", byte_count=len(rendition)),
        catalogue=Catalogue(),
        made=now(),
    )

    async def load() -> bytes:
        return rendition

    results: dict[Stage, Result] = {}
    for stage in _LISTENING:
        needs = {need: results[need] for need in stage.needs}
        outcome: Outcome = (await stage.work([Job(revision, needs, load)], tools))[0]
        if isinstance(outcome, Lasting):
            raise outcome
        results[stage.stage] = Result(
            item=revision.item,
            generation=0,
            revision=1,
            digest="0" * 32,
            provenance=Provenance(models={}, profile=tools.profile.name, made=revision.made, seconds=0),
            body=outcome,
        )
    body = results[Stage.SCORE].body
    assert isinstance(body, ScoreBody)
    feelings = MusicFeelings(
        rgb=body.rgb[WHOLE],
        va=body.va[WHOLE],
        words=feeling_words(body.rgb[WHOLE], body.va[WHOLE]),
        rgb_parts=body.rgb,
        va_parts=body.va,
    )
    return feelings, vectors_of(Kind.TRACK, results, tools.profile)


def beside_chance(
    to: str,
    other: Mapping[str, Array],
    piece: Mapping[str, Array],
    left: Mapping[str, Mapping[str, Array]],
    right: Mapping[str, Mapping[str, Array]],
    spaces: Sequence[Space],
    sigma: float | None = None,
) -> list[MusicSimilarity]:
    """How near a piece is to its picture or to a track in every space that both have, beside chance.

    Args:
        to: "picture" or "track".
        other: vectors of the picture or the track, by space.
        piece: vectors of the piece.
        left, right: item -> vectors, of the exhibition's pictures (or tracks) and tracks; chance is the mean over
            their pairs, each item with every other one.
        spaces: to look in.
        sigma: of MMVA's similarity; None: its usual value.
    """
    found = []
    for space in spaces:
        if space.name not in piece or space.name not in other or piece[space.name].shape != other[space.name].shape:
            continue
        measure = measure_for(space.distance, sigma) if space.distance == "euclidean" else measure_for(space.distance)
        try:
            one, two = (measure.prepare(np.asarray([each[space.name]])) for each in (other, piece))
        except ValueError:
            # A vector that is not finite is compared with nothing.
            continue
        units = int(measure.paired(one, two)[0])
        every = _pairs_of(left, right, space, measure, piece[space.name].shape)
        chance = percentile = None
        if len(every) > 1:
            chance = round(float(every.mean()) / UNITS, 6)
            percentile = round(float((every < units).mean() + (every == units).mean() / 2) * 100, 1)
        found.append(
            MusicSimilarity.model_validate(
                {
                    "to": to,
                    "space": space.name,
                    "similarity": round(units / UNITS, 6),
                    "chance": chance,
                    "percentile": percentile,
                }
            )
        )
    return found


def _pairs_of(
    left: Mapping[str, Mapping[str, Array]],
    right: Mapping[str, Mapping[str, Array]],
    space: Space,
    measure: Measure,
    shape: tuple[int, ...],
) -> Units:
    """Similarities of all pairs of different items, in units."""
    sides = [
        {item: each[space.name] for item, each in side.items() if each.get(space.name, _NOTHING).shape == shape}
        for side in (left, right)
    ]
    if not sides[0] or not sides[1]:
        return np.zeros(0, np.int64)
    one, two = (measure.prepare(np.asarray(list(side.values()))) for side in sides)
    different = np.asarray([[a != b for b in sides[1]] for a in sides[0]])
    units: Units = measure.matrix(one, two)[different]
    return units


_NOTHING: Final = np.zeros(0, np.float32)
