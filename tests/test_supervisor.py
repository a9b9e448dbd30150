"""The supervisor with the real object store and broker: start, faults, stop, and nothing left over.

Each test runs a supervisor as a process of its own (`python -m promenade.supervisor`) or parts in this process,
on free ports, in a folder of its own. The model server and the worker have tests of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from promenade.settings import Settings
from promenade.supervisor import (
    PartFailed,
    StackBusy,
    StackError,
    StackState,
    borrowed_object_store,
    down,
    embedded_settings,
    separate_settings,
    stack_state,
    start_parts,
    up,
)
from promenade.supervisor.parts import Part, kafka_answers, object_store_client
from promenade.supervisor.processes import base_environment, http_status, marked_processes
from promenade.supervisor.supervise import keep_up
from tests.patience import deadline, patient

pytestmark = [pytest.mark.stack, pytest.mark.timeout(patient(60))]
PARTS = ("store", "broker")


def quiet(text: str) -> None:
    """Say nothing."""


def until(condition: Callable[[], bool], what: str, patience: float = 20.0) -> None:
    end = deadline(patience)
    while not condition():
        assert time.monotonic() < end, f"waited {patient(patience):.0f} s in vain: {what}"
        time.sleep(0.05)


def put(settings: Settings, name: str, content: bytes) -> None:
    object_store_client(settings).put_object(settings.bucket, name, io.BytesIO(content), len(content))


def get(settings: Settings, name: str) -> bytes:
    answer = object_store_client(settings).get_object(settings.bucket, name)
    try:
        return bytes(answer.read())
    finally:
        answer.close()


def state_of(settings: Settings) -> StackState:
    state = stack_state(settings.data)
    assert state is not None
    return state


class Running:
    """A supervisor in a process of its own, and its settings."""

    def __init__(self, settings: Settings, process: subprocess.Popen[str], output: Path) -> None:
        self.settings, self.process, self.output = settings, process, output

    @property
    def state(self) -> StackState:
        return state_of(self.settings)

    def wait_for(self, phase: str) -> None:
        def reached() -> bool:
            state = stack_state(self.settings.data)
            ours = state is not None and state.pid == self.process.pid and state.phase == phase
            assert ours or self.process.poll() is None, self.output.read_text()
            return ours

        until(reached, f"the stack is {phase}")


def start_supervisor(settings: Settings) -> Running:
    output = settings.data / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "promenade.supervisor", "--parts", ",".join(PARTS)],
            env={**os.environ, **settings.environment(secrets=False)},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Running(settings, process, output)


@contextlib.contextmanager
def running_stack(data: Path) -> Iterator[Running]:
    running = start_supervisor(separate_settings(data))
    try:
        running.wait_for("up")
        yield running
    finally:
        running.process.terminate()
        try:
            running.process.wait(patient(15))
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
        left = marked_processes(running.settings.data)
        for process in left:
            process.kill()
    assert left == []


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Running]:
    with running_stack(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One stack for all tests that only look at it."""
    with running_stack(tmp_path_factory.mktemp("undisturbed") / "data") as running:
        yield running


def test_a_second_up_says_what_holds_the_folder(undisturbed: Running) -> None:
    with pytest.raises(StackBusy) as caught:
        up(undisturbed.settings, which=PARTS)
    for word in (
        f"pid {undisturbed.process.pid}",
        "since 20",
        f"s3 {undisturbed.settings.s3_port}",
        "promenade down",
    ):
        assert word in str(caught.value)
    assert undisturbed.state.alive


def test_every_part_that_is_killed_comes_back_with_what_it_held(stack: Running) -> None:
    put(stack.settings, "kept", b"acknowledged")
    for name in PARTS:
        before = stack.state.parts[name]
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        until(lambda n=name: stack.state.parts[n].restarts == 1, f"{name} is started again")  # type: ignore[misc]
        until(lambda n=name: stack.state.parts[n].phase == "ready", f"{name} is ready again")  # type: ignore[misc]
        after = stack.state.parts[name]
        assert after.pid != before.pid
        assert after.last_exit == "killed by SIGKILL"
    assert get(stack.settings, "kept") == b"acknowledged"
    assert asyncio.run(kafka_answers(stack.settings.broker_port))
    assert "ready again" in stack.output.read_text()


def test_a_hanging_part_does_not_keep_the_stack_from_stopping_in_time(stack: Running) -> None:
    for name in PARTS:
        pid = stack.state.parts[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(patient(15)) == 0
    assert time.monotonic() - begun < patient(10)
    assert {part.phase for part in stack.state.parts.values()} == {"stopped"}
    assert not stack.state.alive
    assert marked_processes(stack.settings.data) == []


def test_a_stack_that_is_still_starting_stops_as_well(tmp_path: Path) -> None:
    starting = start_supervisor(separate_settings(tmp_path / "data"))
    starting.wait_for("starting")
    starting.process.send_signal(signal.SIGTERM)
    assert starting.process.wait(patient(10)) == 0
    assert starting.state.phase == "stopped"
    assert marked_processes(starting.settings.data) == []


def test_a_second_signal_stops_at_once(stack: Running) -> None:
    for name in PARTS:
        pid = stack.state.parts[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    stack.process.send_signal(signal.SIGINT)
    until(lambda: stack.state.phase == "stopping", "the stack is stopping")
    stack.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert stack.process.wait(patient(15)) == 0
    # In order the two, which hang, are given 3.7 s, one after the other.
    assert time.monotonic() - begun < patient(1)


def test_parts_die_with_a_killed_supervisor_and_the_next_up_starts_clean(stack: Running) -> None:
    put(stack.settings, "kept", b"acknowledged")
    stack.process.kill()
    stack.process.wait()
    until(lambda: marked_processes(stack.settings.data) == [], "the parts follow their supervisor", 5)
    assert not stack.state.alive
    # A process that outlived it nevertheless is ended by the next start.
    survivor = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, "PROMENADE_STACK": str(stack.settings.data)}, start_new_session=True
    )
    again = start_supervisor(stack.settings)
    try:
        again.wait_for("up")
        assert survivor.wait(5) == -signal.SIGTERM
        assert "killed predecessor left running: sleep" in again.output.read_text()
        assert get(stack.settings, "kept") == b"acknowledged"
    finally:
        again.process.terminate()
        assert again.process.wait(patient(15)) == 0


def test_no_secret_is_on_a_command_line_or_in_a_log(undisturbed: Running) -> None:
    put(undisturbed.settings, "something", b"so that requests are logged")
    secrets = [
        value.get_secret_value()
        for value in (
            undisturbed.settings.s3_access_key,
            undisturbed.settings.s3_secret_key,
        )
        if value is not None
    ]
    assert len(secrets) == 2
    lines = b""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines += (folder / "cmdline").read_bytes()
    assert b"weed" in lines
    folder = undisturbed.settings.data
    texts = [lines, undisturbed.output.read_bytes()]
    texts += [path.read_bytes() for path in [*(folder / "logs").iterdir(), folder / "run" / "stack.json"]]
    assert len(texts) >= 5
    for secret in secrets:
        assert not any(secret.encode() in text for text in texts)


def test_all_ports_are_on_loopback_and_are_those_that_were_given(undisturbed: Running) -> None:
    given = {port for part in undisturbed.state.parts.values() for port in part.ports.values()}
    for process in marked_processes(undisturbed.settings.data):
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
                assert connection.laddr.port in given


def test_the_stores_inner_servers_serve_nobody_without_a_signature(undisturbed: Running) -> None:
    put(undisturbed.settings, "private", b"for those with credentials")
    ports = undisturbed.state.parts["store"].ports
    path = f"/buckets/{undisturbed.settings.bucket}/private"
    assert asyncio.run(http_status(ports["filer.port"], path)) == 401
    assert asyncio.run(http_status(ports["s3"], f"/{undisturbed.settings.bucket}/private")) == 403


def test_a_reading_command_uses_the_running_stack(undisturbed: Running) -> None:
    put(undisturbed.settings, "kept", b"seen through the stack")

    async def read() -> bytes:
        async with borrowed_object_store(undisturbed.settings.data) as settings:
            assert settings.s3_port == undisturbed.settings.s3_port
            return await asyncio.to_thread(get, settings, "kept")

    assert asyncio.run(read()) == b"seen through the stack"


def test_detached_up_returns_when_ready_and_down_ends_it(tmp_path: Path) -> None:
    settings = separate_settings(tmp_path / "data")
    said: list[str] = []
    up(settings, foreground=False, which=PARTS, say=said.append)
    try:
        state = state_of(settings)
        assert state.alive
        assert state.phase == "up"
        assert any("everything is ready after" in line for line in said)
        with pytest.raises(StackError, match=f"pid {state.pid}"):
            up(settings, foreground=False, which=PARTS, say=quiet)
    finally:
        assert down(settings.data, say=quiet)
    assert not state_of(settings).alive
    assert marked_processes(settings.data) == []


async def test_two_stacks_run_side_by_side_and_know_nothing_of_each_other(tmp_path: Path) -> None:
    one = separate_settings(tmp_path / "one, with, commas")
    async with start_parts(one, PARTS):
        two = separate_settings(tmp_path / "two")
        async with start_parts(two, PARTS) as second:
            await asyncio.to_thread(put, one, "name", b"one")
            await asyncio.to_thread(put, two, "name", b"two")
            await second.kill("store")
            assert await asyncio.to_thread(get, one, "name") == b"one"
            await second.start("store")
            assert await asyncio.to_thread(get, two, "name") == b"two"


async def test_a_paused_part_keeps_silent_until_it_is_resumed(tmp_path: Path) -> None:
    settings = separate_settings(tmp_path / "data")
    async with start_parts(settings, ("store",)) as parts:
        await parts.pause("store")
        assert await http_status(settings.s3_port, "/healthz", timeout=0.3) is None
        await parts.resume("store")
        assert await http_status(settings.s3_port, "/healthz") == 200
        with pytest.raises(StackBusy, match="separately started parts"):
            async with borrowed_object_store(settings.data):
                pass
    assert marked_processes(settings.data) == []


async def test_reading_commands_borrow_the_store_in_turn_when_nothing_is_up(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="promenade up"):
        async with borrowed_object_store(tmp_path / "nowhere"):
            pass
    settings = separate_settings(tmp_path / "data")
    async with start_parts(settings, ("store",)):
        await asyncio.to_thread(put, settings, "kept", b"from the folder")
    said: list[str] = []

    async def read() -> bytes:
        async with borrowed_object_store(settings.data, say=said.append) as borrowed:
            return await asyncio.to_thread(get, borrowed, "kept")

    one, other = await asyncio.gather(read(), read())
    assert one == other == b"from the folder"
    assert any("waiting for a command that reads it" in line for line in said)
    assert marked_processes(settings.data) == []
    assert len(list((settings.data / "store").glob("m[0-9]*"))) == 1


@dataclass(frozen=True, kw_only=True)
class Script(Part):
    """A part that runs a small Python program and is ready when it has written a file."""

    program: str
    mark: Path
    name: str = "script"
    stop_grace: float = 0.5
    ready_within: float = 10.0
    variables: dict[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.mark)]

    def environment(self) -> dict[str, str]:
        return {**base_environment(), **self.variables}

    async def ready(self) -> bool:
        return self.mark.exists()


@contextlib.asynccontextmanager
async def kept_up(settings: Settings, part: Part) -> AsyncIterator[None]:
    task = asyncio.create_task(keep_up(settings, [part], quiet))
    try:
        while (state := stack_state(settings.data)) is None or state.phase != "up":
            assert not task.done()
            await asyncio.sleep(0.05)
        yield
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_a_part_that_never_becomes_ready_ends_up_with_its_logs_last_words(tmp_path: Path) -> None:
    settings = embedded_settings(tmp_path / "data")
    part = Script(program="import sys; sys.exit('the flux is misaligned')", mark=tmp_path / "never")
    with pytest.raises(PartFailed, match=r"(?s)script ended before it was ready \(exit code 1\).*flux is misaligned"):
        await keep_up(settings, [part], quiet)
    state = state_of(settings)
    assert state.phase == "failed"
    assert state.parts["script"].restarts == 2
    assert "misaligned" in (state.problem or "")


async def test_a_part_deaf_to_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    program = (
        "import signal,subprocess,sys,time,pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen(['sleep','60'], start_new_session=True); pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    settings = embedded_settings(tmp_path / "data")
    async with kept_up(settings, Script(program=program, mark=tmp_path / "ready")):
        assert len(marked_processes(settings.data)) == 2
    assert state_of(settings).parts["script"].last_exit == "killed by SIGKILL"
    assert marked_processes(settings.data) == []
