"""measure_picture in the edge profile: decodes, asks the classifier once for all rows, measures each row.

What is measured and how is left to `edge_models.picture`.
"""

import json
from collections.abc import Sequence

import numpy as np
from edge_models import picture
from edge_models.triton_model import Array, Invalid, Row, RowModel, blob, each

# Some of the classifier's labels that the motifs count on: another list of labels would misname everything.
KNOWN_LABELS = {291: "lion", 472: "canoe", 483: "castle", 497: "church", 884: "vault", 978: "seashore"}


class TritonPythonModel(RowModel):
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
