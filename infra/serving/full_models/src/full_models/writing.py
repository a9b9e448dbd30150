"""How texts are asked for: the settings of an answer, and the call of the model `write_text` (Qwen3).

Free of torch, so that models which only ask stay light. Answering is left to `full_models.chat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from edge_models.triton_model import Array, Call, Invalid

from full_models.weights import BadChoice, Choices

MODEL: Final = "write_text"
ROLES: Final = ("system", "user", "assistant")
MOST_ROWS: Final = 16
"""Conversations a call: the model's largest batch."""

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How an answer is made.

    Attributes:
        tokens: the first limit.
        continued: how many tokens more a text may take to end its sentence.
        temperature: 0 takes the likeliest word each time (deterministic); above, words are drawn.
        top_p: the share of likeliest words that are drawn from.
        seed: of the draws; the same question with the same seed is answered the same.
        repetition: what a word loses that the answer already holds: its logit is divided by this where positive and
            multiplied where negative (Keskar et al. 2019, CTRL, section 4.1). 1 is nothing. Words of the question are
            left alone, and so are batches.
        sentences: the text is made to end at a sentence, and to be one paragraph without headings or lists.
    """

    tokens: int = 256
    continued: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repetition: float = 1.0
    sentences: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            Invalid: a value is of the wrong kind or out of its range.
        """
        whole = (self.tokens, self.continued, self.seed)
        if any(isinstance(each, bool) or not isinstance(each, int) for each in whole):
            raise Invalid("tokens, continued and seed are whole numbers")
        shares = (self.temperature, self.top_p, self.repetition)
        if any(isinstance(each, bool) or not isinstance(each, int | float) for each in shares):
            raise Invalid("temperature, top_p and repetition are numbers")
        if not isinstance(self.sentences, bool):
            raise Invalid("sentences is true or false")
        if not 1 <= self.tokens <= 8192 or not 0 <= self.continued <= 8192:
            raise Invalid("tokens lies in 1-8192 and continued in 0-8192")
        if not 0 <= self.temperature <= 10 or not 0 < self.top_p <= 1:
            raise Invalid("temperature lies in 0-10 and top_p in 0-1, above 0")
        if not 1 <= self.repetition <= 2:
            raise Invalid("repetition lies in 1-2")
        if not 0 <= self.seed < 1 << 63:
            raise Invalid("seed is a whole number from 0 on")


@dataclass(frozen=True, slots=True)
class Written:
    """An answer: its text, and how it came to its last sentence (`full_models.sentences.Ending`, or empty)."""

    text: str
    ending: str


def asking_of(
    choices: Choices, *, tokens: int, continued: int = 0, repetition: float = 1.0, sentences: bool = False
) -> Asking:
    """The settings `tokens`, `continued`, `temperature`, `top_p`, `seed` and `repetition`, with these defaults.

    Raises:
        BadChoice: one cannot be used.
    """
    try:
        return Asking(
            tokens=choices.number("tokens", tokens),
            continued=choices.number("continued", continued, lowest=0),
            temperature=_decimal(choices, "temperature", 0.0),
            top_p=_decimal(choices, "top_p", 1.0),
            seed=choices.number("seed", 0, lowest=0),
            repetition=_decimal(choices, "repetition", repetition),
            sentences=sentences,
        )
    except Invalid as refusal:
        raise BadChoice(f"settings of {choices.model}: {refusal}") from None


def read_settings(text: str) -> Asking:
    """The settings of one request: a JSON object with any of `Asking`'s names; empty text is the defaults.

    Raises:
        Invalid: it is something else.
    """
    if not text.strip():
        return Asking()
    given = _json(text, "SETTINGS")
    names = set(Asking.__dataclass_fields__)
    if not isinstance(given, dict) or not given.keys() <= names:
        raise Invalid(f"SETTINGS is not a JSON object with any of {', '.join(sorted(names))}")
    return Asking(**given)


def read_messages(text: str) -> list[dict[str, str]]:
    """A conversation that ends with what the user says.

    Raises:
        Invalid: it is something else.
    """
    given = _json(text, "MESSAGES")
    if not isinstance(given, list) or not given:
        raise Invalid("MESSAGES is not a JSON list of messages")
    for each in given:
        if (
            not isinstance(each, dict)
            or each.keys() != {"role", "content"}
            or each["role"] not in ROLES
            or not isinstance(each["content"], str)
        ):
            raise Invalid(f'a message is {{"role": one of {", ".join(ROLES)}, "content": text}}')
    if given[-1]["role"] != "user":
        raise Invalid("the last message is not the user's")
    return given


def write(
    call: Call, conversations: Sequence[Sequence[Message]], asking: Asking, model: str = MODEL
) -> list[Written | Invalid]:
    """Ask the writer, many conversations a call; one that is refused fails alone.

    Raises:
        Unavailable: the model did not answer.
    """
    answers: list[Written | Invalid] = []
    for start in range(0, len(conversations), MOST_ROWS):
        chosen = conversations[start : start + MOST_ROWS]
        try:
            answers.extend(_call(call, chosen, asking, model))
        except Invalid as refusal:
            if len(chosen) == 1:
                answers.append(refusal)
                continue
            for each in chosen:
                answers.extend(write(call, [each], asking, model))
    return answers


def _call(call: Call, conversations: Sequence[Sequence[Message]], asking: Asking, model: str) -> list[Written]:
    spelled = [json.dumps([dict(each) for each in messages], ensure_ascii=False) for messages in conversations]
    settings = json.dumps(asdict(asking))
    answer = call(
        model, {"MESSAGES": column(spelled), "SETTINGS": column([settings] * len(spelled))}, ["TEXT", "ENDING"]
    )
    return [
        Written(_text(text), _text(ending))
        for text, ending in zip(answer["TEXT"][:, 0], answer["ENDING"][:, 0], strict=True)
    ]


def column(values: Sequence[str]) -> Array:
    """Texts as a BYTES tensor [n, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        array[row, 0] = value.encode("utf-8", "replace")
    return array


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid(f"{name} is not JSON") from None


def _decimal(choices: Choices, key: str, default: float) -> float:
    text = choices.text(key, str(default))
    try:
        return float(text)
    except ValueError:
        raise BadChoice(f"{key} of {choices.model} is {text!r}: give a number") from None
