"""The embed stage: each part as a vector of the profile's joint space, where words find pictures and tracks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from schemas.failures import Lasting
from schemas.media import WHOLE
from schemas.records import EmbedBody, Stage
from workers.caption import cut
from workers.contract import Job, Outcome, StageWork, Tools
from workers.models import Models, capability, pack
from workers.score import captions_of


async def embed(batch: Sequence[Job], tools: Tools) -> list[Outcome]:
    """One vector for each part of each job, in the profile's caption space."""
    models = Models(tools.inference, tools.profile)
    space = tools.profile.caption_space

    async def one(job: Job) -> Outcome:
        try:
            said = captions_of(job)
            parts = await cut(job) if models.reads_media(capability("embed", job.kind)) else None
            vectors = await models.embed(job.kind, parts, said.texts)
            return EmbedBody(vectors={space: pack(vectors[WHOLE])}, parts={space: pack(vectors)})
        except Lasting as failure:
            return failure

    return list(await asyncio.gather(*map(one, batch)))


STAGE: Final = StageWork(
    stage=Stage.EMBED,
    work=embed,
    needs=(Stage.CAPTION,),
    capabilities=lambda kind: (capability("embed", kind),),
    inputs=lambda job, profile: {},
)
