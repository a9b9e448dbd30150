"""The script that makes TensorRT plans: what it would call, and the repository it makes, with a stand-in for trtexec.

That NVIDIA's program understands these calls needs its container and a GPU, and is not shown here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.serving.tensorrt import build
from promenade.settings import CLONE

FULL = CLONE / "model_repository" / "full"

STANDIN = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --saveEngine=*) echo "plan of $*" > "${word#--saveEngine=}" ;;
    --onnx=*broken*) exit 3 ;;
  esac
done
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two networks and a Python model of the full profile, with empty files for networks."""
    folder = tmp_path / "full"
    for name in ("imagebind_vision", "clap_text", "embed_picture"):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text((FULL / name / "config.pbtxt").read_text())
    for name in ("imagebind_vision", "clap_text"):
        (folder / name / "1" / "model.onnx").write_text("")
    (folder / "embed_picture" / "1" / "model.py").write_text("# code")
    return folder


@pytest.fixture
def trtexec(tmp_path: Path) -> str:
    """A program that writes its words where the plan belongs."""
    path = tmp_path / "trtexec"
    path.write_text(STANDIN)
    path.chmod(0o755)
    return str(path)


def test_every_exported_network_of_the_profile_gets_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--repository", str(FULL), "--out", "unused", "--show", "--trtexec", "trtexec"]) == 0
    calls = capsys.readouterr().out.splitlines()
    exported = [
        path.parent.name for path in FULL.glob("*/config.pbtxt") if 'backend: "onnxruntime"' in path.read_text()
    ]
    assert len(calls) == len(exported) >= 13
    (vision,) = [call for call in calls if "imagebind_vision" in call]
    assert "--minShapes=pixels:1x3x224x224 --optShapes=pixels:8x3x224x224 --maxShapes=pixels:32x3x224x224" in vision
    (words,) = [call for call in calls if "bert_text" in call]
    assert "--minShapes=tokens:1x2,mask:1x2" in words and "--maxShapes=tokens:32x512,mask:32x512" in words
    assert all("--fp16" in call for call in calls)
    assert not Path("unused").exists()


def test_the_new_repository_holds_plans_and_all_other_models(repository: Path, trtexec: str, tmp_path: Path) -> None:
    out = tmp_path / "plans"
    words = ["--repository", str(repository), "--out", str(out), "--trtexec", trtexec, "--precision", "fp32"]
    assert build.main([*words, "--only", "imagebind_vision"]) == 0
    plan = (out / "imagebind_vision" / "1" / "model.plan").read_text()
    assert "--minShapes=pixels:1x3x224x224" in plan and "--fp16" not in plan
    config = (out / "imagebind_vision" / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in config and "onnxruntime" not in config
    assert re.findall(r"kind: (\w+)", config) == ["KIND_GPU"]
    before = build.read((repository / "imagebind_vision" / "config.pbtxt").read_text())
    assert before is not None and before.inputs == {"pixels": (3, 224, 224)} and before.largest == 32
    assert 'name: "vector" data_type: TYPE_FP32 dims: [ 1024 ]' in config
    assert (out / "clap_text" / "1" / "model.onnx").exists(), "a network that was not asked for stays as it was"
    assert (out / "embed_picture" / "1" / "model.py").exists()


def test_what_cannot_be_made_is_said(
    repository: Path, trtexec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "plans")

    def said(*words: str) -> str:
        assert build.main([*words, "--out", out]) == 1
        return capsys.readouterr().err

    assert "holds no models" in said("--repository", str(tmp_path / "none"), "--trtexec", trtexec)
    assert "trtexec was not found" in said("--repository", str(repository))
    (repository / "clap_text" / "1" / "model.onnx").unlink()
    assert "python -m full_models.export" in said("--repository", str(repository), "--trtexec", trtexec)
    broken = repository.rename(tmp_path / "broken")
    assert "could not make the plan of imagebind_vision" in said(
        "--repository", str(broken), "--trtexec", trtexec, "--only", "imagebind_vision"
    )
    with pytest.raises(build.PlanError, match="without a name, max_batch_size or inputs"):
        build.read('backend: "onnxruntime"\n')
