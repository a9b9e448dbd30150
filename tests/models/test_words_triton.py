"""The models of words served by the real CPU model server, from the repository's own folders, with tiny weights.

What it answers is what the same folders answer in one process; requests that come together are answered as alone;
what is refused says so first.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models.local import LocalModels

from schemas.media import Kind
from schemas.profile import Profile
from schemas.records import Catalogue
from tests.models import tiny_words
from tests.models.serving_senses import serve
from tests.models.test_words_captions import (
    REPOSITORY,
    TEXTS,
    emotion_rows,
    jpeg,
    lessons,
    picture_rows,
    place,
    place_va_text,
    sound,
    sound_rows,
    taught_writer,
)
from tests.serving_fixtures import Served
from workers.media.parts import SoundPart
from workers.models import Models, Part

CAPTION = ("TEXT", "PHRASES")
EMOTION = ("RGB", "VA", "EVIDENCE")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, LocalModels]]:
    """The server over tiny weights, and the same repository in this process."""
    root = tmp_path_factory.mktemp("words")
    weights, repository = root / "weights", root / "repository"
    tiny_words.writer(weights / "writer")
    tiny_words.qwen_pictures(weights / "qwen-pictures")
    tiny_words.llava_pictures(weights / "llava-pictures")
    tiny_words.qwen_sounds(weights / "qwen-sounds")
    tiny_words.music_captioner(weights / "chunks")
    place(repository, "write_text", weights=str(taught_writer(weights, weights / "taught", lessons())))
    place(repository, "score_emotion", attempts="2")
    place_va_text(repository)
    short = {"tokens": "12", "continued": "8", "device": "cpu"}
    place(repository, "caption_picture", weights=str(weights / "qwen-pictures"), **short)
    _renamed(repository, "caption_picture", "caption_llava", str(weights / "llava-pictures"))
    place(
        repository,
        "caption_sound",
        captioner="both",
        weights=str(weights / "qwen-sounds"),
        weights_chunks=str(weights / "chunks" / "checkpoint"),
        weights_words=str(weights / "chunks" / "words"),
        **short,
    )
    with serve(repository, root, {"PROMENADE_MODELS_DEVICE": "cpu"}) as running:
        yield running, LocalModels(repository)


def _renamed(repository: Path, name: str, other: str, weights: str) -> None:
    """The same folder under another name, with the other captioner."""
    place(repository / "made", name, captioner="llava-1.6", weights=weights, tokens="12", continued="8", device="cpu")
    (repository / "made" / name).rename(repository / other)
    (repository / "made").rmdir()
    path = repository / other / "config.pbtxt"
    path.write_text(path.read_text().replace(f'name: "{name}"', f'name: "{other}"'))


@pytest.mark.parametrize("model", ["caption_picture", "caption_llava"])
def test_pictures_are_captioned_as_in_one_process(served: tuple[Served, LocalModels], model: str) -> None:
    running, local = served
    rows = picture_rows(jpeg("red"), jpeg("blue", 40, 120), jpeg("green", 90, 90), catalogue='{"title": "Harbour"}')
    made = running.infer(model, rows, CAPTION)
    wanted = local.infer(model, rows)
    assert made["TEXT"].tolist() == wanted["TEXT"].tolist()
    assert made["PHRASES"].tolist() == wanted["PHRASES"].tolist()
    assert len(set(made["TEXT"][:, 0])) == 3


def test_requests_that_come_together_are_answered_as_alone(served: tuple[Served, LocalModels]) -> None:
    running, _ = served
    asked = [picture_rows(jpeg(colour, width)) for colour in ("red", "green", "blue") for width in (50, 80, 130)]
    alone = [running.infer("caption_picture", rows, CAPTION)["TEXT"][0, 0] for rows in asked]

    def ask(rows: dict[str, Any]) -> Any:
        return running.infer("caption_picture", rows, CAPTION)["TEXT"][0, 0]

    with ThreadPoolExecutor(len(asked)) as pool:
        assert list(pool.map(ask, asked)) == alone


def test_a_track_is_heard_over_its_windows_and_fused_by_the_writer(served: tuple[Served, LocalModels]) -> None:
    running, local = served
    rows = sound_rows(*sound(12.0, 4.0))
    made = running.infer("caption_sound", rows, CAPTION)
    wanted = local.infer("caption_sound", rows)
    assert made["TEXT"].tolist() == wanted["TEXT"].tolist()
    assert made["PHRASES"].tolist() == wanted["PHRASES"].tolist()
    # Two windows by Qwen2-Audio; chunks of 10 s: two of the first window, one of the second.
    assert len(json.loads(made["PHRASES"][0, 0])["phrases"]) == 5


def test_five_colours_are_read_at_the_second_try_and_va_comes_from_va_text(
    served: tuple[Served, LocalModels],
) -> None:
    running, local = served
    made = running.infer("score_emotion", emotion_rows("artwork"), EMOTION)
    assert made["RGB"].tolist() == [[[1, 2, 3], [40, 50, 60], [7, 8, 9], [100, 200, 250], [255, 0, 12]]]
    assert np.array_equal(made["VA"], local.infer("score_emotion", emotion_rows("artwork"))["VA"])
    assert json.loads(made["EVIDENCE"][0, 4])[0]["asked"] == 2


class Client:
    """The server as the pipeline's stages are handed it."""

    def __init__(self, running: Served) -> None:
        self._running = running

    async def infer(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """One call."""
        return self._running.infer(model, inputs, outputs)


async def test_the_stages_read_what_the_models_answer(served: tuple[Served, LocalModels]) -> None:
    running, _ = served
    profile = Profile.model_validate(tomllib.loads((REPOSITORY.parent / "full.toml").read_text()))
    models = Models(Client(running), profile)  # type: ignore[arg-type]
    catalogue = Catalogue(title="Harbour")
    assert models.reads_media("caption_picture", "caption_sound")
    parts: list[Part] = [jpeg(colour) for colour in ("red", "green", "blue", "white", "grey")]
    seen = await models.caption(Kind.ARTWORK, parts, ["Describe."] * 5, catalogue, [{}] * 5)
    windows, lengths = sound(12.0, 4.0)
    heard = await models.caption(
        Kind.TRACK, [SoundPart(windows[0], lengths[0])], ["Describe."], catalogue, [{}], places=[4]
    )
    assert len(seen) == 5 and all(each.text and each.ending for each in (*seen, *heard))
    assert all(each.phrases == () for each in seen) and len(heard[0].phrases) == 5
    rgb, va, evidence = await models.score_emotion(Kind.ARTWORK, TEXTS, [()] * 5, [{}] * 5)
    assert rgb.shape == (5, 3) and va.shape == (5, 2)
    assert evidence[4][0]["asked"] == 2
    with pytest.raises(Exception, match=r"invalid: .*asked 2 times"):
        await models.score_emotion(Kind.TRACK, TEXTS, [()] * 5, [{}] * 5)


def test_what_cannot_be_read_is_refused_for_good(served: tuple[Served, LocalModels]) -> None:
    from tritonclient.utils import InferenceServerException

    running, _ = served
    with pytest.raises(InferenceServerException, match=r"invalid: .*asked 2 times.*no triples"):
        running.infer("score_emotion", emotion_rows("track"), EMOTION)
    with pytest.raises(InferenceServerException, match=r"invalid: .*cannot be decoded"):
        running.infer("caption_picture", picture_rows(b"no picture"), CAPTION)
    with pytest.raises(InferenceServerException, match=r"invalid: .*no sound"):
        windows, lengths = sound(1.0)
        running.infer("caption_sound", sound_rows(windows, lengths * 0), CAPTION)
    # And the server goes on.
    assert running.infer("caption_picture", picture_rows(jpeg("red")), CAPTION)["TEXT"][0, 0]
