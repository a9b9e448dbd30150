"""measure_sound in the edge profile: reads windows, asks both taggers, measures.

What is measured and how is left to `edge_models.sound`.
"""

import json
from collections.abc import Sequence

import numpy as np
from edge_models import sound
from edge_models.sound_names import MSD_LABELS, MTT_LABELS
from edge_models.triton_model import Array, Invalid, Row, RowModel, each

# The taggers' largest batch (their config.pbtxt).
PATCHES_A_CALL = 64


class TritonPythonModel(RowModel):
    """SOUND [windows, samples] at 16 kHz, LENGTHS [windows] -> MEASUREMENTS (JSON), VECTOR (2 x 200 features)."""

    inputs = ("SOUND", "LENGTHS")
    outputs = {"MEASUREMENTS": object, "VECTOR": np.float32}  # noqa: RUF012

    def load(self) -> None:
        """Check that the built labels are those the words are written for."""
        labels = json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        if (tuple(labels["mtt"]), tuple(labels["msd"])) != (MTT_LABELS, MSD_LABELS):
            raise RuntimeError("labels.json differs from edge_models.sound_names; build the models again")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One measurement a row."""
        return each(self._measure, rows)

    def _measure(self, row: Row) -> Row:
        windows = sound.read_windows(row["SOUND"], row["LENGTHS"])
        measurement, vector = sound.measure(windows, self._tagger("musicnn_mtt"), self._tagger("musicnn_msd"))
        return {"MEASUREMENTS": json.dumps(measurement), "VECTOR": vector}  # type: ignore[dict-item]

    def _tagger(self, model: str) -> sound.Tagger:
        def tag(patches: Array) -> tuple[Array, Array]:
            parts = [
                self.call(model, {"spectrogram": patches[start : start + PATCHES_A_CALL]}, ["tags", "embedding"])
                for start in range(0, len(patches), PATCHES_A_CALL)
            ]
            return np.concatenate([part["tags"] for part in parts]), np.concatenate([p["embedding"] for p in parts])

        return tag
