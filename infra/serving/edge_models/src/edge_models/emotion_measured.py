"""What a measurement feels like: valence and arousal of a picture's colours and surface, of a sound's tempo and key.

Each measured quantity is a cue: how far it lies from what is typical (in units of the typical spread), times the
published or stated weight. Cues add up, so each one's share can be shown. Reading words is left to
`edge_models.emotion_text`, joining both to `edge_models.emotion`; measuring to `edge_models.picture` and `sound`.

Sources. Picture: Valdez & Mehrabian 1994, pleasure = .69 brightness + .22 saturation, arousal = -.31 brightness
+ .60 saturation (standardised values). They measured plain colour patches; for surfaces we add, with weights of our
own: warm colours please a little (.20), detail (.45), contrast (.25) and many hues (.15) arouse (complexity arouses:
Berlyne 1971). Sound: signs and order of importance after Eerola, Friberg & Bresin 2013 and Gabrielsson & Lindström
2010 (valence: mode first, then tempo; arousal: loudness, density, tempo, bright timbre); the numbers are ours.
RGB: movement is arousal with a little valence, calm is valence without arousal, nostalgia is low valence with low
arousal (Russell's circumplex 1980); the numbers are ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_models.norms import Norms
from edge_models.triton_model import Invalid

FARTHEST = 2.5
"""A cue counts at most as this many typical spreads: beyond it more changes no feeling."""
STEEPNESS = 1.1
"""Valence and arousal are logistic(STEEPNESS z), so one typical spread moves .5 to .75, two to .90."""
RGB_OF_VA = ((0.10, 1.00), (0.55, -0.85), (-0.95, -0.40))
"""Movement, calm and nostalgia (rows) from standardised valence and arousal (columns)."""

# Typical value and spread of each picture cue (over paintings and prints), then weights on valence and arousal.
_PICTURE_CUES = (
    ("brightness", ("light", "brightness"), 0.56, 0.17, 0.69, -0.31),
    ("saturation", ("colour", "saturation"), 0.38, 0.18, 0.22, 0.60),
    ("warmth", ("colour", "warmth"), 0.40, 0.45, 0.20, 0.10),
    ("contrast", ("light", "contrast"), 0.55, 0.19, 0.00, 0.25),
    ("variety of hues", ("colour", "variety"), 0.47, 0.19, 0.05, 0.15),
    ("detail", ("texture", "detail"), 0.60, 0.18, 0.00, 0.45),
)
_TAG_WEIGHT = 0.35
# What the name of a motif or an instrument is typically rated, and its spread, both in [0,1]: people like things and
# music better than the average word (.51).
_WORD_VALENCE, _WORD_AROUSAL = (0.60, 0.16), (0.40, 0.11)


@dataclass(frozen=True)
class Cue:
    """One measured quantity's share in the reading: what it is in words, and its standardised effects."""

    what: str
    valence: float
    arousal: float

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Standardised effects on movement, calm and nostalgia."""
        red, green, blue = (row[0] * self.valence + row[1] * self.arousal for row in RGB_OF_VA)
        return red, green, blue


def cues(measurement: Mapping[str, Any], norms: Norms) -> list[Cue]:
    """All cues of a measurement (of either kind). A group that is missing has no cue: it is taken as typical.

    Raises:
        Invalid: no "kind" of ours, or a value that is not a finite number.
    """
    kind = measurement.get("kind")
    if kind == "picture":
        found = _picture_cues(measurement)
    elif kind == "sound":
        found = _sound_cues(measurement)
    else:
        raise Invalid(f'the measurement\'s "kind" is {str(kind)[:40]!r}; it must be "picture" or "sound"')
    return [*found, *_tag_cues(measurement, norms)]


def standardised(found: list[Cue]) -> tuple[float, float]:
    """(valence, arousal) of the cues together, in typical spreads, each within -3..3; 0 is neutral."""
    valence = math.fsum(cue.valence for cue in found)
    arousal = math.fsum(cue.arousal for cue in found)
    return max(-3.0, min(3.0, valence)), max(-3.0, min(3.0, arousal))


def squashed(standard: float) -> float:
    """A standardised value as valence or arousal in (0,1): 0 gives .5."""
    return 1.0 / (1.0 + math.exp(-STEEPNESS * standard))


def va_of_measurement(measurement: Mapping[str, Any], kind: str, norms: Norms) -> tuple[float, float]:
    """(valence, arousal) in [0,1] of a measurement of this kind ("picture" or "sound"); neutral is (.5, .5).

    An empty measurement is neutral.

    Raises:
        Invalid: the measurement is of the other kind, or cannot be read.
    """
    if not measurement:
        return 0.5, 0.5
    if measurement.get("kind") != kind:
        raise Invalid(f'the measurement\'s "kind" is {str(measurement.get("kind"))[:40]!r}; it must be "{kind}"')
    valence, arousal = standardised(cues(measurement, norms))
    return squashed(valence), squashed(arousal)


def _picture_cues(measurement: Mapping[str, Any]) -> list[Cue]:
    # Scaled so that each sum has the spread 1 over independent cues.
    valence_scale = math.sqrt(sum(row[4] ** 2 for row in _PICTURE_CUES))
    arousal_scale = math.sqrt(sum(row[5] ** 2 for row in _PICTURE_CUES))
    found = []
    for name, (group, key), typical, spread, valence, arousal in _PICTURE_CUES:
        value = _number(measurement, group, key)
        if value is None:
            continue
        z = _bounded((value - typical) / spread)
        found.append(Cue(f"{name} {value:.2f}", valence * z / valence_scale, arousal * z / arousal_scale))
    return found


def _sound_cues(measurement: Mapping[str, Any]) -> list[Cue]:
    rows: list[tuple[str, float, float, float]] = []  # what, z, weight on valence, weight on arousal
    bpm, sure = _number(measurement, "tempo", "bpm"), _number(measurement, "tempo", "confidence")
    if bpm is not None and bpm > 0:
        trust = 1.0 if sure is None else min(1.0, max(0.0, sure) / 0.3)
        rows.append(
            (f"tempo {bpm:.0f} beats a minute", trust * _bounded(math.log2(max(bpm, 1.0) / 110.0) / 0.45), 0.30, 0.30)
        )
    mode, sure = _word(measurement, "key", "mode"), _number(measurement, "key", "confidence")
    if mode is not None:
        trust = min(1.0, max(0.0, sure if sure is not None else 0.0) / 0.5)
        # A key is either major or minor: the sign at full trust is what a spread of 1.3 is elsewhere.
        rows.append((f"{mode} key", (1.3 if mode == "major" else -1.3) * trust, 0.60, 0.05))
    level = _number(measurement, "loudness", "level")
    if level is not None:
        rows.append((f"loudness {level:.0f} LUFS", _bounded((level + 21.0) / 6.0), 0.05, 0.45))
    onsets = _number(measurement, "density", "onsets")
    if onsets is not None:
        z = _bounded(math.log2((max(0.0, onsets) + 0.3) / 3.3) / 0.8)
        rows.append((f"{onsets:.1f} onsets a second", z, 0.15, 0.45))
    centroid = _number(measurement, "brightness", "centroid")
    if centroid is not None and centroid > 0:
        rows.append(
            (f"brightness {centroid:.0f} Hz", _bounded(math.log2(max(centroid, 1.0) / 1200.0) / 0.7), 0.15, 0.30)
        )
    quiet = _number(measurement, "silence", None)
    if quiet is not None and quiet > 0.05:
        rows.append((f"silence {quiet:.0%}", _bounded((quiet - 0.05) / 0.2), -0.05, -0.20))
    return [Cue(what, valence * z / 0.72, arousal * z / 0.78) for what, z, valence, arousal in rows]


def _tag_cues(measurement: Mapping[str, Any], norms: Norms) -> list[Cue]:
    """What was recognised, by the norms of its name, weighted by confidence."""
    tags = measurement.get("tags") or []
    if not isinstance(tags, list):
        raise Invalid("the measurement's tags are not a list")
    found = []
    for tag in tags:
        if not isinstance(tag, Mapping) or not isinstance(tag.get("name"), str):
            raise Invalid("a tag of the measurement has no name")
        confidence = _finite(tag.get("confidence", 0.0), f"the confidence of the tag {tag['name'][:40]!r}")
        words = norms.words(tag["name"])
        if not words or confidence <= 0:
            continue
        valence = sum((word.valence - _WORD_VALENCE[0]) / _WORD_VALENCE[1] for word in words) / len(words)
        arousal = sum((word.arousal - _WORD_AROUSAL[0]) / _WORD_AROUSAL[1] for word in words) / len(words)
        weight = _TAG_WEIGHT * min(1.0, confidence)
        found.append(Cue(f"{tag['name']} ({confidence:.2f})", weight * _bounded(valence), weight * _bounded(arousal)))
    return found


def _bounded(z: float) -> float:
    return max(-FARTHEST, min(FARTHEST, z))


def _value(measurement: Mapping[str, Any], group: str, key: str | None) -> Any:
    holder = measurement.get(group)
    if key is None or holder is None:
        return holder
    if not isinstance(holder, Mapping):
        raise Invalid(f"{group} of the measurement is not an object")
    return holder.get(key)


def _number(measurement: Mapping[str, Any], group: str, key: str | None) -> float | None:
    value = _value(measurement, group, key)
    return None if value is None else _finite(value, group if key is None else f"{group}.{key}")


def _word(measurement: Mapping[str, Any], group: str, key: str) -> str | None:
    value = _value(measurement, group, key)
    if value is not None and value not in ("major", "minor"):
        raise Invalid(f'{group}.{key} of the measurement is {str(value)[:40]!r}; it must be "major" or "minor"')
    return value if isinstance(value, str) else None


def _finite(value: Any, name: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            number = float(value)
            if math.isfinite(number):
                return number
    raise Invalid(f"{name} of the measurement is {str(value)[:40]!r}; it must be a finite number")
