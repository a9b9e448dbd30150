"""Processes, ports, log files and memory: the small tools below the supervisor, all of them Linux.

A part's processes carry the mark PROMENADE_STACK=<data folder> in their environment and share one session.
By that mark leftovers are found, so no foreign process is ever ended, whatever pid it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import psutil

from promenade.settings import LOOPBACK
from promenade.supervisor.errors import PortTaken, StackError

MARK: Final = "PROMENADE_STACK"
START_LINE: Final = re.compile(r"--- \S+ starts, ")
TROUBLE: Final = re.compile(r"error|fail|cannot|refused|denied|panic|in use|no space", re.IGNORECASE)
LOG_BYTES: Final = 5 * 1024 * 1024
LOGS_KEPT: Final = 3
PORTS_OF_A_BLOCK: Final = 20
_CLAIMS: Final = contextlib.ExitStack()
SMALLEST_FREE_DISK: Final = 256 * 1024 * 1024
_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError)


def base_environment() -> dict[str, str]:
    """The environment that every part starts from: the caller's, without credentials and settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PROMENADE_", "AWS_", "WEED_"))}


async def spawn(
    arguments: Sequence[str], environment: Mapping[str, str], stack: Path, log: IO[bytes], folder: Path
) -> asyncio.subprocess.Process:
    """Start a part in a session of its own, marked, tied to this process's life, writing to `log`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCHER),
        str(os.getpid()),
        *arguments,
        env={**environment, MARK: str(stack)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,
    )


def marked_processes(stack: Path, session: int | None = None) -> list[psutil.Process]:
    """All living processes of this user that carry the mark of `stack`, of one session where it is given."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(*_GONE):
            if session is not None and os.getsid(process.pid) != session:
                continue
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if process.environ().get(MARK) == str(stack) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def same_process(pid: int, created: float) -> psutil.Process | None:
    """The process `pid` if it is still the one that was created at `created` (seconds since 1970), else None."""
    with contextlib.suppress(*_GONE):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def end_processes(processes: Iterable[psutil.Process], grace: float) -> None:
    """Ask processes to end, wait `grace` seconds, then kill. psutil refuses to signal a pid that was reused."""
    waiting = list(processes)
    if grace > 0:
        for process in waiting:
            with contextlib.suppress(*_GONE):
                process.terminate()
        waiting = _wait_for(waiting, grace)
    for process in waiting:
        with contextlib.suppress(*_GONE):
            process.kill()
    stubborn = _wait_for(waiting, 5.0)
    if stubborn:
        raise StackError(
            f"process {stubborn[0].pid} does not end even by SIGKILL (a disk that does not answer?); "
            "look at it with: ps -fp " + ",".join(str(process.pid) for process in stubborn)
        )


def _wait_for(processes: list[psutil.Process], patience: float) -> list[psutil.Process]:
    """Wait until processes have ended, reaped or not; those that still live after `patience` seconds."""
    deadline = time.monotonic() + patience
    while living := [process for process in processes if same_process(process.pid, process.create_time())]:
        if time.monotonic() > deadline:
            return living
        time.sleep(0.01)
    return []


def memory_of(processes: Iterable[psutil.Process]) -> int:
    """Bytes of memory of these processes, shared pages counted once among their users (PSS)."""
    total = 0
    for process in processes:
        with contextlib.suppress(*_GONE):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
            total += int(match[1]) * 1024 if match else 0
    return total


def exit_text(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def port_is_free(port: int) -> bool:
    """Whether this process could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> int:
    """The first of `count` (up to 20) loopback ports in a row that are free now, each tried by binding it.

    The same ports 10000 above are free too, as one server insists on that distance. Taken from below the range
    from which the kernel gives ports to outgoing connections: a port from inside that range could be taken by
    such a connection while its part restarts. No other process that asks here is given them while this one lives,
    bound or not: parts bind their ports some time after they were chosen, and again after a restart.

    Raises:
        ValueError: more than 20 ports.
        StackError: there are none.
    """
    if count > PORTS_OF_A_BLOCK:
        raise ValueError(f"{count} ports in a row are more than the {PORTS_OF_A_BLOCK} that are given at once")
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Where there is room, the ports 10000 above lie below that range as well.
    end = max(lowest_outgoing - 10000 if lowest_outgoing > 24000 else lowest_outgoing, 12288)
    for _ in range(200):
        block = random.randrange(10240 // PORTS_OF_A_BLOCK, end // PORTS_OF_A_BLOCK)
        first = block * PORTS_OF_A_BLOCK
        if all(
            port_is_free(port)
            for port in (*range(first, first + count), *range(first + 10000, first + 10000 + count))
        ) and _claim(first):
            return first
    raise StackError(f"found no {count} free ports in a row on {LOOPBACK}: is this machine full of servers?")


def _claim(first: int) -> bool:
    """Claim the block of ports that begins at `first`, and that 10000 above, until this process ends."""
    with contextlib.ExitStack() as claims:
        for start in (first, first + 10000):
            # A name in Linux' abstract namespace: it goes with its process, however that ends, and leaves no file.
            claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            try:
                claim.bind(f"\0promenade-ports-{start}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
        _CLAIMS.push(claims.pop_all())
    return True


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise PortTaken, naming the port and who could hold it, unless all `ports` (by use) are free."""
    numbers = list(ports.values())
    for use, port in ports.items():
        if numbers.count(port) > 1:
            raise PortTaken(f"port {port} is given to {use} and to another part: give each part a port of its own.")
    for use, port in ports.items():
        if not port_is_free(port):
            raise PortTaken(
                f"port {port} ({use}) is in use{_holder_of(port)}. Stop that program, or start on other ports: "
                f"promenade up --ports-from N, or PROMENADE_*_PORT."
            )


def _holder_of(port: int) -> str:
    with contextlib.suppress(*_GONE):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return " by a program of another user" if os.getuid() else ""


def check_disk(folder: Path) -> None:
    """Raise StackError where the disk under `folder` is nearly full."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < SMALLEST_FREE_DISK:
        raise StackError(
            f"the disk of {folder} has only {free // 2**20} MiB left, and the stack needs at least "
            f"{SMALLEST_FREE_DISK // 2**20} MiB: free some space, or give another folder with --data."
        )


def open_log(path: Path) -> IO[bytes]:
    """Open a log file for appending, for the owner alone; a large one is put aside first (three are kept)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            for number in range(LOGS_KEPT - 1, 1, -1):
                older = path.with_name(f"{path.name}.{number - 1}")
                with contextlib.suppress(FileNotFoundError):
                    older.replace(path.with_name(f"{path.name}.{number}"))
            path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb", buffering=0)


def last_words(path: Path, count: int = 4) -> str:
    """What a log says at its end, indented, for an error's text: the last lines that tell of trouble, and the last.

    Lines of earlier starts (above the last line of the form `--- <part> starts`) are left out.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    starts = [number for number, line in enumerate(lines) if START_LINE.match(line)]
    lines = lines[starts[-1] + 1 :] if starts else lines
    telling = [number for number, line in enumerate(lines) if TROUBLE.search(line)][-count:]
    chosen = sorted({*telling, *range(max(0, len(lines) - count), len(lines))})
    return "".join(f"\n  {lines[number][:300]}" for number in chosen)


async def http_status(port: int, path: str, timeout: float = 2.0) -> int | None:  # noqa: ASYNC109
    """Status code of GET `path` on a loopback port; None where nobody answers in `timeout` seconds."""
    answer = await _http(port, path, timeout)
    return answer[0] if answer is not None else None


async def http_get(port: int, path: str, timeout: float = 2.0) -> bytes | None:  # noqa: ASYNC109
    """Body of GET `path` on a loopback port; None where it does not answer 200 in `timeout` seconds."""
    answer = await _http(port, path, timeout)
    return answer[1] if answer is not None and answer[0] == 200 else None


async def _http(port: int, path: str, timeout: float) -> tuple[int, bytes] | None:  # noqa: ASYNC109
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read(65536)).partition(b"\r\n\r\n")
            while head and (more := await reader.read(65536)):
                body += more
        return int(head.split()[1]), body
    except (OSError, TimeoutError, IndexError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.close()


def now() -> float:
    """Seconds since 1970."""
    return time.time()
