"""Fixtures that several test modules share. What each is for stands where it is written."""

from tests.serving_fixtures import running_triton
from tests.stack_fixtures import object_store, objects, own_store, published, records

__all__ = ["object_store", "objects", "own_store", "published", "records", "running_triton"]
