"""Where sentences end: so that no caption stops in the middle of one.

CMEAN lost 603 of its 1,000 whole-picture captions to a cut at 512 tokens (Table II counts a description complete when
its stripped text ends in a full stop, an exclamation mark or a question mark). Here a model that was cut goes on up
to a stated limit and is then cut back to its last sentence; `finish` does the cutting back and says what it did.
Running models is left to `full_models.chat`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, Literal

Ending = Literal["complete", "continued", "trimmed", "closed"]
"""How a text came to its last sentence:

* complete: the model ended by itself, at the end of a sentence;
* continued: it reached the first limit, and was stopped there or later where a sentence ended;
* trimmed: it was cut at the last limit, and what followed the last whole sentence was dropped;
* closed: no mark was at hand (it ended without one, or no sentence ended before the limit): a full stop was set.
"""

MARKS: Final = ".!?…。！？"
_CLOSERS: Final = "\"'”’»)]}*_"
_END: Final = re.compile(rf"[{re.escape(MARKS)}]+[{re.escape(_CLOSERS)}]*(?=\s|$)|[。！？]+[{re.escape(_CLOSERS)}]*")

_TITLES: Final = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "ste", "mt", "op", "vol", "fig", "cf", "ca", "approx", "vs", "jr", "sr"]
)
_DOTTED: Final = frozenset({"e.g", "i.e", "a.k.a"})
"""Abbreviations that stand before more words; `etc.` is not among them, because it may well end a sentence."""


def _ends_here(text: str, since: int, start: int, stop: int) -> bool:
    """Whether the marks text[start:stop] end the sentence begun at `since`: no abbreviation, no list's number."""
    if text[start:stop].rstrip(_CLOSERS) != ".":
        return True
    words = text[:start].split()
    before = words[-1].lstrip(_CLOSERS + "([{“‘«") if words and not text[start - 1 : start].isspace() else ""
    if not before or before.lower() in _TITLES or before.lower() in _DOTTED:
        return False
    if len(before) == 1 and before.isalpha():
        # "J. S. Bach" and "c. 1890", but "in the key of C."
        return before in "ABCDEFG" and len(words) > 1 and words[-2].lower() in ("of", "in", "to")
    line = text[since:start].rsplit("\n", 1)[-1].strip()
    return not (before.isdigit() and line == before)  # "1." opens an entry of a list


def ends(text: str) -> list[int]:
    """Positions in `text` just after each sentence's closing mark, ascending."""
    places: list[int] = []
    for found in _END.finditer(text):
        if _ends_here(text, places[-1] if places else 0, found.start(), found.end()):
            places.append(found.end())
    return places


def is_complete(text: str) -> bool:
    """True when the text, without the space around it, ends with the end of a sentence."""
    stripped = text.rstrip()
    places = ends(stripped)
    return bool(places) and places[-1] == len(stripped)


def may_stop(text: str) -> bool:
    """True when a text that is still being written may stop here: its last sentence has surely ended.

    More careful than `is_complete`: after "7." there may come another digit.
    """
    bare = text.rstrip().rstrip(_CLOSERS)
    return is_complete(text) and not (
        len(bare) > 1 and bare[-1] == "." and bare[-2].isdigit() and text == text.rstrip()
    )


def trim(text: str) -> str:
    """The text up to the end of its last sentence; empty where no sentence ends. A prefix of the text, stripped."""
    places = ends(text)
    return text[: places[-1]].strip() if places else ""


def split(text: str) -> list[str]:
    """The sentences of a text, each stripped; what follows the last end is a sentence of its own."""
    places = [0, *ends(text), len(text)]
    pieces = (text[start:stop].strip() for start, stop in pairwise(places))
    return [piece for piece in pieces if piece]


def has_words(text: str) -> bool:
    """True when a letter or a digit is in it."""
    return any(character.isalnum() for character in text)


def close(text: str) -> str:
    """The text with a full stop, set after its last whole word or clause; empty where it has no words."""
    if not has_words(text):
        return ""
    # From the right: marks that open or join something which never came.
    end = max(place for place, character in enumerate(text) if character.isalnum()) + 1
    closed = text[:end].strip() + "."
    return closed if is_complete(closed) else closed[:-1] + "…"


def finish(text: str, *, cut: bool, went_on: bool) -> tuple[str, Ending]:
    """A caption that ends at a sentence, and how it came to that.

    Args:
        text: what a model wrote.
        cut: it was stopped by the last limit, in the middle of something.
        went_on: it passed its first limit.

    Returns:
        The text, which is complete (`is_complete`), and its ending. An empty text where there are no words.
    """
    text = text.strip()
    if not has_words(text):
        return "", "closed"
    if is_complete(text):
        return text, "continued" if went_on else "complete"
    if not cut:
        return close(text), "closed"
    trimmed = trim(text)
    if has_words(trimmed):
        return trimmed, "trimmed"
    # Cut inside its first sentence: the last word may be half a word.
    whole = text.rsplit(None, 1)[0] if len(text.split()) > 1 else text
    return close(whole) or close(text), "closed"


_THOUGHTS: Final = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
_HEADING: Final = re.compile(r"^\s*(?:#{1,6}\s.*|\*\*[^*]+\*\*:?|[-=_*]{3,})\s*$")
_BULLET: Final = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+")
_EMPHASIS: Final = re.compile(r"(\*\*|__|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)|`)")


def plain(text: str) -> str:
    """One paragraph of plain sentences of what a chat model writes: no thoughts, headings, bullets or emphasis."""
    lines = []
    for line in _THOUGHTS.sub("", text).splitlines():
        if _HEADING.match(line):
            continue
        bare = _EMPHASIS.sub("", _BULLET.sub("", line)).strip()
        if bare:
            lines.append(bare)
    return re.sub(r"\s+", " ", " ".join(lines)).strip()
