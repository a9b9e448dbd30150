"""The index stage: the item's vectors into the vector store, with what a person wants to see beside a hit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from schemas.failures import Lasting
from schemas.media import WHOLE, Kind
from schemas.profile import Profile
from schemas.records import CaptionBody, EmbedBody, IndexBody, Result, ScoreBody, Stage
from schemas.spaces import RGB, RGB15, VA, Space
from workers.contract import Array, Job, Outcome, StageWork, Tools
from workers.models import unpack
from workers.score import captions_of

TAG_SPACE_MAKER: Final = {Kind.ARTWORK: "measure_picture", Kind.TRACK: "measure_sound"}


def emotion_vectors(score: Result) -> dict[str, Array]:
    """The emotion spaces' vectors of a scored item: `rgb` [3] and `rgb15` [15] in 0-255, `va` [2] in [0,1].

    `rgb15` holds the five triples one after another, fragments 1-4 then the whole (CMEAN's code).
    """
    body = score.body
    if not isinstance(body, ScoreBody):
        raise Lasting("the record's score is not a score.", "Withdraw the item and ingest it again.")
    rgb = np.asarray(body.rgb, np.float32)
    return {RGB.name: rgb[WHOLE], RGB15.name: rgb.reshape(-1), VA.name: np.asarray(body.va[WHOLE], np.float32)}


def vectors_of(kind: Kind, needs: dict[Stage, Result], profile: Profile) -> dict[str, Array]:
    """Every space's vector of an item: emotion spaces, the profile's joint spaces, the tag model's own space."""
    vectors = emotion_vectors(needs[Stage.SCORE])
    embedded, said = needs[Stage.EMBED].body, needs[Stage.CAPTION].body
    if not isinstance(embedded, EmbedBody) or not isinstance(said, CaptionBody):
        raise Lasting("the record's results are mixed up.", "Withdraw the item and ingest it again.")
    vectors |= {name: unpack(text) for name, text in embedded.vectors.items()}
    own = tag_space(profile, kind)
    if own is not None:
        vectors[own.name] = unpack(said.tag_vector)
    return vectors


def tag_space(profile: Profile, kind: Kind) -> Space | None:
    """The space of the tag model's own vectors, for likeness within a kind; None where the profile has none."""
    for space in profile.spaces:
        if space.maker.split(":")[0] == TAG_SPACE_MAKER[kind] and kind in space.kinds:
            return space
    return None


async def index(batch: Sequence[Job], tools: Tools) -> list[Outcome]:
    """Write one point for each job; a repeated write replaces the same point by itself."""
    if tools.vectors is None:
        raise RuntimeError("the index stage was given no vector store")
    outcomes: list[Outcome] = []
    points: list[tuple[Kind, str, int, dict[str, Array], dict[str, Any]]] = []
    for job in batch:
        try:
            vectors = vectors_of(job.kind, job.needs, tools.profile)
            said, revision = captions_of(job), job.revision
            payload = {
                "revision": revision.revision,
                "collections": list(revision.collections),
                "caption": said.texts[WHOLE],
                **revision.catalogue.model_dump(exclude_none=True),
            }
            points.append((job.kind, job.item, revision.generation, vectors, payload))
            outcomes.append(IndexBody(spaces=tuple(sorted(vectors))))
        except Lasting as failure:
            outcomes.append(failure)
    try:
        await tools.vectors.upsert(points)
    except Lasting:
        # One bad vector spoils a batch's write: find it by writing one by one.
        good = iter(points)
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Lasting):
                continue
            try:
                await tools.vectors.upsert([next(good)])
            except Lasting as failure:
                outcomes[place] = failure
    return outcomes


STAGE: Final = StageWork(
    stage=Stage.INDEX,
    work=index,
    needs=(Stage.CAPTION, Stage.SCORE, Stage.EMBED),
    capabilities=lambda kind: (),
    inputs=lambda job, profile: {
        "collections": job.revision.collections,
        "spaces": [space.name for space in profile.all_spaces() if job.kind in space.kinds],
        "catalogue": job.revision.catalogue.model_dump(exclude_none=True),
    },
)
