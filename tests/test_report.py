"""The report page: everything that hangs is on it, nothing from elsewhere, and a title is never more than text."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

import promenade.report
from gallery.report import gather, render, words
from gallery.report.gathering import Gathered
from gallery.report.markup import element, joined
from gallery.views import PairsView, PairView, SideView, wall_view
from infra.records import Records, rendition_key
from promenade import journey
from promenade.cli import application
from promenade.report import folder_of, write_report
from schemas.failures import Passing, Refused
from schemas.media import Kind
from schemas.records import Catalogue, ExhibitionSettings, Tombstone, now
from tests.made_exhibition import hang, put_piece, put_whole_item
from tests.stack_fixtures import made_item
from workers.media.pool import DecoderPool

HOSTILE = (
    '<script>alert("1")</script>',
    "\"><img src=x onerror=alert('2')>",
    "Nocturne 🎻 & 'Étude' — 月の光",
    "\u202egnihtyna\u0000\u001b[31m</title></svg>]]>-->{{7*7}}",
)


@dataclass
class Read:
    """A page as a parser sees it."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    inside: dict[str, list[str]] = field(default_factory=dict)
    """What stands inside each style and script."""

    def of(self, name: str, class_: str | None = None) -> list[dict[str, str]]:
        """Attributes of the elements of a name (and a class)."""
        return [
            attributes
            for each, attributes in self.elements
            if each == name and (class_ is None or class_ in attributes.get("class", "").split())
        ]


def read(html: str) -> Read:
    """Parse a page."""
    found = Read()

    class Reader(HTMLParser):
        open_name = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.elements.append((tag, {key: value or "" for key, value in attrs}))
            self.open_name = tag

        def handle_data(self, data: str) -> None:
            if self.open_name in ("style", "script"):
                found.inside.setdefault(self.open_name, []).append(data)
            else:
                found.text += data

        def handle_endtag(self, tag: str) -> None:
            self.open_name = ""

    reader = Reader()
    reader.feed(html)
    reader.close()
    return found


async def page_of(records: Records, folder: Path, **options: Any) -> str:
    """The page of an exhibition as text."""
    await write_report(records, folder / "report.html", **options)
    return (folder / "report.html").read_text(encoding="utf-8")


async def three_pairs(records: Records) -> list[tuple[str, str]]:
    """Three pairs and two items alone."""
    pairs = []
    for place, form in enumerate(("OGG", "WAV", "FLAC")):
        artwork = await put_whole_item(
            records,
            f"picture {place}",
            Kind.ARTWORK,
            catalogue=Catalogue(title=f"Picture {place}", artist=f"Painter {place}", year=f"190{place}"),
            feeling=place / 2,
        )
        track = await put_whole_item(records, f"track {place}", Kind.TRACK, feeling=place / 2, form=form)
        pairs.append((artwork, track))
    alone = [
        await put_whole_item(records, "left over", Kind.ARTWORK, feeling=0.2),
        await put_whole_item(records, "unheard", Kind.TRACK, feeling=0.9),
    ]
    await hang(records, pairs, alone)
    return pairs


async def test_every_pair_is_on_the_page_with_all_that_is_known_of_it(records: Records, tmp_path: Path) -> None:
    await three_pairs(records)
    html = await page_of(records, tmp_path)
    page = read(html)
    assert [each["id"] for each in page.of("article")] == ["pair-1", "pair-2", "pair-3"]
    for place in range(3):
        for said in (f"Picture {place}", f"Painter {place}", f"190{place}", f"track {place}"):
            assert said in page.text
    assert "Caption of all." in page.text and "carried by" in page.text and "lantern" in page.text
    assert len(page.of("svg", "palette")) == 3
    assert all("ochre 60%" in each["aria-label"] for each in page.of("svg", "palette"))
    assert len(page.of("svg", "parts")) == 6
    assert html.count('fill="#c89628"') == 3, "the palette's own colour"
    pictures = [each for each in page.of("img") if "width" in each and each["alt"]]
    assert len(pictures) == 3 and all(each["alt"].startswith("Picture") for each in pictures)
    assert len(page.of("audio")) == 3
    assert len(page.of("a", "link")) == 3, "links of the plane"
    assert len(page.of("a", "tickmark")) == 3
    assert "left over" in page.text and "unheard" in page.text and "Without a partner" in page.text
    view = (await wall_view(records)).pairs
    assert f"{view.chance_similarity:.3f}" in page.text and f"{view.lift:.3f}" in page.text
    for each in view.pairs:
        assert f"{each.similarity:.3f}" in page.text


async def test_titles_stay_text_whatever_they_hold(records: Records, tmp_path: Path) -> None:
    pairs = []
    for place, title in enumerate(HOSTILE):
        said = Catalogue(title=title, artist=title, year=title[:40], licence=title)
        artwork = await put_whole_item(
            records, f"hostile picture {place}", Kind.ARTWORK, catalogue=said, feeling=place / 4
        )
        track = await put_whole_item(records, f"hostile track {place}", Kind.TRACK, catalogue=said, feeling=place / 4)
        pairs.append((artwork, track))
    await put_piece(records, *pairs[0], title=HOSTILE[0])
    alone = await put_whole_item(records, "alone", Kind.ARTWORK, catalogue=Catalogue(title=HOSTILE[1]))
    await hang(records, pairs, [alone])
    html = await page_of(records, tmp_path)
    page = read(html)
    assert len(page.of("script")) == len(page.of("style")) == 1
    assert len([each for each in page.of("img") if each.get("src") == "x"]) == 0
    handlers = {key for _, attributes in page.elements for key in attributes if key.startswith("on")}
    assert not handlers
    for title in HOSTILE[:3]:
        assert title in page.text
        assert any(title in each.get("aria-label", "") for each in page.of("audio"))
    assert "\u0000" not in html and "\u001b" not in html
    # What turns the direction of writing cannot reach beyond the title.
    assert re.search(r"<bdi>\u202e[^<]*</bdi>", html)
    assert page.of("title") and not re.search(r"<title>[^<]*</title>[^<]*</title>", html)


async def test_nothing_comes_from_elsewhere_and_the_policy_says_so(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    await put_piece(records, *pairs[0])
    page = read(await page_of(records, tmp_path))
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            if key in attributes:
                assert attributes[key].startswith(("data:", "#")), (name, key, attributes[key][:80])
        assert "style" not in attributes, "the policy allows no style but the sheet"
    assert not page.of("link") and not page.of("iframe") and not page.of("form") and not page.of("base")
    (style,), (script,) = page.inside["style"], page.inside["script"]
    assert "url(" not in style and "@import" not in style and "fetch(" not in script
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")
    (policy,) = (each["content"] for each in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["base-uri"] == "'none'" and rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    for rule, content in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


async def test_the_page_reads_in_order_and_names_what_it_shows(records: Records, tmp_path: Path) -> None:
    await put_piece(records, *(await three_pairs(records))[1])
    page = read(await page_of(records, tmp_path))
    assert len(page.of("h1")) == len(page.of("main")) == len(page.of("header", "masthead")) == 1
    assert page.of("html")[0]["lang"] == "en"
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and all(later - earlier <= 1 for earlier, later in pairwise(levels))
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    for _, attributes in page.elements:
        target = attributes.get("href", "#")
        assert target.startswith("data:") or target == "#" or target[1:] in identities
        for key in ("aria-labelledby",):
            assert attributes.get(key, identities[0]) in identities
    assert all("alt" in each for each in page.of("img"))
    assert all(each.get("aria-label") for each in page.of("audio"))
    assert page.elements[[name for name, _ in page.elements].index("body") + 1][1]["class"] == "skip"
    for each in page.of("svg"):
        assert each.get("aria-label") or each.get("aria-hidden") == "true"


async def test_a_composed_piece_is_shown_with_its_player(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    await put_piece(records, *pairs[1], number=1, title="For this wall")
    await put_piece(records, pairs[1][0], made_item("another", Kind.TRACK), number=2, title="For another wall")
    page = read(await page_of(records, tmp_path))
    assert "For this wall" in page.text and "For another wall" not in page.text
    assert "D minor; 96 beats a minute; Cello and Harp; seed 7." in page.text
    assert "Alike: 0.970 to this picture (0.910 by chance)." in page.text, "in the space of the wall"
    assert page.text.count("How near it is, in every space") == 1 and len(page.of("table")) == 1
    assert len(page.of("audio")) == 4


async def test_composers_stand_side_by_side(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    artwork, track = pairs[1]
    await put_piece(records, artwork, track, number=1, scores=(0.05, 0.21))
    await put_piece(records, artwork, None, number=2, composer="art2mus", title="For another wall", scores=(0.9, 0.9))
    await put_piece(records, artwork, track, number=3, composer="art2mus", scores=(0.083, 0.19))
    await put_piece(records, artwork, track, number=4, composer="mozarts-touch", scores=(0.061, 0.174))
    html = await page_of(records, tmp_path)
    page = read(html)
    assert "Three composers" in page.text and "ImageBind, which looks and hears" in page.text
    names = ("Art2Mus", "Mozart’s Touch", "The edge composer")
    assert all(name in page.text for name in names)
    assert [each["aria-label"] for each in page.of("section") if each.get("aria-label") in names] == [
        "Art2Mus",
        "The edge composer",
        "Mozart’s Touch",
    ]
    assert len(page.of("audio")) == 3 + 3, "each composer's piece beside the three tracks"
    for figure in ("0.083", "0.190", "0.050", "0.210", "0.061", "0.174"):
        assert f">{figure}</data> ({'0.040' if float(figure) < 0.1 else '0.140'} by chance, beats 61 %)" in html
    assert ">0.900</data>" not in html, "a piece for this wall goes before one for another"
    assert len(page.of("svg", "scale")) == 6
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


async def test_sound_is_embedded_beside_or_left_out(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    piece = await put_piece(records, *pairs[0])
    embedded = read(await page_of(records, tmp_path)).of("audio")
    assert len(embedded) == 4 and not folder_of(tmp_path / "report.html").exists()
    for each in embedded:
        head, content = each["src"].split(",")
        assert head == "data:audio/ogg;base64"
        with soundfile.SoundFile(io.BytesIO(base64.b64decode(content))) as sound:
            assert sound.subtype == "OPUS" and sound.frames / sound.samplerate == pytest.approx(2.0, abs=0.1)
    folder = folder_of(tmp_path / "report.html")
    folder.mkdir()
    (folder / "mine.ogg").write_bytes(b"somebody else's")
    (folder / f"track-{'0' * 20}.ogg").write_bytes(b"of an earlier page")
    html = await page_of(records, tmp_path, audio="beside")
    beside = [each["src"] for each in read(html).of("audio")]
    assert f"report_files/piece-{piece.piece}.ogg" in beside and len(beside) == 4
    assert {each.name for each in folder.iterdir()} == {Path(each).name for each in beside} | {"mine.ogg"}
    assert "media-src data: &#x27;self&#x27; file:" in html
    assert not read(await page_of(records, tmp_path, audio="none")).of("audio")
    assert [each.name for each in folder.iterdir()] == ["mine.ogg"]


async def test_what_is_missing_is_said_and_stops_nothing(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    await records.objects.delete([rendition_key(pairs[0][0], 0, "picture.jpg")])
    digest = pairs[1][1].split("-")[1]
    await records.objects.put(f"media/{digest}/000000", b"RIFF\x00\x00\x00\x00WAVEbroken")
    await records.objects.delete([f"media/{pairs[2][1].split('-')[1]}/000000"])
    page = read(await page_of(records, tmp_path))
    assert "This picture is not there any more." in page.text
    assert "This track cannot be played here" in page.text
    assert "The sound of this track is not there any more." in page.text
    assert len(page.of("article")) == 3


async def test_what_was_taken_down_is_not_on_the_page(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    await records.bury(Tombstone(item=pairs[0][0], generation=0, made=now()))
    page = read(await page_of(records, tmp_path))
    assert "Picture 0" not in page.text and len(page.of("article")) == 2
    assert "track 0" in page.text, "its track waits for another partner"


async def test_an_exhibition_without_pairs_says_so(records: Records, tmp_path: Path) -> None:
    page = read(await page_of(records, tmp_path))
    assert "Nothing hangs here yet." in page.text and not page.of("article")
    lonely = await put_whole_item(records, "lonely", Kind.ARTWORK)
    await hang(records, [], [lonely])
    page = read(await page_of(records, tmp_path))
    assert "no track has come so far" in page.text and "lonely" in page.text
    with pytest.raises(Refused, match="no exhibition called 'nowhere'"):
        await page_of(records, tmp_path, exhibition="nowhere")


async def test_one_pair_is_an_exhibition(records: Records, tmp_path: Path) -> None:
    artwork = await put_whole_item(records, "one", Kind.ARTWORK)
    track = await put_whole_item(records, "other", Kind.TRACK)
    await hang(records, [(artwork, track)])
    page = read(await page_of(records, tmp_path))
    assert "One picture, hung beside a piece of music" in page.text
    assert len(page.of("article")) == 1 and "From most to least alike" in page.text


async def test_a_page_of_hundreds_keeps_its_sound_beside_it(records: Records, tmp_path: Path) -> None:
    pairs = await three_pairs(records)
    async with DecoderPool(workers=1) as pool:
        few = await gather(records, "default", pool, audio="none", beside=lambda name, _: name)
    view = few.wall.pairs
    hundreds = [replace_number(few, place, f"Picture {place}", 0.99 - place / 2000) for place in range(300)]
    wall = few.wall.model_copy(
        update={"pairs": view.model_copy(update={"pairs": tuple(each.pair for each in hundreds)})}
    )
    page = read("".join(render(Gathered(wall, "beside", hundreds), now())))
    assert len(page.of("article")) == 300 and len(page.of("a", "link")) == 300
    assert page.of("path", "hung"), "so many pairs are a curve as well"
    assert page.of("section", "many"), "only those in sight are laid out"
    assert [each.get("loading") for each in page.of("img") if each["alt"]].count("lazy") == 299
    assert pairs
    assert "The five least alike" in page.text and "Picture 299" in page.text


def replace_number(few: Gathered, place: int, title: str, similarity: float) -> Any:
    """A pair like the first, with another number, title and similarity."""
    first = few.hanging[0]
    side = first.pair.artwork.model_copy(update={"title": title})
    pair = first.pair.model_copy(update={"artwork": side, "similarity": similarity})
    return replace(first, number=place + 1, pair=pair, artwork=replace(first.artwork, side=side))


async def test_so_many_pairs_that_sound_would_be_too_large_are_written_beside(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_pairs(records)
    monkeypatch.setattr("gallery.report.gathering.EMBEDDED_PAIRS", 2)
    written = await write_report(records, tmp_path / "report.html")
    assert written.audio == "beside" and len(written.files) == 3
    monkeypatch.setattr("gallery.report.gathering.EMBEDDED_PAIRS", 3)
    assert (await write_report(records, tmp_path / "report.html")).audio == "embed"
    monkeypatch.setattr("gallery.report.gathering.EMBEDDED_BYTES", 1000)
    assert (await write_report(records, tmp_path / "report.html")).audio == "beside"


async def test_the_hill_counts_every_possible_pair(records: Records) -> None:
    await three_pairs(records)
    wall = await wall_view(records)
    assert wall.possible is not None
    assert sum(wall.possible.counts) == 4 * 4 and not wall.possible.sampled
    assert wall.possible.lowest <= wall.possible.mean <= wall.possible.highest <= 1
    assert {side.title for side in wall.alone} == {"left over", "unheard"}


async def test_the_command_writes_the_page_and_says_where(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_pairs(records)

    @contextlib.asynccontextmanager
    async def made(*_: Any) -> AsyncIterator[tuple[None, Records]]:
        yield None, records

    monkeypatch.setattr(promenade.report, "reading", made)

    # The command runs an event loop of its own, so it gets a thread of its own.
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(application, ["report", *arguments])

    told = await asyncio.to_thread(
        run, "--out", str(tmp_path / "walls" / "spring.html"), "--audio", "beside", "--json"
    )
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert answer["pairs"] == 3 and answer["audio"] == "beside" and len(answer["files"]) == 3
    assert Path(answer["page"]).stat().st_size == answer["bytes"]
    assert all(Path(each).parent.name == "spring_files" for each in answer["files"])
    assert not list((tmp_path / "walls").glob(".*")), "nothing unfinished is left"
    folder = await asyncio.to_thread(run, "--out", str(tmp_path))
    assert folder.exit_code == 1 and "is a folder" in folder.output
    unknown = await asyncio.to_thread(run, "--out", str(tmp_path / "x.html"), "--exhibition", "nowhere")
    assert unknown.exit_code == 1 and "nowhere" in unknown.output and not (tmp_path / "x.html").exists()


async def test_the_demo_says_what_was_not_composed_and_goes_on(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = await three_pairs(records)
    asked: list[str] = []

    async def composed(_: Any, artworks: list[str], **__: Any) -> list[dict[str, Any]]:
        asked.extend(artworks)
        return [{"title": "Music for it", "seconds": 60.0, "artwork": each} for each in artworks[:2]] + [
            {"artwork": artworks[2], "reason": "the composer is out"}
        ]

    async def away(*_: Any, **__: Any) -> list[dict[str, Any]]:
        raise Passing("worker", "does not answer")

    monkeypatch.setattr(journey, "running_settings", lambda _: None)
    monkeypatch.setattr(journey, "compose_for", composed)
    said = Console(file=io.StringIO(), width=200)
    view = (await wall_view(records)).pairs
    assert not await journey._compose_best(tmp_path, view, said)
    assert asked == [artwork for artwork, _ in pairs]
    told = said.file.getvalue()  # type: ignore[attr-defined]
    assert "Picture 2: not composed: the composer is out" in told and "Music for it: 60 s of music" in told
    monkeypatch.setattr(journey, "compose_for", away)
    assert not await journey._compose_best(tmp_path, view, said)
    assert await journey._compose_best(tmp_path, view.model_copy(update={"pairs": ()}), said), (
        "nothing to compose for"
    )


def test_markup_escapes_all_but_markup() -> None:
    made = element(
        "p", "<b>&\"'", element("br"), None, ["one", element("i", "two")], class_='a"b', hidden=True, id=None
    )
    assert made == '<p class="a&quot;b" hidden>&lt;b&gt;&amp;&quot;&#x27;<br>one<i>two</i></p>'
    assert joined("a\ud800b\u0007") == "a\ufffdb\ufffd"


def side(title: str = "x") -> SideView:
    return SideView(id=made_item(title), title=title, artist="", year="", feeling="calm", rgb=(1, 2, 3), valence=0.5,
                    arousal=0.5)  # fmt: skip


def test_a_pair_never_beats_more_than_it_beats() -> None:
    view = PairsView(
        exhibition="default", space="rgb15", rule="stable", revision=1, pairs=(), unpaired_artworks=0,
        unpaired_tracks=0, mean_similarity=0.9, chance_similarity=0.8, chance_spread=0.01, lift=1.125,
    )  # fmt: skip
    pair = PairView(artwork=side(), track=side("y"), similarity=0.96, percentile=99.9)
    assert "More alike than 99 in 100" in words.similarity_words(pair, view, None)
    assert "1.20 times that (lift)" in words.similarity_words(pair, view, None)
    assert words.beats(99.9) == "beats 99 %"
    centred = view.model_copy(update={"chance_similarity": 0.01, "lift": None})
    assert "lift" not in words.similarity_words(pair, centred, None)
    assert "lift" not in words.chance_words(centred)


@pytest.mark.parametrize("rule", ["greedy", "stable", "optimal"])
@pytest.mark.parametrize("music", ["never", "on request", "always"])
def test_settings_are_said_in_words(rule: str, music: Any) -> None:
    view = PairsView(
        exhibition="default", space="mix", rule=rule, revision=1, pairs=(), unpaired_artworks=0, unpaired_tracks=0,
        mean_similarity=None, chance_similarity=None, chance_spread=None, lift=None, mix={"rgb15": 0.5, "va": 0.5},
        floor=0.9,
    )  # fmt: skip
    said = words.settings_words(ExhibitionSettings(name="default", rule=rule, music=music), view)
    assert "0.5 × valence and arousal" in said and "nothing less alike than 0.9" in said
    assert rule not in said and "composed" in said


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def themes() -> Iterator[tuple[str, dict[str, str]]]:
    sheet = resources.files("gallery.report").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", sheet, re.S)[:2]
    yield "light", colours(light)
    yield "dark", colours(dark)


@pytest.mark.parametrize(("theme", "named"), list(themes()))
@pytest.mark.parametrize("name", ["ink", "quiet", "accent"])
def test_text_can_be_read_in_both_themes(theme: str, named: dict[str, str], name: str) -> None:
    one, other = sorted((luminance(named["paper"]), luminance(named[name])), reverse=True)
    assert (one + 0.05) / (other + 0.05) >= 4.5, f"{name} on paper, {theme}: WCAG AA asks 4.5"
