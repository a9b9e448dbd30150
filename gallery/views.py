"""What people may see, read from the records: how far everything is, the pairs, one item.

The API and the command line show the same views; with the stack down, the command line reads the data folder
through the same functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from infra.progress import progress_of
from infra.records import DEFAULT_EXHIBITION, Records, media_key, version_text
from schemas.failures import Refused
from schemas.media import WHOLE, Kind, parts_of, split_item_id
from schemas.records import CaptionBody, ExhibitionSettings, ScoreBody, Stage, now
from schemas.spaces import EMOTION_SPACES
from workers.feelings import feeling_words
from workers.index import emotion_vectors
from workers.pair import read_state
from workers.pairing.chance import chance_of
from workers.pairing.similarity import measure_for

SEEN = ConfigDict(frozen=True, extra="forbid")


class StageView(BaseModel):
    """One stage: items done, waiting, failed; results per second over the last minute."""

    model_config = SEEN

    stage: str
    done: int
    waiting: int
    failed: int
    per_second: float


class StatusView(BaseModel):
    """How far everything is."""

    model_config = SEEN

    stages: tuple[StageView, ...]
    items: dict[str, int] = Field(description="kind -> items that are there")
    collections: dict[str, dict[str, int]] = Field(description="collection -> kind -> items")
    withdrawn: int
    dead_letters: int
    pairs: dict[str, int] = Field(description="exhibition -> pairs")

    @property
    def finished(self) -> bool:
        """True when nothing waits at any stage."""
        return not any(stage.waiting for stage in self.stages)


class SideView(BaseModel):
    """One half of a pair, or one item in a list."""

    model_config = SEEN

    id: str
    title: str
    artist: str
    year: str
    feeling: str
    rgb: tuple[int, int, int]
    valence: float
    arousal: float


class PairView(BaseModel):
    """One pair with its similarity beside chance."""

    model_config = SEEN

    artwork: SideView
    track: SideView
    similarity: float
    percentile: float = Field(description="share of all possible pairs that are less similar, in percent")


class PairsView(BaseModel):
    """The pairs of an exhibition, best first."""

    model_config = SEEN

    exhibition: str
    space: str
    rule: str
    revision: int
    pairs: tuple[PairView, ...]
    unpaired_artworks: int
    unpaired_tracks: int
    mean_similarity: float | None
    chance_similarity: float | None = Field(description="mean similarity of random pairs of the same items")
    chance_spread: float | None = Field(description="standard deviation of that mean over repeated random pairings")
    lift: float | None = Field(description="mean similarity divided by its chance level")


class PartView(BaseModel):
    """One of five parts."""

    model_config = SEEN

    part: str
    caption: str
    rgb: tuple[int, int, int] | None
    valence: float | None
    arousal: float | None
    feeling: str | None
    evidence: tuple[dict[str, Any], ...] = ()


class ItemView(BaseModel):
    """Everything a person may want to know of one item."""

    model_config = SEEN

    id: str
    kind: str
    version: str
    catalogue: dict[str, str]
    collections: tuple[str, ...]
    media: dict[str, Any]
    original: str = Field(description="object key of the original bytes")
    stages: dict[str, str] = Field(description="stage -> done, waiting, failed or not yet")
    parts: tuple[PartView, ...]
    provenance: dict[str, dict[str, Any]]
    partners: dict[str, str] = Field(description="exhibition -> id of the other half")
    failures: tuple[dict[str, str], ...]


async def status_view(records: Records) -> StatusView:
    """Count everything: one listing of the items and one of each exhibition's log."""
    states = await records.all_states()
    progress = progress_of(states, now())
    stages = [
        StageView(
            stage=name,
            done=count.done,
            waiting=count.waiting,
            failed=count.failed,
            per_second=round(count.recent / 60, 2),
        )
        for name, count in progress.stages.items()
    ]
    paired: dict[str, int] = {}
    done = waiting = 0
    latest = {state.item: state.latest for state in states if state.alive and state.latest is not None}
    held = {state.item: state.memberships for state in states}
    for exhibition in await records.exhibitions():
        pairing = await read_state(records, exhibition.name)
        paired[exhibition.name] = len(pairing.pairs)
        for item in progress.complete:
            if not _hangs(exhibition, held[item]):
                continue
            if pairing.members.get(item) == version_text(latest[item]):
                done += 1
            else:
                waiting += 1
        waiting += sum(1 for item in pairing.members if item not in latest)
    stages.append(StageView(stage=Stage.PAIR.value, done=done, waiting=waiting, failed=0, per_second=0.0))
    return StatusView(
        stages=tuple(stages),
        items=progress.items,
        collections=dict(sorted(progress.collections.items())),
        withdrawn=progress.withdrawn,
        dead_letters=progress.dead_letters,
        pairs=paired,
    )


def _hangs(exhibition: ExhibitionSettings, collections: set[str]) -> bool:
    return bool(collections) if exhibition.collections is None else bool(collections & set(exhibition.collections))


def _rounded(rgb: Any) -> tuple[int, int, int]:
    red, green, blue = (round(float(value)) for value in rgb)
    return red, green, blue


def _shortened(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


async def _side(records: Records, item: str) -> tuple[SideView, dict[str, Any]] | None:
    """An item as half of a pair, with its emotion vectors; None when it is gone or not scored."""
    state = await records.state(item)
    score = await records.newest_result(state, Stage.SCORE) if state.alive else None
    if score is None or state.latest is None or not isinstance(score.body, ScoreBody):
        return None
    catalogue = (await records.revision(item, state.latest)).catalogue
    rgb, va = score.body.rgb[WHOLE], score.body.va[WHOLE]
    view = SideView(
        id=item,
        title=catalogue.title or "untitled",
        artist=catalogue.artist or "",
        year=catalogue.year or "",
        feeling=feeling_words(rgb, va),
        rgb=_rounded(rgb),
        valence=round(va[0], 3),
        arousal=round(va[1], 3),
    )
    return view, emotion_vectors(score)


async def _sides(records: Records, items: list[str]) -> Mapping[str, tuple[SideView, dict[str, Any]]]:
    found: dict[str, tuple[SideView, dict[str, Any]]] = {}
    for start in range(0, len(items), 64):
        chunk = items[start : start + 64]
        for item, side in zip(chunk, await asyncio.gather(*(_side(records, each) for each in chunk)), strict=True):
            if side is not None:
                found[item] = side
    return found


async def pairs_view(records: Records, exhibition: str = DEFAULT_EXHIBITION) -> PairsView:
    """The pairs of an exhibition beside chance.

    Raises:
        Refused: there is no such exhibition.
    """
    settings = next((each for each in await records.exhibitions() if each.name == exhibition), None)
    if settings is None:
        raise Refused(f"there is no exhibition called {exhibition!r}.")
    pairing = await read_state(records, exhibition)
    sides = await _sides(records, sorted(pairing.members))
    space = next(each for each in EMOTION_SPACES if each.name == settings.space)
    vectors = {
        kind: {item: side[1][space.name] for item, side in sides.items() if split_item_id(item)[0] is kind}
        for kind in Kind
    }
    shown = {
        artwork: (track, similarity)
        for (artwork, track), similarity in sorted(pairing.pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        if artwork in sides and track in sides
    }
    chance = await asyncio.to_thread(
        chance_of, vectors[Kind.ARTWORK], vectors[Kind.TRACK], shown, measure_for(space.distance)
    )
    pairs = tuple(
        PairView(
            artwork=sides[artwork][0],
            track=sides[track][0],
            similarity=round(similarity, 6),
            percentile=round(chance.percentiles[artwork], 1),
        )
        for artwork, (track, similarity) in shown.items()
    )
    counts = {kind: sum(1 for item in sides if split_item_id(item)[0] is kind) for kind in Kind}
    return PairsView(
        exhibition=exhibition,
        space=settings.space,
        rule=settings.rule,
        revision=pairing.number,
        pairs=pairs,
        unpaired_artworks=counts[Kind.ARTWORK] - len(pairs),
        unpaired_tracks=counts[Kind.TRACK] - len(pairs),
        mean_similarity=_shortened(chance.mean),
        chance_similarity=_shortened(chance.chance),
        chance_spread=_shortened(chance.spread),
        lift=_shortened(chance.lift),
    )


async def item_view(records: Records, item: str) -> ItemView:
    """One item, whole.

    Raises:
        Refused: there is no such item, or it was withdrawn.
    """
    try:
        kind = split_item_id(item)[0]
    except ValueError as error:
        raise Refused(f"{error}; `promenade pairs --json` lists ids.") from None
    state = await records.state(item)
    if not state.alive or state.latest is None:
        what = "was withdrawn" if state.buried >= 0 else "is not here"
        raise Refused(f"{item} {what}; `promenade status` shows what is there.")
    revision = await records.revision(item, state.latest)
    results = {stage: await records.newest_result(state, stage) for stage in Stage if stage is not Stage.PAIR}
    said, score = results[Stage.CAPTION], results[Stage.SCORE]
    texts = said.body.texts if said is not None and isinstance(said.body, CaptionBody) else ("",) * 5
    scored = score.body if score is not None and isinstance(score.body, ScoreBody) else None
    parts = tuple(
        PartView(
            part=name,
            caption=texts[place],
            rgb=_rounded(scored.rgb[place]) if scored else None,
            valence=round(scored.va[place][0], 3) if scored else None,
            arousal=round(scored.va[place][1], 3) if scored else None,
            feeling=feeling_words(scored.rgb[place], scored.va[place]) if scored else None,
            evidence=scored.evidence[place] if scored else (),
        )
        for place, name in enumerate(parts_of(kind))
    )
    stages: dict[str, str] = {}
    before = True
    for stage, result in results.items():
        if result is not None:
            stages[stage.value] = "done"
        elif state.failed(stage.value):
            stages[stage.value] = "failed"
        else:
            stages[stage.value] = "waiting" if before else "not yet"
        before = result is not None
    letters = [
        letter for key in state.keys if "/dead/" in key and (letter := await records.dead_letter(key)) is not None
    ]
    partners: dict[str, str] = {}
    for exhibition in await records.exhibitions():
        for artwork, track in (await read_state(records, exhibition.name)).pairs:
            if item in (artwork, track):
                partners[exhibition.name] = track if item == artwork else artwork
    return ItemView(
        id=item,
        kind=kind.value,
        version=version_text(state.latest),
        catalogue=revision.catalogue.model_dump(exclude_none=True),
        collections=tuple(sorted(state.memberships)),
        media=revision.media.model_dump(exclude_none=True),
        original=media_key(item, state.latest[0]),
        stages=stages,
        parts=parts,
        provenance={
            stage.value: result.provenance.model_dump(mode="json") for stage, result in results.items() if result
        },
        partners=partners,
        failures=tuple(
            {"stage": letter.stage, "reason": letter.reason, "advice": letter.advice} for letter in letters
        ),
    )
