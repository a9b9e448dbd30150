"""What is said of a picture: its motif, palette, light, colour, surface and composition, and how they read together.

Statements only; joining and wording them is done by `edge_models.captions`.
"""

from __future__ import annotations

import math
from typing import Any

from edge_models.captions import (
    FRAGMENT_LENGTH,
    PARTS,
    WHOLE_LENGTH,
    Caption,
    Sentence,
    catalogue_sentences,
    choice,
    compose,
    confidences,
    joined,
    level_of,
    mood_words,
    number,
    turn_of,
)
from edge_models.picture_names import MOTIFS
from edge_models.triton_model import Invalid

# A motif is said at all from the first confidence on, without "perhaps" from the second. A quarter shows half of a
# thing, or none: the classifier, which was trained on whole things, must be surer there.
PERHAPS, LIKELY = 0.25, 0.55
PERHAPS_IN_PART, LIKELY_IN_PART = 0.5, 0.65
_MOTIF_PHRASES = {motif.name: motif.phrase for motif in MOTIFS}
_PLACES = {
    "top-left": "upper left",
    "top-right": "upper right",
    "bottom-left": "lower left",
    "bottom-right": "lower right",
}
# Moods by (pleasure, arousal) in thirds, from low to high: what such a look is commonly called (see `mood_words`).
_MOODS: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 0): ("gloomy", "sombre", "hushed", "melancholy"),
    (0, 1): ("grave", "brooding", "serious", "moody"),
    (0, 2): ("weighty", "intense", "dramatic", "vigorous"),
    (1, 0): ("still", "restrained", "reflective", "contemplative"),
    (1, 1): ("measured", "composed", "thoughtful", "even-tempered"),
    (1, 2): ("stirring", "energetic", "animated", "spirited"),
    (2, 0): ("calm", "gentle", "peaceful", "serene"),
    (2, 1): ("pleasant", "fresh", "airy", "friendly"),
    (2, 2): ("lively", "buoyant", "cheerful", "joyful"),
}
# Where the thirds of pleasure and arousal are cut.
_PLEASURE, _AROUSAL = (0.42, 0.53), (0.28, 0.42)


def caption_picture(measurement: dict[str, Any], part: str, catalogue: dict[str, str]) -> Caption:
    """The caption of the whole picture (45-90 words) or of one of its quarters (20-45 words).

    `part` is one of top-left, top-right, bottom-left, bottom-right, whole; the catalogue is used for the whole only.
    Raises `Invalid` for another part and for a measurement that lacks something.
    """
    if part not in PARTS["picture"]:
        raise Invalid(f"PART is {part!r}; send one of {', '.join(PARTS['picture'])}")
    turn = turn_of(measurement, part, catalogue, "picture")
    if part == "whole":
        sentences = [
            *catalogue_sentences(catalogue, "picture"),
            _palette(measurement, None),
            *_accent(measurement),
            *_motif(measurement, None),
            _light(measurement),
            _colour(measurement),
            *_surface(measurement),
            *_arrangement(measurement),
            _mood(measurement, required=True),
        ]
        return compose(sentences, WHOLE_LENGTH, turn)
    place = _PLACES[part]
    motif = _motif(measurement, place)
    palette = _palette(measurement, place if not motif else "")
    rest = [_light(measurement), _colour(measurement), *_surface(measurement), *_arrangement(measurement)]
    # The statements of a quarter come in another order in each quarter, after what names the place.
    shift = turn % len(rest)
    return compose(
        [*motif, palette, *rest[shift:], *rest[:shift], _mood(measurement, required=False)], FRAGMENT_LENGTH, turn
    )


def _palette(measurement: dict[str, Any], place: str | None) -> Sentence:
    """The leading colours. `place`: None for the whole, the quarter's name, or "" where it has been named already."""
    names, shares = _colours(measurement)
    first, share = names[0], shares[0]
    others, leading = joined(names[1:3]), joined(names[:3])
    phrases = tuple((name, min(1.0, 0.55 + part)) for name, part in zip(names[:3], shares, strict=False))
    extent = "nearly all" if share >= 0.85 else "most" if share >= 0.6 else "about half" if share >= 0.42 else ""
    several = "among" if len(names) > 2 else "between"
    if place is None:
        form = _format(measurement)
        phrases = (*phrases, (form, 0.5))
        if not others:
            wordings: tuple[str, ...] = (
                f"In {form} format, the picture is given to {first} almost alone.",
                f"{first} fills this {form} picture almost alone.",
                f"Hardly any colour but {first} is found in this {form} picture.",
                f"Nearly everything in this {form} picture is {first}.",
            )
        elif extent:
            wordings = (
                f"In {form} format, {extent} of the picture is {first}, joined by {others}.",
                f"{first} covers {extent} of this {form} picture, with {others} beside it.",
                f"Colour in this {form} picture is above all {first}, accompanied by {others}.",
                f"Over {extent} of this {form} picture lies {first}, set against {others}.",
            )
        else:
            wordings = (
                f"In {form} format, {first} leads, followed by {others}.",
                f"{leading} share the area of this {form} picture.",
                f"No single colour rules this {form} picture: {leading} share it.",
                f"Mainly {first}, with {others}, makes up this {form} picture.",
            )
        return Sentence(wordings, phrases)
    inside = f"in the {place} quarter" if place else "there"
    area = f"the {place} quarter" if place else "that area"
    if not others:
        wordings = (
            f"{inside}, hardly any colour but {first} is found.",
            f"{first} fills {area} almost alone.",
            f"Hardly any colour but {first} is found {inside}.",
            f"Nearly everything {inside} is {first}.",
        )
    elif extent:
        wordings = (
            f"{inside}, {first} covers {extent} of the area, with {others} beside it.",
            f"{first} takes {extent} of {area}, set against {others}.",
            f"Colour {inside} is above all {first}, accompanied by {others}.",
            f"Over {extent} of {area} lies {first}, joined by {others}.",
        )
    else:
        wordings = (
            f"{inside}, {leading} share the area.",
            f"{first} leads {inside}, followed by {others}.",
            f"Colour {inside} is divided {several} {leading}.",
            f"Mainly {first}, with {others}, makes up {area}.",
        )
    return Sentence(wordings, phrases)


def _accent(measurement: dict[str, Any]) -> list[Sentence]:
    """A colour that is not among the three largest, but more striking than the third: bright, and unlike the rest."""
    names, _ = _colours(measurement)
    palette = {colour["name"]: colour for colour in measurement["palette"]}
    values = {name: _rgb(palette[name]) for name in names}

    def striking(name: str) -> float:
        red, green, blue = values[name]
        chroma = (max(red, green, blue) - min(red, green, blue)) / 255
        nearest = min(math.dist(values[name], values[other]) for other in names[:3] if other != name) / 441
        # What is neither strong in itself nor far from the others does not strike at all.
        if chroma < 0.3 and nearest < 0.3:
            return 0.0
        return float(palette[name]["share"]) * nearest * (0.3 + 1.5 * chroma)

    rest = [name for name in names[3:] if palette[name]["share"] >= 0.05]
    best = max(rest, key=striking, default=None)
    if best is None or striking(best) <= striking(names[2]):
        return []
    return [
        Sentence(
            (
                f"Smaller amounts of {best} stand out.",
                f"{best} stands out in smaller amounts.",
                f"Against them smaller amounts of {best} stand out.",
                f"In smaller amounts, {best} stands out.",
            ),
            ((best, 0.6),),
            1.0,
        )
    ]


def _rgb(colour: dict[str, Any]) -> tuple[float, float, float]:
    value = colour.get("rgb")
    if not isinstance(value, list) or len(value) != 3:
        raise Invalid(f"MEASUREMENTS lacks the rgb of the colour {colour['name']}; measure again")
    red, green, blue = (number({"rgb": {"value": each}}, "rgb", "value", 0.0, 255.0) for each in value)
    return red, green, blue


def _motif(measurement: dict[str, Any], place: str | None) -> list[Sentence]:
    """What the picture seems to show, where the classifier is sure enough; nothing otherwise."""
    perhaps, likely = (PERHAPS, LIKELY) if place is None else (PERHAPS_IN_PART, LIKELY_IN_PART)
    found = [(name, confidence) for name, confidence in confidences(measurement).items() if name in _MOTIF_PHRASES]
    found = [(name, confidence) for name, confidence in found if confidence >= perhaps][: 2 if place is None else 1]
    if not found:
        return []
    first, confidence = _MOTIF_PHRASES[found[0][0]], found[0][1]
    second = _MOTIF_PHRASES[found[1][0]] if len(found) > 1 else ""
    where = "" if place is None else f" in the {place} quarter"
    verb = "are" if first.endswith("s") and not first.startswith(("a ", "an ")) else "is"
    if confidence >= likely:
        also = f", and perhaps {second}" if second else ""
        wordings: tuple[str, ...] = (
            f"Most likely {first} {verb} shown{where}{also}.",
            f"{first}, most likely, {verb} shown{where}{also}.",
            f"What is shown{where} is most likely {first}{also}.",
            f"To all appearance {first} {verb} shown{where}{also}.",
        )
    else:
        also = f" or {second}" if second else ""
        wordings = (
            f"Perhaps {first}{also} {verb} shown{where}.",
            f"Some of the forms{where} suggest {first}{also}.",
            f"What is shown{where} may be {first}{also}.",
            f"A motif{where} can be read, with some doubt, as {first}{also}.",
        )
    # In a quarter the motif names the place, so it must be said.
    return [Sentence(wordings, tuple(found), 2.0 if place is None else None)]


def _light(measurement: dict[str, Any]) -> Sentence:
    brightness = number(measurement, "light", "brightness", 0.0, 1.0)
    contrast = number(measurement, "light", "contrast", 0.0, 1.0)
    light, sure = level_of(
        brightness,
        (
            *((0.26, "very dark", 0.9), (0.42, "dark", 0.8), (0.52, "subdued", 0.6)),
            *((0.64, "", 0.3), (0.76, "bright", 0.7)),
        ),
        ("very bright", 0.9),
    )
    strength, said = level_of(contrast, ((0.3, "soft", 0.7), (0.6, "moderate", 0.4)), ("strong", 0.7))
    salience = abs(brightness - 0.55) * 2.4 + abs(contrast - 0.55) * 0.9 + 0.15
    if not light:
        return Sentence(
            (
                f"Middle tones prevail, with {strength} contrast.",
                f"Between bright and dark it keeps to the middle, with {strength} contrast.",
                f"The tonality stays in the middle, and contrasts are {strength}.",
                f"Tones keep to the middle, with {strength} contrast between pale and deep.",
            ),
            (("middle", 0.3), (strength, said)),
            salience,
        )
    return Sentence(
        (
            f"Overall the tones are {light}, their contrast {strength}.",
            f"With {strength} contrasts, the tone stays {light}.",
            f"The tonality is {light}, and contrasts are {strength}.",
            f"Tones are {light} here, with {strength} contrast between pale and deep.",
        ),
        ((light, sure), (strength, said)),
        salience,
    )


def _colour(measurement: dict[str, Any]) -> Sentence:
    saturation = number(measurement, "colour", "saturation", 0.0, 1.0)
    warmth = number(measurement, "colour", "warmth", -1.0, 1.0)
    monochrome = choice(measurement, "colour", "monochrome", (True, False))
    strength, sure = level_of(
        saturation,
        (
            (0.1, "almost colourless", 0.8),
            (0.28, "muted", 0.7),
            (0.45, "moderately strong", 0.4),
            (0.62, "rich", 0.7),
        ),
        ("vivid", 0.9),
    )
    if saturation < 0.1:
        return Sentence(
            (
                "Hardly a tint appears: the surface is almost colourless.",
                "Hues are nearly absent: the picture is almost colourless.",
                "Almost colourless, it keeps to neutral tints.",
                "As a whole it is almost colourless.",
            ),
            (("almost colourless", 0.8),),
            0.9,
        )
    temperature, felt = level_of(
        warmth,
        ((-0.45, "cool", 0.8), (-0.15, "slightly cool", 0.5), (0.2, "", 0.3), (0.6, "rather warm", 0.6)),
        ("warm", 0.8),
    )
    side = temperature.split()[-1] if temperature else ""
    if monochrome:
        hue = f"in {'one' if not temperature else 'a ' + temperature} hue"
        return Sentence(
            (
                f"Tints keep close to monochrome, {hue}.",
                f"Close to monochrome, it stays {hue}.",
                f"One family of tints prevails, close to monochrome, {hue}.",
                f"Only a narrow range appears, close to monochrome, {hue}.",
            ),
            (("monochrome", 0.8), (side or "one hue", felt)),
            1.2,
        )
    salience = abs(saturation - 0.38) * 1.8 + abs(warmth - 0.55) * 0.6 + 0.2
    if not temperature:
        wordings: tuple[str, ...] = (
            f"Tints are {strength}, with warm and cool in balance.",
            f"Hues are {strength}, and keep warm and cool in balance.",
            f"Warm and cool hold each other in balance, in {strength} tints.",
            f"As a whole the scale is {strength}, with warm and cool in balance.",
        )
        return Sentence(wordings, ((strength, sure), ("warm and cool", felt)), salience)
    slightly = "slightly " if temperature.startswith("slightly") else ""
    wordings = (
        f"Tints are {strength} and {temperature}.",
        f"Hues are {strength}, their temperature {temperature}.",
        f"A {strength} scale of hues tends {slightly}to the {side} side.",
        f"As a whole the tints are {temperature} and {strength}.",
    )
    return Sentence(wordings, ((strength, sure), (side, felt)), salience)


def _surface(measurement: dict[str, Any]) -> list[Sentence]:
    detail = number(measurement, "texture", "detail", 0.0, 1.0)
    roughness = number(measurement, "texture", "roughness", 0.0, 1.0)
    direction = choice(measurement, "texture", "direction", ("horizontal", "vertical", "diagonal", "none"))
    surface, sure = level_of(
        detail * 0.6 + roughness * 0.4,
        ((0.3, "smooth", 0.8), (0.48, "quiet", 0.6), (0.66, "moderately detailed", 0.4), (0.76, "busy", 0.7)),
        ("dense and rough", 0.8),
    )
    salience = abs(detail - 0.62) * 1.6 + (0.3 if direction != "none" else 0.0) + 0.15
    if direction == "none":
        wordings: tuple[str, ...] = (
            f"No one direction rules its {surface} texture.",
            f"Its texture is {surface}, and no direction prevails.",
            f"Marks run in all directions, on a {surface} surface.",
            f"The surface is {surface}, without a prevailing direction.",
        )
        return [Sentence(wordings, ((surface, sure),), salience)]
    wordings = (
        f"Lines tend to the {direction}, in a {surface} texture.",
        f"Its texture is {surface}, with a mainly {direction} direction.",
        f"Mostly {direction} lines run through a {surface} surface.",
        f"The surface is {surface}, and mostly {direction} lines run through it.",
    )
    return [Sentence(wordings, ((surface, sure), (direction, 0.5)), salience)]


def _arrangement(measurement: dict[str, Any]) -> list[Sentence]:
    weight = choice(measurement, "composition", "weight", ("left", "right", "top", "bottom", "centre", "even"))
    symmetry = number(measurement, "composition", "symmetry", 0.0, 1.0)
    salience = {"even": 0.2, "centre": 0.55}.get(weight, 0.6)
    if weight == "even":
        wordings: tuple[str, ...] = (
            "Visual weight is spread evenly.",
            "What draws the eye is spread evenly.",
            "From edge to edge the accents are spread evenly.",
            "Weight is spread evenly, and no side is favoured.",
        )
        phrase = "spread evenly"
    elif weight == "centre":
        wordings = (
            "Visual weight gathers in the centre.",
            "What draws the eye lies in the centre.",
            "Around the centre the accents are gathered.",
            "Most of the weight rests around the centre.",
        )
        phrase = "centre"
    else:
        wordings = (
            f"Visual weight lies towards the {weight}.",
            f"What draws the eye lies towards the {weight}.",
            f"Towards the {weight} the accents gather.",
            f"Most of the weight rests towards the {weight}.",
        )
        phrase = f"towards the {weight}"
    sentences = [Sentence(wordings, ((phrase, 0.4),), salience)]
    if 0.6 <= symmetry < 0.8:
        wordings = (
            "Left and right halves roughly match in lightness.",
            "In lightness the left and right halves roughly match.",
            "Its two halves, left and right, roughly match in lightness.",
            "Both halves, left and right, roughly match in lightness.",
        )
        sentences.append(Sentence(wordings, (("roughly match", 0.4),), symmetry - 0.3))
    elif symmetry >= 0.8:
        wordings = (
            "Left and right halves come close to symmetry.",
            "In near symmetry the left and right halves answer each other.",
            "Its two halves, left and right, come close to symmetry.",
            "Near symmetry joins left and right.",
        )
        sentences.append(Sentence(wordings, (("symmetry", 0.6),), symmetry - 0.15))
    return sentences


def _mood(measurement: dict[str, Any], required: bool) -> Sentence:
    """How the measured colours read together, hedged.

    Pleasure and arousal after Valdez and Mehrabian (1994), pleasure = .69 brightness + .22 saturation and arousal =
    -.31 brightness + .60 saturation, with warmth, contrast and detail added by a little, and cut into thirds.
    """
    brightness = number(measurement, "light", "brightness", 0.0, 1.0)
    contrast = number(measurement, "light", "contrast", 0.0, 1.0)
    saturation = number(measurement, "colour", "saturation", 0.0, 1.0)
    warmth = number(measurement, "colour", "warmth", -1.0, 1.0)
    detail = number(measurement, "texture", "detail", 0.0, 1.0)
    pleasure = 0.69 * brightness + 0.22 * saturation + 0.04 * warmth
    arousal = -0.31 * brightness + 0.60 * saturation + 0.35 * detail + 0.20 * contrast
    words = mood_words(_MOODS, (pleasure, _PLEASURE), (arousal, _AROUSAL))
    confidence = min(0.7, 0.4 + abs(pleasure - 0.475) + abs(arousal - 0.35) * 0.5)
    # The whole is given two words for its mood, a part one.
    said = " and ".join(words if required else words[:1])
    return Sentence(
        (
            f"The impression that results is {said}.",
            f"One may find the effect {said}.",
            f"Taken together, this reads as {said}.",
            f"Its effect might be called {said}.",
        ),
        tuple((word, confidence) for word in (words if required else words[:1])),
        None if required else 3.0,
    )


def _colours(measurement: dict[str, Any]) -> tuple[list[str], list[float]]:
    """Names and shares of the palette, largest first, without names that share a word with an earlier one."""
    palette = measurement.get("palette")
    if not isinstance(palette, list) or not palette:
        raise Invalid("MEASUREMENTS lacks the palette; measure again")
    names: list[str] = []
    shares: list[float] = []
    used: set[str] = set()
    for colour in palette:
        if not isinstance(colour, dict) or not isinstance(colour.get("name"), str) or not colour["name"]:
            raise Invalid("MEASUREMENTS holds a colour without a name; measure again")
        share = number({"colour": colour}, "colour", "share", 0.0, 1.0)
        words = set(colour["name"].lower().split())
        if not words & used:
            names.append(colour["name"])
            shares.append(share)
            used |= words
    return names, shares


def _format(measurement: dict[str, Any]) -> str:
    form = choice(measurement, "composition", "format", ("landscape", "portrait", "square"))
    return {"landscape": "wide", "portrait": "upright", "square": "square"}[form]
