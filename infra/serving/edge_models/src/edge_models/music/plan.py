"""From a picture to the plan of its piece: key, mode, tempo, ensemble, and what each section is to be like.

The signs follow what listeners hear in music (Gabrielsson & Lindström 2010; Juslin & Laukka 2004; for modes Temperley
& Tan 2013): arousal asks for speed, many notes, loudness, short notes, bright sounds, drums; valence for major-like
modes, a higher register and the instruments of happy music, its lack for minor-like modes, low register, dark sounds
(what it changes besides is in `valence`). CMEAN's movement drives rhythm,
its calm sustains and slows the harmony, its nostalgia colours with older and softer sounds, suspensions and rubato.
The numbers are ours, fixed, and not fitted to anything that reads music. Notes are left to `writing`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models.music import harmony
from edge_models.music.score import LONGEST, SHORTEST, Ask, Plan, Section, Voice

PARTS = ("top-left", "top-right", "bottom-left", "bottom-right")

# What pictures really reach is stretched to 0..1, so that music uses all of its range: five parts of 30 paintings and
# prints lay between .09 and .88 in valence and .13 and .88 in arousal, 42 and 255 in R, 4 and 231 in G, 1 and 142
# in B.
VALENCE_REACH, AROUSAL_REACH = (0.15, 0.85), (0.15, 0.85)
RGB_REACH = ((60.0, 240.0), (20.0, 210.0), (10.0, 135.0))
WHOLE_SHARE = 0.5
"""How much of a section's mood is the whole picture's; the rest is its fragment's."""

SLOWEST, FASTEST = 54.0, 150.0
"""Beats a minute at the least and the most arousal, before movement and calm add theirs."""
SPARSEST, DENSEST = 1.7, 12.5
"""Onsets a second, all voices, at the least and the most arousal."""
DRUMS = 0.54
"""How much it must urge (0..1, see `_drumming`) for drums to be there."""
TEMPO_WISHES = (30.0, 240.0)
REGISTER = 14.0
"""Semitones between the registers of the least and the most valence."""

FAMILIES = ("piano", "strings", "winds", "brass", "plucked", "mallets", "voices", "keys", "drums")

RITARDANDO_BEATS, RITARDANDO = 4, 0.22
"""The last beats of the piece, and by how much of a beat each of them is longer on the average."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a player can do and what its sound is like (0..1 each): bright, energetic, warm, old, cheerful.

    Cheer follows what musicians told Huron, Anderson & Shanahan 2014: sad are those whose pitch can slide, and dark,
    low, soft ones (voice, cello, viola, violin, English horn at the one end), not those that are struck, bright,
    short and high (glockenspiel, xylophone, piccolo at the other); for struck bars see Schutz et al. 2008 too. The
    numbers are ours.
    """

    name: str
    family: str
    program: int
    low: int
    high: int
    roles: str
    bright: float
    energy: float
    warm: float
    old: float
    cheer: float
    gain: float
    reverb: float


# Roles: m melody, c counter, h held harmony, f figure, b bass. Ranges are those that sound well, not all that exist.
INSTRUMENTS = tuple(
    Instrument(*row)
    for row in (
        ("flute", "winds", 73, 60, 93, "mc", 0.75, 0.45, 0.45, 0.4, 0.65, 0, 0.45),
        ("oboe", "winds", 68, 59, 88, "mc", 0.6, 0.4, 0.5, 0.65, 0.3, -1, 0.4),
        ("clarinet", "winds", 71, 52, 86, "mc", 0.45, 0.45, 0.7, 0.6, 0.5, 0, 0.4),
        ("English horn", "winds", 69, 52, 80, "mc", 0.3, 0.25, 0.6, 0.85, 0.1, -1, 0.45),
        ("bassoon", "winds", 70, 36, 70, "cb", 0.3, 0.35, 0.75, 0.8, 0.3, 0, 0.35),
        ("recorder", "winds", 74, 62, 91, "m", 0.75, 0.3, 0.5, 0.95, 0.7, -2, 0.4),
        ("piccolo", "winds", 72, 74, 98, "c", 1.0, 0.85, 0.3, 0.4, 0.95, -5, 0.4),
        ("violin", "strings", 40, 56, 96, "mc", 0.65, 0.65, 0.5, 0.6, 0.2, 0, 0.4),
        ("viola", "strings", 41, 48, 82, "mc", 0.4, 0.4, 0.7, 0.7, 0.1, 0, 0.4),
        ("cello", "strings", 42, 37, 76, "mcb", 0.2, 0.3, 0.8, 0.75, 0.05, 1, 0.4),
        ("contrabass", "strings", 43, 28, 55, "b", 0.2, 0.4, 0.6, 0.6, 0.15, 2, 0.3),
        ("strings", "strings", 48, 43, 86, "h", 0.5, 0.55, 0.6, 0.5, 0.3, -4, 0.5),
        ("slow strings", "strings", 49, 43, 84, "h", 0.25, 0.1, 0.7, 0.7, 0.1, -4, 0.6),
        ("tremolo strings", "strings", 44, 43, 84, "h", 0.45, 0.95, 0.25, 0.35, 0.15, -5, 0.45),
        ("pizzicato strings", "strings", 45, 43, 84, "fh", 0.6, 0.65, 0.55, 0.45, 0.85, 0, 0.4),
        ("harp", "plucked", 46, 36, 94, "fm", 0.65, 0.25, 0.5, 0.6, 0.6, 0, 0.5),
        ("guitar", "plucked", 24, 41, 81, "fmh", 0.45, 0.4, 0.85, 0.7, 0.5, 0, 0.35),
        ("steel guitar", "plucked", 25, 41, 83, "fh", 0.75, 0.75, 0.65, 0.35, 0.75, -1, 0.3),
        ("dulcimer", "plucked", 15, 50, 84, "fm", 0.8, 0.6, 0.5, 0.85, 0.75, -2, 0.4),
        ("koto", "plucked", 107, 50, 84, "mf", 0.7, 0.45, 0.5, 0.9, 0.5, -1, 0.4),
        ("acoustic bass", "plucked", 32, 28, 55, "b", 0.3, 0.6, 0.7, 0.5, 0.55, 1, 0.2),
        ("bass guitar", "plucked", 33, 28, 55, "b", 0.4, 0.9, 0.6, 0.15, 0.6, 0, 0.15),
        ("celesta", "mallets", 8, 60, 100, "fm", 0.95, 0.2, 0.35, 0.65, 0.75, -2, 0.5),
        ("glockenspiel", "mallets", 9, 72, 103, "c", 1.0, 0.55, 0.3, 0.4, 0.95, -7, 0.5),
        ("music box", "mallets", 10, 60, 96, "f", 0.9, 0.1, 0.4, 1.0, 0.7, -2, 0.5),
        ("vibraphone", "mallets", 11, 53, 88, "fm", 0.6, 0.3, 0.5, 0.45, 0.6, -2, 0.45),
        ("marimba", "mallets", 12, 45, 90, "fm", 0.5, 0.65, 0.8, 0.4, 0.85, 0, 0.35),
        ("xylophone", "mallets", 13, 65, 100, "mf", 0.95, 0.9, 0.4, 0.35, 1.0, -4, 0.35),
        ("piano", "piano", 0, 33, 100, "mfh", 0.5, 0.5, 0.5, 0.5, 0.45, 0, 0.35),
        ("bright piano", "piano", 1, 36, 100, "mfh", 0.75, 0.85, 0.45, 0.3, 0.75, -1, 0.3),
        ("electric piano", "keys", 4, 40, 91, "fh", 0.45, 0.35, 0.7, 0.4, 0.5, -2, 0.35),
        ("harpsichord", "keys", 6, 41, 89, "f", 0.9, 0.7, 0.45, 0.95, 0.6, -3, 0.35),
        ("organ", "keys", 19, 41, 91, "hm", 0.5, 0.5, 0.5, 0.95, 0.2, -6, 0.55),
        ("accordion", "keys", 21, 50, 89, "mh", 0.6, 0.6, 0.8, 0.85, 0.65, -3, 0.3),
        ("trumpet", "brass", 56, 55, 84, "m", 0.95, 1.0, 0.5, 0.4, 0.85, -2, 0.4),
        ("trombone", "brass", 57, 41, 70, "mc", 0.5, 0.8, 0.5, 0.5, 0.45, -2, 0.4),
        ("horn", "brass", 60, 42, 77, "mc", 0.35, 0.45, 0.85, 0.7, 0.3, 0, 0.5),
        ("tuba", "brass", 58, 28, 55, "b", 0.2, 0.75, 0.55, 0.5, 0.5, 0, 0.35),
        ("brass", "brass", 61, 46, 82, "h", 0.85, 1.0, 0.5, 0.3, 0.75, -6, 0.4),
        ("choir", "voices", 52, 48, 81, "hm", 0.4, 0.25, 0.55, 0.75, 0.15, -3, 0.6),
        ("voices", "voices", 53, 50, 80, "c", 0.4, 0.2, 0.6, 0.6, 0.1, -3, 0.6),
    )
)
LEADS = {"drums": "mallets"}
"""Who leads where the wished family has no melody of its own."""

# Which sounds belong to what a picture shows: words of tags or of the palette's names -> instruments.
BELONGS: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = tuple(
    (frozenset(words.split()), tuple(names.split(", ")))
    for words, names in (
        ("snow ice alp glacier white ivory silver", "celesta, harp, flute, glockenspiel"),
        ("sea seashore shore lake boat water coast harbour jetty cliff", "harp, flute, slow strings, vibraphone"),
        ("mountain valley castle horse hunting cart dog deer", "horn, bassoon, strings"),
        ("church altar cathedral mosque vault vaulted monastery book", "organ, choir, slow strings, voices"),
        ("people crowd dance dining restaurant stage market", "accordion, guitar, pizzicato strings, clarinet"),
        ("street billiard", "steel guitar, accordion, bright piano"),
        ("flower garden field butterfly bird greenhouse fruit leaf", "flute, oboe, harp, recorder, guitar"),
        ("kimono fan umbrella bamboo bridge pagoda", "koto, flute, marimba"),
        ("piano", "piano, bright piano"),
        ("violin", "violin, strings"),
        ("guitar", "guitar, steel guitar"),
        ("harp", "harp"),
        ("gown lace cloak hat portrait armour pedestal", "harpsichord, oboe, viola, recorder"),
        ("train lion tiger elephant armour ship", "brass, trumpet, trombone, tuba"),
        ("doll toy teddy mask puppet cat", "music box, celesta, xylophone, clarinet"),
        ("night black charcoal umber brown maroon dark", "cello, bassoon, English horn, horn, contrabass"),
    )
)  # fmt: skip
NEARNESS = (0.35, 0.5, 0.15, 0.25, 0.45)
"""How much each of bright, energetic, warm, old, cheerful counts in choosing an instrument."""
BELONGING = 0.22
"""How much nearer an instrument comes that belongs to what is shown."""


@dataclass(frozen=True, slots=True)
class Mood:
    """Stretched to 0..1: see the reaches above."""

    movement: float
    calm: float
    nostalgia: float
    valence: float
    arousal: float


def _stretch(value: float, reach: tuple[float, float]) -> float:
    return float(np.clip((value - reach[0]) / (reach[1] - reach[0]), 0, 1))


def mood(rgb: Sequence[float] | npt.NDArray[Any], va: Sequence[float] | npt.NDArray[Any]) -> Mood:
    """One part's feelings as music's 0..1."""
    movement, calm, nostalgia = (_stretch(float(value), reach) for value, reach in zip(rgb, RGB_REACH, strict=True))
    return Mood(
        movement, calm, nostalgia, _stretch(float(va[0]), VALENCE_REACH), _stretch(float(va[1]), AROUSAL_REACH)
    )


def _mixed(fragment: Mood, whole: Mood) -> Mood:
    def mix(name: str) -> float:
        return (1 - WHOLE_SHARE) * float(getattr(fragment, name)) + WHOLE_SHARE * float(getattr(whole, name))

    return Mood(mix("movement"), mix("calm"), mix("nostalgia"), mix("valence"), mix("arousal"))


def tempo_of(feeling: Mood) -> float:
    """Beats a minute; rises with arousal."""
    tempo = SLOWEST + (FASTEST - SLOWEST) * feeling.arousal
    return tempo * (1 + 0.10 * (feeling.movement - 0.5) - 0.10 * (feeling.calm - 0.5))


def density_of(feeling: Mood) -> float:
    """Onsets a second, all voices; rises with arousal."""
    density = SPARSEST * math.exp(feeling.arousal * math.log(DENSEST / SPARSEST))
    return density * (1 + 0.24 * (feeling.movement - 0.5) - 0.16 * (feeling.calm - 0.5))


def dynamics_of(feeling: Mood) -> float:
    """0 (very quiet) .. 1 (very loud); rises with arousal."""
    return float(np.clip(0.12 + 0.76 * feeling.arousal + 0.06 * (feeling.movement - feeling.calm), 0, 1))


def mode_of(feeling: Mood) -> str:
    """Major-like from the middle of valence up, minor-like below; movement, calm and nostalgia choose among them."""
    valence = feeling.valence
    if valence >= 0.5:
        if valence >= 0.6 and feeling.calm > 0.65 and feeling.movement < 0.45 and feeling.nostalgia < 0.4:
            return "lydian"
        if valence < 0.62 and feeling.nostalgia > 0.55:
            return "mixolydian"
        return "major"
    if valence >= 0.36 and (feeling.nostalgia > 0.4 or feeling.movement > 0.7):
        return "dorian"
    if valence < 0.16 and feeling.arousal > 0.5:
        return "phrygian"
    return "minor"


def _seed(ask: Ask) -> int:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(int(ask.seed).to_bytes(16, "little", signed=True))
    for values in (ask.rgb, ask.va, ask.vector):
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    digest.update(f"{ask.seconds:.6f} {ask.instruments} {ask.key} {ask.tempo}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def _words(measurements: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Word -> how much it is there (0..1) over all parts, the whole counted like all fragments together."""
    found: dict[str, float] = {}
    for number, measurement in enumerate(measurements):
        weight = 0.5 if number == len(measurements) - 1 else 0.5 / max(1, len(measurements) - 1)
        for key, size in (("tags", "confidence"), ("palette", "share")):
            for entry in measurement.get(key) or ():
                for word in {*str(entry.get("name", "")).lower().split(), str(entry.get("name", "")).lower()}:
                    found[word] = found.get(word, 0.0) + weight * float(entry.get(size) or 0.0)
    return {word: min(1.0, value) for word, value in found.items()}


def belonging(measurements: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Instrument -> 0..1, how much it belongs to what is seen."""
    words = _words(measurements)
    found: dict[str, float] = {}
    for group, names in BELONGS:
        value = min(1.0, 2.5 * sum(words.get(word, 0.0) for word in group))
        for name in names:
            found[name] = max(found.get(name, 0.0), value)
    return found


def _measured(measurements: Sequence[Mapping[str, Any]], group: str, name: str, usual: float) -> float:
    whole = measurements[-1] if measurements else {}
    value = (whole.get(group) or {}).get(name)
    return usual if value is None else float(value)


class _Casting:
    """Chooses who plays what."""

    def __init__(self, ask: Ask, feeling: Mood, random: np.random.Generator) -> None:
        brightness = _measured(ask.measurements, "light", "brightness", 0.5)
        warmth = _measured(ask.measurements, "colour", "warmth", 0.0) / 2 + 0.5
        self.wanted = (
            0.35 * feeling.valence + 0.4 * feeling.arousal + 0.25 * brightness,
            feeling.arousal,
            warmth,
            0.25 + 0.7 * feeling.nostalgia,
            feeling.valence,
        )
        self.belongs = belonging(ask.measurements)
        self.random = random
        self.taken: list[Instrument] = []

    def choose(self, fits: Callable[[Instrument], bool]) -> Instrument | None:
        """The nearest free instrument; an untaken family is nearer, chance decides among near ones."""
        best: tuple[float, Instrument] | None = None
        for instrument in INSTRUMENTS:
            draw = float(self.random.random())
            if instrument in self.taken or not fits(instrument):
                continue
            sound = (instrument.bright, instrument.energy, instrument.warm, instrument.old, instrument.cheer)
            distance = sum(
                weight * abs(one - other) for weight, one, other in zip(NEARNESS, sound, self.wanted, strict=True)
            )
            distance -= BELONGING * self.belongs.get(instrument.name, 0.0)
            distance += 0.05 * sum(one.family == instrument.family for one in self.taken)
            distance += 0.15 * draw
            if best is None or distance < best[0]:
                best = (distance, instrument)
        if best is None:
            return None
        self.taken.append(best[1])
        return best[1]


def _ensemble(ask: Ask, feeling: Mood, drums: bool, random: np.random.Generator) -> tuple[Voice, ...]:
    casting = _Casting(ask, feeling, random)
    lead = LEADS.get(ask.instruments or "", ask.instruments)
    slots = (("melody", "m", 0.0), ("bass", "b", 0.05), ("harmony", "h", -0.3), ("harmony", "f", 0.35),
             ("counter", "c", -0.5))  # fmt: skip
    voices: list[Voice] = []
    for role, letter, pan in slots:
        chosen = None
        if role == "melody" and lead is not None:
            chosen = casting.choose(lambda one: one.family == lead and "m" in one.roles) or casting.choose(
                lambda one: one.family == lead
            )
        if chosen is None:
            chosen = casting.choose(lambda one, letter=letter: letter in one.roles)  # type: ignore[misc]
        assert chosen is not None  # each letter has more instruments than slots
        voices.append(
            Voice(chosen.name, chosen.family, chosen.program, role, chosen.low, chosen.high, pan,
                  chosen.gain + {"melody": 2.0, "counter": -1.0, "bass": 1.0}.get(role, -2.0), chosen.reverb)
        )  # fmt: skip
    if drums:
        voices.append(Voice("drums", "drums", 0, "rhythm", 35, 81, 0.0, -4.0, 0.25))
    return tuple(voices)


# Tonics that lie well for these instruments, likelier first ones are not meant: chance chooses.
_TONICS_MAJOR = (0, 2, 4, 5, 7, 9, 10, 3)
_TONICS_MINOR = (0, 2, 4, 5, 7, 9, 11, 6)


def _bars(seconds: float, tempos: Sequence[float], meter: int) -> tuple[list[int], float]:
    """Beats of each section, and the factor on all tempos that makes them fill `seconds`.

    Sections are of like length. Long ones count in pairs of bars, shorter ones in bars, the shortest in beats.
    """
    each = seconds / len(tempos)
    beats: list[int] = []
    for tempo in tempos:
        wanted = each * tempo / 60
        unit = 2 * meter if wanted >= 4 * meter else meter if wanted >= 0.9 * meter else 1
        beats.append(max(unit, round(wanted / unit) * unit))

    def filled(counts: Sequence[int]) -> float:
        lengths = sum(count * 60 / tempo for count, tempo in zip(counts, tempos, strict=True))
        return lengths / seconds

    # One unit more or less for one section or two, where it fits better; none becomes much longer than the others.
    def unfit(counts: Sequence[int]) -> float:
        apart = sum(abs(math.log(count * 60 / tempo / each)) for count, tempo in zip(counts, tempos, strict=True))
        changed = sum(one != other for one, other in zip(counts, beats, strict=True))
        return abs(math.log(filled(counts))) + 0.25 * apart / len(counts) + 0.012 * changed

    best = list(beats)
    for changes in itertools.product((-1, 0, 1), repeat=len(beats)):
        if not 0 < sum(map(abs, changes)) <= 2:
            continue
        trial = []
        for count, change in zip(beats, changes, strict=True):
            # No section has less than a bar because of this, if it had one.
            unit = meter if count >= 2 * meter or (count >= meter and change > 0) else 1 if count < meter else 0
            trial.append(max(1, count + change * unit))
        if unfit(trial) < unfit(best) - 1e-9:
            best = trial
    return best, filled(best)


def _shared_out(total: int, sections: int, meter: int) -> list[int]:
    """So many beats over the sections, in whole bars where there are enough; what is left over goes to the last."""
    bars = total // meter
    if bars >= sections:
        each = [bars // sections * meter] * sections
        for place in range(bars % sections):
            each[-1 - place] += meter
    else:
        sections = min(sections, total)
        each = [total // sections] * sections
    each[-1] += total - sum(each)
    return each


def make_plan(ask: Ask) -> Plan:
    """The plan of a piece.

    Raises:
        ValueError: a wish or a value that cannot be followed, in plain words.
    """
    if not SHORTEST <= ask.seconds <= LONGEST:
        raise ValueError(f"seconds must be {SHORTEST:g} to {LONGEST:g}, not {ask.seconds:g}")
    if ask.seed < 0:
        raise ValueError(f"seed must not be negative ({ask.seed})")
    if ask.tempo is not None and not TEMPO_WISHES[0] <= ask.tempo <= TEMPO_WISHES[1]:
        raise ValueError(
            f"tempo must be {TEMPO_WISHES[0]:g} to {TEMPO_WISHES[1]:g} beats a minute, not {ask.tempo:g}"
        )
    if ask.instruments is not None and ask.instruments not in FAMILIES:
        raise ValueError(
            f"{ask.instruments!r} is no family of instruments; one of {', '.join(FAMILIES)} is understood"
        )
    if np.shape(ask.rgb) != (5, 3) or np.shape(ask.va) != (5, 2):
        raise ValueError(f"rgb must be [5, 3] and va [5, 2], not {np.shape(ask.rgb)} and {np.shape(ask.va)}")
    seed = _seed(ask)
    random = np.random.default_rng([seed, 0])
    parts = [mood(rgb, va) for rgb, va in zip(ask.rgb, ask.va, strict=True)]
    whole, fragments = parts[-1], parts[:-1]
    feelings = [_mixed(fragment, whole) for fragment in fragments]
    # What holds for the whole piece follows the mean of its sections: half the whole picture, half its fragments.
    overall = Mood(*(
        float(np.mean([getattr(feeling, name) for feeling in feelings]))
        for name in ("movement", "calm", "nostalgia", "valence", "arousal")
    ))  # fmt: skip
    if ask.key is not None:
        home = harmony.key(*ask.key)
    else:
        mode = mode_of(overall)
        tonics = _TONICS_MAJOR if mode in harmony.MAJOR_LIKE else _TONICS_MINOR
        home = harmony.Key(int(tonics[int(random.integers(len(tonics)))]), mode)
    slow_three = overall.calm > 0.45 or overall.movement < 0.4
    meter = 3 if slow_three and overall.arousal < 0.75 and random.random() < 0.2 + 0.5 * overall.nostalgia else 4
    tempos = [ask.tempo or tempo_of(feeling) for feeling in feelings]
    if ask.tempo is None:
        # Sections differ in tempo, but belong to one piece.
        middle = tempo_of(overall)
        tempos = [middle * (tempo / middle) ** 0.6 for tempo in tempos]
    # The last chord rings out in what is left after the sections.
    tail = float(np.clip(0.05 * ask.seconds + 0.5, 0.7, 4.0))
    body = ask.seconds - tail
    slowing = RITARDANDO * min(RITARDANDO_BEATS, 4) * 60 / tempos[-1] if body > 12 else 0.0
    each = (body - slowing) / len(tempos) * float(np.mean(tempos)) / 60
    if each < 8:
        # Bars that so few beats can be counted in.
        meter = min((4, 3), key=lambda one: abs(math.log(max(1, round(each / one)) * one / each)))
    if ask.tempo is None:
        beats, filled = _bars(body - slowing, tempos, meter)
        tempos = [tempo * filled for tempo in tempos]
    else:
        # A wished tempo stays as it is: bars, or beats, are shared out; where there are too few, sections fall away.
        beats = _shared_out(max(1, math.floor((body - slowing) * ask.tempo / 60 + 1e-6)), len(feelings), meter)
        feelings, tempos = feelings[: len(beats)], tempos[: len(beats)]
    drums = ask.instruments == "drums" or max(map(_drumming, feelings)) > DRUMS
    voices = _ensemble(ask, overall, drums, random)
    sections: list[Section] = []
    start = 0.0
    for number, (feeling, tempo, count) in enumerate(zip(feelings, tempos, beats, strict=True)):
        seconds = count * 60 / tempo
        if number == len(feelings) - 1:
            seconds += slowing
        sections.append(
            Section(
                part=PARTS[number],
                start=start,
                seconds=seconds,
                tempo=tempo,
                beats=count,
                density=density_of(feeling),
                dynamics=dynamics_of(feeling),
                register=round(REGISTER * (feeling.valence - 0.5) + 4 * (feeling.arousal - 0.5)),
                movement=feeling.movement,
                calm=feeling.calm,
                nostalgia=feeling.nostalgia,
                valence=feeling.valence,
                arousal=feeling.arousal,
                voices=_playing(voices, feeling, number, ask.instruments),
            )
        )
        start += seconds
    return Plan(
        tonic=home.name[0],
        mode=home.mode,
        tempo=tempos[0],
        meter=meter,
        voices=voices,
        sections=tuple(sections),
        seconds=float(ask.seconds),
        seed=seed,
    )


def _drumming(feeling: Mood) -> float:
    """How much a mood urges: arousal first, then movement, against calm."""
    return 0.7 * feeling.arousal + 0.3 * feeling.movement - 0.2 * (feeling.calm - 0.5)


def _playing(voices: Sequence[Voice], feeling: Mood, number: int, wished: str | None) -> tuple[int, ...]:
    """Who plays in a section, its leader first: melody, bass and held harmony always, the others as the mood asks.

    In the third section the counter voice takes the tune, if it can and nobody was wished for.
    """
    chosen = []
    held = False
    for index, voice in enumerate(voices):
        if voice.role == "harmony" and held:
            plays = feeling.arousal > 0.12 or number % 2 == 1  # the figure
        elif voice.role == "counter":
            plays = number > 0
        elif voice.role == "rhythm":
            plays = wished == "drums" or _drumming(feeling) > DRUMS - 0.06
        else:
            plays = True
        held = held or voice.role == "harmony"
        if plays:
            chosen.append(index)
    leader = next(index for index in chosen if voices[index].role == "melody")
    for index in chosen:
        able = any(one.name == voices[index].name and "m" in one.roles for one in INSTRUMENTS)
        if number == 2 and wished is None and voices[index].role == "counter" and able:
            leader = index
    return (leader, *(index for index in chosen if index != leader))
