"""Limits of what is decoded, each with its reason. Checked here and in the decoding child, nowhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What an original may be and what its decoding may cost.

    Attributes:
        maximum_bytes: size of a file. 200 MiB hold half an hour of CD sound as FLAC and any scan of 80 megapixels.
        maximum_pixels: width times height of the header, checked before a pixel is decoded. 80 megapixels cover
            the largest museum downloads; decoded they take 320 MB, well inside `memory_bytes`.
        minimum_side: pixels of the shorter side. Below 16 a fragment has fewer than 8 and no texture to measure.
        maximum_aspect: longer side divided by the shorter. The longest painted handscrolls are about 24 : 1; at
            40 : 1 a picture of 1024 pixels still has 25 on its short side.
        picture_side: pixels of the longer side of a rendition; no model looks closer.
        minimum_seconds: length of a track. At 0.4 s each of the four parts holds 0.1 s, several analysis frames.
        maximum_seconds: length of a track. Two hours hold any symphony or concert recording; 16 kHz 16 bit of it
            is 230 MB before packing.
        minimum_rate, maximum_rate: hertz. Below 4 kHz there is no music left, and a header that lies low would
            blow up a small file by resampling; above 768 kHz no recorder exists.
        maximum_channels: 64 is the largest layout in use; all are mixed down to one.
        broken_share: share of samples that may be NaN or infinite. Less is a glitch, more is not sound.
        processor_seconds: processor time for one file, so that a busy machine does not refuse good files. Two hours
            of stereo in OGG took 17 s of one core where this was written.
        wall_seconds: wall time for one file, for a disk or a library that hangs.
        memory_bytes: address space of a decoding child: interpreter and libraries and an
            80 megapixel picture of four channels more than twice over.
        rendition_bytes: size of a rendition when it is read back; two hours of noise stay below it.
    """

    maximum_bytes: int = 200 * 1024 * 1024
    maximum_pixels: int = 80_000_000
    minimum_side: int = 16
    maximum_aspect: float = 40.0
    picture_side: int = 1024
    minimum_seconds: float = 0.4
    maximum_seconds: float = 7200.0
    minimum_rate: int = 4_000
    maximum_rate: int = 768_000
    maximum_channels: int = 64
    broken_share: float = 0.01
    processor_seconds: int = 60
    wall_seconds: float = 180.0
    memory_bytes: int = 1536 * 1024 * 1024
    rendition_bytes: int = 256 * 1024 * 1024
