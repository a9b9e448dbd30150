"""How far the scores of the product's own captions spread: `python -m edge_models.spread FOLDER ...`.

The pictures and recordings of each folder are measured, captioned (with the catalogue data of its manifest.csv, where
there is one) and scored by the served models; mean, standard deviation, least and most of every channel are printed,
for pictures and for tracks. A channel that hardly spreads has collapsed to its mean. Nothing is changed here; to
standardise is left to `edge_models.fit_captions`, planted moods to the tests.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models import fit_captions
from edge_models.captions import CATALOGUE_KEYS
from edge_models.local import LocalModels

CHANNELS = ("R", "G", "B", "valence", "arousal")


def scores(models: LocalModels, item: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Scores float64 [5, 5] of an item of `fit_captions`: parts (the whole last) by R, G, B (0..255), VA (0..1)."""

    def five(values: Sequence[Any]) -> npt.NDArray[Any]:
        cells = [value if isinstance(value, str) else json.dumps(value) for value in values]
        return np.array([[cell.encode("utf-8") for cell in cells]], dtype=object)

    answer = models.infer(
        "score_emotion",
        {
            "TEXTS": five(item["texts"]),
            "PHRASES": five(item["phrases"]),
            "MEASUREMENTS": five(item["measurements"]),
            "KIND": np.array([[item["kind"].encode()]], dtype=object),
        },
    )
    return np.concatenate([answer["RGB"][0], answer["VA"][0]], axis=1).astype(np.float64)


def _catalogue(folder: Path) -> dict[str, dict[str, str]]:
    """File name -> catalogue data, from the folder's manifest; nothing where it has none."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(encoding="utf-8", newline="") as lines:
        return {
            row["file"]: {key: row[key] for key in CATALOGUE_KEYS if row.get(key)} for row in csv.DictReader(lines)
        }


def _rows(label: str, values: npt.NDArray[np.float64]) -> list[str]:
    return [
        f"| {label} | {name} | {column.mean():.2f} | {column.std():.2f} | {column.min():.2f} | {column.max():.2f} |"
        for name, column in zip(CHANNELS, values.T, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when at least one file was scored, else 2."""
    parser = argparse.ArgumentParser(prog="python -m edge_models.spread", description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of pictures and recordings")
    parser.add_argument("--repository", type=Path, required=True, help="the built model repository")
    chosen = parser.parse_args(arguments)
    models = LocalModels(chosen.repository)
    found: dict[str, list[npt.NDArray[np.float64]]] = {"pictures": [], "tracks": []}
    for folder in chosen.folders:
        catalogue = _catalogue(folder)
        for path in sorted(folder.iterdir()):
            known = catalogue.get(path.name)
            if path.suffix.lower() in fit_captions.PICTURES:
                item = fit_captions.caption_picture(models, fit_captions.read_picture(path), known)
                found["pictures"].append(scores(models, item))
            elif path.suffix.lower() in fit_captions.SOUNDS:
                item = fit_captions.caption_sound(models, fit_captions.read_sound(path), known)
                found["tracks"].append(scores(models, item))
    if not any(found.values()):
        print("no picture or recording found; give folders that hold some", file=sys.stderr)
        return 2
    print("| of | channel | mean | sd | least | most |\n|---|---|---|---|---|---|")
    for kind, all_scores in found.items():
        if all_scores:
            values = np.stack(all_scores)
            lines = _rows(f"{len(values)} {kind}, whole", values[:, 4])
            print("\n".join(lines + _rows(f"{len(values)} {kind}, all parts", values.reshape(-1, len(CHANNELS)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
