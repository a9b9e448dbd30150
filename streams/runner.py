"""The stage runner: takes deliveries, calls a stage, waits out passing trouble, acknowledges when all is safe.

It knows nothing of Faust: deliveries are handed in (`offer`), each with its own `acknowledge`. What a batch means
is a `Handler`'s business. The runner's promises:

- At least once: a delivery is acknowledged only after its handler said that its outcome is in the record and
  its successor is acknowledged by the broker.
- Bounded: so many batches at once, so many deliveries waiting; `offer` blocks beyond that (back-pressure).
- One delivery of a key at a time, in order.
- Passing trouble holds the batch with growing waits and jitter, visibly (`waiting`); the wait ends at once for
  shutdown and for a rebalance, and then nothing is acknowledged, so that it is delivered again.
- An item that makes the model's process die is tried alone, and set aside after `STRIKES` deaths.
- An early stage gives way to later ones of the same process that have their hands full: all share the same cores and
  models, and items that hurry ahead only lie about, and what is remembered of them is forgotten before it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from infra.metrics import (
    STAGE_BATCH,
    STAGE_FAILURES,
    STAGE_IN_FLIGHT,
    STAGE_OLDEST,
    STAGE_SECONDS,
    STAGE_WAITING,
)
from schemas.failures import Lasting, Passing
from schemas.records import now

log = logging.getLogger(__name__)

STRIKES: Final = 3
"""Deaths of a model's process, with the item alone in hand and the model healthy before, that make it a dead
letter. One can be chance (the process was killed from outside just then); three in a row are not."""

FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 5.0
"""Seconds. Long enough to leave a starting part alone, short enough that nobody waits long after it is back."""


GATHER_SECONDS: Final = 0.03
"""A stage that was idle waits so long for companions of the first event: a batch upstream announces its items side
by side, and together they cost fewer calls. One stage's share of an item's way is hundreds of times longer."""


GIVE_WAY_SECONDS: Final = 0.05
"""How often a stage that gives way looks whether the later one has room again; a batch takes ten times longer."""


class Interrupted(Exception):
    """The wait ended because the process stops or its partitions moved; the batch goes back unacknowledged."""


@dataclass(slots=True)
class Delivery:
    """One message as it came."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    acknowledge: Callable[[], Awaitable[None]]
    taken: float = field(default_factory=time.monotonic)
    happened: datetime | None = None

    @property
    def reference(self) -> str:
        """Where it lies in the log."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a stage waits for at the moment."""

    part: str
    reason: str
    since: datetime


class Handler(Protocol):
    """What a runner does with a batch."""

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """Make every outcome safe and announce it. May raise `Passing`; may be called again with the same batch."""
        ...

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """Give the delivery up: write its dead letter and announce that."""
        ...

    async def probe(self) -> None:
        """Raise `Passing` while a part that the work needs is away."""
        ...

    def alone(self, delivery: Delivery) -> bool:
        """True when the delivery must not share a batch, because it is under suspicion."""
        ...


class StageRunner:
    """Runs one handler over the deliveries of one topic.

    Args:
        name: the stage's name, for metrics and `status`.
        handler: what is done with a batch.
        batch: most deliveries in one batch.
        concurrency: batches at once.
        together: deliveries of the same key may share a batch, in order; only with one batch at a time.
    """

    def __init__(self, name: str, handler: Handler, *, batch: int, concurrency: int, together: bool = False) -> None:
        if together and concurrency != 1:
            raise ValueError("deliveries of one key can share a batch only where there is one batch at a time")
        self._together = together
        self.name = name
        self.waiting: dict[int, Waiting] = {}
        """Loop number -> what it waits for; empty when nothing is waited for."""
        self._waited_for: set[str] = set()
        """Every part that was ever waited for: their gauges go back to 0."""
        self.finished = 0
        self.last_finished = time.monotonic()
        self._handler = handler
        self._batch = batch
        self._concurrency = concurrency
        self._ready: deque[Delivery] = deque()
        self._held: dict[str, deque[Delivery]] = {}
        """Keys in hand -> deliveries of the same key that wait for their turn."""
        self._room = asyncio.Semaphore(batch * concurrency * 2)
        self._something = asyncio.Event()
        self._stop = asyncio.Event()
        self._moved = asyncio.Event()
        self._epoch = 0
        self._in_hand: dict[int, Delivery] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._later: tuple[StageRunner, ...] = ()

    # -- outside -------------------------------------------------------------------------------------------

    async def offer(self, delivery: Delivery) -> None:
        """Hand in a delivery; waits while too many are in hand."""
        epoch = self._epoch
        await self._room.acquire()
        if self._stop.is_set() or epoch != self._epoch:
            self._room.release()
            return
        self._in_hand[id(delivery)] = delivery
        STAGE_IN_FLIGHT.labels(self.name).set(len(self._in_hand))
        # Always behind the others, also when its key is in hand: an earlier one of its key may still be queued here,
        # and `_take` moves them to the waiting line of their key in this order.
        self._ready.append(delivery)
        self._something.set()

    def give_way_to(self, *later: StageRunner) -> None:
        """Take nothing up while one of these has its hands full and is at work."""
        self._later = later

    @property
    def crowded(self) -> bool:
        """True when no more deliveries are taken in, and not because a part is waited for."""
        return self._room.locked() and not self.waiting

    def start(self) -> None:
        """Start the loops."""
        self._tasks = [
            asyncio.create_task(self._loop(number), name=f"{self.name}-{number}")
            for number in range(self._concurrency)
        ]

    async def stop(self, grace: float = 5.0) -> None:
        """Stop: waits end at once; batches at work get `grace` seconds and are then cancelled unacknowledged."""
        self._stop.set()
        self._something.set()
        self._moved.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def partitions_moved(self) -> None:
        """A rebalance: forget what is queued (it is delivered again to whoever owns it now) and end waits."""
        self._epoch += 1
        self._moved.set()
        self._moved = asyncio.Event()
        queued = list(self._ready) + [each for queue in self._held.values() for each in queue]
        self._ready.clear()
        for queue in self._held.values():
            queue.clear()
        for delivery in queued:
            self._release(delivery)

    @property
    def in_flight(self) -> int:
        """Deliveries taken and not yet finished."""
        return len(self._in_hand)

    def oldest_seconds(self) -> float:
        """Age of the oldest delivery in hand, counted from when its event happened; 0 when none is in hand."""
        if not self._in_hand:
            return 0.0
        moment, clock = now(), time.monotonic()
        return max(
            # A clock elsewhere may run ahead of ours; nothing is younger than just now.
            max(0.0, (moment - each.happened).total_seconds()) if each.happened else clock - each.taken
            for each in self._in_hand.values()
        )

    def observe(self) -> None:
        """Bring the gauges up to date; called when metrics are read."""
        STAGE_IN_FLIGHT.labels(self.name).set(len(self._in_hand))
        STAGE_OLDEST.labels(self.name).set(self.oldest_seconds())
        # Not set where waits begin and end: a wait lasts over many tries, and several loops may wait for one part.
        waited_for = {each.part for each in self.waiting.values()}
        for part in self._waited_for:
            STAGE_WAITING.labels(self.name, part).set(part in waited_for)

    # -- inside --------------------------------------------------------------------------------------------

    async def _loop(self, number: int) -> None:
        while not self._stop.is_set():
            if any(stage.crowded for stage in self._later):
                await asyncio.sleep(GIVE_WAY_SECONDS)
                continue
            batch = self._take()
            if not batch:
                self._something.clear()
                if not self._ready:
                    await self._something.wait()
                    if self._batch > 1 and not self._stop.is_set():
                        await asyncio.sleep(GATHER_SECONDS)
                continue
            STAGE_BATCH.labels(self.name).observe(len(batch))
            try:
                with STAGE_SECONDS.labels(self.name).time():
                    await self._carry_out(number, batch, self._epoch)
            except Interrupted:
                log.info("%s: %d events go back unacknowledged", self.name, len(batch))
            except asyncio.CancelledError:
                raise
            except Exception:
                # A defect of ours outside any single item: keep the loop alive, leave the events unacknowledged,
                # and let reconcile bring them again.
                log.exception("%s: a batch of %d failed unexpectedly", self.name, len(batch))
            finally:
                self.waiting.pop(number, None)
                for delivery in batch:
                    self._free_key(delivery)
                    self._release(delivery)

    def _take(self) -> list[Delivery]:
        batch: list[Delivery] = []
        if self._together:
            while self._ready and len(batch) < self._batch:
                batch.append(self._ready.popleft())
            return batch
        passed: list[Delivery] = []
        while self._ready and len(batch) < self._batch:
            delivery = self._ready.popleft()
            if delivery.key in self._held:
                self._held[delivery.key].append(delivery)
                continue
            if self._handler.alone(delivery):
                if batch:
                    passed.append(delivery)
                    continue
                self._held[delivery.key] = deque()
                batch.append(delivery)
                break
            self._held[delivery.key] = deque()
            batch.append(delivery)
        self._ready.extendleft(reversed(passed))
        return batch

    def _free_key(self, delivery: Delivery) -> None:
        queue = self._held.pop(delivery.key, None)
        if queue:
            self._ready.extendleft(reversed(queue))
            self._something.set()

    def _release(self, delivery: Delivery) -> None:
        if self._in_hand.pop(id(delivery), None) is not None:
            self._room.release()
        STAGE_IN_FLIGHT.labels(self.name).set(len(self._in_hand))

    async def _carry_out(self, number: int, batch: Sequence[Delivery], epoch: int) -> None:
        wait = FIRST_WAIT
        strikes = 0
        while True:
            try:
                await self._handler.handle(batch)
            except Passing as trouble:
                STAGE_FAILURES.labels(self.name, "passing").inc()
                if trouble.suspect:
                    if len(batch) > 1:
                        # Somebody in here may kill the model: find out one by one.
                        for delivery in batch:
                            await self._carry_out(number, [delivery], epoch)
                        return
                    strikes += 1
                    if strikes >= STRIKES:
                        await self._give_up(number, batch[0], trouble, epoch)
                        return
                await self._pause(number, trouble, wait, epoch)
                wait = min(wait * 2, LONGEST_WAIT)
                if trouble.suspect:
                    await self._until_healthy(number, epoch)
                continue
            break
        self.waiting.pop(number, None)
        self.finished += len(batch)
        self.last_finished = time.monotonic()
        for delivery in batch:
            await delivery.acknowledge()

    async def _give_up(self, number: int, delivery: Delivery, trouble: Passing, epoch: int) -> None:
        failure = Lasting(
            f"working on it ended the model's process {STRIKES} times ({trouble.reason}).",
            "Look at the file and at the model server's log; retry after mending either.",
        )
        wait = FIRST_WAIT
        while True:
            try:
                await self._handler.set_aside(delivery, failure)
                await delivery.acknowledge()
                return
            except Passing as away:
                await self._pause(number, away, wait, epoch)
                wait = min(wait * 2, LONGEST_WAIT)

    async def _until_healthy(self, number: int, epoch: int) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                await self._handler.probe()
                return
            except Passing as trouble:
                await self._pause(number, trouble, wait, epoch)
                wait = min(wait * 2, LONGEST_WAIT)

    async def _pause(self, number: int, trouble: Passing, seconds: float, epoch: int) -> None:
        """Wait visibly; raises Interrupted as soon as the process stops or partitions moved."""
        held = self.waiting.get(number)
        since = held.since if held is not None and held.part == trouble.part else now()
        self.waiting[number] = Waiting(trouble.part, trouble.reason, since)
        self._waited_for.add(trouble.part)
        try:
            moved = self._moved
            if not (self._stop.is_set() or epoch != self._epoch):
                await asyncio.wait_for(moved.wait(), seconds * random.uniform(0.8, 1.2))
        except TimeoutError:
            return
        raise Interrupted
