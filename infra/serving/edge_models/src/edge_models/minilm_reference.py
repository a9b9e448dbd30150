"""all-MiniLM-L6-v2 in plain numpy, to check the ONNX file that is served. Too slow to serve.

Source: Devlin et al. 2019 (BERT: six layers here, 384 wide, 12 heads). The weights are read from the ONNX file by
their names, the arithmetic is written out here: so the check finds a file whose graph and weights do not belong
together or that onnxruntime runs wrongly; it cannot find weights that were trained badly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

LAYERS, HEADS = 6, 12
EPSILON = 1e-12


def forward(weights: Mapping[str, Floats], ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Floats:
    """last_hidden_state [n, pieces, 384] of word-piece ids [n, pieces] and their mask, in float64."""
    from scipy.special import erf

    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}

    def normalise(x: Floats, name: str) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return np.asarray(scaled * w[f"{name}_layernorm.weight"] + w[f"{name}_layernorm.bias"])

    def dense(x: Floats, name: str) -> Floats:
        return np.asarray(x @ w[f"{name}.MatMul.weight"] + w[f"{name}.Add.bias"])

    def heads(x: Floats) -> Floats:
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    embeddings = ".model.embeddings"
    x = (
        w[f"{embeddings}.word_embeddings.weight"][ids]
        + w[f"{embeddings}.position_embeddings.weight"][: ids.shape[1]]
        + w[f"{embeddings}.token_type_embeddings.weight"][0]
    )
    x = normalise(x, "model.layers.-1.embeddings_norm")
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        query, key, value = (heads(dense(x, f"{layer}.attn.{part}_proj")) for part in "qkv")
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
        scores = np.where(mask[:, None, None, :] > 0, scores, -np.inf)
        attention = np.exp(scores - scores.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        seen = (attention @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = normalise(x + dense(seen, f"{layer}.attn.o_proj"), f"{layer}.attention_output_norm")
        wide = dense(x, f"{layer}.mlp.fc1")
        wide = 0.5 * wide * (1 + erf(wide / np.sqrt(2)))
        x = normalise(x + dense(wide, f"{layer}.mlp.fc2"), f"{layer}.mlp_output_norm")
    return x
