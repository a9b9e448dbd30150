"""musicnn as ONNX, from its checkpoint's variables, with a plain numpy forward to check it against.

Source: Pons & Serra 2019 and the package's models.py. Input "spectrogram" FP32 [n, 187, 96]: log10(10000 x + 1) of
the mel spectrogram (16 kHz, window 512, hop 256, 96 bands), 3 s. Outputs "tags" [n, 50] (probabilities) and
"embedding" [n, 200] (the penultimate layer).

The ONNX graph keeps channels first; the reference keeps TensorFlow's order (time, band, channel) and its padding, so
that a mistake in transposing shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[Any]

FRAMES, BANDS = 187, 96
EPSILON = 1e-3
FRONT = ((7, 38), (7, 67), (128, 1), (64, 1), (32, 1))
"""Kernel (frames, bands) of the five front-end filters: two of timbre, three of time."""


def to_onnx(weights: Weights) -> Any:
    """The network as an onnx.ModelProto."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Floats, kind: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind), name))
        return name

    def node(operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    axes = {number: constant(f"axis{number}", np.array([number]), np.int64) for number in (1, 2, 3)}

    def normalise(x: str, number: int) -> str:
        name = _numbered("batch_normalization", number)
        values = [
            constant(f"{name}/{part}", weights[f"{name}/{part}"])
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        ]
        return node("BatchNormalization", [x, *values], epsilon=EPSILON)

    def convolution(x: str, number: int, before: int, after: int) -> str:
        name = _numbered("conv2d", number)
        kernel = constant(f"{name}/kernel", weights[f"{name}/kernel"].transpose(3, 2, 0, 1))
        bias = constant(f"{name}/bias", weights[f"{name}/bias"])
        return node("Relu", [node("Conv", [x, kernel, bias], pads=[before, 0, after, 0])])

    def dense(x: str, name: str) -> str:
        kernel, bias = (constant(f"{name}/{part}", weights[f"{name}/{part}"]) for part in ("kernel", "bias"))
        return node("Gemm", [x, kernel, bias])

    x = normalise(node("Unsqueeze", ["spectrogram", axes[1]]), 0)  # n, 1, frames, bands
    front = []
    for number, (frames, _) in enumerate(FRONT):
        y = normalise(convolution(x, number, (frames - 1) // 2, frames // 2), number + 1)
        front.append(node("ReduceMax", [y, axes[3]], keepdims=0))  # n, channels, frames
    features = node("Concat", front, axis=1)

    def middle(z: str, number: int) -> str:
        turned = node("Unsqueeze", [node("Transpose", [z], perm=[0, 2, 1]), axes[1]])  # n, 1, frames, channels
        return node("Squeeze", [normalise(convolution(turned, 5 + number, 3, 3), 6 + number), axes[3]])

    first = middle(features, 0)
    second = node("Add", [middle(first, 1), first])
    third = node("Add", [middle(second, 2), second])
    everything = node("Concat", [features, first, second, third], axis=1)
    # Maximum and mean of each channel side by side, then flattened: max0, mean0, max1, mean1, ...
    pooled = [node(operator, [everything, axes[2]], keepdims=1) for operator in ("ReduceMax", "ReduceMean")]
    flat = normalise(node("Flatten", [node("Concat", pooled, axis=2)], axis=1), 9)
    embedding = normalise(node("Relu", [dense(flat, "dense")]), 10)
    node("Identity", [embedding], "embedding")
    node("Sigmoid", [dense(embedding, "dense_1")], "tags")
    graph = helper.make_graph(
        nodes,
        "musicnn",
        [helper.make_tensor_value_info("spectrogram", TensorProto.FLOAT, ["n", FRAMES, BANDS])],
        [
            helper.make_tensor_value_info("tags", TensorProto.FLOAT, ["n", 50]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 200]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model


def forward(weights: Weights, spectrogram: Floats) -> tuple[Floats, Floats]:
    """The same network in numpy (float64), in TensorFlow's order: tags [n, 50], embedding [n, 200]."""

    def normalise(x: Floats, number: int) -> Floats:
        name = _numbered("batch_normalization", number)
        gamma, beta, mean, variance = (
            weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.asarray(gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta)

    def convolve(x: Floats, number: int, before: int, after: int) -> Floats:
        """VALID over bands, padded over frames; x is n, frames, bands, channels."""
        name = _numbered("conv2d", number)
        kernel = weights[f"{name}/kernel"]  # frames, bands, in, out
        padded = np.pad(x, [(0, 0), (before, after), (0, 0), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
        y = np.einsum("ntfcij,ijco->ntfo", windows, kernel, optimize=True) + weights[f"{name}/bias"]
        return np.asarray(np.maximum(y, 0))

    x = normalise(spectrogram.astype(np.float64)[..., None], 0)
    front = []
    for number, (frames, _) in enumerate(FRONT):
        total = frames - 1
        front.append(normalise(convolve(x, number, total // 2, total - total // 2), number + 1).max(axis=2))
    features = np.concatenate(front, axis=2)  # n, frames, channels

    def middle(z: Floats, number: int) -> Floats:
        return normalise(convolve(z[..., None], 5 + number, 3, 3), 6 + number)[:, :, 0, :]

    first = middle(features, 0)
    second = middle(first, 1) + first
    third = middle(second, 2) + second
    everything = np.concatenate([features, first, second, third], axis=2)
    pooled = np.stack([everything.max(axis=1), everything.mean(axis=1)], axis=2).reshape(len(spectrogram), -1)
    hidden = np.maximum(normalise(pooled, 9) @ weights["dense/kernel"] + weights["dense/bias"], 0)
    embedding = normalise(hidden, 10)
    logits = embedding @ weights["dense_1/kernel"] + weights["dense_1/bias"]
    return np.asarray(1 / (1 + np.exp(-logits))), embedding


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
