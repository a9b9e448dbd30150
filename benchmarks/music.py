"""Whether composed music sounds finished, means its picture, and is faster than it plays: for all sample pictures.

    python -m benchmarks.music [--seconds 20] [--samples FOLDER] [--out docs/reports/music-<date>.md]

Each picture is measured, captioned and scored by the served models' own code in this process; compose_music runs in a
real model server of its own. Two readers then hear the pieces. `va_sound` reads knobs that the composer turns (tempo,
mode, density), so that agreement with it says that the knobs arrive, and little more. The other reader shares no knob
with the composer: musicnn's hundred tags, each word's valence and arousal looked up in the norms of Warriner et al.,
weighted by the tags' confidence. Neither is ever asked by the composer, and its numbers were not fitted to either.
What counts as finished is in `benchmarks.finished`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil
import soundfile
from edge_models import sound as measuring
from edge_models.music import engine
from edge_models.music.score import SAMPLE_RATE, Ask
from edge_models.norms import Norms, mean
from edge_models.sound_names import MSD_LABELS, MTT_LABELS

from benchmarks import finished
from benchmarks.notebook import Notebook
from infra.serving import triton
from promenade import samples
from promenade.samples.catalogue import Row, read_manifest
from promenade.settings import CLONE
from schemas.media import Kind
from tests.serving_fixtures import serve
from workers.media.detect import HEAD_BYTES, detect
from workers.media.limits import Limits
from workers.media.parts import sound_parts
from workers.media.sounds import prepare_sound

Array = npt.NDArray[Any]
REPOSITORY: Final = CLONE / "model_repository" / "edge"
MODEL: Final = "compose_music"
DRAWS: Final = 5_000
"""Of the bootstrap, and of the permuted baseline."""
QUEUED: Final = 100
"""Background pieces that wait while a person asks."""
READERS: Final = ("va_sound", "tags")


def say(text: str) -> None:
    """Progress, apart from the report."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


# -- pictures and readers ----------------------------------------------------------------------------------


class Reader(Notebook):
    """The pipeline's models in this process: understands pictures, and hears pieces."""

    def __init__(self, repository: Path) -> None:
        super().__init__(repository, 1)
        self._norms = Norms.read(repository / "va_sound" / "1" / "norms.json")
        self._measured: Array = np.zeros(0)

    def _picture(self, rendition: bytes) -> tuple[Array, Array]:
        measured, vectors = super()._picture(rendition)
        self._measured = measured
        return measured, vectors

    def ask(self, folder: Path, row: Row, seconds: float, seed: int) -> tuple[Ask, Array]:
        """What the composer is told of a picture, and the vector of its caption."""
        line = self.item(folder, row)
        return Ask(
            np.array(json.loads(line["rgb"]), np.float32),
            np.array(json.loads(line["va"]), np.float32),
            [json.loads(each) for each in self._measured.reshape(-1)],
            np.array(json.loads(line["tag_vector"]), np.float32),
            seconds,
            seed,
        ), np.array(json.loads(line["vector"]))

    def hear(self, samples_: Array) -> tuple[dict[str, Array], Array]:
        """Valence and arousal by each reader, and the caption's vector, of samples [n, 2]; as a track is heard."""
        with tempfile.TemporaryFile() as file:
            soundfile.write(file, samples_, SAMPLE_RATE, format="WAV", subtype="PCM_16")
            file.seek(0)
            form = detect(file.read(HEAD_BYTES))
            file.seek(0)
            _, rendition = prepare_sound(file, form, Limits())
        part = sound_parts(rendition)[-1]
        given = {"SOUND": part.windows[None], "LENGTHS": part.lengths[None]}
        measured = self.models.infer("measure_sound", given)["MEASUREMENTS"]
        nothing = self._nothing(Kind.TRACK)
        empty = {name: value[:1] for name, value in nothing.items()}
        read = self.models.infer("va_sound", {**empty, "MEASUREMENTS": measured})["VA"][0]
        words = [np.array([[text.encode()]], dtype=object) for text in ("whole", "", "{}")]
        told = dict(zip(("PART", "PROMPT", "CATALOGUE"), words, strict=True))
        said = self.models.infer("caption_sound", {**empty, **told, "MEASUREMENTS": measured})["TEXT"]
        vector = self.models.infer("embed_sound", {**empty, "TEXT": said})["VECTOR"][0]
        return {"va_sound": np.asarray(read, np.float64), "tags": self._tagged(part.windows, part.lengths)}, vector

    def _tagged(self, windows: Array, lengths: Array) -> Array:
        powers = [
            measuring.patches(measuring.mel_filters() @ measuring.power_spectrum(window))
            for window in measuring.read_windows(windows, lengths)
        ]
        stacked = np.concatenate(powers)
        weighed = []
        for model, labels in (("musicnn_mtt", MTT_LABELS), ("musicnn_msd", MSD_LABELS)):
            confidence = np.concatenate(
                [
                    self.models.infer(model, {"spectrogram": stacked[start : start + 32]}, ["tags"])["tags"]
                    for start in range(0, len(stacked), 32)
                ]
            ).mean(axis=0)
            for label, share in zip(labels, confidence, strict=True):
                felt = mean(self._norms.words(label.replace("-", " ")))
                if felt is not None:
                    weighed.append((float(share), *felt))
        values = np.array(weighed)
        return np.asarray((values[:, :1] * values[:, 1:]).sum(axis=0) / values[:, 0].sum())


# -- the model server --------------------------------------------------------------------------------------


@dataclass
class Composed:
    """One piece as a client got it; seconds of wall time since it was asked for."""

    samples: Array
    report: dict[str, Any]
    first: float
    whole: float

    @property
    def factor(self) -> float:
        """Seconds of making for each second of sound."""
        return self.whole / (len(self.samples) / SAMPLE_RATE)


class Composer:
    """compose_music in a model server of its own."""

    def __init__(self, url: str, process: int) -> None:
        self._url = url
        self.stub = psutil.Process(triton.stubs(process)[MODEL])

    def processor(self) -> float:
        """Seconds of processor time that the model's process has used."""
        times = self.stub.cpu_times()
        return float(times.user + times.system)

    def start(
        self, ask: Ask, live: bool = True, count: int = 1
    ) -> tuple[Any, queue.Queue[tuple[float, Any, Any]], float]:
        """Ask for a piece, `count` times: the client (to be stopped), answers with their times, when it was asked."""
        from tritonclient import grpc
        from tritonclient.utils import np_to_triton_dtype

        texts = np.array([json.dumps(each).encode() for each in ask.measurements], dtype=object)
        given = {
            "RGB": ask.rgb,
            "VA": ask.va,
            "MEASUREMENTS": texts,
            "TEXTS": np.array([b""] * 5, dtype=object),
            "VECTOR": ask.vector,
            "SECONDS": np.array([ask.seconds], np.float32),
            "SEED": np.array([ask.seed], np.int64),
            "WISHES": np.array([b"{}"], dtype=object),
            "LIVE": np.array([live]),
        }
        tensors = []
        for name, value in given.items():
            tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(value))
            tensors.append(tensor)
        client = grpc.InferenceServerClient(self._url)
        answers: queue.Queue[tuple[float, Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((time.perf_counter(), result, error)))
        asked = time.perf_counter()
        for _ in range(count):
            client.async_stream_infer(MODEL, tensors, enable_empty_final_response=True)
        return client, answers, asked

    def compose(self, ask: Ask, live: bool = True) -> Composed:
        """A whole piece."""
        client, answers, asked = self.start(ask, live)
        blocks, report, first = [], {}, 0.0
        while True:
            when, result, error = answers.get(timeout=300)
            if error is not None:
                raise RuntimeError(f"{MODEL} refused: {error}")
            samples_, said = result.as_numpy("SAMPLES"), result.as_numpy("REPORT")
            if samples_ is not None and len(samples_):
                first = first or when - asked
                blocks.append(samples_)
            if said is not None and said[0]:
                report = json.loads(said[0])
            if result.get_response().parameters["triton_final_response"].bool_param:
                break
        client.stop_stream()
        return Composed(np.concatenate(blocks), report, first, when - asked)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Composer]:
    """A server of compose_music alone."""
    with serve(folder, [MODEL]) as served:
        yield Composer(served.url, served.process)


@contextlib.contextmanager
def watched(process: psutil.Process) -> Iterator[list[float]]:
    """The process's resident memory in MB, ten times a second, while the block runs."""
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(process.memory_info().rss / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


# -- statistics --------------------------------------------------------------------------------------------


def ranks(values: Array) -> Array:
    """Ranks along the last axis, ties by their mean."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1))


def spearman(one: Array, other: Array) -> float:
    """Rank correlation."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


@dataclass
class Agreement:
    """Spearman's rho of what was felt and what was read: with a 95 % bootstrap interval, and what chance gives."""

    rho: float
    low: float
    high: float
    chance: float
    p: float


def agreement(felt: Array, read: Array, generator: np.random.Generator) -> Agreement:
    """One axis over all pieces. `chance` is the 95th percentile of rho over permuted pieces, `p` one-sided."""
    rho = spearman(felt, read)
    count = len(felt)
    drawn = [generator.integers(0, count, count) for _ in range(DRAWS)]
    low, high = np.quantile([spearman(felt[rows], read[rows]) for rows in drawn], [0.025, 0.975])
    permuted = np.array([spearman(felt, generator.permutation(read)) for _ in range(DRAWS)])
    p = (1 + int((permuted >= rho).sum())) / (DRAWS + 1)
    return Agreement(rho, float(low), float(high), float(np.quantile(permuted, 0.95)), p)


@dataclass
class Found:
    """How the right picture ranks among all, for each piece."""

    first: float
    fifth: float
    middle: float
    p: float
    count: int


def retrieval(distances: Array, generator: np.random.Generator) -> Found:
    """From distances [pieces, pictures], the right ones on the diagonal. `middle` is the mean share of wrong pictures
    that are nearer (chance .5), `p` how often permuted pieces do as well by it."""
    count = len(distances)

    def middle(order: Array) -> float:
        right = distances[np.arange(count), order]
        nearer = (distances < right[:, None]).sum(axis=1) + 0.5 * ((distances == right[:, None]).sum(axis=1) - 1)
        return float((nearer / (count - 1)).mean())

    right = np.diag(distances)
    place = (distances < right[:, None]).sum(axis=1)
    mine = middle(np.arange(count))
    permuted = np.array([middle(generator.permutation(count)) for _ in range(DRAWS)])
    p = (1 + int((permuted <= mine).sum())) / (DRAWS + 1)
    return Found(float((place == 0).mean()), float((place < 5).mean()), mine, p, count)


def standardised(values: Array) -> Array:
    """Each column with mean 0 and deviation 1: readers' scales differ from the pictures'."""
    return np.asarray((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9))


# -- the run -----------------------------------------------------------------------------------------------


@dataclass
class Results:
    """All that the report says."""

    titles: list[str] = field(default_factory=list)
    felt: list[Array] = field(default_factory=list)
    read: dict[str, list[Array]] = field(default_factory=lambda: {reader: [] for reader in READERS})
    captions: list[tuple[Array, Array]] = field(default_factory=list)
    heard: list[finished.Heard] = field(default_factory=list)
    written: list[finished.Written] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    speeds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def run(folder: Path, rows: Sequence[Row], seconds: float, work: Path, long: int) -> Results:
    """Everything, one piece after the other; only numbers are kept."""
    results = Results()
    reader = Reader(REPOSITORY)
    writer = engine.PictureComposer(REPOSITORY / MODEL / "1")
    asks = []
    for row in rows:
        ask, vector = reader.ask(folder, row, seconds, 1)
        asks.append((ask, vector))
    say(f"{len(asks)} pictures understood")
    with serving(work) as composer:
        results.memory["before the first piece"] = composer.stub.memory_info().rss / 1e6
        first = composer.compose(asks[0][0])
        results.speeds["the very first after the start"] = [(first.first, first.factor)]
        results.memory["after the first piece"] = composer.stub.memory_info().rss / 1e6
        speeds = results.speeds.setdefault(f"{seconds:g} s", [])
        used = 0.0
        for row, (ask, vector) in zip(rows, asks, strict=True):
            before = composer.processor()
            piece = composer.compose(ask)
            used += composer.processor() - before
            speeds.append((piece.first, piece.factor))
            read, said = reader.hear(piece.samples)
            plan = writer.plan(ask)
            write = writer.begin(plan)
            results.titles.append(row.title)
            results.felt.append(ask.va[-1].astype(np.float64))
            results.captions.append((vector, said))
            results.heard.append(finished.heard(piece.samples))
            results.written.append(finished.written(plan, [write(number) for number in range(len(plan.sections))]))
            results.reports.append(piece.report)
            for name, value in read.items():
                results.read[name].append(value)
            say(f"{row.title}: {piece.report['key']} {piece.report['mode']}, made in {piece.whole:.1f} s")
        results.processor[f"{seconds:g} s"] = used / (seconds * len(asks))
        chosen = [asks[number][0] for number in np.linspace(0, len(asks) - 1, long).astype(int)]
        three = [_longer(ask, 180.0) for ask in chosen]
        with watched(composer.stub) as seen:
            results.speeds["180 s"] = []
            before = composer.processor()
            for ask in three:
                piece = composer.compose(ask)
                results.speeds["180 s"].append((piece.first, piece.factor))
        results.processor["180 s"] = (composer.processor() - before) / (180.0 * len(three))
        results.memory["most while pieces of 180 s are made one by one"] = max(seen)
        say("long pieces made")
        idle, busy = [], []
        for ask in [*chosen, *chosen]:
            idle.append(_first(composer, ask))
            client, answers, _ = composer.start(_longer(ask, 180.0), live=False, count=QUEUED + 1)
            answers.get(timeout=60)
            busy.append(_first(composer, ask))
            client.stop_stream(cancel_requests=True)
            time.sleep(2)
        results.speeds["first block of 20 s, nothing else is made"] = [(value, 0.0) for value in idle]
        under = f"first block of 20 s, a background piece of 180 s under way and {QUEUED} queued"
        results.speeds[under] = [(value, 0.0) for value in busy]
    return results


def _longer(ask: Ask, seconds: float) -> Ask:
    return Ask(ask.rgb, ask.va, ask.measurements, ask.vector, seconds, ask.seed)


def _first(composer: Composer, ask: Ask) -> float:
    client, answers, asked = composer.start(ask)
    when, _, error = answers.get(timeout=60)
    client.stop_stream(cancel_requests=True)
    if error is not None:
        raise RuntimeError(f"{MODEL} refused: {error}")
    return when - asked


# -- the report --------------------------------------------------------------------------------------------


def report(results: Results, seconds: float, commit: str) -> str:
    """Markdown."""
    generator = np.random.default_rng(11)
    felt = np.array(results.felt)
    lines = [
        f"# Composed music, measured on {datetime.now(UTC):%d %B %Y}".replace(" 0", " "),
        "",
        f"{len(felt)} sample pictures, a piece of {seconds:g} s each (seed 1), commit {commit}. "
        f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}. Written by "
        "`python -m benchmarks.music`; what is measured and by what is said there and in `benchmarks.finished`.",
        "",
        "## Does it sound finished?",
        "",
        "| measure | wanted | least | median | most | pieces that meet it |",
        "|---|---|---|---|---|---|",
    ]
    for name, wanted, values, good in _measures(results, seconds):
        least, median, most = np.min(values), np.median(values), np.max(values)
        lines.append(f"| {name} | {wanted} | {least:.3g} | {median:.3g} | {most:.3g} | {sum(good)} of {len(good)} |")
    lines += [
        "",
        "## Does it mean the picture?",
        "",
        "Spearman's rho between the pictures' valence and arousal (the whole, as the pipeline fuses them) and what "
        f"each reader hears in the piece; 95 % bootstrap interval over pictures ({DRAWS:,} draws); chance: the 95th "
        "percentile over permuted pieces, and the share of permutations that reach the rho.",
        "",
        "| reader | axis | rho | 95 % | chance reaches | p |",
        "|---|---|---|---|---|---|",
    ]
    for reader in READERS:
        read = np.array(results.read[reader])
        for axis, name in enumerate(("valence", "arousal")):
            found = agreement(felt[:, axis], read[:, axis], generator)
            lines.append(
                f"| {reader} | {name} | **{found.rho:.2f}** | {found.low:.2f} to {found.high:.2f} | "
                f"{found.chance:.2f} | {found.p:.4f} |"
            )
    lines += [
        "",
        "`va_sound` reads tempo, mode and density, which the composer sets: it says that they arrive in the sound. "
        "`tags` shares nothing with the composer. Wanted of `tags`: arousal above .7, valence above .4.",
        "",
        "The right picture among all, from the piece alone: nearest by standardised valence and arousal, and by the "
        "captions' vectors (the product's own joint space through text).",
        "",
        "| by | nearest is right | among the five nearest | wrong pictures that are nearer | p |",
        "|---|---|---|---|---|",
    ]
    count = len(felt)
    lines.append(f"| chance | {1 / count:.3f} | {min(1, 5 / count):.3f} | .500 | |")
    for reader in READERS:
        read = standardised(np.array(results.read[reader]))
        found_at = retrieval(np.linalg.norm(read[:, None] - standardised(felt)[None], axis=2), generator)
        lines.append(_found(reader, found_at))
    pictures, pieces = (np.array([pair[side] for pair in results.captions]) for side in (0, 1))
    lines.append(_found("captions", retrieval(1 - pieces @ pictures.T, generator)))
    lines += [
        "",
        "## Is it faster than it plays?",
        "",
        "Through the model server, one piece at a time unless said; seconds from the request to the first block, and "
        "seconds of making for each second of sound.",
        "",
        "| pieces | count | first block p50 | p95 | making p50 | p95 |",
        "|---|---|---|---|---|---|",
    ]
    for name, speeds in results.speeds.items():
        first, factor = (np.array([speed[side] for speed in speeds]) for side in (0, 1))
        made = f"{np.median(factor):.3f} | {np.quantile(factor, 0.95):.3f}" if factor.any() else "|"
        lines.append(f"| {name} | {len(first)} | {np.median(first):.2f} | {np.quantile(first, 0.95):.2f} | {made} |")
    lines += ["", "Processor seconds of the model's process for each second of sound, whatever else ran: "]
    lines[-1] += "; ".join(f"pieces of {name} {value:.3f}" for name, value in results.processor.items())
    ended = os.getloadavg()[0]
    lines[-1] += f". The machine's load was {results.load:.1f} when this run began and {ended:.1f} at its end: the "
    state = "busy" if max(results.load, ended) > 2.0 else "quiet"
    lines[-1] += f"wall times above are those of a {state} machine."
    lines += ["", "Resident memory of the model's process, MB: "]
    lines[-1] += "; ".join(f"{name} {value:.0f}" for name, value in results.memory.items()) + "."
    lines += [
        "",
        "## Each piece",
        "",
        "| picture | felt (V, A) | key | tempo | notes a second | instruments | LUFS |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for title, mood, said, sound in zip(results.titles, felt, results.reports, results.heard, strict=True):
        players = ", ".join(each["name"] for each in said["instruments"])
        lines.append(
            f"| {title} | {mood[0]:.2f}, {mood[1]:.2f} | {said['key']} {said['mode']} | {said['tempo']:.0f} | "
            f"{said['notes'] / seconds:.1f} | {players} | {sound.loudness:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _measures(results: Results, seconds: float) -> Iterator[tuple[str, str, list[float], list[bool]]]:
    heard, written = results.heard, results.written

    def row(
        name: str, wanted: str, values: list[float], good: list[bool]
    ) -> tuple[str, str, list[float], list[bool]]:
        return name, wanted, values, good

    values = [each.loudness for each in heard]
    yield row("loudness, LUFS", "-16 +/- 1", values, [abs(value + 16) <= 1 for value in values])
    values = [each.true_peak for each in heard]
    yield row("true peak, dBTP", "below -1", values, [value < -1 for value in values])
    values = [float(len(each.clicks)) for each in heard]
    yield row("clicks", "none", values, [value == 0 for value in values])
    values = [each.silence for each in heard]
    yield row("longest silence, s", "at most 1.5", values, [value <= 1.5 for value in values])
    values = [each.seconds for each in heard]
    yield row("seconds", f"{seconds:g}", values, [abs(value - seconds) < 1e-4 for value in values])
    values = [float(each.stuck) for each in written]
    yield row("stuck notes", "none", values, [value == 0 for value in values])
    values = [each.in_key for each in written]
    yield row("notes in the stated key, but for passing ones", "all", values, [value == 1 for value in values])
    values = [each.passing for each in written]
    yield row("passing notes outside the key", "few", values, [value < 0.15 for value in values])
    values = [float(each.voices) for each in written]
    good = [each.voices >= min(3, each.ensemble) for each in written]
    yield row("voices", "3 where the ensemble has them", values, good)
    values = [each.alike for each in written]
    yield row("most alike two sections, shared notes", "below .9", values, [value < 0.9 for value in values])
    values = [each.theme for each in written]
    yield row("later sections that state the first one's theme", "all", values, [value == 1 for value in values])


def _found(name: str, found: Found) -> str:
    return f"| {name} | {found.first:.3f} | {found.fifth:.3f} | {found.middle:.3f} | {found.p:.4f} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures composed music and writes a report.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--samples", type=Path, help="a folder of media with its manifest (default: fetched)")
    parser.add_argument("--limit", type=int, default=0, help="so many pictures only")
    parser.add_argument("--long", type=int, default=8, help="how many pieces of 180 s")
    parser.add_argument("--out", type=Path, default=CLONE / f"docs/reports/music-{datetime.now(UTC):%Y-%m-%d}.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.samples or samples.fetch(Path(name) / "samples", say).manifest.parent
        manifest = next(folder.glob("manifest*"))
        rows = [row for row in read_manifest(manifest) if row.kind == Kind.ARTWORK.value]
        rows = rows[: chosen.limit] if chosen.limit else rows
        results = run(folder, rows, chosen.seconds, Path(name) / "work", min(chosen.long, len(rows)))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - the system's own
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    chosen.out.write_text(report(results, chosen.seconds, commit or "unknown"), encoding="utf-8")
    say(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
