"""What must hold of pairing from plain files: every spelling is read, bad rows are named and stop nobody."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as some
from typer.testing import CliRunner, Result

from promenade.cli import application
from promenade.pairing.tables import parse_numbers, read_vectors, space_named
from schemas.failures import Refused
from workers.pairing.rules import batch_stable
from workers.pairing.similarity import Cosine

RUNNER = CliRunner()


def run(*words: object) -> Result:
    """The command line, in this process."""
    return RUNNER.invoke(application, [str(word) for word in words])


def said(result: Result) -> str:
    """What it said on either stream, without line breaks."""
    return " ".join((result.stdout + result.stderr).split())


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pair(folder: Path, artworks: Path, tracks: Path, *words: object) -> Result:
    """`promenade pair` into pairs.csv."""
    return run("pair", "--artworks", artworks, "--tracks", tracks, "--out", folder / "pairs.csv", *words)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The list of pairs that was written."""
    with (folder / "pairs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def partners(folder: Path) -> dict[str, str]:
    """Artwork -> track."""
    return {row["artwork"]: row["track"] for row in rows_of(folder)}


ARTWORKS = "id,r,g,b\nred,250,0,0\ngreen,0,250,0\norange,200,120,0\n"
TRACKS = "id,r,g,b\nsunset,220,100,0\nmeadow,10,200,0\nfire,255,20,0\n"


def test_colours_meet_their_like_and_chance_stands_beside(tmp_path: Path) -> None:
    files = file_of(tmp_path, "a.csv", ARTWORKS), file_of(tmp_path, "b.csv", TRACKS)
    result = pair(tmp_path, *files, "--space", "rgb", "--rule", "stable")
    assert result.exit_code == 0, said(result)
    assert partners(tmp_path) == {"red": "fire", "green": "meadow", "orange": "sunset"}
    best = rows_of(tmp_path)[0]
    assert (best["artwork"], best["similarity"]) == ("green", "0.9987523")
    assert float(best["percentile"]) == pytest.approx(100 * 8.5 / 9, abs=0.01)
    assert "3 pairs" in said(result) and "random pairs of the same vectors reach" in said(result)


def test_the_rules_differ_where_they_must(tmp_path: Path) -> None:
    # One number near 1 tempts; the optimal total leaves it. Angles in degrees.
    def table(name: str, angles: dict[str, float]) -> Path:
        lines = [f"{item},{np.cos(np.radians(angle))},{np.sin(np.radians(angle))}" for item, angle in angles.items()]
        return file_of(tmp_path, name, "\n".join(["id,x,y", *lines]))

    artworks, tracks = table("a.csv", {"p": 0, "q": 50}), table("b.csv", {"late": -40, "early": 5})
    found = {}
    for rule in ("greedy", "stable", "optimal"):
        assert pair(tmp_path, artworks, tracks, "--space", "2-D", "--rule", rule).exit_code == 0
        found[rule] = partners(tmp_path)
    assert found["greedy"] == {"p": "late", "q": "early"}, "the first row of the tracks arrived first"
    assert found["stable"] == {"p": "early", "q": "late"}, "5 degrees is the best of all"
    assert found["optimal"] == {"p": "late", "q": "early"}, "cos 40 + cos 45 is more than cos 5 + cos 90"


def test_greedy_serves_rows_in_their_order(tmp_path: Path) -> None:
    artworks = file_of(tmp_path, "a.csv", "id,r,g,b\nbest,100,100,100\nother,250,0,0\n")
    first, second = "z,90,100,100", "a,100,100,100"
    for rows, winner in (((first, second), "z"), ((second, first), "a")):
        tracks = file_of(tmp_path, "b.csv", "\n".join(["id,r,g,b", *rows]))
        assert pair(tmp_path, artworks, tracks, "--rule", "greedy").exit_code == 0
        assert partners(tmp_path)["best"] == winner


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("rgb(200, 100, 50)", [200, 100, 50]),
        ("RGB: (200,100,50)", [200, 100, 50]),
        ("(200; 100; 50)", [200, 100, 50]),
        ("200,100,50", [200, 100, 50]),
        ("R: 200, G: 100, B: 50", [200, 100, 50]),
        ("[2e2 1e2 .5e2]", [200, 100, 50]),
        ("rgb(1,2,3) rgb(4,5,6)", [1, 2, 3, 4, 5, 6]),
        ("RGB: (1,2,3), (4,5,6)", [1, 2, 3, 4, 5, 6]),
        ("12.5", [12.5]),
        ([1, 2.5], [1, 2.5]),
        ("2020-01-02", None),
        ("rgb 1", None),
        ("a quiet sea (1888)", None),
        ("", None),
        (None, None),
    ],
)
def test_cells_hold_numbers_in_many_spellings(cell: object, numbers: list[float] | None) -> None:
    assert parse_numbers(cell) == numbers


@given(some.lists(some.integers(0, 255), min_size=15, max_size=15))
def test_five_triples_read_back_as_they_were_written(numbers: list[int]) -> None:
    triples = [f"rgb({', '.join(map(str, numbers[start : start + 3]))})" for start in range(0, 15, 3)]
    assert parse_numbers(" ".join(triples)) == numbers


def cmean_spelling(name: str, rows: dict[str, Sequence[Sequence[int]]], folder: Path, head: str) -> Path:
    """CMEAN's spelling: a column of ids, a text, five columns of rgb(r, g, b)."""
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", head, "Descrizione", *(f"RGB {part}" for part in range(1, 6))])
        for place, (item, triples) in enumerate(rows.items()):
            writer.writerow([place, item, "a text, with 3 commas", *(f"rgb({r}, {g}, {b})" for r, g, b in triples)])
    return path


def test_cmeans_spelling_gives_five_triples_and_each_of_them(tmp_path: Path) -> None:
    triples = [(10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120), (130, 140, 150)]
    path = cmean_spelling("a.csv", {"Città è bella.jpg": triples}, tmp_path, "Immagine")
    whole = read_vectors(path, space_named("rgb15"))
    assert whole.ids == ("Città è bella.jpg",)
    assert whole.vectors.tolist() == [[number for triple in triples for number in triple]]
    assert whole.ignored == ("Descrizione",)
    assert read_vectors(path, space_named("rgb")).vectors.tolist() == [list(triples[4])]
    assert read_vectors(path, space_named("rgb-2")).vectors.tolist() == [list(triples[1])]


def test_cmeans_files_in_and_cmeans_form_out(tmp_path: Path) -> None:
    one, two = [(200, 50, 20)] * 5, [(20, 60, 220)] * 5
    artworks = cmean_spelling("a.csv", {"storm.jpg": one, "dusk.jpg": two}, tmp_path, "Immagine")
    tracks = cmean_spelling("b.csv", {"slow.mp3": two, "fast.mp3": one}, tmp_path, "Canzone")
    result = pair(tmp_path, artworks, tracks, "--space", "rgb15", "--rule", "stable", "--form", "cmean")
    assert result.exit_code == 0, said(result)
    lines = (tmp_path / "pairs.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "Posizione,Similarità Coseno,Canzone,Immagine Abbinata"
    assert lines[1:] == ["1,1.0000000,slow.mp3,dusk.jpg", "2,1.0000000,fast.mp3,storm.jpg"]


def test_unquoted_triples_semicolons_and_files_without_names_of_columns_are_read(tmp_path: Path) -> None:
    space = space_named("rgb")
    for content in (
        "id,colour\nx,rgb(1, 2, 3)\ny,rgb(4, 5, 6)\n",
        "id;r;g;b\nx;1,0;2;3\ny;4;5;6\n",
        "x,1,2,3\ny,4,5,6\n",
        "x,rgb(1, 2, 3)\ny,rgb(4, 5, 6)\n",
        "\ufeffid\tr\tg\tb\r\nx\t1\t2\t3\r\n\r\ny\t4\t5\t6\r\n",
        "year,title,b,g,r\n1900,x,3,2,1\n1901,y,6,5,4\n",
        "id,0,1,2\nx,1,2,3\ny,4,5,6\n",
        "Dipinto,0,1,2\nx,1,2,3\ny,4,5,6\n",
    ):
        table = read_vectors(file_of(tmp_path, "a.csv", content), space)
        assert (table.ids, table.vectors.tolist()) == (("x", "y"), [[1, 2, 3], [4, 5, 6]]), content
        assert not table.bad


def test_valence_and_arousal_are_taken_by_name(tmp_path: Path) -> None:
    table = read_vectors(file_of(tmp_path, "a.csv", "id,arousal,valence\nx,0.9,0.1\n"), space_named("va"))
    assert table.vectors.tolist() == [[0.1, 0.9]]


def test_bad_rows_are_named_with_their_line_and_stop_nobody(tmp_path: Path) -> None:
    artworks = file_of(
        tmp_path,
        "a.csv",
        'id,r,g,b\nred,250,0,0\n"two\nlines",1,2,3\nshort,1,2\nword,1,two,3\nhole,1,,3\n'
        "nan,nan,1,2\nfar,300,0,0\nred,1,1,1\n,1,2,3\ngreen,0,250,0\n",
    )
    tracks = file_of(tmp_path, "b.csv", TRACKS)
    result = pair(tmp_path, artworks, tracks, "--json")
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert [(each["file"], each["line"]) for each in told["refused"]] == [("a.csv", line) for line in range(5, 12)]
    reasons = [each["reason"] for each in told["refused"]]
    for reason, part in zip(
        reasons,
        (
            "3 values for 4 columns", "g holds 'two'", "g is empty", "not finite", "300 lies outside 0 to 255",
            "'red' is there already, in line 2", "id is empty",
        ),
        strict=True,
    ):  # fmt: skip
        assert part in reason
    assert sorted(partners(tmp_path)) == ["green", "red", "two\nlines"]
    plain = pair(tmp_path, artworks, tracks)
    assert plain.exit_code == 3
    assert "a.csv, line 5: it has 3 values for 4 columns." in said(plain)
    assert "7 rows were left out" in said(plain)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "a.csv is empty"),
        ("  \n\n", "a.csv is empty"),
        ("id,r,g,b\n", "a.csv holds no vector that can be used"),
        ("id,r,g\nx,1,2\n", "it has 2 numbers, and rgb wants 3"),
        ("id,title\nx,sea\n", "has no columns of numbers"),
        ("r,g,b\n1,2,3\n", "has no column of ids"),
        ("id,r,g,b\nx,1,2,3\nCittà,4,5,6\n".encode("latin-1"), "not UTF-8 (line 3)"),
        ("id,r,g,b\nx,1,2,3\n".encode("utf-16"), "UTF-16"),
        (b"id,r,g,b\nx,1,2,\0\n", "zero bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_plain_words(
    tmp_path: Path, content: str | bytes, part: str
) -> None:
    artworks, tracks = file_of(tmp_path, "a.csv", content), file_of(tmp_path, "b.csv", TRACKS)
    result = pair(tmp_path, artworks, tracks)
    assert result.exit_code == 1
    assert part in said(result)
    assert "Traceback" not in said(result)
    assert not (tmp_path / "pairs.csv").exists()


def test_an_open_quote_is_named_and_what_came_before_counts(tmp_path: Path) -> None:
    table = read_vectors(file_of(tmp_path, "a.csv", 'id,r,g,b\nx,1,2,3\n"y,4,5,6\nz,7,8,9\n'), space_named("rgb"))
    assert table.ids == ("x",)
    assert "breaks off" in table.bad[0].reason


def test_files_that_are_not_there_and_wrong_words_are_said_plainly(tmp_path: Path) -> None:
    artworks, tracks = file_of(tmp_path, "a.csv", ARTWORKS), file_of(tmp_path, "b.csv", TRACKS)
    assert "cannot be read" in said(pair(tmp_path, tmp_path / "none.csv", tracks))
    assert "is no space" in said(pair(tmp_path, artworks, tracks, "--space", "cmyk"))
    assert pair(tmp_path, artworks, tracks, "--rule", "best").exit_code == 2
    assert pair(tmp_path, artworks, tracks, "--floor", "2").exit_code == 2
    assert pair(tmp_path, artworks, tracks, "--floor", "nan").exit_code == 2
    assert "no file of a known kind" in said(pair(tmp_path, file_of(tmp_path, "a.xlsx", "x"), tracks))
    over = run("pair", "--artworks", artworks, "--tracks", tracks, "--out", artworks)
    assert over.exit_code == 1 and artworks.read_text() == ARTWORKS
    points = file_of(tmp_path, "v.csv", "id,v,a\nx,0.1,0.2\n")
    assert "CMEAN's form lists cosines" in said(pair(tmp_path, points, points, "--space", "va", "--form", "cmean"))


def test_columns_in_another_order_are_not_compared(tmp_path: Path) -> None:
    left = file_of(tmp_path, "a.csv", "id,joy,fear\nx,1,2\n")
    right = file_of(tmp_path, "b.csv", "id,fear,joy\ny,2,1\n")
    assert "another order" in said(pair(tmp_path, left, right, "--space", "2-D"))


def test_a_floor_leaves_items_free(tmp_path: Path) -> None:
    artworks, tracks = file_of(tmp_path, "a.csv", ARTWORKS), file_of(tmp_path, "b.csv", TRACKS)
    for rule in ("greedy", "stable", "optimal"):
        result = pair(tmp_path, artworks, tracks, "--rule", rule, "--floor", 0.998, "--json")
        told = json.loads(result.stdout)
        assert (told["pairs"], told["unpaired_artworks"], told["unpaired_tracks"]) == (1, 2, 2), told
        assert told["minimum"] >= 0.998
    result = pair(tmp_path, artworks, tracks, "--floor", 1)
    assert result.exit_code == 0 and "lists no pairs" in said(result)
    assert rows_of(tmp_path) == []


def test_noise_that_was_paired_with_a_floor_is_judged_by_the_command_that_pair_prints(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    files = []
    for name in ("a picture's numbers", "b"):
        vectors = generator.uniform(0, 255, (120, 15)).round(2)
        rows = [",".join([f"{name[0]}{place}", *map(str, vector)]) for place, vector in enumerate(vectors)]
        columns = ",".join(f"n{place}" for place in range(15))
        files.append(file_of(tmp_path, f"{name}.csv", "\n".join([f"id,{columns}", *rows])))
    shown = pair(tmp_path, *files, "--space", "rgb15", "--rule", "stable", "--floor", 0.9)
    assert shown.exit_code == 0, said(shown)
    command = next(line for line in shown.stdout.splitlines() if line.startswith("promenade evaluate"))
    command = command.removeprefix("promenade ")
    told = json.loads(run(*shlex.split(command), "--json").stdout)
    shuffled = next(each for each in told["baselines"] if "shuffled" in each["name"])
    assert told["floor"] == 0.9
    assert abs(shuffled["deviations"]) < 4 and shuffled["lift"] == pytest.approx(1, abs=0.01), "there is no structure"
    assert abs(told["pairs"] - shuffled["pairs"]) < 4 * shuffled["pairs_spread"]
    assert not [note for note in told["notes"] if "--floor" in note]
    # Without the floor the same noise looks like structure; that it may be missing is said.
    without = json.loads(run(*[word for word in shlex.split(command) if "--floor" not in word], "--json").stdout)
    assert next(each for each in without["baselines"] if "shuffled" in each["name"])["deviations"] > 8
    assert [note for note in without["notes"] if "give the same --floor here" in note]
    assert run("evaluate", "pairs", tmp_path / "pairs.csv", "--floor", "nan").exit_code == 2


def test_a_published_list_is_judged_with_its_floor(tmp_path: Path) -> None:
    lines = [f"{place},0.97,song{place},picture{place}" for place in range(1, 101)]
    head = "Posizione,Similarità Coseno,Canzone,Immagine Abbinata"
    path = file_of(tmp_path, "published.csv", "\n".join([head, *lines]))
    told = {
        floor: json.loads(run("evaluate", "pairs", path, *floor, "--json").stdout)
        for floor in ((), ("--floor", "0.9"), ("--floor", "1"))
    }
    means = [(each["baselines"][0]["mean"], each["baselines"][0]["pairs"]) for each in told.values()]
    assert means[0][0] < 0.9 < means[1][0] and means[1][1] < 100 == means[0][1]
    assert means[2] == (None, 0), "no two uniform random colours are the same"
    assert "numbers of pairs cannot be compared" in " ".join(told["--floor", "0.9"]["notes"])


def test_parquet_npy_and_npz_say_the_same_as_csv(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    vectors = generator.normal(size=(9, 6))
    names = [f"item {place}" for place in range(9)]
    lines = [",".join([name, *map(repr, map(float, vector))]) for name, vector in zip(names, vectors, strict=True)]
    files = [file_of(tmp_path, "v.csv", "\n".join(["id,a,b,c,d,e,f", *lines]))]
    columns: dict[str, Any] = {"id": names} | {f"x{place}": vectors[:, place] for place in range(6)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "wide.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"id": names, "vector": vectors.tolist()}), tmp_path / "list.parquet")
    np.savez(tmp_path / "v.npz", ids=np.array(names), vectors=vectors)
    files += [tmp_path / "wide.parquet", tmp_path / "list.parquet", tmp_path / "v.npz"]
    space = space_named("6-D")
    for path in files:
        table = read_vectors(path, space)
        assert table.ids == tuple(names), path.name
        assert np.array_equal(table.vectors, vectors)
    np.save(tmp_path / "v.npy", vectors.reshape(9, 2, 3))
    rows = read_vectors(tmp_path / "v.npy", space)
    assert rows.ids == tuple(str(place) for place in range(9))
    assert np.array_equal(rows.vectors, vectors)


def test_arrays_name_their_bad_rows_and_run_no_code(tmp_path: Path) -> None:
    space = space_named("2d")
    np.save(tmp_path / "v.npy", [[1.0, 2.0], [np.nan, 1.0], [3.0, 4.0]])
    table = read_vectors(tmp_path / "v.npy", space)
    assert (table.ids, [str(each) for each in table.bad]) == (
        ("0", "2"),
        ["v.npy, row 1: one of its numbers is not finite (NaN or infinite)."],
    )
    np.save(tmp_path / "o.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "twice.npz", ids=np.array(["x", "x"]), vectors=np.eye(2))
    np.savez(tmp_path / "short.npz", ids=np.array(["x"]), vectors=np.eye(2))
    np.savez(tmp_path / "many.npz", one=np.eye(2), two=np.eye(2))
    np.save(tmp_path / "flat.npy", np.arange(4.0))
    np.save(tmp_path / "none.npy", np.zeros((0, 2)))
    file_of(tmp_path, "broken.npy", b"\x93NUMPY")
    head = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 2), }"
    file_of(tmp_path, "lying.npy", head.ljust(127) + b"\n")
    file_of(tmp_path, "cut.npy", head[:-3].ljust(127) + b"\n")
    file_of(tmp_path, "empty.npz", b"")
    assert "'x' is there already, in row 0" in read_vectors(tmp_path / "twice.npz", space).bad[0].reason
    for name, part in (
        ("o.npy", "Python objects"),
        ("short.npz", "`ids` must be"),
        ("many.npz", "name the array `vectors`"),
        ("flat.npy", "shape"),
        ("broken.npy", "broken or empty"),
        ("none.npy", "holds no vector"),
        ("lying.npy", "broken or empty"),
        ("cut.npy", "broken or empty"),
        ("empty.npz", "broken or empty"),
    ):
        with pytest.raises(Refused, match=part):
            read_vectors(tmp_path / name, space)


def test_the_same_files_give_the_same_bytes_whatever_the_order_of_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    written = []
    lines = {
        side: [f"{side}{place},{','.join(map(str, generator.integers(0, 9, 3)))}" for place in range(60)]
        for side in "ab"
    }
    for order in (list(range(60)), generator.permutation(60).tolist()):
        files = [file_of(tmp_path, f"{side}.csv", "\n".join(lines[side][place] for place in order)) for side in "ab"]
        assert pair(tmp_path, files[0], files[1], "--rule", "stable").exit_code == 0
        written.append((tmp_path / "pairs.csv").read_bytes())
    assert written[0] == written[1]


def test_many_items_are_paired_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from promenade.pairing import truth

    generator = np.random.default_rng(6)
    left, right = (
        {f"{side}{place}": vector for place, vector in enumerate(generator.random((30, 3)))} for side in "ab"
    )
    order = {name: 30 - place for place, name in enumerate(right)}
    rules = ("greedy", "stable", "optimal")
    at_once = {rule: truth.pair_all(left, right, Cosine(), rule, sequences=order) for rule in rules}
    monkeypatch.setattr(truth, "_DENSE", 0)
    for rule in rules:
        assert truth.pair_all(left, right, Cosine(), rule, sequences=order) == at_once[rule]
    assert at_once["stable"] == batch_stable(left, right, Cosine())
