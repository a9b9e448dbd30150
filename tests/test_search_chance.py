"""What must hold of search and likeness: every similarity stands beside what any item would reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from gallery.api import Reach, make_api
from infra.inference import Inference
from infra.vectors import Vectors
from promenade import cli
from promenade.profile import read_profile
from promenade.settings import CLONE
from schemas.media import Kind
from tests.stack_fixtures import made_item
from workers.index import tag_space
from workers.models import Models
from workers.pairing.chance import nearness_of

PROFILE = read_profile(CLONE / "model_repository" / "edge.toml")
ITEMS = [made_item(str(number)) for number in range(40)]


def vectors_of(space: str) -> np.ndarray[Any, Any]:
    """40 vectors of a space, all a little alike: [40, dimension]."""
    dimension = next(each.dimension for each in PROFILE.all_spaces() if each.name == space)
    return np.random.default_rng(4).normal(0.3, 1, (40, dimension)).astype(np.float32)


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[Vectors]:
    store = Vectors(PROFILE.all_spaces(), folder=tmp_path / "qdrant")
    await store.prepare()
    own = tag_space(PROFILE, Kind.ARTWORK)
    assert own is not None
    tables = {name: vectors_of(name) for name in (PROFILE.caption_space, own.name)}
    await store.upsert(
        [
            (
                Kind.ARTWORK,
                item,
                0,
                {name: table[row] for name, table in tables.items()},
                {"collections": ["even" if row % 2 == 0 else "odd"], "title": f"Picture {row}"},
            )
            for row, item in enumerate(ITEMS)
        ]
    )
    yield store
    await store.close()


async def answers(vectors: Vectors, path: str) -> Any:
    """What the API says."""

    async def ready() -> dict[str, str]:
        return {}

    async def state(_: str) -> Any:
        return SimpleNamespace(alive=True, latest=(0, 1))

    records: Any = SimpleNamespace(state=state)
    api = make_api(Reach(records, PROFILE, Inference("127.0.0.1:1"), vectors, {}, ready))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://here") as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


def cosines(table: np.ndarray[Any, Any], query: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of every row with the query."""
    return np.asarray(table @ query / np.linalg.norm(table, axis=1) / np.linalg.norm(query))


async def test_what_is_alike_stands_beside_all_others(vectors: Vectors) -> None:
    own = tag_space(PROFILE, Kind.ARTWORK)
    assert own is not None
    hits = await answers(vectors, f"/api/similar/{ITEMS[0]}?limit=39")
    every = cosines(vectors_of(own.name)[1:], vectors_of(own.name)[0])
    assert len(hits) == 39
    for rank, hit in enumerate(hits):
        assert hit["chance"] == pytest.approx(every.mean(), abs=1e-4), "the item itself is not among the others"
        assert hit["percentile"] == pytest.approx(100 * (38.5 - rank) / 39, abs=0.06)
        assert hit["lift"] == pytest.approx(hit["similarity"] / every.mean(), rel=0.02)


async def test_what_words_find_stands_beside_all_that_they_could_have_found(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = vectors_of(PROFILE.caption_space)

    async def embed_text(_: Models, __: list[str]) -> np.ndarray[Any, Any]:
        sums: np.ndarray[Any, Any] = table[:1] + table[4:5]
        return sums

    monkeypatch.setattr(Models, "embed_text", embed_text)
    for query, rows in (("", slice(None)), ("&collection=even", slice(None, None, 2))):
        hits = await answers(vectors, f"/api/search?text=sea&limit=3{query}")
        every = cosines(table[rows], table[0] + table[4])
        assert {hit["item"] for hit in hits["artwork"][:2]} == {ITEMS[0], ITEMS[4]}
        for rank, hit in enumerate(hits["artwork"]):
            assert hit["chance"] == pytest.approx(every.mean(), abs=1e-4)
            assert hit["percentile"] == pytest.approx(100 * (len(every) - rank - 0.5) / len(every), abs=0.06)
        assert hits["track"] == []


def test_people_read_chance_and_percentile(monkeypatch: pytest.MonkeyPatch) -> None:
    hit = {"item": ITEMS[0], "title": "Sea", "similarity": 0.61, "chance": 0.123, "lift": 4.96, "percentile": 98.7}
    monkeypatch.setattr(cli, "_ask_api", lambda *_: {"artwork": [hit], "track": []})
    shown = CliRunner().invoke(cli.application, ["search", "sea"]).stdout
    assert "0.610 (chance 0.123, above 99 %)  Sea" in shown
    assert "chance: the mean over all of the kind" in shown


def test_chance_is_not_known_among_nobody_and_a_ratio_not_near_zero() -> None:
    nobody = nearness_of([0.5], np.ones(3), np.zeros((0, 3)))
    assert (nobody.chance, nobody.lifts, nobody.percentiles) == (None, [None], [None])
    among = nearness_of([1.0, 0.0], np.array([1.0, 0]), np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
    assert (among.chance, among.lifts, among.percentiles) == (0, [None, None], [87.5, 50.0])
