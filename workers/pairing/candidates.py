"""Of every item the few of the other side that are worth a look, with a bound on all others.

The search for an optimal pairing looks at pairs by similarity minus price. Most of the other side is out of
question; which part is decided once and then proved by the *bound*: no open item outside the list has a similarity
minus *reference price* above it. Reference prices are those of the time when an item was listed; how far prices
have moved since then says how much the bound still proves. Where it proves too little, whoever searches looks
wider; that is left to them.

Nothing here holds all pairs: lists are made in blocks of rows, from similarities that may be off by a known error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.pairing.similarity import Floats

Slots = NDArray[np.int64]
Exact = Callable[[Slots, Slots], NDArray[np.int64]]

BLOCK: Final = 4_000_000
"""Pairs in a block of rows: 16 MB of single-precision similarities."""


def blocks_of(rows: Slots, others: int) -> list[Slots]:
    """Rows in blocks of about `BLOCK` pairs."""
    step = max(1, BLOCK // max(1, others))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def largest(values: NDArray[np.floating], width: int, salt: Slots | None = None) -> tuple[Slots, Floats]:
    """About the `width` largest values of each row, at least half of them where there are as many.

    Args:
        values: [rows, columns]; -inf where a column is out of question.
        width: most that are kept.
        salt: a number for each row [rows]: which of equal values are kept then differs from row to row, so that
            many alike do not all list the same few. None: the first are kept.

    Returns:
        Columns [rows, width], -1 where there are fewer, and a bound [rows] that no other value of the row exceeds.
    """
    rows, columns = values.shape
    if columns <= width:
        padded = np.full((rows, width), -1, dtype=np.int64)
        padded[:, :columns] = np.where(np.isneginf(values), -1, np.arange(columns))
        return padded, np.full(rows, -np.inf)
    group = columns // (3 * width)
    if group < 4:
        order = np.argpartition(values, columns - width - 1, axis=1)
        bound = np.take_along_axis(values, order[:, -width - 1][:, None], axis=1)[:, 0].astype(np.float64)
        chosen = order[:, -width:]
        return np.where(np.isneginf(np.take_along_axis(values, chosen, axis=1)), -1, chosen), bound
    # The largest of each group: as many values as asked for lie at or above the width-th of them, and seldom many
    # more. That is two quick passes over the block instead of a selection in each row.
    whole = group * (columns // group)
    peaks = values[:, :whole].reshape(rows, -1, group).max(axis=2)
    wanted = max(1, (3 * width) // 4)
    threshold = np.partition(peaks, peaks.shape[1] - wanted, axis=1)[:, peaks.shape[1] - wanted]
    least = np.maximum(threshold, np.finfo(values.dtype).min)
    # Only groups whose largest is large enough are looked into, and what lies beyond the last whole group.
    row, which = np.nonzero(peaks >= least[:, None])
    inside = values[:, :whole].reshape(rows, -1, group)[row, which]
    near, place = np.nonzero(inside >= least[row][:, None])
    end, beyond = np.nonzero(values[:, whole:] >= least[:, None])
    column = np.concatenate([which[near] * group + place, beyond + whole])
    value = np.concatenate([inside[near, place], values[end, beyond + whole]])
    row = np.concatenate([row[near], end])
    if salt is None:
        order = np.lexsort((-value, row))
    else:  # two odd factors spread products evenly over 32 bits (Knuth, volume 3, section 6.4)
        mixed = (column + 1) * 2654435761 + (salt[row] + 1) * 2246822519
        order = np.lexsort(((mixed ^ (mixed >> 15)) * 2654435761 % (1 << 32), -value, row))
    row, column, value = row[order], column[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    kept, over = place < width, place == width
    chosen = np.full((rows, width), -1, dtype=np.int64)
    chosen[row[kept], place[kept]] = column[kept]
    bound = threshold.astype(np.float64)
    bound[row[over]] = value[over]
    return chosen, bound


class Candidates:
    """The lists of one side's items. Slots are those of the sides; all units are floats that hold whole numbers.

    Attributes:
        slots: [items, width] of the other side, -1 where there is none.
        units: [items, width] similarities, exact.
        bound: [items] highest (units - reference) of any item of the other side that is not listed, or more; inf
            where no list was made.
        reference: [others] price of each item of the other side when it was listed.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.slots = np.full((0, width), -1, dtype=np.int32)
        self.units: Floats = np.zeros((0, width))
        self.bound: Floats = np.zeros(0)
        self.reference: Floats = np.zeros(0)

    def reserve(self, items: int, others: int) -> None:
        """Room for as many items and others."""
        if items > len(self.bound):
            size = max(items, 2 * len(self.bound), 16)
            for name, empty in (("slots", -1), ("units", 0.0), ("bound", np.inf)):
                old = getattr(self, name)
                grown = np.full((size, *old.shape[1:]), empty, dtype=old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        if others > len(self.reference):
            grown = np.zeros(max(others, 2 * len(self.reference), 16))
            grown[: len(self.reference)] = self.reference
            self.reference = grown

    def forget(self) -> None:
        """Drop all lists."""
        self.slots[:] = -1
        self.bound[:] = np.inf

    def refer(self, prices: Floats, open_: NDArray[np.bool_]) -> None:
        """Take prices of today [others] as reference; bounds of lists that stay grow by what they lose."""
        if not open_.any():
            return
        count = len(prices)
        self.bound += float((self.reference[:count] - prices)[open_].max())
        self.reference[:count][open_] = prices[open_]

    def put(self, rows: Slots, values: NDArray[np.floating], error: float, lowest: int, exact: Exact) -> None:
        """Make the lists of some items anew.

        Args:
            rows: the items [r].
            values: [r, others] units minus reference, off by at most `error`, -inf where a pair is out of question.
            error: see values.
            lowest: units below which a pair is forbidden.
            exact: exact units of items [n] with others [n].
        """
        chosen, bound = largest(values, self.width, rows)
        row, place = np.nonzero(chosen >= 0)
        units = np.zeros(chosen.shape)
        units[row, place] = exact(rows[row], chosen[row, place])
        chosen[units < lowest] = -1
        self.slots[rows] = chosen
        self.units[rows] = units
        self.bound[rows] = bound + error

    def admit(self, slot: int, units: NDArray[np.int64], price: int, lowest: int) -> None:
        """List an item of the other side, new or seen before at another price, where it belongs.

        Args:
            slot: of the other side.
            units: exact, of every item [items] with it.
            price: its reference from now on.
            lowest: units below which a pair is forbidden.
        """
        count = len(units)
        stale = self.slots[:count] == slot
        if stale.any():
            self.slots[:count][stale] = -1
        self.reference[slot] = price
        key = units - float(price)
        rows = np.flatnonzero((key > self.bound[:count]) & (units >= lowest))
        if not len(rows):
            return
        slots = self.slots[rows]
        keys = np.where(slots < 0, -np.inf, self.units[rows] - self.reference[slots])
        place = keys.argmin(axis=1)
        least = keys[np.arange(len(rows)), place]
        better = key[rows] >= least
        # The one that gives way, or the new one itself, is now among those that the bound speaks of.
        self.bound[rows] = np.maximum(self.bound[rows], np.where(better, least, key[rows]))
        rows, place = rows[better], place[better]
        self.slots[rows, place] = slot
        self.units[rows, place] = units[rows]
