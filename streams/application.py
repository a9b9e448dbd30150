"""The Faust application: consumes the topics of the chosen stages and hands every event to its runner.

The agents are thin on purpose: they take a message and offer it; all else is the runner's business. No Faust
tables (their recovery cannot be trusted on every broker, and records are the truth), and never `take` (it
acknowledges what an exception interrupted). One consumer group for all stages: Faust gives each topic to those
workers that run its stage, so a process may run any of them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import faust
from aiokafka.errors import KafkaError
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

from infra.broker import PART, Connection, keeps_departed_leaders, leave_group
from schemas.events import MAXIMUM_EVENT_BYTES, Event, encode
from schemas.failures import Passing
from streams.runner import Delivery, StageRunner

log = logging.getLogger(__name__)

SESSION_SECONDS: Final = 10.0
"""How long the broker waits for a silent worker before it gives its partitions to another: short, so that a killed
worker is replaced soon; longer than any pause of a busy event loop on 2 cores that was seen."""

FETCH_WAIT_MILLISECONDS: Final = 400
"""How long a broker may hold an empty fetch. Faust asks for 1500, which costs nothing where the broker answers as
soon as an event comes; one that only looks again when about half of the wait is over (the embedded one) would add
0.7 s to every step of an item's way, five times in a row. With this it is about 0.15 s."""

_BUFFER: Final = 64
"""Messages that Faust holds for one stream; beyond that it stops fetching: back-pressure reaches the broker."""


def credentials_of(connection: Connection) -> faust.types.auth.CredentialsT | None:
    """Faust's credentials for a connection: with TLS where `security` says so, with a user where one is given."""
    secure = ssl.create_default_context() if connection.security in ("SSL", "SASL_SSL") else None
    if connection.security.startswith("SASL"):
        return faust.SASLCredentials(
            username=connection.user, password=connection.password, mechanism="PLAIN", ssl_context=secure
        )
    return None if secure is None else faust.SSLCredentials(secure)


class CountingAssignor(PartitionAssignor):
    """Faust's own, which also remembers how many members it has dealt partitions to; only a leader's is asked."""

    led: int | None = None
    """Members of the group when this process led it last; None when another led."""
    _dealt: int | None = None

    def assign(self, cluster: Any, member_metadata: MutableMapping[str, Any]) -> Any:
        """Deal the partitions out, as the group's leader."""
        self._dealt = len(member_metadata)
        return super().assign(cluster, member_metadata)

    def on_assignment(self, assignment: Any) -> None:
        """Take what was dealt to this member."""
        self.led, self._dealt = self._dealt, None
        super().on_assignment(assignment)


class InTurn:
    """Acknowledges the events of one partition in the order in which they came, however they are finished.

    Faust commits up to the first gap among the acknowledged events, but sees no gap before the first of them (0.15.3,
    `Consumer._new_offset`): of the first events after an assignment, one that is finished before an earlier one would
    be committed together with it, and a process killed then would leave the earlier one undone.
    """

    def __init__(self) -> None:
        self._turns: deque[_Turn] = deque()

    def taken(self, acknowledge: Callable[[], object]) -> Callable[[], None]:
        """Note the next event; what is returned is to be called when it is finished."""
        turn = _Turn(acknowledge)
        self._turns.append(turn)

        def finished() -> None:
            turn.finished = True
            while self._turns and self._turns[0].finished:
                self._turns.popleft().acknowledge()

        return finished

    def forget(self) -> None:
        """The partition moved: nothing that came so far is acknowledged any more."""
        self._turns.clear()


@dataclass(slots=True)
class _Turn:
    acknowledge: Callable[[], object]
    finished: bool = False


class Application:
    """Faust with one agent for each runner.

    Args:
        connection: the broker.
        group: name of the consumer group.
        runners: topic -> runner.
        partitions: the topics' declared count.
        folder: where Faust may keep what it insists on (empty folders for tables that are not used).
        moved: called at every rebalance, after the runners were told.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        runners: Mapping[str, StageRunner],
        partitions: int,
        folder: Path,
        moved: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._moved = moved
        self._runners = runners
        self._connection = connection
        self._group = group
        self._folder = folder
        self.assigned: set[TP] = set()
        self.consuming = False
        self._in_turn: defaultdict[TP, InTurn] = defaultdict(InTurn)
        self._app = faust.App(
            group,
            broker=[f"kafka://{server}" for server in connection.servers.split(",")],
            broker_credentials=credentials_of(connection),
            store="memory://",
            datadir=str(folder),
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=partitions,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=SESSION_SECONDS,
            broker_heartbeat_interval=2.0,
            # Each partition's offset is a write of its own in some brokers; after a crash a few seconds' events come
            # again and find their results written.
            broker_commit_interval=3.0,
            broker_request_timeout=30.0,
            # A batch may wait long for a part that is away; that is our own, visible wait, no livelock.
            broker_max_poll_interval=3600.0,
            broker_commit_livelock_soft_timeout=3600.0,
            stream_processing_timeout=3600.0,
            stream_buffer_maxsize=_BUFFER,
            stream_wait_empty=False,
            producer_acks=-1,
            # Then it is our own, visible wait; Faust's default would be 20 minutes of silence.
            producer_request_timeout=8.0,
            producer_max_request_size=MAXIMUM_EVENT_BYTES + 4096,
            worker_redirect_stdouts=False,
            autodiscover=False,
            origin="streams",
            PartitionAssignor=CountingAssignor,
        )
        for topic, runner in runners.items():
            self._agent(topic, runner)
        self._app.on_partitions_revoked.connect(self._revoked)
        self._app.on_partitions_assigned.connect(self._assigned)  # type: ignore[arg-type]

    def _agent(self, topic: str, runner: StageRunner) -> None:
        channel = self._app.topic(
            topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

        async def hand_over(stream: Any) -> None:
            async for event in stream.noack().events():
                message = event.message
                finished = self._in_turn[message.tp].taken(partial(message.ack, self._app.consumer))

                async def acknowledge(finished: Callable[[], None] = finished) -> None:
                    finished()

                await runner.offer(
                    Delivery(
                        topic=message.topic,
                        partition=message.partition,
                        offset=message.offset,
                        key=(message.key or b"").decode("utf-8", "replace"),
                        value=message.value or b"",
                        acknowledge=acknowledge,
                    )
                )

        self._app.agent(channel, name=f"streams.{runner.name}")(hand_over)

    async def _revoked(self, *_: Any, **__: Any) -> None:
        self.consuming = False
        # What is finished from here on is delivered again to whoever owns it now, and acknowledged there.
        for turns in self._in_turn.values():
            turns.forget()
        for runner in self._runners.values():
            runner.partitions_moved()
        for tell in self._moved:
            tell()

    async def _assigned(self, _app: Any, assigned: Any, *_: Any, **__: Any) -> None:
        self.assigned = set(assigned)
        self._fetch_promptly()
        self.consuming = True

    def _fetch_promptly(self) -> None:
        """Faust has no setting for how long a fetch may be held, so the client's own field is set."""
        thread = getattr(self._app._consumer, "_thread", None)
        fetcher: Any = getattr(getattr(thread, "_consumer", None), "_fetcher", None)
        if hasattr(fetcher, "_fetch_max_wait_ms"):
            fetcher._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS
        else:
            log.warning("how long a fetch may be held could not be set: steps may follow each other slowly")

    async def start(self) -> None:
        """Join the consumer group and start consuming; returns when the services are up."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._app.finalize()
        await self._app.start()

    async def stop(self) -> None:
        """Leave the consumer group, so that others take the partitions over at once."""
        coordinator = self._coordinator()
        if coordinator is not None and await self._had_better_be_silent(coordinator):
            # The others take over when the session expires, as after a crash.
            log.info("leads the group %s and leaves it without a word: the broker would wait for it", self._group)

            async def without_a_word() -> None:
                coordinator.reset_generation()

            coordinator._maybe_leave_group = without_a_word
            await self._app.stop()
            return
        # aiokafka leaves a group only from generation 1 on, as Apache Kafka counts; a broker that counts from 0
        # would hold the partitions until the session expires, and the next start would wait for that.
        member = str(coordinator.member_id) if coordinator is not None and coordinator.generation == 0 else None
        await self._app.stop()
        if member is not None:
            await asyncio.to_thread(leave_group, self._connection, self._group, member)

    def _coordinator(self) -> Any:
        """aiokafka's part that speaks for this member of the group; None before the start."""
        thread = getattr(self._app._consumer, "_thread", None)
        return getattr(getattr(thread, "_consumer", None), "_coordinator", None)

    async def _had_better_be_silent(self, coordinator: Any) -> bool:
        """True where this member's goodbye could leave the group without a leader for good."""
        led = cast(CountingAssignor, self._app.assignor).led
        if led is None or not await asyncio.to_thread(keeps_departed_leaders, self._connection):
            return False
        if led > 1:
            return True
        # Alone, as far as it knows: somebody may have come since the last heartbeat.
        try:
            thread: Any = getattr(self._app._consumer, "_thread", None)
            return not await asyncio.wait_for(thread.call_thread(coordinator._do_heartbeat), 2.0)
        except (KafkaError, OSError, RuntimeError, TimeoutError):
            return True

    @property
    def crash(self) -> BaseException | None:
        """Why Faust stopped by itself, if it did."""
        return getattr(self._app, "crash_reason", None)

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish side by side; returns when the broker acknowledged all.

        Raises:
            Lasting: an event is too large.
            Passing: the broker is away.
        """
        contents = [(event, encode(event)) for event in events]
        try:
            producer = await self._app.maybe_start_producer()
            await asyncio.gather(
                *(
                    producer.send_and_wait(type(event).topic, event.key().encode(), content, None, None, None)
                    for event, content in contents
                )
            )
        except (KafkaError, OSError, RuntimeError, TimeoutError, faust.exceptions.ProducerSendError) as error:
            raise Passing(PART, f"did not acknowledge an event ({type(error).__name__})") from None
