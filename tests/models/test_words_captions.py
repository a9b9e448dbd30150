"""caption_picture, caption_sound, score_emotion and write_text as Triton's Python models, in one process.

The models' own `model.py` and `config.pbtxt` are run as the model server runs them; `va_text` alone is a stand-in
(it belongs to another family of models, and its tensors are fixed).
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models.local import LocalModels
from edge_models.triton_model import Array, Invalid
from full_models import fusion
from full_models.caption_picture import known, opened
from full_models.caption_sound import SoundCaptions, chunks_of, windows_of
from full_models.sentences import is_complete
from full_models.weights import BadChoice
from full_models.writing import Asking, Written, column, read_messages, read_settings, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.models import tiny_words

REPOSITORY = Path(__file__).parents[2] / "model_repository" / "full"

VA_TEXT = '''
"""va_text, as far as its tensors go: valence from a text's length, arousal from its first letter."""
import numpy as np
from edge_models.triton_model import RowModel, each, text


class TritonPythonModel(RowModel):
    inputs = ("TEXT",)
    outputs = {"VA": np.float32}

    def answer(self, rows):
        return each(lambda row: {"VA": np.array([len(text(row["TEXT"], "TEXT")) % 7 / 7, 0.5])}, rows)
'''
VA_TEXT_CONFIG = """
name: "va_text"
backend: "python"
max_batch_size: 64
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "VA" data_type: TYPE_FP32 dims: [ 2 ] } ]
dynamic_batching { }
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "version" value: { string_value: "1" } }
"""


def place(repository: Path, name: str, **parameters: str) -> None:
    """Put a model into a repository, with settings for its config.pbtxt."""
    shutil.copytree(REPOSITORY / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = repository / name / "config.pbtxt"
    given_here = "".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )
    kept = [line for line in path.read_text().splitlines() if not any(f'key: "{key}"' in line for key in parameters)]
    path.write_text("\n".join(kept) + "\n" + given_here)


def place_va_text(repository: Path) -> None:
    """Put the stand-in of va_text into a repository."""
    (repository / "va_text" / "1").mkdir(parents=True)
    (repository / "va_text" / "1" / "model.py").write_text(VA_TEXT)
    (repository / "va_text" / "config.pbtxt").write_text(VA_TEXT_CONFIG)


def jpeg(colour: str, width: int = 80, height: int = 60) -> bytes:
    """A picture of one colour as a file's bytes."""
    target = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(target, "JPEG")
    return target.getvalue()


def sound(*seconds: float) -> tuple[Array, Array]:
    """Windows of tones, one longer than the other: SOUND [1, W, N] and LENGTHS [1, W]."""
    lengths = [int(each * 16_000) for each in seconds]
    windows = np.zeros((1, len(lengths), max(lengths)), np.float32)
    for place_, length in enumerate(lengths):
        windows[0, place_, :length] = 0.3 * np.sin(np.arange(length) * 2 * np.pi * 220 * (place_ + 1) / 16_000)
    return windows, np.array([lengths], np.int32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tiny weights, a folder each."""
    root = tmp_path_factory.mktemp("weights")
    tiny_words.writer(root / "writer")
    tiny_words.qwen_pictures(root / "qwen-pictures")
    tiny_words.llava_pictures(root / "llava-pictures")
    tiny_words.qwen_sounds(root / "qwen-sounds")
    tiny_words.music_captioner(root / "chunks")
    return root


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Same words on every machine, whether it has a GPU or not."""
    monkeypatch.setenv("PROMENADE_MODELS_DEVICE", "cpu")
    yield


def pictures(weights: Path, repository: Path, captioner: str) -> LocalModels:
    folder = {"qwen2.5-vl": "qwen-pictures", "llava-1.6": "llava-pictures"}[captioner]
    place(
        repository, "caption_picture", captioner=captioner, weights=str(weights / folder), tokens="12", continued="8"
    )
    return LocalModels(repository)


def picture_rows(*images: bytes, catalogue: str = "", prompt: str = "Describe this.") -> dict[str, Array]:
    image = np.empty((len(images), 1), object)
    image[:, 0] = images
    return {
        "IMAGE": image,
        "PART": column(["whole"] * len(images)),
        "PROMPT": column([prompt] * len(images)),
        "CATALOGUE": column([catalogue] * len(images)),
        "MEASUREMENTS": column([""] * len(images)),
    }


@pytest.mark.parametrize("captioner", ["qwen2.5-vl", "llava-1.6"])
def test_pictures_get_captions_that_end_at_a_sentence(captioner: str, weights: Path, tmp_path: Path) -> None:
    models = pictures(weights, tmp_path, captioner)
    rows = picture_rows(jpeg("red"), jpeg("blue", 40, 120), jpeg("green", 300, 200))
    together = models.infer("caption_picture", rows)
    for row in range(3):
        text = together["TEXT"][row, 0].decode()
        phrases = json.loads(together["PHRASES"][row, 0])
        assert is_complete(text)
        assert phrases["phrases"] == [] and phrases["ending"] in ("complete", "continued", "trimmed", "closed")
        alone = models.infer("caption_picture", {name: each[row : row + 1] for name, each in rows.items()})
        assert alone["TEXT"][0, 0] == together["TEXT"][row, 0]
    assert len(set(together["TEXT"][:, 0])) == 3


def test_what_people_say_of_a_work_and_what_is_asked_change_the_caption(weights: Path, tmp_path: Path) -> None:
    models = pictures(weights, tmp_path, "qwen2.5-vl")
    said = {
        models.infer("caption_picture", picture_rows(jpeg("red"), **given_))["TEXT"][0, 0]
        for given_ in (
            {},
            {"catalogue": '{"title": "Harbour", "artist": "Anna", "licence": "CC0"}'},
            {"prompt": "Describe only its colours."},
            {"prompt": ""},
        )
    }
    assert len(said) == 4


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"", "reads media"),
        (b"no picture", "cannot be decoded"),
        (jpeg("red")[:300], "cannot be decoded"),
        (jpeg("red", 2000, 10), "too long and thin"),
    ],
)
def test_a_picture_that_cannot_be_seen_is_refused_alone(
    image: bytes, why: str, weights: Path, tmp_path: Path
) -> None:
    models = pictures(weights, tmp_path, "qwen2.5-vl")
    with pytest.raises(Invalid, match=why):
        models.infer("caption_picture", picture_rows(image))
    model: Any = models._model("caption_picture")
    good = picture_rows(jpeg("red"))
    refused, answered = model.answer_requests([picture_rows(image), good])
    assert isinstance(refused, Invalid) and answered["TEXT"][0, 0]


def test_pictures_are_made_smaller_only_where_they_are_too_large() -> None:
    assert opened(jpeg("red", 800, 400), 448 * 448).size == (633, 316)
    assert opened(jpeg("red", 80, 40), 448 * 448).size == (80, 40)


def test_what_is_known_is_told_in_one_sentence_without_the_licence() -> None:
    told = known({"title": "A\n harbour", "artist": "Anna", "year": None, "licence": "CC0"})
    assert told == "What is known of it: its title is “A harbour”; it is by Anna."
    assert known({"licence": "CC0"}) == "" == known({})


def test_an_unknown_captioner_is_named(weights: Path, tmp_path: Path) -> None:
    place(tmp_path, "caption_picture", captioner="blip", weights=str(weights / "qwen-pictures"))
    with pytest.raises(BadChoice, match=r"qwen2\.5-vl"):
        LocalModels(tmp_path).infer("caption_picture", picture_rows(jpeg("red")))


def sounds(weights: Path, repository: Path, captioner: str) -> LocalModels:
    place(repository, "write_text", weights=str(weights / "writer"))
    place(
        repository,
        "caption_sound",
        captioner=captioner,
        weights=str(weights / "qwen-sounds"),
        weights_chunks=str(weights / "chunks" / "checkpoint"),
        weights_words=str(weights / "chunks" / "words"),
        tokens="12",
        continued="8",
    )
    return LocalModels(repository)


def sound_rows(windows: Array, lengths: Array) -> dict[str, Array]:
    rows = len(windows)
    return {
        "SOUND": windows,
        "LENGTHS": lengths,
        "PART": column(["whole"] * rows),
        "PROMPT": column(["Describe this."] * rows),
        "CATALOGUE": column([""] * rows),
        "MEASUREMENTS": column([""] * rows),
    }


@pytest.mark.parametrize(
    ("captioner", "seconds", "stretches"),
    [
        ("qwen2-audio", (4.0,), 0),
        ("qwen2-audio", (4.0, 3.0), 2),
        ("lp-musiccaps", (8.0,), 0),
        ("lp-musiccaps", (21.0, 9.0), 4),
        ("both", (12.0,), 3),
    ],
)
def test_all_windows_and_chunks_are_heard_and_fused_into_one_text(
    captioner: str, seconds: tuple[float, ...], stretches: int, weights: Path, tmp_path: Path
) -> None:
    models = sounds(weights, tmp_path, captioner)
    rows = sound_rows(*sound(*seconds))
    said = models.infer("caption_sound", rows)
    text, phrases = said["TEXT"][0, 0].decode(), json.loads(said["PHRASES"][0, 0])
    assert is_complete(text)
    assert phrases["ending"] in ("complete", "continued", "trimmed", "closed")
    assert [confidence for _, confidence in phrases["phrases"]] == [1.0] * stretches
    assert all(is_complete(each) for each, _ in phrases["phrases"])
    if stretches:
        # It is the writer's answer to these stretches, and nothing else.
        asked = fusion.messages([each for each, _ in phrases["phrases"]], "Describe this.")
        (written,) = write(models.infer, [asked], Asking(tokens=12, continued=8, repetition=1.05, sentences=True))
        assert isinstance(written, Written) and (text, phrases["ending"]) == (written.text, written.ending)
    # A change in the last second alone is heard.
    changed = rows["SOUND"].copy()
    end = rows["LENGTHS"][0, -1]
    changed[0, -1, end - 16_000 : end] = np.random.default_rng(0).normal(0, 0.5, 16_000)
    assert models.infer("caption_sound", {**rows, "SOUND": changed})["TEXT"][0, 0] != said["TEXT"][0, 0]


@pytest.mark.parametrize("captioner", ["qwen2-audio", "both"])
def test_tracks_in_a_batch_are_captioned_as_alone(captioner: str, weights: Path, tmp_path: Path) -> None:
    models = sounds(weights, tmp_path, captioner)
    windows, _ = sound(3.0, 3.0)
    batch = np.concatenate([windows, windows[:, ::-1], windows * 0.5])
    lengths = np.array([[48_000, 40_000], [48_000, 0], [20_000, 48_000]], np.int32)
    rows = sound_rows(batch, lengths)
    together = models.infer("caption_sound", rows)
    for row in range(3):
        alone = models.infer("caption_sound", {name: each[row : row + 1] for name, each in rows.items()})
        assert alone["TEXT"][0, 0] == together["TEXT"][row, 0]
        assert alone["PHRASES"][0, 0] == together["PHRASES"][row, 0]


@pytest.mark.parametrize(
    ("windows", "lengths", "why"),
    [
        (np.zeros((1, 4), np.float32), np.array([0], np.int32), "no sound"),
        (np.zeros((1, 1), np.float32), np.array([0], np.int32), "reads media"),
        (np.zeros((1, 4), np.float32), np.array([5], np.int32), "LENGTHS"),
        (np.zeros((2, 4), np.float32), np.array([4], np.int32), "do not fit"),
        (np.full((1, 4), np.nan, np.float32), np.array([4], np.int32), "not finite"),
        (np.zeros((1, 480_001), np.float32), np.array([4], np.int32), "30 s"),
    ],
)
def test_what_is_no_sound_is_refused(windows: Array, lengths: Array, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        windows_of(windows, lengths)


@given(st.integers(1, 100), st.integers(1, 12))
def test_chunks_hold_every_sample_and_the_tail(length: int, samples: int) -> None:
    window = np.arange(1, length + 1, dtype=np.float32)
    chunks = chunks_of(window, samples)
    assert chunks.shape[1] == samples
    assert set(window.tolist()) <= set(chunks.reshape(-1).tolist())
    assert len(chunks) == max(1, -(-length // samples))
    # Silence only where the window is shorter than a chunk.
    assert (chunks == 0).sum() == max(0, samples - length)


class CountingChunks:
    """A captioner of chunks that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def caption(self, chunks: Array) -> list[str]:
        self.asked.append(len(chunks))
        return [f"A tone of {float(np.abs(chunk).max()):.3f}" for chunk in chunks]


def test_a_caption_that_is_asked_for_again_fuses_the_chunks_that_were_heard() -> None:
    chunks, asked = CountingChunks(), []

    def writer(model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        asked.extend(json.loads(each)[1]["content"] for each in inputs["MESSAGES"][:, 0])
        return {"TEXT": column(["One text."] * len(inputs["MESSAGES"])), "ENDING": column(["complete"])}

    captions = SoundCaptions(None, chunks, Asking(), 2, writer)
    windows, lengths = sound(25.0)
    windows[0, 0] *= np.linspace(0.1, 1, windows.shape[2])
    for prompt in ("Describe.", "The last one failed: say more of the tempo."):
        (said,) = captions.describe([captions.heard(windows[0], lengths[0], prompt, '{"title": "Air"}')])
        assert not isinstance(said, Invalid)
        assert said.text == "One text." and len(said.stretches) == 3
        # Without a full stop from the captioner, with one here.
        assert all(each.startswith("A tone of") and is_complete(each) for each in said.stretches)
    assert chunks.asked == [2, 1]
    assert "say more of the tempo" in asked[1] and "“Air”" in asked[1] and "Stretch 3: A tone of" in asked[1]


def test_a_caption_without_a_word_is_refused() -> None:
    class Silent:
        def caption(self, chunks: Array) -> list[str]:
            return ["..."] * len(chunks)

    captions = SoundCaptions(None, Silent(), Asking(), 2, lambda *_: pytest.fail("nothing to fuse"))
    windows, lengths = sound(12.0)
    (said,) = captions.describe([captions.heard(windows[0], lengths[0], "", "")])
    assert isinstance(said, Invalid) and "without a word" in str(said)


def test_many_stretches_are_thinned_evenly_with_the_first_and_the_last() -> None:
    asked = fusion.messages([f"Note {number}." for number in range(200)], "")[1]["content"]
    notes = [line.split(": Note ")[1] for line in asked.splitlines() if line.startswith("Stretch")]
    assert len(notes) == fusion.MOST_STRETCHES and notes[0] == "0." and notes[-1] == "199."


GOOD = "RGB: (1,2,3) (40,50,60) (7,8,9) (100,200,250) (255,0,12)"
TEXTS = ("A calm sea.", "A red sail.", "A pier.", "A pale sky.", "A quiet harbour at dusk.")


def emotion_rows(*kinds: str) -> dict[str, Array]:
    texts = np.empty((len(kinds), 5), object)
    texts[:] = [[each.encode() for each in TEXTS]]
    empty = np.full((len(kinds), 5), b"", object)
    return {"TEXTS": texts, "PHRASES": empty, "MEASUREMENTS": empty, "KIND": column(list(kinds))}


def taught_writer(weights: Path, folder: Path, lessons: Sequence[tuple[Sequence[Mapping[str, str]], str]]) -> Path:
    """A writer that answers these conversations with these words, in a folder of its own."""
    import torch
    from full_models.chat import Question, Writer

    shutil.copytree(weights / "writer", folder)
    speaker = Writer.load(folder, dtype=torch.float32, device="cpu", batch=1)
    tiny_words.teach(speaker, [(Question(messages), words) for messages, words in lessons])
    speaker.model.save_pretrained(folder)
    return folder


def lessons() -> list[tuple[Sequence[Mapping[str, str]], str]]:
    """A picture is scored at the second try; a track never."""
    from full_models.score_emotion import _AGAIN, Item

    picture, track = (Item.of(TEXTS, kind).conversation() for kind in ("artwork", "track"))
    picture_again = [
        *picture,
        {"role": "assistant", "content": "Calm."},
        {"role": "user", "content": _AGAIN.format(fault="it has no triples")},
    ]
    track_again = [
        *track,
        {"role": "assistant", "content": "Sad."},
        {"role": "user", "content": _AGAIN.format(fault="it has no triples")},
    ]
    return [(picture, "Calm."), (picture_again, GOOD), (track, "Sad."), (track_again, "Very sad.")]


def test_the_emotion_line_is_asked_again_of_the_real_writer_and_then_read_or_refused(
    weights: Path, tmp_path: Path
) -> None:
    place(tmp_path / "models", "write_text", weights=str(taught_writer(weights, tmp_path / "taught", lessons())))
    place(tmp_path / "models", "score_emotion", attempts="2")
    place_va_text(tmp_path / "models")
    models = LocalModels(tmp_path / "models")
    scored = models.infer("score_emotion", emotion_rows("artwork"))
    assert scored["RGB"].tolist() == [[[1, 2, 3], [40, 50, 60], [7, 8, 9], [100, 200, 250], [255, 0, 12]]]
    assert scored["VA"].shape == (1, 5, 2) and scored["VA"][0, 0, 1] == 0.5
    evidence = json.loads(scored["EVIDENCE"][0, 4])
    assert evidence[0]["asked"] == 2 and evidence[0]["reply"] == GOOD
    with pytest.raises(Invalid, match=r"asked 2 times.*no triples.*Very sad"):
        models.infer("score_emotion", emotion_rows("track"))
    # In one batch of the server the one that is refused does not spoil the other.
    model: Any = models._model("score_emotion")
    refused, answered = model.answer_requests([emotion_rows("track"), emotion_rows("artwork")])
    assert isinstance(refused, Invalid) and np.array_equal(answered["RGB"], scored["RGB"])


def test_the_writer_answers_rows_with_their_own_settings(weights: Path, tmp_path: Path) -> None:
    place(tmp_path, "write_text", weights=str(weights / "writer"))
    models = LocalModels(tmp_path)
    asked = [json.dumps([{"role": "user", "content": words}]) for words in ("Describe.", "Describe a sea.")]
    settings = ['{"tokens": 6}', '{"tokens": 9, "sentences": true, "temperature": 3, "seed": 4}']
    rows = {"MESSAGES": column(asked), "SETTINGS": column(settings)}
    together = models.infer("write_text", rows)
    for row in range(2):
        alone = models.infer("write_text", {name: each[row : row + 1] for name, each in rows.items()})
        assert alone["TEXT"][0, 0] == together["TEXT"][row, 0]
    assert together["ENDING"][0, 0] == b"" and together["ENDING"][1, 0] in (b"trimmed", b"closed", b"complete")


@pytest.mark.parametrize(
    ("messages", "settings", "why"),
    [
        ("no", "", "MESSAGES is not JSON"),
        ("[]", "", "list of messages"),
        ('[{"role": "user"}]', "", "a message is"),
        ('[{"role": "robot", "content": "a"}]', "", "a message is"),
        ('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]', "", "last message"),
        ('[{"role": "user", "content": "a"}]', "[]", "SETTINGS"),
        ('[{"role": "user", "content": "a"}]', '{"beams": 3}', "SETTINGS"),
        ('[{"role": "user", "content": "a"}]', '{"tokens": 0}', "tokens"),
        ('[{"role": "user", "content": "a"}]', '{"tokens": true}', "whole numbers"),
        ('[{"role": "user", "content": "a"}]', '{"temperature": NaN}', "temperature"),
        ('[{"role": "user", "content": "a"}]', '{"top_p": 0}', "top_p"),
    ],
)
def test_a_question_that_is_none_is_refused(messages: str, settings: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read_messages(messages)
        read_settings(settings)
