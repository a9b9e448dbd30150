"""From the tensors of the full profile's composers to what is asked, or to a refusal in plain words.

The tensors are compose_music's (`edge_models.music.asking`, which checks what both profiles share); only the wishes
differ. How they are followed is left to the composers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from edge_models.music import asking
from edge_models.triton_model import Array, Invalid, parsed, strings, text

Conditioning = Literal["picture", "text", "both"]

FIXED_PROMPT: Final = "Music representing the content of this artwork"
"""What FLAN-T5 is given where the picture speaks alone (Rinaldi et al. 2026, section 4.3)."""
NEGATIVE_PROMPT: Final = "Low quality"
"""What guidance leads away from (the same, section 5)."""
WISHES: Final = ("conditioning", "prompt", "negative", "guidance", "steps", "solver", "candidates", "ticket")
MOST_STEPS: Final = 1000
MOST_CANDIDATES: Final = 8
LONGEST_PROMPT: Final = 4000
_TICKET: Final = re.compile(r"[0-9a-f]{32}")
WHOLE: Final = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a composer of the full profile.

    Attributes:
        vector: the picture's, in the profile's `composer_space`.
        texts: five captions, fragments 1-4 and the whole.
        va: valence and arousal of the whole in [0,1].
        seconds, seed: of the piece.
        wishes: by name, checked each by itself.
    """

    vector: Array
    texts: tuple[str, ...]
    va: tuple[float, float]
    seconds: float
    seed: int
    wishes: Mapping[str, Any]


def read(tensors: Mapping[str, Array], known: tuple[str, ...] = WISHES) -> tuple[Wanted, bool]:
    """What is asked for, and whether a person waits for it.

    Args:
        known: the wishes that this composer follows.

    Raises:
        Invalid: something cannot be composed for; the message names it and says why.
    """
    wishes = parsed(tensors["WISHES"], "WISHES") if text(tensors["WISHES"], "WISHES", 1 << 20).strip() else {}
    ask, live = asking.read({**tensors, "WISHES": strings(json.dumps({}))})
    if wishes is None:
        wishes = {}
    if not isinstance(wishes, dict):
        raise Invalid("WISHES is not a JSON object")
    checked = {name: value for name, value in wishes.items() if value is not None}
    for name, value in checked.items():
        if name not in known:
            said = ", ".join(each for each in known if each != "ticket")
            raise Invalid(f"the wish {str(name)[:40]!r} is not known here; {said} are")
        _check(name, value)
    texts = tuple(text(tensors["TEXTS"].reshape(-1)[part : part + 1], f"TEXTS[{part}]") for part in range(5))
    va = (float(ask.va[WHOLE][0]), float(ask.va[WHOLE][1]))
    # As the question is named: to the millisecond.
    return Wanted(ask.vector, texts, va, round(ask.seconds, 3), ask.seed, checked), live


def _check(name: str, value: Any) -> None:
    if name in ("prompt", "negative"):
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_PROMPT:
            raise Invalid(f'the wish "{name}" is a text of at most {LONGEST_PROMPT} characters')
    elif name == "conditioning":
        if value not in ("picture", "text", "both"):
            raise Invalid('the wish "conditioning" is picture, text or both')
    elif name == "solver":
        if value not in ("ddim", "fast"):
            raise Invalid('the wish "solver" is ddim or fast')
    elif name == "ticket":
        if not isinstance(value, str) or not _TICKET.fullmatch(value):
            raise Invalid("a ticket has 32 hexadecimal digits")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f'the wish "{name}" is a number')
    elif name == "guidance":
        if not 0 <= value <= 30:
            raise Invalid('the wish "guidance" is a number from 0 (none) to 30; 3.5 is usual')
    else:
        most = MOST_STEPS if name == "steps" else MOST_CANDIDATES
        if not 1 <= value <= most or value != int(value):
            raise Invalid(f'the wish "{name}" is a whole number from 1 to {most}')


def tensors_of(
    wanted: Wanted, tensors: Mapping[str, Array], wishes: Mapping[str, Any], live: bool
) -> dict[str, Array]:
    """The same question with other wishes, as another composer takes it."""
    return {
        **{name: np.ascontiguousarray(value) for name, value in tensors.items()},
        "WISHES": strings(json.dumps(dict(wishes))),
        "LIVE": np.array([live]),
        "SECONDS": np.array([wanted.seconds], np.float32),
        "SEED": np.array([wanted.seed], np.int64),
    }
