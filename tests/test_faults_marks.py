"""Attempt marks when the object store fails in the middle of a try."""

from __future__ import annotations

import pytest

from schemas.events import Arrived, Captioned, new_trace
from schemas.failures import Passing
from schemas.records import Stage
from tests.made_world import World
from tests.stack_fixtures import put_item

pytestmark = pytest.mark.stack


async def test_a_mark_that_could_not_be_cleared_goes_with_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = await put_item(world.records, "a")
    clear = world.records.clear_attempt
    failures = iter([True])

    async def away_once(stage: Stage, name: str) -> None:
        if next(failures, False):
            raise Passing("object store", "gone for a moment")
        await clear(stage, name)

    monkeypatch.setattr(world.records, "clear_attempt", away_once)
    event = Arrived(trace=new_trace(), item=item, generation=0, revision=1)
    with pytest.raises(Passing):
        await world.handle(event)
    assert len(await world.records.objects.list("attempts/")) == 1
    await world.handle(event)
    assert await world.records.objects.list("attempts/") == []
    assert len(world.published.of(Captioned)) == 1
