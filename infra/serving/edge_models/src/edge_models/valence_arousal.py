"""va_picture, va_sound and va_text by rule: from measurements, word norms and text vectors.

What the edge profile serves, and what the full profile falls back to where MMVA's towers are not made. The rules
and their sources are in `edge_models.emotion_measured`, `edge_models.emotion` and `edge_models.emotion_text`; here
tensors are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np

from edge_models.emotion import sentences, va_of_text
from edge_models.emotion_measured import va_of_measurement
from edge_models.emotion_text import DIMENSION, Coefficients
from edge_models.norms import Norms
from edge_models.triton_model import Array, Invalid, Row, RowModel, each, parsed, text

NORMS: Final = "norms.json"
"""The word norms' name in a version folder."""
_ROWS: Final = 64
"""Of embed_text's largest batch."""

Vectors = Callable[[Sequence[str]], Sequence[Array]]
"""Sentences -> their vectors of all-MiniLM-L6-v2, [384] each."""


def point_of_measurement(row: Row, what: Literal["picture", "sound"], norms: Norms) -> Array:
    """Valence and arousal [2] in [0,1] of a row's MEASUREMENTS; an empty measurement gives (.5, .5).

    Raises:
        Invalid: MEASUREMENTS is not a JSON object.
    """
    said = text(row["MEASUREMENTS"], "MEASUREMENTS", 1 << 20).strip()
    measurement = parsed(row["MEASUREMENTS"], "MEASUREMENTS") if said else None
    if measurement is not None and not isinstance(measurement, dict):
        raise Invalid("MEASUREMENTS is not a JSON object")
    return np.array(va_of_measurement(measurement or {}, what, norms))


class TextReader:
    """Reads valence and arousal from texts by their words' norms and their vectors.

    Args:
        folder: holds the word norms.
        vectors: of sentences, all at once.
    """

    def __init__(self, folder: Path, vectors: Vectors) -> None:
        self._norms = Norms.read(folder / NORMS)
        self._coefficients = Coefficients.read()
        self._vectors = vectors

    def points(self, texts: Sequence[str]) -> list[Array]:
        """Valence and arousal [2] in [0,1] of each text; an empty one gives (.5, .5)."""
        said = sorted({part for one in texts for part in sentences(one)})
        vectors = dict(zip(said, self._vectors(said) if said else (), strict=True))
        found = []
        for one in texts:
            parts = [vectors[part] for part in sentences(one)]
            vector = np.mean(parts, axis=0) if parts else np.zeros(DIMENSION)
            found.append(np.array(va_of_text(one, vector, self._norms, self._coefficients)))
        return found


class VaPicture(RowModel):
    """IMAGE BYTES[1] (not looked at), MEASUREMENTS BYTES[1] (JSON of measure_picture) -> VA FP32[2].

    Valence and arousal lie in [0,1]; typical gives about (.5, .5), and an empty measurement exactly that.
    """

    inputs: ClassVar[tuple[str, ...]] = ("IMAGE", "MEASUREMENTS")
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base
    what: ClassVar[Literal["picture", "sound"]] = "picture"

    def load(self) -> None:
        """Read the word norms, for the names of what was recognised."""
        self._norms = Norms.read(self.folder / NORMS)

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One point a row."""
        return each(lambda row: {"VA": point_of_measurement(row, self.what, self._norms)}, rows)


class VaSound(VaPicture):
    """SOUND FP32[W,N], LENGTHS INT32[W] (not heard), MEASUREMENTS BYTES[1] (JSON of measure_sound) -> VA FP32[2]."""

    inputs = ("SOUND", "LENGTHS", "MEASUREMENTS")
    what = "sound"


class VaText(RowModel):
    """TEXT BYTES[1] -> VA FP32[2] in [0,1]; an empty text gives (.5, .5). Vectors come from `embed_text`."""

    inputs = ("TEXT",)
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read the word norms and the fitted numbers."""
        self._reader = TextReader(self.folder, self._embedded)

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One point a row; the sentences of all texts are embedded together."""
        texts = each(lambda row: text(row["TEXT"], "TEXT"), rows)
        points = iter(self._reader.points([one for one in texts if isinstance(one, str)]))
        return [one if isinstance(one, Invalid) else {"VA": next(points)} for one in texts]

    def _embedded(self, texts: Sequence[str]) -> list[Array]:
        """One vector a text, in calls of at most 64 texts."""
        vectors: list[Array] = []
        for start in range(0, len(texts), _ROWS):
            tensor = np.array([[one.encode("utf-8")] for one in texts[start : start + _ROWS]], dtype=object)
            vectors.extend(self.call("embed_text", {"TEXT": tensor}, ["VECTOR"])["VECTOR"])
        return vectors
