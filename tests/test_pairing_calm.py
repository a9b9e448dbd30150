"""The wall kept from change to change: around what changed lie exactly the whole exchanges that it is part of."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.media import Kind, digest_of, item_id
from schemas.records import PairChange
from workers.pairing.calm import Wall, exchanges

ARTWORKS, TRACKS = ([item_id(kind, digest_of(f"{number}".encode())) for number in range(5)] for kind in Kind)


@st.composite
def pairings(draw: st.DrawFn) -> dict[tuple[str, str], float]:
    count = draw(st.integers(0, len(TRACKS)))
    pairs = zip(draw(st.permutations(ARTWORKS))[:count], draw(st.permutations(TRACKS))[:count], strict=True)
    return {pair: draw(st.integers(0, 10)) / 10 for pair in pairs}


def way(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> list[PairChange]:
    """What leads from one pairing to another."""

    def change(pair: tuple[str, str], similarity: float, what: Any) -> PairChange:
        return PairChange(artwork=pair[0], track=pair[1], similarity=similarity, what=what, why="for a test")

    parted = [change(pair, similarity, "parted") for pair, similarity in before.items() if pair not in after]
    formed = [
        change(pair, similarity, "rescored" if pair in before else "formed") for pair, similarity in after.items()
    ]
    return parted + formed


@given(
    st.lists(st.tuples(pairings(), pairings()), min_size=1, max_size=4), st.sets(st.sampled_from(ARTWORKS + TRACKS))
)
def test_around_some_items_lie_all_exchanges_that_hold_one_of_them(
    steps: list[tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]], items: set[str]
) -> None:
    wall = Wall(*steps[0])
    for (hung, target), (next_hung, next_target) in pairwise(steps):
        wall.hang(way(hung, next_hung))
        wall.follow(way(target, next_target))
    hung, target = steps[-1]
    assert (wall.hung, wall.target) == (hung, target)
    touched = [
        each
        for each in exchanges(hung, target)
        if items & {item for pair in (*each.parted, *each.formed) for item in pair}
    ]
    old, new = wall.around(items)
    assert old == {pair: hung[pair] for each in touched for pair in each.parted}
    assert new == {pair: target[pair] for each in touched for pair in each.formed}
    assert wall.hung_with(items) == sorted(pair for pair in hung if items & {*pair})
