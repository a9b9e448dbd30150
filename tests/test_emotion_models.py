"""The served models score_emotion, va_picture, va_sound and va_text, asked through the real model server."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.serving_fixtures import Served, texts

SAD = "A slow and gloomy lament: a lonely cello mourns in a minor key."
LIVELY = "A fast and joyful dance with loud drums, full of energy and excitement."
CALM = "A calm and gentle piece, soft, peaceful and serene like a quiet lake."
PICTURE = {
    "kind": "picture",
    "version": "1",
    "light": {"brightness": 0.3, "contrast": 0.6},
    "colour": {"saturation": 0.2, "warmth": -0.5, "variety": 0.3, "monochrome": False},
    "texture": {"detail": 0.4, "roughness": 0.4, "direction": "none"},
    "tags": [{"name": "shore", "confidence": 0.5}],
}
SOUND = {
    "kind": "sound",
    "version": "1",
    "tempo": {"bpm": 140.0, "confidence": 0.6},
    "key": {"tonic": "D", "mode": "major", "confidence": 0.7},
    "loudness": {"level": -12.0, "range": 6.0},
    "brightness": {"centroid": 2000.0},
    "density": {"onsets": 5.0},
    "silence": 0.0,
    "tags": [{"name": "dance", "confidence": 0.4}],
}
OUTPUTS = ["RGB", "VA", "EVIDENCE"]


def request(*items: dict[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of score_emotion for these items; an item may set texts, phrases, measurements, kind."""

    def rows(name: str, fallback: Any) -> np.ndarray:
        tensor = np.empty((len(items), 5), dtype=object)
        for row, item in enumerate(items):
            values = item.get(name, fallback)
            for part in range(5):
                value = values[part] if isinstance(values, list) else values
                tensor[row, part] = value if isinstance(value, bytes) else str(value).encode()
        return tensor

    return {
        "TEXTS": rows("texts", LIVELY),
        "PHRASES": rows("phrases", "[]"),
        "MEASUREMENTS": rows("measurements", ""),
        "KIND": texts(*[item.get("kind", "track") for item in items]),
    }


def score(served: Served, *items: dict[str, Any]) -> dict[str, np.ndarray]:
    return served.infer("score_emotion", request(*items), OUTPUTS)


ITEMS: list[dict[str, Any]] = [
    {"texts": [SAD, CALM, LIVELY, SAD, SAD]},
    {"texts": [LIVELY] * 5, "phrases": json.dumps([["joyful dance", 0.9]]), "measurements": json.dumps(SOUND)},
    {"texts": CALM, "kind": "artwork", "measurements": json.dumps(PICTURE)},
    {"texts": ["", SAD, "", "…", "Ünïcode 😀 words"], "measurements": "null"},
    {"texts": "", "phrases": "", "measurements": "{}"},
]


def test_scores_have_the_shapes_types_and_ranges_of_the_contract(running_triton: Served) -> None:
    answer = score(running_triton, *ITEMS)
    assert answer["RGB"].shape == (5, 5, 3) and answer["RGB"].dtype == np.float32
    assert answer["VA"].shape == (5, 5, 2) and answer["VA"].dtype == np.float32
    assert answer["EVIDENCE"].shape == (5, 5)
    assert np.isfinite(answer["RGB"]).all() and answer["RGB"].min() >= 0 and answer["RGB"].max() <= 255
    assert np.isfinite(answer["VA"]).all() and answer["VA"].min() >= 0 and answer["VA"].max() <= 1
    for cell in answer["EVIDENCE"].reshape(-1):
        evidence = json.loads(cell)
        assert len(evidence) <= 12
        for entry in evidence:
            assert entry["source"] in ("word", "measurement", "vector") and entry["what"]
            assert set(entry["effect"]) == {"r", "g", "b", "valence", "arousal"}


def test_evidence_names_words_and_measurements(running_triton: Served) -> None:
    answer = score(running_triton, ITEMS[1])
    found = {(entry["source"], entry["what"]) for entry in json.loads(answer["EVIDENCE"][0, 4])}
    assert ("measurement", "tempo 140 beats a minute") in found
    assert any(source == "word" for source, _ in found)


def test_a_batch_of_one_equals_a_batch_of_many(running_triton: Served) -> None:
    together = score(running_triton, *ITEMS)
    for number, item in enumerate(ITEMS):
        alone = score(running_triton, item)
        assert np.allclose(alone["RGB"][0], together["RGB"][number], atol=0.02)
        assert np.allclose(alone["VA"][0], together["VA"][number], atol=1e-4)


def test_moods_in_words_alone_are_read(running_triton: Served) -> None:
    sad, lively, calm = score(running_triton, {"texts": SAD}, {"texts": LIVELY}, {"texts": CALM})["RGB"][:, 4]
    assert lively[0] > max(sad[0], calm[0])
    assert calm[1] > lively[1] and sad[2] > lively[2]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"kind": "poem"}, "KIND is 'poem'"),
        ({"texts": [b"\xff\xfe", "", "", "", ""]}, r"TEXTS\[0\] is not UTF-8"),
        ({"phrases": ["[", "", "", "", ""]}, r"PHRASES\[0\] is not JSON"),
        ({"phrases": '[["joy"]]'}, r"PHRASES\[0\] is not a list of \[phrase, confidence\]"),
        ({"phrases": '[["joy", "much"]]'}, "confidence of 'joy' is not a number"),
        ({"measurements": ["", "", "{oops", "", ""]}, r"MEASUREMENTS\[2\] is not JSON"),
        ({"measurements": "[1]"}, r"MEASUREMENTS\[0\] is not a JSON object"),
        ({"measurements": json.dumps(PICTURE)}, 'for KIND track it is "sound"'),
        ({"measurements": '{"kind": "sound", "tempo": {"bpm": NaN}}'}, "tempo.bpm"),
        ({"measurements": "[" * 100_000}, "MEASUREMENTS"),
    ],
)
def test_a_bad_item_is_refused_in_plain_words(running_triton: Served, item: dict[str, Any], reason: str) -> None:
    with pytest.raises(InferenceServerException, match=rf"invalid: (.|\n)*{reason}"):
        score(running_triton, item)


def test_a_bad_item_hurts_no_other_request(running_triton: Served) -> None:
    expected = score(running_triton, ITEMS[0])["RGB"]
    refused: list[bool] = []
    same: list[bool] = []

    def ask(bad: bool) -> None:
        try:
            answer = score(running_triton, {"kind": "poem"} if bad else ITEMS[0])
            same.append(np.allclose(answer["RGB"], expected, atol=0.02))
        except InferenceServerException as error:
            refused.append("invalid: " in str(error))

    threads = [threading.Thread(target=ask, args=(number % 3 == 0,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == [True] * 4 and same == [True] * 8


def test_wrong_tensors_are_refused(running_triton: Served) -> None:
    good = request({})
    with pytest.raises(InferenceServerException):
        running_triton.infer("score_emotion", {**good, "TEXTS": good["TEXTS"][:, :4]}, OUTPUTS)
    with pytest.raises(InferenceServerException):
        running_triton.infer("score_emotion", {**good, "KIND": np.zeros((1, 1), np.float32)}, OUTPUTS)
    with pytest.raises(InferenceServerException):
        running_triton.infer("va_text", {"TEXT": np.zeros((1, 1), np.int32)}, ["VA"])


def va(served: Served, model: str, *values: str | bytes) -> np.ndarray:
    count = len(values)
    if model == "va_text":
        inputs = {"TEXT": texts(*values)}
    elif model == "va_picture":
        inputs = {"IMAGE": texts(*[b""] * count), "MEASUREMENTS": texts(*values)}
    else:
        silence = {"SOUND": np.zeros((count, 1, 1), np.float32), "LENGTHS": np.zeros((count, 1), np.int32)}
        inputs = {**silence, "MEASUREMENTS": texts(*values)}
    answer: np.ndarray = served.infer(model, inputs, ["VA"])["VA"]
    return answer


GOOD = {
    "va_text": [SAD, LIVELY, CALM, "", "Ünïcode 😀"],
    "va_picture": [json.dumps(PICTURE), "", "{}", "null", '{"kind": "picture"}'],
    "va_sound": [json.dumps(SOUND), "", "{}", "null", '{"kind": "sound"}'],
}


@pytest.mark.parametrize("model", sorted(GOOD))
def test_a_point_lies_in_the_plane_alone_and_in_a_batch(running_triton: Served, model: str) -> None:
    together = va(running_triton, model, *GOOD[model])
    assert together.shape == (5, 2) and together.dtype == np.float32
    assert np.isfinite(together).all() and together.min() >= 0 and together.max() <= 1
    for number, value in enumerate(GOOD[model]):
        assert np.allclose(va(running_triton, model, value)[0], together[number], atol=1e-4)


@pytest.mark.parametrize("model", sorted(GOOD))
def test_nothing_said_is_neutral(running_triton: Served, model: str) -> None:
    assert va(running_triton, model, "").tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("model", "value", "reason"),
    [
        ("va_text", b"\xff", "TEXT is not UTF-8"),
        ("va_text", "long " * 20_000, "at most"),
        ("va_picture", "{", "MEASUREMENTS is not JSON"),
        ("va_picture", "[]", "not a JSON object"),
        ("va_picture", json.dumps(SOUND), 'must be "picture"'),
        ("va_sound", json.dumps(PICTURE), 'must be "sound"'),
        ("va_sound", '{"kind": "sound", "key": {"mode": "dorian"}}', "key.mode"),
    ],
)
def test_a_bad_value_is_refused_in_plain_words(running_triton: Served, model: str, value: Any, reason: str) -> None:
    with pytest.raises(InferenceServerException, match=f"invalid: .*{reason}"):
        va(running_triton, model, value)


def test_a_dark_grey_picture_feels_lower_than_a_fast_major_dance(running_triton: Served) -> None:
    picture = va(running_triton, "va_picture", json.dumps(PICTURE))[0]
    dance = va(running_triton, "va_sound", json.dumps(SOUND))[0]
    assert (picture < 0.4).all() and (dance > 0.7).all()
