"""The aligner's training: our loop beside the naive one, which computes latents, vectors and text anew each step.

    python -m benchmarks.training [--size tiny|published] [--batch N] [--rounds N] [--output FILE]

Runs in the environment of the full profile (`make .models/.made`). Weights are random, because how long a step takes
does not depend on them. Both loops read the same files, 30 s of sound in FLAC and pictures of 512 x 512 in JPEG, take
the same step of the same optimiser on the same networks, and are measured in turns, medians of the rounds. The naive
loop decodes a sound, cuts a window, makes its log-mel, encodes it; decodes a picture and asks CLIP; asks FLAN-T5 for
the fixed prompt. Ours reads what was computed once, which is timed beside.

The published size wants a GPU: the aligner with 16 tokens at batch 128, bf16, beside the paper's 37,200 steps in
about 60 hours on four cards (0.17 steps a second over all of them; Rinaldi et al. 2026, section 5.2). The tiny size
runs on any CPU and shows that both loops work; its ratio is that of tiny networks.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from networks import sizes
from networks.aligner import ImageAligner
from networks.audioldm2 import AudioLDM2, Conditioning, TextStates
from training.aligner import AlignerTraining, Batch, FixedText, Pairs, accelerator_for, begun, errors_of
from training.prepare import encoded, make_latents
from training.randomness import generator
from training.runs import peak_memory
from training.settings import AlignerSettings
from training.sound import frames_of, read_sound
from training.tables import Dataset, write_dataset

TINY = (16, 32)
"""Channels of the tiny autoencoder. Counted for one pair at the published sizes, the UNet costs 347 GFLOP there and
back, the autoencoder's encoder 345, ImageBind's picture encoder about 325 (CLIP ViT-B/32: 9), FLAN-T5 6. The tiny
encoders stand to the tiny UNet (0.95 GFLOP) as the published ones do: 0.86 and 0.87."""

AIM_RATIO, AIM_STEPS, PAPER_STEPS = 5.0, 0.5, 37_200 / (60 * 3600)
FILES = 32
"""Pairs there are; a batch may hold one several times. They lie in the system's cache, as suits the naive loop."""


def seeing(size: str) -> CLIPVisionModelWithProjection:
    """A picture encoder of CLIP's kind: ViT-B/32, or a tiny one (see TINY)."""
    numbers = (
        {"projection_dim": 512}
        if size == "published"
        else {
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "patch_size": 16,
            "projection_dim": 512,
        }
    )
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**numbers)).eval().requires_grad_(False)


def made_files(folder: Path) -> list[dict[str, Any]]:
    """Sounds of 30 s and pictures, as a collection has them; rows of a data set without vectors."""
    drawn = np.random.default_rng(0)
    rows = []
    for number in range(FILES):
        time_line = np.arange(30 * 16_000) / 16_000
        sound = 0.2 * np.sin(2 * np.pi * (110 + 20 * number) * time_line) + 0.05 * drawn.normal(size=len(time_line))
        soundfile.write(folder / f"{number}.flac", sound, 16_000)
        coarse = Image.fromarray(drawn.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        rows.append(
            {
                "id": f"{number:03d}",
                "sound": str(folder / f"{number}.flac"),
                "picture": str(folder / f"{number}.jpg"),
                "part": "train",
            }
        )
    return rows


class Naive:
    """The loop without anything computed beforehand."""

    def __init__(self, model: AudioLDM2, eye: Any, aligner: ImageAligner, rows: list[dict[str, Any]], seconds: float):
        self.model, self.eye, self.aligner, self.rows = model, eye, aligner, rows
        self.frames = frames_of(seconds, model.hop, model.sampling_rate, model.shrink)
        self.optimizer = torch.optim.AdamW(aligner.parameters(), lr=2e-5)

    def vectors(self, rows: list[int]) -> Tensor:
        """Decode pictures, prepare them as CLIP wants them, ask it."""
        pixels = []
        for row in rows:
            with Image.open(self.rows[row]["picture"]) as picture:
                small = picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
            pixels.append(np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1)
        with torch.inference_mode():
            return self.eye(torch.from_numpy(np.stack(pixels)).to(self.model.device)).image_embeds.float()

    def step(self, step: int, batch: int, precision: str) -> None:
        """One step, everything computed anew."""
        drawn = generator(0, "naive", step)
        rows = torch.randint(len(self.rows), (batch,), generator=drawn).tolist()
        length = self.frames * self.model.hop
        sounds = np.stack([read_sound(Path(self.rows[row]["sound"])) for row in rows])
        starts = torch.randint(sounds.shape[1] - length, (batch,), generator=drawn).tolist()
        cut = np.stack([sound[start : start + length] for sound, start in zip(sounds, starts, strict=True)])
        mean, deviation = encoded(self.model, cut).unbind(1)
        latents = (mean + deviation * torch.randn(mean.shape, generator=drawn).to(mean.device)).clone()
        vectors = self.vectors(rows).clone()
        given = Batch(
            torch.tensor(rows),
            vectors,
            latents,
            torch.randn(latents.shape, generator=drawn).to(latents.device),
            torch.randint(1000, (batch,), generator=drawn).to(latents.device),
            torch.ones(batch, device=latents.device),
        )
        fixed = text_of(self.model)
        device = self.model.device.type
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = errors_of(self.model, self.aligner, fixed, given, 5.0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.aligner.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        float(loss.detach())


def text_of(model: AudioLDM2) -> FixedText:
    """FLAN-T5's states of a prompt of nine tokens (no tokeniser is made of numbers), and no negative one."""
    tokens = torch.arange(9, device=model.device)[None]
    with torch.inference_mode():
        states = model.text_encoder_2(tokens)[0]
    text = TextStates(states[:, :1, :16].clone(), states.clone(), torch.ones_like(tokens))
    return FixedText(text, Conditioning(text.clap, text.t5, text.mask))


def measured(work: Callable[[int], Any], rounds: int, device: torch.device) -> list[float]:
    """Seconds of each round."""
    found = []
    for number in range(rounds):
        began = time.perf_counter()
        work(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return found


def run(size: str, batch: int, rounds: int) -> list[str]:
    """Measure both loops; lines of the report."""
    precision = "bf16" if size == "published" else "no"
    accelerator = accelerator_for(precision)
    device = accelerator.device
    with torch.device(device):
        model = AudioLDM2(**sizes.audioldm2_parts(size))
        eye = seeing(size)
        if size == "tiny":
            numbers = {**model.vae.config, "block_out_channels": TINY}
            model.vae = type(model.vae).from_config(numbers).eval().requires_grad_(False)
    if precision == "bf16":
        for part in (model.unet, model.language_model, model.text_encoder_2, eye):
            part.to(torch.bfloat16)
    seconds = 1024 * model.hop / model.sampling_rate
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = made_files(folder)
        token_size = int(model.language_model.config.n_embd)
        naive = Naive(model, eye, ImageAligner(16, 512, token_size=token_size).to(device), rows, seconds)
        began = time.perf_counter()
        for number, row in enumerate(rows):
            row["vector"] = naive.vectors([number])[0].tolist()
        write_dataset(folder / "data", "pairs", rows, source="made", space="clip")
        dataset = Dataset(folder / "data", "pairs")
        make_latents(dataset, model, count=3, seconds=seconds)
        once = time.perf_counter() - began
        pairs = Pairs(dataset)
        settings = AlignerSettings(steps=10_000, batch=batch, precision=precision, warmup=0)
        with begun(folder / "run", settings, pairs, model, resume=False) as kept:
            ours = AlignerTraining(settings, pairs, model, kept, accelerator, text_of(model), say=lambda text: None)
            ours.step(0, ours.batch(0))
            naive.step(0, batch, precision)
            times: dict[str, list[float]] = {"ours": [], "naive": []}
            for number in range(rounds):
                times["ours"] += measured(lambda _, at=number: ours.step(at, ours.batch(at)), 1, device)
                times["naive"] += measured(lambda _, at=number: naive.step(at, batch, precision), 1, device)
    middle = {name: statistics.median(each) for name, each in times.items()}
    ratio = middle["naive"] / middle["ours"]
    rate = 1 / middle["ours"]
    lines = [
        f"# Training the aligner: our loop beside the naive one ({datetime.now(UTC):%Y-%m-%d})",
        "",
        f"Size {size}, batch {batch}, {device.type}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{rounds} rounds in turns, medians. Command: `python -m benchmarks.training --size {size} --batch {batch} "
        f"--rounds {rounds}`.",
        "",
        "| loop | seconds a step | steps a second | slowest, fastest |",
        "|---|---|---|---|",
    ]
    for name, each in times.items():
        lines.append(f"| {name} | {middle[name]:.3f} | {1 / middle[name]:.3g} | {max(each):.3f}, {min(each):.3f} |")
    lines += [
        "",
        f"Ours is **{ratio:.1f} times faster** (aim: at least {AIM_RATIO:g}): "
        f"{'reached' if ratio >= AIM_RATIO else 'missed'}. What is computed once took {once / FILES:.3f} s a pair "
        f"(three windows), which the naive loop pays with every pair of every step. Most memory: "
        f"{peak_memory(device) / 1e9:.2f} GB (both loops in one process).",
    ]
    if size == "published":
        lines.append(
            f"Paper: {PAPER_STEPS:.2f} steps a second over four A100; here {rate:.2f} on one card (aim: "
            f"{AIM_STEPS:g})."
        )
    else:
        lines.append(
            "The published size was not run: it needs a GPU (`--size published --batch 128`). The tiny "
            "encoders cost as much beside the tiny UNet as the published ones beside theirs, by count of operations; "
            "by which the published size would allow a ratio of about 2.9; what reading files and the encoders' "
            "precision would add was not measured."
        )
    return lines


def main() -> int:
    """Measure and print or write."""
    parser = argparse.ArgumentParser(description="The aligner's training beside the naive loop.")
    parser.add_argument("--size", choices=("tiny", "published"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    size = given.size or ("published" if torch.cuda.is_available() else "tiny")
    text = "\n".join(run(size, given.batch or (128 if size == "published" else 16), given.rounds)) + "\n"
    if given.output:
        given.output.write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
