"""Export the full profile's networks to ONNX, into the model repository.

    python -m full_models.export --repository model_repository/full [--only NAME ...] [--check-only]

Reads each network's weights (see `full_models.weights`), writes `<model>/1/model.onnx` (weights above 2 GB beside it
as model.onnx.data), compares what onnxruntime answers with what torch answers, and only then puts the file in its
place; tokenisers go into the folders that need them. What the edge profile's build made (the measuring models, the
edge composer, what valence and arousal are read by without towers) is taken from the edge repository. A note in each
version folder (made.json) remembers what was made from what: where it still holds, nothing is done.

MMVA's towers are trained, not published. Their configurations lie beside the repository (`full_trained`) and go into
it with a made network, so that what is not made is no model there: nothing loads it, waits for it or mends it. Once
all are made from one training, that is noted, for the models (`full_models.reading`) and for the profile
(`full_trained.toml`, `promenade.profile`). Who serves them starts anew then.

Precision is a setting of each model: fp32, or fp16 for a GPU (bf16 is not exported: it has too few digits for
vectors that are compared).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from edge_models import configuration

from full_models import reading
from full_models.text_tokens import tokenizer_of_merges
from full_models.weights import BadChoice, Choices, MissingWeights

MADE: Final = "made.json"
TOLERANCE: Final = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference of onnxruntime's answer from torch's, relative to the answer's largest number."""

CLIP_TOKENIZER: Final = ("embed_text", "score_caption")
"""Models that read texts with CLIP's tokeniser (ImageBind's is the same)."""
TOKENIZERS: Final = {
    "clap_text": ("weights", "clap_text", "tokenizer.json"),
    "bert_text": ("weights", "score_caption", "bert_tokenizer.json"),
    "mmva_text": ("weights_encoder", "va_text", "tokenizer.json"),
}
"""Exported network -> the setting whose folder holds its tokenizer.json, the model and the file that it goes to."""
EDGE_FILES: Final = {
    "efficientnet_lite0/1/model.onnx": "efficientnet_lite0/1/model.onnx",
    "measure_picture/1/labels.json": "measure_picture/1/labels.json",
    "musicnn_mtt/1/model.onnx": "musicnn_mtt/1/model.onnx",
    "musicnn_msd/1/model.onnx": "musicnn_msd/1/model.onnx",
    "measure_sound/1/labels.json": "measure_sound/1/labels.json",
    "minilm/1/model.onnx": "minilm/1/model.onnx",
    "va_text/1/minilm_tokenizer.json": "embed_text/1/tokenizer.json",
    "va_text/1/norms.json": "va_text/1/norms.json",
    "va_picture/1/norms.json": "va_picture/1/norms.json",
    "va_sound/1/norms.json": "va_sound/1/norms.json",
    "compose_edge/1/performance_rnn.onnx": "compose_music/1/performance_rnn.onnx",
    "compose_edge/1/bank.sf2": "compose_music/1/bank.sf2",
    "compose_edge/1/tinysoundfont.so": "compose_music/1/tinysoundfont.so",
}
"""File here -> file of the edge repository."""
_MERGES_FILE: Final = "bpe_simple_vocab_16e6.txt.gz"
_OPSET: Final = 18

Say = Callable[[str], None]


class ExportError(Exception):
    """An export cannot be made; the text says why and what to do."""


@dataclass(frozen=True)
class Made:
    """What one export did."""

    model: str
    fresh: bool
    """False: it was there already."""
    seconds: float = 0.0
    difference: float = 0.0
    """Largest difference from torch, relative to the answer's largest number."""
    size: int = 0
    """Bytes."""


def export(repository: Path, model: str, environment: Mapping[str, str] | None = None, check_rows: int = 3) -> Made:
    """Export one network into its folder, unless what is there was made from the same weights and settings.

    Raises:
        MissingWeights, BadChoice: its weights or settings.
        ExportError: there is no such network or folder, or onnxruntime answers otherwise than torch.
    """
    from full_models.onnx_networks import NETWORKS, Precise

    if model not in NETWORKS:
        raise ExportError(f"{model} is no exported network; choose from {', '.join(sorted(NETWORKS))}")
    choices = _choices(repository, model, environment)
    precision = choices.precision()
    if precision == "bf16":
        raise BadChoice(f"precision of {model} is bf16; exported networks are fp32 or fp16")
    folder = repository / model / "1"
    recipe = _recipe(choices)
    if _is_made(folder, recipe):
        return Made(model, fresh=False)
    started = time.monotonic()
    network = NETWORKS[model]
    if model in reading.TOWERS:
        _forget_towers(repository)
    import torch

    # Not in the folder itself: one that holds nothing is a model that no server can load.
    with tempfile.TemporaryDirectory(dir=_beside(repository), prefix=".making-") as kept, torch.inference_mode():
        module = Precise(network.build(choices), choices.dtype()).eval()
        path = Path(kept) / "model.onnx"
        _to_onnx(module, network, path)
        example = network.example(check_rows, length=11)
        # Half precision is slow on a CPU, and what is compared is the file with the module it was made from.
        expected = [each.numpy() for each in module(*example.values())]
        del module
        difference = _difference(path, {name: tensor.numpy() for name, tensor in example.items()}, expected)
        if not difference <= TOLERANCE[precision]:
            raise ExportError(
                f"{model}: onnxruntime differs from torch by {difference:.1e}; the export was thrown away"
            )
        size = 0
        folder.mkdir(parents=True, exist_ok=True)
        for made in sorted(Path(kept).iterdir(), reverse=True):  # model.onnx.data before model.onnx
            size += made.stat().st_size
            made.replace(folder / made.name)
    if model in reading.TOWERS:
        _write(folder.parent / "config.pbtxt", _config(repository, model).read_text(encoding="utf-8"))
    if model in TOKENIZERS:
        setting, target, name = TOKENIZERS[model]
        read = choices.weights(setting).file("tokenizer.json").read_text(encoding="utf-8")
        _write(repository / target / "1" / name, read)
    _write(folder / MADE, json.dumps({**recipe, "difference": difference}, indent=1))
    return Made(model, True, time.monotonic() - started, difference, size)


def _to_onnx(module: Any, network: Any, path: Path) -> None:
    import torch

    batch = torch.export.Dim("batch", min=1, max=1024)
    length = torch.export.Dim("length", min=2, max=512)
    example = network.example(2)
    dynamic = tuple(
        {0: batch, **{place + 1: length for place, size in enumerate(shape) if size < 0}}
        for shape, _ in network.inputs.values()
    )
    with _quiet():
        torch.onnx.export(
            module,
            tuple(example.values()),
            str(path),
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_shapes=(dynamic,),
            opset_version=_OPSET,
            dynamo=True,
            external_data=sum(each.numel() * each.element_size() for each in module.parameters()) > 1 << 30,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks about libraries that are not installed are of no use to anybody."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)


def _difference(path: Path, inputs: Mapping[str, Any], expected: Sequence[Any]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for got, right in zip(session.run(None, dict(inputs)), expected, strict=True):
        if got.shape != right.shape or not np.isfinite(got).all():
            return float("inf")
        worst = max(worst, float(np.abs(got - right).max() / max(float(np.abs(right).max()), 1e-12)))
    return worst


def _choices(repository: Path, model: str, environment: Mapping[str, str] | None) -> Choices:
    config = _config(repository, model)
    if not config.exists():
        raise ExportError(f"{repository} has no model {model} (no {config})")
    parameters = configuration.parameters(configuration.read(config))
    return Choices(model, parameters, repository / model / "1", environment)


def _config(repository: Path, model: str) -> Path:
    """Where a model's configuration lies: beside the repository for what is trained."""
    if model in reading.TOWERS:
        return _trained(repository) / model / "config.pbtxt"
    return repository / model / "config.pbtxt"


def _trained(repository: Path) -> Path:
    return repository.with_name(f"{repository.name}_trained")


def _beside(repository: Path) -> Path:
    """A folder of the same disk that no server looks into."""
    return repository.parent


def _profile_note(repository: Path) -> Path:
    return _trained(repository).with_suffix(".toml")


def _recipe(choices: Choices) -> dict[str, Any]:
    """What the file depends on: weights, settings, and the code that makes it."""
    digest = hashlib.sha256()
    used = [choices.weights(key) for key in ("weights", "weights_encoder") if choices.text(key, "")]
    for weights in used:
        for path in sorted(weights.folder.rglob("*")):
            if path.is_file():
                held = path.stat()
                digest.update(f"{path.relative_to(weights.folder)} {held.st_size} {held.st_mtime_ns}\n".encode())
    digest.update(choices.text("layers", "").encode())
    for name in ("onnx_networks.py", "export.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return {
        "weights": ", ".join(f"{weights.name}@{weights.revision}" for weights in used),
        "revision": used[0].revision,
        "precision": choices.precision(),
        "made_of": digest.hexdigest(),
    }


def _is_made(folder: Path, recipe: Mapping[str, Any]) -> bool:
    try:
        noted = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / "model.onnx").exists() and all(noted.get(key) == value for key, value in recipe.items())


def note_towers(repository: Path) -> str:
    """Note for models and profile whether a whole set of MMVA's towers is made, all of one training.

    Returns:
        The revision of the trained weights; empty where there is no whole set, and nothing is noted then. Weights in
        a folder that a setting names have no revision of their own: theirs is a hash of what was made.
    """
    made = []
    for model in reading.TOWERS:
        with contextlib.suppress(OSError, ValueError):
            made.append(json.loads((repository / model / "1" / MADE).read_text(encoding="utf-8")))
    revisions = {each.get("revision", "") for each in made}
    if len(made) < len(reading.TOWERS) or len(revisions) > 1:
        _forget_towers(repository)
        return ""
    revision = str(*revisions) or hashlib.sha256("".join(each["made_of"] for each in made).encode()).hexdigest()[:12]
    _write(reading.note_path(repository), json.dumps({"revision": revision}))
    _write(
        _profile_note(repository),
        "# Written by full_models.export: MMVA's towers that lie in the repository, all of one training.\n"
        f"revision = {json.dumps(revision)}\nmodels = {json.dumps(list(reading.TOWERS))}\n",
    )
    return revision


def _forget_towers(repository: Path) -> None:
    reading.note_path(repository).unlink(missing_ok=True)
    _profile_note(repository).unlink(missing_ok=True)


def write_clip_tokenizer(repository: Path, environment: Mapping[str, str] | None = None) -> None:
    """CLIP's tokeniser into the folders that read texts with it.

    It is taken from ImageBind's weights folder where that holds the list of merges, otherwise from the installed
    package of ImageBind's network, which publishes the same list.

    Raises:
        ExportError: it is in neither.
    """
    merges: Path | None = None
    with contextlib.suppress(MissingWeights, ExportError):
        merges = _choices(repository, "imagebind_text", environment).weights().file(_MERGES_FILE)
    found = importlib.util.find_spec("imagebind")
    for folder in (found.submodule_search_locations or ()) if found and merges is None else ():
        candidate = Path(folder) / "bpe" / _MERGES_FILE
        merges = candidate if candidate.exists() else merges
    if merges is None:
        raise ExportError(
            f"the list of merges {_MERGES_FILE} is neither among ImageBind's weights nor in its package; "
            "install locks/imagebind.txt into this environment"
        )
    text = tokenizer_of_merges(merges)
    for model in CLIP_TOKENIZER:
        if (repository / model / "config.pbtxt").exists():
            _write(repository / model / "1" / "clip_tokenizer.json", text)


def take_edge_files(repository: Path, edge: Path) -> None:
    """What the edge build made, for the models that are the same in both profiles.

    Raises:
        ExportError: the edge profile is not built.
    """
    for target, source in EDGE_FILES.items():
        if not (repository / target).parents[1].is_dir():
            continue
        if not (edge / source).exists():
            raise ExportError(f"{edge / source} is not built yet; run: promenade models build")
        (repository / target).parent.mkdir(parents=True, exist_ok=True)
        if not (repository / target).exists() or (
            (edge / source).stat().st_mtime_ns != (repository / target).stat().st_mtime_ns
        ):
            part = (repository / target).with_name(f".{Path(target).name}.{os.getpid()}")
            shutil.copy2(edge / source, part)
            part.replace(repository / target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status (1: something could not be made, the last lines say what)."""
    from full_models.onnx_networks import NETWORKS

    parser = argparse.ArgumentParser(prog="full_models.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repository", type=Path, required=True, help="the model repository folder to fill")
    parser.add_argument("--edge", type=Path, help="the edge repository (default: edge beside it)")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these networks alone")
    given = parser.parse_args(arguments)
    chosen = given.only or [name for name in NETWORKS if _is_wanted(given.repository, name)]
    failed = 0
    try:
        if not given.only:
            take_edge_files(given.repository, given.edge or given.repository.parent / "edge")
            write_clip_tokenizer(given.repository)
    except ExportError as error:
        print(f"not made: {error}", file=sys.stderr)
        failed += 1
    for model in chosen:
        try:
            made = export(given.repository, model)
        except (ExportError, MissingWeights, BadChoice, ValueError) as error:
            print(f"not made: {model}: {error}", file=sys.stderr)
            failed += 1
            continue
        if made.fresh:
            print(f"{model}: {made.size / 1e6:.0f} MB in {made.seconds:.0f} s, within {made.difference:.0e} of torch")
        else:
            print(f"{model}: there already")
    revision = note_towers(given.repository)
    how = (
        f"read by MMVA's towers, {revision}"
        if revision
        else "read as in the edge profile: no towers of MMVA are made"
    )
    print(f"valence and arousal: {how}")
    return 1 if failed else 0


def _is_wanted(repository: Path, model: str) -> bool:
    """Whether a network is made where nobody names one: what is trained, only where it was."""
    if not _config(repository, model).exists():
        return False
    if model not in reading.TOWERS:
        return True
    with contextlib.suppress(MissingWeights):
        _choices(repository, model, None).weights()
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
