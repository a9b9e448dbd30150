"""From what is asked to sound, while it is heard: plan, write, play and master a piece block by block.

`compose` is a generator: nothing is done that nobody asked for yet, sections are dropped once they have sounded, and
between any two pieces of work (a few tenths of a second at most) it calls `rest`, where the caller may wait for
others (`turns`) or stop. What is written is left to `plan` and `writing`, how it sounds to `synthesis` and
`mastering`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_models.music.mastering import BLOCK, Master
from edge_models.music.report import Report
from edge_models.music.score import SAMPLE_RATE, Ask, Note, Passage, Plan
from edge_models.music.synthesis import Bank, Desk
from edge_models.music.turns import Rest
from edge_models.triton_model import Invalid

Samples = npt.NDArray[np.float32]
"""[samples, 2] at 48 kHz."""

_EARLY = 1.0
"""Seconds before a section's beginning by which it is written: its first notes may lead into it."""


class Composer(Protocol):
    """Who writes the notes."""

    def plan(self, ask: Ask) -> Plan:
        """The piece before its first note.

        Raises:
            ValueError: something asked for cannot be followed, in plain words.
        """

    def begin(self, plan: Plan) -> Callable[[int], Passage]:
        """Start writing: the answer is called with 0, 1, ... in order, once for each section."""


class PictureComposer:
    """The composer of this project: `plan` and `writing`, with the built network.

    Args:
        folder: where the network lies (compose_music's version folder).
    """

    def __init__(self, folder: Path) -> None:
        from edge_models.music import performance_rnn

        self._step = performance_rnn.onnx_step(folder / "performance_rnn.onnx")

    def plan(self, ask: Ask) -> Plan:
        """See `Composer`."""
        from edge_models.music import plan

        return plan.make_plan(ask)

    def begin(self, plan: Plan) -> Callable[[int], Passage]:
        """See `Composer`."""
        from edge_models.music import writing

        memory = writing.Memory(self._step)
        return lambda number: writing.write_section(plan, number, memory)


def compose(
    ask: Ask, bank: Bank, composer: Composer, version: str, rest: Rest = lambda: None
) -> Iterator[Samples | Mapping[str, Any]]:
    """Blocks of the piece as they are finished, one second each (the last may be shorter), then its report.

    Args:
        ask: the picture and the wishes.
        bank: plays.
        composer: writes.
        version: of the composing model, for the report.
        rest: called between pieces of work; may wait, and may raise `turns.Stopped`.

    Raises:
        Invalid: something asked for cannot be followed, in plain words; before anything is made.
        turns.Stopped: `rest` said so.
    """
    started = time.monotonic()
    try:
        plan = composer.plan(ask)
    except ValueError as error:
        raise Invalid(str(error)) from error
    rest()
    write = composer.begin(plan)
    report, master, desk = Report(ask, plan), Master(plan), Desk()
    waiting: defaultdict[int, defaultdict[int, list[Note]]] = defaultdict(lambda: defaultdict(list))
    written = 0
    first = 0.0
    for block in range(master.blocks):
        while written < len(plan.sections) and (plan.sections[written].start < block + 1 + _EARLY or written == 0):
            passage = write(written)
            report.count(passage)
            for note in passage.notes:
                voice = plan.voices[note.voice]
                waiting[max(block, int(note.start * SAMPLE_RATE) // BLOCK)][note.voice].append(note)
                # Velocity acts as the square of an amplitude in the General MIDI bank.
                weight = (note.velocity / 127.0) ** 4 * 10.0 ** (voice.gain / 10.0)
                master.levels.expect(note.start, note.seconds, weight)
            written += 1
            rest()
        for number, notes in sorted(waiting.pop(block, {}).items()):
            voice = plan.voices[number]
            desk.add(bank.play(voice, notes, block * BLOCK / SAMPLE_RATE), voice.reverb)
            rest()
        master.take(*desk.take(BLOCK))
        rest()
        while (finished := master.give()) is not None:
            first = first or time.monotonic() - started
            yield np.ascontiguousarray(finished.T)
            rest()
    yield report.finished(master.meter, "compose_music", version, time.monotonic() - started, first)
