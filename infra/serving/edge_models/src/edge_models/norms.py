"""Valence, arousal and dominance of English words: looking words up, and weighing them by what they rest on.

The norms are those of Warriner, Kuperman & Brysbaert 2013 (13,915 words, each rated 1..9 by about twenty people).
They are not part of the project: `edge_models.build` makes a small norms.json of them on the user's machine. What a
text feels like is left to `edge_models.emotion`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LEAST_WEIGHT = 0.25
"""Weight of a word that no phrase rests on (joining words, the catalogue), where phrases are given."""

_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_NEGATIONS = frozenset({"no", "not", "without", "never", "nor", "neither", "hardly", "lacks", "lacking"})
# (ending, what stands in its place), tried in this order; the first form that is in the table is taken.
_ENDINGS = (
    *(("'s", ""), ("’s", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("s", ""), ("es", ""), ("ied", "y")),
    *(("ed", ""), ("d", ""), ("ing", ""), ("ing", "e"), ("ily", "y"), ("ly", ""), ("ally", ""), ("iness", "y")),
    *(("ness", ""), ("ier", "y"), ("er", ""), ("er", "e"), ("iest", "y"), ("est", ""), ("est", "e")),
    *(("our", "or"), ("ours", "or"), ("oured", "or"), ("ourful", "orful"), ("re", "er"), ("grey", "gray")),
    *(("greyish", "gray"), ("ish", ""), ("ish", "e"), ("y", ""), ("ise", "ize"), ("ised", "ize")),
)


@dataclass(frozen=True)
class WeightedWord:
    """A word that the norms know, as it was found in the table.

    valence, arousal and dominance lie in [0,1] (1..9 in the table); weight is above 0, at most 1.
    """

    word: str
    valence: float
    arousal: float
    dominance: float
    weight: float = 1.0


class Norms:
    """A table of words. `table` maps a word to its mean ratings (valence, arousal, dominance), 1..9.

    Raises:
        ValueError: a rating is missing, or lies outside 1..9; the message names the word.
    """

    def __init__(self, table: Mapping[str, Sequence[float]]) -> None:
        self._table: dict[str, tuple[float, float, float]] = {}
        for word, ratings in table.items():
            if len(ratings) != 3 or not all(1.0 <= float(rating) <= 9.0 for rating in ratings):
                raise ValueError(
                    f"the norms of {word!r} are {list(ratings)!r}; three ratings from 1 to 9 are expected"
                )
            valence, arousal, dominance = ((float(rating) - 1.0) / 8.0 for rating in ratings)
            self._table.setdefault(word.lower(), (valence, arousal, dominance))
        # One table per model and process; captions repeat a few hundred words.
        self._found = lru_cache(maxsize=20_000)(self._find)

    @classmethod
    def read(cls, path: Path) -> Norms:
        """The norms.json that was made when the models were built.

        Raises:
            FileNotFoundError: the models are not built.
            ValueError: the file is not such a table.
        """
        if not path.exists():
            raise FileNotFoundError(f"{path} is not built; run: promenade models build")
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def __len__(self) -> int:
        return len(self._table)

    def find(self, word: str) -> WeightedWord | None:
        """The entry of a word or of its base form (plural, past, -ing, -ly, -er, British spelling), or None."""
        return self._found(word.lower())

    def words(self, text: str, phrases: Iterable[tuple[str, float]] = ()) -> list[WeightedWord]:
        """The known words of a text in order, repeats included, weighted by the phrases they belong to.

        A word weighs as the most confident phrase that holds it, any other word `LEAST_WEIGHT`; without phrases each
        word weighs 1. A word shortly after a negation ("no bright accents") is left out: its ratings say the opposite
        of what is meant, and the reversed ratings would say more than is meant.
        """
        confidences: dict[str, float] = {}
        given = False
        for phrase, confidence in phrases:
            given = True
            for token in _TOKEN.findall(phrase):
                entry = self.find(token)
                if entry is not None:
                    confidences[entry.word] = max(confidences.get(entry.word, 0.0), float(confidence))
        found: list[WeightedWord] = []
        reach = 0
        for token in _TOKEN.findall(text):
            lowered = token.lower()
            if lowered in _NEGATIONS or lowered.endswith(("n't", "n’t")):
                reach = 2
                continue
            if lowered == "only":  # "not only exciting" denies nothing
                reach = 0
            entry = self.find(lowered)
            if entry is not None and reach == 0:
                weight = max(confidences.get(entry.word, 0.0), LEAST_WEIGHT) if given else 1.0
                found.append(
                    entry
                    if weight == 1.0
                    else WeightedWord(entry.word, entry.valence, entry.arousal, entry.dominance, min(weight, 1.0))
                )
            reach = max(0, reach - 1)
        return found

    def _find(self, word: str) -> WeightedWord | None:
        for form in _forms(word):
            ratings = self._table.get(form)
            if ratings is not None:
                return WeightedWord(form, *ratings)
        return None


def mean(words: Sequence[WeightedWord]) -> tuple[float, float] | None:
    """Weighted mean (valence, arousal) in [0,1] of the words; None where there are none."""
    total = math.fsum(word.weight for word in words)
    if total <= 0.0:
        return None
    return (
        math.fsum(word.weight * word.valence for word in words) / total,
        math.fsum(word.weight * word.arousal for word in words) / total,
    )


def _forms(word: str) -> Iterable[str]:
    yield word
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            stem = word[: len(word) - len(ending)]
            if len(stem) + len(instead) < 3:
                continue
            yield stem + instead
            # "humming" -> "hum": a doubled consonant before the ending
            if not instead and len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "ls":
                yield stem[:-1]
