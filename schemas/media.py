"""Media: what kinds there are, how an item is named, and the fixed order of its parts.

Identity is the SHA-256 of the original bytes together with the kind, so the same file twice is one item.
Parts follow CMEAN (section 3): a picture is cut into a 2x2 grid, a track into four equal consecutive parts;
fragments 1-4 come first and the whole last, everywhere.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SAMPLE_RATE: Final = 16_000
"""Sample rate in hertz of everything that a sound model hears."""

WINDOW_SECONDS: Final = 30.0
"""The longest window of sound, in seconds, that a model is handed at once."""


class Kind(StrEnum):
    """The two sides of every pairing."""

    ARTWORK = "artwork"
    TRACK = "track"

    @property
    def other(self) -> Kind:
        """The side that this one is paired with."""
        return Kind.TRACK if self is Kind.ARTWORK else Kind.ARTWORK


RENDITION_NAMES: Final = {Kind.ARTWORK: "picture.jpg", Kind.TRACK: "sound.flac"}
"""The form of an item that models see or hear, by name."""

PICTURE_PARTS: Final = ("top-left", "top-right", "bottom-left", "bottom-right", "whole")
SOUND_PARTS: Final = ("part-1", "part-2", "part-3", "part-4", "whole")
WHOLE: Final = 4
"""Index of the whole in every list of five."""


def parts_of(kind: Kind) -> tuple[str, ...]:
    """The five part names of a kind, fragments 1-4 first and the whole last."""
    return PICTURE_PARTS if kind is Kind.ARTWORK else SOUND_PARTS


ItemId = Annotated[str, StringConstraints(pattern=r"^(artwork|track)-[0-9a-f]{64}$")]
"""`artwork-` or `track-` followed by the SHA-256 of the original bytes in hexadecimal."""

CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Lower-case letters, digits, `-` and `_`, 1-63 characters: it becomes part of a key in the object store."""

PieceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{20}$")]
"""A piece of music: 8 hexadecimal digits that begin its picture's SHA-256, and 12 of the digest of what was asked."""

ComposerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
"""One of the composers that a profile serves: lower-case letters, digits and `-`, 1-40 characters."""

_ITEM_ID = re.compile(r"(artwork|track)-([0-9a-f]{64})\Z")


def digest_of(content: bytes) -> str:
    """SHA-256 of the bytes in hexadecimal, 64 characters."""
    return hashlib.sha256(content).hexdigest()


def item_id(kind: Kind, sha256: str) -> str:
    """The identity of an item of this kind whose original bytes have this SHA-256 (hexadecimal)."""
    return f"{kind.value}-{sha256}"


def split_item_id(identity: str) -> tuple[Kind, str]:
    """Kind and SHA-256 of an item id.

    Raises:
        ValueError: the text is not an item id.
    """
    match = _ITEM_ID.match(identity)
    if match is None:
        raise ValueError(f"not an item id: {identity[:100]!r}; it reads artwork- or track- and 64 hexadecimal digits")
    return Kind(match[1]), match[2]


class MediaFacts(BaseModel):
    """What decoding the original told about it; sizes after it was turned upright."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        description="container as found in the bytes: JPEG, PNG, WEBP, TIFF, GIF, WAV, FLAC, OGG, MP3, M4A"
    )
    byte_count: int = Field(ge=1)
    width: int | None = Field(default=None, ge=1, description="pixels, pictures only")
    height: int | None = Field(default=None, ge=1, description="pixels, pictures only")
    seconds: float | None = Field(default=None, gt=0, description="length, tracks only")
    sample_rate: int | None = Field(default=None, ge=1, description="hertz of the original, tracks only")
    channels: int | None = Field(default=None, ge=1, description="channels of the original, tracks only")
    notes: tuple[str, ...] = Field(
        default=(),
        description="what was mended on the way, e.g. 'first of 12 frames', '3 broken samples set to 0'",
    )
