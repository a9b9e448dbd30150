"""The way a user goes, every step a command of its own: prepare a data set, train on it, export, be served.

The weights lie where the fetch puts the published ones, in the published layout, at a tiny size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from full_models.art2mus import Art2Mus
from full_models.music_wishes import FIXED_PROMPT, NEGATIVE_PROMPT, read
from full_models.weights import Choices
from PIL import Image
from transformers import CLIPImageProcessor

from tests.models import tiny, tiny_music, tiny_senses
from tests.models.tiny_music import question
from training.layouts import read_artsound

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 24


def command(*arguments: object, weights: Path) -> tuple[dict[str, Any], str]:
    """Run `python -m training` to its end: what it printed as JSON, and what it said to people."""
    done = subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments), "--json"],
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PROMENADE_WEIGHTS": str(weights),
            **tiny_senses.ENVIRONMENT,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome, done.stderr


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[Path]:
    """The weights folder as the fetch leaves it: AudioLDM 2 and CLIP."""
    root = tmp_path / "weights"
    tiny.save_audioldm2(tiny_senses.folder_of(root, "cvssp/audioldm2"), tiny_music.parts())
    clip = tiny_senses.folder_of(root, "openai/clip-vit-base-patch32")
    tiny_senses.tiny_clip(1).save_pretrained(clip)
    CLIPImageProcessor().save_pretrained(clip)
    yield root


def collection(folder: Path) -> Path:
    """Pictures, sounds at 44.1 kHz in stereo and a table, in ArtSound's layout; one sound is no sound."""
    drawn = np.random.default_rng(0)
    lines = ["image,audio,style,title"]
    (folder / "images").mkdir(parents=True)
    (folder / "audio").mkdir()
    for number in range(PAIRS):
        coarse = Image.fromarray(drawn.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        coarse.resize((320, 240)).save(folder / "images" / f"work-{number:02d}.jpg")
        time = np.arange(int(1.6 * 44_100)) / 44_100
        tone = 0.3 * np.sin(2 * np.pi * 110 * (1 + number / 4) * time)
        soundfile.write(folder / "audio" / f"{number:06d}.flac", np.stack([tone, 0.5 * tone], 1), 44_100)
        lines.append(f"work-{number:02d}.jpg,{number:06d}.flac,{'Cubism' if number % 2 else 'Realism'},Work {number}")
    (folder / "audio" / "000005.flac").write_bytes(b"no sound")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder


def stamps(folder: Path) -> dict[str, int]:
    """When each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*-[0-9]*.npy")}


@pytest.mark.timeout(900)
def test_from_a_collection_to_the_served_composer(tmp_path: Path, weights: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    source = collection(tmp_path / "collection")
    read_artsound(source, data, test_share=0.25)

    # Prepared once: latents of every track and, as the data set came without, vectors of every picture.
    prepare = ("prepare", data, "--windows", "2", "--seconds", "0.64", "--batch", "5", "--device", "cpu")
    outcome, said = command(*prepare, weights=weights)
    assert (outcome["kind"], len(outcome["skipped"])) == ("pairs", 1)
    assert "1 skipped: cannot be decoded (LibsndfileError) (000005)" in said and "is ready to train on" in said
    latents = np.load(data / "latents-00000.npy")
    assert latents.shape == (PAIRS, 2, 2, 4, 32, 4)
    assert np.isfinite(np.delete(latents, 5, 0)).all() and np.isnan(latents[5]).all()
    vectors = np.load(data / "vectors-00000.npy")
    assert vectors.shape == (PAIRS, 512) and np.isfinite(vectors).all() and np.ptp(vectors, axis=0).max() > 0.1

    # Again: nothing is computed and nothing read, for what could be read is away.
    before = stamps(data)
    source.rename(tmp_path / "away")
    command(*prepare, weights=weights)
    assert stamps(data) == before
    (data / "vectors-00000.npy").unlink()
    (tmp_path / "away").rename(source)
    command(*prepare, weights=weights)
    assert stamps(data)["latents-00000.npy"] == before["latents-00000.npy"]
    assert np.array_equal(np.load(data / "vectors-00000.npy"), vectors)

    # Trained: the folder holds what one reads, looks at, listens to and goes on from.
    aligner = ("aligner", data, "--run", run, "--device", "cpu", "--steps", "6", "--batch", "4", "--tokens", "3")
    sizes = ("--hidden-size", "16", "--warmup", "2", "--learning-rate", "0.001")
    often = ("--validate-every", "3", "--checkpoint-every", "3", "--sample-every", "3", "--samples", "2")
    outcome, said = command(*aligner, *sizes, *often, "--sample-steps", "2", weights=weights)
    assert outcome["trained"] == str(run / "model.safetensors") and np.isfinite(outcome["test"]["loss"])
    assert "18 pairs train, 2 validate; pictures in clip-vit-b32" in said and "s a step" in said
    facts = json.loads((run / "run.json").read_text())
    assert facts["settings"]["tokens"] == 3 and facts["data"]["space"] == "clip-vit-b32"
    assert facts["data"]["latents"]["windows"] == 2
    assert len((run / "curves.csv").read_text().splitlines()) == 7
    assert len((run / "validation.csv").read_text().splitlines()) == 3
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000003", "000006"]
    for step in ("000003", "000006"):
        heard = sorted((run / "samples" / step).glob("*.wav"))
        assert len(heard) == 2
        for path in heard:
            sound, rate = soundfile.read(path)
            assert rate == 16_000 and len(sound) == int(0.64 * rate) and np.abs(sound).max() > 1e-4
    card = (run / "MODEL_CARD.md").read_text()
    assert "# Art2Mus image aligner" in card and "## Test" in card and "clip-vit-b32, 512 numbers" in card

    # Exported: where the served composer looks, which composes with it for a picture's vector.
    outcome, said = command("export", run, weights=weights)
    assert outcome["kind"] == "aligner" and outcome["difference"] < 1e-4
    installed = Path(outcome["installed"])
    assert installed.parent == weights / "art2mus-aligner"
    chosen = {"PROMENADE_WEIGHTS": str(weights), "PROMENADE_MODELS_DEVICE": "cpu"}
    named = {"weights": "cvssp/audioldm2", "weights_aligner": "art2mus-aligner", "precision": "fp32"}
    served = Art2Mus.load(Choices("compose_music", named, environment=chosen), nobody)
    assert served.aligner is not None
    session = onnxruntime.InferenceSession(str(run / "export" / "model.onnx"))
    (tokens,) = session.run(None, {"vectors": vectors[:1].astype(np.float32)})
    assert np.allclose(tokens, served.tokens(vectors[0]).numpy(), atol=1e-4)
    music = [composed(served, vectors[row]) for row in (0, 1)]
    assert all(np.isfinite(each).all() and np.abs(each).max() > 1e-4 for each in music)
    assert not np.allclose(*music), "another picture, other music"


def nobody(model: str, *_: object, **__: object) -> Any:
    """No other model is served here."""
    raise AssertionError(f"{model} was asked")


@torch.inference_mode()
def composed(served: Art2Mus, vector: Any) -> Any:
    """Music for a picture by the served code."""
    wanted, _ = read(question(seconds=5.0, vector=vector))
    how = {"conditioning": "picture", "prompt": FIXED_PROMPT, "negative": NEGATIVE_PROMPT, "guidance": 3.5}
    how |= {"solver": "ddim", "steps": 2, "candidates": 1}
    return np.concatenate(list(served.pieces(wanted, how, lambda: None, {})))
