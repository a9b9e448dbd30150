"""Turns GCompris' resource files into a catalogue of pictures and recordings.

`paintings.rcc` holds 22 artworks as jigsaw tiles, with each tile's place in a QML text; they are put together here.
`details.rcc` holds whole pictures, of which those in the public domain (eight by Van Gogh) are taken.
`explore_world_music.rcc` holds nine recordings. Titles, artists and years come from the QML texts, licences from the
README beside the files. Fetching the package is left to `debian`.
"""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from promenade.samples.catalogue import Row, SamplesUnavailable
from promenade.samples.resources import Resources

Floats = npt.NDArray[np.floating[Any]]

_PAINTINGS: Final = "gcompris/src/activities/paintings/resource/"
_DETAILS: Final = "gcompris/src/activities/details/resource/"
_MUSIC: Final = "gcompris/src/activities/explore_world_music/resource/"

# The package misspells some names and shortens one.
_ARTISTS: Final = {
    "Katsushika Hokusa": "Katsushika Hokusai",
    "Pieter Brugel": "Pieter Bruegel the Elder",
    "Vincent Van Gogh": "Vincent van Gogh",
    "Bazille": "Frédéric Bazille",
}
_STYLES: Final = {
    "Pierre-Auguste Renoir": "Impressionism",
    "Mary Cassatt": "Impressionism",
    "Frédéric Bazille": "Impressionism",
    "Vincent van Gogh": "Post-Impressionism",
    "Katsushika Hokusai": "Ukiyo-e",
    "Utagawa Hiroshige": "Ukiyo-e",
    "Giuseppe Arcimboldo": "Mannerism",
    "Leonardo da Vinci": "High Renaissance",
    "Michelangelo": "High Renaissance",
    "Giovanni Bellini": "Early Renaissance",
    "Albrecht Dürer": "Northern Renaissance",
    "Pieter Bruegel the Elder": "Northern Renaissance",
    "Wassily Kandinsky": "Abstract art",
}
# Born when: a year before that is a slip of the package, and left out rather than guessed.
_BORN: Final = {"Utagawa Hiroshige": 1797}

# What each recording is, from the page that the README names as its source; the package itself only names the region.
_RECORDINGS: Final = {
    "africa": ("Djembe accompaniment", "Michi Henning", "West African traditional", "drumming"),
    "america": ("Rock 'n' roll", "Karel Schmiedberger", "American popular", "rock 'n' roll"),
    "australia": ("Didgeridoo", "Jouke Kooistra and Rob Tol", "Australian traditional", "didgeridoo"),
    "beethoven": ("Symphony No. 9, second movement", "Ludwig van Beethoven", "European classical", "symphony"),
    "ireland": ("The Wind that Shakes the Barley", "peakfiddler", "Celtic traditional", "fiddle tune"),
    "italy": ("Ombra mai fu (Handel, Serse)", "Enrico Caruso", "European classical", "opera"),
    "japan": ("Taiko", "Scott Harding", "Japanese traditional", "drumming"),
    "mexico": ("Himno Nacional Mexicano", "Mariachi México de Pepe Villa", "Mexican traditional", "mariachi"),
    "middleeast": ("Kâtibim (Üsküdar'a gider iken)", "Safiye Ayla", "Turkish traditional", "song"),
}


@dataclass(frozen=True)
class Label:
    """What a QML instruction says of a picture; `year` may be a span such as 1830-1833, or empty."""

    artist: str
    title: str
    year: str


@dataclass(frozen=True)
class Tile:
    """One jigsaw tile: RGBA pixels and the place of its centre as a share (0..1) of the board."""

    image: Image.Image
    x: float
    y: float


def parse_label(text: str) -> Label:
    """Take `Artist, Title - Year` apart, as the package writes it (with its slips).

    A year that is before the artist's birth is left out. Without a comma all is title.
    """
    words = " ".join(text.split()).rstrip(" .")
    match = re.search(r"[\s,–-]+(\d{4}(?:\s*[-–]\s*\d{1,4})?)$", words)
    year = ""
    if match is not None:
        words, year = words[: match.start()].rstrip(" ,-–"), _full_years(match[1])
    artist, comma, title = words.partition(",")
    if not comma:
        return Label("", words, year)
    artist = _ARTISTS.get(artist.strip(), artist.strip())
    if year and int(year[:4]) < _BORN.get(artist, 0):
        year = ""
    return Label(artist, _capitals(title.strip()), year)


def _full_years(years: str) -> str:
    """`1503-19` and `1887-8` as `1503-1519` and `1887-1888`."""
    first, _, last = re.sub(r"\s", "", years).replace("–", "-").partition("-")
    return f"{first}-{first[: 4 - len(last)]}{last}" if last else first


def _capitals(title: str) -> str:
    """The package's two titles in mixed capitals, mended; every other title is kept."""
    return {"Kazusa sea Route": "Kazusa Sea Route", "Girls At The Piano": "Girls at the Piano"}.get(title, title)


def parse_licences(readme: str) -> dict[str, str]:
    """Licence by file name, from a README of blocks `Copyright:`, `License:`, names of files."""
    licences: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", readme):
        stated = re.search(r"^License:\s*(.+)$", block, re.MULTILINE)
        if stated is None:
            continue
        for name in re.findall(r"^\s*(\S+\.(?:webp|ogg|svg|png|jpg|oga))\s*$", block, re.MULTILINE):
            licences[name] = _licence_name(stated[1].strip())
    return licences


def _licence_name(stated: str) -> str:
    plain = {"public domain": "Public domain", "gplv3 or later": "GPL-3.0-or-later"}.get(stated.lower())
    return plain or re.sub(r"^CC-(BY\S*) ", r"CC-\1-", stated)


def assemble(tiles: list[Tile], width: int, height: int) -> Image.Image:
    """Put jigsaw tiles together to one picture.

    The stated places are rounded to a thousandth of the board, so neighbours are up to two pixels off. Each tile
    is moved by at most two pixels until the sum of all coverages (alpha, 0..1) is nearest to one everywhere; then
    colours are averaged by coverage, so that two half-transparent edges make one full seam, and pixels that no tile
    covers take the mean of their neighbours. Ragged borders are cut off.

    Args:
        width, height: size of the board in pixels; tiles may hang over its edge.

    Raises:
        SamplesUnavailable: there are no tiles.
    """
    if not tiles:
        raise SamplesUnavailable("a jigsaw without tiles")
    layers: list[Floats] = [np.asarray(tile.image.convert("RGBA")).astype(np.float32) / 255 for tile in tiles]
    places = [[round(t.y * height - t.image.height / 2), round(t.x * width - t.image.width / 2)] for t in tiles]
    top, left = (min(place[axis] for place in places) - 4 for axis in (0, 1))
    places = [[y - top, x - left] for y, x in places]
    shape = (
        max(y + layer.shape[0] for (y, _), layer in zip(places, layers, strict=True)) + 4,
        max(x + layer.shape[1] for (_, x), layer in zip(places, layers, strict=True)) + 4,
    )
    _settle(layers, places, shape)
    colour, coverage = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
    for layer, (y, x) in zip(layers, places, strict=True):
        window = np.s_[y : y + layer.shape[0], x : x + layer.shape[1]]
        colour[window] += layer[..., :3] * layer[..., 3:]
        coverage[window] += layer[..., 3]
    rows, columns = _solid(coverage.mean(axis=1)), _solid(coverage.mean(axis=0))
    colour, coverage = colour[rows, columns], coverage[rows, columns]
    colour = _fill(colour, coverage)
    return Image.fromarray((np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8), "RGB")


def _settle(layers: list[Floats], places: list[list[int]], shape: tuple[int, int]) -> None:
    """Move tiles (in place) to where gaps and overlaps are least, two rounds, one tile after another."""
    total = np.zeros(shape, np.float32)
    for layer, (y, x) in zip(layers, places, strict=True):
        total[y : y + layer.shape[0], x : x + layer.shape[1]] += layer[..., 3]
    moves = sorted(((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)), key=lambda move: np.hypot(*move))
    for _ in range(2):
        moved = False
        for layer, place in zip(layers, places, strict=True):
            y, x = place
            alpha = layer[..., 3]
            tall, wide = alpha.shape
            around = total[y - 2 : y + tall + 2, x - 2 : x + wide + 2]
            around[2:-2, 2:-2] -= alpha
            # |sum - 1| changes only under the tile: what counts is its overlap with the others minus what it fills.
            costs = []
            for dy, dx in moves:
                under = around[2 + dy : 2 + dy + tall, 2 + dx : 2 + dx + wide]
                costs.append(float(np.abs(under + alpha - 1).sum() - np.abs(under - 1).sum()) + np.hypot(dy, dx))
            dy, dx = moves[int(np.argmin(costs))]
            around[2 + dy : 2 + dy + tall, 2 + dx : 2 + dx + wide] += alpha
            limits = (shape[0] - tall - 2, shape[1] - wide - 2)
            if (dy or dx) and 2 <= y + dy <= limits[0] and 2 <= x + dx <= limits[1]:
                place[:] = [y + dy, x + dx]
                moved = True
            elif dy or dx:
                around[2 + dy : 2 + dy + tall, 2 + dx : 2 + dx + wide] -= alpha
                around[2:-2, 2:-2] += alpha
        if not moved:
            break


def _solid(profile: Floats) -> slice:
    """From the first to the last line that is covered nearly as well as the middle one is."""
    full = float(np.median(profile[profile > 0.05]))
    good = np.flatnonzero(profile > 0.96 * full)
    return slice(int(good[0]), int(good[-1]) + 1)


def _fill(colour: Floats, coverage: Floats) -> Floats:
    """Divide by coverage; where there is next to none, spread in the neighbours' colours."""
    known = coverage > 0.2
    picture: Floats = np.where(known[..., None], colour / np.maximum(coverage, 0.2)[..., None], 0)
    for _ in range(64):
        if known.all():
            break
        sums, counts = np.zeros_like(picture), np.zeros_like(coverage)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            near = np.roll(known, step, axis)
            edge: list[Any] = [slice(None), slice(None)]
            edge[axis] = 0 if step == 1 else -1
            near[tuple(edge)] = False  # roll wraps around; the far side is no neighbour
            sums += np.roll(picture, step, axis) * near[..., None]
            counts += near
        new = ~known & (counts > 0)
        picture[new] = sums[new] / counts[new][:, None]
        known |= new
    return picture


def write_paintings(content: bytes, folder: Path) -> list[Row]:
    """Rebuild every jigsaw of `paintings.rcc` as a JPEG (quality 95, 4:4:4) in `folder`."""
    resources = Resources(content, "paintings.rcc")
    licences = parse_licences(resources.text(f"{_PAINTINGS}image/README"))
    rows = []
    for board in _boards(resources, _PAINTINGS):
        text = resources.text(board)
        label = parse_label(_instruction(text, board))
        tiles, names, size = [], [], (702, 515)
        for block in re.findall(r"\{[^{}]*\"pixmapfile\"[^{}]*\}", text):
            values = dict(re.findall(r'"(\w+)"\s*:\s*"?([^",\n}]+)', block))
            if values.get("type") == "SHAPE_BACKGROUND_IMAGE":
                size = (int(values["width"]), int(values["height"]))
                continue
            names.append(Path(values["pixmapfile"]).name)
            with Image.open(io.BytesIO(resources.read(_PAINTINGS + values["pixmapfile"]))) as image:
                tiles.append(Tile(image.convert("RGBA"), float(values["x"]), float(values["y"])))
        file = f"{_file_name(label)}.jpg"
        assemble(tiles, *size).save(folder / file, quality=95, subsampling=0)
        rows.append(_picture_row(file, label, licences.get(names[0], "")))
    return rows


def write_details(content: bytes, folder: Path) -> list[Row]:
    """Copy the whole pictures of `details.rcc` that its README puts in the public domain to `folder`."""
    resources = Resources(content, "details.rcc")
    licences = parse_licences(resources.text(f"{_DETAILS}image/README"))
    rows = []
    for board in _boards(resources, _DETAILS):
        text = resources.text(board)
        picture = re.search(r'"pixmapfile"\s*:\s*"([^"]*_background\.webp)"', text)
        if picture is None or licences.get(Path(picture[1]).name) != "Public domain":
            continue
        label = parse_label(_instruction(text, board))
        file = f"{_file_name(label)}.webp"
        (folder / file).write_bytes(resources.read(_DETAILS + picture[1]))
        rows.append(_picture_row(file, label, "Public domain"))
    return rows


def write_music(content: bytes, folder: Path) -> list[Row]:
    """Copy the recordings of `explore_world_music.rcc` to `folder`."""
    resources = Resources(content, "explore_world_music.rcc")
    licences = parse_licences(resources.text(f"{_MUSIC}music/README"))
    text = "".join(resources.text(name) for name in resources.names() if name.endswith(".qml"))
    rows = []
    for region, stem in re.findall(r'"title"\s*:\s*qsTr\("([^"]+)"\).*?/music/(\w+)\.\$CA', text, re.DOTALL):
        title, artist, style, genre = _RECORDINGS.get(stem, (f"Music of {region}", "", f"{region}, traditional", ""))
        source = f"{_MUSIC}music/{stem}.ogg"
        if source not in resources.names():
            continue
        file = f"{_plain(title)}.ogg"
        (folder / file).write_bytes(resources.read(source))
        rows.append(Row(file, "track", title, artist, "", style, genre, licences.get(f"{stem}.ogg", "")))
    return rows


def credits(paintings: bytes, details: bytes, music: bytes) -> str:
    """The packages' own licence texts, to lie beside the media as those under CC-BY ask for."""
    parts = [(paintings, "paintings.rcc", _PAINTINGS + "image/README")]
    parts += [(details, "details.rcc", _DETAILS + "image/README")]
    parts += [(music, "explore_world_music.rcc", _MUSIC + "music/README")]
    return "\n".join(f"=== {name}\n\n{Resources(content, name).text(path)}" for content, name, path in parts)


def _boards(resources: Resources, root: str) -> list[str]:
    names = [name for name in resources.names() if re.fullmatch(re.escape(root) + r"board/board\d+_\d+\.qml", name)]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name.rpartition("/")[2])])


def _instruction(text: str, board: str) -> str:
    match = re.search(r'instruction\s*:\s*qsTr\("([^"]+)"', text)
    if match is None:
        raise SamplesUnavailable(f"{board} names no picture; this version of the package is laid out in another way")
    return match[1]


def _picture_row(file: str, label: Label, licence: str) -> Row:
    return Row(file, "artwork", label.title, label.artist, label.year, _STYLES.get(label.artist, ""), "", licence)


def _file_name(label: Label) -> str:
    return _plain(f"{label.artist} {label.title}")


def _plain(text: str) -> str:
    """Lower-case ASCII letters and digits with hyphens, 80 characters at most."""
    letters = unicodedata.normalize("NFKD", text.replace("'", "")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:80].rstrip("-")
