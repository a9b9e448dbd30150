"""Sound as CLAP's audio network takes it (laion/clap-htsat-unfused, by its published preprocessor).

48 kHz mono, clips of 10 s, mel spectrograms of 64 bins from 50 Hz to 14 kHz (Slaney's scale and areas), 1024 samples
every 480, in decibels. The published preparation cuts one clip at random out of a longer sound; here clips are spread
over all of it, always the same ones. A shorter sound is repeated as often as it fits, then filled with zeros, as
published.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SAMPLE_RATE: Final = 48_000
CLIP: Final = 10 * SAMPLE_RATE
MELS: Final = 64
FRAMES: Final = 1001
_TRANSFORM, _STEP = 1024, 480
_LOWEST_HERTZ, _HIGHEST_HERTZ = 50.0, 14_000.0
_FLOOR = 1e-10

Floats = npt.NDArray[np.float32]


def clips_of(sound: npt.NDArray[Any]) -> list[Floats]:
    """A sound at 48 kHz in clips of 10 s: one for each begun 10 s, evenly spread, the last ending with the sound."""
    samples = np.asarray(sound, np.float32)
    if len(samples) < CLIP:
        repeated = np.tile(samples, CLIP // len(samples))
        return [np.pad(repeated, (0, CLIP - len(repeated)))]
    count = math.ceil(len(samples) / CLIP)
    room = len(samples) - CLIP
    return [samples[start : start + CLIP] for start in (room * n // max(count - 1, 1) for n in range(count))]


def features(clip: npt.NDArray[Any]) -> Floats:
    """A clip of 10 s at 48 kHz as the network's input, float32 [1, 1001, 64], in decibels not below -100."""
    padded = np.pad(np.asarray(clip, np.float64), _TRANSFORM // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _TRANSFORM)[::_STEP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_TRANSFORM) / _TRANSFORM)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return np.asarray(10 * np.log10(np.maximum(power @ _triangles().T, _FLOOR)), np.float32)[None]


@lru_cache(maxsize=1)
def _triangles() -> npt.NDArray[np.float64]:
    """Weights [64, 513]: triangles on Slaney's mel scale (linear to 1 kHz, logarithmic above), each of area 1."""
    step = 200.0 / 3
    knee = 1000.0 / step
    growth = math.log(6.4) / 27

    def mel(hertz: float) -> float:
        return hertz / step if hertz < 1000 else knee + math.log(hertz / 1000) / growth

    edges = np.linspace(mel(_LOWEST_HERTZ), mel(_HIGHEST_HERTZ), MELS + 2)
    hertz = np.where(edges < knee, edges * step, 1000 * np.exp(growth * (edges - knee)))
    left, centre, right = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    bins = np.linspace(0, SAMPLE_RATE / 2, _TRANSFORM // 2 + 1)[None]
    weights = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    return np.asarray(weights * 2 / (right - left), np.float64)
