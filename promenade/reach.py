"""What a command reaches: the clients it needs, built for the stack it means.

Three cases, told apart in one place: external parts named by the environment (PROMENADE_S3_ACCESS_KEY is set), a
running embedded stack, or a data folder with nothing up, whose object store is then started for the time of the
command.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from infra.broker import Producer
from infra.objects import Refusing
from infra.records import Records
from promenade.clients import connection_of, objects_of
from promenade.settings import Settings
from promenade.supervisor import StackError, borrowed_object_store, embedded_settings, stack_state
from schemas.failures import Passing
from streams.ingest import patiently


def external() -> bool:
    """True when the environment names external parts."""
    return bool(os.environ.get("PROMENADE_S3_ACCESS_KEY"))


def running_settings(data: Path) -> Settings:
    """Settings of the parts that run.

    Raises:
        StackError: nothing runs in the data folder and no external parts are named.
    """
    if external():
        return Settings(data=data)
    state = stack_state(data.resolve())
    if state is None or not state.alive:
        raise StackError(
            f"nothing runs in {data}: start it with `promenade up` (and --data where it is not this one)."
        )
    return embedded_settings(data)


@contextlib.asynccontextmanager
async def reading(
    data: Path, say: Callable[[str], None], *, patient: bool = True
) -> AsyncIterator[tuple[Settings, Records]]:
    """Records to read from, whatever runs.

    Args:
        patient: wait for the object store of a stack that starts or mends itself; otherwise say so at once.

    Raises:
        StackError: there is nothing to read.
        Passing: the store does not answer.
    """
    if external():
        settings = Settings(data=data)
        async with _records(settings) as records:
            yield settings, records
        return
    state = stack_state(data.resolve())
    store = state.parts.get("store") if state is not None and state.alive else None
    if not patient and store is not None and store.phase != "ready":
        raise Passing("object store", f"the stack says that it is {store.phase}")
    async with borrowed_object_store(data, say=say) as settings, _records(settings) as records:
        yield settings, records


@contextlib.asynccontextmanager
async def _records(settings: Settings, waiting: Callable[[str], None] | None = None) -> AsyncIterator[Records]:
    objects = objects_of(settings)
    try:
        await (objects.ping() if waiting is None else patiently(objects.ping, waiting))
        yield Records(objects)
    finally:
        objects.close()


@contextlib.asynccontextmanager
async def changing(
    data: Path, waiting: Callable[[str], None] | None = None
) -> AsyncIterator[tuple[Settings, Records, Producer]]:
    """Records and a producer, for commands that change something; the stack must run.

    Args:
        waiting: told what is waited for where the object store does not answer yet; None: say so at once and end.

    Raises:
        StackError: nothing runs.
        Passing: a part does not answer.
    """
    settings = running_settings(data)
    async with _records(settings, waiting) as records:
        producer = Producer(connection_of(settings))
        try:
            yield settings, records, producer
        finally:
            producer.close()


def plain(trouble: Passing) -> str:
    """Passing trouble as a sentence for the terminal."""
    if isinstance(trouble, Refusing):
        return f"the {trouble.part} is there, but {trouble.reason}."
    return f"the {trouble.part} is away: {trouble.reason}. `promenade status` tells how it stands."
