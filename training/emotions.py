"""IMEMNet-C's making: scales brought to [0, 1], songs cut into clips, captions rid of talk about recording quality.

Source: MMVA, sections "IMEMNet" and "IMEMNet-C". DEAM's valence and arousal come for every half second from second 15
on; a song is cut into clips of 2 s from there, and up to five of them are joined into one of at most 10 s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_SECOND = 15.0
"""Where DEAM's annotations become stable, and where they begin."""

CLIP_SECONDS = 2.0
JOINED = 5
"""Clips joined at most: 10 s."""

SCALES = {"deam": (-1.0, 1.0), "iaps": (1.0, 9.0), "naps": (1.0, 9.0), "emotic": (1.0, 10.0), "unit": (0.0, 1.0)}
"""Lowest and highest value of each source's scale. MMVA names DEAM's as -1 to 1, IAPS's and NAPS's as of nine points,
EMOTIC's as of ten."""


def to_unit(value: float, scale: str) -> float:
    """A value of a named scale in [0, 1].

    Raises ValueError for an unknown scale, or a value off it.
    """
    if scale not in SCALES:
        raise ValueError(f"there is no scale {scale!r}; known are {', '.join(sorted(SCALES))}")
    low, high = SCALES[scale]
    if not low <= value <= high:
        raise ValueError(f"{value} is off the scale {scale}, which goes from {low:g} to {high:g}")
    return (value - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of a song with its emotion.

    Attributes:
        start, seconds: where it lies in the song.
        valence, arousal: the mean over it, in [0, 1].
    """

    start: float
    seconds: float
    valence: float
    arousal: float


def clips(valence: Sequence[tuple[float, float]], arousal: Sequence[tuple[float, float]]) -> list[Clip]:
    """A song's clips of 2 s, each joined with as many that follow it as fit into 10 s.

    Args:
        valence, arousal: (second, value on DEAM's scale), each value of the half second that begins there.

    Returns one clip for each whole stretch of 2 s from second 15 on; the last ones are shorter, as the song ends. A
    stretch that lacks a value in either annotation ends the joining before it and makes no clip.
    """
    pieces: dict[int, tuple[float, float]] = {}
    values: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
    for side, given in zip(values, (valence, arousal), strict=True):
        for second, value in given:
            if second >= FIRST_SECOND:
                side.setdefault(int((second - FIRST_SECOND) / CLIP_SECONDS), []).append(to_unit(value, "deam"))
    # A stretch cut off by the song's end has fewer values than the others.
    whole = max((len(each) for each in values[0].values()), default=0)
    for number in values[0].keys() & values[1].keys():
        if len(values[0][number]) == len(values[1][number]) == whole:
            pieces[number] = (sum(values[0][number]) / whole, sum(values[1][number]) / whole)
    found = []
    for number in sorted(pieces):
        joined: list[tuple[float, float]] = []
        while len(joined) < JOINED and number + len(joined) in pieces:
            joined.append(pieces[number + len(joined)])
        found.append(
            Clip(
                FIRST_SECOND + CLIP_SECONDS * number,
                CLIP_SECONDS * len(joined),
                sum(each[0] for each in joined) / len(joined),
                sum(each[1] for each in joined) / len(joined),
            )
        )
    return found


_POOR = r"(?:(?:very|rather|really|quite|somewhat) )?(?:low|poor|bad|mediocre|terrible|inferior|average|amateur)"
_WHAT = r"(?:audio |sound |recording )?(?:quality|fidelity)"
_RULES = (
    # The paper's first rule: "low quality recording features" -> "recording features".
    (rf"\b{_POOR}[ -]quality recording\b", "recording"),
    # "is of poor audio quality, and features drums" -> "features drums".
    (rf" (?:is|was) (?:of |in )?(?:a )?{_POOR}[ -]{_WHAT},? (?:and|but)\b", ""),
    # ", and the sound quality is poor"
    (r",? ?(?:and|but|with|though|although)? ?(?:the )?(?:audio|sound|recording) quality (?:is|being) [^.,;]+", ""),
    # "with a low quality sound", "in poor quality"
    (rf",? (?:with|in|of|and) (?:a |the )?{_POOR}[ -]{_WHAT}(?: sound| tone)?\b", ""),
)
_RULES_READY = tuple((re.compile(pattern, re.I), instead) for pattern, instead in _RULES)
_ONLY_QUALITY = re.compile(
    rf"^(?:the|this|it|that|overall|in general|,|is|was|are|has|have|a|an|of|in|very|and|but|which|the|"
    rf"{_POOR}|quality|audio|sound|recording|recorded|recordings|song|track|music|piece|clip|noisy|muffled|mono|"
    r"crackling|hissing|fidelity|low|lo-fi|distorted|badly|poorly|amateurish|home|phone|made|on|with|by|being|s|'s|"
    r"\s|-)+$",
    re.I,
)
_ABOUT_QUALITY = re.compile(r"\b(quality|fidelity|noisy|muffled|mono|crackling|hissing|lo-fi|poorly|badly)\b", re.I)


def cleaned(caption: str) -> str:
    """A caption without what it says of the recording's quality.

    The paper's first rule (a "low quality recording" is a "recording") and, for what it had a language model do,
    further rules: sentences that speak of nothing but the recording's quality go, and clauses about it in others.
    What is left is untouched; a caption that spoke of nothing else becomes empty.
    """
    kept = []
    for sentence in re.split(r"(?<=[.!?])\s+", caption.strip()):
        bare = sentence.rstrip(".!? ")
        if _ABOUT_QUALITY.search(bare) and _ONLY_QUALITY.match(bare):
            continue
        for pattern, instead in _RULES_READY:
            sentence = pattern.sub(instead, sentence)
        sentence = re.sub(r"\s+([.,;!?])", r"\1", re.sub(r"\s{2,}", " ", sentence)).strip(" ,;")
        if re.sub(r"[^\w]", "", sentence):
            kept.append(sentence[0].upper() + sentence[1:])
    return " ".join(kept)
