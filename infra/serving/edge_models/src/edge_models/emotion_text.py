"""What texts feel like: standardised movement, calm and nostalgia, and valence and arousal, from words and vectors.

Two linear readings, so that each word's share is known exactly:
* RGB: a ridge regression (Hoerl & Kennard 1970) fitted on texts that a large language model had scored after CMEAN
  (R movement, G calm, B nostalgia). Its features: the text's MiniLM vector, the mean vector of the item's five texts,
  and the means of eleven functions of the words' norms, of the text and of the five.
* Valence and arousal: the mean norms of the words (Warriner et al. 2013), and a ridge from MiniLM vectors of single
  words to the same norms, so that words outside the table and whole phrases count too.

Texts of different making differ in style, which is no feeling: a reading is standardised by the typical reading and
spread of its domain (a description by a language model, a caption of an artwork or of a track). Fitting is left to
`edge_models.fit`, measurements to `edge_models.emotion_measured`, joining both to `edge_models.emotion`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models.norms import WeightedWord

Floats = npt.NDArray[np.float64]

DIMENSION = 384
WORD_FEATURES = 11
PRIOR_WEIGHT = 8.0
"""A text's mean starts from this weight of typical words, so that one word alone does not make an extreme text."""
COEFFICIENTS = Path(__file__).with_name("emotion_coefficients.json")


@dataclass(frozen=True)
class Domain:
    """The typical reading of texts of one making (centre) and its spread: RGB [3], words' and vector's VA [2]."""

    rgb: tuple[Floats, Floats]
    words_va: tuple[Floats, Floats]
    vector_va: tuple[Floats, Floats]
    va_spread: Floats
    fused_rgb: tuple[Floats, Floats]
    fused_va: tuple[Floats, Floats]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Domain:
        """From the coefficients file."""

        def pair(name: str) -> tuple[Floats, Floats]:
            return np.array(fields[name]["centre"], float), np.array(fields[name]["spread"], float)

        return cls(
            pair("rgb"),
            pair("words_va"),
            pair("vector_va"),
            np.array(fields["va_spread"], float),
            pair("fused_rgb"),
            pair("fused_va"),
        )


@dataclass(frozen=True)
class Coefficients:
    """The fitted numbers. Matrices map features (rows) to RGB 0..255 or to VA 0..1 (columns)."""

    version: str
    mean: Floats  # RGB [3] of the data: the reading of a text that says nothing
    spread: Floats  # RGB [3], standard deviation of the data: the unit of a standardised reading
    vector: Floats  # [384, 3]
    context_vector: Floats  # [384, 3]
    words: Floats  # [11, 3]
    context_words: Floats  # [11, 3]
    vector_centre: Floats  # [3]: the typical vector times `vector`
    context_centre: Floats  # [3]
    word_centre: Floats  # [11]
    va_vector: Floats  # [384, 2]
    va_constant: Floats  # [2]
    domains: Mapping[str, Domain]

    @classmethod
    def read(cls, path: Path = COEFFICIENTS) -> Coefficients:
        """The committed file, or another one of the same form.

        Raises:
            ValueError: the file does not hold what is expected; fit again.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            rgb, va = fields["rgb"], fields["valence_arousal"]
            made = cls(
                version=str(fields["version"]),
                **{name: np.array(rgb[name], float) for name in _RGB_SHAPES},
                va_vector=np.array(va["vector"], float),
                va_constant=np.array(va["constant"], float),
                domains={name: Domain.of(domain) for name, domain in fields["domains"].items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not hold the coefficients ({error}); fit them again: python -m edge_models.fit"
            ) from error
        shapes = {**_RGB_SHAPES, "va_vector": (DIMENSION, 2), "va_constant": (2,)}
        for name, shape in shapes.items():
            values = getattr(made, name)
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"{path}: {name} has the shape {values.shape}, expected {shape} finite numbers")
        return made


_RGB_SHAPES: dict[str, tuple[int, ...]] = {
    "mean": (3,),
    "spread": (3,),
    "vector": (DIMENSION, 3),
    "context_vector": (DIMENSION, 3),
    "words": (WORD_FEATURES, 3),
    "context_words": (WORD_FEATURES, 3),
    "vector_centre": (3,),
    "context_centre": (3,),
    "word_centre": (WORD_FEATURES,),
}


@dataclass(frozen=True)
class Share:
    """What one word, or the text as a whole, adds: RGB in 0..255 units, VA standardised."""

    source: str
    what: str
    rgb: Floats
    va: Floats


@dataclass(frozen=True)
class Reading:
    """One text's reading: RGB [3] (unbounded, about 0..255), standardised VA [2], and the shares they sum up."""

    rgb: Floats
    va: Floats
    shares: list[Share]


def word_features(words: Sequence[WeightedWord]) -> Floats:
    """Eleven functions of each word's norms [n, 11], whose weighted means are the features of a text."""
    table = np.array([(word.valence, word.arousal, word.dominance) for word in words], float).reshape(-1, 3)
    valence, arousal, dominance = table[:, 0] - 0.5, table[:, 1] - 0.4, table[:, 2] - 0.5
    pleasant, unpleasant = np.maximum(valence, 0), np.maximum(-valence, 0)
    excited, quiet = np.maximum(arousal, 0), np.maximum(-arousal, 0)
    return np.stack(
        [
            *(valence, arousal, dominance, valence**2, arousal**2, valence * arousal),
            *(4 * pleasant * excited, 4 * unpleasant * quiet, 4 * pleasant * quiet, excited, unpleasant),
        ],
        axis=1,
    )


def weights_of(words: Sequence[WeightedWord]) -> Floats:
    """Each word's part in its text's mean [n]; with the prior weight of typical words they sum to less than 1."""
    weights: Floats = np.array([word.weight for word in words], float)
    return weights / float(weights.sum() + PRIOR_WEIGHT)


def mean_word_features(words: Sequence[WeightedWord], centre: Floats) -> Floats:
    """Weighted mean of the word features [11], drawn towards `centre` by the prior weight; no words: the centre."""
    if not words:
        return centre.copy()
    return centre + weights_of(words) @ (word_features(words) - centre)


def raw_rgb(words: Sequence[Sequence[WeightedWord]], vectors: Floats, coefficients: Coefficients) -> Floats:
    """RGB readings [n, 3] of the texts of one item, about 0..255, not bounded, before any domain.

    `vectors` is [n, 384] with rows of NaN for empty texts, which count as typical.
    """
    return np.array([reading.rgb for reading in read_texts(words, vectors, coefficients, "description")])


def read_texts(
    words: Sequence[Sequence[WeightedWord]], vectors: Floats, coefficients: Coefficients, domain: str
) -> list[Reading]:
    """Read the texts of one item together: known words of each, and vectors [n, 384] (NaN rows: empty text).

    RGB is before the domain (see `standardised_rgb`), VA standardised by it.
    """
    c, d = coefficients, coefficients.domains[domain]
    said: npt.NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
    zero = np.zeros(3)
    means = [mean_word_features(each, c.word_centre) for each in words]
    together_words = (np.mean(means, axis=0) - c.word_centre) @ c.context_words
    together = vectors[said].mean(axis=0) @ c.context_vector - c.context_centre if said.any() else zero
    readings = []
    for number, each in enumerate(words):
        shares = _word_shares(each, c, d)
        if said[number]:
            va = (vectors[number] @ c.va_vector + c.va_constant - d.vector_va[0]) / d.vector_va[1]
            shares.append(
                Share(
                    "vector",
                    "the text as a whole",
                    vectors[number] @ c.vector - c.vector_centre,
                    0.5 * np.clip(va, -3, 3) / d.va_spread,
                )
            )
        if said.any():
            shares.append(Share("vector", "the item's five texts together", together + together_words, np.zeros(2)))
        rgb = c.mean + np.sum([share.rgb for share in shares], axis=0) if shares else c.mean.copy()
        va = np.sum([share.va for share in shares], axis=0) if shares else np.zeros(2)
        readings.append(Reading(rgb, va, shares))
    return readings


def standardised_rgb(rgb: Floats, domain: Domain) -> Floats:
    """A reading (RGB [..., 3]) in typical spreads of its domain, within -3..3."""
    return np.clip((rgb - domain.rgb[0]) / domain.rgb[1], -3.0, 3.0)


def _word_shares(words: Sequence[WeightedWord], c: Coefficients, d: Domain) -> list[Share]:
    if not words:
        return []
    weights = weights_of(words)
    rgb = weights[:, None] * ((word_features(words) - c.word_centre) @ c.words)
    table = np.array([(word.valence, word.arousal) for word in words], float)
    # The words' share in valence and arousal, before its bound: 0.5 of the standardised reading.
    va = 0.5 * weights[:, None] * (table - d.words_va[0]) / d.words_va[1] / d.va_spread
    sums: dict[str, tuple[Floats, Floats]] = {}
    for word, one_rgb, one_va in zip(words, rgb, va, strict=True):
        before = sums.get(word.word, (np.zeros(3), np.zeros(2)))
        sums[word.word] = before[0] + one_rgb, before[1] + one_va
    return [Share("word", word, *both) for word, both in sums.items()]
