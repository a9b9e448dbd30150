"""va_text: valence and arousal of one text, from its words' norms and its vector.

The rule and its sources are in `edge_models.emotion` and `edge_models.emotion_text`; vectors come from `embed_text`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from edge_models.emotion import sentences, va_of_text
from edge_models.emotion_text import DIMENSION, Coefficients
from edge_models.norms import Norms
from edge_models.triton_model import Array, Invalid, Row, RowModel, each, text


class TritonPythonModel(RowModel):
    """TEXT BYTES[1] -> VA FP32[2] in [0,1]; an empty text gives (.5, .5)."""

    inputs = ("TEXT",)
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read the word norms and the fitted numbers."""
        self._norms = Norms.read(self.folder / "norms.json")
        self._coefficients = Coefficients.read()

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One point a row; the sentences of all texts are embedded together."""
        texts = each(lambda row: text(row["TEXT"], "TEXT"), rows)
        said = sorted({part for one in texts if isinstance(one, str) for part in sentences(one)})
        vectors = dict(zip(said, self._embedded(said), strict=True))
        answers: list[Row | Invalid] = []
        for one in texts:
            if isinstance(one, Invalid):
                answers.append(one)
            else:
                parts = [vectors[part] for part in sentences(one)]
                vector = np.mean(parts, axis=0) if parts else np.zeros(DIMENSION)
                answers.append({"VA": np.array(va_of_text(one, vector, self._norms, self._coefficients))})
        return answers

    def _embedded(self, texts: Sequence[str]) -> list[Array]:
        """One vector a text, in calls of at most 64 texts (embed_text's largest batch)."""
        vectors: list[Array] = []
        for start in range(0, len(texts), 64):
            tensor = np.array([[one.encode("utf-8")] for one in texts[start : start + 64]], dtype=object)
            vectors.extend(self.call("embed_text", {"TEXT": tensor}, ["VECTOR"])["VECTOR"])
        return vectors
