"""What can be measured of one picture (or one part of one): palette, light, colour, texture, composition, motifs.

Pure functions from pixels and the classifier's probabilities to one plain dictionary; the same pixels give the same
dictionary. Running the network, reading events and writing sentences are left to others: the Triton model
`measure_picture` runs the network, `edge_models.captions` writes the sentences.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from edge_models.picture_names import COLOUR_NAMES, MOTIFS, Motif
from edge_models.triton_model import Invalid

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

VERSION = "2"
# The contract's longest side. Checked before decoding, so that a small file cannot unfold into gigabytes.
LONGEST_SIDE = 1024
# Palette and light are properties of areas: more pixels than this change no name and cost milliseconds.
AREA_SIDE = 72
# Brush strokes and edges need more: at this side the strokes of a painting are two or three pixels wide.
TEXTURE_SIDE = 256
CLUSTERS = 8
PALETTE_LENGTH = 6
SMALLEST_SHARE = 0.03
TAG_COUNT = 8
LEAST_CONFIDENCE = 0.05


def read_picture(data: bytes) -> Bytes:
    """Decode one encoded picture to RGB pixels, uint8 [height, width, 3].

    Raises `Invalid` for empty bytes, a format that cannot be read, a damaged file, or a side over 1024 pixels.
    """
    if not data:
        raise Invalid("the picture is empty (0 bytes); send an encoded JPEG or PNG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as opened:
                if max(opened.size) > LONGEST_SIDE:
                    raise Invalid(
                        f"the picture is {opened.width} x {opened.height}; send at most {LONGEST_SIDE} pixels a side"
                    )
                return np.asarray(opened.convert("RGB"), dtype=np.uint8)
    except Invalid:
        raise
    # Pillow's decoders raise many kinds of exception for damaged files (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise Invalid(f"the picture cannot be decoded ({error}); send an encoded JPEG or PNG") from error


def network_input(pixels: Bytes) -> Floats:
    """EfficientNet-Lite0's input: float32 [3, 224, 224], bicubic, (x - 127) / 128 (the weights' own preparation)."""
    resized = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(((np.asarray(resized, dtype=np.float32) - 127.0) / 128.0).transpose(2, 0, 1))


def to_lab(colours: npt.NDArray[Any]) -> Floats:
    """sRGB 0..255 [..., 3] to CIELAB (D65, 2 degrees): L 0..100, a and b about -110..110. IEC 61966-2-1, CIE 15."""
    scaled = np.asarray(colours, dtype=np.float32) / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
        dtype=np.float32,
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lab = np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1
    )
    return lab.astype(np.float32)


_NAMES = tuple(COLOUR_NAMES)
_NAMED_LAB = to_lab(np.array(list(COLOUR_NAMES.values())))


def colour_name(rgb: npt.NDArray[Any]) -> str:
    """The nearest colour name in CIELAB (CIE76 distance, lightness counted a little less than hue and chroma)."""
    difference = (to_lab(rgb) - _NAMED_LAB) * np.array([0.8, 1.0, 1.0], dtype=np.float32)
    return _NAMES[int(np.argmin((difference**2).sum(axis=1)))]


def shrink(pixels: Bytes, side: int) -> Bytes:
    """The picture with its longest side at most `side`, averaged over areas; never a side of 0."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def palette(pixels: Bytes, lab: Floats) -> list[dict[str, Any]]:
    """Up to six named colours with their mean sRGB and share of the area, largest first.

    k-means in CIELAB with a fixed seed; clusters that get one name are joined, so no name comes twice.
    """
    rgb_rows = pixels.reshape(-1, 3).astype(np.float64)
    lab_rows = lab.reshape(-1, 3).astype(np.float64)
    distinct, membership = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    membership = membership.reshape(-1)
    if len(distinct) > CLUSTERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster is no trouble here: it simply has no share
            _, membership = kmeans2(lab_rows, CLUSTERS, iter=12, minit="++", seed=0, missing="warn")
    by_name: dict[str, tuple[float, npt.NDArray[np.float64]]] = {}
    for cluster in np.unique(membership):
        chosen = rgb_rows[membership == cluster]
        mean = chosen.mean(axis=0)
        name = colour_name(mean)
        share, total = by_name.get(name, (0.0, np.zeros(3)))
        by_name[name] = (share + len(chosen) / len(rgb_rows), total + chosen.sum(axis=0))
    ordered = sorted(by_name.items(), key=lambda entry: (-entry[1][0], entry[0]))
    kept = [entry for entry in ordered if entry[1][0] >= SMALLEST_SHARE][:PALETTE_LENGTH] or ordered[:1]
    return [
        {
            "name": name,
            "rgb": [round(float(value)) for value in total / (share * len(rgb_rows))],
            "share": round(share, 3),
        }
        for name, (share, total) in kept
    ]


def light_and_colour(lab: Floats) -> tuple[dict[str, Any], dict[str, Any]]:
    """Brightness, contrast; saturation, warmth, variety, monochrome: see the keys' comments for their definitions."""
    lightness = lab[..., 0].reshape(-1)
    a, b = lab[..., 1].reshape(-1), lab[..., 2].reshape(-1)
    chroma = np.hypot(a, b)
    mean_chroma = float(chroma.mean())
    low, high = np.percentile(lightness, (5, 95))
    hue = np.arctan2(b, a)
    # Hue means nothing for greys, so it is weighted by chroma, and fades out where hardly any chroma is left.
    presence = 1.0 - math.exp(-mean_chroma / 5.0)
    total = float(chroma.sum()) + 1e-6
    warmest = math.radians(55.0)  # orange; its opposite is a blue, green and violet lie between
    warmth = float((chroma * np.cos(hue - warmest)).sum()) / total * presence
    bins = np.bincount(((hue + math.pi) / (2 * math.pi) * 12).astype(int) % 12, weights=chroma, minlength=12)
    share = bins / total
    variety = float(-(share[share > 0] * np.log(share[share > 0])).sum()) / math.log(12) * presence
    resultant = math.hypot(float((chroma * np.cos(hue)).sum()), float((chroma * np.sin(hue)).sum())) / total
    light = {
        "brightness": _unit(float(lightness.mean()) / 100.0),  # mean CIE lightness
        "contrast": _unit(float(high - low) / 100.0),  # lightness between the 5th and the 95th percentile
    }
    colour = {
        "saturation": _unit(mean_chroma / 60.0),  # mean CIE chroma; 60 is about as colourful as pictures are
        "warmth": round(max(-1.0, min(1.0, warmth)), 3),  # -1 all blue .. 1 all orange, weighted by chroma
        "variety": _unit(variety),  # entropy of the hues in twelve bins, weighted by chroma
        "monochrome": bool(mean_chroma < 5.0 or (resultant > 0.985 and variety < 0.35)),
    }
    return light, colour


def texture(lightness: Floats) -> dict[str, Any]:
    """Detail, roughness and prevailing direction of one lightness plane [height, width] (0..100).

    Detail is the mean slope, roughness the finest ripple, both saturating at 1; the direction is that of the lines
    (not of the gradient), from the structure tensor (Bigun and Granlund 1987).
    """
    across = ndimage.sobel(lightness, axis=1) / 8.0
    down = ndimage.sobel(lightness, axis=0) / 8.0
    slope = np.hypot(across, down)
    ripple = lightness - ndimage.gaussian_filter(lightness, 1.0)
    energy = float((across**2 + down**2).sum())
    direction = "none"
    # Under this mean slope the picture is flat and a direction would be that of noise.
    if energy > 0 and float(slope.mean()) > 0.15:
        real = float((across**2 - down**2).sum()) / energy
        imaginary = float((2 * across * down).sum()) / energy
        if math.hypot(real, imaginary) > 0.18:
            gradient = math.degrees(0.5 * math.atan2(imaginary, real)) % 180.0
            if gradient < 22.5 or gradient > 157.5:
                direction = "vertical"
            elif 67.5 < gradient < 112.5:
                direction = "horizontal"
            else:
                direction = "diagonal"
    return {
        "detail": _unit(1.0 - math.exp(-float(slope.mean()) / 4.0)),
        "roughness": _unit(1.0 - math.exp(-float(ripple.std()) / 5.0)),
        "direction": direction,
    }


def composition(lab: Floats, width: int, height: int) -> dict[str, Any]:
    """Where the visual weight lies, how alike the two halves are, and the format.

    Weight is what differs from the mean colour and what has edges; symmetry is the correlation of the lightness
    with its mirror image (0 for none or less).
    """
    small = ndimage.zoom(lab, (32 / lab.shape[0], 32 / lab.shape[1], 1), order=1, grid_mode=True, mode="nearest")
    difference = np.sqrt(((small - small.mean(axis=(0, 1))) ** 2).sum(axis=2))
    edges = np.hypot(ndimage.sobel(small[..., 0], axis=0), ndimage.sobel(small[..., 0], axis=1)) / 8.0
    mass = difference + edges
    total = float(mass.sum())
    weight = "even"
    if total > 32 * 32 * 1.0:  # less than one unit a cell cannot be seen
        places = (np.arange(32) + 0.5) / 32 - 0.5
        sideways = float((mass.sum(axis=0) * places).sum()) / total
        downwards = float((mass.sum(axis=1) * places).sum()) / total
        centre = float(mass[8:24, 8:24].sum()) / total
        if max(abs(sideways), abs(downwards)) > 0.035:
            if abs(sideways) >= abs(downwards):
                weight = "left" if sideways < 0 else "right"
            else:
                weight = "top" if downwards < 0 else "bottom"
        elif centre > 0.30:  # a quarter of the area; an even picture has .25
            weight = "centre"
    plane = small[..., 0] - small[..., 0].mean()
    power = float((plane**2).sum())
    symmetry = float((plane * plane[:, ::-1]).sum()) / power if power > 32 * 32 * 0.25 else 1.0
    ratio = width / height
    form = "square" if 0.95 <= ratio <= 1.05 else ("landscape" if ratio > 1 else "portrait")
    return {"weight": weight, "symmetry": _unit(symmetry), "format": form}


def tags(probabilities: npt.NDArray[Any], motifs: Sequence[Motif] = MOTIFS) -> list[dict[str, Any]]:
    """The motifs that the classifier sees, strongest first: at most eight, each with a confidence of at least .05.

    `probabilities` are the 1000 classes of ImageNet. A motif adds up its classes (all breeds are one dog), times a
    trust that we lowered for motifs that the network likes to see in paint and print where there are none. Classes
    outside every motif (book jacket, jigsaw puzzle, modem, ...) say nothing about a picture and are left out.
    Raises `Invalid` for another number of classes or numbers that are not finite.
    """
    row = np.asarray(probabilities, dtype=np.float64).reshape(-1)
    if row.shape != (1000,) or not np.isfinite(row).all():
        raise Invalid(f"the classifier gave {row.shape[0]} numbers, expected 1000 finite ones; rebuild the models")
    sums = {motif.name: float(row[list(motif.classes)].sum()) for motif in motifs}
    wide = {motif.name: motif for motif in motifs if motif.clear < 1.0}
    narrow = {name: max((m for m in motifs if m.within == name), key=lambda m: sums[m.name]) for name in wide}
    # One narrow motif that has most of the wide one's classes is named itself; else only the wide one is sure.
    clear = {name: sums[narrow[name].name] >= wide[name].clear * sums[name] for name in wide}
    found: list[dict[str, Any]] = []
    for motif in motifs:
        if motif.name in wide and clear[motif.name]:
            continue
        if motif.within and (not clear[motif.within] or motif is not narrow[motif.within]):
            continue
        confidence = sums[motif.name] * motif.trust
        if confidence >= LEAST_CONFIDENCE:
            found.append({"name": motif.name, "confidence": round(min(1.0, confidence), 3)})
    found.sort(key=lambda tag: (-tag["confidence"], tag["name"]))
    return found[:TAG_COUNT]


def measure(pixels: Bytes, probabilities: npt.NDArray[Any]) -> dict[str, Any]:
    """Everything measured of one part: pixels uint8 [height, width, 3] and the classifier's 1000 probabilities."""
    height, width = pixels.shape[:2]
    area = shrink(pixels, AREA_SIDE)
    lab = to_lab(area)
    light, colour = light_and_colour(lab)
    fine = np.asarray(Image.fromarray(shrink(pixels, TEXTURE_SIDE)).convert("L"), dtype=np.float32) / 2.55
    return {
        "kind": "picture",
        "version": VERSION,
        "width": int(width),
        "height": int(height),
        "palette": palette(area, lab),
        "light": light,
        "colour": colour,
        "texture": texture(fine),
        "composition": composition(lab, width, height),
        "tags": tags(probabilities),
    }


def _unit(value: float) -> float:
    return round(max(0.0, min(1.0, value)), 3)
