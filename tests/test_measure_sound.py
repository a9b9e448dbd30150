"""Known sounds give the measurements that anyone would expect of them, without networks or server.

The taggers are handed in: here ones that answer something known of every patch. The real networks are asked in
test_measure_models.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from edge_models import sound
from edge_models.sound_names import MSD_LABELS, MTT_LABELS
from edge_models.triton_model import Invalid

Samples = npt.NDArray[np.float32]
RATE = sound.RATE


def sine(hertz: float, seconds: float = 4.0, amplitude: float = 0.5) -> Samples:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds: float = 8.0, amplitude: float = 0.2) -> Samples:
    return (amplitude * np.random.default_rng(3).standard_normal(int(seconds * RATE))).astype(np.float32)


def clicks(beats: float, seconds: float = 20.0) -> Samples:
    track = np.zeros(int(seconds * RATE), np.float32)
    click = (np.random.default_rng(1).standard_normal(400) * np.exp(-np.arange(400) / 60)).astype(np.float32) * 0.5
    for at in np.arange(0.3, seconds - 0.1, 60 / beats):
        track[int(at * RATE) : int(at * RATE) + 400] += click
    return track


def scale(degrees: Sequence[int], tonic: float) -> Samples:
    """Degrees (semitones over the tonic) as decaying tones of four partials, a quarter of a second each."""
    at = np.arange(RATE // 4) / RATE
    notes = [
        sum(np.sin(2 * np.pi * tonic * 2 ** (d / 12) * n * at) / n for n in (1, 2, 3, 4)) * np.exp(-at * 4)
        for d in degrees
    ]
    return (0.2 * np.concatenate(notes)).astype(np.float32)


def no_tags(patches: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.zeros((len(patches), 50)), np.zeros((len(patches), 200))


def loud_patches(patches: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Tags and embeddings 1 for patches in which anything sounds, 0 for silent ones."""
    heard = (patches.max(axis=(1, 2)) > 0.01).astype(float)[:, None]
    return np.repeat(heard, 50, axis=1) * 0.8, np.repeat(heard, 200, axis=1)


def measure(*windows: Samples) -> dict[str, Any]:
    return sound.measure(list(windows), no_tags, no_tags)[0]


@pytest.mark.parametrize("hertz", [250.0, 1000.0, 4000.0])
def test_a_sine_is_as_bright_as_its_frequency_and_steady(hertz: float) -> None:
    measured = measure(sine(hertz))
    assert measured["brightness"]["centroid"] == pytest.approx(hertz, rel=0.15)
    assert measured["loudness"]["range"] < 0.5 and measured["silence"] == 0.0
    assert measured["density"]["onsets"] < 0.6


def test_the_level_is_that_of_the_standard() -> None:
    """BS.1770: a full-scale sine of 997 Hz in one channel reads -3.01 LUFS; half the amplitude is 6.02 dB less."""
    assert measure(sine(997.0, amplitude=1.0))["loudness"]["level"] == pytest.approx(-3.01, abs=0.1)
    assert measure(sine(997.0, amplitude=0.5))["loudness"]["level"] == pytest.approx(-9.03, abs=0.1)


@pytest.mark.parametrize("beats", [80.0, 100.0, 120.0, 140.0])
def test_clicks_have_their_tempo_and_density_and_no_key(beats: float) -> None:
    measured = measure(clicks(beats))
    assert measured["tempo"]["bpm"] == pytest.approx(beats, rel=0.02)
    assert measured["tempo"]["confidence"] > 0.5
    assert measured["density"]["onsets"] == pytest.approx(beats / 60, rel=0.15)
    assert measured["key"]["confidence"] < 0.25


def test_the_tempo_of_the_whole_is_the_one_that_most_of_it_keeps() -> None:
    """A quarter in which every second click is missing counts half: what the others count is said, and both."""
    measured = measure(np.concatenate([clicks(70.0, 8.0), *[clicks(140.0, 8.0)] * 3]))["tempo"]
    assert measured["bpm"] == pytest.approx(140.0, rel=0.03)
    assert measured["other"] == pytest.approx(70.0, rel=0.03)
    steady = measure(clicks(140.0, 32.0))["tempo"]
    assert steady["bpm"] == pytest.approx(140.0, rel=0.02) and "other" not in steady


def test_a_tempo_that_no_two_quarters_share_is_not_sure() -> None:
    parts = [clicks(beats, 8.0) for beats in (63.0, 84.0, 112.0, 150.0)]
    assert measure(np.concatenate(parts))["tempo"]["confidence"] < 0.4
    assert all(measure(part)["tempo"]["confidence"] > 0.5 for part in parts)


MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 10, 12)


@pytest.mark.parametrize(("tonic", "hertz"), [("C", 261.63), ("G", 196.0), ("A", 220.0), ("E flat", 311.13)])
def test_a_major_scale_has_its_key(tonic: str, hertz: float) -> None:
    triad = (0, 4, 7, 12, 7, 4, 0)
    key = measure(scale([*MAJOR, *reversed(MAJOR), *triad], hertz))["key"]
    assert (key["tonic"], key["mode"]) == (tonic, "major") and key["confidence"] > 0.3


@pytest.mark.parametrize(("tonic", "hertz"), [("A", 220.0), ("D", 293.66)])
def test_a_minor_scale_has_its_key(tonic: str, hertz: float) -> None:
    triad = (0, 3, 7, 12, 7, 3, 0)
    key = measure(scale([*MINOR, *reversed(MINOR), *triad], hertz))["key"]
    assert (key["tonic"], key["mode"]) == (tonic, "minor") and key["confidence"] > 0.3


def test_keys_that_follow_one_another_make_no_sure_key_of_the_whole() -> None:
    triad = (0, 4, 7, 12, 7, 4, 0)
    parts = [scale([*MAJOR, *triad, *MAJOR, *triad], hertz) for hertz in (261.63, 369.99, 233.08, 329.63)]
    one, several = measure(*[parts[0]] * 4)["key"], measure(*parts)["key"]
    assert one["confidence"] > 0.5 and not one["changes"]
    assert several["confidence"] < 0.3 and several["changes"]


def test_silence_has_no_tempo_key_brightness_or_tags() -> None:
    measured, _ = sound.measure([np.zeros(5 * RATE, np.float32)], loud_patches, loud_patches)
    assert measured["silence"] == 1.0
    assert measured["tempo"] == {"bpm": 0.0, "confidence": 0.0}
    assert measured["key"]["confidence"] == 0.0
    assert measured["loudness"] == {"level": -70.0, "range": 0.0}
    assert measured["brightness"]["centroid"] == 0.0 and measured["density"]["onsets"] == 0.0
    assert measured["tags"] == []


def test_noise_is_bright_and_has_neither_key_nor_tempo() -> None:
    measured = measure(noise())
    assert measured["brightness"]["centroid"] == pytest.approx(4000, rel=0.1)
    assert measured["key"]["confidence"] < 0.25 and measured["tempo"]["confidence"] < 0.25


def test_half_of_it_silent_is_said() -> None:
    assert measure(np.concatenate([sine(440.0, 2.0), np.zeros(2 * RATE, np.float32)]))["silence"] == pytest.approx(
        0.5, abs=0.02
    )


@pytest.mark.parametrize("samples", [1, 2, 100, 255, 256, 257, RATE // 10, RATE // 2])
def test_the_shortest_sounds_are_measured_and_claim_no_tempo(samples: int) -> None:
    measured = measure(sine(440.0, 1.0)[:samples])
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    assert measured["tempo"]["bpm"] == 0.0
    assert measured["seconds"] == round(samples / RATE, 3)


def test_the_same_samples_give_the_same_measurement() -> None:
    first, vector = sound.measure([noise(3.0)], loud_patches, loud_patches)
    second, again = sound.measure([noise(3.0).copy()], loud_patches, loud_patches)
    assert first == second and (vector == again).all()


def test_windows_count_by_their_length() -> None:
    """20 s that sound and 5 s of silence: the mean is .8, whatever the number of patches and windows."""
    parts = [sine(440.0, 20.0), np.zeros(5 * RATE, np.float32)]
    _, vector = sound.measure(parts, loud_patches, loud_patches)
    assert vector.shape == (400,) and vector.dtype == np.float32
    assert vector == pytest.approx(np.full(400, 0.8), abs=1e-6)
    _, turned = sound.measure(parts[::-1], loud_patches, loud_patches)
    assert turned == pytest.approx(vector, abs=1e-6)


def test_a_track_in_windows_is_measured_as_the_same_track_in_one() -> None:
    track = np.concatenate([clicks(120.0, 10.0), sine(440.0, 10.0)])
    one, several = measure(track), measure(track[: 8 * RATE], track[8 * RATE :])
    assert several["loudness"]["level"] == pytest.approx(one["loudness"]["level"], abs=0.1)
    assert several["brightness"]["centroid"] == pytest.approx(one["brightness"]["centroid"], rel=0.02)
    assert several["silence"] == one["silence"] and several["seconds"] == one["seconds"]
    assert several["density"]["onsets"] == pytest.approx(one["density"]["onsets"], abs=0.15)


def test_reading_windows_leaves_out_what_is_padding() -> None:
    padded = np.zeros((3, 100), np.float32)
    padded[0], padded[1, :40] = 0.5, 0.25
    windows = sound.read_windows(padded, np.array([100, 40, 0]))
    assert [len(window) for window in windows] == [100, 40]
    padded[1, 60] = math.nan  # behind the valid samples
    assert len(sound.read_windows(padded, np.array([100, 40, 0]))) == 2


@pytest.mark.parametrize(
    ("shape", "lengths", "value", "reason"),
    [
        ((1, 10), [10], math.nan, "not finite"),
        ((1, 10), [10], math.inf, "not finite"),
        ((1, 10), [11], 0.1, "between 0 and the 10"),
        ((1, 10), [-1], 0.1, "between 0 and the 10"),
        ((1, 10), [0], 0.1, "no valid sample"),
        ((2, 10), [10], 0.1, "send \\[windows, samples\\]"),
        ((0, 10), [], 0.1, "send \\[windows, samples\\]"),
        ((65, 10), [10] * 65, 0.1, "65 windows; send at most 64"),
    ],
)
def test_windows_that_cannot_be_read_are_refused(
    shape: tuple[int, int], lengths: list[int], value: float, reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        sound.read_windows(np.full(shape, value, np.float32), np.array(lengths))


def test_words_that_exclude_each_other_do_not_both_stand() -> None:
    mtt, msd = np.zeros(50), np.zeros(50)
    for label, value in (("slow", 0.6), ("fast", 0.5), ("no vocals", 0.3), ("singing", 0.7), ("violin", 0.4)):
        mtt[MTT_LABELS.index(label)] = value
    msd[MSD_LABELS.index("sad")], msd[MSD_LABELS.index("happy")] = 0.2, 0.4
    found = {tag["name"]: tag["confidence"] for tag in sound.tags(mtt, msd)}
    assert found == {"singing": 0.7, "slow": 0.6, "violin": 0.4, "happy": 0.4}
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("row", [np.zeros(49), np.full(50, np.nan)])
def test_other_taggers_are_refused(row: npt.NDArray[np.float64]) -> None:
    with pytest.raises(Invalid, match="50 finite"):
        sound.tags(row, np.zeros(50))
