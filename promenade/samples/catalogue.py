"""What every sample collection looks like on disk: media files in one folder and a `manifest.csv` beside them.

This module holds the shared words (a row, a collection, the error) and writes the manifest. Where the media come
from is left to `debian`, `paintings` and `makers`; reading a manifest into the pipeline is left to ingest.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

Progress = Callable[[str], None]
"""Takes one line in plain words, for a person to read."""

MANIFEST: Final = "manifest.csv"


class SamplesUnavailable(Exception):
    """The sample collection cannot be had; the text says why, in plain words."""


@dataclass(frozen=True)
class Row:
    """One line of the manifest. Every text may be empty (unknown) but `file` and `kind`."""

    file: str
    kind: Literal["artwork", "track"]
    title: str = ""
    artist: str = ""
    year: str = ""
    style: str = ""
    genre: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Collection:
    """A collection that lies ready in a folder.

    `pictures` and `tracks` are counts; `origin` says in one or two sentences where it comes from.
    """

    folder: Path
    manifest: Path
    pictures: int
    tracks: int
    origin: str


COLUMNS: Final = tuple(field.name for field in fields(Row))


def write_manifest(folder: Path, rows: Iterable[Row]) -> Path:
    """Write `manifest.csv` (UTF-8, a header line, one line a file) in one step and return its path."""
    target = folder / MANIFEST
    unfinished = folder / f".{MANIFEST}.{os.getpid()}"
    with unfinished.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, column) for column in COLUMNS] for row in rows)
    unfinished.replace(target)
    return target


def read_manifest(manifest: Path) -> list[Row]:
    """The rows of a manifest that `write_manifest` wrote.

    Raises:
        ValueError: the columns are not those of a sample collection.
    """
    with manifest.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{manifest}: columns {reader.fieldnames}, expected {list(COLUMNS)}; delete it and retry"
            )
        return [Row(**line) for line in reader]  # type: ignore[arg-type]  # the file is our own


def described(folder: Path, manifest: Path, rows: Iterable[Row], origin: str) -> Collection:
    """The collection that these rows make."""
    kinds = [row.kind for row in rows]
    return Collection(folder, manifest, kinds.count("artwork"), kinds.count("track"), origin)
