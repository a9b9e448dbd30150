"""Sounds: any supported file to one mono 16 kHz FLAC, or to an Ogg/Opus that people listen to. Runs inside the
decoding child.

Everything goes through in blocks, so memory does not grow with the length of the track. A track that ends too
early is kept as far as it goes, with a note: unlike a picture with a hole, a shorter track is still a track.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from schemas.failures import Lasting
from workers.media import detect, mp4
from workers.media.limits import Limits

RATE: Final = 16_000
"""Hertz of a rendition; equals schemas.media.SAMPLE_RATE, which a decoding child does not load."""

LISTENING_RATE: Final = 48_000
"""Hertz of a listening copy: the rate that Opus works at."""

_BLOCK_VALUES: Final = 1 << 19
_PIECE: Final = 4096
_FAILURES: Final = 8  # decoders of packets find their way again after damage; others never do
_SILENCE: Final = 1e-4  # -80 dBFS, under the noise of 16 bits with dither
_PACKETS: Final = 1024  # AAC packets decoded at once: 24 s at 44.1 kHz
_PREROLL: Final = 2  # packets decoded before them and thrown away, since AAC windows overlap

Floats = NDArray[np.float32]


class _Cut(Exception):
    """The rest of the track cannot be decoded."""


def prepare_sound(file: BinaryIO, form: str, limits: Limits) -> tuple[dict[str, Any], bytes]:
    """Decode, mend, mix down to mono (mean of the channels), resample to 16 kHz.

    Args:
        file: a real file (with a descriptor), at its start.
        form: the format found in its bytes, one of `detect.SOUNDS`.

    Returns: facts (seconds, sample_rate, channels, notes) and a FLAC (mono, 16 kHz, 16 bit).

    Raises:
        Lasting: outside the limits, or broken.
        MemoryError: the child's limit was met.
    """
    source = _Aac(file, limits) if form == "M4A" else _Plain(file, form, limits)
    rate, channels = source.rate, source.channels
    if not limits.minimum_rate <= rate <= limits.maximum_rate:
        raise Lasting(
            f"the track says it has a sample rate of {rate} Hz; "
            f"{limits.minimum_rate} to {limits.maximum_rate} are read.",
            "Bring the original file again.",
        )
    if channels > limits.maximum_channels:
        raise Lasting(
            f"the track says it has {channels} channels; at most {limits.maximum_channels} are read.",
            "Bring a stereo version.",
        )
    most = int(limits.maximum_seconds * rate)
    if source.expected is not None and source.expected > most and form in ("FLAC", "OGG", "M4A"):
        raise _too_long(source.expected / rate, limits)
    samples = broken = clipped = 0
    peak = 0.0
    cut = False
    target = io.BytesIO()
    resampler = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
    with soundfile.SoundFile(target, "w", samplerate=RATE, channels=1, format="FLAC", subtype="PCM_16") as sink:
        try:
            for block in source.blocks():
                samples += len(block)
                if samples > most:
                    raise _too_long(max(samples, source.expected or 0) / rate, limits)
                healthy = np.isfinite(block)
                if not healthy.all():
                    broken += int(healthy.size - healthy.sum())
                    block = np.where(healthy, block, np.float32(0))
                mono = np.clip(block, -64.0, 64.0).mean(axis=1, dtype=np.float32)
                loudest = float(np.abs(mono).max(initial=0.0))
                peak = max(peak, loudest)
                if loudest > 1:
                    clipped += int((np.abs(mono) > 1).sum())
                if resampler is not None:
                    mono = resampler.resample_chunk(mono)
                _write(sink, mono)
        except _Cut:
            cut = True
        if resampler is not None:
            _write(sink, resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    if samples == 0:
        raise _unreadable(form, "it holds no sound that can be read")
    seconds = samples / rate
    notes = list(source.notes)
    if broken:
        if broken > limits.broken_share * samples * channels:
            raise Lasting(
                f"{broken} of {samples * channels} samples are not numbers (NaN or infinite).",
                "Save the track again, as 16 or 24 bit.",
            )
        notes.append(f"{broken} broken samples set to 0")
    if seconds < limits.minimum_seconds:
        raise Lasting(
            f"the track lasts {seconds:.2f} s; too short to measure anything in its four parts.",
            f"Bring one of at least {limits.minimum_seconds} s.",
        )
    if cut or (source.expected is not None and samples < source.expected - max(4096, rate // 10)):
        known = source.expected is not None and source.expected > samples
        length = f" of {source.expected / rate:.1f}" if known and source.expected is not None else ""
        notes.append(f"damaged or cut off: {seconds:.1f}{length} s could be read")
    if clipped > 0.01 * samples:
        notes.append("clipped")
    if peak < _SILENCE:
        notes.append("silent throughout")
    return {"seconds": seconds, "sample_rate": rate, "channels": channels, "notes": notes}, target.getvalue()


def listening_copy(file: BinaryIO, form: str, limits: Limits, seconds: float) -> bytes:
    """The first `seconds` of the track as Ogg/Opus (RFC 7845): 48 kHz, one or two channels, about 100 kbit/s.

    Args:
        file, form, limits: as for `prepare_sound`, which was asked first: what it refuses is not asked here again.

    Of more than two channels the mean is heard on both sides. What is damaged is left out.

    Raises:
        Lasting: it cannot be decoded.
        MemoryError: the child's limit was met.
    """
    source = _Aac(file, limits) if form == "M4A" else _Plain(file, form, limits)
    channels = min(2, source.channels)
    left = max(1, int(seconds * source.rate))
    resampler = None
    if source.rate != LISTENING_RATE:
        resampler = soxr.ResampleStream(source.rate, LISTENING_RATE, channels, dtype="float32", quality="HQ")
    target = io.BytesIO()
    heard = False
    with soundfile.SoundFile(
        target, "w", samplerate=LISTENING_RATE, channels=channels, format="OGG", subtype="OPUS"
    ) as sink:
        with contextlib.suppress(_Cut):
            for block in source.blocks():
                healthy = np.nan_to_num(block[:left], nan=0.0, posinf=0.0, neginf=0.0)
                left -= len(healthy)
                heard = True
                if source.channels > 2:
                    healthy = np.repeat(healthy.mean(axis=1, dtype=np.float32, keepdims=True), 2, axis=1)
                if resampler is not None:
                    healthy = resampler.resample_chunk(healthy)
                sink.write(np.clip(healthy, -1.0, 1.0))
                if not left:
                    break
        if resampler is not None:
            sink.write(np.clip(resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True), -1.0, 1.0))
    if not heard:
        raise _unreadable(form, "it holds no sound that can be read")
    return target.getvalue()


def _write(sink: Any, mono: Floats) -> None:
    sink.write(np.rint(np.clip(mono, -1.0, 1.0) * 32767.0).astype(np.int16))


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file read in one go. The library seeks after each read of a seekable file, and MP3 forgets by seeking
    what earlier frames left for later ones, so that every piece would begin with a hole.
    """

    def seekable(self) -> bool:
        """Never."""
        return False


class _Plain:
    """WAV, FLAC, OGG and MP3 through libsndfile."""

    def __init__(self, file: BinaryIO, form: str, limits: Limits) -> None:
        self.notes: list[str] = []
        self.form = form
        if form == "WAV":
            self._compare_with_size(file)
        try:
            # A descriptor of its own, since libsndfile closes what it opened; both share one place in the file.
            descriptor = _from_first_frame(file) if form == "MP3" else os.dup(file.fileno())
            os.lseek(descriptor, 0, os.SEEK_SET)
            self.sound = _Forward(descriptor, closefd=True)
        except (soundfile.SoundFileError, TypeError, ValueError):
            raise _unreadable(form, "its header is damaged, or its codec is not one that is read") from None
        self.rate: int = self.sound.samplerate
        self.channels: int = self.sound.channels
        frames: int = self.sound.frames
        # Streams of unknown length say a number near 2^63.
        self.expected: int | None = frames if 0 < frames < 1 << 53 else None

    def _compare_with_size(self, file: BinaryIO) -> None:
        """libsndfile trusts the file's size more than its header; say so where they differ."""
        file.seek(0)
        head = file.read(4096)
        at = head.find(b"data")
        if head[:4] != b"RIFF" or at < 12 or at + 8 > len(head):
            return
        says = int.from_bytes(head[at + 4 : at + 8], "little")
        holds = os.fstat(file.fileno()).st_size - at - 8
        if says > holds + 1 and says < 0xFFFFFF00:
            self.notes.append(f"the header speaks of {says} bytes of sound, the file holds {max(0, holds)}")

    def blocks(self) -> Iterator[Floats]:
        """Blocks [n, channels].

        Raises:
            _Cut: damage was met; what could be read was yielded before.
        """
        most = max(_PIECE, _BLOCK_VALUES // self.channels)
        pieces: list[Floats] = []
        held = failures = skipped = 0
        with self.sound as sound:
            while failures < _FAILURES:
                try:
                    # Small pieces: of one that meets damage all is lost.
                    piece = sound.read(_PIECE, dtype="float32", always_2d=True)
                except soundfile.SoundFileError:
                    failures += 1
                    skipped += 1
                    continue
                if not len(piece):
                    break
                failures = 0
                pieces.append(piece)
                held += len(piece)
                if held >= most:
                    yield np.concatenate(pieces)
                    pieces, held = [], 0
            if pieces:
                yield np.concatenate(pieces)
        if skipped:
            raise _Cut


class _Aac:
    """AAC in MP4 through symphonia, a stretch of packets at a time."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self.file = file
        self.track = mp4.read_track(file)
        self.rate = self.track.rate
        self.channels = self.track.channels
        self.expected: int | None = max(1, len(self.track.sizes) * mp4.FRAME_SAMPLES - self.track.skip)
        self.notes = ["the pictures of the film are left out"] if self.track.film else []

    def blocks(self) -> Iterator[Floats]:
        """Blocks [n, channels].

        Raises:
            _Cut: the file ends early, or a stretch cannot be decoded.
        """
        import sphn

        skip = self.track.skip
        total = len(self.track.sizes)
        for start in range(0, total, _PACKETS):
            preroll = min(start, _PREROLL)
            stretch = mp4.adts(self.track, self.file, start - preroll, start + _PACKETS)
            if not stretch:
                raise _Cut
            descriptor = os.memfd_create("stretch")
            try:
                with os.fdopen(os.dup(descriptor), "wb") as writer:
                    writer.write(stretch)
                samples, _ = sphn.read(f"/proc/self/fd/{descriptor}")
            except MemoryError:
                raise
            except Exception:
                raise _Cut from None
            finally:
                os.close(descriptor)
            block: Floats = np.asarray(samples, np.float32).T[preroll * mp4.FRAME_SAMPLES :]
            dropped = min(skip, len(block))
            skip -= dropped
            if len(block) > dropped:
                yield block[dropped:]
            if len(block) < min(_PACKETS, total - start) * mp4.FRAME_SAMPLES:
                raise _Cut


def _from_first_frame(file: BinaryIO) -> int:
    """A descriptor of the MP3 stream without what stands before its first frame, where that is more than a tag."""
    file.seek(0)
    head = file.read(detect.HEAD_BYTES)
    at = detect.tag_bytes(head)
    start = detect.first_frame(head, at)
    if start in (None, at):
        return os.dup(file.fileno())
    descriptor = os.memfd_create("stream")
    file.seek(start)
    with os.fdopen(os.dup(descriptor), "wb") as writer:
        shutil.copyfileobj(file, writer, 1 << 20)
    return descriptor


def _too_long(seconds: float, limits: Limits) -> Lasting:
    return Lasting(
        f"the track lasts more than {limits.maximum_seconds / 3600:g} hours"
        + (f" (it says {seconds / 3600:.1f})." if seconds > limits.maximum_seconds * 1.05 else "."),
        "Cut it into its movements or pieces.",
    )


def _unreadable(form: str, why: str) -> Lasting:
    return Lasting(f"the {form} track cannot be decoded: {why}.", "Bring the original file again.")
