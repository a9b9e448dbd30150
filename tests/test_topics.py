"""Topics: declared partitions, and copies as the settings or the broker itself say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import InvalidReplicationFactorError

from infra import broker
from infra.broker import Connection, Topics, topic_names
from promenade.clients import connection_of
from schemas.failures import Refused
from tests.stack_fixtures import Stack, need_parts


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """An embedded broker of this module."""
    need_parts()
    stack = Stack(tmp_path_factory.mktemp("topics") / "data", ("store", "broker"))
    try:
        yield connection_of(stack.settings)
    finally:
        stack.close()


def copies(connection: Connection) -> dict[str, int]:
    """Topic -> how many brokers hold its first partition."""
    admin = KafkaAdminClient(**connection.options())
    try:
        return {
            each["name"]: len(each["partitions"][0]["replica_nodes"]) for each in admin.describe_topics(topic_names())
        }
    finally:
        admin.close()


@pytest.mark.stack
@pytest.mark.parametrize("replication", [1, -1])
def test_topics_are_made_once_with_the_copies_asked_for(connection: Connection, replication: int) -> None:
    topics = Topics(connection)
    topics.remove()
    assert topics.prepare(3, replication) == topic_names()
    assert topics.prepare(3, replication) == []
    assert topics.partitions() == dict.fromkeys(topic_names(), 3)
    # One broker: its own default can only be one copy.
    assert set(copies(connection).values()) == {1}
    with pytest.raises(Refused, match="another number of partitions"):
        topics.prepare(4, replication)


def test_more_copies_than_brokers_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apache Kafka answers; the embedded broker takes any number."""
    asked: list[Any] = []

    class Admin:
        def __init__(self, **options: Any) -> None:
            pass

        def list_topics(self) -> list[str]:
            return []

        def create_topics(self, topics: list[Any]) -> None:
            asked.extend(topics)
            raise InvalidReplicationFactorError

        def close(self) -> None:
            pass

    monkeypatch.setattr(broker, "KafkaAdminClient", Admin)
    with pytest.raises(Refused, match=r"fewer of them than copies\. Set PROMENADE_REPLICATION"):
        Topics(Connection("127.0.0.1:9")).prepare(8, 3)
    assert [each.replication_factor for each in asked] == [3]
