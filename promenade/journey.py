"""Bringing files in with progress that a person can follow, and the demo's whole way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gallery.views import PairsView, pairs_view
from infra.broker import Producer
from infra.progress import ITEM_STAGES
from infra.records import DEFAULT_EXHIBITION, ItemState, Records, version_text
from promenade import display
from promenade.compose import compose_for, shown
from promenade.reach import changing, plain, reading, running_settings
from promenade.report import DEFAULT_PAGE, Written, progress, sentence, write_report
from promenade.supervisor import stack_state
from schemas.events import Event
from schemas.failures import Passing
from streams.ingest import Ingest, Outcome, Report, Source, patiently
from streams.sources import from_paths
from workers.media.pool import DecoderPool
from workers.pair import read_state

LOOK_EVERY: Final = 1.0
"""Seconds between looks at the pairing while waiting: one listing of its log each time."""

FULL_LOOK_EVERY: Final = 3.0
FULL_LOOK_SHARE: Final = 20
"""A look at every record is dear (it lists them all), so it comes every few seconds, and of a large collection so
rarely that it takes a twentieth of the time at most; and at once when the pairing says that all may be through."""


COMPOSED: Final = 3
"""Pairs of the demo, the best ones, for whose pictures music is composed."""


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=False,
    )


async def bring_in(
    sources: AsyncIterator[Source | Report],
    collection: str,
    records: Records,
    producer: Producer,
    *,
    console: Console,
    again: bool = False,
    wait: bool = True,
    endless: bool = False,
    as_json: Callable[[Any], None] | None = None,
) -> int:
    """Ingest sources into a collection, tell of each file worth telling, and wait until all is understood.

    Args:
        endless: the sources never end (a watched folder): name every file, and do not count them first.
        as_json: print the reports as JSON: all at the end, or each as it comes where the sources never end.

    Returns:
        Exit status: 0, or 3 when files were refused.
    """

    async def publish(events: Sequence[Event]) -> None:
        await asyncio.to_thread(producer.publish, events)

    counts: Counter[Outcome] = Counter()
    reports: list[Report] = []
    items: set[str] = set()
    async with DecoderPool(workers=2) as pool:
        with _bars(console) as bars:
            if endless:
                task = bars.add_task("bringing in", total=None, note="")
            else:
                # Names only, so counting them first costs little and gives the bar its end.
                listed = [source async for source in sources]
                task = bars.add_task("bringing in", total=len(listed), note="")
                sources = _given(listed)

            def tell(text: str) -> None:
                bars.console.print(text, markup=False)

            async for report in Ingest(records, pool, publish, again=again, say=tell).add_all(sources, collection):
                counts[report.outcome] += 1
                if as_json is not None and endless:
                    as_json(_plain(report))
                elif as_json is not None:
                    reports.append(report)
                if report.item and report.outcome is not Outcome.WITHDRAWN:
                    items.add(report.item)
                line = display.report_line(report)
                if line is not None:
                    bars.console.print(line)
                elif endless:
                    bars.console.print(f"{report.name}: {report.outcome.value}", markup=False)
                bars.update(task, advance=1, note="")
            set_aside = await _wait(bars, records, items, tell) if wait and items else 0
    told = ", ".join(f"{number} {outcome.value}" for outcome, number in sorted(counts.items())) or "nothing found"
    console.print(f"collection {collection}: {told}")
    if set_aside:
        console.print(
            f"{set_aside} of these items were set aside on their way: `promenade dead-letters list` says why"
        )
    if as_json is not None and not endless:
        as_json([_plain(report) for report in reports])
    return 3 if counts[Outcome.REFUSED] or counts[Outcome.WITHDRAWN] else 0


def _plain(report: Report) -> dict[str, Any]:
    return {
        "file": report.name,
        "outcome": report.outcome.value,
        "item": report.item,
        "reason": report.reason,
        "advice": report.advice,
        "notes": list(report.notes),
    }


async def _given(sources: Sequence[Source | Report]) -> AsyncIterator[Source | Report]:
    for source in sources:
        yield source


async def _wait(bars: Progress, records: Records, items: set[str], tell: Callable[[str], None]) -> int:
    """Watch the records until every item is through or set aside; a store that is away for a while is waited for.

    Returns:
        How many were set aside.
    """
    tasks = {
        stage.value: bars.add_task(name, total=len(items), note="")
        for stage, name in zip(ITEM_STAGES, ("captioned", "scored", "embedded", "indexed"), strict=True)
    }
    paired = bars.add_task("in the pairing", total=len(items), note="")

    async def look() -> list[ItemState]:
        return [state for state in await records.all_states() if state.item in items and state.alive]

    async def follow() -> None:
        for revision in await records.pairing_log(DEFAULT_EXHIBITION, pairing.number):
            pairing.apply(revision)

    pairing = await patiently(lambda: read_state(records, DEFAULT_EXHIBITION), tell)
    while True:
        begun = time.monotonic()
        states = await patiently(look, tell)
        await patiently(follow, tell)
        next_full = begun + max(FULL_LOOK_EVERY, FULL_LOOK_SHARE * (time.monotonic() - begun))
        failed = {
            state.item: stage.value
            for state in states
            for stage in ITEM_STAGES
            if state.done(stage) is None and state.failed(stage.value)
        }
        for stage in ITEM_STAGES:
            done = sum(state.done(stage) is not None for state in states)
            note = f"{sum(1 for each in failed.values() if each == stage.value)} set aside" if failed else ""
            bars.update(tasks[stage.value], completed=done, note=note)
        hung = sum(
            state.latest is not None and pairing.members.get(state.item) == version_text(state.latest)
            for state in states
        )
        bars.update(paired, completed=hung)
        homeless = sum(not state.memberships for state in states)
        missing = len(states) - hung - len(failed) - homeless
        if missing <= 0:
            for task in [*tasks.values(), paired]:
                bars.update(task, refresh=True)
            return len(failed)
        before = dict(pairing.members)
        while time.monotonic() < next_full:
            await asyncio.sleep(LOOK_EVERY)
            await patiently(follow, tell)
            new = sum(before.get(item) != version for item, version in pairing.members.items() if item in items)
            bars.update(paired, completed=min(len(items), hung + new))
            if new >= missing:
                break


def demo_journey(
    data: Path, console: Console, errors: Console, start: Callable[[], None], stop: Callable[[], None], *, made: bool
) -> int:
    """Samples, stack, ingest, pairs, music for the best of them, the page; the stack is left as it was found.

    Args:
        start: brings the stack up and returns when it is ready.
        stop: takes it down.
        made: paint and compose a collection instead of fetching one.

    Returns:
        Exit status.
    """
    from promenade import samples

    def tell(line: str) -> None:
        errors.print(line, markup=False)

    folder = data / "samples"
    collection = samples.made(folder, progress=tell) if made else samples.collection(folder, tell)
    tell(f"{collection.pictures} pictures and {collection.tracks} tracks: {collection.origin}")
    state = stack_state(data.resolve())
    ran_before = state is not None and state.alive
    if not ran_before:
        start()
    try:

        async def work() -> int:
            async with changing(data) as (_, records, producer):
                return await bring_in(from_paths([collection.manifest]), "samples", records, producer, console=errors)

        status = asyncio.run(work())

        async def look() -> Any:
            async with reading(data, tell) as (_, records):
                return await pairs_view(records)

        view = asyncio.run(look())
        console.print(display.pairs_table(view, console.width))
        console.print(display.pairs_summary(view))
        composed = asyncio.run(_compose_best(data, view, errors))
        written = asyncio.run(_write_page(data, tell, errors))
    finally:
        if not ran_before:
            stop()
    console.print()
    console.print(f"Everything lies in {data}. Go on with:", markup=False)
    for command, meaning in (
        ("pairs", "look at the pairs again (nothing needs to run)"),
        ("report --out report.html", "write the page again (nothing needs to run)"),
        ("up", "start the stack and keep it up"),
        ("ingest ./my-pictures --collection spring", "bring in your own, with the stack up"),
        ('search "a quiet evening by the sea"', "find pictures and tracks by words, with the stack up"),
        ("compose PICTURE --out piece.ogg", "compose for a picture (`pairs --json` names it), with the stack up"),
    ):
        console.print(f"  promenade {command:<42} {meaning}", markup=False)
    console.print("(the command lies at .venv/bin/promenade)")
    console.print()
    console.print(f"To look at and listen to: {sentence(written)}", markup=False, soft_wrap=True)
    return status if composed else status or 1


async def _compose_best(data: Path, view: PairsView, errors: Console) -> bool:
    """Compose for the pictures of the best pairs; False where one was not composed, which ends nothing."""
    titles = {pair.artwork.id: pair.artwork.title for pair in view.pairs[:COMPOSED]}
    if not titles:
        return True
    errors.print(f"composing for the {len(titles)} best pairs", markup=False)
    try:
        with shown(errors, {artwork: title[:40] for artwork, title in titles.items()}) as told:
            found = await compose_for(running_settings(data), list(titles), exhibition=view.exhibition, progress=told)
    except Passing as trouble:
        errors.print(f"nothing was composed: {plain(trouble)}", markup=False)
        return False
    for record in found:
        if "reason" in record:
            errors.print(f"{titles[record['artwork']]}: not composed: {record['reason']}", markup=False)
        else:
            errors.print(f"{record['title']}: {record['seconds']:.0f} s of music", markup=False)
    return not any("reason" in record for record in found)


async def _write_page(data: Path, tell: Callable[[str], None], errors: Console) -> Written:
    async with reading(data, tell) as (_, records):
        with progress(errors) as step:
            return await write_report(records, data / DEFAULT_PAGE, step=step)
