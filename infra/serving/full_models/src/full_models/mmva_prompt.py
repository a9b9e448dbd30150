"""compose_mmva: the description of music that feels nearest to a picture, out of all that four templates can say.

Source: MMVA, its section on music generation and figures 4 to 6. Four sentences (genre; two instruments; tempo; mood)
are filled in with every combination of candidates, each description is read in valence and arousal by `va_text`
(MMVA's text tower; where that is not made, the edge profile's reading, and the version says so), and the one at the
smallest distance from the picture's point is what the text-to-music model
follows. The sentences are worded by us, the candidates are the paper's.

All 50,336 descriptions take a graphics card seconds, a processor minutes. So they are read once, a little after the
start, and kept in memory (`search` = exhaustive); where that is too long, `search` = descent improves one sentence
after another from several starts until none gets nearer: about a hundredth of the readings, not always the very best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from edge_models.music.turns import Rest
from edge_models.triton_model import Array, Call, strings

from full_models.music_wishes import Wanted
from full_models.reading import reading_of
from full_models.text_to_music import TextComposer
from full_models.weights import BadChoice, Choices

READER: Final = "va_text"
ROWS: Final = 64
"""Descriptions read in one call: the largest batch of `va_text`."""

GENRES: Final = (
    "rock",
    "pop funk",
    "ambient",
    "classic metal",
    "electronic",
    "hip hop",
    "country",
    "jazz",
)
INSTRUMENTS: Final = (
    "electric guitar",
    "male vocalist",
    "female vocalist",
    "violin",
    "piano",
    "saxophone",
    "bass guitar",
    "drum",
    "acoustic guitar",
    "trumpet",
    "synthesiser",
)
TEMPOS: Final = ("fast", "slow", "moderate", "mid-tempo")
MOODS: Final = (
    "easy going",
    "euphoric",
    "melancholic",
    "majestic",
    "mysterious",
    "dramatic",
    "whimsical",
    "haunting",
    "exuberant",
    "soothing",
    "aggressive",
    "dreamy",
    "energetic",
)
PAIRS: Final = tuple((lead, behind) for lead in INSTRUMENTS for behind in (*INSTRUMENTS, "") if lead != behind)
"""The leading instrument and the one behind it; empty: it plays alone."""

SLOTS: Final[tuple[Sequence[Any], ...]] = (GENRES, PAIRS, TEMPOS, MOODS)
Filling = tuple[int, ...]
"""Which candidate fills each of the four templates, four numbers."""
Read = Callable[[Sequence[str]], Array]
"""Descriptions -> valence and arousal, [n, 2] in [0,1]."""


def description(filling: Filling) -> str:
    """The four sentences of a filling."""
    genre, (lead, behind), tempo, mood = (slot[place] for slot, place in zip(SLOTS, filling, strict=True))
    played = f"the {lead} with the {behind} behind it" if behind else f"the {lead} alone"
    return f"A piece of {genre} music. The melody is played by {played}. The rhythm is {tempo}. The mood is {mood}."


def every_filling() -> list[Filling]:
    """All of them, in a fixed order."""
    return list(product(*(range(len(slot)) for slot in SLOTS)))


def distances(points: Array, target: tuple[float, float]) -> Array:
    """Euclidean distances of points [n, 2] from the picture's (MMVA's d)."""
    found: Array = np.linalg.norm(np.asarray(points, np.float64) - np.asarray(target, np.float64), axis=1)
    return found


def nearest_of(points: Array, target: tuple[float, float]) -> tuple[int, float]:
    """The place of the nearest point (of equally near ones the first) and its distance."""
    found = distances(points, target)
    place = int(np.argmin(found))
    return place, float(found[place])


def descend(
    read: Read, target: tuple[float, float], starts: int = 4, rest: Rest = lambda: None
) -> tuple[Filling, Array]:
    """A filling that no change of one sentence brings nearer, the nearest of several starts, and its point [2].

    Args:
        read: reads descriptions; what was read once is not read again.
        target: the picture's point.
        starts: fillings to begin from, spread over all, always the same ones.
        rest: called between readings.
    """
    known: dict[Filling, Array] = {}

    def points(fillings: Sequence[Filling]) -> Array:
        new = [each for each in dict.fromkeys(fillings) if each not in known]
        if new:
            rest()
            known.update(zip(new, read([description(each) for each in new]), strict=True))
        return np.stack([known[each] for each in fillings])

    best: tuple[float, Filling] | None = None
    for number in range(starts):
        here: Filling = tuple(len(slot) * number // starts for slot in SLOTS)
        away = float(distances(points([here]), target)[0])
        better = True
        while better:
            better = False
            for slot, candidates in enumerate(SLOTS):
                around: list[Filling] = [(*here[:slot], place, *here[slot + 1 :]) for place in range(len(candidates))]
                place, distance = nearest_of(points(around), target)
                if distance < away:
                    here, away, better = around[place], distance, True
        if best is None or (away, here) < best:
            best = away, here
    assert best is not None
    return best[1], known[best[1]]


class Reader:
    """Reads descriptions through `va_text`, `ROWS` a call.

    Args:
        call: other served models.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, texts: Sequence[str], rest: Rest = lambda: None) -> Array:
        """Valence and arousal [n, 2].

        Raises:
            Invalid, Unavailable: as everywhere.
        """
        found = []
        for start in range(0, len(texts), ROWS):
            rest()
            part = strings(*texts[start : start + ROWS]).reshape(-1, 1)
            found.append(self._call(READER, {"TEXT": part}, ["VA"])["VA"])
        return np.concatenate(found).astype(np.float32)


class Nearest:
    """Finds the description that is nearest to a picture.

    Args:
        read: reads descriptions.
        exhaustive: every filling is read now; otherwise some of them are, each time.
    """

    def __init__(self, read: Reader, exhaustive: bool) -> None:
        self._read = read
        self._fillings = every_filling()
        self._points = read([description(each) for each in self._fillings]) if exhaustive else None

    def find(self, target: tuple[float, float], rest: Rest = lambda: None) -> tuple[str, Array]:
        """The description, and its point [2]."""
        if self._points is not None:
            place, _ = nearest_of(self._points, target)
            return description(self._fillings[place]), self._points[place]
        filling, point = descend(self._read, target, rest=rest)
        return description(filling), point


class MmvaModel(TextComposer):
    """The served model. WISHES: as compose_music's but "conditioning" and "prompt". REPORT: as compose_music's, with
    "prompt" (the nearest description), "picture_va", "prompt_va", "distance" and "search".
    """

    name = "mmva"

    def check(self) -> None:
        """See `ComposerModel`."""
        choices = Choices(Path(self.folder).parent.name, self.parameters, self.folder)
        # The points of the fillings are those of va_text, however that reads.
        self.version = reading_of(choices, Path(self.folder)).version(self.version)
        self.version = choices.declared(self.version, ("search",))
        self._search = choices.text("search", "exhaustive")
        if self._search not in ("exhaustive", "descent"):
            raise BadChoice(f"search of {choices.model} is {self._search!r}: give exhaustive or descent")

    def tools(self) -> Nearest:
        """All descriptions, read; or the way to read some of them."""
        return Nearest(Reader(self.call), self._search == "exhaustive")

    def words(self, wanted: Wanted, tools: Nearest, rest: Rest) -> tuple[str, dict[str, Any]]:
        """The nearest description. The seed has no say in it: the same picture gives the same words."""
        said, point = tools.find(wanted.va, rest)
        return said, {
            "picture_va": [round(value, 4) for value in wanted.va],
            "prompt_va": [round(float(value), 4) for value in point],
            "distance": round(float(distances(point[None], wanted.va)[0]), 6),
            "search": self._search,
        }
