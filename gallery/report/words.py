"""Figures and settings in plain words, for people who read a label on a wall.

No figure is computed here.
"""

from __future__ import annotations

from typing import Final

from gallery.views import PairsView, PairView, SimilaritySpread
from schemas.records import ExhibitionSettings

_NUMBERS: Final = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

_RULES: Final = {
    "greedy": "tracks in the order of their arrival, each takes the best picture that is free",
    "stable": "the most alike pair first, then the next, until one side is used up",
    "optimal": "the greatest similarity over all pairs together",
}

_SPACES: Final = {
    "rgb": "movement, calm and nostalgia of the whole",
    "rgb15": "movement, calm and nostalgia, part by part and of the whole",
    "va": "valence and arousal of the whole",
}

_MUSIC: Final = {
    "never": "none is composed",
    "on request": "composed when somebody asks",
    "always": "composed for every picture that hangs",
}


_COMPOSERS: Final = {
    "edge": "the edge composer",
    "art2mus": "Art2Mus",
    "mozarts-touch": "Mozart’s Touch",
    "mmva": "MMVA",
}


def composer_words(name: str) -> str:
    """Who composed, as a heading."""
    said = _COMPOSERS.get(name, name)
    return said[:1].upper() + said[1:]


def nearness_words(space: str, measured: bool) -> str:
    """By what pieces of several composers are compared."""
    if not measured:
        return "The same picture, each in its own way."
    by = "ImageBind, which looks and hears" if space.startswith("imagebind") else _one_space(space)
    return (
        f"The same picture, each in its own way; how near each comes is measured by {by}. "
        "The dashed line is what any picture (or track) and any track reach on average."
    )


def number(count: int) -> str:
    """A count as it reads in a sentence: "nine", "21", "1,204"."""
    return _NUMBERS[count] if count < len(_NUMBERS) else f"{count:,}"


def many(count: int, one: str, more: str | None = None) -> str:
    """A count with its noun: "one picture", "nine pictures"."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def exhibition_title(name: str) -> str:
    """An exhibition's name as a heading."""
    if name == "default":
        return "The whole collection"
    words = name.replace("-", " ").replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def space_words(view: PairsView) -> str:
    """What two items are compared by."""
    if view.mix:
        return "a mix: " + ", ".join(f"{weight:g} × {_one_space(name)}" for name, weight in view.mix.items())
    return _one_space(view.space)


def _one_space(name: str) -> str:
    if name in _SPACES:
        return _SPACES[name]
    if name.startswith("rgb-"):
        return f"movement, calm and nostalgia of part {name[4:]}"
    return f"vectors of {name}"


def rule_words(rule: str) -> str:
    """How pairs are chosen."""
    return _RULES.get(rule, rule)


def floor_words(floor: float | None) -> str:
    """Below which similarity items stay free."""
    return "none; everything may be paired" if floor is None else f"nothing less alike than {floor:g} is paired"


def music_words(settings: ExhibitionSettings, pieces: int) -> str:
    """When music is composed, and how much there is."""
    return f"{_MUSIC[settings.music]}; {many(pieces, 'piece')} so far"


def clock(seconds: float) -> str:
    """A length of sound: "0:31", "12:04", "1:02:03"."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def settings_words(settings: ExhibitionSettings, view: PairsView) -> str:
    """What is compared, how pairs are chosen, the floor, and the music: one sentence."""
    floor = "" if view.floor is None else f"; {floor_words(view.floor)}"
    return (
        f"Compared by {space_words(view)}. Chosen so: {rule_words(view.rule)}{floor}. "
        f"Music: {_MUSIC[settings.music]}."
    )


def beats(percentile: float) -> str:
    """The share of possible pairs that are less similar, never rounded up to all of them."""
    return f"beats {int(percentile)} %"


def similarity_words(pair: PairView, view: PairsView, possible: SimilaritySpread | None) -> str:
    """A pair's similarity beside chance, in a sentence or two."""
    among = "" if possible is None or possible.sampled else f" {sum(possible.counts):,}"
    if possible is not None and not possible.sampled and pair.similarity >= possible.highest - 1e-6:
        rank = f"The most alike of all{among} possible pairs."
    else:
        rank = f"More alike than {int(pair.percentile)} in 100 of all{among} possible pairs."
    if view.chance_similarity is None:
        return rank
    chance = f"A pair drawn at random reaches {view.chance_similarity:.3f} on average"
    if view.lift is None:
        return f"{rank} {chance}."
    return f"{rank} {chance}; this one {pair.similarity / view.chance_similarity:.2f} times that (lift)."


def chance_words(view: PairsView) -> str:
    """The whole pairing beside chance."""
    if view.mean_similarity is None or view.chance_similarity is None or view.chance_spread is None:
        return ""
    said = (
        f"The pairs on this wall reach {view.mean_similarity:.3f} on average. When the same pictures and tracks are "
        f"paired at random, the average is {view.chance_similarity:.3f} ± {view.chance_spread:.3f}"
    )
    if view.lift is None:
        return f"{said}."
    return f"{said}: a lift of {view.lift:.3f}."
