"""Building the edge profile's networks: the readers, the checks, and what a failure leaves behind.

The build itself runs in the serving environment, from the cache of fetched packages, where both exist.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models import build, configuration, packages, tensorflow_checkpoint, torch_file
from edge_models.local import LocalModels
from edge_models.minilm import LONGEST_WINDOW, TextVectors
from edge_models.triton_model import Invalid, Row, RowModel, each, text

from tests.patience import patient
from tests.serving_fixtures import ENVIRONMENT, REPOSITORY, Served, missing, texts

cached = all((packages.default_cache() / package.file).exists() for package in packages.ALL)
needs_build = pytest.mark.skipif(missing() is not None, reason=str(missing()))
needs_packages = pytest.mark.skipif(
    not cached or not ENVIRONMENT.exists(),
    reason="the packages are not in the cache, or .serving is missing (promenade models build)",
)


def run_build(repository: Path, *options: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["-c", code] if code else ["-m", "edge_models.build"]
    return subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), *command, "--repository", str(repository), *options],
        capture_output=True,
        text=True,
        timeout=patient(200),
    )


# Reading weights without the programs that wrote them.


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_a_weight_file_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(OrderedDict(weight=_Evil())))
    with pytest.raises(pickle.UnpicklingError, match=r"names .*system.* refused"):
        torch_file.read(path)


def test_a_weight_file_gives_its_tensors_with_strides(tmp_path: Path) -> None:
    # By hand, as torch writes it: _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks).
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00(K\x03K\x02t(K\x01K\x03t\x89NtR"
    data = b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
    read = torch_file.read(path)["w"]
    np.testing.assert_array_equal(read, np.arange(6, dtype=np.float32).reshape(2, 3).T)


def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00(K\x09K\x02t(K\x02K\x01t\x89NtR"
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s.")
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(ValueError, match="outside its storage"):
        torch_file.read(path)


@pytest.mark.parametrize("index", [b"", b"not a checkpoint" * 10, b"\0" * 40 + struct.pack("<Q", 0xDB4775248B80FB57)])
def test_a_damaged_checkpoint_is_refused(index: bytes) -> None:
    with pytest.raises(ValueError):
        tensorflow_checkpoint.read(index, b"")


# The build.


@needs_packages
def test_the_build_is_repeatable_and_the_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    repository = tmp_path / "edge"
    first = run_build(repository, "--offline")
    assert first.returncode == 0, first.stderr
    assert "equals its reference" in first.stdout
    made = {name: (repository / name).read_bytes() for name in build.FILES}
    again = run_build(repository, "--offline")
    assert again.returncode == 0
    assert "reference" not in again.stdout
    (repository / "minilm/1/model.onnx").write_bytes(b"damaged")
    mended = run_build(repository, "--offline")
    assert mended.returncode == 0
    assert {name: (repository / name).read_bytes() for name in build.FILES} == made
    assert not list(tmp_path.glob(".building-*"))


@needs_packages
@pytest.mark.parametrize("network", ["efficientnet", "musicnn", "minilm_reference"])
def test_a_network_that_differs_from_its_reference_is_not_installed(tmp_path: Path, network: str) -> None:
    repository = tmp_path / "edge"
    before = repository / "efficientnet_lite0/1/model.onnx"
    before.parent.mkdir(parents=True)
    before.write_bytes(b"the one before")
    # The smallest mistake that matters: another epsilon in the reference's normalisation.
    code = (
        "import sys; from edge_models import build, efficientnet, musicnn, minilm_reference\n"
        f"true = {network}.forward\n"
        "def changed(*given):\n"
        f"    kept, {network}.EPSILON = {network}.EPSILON, 3e-3\n"
        f"    answer = true(*given)\n    {network}.EPSILON = kept\n    return answer\n"
        f"{network}.forward = changed\n"
        "sys.exit(build.main())"
    )
    done = run_build(repository, "--offline", code=code)
    assert done.returncode == 1
    assert "differs from its reference" in done.stderr
    assert before.read_bytes() == b"the one before"
    assert [path for path in repository.rglob("*") if path.is_file()] == [before]
    assert not list(tmp_path.glob(".building-*"))
    assert not build.up_to_date(repository)


def test_offline_says_everything_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(packages.BuildError) as raised:
        build.build(tmp_path / "edge", tmp_path / "cache", offline=True, say=lambda line: None)
    for package in packages.ALL:
        assert package.file in str(raised.value)
    assert not list((tmp_path / "edge").iterdir())


def test_a_cached_package_with_other_bytes_is_not_used(tmp_path: Path) -> None:
    (tmp_path / packages.NORMS.file).write_bytes(b"something else")
    said: list[str] = []
    with pytest.raises(packages.BuildError, match="not in the cache"):
        packages.fetch(packages.NORMS, tmp_path, True, said.append)
    assert "damaged" in said[0]
    assert not (tmp_path / packages.NORMS.file).exists()


@needs_build
def test_labels_and_norms_are_complete() -> None:
    names = json.loads((REPOSITORY / "measure_picture/1/labels.json").read_text())
    assert len(set(names)) == 1000
    assert {names[978], names[497], names[762]} == {"seashore", "church", "restaurant"}
    tags = json.loads((REPOSITORY / "measure_sound/1/labels.json").read_text())
    assert len(tags["mtt"]) == len(tags["msd"]) == 50
    norms = json.loads((REPOSITORY / "score_emotion/1/norms.json").read_text())
    assert norms["sad"][:2] == [2.1, 3.49]
    assert norms["calm"][:2] == [6.89, 1.67]


# The same models, with and without the server.


@needs_build
def test_models_in_process_answer_as_the_server_does(running_triton: Served) -> None:
    local = LocalModels(REPOSITORY)
    given = {"TEXT": texts("A quiet seashore", "loud drums " * 200)}
    served = running_triton.infer("embed_text", given, ["VECTOR"])["VECTOR"]
    np.testing.assert_allclose(local.infer("embed_text", given)["VECTOR"], served, atol=1e-5)
    with pytest.raises(Invalid, match="row 1 of 2: TEXT is empty"):
        local.infer("embed_text", {"TEXT": texts("a", "")})
    with pytest.raises(FileNotFoundError, match="no model nothing"):
        local.infer("nothing", {})


@needs_build
def test_a_long_text_is_read_to_its_end() -> None:
    def run(tokens: dict[str, Any]) -> Any:
        return np.ones((*tokens["input_ids"].shape, 384))

    vectors = TextVectors(REPOSITORY / "embed_text/1/tokenizer.json", run)
    windows = vectors.windows("word " * 1000)
    assert [len(window) for window in windows] == [256, 256, 256, 1000 - 3 * 254 + 2]
    assert max(len(window) for window in windows) == LONGEST_WINDOW
    assert sum(len(window) - 2 for window in windows) == 1000
    assert len(vectors.windows("")) == 1


# The base of Python models.


class _Doubles(RowModel):
    inputs = ("TEXT",)
    outputs = {"TWICE": object}  # noqa: RUF012

    def answer(self, rows: Any) -> Any:
        def double(row: Row) -> Row:
            word = text(row["TEXT"], "TEXT")
            if word == "crash":
                raise RuntimeError("a fault")
            if not word:
                raise Invalid("TEXT is empty")
            return {"TWICE": np.array([word * 2], dtype=object)}

        return each(double, rows)


def test_a_refused_row_fails_its_own_request_only() -> None:
    good, bad, both = _Doubles().answer_requests(
        [{"TEXT": texts("a", "b")}, {"TEXT": texts("")}, {"TEXT": texts("c", b"\xff")}]
    )
    assert isinstance(good, dict)
    assert good["TWICE"].tolist() == [[b"aa"], [b"bb"]]
    assert str(bad) == "TEXT is empty"
    assert isinstance(both, Invalid)
    assert str(both).startswith("row 1 of 2: TEXT is not UTF-8")


def test_a_fault_of_the_code_is_not_called_invalid() -> None:
    outcomes = _Doubles().answer_requests([{"TEXT": texts("crash")}, {"TEXT": texts("a")}])
    assert all(isinstance(outcome, RuntimeError) for outcome in outcomes)


def test_configs_are_read_with_comments_lists_and_messages(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(
        '# a comment\nname: "a \\"b\\""\ninput [ { name: "X" dims: [ 1, -1 ] }, { name: "Y" dims: 3 } ]\n'
        'parameters { key: "version" value: { string_value: "2" } }\ndynamic_batching { }\n'
    )
    fields = configuration.read(path)
    assert fields["name"] == ['a "b"']
    assert [one["dims"] for one in fields["input"]] == [["1", "-1"], ["3"]]
    assert fields["dynamic_batching"] == [{}]
    assert configuration.parameters(fields) == {"version": "2"}
    path.write_text("name {")
    with pytest.raises(ValueError, match="not closed"):
        configuration.read(path)


def test_nothing_of_the_pipeline_is_imported_by_the_models() -> None:
    source = Path(build.__file__).parent
    rooms = ("schemas", "workers", "infra", "streams", "gallery", "promenade")
    for path in source.glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in rooms, f"{path.name}: {line}"
