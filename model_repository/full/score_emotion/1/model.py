"""score_emotion in the full profile: RGB said by Qwen3 (`write_text`), valence and arousal by `va_text`.

The question, the reading of the reply and what becomes of one that cannot be read are in `full_models.score_emotion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from edge_models.triton_model import Invalid, Row, RowModel, text
from full_models.reading import reading_of
from full_models.score_emotion import Item, Scored, score
from full_models.weights import Choices
from full_models.writing import MODEL, asking_of


class TritonPythonModel(RowModel):
    """TEXTS BYTES[5], KIND BYTES[1] -> RGB FP32[5,3] in 0..255, VA FP32[5,2] in [0,1], EVIDENCE BYTES[5] (JSON).

    EVIDENCE is JSON, a list of {"source", "what", "effect": {"r", "g", "b", "valence", "arousal"}}: the writer's
    triple (with `asked`, the number of tries; for the whole with `reply`) and what va_text reads (with `reading`: by
    which towers of MMVA, or as in the edge profile).
    """

    inputs = ("TEXTS", "KIND")
    outputs = {"RGB": np.float32, "VA": np.float32, "EVIDENCE": object}  # noqa: RUF012 - ClassVar in the base

    def load(self) -> None:
        """Read the settings; the network is another model's."""
        choices = Choices("score_emotion", self.parameters, self.folder)
        # CMEAN: 256 new tokens, temperature 0.7. The default here is deterministic.
        self._asking = asking_of(choices, tokens=256)
        self._attempts = choices.number("attempts", 4)
        self._writer = choices.text("writer", MODEL)
        self._reading = reading_of(choices, self.folder).name

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """Score all good rows together."""
        items = [_item(row) for row in rows]
        good = [each for each in items if isinstance(each, Item)]
        scored = iter(score(good, self.call, self._asking, self._attempts, self._writer, self._reading))
        return [each if isinstance(each, Invalid) else _row(next(scored)) for each in items]


def _item(row: Row) -> Item | Invalid:
    try:
        texts = [text(row["TEXTS"][part : part + 1], f"TEXTS[{part}]") for part in range(row["TEXTS"].size)]
        return Item.of(texts, text(row["KIND"], "KIND"))
    except Invalid as refusal:
        return refusal


def _row(scored: Scored | Invalid) -> Row | Invalid:
    if isinstance(scored, Invalid):
        return scored
    return cast(Row, {"RGB": scored.rgb, "VA": scored.va, "EVIDENCE": scored.evidence})
