"""What is said of a sound: who plays, manner, pulse, key, loudness, colour, density, and how they read together.

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
    article,
    catalogue_sentences,
    choice,
    compose,
    confidences,
    joined,
    level_of,
    mood_words,
    number,
    third_of,
    turn_of,
)
from edge_models.sound_names import SOUND_WORDS
from edge_models.triton_model import Invalid

# A tag is said at all from the first confidence on, without "perhaps" from the second. The taggers give lower figures
# than a classifier of pictures: each of their labels is a yes or no of its own. They mistake instruments for voices
# more often than for each other.
PERHAPS, LIKELY = 0.22, 0.38
PERHAPS_VOICE = 0.3
# Below the first a pulse or a key is not named, and in a quarter, which is short, below the second; from the third on
# it is said without doubt.
NAMED_TEMPO, NAMED_TEMPO_IN_PART = 0.25, 0.4
NAMED_KEY, NAMED_KEY_IN_PART = 0.3, 0.35
CLEAR = 0.5
# Level in dB below which nothing is heard but silence, and share of silent time from which it is said.
SILENT_LEVEL, MOSTLY_SILENT = -60.0, 0.9
# Where the thirds of arousal are cut.
STIR = (0.40, 0.56)

_PLACES = {"part-1": "first", "part-2": "second", "part-3": "third", "part-4": "last"}
_KINDS = {word.name: word.kind for word in SOUND_WORDS}
# A genre is named from here on, and only where no catalogue names one.
MANNER = 0.34
_UNCOUNTED = frozenset(("strings", "bowed strings", "drums", "singing"))
# Tags that say the same in part: of the first kind both become one, of the second only the more confident one stays.
_JOINED = (("strings", "violin"), ("strings", "cello"))
_OVERLAPS = (("singing", "female voice"), ("singing", "male voice"), ("singing", "choir"))
_MANNERS = {
    "classical": "classical music",
    "opera": "opera",
    "electronic": "electronic music",
    "folk": "folk music",
    "country": "country music",
    "dance": "dance music",
    "ambient": "ambient music",
    "experimental": "experimental music",
}
# Moods by (pleasure, arousal) in thirds, from low to high: what such a sound is commonly called (see `mood_words`).
_MOODS: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 0): ("mournful", "sombre", "melancholy", "wistful"),
    (0, 1): ("plaintive", "brooding", "grave", "serious"),
    (0, 2): ("tense", "stormy", "urgent", "agitated"),
    (1, 0): ("still", "restrained", "dreamy", "contemplative"),
    (1, 1): ("measured", "composed", "thoughtful", "even-tempered"),
    (1, 2): ("restless", "driving", "animated", "energetic"),
    (2, 0): ("calm", "gentle", "peaceful", "serene"),
    (2, 1): ("pleasant", "graceful", "warm-hearted", "friendly"),
    (2, 2): ("cheerful", "lively", "joyful", "exuberant"),
}
# Where the thirds of pleasure are cut.
_PLEASURE = (0.42, 0.58)


def caption_sound(measurement: dict[str, Any], part: str, catalogue: dict[str, str]) -> Caption:
    """The caption of the whole recording (45-90 words) or of one of its quarters (20-45 words).

    `part` is one of part-1 .. part-4, whole; the catalogue is used for the whole only. Raises `Invalid` for another
    part and for a measurement that lacks something.
    """
    if part not in PARTS["sound"]:
        raise Invalid(f"PART is {part!r}; send one of {', '.join(PARTS['sound'])}")
    turn = turn_of(measurement, part, catalogue, "sound")
    whole = part == "whole"
    length = WHOLE_LENGTH if whole else FRAGMENT_LENGTH
    head = catalogue_sentences(catalogue, "recording") if whole else []
    if _is_silent(measurement):
        return compose([*head, *_silence(measurement, None if whole else _PLACES[part])], length, turn)
    if whole:
        sentences = [
            *head,
            *_players(measurement, None),
            *_manner(measurement, catalogue),
            _pulse(measurement, NAMED_TEMPO),
            _key(measurement, NAMED_KEY),
            _density(measurement),
            _loudness(measurement),
            _colour(measurement),
            _mood(measurement, required=True),
        ]
        return compose(sentences, length, turn)
    place = _PLACES[part]
    players = _players(measurement, place)
    density = _density(measurement, None if players else place)
    rest = [
        _pulse(measurement, NAMED_TEMPO_IN_PART),
        _key(measurement, NAMED_KEY_IN_PART),
        _loudness(measurement),
        _colour(measurement),
    ]
    shift = turn % len(rest)
    return compose(
        [*players, density, *rest[shift:], *rest[:shift], _mood(measurement, required=False)], length, turn
    )


def _is_silent(measurement: dict[str, Any]) -> bool:
    level = number(measurement, "loudness", "level", -120.0, 20.0)
    silence = number({"sound": {"silence": measurement.get("silence")}}, "sound", "silence", 0.0, 1.0)
    return level <= SILENT_LEVEL or silence >= MOSTLY_SILENT


def _silence(measurement: dict[str, Any], place: str | None) -> list[Sentence]:
    """What is left to say of silence, and of silence that brief moments of sound interrupt."""
    where = "the recording" if place is None else f"the {place} quarter"
    if number(measurement, "loudness", "level", -120.0, 20.0) <= SILENT_LEVEL:
        level = Sentence(
            (
                "Its level lies far below that of ordinary music, and hardly changes from beginning to end.",
                "Far below the level of ordinary music, it hardly changes from beginning to end.",
                "From beginning to end the level hardly changes, and lies far below that of ordinary music.",
                "The level, far below that of ordinary music, hardly changes from beginning to end.",
            ),
            (("far below", 0.5),),
            None if place is None else 1.0,
        )
    else:
        # One clap in a minute of silence: its level is that of the clap.
        level = Sentence(
            (
                "Only brief moments of sound rise out of it, and they are too few to be called playing.",
                "Brief moments of sound rise out of it, too few to be called playing.",
                "Out of it rise brief moments of sound, too few to be called playing.",
                "What sounds are brief moments, too few to be called playing.",
            ),
            (("brief moments", 0.4),),
            None if place is None else 1.0,
        )
    unheard = Sentence(
        (
            "Tones are too few or too faint for their number and their colour to be told.",
            "How many tones there are, and of what colour, cannot be told from so little.",
            "Of tones there are too few, or too faint ones, to tell their number and their colour.",
            "For their number and their colour to be told, tones are too few or too faint.",
        ),
    )
    return [
        Sentence(
            (
                f"Hardly anything is heard in {where}: it stays close to silence.",
                f"Close to silence, {where} lets hardly anything be heard.",
                f"In {where} there is hardly anything but silence.",
                f"Silence fills {where} almost from end to end.",
            ),
            (("silence", 0.9),),
        ),
        Sentence(
            (
                "No pulse, no key and no instrument can be made out.",
                "Neither a pulse nor a key nor an instrument can be made out.",
                "Instruments, pulse and key cannot be made out.",
                "Without instruments, pulse or key, little remains to describe.",
            ),
        ),
        level,
        *([] if place is not None else [unheard]),
        Sentence(
            (
                "Taken together, it sounds still.",
                "The impression that results is still.",
                "One may find the effect still.",
                "Its effect might be called still.",
            ),
            (("still", 0.6),),
        ),
    ]


def _chosen(measurement: dict[str, Any], kinds: tuple[str, ...]) -> list[tuple[str, float]]:
    """Tags of some kinds from `PERHAPS` on, strongest first, without those that say the same as a stronger one."""
    found = {
        name: sure
        for name, sure in confidences(measurement).items()
        if _KINDS.get(name) in kinds and sure >= (PERHAPS_VOICE if _KINDS[name] == "voice" else PERHAPS)
    }
    for one, two in _JOINED:
        if one in found and two in found:
            found["bowed strings"] = max(found.pop(one), found.pop(two))
    for one, two in _OVERLAPS:
        if one in found and two in found:
            del found[min((one, two), key=lambda name: (found[name], name))]
    return sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))


def _noun(name: str) -> str:
    return name if name in _UNCOUNTED else article(name)


def _players(measurement: dict[str, Any], place: str | None) -> list[Sentence]:
    """Who plays or sings, where the taggers are sure enough; nothing otherwise."""
    found = [entry for entry in _chosen(measurement, ("instrument", "voice")) if entry[0] != "instrumental"]
    if not found:
        return []
    sure = [name for name, confidence in found if confidence >= LIKELY][:2]
    unsure = [name for name, _ in found if name not in sure][: 1 if sure else 2]
    named = joined([_noun(name) for name in sure])
    maybe = joined([_noun(name) for name in unsure])
    plural = len(sure) > 1 or any(name in _UNCOUNTED and name != "singing" for name in sure)
    where = "" if place is None else f" in the {place} quarter"
    also = f", and perhaps {maybe}" if sure and maybe else ""
    with_it = f", joined perhaps by {maybe}" if also else ""
    if sure:
        wordings: tuple[str, ...] = (
            f"Most likely {named} {'are' if plural else 'is'} heard{where}{also}.",
            f"What is heard{where} is most likely {named}{also}.",
            f"To all appearance {named} {'lead' if plural else 'leads'}{where}{with_it}.",
            f"The sound{where} is most likely that of {named}{also}.",
        )
    else:
        wordings = (
            f"Perhaps {maybe} can be heard{where}.",
            f"What is heard{where} may be {maybe}.",
            f"What sounds{where} resembles {maybe}.",
            f"The sound{where} may be that of {maybe}.",
        )
    phrases = tuple(entry for entry in found if entry[0] in (*sure, *unsure))
    return [Sentence(wordings, phrases, None if place is not None else 2.0)]


def _manner(measurement: dict[str, Any], catalogue: dict[str, str]) -> list[Sentence]:
    """The genre that it comes closest to, hedged; nothing where none stands out, or where people have named it."""
    found = [entry for entry in _chosen(measurement, ("genre",)) if entry[1] >= MANNER]
    if not found or "genre" in catalogue or "style" in catalogue:
        return []
    name, confidence = found[0]
    manner = _MANNERS.get(name, name)
    hedge = "" if confidence >= LIKELY else "perhaps "
    return [
        Sentence(
            (
                f"In manner it comes {hedge}closest to {manner}.",
                f"Its manner is {hedge}nearest to {manner}.",
                f"Among familiar manners, {hedge}{manner} is the nearest.",
                f"It stands {hedge}nearest to {manner}.",
            ),
            ((manner, confidence),),
            1.6,
        )
    ]


def _speed(measurement: dict[str, Any]) -> tuple[float, float]:
    """Beats a minute and how sure, 0..1."""
    return number(measurement, "tempo", "bpm", 0.0, 400.0), number(measurement, "tempo", "confidence", 0.0, 1.0)


def _pulse(measurement: dict[str, Any], named: float) -> Sentence:
    beats, sure = _speed(measurement)
    if sure < named or beats < 20:
        return Sentence(
            (
                "No steady pulse stands out.",
                "Beats are hard to count.",
                "A steady pulse cannot be counted for sure.",
                "Hard to count, the pulse stays loose.",
            ),
            (),
            0.25,
        )
    about = f"about {round(beats)} beats a minute"
    tempo = measurement["tempo"]
    if "other" in tempo:
        # Which of the two is felt, the parts of the piece do not agree on.
        half = number(measurement, "tempo", "other", 0.0, 400.0) < beats
        about += ", or half as many," if half else ", or twice as many,"
    pace, certain = level_of(
        beats, ((72, "slow", 0.8), (100, "moderate", 0.6), (126, "brisk", 0.6), (152, "quick", 0.7)), ("fast", 0.8)
    )
    stir = third_of(_arousal(measurement), *STIR)
    against = stir == 0 if pace in ("brisk", "quick", "fast") else stir == 2 and pace == "slow"
    if sure < CLEAR or against or "other" in tempo:
        # Twice or half the figure may be meant, above all where the rest of the sound speaks against it, so no pace
        # is claimed.
        return Sentence(
            (
                f"A pulse of {about} can be made out.",
                f"One may count {about.rstrip(',')}.",
                f"A pulse may be counted at {about.rstrip(',')}.",
                f"{about} can be counted.",
            ),
            ((f"about {round(beats)} beats a minute", 0.4),),
            0.7 + sure * 0.6,
        )
    return Sentence(
        (
            f"A firm pulse of {about} gives it {article(pace)} pace.",
            f"At {about}, the pace is {pace}.",
            f"It moves at {article(pace)} pace, {about}.",
            f"With {about}, it keeps {article(pace)} pace.",
        ),
        ((pace, certain), (about, 0.6)),
        0.9 + sure * 0.6,
    )


def _key_confidence(measurement: dict[str, Any]) -> float:
    """How sure the key is; 0 where drums are heard and no key is clear: their own tones make a key by chance."""
    sure = number(measurement, "key", "confidence", 0.0, 1.0)
    return 0.0 if sure < CLEAR and confidences(measurement).get("drums", 0.0) >= LIKELY else sure


def _key(measurement: dict[str, Any], named: float) -> Sentence:
    sure = _key_confidence(measurement)
    mode = choice(measurement, "key", "mode", ("major", "minor"))
    holder = measurement["key"]
    tonic = holder.get("tonic")
    if not isinstance(tonic, str) or not tonic:
        raise Invalid("MEASUREMENTS lacks key.tonic; measure again")
    name = f"{tonic} {mode}"
    if sure < named and holder.get("changes") is True and confidences(measurement).get("drums", 0.0) < LIKELY:
        return Sentence(
            (
                "Which key it keeps to changes along the way.",
                "Along the way the key changes.",
                "No single key is kept throughout.",
                "One key gives way to another.",
            ),
            (),
            1.3,
        )
    if sure < named:
        return Sentence(
            (
                "Which key it keeps to stays open.",
                "No key stands out.",
                "No single key can be heard for sure.",
                "Of its key nothing can be said for sure.",
            ),
            (),
            0.2,
        )
    hedge = "" if sure >= CLEAR else "perhaps "
    return Sentence(
        (
            f"Its notes {hedge}fit {name} best.",
            f"In key it {hedge}stays close to {name}.",
            f"{name} is {hedge}the key that its notes fit best.",
            f"Notes {hedge}keep to {name}.",
        ),
        ((name, min(1.0, 0.3 + sure)),),
        0.7 + sure * 0.5,
    )


def _density(measurement: dict[str, Any], place: str | None = None) -> Sentence:
    """How many tones begin in a second. With a place it opens the caption of a quarter and must be said."""
    onsets = number(measurement, "density", "onsets", 0.0, 60.0)
    word, sure = level_of(
        onsets,
        ((1.5, "sparse", 0.8), (2.5, "spacious", 0.6), (4.5, "flowing", 0.4), (6.5, "busy", 0.7)),
        ("dense", 0.8),
    )
    count = round(onsets)
    drums = confidences(measurement).get("drums", 0.0) >= LIKELY
    tone = "stroke" if drums else "tone"
    rate = "less than one a second" if onsets < 0.75 else f"about {'one' if count <= 1 else count} a second"
    tones = (
        f"less than one new {tone}"
        if onsets < 0.75
        else f"about one new {tone}"
        if count <= 1
        else f"about {count} new {tone}s"
    )
    verb = "enters" if count <= 1 else "enter"
    where = "" if place is None else f" in the {place} quarter"
    wordings: tuple[str, ...] = (
        f"With {tones} a second{where}, the texture is {word}.",
        f"{tone}s follow each other at a rate of {rate}{where}: the playing is {word}.",
        f"The playing{where} is {word}, with {tones} a second.",
        f"Each second {tones} {verb}{where}, and the texture is {word}.",
    )
    return Sentence(wordings, ((word, sure),), None if place is not None else abs(onsets - 3.6) * 0.22 + 0.3)


def _loudness(measurement: dict[str, Any]) -> Sentence:
    level = number(measurement, "loudness", "level", -120.0, 20.0)
    span = number(measurement, "loudness", "range", 0.0, 120.0)
    loud, sure = level_of(
        level, ((-30, "very soft", 0.9), (-25, "soft", 0.7), (-19, "of middling strength", 0.3)), ("loud", 0.7)
    )
    change, said = level_of(
        span,
        (
            (4, "stays even throughout", 0.6),
            (9, "swells and falls a little", 0.4),
            (14, "rises and falls clearly", 0.6),
        ),
        ("swings widely between faint and full", 0.8),
    )
    return Sentence(
        (
            f"On the whole it is {loud}, and {change}.",
            f"It is {loud} and {change}.",
            f"In volume it is {loud}, and {change}.",
            f"{loud} as a whole, it {change}.",
        ),
        ((loud, sure), (change, said)),
        abs(level + 22) * 0.06 + abs(span - 8) * 0.06 + 0.2,
    )


def _colour(measurement: dict[str, Any]) -> Sentence:
    centroid = number(measurement, "brightness", "centroid", 0.0, 24_000.0)
    word, sure = level_of(
        centroid,
        ((700, "very dark", 0.8), (1_050, "dark", 0.7), (1_500, "warm", 0.5), (2_200, "clear", 0.5)),
        ("bright", 0.8),
    )
    return Sentence(
        (
            f"The tone colour is {word}.",
            f"A {word} timbre marks the sound.",
            f"Its timbre is {word}.",
            f"In timbre it is {word}.",
        ),
        ((word, sure),),
        abs(centroid - 1400) / 1400 + 0.2,
    )


def _tempo(measurement: dict[str, Any]) -> float:
    """How quick it is, 0..1; an unsure tempo counts as a middling one."""
    beats, steady = _speed(measurement)
    return 0.5 + min(1.0, steady * 2) * (_within(beats, 55.0, 155.0) - 0.5)


def _arousal(measurement: dict[str, Any]) -> float:
    """How stirring the measured sound is, about 0..1, from density, loudness, tempo and brightness (see `_mood`)."""
    tags = confidences(measurement)
    return (
        0.40 * _within(number(measurement, "density", "onsets", 0.0, 60.0), 0.5, 6.5)
        + 0.25 * _within(number(measurement, "loudness", "level", -120.0, 20.0), -34.0, -14.0)
        + 0.20 * _tempo(measurement)
        + 0.15 * _within(number(measurement, "brightness", "centroid", 0.0, 24_000.0), 600.0, 2_400.0)
        + 0.20 * (tags.get("fast", 0.0) - tags.get("slow", 0.0))
    )


def _mood(measurement: dict[str, Any], required: bool) -> Sentence:
    """How the measured sound reads together, hedged.

    Arousal from density, loudness, tempo and brightness; pleasure from mode, tempo, brightness and the taggers' sad
    and happy, after the cues that Gabrielsson and Lindstrom (2010) collect; both in [0,1] and cut into thirds.
    """
    centroid = number(measurement, "brightness", "centroid", 0.0, 24_000.0)
    key = _key_confidence(measurement)
    mode = choice(measurement, "key", "mode", ("major", "minor"))
    tags = confidences(measurement)
    arousal = _arousal(measurement)
    pleasure = (
        0.5
        + 0.22 * _within(key, 0.2, 0.6) * (1.0 if mode == "major" else -1.0)
        + 0.20 * (_tempo(measurement) - 0.5)
        + 0.15 * (_within(centroid, 600.0, 2_400.0) - 0.45)
        + 0.60 * (tags.get("happy", 0.0) - tags.get("sad", 0.0))
    )
    words = mood_words(_MOODS, (pleasure, _PLEASURE), (arousal, STIR))
    confidence = min(0.7, 0.35 + abs(pleasure - 0.5) + abs(arousal - 0.48) * 0.6)
    # The whole is given two words for its mood, a part one.
    said = " and ".join(words if required else words[:1])
    return Sentence(
        (
            f"Taken together, it sounds {said}.",
            f"The impression that results is {said}.",
            f"One may find the effect {said}.",
            f"Its effect might be called {said}.",
        ),
        tuple((word, confidence) for word in (words if required else words[:1])),
        None if required else 3.0,
    )


def _within(value: float, low: float, high: float) -> float:
    """Where the value lies between low (0) and high (1)."""
    return max(0.0, min(1.0, (value - low) / (high - low)))
