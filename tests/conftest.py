"""Fixtures that several test modules share. What each is for stands where it is written."""

from tests.serving_fixtures import running_triton

__all__ = ["running_triton"]
