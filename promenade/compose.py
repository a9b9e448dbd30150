"""Music on the command line: `promenade compose`, `promenade play` and `promenade music`.

Composing is asked of the running worker over its API, as a browser would (`compose_for` does it for the demo and for
other programs); what is kept is read from the records, also with nothing up.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich import box
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from infra.objects import NotFound
from infra.records import Records, piece_key
from promenade.reach import reading, running_settings
from promenade.settings import Settings
from schemas.failures import Passing, Refused
from schemas.media import Kind, split_item_id
from schemas.records import (
    DEFAULT_SECONDS,
    EVERY_COMPOSER,
    LONGEST_PIECE,
    SHORTEST_PIECE,
    MusicRecord,
    MusicSimilarity,
)

music_commands = typer.Typer(help="Composed pieces: list, show, delete.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", envvar="PROMENADE_DATA", help="The data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PieceName = Annotated[str, typer.Argument(help="A piece's id, or enough of its beginning; `music list` shows them.")]
DEFAULT_DATA: Final = Path("promenade-data")

Told = Callable[[str, float, float, str], None]
"""(picture, seconds of music made, seconds asked for, state)"""

LOOK_EVERY: Final = 0.3
_PATIENCE_SECONDS: Final = 60.0
"""How long a worker that does not answer any more is asked again before the command gives up."""
_PLAYERS: Final = (
    ("paplay",),
    ("pw-play",),
    ("aplay", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("play", "-q"),
)


# -- asking the worker -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=settings.api_address, trust_env=False, timeout=30.0) as client:
        yield client


async def _asked(client: httpx.AsyncClient, method: str, path: str, **how: Any) -> tuple[int, dict[str, Any]]:
    """An answer as JSON values.

    Raises:
        Passing: the worker does not answer.
    """
    try:
        answer = await client.request(method, path, **how)
        found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Passing("worker", f"{client.base_url} does not answer ({type(error).__name__})") from None
    return answer.status_code, found if isinstance(found, dict) else {"detail": str(found)}


async def _followed(client: httpx.AsyncClient, piece: str, artwork: str, progress: Told | None) -> dict[str, Any]:
    """Look until a piece is kept; its record. A worker that is away for a moment is asked again."""
    silent = 0.0
    while True:
        try:
            status, found = await _asked(client, "GET", f"/api/music/{piece}")
            silent = 0.0
        except Passing:
            silent += LOOK_EVERY
            if silent > _PATIENCE_SECONDS:
                raise
            await asyncio.sleep(LOOK_EVERY)
            continue
        if status == 200 and found.get("state") == "kept":
            return found
        if status == 202:
            if progress is not None:
                progress(artwork, found.get("seconds", 0.0), found.get("asked_seconds", 0.0), found["state"])
            await asyncio.sleep(LOOK_EVERY)
            continue
        if status == 404:
            raise Refused(f"the piece {piece} is gone: its worker was started anew, or it was deleted. Ask again.")
        raise Refused(str(found.get("detail", f"the piece ended as {found.get('state')}")))


async def compose_one(
    settings: Settings,
    artwork: str,
    *,
    seconds: float = DEFAULT_SECONDS,
    seed: int = 0,
    wishes: Mapping[str, str | float] | None = None,
    composer: str | None = None,
    exhibition: str | None = None,
    background: bool = False,
    progress: Told | None = None,
) -> dict[str, Any]:
    """One piece by the running worker; its record as JSON values, or with `background` only what was answered.

    Args:
        composer: None: the exhibition's, or the profile's first one.

    Raises:
        Refused: in plain words, why there is none.
        Passing: the worker does not answer.
    """
    body = {"artwork": artwork, "seconds": seconds, "seed": seed, "wishes": dict(wishes or {})}
    body |= {"exhibition": exhibition} if exhibition is not None else {}
    body |= {"composer": composer} if composer is not None else {}
    async with _worker(settings) as client:
        while True:
            status, found = await _asked(client, "POST", "/api/music", json=body | {"background": background})
            if status != 429:
                break
            # Others are heard at this moment.
            await asyncio.sleep(2.0)
        if status not in (200, 202):
            raise Refused(str(found.get("detail", found)))
        if background:
            return found
        return await _followed(client, found["piece"], artwork, progress)


async def composers_of(settings: Settings) -> list[str]:
    """The composers that the running worker's profile serves, the default one first.

    Raises:
        Passing: the worker does not answer.
        Refused: it serves none.
    """
    async with _worker(settings) as client:
        _, found = await _asked(client, "GET", "/api/music")
    known = list(found.get("composers", {}))
    if not known:
        raise Refused("no music can be composed: the profile serves no composer.")
    return known


async def compose_for(
    settings: Settings,
    artworks: Sequence[str],
    *,
    seconds: float = DEFAULT_SECONDS,
    seed: int = 0,
    exhibition: str | None = None,
    progress: Told | None = None,
) -> list[dict[str, Any]]:
    """Pieces for these pictures, one after another, by the running worker.

    Args:
        progress: told again and again how far the present one is.

    Returns:
        For each picture its piece's record as JSON values; or, where it failed, `artwork` and `reason`.

    Raises:
        Passing: the worker does not answer.
    """
    found = []
    for artwork in artworks:
        try:
            record = await compose_one(
                settings, artwork, seconds=seconds, seed=seed, exhibition=exhibition, progress=progress
            )
        except Refused as reason:
            record = {"artwork": artwork, "reason": str(reason)}
        found.append(record)
    return found


def bars(console: Any) -> Progress:
    """Progress in seconds of music."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextlib.contextmanager
def shown(console: Any, names: Mapping[str, str] | None = None) -> Any:
    """A `progress` that draws a bar for each picture.

    Args:
        names: picture -> what to call it; its id otherwise.
    """
    tasks: dict[str, Any] = {}
    notes = {"keeping": "listening to it, keeping it", "waiting": "waits for its turn"}
    with bars(console) as drawn:

        def tell(artwork: str, made: float, asked: float, state: str) -> None:
            if artwork not in tasks:
                called = (names or {}).get(artwork, artwork[:20])
                tasks[artwork] = drawn.add_task(called, total=asked or DEFAULT_SECONDS, note="")
            drawn.update(tasks[artwork], total=asked or None, completed=made, note=notes.get(state, ""))

        yield tell
        for task in tasks.values():
            total = drawn.tasks[task].total
            drawn.update(task, completed=total, note="", refresh=True)


# -- commands ----------------------------------------------------------------------------------------------


def _house() -> Any:
    """The command line's own console and manners; it registers these commands, so it is imported when they run."""
    from promenade import cli

    return cli


def wishes_of(texts: Sequence[str]) -> dict[str, str | float]:
    """`tempo=96`, `key=D minor` as wishes.

    Raises:
        Refused: one has no equals sign.
    """
    found: dict[str, str | float] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip() or not value.strip():
            raise Refused(f"--wish reads like tempo=96 or 'key=D minor', not {text[:60]!r}.")
        value = value.strip()
        found[name.strip()] = float(value) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value) else value
    return found


def compose(
    item: Annotated[str, typer.Argument(help="A picture's id, or enough of its beginning.")],
    seconds: Annotated[
        float, typer.Option(help="How long it lasts.", min=SHORTEST_PIECE, max=LONGEST_PIECE)
    ] = DEFAULT_SECONDS,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another piece.")] = 0,
    wish: Annotated[
        list[str] | None, typer.Option(help="instruments=strings, 'key=D minor', tempo=96; as often as you wish.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the piece there, too: .wav or .ogg.")] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Only ask; it is composed when nobody waits for another.")
    ] = False,
    composer: Annotated[
        str | None,
        typer.Option(help="One of the profile's composers (the first, unless named), or all of them side by side."),
    ] = None,
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Compose music for a picture (the stack must be up). The same question is the same piece."""
    house = _house()
    if out is not None and (background or out.suffix not in (".wav", ".ogg")):
        house.say("--out ends with .wav or .ogg, and does not go with --background")
        raise typer.Exit(2)

    every = composer == EVERY_COMPOSER

    async def work() -> list[dict[str, Any]]:
        settings = running_settings(data)
        wishes = wishes_of(wish or ())
        made: list[dict[str, Any]] = []
        async with reading(data, house.say) as (_, records):
            artwork = await house.whole_id(records, item)
            for who in await composers_of(settings) if every else [composer]:
                try:
                    with shown(house.errors, {artwork: who} if who is not None else None) as tell:
                        found = await compose_one(
                            settings,
                            artwork,
                            seconds=seconds,
                            seed=seed,
                            wishes=wishes,
                            composer=who,
                            background=background,
                            progress=tell,
                        )
                except Refused as reason:
                    if not every:
                        raise
                    # One composer that cannot is no reason not to hear the others.
                    made.append({"composer": who, "artwork": artwork, "reason": str(reason)})
                    continue
                made.append(found)
                if out is not None:
                    target = out.with_stem(f"{out.stem}-{who}") if every else out
                    record = await records.piece(artwork, int(found["generation"]), found["piece"])
                    if record is None:
                        raise Refused(f"the piece {found['piece']} is gone.")
                    await _write(records, record, target)
                    if not as_json:
                        house.say(f"written to {target}")
        return made

    made = house.carry_out(work())
    failed = [each for each in made if "reason" in each]
    if as_json:
        house.print_json(made if every else made[0])
    elif background:
        for found in made:
            if "piece" in found:
                state = "is there" if found["state"] == "kept" else "is queued"
                house.console.print(f"piece {found['piece']} {state}")
    elif every:
        records = [MusicRecord.model_validate(_record(each)) for each in made if "reason" not in each]
        if records:
            house.console.print(side_by_side(records))
    else:
        show_piece(house.console, MusicRecord.model_validate(_record(made[0])))
    for each in failed:
        house.say(f"{each['composer']}: {each['reason']}")
    if failed:
        raise typer.Exit(1 if len(failed) == len(made) else 3)


def _record(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record out of an answer that says more."""
    return {name: value for name, value in found.items() if name in MusicRecord.model_fields}


async def _write(records: Records, record: MusicRecord, out: Path) -> None:
    name = f"piece{out.suffix}"
    key = piece_key(record.artwork, record.generation, record.piece, name)
    try:
        with out.open("wb") as file:
            place = 0
            while content := await records.objects.get_part(key, place, min(1 << 20, _left(record, name, place))):
                file.write(content)
                place += len(content)
                if place >= record.sizes[out.suffix[1:]]:
                    break
    except NotFound:
        out.unlink(missing_ok=True)
        raise Refused(f"the sound of {record.piece} is gone; compose it again.") from None


def _left(record: MusicRecord, name: str, place: int) -> int:
    return int(record.sizes[name.rpartition(".")[2]]) - place


def play(
    item: Annotated[str, typer.Argument(help="A picture's or a piece's id, or enough of its beginning.")],
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Play a composed piece (of a picture: its newest) on this machine's sound device."""
    house = _house()

    async def work(out: Path) -> MusicRecord:
        async with reading(data, house.say) as (_, records):
            record = await _piece_or_newest(records, item)
            await _write(records, record, out)
            return record

    players = [(path, *words[1:]) for words in _PLAYERS if (path := shutil.which(words[0])) is not None]
    if not players:
        names = ", ".join(words[0] for words in _PLAYERS)
        house.say(
            f"nothing here plays sound (looked for {names}); `promenade compose --out piece.wav` writes a file."
        )
        raise typer.Exit(1)
    with tempfile.TemporaryDirectory(prefix="promenade-play-") as folder:
        file = Path(folder) / "piece.wav"
        record = house.carry_out(work(file))
        house.say(f"{record.title}, {record.seconds:.0f} s")
        reason = ""
        for words in players:
            try:
                done = subprocess.run(  # noqa: S603 - one of the players above
                    [*words, str(file)], check=False, capture_output=True, text=True
                )
            except KeyboardInterrupt:
                raise typer.Exit(130) from None
            if done.returncode == 0:
                if as_json:
                    house.print_json(record)
                return
            reason = (done.stderr.strip().splitlines() or [f"{words[0]} ended with {done.returncode}"])[-1]
    house.say(f"this machine's sound device does not play: {reason[:200]}")
    raise typer.Exit(1)


async def _piece_or_newest(records: Records, beginning: str) -> MusicRecord:
    """A piece by its id, or the newest one of a picture.

    Raises:
        Refused: there is none.
    """
    if re.fullmatch(r"[0-9a-f]{8,20}", beginning):
        with contextlib.suppress(Refused):
            return await find_piece(records, beginning)
    artwork = await _house().whole_id(records, beginning)
    if split_item_id(artwork)[0] is not Kind.ARTWORK:
        raise Refused("music is composed for pictures; this is the id of a track.")
    pieces: list[MusicRecord] = await records.pieces(artwork)
    if not pieces:
        raise Refused(f"nothing was composed for {artwork} yet; `promenade compose {artwork[:16]}` does it.")
    return pieces[0]


async def find_piece(records: Records, beginning: str) -> MusicRecord:
    """The one complete piece whose id begins so.

    Raises:
        Refused: none or several do.
    """
    if not re.fullmatch(r"[0-9a-f]{4,20}", beginning):
        raise Refused(
            f"{beginning[:40]!r} is no piece's id: it has 20 hexadecimal digits; `promenade music list` shows them."
        )
    found = [record for record in await records.all_pieces() if record.piece.startswith(beginning)]
    if len(found) != 1:
        raise Refused(f"{len(found) or 'no'} pieces begin with {beginning}; `promenade music list` shows them.")
    return found[0]


@music_commands.command("list")
def music_list(
    artwork: Annotated[str | None, typer.Option(help="Only of this picture (its id, or its beginning).")] = None,
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Every composed piece, newest first."""
    house = _house()

    async def work() -> list[MusicRecord]:
        async with reading(data, house.say) as (_, records):
            if artwork is None:
                return await records.all_pieces()
            return await records.pieces(await house.whole_id(records, artwork))

    found = house.carry_out(work())
    if as_json:
        house.print_json([record.model_dump(mode="json") for record in found])
        return
    if found:
        house.console.print(pieces_table(found))
    house.console.print(f"{len(found)} pieces" if len(found) != 1 else "1 piece")


@music_commands.command("show")
def music_show(piece: PieceName, data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """One piece: what was asked, what it is like, how it was made."""
    house = _house()

    async def work() -> MusicRecord:
        async with reading(data, house.say) as (_, records):
            return await find_piece(records, piece)

    record = house.carry_out(work())
    if as_json:
        house.print_json(record)
    else:
        show_piece(house.console, record)


@music_commands.command("delete")
def music_delete(piece: PieceName, data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Delete a piece, or cancel it while it is composed (the stack must be up)."""
    house = _house()

    async def work() -> dict[str, Any]:
        settings = running_settings(data)
        identity = piece
        if not re.fullmatch(r"[0-9a-f]{20}", piece):
            async with reading(data, house.say) as (_, records):
                identity = (await find_piece(records, piece)).piece
        async with _worker(settings) as client:
            status, found = await _asked(client, "DELETE", f"/api/music/{identity}")
        if status != 200:
            raise Refused(str(found.get("detail", found)))
        return found

    found = house.carry_out(work())
    if as_json:
        house.print_json(found)
    else:
        house.say(f"{found['state']}: {found['piece']}")


# -- showing -----------------------------------------------------------------------------------------------


def _key_of(record: MusicRecord) -> str:
    tempo = record.report.get("tempo")
    words = [str(record.report[name]) for name in ("key", "mode") if name in record.report]
    return " ".join(words) + (f", {float(tempo):.0f} bpm" if isinstance(tempo, int | float) else "")


def pieces_table(records: Sequence[MusicRecord]) -> Table:
    """Pieces as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("piece", "for", "by", "key", "feels", "made"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "piece")
    for heading in ("seconds", "like the picture", "beats"):
        table.add_column(heading, justify="right")
    for record in records:
        near = next((each for each in record.similarities if (each.to, each.space) == ("picture", "rgb15")), None)
        table.add_row(
            record.piece,
            Text(record.title.removeprefix("Music for ")),
            record.composer,
            _key_of(record),
            record.feelings.words if record.feelings else "",
            f"{record.provenance.made:%Y-%m-%d %H:%M}, {record.asked}",
            f"{record.seconds:.0f}",
            "" if near is None else f"{near.similarity:.3f}",
            "" if near is None or near.percentile is None else f"{near.percentile:.0f} %",
        )
    return table


def side_by_side(records: Sequence[MusicRecord]) -> Table:
    """Pieces of several composers for one picture, one a line: how near each is to the picture and to its track.

    Nearness is ImageBind's, which hears and looks, where that space is served, and is taken in `rgb15` otherwise.
    """
    space = next((record.listening_space for record in records if record.listening_space), "rgb15")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"nearness in {space}, beside chance")
    for heading in ("composer", "piece", "key", "feels"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "piece")
    for heading in ("picture", "beats", "track", "beats", "seconds", "first sound"):
        table.add_column(heading, justify="right")
    for record in records:
        near = {each.to: each for each in record.similarities if each.space == space}
        table.add_row(
            record.composer,
            record.piece,
            _key_of(record),
            record.feelings.words if record.feelings else "",
            *_near(near.get("picture")),
            *_near(near.get("track")),
            f"{record.seconds:.0f}",
            f"{record.first_chunk_seconds:.1f} s",
        )
    return table


def _near(found: MusicSimilarity | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    beside = "" if found.chance is None else f" ({found.chance:.3f})"
    return f"{found.similarity:.3f}{beside}", "" if found.percentile is None else f"{found.percentile:.0f} %"


def show_piece(console: Any, record: MusicRecord) -> None:
    """One piece, whole."""
    console.print(Text(record.title, style="bold"))
    console.print(f"piece {record.piece} by the composer {record.composer}, for {record.artwork}", markup=False)
    said = record.report.get("prompt")
    if said:
        console.print(f"asked for as: {said}", markup=False)
    wishes = "".join(f", {name} {value}" for name, value in record.wishes.items())
    console.print(f"{record.seconds:.1f} s, seed {record.seed}{wishes}; {_key_of(record)}", markup=False)
    names = [str(each.get("name")) for each in record.report.get("instruments", []) if isinstance(each, dict)]
    if names:
        console.print("played by " + ", ".join(names), markup=False)
    if record.feelings is not None:
        va = record.feelings.va
        console.print(f"feels {record.feelings.words} (valence {va[0]:.2f}, arousal {va[1]:.2f})", markup=False)
    for each in record.similarities:
        beside = "" if each.chance is None else f"; chance {each.chance:.3f}, above {each.percentile:.0f} % of pairs"
        console.print(f"like the {each.to} in {each.space}: {each.similarity:.3f}{beside}", markup=False)
    console.print(
        Text(
            f"first sound after {record.first_chunk_seconds:.2f} s, all of it after {record.compose_seconds:.1f} s "
            f"({record.real_time_factor:.2f} of its length); {record.asked}",
            style="dim",
        )
    )
