"""What must hold of `promenade evaluate`: Table V's figures are right, and only real structure rises above chance."""

from __future__ import annotations

import asyncio
import base64
import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from infra.records import Records
from promenade import plots
from promenade.cli import application
from promenade.reach import reading
from schemas.media import Kind, split_item_id
from schemas.records import (
    EmbedBody,
    PairChange,
    PairingBasis,
    PairingConstants,
    PairingRevision,
    Provenance,
    Result,
    ScoreBody,
    Stage,
    now,
)
from tests.stack_fixtures import Reached, put_item
from workers.pairing.rules import batch_stable
from workers.pairing.similarity import Cosine
from workers.pairing.spaces import constants_of, item_vectors, pairing_space

RUNNER = CliRunner()
PUBLISHED = (
    "Posizione,Similarità Coseno,Canzone,Immagine Abbinata\n"
    '1,0.99,uno.mp3,"sea, storm.jpg"\n2,0.95,due.mp3,field.jpg\n3,0.91,tre.mp3,night.jpg\n'
    "4,0.55,quattro.mp3,café.jpg\n"
)


def run(*words: object) -> Any:
    """The command line, in this process."""
    return RUNNER.invoke(application, [str(word) for word in words])


def said(result: Any) -> str:
    """What it said on either stream, without line breaks."""
    return " ".join((result.stdout + result.stderr).split())


def figures(result: Any) -> dict[str, Any]:
    """What it said with --json."""
    assert result.exit_code in (0, 3), said(result)
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def baseline(told: dict[str, Any], name: str) -> dict[str, Any]:
    """One of the baselines."""
    found: dict[str, Any] = next(each for each in told["baselines"] if each["name"] == name)
    return found


def vectors_file(path: Path, prefix: str, vectors: np.ndarray[Any, Any]) -> Path:
    """Ids and numbers as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(f"n{place}" for place in range(vectors.shape[1]))])
        writer.writerows([f"{prefix}{place}", *vector.tolist()] for place, vector in enumerate(vectors))
    return path


def test_cmeans_published_form_gives_table_v(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(PUBLISHED, encoding="utf-8")
    told = figures(run("evaluate", "pairs", path, "--json"))
    assert (told["pairs"], told["unpaired_artworks"], told["unpaired_tracks"]) == (4, None, None)
    assert told["mean"] == pytest.approx(0.85)
    assert (told["maximum"], told["minimum"], told["median"]) == (0.99, 0.55, pytest.approx(0.93))
    assert told["fifth_percentile"] == pytest.approx(0.55 + 0.15 * 0.36)
    assert [each["name"] for each in told["baselines"]] == ["same rule, uniform random RGB"]
    shown = said(run("evaluate", "pairs", path))
    assert "mean similarity 0.8500" in shown and "unpaired tracks not known" in shown


def test_uniform_random_colours_nearly_reach_cmeans_published_mean(tmp_path: Path) -> None:
    # The published mean is 0.9391 for 1000 pairs of five triples each; the reference gives about 0.926 for chance.
    path = tmp_path / "published.csv"
    lines = [f"{place},0.9391,song{place},picture{place}" for place in range(1, 1001)]
    path.write_text("\n".join([PUBLISHED.split("\n")[0], *lines]), encoding="utf-8")
    uniform = baseline(figures(run("evaluate", "pairs", path, "--json")), "same rule, uniform random RGB")
    assert uniform["mean"] == pytest.approx(0.926, abs=0.003)
    assert uniform["lift"] == pytest.approx(1.014, abs=0.004)


def test_bad_rows_of_a_list_are_named_and_the_others_count(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        'artwork,track,similarity\na,x,0.5\na,y,0.6\nb,x,0.6\nb,,0.6\nc,z,1.5\nd,v,nan\ne,u,high\nf,t\ng,s,"0,75"\n'
    )
    result = run("evaluate", "pairs", path, "--json")
    told = figures(result)
    assert result.exit_code == 3
    assert [each["line"] for each in told["refused"]] == [3, 4, 5, 6, 7, 8, 9]
    assert "'a' is paired already, in line 2" in told["refused"][0]["reason"]
    assert "'x' is paired already, in line 2" in told["refused"][1]["reason"]
    assert (told["pairs"], told["mean"]) == (2, pytest.approx(0.625))
    assert "pairs.csv, line 6: '1.5' is no similarity" in said(run("evaluate", "pairs", path))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"song,picture\na,b\n", "is no list of pairs"),
        (b"artwork,track,similarity\n", "holds no pair"),
        ("artwork,track,similarity\nCittà,b,1\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_plain_words(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    result = run("evaluate", "pairs", tmp_path / "pairs.csv")
    assert result.exit_code == 1
    assert part in said(result)


def planted(folder: Path, share: float, rule: str, form: str = "plain") -> dict[str, Any]:
    """Pair 120 + 110 items by `promenade pair` and judge the list by `promenade evaluate pairs`.

    `share` of each vector comes from one of six hidden moods that both sides have, the rest is noise.
    """
    generator = np.random.default_rng(12)
    moods = generator.random((6, 96)) ** 6
    vectors = share * moods[generator.integers(6, size=230)] + (1 - share) * generator.random((230, 96)) ** 6
    artworks = vectors_file(folder / "a.csv", "picture", vectors[:120])
    tracks = vectors_file(folder / "b.csv", "song", vectors[120:])
    files = "--artworks", artworks, "--tracks", tracks, "--space", "96-D", "--rule", rule
    made = figures(run("pair", *files, "--out", folder / "pairs.csv", "--form", form, "--json"))
    told = figures(run("evaluate", "pairs", folder / "pairs.csv", *files, "--json"))
    for name in ("pairs", "unpaired_artworks", "unpaired_tracks"):
        assert told[name] == made[name]
    for name in ("mean", "maximum", "minimum", "median", "fifth_percentile"):
        assert told[name] == pytest.approx(made[name], abs=1e-12), "what was written reads back as it was"
    assert not told["refused"]
    assert not [note for note in told["notes"] if "not those of the vectors" in note]
    assert told["baselines"][0]["mean"] == made["chance"]
    return told


@pytest.mark.parametrize(("rule", "form"), [("greedy", "plain"), ("stable", "cmean"), ("optimal", "plain")])
def test_planted_structure_is_seen_and_its_absence_too(tmp_path: Path, rule: str, form: str) -> None:
    with_structure, without = planted(tmp_path, 0.9, rule, form), planted(tmp_path, 0.0, rule, form)
    assert (with_structure["pairs"], with_structure["unpaired_artworks"]) == (110, 10)
    random = baseline(with_structure, "random assignment")
    assert random["lift"] > 1.5 and random["deviations"] > 10
    name = "same rule, coordinates shuffled"
    assert baseline(with_structure, name)["lift"] > 1.3 and baseline(with_structure, name)["deviations"] > 10
    assert baseline(without, name)["lift"] == pytest.approx(1, abs=0.03)


def test_the_same_files_give_the_same_figures(tmp_path: Path) -> None:
    assert planted(tmp_path, 0.5, "stable") == planted(tmp_path, 0.5, "stable")


def test_pairs_without_vectors_and_another_space_are_said(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    artworks = vectors_file(tmp_path / "a.csv", "p", generator.integers(0, 255, (3, 15)))
    tracks = vectors_file(tmp_path / "b.csv", "s", generator.integers(0, 255, (3, 15)))
    (tmp_path / "pairs.csv").write_text("artwork,track,similarity\np0,s0,0.5\np1,s9,0.9\n")
    files = "--artworks", artworks, "--tracks", tracks
    result = run("evaluate", "pairs", tmp_path / "pairs.csv", *files)
    assert result.exit_code == 3
    assert "pairs.csv, line 3: b.csv has no vector of the track 's9'" in said(result)
    assert "1 similarities in pairs.csv are not those of the vectors in rgb" in said(result)
    assert "Say by which --rule they were paired" in said(result)
    assert run("evaluate", "pairs", tmp_path / "pairs.csv", "--artworks", artworks).exit_code == 2


# -- from the records --------------------------------------------------------------------------------------


def packed(vector: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def put_results(records: Records, item: str, rgb: np.ndarray[Any, Any], joint: np.ndarray[Any, Any]) -> None:
    """A score and an embedding of a made item."""
    triples = tuple(tuple(map(float, triple)) for triple in rgb.reshape(5, 3))
    points = tuple((float(triple[0]) / 255, float(triple[1]) / 255) for triple in triples)
    score = ScoreBody(rgb=triples, va=points, va_scored=points, va_medium=points, evidence=((),) * 5)
    made = Provenance(models={}, profile="test", made=now(), seconds=0)
    for body in (score, EmbedBody(vectors={"caption-minilm-1": packed(joint)})):
        await records.write_result(
            Result(item=item, generation=0, revision=1, digest="0" * 32, provenance=made, body=body)
        )


@pytest.fixture
def wall(object_store: Reached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float], None]:
    """A house with made items and a stable pairing, which the command finds by the environment."""
    bucket = "promenade-evaluate"
    for name, value in (
        ("S3_ENDPOINT", object_store.endpoint),
        ("S3_ACCESS_KEY", object_store.access_key),
        ("S3_SECRET_KEY", object_store.secret_key),
        ("BUCKET", bucket),
        ("DATA", str(tmp_path)),
    ):
        monkeypatch.setenv(f"PROMENADE_{name}", value)

    async def fill(share: float) -> None:
        objects = object_store.objects(bucket)
        await objects.prepare()
        await objects.delete([info.key for info in await objects.list("")])
        records = Records(objects)
        generator = np.random.default_rng(3)
        counts = {Kind.ARTWORK: 40, Kind.TRACK: 36}
        moods, joints = generator.random((5, 15)) ** 3 * 255, generator.normal(size=(5, 384))
        sides: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}

        async def put(kind: Kind, place: int, rgb: Any, joint: Any) -> None:
            item = await put_item(records, f"{kind}-{place}", kind, sequence=place)
            await put_results(records, item, rgb, joint / np.linalg.norm(joint))
            sides[kind][item] = rgb.astype(np.float32)

        work = []
        for kind, count in counts.items():
            for place in range(count):
                mood = generator.integers(5)
                rgb = share * moods[mood] + (1 - share) * generator.random(15) ** 3 * 255
                joint = share * joints[mood] + (1 - share) * generator.normal(size=384)
                work.append(put(kind, place, rgb, joint))
        await asyncio.gather(*work)
        pairs = batch_stable(sides[Kind.ARTWORK], sides[Kind.TRACK], Cosine())
        changes = tuple(
            PairChange(artwork=artwork, track=track, similarity=similarity, what="formed", why="test")
            for artwork, (track, similarity) in pairs.items()
        )
        joined = tuple(f"{item}@0.1" for side in sides.values() for item in side)
        revision = PairingRevision(
            exhibition="default", number=1, owner="test", joined=joined, changes=changes, made=now()
        )
        assert await records.append_pairing(revision)
        objects.close()

    return lambda share: asyncio.run(fill(share))


def test_an_exhibition_is_judged_beside_every_baseline(wall: Callable[[float], None], tmp_path: Path) -> None:
    told = {}
    for share in (0.9, 0.0):
        wall(share)
        told[share] = figures(run("evaluate", "pairing", "--out", tmp_path / "drawn", "--json"))
    structured = told[0.9]
    assert (structured["pairs"], structured["unpaired_artworks"], structured["unpaired_tracks"]) == (36, 4, 0)
    assert (structured["space"], structured["rule"]) == ("rgb15", "stable")
    assert (
        structured["minimum"] <= structured["fifth_percentile"] <= structured["median"] <= structured["maximum"] <= 1
    )
    assert [each["name"] for each in structured["baselines"]] == [
        "random assignment",
        "same rule, coordinates shuffled",
        "same rule, uniform random RGB",
        "judged in rgb, against random pairs",
        "judged in va, against random pairs",
        "judged in caption-minilm-1, against random pairs",
    ]
    joint = "judged in caption-minilm-1, against random pairs"
    assert baseline(structured, joint)["deviations"] > 5
    assert abs(baseline(told[0.0], joint)["deviations"]) < 4, "another space that has nothing to do with the pairs"
    assert baseline(structured, "same rule, coordinates shuffled")["deviations"] > 5
    assert baseline(told[0.0], "same rule, coordinates shuffled")["lift"] == pytest.approx(1, abs=0.02)
    for each in structured["baselines"]:
        assert each["spread"] > 0 and each["repeats"] >= 10


def paired_in(folder: Path, basis: PairingBasis) -> dict[str, Any]:
    """The house's pairs as if made by this, judged and drawn."""

    async def change() -> None:
        async with reading(folder, print) as (_, records):
            revision = PairingRevision(exhibition="default", number=2, owner="test", basis=basis, made=now())
            assert await records.append_pairing(revision)

    asyncio.run(change())
    return figures(run("evaluate", "pairing", "--out", folder / "drawn", "--json"))


def test_every_space_of_rgb_stands_beside_uniform_random_rgb(wall: Callable[[float], None], tmp_path: Path) -> None:
    wall(0.9)
    told = paired_in(tmp_path, PairingBasis(space="rgb-2", rule="stable"))
    assert told["space"] == "rgb-2"
    uniform = baseline(told, "same rule, uniform random RGB")
    assert uniform["repeats"] == 10 and uniform["mean"] > 0.9
    (tmp_path / "b.csv").write_text("id,r,g,b\nx,1,2,3\ny,4,50,6\n")
    (tmp_path / "pairs.csv").write_text("artwork,track,similarity\nx,y,0.5\ny,x,0.6\n")
    files = "--artworks", tmp_path / "b.csv", "--tracks", tmp_path / "b.csv", "--rule", "stable"
    for space, there in (("rgb", True), ("rgb-1", True), ("rgb-4", True), ("3-D", False)):
        named = figures(run("evaluate", "pairs", tmp_path / "pairs.csv", *files, "--space", space, "--json"))
        assert there == ("same rule, uniform random RGB" in [each["name"] for each in named["baselines"]]), space


def test_a_mix_is_told_and_drawn_with_its_parts_and_its_own_unit(
    wall: Callable[[float], None], tmp_path: Path
) -> None:
    wall(0.9)
    mix = (("rgb15", 3.0), ("va", 1.0))

    async def constants() -> PairingConstants:
        async with reading(tmp_path, print) as (_, records):
            found = []
            for state in await records.all_states():
                score = await records.newest_result(state, Stage.SCORE)
                assert score is not None
                found.append((split_item_id(state.item)[0], item_vectors(score)))
            return constants_of(pairing_space("mix", mix), found)

    basis = PairingBasis(space="mix", rule="stable", mix=mix, constants=asyncio.run(constants()))
    told = paired_in(tmp_path, basis)
    assert (told["space"], told["mix"]) == ("mix", {"rgb15": 0.75, "va": 0.25})
    assert told["unit"] == "share of all pairs that are less similar, 0 to 1"
    assert 0 <= told["minimum"] <= told["maximum"] <= 1
    assert "space mix of rgb15 75%, va 25%, rule stable" in said(run("evaluate", "pairing", "--out", tmp_path / "b"))
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed: pip install '.[plots]'")
    text = (tmp_path / "drawn" / "pairing-default.svg").read_text()
    assert "space mix of rgb15 75%, va 25%, rule stable" in text
    assert "share of all pairs" in text and "cosine" not in text


def test_an_exhibition_is_drawn_and_told_and_an_unknown_one_named(
    wall: Callable[[float], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall(0.9)
    result = run("evaluate", "pairing", "--out", tmp_path / "drawn")
    assert result.exit_code == 0, said(result)
    assert "exhibition 'default': space rgb15, rule stable" in said(result)
    assert "unpaired artworks 4" in said(result)
    monkeypatch.setattr(plots, "can_draw", lambda: False)
    without = run("evaluate", "pairing", "--out", tmp_path / "none")
    assert without.exit_code == 0
    assert "pip install '.[plots]'" in said(without) and "mean similarity" in said(without)
    assert not (tmp_path / "none").exists()
    unknown = run("evaluate", "pairing", "--exhibition", "autumn")
    assert unknown.exit_code == 1
    assert "no exhibition called 'autumn'" in said(unknown)


def test_an_empty_house_says_that_there_are_no_pairs(wall: Callable[[float], None], tmp_path: Path) -> None:
    wall(0.5)

    async def clear() -> None:
        from promenade.reach import external, reading

        assert external()
        async with reading(tmp_path, print) as (_, records):
            await records.objects.delete([info.key for info in await records.objects.list("")])

    asyncio.run(clear())
    result = run("evaluate", "pairing", "--out", tmp_path / "drawn")
    assert result.exit_code == 0, said(result)
    assert "no pairs" in said(result)


def test_what_is_drawn_is_a_picture_and_the_same_each_time(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed: pip install '.[plots]'")
    from PIL import Image

    planted(tmp_path, 0.9, "stable")
    files = "--artworks", tmp_path / "a.csv", "--tracks", tmp_path / "b.csv", "--space", "96-D", "--rule", "stable"
    drawn = []
    for folder in ("one", "two"):
        told = figures(run("evaluate", "pairs", tmp_path / "pairs.csv", *files, "--out", tmp_path / folder, "--json"))
        assert told["drawn"] == [str(tmp_path / folder / f"pairs.{suffix}") for suffix in ("png", "svg")]
        drawn.append([Path(path).read_bytes() for path in told["drawn"]])
    assert drawn[0] == drawn[1]
    with Image.open(tmp_path / "one" / "pairs.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
        assert picture.width >= 1200
    assert (0, 114, 178) in colours, "the pairs' own colour"
    text = (tmp_path / "one" / "pairs.svg").read_text()
    for words in ("random assignment", "coordinates", "lift", "median", "110 pairs", "baseline of 110 pairs"):
        assert words in text
