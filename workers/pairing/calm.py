"""Calm: how the wall follows the target.

The *target* pairing is exact by its rule and may change at every arrival; the *hung* pairing is what people see.
Where the two differ, the differing pairs form alternating components: paths and cycles in which hung and target
pairs take turns. Any set of whole components may be exchanged and the wall stays one-to-one, so each is decided
by itself: it moves when its total gain (similarity of its target pairs minus that of its hung pairs) passes the
exhibition's threshold. Pairs between items that hang nowhere disturb nobody and hang at once.

Which items are there, and what their similarities are, is decided by others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.records import PairChange
from workers.pairing.similarity import as_similarity, as_units

CALM_THRESHOLD: Final = 0.1
"""What an exhibition that a person makes starts with (the default one starts with 0: its wall is the target).

Seen on made items in 15 dimensions, 100 to 150 a side with a third more pictures than tracks: at 0.1 an arrival parts
0.8 pairs on the wall instead of 2.6 (`optimal`), 0.6 instead of 1.2 (`stable`), and the mean similarity stays 0.004
to 0.006 below the target's; at 0.2 hardly fewer. A pair more is worth more than this in every space, so whoever can
hang hangs; only exchanges among those that hang already wait. From 0.9 on, items would stay free.
"""

Hung = Mapping[tuple[str, str], float]
"""(artwork, track) -> similarity."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One alternating component: pairs that would be parted and pairs that would be formed.

    `gain` is the similarity of the formed pairs minus that of the parted ones, in units of 1e-7.
    """

    parted: tuple[tuple[str, str], ...]
    formed: tuple[tuple[str, str], ...]
    gain: int


class _Pairing:
    """Pairs that are one-to-one, found by pair and by item."""

    def __init__(self, pairs: Hung) -> None:
        self.pairs = dict(pairs)
        self.of = {item: pair for pair in pairs for item in pair}

    def apply(self, changes: Iterable[PairChange]) -> None:
        for change in changes:
            pair = change.artwork, change.track
            if change.what == "parted":
                self.pairs.pop(pair, None)
                for item in pair:
                    if self.of.get(item) == pair:
                        del self.of[item]
            else:
                self.pairs[pair] = change.similarity
                self.of.update(dict.fromkeys(pair, pair))


class Wall:
    """What hangs and what the rule demands, kept from change to change, so that a change costs what it touches.

    An exchange waits as long as none of its items is touched: nothing in it changes meanwhile, so neither does what
    it gains. Whoever keeps the wall asks again only for the exchanges around what did change.

    Args:
        hung: what hangs.
        target: the exact pairing.
    """

    def __init__(self, hung: Hung, target: Hung) -> None:
        self._hung = _Pairing(hung)
        self._target = _Pairing(target)

    @property
    def hung(self) -> Hung:
        """What hangs now."""
        return self._hung.pairs

    @property
    def target(self) -> Hung:
        """What the rule demands now."""
        return self._target.pairs

    def follow(self, changes: Iterable[PairChange]) -> None:
        """The target changed."""
        self._target.apply(changes)

    def hang(self, changes: Iterable[PairChange]) -> None:
        """The wall changed."""
        self._hung.apply(changes)

    def hung_with(self, items: Iterable[str]) -> list[tuple[str, str]]:
        """The hung pairs of some items, in order."""
        return sorted({pair for item in items if (pair := self._hung.of.get(item)) is not None})

    def around(self, items: Iterable[str]) -> tuple[Hung, Hung]:
        """The hung and the target pairs of all whole components (see `exchanges`) that hold one of the items."""
        hung: dict[tuple[str, str], float] = {}
        target: dict[tuple[str, str], float] = {}
        waiting, seen = list(items), set()
        while waiting:
            item = waiting.pop()
            if item in seen:
                continue
            seen.add(item)
            old, new = self._hung.of.get(item), self._target.of.get(item)
            if old == new:
                continue
            if old is not None:
                hung[old] = self._hung.pairs[old]
                waiting += old
            if new is not None:
                target[new] = self._target.pairs[new]
                waiting += new
        return hung, target


def exchanges(hung: Hung, target: Hung) -> Iterator[Exchange]:
    """The alternating components of two one-to-one pairings, in order of their smallest pair."""
    old = [pair for pair in hung if pair not in target]
    new = [pair for pair in target if pair not in hung]
    old_of = {item: pair for pair in old for item in pair}
    new_of = {item: pair for pair in new for item in pair}
    seen: set[tuple[str, str]] = set()
    for first in sorted([*old, *new]):
        if first in seen:
            continue
        # A pair may be in one of the two lists only, so the pairs themselves are the nodes of the walk.
        waiting = [first]
        parted: list[tuple[str, str]] = []
        formed: list[tuple[str, str]] = []
        seen.add(first)
        while waiting:
            pair = waiting.pop()
            (formed if pair in target else parted).append(pair)
            neighbours = old_of if pair in target else new_of
            for item in pair:
                neighbour = neighbours.get(item)
                if neighbour is not None and neighbour not in seen:
                    seen.add(neighbour)
                    waiting.append(neighbour)
        gain = sum(as_units(target[pair]) for pair in formed) - sum(as_units(hung[pair]) for pair in parted)
        yield Exchange(tuple(sorted(parted)), tuple(sorted(formed)), gain)


def hanging(
    hung: Hung,
    target: Hung,
    *,
    threshold: float,
    why: Mapping[tuple[str, str], str],
    pinned: Collection[tuple[str, str]] = (),
) -> list[PairChange]:
    """What changes on the wall now.

    Args:
        hung: what hangs, of present items only, with the similarities of today.
        target: the exact pairing.
        threshold: gain in total similarity that an exchange needs; at 0 every exchange is made, whatever it gains
            (the rules other than `optimal` may lower the total).
        why: reasons that the rule gave for changes of the target made now.
        pinned: pairs fixed by a person; an exchange that hangs one is made at once.

    Returns:
        Parted pairs first, so that a reader who applies them one by one stays one-to-one.
    """
    parted: list[PairChange] = []
    formed: list[PairChange] = []
    wanted_by = {item: pair for pair in target for item in pair}
    for exchange in exchanges(hung, target):
        fixed = any(pair in pinned for pair in exchange.formed)
        if exchange.parted and threshold > 0 and not fixed and exchange.gain < as_units(threshold):
            continue
        size = max(len(exchange.parted), len(exchange.formed))
        gains = f"an exchange of {size} pairs gains {as_similarity(exchange.gain):.4f}" if exchange.parted else ""
        for artwork, track in exchange.parted:
            reason = why.get((artwork, track)) or _displaced(artwork, track, wanted_by) + (f"; {gains}")
            parted.append(_change(artwork, track, hung[(artwork, track)], "parted", reason))
        for pair in exchange.formed:
            reason = why.get(pair) or ("pinned" if pair in pinned else f"formed: {gains or 'both were free'}")
            formed.append(_change(*pair, target[pair], "formed", reason))
    return parted + formed


def _displaced(artwork: str, track: str, wanted_by: Mapping[str, tuple[str, str]]) -> str:
    if track in wanted_by:
        return f"displaced by {wanted_by[track][0]}"
    if artwork in wanted_by:
        return f"displaced by {wanted_by[artwork][1]}"
    return "parted by the rule"


def _change(artwork: str, track: str, similarity: float, what: str, why: str) -> PairChange:
    return PairChange.model_validate(
        {"artwork": artwork, "track": track, "similarity": similarity, "what": what, "why": why}
    )
