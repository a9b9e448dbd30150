"""Where nothing may be skipped (continuous integration, PROMENADE_FORBID_SKIPS), a skipped test is a failure, but for
checks that need a GPU. The hooks are the conftests': importing them there puts them in force."""

from __future__ import annotations

import os

import pytest

_skipped: list[str] = []


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
