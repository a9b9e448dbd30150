"""What every vector store must keep: Qdrant's local mode, or the server that PROMENADE_TEST_QDRANT_URL names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from infra.vectors import ALIASES, Vector, Vectors, point_id
from schemas.failures import Lasting, Passing
from schemas.media import Kind
from schemas.spaces import EMOTION_SPACES, Space
from tests.stack_fixtures import made_item

EXTRA = Space(name="words-1", dimension=8, distance="cosine", maker="test")
SPACES = (*EMOTION_SPACES, EXTRA)
SERVER = os.environ.get("PROMENADE_TEST_QDRANT_URL")


def store_with(spaces: tuple[Space, ...], folder: Path) -> Vectors:
    """The same place with these spaces."""
    if SERVER:
        return Vectors(spaces, url=SERVER, api_key=os.environ.get("PROMENADE_TEST_QDRANT_API_KEY"))
    return Vectors(spaces, folder=folder)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Vectors]:
    if SERVER:
        client = QdrantClient(url=SERVER, api_key=os.environ.get("PROMENADE_TEST_QDRANT_API_KEY"))
        for described in client.get_collections().collections:
            if described.name.startswith(tuple(f"{alias}-" for alias in ALIASES.values())):
                client.delete_collection(described.name)
        client.close()
    vectors = store_with(SPACES, tmp_path / "qdrant")
    await vectors.prepare()
    yield vectors
    await vectors.close()


def vectors_for(seed: int, spaces: tuple[Space, ...] = SPACES) -> dict[str, Vector]:
    generator = np.random.default_rng(seed)
    return {space.name: generator.uniform(0.1, 1, space.dimension).astype(np.float32) for space in spaces}


async def test_a_point_is_found_by_each_of_its_vectors(store: Vectors) -> None:
    items = [made_item(f"{number}") for number in range(20)]
    await store.upsert(
        [(Kind.ARTWORK, item, 0, vectors_for(number), {"caption": item}) for number, item in enumerate(items)]
    )
    assert await store.count(Kind.ARTWORK) == 20
    assert await store.count(Kind.TRACK) == 0
    for space in SPACES:
        found = await store.nearest(Kind.ARTWORK, space.name, vectors_for(7)[space.name], 3)
        assert found[0].item == items[7], space.name
        assert len(found) == 3
    kept = await store.fetch(Kind.ARTWORK, items[3], 0)
    assert kept is not None
    assert set(kept) == {space.name for space in SPACES}
    assert np.allclose(kept["va"], vectors_for(3)["va"])


async def test_writing_again_replaces_the_point_and_its_payload(store: Vectors) -> None:
    item = made_item("a")
    for number, collections in enumerate((["spring", "old"], ["spring"])):
        await store.upsert(
            [(Kind.TRACK, item, 0, vectors_for(number), {"collections": collections, "revision": number})]
        )
    assert await store.count(Kind.TRACK) == 1
    (found,) = await store.nearest(Kind.TRACK, "rgb", vectors_for(1)["rgb"], 5)
    assert found.payload["revision"] == 1
    assert found.payload["collections"] == ["spring"]
    assert await store.nearest(Kind.TRACK, "rgb", vectors_for(1)["rgb"], 5, collection="old") == []


async def test_removing_a_generation_leaves_later_ones_and_other_items(store: Vectors) -> None:
    first, second = made_item("a"), made_item("b")
    for item in (first, second):
        for generation in range(3):
            await store.upsert([(Kind.ARTWORK, item, generation, vectors_for(generation), {})])
    await store.remove(Kind.ARTWORK, first, 1)
    assert sorted(await store.items(Kind.ARTWORK)) == sorted([(first, 2), (second, 0), (second, 1), (second, 2)])
    await store.remove(Kind.ARTWORK, first, 1)
    assert await store.fetch(Kind.ARTWORK, first, 0) is None
    assert point_id(first, 1) != point_id(first, 2) != point_id(second, 2)


async def test_a_collection_of_people_narrows_the_search(store: Vectors) -> None:
    items = [made_item(f"{number}") for number in range(6)]
    await store.upsert(
        [
            (
                Kind.ARTWORK,
                item,
                0,
                vectors_for(number),
                {"collections": ["even" if number % 2 == 0 else "odd", "all"]},
            )
            for number, item in enumerate(items)
        ]
    )
    for collection, wanted in (("even", items[0::2]), ("odd", items[1::2]), ("all", items), ("none", [])):
        found = await store.nearest(Kind.ARTWORK, "rgb", vectors_for(0)["rgb"], 10, collection=collection)
        assert sorted(each.item for each in found) == sorted(wanted)


async def test_a_bad_vector_is_refused_and_nothing_is_written(store: Vectors) -> None:
    good: tuple[Kind, str, int, dict[str, Vector], dict[str, Any]] = (
        Kind.ARTWORK,
        made_item("good"),
        0,
        vectors_for(1),
        {},
    )
    for name, vector in (
        ("rgb", np.zeros(4, np.float32)),
        ("va", np.array([np.nan, 0.5], np.float32)),
        ("va", np.array([np.inf, 0.5], np.float32)),
        ("no-such-space", np.zeros(3, np.float32)),
    ):
        with pytest.raises(Lasting, match=name):
            await store.upsert([good, (Kind.ARTWORK, made_item("bad"), 0, {**vectors_for(2), name: vector}, {})])
    assert await store.count(Kind.ARTWORK) == 0
    with pytest.raises(Lasting):
        await store.nearest(Kind.ARTWORK, "rgb", np.zeros(5, np.float32), 1)
    with pytest.raises(Lasting):
        await store.nearest(Kind.ARTWORK, "no-such-space", np.zeros(5, np.float32), 1)


@pytest.mark.parametrize(
    "text", ["plain", 'quotes " and \\', "line\nbreak\ttab\x01", "日本語 🎻 é", "x" * 20_000, ""]
)
async def test_free_text_comes_back_as_it_was(store: Vectors, text: str) -> None:
    await store.upsert([(Kind.ARTWORK, made_item("t"), 0, vectors_for(1), {"caption": text, "title": text})])
    (found,) = await store.nearest(Kind.ARTWORK, "words-1", vectors_for(1)["words-1"], 1)
    assert found.payload["caption"] == text
    assert found.payload["title"] == text


async def test_cosine_prefers_the_like_and_euclidean_the_near(store: Vectors) -> None:
    base = vectors_for(1)
    near, like = made_item("near"), made_item("like")
    await store.upsert(
        [
            (
                Kind.ARTWORK,
                near,
                0,
                {**base, "rgb": np.array([1, 2, 3.5], np.float32), "va": np.array([0.5, 0.5])},
                {},
            ),
            (
                Kind.ARTWORK,
                like,
                0,
                {**base, "rgb": np.array([50, 100, 150], np.float32), "va": np.array([1, 1])},
                {},
            ),
        ]
    )
    by_rgb = await store.nearest(Kind.ARTWORK, "rgb", np.array([1, 2, 3], np.float32), 2)
    assert [found.item for found in by_rgb] == [like, near]
    by_va = await store.nearest(Kind.ARTWORK, "va", np.array([0.4, 0.4], np.float32), 2)
    assert [found.item for found in by_va] == [near, like]


async def test_a_new_space_is_filled_beside_and_switched_in_one_step_while_reads_go_on(
    store: Vectors, tmp_path: Path
) -> None:
    if not SERVER:
        # Local mode admits one client: the same client is given the new spaces.
        await store.close()
    newer = (*EMOTION_SPACES, EXTRA.model_copy(update={"name": "words-2", "dimension": 12}))
    old = store_with(SPACES, tmp_path / "qdrant")
    items = [made_item(f"{number}") for number in range(30)]
    await old.upsert([(Kind.ARTWORK, item, 0, vectors_for(number), {}) for number, item in enumerate(items)])
    await old.close()
    new = store_with(newer, tmp_path / "qdrant")
    await new.prepare()
    before = await new.behind_alias(Kind.ARTWORK)
    assert before != new.collection(Kind.ARTWORK)
    seen: list[int] = []
    ended = asyncio.Event()

    async def read() -> None:
        while not ended.is_set():
            seen.append(len(await new.nearest(Kind.ARTWORK, "rgb", vectors_for(0)["rgb"], 50)))

    reader = asyncio.create_task(read())
    for number, item in enumerate(items):
        await new.upsert([(Kind.ARTWORK, item, 0, vectors_for(number, newer), {})])
    await new.switch(Kind.ARTWORK)
    await asyncio.sleep(0.05)
    ended.set()
    await reader
    assert set(seen) == {30}
    assert await new.behind_alias(Kind.ARTWORK) == new.collection(Kind.ARTWORK)
    query = vectors_for(4, newer)["words-2"]
    assert (await new.nearest(Kind.ARTWORK, "words-2", query, 1))[0].item == items[4]
    # The takedown of an item reaches whatever collection is left.
    await new.remove(Kind.ARTWORK, items[4], 0)
    assert await new.count(Kind.ARTWORK) == 29
    await new.close()


@pytest.mark.skipif(SERVER is not None, reason="only the local mode admits one process")
async def test_a_folder_held_by_another_is_passing_trouble(store: Vectors, tmp_path: Path) -> None:
    second = Vectors(SPACES, folder=tmp_path / "qdrant")
    with pytest.raises(Passing, match="held"):
        await second.prepare()
    await second.close()


async def test_points_outlive_the_client(store: Vectors, tmp_path: Path) -> None:
    await store.upsert([(Kind.TRACK, made_item("t", Kind.TRACK), 2, vectors_for(1), {"caption": "kept"})])
    await store.close()
    again = store_with(SPACES, tmp_path / "qdrant")
    await again.prepare()
    assert await again.items(Kind.TRACK) == [(made_item("t", Kind.TRACK), 2)]
    await again.close()


async def test_a_server_that_is_away_is_passing_trouble() -> None:
    away = Vectors(SPACES, url="http://127.0.0.1:9")
    with pytest.raises(Passing, match="vector store"):
        await away.count(Kind.ARTWORK)
    await away.close()
