"""What is said about a piece when it is done: counted while it is written, measured while it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_models.music.loudness import Meter
from edge_models.music.score import Ask, Passage, Plan

CHORD = 0.04
"""Seconds within which a voice's notes are one chord."""


def onsets(passage: Passage) -> int:
    """How often a voice starts to play in a section: a chord of one voice is one."""
    found, last = 0, dict[int, float]()
    for note in passage.notes:
        found += note.start - last.get(note.voice, -1.0) > CHORD
        last[note.voice] = note.start
    return found


class Report:
    """Counts what is written, and puts the report together at the end.

    Args:
        ask, plan: of the piece.
    """

    def __init__(self, ask: Ask, plan: Plan) -> None:
        self._ask, self._plan = ask, plan
        self._onsets: list[int] = []
        self._voices: set[int] = set()
        self._notes = 0
        self._keys: list[tuple[str, str]] = []

    def count(self, passage: Passage) -> None:
        """One more section was written."""
        self._notes += len(passage.notes)
        self._voices |= {note.voice for note in passage.notes}
        self._keys.append(passage.key)
        self._onsets.append(onsets(passage))

    def finished(self, meter: Meter, model: str, version: str, made: float, first: float) -> Mapping[str, Any]:
        """JSON values.

        Args:
            meter: has heard the whole piece.
            model, version: who composed.
            made, first: wall seconds of the whole, and to its first chunk.

        Returns:
            {"version", "model", "seed", "seconds", "key", "mode", "tempo" (beats a minute), "meter", "sections":
            [{"part", "start", "seconds", "key", "density" (onsets a second), "tempo", "dynamics" (0..1), "rgb",
            "va"}], "instruments": [{"name", "family", "program"}], "loudness" (LUFS), "true_peak" (dBTP), "notes",
            "voices", "made_seconds", "first_chunk_seconds"}.
        """
        plan = self._plan
        return {
            "version": version,
            "model": model,
            "seed": self._ask.seed,
            "seconds": round(self._ask.seconds, 6),
            "key": plan.tonic,
            "mode": plan.mode,
            "tempo": round(plan.tempo, 2),
            "meter": plan.meter,
            "sections": [
                {
                    "part": section.part,
                    "start": round(section.start, 3),
                    "seconds": round(section.seconds, 3),
                    "key": " ".join(key),
                    "density": round(onsets / max(0.1, section.seconds), 3),
                    "tempo": round(section.tempo, 2),
                    "dynamics": round(section.dynamics, 3),
                    "rgb": [round(float(value), 1) for value in self._ask.rgb[number]],
                    "va": [round(float(value), 3) for value in self._ask.va[number]],
                }
                for number, (section, onsets, key) in enumerate(
                    zip(plan.sections, self._onsets, self._keys, strict=True)
                )
            ],
            "instruments": [
                {"name": voice.name, "family": voice.family, "program": voice.program}
                for number, voice in enumerate(plan.voices)
                if number in self._voices
            ],
            "loudness": round(meter.loudness, 2),
            "true_peak": round(meter.true_peak, 2),
            "notes": self._notes,
            "voices": len(self._voices),
            "made_seconds": round(made, 3),
            "first_chunk_seconds": round(first, 3),
        }
