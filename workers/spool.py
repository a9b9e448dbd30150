"""The sound of a piece on its way: written once as it is made, read by many at their own pace, in bounded memory.

A spool is a nameless temporary file, so nothing of it is left over however the process ends. It is a WAV from its
first byte on: while it grows, the header says that the length is unknown (which players understand), at the end the
true sizes are put in. What is played, and who listens, is left to others.
"""

from __future__ import annotations

import asyncio
import io
import os
import struct
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from schemas.failures import Lasting, Passing
from schemas.media import SAMPLE_RATE

RATE: Final = 48_000
"""Hertz of every piece."""
CHANNELS: Final = 2
FRAME_BYTES: Final = CHANNELS * 2
_UNKNOWN: Final = 0xFFFFFFFF
_BLOCK_FRAMES: Final = 1 << 16
READ_BYTES: Final = 64 * 1024
"""What a listener is given at once: a third of a second."""

Floats = NDArray[np.float32]


def wav_header(frames: int | None, tags: Mapping[str, str]) -> bytes:
    """RIFF header, format, tags and the beginning of the data chunk; of the same length for any number of frames.

    Args:
        frames: None while the length is unknown: both sizes are then 0xFFFFFFFF, as for streams.
        tags: four letters of RIFF INFO (INAM title, ICMT comment, ISFT software, IART artist) -> text.
    """
    info = b""
    for name, text in tags.items():
        value = text.encode("utf-8", "replace")[:500] + b"\0"
        info += name.encode("ascii") + struct.pack("<I", len(value)) + value + b"\0" * (len(value) % 2)
    listed = b"LIST" + struct.pack("<I", 4 + len(info)) + b"INFO" + info
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, CHANNELS, RATE, RATE * FRAME_BYTES, FRAME_BYTES, 16)
    before = 4 + len(form) + len(listed) + 8
    data = _UNKNOWN if frames is None else frames * FRAME_BYTES
    whole = _UNKNOWN if frames is None else before + data
    return b"RIFF" + struct.pack("<I", whole) + b"WAVE" + form + listed + b"data" + struct.pack("<I", data)


class Spool:
    """A growing WAV: 48 kHz, stereo, 16 bit.

    Args:
        folder: where the nameless file lies; made if it is missing.
        seconds: that were asked for; more than a second beyond is refused.
        tags: see `wav_header`.
    """

    def __init__(self, folder: Path, seconds: float, tags: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._most = int((seconds + 1) * RATE)
        self._tags = dict(tags)
        header = wav_header(None, tags)
        self.frames = 0
        self.size = len(header)
        self._head = len(header)
        self.ended = False
        """Nothing will be added any more, whether or not it is whole."""
        self.failure: Exception | None = None
        """Why it ended before its time."""
        self._grown = asyncio.Event()
        self._readers = 0
        self._closing = False
        self._put(header, 0)

    @property
    def descriptor(self) -> int:
        """Of the file; closed by `close`."""
        return self._file.fileno()

    @property
    def seconds(self) -> float:
        """Of sound so far."""
        return self.frames / RATE

    def write(self, samples: Floats) -> None:
        """Add frames [n, 2] in -1..1.

        Raises:
            Lasting: of another shape, not finite, or more than were asked for.
            Passing: the disk is full.
        """
        if samples.ndim != 2 or samples.shape[1] != CHANNELS or not np.isfinite(samples).all():
            raise Lasting(
                f"the composer answered with sound of shape {samples.shape}, or with numbers that are not finite.",
                "See the model server's log.",
            )
        if self.frames + len(samples) > self._most:
            raise Lasting("the composer does not stop at the length that was asked for.", "See its log.")
        content = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        self._put(content, self.size)
        self.frames += len(samples)
        self.size += len(content)
        self._tell()

    def _put(self, content: bytes, place: int) -> None:
        view = memoryview(content)
        try:
            while view:
                written = os.pwrite(self.descriptor, view, place)
                view, place = view[written:], place + written
        except OSError as trouble:
            raise Passing("disk", f"a piece cannot be written to the data folder ({trouble.strerror})") from None

    def finish(self) -> None:
        """The piece is whole: the header now says how long it is."""
        os.pwrite(self.descriptor, wav_header(self.frames, self._tags), 0)
        self.ended = True
        self._tell()

    def fail(self, failure: Exception) -> None:
        """The piece ends here, unfinished."""
        self.failure = failure
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def begun(self) -> None:
        """Return when there is sound to hear, or there will be none."""
        while not self.frames and not self.ended:
            await self._grown.wait()

    async def listen(self) -> AsyncIterator[bytes]:
        """The WAV from its first byte to its end as it grows. A slow reader holds nothing but its place."""
        self._readers += 1
        place = 0
        try:
            while True:
                content = b"" if self._file.closed else os.pread(self.descriptor, READ_BYTES, place)
                if content:
                    place += len(content)
                    yield content
                elif self.ended:
                    return
                else:
                    await self._grown.wait()
        finally:
            self._readers -= 1
            if self._closing and not self._readers:
                self._file.close()

    def close(self) -> None:
        """Give the disk back, as soon as the last listener is through. Closing twice is harmless."""
        if not self.ended:
            self.fail(Lasting("the piece was given up."))
        self._closing = True
        if not self._readers:
            self._file.close()

    # -- other forms ---------------------------------------------------------------------------------------

    def _blocks(self) -> Any:
        place, end = self._head, self._head + self.frames * FRAME_BYTES
        while place < end:
            content = os.pread(self.descriptor, min(_BLOCK_FRAMES * FRAME_BYTES, end - place), place)
            place += len(content)
            yield np.frombuffer(content, "<i2").reshape(-1, CHANNELS)

    def to_ogg(self, folder: Path) -> IO[bytes]:
        """The same sound as OGG/Opus with the same tags, in a nameless file. Takes seconds: run it in a thread."""
        target: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
        try:
            with soundfile.SoundFile(target, "w", RATE, CHANNELS, "OPUS", format="OGG") as sink:
                names = {"INAM": "title", "ICMT": "comment", "ISFT": "software", "IART": "artist"}
                for tag, text in self._tags.items():
                    setattr(sink, names[tag], text)
                for block in self._blocks():
                    sink.write(block)
            target.flush()
        except BaseException:
            target.close()
            raise
        return target

    def to_rendition(self) -> bytes:
        """The form in which models hear a track: mono 16 kHz FLAC. Takes a second: run it in a thread."""
        target = io.BytesIO()
        resampler = soxr.ResampleStream(RATE, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        with soundfile.SoundFile(target, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as sink:
            for block in self._blocks():
                mono = block.mean(axis=1, dtype=np.float32) / np.float32(32768)
                sink.write(np.clip(resampler.resample_chunk(mono), -1, 1))
            sink.write(np.clip(resampler.resample_chunk(np.zeros(0, np.float32), last=True), -1, 1))
        return target.getvalue()
