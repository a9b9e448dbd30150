"""Sound of a network made ready for people: 48 kHz, two channels, as loud as the other composers', true peaks held.

The networks of the full profile sound in mono at 16 kHz and at whatever level they like. Pieces of several composers
are heard side by side, and the louder one would please more; so all aim at the same loudness (ITU-R BS.1770-4), and
the edge composer's limiter holds the peaks. The gain is taken from the first window and stays, so that nothing pumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import soxr
from edge_models.music.loudness import Meter
from edge_models.music.mastering import BLOCK, TARGET, Limiter
from edge_models.music.score import SAMPLE_RATE
from edge_models.triton_model import Array

HIGHEST_GAIN: Final = 24.0
"""Decibels by which a quiet piece is raised at most: silence stays silence."""
_SILENT: Final = -60.0
"""LUFS below which a first window says nothing about how loud the piece is."""


class Finisher:
    """Takes mono blocks of a network, gives stereo blocks [n, 2] at 48 kHz; all together exactly so many samples.

    Args:
        seconds: of the whole piece.
        rate: of the blocks that come in, in hertz.
    """

    def __init__(self, seconds: float, rate: int = 16_000) -> None:
        self._rate = rate
        self._length = round(seconds * SAMPLE_RATE)
        self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        self._limiter = Limiter()
        self._meter = Meter(BLOCK)
        self._gain: float | None = None
        self._waiting: Array = np.zeros(0, np.float32)
        self._limited = 0
        self._given = 0

    @property
    def loudness(self) -> float:
        """Of all that was given, in LUFS."""
        return self._meter.loudness

    @property
    def true_peak(self) -> float:
        """Of all that was given, in dBTP."""
        return self._meter.true_peak

    @property
    def gain(self) -> float:
        """By how much the network's sound was raised, in decibels."""
        return 20 * math.log10(self._gain or 1.0)

    def take(self, sound: Array) -> Iterator[Array]:
        """The next samples [n] of the network; the blocks that are finished by them."""
        yield from self._raise(self._resampler.resample_chunk(np.ascontiguousarray(sound, np.float32)))

    def end(self) -> Iterator[Array]:
        """The network is done; the rest, filled with silence or cut so that the length is exact."""
        yield from self._raise(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self._waiting = np.concatenate([self._waiting, np.zeros(2 * BLOCK, np.float32)])
        # The limiter is a block late.
        while self._given < self._length:
            if len(self._waiting) < BLOCK:
                self._waiting = np.concatenate([self._waiting, np.zeros(BLOCK, np.float32)])
            yield from self._limit()

    def _raise(self, sound: Array) -> Iterator[Array]:
        if not len(sound):
            return
        if self._gain is None:
            self._gain = _gain_of(sound)
        self._waiting = np.concatenate([self._waiting, sound * np.float32(self._gain)])
        while len(self._waiting) >= BLOCK:
            yield from self._limit()

    def _limit(self) -> Iterator[Array]:
        block, self._waiting = self._waiting[:BLOCK], self._waiting[BLOCK:]
        limited = self._limiter.limit(np.stack([block, block]))
        self._limited += 1
        if self._limited == 1 or self._given >= self._length:
            return
        left = self._length - self._given
        if left < BLOCK:
            # Nothing sounds behind the end, and the meter hears whole blocks.
            limited = limited.copy()
            limited[:, left:] = 0.0
        self._meter.hear(limited)
        given = np.ascontiguousarray(limited[:, :left].T, np.float32)
        self._given += len(given)
        yield given


def _gain_of(sound: Array) -> float:
    """The factor that brings these samples (mono, 48 kHz) to the loudness of all composers."""
    meter = Meter(BLOCK)
    padded = np.concatenate([sound, np.zeros(-len(sound) % BLOCK, np.float32)])
    for start in range(0, len(padded), BLOCK):
        block = padded[start : start + BLOCK]
        meter.hear(np.stack([block, block]))
    if meter.loudness < _SILENT:
        return 1.0
    return float(10.0 ** (min(HIGHEST_GAIN, TARGET - meter.loudness) / 20.0))
