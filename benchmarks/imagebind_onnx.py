"""ImageBind once at its published size, with random weights, through its exported ONNX on this machine's CPU.

    python -m benchmarks.imagebind_onnx [--size published|tiny] [--only vision audio text] [--output FILE]

Runs in the environment of the full profile (`make .models/.made`). It goes the way that real weights go: a weights
folder is written, the network is loaded from it, exported by `full_models.export`, compared there with torch, and
then answers through onnxruntime. Each step runs in a process of its own, so that its memory is its own. At the
published size it needs about 15 GB of disk and 12 GB of memory, and some minutes; how long a network takes does not
depend on its weights. Not part of continuous integration.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parent.parent
MODALITIES = ("vision", "audio", "text")
THINGS = {"vision": "pictures", "audio": "sounds of 3 clips", "text": "texts"}


def make_weights(folder: Path, size: str) -> dict[str, Any]:
    """Write a weights folder of ImageBind with random numbers, as the published one is laid out."""
    import torch

    from networks import imagebind

    torch.manual_seed(0)
    sizes = imagebind.HUGE if size == "published" else imagebind.TINY
    network = imagebind.build(sizes)
    imagebind.save(network, sizes, folder)
    return {
        "parameters": sum(value.numel() for value in network.parameters()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
    }


def make_onnx(weights: Path, repository: Path, modality: str) -> dict[str, Any]:
    """Export one modality by the profile's own exporter, which compares it with torch."""
    from full_models.export import export

    model = f"imagebind_{modality}"
    source = CLONE / "model_repository" / "full" / model
    (repository / model).mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "config.pbtxt", repository / model / "config.pbtxt")
    made = export(repository, model, {f"PROMENADE_{model.upper()}_WEIGHTS": str(weights)}, check_rows=2)
    return {"difference": made.difference, "bytes": made.size}


def serve(repository: Path, modality: str, rounds: int) -> dict[str, Any]:
    """Let onnxruntime answer: seconds to load; things a second, and seconds of a core for each, one by one and four
    together, medians. The cores' own time says more where others compute too."""
    import numpy as np
    import onnxruntime
    from full_models.onnx_networks import NETWORKS

    model = f"imagebind_{modality}"
    started = time.monotonic()
    session = onnxruntime.InferenceSession(
        str(repository / model / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    report: dict[str, Any] = {"load": time.monotonic() - started}
    for rows in (1, 4):
        given = {name: value.numpy() for name, value in NETWORKS[model].example(rows).items()}
        seconds, cores = [], []
        for _ in range(rounds + 1):
            started, spent = time.monotonic(), time.process_time()
            (vectors,) = session.run(None, given)
            seconds.append(time.monotonic() - started)
            cores.append(time.process_time() - spent)
        # The first round also finds memory.
        report[f"a second, {rows} together"] = rows / statistics.median(seconds[1:])
        report[f"core seconds, {rows} together"] = statistics.median(cores[1:]) / rows
        lengths = np.linalg.norm(vectors, axis=1)
        if vectors.shape != (rows, 1024) or np.abs(lengths - 1).max() > 1e-4:
            raise RuntimeError(f"{model} answered {vectors.shape} with lengths {lengths}")
    return report


def alone(*arguments: str) -> dict[str, Any]:
    """Run one step of this module in a process of its own; its report with its time and most memory."""
    command = [sys.executable, "-m", "benchmarks.imagebind_onnx", *arguments]
    done = subprocess.run(command, cwd=CLONE, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def measure(size: str, modalities: Sequence[str], rounds: int, given: Path | None = None) -> str:
    """All steps; the report in Markdown.

    Args:
        size: published or tiny.
        modalities: which of the three.
        rounds: of each measurement.
        given: a folder of ImageBind's weights; by default one with random weights is made.
    """
    lines = [
        f"ImageBind, {size} size, {'given' if given else 'random'} weights, {os.cpu_count()} cores, float32, through "
        "onnxruntime.",
        "",
        "| | loads in s | a second, one by one | core seconds each | a second, four together | core seconds each "
        "| memory | file | export in s | its core seconds | its memory | differs from torch |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="imagebind-") as kept:
        weights, repository = given or Path(kept) / "weights", Path(kept) / "repository"
        if given is None:
            made = alone("--step", "weights", "--size", size, "--folder", str(weights))
            lines[1:1] = [
                f"{made['parameters']:,} parameters; the weights' file of {made['bytes'] / 1e9:.2f} GB was made in "
                f"{made['seconds']:.0f} s."
            ]
        for modality in modalities:
            step = ("--folder", str(weights), "--repository", str(repository), "--only", modality)
            exported = alone("--step", "export", *step)
            served = alone("--step", "serve", *step, "--rounds", str(rounds))
            lines.append(
                f"| {THINGS[modality]} | {served['load']:.1f} | {served['a second, 1 together']:.2f} "
                f"| {served['core seconds, 1 together']:.2f} | {served['a second, 4 together']:.2f} "
                f"| {served['core seconds, 4 together']:.2f} | {served['memory'] / 1e9:.1f} GB "
                f"| {exported['bytes'] / 1e9:.2f} GB | {exported['seconds']:.0f} | {exported['cores']:.0f} "
                f"| {exported['memory'] / 1e9:.1f} GB | {exported['difference']:.1e} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
            shutil.rmtree(repository)
    lines += ["", "Memory is each process's most, mapped files included."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when everything answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=("published", "tiny"), default="published")
    parser.add_argument("--only", nargs="+", choices=MODALITIES, default=list(MODALITIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", type=Path, help="a folder of ImageBind's weights instead of random ones")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--step", choices=("weights", "export", "serve"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repository", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.step is None:
        report = measure(chosen.size, chosen.only, chosen.rounds, chosen.weights)
        print(report, end="")
        if chosen.output is not None:
            chosen.output.write_text(report, encoding="utf-8")
        return 0
    started = time.monotonic()
    if chosen.step == "weights":
        step = make_weights(chosen.folder, chosen.size)
    elif chosen.step == "export":
        step = make_onnx(chosen.folder, chosen.repository, chosen.only[0])
    else:
        step = serve(chosen.repository, chosen.only[0], chosen.rounds)
    step["seconds"] = time.monotonic() - started
    step["cores"] = time.process_time()
    step["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(step))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
