"""Fit the emotion coefficients on a table of scored descriptions, and measure them: `python -m edge_models.fit CSV`.

Done by hand when the fitting data or the captions change; not part of installing or testing. The table
(`track,part,description,r,g,b`; five parts a track: fragment-1 .. fragment-4, whole) is given by whoever has it; only
numbers go into the coefficients file. Measured by cross-validation over tracks: all rows of a track lie in one fold,
and the strength of the ridge is chosen inside each training set, so the printed figures hold for tracks never seen.
What the coefficients mean is said in `edge_models.emotion_text`.

The product's own captions start with the domain of the descriptions; run `edge_models.fit_captions` afterwards, which
standardises them.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models import emotion, emotion_measured
from edge_models.emotion_text import (
    COEFFICIENTS,
    DIMENSION,
    WORD_FEATURES,
    Coefficients,
    Domain,
    Floats,
    mean_word_features,
    read_texts,
    standardised_rgb,
    weights_of,
    word_features,
)
from edge_models.local import LocalModels
from edge_models.norms import Norms, WeightedWord

PARTS = ("fragment-1", "fragment-2", "fragment-3", "fragment-4", "whole")
FOLDS = 10
STRENGTHS = (300.0, 1000.0, 2000.0, 5000.0, 10000.0)
# Scale of each group of standardised features: what a ridge of one strength may take from it.
_SCALES = (
    ("vector", DIMENSION, 1.0),
    ("context_vector", DIMENSION, 0.5),
    ("words", 11, 3.0),
    ("context_words", 11, 3.0),
)
WORD_STRENGTH = 3.0
_NEUTRAL = {"centre": [0.0], "spread": [1.0]}


class BadTable(ValueError):
    """The table cannot be used; the message names each bad line."""


@dataclass(frozen=True)
class Table:
    """Scored descriptions, five a track in the order of PARTS, tracks in order of name."""

    tracks: list[str]
    descriptions: list[str]
    rgb: Floats  # [5 tracks, 3]

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """The track number of each row."""
        return np.arange(len(self.descriptions)) // 5


def read_table(path: Path) -> Table:
    """Read and check the table.

    Raises:
        BadTable: a column is missing, or rows are bad; the first twenty are named with their line in the file.
    """
    problems: list[str] = []
    rows: dict[str, dict[str, tuple[str, list[float]]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [
            name for name in ("track", "part", "description", "r", "g", "b") if name not in (reader.fieldnames or ())
        ]
        if missing:
            raise BadTable(f"{path} has no column {', '.join(missing)}; the header is track,part,description,r,g,b")
        for row in reader:
            try:
                parts = rows.setdefault(_field(row, "track"), {})
                part = _field(row, "part")
                if part not in PARTS:
                    raise ValueError(f"part is {part!r}; it must be one of {', '.join(PARTS)}")
                if part in parts:
                    raise ValueError(f"{part} of track {row['track']} comes twice")
                parts[part] = (_field(row, "description"), [_channel(row, name) for name in "rgb"])
            except ValueError as error:
                problems.append(f"line {reader.line_num}: {error}")
    if not problems:
        problems = [
            f"track {track} lacks {', '.join(part for part in PARTS if part not in parts)}"
            for track, parts in rows.items()
            if len(parts) < len(PARTS)
        ]
    if len(rows) < FOLDS and not problems:
        problems = [f"there are {len(rows)} tracks; at least {FOLDS} are needed, one a fold"]
    if problems:
        more = f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise BadTable(f"{path} cannot be used:\n" + "\n".join(problems[:20]) + more)
    tracks = sorted(rows)
    cells = [rows[track][part] for track in tracks for part in PARTS]
    return Table(tracks, [text for text, _ in cells], np.array([rgb for _, rgb in cells], float))


def folds_of(groups: npt.NDArray[np.int64], folds: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """A fold number for each row; rows of one group share it, groups are dealt out at random but repeatably."""
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    fold = {int(group): number % folds for number, group in enumerate(order)}
    return np.array([fold[int(group)] for group in groups])


def ridge(features: Floats, targets: Floats, strengths: Sequence[float]) -> tuple[list[Floats], Floats]:
    """Ridge weights [n_features, n_targets] for each strength (closed form), and the features' means.

    Solved over rows where there are fewer rows than features: the same weights, by the smaller matrix.
    """
    mean = features.mean(axis=0)
    centred, wanted = features - mean, targets - targets.mean(axis=0)
    by_rows = len(features) < features.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if by_rows else centred.T @ centred)
    projected = vectors.T @ (wanted if by_rows else centred.T @ wanted)
    solutions = [vectors @ (projected / (np.maximum(values, 0.0) + strength)[:, None]) for strength in strengths]
    return [centred.T @ solution for solution in solutions] if by_rows else solutions, mean


@dataclass(frozen=True)
class Features:
    """What a text is read by: vectors [n, 384] and the known words of each text, five texts an item."""

    vectors: Floats
    words: list[list[WeightedWord]]

    def centre(self, rows: npt.NDArray[Any]) -> Floats:
        """The mean of the word features [11] over the words of these rows' texts, each text counting once."""
        means = [word_features(self.words[row]).mean(axis=0) for row in rows if self.words[row]]
        return np.asarray(np.mean(means, axis=0))

    def matrix(self, centre: Floats) -> Floats:
        """Rows of features in the order of `_SCALES`, not scaled."""
        words = np.array([mean_word_features(each, centre) for each in self.words])
        return np.hstack([self.vectors, _together(self.vectors), words, _together(words)])


def _together(rows: Floats) -> Floats:
    """Each row replaced by the mean of its item's five rows."""
    means = rows.reshape(-1, 5, rows.shape[1]).mean(axis=1)
    return np.repeat(means, 5, axis=0)


@dataclass(frozen=True)
class RgbFit:
    """Weights [790, 3] on raw features and what they were fitted around."""

    weights: Floats
    feature_mean: Floats
    target_mean: Floats
    target_spread: Floats
    word_centre: Floats
    strengths: list[float]

    def read(self, features: Features) -> Floats:
        """RGB readings [n, 3] of all rows."""
        return self.target_mean + (features.matrix(self.word_centre) - self.feature_mean) @ self.weights


def fit_rgb(features: Features, rgb: Floats, groups: npt.NDArray[np.int64], rows: npt.NDArray[Any]) -> RgbFit:
    """Fit on these rows; the strength of each channel is the best of STRENGTHS in five folds inside them."""
    centre = features.centre(rows)
    raw, targets, own = features.matrix(centre)[rows], rgb[rows], groups[rows]
    deviation = raw.std(axis=0) + 1e-9
    scale = np.concatenate([np.full(size, factor) for _, size, factor in _SCALES]) / deviation
    scaled = raw * scale
    inner = folds_of(own, 5, seed=1)
    read = np.zeros((len(STRENGTHS), *targets.shape))
    for fold in range(5):
        train = inner != fold
        solutions, mean = ridge(scaled[train], targets[train], STRENGTHS)
        for number, weights in enumerate(solutions):
            read[number, ~train] = (scaled[~train] - mean) @ weights + targets[train].mean(axis=0)
    best = [int(np.argmax([pearson(read[n, :, c], targets[:, c]) for n in range(len(STRENGTHS))])) for c in range(3)]
    solutions, _ = ridge(scaled, targets, STRENGTHS)
    weights = np.stack([solutions[number][:, channel] for channel, number in enumerate(best)], axis=1)
    return RgbFit(
        weights * scale[:, None],
        raw.mean(axis=0),
        targets.mean(axis=0),
        targets.std(axis=0),
        centre,
        [STRENGTHS[number] for number in best],
    )


def plain_norms(features: Features, rgb: Floats, rows: npt.NDArray[Any]) -> Floats:
    """The comparison: mean norms alone (arousal -> R; valence - arousal -> G; -valence - arousal -> B).

    Scaled to the data by one line a channel, fitted on `rows`, so that a cosine is meaningful. Readings of all rows.
    """
    means = np.array(
        [
            [np.mean([w.valence for w in words]), np.mean([w.arousal for w in words])] if words else [0.5, 0.4]
            for words in features.words
        ]
    )
    valence, arousal = means.T
    plain = np.stack([arousal, valence - arousal, -valence - arousal], axis=1)
    lines = [np.polyfit(plain[rows, channel], rgb[rows, channel], 1) for channel in range(3)]
    return np.stack([np.polyval(line, plain[:, channel]) for channel, line in enumerate(lines)], axis=1)


def pearson(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    if float(np.std(one)) < 1e-12 or float(np.std(other)) < 1e-12:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def judged(read: Floats, rgb: Floats) -> dict[str, float]:
    """r of each channel, mean cosine of the triples, mean absolute error, for readings [n, 3] bounded to 0..255."""
    bounded = np.clip(read, 0, 255)
    lengths = np.linalg.norm(bounded, axis=1) * np.linalg.norm(rgb, axis=1)
    cosine = float(np.mean((bounded * rgb).sum(axis=1) / np.maximum(lengths, 1e-9)))
    figures = {name: pearson(bounded[:, channel], rgb[:, channel]) for channel, name in enumerate("rgb")}
    return {**figures, "cosine": cosine, "error": float(np.abs(bounded - rgb).mean())}


def cross_validated(
    features: Features, table: Table, folds: int = FOLDS, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Figures of the three ways on tracks not fitted on: one constant colour, plain word norms, this reading."""
    fold = folds_of(table.groups, folds, seed)
    read = {name: np.zeros_like(table.rgb) for name in ("one constant colour", "plain word norms", "this reading")}
    for number in range(folds):
        test, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        read["one constant colour"][test] = table.rgb[train].mean(axis=0)
        read["plain word norms"][test] = plain_norms(features, table.rgb, train)[test]
        read["this reading"][test] = fit_rgb(features, table.rgb, table.groups, train).read(features)[test]
    # A constant colour differs a little from fold to fold, which is no correlation with anything.
    read["one constant colour"][:] = read["one constant colour"].mean(axis=0)
    return {name: judged(each, table.rgb) for name, each in read.items()}


def fit_words(norms: Norms, words: Sequence[str], vectors: Floats) -> tuple[Floats, Floats, list[float]]:
    """Ridge from vectors of single words [n, 384] to valence and arousal: weights, constant, r of each (5 folds)."""
    found = [norms.find(word) for word in words]
    targets = np.array([(word.valence, word.arousal) for word in found if word is not None], float)
    fold = folds_of(np.arange(len(words)), 5)
    read = np.zeros_like(targets)
    for number in range(5):
        train = fold != number
        (weights,), mean = ridge(vectors[train], targets[train], [WORD_STRENGTH])
        read[~train] = (vectors[~train] - mean) @ weights + targets[train].mean(axis=0)
    (weights,), mean = ridge(vectors, targets, [WORD_STRENGTH])
    r = [pearson(read[:, column], targets[:, column]) for column in range(2)]
    return weights, targets.mean(axis=0) - mean @ weights, r


def fit_domains(
    start: Coefficients, norms: Norms, captions: Sequence[Mapping[str, Any]], vectors: Sequence[Floats]
) -> dict[str, dict[str, Any]]:
    """Centres and spreads of the product's own captions.

    `captions` are items with kind, texts, phrases and measurements of five parts; `vectors` [5, 384] of each.
    """
    domains: dict[str, dict[str, Any]] = {}
    for name in ("artwork", "track", emotion.FREE_TEXT):
        chosen = [n for n, item in enumerate(captions) if name in (item["kind"], emotion.FREE_TEXT)]
        if not chosen:
            continue
        if name == emotion.FREE_TEXT:
            # Free text may speak of either kind: both count alike, however many of each there are.
            kinds = [[n for n in chosen if captions[n]["kind"] == kind] for kind in ("artwork", "track")]
            most = max(len(each) for each in kinds)
            chosen = [n for each in kinds if each for n in each * round(most / len(each))]
        words = [
            [
                norms.words(text, phrases) if name != emotion.FREE_TEXT else emotion.free_words(norms, text)
                for text, phrases in zip(captions[n]["texts"], captions[n]["phrases"], strict=True)
            ]
            for n in chosen
        ]
        fields = text_domain(start, words, [vectors[n] for n in chosen])
        if name != emotion.FREE_TEXT:
            now = Domain.of(fields)
            coefficients = _with(start, {name: now})
            standard = []
            for n, each in zip(chosen, words, strict=True):
                readings = read_texts(each, vectors[n], coefficients, name)
                for reading, measurement in zip(readings, captions[n]["measurements"], strict=True):
                    found = emotion_measured.cues(measurement, norms)
                    rgb, va = emotion.fused_standard(standardised_rgb(reading.rgb, now), reading.va, found)
                    standard.append([*rgb, *va])
            centre, spread = np.mean(standard, axis=0), np.std(standard, axis=0)
            fields["fused_rgb"] = {"centre": list(centre[:3]), "spread": list(np.maximum(spread[:3], 0.3))}
            fields["fused_va"] = {"centre": list(centre[3:]), "spread": list(np.maximum(spread[3:], 0.3))}
        domains[name] = fields
    return domains


def text_domain(
    start: Coefficients, words: Sequence[Sequence[Sequence[WeightedWord]]], vectors: Sequence[Floats]
) -> dict[str, Any]:
    """Centres and spreads of these items' texts; the fused ones are left neutral."""
    flat = [each for item in words for each in item]
    tables = [np.array([(word.valence, word.arousal) for word in each], float) for each in flat]
    centre = np.mean(
        [
            table.T @ weights_of(each) / weights_of(each).sum()
            for table, each in zip(tables, flat, strict=True)
            if each
        ],
        axis=0,
    )
    by_words = np.array(
        [
            weights_of(each) @ (table - centre) if each else np.zeros(2)
            for table, each in zip(tables, flat, strict=True)
        ]
    )
    by_vector = np.concatenate(list(vectors)) @ start.va_vector + start.va_constant
    halves = 0.5 * (by_words / by_words.std(axis=0)) + 0.5 * (by_vector - by_vector.mean(axis=0)) / by_vector.std(
        axis=0
    )
    neutral = Domain(
        rgb=(start.mean, start.spread),
        words_va=(centre, by_words.std(axis=0)),
        vector_va=(by_vector.mean(axis=0), by_vector.std(axis=0)),
        va_spread=halves.std(axis=0),
        fused_rgb=(np.zeros(3), np.ones(3)),
        fused_va=(np.zeros(2), np.ones(2)),
    )
    coefficients = _with(start, {"description": neutral})
    rgb = np.array(
        [
            reading.rgb
            for item, rows in zip(words, vectors, strict=True)
            for reading in read_texts(item, rows, coefficients, "description")
        ]
    )
    return {
        "rgb": {"centre": list(rgb.mean(axis=0)), "spread": list(rgb.std(axis=0))},
        "words_va": {"centre": list(centre), "spread": list(by_words.std(axis=0))},
        "vector_va": {"centre": list(by_vector.mean(axis=0)), "spread": list(by_vector.std(axis=0))},
        "va_spread": list(halves.std(axis=0)),
        "fused_rgb": {name: value * 3 for name, value in _NEUTRAL.items()},
        "fused_va": {name: value * 2 for name, value in _NEUTRAL.items()},
    }


def _with(start: Coefficients, domains: Mapping[str, Domain]) -> Coefficients:
    return Coefficients(**{**start.__dict__, "domains": {**start.domains, **domains}})


def coefficients_of(
    fit: RgbFit, features: Features, va_vector: Floats, va_constant: Floats
) -> tuple[Coefficients, dict[str, Any]]:
    """The coefficients (with the domain of the descriptions only), and their part of the file."""
    groups: dict[str, Floats] = {}
    first = 0
    for name, size, _ in _SCALES:
        groups[name] = fit.weights[first : first + size]
        first += size
    # The typical reading of each group is moved out, so that a share is what a text adds to a typical one; words are
    # centred at the typical words, and what is left of their mean goes into the constant.
    size = DIMENSION
    means = fit.feature_mean
    own_rest = (means[2 * size : 2 * size + WORD_FEATURES] - fit.word_centre) @ groups["words"]
    all_rest = (means[2 * size + WORD_FEATURES :] - fit.word_centre) @ groups["context_words"]
    start = Coefficients(
        version="1",
        mean=fit.target_mean - own_rest - all_rest,
        spread=fit.target_spread,
        vector=groups["vector"],
        context_vector=groups["context_vector"],
        words=groups["words"],
        context_words=groups["context_words"],
        vector_centre=means[:size] @ groups["vector"],
        context_centre=means[size : 2 * size] @ groups["context_vector"],
        word_centre=fit.word_centre,
        va_vector=va_vector,
        va_constant=va_constant,
        domains={},
    )
    items = [features.words[n : n + 5] for n in range(0, len(features.words), 5)]
    description = text_domain(start, items, list(features.vectors.reshape(-1, 5, size)))
    return _with(start, {"description": Domain.of(description)}), {"description": description}


def as_file(coefficients: Coefficients, domains: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The coefficients file: numbers of five significant digits, one matrix row a line of text."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, np.ndarray | list | tuple):
            return [rounded(each) for each in value]
        return float(f"{float(value):.5g}") if isinstance(value, float | np.floating) else value

    rgb = {
        name: rounded(getattr(coefficients, name))
        for name in (
            *("mean", "spread", "vector", "context_vector", "words", "context_words"),
            *("vector_centre", "context_centre", "word_centre"),
        )
    }
    va = {"vector": rounded(coefficients.va_vector), "constant": rounded(coefficients.va_constant)}
    fields = {
        "version": coefficients.version,
        "provenance": provenance,
        "rgb": rgb,
        "valence_arousal": va,
        "domains": rounded(domains),
    }
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    # indent=1 puts each number on its own line; a row of a matrix reads better on one.
    return _rows_on_lines(text) + "\n"


def _rows_on_lines(text: str) -> str:
    return re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)


Figures = Mapping[str, Mapping[str, float]]


def report_of(figures: Sequence[Figures], table: Table, provenance: Mapping[str, Any]) -> str:
    """Table (i) as Markdown; `figures` are those of repeated cross-validations, whose mean is shown."""
    lines = [
        f"{len(table.descriptions)} descriptions of {len(table.tracks)} tracks, {FOLDS} folds over tracks, "
        f"{len(figures)} deals of the folds (mean). r is Pearson's with the language model's score.",
        "",
        "| way | r of R | r of G | r of B | cosine | mean abs. error |",
        "|---|---|---|---|---|---|",
    ]
    for way in figures[0]:
        means = [np.mean([each[way][name] for each in figures]) for name in ("r", "g", "b", "cosine", "error")]
        lines.append(f"| {way} | " + " | ".join(f"{m:.3f}" for m in means[:4]) + f" | {means[4]:.1f} |")
    va = provenance["r_of_words_va"]
    lines += [
        "",
        f"Valence and arousal of single words from their vectors (5 folds, {provenance['words']:,} words): "
        f"r {va[0]:.3f} and {va[1]:.3f}.",
    ]
    return "\n".join(lines)


def embed(models: LocalModels, texts: Sequence[str]) -> Floats:
    """MiniLM vectors [n, 384] through the repository's own embed_text; NaN rows for empty texts."""
    vectors = np.full((len(texts), DIMENSION), np.nan)
    said = [number for number, text in enumerate(texts) if text.strip()]
    for start in range(0, len(said), 64):
        rows = said[start : start + 64]
        tensor = np.array([[texts[row].encode("utf-8")] for row in rows], dtype=object)
        vectors[rows] = models.infer("embed_text", {"TEXT": tensor}, ["VECTOR"])["VECTOR"]
    return vectors


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the file was written, 2 when the table cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m edge_models.fit", description=__doc__.split("\n\n")[0])
    parser.add_argument("table", type=Path, metavar="CSV", help="track,part,description,r,g,b")
    parser.add_argument("--repository", type=Path, required=True, help="the built model repository")
    parser.add_argument("--out", type=Path, default=COEFFICIENTS, help="the coefficients file to write")
    parser.add_argument("--report", type=Path, help="where to write the measured table (Markdown)")
    parser.add_argument("--deals", type=int, default=3, help="how often the folds are dealt out anew (1 or more)")
    chosen = parser.parse_args(arguments)
    try:
        table = read_table(chosen.table)
    except (BadTable, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    models = LocalModels(chosen.repository)
    norms_path = chosen.repository / "score_emotion" / "1" / "norms.json"
    norms, vocabulary = Norms.read(norms_path), sorted(json.loads(norms_path.read_text(encoding="utf-8")))
    features = Features(embed(models, table.descriptions), [norms.words(text) for text in table.descriptions])
    figures = [cross_validated(features, table, seed=deal) for deal in range(max(1, chosen.deals))]
    fit = fit_rgb(features, table.rgb, table.groups, np.arange(len(table.descriptions)))
    va_vector, va_constant, r_of_words = fit_words(norms, vocabulary, embed(models, vocabulary))
    coefficients, domains = coefficients_of(fit, features, va_vector, va_constant)
    provenance: dict[str, Any] = {
        "made": datetime.now(UTC).date().isoformat(),
        "data": f"{len(table.descriptions)} descriptions of {len(table.tracks)} tracks with RGB by a language model "
        "(after CMEAN); no description is kept here",
        "vectors": "all-MiniLM-L6-v2",
        "norms": "Warriner, Kuperman & Brysbaert 2013",
        "words": len(vocabulary),
        "folds": f"{FOLDS} over tracks, {len(figures)} deals; strength chosen in 5 folds inside each",
        "strengths": fit.strengths,
        "r_of_rgb": {name: round(float(np.mean([f["this reading"][name] for f in figures])), 3) for name in "rgb"},
        "r_of_words_va": [round(value, 3) for value in r_of_words],
        "captions": "none: own captions have the domain of the descriptions",
    }
    for name in ("artwork", "track", emotion.FREE_TEXT):
        domains[name] = domains["description"]
    chosen.out.write_text(as_file(coefficients, domains, provenance), encoding="utf-8")
    Coefficients.read(chosen.out)
    report = report_of(figures, table, provenance)
    print(report)
    print(f"\n{chosen.out}: {numbers_in(chosen.out):,} numbers. Now standardise: python -m edge_models.fit_captions")
    if chosen.report is not None:
        chosen.report.write_text(report + "\n", encoding="utf-8")
    return 0


def numbers_in(path: Path) -> int:
    """How many numbers a JSON file holds."""

    def count(value: Any) -> int:
        if isinstance(value, Mapping):
            return sum(count(each) for each in value.values())
        if isinstance(value, list):
            return sum(count(each) for each in value)
        return int(isinstance(value, int | float) and not isinstance(value, bool))

    return count(json.loads(path.read_text(encoding="utf-8")))


def _field(row: Mapping[str, str | None], name: str) -> str:
    value = (row.get(name) or "").strip()
    if not value:
        raise ValueError(f"{name} is empty")
    return value


def _channel(row: Mapping[str, str | None], name: str) -> float:
    try:
        value = float(_field(row, name))
    except ValueError:
        raise ValueError(f"{name} is {row.get(name)!r}; it must be a number from 0 to 255") from None
    if not math.isfinite(value) or not 0 <= value <= 255:
        raise ValueError(f"{name} is {value:g}; it must lie in 0..255")
    return value


if __name__ == "__main__":
    sys.exit(main())
