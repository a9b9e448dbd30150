"""The runner's promises, with plain handlers: bounded, in order by key, acknowledged in time, nothing lost."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

import streams.runner
from infra.metrics import STAGE_WAITING
from schemas.failures import Lasting, Passing
from schemas.records import now
from streams.runner import STRIKES, Delivery, StageRunner
from tests.patience import patient

pytestmark = pytest.mark.timeout(patient(30))


class Log:
    """A partition as a broker keeps it: what was handed in and what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.count = 0

    def delivery(self, key: str = "", *, value: bytes = b"") -> Delivery:
        offset, self.count = self.count, self.count + 1

        async def acknowledge() -> None:
            self.acknowledged.append(offset)

        return Delivery("topic", 0, offset, key or f"key-{offset}", value, acknowledge)


class Handler:
    """Does as the test says, and remembers what it was given."""

    def __init__(self, work: Callable[[Sequence[Delivery]], Awaitable[None]]) -> None:
        self._work = work
        self.batches: list[list[int]] = []
        self.ended: list[int] = []
        self.aside: list[tuple[int, str]] = []
        self.suspects: set[str] = set()
        self.probes = 0
        self.well = True

    async def handle(self, batch: Sequence[Delivery]) -> None:
        self.batches.append([each.offset for each in batch])
        await self._work(batch)
        self.ended += [each.offset for each in batch]

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        self.aside.append((delivery.offset, failure.reason))

    async def probe(self) -> None:
        self.probes += 1
        if not self.well:
            raise Passing("model", "still away")

    def alone(self, delivery: Delivery) -> bool:
        return delivery.key in self.suspects


@asynccontextmanager
async def running(
    handler: Handler, *, batch: int = 4, concurrency: int = 1, together: bool = False
) -> AsyncIterator[StageRunner]:
    runner = StageRunner("test", handler, batch=batch, concurrency=concurrency, together=together)
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop(grace=0.2)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def nothing(batch: Sequence[Delivery]) -> None:
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.runner, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(streams.runner, "LONGEST_WAIT", 0.04)


async def test_everything_is_handled_once_and_acknowledged() -> None:
    log, handler = Log(), Handler(nothing)
    async with running(handler, concurrency=2) as runner:
        for _ in range(100):
            await runner.offer(log.delivery())
        await until(lambda: len(log.acknowledged) == 100)
    assert sorted(handler.ended) == list(range(100))
    assert sorted(log.acknowledged) == list(range(100))
    assert runner.in_flight == 0
    assert runner.finished == 100


async def test_offers_wait_while_too_many_are_in_hand() -> None:
    go = asyncio.Event()

    async def work(batch: Sequence[Delivery]) -> None:
        await go.wait()

    log, handler = Log(), Handler(work)
    async with running(handler, batch=3, concurrency=2) as runner:
        offered = 0

        async def offer_all() -> None:
            nonlocal offered
            for _ in range(40):
                await runner.offer(log.delivery())
                offered += 1

        offering = asyncio.create_task(offer_all())
        await asyncio.sleep(0.05)
        assert offered == runner.in_flight == 3 * 2 * 2
        assert sum(map(len, handler.batches)) <= 3 * 2
        go.set()
        await offering
        await until(lambda: len(log.acknowledged) == 40)


async def test_nothing_is_acknowledged_before_its_handler_returned() -> None:
    log = Log()
    early: list[int] = []

    async def work(batch: Sequence[Delivery]) -> None:
        await asyncio.sleep(0.002)
        early.extend(each.offset for each in batch if each.offset in log.acknowledged)

    handler = Handler(work)
    async with running(handler, concurrency=2) as runner:
        for _ in range(50):
            await runner.offer(log.delivery())
        await until(lambda: len(log.acknowledged) == 50)
    assert early == []
    assert set(log.acknowledged) == set(handler.ended)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_deliveries_of_a_key_are_handled_one_at_a_time_and_in_order(concurrency: int) -> None:
    busy: set[str] = set()
    seen: dict[str, list[int]] = defaultdict(list)

    async def work(batch: Sequence[Delivery]) -> None:
        keys = [each.key for each in batch]
        assert len(set(keys)) == len(keys)
        assert not busy & set(keys)
        busy.update(keys)
        await asyncio.sleep(0.001 * (len(handler.batches) % 3))
        for each in batch:
            seen[each.key].append(each.offset)
        busy.difference_update(keys)

    log, handler = Log(), Handler(work)
    async with running(handler, concurrency=concurrency) as runner:
        for number in range(120):
            await runner.offer(log.delivery(f"key-{number * number % 7}"))
        await until(lambda: len(log.acknowledged) == 120)
    assert all(offsets == sorted(offsets) for offsets in seen.values())
    assert sum(map(len, seen.values())) == 120


async def test_a_delivery_never_overtakes_an_earlier_one_of_its_key_that_found_no_room_in_a_batch() -> None:
    go = asyncio.Event()
    seen: list[int] = []

    async def work(batch: Sequence[Delivery]) -> None:
        seen.extend(each.offset for each in batch if each.key == "same")
        await go.wait()

    log, handler = Log(), Handler(work)
    runner = StageRunner("test", handler, batch=2, concurrency=2)
    for key in ("same", "a", "same"):
        await runner.offer(log.delivery(key))
    # The first batch has the first two; the third waits in the queue when a fourth of its key comes.
    first = runner._take()
    assert [each.offset for each in first] == [0, 1]
    await runner.offer(log.delivery("same"))
    assert runner._take() == []
    for delivery in first:
        runner._free_key(delivery)
    runner.start()
    go.set()
    await until(lambda: len(log.acknowledged) == 2)
    await runner.stop()
    assert seen == [2, 3]


async def test_deliveries_of_a_key_share_a_batch_in_order_where_that_is_wished() -> None:
    log, handler = Log(), Handler(nothing)
    runner = StageRunner("test", handler, batch=8, concurrency=1, together=True)
    for _ in range(12):
        await runner.offer(log.delivery("exhibition"))
    runner.start()
    await until(lambda: len(log.acknowledged) == 12)
    await runner.stop()
    assert handler.batches == [list(range(8)), list(range(8, 12))]
    with pytest.raises(ValueError, match="one batch at a time"):
        StageRunner("test", handler, batch=8, concurrency=2, together=True)


async def test_passing_trouble_holds_the_batch_visibly_and_goes_on_by_itself() -> None:
    away = True

    async def work(batch: Sequence[Delivery]) -> None:
        if away:
            raise Passing("object store", "does not answer")

    log, handler = Log(), Handler(work)
    async with running(handler) as runner:
        await runner.offer(log.delivery())
        await until(lambda: len(handler.batches) >= 4)
        (waiting,) = runner.waiting.values()
        assert (waiting.part, waiting.reason) == ("object store", "does not answer")
        assert waiting.since <= now()
        assert gauge(runner, "object store") == 1
        assert log.acknowledged == []
        since = waiting.since
        await until(lambda: len(handler.batches) >= 6)
        assert [each.since for each in runner.waiting.values()] == [since]
        away = False
        await until(lambda: log.acknowledged == [0])
        await until(lambda: not runner.waiting)
        assert gauge(runner, "object store") == 0


def gauge(runner: StageRunner, part: str) -> float:
    """What Prometheus reads of a runner's waiting for a part."""
    runner.observe()
    return float(STAGE_WAITING.labels(runner.name, part)._value.get())


async def test_a_stage_is_seen_waiting_during_each_new_try_and_while_any_of_its_loops_waits() -> None:
    away = {"a": "model server", "b": "model server", "c": "object store"}
    seen: list[tuple[float, float]] = []

    async def work(batch: Sequence[Delivery]) -> None:
        (delivery,) = batch
        # What is read in the middle of a try; the first of all tries begins before anything is waited for.
        seen.append((gauge(runner, "model server"), gauge(runner, "object store")))
        if delivery.key in away:
            raise Passing(away[delivery.key], "does not answer")

    log, handler = Log(), Handler(work)
    async with running(handler, batch=1, concurrency=3) as runner:
        for key in away:
            await runner.offer(log.delivery(key))
        await until(lambda: len(runner.waiting) == 3)
        begun = len(seen)
        await until(lambda: len(seen) >= begun + 6)
        assert set(seen[begun:]) == {(1, 1)}
        for key, left in (("a", (1, 1)), ("c", (1, 0)), ("b", (0, 0))):
            del away[key]
            await until(lambda: len(runner.waiting) == len(away))
            assert (gauge(runner, "model server"), gauge(runner, "object store")) == left


@pytest.mark.parametrize("end", ["stop", "moved"])
async def test_a_wait_ends_at_once_and_nothing_is_acknowledged(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.runner, "FIRST_WAIT", 3600)

    async def work(batch: Sequence[Delivery]) -> None:
        raise Passing("object store", "away")

    log, handler = Log(), Handler(work)
    async with running(handler, batch=2) as runner:
        for _ in range(4):
            await runner.offer(log.delivery())
        await until(lambda: bool(runner.waiting))
        async with asyncio.timeout(2):
            if end == "stop":
                await runner.stop(grace=1)
            else:
                runner.partitions_moved()
                await until(lambda: not runner.waiting and runner.in_flight == 0)
    assert log.acknowledged == []
    assert len(handler.batches) == 1


async def test_after_a_rebalance_old_deliveries_are_forgotten_and_new_ones_handled() -> None:
    go = asyncio.Event()

    async def work(batch: Sequence[Delivery]) -> None:
        await go.wait()

    log, handler = Log(), Handler(work)
    async with running(handler, batch=1) as runner:
        await runner.offer(log.delivery("same"))
        await until(lambda: len(handler.batches) == 1)
        await runner.offer(log.delivery("same"))
        blocked = asyncio.create_task(runner.offer(log.delivery("other")))
        await asyncio.sleep(0.01)
        runner.partitions_moved()
        await blocked
        assert runner.in_flight == 1
        await runner.offer(log.delivery("same"))
        go.set()
        await until(lambda: 3 in log.acknowledged)
    assert handler.batches == [[0], [3]]


async def test_a_batch_at_work_is_cancelled_unacknowledged_when_it_outlasts_the_grace() -> None:
    async def work(batch: Sequence[Delivery]) -> None:
        await asyncio.sleep(3600)

    log, handler = Log(), Handler(work)
    async with running(handler) as runner:
        await runner.offer(log.delivery())
        await until(lambda: bool(handler.batches))
        async with asyncio.timeout(2):
            await runner.stop(grace=0.05)
    assert log.acknowledged == []
    assert handler.ended == []


async def test_a_killer_of_models_is_isolated_and_set_aside_and_its_neighbours_pass() -> None:
    async def work(batch: Sequence[Delivery]) -> None:
        if any(each.offset == 2 for each in batch):
            raise Passing("model server", "the process died", suspect=True)

    log, handler = Log(), Handler(work)
    runner = StageRunner("test", handler, batch=4, concurrency=1)
    for _ in range(4):
        await runner.offer(log.delivery())
    runner.start()
    await until(lambda: len(log.acknowledged) == 4)
    await runner.stop()
    assert [offset for offset, _ in handler.aside] == [2]
    assert str(STRIKES) in handler.aside[0][1]
    assert handler.batches.count([2]) == STRIKES
    assert sorted(handler.ended) == [0, 1, 3]


async def test_an_innocent_item_waits_until_the_model_is_back() -> None:
    """The model's process died by itself: until it is back, no call may count against the item."""
    alive = False

    async def work(batch: Sequence[Delivery]) -> None:
        if not alive:
            raise Passing("model server", "the process died", suspect=True)

    log, handler = Log(), Handler(work)
    handler.well = False
    async with running(handler) as runner:
        await runner.offer(log.delivery())
        await until(lambda: handler.probes > 3 * STRIKES)
        alive = handler.well = True
        await until(lambda: log.acknowledged == [0])
    assert handler.aside == []


async def test_a_suspect_shares_no_batch() -> None:
    log, handler = Log(), Handler(nothing)
    handler.suspects = {"key-1", "key-4"}
    runner = StageRunner("test", handler, batch=10, concurrency=1)
    for _ in range(6):
        await runner.offer(log.delivery())
    runner.start()
    await until(lambda: len(log.acknowledged) == 6)
    await runner.stop()
    assert [1] in handler.batches
    assert [4] in handler.batches
    assert sorted(handler.ended) == list(range(6))


async def test_a_defect_in_the_handler_stops_neither_the_loop_nor_the_key() -> None:
    async def work(batch: Sequence[Delivery]) -> None:
        if batch[0].offset == 0:
            raise KeyError("a defect")

    log, handler = Log(), Handler(work)
    async with running(handler, batch=1) as runner:
        for _ in range(3):
            await runner.offer(log.delivery("same"))
        await until(lambda: log.acknowledged == [1, 2])
        assert runner.in_flight == 0


async def test_the_oldest_delivery_is_told_by_when_it_happened() -> None:
    go = asyncio.Event()

    async def work(batch: Sequence[Delivery]) -> None:
        for each in batch:
            each.happened = now() + timedelta(seconds=(-100, 50)[each.offset])
        await go.wait()

    log, handler = Log(), Handler(work)
    async with running(handler) as runner:
        assert runner.oldest_seconds() == 0
        await runner.offer(log.delivery())
        await runner.offer(log.delivery())
        await until(lambda: bool(handler.batches))
        assert 100 <= runner.oldest_seconds() < 130
        go.set()
        await until(lambda: len(log.acknowledged) == 2)
        assert runner.oldest_seconds() == 0


async def test_an_event_of_the_future_has_no_age_below_nothing() -> None:
    go = asyncio.Event()

    async def work(batch: Sequence[Delivery]) -> None:
        batch[0].happened = now() + timedelta(days=1)
        await go.wait()

    log, handler = Log(), Handler(work)
    async with running(handler) as runner:
        await runner.offer(log.delivery())
        await until(lambda: bool(handler.batches))
        assert runner.oldest_seconds() == 0
        go.set()


@asynccontextmanager
async def one_behind_the_other(early: Handler, later: Handler) -> AsyncIterator[tuple[StageRunner, StageRunner]]:
    """Two stages that take one thing at a time; the first gives way to the second."""
    async with running(early, batch=1, concurrency=1) as first, running(later, batch=1, concurrency=1) as second:
        first.give_way_to(second)
        yield first, second


async def test_an_early_stage_gives_way_to_a_later_one_that_has_its_hands_full() -> None:
    log, gate = Log(), asyncio.Event()

    async def wait(batch: Sequence[Delivery]) -> None:
        await gate.wait()

    early = Handler(nothing)
    async with one_behind_the_other(early, Handler(wait)) as (first, second):
        try:
            for _ in range(2):
                await second.offer(log.delivery())
            assert second.crowded
            # What was taken up before is finished; nothing more is.
            await asyncio.sleep(3 * streams.runner.GIVE_WAY_SECONDS)
            await first.offer(log.delivery())
            await first.offer(log.delivery())
            await asyncio.sleep(3 * streams.runner.GIVE_WAY_SECONDS)
            assert len(early.ended) <= 1
            gate.set()
            await until(lambda: len(early.ended) == 2)
        finally:
            gate.set()


async def test_no_stage_gives_way_to_one_that_waits_for_a_part() -> None:
    log, away = Log(), True

    async def trouble(batch: Sequence[Delivery]) -> None:
        if away:
            raise Passing("model server", "it is away")

    early = Handler(nothing)
    async with one_behind_the_other(early, Handler(trouble)) as (first, second):
        try:
            for _ in range(2):
                await second.offer(log.delivery())
            await until(lambda: bool(second.waiting))
            assert not second.crowded
            for _ in range(5):
                await first.offer(log.delivery())
            await until(lambda: len(early.ended) == 5)
        finally:
            away = False
