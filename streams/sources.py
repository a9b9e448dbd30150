"""Where files come from: folders, single files, manifests with catalogue data, an S3 prefix, a folder that fills up.

Each yields `Source`s for ingest, or a `Report` where a row or a name is refused already; nothing is silently left
out. Paths of a manifest stay inside its folder.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet
from minio import Minio
from minio.error import MinioException
from pydantic import ValidationError
from urllib3.exceptions import HTTPError
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from schemas.failures import Lasting, Refused
from schemas.faults import fault_text
from schemas.records import Catalogue
from streams.ingest import Outcome, Report, Source

MANIFEST_SUFFIXES: Final = (".csv", ".parquet", ".jsonl", ".ndjson")
CATALOGUE_COLUMNS: Final = tuple(Catalogue.model_fields)
MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""A manifest of 64 MiB names several hundred thousand files; more comes in several manifests."""

SETTLED_SECONDS: Final = 1.0
"""A file in a watched folder counts as complete when its size has not changed for so long."""

_IGNORED: Final = frozenset({"thumbs.db", "desktop.ini", "manifest.csv", "manifest.jsonl", "manifest.parquet"})


def is_manifest(path: Path) -> bool:
    """True when the name says that this file lists others."""
    return path.suffix.lower() in MANIFEST_SUFFIXES


def printable(name: str) -> str:
    """A file name that a terminal and a record can hold: undecodable bytes and control characters shown as such."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


def walk(folder: Path, unreadable: list[OSError] | None = None) -> Iterator[Path]:
    """Every file below a folder in order of name; hidden ones and links to folders are left out.

    Args:
        unreadable: takes the errors of folders that cannot be looked into, in the order they are met.
    """
    told = unreadable.append if unreadable is not None else None
    for place, folders, files in os.walk(folder, onerror=told, followlinks=False):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower() not in _IGNORED:
                yield Path(place) / name


async def from_paths(paths: Iterable[Path]) -> AsyncIterator[Source | Report]:
    """Files, folders and manifests, as a person names them.

    A folder that holds a `manifest.csv`, `.jsonl` or `.parquet` of its own is brought in by it.
    """
    for path in paths:
        if _is_folder(path):
            own = next(
                (
                    path / f"manifest{suffix}"
                    for suffix in MANIFEST_SUFFIXES
                    if (path / f"manifest{suffix}").is_file()
                ),
                None,
            )
            if own is not None:
                async for source in from_manifest(own):
                    yield source
                continue
            unreadable: list[OSError] = []
            for file in walk(path, unreadable):
                yield Source(printable(str(file.relative_to(path))), file)
            for error in unreadable:
                yield Report(
                    printable(str(error.filename or path)),
                    Outcome.REFUSED,
                    reason=f"the folder cannot be looked into: {error.strerror}.",
                    advice="Check its rights; nothing below it was brought in.",
                )
        elif is_manifest(path) and os.path.isfile(path):  # noqa: PTH113 - which never raises
            async for source in from_manifest(path):
                yield source
        else:
            yield Source(printable(path.name), path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A name longer than names can be, for example: reading it as a file says so.
        return False


async def from_manifest(path: Path) -> AsyncIterator[Source | Report]:
    """The files that a CSV, Parquet or JSON-lines manifest names, with their catalogue data.

    A column `file` is required; title, artist, year, style, genre and licence are taken where present; other
    columns are passed over. A bad row is a report that names its line; the other rows still come.

    Raises:
        Refused: the manifest itself cannot be read, or has no column `file`.
    """
    root = path.resolve().parent
    seen: dict[Path, int] = {}
    for line, row in await asyncio.to_thread(lambda: list(_rows(path))):
        name = f"{printable(path.name)} line {line}"
        if isinstance(row, str):
            yield Report(name, Outcome.REFUSED, reason=row, advice="Mend the row and ingest again.")
            continue
        try:
            file, catalogue = _row(row, root)
        except Lasting as failure:
            yield Report(name, Outcome.REFUSED, reason=failure.reason, advice=failure.advice)
            continue
        if file in seen:
            yield Report(
                f"{name} ({printable(file.name)})",
                Outcome.REFUSED,
                reason=f"it names the same file as line {seen[file]}.",
                advice="Keep one row for each file; the first one was taken.",
            )
            continue
        seen[file] = line
        yield Source(printable(str(file.relative_to(root))), file, catalogue)


def _row(row: Mapping[str, Any], root: Path) -> tuple[Path, Catalogue]:
    named = str(row.get("file") or "").strip()
    if not named:
        raise Lasting("it names no file.", "Fill in the column file.")
    if "\0" in named or len(named) > 4096:
        raise Lasting("its file name cannot exist.", "Name a file in the manifest's folder.")
    try:
        file = (root / named).resolve()
        inside = file.is_relative_to(root)
    except (OSError, RuntimeError, ValueError):
        raise Lasting("its file name cannot be followed.", "Name a file in the manifest's folder.") from None
    if not inside:
        raise Lasting(
            f"it names {printable(named)[:200]}, which lies outside the manifest's folder.",
            "Put the file beside or below the manifest.",
        )
    fields: dict[str, str] = {}
    for column in CATALOGUE_COLUMNS:
        value = row.get(column)
        text = "" if value is None else " ".join(str(value).split())
        if text:
            fields[column] = text
    try:
        return file, Catalogue.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Lasting(f"its {first['loc'][0]} {fault_text(first)}.", "Shorten or mend it.") from None


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(line, row) of a manifest; a row that cannot be read is a sentence saying why."""
    suffix = path.suffix.lower()
    try:
        if path.stat().st_size > MANIFEST_BYTES:
            raise Refused(f"the manifest {path.name} is larger than {MANIFEST_BYTES // 2**20} MiB; split it.")
        content = path.read_bytes()
    except OSError as error:
        raise Refused(f"the manifest {path.name} cannot be read: {error.strerror}.") from None
    if suffix == ".parquet":
        yield from _parquet_rows(path.name, content)
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Refused(
            f"the manifest {path.name} is not UTF-8 (line {line}); save it as UTF-8 and ingest again."
        ) from None
    yield from (_csv_rows if suffix == ".csv" else _json_rows)(path.name, text)


def _csv_rows(name: str, text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    sample = text.split("\n", 1)[0]
    separator = max((",", ";", "\t"), key=sample.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        head = [column.strip().lower() for column in next(reader, [])]
        _check_columns(name, head)
        while True:
            line = reader.line_num + 1
            values = next(reader, None)
            if values is None:
                return
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(head):
                yield line, f"it has {len(values)} values for {len(head)} columns."
                continue
            yield line, dict(zip(head, values, strict=True))
    except csv.Error as error:
        yield reader.line_num, f"the table breaks off here: {error}."


def _json_rows(name: str, text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    checked = False
    # Not `splitlines`: it would cut titles at characters that JSON allows inside a string, such as U+2028.
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield line, f"it is not JSON: {error}."
            continue
        if not isinstance(row, dict):
            yield line, "it is not a JSON object."
            continue
        row = {str(key).strip().lower(): value for key, value in row.items()}
        if not checked:
            _check_columns(name, list(row))
            checked = True
        yield line, row


def _parquet_rows(name: str, content: bytes) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError, ValueError):
        raise Refused(f"the manifest {name} is not a Parquet file; write it anew.") from None
    table = table.rename_columns([str(column).strip().lower() for column in table.column_names])
    _check_columns(name, table.column_names)
    yield from enumerate(table.to_pylist(), 1)


def _check_columns(name: str, columns: list[str]) -> None:
    if "file" not in columns:
        found = ", ".join(printable(column)[:40] for column in columns[:12]) or "none"
        raise Refused(f"the manifest {name} has no column called file; its columns are: {found}.")


async def from_bucket(client: Minio, bucket: str, prefix: str, limit: int) -> AsyncIterator[Source | Report]:
    """Every object below a prefix of a bucket.

    Args:
        client: another store's or our own, with the reader's credentials.
        limit: bytes of one object.

    Raises:
        Refused: the bucket cannot be listed.
    """

    def listing() -> list[tuple[str, int]]:
        return [
            (each.object_name, each.size or 0)
            for each in client.list_objects(bucket, prefix=prefix, recursive=True)
            if each.object_name is not None and not each.is_dir
        ]

    try:
        found = await asyncio.to_thread(listing)
    except (MinioException, HTTPError, OSError, ValueError) as error:
        raise Refused(f"s3://{bucket}/{prefix} cannot be listed: {error}.") from None
    for key, size in found:
        name = printable(key)
        if size > limit:
            yield Report(
                name,
                Outcome.REFUSED,
                reason=f"the object has {size / 2**20:.0f} MiB, more than {limit / 2**20:.0f}.",
                advice="Bring a smaller version.",
            )
            continue

        async def read(key: str = key) -> bytes:
            return await asyncio.to_thread(_read_object, client, bucket, key, limit)

        yield Source(name, read)


def _read_object(client: Minio, bucket: str, key: str, limit: int) -> bytes:
    try:
        response = client.get_object(bucket, key)
        try:
            content = bytes(response.read(limit + 1))
        finally:
            response.close()
            response.release_conn()
    except (MinioException, HTTPError, OSError) as error:
        raise Lasting(f"the object cannot be read: {error}.", "Check the store and the credentials.") from None
    if len(content) > limit:
        raise Lasting("the object is larger than its listing said.", "Bring a smaller version.")
    return content


class _Changes(FileSystemEventHandler):
    """Hands changed paths to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Path]) -> None:
        self._loop = loop
        self._queue = queue

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.is_directory or event.event_type not in ("created", "modified", "moved", "closed"):
            return
        path = Path(os.fsdecode(event.dest_path if event.event_type == "moved" else event.src_path))
        self._loop.call_soon_threadsafe(self._queue.put_nowait, path)


async def from_watched(folder: Path, stop: asyncio.Event) -> AsyncIterator[Source]:
    """What lies in a folder and what is put there, each once it is complete, until told to stop."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Path] = asyncio.Queue()
    observer = Observer()
    observer.schedule(_Changes(loop, queue), str(folder), recursive=True)
    observer.start()
    waiting: dict[Path, tuple[int, float]] = {}
    taken: dict[Path, tuple[int, int]] = {}
    try:
        for path in walk(folder):
            queue.put_nowait(path)
        while not stop.is_set():
            try:
                path = await asyncio.wait_for(queue.get(), 0.25)
                if not any(step.startswith(".") for step in path.relative_to(folder).parts):
                    waiting.setdefault(path, (-1, time.monotonic()))
            except (TimeoutError, ValueError):
                pass
            for path, (size, since) in list(waiting.items()):
                try:
                    found = path.stat()
                except OSError:
                    del waiting[path]
                    continue
                if found.st_size != size:
                    waiting[path] = (found.st_size, time.monotonic())
                elif time.monotonic() - since >= SETTLED_SECONDS:
                    del waiting[path]
                    mark = (found.st_size, found.st_mtime_ns)
                    if taken.get(path) != mark and path.name.lower() not in _IGNORED:
                        taken[path] = mark
                        yield Source(printable(str(path.relative_to(folder))), path)
    finally:
        observer.stop()
        await asyncio.to_thread(observer.join, 5.0)
