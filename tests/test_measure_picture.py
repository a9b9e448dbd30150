"""Known pictures give the measurements that anyone would expect of them, without networks or server.

The classifier's probabilities are handed in as plain arrays; the real network is asked in test_measure_models.py.
"""

from __future__ import annotations

import io
import json

import numpy as np
import numpy.typing as npt
import pytest
from edge_models import picture
from edge_models.picture_names import COLOUR_NAMES, MOTIFS
from edge_models.triton_model import Invalid
from PIL import Image

Pixels = npt.NDArray[np.uint8]
NOTHING = np.zeros(1000)
RED, WHITE, BLACK = (212, 44, 34), (252, 252, 250), (16, 16, 18)


def plain(colour: tuple[int, int, int], height: int = 200, width: int = 200) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def encoded(pixels: Pixels, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_a_plain_red_square_has_one_warm_colour_and_no_texture() -> None:
    measured = picture.measure(plain(RED), NOTHING)
    assert [(entry["name"], entry["share"]) for entry in measured["palette"]] == [("scarlet", 1.0)]
    assert measured["palette"][0]["rgb"] == list(RED)
    assert measured["colour"]["saturation"] > 0.9 and measured["colour"]["warmth"] > 0.9
    assert measured["colour"]["monochrome"] is True
    assert measured["light"]["contrast"] == 0.0 and 0.4 < measured["light"]["brightness"] < 0.55
    assert measured["texture"] == {"detail": 0.0, "roughness": 0.0, "direction": "none"}
    assert measured["composition"] == {"weight": "even", "symmetry": 1.0, "format": "square"}
    assert measured["tags"] == []


@pytest.mark.parametrize(("name", "colour"), COLOUR_NAMES.items())
def test_a_plain_picture_of_a_named_colour_gets_that_name(name: str, colour: tuple[int, int, int]) -> None:
    assert [entry["name"] for entry in picture.measure(plain(colour, 40, 40), NOTHING)["palette"]] == [name]


@pytest.mark.parametrize(("axis", "direction"), [(0, "horizontal"), (1, "vertical")])
def test_stripes_have_their_direction_two_colours_and_full_contrast(axis: int, direction: str) -> None:
    pixels = plain(WHITE)
    dark = np.arange(200) // 10 % 2 == 0
    if axis == 0:
        pixels[dark] = BLACK
    else:
        pixels[:, dark] = BLACK
    measured = picture.measure(pixels, NOTHING)
    assert measured["texture"]["direction"] == direction
    assert measured["light"]["contrast"] > 0.85
    assert measured["colour"]["saturation"] < 0.1
    assert measured["texture"]["detail"] > picture.measure(plain(WHITE), NOTHING)["texture"]["detail"] + 0.5


def test_diagonal_stripes_are_diagonal() -> None:
    down, across = np.mgrid[0:200, 0:200]
    pixels = plain(WHITE)
    pixels[(down + across) // 14 % 2 == 0] = BLACK
    assert picture.measure(pixels, NOTHING)["texture"]["direction"] == "diagonal"


def test_a_slow_gradient_is_smooth_and_leans_where_it_is_said_to() -> None:
    ramp = np.linspace(0, 255, 200)
    pixels = np.repeat(np.repeat(ramp[None, :, None], 200, axis=0), 3, axis=2).astype(np.uint8)
    measured = picture.measure(pixels, NOTHING)
    assert measured["texture"]["roughness"] < 0.2 and measured["texture"]["direction"] == "vertical"
    assert measured["composition"]["symmetry"] == 0.0  # one side is the negative of the other
    assert measured["light"]["contrast"] > 0.8 and 0.4 < measured["light"]["brightness"] < 0.6
    assert measured["colour"]["monochrome"] is True


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_weight_lies_where_the_only_thing_is(side: str) -> None:
    pixels = plain((220, 220, 220))
    places = {
        "left": np.s_[70:130, 10:60],
        "right": np.s_[70:130, 140:190],
        "top": np.s_[10:60, 70:130],
        "bottom": np.s_[140:190, 70:130],
    }
    pixels[places[side]] = (40, 40, 90)
    assert picture.measure(pixels, NOTHING)["composition"]["weight"] == side


def test_a_disc_in_the_middle_is_central_and_symmetric() -> None:
    down, across = np.mgrid[0:200, 0:200]
    pixels = plain((220, 220, 220))
    pixels[(down - 99.5) ** 2 + (across - 99.5) ** 2 < 35**2] = (40, 40, 90)
    composition = picture.measure(pixels, NOTHING)["composition"]
    assert composition["weight"] == "centre" and composition["symmetry"] > 0.95


@pytest.mark.parametrize(
    ("height", "width", "form"), [(100, 200, "landscape"), (200, 100, "portrait"), (9, 9, "square")]
)
def test_format_follows_the_sides(height: int, width: int, form: str) -> None:
    measured = picture.measure(plain(RED, height, width), NOTHING)
    assert (measured["height"], measured["width"], measured["composition"]["format"]) == (height, width, form)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 1024), (1024, 1), (2, 3)])
def test_the_smallest_and_thinnest_pictures_are_measured(height: int, width: int) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    measured = picture.measure(pixels, NOTHING)
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    assert measured["palette"]


def test_warm_and_cool_have_opposite_signs_and_grey_has_neither() -> None:
    orange, blue, grey = (
        picture.measure(plain(c), NOTHING)["colour"] for c in ((232, 126, 36), (40, 90, 200), (125,) * 3)
    )
    assert orange["warmth"] > 0.8 and blue["warmth"] < -0.5 and abs(grey["warmth"]) < 0.1
    assert grey["saturation"] < 0.02 and grey["monochrome"] is True


def test_palette_shares_are_areas_largest_first() -> None:
    pixels = plain(WHITE, 100, 100)
    pixels[:30] = RED
    pixels[:, 90:] = BLACK
    found = {entry["name"]: entry["share"] for entry in picture.measure(pixels, NOTHING)["palette"]}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found == pytest.approx({"white": 0.63, "scarlet": 0.27, "black": 0.10}, abs=0.02)


def test_the_same_pixels_give_the_same_measurement() -> None:
    generator = np.random.default_rng(9)
    pixels = generator.integers(0, 256, (150, 190, 3), dtype=np.uint8)
    probabilities = generator.dirichlet(np.full(1000, 0.01))
    assert picture.measure(pixels, probabilities) == picture.measure(pixels.copy(), probabilities.copy())


def test_all_breeds_are_one_dog_and_an_unsure_animal_is_only_an_animal() -> None:
    sure, split = np.zeros(1000), np.zeros(1000)
    sure[151:161] = 0.1
    split[[151, 281, 339, 345]] = 0.25
    assert [tag["name"] for tag in picture.tags(sure)] == ["dog"]
    assert [tag["name"] for tag in picture.tags(split)] == ["animal"]


def test_classes_that_name_the_medium_say_nothing() -> None:
    medium = np.zeros(1000)
    medium[[917, 921, 611, 916]] = 0.25  # comic book, book jacket, jigsaw puzzle, web site
    assert picture.tags(medium) == []
    assert not {917, 921, 611, 916} & {number for motif in MOTIFS for number in motif.classes}


@pytest.mark.parametrize("probabilities", [np.zeros(999), np.full(1000, np.nan), np.full(1000, np.inf)])
def test_another_classifier_is_refused(probabilities: npt.NDArray[np.float64]) -> None:
    with pytest.raises(Invalid, match="1000 finite"):
        picture.tags(probabilities)


def test_bytes_that_are_no_picture_are_refused_in_plain_words() -> None:
    good = encoded(plain(RED), "PNG")
    for data, reason in (
        (b"", "empty"),
        (b"not a picture", "cannot be decoded"),
        (good[: len(good) // 2], "cannot be decoded"),
        (encoded(plain(RED, 10, 1025)), "1025 x 10; send at most 1024"),
    ):
        with pytest.raises(Invalid, match=reason):
            picture.read_picture(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_encoded_picture_is_read_back(kind: str) -> None:
    pixels = picture.read_picture(encoded(plain(RED), kind))
    assert pixels.shape == (200, 200, 3) and np.abs(pixels.astype(int) - RED).max() <= 3


def test_lab_matches_published_values() -> None:
    # sRGB primaries and white under D65 (Lindbloom's calculator).
    expected = {
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 0, 255): (32.30, 79.19, -107.86),
        (255,) * 3: (100.0, 0.0, 0.0),
    }
    for rgb, lab in expected.items():
        assert picture.to_lab(np.array(rgb)) == pytest.approx(lab, abs=0.05)
