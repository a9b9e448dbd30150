"""The supervisor: starts the parts, keeps them alive, and stops them; `up` and `down` for the command line.

Parts start as soon as what they need is ready, the others at once. One that dies is started again after a
pause that doubles with each failure (with jitter, forgotten after a minute of health). Until the whole stack
was ready for the first time, a part that keeps failing ends `up` with its log's last words instead: a person
is waiting, and an error in the set-up does not mend itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from promenade.settings import Settings
from promenade.supervisor.embedded import chosen_parts
from promenade.supervisor.errors import PartFailed, StackError
from promenade.supervisor.leftovers import end_leftovers
from promenade.supervisor.parts import Part
from promenade.supervisor.processes import check_disk, check_ports, now, open_log, same_process
from promenade.supervisor.runner import PartRunner, own_memory, stop_all
from promenade.supervisor.state import (
    FolderLock,
    StackState,
    moment,
    own_command,
    own_creation_time,
    stack_state,
    write_state,
)

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 20.0
HEALTHY_AFTER_SECONDS: Final = 60.0
ATTEMPTS_BEFORE_READY: Final = 3
WATCH_SECONDS: Final = 2.0
HUNG_AFTER_SECONDS: Final = 60.0
MEMORY_EVERY_SECONDS: Final = 30.0
READER_PATIENCE_SECONDS: Final = 30.0
DOWN_PATIENCE_SECONDS: Final = 15.0

# SIGHUP comes when the terminal is closed.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


def say_aloud(text: str) -> None:
    """Print a line at once, also into a pipe; that nobody reads any more must not end the stack."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def pause_before(attempt: int) -> float:
    """Seconds to wait before the restart number `attempt` (from 1): doubling, capped, spread by a half each way."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.5)


def size_text(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"


class Supervisor:
    """Keeps `parts` alive in the data folder of `settings`, whose lock the caller holds."""

    def __init__(self, settings: Settings, parts: Sequence[Part], say: Say, since: float | None = None) -> None:
        self.settings = settings
        self.data = settings.data.resolve()
        self.say = say
        self.begun = since if since is not None else now()
        self.runners = {part.name: PartRunner(part, self.data, self._write) for part in parts}
        self.stopping = asyncio.Event()
        self.at_once = asyncio.Event()
        self.problem: StackError | None = None
        self.state = StackState(
            pid=os.getpid(),
            created=own_creation_time(),
            since=self.begun,
            command=own_command(),
            data=str(self.data),
            ports=settings.embedded_ports(),
            store_first_port=settings.store_first_port,
            parts={name: runner.state for name, runner in self.runners.items()},
        )

    async def run(self) -> None:
        """Run until a signal asks to stop. Raises PartFailed where the stack never became ready."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.ask_to_stop)
        self._write()
        keepers = [asyncio.create_task(self._keep(runner)) for runner in self.runners.values()]
        herald = asyncio.create_task(self._announce())
        for task in (*keepers, herald):
            task.add_done_callback(self._notice_failure)
        try:
            await self.stopping.wait()
        finally:
            begun = time.monotonic()
            self._enter("stopping")
            for task in (*keepers, herald):
                task.cancel()
            await asyncio.gather(*keepers, herald, return_exceptions=True)
            await stop_all(list(self.runners.values()), self.at_once)
            await asyncio.to_thread(end_leftovers, self.data, self.say)
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
            self.state.problem = str(self.problem) if self.problem else None
            self._enter("failed" if self.problem else "stopped")
            self.say(f"stopped in {time.monotonic() - begun:.1f} s; the data stays in {self.data}")
        if self.problem is not None:
            raise self.problem

    def ask_to_stop(self) -> None:
        """First call: stop in order. Second call: kill everything at once."""
        if self.stopping.is_set():
            self.at_once.set()
        else:
            self.say("stopping (once more to stop at once)")
            self.stopping.set()

    def _notice_failure(self, task: asyncio.Task[None]) -> None:
        """A fault of the supervisor itself must not leave a part unwatched: stop and say it."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.problem = self.problem or StackError(f"the supervisor failed: {type(error).__name__}: {error}")
            self.stopping.set()

    async def _keep(self, runner: PartRunner) -> None:
        """Start a part when its needs are ready, and again whenever it ends."""
        for need in runner.part.needs:
            if need in self.runners:
                await self.runners[need].was_ready.wait()
        failures = 0
        while True:
            problem: StackError | None = None
            begun = time.monotonic()
            try:
                await runner.start()
                seconds = await runner.wait_ready(patient=runner.was_ready.is_set())
                ports = ", ".join(f"port {port}" for port in list(runner.part.ports().values())[:1])
                again = " again" if runner.state.restarts else ""
                self.say(f"  {runner.part.name:8} ready{again} after {seconds:5.1f} s   ({ports})")
                begun = time.monotonic()
                await self._watch(runner)
            except (StackError, OSError) as error:
                problem = error if isinstance(error, StackError) else StackError(f"{runner.part.name}: {error}")
                if runner.running:
                    runner.signal(signal.SIGKILL)
                if runner.process is not None:
                    await runner.ended()
            if time.monotonic() - begun > HEALTHY_AFTER_SECONDS:
                failures = 0
            failures += 1
            if problem is not None and self.state.ready_seconds is None:
                cannot_start = runner.process is None or not isinstance(problem, PartFailed)
                if cannot_start or failures >= ATTEMPTS_BEFORE_READY:
                    self.problem = problem
                    self.stopping.set()
                    return
            pause = pause_before(failures)
            why = str(problem).partition(";")[0] if problem is not None else f"ended ({runner.state.last_exit})"
            runner.state.restarts += 1
            runner.enter("restarting", why)
            why = why.removeprefix(f"{runner.part.name} ")
            self.say(f"  {runner.part.name:8} {why}; starting again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def _watch(self, runner: PartRunner) -> None:
        """Return once the part has ended; one that stops answering for a minute is killed."""
        process = runner.process
        if process is None:
            return
        end = asyncio.create_task(runner.ended())
        silent_since: float | None = None
        try:
            while not end.done():
                await asyncio.wait({end}, timeout=WATCH_SECONDS)
                if end.done():
                    break
                if await runner.part.answers():
                    silent_since = None
                    runner.enter("ready")
                    healed = await runner.part.heal(process.pid)
                    if healed:
                        self.say(f"  {runner.part.name:8} {healed}")
                    continue
                if process.returncode is not None:
                    continue
                silent_since = silent_since or time.monotonic()
                runner.enter("not answering")
                if time.monotonic() - silent_since > HUNG_AFTER_SECONDS:
                    self.say(f"  {runner.part.name:8} has not answered for {HUNG_AFTER_SECONDS:.0f} s: killing it")
                    runner.signal(signal.SIGKILL)
            await end
        finally:
            end.cancel()

    async def _announce(self) -> None:
        """Say when everything is ready, and keep the memory figures fresh after that."""
        for runner in self.runners.values():
            await runner.was_ready.wait()
        self.state.ready_seconds = now() - self.begun
        await self._measure_memory()
        self._enter("up")
        parts = ", ".join(
            f"{name} {size_text(runner.state.memory_bytes or 0)}" for name, runner in self.runners.items()
        )
        self.say(f"everything is ready after {self.state.ready_seconds:.1f} s")
        self.say(f"memory {size_text(self.state.memory_bytes or 0)} ({parts}, supervisor {size_text(own_memory())})")
        self.say(f"http://{self.settings.http_host}:{self.settings.http_port}   data: {self.data}")
        while True:
            await asyncio.sleep(MEMORY_EVERY_SECONDS)
            await self._measure_memory()
            self._write()

    async def _measure_memory(self) -> None:
        total = await asyncio.to_thread(own_memory)
        for runner in self.runners.values():
            runner.state.memory_bytes = await runner.memory()
            total += runner.state.memory_bytes
        self.state.memory_bytes = total

    def _enter(self, phase: str) -> None:
        self.state.phase = phase  # type: ignore[assignment]
        self._write()

    def _write(self) -> None:
        # A full disk must not end the supervisor: the state is for onlookers.
        with contextlib.suppress(OSError):
            write_state(self.data, self.state)


def up(
    settings: Settings, *, foreground: bool = True, which: Sequence[str] | None = None, say: Say = say_aloud
) -> None:
    """Start the embedded stack of `settings` (made by `embedded_settings`).

    In the foreground it runs until SIGINT or SIGTERM; a second signal kills at once. In the background it
    returns once everything is ready. Raises StackError in words for the person at the terminal: the folder is
    held (StackBusy), a port is in use (PortTaken), a part does not become ready (PartFailed), ...
    which: names of the parts to keep up; None means all of them.
    """
    if foreground:
        asyncio.run(keep_up(settings, chosen_parts(settings, which), say))
    else:
        chosen_parts(settings, which)
        _up_in_background(settings, which, say)


async def keep_up(settings: Settings, parts: Sequence[Part], say: Say = say_aloud) -> None:
    """Take the data folder, clear it of leftovers, and keep `parts` up until a signal; raises as `up`."""
    begun = now()
    data = settings.data.resolve()
    lock = FolderLock(data, "up", settings.embedded_ports())
    await asyncio.to_thread(lock.take, READER_PATIENCE_SECONDS, say)
    try:
        check_disk(data)
        await asyncio.to_thread(end_leftovers, data, say)
        check_ports({use: port for part in parts for use, port in part.ports().items()})
        say(f"starting {', '.join(part.name for part in parts)}; logs in {data / 'logs'}")
        await Supervisor(settings, parts, say, begun).run()
    finally:
        lock.release()


def _up_in_background(settings: Settings, which: Sequence[str] | None, say: Say) -> None:
    data = settings.data.resolve()
    log_path = data / "logs" / "supervisor.log"
    with open_log(log_path) as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, names checked above
            [sys.executable, "-m", "promenade.supervisor", *(["--parts", ",".join(which)] if which else [])],
            env={**os.environ, **settings.environment(secrets=False)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data,
            start_new_session=True,
        )
    try:
        _follow(process, data, log_path, say)
    except KeyboardInterrupt:
        say("the stack goes on starting in the background; stop it with: promenade down")
        raise
    say(f"http://{settings.http_host}:{settings.http_port}   data: {data}   stop with: promenade down")


def _follow(process: subprocess.Popen[bytes], data: Path, log_path: Path, say: Say) -> None:
    """Tell how a stack in the background starts, until all of it is ready. Raises StackError where it ends."""
    told: set[str] = set()
    while True:
        ended = process.poll()
        state = stack_state(data)
        if state is not None and state.pid == process.pid:
            for name, part in state.parts.items():
                if part.ready_seconds is not None and name not in told:
                    told.add(name)
                    say(f"  {name:8} ready after {part.ready_seconds:5.1f} s")
            if ended is not None and state.problem:
                raise StackError(state.problem)
            if state.phase == "up":
                say(f"everything is ready after {state.ready_seconds or 0:.1f} s")
                say(f"memory {size_text(state.memory_bytes or 0)}")
                return
        if ended is not None:
            # The last line of the background process is its error, in words made for people.
            lines = log_path.read_text(errors="replace").splitlines()
            raise StackError(lines[-1] if lines else f"the supervisor ended without a word; see {log_path}")
        time.sleep(0.05)


def down(data: Path, *, say: Say = say_aloud) -> bool:
    """Stop the stack of `data` and wait until it is gone; False, with words, where nothing runs.

    Raises StackError where something else than a stack holds the folder.
    """
    data = data.resolve()
    state = stack_state(data)
    process = same_process(state.pid, state.created) if state is not None else None
    if state is None or process is None:
        if not data.exists():
            say(f"nothing runs: {data} does not exist")
            return False
        lock = FolderLock(data, "reader", {}).take(READER_PATIENCE_SECONDS, say)
        try:
            if end_leftovers(data, say):
                return True
        finally:
            lock.release()
        say(f"nothing runs in {data}")
        return False
    say(f"stopping the stack of {data} (pid {state.pid}, up since {moment(state.since)})")
    begun = time.monotonic()
    for patience in (DOWN_PATIENCE_SECONDS, 5.0):
        process.terminate()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if same_process(state.pid, state.created) is None:
                say(f"stopped in {time.monotonic() - begun:.1f} s")
                return True
            time.sleep(0.05)
    process.kill()
    lock = FolderLock(data, "reader", {}).take(READER_PATIENCE_SECONDS, say)
    try:
        end_leftovers(data, say)
    finally:
        lock.release()
    say("the supervisor did not stop in time and was killed; everything it ran is gone")
    return True
