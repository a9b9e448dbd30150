"""The rule `greedy`, CMEAN's text (section on pairing): tracks choose in their order of arrival.

Each track takes the most similar picture that is still free; both leave the pool. "Arrival" is the sequence
number of the record, not the moment of processing, so the pairing of a set of items is always the same. It is
the one stable matching in which every picture prefers the earlier track, so displacement keeps it exact: a late
message about an early track takes its picture back from later ones, and these choose again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.media import Kind
from workers.pairing.candidates import Slots
from workers.pairing.rules import CLOSED, FREE, Lost, Pairs, ProposingRule, Side, _places, matrix_of, pinned_first
from workers.pairing.similarity import Floats, Measure, Units, as_similarity, as_units


class GreedyRule(ProposingRule):
    """Tracks in order of (sequence, id) each take the best free picture (ties: the smaller picture id).

    Cost of an arrival or departure: a row of similarities, or the part of it that is in question, for each item
    that is displaced. A track that is placed before all others may displace as many as there are; one that comes
    last displaces nobody.
    """

    name = "greedy"

    def _worth(self, side: Side, slot: int, lost: Lost | None) -> Slots:
        other = self._other(side)
        if side.kind is Kind.TRACK:
            among = self._free_for(side, slot, np.flatnonzero(other.held != CLOSED))
            if not len(among):
                return among
            about = self._about(side, slot, among)
            near: Slots = among[about >= max(about.max() - 2 * other.slack, self._floor_units - other.slack)]
            return near
        # Tracks that came before the one that it lost would not have it.
        earliest = np.iinfo(np.int64).min if lost is None else other.sequence[lost.slot]
        among = np.flatnonzero((other.held != CLOSED) & (other.sequence >= earliest))
        about, least = self._about(side, slot, among), np.maximum(other.held[among], self._floor_units)
        worth = about >= least - other.slack
        sure = other.sequence[among[about > least + other.slack]]
        if len(sure):
            worth &= other.sequence[among] <= sure.min()
        return among[worth]

    def _best(self, side: Side, slot: int, among: Slots, units: Units) -> int:
        other = self._other(side)
        if side.kind is Kind.TRACK:
            above = (units >= self._floor_units) & (other.held[among] != CLOSED)
            candidates = self._free_for(side, slot, among[above])
            if not len(candidates):
                return -1
            units = units[np.searchsorted(among, candidates)]
            best: list[int] = candidates[units == units.max()].tolist()
            return min(best, key=other.names.__getitem__)
        # A track takes the more similar picture, at equal similarity the smaller id.
        held = other.held[among]
        wanting = units >= np.maximum(held, self._floor_units)
        candidates, better = among[wanting], (units > held)[wanting]
        unsure = np.flatnonzero(~better)
        better[unsure] = [side.names[slot] < side.names[other.partner[target]] for target in candidates[unsure]]
        candidates = candidates[better]
        if not len(candidates):
            return -1
        sequences = other.sequence[candidates]
        first: list[int] = candidates[sequences == sequences.min()].tolist()
        return min(first, key=other.names.__getitem__)

    def _free_for(self, side: Side, slot: int, among: Slots) -> Slots:
        """Of open pictures those that are free or held by a later track than this one."""
        other = self._other(side)
        present = side.sequence[np.maximum(other.partner[among], 0)]
        mine = side.sequence[slot]
        later = (other.held[among] == FREE) | (present > mine)
        unsure = np.flatnonzero(~later & (present == mine))  # the smaller id is the earlier track
        later[unsure] = [side.names[slot] < side.names[other.partner[target]] for target in among[unsure]]
        chosen: Slots = among[later]
        return chosen

    def _proposers(self) -> Side:
        return self._sides[Kind.TRACK]

    def _ranks(self, side: Side) -> Slots:
        return _places(side, by_arrival=True)

    def _prefers(self, units: int, rank: int, held: int, holder: int) -> bool:
        return rank < holder

    def _hopeless(
        self, values: NDArray[np.floating], ranks: Slots, held: Floats, holders: Slots
    ) -> NDArray[np.bool_]:
        hopeless: NDArray[np.bool_] = holders[None, :] < ranks[:, None]
        return hopeless

    def _likes_more(self, side: Side, slot: int, target: int, row: Units) -> bool:
        other = self._other(side)
        present = int(side.partner[slot])
        if present < 0:
            return True
        if side.kind is Kind.TRACK:
            return (-int(row[target]), other.names[target]) < (-int(side.held[slot]), other.names[present])
        return (int(other.sequence[target]), other.names[target]) < (
            int(other.sequence[present]),
            other.names[present],
        )


def batch_greedy(
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    measure: Measure,
    *,
    sequences: Mapping[str, int] | None = None,
    floor: float | None = None,
    pins: Iterable[tuple[str, str]] = (),
) -> Pairs:
    """The definition of `greedy`, word by word: the reference for `GreedyRule`.

    `sequences` gives the order of arrival of tracks by id (default: all equal, so by id).
    """
    pairs, left, right = pinned_first(artworks, tracks, measure, pins)
    if not left or not right:
        return pairs
    order = sequences or {}
    right.sort(key=lambda name: (order.get(name, 0), name))
    units = matrix_of(artworks, tracks, left, right, measure)
    lowest = measure.lowest if floor is None else as_units(floor)
    never = np.iinfo(np.int64).min
    for column, track in enumerate(right):
        row = int(units[:, column].argmax())  # the first of the largest: rows are in the order of the ids
        if units[row, column] >= lowest and units[row, column] != never:
            pairs[left[row]] = track, as_similarity(units[row, column])
            units[row, :] = never
    return pairs
