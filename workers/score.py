"""The score stage: what each part makes people feel, as CMEAN's RGB and as valence and arousal.

R is movement and excitement, G calm and stillness, B sadness and nostalgia, 0-255 each (CMEAN, section 3).
Valence and arousal are read twice, by the model that scores the texts and by the model that looks at the medium, and
fused; both readings are kept. On the edge profile the first leans on the measurements too, so that the measured side
counts more than the words there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.failures import Lasting
from schemas.records import CaptionBody, ScoreBody, Stage
from workers.caption import cut
from workers.contract import Array, Job, Outcome, StageWork, Tools
from workers.models import Models, capability

SCORED_WEIGHT: Final = 0.5
"""Share of the scored reading in the fused valence and arousal: neither reading has been shown to be the better
one, so both count alike; MMVA too trains all modalities with equal weights (section 3.3)."""


def fuse(scored: Array, medium: Array) -> Array:
    """Fused valence and arousal, part by part: the weighted mean of the two readings, [n,2] in [0,1]."""
    return np.clip(SCORED_WEIGHT * scored + (1 - SCORED_WEIGHT) * medium, 0, 1)


def captions_of(job: Job) -> CaptionBody:
    """The job's captions.

    Raises:
        Lasting: the record holds something else under that name.
    """
    body = job.needs[Stage.CAPTION].body
    if not isinstance(body, CaptionBody):
        raise Lasting("the record's caption is not a caption.", "Withdraw the item and ingest it again.")
    return body


def _rounded(array: Array, digits: int) -> list[list[float]]:
    return [[round(float(value), digits) for value in row] for row in array]


async def score(batch: Sequence[Job], tools: Tools) -> list[Outcome]:
    """Five RGB and five valence-arousal points with evidence for each job, side by side."""
    models = Models(tools.inference, tools.profile)

    async def one(job: Job) -> Outcome:
        try:
            said = captions_of(job)
            parts = await cut(job) if models.reads_media(capability("va", job.kind)) else None
            (rgb, va_scored, evidence), va_medium = await asyncio.gather(
                models.score_emotion(job.kind, said.texts, said.phrases, said.measurements),
                models.va_medium(job.kind, parts, said.measurements),
            )
            return ScoreBody.model_validate(
                {
                    "rgb": _rounded(rgb, 3),
                    "va": _rounded(fuse(va_scored, va_medium), 5),
                    "va_scored": _rounded(va_scored, 5),
                    "va_medium": _rounded(va_medium, 5),
                    "evidence": evidence,
                }
            )
        except Lasting as failure:
            return failure

    return list(await asyncio.gather(*map(one, batch)))


STAGE: Final = StageWork(
    stage=Stage.SCORE,
    work=score,
    needs=(Stage.CAPTION,),
    capabilities=lambda kind: ("score_emotion", capability("va", kind)),
    inputs=lambda job, profile: {"scored weight": SCORED_WEIGHT},
)
