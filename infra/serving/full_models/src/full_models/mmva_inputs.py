"""Sound as MMVA's music tower takes it: clips of 10 s at 24 kHz, each with mean 0 and spread 1.

Source: MMVA trains on clips of DEAM joined up to 10 s; MERT-v1-95M, its music network, was trained at 24 kHz on
waveforms of zero mean and unit variance (its published preprocessor). A longer sound is heard in clips spread over
all of it, whose readings are averaged; a shorter one is repeated until the clip is full, so that every clip has the
same length and one row reads the same alone and among others.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SAMPLE_RATE: Final = 24_000
CLIP: Final = 10 * SAMPLE_RATE
_SMALLEST_VARIANCE = 1e-7

Floats = npt.NDArray[np.float32]


def clips_of(sound: npt.NDArray[Any]) -> list[Floats]:
    """A sound at 24 kHz as clips of 10 s, float32 [240000] each: one for each begun 10 s, evenly spread."""
    samples = np.asarray(sound, np.float32)
    if len(samples) < CLIP:
        samples = np.tile(samples, math.ceil(CLIP / len(samples)))[:CLIP]
    count = math.ceil(len(samples) / CLIP)
    room = len(samples) - CLIP
    starts = [room * number // max(count - 1, 1) for number in range(count)]
    return [normalised(samples[start : start + CLIP]) for start in starts]


def normalised(clip: npt.NDArray[Any]) -> Floats:
    """Mean 0 and variance 1; silence stays silence."""
    samples = np.asarray(clip, np.float64)
    return np.asarray((samples - samples.mean()) / np.sqrt(samples.var() + _SMALLEST_VARIANCE), np.float32)
