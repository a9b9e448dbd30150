"""caption_sound in the full profile: Qwen2-Audio, LP-MusicCaps or both listen; write_text fuses what they say.

What is heard and asked is in `full_models.caption_sound`, how it is answered in `full_models.chat`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from edge_models.triton_model import Invalid, Row, RowModel, text
from full_models.caption_sound import Heard, SoundCaption, SoundCaptions
from full_models.weights import Choices


class TritonPythonModel(RowModel):
    """SOUND, LENGTHS, PROMPT, CATALOGUE (JSON) -> TEXT, PHRASES (JSON {"phrases": [[text, 1], ...], "ending": how}).

    The phrases are the texts of the stretches that the caption was fused from; none where nothing was fused.
    """

    inputs = ("SOUND", "LENGTHS", "PROMPT", "CATALOGUE")
    outputs = {"TEXT": object, "PHRASES": object}  # noqa: RUF012 - ClassVar in the base

    def load(self) -> None:
        """Read the chosen captioners' weights."""
        self._captions = SoundCaptions.load(Choices("caption_sound", self.parameters, self.folder), self.call)

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One caption a row, all in batches."""
        heard = [self._heard(row) for row in rows]
        said = iter(self._captions.describe([each for each in heard if isinstance(each, Heard)]))
        return [each if isinstance(each, Invalid) else _row(next(said)) for each in heard]

    def _heard(self, row: Row) -> Heard | Invalid:
        try:
            return self._captions.heard(
                row["SOUND"], row["LENGTHS"], text(row["PROMPT"], "PROMPT"), text(row["CATALOGUE"], "CATALOGUE")
            )
        except Invalid as refusal:
            return refusal


def _row(caption: SoundCaption | Invalid) -> Row | Invalid:
    if isinstance(caption, Invalid):
        return caption
    phrases = {"phrases": [[each, 1.0] for each in caption.stretches], "ending": caption.ending}
    return cast(Row, {"TEXT": caption.text, "PHRASES": json.dumps(phrases, ensure_ascii=False)})
