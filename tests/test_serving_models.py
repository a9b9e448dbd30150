"""The contract of the text, matching and inner models through the real model server.

Shapes, types, one row as many rows, bad tensors refused while others are served. The contracts of measuring,
captioning and emotion stand beside their own code.
"""

from __future__ import annotations

import queue
import tomllib
from functools import partial
from typing import Any

import numpy as np
import pytest
from edge_models import configuration
from tritonclient.utils import InferenceServerException

from schemas.profile import Profile
from tests.patience import patient
from tests.serving_fixtures import REPOSITORY, Served, complete_models, texts

CAPTIONS = (
    "A quiet, warm seashore in ochre and blue.",
    "Fast drums and loud guitars in a minor key.",
    "Un été — «doux» 音楽",
    "x",
)


def unit(vectors: Any) -> None:
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def with_media(model: str, text: Any) -> dict[str, Any]:
    """The full inputs of an embed model, media empty, as this profile is sent them."""
    rows = len(text)
    if model == "embed_picture":
        return {"IMAGE": texts(*[b""] * rows), "TEXT": text}
    if model == "embed_sound":
        return {"SOUND": np.zeros((rows, 1, 1), np.float32), "LENGTHS": np.zeros((rows, 1), np.int32), "TEXT": text}
    return {"TEXT": text}


def test_versions_in_configs_equal_the_profile_file() -> None:
    with (REPOSITORY.parent / "edge.toml").open("rb") as file:
        profile = Profile.model_validate(tomllib.load(file))
    served = {path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")}
    assert served, "the repository has no models"
    for name in sorted(served):
        fields = configuration.read(REPOSITORY / name / "config.pbtxt")
        assert fields["name"] == [name]
        assert configuration.parameters(fields)["version"] == profile.version(name), name


def test_the_profile_names_the_spaces_its_models_fill() -> None:
    with (REPOSITORY.parent / "edge.toml").open("rb") as file:
        profile = Profile.model_validate(tomllib.load(file))
    assert profile.caption_space in {space.name for space in profile.spaces}
    for space in profile.spaces:
        maker = space.maker.split(":")[0].split(",")[0]
        outputs = configuration.read(REPOSITORY / maker / "config.pbtxt")["output"]
        assert {int(one["dims"][0]) for one in outputs if one["name"] == ["VECTOR"]} == {space.dimension}


def test_the_server_serves_every_complete_model(running_triton: Served) -> None:
    for model in running_triton.models:
        assert running_triton.client.is_model_ready(model), model


@pytest.mark.parametrize("model", ["embed_text", "embed_picture", "embed_sound"])
def test_one_text_and_many_have_the_same_vectors(running_triton: Served, model: str) -> None:
    many = running_triton.infer(model, with_media(model, texts(*CAPTIONS)), ["VECTOR"])["VECTOR"]
    assert many.shape == (len(CAPTIONS), 384)
    unit(many)
    for text, vector in zip(CAPTIONS, many, strict=True):
        one = running_triton.infer(model, with_media(model, texts(text)), ["VECTOR"])["VECTOR"]
        np.testing.assert_allclose(one[0], vector, atol=1e-5)


def test_pictures_tracks_and_words_share_one_space(running_triton: Served) -> None:
    vectors = [
        running_triton.infer(model, with_media(model, texts(CAPTIONS[0])), ["VECTOR"])["VECTOR"]
        for model in ("embed_text", "embed_picture", "embed_sound")
    ]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)


def test_the_end_of_a_long_text_counts(running_triton: Served) -> None:
    start = "a calm grey sea " * 150
    vectors = running_triton.infer(
        "embed_text", {"TEXT": texts(start, start + "wild red dancing drums " * 150)}, ["VECTOR"]
    )["VECTOR"]
    unit(vectors)
    assert vectors[0] @ vectors[1] < 0.98


def test_like_texts_lie_nearer_than_unlike_ones(running_triton: Served) -> None:
    sad, gloomy, dance = running_triton.infer(
        "embed_text",
        {"TEXT": texts("A sad slow piano piece", "A gloomy picture of rain", "Joyful dance music with drums")},
        ["VECTOR"],
    )["VECTOR"]
    assert sad @ gloomy > gloomy @ dance


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"\xff\xfe", "not UTF-8"), (b"  ", "empty"), (b"long " * 20_000, "at most 65536")],
)
def test_a_bad_text_is_refused_in_plain_words(running_triton: Served, text: bytes, reason: str) -> None:
    with pytest.raises(InferenceServerException, match=f"invalid: TEXT.*{reason}"):
        running_triton.infer("embed_text", {"TEXT": texts(text)}, ["VECTOR"])


def test_a_bad_row_is_named(running_triton: Served) -> None:
    with pytest.raises(InferenceServerException, match="invalid: row 1 of 3: TEXT is empty"):
        running_triton.infer("embed_text", {"TEXT": texts("a", "", "b")}, ["VECTOR"])


def test_a_bad_request_does_not_hurt_those_beside_it(running_triton: Served) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    sent = [texts("" if number % 3 == 0 else f"caption number {number}") for number in range(30)]
    for number, text in enumerate(sent):
        running_triton.client.async_infer(
            "embed_text",
            running_triton.tensors({"TEXT": text}),
            callback=partial(lambda which, result, error: answers.put((which, result, error)), number),
        )
    for _ in sent:
        number, result, error = answers.get(timeout=patient(60))
        if number % 3 == 0:
            assert "invalid: TEXT is empty" in str(error)
        else:
            assert error is None
            unit(result.as_numpy("VECTOR"))


@pytest.mark.parametrize("shape", [(1, 2), (1,)])
def test_a_tensor_of_the_wrong_shape_is_refused(running_triton: Served, shape: tuple[int, ...]) -> None:
    wrong = np.full(shape, b"text", dtype=object)
    with pytest.raises(InferenceServerException, match=r"shape|dimension"):
        running_triton.infer("embed_text", {"TEXT": wrong}, ["VECTOR"])


def test_matching_falls_with_distance(running_triton: Served) -> None:
    artwork = np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]], np.float32)
    track = np.array([[0.5, 0.5], [0.5, 0.8], [1.0, 1.0]], np.float32)
    sigma = np.array([[0.3], [0.3], [0.5]], np.float32)
    score = running_triton.infer("match_va", {"ARTWORK_VA": artwork, "TRACK_VA": track, "SIGMA": sigma}, ["SCORE"])[
        "SCORE"
    ]
    assert score.shape == (3, 1)
    np.testing.assert_allclose(score[:, 0], [1, np.exp(-1), np.exp(-np.sqrt(2) / 0.5)], rtol=1e-5)


@pytest.mark.parametrize(
    ("artwork", "sigma", "reason"),
    [([np.nan, 0], 1.0, "not finite"), ([1.5, 0], 1.0, "outside 0 to 1"), ([0.5, 0], 0.0, "above 0")],
)
def test_matching_refuses_impossible_numbers(
    running_triton: Served, artwork: list[float], sigma: float, reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=f"invalid: .*{reason}"):
        running_triton.infer(
            "match_va",
            {
                "ARTWORK_VA": np.array([artwork], np.float32),
                "TRACK_VA": np.zeros((1, 2), np.float32),
                "SIGMA": np.array([[sigma]], np.float32),
            },
            ["SCORE"],
        )


INNER: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]] = {
    "efficientnet_lite0": ({"pixels": (3, 224, 224)}, {"probs": (1000,), "embedding": (1280,)}),
    "musicnn_mtt": ({"spectrogram": (187, 96)}, {"tags": (50,), "embedding": (200,)}),
    "musicnn_msd": ({"spectrogram": (187, 96)}, {"tags": (50,), "embedding": (200,)}),
}


@pytest.mark.parametrize("model", INNER)
def test_inner_networks_answer_one_row_as_many(running_triton: Served, model: str) -> None:
    takes, gives = INNER[model]
    random = np.random.default_rng(3)
    inputs = {name: random.random((5, *shape), dtype=np.float32) for name, shape in takes.items()}
    many = running_triton.infer(model, inputs, list(gives))
    for name, shape in gives.items():
        assert many[name].shape == (5, *shape)
        assert many[name].dtype == np.float32
    one = running_triton.infer(model, {name: value[2:3] for name, value in inputs.items()}, list(gives))
    for name in gives:
        np.testing.assert_allclose(one[name][0], many[name][2], atol=1e-4)


def test_the_text_network_refuses_pieces_it_does_not_know(running_triton: Served) -> None:
    def tokens(piece: int) -> dict[str, Any]:
        ids = np.full((1, 4), piece, np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    with pytest.raises(InferenceServerException, match="invalid: "):
        running_triton.infer("minilm", tokens(999_999), ["last_hidden_state"])
    good = running_triton.infer("minilm", tokens(2000), ["last_hidden_state"])["last_hidden_state"]
    assert good.shape == (1, 4, 384)


def test_every_model_of_the_contract_is_there() -> None:
    with (REPOSITORY.parent / "edge.toml").open("rb") as file:
        named = set(tomllib.load(file)["models"])
    absent = named - {path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")}
    assert not absent, f"the profile names models that the repository does not have: {sorted(absent)}"
    assert set(complete_models()) <= named
