"""What the page draws, as inline SVG: palettes, colours of parts, the plane of feelings, similarity beside chance.

Colours of the page come from its style sheet by class; colours that mean something (a palette, an RGB of feelings)
are attributes, because the page's policy allows no style but the sheet. Every drawing says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from gallery.report.gathering import Colour, Hanging, Part
from gallery.report.markup import Safe, element, joined
from gallery.report.pictures import Shown
from gallery.views import PairsView, SideView, SimilaritySpread
from schemas.media import Kind, split_item_id
from schemas.records import MusicSimilarity
from workers.feelings import BOUNDS, FIELDS

FEW: Final = 40
"""Up to this many pairs the plane shows small pictures, above it marks in their colours."""
TICKS: Final = 60
"""Up to this many pairs each is a tick of its own beside chance, above it they are a curve as well."""
MOST_ALONE: Final = 1_500
"""Marks of items without a partner in the plane, at most."""


def hexadecimal(rgb: Iterable[float]) -> str:
    """A colour as SVG writes it."""
    return "#" + "".join(f"{min(255, max(0, round(value))):02x}" for value in rgb)


def _figure(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def colour_name(rgb: Sequence[float]) -> str:
    """Movement, calm and nostalgia as words with their numbers."""
    red, green, blue = (round(value) for value in rgb)
    return f"movement {red}, calm {green}, nostalgia {blue}"


def palette(colours: Sequence[Colour]) -> Safe:
    """The colours of a picture, each as wide as its share."""
    whole = sum(colour.share for colour in colours) or 1.0
    said = ", ".join(f"{colour.name} {colour.share / whole:.0%}" for colour in colours)
    bars, left = [], 0.0
    for colour in colours:
        width = 600 * colour.share / whole
        bars.append(
            element(
                "rect",
                element("title", f"{colour.name}, {colour.share / whole:.0%} of the picture"),
                x=_figure(left),
                y=0,
                width=_figure(width),
                height=20,
                fill=hexadecimal(colour.rgb),
            )
        )
        left += width
    return element(
        "svg",
        bars,
        class_="palette",
        viewBox="0 0 600 20",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Palette: {said}",
    )


def parts(kind: Kind, five: Sequence[Part]) -> Safe:
    """The colours of the four parts and the whole: a grid for a picture, a row for a track; the whole beside it."""
    cells = [(0, 0, 30, 30), (30, 0, 30, 30), (0, 30, 30, 30), (30, 30, 30, 30)]
    if kind is Kind.TRACK:
        cells = [(15 * place, 0, 15, 60) for place in range(4)]
    cells.append((70, 0, 60, 60))
    drawn = [
        element(
            "rect",
            element("title", f"{_part_name(part.name)}: {part.feeling} ({colour_name(part.rgb)})"),
            x=x,
            y=y,
            width=width,
            height=height,
            fill=hexadecimal(part.rgb),
        )
        for part, (x, y, width, height) in zip(five, cells, strict=True)
    ]
    said = "; ".join(f"{_part_name(part.name)} {part.feeling}" for part in five)
    what = "picture" if kind is Kind.ARTWORK else "track"
    return element(
        "svg",
        drawn,
        class_="parts",
        viewBox="0 0 130 60",
        role="img",
        aria_label=f"Feelings of the {what} as colours. {said}",
    )


def _part_name(name: str) -> str:
    return name.replace("-", " ")


def definitions(hanging: Sequence[Hanging], possible: SimilaritySpread | None) -> Safe:
    """What is drawn more than once: small pictures, and how alike all possible pairs are."""
    kept = [
        element(
            "symbol",
            element("image", href=each.thumbnail.uri, width=each.thumbnail.width, height=each.thumbnail.height),
            id=f"small-{each.number}",
            viewBox=f"0 0 {each.thumbnail.width} {each.thumbnail.height}",
        )
        for each in hanging
        if each.thumbnail is not None
    ]
    if possible is not None:
        kept.append(
            element(
                "symbol",
                element("path", d=_area(possible.counts, 400, 60), class_="possible"),
                id="possible",
                viewBox="0 0 400 60",
                preserveAspectRatio="none",
            )
        )
    return element(
        "svg", element("defs", kept), class_="definitions", width=0, height=0, aria_hidden="true", focusable="false"
    )


def small_picture(each: Hanging, alternative: str | None) -> Safe:
    """A small picture out of the definitions; without an alternative it says nothing, since a text beside it does."""
    if each.thumbnail is None:
        return element("span", class_="small missing", aria_hidden="true")
    hidden = {"aria_hidden": "true"} if alternative is None else {"role": "img", "aria_label": alternative}
    return element(
        "svg",
        element("use", href=f"#small-{each.number}", width=each.thumbnail.width, height=each.thumbnail.height),
        class_="small",
        viewBox=f"0 0 {each.thumbnail.width} {each.thumbnail.height}",
        **hidden,
    )


def _area(counts: Sequence[int], width: float, height: float) -> str:
    """A histogram as an area: a soft line through the middles of its bins."""
    most = max(counts, default=0) or 1
    step = width / max(1, len(counts))
    points = [((place + 0.5) * step, height - (height - 2) * count / most) for place, count in enumerate(counts)]
    if not points:
        return ""
    drawn = [f"M0 {_figure(height)}V{_figure(points[0][1])}H{_figure(points[0][0])}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        # Level at each point: no bin looks higher or lower than it is.
        middle = _figure((x + to_x) / 2)
        drawn.append(f"C{middle} {_figure(y)} {middle} {_figure(to_y)} {_figure(to_x)} {_figure(to_y)}")
    return "".join([*drawn, f"H{_figure(width)}V{_figure(height)}Z"])


def beside_chance(each: Hanging, possible: SimilaritySpread, view: PairsView) -> Safe:
    """One pair's similarity among all possible pairs."""
    low, span = possible.lowest, (possible.highest - possible.lowest) or 1.0

    def across(value: float) -> float:
        return 400 * min(1.0, max(0.0, (value - low) / span))

    drawn = [element("use", href="#possible", x=0, y=0, width=400, height=60)]
    if view.chance_similarity is not None:
        place = _figure(across(view.chance_similarity))
        drawn.append(element("line", x1=place, x2=place, y1=6, y2=60, class_="chance"))
    place = _figure(min(398.5, max(1.5, across(each.pair.similarity))))
    drawn.append(element("line", x1=place, x2=place, y1=0, y2=60, class_="here"))
    drawn.append(element("line", x1=0, x2=400, y1=60, y2=60, class_="ground"))
    return element(
        "svg", drawn, class_="spark", viewBox="0 -1 400 62", preserveAspectRatio="none", aria_hidden="true"
    )


def scale(one: MusicSimilarity, others: Sequence[MusicSimilarity]) -> Safe:
    """How near one piece comes, on a scale that holds all the pieces beside it and what chance gives."""
    values = [value for each in others for value in (each.similarity, each.chance) if value is not None]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.01

    def across(value: float) -> str:
        return _figure(400 * (value - low + margin) / (high - low + 2 * margin))

    drawn = [element("line", x1=0, x2=400, y1=14, y2=14, class_="ground")]
    if one.chance is not None:
        place = across(one.chance)
        drawn.append(element("line", x1=place, x2=place, y1=2, y2=14, class_="chance"))
    place = across(one.similarity)
    drawn.append(element("line", x1=place, x2=place, y1=0, y2=14, class_="here"))
    return element(
        "svg", drawn, class_="scale", viewBox="0 -1 400 16", preserveAspectRatio="none", aria_hidden="true"
    )


# -- the plane ---------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 1000.0, 700.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 84.0, 976.0, 20.0, 640.0


def plane(hanging: Sequence[Hanging], alone: Sequence[SideView]) -> Safe:
    """Valence (across) and arousal (up) of pictures and tracks, with a line for each pair that hangs."""
    points = [(side.valence, side.arousal) for each in hanging for side in (each.pair.artwork, each.pair.track)]
    points += [(side.valence, side.arousal) for side in alone]
    across = _axis([point[0] for point in points], _LEFT, _RIGHT)
    up = _axis([point[1] for point in points], _BOTTOM, _TOP)
    spots = [
        (across(side.valence), up(side.arousal)) for each in hanging for side in (each.pair.artwork, each.pair.track)
    ]
    drawn = [_grid(across, up, spots)]
    stride = max(1, math.ceil(len(alone) / MOST_ALONE))
    drawn.append(element("g", (_alone(side, across, up) for side in alone[::stride]), class_="alone"))
    few = len(hanging) <= FEW
    # The best pair comes last in the drawing, above the others; the order of walking by keyboard is theirs all the
    # same, since links carry their numbers.
    drawn += [_link(each, across, up, few) for each in reversed(hanging)]
    return element(
        "svg",
        drawn,
        class_="plane",
        preserveAspectRatio="xMinYMin",
        viewBox=f"0 0 {_figure(_WIDTH)} {_figure(_HEIGHT)}",
        role="group",
        aria_label="The plane of feelings: valence from unpleasant to pleasant, arousal from quiet to stirred; "
        "a line joins each picture with its track.",
    )


class _Axis:
    """A stretch of [0,1] that holds all values, on a stretch of the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Tenths within the stretch."""
        return [place / 10 for place in range(11) if self.low - 1e-9 <= place / 10 <= self.high + 1e-9]


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low = max(0.0, math.floor(min(values, default=0.0) * 10 - 0.4) / 10)
    high = min(1.0, math.ceil(max(values, default=1.0) * 10 + 0.4) / 10)
    if high - low < 0.4:
        middle = min(0.8, max(0.2, round((low + high) / 2, 1)))
        low, high = middle - 0.2, middle + 0.2
    return _Axis(low, high, start, end)


def _grid(across: _Axis, up: _Axis, spots: Sequence[tuple[float, float]]) -> Safe:
    lines: list[Safe] = []
    for value in across.ticks():
        x = _figure(across(value))
        lines.append(element("line", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 6, class_="tick"))
        lines.append(element("text", f"{value:.1f}", x=x, y=_BOTTOM + 26, text_anchor="middle", class_="figure"))
    for value in up.ticks():
        height = _figure(up(value))
        lines.append(element("line", x1=_LEFT - 6, x2=_LEFT, y1=height, y2=height, class_="tick"))
        lines.append(
            element(
                "text", f"{value:.1f}", x=_LEFT - 12, y=_figure(up(value) + 5), text_anchor="end", class_="figure"
            )
        )
    for bound in BOUNDS:
        if across.low < bound < across.high:
            x = _figure(across(bound))
            lines.append(element("line", x1=x, x2=x, y1=_TOP, y2=_BOTTOM, class_="hair"))
        if up.low < bound < up.high:
            height = _figure(up(bound))
            lines.append(element("line", x1=_LEFT, x2=_RIGHT, y1=height, y2=height, class_="hair"))
    lines.append(element("path", d=f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}", class_="axis"))
    lines.append(element("text", "unpleasant", x=_LEFT, y=_HEIGHT - 6, class_="label"))
    lines.append(
        element("text", "valence", x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 6, text_anchor="middle", class_="label strong")
    )
    lines.append(element("text", "pleasant", x=_RIGHT, y=_HEIGHT - 6, text_anchor="end", class_="label"))
    middle = (_TOP + _BOTTOM) / 2
    for said, y, anchor, strong in (
        ("quiet", _BOTTOM, "start", ""),
        ("arousal", middle, "middle", " strong"),
        ("stirred", _TOP, "end", ""),
    ):
        lines.append(
            element(
                "text",
                said,
                x=0,
                y=0,
                transform=f"translate(16 {_figure(y)}) rotate(-90)",
                text_anchor=anchor,
                class_=f"label{strong}",
            )
        )
    return joined(
        element("g", lines, aria_hidden="true"), element("g", _fields(across, up, spots), aria_hidden="true")
    )


def _fields(across: _Axis, up: _Axis, spots: Sequence[tuple[float, float]]) -> list[Safe]:
    """The words of the nine fields, each in the outer corner of what is seen of it, where nothing hangs upon it."""
    columns = [(across.low, BOUNDS[0]), BOUNDS, (BOUNDS[1], across.high)]
    rows = [(up.low, BOUNDS[0]), BOUNDS, (BOUNDS[1], up.high)]
    said = []
    for row, (low, high) in enumerate(rows):
        for column, (left, right) in enumerate(columns):
            left, right = max(left, across.low), min(right, across.high)
            bottom, top = max(low, up.low), min(high, up.high)
            wide, tall = abs(across(right) - across(left)), abs(up(top) - up(bottom))
            if right <= left or top <= bottom or wide < 90 or tall < 40:
                continue
            x, anchor = {0: (across(left) + 12, "start"), 1: ((across(left) + across(right)) / 2, "middle")}.get(
                column, (across(right) - 6, "end")
            )
            y = up(bottom) - 12 if row == 0 else (up(bottom) + up(top)) / 2 + 6 if row == 1 else up(top) + 24
            if any(abs(x - at_x) < 90 and abs(y - at_y) < 44 for at_x, at_y in spots):
                continue
            said.append(
                element("text", FIELDS[row][column], x=_figure(x), y=_figure(y), text_anchor=anchor, class_="field")
            )
    return said


def _alone(side: SideView, across: _Axis, up: _Axis) -> Safe:
    x, y = across(side.valence), up(side.arousal)
    title = element("title", f"{side.title}: {side.feeling}; without a partner")
    if split_item_id(side.id)[0] is Kind.ARTWORK:
        return element(
            "rect", title, x=_figure(x - 4), y=_figure(y - 4), width=8, height=8, fill=hexadecimal(side.rgb)
        )
    return element("circle", title, cx=_figure(x), cy=_figure(y), r=4, fill=hexadecimal(side.rgb))


def _link(each: Hanging, across: _Axis, up: _Axis, few: bool) -> Safe:
    artwork, track = each.pair.artwork, each.pair.track
    x, y = across(artwork.valence), up(artwork.arousal)
    to_x, to_y = across(track.valence), up(track.arousal)
    said = f"{each.number}. {artwork.title} with {track.title}: similarity {each.pair.similarity:.3f}"
    half_width, half_height = 5.0, 5.0
    mark = element("rect", x=_figure(x - 5), y=_figure(y - 5), width=10, height=10, fill=hexadecimal(artwork.rgb))
    if few and each.thumbnail is not None:
        half_width, half_height = _box(each.thumbnail)
        mark = joined(
            element(
                "use",
                href=f"#small-{each.number}",
                x=_figure(x - half_width),
                y=_figure(y - half_height),
                width=_figure(2 * half_width),
                height=_figure(2 * half_height),
            ),
            element(
                "rect",
                x=_figure(x - half_width),
                y=_figure(y - half_height),
                width=_figure(2 * half_width),
                height=_figure(2 * half_height),
                class_="edge",
            ),
        )
    # The label stands over the picture, or under it where it would leave the drawing.
    above = y - half_height - 10
    label_y = above if above > 24 else y + half_height + 24
    anchor, label_x = "middle", x
    if x < _LEFT + 160:
        anchor, label_x = "start", x - half_width
    elif x > _RIGHT - 160:
        anchor, label_x = "end", x + half_width
    return element(
        "a",
        element("title", said),
        element("line", x1=_figure(x), y1=_figure(y), x2=_figure(to_x), y2=_figure(to_y), class_="pull"),
        element("line", x1=_figure(x), y1=_figure(y), x2=_figure(to_x), y2=_figure(to_y), class_="bond"),
        mark,
        element(
            "circle",
            cx=_figure(to_x),
            cy=_figure(to_y),
            r=8 if few else 5,
            fill=hexadecimal(track.rgb),
            class_="dot",
        ),
        element(
            "text", str(each.number), x=_figure(to_x), y=_figure(to_y - 14), text_anchor="middle", class_="figure"
        )
        if few
        else None,
        element(
            "text",
            _shortened(f"{artwork.title} · {track.title}", 56),
            x=_figure(label_x),
            y=_figure(label_y),
            text_anchor=anchor,
            class_="said",
        ),
        href=f"#pair-{each.number}",
        class_="link",
        aria_label=said,
    )


def _box(thumbnail: Shown) -> tuple[float, float]:
    """Half the width and height of a small picture in the plane."""
    scale = 30 / max(thumbnail.width, thumbnail.height)
    return thumbnail.width * scale, thumbnail.height * scale


def _shortened(said: str, most: int) -> str:
    return said if len(said) <= most else said[: most - 1].rstrip() + "…"


# -- similarity beside chance ------------------------------------------------------------------------------


def distribution(hanging: Sequence[Hanging], possible: SimilaritySpread, view: PairsView) -> Safe:
    """All possible pairs as an area, those that hang as ticks (and a curve where they are many), and both means."""
    left, right, ground, top = 8.0, 992.0, 250.0, 60.0
    low, span = possible.lowest, (possible.highest - possible.lowest) or 1.0

    def across(value: float) -> float:
        return left + (right - left) * min(1.0, max(0.0, (value - low) / span))

    drawn = [
        element(
            "path",
            d=_area(possible.counts, right - left, ground - top),
            class_="possible",
            transform=f"translate({left} {top})",
        ),
        element("line", x1=left, x2=right, y1=ground, y2=ground, class_="axis"),
    ]
    for value in _round_values(possible.lowest, possible.highest):
        x = _figure(across(value))
        drawn.append(element("line", x1=x, x2=x, y1=ground, y2=ground + 6, class_="tick"))
        drawn.append(element("text", f"{value:g}", x=x, y=ground + 28, text_anchor="middle", class_="figure"))
    if len(hanging) > TICKS:
        counts = [0] * len(possible.counts)
        for each in hanging:
            place = int((each.pair.similarity - low) / span * len(counts))
            counts[min(len(counts) - 1, max(0, place))] += 1
        drawn.append(
            element(
                "path",
                d=_area(counts, right - left, ground - top),
                class_="hung",
                transform=f"translate({left} {top})",
            )
        )
    for each in hanging:
        x = _figure(across(each.pair.similarity))
        said = f"{each.number}. {each.pair.artwork.title} with {each.pair.track.title}: {each.pair.similarity:.3f}"
        drawn.append(
            element(
                "a",
                element("title", said),
                element("line", x1=x, x2=x, y1=ground - 42, y2=ground + 2, class_="reach"),
                element("line", x1=x, x2=x, y1=ground - 34, y2=ground, class_="here"),
                href=f"#pair-{each.number}",
                class_="tickmark",
                aria_label=said,
                tabindex=-1 if len(hanging) > FEW else None,
            )
        )
    for mean, called, name, y in (
        (view.chance_similarity, "chance", "chance", 18.0),
        (view.mean_similarity, "this wall", "mean", 44.0),
    ):
        if mean is None:
            continue
        middle = across(mean)
        anchor, label_x = ("end", middle - 8) if middle > 500 else ("start", middle + 8)
        drawn.append(element("line", x1=_figure(middle), x2=_figure(middle), y1=y - 14, y2=ground, class_=name))
        drawn.append(
            element(
                "text",
                f"{called} {mean:.3f}",
                x=_figure(label_x),
                y=_figure(y),
                text_anchor=anchor,
                class_=f"label {name}",
            )
        )
    return element(
        "svg",
        drawn,
        class_="distribution many" if len(hanging) > TICKS else "distribution",
        viewBox="0 0 1000 290",
        role="group",
        aria_label="How alike all possible pairs are, and where the pairs on this wall lie among them.",
    )


def _round_values(low: float, high: float) -> list[float]:
    """Five to ten round numbers from low to high."""
    span = high - low
    if not span > 0:
        return [round(low, 3)]
    step = 10.0 ** math.floor(math.log10(span / 5))
    while span / step > 10:
        step *= 2 if span / (2 * step) <= 10 else 5
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 6) for place in range(first, last + 1)]
