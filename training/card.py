"""The short card of a trained model: what it is, on what and how it was trained, what was measured, its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from training.runs import Run, weights_metadata
from training.tables import write_atomically

WHAT = {
    "aligner": (
        "Art2Mus image aligner",
        "It turns a picture's vector into tokens for AudioLDM 2 (Rinaldi et al. 2026, section 4.2). Only it was "
        "trained; AudioLDM 2 is as published.",
        "AudioLDM 2's weights, without which it makes no sound, are published for non-commercial use. It continues "
        "what its pairs had in common, not what a picture means; pictures unlike those it was trained on get "
        "music of no known relation.",
    ),
    "mmva": (
        "MMVA towers",
        "They read valence and arousal from pictures, music and words, and how well a picture goes with music "
        "(MMVA). The encoders are as published; layer mixes and predictors were trained.",
        "Valence and arousal are averages over those who were asked; a single person may feel otherwise. MERT's "
        "weights are published for non-commercial use.",
    ),
}


def write_card(run: Run, tested: Sequence[str] = ()) -> Path:
    """Write MODEL_CARD.md out of what the run's folder holds.

    Args:
        run: finished.
        tested: lines of a table of what was measured on the test part.
    """
    facts = json.loads((run.folder / "run.json").read_text())
    metadata = weights_metadata(run.folder / "model.safetensors")
    title, what, limits = WHAT[metadata["kind"]]
    description = json.loads((Path(facts["data"]["folder"]) / "dataset.json").read_text())
    lines = [f"# {title}", "", what, "", "## Data", ""]
    lines += [
        f"- {description['rows']} rows of {description['source']}, version `{description['version']}`",
        "- " + ", ".join(f"{count} {part or 'without part'}" for part, count in sorted(description["parts"].items())),
    ]
    if metadata.get("space"):
        lines.append(f"- pictures' vectors: {metadata['space']}, {metadata['vector_size']} numbers")
    if metadata.get("sigma"):
        lines.append(f"- sigma of the match score: {float(metadata['sigma']):.4f}")
    lines += [f"- {each['count']} left out: {reason}" for reason, each in description["skipped"].items()]
    lines += ["", "## Training", "", f"Begun {facts['began']}.", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in sorted(facts["settings"].items())]
    steps, validations = run.read("curves.csv"), run.read("validation.csv")
    if steps:
        lines += ["", f"{len(steps)} steps, last loss {float(steps[-1]['loss']):.5f} (`curves.png`, `curves.csv`)."]
    speeds = run.read("speed.csv")
    if speeds:
        last = speeds[-1]
        lines.append(
            f"{float(last['steps_a_second']):.3g} steps a second, {int(last['memory']) / 1e9:.2g} GB of memory."
        )
    if validations:
        best = run.best_step()
        lines += [
            "",
            "## Validation",
            "",
            "| " + " | ".join(validations[0]) + " |",
            "|---" * len(validations[0]) + "|",
        ]
        shown = [row for row in validations[-8:] if int(row["step"]) != best]
        shown += [row for row in validations if int(row["step"]) == best]
        for row in sorted(shown, key=lambda each: int(each["step"])):
            values = [row["step"], *(f"{float(value):.5f}" for name, value in row.items() if name != "step")]
            lines.append("| " + " | ".join(values) + " |")
        lines += ["", f"The model is that of step {best}, the best by validation."]
    if tested:
        lines += ["", "## Test", "", *tested]
    lines += ["", "## Limits", "", limits, ""]
    path = run.folder / "MODEL_CARD.md"
    write_atomically(path, "\n".join(lines).encode())
    return path
