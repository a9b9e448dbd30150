"""Composers that go through words: Mozart's Touch and MMVA; which words they find, and how they have them sounded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_models.music.turns import Stopped
from edge_models.triton_model import Invalid, Unavailable, strings
from full_models import mmva_prompt
from full_models.mmva_prompt import (
    SLOTS,
    MmvaModel,
    Nearest,
    Reader,
    descend,
    description,
    distances,
    every_filling,
    nearest_of,
)
from full_models.mozarts_touch import INSTRUCTION, LONGEST, MozartsTouchModel
from full_models.weights import BadChoice

from tests.models.tiny_music import CAPTION, question

GOOD = "Slow ambient music for strings and piano, soft and a little melancholic."


class Writer:
    """A stand-in for write_text that says one thing after another."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[list[dict[str, str]]] = []
        self.settings: list[dict[str, Any]] = []

    def __call__(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        assert model == "write_text" and len(inputs["MESSAGES"]) == 1
        self.asked.append(json.loads(inputs["MESSAGES"][0, 0]))
        self.settings.append(json.loads(inputs["SETTINGS"][0, 0]))
        said = self.answers.pop(0)
        return {"TEXT": strings(said).reshape(1, 1), "ENDING": strings("complete").reshape(1, 1)}


class Music:
    """A stand-in for compose_music's stream: three chunks and a report."""

    def __init__(self, trouble: Exception | None = None, report: bool = True) -> None:
        self.trouble = trouble
        self.report = report
        self.asked: list[Mapping[str, Any]] = []

    def __call__(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Iterator[dict[str, Any]]:
        assert model == "compose_music"
        self.asked.append(inputs)
        if inputs["SECONDS"][0] == 0:
            raise Invalid("seconds must be between 5 and 180, not 0")
        for number in range(3):
            if self.trouble is not None and number == 1:
                raise self.trouble
            yield {"SAMPLES": np.full((100, 2), number, np.float32), "REPORT": strings("")}
        report = json.dumps({"version": "9", "model": "art2mus", "prompt": "x", "loudness": -16.0})
        yield {"SAMPLES": np.zeros((0, 2), np.float32), "REPORT": strings(report if self.report else "")}

    def wishes(self, number: int = 0) -> dict[str, Any]:
        return dict(json.loads(self.asked[number]["WISHES"][0]))


def started(model: Any, call: Any, stream: Any, **parameters: str) -> Any:
    model.start(Path("compose/1"), {"version": "4", **parameters}, call, warm_after=3600, stream=stream)
    return model


def composed(model: Any, tensors: Mapping[str, Any], rest: Any = lambda: None) -> list[Any]:
    ask, _ = model.read(tensors)
    return list(model.compose(ask, model._tools(), rest))


# -- Mozart's Touch ----------------------------------------------------------------------------------------


def test_a_caption_becomes_a_description_that_is_sounded() -> None:
    writer, music = Writer(f'"{GOOD}"'), Music()
    model = started(MozartsTouchModel(), writer, music)
    *blocks, report = composed(model, question(12.0, 5, live=False, steps=25, solver="fast"))
    assert [block[0, 0] for block in blocks] == [0, 1, 2]
    (asked,) = writer.asked
    assert [each["role"] for each in asked] == ["system", "user"]
    assert asked[0]["content"] == INSTRUCTION and CAPTION in asked[1]["content"]
    assert writer.settings[0]["temperature"] == 0, "the same caption gives the same words"
    wishes = music.wishes()
    ticket = wishes.pop("ticket")
    assert wishes == {"steps": 25, "solver": "fast", "conditioning": "text", "prompt": GOOD}
    assert len(ticket) == 32
    passed = music.asked[0]
    assert (passed["SECONDS"][0], passed["SEED"][0], bool(passed["LIVE"][0])) == (12.0, 5, False)
    assert len(music.asked) == 1, "a piece that is whole is not given up"
    assert report == {
        "version": "4; compose_music 9",
        "model": "mozarts-touch",
        "music_version": "9",
        "prompt": "x",
        "loudness": -16.0,
        "caption": CAPTION,
        "asked": 1,
    }


def test_a_description_that_is_none_is_asked_again_with_its_fault_and_never_made_up() -> None:
    long = "very " * (LONGEST + 1) + "long"
    writer, music = Writer(long, "", GOOD), Music()
    *_, report = composed(started(MozartsTouchModel(), writer, music), question())
    assert report["asked"] == 3 and music.wishes()["prompt"] == GOOD
    assert f"{LONGEST + 2} words" in writer.asked[1][-1]["content"]
    assert "no description" in writer.asked[2][-1]["content"]
    assert [each["role"] for each in writer.asked[2]] == ["system", "user", "assistant", "user", "assistant", "user"]
    music = Music()
    with pytest.raises(Invalid, match="no description of music came of the caption in 3 tries"):
        composed(started(MozartsTouchModel(), Writer("", "no", long), music), question())
    assert music.asked == []


def test_a_picture_without_a_caption_gets_no_words() -> None:
    model = started(MozartsTouchModel(), Writer(), Music())
    with pytest.raises(Invalid, match="no caption"):
        composed(model, {**question(), "TEXTS": strings(*[" "] * 5)})


@pytest.mark.parametrize("model", [MozartsTouchModel, MmvaModel])
def test_words_are_the_composers_own(model: Any) -> None:
    made = started(model(), Writer(), Music(), search="descent")
    for wish in ({"prompt": "mine"}, {"conditioning": "picture"}, {"ticket": "a" * 32}, {"tempo": 90}):
        with pytest.raises(Invalid, match="not known here; negative, guidance, steps, solver, candidates are"):
            made.read(question(**wish))


def test_a_piece_that_nobody_wants_is_given_up_where_it_is_made() -> None:
    music = Music()
    model = started(MozartsTouchModel(), Writer(GOOD), music)
    count = 0

    def rest() -> None:
        nonlocal count
        count += len(music.asked)
        if count == 3:
            raise Stopped

    with pytest.raises(Stopped):
        composed(model, question(), rest)
    assert len(music.asked) == 2
    assert music.asked[1]["SECONDS"][0] == 0
    assert music.wishes(1) == {"ticket": music.wishes(0)["ticket"]}


@pytest.mark.parametrize("trouble", [Invalid("too much"), Unavailable("away")])
def test_trouble_of_the_music_is_the_composers_trouble(trouble: Exception) -> None:
    with pytest.raises(type(trouble), match=str(trouble)):
        composed(started(MozartsTouchModel(), Writer(GOOD), Music(trouble)), question())


def test_music_without_a_report_is_no_piece() -> None:
    with pytest.raises(Unavailable, match="without its report"):
        composed(started(MozartsTouchModel(), Writer(GOOD), Music(report=False)), question())


# -- MMVA --------------------------------------------------------------------------------------------------


def feeling(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """A made reading of words: each word of a description pulls a little, in a direction of its own."""
    points = []
    for text in texts:
        words = [word.strip(".") for word in text.split()]
        pulls = [np.random.default_rng(abs(hash_of(word))).normal(size=2) for word in words]
        points.append(0.5 + 0.08 * np.sum(pulls, axis=0) / 3)
    return np.clip(np.array(points), 0, 1).astype(np.float32)


def hash_of(word: str) -> int:
    return int.from_bytes(word.encode()[:7].ljust(7, b"\0"), "big")


class Tower:
    """A stand-in for va_text."""

    def __init__(self) -> None:
        self.rows = 0
        self.calls = 0

    def __call__(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        assert (model, list(outputs)) == ("va_text", ["VA"])
        texts = [value.decode() for value in inputs["TEXT"][:, 0]]
        assert len(texts) <= mmva_prompt.ROWS
        self.rows += len(texts)
        self.calls += 1
        return {"VA": feeling(texts)}


def test_every_filling_is_another_description_of_four_sentences() -> None:
    fillings = every_filling()
    assert len(fillings) == 8 * (11 * 11) * 4 * 13
    said = {description(each) for each in fillings}
    assert len(said) == len(fillings)
    assert all(text.count(".") == 4 for text in said)
    assert description((0, 0, 0, 0)) == (
        "A piece of rock music. The melody is played by the electric guitar with the male vocalist behind it. "
        "The rhythm is fast. The mood is easy going."
    )
    assert any("the violin alone" in text for text in said)
    assert not any(f"the {name} with the {name}" in text for name in mmva_prompt.INSTRUMENTS for text in said)


def test_the_exhaustive_search_finds_the_nearest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmva_prompt, "SLOTS", tuple(slot[:4] for slot in SLOTS))
    tower = Tower()
    found = Nearest(Reader(tower), exhaustive=True)
    assert tower.rows == 4**4
    every = [description(each) for each in every_filling()]
    for target in ((0.2, 0.9), (0.7, 0.3), (0.5, 0.5)):
        said, point = found.find(target)
        away = distances(feeling(every), target)
        assert distances(point[None], target)[0] == pytest.approx(away.min(), abs=1e-6)
        assert said == every[int(np.argmin(away))]
    assert tower.rows == 4**4, "read once, for all pictures"


def test_the_descent_gets_near_with_few_readings() -> None:
    tower = Tower()
    found = Nearest(Reader(tower), exhaustive=False)
    assert tower.rows == 0
    every = every_filling()
    chance = float(np.mean(distances(feeling([description(each) for each in every[::97]]), (0.35, 0.75))))
    said, point = found.find((0.35, 0.75))
    assert 0 < tower.rows < len(every) / 20
    assert feeling([said])[0] == pytest.approx(point)
    assert distances(point[None], (0.35, 0.75))[0] < chance / 4
    # Nothing that changes one sentence is nearer.
    filling, _ = descend(feeling, (0.35, 0.75))
    assert description(filling) == said
    for slot, candidates in enumerate(SLOTS):
        around = [(*filling[:slot], place, *filling[slot + 1 :]) for place in range(len(candidates))]
        points = feeling([description(each) for each in around])
        assert distances(points, (0.35, 0.75)).min() >= distances(point[None], (0.35, 0.75))[0] - 1e-7


def test_of_equally_near_ones_the_first_is_taken() -> None:
    points = np.array([[0.9, 0.9], [0.4, 0.5], [0.6, 0.5], [0.4, 0.5]])
    assert nearest_of(points, (0.5, 0.5)) == (1, pytest.approx(0.1))


def test_the_nearest_description_is_sounded() -> None:
    tower, music = Tower(), Music()
    model = started(MmvaModel(), tower, music, search="descent")
    *blocks, report = composed(model, question(candidates=1))
    assert len(blocks) == 3
    said = music.wishes()["prompt"]
    assert said in {description(each) for each in every_filling()}
    assert report["picture_va"] == pytest.approx([0.6, 0.6], abs=1e-3)
    assert report["prompt_va"] == pytest.approx(feeling([said])[0].tolist(), abs=1e-3)
    assert report["distance"] == pytest.approx(distances(feeling([said]), (0.6, 0.6))[0], abs=1e-4)
    assert (report["model"], report["search"], report["version"]) == (
        "mmva",
        "descent",
        # No towers of MMVA are there: the points are those of the edge profile's reading.
        "4+edge-va; compose_music 9",
    )
    again = Music()
    composed(started(MmvaModel(), Tower(), again, search="descent"), question(seed=77))
    assert again.wishes()["prompt"] == said, "the seed has no say in the words"


def test_a_search_of_another_name_is_refused_at_the_start() -> None:
    with pytest.raises(BadChoice, match="exhaustive or descent"):
        started(MmvaModel(), Tower(), Music(), search="luck")
