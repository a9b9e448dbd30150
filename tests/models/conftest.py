"""What every test of the full profile's models stands on: one thread, no hub, no skips where none are allowed.

The conftest one folder up belongs to the pipeline's tests, which run in another environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

# No test may reach for a hub: everything is built here. Set before the libraries are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch

from tests.skips import pytest_runtest_logreport, pytest_sessionfinish, pytest_terminal_summary

__all__ = ["pytest_runtest_logreport", "pytest_sessionfinish", "pytest_terminal_summary", "quiet_torch"]


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """Each test begins with the same seed, on one thread: tiny networks gain nothing from more, and lose much where
    others compute too (threads that wait for each other spin)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
