"""The model server's launch, and its recovery from dead stubs and from its own death, with real processes.

What the supervisor makes of it is tested with the supervisor.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from infra.serving import triton
from tests.patience import deadline
from tests.serving_fixtures import ENVIRONMENT, Served, free_ports, missing, serve, texts

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

MATCH = {
    "ARTWORK_VA": np.zeros((1, 2), np.float32),
    "TRACK_VA": np.zeros((1, 2), np.float32),
    "SIGMA": np.ones((1, 1), np.float32),
}


def segments(prefix: str) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{prefix}*"))


def wait_until(condition: object, seconds: float = 30) -> bool:
    assert callable(condition)
    until = deadline(seconds)
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_everything_binds_to_loopback(running_triton: Served) -> None:
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")  # an IPv4 address on an IPv6 socket
        for connection in psutil.Process(running_triton.process).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_every_model_has_its_stub_and_is_healthy(running_triton: Served) -> None:
    assert set(triton.stubs(running_triton.process)) == set(running_triton.models)
    assert triton.unhealthy_models(running_triton.process, running_triton.ports) == []


def test_a_killed_stub_is_noticed_and_healed(tmp_path: Path) -> None:
    with serve(tmp_path, ["minilm", "embed_text", "match_va"]) as served:
        for model in ("match_va", "minilm"):
            os.kill(triton.stubs(served.process)[model], signal.SIGKILL)
            assert wait_until(lambda: triton.unhealthy_models(served.process, served.ports) != [])
            assert triton.unhealthy_models(served.process, served.ports) == [model]
            if model == "minilm":  # those who call it say that trying again may help
                with pytest.raises(InferenceServerException, match="unavailable: model minilm"):
                    served.infer("embed_text", {"TEXT": texts("a")}, ["VECTOR"])
            triton.heal(served.ports, model)
            assert triton.unhealthy_models(served.process, served.ports) == []
        assert served.infer("match_va", MATCH, ["SCORE"])["SCORE"][0, 0] == 1
        assert served.infer("embed_text", {"TEXT": texts("a")}, ["VECTOR"])["VECTOR"].shape == (1, 384)


def test_a_stub_killed_in_the_middle_of_a_request_answers_and_heals(tmp_path: Path) -> None:
    with serve(tmp_path, ["minilm", "embed_text"]) as served:
        long = {"TEXT": texts(*["lorem ipsum dolor sit amet " * 400] * 32)}
        outcome: list[Exception] = []

        def ask() -> None:
            try:
                served.infer("embed_text", long, ["VECTOR"])
            except InferenceServerException as error:
                outcome.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        stub = psutil.Process(triton.stubs(served.process)["minilm"])
        idle = stub.cpu_times().user
        assert wait_until(lambda: stub.cpu_times().user > idle + 0.2), "the network never worked on the request"
        stub.kill()
        asking.join(60)
        assert not asking.is_alive(), "a request to a dead stub hangs"
        assert outcome and "unavailable: model minilm" in str(outcome[0])
        triton.heal(served.ports, "minilm")
        assert triton.unhealthy_models(served.process, served.ports) == []
        assert served.infer("embed_text", {"TEXT": texts("a")}, ["VECTOR"])["VECTOR"].shape == (1, 384)


def test_nothing_is_left_of_a_killed_server(tmp_path: Path) -> None:
    prefix = triton.region_prefix(tmp_path / "serving")
    with serve(tmp_path, ["match_va"]) as served:
        stubs = list(triton.stubs(served.process).values())
        assert stubs and segments(prefix)
        os.kill(served.process, signal.SIGKILL)
        wait_until(lambda: psutil.Process(served.process).status() == psutil.STATUS_ZOMBIE)
        ended, removed = triton.clean_after(prefix)
        assert ended <= len(stubs)
        assert removed >= 1
        assert not segments(prefix)
        assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in stubs)


def test_cleaning_after_one_server_leaves_another_alone(running_triton: Served, tmp_path: Path) -> None:
    before = triton.stubs(running_triton.process)
    assert triton.clean_after(triton.region_prefix(tmp_path)) == (0, 0)
    assert triton.stubs(running_triton.process) == before


def test_a_second_preparation_changes_nothing(tmp_path: Path) -> None:
    first = triton.prepare(ENVIRONMENT, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert triton.prepare(ENVIRONMENT, tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert (first.backends / "onnxruntime" / "model.py").exists()
    assert list(first.libpython.glob("libpython3.*.so.1.0"))


def test_a_missing_environment_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(triton.ServingError, match="make setup"):
        triton.prepare(tmp_path / "nothing", tmp_path)


def test_the_server_is_given_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    start = triton.launch(triton.prepare(ENVIRONMENT, tmp_path), tmp_path, free_ports())
    assert "secret" not in str(start.environment)
