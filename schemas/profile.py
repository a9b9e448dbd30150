"""The profile: which models are served under which version, what they read, and which spaces they fill.

A profile is a TOML file beside its model repository (model_repository/edge.toml), so that workers know what to
send without asking the model server, and so that results can say who made them while the server is away.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.spaces import EMOTION_SPACES, Space


class ModelEntry(BaseModel):
    """One served capability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    reads: tuple[Literal["media", "text", "measurements", "catalogue", "prompt"], ...] = Field(
        description="inputs that this profile's model looks at; the others are sent empty"
    )


class Profile(BaseModel):
    """A served set of models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    caption_space: str = Field(description="the joint space through text, where words find pictures and tracks")
    models: dict[str, ModelEntry]
    spaces: tuple[Space, ...]

    def all_spaces(self) -> tuple[Space, ...]:
        """Emotion spaces first, then the profile's own."""
        return EMOTION_SPACES + self.spaces

    def version(self, capability: str) -> str:
        """The version of a served capability.

        Raises:
            KeyError: the profile does not serve it.
        """
        return self.models[capability].version

    def reads(self, capability: str, what: str) -> bool:
        """True when the capability's model looks at `what`."""
        return what in self.models[capability].reads
