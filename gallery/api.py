"""The HTTP API of a worker process: is it alive, is it ready, its metrics, and what people may read.

Everything here only reads; music, which is asked for, has a module of its own (`gallery.music`). It binds to loopback
unless settings say otherwise; errors are JSON with a plain `detail`, and nothing of a stack trace leaves the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from gallery.music import LiveMusic, music_routes
from gallery.views import (
    LONGEST_QUERY,
    ExhibitionView,
    ItemView,
    PairsView,
    StatusView,
    exhibition_view,
    exhibitions_view,
    item_view,
    pairs_view,
    status_view,
)
from infra.inference import Inference
from infra.records import DEFAULT_EXHIBITION, Records
from infra.vectors import Found, Vector, Vectors
from schemas.failures import Lasting, Passing, Refused
from schemas.faults import fault_text
from schemas.media import Kind, split_item_id
from schemas.profile import Profile
from workers.index import tag_space
from workers.models import Models
from workers.pairing.chance import nearness_of

SAMPLE: Final = 1_000
"""Items that the chance level of a search is taken from, at most: a percentile is then off by about 1."""


class Observed(Protocol):
    """A stage runner as the API looks at it."""

    @property
    def in_flight(self) -> int:
        """Events in hand."""
        ...

    @property
    def waiting(self) -> Mapping[int, Any]:
        """What its loops wait for: entries with part, reason and since."""
        ...

    def observe(self) -> None:
        """Bring its gauges up to date."""
        ...


@dataclass(frozen=True, slots=True)
class Reach:
    """What the API may reach."""

    records: Records
    profile: Profile
    inference: Inference
    vectors: Vectors | None
    runners: Mapping[str, Observed]
    ready: Callable[[], Awaitable[dict[str, str]]]
    music: LiveMusic | None = None


class Sorry(BaseModel):
    """An answer that is none."""

    detail: str = Field(description="What is wrong, in one sentence.")


def _hits(found: Sequence[Found], query: Vector, others: Vector) -> list[dict[str, Any]]:
    """What was found, best first, each similarity beside what the query reaches with any item: `others`, of which
    `chance` is the mean, `lift` the ratio to it, and `percentile` the share in percent that is less similar."""
    beside = nearness_of([one.score for one in found], query, others)
    return [
        {
            **one.payload,
            "item": one.item,
            "similarity": round(one.score, 4),
            "chance": None if beside.chance is None else round(beside.chance, 4),
            "lift": None if lift is None else round(lift, 3),
            "percentile": None if percentile is None else round(percentile, 1),
        }
        for one, lift, percentile in zip(found, beside.lifts, beside.percentiles, strict=True)
    ]


def make_api(reach: Reach) -> FastAPI:
    """The application, over what it may reach."""
    api = FastAPI(
        title="Promenade",
        description="Pictures and music, paired by what they make people feel.",
        responses={422: {"model": Sorry, "description": "The request does not fit."}},
    )

    @api.exception_handler(RequestValidationError)
    async def unfit(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # The place begins with the kind of parameter (query, path, ...), which says nothing to whoever typed it.
        told = [
            f"{'.'.join(str(step) for step in fault['loc'][1:]) or fault['loc'][0]}: {fault_text(fault)}"
            for fault in error.errors()
        ]
        return JSONResponse({"detail": "; ".join(told) + "."}, 422)

    @api.exception_handler(Passing)
    async def away(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": "2"})

    @api.exception_handler(Refused)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    @api.exception_handler(Lasting)
    async def lasting(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @api.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @api.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """The process consumes and reaches its parts; 503 with what is missing otherwise."""
        missing = await reach.ready()
        if missing:
            response.status_code = 503
        return {"ready": not missing, "missing": missing, "stages": sorted(reach.runners)}

    @api.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        for runner in reach.runners.values():
            runner.observe()
        await reach.inference.read_statistics()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/api/waiting")
    async def waiting() -> dict[str, Any]:
        """What each stage of this process has in hand and waits for, from memory: works while parts are away."""
        return {
            name: {
                "in_flight": runner.in_flight,
                "waiting_for": [
                    {"part": each.part, "reason": each.reason, "since": each.since.isoformat()}
                    for each in runner.waiting.values()
                ],
            }
            for name, runner in reach.runners.items()
        }

    @api.get("/api/status")
    async def status() -> StatusView:
        """How far everything is, counted from the records."""
        return await status_view(reach.records, reach.profile)

    @api.get("/api/pairs")
    async def pairs(exhibition: str = DEFAULT_EXHIBITION, target: bool = False) -> PairsView:
        """The pairs of an exhibition beside chance: those that hang, or what the rule demands."""
        return await pairs_view(reach.records, exhibition, target=target)

    @api.get("/api/exhibitions")
    async def exhibitions() -> list[ExhibitionView]:
        """Every exhibition and how its pairing stands."""
        return await exhibitions_view(reach.records)

    @api.get("/api/exhibitions/{name}")
    async def exhibition(name: str) -> ExhibitionView:
        """One exhibition and how its pairing stands."""
        return await exhibition_view(reach.records, name)

    @api.get("/api/items/{item}")
    async def item(item: str) -> ItemView:
        """One item, whole."""
        return await item_view(reach.records, item)

    @api.get("/api/search")
    async def search(
        text: str = Query(min_length=1, max_length=LONGEST_QUERY),
        kind: Kind | None = None,
        limit: int = Query(10, ge=1, le=100),
        collection: str | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Pictures and tracks whose captions are nearest to the words, each beside chance."""
        if reach.vectors is None:
            raise Refused("this process has no vector store; ask the one that runs the index stage.")
        if not text.strip():
            raise Lasting("text: is empty.")
        vector = (await Models(reach.inference, reach.profile).embed_text([text]))[0]
        answer: dict[str, list[dict[str, Any]]] = {}
        for each in Kind if kind is None else (kind,):
            found = await reach.vectors.nearest(
                each, reach.profile.caption_space, vector, limit, collection=collection
            )
            others = await reach.vectors.sample(each, reach.profile.caption_space, SAMPLE, collection=collection)
            answer[each.value] = _hits(found, vector, others)
        return answer

    @api.get("/api/similar/{item}")
    async def similar(item: str, limit: int = Query(10, ge=1, le=100)) -> list[dict[str, Any]]:
        """Items of the same kind that the tag model's own vectors hold nearest, best first, beside chance."""
        if reach.vectors is None:
            raise Refused("this process has no vector store; ask the one that runs the index stage.")
        try:
            kind = split_item_id(item)[0]
        except ValueError as error:
            raise Refused(str(error)) from None
        space = tag_space(reach.profile, kind)
        state = await reach.records.state(item)
        generation = state.latest[0] if state.alive and state.latest is not None else -1
        vectors = await reach.vectors.fetch(kind, item, generation) if generation >= 0 else None
        if vectors is None or space is None or space.name not in vectors:
            raise Refused(f"{item} is not in the index; `promenade show` tells how far it is.")
        found = await reach.vectors.nearest(kind, space.name, vectors[space.name], limit + 1)
        others = await reach.vectors.sample(kind, space.name, SAMPLE, without=item)
        return _hits([one for one in found if one.item != item][:limit], vectors[space.name], others)

    if reach.music is not None:
        api.include_router(music_routes(reach.music))
    return api
