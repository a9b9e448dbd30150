"""Sound as ImageBind's audio network takes it: clips of 2 s as Kaldi mel spectrograms. Pictures are in `pictures`.

Source: ImageBind, appendix B, and the preparation published with it: 3 clips of 2 s, mono 16 kHz, the clip's mean
removed, Kaldi's filter bank with 128 mel bins (Hann window, 25 ms every 10 ms, no dither), 204 frames, normalised by
AudioSet's mean and spread. Where the three clips lie differs between two versions of the library that it stands on,
and so do the vectors; which one was taken belongs to the name of the space (see full.toml).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

SAMPLE_RATE: Final = 16_000
CLIP_SECONDS: Final = 2
CLIPS: Final = 3
MELS: Final = 128
FRAMES: Final = 204
MEAN, SPREAD = -4.268, 9.138
"""Of AudioSet's spectrograms, as published with the network."""

_WINDOW, _STEP, _TRANSFORM = 400, 160, 512
_PREEMPHASIS = 0.97
_LOWEST_HERTZ = 20.0
_FLOOR = float(np.finfo(np.float32).eps)

Clips = Literal["ends", "thirds"]
"""Where the clips start in a sound of s seconds. `ends`: at 0, (s - 2) / 2 and s - 2, so that the last one ends with
the sound (0, 14, 28 of 30 s: the version of the library that the authors pin). `thirds`: at 0, (s - 2) / 3 and
2 (s - 2) / 3 (0, 9.33, 18.67 of 30 s: the released version)."""

Floats = npt.NDArray[np.float32]


def clip_starts(samples: int, clips: Clips = "ends") -> list[int]:
    """First samples of the three clips of a sound of so many samples (16 kHz); a sound below 2 s is one clip thrice.

    Raises:
        ValueError: `clips` is unknown.
    """
    if clips not in get_args(Clips):
        raise ValueError(f"clips is {clips!r}; choose one of {', '.join(get_args(Clips))}")
    room = max(samples - CLIP_SECONDS * SAMPLE_RATE, 0)
    parts = CLIPS - 1 if clips == "ends" else CLIPS
    return [number * room // parts for number in range(CLIPS)]


def audio_clips(sound: npt.NDArray[Any], clips: Clips = "ends") -> Floats:
    """One sound as the network's input, float32 [3, 1, 128, 204].

    Args:
        sound: mono samples at 16 kHz in [-1, 1], at least one.
        clips: where the clips lie.
    """
    length = CLIP_SECONDS * SAMPLE_RATE
    return np.stack(
        [
            _spectrogram(np.asarray(sound[start : start + length], np.float32))
            for start in clip_starts(len(sound), clips)
        ]
    )


def _spectrogram(clip: Floats) -> Floats:
    """A clip as [1, 128, 204], frames that are missing filled with 0 before normalising, as published."""
    bank = filter_bank(clip - clip.mean(dtype=np.float32)).T[:, :FRAMES]
    padded = np.pad(bank, ((0, 0), (0, FRAMES - bank.shape[1])))
    return ((padded - MEAN) / SPREAD)[None].astype(np.float32)


def filter_bank(samples: npt.NDArray[Any]) -> Floats:
    """Kaldi's log mel filter bank, float32 [frames, 128], of mono samples at 16 kHz; no frame below 25 ms of sound.

    Each frame of 400 samples: mean removed, pre-emphasis 0.97, symmetric Hann window, zeros to 512, power spectrum,
    triangles between 20 Hz and 8 kHz on the scale 1127 ln(1 + f / 700), natural logarithm not below that of float32's
    epsilon. (Kaldi: feature-fbank, mel-computations; HTK compatible, energy not used.)
    """
    if len(samples) < _WINDOW:
        return np.zeros((0, MELS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(samples, np.float32), _WINDOW)[::_STEP]
    frames = frames.astype(np.float64)
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _PREEMPHASIS * before) * _window()
    power = np.abs(np.fft.rfft(frames, _TRANSFORM, axis=1)) ** 2
    return np.asarray(np.log(np.maximum(power @ _triangles().T, _FLOOR)), np.float32)


@lru_cache(maxsize=1)
def _window() -> npt.NDArray[np.float64]:
    return np.hanning(_WINDOW)


@lru_cache(maxsize=1)
def _triangles() -> npt.NDArray[np.float64]:
    """Weights [128, 257] of each frequency of the transform in each mel bin."""

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(_LOWEST_HERTZ), mel(SAMPLE_RATE / 2), MELS + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = mel(np.arange(_TRANSFORM // 2 + 1) * SAMPLE_RATE / _TRANSFORM)[None]
    weights = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    # Kaldi's triangles leave out the highest frequency.
    weights[:, -1] = 0.0
    return np.asarray(weights, np.float64)
