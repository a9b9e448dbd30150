"""match_va of every profile: how near a picture's and a track's emotion lie.

Source: MMVA's matching score, exp(-d / sigma), with d the Euclidean distance of two (valence, arousal) points in
[0, 1] squared: 1 where they are the same, falling with distance; sigma > 0 sets how fast. Which pairs are hung is
left to the pairing stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_models.triton_model import Invalid, Row, RowModel, each, finite


class MatchVa(RowModel):
    """ARTWORK_VA FP32[2], TRACK_VA FP32[2], SIGMA FP32[1] -> SCORE FP32[1] in (0, 1]."""

    inputs = ("ARTWORK_VA", "TRACK_VA", "SIGMA")
    outputs = {"SCORE": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One score a row."""
        return each(_score, rows)


def _score(row: Row) -> Row:
    artwork, track = finite(row["ARTWORK_VA"], "ARTWORK_VA"), finite(row["TRACK_VA"], "TRACK_VA")
    sigma = float(finite(row["SIGMA"], "SIGMA")[0])
    for name, point in (("ARTWORK_VA", artwork), ("TRACK_VA", track)):
        if point.min() < 0 or point.max() > 1:
            raise Invalid(f"{name} lies outside 0 to 1")
    if sigma <= 0:
        raise Invalid("SIGMA must be above 0")
    distance = float(np.linalg.norm(artwork.astype(np.float64) - track))
    return {"SCORE": np.array([np.exp(-distance / sigma)])}
