"""Clients of the broker and the object store from settings: all that commands need.

Apart from the worker's composition root, because a command must not load what only a worker uses (the vector
store's client alone takes as long to import as everything else together).
"""

from __future__ import annotations

from infra.broker import Connection
from infra.objects import Objects
from promenade.settings import Settings
from schemas.failures import Refused


def connection_of(settings: Settings) -> Connection:
    """How to reach the broker."""
    password = settings.broker_password.get_secret_value() if settings.broker_password else None
    return Connection(settings.broker, settings.broker_security, settings.broker_user, password)


def objects_of(settings: Settings) -> Objects:
    """The object store's client.

    Raises:
        Refused: no credentials are set.
    """
    if settings.s3_access_key is None or settings.s3_secret_key is None:
        raise Refused(
            "there are no credentials for the object store: set PROMENADE_S3_ACCESS_KEY and PROMENADE_S3_SECRET_KEY "
            "(the embedded stack makes its own; start it with `promenade up`)."
        )
    return Objects(
        settings.s3_endpoint,
        settings.s3_access_key.get_secret_value(),
        settings.s3_secret_key.get_secret_value(),
        settings.bucket,
        secure=settings.s3_secure,
        region=settings.s3_region,
    )
