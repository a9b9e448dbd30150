"""The pair stage: one exhibition's pairing, kept exact by its rule and written down as a fenced log of revisions.

Two pairings: the *target*, exact by the rule, and the *hung* one, what the wall shows, which follows the target
calmly (workers.pairing.calm). The state is whatever the log says: every change is a numbered revision of both,
written with "only if this number is not there yet". Whoever takes an exhibition over writes a revision of its own
first; a paused old owner then fails at its next write, learns that it was overtaken, and forgets what it thought
it knew. Vectors come from the records, never from the log, so that a withdrawn item leaves nothing here but its id.

A pairing has a *basis*: space, rule, floor, and the constants that the space took from the items. Where the
settings ask for another one, or the constants drift, the whole is paired anew aside (`prepare`) while commands go
on, and one revision switches to it (`switch`). What an exhibition is called, who may change it, and when commands
come are left to others.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import numpy as np

from schemas.failures import Passing
from schemas.media import split_item_id
from schemas.records import (
    ExhibitionSettings,
    PairChange,
    PairingBasis,
    PairingConstants,
    PairingRevision,
    PairingSnapshot,
    now,
)
from workers.pairing.by_name import rule_named
from workers.pairing.calm import Wall, hanging
from workers.pairing.rules import Member, Rule
from workers.pairing.similarity import Cosine, as_units
from workers.pairing.spaces import Lengths, constants_of, drifted, most_frequent, pairing_space

log = logging.getLogger(__name__)

SNAPSHOT_EVERY: Final = 200
"""Revisions between snapshots: reading 200 small objects at a start takes well under a second."""

LOOK_EVERY: Final = 50
"""Constants are compared with those of today after every change of a 50th of the members: fewer can hardly move a
mean or a share by 5%."""

BELOW_THE_FLOOR: Final = "below the floor"
"""Why a pair is parted that hung, and that today's floor forbids."""

Vector = np.ndarray[Any, np.dtype[Any]]
Pins = tuple[tuple[str, str], ...]


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
    """An item as the record has it now: its version as text, its arrival, its vectors by name."""

    version: str
    sequence: int
    vectors: Mapping[str, Vector]


class Members(Protocol):
    """Where vectors come from."""

    async def ready(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, Ready]:
        """Those of the items that are alive, indexed, and wanted by the exhibition; the others are left out."""
        ...

    async def why_left(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, str]:
        """Of items that `ready` left out, why, in a few words: withdrawn, or no longer in its collections."""
        ...


@dataclass(slots=True)
class PairingState:
    """Members and pairs as a log tells them."""

    number: int
    members: dict[str, str]
    pairs: dict[tuple[str, str], float]
    """The target: (artwork, track) -> similarity."""
    hung: dict[tuple[str, str], float] = field(default_factory=dict)
    """What the wall shows."""
    basis: PairingBasis | None = None
    pins: Pins = ()
    joins: list[tuple[datetime, int]] = field(default_factory=list, compare=False)
    """When how many items joined, since the snapshot that was read."""

    def apply(self, revision: PairingRevision) -> None:
        """Go one revision on."""
        self.number = revision.number
        self.joins.append((revision.made, len(revision.joined)))
        for entry in revision.joined:
            item, version = entry.rsplit("@", 1)
            self.members[item] = version
        for item in revision.left:
            self.members.pop(item, None)
        _apply(self.pairs, revision.changes)
        _apply(self.hung, revision.changes if revision.hung is None else revision.hung)
        self.basis = revision.basis or self.basis
        self.pins = self.pins if revision.pins is None else revision.pins


def _apply(pairs: dict[tuple[str, str], float], changes: Iterable[PairChange]) -> None:
    for change in changes:
        if change.what == "parted":
            pairs.pop((change.artwork, change.track), None)
        else:
            pairs[(change.artwork, change.track)] = change.similarity


async def read_state(store: Log, exhibition: str) -> PairingState:
    """The state of an exhibition's pairing by its snapshot and the log after it.

    Args:
        exhibition: `ExhibitionSettings.home`, which is the name of the default exhibition.
    """
    snapshot = await store.pairing_snapshot(exhibition)
    state = PairingState(0, {}, {})
    if snapshot is not None:
        pairs = {(artwork, track): similarity for artwork, track, similarity in snapshot.pairs}
        hung = pairs
        if snapshot.hung is not None:
            hung = {(artwork, track): similarity for artwork, track, similarity in snapshot.hung}
        state = PairingState(
            snapshot.number, dict(snapshot.members), pairs, dict(hung), snapshot.basis, tuple(snapshot.pins)
        )
    for revision in await store.pairing_log(exhibition, state.number):
        state.apply(revision)
    return state


def basis_of(settings: ExhibitionSettings, constants: PairingConstants) -> PairingBasis:
    """What the settings ask for, with these constants."""
    return PairingBasis(
        space=settings.space, rule=settings.rule, floor=settings.floor, mix=settings.mix, constants=constants
    )


def as_asked(settings: ExhibitionSettings, state: PairingState) -> bool:
    """True when the pairing is the one that the settings ask for; where nothing was paired yet, none is missing."""
    by_basis = state.basis is None or state.basis.fits(settings)
    return by_basis and (state.number == 0 or set(state.pins) == set(settings.pins))


def check_settings(settings: ExhibitionSettings) -> None:
    """Whether an agent can work by these settings.

    Raises:
        ValueError: an unknown space or rule, a floor that is no number, or an item that is pinned twice.
    """
    pairing_space(settings.space, settings.mix)
    rule_named(settings.rule)
    if settings.floor is not None and not np.isfinite(settings.floor):
        raise ValueError(f"a floor is a similarity, not {settings.floor}")
    twice = [item for item, times in Counter(item for pin in settings.pins for item in pin).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]} is pinned twice; unpin one of the two pairs")


class Target:
    """A rule with the space that it pairs in: items join by their named vectors.

    An item that lacks a vector in the space (made by other models, or of another dimension than most) is present
    and stays free until a later version of it has one.

    Args:
        basis: space, rule, floor and constants.
    """

    def __init__(self, basis: PairingBasis) -> None:
        self.basis = basis
        self.space = pairing_space(basis.space, basis.mix)
        self.measure = self.space.measure(basis.constants)
        self.rule: Rule = rule_named(basis.rule)(self.measure or Cosine(), floor=basis.floor)
        self.vectors: dict[str, Mapping[str, Vector]] = {}
        """Of all items, where the space has constants that may drift; empty otherwise."""
        self._lengths: dict[str, Lengths] = {}
        self._counts: Counter[Lengths] = Counter()
        self.lengths: Lengths | None = basis.constants.dimensions or None
        """How many numbers each component's vectors have that are paired here; None: the next item says it."""
        self.moved = 0
        """Items that came, left or got other vectors since the constants were last looked at."""

    def fill(self, present: Mapping[str, Ready], pins: Pins) -> None:
        """Let all items in at once, as the rule's definition demands."""
        members = self._members(present)
        self.rule = type(self.rule).filled(self.rule.measure, members, floor=self.basis.floor, pins=pins)

    def restore(self, present: Mapping[str, Ready], pairs: Iterable[tuple[str, str, float]], pins: Pins) -> None:
        """Take items and pairs over as they were; computed anew where they are not what the rule demands."""
        fitting = self._members(present)
        self.rule = type(self.rule).restore(self.rule.measure, fitting, pairs, floor=self.basis.floor, pins=pins).rule

    def join(self, item: str, ready: Ready) -> list[PairChange]:
        """Let an item in, or give it another vector."""
        self._remember(item, ready)
        vector = self._vector(item, ready)
        if vector is not None:
            self.lengths = self.lengths or self._lengths[item]
            if self._fits(item):
                return self.rule.join(split_item_id(item)[0], item, vector, ready.sequence)
        return self.rule.leave(item, self.without_vector)

    @property
    def without_vector(self) -> str:
        """Why a member stays free that lacks a vector."""
        return f"no vector in the space {self.space.name}"

    def leave(self, item: str, why: str = "withdrawn") -> list[PairChange]:
        """Let an item go, for this reason."""
        self.moved += self.vectors.pop(item, None) is not None
        self._count(item, None)
        return self.rule.leave(item, why)

    def set_pins(self, pins: Pins) -> list[PairChange]:
        """Make these the pinned pairs."""
        wanted = set(pins)
        steps = [step for pin in sorted(self.rule.pins() - wanted) for step in self.rule.unpin(*pin)]
        return steps + [step for pin in sorted(wanted - self.rule.pins()) for step in self.rule.pin(*pin)]

    def constants_today(self) -> PairingConstants:
        """What the constants would be, taken from the items of this moment."""
        return constants_of(self.space, ((split_item_id(item)[0], each) for item, each in self.vectors.items()))

    def _members(self, present: Mapping[str, Ready]) -> list[Member]:
        """Items with their vectors in the space; those of another dimension than most are left out."""
        found = []
        for item, ready in sorted(present.items()):
            self._remember(item, ready)
            vector = self._vector(item, ready)
            if vector is not None:
                found.append(Member(split_item_id(item)[0], item, vector, ready.sequence))
        if not self.basis.constants.dimensions:
            self.lengths = most_frequent(self._counts)
        return [each for each in found if self._fits(each.identity)]

    @property
    def outnumbered(self) -> bool:
        """True when most items have vectors of another dimension than those that are paired here."""
        return bool(self._counts) and most_frequent(self._counts) != self.lengths

    def _fits(self, item: str) -> bool:
        if self._lengths[item] == self.lengths:
            return True
        log.warning(
            "pair: %s stays free: its vector in the space %s has %s numbers, those of the others %s",
            item,
            self.space.name,
            "+".join(map(str, self._lengths[item])),
            "+".join(map(str, self.lengths or ())),
        )
        return False

    def _count(self, item: str, lengths: Lengths | None) -> None:
        before = self._lengths.pop(item, None)
        if before is not None:
            self._counts[before] -= 1
            self._counts += Counter()  # drops those that are zero
        if lengths is not None:
            self._lengths[item] = lengths
            self._counts[lengths] += 1

    def _vector(self, item: str, ready: Ready) -> Any:
        kind = split_item_id(item)[0]
        vector = None if self.measure is None else self.space.vector(kind, ready.vectors)
        self._count(item, None if vector is None else self.space.dimensions(kind, ready.vectors))
        return vector

    def _remember(self, item: str, ready: Ready) -> None:
        if self.space.has_constants:
            kind = split_item_id(item)[0]
            names = {each.vector_name(kind) for each in self.space.components}
            found = {name: ready.vectors[name] for name in names if name in ready.vectors}
            # Other models may read an item again under the same version.
            self.moved += not _equal(self.vectors.get(item), found)
            self.vectors[item] = found


@dataclass(slots=True)
class Prepared:
    """A pairing made anew aside: not yet in the log."""

    target: Target
    present: dict[str, Ready]
    reason: str
    at_once: bool
    owner: str


class ExhibitionPairing:
    """One exhibition's agent: the only writer of its log, as long as nobody takes over.

    Calls must not overlap, but for `prepare`, beside which commands go on.

    Args:
        settings: the exhibition; `settings` may be set to a newer one between calls.
        store: its log.
        members: vectors out of the records.
        clock: the time of day, for the hour at which the wall moves.
    """

    def __init__(
        self, settings: ExhibitionSettings, store: Log, members: Members, clock: Callable[[], datetime] = now
    ) -> None:
        self.settings = settings
        self._store = store
        self._members = members
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._target: Target | None = None
        self._state = PairingState(0, {}, {})
        self._wall = Wall({}, {})
        """Like the rule, it may be ahead of the log until a revision is written, and is made anew with it."""
        self._moved_by: tuple[float, Pins] | None = None
        """Threshold and pins by which all exchanges were last decided; None: they must all be looked at."""
        self._since: set[str] = set()
        """Items that changed since `prepare` read them."""
        self._drifted = False

    @property
    def state(self) -> PairingState:
        """The pairing as this owner last wrote or read it."""
        return self._state

    @property
    def held(self) -> bool:
        """True while this owner believes that the exhibition is its own."""
        return self._target is not None

    @property
    def stale(self) -> bool:
        """True when the whole must be paired anew: by other settings, constants that drifted, or other vectors."""
        if self._target is None:
            return False
        return self._drifted or self._target.outnumbered or not self._target.basis.fits(self.settings)

    def forget(self) -> None:
        """Read everything anew at the next use: a rebalance may have given the exhibition to somebody else."""
        self._target = None

    async def take_over(self) -> PairingRevision | None:
        """Read the state, rebuild the rule from the records, and write this owner's mark.

        Returns:
            The revision that marks the take-over, or None when this owner held the exhibition already.

        Raises:
            Passing: another owner took over in the same moment.
            ValueError: see `check_settings`.
        """
        if self._target is not None:
            return None
        check_settings(self.settings)
        self._owner = uuid.uuid4().hex
        state = await read_state(self._store, self.settings.home)
        present = await self._members.ready(list(state.members), self.settings)
        basis = state.basis
        if basis is None:
            # Nothing was paired yet, or before bases were written: then by these settings.
            space = pairing_space(self.settings.space, self.settings.mix)
            basis = basis_of(self.settings, constants_of(space, ()))
        target = Target(basis)
        pairs = [(artwork, track, similarity) for (artwork, track), similarity in state.pairs.items()]
        await asyncio.to_thread(target.restore, present, pairs, state.pins)
        self._state = state
        self._wall, self._moved_by = Wall(state.hung, state.pairs), None
        left = await self._reasons(sorted(set(state.members) - set(present)))
        steps = _told(target.rule.changes_since(pairs, "computed anew at the start"), left)
        steps += target.set_pins(self.settings.pins)
        revision = self._revision(
            target,
            joined=[
                f"{item}@{ready.version}"
                for item, ready in sorted(present.items())
                if ready.version != state.members[item]
            ],
            left=left,
            changes=net_changes(steps),
            changed=present,
        )
        await self._append(revision)
        self._target, self._drifted = target, False
        await self._look(target)
        return revision

    async def refresh(self, items: Sequence[str]) -> PairingRevision | None:
        """Bring the pairing up to date with the settings and with what the records now say of these items.

        Returns:
            The revision written, or None when nothing changed.

        Raises:
            Passing: another owner took over; nothing was written, and the next call reads everything anew.
        """
        target = self._target
        assert target is not None, "take_over comes first"
        chosen = list(dict.fromkeys(items))
        self._since.update(chosen)
        present = await self._members.ready(chosen, self.settings) if chosen else {}
        joined: list[str] = []
        left = await self._reasons([item for item in chosen if item in self._state.members and item not in present])
        try:
            steps = target.set_pins(self.settings.pins)
            for item in chosen:
                ready = present.get(item)
                if ready is None:
                    if item in left:
                        steps += target.leave(item, left[item])
                    continue
                # The same version may have other vectors: other models read it again.
                steps += target.join(item, ready)
                if self._state.members.get(item) != ready.version:
                    joined.append(f"{item}@{ready.version}")
            revision = self._revision(target, joined=joined, left=left, changes=net_changes(steps), changed=present)
            if not (joined or left or revision.changes or revision.hung or revision.pins is not None):
                return None
            await self._append(revision)
        except BaseException:
            # The rule went ahead of the log: it must not be used again.
            self.forget()
            raise
        # Again: a `prepare` that began while this went on has not seen it.
        self._since.update(chosen)
        await self._look(target)
        if revision.number % SNAPSHOT_EVERY == 0:
            await self._store.put_pairing_snapshot(self.snapshot())
        return revision

    async def prepare(self) -> Prepared:
        """Pair the whole anew, aside, as the settings ask, with constants of today.

        Nothing is written, and commands may go on meanwhile. The work is done in a thread.
        """
        assert self._target is not None, "take_over comes first"
        settings, owner, before = self.settings, self._owner, self._target.basis
        outnumbered = self._target.outnumbered
        self._since = set()
        present = dict(await self._members.ready(list(self._state.members), settings))

        def work() -> Target:
            space = pairing_space(settings.space, settings.mix)
            constants = constants_of(
                space, ((split_item_id(item)[0], each.vectors) for item, each in present.items())
            )
            target = Target(basis_of(settings, constants))
            target.fill(present, settings.pins)
            target.moved = 0
            return target

        target = await asyncio.to_thread(work)
        asked = not before.fits(settings)
        if asked:
            reason = f"re-paired: space {settings.space}, rule {settings.rule}"
        elif outnumbered:
            reason = "re-paired: most items have vectors of another dimension now"
        elif before.constants.sigma is not None and not target.space.is_mix:
            reason = f"re-paired: sigma went from {before.constants.sigma:.4f} to {target.basis.constants.sigma:.4f}"
        else:
            reason = "re-paired: the calibration was taken anew"
        return Prepared(target, present, reason, asked, owner)

    async def switch(self, prepared: Prepared) -> PairingRevision | None:
        """Catch up with what changed since `prepare`, and put it in the place of the present pairing.

        A change of the settings moves the wall too, in the same revision; constants that drifted move the target,
        and the wall follows calmly.

        Returns:
            The one revision, or None when it is out of date: the settings changed again, or the log is another's.

        Raises:
            Passing: another owner took over.
        """
        target = prepared.target
        if self._target is None or prepared.owner != self._owner or not target.basis.fits(self.settings):
            return None
        behind = sorted(self._since)
        present = await self._members.ready(behind, self.settings)
        for item in behind:
            ready = present.get(item)
            if ready is None:
                prepared.present.pop(item, None)
                target.leave(item)
            else:
                prepared.present[item] = ready
                target.join(item, ready)
        target.set_pins(self.settings.pins)
        known = self._state.members
        left = await self._reasons(sorted(set(known) - set(prepared.present)))
        self._moved_by = None
        try:
            revision = self._revision(
                target,
                joined=[
                    f"{item}@{ready.version}"
                    for item, ready in sorted(prepared.present.items())
                    if known.get(item) != ready.version
                ],
                left=left,
                changes=self._switched(target, prepared.reason),
                changed=prepared.present,
                reason=prepared.reason,
                at_once=prepared.at_once,
            )
            await self._append(revision)
        except BaseException:
            self.forget()
            raise
        self._target, self._drifted = target, False
        await self._store.put_pairing_snapshot(self.snapshot())
        return revision

    def snapshot(self) -> PairingSnapshot:
        """The present state as a snapshot."""
        state = self._state

        def rows(pairs: Mapping[tuple[str, str], float]) -> tuple[tuple[str, str, float], ...]:
            return tuple((artwork, track, value) for (artwork, track), value in sorted(pairs.items()))

        return PairingSnapshot(
            exhibition=self.settings.home,
            number=state.number,
            members=dict(state.members),
            pairs=rows(state.pairs),
            hung=rows(state.hung),
            basis=state.basis,
            pins=state.pins,
            made=now(),
        )

    # -- inside --------------------------------------------------------------------------------------------

    def _revision(
        self,
        target: Target,
        *,
        joined: Sequence[str],
        left: Mapping[str, str],
        changes: Sequence[PairChange],
        changed: Iterable[str],
        reason: str = "",
        at_once: bool = False,
    ) -> PairingRevision:
        """The next revision: what happened to the target, and what the wall makes of it."""
        self._wall.follow(changes)
        return PairingRevision(
            exhibition=self.settings.home,
            number=self._state.number + 1,
            owner=self._owner,
            joined=tuple(joined),
            left=tuple(left),
            changes=tuple(changes),
            hung=tuple(self._hung(target, changes, set(changed), left, reason, at_once)),
            basis=None if target.basis == self._state.basis else target.basis,
            pins=None if self.settings.pins == self._state.pins else self.settings.pins,
            made=now(),
        )

    def _hung(
        self,
        target: Target,
        changes: Sequence[PairChange],
        changed: set[str],
        left: Mapping[str, str],
        reason: str,
        at_once: bool,
    ) -> list[PairChange]:
        """What changes on the wall: those that left or fell below the floor go at once, the rest calmly.

        Looked at is what the changes touch, and everything where the wall moves by another threshold than before.
        """
        settings, rule, pinned, wall = self.settings, target.rule, set(self.settings.pins), self._wall
        lowest = rule.measure.lowest if target.basis.floor is None else as_units(target.basis.floor)
        now_moves = at_once or settings.threshold == 0 or settings.hour == self._clock().hour
        moved_by = 0.0 if now_moves else settings.threshold, settings.pins
        wholly, self._moved_by = moved_by != self._moved_by, moved_by
        touched = {*changed, *left, *(item for each in changes for item in (each.artwork, each.track))}
        found: list[PairChange] = []
        for artwork, track in wall.hung if wholly else wall.hung_with(touched):
            similarity = before = wall.hung[(artwork, track)]
            gone = next((item for item in (artwork, track) if item not in rule), None)
            if gone is not None:
                told = left.get(gone, target.without_vector)
                found.append(_change(artwork, track, similarity, "parted", f"{told}: {gone}"))
                continue
            if artwork in changed or track in changed:
                similarity = rule.similarity_of(artwork, track) or 0.0
            if as_units(similarity) < lowest and (artwork, track) not in pinned:
                # No exchange that takes it down would gain anything: the floor alone speaks against it.
                found.append(_change(artwork, track, similarity, "parted", BELOW_THE_FLOOR))
            elif as_units(similarity) != as_units(before):
                found.append(_change(artwork, track, similarity, "rescored", reason or "the items were read anew"))
        wall.hang(found)
        # Who was left by a partner touches an exchange, too.
        touched.update(item for each in found for item in (each.artwork, each.track))
        why = {} if reason and not at_once else {(each.artwork, each.track): each.why for each in changes}
        hung, wanted = (wall.hung, wall.target) if wholly else wall.around(touched)
        moves = hanging(hung, wanted, threshold=moved_by[0], why=why, pinned=pinned)
        wall.hang(moves)
        found += moves
        parted = {(each.artwork, each.track) for each in found if each.what == "parted"}
        left_over = [each for each in found if each.what != "rescored" or (each.artwork, each.track) not in parted]
        return sorted(left_over, key=lambda change: change.what != "parted")

    def _switched(self, target: Target, reason: str) -> list[PairChange]:
        """The way from the present target to a new one."""
        before, after = self._state.pairs, target.rule.pairs()
        new = {(artwork, track): similarity for artwork, (track, similarity) in after.items()}
        changes = [_change(*pair, before[pair], "parted", reason) for pair in before if pair not in new]
        for pair, similarity in new.items():
            if pair not in before:
                changes.append(_change(*pair, similarity, "formed", reason))
            elif as_units(before[pair]) != as_units(similarity):
                changes.append(_change(*pair, similarity, "rescored", reason))
        return changes

    async def _look(self, target: Target) -> None:
        """See now and then whether the constants still hold."""
        if not target.space.has_constants or target.moved < max(1, len(self._state.members) // LOOK_EVERY):
            return
        target.moved = 0
        self._drifted = await asyncio.to_thread(lambda: drifted(target.basis.constants, target.constants_today()))

    async def _reasons(self, left: Sequence[str]) -> dict[str, str]:
        """Why members are members no longer."""
        told = await self._members.why_left(left, self.settings) if left else {}
        return {item: told.get(item, "withdrawn") for item in left}

    async def _append(self, revision: PairingRevision) -> None:
        if await self._store.append_pairing(revision):
            self._state.apply(revision)
            return
        self.forget()
        raise Passing(
            "pairing log", f"another worker has taken the exhibition {self.settings.name!r} over; reading it anew"
        )


def _equal(one: Mapping[str, Vector] | None, other: Mapping[str, Vector]) -> bool:
    return (
        one is not None
        and one.keys() == other.keys()
        and all(np.array_equal(vector, other[name]) for name, vector in one.items())
    )


def _change(artwork: str, track: str, similarity: float, what: Any, why: str) -> PairChange:
    return PairChange(artwork=artwork, track=track, similarity=similarity, what=what, why=why)


def _told(changes: Sequence[PairChange], left: Mapping[str, str]) -> list[PairChange]:
    """Say of pairs that parted because an item left why it left."""
    told = []
    for change in changes:
        item = next((each for each in (change.artwork, change.track) if each in left), None)
        told.append(change if item is None else change.model_copy(update={"why": f"{left[item]}: {item}"}))
    return told


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
    return sorted(changes, key=lambda change: change.what != "parted")
