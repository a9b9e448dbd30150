"""What is said of a picture: its motif, palette, light, colour, surface and composition, and how they read together.

Statements only; joining and wording them is done by `edge_models.captions`.
"""

from __future__ import annotations

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
    number,
    third_of,
    turn_of,
)
from edge_models.picture_names import MOTIFS
from edge_models.triton_model import Invalid

# A motif is said at all from the first confidence on, without "perhaps" from the second.
PERHAPS, LIKELY = 0.25, 0.5
_MOTIF_PHRASES = {motif.name: motif.phrase for motif in MOTIFS}
_PLACES = {
    "top-left": "upper left",
    "top-right": "upper right",
    "bottom-left": "lower left",
    "bottom-right": "lower right",
}
# Moods by (pleasure, arousal) in thirds, from low to high: what such a look is commonly called.
_MOODS: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 0): ("sombre", "melancholy", "gloomy", "hushed"),
    (0, 1): ("brooding", "grave", "serious", "moody"),
    (0, 2): ("tense", "dramatic", "stormy", "turbulent"),
    (1, 0): ("still", "restrained", "quiet", "contemplative"),
    (1, 1): ("composed", "thoughtful", "measured", "even-tempered"),
    (1, 2): ("restless", "spirited", "energetic", "animated"),
    (2, 0): ("calm", "serene", "gentle", "peaceful"),
    (2, 1): ("friendly", "pleasant", "fresh", "airy"),
    (2, 2): ("cheerful", "lively", "joyful", "buoyant"),
}


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
    confidence = {name: min(1.0, 0.55 + part) for name, part in zip(names, shares, strict=True)}
    phrases = tuple((name, confidence[name]) for name in names[:3])
    extent = "nearly all" if share >= 0.85 else "most" if share >= 0.6 else "about half" if share >= 0.42 else ""
    if place is None:
        form = _format(measurement)
        phrases = (*phrases, (form, 0.5))
        if not others:
            wordings: tuple[str, ...] = (
                f"The picture, in {form} format, holds hardly any colour but {first}.",
                f"Hardly any colour but {first} is found in this {form} picture.",
                f"In {form} format, the picture is given to {first} almost alone.",
                f"This {form} picture is given almost wholly to {first}.",
            )
        elif extent:
            wordings = (
                f"The picture, in {form} format, gives {extent} of its area to {first}, set beside {others}.",
                f"In {form} format, {extent} of the picture is {first}, joined by {others}.",
                f"{first} covers {extent} of this {form} picture, with {others} beside it.",
                f"This {form} picture is above all {first}, followed by {others}.",
            )
        else:
            wordings = (
                f"The picture, in {form} format, is built from {leading}.",
                f"In {form} format, {first} leads, followed by {others}.",
                f"{leading} share the area of this {form} picture.",
                f"No single colour rules this {form} picture: {leading} share it.",
            )
        return Sentence(wordings, phrases, offset=1)
    if place:
        where = f"the {place} quarter"
        if not others:
            wordings = (
                f"Hardly any colour but {first} is found in {where}.",
                f"In {where} there is hardly any colour but {first}.",
                f"{first} fills {where} almost alone.",
                f"Nearly everything in {where} is {first}.",
            )
        elif extent:
            wordings = (
                f"In {where}, {first} covers {extent} of the area, with {others} beside it.",
                f"{first} takes {extent} of {where}, set against {others}.",
                f"Colour in {where} is above all {first}, accompanied by {others}.",
                f"Over {extent} of {where} lies {first}, joined by {others}.",
            )
        else:
            wordings = (
                f"In {where}, {leading} share the area.",
                f"{first} leads in {where}, followed by {others}.",
                f"Colour in {where} is divided {'among' if len(names) > 2 else 'between'} {leading}.",
                f"Mainly {first}, with {others}, makes up {where}.",
            )
    elif not others:
        wordings = (
            f"Hardly any colour but {first} is found there.",
            f"There is hardly any colour but {first} there.",
            f"{first} fills that area almost alone.",
            f"Nearly everything there is {first}.",
        )
    elif extent:
        wordings = (
            f"There, {first} covers {extent} of the area, with {others} beside it.",
            f"{first} takes {extent} of that area, set against {others}.",
            f"Colour there is above all {first}, accompanied by {others}.",
            f"Over {extent} of that area lies {first}, joined by {others}.",
        )
    else:
        wordings = (
            f"There, {leading} share the area.",
            f"{first} leads there, followed by {others}.",
            f"Colour there is divided {'among' if len(names) > 2 else 'between'} {leading}.",
            f"Mainly {first}, with {others}, is found there.",
        )
    return Sentence(wordings, phrases)


def _motif(measurement: dict[str, Any], place: str | None) -> list[Sentence]:
    """What the picture seems to show, where the classifier is sure enough; nothing otherwise."""
    found = [(name, confidence) for name, confidence in confidences(measurement).items() if name in _MOTIF_PHRASES]
    found = [(name, confidence) for name, confidence in found if confidence >= PERHAPS][: 2 if place is None else 1]
    if not found:
        return []
    phrases = tuple(found)
    first, confidence = _MOTIF_PHRASES[found[0][0]], found[0][1]
    second = _MOTIF_PHRASES[found[1][0]] if len(found) > 1 else ""
    if place is None and confidence >= LIKELY:
        also = f", and perhaps {second}" if second else ""
        wordings: tuple[str, ...] = (
            f"What is shown is most likely {first}{also}.",
            f"Its forms are most likely those of {first}{also}.",
            f"Most likely {first} is shown{also}.",
            f"To all appearance it shows {first}{also}.",
        )
    elif place is None:
        also = f" or {second}" if second else ""
        wordings = (
            f"Perhaps {first}{also} is shown.",
            f"What is shown may be {first}{also}.",
            f"Some of its forms suggest {first}{also}.",
            f"A motif can be read, with some doubt, as {first}{also}.",
        )
    elif confidence >= LIKELY:
        wordings = (
            f"What is shown in the {place} quarter is most likely {first}.",
            f"Forms in the {place} quarter are most likely those of {first}.",
            f"Most likely {first} is shown in the {place} quarter.",
            f"To all appearance the {place} quarter shows {first}.",
        )
    else:
        wordings = (
            f"Perhaps {first} is shown in the {place} quarter.",
            f"What is shown in the {place} quarter may be {first}.",
            f"Some forms in the {place} quarter suggest {first}.",
            f"A motif in the {place} quarter can be read, with some doubt, as {first}.",
        )
    # In a quarter the motif names the place, so it must be said.
    return [Sentence(wordings, phrases, 2.0 if place is None else None)]


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
                f"The tonality is neither bright nor dark, and contrasts are {strength}.",
                f"Pale and deep tones hold the balance, in {strength} contrast.",
                f"Middle tones prevail, with {strength} contrast.",
                f"Between bright and dark it keeps to the middle, with {strength} contrast.",
            ),
            ((strength, said), ("middle", 0.3)),
            salience,
            offset=2,
        )
    return Sentence(
        (
            f"The tonality is {light}, and contrasts are {strength}.",
            f"Tones are {light} here, with {strength} contrast between pale and deep.",
            f"Overall the tones are {light}, their contrast {strength}.",
            f"With {strength} contrasts, the tone stays {light}.",
        ),
        ((light, sure), (strength, said)),
        salience,
        offset=2,
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
                "Hues are nearly absent: the tones are almost colourless.",
                "As a whole it is almost colourless.",
                "Almost colourless, it keeps to neutral tints.",
                "Its scale of tints is almost colourless.",
            ),
            (("almost colourless", 0.8), ("neutral", 0.5)),
            0.9,
            offset=3,
        )
    temperature, felt = level_of(
        warmth,
        ((-0.45, "cool", 0.8), (-0.15, "slightly cool", 0.5), (0.2, "", 0.3), (0.6, "rather warm", 0.6)),
        ("warm", 0.8),
    )
    phrases = ((strength, sure), (temperature or "warm and cool", felt), ((temperature or "warm").split()[-1], felt))
    if monochrome:
        hue = f"in {'one' if not temperature else 'a ' + temperature} hue"
        return Sentence(
            (
                f"Everything keeps close to monochrome, {hue}.",
                f"Close to monochrome, it stays {hue}.",
                f"One family of tints prevails, close to monochrome, {hue}.",
                f"Only a narrow range appears, close to monochrome, {hue}.",
            ),
            (("monochrome", 0.8), (temperature or "one hue", felt)),
            1.2,
            offset=3,
        )
    salience = abs(saturation - 0.38) * 1.8 + abs(warmth - 0.55) * 0.6 + 0.2
    if not temperature:
        wordings: tuple[str, ...] = (
            f"Tints are {strength}, warm and cool in balance.",
            f"Hues are {strength}, and keep warm and cool in balance.",
            f"Warm and cool hold each other in balance, in {strength} tints.",
            f"As a whole the scale is {strength}, with warm and cool in balance.",
        )
    else:
        side = temperature.split()[-1]
        wordings = (
            f"Tints are {temperature} and {strength}.",
            f"Hues are {strength}, their temperature {temperature}.",
            f"A {strength} scale of hues tends to the {side} side.",
            f"As a whole the tints are {strength}, and {temperature}.",
        )
    return Sentence(wordings, phrases, salience, offset=3)


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
            f"The surface is {surface}, without a prevailing direction.",
            f"Its texture is {surface}, and no direction prevails.",
            f"Marks run in all directions, on a {surface} surface.",
            f"No one direction prevails in its {surface} texture.",
        )
        phrases: tuple[tuple[str, float], ...] = ((surface, sure),)
    else:
        wordings = (
            f"The surface is {surface}, and its lines run mostly {direction}ly.",
            f"Mostly {direction} lines run through a {surface} surface.",
            f"Lines tend to the {direction}, in a {surface} texture.",
            f"Its texture is {surface}, with a mainly {direction} direction.",
        )
        phrases = ((surface, sure), (direction, 0.5), (f"{direction}ly", 0.5))
    return [Sentence(wordings, phrases, salience, offset=1)]


def _arrangement(measurement: dict[str, Any]) -> list[Sentence]:
    weight = choice(measurement, "composition", "weight", ("left", "right", "top", "bottom", "centre", "even"))
    symmetry = number(measurement, "composition", "symmetry", 0.0, 1.0)
    salience = {"even": 0.2, "centre": 0.55}.get(weight, 0.6)
    if weight == "even":
        wordings: tuple[str, ...] = (
            "Visual weight is spread evenly.",
            "Nothing draws the weight to one side.",
            "Weight is spread evenly from edge to edge.",
            "Every side carries about equal weight.",
        )
        phrases: tuple[tuple[str, float], ...] = (("spread evenly", 0.4), ("equal weight", 0.4))
    elif weight == "centre":
        wordings = (
            "Visual weight gathers in the centre.",
            "What draws the eye lies in the centre.",
            "Weight gathers around the centre.",
            "Around the centre the accents are gathered.",
        )
        phrases = (("centre", 0.4),)
    else:
        wordings = (
            f"Visual weight lies towards the {weight}.",
            f"What draws the eye lies towards the {weight}.",
            f"Towards the {weight} the accents gather.",
            f"Most of the weight lies towards the {weight}.",
        )
        phrases = ((f"towards the {weight}", 0.4),)
    sentences = [Sentence(wordings, phrases, salience)]
    if 0.6 <= symmetry < 0.8:
        sentences.append(
            Sentence(
                (
                    "Left and right halves roughly match in light and dark.",
                    "Its two halves roughly match in light and dark.",
                    "In light and dark, left and right roughly match.",
                    "A rough symmetry of light and dark joins left and right.",
                ),
                (("roughly match", 0.4), ("symmetry", 0.4)),
                symmetry - 0.3,
                offset=2,
            )
        )
    elif symmetry >= 0.8:
        sentences.append(
            Sentence(
                (
                    "Left and right halves nearly mirror each other.",
                    "Its two halves are close to symmetrical.",
                    "Left and right answer each other in near symmetry.",
                    "A near symmetry joins left and right.",
                ),
                (("symmetrical", 0.6), ("symmetry", 0.6), ("mirror", 0.5)),
                symmetry - 0.15,
                offset=2,
            )
        )
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
    cell = (third_of(pleasure, 0.42, 0.53), third_of(arousal, 0.28, 0.42))
    words = _MOODS[cell]
    confidence = min(0.7, 0.4 + abs(pleasure - 0.475) + abs(arousal - 0.35) * 0.5)
    # The whole is given two words for its mood, a part one.
    also = [f" and {word}" if required else "" for word in words]
    return Sentence(
        (
            f"Taken together, this reads as {words[0]}{also[1]}.",
            f"Its effect may be called {words[1]}{also[2]}.",
            f"The impression that results is rather {words[2]}{also[3]}.",
            f"One may find the effect {words[3]}{also[0]}.",
        ),
        tuple((word, confidence) for word in words),
        None if required else 3.0,
        offset=2,
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
    return {"landscape": "horizontal", "portrait": "upright", "square": "square"}[form]
