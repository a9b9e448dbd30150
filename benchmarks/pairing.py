"""How good and how fast the pairing rules are on random vectors: a table in Markdown.

    python benchmarks/pairing.py --sizes 1000,3000 --out docs/reports/pairing-<date>.md

For each size and dimension, uniform random vectors in [0,1] (3 and 15 numbers, as RGB is) or random unit vectors
(384 numbers) are paired by `stable` and `optimal`; then items leave and arrive one by one, each timed alone. All
times of a table come from one run, so their ratios mean something on any machine. Beside the rules: solving the
whole again, and the immediate match of a naive stream (each arrival takes the best free partner and keeps it).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.media import Kind, item_id
from workers.pairing.chance import random_means
from workers.pairing.optimal import OptimalRule, batch_optimal
from workers.pairing.rules import Member, Pairs, Rule, StableRule, batch_stable
from workers.pairing.similarity import UNITS, Cosine

Table = dict[str, NDArray[np.float64]]


def drawn(kind: Kind, count: int, dimension: int, generator: np.random.Generator, label: str) -> Table:
    """Random items of one kind: id -> vector."""
    shape = (count, dimension)
    vectors = generator.random(shape) if dimension <= 15 else generator.normal(size=shape)
    ids = (hashlib.sha256(f"{label} {kind} {index}".encode()).hexdigest() for index in range(count))
    return {item_id(kind, digest): vector for digest, vector in zip(ids, vectors, strict=True)}


def immediate(artworks: Table, tracks: Table, generator: np.random.Generator) -> NDArray[np.float64]:
    """Similarities of the naive stream's pairs, items of both sides arriving in random order."""
    measure = Cosine()
    left, right = (measure.prepare(np.asarray(list(side.values()))) for side in (artworks, tracks))
    waiting: tuple[list[int], list[int]] = ([], [])
    values = []
    for index in generator.permutation(len(left) + len(right)).tolist():
        mine, other = (0, 1) if index < len(left) else (1, 0)
        slot = index - mine * len(left)
        vector, others = ((left, right) if mine == 0 else (right, left))[0][slot], (left, right)[other]
        if not waiting[other]:
            waiting[mine].append(slot)
            continue
        units = measure.row(vector, others[waiting[other]])
        best = int(units.argmax())
        values.append(int(units[best]) / UNITS)
        waiting[other].pop(best)
    return np.array(values)


def quality(values: NDArray[np.float64]) -> str:
    """Mean, 5th percentile and minimum, as table cells."""
    return f"{values.mean():.4f} | {np.percentile(values, 5):.4f} | {values.min():.4f}"


def similarities(pairs: Pairs) -> NDArray[np.float64]:
    """The similarities of a pairing."""
    return np.array([similarity for _, similarity in pairs.values()])


def churn(rule: Rule, dimension: int, steps: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Seconds of each arrival while items leave and others arrive, counts staying as they are: [steps]."""
    fresh = {kind: drawn(kind, steps, dimension, generator, "fresh") for kind in Kind}
    seconds = []
    for step in range(steps):
        kind = Kind.ARTWORK if step % 2 else Kind.TRACK
        present = sorted(rule.present(kind))
        rule.leave(present[int(generator.integers(len(present)))])
        identity, vector = fresh[kind].popitem()
        begun = time.perf_counter()
        rule.join(kind, identity, vector)
        seconds.append(time.perf_counter() - begun)
    return np.array(seconds)


def members(artworks: Table, tracks: Table) -> list[Member]:
    """All items in a random but repeatable order (that of their hashes)."""
    both = [(Kind.ARTWORK, artworks), (Kind.TRACK, tracks)]
    every = [Member(kind, identity, vector) for kind, side in both for identity, vector in side.items()]
    return sorted(every, key=lambda member: member.identity.partition("-")[2])


def prepared(
    made: type[Rule], artworks: Table, tracks: Table, batch: Callable[[], Pairs] | None
) -> tuple[Rule, float]:
    """A rule with all items in it, and the seconds that the batch solution took (nan without one)."""
    if batch is None:
        rule = made(Cosine())
        for member in members(artworks, tracks):
            rule.join(member.kind, member.identity, member.vector)
        return rule, float("nan")
    begun = time.perf_counter()
    pairs = batch()
    seconds = time.perf_counter() - begun
    rows = [(artwork, track, similarity) for artwork, (track, similarity) in pairs.items()]
    restored = made.restore(Cosine(), members(artworks, tracks), rows)
    if not restored.agreed:
        raise RuntimeError(f"the batch solution of {made.name} is not what the rule demands")
    return restored.rule, seconds


def measured(size: int, others: int, dimension: int, rules: list[str], steps: int, largest: int) -> list[str]:
    """The table's rows for one size and dimension."""
    generator = np.random.default_rng([size, others, dimension])
    artworks = drawn(Kind.ARTWORK, size, dimension, generator, "first")
    tracks = drawn(Kind.TRACK, others, dimension, generator, "first")
    head = f"| {size:,} x {others:,} | {dimension} |"
    measure = Cosine()
    left, right = (measure.prepare(np.asarray(list(side.values()))) for side in (artworks, tracks))
    level = random_means(left, right, min(size, others), measure, seed=0, repeats=10)
    random = measure.paired(left[: min(size, others)], right[: min(size, others)]) / UNITS
    rows = [f"{head} chance (mean {level.mean():.4f} ± {level.std():.4f}) | {quality(random)} | | | | |"]
    rows.append(f"{head} immediate | {quality(immediate(artworks, tracks, generator))} | | | | |")
    for made, solve in ((StableRule, batch_stable), (OptimalRule, batch_optimal)):
        if made.name not in rules:
            continue
        small = size * others <= largest
        rule, again = prepared(made, artworks, tracks, partial(solve, artworks, tracks, measure) if small else None)
        cells = quality(similarities(rule.pairs()))
        seconds = churn(rule, dimension, steps, generator)
        drift = ""
        if small:
            final = {kind: rule.vectors(kind) for kind in Kind}
            reference = similarities(solve(final[Kind.ARTWORK], final[Kind.TRACK], measure)).sum()
            drift = f"{abs(similarities(rule.pairs()).sum() - reference):.1e}"
        median, tail = np.percentile(seconds, 50), np.percentile(seconds, 95)
        ratio = f"{again:.2f} s ({again / median:,.0f} x)" if small else ""
        rows.append(f"{head} {made.name} | {cells} | {median * 1e3:.2f} | {tail * 1e3:.2f} | {ratio} | {drift} |")
    return rows


def main() -> None:
    """Measure what the arguments ask for, print the table, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000", help="items a side, with commas; AxB for unequal sides")
    parser.add_argument("--dimensions", default="3,15,384")
    parser.add_argument("--rules", default="stable,optimal")
    parser.add_argument("--steps", type=int, default=200, help="timed arrivals")
    parser.add_argument("--largest-batch", type=int, default=4_000_000, help="cross pairs up to which to solve again")
    parser.add_argument("--append", action="store_true", help="add rows to the file instead of beginning it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        f"Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores.",
        "",
        "| items | numbers | rule | mean | 5 % | min | arrival p50 ms | p95 ms | solving again (x p50) | total off |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    if arguments.append:
        lines = []
    else:
        print("\n".join(lines), flush=True)
    for size in arguments.sizes.split(","):
        one, _, two = size.partition("x")
        for dimension in map(int, arguments.dimensions.split(",")):
            rows = measured(
                int(one),
                int(two or one),
                dimension,
                arguments.rules.split(","),
                arguments.steps,
                arguments.largest_batch,
            )
            print("\n".join(rows), flush=True)
            lines += rows
    if arguments.out:
        with arguments.out.open("a" if arguments.append else "w") as report:
            report.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
