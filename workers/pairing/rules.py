"""Rules of pairing: who hangs with whom, kept exact while artworks and tracks come and go.

A rule holds the vectors of all present items and a one-to-one pairing that at every moment equals the rule's
definition on exactly these items, whatever order they came in. Each call returns what changed and why. The
caller reads vectors, numbers and keeps the changes, and publishes them; nothing here does input or output.

Shared by all rules: similarities are whole units of 1e-7 (see workers.pairing.similarity); a *floor* below which
no pair is made; *pins*, pairs that a person fixed, which hold whenever both items are present and which the rule
works around.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.media import Kind
from schemas.records import PairChange
from workers.pairing.candidates import Slots, blocks_of, largest
from workers.pairing.similarity import UNITS, Floats, Measure, Rough, Units, as_similarity, as_units

Pairs = dict[str, tuple[str, float]]
"""Artwork id -> (track id, similarity)."""

FREE: Final = np.iinfo(np.int64).min
"""`held` of an open item without a partner: every similarity is better."""
CLOSED: Final = np.iinfo(np.int64).max
"""`held` of an empty slot or a pinned item: no similarity is better."""
_LISTED: Final = 32
"""Items of the other side that are listed for each item where all come in at once."""
_WIDE: Final = 64
"""Numbers of a vector from which on a copy in single precision is kept, to be read first."""
_PICKED: Final = 4
"""Where fewer than one in so many vectors are asked for, these are picked out before they are read."""
_LAST: Final = np.iinfo(np.int64).max
"""Rank of nobody."""


@dataclass(frozen=True)
class Member:
    """One present item: its kind, id, vector [dimension] in the pairing space, and its order of arrival."""

    kind: Kind
    identity: str
    vector: ArrayLike
    sequence: int = 0


class Side:
    """All items of one kind in growing arrays; the slot of an item that left is used again."""

    def __init__(self, kind: Kind, measure: Measure) -> None:
        self.kind = kind
        self._measure = measure
        self.slot_of: dict[str, int] = {}
        self.names: list[str] = []
        self.used = 0
        self._spare: list[int] = []
        self._vectors: Floats = np.zeros((0, 0))
        self._single: NDArray[np.float32] | None = None
        self.slack = 1.0
        """How far off `Measure.nearly` may be with `glance`, in units."""
        self._partner: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._held: Units = np.zeros(0, dtype=np.int64)
        self._sequence: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._price: Units = np.zeros(0, dtype=np.int64)

    @property
    def vectors(self) -> Floats:
        """Prepared vectors [used, dimension]; those of empty slots mean nothing."""
        return self._vectors[: self.used]

    @property
    def glance(self) -> NDArray[np.floating]:
        """What `Measure.nearly` reads: the vectors, in single precision where they are wide and the measure can."""
        return (self._vectors if self._single is None else self._single)[: self.used]

    @property
    def partner(self) -> NDArray[np.int64]:
        """Slot of the partner on the other side, -1 without one: [used]."""
        return self._partner[: self.used]

    @property
    def held(self) -> Units:
        """Units of the present pair; lowest integer when free, highest when empty or pinned: [used]."""
        return self._held[: self.used]

    @property
    def sequence(self) -> NDArray[np.int64]:
        """Order of arrival: [used]."""
        return self._sequence[: self.used]

    @property
    def price(self) -> Units:
        """Dual prices, for the rules that use them: [used]."""
        return self._price[: self.used]

    def reserve(self, count: int, dimension: int) -> None:
        """Room for `count` slots in all."""
        capacity = len(self._partner)
        if count <= capacity and self._vectors.shape[1] == dimension:
            return
        capacity = max(16, count, capacity * 2)
        vectors = np.zeros((capacity, dimension))
        if self.used:
            vectors[: self.used] = self._vectors[: self.used]
        self._vectors = vectors
        slack = self._measure.single_slack(dimension)
        if dimension >= _WIDE and slack is not None:
            self._single, self.slack = np.zeros((capacity, dimension), dtype=np.float32), slack
            self._single[: self.used] = vectors[: self.used]
        for name, empty in (("_partner", -1), ("_held", CLOSED), ("_sequence", 0), ("_price", 0)):
            grown = np.full(capacity, empty, dtype=np.int64)
            grown[: self.used] = getattr(self, name)[: self.used]
            setattr(self, name, grown)

    def add(self, identity: str, vector: Floats, sequence: int) -> int:
        """A slot for a new item, open and free."""
        if self._spare:
            slot = self._spare.pop()
        else:
            slot = self.used
            self.reserve(slot + 1, len(vector))
            self.used += 1
            self.names.append("")
        self.slot_of[identity] = slot
        self.names[slot] = identity
        self._vectors[slot] = vector
        if self._single is not None:
            self._single[slot] = vector
        self._partner[slot] = -1
        self._held[slot] = FREE
        self._sequence[slot] = sequence
        self._price[slot] = 0
        return slot

    def remove(self, slot: int) -> None:
        """Empty the slot; its partner must have been parted before."""
        del self.slot_of[self.names[slot]]
        self.names[slot] = ""
        self._partner[slot] = -1
        self._held[slot] = CLOSED
        self._price[slot] = 0
        self._spare.append(slot)


@dataclass(frozen=True)
class Lost:
    """What an item had that came free: slot of its partner on the other side, and units of the pair."""

    slot: int
    units: int


@dataclass(frozen=True)
class _Step:
    """One step inside a call: before steps that undo each other are cancelled."""

    what: Literal["formed", "parted"]
    units: int
    why: str


class Rule(ABC):
    """A one-to-one pairing of artworks with tracks, exact by its rule after every call.

    Args:
        measure: the similarity of the pairing space.
        floor: similarity below which two items never pair; None: any two may.

    The lists that calls return name parted pairs first and formed pairs after, so that a reader who applies
    them one by one stays one-to-one.
    """

    name: ClassVar[str]

    def __init__(self, measure: Measure, *, floor: float | None = None) -> None:
        self.measure = measure
        self.floor = floor
        self._floor_units: int = measure.lowest if floor is None else as_units(floor)
        self._dimension: int | None = None
        self._sides = {kind: Side(kind, measure) for kind in Kind}
        self._pins: dict[str, str] = {}
        self._steps: dict[tuple[str, str], list[_Step]] = {}

    # What callers use.

    def join(self, kind: Kind | str, identity: str, vector: ArrayLike, sequence: int = 0) -> list[PairChange]:
        """Let an item in, or give a present item another vector.

        Args:
            kind: the item's side.
            identity: the item's id; unique over both sides.
            vector: [dimension] numbers, the same dimension for all items.
            sequence: order of arrival of the record (only `greedy` looks at it); ties by id.

        Returns:
            What changed; nothing when the item is present with this very vector.

        Raises:
            ValueError: the vector is of another dimension or not finite, or the id is present on the other side.
        """
        kind = Kind(kind)
        prepared = self._prepared(kind, identity, vector)
        side = self._sides[kind]
        slot = side.slot_of.get(identity)
        if slot is None:
            self._arrive(side, identity, prepared, sequence, f"formed by the arrival of {identity}")
        elif side.sequence[slot] != sequence or not np.array_equal(side.vectors[slot], prepared):
            self._depart(side, slot, f"{identity} changed")
            self._arrive(side, identity, prepared, sequence, f"formed after {identity} changed")
        return self._changes()

    def leave(self, identity: str, why: str = "withdrawn") -> list[PairChange]:
        """Let an item go; nothing happens when it is not present.

        Args:
            identity: the item's id.
            why: said of the pair that parts, as in "withdrawn: artwork-…".
        """
        for side in self._sides.values():
            slot = side.slot_of.get(identity)
            if slot is not None:
                self._depart(side, slot, f"{why}: {identity}")
        return self._changes()

    def pin(self, artwork: str, track: str) -> list[PairChange]:
        """Fix a pair: it holds whenever both are present, whatever their similarity. Ids need not be present yet.

        Raises:
            ValueError: one of the two is pinned to another item.
        """
        for kind, identity in ((Kind.ARTWORK, artwork), (Kind.TRACK, track)):
            if not identity.startswith(f"{kind.value}-"):
                raise ValueError(
                    f"{identity} is not the id of an item of kind {kind.value}; a pin names artwork, then track"
                )
        for one, other in ((artwork, track), (track, artwork)):
            if self._pins.get(one, other) != other:
                raise ValueError(f"{one} is pinned to {self._pins[one]} already; unpin that pair first")
        if artwork in self._pins:
            return []
        self._pins[artwork], self._pins[track] = track, artwork
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        if artwork in left.slot_of and track in right.slot_of:
            if left.partner[left.slot_of[artwork]] != right.slot_of[track]:
                self._exit(left, left.slot_of[artwork], f"{artwork} was pinned to {track}")
                self._exit(right, right.slot_of[track], f"{track} was pinned to {artwork}")
            self._fix(artwork, track)
        return self._changes()

    def unpin(self, artwork: str, track: str) -> list[PairChange]:
        """Let the rule decide about a pinned pair again; nothing happens when the two are not pinned."""
        if self._pins.get(artwork) != track:
            return []
        del self._pins[artwork], self._pins[track]
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        if artwork in left.slot_of and track in right.slot_of:
            one, two = left.slot_of[artwork], right.slot_of[track]
            self._part(left, one, "unpinned")
            left.held[one] = right.held[two] = CLOSED
            for side, slot, identity in ((left, one, artwork), (right, two, track)):
                side.held[slot] = FREE
                self._enter(side, slot, f"formed after {identity} was unpinned")
        return self._changes()

    def pairs(self) -> Pairs:
        """The present pairing: artwork id -> (track id, similarity)."""
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        slots = np.flatnonzero(left.partner >= 0)
        partners = left.partner[slots]
        if not len(slots):
            return {}
        units = self.measure.paired(left.vectors[slots], right.vectors[partners])
        return {
            left.names[one]: (right.names[two], as_similarity(value))
            for one, two, value in zip(slots, partners, units, strict=True)
        }

    def similarity_of(self, artwork: str, track: str) -> float | None:
        """Similarity of two items, paired or not; None when one of them is not present."""
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        if artwork not in left.slot_of or track not in right.slot_of:
            return None
        return as_similarity(self._units(left, left.slot_of[artwork], right.slot_of[track]))

    def partner_of(self, identity: str) -> str | None:
        """Id of the item that this one is paired with; None when it is free or not present."""
        for kind, side in self._sides.items():
            slot = side.slot_of.get(identity)
            if slot is not None and side.partner[slot] >= 0:
                return self._sides[kind.other].names[int(side.partner[slot])]
        return None

    def count(self, kind: Kind | str) -> int:
        """Present items of one kind."""
        return len(self._sides[Kind(kind)].slot_of)

    def present(self, kind: Kind | str) -> list[str]:
        """Ids of the present items of one kind."""
        return list(self._sides[Kind(kind)].slot_of)

    def vectors(self, kind: Kind | str) -> dict[str, Floats]:
        """Id -> prepared vector [dimension] of the present items of one kind; copies."""
        side = self._sides[Kind(kind)]
        return {identity: side.vectors[slot].copy() for identity, slot in side.slot_of.items()}

    def __contains__(self, identity: object) -> bool:
        return any(identity in side.slot_of for side in self._sides.values())

    def pins(self) -> set[tuple[str, str]]:
        """Pinned pairs (artwork, track), present or not."""
        return {(one, two) for one, two in self._pins.items() if one.startswith(f"{Kind.ARTWORK.value}-")}

    @classmethod
    def restore(
        cls,
        measure: Measure,
        members: Iterable[Member],
        pairs: Iterable[tuple[str, str, float]],
        *,
        floor: float | None = None,
        pins: Iterable[tuple[str, str]] = (),
    ) -> Restored[Self]:
        """A rule as it was: members with their vectors, and the pairs that a snapshot names.

        The pairs are taken over when they are one-to-one among the members, have the similarities that the
        vectors give, and are what the rule demands of all members. Otherwise they are computed anew.

        Args:
            measure: as it was.
            members: every present item, each id once.
            pairs: (artwork, track, similarity).
            floor, pins: as they were.

        Raises:
            ValueError: a member's vector cannot be paired (see `join`).
        """
        known = list(members)
        given = [(str(artwork), str(track), float(similarity)) for artwork, track, similarity in pairs]
        pinned = list(pins)
        rule = cls(measure, floor=floor)
        rule._set_pins(pinned)
        rule._add_all(known)
        agreed = rule._take_over(given) and rule._holds()
        if not agreed:
            rule = cls.filled(measure, known, floor=floor, pins=pinned)
        return Restored(rule, agreed, rule.changes_since(given, "computed anew at the start"))

    @classmethod
    def filled(
        cls,
        measure: Measure,
        members: Iterable[Member],
        *,
        floor: float | None = None,
        pins: Iterable[tuple[str, str]] = (),
    ) -> Self:
        """A rule that all members joined at once: what the definition demands of them.

        Args:
            measure: of the space.
            members: each id once; of one dimension.
            floor, pins: see `Rule` and `pin`.

        Raises:
            ValueError: a member's vector cannot be paired (see `join`).
        """
        rule = cls(measure, floor=floor)
        rule._set_pins(pins)
        rule._fill(members)
        return rule

    def changes_since(self, pairs: Iterable[tuple[str, str, float]], why: str) -> list[PairChange]:
        """What leads from the given pairs (artwork, track, similarity) to the present ones."""
        before = {(artwork, track): as_units(similarity) for artwork, track, similarity in pairs}
        present = {(artwork, track): as_units(value) for artwork, (track, value) in self.pairs().items()}
        changes = []
        for what, some, others in (("parted", before, present), ("formed", present, before)):
            for (artwork, track), units in some.items():
                if others.get((artwork, track)) != units:
                    changes.append(_change(artwork, track, _Step(what, units, why)))  # type: ignore[arg-type]
        return changes

    # What a rule defines.

    @abstractmethod
    def _enter(self, side: Side, slot: int, why: str) -> None:
        """Bring an open, free item into the pairing, so that the definition holds again."""

    @abstractmethod
    def _exit(self, side: Side, slot: int, why: str) -> None:
        """Take an item out of the pairing (closed, without partner), so that the definition holds without it."""

    @abstractmethod
    def _holds(self) -> bool:
        """Whether the pairing, just taken over from a snapshot, is what the definition demands."""

    def _fill(self, members: Iterable[Member]) -> None:
        """Let all items in at once, into an empty pairing."""
        for member in members:
            self.join(member.kind, member.identity, member.vector, member.sequence)

    # What rules share.

    def _add_all(self, members: list[Member]) -> None:
        """Add all items, open and free, without asking the rule."""
        for member in members[:1]:
            self._prepared(member.kind, member.identity, member.vector)
        shape = (self._dimension,)
        if any(np.shape(each.vector) != shape or not each.identity.startswith(f"{each.kind}-") for each in members):
            for member in members:
                self._prepared(member.kind, member.identity, member.vector)  # names the one that cannot be paired
        for start in range(0, len(members), 4096):
            some = members[start : start + 4096]
            try:
                prepared = self.measure.prepare(np.asarray([each.vector for each in some], dtype=np.float64))
            except ValueError:
                prepared = np.array([self._prepared(each.kind, each.identity, each.vector) for each in some])
            for member, vector in zip(some, prepared, strict=True):
                self._sides[Kind(member.kind)].add(member.identity, vector, member.sequence)

    def _other(self, side: Side) -> Side:
        return self._sides[side.kind.other]

    def _prepared(self, kind: Kind | str, identity: str, vector: ArrayLike) -> Floats:
        if not identity.startswith(f"{Kind(kind).value}-"):
            raise ValueError(
                f"{identity} is not the id of an item of kind {Kind(kind).value}; ids begin with their kind"
            )
        try:
            prepared = self.measure.prepare(vector)
        except ValueError as error:
            raise ValueError(f"{identity}: {error}") from None
        if prepared.ndim != 1:
            raise ValueError(f"{identity}: one item has one vector, not an array of shape {prepared.shape}")
        if self._dimension is None:
            self._dimension = len(prepared)
            for side in self._sides.values():
                side.reserve(16, self._dimension)
        if len(prepared) != self._dimension:
            raise ValueError(
                f"{identity}: a vector of {len(prepared)} numbers cannot be paired with vectors of "
                f"{self._dimension}; check the space that it was made in"
            )
        return prepared

    def _arrive(self, side: Side, identity: str, prepared: Floats, sequence: int, why: str) -> None:
        slot = side.add(identity, prepared, sequence)
        pinned = self._pins.get(identity)
        other = self._other(side)
        if pinned is None or pinned not in other.slot_of:
            self._enter(side, slot, why)
            return
        side.held[slot] = CLOSED  # the rule has no say about it, not even while its partner comes free
        self._exit(other, other.slot_of[pinned], f"{pinned} was pinned to {identity}")
        self._fix(*((identity, pinned) if side.kind is Kind.ARTWORK else (pinned, identity)))

    def _depart(self, side: Side, slot: int, why: str) -> None:
        other = self._other(side)
        partner = int(side.partner[slot])
        if side.held[slot] == CLOSED and partner >= 0:  # a pinned pair: the other one is the rule's again
            self._part(side, slot, why)
            side.held[slot], other.held[partner] = CLOSED, FREE
            self._enter(other, partner, f"formed after {side.names[slot]} left")
        else:
            self._exit(side, slot, why)
        side.remove(slot)

    def _fix(self, artwork: str, track: str) -> None:
        """Pair two pinned items and close both to the rule."""
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        one, two = left.slot_of[artwork], right.slot_of[track]
        if left.partner[one] != two:
            self._pair(left, one, two, "pinned")
        left.held[one] = right.held[two] = CLOSED
        left.price[one] = right.price[two] = 0

    def _set_pins(self, pins: Iterable[tuple[str, str]]) -> None:
        for artwork, track in pins:
            self.pin(artwork, track)

    def _take_over(self, pairs: list[tuple[str, str, float]]) -> bool:
        """Hang the given pairs without asking the rule; False when they cannot be true."""
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        if any(artwork not in left.slot_of or track not in right.slot_of for artwork, track, _ in pairs):
            return False
        one = np.array([left.slot_of[artwork] for artwork, _, _ in pairs], dtype=np.int64)
        two = np.array([right.slot_of[track] for _, track, _ in pairs], dtype=np.int64)
        if len(set(one.tolist())) < len(one) or len(set(two.tolist())) < len(two):
            return False
        if len(one):
            units = self.measure.paired(left.vectors[one], right.vectors[two])
            if (units != [as_units(similarity) for _, _, similarity in pairs]).any():
                return False
            left.partner[one], right.partner[two] = two, one
            left.held[one] = right.held[two] = units
        for artwork, track in self.pins():
            if artwork in left.slot_of and track in right.slot_of:
                if left.partner[left.slot_of[artwork]] != right.slot_of[track]:
                    return False
                left.held[left.slot_of[artwork]] = right.held[right.slot_of[track]] = CLOSED
        open_units = left.held[(left.held != CLOSED) & (left.held != FREE)]
        return not len(open_units) or bool(open_units.min() >= self._floor_units)

    def _units(self, side: Side, slot: int, target: int) -> int:
        vectors = self._other(side).vectors
        return int(self.measure.paired(side.vectors[slot][None, :], vectors[target][None, :])[0])

    def _row(self, side: Side, slot: int, among: Slots | None = None) -> Units:
        """Units of one item with slots of the other side (None: all): [among]."""
        vectors = self._other(side).vectors
        return self.measure.row(side.vectors[slot], vectors if among is None else vectors[among])

    def _about(self, side: Side, slot: int, among: Slots | None = None) -> Floats:
        """As `_row`, but off by at most the other side's slack; many are not picked out, as that takes longer."""
        glance = self._other(side).glance
        if among is not None and _PICKED * len(among) < len(glance):
            return self.measure.nearly(side.vectors[slot], glance[among])
        about = self.measure.nearly(side.vectors[slot], glance)
        return about if among is None else about[among]

    def _pair(self, side: Side, slot: int, target: int, why: str, units: int | None = None) -> None:
        other = self._other(side)
        units = self._units(side, slot, target) if units is None else units
        side.partner[slot], other.partner[target] = target, slot
        side.held[slot] = other.held[target] = units
        self._note(side, slot, target, "formed", units, why)

    def _part(self, side: Side, slot: int, why: str) -> int:
        """Part an item from its partner; both are free. The partner's slot, or -1 when there was none."""
        other = self._other(side)
        target = int(side.partner[slot])
        if target >= 0:
            held = int(side.held[slot])
            units = held if held not in (CLOSED, FREE) else self._units(side, slot, target)
            self._note(side, slot, target, "parted", units, why)
            other.partner[target], other.held[target] = -1, FREE
        side.partner[slot], side.held[slot] = -1, FREE
        return target

    def _note(
        self, side: Side, slot: int, target: int, what: Literal["formed", "parted"], units: int, why: str
    ) -> None:
        names = side.names[slot], self._other(side).names[target]
        key = names if side.kind is Kind.ARTWORK else names[::-1]
        self._steps.setdefault((key[0], key[1]), []).append(_Step(what, units, why))

    def _changes(self) -> list[PairChange]:
        """The steps since the last call as changes; what was done and undone within the call is left out."""
        parted, formed = [], []
        for (artwork, track), steps in self._steps.items():
            first, last = steps[0], steps[-1]
            if first.what == "parted" and (last.what == "parted" or last.units != first.units):
                parted.append(_change(artwork, track, first))
            if last.what == "formed" and (first.what == "formed" or last.units != first.units):
                formed.append(_change(artwork, track, last))
        self._steps = {}
        return parted + formed


RuleType = TypeVar("RuleType", bound=Rule, covariant=True)


@dataclass(frozen=True)
class Restored(Generic[RuleType]):
    """A rule made from a snapshot.

    `agreed` says that the snapshot's pairs were taken over as they were; otherwise `changes` leads from them to
    the pairs that were computed anew.
    """

    rule: RuleType
    agreed: bool
    changes: list[PairChange]


def _change(artwork: str, track: str, step: _Step) -> PairChange:
    return PairChange(
        artwork=artwork, track=track, similarity=as_similarity(step.units), what=step.what, why=step.why
    )


def _places(side: Side, *, by_arrival: bool) -> Slots:
    """The place of every slot in the order of ids, or of arrival and then id: [used]."""
    names = side.names[: side.used]
    order = sorted(range(side.used), key=lambda slot: (int(side.sequence[slot]) if by_arrival else 0, names[slot]))
    places = np.empty(side.used, dtype=np.int64)
    places[order] = np.arange(side.used)
    return places


class ProposingRule(Rule):
    """A rule whose pairing is the one stable matching of its preferences, kept by displacement.

    When an item comes free it proposes to the best item that would rather have it than what it has; who loses
    a partner by that proposes next. Between two stable matchings this is deferred acceptance (Gale and Shapley)
    begun at the point of change: those who are proposed to only gain, so every chain ends, and its end is
    stable. Where the stable matching is unique, the result cannot depend on the order of arrival.
    """

    @abstractmethod
    def _worth(self, side: Side, slot: int, lost: Lost | None) -> Slots:
        """Slots of the other side, rising, among which is whom this item likes best of all that would have it.

        Args:
            side, slot: the item.
            lost: the partner that it has just lost. As the pairing was stable with that one, nobody whom this item
                likes more would have it, and since then they have only gained. None: any may.
        """

    @abstractmethod
    def _best(self, side: Side, slot: int, among: Slots, units: Units) -> int:
        """The slot that this item likes best among those that would rather have it; -1 when there is none.

        Args:
            side, slot: the item.
            among: slots of the other side, rising.
            units: exact similarity with each of them: [among].
        """

    @abstractmethod
    def _likes_more(self, side: Side, slot: int, target: int, row: Units) -> bool:
        """Whether this item likes `target` more than the partner it has."""

    def _enter(self, side: Side, slot: int, why: str) -> None:
        self._seek(side, slot, why, None)

    def _seek(self, side: Side, slot: int, why: str, lost: Lost | None) -> None:
        """Let a free item propose, then whoever is displaced by that, until nobody is."""
        other = self._other(side)
        while True:
            among = self._worth(side, slot, lost)
            units = self._row(side, slot, among)
            target = self._best(side, slot, among, units)
            if target < 0:
                return
            me = side.names[slot]
            loser = int(other.partner[target])
            if loser >= 0:
                lost = Lost(target, int(other.held[target]))
                self._part(side, loser, f"displaced by {me}")
            self._pair(side, slot, target, why, int(units[np.searchsorted(among, target)]))
            if loser < 0:
                return
            slot, why = loser, f"formed after {side.names[loser]} was displaced by {me}"

    def _exit(self, side: Side, slot: int, why: str) -> None:
        lost = Lost(slot, int(side.held[slot]))
        target = self._part(side, slot, why)
        side.held[slot] = CLOSED
        if target >= 0:
            other = self._other(side)
            self._seek(other, target, f"formed after {other.names[target]} came free", lost)

    def _proposers(self) -> Side:
        """The side that proposes where all items come in at once: the one with fewer items."""
        return min(self._sides.values(), key=lambda side: len(side.slot_of))

    def _ranks(self, side: Side) -> Slots:
        """The place of every item of the proposing side where equal similarities are told apart: [used]."""
        return _places(side, by_arrival=False)

    @abstractmethod
    def _prefers(self, units: int, rank: int, held: int, holder: int) -> bool:
        """Whether one that is proposed to leaves what it holds: units and rank of either proposer."""

    @abstractmethod
    def _hopeless(
        self, values: NDArray[np.floating], ranks: Slots, held: Floats, holders: Slots
    ) -> NDArray[np.bool_]:
        """Pairs that would be refused: `values` [rows, others] are not above the similarity. Others may stay."""

    def _fill(self, members: Iterable[Member]) -> None:
        """Deferred acceptance with short lists: each round lists the best for all that wait, in blocks of rows."""
        self._add_all(list(members))
        for artwork, track in self.pins():
            if all(name in side.slot_of for name, side in zip((artwork, track), self._sides.values(), strict=True)):
                self._fix(artwork, track)
        self._steps = {}
        side = self._proposers()
        other = self._other(side)
        waiting = np.flatnonzero(side.held == FREE)
        if not len(waiting) or not other.used:
            return
        ranks, other_ranks = self._ranks(side), _places(other, by_arrival=False)
        closed = other.held == CLOSED
        rough = Rough(self.measure, other.vectors)
        targets = np.full((side.used, _LISTED), -1, dtype=np.int32)
        units = np.full((side.used, _LISTED), FREE)
        bound = np.full(side.used, np.inf)
        pointer = [0] * side.used
        held, holder = other.held.tolist(), [-1] * other.used
        rank, everybody = ranks.tolist(), np.arange(other.used)
        while len(waiting):
            again: list[int] = []
            for block in blocks_of(waiting, other.used):
                values = rough.rows(side.vectors[block])
                holding = np.array(holder)
                holder_ranks = np.where(holding >= 0, ranks[holding], _LAST)
                values[:, closed] = -np.inf
                present = np.maximum(np.array(held, dtype=np.float64), -1e15)
                values[self._hopeless(values + rough.error, ranks[block], present, holder_ranks)] = -np.inf
                chosen, limit = largest(values, _LISTED)
                row, place = np.nonzero(chosen >= 0)
                exact = np.full(chosen.shape, FREE)
                exact[row, place] = self.measure.paired(side.vectors[block[row]], other.vectors[chosen[row, place]])
                order = np.lexsort((other_ranks[chosen], -exact.clip(-UNITS * 4)), axis=1)
                targets[block] = np.take_along_axis(chosen, order, axis=1)
                units[block] = np.take_along_axis(exact, order, axis=1)
                bound[block] = np.maximum(limit + rough.error, self._floor_units - 1)
                for first in block.tolist():
                    pointer[first] = 0
                    stuck = self._propose(first, targets, units, bound, pointer, held, holder, rank)
                    if stuck >= 0:
                        again.append(stuck)
            # One whose whole list may be tied with others outside it chooses among all, alone.
            asking = []
            for slot in again:
                if pointer[slot] == 0:
                    other.held[:], other.partner[~closed] = held, np.array(holder)[~closed]
                    row_units = self._row(side, slot)
                    target = self._best(side, slot, everybody, row_units)
                    if target < 0:
                        continue
                    loser = holder[target]
                    held[target], holder[target] = int(row_units[target]), slot
                    if loser >= 0:
                        asking.append(loser)
                else:
                    asking.append(slot)
            waiting = np.array(asking, dtype=np.int64)
        holding = np.array(holder)
        taken = np.flatnonzero(holding >= 0)
        other.partner[taken], side.partner[holding[taken]] = holding[taken], taken
        other.held[taken] = side.held[holding[taken]] = np.array(held)[taken]

    def _propose(
        self,
        slot: int,
        targets: NDArray[np.int32],
        units: Units,
        bound: Floats,
        pointer: list[int],
        held: list[int],
        holder: list[int],
        rank: list[int],
    ) -> int:
        """One proposes, who loses a partner by that proposes next; who comes to the end of its list is returned.

        Returns:
            Its slot, or -1 when everybody found somebody or was refused by all.
        """
        while True:
            names, values, limit = targets[slot].tolist(), units[slot].tolist(), float(bound[slot])
            place, loser = pointer[slot], -2
            while place < len(names) and names[place] >= 0 and values[place] > limit and loser == -2:
                target, value = names[place], values[place]
                place += 1
                holding = holder[target]
                if holding < 0 or self._prefers(value, rank[slot], held[target], rank[holding]):
                    held[target], holder[target], loser = value, slot, holding
            pointer[slot] = place
            if loser == -1:
                return -1
            if loser == -2:
                return slot if limit >= self._floor_units else -1
            slot = loser

    def _holds(self) -> bool:
        """Whether no two items would rather have each other: all pairs in blocks, rows in doubt exactly.

        For 10,000 a side, one core needs a second in 3 to 15 dimensions and 1.7 in 384, once for each time that an
        exhibition is taken over.
        """
        side = self._proposers()
        other = self._other(side)
        waiting = np.flatnonzero(side.held != CLOSED)
        if not len(waiting) or not other.used:
            return True
        ranks, closed, everybody = self._ranks(side), other.held == CLOSED, np.arange(other.used)
        rough = Rough(self.measure, other.vectors)
        present = np.maximum(other.held.astype(np.float64), -1e15)
        holder_ranks = np.where(other.partner >= 0, ranks[other.partner], _LAST)
        for block in blocks_of(waiting, other.used):
            values = rough.rows(side.vectors[block]) + rough.error
            values[:, closed] = -np.inf
            paired = np.flatnonzero(side.partner[block] >= 0)
            values[paired, side.partner[block[paired]]] = -np.inf
            wanted = np.maximum(side.held[block].astype(np.float64), self._floor_units)
            values[self._hopeless(values, ranks[block], present, holder_ranks)] = -np.inf
            for slot in block[(values >= wanted[:, None]).any(axis=1)].tolist():
                row = self._row(side, slot)
                target = self._best(side, slot, everybody, row)
                if target >= 0 and self._likes_more(side, slot, target, row):
                    return False
        return True


class StableRule(ProposingRule):
    """All pairs sorted by similarity, then artwork id, then track id, and taken one-to-one from the top.

    CMEAN's code and ArtSound pair this way. As similarity is symmetric and ties have a strict order, this is
    the only stable matching of the items, so displacement reaches exactly it in any order of arrival.

    Cost of an arrival or departure: one row of similarities, O(items of the other side x dimension), and for each
    item that is displaced those of a row that belong to worse pairs than the one that it lost. Wide vectors are
    read in single precision, and exactly only those of the few that it cannot rule out.
    """

    name = "stable"

    def _worth(self, side: Side, slot: int, lost: Lost | None) -> Slots:
        other = self._other(side)
        # Whoever would have it likes it less than what it lost, and holds less than that.
        among = np.flatnonzero(other.held != CLOSED if lost is None else other.held <= lost.units)
        about, least = self._about(side, slot, among), np.maximum(other.held[among], self._floor_units)
        worth = about >= least - other.slack
        sure = about[about > least + other.slack]
        if len(sure):
            worth &= about >= sure.max() - 2 * other.slack
        return among[worth]

    def _best(self, side: Side, slot: int, among: Slots, units: Units) -> int:
        other = self._other(side)
        held = other.held
        wanting = units >= np.maximum(held[among], self._floor_units)
        candidates, units = among[wanting], units[wanting]
        me = side.names[slot]
        while len(candidates):
            top = units.max()
            tied = candidates[units == top]
            # At equal similarity the smaller id goes first: the present partner yields to a smaller one only.
            accepting: list[int] = [
                target for target in tied.tolist() if held[target] < top or me < side.names[other.partner[target]]
            ]
            if accepting:
                return min(accepting, key=other.names.__getitem__)
            lower = units < top
            candidates, units = candidates[lower], units[lower]
        return -1

    def _prefers(self, units: int, rank: int, held: int, holder: int) -> bool:
        return units > held or (units == held and rank < holder)

    def _hopeless(
        self, values: NDArray[np.floating], ranks: Slots, held: Floats, holders: Slots
    ) -> NDArray[np.bool_]:
        return values < held

    def _likes_more(self, side: Side, slot: int, target: int, row: Units) -> bool:
        present = int(side.partner[slot])
        if present < 0 or row[target] != side.held[slot]:
            return bool(present < 0 or row[target] > side.held[slot])
        names = self._other(side).names
        return names[target] < names[present]


def batch_stable(
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    measure: Measure,
    *,
    floor: float | None = None,
    pins: Iterable[tuple[str, str]] = (),
) -> Pairs:
    """The definition of `stable`, word by word: the reference for `StableRule`.

    All pins whose two items are present, then all other pairs sorted by (similarity falling, artwork id, track
    id) and taken greedily. O(n m log(n m)) time and 32 bytes for each of the n m pairs.
    """
    pairs, left, right = pinned_first(artworks, tracks, measure, pins)
    if not left or not right:
        return pairs
    units = matrix_of(artworks, tracks, left, right, measure)
    # A stable sort keeps row-major order among ties, and rows and columns are in the order of the ids.
    order = np.argsort(-units, axis=None, kind="stable")
    rows, columns = np.divmod(order, len(right))
    lowest = measure.lowest if floor is None else as_units(floor)
    row_taken, column_taken = [False] * len(left), [False] * len(right)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row_taken[row] or column_taken[column]:
            continue
        if units[row, column] < lowest:
            break
        row_taken[row] = column_taken[column] = True
        pairs[left[row]] = right[column], as_similarity(units[row, column])
    return pairs


def pinned_first(
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    measure: Measure,
    pins: Iterable[tuple[str, str]],
) -> tuple[Pairs, list[str], list[str]]:
    """Pinned pairs of present items, and the ids that remain on either side, sorted."""
    pairs: Pairs = {}
    for artwork, track in pins:
        if artwork in artworks and track in tracks:
            units = matrix_of(artworks, tracks, [artwork], [track], measure)
            pairs[artwork] = track, as_similarity(units[0, 0])
    taken = {track for track, _ in pairs.values()}
    return pairs, sorted(set(artworks) - set(pairs)), sorted(set(tracks) - taken)


def matrix_of(
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    left: list[str],
    right: list[str],
    measure: Measure,
) -> Units:
    def prepared(names: list[str], vectors: Mapping[str, ArrayLike]) -> Floats:
        return measure.prepare(np.asarray([vectors[name] for name in names], dtype=np.float64))

    return measure.matrix(prepared(left, artworks), prepared(right, tracks))
