"""The words for pictures: colour names with a typical sRGB value, and the motifs that classes of ImageNet add up to.

Both lists are our own choice. They hold no code beyond small records; measuring is left to `edge_models.picture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Names that a painter would use, with values chosen by eye; a colour gets the name that lies nearest in CIELAB.
COLOUR_NAMES: dict[str, tuple[int, int, int]] = {
    "black": (16, 16, 18),
    "charcoal": (58, 58, 60),
    "grey": (125, 125, 125),
    "silver grey": (172, 174, 174),
    "pale grey": (210, 211, 210),
    "white": (252, 252, 250),
    "ivory": (240, 235, 216),
    "cream": (236, 220, 178),
    "beige": (212, 192, 158),
    "sand": (198, 166, 116),
    "ochre": (188, 134, 48),
    "mustard": (204, 162, 40),
    "golden yellow": (236, 186, 48),
    "lemon yellow": (244, 230, 92),
    "orange": (232, 126, 36),
    "bronze": (146, 108, 56),
    "clay": (154, 102, 82),
    "rust": (166, 78, 38),
    "terracotta": (178, 92, 70),
    "brick red": (150, 56, 44),
    "scarlet": (212, 44, 34),
    "crimson": (164, 24, 50),
    "maroon": (92, 26, 32),
    "tan": (186, 126, 86),
    "salmon": (220, 144, 114),
    "dusty rose": (172, 118, 114),
    "rose": (212, 128, 138),
    "pale pink": (238, 198, 198),
    "peach": (240, 190, 150),
    "magenta": (182, 48, 132),
    "plum": (94, 50, 86),
    "violet": (122, 82, 164),
    "lavender": (188, 174, 216),
    "indigo": (54, 48, 108),
    "navy": (24, 34, 72),
    "cobalt blue": (36, 72, 160),
    "Prussian blue": (22, 60, 100),
    "cornflower blue": (122, 150, 218),
    "periwinkle": (174, 182, 224),
    "azure": (56, 122, 204),
    "sky blue": (134, 186, 226),
    "pale blue": (192, 212, 226),
    "steel blue": (64, 98, 150),
    "slate blue": (88, 112, 144),
    "slate grey": (104, 114, 122),
    "teal": (30, 108, 114),
    "turquoise": (66, 182, 176),
    "sage green": (154, 168, 136),
    "olive": (114, 108, 50),
    "moss green": (88, 106, 58),
    "leaf green": (74, 138, 60),
    "emerald": (24, 132, 90),
    "bottle green": (24, 62, 46),
    "lime green": (164, 192, 70),
    "taupe": (136, 120, 104),
    "umber": (98, 74, 48),
    "chestnut": (116, 64, 42),
    "dark brown": (56, 40, 28),
}


@dataclass(frozen=True)
class Motif:
    """One thing that a picture may show.

    `name` is the word in the measurement, `phrase` the same with its article for a sentence; `classes` are the
    ImageNet classes (0..999) that count for it; `trust` (0..1) lowers motifs that a network trained on photographs
    sees in paint and print without reason; `within` names a wider motif, which is said instead where the classes
    of the wider one are split among several narrower ones: unless one holds at least the part `clear` of them.
    """

    name: str
    phrase: str
    classes: tuple[int, ...]
    trust: float = 1.0
    within: str | None = None
    clear: float = 1.0


def _of(*parts: int | tuple[int, int]) -> tuple[int, ...]:
    """Class numbers from single numbers and (first, last) ranges, both ends counted."""
    return tuple(
        number for part in parts for number in (range(part[0], part[1] + 1) if isinstance(part, tuple) else (part,))
    )


MOTIFS: Sequence[Motif] = (
    # Land and water
    Motif("shore", "a shore", _of(975, 976, 977, 978, 460)),
    Motif("valley", "a valley", _of(979)),
    Motif("mountain", "a mountain", _of(970, 980), 0.9),
    Motif("cliff", "a cliff", _of(972, 500), 0.45),
    Motif("field", "a field", _of(958, 984, 730), 0.9),
    Motif("sea floor", "a sea floor", _of(973), 0.4),
    Motif("geyser", "a geyser", _of(974), 0.4),
    # Buildings and what belongs to them
    Motif(
        "building",
        "a building",
        _of(483, 497, 663, 698, 668, 442, 832, 538, 873, 682, 425, 853, 634, 448),
        0.9,
        None,
        0.7,
    ),
    Motif("castle", "a castle", _of(483, 698), 0.9, "building"),
    Motif("church", "a church", _of(497, 663, 442), 1.0, "building"),
    Motif("mosque", "a mosque", _of(668), 0.9, "building"),
    Motif("triumphal arch", "a triumphal arch", _of(873), 0.7, "building"),
    Motif("obelisk", "an obelisk", _of(682), 0.6, "building"),
    Motif("bridge", "a bridge", _of(821, 839, 888)),
    Motif("jetty", "a jetty", _of(718, 449), 0.8),
    Motif("vaulted ceiling", "a vaulted ceiling", _of(884)),
    Motif("altar", "an altar", _of(406), 0.4),
    Motif("pedestal", "a pedestal", _of(708), 0.8),
    Motif("fountain", "a fountain", _of(562), 0.7),
    Motif("stone wall", "a stone wall", _of(825), 0.9),
    Motif("fence", "a fence", _of(716, 912, 489), 0.8),
    Motif("lighthouse", "a lighthouse", _of(437), 0.6),
    Motif("greenhouse", "a greenhouse", _of(580), 0.6),
    Motif("tent", "a tent", _of(672, 915), 0.5),
    Motif("street", "a street", _of(829, 920, 919, 468), 0.7),
    # Rooms and furniture
    Motif("dining room", "a dining room", _of(532, 762)),
    Motif("library", "a library", _of(453, 624, 454), 0.8),
    Motif("stage", "a stage", _of(819), 0.6),
    Motif("bed", "a bed", _of(564, 520, 516), 0.6),
    Motif("armchair", "an armchair", _of(765, 559, 831), 0.6),
    Motif("bench", "a bench", _of(703), 0.7),
    Motif("piano", "a piano", _of(579, 881), 1.0),
    Motif("billiard table", "a billiard table", _of(736), 0.4),
    # Vessels, vehicles, carts
    Motif("boat", "a boat", _of(472, 576, 693, 914, 724, 780, 484, 871, 814, 554, 625, 913, 628, 510), 0.65),
    Motif("cart", "a cart", _of(603, 690, 428, 612), 0.7),
    Motif("train", "a train", _of(820, 547, 565, 705), 0.8),
    Motif("balloon", "a balloon", _of(417, 405), 0.4),
    # Dress
    Motif("kimono", "a kimono", _of(614), 1.0),
    Motif("gown", "a gown", _of(578, 601, 689), 0.7),
    Motif("cloak", "a cloak", _of(501, 400, 399), 0.7),
    Motif("hat", "a hat", _of(515, 808, 452, 439), 0.7),
    Motif("armour", "armour", _of(461, 490, 524), 0.7),
    # Things
    Motif("vase", "a vase", _of(883, 738, 899, 725), 0.8),
    Motif("umbrella", "an umbrella", _of(879), 0.8),
    Motif("candle", "a candle", _of(470), 0.7),
    Motif("violin", "a violin", _of(889, 486), 0.7),
    Motif("guitar", "a guitar", _of(402, 420), 0.7),
    Motif("harp", "a harp", _of(594), 0.6),
    # Plants and food
    Motif("leafy vegetables", "leafy vegetables", _of((936, 939), 944, 946)),
    Motif("fruit", "fruit", _of((948, 957))),
    Motif("flower", "a flower", _of(985, 986), 0.9),
    Motif("mushroom", "a mushroom", _of(947, (992, 993), 996, 997), 0.5),
    # Animals
    Motif("animal", "an animal", _of((151, 299), (330, 388), 101), trust=0.4, clear=0.8),
    Motif("dog", "a dog", _of((151, 268)), 0.4, "animal"),
    Motif("fox", "a fox", _of((277, 280)), 0.7, "animal"),
    Motif("wolf", "a wolf", _of((269, 274)), 0.7, "animal"),
    Motif("cat", "a cat", _of((281, 285)), 0.8, "animal"),
    Motif("lion", "a lion", _of(291), 0.9, "animal"),
    Motif("tiger", "a tiger", _of(292), 0.8, "animal"),
    Motif("leopard", "a leopard", _of((286, 290), 293), 0.7, "animal"),
    Motif("bear", "a bear", _of((294, 297)), 0.7, "animal"),
    Motif("rabbit", "a rabbit", _of((330, 332)), 0.8, "animal"),
    Motif("horse", "a horse", _of(339, 340), 0.9, "animal"),
    Motif("pig", "a pig", _of((341, 342)), 0.8, "animal"),
    Motif("ox", "an ox", _of((345, 347)), 0.8, "animal"),
    Motif("sheep", "a sheep", _of(348, 349), 0.8, "animal"),
    Motif("goat", "a goat", _of(350), 0.7, "animal"),
    Motif("deer", "a deer", _of((351, 353)), 0.7, "animal"),
    Motif("camel", "a camel", _of(354, 355), 0.4, "animal"),
    Motif("elephant", "an elephant", _of(385, 386, 101), 0.7, "animal"),
    Motif("monkey", "a monkey", _of((365, 384)), 0.6, "animal"),
    Motif("bird", "a bird", _of((7, 24), (80, 100), (127, 146)), 0.8),
    Motif("fish", "a fish", _of((0, 1), (389, 397)), 0.8),
    Motif("shellfish", "shellfish", _of((118, 125)), 0.9),
    Motif("butterfly", "a butterfly", _of((321, 326)), 0.8),
    Motif("snake", "a snake", _of((52, 68)), 0.5),
)
