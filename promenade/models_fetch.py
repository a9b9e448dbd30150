"""Fetches the weights of a profile: `promenade models fetch`.

From the hub at pinned revisions, from web addresses, or from a folder where there is no network. What is interrupted
goes on where it stopped; every file is compared with its checksum (the list's own, or what the hub says of the pinned
revision) before a folder counts as complete. Non-commercial licences are asked about once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import filelock
import httpx
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from promenade.settings import CLONE
from promenade.weights import (
    MARKER,
    UNFINISHED,
    Agreements,
    Entry,
    Fetched,
    FetchedFile,
    State,
    Tell,
    WeightsList,
    chosen_files,
    damaged,
    hashed,
    missing_shards,
    note_of,
    read_list,
    state_of,
    write_whole,
)
from schemas.failures import Refused

EXTRA: Final = "pip install 'promenade[weights]'"
_TRIES: Final = 4
"""Attempts in a row that brought nothing, after which a download is given up; one that brings bytes counts anew."""
_PAUSE: Final = 1.0
"""Seconds between attempts."""
_SILENCE: Final = 30.0
"""Seconds after which a server that says nothing is given up."""
_SPARE: Final = 512 * 2**20
"""Bytes of the disk that are left free."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as its source holds it; checksums where the source tells them."""

    path: str
    size: int | None = None
    sha256: str = ""
    git: str = ""
    """SHA-1 of the file as git keeps it."""


class Source(Protocol):
    """Where weights come from."""

    def holds(self, entry: Entry) -> dict[str, Remote]:
        """Every file of the entry's pinned revision.

        Raises:
            Refused: it has no such thing, or does not answer.
        """
        ...

    def bring(self, entry: Entry, file: Remote, folder: Path, tell: Tell) -> None:
        """Put one file into the folder, going on where an earlier try stopped.

        Raises:
            Refused: it cannot be had.
        """
        ...

    def label(self, entry: Entry) -> str:
        """Where it came from, for the note."""
        ...


# -- sources ---------------------------------------------------------------------------------------------------


def _is_of_the_network(error: BaseException) -> bool:
    """Trouble on the way, whichever HTTP package the hub's client uses."""
    return isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError)) or (
        type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    )


def persistently(work: Callable[[], None], held: Callable[[], int]) -> None:
    """Do the work again while the network fails it, as long as some of the tries bring bytes.

    Args:
        held: how many bytes are there by now.
    """
    failed = 0
    while True:
        before = held()
        try:
            work()
            return
        except httpx.TransportError:
            failed = 1 if held() > before else failed + 1
            if failed >= _TRIES:
                raise
            time.sleep(_PAUSE)


def bring_from(
    address: str, headers: Mapping[str, str], entry: Entry, file: Remote, folder: Path, tell: Tell
) -> None:
    """Put a file from a web address into the folder. What came so far lies in `<file>.part`, and is gone on with.

    Raises:
        Refused: it cannot be had.
    """
    part = folder / f"{file.path}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    told = 0

    def heard(count: int) -> None:
        nonlocal told
        told += count
        tell(count)

    def held() -> int:
        return part.stat().st_size if part.exists() else 0

    def work() -> None:
        begun = held()
        heard(begun - told)
        if file.size is None or begun != file.size:
            _download(address, headers, part, begun, heard)

    try:
        persistently(work, held)
    except httpx.HTTPStatusError as error:
        raise Refused(
            f"{address} answered {error.response.status_code}: {entry.name} cannot be had from there; bring it in a "
            "folder and name that with --from."
        ) from None
    except httpx.TransportError as error:
        raise _away(address, error) from None
    part.replace(folder / file.path)


def _download(address: str, headers: Mapping[str, str], part: Path, begun: int, heard: Tell) -> None:
    asked = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={begun}-"} if begun else {})}
    # A redirection to another host does not take the credentials along.
    with httpx.stream("GET", address, headers=asked, follow_redirects=True, timeout=_SILENCE) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and begun:
            # Everything is there already, or more than everything: the checksum tells.
            return
        answer.raise_for_status()
        goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if begun and not goes_on:
            heard(-begun)
        with part.open("ab" if goes_on else "wb") as file:
            # Block by block as they come: what is gathered for larger ones would be lost with the connection.
            for block in answer.iter_bytes():
                file.write(block)
                heard(len(block))


class Hub:
    """The hub, through its own client.

    Args:
        endpoint: its web address; None: as HF_ENDPOINT says, or the public one.

    Raises:
        Refused: the client is not installed.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            import huggingface_hub
            import huggingface_hub.errors
            import huggingface_hub.utils
        except ImportError:
            raise Refused(
                f"fetching from the hub needs the package huggingface-hub: {EXTRA} (or name a folder with --from)."
            ) from None
        self._hub: Any = huggingface_hub
        self._endpoint = endpoint or os.environ.get("HF_ENDPOINT") or None

    def holds(self, entry: Entry) -> dict[str, Remote]:
        """See `Source`."""
        with self._errors(entry):
            interface = self._hub.HfApi(endpoint=self._endpoint)
            told = interface.model_info(entry.repository, revision=entry.revision, files_metadata=True, timeout=30)
        if told.sha != entry.revision:
            raise Refused(
                f"the hub answers for {entry.repository} with the revision {told.sha}, not {entry.revision}."
            )
        return {
            each.rfilename: Remote(
                each.rfilename,
                each.size,
                each.lfs.sha256 if each.lfs else "",
                "" if each.lfs else each.blob_id or "",
            )
            for each in told.siblings or ()
        }

    def bring(self, entry: Entry, file: Remote, folder: Path, tell: Tell) -> None:
        """See `Source`. Its client knows where a file is and who may have it; the bytes are fetched as any others,
        because not every version of the client goes on with a file that an earlier command began."""
        address = self._hub.hf_hub_url(entry.repository, file.path, revision=entry.revision, endpoint=self._endpoint)
        bring_from(address, self._hub.utils.build_hf_headers(), entry, file, folder, tell)

    def label(self, entry: Entry) -> str:
        """See `Source`."""
        return str(entry.repository)

    @contextlib.contextmanager
    def _errors(self, entry: Entry) -> Iterator[None]:
        errors = self._hub.errors
        where = self._endpoint or "the hub"
        try:
            yield
        except errors.GatedRepoError:
            raise Refused(
                f"{entry.repository} is given only to those who accepted its terms: accept them on its page, then "
                "set HF_TOKEN to a token of that account."
            ) from None
        except errors.RepositoryNotFoundError:
            raise Refused(f"{where} has no repository {entry.repository}, or keeps it private.") from None
        except errors.RevisionNotFoundError:
            raise Refused(f"{entry.repository} has no revision {entry.revision} any more.") from None
        except errors.OfflineModeIsEnabled:
            raise Refused("HF_HUB_OFFLINE forbids the network: unset it, or name a folder with --from.") from None
        except errors.LocalEntryNotFoundError as error:
            raise _away(where, error.__cause__ or error) from None
        except errors.HfHubHTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", "an error")
            raise Refused(f"{where} answered {status} for {entry.repository}; try again later.") from None
        except Exception as error:
            if not _is_of_the_network(error):
                raise
            raise _away(where, error) from None


def _away(where: str, error: BaseException) -> Refused:
    return Refused(
        f"{where} does not answer ({type(error).__name__}): look at the network and run the command again, it goes "
        "on where it stopped; or bring the files in a folder and name it with --from."
    )


class Addresses:
    """Files at web addresses."""

    def holds(self, entry: Entry) -> dict[str, Remote]:
        """See `Source`; nothing is asked before the file is wanted."""
        return {name: Remote(name, None, entry.sha256[name]) for name in entry.files}

    def bring(self, entry: Entry, file: Remote, folder: Path, tell: Tell) -> None:
        """See `Source`."""
        bring_from(str(entry.address), {}, entry, file, folder, tell)

    def label(self, entry: Entry) -> str:
        """See `Source`."""
        return str(entry.address)


class Folder:
    """A folder that somebody brought: another weights folder, a cache of the hub's client, or plain files.

    For `Org/Name` at a revision it looks in `Org--Name/<revision>`, `models--Org--Name/snapshots/<revision>` (there
    and below `hub`), `Org--Name`, `Org/Name`, `Name` and the entry's own name.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _found(self, entry: Entry) -> Path:
        places = [entry.place.as_posix()]
        if entry.repository is not None:
            organisation, name = entry.repository.split("/")
            snapshot = f"models--{organisation}--{name}/snapshots/{entry.revision}"
            places += [snapshot, f"hub/{snapshot}", f"{organisation}--{name}", entry.repository, name]
        places += [entry.name]
        if entry.repository is None:
            places += ["."]
        for place in places:
            folder = self._root / place
            try:
                names = chosen_files(entry, _files_of(folder))
            except Refused:
                continue
            if not missing_shards(folder, names):
                return folder
        raise Refused(
            f"{self._root} holds no complete {entry.name} ({', '.join(entry.files)}); looked in {', '.join(places)}."
        )

    def holds(self, entry: Entry) -> dict[str, Remote]:
        """See `Source`. Checksums are those of a note beside the files, or of the names in a hub client's cache."""
        folder = self._found(entry)
        note = _note_text(folder)
        found: dict[str, Remote] = {}
        for name in _files_of(folder):
            path = folder / name
            kept = path.resolve().name if path.is_symlink() else ""
            found[name] = Remote(
                name,
                path.stat().st_size,
                note.get(name, "") or (kept if len(kept) == 64 else ""),
                kept if len(kept) == 40 else "",
            )
        return found

    def bring(self, entry: Entry, file: Remote, folder: Path, tell: Tell) -> None:
        """See `Source`."""
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with (self._found(entry) / file.path).open("rb") as read, part.open("wb") as written:
            while block := read.read(1 << 22):
                written.write(block)
                tell(len(block))
        part.replace(target)

    def label(self, entry: Entry) -> str:
        """See `Source`."""
        return f"{entry.repository or entry.address or entry.page} (brought in a folder)"


def _files_of(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if not any(step.startswith(".") for step in name.split("/")))


def _note_text(folder: Path) -> Mapping[str, str]:
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        return {str(name): str(file["sha256"]) for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


# -- one entry -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Plan:
    """What is to be done for one entry."""

    entry: Entry
    source: Source
    files: list[Remote]
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all its files, as the source says, else nearly."""
        sizes = [file.size for file in self.files]
        return sum(size or 0 for size in sizes) if all(size is not None for size in sizes) else self.entry.size

    def wanted(self) -> int:
        """Bytes that are not there yet, nearly: what an interrupted try left is not counted."""
        here = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return max(0, self.size - here)


def plan_of(entry: Entry, source: Source, root: Path) -> Plan:
    """Look what the source holds.

    Raises:
        Refused: it does not hold what the entry needs, or other bytes under its pinned revision.
    """
    held = source.holds(entry)
    files = [held[name] for name in chosen_files(entry, held)]
    for file in files:
        pinned = entry.sha256.get(file.path)
        if pinned and file.sha256 and file.sha256 != pinned:
            raise Refused(
                f"{entry.name}: {file.path} has the checksum {file.sha256} at its source, and the list of weights "
                f"pins {pinned}: it is another file; nothing of it was fetched."
            )
    return Plan(entry, source, files, entry.folder(root))


def carry_out(plan: Plan, tell: Tell, step: Say) -> Fetched:
    """Fetch what is missing, compare everything with its checksum, and note that the folder is complete.

    Raises:
        Refused: a file cannot be had, or its bytes are not what they should be. What was good stays for the next try.
    """
    entry, folder = plan.entry, plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    good = _unfinished(folder)
    for file in plan.files:
        path = folder / file.path
        known = good.get(file.path)
        if known is not None and path.is_file() and _stamp(path) == known[1]:
            tell(known[0].size)
            continue
        step(f"{entry.name}: {file.path}")
        if not (path.is_file() and (file.size is None or path.stat().st_size == file.size)):
            plan.source.bring(entry, file, folder, tell)
        else:
            # It came whole, and then something ended before it was looked at.
            tell(path.stat().st_size)
        good[file.path] = (_compared(entry, file, path), _stamp(path))
        kept = {name: [each.model_dump(), stamp] for name, (each, stamp) in good.items()}
        write_whole(folder / UNFINISHED, json.dumps(kept))
    missing = missing_shards(folder, [file.path for file in plan.files])
    if missing:
        raise Refused(f"{entry.name} {entry.revision} lacks {', '.join(missing)}, of which its index speaks.")
    note = Fetched(
        name=entry.name,
        source=plan.source.label(entry),
        revision=entry.revision,
        licence=entry.licence,
        files={file.path: good[file.path][0] for file in plan.files},
    )
    write_whole(folder / MARKER, note.model_dump_json(indent=1) + "\n")
    (folder / UNFINISHED).unlink(missing_ok=True)
    return note


def _stamp(path: Path) -> list[int]:
    held = path.stat()
    return [held.st_size, held.st_mtime_ns]


def _unfinished(folder: Path) -> dict[str, tuple[FetchedFile, list[int]]]:
    """Files that an earlier try compared already, with the stamps they had then."""
    try:
        kept = json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))
        return {name: (FetchedFile.model_validate(each), list(stamp)) for name, (each, stamp) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _compared(entry: Entry, file: Remote, path: Path) -> FetchedFile:
    """The file, compared with its checksum; one that differs is removed."""
    sha256, git = hashed(path)
    pinned = entry.sha256.get(file.path, "")
    expected = pinned or file.sha256 or file.git
    found = sha256 if len(expected) == len(sha256) else git
    if expected and expected != found:
        path.unlink()
        raise Refused(
            f"{entry.name}: {file.path} came with the checksum {found}, and should have {expected}: it was damaged "
            "on the way, or replaced. It was removed; run the command again."
        )
    return FetchedFile(
        size=path.stat().st_size,
        sha256=sha256,
        checked="list" if pinned else "source" if expected else "nothing",
    )


# -- the command -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """What came of one entry."""

    entry: Entry
    state: State
    problem: str = ""
    unchecked: list[str] = field(default_factory=list)
    """Files whose checksum could be compared with nothing."""


def by_hand(entry: Entry) -> str:
    """What a person must do for an entry that no program can fetch."""
    return (
        f"{entry.name} can only be got by hand: download {entry.files[0]} from {entry.page}, put it into a folder, "
        f"and run: promenade models fetch {entry.name} --from THAT-FOLDER"
    )


def agree(
    entries: Sequence[Entry], agreements: Agreements, yes: bool, ask: Callable[[str], bool] | None, say: Say
) -> None:
    """Ask once about non-commercial licences, and remember the answer.

    Args:
        yes: the person said so on the command line.
        ask: puts a question to the person; None: nobody is there.

    Raises:
        Refused: the person does not agree, or nobody is there to ask.
    """
    missing = agreements.missing(entries)
    if not missing:
        return
    say("These weights may not be used commercially:")
    for entry in missing:
        say(f"  {entry.name}: {entry.licence} ({entry.repository or entry.address or entry.page})")
    if not yes:
        if ask is None:
            raise Refused("nobody is there to agree to these licences: read them, then run the command with --yes.")
        if not ask("Do you agree to use them under these licences, and not commercially?"):
            names = ", ".join(each.name for each in entries if not each.non_commercial) or "none"
            raise Refused(f"nothing was fetched. Weights without such a licence can be named one by one: {names}.")
    agreements.remember(missing)


def fetch(
    entries: Sequence[Entry],
    root: Path,
    source_of: Callable[[Entry], Source],
    progress: Progress,
    say: Say,
    *,
    check: bool = False,
) -> list[Outcome]:
    """Fetch these entries one after the other; one that cannot be had does not stop the others.

    Args:
        check: read what is there again and fetch damaged files anew.
    """
    outcomes: dict[str, Outcome] = {}
    plans: list[Plan] = []
    for entry in entries:
        outcomes[entry.name] = Outcome(entry, state_of(entry, root))
        try:
            if _there(entry, root, check, say):
                outcomes[entry.name].state = "there"
                continue
            plans.append(plan_of(entry, source_of(entry), root))
        except Refused as problem:
            outcomes[entry.name].problem = str(problem)
    wanted, free = sum(plan.wanted() for plan in plans), shutil.disk_usage(_existing(root)).free
    if plans and wanted + _SPARE > free:
        raise Refused(
            f"{wanted / 1e9:.1f} GB are still to be fetched into {root}, and {free / 1e9:.1f} GB are free there: "
            "make room, or name another folder with --weights."
        )
    with progress:
        for plan in plans:
            entry, outcome = plan.entry, outcomes[plan.entry.name]
            task = progress.add_task(entry.name, total=plan.size)

            def tell(count: int, task: Any = task) -> None:
                progress.advance(task, count)

            def step(text: str, task: Any = task) -> None:
                progress.update(task, description=text)
                if progress.disable:
                    # No terminal: no bars, so a line for each file.
                    say(f"  {text}")

            say(f"{entry.name}: {plan.size / 1e9:.2f} GB, {entry.licence}")
            try:
                note = carry_out(plan, tell, step)
                outcome.unchecked = [name for name, file in note.files.items() if file.checked == "nothing"]
                progress.update(task, description=entry.name, completed=plan.size)
            except Refused as problem:
                outcome.problem = str(problem)
            except OSError as error:
                outcome.problem = f"{error.filename or plan.folder}: {error.strerror or error}"
            outcome.state = state_of(entry, root)
    return list(outcomes.values())


def _there(entry: Entry, root: Path, check: bool, say: Say) -> bool:
    folder = entry.folder(root)
    note = note_of(folder)
    if note is None or not check:
        return note is not None
    bad = damaged(folder, note)
    if not bad:
        return True
    say(f"{entry.name}: damaged, and fetched again: {', '.join(bad)}")
    (folder / MARKER).unlink()
    for name in bad:
        (folder / name).unlink()
    return False


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def table_of(weights: WeightsList, entries: Sequence[Entry], root: Path) -> Table:
    """What there is, what it costs and under which terms."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("weights", "for", "licence", "non-commercial"):
        table.add_column(heading, overflow="fold")
    table.add_column("GB", justify="right")
    table.add_column("here", overflow="fold")
    words: dict[State, str] = {"there": "yes", "begun": "in part", "missing": "no"}
    for entry in weights.weights:
        wanted = "" if entry in entries else f"; not fetched: wanted {entry.optional}" if entry.optional else ""
        table.add_row(
            entry.name,
            ", ".join(entry.needed_by),
            entry.licence,
            "yes" if entry.non_commercial else "",
            f"{entry.size / 1e9:.2f}",
            words[state_of(entry, root)] + wanted,
        )
    return table


def report_of(outcomes: Sequence[Outcome], weights: WeightsList, root: Path) -> dict[str, Any]:
    """What came of it, for programs."""
    return {
        "profile": weights.profile,
        "weights": str(root),
        "entries": [
            {
                "name": each.entry.name,
                "source": each.entry.repository or each.entry.address or each.entry.page,
                "revision": each.entry.revision,
                "licence": each.entry.licence,
                "non_commercial": each.entry.non_commercial,
                "size": each.entry.size,
                "needed_by": list(each.entry.needed_by),
                "optional": each.entry.optional,
                "folder": str(each.entry.folder(root)),
                "state": each.state,
                "problem": each.problem,
                "unchecked": each.unchecked,
            }
            for each in outcomes
        ],
    }


def source_for(entry: Entry, brought: Path | None) -> Source:
    """Where an entry comes from.

    Raises:
        Refused: no program can fetch it, or the hub's client is missing.
    """
    if brought is not None:
        return Folder(brought)
    if entry.repository is not None:
        return Hub()
    if entry.address is not None:
        return Addresses()
    raise Refused(by_hand(entry))


def models_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which weights, as --list names them; none: those always needed.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Whose weights.")] = "full",
    weights: Annotated[
        Path, typer.Option("--weights", envvar="PROMENADE_WEIGHTS", help="The folder that they go into.")
    ] = CLONE / "weights",
    brought: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take them from this folder, without a network: another weights folder, a cache of the hub's "
            "client, or plain files.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the non-commercial licences.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Only show sizes, licences and what is here.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read what is here again, and fetch anew what is damaged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Fetch the weights of a profile's models. Running it again goes on where it stopped."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        errors.print(text, markup=False)

    try:
        outcomes, known = _carried_out(
            names or [], profile, weights, brought, say, errors, yes=yes, listing=listing, check=check
        )
    except Refused as problem:
        say(str(problem))
        raise typer.Exit(1) from None
    except OSError as error:
        say(f"{error.filename or weights}: {error.strerror or error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("stopped; the same command goes on from there")
        raise typer.Exit(130) from None
    if as_json:
        sys.stdout.write(json.dumps(report_of(outcomes, known, weights), indent=2, ensure_ascii=False) + "\n")
    elif listing:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        console.print(table_of(known, known.chosen(names or []), weights))
    if listing:
        return
    for each in outcomes:
        if each.unchecked:
            say(f"{each.entry.name}: nothing was there to compare these with: {', '.join(each.unchecked)}")
        if each.problem:
            say(each.problem)
    if any(each.problem for each in outcomes):
        raise typer.Exit(1)
    say(f"{len(outcomes)} sets of weights are in {weights}")


def _carried_out(
    names: Sequence[str],
    profile: str,
    root: Path,
    brought: Path | None,
    say: Say,
    errors: Console,
    *,
    yes: bool,
    listing: bool,
    check: bool,
) -> tuple[list[Outcome], WeightsList]:
    if profile == "edge":
        raise Refused("the edge profile's models are built from packages, not fetched: promenade models build.")
    known = read_list(CLONE / "model_repository" / f"{Path(profile).name}_weights.toml")
    entries = known.chosen(names)
    if listing:
        shown = entries if names else known.weights
        return [Outcome(each, state_of(each, root)) for each in shown], known
    total = sum(each.size for each in entries if state_of(each, root) != "there")
    say(f"{len(entries)} sets of weights, about {total / 1e9:.1f} GB to come, into {root}")
    there = sys.stdin is not None and sys.stdin.isatty()
    agree(entries, Agreements(root), yes, (lambda text: typer.confirm(text, err=True)) if there else None, say)
    root.mkdir(parents=True, exist_ok=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )
    lock = filelock.FileLock(root / ".fetch.lock", timeout=0)
    try:
        with lock:
            return fetch(entries, root, lambda entry: source_for(entry, brought), progress, say, check=check), known
    except filelock.Timeout:
        raise Refused(f"another command fetches into {root} at the moment; wait for it.") from None
