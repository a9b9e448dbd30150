"""What an item's five texts feel like, said by Qwen3 as one line of five colours (CMEAN, section 3.2).

R is movement and excitement, G calm and stillness, B sadness and nostalgia, 0-255 each: the four fragments, then the
whole. The line is read strictly, in any of several spellings. A reply that cannot be read is asked for again with its
fault named, and after `attempts` tries the item is refused: CMEAN's code put (100, 100, 100) for a missing triple and
(0, 0, 0) for what it could not read, and such invented colours pair with everything. Values beyond 0-255 are clamped,
as the paper says. Valence and arousal of the texts come from the profile's own `va_text`, and the evidence names its
reading.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from edge_models.triton_model import Array, Call, Invalid, finite

from full_models.sentences import trim
from full_models.writing import MODEL, Asking, Message, Written, column, write

PARTS: Final = 5
MOST_CHARACTERS: Final = 6000
"""Of one text that are read; a longer one is cut back to a sentence, and the evidence says so. Five of them are some
8,000 tokens: Qwen3 reads 32,768. (CMEAN's code cut the whole question silently at 2,048 tokens.)"""

_NAMES: Final = {
    "artwork": ("picture", ("top left", "top right", "bottom left", "bottom right")),
    "track": ("piece of music", ("first quarter", "second quarter", "third quarter", "last quarter")),
}

_TASK: Final = (
    "You read descriptions of a {what} and say what each of them makes a person feel, as a colour of three whole "
    "numbers from 0 to 255. The first number is excitement and movement: 0 is none of it, 255 as much as there can "
    "be. The second is calm and stillness. The third is sadness and nostalgia. The three are judged one by one; "
    "they may all be low or all be high. Judge each description by itself, and use the whole range.\n"
    "Answer with one line and nothing else: the word RGB and a colon, then five triples, each in round brackets with "
    "commas between its numbers, in the order of the descriptions."
)
_AGAIN: Final = (
    "That reply cannot be used: {fault}. Answer again with one line and nothing else: RGB and a colon, then exactly "
    "five triples in round brackets, each of three whole numbers from 0 to 255, in the order of the descriptions."
)


class Unreadable(ValueError):
    """A reply is not five triples; the text names the fault, in words that the model can act on."""


@dataclass(frozen=True, slots=True)
class Colours:
    """What a reply says: [5][3] in 0-255, and whether values had to be clamped to that."""

    triples: tuple[tuple[float, float, float], ...]
    clamped: bool


_NUMBER: Final = r"([-+]?[0-9]{1,4}(?:\.[0-9]+)?)"
_COMMA: Final = r"\s*[,;/\s]\s*"
_SPELLINGS: Final = {
    "letters": re.compile(
        rf"\bR(?:ed)?\s*[:=]?\s*{_NUMBER}\s*[,;/|]?\s*G(?:reen)?\s*[:=]?\s*{_NUMBER}\s*[,;/|]?\s*B(?:lue)?\s*[:=]?\s*{_NUMBER}"
        r"(?![0-9.]*[0-9])",
        re.IGNORECASE,
    ),
    "brackets": re.compile(rf"[(\[{{]\s*{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}\s*[)\]}}]"),
    "hexadecimal": re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})(?![0-9a-f])", re.IGNORECASE),
}
_MARKER: Final = re.compile(r"\bRGB\s*:", re.IGNORECASE)
_LABEL: Final = re.compile(
    r"\b(?:(?:fragment|part|section|quarter|description)\s*[0-9]|total|whole|overall)\s*[:=-]", re.IGNORECASE
)
_BEGUN: Final = re.compile(r"[(\[{]\s*[-+]?[0-9]|#[0-9a-f]{2}|\bR(?:ed)?\s*[:=]\s*[-+]?[0-9]", re.IGNORECASE)
"""What is left of a triple that was begun and not read: two numbers, four, or one that is cut off."""
_BARE: Final = re.compile(r"[-+0-9.,;|/\s]*")
_FENCE: Final = re.compile(r"```[a-z]*|[`*]", re.IGNORECASE)
_THOUGHTS: Final = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


def read(reply: str) -> Colours:
    """The five triples of a reply.

    Read are `(r, g, b)` in any brackets, with or without `rgb` before them, `R: r, G: g, B: b`, `#rrggbb`, and
    fifteen bare numbers; with or without `RGB:`, labels and code marks. There must be exactly five.

    Raises:
        Unreadable: there are not; the text says what was found.
    """
    text = _LABEL.sub(" ", _FENCE.sub("", _THOUGHTS.sub("", reply))).strip()
    markers = list(_MARKER.finditer(text))
    # What stands before the last marker is talk, unless each triple has a marker of its own.
    if 1 <= len(markers) < PARTS:
        text = text[markers[-1].end() :]
    elif markers:
        text = _MARKER.sub(" ", text)
    found = {name: spelling.findall(text) for name, spelling in _SPELLINGS.items()}
    used = {name: triples for name, triples in found.items() if triples}
    if len(used) > 1:
        raise Unreadable("its triples are spelled in two ways")
    if used:
        ((name, triples),) = used.items()
        values = [[float(int(each, 16) if name == "hexadecimal" else float(each)) for each in row] for row in triples]
        rest = _SPELLINGS[name].sub(" ", text)
        if _BEGUN.search(rest):
            raise Unreadable("one of its triples does not have three whole numbers")
    else:
        values = _bare(text)
    if len(values) != PARTS:
        raise Unreadable(f"it has {len(values) or 'no'} triple{'' if len(values) == 1 else 's'} instead of five")
    flat = [value for row in values for value in row]
    if max(flat) <= 1 and any(value != int(value) for value in flat):
        raise Unreadable("its numbers are shares of one instead of whole numbers from 0 to 255")
    triples_read = tuple((_clamp(red), _clamp(green), _clamp(blue)) for red, green, blue in values)
    return Colours(triples_read, any(not 0 <= value <= 255 for value in flat))


def _bare(text: str) -> list[list[float]]:
    if not _BARE.fullmatch(text) or not text:
        raise Unreadable("it has no triples" if re.search("[0-9]", text) is None else "it is not a line of triples")
    words = [word for word in re.split(r"[,;|/\s]+", text) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise Unreadable("it has something that is not a number among its numbers") from None
    if len(numbers) % 3:
        raise Unreadable(f"it has {len(numbers)} numbers instead of fifteen")
    return [numbers[start : start + 3] for start in range(0, len(numbers), 3)]


def _clamp(value: float) -> float:
    return min(255.0, max(0.0, value)) if math.isfinite(value) else 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """One row, read: five texts, which of them were cut back, and the kind of item."""

    texts: tuple[str, ...]
    shortened: tuple[bool, ...]
    kind: str

    @classmethod
    def of(cls, texts: Sequence[str], kind: str) -> Item:
        """Check and, where need be, shorten.

        Raises:
            Invalid: not five texts, an empty one, or an unknown kind.
        """
        if kind not in _NAMES:
            raise Invalid(f"KIND is {kind!r}; one of {', '.join(_NAMES)} is expected")
        if len(texts) != PARTS:
            raise Invalid(f"TEXTS holds {len(texts)} values; five are expected, fragments 1-4 and the whole")
        for number, text in enumerate(texts):
            if not text.strip():
                raise Invalid(f"TEXTS[{number}] is empty: there is nothing to feel")
        short = [text if len(text) <= MOST_CHARACTERS else _shortened(text) for text in texts]
        return cls(tuple(short), tuple(before != after for before, after in zip(texts, short, strict=True)), kind)

    def conversation(self) -> list[Message]:
        """What the model is asked first."""
        what, parts = _NAMES[self.kind]
        named = (*(f"its {part}" for part in parts), f"the whole {what}")
        lines = [
            f"Description {number}, of {name}: {' '.join(text.split())}"
            for number, (name, text) in enumerate(zip(named, self.texts, strict=True), 1)
        ]
        return [
            {"role": "system", "content": _TASK.format(what=what)},
            {"role": "user", "content": "\n".join(lines)},
        ]


def _shortened(text: str) -> str:
    return trim(text[:MOST_CHARACTERS]) or text[:MOST_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a row is answered: RGB [5,3] in 0-255, VA [5,2] in [0,1], and the evidence of each part as JSON."""

    rgb: Array
    va: Array
    evidence: list[str]


@dataclass(slots=True)
class _Open:
    """An item that is still asked about."""

    place: int
    messages: list[Message]
    fault: str = ""
    reply: str = ""


def score(
    items: Sequence[Item], call: Call, asking: Asking, attempts: int, writer: str = MODEL, reading: str = ""
) -> list[Scored | Invalid]:
    """Score all items; each round asks about all that are open, together.

    Args:
        call: asks the writer and `va_text`.
        asking: 256 tokens in CMEAN; deterministic at temperature 0 (CMEAN's was 0.7).
        attempts: how often an item is asked about at most.
        reading: what `va_text` reads by, for the evidence (`full_models.reading`); empty: not said.

    Returns:
        One answer an item; `Invalid` where no reply could be read, with the last fault and the last reply.

    Raises:
        Unavailable: a model that is called did not answer.
    """
    answers: list[Scored | Invalid] = [Invalid("not asked")] * len(items)
    read_so_far: dict[int, tuple[Colours, str, int]] = {}
    unread = [_Open(place, item.conversation()) for place, item in enumerate(items)]
    for attempt in range(1, attempts + 1):
        still: list[_Open] = []
        for each, written in zip(unread, write(call, [one.messages for one in unread], asking, writer), strict=True):
            if isinstance(written, Invalid):
                answers[each.place] = written
            elif not _try(each, written, read_so_far, attempt):
                still.append(each)
        unread = still
        if not unread:
            break
    for each in unread:
        answers[each.place] = Invalid(
            f"the model was asked {attempts} times for five colours and its last reply cannot be read: {each.fault}. "
            f"It said: {' '.join(each.reply.split())[:200]!r}"
        )
    if read_so_far:
        places = sorted(read_so_far)
        va = _valence_arousal([text for place in places for text in items[place].texts], call)
        for number, place in enumerate(places):
            part = va[number * PARTS : (number + 1) * PARTS]
            answers[place] = _scored(items[place], *read_so_far[place], part, writer, reading)
    return answers


def _try(each: _Open, written: Written, read_so_far: dict[int, tuple[Colours, str, int]], attempt: int) -> bool:
    """Read a reply, or put its fault into the conversation; whether it was read."""
    try:
        read_so_far[each.place] = (read(written.text), written.text, attempt)
    except Unreadable as fault:
        each.fault, each.reply = str(fault), written.text
        # An endless reply would crowd out the question.
        each.messages = [
            *each.messages,
            {"role": "assistant", "content": written.text[:1000]},
            {"role": "user", "content": _AGAIN.format(fault=fault)},
        ]
        return False
    return True


def _valence_arousal(texts: Sequence[str], call: Call) -> Array:
    """Valence and arousal of each text by the profile's `va_text`, float32 [n, 2] in [0,1], 60 texts a call."""
    made = []
    for start in range(0, len(texts), 60):
        chosen = texts[start : start + 60]
        made.append(call("va_text", {"TEXT": column(chosen)}, ["VA"])["VA"])
    va = np.concatenate(made).astype(np.float32)
    if va.shape != (len(texts), 2):
        raise Invalid(f"va_text answered with the shape {list(va.shape)} to {len(texts)} texts")
    return np.clip(finite(va, "VA of va_text"), 0, 1)


def _scored(item: Item, colours: Colours, reply: str, attempt: int, va: Array, writer: str, reading: str) -> Scored:
    evidence = []
    for part in range(PARTS):
        red, green, blue = colours.triples[part]
        valence, arousal = (float(value) for value in va[part])
        said: dict[str, Any] = {
            "source": writer,
            "what": f"movement {red:g}, calm {green:g}, nostalgia {blue:g}",
            "effect": {"r": red, "g": green, "b": blue, "valence": 0.0, "arousal": 0.0},
            "asked": attempt,
        }
        if colours.clamped:
            said["clamped"] = True
        if item.shortened[part]:
            said["shortened"] = True
        if part == PARTS - 1:
            said["reply"] = " ".join(reply.split())[:300]
        felt = {
            "source": "va_text",
            "what": f"valence {valence:.2f}, arousal {arousal:.2f}",
            "effect": {
                "r": 0.0,
                "g": 0.0,
                "b": 0.0,
                "valence": round(valence - 0.5, 4),
                "arousal": round(arousal - 0.5, 4),
            },
        }
        if reading:
            felt["reading"] = reading
        evidence.append(json.dumps([said, felt], ensure_ascii=False))
    return Scored(np.array(colours.triples, np.float32), va.astype(np.float32), evidence)
