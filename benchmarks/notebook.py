"""The baseline: what somebody writes in a notebook to do the main job without Promenade, run as a script.

Item by item: read the file, decode it, cut it in five, measure, caption, score, embed; then pair everything once and
write a CSV. The models, the decoder and the cutting are the product's own, called in this process, so what differs
is only what stands between them. Nothing is kept that a crash would need: no record, no search, no second run.

    python -m benchmarks.notebook --repository model_repository/edge --manifest M --output out.csv [--threads N]
                                  [--share 0/2]

`--threads 0` is onnxruntime's default (all cores); `--share` makes this process one of several that divide the items
beforehand. The process warms the models up, prints `ready`, waits for a line on standard input, works, and prints
one JSON object of seconds. What is compared with what is left to `benchmarks.pipeline`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from edge_models.local import LocalModels

from promenade.samples.catalogue import Row, read_manifest
from schemas.media import Kind, parts_of
from schemas.records import Catalogue
from workers.caption import prompts
from workers.media.detect import HEAD_BYTES, detect
from workers.media.limits import Limits
from workers.media.parts import picture_parts, sound_parts
from workers.media.pictures import prepare_picture
from workers.media.sounds import prepare_sound

Array = npt.NDArray[Any]
COLUMNS: Final = ("file", "kind", "title", "captions", "rgb", "va", "vector", "tag_vector")
COLUMNS_OF_PEOPLE: Final = ("title", "artist", "year", "style", "genre", "licence")
_LIMITS: Final = Limits()


def texts(values: Sequence[str | bytes]) -> Array:
    """Texts as a batch of one-element tensors, [n, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        array[row, 0] = value.encode() if isinstance(value, str) else value
    return array


class Notebook:
    """The script.

    Args:
        repository: the built model repository.
        threads: onnxruntime's threads, 0 for its default.
    """

    def __init__(self, repository: Path, threads: int) -> None:
        self.models = LocalModels(repository, threads)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def clocked(self, step: str) -> Iterator[None]:
        """Add the time of a step to `seconds`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started

    def item(self, folder: Path, row: Row) -> dict[str, str]:
        """One line of the CSV."""
        kind = Kind(row.kind)
        with self.clocked("decode"):
            prepare = prepare_picture if kind is Kind.ARTWORK else prepare_sound
            with (folder / row.file).open("rb") as file:
                form = detect(file.read(HEAD_BYTES))
                file.seek(0)
                _, rendition = prepare(file, form, _LIMITS)
        with self.clocked("cut"):
            suffix = "picture" if kind is Kind.ARTWORK else "sound"
            measured, vectors = (self._picture if kind is Kind.ARTWORK else self._sound)(rendition)
        names = parts_of(kind)
        facts = {key: getattr(row, key) for key in COLUMNS_OF_PEOPLE if getattr(row, key)}
        catalogue = Catalogue.model_validate(facts).model_dump_json(exclude_none=True)
        nothing = self._nothing(kind)
        with self.clocked("caption"):
            said = self.models.infer(
                f"caption_{suffix}",
                {
                    **nothing,
                    "PART": texts(names),
                    "PROMPT": texts(prompts(kind)),
                    "CATALOGUE": texts([catalogue] * len(names)),
                    "MEASUREMENTS": measured,
                },
            )
        with self.clocked("score"):
            scored = self.models.infer(
                "score_emotion",
                {
                    "TEXTS": said["TEXT"].reshape(1, -1),
                    "PHRASES": said["PHRASES"].reshape(1, -1),
                    "MEASUREMENTS": measured.reshape(1, -1),
                    "KIND": texts([kind.value]),
                },
            )
            medium = self.models.infer(f"va_{suffix}", {**nothing, "MEASUREMENTS": measured})["VA"]
        with self.clocked("embed"):
            embedded = self.models.infer(f"embed_{suffix}", {**nothing, "TEXT": said["TEXT"]})["VECTOR"]
        return {
            "file": row.file,
            "kind": row.kind,
            "title": row.title,
            "captions": json.dumps([each.decode() for each in said["TEXT"][:, 0]], ensure_ascii=False),
            "rgb": json.dumps(np.round(scored["RGB"][0].astype(float), 3).tolist()),
            "va": json.dumps(np.round((scored["VA"][0] + medium) / 2, 5).tolist()),
            "vector": json.dumps(embedded[-1].astype(float).tolist()),
            "tag_vector": json.dumps(vectors[-1].astype(float).tolist()),
        }

    def _picture(self, rendition: bytes) -> tuple[Array, Array]:
        parts = picture_parts(rendition)
        with self._measuring():
            answer = self.models.infer("measure_picture", {"IMAGE": texts(parts)})
        return answer["MEASUREMENTS"], answer["VECTOR"]

    def _sound(self, rendition: bytes) -> tuple[Array, Array]:
        parts = sound_parts(rendition)
        with self._measuring():
            answers = [
                self.models.infer("measure_sound", {"SOUND": part.windows[None], "LENGTHS": part.lengths[None]})
                for part in parts
            ]
        return (
            np.concatenate([answer["MEASUREMENTS"] for answer in answers]),
            np.concatenate([answer["VECTOR"] for answer in answers]),
        )

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        taken = time.perf_counter() - started
        self.seconds["measure"] = self.seconds.get("measure", 0.0) + taken
        self.seconds["cut"] = self.seconds.get("cut", 0.0) - taken

    @staticmethod
    def _nothing(kind: Kind) -> dict[str, Array]:
        """The medium's tensors of models that do not look at it."""
        if kind is Kind.ARTWORK:
            return {"IMAGE": texts([b""] * 5)}
        return {"SOUND": np.zeros((5, 1, 1), np.float32), "LENGTHS": np.zeros((5, 1), np.int32)}


def paired(lines: Sequence[dict[str, str]]) -> list[tuple[str, str, float]]:
    """Every artwork and track by cosine of their fifteen colour values, best pairs first, each item once."""
    sides = {kind.value: [line for line in lines if line["kind"] == kind.value] for kind in Kind}
    if not all(sides.values()):
        return []
    left, right = (
        np.array([np.ravel(json.loads(line["rgb"])) for line in sides[kind.value]])
        for kind in (Kind.ARTWORK, Kind.TRACK)
    )
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    similarity = np.round(left @ right.T, 7)
    names = [[line["file"] for line in sides[kind.value]] for kind in (Kind.ARTWORK, Kind.TRACK)]
    free = [set(range(len(left))), set(range(len(right)))]
    pairs: list[tuple[str, str, float]] = []
    for place in np.argsort(-similarity, axis=None, kind="stable"):
        row, column = divmod(int(place), len(right))
        if row in free[0] and column in free[1]:
            free[0].remove(row)
            free[1].remove(column)
            pairs.append((names[0][row], names[1][column], float(similarity[row, column])))
    return pairs


def write_csv(path: Path, lines: Sequence[dict[str, str]]) -> None:
    """One line an item."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


def main() -> None:
    """Warm up, wait for the word, work."""
    parser = argparse.ArgumentParser(description="The plain script that the pipeline is compared with.")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--warm", type=Path, required=True, help="manifest of a few other items to warm up with")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--share", default="0/1", help="which of how many processes this one is")
    arguments = parser.parse_args()
    number, count = map(int, arguments.share.split("/"))
    rows = read_manifest(arguments.manifest)
    # A static split by hand: every second picture, every second track.
    mine = [
        row
        for kind in Kind
        for index, row in enumerate([each for each in rows if each.kind == kind.value])
        if index % count == number
    ]
    notebook = Notebook(arguments.repository, arguments.threads)
    for row in read_manifest(arguments.warm):
        notebook.item(arguments.warm.parent, row)
    notebook.seconds.clear()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()
    lines = [notebook.item(arguments.manifest.parent, row) for row in mine]
    if count == 1:
        with notebook.clocked("pair"):
            pairs = paired(lines)
    else:
        # Whoever started the shares pairs what they wrote.
        pairs = []
    with notebook.clocked("write"):
        write_csv(arguments.output, lines)
    answer = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "items": len(lines),
        "steps": notebook.seconds,
        "pairs": pairs,
        "rgb": {line["file"]: json.loads(line["rgb"]) for line in lines},
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
