"""Feelings in plain words, out of valence-arousal and CMEAN's RGB: what a person reads beside a number.

The plane is cut into nine fields after Russell's circumplex (1980): three steps of valence by three of arousal.
The strongest colour channel adds its own word when it stands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FIELDS: Final = (
    # low arousal, middle, high arousal; each from unpleasant over neutral to pleasant
    ("gloomy", "quiet", "serene"),
    ("uneasy", "balanced", "warm"),
    ("tense", "stirring", "joyful"),
)
BOUNDS: Final = (0.44, 0.56)
"""Bounds of the middle fields: wide enough that noise does not flip a word, narrow enough that words differ."""

_CHANNELS: Final = ("in motion", "calm", "nostalgic")
_STANDS_OUT: Final = 1.12
"""How much stronger than the mean of the channels one must be to be named."""


def _step(value: float) -> int:
    return 0 if value < BOUNDS[0] else 2 if value > BOUNDS[1] else 1


def feeling_words(rgb: Sequence[float], va: Sequence[float]) -> str:
    """One or two words, for example "serene, nostalgic".

    Args:
        rgb: movement, calm, nostalgia, 0-255 each.
        va: valence and arousal in [0,1].
    """
    words = [FIELDS[_step(va[1])][_step(va[0])]]
    mean = sum(rgb) / 3
    strongest = max(range(3), key=lambda channel: rgb[channel])
    if mean > 0 and rgb[strongest] > _STANDS_OUT * mean:
        words.append(_CHANNELS[strongest])
    return ", ".join(words)
