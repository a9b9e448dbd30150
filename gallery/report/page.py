"""The page itself: one HTML file with its style, script and pictures inside, and nothing fetched from anywhere.

Its policy (Content-Security-Policy) allows the one style sheet and the one script by their hashes, pictures and
sounds inside the page, and sounds beside it where they were put there. Everything can be read without the script,
which only makes quieter players and a walk by arrow keys.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import resources
from typing import Any, Final

from gallery.report import drawings, words
from gallery.report.gathering import Composed, Gathered, Half, Hanging, Sound
from gallery.report.markup import Child, Safe, element, joined, title_of
from gallery.views import SideView
from schemas.media import WHOLE, Kind, split_item_id
from schemas.records import MusicRecord, MusicSimilarity

TINY: Final = 400
"""A picture whose longer side has fewer pixels is shown at its own size, others as large as there is room."""

EXTREMES: Final = 5
"""Pairs in the list of the best, and in that of the worst."""


def _resource(name: str) -> str:
    return resources.files("gallery.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"


def policy(style: str, script: str, *, beside: bool) -> str:
    """The page's Content-Security-Policy: nothing from anywhere but what is written here."""
    media = "data: 'self' file:" if beside else "data:"
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )


def render(page: Gathered, made: datetime) -> Iterator[str]:
    """The page, in pieces to be written one after another.

    Args:
        made: when, in UTC, as the page says at its end.
    """
    style, script = _resource("page.css"), _resource("page.js")
    view = page.wall.pairs
    title = words.exhibition_title(view.exhibition)
    head = joined(
        element("meta", charset="utf-8"),
        element(
            "meta", http_equiv="Content-Security-Policy", content=policy(style, script, beside=page.audio == "beside")
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content="Promenade"),
        element("meta", name="description", content=_lead(page)),
        element("title", f"{title} · Promenade"),
        element("style", Safe(style)),
    )
    yield '<!doctype html>\n<html lang="en">\n'
    yield element("head", head)
    yield "\n<body>\n"
    yield element("a", "Skip to the pairs" if page.hanging else "Skip to the content", class_="skip", href="#pairs")
    yield drawings.definitions(page.hanging, page.wall.possible)
    yield element("header", _header(page, title), class_="masthead")
    yield '\n<main id="main">\n'
    many = " many" if len(page.hanging) > drawings.FEW else ""
    yield f'<section id="pairs" class="pairs{many}" aria-labelledby="pairs-title" tabindex="-1">'
    yield element("h2", "The pairs", id="pairs-title", class_="unseen")
    if not page.hanging:
        yield _nothing_hangs(page)
    for each in page.hanging:
        yield "\n"
        yield _pair(each, page)
    yield "</section>\n"
    if page.hanging:
        yield _plane(page)
        yield _chance(page)
        yield _extremes(page)
    if page.wall.alone:
        yield _alone(page)
    yield "</main>\n"
    yield element("footer", _colophon(page, made))
    yield "\n"
    yield element("script", Safe(script))
    yield "\n</body>\n</html>\n"


# -- the head of the page ----------------------------------------------------------------------------------


def _lead(page: Gathered) -> str:
    count = len(page.hanging)
    if not count:
        return "Nothing hangs here yet."
    if count == 1:
        return "One picture, hung beside a piece of music of kindred feeling."
    said = words.many(count, "picture")
    return f"{said[:1].upper()}{said[1:]}, each hung beside a piece of music of kindred feeling."


def _header(page: Gathered, title: str) -> Safe:
    links: list[tuple[str, str]] = []
    if page.hanging:
        links = [("#pairs", "Pairs"), ("#plane", "Feelings"), ("#chance", "Beside chance"), ("#extremes", "Extremes")]
    if page.wall.alone:
        links.append(("#alone", "Without a partner"))
    links.append(("#about", "How to read it"))
    return joined(
        element("p", "Promenade", class_="kicker"),
        element("h1", title_of(title)),
        element("p", _lead(page), class_="lead"),
        _summary(page),
        element("p", words.settings_words(page.wall.settings, page.wall.pairs), class_="small-print"),
        element(
            "nav",
            element("ul", (element("li", element("a", said, href=target)) for target, said in links)),
            aria_label="On this page",
            class_="contents",
        ),
        element("p", "The keys ← and → walk from pair to pair.", class_="hint") if len(page.hanging) > 1 else None,
        _index(page),
    )


def _summary(page: Gathered) -> Safe | None:
    """The figures of the whole wall."""
    view = page.wall.pairs
    if view.mean_similarity is None or view.chance_similarity is None:
        return None
    figures = [
        ("pairs", f"{len(page.hanging):,}"),
        ("alike", f"{view.mean_similarity:.3f}"),
        ("by chance", f"{view.chance_similarity:.3f}"),
    ]
    if view.lift is not None:
        figures.append(("lift", f"{view.lift:.3f}"))
    if page.pieces:
        figures.append(("composed", f"{page.pieces:,}"))
    if view.unpaired_artworks or view.unpaired_tracks:
        figures.append(("wait", f"{view.unpaired_artworks + view.unpaired_tracks:,}"))
    return element(
        "dl",
        (element("div", element("dt", name), element("dd", value)) for name, value in figures),
        class_="summary",
    )


def _index(page: Gathered) -> Safe | None:
    """All pictures, small, in the order of the wall."""
    if len(page.hanging) < 2:
        return None
    return element(
        "nav",
        element(
            "ol",
            (
                element(
                    "li",
                    element(
                        "a",
                        drawings.small_picture(each, None),
                        element("span", str(each.number), class_="number", aria_hidden="true"),
                        href=f"#pair-{each.number}",
                        aria_label=f"{each.number}. {each.pair.artwork.title}",
                        title=each.pair.artwork.title,
                    ),
                )
                for each in page.hanging
            ),
        ),
        class_="index many" if len(page.hanging) > drawings.FEW else "index",
        aria_label="All pictures",
    )


def _nothing_hangs(page: Gathered) -> Safe:
    alone = page.wall.alone
    counts = {kind: sum(1 for side in alone if split_item_id(side.id)[0] is kind) for kind in Kind}
    if not alone:
        said = "No picture and no track has come so far. Bring some in, and this page fills when it is written again."
    elif not all(counts.values()):
        missing = "track" if counts[Kind.ARTWORK] else "picture"
        said = f"A pair needs both a picture and a track; no {missing} has come so far."
    elif page.wall.pairs.pairing_anew:
        said = "The pairs are being made; write this page again in a while."
    else:
        said = "Pictures and tracks are there, but none of them were paired: the floor may be too high."
    return element("p", said, class_="empty")


# -- a pair ------------------------------------------------------------------------------------------------


def _pair(each: Hanging, page: Gathered) -> Safe:
    artwork = each.artwork
    name = f"pair-{each.number}"
    return element(
        "article",
        element("div", _picture(each), class_="frame"),
        element(
            "div",
            element(
                "header",
                element("p", str(each.number), class_="number", aria_hidden="true"),
                element("h3", title_of(artwork.side.title), id=f"{name}-title"),
                _byline(artwork),
                _feeling(artwork.side.feeling),
            ),
            drawings.palette(artwork.palette) if artwork.palette else None,
            _colours(Kind.ARTWORK, artwork),
            _track(each, page),
            _similarity(each, page),
            _piece(each, each.composed[0], page) if len(each.composed) == 1 else None,
            _seen_and_heard(each),
            class_="label-text",
        ),
        _side_by_side(each, page) if len(each.composed) > 1 else None,
        class_="pair",
        id=name,
        aria_labelledby=f"{name}-title",
        tabindex="-1",
    )


def _picture(each: Hanging) -> Safe:
    side = each.artwork.side
    if each.picture is None:
        return element("p", "This picture is not there any more.", class_="gone")
    by = f" by {side.artist}" if side.artist else ""
    return element(
        "img",
        src=each.picture.uri,
        width=each.picture.width,
        height=each.picture.height,
        alt=_alternative(each.artwork, f"{side.title}{by}"),
        class_="tiny" if max(each.picture.width, each.picture.height) < TINY else None,
        loading="lazy" if each.number > 1 else None,
        decoding="async",
    )


def _alternative(half: Half, name: str) -> str:
    """What the picture is, and what was seen in it: for those who do not see it."""
    seen = half.parts[WHOLE].caption if half.parts else ""
    return f"{name}. {seen}" if seen else name


def _byline(half: Half) -> Safe | None:
    said: list[Child] = []
    if half.side.artist:
        said.append(element("bdi", half.side.artist))
    if half.side.year:
        said.append(element("bdi", half.side.year))
    if not said:
        return None
    return element("p", joined(said[0], *((", ", each) for each in said[1:])), class_="byline")


def _feeling(feeling: str) -> Safe:
    return element("p", element("span", "feels ", class_="quiet"), feeling, class_="feeling")


def _colours(kind: Kind, half: Half) -> Safe | None:
    if not half.parts:
        return None
    whole = half.parts[WHOLE]
    red, green, blue = (str(round(value)) for value in whole.rgb)
    figures = (
        ("movement", red),
        ("calm", green),
        ("nostalgia", blue),
        ("valence", f"{whole.valence:.2f}"),
        ("arousal", f"{whole.arousal:.2f}"),
    )
    return element(
        "div",
        drawings.parts(kind, half.parts),
        element(
            "dl",
            (element("div", element("dt", name), element("dd", value)) for name, value in figures),
            class_="figures",
        ),
        class_="colours",
    )


def _track(each: Hanging, page: Gathered) -> Safe:
    track = each.track
    return element(
        "section",
        element("p", "hangs with", class_="kicker"),
        element("h4", title_of(track.side.title)),
        _byline(track),
        _feeling(track.side.feeling),
        _colours(Kind.TRACK, track),
        _player(each.track_sound, track.side.title, page),
        class_="heard",
        aria_label="The track",
    )


def _piece(each: Hanging, composed: Composed, page: Gathered) -> Safe:
    piece = composed.record
    title = piece.title or f"Music for {each.pair.artwork.title}"
    near = _nearness_words(piece, page)
    return element(
        "section",
        element("p", "composed for this picture", class_="kicker"),
        element("h4", title_of(title)),
        _feeling(piece.feelings.words) if piece.feelings is not None else None,
        element("p", _piece_words(piece), class_="small-print"),
        _player(composed.sound, title, page),
        element("p", near, class_="small-print") if near else None,
        _nearness(piece),
        class_="heard",
        aria_label="The composed piece",
    )


def _side_by_side(each: Hanging, page: Gathered) -> Safe:
    """Pieces of several composers for one picture, each with its sound and how near it came, on common scales."""
    records = [composed.record for composed in each.composed]
    space = next((record.listening_space for record in records if record.listening_space), page.wall.pairs.space)
    near: dict[tuple[str, str], MusicSimilarity] = {
        (record.piece, similarity.to): similarity
        for record in records
        for similarity in record.similarities
        if similarity.space == space
    }
    return element(
        "section",
        element("p", "composed for this picture", class_="kicker"),
        element("h4", words.many(len(records), "composer").capitalize()),
        element("p", words.nearness_words(space, bool(near)), class_="small-print"),
        element("div", (_column(each, composed, near, page) for composed in each.composed), class_="composers"),
        class_="side-by-side",
        aria_label="Composers side by side",
    )


def _column(
    each: Hanging, composed: Composed, near: Mapping[tuple[str, str], MusicSimilarity], page: Gathered
) -> Safe:
    piece = composed.record
    name = words.composer_words(piece.composer)
    asked = piece.report.get("prompt")
    scales = []
    for to, said in (("picture", "to the picture"), ("track", "to the track")):
        similarity = near.get((piece.piece, to))
        if similarity is None:
            continue
        others = [other for (_, side), other in near.items() if side == to]
        beats = "" if similarity.percentile is None else f", {words.beats(similarity.percentile)}"
        scales.append(
            element(
                "div",
                element("dt", said),
                element(
                    "dd",
                    element("data", f"{similarity.similarity:.3f}", value=f"{similarity.similarity:.6f}"),
                    "" if similarity.chance is None else f" ({similarity.chance:.3f} by chance{beats})",
                    drawings.scale(similarity, others),
                ),
            )
        )
    return element(
        "section",
        element("h5", name),
        _feeling(piece.feelings.words) if piece.feelings is not None else None,
        element("p", _piece_words(piece), class_="small-print"),
        element("p", "asked for as: ", element("q", str(asked)), class_="small-print") if asked else None,
        _player(composed.sound, f"{piece.title or each.pair.artwork.title}, {name}", page),
        element("dl", scales, class_="scales") if scales else None,
        _nearness(piece),
        aria_label=name,
    )


def _piece_words(piece: MusicRecord) -> str:
    report: dict[str, Any] = piece.report
    said = []
    if report.get("key"):
        said.append(f"{report['key']} {report.get('mode', '')}".strip().replace("#", "♯"))
    if isinstance(report.get("tempo"), int | float):
        said.append(f"{report['tempo']:.0f} beats a minute")
    names = [str(each.get("name", "")) for each in report.get("instruments", ()) if isinstance(each, dict)]
    names = list(dict.fromkeys(name for name in names if name))
    if names:
        said.append(", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0])
    said.append(f"seed {piece.seed}")
    text = "; ".join(said)
    return text[:1].upper() + text[1:] + "."


def _nearness_words(piece: MusicRecord, page: Gathered) -> str:
    """How near a piece is to its picture and to the track beside it, in the space that the wall is paired in."""
    said = []
    for similarity in piece.similarities:
        if similarity.space == page.wall.pairs.space:
            to = "this picture" if similarity.to == "picture" else "the track beside it"
            chance = "" if similarity.chance is None else f" ({similarity.chance:.3f} by chance)"
            said.append(f"{similarity.similarity:.3f} to {to}{chance}")
    return "" if not said else "Alike: " + ", ".join(said) + "."


def _nearness(piece: MusicRecord) -> Safe | None:
    """The same in every space, as a table for those who ask."""
    if not piece.similarities:
        return None
    rows = [
        element(
            "tr",
            element("th", similarity.space, scope="row"),
            element("td", similarity.to),
            element("td", f"{similarity.similarity:.3f}"),
            element("td", "" if similarity.chance is None else f"{similarity.chance:.3f}"),
            element("td", "" if similarity.percentile is None else f"{int(similarity.percentile)} %"),
        )
        for similarity in piece.similarities
    ]
    names = ("space", "to", "alike", "chance", "beats")
    return element(
        "details",
        element("summary", "How near it is, in every space"),
        element(
            "table",
            element("thead", element("tr", (element("th", name, scope="col") for name in names))),
            element("tbody", rows),
        ),
        class_="nearness",
    )


def _player(sound: Sound | None, title: str, page: Gathered) -> Safe | None:
    if sound is None or page.audio == "none":
        return None
    if sound.address is None:
        return element("p", sound.note, class_="small-print")
    return element(
        "div",
        element("audio", src=sound.address, controls=True, preload="none", aria_label=title),
        element("p", sound.note, class_="small-print") if sound.note else None,
        class_="player",
        data_title=title,
        data_seconds=f"{sound.seconds:.2f}",
    )


def _similarity(each: Hanging, page: Gathered) -> Safe:
    view = page.wall.pairs
    notes = []
    if each.pair.pinned:
        notes.append("A person fixed this pair.")
    if not each.pair.target:
        notes.append("The rule would pair them otherwise by now; the gain is too small to move the wall.")
    return element(
        "section",
        element(
            "p",
            element("span", "alike", class_="kicker"),
            element(
                "data", f"{each.pair.similarity:.3f}", value=f"{each.pair.similarity:.6f}", class_="alike-figure"
            ),
            class_="alike-line",
        ),
        drawings.beside_chance(each, page.wall.possible, view) if page.wall.possible is not None else None,
        element(
            "p", " ".join([words.similarity_words(each.pair, view, page.wall.possible), *notes]), class_="small-print"
        ),
        class_="alike",
        aria_label="How alike they are",
    )


def _seen_and_heard(each: Hanging) -> Safe | None:
    rows: list[Safe] = []
    for kind, half in ((Kind.ARTWORK, each.artwork), (Kind.TRACK, each.track)):
        for place, part in enumerate(half.parts):
            if not part.caption:
                continue
            name = part.name.replace("-", " ")
            if place == WHOLE:
                name = "the whole picture" if kind is Kind.ARTWORK else "the whole track"
            rows.append(element("dt", name, element("span", f" {part.feeling}", class_="quiet")))
            rows.append(element("dd", element("bdi", part.caption)))
        if half.carried:
            rows.append(element("dt", "carried by"))
            rows.append(element("dd", ", ".join(half.carried)))
        if half.catalogue.licence:
            rows.append(element("dt", "licence of the picture" if kind is Kind.ARTWORK else "licence of the track"))
            rows.append(element("dd", half.catalogue.licence))
    if not rows:
        return None
    return element("details", element("summary", "What was seen and heard"), element("dl", rows))


# -- the whole wall ----------------------------------------------------------------------------------------


def _plane(page: Gathered) -> Safe:
    marks = "" if len(page.hanging) <= drawings.FEW else " Squares are pictures."
    alone = " Faint marks have no partner." if page.wall.alone else ""
    return element(
        "section",
        element("h2", "The plane of feelings", id="plane-title"),
        element(
            "p",
            "To the right what feels pleasant, upwards what stirs. A line joins each picture with its track (a dot); "
            f"the shorter, the closer in feeling.{marks}{alone}",
            class_="said",
        ),
        element(
            "div",
            drawings.plane(page.hanging, page.wall.alone),
            class_="drawing",
            tabindex="0",
            role="region",
            aria_label="Drawing of the plane",
        ),
        id="plane",
        aria_labelledby="plane-title",
    )


def _chance(page: Gathered) -> Safe:
    view, possible = page.wall.pairs, page.wall.possible
    assert possible is not None
    sampled = " (a million of them, drawn at random)" if possible.sampled else ""
    curve = " The line is their curve." if len(page.hanging) > drawings.TICKS else ""
    return element(
        "section",
        element("h2", "Beside chance", id="chance-title"),
        element(
            "p",
            words.chance_words(view),
            f" The grey hill shows how alike all possible pairs are{sampled}; the ticks are the pairs that hang."
            f"{curve}",
            class_="said",
        ),
        element(
            "div",
            drawings.distribution(page.hanging, possible, view),
            class_="drawing",
            tabindex="0",
            role="region",
            aria_label="Drawing of similarities",
        ),
        id="chance",
        aria_labelledby="chance-title",
    )


def _extremes(page: Gathered) -> Safe:
    hanging = page.hanging
    if len(hanging) <= EXTREMES:
        lists = [("From most to least alike", hanging)]
    else:
        lists = [
            (f"The {words.number(EXTREMES)} most alike", hanging[:EXTREMES]),
            (f"The {words.number(EXTREMES)} least alike", hanging[: -EXTREMES - 1 : -1]),
        ]
    return element(
        "section",
        element("h2", "Best and worst", id="extremes-title"),
        element(
            "div",
            (
                element("div", element("h3", heading), element("ol", (_row(each) for each in chosen)))
                for heading, chosen in lists
            ),
            class_="columns",
        ),
        id="extremes",
        aria_labelledby="extremes-title",
    )


def _row(each: Hanging) -> Safe:
    return element(
        "li",
        element(
            "a",
            drawings.small_picture(each, None),
            element(
                "span",
                element("span", title_of(each.pair.artwork.title), class_="title"),
                element("span", "with ", title_of(each.pair.track.title), class_="quiet"),
                class_="names",
            ),
            element(
                "span",
                element("span", f"{each.pair.similarity:.3f}", class_="alike-figure"),
                element("span", words.beats(each.pair.percentile), class_="quiet"),
                class_="score",
            ),
            href=f"#pair-{each.number}",
        ),
    )


def _alone(page: Gathered) -> Safe:
    alone = page.wall.alone
    groups = []
    for kind, one in ((Kind.ARTWORK, "picture"), (Kind.TRACK, "track")):
        sides = [side for side in alone if split_item_id(side.id)[0] is kind]
        if sides:
            said = words.many(len(sides), one)
            groups.append(
                element(
                    "div",
                    element("h3", f"{said[:1].upper()}{said[1:]}"),
                    element("ul", (_single(side, page) for side in sides), class_=f"singles {kind.value}s"),
                )
            )
    return element(
        "section",
        element("h2", "Without a partner", id="alone-title"),
        element(
            "p",
            "They belong to this exhibition and wait: every partner that the rule allows is taken.",
            class_="said",
        ),
        groups,
        id="alone",
        aria_labelledby="alone-title",
    )


def _single(side: SideView, page: Gathered) -> Safe:
    small = page.thumbnails.get(side.id)
    by = [element("bdi", each) for each in (side.artist, side.year) if each]
    return element(
        "li",
        element("img", src=small.uri, width=small.width, height=small.height, alt="", loading="lazy")
        if small is not None
        else None,
        element("span", title_of(side.title), class_="title"),
        element("span", by[0], ((", ", each) for each in by[1:]), class_="quiet") if by else None,
        element("span", side.feeling, class_="quiet"),
    )


def _colophon(page: Gathered, made: datetime) -> Safe:
    view = page.wall.pairs
    facts: list[tuple[str, Child]] = [
        ("exhibition", element("bdi", view.exhibition)),
        ("collections", ", ".join(page.wall.settings.collections) if page.wall.settings.collections else "all"),
        ("hung", words.many(len(page.hanging), "pair")),
        (
            "without a partner",
            f"{words.many(view.unpaired_artworks, 'picture')}, {words.many(view.unpaired_tracks, 'track')}",
        ),
        ("compared by", (words.space_words(view), " ", element("span", f"({view.space})", class_="quiet"))),
        ("rule", (words.rule_words(view.rule), " ", element("span", f"({view.rule})", class_="quiet"))),
        ("floor", words.floor_words(view.floor)),
        ("music", words.music_words(page.wall.settings, page.pieces)),
        ("state", f"revision {view.revision} of the pairing"),
        ("written", element("time", f"{made.day} {made:%B %Y, %H:%M} UTC", datetime=made.isoformat())),
    ]
    notes = []
    if view.pairing_anew:
        notes.append("Its settings ask for another pairing, which is being made.")
    if view.waiting:
        notes.append(
            f"{words.many(view.waiting, 'pair')} of the target wait, because they gain too little to move the wall."
        )
    return joined(
        element("h2", "How to read it", id="about"),
        element(
            "div",
            element(
                "div",
                element("h3", "Feelings"),
                element(
                    "p",
                    "Each picture is looked at as a whole and in four quarters, each track listened to as a whole "
                    "and in four stretches. Every part has a place between unpleasant and pleasant (valence) and "
                    "between quiet and stirred (arousal), from 0 to 1.",
                ),
            ),
            element(
                "div",
                element("h3", "Colours"),
                element(
                    "p",
                    "Every part also has a colour of three feelings: red is movement, green is calm, blue is "
                    "nostalgia, from 0 to 255. The small squares beside a label are these colours: the four parts, "
                    "and the whole next to them. The bar under a title is the picture's own palette.",
                ),
            ),
            element(
                "div",
                element("h3", "Chance"),
                element(
                    "p",
                    "Numbers like these are alike for almost any two things, so a similarity near 1 says little by "
                    "itself. It stands beside what the same pictures and tracks reach when paired at random; "
                    "lift is the one divided by the other, and “beats” the share of all possible pairs that are less "
                    "alike.",
                ),
            ),
            class_="explained",
        ),
        element(
            "dl",
            (element("div", element("dt", name), element("dd", value)) for name, value in facts),
            class_="facts",
        ),
        element("p", " ".join(notes), class_="small-print") if notes else None,
    )
