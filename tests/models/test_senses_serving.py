"""The sensing models of the full profile through the real model server, at a tiny size with random weights.

Same folders, same code, same architectures as with published weights; what such numbers mean is not tested here.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soxr
import torch
from edge_models import configuration
from edge_models.local import LocalModels
from full_models import export, imagebind_inputs, mmva_inputs, pictures, reading, scores
from full_models.export import BadChoice, ExportError, Made, MissingWeights
from full_models.onnx_networks import NETWORKS, clip_model
from full_models.text_tokens import CONTEXT, ClipTokens
from full_models.valence_arousal import PairTokens
from full_models.weights import Choices, Weights
from PIL import Image
from transformers import ClapFeatureExtractor, ClapModel
from tritonclient.utils import InferenceServerException

from infra.serving import triton
from networks import imagebind, mmva
from schemas.profile import Profile
from tests.models import tiny_senses
from tests.models.serving_senses import EDGE, FULL, PYTHON_MODELS, config_folder, copied, serve
from tests.serving_fixtures import Served, texts

# Thirteen networks are exported before the first test; on a machine that others use as well that takes minutes.
pytestmark = pytest.mark.timeout(1200)

MORE = {
    **dict.fromkeys(("va_picture", "va_sound", "va_text"), ("EMBEDDING",)),
    "match_va": ("EMBEDDINGS", "LEARNED"),
}
"""Tensors of a model that the edge profile's has not."""
RULED = ("va_picture", "va_sound", "va_text", "match_va", "minilm")
NO_SOUND = {"SOUND": np.zeros((2, 1, 1), np.float32), "LENGTHS": np.zeros((2, 1), np.int32)}
SENTENCES = (
    "A calm river runs through a warm valley.",
    "Loud drums and wild guitars in a minor key!",
    "An old harbour with grey ships, gulls and rain.",
)


def picture(seed: int, width: int = 320, height: int = 240) -> bytes:
    """An encoded picture of coarse random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(content, "PNG")
    return content.getvalue()


def sound(seed: int, seconds: float) -> Any:
    """Noise with a tone, mono 16 kHz."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * random.uniform(100, 2000) * time) + random.normal(0, 0.1, len(time))
    return wave.astype(np.float32)


def windows(*parts: Any) -> dict[str, Any]:
    """One row of SOUND and LENGTHS of these windows."""
    longest = max(map(len, parts))
    padded = np.stack([np.pad(part, (0, longest - len(part))) for part in parts])
    return {"SOUND": padded[None], "LENGTHS": np.array([[len(part) for part in parts]], np.int32)}


@pytest.fixture(scope="module")
def weights(sense_weights: Path) -> Path:
    """The weights folder of all sensing networks."""
    return sense_weights


@pytest.fixture(scope="module")
def environment(sense_environment: dict[str, str]) -> dict[str, str]:
    """What tells the models where their weights lie."""
    return sense_environment


@pytest.fixture(scope="module")
def repository(exported_senses: tuple[Path, list[Made]]) -> tuple[Path, list[Made]]:
    """A repository with every network exported, and what each export said."""
    return exported_senses


@pytest.fixture(scope="module")
def served(
    repository: tuple[Path, list[Made]], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The model server over that repository."""
    with serve(repository[0], tmp_path_factory.mktemp("server"), environment) as running:
        yield running


# -- exports -----------------------------------------------------------------------------------------------


def test_every_network_is_exported_and_answers_as_torch_does(
    repository: tuple[Path, list[Made]], environment: dict[str, str]
) -> None:
    folder, made = repository
    assert [each.model for each in made] == list(NETWORKS)
    for each in made:
        assert each.fresh and each.size > 10_000 and each.difference <= 1e-4, each
    again = export.export(folder, "clip_text", environment)
    assert not again.fresh, "what was made from the same weights is not made again"


@pytest.mark.parametrize("model", sorted(NETWORKS))
def test_the_config_says_what_the_network_takes_and_gives(model: str, repository: tuple[Path, list[Made]]) -> None:
    session = onnxruntime.InferenceSession(str(repository[0] / model / "1" / "model.onnx"))
    fields = configuration.read(config_folder(model) / "config.pbtxt")
    for word, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        stated = {each["name"][0]: [int(size) for size in each["dims"]] for each in fields[word]}
        assert list(stated) == [tensor.name for tensor in tensors]
        for tensor in tensors:
            sizes = stated[tensor.name]
            assert len(sizes) == len(tensor.shape) - 1
            assert isinstance(tensor.shape[0], str), "any number of rows"
            for said, real in zip(sizes, tensor.shape[1:], strict=True):
                assert said == -1 or said == real
        kinds = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}
        assert [kinds[each["data_type"][0]] for each in fields[word]] == [tensor.type for tensor in tensors]


def test_half_precision_keeps_the_tensors_and_stays_near(
    repository: tuple[Path, list[Made]], environment: dict[str, str], tmp_path: Path
) -> None:
    half = copied(tmp_path, ["imagebind_vision"])
    made = export.export(half, "imagebind_vision", {**environment, "PROMENADE_MODELS_PRECISION": "fp16"})
    assert made.fresh and 0 < made.difference <= export.TOLERANCE["fp16"]
    full_size = (repository[0] / "imagebind_vision" / "1" / "model.onnx").stat().st_size
    assert made.size < 0.8 * full_size
    pixels = np.stack([pictures.network_input(picture(seed)) for seed in range(3)])
    vectors = []
    for folder in (half, repository[0]):
        session = onnxruntime.InferenceSession(str(folder / "imagebind_vision" / "1" / "model.onnx"))
        (vector,) = session.run(None, {"pixels": pixels})
        assert vector.dtype == np.float32
        vectors.append(vector)
    assert (np.einsum("nd,nd->n", *vectors) > 0.999).all()


def test_an_export_that_cannot_be_made_says_why(environment: dict[str, str], tmp_path: Path) -> None:
    folder = copied(tmp_path, ["clip_text", "imagebind_text"])
    with pytest.raises(MissingWeights, match=r"openai/clip-vit-base-patch32.*promenade models fetch --profile full"):
        export.export(folder, "clip_text", {"PROMENADE_WEIGHTS": str(tmp_path / "none")})
    with pytest.raises(BadChoice, match="fp32 or fp16"):
        export.export(folder, "clip_text", {**environment, "PROMENADE_CLIP_TEXT_PRECISION": "bf16"})
    with pytest.raises(ExportError, match="no exported network"):
        export.export(folder, "clip_words", environment)
    with pytest.raises(ExportError, match="promenade models build"):
        export.take_edge_files(copied(tmp_path / "other", ["measure_picture"]), tmp_path / "edge")
    assert export.main(["--repository", str(folder), "--only", "clip_words"]) == 1


def test_openais_names_of_clip_are_read(weights: Path, tmp_path: Path) -> None:
    own = weights / "pacscore" / tiny_senses.REVISION
    read, expected = clip_model(Weights("pacscore", own)), tiny_senses.tiny_clip(2)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        for side in (read, expected):
            assert not side.training
        ours = read.visual_projection(read.vision_model(pixel_values=pixels).pooler_output)
        theirs = expected.visual_projection(expected.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(ours, theirs)
    state = torch.load(own / "clip_ViT-B-32.pth", weights_only=True)["state_dict"]
    state.pop("visual.proj")
    torch.save(state, tmp_path / "clip.pth")
    tiny_senses.clip_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks .*visual_projection"):
        clip_model(Weights("broken", tmp_path))


# -- the profile -------------------------------------------------------------------------------------------


def test_every_folder_is_in_the_profile_under_its_version() -> None:
    with (FULL.parent / "full.toml").open("rb") as file:
        profile = Profile.model_validate(tomllib.load(file))
    found = sorted(FULL.parent.glob("full*/*/config.pbtxt"))
    assert profile.models.keys() | profile.trained.keys() <= {config.parent.name for config in found}
    for config in found:
        fields, name = configuration.read(config), config.parent.name
        assert fields["name"] == [name]
        entry = profile.trained.get(name) or profile.models[name]
        assert configuration.parameters(fields)["version"] == entry.version
    for space in profile.spaces:
        for maker in space.maker.split(":")[0].split(", "):
            outputs = configuration.read(FULL / maker / "config.pbtxt")["output"]
            assert {int(one["dims"][0]) for one in outputs if one["name"] == ["VECTOR"]} == {space.dimension}


def test_readings_by_rule_bear_the_edge_profiles_versions() -> None:
    full, edge = (
        Profile.model_validate(tomllib.loads((FULL.parent / f"{name}.toml").read_text())) for name in ("full", "edge")
    )
    for name in ("va_picture", "va_sound", "va_text"):
        assert full.version(name) == f"edge-{edge.version(name)}"
        assert full.models[name].reads == edge.models[name].reads
    leaning = {name for name, entry in full.models.items() if entry.version.endswith(reading.BY_RULE)}
    assert leaning == {"score_emotion", "compose_mmva"}
    trained = full.with_trained("0f3a")
    assert set(reading.TOWERS) <= trained.models.keys() and not set(reading.TOWERS) & full.models.keys()
    assert {trained.version(name) for name in full.trained} == {"1@0f3a"}


@pytest.mark.parametrize("model", [name for name in PYTHON_MODELS if name != "score_caption"])
def test_tensors_are_those_of_the_edge_profile(model: str) -> None:
    ours, theirs = (configuration.read(folder / model / "config.pbtxt") for folder in (FULL, EDGE))
    for word in ("input", "output"):
        named = [
            {
                each["name"][0]: (each["data_type"], [] if each["name"] == ["VECTOR"] else each["dims"])
                for each in side[word]
                # What MMVA's towers have to say besides: nobody need send it or ask for it.
                if side is theirs or each["name"][0] not in MORE.get(model, ())
            }
            for side in (ours, theirs)
        ]
        assert named[0] == named[1]
    optional = [each["name"][0] for each in ours["input"] if each.get("optional")]
    assert optional == (["EMBEDDINGS"] if model == "match_va" else [])


# -- embedding ---------------------------------------------------------------------------------------------


def test_pictures_are_embedded_as_torch_does_alone_and_together(served: Served, weights: Path) -> None:
    images = [picture(1), picture(2, 200, 500), picture(3, 224, 224)]
    many = served.infer("embed_picture", {"IMAGE": texts(*images), "TEXT": texts("", "", "")}, ["VECTOR"])["VECTOR"]
    network = imagebind.load(weights / "imagebind" / tiny_senses.REVISION)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([pictures.network_input(image) for image in images]))
        expected = network({"vision": pixels})["vision"].numpy()
    np.testing.assert_allclose(many, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    assert many[0] @ many[1] < 0.999, "different pictures differ"
    for image, vector in zip(images, many, strict=True):
        one = served.infer("embed_picture", {"IMAGE": texts(image), "TEXT": texts("x")}, ["VECTOR"])["VECTOR"]
        np.testing.assert_allclose(one[0], vector, atol=1e-5)


def test_sounds_are_embedded_as_torch_does_and_every_window_counts(served: Served, weights: Path) -> None:
    long, short = sound(1, 30), sound(2, 1.5)
    network = imagebind.load(weights / "imagebind" / tiny_senses.REVISION)

    def reference(part: Any) -> Any:
        with torch.inference_mode():
            clips = torch.from_numpy(imagebind_inputs.audio_clips(part))[None]
            vector = network({"audio": clips})["audio"][0].numpy()
        return vector / np.linalg.norm(vector)

    def asked(row: dict[str, Any]) -> Any:
        return served.infer("embed_sound", {**row, "TEXT": texts("")}, ["VECTOR"])["VECTOR"][0]

    np.testing.assert_allclose(asked(windows(long)), reference(long), atol=1e-4)
    np.testing.assert_allclose(asked(windows(short)), reference(short), atol=1e-4)
    both = asked(windows(long, short))
    mixed = 30 * reference(long) + 1.5 * reference(short)
    np.testing.assert_allclose(both, mixed / np.linalg.norm(mixed), atol=1e-4)
    one, other = windows(long), windows(sound(3, 30))
    together = {name: np.concatenate([one[name], other[name]]) for name in one}
    many = served.infer("embed_sound", {**together, "TEXT": texts("", "")}, ["VECTOR"])["VECTOR"]
    np.testing.assert_allclose(many[0], asked(one), atol=1e-5)
    np.testing.assert_allclose(many[1], asked(other), atol=1e-5)


def test_texts_are_embedded_as_torch_does_and_long_ones_to_their_end(served: Served, weights: Path) -> None:
    network = imagebind.load(weights / "imagebind" / tiny_senses.REVISION)
    many = served.infer("embed_text", {"TEXT": texts(*SENTENCES)}, ["VECTOR"])["VECTOR"]
    with torch.inference_mode():
        raw = network({"text": torch.stack([imagebind.tokeniser()(each) for each in SENTENCES])})["text"].numpy()
    np.testing.assert_allclose(many, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-4)
    for text, vector in zip(SENTENCES, many, strict=True):
        one = served.infer("embed_text", {"TEXT": texts(text)}, ["VECTOR"])["VECTOR"]
        np.testing.assert_allclose(one[0], vector, atol=1e-5)
    start = "The sea is calm and grey today. " * 20
    pair = served.infer("embed_text", {"TEXT": texts(start, start + SENTENCES[1] * 10)}, ["VECTOR"])["VECTOR"]
    np.testing.assert_allclose(np.linalg.norm(pair, axis=1), 1, atol=1e-5)
    assert pair[0] @ pair[1] < 0.999


def test_what_cannot_be_embedded_is_refused_alone(served: Served) -> None:
    with pytest.raises(InferenceServerException, match=r"invalid: row 1 of 2: .*cannot be decoded"):
        served.infer("embed_picture", {"IMAGE": texts(picture(1), b"no picture"), "TEXT": texts("", "")}, ["VECTOR"])
    with pytest.raises(InferenceServerException, match="invalid: TEXT is empty"):
        served.infer("embed_text", {"TEXT": texts("  ")}, ["VECTOR"])
    nothing = {"SOUND": np.zeros((1, 1, 16), np.float32), "LENGTHS": np.zeros((1, 1), np.int32), "TEXT": texts("")}
    with pytest.raises(InferenceServerException, match="invalid: the sound has no valid sample"):
        served.infer("embed_sound", nothing, ["VECTOR"])


# -- valence and arousal -----------------------------------------------------------------------------------


def towers(weights: Path) -> mmva.Towers:
    """The towers as torch runs them."""
    names = ("mmva", "openai--clip-vit-base-patch32", "m-a-p--MERT-v1-95M", "FacebookAI--roberta-base")
    trained, *encoders = (weights / name / tiny_senses.REVISION for name in names)
    return mmva.load(trained / "model.safetensors", *encoders)


def test_pictures_and_sounds_are_read_as_torch_does_alone_and_together(served: Served, weights: Path) -> None:
    torch_towers = towers(weights)
    images = [picture(4), picture(5), picture(6)]
    asked = {"IMAGE": texts(*images), "MEASUREMENTS": texts("", "{}", "")}
    many = served.infer("va_picture", asked, ["VA"])["VA"]
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([pictures.network_input(image) for image in images]))
        expected = torch_towers.picture(pixels)[1].numpy()
    np.testing.assert_allclose(many, expected, atol=1e-4)
    assert (many > 0).all() and (many < 1).all() and np.ptp(many, axis=0).max() > 1e-3
    one = served.infer("va_picture", {"IMAGE": texts(images[1]), "MEASUREMENTS": texts("")}, ["VA"])["VA"]
    np.testing.assert_allclose(one[0], many[1], atol=1e-5)

    track = sound(7, 14)
    read = served.infer("va_sound", {**windows(track), "MEASUREMENTS": texts("")}, ["VA"])["VA"]
    clips = mmva_inputs.clips_of(soxr.resample(track, 16_000, 24_000))
    assert len(clips) == 2
    with torch.inference_mode():
        expected = torch_towers.sound(torch.from_numpy(np.stack(clips)))[1].numpy().mean(axis=0)
    np.testing.assert_allclose(read[0], expected, atol=1e-4)


def test_texts_are_read_alone_as_among_others_and_nothing_said_is_the_middle(served: Served) -> None:
    said = [*SENTENCES, "", "word " * 1200]
    many = served.infer("va_text", {"TEXT": texts(*said)}, ["VA"])["VA"]
    assert many[3].tolist() == [0.5, 0.5]
    for text, point in zip(said, many, strict=True):
        one = served.infer("va_text", {"TEXT": texts(text)}, ["VA"])["VA"]
        np.testing.assert_allclose(one[0], point, atol=1e-5)
    assert ((many > 0) & (many < 1)).all()


def test_the_match_of_two_readings_is_mmvas(served: Served) -> None:
    asked = {
        "ARTWORK_VA": np.array([[0.2, 0.3], [0.5, 0.5]], np.float32),
        "TRACK_VA": np.array([[0.6, 0.6], [0.5, 0.5]], np.float32),
        "SIGMA": np.full((2, 1), 0.25, np.float32),
    }
    score = served.infer("match_va", asked, ["SCORE"])["SCORE"]
    np.testing.assert_allclose(score[:, 0], [np.exp(-0.5 / 0.25), 1], rtol=1e-5)
    with pytest.raises(InferenceServerException, match=r"invalid: .*outside 0 to 1"):
        served.infer("match_va", {**asked, "TRACK_VA": asked["TRACK_VA"] + 1}, ["SCORE"])


def test_the_learned_match_is_the_predictors_on_the_towers_embeddings(served: Served, weights: Path) -> None:
    torch_towers, said = towers(weights), [SENTENCES[0], SENTENCES[1]]
    images, tracks = [picture(15), picture(16)], [sound(17, 6), sound(18, 6)]
    heard = {name: np.concatenate([windows(track)[name] for track in tracks]) for name in ("SOUND", "LENGTHS")}
    empty = texts("", "")
    of_pictures = served.infer("va_picture", {"IMAGE": texts(*images), "MEASUREMENTS": empty}, ["EMBEDDING", "VA"])
    of_sounds = served.infer("va_sound", {**heard, "MEASUREMENTS": empty}, ["EMBEDDING", "VA"])
    of_texts = served.infer("va_text", {"TEXT": texts(*said)}, ["EMBEDDING"])
    embeddings = np.stack([each["EMBEDDING"] for each in (of_pictures, of_sounds, of_texts)], axis=1)
    asked = {
        "ARTWORK_VA": of_pictures["VA"],
        "TRACK_VA": of_sounds["VA"],
        "SIGMA": np.full((2, 1), 0.34, np.float32),
        "EMBEDDINGS": embeddings,
    }
    found = served.infer("match_va", asked, ["SCORE", "LEARNED"])
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([pictures.network_input(image) for image in images]))
        clips = [mmva_inputs.clips_of(soxr.resample(track, 16_000, 24_000))[0] for track in tracks]
        seen, _ = torch_towers.picture(pixels)
        played, _ = torch_towers.sound(torch.from_numpy(np.stack(clips)))
        expected = torch_towers.similarity(torch.cat([seen, played, torch.from_numpy(embeddings[:, 2])], 1))
    np.testing.assert_allclose(embeddings[:, 0], seen, atol=1e-4)
    np.testing.assert_allclose(found["LEARNED"], expected, atol=1e-4)
    assert np.ptp(found["LEARNED"]) > 1e-4, "another triple matches otherwise"
    distance = np.linalg.norm(of_pictures["VA"] - of_sounds["VA"], axis=1)
    np.testing.assert_allclose(found["SCORE"][:, 0], np.exp(-distance / 0.34), rtol=1e-4)
    without = served.infer("match_va", {name: asked[name] for name in asked if name != "EMBEDDINGS"}, ["LEARNED"])
    assert np.isnan(without["LEARNED"]).all()


# -- valence and arousal without MMVA's towers ----------------------------------------------------------------


@pytest.fixture(scope="module")
def by_rule(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a repository in which nobody made MMVA's towers."""
    folder = copied(tmp_path_factory.mktemp("rule"), [*RULED, *reading.TOWERS])
    export.take_edge_files(folder, EDGE)
    assert export.note_towers(folder) == ""
    with serve(folder, tmp_path_factory.mktemp("rules")) as running:
        yield running


def test_without_towers_the_server_starts_and_reads_as_the_edge_profile_does(by_rule: Served) -> None:
    assert sorted(by_rule.models) == sorted(RULED) and triton.unhealthy_models(by_rule.process, by_rule.ports) == []
    edge = LocalModels(EDGE, threads=1)
    seen = edge.infer("measure_picture", {"IMAGE": texts(picture(1))}, ["MEASUREMENTS"])["MEASUREMENTS"]
    heard = edge.infer("measure_sound", windows(sound(2, 8)), ["MEASUREMENTS"])["MEASUREMENTS"]
    for kind, medium, measured in (("picture", {"IMAGE": texts("", "")}, seen), ("sound", NO_SOUND, heard)):
        asked = {**medium, "MEASUREMENTS": np.concatenate([measured, texts("")])}
        ours = by_rule.infer(f"va_{kind}", asked, ["VA", "EMBEDDING"])
        np.testing.assert_allclose(ours["VA"], edge.infer(f"va_{kind}", asked)["VA"], atol=1e-6)
        assert np.abs(ours["VA"][0] - 0.5).max() > 0.01 and ours["VA"][1] == pytest.approx(0.5)
        assert ours["EMBEDDING"].shape == (2, 0)
    said = texts(*SENTENCES, "")
    ours = by_rule.infer("va_text", {"TEXT": said}, ["VA"])["VA"]
    np.testing.assert_allclose(ours, edge.infer("va_text", {"TEXT": said})["VA"], atol=1e-5)
    assert np.ptp(ours, axis=0).min() > 0.01


def test_who_expects_the_other_reading_waits(by_rule: Served, served: Served) -> None:
    seen, measured = (
        {"IMAGE": texts(picture(1)), "MEASUREMENTS": texts("{}")},
        {**NO_SOUND, "MEASUREMENTS": texts("{}", "")},
    )
    with pytest.raises(InferenceServerException, match="unavailable: MMVA's towers are not served"):
        by_rule.infer("va_picture", seen, ["VA"])
    with pytest.raises(InferenceServerException, match="unavailable: MMVA's towers are not served"):
        by_rule.infer("va_sound", {**windows(sound(1, 1)), "MEASUREMENTS": texts("{}")}, ["VA"])
    with pytest.raises(InferenceServerException, match="unavailable: MMVA's towers are served here since"):
        served.infer("va_picture", {**seen, "IMAGE": texts("")}, ["VA"])
    with pytest.raises(InferenceServerException, match="unavailable: MMVA's towers are served here since"):
        served.infer("va_sound", measured, ["VA"])
    asked = {"ARTWORK_VA": np.full((1, 2), 0.5, np.float32), "TRACK_VA": np.full((1, 2), 0.5, np.float32)}
    asked |= {"SIGMA": np.ones((1, 1), np.float32)}
    assert by_rule.infer("match_va", asked, ["SCORE"])["SCORE"] == 1
    with pytest.raises(InferenceServerException, match=r"invalid: .*not made here: promenade train va"):
        by_rule.infer("match_va", {**asked, "EMBEDDINGS": np.ones((1, 3, 512), np.float32)}, ["LEARNED"])


def test_towers_that_are_not_all_of_one_training_are_not_noted(
    repository: tuple[Path, list[Made]], environment: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(repository[0].parent, tmp_path / "model_repository")
    folder = tmp_path / "model_repository" / "full"
    profile, note = folder.with_name("full_trained.toml"), reading.note_path(folder)
    assert tomllib.loads(profile.read_text()) == {"revision": tiny_senses.REVISION, "models": list(reading.TOWERS)}
    choices = Choices("va_text", {}, folder / "va_text" / "1", {})
    assert reading.reading_of(choices, folder / "va_text" / "1").version("1") == f"1@{tiny_senses.REVISION}"
    made = folder / "mmva_sound" / "1" / export.MADE
    before = made.read_text()
    made.write_text(json.dumps({**json.loads(before), "revision": "another"}))
    assert export.note_towers(folder) == "" and not profile.exists() and not note.exists()
    assert reading.reading_of(choices, folder / "va_text" / "1").version("1") == "1+edge-va"
    made.write_text(before)
    assert export.note_towers(folder) == tiny_senses.REVISION and profile.exists()
    # A tower that is made anew takes the note away until all are.
    made.unlink()
    assert export.export(folder, "mmva_sound", environment).fresh and not profile.exists() and not note.exists()
    for wanted, said in (("yes", "not made"), ("perhaps", "give auto, yes or no")):
        with pytest.raises(BadChoice, match=said):
            reading.reading_of(Choices("va_text", {"towers": wanted}, None, {}), folder / "va_text" / "1")


# -- captions ----------------------------------------------------------------------------------------------


def scored(served: Served, *rows: tuple[str, bytes, str, list[str]]) -> list[dict[str, Any]]:
    """SCORES of rows (kind, picture, caption, references)."""
    kinds, images, captions, references = zip(*rows, strict=True)
    asked = {
        "KIND": texts(*kinds),
        "IMAGE": texts(*images),
        "TEXT": texts(*captions),
        "REFERENCES": texts(*map(json.dumps, references)),
    }
    return [json.loads(each) for each in served.infer("score_caption", asked, ["SCORES"])["SCORES"][:, 0]]


def test_a_pictures_caption_has_the_score_of_the_formula(served: Served, weights: Path) -> None:
    image, caption = picture(8), SENTENCES[0]
    (found,) = scored(served, ("artwork", image, caption, []))
    tokens = ClipTokens(served.repository / "score_caption" / "1" / "clip_tokenizer.json")
    row = torch.from_numpy(tokens.row(tokens.numbers(f"A photo depicts {caption}")))[None]
    pixels = torch.from_numpy(pictures.network_input(image))[None]
    parts = []
    for name, factor in (("openai--clip-vit-base-patch32", 2.5), ("pacscore", 2.0)):
        model = clip_model(Weights(name, weights / name / tiny_senses.REVISION))
        with torch.inference_mode():
            seen = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
            read = model.text_projection(model.text_model(input_ids=row).pooler_output)
        parts.append(min(1.0, factor * max(0.0, float(torch.cosine_similarity(seen, read)))))
    assert found["parts"]["clip_score"] == pytest.approx(parts[0], abs=1e-4)
    assert found["parts"]["pac_score"] == pytest.approx(parts[1], abs=1e-4)
    assert found["score"] == pytest.approx(0.35 * parts[0] + 0.65 * parts[1], abs=1e-4)
    assert (found["truncated"], found["sentences"]) == (False, 1)


def test_a_long_caption_is_scored_to_its_end(served: Served) -> None:
    image = picture(9)
    head = "The wide river runs slowly through a warm and quiet valley in the evening. " * 6
    long, longer = head + SENTENCES[1], head + SENTENCES[2]
    first, second, single = scored(
        served, ("artwork", image, long, []), ("artwork", image, longer, []), ("artwork", image, SENTENCES[1], [])
    )
    assert first["sentences"] == 7 and not first["truncated"]
    assert first["score"] != second["score"] or first["parts"] != second["parts"], "the last sentence counts"
    (heads,) = scored(served, ("artwork", image, head, []))
    for part in ("clip_score", "pac_score"):
        mean = (6 * heads["parts"][part] + single["parts"][part]) / 7
        assert first["parts"][part] == pytest.approx(mean, abs=1e-4)


def test_a_tracks_text_is_scored_against_what_it_was_made_from(served: Served) -> None:
    same, partly, unlike = scored(
        served,
        ("track", b"", SENTENCES[1], [SENTENCES[1]]),
        ("track", b"", SENTENCES[1], [SENTENCES[1], SENTENCES[2]]),
        ("track", b"", SENTENCES[1], ["Nothing of that at all here"]),
    )
    assert same["parts"] == {"rouge_1": pytest.approx(1), "bert_score": pytest.approx(1, abs=1e-5)}
    assert same["score"] == pytest.approx(1, abs=1e-5)
    # All 9 words of the caption are among the 18 of both references.
    words, reference = 9, 9 + 9
    assert partly["parts"]["rouge_1"] == pytest.approx(2 * words / (words + reference))
    assert partly["score"] == pytest.approx(0.3 * partly["parts"]["rouge_1"] + 0.7 * partly["parts"]["bert_score"])
    assert unlike["parts"]["rouge_1"] == 0 and unlike["parts"]["bert_score"] < partly["parts"]["bert_score"] < 1


def test_a_row_is_scored_alone_as_among_others_of_both_kinds(served: Served) -> None:
    rows = [
        ("artwork", picture(10), SENTENCES[0], []),
        ("track", b"", SENTENCES[1], list(SENTENCES)),
        ("artwork", picture(11), SENTENCES[2] + " It rains. " * 40, []),
        ("track", b"", SENTENCES[2] * 60, list(SENTENCES)),
    ]
    together = scored(served, *rows)
    for row, found in zip(rows, together, strict=True):
        (alone,) = scored(served, row)
        assert alone["score"] == pytest.approx(found["score"], abs=1e-5)
        assert (alone["sentences"], alone["truncated"]) == (found["sentences"], found["truncated"])
    for row, reason in (
        (("artwork", b"", SENTENCES[0], []), "picture is empty"),
        (("track", b"", SENTENCES[0], []), "REFERENCES holds no text"),
        (("track", b"", " ", [SENTENCES[0]]), "TEXT is empty"),
        (("film", b"", SENTENCES[0], []), "KIND is 'film'"),
    ):
        with pytest.raises(InferenceServerException, match=f"invalid: .*{reason}"):
            scored(served, row)


def test_clip_and_clap_score_as_their_own_classes_do(served: Served, weights: Path) -> None:
    def call(model: str, inputs: Any, outputs: Any) -> dict[str, Any]:
        return served.infer(model, inputs, outputs)

    folder = served.repository
    images = [picture(20), picture(21, 300, 300)]
    clip = clip_model(Weights("clip", weights / "openai--clip-vit-base-patch32" / tiny_senses.REVISION))
    own = ClipTokens(folder / "score_caption" / "1" / "clip_tokenizer.json")
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([pictures.network_input(image) for image in images]))
        rows = torch.from_numpy(np.stack([own.row(own.numbers(text)) for text in SENTENCES]))
        expected = clip(pixel_values=pixels, input_ids=rows)
    np.testing.assert_allclose(scores.clip_pictures(call, images), expected.image_embeds.numpy(), atol=1e-4)
    np.testing.assert_allclose(scores.clip_texts(call, own, SENTENCES), expected.text_embeds.numpy(), atol=1e-4)

    clap_folder = weights / "laion--clap-htsat-unfused" / tiny_senses.REVISION
    clap = ClapModel.from_pretrained(clap_folder, local_files_only=True).eval()
    track = sound(22, 6)
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", frequency_min=50)
    samples = soxr.resample(track, 16_000, 48_000)
    features = extractor(samples, sampling_rate=48_000, return_tensors="pt")["input_features"]
    pairs = PairTokens(folder / "clap_text" / "1" / "tokenizer.json")
    tensors = {name: torch.from_numpy(value) for name, value in pairs.tensors(pairs.pieces(SENTENCES[0])).items()}
    with torch.inference_mode():
        expected = clap(input_features=features, input_ids=tensors["tokens"], attention_mask=tensors["mask"])
    np.testing.assert_allclose(scores.clap_sounds(call, [track]), expected.audio_embeds.numpy(), atol=1e-3)
    np.testing.assert_allclose(scores.clap_texts(call, pairs, SENTENCES[:1]), expected.text_embeds.numpy(), atol=1e-4)
    whole = scores.clap_sounds(call, [np.concatenate([sound(23, 10), sound(24, 10)]), sound(23, 10)])
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert not np.allclose(whole[0], whole[1], atol=1e-4), "the second half of a long sound counts"


def test_what_is_measured_is_measured_here_as_well(served: Served) -> None:
    answer = served.infer("measure_picture", {"IMAGE": texts(picture(12))}, ["MEASUREMENTS", "VECTOR"])
    assert json.loads(answer["MEASUREMENTS"][0, 0])["palette"] and answer["VECTOR"].shape == (1, 1280)
    heard = served.infer("measure_sound", windows(sound(13, 8)), ["MEASUREMENTS", "VECTOR"])
    assert "tempo" in json.loads(heard["MEASUREMENTS"][0, 0]) and heard["VECTOR"].shape == (1, 400)


def test_rows_beyond_a_networks_batch_are_answered(served: Served) -> None:
    caption = "A bird sings. " * 60  # more sentences than one call of a network takes
    (found,) = scored(served, ("artwork", picture(14), caption + "x " * 80, []))
    assert found["sentences"] >= 60
    assert CONTEXT == 77


def test_choices_are_read_from_the_environment_first(weights: Path) -> None:
    parameters = {"weights": "openai/clip-vit-base-patch32", "precision": "bf16", "batch": "4"}
    given = {"PROMENADE_WEIGHTS": str(weights), "PROMENADE_MODELS_PRECISION": "fp16", "PROMENADE_X_BATCH": "9"}
    choices = Choices("x", parameters, None, given)
    found = choices.weights()
    assert (found.name, found.revision) == ("openai/clip-vit-base-patch32", tiny_senses.REVISION)
    assert (choices.precision(), choices.batch(1), choices.dtype()) == ("fp16", 9, torch.float16)
    assert Choices("x", {"device": "cpu"}, None, {}).device() == "cpu"
    assert replace(found, name="other").folder == found.folder
    with pytest.raises(BadChoice, match="one of fp32, fp16, bf16"):
        Choices("x", {"precision": "int4"}, None, {}).precision()
    with pytest.raises(BadChoice, match="whole number"):
        Choices("x", {"batch": "many"}, None, {}).batch(1)
    with pytest.raises(BadChoice, match="auto, cpu, cuda"):
        Choices("x", {"device": "gpu"}, None, {}).device()


def test_missing_weights_say_what_where_and_what_to_do(tmp_path: Path) -> None:
    def asked(value: str) -> None:
        Choices("clip_text", {"weights": value}, None, {"PROMENADE_WEIGHTS": str(tmp_path)}).weights()

    with pytest.raises(
        MissingWeights, match=r"clip_text needs the weights a/b, looked for in .*a--b.*nothing is there"
    ):
        asked("a/b")
    with pytest.raises(MissingWeights, match="Nobody publishes them; run: promenade train va"):
        asked("mmva")
    (tmp_path / "a--b" / "one").mkdir(parents=True)
    with pytest.raises(MissingWeights, match="only an unfinished download is there"):
        asked("a/b")
    for revision in ("one", "two"):
        folder = tmp_path / "a--b" / revision
        folder.mkdir(exist_ok=True)
        (folder / "fetched.json").write_text(json.dumps({"revision": revision}))
    with pytest.raises(MissingWeights, match=r"several revisions \(one, two\): set PROMENADE_CLIP_TEXT_WEIGHTS"):
        asked("a/b")
    asked("a/b@two")
    with pytest.raises(MissingWeights, match="does not exist"):
        asked(os.fspath(tmp_path / "elsewhere"))
    with pytest.raises(MissingWeights, match=r"lack model\.onnx"):
        Weights("a/b", tmp_path).file("model.onnx")
