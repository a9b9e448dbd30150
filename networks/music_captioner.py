"""LP-MusicCaps: a caption for 10 s of music (Doh et al. 2023, "LP-MusicCaps: LLM-Based Pseudo Music Captioning").

The network, rebuilt so that its published checkpoint loads by name: a decibel mel spectrogram, one convolution and
five that halve the time each (1001 frames become 32), sinusoidal places, and BART-base, whose encoder reads them as
it would read words and whose decoder writes the caption by beam search. Cutting a track into chunks is left to
callers.

The published filter bank squares only the real part of the Fourier transform (not its absolute value), and the
weights were trained on that; so does this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from networks.checkpoints import CheckpointError, compare_names, read_checkpoint

SAMPLE_RATE = 16_000
SAMPLES = 10 * SAMPLE_RATE
FRAME = 1024
HOP = 160
BANDS = 128
HIGHEST = 8_000.0
STRIDES = 5
PLACES = SAMPLES // HOP // 2**STRIDES + 1
CHECKPOINTS = ("transfer.pth", "transfer.safetensors", "model.safetensors", "last.pth")
"""Files that are looked for in a folder; `transfer` (pre-trained on pseudo captions, then on MusicCaps) is the one
that the paper reports best and its demonstration uses."""

_LOWEST_POWER = 1e-10


def bart_base() -> BartConfig:
    """BART-base, as the checkpoint's language side is built (facebook/bart-base, config.json)."""
    return BartConfig(
        vocab_size=50_265,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=1024,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )


def mel_filters(bands: int = BANDS, bins: int = FRAME // 2 + 1) -> Tensor:
    """Triangles over the frequencies of a Fourier transform, evenly spaced in mel, float32 [bins, bands].

    The mel scale is 2595 log10(1 + f / 700); peaks have height 1 (no normalisation by width), as in the checkpoint.
    """

    def mel(frequency: float) -> float:
        return 2595.0 * math.log10(1.0 + frequency / 700.0)

    edges = 700.0 * (10.0 ** (torch.linspace(mel(0.0), mel(HIGHEST), bands + 2) / 2595.0) - 1.0)
    frequencies = torch.linspace(0, SAMPLE_RATE // 2, bins)
    distance = edges[None, :] - frequencies[:, None]
    widths = edges[1:] - edges[:-1]
    rising = -distance[:, :-2] / widths[:-1]
    falling = distance[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)


class MelSpectrogram(nn.Module):
    """Decibels of 128 mel bands, 0-8 kHz: float32 [batch, 160000] -> [batch, 128, 1001]."""

    def __init__(self) -> None:
        super().__init__()
        # Named as in the checkpoint, which holds both.
        self.spec_fn = nn.Module()
        self.spec_fn.register_buffer("window", torch.hann_window(FRAME))
        self.mel_scale = nn.Module()
        self.mel_scale.register_buffer("fb", mel_filters())

    def forward(self, sound: Tensor) -> Tensor:
        """In float32 whatever the network's precision: half precision has no room for such small powers."""
        window, filters = self.spec_fn.window, self.mel_scale.fb
        spectrum = torch.stft(
            sound.float(), FRAME, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
        )
        power = torch.einsum("bft,fm->bmt", spectrum.real.square(), filters)
        return 10.0 * power.clamp(min=_LOWEST_POWER).log10()


class AudioEncoder(nn.Module):
    """Sound to 32 vectors: float32 [batch, 160000] -> [batch, 32, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mel_encoder = MelSpectrogram()
        self.conv1 = nn.Conv1d(BANDS, width, 3, padding=1)
        self.conv_stack = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for _ in range(STRIDES))
        self.register_buffer("positional_embedding", places(PLACES, width))

    def forward(self, sound: Tensor) -> Tensor:
        """Each convolution is followed by GELU; places are added at the end."""
        hidden = nn.functional.gelu(self.conv1(self.mel_encoder(sound).to(self.conv1.weight.dtype)))
        for convolution in self.conv_stack:
            hidden = nn.functional.gelu(convolution(hidden))
        embedded: Tensor = hidden.transpose(1, 2) + self.positional_embedding
        return embedded


def places(count: int, width: int) -> Tensor:
    """Sinusoids of `width / 2` frequencies from 1 to 1/10000, sines before cosines, float32 [count, width]."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(count)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class MusicCaptionerNetwork(nn.Module):
    """The network under its checkpoint's names: `audio_encoder` and `bart`."""

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.bart = BartForConditionalGeneration(config)
        self.audio_encoder = AudioEncoder(config.d_model)

    def encode(self, sound: Tensor) -> Tensor:
        """What the decoder attends to: float32 [batch, 160000] -> [batch, 32, width]."""
        encoded: Tensor = self.bart.model.encoder(inputs_embeds=self.audio_encoder(sound)).last_hidden_state
        return encoded


@dataclass(frozen=True, slots=True)
class MusicCaptioner:
    """A loaded LP-MusicCaps."""

    network: MusicCaptionerNetwork
    tokenizer: Any

    @torch.inference_mode()
    def caption(self, chunks: NDArray[np.float32], *, beams: int = 5, tokens: int = 128) -> list[str]:
        """A caption for each chunk; the same chunk gets the same words in any batch.

        Args:
            chunks: float32 [n, 160000], mono 16 kHz in -1..1.
            beams, tokens: of the search; 5 and 128 are the published ones.

        Raises:
            ValueError: the chunks have another shape.
        """
        if chunks.ndim != 2 or chunks.shape[1] != SAMPLES:
            raise ValueError(f"chunks have the shape {chunks.shape}; [n, {SAMPLES}] is heard")
        bart = self.network.bart
        encoded = self.network.encode(torch.from_numpy(np.ascontiguousarray(chunks, np.float32)).to(bart.device))
        config = bart.config
        made = bart.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=torch.ones(encoded.shape[:2], dtype=torch.long, device=bart.device),
            # Those that the published code runs with: its own, and those of BART-base's configuration.
            generation_config=GenerationConfig(
                num_beams=beams,
                max_length=tokens,
                min_length=2,
                early_stopping=True,
                no_repeat_ngram_size=3,
                length_penalty=1.0,
                do_sample=False,
                decoder_start_token_id=config.decoder_start_token_id,
                forced_bos_token_id=config.bos_token_id,
                forced_eos_token_id=config.eos_token_id,
                bos_token_id=config.bos_token_id,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.pad_token_id,
            ),
        )
        return [text.strip() for text in self.tokenizer.batch_decode(made, skip_special_tokens=True)]


def from_state(state: Mapping[str, Tensor], config: BartConfig) -> MusicCaptionerNetwork:
    """The network with a checkpoint's state.

    Names that different versions of transformers leave out of a state, or add to it, are made up for: BART's one
    matrix of words goes under four names, and the bias of its logits may be missing (it is zero).

    Raises:
        CheckpointError: it is the state of another network.
    """
    with torch.device("meta"):
        network = MusicCaptionerNetwork(config)
    expected = network.state_dict()
    found = dict(state)
    words = next((found[name] for name in _WORDS if name in found), None)
    if words is not None:
        found |= {name: words for name in _WORDS if name not in found}
    if _BIAS not in found:
        found[_BIAS] = torch.zeros(1, config.vocab_size)
    for name in [name for name in found if name not in expected and name in (*_WORDS, _BIAS)]:
        del found[name]
    compare_names(expected, found, "LP-MusicCaps")
    network.load_state_dict(found, assign=True)
    network.bart.tie_weights()
    network.eval()
    return network


_WORDS = (
    "bart.model.shared.weight",
    "bart.model.encoder.embed_tokens.weight",
    "bart.model.decoder.embed_tokens.weight",
    "bart.lm_head.weight",
)
_BIAS = "bart.final_logits_bias"


def load(
    folder: Path, words: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> MusicCaptioner:
    """Read the published checkpoint.

    Args:
        folder: holds one of `CHECKPOINTS`.
        words: facebook/bart-base's folder: its tokenizer, and its config.json (where it is missing, `bart_base`).

    Raises:
        CheckpointError: a file is missing, or is not what it should be; the text says which.
    """
    path = next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder} holds no checkpoint of LP-MusicCaps ({', '.join(CHECKPOINTS)})")
    try:
        config = BartConfig.from_pretrained(words) if (words / "config.json").is_file() else bart_base()
        tokenizer = AutoTokenizer.from_pretrained(words, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{words} holds no tokenizer of BART: {error}") from error
    network = from_state(read_checkpoint(path), config).to(device=device)
    for part in (network.bart, network.audio_encoder.conv1, network.audio_encoder.conv_stack):
        part.to(dtype)
    network.audio_encoder.positional_embedding = network.audio_encoder.positional_embedding.to(dtype)
    return MusicCaptioner(network, tokenizer)
