"""Data sets of the papers as they lie on a disk: ArtSound's pairs, and what IMEMNet-C is made of.

**ArtSound** (Rinaldi et al. 2026; the 2024 release's layout): a table of pairs beside folders of media. The table is
JSON by columns as the release has it (`{"Image": {"0": ...}, "Audio": {"0": ...}}`), JSON lines, CSV or Parquet. Its
columns are found by their names, whatever their case: image and audio, and where there are any captions, style,
genre, similarity. A sound may be written `001/001556`, or with folders in front that are not there: what counts is
its end, `fma_large/001/001556.mp3`. Vectors lie beside it as `images.safetensors` (name -> vector), or in an .npz
of `ids` and `vectors`.

**IMEMNet-C** (MMVA; the authors publish no files, so each source is read as its own publishers lay it out):

    images.csv                         file, valence, arousal, scale (iaps, naps, emotic or unit)
    annotations/.../valence.csv        DEAM's: song_id, sample_15000ms, sample_15500ms, ... in -1 to 1
    annotations/.../arousal.csv
    MEMD_audio/<song_id>.mp3           DEAM's sounds (or audio/, or beside the tables)
    captions.csv                       song_id, start (seconds), caption; start may be missing: of the whole song

Files that are missing are left out by name and count.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as parquet

from training.emotions import cleaned, clips, to_unit
from training.splits import stratified_split
from training.tables import BadData, Description, Skipped, write_dataset

PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")
SOUNDS: Final = (".mp3", ".wav", ".flac", ".ogg", ".m4a")

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "picture": ("image", "artwork", "picture", "image_name", "image_path", "image_file"),
    "sound": ("audio", "track", "music", "sound", "audio_path", "audio_file"),
    "picture_caption": ("image_caption", "artwork_caption", "image caption", "description"),
    "sound_caption": ("audio_caption", "music_caption", "audio caption", "track_caption"),
    "style": ("style", "artwork_style", "art_style"),
    "genre": ("genre", "artwork_genre"),
    "track_genre": ("track_genre", "music_genre", "audio_genre"),
    "similarity": ("similarity", "sim", "score", "similarity_score"),
    "title": ("title", "artwork_title"),
    "artist": ("artist", "artist_name"),
}
"""Columns of a data set and the names that a table of pairs may give them."""


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a table: CSV, Parquet, JSON lines, JSON by rows or by columns.

    Raises BadData where it cannot be read.
    """
    try:
        match path.suffix.lower():
            case ".csv":
                with path.open(newline="", encoding="utf-8-sig") as file:
                    return [dict(row) for row in csv.DictReader(file)]
            case ".parquet":
                rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
                return rows
            case ".jsonl":
                return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            case ".json":
                return _json_rows(json.loads(path.read_text()))
            case other:
                raise BadData(
                    f"{path}: a table is .csv, .parquet, .json or .jsonl, not {other or 'without an ending'}"
                )
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, BadData):
            raise
        raise BadData(f"{path} cannot be read as a table: {error}") from error


def _json_rows(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list) and all(isinstance(row, Mapping) for row in content):
        return [dict(row) for row in content]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Mapping) for v in content.values()):
        raise ValueError("it is neither a list of rows nor a mapping of columns")
    names = list(content)
    # By columns, each a mapping from the row's number: as data frames are written.
    keys = list(content[names[0]])
    return [{name: content[name].get(key) for name in names} for key in keys]


class _Files:
    """Finds files below a folder by the end of their path, as tables name them with folders that are not there."""

    def __init__(self, folder: Path, endings: Sequence[str]) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in endings:
                self._by_name.setdefault(path.stem.lower(), []).append(path)

    def find(self, name: str) -> Path | None:
        """The file that a table means: most folders at the end in common; None where there is none of that name."""
        wanted = Path(name.replace("\\", "/"))
        stem = wanted.stem if wanted.suffix.lower() in (*PICTURES, *SOUNDS) else wanted.name
        found = self._by_name.get(stem.lower(), [])
        parents = [part.lower() for part in wanted.parent.parts]

        def common(path: Path) -> int:
            count = 0
            for mine, theirs in zip(reversed(parents), reversed(path.parent.parts), strict=False):
                if mine != theirs.lower():
                    break
                count += 1
            return count

        return max(found, key=common, default=None)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def read_vectors(path: Path) -> dict[str, list[float]]:
    """Vectors by name: `.safetensors` (name -> vector) or `.npz` (`ids`, `vectors`).

    Raises BadData where the file holds something else.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            if not {"ids", "vectors"} <= set(content.files):
                raise BadData(f"{path} needs `ids` and `vectors`, and holds {', '.join(content.files)}")
            return {
                str(name): vector.astype(float).ravel().tolist()
                for name, vector in zip(content["ids"], content["vectors"], strict=True)
            }
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: vector.astype(float).ravel().tolist() for name, vector in load_file(path).items()}
    raise BadData(f"{path}: vectors are read from .safetensors (name -> vector) or .npz (ids, vectors)")


def read_artsound(
    source: Path,
    folder: Path,
    *,
    vectors: Path | None = None,
    space: str = "imagebind-1",
    seed: int = 0,
    test_share: float = 0.1,
    validation: int = 100,
) -> Description:
    """Make a data set of pairs out of ArtSound's layout.

    Args:
        source: the folder that holds table and media, or the table (the media lie beside or below it).
        folder: of the data set to make.
        vectors: of the pictures, by the picture's name; see `read_vectors`. Without, `prepare` computes CLIP's.
        space: the name of the space that the vectors are of.
        seed, test_share, validation: of the split, stratified by style.

    Raises BadData where there is no table, or it names no pictures or sounds.
    """
    table = source if source.is_file() else _only_table(source)
    media = table.parent if source.is_file() else source
    rows = read_table(table)
    columns = _columns(rows, table)
    known = {Path(name).stem.lower(): vector for name, vector in read_vectors(vectors).items()} if vectors else {}
    pictures, sounds = _Files(media, PICTURES), _Files(media, SOUNDS)
    skipped = Skipped()
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        name, heard = str(row.get(columns["picture"]) or ""), str(row.get(columns["sound"]) or "")
        if not name or not heard:
            skipped.add("a row without picture or sound", f"row {number + 1}")
            continue
        picture, sound = pictures.find(name), sounds.find(heard)
        vector = known.get(Path(name).stem.lower())
        if picture is None and vector is None:
            skipped.add("no such picture", name)
        elif sound is None:
            skipped.add("no such sound", heard)
        elif known and vector is None:
            skipped.add("no vector", name)
        else:
            found.append(
                {
                    "id": f"{number:06d}",
                    "artwork": name,
                    "track": heard,
                    "picture": str(picture.resolve()) if picture else None,
                    "sound": str(sound.resolve()),
                    "vector": vector,
                    **{each: row.get(columns[each]) for each in columns if each not in ("picture", "sound")},
                }
            )
    for row in found:
        row["similarity"] = _number(row.get("similarity"))
        for each in ("style", "genre", "track_genre", "title", "artist", "picture_caption", "sound_caption"):
            row[each] = _text(row.get(each))
    if found:
        parts = parts_of_rows(
            [row["style"] for row in found], [row["artwork"] for row in found], test_share, validation, seed
        )
        for row, part in zip(found, parts, strict=True):
            row["part"] = part
    return write_dataset(
        folder, "pairs", found, source=str(table), space=space if known else "", skipped=skipped
    )  # fmt: skip


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value)
    return str(value)


def parts_of_rows(
    strata: Sequence[str | None], groups: Sequence[str], test_share: float, validation: int, seed: int
) -> list[str]:
    try:
        return stratified_split(strata, groups, test_share, validation, seed)
    except ValueError as error:
        raise BadData(f"the data set is too small: {error}") from None


def _only_table(folder: Path) -> Path:
    tables = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".json", ".jsonl", ".csv", ".parquet") and path.is_file()
    ]
    fitting = []
    for path in tables:
        try:
            rows = read_table(path)
            _columns(rows, path)
        except BadData:
            continue
        fitting.append(path)
    if len(fitting) != 1:
        what = "no table of pairs (columns image and audio)" if not fitting else "several tables of pairs"
        names = f": {', '.join(str(path) for path in fitting[:5])}" if fitting else ""
        raise BadData(f"{folder} holds {what}{names}; name the one that is meant")
    return fitting[0]


def _columns(rows: Sequence[Mapping[str, Any]], table: Path) -> dict[str, str]:
    given = {str(name).strip().lower(): str(name) for name in (rows[0] if rows else {})}
    columns = {
        ours: given[theirs]
        for ours, names in _NAMES.items()
        for theirs in [next((name for name in names if name in given), None)]
        if theirs is not None
    }
    missing = [name for name in ("picture", "sound") if name not in columns]
    if missing:
        raise BadData(
            f"{table} names no {' and no '.join(missing)}: it needs a column image and a column audio, and has "
            f"{', '.join(given.values()) or 'none'}"
        )
    return columns


def _first(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern))
    if not found:
        raise BadData(f"{folder} has no {pattern}: see training.layouts for what IMEMNet-C's folder holds")
    return found[0]


def _annotations(path: Path) -> dict[str, list[tuple[float, float]]]:
    """DEAM's values of a song by second: song_id -> (second, value), in order."""
    songs: dict[str, list[tuple[float, float]]] = {}
    for row in read_table(path):
        song = str(row.get("song_id") or "").strip()
        values = []
        for name, text in row.items():
            if str(name).startswith("sample_") and (value := _number(text)) is not None:
                values.append((float(str(name).removeprefix("sample_").removesuffix("ms")) / 1000.0, value))
        if song:
            songs[song.removesuffix(".0")] = sorted(values)
    return songs


def read_imemnet(
    source: Path, folder: Path, *, seed: int = 0, test_share: float = 0.2, validation_share: float = 0.05
) -> Description:
    """Make a data set of emotions out of IMEMNet-C's parts: pictures, clips of songs, and the clips' captions.

    80 % train, 5 % validate, 15 % test as in the paper; a song's clips and captions fall into the same part.

    Args:
        source: the folder; see the head of this file.
        folder: of the data set to make.
        seed: of the split.
        test_share: of what does not train.
        validation_share: of all items; the rest of what does not train is tested.

    Raises BadData where a table is missing.
    """
    skipped = Skipped()
    rows = [*_emotional_pictures(source, skipped), *_emotional_clips(source, skipped)]
    for modalities in (("picture",), ("sound", "text")):
        chosen = [row for row in rows if row["modality"] in modalities]
        if not chosen:
            raise BadData("\n".join([f"no {modalities[0]} is left of {source}", *skipped.lines()]))
        groups = [str(row["group"]) for row in chosen]
        validation = round(validation_share * len(set(groups)))
        parts = parts_of_rows([str(row["source"]) for row in chosen], groups, test_share, validation, seed)
        for row, part in zip(chosen, parts, strict=True):
            row["part"] = part
    return write_dataset(folder, "emotions", rows, source=str(source), skipped=skipped)


def _emotional_pictures(source: Path, skipped: Skipped) -> Iterable[dict[str, Any]]:
    files = _Files(source, PICTURES)
    for number, row in enumerate(read_table(_first(source, "images.csv"))):
        name, scale = str(row.get("file") or ""), str(row.get("scale") or "unit")
        path = files.find(name) if name else None
        valence, arousal = _number(row.get("valence")), _number(row.get("arousal"))
        if path is None:
            skipped.add("no such picture", name or f"row {number + 1}")
            continue
        if valence is None or arousal is None:
            skipped.add("a picture without valence or arousal", name)
            continue
        try:
            point = to_unit(valence, scale), to_unit(arousal, scale)
        except ValueError as error:
            skipped.add(str(error) if scale not in ("iaps", "naps", "emotic", "unit") else "off its scale", name)
            continue
        yield {
            "id": f"picture-{number:06d}",
            "modality": "picture",
            "group": name,
            "source": scale,
            "file": str(path.resolve()),
            "valence": point[0],
            "arousal": point[1],
        }


def _emotional_clips(source: Path, skipped: Skipped) -> Iterable[dict[str, Any]]:
    valence, arousal = _annotations(_first(source, "valence.csv")), _annotations(_first(source, "arousal.csv"))
    files = _Files(source, SOUNDS)
    captions = _captions(source)
    for song in sorted(valence.keys() & arousal.keys(), key=lambda each: (len(each), each)):
        path = files.find(song)
        if path is None:
            skipped.add("no such sound", song)
            continue
        try:
            found = clips(valence[song], arousal[song])
        except ValueError:
            skipped.add("a song with a value off DEAM's scale", song)
            continue
        if not found:
            skipped.add("a song without a whole clip", song)
        for clip in found:
            name = f"{song}-{clip.start:g}"
            point = {"group": song, "source": "deam", "valence": clip.valence, "arousal": clip.arousal}
            place = {"start": clip.start, "seconds": clip.seconds}
            yield {"id": f"sound-{name}", "modality": "sound", "file": str(path.resolve()), **place, **point}
            text = captions.get((song, clip.start)) or captions.get((song, None))
            if text is None:
                skipped.add("a clip without a caption", name)
            elif not (spoken := cleaned(text)):
                skipped.add("a caption that speaks of nothing but quality", name)
            else:
                yield {"id": f"text-{name}", "modality": "text", "text": spoken, **place, **point}


def _captions(source: Path) -> dict[tuple[str, float | None], str]:
    found = sorted(source.rglob("captions.csv"))
    return {
        (str(row.get("song_id") or "").strip(), _number(row.get("start"))): str(row.get("caption") or "")
        for path in found[:1]
        for row in read_table(path)
    }
