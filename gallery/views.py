"""What people may see, read from the records: how far everything is, the pairs, one item.

The API and the command line show the same views; with the stack down, the command line reads the data folder
through the same functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from infra.progress import ITEM_STAGES, progress_of
from infra.records import DEFAULT_EXHIBITION, Records, media_key, version_text
from schemas.failures import Refused
from schemas.media import WHOLE, Kind, parts_of, split_item_id
from schemas.profile import Profile
from schemas.records import (
    CaptionBody,
    CaptionGate,
    ExhibitionSettings,
    PairingBasis,
    PairingConstants,
    ScoreBody,
    Stage,
    now,
)
from workers.feelings import feeling_words
from workers.pair import PairingState, as_asked, basis_of, read_state
from workers.pairing.chance import chance_of, cross_similarities
from workers.pairing.similarity import UNITS, Cosine, Floats, Measure
from workers.pairing.spaces import item_vectors, pairing_space

SEEN = ConfigDict(frozen=True, extra="forbid")

LONGEST_QUERY: Final = 500
"""Characters of a free-text search: a long paragraph."""

MOST_BINS: Final = 60
"""Bins of a histogram of similarities, at most: as fine as a line across a page shows."""


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
    pairs: dict[str, int] = Field(description="exhibition -> pairs of its target pairing")
    music: dict[str, int] = Field(default={}, description="pieces of music: kept, waiting, failed")
    captions_gated: bool | None = Field(
        default=None,
        description="captions are scored, and asked for again where they are not good enough; None: the profile is "
        "not at hand",
    )

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
    hung: bool = Field(default=True, description="it is on the wall")
    target: bool = Field(default=True, description="it is what the rule demands")
    pinned: bool = Field(default=False, description="a person fixed it")


class PairsView(BaseModel):
    """The pairs of an exhibition, best first: those on the wall, or those of the target."""

    model_config = SEEN

    exhibition: str
    space: str = Field(description="that the shown pairs were made in; while they are made anew, the one before")
    rule: str
    revision: int
    pairs: tuple[PairView, ...]
    unpaired_artworks: int
    unpaired_tracks: int
    mean_similarity: float | None
    chance_similarity: float | None = Field(description="mean similarity of random pairs of the same items")
    chance_spread: float | None = Field(description="standard deviation of that mean over repeated random pairings")
    lift: float | None = Field(description="mean similarity divided by its chance level")
    mix: dict[str, float] = Field(default={}, description="of the space `mix`: space -> weight")
    floor: float | None = Field(default=None, description="similarity below which items stay free")
    sigma: float | None = Field(default=None, description="MMVA's sigma, where the space has va")
    shown: Literal["hung", "target"] = "hung"
    waiting: int = Field(default=0, description="pairs of the target that do not hang yet")
    pairing_anew: bool = Field(default=False, description="the settings ask for another pairing, which is being made")


class SimilaritySpread(BaseModel):
    """How alike all possible pairs of an exhibition are, in the space of its pairing: a histogram."""

    model_config = SEEN

    lowest: float
    highest: float
    counts: tuple[int, ...] = Field(description="possible pairs in bins of equal width from lowest to highest")
    mean: float
    sampled: bool = Field(description="of so many that only a sample was counted")


class WallView(BaseModel):
    """An exhibition as a wall: its pairs beside chance, its settings, and what hangs alone."""

    model_config = SEEN

    pairs: PairsView
    settings: ExhibitionSettings
    alone: tuple[SideView, ...] = Field(description="pictures and tracks without a partner, by title")
    possible: SimilaritySpread | None = Field(description="None without pairs")


class ExhibitionView(BaseModel):
    """One exhibition: its settings and how its pairing stands."""

    model_config = SEEN

    name: str
    collections: tuple[str, ...] | None = Field(description="None: every collection")
    space: str
    rule: str
    mix: dict[str, float]
    floor: float | None
    threshold: float
    hour: int | None
    music: str = Field(default="on request", description="when music is composed: never, on request, always")
    composer: str | None = Field(default=None, description="who composes; None: the profile's first composer")
    pins: tuple[tuple[str, str], ...]
    revision: int = Field(description="of the pairing")
    artworks: int
    tracks: int
    pairs: int = Field(description="of the target")
    hung: int
    waiting: int = Field(description="pairs of the target that do not hang yet")
    sigma: float | None
    pairing_anew: bool


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
    gate: CaptionGate | None = Field(default=None, description="of the caption: what was tried; None: none served")


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
    caption_threshold: float | None = Field(default=None, description="score that captions had to reach")
    provenance: dict[str, dict[str, Any]]
    partners: dict[str, str] = Field(description="exhibition -> id of the other half on its wall")
    failures: tuple[dict[str, str], ...]


async def status_view(records: Records, profile: Profile | None = None) -> StatusView:
    """Count everything: one listing of the items and one of each exhibition's log.

    Args:
        profile: what is served, to say whether captions are gated.
    """
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
    done = waiting = recent = 0
    moment = now()
    latest = {state.item: state.latest for state in states if state.alive and state.latest is not None}
    held = {state.item: state.memberships for state in states}
    for exhibition in await records.exhibitions():
        pairing = await read_state(records, exhibition.home)
        paired[exhibition.name] = len(pairing.pairs)
        recent += sum(count for made, count in pairing.joins if moment - made < timedelta(minutes=1))
        # A pairing that is being made anew is one thing that waits.
        waiting += not as_asked(exhibition, pairing)
        for item in progress.complete:
            if not _hangs(exhibition, held[item]):
                continue
            if pairing.members.get(item) == version_text(latest[item]):
                done += 1
            else:
                waiting += 1
        waiting += sum(
            1 for item in pairing.members if item not in latest or not _hangs(exhibition, held.get(item, set()))
        )
    per_second = round(recent / 60, 2)
    stages.append(StageView(stage=Stage.PAIR.value, done=done, waiting=waiting, failed=0, per_second=per_second))
    return StatusView(
        stages=tuple(stages),
        items=progress.items,
        collections=dict(sorted(progress.collections.items())),
        withdrawn=progress.withdrawn,
        dead_letters=progress.dead_letters,
        pairs=paired,
        music={
            "kept": sum(len(state.pieces()) for state in states if state.alive),
            "waiting": sum(len(state.wanted_pieces()) for state in states if state.alive),
            "failed": sum(
                stage.startswith(Stage.COMPOSE.value) for state in states if state.alive for _, stage in state.dead
            ),
        },
        captions_gated=None if profile is None else profile.gates_captions,
    )


def _hangs(exhibition: ExhibitionSettings, collections: set[str]) -> bool:
    return bool(collections) if exhibition.collections is None else bool(collections & set(exhibition.collections))


def _rounded(rgb: Any) -> tuple[int, int, int]:
    red, green, blue = (round(float(value)) for value in rgb)
    return red, green, blue


def _shortened(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


async def _side(records: Records, item: str, embedded: bool) -> tuple[SideView, Mapping[str, Any]] | None:
    """An item as half of a pair, with its vectors by name; None when it is gone or not scored."""
    state = await records.state(item)
    score = await records.newest_result(state, Stage.SCORE) if state.alive else None
    if score is None or state.latest is None or not isinstance(score.body, ScoreBody):
        return None
    vectors = item_vectors(score, await records.newest_result(state, Stage.EMBED) if embedded else None)
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
    return view, vectors


async def _sides(
    records: Records, items: list[str], embedded: bool
) -> Mapping[str, tuple[SideView, Mapping[str, Any]]]:
    found: dict[str, tuple[SideView, Mapping[str, Any]]] = {}
    for start in range(0, len(items), 64):
        chunk = items[start : start + 64]
        sides = await asyncio.gather(*(_side(records, each, embedded) for each in chunk))
        for item, side in zip(chunk, sides, strict=True):
            if side is not None:
                found[item] = side
    return found


async def _exhibition(records: Records, name: str) -> ExhibitionSettings:
    settings = await records.exhibition(name)
    if settings is None:
        raise Refused(f"there is no exhibition called {name!r}; `promenade exhibition list` shows them.")
    return settings


async def exhibition_view(records: Records, name: str) -> ExhibitionView:
    """One exhibition.

    Raises:
        Refused: there is none of that name.
    """
    settings = await _exhibition(records, name)
    pairing = await read_state(records, settings.home)
    counts = {kind: sum(1 for item in pairing.members if split_item_id(item)[0] is kind) for kind in Kind}
    return ExhibitionView(
        name=settings.name,
        collections=settings.collections,
        space=settings.space,
        rule=settings.rule,
        mix=dict(settings.mix),
        floor=settings.floor,
        threshold=settings.threshold,
        hour=settings.hour,
        music=settings.music,
        composer=settings.composer,
        pins=settings.pins,
        revision=pairing.number,
        artworks=counts[Kind.ARTWORK],
        tracks=counts[Kind.TRACK],
        pairs=len(pairing.pairs),
        hung=len(pairing.hung),
        waiting=len(pairing.pairs.keys() - pairing.hung.keys()),
        sigma=None if pairing.basis is None else pairing.basis.constants.sigma,
        pairing_anew=not as_asked(settings, pairing),
    )


async def exhibitions_view(records: Records) -> list[ExhibitionView]:
    """Every exhibition, by name."""
    return [await exhibition_view(records, each.name) for each in await records.exhibitions()]


async def pairs_view(records: Records, exhibition: str = DEFAULT_EXHIBITION, *, target: bool = False) -> PairsView:
    """The pairs of an exhibition beside chance, in the space and by the constants that they were made with.

    Args:
        target: show what the rule demands instead of what hangs.

    Raises:
        Refused: there is no such exhibition.
    """
    return await _pairs_of(await _members(records, exhibition), target)


async def wall_view(records: Records, exhibition: str = DEFAULT_EXHIBITION, *, target: bool = False) -> WallView:
    """The pairs of an exhibition, what hangs alone, and how alike all possible pairs are.

    Args, Raises: as `pairs_view`.
    """
    members = await _members(records, exhibition)
    pairs = await _pairs_of(members, target)
    paired = {side.id for pair in pairs.pairs for side in (pair.artwork, pair.track)}
    alone = sorted(
        (side for item, (side, _) in members.sides.items() if item not in paired),
        key=lambda side: (side.title.casefold(), side.id),
    )
    possible = await asyncio.to_thread(_spread_of, members) if pairs.pairs else None
    return WallView(pairs=pairs, settings=members.settings, alone=tuple(alone), possible=possible)


@dataclass(frozen=True, slots=True)
class _Members:
    """What an exhibition is paired from: its items with their vectors in its space."""

    settings: ExhibitionSettings
    pairing: PairingState
    basis: PairingBasis
    sides: Mapping[str, tuple[SideView, Mapping[str, Any]]]
    vectors: Mapping[Kind, Mapping[str, Floats]]
    measure: Measure


async def _members(records: Records, exhibition: str) -> _Members:
    settings = await _exhibition(records, exhibition)
    pairing = await read_state(records, settings.home)
    basis = pairing.basis or basis_of(settings, PairingConstants())
    space = pairing_space(basis.space, basis.mix)
    sides = await _sides(records, sorted(pairing.members), space.needs_embedding)
    vectors = {
        kind: {
            item: vector
            for item, side in sides.items()
            if split_item_id(item)[0] is kind and (vector := space.vector(kind, side[1])) is not None
        }
        for kind in Kind
    }
    # Without constants nothing is paired, so the measure is not asked.
    return _Members(settings, pairing, basis, sides, vectors, space.measure(basis.constants) or Cosine())


def _spread_of(members: _Members) -> SimilaritySpread:
    left, right = (
        members.measure.prepare(np.asarray(list(members.vectors[kind].values()), dtype=np.float64))
        for kind in (Kind.ARTWORK, Kind.TRACK)
    )
    units, sampled = cross_similarities(left, right, members.measure)
    every = units / UNITS
    # Rice's rule: few values in many bins are noise.
    counts, edges = np.histogram(every, bins=min(MOST_BINS, max(1, round(2 * len(every) ** (1 / 3)))))
    return SimilaritySpread(
        lowest=float(edges[0]),
        highest=float(edges[-1]),
        counts=tuple(counts.tolist()),
        mean=float(every.mean()),
        sampled=sampled,
    )


async def _pairs_of(members: _Members, target: bool) -> PairsView:
    settings, pairing, basis = members.settings, members.pairing, members.basis
    sides, vectors = members.sides, members.vectors
    chosen = pairing.pairs if target else pairing.hung
    shown = {
        artwork: (track, similarity)
        for (artwork, track), similarity in sorted(chosen.items(), key=lambda pair: (-pair[1], pair[0]))
        if artwork in vectors[Kind.ARTWORK] and track in vectors[Kind.TRACK]
    }
    chance = await asyncio.to_thread(chance_of, vectors[Kind.ARTWORK], vectors[Kind.TRACK], shown, members.measure)
    pairs = tuple(
        PairView(
            artwork=sides[artwork][0],
            track=sides[track][0],
            similarity=round(similarity, 6),
            percentile=round(chance.percentiles[artwork], 1),
            hung=(artwork, track) in pairing.hung,
            target=(artwork, track) in pairing.pairs,
            pinned=(artwork, track) in pairing.pins,
        )
        for artwork, (track, similarity) in shown.items()
    )
    counts = {kind: sum(1 for item in sides if split_item_id(item)[0] is kind) for kind in Kind}
    return PairsView(
        exhibition=settings.name,
        space=basis.space,
        rule=basis.rule,
        revision=pairing.number,
        pairs=pairs,
        unpaired_artworks=counts[Kind.ARTWORK] - len(pairs),
        unpaired_tracks=counts[Kind.TRACK] - len(pairs),
        mean_similarity=_shortened(chance.mean),
        chance_similarity=_shortened(chance.chance),
        chance_spread=_shortened(chance.spread),
        lift=_shortened(chance.lift),
        mix=dict(basis.mix),
        floor=basis.floor,
        sigma=basis.constants.sigma,
        shown="target" if target else "hung",
        waiting=len(pairing.pairs.keys() - pairing.hung.keys()),
        pairing_anew=not as_asked(settings, pairing),
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
    results = {stage: await records.newest_result(state, stage) for stage in ITEM_STAGES}
    said, score = results[Stage.CAPTION], results[Stage.SCORE]
    captions = said.body if said is not None and isinstance(said.body, CaptionBody) else None
    texts = captions.texts if captions is not None else ("",) * 5
    gates = captions.gates if captions is not None else None
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
            gate=gates.parts[place] if gates is not None else None,
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
        for artwork, track in (await read_state(records, exhibition.home)).hung:
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
        caption_threshold=gates.threshold if gates is not None else None,
        provenance={
            stage.value: result.provenance.model_dump(mode="json") for stage, result in results.items() if result
        },
        partners=partners,
        failures=tuple(
            {"stage": letter.stage, "reason": letter.reason, "advice": letter.advice} for letter in letters
        ),
    )
