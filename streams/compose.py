"""Music in the background: what the walls want is asked for, and what was asked for is composed, one after another.

A wish becomes a `MusicRequest` in the record before it is announced, named by its question; so a wish that is
announced twice is one piece, and one whose announcement was lost is announced again by reconcile. The work itself is
`workers.compose`'s; a person who waits is served by the web process, and the composer lets that one go first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from infra.broker import describe
from infra.metrics import (
    MUSIC_FIRST_SECONDS,
    MUSIC_PIECES,
    MUSIC_QUEUE_SECONDS,
    MUSIC_REAL_TIME,
    STAGE_EVENTS,
    STAGE_FAILURES,
)
from infra.objects import NotFound
from infra.records import Records, compose_letter, dead_key, piece_key
from schemas.events import DeadLettered, Event, MusicComposed, MusicRequested, decode, new_trace
from schemas.failures import Declined, Lasting, Refused
from schemas.records import (
    DEFAULT_SECONDS,
    DeadLetter,
    ExhibitionSettings,
    MusicRecord,
    MusicRequest,
    PairChange,
    PairingRevision,
    Stage,
    now,
)
from streams.items import Publish, unreadable
from streams.runner import Delivery
from workers.compose import Gone, NoComposer, NoSuchComposer, Place, Question, Studio
from workers.contract import Tools
from workers.models import Models

log = logging.getLogger(__name__)

STAGE: Final = Stage.COMPOSE.value
BACKGROUND: Final = "background"
TRIES: Final = 3
"""How often a composer that fails is asked for one piece, before the piece is set aside."""

AskMusic = Callable[[ExhibitionSettings, Mapping[str, str], str], Awaitable[list[Event]]]
"""(exhibition, picture -> track that hang side by side, trace) -> events to publish."""


def newly_hung(revisions: Sequence[PairingRevision]) -> dict[str, str]:
    """Pictures that came to hang, or changed while they hung, with their tracks."""
    found: dict[str, str] = {}
    for revision in revisions:
        changes: tuple[PairChange, ...] = revision.changes if revision.hung is None else revision.hung
        for change in changes:
            if change.what != "parted":
                found[change.artwork] = change.track
            elif found.get(change.artwork) == change.track:
                del found[change.artwork]
    return found


class Asker:
    """Writes down and announces what is wanted.

    Args:
        records: the truth.
        studio: knows how a question is named.
        seconds: that walls want a piece to last.
    """

    def __init__(self, records: Records, studio: Studio, seconds: float = DEFAULT_SECONDS) -> None:
        self._records = records
        self._studio = studio
        self._seconds = seconds

    async def wall(self, settings: ExhibitionSettings, hung: Mapping[str, str], trace: str) -> list[Event]:
        """What an exhibition whose policy is `always` wants for the pictures that hang; see `AskMusic`.

        Pieces that are there, were deleted by a person or are set aside are not asked for.
        """
        if settings.music != "always":
            return []
        try:
            composers = self._studio.composers_for(settings)
        except NoComposer:
            return []
        except NoSuchComposer as reason:
            log.warning("compose: the exhibition %s wants a composer that is not served: %s", settings.name, reason)
            return []
        events: list[Event] = []
        for artwork, track in hung.items():
            events += await self._for_picture(settings, composers, artwork, track, trace)
        return events

    async def _for_picture(
        self, settings: ExhibitionSettings, composers: Sequence[str], artwork: str, track: str, trace: str
    ) -> list[Event]:
        events: list[Event] = []
        for composer in composers:
            try:
                question = await self._studio.question(artwork, self._seconds, composer=composer)
            except Refused as reason:
                # Taken down or not understood at this moment; reconcile looks again.
                log.info("compose: nothing is asked for %s: %s", artwork, reason)
                break
            state = await self._records.state(artwork)
            names = state.music.get((question.generation, question.piece), {})
            letter = (question.generation, question.revision.revision), compose_letter(question.piece)
            if "record.json" in names or "deleted.json" in names or letter in state.dead:
                continue
            event = await self.ask(question, Place(settings.name, track), trace)
            if event is not None:
                events.append(event)
        return events

    async def ask(self, question: Question, place: Place, trace: str) -> MusicRequested | None:
        """Write one wish down; the event that announces it, or None where the picture was withdrawn meanwhile."""
        request = MusicRequest(
            piece=question.piece,
            artwork=question.artwork,
            generation=question.generation,
            revision=question.revision.revision,
            exhibition=place.exhibition,
            track=place.track,
            seconds=question.seconds,
            seed=question.seed,
            wishes=dict(question.wishes),
            composer=question.composer,
            made=now(),
        )
        key, _ = await self._records.write_request(request)
        if await self._records.withdrawn(question.artwork, question.generation):
            await self._records.erase(question.artwork)
            return None
        return MusicRequested(
            trace=trace,
            item=question.artwork,
            generation=question.generation,
            revision=question.revision.revision,
            piece=question.piece,
            composer=question.composer,
            request=key,
        )


class ComposeHandler:
    """What the runner does for the compose stage.

    Args:
        records: the truth.
        studio: composes and keeps.
        tools: for the probe.
        publish: announces events.
        undo: removes what a withdrawn item left.
    """

    def __init__(
        self,
        records: Records,
        studio: Studio,
        tools: Tools,
        publish: Publish,
        undo: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._records = records
        self._studio = studio
        self._models = Models(tools.inference, tools.profile)
        self._publish = publish
        self._undo = undo
        self._asker = Asker(records, studio)
        self._asked: str | None = None
        """The model that was asked last: the one that a probe has to reach."""

    def alone(self, delivery: Delivery) -> bool:
        """Pieces come one at a time anyway."""
        return False

    async def probe(self) -> None:
        """Raise `Passing` until the composer answers again."""
        if self._asked is not None:
            await self._models.answers(self._asked)

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """See `streams.runner.Handler`."""
        for delivery in batch:
            try:
                event = decode(delivery.value, MusicRequested)
            except Lasting as failure:
                await unreadable(self._records, self._publish, STAGE, delivery, failure)
                continue
            assert isinstance(event, MusicRequested)
            delivery.happened = event.happened
            try:
                outcome = await self._one(event)
            except Lasting as failure:
                await self._fail(event, failure)
                continue
            except Gone as gone:
                outcome = await self._take_back(event, gone)
            STAGE_EVENTS.labels(STAGE, outcome).inc()

    async def _one(self, event: MusicRequested) -> str:
        """Compose one piece, unless that is settled; how it ended, as STAGE_EVENTS counts."""
        place = (event.item, event.generation, event.piece)
        if event.request != piece_key(*place, "request.json"):
            raise Lasting("the event names another request than its piece's.", "Ask for the music again.")
        state = await self._records.state(event.item)
        if state.withdrawn(event.generation):
            await self._undo(event.item, event.generation)
            return "dropped"
        names = state.music.get((event.generation, event.piece), {})
        if "record.json" in names:
            kept = await self._records.piece(*place)
            if kept is None:
                return "dropped"
            await self._announce(event, kept, piece_key(*place, "record.json"))
            return "repeated"
        if "request.json" not in names or "deleted.json" in names:
            return "dropped"
        try:
            request = await self._records.request(event.request)
        except NotFound:
            return "dropped"
        if await self._unwanted(request):
            await self._records.delete_piece(*place, mark=False)
            return "dropped"
        try:
            question = await self._studio.question(
                event.item, request.seconds, request.seed, request.wishes, request.composer
            )
        except Refused as reason:
            raise Lasting(str(reason), "`promenade dead-letters retry` asks again.") from None
        if question.piece != event.piece:
            # The picture was understood anew, or there is another composer: the same wish is another question now.
            following = await self._asker.ask(question, Place(request.exhibition, request.track), event.trace)
            await self._publish([] if following is None else [following])
            await self._records.delete_piece(*place, mark=False)
            return "dropped"
        await self._compose(event, request, question)
        settled = dead_key(event.item, (event.generation, event.revision), compose_letter(event.piece))
        if settled in state.keys:
            await self._records.objects.delete([settled])
        return "done"

    async def _unwanted(self, request: MusicRequest) -> bool:
        """The exhibition that wanted it was told `never` since."""
        if request.exhibition is None:
            return False
        settings = await self._records.exhibition(request.exhibition)
        return settings is not None and settings.music == "never"

    async def _compose(self, event: MusicRequested, request: MusicRequest, question: Question) -> None:
        self._asked = question.model
        queued = (now() - request.made).total_seconds()
        MUSIC_QUEUE_SECONDS.labels(BACKGROUND).observe(max(0.0, queued))
        for attempt in range(1, TRIES + 1):
            spool = self._studio.spool(question)
            try:
                made = await self._studio.compose(question, spool, live=False)
                break
            except Lasting as failure:
                spool.close()
                log.warning("compose: %s, try %d of %d: %s", event.piece, attempt, TRIES, failure)
                if attempt == TRIES or isinstance(failure, Declined):
                    raise
            except BaseException:
                spool.close()
                raise
        try:
            place = Place(request.exhibition, request.track)
            record, key = await self._studio.keep(
                question, spool, made, asked=BACKGROUND, place=place, queue_seconds=queued
            )
        finally:
            spool.close()
        MUSIC_FIRST_SECONDS.labels(BACKGROUND).observe(made.first_chunk_seconds)
        MUSIC_REAL_TIME.labels(BACKGROUND).observe(made.compose_seconds / spool.seconds)
        MUSIC_PIECES.labels(BACKGROUND, "kept").inc()
        await self._announce(event, record, key)

    async def _announce(self, event: MusicRequested, record: MusicRecord, key: str) -> None:
        await self._publish([MusicComposed.of(record, key, event.trace)])

    async def _take_back(self, event: MusicRequested, gone: Gone) -> str:
        """Undo what was written of a piece that nobody may keep."""
        log.info("compose: %s ends: %s", event.piece, gone)
        if await self._records.withdrawn(event.item, event.generation):
            MUSIC_PIECES.labels(BACKGROUND, "withdrawn").inc()
            await self._undo(event.item, event.generation)
        else:
            MUSIC_PIECES.labels(BACKGROUND, "cancelled").inc()
            await self._records.delete_piece(event.item, event.generation, event.piece)
        return "dropped"

    async def _fail(self, event: MusicRequested, failure: Lasting) -> None:
        if (await self._records.state(event.item)).withdrawn(event.generation):
            await self._undo(event.item, event.generation)
            return
        letter = DeadLetter(
            item=event.item,
            generation=event.generation,
            revision=event.revision,
            stage=STAGE,
            reason=failure.reason,
            advice=failure.advice,
            reference=event.request,
            event=describe(event),
            made=now(),
        )
        key = await self._records.set_aside(letter, compose_letter(event.piece))
        if await self._records.withdrawn(event.item, event.generation):
            await self._undo(event.item, event.generation)
            return
        STAGE_EVENTS.labels(STAGE, "failed").inc()
        STAGE_FAILURES.labels(STAGE, "lasting").inc()
        MUSIC_PIECES.labels(BACKGROUND, "failed").inc()
        log.warning("compose: %s for %s set aside: %s", event.piece, event.item, failure.reason)
        await self._publish([DeadLettered(trace=event.trace, item=event.item, stage=STAGE, result=key)])

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """See `streams.runner.Handler`."""
        try:
            event = decode(delivery.value, MusicRequested)
        except Lasting:
            await unreadable(self._records, self._publish, STAGE, delivery, failure)
            return
        assert isinstance(event, MusicRequested)
        await self._fail(event, failure)


def requested(request: MusicRequest) -> MusicRequested:
    """The event that announces a request again."""
    return MusicRequested(
        trace=new_trace(),
        item=request.artwork,
        generation=request.generation,
        revision=request.revision,
        piece=request.piece,
        composer=request.composer,
        request=piece_key(request.artwork, request.generation, request.piece, "request.json"),
    )
