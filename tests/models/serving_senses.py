"""A real model server over chosen folders of model_repository/full with networks at a tiny size.

The folders are copied, the networks exported into the copy by the very command's functions, and the CPU server of the
embedded stack serves it. Where the environment lacks the server, tests skip and say so.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.serving import triton

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT / "model_repository" / "full"
ENVIRONMENT = Path(sys.prefix)


def copied(target: Path, models: Sequence[str]) -> Path:
    """A repository folder of these models as the clone has them, without anything built."""
    repository = target / "model_repository" / "full"
    for name in models:
        shutil.copytree(
            FULL / name,
            repository / name,
            ignore=shutil.ignore_patterns("*.onnx*", "*.json", "__pycache__", ".making-*"),
        )
    return repository


def texts(*values: str | bytes) -> Any:
    """A BYTES tensor [n, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    for index, value in enumerate(values):
        array[index, 0] = value.encode() if isinstance(value, str) else value
    return array


@dataclass
class Served:
    """A running model server and how to ask it."""

    ports: triton.Ports
    repository: Path
    client: Any

    def infer(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Ask a model; raises tritonclient's InferenceServerException when it refuses."""
        from tritonclient import grpc
        from tritonclient.utils import np_to_triton_dtype

        tensors = []
        for name, value in inputs.items():
            tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(value))
            tensors.append(tensor)
        answer = self.client.infer(model, tensors, client_timeout=120)
        return {name: answer.as_numpy(name) for name in outputs}


@contextlib.contextmanager
def serve(repository: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A server of a repository, its state in `folder`; stopped at the end."""
    from tritonclient import grpc

    try:
        installation = triton.prepare(ENVIRONMENT, folder / "serving")
    except triton.ServingError as error:
        pytest.skip(str(error))
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = triton.Ports(*(one.getsockname()[1] for one in sockets))
    start = triton.launch(installation, repository, ports)
    log = folder / "triton.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            start.arguments, env={**start.environment, **(environment or {})}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + 150
        while not triton.ready(ports):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the model server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        yield Served(ports, repository, grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}"))
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        triton.clean_after(start.region_prefix)
