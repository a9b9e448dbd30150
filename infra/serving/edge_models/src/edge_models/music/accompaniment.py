"""What is played under a tune: bass, held chords, figures, a second voice, drums. Counted in beats of the section.

Where the figure strikes and how it moves is heard in what Performance RNN plays; harmony decides its notes. When in
seconds, and how loud, is left to `writing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_models.music import harmony
from edge_models.music.harmony import Key
from edge_models.music.melody import Heard, Phrase, Slot, chord_at, metric


@dataclass(frozen=True, slots=True)
class Strike:
    """One note to be played: `loud` in velocity against the voice's own; `hold`: not shortened by articulation."""

    beat: float
    beats: float
    pitch: int
    loud: float = 0.0
    hold: bool = False


def bass(
    slots: Sequence[Slot], rate: float, low: int, high: int, middle: int, before: int | None, meter: int
) -> list[Strike]:
    """The lowest voice: roots, with fifths and octaves as more strikes a beat are wanted (`rate`)."""
    strikes: list[Strike] = []
    previous = before if before is not None else middle
    for slot in slots:
        aim = round(0.6 * middle + 0.4 * previous)
        root = harmony.nearest((slot.chord.root,), aim, low, high)
        fifth = harmony.nearest((slot.chord.classes[2],), root + (7 if root + 7 <= high else -5), low, high)
        octave = root + 12 if root + 12 <= high else root
        wanted = max(1, round(rate * slot.beats))
        if wanted == 1:
            strikes.append(Strike(slot.beat, slot.beats, root, 0, True))
        else:
            step = slot.beats / wanted
            # Only steps that lie on the beat or divide it.
            step = min((0.5, 1.0, 1.5, 2.0, 3.0, 4.0), key=lambda one: (abs(one - step), one))
            cycle = (
                (root, fifth, octave, fifth) if step >= 1 else (root, root, fifth, root, octave, root, fifth, root)
            )
            beat, number = 0.0, 0
            while beat < slot.beats - 1e-6:
                length = min(step, slot.beats - beat)
                accent = 4 * metric(slot.beat + beat, meter) - 4
                strikes.append(Strike(slot.beat + beat, length, cycle[number % len(cycle)], accent))
                beat, number = beat + step, number + 1
        previous = root
    return strikes


def held(
    slots: Sequence[Slot],
    count: int,
    low: int,
    high: int,
    before: Sequence[int],
    bass_at: dict[float, int],
    tie: bool,
    suspend: float,
    key: Key,
    random: np.random.Generator,
) -> tuple[list[Strike], tuple[int, ...]]:
    """Chords as long as they last, led by small steps; the last voicing too.

    tie: a pitch that stays is held on (over two chords at most). suspend: 0..1, how readily a voice that steps down
    comes a beat late.
    """
    strikes: list[Strike] = []
    previous: tuple[int, ...] = tuple(before)
    ringing: dict[int, int] = {}
    for slot in slots:
        pitches = harmony.voicing(slot.chord, previous, count, low, high, bass_at.get(slot.beat))
        still: dict[int, int] = {}
        for pitch in pitches:
            if tie and pitch in ringing and strikes[ringing[pitch]].beats + slot.beats <= 8:
                number = ringing[pitch]
                held_on = strikes[number]
                strikes[number] = Strike(held_on.beat, held_on.beats + slot.beats, pitch, held_on.loud, True)
                still[pitch] = number
                continue
            late = next((old for old in previous if 1 <= old - pitch <= 2 and old % 12 in key.scale), None)
            if late is not None and late not in pitches and slot.beats >= 2 and random.random() < suspend:
                if late in ringing:
                    number = ringing[late]
                    strikes[number] = Strike(strikes[number].beat, strikes[number].beats + 1, late, 0, True)
                else:
                    strikes.append(Strike(slot.beat, 1, late, 1, True))
                strikes.append(Strike(slot.beat + 1, slot.beats - 1, pitch, -2, True))
            else:
                strikes.append(Strike(slot.beat, slot.beats, pitch, 0, True))
            still[pitch] = len(strikes) - 1
        ringing = still
        previous = pitches
    return strikes, previous


def struck(strikes: Sequence[Strike], every: float, meter: int, offbeat: bool) -> list[Strike]:
    """Held chords struck again every so many beats; `offbeat` leaves the strong places to the bass."""
    again: list[Strike] = []
    for strike in strikes:
        beat = strike.beat
        while beat < strike.beat + strike.beats - 1e-6:
            length = min(every, strike.beat + strike.beats - beat)
            strong = metric(beat, meter) >= 0.7
            if not (offbeat and strong and strike.beats > every):
                again.append(Strike(beat, length, strike.pitch, 3 * metric(beat, meter) - 2))
            beat += every
    return again


def figure(
    phrases: Sequence[Phrase],
    heard: Sequence[Heard],
    onsets: float,
    cell: float,
    meter: int,
    low: int,
    high: int,
    middle: int,
    random: np.random.Generator,
) -> list[Strike]:
    """A broken-chord figure over all chords: one bar's rhythm and shape, kept for a phrase, then changed a little.

    onsets: wanted over all phrases; cell: its smallest step in beats; heard: where to strike and how to move.
    """
    cells = round(meter / cell)
    weight = np.array([metric(place * cell, meter) for place in range(cells)])
    counts = np.zeros(cells)
    heights: list[list[int]] = [[] for _ in range(cells)]
    for note in heard:
        place = round((note.beat % meter) / cell) % cells
        counts[place] += 1
        heights[place].append(note.pitch)
    if counts.sum():
        weight = weight + 1.2 * counts / counts.max()
    middle_height = float(np.median([note.pitch for note in heard])) if heard else 60.0
    wave = int(random.integers(2, 5))
    shape = [
        float(np.mean(values)) - middle_height if values else 7.0 * np.sin(2 * np.pi * place / max(2, wave * 2))
        for place, values in enumerate(heights)
    ]
    total = sum(phrase.beats for phrase in phrases)
    a_bar = onsets * meter / max(total, 1e-6)
    strikes: list[Strike] = []
    owed = 0.0
    for phrase in phrases:
        jitter = weight + 0.35 * random.random(cells)
        order = sorted(range(cells), key=lambda place: (-jitter[place], place))
        beat = phrase.beat
        while beat < phrase.end - 1e-6:
            room = min(float(meter), phrase.end - beat)
            owed += a_bar * room / meter
            count = min(round(owed), round(room / cell))
            owed -= count
            places = sorted([place for place in order if place * cell < room - 1e-6][: max(0, count)])
            for number, place in enumerate(places):
                at = beat + place * cell
                until = beat + (places[number + 1] * cell if number + 1 < len(places) else room)
                chord = chord_at(phrase.slots, at)
                aim = round(middle + 0.7 * float(np.clip(shape[place], -12, 12)))
                pitch = harmony.nearest(
                    chord.classes, aim, max(low, min(aim, high) - 6), min(high, max(aim, low) + 6)
                )
                if strikes and strikes[-1].pitch == pitch and strikes[-1].beat > at - 2 * cell:
                    # Moves on within the chord rather than hammering one note.
                    up = aim >= middle if number % 2 else aim < middle
                    other = harmony.nearest(chord.classes, pitch + (4 if up else -4), low, high)
                    pitch = other
                strikes.append(Strike(at, min(until - at, 2.0), pitch, 5 * metric(at, meter) - 3))
            beat += room
    return strikes


def counter(
    phrases: Sequence[Phrase],
    tune: Sequence[tuple[float, float, int]],
    rate: float,
    low: int,
    high: int,
    middle: int,
    before: int | None,
    key: Key,
    meter: int,
) -> list[Strike]:
    """A second voice: long notes of the chords that the tune does not have, moving while the tune rests on one.

    tune: (beat, beats, pitch) of the tune; rate: wanted strikes a beat.
    """
    strikes: list[Strike] = []
    previous = before if before is not None else middle
    for phrase in phrases:
        for slot in phrase.slots:
            pieces = max(1, round(rate * slot.beats))
            pieces = max(1, min(pieces, int(slot.beats)))
            length = slot.beats / pieces
            for number in range(pieces):
                at = slot.beat + round(number * length * 2) / 2
                until = slot.beat + round((number + 1) * length * 2) / 2
                sung = {pitch for start, beats, pitch in tune if start <= at + 1e-6 < start + beats}
                moving = [start for start, _, _ in tune if at - 1e-6 <= start < until - 1e-6]
                taken = {pitch % 12 for pitch in sung}
                classes = [value for value in slot.chord.classes if value not in taken] or list(slot.chord.classes)
                aim = round(0.7 * previous + 0.3 * middle)
                pitch = harmony.nearest(classes, aim, low, high)
                if strikes and pitch == strikes[-1].pitch and number:
                    other = harmony.nearest(classes, pitch + (3 if pitch <= middle else -3), low, high)
                    pitch = other
                if not moving and until - at >= 2 and rate >= 0.2:
                    # The tune holds: this voice answers with a step on the way.
                    step = harmony.agree(
                        key, slot.chord, key.pitch(key.degree(pitch) + (1 if pitch <= middle else -1))
                    )
                    back = (until - at) / 2
                    if low <= step <= high:
                        strikes.append(Strike(at, back, pitch))
                        strikes.append(Strike(at + back, back / 2, step, -2))
                        strikes.append(Strike(at + back * 1.5, back / 2, pitch, -2))
                        previous = pitch
                        continue
                strikes.append(Strike(at, until - at, pitch))
                previous = pitch
    return strikes


# General MIDI percussion keys.
KICK, SNARE, STICK, HAT, OPEN_HAT, CRASH, RIDE = 36, 38, 37, 42, 46, 49, 51
TAMBOURINE, SHAKER, TRIANGLE, CLAP, LOW_TOM, MIDDLE_TOM, HIGH_TOM, FLOOR_TOM = 54, 70, 81, 39, 45, 47, 50, 41
CONGA_HIGH, CONGA_LOW = 63, 64


def drums(
    beats: float, phrases: Sequence[Phrase], onsets: float, meter: int, energy: float, bright: float, old: float
) -> list[Strike]:
    """Percussion: what it strikes first is what carries the bar; more is added as more onsets are wanted.

    energy, bright, old: 0..1. Bright ones have hats and claps, dark ones toms; old ones hand drums and tambourine.
    """
    if old > 0.55:
        low, back, quick = CONGA_LOW, TAMBOURINE, CONGA_HIGH if energy > 0.5 else SHAKER
    elif bright < 0.38:
        low, back, quick = (FLOOR_TOM if energy < 0.8 else KICK), LOW_TOM, MIDDLE_TOM
    elif energy > 0.6:
        low, back, quick = KICK, SNARE, HAT
    else:
        low, back, quick = KICK, STICK, SHAKER if bright > 0.5 else RIDE
    bar: list[tuple[float, int, float]] = [(0.0, low, 6)]
    if meter == 4:
        bar += [(2.0, low, 2), (1.0, back, 2), (3.0, back, 3)]
    else:
        bar += [(1.0, back, 0), (2.0, back, 0)]
    halves = [place / 2 for place in range(2 * meter)]
    bar += [(place, quick, -8 if place % 1 else -5) for place in sorted(halves, key=lambda one: (one % 1, one))]
    bar += [(meter - 0.5, low, 0), (1.5, low, -2)]
    bar += [(place / 4, quick, -14) for place in range(1, 4 * meter, 2)]
    wanted = round(onsets * meter / max(beats, 1e-6))
    chosen = bar[: max(1, wanted)]
    strikes: dict[tuple[float, int], Strike] = {}

    def add(beat: float, pitch: int, loud: float) -> None:
        if beat < beats - 1e-6:
            strikes.setdefault((round(beat, 4), pitch), Strike(beat, 0.25, pitch, loud))

    beat = 0.0
    while beat < beats - 1e-6:
        for place, pitch, loud in chosen:
            add(beat + place, pitch, loud)
        beat += meter
    for phrase in phrases:
        if phrase.beats >= 2 * meter and wanted >= 4:
            for number, pitch in enumerate((HIGH_TOM, MIDDLE_TOM, LOW_TOM, FLOOR_TOM)):
                if energy > 0.45:
                    add(phrase.end - 1 + number / 4, pitch, -2 + number)
    if energy > 0.6:
        add(0.0, CRASH, 0)
    return [strikes[name] for name in sorted(strikes)]
