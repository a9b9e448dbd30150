"""The vector store: Qdrant, as a server or in this process's own folder (local mode), with the same calls.

Two collections, one for each kind, each with one named vector for every space, behind an alias (`artworks`,
`tracks`). A changed set of spaces makes a new collection beside the old one; the alias is switched in one step
once it is filled. A point is one generation of one item; its id is made from both, so that removing a withdrawn
generation can never remove a later one. Local mode admits one process, and its calls run in one thread.
"""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from infra.metrics import VECTOR_STORE_SECONDS
from schemas.failures import Lasting, Passing
from schemas.media import Kind
from schemas.records import inputs_digest
from schemas.spaces import Space

PART: Final = "vector store"
T = TypeVar("T")
Vector = np.ndarray[Any, np.dtype[np.float32]]

ALIASES: Final = {Kind.ARTWORK: "artworks", Kind.TRACK: "tracks"}
_NAMESPACE: Final = uuid.UUID("6a2f1d1e-7a52-4c7e-9d2c-0d6f6f0f9a11")
_DISTANCES: Final = {"cosine": models.Distance.COSINE, "euclidean": models.Distance.EUCLID}


@dataclass(frozen=True, slots=True)
class Found:
    """One neighbour: item id, its similarity or distance in the space asked, its payload."""

    item: str
    score: float
    payload: dict[str, Any]


def point_id(item: str, generation: int) -> str:
    """The id of the point of one generation of an item."""
    return str(uuid.uuid5(_NAMESPACE, f"{item}@{generation}"))


class Vectors:
    """Qdrant.

    Args:
        spaces: what each collection holds, by kind.
        url: a server; or
        folder: a folder of this process's own (local mode).
        api_key: the server's key, where it asks for one.

    Raises:
        Passing: the folder is held by another process.
    """

    def __init__(
        self,
        spaces: Sequence[Space],
        *,
        url: str | None = None,
        folder: Path | None = None,
        api_key: str | None = None,
    ) -> None:
        self._spaces = {kind: [space for space in spaces if kind in space.kinds] for kind in Kind}
        self._url, self._folder, self._api_key = url, folder, api_key
        self._client: QdrantClient | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vectors")

    def _opened(self) -> QdrantClient:
        if self._client is None:
            if self._url is not None:
                self._client = QdrantClient(
                    url=self._url, api_key=self._api_key, timeout=30, check_compatibility=False
                )
            else:
                assert self._folder is not None
                self._folder.mkdir(parents=True, exist_ok=True)
                try:
                    self._client = QdrantClient(path=str(self._folder))
                except RuntimeError as error:
                    raise Passing(PART, f"the folder is held by another process ({error})") from None
        return self._client

    async def close(self) -> None:
        """Close the client and its thread; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True

        def work() -> None:
            if self._client is not None:
                self._client.close()
                self._client = None

        await asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._thread.shutdown(wait=True)

    async def prepare(self) -> None:
        """Make the collections and aliases that are missing. Existing ones with the same spaces stay."""

        def work() -> None:
            client = self._opened()
            aliases = {each.alias_name: each.collection_name for each in client.get_aliases().aliases}
            for kind in Kind:
                name = self.collection(kind)
                if not client.collection_exists(name):
                    client.create_collection(
                        name,
                        vectors_config={
                            space.name: models.VectorParams(size=space.dimension, distance=_DISTANCES[space.distance])
                            for space in self._spaces[kind]
                        },
                    )
                if ALIASES[kind] not in aliases:
                    self._switch(client, kind, name, None)

        await self._run("prepare", work)

    def collection(self, kind: Kind) -> str:
        """Name of the collection that holds exactly these spaces: a hash of them is part of it."""
        described = [space.model_dump(include={"name", "dimension", "distance"}) for space in self._spaces[kind]]
        return f"{ALIASES[kind]}-{inputs_digest(described)[:8]}"

    @staticmethod
    def _switch(client: QdrantClient, kind: Kind, to: str, away_from: str | None) -> None:
        operations: list[Any] = []
        if away_from is not None:
            operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIASES[kind])))
        operations.append(
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=to, alias_name=ALIASES[kind]))
        )
        client.update_collection_aliases(change_aliases_operations=operations)

    async def behind_alias(self, kind: Kind) -> str | None:
        """The collection that the alias points to now."""

        def work() -> str | None:
            aliases = self._opened().get_aliases().aliases
            return next((each.collection_name for each in aliases if each.alias_name == ALIASES[kind]), None)

        return await self._run("aliases", work)

    async def switch(self, kind: Kind) -> None:
        """Point the alias to the collection of the present spaces and drop the one before it, in one step."""

        def work() -> None:
            client = self._opened()
            before = next(
                (each.collection_name for each in client.get_aliases().aliases if each.alias_name == ALIASES[kind]),
                None,
            )
            target = self.collection(kind)
            if before != target:
                self._switch(client, kind, target, before)
                if before is not None:
                    client.delete_collection(before)

        await self._run("switch", work)

    async def upsert(self, points: Sequence[tuple[Kind, str, int, Mapping[str, Vector], Mapping[str, Any]]]) -> None:
        """Write points: (kind, item, generation, vector by space, payload) each.

        Raises:
            Lasting: a vector has another dimension than its space, or is not finite.
        """
        by_kind: dict[Kind, list[models.PointStruct]] = {}
        for kind, item, generation, vectors, payload in points:
            known = {space.name: space for space in self._spaces[kind]}
            for name, vector in vectors.items():
                if name not in known:
                    raise Lasting(f"there is no space {name!r} for {kind.value}s.", "See the profile file.")
                if vector.shape != (known[name].dimension,) or not np.isfinite(vector).all():
                    raise Lasting(
                        f"the vector for {name} has shape {vector.shape} or is not finite; "
                        f"{known[name].dimension} finite numbers are wanted.",
                        "The model that made it is at fault.",
                    )
            by_kind.setdefault(kind, []).append(
                models.PointStruct(
                    id=point_id(item, generation),
                    vector={name: vector.tolist() for name, vector in vectors.items()},
                    payload={**payload, "item": item, "generation": generation},
                )
            )

        def work() -> None:
            client = self._opened()
            for kind, structs in by_kind.items():
                client.upsert(self.collection(kind), structs, wait=True)

        await self._run("upsert", work)

    async def remove(self, kind: Kind, item: str, generation: int) -> None:
        """Remove the points of an item's generations up to this one, from every collection of its kind."""

        def work() -> None:
            client = self._opened()
            chosen = models.Filter(
                must=[
                    models.FieldCondition(key="item", match=models.MatchValue(value=item)),
                    models.FieldCondition(key="generation", range=models.Range(lte=generation)),
                ]
            )
            for described in client.get_collections().collections:
                if described.name.startswith(ALIASES[kind] + "-"):
                    client.delete(described.name, models.FilterSelector(filter=chosen), wait=True)

        await self._run("remove", work)

    async def nearest(
        self, kind: Kind, space: str, vector: Vector, limit: int, *, collection: str | None = None
    ) -> list[Found]:
        """The nearest items of a kind in a space, best first, optionally within one collection of people's.

        Raises:
            Lasting: unknown space or wrong dimension.
        """
        known = {each.name: each for each in self._spaces[kind]}
        if space not in known or vector.shape != (known[space].dimension,):
            raise Lasting(f"no space {space!r} of dimension {vector.shape} for {kind.value}s.", "")

        def work() -> list[Found]:
            chosen = None
            if collection is not None:
                chosen = models.Filter(
                    must=[models.FieldCondition(key="collections", match=models.MatchValue(value=collection))]
                )
            answer = self._opened().query_points(
                ALIASES[kind],
                query=vector.tolist(),
                using=space,
                limit=limit,
                query_filter=chosen,
                with_payload=True,
            )
            return [
                Found(str((each.payload or {}).get("item")), float(each.score), dict(each.payload or {}))
                for each in answer.points
            ]

        return await self._run("nearest", work)

    async def sample(
        self, kind: Kind, space: str, most: int, *, collection: str | None = None, without: str | None = None
    ) -> Vector:
        """Vectors of random items of a kind in a space, of all items where there are no more than `most`.

        Args:
            kind, space: of the vectors; of a space compared by cosine the store keeps them at length 1.
            most: so many items at most, each once.
            collection: only items of this collection of people's.
            without: an item to leave out.

        Returns:
            [<= most, dimension] float32, in no order; [0, dimension] where no item has a vector there.

        Raises:
            Lasting: unknown space.
        """
        known = {each.name: each for each in self._spaces[kind]}
        if space not in known:
            raise Lasting(f"no space {space!r} for {kind.value}s.", "")

        def work() -> Vector:
            must = [] if collection is None else [("collections", collection)]
            must_not = [] if without is None else [("item", without)]
            chosen = models.Filter(
                **{
                    name: [
                        models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in fields
                    ]
                    for name, fields in (("must", must), ("must_not", must_not))
                }
            )
            answer = self._opened().query_points(
                ALIASES[kind],
                query=models.SampleQuery(sample=models.Sample.RANDOM),
                limit=most,
                query_filter=chosen,
                with_payload=False,
                with_vectors=[space],
            )
            # A point may lack a vector in a space.
            found = [each.vector[space] for each in answer.points if isinstance(each.vector, dict) and each.vector]
            return np.asarray(found, np.float32).reshape(len(found), known[space].dimension)

        return await self._run("sample", work)

    async def fetch(self, kind: Kind, item: str, generation: int) -> dict[str, Vector] | None:
        """All vectors of one point by space, or None."""

        def work() -> dict[str, Vector] | None:
            found = self._opened().retrieve(self.collection(kind), [point_id(item, generation)], with_vectors=True)
            if not found:
                return None
            vectors = found[0].vector
            assert isinstance(vectors, dict)
            return {name: np.asarray(vector, np.float32) for name, vector in vectors.items()}

        return await self._run("fetch", work)

    async def count(self, kind: Kind) -> int:
        """How many points a kind has."""
        return await self._run("count", lambda: self._opened().count(self.collection(kind), exact=True).count)

    async def items(self, kind: Kind) -> list[tuple[str, int]]:
        """(item, generation) of every point of a kind, in no order."""

        def work() -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = []
            offset: Any = None
            while True:
                points, offset = self._opened().scroll(
                    self.collection(kind), limit=1000, offset=offset, with_payload=["item", "generation"]
                )
                for point in points:
                    payload = point.payload or {}
                    found.append((str(payload["item"]), int(payload["generation"])))
                if offset is None:
                    return found

        return await self._run("scroll", work)

    async def _run(self, operation: str, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with warnings.catch_warnings():
                # Local mode warns above 20,000 points that a server would be faster; the deployment guide says so.
                warnings.simplefilter("ignore")
                return work()

        try:
            with VECTOR_STORE_SECONDS.labels(operation).time():
                return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        except UnexpectedResponse as error:
            if (
                error.status_code is not None
                and 400 <= error.status_code < 500
                and error.status_code
                not in (
                    401,
                    403,
                    408,
                    429,
                )
            ):
                raise Lasting(f"the vector store refuses it: {error.reason_phrase}.", "") from None
            raise Passing(PART, f"answered {error.status_code} {error.reason_phrase}") from None
        except (ResponseHandlingException, httpx.HTTPError, OSError) as error:
            raise Passing(PART, f"{self._url or 'local folder'} does not answer ({type(error).__name__})") from None
