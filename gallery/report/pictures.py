"""Pictures for the page: scaled down, as WebP in data URIs.

They are made from renditions, which our own decoder wrote, so nothing that people brought is decoded here.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

THUMBNAIL_SIDE: Final = 160
"""Pixels of the longer side of a small picture: sharp at 80 CSS pixels on a fine screen."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as the page shows it."""

    uri: str
    width: int
    height: int


def uri_of(content: bytes, media_type: str) -> str:
    """The bytes as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def scaled(rendition: bytes, side: int, quality: int) -> Shown:
    """A rendition with its longer side at most `side` pixels.

    Args:
        rendition: the JPEG that ingest made.
        side: pixels.
        quality: of WebP, 1-100.

    Raises:
        OSError: the rendition cannot be decoded.
    """
    with Image.open(io.BytesIO(rendition)) as picture:
        if max(picture.size) > 2 * side:
            # Decoding at a half, a quarter or an eighth is enough, and much faster.
            picture.draft("RGB", (2 * side, 2 * side))
        small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=quality, method=4)
    return Shown(uri_of(content.getvalue(), "image/webp"), small.width, small.height)


def size_for(pairs: int) -> tuple[int, int]:
    """Side in pixels and quality of the large pictures, so that a page of many stays small enough to open."""
    if pairs <= 60:
        return 1024, 82
    return (720, 76) if pairs <= 250 else (480, 70)
