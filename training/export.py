"""From a finished run to what the model server reads.

    RUN/export/model.safetensors, model.onnx, check.json    the trained part by itself, checked against torch
    WEIGHTS/<name>/<revision>/                              where the served models find it
        name: art2mus-aligner (the picture's tokens), mmva (valence and arousal)

The served towers of valence and arousal are made of the trained part and the published encoders by the full
profile's own export, which checks them against torch as well (`served_towers`). A revision is written whole before it
counts, and the one before is set aside, not removed. A running server loads the models anew without a restart
(`reload`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from networks.aligner import ImageAligner
from networks.checkpoints import read_checkpoint
from networks.mmva import MMVA, MODALITIES
from training.runs import weights_metadata
from training.settings import RunError
from training.tables import write_atomically

NAMES: Final = {"aligner": "art2mus-aligner", "mmva": "mmva"}
"""Kind of weights -> the name that the served models look for below the weights folder."""

SERVED: Final = {
    "aligner": ("compose_music",),
    "mmva": ("mmva_picture", "mmva_sound", "mmva_text", "mmva_similarity"),
}
"""Kind of weights -> the served models that hold them."""

LEANING: Final = {"aligner": (), "mmva": ("va_picture", "va_sound", "va_text", "match_va", "compose_mmva")}
"""Kind of weights -> served models that look at their start whether the others are there, and of which training."""

MARKER: Final = "fetched.json"
ASIDE: Final = "set_aside.json"
"""What the marker of an earlier revision is renamed to: a model then finds exactly one."""

TOLERANCE: Final = 1e-4
"""Largest difference of onnxruntime's answer from torch's, relative to the largest number of the answer."""


class ExportError(RuntimeError):
    """Weights that could not be exported. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        kind: `aligner` or `mmva`.
        folder: of the files, in the run.
        installed: the folder below the weights folder; None where none was named.
        set_aside: revisions that no longer count.
        difference: of onnxruntime from torch, relative.
    """

    kind: str
    folder: Path
    installed: Path | None
    set_aside: tuple[str, ...]
    difference: float


class _Readings(nn.Module):
    """MMVA's trained part with its results as a tuple, as ONNX wants them."""

    def __init__(self, model: MMVA) -> None:
        super().__init__()
        self.model = model

    def forward(self, picture: Tensor, sound: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reading = self.model(picture, sound, text)
        return reading.picture, reading.sound, reading.text, reading.similarity


@dataclass(frozen=True, slots=True)
class _Network:
    module: nn.Module
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]


def _network(path: Path, metadata: dict[str, str]) -> _Network:
    state = read_checkpoint(path)
    if metadata.get("kind") == "aligner":
        aligner = ImageAligner.from_state(state, token_size=int(metadata["token_size"]))
        return _Network(aligner, {"vectors": (aligner.vector_size,)}, ("tokens",))
    if metadata.get("kind") == "mmva":
        model = MMVA.from_state(state)
        layers = (model.sizes.layers, model.sizes.width)
        inputs = {"picture": (model.sizes.embedding,), "sound": layers, "text": layers}
        return _Network(_Readings(model).eval(), inputs, (*(f"va_{each}" for each in MODALITIES), "similarity"))
    raise ExportError(f"{path} says nothing of what it is (kind {metadata.get('kind')!r}): it is no run's model")


def _example(network: _Network, rows: int) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(rows)
    return {name: torch.randn((rows, *shape), generator=drawn) for name, shape in network.inputs.items()}


def _written(network: _Network, path: Path) -> None:
    import logging
    import warnings

    # It warns of parts of torchvision, which nothing here uses.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.module,
            tuple(_example(network, 2).values()),
            str(path),
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_shapes=tuple({0: torch.export.Dim("rows")} for _ in network.inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def difference(network: nn.Module, path: Path, examples: Sequence[dict[str, Tensor]]) -> float:
    """How far onnxruntime's answers are from torch's, relative to the largest number of each; the worst case."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for example in examples:
        with torch.inference_mode():
            expected = network(*example.values())
        answers = session.run(None, {name: value.numpy() for name, value in example.items()})
        for answer, right in zip(answers, [expected] if isinstance(expected, Tensor) else expected, strict=True):
            largest = max(float(right.abs().max()), 1e-12)
            if answer.shape != tuple(right.shape) or not np.isfinite(answer).all():
                return float("inf")
            worst = max(worst, float(np.abs(answer - right.numpy()).max()) / largest)
    return worst


def export_run(run: Path, weights: Path | None = None) -> Exported:
    """Export a run's model, and install it where the served models look, if `weights` is named.

    Args:
        run: the run's folder; it has finished.
        weights: the weights folder (PROMENADE_WEIGHTS).

    Raises ExportError where onnxruntime answers otherwise than torch, RunError where the run has not finished.
    """
    model = run / "model.safetensors"
    if not model.is_file():
        raise RunError(f"{run} has no model.safetensors: the run has not finished; go on with --resume")
    metadata = weights_metadata(model)
    network = _network(model, metadata)
    network.module.eval()
    folder = run / "export"
    folder.mkdir(exist_ok=True)
    beside = folder / ".model.onnx"
    _written(network, beside)
    found = difference(network.module, beside, [_example(network, rows) for rows in (1, 3, 16)])
    if not found <= TOLERANCE:
        beside.unlink()
        raise ExportError(f"onnxruntime answers otherwise than torch (by {found:.1e}): the export was thrown away")
    beside.replace(folder / "model.onnx")
    shutil.copyfile(model, folder / "model.safetensors")
    revision = _revision(model)
    check = {
        "difference": found,
        "tolerance": TOLERANCE,
        "inputs": {name: list(shape) for name, shape in network.inputs.items()},
        "outputs": list(network.outputs),
        "revision": revision,
        **metadata,
    }
    write_atomically(folder / "check.json", json.dumps(check, indent=2).encode())
    kind = metadata["kind"]
    installed, aside = (None, ()) if weights is None else _install(folder, weights / NAMES[kind], revision, kind)
    return Exported(kind, folder, installed, aside, found)


def _revision(model: Path) -> str:
    import hashlib

    return hashlib.sha256(model.read_bytes()).hexdigest()[:12]


def _install(folder: Path, place: Path, revision: str, kind: str) -> tuple[Path, tuple[str, ...]]:
    """Write a revision whole, then set the others aside."""
    target = place / revision
    target.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "check.json"):
        write_atomically(target / name, (folder / name).read_bytes())
    facts: dict[str, Any] = {
        "name": NAMES[kind],
        "source": "trained here",
        "revision": revision,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {"model.safetensors": {"size": (target / "model.safetensors").stat().st_size}},
    }
    write_atomically(target / MARKER, json.dumps(facts, indent=2).encode())
    aside = []
    for marker in sorted(place.glob(f"*/{MARKER}")):
        if marker.parent != target:
            marker.rename(marker.with_name(ASIDE))
            aside.append(marker.parent.name)
    return target, tuple(aside)


def served_towers(repository: Path, weights: Path, environment: dict[str, str]) -> None:
    """Make the served towers of valence and arousal from the installed part, by the full profile's own export.

    Args:
        repository: model_repository/full.
        weights: the weights folder, which holds the encoders as well.
        environment: variables of the export.

    Raises ExportError with what it said.
    """
    command = [sys.executable, "-m", "full_models.export", "--repository", str(repository), "--only", *SERVED["mmva"]]
    done = subprocess.run(  # noqa: S603 - our own module in our own environment
        command, env={**environment, "PROMENADE_WEIGHTS": str(weights)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ExportError(f"the towers could not be exported: {said[-1] if said else 'no word why'}")


def reload(server: str, kind: str) -> list[str]:
    """Let a running server load the models anew; requests go on being answered by the old ones meanwhile.

    Models that settle at their start on what reads valence and arousal are loaded after the towers, where the server
    has them. Results name the reading that the workers were started with; the caller says so.

    Args:
        server: its HTTP address, such as http://127.0.0.1:8000.
        kind: of the weights.

    Returns the models that were loaded. Raises ExportError where the server refuses or is away.
    """
    names = [*SERVED[kind]]
    if leaning := LEANING[kind]:
        known = {str(each.get("name")) for each in json.loads(_asked(server, "index", "tell what it serves"))}
        names += [name for name in leaning if name in known]
    for name in names:
        _asked(server, f"models/{name}/load", f"load {name}")
    return names


def _asked(server: str, path: str, what: str) -> bytes:
    """Ask the server's repository for something."""
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's own server
        f"{server.rstrip('/')}/v2/repository/{path}", data=b"{}", method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise ExportError(f"the server would not {what}: {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise ExportError(f"the server at {server} does not answer: {error}") from None
