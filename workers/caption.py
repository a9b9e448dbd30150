"""The caption stage: what is seen or heard, in five parts, measured and put into words.

The whole and the four fragments are cut here (CMEAN, section 3), measured by the one place of measurement, and
captioned; the measurements stay in the record, because later stages read them and a person may ask for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from schemas.failures import Lasting
from schemas.media import WHOLE, Kind, parts_of
from schemas.records import CaptionBody, Stage
from workers.contract import Job, Outcome, StageWork, Tools
from workers.media.parts import picture_parts, sound_parts
from workers.models import Models, Part, capability, pack

PROMPTS_VERSION: Final = "1"

_ASKED: Final = {
    Kind.ARTWORK: (
        "Describe {part} of this picture: what it shows, its colours and light, how it is made and composed, "
        "and what it makes a viewer feel."
    ),
    Kind.TRACK: (
        "Describe {part} of this music: instruments, tempo and rhythm, timbre, what it makes a listener feel, "
        "and a place it brings to mind."
    ),
}


def prompts(kind: Kind) -> list[str]:
    """What a captioner is asked for each of the five parts (the intent of CMEAN's prompts, in our own words)."""
    return [
        _ASKED[kind].format(part="the whole" if part == "whole" else f"only the {part} fragment")
        for part in parts_of(kind)
    ]


async def cut(job: Job) -> list[Part]:
    """The five parts of an item as models take them."""
    if job.load_rendition is None:
        raise Lasting("the item's media is not at hand.", "")
    content = await job.load_rendition()
    if job.kind is Kind.ARTWORK:
        return list(await asyncio.to_thread(picture_parts, content))
    return list(await asyncio.to_thread(sound_parts, content))


async def caption(batch: Sequence[Job], tools: Tools) -> list[Outcome]:
    """Five captions with phrases and measurements for each job, side by side."""
    models = Models(tools.inference, tools.profile)

    async def one(job: Job) -> Outcome:
        try:
            parts = await cut(job)
            measurements, vectors = await models.measure(job.kind, parts)
            shown = parts if models.reads_media(capability("caption", job.kind)) else None
            texts, phrases = await models.caption(
                job.kind, shown, prompts(job.kind), job.revision.catalogue, measurements
            )
            return CaptionBody.model_validate(
                {
                    "texts": tuple(texts),
                    "phrases": tuple(phrases),
                    "measurements": tuple(measurements),
                    "tag_vector": pack(vectors[WHOLE]),
                }
            )
        except Lasting as failure:
            return failure

    return list(await asyncio.gather(*map(one, batch)))


STAGE: Final = StageWork(
    stage=Stage.CAPTION,
    work=caption,
    needs=(),
    capabilities=lambda kind: (capability("measure", kind), capability("caption", kind)),
    inputs=lambda job, profile: {
        "catalogue": job.revision.catalogue.model_dump(exclude_none=True),
        "prompts": PROMPTS_VERSION,
    },
)
