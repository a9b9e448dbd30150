"""measure_picture and measure_sound, the same in both profiles: decode, ask the networks, measure.

What is measured and how is left to `edge_models.picture` and `edge_models.sound`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from edge_models import picture, sound
from edge_models.sound_names import MSD_LABELS, MTT_LABELS
from edge_models.triton_model import Array, Invalid, Row, RowModel, blob, each

# Some of the classifier's labels that the motifs count on: another list of labels would misname everything.
KNOWN_LABELS: Final = {291: "lion", 472: "canoe", 483: "castle", 497: "church", 884: "vault", 978: "seashore"}

# The taggers' largest batch (their config.pbtxt).
PATCHES_A_CALL: Final = 64


class MeasurePicture(RowModel):
    """IMAGE (encoded JPEG or PNG) -> MEASUREMENTS (JSON), VECTOR (1280 features of the classifier)."""

    inputs = ("IMAGE",)
    outputs = {"MEASUREMENTS": object, "VECTOR": np.float32}  # noqa: RUF012

    def load(self) -> None:
        """Check that the built labels are those the motifs are written for."""
        labels = json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        for number, name in KNOWN_LABELS.items():
            if not str(labels[number]).startswith(name):
                raise RuntimeError(
                    f"labels.json has {labels[number]!r} at {number}, not {name!r}; build the models again"
                )

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One measurement a row; rows that cannot be decoded are refused, the others go to the classifier at once."""
        decoded = each(lambda row: {"pixels": picture.read_picture(blob(row["IMAGE"], "IMAGE"))}, rows)
        good: list[Array] = [item["pixels"] for item in decoded if not isinstance(item, Invalid)]
        if not good:
            return decoded
        seen = self.call(
            "efficientnet_lite0",
            {"pixels": np.stack([picture.network_input(pixels) for pixels in good])},
            ["probs", "embedding"],
        )
        measured = iter(
            {"MEASUREMENTS": json.dumps(picture.measure(pixels, probabilities)), "VECTOR": vector}
            for pixels, probabilities, vector in zip(good, seen["probs"], seen["embedding"], strict=True)
        )
        return [item if isinstance(item, Invalid) else next(measured) for item in decoded]


class MeasureSound(RowModel):
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
