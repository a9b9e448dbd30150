"""A fresh embedded stack for a measurement: started, warmed up, given a collection, watched from outside.

What is told of a run comes from the records (when the first item was announced, when the last one hung), from the
worker's own /metrics, and from the processes as the operating system counts them. What is compared with what is
left to `benchmarks.pipeline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from infra.progress import ITEM_STAGES
from infra.records import DEFAULT_EXHIBITION, Records, version_text
from promenade.cli import publisher
from promenade.reach import changing
from promenade.settings import Settings
from promenade.supervisor import down, separate_settings, stack_state, up
from schemas.media import Kind, split_item_id
from schemas.records import ScoreBody
from streams import upkeep
from workers.pair import read_state


@dataclass(slots=True)
class Sample:
    """One look at the processes: seconds since the watch began, resident bytes and processor seconds by name."""

    moment: float
    memory: dict[str, int]
    processor: dict[str, float]


@dataclass(slots=True)
class Run:
    """What one run of the pipeline told of itself. Seconds, unless the name says otherwise."""

    items: int
    wall: float
    """From the first announcement to the last item in the pairing, by the records' own times."""
    processor: dict[str, float]
    """Process -> processor seconds used from the start of the command to its end."""
    stages: dict[str, float]
    """Stage -> work on batches, by provenance, summed over items."""
    last: dict[str, float]
    """Stage -> when its last result was written, counted from the first announcement."""
    metrics: dict[str, float]
    """Differences of the worker's metrics over the run."""
    others: float
    """Processor seconds that programs which are none of ours used meanwhile, for each second of this run."""
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)
    rgb: dict[str, list[list[float]]] = field(default_factory=dict)
    """File -> the five colour triples."""
    samples: list[Sample] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    """When each item was written into the pairing, counted from the first announcement, in order."""


def process_name(process: psutil.Process) -> str:
    """What a process of the stack is, in one or two words."""
    line = process.cmdline()
    text = " ".join(line)
    if "triton_python_backend_stub" in text:
        # Its first argument is the path of the model's code or of its backend; the model's name follows later.
        model = re.search(r"/([a-z_0-9]+)/1/model\.py", text) or re.search(
            r"(efficientnet_lite0|musicnn_[a-z]+|minilm)", text
        )
        return f"model {model.group(1)}" if model else "model"
    for sign, name in (
        ("workers.media.child", "decoders"),
        ("promenade.supervisor", "supervisor"),
        ("promenade.cli worker", "worker"),
        ("tritonserver", "model server"),
        ("tansu", "broker"),
        ("weed", "object store"),
    ):
        if sign in text:
            return name
    return line[0].rsplit("/", 1)[-1] if line else process.name()


class Watch:
    """Looks at all processes of a stack from a thread.

    Args:
        root: process id of the supervisor.
        every: seconds between looks.
    """

    def __init__(self, root: int, every: float) -> None:
        self._root, self._every = root, every
        self._stop = threading.Event()
        self._names: dict[int, str] = {}
        self.samples: list[Sample] = []
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._go, daemon=True)

    def look(self) -> Sample:
        """One look, kept."""
        memory: dict[str, int] = {}
        processor: dict[str, float] = {}
        root = psutil.Process(self._root)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                name = self._names.get(process.pid) or self._names.setdefault(process.pid, process_name(process))
                times = process.cpu_times()
                memory[name] = memory.get(name, 0) + process.memory_info().rss
                processor[name] = processor.get(name, 0.0) + times.user + times.system
        sample = Sample(time.monotonic() - self._started, memory, processor)
        self.samples.append(sample)
        return sample

    def _go(self) -> None:
        while not self._stop.wait(self._every):
            with contextlib.suppress(psutil.Error):
                self.look()

    def __enter__(self) -> Watch:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(psutil.Error):
            self.look()

    def processor_used(self) -> dict[str, float]:
        """Processor seconds between the first and the last look, by name."""
        first, last = self.samples[0].processor, self.samples[-1].processor
        return {name: round(value - first.get(name, 0.0), 3) for name, value in last.items()}


def busy_seconds() -> float:
    """Processor seconds that the whole machine has been busy, since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def children_seconds() -> float:
    """Processor seconds of this process's ended children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def running_stack(data: Path, profile: Path) -> Iterator[Settings]:
    """A stack in an empty folder on free ports, ready; stopped at the end."""
    settings = separate_settings(data, profile=profile)
    up(settings, foreground=False, say=lambda text: None)
    try:
        yield settings
    finally:
        down(data, say=lambda text: None)


def bring_in(settings: Settings, manifest: Path, collection: str) -> None:
    """The command that people use, waiting until all is paired.

    Raises:
        RuntimeError: it did not end well.
    """
    command = [sys.executable, "-m", "promenade.cli", "ingest", str(manifest), "--collection", collection]
    command += ["--data", str(settings.data)]
    done = subprocess.run(  # noqa: S603 - our own command
        command, env={**os.environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"ingest ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def warm_up(settings: Settings, manifest: Path) -> None:
    """A few items all the way through, then taken down again: every code path has run, nothing is left."""
    bring_in(settings, manifest, "warm")

    async def take_down() -> None:
        async with changing(settings.data) as (_, records, producer):
            for state in await records.all_states():
                await upkeep.withdraw(records, publisher(producer), state.item, "warm-up")
            while (await read_state(records, DEFAULT_EXHIBITION)).members:  # noqa: ASYNC110 - another process acts
                await asyncio.sleep(0.1)

    asyncio.run(take_down())


def metrics_of(settings: Settings) -> dict[str, float]:
    """Counters, sums and counts of the worker's metrics; buckets and gauges of the moment left out."""
    answer = httpx.get(f"http://{settings.http_host}:{settings.http_port}/metrics", timeout=10, trust_env=False)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name.endswith(("_sum", "_count", "_total")):
                labels = ",".join(sample.labels[key] for key in sorted(sample.labels))
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def _told(settings: Settings, collection: str) -> dict[str, Any]:
    async with changing(settings.data) as (_, records, _producer):
        states = [state for state in await records.all_states() if collection in state.memberships]
        begun: list[datetime] = []
        stages: dict[str, float] = {}
        last: dict[str, datetime] = {}
        names: dict[str, str] = {}
        rgb: dict[str, list[list[float]]] = {}
        for state in states:
            assert state.latest is not None
            begun.append((await records.revision(state.item, state.latest)).made)
            for membership in await records.memberships(state):
                names[state.item] = membership.source
            for stage in ITEM_STAGES:
                result = await records.newest_result(state, stage)
                if result is None:
                    raise RuntimeError(f"{state.item} has no {stage.value} result")
                made = result.provenance
                if isinstance(result.body, ScoreBody):
                    rgb[_file(names, state.item)] = [list(triple) for triple in result.body.rgb]
                stages[stage.value] = stages.get(stage.value, 0.0) + made.seconds
                last[stage.value] = max(last.get(stage.value, made.made), made.made)
        first = min(begun)
        wanted = {f"{state.item}@{version_text(state.latest)}" for state in states if state.latest is not None}
        arrivals: dict[str, datetime] = {}
        for revision in await records.pairing_log(DEFAULT_EXHIBITION, 0):
            for entry in revision.joined:
                if entry in wanted:
                    arrivals.setdefault(entry, revision.made)
        if len(arrivals) != len(wanted):
            raise RuntimeError(f"{len(wanted) - len(arrivals)} items are not in the pairing")
        pairs = (await read_state(records, DEFAULT_EXHIBITION)).pairs
        return {
            "items": len(states),
            "wall": (max(arrivals.values()) - first).total_seconds(),
            "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
            "last": {name: round((when - first).total_seconds(), 2) for name, when in last.items()},
            "pairs": {
                (_file(names, artwork), _file(names, track)): value for (artwork, track), value in pairs.items()
            },
            "rgb": rgb,
            "arrivals": sorted((when - first).total_seconds() for when in arrivals.values()),
        }


def _file(names: dict[str, str], item: str) -> str:
    kind, digest = split_item_id(item)
    return Path(names.get(item, f"{Kind(kind).value} {digest[:8]}")).name


def measured(settings: Settings, manifest: Path, every: float = 1.0) -> Run:
    """Bring a collection into a warm stack and tell how it went."""
    state = stack_state(settings.data)
    assert state is not None
    before, spent = metrics_of(settings), children_seconds()
    begun, busy = time.monotonic(), busy_seconds()
    with Watch(state.pid, every) as watch:
        bring_in(settings, manifest, "bench")
    processor = watch.processor_used() | {"ingest command": round(children_seconds() - spent, 3)}
    others = (busy_seconds() - busy - sum(processor.values())) / (time.monotonic() - begun)
    after = metrics_of(settings)
    told = asyncio.run(_told(settings, "bench"))
    return Run(
        processor=processor,
        metrics={name: value - before.get(name, 0.0) for name, value in after.items()},
        samples=watch.samples,
        others=max(0.0, others),
        **told,
    )


__all__ = ["Records", "Run", "Sample", "Watch", "measured", "running_stack", "warm_up"]
