"""What must hold of every caption, over random measurements and catalogue texts of both kinds.

The sentences alone are tested here (`edge_models.captions*`, no networks, no server); whether a measurement says what
a picture or sound is like is left to test_measure_*.py, the served models to test_captions_models.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from edge_models import captions_picture, captions_sound
from edge_models.captions import (
    FRAGMENT_LENGTH,
    PARTS,
    WHOLE_LENGTH,
    Caption,
    catalogue_sentences,
    read_catalogue,
    read_measurement,
    sentence_case,
)
from edge_models.captions_picture import caption_picture
from edge_models.captions_sound import caption_sound
from edge_models.picture_names import COLOUR_NAMES, MOTIFS
from edge_models.sound import TONICS
from edge_models.sound_names import SOUND_WORDS
from edge_models.triton_model import Invalid
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

Measurement = dict[str, Any]
CAPTION: dict[str, Callable[[Measurement, str, dict[str, str]], Caption]] = {
    "picture": caption_picture,
    "sound": caption_sound,
}
NOUN = {"picture": "picture", "sound": "recording"}


def unit(low: float = 0.0) -> st.SearchStrategy[float]:
    return st.floats(low, 1.0).map(lambda value: round(value, 3))


def tags(names: list[str], most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    tag = st.fixed_dictionaries({"name": st.sampled_from(names), "confidence": unit(0.05)})
    return st.lists(tag, max_size=most, unique_by=lambda entry: entry["name"])


@st.composite
def pictures(draw: st.DrawFn) -> Measurement:
    names = draw(st.lists(st.sampled_from(list(COLOUR_NAMES)), min_size=1, max_size=6, unique=True))
    weights = sorted(draw(st.lists(st.integers(3, 97), min_size=len(names), max_size=len(names))), reverse=True)
    return {
        "kind": "picture",
        "version": "1",
        "width": draw(st.integers(1, 1024)),
        "height": draw(st.integers(1, 1024)),
        "palette": [
            {"name": name, "rgb": list(COLOUR_NAMES[name]), "share": round(weight / sum(weights), 3)}
            for name, weight in zip(names, weights, strict=True)
        ],
        "light": {"brightness": draw(unit()), "contrast": draw(unit())},
        "colour": {
            "saturation": draw(unit()),
            "warmth": round(draw(st.floats(-1, 1)), 3),
            "variety": draw(unit()),
            "monochrome": draw(st.booleans()),
        },
        "texture": {
            "detail": draw(unit()),
            "roughness": draw(unit()),
            "direction": draw(st.sampled_from(["horizontal", "vertical", "diagonal", "none"])),
        },
        "composition": {
            "weight": draw(st.sampled_from(["left", "right", "top", "bottom", "centre", "even"])),
            "symmetry": draw(unit()),
            "format": draw(st.sampled_from(["landscape", "portrait", "square"])),
        },
        "tags": draw(tags([motif.name for motif in MOTIFS], 8)),
    }


@st.composite
def sounds(draw: st.DrawFn) -> Measurement:
    mode = draw(st.sampled_from(["major", "minor"]))
    seconds = round(draw(st.floats(0.01, 1920)), 3)
    return {
        "kind": "sound",
        "version": "1",
        "seconds": seconds,
        "heard_seconds": seconds,
        "tempo": {
            "bpm": draw(st.just(0.0) | st.floats(40, 240).map(lambda x: round(x, 1))),
            "confidence": draw(unit()),
        },
        "key": {"tonic": draw(st.sampled_from(TONICS[mode])), "mode": mode, "confidence": draw(unit())},
        "loudness": {
            "level": draw(st.just(-70.0) | st.floats(-69, 0).map(lambda x: round(x, 2))),
            "range": round(draw(st.floats(0, 40)), 2),
        },
        "brightness": {"centroid": round(draw(st.floats(0, 8000)), 1)},
        "density": {"onsets": round(draw(st.floats(0, 16)), 3)},
        "silence": draw(st.just(0.0) | unit()),
        "tags": draw(tags([word.name for word in SOUND_WORDS], 10)),
    }


MEASUREMENTS = {"picture": pictures(), "sound": sounds()}
LETTERS = st.characters(codec="utf-8")  # no surrogates: they cannot be sent as JSON
ODD_TEXT = st.text(LETTERS, max_size=300) | st.sampled_from(
    [
        'He said "no',
        "Untitled (study",
        "line\none\r\ntwo\ttabs",
        "a" * 300,
        "a b " * 75,
        "😀👩\u200d🎨",
        "لوحة في الليل",
        "ציור (לילה",
        "„Der Kuß“",
        "“Open",
        "n/a",
        "...",
        "Where?",
        "No. 5!",
        "O'Brien's “Bells”",
        "\u202egnirts",
        "<b>bold</b>",
        "Study, no. 1.",
        "",
    ]
)
CATALOGUES = st.fixed_dictionaries(
    {}, optional={key: st.none() | ODD_TEXT for key in ("title", "artist", "year", "style", "genre", "licence")}
)
PLAIN = {"title": "The Ford", "artist": "Ann Example", "year": "1875", "style": "Realism", "genre": "landscape"}


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Measurement, str, dict[str, str]]:
    """Kind, measurement, part, catalogue as a caption model reads them (both through JSON)."""
    kind = draw(st.sampled_from(["picture", "sound"]))
    measurement = read_measurement(json.dumps(draw(MEASUREMENTS[kind])), kind)
    part = draw(st.sampled_from(PARTS[kind]))
    catalogue = read_catalogue(json.dumps(draw(st.just({}) | st.just(PLAIN) | CATALOGUES)))
    return kind, measurement, part, catalogue


def split(kind: str, caption: Caption, part: str, catalogue: dict[str, str]) -> tuple[list[str], list[str]]:
    """The catalogue's sentences and our own ones, in the order of the text."""
    rest, facts = caption.text, []
    for sentence in catalogue_sentences(catalogue, NOUN[kind]) if part == "whole" else []:
        said = sentence_case(sentence.wordings[0])
        if rest.startswith(said):
            facts.append(said)
            rest = rest[len(said) :].strip()
    return facts, re.split(r"(?<=[.!?…])\s+", rest)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_every_caption_is_whole_sentences_within_its_length(
    case: tuple[str, Measurement, str, dict[str, str]],
) -> None:
    kind, measurement, part, catalogue = case
    caption = CAPTION[kind](measurement, part, catalogue)
    facts, own = split(kind, caption, part, catalogue)
    least, _, most = WHOLE_LENGTH if part == "whole" else FRAGMENT_LENGTH
    assert least <= len(caption.text.split()) <= most, caption.text
    assert "\n" not in caption.text and "  " not in caption.text
    for sentence in own:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,:'-]*[a-z0-9]\.", sentence), sentence
        assert not re.search(r"\b(\w+) \1\b", sentence.lower()), sentence
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", sentence.lower()), sentence
        assert " ," not in sentence and " ." not in sentence and ",," not in sentence
    for sentence in facts:
        assert sentence[-1] in ".!?…" and sentence[-2:] not in ("..", "!.", "?.", "….", ",.")
        for opening, closing in ("()", "[]", "{}", "“”", "«»"):
            if "„" not in sentence:
                assert sentence.count(opening) == sentence.count(closing), sentence
        assert sentence.count('"') % 2 == 0
    assert len(own) >= 2 and len(set(own)) == len(own)
    openings = [sentence.split()[:2] for sentence in own]
    assert all(one != two for one, two in pairwise(openings)), caption.text


@settings(max_examples=300, deadline=None)
@given(cases())
def test_numbers_and_names_come_from_the_measurement_or_the_catalogue(
    case: tuple[str, Measurement, str, dict[str, str]],
) -> None:
    kind, measurement, part, catalogue = case
    caption = CAPTION[kind](measurement, part, catalogue)
    facts, own = split(kind, caption, part, catalogue)
    known = set()
    if kind == "sound":
        known = {str(round(measurement["tempo"]["bpm"])), str(round(measurement["density"]["onsets"]))}
    assert set(re.findall(r"\d+", " ".join(own))) <= known
    allowed = {"Prussian", *(tonic[0] for tonic in TONICS["major"])}
    for sentence in own:
        assert set(re.findall(r"\b[A-Z]\w*", sentence[1:])) <= allowed, sentence
    if part != "whole":
        assert not facts
    else:
        named = {key: catalogue[key] for key in ("title", "artist", "year") if key in catalogue}
        assert all(value.lower() in facts[0].lower() for value in named.values())
    said = " ".join(own)
    seen = {colour["name"] for colour in measurement.get("palette", [])}
    for name in COLOUR_NAMES if kind == "picture" else ():
        if " " in name and re.search(rf"\b{name}\b", said, re.IGNORECASE):
            assert name in seen, (name, said)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_phrases_stand_in_the_text_with_a_confidence_and_the_same_input_gives_the_same_caption(
    case: tuple[str, Measurement, str, dict[str, str]],
) -> None:
    kind, measurement, part, catalogue = case
    caption = CAPTION[kind](measurement, part, catalogue)
    assert caption.phrases
    lowered = caption.text.lower()
    for phrase, confidence in json.loads(caption.phrases_json()):
        assert phrase.strip() and phrase.lower() in lowered
        assert 0 < confidence <= 1
    assert len({phrase for phrase, _ in caption.phrases}) == len(caption.phrases)
    again = CAPTION[kind](json.loads(json.dumps(measurement)), part, dict(catalogue))
    assert again == caption


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_four_quarters_of_one_item_begin_differently_and_share_no_sentence(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["picture", "sound"]))
    measurement = data.draw(MEASUREMENTS[kind])
    if kind == "sound":
        assume(measurement["loudness"]["level"] > -60 and measurement["silence"] < 0.9)
    texts = [CAPTION[kind](measurement, part, {}).text for part in PARTS[kind][:4]]
    assert len({tuple(text.split()[:2]) for text in texts}) == 4, texts
    sentences = [sentence for text in texts for sentence in re.split(r"(?<=\.)\s+", text)]
    assert len(set(sentences)) == len(sentences), texts


@settings(max_examples=200, deadline=None)
@given(cases())
def test_every_wording_says_the_same(case: tuple[str, Measurement, str, dict[str, str]]) -> None:
    """What is read of a caption does not hang on which of its wordings was taken."""
    kind, measurement, part, catalogue = case
    module = {"picture": captions_picture, "sound": captions_sound}[kind]
    with pytest.MonkeyPatch.context() as patched:
        found = []
        for turn in range(4):
            patched.setattr(module, "turn_of", lambda *_, turn=turn: turn)
            caption = CAPTION[kind](measurement, part, catalogue)
            for phrase, _ in caption.phrases:
                assert re.search(rf"(?<!\w){re.escape(phrase.lower())}(?!\w)", caption.text.lower()), caption
            found.append((dict(caption.phrases), caption.text))
    assert all(phrases == found[0][0] for phrases, _ in found), found
    assert len({text for _, text in found}) == 4


@settings(max_examples=300, deadline=None)
@given(ODD_TEXT, st.sampled_from(["title", "artist", "year", "style", "genre"]))
@example("„Der Kuß", "title")
@example("(a) b)", "artist")
@example(7, "year")
def test_odd_catalogue_text_is_cleaned_to_one_line(value: Any, key: str) -> None:
    cleaned = read_catalogue(json.dumps({key: value})).get(key, "")
    assert "\n" not in cleaned and len(cleaned) <= 81 and len(cleaned.split()) <= 16
    assert cleaned == cleaned.strip() and not cleaned.endswith((".", ",", ";", ":"))
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2,12}( [A-Za-z]{2,12}){0,2}", value) and len(value) < 24:
        assert cleaned in (value, "")
    assert read_catalogue(json.dumps({key: cleaned})).get(key, "") == cleaned


def test_a_title_is_kept_as_it_is_spelled() -> None:
    for title in ("Kâtibim (Üsküdar'a gider iken)", "Rock 'n' roll", "Where do we come from?", "星月夜", "„Der Kuß“"):
        assert read_catalogue(json.dumps({"title": title}))["title"] == title


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "{", "\udcff".encode("utf-8", "surrogatepass")])
def test_a_broken_catalogue_is_refused(text: Any) -> None:
    with pytest.raises(Invalid, match="CATALOGUE is not"):
        read_catalogue(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_measurement_that_lacks_something_is_refused_and_never_guessed(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["picture", "sound"]))
    measurement = data.draw(MEASUREMENTS[kind])
    needed = {
        "picture": ["palette", "light", "colour", "texture", "composition", "tags"],
        "sound": ["tempo", "key", "loudness", "brightness", "density", "silence", "tags"],
    }[kind]
    if kind == "sound":
        assume(measurement["loudness"]["level"] > -60 and measurement["silence"] < 0.9)
    measurement[data.draw(st.sampled_from(needed))] = data.draw(st.sampled_from([None, "x", {}, [3], True]))
    with pytest.raises(Invalid, match="MEASUREMENTS"):
        CAPTION[kind](measurement, data.draw(st.sampled_from(PARTS[kind])), {})


def sound_of(**changes: Any) -> Measurement:
    return {
        "kind": "sound",
        "version": "1",
        "seconds": 20.0,
        "heard_seconds": 20.0,
        "tempo": {"bpm": 0.0, "confidence": 0.0},
        "key": {"tonic": "C", "mode": "major", "confidence": 0.0},
        "loudness": {"level": -70.0, "range": 0.0},
        "brightness": {"centroid": 0.0},
        "density": {"onsets": 0.0},
        "silence": 1.0,
        "tags": [],
    } | changes


@pytest.mark.parametrize("part", PARTS["sound"])
def test_a_silent_sound_is_called_silent_and_given_no_key_tempo_or_player(part: str) -> None:
    text = caption_sound(sound_of(), part, {}).text
    assert "ilence" in text and ("far below" in text.lower() or part != "whole")
    assert not re.search(r"major|minor|beats|pace|strings|\d", text)


@pytest.mark.parametrize("part", PARTS["sound"])
def test_a_clap_in_a_minute_of_silence_is_not_said_to_have_a_low_even_level(part: str) -> None:
    text = caption_sound(sound_of(loudness={"level": -14.0, "range": 3.0}, silence=0.97), part, {}).text
    assert "ilence" in text
    assert "far below" not in text.lower() and "hardly changes" not in text


def test_drums_alone_are_given_no_key() -> None:
    drums = sound_of(
        tempo={"bpm": 110.0, "confidence": 0.8},
        key={"tonic": "C sharp", "mode": "minor", "confidence": 0.35},
        loudness={"level": -20.0, "range": 5.0},
        density={"onsets": 4.0},
        brightness={"centroid": 900.0},
        silence=0.0,
        tags=[{"name": "drums", "confidence": 0.8}],
    )
    for part in PARTS["sound"]:
        text = caption_sound(drums, part, {}).text
        assert "drums" in text or part == "part-4"
        assert "minor" not in text and "major" not in text


def test_no_quick_pace_is_claimed_of_a_sound_that_nothing_else_makes_quick() -> None:
    """The counted tempo may be twice the one that is felt."""
    slow = sound_of(
        tempo={"bpm": 132.0, "confidence": 0.8},
        loudness={"level": -28.0, "range": 5.0},
        density={"onsets": 1.0},
        brightness={"centroid": 700.0},
        silence=0.0,
        tags=[{"name": "slow", "confidence": 0.6}],
    )
    for part in PARTS["sound"]:
        assert not re.search(r"quick|brisk|fast", caption_sound(slow, part, {}).text)


def test_a_tempo_at_low_confidence_is_not_said_and_of_a_quarter_it_must_be_surer() -> None:
    unsure = sound_of(
        tempo={"bpm": 97.0, "confidence": 0.3},
        loudness={"level": -20.0, "range": 5.0},
        density={"onsets": 4.0},
        brightness={"centroid": 1500.0},
        silence=0.0,
    )
    assert "about 97 beats a minute" in caption_sound(unsure, "whole", {}).text
    assert "pace" not in caption_sound(unsure, "whole", {}).text
    for part in PARTS["sound"][:4]:
        assert "97" not in caption_sound(unsure, part, {}).text
    unsure["tempo"]["confidence"] = 0.2
    assert "97" not in caption_sound(unsure, "whole", {}).text


def test_a_tempo_that_parts_count_twice_as_fast_is_said_with_its_other_half() -> None:
    torn = sound_of(
        tempo={"bpm": 144.0, "confidence": 0.9, "other": 72.0},
        loudness={"level": -20.0, "range": 5.0},
        density={"onsets": 4.0},
        brightness={"centroid": 1500.0},
        silence=0.0,
    )
    text = caption_sound(torn, "whole", {}).text
    assert "about 144 beats a minute, or half as many" in text and "pace" not in text
    torn["tempo"] = {"bpm": 72.0, "confidence": 0.9, "other": 144.0}
    assert "about 72 beats a minute, or twice as many" in caption_sound(torn, "whole", {}).text


def test_a_key_that_changes_is_said_to_change() -> None:
    changing = sound_of(
        key={"tonic": "C", "mode": "major", "confidence": 0.2, "changes": True},
        loudness={"level": -20.0, "range": 5.0},
        density={"onsets": 4.0},
        brightness={"centroid": 1500.0},
        silence=0.0,
    )
    text = caption_sound(changing, "whole", {}).text
    assert re.search(r"changes along the way|the key changes|kept throughout|gives way to another", text)
    assert "C major" not in text


def picture_of(**changes: Any) -> Measurement:
    return {
        "kind": "picture",
        "palette": [
            {"name": "sand", "rgb": [198, 166, 116], "share": 0.4},
            {"name": "beige", "rgb": [212, 192, 158], "share": 0.25},
            {"name": "taupe", "rgb": [136, 120, 104], "share": 0.2},
            {"name": "navy", "rgb": [24, 34, 72], "share": 0.1},
        ],
        "light": {"brightness": 0.6, "contrast": 0.5},
        "colour": {"saturation": 0.4, "warmth": 0.4, "variety": 0.4, "monochrome": False},
        "texture": {"detail": 0.6, "roughness": 0.5, "direction": "none"},
        "composition": {"weight": "even", "symmetry": 0.2, "format": "landscape"},
        "tags": [],
    } | changes


def test_a_motif_must_be_surer_in_a_quarter_than_in_the_whole() -> None:
    boat = picture_of(tags=[{"name": "boat", "confidence": 0.45}])
    assert "a boat" in caption_picture(boat, "whole", {}).text.lower()
    for part in PARTS["picture"][:4]:
        assert "boat" not in caption_picture(boat, part, {}).text
    boat["tags"][0]["confidence"] = 0.6
    for part in PARTS["picture"][:4]:
        text = caption_picture(boat, part, {}).text
        assert "boat" in text and not re.search("ost likely|To all appearance", text)


def test_a_small_but_striking_colour_is_named_in_the_whole() -> None:
    assert re.search(r"\bnavy\b.* stand|stands? out.*\bnavy\b", caption_picture(picture_of(), "whole", {}).text, re.I)
    pale = picture_of()
    pale["palette"][3] = {"name": "clay", "rgb": [154, 132, 110], "share": 0.1}
    assert "clay" not in caption_picture(pale, "whole", {}).text.lower()


@pytest.mark.parametrize("part", PARTS["picture"])
def test_one_flat_colour_is_said_to_be_the_only_one(part: str) -> None:
    flat = {
        "kind": "picture",
        "palette": [{"name": "scarlet", "rgb": [212, 44, 34], "share": 1.0}],
        "light": {"brightness": 0.47, "contrast": 0.0},
        "colour": {"saturation": 1.0, "warmth": 0.95, "variety": 0.0, "monochrome": True},
        "texture": {"detail": 0.0, "roughness": 0.0, "direction": "none"},
        "composition": {"weight": "even", "symmetry": 1.0, "format": "square"},
        "tags": [],
    }
    text = caption_picture(flat, part, {}).text
    assert re.search(r"scarlet", text, re.IGNORECASE)
    assert re.search(r"almost alone|hardly any colour but|almost wholly|Nearly everything", text, re.IGNORECASE)
    assert not re.search(r"followed by|beside it|joined by|share|set against", text)
    assert "monochrome" in text


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_another_part_is_refused(kind: str) -> None:
    measurement = sound_of() if kind == "sound" else {"kind": "picture"}
    with pytest.raises(Invalid, match="PART is 'middle'"):
        CAPTION[kind](measurement, "middle", {})
