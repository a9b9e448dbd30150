"""What is known about a stack from outside: the lock on its data folder, and `run/stack.json`.

The lock (flock on `<data>/run/lock`) is the truth about who may touch the folder; it goes with its process,
however that ends. The file's text says who holds it. `stack.json` is written atomically at every change.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from promenade.supervisor.errors import StackBusy, check_folder
from promenade.supervisor.processes import same_process

PartName = str
Phase = Literal["waiting", "starting", "ready", "not answering", "restarting", "stopping", "stopped"]
SCHEMA: Final = 1


class PartState(BaseModel):
    """One part as the supervisor sees it. Times are seconds since 1970."""

    model_config = ConfigDict(extra="ignore")

    phase: Phase = "waiting"
    since: float = 0.0
    pid: int | None = None
    created: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    note: str | None = None
    ready_seconds: float | None = None
    memory_bytes: int | None = None
    ports: dict[str, int] = {}
    log: str = ""


class StackState(BaseModel):
    """A stack as `run/stack.json` tells it; `alive` is worked out at reading."""

    model_config = ConfigDict(extra="ignore")

    version: Literal[1] = SCHEMA
    pid: int
    created: float
    since: float
    command: str
    data: str
    ports: dict[str, int]
    store_first_port: int = 0
    phase: Literal["starting", "up", "stopping", "stopped", "failed"] = "starting"
    problem: str | None = None
    ready_seconds: float | None = None
    memory_bytes: int | None = None
    parts: dict[PartName, PartState] = {}
    alive: bool = False


def run_folder(data: Path) -> Path:
    """Where locks and states lie."""
    return data / "run"


def state_path(data: Path) -> Path:
    """Where the stack's state is written."""
    return run_folder(data) / "stack.json"


def write_state(data: Path, state: StackState) -> None:
    """Write the state atomically."""
    path = state_path(data)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(state.model_dump_json(indent=1, exclude={"alive"}))
    temporary.chmod(0o600)
    temporary.replace(path)


def stack_state(data: Path) -> StackState | None:
    """The state of the stack in `data`; None where none ever started. `alive` says if its supervisor lives.

    Raises StackError where `data` is no folder, and OSError where it may not be read.
    """
    check_folder(data.resolve())
    try:
        state = StackState.model_validate_json(state_path(data.resolve()).read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError):
        return None
    state.alive = same_process(state.pid, state.created) is not None
    return state


def moment(seconds: float) -> str:
    """A time in seconds since 1970 as people of this machine read it."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


class Holder(BaseModel):
    """Who holds the lock."""

    model_config = ConfigDict(extra="ignore")

    pid: int
    since: float
    purpose: Literal["up", "parts", "reader"]
    command: str
    ports: dict[str, int] = {}

    def text(self) -> str:
        """The holder in words."""
        what = {
            "up": "a running stack",
            "parts": "separately started parts",
            "reader": "a command that reads it",
        }[self.purpose]
        listed = ", ".join(f"{name} {port}" for name, port in self.ports.items())
        ports = f"; ports {listed}" if listed else ""
        return f"{what} (pid {self.pid}, since {moment(self.since)}, `{self.command}`{ports})"


def own_command() -> str:
    """This process's command line, short enough for a sentence. No secrets are ever on it."""
    program = Path(sys.argv[0])
    words = [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]
    return " ".join(words)[:200]


class FolderLock:
    """Exclusive right to a data folder, for one of three purposes.

    A reading command takes it too: two object stores on one folder would spoil it. So readers follow one
    another, and `up` waits for them, as they take seconds.
    """

    def __init__(self, data: Path, purpose: Literal["up", "parts", "reader"], ports: dict[str, int]) -> None:
        self.data = data
        self.path = run_folder(data) / "lock"
        self.holder = Holder(pid=os.getpid(), since=time.time(), purpose=purpose, command=own_command(), ports=ports)
        self._descriptor: int | None = None

    def take(self, patience: float, say: Callable[[str], None]) -> Self:
        """Take the lock; waits up to `patience` seconds for a reading command, not for a running stack.

        Raises StackBusy, saying who holds it and what to do.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self.held_by()
                # A holder writes its name just after taking the lock: an unknown one is given a moment as well.
                passing = holder is None or holder.purpose == "reader"
                if not passing or time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise StackBusy(self._busy_text(holder)) from None
                if not told and holder is not None:
                    say(f"waiting for {holder.text()}")
                    told = True
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self.holder.model_dump_json().encode(), 0)
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def held_by(self) -> Holder | None:
        """Who says to hold the lock; None where nobody does."""
        try:
            return Holder.model_validate(json.loads(self.path.read_text()))
        except (OSError, ValueError, ValidationError):
            return None

    def _busy_text(self, holder: Holder | None) -> str:
        who = holder.text() if holder is not None else "another process"
        advice = "Stop it with `promenade down`" if holder is None or holder.purpose == "up" else "Wait for it to end"
        return f"{self.data} is held by {who}. {advice}, or give another folder with --data."


def own_creation_time() -> float:
    """When this process was created, as psutil tells it to others."""
    return float(psutil.Process().create_time())
