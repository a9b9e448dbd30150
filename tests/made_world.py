"""The stream without broker and model server: real handlers over a real object store, made answers of models.

Events that handlers publish are handed to the handlers that wait for them, one by one (`settle`), so that a test
can stop the world at any event and at any call to the object store (`HookedObjects`). Models answer with fixed
numbers but never twice with the same words, as real captioners do: a second computation is seen.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import soundfile
from PIL import Image

from infra.metrics import STAGE_EVENTS
from infra.objects import Objects
from infra.records import Records
from infra.vectors import Vectors
from promenade.profile import read_profile
from schemas.events import EVENT_OF_STAGE, Arrived, Event, PairingCommand, Withdrawn, encode, new_trace
from schemas.media import Kind, digest_of, split_item_id
from schemas.records import Stage
from streams.exhibitions import ready_commands
from streams.items import ItemHandler
from streams.pairing import PairHandler
from streams.pipeline import PIPELINE
from streams.runner import Delivery, Handler
from streams.upkeep import WithdrawHandler
from tests.stack_fixtures import Published, Reached
from workers.contract import Array, Tools

T = TypeVar("T")
PROFILE = read_profile(Path(__file__).resolve().parents[1] / "model_repository" / "edge.toml")
WORK = {entry.work.stage: entry.work for entry in PIPELINE}


def picture(colour: tuple[int, int, int] = (128, 128, 128), side: int = 64) -> bytes:
    """A small JPEG of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(content, "JPEG")
    return content.getvalue()


def sound(seconds: float = 0.5) -> bytes:
    """A short FLAC as the pipeline keeps them: 16 kHz, mono."""
    content = io.BytesIO()
    samples = np.sin(np.arange(int(16_000 * seconds)) / 20).astype(np.float32) / 4
    soundfile.write(content, samples, 16_000, format="FLAC")
    return content.getvalue()


SOUND = sound()


class MadeInference:
    """Answers with tensors of the documented shapes.

    `before` is called with each model's name first: a test may wait there, or raise.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.before: Callable[[str], Awaitable[None]] | None = None
        self._number = itertools.count()

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.calls.append(model)
        if self.before is not None:
            await self.before(model)
        rows = len(next(iter(inputs.values())))
        seed = digest_of(repr([inputs[name].tolist() for name in sorted(inputs)]).encode())
        generator = np.random.default_rng(int(seed[:8], 16))
        number = next(self._number)

        def texts(values: Sequence[str], shape: tuple[int, ...]) -> Array:
            array = np.empty(len(values), dtype=np.object_)
            array[:] = [value.encode() for value in values]
            return array.reshape(shape)

        def numbers(*shape: int) -> Array:
            return generator.uniform(0.05, 0.95, shape).astype(np.float32)

        dimension = {"measure_picture": 1280, "measure_sound": 400}.get(model, 384)
        made: dict[str, Array] = {
            "MEASUREMENTS": texts([json.dumps({"kind": "picture", "version": "1"})] * rows, (rows, 1)),
            "VECTOR": numbers(rows, dimension),
            "TEXT": texts([f"Caption {number} of part {row}." for row in range(rows)], (rows, 1)),
            "PHRASES": texts([json.dumps([["calm", 0.5]])] * rows, (rows, 1)),
            "RGB": numbers(1, 5, 3) * 255,
            "VA": numbers(1, 5, 2) if model == "score_emotion" else numbers(rows, 2),
            "EVIDENCE": texts(["[]"] * 5, (1, 5)),
        }
        return {name: made[name] for name in outputs}


class Died(BaseException):
    """The process was killed at this point."""


class HookedObjects(Objects):
    """An object store at whose n-th call something happens."""

    calls = 0
    dead = False

    def arm(self, at: int, hook: Callable[[], Awaitable[None]] | None) -> None:
        """Count calls anew; before the one with this number (from 1) the hook runs, its own calls uncounted."""
        self.calls, self._at, self._hook, self._busy = 0, at, hook, False

    def disarm(self) -> int:
        """No hook any more; how many calls were counted."""
        counted = self.calls
        self.arm(0, None)
        self.dead = False
        return counted

    async def die(self) -> None:
        """A hook: this call and all later ones do not happen."""
        self.dead = True
        raise Died

    async def _run(self, operation: str, work: Callable[[], T]) -> T:
        if self.dead:
            raise Died
        if not getattr(self, "_busy", False):
            self.calls += 1
            if self.calls == getattr(self, "_at", 0) and self._hook is not None:
                self._busy = True
                try:
                    await self._hook()
                finally:
                    self._busy = False
        return await super()._run(operation, work)


class World:
    """All handlers of one worker, over one object store."""

    def __init__(self, objects: Objects, vectors: Vectors) -> None:
        self.records = Records(objects)
        self.vectors = vectors
        self.inference = MadeInference()
        self.published = Published()
        self.everything: list[Event] = []
        """Every event ever, as the log of a broker holds it."""
        self._offset = itertools.count()
        self.restart()

    def restart(self) -> None:
        """New handlers, as a new process has them: nothing in memory."""
        self.records = Records(self.records.objects)
        self.withdrawing = WithdrawHandler(self.records, self.vectors, self.publish)
        tools = Tools(self.inference, PROFILE, self.vectors)
        self.items = {
            stage: ItemHandler(
                work,
                self.records,
                tools,
                self.publish,
                self._load,
                self.withdrawing.undo,
                **({"more": lambda written: ready_commands(self.records, written)} if stage is Stage.INDEX else {}),
            )
            for stage, work in WORK.items()
        }
        self.pairing = PairHandler(self.records, self.publish)
        self.handlers: dict[type[Event], Handler] = {
            EVENT_OF_STAGE[stage][0]: each for stage, each in self.items.items()
        }
        self.handlers |= {PairingCommand: self.pairing, Withdrawn: self.withdrawing}

    async def publish(self, events: Sequence[Event]) -> None:
        """What handlers and upkeep publish with."""
        self.everything += events
        await self.published(events)

    async def _load(self, item: str, generation: int) -> bytes:
        return picture() if split_item_id(item)[0] is Kind.ARTWORK else SOUND

    def delivery(self, event: Event | bytes, topic: str = "promenade.test") -> Delivery:
        """The event as it comes from the broker."""

        async def acknowledge() -> None:
            return None

        content = event if isinstance(event, bytes) else encode(event)
        key = "" if isinstance(event, bytes) else event.key()
        return Delivery(topic, 0, next(self._offset), key, content, acknowledge)

    async def handle(self, *events: Event) -> None:
        """Hand events of one class to their handler, as one batch."""
        await self.handlers[type(events[0])].handle([self.delivery(event) for event in events])

    async def settle(self, until: type[Event] | None = None) -> None:
        """Hand on everything published, till nothing is left or (not handled) an event of class `until` is next."""
        while self.published.events:
            event = self.published.events[0]
            if until is not None and type(event) is until:
                return
            self.published.events.pop(0)
            if type(event) in self.handlers:
                await self.handle(event)

    async def announce(self, item: str, generation: int = 0, revision: int = 1) -> None:
        """As ingest does."""
        await self.publish([Arrived(trace=new_trace(), item=item, generation=generation, revision=revision)])

    async def points(self) -> set[tuple[str, int]]:
        """Everything in the vector store."""
        return {each for kind in Kind for each in await self.vectors.items(kind)}


@pytest.fixture
async def world(object_store: Reached, objects: Objects, tmp_path: Path) -> AsyncIterator[World]:
    """A world in the tests' empty bucket and an empty vector store."""
    hooked = HookedObjects(object_store.endpoint, object_store.access_key, object_store.secret_key, objects.bucket)
    vectors = Vectors(PROFILE.all_spaces(), folder=tmp_path / "qdrant")
    await vectors.prepare()
    yield World(hooked, vectors)
    await vectors.close()
    hooked.close()


def stage_events(stage: Stage | str, outcome: str) -> float:
    """The counter of a stage's finished events."""
    return float(STAGE_EVENTS.labels(str(stage), outcome)._value.get())


def plain(value: Any) -> Any:
    """A model as plain values."""
    return json.loads(value.model_dump_json())
