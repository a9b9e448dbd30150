"""Text vectors by all-MiniLM-L6-v2: tokens, mean pooling, unit length. Running the network is handed in.

Sources: Reimers & Gurevych 2019 (mean pooling over tokens); Wang et al. 2020 (MiniLM). The network was trained on
at most 256 word pieces, so a longer text is read in windows of 256 pieces, whose vectors are averaged by their number
of pieces, rather than cut silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DIMENSION = 384
LONGEST_WINDOW = 256
"""Word pieces in one window, the two marks at its ends included."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Run = Callable[[dict[str, Integers]], npt.NDArray[Any]]
"""input_ids, attention_mask, token_type_ids [n, pieces] -> last_hidden_state [n, pieces, 384]."""

_ROWS_AT_ONCE = 16
_LONGER = 1.3
"""A window that is longer than the first of its run by more than this begins a run of its own: on a CPU, a pass over
padding costs as much as one over words."""


class TextVectors:
    """Turns texts into vectors. `run` runs the network; `tokenizer` is the file tokenizer.json."""

    def __init__(self, tokenizer: Path, run: Run) -> None:
        from tokenizers import Tokenizer  # here, so that importing this module stays light

        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        first, last = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        if first is None or last is None:
            raise ValueError(f"{tokenizer} has no [CLS] and [SEP]; build the models again: promenade models build")
        self._first, self._last = int(first), int(last)
        self._run = run

    def windows(self, text: str) -> list[list[int]]:
        """Word-piece ids of each window of a text, marks included; one window at least."""
        pieces = self._tokenizer.encode(text, add_special_tokens=False).ids
        body = LONGEST_WINDOW - 2
        parts = [pieces[start : start + body] for start in range(0, len(pieces), body)] or [[]]
        return [[self._first, *part, self._last] for part in parts]

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector of unit length a text: [n, 384]. An empty text has the vector of the two marks alone."""
        windows: list[tuple[int, list[int]]] = [
            (number, window) for number, text in enumerate(texts) for window in self.windows(text)
        ]
        sums = np.zeros((len(texts), DIMENSION))
        windows.sort(key=lambda pair: len(pair[1]))
        for chunk in _alike(windows):
            longest = len(chunk[-1][1])
            ids = np.zeros((len(chunk), longest), dtype=np.int64)
            mask = np.zeros((len(chunk), longest), dtype=np.int64)
            for row, (_, window) in enumerate(chunk):
                ids[row, : len(window)] = window
                mask[row, : len(window)] = 1
            hidden = self._run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
            pooled = (hidden * mask[:, :, None]).sum(axis=1, dtype=np.float64) / mask.sum(axis=1)[:, None]
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for (number, window), vector in zip(chunk, pooled, strict=True):
                sums[number] += vector * len(window)
        vectors = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return np.asarray(vectors, dtype=np.float32)


def _alike(windows: Sequence[tuple[int, list[int]]]) -> Iterator[Sequence[tuple[int, list[int]]]]:
    """Windows, sorted by length, in runs of like length."""
    start = 0
    for end in range(1, len(windows) + 1):
        if (
            end == len(windows)
            or end - start == _ROWS_AT_ONCE
            or len(windows[end][1]) > _LONGER * len(windows[start][1])
        ):
            yield windows[start:end]
            start = end
