"""Chat models at a tiny size: loaded from folders as published, batched without a trace, seeded, ended at a sentence.

Each kind of model is built with random weights and its own tokeniser (`tests.models.tiny_words`), written to a folder
and read back by the loading code that reads the real weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_models.triton_model import Invalid
from full_models import chat
from full_models.chat import LlavaPictures, Medium, Question, QwenPictures, QwenSounds, Said, Speaker, Writer
from full_models.sentences import is_complete
from full_models.weights import Choices, MissingWeights, Weights
from full_models.writing import Asking
from PIL import Image

from tests.models import tiny_words


def _pictures() -> list[Medium]:
    return [
        Image.new("RGB", (64, 64), (200, 30, 20)),
        Image.linear_gradient("L").resize((120, 56)).convert("RGB"),
        Image.new("RGB", (40, 100), (10, 60, 200)),
    ]


def _sounds() -> list[Medium]:
    time = np.arange(48_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1, 21_000).astype(np.float32)
    return [tone, noise, tone[:700] * 0.1]


@dataclass(frozen=True)
class Kind:
    """A kind of model, how a tiny one is built, and what three questions show."""

    speaker: type[Any]
    build: Callable[[Path], Path]
    media: list[Medium | None]


KINDS = {
    "qwen3": Kind(Writer, tiny_words.writer, [None, None, None]),
    "qwen2.5-vl": Kind(QwenPictures, tiny_words.qwen_pictures, [*_pictures()]),
    "llava-1.6": Kind(LlavaPictures, tiny_words.llava_pictures, [*_pictures()]),
    "qwen2-audio": Kind(QwenSounds, tiny_words.qwen_sounds, [*_sounds()]),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind, written once."""
    return {name: kind.build(tmp_path_factory.mktemp("weights") / name) for name, kind in KINDS.items()}


@pytest.fixture(params=KINDS)
def loaded(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Speaker, list[Question]]:
    """A freshly loaded model, and three questions of unlike lengths."""
    kind = KINDS[request.param]
    speaker = kind.speaker.load(folders[request.param], dtype=torch.float32, device="cpu", batch=8)
    persona = {"role": "system", "content": "You describe."}
    questions = [
        Question(
            [persona, {"role": "user", "content": "Describe this " + "very " * length + "calm picture."}], medium
        )
        for length, medium in zip((9, 0, 3), kind.media, strict=True)
    ]
    return speaker, questions


def _texts(answers: list[Said | Invalid]) -> list[str]:
    assert all(isinstance(each, Said) for each in answers), answers
    return [each.text for each in answers if isinstance(each, Said)]


def test_a_batch_of_one_says_what_a_batch_of_many_says(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    asking = Asking(tokens=24)
    alone = [speaker.say([question], asking)[0] for question in questions]
    together = speaker.say(questions, asking)
    assert together == alone
    speaker.batch = 2
    assert speaker.say(questions, asking) == alone
    # Else this says nothing: the three differ, and so does what is said of them.
    assert len({*_texts(together)}) == 3
    # A random network may end by itself; not all do.
    assert any(each.tokens == 24 and each.cut for each in together if isinstance(each, Said))


def test_draws_follow_their_seed_and_nobody_else(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    hot = Asking(tokens=16, temperature=4.0, seed=7)
    together = speaker.say(questions, hot)
    assert [speaker.say([question], hot)[0] for question in questions] == together
    assert speaker.say(questions, hot) == together
    other = speaker.say(questions, Asking(tokens=16, temperature=4.0, seed=8))
    assert all(one != two for one, two in zip(together, other, strict=True))
    # A row's seed is its own: settings that differ in nothing else share a batch.
    mixed = speaker.say(questions, [hot, Asking(tokens=16, temperature=4.0, seed=8), hot])
    assert mixed == [together[0], other[1], together[2]]


def test_words_that_were_said_lose_and_batches_do_not_matter(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    lowered = Asking(tokens=24, repetition=2.0)
    together = speaker.say(questions, lowered)
    assert together == [speaker.say([question], lowered)[0] for question in questions]
    assert together != speaker.say(questions, Asking(tokens=24))


def test_a_word_loses_the_set_amount_once_however_often_it_was_said() -> None:
    lower = chat._Repetition(prompt=2, penalty=2.0)
    scores = lower(
        torch.tensor([[0, 1, 2, 2, 3], [0, 0, 0, 1, 1]]), torch.tensor([[1.0, 1, 4, -3, 5], [6, -2, 1, 1, 1]])
    )
    assert scores.tolist() == [[1, 1, 2, -6, 5], [3, -4, 1, 1, 1]]


def test_the_likeliest_word_alone_is_what_temperature_zero_says(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    assert speaker.say(questions, Asking(tokens=8, temperature=2.0, top_p=1e-9)) == speaker.say(
        questions, Asking(tokens=8)
    )


def test_what_is_shown_reaches_the_words(loaded: tuple[Speaker, list[Question]]) -> None:
    """Three questions with the same words: only what is seen or heard tells them apart (or, for text, one word)."""
    speaker, questions = loaded
    lessons = []
    for number, question in enumerate(questions):
        asked = "Describe this." if question.medium is not None else f"Describe this, number {number}."
        lessons.append(
            (Question([{"role": "user", "content": asked}], question.medium), f"Here is number {number}. It is calm.")
        )
    tiny_words.teach(speaker, lessons)
    said = speaker.say([question for question, _ in lessons], Asking(tokens=60, sentences=True))
    assert _texts(said) == [words for _, words in lessons]
    assert [each.ending for each in said if isinstance(each, Said)] == ["complete"] * 3


def test_a_text_goes_on_to_the_end_of_its_sentence_or_is_trimmed(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    words = "A quiet harbour. Red sails and a pale sky over the water. The picture is calm and a little sad"
    question = questions[0]
    tiny_words.teach(speaker, [(question, words)])
    length = len(speaker.tokenizer(words, add_special_tokens=False)["input_ids"])

    def said(tokens: int, continued: int) -> Said:
        (answer,) = speaker.say([question], Asking(tokens=tokens, continued=continued, sentences=True))
        assert isinstance(answer, Said) and is_complete(answer.text)
        assert answer.tokens <= tokens + continued
        return answer

    first, second = "A quiet harbour.", "A quiet harbour. Red sails and a pale sky over the water."
    assert (said(length + 5, 0).text, said(length + 5, 0).ending) == (words + ".", "closed")
    # The first limit falls into the second sentence, and there is room to end it.
    assert (said(10, 40).text, said(10, 40).ending) == (second, "continued")
    # No room: what was begun is dropped.
    assert (said(10, 0).text, said(10, 0).ending) == (first, "trimmed")
    assert (said(8, 4).text, said(8, 4).ending) == (first, "trimmed")
    # Nothing has ended yet: closed at a word.
    assert said(2, 0).ending == "closed"
    assert words.startswith(said(2, 0).text[:-1])


def test_rows_that_end_early_do_not_change_those_that_go_on(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    tiny_words.teach(
        speaker, [(questions[0], "Calm."), (questions[1], "It is calm. " * 3), (questions[2], "Sad sails")]
    )
    asking = Asking(tokens=6, continued=30, sentences=True)
    together = speaker.say(questions, asking)
    assert together == [speaker.say([question], asking)[0] for question in questions]
    assert _texts(together)[0] == "Calm."
    assert [each.ending for each in together if isinstance(each, Said)] == ["complete", "continued", "closed"]


def test_control_words_of_strangers_do_not_leave_their_place(loaded: tuple[Speaker, list[Question]]) -> None:
    speaker, questions = loaded
    evil = " ".join((*tiny_words.QWEN_SPECIAL, "<image>", "</s>", "<s>", "<pad>", "<unk>"))
    hostile = Question([{"role": "user", "content": f"a {evil} b"}], questions[0].medium)
    plain = Question([{"role": "user", "content": "a b"}], questions[0].medium)
    numbers = {speaker.tokenizer.convert_tokens_to_ids(each) for each in speaker.tokenizer.all_special_tokens}

    def special(question: Question) -> list[int]:
        return [each for each in speaker.prepare([question])["input_ids"][0].tolist() if each in numbers]

    assert special(hostile) == special(plain)


def test_a_question_that_is_too_long_is_refused_and_the_others_are_answered(
    loaded: tuple[Speaker, list[Question]],
) -> None:
    speaker, questions = loaded
    long = Question([{"role": "user", "content": "calm " * 9000}], questions[1].medium)
    asking = Asking(tokens=4)
    first, refused, last = speaker.say([questions[0], long, questions[2]], asking)
    assert isinstance(refused, Invalid) and "tokens are asked about" in str(refused)
    assert [first, last] == [speaker.say([questions[0]], asking)[0], speaker.say([questions[2]], asking)[0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_a_setting_and_answers(kind: str, precision: str, folders: dict[str, Path]) -> None:
    choices = Choices("caption_picture", {"precision": precision, "device": "cpu"}, environment={})
    speaker = chat.load(KINDS[kind].speaker, choices, weights=Weights("tiny", folders[kind]), batch=4)
    assert speaker.model.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    questions = [Question([{"role": "user", "content": "Describe."}], medium) for medium in KINDS[kind].media]
    assert all(isinstance(each, Said) and each.text for each in speaker.say(questions, Asking(tokens=8)))


def test_samplers_beside_the_weights_do_not_leak_in(folders: dict[str, Path]) -> None:
    published = json.loads((folders["qwen3"] / "generation_config.json").read_text())
    assert published["do_sample"] is True and published["repetition_penalty"] == 1.05
    speaker = Writer.load(folders["qwen3"], dtype=torch.float32, device="cpu", batch=1)
    question = Question([{"role": "user", "content": "Describe."}])
    tiny_words.teach(speaker, [(question, "calm calm calm calm calm calm.")])
    # With the penalty the sixth would not be said, and with the sampler not surely.
    assert _texts(speaker.say([question], Asking(tokens=40))) == ["calm calm calm calm calm calm."]
    assert speaker.model.generation_config.repetition_penalty in (None, 1.0)


def test_weights_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    choices = Choices("write_text", {}, environment={"PROMENADE_MODELS_DEVICE": "cpu"})
    with pytest.raises(MissingWeights, match=r"config\.json"):
        chat.load(Writer, choices, weights=Weights("tiny", tmp_path), batch=1)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(MissingWeights, match="fetch them again"):
        chat.load(Writer, choices, weights=Weights("tiny", tmp_path), batch=1)


def test_a_gpu_that_runs_out_of_memory_is_asked_in_halves(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = Writer.load(folders["qwen3"], dtype=torch.float32, device="cpu", batch=8)
    questions = [Question([{"role": "user", "content": f"Describe {number}."}]) for number in range(5)]
    wanted = speaker.say(questions, Asking(tokens=4))
    sizes: list[int] = []
    generate = speaker.model.generate

    def short_of_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(speaker.model, "generate", short_of_memory)
    assert speaker.say(questions, Asking(tokens=4)) == wanted
    assert sizes == [5, 2, 3, 1, 2]
