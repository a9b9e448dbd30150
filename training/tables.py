"""A data set as a folder: one Parquet table of rows, and shards of numbers that were computed once.

    dataset.json           what it is: kind, version, where it was made from, counts, what was skipped and why
    rows.parquet           one row a pair (kind `pairs`) or an item (kind `emotions`)
    sounds/, pictures/     media that were fetched out of the store; rows may also name files elsewhere
    <name>-00000.npy ...   shards: numbers of consecutive rows, made by `training.prepare`
    <name>.json            says what the shards are, and which rows are bad

A row of `pairs` is an artwork with its track: captions, style, similarity, the picture's vector, the sound's file. A
row of `emotions` is a picture, a sound or a text with its valence and arousal. The version is the hash of the rows:
by it a run says what it was trained on, and a resumed run knows that its data are still the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

Array = np.ndarray[Any, Any]
DatasetKind = Literal["pairs", "emotions"]

DESCRIPTION: Final = "dataset.json"
ROWS: Final = "rows.parquet"
MOST_BAD: Final = 0.05
"""The share of bad rows above which a data set is refused: more is no accident but a mistake in the making."""

_TEXT = pa.string()
SCHEMAS: Final[Mapping[str, pa.Schema]] = {
    "pairs": pa.schema(
        [
            ("id", _TEXT),
            ("artwork", _TEXT),
            ("track", _TEXT),
            ("title", _TEXT),
            ("artist", _TEXT),
            ("style", _TEXT),
            ("genre", _TEXT),
            ("track_title", _TEXT),
            ("track_genre", _TEXT),
            ("picture_caption", _TEXT),
            ("sound_caption", _TEXT),
            ("similarity", pa.float32()),
            ("picture", _TEXT),
            ("sound", _TEXT),
            ("vector", pa.list_(pa.float32())),
            ("part", _TEXT),
        ]
    ),
    "emotions": pa.schema(
        [
            ("id", _TEXT),
            ("modality", _TEXT),
            ("group", _TEXT),
            ("source", _TEXT),
            ("file", _TEXT),
            ("start", pa.float32()),
            ("seconds", pa.float32()),
            ("text", _TEXT),
            ("valence", pa.float32()),
            ("arousal", pa.float32()),
            ("part", _TEXT),
        ]
    ),
}
"""Columns by kind. `file`, `picture` and `sound` are paths, relative ones to the data set's folder; `start` and
`seconds` cut a clip out of a sound; `part` is train, validation or test."""


class BadData(ValueError):
    """A data set that cannot be used. The message says what is wrong, where, and what to do."""


@dataclass(slots=True)
class Skipped:
    """What was left out, by reason, with a few names of each so that somebody can look."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Leave out one item for a reason, such as `no such file`."""
        self.counts[reason] += 1
        known = self.names.setdefault(reason, [])
        if len(known) < 5:
            known.append(name)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """For people: `3 skipped: no such file (a.mp3, b.mp3, c.mp3)`, the most frequent reason first."""
        return [
            f"{count} skipped: {reason} ({', '.join(self.names[reason])}{', ...' if count > 5 else ''})"
            for reason, count in self.counts.most_common()
        ]

    def refuse_above(self, share: float, total: int, where: str) -> None:
        """Raise BadData where more than this share of `total` was left out."""
        if len(self) > share * total:
            raise BadData(
                f"{len(self)} of {total} rows of {where} are bad, more than the {share:.0%} that may be: "
                f"{'; '.join(self.lines())}. Mend the data, or allow more with --most-bad."
            )

    def document(self) -> dict[str, Any]:
        """As JSON: reason -> count and a few names."""
        return {reason: {"count": count, "names": self.names[reason]} for reason, count in self.counts.items()}


@dataclass(frozen=True, slots=True)
class Description:
    """What `dataset.json` says.

    Attributes:
        kind: `pairs` or `emotions`.
        version: hash of the rows, 16 hexadecimal digits.
        source: where it was made from, for people.
        space: of the pictures' vectors; empty where the rows have none.
        rows: how many.
        parts: part -> how many rows.
        skipped: reason -> count and names.
    """

    kind: DatasetKind
    version: str
    source: str
    space: str
    rows: int
    parts: dict[str, int]
    skipped: dict[str, Any]


def rows_version(table: pa.Table) -> str:
    """Hash of a table's rows, whatever its chunks: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(name.encode())
        column = table.column(name).to_pylist()
        digest.update(json.dumps(column, ensure_ascii=False, separators=(",", ":")).encode())
    return digest.hexdigest()[:16]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that after a crash there is the old one or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_dataset(
    folder: Path,
    kind: DatasetKind,
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str,
    space: str = "",
    skipped: Skipped | None = None,
) -> Description:
    """Write rows and description; shards of earlier rows in the folder are removed where the rows changed.

    Args:
        rows: as `SCHEMAS[kind]` names the columns; what is missing is empty.

    Raises BadData where there are no rows, or an id twice.
    """
    skipped = skipped or Skipped()
    if not rows:
        raise BadData("\n".join([f"no row for a data set of {kind} is left of {source}", *skipped.lines()]))
    twice = [name for name, count in Counter(str(row["id"]) for row in rows).items() if count > 1]
    if twice:
        raise BadData(f"{len(twice)} ids are there twice, as {twice[0]}: each row needs an id of its own")
    schema = SCHEMAS[kind]
    table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
    folder.mkdir(parents=True, exist_ok=True)
    version = rows_version(table)
    if (folder / DESCRIPTION).is_file() and read_description(folder).version != version:
        for shard in (*folder.glob("*-[0-9]*.npy"), *folder.glob("*.shards.json")):
            shard.unlink()
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    write_atomically(folder / ROWS, buffer.getvalue().to_pybytes())
    parts = Counter(str(row.get("part") or "") for row in rows)
    description = Description(kind, version, source, space, len(rows), dict(parts), skipped.document())
    write_atomically(folder / DESCRIPTION, json.dumps(asdict(description), indent=2, ensure_ascii=False).encode())
    return description


def read_description(folder: Path) -> Description:
    """What a data set says of itself.

    Raises BadData where the folder holds none.
    """
    try:
        return Description(**json.loads((folder / DESCRIPTION).read_text()))
    except FileNotFoundError:
        raise BadData(f"{folder} is no data set: it has no {DESCRIPTION}. `promenade train data` makes one") from None
    except (ValueError, TypeError) as error:
        raise BadData(f"{folder / DESCRIPTION} cannot be read: {error}. Make the data set again") from error


class Dataset:
    """A data set that was written.

    Raises BadData where the folder holds none, or one of another kind.
    """

    def __init__(self, folder: Path, kind: DatasetKind) -> None:
        self.folder = folder
        self.description = read_description(folder)
        if self.description.kind != kind:
            raise BadData(f"{folder} is a data set of {self.description.kind}, and one of {kind} is needed")
        self.table = parquet.read_table(folder / ROWS)
        if rows_version(self.table) != self.description.version:
            raise BadData(f"{folder / ROWS} is not the table that {DESCRIPTION} speaks of: make the data set again")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """A column's values, row by row."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def path(self, name: str) -> Path:
        """Where a file that a row names lies."""
        return self.folder / name

    def vectors(self) -> tuple[Array, Skipped]:
        """The rows' vectors [rows, D] float32, and the rows whose vector is missing, of another size or not finite.

        Bad rows are zero here. D is the size that most rows have.
        """
        skipped = Skipped()
        given = self.column("vector")
        sizes = Counter(len(vector) for vector in given if vector)
        if not sizes:
            raise BadData(f"no row of {self.folder} has a vector: make the data set with --space, or prepare it")
        size = sizes.most_common(1)[0][0]
        vectors = np.zeros((len(given), size), np.float32)
        for row, (name, vector) in enumerate(zip(self.column("id"), given, strict=True)):
            if not vector:
                skipped.add("no vector", name)
            elif len(vector) != size:
                skipped.add(f"a vector of another size than {size}", name)
            elif not np.isfinite(vector).all():
                skipped.add("a vector with numbers that are not finite", name)
            else:
                vectors[row] = vector
        return vectors, skipped


@dataclass(slots=True)
class Shards:
    """Numbers of a data set's rows, in files of `rows_a_shard` rows: computed once, read by mapping.

    Attributes:
        folder: of the data set.
        name: such as `latents`.
        shape: of one row's numbers.
        settings: by which they were made; others ask for other numbers.
        dtype: how they are stored.
        rows: of the data set.
        version: of the data set.
    """

    folder: Path
    name: str
    shape: tuple[int, ...]
    settings: dict[str, Any]
    rows: int
    version: str
    dtype: str = "float16"
    rows_a_shard: int = 1024

    @property
    def description(self) -> Path:
        """The file that says what the shards are."""
        return self.folder / f"{self.name}.shards.json"

    def path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"{self.name}-{number:05d}.npy"

    @property
    def count(self) -> int:
        """How many shards the rows fill."""
        return -(-self.rows // self.rows_a_shard)

    @property
    def byte_count(self) -> int:
        """Of all shards together."""
        return self.rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def rows_of(self, number: int) -> range:
        """Which rows a shard holds."""
        return range(number * self.rows_a_shard, min(self.rows, (number + 1) * self.rows_a_shard))

    def _document(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "settings": self.settings,
            "dtype": self.dtype,
            "rows_a_shard": self.rows_a_shard,
            "rows": self.rows,
            "version": self.version,
        }

    def begin(self) -> list[int]:
        """Note what is made, forget shards that were made otherwise; the numbers of those still to be made."""
        document = self._document()
        if not self.description.is_file() or json.loads(self.description.read_text()) != document:
            for shard in self.folder.glob(f"{self.name}-[0-9]*.npy"):
                shard.unlink()
            write_atomically(self.description, json.dumps(document, indent=2).encode())
        return [number for number in range(self.count) if not self.path(number).is_file()]

    def write(self, number: int, values: Array) -> None:
        """Write a shard whole. Bad rows are NaN in it.

        Raises ValueError for another shape.
        """
        expected = (len(self.rows_of(number)), *self.shape)
        if values.shape != expected:
            raise ValueError(f"shard {number} of {self.name} is {expected}, not {values.shape}")
        beside = self.path(number).with_suffix(f".{os.getpid()}.part")
        with beside.open("wb") as file:
            np.save(file, values.astype(self.dtype))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path(number))

    @classmethod
    def opened(cls, dataset: Dataset, name: str) -> Shards:
        """The complete shards of this name.

        Raises BadData where they are missing, incomplete, or of other rows.
        """
        path = dataset.folder / f"{name}.shards.json"
        if not path.is_file():
            raise BadData(f"{dataset.folder} has no {name} yet: `promenade train prepare` computes them once")
        found = json.loads(path.read_text())
        shape = tuple(found.pop("shape"))
        shards = cls(dataset.folder, name, shape, **found)
        if shards.version != dataset.description.version:
            raise BadData(f"the {name} in {dataset.folder} are of other rows: `promenade train prepare` again")
        missing = [number for number in range(shards.count) if not shards.path(number).is_file()]
        if missing:
            raise BadData(
                f"{len(missing)} of {shards.count} shards of {name} in {dataset.folder} are not made yet: "
                "`promenade train prepare` goes on"
            )
        return shards

    def mapped(self) -> list[Array]:
        """All shards, mapped into memory.

        Raises BadData for a shard of another shape.
        """
        maps = []
        for number in range(self.count):
            values = np.load(self.path(number), mmap_mode="r")
            if values.shape != (len(self.rows_of(number)), *self.shape):
                raise BadData(f"{self.path(number)} is {values.shape}: remove it and prepare again")
            maps.append(values)
        return maps

    def bad_rows(self) -> Array:
        """[rows] True where a row's numbers are not all finite. Reads everything once."""
        return np.concatenate([~np.isfinite(values).reshape(len(values), -1).all(1) for values in self.mapped()])


class ShardReader:
    """Reads rows of shards in any order; a batch that lies in memory, or comes from the disk as it is touched."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self._maps = shards.mapped()

    def rows(self, indices: Iterable[int]) -> Array:
        """[B, *shape], as stored."""
        return np.stack(
            [self._maps[row // self.shards.rows_a_shard][row % self.shards.rows_a_shard] for row in indices]
        )


def batches(total: int, size: int) -> Iterator[range]:
    """Ranges of at most `size` over 0..total."""
    for start in range(0, total, size):
        yield range(start, min(total, start + size))
