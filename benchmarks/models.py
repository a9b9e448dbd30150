"""The full profile's networks: the paper's way beside ours, and one by one beside together.

    python -m benchmarks.models [--size tiny|published] [--device cpu|cuda] [--section NAME ...] [--output FILE]

Runs in the environment of the full profile (`make .models/.made`). The networks have random weights, because how
long a network takes does not depend on them; nothing is fetched. On a GPU the published sizes are measured; without
one the same code runs at a tiny size on the CPU, which proves that it works and says nothing about speed, and the
report says what would have been run. Every ratio compares two things of the same run, in turns, medians.

Sections:
    art2mus    10 s of music: as the paper makes it (200 steps of DDIM, fp32, two passes of the UNet a step) beside
               ours (half precision, one pass for both branches, a second-order solver of 25 steps, compiled).
    batches    music-seconds a second for growing batches, until memory is full.
    imagebind  pictures and clips a second: torch as it comes, one by one, beside half precision in batches.
    captions   a picture captioner of 7 billion parameters: one by one beside batched.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import diffusers
import psutil
import torch
import transformers
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from networks import imagebind as imagebind_network
from networks import sizes
from networks.aligner import ImageAligner
from networks.audioldm2 import AudioLDM2, Conditioning, Settings, TextStates

CLONE = Path(__file__).resolve().parent.parent
SECONDS = 10.0
"""Of music, as in the paper. The tiny vocoder makes four samples a frame instead of 160: a quarter of a second has as
many frames there."""
SECTIONS = ("art2mus", "batches", "imagebind", "captions")
AIM_FASTER, AIM_SECONDS = 15.0, 0.5
STEPS = 25
TOKENS = 96
"""New tokens of each caption: a few sentences."""


@dataclass
class Measured:
    """One thing that was measured: seconds of each round, and the most memory that it took, in bytes."""

    what: str
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    units: float = 1.0
    """Things made in one round: music-seconds, pictures, captions."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Things a second."""
        return self.units / self.median


class Machine:
    """Where it runs, and how time and memory are read there."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.gpu = device.startswith("cuda")

    @property
    def seconds(self) -> float:
        """Of music in each piece."""
        return SECONDS if self.gpu else SECONDS / 40

    @property
    def half(self) -> torch.dtype:
        """Half precision where the machine computes in it; a CPU keeps to fp32."""
        return torch.float16 if self.gpu else torch.float32

    def wait(self) -> None:
        """Until everything asked for is done."""
        if self.gpu:
            torch.cuda.synchronize()

    def clean(self) -> None:
        """Give back what is not used any more."""
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()

    def measure(self, what: str, work: Callable[[], Any], rounds: int, units: float, warm: int = 1) -> Measured:
        """Run it `warm` times unmeasured (compilation, caches), then `rounds` times."""
        measured = Measured(what, units=units)
        for _ in range(warm):
            work()
        self.wait()
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(rounds):
            begun = time.perf_counter()
            work()
            self.wait()
            measured.seconds.append(time.perf_counter() - begun)
        measured.memory = torch.cuda.max_memory_allocated() if self.gpu else psutil.Process().memory_info().rss
        return measured

    def words(self) -> str:
        """The machine, in words."""
        if self.gpu:
            name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
            return f"{name}, {memory / 2**30:.0f} GiB, torch {torch.__version__}"
        return f"CPU ({psutil.cpu_count()} cores), torch {torch.__version__}"


# -- networks with random weights ---------------------------------------------------------------------------------


def audioldm2(machine: Machine, size: sizes.Size, precision: torch.dtype) -> AudioLDM2:
    """AudioLDM 2 without text encoders; VAE and vocoder stay in fp32, as they are served."""
    with torch.device(machine.device):
        parts = sizes.audioldm2_parts(size, text=False)
    for name in ("unet", "language_model", "projection_model"):
        parts[name].to(precision)
    return AudioLDM2(**parts)


def picture_captioner(machine: Machine, size: sizes.Size) -> Any:
    """Qwen2.5-VL of 7 billion parameters, or the tests' tiny one; bfloat16 on a GPU."""
    # Only here: the tests' numbers are those of the published configuration.
    from tests.models import test_words_sizes, tiny_words

    if size == "published":
        with torch.device(machine.device):
            return test_words_sizes.PUBLISHED["qwen2.5-vl-7b"].build().to(torch.bfloat16).eval()
    with tempfile.TemporaryDirectory() as folder:
        return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_words.qwen_pictures(Path(folder))).eval()


# -- Art2Mus ---------------------------------------------------------------------------------------------------


def listened(model: AudioLDM2, machine: Machine, batch: int, tokens: int = 16) -> tuple[Conditioning, Conditioning]:
    """What the UNet listens to for so many pictures with random vectors, and what it is held against.

    Runs the aligner and GPT-2's steps; the text encoders, which see one fixed sentence, are random states instead.
    """
    generator = torch.Generator().manual_seed(0)

    def states(rows: int) -> TextStates:
        return TextStates(
            torch.randn(rows, 1, model.projection_model.projection.in_features, generator=generator).to(
                machine.device, model.dtype
            ),
            torch.randn(rows, 12, model.projection_model.projection_1.in_features, generator=generator).to(
                machine.device, model.dtype
            ),
            torch.ones(rows, 12, dtype=torch.long, device=machine.device),
        )

    width = model.language_model.config.hidden_size
    aligner = ImageAligner(tokens=tokens, token_size=width).to(machine.device, model.dtype).eval()
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(torch.randn(batch, 1024, generator=generator))
        picture = aligner(vectors.to(machine.device, model.dtype))
        return (
            model.condition(states(batch), picture, text_in_language_model=False),
            model.condition(states(batch)),
        )


def as_the_paper(
    model: AudioLDM2, condition: Conditioning, negative: Conditioning, seconds: float, steps: int
) -> Tensor:
    """One window as the paper makes it: every step asks the UNet twice, once for each branch of the guidance."""
    with torch.inference_mode():
        noise = model.noise(model.frames(seconds), list(range(len(condition))))
        solver = model.solver(Settings(steps=steps, solver="ddim"))
        latents = noise * solver.init_noise_sigma
        for moment in solver.timesteps:
            predicted = [
                model.unet(
                    solver.scale_model_input(latents, moment),
                    moment,
                    encoder_hidden_states=branch.audio,
                    encoder_hidden_states_1=branch.text,
                    encoder_attention_mask_1=branch.mask,
                    return_dict=False,
                )[0]
                for branch in (negative, condition)
            ]
            latents = solver.step(
                predicted[0] + 3.5 * (predicted[1] - predicted[0]), moment, latents, return_dict=False
            )[0]
        return model.vocode(model.decode(latents))


def ours(model: AudioLDM2, condition: Conditioning, negative: Conditioning, seconds: float) -> list[Tensor]:
    """One window as the composer makes it."""
    settings = Settings(steps=STEPS, solver="fast", window_seconds=seconds)
    return list(model.compose(condition, negative, seconds, list(range(len(condition))), settings))


def paper_way(machine: Machine, size: sizes.Size, rounds: int, steps: int) -> Measured:
    """The paper's settings, measured."""
    model = audioldm2(machine, size, torch.float32)
    condition, negative = listened(model, machine, 1)
    return machine.measure(
        "as the paper",
        lambda: as_the_paper(model, condition, negative, machine.seconds, steps),
        rounds,
        machine.seconds,
    )


def our_way(machine: Machine, size: sizes.Size, rounds: int, batch: int = 1, compiled: bool = False) -> Measured:
    """The composer's settings, measured."""
    model = audioldm2(machine, size, machine.half)
    condition, negative = listened(model, machine, batch)
    if compiled:
        model.faster()
    name = f"ours{', compiled' if compiled else ''}{f', batch of {batch}' if batch > 1 else ''}"
    return machine.measure(
        name,
        lambda: ours(model, condition, negative, machine.seconds),
        rounds,
        batch * machine.seconds,
        warm=3 if compiled else 1,
    )


def art2mus(machine: Machine, size: sizes.Size, rounds: int) -> list[str]:
    """The section's part of the report."""
    steps = 200 if machine.gpu else 40
    rows = [paper_way(machine, size, rounds, steps)]
    for compiled in (False, True) if machine.gpu else (False,):
        machine.clean()
        rows.append(our_way(machine, size, rounds, compiled=compiled))
    machine.clean()
    paper, best = rows[0], rows[-1]
    ratio = paper.median / best.median
    verdict = (
        f"**{ratio:.1f} times** as fast as the paper's settings (aim at least {AIM_FASTER:.0f}: "
        f"{'reached' if ratio >= AIM_FASTER else 'missed'}), {best.median:.2f} s for {SECONDS:.0f} s of music at "
        f"batch 1 (aim under {AIM_SECONDS} s: {'reached' if best.median < AIM_SECONDS else 'missed'})."
        if machine.gpu
        else f"At this size on this CPU the ratio is {ratio:.1f}; the aims (at least {AIM_FASTER:.0f} times, under "
        f"{AIM_SECONDS} s) are for the published size on a GPU."
    )
    return [
        f"## Art2Mus: {machine.seconds:g} s of music for one picture",
        "",
        f"{steps} steps of DDIM in fp32, the UNet asked twice a step, beside {STEPS} steps of a second-order solver, "
        "one pass for both branches" + (", half precision." if machine.gpu else "."),
        "",
        *table(rows, paper, "music-seconds"),
        "",
        verdict,
    ]


def batches(machine: Machine, size: sizes.Size, rounds: int) -> list[str]:
    """The section's part of the report."""
    rows: list[Measured] = []
    batch, stopped = 1, ""
    while batch <= (256 if machine.gpu else 4):
        try:
            rows.append(our_way(machine, size, rounds, batch))
        except torch.cuda.OutOfMemoryError:
            stopped = f"A batch of {batch} does not fit into memory."
            break
        finally:
            machine.clean()
        batch *= 2
    best = max(rows, key=lambda row: row.rate)
    return [
        "## Art2Mus: batches",
        "",
        *table(rows, rows[0], "music-seconds"),
        "",
        f"Most: {best.rate:.1f} music-seconds a second ({best.what}). {stopped}".strip(),
    ]


# -- senses ----------------------------------------------------------------------------------------------------


def embedded(
    machine: Machine,
    size: sizes.Size,
    rounds: int,
    modality: str,
    given: Tensor,
    precision: torch.dtype,
    together: int,
) -> Measured:
    """So many inputs at once through one tower of ImageBind, measured."""
    network = imagebind_network.build(
        imagebind_network.HUGE if size == "published" else imagebind_network.TINY, machine.device
    ).to(precision)
    tensors = given.to(machine.device, precision)

    def work() -> None:
        with torch.inference_mode():
            for start in range(0, len(tensors), together):
                network({modality: tensors[start : start + together]})

    how = "one by one" if together == 1 else f"{together} together"
    return machine.measure(f"{str(precision).removeprefix('torch.')}, {how}", work, rounds, len(tensors))


def imagebind(machine: Machine, size: sizes.Size, rounds: int) -> list[str]:
    """The section's part of the report."""
    count = 64 if machine.gpu else 8
    made = {
        "pictures": ("vision", torch.randn(count, 3, 224, 224)),
        "clips": ("audio", torch.randn(count, 1, 1, 128, 204)),
    }
    report = ["## ImageBind", ""]
    for what, (modality, given) in made.items():
        rows = []
        for precision, together in ((torch.float32, 1), (machine.half, count)):
            rows.append(embedded(machine, size, rounds, modality, given, precision, together))
            machine.clean()
        report += [*table(rows, rows[0], what), ""]
    return report


def shown(network: Any, count: int, side: int = 32) -> dict[str, Tensor]:
    """So many pictures of side x side patches with a question of 64 words each, as the network takes them."""
    config = network.config
    vision = config.vision_config
    size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    seen = (side // vision.spatial_merge_size) ** 2
    row = torch.full((64 + seen,), 7)
    row[8 : 8 + seen] = config.image_token_id
    row[7], row[8 + seen] = config.vision_start_token_id, config.vision_end_token_id
    tokens = row.repeat(count, 1)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == config.image_token_id).int(),
        "pixel_values": torch.randn(count * side * side, size, dtype=network.dtype),
        "image_grid_thw": torch.tensor([[1, side, side]] * count),
    }


def captions(machine: Machine, size: sizes.Size, rounds: int) -> list[str]:
    """The section's part of the report."""
    network = picture_captioner(machine, size)
    count = 16 if machine.gpu else 4
    given = {name: value.to(machine.device) for name, value in shown(network, count).items()}
    # Patches of all pictures lie one behind the other; everything else has a row for each picture.
    patches = len(given["pixel_values"]) // count

    def ask(start: int, stop: int) -> None:
        part = {
            name: value[start * patches : stop * patches] if name == "pixel_values" else value[start:stop]
            for name, value in given.items()
        }
        with torch.inference_mode():
            network.generate(**part, do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS)

    rows = [
        machine.measure("one by one", lambda: [ask(each, each + 1) for each in range(count)], rounds, count),
        machine.measure(f"{count} together", lambda: ask(0, count), rounds, count),
    ]
    return [
        "## A picture captioner (Qwen2.5-VL)",
        "",
        f"{TOKENS} new tokens for each picture, greedy.",
        "",
        *table(rows, rows[0], "captions"),
    ]


# -- the report ------------------------------------------------------------------------------------------------


def table(rows: Sequence[Measured], baseline: Measured, units: str) -> list[str]:
    """Lines of a table; the baseline is 1.00."""
    return [
        f"| way | {units} a second, by the first's | seconds a round, median | {units} a second | memory, GiB |",
        "|---|---|---|---|---|",
        *(
            f"| {row.what} | {row.rate / baseline.rate:.2f} | {row.median:.3f} | {row.rate:.2f} | "
            f"{row.memory / 2**30:.2f} |"
            for row in rows
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description="The full profile's networks.")
    parser.add_argument("--size", choices=("tiny", "published"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--section", action="append", choices=SECTIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--output", type=Path, help="the report; docs/reports/models-DATE.md by default; - writes none"
    )
    options = parser.parse_args(arguments)
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    machine = Machine(options.device)
    size = options.size or ("published" if machine.gpu else "tiny")
    works = {"art2mus": art2mus, "batches": batches, "imagebind": imagebind, "captions": captions}
    report = [
        f"# The full profile's networks, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Machine: {machine.words()}. Networks at {size} size with random weights. Command: "
        "`python -m benchmarks.models` in the environment of the full profile.",
        "",
    ]
    if size == "tiny":
        report += [
            "Measured at a tiny size: this proves that the benchmark works and says nothing about the published "
            "networks. On a machine with a GPU the same command measures them: 10 s of music at batch 1 as the paper "
            "makes it beside ours, batches until memory is full, ImageBind's pictures and clips a second, and a "
            "7-billion captioner one by one beside batched.",
            "",
        ]
    for name in options.section or SECTIONS:
        print(f"{name} ...", flush=True)
        lines = works[name](machine, size, options.rounds)
        machine.clean()
        print("\n".join(lines), "\n", flush=True)
        report += [*lines, ""]
    text = "\n".join(report)
    if str(options.output) == "-":
        return
    output = options.output or CLONE / "docs" / "reports" / f"models-{datetime.now(UTC):%Y-%m-%d}.md"
    output.write_text(text)
    print(f"written to {output}")


if __name__ == "__main__":
    main()
