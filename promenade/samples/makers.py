"""Paints pictures and composes tracks, for demonstrations and measurements where no real collection can be had.

Everything follows from (seed, number): the same pair gives the same bytes, so a collection of 5,000 begins with the
collection of 100. The pictures are of eight families, the tracks span slow and quick, major and minor, thin and
dense. The catalogue says plainly that they are made. Nothing here is meant as art; it is meant to differ in
palette, light, texture, tempo and mode as real media do.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from promenade.samples.catalogue import Row

Floats = npt.NDArray[np.floating[Any]]
Generator = np.random.Generator

ARTIST: Final = "Promenade's sample maker"
RATE: Final = 22_050
"""Sample rate of made tracks in hertz."""

_HUES: Final = (
    (0.00, "crimson"),
    (0.04, "vermilion"),
    (0.08, "rust"),
    (0.11, "ochre"),
    (0.15, "straw"),
    (0.22, "olive"),
    (0.33, "green"),
    (0.44, "jade"),
    (0.51, "teal"),
    (0.58, "azure"),
    (0.65, "indigo"),
    (0.75, "violet"),
    (0.85, "magenta"),
    (0.94, "rose"),
)


class Palette:
    """Colours that go together: one leading hue, its neighbours or its opposite, one key of light."""

    def __init__(self, rng: Generator) -> None:
        self.hue, self.name = _HUES[int(rng.integers(len(_HUES)))]
        self.saturation = float(rng.choice([0.12, 0.35, 0.6, 0.85]))
        if self.saturation < 0.2:
            self.name += " grey"
        self.light = float(rng.choice([0.25, 0.45, 0.65, 0.85]))
        self._spread = float(rng.choice([0.03, 0.08, 0.33, 0.5]))
        self._rng = rng

    def colour(self, light: float | None = None, away: float | None = None) -> Floats:
        """One RGB colour (0..1); `light` 0..1 sets its value, `away` 0..1 how far from the leading hue it is."""
        rng = self._rng
        away = float(rng.choice([0.0, 0.3, 1.0])) if away is None else away
        hue = (self.hue + self._spread * away + rng.normal(0, 0.012)) % 1
        value = np.clip(self.light + rng.normal(0, 0.16) if light is None else light, 0.04, 0.99)
        saturation = np.clip(self.saturation + rng.normal(0, 0.08), 0, 1)
        return np.array(colorsys.hsv_to_rgb(hue, float(saturation), float(value)), np.float32)


def _noise(rng: Generator, height: int, width: int, cells: int, octaves: int = 4, fade: float = 0.5) -> Floats:
    """Layered noise [height, width], mean 0, about -1..1: random grids enlarged smoothly, each finer and fainter."""
    total = np.zeros((height, width), np.float32)
    strength = 1.0
    for octave in range(octaves):
        rows, columns = max(2, cells * 2**octave * height // width), max(2, cells * 2**octave)
        grid = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
        total += strength * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        strength *= fade
    return total / np.float32(1.3)


def _mix(first: Any, second: Any, share: Any) -> Floats:
    """`first` where share is 0, `second` where it is 1; share [height, width], colours [3] or [height, width, 3]."""
    amount = np.clip(share, 0, 1)[..., None]
    blended: Floats = (first * (1 - amount) + second * amount).astype(np.float32)
    return blended


def _lay(picture: Floats, colour: Any, share: Floats) -> None:
    """As `_mix`, onto `picture` itself and only around where share is above 0: for shapes that cover little."""
    rows, columns = np.flatnonzero((share > 0).any(axis=1)), np.flatnonzero((share > 0).any(axis=0))
    if len(rows) and len(columns):
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        part = colour[window] if np.ndim(colour) == 3 else colour
        picture[window] = _mix(picture[window], part, share[window])


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Rows and columns as shares 0..1, shapes [height, 1] and [1, width]."""
    return (
        np.linspace(0, 1, height, dtype=np.float32)[:, None],
        np.linspace(0, 1, width, dtype=np.float32)[None, :],
    )


def _colour_field(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    picture = np.broadcast_to(palette.colour(), (height, width, 3)).astype(np.float32)
    wobble = 0.012 * _noise(rng, height, width, 5, 3)
    edges = np.sort(rng.uniform(0.06, 0.94, 2 * int(rng.integers(1, 4))))
    soft = float(rng.uniform(0.006, 0.05))
    for top, bottom in zip(edges[::2], edges[1::2], strict=True):
        inside = np.minimum.reduce([rows - top + wobble, bottom - rows + wobble, columns - 0.06 + wobble])
        inside = np.minimum(inside, 0.94 - columns + wobble)
        picture = _mix(picture, palette.colour(), 0.5 + inside / soft)
    return picture * (1 + 0.06 * _noise(rng, height, width, 24, 3))[..., None]


def _landscape(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, _ = _grid(height, width)
    share = np.broadcast_to(rows, (height, width)) * 1.3
    picture = _mix(palette.colour(palette.light, 0), palette.colour(min(0.98, palette.light + 0.25), 1), share)
    clouds = _noise(rng, height, width, 3, 5, 0.55)
    picture = _mix(picture, np.float32(min(1, palette.light + 0.2)), (clouds - 0.1) * float(rng.uniform(0, 0.8)))
    layers, soil = int(rng.integers(3, 6)), _noise(rng, height, width, 14, 4, 0.7)
    for layer in range(layers):
        line = rng.uniform(0.4, 0.5) + 0.5 * layer / layers
        ridge = line + float(rng.uniform(0.03, 0.14)) * _noise(rng, 2, width, 2 + layer, 6, 0.5)[0][None, :]
        near = (layer + 1) / layers
        ground = palette.colour(palette.light * (1.05 - 0.75 * near), near)
        shade = 1 + 0.22 * near * np.roll(soil, 37 * layer, axis=1)
        picture = _mix(picture, ground * shade[..., None], (rows - ridge) * height / 2)
    return picture


def _seascape(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    horizon = float(rng.uniform(0.35, 0.65))
    sky = _mix(
        palette.colour(palette.light, 0),
        palette.colour(min(0.98, palette.light + 0.3), 1),
        rows / horizon + 0 * columns,
    )
    clouds = np.asarray(
        Image.fromarray(_noise(rng, max(2, height // 3), width, 3, 4)).resize((width, height)), np.float32
    )
    sky = _mix(sky, np.float32(0.95 * min(1, palette.light + 0.15)), (clouds - 0.15) * 0.6)
    sun_x, sun_y = rng.uniform(0.15, 0.85), horizon * rng.uniform(0.3, 0.95)
    distance = np.hypot((columns - sun_x) * width / height, rows - sun_y)
    glow = palette.colour(0.98, 1)
    sky = _mix(sky, glow, np.exp(-((distance / 0.2) ** 2)) * 0.5 + (0.05 - distance) * height / 3)
    depth = np.clip((rows - horizon) / (1 - horizon), 0, 1)
    waves = _noise(rng, height, max(2, width // 6), 8, 4, 0.7)
    waves = np.asarray(Image.fromarray(waves).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    sea = palette.colour(palette.light * 0.6, 0) * (1.1 - 0.5 * depth + 0.25 * waves)[..., None]
    path = np.exp(-(((columns - sun_x) / (0.03 + 0.16 * depth)) ** 2)) * (0.4 + 0.6 * (waves > 0.1))
    return _mix(sky, _mix(sea, glow, path * 0.7), (rows - horizon) * height / 2 + 0 * columns)


def _night(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    dark, low = palette.colour(0.07, 0), palette.colour(0.3, 0.3)
    picture = _mix(dark, low, rows**2 + 0 * columns)
    cloud = _noise(rng, height, width, 3, 5, 0.6) - np.abs(rows - columns * rng.uniform(-1, 1) - rng.uniform(0, 0.8))
    picture = _mix(picture, palette.colour(0.5, 1), cloud * 0.6)
    stars = int(rng.integers(60, 700))
    ys, xs = rng.integers(0, height - 1, stars), rng.integers(0, width - 1, stars)
    shine = rng.power(0.6, stars).astype(np.float32)[:, None]
    for dy, dx, part in ((0, 0, 1.0), (0, 1, 0.45), (1, 0, 0.45)):
        picture[ys + dy, xs + dx] = np.maximum(picture[ys + dy, xs + dx], shine * part)
    if rng.random() < 0.6:
        radius = rng.uniform(0.04, 0.13)
        distance = np.hypot(rows - rng.uniform(0.15, 0.5), (columns - rng.uniform(0.15, 0.85)) * width / height)
        picture = _mix(picture, palette.colour(0.9, 0), np.exp(-((distance / (2.2 * radius)) ** 2)) * 0.35)
        moon = palette.colour(0.95, 0) * (1 + 0.12 * _noise(rng, height, width, 16, 3))[..., None]
        _lay(picture, moon, (radius - distance) * height / 2)
    ridge = rng.uniform(0.7, 0.92) + 0.07 * _noise(rng, 2, width, 3, 6, 0.55)[0][None, :]
    return _mix(picture, dark * 0.4, (rows - ridge) * height / 2)


def _geometric(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    x = columns * width / height
    picture = np.broadcast_to(palette.colour(float(rng.choice([0.12, 0.93]))), (height, width, 3)).astype(np.float32)
    for _ in range(int(rng.integers(5, 18))):
        cy, cx, size = rng.uniform(0, 1), rng.uniform(0, width / height), rng.uniform(0.03, 0.3)
        angle = rng.uniform(0, np.pi)
        cosine, sine = float(np.cos(angle)), float(np.sin(angle))
        along = (x - cx) * cosine + (rows - cy) * sine
        across = (rows - cy) * cosine - (x - cx) * sine
        shape = int(rng.integers(4))
        if shape == 0:
            inside = size - np.hypot(along, across)
        elif shape == 1:
            inside = rng.uniform(0.008, 0.03) - np.abs(np.hypot(along, across) - size)
        elif shape == 2:
            inside = np.minimum(size - np.abs(along), size * rng.uniform(0.05, 1) - np.abs(across))
        else:
            inside = np.minimum(np.minimum(across, along), size - along - across)
        _lay(picture, palette.colour(), inside * height)
    return picture


def _weave(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    angle = float(rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)]))
    bent = float(rng.uniform(0, 0.08)) * _noise(rng, height, width, 3, 2)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    place = (rows * sine + columns * cosine + bent) * float(rng.uniform(5, 26))
    bands = np.stack([palette.colour() for _ in range(int(rng.integers(2, 6)))])
    picture: Floats = bands[np.floor(place).astype(int) % len(bands)]
    if rng.random() < 0.5:
        other = (rows * cosine - columns * sine) * float(rng.uniform(5, 26))
        picture = picture * (0.8 + 0.2 * np.sign(np.sin(np.pi * other)))[..., None]
    return picture * (1 + 0.09 * _noise(rng, height, width, 40, 2, 0.8))[..., None]


def _mist(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    air = palette.colour(min(0.97, palette.light + 0.2), 0)
    picture = _mix(air, palette.colour(palette.light, 0.3), rows + 0 * columns)
    for layer in range(3):
        near = (layer + 1) / 3
        ink = palette.colour(palette.light * (1 - 0.8 * near), 0.3)
        for _ in range(int(rng.integers(3, 11))):
            lean = rng.uniform(-0.08, 0.08)
            half = rng.uniform(0.003, 0.012) * (0.5 + near) * (0.4 + rows)
            trunk = half - np.abs(columns - rng.uniform(0, 1) - lean * (1 - rows))
            trunk = np.minimum(trunk, (rng.uniform(0.6, 0.7) + 0.3 * near - rows) * 0.2)
            _lay(picture, ink, trunk * width * 0.8)
        veil = np.clip(_noise(rng, height, width, 2, 4) * 0.5 + rows - 0.1, 0, 1) * (1 - near) * 0.9
        picture = _mix(picture, air, veil)
    return picture


def _still_life(rng: Generator, palette: Palette, height: int, width: int) -> Floats:
    rows, columns = _grid(height, width)
    x, aspect = columns * width / height, width / height
    table = float(rng.uniform(0.5, 0.7))
    wall = palette.colour(palette.light * 0.7, 0) * (1 + 0.1 * _noise(rng, height, width, 6, 4))[..., None]
    cloth = palette.colour(min(0.95, palette.light + 0.15), 0.3) * (1.1 - 0.3 * rows + 0 * columns)[..., None]
    picture = _mix(wall, cloth, (rows - table) * height / 2 + 0 * columns)
    lamp = 1 if rng.random() < 0.5 else -1
    for _ in range(int(rng.integers(2, 7))):
        radius = rng.uniform(0.06, 0.17)
        cy, cx = table + rng.uniform(-0.06, 0.18) - radius * 0.3, rng.uniform(0.12, 0.88) * aspect
        dy, dx = (rows - cy) / radius, (x - cx) / radius
        shadow = 1 - np.hypot((dx - 0.5 * lamp) / 1.3, (dy - 0.9) / 0.3)
        _lay(picture, picture * 0.45, shadow * 2)
        depth = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
        lit = np.clip(0.25 + 0.75 * (depth * 0.6 - 0.5 * lamp * dx - 0.5 * dy), 0.1, 1.2)
        body = palette.colour(0.85, None) * lit[..., None] + 0.35 * np.clip(lit - 0.95, 0, 1)[..., None]
        _lay(picture, body, (1 - np.hypot(dx, dy)) * radius * height)
    return picture * (1 + 0.05 * _noise(rng, height, width, 30, 2, 0.8))[..., None]


_Painter = Callable[[Generator, Palette, int, int], Floats]
_FAMILIES: Final[tuple[tuple[str, str, str, _Painter], ...]] = (
    ("Study", "colour field", "abstract", _colour_field),
    ("Hills", "layered noise", "landscape", _landscape),
    ("Sea", "layered noise", "seascape", _seascape),
    ("Night", "layered noise", "nocturne", _night),
    ("Composition", "geometric", "abstract", _geometric),
    ("Weave", "pattern", "abstract", _weave),
    ("Mist", "ink wash", "landscape", _mist),
    ("Table", "shaded spheres", "still life", _still_life),
)


def write_picture(folder: Path, number: int, seed: int) -> Row:
    """Paint picture `number` (from 0) of this seed as a JPEG in `folder`, 320-512 pixels a side."""
    rng = np.random.default_rng([seed, 1, number])
    word, style, genre, paint = _FAMILIES[number % len(_FAMILIES)]
    palette = Palette(rng)
    width, height = (int(rng.integers(320, 513)) for _ in range(2))
    picture = paint(rng, palette, height, width)
    grain = rng.normal(0, rng.uniform(0.0, 0.03), (height // 2 + 1, width // 2 + 1, 1)).astype(np.float32)
    picture = picture + grain.repeat(2, 0).repeat(2, 1)[:height, :width]
    pixels = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    file = f"picture-{number + 1:05d}.jpg"
    Image.fromarray(pixels, "RGB").save(folder / file, quality=92)
    title = f"{word} in {palette.name} no. {number + 1}"
    return Row(file, "artwork", title, ARTIST, "", style, genre, "CC0-1.0")


_MODES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_PROGRESSIONS: Final = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 2, 3, 0))
_TIMBRES: Final = (
    ("bells", (1.0, 2.76, 5.4, 8.9), (1.0, 0.5, 0.25, 0.12), 3.0),
    ("strings", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (1.0, 0.5, 0.4, 0.25, 0.2, 0.12), 0.6),
    ("flutes", (1.0, 2.0, 3.0), (1.0, 0.2, 0.06), 0.8),
    ("keys", (1.0, 2.0, 3.0, 4.0), (1.0, 0.45, 0.25, 0.1), 4.5),
    ("organ", (0.5, 1.0, 2.0, 3.0, 4.0), (0.5, 1.0, 0.6, 0.3, 0.3), 0.1),
    ("plucked strings", (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 0.7, 0.5, 0.35, 0.25), 7.0),
)


def _tone(frequency: float, seconds: float, timbre: int, attack: float) -> Floats:
    """One note: partials of a timbre that fade at the timbre's speed, higher ones sooner."""
    _, partials, strengths, fade = _TIMBRES[timbre]
    time = np.arange(int(seconds * RATE), dtype=np.float32) / RATE
    note = np.zeros_like(time)
    for partial, strength in zip(partials, strengths, strict=True):
        if partial * frequency < 0.45 * RATE:
            note += (
                strength
                * np.sin(2 * np.pi * partial * frequency * time)
                * np.exp(-fade * (0.4 + 0.3 * partial) * time)
            )
    shape = np.minimum(time / attack, 1) * np.minimum((seconds - time) / 0.04, 1)
    tone: Floats = (note * shape).astype(np.float32)
    return tone


def write_track(folder: Path, number: int, seed: int) -> Row:
    """Compose track `number` (from 0) of this seed as a FLAC file in `folder`: mono, 8-20 seconds."""
    rng = np.random.default_rng([seed, 2, number])
    mode = ("major", "minor")[number % 2]
    tempo = float(rng.choice([52, 66, 80, 96, 116, 138, 160]))
    timbre, bass = (int(rng.integers(len(_TIMBRES))) for _ in range(2))
    notes_a_beat = int(rng.choice([1, 1, 2, 2, 4] if tempo < 120 else [1, 2, 2]))
    seconds, tonic = float(rng.uniform(8, 20)), int(rng.integers(48, 60))
    drums = bool(rng.random() < (0.7 if tempo >= 96 else 0.15))
    chords = _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]
    beat, scale = 60 / tempo, _MODES[mode]
    sound = np.zeros(int(seconds * RATE), np.float32)

    def pitch(step: int) -> float:
        return float(440 * 2 ** ((tonic + 12 * (step // 7) + scale[step % 7] - 69) / 12))

    def add(note: Floats, start: float, strength: float) -> None:
        begin = int(start * RATE)
        part = sound[begin : begin + len(note)]
        part += strength * note[: len(part)]

    step = 7
    density = float(rng.uniform(0.45, 0.98))
    for number_of_beat in range(int(seconds / beat)):
        start = number_of_beat * beat
        chord = chords[number_of_beat // 4 % 4]
        if number_of_beat % 4 == 0:
            for third in (0, 2, 4):
                add(_tone(pitch(chord + third), 4 * beat, bass, 0.03), start, 0.16)
            add(_tone(pitch(chord - 7), 4 * beat, bass, 0.03), start, 0.3)
        for part in range(notes_a_beat):
            if rng.random() > density:
                continue
            step = int(np.clip(step + rng.choice([-2, -1, -1, 1, 1, 2, 4, -4]), 3, 17))
            if part == 0 and rng.random() < 0.6:  # on the beat the tune mostly rests on the chord
                step = 7 + chord + int(rng.choice([0, 2, 4]))
            length = beat / notes_a_beat * float(rng.choice([0.9, 1.4]))
            add(_tone(pitch(step), length, timbre, 0.012), start + part * beat / notes_a_beat, 0.34)
        if drums:
            time = np.arange(int(0.18 * RATE), dtype=np.float32) / RATE
            kick = np.sin(2 * np.pi * (50 * time + 3 * (1 - np.exp(-30 * time)))) * np.exp(-22 * time)
            snare = rng.normal(0, 0.4, len(time)) * np.exp(-30 * time)
            add((kick if number_of_beat % 2 == 0 else snare).astype(np.float32), start, 0.7)
    swell = float(rng.uniform(0, 0.7))
    place = np.linspace(0, 1, len(sound), dtype=np.float32)
    sound *= 1 - swell * (1 - np.sin(np.pi * place)) if number % 3 else 1 - swell * (1 - place)
    sound *= (
        np.minimum(1, (1 - place) * seconds / 0.6) * float(rng.uniform(0.25, 0.9)) / max(1e-6, np.abs(sound).max())
    )
    file = f"track-{number + 1:04d}.flac"
    soundfile.write(folder / file, (sound * 32767).astype(np.int16), RATE, format="FLAC", subtype="PCM_16")
    pace = "Slow" if tempo < 75 else "Walking" if tempo < 105 else "Quick"
    title = f"{pace} piece for {_TIMBRES[timbre][0]} no. {number + 1}"
    return Row(file, "track", title, ARTIST, "", f"additive synthesis, {mode}", "instrumental", "CC0-1.0")
