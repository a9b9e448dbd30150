"""Planted moods through the whole edge profile: made sad, lively and calm media, measured, captioned and scored.

The served models' own code answers, in this process (edge_models.local). The seeds are not those that the domains of
our captions were standardised on.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from edge_models.fit_captions import caption_picture, caption_sound
from edge_models.local import LocalModels

from tests.made_media import MOODS, made_picture, made_sound
from tests.serving_fixtures import REPOSITORY, complete_models, missing, texts

WANTED = {
    "measure_picture",
    "caption_picture",
    "measure_sound",
    "caption_sound",
    "score_emotion",
    "va_text",
    "embed_text",
}
pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(
        missing() is None and not set(complete_models()) >= WANTED,
        reason=f"the repository lacks {', '.join(sorted(WANTED - set(complete_models())))} (promenade models build)",
    ),
]
SEEDS = (7, 8)
KINDS = ("artwork", "track")
Scores = dict[tuple[str, str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def scores() -> Scores:
    """(kind, mood, seed) -> rgb [5,3], va [5,2], evidence, text's and medium's own VA of the whole."""
    pytest.importorskip("tokenizers", reason="text vectors need the package tokenizers")
    models = LocalModels(REPOSITORY)
    answers: Scores = {}
    for mood in MOODS:
        for seed in SEEDS:
            items = {
                "artwork": caption_picture(models, made_picture(mood, side=256, seed=seed)),
                "track": caption_sound(models, made_sound(mood, seconds=20.0, seed=seed)),
            }
            for kind, item in items.items():
                answers[kind, mood, seed] = scored(models, kind, item)
    return answers


def scored(models: LocalModels, kind: str, item: dict[str, Any]) -> dict[str, Any]:
    def five(values: list[Any]) -> np.ndarray:
        return texts(*[value if isinstance(value, str) else json.dumps(value) for value in values]).reshape(1, 5)

    answer = models.infer(
        "score_emotion",
        {
            "TEXTS": five(item["texts"]),
            "PHRASES": five(item["phrases"]),
            "MEASUREMENTS": five(item["measurements"]),
            "KIND": texts(kind),
        },
    )
    measured = texts(json.dumps(item["measurements"][4]))
    if kind == "artwork":
        medium = models.infer("va_picture", {"IMAGE": texts(b""), "MEASUREMENTS": measured})
    else:
        silence = {"SOUND": np.zeros((1, 1, 1), np.float32), "LENGTHS": np.zeros((1, 1), np.int32)}
        medium = models.infer("va_sound", {**silence, "MEASUREMENTS": measured})
    return {
        "rgb": answer["RGB"][0],
        "va": answer["VA"][0],
        "evidence": [json.loads(cell) for cell in answer["EVIDENCE"][0]],
        "text": models.infer("va_text", {"TEXT": texts(item["texts"][4])})["VA"][0],
        "medium": medium["VA"][0],
    }


def by_mood(scores: Scores, kind: str, seed: int, what: str, *place: int) -> dict[str, float]:
    return {mood: float(scores[kind, mood, seed][what][place]) for mood in MOODS}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_order_holds_in_rgb(scores: Scores, kind: str, seed: int) -> None:
    movement, calm, nostalgia = (by_mood(scores, kind, seed, "rgb", 4, channel) for channel in range(3))
    assert movement["lively"] > max(movement["sad"], movement["calm"]) + 40
    assert calm["calm"] > max(calm["sad"], calm["lively"]) + 20
    assert nostalgia["sad"] > max(nostalgia["calm"], nostalgia["lively"]) + 10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_order_holds_in_valence_and_arousal(scores: Scores, kind: str, seed: int) -> None:
    valence, arousal = (by_mood(scores, kind, seed, "va", 4, axis) for axis in range(2))
    assert valence["lively"] > 0.6 and arousal["lively"] > 0.6
    assert valence["sad"] < 0.4 and arousal["sad"] < 0.4
    assert valence["calm"] > valence["sad"] + 0.1 and arousal["calm"] < 0.4


@pytest.mark.parametrize("reading", ["text", "medium"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_and_medium_agree_on_who_is_lively_and_who_is_sad(scores: Scores, kind: str, reading: str) -> None:
    # Free text of both kinds shares one standard, so texts about tracks crowd towards the lively end of the logistic,
    # where a typical spread moves less than a tenth.
    margin = 0.05 if (kind, reading) == ("track", "text") else 0.1
    for seed in SEEDS:
        valence, arousal = (by_mood(scores, kind, seed, reading, axis) for axis in range(2))
        assert valence["lively"] > valence["sad"] + margin
        assert arousal["lively"] > max(arousal["sad"], arousal["calm"]) + margin


@pytest.mark.parametrize("kind", KINDS)
def test_no_channel_collapses(scores: Scores, kind: str) -> None:
    rows = [scores[kind, mood, seed] for mood in MOODS for seed in SEEDS]
    rgb = np.concatenate([row["rgb"] for row in rows])
    va = np.concatenate([row["va"] for row in rows])
    assert (rgb.std(axis=0) > 25).all(), f"spread of R, G, B: {rgb.std(axis=0).round(1)}"
    assert (va.std(axis=0) > 0.12).all(), f"spread of valence and arousal: {va.std(axis=0).round(3)}"


def test_every_part_has_evidence_of_words_and_measurements(scores: Scores) -> None:
    for row in scores.values():
        for evidence in row["evidence"]:
            assert {"word", "measurement"} <= {entry["source"] for entry in evidence}
