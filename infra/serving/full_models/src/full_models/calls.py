"""Calling exported networks from other models: many rows in calls of a size that the network accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from edge_models.triton_model import Array, Call, Given, Invalid, Made, Row, each

LARGEST: Final = 32
"""max_batch_size of every exported network (their config.pbtxt)."""


def run(call: Call, model: str, inputs: Mapping[str, Array], output: str = "vector") -> Array:
    """The network's output of all rows, in calls of at most `LARGEST` rows.

    Args:
        call: `RowModel.call`.
        inputs: tensors with the batch dimension, at least one row.
    """
    return run_all(call, model, inputs, (output,))[output]


def run_all(call: Call, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
    """As `run`, for a network with several outputs: name -> output."""
    rows = len(next(iter(inputs.values())))
    answers = [
        call(model, {name: value[start : start + LARGEST] for name, value in inputs.items()}, outputs)
        for start in range(0, rows, LARGEST)
    ]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}


def prepared(function: Callable[[Given], Made], rows: Sequence[Given]) -> tuple[list[Made | Invalid], list[Made]]:
    """The function of every row; a row that is refused keeps its refusal. Also those that are good, in order."""
    all_rows = each(function, rows)
    return all_rows, [row for row in all_rows if not isinstance(row, Invalid)]


def put_together(
    rows: Sequence[Sequence[Made] | Invalid],
    outputs: Iterable[Given],
    answer: Callable[[list[Given], Sequence[Made]], Row],
) -> list[Row | Invalid]:
    """Answers of rows whose pieces went through a network side by side.

    Args:
        rows: the pieces of every row, or its refusal, which stays.
        outputs: the network's, of all pieces in order.
        answer: a row's answer out of its own outputs and pieces.
    """
    following = iter(outputs)
    return [row if isinstance(row, Invalid) else answer([next(following) for _ in row], row) for row in rows]


def unit(vector: Array) -> Array:
    """A vector of length 1, float32; a zero vector stays."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def averaged(vectors: Array, weights: Sequence[float]) -> Array:
    """The weighted mean of unit vectors [n, d], brought back to length 1."""
    return unit(np.average(vectors.astype(np.float64), axis=0, weights=np.asarray(weights, np.float64)))
