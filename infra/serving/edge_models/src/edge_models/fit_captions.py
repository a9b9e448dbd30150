"""Standardise the emotion of the product's own captions: `python -m edge_models.fit_captions FOLDER ...`.

The pictures and recordings of the folders are measured and captioned by the served models; what is typical of these
captions (centres and spreads, see `edge_models.emotion_text`) replaces what the coefficients file held. Done by hand,
after `edge_models.fit`, and when the wording of captions changes. The pipeline's own decoding (orientation, colour
profiles, limits) is left to the workers: here plain, trusted files are read.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models import emotion, fit
from edge_models.emotion_text import COEFFICIENTS, Coefficients
from edge_models.local import LocalModels
from edge_models.norms import Norms

RATE = 16_000
FEWEST = 9
"""Files of each kind: fewer say too little of what is typical."""
WINDOW = 30 * RATE
PICTURE_PARTS = ("top-left", "top-right", "bottom-left", "bottom-right", "whole")
SOUND_PARTS = ("part-1", "part-2", "part-3", "part-4", "whole")
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
SOUNDS = {".ogg", ".flac", ".wav", ".mp3"}


def caption_picture(
    models: LocalModels, pixels: npt.NDArray[np.uint8], catalogue: dict[str, str] | None = None
) -> dict[str, Any]:
    """Measurements and captions of a picture's 2x2 grid and whole; pixels uint8 [height, width, 3], at least 2x2."""
    from PIL import Image

    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    parts = [
        pixels[:height, :width],
        pixels[:height, width:],
        pixels[height:, :width],
        pixels[height:, width:],
        pixels,
    ]
    item: dict[str, Any] = {"kind": "artwork", "texts": [], "phrases": [], "measurements": []}
    for name, part in zip(PICTURE_PARTS, parts, strict=True):
        encoded = io.BytesIO()
        Image.fromarray(part).save(encoded, "PNG")
        measured = models.infer("measure_picture", {"IMAGE": _bytes(encoded.getvalue())})["MEASUREMENTS"]
        _caption(models, item, "picture", {"IMAGE": _bytes(b"")}, name, measured, catalogue)
    return item


def caption_sound(
    models: LocalModels, samples: npt.NDArray[np.float32], catalogue: dict[str, str] | None = None
) -> dict[str, Any]:
    """Measurements and captions of a track's four quarters and whole; samples mono at 16 kHz, at least four."""
    quarter = len(samples) // 4
    parts = [samples[number * quarter : (number + 1) * quarter] for number in range(4)] + [samples]
    item: dict[str, Any] = {"kind": "track", "texts": [], "phrases": [], "measurements": []}
    for name, part in zip(SOUND_PARTS, parts, strict=True):
        windows = [part[start : start + WINDOW] for start in range(0, len(part), WINDOW)]
        sound = np.zeros((1, len(windows), max(len(window) for window in windows)), np.float32)
        for number, window in enumerate(windows):
            sound[0, number, : len(window)] = window
        lengths = np.array([[len(window) for window in windows]], np.int32)
        measured = models.infer("measure_sound", {"SOUND": sound, "LENGTHS": lengths})["MEASUREMENTS"]
        silent = {"SOUND": np.zeros((1, 1, 1), np.float32), "LENGTHS": np.zeros((1, 1), np.int32)}
        _caption(models, item, "sound", silent, name, measured, catalogue)
    return item


def _caption(
    models: LocalModels,
    item: dict[str, Any],
    kind: str,
    medium: dict[str, npt.NDArray[Any]],
    part: str,
    measured: npt.NDArray[Any],
    catalogue: dict[str, str] | None,
) -> None:
    said = models.infer(
        f"caption_{kind}",
        {
            **medium,
            "PART": _bytes(part.encode()),
            "PROMPT": _bytes(b""),
            "CATALOGUE": _bytes(json.dumps(catalogue).encode()),
            "MEASUREMENTS": measured,
        },
    )
    item["texts"].append(said["TEXT"].reshape(-1)[0].decode("utf-8"))
    item["phrases"].append(json.loads(said["PHRASES"].reshape(-1)[0]))
    item["measurements"].append(json.loads(measured.reshape(-1)[0]))


def _bytes(value: bytes) -> npt.NDArray[Any]:
    return np.array([[value]], dtype=object)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [height, width, 3] of a plain file, at most 1024 a side."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((1024, 1024))
    return np.asarray(picture, dtype=np.uint8)


def read_sound(path: Path) -> npt.NDArray[np.float32]:
    """Samples float32 of a plain file, mono at 16 kHz."""
    import soundfile
    from scipy.signal import resample_poly

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    common = int(np.gcd(rate, RATE))
    return np.asarray(resample_poly(samples.mean(axis=1), RATE // common, rate // common), dtype=np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the coefficients were written, 2 when there are too few files of a kind."""
    parser = argparse.ArgumentParser(prog="python -m edge_models.fit_captions", description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", type=Path, nargs="+", help="pictures, recordings, or folders of them")
    parser.add_argument("--repository", type=Path, required=True, help="the built model repository")
    parser.add_argument("--coefficients", type=Path, default=COEFFICIENTS, help="the coefficients file to change")
    parser.add_argument("--captions", type=Path, help="where to keep the captions too, as JSON lines")
    chosen = parser.parse_args(arguments)
    models = LocalModels(chosen.repository)
    found = [file for path in chosen.paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    items: list[dict[str, Any]] = []
    for path in found:
        catalogue = {"title": path.stem.replace("_", " ")}
        if path.suffix.lower() in PICTURES:
            items.append({"name": path.stem, **caption_picture(models, read_picture(path), catalogue)})
        elif path.suffix.lower() in SOUNDS:
            items.append({"name": path.stem, **caption_sound(models, read_sound(path), catalogue)})
    if chosen.captions is not None:
        lines = [json.dumps(item, ensure_ascii=False) for item in items]
        chosen.captions.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    counts = {kind: sum(item["kind"] == kind for item in items) for kind in ("artwork", "track")}
    if min(counts.values()) < FEWEST:
        print(
            f"found {counts['artwork']} pictures and {counts['track']} recordings; give at least {FEWEST} of each",
            file=sys.stderr,
        )
        return 2
    norms = Norms.read(chosen.repository / "score_emotion" / "1" / "norms.json")
    before = json.loads(chosen.coefficients.read_text(encoding="utf-8"))
    coefficients = Coefficients.read(chosen.coefficients)
    # Captions are scored by what is read of them; free text, which has no phrases, is read as it stands.
    read = [item | {"texts": emotion.read_of(item["texts"], item["phrases"], item["measurements"])} for item in items]
    domains = dict(before["domains"])
    whole = [fit.embed(models, item["texts"]) for item in read]
    by_sentence = [
        np.stack([fit.embed(models, emotion.sentences(text)).mean(axis=0) for text in item["texts"]])
        for item in items
    ]
    for texts, vectors, wanted in (
        (read, whole, ("artwork", "track")),
        (items, by_sentence, (emotion.FREE_TEXT,)),
    ):
        fitted = fit.fit_domains(coefficients, norms, texts, vectors)
        domains |= {name: fitted[name] for name in wanted}
    provenance = before["provenance"] | {
        "captions": f"five captions each of {counts['artwork']} artworks and {counts['track']} tracks"
    }
    chosen.coefficients.write_text(fit.as_file(coefficients, domains, provenance), encoding="utf-8")
    print(f"{chosen.coefficients}: standardised on {provenance['captions']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
