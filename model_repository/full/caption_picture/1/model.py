"""caption_picture in the full profile: Qwen2.5-VL or LLaVA-1.6-Mistral look at the picture.

What is asked is in `full_models.caption_picture`, how it is answered in `full_models.chat`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from edge_models.triton_model import Invalid, Row, RowModel, blob, text
from full_models.caption_picture import PictureCaptions
from full_models.chat import Question, Said
from full_models.weights import Choices


class TritonPythonModel(RowModel):
    """IMAGE (encoded), PROMPT, CATALOGUE (JSON) -> TEXT, PHRASES (JSON {"phrases": [], "ending": how it ends})."""

    inputs = ("IMAGE", "PROMPT", "CATALOGUE")
    outputs = {"TEXT": object, "PHRASES": object}  # noqa: RUF012 - ClassVar in the base

    def load(self) -> None:
        """Read the chosen captioner's weights."""
        self._captions = PictureCaptions.load(Choices("caption_picture", self.parameters, self.folder))

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One caption a row, all in batches."""
        asked = [self._question(row) for row in rows]
        said = iter(self._captions.describe([each for each in asked if isinstance(each, Question)]))
        return [each if isinstance(each, Invalid) else _row(next(said)) for each in asked]

    def _question(self, row: Row) -> Question | Invalid:
        try:
            return self._captions.question(
                blob(row["IMAGE"], "IMAGE"), text(row["PROMPT"], "PROMPT"), text(row["CATALOGUE"], "CATALOGUE")
            )
        except Invalid as refusal:
            return refusal


def _row(said: Said | Invalid) -> Row | Invalid:
    if isinstance(said, Invalid):
        return said
    return cast(Row, {"TEXT": said.text, "PHRASES": json.dumps({"phrases": [], "ending": said.ending})})
