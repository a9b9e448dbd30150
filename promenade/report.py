"""The command `promenade report`: an exhibition as one page to look at and listen to.

It reads whatever is there, with the stack up or down, and writes a file that needs neither. What the page shows and
how is left to `gallery.report`; here is where it goes, and what a person reads meanwhile.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gallery.report import gather, render
from gallery.report.gathering import Audio
from infra.records import DEFAULT_EXHIBITION, Records
from promenade.reach import reading
from schemas.failures import Refused
from schemas.records import now
from workers.media.pool import DecoderPool

DEFAULT_PAGE: Final = Path("report.html")
_OURS: Final = re.compile(r"(track|piece)-[0-9a-f]{8,64}\.(ogg|mp3)")
"""Names of the files that a page puts beside itself; nothing else in that folder is touched."""


class AudioChoice(StrEnum):
    """Where a page's sound is, as an option spells it."""

    EMBED = "embed"
    BESIDE = "beside"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Written:
    """A page that was written."""

    page: Path
    exhibition: str
    pairs: int
    pieces: int
    audio: Audio
    byte_count: int
    files: tuple[Path, ...]
    """Sounds beside it."""

    def for_programs(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "page": str(self.page),
            "exhibition": self.exhibition,
            "pairs": self.pairs,
            "pieces": self.pieces,
            "audio": self.audio,
            "bytes": self.byte_count,
            "files": [str(each) for each in self.files],
        }


def folder_of(page: Path) -> Path:
    """The folder beside a page that holds its sounds: report_files for report.html."""
    return page.with_name(f"{page.stem}_files")


async def write_report(
    records: Records,
    page: Path,
    *,
    exhibition: str = DEFAULT_EXHIBITION,
    audio: Audio | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Write the page of an exhibition; an earlier one in its place is replaced when the new one is complete.

    Args:
        audio: None: embedded where the page stays small enough to open at once, beside it otherwise.
        step: told how many items of how many are done.

    Raises:
        Refused: there is no such exhibition, or the page's place is a folder.
        Passing: the store does not answer.
        OSError: a file cannot be written.
    """
    if page.is_dir():
        raise Refused(f"{page} is a folder; name the file to write, for example --out {page / DEFAULT_PAGE}.")
    folder = folder_of(page)

    def beside(name: str, content: bytes) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return f"{quote(folder.name)}/{quote(name)}"

    async with DecoderPool(workers=2) as pool:
        found = await gather(records, exhibition, pool, audio=audio, beside=beside, step=step)
    page.parent.mkdir(parents=True, exist_ok=True)
    unfinished = page.with_name(f".{page.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            for piece in render(found, now()):
                file.write(piece)
        unfinished.replace(page)
    finally:
        unfinished.unlink(missing_ok=True)
    _tidy(folder, set(found.files))
    return Written(
        page=page,
        exhibition=exhibition,
        pairs=len(found.hanging),
        pieces=found.pieces,
        audio=found.audio,
        byte_count=page.stat().st_size,
        files=tuple(folder / name for name in sorted(set(found.files))),
    )


def _tidy(folder: Path, needed: set[str]) -> None:
    """Remove the sounds of an earlier page that this one does not play: what was taken down must not stay there."""
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name) and file.name not in needed:
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # Only where nothing is left in it.
        folder.rmdir()


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar for the time that a page takes; what it yields is told how many items of how many are done."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task("writing the page", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def sentence(written: Written) -> str:
    """What was written, for a person."""
    size = f"{written.byte_count / 2**20:.1f} MB"
    sound = {
        "embed": "sound and pictures are inside",
        "beside": f"its sound lies beside it in {folder_of(written.page).name}; keep both together",
        "none": "without sound",
    }[written.audio]
    music = "" if not written.pieces else f" and {written.pieces} composed for them"
    pairs = "1 pair" if written.pairs == 1 else f"{written.pairs} pairs"
    return f"{written.page.resolve()}: {pairs}{music}, {size}; {sound}"


def _house() -> ModuleType:
    """The command line's own tools; imported late, because that module imports this one."""
    from promenade import cli

    return cli


def report(
    exhibition: Annotated[str, typer.Option(help="Which exhibition.")] = DEFAULT_EXHIBITION,
    out: Annotated[Path, typer.Option(help="The file to write.")] = DEFAULT_PAGE,
    audio: Annotated[
        AudioChoice | None,
        typer.Option(help="embed: inside the page; beside: in a folder beside it; none. Left out: as its size asks."),
    ] = None,
    data: Annotated[Path, typer.Option("--data", envvar="PROMENADE_DATA", help="The data folder.")] = Path(
        "promenade-data"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Write an exhibition as one page to look at and listen to: pictures, music, feelings, chance."""
    house = _house()

    async def work() -> Written:
        async with reading(data, house.say) as (_, records):
            with progress(house.errors) as step:
                return await write_report(
                    records, out, exhibition=exhibition, audio=None if audio is None else audio.value, step=step
                )

    written: Written = house.carry_out(work())
    if as_json:
        house.print_json(written.for_programs())
    else:
        house.console.print(sentence(written), markup=False, soft_wrap=True)
