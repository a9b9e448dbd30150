"""Plain files of vectors and of pairs: CSV, Parquet, NPY and NPZ in, CSV out.

A row that cannot be used is named with its line and does not stop the others. What the vectors mean (how many
numbers, in what range) a `FileSpace` says; pairing and judging them is left to others.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from schemas.failures import Refused
from schemas.spaces import RGB, RGB15, VA
from workers.pairing.evaluation import is_rgb

Floats = NDArray[np.float64]
Form = Literal["plain", "cmean"]

PLAIN_COLUMNS: Final = ("artwork", "track", "similarity", "percentile")
CMEAN_COLUMNS: Final = ("Posizione", "Similarità Coseno", "Canzone", "Immagine Abbinata")
"""The columns of CMEAN's published list of pairs: position, cosine similarity, song, picture."""

_ID_COLUMNS: Final = (
    "id", "item", "artwork", "track", "picture", "image", "song", "immagine", "immagine abbinata", "canzone",
    "brano", "opera", "file", "filename", "file_name", "nome", "nome file", "name", "title", "titolo",
)  # fmt: skip
_RGB_COLUMNS: Final = (("r", "g", "b"), ("red", "green", "blue"), ("rosso", "verde", "blu"))
_VA_COLUMNS: Final = (("valence", "arousal"), ("v", "a"), ("valenza", "arousal"))
_COUNTING_COLUMNS: Final = ("", "posizione", "position", "index", "unnamed: 0")
"""Columns that number the rows, as pandas writes them: never part of a vector."""
_LOOKED_AT: Final = 200
"""Rows that decide which columns are numbers."""
_MARKS: Final = re.compile(r"[\s,;|()\[\]{}]+")
_LABELLED: Final = re.compile(
    r"\W*R\s*[:=]\s*([-+.\de]+)\W+G\s*[:=]\s*([-+.\de]+)\W+B\s*[:=]\s*([-+.\de]+)\W*", re.IGNORECASE
)
_RGB_WORD: Final = re.compile(r"\brgb\s*(?::|(?=[(\[]))", re.IGNORECASE)
_GROUPS: Final = re.compile(r"\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]")
csv.field_size_limit(16 * 2**20)


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: the file's name, the line (`row` where a file has no lines), and why."""

    file: str
    line: int
    reason: str
    word: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.word} {self.line}: {self.reason}"


@dataclass(frozen=True)
class FileSpace:
    """What vectors in a file must be.

    Attributes:
        name: as the option spells it.
        dimension: numbers of a vector.
        distance: "cosine" or "euclidean", as spaces declare it.
        bounds: lowest and highest value of a number, None where any is right.
        fragment: where the file holds five triples, the one to take (0-3 the fragments, 4 the whole), or None.
    """

    name: str
    dimension: int
    distance: Literal["cosine", "euclidean"]
    bounds: tuple[float, float] | None
    fragment: int | None = None

    @property
    def is_rgb(self) -> bool:
        """True where uniform random RGB is a baseline that means something."""
        return is_rgb(self.name)


def space_named(text: str) -> FileSpace:
    """`rgb`, `rgb-1` to `rgb-4`, `rgb15`, `va`, or `N-D` for N numbers compared by cosine.

    Raises:
        Refused: another name.
    """
    name = text.strip().lower()
    if name == RGB.name:
        return FileSpace(name, RGB.dimension, RGB.distance, (0.0, 255.0), 4)
    if re.fullmatch(r"rgb-[1-4]", name):
        return FileSpace(name, RGB.dimension, RGB.distance, (0.0, 255.0), int(name[-1]) - 1)
    if name == RGB15.name:
        return FileSpace(name, RGB15.dimension, RGB15.distance, (0.0, 255.0))
    if name == VA.name:
        return FileSpace(name, VA.dimension, VA.distance, (0.0, 1.0))
    counted = re.fullmatch(r"([1-9]\d{0,4})-?d", name)
    if counted:
        return FileSpace(f"{counted[1]}-D", int(counted[1]), "cosine", None)
    raise Refused(
        f"{text!r} is no space for vectors from a file; use rgb, rgb-1 to rgb-4, rgb15, va, or N-D for N numbers "
        "compared by cosine, for example 512-D."
    )


@dataclass(frozen=True)
class VectorTable:
    """Vectors out of a file, in the order of its rows.

    Attributes:
        name: the file's name.
        ids: one id a row, each once.
        vectors: [rows, dimension].
        columns: names of the columns that the numbers came from; None where the file names none.
        ignored: names of columns that hold no numbers.
        bad: rows that were left out.
    """

    name: str
    ids: tuple[str, ...]
    vectors: Floats
    columns: tuple[str, ...] | None
    ignored: tuple[str, ...]
    bad: tuple[BadRow, ...]

    def as_mapping(self) -> dict[str, Floats]:
        """Id -> vector [dimension]."""
        return dict(zip(self.ids, self.vectors, strict=True))


@dataclass(frozen=True)
class FilePair:
    """One pair as a file tells it."""

    line: int
    artwork: str
    track: str
    similarity: float


@dataclass(frozen=True)
class PairTable:
    """Pairs out of a file.

    Attributes:
        name: the file's name.
        form: which of the two forms it has.
        pairs: one-to-one, in the order of the rows.
        bad: rows that were left out.
    """

    name: str
    form: Form
    pairs: tuple[FilePair, ...]
    bad: tuple[BadRow, ...]


@dataclass
class _Rows:
    """A table as read: the names of its columns (None: it has none), and its rows with their lines."""

    head: list[str] | None
    rows: list[tuple[int, list[Any]]]
    bad: list[BadRow]
    word: str
    decimal_comma: bool = False


# -- vectors -----------------------------------------------------------------------------------------------


def read_vectors(path: Path, space: FileSpace) -> VectorTable:
    """The vectors of a CSV, TSV, Parquet, NPY or NPZ file.

    A CSV or Parquet file has a column of ids and columns of numbers, or cells that hold several numbers, such as
    `rgb(200, 100, 50)` (CMEAN's spelling; five of them make 15 numbers) or `[0.1, 0.2]`. An NPY file is an array
    [items, numbers], and an item's id is the number of its row, from 0; an NPZ file holds such an array as
    `vectors` and may hold `ids`.

    Raises:
        Refused: the file cannot be read, or no row of it can be used.
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        table = _from_arrays(path, space)
    else:
        table = _from_rows(path.name, _read_rows(path), space)
    if not table.ids:
        first = f" The first of {len(table.bad)}: {table.bad[0]}" if table.bad else ""
        raise Refused(f"{path.name} holds no vector that can be used in the space {space.name}.{first}")
    return table


def _from_rows(name: str, table: _Rows, space: FileSpace) -> VectorTable:
    if not table.rows:
        return VectorTable(name, (), np.zeros((0, space.dimension)), None, (), tuple(table.bad))
    head = table.head
    id_column, chosen = _columns(name, table, space)
    labels = [head[column] if head else f"column {column + 1}" for column in range(len(table.rows[0][1]))]
    widths: Counter[int] = Counter()
    taken: list[tuple[int, str, list[float]]] = []
    bad = list(table.bad)
    for line, cells in table.rows:
        identity = "" if cells[id_column] is None else str(cells[id_column]).strip()
        try:
            vector = _numbers([cells[column] for column in chosen], chosen, labels, table.decimal_comma)
            if not identity:
                raise ValueError(f"{labels[id_column]} is empty, so the vector has no id.")
        except ValueError as error:
            bad.append(BadRow(name, line, str(error), table.word))
            continue
        widths[len(vector)] += 1
        taken.append((line, identity, vector))
    wanted = _width_wanted(widths, space)
    used = tuple(head[column] for column in chosen) if head else None
    other = range(len(head)) if head else ()
    ignored = tuple(
        head[column] for column in other if head and column != id_column and column not in chosen and head[column]
    )
    rows = ((line, identity, np.asarray(vector)) for line, identity, vector in taken)
    return _finished(name, rows, space, wanted, table.word, bad, used, ignored)


def _width_wanted(widths: Mapping[int, int], space: FileSpace) -> int:
    """How many numbers a row must have: as the space says, or five triples where most rows have those."""
    if space.fragment is not None and widths.get(RGB15.dimension, 0) > widths.get(space.dimension, 0):
        return RGB15.dimension
    return space.dimension


def _finished(
    name: str,
    rows: Iterable[tuple[int, str, Floats]],
    space: FileSpace,
    wanted: int,
    word: str,
    bad: list[BadRow],
    columns: tuple[str, ...] | None,
    ignored: tuple[str, ...],
) -> VectorTable:
    """Check every row against the space and take each id once."""
    lines: dict[str, int] = {}
    vectors: list[Floats] = []
    for line, identity, vector in rows:
        reason = _unfit(vector, space, wanted)
        if reason is None and identity in lines:
            reason = f"{_shown(identity)} is there already, in {word} {lines[identity]}; the first one counts."
        if reason is not None:
            bad.append(BadRow(name, line, reason, word))
            continue
        lines[identity] = line
        if len(vector) != space.dimension and space.fragment is not None:
            vector = vector[3 * space.fragment : 3 * space.fragment + 3]
        vectors.append(vector)
    table = np.asarray(vectors) if vectors else np.zeros((0, space.dimension))
    ordered = tuple(sorted(bad, key=lambda each: each.line))
    return VectorTable(name, tuple(lines), table, columns, ignored, ordered)


def _unfit(vector: Floats, space: FileSpace, wanted: int) -> str | None:
    """Why a vector cannot be used in the space; None when it can."""
    if len(vector) != wanted:
        also = " (or five triples)" if space.fragment is not None and wanted == 3 else ""
        plural = "" if len(vector) == 1 else "s"
        return f"it has {len(vector)} number{plural}, and {space.name} wants {wanted}{also}."
    if not np.isfinite(vector).all():
        return "one of its numbers is not finite (NaN or infinite)."
    if space.bounds is not None:
        low, high = space.bounds
        outside = vector[(vector < low) | (vector > high)]
        if len(outside):
            return (
                f"{outside[0]:g} lies outside {low:g} to {high:g}, the range of {space.name}; for other numbers use "
                f"--space {space.dimension}-D."
            )
    return None


def _columns(name: str, table: _Rows, space: FileSpace) -> tuple[int, list[int]]:
    """Which column holds the ids, and which ones the numbers."""
    names = [_plain(each) for each in table.head] if table.head else None
    count = len(table.rows[0][1])
    id_column = 0
    if names is not None:
        known = [names.index(each) for each in _ID_COLUMNS if each in names]
        uncounted = [column for column in range(count) if names[column] not in _COUNTING_COLUMNS]
        id_column = known[0] if known else (uncounted or [0])[0]
        for group in (*_RGB_COLUMNS, *_VA_COLUMNS):
            if len(group) == space.dimension and space.is_rgb == (group in _RGB_COLUMNS) and set(group) <= set(names):
                if names[id_column] in group:
                    raise Refused(f"{name} has no column of ids beside {', '.join(group)}; add one, called id.")
                return id_column, [names.index(each) for each in group]
    single: list[int] = []
    several: list[int] = []
    for column in range(count):
        if column == id_column or (names is not None and names[column] in _COUNTING_COLUMNS):
            continue
        cells = [cells[column] for _, cells in table.rows[:_LOOKED_AT] if cells[column] not in (None, "")]
        numbers = [parsed for cell in cells if (parsed := parse_numbers(cell, table.decimal_comma)) is not None]
        if not cells or len(numbers) * 2 < len(cells):
            continue
        (several if sum(len(each) > 1 for each in numbers) * 2 > len(numbers) else single).append(column)
    chosen = several or single
    if not chosen:
        found = ", ".join(_shown(each) for each in table.head or []) or f"{count} columns without names"
        raise Refused(
            f"{name} has no columns of numbers beside its ids; it has {found}. A row reads an id and numbers, or an "
            "id and cells such as rgb(200, 100, 50)."
        )
    return id_column, chosen


def _numbers(cells: Sequence[Any], columns: Sequence[int], labels: Sequence[str], decimal_comma: bool) -> list[float]:
    """All numbers of a row.

    Raises:
        ValueError: a cell holds none; the text says which.
    """
    try:
        return [float(cell) for cell in cells]
    except (TypeError, ValueError):
        pass
    vector: list[float] = []
    for cell, column in zip(cells, columns, strict=True):
        numbers = parse_numbers(cell, decimal_comma)
        if numbers is None:
            empty = cell is None or (isinstance(cell, str) and not cell.strip())
            what = "is empty" if empty else f"holds {_shown(str(cell))}, which is no number and no list of numbers"
            raise ValueError(f"{labels[column] or f'column {column + 1}'} {what}.")
        vector += numbers
    return vector


def parse_numbers(cell: object, decimal_comma: bool = False) -> list[float] | None:
    """The numbers that a cell holds; None when it holds anything else.

    Understood are 12.5; rgb(200, 100, 50); (200,100,50); [200 100 50]; R: 200, G: 100, B: 50; 200,100,50; and
    several of these one after another.
    """
    if isinstance(cell, int | float):
        return [float(cell)]
    if isinstance(cell, list | tuple | np.ndarray):
        parts = [parse_numbers(each) for each in cell]
        return [number for part in parts for number in part or ()] if all(parts) else None
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    if decimal_comma and re.fullmatch(r"[-+]?\d+,\d+", text):
        text = text.replace(",", ".")
    labelled = _LABELLED.fullmatch(text)
    words = labelled.groups() if labelled else _MARKS.split(_RGB_WORD.sub(" ", text))
    try:
        return [float(word) for word in words if word] or None
    except ValueError:
        return None


def _from_arrays(path: Path, space: FileSpace) -> VectorTable:
    ids: Any = None
    try:
        if path.suffix.lower() == ".npy":
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as archive:
                others = [each for each in archive.files if each != "ids"]
                if "vectors" not in others and len(others) != 1:
                    raise Refused(
                        f"{path.name} holds {', '.join(archive.files) or 'nothing'}; name the array `vectors`, and "
                        "the ids, if there are any, `ids`."
                    )
                array = archive["vectors" if "vectors" in others else others[0]]
                ids = archive["ids"] if "ids" in archive.files else None
    except Refused:
        raise
    except OSError as error:
        raise Refused(_unreadable(path, error)) from None
    except MemoryError:
        raise Refused(f"{path.name} does not fit into memory.") from None
    except Exception as error:
        # numpy and zipfile raise whatever a broken file leads them to: SyntaxError, TokenError, RuntimeError, ...
        python = any(word in str(error) for word in ("pickle", "Object arrays", "Python objects"))
        why = "it holds Python objects; save plain numbers and texts" if python else "it is broken or empty"
        raise Refused(f"{path.name} cannot be read as {path.suffix[1:].upper()}: {why}.") from None
    if not isinstance(array, np.ndarray) or array.ndim < 2 or array.dtype.kind not in "iuf":
        shape = getattr(array, "shape", None)
        raise Refused(
            f"{path.name} holds an array of shape {shape} and type {getattr(array, 'dtype', '?')}; give numbers of "
            "shape [items, numbers]."
        )
    array = array.reshape(len(array), int(np.prod(array.shape[1:])))
    if ids is None:
        names = [str(row) for row in range(len(array))]
    elif ids.ndim != 1 or ids.dtype.kind not in "USiu" or len(ids) != len(array):
        raise Refused(f"{path.name}: `ids` must be one text or whole number for each of the {len(array)} vectors.")
    else:
        names = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in ids.tolist()]
    wanted = _width_wanted({array.shape[1]: 1}, space)
    rows = ((row, names[row], np.asarray(array[row], np.float64)) for row in range(len(array)))
    return _finished(path.name, rows, space, wanted, "row", [], None, ())


# -- pairs -------------------------------------------------------------------------------------------------


def read_pairs(path: Path) -> PairTable:
    """The pairs of a CSV or Parquet file in the plain form or in CMEAN's published form.

    A pairing is one-to-one: a row that names an artwork or a track again is left out, as is one without a
    similarity in [-1, 1].

    Raises:
        Refused: the file cannot be read or has other columns.
    """
    table = _read_rows(path)
    names = [_plain(each) for each in table.head] if table.head else []
    cmean = [_plain(each) for each in CMEAN_COLUMNS]
    form: Form
    if set(cmean[1:]) <= set(names):
        form, wanted = "cmean", (cmean[3], cmean[2], cmean[1])
    elif set(PLAIN_COLUMNS[:3]) <= set(names):
        form, wanted = "plain", PLAIN_COLUMNS[:3]
    else:
        found = ", ".join(_shown(each) for each in table.head or []) or "none"
        if not table.head and not table.rows and not table.bad:
            raise Refused(f"{path.name} is empty.")
        raise Refused(
            f"{path.name} is no list of pairs: it needs the columns {', '.join(PLAIN_COLUMNS[:3])}, or CMEAN's "
            f"{', '.join(CMEAN_COLUMNS[1:])}; its columns are: {found}."
        )
    places = [names.index(each) for each in wanted]
    seen: tuple[dict[str, int], dict[str, int]] = ({}, {})
    pairs: list[FilePair] = []
    bad = list(table.bad)
    for line, cells in table.rows:
        artwork, track = ("" if cells[place] is None else str(cells[place]).strip() for place in places[:2])
        similarity = _similarity(cells[places[2]])
        reason = None
        if not artwork or not track:
            reason = f"it names no {'track' if artwork else 'artwork'}."
        elif similarity is None or not -1 <= similarity <= 1:
            reason = f"{_shown(str(cells[places[2]]))} is no similarity between -1 and 1."
        else:
            for word, name, lines in zip(("artwork", "track"), (artwork, track), seen, strict=True):
                if name in lines:
                    reason = f"the {word} {_shown(name)} is paired already, in {table.word} {lines[name]}."
                    break
        if reason is not None or similarity is None:
            bad.append(BadRow(path.name, line, str(reason), table.word))
            continue
        seen[0][artwork] = seen[1][track] = line
        pairs.append(FilePair(line, artwork, track, similarity))
    return PairTable(path.name, form, tuple(pairs), tuple(sorted(bad, key=lambda each: each.line)))


def _similarity(cell: object) -> float | None:
    """A single number, with a decimal comma or point."""
    numbers = parse_numbers(cell, decimal_comma=True)
    return numbers[0] if numbers is not None and len(numbers) == 1 else None


def write_pairs(path: Path, form: Form, rows: Sequence[tuple[str, str, float, float]]) -> None:
    """Write (artwork, track, similarity, percentile) rows as CSV, whole or not at all.

    Raises:
        Refused: the file cannot be written.
    """
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    if form == "cmean":
        writer.writerow(CMEAN_COLUMNS)
        writer.writerows(
            (place, f"{similarity:.7f}", track, artwork)
            for place, (artwork, track, similarity, _) in enumerate(rows, 1)
        )
    else:
        writer.writerow(PLAIN_COLUMNS)
        writer.writerows(
            (artwork, track, f"{similarity:.7f}", f"{percentile:.2f}")
            for artwork, track, similarity, percentile in rows
        )
    written: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as file:
            written = file.name
            file.write(content.getvalue())
        # A temporary file is its owner's alone; the result is as open as any file of this user.
        mask = os.umask(0)
        os.umask(mask)
        Path(written).chmod(0o666 & ~mask)
        Path(written).replace(path)
    except OSError as error:
        if written is not None:
            Path(written).unlink(missing_ok=True)
        raise Refused(f"{path} cannot be written: {error.strerror or error}.") from None


# -- tables of any kind ------------------------------------------------------------------------------------


def _read_rows(path: Path) -> _Rows:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".txt", ".parquet"):
        raise Refused(f"{path.name} is no file of a known kind; give .csv, .tsv, .parquet, .npy or .npz.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refused(_unreadable(path, error)) from None
    except MemoryError:
        raise Refused(f"{path.name} does not fit into memory.") from None
    if not content.strip():
        raise Refused(f"{path.name} is empty.")
    if suffix == ".parquet":
        try:
            table = pyarrow.parquet.read_table(io.BytesIO(content))
            values = [column.to_pylist() for column in table.columns]
        except (pyarrow.ArrowException, OSError, ValueError):
            raise Refused(f"{path.name} is not a Parquet file; write it anew.") from None
        rows = [(line, list(each)) for line, each in enumerate(zip(*values, strict=True), 1)]
        return _Rows([str(each) for each in table.column_names], rows, [], "row")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        what = "UTF-16, not UTF-8" if wide else f"not UTF-8 (line {line})"
        raise Refused(f"{path.name} is {what}; save it as UTF-8.") from None
    if "\0" in text:
        raise Refused(
            f"{path.name} holds zero bytes: it is no text, or it is UTF-16 without a mark; save it as UTF-8."
        )
    return _csv_rows(path.name, text)


def _csv_rows(name: str, text: str) -> _Rows:
    first = _GROUPS.sub("", next((line for line in text.splitlines() if line.strip()), ""))
    separator = max((",", ";", "\t"), key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    table = _Rows(None, [], [], "line", decimal_comma=separator == ";")
    width = 0
    try:
        for line, cells in _numbered(reader):
            if not any(cell.strip() for cell in cells):
                continue
            if not width:
                cells = _joined(cells) if _is_row(_joined(cells), table.decimal_comma) else cells
                width = len(cells)
                if not _is_row(cells, table.decimal_comma):
                    table.head = [cell.strip() for cell in cells]
                    continue
            if len(cells) > width:
                cells = _joined(cells)
            if len(cells) != width:
                table.bad.append(BadRow(name, line, f"it has {len(cells)} values for {width} columns."))
                continue
            table.rows.append((line, list(cells)))
    except csv.Error as error:
        table.bad.append(BadRow(name, reader.line_num, f"the table breaks off here: {error}."))
    return table


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """(line that the row begins in, cells)."""
    while True:
        line = reader.line_num + 1
        cells = next(reader, None)
        if cells is None:
            return
        yield line, cells


def _is_row(cells: Sequence[str], decimal_comma: bool) -> bool:
    """Whether a file's first line is a row already, not the names of columns.

    Names are: a first cell that is a usual name of an id column; cells without any number; and whole numbers that
    only count the columns from 0 (pandas names columns so).
    """
    first = _plain(cells[0])
    if first in _ID_COLUMNS or first in _COUNTING_COLUMNS:
        return False
    found = [numbers for cell in cells[1:] if (numbers := parse_numbers(cell, decimal_comma)) is not None]
    flat = [number for numbers in found for number in numbers]
    counting = len(flat) > 1 and flat == [*range(len(flat))]
    return bool(found) and not counting


def _joined(cells: Sequence[str]) -> list[str]:
    """Cells of which some were cut at the commas inside brackets, as in an unquoted rgb(1, 2, 3)."""
    whole: list[str] = []
    depth = 0
    for cell in cells:
        if depth > 0:
            whole[-1] += f",{cell}"
        else:
            whole.append(cell)
        depth += sum(map(cell.count, "([")) - sum(map(cell.count, ")]"))
    return whole


def _plain(name: str) -> str:
    """A column's name for comparing: composed letters, lower case, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _shown(text: str) -> str:
    """A text out of a file, safe and short enough for a terminal."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or error}."
