"""AudioLDM 2 as Art2Mus uses it: text and picture tokens through GPT-2 into the language of audio, denoising under
guidance, and pieces of any length out of windows that overlap.

The networks are AudioLDM 2's own, loaded through diffusers and transformers (Liu et al. 2023; the weights are
published for non-commercial use). What is written here is what stands between them: GPT-2's eight steps, the ways of
conditioning (Rinaldi et al. 2026, sections 4.1 to 4.3), the loop over time steps (equations 6 and 7 for DDIM), and
the joining of windows. With text alone it computes what the stock pipeline computes.

Sizes of the published model, used in the shapes below: T text tokens of 1024 (FLAN-T5 large), one CLAP vector of 512,
language of audio 8 x 768, latents [B, 8, frames, 16] with 25 frames a second, log-mel [B, 1, 4 frames, 64] with 100
frames a second, sound mono at 16 kHz.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from networks.checkpoints import pretrained

Solver = Literal["ddim", "fast"]
Precision = Literal["fp32", "fp16", "bf16"]

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# How many states GPT-2 makes.
LANGUAGE_OF_AUDIO = 8
# The published windows: the UNet was trained on 10.24 s.
WINDOW_SECONDS = 10.24
# A quarter of the window is heard before: enough to go on from, and each further window still brings 7.68 s.
OVERLAP_SECONDS = 2.56


class MissingPart(RuntimeError):
    """A part of the model that this call needs was not loaded. The message says which, and what needs it."""


@dataclass(frozen=True)
class TextStates:
    """What the two text encoders say of B texts.

    Attributes:
        clap: [B, 1, 512], CLAP's vector of the whole text.
        t5: [B, T, 1024], FLAN-T5's states.
        mask: [B, T], 1 where there is a token.
    """

    clap: Tensor
    t5: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What the UNet listens to while it denoises B pieces.

    Attributes:
        audio: [B, 8, 768], the language of audio that GPT-2 made.
        text: [B, T, 1024], FLAN-T5's states.
        mask: [B, T], 1 where there is a token.
    """

    audio: Tensor
    text: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return int(self.audio.shape[0])

    def repeated(self, times: int) -> Conditioning:
        """The conditioning of `times` candidates for each piece, those of one piece side by side."""
        return Conditioning(*(value.repeat_interleave(times, 0) for value in (self.audio, self.text, self.mask)))

    def row(self, index: int) -> Conditioning:
        """The conditioning of one piece, as a batch of one."""
        rows = slice(index, index + 1)
        return Conditioning(self.audio[rows], self.text[rows], self.mask[rows])


@dataclass(frozen=True)
class Settings:
    """How a piece is denoised. The defaults are the paper's (Rinaldi et al. 2026, section 5).

    Attributes:
        steps: how many time steps of the solver; 200 for `ddim`, 20 to 25 for `fast`.
        guidance: classifier-free guidance's weight; 1 or less asks the UNet only once a step.
        solver: `ddim` (deterministic, equations 6 and 7), or `fast`: a second-order multistep solver
            (DPM-Solver++, Lu et al. 2022).
        window_seconds: the longest window, in seconds; what is longer is made of several that overlap.
        overlap_seconds: how long two windows overlap, in seconds, less than half a window.
    """

    steps: int = 200
    guidance: float = 3.5
    solver: Solver = "ddim"
    window_seconds: float = WINDOW_SECONDS
    overlap_seconds: float = OVERLAP_SECONDS


def language_of_audio(
    language_model: Any,
    embeddings: Tensor,
    mask: Tensor | None = None,
    steps: int | None = None,
    recompute: bool = False,
) -> Tensor:
    """GPT-2 goes on from its input: each step's last state is the next step's input. [B, S, 768] -> [B, 8, 768].

    Gradients pass through to the embeddings (training the image aligner needs them).

    Args:
        language_model: GPT-2, with or without its head.
        embeddings: [B, S, 768], text and picture tokens.
        mask: [B, S], 1 where there is something; by default everywhere.
        steps: how many states; by default as the model's configuration says, 8.
        recompute: run the whole sequence anew each step instead of keeping keys and values: the same numbers, slower.
    """
    gpt2 = getattr(language_model, "transformer", language_model)
    steps = steps or int(getattr(gpt2.config, "max_new_tokens", None) or LANGUAGE_OF_AUDIO)
    if mask is None:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
    states = embeddings.to(next(gpt2.parameters()).dtype)
    cache = None
    for _ in range(steps):
        output = gpt2(
            inputs_embeds=states if cache is None else states[:, -1:],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=not recompute,
        )
        states = torch.cat([states, output.last_hidden_state[:, -1:]], 1)
        mask = torch.cat([mask, mask.new_ones((mask.shape[0], 1))], 1)
        cache = None if recompute else output.past_key_values
    return states[:, -steps:]


class AudioLDM2:
    """The parts of AudioLDM 2 and what runs between them.

    Args:
        unet, vae, vocoder, language_model, projection_model, scheduler: as diffusers and transformers define them;
            the language model with or without its head, which is not used.
        text_encoder, text_encoder_2, tokenizer, tokenizer_2: CLAP and FLAN-T5; without them, conditionings made
            elsewhere can still be denoised.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        vocoder: Any,
        language_model: Any,
        projection_model: Any,
        scheduler: Any,
        text_encoder: Any = None,
        text_encoder_2: Any = None,
        tokenizer: Any = None,
        tokenizer_2: Any = None,
    ) -> None:
        self.unet = unet
        self.vae = vae
        self.vocoder = vocoder
        self.language_model = language_model
        self.projection_model = projection_model
        self.scheduler = scheduler
        self.text_encoder = text_encoder
        self.text_encoder_2 = text_encoder_2
        self.tokenizer = tokenizer
        self.tokenizer_2 = tokenizer_2
        for part in (unet, vae, vocoder, language_model, projection_model, text_encoder, text_encoder_2):
            if part is not None:
                part.eval().requires_grad_(False)

    @classmethod
    def from_folder(
        cls, folder: Path, precision: Precision = "fp32", device: str = "cpu", text: bool = True
    ) -> AudioLDM2:
        """Load a folder laid out as the published pipeline (unet, vae, vocoder, language_model, and so on).

        Args:
            folder: where the parts lie; nothing is fetched.
            precision: of text encoders, GPT-2 and UNet. VAE and vocoder stay in fp32: they cost little, and half
                precision is heard there.
            device: as torch names it.
            text: whether to load the text encoders and their tokenisers.

        Raises FileNotFoundError, naming the parts, where the folder is not complete, CheckpointError where a part
        lacks some of its tensors.
        """
        from diffusers import AutoencoderKL, DDIMScheduler
        from diffusers.pipelines.audioldm2.modeling_audioldm2 import (
            AudioLDM2ProjectionModel,
            AudioLDM2UNet2DConditionModel,
        )
        from transformers import AutoTokenizer, ClapModel, GPT2Model, SpeechT5HifiGan, T5EncoderModel

        dtype = PRECISIONS[precision]
        parts: dict[str, tuple[Any, torch.dtype]] = {
            "unet": (AudioLDM2UNet2DConditionModel, dtype),
            "vae": (AutoencoderKL, torch.float32),
            "vocoder": (SpeechT5HifiGan, torch.float32),
            "language_model": (GPT2Model, dtype),
            "projection_model": (AudioLDM2ProjectionModel, dtype),
        }
        tokenizers: list[str] = []
        if text:
            parts |= {"text_encoder": (ClapModel, dtype), "text_encoder_2": (T5EncoderModel, dtype)}
            tokenizers = ["tokenizer", "tokenizer_2"]
        missing = [name for name in (*parts, *tokenizers, "scheduler") if not (folder / name).is_dir()]
        if missing:
            raise FileNotFoundError(f"{folder} is no complete AudioLDM 2: it has no {', '.join(missing)}")
        loaded: dict[str, Any] = {}
        for name, (kind, part_dtype) in parts.items():
            # diffusers' and transformers' names of the same argument differ.
            key = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
            loaded[name] = pretrained(kind, folder / name, **{key: part_dtype}).to(device)
        for name in tokenizers:
            loaded[name] = AutoTokenizer.from_pretrained(folder / name, local_files_only=True)
        return cls(**loaded, scheduler=DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True))

    @property
    def device(self) -> torch.device:
        return torch.device(next(self.unet.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.unet.parameters()).dtype
        return dtype

    @property
    def sampling_rate(self) -> int:
        """Of the sound, in hertz."""
        return int(self.vocoder.config.sampling_rate)

    @property
    def hop(self) -> int:
        """Samples for each log-mel frame."""
        return math.prod(self.vocoder.config.upsample_rates)

    @property
    def shrink(self) -> int:
        """Log-mel frames for each frame of latents."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    # Conditioning

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], length: int | None = None) -> TextStates:
        """What CLAP and FLAN-T5 say of B texts.

        Args:
            texts: B of them; each is cut where its encoder's reach ends.
            length: how many tokens of FLAN-T5 to pad or cut to; by default those of the longest text. A negative
                prompt takes the length of the prompt that it stands against.

        Raises MissingPart without text encoders.
        """
        if None in (self.text_encoder, self.text_encoder_2, self.tokenizer, self.tokenizer_2):
            raise MissingPart("the text encoders of AudioLDM 2 were not loaded, and a text is to be encoded")
        device = self.device
        first = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        clap = self.text_encoder.get_text_features(first.input_ids, attention_mask=first.attention_mask)
        # Since transformers 5 an object with the vector in it.
        clap = getattr(clap, "pooler_output", clap)
        second = self.tokenizer_2(
            list(texts),
            padding=True if length is None else "max_length",
            max_length=self.tokenizer_2.model_max_length if length is None else length,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        states = self.text_encoder_2(second.input_ids, attention_mask=second.attention_mask)[0]
        return TextStates(clap[:, None, :], states, second.attention_mask)

    @torch.inference_mode()
    def project_text(self, states: TextStates) -> tuple[Tensor, Tensor]:
        """GPT-2's input for texts: begin, CLAP, end, begin, FLAN-T5, end: [B, T + 5, 768]; its mask [B, T + 5]."""
        projected = self.projection_model(
            hidden_states=states.clap,
            hidden_states_1=states.t5,
            attention_mask=states.mask.new_ones((states.mask.shape[0], 1)),
            attention_mask_1=states.mask,
        )
        return projected.hidden_states, projected.attention_mask

    @torch.inference_mode()
    def condition(
        self,
        texts: TextStates,
        picture_tokens: Tensor | None = None,
        text_in_language_model: bool = True,
    ) -> Conditioning:
        """The conditioning of B pieces.

        Three ways (Rinaldi et al. 2026, section 4.3): *text alone* is AudioLDM 2 as published; *picture alone* gives
        GPT-2 nothing but the picture's tokens, with neither begin nor end, while FLAN-T5's states of a fixed prompt
        reach the UNet; *both* puts the picture's tokens behind the text's.

        Args:
            texts: of the prompts, of one length.
            picture_tokens: [B, N, 768] from the image aligner; none for text alone.
            text_in_language_model: with picture tokens: whether GPT-2 reads the text too (both), or not (picture
                alone).
        """
        if picture_tokens is None:
            embeddings, mask = self.project_text(texts)
        else:
            tokens = picture_tokens.to(self.device, self.dtype)
            ones = texts.mask.new_ones(tokens.shape[:2])
            embeddings, mask = tokens, ones
            if text_in_language_model:
                projected, text_mask = self.project_text(texts)
                embeddings = torch.cat([projected, tokens.to(projected.dtype)], 1)
                mask = torch.cat([text_mask, ones], 1)
        return Conditioning(language_of_audio(self.language_model, embeddings, mask), texts.t5, texts.mask)

    @torch.inference_mode()
    def conditions(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        picture_tokens: Tensor | None = None,
        text_in_language_model: bool = True,
    ) -> tuple[Conditioning, Conditioning]:
        """The conditioning of B prompts and that of what they stand against, the latter always by text alone."""
        if len(prompts) != len(negative_prompts):
            raise ValueError(f"{len(prompts)} prompts need as many negative ones, not {len(negative_prompts)}")
        texts = self.encode_text(prompts)
        negative = self.encode_text(negative_prompts, length=texts.t5.shape[1])
        return self.condition(texts, picture_tokens, text_in_language_model), self.condition(negative)

    # Denoising

    def solver(self, settings: Settings) -> Any:
        """A fresh scheduler of diffusers with the model's own noise levels and the time steps of `settings`."""
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

        if settings.solver == "ddim":
            solver = DDIMScheduler.from_config(self.scheduler.config)
        else:
            # Few steps must be spent where little noise is left (Karras et al. 2022, equation 5): with steps evenly
            # spaced in time the last one alone costs more than 200 steps of DDIM do (see the tests).
            solver = DPMSolverMultistepScheduler.from_config(
                self.scheduler.config,
                algorithm_type="dpmsolver++",
                solver_order=2,
                use_karras_sigmas=True,
                lower_order_final=True,
            )
        solver.set_timesteps(settings.steps, device=self.device)
        return solver

    def noise(self, frames: int, seeds: Sequence[int]) -> Tensor:
        """Where denoising starts: [B, 8, frames, 16], one seed a piece, drawn on the CPU: the same on any device."""
        shape = (1, self.unet.config.in_channels, frames, int(self.vocoder.config.model_in_dim) // self.shrink)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=self.dtype) for seed in seeds]
        return torch.cat(rows).to(self.device)

    @torch.inference_mode()
    def denoise(
        self,
        condition: Conditioning,
        negative: Conditioning | None,
        noise: Tensor,
        settings: Settings,
        path: list[Tensor] | None = None,
        kept: list[Tensor] | None = None,
        keep: int = 0,
        rest: Callable[[], None] | None = None,
    ) -> Tensor:
        """Noise becomes latents, [B, 8, frames, 16] -> the same.

        Args:
            condition: of the B pieces.
            negative: what guidance leads away from; may be none where guidance is 1 or less.
            noise: see `noise`.
            settings: steps, guidance, solver.
            path: where given, the first frames are held on this path, step by step, [B, 8, frames held, 16] each: the
                way that the same frames took in the window before.
            kept: an empty list that gets the path of the last `keep` frames, for the window after.
            keep: how many frames.
            rest: called before each step; it may wait, and may raise what ends the piece.
        """
        guided = settings.guidance > 1.0
        if guided and negative is None:
            raise ValueError("guidance above 1 needs a negative conditioning")
        if guided and negative is not None:
            # One pass for both: the negative ones first, as everywhere in diffusers.
            audio = torch.cat([negative.audio, condition.audio]).to(self.dtype)
            text = torch.cat([negative.text, condition.text]).to(self.dtype)
            mask = torch.cat([negative.mask, condition.mask])
        else:
            audio, text, mask = condition.audio.to(self.dtype), condition.text.to(self.dtype), condition.mask
        solver = self.solver(settings)
        latents = noise * solver.init_noise_sigma
        held = 0 if path is None else path[0].shape[2]

        def walk(latents: Tensor, step: int) -> Tensor:
            if path is not None:
                latents = torch.cat([path[step].to(latents), latents[:, :, held:]], 2)
            if kept is not None:
                kept.append(latents[:, :, latents.shape[2] - keep :].clone())
            return latents

        latents = walk(latents, 0)
        for step, time in enumerate(solver.timesteps):
            if rest is not None:
                rest()
            given = solver.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
            predicted = self.unet(
                given,
                time,
                encoder_hidden_states=audio,
                encoder_hidden_states_1=text,
                encoder_attention_mask_1=mask,
                return_dict=False,
            )[0]
            if guided:
                against, towards = predicted.chunk(2)
                predicted = against + settings.guidance * (towards - against)
            latents = walk(solver.step(predicted, time, latents, return_dict=False)[0], step + 1)
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> log-mel: [B, 8, frames, 16] -> [B, 4 frames, 64]."""
        scaled = latents.to(next(self.vae.parameters()).dtype) / self.vae.config.scaling_factor
        mel: Tensor = self.vae.decode(scaled).sample
        return mel.squeeze(1)

    @torch.inference_mode()
    def vocode(self, mel: Tensor) -> Tensor:
        """Log-mel -> sound: [B, frames, 64] -> [B, frames * hop], float32 on the CPU, about -1 to 1."""
        sound: Tensor = self.vocoder(mel.to(next(self.vocoder.parameters()).dtype))
        return sound.reshape(mel.shape[0], -1).float().cpu()

    # Pieces

    def frames(self, seconds: float) -> int:
        """How many frames of latents `seconds` take, rounded up."""
        # A hair is taken off, so that whole frames stay whole in spite of floating point.
        mel = math.ceil(seconds * self.sampling_rate / self.hop - 1e-6)
        return max(1, math.ceil(mel / self.shrink))

    @torch.inference_mode()
    def compose(
        self,
        condition: Conditioning,
        negative: Conditioning | None,
        seconds: float,
        seeds: Sequence[int],
        settings: Settings | None = None,
        choose: Callable[[Tensor], int] | None = None,
        rest: Callable[[], None] | None = None,
    ) -> Iterator[Tensor]:
        """Sound for B pieces, chunk by chunk as their windows are done: [B, samples] each, float32 on the CPU.

        A piece of one window is what the stock pipeline makes. A longer one is made of windows that overlap: in the
        overlap a window follows, step by step, the path that the window before took, so it goes on from it; the two
        log-mels are faded into each other there, and the vocoder hears the joined log-mel with as much on both sides
        as it can hear, so that the sound is that of the whole log-mel at once. There is no seam.

        Args:
            condition, negative: of the B pieces (candidates: see Conditioning.repeated).
            seconds: how long, at least one log-mel frame.
            seeds: B of them.
            settings: steps, guidance, solver, windows.
            choose: where the B pieces are candidates of one: is given the sound of the first window [B, samples] and
                says which goes on; from then on B is 1, and the first chunk comes out chosen already.
            rest: see `denoise`.

        Raises ValueError for impossible lengths or unequal numbers.
        """
        settings = settings or Settings()
        if len(condition) != len(seeds) or (negative is not None and len(negative) != len(seeds)):
            raise ValueError(f"{len(condition)} conditionings need as many seeds and negatives, not {len(seeds)}")
        if seconds * self.sampling_rate < self.hop:
            raise ValueError(f"a piece lasts at least {self.hop / self.sampling_rate} seconds, not {seconds}")
        needed = self.frames(seconds)
        window = min(needed, self.frames(settings.window_seconds))
        overlap = self.frames(settings.overlap_seconds)
        if needed > window and not 0 < 2 * overlap <= window:
            raise ValueError("windows overlap by more than nothing and by half of them at most")
        samples = round(seconds * self.sampling_rate)
        sounding = Vocoding(self, overlap * self.shrink)
        path: list[Tensor] | None = None
        start, done = 0, 0
        while True:
            last = start + window >= needed
            # Each further window starts from noise of its own; the overlap's comes with the path.
            noise = self.noise(window, [seed + 1_000_003 * start for seed in seeds])
            kept: list[Tensor] = []
            latents = self.denoise(condition, negative, noise, settings, path, kept, 0 if last else overlap, rest)
            mel = self.decode(latents)
            if choose is not None and len(condition) > 1:
                row = choose(self.vocode(mel)[:, :samples])
                rows = slice(row, row + 1)
                mel, kept = mel[rows], [value[rows] for value in kept]
                condition, negative = condition.row(row), negative.row(row) if negative is not None else None
                seeds = [seeds[row]]
            chunk = sounding.add(mel, last)
            chunk = chunk[:, : samples - done]
            done += chunk.shape[1]
            if chunk.shape[1]:
                yield chunk
            if last:
                return
            path, start = kept, start + window - overlap

    def faster(self, compiled: bool = True) -> AudioLDM2:
        """The same with the UNet compiled for fixed shapes (CUDA graphs where there is a GPU)."""
        if compiled:
            self.unet = torch.compile(self.unet, mode="reduce-overhead", fullgraph=False)
        return self


class Vocoding:
    """Log-mels of windows in, sound out, as if the vocoder had heard the whole at once.

    The vocoder is made of convolutions, so what a sample hears ends some frames to each side. Sound is given out only
    as far as everything that it hears is there for good.

    Args:
        model: whose vocoder sounds.
        overlap: how many log-mel frames two windows share.
    """

    def __init__(self, model: AudioLDM2, overlap: int) -> None:
        self.model = model
        self.overlap = overlap
        self.reach = reach_of(model.vocoder.config)
        self.mel: Tensor | None = None
        self.dropped = 0
        self.spoken = 0

    def add(self, mel: Tensor, last: bool) -> Tensor:
        """Append a window's log-mel [B, frames, 64], faded into the end of what is there.

        Returns the sound that is now certain, [B, samples]; all the rest where it is the last window. Open stay the
        frames that the next window fades into, and what hears them.
        """
        overlap = self.overlap
        if self.mel is None:
            joined = mel
        else:
            rising = torch.arange(1, overlap + 1, device=mel.device, dtype=mel.dtype)[None, :, None] / (overlap + 1)
            both = self.mel[:, -overlap:] * (1 - rising) + mel[:, :overlap] * rising
            joined = torch.cat([self.mel[:, :-overlap], both, mel[:, overlap:]], 1)
        end = self.dropped + joined.shape[1]
        certain = end if last else max(self.spoken, end - overlap - self.reach)
        first = max(self.dropped, self.spoken - self.reach)
        until = min(end, certain + self.reach)
        if certain == self.spoken:
            self.mel = joined
            return torch.zeros(mel.shape[0], 0)
        sound = self.model.vocode(joined[:, first - self.dropped : until - self.dropped])
        hop = self.model.hop
        sound = sound[:, (self.spoken - first) * hop : (certain - first) * hop]
        self.spoken = certain
        keep = max(self.dropped, certain - self.reach)
        self.mel, self.dropped = joined[:, keep - self.dropped :], keep
        return sound


def reach_of(config: Any) -> int:
    """How many frames of log-mel to each side a sample of a HiFi-GAN vocoder hears, rounded up.

    Kong et al. 2020: a convolution of 7, then for each rate a transposed convolution and residual blocks of dilated
    convolutions, then another convolution of 7.
    """
    frames, rate = 3.0, 1
    for upsample, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        frames += math.ceil(kernel / upsample) / rate
        rate *= upsample
        blocks = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        frames += max(sum((size - 1) // 2 * (dilation + 1) for dilation in row) for size, row in blocks) / rate
    return math.ceil(frames + 3 / rate)
