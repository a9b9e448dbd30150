"""MMVA's full objective beside its ablations on a planted rule, over several seeds: how often it wins, by how much.

    python -m benchmarks.training_margins [--seeds N] [--epochs N] [--pictures N] [--songs N] [--output FILE]

Runs in the environment of the full profile (`make .models/.made`), on one thread of a CPU, seconds a seed. Each seed
is another rule, other items, another split and another start. Measured on held-out items by the weights that
validation chose: `loss` is what the paper's table holds, the mean square errors of valence and arousal of the three
modalities and of the match score, summed. The ablation without similarity has no predictor of the match score; there
it follows from the predicted emotions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tests.models.tiny_training import SMALL_VA, made_emotions
from training.settings import VaSettings
from training.splits import TEST
from training.va import Emotions, VaTraining, begun

ARMS: dict[str, dict[str, Any]] = {
    "full objective": {},
    "fixed matching": {"matching": "fixed"},
    "no similarity": {"similarity": False},
}
FULL, *ABLATIONS = ARMS


def errors(seed: int, epochs: int, pictures: int, songs: int) -> dict[str, dict[str, float]]:
    """What each arm errs on held-out items: `loss`, `emotions` (without the match score), `similarity`."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        emotions = Emotions.opened(made_emotions(Path(place) / "data", pictures, songs, seed=seed))
        for name, changes in ARMS.items():
            settings = VaSettings(**{**SMALL_VA, "epochs": epochs, "seed": seed, **changes})
            with begun(Path(place) / name, settings, emotions, resume=False) as run:
                training = VaTraining(settings, emotions, run, say=lambda text: None)
                training.train()
                measured = training.measure(TEST)
            loss, similarity = measured["loss"], measured["similarity_mse"]
            found[name] = {"loss": loss, "emotions": loss - similarity, "similarity": similarity}
    return found


def report(found: list[dict[str, dict[str, float]]], command: str) -> list[str]:
    """Lines of the report."""
    both = sum(all(each[FULL]["loss"] < each[name]["loss"] for name in ABLATIONS) for each in found)
    lines = [
        f"# MMVA's objective beside its ablations on a planted rule ({datetime.now(UTC):%Y-%m-%d})",
        "",
        f"{len(found)} seeds, torch {torch.__version__}, CPU. Command: `{command}`.",
        "",
        "| seed | " + " | ".join(f"{name}: loss (emotions, similarity)" for name in ARMS) + " |",
        "|---" * (len(ARMS) + 1) + "|",
    ]
    for seed, each in enumerate(found):
        cells = [
            f"{arm['loss']:.4f} ({arm['emotions']:.4f}, {arm['similarity']:.4f})"
            for arm in (each[name] for name in ARMS)
        ]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"The full objective has the lowest loss of all three in **{both} of {len(found)}** seeds.",
        "",
        "| beside | of | won | margin: mean | least | most |",
        "|---|---|---|---|---|---|",
    ]
    for name in ABLATIONS:
        for what in ("loss", "emotions", "similarity"):
            margins = [1 - each[FULL][what] / each[name][what] for each in found]
            won = sum(margin > 0 for margin in margins)
            shown = " | ".join(f"{value:+.1%}" for value in (statistics.mean(margins), min(margins), max(margins)))
            lines.append(f"| {name} | {what} | {won} of {len(found)} | {shown} |")
    lines += ["", "A margin is the share of the ablation's error that the full objective spares; below 0 it lost."]
    return lines


def main() -> int:
    """Measure and print or write."""
    parser = argparse.ArgumentParser(description="MMVA's objective beside its ablations over several seeds.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=int(SMALL_VA["epochs"]))
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--songs", type=int, default=30)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = [errors(seed, given.epochs, given.pictures, given.songs) for seed in range(given.seeds)]
    command = (
        f"python -m benchmarks.training_margins --seeds {given.seeds} --epochs {given.epochs} "
        f"--pictures {given.pictures} --songs {given.songs}"
    )
    text = "\n".join(report(found, command)) + "\n"
    if given.output:
        given.output.write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
