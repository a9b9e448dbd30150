"""Several descriptions of one recording, stretch by stretch, made into one text by Qwen3 (ArtSound, section 3.2).

Only what is asked is decided here, in our own words; the model `write_text` answers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MOST_STRETCHES: Final = 64
"""Descriptions that one question holds: about 64 x 60 words, well inside what Qwen3 reads at once."""

_EDITOR: Final = (
    "You turn notes about a recording into one description of its music. The notes were taken stretch by stretch, in "
    "the order of the recording, and they repeat and sometimes contradict each other. Keep what they say of "
    "instruments and voices, tempo and rhythm, timbre, mood, and the scene that comes to mind; say each thing once; "
    "where stretches differ, say how the music changes. Where notes contradict each other, follow what most of them "
    "say. Add nothing that no note says. Leave out how well or badly it was recorded. Write flowing prose in "
    "English, in whole sentences, without headings or lists, in at most 150 words, and nothing but the description."
)


def messages(stretches: Sequence[str], wish: str, facts: str = "") -> list[dict[str, str]]:
    """The conversation that asks for one description.

    Args:
        stretches: what was heard, in the order of the recording; more than `MOST_STRETCHES` are thinned evenly, the
            first and the last kept.
        wish: what the caller asked of the captioner; it may name a fault of an earlier try.
        facts: what people say of the recording, as a sentence.
    """
    if len(stretches) > MOST_STRETCHES:
        last = len(stretches) - 1
        stretches = [stretches[round(each * last / (MOST_STRETCHES - 1))] for each in range(MOST_STRETCHES)]
    notes = "\n".join(f"Stretch {number}: {' '.join(text.split())}" for number, text in enumerate(stretches, 1))
    asked = "\n".join(part for part in (wish.strip(), facts) if part)
    return [
        {"role": "system", "content": _EDITOR},
        {"role": "user", "content": f"{asked}\n\nThe notes:\n{notes}" if asked else f"The notes:\n{notes}"},
    ]
