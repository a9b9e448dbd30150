"""The profile: which models are served under which version, what they read, and which spaces they fill.

A profile is a TOML file beside its model repository (model_repository/edge.toml), so that workers know what to
send without asking the model server, and so that results can say who made them while the server is away.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.media import ComposerName, Kind
from schemas.spaces import EMOTION_SPACES, Space


class ModelEntry(BaseModel):
    """One served capability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    reads: tuple[Literal["media", "text", "measurements", "catalogue", "prompt"], ...] = Field(
        description="inputs that this profile's model looks at; the others are sent empty"
    )
    declares: bool = Field(
        default=False,
        description="of a composer: asked, it says its version itself, because settings and weights of the model "
        "server are part of it; `version` stands in while the server is away",
    )
    patience: float = Field(
        default=120.0,
        gt=0,
        description="seconds after which a call is given up and tried again, waiting in the queue included",
    )


class Gates(BaseModel):
    """When a caption is good enough, where the profile serves `score_caption` (ArtSound, section 3.2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(
        default=0.80, ge=0, le=1, description="score from which on a caption passes; ArtSound's, for both kinds"
    )
    regenerations: int = Field(
        default=3, ge=0, le=10, description="how often a caption that does not pass is asked for again, at most"
    )


class Profile(BaseModel):
    """A served set of models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    caption_space: str = Field(description="the joint space through text, where words find pictures and tracks")
    raw_space: str | None = Field(
        default=None,
        description="the joint space of the media themselves, filled by embed_picture and embed_sound, where "
        "captions have one of their own beside it (filled by embed_text); None: there is the caption space alone",
    )
    models: dict[str, ModelEntry]
    spaces: tuple[Space, ...]
    gates: Gates = Gates()
    composers: dict[ComposerName, str] = Field(
        default={}, description="composer -> model with compose_music's tensors; the first one where nobody chooses"
    )
    composer_space: str | None = Field(
        default=None, description="of the picture's vector that composers are handed; None: the tag model's own"
    )
    trained: dict[str, ModelEntry] = Field(
        default={},
        description="entries that join `models`, or take the place of its own, once what nobody publishes was "
        "trained and exported here",
    )

    @model_validator(mode="after")
    def _joint_spaces_are_there(self) -> Self:
        if self.raw_space is None:
            return self
        if self.raw_space == self.caption_space:
            raise ValueError(f"raw_space and caption_space are both {self.raw_space!r}: leave raw_space out")
        for name in (self.raw_space, self.caption_space):
            if all(each.name != name or set(each.kinds) != set(Kind) for each in self.spaces):
                raise ValueError(f"{name!r} is not among the spaces of both kinds")
        for model in ("embed_picture", "embed_sound"):
            if model not in self.models or not self.reads(model, "media"):
                raise ValueError(f"raw_space is set, but {model} does not read media")
        if "embed_text" not in self.models:
            raise ValueError("raw_space is set, but embed_text, which fills the caption space, is not served")
        return self

    @model_validator(mode="after")
    def _composers_are_served(self) -> Self:
        for name, model in self.composers.items():
            if model not in self.models:
                raise ValueError(f"the composer {name!r} is the model {model!r}, which is not among the models")
        if self.composer_space is not None and all(each.name != self.composer_space for each in self.spaces):
            raise ValueError(f"composer_space is {self.composer_space!r}, which is not among the spaces")
        return self

    def with_trained(self, revision: str) -> Profile:
        """The profile with what was trained here: its entries among `models`, the revision in their versions.

        Args:
            revision: of the trained weights; another one makes other answers, as another version does.
        """
        entries = {
            name: entry.model_copy(update={"version": f"{entry.version}@{revision}"})
            for name, entry in self.trained.items()
        }
        return self.model_copy(update={"models": {**self.models, **entries}, "trained": {}})

    def served_composers(self) -> dict[str, str]:
        """Composer -> its model, of those whose model is served; the first one is the default."""
        return {name: model for name, model in self.composers.items() if model in self.models}

    def listening_space(self) -> str | None:
        """The space in which a picture and a sound are compared directly (ImageBind); None: there is none."""
        both = {space.name for space in self.spaces if set(space.kinds) == set(Kind)}
        return next((name for name in (self.raw_space, self.composer_space) if name in both), None)

    def all_spaces(self) -> tuple[Space, ...]:
        """Emotion spaces first, then the profile's own."""
        return EMOTION_SPACES + self.spaces

    @property
    def gates_captions(self) -> bool:
        """True when captions are scored, and asked for again where they are not good enough."""
        return "score_caption" in self.models

    def version(self, capability: str) -> str:
        """The version of a served capability.

        Raises:
            KeyError: the profile does not serve it.
        """
        return self.models[capability].version

    def patience(self) -> dict[str, float]:
        """Model -> seconds that a call of it may take."""
        return {name: entry.patience for name, entry in self.models.items()}

    def reads(self, capability: str, what: str) -> bool:
        """True when the capability's model looks at `what`."""
        return what in self.models[capability].reads
