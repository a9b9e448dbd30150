"""Spaces: named places that vectors live in, each with a dimension, a distance and a maker.

Emotion spaces come from the score stage; others from the profile that is served (see the profile file beside
the model repository). A new version of a space is filled beside the old one and switched in one step.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.media import Kind


class Space(BaseModel):
    """One space. `name` carries the version where it can change (caption-minilm-1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    dimension: int = Field(ge=1, le=65536)
    distance: Literal["cosine", "euclidean"]
    kinds: tuple[Kind, ...] = (Kind.ARTWORK, Kind.TRACK)
    maker: str = Field(description="stage or capability that fills it")


RGB = Space(name="rgb", dimension=3, distance="cosine", maker="score: the whole's RGB (CMEAN)")
RGB15 = Space(name="rgb15", dimension=15, distance="cosine", maker="score: five RGB triples flattened (CMEAN's code)")
VA = Space(name="va", dimension=2, distance="euclidean", maker="score: the whole's valence and arousal (MMVA)")

EMOTION_SPACES = (RGB, RGB15, VA)
