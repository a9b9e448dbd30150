"""Parts without a supervisor: chosen ones, started by hand for tests and for an external stack.

`start_parts` hands out runners that can be killed, paused and started again; nothing restarts by itself.
`borrowed_object_store` starts only the object store for the time of a command that reads the data folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from promenade.settings import Settings, ports_from
from promenade.supervisor.embedded import chosen_parts, embedded_settings
from promenade.supervisor.errors import StackBusy, StackError
from promenade.supervisor.leftovers import end_leftovers
from promenade.supervisor.parts import BROKER, MODELS, STORE
from promenade.supervisor.processes import check_ports, free_ports
from promenade.supervisor.runner import PartRunner, stop_all
from promenade.supervisor.secrets import load_secrets
from promenade.supervisor.state import FolderLock, stack_state

READER_PATIENCE_SECONDS: Final = 60.0


class SeparateParts:
    """Started parts, by name: "store", "broker", "models"."""

    def __init__(self, settings: Settings, runners: dict[str, PartRunner]) -> None:
        self.settings = settings
        self.runners = runners

    def pid(self, name: str) -> int:
        """The pid of the part's first process. Raises StackError where it does not run."""
        runner = self.runners[name]
        if not runner.running or runner.process is None:
            raise StackError(f"{name} does not run")
        return runner.process.pid

    def url(self, name: str) -> str:
        """host:port under which clients reach the part (gRPC for the models)."""
        return {STORE: self.settings.s3_endpoint, BROKER: self.settings.broker, MODELS: self.settings.inference}[name]

    async def kill(self, name: str) -> None:
        """SIGKILL the part's first process and wait until none of its processes is left."""
        runner = self.runners[name]
        runner.signal(signal.SIGKILL)
        await runner.ended()
        runner.enter("stopped")

    async def stop(self, name: str) -> None:
        """Stop the part as the supervisor would: SIGTERM, and SIGKILL after its grace."""
        await self.runners[name].stop()

    async def start(self, name: str, *, wait: bool = True) -> None:
        """Start the part again on the same ports and, with `wait`, wait until it is ready."""
        await self.runners[name].start()
        if wait:
            await self.runners[name].wait_ready()

    async def pause(self, name: str) -> None:
        """Freeze all processes of the part (SIGSTOP): connections stay open and nothing answers."""
        for process in await self.runners[name].members():
            process.suspend()

    async def resume(self, name: str) -> None:
        """Let a paused part go on."""
        for process in await self.runners[name].members():
            process.resume()

    async def memory(self) -> dict[str, int]:
        """Bytes (PSS) of each running part."""
        return {name: await runner.memory() for name, runner in self.runners.items() if runner.running}


@contextlib.asynccontextmanager
async def start_parts(
    settings: Settings,
    which: Sequence[str] = (STORE, BROKER, MODELS),
    *,
    say: Callable[[str], None] = lambda text: None,
) -> AsyncIterator[SeparateParts]:
    """Start chosen parts with the ports, credentials and data folder of `settings`; stop them at the end.

    `settings` as `embedded_settings` or `separate_settings` make them. Raises StackError where the folder is
    held, a port is taken or a part does not become ready; what was started is stopped then.
    """
    data = settings.data.resolve()
    lock = FolderLock(data, "parts", settings.embedded_ports())
    await asyncio.to_thread(lock.take, READER_PATIENCE_SECONDS, say)
    runners: dict[str, PartRunner] = {}
    try:
        await asyncio.to_thread(end_leftovers, data, say)
        parts = chosen_parts(settings, which)
        check_ports({use: port for part in parts for use, port in part.ports().items()})
        runners = {part.name: PartRunner(part, data) for part in parts}

        async def bring_up(runner: PartRunner) -> None:
            for need in runner.part.needs:
                if need in runners:
                    await runners[need].was_ready.wait()
            await runner.start()
            await runner.wait_ready()

        tasks = [asyncio.create_task(bring_up(runner)) for runner in runners.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        yield SeparateParts(settings, runners)
    finally:
        await stop_all(list(runners.values()))
        await asyncio.to_thread(end_leftovers, data, say)
        lock.release()


def separate_settings(data: Path, **changes: Any) -> Settings:
    """Settings of an embedded stack in `data` on free ports: for parts that are started for a short time."""
    return embedded_settings(data, **{**ports_from(free_ports(20)), **changes})


@contextlib.asynccontextmanager
async def borrowed_object_store(
    data: Path, *, say: Callable[[str], None] = lambda text: None
) -> AsyncIterator[Settings]:
    """Settings whose object store answers, for a command that reads the data folder.

    Where a stack runs, its store is used. Otherwise the store alone is started for the time of the command; other
    reading commands and `up` wait meanwhile. It takes free ports: on the usual ones it could meet the store of
    another folder that is just ending, which removes the sockets of its ports when it goes.
    Raises StackError where the folder holds nothing yet or is held by something that does not pass.
    """
    data = data.resolve()
    if load_secrets(data) is None:
        raise StackError(f"{data} holds no stack's data yet: start one with `promenade up`, or give --data.")
    lock = FolderLock(data, "reader", {})
    if not await _take_or_share(lock, say):
        yield embedded_settings(data)
        return
    runner: PartRunner | None = None
    try:
        await asyncio.to_thread(end_leftovers, data, say)
        settings = separate_settings(data)
        (part,) = chosen_parts(settings, (STORE,))
        runner = PartRunner(part, data)
        await runner.start()
        await runner.wait_ready()
        yield settings
    finally:
        if runner is not None:
            await runner.stop()
        lock.release()


async def _take_or_share(lock: FolderLock, say: Callable[[str], None]) -> bool:
    """Take the lock (True), or find a running stack whose object store is ready (False)."""
    deadline = time.monotonic() + READER_PATIENCE_SECONDS
    while True:
        state = stack_state(lock.data)
        living = state is not None and state.alive and state.phase in ("starting", "up")
        if state is not None and living and state.parts[STORE].phase == "ready":
            return False
        if not living:
            # A stack that stops holds the lock a little longer; anything else that is no reader is said at once.
            try:
                await asyncio.to_thread(lock.take, READER_PATIENCE_SECONDS, say)
            except StackBusy:
                holder = lock.held_by()
                if (holder is not None and holder.purpose == "parts") or time.monotonic() > deadline:
                    raise
            else:
                return True
        elif time.monotonic() > deadline:
            raise StackError(f"the stack of {lock.data} runs, but its object store does not answer: promenade status")
        await asyncio.sleep(0.1)
