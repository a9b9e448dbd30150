"""Two joint spaces side by side: media in one, captions in the other, and ArtSound's four strategies over them.

The full profile's file is read as it is; the model server is a stand-in whose vectors say which model was asked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from promenade.profile import read_profile
from promenade.settings import CLONE
from schemas.media import Kind, digest_of, item_id
from schemas.profile import Profile
from schemas.records import CaptionBody, EmbedBody, MediaFacts, Provenance, Result, Revision, ScoreBody, Stage, now
from tests.made_world import SOUND, picture
from workers.contract import Array, Job, Tools
from workers.embed import STAGE
from workers.models import pack, unpack
from workers.pairing.spaces import item_vectors, pairing_space

FULL = read_profile(CLONE / "model_repository" / "full.toml")
EDGE = read_profile(CLONE / "model_repository" / "edge.toml")
CONTENT = {Kind.ARTWORK: picture(), Kind.TRACK: SOUND}
MODELS = {"embed_picture": 1.0, "embed_sound": 2.0, "embed_text": 3.0}


class ToldApart:
    """A model server whose vectors begin with the number of the model that was asked; it notes what it was sent."""

    def __init__(self) -> None:
        self.sent: dict[str, Mapping[str, Array]] = {}

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.sent[model] = inputs
        vectors = np.zeros((len(inputs["TEXT"]), 1024), np.float32)
        vectors[:, 0] = MODELS[model]
        vectors[:, 1] = np.arange(len(vectors))
        return {"VECTOR": vectors}

    def stream(self, *_: Any, **__: Any) -> AsyncGenerator[dict[str, Array], None]:
        raise AssertionError("embedding streams nothing")


def result(item: str, body: Any) -> Result:
    provenance = Provenance(models={}, profile="made", made=now(), seconds=0)
    return Result(item=item, generation=0, revision=1, digest="0" * 32, provenance=provenance, body=body)


def job(kind: Kind) -> Job:
    """A captioned item whose rendition is at hand."""
    content = CONTENT[kind]
    item = item_id(kind, digest_of(content))
    captions = CaptionBody.model_validate(
        {
            "texts": tuple(f"words {number}" for number in range(5)),
            "phrases": ((),) * 5,
            "measurements": ({},) * 5,
            "tag_vector": pack(np.zeros(4, np.float32)),
        }
    )
    facts = MediaFacts.model_construct()
    revision = Revision.model_construct(
        item=item, kind=kind, generation=0, revision=1, media=facts, collections=("a",)
    )

    async def load() -> bytes:
        return content

    return Job(revision, {Stage.CAPTION: result(item, captions)}, load)


async def embedded(kind: Kind, profile: Profile) -> tuple[EmbedBody, ToldApart]:
    server = ToldApart()
    (outcome,) = await STAGE.work([job(kind)], Tools(server, profile))
    assert isinstance(outcome, EmbedBody), outcome
    return outcome, server


@pytest.mark.parametrize(("kind", "model"), [(Kind.ARTWORK, "embed_picture"), (Kind.TRACK, "embed_sound")])
async def test_media_fill_the_raw_space_and_captions_the_other(kind: Kind, model: str) -> None:
    body, server = await embedded(kind, FULL)
    assert set(body.vectors) == set(body.parts) == {"imagebind-1", "imagebind-1-caption"}
    for space, maker in (("imagebind-1", model), ("imagebind-1-caption", "embed_text")):
        parts = unpack(body.parts[space], rows=5)
        assert parts[:, 0].tolist() == [MODELS[maker]] * 5
        assert unpack(body.vectors[space]).tolist() == parts[4].tolist(), "the item's vector is the whole's"
    assert [value.decode() for value in server.sent["embed_text"]["TEXT"][:, 0]] == [f"words {n}" for n in range(5)]
    medium = server.sent[model]
    seen = medium["IMAGE"][:, 0] if kind is Kind.ARTWORK else medium["LENGTHS"][:, 0]
    assert all(seen), "the medium itself is looked at"
    assert not any(medium["TEXT"][:, 0]), "not its words"


async def test_the_edge_profile_has_its_one_space_as_before() -> None:
    body, server = await embedded(Kind.ARTWORK, EDGE)
    assert set(body.vectors) == {"caption-minilm-1"}
    assert set(server.sent) == {"embed_picture"}
    assert STAGE.inputs(job(Kind.ARTWORK), EDGE) == {}, "results that are there stay valid"


@pytest.mark.parametrize("artwork", ["raw", "caption"])
@pytest.mark.parametrize("track", ["raw", "caption"])
async def test_all_four_strategies_find_their_vectors(artwork: str, track: str) -> None:
    space = pairing_space(f"imagebind-1 artwork {artwork} x track {track}")
    asked = {Kind.ARTWORK: artwork, Kind.TRACK: track}
    for kind in Kind:
        body, _ = await embedded(kind, FULL)
        zero = ((0.0, 0.0, 0.0),) * 5
        va = ((0.5, 0.5),) * 5
        score = ScoreBody(rgb=zero, va=va, va_medium=va, va_scored=va, evidence=((),) * 5)
        item = job(kind).item
        vector = space.vector(kind, item_vectors(result(item, score), result(item, body)))
        assert vector is not None and vector.shape == (1024,)
        medium = "embed_picture" if kind is Kind.ARTWORK else "embed_sound"
        assert vector[0] == MODELS[medium if asked[kind] == "raw" else "embed_text"]


def test_a_changed_text_model_makes_both_spaces_anew() -> None:
    changed = FULL.model_copy(
        update={
            "models": {**FULL.models, "embed_text": FULL.models["embed_text"].model_copy(update={"version": "9"})}
        }
    )
    before, after = (STAGE.inputs(job(Kind.TRACK), profile) for profile in (FULL, changed))
    assert before != after


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"raw_space": "imagebind-1-caption"}, "leave raw_space out"),
        ({"raw_space": "imagebind-9"}, "not among the spaces of both kinds"),
        ({"raw_space": "picture-tags-1"}, "not among the spaces of both kinds"),
        (
            {"models": {**FULL.models, "embed_sound": {"version": "1", "reads": ["text"]}}},
            "embed_sound does not read",
        ),
        ({"models": {name: each for name, each in FULL.models.items() if name != "embed_text"}}, "embed_text"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Profile.model_validate({**FULL.model_dump(), **change})
