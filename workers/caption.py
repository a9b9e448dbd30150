"""The caption stage: what is seen or heard, in five parts, measured and put into words.

The whole and the four fragments are cut here (CMEAN, section 3), measured by the one place of measurement, and
captioned; the measurements stay in the record, because later stages read them and a person may ask for them. Where
the profile serves `score_caption`, captions go through gates (`workers.gates`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from schemas.failures import Lasting
from schemas.media import WHOLE, Kind, parts_of
from schemas.profile import Profile
from schemas.records import CaptionBody, CaptionScores, Stage
from workers import gates
from workers.contract import Job, Outcome, StageWork, Tools
from workers.media.parts import picture_parts, sound_parts
from workers.models import Models, Part, Said, capability, pack

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
        kind = job.kind
        try:
            parts = await cut(job)
            measurements, vectors = await models.measure(kind, parts)
            shown = parts if models.reads_media(capability("caption", kind)) else None

            async def ask(places: Sequence[int], asked: Sequence[str]) -> list[Said]:
                return await models.caption(
                    kind,
                    None if shown is None else [shown[place] for place in places],
                    asked,
                    job.revision.catalogue,
                    [measurements[place] for place in places],
                    places,
                )

            async def score(places: Sequence[int], said: Sequence[Said]) -> list[CaptionScores | None]:
                # A track's caption is held against what was heard in its passages; without them there is no score.
                heard = [
                    [phrase.text for phrase in each.phrases if phrase.text.strip()] if kind is Kind.TRACK else []
                    for each in said
                ]
                rows = [row for row, references in enumerate(heard) if references or kind is Kind.ARTWORK]
                scores: list[CaptionScores | None] = [None] * len(said)
                if rows:
                    found = await models.score_caption(
                        kind,
                        [parts[places[row]] for row in rows],
                        [said[row].text for row in rows],
                        [heard[row] for row in rows],
                    )
                    for row, scored in zip(rows, found, strict=True):
                        scores[row] = scored
                return scores

            asked = prompts(kind)
            if tools.profile.gates_captions:
                said, passed = await gates.through_gates(kind, asked, tools.profile.gates, ask, score, tools.captions)
            else:
                said, passed = await ask(range(len(asked)), asked), None
            endings = tuple(each.ending for each in said)
            return CaptionBody.model_validate(
                {
                    "texts": tuple(each.text for each in said),
                    "phrases": tuple(each.phrases for each in said),
                    "measurements": tuple(measurements),
                    "tag_vector": pack(vectors[WHOLE]),
                    "gates": passed,
                    "endings": endings if any(endings) else (),
                }
            )
        except Lasting as failure:
            return failure

    return list(await asyncio.gather(*map(one, batch)))


def inputs(job: Job, profile: Profile) -> dict[str, Any]:
    """What decides five captions beside the models; the gates only where there are any, so that results of profiles
    without them stay valid."""
    found: dict[str, Any] = {
        "catalogue": job.revision.catalogue.model_dump(exclude_none=True),
        "prompts": PROMPTS_VERSION,
    }
    if profile.gates_captions:
        found["gates"] = {"version": gates.VERSION, **profile.gates.model_dump()}
    return found


STAGE: Final = StageWork(
    stage=Stage.CAPTION,
    work=caption,
    needs=(),
    capabilities=lambda kind: (capability("measure", kind), capability("caption", kind)),
    optional=("score_caption",),
    inputs=inputs,
)
