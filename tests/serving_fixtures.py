"""A real model server for tests: started once a session on free ports, over the repository as it is built.

`running_triton` serves the edge repository; `serve` starts one more, of chosen models, for tests that hurt it;
`running` starts one over any repository. What
is asked of the models is left to the tests. Where the serving environment or the built models are missing, tests
skip and say so.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from infra.serving import triton
from tests.patience import deadline, patient

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".serving"
REPOSITORY = ROOT / "model_repository" / "edge"

Array = npt.NDArray[Any]


def missing() -> str | None:
    """Why no model server can be started here, or None."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        return "the serving environment .serving is missing (make setup)"
    if not (REPOSITORY.parent / "edge.built.json").exists():
        return "the models are not built (promenade models build)"
    return None


def complete_models(repository: Path = REPOSITORY) -> list[str]:
    """Models of a repository that have a config and a version with a network or code."""
    return sorted(
        path.parent.name
        for path in repository.glob("*/config.pbtxt")
        if any((path.parent / "1" / name).exists() for name in ("model.onnx", "model.py"))
    )


def texts(*values: str | bytes) -> Array:
    """A BYTES tensor [n, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    for index, value in enumerate(values):
        array[index, 0] = value.encode() if isinstance(value, str) else value
    return array


@dataclass
class Served:
    """A running model server."""

    ports: triton.Ports
    process: int
    models: list[str]
    client: Any
    repository: Path

    @property
    def url(self) -> str:
        """The gRPC address, as tritonclient wants it."""
        return f"127.0.0.1:{self.ports.grpc}"

    def tensors(self, inputs: Mapping[str, Array]) -> list[Any]:
        """tritonclient's inputs of numpy arrays (object arrays are BYTES)."""
        from tritonclient import grpc
        from tritonclient.utils import np_to_triton_dtype

        made = []
        for name, value in inputs.items():
            tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(value))
            made.append(tensor)
        return made

    def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Ask a model; raises tritonclient's InferenceServerException when it refuses."""
        answer = self.client.infer(model, self.tensors(inputs), client_timeout=patient(120))
        return {name: answer.as_numpy(name) for name in outputs}


def free_ports() -> triton.Ports:
    """Three ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return triton.Ports(*(one.getsockname()[1] for one in sockets))


@contextlib.contextmanager
def running(
    repository: Path,
    folder: Path,
    *,
    environment: Path = ENVIRONMENT,
    variables: Mapping[str, str] | None = None,
    seconds: float = 150,
) -> Iterator[Served]:
    """A server of a model repository, its state in `folder`; stopped at the end.

    Args:
        environment: the serving environment.
        variables: added to the server's own.
        seconds: that it may take to start.

    Raises:
        ServingError: the environment holds no server.
        RuntimeError: the server does not start; with the end of its log.
    """
    from tritonclient import grpc

    installation = triton.prepare(environment, folder / "serving")
    ports = free_ports()
    start = triton.launch(installation, repository, ports)
    log = folder / "triton.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            start.arguments, env={**start.environment, **(variables or {})}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until = deadline(seconds)
        while not triton.ready(ports):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the model server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        client = grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}")
        yield Served(ports, process.pid, complete_models(repository), client, repository)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        triton.clean_after(start.region_prefix)


@contextlib.contextmanager
def serve(folder: Path, models: Sequence[str] | None = None) -> Iterator[Served]:
    """A server of these models (all complete ones by default), its state in `folder`; stopped at the end."""
    chosen = list(models) if models is not None else complete_models()
    repository = folder / "repository"
    repository.mkdir(parents=True)
    for name in chosen:
        (repository / name).symlink_to(REPOSITORY / name)
    with running(repository, folder) as served:
        yield served


@pytest.fixture(scope="session")
def running_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The edge repository, served for the whole session. PROMENADE_TEST_MODELS (comma separated) narrows it."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    narrowed = os.environ.get("PROMENADE_TEST_MODELS")
    with serve(tmp_path_factory.mktemp("triton"), narrowed.split(",") if narrowed else None) as served:
        yield served
