"""The composers of the full profile through the real model server, at a tiny size: streamed, cancelled, refused.

Art2Mus, Mozart's Touch and MMVA are the served ones; the models that they ask (ImageBind, Qwen3, MMVA's text tower),
which have tests of their own, are stand-ins of a few lines.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models.music.serving import EdgeComposer
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.models import tiny_music
from tests.models.serving_senses import FULL, copied, serve
from tests.models.tiny_music import CAPTION, VECTOR, question
from tests.serving_fixtures import Served

COMPOSERS = ("compose_music", "compose_mozarts_touch", "compose_mmva")
WORDS = "Slow music for strings and piano, soft and warm."

EMBED = f"""
import numpy as np
from edge_models.triton_model import RowModel
class TritonPythonModel(RowModel):
    inputs = ("SOUND", "LENGTHS", "TEXT")
    outputs = {{"VECTOR": np.float32}}
    def answer(self, rows):
        return [{{"VECTOR": np.random.default_rng(int(abs(row["SOUND"]).sum() * 10) % 99).normal(size={VECTOR})}}
                for row in rows]
"""
WRITE = f"""
import json
from edge_models.triton_model import Invalid, RowModel
class TritonPythonModel(RowModel):
    inputs = ("MESSAGES", "SETTINGS")
    outputs = {{"TEXT": object, "ENDING": object}}
    def answer(self, rows):
        said = [json.loads(row["MESSAGES"][0])[-1]["content"] for row in rows]
        return [Invalid("no words for this") if "nothing" in each else {{"TEXT": "{WORDS}", "ENDING": "complete"}}
                for each in said]
"""
READ = """
import hashlib
import numpy as np
from edge_models.triton_model import RowModel
class TritonPythonModel(RowModel):
    inputs = ("TEXT",)
    outputs = {"VA": np.float32}
    def answer(self, rows):
        return [{"VA": np.frombuffer(hashlib.sha256(row["TEXT"][0]).digest()[:2], np.uint8) / 255} for row in rows]
"""


def stand_in(repository: Path, name: str, code: str, tensors: str) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    (version.parent / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 64\n{tensors}\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the three composers, with tiny weights."""
    folder = tmp_path_factory.mktemp("composers")
    weights = tiny_music.weights(folder)
    repository = copied(folder, COMPOSERS)
    text, many = "data_type: TYPE_STRING dims: [ 1 ]", "data_type: TYPE_FP32 dims: [ -1, -1 ]"
    stand_in(
        repository,
        "embed_sound",
        EMBED,
        f'input [ {{ name: "SOUND" {many} }}, {{ name: "LENGTHS" data_type: TYPE_INT32 dims: [ -1 ] }}, '
        f'{{ name: "TEXT" {text} }} ]\noutput [ {{ name: "VECTOR" data_type: TYPE_FP32 dims: [ {VECTOR} ] }} ]',
    )
    stand_in(
        repository,
        "write_text",
        WRITE,
        f'input [ {{ name: "MESSAGES" {text} }}, {{ name: "SETTINGS" {text} }} ]\n'
        f'output [ {{ name: "TEXT" {text} }}, {{ name: "ENDING" {text} }} ]',
    )
    stand_in(
        repository,
        "va_text",
        READ,
        f'input [ {{ name: "TEXT" {text} }} ]\noutput [ {{ name: "VA" data_type: TYPE_FP32 dims: [ 2 ] }} ]',
    )
    environment = {
        "PROMENADE_COMPOSE_MUSIC_WEIGHTS": str(weights / "audioldm2"),
        "PROMENADE_COMPOSE_MUSIC_WEIGHTS_ALIGNER": str(weights / "aligner"),
        "PROMENADE_MODELS_PRECISION": "fp32",
        "PROMENADE_MODELS_DEVICE": "cpu",
        "PROMENADE_COMPOSE_MUSIC_STEPS": "4",
        "PROMENADE_COMPOSE_MUSIC_SOLVER": "fast",
        "PROMENADE_COMPOSE_MUSIC_CANDIDATES": "2",
        "PROMENADE_COMPOSE_MMVA_SEARCH": "descent",
    }
    with serve(repository, folder, environment) as running:
        yield running


class Listening:
    """One request's answers as they come."""

    def __init__(self, served: Served, model: str, tensors: Mapping[str, Any]) -> None:
        self.client = grpc.InferenceServerClient(f"127.0.0.1:{served.ports.grpc}")
        self.sound: list[Any] = []
        self.moments: list[float] = []
        self.report: dict[str, Any] | None = None
        self.trouble: InferenceServerException | None = None
        self.begun = time.monotonic()
        self.first = threading.Event()
        self.done = threading.Event()
        self.client.start_stream(self._hear)
        inputs = []
        for name, value in tensors.items():
            tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(value))
            inputs.append(tensor)
        self.client.async_stream_infer(model, inputs, enable_empty_final_response=True)

    def _hear(self, result: Any, error: InferenceServerException | None) -> None:
        if error is not None:
            self.trouble = error
            self.done.set()
            return
        samples, text = result.as_numpy("SAMPLES"), result.as_numpy("REPORT")
        if samples is not None and len(samples):
            self.sound.append(samples)
            self.moments.append(time.monotonic() - self.begun)
            self.first.set()
        if text is not None and text.size and text.reshape(-1)[0]:
            self.report = json.loads(text.reshape(-1)[0])
        final = result.get_response().parameters.get("triton_final_response")
        if final is not None and final.bool_param:
            self.done.set()

    def whole(self, seconds: float = 120.0) -> tuple[Any, dict[str, Any]]:
        """The piece and its report."""
        assert self.done.wait(seconds)
        self.close()
        if self.trouble is not None:
            raise self.trouble
        assert self.report is not None
        return np.concatenate(self.sound), self.report

    def close(self, cancel: bool = False) -> None:
        self.client.stop_stream(cancel_requests=cancel)
        self.client.close()


def test_every_composer_goes_the_whole_way(served: Served) -> None:
    said = {}
    for model in COMPOSERS:
        sound, report = Listening(served, model, question(6.0, 3)).whole()
        assert sound.shape == (6 * 48_000, 2) and sound.dtype == np.float32
        assert np.isfinite(sound).all() and np.abs(sound).max() <= 1.0 and sound.std() > 1e-4
        said[model] = report
    assert [each["model"] for each in said.values()] == ["art2mus", "mozarts-touch", "mmva"]
    assert said["compose_music"]["conditioning"] == "picture" and said["compose_music"]["prompt"] is None
    assert said["compose_mozarts_touch"]["prompt"] == WORDS and said["compose_mozarts_touch"]["caption"] == CAPTION
    assert said["compose_mmva"]["prompt"].startswith("A piece of ")
    for report in said.values():
        assert len(report["scores"]) == 2 and report["steps"] == 4 and report["solver"] == "fast"
        assert report["chosen"] == int(np.argmax(report["scores"]))


def test_the_same_question_is_the_same_samples_and_its_parts_come_as_they_are_made(served: Served) -> None:
    asked = question(30.0, 5, steps=10, candidates=1)
    one, two = Listening(served, "compose_music", asked), Listening(served, "compose_music", asked)
    first, _ = one.whole()
    second, _ = two.whole()
    assert np.array_equal(first, second)
    # 30 s are four windows; the first is heard while the others are still to be made.
    assert len(one.moments) == 30 and one.moments[0] < 0.6 * one.moments[-1]


def test_a_person_goes_before_the_background(served: Served) -> None:
    background = Listening(served, "compose_music", question(30.0, 1, live=False, steps=12, candidates=1))
    assert background.first.wait(60)
    live = Listening(served, "compose_music", question(5.0, 2, steps=4, candidates=1))
    live.whole()
    assert not background.done.is_set()
    sound, _ = background.whole()
    assert len(sound) == 30 * 48_000


@pytest.mark.parametrize("model", COMPOSERS)
def test_a_piece_that_is_cancelled_makes_room(served: Served, model: str) -> None:
    long = Listening(served, model, question(180.0, 1, steps=1000, candidates=1))
    time.sleep(1.0)
    long.close(cancel=True)
    # A piece takes the whole device: this one waits until the other has gone, which would take minutes.
    begun = time.monotonic()
    Listening(served, "compose_music", question(5.0, 2, steps=2, candidates=1)).whole(60)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("model", "tensors", "words"),
    [
        ("compose_music", question(3.0), "seconds must be between 5 and 180"),
        ("compose_music", question(vector=np.ones(9, np.float32)), "holds 9 numbers"),
        ("compose_music", question(tempo=96), "the wish 'tempo' is not known here"),
        ("compose_mozarts_touch", question(prompt="mine"), "the wish 'prompt' is not known here"),
        ("compose_mozarts_touch", question(0.0), "seconds must be between 5 and 180"),
        ("compose_mmva", question(steps=0), "a whole number from 1 to 1000"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_plain_words(
    served: Served, model: str, tensors: dict[str, Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=f"invalid: .*{words}"):
        Listening(served, model, tensors).whole()


def test_a_refusal_of_a_model_that_is_asked_is_handed_on(served: Served) -> None:
    silent = question()
    silent["TEXTS"] = silent["TEXTS"].copy()
    silent["TEXTS"][4] = b"nothing to be seen"
    with pytest.raises(InferenceServerException, match=r"invalid: .*no words for this"):
        Listening(served, "compose_mozarts_touch", silent).whole()


def test_a_refusal_comes_at_once_while_a_piece_is_made(served: Served) -> None:
    long = Listening(served, "compose_music", question(120.0, 1, steps=200, candidates=1))
    time.sleep(0.5)
    begun = time.monotonic()
    with pytest.raises(InferenceServerException, match="invalid: "):
        Listening(served, "compose_music", question(0.0)).whole()
    # The pipeline asks so whether a silent composer lives, and gives it five seconds.
    assert time.monotonic() - begun < 3
    long.close(cancel=True)


def test_the_edge_composer_is_the_same_under_this_profile(tmp_path: Path) -> None:
    built = FULL.parent / "edge" / "compose_music" / "1"
    if not all((built / name).exists() for name in EdgeComposer.files):
        pytest.skip("the edge models are not built (promenade models build)")
    repository = copied(tmp_path, ["compose_edge"])
    for name in EdgeComposer.files:
        shutil.copy(built / name, repository / "compose_edge" / "1" / name)
    with serve(repository, tmp_path) as served:
        sound, report = Listening(served, "compose_edge", question(6.0, 3)).whole()
    edge = EdgeComposer()
    edge.folder, edge.version = built, "1"
    ask, _ = edge.read(question(6.0, 3))
    *blocks, said = edge.compose(ask, edge.tools(), lambda: None)
    assert np.array_equal(sound, np.concatenate([np.asarray(block) for block in blocks]))
    assert isinstance(said, dict) and (report["key"], report["notes"]) == (said["key"], said["notes"])
