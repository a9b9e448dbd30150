"""How good, how fast and how large the pairing rules are: one run, one dated report in Markdown.

    python -m benchmarks.pairing                    1,000 and 10,000 a side
    python -m benchmarks.pairing --quick            300 and 1,000 a side: a minute or two
    python -m benchmarks.pairing --long             also 100,000 a side: hours; say --minutes and --case-minutes
    python -m benchmarks.pairing --sizes 100000 --rules optimal --dimensions 3    only some cases
    python -m benchmarks.pairing --data FOLDER      also the vectors of a running stack's items (say `promenade demo`)
    python -m benchmarks.pairing --vectors rgb:artworks.csv:tracks.csv   also vectors from files, as `promenade pair`

Random vectors: uniform in [0,1] for 3 and 15 numbers, as RGB is, random unit vectors for 384. Each case is a process
of its own, so that its memory is its own. It pairs everything at once, then items leave and arrive one by one, each
arrival timed alone; beside that, in the same process, solving the whole again: for `optimal` by the library's dense
solver as long as its matrix fits, and above that by the rule's own start (workers.pairing.start), whose prices prove
what the library cannot say. Rows are written as they come: a run
that was stopped keeps what it has, and says what was not done.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promenade.pairing.tables import read_vectors, space_named
from promenade.pairing.truth import _sides, _vectors
from schemas.media import Kind, item_id
from workers.pairing.by_name import pairs_at_once, rule_named
from workers.pairing.chance import random_means
from workers.pairing.optimal import OptimalRule, rest_units
from workers.pairing.rules import Member, Pairs, Rule
from workers.pairing.similarity import UNITS, Measure, ValenceArousal, as_units, mean_distance, measure_for
from workers.pairing.spaces import pairing_space

Table = dict[str, NDArray[np.float64]]

DENSE: Final = 130_000_000
"""Cross pairs up to which scipy's dense solver is asked: 8 bytes each twice, and about half a minute."""
DEFINITION: Final = 4_000_000
"""Cross pairs up to which `greedy` and `stable` are compared with their definition word by word."""
SPACES: Final = ("rgb", "rgb15", "va", "caption-minilm-1")


@dataclass(frozen=True)
class Case:
    """One row or two of the report."""

    artworks: int
    tracks: int
    numbers: int
    what: str
    steps: int
    source: str = ""

    @property
    def head(self) -> str:
        """Its first cells."""
        space = self.source.partition(":")[0] or f"random, {self.numbers}-D"
        return f"{self.artworks:,} x {self.tracks:,} | {space} | {self.what}"


def drawn(kind: Kind, count: int, dimension: int, generator: np.random.Generator, label: str) -> Table:
    """Random items of one kind: id -> vector."""
    shape = (count, dimension)
    vectors = generator.random(shape) if dimension <= 15 else generator.normal(size=shape)
    ids = (hashlib.sha256(f"{label} {kind} {index}".encode()).hexdigest() for index in range(count))
    return {item_id(kind, digest): vector for digest, vector in zip(ids, vectors, strict=True)}


def immediate(
    left: NDArray[np.float64], right: NDArray[np.float64], measure: Measure, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Similarities of the naive stream's pairs, items of both sides arriving in random order."""
    waiting: tuple[list[int], list[int]] = ([], [])
    values = []
    for index in generator.permutation(len(left) + len(right)).tolist():
        mine, other = (0, 1) if index < len(left) else (1, 0)
        slot = index - mine * len(left)
        vector, others = (left, right)[mine][slot], (left, right)[other]
        if not waiting[other]:
            waiting[mine].append(slot)
            continue
        units = measure.row(vector, others[waiting[other]])
        best = int(units.argmax())
        values.append(int(units[best]) / UNITS)
        waiting[other].pop(best)
    return np.array(values)


def quality(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, 5th percentile and minimum."""
    return {"mean": float(values.mean()), "fifth": float(np.percentile(values, 5)), "least": float(values.min())}


def similarities(pairs: Pairs) -> NDArray[np.float64]:
    """The similarities of a pairing."""
    return np.array([similarity for _, similarity in pairs.values()])


def items_of(case: Case) -> tuple[Table, Table, Measure]:
    """The items of a case and their measure."""
    if not case.source:
        generator = np.random.default_rng([case.artworks, case.tracks, case.numbers])
        made = [drawn(kind, count, case.numbers, generator, "first") for kind, count in sides_of(case)]
        return made[0], made[1], measure_for("cosine")
    space, _, path = case.source.partition(":")
    with np.load(path) as held:
        left, right = held[f"{space} artworks"], held[f"{space} tracks"]
    names = [
        [item_id(kind, hashlib.sha256(f"{kind} {row}".encode()).hexdigest()) for row in range(len(side))]
        for kind, side in zip(Kind, (left, right), strict=True)
    ]
    measure = ValenceArousal(mean_distance(left, right)) if space == "va" else measure_for("cosine")
    return dict(zip(names[0], left, strict=True)), dict(zip(names[1], right, strict=True)), measure


def sides_of(case: Case) -> list[tuple[Kind, int]]:
    """Both kinds and their counts."""
    return [(Kind.ARTWORK, case.artworks), (Kind.TRACK, case.tracks)]


def churn(rule: Rule, spare: dict[Kind, Table], steps: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Seconds of each arrival while items leave and others arrive, counts staying as they are: [steps]."""
    present = {kind: sorted(rule.present(kind)) for kind in Kind}
    seconds = []
    for step in range(steps):
        kind = Kind.ARTWORK if step % 2 else Kind.TRACK
        place = int(generator.integers(len(present[kind])))
        rule.leave(present[kind][place])
        identity, vector = spare[kind].popitem()
        present[kind][place] = identity
        begun = time.perf_counter()
        rule.join(kind, identity, vector, 1)
        seconds.append(time.perf_counter() - begun)
    return np.array(seconds)


def measured(case: Case) -> dict[str, Any]:
    """What a case's process finds out."""
    artworks, tracks, measure = items_of(case)
    generator = np.random.default_rng(1)
    if case.what == "chance":
        left, right = (measure.prepare(np.asarray(list(side.values()))) for side in (artworks, tracks))
        count = min(len(left), len(right))
        level = random_means(left, right, count, measure, seed=0, repeats=10)
        one = generator.permutation(len(left))[:count], generator.permutation(len(right))[:count]
        found = {"chance": quality(measure.paired(left[one[0]], right[one[1]]) / UNITS)}
        found["chance"] |= {"spread": float(level.std(ddof=1)), "mean": float(level.mean())}
        found["immediate match"] = quality(immediate(left, right, measure, generator))
        return found
    made = rule_named(case.what)
    pairs_possible = case.artworks * case.tracks
    found: dict[str, Any] = {}
    both = [(Kind.ARTWORK, artworks), (Kind.TRACK, tracks)]
    # The order of ids is random and repeatable: they are hashes.
    members = [Member(kind, name, vector) for kind, side in both for name, vector in sorted(side.items())]
    spare = {kind: drawn(kind, case.steps, case.numbers, generator, "fresh") for kind in Kind}
    if case.source:  # another item's vector, slightly moved
        for side, (_, given) in zip(spare.values(), both, strict=True):
            table = np.asarray(list(given.values()))
            for name in side:
                side[name] = np.abs(table[generator.integers(len(table))] * generator.normal(1, 0.01, table.shape[1]))

    def again(left: Table, right: Table) -> Pairs:
        return pairs_at_once(case.what, left, right, measure, sequences={}, floor=None, pins=())

    few = (dict(list(side.items())[:3]) for side in (artworks, tracks))
    again(*few)  # so that reading the library's modules is not counted
    known: list[tuple[str, str, float]] = []
    dense = case.what == "optimal" and pairs_possible <= DENSE
    if dense:
        begun = time.perf_counter()
        solved = again(artworks, tracks)
        found["again"] = time.perf_counter() - begun
        known = [(artwork, track, similarity) for artwork, (track, similarity) in solved.items()]
    begun, worked = time.perf_counter(), time.process_time()
    restored = made.restore(measure, members, known)
    if not dense:
        found["again"] = time.perf_counter() - begun
        found["worked"] = time.process_time() - worked
    elif not restored.agreed:
        raise RuntimeError("the library's solution is not what the rule demands")
    rule = restored.rule
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found |= quality(similarities(rule.pairs()))
    seconds = churn(rule, spare, case.steps, generator)
    found["p50"], found["p95"] = (float(value) for value in np.percentile(seconds, [50, 95]))
    found["memory"] = memory / 1024
    if isinstance(rule, OptimalRule):
        # Prices that no pair exceeds are at least any pairing's gain: where they equal ours, ours is the greatest.
        gains = sum(as_units(value) - rest_units(measure, None) for _, value in rule.pairs().values())
        found["gap"] = sum(rule.prices().values()) - gains
    if pairs_possible <= (DENSE if case.what == "optimal" else DEFINITION):
        final = {kind: rule.vectors(kind) for kind in Kind}
        if case.what == "greedy":
            order = {name: 0 if name in tracks else 1 for name in final[Kind.TRACK]}
            reference = pairs_at_once(
                "greedy", final[Kind.ARTWORK], final[Kind.TRACK], measure, sequences=order, floor=None, pins=()
            )
        else:
            reference = again(final[Kind.ARTWORK], final[Kind.TRACK])
        found["off"] = abs(float(similarities(rule.pairs()).sum() - similarities(reference).sum()))
        if case.what != "optimal":
            found["same pairs"] = rule.pairs() == reference
    return found


# -- the run -----------------------------------------------------------------------------------------------


def cases_of(arguments: argparse.Namespace, vectors: Path | None) -> list[Case]:
    """What is to be done, small sizes first; at each size the costliest last."""
    cases = []
    if vectors is not None:
        with np.load(vectors) as held:
            for space in sorted({name.rpartition(" ")[0] for name in held.files}):
                left, right = held[f"{space} artworks"], held[f"{space} tracks"]
                cases += [
                    Case(len(left), len(right), left.shape[1], what, 50, f"{space}:{vectors}")
                    for what in ("chance", "greedy", "stable", "optimal")
                ]
    for size in map(int, arguments.sizes.split(",")):
        steps = arguments.steps if size < 50_000 else min(arguments.steps, 50)
        for what in arguments.rules.split(","):
            for numbers in map(int, arguments.dimensions.split(",")):
                cases.append(Case(size, size, numbers, what, steps))
                if what == "optimal":
                    cases.append(Case(size, size + size // 10, numbers, what, steps))
    return cases


def run(case: Case, seconds: float, most: float) -> dict[str, Any]:
    """A case in a process of its own, for `most` seconds: what it found, or why it did not."""
    if seconds < 5:
        return {"not done": "the run's time was up"}
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "benchmarks.pairing", "--case", json.dumps(asdict(case))],
            capture_output=True,
            text=True,
            timeout=min(seconds, most),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"not done": f"it was stopped after {min(seconds, most):,.0f} s"}
    if done.returncode:
        return {"not done": (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cells(found: dict[str, Any]) -> str:
    """Mean, 5th percentile and minimum as cells."""
    return f"{found['mean']:.4f} | {found['fifth']:.4f} | {found['least']:.4f}"


def rows_of(case: Case, found: dict[str, Any] | None) -> list[str]:
    """The table's rows for a case."""
    if found is None or "not done" in found:
        reason = "not done (the run was stopped)" if found is None else f"not done: {found['not done']}"
        return [f"| {case.head} | {reason} | | | | | | | |"]
    if case.what == "chance":
        rows = []
        for name in ("chance", "immediate match"):
            label = f"chance ± {found[name]['spread']:.4f}" if name == "chance" else name
            rows.append(f"| {case.head.removesuffix(case.what)}{label} | {cells(found[name])} | | | | | |")
        return rows
    solve = f"{found['again']:.2f} s ({found['again'] / found['p50']:,.0f} x)" if "again" in found else ""
    if found.get("worked", 0.0) > 60:
        solve += f", {found['worked']:,.0f} s of a core"
    off = f"{found['off']:.1e}" if "off" in found else ""
    if found.get("same pairs"):
        off = "same pairs"
    if "gap" in found and not off:
        off = f"proof, gap {found['gap']}"
    return [
        f"| {case.head} | {cells(found)} | {found['p50'] * 1e3:.2f} | {found['p95'] * 1e3:.2f} | {solve} | {off} | "
        f"{found['memory']:,.0f} |"
    ]


def growth(results: dict[Case, dict[str, Any] | None]) -> list[str]:
    """How time per arrival grows with the number of items: the exponent between one size and the next."""
    lines = []
    kinds = sorted({(case.what, case.numbers, case.tracks > case.artworks) for case in results if not case.source})
    for what, numbers, more in kinds:
        done = [
            (case.artworks, found["p50"], found["p95"])
            for case, found in results.items()
            if (case.what, case.numbers, case.tracks > case.artworks) == (what, numbers, more) and not case.source
            if found and "p50" in found
        ]
        for one, two in pairwise(done):
            span = math.log(two[0] / one[0])
            middle, tail = (math.log(two[place] / one[place]) / span for place in (1, 2))
            sides = "10% more tracks" if more else "equal sides"
            lines.append(
                f"| {what} | {numbers} | {sides} | {one[0]:,} to {two[0]:,} | n^{middle:.2f} | n^{tail:.2f} |"
            )
    return lines


def aims(results: dict[Case, dict[str, Any] | None]) -> list[str]:
    """The aims, each held against the rows: table rows."""
    done = {case: found for case, found in results.items() if found and "p50" in found}

    def verdict(reached: bool, beyond: str = "") -> str:
        return "**reached**" if reached else f"**missed**{beyond}"

    lines = []
    off = {case: abs(found["off"]) for case, found in done.items() if "off" in found}
    if off:
        largest = max(off, key=lambda case: case.artworks * case.tracks)
        lines.append(
            "| `optimal`, item by item, against the library's solver: total similarity equal to 1e-6 | "
            f"{len(off)} cases up to {largest.artworks:,} x {largest.tracks:,}: "
            f"off by {max(off.values()):.1e} at most | {verdict(max(off.values()) <= 1e-6)} |"
        )
    for what, tracks, limit in (("stable", 10_000, 5), ("optimal", 11_000, 20)):
        for case, found in done.items():
            if (case.what, case.artworks, case.tracks, case.source) == (what, 10_000, tracks, ""):
                slow = found["p95"] * 1e3
                lines.append(
                    f"| `{what}`, 10,000 x {tracks:,}, {case.numbers}-D: p95 of an arrival under {limit} ms | "
                    f"{slow:.2f} ms | {verdict(slow < limit, f' ({slow / limit:.1f} times the aim)')} |"
                )
    worst = [
        f"{case.numbers}-D {found['p95'] * 1e3:.2f} ms"
        for case, found in done.items()
        if (case.what, case.artworks, case.tracks, case.source) == ("optimal", 10_000, 10_000, "")
    ]
    if worst:
        lines.append(f"| `optimal`, 10,000 x 10,000, the worst case: reported | p95 {', '.join(worst)} | no aim |")
    for size in sorted({case.artworks for case in done}, reverse=True):
        cheaper: dict[str, list[float]] = {}
        for case, found in done.items():
            if case.artworks == size and "again" in found:
                cheaper.setdefault(case.what, []).append(found["again"] / found["p50"])
        if cheaper:
            told = ", ".join(f"`{what}` {min(some):,.0f} to {max(some):,.0f}" for what, some in cheaper.items())
            short = [f"`{what}`" for what, some in cheaper.items() if min(some) < 100]
            lines.append(
                f"| an arrival (p50) at least 100 times cheaper than solving again: {size:,} pictures | {told} | "
                f"{verdict(not short, ' by ' + ', '.join(short))} |"
            )
    whole = [case for case, found in results.items() if found and "not done" not in found]
    share = f"{len(whole)} of {len(results)}"
    lines.append(f"| every case, in one run | {share} | {verdict(len(whole) == len(results))} |")
    return lines


def report(results: dict[Case, dict[str, Any] | None], begun: float, ended: bool) -> str:
    """The whole report as it stands."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout  # noqa: S607
    load = os.getloadavg()[0] if ended else float("nan")
    lines = [
        f"# Pairing rules, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Made with `python -m benchmarks.pairing` at commit {commit.strip() or 'unknown'}: Python "
        f"{platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores, load at the end {load:.1f}, "
        f"{(time.monotonic() - begun) / 60:.1f} minutes{'' if ended else ' so far: THE RUN HAS NOT ENDED'}.",
        "",
        "## The aims",
        "",
        "| aim | measured | |",
        "|---|---|---|",
        *aims(results),
        "",
        "## Rows",
        "",
        'Times are those of one arrival while items leave and arrive, counts staying as they are. "Solving again" is '
        "what pairing everything at once takes: scipy's dense solver for `optimal` (above 130 million pairs the "
        "rule's own start, proof included), deferred acceptance in blocks "
        'for `stable` and `greedy`, with the ratio to the median arrival. "Off" compares the pairing after '
        "all arrivals with the library's solver (total similarity) or the rule's definition (same pairs); where "
        "neither can be had, it is what the prices of all items exceed the total gain by, in units of 1e-7: 0 "
        "proves that no pairing has a greater total. Memory is "
        "the process's peak, in MB, when all items are in; for `optimal` that includes the library's solver.",
        "",
        "| items | vectors | rule | mean | 5 % | min | arrival p50 ms | p95 ms | solving again | off | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, found in results.items():
        lines += rows_of(case, found)
    grown = growth(results)
    if grown:
        lines += ["", "## Growth of the time per arrival", "", "| rule | numbers | sides | from, to | p50 | p95 |"]
        lines += ["|---|---|---|---|---|---|", *grown]
    return "\n".join(lines) + "\n"


async def of_stack(data: Path) -> dict[str, NDArray[np.float64]]:
    """The vectors of all items of a running stack, by space and side."""
    from promenade.reach import reading

    async with reading(data, print) as (_, records):
        states = {state.item: state for state in await records.all_states()}
        vectors, _ = await _vectors(records, states)
    found = {}
    for name in SPACES:
        left, right = _sides(pairing_space(name), vectors)
        if left and right:
            found[f"{name} artworks"], found[f"{name} tracks"] = (
                np.asarray([side[each] for each in sorted(side)], dtype=np.float64) for side in (left, right)
            )
    return found


def main() -> None:
    """Do all cases one after another and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--sizes", default="1000,10000", help="items a side, with commas")
    size.add_argument("--quick", dest="sizes", action="store_const", const="300,1000")
    size.add_argument("--long", dest="sizes", action="store_const", const="1000,10000,100000")
    parser.add_argument("--dimensions", default="3,15,384")
    parser.add_argument("--rules", default="chance,stable,greedy,optimal", help="with commas")
    parser.add_argument("--steps", type=int, default=200, help="timed arrivals of a case")
    parser.add_argument("--minutes", type=float, default=25, help="what has not begun by then is not done")
    parser.add_argument("--case-minutes", type=float, default=5, help="what takes longer is stopped")
    parser.add_argument("--data", type=Path, help="data folder of a running stack whose items are measured too")
    parser.add_argument("--vectors", action="append", default=[], metavar="SPACE:ARTWORKS:TRACKS", help="files")
    parser.add_argument("--out", type=Path, help="default: docs/reports/pairing-<date>.md")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measured(Case(**json.loads(arguments.case)))))
        return
    out = arguments.out or Path(f"docs/reports/pairing-{datetime.now(UTC):%Y-%m-%d}.md")
    out.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        given = asyncio.run(of_stack(arguments.data)) if arguments.data else {}
        for spelled in arguments.vectors:
            name, left, right = spelled.split(":")
            space = space_named(name)
            given[f"{space.name} artworks"] = read_vectors(Path(left), space).vectors
            given[f"{space.name} tracks"] = read_vectors(Path(right), space).vectors
        vectors = Path(folder) / "vectors.npz" if given else None
        if vectors is not None:
            np.savez(vectors, **given)  # type: ignore[arg-type]
        cases = cases_of(arguments, vectors)
        results: dict[Case, dict[str, Any] | None] = dict.fromkeys(cases)
        for number, case in enumerate(cases, 1):
            print(
                f"{(time.monotonic() - begun) / 60:5.1f} min, case {number} of {len(cases)}: {case.head}", flush=True
            )
            results[case] = run(
                case, arguments.minutes * 60 - (time.monotonic() - begun), 60 * arguments.case_minutes
            )
            print("\n".join(rows_of(case, results[case])), flush=True)
            out.write_text(report(results, begun, number == len(cases)))
    print(f"the report is {out}")


if __name__ == "__main__":
    main()
