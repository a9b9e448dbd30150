"""A training run is a folder: settings, data version, curves, samples, checkpoints, the trained model, its card.

    run.json               settings, the data set's folder and version, when it began
    curves.csv, .png       a line a step; validations beside
    speed.csv              how fast it went; apart, so that curves of two equal runs are equal byte for byte
    checkpoints/000100/    everything that the next step needs; the last two are kept
    weights/000100.safetensors   the trained weights at a validation; the best and the last are kept
    samples/000100/        sound that one can listen to
    model.safetensors, export/, MODEL_CARD.md

A checkpoint is written beside and renamed, so a kill leaves the old one or the new one. One process at a time trains
in a folder.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from training.settings import RunError
from training.tables import BadData, write_atomically

KEPT: Final = 2
"""Checkpoints kept: the last, and one before in case the disk failed just then."""


def _synced(path: Path) -> None:
    """Make sure that what was written under a folder's names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


METADATA: Final = "promenade"
"""Under this name a file of weights says what it is."""


class Run:
    """The folder of one run.

    Args:
        folder: made where it is not there.
        settings: by which it trains; a resumed run must have the same.
        data: version and folder of the data set, and what else must be the same when it goes on.
        resume: go on from the last checkpoint; without, the folder must be new.
        holds: whether this process writes there; of several that train together one does.

    Raises RunError where the folder is taken, or settings or data are others than before.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        data: Mapping[str, Any],
        *,
        resume: bool = False,
        holds: bool = True,
    ) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self._lock: FileLock | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if not holds:
            return
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"another process trains in {folder}; wait for it, or name another --run") from None
        description = folder / "run.json"
        wanted = {"settings": self.settings, "data": dict(data)}
        try:
            if description.is_file():
                self._continue(json.loads(description.read_text()), wanted, resume)
            elif resume and any(folder.glob("checkpoints/*")):
                raise RunError(f"{folder} has checkpoints but no run.json: it is no run of ours")
            else:
                begun = {"began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **wanted}
                write_atomically(description, json.dumps(begun, indent=2, sort_keys=True).encode())
            for name in ("checkpoints", "weights", "samples"):
                (folder / name).mkdir(exist_ok=True)
            for left in (folder / "checkpoints").glob(".*"):
                shutil.rmtree(left)
        except BaseException:
            self.close()
            raise

    def _continue(self, before: Mapping[str, Any], wanted: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise RunError(f"{self.folder} holds a run already: go on with --resume, or name another --run")
        # As JSON has them, where a tuple is a list.
        asked = json.loads(json.dumps(wanted))
        for kind in ("settings", "data"):
            changed = sorted(
                name
                for name in before[kind].keys() | asked[kind].keys()
                if before[kind].get(name) != asked[kind].get(name) and name != "folder"
            )
            if changed:
                was = ", ".join(f"{name} {before[kind].get(name)} -> {asked[kind].get(name)}" for name in changed)
                raise RunError(f"{self.folder} began with other {kind} ({was}); a resumed run must have the same")

    def close(self) -> None:
        """Let another process train in this folder."""
        if self._lock is not None:
            self._lock.release()

    # Checkpoints

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder) of complete checkpoints, the last one first."""
        found = [(int(path.name), path) for path in (self.folder / "checkpoints").glob("[0-9]*")]
        return sorted(found, reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep everything that step `step` (the next one) needs."""
        place = self.folder / "checkpoints" / f"{step:06d}"
        beside = place.with_name(f".{place.name}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        with (beside / "state.pt").open("wb") as file:
            torch.save({"step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        _synced(beside)
        if place.is_dir():
            shutil.rmtree(place)
        beside.rename(place)
        _synced(place.parent)
        for _, path in self.checkpoints()[KEPT:]:
            shutil.rmtree(path)

    def restore(self) -> dict[str, Any] | None:
        """The last checkpoint that can be read, on the CPU; None where there is none. What came later is undone."""
        for step, path in self.checkpoints():
            try:
                state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError) as error:
                print(f"the checkpoint {path} cannot be read ({error}); trying the one before", file=sys.stderr)
                shutil.rmtree(path)
                continue
            self._undo_after(step)
            return state
        self._undo_after(0)
        return None

    def _undo_after(self, step: int) -> None:
        for name in ("curves.csv", "speed.csv", "validation.csv"):
            path = self.folder / name
            if path.is_file():
                lines = path.read_text().splitlines(keepends=True)
                # A line that the kill cut off has no end.
                kept = lines[:1] + [
                    line for line in lines[1:] if line.endswith("\n") and int(line.split(",", 1)[0]) <= step
                ]
                write_atomically(path, "".join(kept).encode())
        for path in (self.folder / "weights").glob("*.safetensors"):
            if int(path.stem) > step:
                path.unlink()
        for path in (self.folder / "samples").glob("[0-9]*"):
            if int(path.name) > step:
                shutil.rmtree(path)

    # Weights

    def keep_weights(self, step: int, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Keep the trained weights at a validation; of the earlier ones only the best stays."""
        save_weights(self.folder / "weights" / f"{step:06d}.safetensors", state, metadata)
        best = self.best_step()
        for path in (self.folder / "weights").glob("*.safetensors"):
            if int(path.stem) not in (step, best):
                path.unlink()

    def best_step(self) -> int | None:
        """The step with the lowest validation loss; None before the first validation."""
        rows = self.read("validation.csv")
        rows = [row for row in rows if math.isfinite(float(row["loss"]))]
        return int(min(rows, key=lambda row: float(row["loss"]))["step"]) if rows else None

    def finish(self, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
        """Write model.safetensors: the best weights by validation, else the last ones."""
        best = self.best_step()
        chosen = self.folder / "weights" / f"{best:06d}.safetensors" if best is not None else None
        path = self.folder / "model.safetensors"
        if chosen is not None and chosen.is_file():
            write_atomically(path, chosen.read_bytes())
        else:
            save_weights(path, state, metadata)
        return path

    # Curves

    def appender(self, name: str, columns: Iterable[str]) -> Appender:
        """Adds lines to a table of the run, which survives being resumed."""
        return Appender(self.folder / name, list(columns))

    def read(self, name: str) -> list[dict[str, str]]:
        """Rows of a table of the run."""
        path = self.folder / name
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def draw(self) -> None:
        """Draw the curves, where matplotlib is installed."""
        try:
            import matplotlib
        except ImportError:
            return
        matplotlib.use("Agg")
        from matplotlib.figure import Figure

        steps, validations = self.read("curves.csv"), self.read("validation.csv")
        if not steps:
            return
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.add_subplot()
        at = [int(row["step"]) for row in steps]
        losses = [float(row["loss"]) for row in steps]
        axes.plot(at, losses, color="#b8c4d6", linewidth=0.8, label="a step's loss")
        axes.plot(at, _smoothed(losses), color="#1f4e9c", label="smoothed")
        for name in [name for name in (validations[0] if validations else {}) if name.startswith("loss")]:
            axes.plot(
                [int(row["step"]) for row in validations],
                [float(row[name]) for row in validations],
                marker="o",
                label=f"validation: {name}",
            )
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend()
        axes.grid(alpha=0.3)
        beside = self.folder / ".curves.png"
        figure.savefig(beside, dpi=110, metadata={"Software": None})
        beside.replace(self.folder / "curves.png")


def _smoothed(values: list[float], share: float = 0.95) -> list[float]:
    """Exponential mean, corrected for its beginning."""
    found, mean = [], 0.0
    for number, value in enumerate(values, 1):
        mean = share * mean + (1 - share) * value
        found.append(mean / (1 - share**number))
    return found


class Appender:
    """Lines added to a CSV file, each on the disk's way at once."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.columns = columns
        fresh = not path.is_file() or path.stat().st_size == 0
        self._file: TextIO = path.open("a", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if fresh:
            self._writer.writerow(columns)
            self._file.flush()

    def add(self, **values: float | int | str) -> None:
        """One line; numbers are written so that they are read back exactly."""
        self._writer.writerow(
            [repr(value) if isinstance(value, float) else value for value in map(values.get, self.columns)]
        )
        self._file.flush()

    def close(self) -> None:
        """Finish."""
        self._file.close()


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights as safetensors, whole or not at all."""
    from safetensors.torch import save

    # One entry: the order of several would differ from run to run, and equal runs should write equal files.
    said = {METADATA: json.dumps(dict(metadata), sort_keys=True)}
    content = save({name: value.detach().cpu().contiguous() for name, value in state.items()}, said)
    write_atomically(path, content)


def weights_metadata(path: Path) -> dict[str, str]:
    """What a file of weights says of itself.

    Raises BadData where it is missing.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise BadData(f"there is no {path}: the run has not finished; go on with --resume")
    with safe_open(path, "pt") as content:
        found: dict[str, str] = json.loads((content.metadata() or {}).get(METADATA, "{}"))
        return found


class Progress:
    """Says how far a long work is, how fast it goes and how long it will take, every few seconds.

    Args:
        what: is done, for people.
        total: steps in all.
        done: steps before this process began.
        every: seconds between two lines.
    """

    def __init__(self, what: str, total: int, done: int = 0, every: float = 5.0, out: TextIO | None = None) -> None:
        self.what, self.total, self.first, self.every = what, total, done, every
        self.out = out or sys.stderr
        self.began = self.told = time.monotonic()

    def __call__(self, done: int, total: int | None = None, **shown: float) -> None:
        """`done` steps are done; values to show beside, such as loss=0.12."""
        self.total = total or self.total
        moment = time.monotonic()
        if moment - self.told < self.every and done < self.total:
            return
        self.told = moment
        rate = (done - self.first) / max(1e-9, moment - self.began)
        left = f", {spoken((self.total - done) / rate)} left" if rate > 0 and done < self.total else ""
        values = "".join(f", {name} {value:.4g}" for name, value in shown.items())
        speed = f", {rate:.3g} a second" if rate > 0 else ""
        print(f"{self.what}: {done} of {self.total}{values}{speed}{left}", file=self.out, flush=True)


def spoken(seconds: float) -> str:
    """A length of time for people: `3 h 20 min`, `5 min`, `12 s`."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{round(seconds / 60)} min" if seconds >= 90 else f"{seconds:.0f} s"


def peak_memory(device: torch.device) -> int:
    """Most bytes that were in use: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
