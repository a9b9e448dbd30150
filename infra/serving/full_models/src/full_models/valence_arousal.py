"""va_picture, va_sound and va_text of the full profile: MMVA's three towers.

Source: MMVA (its section on the model): CLIP's picture network, MERT and RoBERTa, each with a head that reads valence
and arousal in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from edge_models.sound import read_windows
from edge_models.triton_model import Array, Invalid, Row, RowModel, blob, text

from full_models import calls, mmva_inputs, pictures
from full_models.text_tokens import pieces

SAMPLE_RATE: Final = 16_000
"""Of SOUND, in every profile."""
MOST_TOKENS: Final = 510
"""RoBERTa reads 512 tokens, the two marks included."""


class VaPicture(RowModel):
    """IMAGE BYTES[1] -> VA FP32[2]; MEASUREMENTS is not looked at."""

    inputs = ("IMAGE",)
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """All pictures that can be decoded in one run of the network."""
        made, good = calls.prepared(lambda row: pictures.network_input(blob(row["IMAGE"], "IMAGE")), rows)
        points = iter(calls.run(self.call, "mmva_picture", {"pixels": np.stack(good)}, "va") if good else ())
        return [row if isinstance(row, Invalid) else {"VA": next(points)} for row in made]


class VaSound(RowModel):
    """SOUND FP32[W, N] (windows at 16 kHz), LENGTHS INT32[W] -> VA FP32[2]; MEASUREMENTS is not looked at.

    The mean of the readings of clips of 10 s over all windows.
    """

    inputs = ("SOUND", "LENGTHS")
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """The clips of all sounds together."""
        made, good = calls.prepared(self._clips, rows)
        together = [clip for clips in good for clip in clips]
        points = calls.run(self.call, "mmva_sound", {"samples": np.stack(together)}, "va") if together else ()
        return calls.put_together(made, points, lambda own, _: {"VA": np.mean(own, axis=0)})

    def _clips(self, row: Row) -> list[Array]:
        import soxr

        heard = read_windows(row["SOUND"], row["LENGTHS"])
        resampled = [soxr.resample(window, SAMPLE_RATE, mmva_inputs.SAMPLE_RATE) for window in heard]
        clips = [clip for window in resampled if len(window) for clip in mmva_inputs.clips_of(window)]
        if not clips:
            raise Invalid("the sound is shorter than a sample at 24 kHz")
        return clips


class VaText(RowModel):
    """TEXT BYTES[1] -> VA FP32[2]; the middle, (.5, .5), for an empty text. Longer texts are read in pieces."""

    inputs = ("TEXT",)
    outputs = {"VA": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read RoBERTa's tokeniser."""
        self._tokens = PairTokens(self.folder / "tokenizer.json")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """The pieces of all texts together; pieces count by their tokens."""
        made, good = calls.prepared(lambda row: self._tokens.pieces(text(row["TEXT"], "TEXT")), rows)
        together = [piece for each_row in good for piece in each_row]
        return calls.put_together(made, self._read(together), _of_pieces)

    def _read(self, together: Sequence[Sequence[int]]) -> list[Array]:
        found: list[Array] = []
        for start in range(0, len(together), calls.LARGEST):
            tensors = self._tokens.tensors(together[start : start + calls.LARGEST])
            found.extend(calls.run(self.call, "mmva_text", tensors, "va"))
        return found


def _of_pieces(own: list[Array], parts: Sequence[Sequence[int]]) -> Row:
    """The reading of a text from those of its pieces; the middle where it has none."""
    if not parts:
        return {"VA": np.array([0.5, 0.5])}
    return {"VA": np.average(own, axis=0, weights=[len(part) for part in parts])}


class PairTokens:
    """RoBERTa's tokeniser: texts as tokens between its two marks, padded to the longest of a call.

    Args:
        path: the published `tokenizer.json`.
    """

    def __init__(self, path: object) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.start, self.end, self.padding = (self._number(mark, path) for mark in ("<s>", "</s>", "<pad>"))

    def _number(self, mark: str, path: object) -> int:
        number = self._tokenizer.token_to_id(mark)
        if number is None:
            raise ValueError(f"{path} is no tokeniser of RoBERTa's kind: it has no {mark}")
        return int(number)

    def numbers(self, said: str) -> list[int]:
        """Tokens of a text without marks; the first word counts as one inside a text."""
        return list(self._tokenizer.encode(f" {said.strip()}", add_special_tokens=False).ids)

    def pieces(self, said: str) -> list[list[int]]:
        """Tokens with marks, piece by piece; none for an empty text."""
        if not said.strip():
            return []
        cut = pieces(said, lambda part: len(self.numbers(part)), MOST_TOKENS)
        return [[self.start, *self.numbers(piece)[:MOST_TOKENS], self.end] for piece in cut]

    def tensors(self, rows: Sequence[Sequence[int]]) -> dict[str, Array]:
        """`tokens` and `mask` int64 [n, longest], as the networks take them."""
        longest = max(len(row) for row in rows)
        tokens = np.full((len(rows), longest), self.padding, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return {"tokens": tokens, "mask": mask}
