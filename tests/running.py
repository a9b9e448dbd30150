"""Whole stacks for tests: started and asked through the command line, as a person would, and compared as a whole.

`House` is an embedded stack in a folder of its own. `dump` reads everything that a run left (records, objects,
pairs, vectors) in a form that two runs over the same files can be compared in; `differences` tells what is unlike.
What is tested is left to the test modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from qdrant_client import QdrantClient

from infra.broker import Producer
from infra.objects import Objects
from infra.records import DEFAULT_EXHIBITION, Records
from infra.serving import triton
from promenade.clients import connection_of, objects_of
from promenade.settings import CLONE, Settings
from promenade.supervisor import StackState, borrowed_object_store, embedded_settings, stack_state
from promenade.supervisor.processes import free_ports, marked_processes
from schemas.records import Stage
from tests.patience import deadline, patient
from tests.stack_fixtures import need_parts
from tests.warm import run_warm
from workers.pair import read_state

SERVER: Final = CLONE / ".serving" / "lib" / "python3.11" / "site-packages" / "pytriton"
PASSED_ON: Final = ("PROMENADE_PROFILE", "PROMENADE_SERVING")
"""Settings that a test run may be given from outside; all others would point the tests at somebody's stack."""

CLOSE: Final = 2e-3
"""Numbers of two runs may differ by so much (of 1, or of their size where that is larger): a network's answer
depends in its last digits on what else was in the batch."""


def need_everything() -> None:
    """Skip where a part of the embedded stack is not there."""
    need_parts()
    if not SERVER.exists():
        pytest.skip(f"there is no model server in {CLONE / '.serving'}: make setup")
    repository = profile().with_suffix("")
    if not (repository / "minilm" / "1" / "model.onnx").exists():
        pytest.skip(f"the models in {repository} are not built: promenade models build")


def profile() -> Path:
    """The profile that these tests run with."""
    return Path(os.environ.get("PROMENADE_PROFILE", str(CLONE / "model_repository" / "edge.toml")))


def clean_environment() -> dict[str, str]:
    """The environment without anybody's settings."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("PROMENADE_") or name in PASSED_ON
    }


def started(*arguments: str) -> list[str]:
    """The command line of a `promenade` process, for tests that start one themselves."""
    return [sys.executable, "-m", "promenade.cli", *arguments]


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


def command(
    *arguments: str | Path,
    data: Path | None = None,
    environment: Mapping[str, str] | None = None,
    expect: Sequence[int] | None = (0,),
    timeout: float = patient(180),
    fresh: bool = False,
) -> Said:
    """Run `promenade ...` as a process; fails with everything it said where it ends otherwise than expected.

    fresh: start a new interpreter for it, as a person does, and not one that has read the modules already.
    """
    words = [*map(str, arguments), *(["--data", str(data)] if data else [])]
    given = dict(environment) if environment is not None else clean_environment()
    if fresh:
        done = subprocess.run(
            started(*words), env=given, capture_output=True, text=True, timeout=timeout, check=False
        )
    else:
        done = run_warm(words, given, timeout)
    said = Said(done.returncode, done.stdout, done.stderr)
    if expect is not None and said.status not in expect:
        raise AssertionError(
            f"promenade {' '.join(map(str, arguments))} ended with {said.status}\n{said.out}\n{said.err}"
        )
    return said


def until(what: str, look: Callable[[], Any], seconds: float, show: Callable[[], object] = lambda: "") -> Any:
    """Look again and again until the answer is true; fails with `show` after a generous time."""
    end = deadline(seconds)
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {patient(seconds):.0f} s; {show()}")
        time.sleep(0.1)


class House:
    """An embedded stack in a data folder, steered by the command line."""

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self.first_port = free_ports(20)
        self.begun = time.time()

    def __call__(self, *arguments: str | Path, **options: Any) -> Said:
        """A command with this folder."""
        return command(*arguments, data=self.data, **options)

    def json(self, *arguments: str | Path, **options: Any) -> Any:
        """What a command with `--json` printed."""
        return json.loads(self(*arguments, "--json", **options).out)

    def up(self) -> float:
        """Start in the background; seconds until ready as the supervisor counts."""
        try:
            self("up", "--detach", "--ports-from", str(self.first_port), fresh=True)
        except BaseException:
            print(self.logs())
            raise
        seconds = self.state.ready_seconds
        assert seconds is not None
        return seconds

    def down(self) -> float:
        """Stop; seconds it took."""
        begun = time.monotonic()
        self("down")
        return time.monotonic() - begun

    @property
    def state(self) -> StackState:
        """What the supervisor says."""
        state = stack_state(self.data)
        assert state is not None
        return state

    @property
    def settings(self) -> Settings:
        """As the running worker has them."""
        with _profile():
            return embedded_settings(self.data)

    def get(self, path: str, **query: Any) -> httpx.Response:
        """Ask the worker."""
        return httpx.get(
            f"http://127.0.0.1:{self.first_port}{path}", params=query, timeout=patient(20), trust_env=False
        )

    def settle(self) -> None:
        """Wait until no stage has work left, pairing included, as everybody does before a stack is compacted."""
        until(
            "nothing waits at any stage",
            lambda: not any(stage["waiting"] for stage in self.get("/api/status").json()["stages"]),
            60,
            self.logs,
        )

    def producer(self) -> Producer:
        """Something that can publish any bytes."""
        return Producer(connection_of(self.settings))

    @contextlib.contextmanager
    def objects(self) -> Iterator[Objects]:
        """A client of the running store."""
        objects = objects_of(self.settings)
        try:
            yield objects
        finally:
            objects.close()

    def all_keys(self, prefix: str = "") -> list[str]:
        """Every key of the running store's bucket below a prefix."""
        with self.objects() as objects:
            return [info.key for info in asyncio.run(objects.list(prefix))]

    def logs(self, lines: int = 25) -> str:
        """The last lines of every part."""
        return "\n".join(
            f"--- {path.name} ---\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in sorted((self.data / "logs").glob("*.log"))
        )

    def left_running(self) -> list[str]:
        """Processes, shared memory and sockets of this stack."""
        prefix = triton.region_prefix(self.data / "models")
        ports = {
            str(port) for first in (self.first_port, self.first_port + 10_000) for port in range(first, first + 20)
        }
        return (
            [f"{each.pid} {each.name()}" for each in marked_processes(self.data)]
            + [each.name for each in Path("/dev/shm").glob(prefix + "*")]
            + [
                each.name
                for each in Path("/tmp").glob("seaweedfs-*.sock")
                # Older ones are of a stack that was killed on the same ports, by somebody else.
                if each.stem.rsplit("-", 1)[-1] in ports and each.stat().st_mtime >= self.begun
            ]
        )

    def dump(self) -> dict[str, Any]:
        """Everything that lies in the folder, with the stack down."""
        return dump(self.data)

    def close(self) -> None:
        """Stop, whatever state it is in."""
        self("down", expect=None)


@contextlib.contextmanager
def _profile() -> Iterator[None]:
    """Settings in this process read the chosen profile and nothing else of the environment."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PROMENADE_")}
    os.environ.update({name: hidden[name] for name in PASSED_ON if name in hidden})
    try:
        yield
    finally:
        os.environ.update(hidden)


# -- comparing two runs ------------------------------------------------------------------------------------


def dump(data: Path) -> dict[str, Any]:
    """What a run left in a data folder whose stack is down, without times, durations and order of arrival."""

    async def work() -> dict[str, Any]:
        with _profile():
            async with borrowed_object_store(data) as settings:
                objects = objects_of(settings)
                try:
                    return await dump_records(objects)
                finally:
                    objects.close()

    return asyncio.run(work()) | {"vectors": dump_vectors(data / "qdrant")}


async def dump_records(objects: Objects) -> dict[str, Any]:
    """Records, objects and pairs."""
    records = Records(objects)
    listing = await objects.list("")
    items: dict[str, Any] = {}
    for state in await records.all_states():
        entry: dict[str, Any] = {"withdrawn": state.buried}
        if state.alive and state.latest is not None:
            revision = await records.revision(state.item, state.latest)
            entry["facts"] = json.loads(revision.model_dump_json(exclude={"made", "sequence"}))
            entry["memberships"] = sorted(state.memberships)
            for stage in Stage:
                result = await records.newest_result(state, stage) if stage is not Stage.PAIR else None
                if result is not None:
                    entry[stage.value] = json.loads(result.body.model_dump_json())
        items[state.item] = entry
    media = [info.key for info in listing if info.key.startswith(("media/", "renditions/"))]
    contents = {key: hashlib.sha256(content or b"").hexdigest() async for key, content in objects.get_many(media)}
    pairing = await read_state(records, DEFAULT_EXHIBITION)
    return {
        "items": items,
        "contents": contents,
        # The log of the pairing tells the order of arrival, which differs; its outcome must not.
        "keys": [info.key for info in listing if not info.key.startswith("exhibitions/")],
        "members": dict(sorted(pairing.members.items())),
        "pairs": {f"{artwork} {track}": value for (artwork, track), value in sorted(pairing.pairs.items())},
        "dead letters": [key for key, _ in await records.dead_letters()],
        "attempt marks": [info.key for info in listing if info.key.startswith("attempts/")],
    }


def dump_vectors(folder: Path) -> dict[str, Any]:
    """Every point of a local vector store that nobody holds: vectors and payload."""
    client = QdrantClient(path=str(folder))
    try:
        found: dict[str, Any] = {}
        for alias in sorted(each.alias_name for each in client.get_aliases().aliases):
            points, _ = client.scroll(alias, limit=100_000, with_vectors=True)
            for point in points:
                payload = dict(point.payload or {})
                key = f"{alias} {payload['item']}@{payload['generation']}"
                assert key not in found, f"two points of {key}"
                found[key] = {"payload": payload, "vectors": point.vector}
        return found
    finally:
        client.close()


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """What is unlike in two dumps, in words; numbers may differ by `CLOSE`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found = [f"{where}: only the first has {key}" for key in one.keys() - other.keys()]
        found += [f"{where}: only the second has {key}" for key in other.keys() - one.keys()]
        for key in sorted(one.keys() & other.keys()):
            found += differences(one[key], other[key], f"{where}/{key}")
        return found
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other) or all(isinstance(each, str) for each in one):
            missing, more = [each for each in one if each not in other], [each for each in other if each not in one]
            return (
                [f"{where}: lacks {missing}, has {more} beyond"] if missing or more or len(one) != len(other) else []
            )
        return [
            line for place in range(len(one)) for line in differences(one[place], other[place], f"{where}[{place}]")
        ]
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        return [] if abs(one - other) <= CLOSE * max(1.0, abs(one)) else [f"{where}: {one} and {other}"]
    return [] if one == other else [f"{where}: {str(one)[:200]!r} and {str(other)[:200]!r}"]
