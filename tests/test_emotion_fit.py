"""The fitting command on small made tables: reading, refusing, folds over tracks, honest figures, what it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models import fit, fit_captions
from edge_models.emotion_text import DIMENSION, Coefficients, raw_rgb
from edge_models.norms import Norms

TABLE = {
    "happy": (8.4, 6.0, 7.2),
    "calm": (6.9, 1.7, 7.4),
    "sad": (2.1, 3.5, 3.8),
    "rage": (2.5, 6.6, 4.5),
    "table": (5.2, 2.9, 5.5),
    "music": (7.3, 4.2, 5.6),
}


def write(path: Path, rows: list[list[Any]], header: str = "track,part,description,r,g,b") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    return path


def good_rows(tracks: int = 12) -> list[list[Any]]:
    return [
        [f"{track:03d}", part, "happy music", 10 * track, 50, 60] for track in range(tracks) for part in fit.PARTS
    ]


def test_a_good_table_is_read_in_the_order_of_tracks_and_parts(tmp_path: Path) -> None:
    rows = good_rows()
    table = fit.read_table(write(tmp_path / "table.csv", rows[::-1]))
    assert table.tracks == [f"{track:03d}" for track in range(12)]
    assert table.rgb.shape == (60, 3)
    assert table.rgb[5:10, 0].tolist() == [10.0] * 5
    assert table.groups.tolist()[:6] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({3: 300}, "line 3: r is 300; it must lie in 0..255"),
        ({4: "much"}, "line 3: g is 'much'"),
        ({5: "nan"}, "line 3: b is nan"),
        ({1: "fragment-9"}, "line 3: part is 'fragment-9'"),
        ({2: " "}, "line 3: description is empty"),
        ({0: ""}, "line 3: track is empty"),
        ({1: "fragment-1"}, "line 3: fragment-1 of track 000 comes twice"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, change: dict[int, Any], reason: str) -> None:
    rows = good_rows()
    for column, value in change.items():
        rows[1][column] = value
    with pytest.raises(fit.BadTable) as refusal:
        fit.read_table(write(tmp_path / "table.csv", rows))
    assert reason in str(refusal.value)


def test_a_line_break_in_a_description_does_not_shift_the_lines(tmp_path: Path) -> None:
    rows = good_rows()
    rows[0][2], rows[1][3] = "two\nlines", -1
    with pytest.raises(fit.BadTable, match="line 4: r is -1"):
        fit.read_table(write(tmp_path / "table.csv", rows))


def test_a_missing_column_part_or_track_is_named(tmp_path: Path) -> None:
    with pytest.raises(fit.BadTable, match="no column b"):
        fit.read_table(write(tmp_path / "a.csv", [], header="track,part,description,r,g"))
    with pytest.raises(fit.BadTable, match="track 000 lacks whole"):
        fit.read_table(write(tmp_path / "b.csv", [row for row in good_rows() if row[:2] != ["000", "whole"]]))
    with pytest.raises(fit.BadTable, match="3 tracks; at least 10"):
        fit.read_table(write(tmp_path / "c.csv", good_rows(3)))


def test_the_command_refuses_a_bad_table_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    path = write(tmp_path / "table.csv", [["a", "whole", "x", 1, 2, 999]])
    assert fit.main([str(path), "--repository", str(tmp_path), "--out", str(out)]) == 2
    assert "line 2: b is 999" in capsys.readouterr().err
    assert not out.exists()


def test_all_rows_of_a_track_lie_in_one_fold() -> None:
    groups = np.repeat(np.arange(37), 5)
    folds = fit.folds_of(groups, 10)
    assert all(len(set(folds[groups == group])) == 1 for group in range(37))
    counts = np.bincount(folds) // 5
    assert len(counts) == 10 and counts.max() - counts.min() <= 1
    assert np.array_equal(folds, fit.folds_of(groups, 10))


@pytest.mark.parametrize("rows", [50, 5])
def test_the_ridge_equals_its_normal_equations(rows: int) -> None:
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(rows, 7)), generator.normal(size=(rows, 2))
    (weights,), mean = fit.ridge(features, targets, [3.0])
    centred = features - features.mean(axis=0)
    expected = np.linalg.solve(centred.T @ centred + 3.0 * np.eye(7), centred.T @ (targets - targets.mean(axis=0)))
    assert np.allclose(weights, expected)
    assert np.allclose(mean, features.mean(axis=0))


@pytest.fixture(scope="module")
def made() -> tuple[fit.Features, fit.Table]:
    """60 tracks whose RGB hangs on one direction of the vectors and on the words, with noise."""
    generator, norms = np.random.default_rng(1), Norms(TABLE)
    count = 300
    vectors = generator.normal(size=(count, DIMENSION)) / np.sqrt(DIMENSION)
    texts = [" ".join(generator.choice(sorted(TABLE), 20)) for _ in range(count)]
    words = [norms.words(text) for text in texts]
    valence = np.array([np.mean([word.valence for word in each]) for each in words])
    rgb = np.stack([vectors[:, 0] * 900, valence * 400, -valence * 300 + vectors[:, 1] * 300], axis=1)
    rgb = np.clip(rgb - rgb.mean(axis=0) + 120 + generator.normal(0, 5, rgb.shape), 0, 255)
    return fit.Features(vectors, words), fit.Table([f"{n}" for n in range(60)], texts, rgb)


def test_what_can_be_learned_is_learned_and_noise_is_not(made: tuple[fit.Features, fit.Table]) -> None:
    features, table = made
    figures = fit.cross_validated(features, table, folds=3)
    assert figures["this reading"]["g"] > 0.7
    assert figures["one constant colour"]["r"] == figures["one constant colour"]["b"] == 0.0
    assert figures["this reading"]["cosine"] > figures["one constant colour"]["cosine"]
    noise = fit.Table(table.tracks, table.descriptions, np.random.default_rng(2).uniform(0, 255, (300, 3)))
    assert max(abs(fit.cross_validated(features, noise, folds=3)["this reading"][name]) for name in "rgb") < 0.25


def test_the_written_numbers_read_like_the_fit(made: tuple[fit.Features, fit.Table], tmp_path: Path) -> None:
    features, table = made
    fitted = fit.fit_rgb(features, table.rgb, table.groups, np.arange(300))
    coefficients, domains = fit.coefficients_of(
        fitted, features, np.zeros((DIMENSION, 2)) + 0.01, np.array([0.5, 0.4])
    )
    path = tmp_path / "coefficients.json"
    path.write_text(fit.as_file(coefficients, domains, {"made": "2026-11-21"}))
    read = Coefficients.read(path)
    first = raw_rgb(features.words[:5], features.vectors[:5], read)
    assert np.allclose(first, fitted.read(features)[:5], atol=0.3)
    assert json.loads(path.read_text())["provenance"] == {"made": "2026-11-21"}
    assert fit.numbers_in(path) <= 4000


def test_own_captions_are_standardised_in_their_domain(made: tuple[fit.Features, fit.Table]) -> None:
    features, table = made
    fitted = fit.fit_rgb(features, table.rgb, table.groups, np.arange(300))
    coefficients, _ = fit.coefficients_of(
        fitted, features, np.random.default_rng(0).normal(size=(DIMENSION, 2)), np.array([0.5, 0.4])
    )
    captions = [
        {
            "kind": "artwork",
            "texts": table.descriptions[start : start + 5],
            "phrases": [[]] * 5,
            "measurements": [{"kind": "picture", "light": {"brightness": (start + n) / 300}} for n in range(5)],
        }
        for start in range(0, 300, 5)
    ]
    vectors = [features.vectors[start : start + 5] for start in range(0, 300, 5)]
    domains = fit.fit_domains(coefficients, Norms(TABLE), captions, vectors)
    assert set(domains) == {"artwork", "text"}
    assert all(value > 0 for value in domains["artwork"]["rgb"]["spread"])
    assert all(0.3 <= value <= 2 for value in domains["artwork"]["fused_rgb"]["spread"])
    assert domains["text"]["fused_rgb"] == {"centre": [0.0] * 3, "spread": [1.0] * 3}


def test_too_few_captions_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coefficients = tmp_path / "coefficients.json"
    coefficients.write_text("untouched")
    arguments = [str(tmp_path), "--repository", str(tmp_path), "--coefficients", str(coefficients)]
    assert fit_captions.main(arguments) == 2
    assert "found 0 pictures and 0 recordings; give at least 9 of each" in capsys.readouterr().err
    assert coefficients.read_text() == "untouched"
