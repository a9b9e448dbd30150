"""What a text and a measurement feel like: word norms, both readings and their fusion, with a small table of norms.

Pure functions only; the served models are tested in test_emotion_models.py, the planted moods in
test_emotion_moods.py, the fitting in test_emotion_fit.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models import emotion, emotion_measured
from edge_models.emotion_text import COEFFICIENTS, DIMENSION, Coefficients
from edge_models.norms import LEAST_WEIGHT, Norms, mean
from edge_models.triton_model import Invalid
from hypothesis import given, settings
from hypothesis import strategies as st

# Made-up ratings in the manner of the norms: (valence, arousal, dominance), 1..9.
TABLE = {
    "joyful": (8.2, 5.6, 6.6),
    "happy": (8.4, 6.0, 7.2),
    "pleasant": (7.6, 3.3, 6.1),
    "calm": (6.9, 1.7, 7.4),
    "sad": (2.1, 3.5, 3.8),
    "gloomy": (2.8, 3.3, 4.1),
    "rage": (2.5, 6.6, 4.5),
    "dance": (7.2, 5.9, 6.1),
    "table": (5.2, 2.9, 5.5),
    "color": (6.9, 4.0, 5.5),
    "hum": (6.0, 3.0, 5.4),
    "berry": (7.0, 3.4, 5.7),
    "gray": (4.2, 2.9, 4.9),
}
WORDS = sorted(TABLE)


@pytest.fixture(scope="module")
def norms() -> Norms:
    return Norms(TABLE)


@pytest.fixture(scope="module")
def coefficients() -> Coefficients:
    return Coefficients.read()


def picture(**changes: Any) -> dict[str, Any]:
    measurement: dict[str, Any] = {
        "kind": "picture",
        "version": "1",
        "light": {"brightness": 0.56, "contrast": 0.55},
        "colour": {"saturation": 0.38, "warmth": 0.40, "variety": 0.47, "monochrome": False},
        "texture": {"detail": 0.60, "roughness": 0.6, "direction": "none"},
        "tags": [],
    }
    for path, value in changes.items():
        group, _, key = path.partition("_")
        measurement[group][key] = value
    return measurement


def sound(
    bpm: float = 110.0, mode: str = "major", key: float = 0.0, level: float = -21.0, onsets: float = 3.0, **more: Any
) -> dict[str, Any]:
    return {
        "kind": "sound",
        "version": "1",
        "tempo": {"bpm": bpm, "confidence": 0.5},
        "key": {"tonic": "C", "mode": mode, "confidence": key},
        "loudness": {"level": level, "range": 8.0},
        "density": {"onsets": onsets},
        "brightness": {"centroid": more.get("centroid", 1200.0)},
        "silence": 0.0,
        "tags": more.get("tags", []),
    }


# Words.


@pytest.mark.parametrize(
    ("form", "base"),
    [
        *(
            ("Happy", "happy"),
            ("happily", "happy"),
            ("happier", "happy"),
            ("happiness", "happy"),
            ("berries", "berry"),
        ),
        *(("dancing", "dance"), ("danced", "dance"), ("tables", "table"), ("colour", "color"), ("humming", "hum")),
        *(("joyfully", "joyful"), ("saddest", "sad"), ("grey", "gray"), ("table's", "table"), ("coloured", "color")),
    ],
)
def test_a_word_is_found_by_its_base_form(norms: Norms, form: str, base: str) -> None:
    found = norms.find(form)
    assert found is not None
    assert found.word == base


def test_an_unknown_word_is_not_found(norms: Norms) -> None:
    assert norms.find("qzzt") is None
    assert norms.find("") is None
    assert norms.words("Qzzt 123 — !") == []


def test_ratings_become_zero_to_one(norms: Norms) -> None:
    found = norms.find("sad")
    assert found is not None
    assert found.valence == pytest.approx((2.1 - 1) / 8)
    assert found.arousal == pytest.approx((3.5 - 1) / 8)


def test_a_bad_table_of_norms_is_refused_by_word() -> None:
    with pytest.raises(ValueError, match="'odd'"):
        Norms({"odd": (1.0, 12.0, 3.0)})


def test_a_word_weighs_as_the_phrase_that_holds_it(norms: Norms) -> None:
    words = norms.words("A joyful dance at a table", [("joyful dance", 0.9), ("dance", 0.4)])
    assert {word.word: word.weight for word in words} == {"joyful": 0.9, "dance": 0.9, "table": LEAST_WEIGHT}


def test_without_phrases_every_word_weighs_one(norms: Norms) -> None:
    assert [word.weight for word in norms.words("joyful table")] == [1.0, 1.0]


def test_a_denied_word_is_left_out(norms: Norms) -> None:
    assert [word.word for word in norms.words("not happy, never a joyful dance; not only sad but calm")] == [
        "dance",
        "sad",
        "calm",
    ]


def test_the_mean_is_weighted(norms: Norms) -> None:
    words = norms.words("happy sad", [("happy", 1.0), ("sad", 0.5)])
    found = mean(words)
    assert found is not None
    assert found[0] == pytest.approx((7.4 / 8 + 0.5 * 1.1 / 8) / 1.5)
    assert mean([]) is None


# Measurements.


def test_a_typical_measurement_is_neutral(norms: Norms) -> None:
    assert emotion_measured.va_of_measurement(picture(), "picture", norms) == pytest.approx((0.5, 0.5), abs=0.02)
    assert emotion_measured.va_of_measurement(sound(), "sound", norms) == pytest.approx((0.5, 0.5), abs=0.02)


def test_no_measurement_is_neutral(norms: Norms) -> None:
    assert emotion_measured.va_of_measurement({}, "picture", norms) == (0.5, 0.5)
    assert emotion_measured.va_of_measurement({"kind": "sound"}, "sound", norms) == (0.5, 0.5)


def test_bright_colours_please_and_saturated_colours_arouse(norms: Norms) -> None:
    bright = emotion_measured.va_of_measurement(picture(light_brightness=0.85), "picture", norms)
    dark = emotion_measured.va_of_measurement(picture(light_brightness=0.25), "picture", norms)
    vivid = emotion_measured.va_of_measurement(picture(colour_saturation=0.9), "picture", norms)
    dull = emotion_measured.va_of_measurement(picture(colour_saturation=0.05), "picture", norms)
    assert bright[0] > 0.65 > 0.35 > dark[0]
    assert bright[1] < dark[1]
    assert vivid[1] > 0.7 > 0.3 > dull[1]
    assert vivid[0] > dull[0]


def test_fast_and_loud_arouses_and_major_pleases(norms: Norms) -> None:
    lively = emotion_measured.va_of_measurement(sound(170, "major", 0.8, -10, 7), "sound", norms)
    lament = emotion_measured.va_of_measurement(sound(60, "minor", 0.8, -32, 0.7), "sound", norms)
    rest = emotion_measured.va_of_measurement(sound(60, "major", 0.8, -32, 0.7), "sound", norms)
    rage = emotion_measured.va_of_measurement(sound(170, "minor", 0.8, -10, 7), "sound", norms)
    assert lively[0] > 0.75 and lively[1] > 0.75
    assert lament[0] < 0.25 and lament[1] < 0.25
    assert rest[0] > lament[0] + 0.2 and rest[1] < 0.3
    assert rage[0] < lively[0] - 0.2 and rage[1] > 0.7


def test_an_unsure_key_says_nothing(norms: Norms) -> None:
    major = emotion_measured.va_of_measurement(sound(mode="major", key=0.0), "sound", norms)
    assert major == emotion_measured.va_of_measurement(sound(mode="minor", key=0.0), "sound", norms)


def test_what_is_recognised_counts_by_its_confidence(norms: Norms) -> None:
    def valence(confidence: float) -> float:
        tags = [{"name": "sad", "confidence": confidence}]
        return emotion_measured.va_of_measurement(sound(tags=tags), "sound", norms)[0]

    assert valence(0.9) < valence(0.3) < valence(0.0)


@pytest.mark.parametrize(
    ("measurement", "reason"),
    [
        ({"kind": "smell"}, "kind"),
        ({"kind": "picture", "light": {"brightness": "high"}}, "light.brightness"),
        ({"kind": "picture", "light": {"brightness": math.nan}}, "light.brightness"),
        ({"kind": "picture", "light": [1]}, "light"),
        ({"kind": "picture", "tags": [{"confidence": 1}]}, "tag"),
        ({"kind": "picture", "tags": {"name": "x"}}, "tags"),
        ({"kind": "sound", "key": {"mode": "dorian"}}, "key.mode"),
        ({"kind": "sound", "tempo": {"bpm": True}}, "tempo.bpm"),
        ({"kind": "sound", "tempo": {"bpm": 10**400}}, "tempo.bpm"),
    ],
)
def test_a_measurement_that_cannot_be_read_is_refused_by_name(
    norms: Norms, measurement: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        emotion_measured.cues(measurement, norms)


UNIT = st.floats(0, 1)
PICTURES = st.builds(
    lambda a, b, c, d, e, f: picture(
        light_brightness=a, light_contrast=b, colour_saturation=c, colour_warmth=d, colour_variety=e, texture_detail=f
    ),
    *(UNIT, UNIT, UNIT, st.floats(-1, 1), UNIT, UNIT),
)
SOUNDS = st.builds(
    lambda bpm, mode, key, level, onsets, centroid: sound(bpm, mode, key, level, onsets, centroid=centroid),
    *(st.floats(0, 260), st.sampled_from(["major", "minor"]), UNIT, st.floats(-70, 0), st.floats(0, 30)),
    st.floats(0, 8000),
)


@given(PICTURES)
@settings(max_examples=60)
def test_every_picture_lies_in_the_plane(measurement: dict[str, Any]) -> None:
    valence, arousal = emotion_measured.va_of_measurement(measurement, "picture", Norms(TABLE))
    assert 0 <= valence <= 1 and 0 <= arousal <= 1


@given(SOUNDS)
@settings(max_examples=60)
def test_every_sound_lies_in_the_plane(measurement: dict[str, Any]) -> None:
    valence, arousal = emotion_measured.va_of_measurement(measurement, "sound", Norms(TABLE))
    assert 0 <= valence <= 1 and 0 <= arousal <= 1


# Both together.


def vectors_of(seed: int, count: int = 5) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


TEXTS = st.lists(st.lists(st.sampled_from([*WORDS, "zzz", "of"]), max_size=12).map(" ".join), min_size=5, max_size=5)
MEASURED = st.one_of(
    st.tuples(st.just("artwork"), st.lists(st.one_of(st.none(), PICTURES), min_size=5, max_size=5)),
    st.tuples(st.just("track"), st.lists(st.one_of(st.none(), SOUNDS), min_size=5, max_size=5)),
)


@given(TEXTS, MEASURED, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_score_is_bounded_finite_and_repeatable(
    texts: list[str], measured: tuple[str, list[dict[str, Any] | None]], seed: int
) -> None:
    kind, measurements = measured
    norms, coefficients, vectors = Norms(TABLE), Coefficients.read(), vectors_of(seed)
    phrases: list[list[tuple[str, float]]] = [[("happy", 0.7)], [], [], [], []]
    first = emotion.score(texts, phrases, measurements, kind, vectors, norms, coefficients)
    again = emotion.score(texts, phrases, measurements, kind, vectors, norms, coefficients)
    assert first.rgb.shape == (5, 3) and first.va.shape == (5, 2) and len(first.evidence) == 5
    assert np.isfinite(first.rgb).all() and (first.rgb >= 0).all() and (first.rgb <= 255).all()
    assert np.isfinite(first.va).all() and (first.va >= 0).all() and (first.va <= 1).all()
    assert np.array_equal(first.rgb, again.rgb) and np.array_equal(first.va, again.va)
    assert json.dumps(first.evidence) == json.dumps(again.evidence)
    for text, evidence in zip(texts, first.evidence, strict=True):
        assert len(evidence) <= 12
        assert all(entry["source"] in ("word", "measurement", "vector") for entry in evidence)
        assert all(math.isfinite(value) for entry in evidence for value in entry["effect"].values())
        if norms.words(text):
            assert any(entry["source"] == "word" for entry in evidence)


def test_of_a_measured_text_the_phrases_are_read_surest_first_and_none_twice() -> None:
    phrases = [("dark", 0.8), ("dark brown", 0.7), ("calm", 0.9), ("calm", 0.9)]
    assert emotion.gist("It is calm, dark brown and dark.", phrases) == "calm, dark brown"
    assert emotion.gist("A text.", []) == "A text."
    assert emotion.read_of(["One", "Two"], [[("calm", 0.5)]] * 2, [{"kind": "picture"}, None]) == ["calm", "Two"]


def test_a_paraphrase_scores_the_same(norms: Norms, coefficients: Coefficients) -> None:
    """The same phrases in other words: what the words between them are rated does not count."""
    phrases = [[("happy", 0.7), ("dark", 0.4)]] * 5
    measurements = [{"kind": "picture", "light": {"brightness": 0.4}}] * 5
    scored = [
        emotion.score([text] * 5, phrases, measurements, "artwork", vectors_of(1), norms, coefficients)
        for text in ("It is happy and dark.", "Sad things aside, what is dark here is happy.")
    ]
    assert np.array_equal(scored[0].rgb, scored[1].rgb) and np.array_equal(scored[0].va, scored[1].va)
    assert scored[0].evidence == scored[1].evidence


def test_sentences_end_with_a_sign_before_a_space() -> None:
    assert emotion.sentences("No. 5 is calm! Is it?  Yes, 3.5 of it… so ") == [
        "No.",
        "5 is calm!",
        "Is it?",
        "Yes, 3.5 of it…",
        "so",
    ]
    assert emotion.sentences("  ") == [] and len(emotion.sentences("a. " * 100)) == 64


def test_empty_texts_without_measurements_are_neutral(norms: Norms, coefficients: Coefficients) -> None:
    scored = emotion.score([""] * 5, [[]] * 5, [None] * 5, "track", np.zeros((5, DIMENSION)), norms, coefficients)
    assert np.allclose(scored.rgb, coefficients.mean)
    assert np.allclose(scored.va, 0.5)
    assert scored.evidence == [[], [], [], [], []]


@given(st.lists(st.sampled_from(WORDS), max_size=15), st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_more_pleasant_words_give_more_valence(words: list[str], more: int, seed: int) -> None:
    norms, coefficients = Norms(TABLE), Coefficients.read()
    vector = vectors_of(seed, 1)[0]
    before = emotion.va_of_text(" ".join(["table", *words]), vector, norms, coefficients)[0]
    after = emotion.va_of_text(" ".join(["table", *words, *["happy"] * more]), vector, norms, coefficients)[0]
    # A text of "happy" only cannot become happier than the word; all others must. Squashed values saturate near 1.
    assert after > before or before > 0.999


def test_words_move_the_score_the_way_they_feel(norms: Norms, coefficients: Coefficients) -> None:
    def va(text: str) -> tuple[float, float]:
        return emotion.va_of_text(text, vectors_of(0, 1)[0] * 0.0, norms, coefficients)

    assert va("happy joyful dance")[0] > va("sad gloomy table")[0] + 0.2
    assert va("rage dance")[1] > va("calm table hum")[1] + 0.2


def test_the_stronger_measurement_leads_the_evidence(norms: Norms, coefficients: Coefficients) -> None:
    scored = emotion.score(
        *([""] * 5, [[]] * 5, [picture(light_brightness=0.05)] * 5, "artwork"),
        *(np.zeros((5, DIMENSION)), norms, coefficients),
    )
    first = scored.evidence[4][0]
    assert first["source"] == "measurement"
    assert first["what"] == "brightness 0.05"
    assert first["effect"]["valence"] < -0.1 and first["effect"]["b"] > 10


def test_evidence_adds_up_to_the_text_reading(norms: Norms, coefficients: Coefficients) -> None:
    texts, vectors = ["happy table", "sad", "calm dance", "gloomy", "joyful rage"], vectors_of(3)
    scored = emotion.score(texts, [[]] * 5, [None] * 5, "track", vectors, norms, coefficients)
    for number in range(5):
        total = coefficients.mean + [sum(entry["effect"][key] for entry in scored.evidence[number]) for key in "rgb"]
        assert np.allclose(np.clip(total, 0, 255), scored.rgb[number], atol=0.1)


def test_a_measurement_of_the_other_kind_is_refused(norms: Norms, coefficients: Coefficients) -> None:
    with pytest.raises(Invalid, match=r"measurement 1 of 5.*sound"):
        emotion.score([""] * 5, [[]] * 5, [sound()] * 5, "artwork", np.zeros((5, DIMENSION)), norms, coefficients)
    with pytest.raises(Invalid, match="KIND"):
        emotion.score([""] * 5, [[]] * 5, [None] * 5, "poem", np.zeros((5, DIMENSION)), norms, coefficients)


# The committed numbers.


def test_the_committed_coefficients_are_few_and_hold_no_text() -> None:
    fields = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))

    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for each in value.values() for leaf in leaves(each)]
        return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]

    assert len([leaf for leaf in leaves(fields) if isinstance(leaf, int | float)]) <= 4000
    assert all(
        isinstance(leaf, int | float)
        for leaf in leaves({k: v for k, v in fields.items() if k not in ("version", "provenance")})
    )
    assert max(len(str(leaf)) for leaf in leaves(fields)) < 160
    assert {"made", "data", "folds", "r_of_rgb", "captions"} <= set(fields["provenance"])


def test_the_committed_figures_reach_what_was_promised() -> None:
    provenance = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))["provenance"]
    r = provenance["r_of_rgb"]
    assert r["r"] >= 0.65 and r["g"] >= 0.50 and r["b"] >= 0.40


def test_a_damaged_coefficients_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "coefficients.json"
    fields = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
    del fields["rgb"]["vector"]
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"python -m edge_models\.fit"):
        Coefficients.read(path)
