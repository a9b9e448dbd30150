"""embed_picture, embed_sound and embed_text of the full profile: ImageBind's one space for pictures, sound and words.

Source: ImageBind (Girdhar et al. 2023); used for pairing by ArtSound (section 3). Vectors have 1024 numbers and unit
length. What is longer than the network takes is embedded in pieces whose vectors are averaged: a sound window by
window, a text in pieces of whole sentences (the network reads 77 tokens).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from edge_models.sound import read_windows
from edge_models.triton_model import Invalid, Row, RowModel, blob, text

from full_models import calls, imagebind_inputs, pictures
from full_models.text_tokens import CONTEXT, ClipTokens, pieces


class EmbedPicture(RowModel):
    """IMAGE BYTES[1] (encoded JPEG or PNG) -> VECTOR FP32[1024]; TEXT is not looked at."""

    inputs = ("IMAGE",)
    outputs = {"VECTOR": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """All pictures that can be decoded in one run of the network."""
        made, good = calls.prepared(lambda row: pictures.network_input(blob(row["IMAGE"], "IMAGE")), rows)
        vectors = iter(calls.run(self.call, "imagebind_vision", {"pixels": np.stack(good)}) if good else ())
        return [each if isinstance(each, Invalid) else {"VECTOR": next(vectors)} for each in made]


class EmbedSound(RowModel):
    """SOUND FP32[W, N] (windows at 16 kHz), LENGTHS INT32[W] -> VECTOR FP32[1024]; TEXT is not looked at.

    The parameter `clips` says where ImageBind's three clips lie in each window (`imagebind_inputs.Clips`). Windows
    count by their length.
    """

    inputs = ("SOUND", "LENGTHS")
    outputs = {"VECTOR": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Check the parameter, so that a wrong one stops the start and not the first track."""
        self._clips: imagebind_inputs.Clips = self.parameters.get("clips", "ends")  # type: ignore[assignment]
        imagebind_inputs.clip_starts(1, self._clips)

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """The windows of all sounds together."""
        made, good = calls.prepared(lambda row: read_windows(row["SOUND"], row["LENGTHS"]), rows)
        clips = [imagebind_inputs.audio_clips(window, self._clips) for windows in good for window in windows]
        vectors = calls.run(self.call, "imagebind_audio", {"clips": np.stack(clips)}) if clips else ()
        return calls.put_together(
            made, vectors, lambda own, windows: {"VECTOR": calls.averaged(np.stack(own), [*map(len, windows)])}
        )


class EmbedText(RowModel):
    """TEXT BYTES[1] -> VECTOR FP32[1024]. A long text is read in pieces, which count by their tokens."""

    inputs = ("TEXT",)
    outputs = {"VECTOR": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read the tokeniser."""
        self._tokens = ClipTokens(self.folder / "clip_tokenizer.json")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """The pieces of all texts together."""
        made, good = calls.prepared(self._pieces, rows)
        together = [self._tokens.row(piece) for numbers in good for piece in numbers]
        vectors = calls.run(self.call, "imagebind_text", {"tokens": np.stack(together)}) if together else ()
        return calls.put_together(
            made,
            vectors,
            lambda own, numbers: {"VECTOR": calls.averaged(np.stack(own), [len(piece) + 2 for piece in numbers])},
        )

    def _pieces(self, row: Row) -> list[list[int]]:
        said = text(row["TEXT"], "TEXT")
        if not said.strip():
            raise Invalid("TEXT is empty; there is nothing to embed")
        cut = pieces(said, lambda part: len(self._tokens.numbers(part)), CONTEXT - 2)
        return [self._tokens.numbers(piece) for piece in cut]
