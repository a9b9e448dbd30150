"""The gates of captions through a real model server: a captioner and a scorer with the full profile's tensors, made
of a few lines, so that every byte goes the way that the real ones' go.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.inference import Inference
from schemas.failures import Lasting, Passing
from schemas.media import Kind, parts_of
from schemas.records import CaptionBody
from tests.made_world import MadeInference
from tests.serving_fixtures import ENVIRONMENT, Served, running
from tests.test_gates import GATED, Item, job_of
from workers import caption as of_captions
from workers.contract import Array, Tools
from workers.models import Models

FULL = Path(of_captions.__file__).parents[1] / "model_repository" / "full"

CAPTIONER = """
import json
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    # The caption says which part it is of, how large the medium is, and whether a fault was named.
    def execute(self, requests):
        answers = []
        for request in requests:
            read = lambda name: pb.get_input_tensor_by_name(request, name).as_numpy()
            medium = [len(row[0]) for row in read("IMAGE")] if self.picture else [row.size for row in read("SOUND")]
            texts, phrases = [], []
            for part, prompt, size in zip(read("PART")[:, 0], read("PROMPT")[:, 0], medium):
                tries = prompt.decode().count("not accepted")
                texts.append(f"Größe {size}, {part.decode()}, Fehler {tries}.".encode())
                phrases.append(json.dumps({"phrases": [[f"heard {tries}", 1.0]], "ending": "complete"}).encode())
            column = lambda values: np.array([[value] for value in values], dtype=object)
            answers.append(pb.InferenceResponse([
                pb.Tensor("TEXT", column(texts)), pb.Tensor("PHRASES", column(phrases))]))
        return answers

    def initialize(self, args):
        self.picture = args["model_name"] == "caption_picture"
"""

SCORER = """
import json
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    # Good is a caption that tells the size of its picture after one fault was named, or names what was heard.
    def execute(self, requests):
        answers = []
        for request in requests:
            read = lambda name: [row[0] for row in pb.get_input_tensor_by_name(request, name).as_numpy()]
            told = []
            for kind, image, text, references in zip(*map(read, ("KIND", "IMAGE", "TEXT", "REFERENCES"))):
                text, references = text.decode(), json.loads(references)
                if kind == b"artwork":
                    fits = f"Größe {len(image)}," in text and not references
                else:
                    fits = not image and len(references) == 1
                value = 0.5 * fits + 0.4 * ("Fehler 1" in text) * fits
                if "part-2" in text or "top-right" in text:
                    value = 0.3
                told.append(json.dumps({"score": value, "parts": {"any": value}, "sentences": 1, "truncated": False}))
            column = np.array([[each.encode()] for each in told], dtype=object)
            answers.append(pb.InferenceResponse([pb.Tensor("SCORES", column)]))
        return answers
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the made captioners and the made scorer, under the full profile's own configurations."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        pytest.skip("the serving environment .serving is missing (make setup)")
    folder = tmp_path_factory.mktemp("gates")
    models = {"caption_picture": CAPTIONER, "caption_sound": CAPTIONER, "score_caption": SCORER}
    for name, code in models.items():
        version = folder / "repository" / name / "1"
        version.mkdir(parents=True)
        shutil.copy(FULL / name / "config.pbtxt", version.parent)
        (version / "model.py").write_text(code)
    with running(folder / "repository", folder) as server:
        yield server


class Measured:
    """The real server, but measurements are made up here: what captions stand on is not the question."""

    def __init__(self, inference: Inference) -> None:
        self.real = inference
        self.made = MadeInference()
        self.calls: list[tuple[str, int]] = []

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As `workers.contract.Inference`."""
        self.calls.append((model, len(next(iter(inputs.values())))))
        way: Any = self.made if model.startswith("measure_") else self.real
        answer: dict[str, Array] = await way.infer(model, inputs, outputs)
        return answer


PROFILE = GATED.model_copy(
    update={
        "models": {
            name: entry.model_copy(update={"reads": ("media", "prompt")}) if name.startswith("caption_") else entry
            for name, entry in GATED.models.items()
        }
    }
)


@pytest.mark.parametrize("kind", Kind)
async def test_captions_are_scored_and_asked_for_again_by_the_server(served: Served, kind: Kind) -> None:
    inference = Inference(served.url)
    measured = Measured(inference)
    try:
        (body,) = await of_captions.caption([job_of(kind, Item(kind))], Tools(measured, PROFILE))  # type: ignore[arg-type]
    finally:
        await inference.close()
    assert isinstance(body, CaptionBody) and body.gates is not None, body
    second = parts_of(kind).index("top-right" if kind is Kind.ARTWORK else "part-2")
    for place, (text, gate) in enumerate(zip(body.texts, body.gates.parts, strict=True)):
        assert text.startswith("Größe ") and parts_of(kind)[place] in text
        values = [round(each.scores.score, 3) for each in gate.attempts]
        assert values == ([0.3] * 4 if place == second else [0.5, 0.9])
        assert gate.passed is (place != second)
        assert f"Fehler {gate.kept}" in text
    assert body.endings == ("complete",) * 5
    rows = [count for model, count in measured.calls if model == "score_caption"]
    assert rows == [5, 5, 1, 1]


async def test_tensors_that_do_not_fit_are_refused_not_retried(served: Served) -> None:
    inference = Inference(served.url)
    try:
        with pytest.raises(Lasting):
            await Models(inference, PROFILE).score_caption(Kind.TRACK, None, ["a"] * 17, [["b"]] * 17)
    finally:
        await inference.close()


async def test_a_scorer_that_dies_is_waited_for(served: Served) -> None:
    inference = Inference(served.url)
    models = Models(inference, PROFILE)
    try:
        await models.answers("score_caption")
        (stub,) = [
            process
            for process in psutil.Process(served.process).children(recursive=True)
            if any("score_caption" in word for word in process.cmdline())
        ]
        os.kill(stub.pid, signal.SIGKILL)
        with pytest.raises(Passing):
            await models.answers("score_caption")
    finally:
        await inference.close()
