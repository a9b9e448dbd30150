"""Data sets out of a real store, without torch, and the commands of training where torch is missing."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from infra.records import Records, rendition_key
from promenade import training_commands
from promenade.cli import application
from schemas.media import Kind
from schemas.records import (
    CaptionBody,
    Catalogue,
    EmbedBody,
    ExhibitionSettings,
    PairChange,
    PairingRevision,
    PairingSnapshot,
    Phrase,
    Provenance,
    Result,
    ScoreBody,
    Tombstone,
    now,
)
from tests.stack_fixtures import put_item
from training.collect import collect_emotions, collect_pairs, exhibition_pairs
from training.tables import BadData, Dataset

COUNT = 24


def _packed(values: list[float]) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


async def _item(records: Records, kind: Kind, number: int) -> str:
    """An item that went through caption, score and embed."""
    item = await put_item(records, f"{kind.value} {number}", kind)
    first = await records.revision(item, (0, 1))
    catalogue = Catalogue(title=f"Work {number}", style="Cubism" if number % 2 else None)
    revision = first.model_copy(update={"catalogue": catalogue, "revision": 2})
    await records.create_revision(revision)
    name = "picture.jpg" if kind is Kind.ARTWORK else "sound.flac"
    await records.objects.put(rendition_key(item, revision.generation, name), f"bytes {number}".encode())
    point = (number / COUNT, 0.5)
    bodies: list[CaptionBody | ScoreBody | EmbedBody] = [
        CaptionBody(
            texts=("a", "b", "c", "d", f"the whole of {number}"),
            phrases=((Phrase(text="calm", confidence=0.5),),) * 5,
            measurements=({},) * 5,
            tag_vector=_packed([0.0]),
        ),
        ScoreBody(
            rgb=((1.0, 2.0, 3.0),) * 5,
            va=((0.1, 0.1),) * 4 + (point,),
            va_scored=(point,) * 5,
            va_medium=(point,) * 5,
            evidence=((),) * 5,
        ),
        EmbedBody(vectors={"imagebind-1": _packed([number, 1.0, 0.5])} if number != 3 else {"other": _packed([1.0])}),
    ]
    for body in bodies:
        provenance = Provenance(models={}, profile="made", made=now(), seconds=0.0)
        await records.write_result(
            Result(
                item=item,
                generation=revision.generation,
                revision=revision.revision,
                digest=f"{number:032x}",
                provenance=provenance,
                body=body,
            )
        )
    return item


async def test_an_exhibitions_pairs_become_a_data_set(records: Records, tmp_path: Path) -> None:
    artworks = [await _item(records, Kind.ARTWORK, number) for number in range(COUNT)]
    tracks = [await _item(records, Kind.TRACK, number) for number in range(COUNT)]
    settings = ExhibitionSettings(name="best", number=1)
    await records.put_exhibition(settings)
    pairs = tuple((artwork, track, 0.5) for artwork, track in zip(artworks[:-1], tracks[:-1], strict=True))
    await records.put_pairing_snapshot(
        PairingSnapshot(exhibition=settings.home, number=4, members={}, pairs=pairs, made=now())
    )
    changes = (
        PairChange(artwork=artworks[0], track=tracks[0], similarity=0.5, what="parted", why="displaced"),
        PairChange(artwork=artworks[-1], track=tracks[-1], similarity=0.75, what="formed", why="arrival"),
    )
    await records.append_pairing(
        PairingRevision(exhibition=settings.home, number=5, owner="me", changes=changes, made=now())
    )
    hanging = await exhibition_pairs(records, "best")
    assert len(hanging) == COUNT - 1 and hanging[artworks[-1], tracks[-1]] == 0.75
    assert (artworks[0], tracks[0]) not in hanging
    await records.bury(Tombstone(item=tracks[5], generation=0, made=now()))
    await records.objects.delete([rendition_key(tracks[7], 0, "sound.flac")])

    told = await collect_pairs(records, tmp_path / "pairs", exhibition="best", space="imagebind-1")
    assert {reason: each["count"] for reason, each in told.skipped.items()} == {
        "withdrawn": 1,
        "no vector of the picture in imagebind-1": 1,
        "no sound in the store": 1,
    }
    dataset = Dataset(tmp_path / "pairs", "pairs")
    rows = {row["artwork"]: row for row in dataset.table.to_pylist()}
    assert len(rows) == COUNT - 4
    row = rows[artworks[9]]
    assert row["vector"] == [9.0, 1.0, 0.5] and row["style"] == "Cubism" and row["track_title"] == "Work 9"
    assert (row["picture_caption"], row["sound_caption"]) == ("the whole of 9", "the whole of 9")
    assert dataset.path(row["sound"]).read_bytes() == b"bytes 9"
    assert {row["part"] for row in rows.values()} == {"train", "test", "validation"}
    with pytest.raises(BadData, match=r"Pictures have vectors in imagebind-1, other"):
        await collect_pairs(records, tmp_path / "none", exhibition="best", space="clip-9")
    with pytest.raises(BadData, match="no exhibition nobody"):
        await collect_pairs(records, tmp_path / "none", exhibition="nobody", space="imagebind-1")

    emotions = await collect_emotions(records, tmp_path / "emotions")
    assert emotions.rows == COUNT + 2 * (COUNT - 2)
    found = {row["id"]: row for row in Dataset(tmp_path / "emotions", "emotions").table.to_pylist()}
    assert found[artworks[12]]["valence"] == pytest.approx(0.5)
    assert found[f"text-{tracks[12]}"]["text"] == "the whole of 12"


def test_the_commands_say_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = CliRunner()
    monkeypatch.setattr(training_commands, "CLONE", tmp_path)
    monkeypatch.setattr(training_commands.importlib.util, "find_spec", lambda name: None)
    for command in (
        ["train", "aligner", "data", "--run", "run"],
        ["train", "va", "data", "--run", "run"],
        ["export", "run"],
    ):
        result = runner.invoke(application, command)
        assert result.exit_code == 1
        assert "make .models/.made" in result.output and "promenade[training]" in result.output
    # Help and wrong usage need no torch.
    result = runner.invoke(application, ["train", "aligner", "--help"])
    assert result.exit_code == 0
    result = runner.invoke(application, ["train", "data", str(tmp_path / "out")])
    assert result.exit_code == 2 and "--artsound" in result.output
    result = runner.invoke(application, ["train", "data", str(tmp_path / "out"), "--artsound", str(tmp_path)])
    assert result.exit_code == 1 and "no table of pairs" in result.output
