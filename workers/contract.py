"""The stage contract, written once.

A stage is `async (batch of jobs, tools) -> one outcome for each job`: a body to be written into the record, or a
`Lasting` failure for that job alone. It may raise `Passing` for the whole batch when a part is away; the runner
then waits, visibly, and calls it again with the same batch. It may be called twice with the same job, in another
process, at the same time: it changes nothing outside but through tools whose effects are idempotent. It never
reads settings, never speaks to the broker, never decides about retries.

Outside parts are protocols here, handed in by the composition root.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from schemas.failures import Lasting
from schemas.media import Kind
from schemas.profile import Profile
from schemas.records import Body, Result, Revision, Stage

Array = np.ndarray[Any, np.dtype[Any]]


class Inference(Protocol):
    """The model server, as `infra.inference.Inference` implements it."""

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One call; see `infra.inference`."""
        ...

    def stream(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, stall_seconds: float
    ) -> AsyncGenerator[dict[str, Array], None]:
        """One call that is answered in pieces; see `infra.inference`."""
        ...


class VectorStore(Protocol):
    """The vector store, as `infra.vectors.Vectors` implements it."""

    async def upsert(self, points: Sequence[tuple[Kind, str, int, Mapping[str, Array], Mapping[str, Any]]]) -> None:
        """Write points; repeating is harmless."""
        ...


class CaptionWatch(Protocol):
    """Is told of the gates of captions as they happen; `infra.metrics.CaptionMetrics` counts."""

    def attempted(self, kind: Kind, attempt: int, score: float, passed: bool) -> None:
        """A caption of a part was scored; attempts count from 1."""
        ...

    def kept(self, kind: Kind, outcome: Literal["passed", "below", "ungated"]) -> None:
        """A part has its caption: a good one, the best of those that were not, or one that nothing could judge."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What stages work with."""

    inference: Inference
    profile: Profile
    vectors: VectorStore | None = None
    """Only where the process holds the index stage."""
    captions: CaptionWatch | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One revision of one item, with what a stage needs of its record."""

    revision: Revision
    needs: dict[Stage, Result] = field(default_factory=dict)
    """Results of earlier stages that this stage declared it needs."""
    load_rendition: Callable[[], Awaitable[bytes]] | None = None
    """The form of the item that models see or hear; called only when the profile's models read media."""

    @property
    def item(self) -> str:
        """The item's id."""
        return self.revision.item

    @property
    def kind(self) -> Kind:
        """Picture or track."""
        return self.revision.kind


Outcome = Body | Lasting
Work = Callable[[Sequence[Job], Tools], Awaitable[list[Outcome]]]


@dataclass(frozen=True, slots=True)
class StageWork:
    """A stage as the pipeline table holds it."""

    stage: Stage
    work: Work
    needs: tuple[Stage, ...]
    """Earlier results that it reads; their digests are part of its own."""
    capabilities: Callable[[Kind], tuple[str, ...]]
    """Models whose versions are part of its digest and its provenance."""
    inputs: Callable[[Job, Profile], Any]
    """What else of the job decides the result, as plain values: catalogue, collections, a version of prompts."""
    optional: tuple[str, ...] = ()
    """Capabilities that are used as well where the profile serves them."""

    def models(self, kind: Kind, profile: Profile) -> tuple[str, ...]:
        """Capabilities that decide the result of an item of this kind in this profile."""
        return (*self.capabilities(kind), *(name for name in self.optional if name in profile.models))
