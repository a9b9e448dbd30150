"""Calling exported networks from other models: many rows in calls of a size that the network accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from edge_models.triton_model import Array, Call, Invalid

LARGEST: Final = 32
"""max_batch_size of every exported network (their config.pbtxt)."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def run(call: Call, model: str, inputs: Mapping[str, Array], output: str = "vector") -> Array:
    """The network's output of all rows, in calls of at most `LARGEST` rows.

    Args:
        call: `RowModel.call`.
        inputs: tensors with the batch dimension, at least one row.
    """
    rows = len(next(iter(inputs.values())))
    return np.concatenate(
        [
            call(model, {name: value[start : start + LARGEST] for name, value in inputs.items()}, [output])[output]
            for start in range(0, rows, LARGEST)
        ]
    )


def prepared(function: Callable[[Given], Made], rows: Sequence[Given]) -> tuple[list[Made | Invalid], list[Made]]:
    """The function of every row; a row that is refused keeps its refusal. Also those that are good, in order."""
    all_rows: list[Made | Invalid] = []
    for row in rows:
        try:
            all_rows.append(function(row))
        except Invalid as refusal:
            all_rows.append(refusal)
    return all_rows, [row for row in all_rows if not isinstance(row, Invalid)]


def unit(vector: Array) -> Array:
    """A vector of length 1, float32; a zero vector stays."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def averaged(vectors: Array, weights: Sequence[float]) -> Array:
    """The weighted mean of unit vectors [n, d], brought back to length 1."""
    return unit(np.average(vectors.astype(np.float64), axis=0, weights=np.asarray(weights, np.float64)))
