"""How loud sound is: K-weighting, gated loudness and true peaks, measured while the sound is made.

Loudness is that of ITU-R BS.1770-4 (LUFS), for two channels at 48 kHz; true peaks are those of its Annex 2 (dBTP),
four times oversampled. What is done about them is left to `mastering`. Filters are applied in the frequency domain,
block by block: the sums are those of the filters, and scipy.signal, which is large, is not needed.

Sound here is float32 [2, samples], full scale 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from edge_models.music.score import SAMPLE_RATE

Sound = npt.NDArray[np.float32]
Spectrum = npt.NDArray[np.complex64]

HOP = SAMPLE_RATE // 10
"""Samples between two looks at the loudness: 100 ms, a quarter of BS.1770's block."""

SILENT = -120.0
"""LUFS or dBTP that stand for nothing at all."""

_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0
_OFFSET = -0.691
_K_REACH = 9_600
"""Samples after which the K-weighting's answer to a click is below float32's reach."""

# BS.1770-4, tables 1 and 2: the head's shelf and the high-pass, at 48 kHz.
_SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
_HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))


def decibels(energy: float) -> float:
    """10 log10 of an energy; `SILENT` for none."""
    return max(SILENT, 10.0 * float(np.log10(energy))) if energy > 0.0 else SILENT


def biquad(numerator: tuple[float, ...], denominator: tuple[float, ...], size: int) -> npt.NDArray[np.complex128]:
    """A second-order filter's response on the grid of a real FFT of `size` samples."""
    turned = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    top, bottom = (
        sum(value * turned**power for power, value in enumerate(side)) for side in (numerator, denominator)
    )
    return np.asarray(top / bottom, dtype=np.complex128)


@lru_cache(maxsize=8)
def k_weighting(size: int) -> Spectrum:
    """The K-weighting's response on the grid of a real FFT of `size` samples."""
    return (biquad(*_SHELF, size) * biquad(*_HIGH_PASS, size)).astype(np.complex64)


def energy(sound: Sound) -> float:
    """K-weighted mean square of a whole sound, its channels added; 10 log10 of it less 0.691 is its loudness."""
    size = int(scipy.fft.next_fast_len(sound.shape[1] + _K_REACH, real=True))
    heard = scipy.fft.rfft(sound, size) * k_weighting(size)
    power: npt.NDArray[np.float32] = np.abs(heard) ** 2
    # Parseval over the half spectrum: all bins stand for two but the first (and the last of an even size).
    total = float(2.0 * power.sum() - power[:, 0].sum() - (power[:, -1].sum() if size % 2 == 0 else 0.0))
    return float(total / (size * max(1, int(sound.shape[1]))))


def gated(hops: npt.NDArray[np.float64]) -> float:
    """Integrated loudness (LUFS) of K-weighted energies, one each 100 ms, channels added (BS.1770-4, equations 3-7).

    Fewer than four hops are taken as one block; `SILENT` where nothing passes the gates.
    """
    if len(hops) == 0:
        return SILENT
    blocks = np.convolve(hops, np.full(4, 0.25), "valid") if len(hops) >= 4 else np.array([hops.mean()])
    kept = blocks[blocks > 10.0 ** ((_ABSOLUTE_GATE - _OFFSET) / 10.0)]
    if len(kept) == 0:
        return SILENT
    kept = kept[kept > kept.mean() * 10.0 ** (_RELATIVE_GATE / 10.0)]
    return float(decibels(float(kept.mean())) + _OFFSET)


def to_energy(loudness: float) -> float:
    """The K-weighted energy of this loudness (LUFS)."""
    return float(10.0 ** ((loudness - _OFFSET) / 10.0))


def oversampled(sound: Sound) -> Sound:
    """Four samples for each one, band-limited: float32 [2, 4 n]. Trust it from 256 samples inside either end."""
    length = sound.shape[1]
    size = scipy.fft.next_fast_len(length, real=True)
    fine = scipy.fft.irfft(scipy.fft.rfft(sound, size) * np.float32(4.0), 4 * size)
    return np.asarray(fine[:, : 4 * length], dtype=np.float32)


class OverlapAdd:
    """A filter over a stream of equal blocks: what reaches past a block's end is added to the next.

    Args:
        block: samples of a block.
        reach: samples by which the filter's answer lasts longer than what went in.
    """

    def __init__(self, block: int, reach: int) -> None:
        self.block = block
        self.size = scipy.fft.next_fast_len(block + reach, real=True)
        self._left: Sound = np.zeros((2, self.size - block), dtype=np.float32)

    def spectrum(self, sound: Sound) -> Spectrum:
        """A block's spectrum, to be multiplied by responses of `self.size`."""
        return np.asarray(scipy.fft.rfft(sound, self.size), dtype=np.complex64)

    def add(self, spectrum: Spectrum) -> Sound:
        """The next block of the stream, from the sum of all that went into it."""
        whole = np.asarray(scipy.fft.irfft(spectrum, self.size), dtype=np.float32)
        whole[:, : self._left.shape[1]] += self._left
        self._left = whole[:, self.block :].copy()
        return whole[:, : self.block]


class Meter:
    """Measures a stream of equal blocks, each a whole number of hops; its numbers hold for what it has heard."""

    def __init__(self, block: int) -> None:
        self._filter = OverlapAdd(block, _K_REACH)
        self._before: Sound = np.zeros((2, 1024), dtype=np.float32)
        self._hops: list[npt.NDArray[np.float64]] = []
        self._peak = 0.0

    def hear(self, block: Sound) -> npt.NDArray[np.float64]:
        """Take the next block; its energies, one a hop."""
        found = hop_energies(self._filter.add(self._filter.spectrum(block) * k_weighting(self._filter.size)))
        self._hops.append(found)
        # The last 512 samples wait for what follows them; after a piece's end nothing does, and it ends in silence.
        joined = np.concatenate([self._before, block], axis=1)
        self._peak = max(self._peak, float(np.abs(oversampled(joined)[:, 4 * 512 : -4 * 512]).max()))
        self._before = joined[:, -1024:]
        return found

    @property
    def hops(self) -> npt.NDArray[np.float64]:
        """Energies of all that was heard, one a hop."""
        return np.concatenate(self._hops) if self._hops else np.zeros(0)

    @property
    def loudness(self) -> float:
        """Integrated, LUFS."""
        return gated(self.hops)

    @property
    def true_peak(self) -> float:
        """The highest so far, dBTP."""
        return 2.0 * decibels(self._peak)


def hop_energies(sound: Sound) -> npt.NDArray[np.float64]:
    """Mean squares of whole hops, channels added: [samples / HOP]."""
    squares: npt.NDArray[Any] = np.square(sound, dtype=np.float64).reshape(2, -1, HOP)
    return np.asarray(squares.mean(axis=2).sum(axis=0), dtype=np.float64)
