"""The rule `optimal`: the one-to-one pairing of the greatest total similarity, kept while items come and go.

It is the assignment problem with dual prices (Kuhn, Munkres; Jonker and Volgenant's shortest augmenting paths).
Every item has a price >= 0; the prices of two items are together at least the gain of pairing them, exactly the
gain where they are paired, and 0 where an item is free. Such prices prove that the total is the greatest. An
arrival or departure breaks this at one item only, and one shortest alternating path restores it.

Gains and prices are whole units of 1e-7, so the optimum is exact for the rounded similarities. Where several
pairings have the same total, which of them hangs depends on the order of arrival; the total does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from schemas.media import Kind
from workers.pairing.rules import CLOSED, Pairs, Rule, Side, matrix_of, pinned_first
from workers.pairing.similarity import Measure, Units, as_similarity, as_units

_FORBIDDEN: Final = -(1 << 50)
"""Gain of a pair that may not be made: no price makes it worth while."""
_FAR: Final = 1 << 60
"""Distance of an item that no path has reached."""


def rest_units(measure: Measure, floor: float | None) -> int:
    """What staying free counts, in units; a pair's gain is its similarity minus this.

    Without a floor it lies below every similarity, so as many pairs are made as the smaller side allows. With a
    floor it is 0, or the floor where that is negative, less one unit, so that nobody stays free for nothing:
    then pairs below the floor are never made, and the total similarity of the others is the greatest.
    """
    return (measure.lowest if floor is None else min(0, as_units(floor))) - 1


class OptimalRule(Rule):
    """The greatest total similarity (see `rest_units` for what free items count).

    Cost of an arrival or departure: one row of similarities, O(items of the other side x dimension), for each
    item whose price is looked at: few where the sides differ in number, up to all of them where they are equal.
    """

    name = "optimal"

    def __init__(self, measure: Measure, *, floor: float | None = None) -> None:
        super().__init__(measure, floor=floor)
        self._rest = rest_units(measure, floor)

    def prices(self) -> dict[str, int]:
        """The price of every present item, in units: together with the pairs, the proof that they are optimal."""
        return {
            identity: int(side.price[slot])
            for side in self._sides.values()
            for identity, slot in side.slot_of.items()
        }

    def total(self) -> float:
        """The total similarity of all pairs."""
        return sum(as_units(similarity) for _, similarity in self.pairs().values()) / as_units(1.0)

    def _gains(self, side: Side, slot: int) -> Units:
        row = self._row(side, slot)
        gains = row - self._rest
        forbidden = self._other(side).held == CLOSED
        if self.floor is not None:
            forbidden |= row < self._floor_units
        gains[forbidden] = _FORBIDDEN
        return gains

    def _enter(self, side: Side, slot: int, why: str) -> None:
        gains = self._gains(side, slot) - self._other(side).price
        side.price[slot] = max(0, int(gains.max())) if len(gains) else 0
        self._settle(side, slot, why)

    def _exit(self, side: Side, slot: int, why: str) -> None:
        target = self._part(side, slot, why)
        side.held[slot], side.price[slot] = CLOSED, 0
        if target >= 0:
            other = self._other(side)
            self._settle(other, target, f"formed after {other.names[target]} came free")

    def _settle(self, side: Side, root: int, why: str) -> None:
        """Restore the optimum when only `root`, unpaired at a price above 0, breaks it.

        Dijkstra's shortest path over alternating edges, by reduced cost (prices minus gain), from `root` to
        whichever is nearest: a free item of the other side, or an item of this side that becomes free at the
        cost of its price (`root` itself among them).
        """
        other = self._other(side)
        best, end, end_is_other = int(side.price[root]), root, False
        if best == 0:
            return
        distance: NDArray[np.int64] = np.full(other.used, _FAR)
        queue = distance.copy()  # the same for items not yet passed; those passed are far, and never chosen again
        via: NDArray[np.int64] = np.full(other.used, -1)
        mine, mine_at, theirs = [root], [0], []
        current, at = root, 0
        while True:
            # Only items that may be nearer than the best end so far are looked at exactly: mostly a few.
            offset = at + int(side.price[current]) + self._rest
            vector = side.vectors[current]
            about = self.measure.nearly(vector, other.vectors)
            candidates = np.flatnonzero(other.price - about < best - offset + 1)
            row = self.measure.row(vector, other.vectors[candidates])
            reached = other.price[candidates] - row + offset
            nearer = (reached < distance[candidates]) & (reached < best) & (other.held[candidates] != CLOSED)
            if self.floor is not None:
                nearer &= row >= self._floor_units
            candidates, reached = candidates[nearer], reached[nearer]
            distance[candidates] = queue[candidates] = reached
            via[candidates] = current
            free = np.flatnonzero(other.partner[candidates] < 0)
            if len(free):
                nearest = int(free[reached[free].argmin()])
                best, end, end_is_other = int(reached[nearest]), int(candidates[nearest]), True
            nearest = int(queue.argmin()) if len(queue) else -1
            if nearest < 0 or queue[nearest] >= best:
                break
            reach, partner = int(queue[nearest]), int(other.partner[nearest])
            queue[nearest] = _FAR
            theirs.append(nearest)
            mine.append(partner)
            mine_at.append(reach)
            current, at = partner, reach
            if reach + int(side.price[partner]) < best:
                best, end, end_is_other = reach + int(side.price[partner]), partner, False
        side.price[mine] -= best - np.array(mine_at)
        if theirs:
            other.price[theirs] += best - np.array(mine_at[1:])
        self._flip(side, root, end, end_is_other, via, why)

    def _flip(self, side: Side, root: int, end: int, end_is_other: bool, via: NDArray[np.int64], why: str) -> None:
        """Exchange the pairs along the path from `root` to `end`."""
        if not end_is_other and end == root:
            return
        reason = f"re-paired for the greatest total after {side.names[root]} came free"
        if why.startswith("formed by the arrival"):
            reason = f"re-paired for the greatest total after the arrival of {side.names[root]}"
        target = end if end_is_other else int(side.partner[end])
        path = []
        while True:
            slot = int(via[target])
            path.append((slot, target))
            if slot == root:
                break
            target = int(side.partner[slot])
        if not end_is_other:
            self._part(side, end, reason)
        for slot, _ in path:
            if slot != root:
                self._part(side, slot, reason)
        for slot, target in path:
            self._pair(side, slot, target, why if slot == root else reason)

    def _holds(self) -> bool:
        """Find prices that prove the pairs optimal; there are none when they are not.

        Longest paths by label correction from the lowest prices that the free items demand: an item of one side
        must pay at least what the others offer above their own pair. A price above the gain of the item's own
        pair, or above 0 for a free item, means that a better pairing exists.
        """
        left, right = self._sides[Kind.ARTWORK], self._sides[Kind.TRACK]
        open_left = left.held != CLOSED
        paired_left = open_left & (left.partner >= 0)
        own = np.zeros(left.used, dtype=np.int64)
        own[paired_left] = left.held[paired_left] - self._rest
        ceiling = np.zeros(right.used, dtype=np.int64)
        ceiling[left.partner[paired_left]] = own[paired_left]
        price = np.zeros(right.used, dtype=np.int64)
        forbidden = right.held == CLOSED
        waiting = np.flatnonzero(open_left)
        while len(waiting) and right.used:
            before = price.copy()
            for start in range(0, len(waiting), 256):
                rows = waiting[start : start + 256]
                units = self.measure.matrix(left.vectors[rows], right.vectors)
                offers = units - self._rest
                offers[:, forbidden] = _FORBIDDEN
                if self.floor is not None:
                    offers[units < self._floor_units] = _FORBIDDEN
                income = np.where(paired_left[rows], own[rows] - before[left.partner[rows]], 0)
                np.maximum(price, (offers - income[:, None]).max(axis=0), out=price)
            if (price > ceiling).any():
                return False
            raised = np.flatnonzero(price > before)
            waiting = right.partner[raised]
            waiting = waiting[(waiting >= 0) & paired_left[waiting]]
        right.price[:] = price
        left.price[:] = 0
        left.price[paired_left] = own[paired_left] - price[left.partner[paired_left]]
        return True


def batch_optimal(
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    measure: Measure,
    *,
    floor: float | None = None,
    pins: Iterable[tuple[str, str]] = (),
) -> Pairs:
    """The same optimum by a library's dense solver (scipy): the reference for `OptimalRule`. 16 bytes a pair."""
    pairs, left, right = pinned_first(artworks, tracks, measure, pins)
    if not left or not right:
        return pairs
    units = matrix_of(artworks, tracks, left, right, measure)
    allowed = units >= (measure.lowest if floor is None else as_units(floor))
    gains = np.where(allowed, units - rest_units(measure, floor), 0).astype(np.float64)
    rows, columns = linear_sum_assignment(gains, maximize=True)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if allowed[row, column]:
            pairs[left[row]] = right[column], as_similarity(units[row, column])
    return pairs
