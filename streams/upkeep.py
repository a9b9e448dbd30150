"""The care of the stream: withdraw, leave a collection, dead letters, reconcile, rebuild the index.

All of it is safe to repeat and safe to race with the stages: facts go into the record first, and every stage
checks the record before and after it writes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from infra.metrics import REANNOUNCED, STAGE_EVENTS
from infra.objects import NotFound
from infra.progress import ITEM_STAGES, next_stage, waiting_since
from infra.records import ItemState, Records, membership_key, piece_key, version_text
from schemas.events import (
    Arrived,
    Captioned,
    Embedded,
    Event,
    ItemEvent,
    MusicRequested,
    PairingCommand,
    Scored,
    Withdrawn,
    decode,
    new_trace,
)
from schemas.failures import Lasting, Refused
from schemas.media import Kind, split_item_id
from schemas.records import DeadLetter, Stage, Tombstone, now
from streams.compose import AskMusic, requested
from streams.exhibitions import command, item_commands
from streams.items import Publish, unreadable
from streams.runner import Delivery
from workers.pair import as_asked, read_state

log = logging.getLogger(__name__)

WITHDRAW: Final = "withdraw"
"""Name of the upkeep stage that carries takedowns out, in metrics and `status`."""

FORGOTTEN_SECONDS: Final = 3600.0
"""Sound without a record is being kept at this moment, or its writer died; nobody takes an hour to write it."""

_EVENT_BEFORE: Final[dict[Stage, tuple[type[ItemEvent], Stage | None]]] = {
    Stage.CAPTION: (Arrived, None),
    Stage.SCORE: (Captioned, Stage.CAPTION),
    Stage.EMBED: (Scored, Stage.SCORE),
    Stage.INDEX: (Embedded, Stage.EMBED),
}


class Points(Protocol):
    """What upkeep needs of the vector store."""

    async def remove(self, kind: Kind, item: str, generation: int) -> None:
        """Remove an item's points up to a generation."""
        ...

    async def items(self, kind: Kind) -> list[tuple[str, int]]:
        """Every point's item and generation."""
        ...


# -- withdraw ----------------------------------------------------------------------------------------------


async def withdraw(records: Records, publish: Publish, item: str, reason: str) -> Tombstone:
    """Take an item down, everywhere and for good: tombstone first, then the event that makes all stores forget.

    Raises:
        Refused: there is no such item, or it was withdrawn already (its takedown is announced again, though).
    """
    state = await records.state(item)
    if state.latest is None and state.buried < 0:
        raise Refused(f"there is no item {item}; `promenade status` and `promenade pairs` show what is there.")
    generation = state.latest[0] if state.alive and state.latest is not None else state.buried
    tombstone = Tombstone(item=item, generation=generation, reason=reason, made=now())
    written = await records.bury(tombstone)
    await publish([Withdrawn(trace=new_trace(), item=item, generation=generation)])
    if not written:
        raise Refused(f"{item} was withdrawn before; the takedown was announced again.")
    return tombstone


class WithdrawHandler:
    """Carries takedowns out: objects, points and pairs.

    Args:
        records: the truth.
        points: the vector store.
        publish: announces events.
    """

    def __init__(self, records: Records, points: Points, publish: Publish) -> None:
        self._records = records
        self._points = points
        self._publish = publish

    def alone(self, delivery: Delivery) -> bool:
        """Nothing foreign is decoded here."""
        return False

    async def probe(self) -> None:
        """No model is asked here."""

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """See `streams.runner.Handler`."""
        for delivery in batch:
            try:
                event = decode(delivery.value, Withdrawn)
            except Lasting as failure:
                await self.set_aside(delivery, failure)
                continue
            assert isinstance(event, Withdrawn)
            delivery.happened = event.happened
            await self.undo(event.item, event.generation)
            commands = [
                PairingCommand(
                    trace=event.trace,
                    exhibition=exhibition.name,
                    what="item-left",
                    item=event.item,
                    generation=event.generation,
                    revision=1,
                )
                for exhibition in await self._records.exhibitions()
            ]
            await self._publish(commands)
            STAGE_EVENTS.labels(WITHDRAW, "done").inc()

    async def undo(self, item: str, generation: int) -> None:
        """Remove what withdrawn generations left in the vector store and the object store."""
        state = await self._records.state(item)
        if state.buried < 0:
            return
        await self._points.remove(split_item_id(item)[0], item, state.buried)
        await self._records.erase(item)

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """An event that cannot be read."""
        await unreadable(self._records, self._publish, WITHDRAW, delivery, failure)


def undo_and_tell(records: Records, publish: Publish) -> Callable[[str, int], Awaitable[None]]:
    """The undo of a process without the vector store: objects here, the rest by announcing the takedown again."""

    async def undo(item: str, generation: int) -> None:
        if await records.erase(item):
            await publish([Withdrawn(trace=new_trace(), item=item, generation=generation)])

    return undo


# -- collections -------------------------------------------------------------------------------------------


async def leave_collection(records: Records, publish: Publish, item: str, collection: str) -> bool:
    """Take one item out of one collection; it stays in the house and in its other collections.

    Returns:
        True when it was in the collection.
    """
    state = await records.state(item)
    if not state.alive or state.latest is None or collection not in state.memberships:
        return False
    await records.objects.delete([membership_key(item, state.latest[0], collection)])
    revision = await records.refresh_revision(item, now())
    if revision is not None:
        await publish(
            [Arrived(trace=new_trace(), item=item, generation=revision.generation, revision=revision.revision)]
        )
    return True


# -- dead letters ------------------------------------------------------------------------------------------


def event_of(letter: DeadLetter) -> Event | None:
    """The event to announce again, or None when it could never be read."""
    if not letter.event or "type" not in letter.event:
        return None
    kinds: dict[str, type[ItemEvent]] = {"arrived": Arrived, "captioned": Captioned, "scored": Scored}
    kinds |= {"embedded": Embedded, "music-requested": MusicRequested}
    model = kinds.get(str(letter.event["type"]))
    return None if model is None else model.model_validate({**letter.event, "trace": new_trace(), "happened": now()})


async def retry(records: Records, publish: Publish, key: str) -> Event:
    """Announce a dead letter's event again; the letter goes when the stage succeeds or writes a new one.

    Raises:
        Refused: there is no such letter, or its event could not be read in the first place.
    """
    letter = await records.dead_letter(key)
    if letter is None:
        raise Refused(f"there is no dead letter {key}; `promenade dead-letters list` shows them.")
    event = event_of(letter)
    if event is None:
        raise Refused(
            f"the dead letter {key} holds an event that could not be read, so it cannot be announced again; "
            "drop it and send a sound event."
        )
    await records.objects.delete([key])
    await publish([event])
    return event


async def drop(records: Records, key: str) -> None:
    """Forget a dead letter. The item itself stays as it is.

    Raises:
        Refused: there is no such letter.
    """
    if await records.dead_letter(key) is None:
        raise Refused(f"there is no dead letter {key}; `promenade dead-letters list` shows them.")
    await records.objects.delete([key])


# -- reconcile ---------------------------------------------------------------------------------------------


def event_before(state: ItemState, stage: Stage) -> ItemEvent | None:
    """The event that makes a stage take the item's latest version up again; None without the result it names."""
    assert state.latest is not None
    model, previous = _EVENT_BEFORE[stage]
    fields = {
        "trace": new_trace(),
        "item": state.item,
        "generation": state.latest[0],
        "revision": state.latest[1],
    }
    if previous is not None:
        key = state.newest_result_key(previous)
        if key is None:
            return None
        fields["result"] = key
    return model.model_validate(fields)


class Reconciler:
    """Announces again what made no progress for a stated time.

    A long queue is no lost event: an item is announced again only when it has waited for `patience` *and* its
    stage has finished nothing for a fifth of that. What is announced again waits twice as long the next time.

    Args:
        records: the truth.
        publish: announces events.
        patience: seconds.
        ask_music: says which music a wall wants; None: only what was asked for before is announced again.
    """

    def __init__(
        self, records: Records, publish: Publish, patience: float, ask_music: AskMusic | None = None
    ) -> None:
        self._records = records
        self._ask_music = ask_music
        self._publish = publish
        self._patience = patience
        self._announced: dict[tuple[str, str], tuple[float, float]] = {}

    async def run_once(self, *, at_once: bool = False) -> dict[str, int]:
        """Look at every record; stage -> how many items were announced again.

        Args:
            at_once: a person asked: announce everything that waits, however short.
        """
        moment, clock = now(), time.monotonic()
        states = await self._records.all_states()
        alive = [state for state in states if state.alive]
        counts: dict[str, int] = {}
        events: list[Event] = []
        for stage in ITEM_STAGES:
            idle = self._idle_seconds(alive, stage, moment)
            for state in alive:
                if next_stage(state) is not stage:
                    continue
                if not at_once and (idle < self._patience / 5 or not self._due(state, stage, moment, clock)):
                    continue
                event = event_before(state, stage)
                if event is not None:
                    events.append(event)
                    counts[stage.value] = counts.get(stage.value, 0) + 1
        events += await self._pairing(alive, counts, moment, at_once)
        events += await self._music(alive, counts, moment, at_once)
        events += await self._leftovers(states, counts)
        await self._old_marks(states, moment)
        for name, number in counts.items():
            REANNOUNCED.labels(name).inc(number)
            log.info("reconcile: announced %d items again for %s", number, name)
        await self._publish(events)
        return counts

    @staticmethod
    def _idle_seconds(states: Sequence[ItemState], stage: Stage, moment: datetime) -> float:
        times = [finished for state in states if (finished := state.done(stage)) is not None]
        return (moment - max(times)).total_seconds() if times else float("inf")

    def _due(self, state: ItemState, stage: Stage, moment: datetime, clock: float) -> bool:
        since = waiting_since(state)
        if since is None or (moment - since).total_seconds() < self._patience:
            return False
        assert state.latest is not None
        key = (f"{state.item}@{version_text(state.latest)}", stage.value)
        last, gap = self._announced.get(key, (float("-inf"), self._patience))
        if clock - last < gap:
            return False
        self._announced[key] = (clock, gap * 2)
        return True

    async def _pairing(
        self, states: Sequence[ItemState], counts: dict[str, int], moment: datetime, at_once: bool
    ) -> list[Event]:
        """What the exhibitions' agents missed: items, settings, the hour at which a wall moves, deletions."""
        events: list[Event] = []
        for settings in await self._records.exhibitions():
            pairing = await read_state(self._records, settings.home)
            patience = 0.0 if at_once else self._patience
            events += item_commands(settings, pairing, states, moment, patience)
            if not as_asked(settings, pairing):
                events.append(command(settings.name, "changed"))
            elif settings.hour == moment.hour and pairing.hung.keys() != pairing.pairs.keys():
                events.append(command(settings.name, "hang"))
        events += [command(name, "deleted") for name in await self._records.deleted_exhibitions()]
        if events:
            counts[Stage.PAIR.value] = len(events)
        return events

    async def _music(
        self, states: Sequence[ItemState], counts: dict[str, int], moment: datetime, at_once: bool
    ) -> list[Event]:
        """Music that was asked for and is not there, and what walls want and nobody asked for yet.

        While pieces are finished now and then, the queue is only long; nothing is announced again then.
        """
        finished = [
            names["record.json"] for state in states for names in state.music.values() if "record.json" in names
        ]
        idle = (moment - max(finished)).total_seconds() if finished else float("inf")
        if not at_once and idle < self._patience:
            return []
        events: list[Event] = []
        for state in states:
            assert state.latest is not None
            for piece in state.wanted_pieces():
                written = state.music[(state.latest[0], piece)]["request.json"]
                if at_once or (moment - written).total_seconds() >= self._patience:
                    key = piece_key(state.item, state.latest[0], piece, "request.json")
                    with contextlib.suppress(NotFound):
                        events.append(requested(await self._records.request(key)))
        await self._unfinished_sound(states, moment)
        known = {event.key() for event in events}
        for settings in await self._records.exhibitions():
            if self._ask_music is not None and settings.music == "always":
                hung = (await read_state(self._records, settings.home)).hung
                missing = {artwork: track for artwork, track in hung if artwork not in known}
                events += await self._ask_music(settings, missing, new_trace())
        if events:
            counts[Stage.COMPOSE.value] = len(events)
        return events

    async def _unfinished_sound(self, states: Sequence[ItemState], moment: datetime) -> None:
        """Remove sound that a process wrote just before it died, of pieces that nobody asks for any more."""
        for state in states:
            for (generation, piece), names in state.music.items():
                sound = {name: written for name, written in names.items() if name.startswith("piece.")}
                if not sound or {"record.json", "request.json"} & set(names):
                    continue
                if (moment - max(sound.values())).total_seconds() >= FORGOTTEN_SECONDS:
                    log.info("reconcile: unfinished sound of %s is removed", piece)
                    await self._records.delete_piece(state.item, generation, piece, mark="deleted.json" in names)

    async def _leftovers(self, states: Sequence[ItemState], counts: dict[str, int]) -> list[Event]:
        """Withdrawn items of which something is left: their takedown is announced again."""
        events: list[Event] = []
        for state in states:
            if self._records.left_behind(state):
                events.append(Withdrawn(trace=new_trace(), item=state.item, generation=state.buried))
                counts[WITHDRAW] = counts.get(WITHDRAW, 0) + 1
        return events

    async def _old_marks(self, states: Sequence[ItemState], moment: datetime) -> None:
        """Marks of workers that died, where other workers have long brought every item of them further."""
        known = {state.item: state for state in states}
        gone: list[str] = []
        for stage in ITEM_STAGES:
            for key, (items, written) in (await self._records.open_attempts(stage)).items():
                finished = all(
                    item not in known
                    or not known[item].alive
                    or known[item].done(stage) is not None
                    or known[item].failed(stage.value) is not None
                    for item in items
                )
                if finished and (moment - written).total_seconds() >= self._patience:
                    gone.append(key)
        await self._records.objects.delete(gone)


# -- rebuilding the index ----------------------------------------------------------------------------------


async def stray_and_missing(
    records: Records, points: Points, states: Sequence[ItemState]
) -> tuple[list[tuple[Kind, str, int]], list[ItemState]]:
    """What the vector store holds beyond the records, and indexed items that it lacks."""
    indexed: Mapping[tuple[str, int], ItemState] = {
        (state.item, state.latest[0]): state
        for state in states
        if state.alive and state.latest is not None and state.done(Stage.INDEX) is not None
    }
    living = {(state.item, state.latest[0]) for state in states if state.alive and state.latest is not None}
    present: set[tuple[str, int]] = set()
    stray: list[tuple[Kind, str, int]] = []
    for kind in Kind:
        for item, generation in await points.items(kind):
            present.add((item, generation))
            if (item, generation) not in living:
                stray.append((kind, item, generation))
    return stray, [state for place, state in indexed.items() if place not in present]


async def mend_index(records: Records, points: Points, publish: Publish) -> tuple[int, int]:
    """Make the vector store agree with the records: remove strays, index again what is missing.

    Returns:
        (strays removed, items announced again).
    """
    states = await records.all_states()
    stray, missing = await stray_and_missing(records, points, states)
    for kind, item, generation in stray:
        await points.remove(kind, item, generation)
    events: list[Event] = []
    for state in missing:
        assert state.latest is not None
        # The index result says "it is there"; it is not, so the saying goes first.
        prefix = f"items/{state.item}/results/{Stage.INDEX.value}/{version_text(state.latest)}/"
        await records.objects.delete([key for key in state.keys if key.startswith(prefix)])
        event = event_before(state, Stage.INDEX)
        if event is not None:
            events.append(event)
    await publish(events)
    return len(stray), len(events)
