"""What an item feels like: RGB, valence and arousal of five parts, with the words and measurements that carried them.

Joins the readings of texts (`edge_models.emotion_text`) and of measurements (`edge_models.emotion_measured`); running
the text network and reading tensors are left to the models `score_emotion`, `va_text`, `va_picture`, `va_sound`.

The rule. A part with a measurement: both readings are standardised (each in its own domain), averaged with equal
weights, and standardised again over the product's own captions; movement, calm and nostalgia then get the mean and
spread of the fitting data (so that scores of either path lie on one scale), valence and arousal a logistic. A part
without measurement: the text's reading alone, as fitted.

What is read of a text. Our captions come with their meaningful phrases: these alone are read (`gist`), so that a
paraphrase, which carries the same phrases, gets the same score, and no joining word is taken for a feeling. A text
without phrases, or without a measurement beside it, is read as it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models import emotion_measured
from edge_models.emotion_text import Coefficients, Floats, Reading, read_texts, standardised_rgb
from edge_models.norms import Norms, WeightedWord
from edge_models.triton_model import Invalid

KINDS = {"artwork": "picture", "track": "sound"}
"""Kind of an item -> kind of its measurements."""
TEXT_WEIGHT = 0.5
"""Weight of the text's reading where there is a measurement too; the measurement has the rest."""
MOST_EVIDENCE = 12
FREE_TEXT = "text"
"""The domain of a text of unknown making, for `va_of_text`."""


@dataclass(frozen=True)
class Emotion:
    """RGB [n, 3] in 0..255, VA [n, 2] in [0,1], and for each part the evidence, strongest first, at most 12."""

    rgb: Floats
    va: Floats
    evidence: list[list[dict[str, Any]]]


def gist(text: str, phrases: Sequence[tuple[str, float]]) -> str:
    """What is read of a text that was measured: its phrases, the surest first; the text where there are none.

    A phrase that is part of another one is not said again. The order of the phrases given does not count.
    """
    said: list[str] = []
    for phrase, _ in sorted(phrases, key=lambda entry: (-entry[1], entry[0])):
        if phrase.strip() and not any(
            other != phrase and f" {phrase.lower()} " in f" {other.lower()} " for other, _ in phrases
        ):
            said.append(phrase.strip())
    return ", ".join(dict.fromkeys(said)) if said else text


def read_of(
    texts: Sequence[str],
    phrases: Sequence[Sequence[tuple[str, float]]],
    measurements: Sequence[Mapping[str, Any] | None],
) -> list[str]:
    """What is read of each text of an item, and what its vector must be of."""
    return [
        gist(text, each) if measurement else text
        for text, each, measurement in zip(texts, phrases, measurements, strict=True)
    ]


def score(
    texts: Sequence[str],
    phrases: Sequence[Sequence[tuple[str, float]]],
    measurements: Sequence[Mapping[str, Any] | None],
    kind: str,
    vectors: npt.NDArray[Any],
    norms: Norms,
    coefficients: Coefficients,
) -> Emotion:
    """Score the parts of one item (fragments 1-4, then the whole).

    Args:
        texts: one text a part; an empty one says nothing.
        phrases: for each part pairs of a phrase and its confidence in [0,1]; may be empty.
        measurements: for each part its measurement, or None (or an empty one) where nothing was measured.
        kind: "artwork" or "track".
        vectors: MiniLM vectors [n, 384] of what is read of the texts (`read_of`); rows of empty ones are not looked
            at.

    Raises:
        Invalid: an unknown kind, or a measurement that cannot be read or is of the other kind.
    """
    if kind not in KINDS:
        raise Invalid(f"KIND is {kind[:40]!r}; it must be one of {', '.join(KINDS)}")
    read = read_of(texts, phrases, measurements)
    words = [norms.words(text, each) for text, each in zip(read, phrases, strict=True)]
    given = np.array(vectors, dtype=float)
    given[[not text.strip() for text in read]] = np.nan
    domains = [kind if measurement else "description" for measurement in measurements]
    readings = {name: read_texts(words, given, coefficients, name) for name in dict.fromkeys(domains)}
    rgb, va, evidence = [], [], []
    for number, (name, measurement) in enumerate(zip(domains, measurements, strict=True)):
        reading = readings[name][number]
        if measurement:
            try:
                one = _fused(reading, measurement, kind, norms, coefficients)
            except Invalid as refusal:
                raise Invalid(f"measurement {number + 1} of {len(measurements)}: {refusal}") from None
        else:
            one = _text_alone(reading)
        rgb.append(one[0])
        va.append(one[1])
        evidence.append(strongest(one[2]))
    return Emotion(np.clip(np.array(rgb), 0.0, 255.0), np.array(va), evidence)


def sentences(text: str, most: int = 64) -> list[str]:
    """The first sentences of a text, at most `most`: what ends with a full stop, "!", "?" or "…" before a space."""
    return [each for each in re.split(r"(?<=[.!?…])\s+", text.strip()) if each][:most]


def free_words(norms: Norms, text: str) -> list[WeightedWord]:
    """The known words of a text without phrases; the farther from neutral, the more a word weighs (.05 to 1)."""
    return [
        replace(word, weight=min(1.0, max(0.05, 2.0 * math.hypot(word.valence - 0.55, word.arousal - 0.38))))
        for word in norms.words(text)
    ]


def va_of_text(text: str, vector: npt.NDArray[Any], norms: Norms, coefficients: Coefficients) -> tuple[float, float]:
    """(valence, arousal) in [0,1] of one text, half by its words' norms, half by its vector; (.5, .5) if empty.

    The vector is the mean of the vectors of its `sentences`: that of a whole paragraph hangs on how it opens.
    Standardised by the typical reading of our captions of both kinds, then a logistic, so that captions spread over
    the plane. More pleasant words give more valence, whatever the vector.
    """
    if not text.strip():
        return 0.5, 0.5
    reading = read_texts([free_words(norms, text)], np.array([vector], float), coefficients, FREE_TEXT)[0]
    return emotion_measured.squashed(float(reading.va[0])), emotion_measured.squashed(float(reading.va[1]))


def strongest(evidence: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most twelve entries, strongest first (ties by name); a word is among them where there is one."""

    def strength(entry: dict[str, Any]) -> float:
        effect = entry["effect"]
        return float(sum(abs(effect[key]) for key in "rgb") / 255 + abs(effect["valence"]) + abs(effect["arousal"]))

    ordered = sorted(evidence, key=lambda entry: (-strength(entry), entry["source"], entry["what"]))
    kept = ordered[:MOST_EVIDENCE]
    if not any(entry["source"] == "word" for entry in kept):
        kept[MOST_EVIDENCE - 1 :] = [entry for entry in ordered[MOST_EVIDENCE:] if entry["source"] == "word"][:1]
    return kept


def fused_standard(
    text_rgb: Floats, text_va: Floats, found: list[emotion_measured.Cue], weight: float = TEXT_WEIGHT
) -> tuple[Floats, Floats]:
    """Weighted mean of the standardised readings of text and measurement: RGB [3] and VA [2], not yet centred."""
    valence, arousal = emotion_measured.standardised(found)
    measured = np.array(emotion_measured.RGB_OF_VA) @ (valence, arousal)
    rgb = weight * text_rgb + (1 - weight) * np.clip(measured, -3, 3)
    return rgb, weight * np.clip(text_va, -3, 3) + (1 - weight) * np.array([valence, arousal])


def _text_alone(reading: Reading) -> tuple[Floats, Floats, list[dict[str, Any]]]:
    va = np.array([emotion_measured.squashed(float(value)) for value in reading.va])
    slope = emotion_measured.STEEPNESS / 4
    return reading.rgb, va, [_entry(each.source, each.what, each.rgb, slope * each.va) for each in reading.shares]


def _fused(
    reading: Reading, measurement: Mapping[str, Any], kind: str, norms: Norms, coefficients: Coefficients
) -> tuple[Floats, Floats, list[dict[str, Any]]]:
    if measurement.get("kind") != KINDS[kind]:
        raise Invalid(f'its "kind" is {str(measurement.get("kind"))[:40]!r}; for KIND {kind} it is "{KINDS[kind]}"')
    domain = coefficients.domains[kind]
    found = emotion_measured.cues(measurement, norms)
    rgb, va = fused_standard(standardised_rgb(reading.rgb, domain), reading.va, found)
    rgb = (rgb - domain.fused_rgb[0]) / domain.fused_rgb[1]
    va = (va - domain.fused_va[0]) / domain.fused_va[1]
    # Evidence says what each share adds to the final score, as long as no bound is reached.
    rgb_slope = coefficients.spread / domain.fused_rgb[1]
    va_slope = emotion_measured.STEEPNESS / 4 / domain.fused_va[1]
    rest = 1 - TEXT_WEIGHT
    evidence = [
        _entry(
            each.source,
            each.what,
            TEXT_WEIGHT * rgb_slope * each.rgb / domain.rgb[1],
            TEXT_WEIGHT * va_slope * each.va,
        )
        for each in reading.shares
    ]
    evidence += [
        _entry(
            "measurement",
            cue.what,
            rest * rgb_slope * np.array(cue.rgb),
            rest * va_slope * np.array([cue.valence, cue.arousal]),
        )
        for cue in found
    ]
    squashed = np.array([emotion_measured.squashed(float(value)) for value in np.clip(va, -3, 3)])
    return coefficients.mean + coefficients.spread * rgb, squashed, evidence


def _entry(source: str, what: str, rgb: Floats, va: Floats) -> dict[str, Any]:
    effect = dict(zip("rgb", (round(float(value), 2) for value in rgb), strict=True))
    effect["valence"], effect["arousal"] = (round(float(value), 4) for value in va)
    return {"source": source, "what": what, "effect": effect}
