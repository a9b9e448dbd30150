"""The words for music: which labels of the two taggers (MTT, MSD) make up one word, and their order.

The lists are our own choice. Labels that would claim a fact nobody measured (a decade, a country) or that say nothing
about the sound ("weird", "catchy", "sexy", "oldies") are left out; measuring is left to `edge_models.sound`.
"""

from __future__ import annotations

from dataclasses import dataclass

# The taggers' outputs in their order (Pons and Serra, musicnn, 2019), as in the package of the weights.
MTT_LABELS: tuple[str, ...] = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano"),
    *("ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing"),
    *("vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop"),
    *("soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice"),
    *("female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral"),
)
MSD_LABELS: tuple[str, ...] = (
    *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock"),
    *("jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow"),
    *("electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock"),
    *("ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country"),
    *("easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb"),
    *("indie pop", "sad", "House", "happy"),
)


@dataclass(frozen=True)
class SoundWord:
    """One word for a sound: its name, its kind ("instrument", "voice", "genre", "character") and the labels it joins.

    The confidence is the largest of the labels', times `trust` (0..1) for labels that the taggers give too freely.
    """

    name: str
    kind: str
    mtt: tuple[str, ...] = ()
    msd: tuple[str, ...] = ()
    trust: float = 1.0


SOUND_WORDS: tuple[SoundWord, ...] = (
    SoundWord("guitar", "instrument", ("guitar",), ("guitar",)),
    SoundWord("strings", "instrument", ("strings",)),
    SoundWord("violin", "instrument", ("violin",)),
    SoundWord("cello", "instrument", ("cello",)),
    SoundWord("harp", "instrument", ("harp",)),
    SoundWord("piano", "instrument", ("piano",)),
    SoundWord("harpsichord", "instrument", ("harpsichord",)),
    SoundWord("flute", "instrument", ("flute",)),
    SoundWord("sitar", "instrument", ("sitar",), (), 0.6),
    SoundWord("drums", "instrument", ("drums",)),
    SoundWord("synthesizer", "instrument", ("synth",), (), 0.6),
    SoundWord("singing", "voice", ("vocal", "vocals", "singing", "voice")),
    SoundWord(
        "female voice", "voice", ("female", "woman", "female vocal", "female voice"), ("female vocalists",), 0.8
    ),
    SoundWord("male voice", "voice", ("male", "man", "male vocal", "male voice"), ("male vocalists",)),
    SoundWord("choir", "voice", ("choir", "choral")),
    SoundWord("instrumental", "voice", ("no vocals", "no vocal", "no voice"), ("instrumental",), 0.8),
    SoundWord("classical", "genre", ("classical", "classic")),
    SoundWord("opera", "genre", ("opera",)),
    SoundWord("electronic", "genre", ("electronic",), ("electronic", "electronica", "electro"), 0.65),
    SoundWord("techno", "genre", ("techno",)),
    SoundWord("house", "genre", (), ("House",)),
    SoundWord("rock", "genre", ("rock",), ("rock", "alternative rock", "classic rock", "indie rock", "hard rock")),
    SoundWord("punk", "genre", (), ("punk",)),
    SoundWord("metal", "genre", ("metal",), ("metal", "heavy metal")),
    SoundWord("pop", "genre", ("pop",), ("pop", "indie pop"), 0.8),
    SoundWord("jazz", "genre", (), ("jazz",), 0.7),
    SoundWord("blues", "genre", (), ("blues",), 0.5),
    SoundWord("soul", "genre", (), ("soul",), 0.8),
    SoundWord("funk", "genre", (), ("funk",)),
    SoundWord("hip-hop", "genre", (), ("Hip-Hop",)),
    SoundWord("folk", "genre", (), ("folk",)),
    SoundWord("country", "genre", ("country",), ("country",)),
    SoundWord("ambient", "genre", ("ambient", "new age"), ("ambient",)),
    SoundWord("experimental", "genre", (), ("experimental",), 0.6),
    SoundWord("dance", "genre", ("dance",), ("dance", "party")),
    SoundWord("acoustic", "character", (), ("acoustic",)),
    SoundWord("steady beat", "character", ("beat", "beats")),
    SoundWord("slow", "character", ("slow",)),
    SoundWord("fast", "character", ("fast",)),
    SoundWord("loud", "character", ("loud",)),
    SoundWord("quiet", "character", ("quiet", "soft")),
    SoundWord("solo", "character", ("solo",)),
    SoundWord("mellow", "character", (), ("Mellow", "chillout", "chill", "easy listening"), 0.9),
    SoundWord("beautiful", "character", (), ("beautiful",), 0.8),
    SoundWord("sad", "character", (), ("sad",)),
    SoundWord("happy", "character", (), ("happy",)),
)

# Of two words that cannot both be true of one sound, only the more confident one is kept.
OPPOSITES: tuple[tuple[str, str], ...] = (
    ("instrumental", "singing"),
    ("instrumental", "female voice"),
    ("instrumental", "male voice"),
    ("instrumental", "choir"),
    ("slow", "fast"),
    ("loud", "quiet"),
    ("sad", "happy"),
    ("solo", "choir"),
    ("acoustic", "electronic"),
)
