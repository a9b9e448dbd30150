"""The aligner's training: our loop beside the naive one, which computes latents, vectors and text anew each step.

    python -m benchmarks.training [--size tiny|published] [--batch N] [--rounds N] [--precision no|bf16]
                                  [--threads N] [--eye clip|imagebind] [--output FILE]

Runs in the environment of the full profile (`make .models/.made`). Weights are random, because how long a step takes
does not depend on them. Both loops have the same collection, in the sizes of the papers': tracks of 30 s in MP3, 44.1
kHz stereo (FMA large, Art2Mus's source), pictures of 1200 x 800 in JPEG (ArtGraph's average). They take the same step
of the same optimiser on the same networks in the same precision, in turns, in one process; medians of the rounds. The
naive loop, for each pair of each step: decodes the track, resamples it, cuts a window of 10.24 s, makes its log-mel,
encodes it; decodes the picture, asks the picture encoder; and asks FLAN-T5 for the fixed prompt once a step. One more
loop decodes no more of a track than its window. Ours reads what was computed once, timed beside.

On a CPU that others use as well, seconds of the clock say how busy they are; the ratio there is that of the process's
own seconds on the CPU. The published size wants a GPU: the aligner with 16 tokens at batch 128, bf16, beside the
paper's 37,200 steps in about 60 hours on four cards (0.17 steps a second over all of them; Rinaldi et al. 2026,
section 5.2); on a CPU a batch of 1 shows how its parts stand to one another. The tiny size runs on any CPU: its
networks are thousands of times smaller, its files as large as any.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from networks import imagebind, sizes
from networks.aligner import ImageAligner
from networks.audioldm2 import AudioLDM2, Conditioning, TextStates
from training.aligner import AlignerTraining, Batch, FixedText, Pairs, accelerator_for, begun, errors_of
from training.pictures import read_picture
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

FRAMES = 1024
"""Log-mel frames of a window, 10.24 s: at both sizes."""

AIM_RATIO, AIM_STEPS, PAPER_STEPS = 5.0, 0.5, 37_200 / (60 * 3600)
FILES = 8
"""Pairs there are; a batch may hold one several times. They lie in the system's cache, as suits the naive loop."""


class ImageBindEye(nn.Module):
    """ImageBind's picture encoder at its published size: pixels [B, 3, 224, 224] -> [B, 1024]."""

    def __init__(self) -> None:
        super().__init__()
        self.network = imagebind.build(imagebind.HUGE)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, 224, 224] -> [B, 1024]."""
        vectors: Tensor = self.network({"vision": pixels})["vision"]
        return vectors


class ClipEye(nn.Module):
    """A picture encoder of CLIP's kind: ViT-B/32, or a tiny one (see TINY). Pixels [B, 3, 224, 224] -> [B, 512]."""

    def __init__(self, size: str) -> None:
        super().__init__()
        small = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
        numbers = {"projection_dim": 512} | ({} if size == "published" else small | {"patch_size": 16})
        self.network = CLIPVisionModelWithProjection(CLIPVisionConfig(**numbers))

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, 224, 224] -> [B, 512]."""
        vectors: Tensor = self.network(pixel_values=pixels).image_embeds
        return vectors


def made_files(folder: Path) -> list[dict[str, Any]]:
    """Tracks and pictures as a collection has them; rows of a data set without vectors."""
    drawn = np.random.default_rng(0)
    rows = []
    for number in range(FILES):
        time_line = np.arange(30 * 44_100) / 44_100
        tone = 0.2 * np.sin(2 * np.pi * (110 + 20 * number) * time_line)
        sound = tone[:, None] + 0.05 * drawn.normal(size=(len(time_line), 2))
        soundfile.write(folder / f"{number}.mp3", sound, 44_100)
        coarse = Image.fromarray(drawn.integers(0, 255, (80, 120, 3), dtype=np.uint8))
        coarse.resize((1200, 800), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        rows.append(
            {
                "id": f"{number:03d}",
                "sound": str(folder / f"{number}.mp3"),
                "picture": str(folder / f"{number}.jpg"),
                "part": "train",
            }
        )
    return rows


@dataclass(slots=True)
class Clock:
    """Seconds by what they were spent on: of the clock, and of this process on the CPU."""

    device: torch.device
    spent: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Measure what is done inside; the GPU is waited for."""
        began = time.perf_counter(), time.process_time()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.spent.setdefault(what, []).append((time.perf_counter() - began[0], time.process_time() - began[1]))

    def middle(self, what: str, kind: int) -> float:
        """The median; kind 0: of the clock, 1: on the CPU."""
        return statistics.median(each[kind] for each in self.spent[what])


class Naive:
    """The loop without anything computed beforehand.

    Args:
        window_only: decode no more of a track than the window that is cut out of it.
    """

    def __init__(
        self,
        model: AudioLDM2,
        eye: nn.Module,
        aligner: ImageAligner,
        rows: list[dict[str, Any]],
        clock: Clock,
        window_only: bool = False,
    ) -> None:
        self.model, self.eye, self.aligner, self.rows, self.clock = model, eye, aligner, rows, clock
        self.window_only = window_only
        seconds = FRAMES * model.hop / model.sampling_rate
        self.length = frames_of(seconds, model.hop, model.sampling_rate, model.shrink) * model.hop
        self.optimizer = torch.optim.AdamW(aligner.parameters(), lr=2e-5)

    def vectors(self, rows: list[int]) -> Tensor:
        """Decode pictures, prepare them as CLIP wants them, ask the encoder."""
        with self.clock.of("naive: decode pictures"):
            pixels = []
            for row in rows:
                small = read_picture(Path(self.rows[row]["picture"])).resize((224, 224), Image.Resampling.BICUBIC)
                pixels.append(np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1)
        with self.clock.of("naive: picture encoder"), torch.inference_mode():
            given = torch.from_numpy(np.stack(pixels)).to(self.model.device, next(self.eye.parameters()).dtype)
            vectors: Tensor = self.eye(given).float()
            return vectors

    def sound(self, row: int, share: float) -> Any:
        """A window of a track, at this share of what is left beside it: [samples]."""
        rate, path = self.model.sampling_rate, Path(self.rows[row]["sound"])
        if self.window_only:
            seconds = self.length / rate
            # A little more, as resampling rounds.
            return read_sound(path, rate, share * (soundfile.info(path).duration - seconds - 0.1), seconds + 0.1)[
                : self.length
            ]
        whole = read_sound(path, rate)
        start = int(share * (len(whole) - self.length))
        return whole[start : start + self.length]

    def step(self, step: int, batch: int, precision: str) -> None:
        """One step, everything computed anew."""
        drawn = generator(0, "naive", step)
        rows = torch.randint(len(self.rows), (batch,), generator=drawn).tolist()
        shares = torch.rand(batch, generator=drawn).tolist()
        with self.clock.of("naive: decode and resample tracks"):
            cut = np.stack([self.sound(row, share) for row, share in zip(rows, shares, strict=True)])
        with self.clock.of("naive: log-mel and autoencoder"):
            mean, deviation = encoded(self.model, cut).unbind(1)
            latents = (mean + deviation * torch.randn(mean.shape, generator=drawn).to(mean.device)).clone()
        vectors = self.vectors(rows).clone()
        with self.clock.of("naive: FLAN-T5"):
            fixed = text_of(self.model)
        given = Batch(
            torch.tensor(rows),
            vectors,
            latents,
            torch.randn(latents.shape, generator=drawn).to(latents.device),
            torch.randint(1000, (batch,), generator=drawn).to(latents.device),
            torch.ones(batch, device=latents.device),
        )
        with self.clock.of("naive: GPT-2, UNet and back, optimiser"):
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


def networks_of(size: str, precision: str, eye: str, device: torch.device) -> tuple[AudioLDM2, nn.Module]:
    """AudioLDM 2 and the picture encoder, as training and preparing load them: the autoencoder stays in fp32."""
    with torch.device(device):
        model = AudioLDM2(**sizes.audioldm2_parts("published" if size == "published" else "tiny"))
        seeing: nn.Module = ImageBindEye() if eye == "imagebind" else ClipEye(size)
        if size == "tiny":
            numbers = {**model.vae.config, "block_out_channels": TINY}
            model.vae = type(model.vae).from_config(numbers).eval().requires_grad_(False)
            # As many samples a frame as published; the tiny vocoder itself is not asked.
            model.vocoder.config.upsample_rates = [5, 4, 4, 2]
    seeing.eval().requires_grad_(False)
    if precision == "bf16":
        for part in (model.unet, model.language_model, model.text_encoder_2, seeing):
            part.to(torch.bfloat16)
    return model, seeing


def run(size: str, batch: int, rounds: int, precision: str, eye: str) -> list[str]:
    """Measure the loops; lines of the report."""
    accelerator = accelerator_for("bf16" if precision == "bf16" else "no")
    device = accelerator.device
    model, seeing = networks_of(size, precision, eye, device)
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = made_files(folder)
        token_size = int(model.language_model.config.n_embd)
        width = 1024 if eye == "imagebind" else 512

        def aligner() -> ImageAligner:
            return ImageAligner(16, width, token_size=token_size).to(device)

        naive = Naive(model, seeing, aligner(), rows, clock)
        careful = Naive(model, seeing, aligner(), rows, Clock(device), window_only=True)
        prepared = rows if size == "tiny" or device.type == "cuda" else rows[: max(2, batch)]
        with clock.of("once"):
            for number, row in enumerate(prepared):
                row["vector"] = naive.vectors([number])[0].tolist()
            write_dataset(folder / "data", "pairs", prepared, source="made", space="made")
            dataset = Dataset(folder / "data", "pairs")
            make_latents(dataset, model, count=3, seconds=FRAMES * model.hop / model.sampling_rate, batch=4)
        pairs = Pairs(dataset)
        settings = AlignerSettings(steps=10_000, batch=batch, precision=accelerator.mixed_precision, warmup=0)
        with begun(folder / "run", settings, pairs, model, resume=False) as kept:
            ours = AlignerTraining(settings, pairs, model, kept, accelerator, text_of(model), say=lambda text: None)
            loops: dict[str, Callable[[int], Any]] = {
                "ours": lambda step: ours.step(step, ours.batch(step)),
                "naive": lambda step: naive.step(step, batch, precision),
                "naive, decoding a window only": lambda step: careful.step(step, batch, precision),
            }
            for loop in loops.values():
                loop(0)
            clock.spent = {"once": clock.spent["once"]}
            for number in range(rounds):
                for name, loop in loops.items():
                    with clock.of(name):
                        loop(number + 1)
    given = f"--size {size} --batch {batch} --rounds {rounds} --precision {precision} --eye {eye}"
    setting = (
        f"Size {size}, batch {batch}, precision {precision}, picture encoder {eye}, {device.type}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds in turns, medians. Command: "
        f"`python -m benchmarks.training {given} --threads {torch.get_num_threads()}`."
    )
    return [setting, "", *_table(clock, list(loops)), "", *_verdict(clock, size, len(prepared), device)]


def _table(clock: Clock, loops: list[str]) -> list[str]:
    lines = ["| | seconds a step | CPU seconds a step | slowest, fastest |", "|---|---|---|---|"]
    parts = [name for name in clock.spent if name.startswith("naive: ")]
    for name in [*loops, *parts]:
        spent = [each[0] for each in clock.spent[name]]
        shown = name.replace("naive: ", "of the naive loop: ")
        lines.append(
            f"| {shown} | {clock.middle(name, 0):.3f} | {clock.middle(name, 1):.3f} | {max(spent):.3f}, "
            f"{min(spent):.3f} |"
        )
    return lines


def _verdict(clock: Clock, size: str, pairs: int, device: torch.device) -> list[str]:
    kind = 0 if device.type == "cuda" else 1
    names = ("naive", "naive, decoding a window only")
    ratios = [[clock.middle(name, each) / clock.middle("ours", each) for each in (0, 1)] for name in names]
    best = ratios[0][kind]
    lines = [
        f"Ours is **{best:.1f} times faster** by {'the clock' if kind == 0 else 'seconds on the CPU'} (aim: at least "
        f"{AIM_RATIO:g}): {'hit' if best >= AIM_RATIO else 'missed'}. By the clock {ratios[0][0]:.1f}; beside the "
        f"loop that decodes a window only {ratios[1][kind]:.1f}. What is computed once took "
        f"{clock.middle('once', kind) / pairs:.3f} s a pair (three windows and the picture), which the naive loop "
        f"pays with every pair of every step (one window). Most memory: {peak_memory(device) / 1e9:.2f} GB (all "
        "loops in one process)."
    ]
    if size == "published" and device.type == "cuda":
        rate = 1 / clock.middle("ours", 0)
        lines.append(
            f"Paper: {PAPER_STEPS:.2f} steps a second over four A100; here {rate:.2f} on one card (aim: "
            f"{AIM_STEPS:g})."
        )
    return lines


def main() -> int:
    """Measure and print or write."""
    parser = argparse.ArgumentParser(description="The aligner's training beside the naive loop.")
    parser.add_argument("--size", choices=("tiny", "published"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=("no", "bf16"))
    parser.add_argument("--eye", choices=("clip", "imagebind"), default="clip")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    cuda = torch.cuda.is_available()
    size = given.size or ("published" if cuda else "tiny")
    batch = given.batch or (16 if size == "tiny" else 128 if cuda else 1)
    precision = given.precision or ("bf16" if size == "published" else "no")
    head = f"# Training the aligner: our loop beside the naive one ({datetime.now(UTC):%Y-%m-%d})"
    text = "\n".join([head, "", *run(size, batch, given.rounds, precision, given.eye)]) + "\n"
    if given.output:
        given.output.write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
