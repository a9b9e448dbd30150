"""Data sets out of the pipeline's own store: an exhibition's pairs with captions, vectors, sound; items' emotions.

It reads what the stages wrote, through the clients of `infra`, and needs neither broker nor model server. Withdrawn
items are not in it, and a data set is a copy: after a takedown make it again.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from infra.objects import NotFound
from infra.records import Records, rendition_key
from schemas.media import WHOLE, Kind, split_item_id
from schemas.records import CaptionBody, EmbedBody, PairChange, Result, Revision, ScoreBody, Stage
from training.layouts import parts_of_rows
from training.tables import BadData, Description, Skipped, write_atomically, write_dataset

Understood = tuple[Revision, dict[Stage, Result]]
Told = Callable[[int, int], None]
"""Hears how many of how many are done."""


def unpacked(text: str) -> list[float]:
    """A vector as records hold it: little-endian float32 in base64."""
    return [float(each) for each in np.frombuffer(base64.b64decode(text), "<f4")]


def _applied(pairs: dict[tuple[str, str], float], changes: Iterable[PairChange]) -> None:
    for change in changes:
        if change.what == "parted":
            pairs.pop((change.artwork, change.track), None)
        else:
            pairs[change.artwork, change.track] = change.similarity


async def exhibition_pairs(records: Records, name: str) -> dict[tuple[str, str], float]:
    """What hangs in an exhibition: (artwork, track) -> similarity, read from its snapshot and log.

    Raises BadData where there is no such exhibition.
    """
    settings = await records.exhibition(name)
    if settings is None:
        raise BadData(f"there is no exhibition {name}; `promenade exhibition list` shows them")
    snapshot = await records.pairing_snapshot(settings.home)
    pairs: dict[tuple[str, str], float] = {}
    number = 0
    if snapshot is not None:
        hanging = snapshot.pairs if snapshot.hung is None else snapshot.hung
        pairs = {(artwork, track): similarity for artwork, track, similarity in hanging}
        number = snapshot.number
    for revision in await records.pairing_log(settings.home, number):
        _applied(pairs, revision.changes if revision.hung is None else revision.hung)
    return pairs


def _whole_caption(results: dict[Stage, Result]) -> str | None:
    body = results[Stage.CAPTION].body if Stage.CAPTION in results else None
    return body.texts[WHOLE] if isinstance(body, CaptionBody) else None


def _vectors(results: dict[Stage, Result]) -> dict[str, str]:
    body = results[Stage.EMBED].body if Stage.EMBED in results else None
    return dict(body.vectors) if isinstance(body, EmbedBody) else {}


async def _fetched(records: Records, item: str, generation: int, name: str, folder: Path) -> str | None:
    """Copy a rendition into the data set, once; its path relative to the data set."""
    place = f"{'pictures' if split_item_id(item)[0] is Kind.ARTWORK else 'sounds'}/{item}{Path(name).suffix}"
    path = folder / place
    if not path.is_file():
        try:
            content = await records.objects.get(rendition_key(item, generation, name))
        except NotFound:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return place


async def collect_pairs(
    records: Records,
    folder: Path,
    *,
    exhibition: str,
    space: str,
    test_share: float = 0.1,
    validation: int = 100,
    seed: int = 0,
    told: Told = lambda done, total: None,
) -> Description:
    """Make a data set of pairs out of an exhibition.

    Args:
        records: of the store.
        folder: of the data set; sounds that lie there are not fetched again.
        exhibition: whose pairs; those that hang.
        space: of the pictures' vectors, as the profile names it (`imagebind-1`).
        test_share, validation, seed: of the split, stratified by style.
        told: hears of the progress.

    Raises BadData where the exhibition is missing or none of its pairs can be used.
    """
    pairs = await exhibition_pairs(records, exhibition)
    skipped = Skipped()
    rows: list[dict[str, Any]] = []
    spaces: set[str] = set()
    for number, ((artwork, track), similarity) in enumerate(sorted(pairs.items())):
        told(number, len(pairs))
        name = f"{artwork[:16]}+{track[:14]}"
        seen, heard = await records.understood(artwork), await records.understood(track)
        if seen is None or heard is None:
            skipped.add("withdrawn", name)
            continue
        vectors = _vectors(seen[1])
        spaces |= set(vectors)
        if space not in vectors:
            skipped.add(f"no vector of the picture in {space}", name)
            continue
        sound = await _fetched(records, track, heard[0].generation, "sound.flac", folder)
        if sound is None:
            skipped.add("no sound in the store", name)
            continue
        catalogue, played = seen[0].catalogue, heard[0].catalogue
        rows.append(
            {
                "id": f"{artwork}+{track}",
                "artwork": artwork,
                "track": track,
                "title": catalogue.title,
                "artist": catalogue.artist,
                "style": catalogue.style,
                "genre": catalogue.genre,
                "track_title": played.title,
                "track_genre": played.genre,
                "picture_caption": _whole_caption(seen[1]),
                "sound_caption": _whole_caption(heard[1]),
                "similarity": similarity,
                "sound": sound,
                "vector": unpacked(vectors[space]),
            }
        )
    told(len(pairs), len(pairs))
    if not rows:
        reasons = "; ".join(skipped.lines()) or "nothing hangs in it"
        known = f" Pictures have vectors in {', '.join(sorted(spaces))}." if spaces else ""
        raise BadData(f"no pair of the exhibition {exhibition} can be used: {reasons}.{known}")
    parts = parts_of_rows(
        [row["style"] for row in rows], [row["artwork"] for row in rows], test_share, validation, seed
    )
    for row, part in zip(rows, parts, strict=True):
        row["part"] = part
    return write_dataset(folder, "pairs", rows, source=f"exhibition {exhibition}", space=space, skipped=skipped)


async def collect_emotions(
    records: Records,
    folder: Path,
    *,
    collections: Iterable[str] | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.05,
    seed: int = 0,
    told: Told = lambda done, total: None,
) -> Description:
    """Make a data set of emotions out of items that were scored: their pictures, sounds, captions, valence, arousal.

    Towers that are trained by it learn what the models that scored them say, at the towers' price (distillation), not
    what people felt; for that, IMEMNet-C's annotations are read by `training.layouts`.

    Args:
        records: of the store.
        folder: of the data set.
        collections: whose items; None: all.
        test_share, validation_share, seed: of the split, as in `layouts.read_imemnet`.
        told: hears of the progress.

    Raises BadData where pictures or tracks are missing.
    """
    wanted = None if collections is None else set(collections)
    states = [
        state
        for state in await records.all_states()
        if state.alive and (wanted is None or state.memberships & wanted)
    ]  # fmt: skip
    skipped = Skipped()
    rows: list[dict[str, Any]] = []
    for number, state in enumerate(states):
        told(number, len(states))
        known = await records.understood(state.item)
        body = known[1][Stage.SCORE].body if known is not None and Stage.SCORE in known[1] else None
        if known is None or not isinstance(body, ScoreBody):
            skipped.add("withdrawn or not scored yet", state.item)
            continue
        kind = split_item_id(state.item)[0]
        name = "picture.jpg" if kind is Kind.ARTWORK else "sound.flac"
        place = await _fetched(records, state.item, known[0].generation, name, folder)
        if place is None:
            skipped.add("no picture or sound in the store", state.item)
            continue
        valence, arousal = body.va[WHOLE]
        point = {"group": state.item, "source": "store", "valence": valence, "arousal": arousal}
        rows.append(
            {"id": state.item, "modality": "picture" if kind is Kind.ARTWORK else "sound", "file": place, **point}
        )
        if kind is Kind.TRACK and (text := _whole_caption(known[1])):
            rows.append({"id": f"text-{state.item}", "modality": "text", "text": text, **point})
    told(len(states), len(states))
    for modality in ("picture", "sound"):
        chosen = [row for row in rows if (row["modality"] == "picture") == (modality == "picture")]
        if not chosen:
            raise BadData("; ".join([f"no {modality} in the store was scored yet", *skipped.lines()]))
        groups = [str(row["group"]) for row in chosen]
        validation = round(validation_share * len(set(groups)))
        for row, part in zip(
            chosen, parts_of_rows(["store"] * len(chosen), groups, test_share, validation, seed), strict=True
        ):
            row["part"] = part
    return write_dataset(folder, "emotions", rows, source="the store", skipped=skipped)
