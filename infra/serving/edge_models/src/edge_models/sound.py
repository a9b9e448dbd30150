"""What can be measured of one sound (or one part of one): tempo, key, loudness, brightness, density, silence, tags.

Pure functions from 16 kHz samples and the taggers' outputs to one plain dictionary; the same samples give the same
dictionary. Running the networks is left to the Triton model `measure_sound`, sentences to `edge_models.captions`.
The spectra are numpy and scipy: a larger library for sound would start for seconds and cost this process 150 MB for
the three transforms that are needed; the tests compare the front end with a reference computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from edge_models.sound_names import MSD_LABELS, MTT_LABELS, OPPOSITES, SOUND_WORDS
from edge_models.triton_model import Invalid

Floats = npt.NDArray[np.float32]
# Patches float32 [n, 187, 96] to (tags [n, 50], embeddings [n, 200]).
Tagger = Callable[[Floats], tuple[npt.NDArray[Any], npt.NDArray[Any]]]

VERSION = "2"
RATE = 16_000
HOP = 256
PATCH_FRAMES = 187
TAG_COUNT = 10
# Half an hour in windows of 30 s: more would need gigabytes at once, and changes no mean.
MOST_WINDOWS = 64
LEAST_CONFIDENCE = 0.05
# 20 ms of a 16 kHz sound below this level are silence; a quiet hall's noise in a 16 bit recording lies near it.
SILENCE_LEVEL = -60.0
# Under this length no tempo is heard: it takes at least four beats at 120 a minute.
SHORTEST_TEMPO_SECONDS = 2.0
# A sound is also measured in quarters, so that what is said of it all agrees with most of it: its tempo where a
# quarter has this many seconds, its key and density (which vary with every phrase) where it has the second number.
SHORTEST_TEMPO_QUARTER, SHORTEST_QUARTER = 3.0, 5.0
# Two tempi this near (as a ratio) are one.
SAME_TEMPO = 1.05
# The usual spelling of each tonic, by mode.
TONICS = {
    "major": ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B"),
    "minor": ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "G sharp", "A", "B flat", "B"),
}
# Krumhansl and Kessler 1982: probe-tone ratings of the twelve degrees.
MAJOR_PROFILE = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR_PROFILE = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])


def read_windows(sound: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> list[Floats]:
    """The valid samples of each window: sound [windows, samples] at 16 kHz, lengths [windows].

    Raises `Invalid` for no or too many windows, a length outside its window, no valid sample at all, or samples that
    are not finite. Windows with the length 0 are left out.
    """
    windows = np.asarray(sound, dtype=np.float32)
    counts = np.asarray(lengths).reshape(-1)
    if windows.ndim == 2 and len(windows) > MOST_WINDOWS:
        raise Invalid(f"SOUND has {len(windows)} windows; send at most {MOST_WINDOWS}, spread over a longer sound")
    if windows.ndim != 2 or windows.shape[0] == 0 or windows.shape[0] != counts.shape[0]:
        raise Invalid(
            f"SOUND has the shape {windows.shape} and LENGTHS {counts.shape}; send [windows, samples] and [windows]"
        )
    if (counts < 0).any() or (counts > windows.shape[1]).any():
        raise Invalid(f"LENGTHS must lie between 0 and the {windows.shape[1]} samples of a window")
    valid = [window[:count] for window, count in zip(windows, counts, strict=True) if count > 0]
    if not valid:
        raise Invalid("the sound has no valid sample; send at least one window with a length above 0")
    if not all(np.isfinite(window).all() for window in valid):
        raise Invalid("the sound holds samples that are not finite numbers (NaN or infinite); decode it again")
    return valid


def power_spectrum(samples: Floats, size: int = 512, hop: int = HOP) -> Floats:
    """Power spectrogram float32 [size / 2 + 1, frames]: periodic Hann window, frames centred, ends reflected.

    Fewer samples than half a window cannot be reflected; zeros stand at the ends then.
    """
    half = size // 2
    padded = np.pad(samples, half, mode="reflect" if len(samples) > half else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = signal.get_window("hann", size).astype(np.float32)
    spectrum = fft.rfft(frames * window, axis=1)
    return np.ascontiguousarray((spectrum.real**2 + spectrum.imag**2).T, dtype=np.float32)


def mel_filters(bands: int = 96, size: int = 512) -> Floats:
    """Triangular filters float32 [bands, size / 2 + 1] from 0 to 8,000 Hz, each of unit area.

    Slaney's scale (Auditory Toolbox 1998): linear to 1,000 Hz, logarithmic above; what musicnn was trained with.
    """
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(RATE / 2), bands + 2))
    frequencies = np.linspace(0.0, RATE / 2, size // 2 + 1)
    rising = (frequencies[None, :] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies[None, :]) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return triangles.astype(np.float32)


def patches(power: Floats) -> Floats:
    """Log-mel patches float32 [n, 187, 96] (log10(10000 x + 1)) of one window's mel power; n is at least 1.

    A window shorter than a patch is repeated until it fills one; a rest shorter than a patch at the end is left
    out when there is a whole patch before it.
    """
    frames = np.log10(10_000.0 * power.T + 1.0).astype(np.float32)
    if len(frames) < PATCH_FRAMES:
        frames = np.tile(frames, (math.ceil(PATCH_FRAMES / len(frames)), 1))[:PATCH_FRAMES]
    count = len(frames) // PATCH_FRAMES
    return np.ascontiguousarray(frames[: count * PATCH_FRAMES].reshape(count, PATCH_FRAMES, 96))


def loudness(windows: Sequence[Floats]) -> dict[str, float]:
    """Level in LUFS and range in dB after ITU-R BS.1770-4 (K-weighting, 400 ms blocks, both gates), one channel.

    The range is the spread from the 10th to the 95th percentile of the blocks that pass the gates (as EBU Tech 3342,
    on 400 ms blocks, since a part may be short). Silence has the level -70 and the range 0.
    """
    step = RATE // 10
    state = np.zeros((len(_K_WEIGHTING), 2), dtype=np.float32)
    tenths: list[npt.NDArray[np.float64]] = []
    rest = 0.0
    for window in windows:
        weighted, state = signal.sosfilt(_K_WEIGHTING, window, zi=state)
        count = len(weighted) // step
        tenths.append((weighted[: count * step].reshape(count, step).astype(np.float64) ** 2).mean(axis=1))
        rest = float((weighted.astype(np.float64) ** 2).mean())
    powers = np.concatenate(tenths)
    if len(powers) >= 4:
        powers = np.convolve(powers, np.full(4, 0.25), mode="valid")
    else:
        powers = np.array([float(powers.mean()) if len(powers) else rest])
    levels = -0.691 + 10 * np.log10(np.maximum(powers, 1e-12))
    heard = levels > -70.0
    if not heard.any():
        return {"level": -70.0, "range": 0.0}
    gate = -0.691 + 10 * math.log10(float(powers[heard].mean())) - 10.0
    loud = heard & (levels > gate)
    spread = heard & (levels > gate - 10.0)
    low, high = np.percentile(levels[spread], (10, 95))
    return {
        "level": round(-0.691 + 10 * math.log10(float(powers[loud].mean())), 2),
        "range": round(float(high - low), 2),
    }


def key(windows: Sequence[Floats], level: float) -> dict[str, Any]:
    """Tonic and mode whose Krumhansl-Kessler profile lies nearest the mean chroma, by correlation.

    The confidence (0..1) grows with the correlation and with its lead over the second best key, and sinks with the
    chroma's flatness: drums and noise come out near 0. From 20 s on the four quarters are heard too; where they keep
    to other keys it sinks as well, and "changes" tells whether clear keys of quarters differ.
    """
    unclear = {"tonic": "C", "mode": "major", "confidence": 0.0, "changes": False}
    if level <= -70.0:
        return unclear
    size = 4096
    # Square root: a loud second must not outvote a minute. Only sums are kept: half an hour of frames is 250 MB.
    total, at = sum(1 + 2 * len(window) // size for window in windows), 0
    sums = np.zeros((4, size // 2 + 1))
    for window in windows:
        magnitude = np.sqrt(power_spectrum(window, size, size // 2))
        quarter = np.minimum(3, (at + np.arange(magnitude.shape[1])) * 4 // total)
        for number in range(4):
            sums[number] += magnitude[:, quarter == number].sum(axis=1)
        at += magnitude.shape[1]
    best, confidence = _key_of(sums.sum(axis=0))
    changes = False
    if sum(len(window) for window in windows) >= 4 * SHORTEST_QUARTER * RATE:
        quarters = [_key_of(each) for each in sums]
        sure = sum(each for _, each in quarters)
        if sure > 0.0:
            confidence *= min(1.0, 2.0 * sum(each for found, each in quarters if found == best) / sure)
        changes = len({found for found, each in quarters if each >= 0.45}) > 1
    mode = "major" if best < 12 else "minor"
    return {"tonic": TONICS[mode][best % 12], "mode": mode, "confidence": _unit(confidence), "changes": changes}


def _key_of(magnitude: npt.NDArray[Any]) -> tuple[int, float]:
    """The best key (0..11 major, 12..23 minor) of magnitudes [2049] summed over time, and how sure, 0..1."""
    size = 2 * (len(magnitude) - 1)
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    inside = (frequencies >= 65.0) & (frequencies <= 2100.0)
    pitch = 12 * np.log2(frequencies[inside] / 440.0) + 9
    distance = (pitch[None, :] - np.arange(12)[:, None] + 6) % 12 - 6
    filters = np.exp(-0.5 * (distance / 0.35) ** 2)
    filters /= filters.sum(axis=1, keepdims=True)
    chroma = filters @ magnitude[inside]
    if float(chroma.max()) <= 1e-9:
        return 0, 0.0
    chroma = chroma / chroma.max()
    scores = np.array(
        [
            np.corrcoef(chroma, np.roll(profile, tonic))[0, 1]
            for profile in (MAJOR_PROFILE, MINOR_PROFILE)
            for tonic in range(12)
        ]
    )
    scores = np.nan_to_num(scores)
    best = int(np.argmax(scores))
    lead = float(scores[best] - np.sort(scores)[-2])
    fit = max(0.0, float(scores[best]) - 0.35) / 0.55
    return best, fit * (0.55 + min(lead, 0.15) * 3.0) * (1.0 - 0.7 * float(chroma.min()))


def rhythm(power: Floats, seconds: float, level: float) -> tuple[dict[str, float], float]:
    """Tempo (beats a minute with confidence) and onsets a second, from the mel power [96, frames].

    The tempo is the strongest lag of the onset strength's autocorrelation under a log-normal prior around
    115 (after Ellis 2007); its confidence is that autocorrelation (0..1), so rain and long notes come out near 0. No
    tempo: 0 beats a minute with confidence 0.

    Autocorrelation mistakes twice or two thirds of a tempo for it, and not in every part of a piece alike. So the
    quarters are asked too (see `SHORTEST_TEMPO_QUARTER`), each weighing as it is sure: the tempo is the one that most
    of them keep, and its confidence sinks with the share of those that keep another. Where some of them count half or
    twice of it, "other" is that tempo: which one is felt is not told. Onsets are the mean over the quarters, since
    what is an onset depends on what is around it.
    """
    none = {"bpm": 0.0, "confidence": 0.0}
    if level <= -70.0 or power.shape[1] < 8:
        return none, 0.0
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    decibels = np.maximum(decibels, float(decibels.max()) - 80.0)
    strength = np.maximum(np.diff(decibels, axis=1, prepend=decibels[:, :1]), 0.0).mean(axis=0)
    tempo, density = _stretch(strength, seconds)
    if seconds < 4 * SHORTEST_TEMPO_QUARTER:
        return tempo, density
    quarters = [_stretch(quarter, seconds / 4) for quarter in np.array_split(strength, 4)]
    if seconds >= 4 * SHORTEST_QUARTER:
        density = sum(onsets for _, onsets in quarters) / 4
    votes = [(found["bpm"], found["confidence"]) for found, _ in quarters if found["confidence"] > 0.0]
    sure = sum(each for _, each in votes)
    if sure <= 0.0 or tempo["bpm"] <= 0.0:
        return tempo, density

    def kept(beats: float) -> float:
        return sum(each for found, each in votes if _same_tempo(found, beats)) / sure

    chosen = max((beats for beats, _ in [(tempo["bpm"], 0.0), *votes]), key=lambda beats: round(kept(beats), 6))
    near = [(beats, each) for beats, each in votes if _same_tempo(beats, chosen)]
    if not _same_tempo(chosen, tempo["bpm"]):
        tempo = {"bpm": round(sum(beats * each for beats, each in near) / sum(each for _, each in near), 1)} | {
            "confidence": tempo["confidence"]
        }
    tempo["confidence"] = max(tempo["confidence"], sum(each for _, each in near) / 4)
    octaves = [(beats, kept(beats)) for beats in (tempo["bpm"] / 2, tempo["bpm"] * 2)]
    other, share = max(octaves, key=lambda entry: entry[1])
    tempo["confidence"] = _unit(tempo["confidence"] * min(1.0, (kept(tempo["bpm"]) + share) / 0.75))
    if share >= 0.2:
        tempo["other"] = round(other, 1)
    return tempo, density


def _same_tempo(one: float, other: float) -> bool:
    return 1 / SAME_TEMPO <= one / other <= SAME_TEMPO


def _stretch(strength: Floats, seconds: float) -> tuple[dict[str, float], float]:
    """Tempo and onsets a second of one stretch by itself, from the onset strength [frames]."""
    none = {"bpm": 0.0, "confidence": 0.0}
    threshold = max(0.8, float(np.median(strength) + 1.2 * strength.std()))
    peaks, _ = signal.find_peaks(strength, height=threshold, distance=4, prominence=0.5)
    density = len(peaks) / seconds
    if seconds < SHORTEST_TEMPO_SECONDS or float(strength.max()) < 0.5:
        return none, density
    rate = RATE / HOP
    centred = strength - strength.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(centred)]
    if correlation[0] <= 0:
        return none, density
    correlation = correlation / correlation[0]
    shortest, longest = int(rate * 60 / 240), min(int(rate * 60 / 40), len(centred) - 2)
    lags = np.arange(shortest, longest)
    # The sum over few pairs at long lags is small; the unbiased estimate keeps slow tempi comparable.
    unbiased = correlation[lags] * len(centred) / (len(centred) - lags)
    prior = np.exp(-0.5 * ((np.log2(60.0 * rate / lags) - math.log2(115.0)) / 0.7) ** 2)
    lag = int(lags[int(np.argmax(unbiased * prior))])
    exact = lag + _parabola(correlation, lag)
    return (
        {"bpm": round(60.0 * rate / exact, 1), "confidence": _unit(float(unbiased[lag - shortest]))},
        density,
    )


def centroid(magnitude: npt.NDArray[Any]) -> float:
    """Spectral centroid in Hz of magnitudes summed over time [bins from 0 to 8,000 Hz]; 0 for silence."""
    total = np.asarray(magnitude, dtype=np.float64)
    if float(total.sum()) <= 1e-6:
        return 0.0
    return round(float((total * np.linspace(0.0, RATE / 2, len(total))).sum() / total.sum()), 1)


def silence(windows: Sequence[Floats]) -> float:
    """Share (0..1) of 20 ms frames under -60 dB of full scale."""
    size = RATE // 50
    powers = []
    for window in windows:
        count = len(window) // size
        frames = window[: count * size].reshape(count, size) if count else window[None, :]
        powers.append((frames.astype(np.float64) ** 2).mean(axis=1))
    levels = 10 * np.log10(np.maximum(np.concatenate(powers), 1e-12))
    return _unit(float((levels < SILENCE_LEVEL).mean()))


def tags(mtt: npt.NDArray[Any], msd: npt.NDArray[Any], presence: float = 1.0) -> list[dict[str, Any]]:
    """The words for the sound, strongest first: at most ten, each with a confidence of at least .05.

    `mtt` and `msd` are the taggers' 50 probabilities each; `presence` (0..1) lowers all of them where little is to
    be heard. Raises `Invalid` for other shapes or numbers that are not finite.
    """
    rows = [np.asarray(row, dtype=np.float64).reshape(-1) for row in (mtt, msd)]
    if any(row.shape != (50,) or not np.isfinite(row).all() for row in rows):
        raise Invalid("the taggers gave something else than 50 finite numbers each; rebuild the models")
    by_label = [dict(zip(names, row, strict=True)) for names, row in zip((MTT_LABELS, MSD_LABELS), rows, strict=True)]
    confidence: dict[str, float] = {
        word.name: presence
        * word.trust
        * max([by_label[0][label] for label in word.mtt] + [by_label[1][label] for label in word.msd])
        for word in SOUND_WORDS
    }
    for one, other in OPPOSITES:
        weaker = one if confidence[one] < confidence[other] else other
        confidence[weaker] = 0.0
    kept = sorted(
        ((name, value) for name, value in confidence.items() if value >= LEAST_CONFIDENCE),
        key=lambda entry: (-entry[1], entry[0]),
    )
    return [{"name": name, "confidence": round(min(1.0, float(value)), 3)} for name, value in kept[:TAG_COUNT]]


def measure(windows: Sequence[Floats], mtt: Tagger, msd: Tagger) -> tuple[dict[str, Any], Floats]:
    """Everything measured of one sound, and its vector float32 [400] (MTT's 200 then MSD's 200 embeddings).

    `windows` come from `read_windows`; tags and embeddings are means over patches, weighted by each window's length.
    """
    powers, magnitude = [], np.zeros(257)
    for window in windows:
        spectrum = power_spectrum(window)
        powers.append(_MEL_FILTERS @ spectrum)
        magnitude += np.sqrt(spectrum).sum(axis=1)
    pieces = [patches(power) for power in powers]
    weights = np.concatenate(
        [np.full(len(piece), len(window) / len(piece)) for piece, window in zip(pieces, windows, strict=True)]
    )
    weights /= weights.sum()
    stacked = np.concatenate(pieces)
    outcome = [tagger(stacked) for tagger in (mtt, msd)]
    mean_tags = [weights @ np.asarray(result[0], dtype=np.float64) for result in outcome]
    vector = np.concatenate([weights @ np.asarray(result[1], dtype=np.float64) for result in outcome])
    seconds = sum(len(window) for window in windows) / RATE
    loud = loudness(windows)
    tempo, density = rhythm(np.concatenate(powers, axis=1), seconds, loud["level"])
    quiet = silence(windows)
    # A tagger has an opinion on digital silence too; the shorter and the emptier, the less it counts.
    presence = (1.0 - quiet) * min(1.0, seconds / 1.0)
    measurement = {
        "kind": "sound",
        "version": VERSION,
        "seconds": round(seconds, 3),
        "heard_seconds": round(seconds, 3),
        "tempo": tempo,
        "key": key(windows, loud["level"]),
        "loudness": loud,
        "brightness": {"centroid": centroid(magnitude)},
        "density": {"onsets": round(density, 3)},
        "silence": quiet,
        "tags": tags(mean_tags[0], mean_tags[1], presence),
    }
    return measurement, vector.astype(np.float32)


def _k_weighting() -> Floats:
    """BS.1770's two filters for 16 kHz, from the analogue prototypes (De Man 2014): shelf, then high pass."""
    sections = []
    for kind, frequency, quality, gain in (("shelf", 1681.97, 0.7072, 3.99984), ("high", 38.1355, 0.50033, 0.0)):
        turn = math.tan(math.pi * frequency / RATE)
        scale = 1.0 + turn / quality + turn**2
        if kind == "shelf":
            high = 10 ** (gain / 20)
            middle = high**0.4996667741545416
            numerator = [
                high + middle * turn / quality + turn**2,
                2 * (turn**2 - high),
                high - middle * turn / quality + turn**2,
            ]
            numerator = [value / scale for value in numerator]
        else:
            numerator = [1.0, -2.0, 1.0]
        denominator = [1.0, 2 * (turn**2 - 1) / scale, (1 - turn / quality + turn**2) / scale]
        sections.append(numerator + denominator)
    return np.array(sections, dtype=np.float32)


def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000.0 else 15.0 + math.log(hertz / 1000.0) / (math.log(6.4) / 27.0)


def _mel_to_hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * np.exp((math.log(6.4) / 27.0) * (mels - 15.0)))


def _parabola(values: npt.NDArray[Any], index: int) -> float:
    """Offset (-.5...5) of the top of the parabola through three neighbours: a lag finer than one frame."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[index - 1 : index + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / bend))


def _unit(value: float) -> float:
    return round(max(0.0, min(1.0, value)), 3)


_K_WEIGHTING = _k_weighting()
_MEL_FILTERS = mel_filters()
