"""How far everything is, counted from the records and from nothing else (never from the broker's offsets)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from infra.records import ItemState
from schemas.media import Kind, split_item_id
from schemas.records import Stage

ITEM_STAGES: Final = (Stage.CAPTION, Stage.SCORE, Stage.EMBED, Stage.INDEX)
"""The stages that every item passes, in order."""


def next_stage(state: ItemState) -> Stage | None:
    """The item stage that the latest version waits for; None when all are done, or the item is set aside."""
    for stage in ITEM_STAGES:
        if state.done(stage) is None:
            return None if state.failed(stage.value) else stage
    return None


def waiting_since(state: ItemState) -> datetime | None:
    """When the latest version last made progress."""
    times = [state.latest_time, *(state.done(stage) for stage in ITEM_STAGES)]
    known = [each for each in times if each is not None]
    return max(known) if known else None


@dataclass(slots=True)
class StageCount:
    """Where items stand at one stage."""

    done: int = 0
    waiting: int = 0
    failed: int = 0
    recent: int = 0
    """Results written within the last minute."""


@dataclass(slots=True)
class Progress:
    """How far everything is, counted from the records."""

    stages: dict[str, StageCount]
    collections: dict[str, dict[str, int]]
    items: dict[str, int]
    withdrawn: int = 0
    dead_letters: int = 0
    complete: set[str] = field(default_factory=set)
    """Items that are done at every stage up to index."""


def progress_of(states: Sequence[ItemState], moment: datetime) -> Progress:
    """Count where all items stand. The pair stage is counted by the caller, who knows the exhibitions."""
    found = Progress({stage.value: StageCount() for stage in ITEM_STAGES}, {}, {kind.value: 0 for kind in Kind})
    for state in states:
        found.dead_letters += len(state.dead)
        if state.latest is None or not state.alive:
            found.withdrawn += state.buried >= 0
            continue
        kind = split_item_id(state.item)[0].value
        found.items[kind] += 1
        for collection in state.memberships:
            counts = found.collections.setdefault(collection, {each.value: 0 for each in Kind})
            counts[kind] += 1
        following = next_stage(state)
        for stage in ITEM_STAGES:
            count = found.stages[stage.value]
            finished = state.done(stage)
            if finished is not None:
                count.done += 1
                count.recent += moment - finished < timedelta(minutes=1)
            elif state.failed(stage.value):
                count.failed += 1
                break
            elif stage is following:
                count.waiting += 1
                break
        else:
            found.complete.add(state.item)
    return found
