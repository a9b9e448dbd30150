"""The life of one part's processes: start, wait until ready, notice the end, stop, leave nothing over.

A `PartRunner` does what it is told once. Restarting is decided in `supervise.py`; tests and the external mode
steer runners by hand through `separate.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from promenade.supervisor.errors import PartFailed
from promenade.supervisor.parts import Part
from promenade.supervisor.processes import (
    end_processes,
    exit_text,
    last_words,
    marked_processes,
    memory_of,
    now,
    open_log,
    port_is_free,
    spawn,
)
from promenade.supervisor.state import PartState, Phase

READY_POLL_SECONDS: Final = 0.05
PORTS_FREE_WITHIN: Final = 5.0


class PartRunner:
    """Runs one part of the stack in the data folder `data` and keeps its `state`; `changed` is told of changes."""

    def __init__(self, part: Part, data: Path, changed: Callable[[], None] = lambda: None) -> None:
        self.part = part
        self.data = data
        self.log = data / "logs" / f"{part.name}.log"
        self.state = PartState(ports=part.ports(), log=str(self.log), since=now())
        self.process: asyncio.subprocess.Process | None = None
        self.was_ready = asyncio.Event()
        self._changed = changed

    @property
    def running(self) -> bool:
        """Whether the part's first process lives."""
        return self.process is not None and self.process.returncode is None

    def enter(self, phase: Phase, note: str | None = None) -> None:
        """Note a new phase of the part's life."""
        if phase != self.state.phase or note != self.state.note:
            self.state.phase, self.state.note, self.state.since = phase, note, now()
            self._changed()

    async def start(self) -> None:
        """Start the part's process. Raises PartFailed or StackError where that cannot be done."""
        if self.running:
            raise PartFailed(f"{self.part.name} runs already (pid {self.state.pid})")
        await self._clear_session()
        await asyncio.to_thread(self.part.prepare)
        await self._wait_for_ports()
        self.enter("starting")
        with open_log(self.log) as log:
            log.write(f"--- {self.part.name} starts, {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n".encode())
            self.process = await spawn(self.part.arguments(), self.part.environment(), self.data, log, self.data)
        self.state.pid = self.process.pid
        with contextlib.suppress(psutil.Error):
            self.state.created = psutil.Process(self.process.pid).create_time()
        self._changed()

    async def wait_ready(self, *, patient: bool = False) -> float:
        """Wait until the part is ready and return the seconds from its start.

        patient: go on waiting for one that answers without being ready: it waits for another part itself.
        Raises PartFailed, with the last lines of its log, where it ends first or takes too long.
        """
        process = self.process
        if process is None:
            raise PartFailed(f"{self.part.name} was not started")
        begun = time.monotonic()
        while not await self.part.ready():
            if process.returncode is not None:
                raise PartFailed(
                    f"{self.part.name} ended before it was ready ({exit_text(process.returncode)}); "
                    f"its log {self.log} says:{last_words(self.log)}"
                )
            late = time.monotonic() - begun > self.part.ready_within
            if late and not (patient and await self.part.answers()):
                raise PartFailed(
                    f"{self.part.name} is not ready after {self.part.ready_within:.0f} s; "
                    f"its log {self.log} says:{last_words(self.log)}"
                )
            await asyncio.sleep(READY_POLL_SECONDS)
        seconds = time.monotonic() - begun
        self.state.ready_seconds = seconds
        self.enter("ready")
        self.was_ready.set()
        return seconds

    async def ended(self) -> int:
        """Wait for the end of the part's first process, clear away the others of its session; its exit status."""
        if self.process is None:
            raise PartFailed(f"{self.part.name} was not started")
        code = await self.process.wait()
        await self._clear_session()
        self.state.last_exit = exit_text(code)
        self.state.pid = self.state.created = None
        await asyncio.to_thread(self.part.tidy)
        return code

    async def stop(self, at_once: asyncio.Event | None = None) -> None:
        """Ask the part to end; kill it after its grace, or as soon as `at_once` is set."""
        if self.process is None:
            self.enter("stopped")
            return
        if self.running:
            self.enter("stopping")
            self.signal(signal.SIGTERM)
            hurry = asyncio.create_task((at_once or asyncio.Event()).wait())
            end = asyncio.create_task(self.process.wait())
            await asyncio.wait({hurry, end}, timeout=self.part.stop_grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            end.cancel()
            if self.running:
                self.signal(signal.SIGKILL)
        await self.ended()
        self.enter("stopped")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the part's first process, if it lives."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def members(self) -> list[psutil.Process]:
        """All living processes of the part."""
        if self.process is None:
            return []
        return await asyncio.to_thread(marked_processes, self.data, self.process.pid)

    async def memory(self) -> int:
        """Bytes (PSS) of all processes of the part."""
        return await asyncio.to_thread(memory_of, await self.members())

    async def _clear_session(self) -> None:
        """End what the part's first process left running."""
        if self.process is not None and self.process.returncode is not None:
            await asyncio.to_thread(end_processes, await self.members(), 0.0)

    async def _wait_for_ports(self) -> None:
        """Wait until a killed predecessor's ports are free again; after that the program says it itself."""
        deadline = time.monotonic() + PORTS_FREE_WITHIN
        while time.monotonic() < deadline:
            if all(port_is_free(port) for port in self.part.ports().values()):
                return
            await asyncio.sleep(0.05)


async def stop_all(runners: Sequence[PartRunner], at_once: asyncio.Event | None = None) -> None:
    """Stop parts in their stop order; those of equal order together."""
    for order in sorted({runner.part.stop_order for runner in runners}):
        await asyncio.gather(*(runner.stop(at_once) for runner in runners if runner.part.stop_order == order))


def own_memory() -> int:
    """Bytes (PSS) of this process."""
    return memory_of([psutil.Process(os.getpid())])
