"""From the plan to notes: one section after the other, with what was played before in mind.

Performance RNN plays first, told the section's density and the pitch classes of its chords. From its playing come the
motif, the free part of each phrase, the figure's rhythm and shape, and how loud notes are against each other. Theory
does the rest: phrases with cadences, voices led by small steps, pick-ups and held notes over the joins, an ending.
Which mood asks for what is decided in `plan`; sound is left to `synthesis`.

An onset is a voice starting to play: a chord struck by one voice is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_models.music import accompaniment, harmony, melody, valence
from edge_models.music.accompaniment import Strike
from edge_models.music.harmony import Key
from edge_models.music.melody import Heard, Motif, Phrase, Slot, Tone
from edge_models.music.performance_rnn import Step, Wanted, density_step, play
from edge_models.music.plan import RITARDANDO_BEATS
from edge_models.music.score import Note, Passage, Plan, Section

PLAYERS = 8
"""Performances of the network side by side: half of them for tunes, half for figures."""
FIRST_STEPS, STEPS = 96, 288
"""Events of each performance at most, in the first section (a listener waits) and in the others."""
FADING = (24, 25, 45)
"""General MIDI programs among those that hold chords whose tones die away soon: guitars, plucked strings."""
BETWEEN = 0.8
"""Seconds that may pass between sounding notes before the one before is held on."""


@dataclass
class Memory:
    """What one section leaves to the next. Made anew for each piece.

    Attributes:
        step: the network that plays.
        motif: the idea of the piece, heard in the first section.
        pitches: voice -> where it was last.
        voicing: of the held chords.
        held: voice -> until when (seconds) it still sounds in the next section.
        aim: the pitch that the tune's pick-up leads to.
        begun: the first pitch of each section's tune.
        steps: events of the network so far (of all performances together one is counted).
    """

    step: Step
    motif: Motif | None = None
    pitches: dict[int, int] = field(default_factory=dict)
    voicing: tuple[int, ...] = ()
    held: dict[int, float] = field(default_factory=dict)
    aim: int | None = None
    begun: list[int] = field(default_factory=list)
    steps: int = 0


def section_key(plan: Plan, number: int) -> Key:
    """The key of a section: home at both ends; a middle one may go to the key with the same notes, or next door.

    It goes to the relative key where its valence stands clearly on the other side of the piece's, and the third
    section of a longer piece to the fifth above (movement) or below (calm).
    """
    home = harmony.key(plan.tonic, plan.mode)
    if not 0 < number < len(plan.sections) - 1:
        return home
    section = plan.sections[number]
    if section.seconds < 4:
        return home
    mean = sum(one.valence for one in plan.sections) / len(plan.sections)
    away = section.valence - mean
    if (home.mode in harmony.MAJOR_LIKE and away < -0.08) or (home.mode not in harmony.MAJOR_LIKE and away > 0.08):
        return home.relative()
    if number == 2 and section.seconds >= 12 and home.mode in ("major", "minor"):
        return Key((home.tonic + (7 if section.movement > section.calm else 5)) % 12, home.mode)
    return home


class Clock:
    """Beats of a section to seconds of the piece: even, a little rubato by nostalgia, slowing at the very end."""

    def __init__(self, plan: Plan, number: int) -> None:
        section = plan.sections[number]
        self.start, self.beat, self.beats = section.start, 60 / section.tempo, section.beats
        self.slowing = max(0.0, section.seconds - section.beats * self.beat)
        self.meter = plan.meter
        whole = section.beats % plan.meter == 0
        self.sway = valence.sway(section.valence, section.arousal, section.nostalgia) if whole else 0.0

    def seconds(self, beat: float) -> float:
        """When a beat comes; rises with the beat."""
        turned = beat + self.sway * math.sin(math.pi * beat / self.meter)
        last = min(RITARDANDO_BEATS, self.beats)
        along = max(0.0, (beat - (self.beats - last)) / last)
        return self.start + turned * self.beat + self.slowing * min(1.0, along) ** 2


def _lengths(bars: int, tempo: float) -> list[int]:
    """Bars of each phrase: fours (eights where bars fly by), twos at the end, odd ones kept whole."""
    if bars <= 5:
        return [bars]
    unit = 8 if tempo > 116 and bars >= 16 else 4
    lengths = [unit] * (bars // unit)
    rest = bars % unit
    if rest == 1:
        lengths[-1] += 1
    elif rest:
        lengths.append(rest)
    return lengths


def _phrases(plan: Plan, number: int, key: Key, random: np.random.Generator) -> list[Phrase]:
    section = plan.sections[number]
    meter, last = plan.meter, number == len(plan.sections) - 1
    following = None if last else section_key(plan, number + 1)
    bars = section.beats // meter
    if bars >= 2:
        lengths = [float(length * meter) for length in _lengths(bars, section.tempo)]
        lengths[-1] += section.beats % meter
    else:
        lengths = [float(section.beats)]
    # How long a chord lasts, in seconds: longer where it is calm.
    wanted = 1.3 + 2.0 * section.calm + 1.0 * (1 - section.arousal)
    options = [float(meter), 2.0 * meter, *([meter / 2] if meter % 2 == 0 else [])]
    # A phrase of four bars has four chords at least (where bars fly by, two): fewer would stand still.
    most = max(lengths) / (2 if section.tempo > 150 else 4)
    options = [one for one in options if one <= max(most, min(options)) or one * 60 / section.tempo <= 3]
    unit = min(options, key=lambda one: abs(math.log(one * 60 / section.tempo / wanted)))
    short = bars < 2
    phrases: list[Phrase] = []
    beat = 0.0
    for place, length in enumerate(lengths):
        ends = place == len(lengths) - 1
        if ends:
            cadence = "full" if last else "half"
            if last and section.nostalgia > 0.6 and section.arousal < 0.5:
                cadence = "plagal"
        else:
            cadence = ("half", "full", "open", "plagal")[int(random.choice(4, p=(0.5, 0.25, 0.15, 0.10)))]
        if short:
            half = float(section.beats // 2)
            beats = [length - half, half] if length * 60 / section.tempo >= 2.4 and half else [length]
        else:
            extra = length % meter if ends else 0.0
            beats = [unit] * int((length - extra) // unit)
            if (length - extra) % unit:
                beats.append((length - extra) % unit)
            # The last chord of the piece lasts a bar at least; beats left over are its own too.
            while last and ends and len(beats) > 2 and beats[-1] < meter:
                beats[-2:] = [beats[-2] + beats[-1]]
            beats[-1] += extra
            if last and len(beats) == 1 and length >= 3:
                # Even the shortest end comes from somewhere.
                beats = [length - math.ceil(length / 2), float(math.ceil(length / 2))]
        count = len(beats)
        start = 0 if place == 0 or key.mode not in ("major", "minor") else (0, 5, 3)[int(random.integers(3))]
        if short and not last and number == len(plan.sections) - 2:
            cadence = "half"
        elif short and not last:
            # Too short for a cadence of its own: all sections together make one phrase.
            cadence = "open"
            start = 3 if number == 1 and key.mode != "lydian" else 0
        # The theme is first heard over chords of its key.
        plain = 0.0 if number == 0 and place == 0 else 1.0
        chords = harmony.progression(
            key, count, cadence, valence.colour(section.valence, section.nostalgia),
            plain * valence.moves(section.valence, section.movement), random, start,
            plain * valence.tension(section.valence, section.arousal), section.valence,
        )  # fmt: skip
        if count == 1 and cadence == "open":
            chords = [harmony.chord(key, start)]
        if ends and following is not None and count >= 2 and cadence == "half":
            # What prepares the next section: its dominant (or what serves as one in its mode).
            serves = harmony.dominant(following)
            if following.mode not in ("major", "minor"):
                serves = harmony.progression(following, 2, "half", 0, 0, random)[-1]
            left = tuple(value for value in serves.classes if value not in key.scale)
            chords[-1] = replace(serves, foreign=left)
        slots, at = [], beat
        for chord, share in zip(chords, beats, strict=True):
            slots.append(Slot(at, share, chord))
            at += share
        phrases.append(Phrase(beat, length, cadence, tuple(slots)))
        beat += length
    return phrases


def _listen(
    plan: Plan, number: int, phrases: Sequence[Phrase], key: Key, memory: Memory, random: np.random.Generator
) -> tuple[list[list[Heard]], list[list[Heard]]]:
    """The network plays under the section's control: what it plays as tunes, and as figures; laid on the beat.

    Each player has a stretch of phrases of its own, and hears of their chords as they come.
    """
    section = plan.sections[number]
    rows: list[list[Wanted]] = []
    for player in range(PLAYERS):
        phrase = phrases[(player // 2) % len(phrases)]
        density = density_step(section.density * (0.35 if player % 2 == 0 else 0.6))
        row = [
            Wanted(
                (slot.beat + slot.beats - phrase.beat) * 60 / section.tempo, density, harmony.shares(key, slot.chord)
            )
            for slot in phrase.slots
        ]
        if row[-1].until < 6:
            row[-1] = replace(row[-1], until=6.0)
        rows.append(row)
    steps = FIRST_STEPS if number == 0 else int(np.clip(8 * section.seconds, FIRST_STEPS, STEPS))
    memory.steps += steps
    played = play(memory.step, rows, steps, random, temperature=0.9 + 0.15 * section.movement)
    grid = 0.25 if section.tempo < 84 and section.density > 4 else 0.5
    heard = [melody.on_the_beat(row, section.tempo, grid) for row in played]
    return heard[::2], heard[1::2]


_KINDS = (
    ("plain", "plain", "plain", "plain"),
    ("plain", "inversion", "plain", "inversion"),
    ("plain", "slower", "quicker", "retrograde"),
    ("plain", "plain", "inversion", "plain"),
)


def _kinds(section: Section, number: int) -> list[str]:
    slow = section.calm > section.movement
    names = {"slower": "augmentation" if slow else "diminution", "quicker": "inversion" if slow else "plain"}
    return [names.get(kind, kind) for kind in _KINDS[number % len(_KINDS)]]


def _onsets(strikes: Sequence[Strike]) -> int:
    return len({round(strike.beat, 3) for strike in strikes})


def _window(low: int, high: int, middle: float, half: int) -> tuple[int, int]:
    """A stretch of a range around a middle, at least an octave where the range has one."""
    center = int(np.clip(round(middle), min(low + half, (low + high) // 2), max(high - half, (low + high) // 2)))
    return max(low, center - half), min(high, center + half)


def write_section(plan: Plan, number: int, memory: Memory) -> Passage:
    """The notes of one section; sections are written in order, each once, with the same memory.

    The network runs FIRST_STEPS times (the first section) or STEPS times at most. Notes start inside the section
    (a hair before it for none); the last ones may ring on into the next, whose voices wait for them.
    """
    section = plan.sections[number]
    last = number == len(plan.sections) - 1
    random = np.random.default_rng([plan.seed, 1, number])
    key = section_key(plan, number)
    meter = plan.meter
    phrases = _phrases(plan, number, key, random)
    slots = [slot for phrase in phrases for slot in phrase.slots]
    tunes, figures = _listen(plan, number, phrases, key, memory, random)
    clock = Clock(plan, number)
    playing = set(section.voices)
    leader = section.voices[0]
    by_role: dict[str, list[int]] = {}
    for index in sorted(playing):
        by_role.setdefault(plan.voices[index].role, []).append(index)
    final = slots[-1].beat if last else float(section.beats)
    parts: dict[int, list[Strike]] = {}

    # How many onsets a beat each voice gets.
    rate = section.density * 60 / section.tempo
    drummed = any(plan.voices[index].role == "rhythm" for index in playing)
    tune_rate = float(np.clip((0.32 if drummed else 0.42) * rate, 0.3, 2.0))
    bass_rate = float(np.clip(0.14 * rate, 0.1, 2.0))
    drum_rate = float(np.clip(0.34 * rate, 0.5, 4.0))
    shortest = 0.5 if section.tempo * tune_rate > 90 or section.tempo > 84 else 0.25

    # The tune.
    voice = plan.voices[leader]
    middle = (voice.low + voice.high) / 2 + 0.7 * section.register + (0, -1, 2, 1)[number % 4]
    low, high = _window(voice.low, voice.high, middle, 11)
    center = (low + high) // 2
    if memory.motif is None:
        # Two bars where one would hold too little to be an idea.
        beats = meter * (2.0 if tune_rate * meter < 4.5 and section.beats >= 4 * meter else 1.0)
        beats = min(beats, float(section.beats))
        count = int(np.clip(round(tune_rate * beats), 3, 9))
        pleasant = sum(one.valence for one in plan.sections) / len(plan.sections)
        memory.motif = melody.find_motif(tunes, key, meter, beats, count, random, pleasant)
    before = memory.aim if memory.aim is not None else memory.pitches.get(leader)
    tones: list[Tone] = []
    kinds = _kinds(section, number)
    comes_from = before
    for place, phrase in enumerate(phrases):
        count = max(2 if phrase.beats >= 2 else 1, round(tune_rate * phrase.beats))
        if count >= 5 and not (last and place == len(phrases) - 1):
            # Two of them will lead on to what comes.
            count -= 2
        tones += melody.compose_phrase(
            phrase, memory.motif, kinds[place % 2 :] + kinds[: place % 2], tunes[place % len(tunes)], key, meter,
            count, shortest, center, comes_from, random, last and place == len(phrases) - 1, low, high,
            # Every section begins with the theme; in the last one it comes back with every phrase.
            place == 0 or last, memory.aim if place == 0 else None, valence.tilt(section.valence),
        )  # fmt: skip
        comes_from = key.pitch(tones[-1].degree)
    found = melody.pitches(tones, slots, key, meter, low, high, before, (voice.low, voice.high))
    tune = [
        Strike(
            tone.beat, tone.beats, pitch, 0.5 * tone.loud + 4 * melody.metric(tone.beat, meter) - 2, tone.beats >= 2
        )
        for tone, pitch in zip(tones, found, strict=True)
    ]
    tune = _pick_ups(tune, phrases, slots, key, low, high, meter, shortest)
    if number == 0:
        # What was heard is the theme from now on, with what its first chords made of it.
        memory.motif = melody.as_heard(memory.motif, tones, found, key)
    memory.begun.append(found[0])
    memory.aim = None
    if not last and tune[-1].beats >= 1.5:
        tune = _lead_on(plan, number, tune, key, low, high, memory)
    parts[leader] = tune

    # Below it.
    (bass_voice,) = by_role["bass"]
    voice = plan.voices[bass_voice]
    middle = (voice.low + min(voice.high, 60)) / 2 - 2 + 0.3 * section.register
    parts[bass_voice] = accompaniment.bass(
        slots, bass_rate, voice.low, voice.high, round(middle), memory.pitches.get(bass_voice), meter
    )
    bass_at = {strike.beat: strike.pitch for strike in parts[bass_voice]}
    chords_voice, *figure_voices = by_role["harmony"]
    voice = plan.voices[chords_voice]
    fades = voice.program in FADING
    low, high = _window(voice.low, voice.high, 60 + 0.6 * section.register, 9)
    chord_strikes, memory.voicing = accompaniment.held(
        slots, 3, low, high, memory.voicing, bass_at, section.calm > 0.35 and section.arousal < 0.6 and not fades,
        valence.suspense(section.valence, section.nostalgia), key, random,
    )  # fmt: skip
    parts[chords_voice] = chord_strikes
    dances = valence.dances(section.valence, section.arousal) and section.beats >= meter
    if dances or fades:
        # A dance's chords come after the beat; what dies away is struck again.
        parts[chords_voice] = accompaniment.struck(chord_strikes, 1.0 if dances else 2.0, meter, dances)
    for index in sorted(playing - set(parts)):
        voice = plan.voices[index]
        if voice.role in ("counter", "melody"):
            middle = (voice.low + voice.high) / 2 + 0.5 * section.register
            if voice.role == "counter" and middle > center - 3 and voice.low < center - 14:
                middle = center - 7.0
            low, high = _window(voice.low, voice.high, middle, 9)
            parts[index] = accompaniment.counter(
                phrases, [(strike.beat, strike.beats, strike.pitch) for strike in tune], 0.10 * rate, low, high,
                (low + high) // 2, memory.pitches.get(index), key, meter,
            )  # fmt: skip
    # The rest of the wanted onsets goes to drums and figure.
    wanted = section.density * section.seconds
    rest = wanted - sum(_onsets(strikes) for strikes in parts.values())
    rhythm = by_role.get("rhythm", [])
    for index in rhythm:
        share = min(drum_rate * section.beats, max(rest * (0.6 if figure_voices else 0.85), section.beats / meter))
        parts[index] = accompaniment.drums(
            float(section.beats), phrases, share, meter, section.arousal, section.valence, section.nostalgia
        )
        rest -= _onsets(parts[index])
    cell = 0.25 if section.tempo < 100 else 0.5
    if figure_voices:
        voice = plan.voices[figure_voices[0]]
        low, high = _window(voice.low, voice.high, 62 + 0.8 * section.register, 13)
        heard = [note for row in figures for note in row]
        most = section.beats / cell * 0.9
        strikes = accompaniment.figure(
            phrases, heard, float(np.clip(rest, section.beats / meter / 2, most)), cell, meter, low, high,
            (low + high) // 2, random,
        )  # fmt: skip
        parts[figure_voices[0]] = strikes
        rest -= _onsets(strikes)
    if rest > 0.12 * wanted and not dances:
        # Too still: the held chords are struck.
        now = _onsets(chord_strikes)
        every = next(
            (step for step in (4.0, 3.0, 2.0, 1.5, 1.0, 0.5) if section.beats / step >= now + 0.7 * rest), 0.5
        )
        every = max(every, 0.5)
        parts[chords_voice] = accompaniment.struck(chord_strikes, every, meter, section.arousal > 0.55)
    if last:
        parts = {index: _close(strikes, final, section.beats, plan, index) for index, strikes in parts.items()}
    notes = _perform(plan, number, parts, clock, key, final if last else None, memory, random, leader)
    for index, strikes in parts.items():
        if strikes:
            memory.pitches[index] = strikes[-1].pitch
    chords = tuple((clock.seconds(slot.beat), slot.chord.name) for slot in slots)
    stated = sum(tone.theme == place + 1 for place, tone in enumerate(tones))
    return Passage(number, key.name, chords, tuple(notes), stated)


def _pick_ups(
    tune: list[Strike], phrases: Sequence[Phrase], slots: Sequence[Slot], key: Key, low: int, high: int, meter: int,
    shortest: float,
) -> list[Strike]:  # fmt: skip
    """Before a new phrase, the long note that ended the last one gives way to a step or two that lead on."""
    starts = {phrase.beat for phrase in phrases[1:]}
    result: list[Strike] = []
    for number, strike in enumerate(tune):
        following = tune[number + 1] if number + 1 < len(tune) else None
        if following is None or following.beat not in starts or strike.beats < 2:
            result.append(strike)
            continue
        result.append(replace(strike, beats=strike.beats - 1, hold=True))
        degree = key.degree(following.pitch)
        below = strike.pitch <= following.pitch
        steps = (-2, -1) if shortest <= 0.5 else (-1,)
        for place, step in enumerate(steps):
            beat = following.beat - 1 + place / len(steps)
            pitch = harmony.agree(key, melody.chord_at(slots, beat), key.pitch(degree + (step if below else -step)))
            if low <= pitch <= high:
                result.append(Strike(beat, 1 / len(steps), pitch, -3))
    return result


def _lead_on(
    plan: Plan, number: int, tune: list[Strike], key: Key, low: int, high: int, memory: Memory
) -> list[Strike]:
    """The last beat of a section leads to the first note of the next one, which is decided here."""
    coming = section_key(plan, number + 1)
    leader = plan.sections[number + 1].voices[0]
    voice = plan.voices[leader]
    end = tune[-1]
    tonic = harmony.chord(coming, 0)
    aim = harmony.nearest(tonic.classes, end.pitch, voice.low, voice.high)
    if number + 1 < len(plan.sections) - 1:
        # The theme begins on another note of the chord than before; only the last section comes back to an old one.
        others = tuple(value for value in tonic.classes if value not in {pitch % 12 for pitch in memory.begun})
        if others:
            aim = harmony.nearest(others, end.pitch, voice.low, voice.high)
    memory.aim = aim
    degree = key.degree(aim)
    below = end.pitch <= aim
    result = [*tune[:-1], replace(end, beats=end.beats - 1)]
    for place, step in enumerate((-2, -1)):
        pitch = key.pitch(degree + (step if below else -step))
        # Half a step below a tonic leads better than a whole one.
        if step == -1 and below and aim % 12 == coming.tonic and aim - pitch == 2:
            pitch = aim - 1
        if low <= pitch <= high:
            result.append(Strike(end.beat + end.beats - 1 + place / 2, 0.5, pitch, -2))
    return result


def _close(strikes: Sequence[Strike], final: float, beats: int, plan: Plan, index: int) -> list[Strike]:
    """The end of the piece: nothing is struck after the last chord, and what sounds in it lasts."""
    kept = [
        replace(strike, beats=min(strike.beats, final - strike.beat))
        for strike in strikes
        if strike.beat < final - 1e-6
    ]
    ending = [strike for strike in strikes if strike.beat >= final - 1e-6]
    if ending:
        first = min(strike.beat for strike in ending)
        drum = plan.voices[index].family == "drums"
        for pitch in sorted({strike.pitch for strike in ending if strike.beat == first}):
            kept.append(Strike(final, 1.0 if drum else beats - final, pitch, 4 if drum else 0, True))
    return kept


def _perform(
    plan: Plan,
    number: int,
    parts: dict[int, list[Strike]],
    clock: Clock,
    key: Key,
    final: float | None,
    memory: Memory,
    random: np.random.Generator,
    leader: int,
) -> list[Note]:
    """Beats to seconds, loudness, articulation; nothing overlaps itself, nothing falls silent, nothing sticks."""
    section = plan.sections[number]
    end = clock.seconds(section.beats)
    over = plan.seconds - float(np.clip(0.04 * plan.seconds, 0.25, 1.2))
    smooth = 0.62 + 0.55 * (section.calm - section.movement) + 0.5 * (0.5 - section.arousal)
    smooth = float(np.clip(smooth + valence.smoothness(section.valence), 0, 1))
    uneven = valence.unevenness(section.valence)
    base = 34 + 70 * section.dynamics
    by_role = {"melody": 7.0, "counter": -3.0, "harmony": -8.0, "bass": 1.0, "rhythm": -3.0}
    held_before, memory.held = memory.held, {}
    notes: list[Note] = []
    for index in sorted(parts):
        voice = plan.voices[index]
        drum = voice.family == "drums"
        own = by_role[voice.role] if index != leader else by_role["melody"]
        wait = held_before.get(index, 0.0)
        made: list[Note] = []
        for strike in sorted(parts[index], key=lambda one: (one.beat, one.pitch)):
            start = clock.seconds(strike.beat)
            until = clock.seconds(min(strike.beat + strike.beats, float(section.beats)))
            start += uneven * float(random.standard_normal()) if strike.beat > 0 else 0.0
            start = min(max(start, section.start, wait), end - 0.06)
            if until - start < 0.05:
                continue
            seconds = until - start
            if final is not None and strike.beat >= final - 1e-6 and not drum:
                seconds = over - start
            elif drum:
                seconds = min(seconds, 0.2)
            elif not strike.hold:
                seconds *= 0.45 + 0.55 * smooth
            along = strike.beat / max(1, section.beats)
            shape = 5 * math.sin(math.pi * along) - (3 if final is not None and along > 0.8 else 0)
            loud = base + own + strike.loud + shape + 2 * float(random.standard_normal())
            made.append(
                Note(start, max(0.05, min(seconds, over - start)), strike.pitch, int(np.clip(round(loud), 18, 120)),
                     index, not drum and strike.pitch % 12 not in key.scale)
            )  # fmt: skip
        notes += _no_overlaps(made)
    if final is None:
        _hold_over(plan, number, notes, memory, end, leader)
    notes = _no_gaps(plan, notes, section.start, min(end, over))
    return sorted(notes, key=lambda note: (note.start, note.voice, note.pitch))


def _no_overlaps(notes: Sequence[Note]) -> list[Note]:
    """One voice never strikes a pitch that it still holds: the earlier one ends before."""
    result: list[Note] = []
    for _, group in itertools.groupby(
        sorted(notes, key=lambda note: (note.pitch, note.start)), key=lambda note: note.pitch
    ):
        same = list(group)
        for place, note in enumerate(same):
            if place + 1 < len(same):
                room = same[place + 1].start - note.start - 0.01
                if room < 0.04:
                    continue
                note = replace(note, seconds=min(note.seconds, room))
            result.append(note)
    return result


def _hold_over(plan: Plan, number: int, notes: list[Note], memory: Memory, end: float, leader: int) -> None:
    """One voice holds a note that both chords have into the next section, for a beat."""
    following = plan.sections[number + 1]
    tonic = harmony.chord(section_key(plan, number + 1), 0)
    rings = min(60 / following.tempo, 0.4 * following.seconds, 1.2)
    for role in ("counter", "harmony"):
        for place, note in enumerate(notes):
            voice = plan.voices[note.voice]
            sounding = note.start + note.seconds > end - 0.3
            if voice.role == role and note.voice != leader and sounding and note.pitch % 12 in tonic.classes:
                if note.voice == following.voices[0]:
                    continue
                notes[place] = replace(note, seconds=end + rings - note.start)
                memory.held[note.voice] = end + rings + 0.02
                return


def _no_gaps(plan: Plan, notes: list[Note], start: float, end: float) -> list[Note]:
    """Where nothing would sound for long, the notes that ended last are held until the next begin."""
    order = sorted(range(len(notes)), key=lambda place: notes[place].start)
    pitched = [place for place in order if plan.voices[notes[place].voice].family != "drums"]
    result = list(notes)
    sounding = start
    for number, place in enumerate([*pitched, -1]):
        begins = result[place].start if place >= 0 else end
        if begins - sounding > BETWEEN / 2 and number:
            earlier = max(pitched[:number], key=lambda one: result[one].start + result[one].seconds)
            note = result[earlier]
            later = [
                other.start for other in result
                if other.voice == note.voice and other.pitch == note.pitch and other.start > note.start
            ]  # fmt: skip
            until = min([begins, *(value - 0.01 for value in later)])
            result[earlier] = replace(note, seconds=max(note.seconds, until - note.start))
        if place >= 0:
            sounding = max(sounding, result[place].start + result[place].seconds)
    return result
