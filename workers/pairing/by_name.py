"""Rules by the name that an exhibition's settings use, so that nobody else lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from numpy.typing import ArrayLike

from workers.pairing.greedy import GreedyRule, batch_greedy
from workers.pairing.optimal import OptimalRule, batch_optimal
from workers.pairing.rules import Pairs, Rule, StableRule, batch_stable
from workers.pairing.similarity import Measure

RULES: Final[dict[str, type[Rule]]] = {made.name: made for made in (GreedyRule, StableRule, OptimalRule)}
"""Name -> class."""


def rule_named(name: str) -> type[Rule]:
    """The rule of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in RULES:
        raise ValueError(f"there is no pairing rule {name!r}; use one of {', '.join(sorted(RULES))}")
    return RULES[name]


def pairs_at_once(
    rule: str,
    artworks: Mapping[str, ArrayLike],
    tracks: Mapping[str, ArrayLike],
    measure: Measure,
    *,
    sequences: Mapping[str, int],
    floor: float | None,
    pins: Iterable[tuple[str, str]],
) -> Pairs:
    """What a rule's definition demands of complete sides, computed at once.

    Args:
        rule: its name.
        artworks, tracks: id -> vector.
        measure: of the space.
        sequences: order of arrival of the tracks, for `greedy`.
        floor, pins: as the rule has them.
    """
    if rule == GreedyRule.name:
        return batch_greedy(artworks, tracks, measure, sequences=sequences, floor=floor, pins=pins)
    batch = {StableRule.name: batch_stable, OptimalRule.name: batch_optimal}[rule_named(rule).name]
    return batch(artworks, tracks, measure, floor=floor, pins=pins)
