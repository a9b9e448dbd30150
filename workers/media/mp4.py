"""The AAC track of an MP4 file (M4A), rewritten as ADTS frames. Runs inside the decoding child.

The decoder at hand (symphonia, through sphn) decodes AAC but refuses MP4 containers that leave the number of
channels to the codec's own header, as all common ones do. So the sample tables are read here (ISO 14496-12,
8.5-8.7; AudioSpecificConfig: ISO 14496-3, 1.6.2.1; ADTS: 1.A.2.2) and each packet gets an ADTS header. Decoding
is left to `sounds`. Of HE-AAC the plain core is heard (up to half the sample rate, above what the models hear).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from schemas.failures import Lasting

FRAME_SAMPLES: Final = 1024
"""Samples for each channel in one AAC packet."""

_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
_MAXIMUM_TABLE: Final = 64 * 1024 * 1024
_MAXIMUM_PACKETS: Final = 2_000_000


@dataclass(frozen=True)
class AacTrack:
    """Where the packets of an AAC track lie.

    Attributes:
        rate: hertz of the AAC core.
        channels: 1 or 2.
        sizes, offsets: bytes of each packet and its place in the file.
        skip: samples of encoder delay at the start, from the edit list.
        film: True when pictures run beside the sound.
    """

    rate: int
    channels: int
    sizes: list[int]
    offsets: list[int]
    skip: int
    film: bool


def read_track(file: BinaryIO) -> AacTrack:
    """The first AAC track.

    Raises:
        Lasting: no sound in it, another codec than AAC, more than two channels, or broken tables.
    """
    try:
        return _read(file)
    except (struct.error, IndexError, OverflowError, ValueError):
        raise _broken("its tables are damaged") from None


def adts(track: AacTrack, file: BinaryIO, start: int, stop: int) -> bytes:
    """Packets start..stop (exclusive) with ADTS headers; ends early where the file does."""
    out = bytearray()
    index = _RATES.index(track.rate)
    for number in range(start, min(stop, len(track.sizes))):
        size = track.sizes[number]
        file.seek(track.offsets[number])
        packet = file.read(size)
        if len(packet) < size:
            break
        length = size + 7
        if length > 8191:
            continue
        out += bytes(
            (
                0xFF,
                0xF1,
                1 << 6 | index << 2 | track.channels >> 2,
                (track.channels & 3) << 6 | length >> 11,
                length >> 3 & 0xFF,
                (length & 7) << 5 | 0x1F,
                0xFC,
            )
        )
        out += packet
    return bytes(out)


def _read(file: BinaryIO) -> AacTrack:
    end = file.seek(0, 2)
    tracks: list[dict[bytes, bytes]] = []
    moov = next(((start, stop) for name, start, stop in _boxes(file, 0, end) if name == b"moov"), None)
    if moov is None:
        raise _broken("the table of contents is missing, as when a file is cut off")
    for name, start, stop in _boxes(file, *moov):
        if name == b"trak":
            leaves: dict[bytes, bytes] = {}
            _collect(file, start, stop, leaves, 0)
            tracks.append(leaves)
    sounds = [each for each in tracks if each.get(b"hdlr", b"")[8:12] == b"soun"]
    film = any(each.get(b"hdlr", b"")[8:12] == b"vide" for each in tracks)
    if not sounds:
        raise Lasting(
            "this MP4 file holds no sound" + (", only a film." if film else "."), "Bring the track as a sound file."
        )
    leaves = sounds[0]
    rate, channels = _codec(leaves.get(b"stsd", b""))
    sizes = _sizes(leaves.get(b"stsz", b""))
    offsets = _offsets(leaves, sizes)
    skip = 0
    if len(leaves.get(b"elst", b"")) >= 20:
        edit = leaves[b"elst"]
        media_time = struct.unpack(">q", edit[16:24])[0] if edit[0] == 1 else struct.unpack(">i", edit[12:16])[0]
        # Counted in the track's time scale, which HE-AAC doubles; beyond 8 packets it is an edit, not delay.
        scale = _time_scale(leaves.get(b"mdhd", b"")) or rate
        skip = media_time * rate // scale if 0 < media_time * rate // scale <= 8 * FRAME_SAMPLES else 0
    return AacTrack(rate, channels, sizes, offsets, skip, film)


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each box's content between two places; a box that overruns ends the walk."""
    at = start
    for _ in range(100_000):
        if at + 8 > stop:
            return
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, name = struct.unpack(">I4s", head[:8])
        content = at + 8
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
            content += 8
        elif size == 0:
            size = stop - at
        if size < content - at or at + size > stop:
            return
        yield name, content, at + size
        at += size


def _collect(file: BinaryIO, start: int, stop: int, leaves: dict[bytes, bytes], depth: int) -> None:
    for name, content, end in _boxes(file, start, stop):
        if name in _CONTAINERS and depth < 6:
            _collect(file, content, end, leaves, depth + 1)
        elif name in (b"hdlr", b"stsd", b"stsz", b"stsc", b"stco", b"co64", b"elst", b"mdhd") and name not in leaves:
            if end - content > _MAXIMUM_TABLE:
                raise _broken("its tables are damaged")
            file.seek(content)
            leaves[name] = file.read(end - content)


def _codec(stsd: bytes) -> tuple[int, int]:
    """Core sample rate and channels from the sample description."""
    form = stsd[12:16]
    if form != b"mp4a":
        name = {b"alac": "Apple Lossless", b"ac-3": "AC-3", b"ec-3": "E-AC-3", b"Opus": "Opus", b"fLaC": "FLAC"}.get(
            form
        )
        raise Lasting(
            f"the sound in this MP4 file is {name or 'of an unknown kind'}, not AAC.",
            "Save it as FLAC or WAV instead.",
        )
    at = stsd.find(b"esds")
    if at < 0:
        raise _broken("the description of its sound is missing")
    at += 8
    config = b""
    object_type = 0x40
    while at + 2 <= len(stsd):
        tag = stsd[at]
        at += 1
        size = 0
        for _ in range(4):
            byte = stsd[at]
            at += 1
            size = size << 7 | byte & 127
            if not byte & 128:
                break
        if tag == 3:  # ES_Descriptor: id, flags and what they announce
            flags = stsd[at + 2]
            at += (
                3
                + (2 if flags & 0x80 else 0)
                + (1 + stsd[at + 3] if flags & 0x40 else 0)
                + (2 if flags & 0x20 else 0)
            )
        elif tag == 4:  # DecoderConfigDescriptor
            object_type = stsd[at]
            at += 13
        elif tag == 5:  # DecoderSpecificInfo = AudioSpecificConfig
            config = stsd[at : at + size]
            break
        else:
            at += size
    if object_type not in (0x40, 0x67):
        raise Lasting("the sound in this MP4 file is not AAC.", "Save it as FLAC or WAV instead.")
    if len(config) < 2:
        raise _broken("the description of its sound is missing")
    bits = int.from_bytes(config[:8].ljust(8, b"\0"), "big")
    kind, index, channels = bits >> 59, bits >> 55 & 15, bits >> 51 & 15
    if index >= len(_RATES):
        raise _broken("its sample rate is not a common one")
    if kind not in (2, 5, 29):
        raise Lasting("the sound in this MP4 file is a rare kind of AAC.", "Save it as FLAC or WAV instead.")
    if channels not in (1, 2):
        raise Lasting(
            f"this M4A file has {'more than two' if channels > 2 else 'an unstated number of'} channels; "
            "AAC is read in mono and stereo only.",
            "Save it as stereo, or as FLAC or WAV.",
        )
    return _RATES[index], channels


def _sizes(stsz: bytes) -> list[int]:
    fixed, count = struct.unpack(">II", stsz[4:12])
    if count > _MAXIMUM_PACKETS:
        raise _broken("its tables are damaged")
    return [fixed] * count if fixed else list(struct.unpack(f">{count}I", stsz[12 : 12 + 4 * count]))


def _offsets(leaves: dict[bytes, bytes], sizes: list[int]) -> list[int]:
    wide = b"co64" in leaves
    table = leaves.get(b"co64" if wide else b"stco", b"")
    count = struct.unpack(">I", table[4:8])[0]
    chunks = struct.unpack(f">{count}{'Q' if wide else 'I'}", table[8 : 8 + count * (8 if wide else 4)])
    stsc = leaves.get(b"stsc", b"")
    runs = struct.unpack(">I", stsc[4:8])[0]
    entries = [struct.unpack(">III", stsc[8 + 12 * each : 20 + 12 * each]) for each in range(runs)]
    offsets: list[int] = []
    run = 0
    for chunk, place in enumerate(chunks, start=1):
        while run + 1 < len(entries) and entries[run + 1][0] <= chunk:
            run += 1
        for _ in range(entries[run][1]):
            if len(offsets) == len(sizes):
                return offsets
            offsets.append(place)
            place += sizes[len(offsets) - 1]
    if len(offsets) < len(sizes):
        raise _broken("its tables are damaged")
    return offsets


def _time_scale(mdhd: bytes) -> int:
    at = 20 if mdhd[:1] == b"\x01" else 12
    return int(struct.unpack(">I", mdhd[at : at + 4])[0]) if len(mdhd) >= at + 4 else 0


def _broken(why: str) -> Lasting:
    return Lasting(f"the M4A track cannot be decoded: {why}.", "Bring the original file again.")
