"""Making logs small: topics are recreated once nothing waits, and old revisions of exhibitions' pairings go.

Some brokers ignore a topic's retention and serve every event for ever. Records are the truth, so when they say
that nothing waits, the events have no more use: the topics are removed and made anew, with the partition count of
the settings. The consumer group is made anew with them, since its offsets belong to the old topics.

An exhibition's pairing is read from its newest snapshot and the revisions after it; those long before it have one
use: a paused owner that wakes up finds its next number taken, and learns that it was overtaken. So they may only go
while no worker runs, which is here and never while the stack is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gallery.views import status_view
from infra.broker import Connection, Topics, forget_group
from infra.objects import Objects
from infra.records import Records
from promenade.clients import connection_of, objects_of
from promenade.reach import external
from promenade.settings import Settings
from promenade.supervisor import StackError, embedded_settings, stack_state, start_parts
from schemas.failures import Refused
from workers.pair import SNAPSHOT_EVERY


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done: names of topics that were removed and made, the partitions of each, revisions that went."""

    removed: tuple[str, ...]
    made: tuple[str, ...]
    partitions: int
    revisions: int


async def compact(data: Path, say: Callable[[str], None]) -> Compacted:
    """Recreate the topics.

    Raises:
        Refused: something still waits at a stage.
        StackError: the embedded stack is up.
    """
    if external():
        settings = Settings(data=data)
        say("external parts: make sure that no worker runs while the topics are recreated")
        return await _recreate(settings, objects_of(settings), connection_of(settings), say)
    state = stack_state(data.resolve())
    if state is not None and state.alive:
        raise StackError("the stack is up; stop it with `promenade down`, compact, and start it again.")
    settings = embedded_settings(data)
    async with start_parts(settings, ("store", "broker"), say=say):
        return await _recreate(settings, objects_of(settings), connection_of(settings), say)


async def _recreate(
    settings: Settings, objects: Objects, connection: Connection, say: Callable[[str], None]
) -> Compacted:
    try:
        records = Records(objects)
        view = await status_view(records)
        waiting = [f"{stage.stage} ({stage.waiting})" for stage in view.stages if stage.waiting]
        if waiting:
            raise Refused(
                f"work still waits at {', '.join(waiting)}: start the stack, let it finish "
                "(or `promenade reconcile`), stop it, and compact then."
            )
        topics = Topics(connection)
        removed = await asyncio.to_thread(topics.remove)
        await asyncio.to_thread(forget_group, connection, settings.group)
        made = await asyncio.to_thread(topics.prepare, settings.partitions, settings.replication)
        say(f"{len(removed)} topics removed, {len(made)} made with {settings.partitions} partitions each")
        revisions = await prune(records)
        say(f"{revisions} old revisions of pairings removed")
        return Compacted(tuple(removed), tuple(made), settings.partitions, revisions)
    finally:
        objects.close()


async def prune(records: Records) -> int:
    """Remove revisions that lie a snapshot's distance before the newest snapshot of their pairing; how many went.

    No worker may run. A pairing without snapshot keeps its whole log.
    """
    gone = 0
    for settings in await records.exhibitions():
        snapshot = await records.pairing_snapshot(settings.home)
        if snapshot is not None:
            gone += await records.prune_pairing(settings.home, snapshot.number - SNAPSHOT_EVERY)
    return gone
