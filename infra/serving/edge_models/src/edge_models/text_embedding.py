"""The code of embed_text, embed_picture and embed_sound: in the edge profile each is the vector of a caption.

Media tensors are accepted, because the contract has them, and not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_models import triton_model
from edge_models.minilm import TextVectors
from edge_models.triton_model import Invalid, Row, RowModel


class TextEmbedding(RowModel):
    """TEXT BYTES[1] -> VECTOR FP32[384], unit length (space caption-minilm-1)."""

    inputs = ("TEXT",)
    outputs = {"VECTOR": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read the tokenizer."""
        self._vectors = TextVectors(
            self.folder / "tokenizer.json",
            lambda tokens: self.call("minilm", tokens, ["last_hidden_state"])["last_hidden_state"],
        )

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """Vectors of all good rows in one run of the network."""
        answers: list[Row | Invalid] = []
        good: list[tuple[int, str]] = []
        for number, row in enumerate(rows):
            try:
                text = triton_model.text(row["TEXT"], "TEXT")
                if not text.strip():
                    raise Invalid("TEXT is empty; there is nothing to embed")
                good.append((number, text))
                answers.append({})
            except Invalid as refusal:
                answers.append(refusal)
        if good:
            for (number, _), vector in zip(good, self._vectors.embed([text for _, text in good]), strict=True):
                answers[number] = {"VECTOR": vector}
        return answers
