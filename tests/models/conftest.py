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

_skipped: list[str] = []


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """Each test begins with the same seed, on one thread: tiny networks gain nothing from more, and lose much where
    others compute too (threads that wait for each other spin)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped and why."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "GPU" not in reason:
            _skipped.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where nothing may be skipped (continuous integration), a skip is a failure: a check that did not run."""
    if os.environ.get("PROMENADE_FORBID_SKIPS") and _skipped and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips were not allowed."""
    if os.environ.get("PROMENADE_FORBID_SKIPS") and _skipped:
        terminalreporter.section("skips are not allowed here")
        for line in _skipped:
            terminalreporter.write_line(line)
