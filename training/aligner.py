"""Training Art2Mus's image aligner: only it moves; GPT-2, UNet and all else of AudioLDM 2 stay as published.

Rinaldi et al. 2026, sections 4.4 and 5.2: the noise in a noised latent of the paired track is predicted under the
picture's tokens, the error weighted by min-SNR (gamma 5), AdamW at 2e-5, constant after a warm-up, gradients clipped
at 1. Latents and picture vectors were computed once (`training.prepare`); a step runs GPT-2, the UNet, and the way
back to the aligner.

**Dropout of the condition.** For guidance, a share of the pictures is replaced by a vector of zeros. With everything
but the aligner frozen, dropping the tokens themselves would leave nothing to learn; so the aligner learns what "no
picture" is. (The negative branch of generation stays the text path, as in the paper; see networks.audioldm2.)
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from networks.aligner import ImageAligner
from networks.audioldm2 import AudioLDM2, Conditioning, Settings, TextStates, language_of_audio
from networks.checkpoints import read_checkpoint
from training.objective import (
    min_snr_weights,
    noised,
    signal_to_noise,
    target_of,
    warm_up,
    weighted_errors,
)
from training.prepare import LATENTS, VECTORS, weights_digest
from training.randomness import Order, generator
from training.runs import Progress, Run, peak_memory, spoken
from training.settings import AlignerSettings, MixedPrecision, RunError, document_of
from training.splits import TEST, TRAIN, VALIDATION
from training.tables import MOST_BAD, Array, BadData, Dataset, ShardReader, Shards, Skipped, batches

if TYPE_CHECKING:
    from accelerate import Accelerator

PROMPT = "Music representing the content of this artwork"
NEGATIVE = "Low quality"
"""The fixed guiding prompt and the negative one: Rinaldi et al. 2026, sections 4.3 and 5.2."""


@dataclass(frozen=True, slots=True)
class FixedText:
    """What the text encoders say of the fixed prompt and the negative one, computed once for a run.

    Attributes:
        prompt: of one text; only FLAN-T5's states reach the UNet.
        negative: the conditioning that guidance leads away from.
    """

    prompt: TextStates
    negative: Conditioning

    @classmethod
    def from_model(cls, model: AudioLDM2) -> FixedText:
        """Ask the model's own text encoders, which are not needed any more afterwards."""
        prompt = model.encode_text([PROMPT])
        negative = model.encode_text([NEGATIVE], length=prompt.t5.shape[1])
        return cls(prompt, model.condition(negative))


@dataclass(slots=True)
class Batch:
    """What a step computes on, on the CPU.

    Attributes:
        rows: [B] of the data set.
        vectors: [B, D]; zeros where the picture is dropped.
        latents: [B, C, F, M], a fresh sample of the autoencoder's distribution.
        noise: the same shape.
        timesteps: [B].
        shares: [B], 1, or 0 for a row whose numbers are bad.
    """

    rows: Tensor
    vectors: Tensor
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    shares: Tensor

    def part(self, rows: slice) -> Batch:
        """Some rows of it."""
        return Batch(*(getattr(self, name)[rows] for name in self.__slots__))

    def to(self, device: torch.device) -> Batch:
        """On a device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))


class Pairs:
    """A data set's pairs as the training takes them: vectors in memory, latents mapped.

    Raises BadData where there are no latents or vectors, or too many rows are bad.
    """

    def __init__(self, dataset: Dataset, most_bad: float = MOST_BAD) -> None:
        self.dataset = dataset
        self.latents = Shards.opened(dataset, LATENTS)
        self.reader = ShardReader(self.latents)
        if dataset.description.space:
            vectors, self.skipped = dataset.vectors()
            self.space = dataset.description.space
        else:
            shards = Shards.opened(dataset, VECTORS)
            vectors, self.skipped = np.concatenate(shards.mapped()).astype(np.float32), Skipped()
            self.space = str(shards.settings["source"])
        names = dataset.column("id")
        missing = {name for each in self.skipped.names.values() for name in each}
        bad: Array = np.logical_or(~np.isfinite(vectors).all(1), ~vectors.any(1))
        for row in np.flatnonzero(bad):
            if names[row] not in missing and not dataset.description.space:
                self.skipped.add("no vector", names[row])
        silent = self.latents.bad_rows()
        for row in np.flatnonzero(silent & ~bad):
            self.skipped.add("latents that are missing or not finite", names[row])
        self.skipped.refuse_above(most_bad, len(dataset), str(dataset.folder))
        self.vectors = torch.from_numpy(np.where(bad[:, None], 0.0, vectors).astype(np.float32))
        self.good = ~(bad | silent)
        self.parts = np.array(dataset.column("part"))
        self.names = names

    def rows_of(self, part: str) -> Array:
        """The good rows of a part."""
        return np.flatnonzero((self.parts == part) & self.good)

    def batch(self, rows: Array, drawn: torch.Generator, steps: int, dropout: float) -> Batch:
        """Draw what a step needs: window, sample, noise, time step, dropped pictures, all from one generator.

        Args:
            rows: of the data set.
            drawn: the step's generator.
            steps: of the noise schedule, T.
            dropout: share of pictures that are dropped.
        """
        windows, _, *shape = self.latents.shape
        count = len(rows)
        window = torch.randint(windows, (count,), generator=drawn)
        timesteps = torch.randint(steps, (count,), generator=drawn)
        kept = torch.rand(count, generator=drawn) >= dropout
        noise = torch.randn((count, *shape), generator=drawn)
        fresh = torch.randn((count, *shape), generator=drawn)
        stored = torch.from_numpy(self.reader.rows([int(row) for row in rows])).float()
        mean, deviation = stored[torch.arange(count), window].unbind(1)
        latents = mean + deviation * fresh
        shares = torch.isfinite(latents.flatten(1)).all(1)
        latents = torch.where(shares.reshape(-1, *[1] * len(shape)), latents, torch.zeros(()))
        index = torch.from_numpy(rows.astype(np.int64))
        return Batch(index, self.vectors[index] * kept[:, None], latents, noise, timesteps, shares.float())


def predicted_noise(
    model: AudioLDM2, tokens: Tensor, fixed: FixedText, noisy: Tensor, timesteps: Tensor
) -> Tensor:  # fmt: skip
    """What the UNet predicts under pictures' tokens; gradients reach the tokens.

    Args:
        tokens: [B, N, 768], alone GPT-2's input (no begin, no end).
        fixed: the prompt's states, the same for all.
        noisy: [B, C, F, M].
        timesteps: [B].
    """
    count = len(tokens)
    audio = language_of_audio(model.language_model, tokens)
    text = fixed.prompt.t5.to(noisy.device, audio.dtype).expand(count, -1, -1)
    predicted: Tensor = model.unet(
        noisy.to(model.dtype),
        timesteps,
        encoder_hidden_states=audio.to(model.dtype),
        encoder_hidden_states_1=text.to(model.dtype),
        encoder_attention_mask_1=fixed.prompt.mask.to(noisy.device).expand(count, -1),
        return_dict=False,
    )[0]
    return predicted


def errors_of(
    model: AudioLDM2, aligner: Callable[[Tensor], Tensor], fixed: FixedText, batch: Batch, gamma: float
) -> Tensor:
    """Each pair's weighted error, [B]: equations 8 to 11. Their mean is the loss."""
    scheduler = model.scheduler
    prediction = scheduler.config.prediction_type
    kept = scheduler.alphas_cumprod
    noisy = noised(batch.latents, batch.noise, kept, batch.timesteps)
    target = target_of(batch.latents, batch.noise, kept, batch.timesteps, prediction)
    weights = min_snr_weights(signal_to_noise(kept, batch.timesteps), gamma, prediction) * batch.shares
    return weighted_errors(
        predicted_noise(model, aligner(batch.vectors), fixed, noisy, batch.timesteps), target, weights
    )


class _Ahead:
    """Makes the next step's batch while this one is computed."""

    def __init__(self, make: Callable[[int], Batch], steps: int) -> None:
        self._make, self._steps = make, steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def get(self, step: int) -> Batch:
        future = self._next[1] if self._next and self._next[0] == step else self._thread.submit(self._make, step)
        if step + 1 < self._steps:
            self._next = (step + 1, self._thread.submit(self._make, step + 1))
        return future.result()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


class AlignerTraining:
    """One run of the aligner's training.

    Args:
        settings: how.
        pairs: on what.
        model: AudioLDM 2, frozen; moved to the accelerator's device by the caller.
        run: the folder.
        accelerator: of the processes; by default one for this machine.
        fixed: the prompts' states; by default the model's own encoders are asked.
        say: progress in plain words.
    """

    def __init__(
        self,
        settings: AlignerSettings,
        pairs: Pairs,
        model: AudioLDM2,
        run: Run,
        accelerator: Accelerator | None = None,
        fixed: FixedText | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.settings, self.pairs, self.model, self.run = settings, pairs, model, run
        self.accelerator = accelerator or accelerator_for(settings.precision)
        self.fixed = fixed or FixedText.from_model(model)
        self.say = say if self.accelerator.is_main_process else lambda text: None
        self.train_rows, self.validation_rows = pairs.rows_of(TRAIN), pairs.rows_of(VALIDATION)
        self.order = Order(len(self.train_rows), settings.batch, settings.seed)
        processes = self.accelerator.num_processes
        if settings.batch % processes:
            raise ValueError(f"a batch of {settings.batch} cannot be shared by {processes} processes evenly")
        self.share = settings.batch // processes
        torch.manual_seed(settings.seed)
        self.aligner = ImageAligner(
            tokens=settings.tokens,
            vector_size=int(pairs.vectors.shape[1]),
            token_size=int(getattr(model.language_model, "transformer", model.language_model).config.n_embd),
            hidden_size=settings.hidden_size,
        )
        # One pass over the numbers instead of several; with the scaler of fp16 it has not been tried.
        fused = settings.precision != "fp16"
        optimizer = torch.optim.AdamW(self.aligner.parameters(), lr=settings.learning_rate, fused=fused)
        if model.dtype != torch.float32:
            # Convolutions in half precision are made for channels that lie side by side.
            model.unet.to(memory_format=torch.channels_last)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.aligner, optimizer)
        self.bad_seen: set[int] = set()

    # Batches

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of a step (from 0); the same over any number of processes together."""
        rows = self.train_rows[self.order.step(step).numpy()]
        drawn = generator(self.settings.seed, "step", step)
        whole = self.pairs.batch(rows, drawn, self.steps_of_noise, self.settings.dropout)
        first = self.accelerator.process_index * self.share
        return whole.part(slice(first, first + self.share))

    @property
    def steps_of_noise(self) -> int:
        """T of the noise schedule."""
        return int(self.model.scheduler.config.num_train_timesteps)

    # Steps

    def backward(self, batch: Batch) -> Tensor:
        """Gradients of a batch, in micro-batches that add up; the batch's loss."""
        size = self.settings.micro_batch or self.share
        total = torch.zeros((), device=self.accelerator.device)
        pieces = list(batches(self.share, size))
        for piece in pieces:
            part = batch.part(slice(piece.start, piece.stop)).to(self.accelerator.device)
            last = piece is pieces[-1]
            apart = contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped)
            with apart, self.accelerator.autocast():
                errors = errors_of(self.model, self.wrapped, self.fixed, part, self.settings.gamma)
                loss = errors.sum() / self.share
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def step(self, step: int, batch: Batch) -> tuple[float, float]:
        """One step of the optimiser; loss and the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * warm_up(step, self.settings.warmup)
        self._watch(batch)
        loss = self.backward(batch)
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mean = self.accelerator.reduce(loss, "mean")
        found = float(mean)
        if not math.isfinite(found) and self.settings.precision != "fp16":
            raise BadData(
                f"the loss of step {step + 1} is {found}: the weights of AudioLDM 2 or the latents are not sound, or "
                "the precision is too low (--precision no)"
            )
        return found, float(norm)

    def _watch(self, batch: Batch) -> None:
        """Count rows whose latents are not finite; they have no part in the step, and too many end the run."""
        for row in batch.rows[batch.shares == 0].tolist():
            if row not in self.bad_seen:
                self.bad_seen.add(row)
                self.say(f"skipped: the latents of {self.pairs.names[row]} are not finite")
        if len(self.bad_seen) > self.settings.most_bad * len(self.train_rows):
            raise BadData(
                f"{len(self.bad_seen)} of {len(self.train_rows)} rows have latents that are not finite, more than "
                f"the {self.settings.most_bad:.0%} that may be: prepare the data set again"
            )

    # Validation

    @torch.no_grad()
    def validate(self, part: str = VALIDATION) -> tuple[float, float]:
        """Loss on the validation part (or another), and with each picture swapped for another's.

        Noise and time steps are the same each time, so that two validations differ by the aligner only. Where both
        losses are the same, the music does not listen to the picture.
        """
        rows = self.pairs.rows_of(part)
        if len(rows) == 0:
            return math.nan, math.nan
        totals = [0.0, 0.0]
        others = np.roll(rows, 1)
        for number, piece in enumerate(batches(len(rows), self.settings.micro_batch or self.settings.batch)):
            chosen = rows[piece.start : piece.stop]
            drawn = generator(self.settings.seed, "validation", number)
            batch = self.pairs.batch(chosen, drawn, self.steps_of_noise, 0.0)
            swapped = self.pairs.vectors[torch.from_numpy(others[piece.start : piece.stop])]
            for side, vectors in enumerate((batch.vectors, swapped)):
                batch.vectors = vectors
                on_device = batch.to(self.accelerator.device)
                with self.accelerator.autocast():
                    errors = errors_of(self.model, self.aligner, self.fixed, on_device, self.settings.gamma)
                totals[side] += float(errors.double().sum())
        return totals[0] / len(rows), totals[1] / len(rows)

    def measure(self) -> dict[str, float]:
        """The losses on the test part, by the best weights; empty where there is none."""
        if not len(self.pairs.rows_of(TEST)):
            return {}
        state = read_checkpoint(self.run.folder / "model.safetensors")
        self.aligner.load_state_dict(state)
        loss, swapped = self.validate(TEST)
        return {"loss": loss, "loss_with_another_picture": swapped}

    @torch.no_grad()
    def sample(self, step: int) -> None:
        """Music for the first validation pictures, to listen to."""
        import soundfile

        rows = self.validation_rows[: self.settings.samples]
        if not len(rows):
            return
        folder = self.run.folder / "samples" / f"{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        settings = Settings(steps=self.settings.sample_steps, guidance=self.settings.guidance)
        frames = self.pairs.latents.shape[3] * self.model.shrink
        seconds = frames * self.model.hop / self.model.sampling_rate
        lines = []
        for row in rows:
            vector = self.pairs.vectors[int(row)][None].to(self.accelerator.device)
            states = self.fixed.prompt
            condition = self.model.condition(states, self.aligner(vector), text_in_language_model=False)
            sound = torch.cat(
                list(self.model.compose(condition, self.fixed.negative, seconds, [self.settings.seed], settings)), 1
            )
            name = f"{int(row):06d}.wav"
            soundfile.write(folder / name, sound[0].clamp(-1, 1).numpy(), self.model.sampling_rate)
            title = self.pairs.dataset.column("title")[int(row)] or self.pairs.names[int(row)]
            lines.append(f"{name}: {title}")
        (folder / "index.txt").write_text("\n".join(lines) + "\n")

    # The run

    def price(self) -> str:
        """What the run will cost, measured on one step that changes nothing."""
        batch = self.batch(0)
        seconds = 0.0
        # The first pass pays for what happens once only.
        for _ in range(2):
            began = time.perf_counter()
            self.backward(batch)
            if self.accelerator.device.type == "cuda":
                torch.cuda.synchronize(self.accelerator.device)
            seconds = time.perf_counter() - began
            self.optimizer.zero_grad()
        checkpoint = 3 * sum(parameter.numel() * 4 for parameter in self.aligner.parameters()) / 1e6
        memory = peak_memory(self.accelerator.device) / 1e9
        whose = "GPU " if self.accelerator.device.type == "cuda" else ""
        return (
            f"{self.settings.steps} steps of {self.settings.batch} pairs: about {seconds:.2g} s a step, "
            f"{spoken(seconds * self.settings.steps)} in all; {memory:.2g} GB of {whose}memory; "
            f"checkpoints of {checkpoint:.3g} MB"
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next step needs beside the settings."""
        scaler = self.accelerator.scaler
        return {
            "aligner": self.aligner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def load(self, state: dict[str, Any]) -> int:
        """Take a state; the step that is next."""
        self.aligner.load_state_dict(state["aligner"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return int(state["step"])

    def metadata(self) -> dict[str, str]:
        """What the weights' file says of itself."""
        return {
            "kind": "aligner",
            "tokens": str(self.settings.tokens),
            "vector_size": str(self.aligner.vector_size),
            "token_size": str(self.aligner.token_size),
            "space": self.pairs.space,
            "data": self.pairs.dataset.description.version,
        }

    def train(self) -> Path | None:
        """Train to the last step, going on from the last checkpoint; the trained weights' file (main process)."""
        settings, main = self.settings, self.accelerator.is_main_process
        state = self.run.restore() if main else None
        self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes > 1 and not main:
            state = _last_state(self.run)
        first = self.load(state) if state is not None else 0
        for line in self.pairs.skipped.lines():
            self.say(line)
        self.say(
            f"{len(self.train_rows)} pairs train, {len(self.validation_rows)} validate; pictures in "
            f"{self.pairs.space}{f'; going on at step {first}' if first else ''}"
        )
        if first < settings.steps:
            self.say(self.price())
        ahead = _Ahead(self.batch, settings.steps)
        progress = Progress("training", settings.steps, first)
        with contextlib.ExitStack() as open_files:
            open_files.callback(ahead.close)
            tables = _tables(self.run) if main else None
            if tables is not None:
                open_files.callback(lambda: [each.close() for each in tables])
            began = time.perf_counter()
            for step in range(first, settings.steps):
                loss, norm = self.step(step, ahead.get(step))
                done = step + 1
                rate = settings.learning_rate * warm_up(step, settings.warmup)
                if tables is not None:
                    tables[0].add(step=done, loss=loss, learning_rate=rate, gradient_norm=norm)
                    if done % 10 == 0 or done == settings.steps:
                        seconds = time.perf_counter() - began
                        memory = peak_memory(self.accelerator.device)
                        tables[1].add(step=done, steps_a_second=(done - first) / seconds, memory=memory)
                    progress(done, loss=loss)
                self._between(done, tables)
        path = self.run.finish(self.aligner.state_dict(), self.metadata()) if main else None
        if main:
            self.run.draw()
        self.accelerator.wait_for_everyone()
        return path

    def _between(self, done: int, tables: Any) -> None:
        """Validation, samples and checkpoints after a step."""
        settings, last = self.settings, done == self.settings.steps
        due = [
            last or bool(every and done % every == 0)
            for every in (settings.validate_every, settings.sample_every, settings.checkpoint_every)
        ]
        if tables is not None:
            if due[0] and len(self.validation_rows):
                loss, swapped = self.validate()
                tables[2].add(step=done, loss=loss, loss_with_another_picture=swapped)
                self.run.keep_weights(done, self.aligner.state_dict(), self.metadata())
            if due[1]:
                self.sample(done)
            if due[2]:
                self.run.save(done, self.state())
                self.run.draw()
        if any(due):
            self.accelerator.wait_for_everyone()


def _tables(run: Run) -> tuple[Any, Any, Any]:
    return (
        run.appender("curves.csv", ["step", "loss", "learning_rate", "gradient_norm"]),
        run.appender("speed.csv", ["step", "steps_a_second", "memory"]),
        run.appender("validation.csv", ["step", "loss", "loss_with_another_picture"]),
    )


def _last_state(run: Run) -> dict[str, Any] | None:
    for _, path in run.checkpoints()[:1]:
        state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        return state
    return None


def accelerator_for(precision: MixedPrecision, cpu: bool = False) -> Accelerator:
    """The accelerator of this process: the GPU of its own number (LOCAL_RANK), or the CPU.

    Raises RunError where there are more processes than GPUs.
    """
    from accelerate import Accelerator

    cpu = cpu or not torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if not cpu and place >= torch.cuda.device_count():
        raise RunError(f"--processes wants a GPU for each, and there are {torch.cuda.device_count()}")
    return Accelerator(mixed_precision=precision, cpu=cpu)


def data_facts(pairs: Pairs, model: AudioLDM2) -> dict[str, Any]:
    """What a resumed run must find unchanged: the data set, its latents, the frozen networks."""
    return {
        "folder": str(pairs.dataset.folder),
        "version": pairs.dataset.description.version,
        "space": pairs.space,
        "latents": pairs.latents.settings,
        "unet": weights_digest(model.unet),
        "language_model": weights_digest(model.language_model),
    }


@contextlib.contextmanager
def begun(
    folder: Path, settings: AlignerSettings, pairs: Pairs, model: AudioLDM2, resume: bool, main: bool = True
) -> Iterator[Run]:
    """The folder of a run, held while it trains; of several processes the main one holds it."""
    run = Run(folder, document_of(settings), data_facts(pairs, model), resume=resume, holds=main)
    try:
        yield run
    finally:
        run.close()
