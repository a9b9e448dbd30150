"""EfficientNet-Lite0 as ONNX, from its weights, with a plain numpy forward to check it against.

Source: Tan & Le 2019 and the "lite" variant (no squeeze-and-excite, ReLU6 in place of swish). Input "pixels"
FP32 [n, 3, h, w]: RGB, (value - 127) / 128, 224 x 224 in use. Outputs "probs" [n, 1000] (ImageNet classes) and
"embedding" [n, 1280] (the pooled features before the classifier).

The ONNX graph folds each batch normalisation into its convolution and pads by SAME_UPPER; the reference applies
normalisation and padding as TensorFlow's definition states them, so that a mistake in either shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[Any]

STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))
"""Repeats, stride of the first, expansion."""
EPSILON = 1e-3


def to_onnx(weights: Weights) -> Any:
    """The network as an onnx.ModelProto."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Floats) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def node(operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    zero, six = constant("zero", np.array(0)), constant("six", np.array(6))

    def convolution(x: str, name: str, norm: str, stride: int = 1, groups: int = 1, activate: bool = True) -> str:
        scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
        kernel = constant(f"{name}.kernel", weights[f"{name}.weight"] * scale[:, None, None, None])
        bias = constant(f"{name}.bias", weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)
        y = node("Conv", [x, kernel, bias], strides=[stride, stride], group=groups, auto_pad="SAME_UPPER")
        return node("Clip", [y, zero, six]) if activate else y

    x = convolution("pixels", "_conv_stem", "_bn0", 2)
    block = 0
    for repeats, stride, expansion in STAGES:
        for repeat in range(repeats):
            prefix, y = f"_blocks.{block}.", x
            if expansion > 1:
                y = convolution(y, f"{prefix}_expand_conv", f"{prefix}_bn0")
            groups = weights[f"{prefix}_depthwise_conv.weight"].shape[0]
            y = convolution(y, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride if repeat == 0 else 1, groups)
            y = convolution(y, f"{prefix}_project_conv", f"{prefix}_bn2", activate=False)
            x = node("Add", [x, y]) if repeat else y
            block += 1
    x = convolution(x, "_conv_head", "_bn1")
    embedding = node("Flatten", [node("GlobalAveragePool", [x])], "embedding")
    logits = node(
        "Gemm",
        [
            embedding,
            constant("classifier.kernel", weights["_fc.weight"].T),
            constant("classifier.bias", weights["_fc.bias"]),
        ],
    )
    node("Softmax", [logits], "probs", axis=1)
    graph = helper.make_graph(
        nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, "height", "width"])],
        [
            helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", 1000]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 1280]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model


def forward(weights: Weights, pixels: Floats) -> tuple[Floats, Floats]:
    """The same network in numpy (float64): probs [n, 1000], embedding [n, 1280]. Slow; for the check only."""

    def normalise(x: Floats, name: str) -> Floats:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        gamma, beta = weights[f"{name}.weight"], weights[f"{name}.bias"]
        y = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + EPSILON)
        return np.asarray(y * gamma[:, None, None] + beta[:, None, None])

    def relu6(x: Floats) -> Floats:
        return np.minimum(np.maximum(x, 0), 6)

    x = relu6(normalise(_convolve(pixels.astype(np.float64), weights["_conv_stem.weight"], 2), "_bn0"))
    block = 0
    for repeats, stride, expansion in STAGES:
        for repeat in range(repeats):
            prefix, y = f"_blocks.{block}.", x
            if expansion > 1:
                y = relu6(normalise(_convolve(y, weights[f"{prefix}_expand_conv.weight"]), f"{prefix}_bn0"))
            y = _convolve_each(y, weights[f"{prefix}_depthwise_conv.weight"], stride if repeat == 0 else 1)
            y = relu6(normalise(y, f"{prefix}_bn1"))
            y = normalise(_convolve(y, weights[f"{prefix}_project_conv.weight"]), f"{prefix}_bn2")
            x = x + y if repeat else y
            block += 1
    x = relu6(normalise(_convolve(x, weights["_conv_head.weight"]), "_bn1"))
    embedding = x.mean(axis=(2, 3))
    logits = embedding @ weights["_fc.weight"].T.astype(np.float64) + weights["_fc.bias"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True), embedding


def _patches(x: Floats, size: int, stride: int) -> Floats:
    """Windows [n, channels, rows, columns, size, size] under TensorFlow's SAME rule (the odd pixel after)."""
    pads = []
    for length in x.shape[2:]:
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    return windows[:, :, ::stride, ::stride]


def _convolve(x: Floats, kernel: Floats, stride: int = 1) -> Floats:
    return np.asarray(np.einsum("nchwij,ocij->nohw", _patches(x, kernel.shape[2], stride), kernel, optimize=True))


def _convolve_each(x: Floats, kernel: Floats, stride: int) -> Floats:
    return np.asarray(
        np.einsum("nchwij,cij->nchw", _patches(x, kernel.shape[2], stride), kernel[:, 0], optimize=True)
    )
