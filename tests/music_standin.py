"""A stand-in for the composer: the same tensors and manners over a plain tone, so that the way of a piece is tested
without the real one. How music sounds is left to the composer's own tests.

`STANDIN` is the model file that a real model server runs; `MadeComposer` answers inside the tests' own process.
Wishes steer it: "pace" (seconds of sound for each second, 0: at once), "fail_after" (chunks, then an error),
"die_after" (chunks, then its process ends), "hang_after" (chunks, then silence).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gallery.music import LiveMusic
from infra.objects import Objects
from infra.records import DEFAULT_EXHIBITION
from infra.vectors import Vectors
from schemas.events import Event, MusicRequested, PairingCommand, new_trace
from schemas.failures import Lasting
from schemas.media import Kind
from schemas.profile import ModelEntry
from schemas.records import ExhibitionSettings
from streams.compose import Asker, ComposeHandler
from streams.pairing import PairHandler
from tests.made_world import PROFILE, HookedObjects, MadeInference, World
from tests.serving_fixtures import REPOSITORY, Served, running
from tests.stack_fixtures import Reached, put_item
from workers.compose import Studio
from workers.contract import Array, Tools
from workers.spool import RATE

SECOND = "compose_second"
"""The same stand-in once more, as a second composer of the embedded stack's profile."""

CONFIGURATION = """
name: "compose_music"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: True }
input [
  { name: "RGB" data_type: TYPE_FP32 dims: [ 5, 3 ] },
  { name: "VA" data_type: TYPE_FP32 dims: [ 5, 2 ] },
  { name: "MEASUREMENTS" data_type: TYPE_STRING dims: [ 5 ] },
  { name: "TEXTS" data_type: TYPE_STRING dims: [ 5 ] },
  { name: "VECTOR" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "SECONDS" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "SEED" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "WISHES" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "LIVE" data_type: TYPE_BOOL dims: [ 1 ] }
]
output [
  { name: "SAMPLES" data_type: TYPE_FP32 dims: [ -1, 2 ] },
  { name: "REPORT" data_type: TYPE_STRING dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "version" value: { string_value: "1" } }
"""

STANDIN = """
import json, os, threading, time
import numpy as np
import triton_python_backend_utils as pb

RATE = 48000

class TritonPythonModel:
    def initialize(self, args):
        self.live = 0
        self.lock = threading.Condition()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.compose, args=(request, request.get_response_sender()), daemon=True).start()
        return None

    def compose(self, request, sender):
        flags = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        read = lambda name: pb.get_input_tensor_by_name(request, name).as_numpy()
        seconds, seed, live = float(read("SECONDS")[0]), int(read("SEED")[0]), bool(read("LIVE")[0])
        wishes = json.loads(read("WISHES")[0])
        def answer(samples, report):
            sender.send(pb.InferenceResponse([
                pb.Tensor("SAMPLES", samples), pb.Tensor("REPORT", np.array([report], dtype=object))]))
        def fail(text):
            sender.send(pb.InferenceResponse(error=pb.TritonError(text)), flags=flags)
        unknown = set(wishes) - {"instruments", "key", "tempo", "pace", "fail_after", "die_after", "hang_after"}
        if not 5 <= seconds <= 180:
            return fail("invalid: SECONDS is %g; 5 to 180 are composed" % seconds)
        if unknown:
            return fail("invalid: WISHES: nobody knows %s" % sorted(unknown)[0])
        begun = time.monotonic()
        with self.lock:
            self.live += live
        try:
            total, made, number, first = int(seconds * RATE), 0, 0, 0.0
            pitch = 200 + float(read("VA")[4][1]) * 400 + seed % 50
            while made < total:
                with self.lock:
                    while not live and self.live and not sender.is_cancelled():
                        self.lock.wait(0.05)
                if sender.is_cancelled():
                    return sender.send(flags=flags)
                if number == wishes.get("fail_after"):
                    return fail("the strings broke")
                if number == wishes.get("die_after"):
                    os._exit(3)
                if number == wishes.get("hang_after"):
                    time.sleep(3600)
                count = min(RATE if number else RATE // 2, total - made)
                moments = (made + np.arange(count)) / RATE
                tone = 0.3 * np.sin(2 * np.pi * pitch * moments) * np.minimum(1, (total - made) / RATE)
                answer(np.stack([tone, 0.8 * tone], axis=1).astype(np.float32), b"")
                first = first or time.monotonic() - begun
                made, number = made + count, number + 1
                if wishes.get("pace"):
                    time.sleep(count / RATE / wishes["pace"])
            report = {"version": "1", "model": "stand-in", "seed": seed, "seconds": total / RATE, "key": "D",
                      "mode": "minor", "tempo": 90.0, "sections": [], "instruments": [], "loudness": -16.0,
                      "true_peak": -2.0, "notes": 1, "voices": 1, "made_seconds": time.monotonic() - begun,
                      "first_chunk_seconds": first}
            answer(np.zeros((0, 2), np.float32), json.dumps(report).encode())
            sender.send(flags=flags)
        finally:
            with self.lock:
                self.live -= live
                self.lock.notify_all()
"""


def repository(folder: Path, others: bool = True) -> Path:
    """A model repository with the stand-in, and the real models beside it unless told otherwise."""
    folder.mkdir(parents=True)
    if others:
        for path in REPOSITORY.glob("*/config.pbtxt"):
            if path.parent.name != "compose_music":
                (folder / path.parent.name).symlink_to(path.parent)
    for name in ("compose_music", *([SECOND] if others else [])):
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(CONFIGURATION.replace('"compose_music"', f'"{name}"'))
        (version / "model.py").write_text(STANDIN)
    return folder


def profile(folder: Path) -> Path:
    """The edge profile with the stand-in as both its composers, beside a repository of the same name."""
    repository(folder / "edge")
    text = (REPOSITORY.parent / "edge.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("compose_music")]
    place = lines.index("[models]") + 1
    for name in (SECOND, "compose_music"):
        lines.insert(place, f'{name} = {{ version = "stand-in 1", reads = ["measurements"] }}')
    lines.insert(lines.index("[composers]") + 2, f'second = "{SECOND}"')
    (folder / "edge.toml").write_text("\n".join(lines) + "\n")
    for built in REPOSITORY.parent.glob("edge.built.json"):
        shutil.copy(built, folder / built.name)
    return folder / "edge.toml"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A model server with nothing but the stand-in; stopped at the end."""
    with running(repository(folder / "repository", others=False), folder) as alone:
        yield alone


MUSIC_PROFILE = PROFILE.model_copy(
    update={"models": {**PROFILE.models, "compose_music": ModelEntry(version="stand-in 1", reads=("measurements",))}}
)


class MadeComposer(MadeInference):
    """The stand-in inside this process. `hook` is called before each chunk, with its number and whether it is live:
    a test may wait there, or raise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[int, bool], Awaitable[None]] | None = None
        self.running = 0
        self.composed: list[tuple[float, int, bool]] = []
        """(seconds, seed, live) of every piece that was begun."""

    async def stream(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, stall_seconds: float
    ) -> AsyncGenerator[dict[str, Array], None]:
        """As `infra.inference.Inference.stream`."""
        seconds, seed, live = float(inputs["SECONDS"][0]), int(inputs["SEED"][0]), bool(inputs["LIVE"][0])
        if not 5 <= seconds <= 180:
            raise Lasting(f"the model {model} refuses it: SECONDS is {seconds:g}")
        assert inputs["RGB"].shape == (5, 3) and inputs["VA"].shape == (5, 2) and inputs["VECTOR"].ndim == 1
        assert len(inputs["TEXTS"]) == len(inputs["MEASUREMENTS"]) == 5
        self.composed.append((seconds, seed, live))
        self.running += 1
        try:
            moments = np.arange(int(seconds * RATE)) / RATE
            tone = 0.3 * np.sin(2 * np.pi * (220 + seed % 99) * moments).astype(np.float32)
            for number, start in enumerate(range(0, len(tone), RATE)):
                if self.hook is not None:
                    await self.hook(number, live)
                part = tone[start : start + RATE]
                yield {"SAMPLES": np.stack([part, part / 2], axis=1), "REPORT": _bytes(b"")}
            report = {"version": "1", "seed": seed, "seconds": seconds, "key": "D", "mode": "minor", "sections": []}
            yield {"SAMPLES": np.zeros((0, 2), np.float32), "REPORT": _bytes(json.dumps(report).encode())}
        finally:
            self.running -= 1


def _bytes(content: bytes) -> Array:
    array = np.empty(1, dtype=np.object_)
    array[0] = content
    return array


class MusicWorld(World):
    """A world that composes: the stand-in, the compose stage, and what people ask for."""

    def __init__(self, objects: Objects, vectors: Vectors, folder: Path) -> None:
        self.folder = folder
        super().__init__(objects, vectors)

    def restart(self) -> None:
        """See `World.restart`."""
        if not isinstance(self.inference, MadeComposer):
            self.inference = MadeComposer()
        super().restart()
        self.tools = Tools(self.inference, MUSIC_PROFILE, self.vectors)
        self.studio = Studio(self.records, self.tools, self.folder)
        self.asker = Asker(self.records, self.studio, seconds=5)
        self.composing = ComposeHandler(self.records, self.studio, self.tools, self.publish, self.withdrawing.undo)
        self.pairing = PairHandler(self.records, self.publish, self.asker.wall)
        self.handlers |= {PairingCommand: self.pairing, MusicRequested: self.composing}
        self.live = LiveMusic(self.records, self.studio, self.publish, self.asker.ask, self.withdrawing.undo)

    async def settle(self, until: type[Event] | None = None) -> None:
        """See `World.settle`; what is asked for aside is waited for too."""
        await super().settle(until)
        await self.pairing.settled()
        if until is None and self.published.events:
            await self.settle()

    async def hang(self, *names: str, music: str = "on request") -> list[str]:
        """Pictures, each with a track, understood and paired on the default wall with this policy."""
        settings = await self.records.exhibition(DEFAULT_EXHIBITION)
        assert settings is not None
        if settings.music != music:
            changed = {**settings.model_dump(), "music": music, "number": settings.number + 1}
            assert await self.records.put_exhibition(ExhibitionSettings.model_validate(changed))
        pictures = []
        for place, name in enumerate(names):
            for kind in Kind:
                called = name if kind is Kind.ARTWORK else f"{name}, a track"
                item = await put_item(self.records, called, kind, sequence=place)
                pictures += [item] if kind is Kind.ARTWORK else []
                await self.announce(item)
        await self.settle(until=MusicRequested)
        return pictures

    async def ask(self, artwork: str, **how: Any) -> MusicRequested:
        """Somebody wants a piece in the background; the event, not yet handled."""
        question = await self.studio.question(artwork, **how)
        event = await self.asker.ask(question, await self.studio.place_of(artwork), new_trace())
        assert event is not None
        return event

    def left_in_folder(self) -> list[str]:
        """Files that spools left."""
        return [path.name for path in self.folder.iterdir()] if self.folder.exists() else []


@pytest.fixture
async def studio_world(object_store: Reached, objects: Objects, tmp_path: Path) -> AsyncIterator[MusicWorld]:
    """A world that composes, in the tests' empty bucket."""
    hooked = HookedObjects(object_store.endpoint, object_store.access_key, object_store.secret_key, objects.bucket)
    vectors = Vectors(MUSIC_PROFILE.all_spaces(), folder=tmp_path / "qdrant")
    await vectors.prepare()
    world = MusicWorld(hooked, vectors, tmp_path / "spool")
    yield world
    await world.live.close()
    assert world.left_in_folder() == []
    await vectors.close()
    hooked.close()
