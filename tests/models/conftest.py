"""What every test of the full profile's models stands on: one thread, no hub, no skips where none are allowed.

The conftest one folder up belongs to the pipeline's tests, which run in another environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# No test may reach for a hub: everything is built here. Set before the libraries are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch

from tests.skips import pytest_runtest_logreport, pytest_sessionfinish, pytest_terminal_summary

if TYPE_CHECKING:
    from full_models.export import Made

__all__ = [
    "exported_senses",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "quiet_torch",
    "sense_environment",
    "sense_weights",
]


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """Each test begins with the same seed, on one thread: tiny networks gain nothing from more, and lose much where
    others compute too (threads that wait for each other spin)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield


@pytest.fixture(scope="session")
def sense_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder of all sensing networks, at a tiny size."""
    from tests.models import tiny_senses

    root = tmp_path_factory.mktemp("weights")
    tiny_senses.make_weights(root)
    return root


@pytest.fixture(scope="session")
def sense_environment(sense_weights: Path) -> dict[str, str]:
    """What tells the models where their weights lie."""
    from tests.models import tiny_senses

    return {**tiny_senses.ENVIRONMENT, "PROMENADE_WEIGHTS": str(sense_weights)}


@pytest.fixture(scope="session")
def exported_senses(
    tmp_path_factory: pytest.TempPathFactory, sense_environment: dict[str, str]
) -> tuple[Path, list[Made]]:
    """A repository with every network exported, once for all tests, and what each export said."""
    from tests.models.serving_senses import exported

    return exported(tmp_path_factory.mktemp("full"), sense_environment)
