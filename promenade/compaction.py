"""Making logs small: topics are recreated once nothing waits, and old revisions of exhibitions' pairings go.

Some brokers ignore a topic's retention and serve every event for ever. Records are the truth, so when they say
that nothing waits, the events have no more use: the topics are removed and made anew, with the partition count of
the settings. The consumer group is made anew with them, since its offsets belong to the old topics.

An exhibition's pairing is read from its newest snapshot and the revisions after it; those long before it have one
use: a paused owner that wakes up finds its next number taken, and learns that it was overtaken. So they may only go
while no worker runs, which is here and never while the stack is up.

For the same reason it is here that the bytes of what was removed leave the disk: the embedded object store and the
local vector store mark what is removed, and keep its bytes until their files are written anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gallery.views import status_view
from infra.broker import Connection, Topics, forget_group
from infra.objects import Objects
from infra.records import Records
from promenade.clients import connection_of, objects_of
from promenade.reach import external
from promenade.settings import Settings
from promenade.supervisor import StackError, separate_settings, stack_state, start_parts, vacuum_store
from promenade.supervisor.parts import BROKER, STORE, StorePart
from schemas.failures import Refused
from workers.pair import SNAPSHOT_EVERY


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done: names of topics that were removed and made, the partitions of each, revisions that went, and
    bytes that the disk got back from the stores (None where they are external: those have ways of their own).
    """

    removed: tuple[str, ...]
    made: tuple[str, ...]
    partitions: int
    revisions: int
    freed_bytes: int | None = None


async def compact(data: Path, say: Callable[[str], None]) -> Compacted:
    """Recreate the topics, remove old revisions and, where the stores are embedded, wipe what was removed.

    Raises:
        Refused: something still waits at a stage.
        StackError: the embedded stack is up, or a store could not be wiped.
    """
    if external():
        settings = Settings(data=data)
        say("external parts: make sure that no worker runs while the topics are recreated")
        return await _recreate(settings, objects_of(settings), connection_of(settings), say)
    state = stack_state(data.resolve())
    if state is not None and state.alive:
        raise StackError("the stack is up; stop it with `promenade down`, compact, and start it again.")
    # On free ports: the usual ones may be another folder's stack's.
    settings = separate_settings(data)
    async with start_parts(settings, (STORE, BROKER), say=say) as parts:
        done = await _recreate(settings, objects_of(settings), connection_of(settings), say)
        # The broker writes to the store too.
        await parts.stop(BROKER)
        say("wiping what was removed from the stores; this takes ten seconds or more")
        store = parts.runners[STORE].part
        assert isinstance(store, StorePart)
        freed = await vacuum_store(store) + await asyncio.to_thread(vacuum_vectors, settings.data / "qdrant")
        say(f"what was removed is wiped from the stores: {freed / 1e6:,.1f} MB freed")
        return replace(done, freed_bytes=freed)


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
        await records.show_begun()
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


def vacuum_vectors(folder: Path) -> int:
    """Write the files of a local vector store anew, without what was removed; bytes that the disk got back.

    Qdrant's local mode keeps each collection in a file of SQLite, which leaves removed rows in free pages.

    Raises:
        StackError: a process has the store open, or a file cannot be written.
    """
    freed = 0
    with contextlib.ExitStack() as stack:
        if (folder / ".lock").exists():
            lock = stack.enter_context((folder / ".lock").open("r+"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"another process has the vector store {folder} open: stop it first.") from None
        for file in sorted(folder.glob("collection/*/storage.sqlite")):
            before = file.stat().st_size
            try:
                with contextlib.closing(sqlite3.connect(file)) as connection:
                    connection.execute("VACUUM")
            except sqlite3.Error as error:
                raise StackError(f"{file} could not be written anew: {error}.") from None
            freed += before - file.stat().st_size
    return freed
