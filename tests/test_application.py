"""How the stream's connection is secured: what each of the four values of `security` comes to."""

from __future__ import annotations

import pytest

from infra.broker import Connection
from streams.application import credentials_of


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
