"""The application between Faust and the runners: how its connection is secured, and what it acknowledges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, TopicPartition

from infra.broker import Connection, Topics
from schemas.events import Arrived, new_trace
from schemas.failures import Lasting
from schemas.media import Kind
from streams.application import Application, InTurn, credentials_of
from streams.runner import Delivery, StageRunner
from tests.stack_fixtures import Stack, made_item, need_parts


@pytest.mark.parametrize(
    ("security", "user", "protocol"),
    [
        ("PLAINTEXT", None, None),
        ("SSL", None, "SSL"),
        ("SASL_PLAINTEXT", "ada", "SASL_PLAINTEXT"),
        ("SASL_SSL", "ada", "SASL_SSL"),
    ],
)
def test_the_stream_speaks_to_the_broker_as_the_settings_say(
    security: str, user: str | None, protocol: str | None
) -> None:
    credentials = credentials_of(Connection("broker:9092", security, user, None if user is None else "word"))
    if protocol is None:
        assert credentials is None
    else:
        assert credentials is not None
        assert credentials.protocol.value == protocol


@given(st.permutations(range(7)), st.integers(0, 7))
def test_events_are_acknowledged_in_the_order_they_came_in(order: Sequence[int], moved_after: int) -> None:
    turns, acknowledged = InTurn(), list[int]()
    finished = [turns.taken(lambda number=number: acknowledged.append(number)) for number in range(7)]
    done: set[int] = set()
    for number in order[:moved_after]:
        finished[number]()
        done.add(number)
        assert acknowledged == [each for each in range(7) if done >= set(range(each + 1))]
    # A rebalance: what comes now is another event of the same number, and the old ones are nobody's any more.
    turns.forget()
    before = list(acknowledged)
    again = turns.taken(lambda: acknowledged.append(100))
    for number in order[moved_after:]:
        finished[number]()
    assert acknowledged == before
    again()
    assert acknowledged == [*before, 100]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Connection]:
    """A broker with one partition a topic."""
    need_parts()
    stack = Stack(tmp_path / "parts", ("store", "broker"))
    try:
        connection = Connection(stack.settings.broker)
        Topics(connection).prepare(1)
        yield connection
    finally:
        stack.close()


class OneIsSlow:
    """Finishes everything but the first event at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.ended: list[int] = []

    async def handle(self, batch: Sequence[Delivery]) -> None:
        if batch[0].offset == 0:
            await self.gate.wait()
        self.ended += [each.offset for each in batch]

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        raise AssertionError(f"{delivery.reference}: {failure}")

    async def probe(self) -> None:
        return

    def alone(self, delivery: Delivery) -> bool:
        return False


@pytest.mark.stack
async def test_nothing_is_committed_that_an_unfinished_event_came_before(log: Connection, tmp_path: Path) -> None:
    handler = OneIsSlow()
    runner = StageRunner("test", handler, batch=1, concurrency=2)
    application = Application(log, "group", {Arrived.topic: runner}, 1, tmp_path / "faust")
    admin = KafkaAdminClient(**log.options())

    def committed() -> int:
        offsets = admin.list_group_offsets({"group": None})["group"]
        found = offsets.get(TopicPartition(Arrived.topic, 0))
        return 0 if found is None else int(found.offset)

    async def until(committed_is: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await asyncio.to_thread(committed) == committed_is:
                return True
            await asyncio.sleep(0.2)
        return False

    runner.start()
    try:
        await application.start()
        for name in ("first", "second", "third"):
            item = made_item(name, Kind.ARTWORK)
            await application.publish([Arrived(trace=new_trace(), item=item, generation=0, revision=1)])
        while handler.ended != [1, 2]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        # Two turns of committing; a worker that is killed now must get the first event again.
        await asyncio.sleep(7)
        assert await asyncio.to_thread(committed) == 0
        handler.gate.set()
        assert await until(3, 30)
    finally:
        handler.gate.set()
        await runner.stop()
        await application.stop()
        admin.close()
