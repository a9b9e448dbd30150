"""From a sound file to what AudioLDM 2's autoencoder is given: windows of the track as log-mel.

Mono 16 kHz, the mean removed, the peak at 0.5, a short-time Fourier transform of 1024 points every 160 samples, 64
mel bands from 0 to 8 kHz, natural logarithm: 1024 frames for 10.24 s (Rinaldi et al. 2026, section 4.4, with the
figures of AudioLDM's own making of its training data).
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.tables import Array, BadData

SAMPLE_RATE = 16_000
HOP = 160
FOURIER = 1024
HIGHEST = 8000.0
FLOOR = 1e-5
"""The smallest magnitude: the logarithm ends at -11.5."""


def read_sound(path: Path, rate: int = SAMPLE_RATE, start: float = 0.0, seconds: float | None = None) -> Array:
    """A sound file as mono float32 at `rate` hertz: [samples].

    Args:
        start, seconds: the stretch that is wanted; None: to the end.

    Raises BadData where the file is missing, cannot be decoded, holds nothing there, or numbers that are not finite.
    """
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as file:
            own = int(file.samplerate)
            file.seek(min(int(start * own), file.frames))
            frames = -1 if seconds is None else int(seconds * own)
            samples = file.read(frames, dtype="float32", always_2d=True).mean(1)
    except (soundfile.LibsndfileError, OSError) as error:
        missing = "no such file" if not path.exists() else f"cannot be decoded ({type(error).__name__})"
        raise BadData(missing) from error
    if not len(samples):
        raise BadData("no sound in the stretch that is wanted")
    if not np.isfinite(samples).all():
        raise BadData("samples that are not finite")
    if own != rate:
        samples = soxr.resample(samples, own, rate)
    return np.ascontiguousarray(samples, np.float32)


def windows(samples: Array, length: int, count: int) -> Array:
    """Stretches of a track, evenly from its beginning to its end: [samples] -> [count, length].

    One window is the middle of the track, not its intro. A track that is shorter is followed by silence.
    """
    if len(samples) <= length:
        padded = np.zeros(length, np.float32)
        padded[: len(samples)] = samples
        return np.repeat(padded[None], count, 0)
    room = len(samples) - length
    starts = [room // 2] if count == 1 else [round(room * number / (count - 1)) for number in range(count)]
    return np.stack([samples[start : start + length] for start in starts])


@lru_cache(maxsize=4)
def _bank(mels: int, rate: int) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        FOURIER // 2 + 1, mels, 0.0, min(HIGHEST, rate / 2), rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank).float()


def log_mel(sounds: Tensor, mels: int = 64, hop: int = HOP, rate: int = SAMPLE_RATE) -> Tensor:
    """Log-mel of windows: [B, samples] -> [B, 1, samples // hop, mels], natural logarithm of magnitudes.

    Silence stays silence; everything else is brought to a peak of 0.5.
    """
    centred = sounds - sounds.mean(1, keepdim=True)
    centred = centred / centred.abs().amax(1, keepdim=True).clamp(min=1e-8) * 0.5
    window = torch.hann_window(FOURIER, device=sounds.device)
    spectrum = torch.stft(
        centred, FOURIER, hop, window=window, center=True, pad_mode="reflect", return_complex=True
    ).abs()
    mel = spectrum.transpose(1, 2) @ _bank(mels, rate).to(sounds.device)
    frames = sounds.shape[1] // hop
    return mel[:, None, :frames].clamp(min=FLOOR).log()


def frames_of(seconds: float, hop: int, rate: int, shrink: int) -> int:
    """Log-mel frames of a window, a whole number of the autoencoder's steps."""
    return max(1, math.ceil(int(seconds * rate / hop) / shrink)) * shrink
