"""The broker: topics with declared partition counts and message limits, and the kafka-python producer.

Ingest and the care of the stream (retry, withdraw, reconcile by hand) publish from here; the stages publish
through Faust. Consumer groups are Faust's business alone. Topics are made before anybody uses them: a broker that
makes unknown topics on the fly would give them another partition count.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove, NewTopic
from kafka.errors import InvalidReplicationFactorError, KafkaError, TopicAlreadyExistsError

from schemas.events import EVENT_TYPES, MAXIMUM_EVENT_BYTES, Event, encode
from schemas.failures import Passing, Refused

log = logging.getLogger(__name__)

PART: Final = "broker"

_RETENTION_MILLISECONDS: Final = 7 * 24 * 3600 * 1000
"""A week: records are the truth, so old events have no use beyond looking into yesterday's trouble."""

_EMBEDDED_CLUSTER: Final = "tansu_cluster"
"""What the embedded broker calls its cluster."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the broker: `host:port[,host:port]` and, where it asks for them, a user and a password."""

    servers: str
    security: str = "PLAINTEXT"
    user: str | None = None
    password: str | None = None

    def options(self) -> dict[str, Any]:
        """Keyword arguments of kafka-python's clients."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers.split(","),
            "security_protocol": self.security,
        }
        if self.user is not None:
            options |= {
                "sasl_mechanism": "PLAIN",
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options


def topic_names() -> list[str]:
    """Every topic of the house, in the order of the way."""
    return [event.topic for event in EVENT_TYPES]


class Topics:
    """Making, describing and removing topics.

    Args:
        connection: the broker.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _admin(self) -> Any:
        try:
            return KafkaAdminClient(**self._connection.options(), request_timeout_ms=10_000)
        except (KafkaError, OSError, ValueError) as error:
            raise Passing(PART, f"{self._connection.servers} does not answer ({type(error).__name__})") from None

    def prepare(self, partitions: int, replication: int = -1) -> list[str]:
        """Make the topics that are missing; the names of those made.

        Args:
            partitions: of each topic.
            replication: copies of each; -1 leaves it to the broker (its default.replication.factor).

        Raises:
            Passing: the broker is away.
            Refused: a topic exists with another partition count (`promenade compact` makes it anew), or there are
                fewer brokers than copies asked for.
        """
        admin = self._admin()
        try:
            present = self._partitions(admin)
            wrong = {name: count for name, count in present.items() if count != partitions}
            if wrong:
                raise Refused(
                    f"these topics have another number of partitions than the {partitions} asked for: "
                    + ", ".join(f"{name} ({count})" for name, count in sorted(wrong.items()))
                    + ". Set PROMENADE_PARTITIONS to their number, or run `promenade compact` to make them anew."
                )
            missing = [name for name in topic_names() if name not in present]
            for name in missing:
                # The limit leaves room for the batch's own overhead around an event of the greatest size.
                settings = {
                    "max.message.bytes": str(MAXIMUM_EVENT_BYTES + 4096),
                    "retention.ms": str(_RETENTION_MILLISECONDS),
                }
                try:
                    admin.create_topics([NewTopic(name, partitions, replication, topic_configs=settings)])
                except TopicAlreadyExistsError:
                    continue
                except InvalidReplicationFactorError:
                    raise Refused(
                        f"the brokers cannot keep {replication} copies of the topic {name}: there are fewer of them "
                        "than copies. Set PROMENADE_REPLICATION to their number at most, or to -1 for their own "
                        "default (default.replication.factor)."
                    ) from None
            return missing
        except (KafkaError, OSError) as error:
            raise Passing(PART, f"topics could not be made: {type(error).__name__}: {error}") from None
        finally:
            admin.close()

    def remove(self) -> list[str]:
        """Remove every topic of the house; the names of those removed."""
        admin = self._admin()
        try:
            present = [name for name in topic_names() if name in self._partitions(admin)]
            if present:
                admin.delete_topics(present, timeout_ms=20_000)
            return present
        except (KafkaError, OSError) as error:
            raise Passing(PART, f"topics could not be removed: {type(error).__name__}: {error}") from None
        finally:
            admin.close()

    def partitions(self) -> dict[str, int]:
        """Topic -> partition count of the house's topics that exist."""
        admin = self._admin()
        try:
            return self._partitions(admin)
        except (KafkaError, OSError) as error:
            raise Passing(PART, f"topics could not be listed: {type(error).__name__}: {error}") from None
        finally:
            admin.close()

    @staticmethod
    def _partitions(admin: Any) -> dict[str, int]:
        ours = set(topic_names())
        present = [name for name in admin.list_topics() if name in ours]
        if not present:
            return {}
        return {each["name"]: len(each["partitions"]) for each in map(_plain, admin.describe_topics(present))}


def _plain(described: Any) -> dict[str, Any]:
    name = described.get("name") or described.get("topic")
    return {"name": name, "partitions": described["partitions"]}


class Producer:
    """The kafka-python producer, for programs that announce: every event is acknowledged by all replicas.

    Args:
        connection: the broker.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._producer: Any = None

    def _connected(self) -> Any:
        with self._lock:
            if self._producer is None:
                try:
                    self._producer = KafkaProducer(
                        **self._connection.options(),
                        acks="all",
                        enable_idempotence=False,
                        retries=3,
                        linger_ms=2,
                        request_timeout_ms=10_000,
                        delivery_timeout_ms=15_000,
                        max_block_ms=10_000,
                        max_request_size=MAXIMUM_EVENT_BYTES + 4096,
                    )
                except (KafkaError, OSError) as error:
                    raise Passing(
                        PART, f"{self._connection.servers} does not answer ({type(error).__name__})"
                    ) from None
            return self._producer

    def publish(self, events: Sequence[Event]) -> None:
        """Publish in order and return when the broker acknowledged all of them.

        Raises:
            Lasting: an event is too large; nothing was sent.
            Passing: the broker is away; some may have been sent, and sending all again is harmless.
        """
        contents = [(event, encode(event)) for event in events]
        try:
            producer = self._connected()
            waiting = [
                producer.send(type(event).topic, value=content, key=event.key().encode())
                for event, content in contents
            ]
            producer.flush(timeout=20)
            for future in waiting:
                future.get(timeout=20)
        except (KafkaError, OSError, AssertionError) as error:
            raise Passing(PART, f"did not acknowledge ({type(error).__name__})") from None

    def publish_raw(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Publish any bytes, for tests of what readers do with them."""
        self._connected().send(topic, value=value, key=key).get(timeout=20)

    def close(self) -> None:
        """Send what waits and close."""
        with self._lock:
            if self._producer is not None:
                self._producer.close(timeout=5)
                self._producer = None


async def reachable(connection: Connection) -> None:
    """Return when one of the brokers takes a connection.

    Raises:
        Passing: none does.
    """
    for server in connection.servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            # 2 s: a broker on the same network answers in milliseconds or is away.
            _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), 2.0)
        except (OSError, TimeoutError, ValueError):
            continue
        writer.close()
        return
    raise Passing(PART, f"{connection.servers} does not answer")


def leave_group(connection: Connection, group: str, member: str) -> None:
    """Tell the broker that a member of a consumer group is gone; a broker that is away will notice by itself."""
    try:
        admin = KafkaAdminClient(**connection.options(), request_timeout_ms=2_000)
        try:
            admin.remove_group_members(group, [MemberToRemove(member_id=member)])
        finally:
            admin.close()
    except (KafkaError, OSError, ValueError) as error:
        log.info("could not leave the group %s: %s", group, type(error).__name__)


def keeps_departed_leaders(connection: Connection) -> bool:
    """True for a broker that goes on waiting for a group's leader that has said goodbye.

    The embedded broker (0.6.0) forgets a leader that leaves only while its group is settled. Where others came or
    went just before, it takes the leader off the list of members and keeps its name: nobody can lead that group any
    more, until the broker starts again. A leader that falls silent instead is dropped when its session expires.
    A broker that is away is none: there is nobody to say goodbye to.
    """
    try:
        admin = KafkaAdminClient(**connection.options(), request_timeout_ms=2_000)
        try:
            return bool(admin.describe_cluster().get("cluster_id") == _EMBEDDED_CLUSTER)
        finally:
            admin.close()
    except (KafkaError, OSError, ValueError):
        return False


def forget_group(connection: Connection, group: str) -> None:
    """Remove a consumer group with its offsets; a group that is not there is no fault.

    Raises:
        Passing: the broker is away, or the group still has members.
    """
    try:
        admin = KafkaAdminClient(**connection.options(), request_timeout_ms=10_000)
        try:
            answers = admin.delete_groups([group])
            for problem in answers.values() if isinstance(answers, dict) else [each[1] for each in answers]:
                if problem is not None and getattr(problem, "errno", 0) not in (0, 69):
                    raise Passing(PART, f"the group {group} could not be removed: {problem.__name__}")
        finally:
            admin.close()
    except (KafkaError, OSError, ValueError) as error:
        raise Passing(PART, f"the group {group} could not be removed: {type(error).__name__}") from None


def describe(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, as dead letters keep it."""
    return dict(json.loads(event.model_dump_json()))
