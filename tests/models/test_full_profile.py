"""All models of the full profile in one server, and a picture and a track through all its capabilities.

Every model of full.toml, MMVA's towers among them, at a tiny size with random weights, by its own folder; the weights
lie where a fetch puts published ones, and there are no stand-ins. The pipeline's own stages ask them in the
pipeline's order, then the match of the two is asked for, then every composer. What random networks say means nothing;
that each is reached, by the others and with their tensors, and that its words come back through all of it, does.

A random language model says no triples. So its last layer is solved (`tiny_words.teach`) to say them to the very
questions that the captions of this server lead to; the other layers stay as random as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from full_models import export, reading
from full_models.chat import Question, Writer
from full_models.export import Made
from full_models.mozarts_touch import INSTRUCTION
from full_models.score_emotion import Item
from PIL import Image
from tritonclient.utils import InferenceServerException

from infra.serving import triton
from promenade.profile import read_profile
from schemas.failures import Declined
from schemas.media import WHOLE, Kind, MediaFacts, digest_of, item_id
from schemas.profile import Profile
from schemas.records import CaptionBody, Catalogue, EmbedBody, Provenance, Result, Revision, ScoreBody, Stage, now
from tests.models import tiny_music, tiny_senses, tiny_words
from tests.models.serving_senses import FULL, copied, serve
from tests.models.tiny_senses import folder_of
from tests.serving_fixtures import Served
from workers import caption, embed, score
from workers.contract import Array, Job, StageWork, Tools
from workers.index import vectors_of
from workers.models import Models, unpack
from workers.pairing.similarity import UNITS, measure_for

# Nearly forty processes start, four of them with torch; on a machine that others use as well that takes minutes.
pytestmark = pytest.mark.timeout(1800)

WORDS = (
    "write_text",
    "caption_picture",
    "caption_sound",
    "score_emotion",
    "compose_music",
    "compose_mozarts_touch",
    "compose_mmva",
    "compose_edge",
)
TRIPLES = {
    Kind.ARTWORK: "RGB: (12, 34, 56) (78, 90, 11) (0, 0, 0) (213, 145, 167) (245, 255, 128)",
    Kind.TRACK: "RGB: (90, 11, 0) (12, 12, 12) (34, 34, 0) (56, 78, 90) (189, 201, 223)",
}
DESCRIPTION = "Drums and a fiddle play a fast dance."
SECONDS = 5.0
SETTINGS = {
    "PROMENADE_MODELS_DEVICE": "cpu",
    "PROMENADE_MODELS_PRECISION": "fp32",
    "PROMENADE_CAPTION_PICTURE_TOKENS": "10",
    "PROMENADE_CAPTION_PICTURE_CONTINUED": "4",
    "PROMENADE_CAPTION_SOUND_TOKENS": "10",
    "PROMENADE_CAPTION_SOUND_CONTINUED": "4",
    "PROMENADE_CAPTION_SOUND_CAPTIONER": "both",
    "PROMENADE_COMPOSE_MUSIC_STEPS": "2",
    "PROMENADE_COMPOSE_MUSIC_SOLVER": "fast",
    "PROMENADE_COMPOSE_MUSIC_CANDIDATES": "2",
    "PROMENADE_COMPOSE_MMVA_SEARCH": "descent",
}
"""Short answers and few steps; captions of sound by both captioners, so that the writer fuses them."""


class Client:
    """The server as the pipeline's stages are handed it."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One call; several go side by side."""
        with refusals():
            return await asyncio.to_thread(self._served.infer, model, inputs, outputs)

    async def stream(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, stall_seconds: float
    ) -> AsyncGenerator[dict[str, Array], None]:
        """One call that is answered in pieces."""
        from tritonclient.grpc import aio

        async def request() -> AsyncGenerator[dict[str, Any], None]:
            yield {"model_name": model, "inputs": self._served.tensors(inputs)}

        async with aio.InferenceServerClient(self._served.url) as client:
            with refusals():
                async for answer, error in client.stream_infer(request(), stream_timeout=stall_seconds):
                    if error is not None:
                        raise error
                    yield {name: array for name in outputs if (array := answer.as_numpy(name)) is not None}


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """A model's refusal as the pipeline's client tells it."""
    try:
        yield
    except InferenceServerException as error:
        if "invalid: " in str(error):
            raise Declined(str(error)) from None
        raise


@pytest.fixture(scope="module")
def weights(sense_weights: Path) -> Path:
    """The weights folder with all that the profile names, laid out as the fetch does."""
    root = sense_weights
    tiny_words.talkative(tiny_words.writer(folder_of(root, "Qwen/Qwen3-4B")))
    tiny_words.talkative(tiny_words.qwen_pictures(folder_of(root, "Qwen/Qwen2.5-VL-7B-Instruct")))
    tiny_words.talkative(tiny_words.qwen_sounds(folder_of(root, "Qwen/Qwen2-Audio-7B-Instruct")))
    made = tiny_words.music_captioner(root / "music captioner")
    for name, source in zip(("seungheondoh/lp-music-caps", "facebook/bart-base"), made, strict=True):
        shutil.copytree(source, folder_of(root, name), dirs_exist_ok=True)
    tiny_music.save(folder_of(root, "cvssp/audioldm2"), folder_of(root, "art2mus-aligner"), vector=1024)
    return root


@pytest.fixture(scope="module")
def served(
    weights: Path,
    exported_senses: tuple[Path, list[Made]],
    sense_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Served, Profile]]:
    """The server of every model, and the profile as whoever stands beside that repository reads it."""
    folder = tmp_path_factory.mktemp("profile")
    shutil.copytree(exported_senses[0].parent, folder / "model_repository", copy_function=os.link)
    repository = folder / "model_repository" / "full"
    words = copied(folder / "words", WORDS)
    for name in WORDS:
        (words / name).rename(repository / name)
    export.take_edge_files(repository, FULL.with_name("edge"))
    shutil.copy(FULL.with_suffix(".toml"), repository.with_suffix(".toml"))
    with serve(repository, folder, {**sense_environment, **SETTINGS}, seconds=400) as running:
        yield running, read_profile(repository.with_suffix(".toml"))


def picture() -> bytes:
    """A picture of coarse colours, as ingest keeps it."""
    coarse = np.random.default_rng(5).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize((240, 160), Image.Resampling.BICUBIC).save(content, "JPEG")
    return content.getvalue()


def track(seconds: float = 12.0) -> bytes:
    """Falling tones with noise, as ingest keeps them."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * (440 - 12 * time) * time) * (time % 0.5 < 0.4)
    wave += np.random.default_rng(6).normal(0, 0.02, len(time))
    content = io.BytesIO()
    soundfile.write(content, wave.astype(np.float32), 16_000, format="FLAC")
    return content.getvalue()


class Traveller:
    """An item on its way: its record, as the stages are handed it."""

    def __init__(self, kind: Kind, content: bytes, tools: Tools) -> None:
        self.kind, self._content, self._tools = kind, content, tools
        self.results: dict[Stage, Result] = {}
        self.revision = Revision(
            item=item_id(kind, digest_of(content)),
            kind=kind,
            generation=0,
            revision=1,
            sequence=0,
            media=MediaFacts(format="JPEG" if kind is Kind.ARTWORK else "FLAC", byte_count=len(content)),
            catalogue=Catalogue(title="Harbour"),
            collections=("a",),
            made=now(),
        )

    async def _load(self) -> bytes:
        return self._content

    async def through(self, stage: StageWork) -> Any:
        """The stage's body for this item, kept with its provenance as the stream keeps it."""
        profile = self._tools.profile
        job = Job(self.revision, {need: self.results[need] for need in stage.needs}, self._load)
        (body,) = await stage.work([job], self._tools)
        assert not isinstance(body, Exception), body
        models = {name: profile.version(name) for name in stage.models(self.kind, profile)}
        self.results[stage.stage] = Result(
            item=self.revision.item,
            generation=0,
            revision=1,
            digest="0" * 32,
            provenance=Provenance(models=models, profile=profile.name, made=now(), seconds=0),
            body=body,
        )
        return body


def teach(weights: Path, said: Mapping[Kind, CaptionBody]) -> None:
    """Solve the writer's last layer for the questions that these captions lead to."""
    folder = folder_of(weights, "Qwen/Qwen3-4B")
    speaker = Writer.load(folder, dtype=torch.float32, device="cpu", batch=1)
    lessons = [(Question(Item.of(said[kind].texts, kind.value).conversation()), TRIPLES[kind]) for kind in Kind]
    whole = " ".join(said[Kind.ARTWORK].texts[WHOLE].split())
    asked = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": f"The picture: {whole}"}]
    tiny_words.teach(speaker, [*lessons, (Question(asked), DESCRIPTION)])
    speaker.model.save_pretrained(folder)


async def test_a_picture_and_a_track_go_through_every_model(served: tuple[Served, Profile], weights: Path) -> None:
    running, profile = served
    assert set(running.models) == set(profile.models), "every model of the profile, and no other"
    assert triton.unhealthy_models(running.process, running.ports) == []
    tools = Tools(Client(running), profile)
    travellers = {
        kind: Traveller(kind, content, tools) for kind, content in ((Kind.ARTWORK, picture()), (Kind.TRACK, track()))
    }

    # Captions, through the gates.
    said: dict[Kind, CaptionBody] = {}
    for kind, each in travellers.items():
        said[kind] = await each.through(caption.STAGE)
        assert all(text.strip() for text in said[kind].texts) and all(said[kind].measurements)
        gates = said[kind].gates
        assert gates is not None and all(1 <= len(part.attempts) <= 4 for part in gates.parts)
        scored = {name for part in gates.parts for attempt in part.attempts for name in attempt.scores.parts}
        assert scored == ({"clip_score", "pac_score"} if kind is Kind.ARTWORK else {"rouge_1", "bert_score"})
    assert len(said[Kind.TRACK].phrases[WHOLE]) > 1, "several texts were fused"

    # What they feel like: the writer is taught what to answer, and loaded anew.
    teach(weights, said)
    await asyncio.to_thread(triton.heal, running.ports, "write_text", 200.0)
    felt: dict[Kind, ScoreBody] = {}
    mmva = f"1@{tiny_senses.REVISION}"
    for kind, each in travellers.items():
        felt[kind] = await each.through(score.STAGE)
        numbers = [int(word) for word in "".join(c if c.isdigit() else " " for c in TRIPLES[kind]).split()]
        assert np.asarray(felt[kind].rgb).astype(int).flatten().tolist() == numbers
        assert felt[kind].evidence[WHOLE][1]["reading"] == f"mmva@{tiny_senses.REVISION}"
        made_by = each.results[Stage.SCORE].provenance.models
        assert made_by == {"score_emotion": mmva, f"va_{'picture' if kind is Kind.ARTWORK else 'sound'}": mmva}
        texts = np.array([[text.encode()] for text in said[kind].texts], dtype=object)
        read = running.infer("va_text", {"TEXT": texts}, ["VA"])["VA"]
        np.testing.assert_allclose(felt[kind].va_scored, read, atol=1e-4)
        np.testing.assert_allclose(felt[kind].va, (read + np.asarray(felt[kind].va_medium)) / 2, atol=1e-4)

    # Both joint spaces.
    for each in travellers.values():
        body: EmbedBody = await each.through(embed.STAGE)
        assert set(body.vectors) == {"imagebind-1", "imagebind-1-caption"}
        for packed in body.parts.values():
            vectors = unpack(packed, rows=5)
            assert vectors.shape == (5, 1024)
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    indexed = {kind: vectors_of(kind, each.results, profile) for kind, each in travellers.items()}

    # The match: the served score is the one that pairing compares by, and the learned one stands beside it.
    sigma = 0.34
    one, two = (indexed[kind]["va"] for kind in Kind)
    embeddings = [
        running.infer(model, inputs, ["EMBEDDING"])["EMBEDDING"][0]
        for model, inputs in (
            ("va_picture", {"IMAGE": np.array([[picture()]], dtype=object), "MEASUREMENTS": texts[:1]}),
            ("va_sound", heard(track())),
            ("va_text", {"TEXT": texts[WHOLE:]}),
        )
    ]
    asked = {
        "ARTWORK_VA": np.asarray([one], np.float32),
        "TRACK_VA": np.asarray([two], np.float32),
        "SIGMA": np.full((1, 1), sigma, np.float32),
        "EMBEDDINGS": np.asarray([embeddings], np.float32),
    }
    match = running.infer("match_va", asked, ["SCORE", "LEARNED"])
    measure = measure_for("euclidean", sigma)
    paired = measure.paired(measure.prepare(np.asarray([one])), measure.prepare(np.asarray([two])))
    assert match["SCORE"][0, 0] == pytest.approx(paired[0] / UNITS, abs=1e-5)
    assert 0 < match["LEARNED"][0, 0] < 1

    # Every composer.
    models = Models(tools.inference, profile)
    reports: dict[str, Any] = {}
    for name, model in profile.served_composers().items():
        chunks = [
            chunk
            async for chunk in models.compose(
                model,
                felt[Kind.ARTWORK],
                said[Kind.ARTWORK],
                indexed[Kind.ARTWORK]["imagebind-1"],
                seconds=SECONDS,
                seed=3,
                wishes={},
                live=True,
                stall_seconds=120,
            )
        ]
        samples = np.concatenate([chunk.samples for chunk in chunks])
        assert abs(len(samples) / 48_000 - SECONDS) < (2 if name == "edge" else 0.01), name
        assert np.isfinite(samples).all() and 0 < np.abs(samples).max() <= 1
        reports[name] = chunks[-1].report
        declares = profile.models[model].declares
        declared = await models.declared(model) if declares else profile.version(model)
        assert reports[name]["version"] == declared, name
        assert declared.startswith(profile.version(model)) and declares == (declared != profile.version(model))
    assert len(reports["art2mus"]["scores"]) == 2 and reports["art2mus"]["tokens"] == 4
    assert reports["mozarts-touch"]["prompt"] == DESCRIPTION
    assert reports["mmva"]["search"] == "descent" and reports["mmva"]["distance"] >= 0
    assert json.dumps(reports), "reports are plain"
    assert triton.unhealthy_models(running.process, running.ports) == [], "no model died on the way"
    assert set(reading.TOWERS) <= set(running.models)


def heard(rendition: bytes) -> dict[str, Array]:
    """The whole track as va_sound takes it."""
    samples, _ = soundfile.read(io.BytesIO(rendition), dtype="float32")
    return {
        "SOUND": samples[None, None],
        "LENGTHS": np.array([[len(samples)]], np.int32),
        "MEASUREMENTS": np.array([[b""]], dtype=object),
    }
