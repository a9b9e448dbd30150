"""The supervisor with the real model server, serving one small model and its network: start, faults, stop.

Needs the serving environment (`make setup`) and built models (`promenade models build`); says so where they lack.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from infra.serving import triton
from promenade.settings import CLONE, Settings
from promenade.supervisor import StackError, separate_settings, start_parts
from promenade.supervisor.parts import ModelsPart
from promenade.supervisor.processes import marked_processes
from tests.patience import patient

MODELS = ("embed_text", "minilm")
REPOSITORY = CLONE / "model_repository" / "edge"
SERVER = CLONE / ".serving" / "lib" / "python3.11" / "site-packages" / "pytriton"

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(patient(120)),
    pytest.mark.skipif(not SERVER.exists(), reason=f"no model server in {CLONE / '.serving'}: make setup"),
    pytest.mark.skipif(
        not (REPOSITORY / "minilm" / "1" / "model.onnx").exists(),
        reason="models are not built: promenade models build",
    ),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    repository = tmp_path / "small"
    repository.mkdir()
    for model in MODELS:
        (repository / model).symlink_to(REPOSITORY / model)
    return separate_settings(tmp_path / "data", profile=tmp_path / "small.toml")


def segments(settings: Settings) -> list[Path]:
    return list(Path("/dev/shm").glob(triton.region_prefix(settings.data / "models") + "*"))


def vector(settings: Settings) -> list[float]:
    client = InferenceServerClient(settings.inference)
    text = InferInput("TEXT", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[b"a quiet harbour at dawn"]], dtype=object))
    try:
        return [float(value) for value in client.infer("embed_text", [text]).as_numpy("VECTOR")[0]]
    finally:
        client.close()


async def test_models_answer_alike_after_every_kill_and_nothing_is_left_over(settings: Settings) -> None:
    async with start_parts(settings, ("models",)) as parts:
        first = vector(settings)
        assert len(first) == 384
        assert segments(settings)
        server = parts.pid("models")

        os.kill(triton.stubs(server)["embed_text"], signal.SIGKILL)
        healed = await parts.runners["models"].part.heal(server)
        assert healed == "loaded again, as its process had died: embed_text"
        assert vector(settings) == pytest.approx(first)
        assert await parts.runners["models"].part.heal(server) is None

        await parts.kill("models")
        assert marked_processes(settings.data) == []
        assert segments(settings) == []
        await parts.start("models")
        assert vector(settings) == pytest.approx(first)
    assert segments(settings) == []
    assert marked_processes(settings.data) == []


def test_a_missing_serving_environment_or_model_is_said_before_the_start(settings: Settings, tmp_path: Path) -> None:
    lacking = ModelsPart(settings=settings.model_copy(update={"serving": tmp_path / "none"}), folder=tmp_path / "m")
    with pytest.raises(StackError, match="make setup"):
        lacking.prepare()
    (tmp_path / "small" / "unbuilt" / "1").mkdir(parents=True)
    with pytest.raises(StackError, match=r"not built yet \(unbuilt\)"):
        ModelsPart(settings=settings, folder=tmp_path / "m").prepare()
