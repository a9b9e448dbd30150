"""From a rendition to what the models are handed: five parts, fragments 1-4 first and the whole last.

Renditions are our own, but they come back from a store: one that is broken is refused like any bad input. These
functions take milliseconds (pictures) to a second (long tracks); callers run them in a thread.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from schemas.failures import Lasting
from schemas.media import SAMPLE_RATE, WINDOW_SECONDS
from workers.media.limits import Limits

WINDOW_SAMPLES: Final = int(SAMPLE_RATE * WINDOW_SECONDS)
WHOLE_WINDOWS: Final = 4
"""The most windows that the whole of a track is heard in."""

_LIMITS: Final = Limits()


@dataclass(frozen=True)
class SoundPart:
    """What a model hears of one part of a track.

    Attributes:
        windows: float32 [W, N] in [-1, 1], mono 16 kHz, N the longest window's samples (at most 30 s), zero-padded.
        lengths: int32 [W], valid samples of each window.
    """

    windows: NDArray[np.float32]
    lengths: NDArray[np.int32]


def picture_parts(rendition: bytes) -> list[bytes]:
    """Five JPEGs in the order of `PICTURE_PARTS`.

    The grid of CMEAN (section 3): with w x h pixels, columns split at w // 2 and rows at h // 2; fragments keep
    their pixels (no scaling), the whole is the rendition itself.

    Raises:
        Lasting: the rendition is not a JPEG within the limits.
    """
    try:
        opened = Image.open(io.BytesIO(rendition), formats=["JPEG"])
        width, height = opened.size
        if max(width, height) > _LIMITS.picture_side or min(width, height) < 2:
            raise _broken("picture")
        image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise _broken("picture") from None
    middle, centre = width // 2, height // 2
    boxes = (
        (0, 0, middle, centre),
        (middle, 0, width, centre),
        (0, centre, middle, height),
        (middle, centre, width, height),
    )
    parts: list[bytes] = []
    for box in boxes:
        target = io.BytesIO()
        image.crop(box).save(target, "JPEG", quality=95, subsampling=0)
        parts.append(target.getvalue())
    return [*parts, rendition]


def sound_spans(samples: int) -> list[list[tuple[int, int]]]:
    """For each of the five parts the windows (start, stop) that are heard of a track of so many samples.

    With n samples and L = 30 s of them: fragment i (0-3) spans i n // 4 to (i + 1) n // 4 and is heard in one
    window, its middle L samples where it is longer: start = begin + (length - L) // 2. The whole is heard entirely
    where n <= 4 L, in k = ceil(n / L) equal consecutive windows from j n // k to (j + 1) n // k; otherwise in 4
    windows of L samples at j (n - L) // 3, j = 0..3, so the first and the last sample are heard.
    """
    spans: list[list[tuple[int, int]]] = []
    for fragment in range(4):
        begin, end = fragment * samples // 4, (fragment + 1) * samples // 4
        if end - begin > WINDOW_SAMPLES:
            begin += (end - begin - WINDOW_SAMPLES) // 2
            end = begin + WINDOW_SAMPLES
        spans.append([(begin, end)])
    if samples <= WHOLE_WINDOWS * WINDOW_SAMPLES:
        count = max(1, math.ceil(samples / WINDOW_SAMPLES))
        spans.append([(each * samples // count, (each + 1) * samples // count) for each in range(count)])
    else:
        starts = [each * (samples - WINDOW_SAMPLES) // (WHOLE_WINDOWS - 1) for each in range(WHOLE_WINDOWS)]
        spans.append([(start, start + WINDOW_SAMPLES) for start in starts])
    return spans


def sound_parts(rendition: bytes) -> list[SoundPart]:
    """Five parts in the order of `SOUND_PARTS`, windows as in `sound_spans`; only what is heard is decoded.

    Raises:
        Lasting: the rendition is not a mono 16 kHz FLAC within the limits.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(rendition)) as sound:
            samples = sound.frames
            longest = _LIMITS.maximum_seconds * SAMPLE_RATE + SAMPLE_RATE
            if sound.format != "FLAC" or sound.samplerate != SAMPLE_RATE or sound.channels != 1:
                raise _broken("track")
            if not 4 <= samples <= longest:
                raise _broken("track")
            whole = sound.read(dtype="float32") if samples <= WHOLE_WINDOWS * WINDOW_SAMPLES else None
            if whole is not None and len(whole) != samples:
                raise _broken("track")
            parts: list[SoundPart] = []
            for spans in sound_spans(samples):
                lengths = np.array([stop - start for start, stop in spans], np.int32)
                windows = np.zeros((len(spans), int(lengths.max())), np.float32)
                for row, (start, stop) in enumerate(spans):
                    if whole is not None:
                        windows[row, : stop - start] = whole[start:stop]
                        continue
                    sound.seek(start)
                    if (
                        len(sound.read(stop - start, dtype="float32", out=windows[row, : stop - start]))
                        < stop - start
                    ):
                        raise _broken("track")
                parts.append(SoundPart(windows, lengths))
            return parts
    except (soundfile.SoundFileError, ValueError, TypeError, RuntimeError):
        raise _broken("track") from None


def _broken(what: str) -> Lasting:
    return Lasting(f"the {what}'s rendition is broken.", "Ingest the original again; the rendition is made anew.")
