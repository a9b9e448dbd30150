"""What a killed supervisor left: processes, sockets and shared memory, cleared before ports are used again.

Called only by whoever holds the lock on the data folder, so nothing that is found can have a living owner.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from promenade.supervisor.processes import end_processes, marked_processes, same_process
from promenade.supervisor.state import stack_state

GRACE_SECONDS: Final = 1.0


def end_leftovers(data: Path, say: Callable[[str], None]) -> list[int]:
    """End the processes of the stack in `data` that outlived their supervisor; their pids.

    Found by the mark in their environment, and by pid with time of creation as `run/stack.json` noted them.
    A pid that went to another program in the meantime has another time of creation and is left alone.
    """
    found = {process.pid: process for process in marked_processes(data)}
    state = stack_state(data)
    for part in state.parts.values() if state is not None else ():
        if part.pid is not None and part.created is not None:
            process = same_process(part.pid, part.created)
            if process is not None:
                found[process.pid] = process
    if found:
        names = ", ".join(sorted({_name(process) for process in found.values()}))
        say(f"ending what a killed predecessor left running: {names}")
        end_processes(found.values(), GRACE_SECONDS)
    return sorted(found)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "a process"
