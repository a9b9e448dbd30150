"""score_emotion: RGB, valence and arousal of an item's five parts, with the words and measurements that carried them.

Reads tensors, has the vectors made by `embed_text`, and answers with `edge_models.emotion`, where the rule is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from edge_models import emotion
from edge_models.emotion_text import DIMENSION, Coefficients
from edge_models.norms import Norms
from edge_models.triton_model import Array, Invalid, Row, RowModel, each, parsed, text

PARTS = 5


@dataclass(frozen=True)
class Item:
    """One row, read."""

    texts: list[str]
    phrases: list[list[tuple[str, float]]]
    measurements: list[dict[str, Any] | None]
    kind: str

    @property
    def read(self) -> list[str]:
        """What is read of each text."""
        return emotion.read_of(self.texts, self.phrases, self.measurements)


class TritonPythonModel(RowModel):
    """TEXTS, PHRASES, MEASUREMENTS BYTES[5], KIND BYTES[1] -> RGB FP32[5,3], VA FP32[5,2], EVIDENCE BYTES[5].

    RGB lies in 0..255, VA in [0,1]. PHRASES is JSON [[phrase, confidence], ...], MEASUREMENTS the JSON of
    measure_picture or measure_sound; both may be empty, null or {}. Of a text with a measurement and phrases only the
    phrases are read (`emotion.gist`), so that a paraphrase scores the same; any other text is read as it stands.
    EVIDENCE is JSON, a list of at most twelve {"source", "what", "effect": {"r", "g", "b", "valence", "arousal"}},
    strongest first.
    """

    inputs = ("TEXTS", "PHRASES", "MEASUREMENTS", "KIND")
    outputs = {"RGB": np.float32, "VA": np.float32, "EVIDENCE": object}  # noqa: RUF012 - ClassVar in the base

    def load(self) -> None:
        """Read the word norms and the fitted numbers."""
        self._norms = Norms.read(self.folder / "norms.json")
        self._coefficients = Coefficients.read()

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """Score all good rows; their texts are embedded in one call."""
        items = each(_read, rows)
        said = sorted({each for item in items if isinstance(item, Item) for each in item.read if each.strip()})
        vectors = dict(zip(said, self._embedded(said), strict=True))
        nothing = np.zeros(DIMENSION)
        answers: list[Row | Invalid] = []
        for item in items:
            if isinstance(item, Invalid):
                answers.append(item)
                continue
            try:
                scored = emotion.score(
                    item.texts,
                    item.phrases,
                    item.measurements,
                    item.kind,
                    np.array([vectors.get(each, nothing) for each in item.read]),
                    self._norms,
                    self._coefficients,
                )
            except Invalid as refusal:
                answers.append(refusal)
                continue
            evidence = [json.dumps(each, ensure_ascii=False) for each in scored.evidence]
            answers.append({"RGB": scored.rgb, "VA": scored.va, "EVIDENCE": evidence})  # type: ignore[dict-item]
        return answers

    def _embedded(self, texts: Sequence[str]) -> Sequence[Array]:
        """One vector a text, in calls of at most 64 texts (embed_text's largest batch)."""
        vectors: list[Array] = []
        for start in range(0, len(texts), 64):
            tensor = np.array([[each.encode("utf-8")] for each in texts[start : start + 64]], dtype=object)
            vectors.extend(self.call("embed_text", {"TEXT": tensor}, ["VECTOR"])["VECTOR"])
        return vectors


def _read(row: Row) -> Item:
    for name in ("TEXTS", "PHRASES", "MEASUREMENTS"):
        if row[name].size != PARTS:
            raise Invalid(f"{name} holds {row[name].size} values; five are expected, fragments 1-4 and the whole")
    return Item(
        [text(row["TEXTS"][part : part + 1], f"TEXTS[{part}]") for part in range(PARTS)],
        [_phrases(row["PHRASES"][part : part + 1], f"PHRASES[{part}]") for part in range(PARTS)],
        [_measurement(row["MEASUREMENTS"][part : part + 1], f"MEASUREMENTS[{part}]") for part in range(PARTS)],
        text(row["KIND"], "KIND"),
    )


def _phrases(value: Array, name: str) -> list[tuple[str, float]]:
    given = parsed(value, name) if text(value, name).strip() else None
    if given is None or given == {}:
        return []
    if not isinstance(given, list):
        raise Invalid(f"{name} is not a list of [phrase, confidence]")
    phrases = []
    for pair in given:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise Invalid(f"{name} is not a list of [phrase, confidence]")
        confidence = pair[1]
        # Compared before it is made a float: JSON may hold integers that no float can.
        if isinstance(confidence, bool) or not isinstance(confidence, int | float) or confidence != confidence:
            raise Invalid(f"{name}: the confidence of {pair[0][:40]!r} is not a number")
        phrases.append((pair[0], float(min(1, max(0, confidence)))))
    return phrases


def _measurement(value: Array, name: str) -> dict[str, Any] | None:
    given = parsed(value, name) if text(value, name, 1 << 20).strip() else None
    if given is None:
        return None
    if not isinstance(given, dict):
        raise Invalid(f"{name} is not a JSON object")
    return given or None
