"""What makes a piece sound finished, as numbers: of its sound, and of its notes. What they must be is left to others.

Nothing of the composer's own measuring is used: loudness is pyloudnorm's, true peaks are scipy's polyphase filter's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from edge_models.music import harmony
from edge_models.music.score import SAMPLE_RATE, Note, Passage, Plan

Sound = npt.NDArray[Any]

SILENCE: Final = 10.0 ** (-60.0 / 20.0)
"""Root mean square below which 50 ms count as silent."""


@dataclass(frozen=True)
class Heard:
    """A piece's sound. loudness in LUFS, true_peak in dBTP, silence the longest in seconds (its end included)."""

    seconds: float
    loudness: float
    true_peak: float
    clicks: tuple[float, ...]
    silence: float
    offset: float
    end: float


def heard(sound: Sound) -> Heard:
    """Measure samples [n, 2] at 48 kHz."""
    return Heard(
        len(sound) / SAMPLE_RATE,
        integrated(sound),
        true_peak(sound),
        tuple(at / SAMPLE_RATE for at in clicks(sound)),
        longest_silence(sound),
        float(np.abs(sound.mean(axis=0)).max()),
        float(np.abs(sound[-24:]).max()),
    )


def integrated(sound: Sound) -> float:
    """Integrated loudness, LUFS."""
    import pyloudnorm

    return float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(sound.astype(np.float64)))


def true_peak(sound: Sound) -> float:
    """The highest peak four times oversampled, dBTP."""
    from scipy.signal import resample_poly

    return float(20.0 * np.log10(np.abs(resample_poly(sound.astype(np.float64), 4, 1, axis=0)).max()))


def clicks(sound: Sound) -> list[int]:
    """Samples where the wave breaks: above 14 kHz, half a millisecond stands out from all of the 5 ms on either side.

    A sound that begins, however suddenly, goes on after it began (a drum's beater for 4 ms); a click does not.
    """
    from scipy.signal import butter, sosfilt

    high = np.abs(sosfilt(butter(8, 14_000, "high", fs=SAMPLE_RATE, output="sos"), sound, axis=0)).max(axis=1)
    cell, reach = SAMPLE_RATE // 2000, 10
    most = high[: len(high) // cell * cell].reshape(-1, cell).max(axis=1)
    # Two cells on either side are left out: a click that falls on a border shows in both, and the filter rings.
    sides = np.lib.stride_tricks.sliding_window_view(np.pad(most, reach + 2, mode="edge"), reach).max(axis=1)
    usual = np.maximum(sides[: len(most)], sides[reach + 5 : reach + 5 + len(most)])
    return [int(at) * cell for at in np.flatnonzero((most > 0.002) & (most > 5.0 * usual))]


def longest_silence(sound: Sound) -> float:
    """Seconds of the longest silence."""
    width = SAMPLE_RATE // 20
    power = (
        (sound[: len(sound) // width * width].astype(np.float64) ** 2).mean(axis=1).reshape(-1, width).mean(axis=1)
    )
    longest = run = 0
    for quiet in np.sqrt(power) < SILENCE:
        run = run + 1 if quiet else 0
        longest = max(longest, run)
    return longest * width / SAMPLE_RATE


@dataclass(frozen=True)
class Written:
    """A piece's notes. Shares are 0..1; alike is how much the two most alike sections share, 1 for the same; theme is
    the share of later sections in which the first one's theme is heard again."""

    notes: int
    voices: int
    ensemble: int
    in_key: float
    passing: float
    stuck: int
    alike: float
    theme: float


def written(plan: Plan, passages: Sequence[Passage]) -> Written:
    """Measure the notes of all sections."""
    tuned = [
        (passage, note) for passage in passages for note in passage.notes if plan.voices[note.voice].family != "drums"
    ]
    outside = [note.passing for passage, note in tuned if note.pitch % 12 not in harmony.key(*passage.key).scale]
    ends = {number: section.start + section.seconds for number, section in enumerate(plan.sections)}
    stuck = sum(
        note.seconds <= 0 or note.start + note.seconds > min(plan.seconds, ends[passage.number] + 4.0) + 1e-6
        for passage in passages
        for note in passage.notes
    )
    every = [note for passage in passages for note in passage.notes]
    pairs = [_alike(plan, one, other) for index, one in enumerate(passages) for other in passages[index + 1 :]]
    return Written(
        len(every),
        len({note.voice for note in every}),
        len({number for section in plan.sections for number in section.voices}),
        1.0 - sum(not passing for passing in outside) / max(1, len(tuned)),
        sum(outside) / max(1, len(tuned)),
        stuck,
        max(pairs, default=0.0),
        float(np.mean([bool(returns(theme(plan, passages), tune(plan, each))) for each in passages[1:] or passages])),
    )


Tune = list[tuple[float, int]]
"""When (beats from the section's beginning) and what its leader plays."""


def tune(plan: Plan, passage: Passage) -> Tune:
    """The tune of a section."""
    section = plan.sections[passage.number]
    return [
        ((note.start - section.start) * section.tempo / 60, note.pitch)
        for note in passage.notes
        if note.voice == section.voices[0]
    ]


def theme(plan: Plan, passages: Sequence[Passage]) -> Tune:
    """What a listener keeps in mind of how the piece begins: five tones at most."""
    return tune(plan, passages[0])[: min(5, passages[0].theme)]


def returns(theme: Tune, tune: Tune) -> list[float]:
    """Where (beats) the theme is heard in a tune: all of its tones one after the other, in its rhythm (a third of a
    beat more or less, from its first), up and down as it goes (a repeated tone may become a step), its intervals
    wider or narrower by 3 semitones on average at most. At any pitch."""
    found = []
    for start in range(len(tune) - len(theme) + 1 if theme else 0):
        window = tune[start : start + len(theme)]
        behind = window[0][0] - theme[0][0]
        late = [abs(at - said - behind) for (at, _), (said, _) in zip(window, theme, strict=True)]
        one, other = (np.diff([pitch for _, pitch in each]) for each in (theme, window))
        near = len(theme) < 2 or float(np.abs(one - other).mean()) <= 3
        along = (one * other > 0) | ((one * other == 0) & (np.abs(one - other) <= 2))
        if max(late) <= 1 / 3 and bool(along.all()) and near:
            found.append(window[0][0])
    return found


def _alike(plan: Plan, one: Passage, other: Passage) -> float:
    """Share of notes that both sections have, at the same place and of the same pitch and voice (Jaccard)."""

    def places(passage: Passage) -> set[tuple[int, int, int]]:
        start = plan.sections[passage.number].start

        def place(note: Note) -> tuple[int, int, int]:
            return round((note.start - start) * 20), note.pitch, note.voice

        return {place(note) for note in passage.notes}

    first, second = places(one), places(other)
    return len(first & second) / max(1, len(first | second))
