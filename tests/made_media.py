"""Made pictures and sounds with a planted mood: sad, lively or calm. Arrays only; encoding is left to others.

The moods follow what listeners and viewers agree on. Sound (Gabrielsson & Lindström 2010; Eerola, Friberg & Bresin
2013): slow, minor, quiet, sparse and dark is sad; fast, major, loud, dense and bright is lively; slow, major, soft
and sustained is calm. Colour (Valdez & Mehrabian 1994; Wilms & Oberfeld 2018): dark and greyish blue is sad;
saturated warm colours in many strokes are lively; pale green and blue without edges are calm. The same mood and seed
give the same samples and pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Mood = Literal["sad", "lively", "calm"]
MOODS: tuple[Mood, ...] = ("sad", "lively", "calm")
RATE = 16_000

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)  # natural minor
# Degrees of the triads of four bars: I-V-vi-IV and its relative in minor.
_BARS = ((0, 2, 4), (4, 6, 8), (5, 7, 9), (3, 5, 7))


def made_sound(mood: Mood, seconds: float = 24.0, seed: int = 0) -> npt.NDArray[np.float32]:
    """A short piece in this mood: mono float32 samples at 16 kHz within -1..1."""
    generator = np.random.default_rng([seed, MOODS.index(mood)])
    total = int(seconds * RATE)
    if mood == "lively":
        return _normalised(_lively(generator, total), 0.5)
    if mood == "sad":
        return _normalised(_sad(generator, total), 0.05)
    return _normalised(_calm(generator, total), 0.09)


def made_picture(mood: Mood, side: int = 512, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture in this mood: sRGB, uint8 [side, side, 3]."""
    generator = np.random.default_rng([seed, 100 + MOODS.index(mood)])
    if mood == "lively":
        return _lively_picture(generator, side)
    down = np.linspace(0.0, 1.0, side)[:, None, None]
    waves = np.sin(down * np.pi * generator.uniform(2.0, 4.0) + generator.uniform(0, 2 * np.pi)) * 0.5 + 0.5
    if mood == "sad":  # dusk over still water: dark, greyish blue, hardly a difference
        top, bottom = np.array([58.0, 64.0, 78.0]), np.array([26.0, 29.0, 38.0])
        noise = 1.2
    else:  # a pale, even sky over a pale meadow
        top, bottom = np.array([196.0, 224.0, 232.0]), np.array([178.0, 222.0, 190.0])
        noise = 0.6
    shift = generator.uniform(-4.0, 4.0, 3)
    picture = top + (bottom - top) * down + shift + 3.0 * (waves - 0.5)
    picture = np.broadcast_to(picture, (side, side, 3)) + generator.normal(0.0, noise, (side, side, 3))
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _tone(pitch: float, seconds: float, overtones: tuple[float, ...], attack: float, decay: float) -> np.ndarray:
    """One note: harmonics of these strengths under an envelope of `attack` seconds and a `decay` per second."""
    times = np.arange(max(1, int(seconds * RATE))) / RATE
    frequency = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)
    wave = np.zeros_like(times)
    for number, strength in enumerate(overtones, start=1):
        if frequency * number < RATE / 2.2:
            wave += strength * np.sin(2 * np.pi * frequency * number * times)
    envelope = np.minimum(times / attack, 1.0) * np.exp(-decay * times)
    release = np.minimum((times[-1] - times) / min(0.05, seconds / 4), 1.0)
    return np.asarray(wave * envelope * release)


def _add(track: np.ndarray, at: float, note: np.ndarray, gain: float = 1.0) -> None:
    start = int(at * RATE)
    end = min(len(track), start + len(note))
    if end > start:
        track[start:end] += gain * note[: end - start]


def _pitch(scale: tuple[int, ...], degree: int, tonic: int) -> int:
    return tonic + 12 * (degree // 7) + scale[degree % 7]


def _lively(generator: np.random.Generator, total: int) -> np.ndarray:
    """150 beats a minute, D major, quavers in the melody, chords on every beat, a drum kit."""
    track, beat = np.zeros(total), 60.0 / 150.0
    bright = (1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15)
    for number in range(int(total / RATE / beat) + 1):
        chord = _BARS[(number // 4) % 4]
        for degree in chord:
            _add(track, number * beat, _tone(_pitch(_MAJOR, degree, 62), beat * 0.7, bright, 0.005, 6.0), 0.3)
        _add(track, number * beat, _tone(_pitch(_MAJOR, chord[0], 38), beat * 0.8, bright, 0.005, 4.0), 0.5)
        for half in (0.0, 0.5):
            degree = chord[int(generator.integers(3))] + 7 * int(generator.integers(2))
            _add(
                track, (number + half) * beat, _tone(_pitch(_MAJOR, degree, 74), beat * 0.5, bright, 0.004, 5.0), 0.45
            )
            hat = generator.normal(0.0, 1.0, int(0.04 * RATE)) * np.exp(-np.arange(int(0.04 * RATE)) / RATE * 90)
            _add(track, (number + half) * beat, np.diff(hat, prepend=0.0), 0.35)
        times = np.arange(int(0.15 * RATE)) / RATE
        if number % 2 == 0:
            _add(
                track,
                number * beat,
                np.sin(2 * np.pi * (60 + 80 * np.exp(-times * 30)) * times) * np.exp(-times * 18),
            )
        else:
            _add(track, number * beat, generator.normal(0.0, 1.0, len(times)) * np.exp(-times * 28), 0.5)
    return track


def _sad(generator: np.random.Generator, total: int) -> np.ndarray:
    """52 beats a minute, A minor, one low and dull note at a time over a falling bass, with pauses."""
    track, beat = np.zeros(total), 60.0 / 52.0
    dull = (1.0, 0.25, 0.08)
    falling = (4, 3, 2, 1, 0, 2, 1, 0)
    for number in range(int(total / RATE / beat) + 1):
        bar = (0, 3, 5, 0)[(number // 4) % 4]
        if number % 4 == 0:
            for degree in (bar, bar + 2):
                _add(track, number * beat, _tone(_pitch(_MINOR, degree, 45), beat * 3.8, dull, 0.15, 0.5), 0.5)
        if number % 4 != 3:
            degree = falling[number % 8] - int(generator.integers(2)) * 7 * (number % 8 == 7)
            _add(track, number * beat, _tone(_pitch(_MINOR, degree, 57), beat * 1.3, dull, 0.08, 0.9), 0.8)
    return track


def _calm(generator: np.random.Generator, total: int) -> np.ndarray:
    """G major chords held for six seconds, swelling slowly into each other, and a soft high note now and then."""
    track, hold = np.zeros(total), 6.0
    soft = (1.0, 0.2, 0.06)
    for number in range(int(total / RATE / hold) + 1):
        root = (0, 3, 0, 4)[number % 4]
        for degree in (root, root + 2, root + 4, root + 7):
            _add(track, number * hold, _tone(_pitch(_MAJOR, degree, 55), hold * 1.3, soft, 2.2, 0.12), 0.4)
        step = (0, 2, 4)[int(generator.integers(3))]
        _add(track, number * hold + 3.0, _tone(_pitch(_MAJOR, root + step, 67), hold * 0.7, soft, 1.2, 0.3), 0.25)
    return track


def _normalised(track: np.ndarray, level: float) -> npt.NDArray[np.float32]:
    """Scaled to this root mean square, and softly held within -1..1."""
    power = float(np.sqrt(np.mean(track**2))) or 1.0
    return np.tanh(track * (level / power)).astype(np.float32)


def _lively_picture(generator: np.random.Generator, side: int) -> npt.NDArray[np.uint8]:
    """Hundreds of saturated strokes, most of them warm, over a sunny ground."""
    picture = np.empty((side, side, 3))
    picture[:] = (250.0, 196.0, 60.0)
    colours = np.array(
        [(232, 62, 38), (250, 140, 20), (255, 214, 40), (240, 70, 120), (60, 180, 75), (40, 120, 220)], dtype=float
    )
    rows, columns = np.mgrid[0:side, 0:side]
    for _ in range(260):
        centre = generator.uniform(0, side, 2)
        length, width = generator.uniform(0.05, 0.16) * side, generator.uniform(0.008, 0.03) * side
        angle = generator.uniform(0, np.pi)
        top, bottom = int(max(0, centre[0] - length)), int(min(side, centre[0] + length + 1))
        left, right = int(max(0, centre[1] - length)), int(min(side, centre[1] + length + 1))
        down, across = rows[top:bottom, left:right] - centre[0], columns[top:bottom, left:right] - centre[1]
        along = across * np.cos(angle) + down * np.sin(angle)
        beside = -across * np.sin(angle) + down * np.cos(angle)
        inside = (np.abs(along) < length) & (np.abs(beside) < width)
        colour = colours[generator.choice(6, p=(0.24, 0.24, 0.2, 0.14, 0.09, 0.09))]
        picture[top:bottom, left:right][inside] = np.clip(colour + generator.normal(0, 10, 3), 0, 255)
    return np.round(picture).astype(np.uint8)
