"""The report page in a real browser: it opens alone, its sounds play, it is walked by keys, it fits its screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.records import Records
from promenade.report import write_report
from schemas.media import Kind
from schemas.records import Catalogue
from tests.browser import Browser, new_page, running_chromium
from tests.made_exhibition import SECONDS, hang, put_piece, put_whole_item
from tests.test_report import HOSTILE


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A browser for these tests: its port."""
    with running_chromium(tmp_path_factory.mktemp("chromium")) as port:
        yield port


@pytest.fixture
async def browser(chromium: int) -> AsyncIterator[Browser]:
    """An empty page."""
    async with new_page(chromium) as opened:
        yield opened


@pytest.fixture
async def page(records: Records, tmp_path: Path) -> Path:
    """A page of four pairs with hostile titles, one of them with a composed piece; Ogg, WAV and FLAC tracks."""
    await _four_pairs(records)
    return (await write_report(records, tmp_path / "report.html")).page


async def _four_pairs(records: Records) -> None:
    pairs = []
    for place, title in enumerate(HOSTILE):
        said = Catalogue(title=title, artist=title)
        artwork = await put_whole_item(
            records, f"{place}" * (place + 1), Kind.ARTWORK, catalogue=said, feeling=place / 4
        )
        form = ("OGG", "WAV", "FLAC", "OGG")[place]
        track = await put_whole_item(
            records, f"track {place}", Kind.TRACK, catalogue=said, feeling=place / 4, form=form
        )
        pairs.append((artwork, track))
    await put_piece(records, *pairs[0])
    await hang(records, pairs, [await put_whole_item(records, "alone", Kind.ARTWORK)])


async def test_the_page_opens_alone_and_without_complaint(browser: Browser, page: Path) -> None:
    await browser.open(page)
    for place in range(await browser.ask("document.images.length")):
        await browser.ask(f"document.images[{place}].scrollIntoView({{behavior: 'instant'}})")
        await browser.until(f"document.images[{place}].complete && document.images[{place}].naturalWidth > 0")
    assert await browser.ask("document.querySelectorAll('.pair').length") == 4
    assert await browser.ask("document.documentElement.classList.contains('walks')"), "the script ran"
    assert await browser.ask("getComputedStyle(document.querySelector('.pair')).display") == "grid", "the style holds"
    assert browser.requests == [page.resolve().as_uri()], "the file itself, and nothing else"
    assert browser.complaints == []


async def test_sounds_play_one_at_a_time(browser: Browser, page: Path) -> None:
    await browser.open(page)
    lengths = await browser.ask(
        "Promise.all([...document.querySelectorAll('audio')].map((audio) => new Promise((resolve, reject) => {"
        "audio.addEventListener('loadedmetadata', () => resolve(audio.duration));"
        "audio.addEventListener('error', () => reject(new Error(audio.error.message)));"
        "audio.preload = 'metadata'; audio.load(); })))"
    )
    assert lengths == [pytest.approx(SECONDS, abs=0.1)] * 5, "four tracks and a piece, all of a known length"
    # The second player of the page is the composed piece, the first one its track.
    await browser.ask("document.querySelectorAll('audio').forEach((audio) => { audio.loop = true; })")
    await browser.click("#pair-1 .heard ~ .heard .play")
    await browser.until("document.querySelectorAll('audio')[1].currentTime > 0.1")
    label = "document.querySelectorAll('.play')[1].getAttribute('aria-label')"
    assert await browser.ask(label) == "Pause: Night music"
    assert " of 0:02" in await browser.ask("document.querySelectorAll('.place')[1].getAttribute('aria-valuetext')")
    await browser.click("#pair-2 .play")
    await browser.until("document.querySelectorAll('audio')[2].currentTime > 0.1")
    assert await browser.ask("document.querySelectorAll('audio')[1].paused")
    await browser.until(f"{label} === 'Play: Night music'")
    await browser.click("#pair-2 .play")
    await browser.until("[...document.querySelectorAll('audio')].every((audio) => audio.paused)")
    assert browser.complaints == []


async def test_sounds_beside_the_page_play_too(browser: Browser, records: Records, tmp_path: Path) -> None:
    await _four_pairs(records)
    written = await write_report(records, tmp_path / "with sound #1.html", audio="beside")
    await browser.open(written.page)
    await browser.click("#pair-3 .play")
    await browser.until("document.querySelectorAll('audio')[3].currentTime > 0.1")
    assert await browser.ask("document.querySelectorAll('audio')[3].duration") == pytest.approx(SECONDS, abs=0.1)
    assert set(browser.requests) <= {each.resolve().as_uri() for each in (written.page, *written.files)}
    assert browser.complaints == []


async def test_a_sound_that_does_not_play_is_said(browser: Browser, page: Path) -> None:
    await browser.open(page)
    await browser.ask("document.querySelector('audio').src = 'data:audio/ogg;base64,AAAA'")
    await browser.click("#pair-1 .play")
    await browser.until("document.querySelectorAll('#pair-1 [role=alert]').length === 1")
    assert "cannot play" in await browser.ask("document.querySelector('#pair-1 [role=alert]').textContent")


async def test_a_person_with_a_keyboard_walks_and_listens(browser: Browser, page: Path) -> None:
    await browser.open(page)
    focused = "document.activeElement.id"
    await browser.press("Tab")
    assert await browser.ask("document.activeElement.className") == "skip"
    assert await browser.ask("document.activeElement.getBoundingClientRect().top") >= 0, "it shows when focused"
    await browser.press("Enter")
    await browser.until(f"{focused} === 'pairs'")
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        await browser.press(key)
        await browser.until(f"{focused} === 'pair-{place}'")
        await browser.until("Math.abs(document.activeElement.getBoundingClientRect().top) < 200")
    for _ in range(4):
        await browser.press("ArrowRight")
    assert await browser.ask(focused) == "pair-4", "the walk ends at the last pair"
    # Into the pair: its player by Tab, played by the space bar, moved along by arrows that no longer walk.
    await browser.press("Tab")
    assert await browser.ask("document.activeElement.className") == "play"
    await browser.ask("document.querySelectorAll('audio').forEach((audio) => { audio.loop = true; })")
    await browser.press(" ")
    await browser.until("[...document.querySelectorAll('audio')].at(-1).currentTime > 0.1")
    await browser.press(" ")
    await browser.until("[...document.querySelectorAll('audio')].every((audio) => audio.paused)")
    await browser.press("Tab")
    assert await browser.ask("document.activeElement.type") == "range"
    before = await browser.ask("Number(document.activeElement.value)")
    await browser.press("ArrowRight")
    assert await browser.ask("document.activeElement.type") == "range", "arrows move the place in the sound here"
    assert await browser.ask("Number(document.activeElement.value)") != before
    visible = "getComputedStyle(document.activeElement).outlineStyle"
    assert await browser.ask(visible) != "none"
    assert browser.complaints == []


async def test_links_of_the_plane_name_their_pair_when_focused(browser: Browser, page: Path) -> None:
    await browser.open(page)
    shown = "getComputedStyle(document.querySelector('.plane .link[href=\"#pair-2\"] .said')).visibility"
    assert await browser.ask(shown) == "hidden"
    await browser.ask("document.querySelector('.plane').closest('.drawing').focus()")
    for _ in range(4):
        await browser.press("Tab")
        if await browser.ask("document.activeElement.getAttribute('href')") == "#pair-2":
            break
    assert await browser.ask(shown) == "visible"
    await browser.press("Enter")
    await browser.until("location.hash === '#pair-2'")
    await browser.until("Math.abs(document.querySelector('#pair-2').getBoundingClientRect().top) < 200")


async def test_everything_that_can_be_used_has_a_name(browser: Browser, page: Path) -> None:
    await browser.open(page)
    nodes: list[dict[str, Any]] = (await browser.call("Accessibility.getFullAXTree"))["nodes"]
    named = {"button", "link", "image", "img", "slider", "heading", "region", "navigation", "article"}
    seen = set()
    for node in nodes:
        role = node.get("role", {}).get("value")
        if node.get("ignored") or role not in named:
            continue
        seen.add(role)
        if role == "image" and node.get("name", {}).get("value") == "":
            continue
        assert node.get("name", {}).get("value"), node
    assert {"button", "link", "image", "slider", "heading", "article", "navigation"} <= seen


async def test_it_fits_from_a_phone_to_a_wall(browser: Browser, page: Path) -> None:
    await browser.open(page)
    for width, height in ((360, 740), (390, 844), (820, 1180), (1440, 900), (3840, 2160)):
        await browser.resize(width, height)
        await browser.until(f"screen.width === {width}")
        every = "[...document.querySelectorAll('body *')]"
        wide = f"{every}.filter((each) => each.getBoundingClientRect().right > {width})"
        assert await browser.ask("document.documentElement.scrollWidth") <= width, await browser.ask(
            f"{wide}.map((each) => each.outerHTML.slice(0, 120))"
        )
        columns = await browser.ask(
            "getComputedStyle(document.querySelector('.pair')).gridTemplateColumns.split(' ').length"
        )
        assert columns == (1 if width < 896 else 2)
        picture = await browser.ask("document.querySelector('.frame img').getBoundingClientRect().width")
        assert picture > (0.8 * width if width < 896 else 0.25 * width), "pictures are large"
        touch = await browser.ask("document.querySelector('.play').getBoundingClientRect().height")
        assert touch >= 44, "a finger finds it"


async def test_dark_where_people_want_it_dark(browser: Browser, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    await browser.open(page)
    assert min(await browser.ask(ground)) > 200
    await browser.open(page, dark=True)
    assert max(await browser.ask(ground)) < 60


async def test_without_its_script_the_browsers_own_players_remain(browser: Browser, page: Path) -> None:
    await browser.call("Emulation.setScriptExecutionDisabled", value=True)
    await browser.open(page)
    # The page's script is off; the protocol's questions still run.
    assert await browser.ask("document.querySelectorAll('audio[controls]').length") == 5
    assert await browser.ask("document.querySelectorAll('.play').length") == 0
