"""The words that composing shares: what is asked, what is planned, and the notes of one section.

Nothing is decided or computed here. `plan` turns an `Ask` into a `Plan`, `writing` turns a plan into one `Passage`
after the other, and `synthesis` makes them sound. Times are in seconds from the start of the piece; pitches are MIDI
numbers (60 is middle C); velocities are 1..127.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 48_000
"""Hz, of everything that is heard."""

SHORTEST, LONGEST = 5.0, 180.0
"""Seconds of a piece."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A picture as the composer knows it, and what was wished for.

    Attributes:
        rgb: [5, 3], 0..255: movement, calm, nostalgia of fragments 1-4, then of the whole (CMEAN).
        va: [5, 2], 0..1: valence, arousal, in the same order.
        measurements: five measurements of `measure_picture` (palette, light, texture, tags).
        vector: the picture's vector; its values only add to the seed, so that equal moods differ.
        seconds: 5..180.
        seed: >= 0.
        instruments: a family that must lead ("piano", "strings", ...), or None.
        key: ("D", "minor"), or None.
        tempo: beats per minute, or None.
    """

    rgb: npt.NDArray[np.float32]
    va: npt.NDArray[np.float32]
    measurements: Sequence[Mapping[str, Any]]
    vector: npt.NDArray[np.float32]
    seconds: float
    seed: int
    instruments: str | None = None
    key: tuple[str, str] | None = None
    tempo: float | None = None


@dataclass(frozen=True, slots=True)
class Voice:
    """One player.

    Attributes:
        name: plain words ("cello").
        family: "piano", "strings", "winds", "brass", "plucked", "mallets", "voices", "keys", "drums".
        program: General MIDI program, 0..127; the drum kit's for family "drums".
        role: "melody", "counter", "harmony", "bass", "rhythm".
        low, high: the range that it plays, MIDI numbers.
        pan: -1 (left) .. 1 (right).
        gain: dB against the other voices.
        reverb: 0..1, how far away it sits.
    """

    name: str
    family: str
    program: int
    role: str
    low: int
    high: int
    pan: float
    gain: float
    reverb: float


@dataclass(frozen=True, slots=True)
class Section:
    """One fragment of the picture as a part of the piece.

    Attributes:
        part: the fragment's name ("top-left").
        start, seconds: when and how long.
        tempo: beats per minute.
        beats: whole beats that it lasts at that tempo.
        density: onsets a second that are aimed at, all voices together.
        dynamics: 0 (very quiet) .. 1 (very loud).
        register: semitones by which the voices lie higher (or lower) than usual.
        movement, calm, nostalgia: 0..1.
        valence, arousal: 0..1.
        voices: indexes into the plan's voices of those who play.
    """

    part: str
    start: float
    seconds: float
    tempo: float
    beats: int
    density: float
    dynamics: float
    register: int
    movement: float
    calm: float
    nostalgia: float
    valence: float
    arousal: float
    voices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The piece before its first note.

    Attributes:
        tonic: "C", "C#", ... "B".
        mode: "major", "minor", or a church mode ("dorian", ...).
        tempo: of the piece's beginning, beats per minute.
        meter: beats in a bar.
        voices: the ensemble.
        sections: in order; they fill `seconds` but for the last sound's dying away, which is inside it too.
        seconds: of the whole piece.
        seed: of everything random: the ask's seed with the picture's values folded in.
    """

    tonic: str
    mode: str
    tempo: float
    meter: int
    voices: tuple[Voice, ...]
    sections: tuple[Section, ...]
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `passing` marks those that leave the key on purpose."""

    start: float
    seconds: float
    pitch: int
    velocity: int
    voice: int
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """What one section plays, sorted by start, voice and pitch. The last notes may ring into the next section.

    Attributes:
        number: which section.
        key: (tonic, mode) of this passage, where it differs from the plan's by a stated move; else the plan's.
        chords: (start, name) of each chord, in plain names ("Dm", "A7").
        notes: all voices together.
        theme: with how many tones its leader states the piece's theme when the section begins; 0: it has no room.
    """

    number: int
    key: tuple[str, str]
    chords: tuple[tuple[float, str], ...]
    notes: tuple[Note, ...]
    theme: int = 0
