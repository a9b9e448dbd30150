"""The whole embedded stack under the supervisor: it comes up, tells its memory, keeps secrets, and goes away in time.

Needs the serving environment (`make setup`) and built models (`promenade models build`); says so where they lack.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from infra.serving import triton
from promenade.settings import CLONE, Settings
from promenade.supervisor import StackState, down, separate_settings, stack_state, up
from promenade.supervisor.processes import http_status, marked_processes
from tests.patience import deadline, patient

SERVER = CLONE / ".serving" / "lib" / "python3.11" / "site-packages" / "pytriton"
BUILT = CLONE / "model_repository" / "edge" / "minilm" / "1" / "model.onnx"

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(patient(180)),
    pytest.mark.skipif(not SERVER.exists(), reason=f"no model server in {CLONE / '.serving'}: make setup"),
    pytest.mark.skipif(not BUILT.exists(), reason="models are not built: promenade models build"),
]


def state_of(settings: Settings) -> StackState:
    state = stack_state(settings.data)
    assert state is not None
    return state


def pid_of(settings: Settings, name: str) -> int:
    pid = state_of(settings).parts[name].pid
    assert pid is not None
    return pid


def wait_until_ready(settings: Settings, name: str, restarts: int) -> None:
    end = deadline(60)
    while True:
        part = state_of(settings).parts[name]
        if part.phase == "ready" and part.restarts == restarts:
            return
        assert time.monotonic() < end, f"{name} is {part.phase} after {part.restarts} restarts"
        time.sleep(0.1)


def test_the_whole_stack_comes_up_bears_kills_keeps_secrets_and_stops_in_time(tmp_path: Path) -> None:
    settings = separate_settings(tmp_path / "data")
    said: list[str] = []
    up(settings, foreground=False, say=said.append)
    try:
        state = state_of(settings)
        assert state.phase == "up"
        assert set(state.parts) == {"store", "broker", "models", "worker"}
        assert state.memory_bytes is not None
        assert 0 < state.memory_bytes < 2.5e9
        assert sum(part.memory_bytes or 0 for part in state.parts.values()) <= state.memory_bytes
        assert asyncio.run(http_status(settings.http_port, "/ready")) == 200
        for process in marked_processes(settings.data):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1"

        stub = triton.stubs(pid_of(settings, "models"))["match_va"]
        os.kill(stub, signal.SIGKILL)
        os.kill(pid_of(settings, "worker"), signal.SIGKILL)
        wait_until_ready(settings, "worker", restarts=1)
        assert state_of(settings).parts["models"].restarts == 0
        assert triton.stubs(pid_of(settings, "models"))["match_va"] != stub

        secrets = [
            value.get_secret_value()
            for value in (settings.s3_access_key, settings.s3_secret_key)
            if value is not None
        ]
        logs = {path.name: path.read_bytes() for path in (settings.data / "logs").iterdir()}
        assert {"store.log", "broker.log", "models.log", "worker.log", "supervisor.log"} <= set(logs)
        lines = [" ".join(process.cmdline()) for process in marked_processes(settings.data)]
        for secret in secrets:
            assert not any(secret.encode() in text for text in logs.values())
            assert not any(secret in line for line in lines)

        os.kill(pid_of(settings, "worker"), signal.SIGSTOP)
        begun = time.monotonic()
    finally:
        assert down(settings.data, say=said.append)
    assert time.monotonic() - begun < patient(10)
    assert marked_processes(settings.data) == []
    prefix = triton.region_prefix(settings.data / "models")
    assert list(Path("/dev/shm").glob(f"{prefix}*")) == []
