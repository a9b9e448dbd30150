"""va_picture: valence and arousal of one picture (or one part of one), from its colours, light, surface and motifs.

The rule and its sources are in `edge_models.emotion_measured`; here tensors are read. In this profile the medium
itself is not looked at: its measurement is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from edge_models.emotion_measured import va_of_measurement
from edge_models.norms import Norms
from edge_models.triton_model import Invalid, Row, RowModel, each, parsed, text


class TritonPythonModel(RowModel):
    """IMAGE BYTES[1] (not looked at), MEASUREMENTS BYTES[1] (JSON of measure_picture) -> VA FP32[2].

    Valence and arousal lie in [0,1]; typical gives about (.5, .5), and an empty measurement exactly that.
    """

    inputs = ("IMAGE", "MEASUREMENTS")
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read the word norms, for the names of what was recognised."""
        self._norms = Norms.read(self.folder / "norms.json")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One point a row."""
        return each(self._one, rows)

    def _one(self, row: Row) -> Row:
        said = text(row["MEASUREMENTS"], "MEASUREMENTS", 1 << 20).strip()
        measurement = parsed(row["MEASUREMENTS"], "MEASUREMENTS") if said else None
        if measurement is not None and not isinstance(measurement, dict):
            raise Invalid("MEASUREMENTS is not a JSON object")
        return {"VA": np.array(va_of_measurement(measurement or {}, "picture", self._norms))}
