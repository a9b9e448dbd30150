"""The pair stage: one exhibition's pairing, kept exact by its rule and written down as a fenced log of revisions.

The state is whatever the log says: every change is a numbered revision, written with "only if this number is not
there yet". Whoever takes an exhibition over writes a revision of its own first; a paused old owner then fails at
its next write, learns that it was overtaken, and forgets what it thought it knew. Vectors come from the records,
never from the log, so that a withdrawn item leaves nothing here but its id.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from schemas.failures import Passing
from schemas.media import split_item_id
from schemas.records import ExhibitionSettings, PairChange, PairingRevision, PairingSnapshot, now
from schemas.spaces import EMOTION_SPACES
from workers.pairing.rules import Member, Rule, StableRule
from workers.pairing.similarity import measure_for

log = logging.getLogger(__name__)

SNAPSHOT_EVERY: Final = 200
"""Revisions between snapshots: reading 200 small objects at a start takes well under a second."""

RULES: Final[dict[str, type[Rule]]] = {"stable": StableRule}
Vector = np.ndarray[Any, np.dtype[np.float32]]


class Log(Protocol):
    """Where revisions lie, as `infra.records.Records` implements it."""

    async def pairing_snapshot(self, exhibition: str) -> PairingSnapshot | None:
        """The newest snapshot."""
        ...

    async def pairing_log(self, exhibition: str, after: int) -> list[PairingRevision]:
        """Revisions above a number, in order."""
        ...

    async def append_pairing(self, revision: PairingRevision) -> bool:
        """False when the number is taken."""
        ...

    async def put_pairing_snapshot(self, snapshot: PairingSnapshot) -> None:
        """Write a snapshot."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """An item as the record has it now: its version as text, its arrival, its vector in the pairing space."""

    version: str
    sequence: int
    vector: Vector


class Members(Protocol):
    """Where vectors come from."""

    async def ready(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, Ready]:
        """Those of the items that are alive, scored, and wanted by the exhibition; the others are left out."""
        ...


@dataclass(slots=True)
class PairingState:
    """Members and pairs as a log tells them."""

    number: int
    members: dict[str, str]
    pairs: dict[tuple[str, str], float]

    def apply(self, revision: PairingRevision) -> None:
        """Go one revision on."""
        self.number = revision.number
        for entry in revision.joined:
            item, version = entry.rsplit("@", 1)
            self.members[item] = version
        for item in revision.left:
            self.members.pop(item, None)
        for change in revision.changes:
            if change.what == "parted":
                self.pairs.pop((change.artwork, change.track), None)
            else:
                self.pairs[(change.artwork, change.track)] = change.similarity


async def read_state(store: Log, exhibition: str) -> PairingState:
    """The state of an exhibition's pairing by its snapshot and the log after it."""
    snapshot = await store.pairing_snapshot(exhibition)
    state = PairingState(0, {}, {})
    if snapshot is not None:
        pairs = {(artwork, track): similarity for artwork, track, similarity in snapshot.pairs}
        state = PairingState(snapshot.number, dict(snapshot.members), pairs)
    for revision in await store.pairing_log(exhibition, state.number):
        state.apply(revision)
    return state


class ExhibitionPairing:
    """One exhibition's agent: the only writer of its log, as long as nobody takes over.

    Args:
        settings: the exhibition.
        store: its log.
        members: vectors out of the records.
    """

    def __init__(self, settings: ExhibitionSettings, store: Log, members: Members) -> None:
        self.settings = settings
        self._store = store
        self._members = members
        self._owner = uuid.uuid4().hex
        self._rule: Rule | None = None
        self._state = PairingState(0, {}, {})

    @property
    def state(self) -> PairingState:
        """The pairing as this owner last wrote or read it."""
        return self._state

    def forget(self) -> None:
        """Read everything anew at the next use: a rebalance may have given the exhibition to somebody else."""
        self._rule = None

    async def take_over(self) -> PairingRevision | None:
        """Read the state, rebuild the rule from the records, and write this owner's mark.

        Returns:
            The revision that marks the take-over, or None when this owner held the exhibition already.

        Raises:
            Passing: another owner took over in the same moment.
        """
        if self._rule is not None:
            return None
        self._owner = uuid.uuid4().hex
        state = await read_state(self._store, self.settings.name)
        present = await self._members.ready(list(state.members), self.settings)
        gone = tuple(sorted(set(state.members) - set(present)))
        changed = tuple(
            f"{item}@{ready.version}"
            for item, ready in sorted(present.items())
            if ready.version != state.members[item]
        )
        rule_class = RULES[self.settings.rule]
        space = next(each for each in EMOTION_SPACES if each.name == self.settings.space)
        restored = rule_class.restore(
            measure_for(space.distance),
            [
                Member(split_item_id(item)[0], item, ready.vector, ready.sequence)
                for item, ready in sorted(present.items())
            ],
            [(artwork, track, similarity) for (artwork, track), similarity in state.pairs.items()],
        )
        revision = PairingRevision(
            exhibition=self.settings.name,
            number=state.number + 1,
            owner=self._owner,
            joined=changed,
            left=gone,
            changes=tuple(restored.changes),
            made=now(),
        )
        await self._append(revision)
        state.apply(revision)
        self._state = state
        self._rule = restored.rule
        return revision

    async def refresh(self, items: Sequence[str]) -> PairingRevision | None:
        """Bring the pairing up to date with what the records now say of these items.

        Returns:
            The revision written, or None when nothing changed.

        Raises:
            Passing: another owner took over; nothing was written, and the next call reads everything anew.
        """
        assert self._rule is not None, "take_over comes first"
        chosen = list(dict.fromkeys(items))
        present = await self._members.ready(chosen, self.settings)
        steps: list[PairChange] = []
        joined: list[str] = []
        left: list[str] = []
        try:
            for item in chosen:
                ready = present.get(item)
                if ready is None:
                    if item in self._state.members:
                        steps += self._rule.leave(item)
                        left.append(item)
                elif self._state.members.get(item) != ready.version:
                    steps += self._rule.join(split_item_id(item)[0], item, ready.vector, ready.sequence)
                    joined.append(f"{item}@{ready.version}")
            if not joined and not left:
                return None
            revision = PairingRevision(
                exhibition=self.settings.name,
                number=self._state.number + 1,
                owner=self._owner,
                joined=tuple(joined),
                left=tuple(left),
                changes=tuple(net_changes(steps)),
                made=now(),
            )
            await self._append(revision)
        except BaseException:
            # The rule went ahead of the log: it must not be used again.
            self.forget()
            raise
        self._state.apply(revision)
        if revision.number % SNAPSHOT_EVERY == 0:
            await self._store.put_pairing_snapshot(self.snapshot())
        return revision

    def snapshot(self) -> PairingSnapshot:
        """The present state as a snapshot."""
        return PairingSnapshot(
            exhibition=self.settings.name,
            number=self._state.number,
            members=dict(self._state.members),
            pairs=tuple((artwork, track, value) for (artwork, track), value in sorted(self._state.pairs.items())),
            made=now(),
        )

    async def _append(self, revision: PairingRevision) -> None:
        if await self._store.append_pairing(revision):
            return
        self.forget()
        raise Passing(
            "pairing log", f"another worker has taken the exhibition {self.settings.name!r} over; reading it anew"
        )


def net_changes(steps: Sequence[PairChange]) -> list[PairChange]:
    """What a run of steps amounts to: a pair formed and parted again within it is no change.

    Parted pairs come first, so that a reader who applies the list in order stays one-to-one at every moment.
    """
    first: dict[tuple[str, str], PairChange] = {}
    last: dict[tuple[str, str], PairChange] = {}
    for step in steps:
        pair = (step.artwork, step.track)
        first.setdefault(pair, step)
        last[pair] = step
    # A pair that was parted first and formed last was there before and is there now; it changed only if its
    # similarity did, and then both steps are told.
    changes: list[PairChange] = []
    for pair, end in last.items():
        begin = first[pair]
        if begin.what == end.what:
            changes.append(end)
        elif begin.what == "parted" and begin.similarity != end.similarity:
            changes += [begin, end]
    return sorted(changes, key=lambda change: change.what == "formed")
