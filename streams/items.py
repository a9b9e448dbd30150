"""What the runner does for a stage over items: check, look up, work, write first-wins, check again, announce.

Before: one listing of the item tells whether it was withdrawn, replaced by a newer revision, or answered already.
After: its tombstone tells whether it was withdrawn meanwhile; then what was written is undone. A
result that exists is announced again instead of being computed, so a redelivery, a retry or a replay never makes a
second truth.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from infra.broker import describe
from infra.metrics import STAGE_EVENTS, STAGE_FAILURES
from infra.objects import NotFound
from infra.records import ItemState, Records, result_key
from schemas.events import EVENT_OF_STAGE, DeadLettered, Event, ItemEvent, decode, new_trace
from schemas.failures import Lasting, Passing
from schemas.media import Kind, digest_of
from schemas.records import DeadLetter, Provenance, Result, Revision, Stage, inputs_digest, now
from streams.runner import STRIKES, Delivery
from workers.contract import Job, Outcome, StageWork, Tools
from workers.models import Models

log = logging.getLogger(__name__)

Publish = Callable[[Sequence[Event]], Awaitable[None]]
LoadRendition = Callable[[str, int], Awaitable[bytes]]
AfterWrite = Callable[[Sequence[tuple[Revision, ItemEvent]]], Awaitable[Sequence[Event]]]
Undo = Callable[[str, int], Awaitable[None]]


async def nothing_more(written: Sequence[tuple[Revision, ItemEvent]]) -> Sequence[Event]:
    """Most stages announce only their own event."""
    return ()


@dataclass(slots=True)
class _Ticket:
    """One delivery on its way through a batch."""

    delivery: Delivery
    event: ItemEvent
    state: ItemState
    job: Job | None = None
    digest: str = ""
    key: str = ""
    result: Result | None = None


class ItemHandler:
    """Runs a stage's work over item events.

    Args:
        stage: the work and what it needs.
        records: the truth.
        tools: what the work uses.
        publish: announces events; returns when the broker has them.
        load_rendition: (item, generation) -> the form that models see or hear.
        undo: removes what a withdrawn item left, everywhere this process can reach.
        more: further events to announce with the results of a batch (the index stage tells the exhibitions).
    """

    def __init__(
        self,
        stage: StageWork,
        records: Records,
        tools: Tools,
        publish: Publish,
        load_rendition: LoadRendition,
        undo: Undo,
        more: AfterWrite = nothing_more,
    ) -> None:
        self.stage = stage
        self._records = records
        self._tools = tools
        self._publish = publish
        self._load_rendition = load_rendition
        self._undo = undo
        self._more = more
        self._consumes, self._produces = EVENT_OF_STAGE[stage.stage]
        self._worker = uuid.uuid4().hex[:12]
        self._marks: dict[str, set[str]] = {}
        self._to_clear: set[str] = set()
        """Names of this process's own marks whose tries are over."""
        self._strikes: dict[str, int] = {}

    async def load_marks(self) -> None:
        """Read what earlier workers left in hand when they died; their items are handled alone from now on."""
        for key, (items, _) in (await self._records.open_attempts(self.stage.stage)).items():
            self._marks[key] = set(items)
            for item in items:
                self._strikes[item] = self._strikes.get(item, 0) + (len(items) == 1)

    def alone(self, delivery: Delivery) -> bool:
        """True when the item was in the hands of a worker that died."""
        return delivery.key in self._strikes

    async def probe(self) -> None:
        """Raise `Passing` until every model of this stage answers again.

        A suspect is tried again only then: otherwise the calls made while the model's process is being brought
        back would count as further deaths, and an innocent item would be set aside.
        """
        models = Models(self._tools.inference, self._tools.profile)
        for kind in Kind:
            for capability in self.stage.models(kind, self._tools.profile):
                await models.answers(capability)

    # -- one batch -----------------------------------------------------------------------------------------

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """See `streams.runner.Handler`."""
        await self._clear_marks()
        readable: list[tuple[Delivery, ItemEvent]] = []
        for delivery in batch:
            try:
                event = decode(delivery.value, self._consumes)
                assert isinstance(event, ItemEvent)
                delivery.happened = event.happened
                readable.append((delivery, event))
            except Lasting as failure:
                await self.set_aside(delivery, failure)
        tickets = await asyncio.gather(*(self._look_up(delivery, event) for delivery, event in readable))
        to_do = [ticket for ticket in tickets if ticket is not None and ticket.result is None]
        if to_do:
            # The same batch tried again overwrites its own mark.
            name = f"{self._worker}-{to_do[0].delivery.partition}-{to_do[0].delivery.offset}"
            try:
                await self._records.mark_attempt(self.stage.stage, name, [ticket.event.item for ticket in to_do])
                await self._work(to_do)
            finally:
                # Only the death of this process leaves the mark behind.
                self._to_clear.add(name)
                await self._clear_marks()
        announced = [ticket for ticket in tickets if ticket is not None and ticket.result is not None]
        await self._check_and_announce(announced)
        for _, event in readable:
            await self._clear_suspicion(event.item)

    async def _clear_marks(self) -> None:
        """Remove the marks of finished tries, also those of a try that ended because the store was away."""
        for name in list(self._to_clear):
            await self._records.clear_attempt(self.stage.stage, name)
            self._to_clear.discard(name)

    async def _look_up(self, delivery: Delivery, event: ItemEvent) -> _Ticket | None:
        """Load what the stage needs; None when there is nothing to do for this event."""
        try:
            return await self._looked_up(delivery, event)
        except (NotFound, Lasting) as error:
            await self._broken(event, error)
            return None

    async def _broken(self, event: ItemEvent, error: NotFound | Lasting) -> None:
        """A part of the record cannot be read: a takedown removed it just now, or other hands harmed it."""
        if isinstance(error, NotFound):
            error = Lasting(f"a part of the record is missing: {error}.", "Ingest the file again.")
        await self._fail(event, error)

    async def _looked_up(self, delivery: Delivery, event: ItemEvent) -> _Ticket | None:
        stage = self.stage.stage
        # The first stage of a pass looks, and so does the one with an effect outside the record.
        look = self._records.state_for if stage in (Stage.SCORE, Stage.EMBED) else self._records.fresh_state
        state = await look(event.item, event.trace)
        version = (event.generation, event.revision)
        if state.withdrawn(event.generation):
            await self._undo(event.item, event.generation)
            STAGE_EVENTS.labels(stage.value, "dropped").inc()
            return None
        if state.latest is None:
            await self._fail(
                event,
                Lasting(
                    "the event names an item that has no record.",
                    "Ingest the file again; events alone bring nothing in.",
                ),
            )
            return None
        if version < state.latest:
            STAGE_EVENTS.labels(stage.value, "dropped").inc()
            return None
        if version > state.latest:
            await self._fail(
                event,
                Lasting(
                    f"the event names revision {version[0]}.{version[1]}, but the record's latest is "
                    f"{state.latest[0]}.{state.latest[1]}.",
                    "Events are made by ingest only.",
                ),
            )
            return None
        if self._strikes.get(event.item, 0) > STRIKES:
            await self._fail(
                event,
                Lasting(
                    f"the worker died {self._strikes[event.item]} times with nothing but this item in hand.",
                    "Look at the file; `promenade dead-letters retry` tries once more.",
                ),
            )
            await self._clear_suspicion(event.item)
            return None
        ticket = _Ticket(delivery, event, state)
        revision = await self._records.revision(event.item, version)
        needs: dict[Stage, Result] = {}
        for need in self.stage.needs:
            found = await self._records.newest_result(state, need)
            if found is None:
                raise Lasting(
                    f"the record has no {need.value} result for this revision.",
                    "`promenade reconcile` announces it again from there.",
                )
            needs[need] = found
        ticket.job = Job(revision, needs, load_rendition=lambda: self._load_rendition(event.item, event.generation))
        ticket.digest = self.digest(ticket.job)
        known = state.results.get((version, stage), {})
        if ticket.digest in known:
            ticket.key = result_key(event.item, version, stage, ticket.digest)
            ticket.result = await self._records.result(ticket.key)
            STAGE_EVENTS.labels(stage.value, "repeated").inc()
            return ticket
        if stage is not Stage.INDEX:
            # An earlier revision asked the same question: its answer is copied, not computed again. The index
            # stage has an effect outside the record and is always carried out.
            earlier = await self._records.earlier_result(state, stage, ticket.digest)
            if earlier is not None:
                await self._write(ticket, earlier.model_copy(update={"revision": event.revision}))
                STAGE_EVENTS.labels(stage.value, "repeated").inc()
        return ticket

    def digest(self, job: Job) -> str:
        """Hash of everything that decides the result: facts, earlier results, model versions."""
        profile = self._tools.profile
        return inputs_digest(
            {
                "stage": self.stage.stage.value,
                "item": job.item,
                "profile": profile.name,
                "models": {name: profile.version(name) for name in self.stage.models(job.kind, profile)},
                "needs": {need.value: result.digest for need, result in job.needs.items()},
                "inputs": self.stage.inputs(job, profile),
            }
        )

    async def _work(self, tickets: list[_Ticket]) -> None:
        started = time.monotonic()
        jobs = [ticket.job for ticket in tickets if ticket.job is not None]
        outcomes = await self._outcomes(jobs)
        seconds = (time.monotonic() - started) / max(1, len(jobs))
        await asyncio.gather(
            *(self._settle(ticket, outcome, seconds) for ticket, outcome in zip(tickets, outcomes, strict=True))
        )

    async def _outcomes(self, jobs: list[Job]) -> list[Outcome]:
        try:
            return await self.stage.work(jobs, self._tools)
        except Passing:
            raise
        except Exception as error:
            if len(jobs) == 1:
                log.exception("%s: defect while working on %s", self.stage.stage.value, jobs[0].item)
                return [
                    Lasting(
                        f"the {self.stage.stage.value} stage met a defect of its own: "
                        f"{type(error).__name__}: {error}.",
                        "Please report it with the worker's log; retry after an update.",
                    )
                ]
            return [outcome for job in jobs for outcome in await self._outcomes([job])]

    async def _settle(self, ticket: _Ticket, outcome: Outcome, seconds: float) -> None:
        stage = self.stage.stage
        if isinstance(outcome, Lasting):
            await self._fail(ticket.event, outcome)
            return
        assert ticket.job is not None
        profile = self._tools.profile
        result = Result(
            item=ticket.event.item,
            generation=ticket.event.generation,
            revision=ticket.event.revision,
            digest=ticket.digest,
            provenance=Provenance(
                models={name: profile.version(name) for name in self.stage.models(ticket.job.kind, profile)},
                profile=profile.name,
                made=now(),
                seconds=round(seconds, 4),
            ),
            body=outcome,
        )
        try:
            await self._write(ticket, result)
        except (NotFound, Lasting) as error:
            # Somebody else's answer was there first, and then it was taken down or harmed.
            await self._broken(ticket.event, error)
            return
        STAGE_EVENTS.labels(stage.value, "done").inc()

    async def _write(self, ticket: _Ticket, result: Result) -> None:
        ticket.key, written = await self._records.write_result(result)
        ticket.result = result if written else await self._records.result(ticket.key)

    async def _check_and_announce(self, tickets: Sequence[_Ticket]) -> None:
        """After the writes: undo for those withdrawn meanwhile, announce the others."""

        async def one(ticket: _Ticket) -> Event | None:
            event = ticket.event
            assert ticket.result is not None
            if await self._records.withdrawn(event.item, event.generation):
                await self._undo(event.item, event.generation)
                return None
            if ticket.state.failed(self.stage.stage.value) is not None:
                # It went well this time: the dead letter of an earlier try is settled.
                settled = f"/{self.stage.stage.value}.json"
                await self._records.objects.delete(
                    [key for key in ticket.state.keys if key.endswith(settled) and "/dead/" in key]
                )
            return self._produces.model_validate(
                {
                    "trace": event.trace,
                    "item": event.item,
                    "generation": event.generation,
                    "revision": event.revision,
                    "result": ticket.key,
                }
            )

        found = await asyncio.gather(*map(one, tickets))
        successors = [event for event in found if event is not None]
        alive = [
            (ticket.job.revision, ticket.event)
            for ticket, event in zip(tickets, found, strict=True)
            if event is not None and ticket.job is not None
        ]
        await self._publish([*successors, *(await self._more(alive) if alive else ())])

    # -- failures ------------------------------------------------------------------------------------------

    async def _fail(self, event: ItemEvent, failure: Lasting) -> None:
        stage = self.stage.stage.value
        state = await self._records.state(event.item)
        if state.withdrawn(event.generation):
            await self._undo(event.item, event.generation)
            return
        key = await self._records.set_aside(
            DeadLetter(
                item=event.item,
                generation=event.generation,
                revision=event.revision,
                stage=stage,
                reason=failure.reason,
                advice=failure.advice,
                reference=f"items/{event.item}/",
                event=describe(event),
                made=now(),
            )
        )
        if (await self._records.state(event.item)).withdrawn(event.generation):
            await self._undo(event.item, event.generation)
            return
        STAGE_EVENTS.labels(stage, "failed").inc()
        STAGE_FAILURES.labels(stage, "lasting").inc()
        log.warning("%s: %s set aside: %s", stage, event.item, failure.reason)
        await self._publish([DeadLettered(trace=event.trace, item=event.item, stage=stage, result=key)])

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """See `streams.runner.Handler`: by item when the event can be read, by its place in the log otherwise."""
        try:
            event = decode(delivery.value, self._consumes)
        except Lasting:
            await unreadable(self._records, self._publish, self.stage.stage.value, delivery, failure)
            return
        assert isinstance(event, ItemEvent)
        await self._fail(event, failure)

    async def _clear_suspicion(self, item: str) -> None:
        if item not in self._strikes:
            return
        del self._strikes[item]
        for key, items in list(self._marks.items()):
            items.discard(item)
            if not items:
                del self._marks[key]
                await self._records.objects.delete([key])


async def unreadable(records: Records, publish: Publish, stage: str, delivery: Delivery, failure: Lasting) -> None:
    """Set an event aside that cannot be read, with its first bytes so that a person can see what it was."""
    sample = delivery.value[:200].decode("utf-8", "replace")
    # A topic that was made anew counts its offsets from 0 again; the bytes tell its events from those before.
    name = f"{delivery.reference.replace('/', '-')}-{digest_of(delivery.value)[:16]}"
    key = await records.set_event_aside(
        name,
        DeadLetter(
            stage=stage,
            reason=failure.reason,
            advice=failure.advice,
            reference=delivery.reference,
            event={"first bytes": sample} if sample else None,
            made=now(),
        ),
    )
    STAGE_EVENTS.labels(stage, "failed").inc()
    STAGE_FAILURES.labels(stage, "lasting").inc()
    log.warning("%s: event %s set aside: %s", stage, delivery.reference, failure.reason)
    await publish([DeadLettered(trace=new_trace(), stage=stage, result=key)])
