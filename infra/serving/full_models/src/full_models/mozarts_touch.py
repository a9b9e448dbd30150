"""compose_mozarts_touch: a picture's caption -> a short description of music -> music.

Source: Li et al. 2025 (Mozart's Touch: captions become descriptions of music by a language model, which a
text-to-music model follows), as Rinaldi et al. 2026 (section 5.3) set it up: the caption of the whole picture, Qwen3
for the description. The text-to-music model here is AudioLDM 2, so that composers differ in their words alone. The
instruction is in words of our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from edge_models.music.serving import while_resting
from edge_models.music.turns import Rest
from edge_models.triton_model import Invalid

from full_models.music_wishes import WHOLE, Wanted
from full_models.text_to_music import TextComposer
from full_models.writing import Asking, Message, Written, write

INSTRUCTION: Final = (
    "You turn descriptions of pictures into descriptions of instrumental music that could be heard while looking at "
    "them. Answer with one or two plain sentences, forty words at most. Say the genre or period, the leading "
    "instruments, the tempo, and the mood. Describe sound only: no persons, no objects, nothing that is seen, no "
    "introduction and no list."
)
LONGEST: Final = 60
"""Words of a description; what is longer was no short description, and is asked for again."""
TRIES: Final = 3
_TOKENS: Final = 120


class MozartsTouchModel(TextComposer):
    """The served model. WISHES: as compose_music's but "conditioning" and "prompt". REPORT: as compose_music's, with
    "prompt" (the description), "caption" (what it was made of) and "asked" (how often).
    """

    name = "mozarts-touch"

    def words(self, wanted: Wanted, tools: Any, rest: Rest) -> tuple[str, dict[str, Any]]:
        """The description that the language model finds; deterministic, so the same caption gives the same words.

        Raises:
            Invalid: there is no caption, or no description came of it: never a made-up one.
        """
        caption = " ".join(wanted.texts[WHOLE].split())
        if not caption:
            raise Invalid("there is no caption of the whole picture to make music of")
        conversation: list[Message] = [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": f"The picture: {caption}"},
        ]
        fault = ""
        for attempt in range(1, TRIES + 1):
            (answer,) = while_resting(partial(self._written, tuple(conversation)), rest)
            if isinstance(answer, Invalid):
                raise answer
            description, fault = checked(answer)
            if not fault:
                return description, {"caption": caption, "asked": attempt}
            conversation = [
                *conversation,
                {"role": "assistant", "content": answer.text or "(nothing)"},
                {"role": "user", "content": f"{fault} Answer again, with the description alone."},
            ]
        raise Invalid(f"no description of music came of the caption in {TRIES} tries: {fault}")

    def _written(self, conversation: Sequence[Message]) -> list[Written | Invalid]:
        # Other pieces' words may stand before these in the writer's queue.
        return write(self.call, [conversation], Asking(tokens=_TOKENS, sentences=True))


def checked(answer: Written) -> tuple[str, str]:
    """A description without its wrapping, and what is wrong with it (empty: nothing)."""
    said = " ".join(answer.text.split()).strip("\"'“”*` ")
    count = len(re.findall(r"\w+", said))
    if count < 3:
        return said, "That was no description."
    if count > LONGEST:
        return said, f"That has {count} words; {LONGEST} are too many already."
    return said, ""
