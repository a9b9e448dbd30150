"""Rules by the name that an exhibition's settings use, so that nobody else lists them."""

from __future__ import annotations

from typing import Final

from workers.pairing.greedy import GreedyRule
from workers.pairing.optimal import OptimalRule
from workers.pairing.rules import Rule, StableRule

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
