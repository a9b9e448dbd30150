"""Fixtures that several test modules share. What each is for stands where it is written."""

from __future__ import annotations

from tests.made_world import world
from tests.serving_fixtures import running_triton
from tests.skips import pytest_runtest_logreport, pytest_sessionfinish, pytest_terminal_summary
from tests.stack_fixtures import object_store, objects, own_store, published, records

__all__ = [
    "object_store",
    "objects",
    "own_store",
    "published",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "records",
    "running_triton",
    "world",
]
