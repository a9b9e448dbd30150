"""Keys, chords, and how one goes to the next. Which mood asks for which is left to `plan`, notes to `writing`.

Pitch classes are 0 (C) .. 11; degrees are 0 (the tonic) .. 6. The walks below are the common progressions of each
mode (functional in major and minor, modal elsewhere: the chords that carry the mode's own note), written by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_models.music import valence

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLATS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}

SCALES: Mapping[str, tuple[int, ...]] = {
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "major": (0, 2, 4, 5, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
"""From the brightest to the darkest: each has one note lower than the one before."""
MAJOR_LIKE = ("lydian", "major", "mixolydian")


@dataclass(frozen=True, slots=True)
class Key:
    """A tonic (pitch class) and a mode."""

    tonic: int
    mode: str

    @property
    def scale(self) -> tuple[int, ...]:
        """Its seven pitch classes, from the tonic up."""
        return tuple((self.tonic + step) % 12 for step in SCALES[self.mode])

    @property
    def name(self) -> tuple[str, str]:
        """("D", "minor")."""
        return NAMES[self.tonic], self.mode

    def pitch(self, degree: int) -> int:
        """The MIDI pitch of a degree counted from the tonic at or above middle C; 7 is an octave higher."""
        octave, step = divmod(degree, 7)
        return 60 + self.tonic + 12 * octave + SCALES[self.mode][step]

    def degree(self, pitch: int) -> int:
        """The degree nearest to a pitch (the lower of two that are as near), so that pitch(degree(p)) is near p."""
        octave, rest = divmod(pitch - 60 - self.tonic, 12)
        steps = (*SCALES[self.mode], 12)
        return 7 * octave + min(range(8), key=lambda step: (abs(steps[step] - rest), step))

    def relative(self) -> Key:
        """The other key with the same notes: minor-like for major-like and the reverse."""
        if self.mode in MAJOR_LIKE:
            # A minor third below: major -> minor, lydian -> dorian, mixolydian -> phrygian.
            mode = {"major": "minor", "lydian": "dorian", "mixolydian": "phrygian"}[self.mode]
            return Key((self.tonic - 3) % 12, mode)
        mode = {"minor": "major", "dorian": "lydian", "phrygian": "mixolydian"}[self.mode]
        return Key((self.tonic + 3) % 12, mode)


def key(tonic: str, mode: str) -> Key:
    """A key by its names; flats are understood.

    Raises:
        ValueError: there is no such tonic or mode.
    """
    name = tonic[:1].upper() + tonic[1:].replace("♯", "#").replace("♭", "b")
    name = FLATS.get(name, name)
    if name not in NAMES:
        raise ValueError(f"{tonic!r} is no tonic; one of {', '.join(NAMES)} or a flat (Bb) is understood")
    mode = {"ionian": "major", "aeolian": "minor"}.get(mode, mode)
    if mode not in SCALES:
        raise ValueError(f"{mode!r} is no mode; one of {', '.join(SCALES)} is understood")
    return Key(NAMES.index(name), mode)


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord: its plain name, pitch classes from the root up, the degree of its root, and what leaves the key."""

    name: str
    classes: tuple[int, ...]
    degree: int
    foreign: tuple[int, ...] = ()

    @property
    def root(self) -> int:
        return self.classes[0]


_QUALITY = {(4, 7): "", (3, 7): "m", (3, 6): "dim", (4, 8): "aug", (5, 7): "sus4", (2, 7): "sus2", (4, 6): "b5"}
_SEVENTH = {11: "maj7", 10: "7", 9: "6"}


def chord(key: Key, degree: int, seventh: bool = False, kind: str = "") -> Chord:
    """The chord on a degree of a key.

    `kind`: "" thirds of the key; "dominant" with a major third and a minor seventh where `seventh`; "sus4".
    """
    degree %= 7
    scale = key.scale
    root = scale[degree]
    classes = [root, scale[(degree + 2) % 7], scale[(degree + 4) % 7]]
    if kind == "sus4":
        classes[1] = (root + 5) % 12
        classes[2] = (root + 7) % 12
    elif kind == "dominant":
        classes[1] = (root + 4) % 12
        classes[2] = (root + 7) % 12
    if seventh:
        classes.append((root + 10) % 12 if kind == "dominant" else scale[(degree + 6) % 7])
    third, fifth = ((value - root) % 12 for value in classes[1:3])
    quality = _QUALITY.get((third, fifth), "")
    if seventh:
        added = _SEVENTH.get((classes[3] - root) % 12, "")
        quality = f"{added}{quality}" if quality.startswith("sus") else f"{quality}{added}"
    foreign = tuple(value for value in classes if value not in scale)
    return Chord(NAMES[root] + quality, tuple(classes), degree, foreign)


# Where a chord may go: degree -> {degree: weight}. Degrees 0..6.
_WALKS: Mapping[str, Mapping[int, Mapping[int, float]]] = {
    "major": {
        0: {3: 3, 5: 3, 4: 2, 1: 1.5, 2: 1},
        1: {4: 4, 3: 0.5, 6: 0.3},
        2: {5: 3, 3: 2},
        3: {4: 2.5, 0: 1.5, 1: 2},
        4: {0: 2, 5: 2.5, 3: 0.7},
        5: {3: 3, 1: 2.5, 4: 1, 2: 0.7},
        6: {0: 2, 2: 1},
    },
    "minor": {
        0: {5: 3, 3: 2.5, 6: 2, 2: 1, 4: 1},
        1: {4: 3, 6: 1},
        2: {5: 2.5, 3: 1.5, 6: 1.5},
        3: {4: 2.5, 0: 1.5, 6: 1.5},
        4: {0: 2.5, 5: 2},
        5: {2: 2, 3: 2, 6: 2, 4: 1},
        6: {2: 2, 0: 1.5, 5: 1.5},
    },
    "dorian": {0: {3: 3, 6: 2, 1: 2}, 1: {0: 1, 3: 2}, 2: {3: 2, 6: 1}, 3: {0: 3, 6: 1.5}, 4: {0: 2, 3: 2},
               5: {3: 1}, 6: {3: 2.5, 0: 2, 2: 1}},
    "phrygian": {0: {1: 3, 6: 1.5, 5: 1.5, 3: 1}, 1: {0: 3, 2: 1.5, 6: 1}, 2: {1: 2, 5: 1}, 3: {0: 2, 1: 2},
                 4: {0: 1, 5: 1}, 5: {1: 2, 3: 1.5, 6: 1}, 6: {0: 2, 5: 1, 1: 1}},
    "lydian": {0: {1: 3, 4: 2, 5: 1.5, 2: 1}, 1: {0: 2.5, 4: 2, 5: 1}, 2: {5: 2, 1: 1.5}, 3: {0: 1},
               4: {0: 2, 1: 1.5, 5: 1.5}, 5: {1: 3, 2: 1, 4: 1}, 6: {2: 1, 0: 1}},
    "mixolydian": {0: {6: 3, 3: 2.5, 4: 1, 1: 1}, 1: {6: 1.5, 3: 1.5}, 2: {3: 1}, 3: {0: 2.5, 6: 2},
                   4: {3: 2, 6: 1}, 5: {6: 1.5, 3: 2}, 6: {3: 3, 0: 2}},
}  # fmt: skip

# What a phrase ends with: a half cadence leaves it open, a full one closes.
_HALF = {"major": (4,), "minor": (4,), "dorian": (3, 6), "phrygian": (1, 6), "lydian": (4, 1), "mixolydian": (6, 3)}
_APPROACH = {"major": (1, 3), "minor": (3, 5), "dorian": (2, 1), "phrygian": (2, 5), "lydian": (5, 2),
             "mixolydian": (3, 5)}  # fmt: skip
_CLOSING = {"major": (4,), "minor": (4,), "dorian": (3, 6), "phrygian": (1,), "lydian": (1, 4), "mixolydian": (6,)}


def dominant(key: Key, seventh: bool = True) -> Chord:
    """The chord that wants back to the tonic: V7, with the leading note also in modes that lack it."""
    return chord(key, 4, seventh, "dominant")


def progression(
    key: Key,
    slots: int,
    cadence: str,
    colour: float,
    moves: float,
    random: np.random.Generator,
    start: int = 0,
    tension: float = 0.0,
    pleasant: float = 0.5,
) -> list[Chord]:
    """The chords of one phrase.

    Args:
        key: of the phrase.
        slots: how many chords.
        cadence: "half" (open), "full" (closes on the tonic), "plagal" (closes from the fourth), "open" (goes on).
        colour: 0..1, how readily sevenths and suspensions are taken.
        moves: 0..1, how readily a chord is approached through its own dominant.
        random: chooses among what is usual.
        start: the degree of the first chord.
        tension: 0..1, how readily minor-like modes take a diminished chord that presses on to the next.
        pleasant: valence, 0..1: major chords are taken the likelier, minor ones the less likely.
    """
    if slots == 1:
        return [chord(key, {"half": _HALF[key.mode][0]}.get(cadence, 0))]
    if slots == 2 and cadence in ("full", "plagal"):
        closing = 3 if cadence == "plagal" else _CLOSING[key.mode][0]
        return [dominant(key) if closing == 4 else chord(key, closing), chord(key, 0)]
    ending: list[int] = []

    def likely(degree: int) -> float:
        scale = key.scale
        third, fifth = ((scale[(degree + step) % 7] - scale[degree]) % 12 for step in (2, 4))
        # The fifth degree of a minor key stands for its dominant, which is a major chord.
        return valence.chord_weight(4 if degree == 4 and key.mode == "minor" else third, fifth, pleasant)

    def pick(options: Sequence[int]) -> int:
        weights = np.array([likely(degree) for degree in options])
        return int(random.choice(list(options), p=weights / weights.sum()))

    if cadence in ("half", "full", "plagal"):
        goal = 3 if cadence == "plagal" else pick(_HALF[key.mode] if cadence == "half" else _CLOSING[key.mode])
        ending = [pick([degree for degree in _APPROACH[key.mode] if degree != goal]), goal]
        ending += [] if cadence == "half" else [0]
    ending = ending[-(slots - 1) :]
    degrees = [start]
    while len(degrees) < slots - len(ending):
        options = _WALKS[key.mode][degrees[-1]]
        weights = np.array([
            weight * likely(degree) * (0.25 if degree in degrees[-3:] else 1.0) * (1e-6 if ending and
            degree == ending[0] and len(degrees) == slots - len(ending) - 1 else 1.0)
            for degree, weight in options.items()
        ])  # fmt: skip
        degrees.append(int(random.choice(list(options), p=weights / weights.sum())))
    degrees += ending
    chords: list[Chord] = []
    for place, degree in enumerate(degrees):
        last = place == len(degrees) - 1
        following = None if last else degrees[place + 1]
        leads = degree == 4 and key.mode in ("major", "minor") and (following in (0, None) or cadence == "half")
        draw = float(random.random())
        if leads:
            chords.append(chord(key, 4, following == 0 or draw < colour, "dominant"))
        elif place > 0 and not last and draw < colour * 0.55:
            chords.append(chord(key, degree, seventh=True))
        elif place > 0 and not last and draw > 1 - colour * 0.2 and degree in (3, 4):
            chords.append(chord(key, degree, kind="sus4"))
        else:
            chords.append(chord(key, degree))
    # A secondary dominant in place of a chord in the middle, where the next chord can be led to.
    if key.mode in ("major", "minor") and slots >= 4:
        for place in range(1, slots - 2):
            target = chords[place + 1]
            plain = target.degree not in (0, 6) and not target.foreign and target.name[-3:] != "dim"
            if plain and chords[place].degree != 0 and random.random() < moves:
                root = (target.root + 7) % 12
                classes = (root, (root + 4) % 12, (root + 7) % 12, (root + 10) % 12)
                foreign = tuple(value for value in classes if value not in key.scale)
                if len(foreign) <= 1 and root in key.scale:
                    chords[place] = Chord(f"{NAMES[root]}7", classes, key.scale.index(root), foreign)
                break
    if key.mode not in MAJOR_LIKE and slots >= 4 and random.random() < tension:
        # The diminished chord a half-step below the next one, where it leaves the key by little.
        for place in range(slots - 3, 0, -1):
            root = (chords[place + 1].root - 1) % 12
            classes = (root, (root + 3) % 12, (root + 6) % 12, (root + 9) % 12)
            foreign = tuple(value for value in classes if value not in key.scale)
            if len(foreign) <= 2 and not chords[place + 1].foreign:
                chords[place] = Chord(f"{NAMES[root]}dim7", classes, chords[place].degree, foreign)
                break
    return chords


def shares(key: Key, chord: Chord) -> tuple[float, ...]:
    """Twelve shares of pitch classes for a player: the chord's notes first, the key's others some, nothing else."""
    values = [0.0] * 12
    for value in key.scale:
        values[value] = 1.0
    # A note of the key a half-step from a foreign one of the chord would grate against it.
    for value in chord.foreign:
        for near in (value - 1, value + 1):
            if near % 12 not in chord.classes:
                values[near % 12] = 0.0
    for value in chord.classes:
        values[value] = 3.0
    return tuple(values)


def agree(key: Key, chord: Chord, pitch: int) -> int:
    """The pitch bent to the chord: a note of the key beside a foreign note of the chord becomes that note."""
    if pitch % 12 in chord.classes:
        return pitch
    for value in chord.foreign:
        for step in (1, -1):
            if (pitch + step) % 12 == value:
                return pitch + step
    return pitch


def nearest(classes: Sequence[int], pitch: int, low: int, high: int, reach: int = 127) -> int:
    """The pitch of one of these classes in low..high that lies nearest (the lower of two).

    `reach`: no further than this from the pitch (itself brought into the range first), where anything is that near.

    Raises:
        ValueError: none of them lies in low..high.
    """
    pitch = min(max(pitch, low), high)
    options = [value for value in range(low, high + 1) if value % 12 in classes]
    if not options:
        raise ValueError(f"no note of {list(classes)} lies in {low}..{high}")
    options = [value for value in options if abs(value - pitch) <= reach] or options
    return min(options, key=lambda value: (abs(value - pitch), value))


def voicing(
    chord: Chord, before: Sequence[int], count: int, low: int, high: int, bass: int | None = None
) -> tuple[int, ...]:
    """`count` pitches of a chord in low..high, near to those before: small steps, third and seventh kept.

    Without anything before, the voicing lies close around the middle of the range.
    """
    options = [pitch for pitch in range(low, high + 1) if pitch % 12 in chord.classes]
    count = min(count, len(options))
    needed = set(chord.classes[1:2]) | set(chord.classes[3:4]) if count >= 2 else set()
    middle = (low + high) / 2
    before = sorted(before)[-count:] if before else []

    def cost(pitches: tuple[int, ...]) -> float:
        found = {pitch % 12 for pitch in pitches}
        value = 4.0 * len(needed - found) + 1.5 * (count - len(found)) + 0.05 * abs(sum(pitches) / count - middle)
        gaps = [upper - lower for lower, upper in itertools.pairwise(pitches)]
        value += sum(1.5 for gap in gaps if gap < 3) + sum(0.6 * (gap - 9) for gap in gaps if gap > 9)
        if len(before) == count:
            steps = [new - old for old, new in zip(before, pitches, strict=True)]
            value += sum(abs(step) + (2 if abs(step) > 5 else 0) for step in steps) * 0.6
            if len(steps) > 1 and all(step > 0 for step in steps):
                value += 0.8
            if len(steps) > 1 and all(step < 0 for step in steps):
                value += 0.8
        else:
            value += 0.25 * abs(sum(pitches) / count - middle) + 0.15 * (pitches[-1] - pitches[0])
        # The note that wants to resolve is not doubled.
        if bass is not None and any(value % 12 in chord.foreign and value % 12 == bass % 12 for value in pitches):
            value += 1.0
        return value

    # Only what lies near, so that few are looked at.
    if len(before) == count and len(options) > 10:
        near = [pitch for pitch in options if min(abs(pitch - old) for old in before) <= 6]
        options = near if len(near) >= count else options
    else:
        options = [pitch for pitch in options if abs(pitch - middle) <= 11] or options
    return min(
        itertools.combinations(options, min(count, len(options))), key=lambda pitches: (cost(pitches), pitches)
    )
