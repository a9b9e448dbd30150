"""Art2Mus as it is served: text alone beside the stock pipeline, the picture's say, candidates, finished sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AudioLDM2Pipeline
from edge_models.music.serving import DECLARE, declaration_asked
from edge_models.music.turns import Stopped
from edge_models.triton_model import Invalid, strings
from full_models.art2mus import Art2Mus, Art2MusModel, OneThread
from full_models.music_wishes import FIXED_PROMPT, read
from full_models.weights import BadChoice, Choices, MissingWeights

from networks.audioldm2 import AudioLDM2
from tests.models import tiny_music
from tests.models.tiny_music import CAPTION, VECTOR, picture, question

RATE = 16_000
PARAMETERS = {"version": "1", "precision": "fp32", "device": "cpu", "steps": "3", "candidates": "1", "solver": "fast"}


def nobody(model: str, inputs: Mapping[str, Any], outputs: Any) -> dict[str, Any]:
    raise AssertionError(f"{model} is not asked")


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return tiny_music.parts()


@pytest.fixture(scope="module")
def art2mus(parts: dict[str, Any]) -> Art2Mus:
    return Art2Mus(AudioLDM2(**parts), tiny_music.aligner(), nobody)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_music.weights(tmp_path_factory.mktemp("weights"))


def how(**other: Any) -> dict[str, Any]:
    usual = {"conditioning": "text", "prompt": CAPTION, "negative": "low quality", "guidance": 3.5, "steps": 3}
    return {**usual, "solver": "ddim", "candidates": 1, **other}


def sound(
    art2mus: Art2Mus, tensors: Mapping[str, Any], told: dict[str, Any] | None = None, **other: Any
) -> np.ndarray[Any, Any]:
    wanted, _ = read(tensors)
    return np.concatenate(list(art2mus.pieces(wanted, how(**other), lambda: None, {} if told is None else told)))


# -- what is composed --------------------------------------------------------------------------------------


def test_text_alone_is_the_stock_pipeline_given_the_same_embeddings_and_seed(
    art2mus: Art2Mus, parts: dict[str, Any]
) -> None:
    stock = AudioLDM2Pipeline(**parts, feature_extractor=None)
    stock.set_progress_bar_config(disable=True)
    texts = art2mus.model.encode_text([CAPTION])
    condition, negative = art2mus.model.conditions([CAPTION], ["low quality"])
    assert texts.t5.shape[1] == condition.text.shape[1]
    theirs = (
        stock(
            prompt_embeds=condition.text,
            attention_mask=condition.mask,
            generated_prompt_embeds=condition.audio,
            negative_prompt_embeds=negative.text,
            negative_attention_mask=negative.mask,
            negative_generated_prompt_embeds=negative.audio,
            audio_length_in_s=5.12,
            num_inference_steps=5,
            guidance_scale=3.5,
            generator=torch.Generator().manual_seed(11),
            output_type="pt",
        )
        .audios[0]
        .numpy()
    )
    ours = sound(art2mus, question(5.12, 11), steps=5)
    assert ours.shape == theirs.shape == (round(5.12 * RATE),)
    assert np.abs(theirs).max() > 1e-3
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_the_picture_leads_where_it_speaks_and_is_not_heard_where_text_stands_alone(art2mus: Art2Mus) -> None:
    one, other = question(vector=picture(1)), question(vector=picture(2))
    for conditioning, differs in (("picture", True), ("both", True), ("text", False)):
        first, second = (sound(art2mus, each, conditioning=conditioning) for each in (one, other))
        assert np.isfinite(first).all() and first.std() > 0
        assert bool(np.abs(first - second).max() > 1e-4 * np.abs(first).max()) is differs, conditioning
    ways = [sound(art2mus, one, conditioning=each) for each in ("picture", "both", "text")]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(ways[first] - ways[second]).max() > 1e-4


def test_the_same_question_is_the_same_sound(art2mus: Art2Mus) -> None:
    first = sound(art2mus, question(seed=3), conditioning="picture")
    assert np.array_equal(first, sound(art2mus, question(seed=3), conditioning="picture"))
    assert not np.allclose(first, sound(art2mus, question(seed=4), conditioning="picture"))
    assert len(first) == 5 * RATE


def test_a_vector_of_another_space_is_refused_in_plain_words(art2mus: Art2Mus, parts: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="holds 7 numbers, and the image aligner takes 24"):
        sound(art2mus, question(vector=np.ones(7, np.float32)), conditioning="picture")
    assert len(sound(art2mus, question(vector=np.ones(7, np.float32)))) == 5 * RATE, "text needs no aligner"
    with pytest.raises(Invalid, match="no weights of the image aligner"):
        sound(Art2Mus(art2mus.model, None, nobody), question(), conditioning="both")


def test_a_network_that_one_thread_runs_makes_the_same_sound(parts: dict[str, Any], art2mus: Art2Mus) -> None:
    import threading

    class Watched:
        def __init__(self) -> None:
            self.threads: set[int] = set()

        def __call__(self, *values: Any, **named: Any) -> Any:
            self.threads.add(threading.get_ident())
            return parts["unet"](*values, **named)

        def __getattr__(self, name: str) -> Any:
            return getattr(parts["unet"], name)

    watched = Watched()
    model = AudioLDM2(**parts)
    model.unet = OneThread(watched)
    made = Art2Mus(model, tiny_music.aligner(), nobody)
    usual = sound(art2mus, question(), conditioning="both")
    found: list[Any] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(sound(made, question(), conditioning="both")))
        thread.start()
        thread.join()
    assert len(watched.threads) == 1 and threading.get_ident() not in watched.threads
    assert all(np.array_equal(each, usual) for each in found) and len(found) == 2


def test_a_compiled_network_is_rehearsed_with_the_shapes_of_a_piece(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    shapes: list[tuple[int, ...]] = []

    def compile_it(network: Any, **how: Any) -> Any:
        compiled.append(network)
        network.register_forward_pre_hook(lambda _, values: shapes.append(tuple(values[0].shape)))
        return network

    monkeypatch.setattr(torch, "compile", compile_it)
    monkeypatch.setenv("PROMENADE_COMPOSE_MUSIC_WEIGHTS", str(folder / "audioldm2"))
    model = Art2MusModel()
    model.start(Path("compose_music/1"), {**PARAMETERS, "compiled": "yes", "candidates": "3"}, nobody, 3600)
    made = model._tools()
    model.finalize()
    assert isinstance(made.model.unet, OneThread) and made.model.unet._network is compiled[0]
    # Guidance doubles the candidates; then the chosen one goes on alone.
    assert [shape[0] for shape in shapes] == [6, 6, 2, 2] and len({shape[1:] for shape in shapes}) == 1
    shapes.clear()
    usual = Art2Mus(made.model, tiny_music.aligner(), nobody)
    assert len(sound(usual, question(12.0))) == 12 * RATE
    assert {shape[1:] for shape in shapes} == {shapes[0][1:]}


# -- candidates --------------------------------------------------------------------------------------------


def test_the_candidate_nearest_to_the_picture_goes_on(parts: dict[str, Any]) -> None:
    asked: list[Mapping[str, Any]] = []
    target = picture()

    def ears(model: str, inputs: Mapping[str, Any], outputs: Any) -> dict[str, Any]:
        assert (model, list(outputs)) == ("embed_sound", ["VECTOR"])
        asked.append(inputs)
        heard = np.random.default_rng(5).normal(size=(len(inputs["SOUND"]), VECTOR)).astype(np.float32)
        heard[1] = 3 * target + 0.1 * heard[1]
        return {"VECTOR": heard}

    made = Art2Mus(AudioLDM2(**parts), tiny_music.aligner(), ears)
    told: dict[str, Any] = {}
    chosen = sound(made, question(12.0, 8), told, conditioning="picture", candidates=3)
    assert told["chosen"] == 1 and len(told["scores"]) == 3
    assert told["scores"][1] == max(told["scores"]) > 0.9
    (heard,) = asked
    assert heard["SOUND"].shape[:2] == (3, 1) and heard["TEXT"].shape == (3, 1)
    assert heard["SOUND"].shape[2] == pytest.approx(10.24 * RATE, abs=160)
    assert (heard["LENGTHS"] == heard["SOUND"].shape[2]).all()
    # Just the piece that this candidate's seed makes alone.
    seed = (8 + 0x9E3779B97F4A7C15) % (1 << 63)
    alone = sound(made, question(12.0, seed), conditioning="picture")
    assert len(chosen) == 12 * RATE
    assert np.abs(chosen - alone).max() <= 1e-4 * np.abs(alone).max()


def test_candidates_of_another_space_are_not_ranked(parts: dict[str, Any]) -> None:
    made = Art2Mus(AudioLDM2(**parts), None, lambda *_: {"VECTOR": np.ones((2, 9), np.float32)})
    with pytest.raises(Invalid, match="answers with 9 numbers"):
        sound(made, question(), candidates=2)


# -- the served model --------------------------------------------------------------------------------------


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Art2MusModel]]:
    """The model outside the server."""
    made: list[Art2MusModel] = []
    monkeypatch.setenv("PROMENADE_COMPOSE_MUSIC_WEIGHTS", str(folder / "audioldm2"))
    monkeypatch.setenv("PROMENADE_COMPOSE_MUSIC_WEIGHTS_ALIGNER", str(folder / "aligner"))

    def make(**parameters: str) -> Art2MusModel:
        model = Art2MusModel()
        model.start(Path("compose_music/1"), {**PARAMETERS, **parameters}, nobody, warm_after=3600)
        made.append(model)
        return model

    yield make
    for model in made:
        model.finalize()


def composed(model: Art2MusModel, tensors: Mapping[str, Any], rest: Callable[[], None] = lambda: None) -> list[Any]:
    ask, _ = model.read(tensors)
    return list(model.compose(ask, model._tools(), rest))


def test_a_piece_is_as_long_as_it_was_asked_for_and_as_loud_as_any(served: Callable[..., Art2MusModel]) -> None:
    model = served()
    *blocks, report = composed(model, question(7.3, 2))
    assert all(block.dtype == np.float32 and block.shape[1] == 2 for block in blocks)
    whole = np.concatenate(blocks)
    assert whole.shape == (round(7.3 * 48_000), 2)
    assert np.array_equal(whole[:, 0], whole[:, 1])
    assert report["loudness"] == pytest.approx(-16, abs=1.5)
    assert report["true_peak"] <= -1.0
    assert 20 * np.log10(np.abs(whole).max()) <= -1.0
    said = {name: report[name] for name in ("model", "version", "seed", "conditioning", "prompt", "text", "steps")}
    assert said == {
        "model": "art2mus",
        "version": model.declared(),
        "seed": 2,
        "conditioning": "picture",
        "prompt": None,
        "text": FIXED_PROMPT,
        "steps": 3,
    }
    assert report["tokens"] == 4 and report["negative"] == "Low quality" and report["guidance"] == 3.5
    assert json.loads(json.dumps(report)) == report
    assert 0 < report["first_chunk_seconds"] <= report["made_seconds"]


def test_the_papers_figures_stand_where_nobody_wishes(served: Callable[..., Art2MusModel]) -> None:
    config = (Path(__file__).parents[2] / "model_repository/full/compose_music/config.pbtxt").read_text()
    lines = [line.split('"') for line in config.splitlines() if line.startswith("parameters")]
    written = {line[1]: line[3] for line in lines}
    model = served(**{**written, "precision": "fp32"})
    wanted, _ = model.read(question())
    assert model.how(wanted) == {
        "conditioning": "picture",
        "prompt": FIXED_PROMPT,
        "negative": "Low quality",
        "guidance": 3.5,
        "steps": 200,
        "solver": "ddim",
        "candidates": 3,
    }
    wanted, _ = model.read(question(conditioning="both", steps=25, solver="fast", guidance=5, candidates=1))
    assert model.how(wanted)["prompt"] == CAPTION
    assert {model.how(wanted)[name] for name in ("steps", "solver", "guidance")} == {25, "fast", 5}


def test_a_long_piece_is_heard_before_it_is_done(served: Callable[..., Art2MusModel]) -> None:
    model = served()
    steps: list[int] = []
    ask, _ = model.read(question(24.0))
    heard_after: list[int] = []
    parts = []
    for part in model.compose(ask, model._tools(), lambda: steps.append(1)):
        heard_after.append(len(steps))
        parts.append(part)
    assert sum(len(part) for part in parts[:-1]) == 24 * 48_000
    # Three windows: 10.24 s, and twice 7.68 s more.
    assert heard_after[0] < 0.5 * heard_after[-1]
    assert len(steps) >= 9, "the turn is handed on within a window, too"


def test_a_piece_that_nobody_wants_ends_between_two_steps(served: Callable[..., Art2MusModel]) -> None:
    model = served(steps="50")
    count = 0

    def rest() -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise Stopped

    with pytest.raises(Stopped):
        composed(model, question(60.0), rest)
    assert count == 5
    # The model composes on, and as before.
    assert len(composed(served(), question())) > 1


def test_a_ticket_is_given_up_by_a_question_without_sound(served: Callable[..., Art2MusModel]) -> None:
    model = served()
    ask, _ = model.read(question(ticket="a" * 32))
    other, _ = model.read(question())
    assert not model.given_up(ask)() and not model.given_up(other)()
    with pytest.raises(Invalid, match="seconds must be"):
        model.read(question(0.0, ticket="a" * 32))
    assert model.given_up(ask)() and not model.given_up(other)()
    for number in range(1000):
        with pytest.raises(Invalid):
            model.read(question(0.0, ticket=f"{number:032x}"))
    assert len(model._tickets) <= 256


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"tempo": 96}, "the wish 'tempo' is not known here; conditioning, prompt"),
        ({"conditioning": "smell"}, "picture, text or both"),
        ({"prompt": ""}, "a text of at most"),
        ({"prompt": 3}, "a text of at most"),
        ({"negative": "x" * 5000}, "a text of at most"),
        ({"guidance": "much"}, "is a number"),
        ({"guidance": 31}, "from 0 "),
        ({"steps": 0}, "a whole number from 1 to 1000"),
        ({"steps": 2.5}, "a whole number from 1 to 1000"),
        ({"steps": True}, "is a number"),
        ({"candidates": 9}, "a whole number from 1 to 8"),
        ({"solver": "euler"}, "ddim or fast"),
        ({"ticket": "no"}, "32 hexadecimal digits"),
    ],
)
def test_wishes_that_cannot_be_followed_are_refused(wishes: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read(question(**wishes))


def test_what_is_asked_is_read_as_it_was_asked() -> None:
    wanted, live = read(question(30, 7, live=False, prompt="slow strings", steps=None))
    assert (wanted.seconds, wanted.seed, live, wanted.wishes) == (30, 7, False, {"prompt": "slow strings"})
    assert wanted.texts[4] == CAPTION and wanted.va == pytest.approx((0.6, 0.6))
    with pytest.raises(Invalid, match="WISHES is not a JSON object"):
        read({**question(), "WISHES": strings("[1]")})
    assert read({**question(), "WISHES": strings("")})[0].wishes == {}


def test_without_a_caption_there_is_no_text_to_compose_for(served: Callable[..., Art2MusModel]) -> None:
    model = served()
    silent = {**question(conditioning="text"), "TEXTS": strings(*[""] * 5)}
    with pytest.raises(Invalid, match="no caption"):
        composed(model, silent)


def test_whatever_changes_the_sound_is_in_the_version(
    served: Callable[..., Art2MusModel], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = served().declared()
    assert plain.startswith("1+weights=") and plain == served().declared()
    seen = {plain}

    def other(**settings: str) -> str:
        with monkeypatch.context() as patched:
            for name, value in settings.items():
                patched.setenv(f"PROMENADE_COMPOSE_MUSIC_{name.upper()}", value)
            found = served().declared()
        assert found not in seen, f"{settings} sound like others"
        seen.add(found)
        return found

    assert other(solver="ddim").startswith("1+solver=ddim,weights=")
    assert other(steps="20", guidance="2.5").startswith("1+guidance=2.5,steps=20,weights=")
    other(candidates="2")
    other(negative="Low quality, much noise and a crowd that talks")
    other(conditioning="both")
    # Weights that a fetch or an export laid down count by their revision, others by what the folder holds.
    for revision in ("0f3a11", "77b2c4"):
        held = tmp_path / revision / "art2mus-aligner" / revision
        shutil.copytree(folder / "aligner", held)
        (held / "fetched.json").write_text(json.dumps({"revision": revision}))
        monkeypatch.setenv("PROMENADE_WEIGHTS", str(tmp_path / revision))
        assert other(weights_aligner="art2mus-aligner").endswith(f",weights_aligner={revision}")
    assert other(weights_aligner="none").endswith(",weights_aligner=none")
    assert served().declared() == plain


def test_only_the_bare_question_about_the_version_is_one() -> None:
    asked = {**question(), "WISHES": strings(json.dumps(DECLARE))}
    assert declaration_asked(asked) and not declaration_asked(question())
    assert not declaration_asked({**asked, "WISHES": strings(json.dumps({**DECLARE, "steps": 3}))})
    assert not declaration_asked({**asked, "WISHES": strings('{"prompt": "declare"}')})


# -- weights -----------------------------------------------------------------------------------------------


def test_missing_weights_are_named_at_the_start(tmp_path: Path) -> None:
    model = Art2MusModel()
    parameters = {**PARAMETERS, "weights": "cvssp/audioldm2"}
    with pytest.raises(MissingWeights, match="promenade models fetch --profile full"):
        model.start(tmp_path / "model_repository/full/compose_music/1", parameters, nobody)


def test_settings_that_make_no_sense_are_named_at_the_start(served: Callable[..., Art2MusModel]) -> None:
    for name, value in (("solver", "euler"), ("guidance", "much"), ("steps", "0"), ("conditioning", "smell")):
        with pytest.raises(BadChoice, match=name):
            served(**{name: value})


def test_weights_are_read_from_their_folders(folder: Path, parts: dict[str, Any], art2mus: Art2Mus) -> None:
    choices = Choices(
        "compose_music",
        {"weights": str(folder / "audioldm2"), "weights_aligner": str(folder / "aligner"), "device": "cpu"},
    )
    loaded = Art2Mus.load(choices, nobody)
    assert loaded.aligner is not None and loaded.aligner.tokens == 4
    one, other = (sound(each, question(), conditioning="both") for each in (loaded, art2mus))
    assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()
    none = Choices(
        "compose_music", {"weights": str(folder / "audioldm2"), "weights_aligner": "none", "device": "cpu"}
    )
    assert Art2Mus.load(none, nobody).aligner is None


def test_without_an_aligner_texts_are_composed_for_and_pictures_refused_with_the_reason(
    folder: Path, tmp_path: Path
) -> None:
    for where, words in ((tmp_path, "hold no checkpoint of the image aligner"), (tmp_path / "x", "does not exist")):
        choices = Choices(
            "compose_music",
            {"weights": str(folder / "audioldm2"), "weights_aligner": str(where), "device": "cpu"},
        )
        loaded = Art2Mus.load(choices, nobody)
        assert len(sound(loaded, question())) == 5 * RATE
        with pytest.raises(Invalid, match=f"only text: .*{words}"):
            sound(loaded, question(), conditioning="picture")
