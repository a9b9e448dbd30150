"""What valence changes in music besides mode and register, and who found it. Decided from these sources beforehand.

Juslin & Laukka 2003 (Communication of emotions in vocal expression and music performance: different channels, same
code?; table 11) and Gabrielsson & Lindström 2010 (The role of structure in the musical expression of emotions)
summarise what listeners hear as happy and as sad; where the two differ in arousal only (tempo, loudness, number of
notes) nothing is changed here. Eerola, Friberg & Bresin 2013 found that such cues add up in straight lines and hardly
interact, which is why every one below is a straight line in valence by itself. With valence come

- shorter tones (Juslin & Laukka; Eerola et al.);
- wider intervals in the tune (Juslin & Laukka: pitch variability; Huron 2008: they are smaller in minor themes);
- a rising tune; a falling one without (Juslin & Laukka: contour);
- major chords; minor and diminished ones without (Lahdelma & Eerola 2016, where single chords were rated);
- plain triads of the key; sevenths, suspensions, chords that leave the key without (Gabrielsson & Lindström: simple
  and consonant against complex and dissonant harmony; Thompson & Robitaille 1992: composers asked for joy, sorrow);
- even timing; uneven and swaying without (Juslin & Laukka: microstructural regularity);
- chords struck and let go after the beat, as dances have it (Juslin & Laukka: attacks; Janata, Tomic & Haberman 2012:
  what moves one is pleasant);
- instruments that cannot be played low, dark and sliding (Huron, Anderson & Shanahan 2014; Schutz et al. 2008; that
  the instrument matters at all: Hailstone et al. 2009);
- a brighter sound (Juslin & Laukka: high-frequency energy; Eerola et al.: timbre);
- a smaller room: long reverberation is unpleasant (Västfjäll, Larsson & Kleiner 2002).

The sources give directions; the sizes are ours, such that a musician would call them clear but not exaggerated.
They were not fitted to anything that reads music. Valence and arousal are 0..1 here, as a section has them.
"""

from __future__ import annotations

import math


def _line(valence: float, least: float, most: float) -> float:
    return least + (most - least) * valence


def smoothness(valence: float) -> float:
    """Added to how much of its time a tone sounds (0..1)."""
    return _line(valence, 0.15, -0.15)


def spread(valence: float) -> float:
    """The factor on the theme's intervals."""
    return _line(valence, 0.75, 1.25)


def tilt(valence: float) -> float:
    """Semitones by which the tune rises (or falls) from the beginning of a phrase to its end."""
    return _line(valence, -4.0, 4.0)


def chord_weight(third: int, fifth: int, valence: float) -> float:
    """The factor on a chord's likelihood, by its third and fifth in semitones."""
    kind = {(4, 7): 1.0, (3, 7): -1.0, (3, 6): -1.5}.get((third, fifth), -1.0)
    return math.exp(_line(valence, -0.8, 0.8) * kind)


def colour(valence: float, nostalgia: float) -> float:
    """How readily sevenths and suspended fourths are taken (0..1): nostalgic as such, plainer when happy."""
    return (0.25 + 0.5 * nostalgia) * _line(valence, 1.3, 0.7)


def moves(valence: float, movement: float) -> float:
    """How readily a chord is approached through its own dominant, which leaves the key (0..1)."""
    return (0.12 + 0.25 * movement) * _line(valence, 1.3, 0.7)


def tension(valence: float, arousal: float) -> float:
    """How readily minor-like modes take a diminished chord (0..1): in distress, and in grief."""
    return max(0.0, arousal - valence, 1.0 - 2.5 * valence)


def suspense(valence: float, nostalgia: float) -> float:
    """How readily a voice of the chords that steps down comes a beat late (0..1)."""
    return max(0.0, 0.55 * nostalgia + _line(valence, 0.15, -0.15))


def unevenness(valence: float) -> float:
    """The standard deviation of when a tone comes, in seconds."""
    return _line(valence, 0.007, 0.002)


def sway(valence: float, arousal: float, nostalgia: float) -> float:
    """How far a bar's middle lies off its place, in beats: rubato of old and of sad music, none where it urges."""
    return (0.10 * nostalgia + max(0.0, _line(valence, 0.05, -0.05))) * (1.0 - arousal)


def dances(valence: float, arousal: float) -> bool:
    """Whether chords are struck short after the beat rather than held."""
    return valence >= 0.6 and arousal >= 0.35


def shelf(valence: float) -> float:
    """dB above 3 kHz."""
    return _line(valence, -2.0, 2.0)


def room(valence: float) -> float:
    """Added to the seconds of the room's decay."""
    return _line(valence, 0.25, -0.25)
