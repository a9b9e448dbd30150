"""The supervisor's small tools: secrets, locks, states, ports, logs, leftovers; real processes, no real parts."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from promenade.supervisor import PortTaken, SecretsUnsafe, StackBusy, StackError, down, embedded_settings, stack_state
from promenade.supervisor.embedded import embedded_parts
from promenade.supervisor.leftovers import end_leftovers
from promenade.supervisor.processes import (
    LOG_BYTES,
    MARK,
    check_ports,
    exit_text,
    free_ports,
    marked_processes,
    open_log,
    same_process,
)
from promenade.supervisor.secrets import load_or_make_secrets, load_secrets
from promenade.supervisor.state import FolderLock, PartState, StackState, run_folder, write_state
from promenade.supervisor.supervise import LONGEST_PAUSE_SECONDS, pause_before


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def quiet(text: str) -> None:
    """Say nothing."""


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert load_secrets(data) is None
    first = load_or_make_secrets(data)
    assert mode(data) == 0o700
    assert mode(data / "secrets.json") == 0o600
    assert load_or_make_secrets(data) == first
    assert load_or_make_secrets(tmp_path / "other").s3_secret_key != first.s3_secret_key
    assert [path.name for path in data.iterdir()] == ["secrets.json"]


def test_secrets_that_others_can_read_are_refused_without_showing_them(tmp_path: Path) -> None:
    secrets = load_or_make_secrets(tmp_path / "data")
    path = tmp_path / "data" / "secrets.json"
    path.chmod(0o644)
    with pytest.raises(SecretsUnsafe, match="chmod 600") as caught:
        embedded_settings(tmp_path / "data")
    assert secrets.s3_secret_key.get_secret_value() not in str(caught.value)
    path.chmod(0o600)
    path.parent.chmod(0o777)
    with pytest.raises(SecretsUnsafe, match="chmod 700"):
        embedded_settings(tmp_path / "data")


def test_damaged_secrets_are_refused_without_showing_them(tmp_path: Path) -> None:
    load_or_make_secrets(tmp_path)
    path = tmp_path / "secrets.json"
    for damage in ('{"s3_access_key": "half-of-a-key', '{"s3_access_key": "half-of-a-key"}', "[]"):
        path.write_text(damage)
        with pytest.raises(SecretsUnsafe, match="does not parse") as caught:
            load_secrets(tmp_path)
        assert "half-of-a-key" not in f"{caught.value}{caught.value.__cause__}"


def test_a_held_folder_says_by_whom_since_when_and_on_which_ports(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "up", {"http": 4711}).take(0, quiet)
    with pytest.raises(StackBusy) as caught:
        FolderLock(tmp_path, "up", {}).take(5, quiet)
    for word in (f"pid {os.getpid()}", "since 20", "http 4711", "promenade down"):
        assert word in str(caught.value)
    lock.release()
    FolderLock(tmp_path, "up", {}).take(0, quiet).release()


def test_up_waits_for_a_reading_command_and_says_so(tmp_path: Path) -> None:
    reader = FolderLock(tmp_path, "reader", {}).take(0, quiet)
    threading.Timer(0.4, reader.release).start()
    said: list[str] = []
    FolderLock(tmp_path, "up", {}).take(10, said.append).release()
    assert len(said) == 1
    assert "waiting for a command that reads it" in said[0]


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys,time; from pathlib import Path; from promenade.supervisor.state import FolderLock;"
        "FolderLock(Path(sys.argv[1]), 'up', {}).take(0, print); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StackBusy, match=f"pid {holder.pid}"):
            FolderLock(tmp_path, "up", {}).take(0, quiet)
        holder.kill()
    FolderLock(tmp_path, "up", {}).take(0, quiet).release()


def test_a_taken_port_is_named_with_its_holder() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} \(http\) is in use by .*pid {os.getpid()}.*--ports-from"):
            check_ports({"http": port})


def test_ports_that_do_not_fit_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="cannot start at 65000"):
        embedded_settings(tmp_path, first_port=65000)


def test_one_port_for_two_parts_is_refused() -> None:
    port = free_ports(1)
    with pytest.raises(PortTaken, match="another part"):
        check_ports({"http": port, "broker": port})


def test_logs_are_put_aside_by_size_and_three_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "part.log"
    for number in range(5):
        with open_log(path) as log:
            log.write(b"%d" % number)
            log.truncate(LOG_BYTES + 1)
    with open_log(path) as log:
        log.write(b"small")
    with open_log(path) as log:
        log.write(b" more")
    assert sorted(file.name for file in path.parent.iterdir()) == ["part.log", "part.log.1", "part.log.2"]
    assert path.read_bytes() == b"small more"
    assert (tmp_path / "logs" / "part.log.1").read_bytes()[:1] == b"4"
    assert mode(path) == 0o600


def stray(mark: str | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, MARK: mark} if mark else dict(os.environ)
    process = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
    deadline = time.monotonic() + 5
    while psutil.Process(process.pid).name() != "sleep" and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def state_of(data: Path, pid: int, created: float) -> StackState:
    part = PartState(pid=pid, created=created)
    return StackState(
        pid=pid, created=created, since=0, command="promenade up", data=str(data), ports={}, parts={"store": part}
    )


def test_leftovers_are_ended_and_no_foreign_process_is(tmp_path: Path) -> None:
    data, neighbour = tmp_path / "data", tmp_path / "neighbour"
    run_folder(data).mkdir(parents=True)
    marked, noted, foreign, reused = stray(str(data)), stray(None), stray(str(neighbour)), stray(None)
    try:
        created = psutil.Process(noted.pid).create_time()
        state = state_of(data, noted.pid, created)
        # The pid of this part now belongs to a program that was created later: it must live.
        state.parts["broker"] = PartState(pid=reused.pid, created=created - 1000)
        write_state(data, state)
        said: list[str] = []
        assert end_leftovers(data, said.append) == sorted([marked.pid, noted.pid])
        assert "sleep" in said[0]
        assert marked.wait(5) == -signal.SIGTERM
        assert noted.wait(5) == -signal.SIGTERM
        assert foreign.poll() is None
        assert reused.poll() is None
        assert [process.pid for process in marked_processes(neighbour)] == [foreign.pid]
        assert end_leftovers(data, said.append) == []
    finally:
        for process in (marked, noted, foreign, reused):
            process.kill()
            process.wait()


def test_a_state_tells_whether_its_supervisor_lives(tmp_path: Path) -> None:
    assert stack_state(tmp_path) is None
    run_folder(tmp_path).mkdir()
    own = psutil.Process().create_time()
    write_state(tmp_path, state_of(tmp_path, os.getpid(), own))
    living = stack_state(tmp_path)
    assert living is not None
    assert living.alive
    write_state(tmp_path, state_of(tmp_path, os.getpid(), own - 1000))
    dead = stack_state(tmp_path)
    assert dead is not None
    assert not dead.alive
    assert same_process(os.getpid(), own - 1000) is None
    (run_folder(tmp_path) / "stack.json").write_text(json.dumps({"version": 2}))
    assert stack_state(tmp_path) is None


def test_down_says_plainly_that_nothing_runs(tmp_path: Path) -> None:
    said: list[str] = []
    assert not down(tmp_path / "nowhere", say=said.append)
    assert not down(tmp_path, say=said.append)
    assert "does not exist" in said[0]
    assert said[1] == f"nothing runs in {tmp_path}"


def test_pauses_between_restarts_grow_and_stay_bounded() -> None:
    for attempt in range(1, 40):
        pauses = [pause_before(attempt) for _ in range(50)]
        middle = min(0.2 * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
        assert all(0.5 * middle <= pause <= 1.5 * middle for pause in pauses)
        assert len(set(pauses)) > 1


def test_ends_are_told_in_words() -> None:
    assert exit_text(3) == "exit code 3"
    assert exit_text(-9) == "killed by SIGKILL"
    assert exit_text(-200) == "killed by signal 200"


def test_ports_that_one_process_was_given_are_given_to_no_other_while_it_lives() -> None:
    program = "from promenade.supervisor.processes import _claim; import sys; sys.exit(not _claim(int(sys.argv[1])))"

    def may_have(first: int) -> bool:
        return subprocess.run([sys.executable, "-c", program, str(first)], check=False).returncode == 0

    first = free_ports(20)
    assert not may_have(first)
    # One server of a stack listens 10000 above.
    assert not may_have(first + 10000)
    holder = subprocess.run(
        [sys.executable, "-c", "from promenade.supervisor.processes import free_ports; print(free_ports(20))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert may_have(int(holder.stdout))


def test_parts_that_all_hang_are_given_less_than_ten_seconds_together(tmp_path: Path) -> None:
    graces: dict[int, float] = {}
    for part in embedded_parts(embedded_settings(tmp_path)):
        graces[part.stop_order] = max(graces.get(part.stop_order, 0.0), part.stop_grace)
    assert sum(graces.values()) < 10


def test_more_ports_than_are_claimed_are_not_given() -> None:
    with pytest.raises(ValueError, match="21 ports"):
        free_ports(21)
