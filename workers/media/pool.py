"""A pool of decoding children: what people bring goes in; renditions, listening copies or plain reasons come out.

The pool starts children when they are needed, one file a child at a time, kills one that takes too long, replaces
one that died, and lets idle ones go. What decoding means is left to the child; storing is left to the callers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from schemas.failures import Lasting, Passing
from schemas.media import RENDITION_NAMES, Kind, MediaFacts, item_id
from workers.media import wire
from workers.media.limits import Limits

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 60.0
"""A child without work for so long is let go; starting one again takes a fraction of a second."""

_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Prepared:
    """An original, decoded.

    Attributes:
        kind: told from the bytes.
        sha256: of the bytes that were decoded, hexadecimal. Who stores the original separately compares it, in case
            the file changed in between.
        facts: what decoding told.
        rendition: picture.jpg (upright sRGB JPEG, quality 95, 4:4:4, at most 1024 pixels a side) or sound.flac
            (mono, 16 kHz, 16 bit).
        rendition_name: `picture.jpg` or `sound.flac`.
    """

    kind: Kind
    sha256: str
    facts: MediaFacts
    rendition: bytes
    rendition_name: str

    @property
    def item(self) -> str:
        """The item's identity."""
        return item_id(self.kind, self.sha256)


class _Died(Exception):
    """The child ended before it answered; `code` as in subprocess (negative: signal)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class DecoderPool:
    """Decodes originals in at most `workers` child processes.

    Args:
        limits: see `Limits`.
        workers: how many files are decoded at the same time; more callers wait their turn.
        idle_seconds: after how long without work a child is let go.

    Use as `async with DecoderPool() as pool`, or call `close` at the end. One event loop only.
    """

    def __init__(self, limits: Limits | None = None, workers: int = 2, idle_seconds: float = IDLE_SECONDS) -> None:
        if workers < 1:
            raise ValueError("a decoder pool has at least one worker")
        self.limits = limits or Limits()
        self._turns = asyncio.Semaphore(workers)
        self._idle_seconds = idle_seconds
        self._idle: list[tuple[asyncio.subprocess.Process, asyncio.TimerHandle]] = []
        self._closed = False
        self._ends: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def prepare(self, original: Path | str | bytes, *, name: str = "") -> Prepared:
        """Decode one original.

        Args:
            original: a path, opened by the child (links are followed, only regular files are read), or the bytes.
            name: the name by which people know bytes that are given, only for the note on a wrong extension.

        Raises:
            Lasting: it cannot be decoded, with the reason in plain words.
            Passing: no child could be started.
        """
        answer, rendition = await self._decode(original, {"name": name})
        return self._prepared(answer, rendition)

    async def listening_copy(self, original: Path | str | bytes, seconds: float) -> bytes:
        """The first `seconds` of a track as Ogg/Opus at 48 kHz, one or two channels: what a browser plays.

        Args:
            original: as for `prepare`.
            seconds: above 0; a minute of it costs about a second of processor time, which the limits bound.

        Raises:
            Lasting: it cannot be decoded, with the reason in plain words.
            Passing: no child could be started.
        """
        answer, copy = await self._decode(original, {"listening": seconds})
        self._refuse(answer)
        return copy

    async def _decode(self, original: Path | str | bytes, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Hand an original to a child: the head and body of its answer."""
        if isinstance(original, bytes):
            if not original:
                raise Lasting("the file is empty.", "Bring the original file again.")
            if len(original) > self.limits.maximum_bytes:
                raise Lasting(
                    f"the file has {len(original) / 2**20:.0f} MiB, "
                    f"more than {self.limits.maximum_bytes / 2**20:.0f}.",
                    "Bring a smaller version.",
                )
            head, body = {"bytes": True, **asked}, original
        else:
            text = os.path.abspath(original)  # noqa: PTH100 - resolves nothing, so links keep their names
            head, body = {"path": text, **asked, "name": asked.get("name") or os.path.basename(text)}, b""  # noqa: PTH119
        async with self._turns:
            for attempt in (1, 2):
                child = await self._take()
                try:
                    answer, rendition = await asyncio.wait_for(self._ask(child, head, body), self.limits.wall_seconds)
                except TimeoutError:
                    await self._end(child)
                    raise Lasting(
                        f"decoding took more than {self.limits.wall_seconds:.0f} s and was stopped.",
                        "Bring a smaller or plainer version, or check the disk that it lies on.",
                    ) from None
                except _Died as death:
                    await self._end(child)
                    if death.code == -signal.SIGXCPU:
                        raise Lasting(
                            f"the file needs more than {self.limits.processor_seconds} s of processor time.",
                            "Bring a smaller or plainer version.",
                        ) from None
                    # Once may be bad luck (the machine was short of memory); twice is the file.
                    log.warning("a decoding child died (%d), attempt %d", death.code, attempt)
                    continue
                except BaseException:
                    await self._end(child)
                    raise
                if answer.pop("last", False):
                    await self._end(child)
                else:
                    self._give_back(child)
                return answer, rendition
            raise Lasting(
                "decoding this file ended its process twice: the file is broken in a way that no decoder survives, "
                f"or needs more than {self._memory()} of memory.",
                "Bring the file in another format.",
            )

    async def close(self) -> None:
        """End all idle children; call it after the last `prepare` has returned."""
        self._closed = True
        while self._idle:
            child, timer = self._idle.pop()
            timer.cancel()
            await self._end(child)
        if self._ends:
            await asyncio.gather(*self._ends)

    def processes(self) -> list[int]:
        """Process ids of the idle children."""
        return [child.pid for child, _ in self._idle]

    def _memory(self) -> str:
        return f"{self.limits.memory_bytes / 2**20:.0f} MiB"

    def _prepared(self, answer: dict[str, Any], rendition: bytes) -> Prepared:
        self._refuse(answer)
        kind = Kind(answer["kind"])
        facts = MediaFacts.model_validate(answer["facts"])
        return Prepared(kind, answer["sha256"], facts, rendition, RENDITION_NAMES[kind])

    def _refuse(self, answer: dict[str, Any]) -> None:
        """Raise what an answer without a body says."""
        if "reason" in answer:
            raise Lasting(answer["reason"], answer["advice"])
        if answer.get("memory"):
            raise Lasting(
                f"the file needs more than {self._memory()} of memory to decode.", "Bring a smaller version."
            )
        if "defect" in answer:
            log.error("a decoder met something unforeseen: %s", answer["defect"])
            raise Lasting("the file is damaged in a way that the decoder does not know.", "Bring the original again.")

    async def _take(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise RuntimeError("the decoder pool is closed")
        while self._idle:
            child, timer = self._idle.pop()
            timer.cancel()
            if child.returncode is None:
                return child
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment["PYTHONPATH"] = str(_ROOT)
        # One thread: parallelism comes from several children, and each thread would take addresses.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a file of the user's folder must not stand in for a library
                "-m",
                "workers.media.child",
                json.dumps(asdict(self.limits)),
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                cwd=_ROOT,
                limit=1 << 20,
            )
        except OSError as trouble:
            raise Passing("decoder", f"no process could be started: {os.strerror(trouble.errno or 0)}") from trouble

    async def _ask(
        self, child: asyncio.subprocess.Process, head: dict[str, Any], body: bytes
    ) -> tuple[dict[str, Any], bytes]:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(wire.pack(head, len(body)))
            if body:
                child.stdin.write(body)
            await child.stdin.drain()
            head_length, body_length = wire.PREFIX.unpack(await child.stdout.readexactly(wire.PREFIX.size))
            if head_length > wire.MAXIMUM_HEAD or body_length > self.limits.rendition_bytes:
                raise ConnectionError("not an answer")
            answer = wire.unpack_head(await child.stdout.readexactly(head_length))
            return answer, await child.stdout.readexactly(body_length)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            if child.returncode is None:
                try:
                    await asyncio.wait_for(child.wait(), 2)
                except TimeoutError:
                    child.kill()
                    await child.wait()
            assert child.returncode is not None
            raise _Died(child.returncode) from None

    def _give_back(self, child: asyncio.subprocess.Process) -> None:
        timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._let_go, child)
        self._idle.append((child, timer))

    def _let_go(self, child: asyncio.subprocess.Process) -> None:
        self._idle = [entry for entry in self._idle if entry[0] is not child]
        task = asyncio.get_running_loop().create_task(self._end(child))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await child.wait()
