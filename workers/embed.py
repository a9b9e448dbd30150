"""The embed stage: each part as a vector of the profile's joint spaces, where words find pictures and tracks.

One space, where it goes through captions (the edge profile). Two, where a model looks at pictures and hears sounds
in the same space as words: the media themselves in `raw_space`, their captions in `caption_space`, so that ArtSound's
four strategies (artwork raw or caption by track raw or caption; section 3.4) can pair any of the one with any of the
other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from schemas.failures import Lasting
from schemas.media import WHOLE, Kind
from schemas.profile import Profile
from schemas.records import EmbedBody, Stage
from workers.caption import cut
from workers.contract import Array, Job, Outcome, StageWork, Tools
from workers.models import Models, capability, pack
from workers.score import captions_of


async def embed(batch: Sequence[Job], tools: Tools) -> list[Outcome]:
    """One vector for each part of each job, in each joint space of the profile."""
    models = Models(tools.inference, tools.profile)
    raw_space, caption_space = tools.profile.raw_space, tools.profile.caption_space

    async def one(job: Job) -> Outcome:
        try:
            said = captions_of(job)
            parts = await cut(job) if models.reads_media(capability("embed", job.kind)) else None
            spaces: dict[str, Array]
            if raw_space is None:
                spaces = {caption_space: await models.embed(job.kind, parts, said.texts)}
            else:
                raw, words = await asyncio.gather(
                    models.embed(job.kind, parts, [""] * len(said.texts)), models.embed_text(said.texts)
                )
                spaces = {raw_space: raw, caption_space: words}
            return EmbedBody(
                vectors={space: pack(vectors[WHOLE]) for space, vectors in spaces.items()},
                parts={space: pack(vectors) for space, vectors in spaces.items()},
            )
        except Lasting as failure:
            return failure

    return list(await asyncio.gather(*map(one, batch)))


def capabilities(kind: Kind) -> tuple[str, ...]:
    """The model that embeds an item of this kind."""
    return (capability("embed", kind),)


def inputs(job: Job, profile: Profile) -> dict[str, Any]:
    """What decides the result beside the caption and the model: with two spaces, both and who fills the other one."""
    if profile.raw_space is None:
        return {}
    return {"spaces": [profile.raw_space, profile.caption_space], "embed_text": profile.version("embed_text")}


STAGE: Final = StageWork(
    stage=Stage.EMBED,
    work=embed,
    needs=(Stage.CAPTION,),
    capabilities=capabilities,
    inputs=inputs,
)
