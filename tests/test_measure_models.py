"""The served models measure_picture and measure_sound, asked through the real model server: the contract.

What they measure is tested without a server in test_measure_picture.py and test_measure_sound.py.
"""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.made_media import MOODS, made_picture, made_sound
from tests.serving_fixtures import Served, texts

OUTPUTS = ["MEASUREMENTS", "VECTOR"]
RATE = 16_000


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(made_picture(mood, side=200, seed=2)) for mood in MOODS] + [
    png(np.full((1, 1, 3), 90, np.uint8)),
    png(np.full((40, 300, 3), (212, 44, 34), np.uint8)),
]


def sounds(*tracks: np.ndarray) -> dict[str, np.ndarray]:
    """Tracks of one window each, padded to the longest."""
    tensor = np.zeros((len(tracks), 1, max(len(track) for track in tracks)), np.float32)
    for row, track in enumerate(tracks):
        tensor[row, 0, : len(track)] = track
    return {"SOUND": tensor, "LENGTHS": np.array([[len(track)] for track in tracks], np.int32)}


TRACKS = [made_sound(mood, seconds=5.0, seed=2) for mood in MOODS] + [
    np.zeros(3 * RATE, np.float32),
    made_sound("lively", seconds=5.0, seed=3)[: RATE // 10],
]


def parsed(answer: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [json.loads(cell) for cell in answer["MEASUREMENTS"].reshape(-1)]


def same(one: Any, two: Any, tolerance: float) -> bool:
    """Whether two measurements agree; the networks' sums may differ in the last digits between batch sizes."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key], tolerance) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(same(a, b, tolerance) for a, b in zip(one, two, strict=True))
    return bool(one == pytest.approx(two, abs=tolerance)) if isinstance(one, float) else bool(one == two)


def test_measure_picture_has_the_shapes_and_types_of_the_contract(running_triton: Served) -> None:
    answer = running_triton.infer("measure_picture", {"IMAGE": texts(*PICTURES)}, OUTPUTS)
    assert answer["MEASUREMENTS"].shape == (5, 1)
    assert answer["VECTOR"].shape == (5, 1280) and answer["VECTOR"].dtype == np.float32
    assert np.isfinite(answer["VECTOR"]).all() and (np.abs(answer["VECTOR"]).sum(axis=1) > 0).all()
    keys = {"kind", "version", "width", "height", "palette", "light", "colour", "texture", "composition", "tags"}
    for measured in parsed(answer):
        assert set(measured) == keys and measured["kind"] == "picture"
        assert 1 <= len(measured["palette"]) <= 6 and len(measured["tags"]) <= 8


def test_measure_sound_has_the_shapes_and_types_of_the_contract(running_triton: Served) -> None:
    answer = running_triton.infer("measure_sound", sounds(*TRACKS), OUTPUTS)
    assert answer["MEASUREMENTS"].shape == (5, 1)
    assert answer["VECTOR"].shape == (5, 400) and answer["VECTOR"].dtype == np.float32
    assert np.isfinite(answer["VECTOR"]).all()
    keys = {"kind", "version", "seconds", "heard_seconds", "tempo", "key", "loudness", "brightness", "density"}
    for measured in parsed(answer):
        assert set(measured) == keys | {"silence", "tags"} and measured["kind"] == "sound"
        assert len(measured["tags"]) <= 10
    assert parsed(answer)[3]["tags"] == [] and parsed(answer)[4]["seconds"] == 0.1


def test_a_batch_of_one_picture_equals_a_batch_of_many(running_triton: Served) -> None:
    together = running_triton.infer("measure_picture", {"IMAGE": texts(*PICTURES)}, OUTPUTS)
    for row, picture in enumerate(PICTURES):
        alone = running_triton.infer("measure_picture", {"IMAGE": texts(picture)}, OUTPUTS)
        assert same(parsed(alone)[0], parsed(together)[row], 0.002)
        assert np.allclose(alone["VECTOR"][0], together["VECTOR"][row], atol=1e-3)


def test_a_batch_of_one_sound_equals_a_batch_of_many(running_triton: Served) -> None:
    together = running_triton.infer("measure_sound", sounds(*TRACKS), OUTPUTS)
    for row, track in enumerate(TRACKS):
        alone = running_triton.infer("measure_sound", sounds(track), OUTPUTS)
        assert same(parsed(alone)[0], parsed(together)[row], 0.002)
        assert np.allclose(alone["VECTOR"][0], together["VECTOR"][row], atol=1e-3)


def test_empty_windows_and_padding_change_nothing(running_triton: Served) -> None:
    track = TRACKS[1]
    padded = np.zeros((1, 3, len(track) + 999), np.float32)
    padded[0, 0, : len(track)] = track
    padded[0, 0, len(track) :] = 0.7  # behind LENGTHS: not valid
    lengths = np.array([[len(track), 0, 0]], np.int32)
    plain = running_triton.infer("measure_sound", sounds(track), OUTPUTS)
    answer = running_triton.infer("measure_sound", {"SOUND": padded, "LENGTHS": lengths}, OUTPUTS)
    assert parsed(answer) == parsed(plain) and np.array_equal(answer["VECTOR"], plain["VECTOR"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "invalid: the picture is empty"),
        (b"\x89PNG\r\n\x1a\n and no more", "invalid: the picture cannot be decoded"),
        (PICTURES[0][: len(PICTURES[0]) // 2], "invalid: the picture cannot be decoded"),
        (png(np.zeros((2, 1025, 3), np.uint8)), "invalid: the picture is 1025 x 2; send at most 1024"),
    ],
)
def test_a_bad_picture_is_refused_in_plain_words(running_triton: Served, data: bytes, reason: str) -> None:
    with pytest.raises(InferenceServerException, match=reason):
        running_triton.infer("measure_picture", {"IMAGE": texts(data)}, OUTPUTS)
    with pytest.raises(InferenceServerException, match=r"invalid: row 1 of 2: the picture"):
        running_triton.infer("measure_picture", {"IMAGE": texts(PICTURES[0], data)}, OUTPUTS)


def bad_sound(value: float, length: int) -> dict[str, np.ndarray]:
    tensor = np.full((1, 1, 1600), 0.1, np.float32)
    tensor[0, 0, 7] = value
    return {"SOUND": tensor, "LENGTHS": np.array([[length]], np.int32)}


@pytest.mark.parametrize(
    ("value", "length", "reason"),
    [
        (np.nan, 1600, "invalid: the sound holds samples that are not finite"),
        (np.inf, 1600, "invalid: the sound holds samples that are not finite"),
        (0.1, 1601, "invalid: LENGTHS must lie between 0 and the 1600"),
        (0.1, -5, "invalid: LENGTHS must lie between 0"),
        (0.1, 0, "invalid: the sound has no valid sample"),
    ],
)
def test_a_bad_sound_is_refused_in_plain_words(
    running_triton: Served, value: float, length: int, reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=reason):
        running_triton.infer("measure_sound", bad_sound(value, length), OUTPUTS)


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_a_bad_request_hurts_no_other(running_triton: Served, kind: str) -> None:
    """Good and bad ones at once: the server may put them into one batch."""
    good = {"IMAGE": texts(PICTURES[1])} if kind == "picture" else sounds(TRACKS[4])
    bad = {"IMAGE": texts(b"broken")} if kind == "picture" else bad_sound(np.nan, 1600)
    expected = parsed(running_triton.infer(f"measure_{kind}", good, OUTPUTS))
    outcomes: list[Any] = [None] * 10

    def ask(number: int) -> None:
        try:
            outcomes[number] = parsed(running_triton.infer(f"measure_{kind}", bad if number % 2 else good, OUTPUTS))
        except InferenceServerException as error:
            outcomes[number] = str(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, outcome in enumerate(outcomes):
        if number % 2:
            assert "invalid: " in outcome
        else:
            assert same(outcome, expected, 0.002), outcome
