"""An optimal pairing of large sides at once, with the prices that prove it: where the rule `optimal` starts from.

The dense solver of a library needs all pairs in memory. Here only few pairs of each item are *listed*, a library
solves the assignment over these, and the dual prices of its solution are then held against all pairs, in blocks of
rows. Pairs that gain more than the two prices are listed too, and it is solved again, until there are none: then the
prices prove that no other pairing of all items has a greater total (column generation; weak duality of the
assignment problem). The last few items may be left to the caller, who can mend them one by one.

All gains and prices are whole units, so the proof is exact. Nothing here knows ids, events or reasons.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.pairing.candidates import Candidates, Slots, blocks_of
from workers.pairing.similarity import Floats, Measure, Rough, Units

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

_WIDTH: Final = 64
"""Items of the other side that are listed for each item before the first prices are known: with 32 of them, three
dimensions and equal sides took three more rounds."""
_BLOCK: Final = 1_000_000
"""Pairs that are computed exactly at a time."""


@dataclass(frozen=True)
class Half:
    """One side: prepared vectors [n, dimension] of all slots, which of them may be paired [n], and their lists."""

    vectors: Floats
    open: Mask
    lists: Candidates

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Started:
    """A pairing and its prices: both prices together are a pair's gain where paired, and 0 where free or closed.

    Attributes:
        partner: slot of the right side for every slot of the left one, -1 where free: [left].
        prices: of both sides, in units, never below 0.
        wanting: slots of the left side that gain more by some pair than the prices say. Where there are none, the
            pairing is proven optimal.
        rounds: how often the library solved.
    """

    partner: Slots
    prices: tuple[Units, Units]
    wanting: Slots
    rounds: int


@dataclass
class _Listed:
    """Listed pairs by row, each once: keys row * columns + column in rising order, and their gains."""

    columns: int
    keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    gains: Units = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, row: Slots, column: Slots, gains: Units) -> None:
        """List more pairs; those listed already stay."""
        keys, first = np.unique(np.concatenate([self.keys, row * np.int64(self.columns) + column]), return_index=True)
        self.gains = np.concatenate([self.gains, gains])[first]
        self.keys = keys

    def turned(self, rows: int) -> _Listed:
        """The same pairs by column."""
        row, column = np.divmod(self.keys, self.columns)
        order = np.lexsort((row, column))
        return _Listed(rows, (column * np.int64(rows) + row)[order], self.gains[order])


def start_together(left: Half, right: Half, measure: Measure, *, rest: int, lowest: int, enough: int = 0) -> Started:
    """The greatest total gain over all open items.

    Args:
        left, right: the two sides. Their lists are made anew: afterwards they hold the best of the other side by
            similarity minus price.
        measure: of the space.
        rest: what staying free counts, in units; the gain of a pair is its similarity minus this, and above 0.
        lowest: units below which a pair is forbidden.
        enough: so many items may remain wanting; 0 goes on until the proof is complete.
    """
    started = _started((left, right), measure, rest, lowest, enough, None)
    assert started is not None  # the library's solution always has prices over the pairs that it knew
    return started


def prove(left: Half, right: Half, measure: Measure, partner: Slots, *, rest: int, lowest: int) -> Started | None:
    """Prices that prove a given pairing optimal, or None where another pairing of all open items gains more.

    Args:
        partner: slot of the right side for every slot of the left one, -1 where free or closed: [left].
        left, right, measure, rest, lowest: see `start_together`.
    """
    return _started((left, right), measure, rest, lowest, 0, partner)


def _started(
    sides: tuple[Half, Half], measure: Measure, rest: int, lowest: int, enough: int, given: Slots | None
) -> Started | None:
    left, right = sides
    none: Slots = np.zeros(0, dtype=np.int64)
    prices = np.zeros(len(left), dtype=np.int64), np.zeros(len(right), dtype=np.int64)
    if not left.open.any() or not right.open.any():
        return Started(np.full(len(left), -1, dtype=np.int64), prices, none, 0)
    listed = _Listed(len(right))
    if given is not None:
        paired = np.flatnonzero(given >= 0)
        listed.add(paired, given[paired], _exact(measure, left, right, paired, given[paired]) - rest)
    wide = Half(left.vectors, left.open, Candidates(_WIDTH)), Half(right.vectors, right.open, Candidates(_WIDTH))
    for one in (0, 1):
        _list(wide, one, prices[1 - one], measure, lowest)
        listed.add(*_pairs_of(wide, one, rest))
    del wide
    rounds = 0
    while True:
        rounds += 1
        partner = _solved(listed, len(left)) if given is None else given
        central = _central(listed, partner, len(left))
        if central is None:
            return None
        prices = central
        _list(sides, 0, prices[1], measure, lowest)
        row, column, gains = _pairs_of(sides, 0, rest)
        more = row[gains > prices[0][row] + prices[1][column]]
        unproven = _unproven(left, right, prices, measure, rest, lowest)
        wanting = np.unique(np.concatenate([more, unproven[0]]))
        log.info(
            "round %d over %d listed pairs: %d items gain more elsewhere", rounds, len(listed.keys), len(wanting)
        )
        if len(wanting) <= enough:
            break
        listed.add(row, column, gains)
        listed.add(*unproven)
        _list(sides, 1, prices[0], measure, lowest)
        listed.add(*_pairs_of(sides, 1, rest))
    _list(sides, 1, prices[0], measure, lowest)
    return Started(partner, prices, wanting, rounds)


def _list(sides: tuple[Half, Half], one: int, prices: Units, measure: Measure, lowest: int) -> None:
    """Make the lists of a side by similarity minus the other side's prices."""
    side, other = sides[one], sides[1 - one]
    side.lists.reserve(len(side), len(other))
    side.lists.reference[: len(other)] = prices
    closed = np.flatnonzero(~other.open)
    rough = Rough(measure, other.vectors, prices)
    exact = partial(_exact, measure, side, other)
    for block in blocks_of(np.flatnonzero(side.open), len(other)):
        values = rough.rows(side.vectors[block])
        values[:, closed] = -np.inf
        side.lists.put(block, values, rough.error, lowest, exact)
    side.lists.bound[: len(side)] -= rough.offset


def _exact(measure: Measure, side: Half, other: Half, rows: Slots, columns: Slots) -> Units:
    return measure.paired(side.vectors[rows], other.vectors[columns])


def _pairs_of(sides: tuple[Half, Half], one: int, rest: int) -> tuple[Slots, Slots, Units]:
    """What a side's lists hold: left slots, right slots and gains."""
    lists, count = sides[one].lists, len(sides[one])
    row, place = np.nonzero((lists.slots[:count] >= 0) & sides[one].open[:, None])
    column = lists.slots[row, place].astype(np.int64)
    gains = lists.units[row, place].astype(np.int64) - rest
    return (row, column, gains) if one == 0 else (column, row, gains)


def _unproven(
    left: Half, right: Half, prices: tuple[Units, Units], measure: Measure, rest: int, lowest: int
) -> tuple[Slots, Slots, Units]:
    """Pairs that gain more than their prices, of those left items whose bound does not prove their list enough."""
    rows = np.flatnonzero(left.open & (left.lists.bound[: len(left)] > prices[0] + rest))
    step = max(1, _BLOCK // len(right))
    width = min(left.lists.width, len(right))
    found: list[tuple[Slots, Slots, Units]] = [(rows[:0], rows[:0], rows[:0])]
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        gains = measure.matrix(left.vectors[block], right.vectors) - rest
        over = gains - prices[1] - prices[0][block][:, None]
        over[(gains < lowest - rest) | ~right.open] = 0
        column = np.argpartition(over, len(right) - width, axis=1)[:, -width:]
        row, place = np.nonzero(np.take_along_axis(over, column, axis=1) > 0)
        column = column[row, place]
        found.append((block[row], column, gains[row, column]))
    row, column, gains = (np.concatenate(part) for part in zip(*found, strict=True))
    return row, column, gains


def _solved(listed: _Listed, rows: int) -> Slots:
    """The best pairing over listed pairs, by a library: each row's column, -1 where it stays free.

    Every row has a column of its own beside the others, which stands for staying free.
    """
    # Read here: scipy takes longer to load than most commands take to answer.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    columns = listed.columns
    if rows > columns:
        holder = _solved(listed.turned(rows), columns)
        partner = np.full(rows, -1, dtype=np.int64)
        held = np.flatnonzero(holder >= 0)
        partner[holder[held]] = held
        return partner
    row, column = np.divmod(listed.keys, columns)
    ends = np.searchsorted(row, np.arange(rows + 1)) + np.arange(rows + 1)
    place = np.arange(len(row)) + row
    weights = np.ones(len(row) + rows)  # one more than the gain, since the library leaves zeros out
    to = np.empty(len(weights), dtype=np.int32)
    weights[place], to[place] = listed.gains + 1, column
    to[ends[1:] - 1] = columns + np.arange(rows)
    graph = csr_array((weights, to, ends.astype(np.int32)), shape=(rows, columns + rows))
    found = min_weight_full_bipartite_matching(graph, maximize=True)[1].astype(np.int64)
    return np.where(found < columns, found, -1)


def _central(listed: _Listed, partner: Slots, rows: int) -> tuple[Units, Units] | None:
    """Prices that prove a pairing optimal among listed pairs, in the middle between the extremes; None without any.

    Between the lowest prices of the one side and those of the other: they leave the least to be found missing. The
    mean of two proofs, rounded on one side only, is a proof.
    """
    turned = listed.turned(rows)
    holder = np.full(listed.columns, -1, dtype=np.int64)
    paired = np.flatnonzero(partner >= 0)
    holder[partner[paired]] = paired
    own = np.zeros(rows, dtype=np.int64)
    keys = paired * np.int64(listed.columns) + partner[paired]
    own[paired] = listed.gains[np.searchsorted(listed.keys, keys)]
    own_column = np.zeros(listed.columns, dtype=np.int64)
    own_column[partner[paired]] = own[paired]
    low = _lowest(listed, partner, own, holder, own_column)
    low_rows = _lowest(turned, holder, own_column, partner, own) if low is not None else None
    if low is None or low_rows is None:
        return None
    right = np.zeros(listed.columns, dtype=np.int64)
    left = np.zeros(rows, dtype=np.int64)
    high = own[paired] - low_rows[paired]
    right[partner[paired]] = (low[partner[paired]] + high) // 2
    left[paired] = own[paired] - right[partner[paired]]
    return left, right


def _lowest(listed: _Listed, partner: Slots, own: Units, holder: Slots, ceiling: Units) -> Units | None:
    """The lowest column prices that prove a pairing among listed pairs: [columns]; None where there are none.

    Longest paths by label correction: a column costs at least what a row would gain by it above its income, which
    is its own pair's gain less the price of that pair's column. A price above the gain of the column's own pair
    (`ceiling`, 0 for a free one), or a path with more steps than there are rows, means that a better pairing exists.
    """
    rows, columns = len(partner), listed.columns
    row, column = np.divmod(listed.keys, columns)
    starts = np.searchsorted(row, np.arange(rows + 1))
    price = np.zeros(columns, dtype=np.int64)
    asking = np.arange(rows)
    for _ in range(rows + 2):
        if not len(asking):
            return price
        held = partner[asking]
        income = np.where(held >= 0, own[asking] - price[held], 0)
        lengths = starts[asking + 1] - starts[asking]
        places = np.repeat(starts[asking] - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())
        asked = listed.gains[places] - np.repeat(income, lengths)
        target = column[places]
        more = asked > price[target]
        target = target[more]
        np.maximum.at(price, target, asked[more])
        if (price[target] > ceiling[target]).any():
            return None
        asking = np.unique(holder[target])
        asking = asking[asking >= 0]
    return None
