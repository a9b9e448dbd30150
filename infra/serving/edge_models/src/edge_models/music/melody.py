"""Tunes: a motif heard in what Performance RNN plays, its variations, and phrases that begin, go on and end.

Everything is counted in beats of the section and in degrees of its key (`harmony.Key.degree`); which instrument plays
it, and when in seconds, is left to `writing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_models.music import harmony, valence
from edge_models.music.harmony import Chord, Key
from edge_models.music.performance_rnn import Played


@dataclass(frozen=True, slots=True)
class Slot:
    """A chord from a beat for some beats."""

    beat: float
    beats: float
    chord: Chord


@dataclass(frozen=True, slots=True)
class Phrase:
    """A sentence of the music: its chords and how it ends (see `harmony.progression`)."""

    beat: float
    beats: float
    cadence: str
    slots: tuple[Slot, ...]

    @property
    def end(self) -> float:
        return self.beat + self.beats


@dataclass(frozen=True, slots=True)
class Tone:
    """A note of a tune: `loud` is how much louder (or softer) it was played than the rest, in velocity.

    `theme` counts the tones of a statement of the idea that is to be recognised, from 1 on: they are neither left out
    nor divided, and go up and down as the idea does. 0 is any other tone.
    """

    beat: float
    beats: float
    degree: int
    loud: float = 0.0
    theme: int = 0


@dataclass(frozen=True, slots=True)
class Motif:
    """The idea of the piece: tones from beat 0, degrees counted from its first tone, and how long it is in beats."""

    tones: tuple[Tone, ...]
    beats: float


def chord_at(slots: Sequence[Slot], beat: float) -> Chord:
    """The chord that sounds at a beat."""
    found = slots[0]
    for slot in slots:
        if slot.beat <= beat + 1e-6:
            found = slot
    return found.chord


@dataclass(frozen=True, slots=True)
class Heard:
    """A played note laid on the beat: `beat` on the grid, `late` how far off it was (beats)."""

    beat: float
    late: float
    pitch: int
    velocity: int


def on_the_beat(played: Sequence[Played], tempo: float, grid: float) -> list[Heard]:
    """Played notes moved to the nearest place of a grid (in beats)."""
    heard = []
    for note in played:
        beat = note.start * tempo / 60
        place = round(beat / grid) * grid
        heard.append(Heard(place, beat - place, note.pitch, note.velocity))
    return heard


def skyline(heard: Sequence[Heard], lowest: int = 52) -> list[Heard]:
    """The highest note at each place: what one hears as the tune."""
    best: dict[float, Heard] = {}
    for note in heard:
        if note.pitch >= lowest and (note.beat not in best or note.pitch > best[note.beat].pitch):
            best[note.beat] = note
    return [best[beat] for beat in sorted(best)]


def metric(beat: float, meter: int) -> float:
    """How strong a place in the bar is: 1 on the first beat, .7 in the middle, .5 on beats, less between."""
    place = beat % meter
    if abs(place) < 1e-6:
        return 1.0
    if meter == 4 and abs(place - 2) < 1e-6:
        return 0.7
    if abs(place - round(place)) < 1e-6:
        return 0.5
    return 0.25 if abs(place * 2 - round(place * 2)) < 1e-6 else 0.1


def thin(tones: Sequence[Tone], count: int, meter: int) -> list[Tone]:
    """The `count` most telling tones (strong places, long, loud), the theme's first; they fill the others' time."""
    if len(tones) <= count:
        return list(tones)
    ranked = sorted(
        range(1, len(tones)),
        key=lambda place: (
            not tones[place].theme,
            -(0.6 * metric(tones[place].beat, meter) + 0.25 * tones[place].beats + 0.02 * tones[place].loud),
            place,
        ),
    )
    kept = sorted({0, *ranked[: max(0, count - 1, sum(tone.theme > 0 for tone in tones[1:]))]})
    end = tones[-1].beat + tones[-1].beats
    borders = [*(tones[place].beat for place in kept[1:]), end]
    return [
        replace(tones[place], beats=border - tones[place].beat) for place, border in zip(kept, borders, strict=True)
    ]


def split(tones: Sequence[Tone], count: int, shortest: float) -> list[Tone]:
    """More tones: the longest are divided, stepping towards the next, until there are `count` (or none is long).

    The theme's tones stay whole, but for the last of each statement.
    """
    result = list(tones)
    while len(result) < count:
        free = [
            number for number, tone in enumerate(result)
            if not tone.theme or number + 1 == len(result) or result[number + 1].theme <= tone.theme
        ]  # fmt: skip
        if not free:
            break
        place = max(free, key=lambda number: (result[number].beats, -number))
        tone = result[place]
        half = tone.beats / 2
        if half < shortest - 1e-6:
            break
        half = max(shortest, round(half / shortest) * shortest)
        if half >= tone.beats - 1e-6:
            break
        following = result[place + 1].degree if place + 1 < len(result) else tone.degree - 1
        step = int(np.sign(following - tone.degree)) or 1
        result[place : place + 1] = [
            replace(tone, beats=half),
            Tone(tone.beat + half, tone.beats - half, tone.degree + step, tone.loud - 4),
        ]
    return result


def from_heard(heard: Sequence[Heard], start: float, beats: float, key: Key) -> list[Tone]:
    """The tune of a stretch of playing: from beat 0, each tone lasting to the next, wild leaps folded."""
    inside = [note for note in skyline(heard) if start - 1e-6 <= note.beat < start + beats - 1e-6]
    if not inside:
        return []
    middle = float(np.mean([note.velocity for note in inside]))
    pitches = [inside[0].pitch]
    for note in inside[1:]:
        pitch = note.pitch
        while pitch - pitches[-1] > 7:
            pitch -= 12
        while pitches[-1] - pitch > 7:
            pitch += 12
        pitches.append(pitch)
    borders = [*(note.beat for note in inside[1:]), start + beats]
    return [
        Tone(
            note.beat - start, border - note.beat, key.degree(pitch), float(np.clip(note.velocity - middle, -14, 14))
        )
        for note, pitch, border in zip(inside, pitches, borders, strict=True)
    ]


WIDEST = 8
"""Degrees between the lowest and the highest tone of an idea: an octave and a step."""


def find_motif(
    rows: Sequence[Sequence[Heard]],
    key: Key,
    meter: int,
    beats: float,
    count: int,
    random: np.random.Generator,
    pleasant: float = 0.5,
) -> Motif:
    """The stretch of playing that makes the best idea: singable steps, a shape, more than one length of tone.

    Where nothing was played that serves, a plain broken chord is taken. `pleasant` is valence (0..1): it asks for
    rising ideas, and for wide intervals (see `valence`).
    """
    best: tuple[float, list[Tone]] | None = None
    for heard in rows:
        if not heard:
            continue
        last = max(note.beat for note in heard)
        start = 0.0
        while start + beats <= last + beats / 2:
            tones = thin(from_heard(heard, start, beats, key), count, meter)
            start += meter
            if len(tones) < min(3, count):
                continue
            degrees = [tone.degree for tone in tones]
            steps = [abs(b - a) for a, b in itertools.pairwise(degrees)]
            value = 1.2 * min(4, len(set(degrees))) - 0.5 * float(np.mean(steps)) - 1.5 * steps.count(0) / len(steps)
            value -= 0.6 * max(0, max(degrees) - min(degrees) - 7)
            value += 0.8 * min(3, len({round(tone.beats, 2) for tone in tones})) - 1.0 * tones[0].beat
            value += 0.5 if 1 in steps else 0.0
            value -= 0.3 * abs(len(tones) - count)
            # Where it leads, for an octave as much as for one more length of tone.
            value += 0.8 * float(np.clip((degrees[-1] - degrees[0]) / 7, -1, 1)) * (2 * pleasant - 1)
            if best is None or value > best[0] + 1e-9:
                best = (value, tones)
    if best is None:
        shape = (0, 2, 4, 2) if random.random() < 0.5 else (0, 4, 3, 2)
        length = beats / 4
        tones = [Tone(place * length, length, degree) for place, degree in enumerate(shape)]
    else:
        tones = best[1]
        # The idea begins on its first beat.
        tones[0] = replace(tones[0], beat=0.0, beats=tones[0].beats + tones[0].beat)
    first = tones[0].degree
    degrees = [round((tone.degree - first) * valence.spread(pleasant)) for tone in tones]
    # Tones that differed still do, and nothing lies further apart than a voice sings at ease.
    degrees = [degree or int(np.sign(tone.degree - first)) for tone, degree in zip(tones, degrees, strict=True)]
    while max(degrees) - min(degrees) > WIDEST:
        degrees = [degree - int(np.sign(degree)) for degree in degrees]
    return Motif(tuple(replace(tone, degree=degree) for tone, degree in zip(tones, degrees, strict=True)), beats)


def as_heard(motif: Motif, tones: Sequence[Tone], found: Sequence[int], key: Key) -> Motif:
    """The idea with the intervals that its first statement got: `found` are the pitches of `tones`."""
    bent: list[Tone] = []
    for place, (tone, pitch) in enumerate(zip(tones, found, strict=True)):
        if tone.theme != place + 1:
            break
        degree = key.degree(pitch) - key.degree(found[0])
        if bent:
            # A note outside the key has no degree of its own; it goes the way that was heard.
            way = int(np.sign(pitch - found[place - 1]))
            degree = degree if int(np.sign(degree - bent[-1].degree)) == way else bent[-1].degree + way
        bent.append(replace(motif.tones[place], degree=degree))
    return replace(motif, tones=(*bent, *motif.tones[len(bent) :]))


def varied(motif: Motif, kind: str) -> list[Tone]:
    """The motif plain, turned upside down, backwards, twice as slow (its first half) or twice as quick (twice)."""
    tones = list(motif.tones)
    if kind == "inversion":
        return [replace(tone, degree=-tone.degree) for tone in tones]
    if kind == "retrograde":
        last = tones[-1].degree
        return [
            Tone(motif.beats - tone.beat - tone.beats, tone.beats, tone.degree - last, tone.loud)
            for tone in reversed(tones)
        ]
    if kind == "augmentation":
        slow = [replace(tone, beat=2 * tone.beat, beats=2 * tone.beats) for tone in tones]
        kept = [tone for tone in slow if tone.beat < motif.beats - 1e-6]
        return [replace(tone, beats=min(tone.beats, motif.beats - tone.beat)) for tone in kept]
    if kind == "diminution":
        quick = [replace(tone, beat=tone.beat / 2, beats=tone.beats / 2) for tone in tones]
        again = [replace(tone, beat=tone.beat + motif.beats / 2, degree=tone.degree + 1) for tone in quick]
        return quick + again
    return tones


def _placed(motif: Motif, chord: Chord, key: Key, aim: int, low: int, high: int) -> int:
    """The degree from which the idea lies in low..high as it is: a note of the chord, near to the pitch aimed at."""
    degrees = [tone.degree for tone in motif.tones]
    fits = [
        degree
        for degree in range(key.degree(low) - min(degrees), key.degree(high) - max(degrees) + 1)
        if low <= key.pitch(degree + min(degrees)) and key.pitch(degree + max(degrees)) <= high
    ]
    if not fits:
        return key.degree(aim)
    # Bending may need a step more on either side.
    easy = [
        degree for degree in fits
        if low + 2 <= key.pitch(degree + min(degrees)) and key.pitch(degree + max(degrees)) <= high - 2
    ]  # fmt: skip
    return min(easy or fits, key=lambda degree: (6 * (key.pitch(degree) % 12 not in chord.classes)
                                         + abs(key.pitch(degree) - aim), degree))  # fmt: skip


def compose_phrase(
    phrase: Phrase,
    motif: Motif,
    kinds: Sequence[str],
    fresh: Sequence[Heard],
    key: Key,
    meter: int,
    count: int,
    shortest: float,
    middle: int,
    before: int | None,
    random: np.random.Generator,
    last: bool,
    low: int,
    high: int,
    stated: bool,
    lead: int | None = None,
    tilt: float = 0.0,
) -> list[Tone]:
    """The tune of one phrase: the idea, the idea again elsewhere, something new, an ending.

    Args:
        phrase: with its chords.
        motif, kinds: the idea, and how each appearance of it is varied (in turn).
        fresh: what was played under this phrase, beats from its start; its tune becomes the third part.
        key, meter: of the section.
        count: how many tones the phrase should have.
        shortest: the shortest tone, in beats.
        middle: the pitch around which the tune lies.
        before: the pitch that the tune comes from, or None.
        random: chooses among what fits.
        last: the piece ends with this phrase: it brings nothing new.
        low, high: the pitches that the tune has.
        stated: the phrase begins with the idea as it is, to be recognised.
        lead: the pitch that what came before leads to: the stated idea begins there, if it fits in.
        tilt: semitones by which the line rises over the phrase besides (or falls).

    Returns:
        Tones from the phrase's first beat (beats counted in the section), not yet bent to the chords.
    """
    parts = max(1, round(phrase.beats / motif.beats))
    closing = min(phrase.beats, phrase.slots[-1].beats, float(meter)) if last else min(phrase.beats / 2, 2.0)
    if phrase.beats <= 2:
        closing = phrase.beats / 2 if not last else phrase.slots[-1].beats
    only = stated and not last and phrase.beats <= motif.beats and motif.tones[-1].beat <= phrase.beats - 0.5 + 1e-6
    if only:
        # Nothing but the idea fits in: its last tone is the ending.
        closing = min(closing, phrase.beats - motif.tones[-1].beat)
    tones: list[Tone] = []
    target = before if before is not None else middle
    height = int(random.integers(2, 6))
    for number in range(parts):
        begin = phrase.beat + number * motif.beats
        room = min(motif.beats, phrase.end - begin)
        if room <= 1e-6:
            break
        # The line rises to somewhat past its middle and comes back.
        along = (number + 0.5) / parts
        arch = height * (1 - ((along - 0.6) / 0.6) ** 2)
        aim = round(0.45 * target + 0.55 * (middle + arch + tilt * (along - 0.5)))
        chord = chord_at(phrase.slots, begin)
        anchor = key.degree(harmony.nearest(chord.classes, aim, aim - 9, aim + 9))
        kind = kinds[number % len(kinds)]
        theme = stated and number == 0
        if theme:
            anchor = _placed(motif, chord, key, aim if lead is None else lead, low, high)
            kind = "plain"
        material: list[Tone] = []
        if number == max(1, parts - 2) and parts >= 2 and not last:
            material = from_heard(fresh, number * motif.beats, motif.beats, key)
            if len(material) >= 2:
                first = material[0]
                material = [replace(tone, degree=tone.degree - first.degree) for tone in material]
                material[0] = replace(material[0], beat=0.0, beats=first.beats + first.beat)
                material = thin(material, max(2, len(motif.tones) + 1), meter)
        if len(material) < 2:
            material = varied(motif, kind)
        for place, tone in enumerate(material):
            if tone.beat < room - 1e-6:
                tones.append(
                    replace(
                        tone,
                        beat=begin + tone.beat,
                        beats=min(tone.beats, room - tone.beat),
                        degree=anchor + tone.degree,
                        theme=place + 1 if theme else 0,
                    )
                )
        target = key.pitch(tones[-1].degree)
    # The ending: one long tone.
    end = phrase.end - closing
    tones = [
        replace(tone, beats=min(tone.beats, end - tone.beat)) for tone in tones if tone.beat < end - shortest / 2
    ]
    inner = thin(tones, max(1, count - 1), meter)
    inner = split(inner, max(1, count - 1), shortest) if tones and not only else inner
    chord = chord_at(phrase.slots, end)
    near = key.pitch(inner[-1].degree) if inner else target
    classes: Sequence[int] = chord.classes
    if phrase.cadence in ("full", "plagal") and key.tonic in classes:
        classes = (key.tonic,)
    if only and len(inner) == len(motif.tones) - 1 and inner:
        return [*inner, Tone(end, closing, inner[0].degree + motif.tones[-1].degree, 2.0, len(motif.tones))]
    final = harmony.nearest(classes, near, near - 12, near + 12)
    return [*inner, Tone(end, closing, key.degree(final), 2.0)]


def pitches(
    tones: Sequence[Tone],
    slots: Sequence[Slot],
    key: Key,
    meter: int,
    low: int,
    high: int,
    before: int | None,
    reach: tuple[int, int],
) -> list[int]:
    """A pitch for each tone: strong and long ones on notes of the chord, no wide leap, all inside low..high.

    The theme's tones rise and fall as their degrees do, and may lie a little outside low..high, inside `reach`.
    """
    found: list[int] = []
    for number, tone in enumerate(tones):
        chord = chord_at(slots, tone.beat)
        if tone.theme > 1 and number and tones[number - 1].theme == tone.theme - 1:
            begins = number + 1 - tone.theme
            interval = key.pitch(tone.degree) - key.pitch(tones[begins].degree)
            way = int(np.sign(tone.degree - tones[number - 1].degree))
            weight = 9.0 if number == len(tones) - 1 else 2.0 if weighs(tone, meter) else 0.0
            options = range(max(low - 5, reach[0], found[-1] - 12), min(high + 5, reach[1], found[-1] + 12) + 1)
            found.append(_kept(found[begins] + interval, way, found[-1], weight, tone.beats, chord, key, options))
            continue
        pitch = key.pitch(tone.degree)
        if tone.theme and low <= pitch <= high:
            # Where the idea fits in as it is.
            found.append(harmony.agree(key, chord, pitch))
            continue
        while pitch > high:
            pitch -= 12
        while pitch < low:
            pitch += 12
        previous = found[-1] if found else before
        if previous is not None:
            # Folded towards where the tune is, if it would leap.
            for moved in (pitch - 12, pitch + 12):
                if (
                    abs(moved - previous) < abs(pitch - previous)
                    and abs(pitch - previous) > 8
                    and low <= moved <= high
                ):
                    pitch = moved
        ends = number in (0, len(tones) - 1)
        strong = (metric(tone.beat, meter) >= 0.7 and tone.beats >= 0.5) or tone.beats >= 2
        leapt = previous is not None and abs(pitch - previous) > 4
        if strong or leapt or ends:
            pitch = harmony.nearest(chord.classes, pitch, low, high)
            if pitch == previous and not ends:
                # Not the same again on a strong place: the next note of the chord, where the tune was going.
                up = key.pitch(tone.degree) >= pitch
                other = [
                    value for value in range(max(low, pitch - 5), min(high, pitch + 5) + 1)
                    if value % 12 in chord.classes and value != pitch
                ]  # fmt: skip
                pitch = min(other, key=lambda value: ((value > pitch) != up, abs(value - pitch)), default=pitch)
        else:
            if harmony.agree(key, chord, pitch) == previous:
                # A weak tone passes on by step, towards what comes.
                coming = tones[number + 1].degree if number + 1 < len(tones) else tone.degree
                way = 1 if coming > tone.degree else -1
                pitch = next(
                    (
                        key.pitch(key.degree(pitch) + step)
                        for step in (way, -way, 2 * way)
                        if harmony.agree(key, chord, key.pitch(key.degree(pitch) + step)) != previous
                    ),
                    pitch,
                )
            pitch = harmony.agree(key, chord, pitch)
            if not low <= pitch <= high:
                pitch = harmony.nearest(chord.classes, pitch, low, high)
        if previous is not None and abs(pitch - previous) > 12:
            pitch = harmony.nearest(chord.classes, previous, low, high)
        found.append(pitch)
    return found


def weighs(tone: Tone, meter: int) -> bool:
    """Whether a tone stands out by its place or its length, so that it should belong to the chord."""
    return metric(tone.beat, meter) >= 0.7 or tone.beats >= 1.5


def _kept(
    wanted: int,
    way: int,
    previous: int,
    weight: float,
    beats: float,
    chord: Chord,
    key: Key,
    options: Sequence[int],
) -> int:
    """The pitch of a tone of the theme: as wanted, bent to the chord by a step or two at most.

    way: of the tone from the one before (`previous`): up stays up, down stays down, and a repeated tone is repeated
    where the chord lets it. weight: how many semitones a note of the chord may be further away and yet be taken.
    """

    def cost(pitch: int) -> tuple[float, int]:
        inside = pitch % 12 in chord.classes
        grates = not inside and any((pitch - value) % 12 in (1, 11) for value in chord.classes)
        away = (0.0 if inside else weight) + (1.0 if grates and beats >= 1 else 0.0)
        return abs(pitch - wanted) + away + (20 if int(np.sign(pitch - previous)) != way else 0), pitch

    found = {harmony.agree(key, chord, pitch) for pitch in options if pitch % 12 in (*key.scale, *chord.classes)}
    return min(found & set(options) or {previous}, key=cost)
