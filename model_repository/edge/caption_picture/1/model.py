"""caption_picture in the edge profile: sentences from measurement and catalogue; medium and prompt are not read.

What is said and how is left to `edge_models.captions_picture`.
"""

from collections.abc import Sequence

from edge_models.captions import read_catalogue, read_measurement
from edge_models.captions_picture import caption_picture
from edge_models.triton_model import Invalid, Row, RowModel, blob, each, text


class TritonPythonModel(RowModel):
    """PART, CATALOGUE (JSON), MEASUREMENTS (JSON) -> TEXT, PHRASES (JSON [[phrase, confidence], ...])."""

    inputs = ("PART", "CATALOGUE", "MEASUREMENTS")
    outputs = {"TEXT": object, "PHRASES": object}  # noqa: RUF012

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One caption a row."""
        return each(_caption, rows)


def _caption(row: Row) -> Row:
    measurement = read_measurement(blob(row["MEASUREMENTS"], "MEASUREMENTS"), "picture")
    catalogue = read_catalogue(blob(row["CATALOGUE"], "CATALOGUE"))
    caption = caption_picture(measurement, text(row["PART"], "PART"), catalogue)
    return {"TEXT": caption.text, "PHRASES": caption.phrases_json()}  # type: ignore[dict-item]
