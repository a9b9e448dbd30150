"""Sentences about one picture or one sound, or one part of it, from its measurement and its catalogue data.

Every statement stands in the measurement or in the catalogue; what is unsure is hedged or left out; a mood is named
only as the consequence of what was measured. The same input gives the same text; the wording is chosen by content,
and the four parts of one item are worded differently. What is said of a picture is in `edge_models.captions_picture`,
of a sound in `edge_models.captions_sound`; here are reading, wording and joining. Measuring, scoring and checking the
text against the medium are left to others.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_models.triton_model import Invalid

Choice = TypeVar("Choice", str, bool)

PARTS = {
    "picture": ("top-left", "top-right", "bottom-left", "bottom-right", "whole"),
    "sound": ("part-1", "part-2", "part-3", "part-4", "whole"),
}
# Words in a caption: at least, aimed at, at most.
WHOLE_LENGTH = (45, 66, 90)
FRAGMENT_LENGTH = (20, 34, 45)
CATALOGUE_KEYS = ("title", "artist", "year", "style", "genre", "licence")
# What catalogues write where they know nothing.
_NOTHING = frozenset(
    {"", "-", "?", "n/a", "na", "nan", "none", "null", "unknown", "unknown artist", "untitled", "s.d."}
)
_INVISIBLE = frozenset(("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"))


@dataclass(frozen=True)
class Caption:
    """A text, and its meaningful words: pairs of a phrase that occurs in the text and a confidence (0..1)."""

    text: str
    phrases: tuple[tuple[str, float], ...]

    def phrases_json(self) -> str:
        """The phrases as JSON: [[phrase, confidence], ...]."""
        return json.dumps([[phrase, round(confidence, 3)] for phrase, confidence in self.phrases], ensure_ascii=False)


@dataclass(frozen=True)
class Sentence:
    """One statement: four wordings of it, and the phrases that carry its meaning.

    The phrases stand in every wording, so that what is read from them does not hang on the wording. A sentence
    without salience (`None`) is always said; the others are said in the order of their salience while there is room.
    """

    wordings: tuple[str, ...]
    phrases: tuple[tuple[str, float], ...] = ()
    salience: float | None = None


def read_measurement(text: str | bytes, kind: str) -> dict[str, Any]:
    """The measurement of this kind ("picture" or "sound") from JSON. Raises `Invalid` when missing or broken."""
    if not text:
        raise Invalid(f"MEASUREMENTS is empty; send the JSON that measure_{kind} gives")
    try:
        measurement = json.loads(text)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"MEASUREMENTS is not JSON ({error}); send what measure_{kind} gives") from error
    if not isinstance(measurement, dict) or measurement.get("kind") != kind:
        raise Invalid(f'MEASUREMENTS has no "kind": "{kind}"; send what measure_{kind} gives')
    return measurement


def read_catalogue(text: str | bytes) -> dict[str, str]:
    """The catalogue's known fields, cleaned, from JSON (empty text or null: none). Raises `Invalid` when broken."""
    if not text:
        return {}
    try:
        catalogue = json.loads(text)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"CATALOGUE is not JSON ({error}); send an object or null") from error
    if catalogue is None:
        return {}
    if not isinstance(catalogue, dict):
        raise Invalid("CATALOGUE is not a JSON object; send title, artist, year, style, genre, licence or null")
    longest = {"title": 80, "artist": 60, "year": 24, "style": 40, "genre": 40, "licence": 40}
    words = {"title": 14, "artist": 10, "year": 4, "style": 5, "genre": 5, "licence": 5}
    cleaned = {key: clean(catalogue.get(key), longest[key], words[key]) for key in CATALOGUE_KEYS}
    return {key: value for key, value in cleaned.items() if value}


def number(measurement: dict[str, Any], group: str, name: str, low: float, high: float) -> float:
    """One number of the measurement, held within its range. Raises `Invalid` when it is missing or not finite."""
    holder = measurement.get(group)
    value = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Invalid(f"MEASUREMENTS lacks the number {group}.{name}; measure again")
    return max(low, min(high, float(value)))


def choice(measurement: dict[str, Any], group: str, name: str, allowed: Sequence[Choice]) -> Choice:
    """One value of the measurement out of a few. Raises `Invalid` when it is missing or not one of the allowed."""
    holder = measurement.get(group)
    value = holder.get(name) if isinstance(holder, dict) else None
    for candidate in allowed:
        if type(value) is type(candidate) and value == candidate:
            return candidate
    raise Invalid(f"MEASUREMENTS lacks {group}.{name} (one of {', '.join(map(str, allowed))}); measure again")


def confidences(measurement: dict[str, Any]) -> dict[str, float]:
    """The tags' confidences by name, strongest first. Raises `Invalid` when the list is missing or malformed."""
    tags = measurement.get("tags")
    if not isinstance(tags, list):
        raise Invalid("MEASUREMENTS lacks the list tags; measure again")
    found: dict[str, float] = {}
    for tag in tags:
        if not isinstance(tag, dict) or not isinstance(tag.get("name"), str):
            raise Invalid("MEASUREMENTS holds a tag without a name; measure again")
        found[tag["name"]] = number({"tag": tag}, "tag", "confidence", 0.0, 1.0)
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def clean(value: Any, longest: int, most_words: int) -> str:
    """Catalogue text fit for a sentence: one line, no control characters, paired marks, within both limits."""
    if value is None or isinstance(value, dict | list | bool):
        return ""
    text = unicodedata.normalize("NFC", str(value))
    text = "".join(
        " " if unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co") else sign for sign in text
    )
    text = re.sub(r"\s+", " ", text).strip()
    limit = longest if len(text.split(" ")) <= most_words else len(" ".join(text.split(" ")[:most_words])) + 1
    limit = min(limit, longest)
    if len(text) > limit:
        text = text[:limit].rsplit(" ", 1)[0] if " " in text[:limit] else text[:limit]
        text = text.rstrip(" ,;:-.…") + "…"
    # A bracket or quotation mark without its partner would leave the sentence open.
    low = "„" in text  # German marks open low and close with the sign that opens English ones
    for opening, closing in (("(", ")"), ("[", "]"), ("{", "}"), ("„" if low else "“", "”"), ("«", "»"), ("<", ">")):
        if low and opening == "„" and _paired(text.replace("“", "”"), opening, closing):
            continue
        if not _paired(text, opening, closing):
            text = text.replace(opening, "").replace(closing, "")
            text = text.replace("“", "") if opening == "„" else text
    if text.count('"') % 2:
        text = text.replace('"', "")
    text = re.sub(r"\s+", " ", text).strip().rstrip(".,;: ").lstrip(".,;:!?… ")
    if text.lower() in _NOTHING or not any(sign.isalnum() for sign in text):
        return ""
    return text


def catalogue_sentences(catalogue: dict[str, str], noun: str) -> list[Sentence]:
    """The catalogue's facts as at most two sentences: title, artist, year; style and genre."""
    title, artist, year = (catalogue.get(key, "") for key in ("title", "artist", "year"))
    sentences = []
    if title or artist or year:
        name = title or (f"A {noun}" if artist else f"A {noun} of {year}")
        text = name + (f" by {artist}" if artist else "") + (f", {year}" if year and (title or artist) else "")
        end = "" if text[-1] in "!?…" else "."
        # A name and a date are facts, but mean nothing that could be felt.
        sentences.append(Sentence((text + end,), ((title, 1.0),) if title else ()))
    facts = [f"{key} as {catalogue[key]}" for key in ("style", "genre") if key in catalogue]
    if facts:
        # A fact that holds a comma is closed by one, or the next would seem part of it.
        between = ", and the " if "," in facts[0] else " and the "
        text = f"The catalogue gives the {between.join(facts)}"
        phrases = tuple((catalogue[key], 0.9) for key in ("style", "genre") if key in catalogue)
        end = "" if text[-1] in "!?…" else "."
        sentences.append(Sentence((text + end,), phrases, 1.9))
    return sentences


def joined(names: Sequence[str]) -> str:
    """Names as a list in words: "a", "a and b", "a, b and c"."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def sentence_case(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def level_of(value: float, steps: tuple[tuple[float, str, float], ...], last: tuple[str, float]) -> tuple[str, float]:
    """The word and confidence of the first step whose limit lies above the value, or the last ones."""
    for limit, word, confidence in steps:
        if value < limit:
            return word, confidence
    return last


def third_of(value: float, low: float, high: float) -> int:
    """0, 1 or 2: below `low`, between, or from `high` on."""
    return 0 if value < low else 1 if value < high else 2


def article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def turn_of(measurement: dict[str, Any], part: str, catalogue: dict[str, str], kind: str) -> int:
    """Which wording to begin with: for the whole by all of the content, for a part by the item and the part's place.

    Parts of one item (which share catalogue data, but do not know each other) thus never begin alike.
    """
    if part != "whole":
        return PARTS[kind].index(part) + _digest(json.dumps(catalogue, sort_keys=True)) % 4
    return _digest(json.dumps([measurement, catalogue], sort_keys=True))


def compose(sentences: Sequence[Sentence], length: tuple[int, int, int], turn: int) -> Caption:
    """Join sentences, in their order, to a text of `length` (least, aimed at, most) words.

    Sentences without salience are said first of all; then the most salient ones until the aim is reached. Which ones
    does not hang on the turn. Each is worded by the turn alone: the wordings of one turn are written to stand side
    by side (no two begin alike), and two parts with different turns share no sentence.
    """
    least, aim, most = length
    longest = [max(len(wording.split()) for wording in sentence.wordings) for sentence in sentences]
    shortest = [min(len(wording.split()) for wording in sentence.wordings) for sentence in sentences]
    chosen = {index for index, sentence in enumerate(sentences) if sentence.salience is None}
    total = sum(longest[index] for index in chosen)
    sure = sum(shortest[index] for index in chosen)
    waiting = [index for index, sentence in enumerate(sentences) if sentence.salience is not None]
    for index in sorted(waiting, key=lambda place: -(sentences[place].salience or 0.0)):
        enough = total >= aim and sure >= least
        if not enough and total + longest[index] <= most:
            chosen.add(index)
            total += longest[index]
            sure += shortest[index]
    said: list[str] = []
    phrases: dict[str, float] = {}
    for index in sorted(chosen):
        sentence = sentences[index]
        said.append(sentence_case(sentence.wordings[turn % len(sentence.wordings)]))
        for phrase, confidence in sentence.phrases:
            phrases[phrase] = max(phrases.get(phrase, 0.0), confidence)
    return Caption(" ".join(said), tuple(phrases.items()))


def mood_words(
    cells: dict[tuple[int, int], tuple[str, ...]],
    pleasure: tuple[float, tuple[float, float]],
    arousal: tuple[float, tuple[float, float]],
) -> tuple[str, str]:
    """The nearest word for a mood and the one next to it.

    Pleasure and arousal are given with the limits of their thirds. Each third is halved again, so that a cell's four
    words lie in its quarters: less pleasure first, and of these less arousal first. The other word is that of the
    same pleasure.
    """
    places, halves = [], []
    for value, (low, high) in (pleasure, arousal):
        third = third_of(value, low, high)
        places.append(third)
        width = high - low
        halves.append(value >= low + (third - 0.5) * width)
    words = cells[places[0], places[1]]
    index = 2 * halves[0] + halves[1]
    return words[index], words[index ^ 1]


def _paired(text: str, opening: str, closing: str) -> bool:
    depth = 0
    for sign in text:
        depth += (sign == opening) - (sign == closing)
        if depth < 0:
            return False
    return depth == 0


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big")
