"""write_text in the full profile: one turn of a conversation, answered by Qwen3 (`full_models.chat.Writer`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from edge_models.triton_model import Invalid, Row, RowModel, text
from full_models import chat
from full_models.chat import Question, Said, Writer
from full_models.weights import Choices
from full_models.writing import MODEL, Asking, read_messages, read_settings


class TritonPythonModel(RowModel):
    """MESSAGES (JSON [{"role", "content"}, ...]), SETTINGS (JSON, see `Asking`; may be empty) -> TEXT, ENDING."""

    inputs = ("MESSAGES", "SETTINGS")
    outputs = {"TEXT": object, "ENDING": object}  # noqa: RUF012 - ClassVar in the base

    def load(self) -> None:
        """Read the weights."""
        choices = Choices(MODEL, self.parameters, self.folder)
        self._writer = chat.load(Writer, choices, weights=choices.weights(default="Qwen/Qwen3-4B"), batch=16)

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One text a row; rows of like settings share batches."""
        asked = [_read(row) for row in rows]
        good = [each for each in asked if not isinstance(each, Invalid)]
        said = iter(self._writer.say([question for question, _ in good], [asking for _, asking in good]))
        return [each if isinstance(each, Invalid) else _row(next(said)) for each in asked]


def _read(row: Row) -> tuple[Question, Asking] | Invalid:
    try:
        messages = read_messages(text(row["MESSAGES"], "MESSAGES", 1 << 20))
        return Question(messages), read_settings(text(row["SETTINGS"], "SETTINGS"))
    except Invalid as refusal:
        return refusal


def _row(said: Said | Invalid) -> Row | Invalid:
    return said if isinstance(said, Invalid) else cast(Row, {"TEXT": said.text, "ENDING": said.ending})
