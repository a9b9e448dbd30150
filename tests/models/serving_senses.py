"""A real model server over chosen folders of model_repository/full with networks at a tiny size.

The folders are copied, the networks exported into the copy by the very command's functions, and the CPU server of the
embedded stack serves it. Where the environment lacks the server, tests skip and say so.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from infra.serving import triton
from tests.serving_fixtures import Served, running

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


@contextlib.contextmanager
def serve(repository: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A server of a repository, its state in `folder`; stopped at the end."""
    try:
        triton.prepare(ENVIRONMENT, folder / "serving")
    except triton.ServingError as error:
        pytest.skip(str(error))
    with running(repository, folder, environment=ENVIRONMENT, variables=environment) as server:
        yield server
