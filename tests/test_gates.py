"""Gates of captions: what holds for any scores (pure, with made models), and the caption stage with them.

The scorer here answers from a script; how captions are scored for real is left to the tests of `score_caption`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from gallery.api import Reach, make_api
from gallery.views import item_view, status_view
from infra.inference import Inference
from infra.metrics import CAPTION_ATTEMPTS, CAPTION_REGENERATIONS, CAPTION_SCORE, CAPTIONS_KEPT, CaptionMetrics
from promenade import display
from promenade.profile import read_profile
from schemas.events import Captioned
from schemas.failures import Declined, Lasting, Passing
from schemas.media import Kind
from schemas.profile import Gates, ModelEntry
from schemas.records import CaptionBody, CaptionScores, Phrase, Result, Stage
from streams.items import ItemHandler
from tests.made_world import PROFILE, SOUND, MadeInference, World, picture
from tests.stack_fixtures import Reached, put_item
from tests.test_exhibitions_commands import Typed
from workers import caption as of_captions
from workers.contract import Array, Job, Tools
from workers.gates import fault_of, prompt_again, through_gates
from workers.models import Models, Said

PARTS = 5
PROMPTS = [f"Describe part {place}." for place in range(PARTS)]
GATED = PROFILE.model_copy(
    update={"models": {**PROFILE.models, "score_caption": ModelEntry(version="1", reads=("media", "text"))}}
)


def scores_of(value: float, **more: Any) -> CaptionScores:
    return CaptionScores(score=value, parts={"clip_score": value, "pac_score": value}, **more)


@dataclasses.dataclass
class Script:
    """Made models: the n-th caption of a part has the n-th score of its row; None: it cannot be scored."""

    rows: Sequence[Sequence[float | None]]
    refuses_from: int = 99
    asked: list[list[int]] = dataclasses.field(default_factory=list)
    prompts: list[list[str]] = dataclasses.field(default_factory=list)
    scored: list[list[int]] = dataclasses.field(default_factory=list)
    attempts: list[tuple[str, int, float, bool]] = dataclasses.field(default_factory=list)
    outcomes: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    async def ask(self, places: Sequence[int], prompts: Sequence[str]) -> list[Said]:
        if len(self.asked) + 1 >= self.refuses_from:
            raise Declined("the captioner says nothing more")
        self.asked.append(list(places))
        self.prompts.append(list(prompts))
        number = len(self.asked)
        return [Said(f"{number} of {place}", (Phrase(text=f"heard {number}", confidence=1),)) for place in places]

    async def score(self, places: Sequence[int], said: Sequence[Said]) -> list[CaptionScores | None]:
        self.scored.append(list(places))
        found: list[CaptionScores | None] = []
        for place, each in zip(places, said, strict=True):
            value = self.rows[place][int(each.text.split()[0]) - 1]
            found.append(None if value is None else scores_of(value))
        return found

    def attempted(self, kind: Kind, attempt: int, score: float, passed: bool) -> None:
        self.attempts.append((kind, attempt, score, passed))

    def kept(self, kind: Kind, outcome: str) -> None:
        self.outcomes.append((kind, outcome))

    def run(self, gates: Gates, kind: Kind = Kind.ARTWORK) -> Any:
        return asyncio.run(through_gates(kind, PROMPTS, gates, self.ask, self.score, self))


GATES = st.builds(Gates, threshold=st.sampled_from([0.0, 0.5, 0.8, 1.0]), regenerations=st.integers(0, 4))
VALUES = st.one_of(st.sampled_from([0.0, 0.5, 0.8, 1.0]), st.floats(-0.2, 1.3))
ROWS = st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=PARTS, max_size=PARTS)


@settings(max_examples=300, deadline=None)
@given(GATES, ROWS, st.sampled_from(Kind))
@example(Gates(), [[0.8, 0, 0, 0, 0]] * PARTS, Kind.ARTWORK)
def test_the_best_is_kept_and_nobody_asks_longer_than_needed(
    gates: Gates, rows: list[list[float]], kind: Kind
) -> None:
    script = Script(rows)
    said, made = script.run(gates, kind)
    for place, gate in enumerate(made.parts):
        values = [attempt.scores.score for attempt in gate.attempts]
        assert values == rows[place][: len(values)]
        # As many attempts as are allowed, or as lead to the first good one, whichever comes first.
        good = next((number for number, value in enumerate(rows[place], 1) if value >= gates.threshold), 99)
        assert len(values) == min(good, gates.regenerations + 1)
        assert gate.passed == (good <= gates.regenerations + 1)
        assert gate.kept == values.index(max(values))
        assert gate.passed == (values[gate.kept] >= gates.threshold)
        # What is kept is the text of the attempt with the best score, with the phrases that came with it.
        assert said[place].text == gate.attempts[gate.kept].text == f"{gate.kept + 1} of {place}"
        assert said[place].phrases[0].text == f"heard {gate.kept + 1}"
        assert [bool(attempt.fault) for attempt in gate.attempts] == [value < gates.threshold for value in values]
        assert script.outcomes[place] == (kind, "passed" if gate.passed else "below")
    # One question a round, for exactly those parts that are still below, and each is told once.
    for number, places in enumerate(script.asked, 1):
        assert places == [place for place, gate in enumerate(made.parts) if len(gate.attempts) >= number]
    assert script.scored == script.asked
    told = [
        (kind, number, rows[place][number - 1]) for number, asked in enumerate(script.asked, 1) for place in asked
    ]
    assert [each[:3] for each in script.attempts] == told
    assert (made.threshold, made.regenerations) == (gates.threshold, gates.regenerations)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 3))
def test_a_higher_threshold_never_lets_more_pass_and_never_keeps_a_worse_one(
    rows: list[list[float]], regenerations: int
) -> None:
    kept = []
    for threshold in (0.3, 0.5, 0.8, 0.9):
        _, made = Script(rows).run(Gates(threshold=threshold, regenerations=regenerations))
        kept.append([(gate.passed, gate.attempts[gate.kept].scores.score, len(gate.attempts)) for gate in made.parts])
    for lower, higher in itertools.pairwise(kept):
        for (passed, score, tries), (passes, scores, more) in zip(lower, higher, strict=True):
            assert passed or not passes
            assert scores >= score
            assert more >= tries


@settings(max_examples=50, deadline=None)
@given(ROWS, GATES)
def test_the_first_prompt_is_the_plain_one_and_each_later_one_names_the_fault_before(
    rows: list[list[float]], gates: Gates
) -> None:
    script = Script(rows)
    _, made = script.run(gates)
    for number, (places, prompts) in enumerate(zip(script.asked, script.prompts, strict=True), 1):
        for place, prompt in zip(places, prompts, strict=True):
            if number == 1:
                assert prompt == PROMPTS[place]
                continue
            before = made.parts[place].attempts[number - 2]
            assert prompt.startswith(PROMPTS[place])
            assert before.fault and before.fault in prompt
            assert f'"{before.text}"' in prompt
            assert f"{before.scores.score:.3f}" in prompt and f"{gates.threshold:.3f}" in prompt


def test_what_cannot_be_scored_is_kept_ungated_beside_what_can() -> None:
    script = Script([[None] * 5, [0.1, 0.9, 0, 0, 0], [None] * 5, [0.9] * 5, [0.2, 0.3, 0.1, 0.2, 0]])
    said, made = script.run(Gates(), Kind.TRACK)
    assert [len(gate.attempts) for gate in made.parts] == [0, 2, 0, 1, 4]
    assert [gate.kept for gate in made.parts] == [0, 1, 0, 0, 1]
    assert [each.text for each in said] == ["1 of 0", "2 of 1", "1 of 2", "1 of 3", "2 of 4"]
    assert [outcome for _, outcome in script.outcomes] == ["ungated", "passed", "ungated", "passed", "below"]


def test_a_captioner_that_refuses_to_answer_again_loses_nothing() -> None:
    rows = [[0.5, 0.6, 0.9, 0, 0], [0.9] * 5, [0.7, 0.1, 0, 0, 0], [0.9] * 5, [0.9] * 5]
    said, made = Script(rows, refuses_from=3).run(Gates())
    assert [each.text for each in said] == ["2 of 0", "1 of 1", "1 of 2", "1 of 3", "1 of 4"]
    assert [bool(gate.stopped) for gate in made.parts] == [True, False, True, False, False]
    assert "nothing more" in made.parts[0].stopped
    with pytest.raises(Declined):
        Script(rows, refuses_from=1).run(Gates())


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"clip_score": 0.7, "pac_score": 0.3}, ["PAC-Score 0.300", "CLIP-Score 0.700"]),
        ({"clip_score": 0.9, "pac_score": 0.3}, ["PAC-Score 0.300"]),
        # At the threshold it is good enough.
        ({"clip_score": 0.8, "pac_score": 0.3}, ["PAC-Score 0.300"]),
        ({"rouge_1": 0.2, "bert_score": 0.79}, ["ROUGE-1 0.200", "BERTScore 0.790"]),
        ({"brevity {}": 0.1}, ["brevity {} 0.100"]),
        ({}, ["too little"]),
    ],
)
def test_a_fault_names_each_low_score_the_lowest_first(parts: dict[str, float], words: list[str]) -> None:
    text = fault_of(CaptionScores(score=0.5, parts=parts), 0.8)
    places = [text.index(each) for each in words]
    assert places == sorted(places)
    assert "0.9" not in text and "0.800" not in text


def test_a_fault_quotes_the_weakest_sentence_and_says_what_was_not_looked_at() -> None:
    text = fault_of(CaptionScores(score=0.5, truncated=True, weakest="A dog sings."), 0.8)
    assert '"A dog sings."' in text and "too long" in text


def test_prompts_speak_of_the_right_sense() -> None:
    async def prompt(kind: Kind) -> str:
        script = Script([[0.1] * 5] * PARTS)
        _, made = await through_gates(kind, PROMPTS, Gates(regenerations=0), script.ask, script.score)
        return prompt_again(kind, "Describe it.", made.parts[0].attempts[0], 0.8)

    assert "can be seen" in asyncio.run(prompt(Kind.ARTWORK))
    assert "can be heard" in asyncio.run(prompt(Kind.TRACK))


# -- the caption stage over made models ------------------------------------------------------------------------


class Scored(MadeInference):
    """Captions that name their attempt, and a scorer that answers from a script: attempt (from 1) -> score."""

    def __init__(self, values: Sequence[float], references: bool = True) -> None:
        super().__init__()
        self.values = values
        self.references = references
        self.attempts: dict[str, int] = {}
        self.seen: list[dict[str, list[Any]]] = []
        self.prompts: list[list[str]] = []
        self.told: Callable[[float], Any] = lambda value: {
            "score": value,
            "parts": {"clip_score": value, "pac_score": value},
            "sentences": 2,
            "truncated": False,
            "of the scorer's own": 1,
        }

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        answer = await super().infer(model, inputs, [name for name in outputs if name != "SCORES"])

        def texts(values: Sequence[str]) -> Array:
            array = np.empty((len(values), 1), dtype=np.object_)
            array[:, 0] = [value.encode() for value in values]
            return array

        if model.startswith("caption_"):
            names = [value.decode() for value in inputs["PART"][:, 0]]
            self.prompts.append([value.decode() for value in inputs["PROMPT"][:, 0]])
            assert all(len(each) == len(names) for each in inputs.values())
            for name in names:
                self.attempts[name] = self.attempts.get(name, 0) + 1
            answer["TEXT"] = texts([f"Attempt {self.attempts[name]} of {name}." for name in names])
            phrases = [[f"passage {self.attempts[name]}", 1.0]] if self.references else []
            answer["PHRASES"] = texts([json.dumps({"phrases": phrases, "ending": "trimmed"}) for _ in names])
        if model == "score_caption":
            self.seen.append({name: [value[0] for value in array] for name, array in inputs.items()})
            numbers = [int(value[0].decode().split()[1]) for value in inputs["TEXT"]]
            answer["SCORES"] = texts([json.dumps(self.told(self.values[number - 1])) for number in numbers])
        return answer


def job_of(kind: Kind, revision: Any) -> Job:
    async def load() -> bytes:
        return picture() if kind is Kind.ARTWORK else SOUND

    return Job(revision, load_rendition=load)


class Item:
    """As much of a revision as the caption stage reads."""

    def __init__(self, kind: Kind) -> None:
        from schemas.records import Catalogue

        self.kind, self.item, self.catalogue = kind, f"{kind.value}-1", Catalogue(title="A title")


async def captioned(kind: Kind, inference: Scored, **more: Any) -> Any:
    tools = Tools(inference, more.pop("profile", GATED), **more)
    (outcome,) = await of_captions.caption([job_of(kind, Item(kind))], tools)
    return outcome


@pytest.mark.parametrize("kind", Kind)
async def test_a_stage_with_a_scorer_asks_again_and_keeps_every_score(kind: Kind) -> None:
    inference = Scored([0.2, 0.6, 0.5, 0.7])
    body = await captioned(kind, inference)
    assert isinstance(body, CaptionBody) and body.gates is not None
    assert [text.split(" of ")[0] for text in body.texts] == ["Attempt 4"] * PARTS
    assert [[round(each.scores.score, 3) for each in gate.attempts] for gate in body.gates.parts] == [
        [0.2, 0.6, 0.5, 0.7]
    ] * PARTS
    assert all(not gate.passed and gate.kept == 3 for gate in body.gates.parts)
    assert body.endings == ("trimmed",) * PARTS
    name = "picture" if kind is Kind.ARTWORK else "sound"
    # Fragments of sound and the whole differ in length, and then they are measured in calls of their own.
    asked = [call for call in inference.calls if not call.startswith("measure")]
    assert asked == [f"caption_{name}", "score_caption"] * 4
    assert [prompt.split("\n")[0] for prompt in inference.prompts[3]] == of_captions.prompts(kind)
    assert all("Attempt 3 of" in prompt for prompt in inference.prompts[3])
    for number, seen in enumerate(inference.seen, 1):
        assert seen["KIND"] == [kind.value.encode()] * PARTS
        references = [json.loads(each) for each in seen["REFERENCES"]]
        assert references == [[] if kind is Kind.ARTWORK else [f"passage {number}"]] * PARTS
        assert all(bool(image) is (kind is Kind.ARTWORK) for image in seen["IMAGE"])
    # As it lies in the store, and back.
    assert CaptionBody.model_validate_json(body.model_dump_json()) == body


async def test_only_parts_below_the_threshold_are_asked_for_again() -> None:
    inference = Scored([0.9])
    body = await captioned(Kind.ARTWORK, inference)
    assert inference.calls == ["measure_picture", "caption_picture", "score_caption"]
    assert all(gate.passed and len(gate.attempts) == 1 for gate in body.gates.parts)

    inference = Scored([0.9, 0.9])
    low = {b"top-right", b"whole"}
    answer = inference.told

    async def infer(model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if model == "caption_picture" and len(inference.prompts) == 1:
            assert {value[0] for value in inputs["PART"]} == low
            assert len(inputs["IMAGE"]) == 2
        found = await Scored.infer(inference, model, inputs, outputs)
        if model == "score_caption" and len(inference.seen) == 1:
            for row, text in enumerate(inputs["TEXT"][:, 0]):
                if any(name in text for name in low):
                    found["SCORES"][row, 0] = json.dumps(answer(0.3)).encode()
        return found

    tools = Tools(Hooked(infer), GATED)
    (body,) = await of_captions.caption([job_of(Kind.ARTWORK, Item(Kind.ARTWORK))], tools)
    assert isinstance(body, CaptionBody) and body.gates is not None
    assert [len(gate.attempts) for gate in body.gates.parts] == [1, 2, 1, 1, 2]
    assert [text.split(" of ")[0][-1] for text in body.texts] == ["1", "2", "1", "1", "2"]


async def test_a_part_that_is_asked_for_again_is_shown_again() -> None:
    colours = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0))
    whole = Image.new("RGB", (64, 64))
    for place, colour in enumerate(colours):
        whole.paste(colour, (place % 2 * 32, place // 2 * 32, place % 2 * 32 + 32, place // 2 * 32 + 32))
    content = io.BytesIO()
    whole.save(content, "JPEG")
    inference = Scored([0.9, 0.9])
    shown: list[dict[bytes, bytes]] = []

    async def infer(model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if model == "caption_picture":
            shown.append(dict(zip(inputs["PART"][:, 0], inputs["IMAGE"][:, 0], strict=True)))
        found = await Scored.infer(inference, model, inputs, outputs)
        if model == "score_caption":
            assert list(inputs["IMAGE"][:, 0]) == [shown[-1][part] for part in shown[-1]]
            if len(inference.seen) == 1:
                for row in (1, 3):
                    found["SCORES"][row, 0] = b'{"score": 0.3}'
        return found

    async def load() -> bytes:
        return content.getvalue()

    entry = GATED.models["caption_picture"].model_copy(update={"reads": ("media", "prompt")})
    profile = GATED.model_copy(update={"models": {**GATED.models, "caption_picture": entry}})
    revision: Any = Item(Kind.ARTWORK)
    (body,) = await of_captions.caption([Job(revision, load_rendition=load)], Tools(Hooked(infer), profile))
    assert isinstance(body, CaptionBody)
    assert len(set(shown[0].values())) == PARTS
    assert shown[1] == {part: shown[0][part] for part in (b"top-right", b"bottom-right")}


class Hooked(MadeInference):
    """A model server that is one function."""

    def __init__(self, function: Callable[..., Awaitable[dict[str, Array]]]) -> None:
        super().__init__()
        self._function = function

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        return await self._function(model, inputs, outputs)


async def test_a_track_without_passages_to_compare_with_is_kept_and_says_so() -> None:
    inference = Scored([0.1] * 4, references=False)
    body = await captioned(Kind.TRACK, inference)
    assert "score_caption" not in inference.calls
    assert all(gate.attempts == () and not gate.passed for gate in body.gates.parts)
    assert "not gated" in display.gate_line(body.gates.parts[0], 0.8)


@pytest.mark.parametrize(
    "told",
    [{}, {"score": "high"}, {"score": float("nan")}, {"score": 0.5, "parts": {"clip_score": None}}, [0.5], 0.5, None],
)
async def test_scores_that_cannot_be_read_set_the_item_aside_and_name_the_model(told: Any) -> None:
    inference = Scored([0.1] * 4)
    inference.told = lambda _: told
    failure = await captioned(Kind.ARTWORK, inference)
    assert isinstance(failure, Lasting)
    assert "score_caption" in failure.reason


async def test_a_scorer_that_is_away_holds_the_batch() -> None:
    inference = Scored([0.1] * 4)

    async def away(model: str) -> None:
        if model == "score_caption":
            raise Passing("model server", "is starting")

    inference.before = away
    with pytest.raises(Passing):
        await captioned(Kind.ARTWORK, inference)


@pytest.mark.parametrize("kind", Kind)
async def test_a_profile_without_a_scorer_asks_once_and_its_digest_is_what_it_was(kind: Kind) -> None:
    inference = Scored([])
    body = await captioned(kind, inference, profile=PROFILE)
    assert body.gates is None
    assert inference.calls.count(f"caption_{'picture' if kind is Kind.ARTWORK else 'sound'}") == 1
    assert "score_caption" not in inference.calls
    job = job_of(kind, Item(kind))
    # Exactly what decided captions before there were gates: results of then are still answers.
    assert of_captions.STAGE.inputs(job, PROFILE) == {"catalogue": {"title": "A title"}, "prompts": "1"}
    assert of_captions.STAGE.models(kind, PROFILE) == of_captions.STAGE.capabilities(kind)


def test_the_gates_are_part_of_what_decides_a_caption() -> None:
    job = job_of(Kind.ARTWORK, Item(Kind.ARTWORK))
    changed = [
        GATED,
        GATED.model_copy(update={"gates": Gates(threshold=0.7)}),
        GATED.model_copy(update={"gates": Gates(regenerations=2)}),
    ]
    digests = {json.dumps(of_captions.STAGE.inputs(job, profile), sort_keys=True) for profile in (PROFILE, *changed)}
    assert len(digests) == 4
    assert "score_caption" in of_captions.STAGE.models(Kind.ARTWORK, GATED)


async def test_the_scorer_is_probed_like_any_model() -> None:
    inference = Scored([0.5])
    inference.told = lambda _: {"score": 1.0}

    async def infer(model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        seen.append(model)
        raise Declined("nothing to see")

    seen: list[str] = []
    await Models(Hooked(infer), GATED).answers("score_caption")
    assert seen == ["score_caption"]


@pytest.mark.parametrize(
    "told",
    ['{"ending": "complete"}', '{"phrases": [["calm", 0.5]], "ending": "slow"}', '[["calm"]]', '[["calm", 7]]', "3"],
)
async def test_phrases_that_cannot_be_read_set_the_item_aside(told: str) -> None:
    inference = Scored([0.9])

    async def infer(model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        found = await Scored.infer(inference, model, inputs, outputs)
        if "PHRASES" in found:
            found["PHRASES"][:, 0] = told.encode()
        return found

    (failure,) = await of_captions.caption([job_of(Kind.ARTWORK, Item(Kind.ARTWORK))], Tools(Hooked(infer), GATED))
    assert isinstance(failure, Lasting)
    assert "caption_picture" in failure.reason


# -- what people see -------------------------------------------------------------------------------------------


def counted(kind: str) -> dict[str, float]:
    """The metrics of one kind, flattened."""
    found: dict[str, float] = {}
    for metric in (CAPTION_ATTEMPTS, CAPTION_REGENERATIONS, CAPTIONS_KEPT, CAPTION_SCORE):
        for family in metric.collect():
            for sample in family.samples:
                if sample.labels.get("kind") == kind and not sample.name.endswith("_created"):
                    labels = ",".join(f"{k}={v}" for k, v in sample.labels.items() if k != "kind")
                    found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def test_metrics_count_each_attempt_each_regeneration_and_what_was_kept() -> None:
    before = counted("track")
    await captioned(Kind.TRACK, Scored([0.2, 0.9]), captions=CaptionMetrics())
    await captioned(Kind.TRACK, Scored([0.2, 0.1, 0.1, 0.1]), captions=CaptionMetrics())
    await captioned(Kind.TRACK, Scored([0.9], references=False), captions=CaptionMetrics())
    after = counted("track")
    moved = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    assert moved["promenade_caption_attempts_total{attempt=1,outcome=below}"] == 10
    assert moved["promenade_caption_attempts_total{attempt=2,outcome=passed}"] == 5
    assert moved["promenade_caption_attempts_total{attempt=2,outcome=below}"] == 5
    assert moved["promenade_caption_attempts_total{attempt=4,outcome=below}"] == 5
    assert moved["promenade_caption_regenerations_total{}"] == 5 + 15
    assert moved["promenade_captions_kept_total{outcome=passed}"] == 5
    assert moved["promenade_captions_kept_total{outcome=below}"] == 5
    assert moved["promenade_captions_kept_total{outcome=ungated}"] == 5
    assert moved["promenade_caption_score_count{attempt=1}"] == 10
    assert moved["promenade_caption_score_sum{attempt=2}"] == pytest.approx(5 * 0.9 + 5 * 0.1)


def test_status_says_in_words_whether_captions_are_gated() -> None:
    assert "captions are not gated" in display.gates_line(PROFILE)
    assert "0.8" in display.gates_line(GATED) and "3 times" in display.gates_line(GATED)
    scored = GATED.model_copy(update={"gates": Gates(regenerations=0)})
    assert "kept all the same" in display.gates_line(scored)


@pytest.mark.stack
async def test_gated_captions_go_into_the_record_and_are_shown(world: World) -> None:
    inference = Scored([0.2, 0.9])
    world.inference = inference
    handler = ItemHandler(
        of_captions.STAGE,
        world.records,
        Tools(inference, GATED, captions=CaptionMetrics()),
        world.publish,
        world._load,
        world.withdrawing.undo,
    )
    item = await put_item(world.records, "a picture", Kind.ARTWORK)
    await world.announce(item)
    (arrived,) = world.published.events
    await handler.handle([world.delivery(arrived)])
    state = await world.records.state(item)
    result = await world.records.newest_result(state, Stage.CAPTION)
    assert isinstance(result, Result) and isinstance(result.body, CaptionBody) and result.body.gates is not None
    assert result.provenance.models["score_caption"] == "1"
    assert isinstance(world.published.events[-1], Captioned)
    # Again: the answer is there, nobody is asked.
    calls = len(inference.calls)
    await handler.handle([world.delivery(arrived)])
    assert len(inference.calls) == calls

    view = await item_view(world.records, item)
    assert view.caption_threshold == 0.8
    assert all(part.gate is not None and len(part.gate.attempts) == 2 for part in view.parts)
    printed = io.StringIO()
    display.show_item(Console(file=printed, width=200), view)
    assert (
        printed.getvalue().count("caption scored 0.900 (clip score 0.900, pac score 0.900), passed, attempt 2 of 2")
        == PARTS
    )

    async def ready() -> dict[str, str]:
        return {}

    for profile in (GATED, PROFILE):
        api = make_api(Reach(world.records, profile, Inference("127.0.0.1:1"), None, {}, ready))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://here") as client:
            assert (await client.get("/api/status")).json()["captions_gated"] is (profile is GATED)
            shown = (await client.get(f"/api/items/{item}")).json()
            assert [len(part["gate"]["attempts"]) for part in shown["parts"]] == [2] * PARTS

    assert (await status_view(world.records)).captions_gated is None
    assert (await status_view(world.records, GATED)).captions_gated is True
    assert (await status_view(world.records, PROFILE)).captions_gated is False


@pytest.mark.stack
async def test_the_status_command_tells_people_and_programs_about_the_gates(
    world: World, object_store: Reached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typed = Typed(world, object_store, monkeypatch)
    told = await typed("status", "--data", str(tmp_path))
    assert "captions are not gated: this profile serves no score_caption" in told
    assert json.loads(await typed("status", "--data", str(tmp_path), "--json"))["counts"]["captions_gated"] is False

    edge = (Path(of_captions.__file__).parents[1] / "model_repository" / "edge.toml").read_text()
    gated = tmp_path / "gated.toml"
    scorer = 'score_caption = { version = "1", reads = ["media", "text"] }'
    gated.write_text(edge.replace("[models]\n", f"[gates]\nthreshold = 0.7\nregenerations = 2\n[models]\n{scorer}\n"))
    monkeypatch.setenv("PROMENADE_PROFILE", str(gated))
    assert read_profile(gated).gates == Gates(threshold=0.7, regenerations=2)
    told = await typed("status", "--data", str(tmp_path))
    assert "captions are gated: below 0.7 they are asked for again, 2 times at most" in told
    assert json.loads(await typed("status", "--data", str(tmp_path), "--json"))["counts"]["captions_gated"] is True

    # Without a profile the counts are told all the same.
    monkeypatch.setenv("PROMENADE_PROFILE", str(tmp_path / "none.toml"))
    told = await typed("status", "--data", str(tmp_path))
    assert "0 pictures" in told and "gated" not in told
    assert json.loads(await typed("status", "--data", str(tmp_path), "--json"))["counts"]["captions_gated"] is None
