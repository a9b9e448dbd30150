"""Notes to sound: a General MIDI bank, played note by note at 48 kHz.

Notes are independent of each other, so a piece is played in windows: `Bank.play` renders the notes that begin in one
window, each to the end of its dying away, and `Desk` adds what reaches past the window to the next ones. So nothing
of a section is kept once it has sounded, and what one piece plays does not depend on what else is being played.
Every event falls on its own sample. Balance beyond a voice's gain, the room and loudness are left to `mastering`.

The player is TinySoundFont (MIT) as published in PyPI's tinysoundfont; the bank is TimGM6mb (Tim Brechbill, GPL-2) as
published inside PyPI's pretty_midi. `edge_models.build` puts both beside the served model; neither is part of the
project.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.music import loudness
from edge_models.music.loudness import Sound
from edge_models.music.score import SAMPLE_RATE, Note, Voice

PLAYER, BANK = "tinysoundfont.so", "bank.sf2"
"""Names of the built files in the served model's version folder."""

_AT_ONCE = SAMPLE_RATE // 4
"""Samples rendered in one call: the player lets no other thread run meanwhile."""
_DYING = 4 * SAMPLE_RATE
"""Samples after a window's last note is released by which all is faded out."""
_FADE = SAMPLE_RATE // 20
_SOFT = SAMPLE_RATE // 333
"""Samples over which a drum's stroke comes up."""
_SNAPS = (33,)
"""Programs whose tones the bank breaks off with a click when they are let go: the bass guitar."""
_LET_GO = SAMPLE_RATE // 100
"""Samples over which such a tone is faded out before it is let go."""
_POLYPHONY = 256
_REFERENCE = -23.0
"""LUFS of one note of any instrument at velocity 80, before the voice's own gain."""
_WIDTH = 0.6
"""How much of an instrument's own stereo is kept."""


@lru_cache(maxsize=1)
def _player(path: str) -> Any:
    """The player's module. It is a compiled one that lies where the build put it, not among installed packages."""
    loader = ExtensionFileLoader("_tinysoundfont", path)
    specification = importlib.util.spec_from_file_location("_tinysoundfont", path, loader=loader)
    if specification is None:
        raise FileNotFoundError(f"{path} is not the player; run: promenade models build")
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


class Bank:
    """The General MIDI bank, loaded once a process; its methods may be called from any thread.

    Args:
        folder: where the built player and bank lie (compose_music's version folder).

    Raises:
        FileNotFoundError: they were not built.
    """

    def __init__(self, folder: Path) -> None:
        for name in (PLAYER, BANK):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder / name} is not built; run: promenade models build")
        module = _player(str(folder / PLAYER))
        self._font = module.SoundFont(str(folder / BANK))
        self._font.set_output(module.OutputMode.StereoInterleaved, SAMPLE_RATE, 0.0)
        self._font.set_max_voices(_POLYPHONY)
        self._lock = threading.Lock()
        self._gains: dict[tuple[int, bool, int, int], float] = {}

    def play(self, voice: Voice, notes: Sequence[Note], start: float) -> Sound:
        """The sound of these notes of one voice: float32 [2, n] from `start` (seconds) to the end of their dying.

        Levelled so that any two instruments are equally loud at equal velocity, then by the voice's gain; placed by
        its pan. Notes that begin before `start` begin at it.
        """
        singly = voice.family == "drums" or voice.program in _SNAPS
        sound = (self._struck if singly else self._render)(voice, notes, start)
        level = 10.0 ** ((voice.gain + self._levelling(voice)) / 20.0)
        # Equal power, over the instrument's own stereo made narrower: nothing of it is lost at either side.
        angle = (max(-1.0, min(1.0, voice.pan)) + 1.0) * math.pi / 4.0
        middle, side = (sound[0] + sound[1]) * 0.5, (sound[0] - sound[1]) * (0.5 * _WIDTH)
        placed = np.empty_like(sound)
        np.multiply(middle + side, np.float32(level * math.sqrt(2.0) * math.cos(angle)), out=placed[0])
        np.multiply(middle - side, np.float32(level * math.sqrt(2.0) * math.sin(angle)), out=placed[1])
        return placed

    def _levelling(self, voice: Voice) -> float:
        """dB that bring this instrument, in its range, to the level of all others."""
        key = (voice.program, voice.family == "drums", voice.low, voice.high)
        if key not in self._gains:
            found = []
            for share in (0.25, 0.5, 0.75):
                pitch = round(voice.low + share * (voice.high - voice.low))
                tone = self._render(voice, [Note(0.0, 0.6, pitch, 80, 0)], 0.0)
                found.append(loudness.energy(tone[:, : int(0.6 * SAMPLE_RATE)]))
            heard = loudness.decibels(float(np.mean(found)))
            # A pitch that the bank has no sound for stays as it is; no level is raised without end.
            self._gains[key] = max(-30.0, min(30.0, _REFERENCE - heard)) if heard > -80.0 else 0.0
        return self._gains[key]

    def _struck(self, voice: Voice, notes: Sequence[Note], start: float) -> Sound:
        """Each note by itself, without the clicks that some of the bank's begin (drums) or end with."""
        strokes = []
        for note in notes:
            at = max(0, round((note.start - start) * SAMPLE_RATE))
            stroke = self._render(voice, [Note(0.0, note.seconds, note.pitch, note.velocity, note.voice)], 0.0)
            if voice.family == "drums":
                stroke[:, :_SOFT] *= np.sin(np.linspace(0.0, np.pi / 2.0, _SOFT, dtype=np.float32)) ** 2
            else:
                stroke = stroke[:, : max(_LET_GO, round(note.seconds * SAMPLE_RATE))]
                stroke[:, -_LET_GO:] *= np.cos(np.linspace(0.0, np.pi / 2.0, _LET_GO, dtype=np.float32)) ** 2
            strokes.append((at, stroke))
        together: Sound = np.zeros((2, max((at + stroke.shape[1] for at, stroke in strokes), default=0)), np.float32)
        for at, stroke in strokes:
            together[:, at : at + stroke.shape[1]] += stroke
        return together

    def _render(self, voice: Voice, notes: Sequence[Note], start: float) -> Sound:
        events: list[tuple[int, int, int, int]] = []
        for note in notes:
            first = max(0, round((note.start - start) * SAMPLE_RATE))
            last = max(first + 1, round((note.start + note.seconds - start) * SAMPLE_RATE))
            events.append((first, 1, note.pitch, note.velocity))
            events.append((last, 0, note.pitch, 0))
        # Releases come before strikes of the same sample, so that a repeated note is struck again.
        events.sort()
        pieces: list[Any] = []
        with self._lock:
            font = self._font
            font.reset()
            font.channel_set_bank(0, 0)
            font.channel_set_preset_number(0, voice.program, voice.family == "drums")
            now = 0
            for when, strike, pitch, velocity in events:
                while now < when:
                    now += self._more(pieces, min(_AT_ONCE, when - now))
                if strike:
                    font.channel_note_on(0, pitch, velocity / 127.0)
                else:
                    font.channel_note_off(0, pitch)
            until = now + _DYING
            while now < until:
                now += self._more(pieces, _AT_ONCE)
                if not np.abs(pieces[-1][-_FADE:]).max() > 1e-6:
                    break
            else:
                # Some sounds of the bank hardly die: they are faded out.
                pieces[-1][-_FADE:] *= np.linspace(1.0, 0.0, _FADE, dtype=np.float32)[:, None] ** 2
            # What still sounds, however softly, is thrown away: nothing of it may reach the next who plays.
            font.reset()
            self._more([], 2 * _FADE)
        joined = np.concatenate(pieces) if pieces else np.zeros((0, 2), dtype=np.float32)
        return np.ascontiguousarray(joined.T)

    def _more(self, pieces: list[Any], samples: int) -> int:
        buffer: Any = np.zeros((samples, 2), dtype=np.float32)
        self._font.render(memoryview(buffer).cast("B"), False)
        pieces.append(buffer)
        return samples


class Desk:
    """Where the voices come together: two running sums, what goes straight through and what goes into the room."""

    def __init__(self) -> None:
        self._straight: Sound = np.zeros((2, 0), dtype=np.float32)
        self._room: Sound = np.zeros((2, 0), dtype=np.float32)

    def add(self, sound: Sound, room: float) -> None:
        """Add a sound that begins now; `room` (0..1) is how much of it goes into the room."""
        if sound.shape[1] > self._straight.shape[1]:
            missing = ((0, 0), (0, sound.shape[1] - self._straight.shape[1]))
            self._straight, self._room = np.pad(self._straight, missing), np.pad(self._room, missing)
        # The farther, the less of it comes straight.
        self._straight[:, : sound.shape[1]] += np.float32(1.0 - 0.35 * room) * sound
        self._room[:, : sound.shape[1]] += np.float32(room) * sound

    def take(self, samples: int) -> tuple[Sound, Sound]:
        """The next samples of both sums: [2, samples] each, straight and room."""
        if self._straight.shape[1] < samples:
            missing = ((0, 0), (0, samples - self._straight.shape[1]))
            self._straight, self._room = np.pad(self._straight, missing), np.pad(self._room, missing)
        taken = self._straight[:, :samples], self._room[:, :samples]
        self._straight, self._room = self._straight[:, samples:].copy(), self._room[:, samples:].copy()
        return taken
