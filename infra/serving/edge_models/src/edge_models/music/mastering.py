"""From the desk to the finished sound: room, colour, loudness, limiter, end; all while the piece is still being made.

A piece is made in blocks of one second. Each goes through the room (`Room`), waits in a queue of some seconds while
the loudness of what lies ahead is measured (`Levels` plans the gain from that), and leaves through the `Limiter`.
The loudness of the whole is steered: each section is brought to its planned level, what has left is measured
(`loudness.Meter`), and what is still to come makes up for the difference, slowly.

Sound here is float32 [2, samples], full scale 1.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from edge_models.music import loudness, valence
from edge_models.music.loudness import HOP, Meter, OverlapAdd, Sound, Spectrum
from edge_models.music.score import SAMPLE_RATE, Plan

Hops = npt.NDArray[np.float64]

BLOCK = SAMPLE_RATE
"""Samples of a block."""
HOPS = BLOCK // HOP

TARGET = -16.0
"""LUFS of a whole piece."""
CEILING = 10.0 ** (-1.5 / 20.0)
"""The limiter's highest true peak: half a decibel under what is allowed, for what its own work adds."""
AHEAD = 8
"""Blocks whose loudness is known before the first leaves, in a piece that has so many."""

_SPAN = 7.0
"""LU between the quietest and the loudest possible section."""
_LOWEST_OFFSET = -5.0
"""LU of the quietest section against the whole: the gate of BS.1770 lies at -10."""
_ROOM_SECONDS = 2.4
"""Length of the room's answer, cut and faded there."""


# -- the room ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _room_answer(decay: float, size: int) -> Spectrum:
    """The room's answer to a click, two channels, as a spectrum.

    Moorer 1979: noise that dies exponentially, faster at higher frequencies, after a few early reflections.
    `decay` is the seconds in which the middle frequencies fall by 60 dB. Energy 1 a channel.
    """
    random = np.random.default_rng(1874)
    length = int(_ROOM_SECONDS * SAMPLE_RATE)
    seconds = np.arange(length) / SAMPLE_RATE
    answer = np.zeros((2, length))
    frequencies = np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE)
    # Bands' upper edges in Hz, and their decay against the middle's: walls and air take the high ones first.
    lower = 0.0
    for upper, share, strength in (
        (250.0, 1.05, 0.7),
        (1_500.0, 1.0, 1.0),
        (4_000.0, 0.75, 0.8),
        (9_000.0, 0.45, 0.5),
        (SAMPLE_RATE / 2, 0.25, 0.25),
    ):
        noise = np.fft.rfft(random.standard_normal((2, length)))
        noise[:, (frequencies < lower) | (frequencies >= upper)] = 0.0
        answer += strength * np.fft.irfft(noise, length) * 10.0 ** (-3.0 * seconds / (decay * share))
        lower = upper
    # The first sound of the room comes after that of the instrument, and thickens over 20 ms.
    delay = int(0.018 * SAMPLE_RATE)
    answer *= np.minimum(1.0, seconds / 0.02) ** 0.5
    answer = np.concatenate([np.zeros((2, delay)), answer[:, :-delay]], axis=1)
    answer /= np.sqrt((answer**2).sum(axis=1, keepdims=True))
    for milliseconds, left, right in ((11, 0.22, 0.1), (17, 0.08, 0.2), (23, 0.16, 0.05), (31, 0.05, 0.15)):
        answer[:, milliseconds * SAMPLE_RATE // 1000] += (left, right)
    answer[:, -SAMPLE_RATE // 10 :] *= np.linspace(1.0, 0.0, SAMPLE_RATE // 10)
    answer /= np.sqrt((answer**2).sum(axis=1, keepdims=True))
    return np.asarray(scipy.fft.rfft(answer.astype(np.float32), size), dtype=np.complex64)


def _colour(brightness: float, size: int) -> Spectrum:
    """The response that a piece's colour has: no rumble and no DC, and a shelf above 3 kHz of `brightness` dB."""
    # Bristow-Johnson's cookbook: second-order high-pass at 24 Hz, high shelf of slope 1/2.
    turn = 2.0 * math.pi * 24.0 / SAMPLE_RATE
    alpha, cosine = math.sin(turn) / math.sqrt(2.0), math.cos(turn)
    high_pass = loudness.biquad(
        ((1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2), (1 + alpha, -2 * cosine, 1 - alpha), size
    )
    amplitude = 10.0 ** (brightness / 40.0)
    turn = 2.0 * math.pi * 3_000.0 / SAMPLE_RATE
    cosine = math.cos(turn)
    alpha = math.sin(turn) / 2.0 * math.sqrt((amplitude + 1.0 / amplitude) + 2.0)
    root = 2.0 * math.sqrt(amplitude) * alpha
    up, down = amplitude + 1.0, amplitude - 1.0
    shelf = loudness.biquad(
        (
            amplitude * (up + down * cosine + root),
            -2.0 * amplitude * (down + up * cosine),
            amplitude * (up + down * cosine - root),
        ),
        (up - down * cosine + root, 2.0 * (down - up * cosine), up - down * cosine - root),
        size,
    )
    return (high_pass * shelf).astype(np.complex64)


class Room:
    """The room that a piece is played in, and the colour of its sound.

    Args:
        decay: seconds in which the room's sound falls by 60 dB.
        wet: the room's part, dB against what was sent into it.
        brightness: dB above 3 kHz.
    """

    def __init__(self, decay: float, wet: float, brightness: float) -> None:
        self._stream = OverlapAdd(BLOCK, int(_ROOM_SECONDS * SAMPLE_RATE) + SAMPLE_RATE // 2)
        size = self._stream.size
        self._colour = _colour(brightness, size)
        self._answer = _room_answer(round(decay, 1), size) * np.float32(10.0 ** (wet / 20.0)) * self._colour
        self._weighted = OverlapAdd(BLOCK, int(_ROOM_SECONDS * SAMPLE_RATE) + SAMPLE_RATE // 2)

    def hear(self, straight: Sound, sent: Sound) -> tuple[Sound, Hops]:
        """The next block as it sounds in the room, and its K-weighted energies, one a hop."""
        spectrum = self._stream.spectrum(straight) * self._colour + self._stream.spectrum(sent) * self._answer
        weighted = self._weighted.add(spectrum * loudness.k_weighting(self._stream.size))
        return self._stream.add(spectrum), loudness.hop_energies(weighted)


def room_of(plan: Plan) -> Room:
    """The room for a piece: calm is larger, nostalgia darker, movement nearer and brighter; and see `valence`."""
    weights = [section.seconds for section in plan.sections]
    movement, calm, nostalgia, pleasant = (
        float(np.average([getattr(section, name) for section in plan.sections], weights=weights))
        for name in ("movement", "calm", "nostalgia", "valence")
    )
    return Room(
        decay=min(2.6, max(0.9, 1.3 + 1.2 * calm - 0.4 * movement + valence.room(pleasant))),
        wet=-4.0 + 2.0 * calm,
        brightness=max(-4.0, min(4.0, 1.5 + 2.0 * movement - 3.5 * nostalgia + valence.shelf(pleasant))),
    )


# -- loudness ----------------------------------------------------------------------------------------------


class Levels:
    """Plans the gain over a piece, as far as its sound is known.

    Args:
        plan: its sections' times and dynamics.
    """

    def __init__(self, plan: Plan) -> None:
        self._total = max(1, math.ceil(plan.seconds * 10.0))
        starts = [round(section.start * 10.0) for section in plan.sections]
        self._section = np.searchsorted(starts, np.arange(self._total), side="right") - 1
        self._section = np.maximum(self._section, 0)
        durations = np.array([max(0.1, section.seconds) for section in plan.sections])
        offsets = np.array([_SPAN * (section.dynamics - 0.5) for section in plan.sections])
        # The energies' mean over the piece is that of the target; no section falls out of the measure.
        for _ in range(4):
            offsets = offsets - loudness.decibels(
                float((10.0 ** (offsets / 10.0) * durations).sum() / durations.sum())
            )
            offsets = np.maximum(offsets, _LOWEST_OFFSET)
        self._targets = TARGET + offsets
        self._known: list[float] = []
        self._expected = np.zeros(self._total)
        self._trim = 0.0
        self._loss = 0.0
        self._gain: float | None = None

    def know(self, energies: Hops) -> None:
        """The next block's energies, before any gain."""
        self._known.extend(energies.tolist())

    def expect(self, start: float, seconds: float, weight: float) -> None:
        """A note will sound then, as strong as `weight` (any unit): for what is written but not yet heard."""
        first, last = int(start * 10.0), int((start + seconds) * 10.0) + 1
        self._expected[max(0, first) : max(0, last)] += weight

    def _level(self, section: int) -> float:
        """The loudness of a section without gain, from what is known of it; `SILENT` where nothing is."""
        here = np.flatnonzero(self._section == section)
        heard = here[here < len(self._known)]
        if len(heard) == 0:
            return loudness.SILENT
        level = loudness.gated(np.array(self._known)[heard])
        if level > loudness.SILENT and len(heard) < len(here):
            # A section may begin alone and grow: the notes tell how much louder than its beginning it will be.
            whole, part = self._expected[here].mean(), self._expected[heard].mean()
            if whole > 0.0 and part > 0.0:
                level += 0.6 * max(-6.0, min(6.0, 10.0 * math.log10(whole / part)))
        return level

    def _wanted(self, hop: int, levels: dict[int, float]) -> float | None:
        # Half a second ahead: a glide over a join begins before it.
        ahead = min(hop + 4, self._total - 1, max(0, len(self._known) - 1))
        section = int(self._section[ahead])
        if section not in levels:
            levels[section] = self._level(section)
        if levels[section] <= loudness.SILENT + 1.0:
            return None
        return float(self._targets[section] - levels[section] + self._trim + self._loss)

    def gains(self, first: int, hops: int, keep: bool = True) -> npt.NDArray[np.float64]:
        """dB at the beginning of each hop from `first` on, and at the end of the last: [hops + 1]."""
        levels: dict[int, float] = {}
        gain = self._gain
        found = []
        for hop in range(first, first + hops + 1):
            wanted = self._wanted(hop, levels)
            if gain is None:
                gain = wanted
            elif wanted is not None and hop > first:
                window = self._section[max(0, hop - 3) : hop + 6]
                # Quick where one section gives way to the next, hardly to be noticed elsewhere.
                most = 0.6 if len(window) and window[0] != window[-1] else 0.06
                gain += max(-most, min(most, wanted - gain))
            found.append(gain if gain is not None else 0.0)
        if keep:
            self._gain = gain
        return np.array(found)

    def correct(self, left: Hops, lost: float | None) -> None:
        """Learn from all that has left (its energies), and by how many dB the limiter lowered the last block."""
        if lost is not None:
            self._loss += 0.25 * (min(4.0, lost) - self._loss)
        done = len(left)
        if done >= self._total:
            return
        planned = 10.0 ** ((self._targets[self._section] - TARGET) / 10.0)
        got = 10.0 ** ((loudness.gated(left) - TARGET) / 10.0) * done
        missing = planned.sum() - got
        ahead = float(planned[done:].sum())
        trim = 10.0 * math.log10(max(0.3, missing / ahead)) if missing > 0.0 else -3.0
        self._trim = max(-3.0, min(3.0, trim))

    def rehearsed(self, short_of_target: float) -> None:
        """A first run of what is known came out so many dB too low."""
        self._loss = max(-3.0, min(6.0, self._loss + short_of_target))
        self._gain = None

    def planned(self, hops: int) -> float:
        """The loudness (LUFS) that the first `hops` are meant to have."""
        energies = 10.0 ** (self._targets[self._section[:hops]] / 10.0)
        return loudness.decibels(float(energies.mean()))


# -- the limiter -------------------------------------------------------------------------------------------

_CELL = 32
"""Samples that share one peak: 0.7 ms."""
_CELLS = BLOCK // _CELL
_REACH = 8
"""Cells in which the gain falls before a peak: 5 ms."""
_BEFORE, _AFTER = 512, 1_024
_RELEASE = 1.0 - math.exp(-_CELL / (0.09 * SAMPLE_RATE))
"""How much of the way back to 1 the gain goes in one cell: a time constant of 90 ms."""


class Limiter:
    """Keeps true peaks under `CEILING` by falling just before them and coming back slowly. One block late."""

    def __init__(self) -> None:
        self._last: Sound = np.zeros((2, BLOCK), dtype=np.float32)
        self._context: Sound = np.zeros((2, _BEFORE), dtype=np.float32)
        self._release = 1.0
        self._history = np.ones(_REACH)
        self._edge = self._need = 1.0

    def limit(self, following: Sound) -> Sound:
        """The block before this one, limited (the first answer is an empty block of silence)."""
        heard = np.concatenate([self._context, self._last, following[:, :_AFTER]], axis=1)
        result = self._last
        if float(np.abs(heard).max()) > CEILING * 0.7 or self._release < 1.0:
            cells = _CELLS + _AFTER // _CELL - _BEFORE // _CELL
            fine = np.abs(loudness.oversampled(heard)[:, 4 * _BEFORE : 4 * (_BEFORE + cells * _CELL)])
            peaks = fine.reshape(2, cells, 4 * _CELL).max(axis=(0, 2))
            result = self._last * self._gain(np.minimum(1.0, CEILING / np.maximum(peaks, 1e-9)))
        else:
            self._need = 1.0
        self._context = self._last[:, -_BEFORE:].copy()
        self._last = following
        return result

    def _gain(self, needed: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """One gain a sample from one need a cell, some cells ahead of the block included."""
        span = _REACH + 2
        lowest = np.lib.stride_tricks.sliding_window_view(
            np.concatenate([[self._need], needed, np.ones(span)]), span + 1
        ).min(axis=1)[: _CELLS + 1]
        held = np.empty(_CELLS + 1)
        gain = self._release
        for cell, low in enumerate(lowest.tolist()):
            gain = low if low < gain else gain + _RELEASE * (low - gain)
            held[cell] = gain
            if cell == _CELLS - 1:
                self._release = gain if gain < 0.9999 else 1.0
        smooth = np.convolve(np.concatenate([self._history, held]), np.full(_REACH, 1.0 / _REACH), "valid")[1:]
        # The last cell's gain is the next block's first; both blocks meet half-way between them.
        grid = (np.arange(-1, _CELLS + 1) + 0.5) * _CELL
        known = np.concatenate([[self._edge], smooth[: _CELLS + 1]])
        self._history = held[:_CELLS][-_REACH:]
        self._edge, self._need = float(smooth[_CELLS - 1]), float(needed[_CELLS - 1])
        return np.asarray(np.interp(np.arange(BLOCK) + 0.5, grid, known), dtype=np.float32)


# -- all of it ---------------------------------------------------------------------------------------------


class Master:
    """Blocks of the desk in, finished blocks out: some later than they came, all of them by the end.

    Args:
        plan: the piece.
    """

    def __init__(self, plan: Plan) -> None:
        self.samples = round(plan.seconds * SAMPLE_RATE)
        self.blocks = max(1, math.ceil(self.samples / BLOCK))
        self.meter = Meter(BLOCK)
        self.levels = Levels(plan)
        self._room = room_of(plan)
        self._queue: deque[tuple[Sound, Hops]] = deque()
        self._limiter = Limiter()
        self._heard = self._gained = self._left = 0
        self._before: deque[float] = deque()
        self._fade = min(1.5, 0.15 * plan.seconds)

    def take(self, straight: Sound, sent: Sound) -> None:
        """The desk's next block."""
        sound, energies = self._room.hear(straight, sent)
        self._queue.append((self._ended(sound, self._heard), energies))
        self.levels.know(energies)
        self._heard += 1
        if self._heard == min(AHEAD, self.blocks):
            self._rehearse()

    def give(self) -> Sound | None:
        """The next finished block (the last may be shorter), or None until more has been taken."""
        if self._left == self.blocks or self._heard < min(self._left + AHEAD, self.blocks):
            return None
        while self._gained < min(self._left + 2, self.blocks):
            finished = self._advance(*self._queue.popleft())
            if finished is not None:
                return finished
        return self._leave(self._limiter.limit(np.zeros((2, BLOCK), dtype=np.float32)))

    def _advance(self, sound: Sound, energies: Hops) -> Sound | None:
        gains = self.levels.gains(self._gained * HOPS, HOPS)
        self._before.append(float((energies * 10.0 ** (gains[:-1] / 10.0)).sum()))
        limited = self._limiter.limit(_raised(sound, gains))
        self._gained += 1
        return self._leave(limited) if self._gained > 1 else None

    def _leave(self, block: Sound) -> Sound:
        after = float(self.meter.hear(block).sum())
        before = self._before.popleft()
        lost = loudness.decibels(before) - loudness.decibels(after) if before > 0.0 and after > 0.0 else None
        self._left += 1
        # The end's fade is no fault of the limiter's.
        self.levels.correct(self.meter.hops, lost if self._left < self.blocks - 1 else None)
        return block[:, : self.samples - (self._left - 1) * BLOCK]

    def _ended(self, sound: Sound, block: int) -> Sound:
        """The block with the piece's end in it: faded out, and silent from there."""
        begin, end = self.samples - int(self._fade * SAMPLE_RATE), self.samples
        position = np.arange(block * BLOCK, (block + 1) * BLOCK)
        if position[-1] < begin:
            return sound
        share = np.clip((end - 1 - position) / max(1, end - 1 - begin), 0.0, 1.0)
        return sound * (np.sin(share * np.pi / 2.0) ** 2).astype(np.float32)

    def _rehearse(self) -> None:
        """Find, on what is known before anything has left, how much the limiter and the end take away."""
        for _ in range(3 if self.blocks <= AHEAD else 1):
            limiter, meter = Limiter(), Meter(BLOCK)
            for number, (sound, _) in enumerate(self._queue):
                gains = self.levels.gains(number * HOPS, HOPS, keep=True)
                limited = limiter.limit(_raised(sound, gains))
                if number:
                    meter.hear(limited)
            meter.hear(limiter.limit(np.zeros((2, BLOCK), dtype=np.float32)))
            found = meter.loudness
            if found <= loudness.SILENT + 1.0:
                self.levels.rehearsed(0.0)
                return
            self.levels.rehearsed(self.levels.planned(min(self._heard * HOPS, self.samples // HOP)) - found)


def _raised(sound: Sound, gains: Sequence[float] | npt.NDArray[np.float64]) -> Sound:
    """A block under a gain in dB that runs from hop to hop in straight lines."""
    positions = np.arange(HOPS + 1) * HOP
    curve = np.interp(np.arange(BLOCK), positions, np.asarray(gains))
    return np.asarray(sound * (10.0 ** (curve / 20.0)).astype(np.float32), dtype=np.float32)
