"""The full profile under the supervisor: which environment serves it, what its models are told, what is said first.

Its models themselves are tested where torch is (tests/models).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.serving import triton
from promenade.settings import CLONE, Settings
from promenade.supervisor import StackError
from promenade.supervisor.parts import FULL_LOAD_SECONDS, ModelsPart


@pytest.fixture
def full(tmp_path: Path) -> Settings:
    """Settings of a full profile with one model, served by a copy of the default serving environment's links."""
    for model in ("caption_picture", "imagebind_text"):
        (tmp_path / "full" / model / "1").mkdir(parents=True)
    (tmp_path / "full" / "caption_picture" / "1" / "model.py").write_text("")
    return Settings(profile=tmp_path / "full.toml", serving=CLONE / ".serving", weights=tmp_path / "weights")


def test_the_profile_chooses_the_environment_and_a_setting_overrules_it() -> None:
    edge, full = (Settings(profile=CLONE / "model_repository" / f"{name}.toml") for name in ("edge", "full"))
    assert (edge.serving_environment, full.serving_environment) == (CLONE / ".serving", CLONE / ".models")
    assert full.model_copy(update={"serving": Path("/other")}).serving_environment == Path("/other")
    assert "PROMENADE_SERVING" not in full.environment(secrets=False)


def test_models_are_told_their_choices_and_no_secrets(full: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (CLONE / ".serving" / "bin" / "python").exists():
        pytest.skip("the serving environment .serving is missing (make setup)")
    monkeypatch.setenv("PROMENADE_CAPTION_PICTURE_PRECISION", "fp16")
    monkeypatch.setenv("PROMENADE_MODELS_DEVICE", "cpu")
    monkeypatch.setenv("PROMENADE_S3_SECRET_KEY", "very secret")
    monkeypatch.setenv("PROMENADE_UNKNOWN_MODEL_BATCH", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    part = ModelsPart(settings=full, folder=full.profile.parent / "models")
    told = part.environment()
    assert told["PROMENADE_CAPTION_PICTURE_PRECISION"] == "fp16"
    assert told["PROMENADE_MODELS_DEVICE"] == "cpu"
    assert told["PROMENADE_WEIGHTS"] == str(full.weights)
    assert told["CUDA_VISIBLE_DEVICES"] == "1"
    assert told["HF_HUB_OFFLINE"] == "1"
    assert "PROMENADE_UNKNOWN_MODEL_BATCH" not in told
    assert "very secret" not in told.values()
    assert f"--backend-config=python,stub-timeout-seconds={FULL_LOAD_SECONDS}" in part.arguments()
    assert part.ready_within == FULL_LOAD_SECONDS


def test_the_edge_profile_is_served_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not (CLONE / ".serving" / "bin" / "python").exists():
        pytest.skip("the serving environment .serving is missing (make setup)")
    monkeypatch.setenv("PROMENADE_EMBED_TEXT_BATCH", "3")
    part = ModelsPart(settings=Settings(), folder=tmp_path / "models")
    assert not any(name.startswith(("PROMENADE_", "HF_")) for name in part.environment())
    assert f"--backend-config=python,stub-timeout-seconds={triton.STUB_SECONDS}" in part.arguments()
    assert part.ready_within == 120


def test_what_is_missing_is_said_with_what_to_do(full: Settings, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"\(imagebind_text\): promenade models fetch --profile full, then"):
        ModelsPart(settings=full, folder=tmp_path / "models").prepare()
    (tmp_path / "full" / "imagebind_text" / "1" / "model.onnx").write_text("")
    lacking = full.model_copy(update={"serving": tmp_path / ".models"})
    with pytest.raises(StackError, match=r"make \.models/\.made"):
        ModelsPart(settings=lacking, folder=tmp_path / "models").prepare()
