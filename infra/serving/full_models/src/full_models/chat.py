"""Models that answer in words: Qwen3, Qwen2.5-VL, LLaVA-1.6 and Qwen2-Audio behind one way of asking.

Loading (through transformers, from a folder), chat templates, batches padded on the left, seeded sampling, and
captions that end at a sentence. What is asked is left to `full_models.caption_picture`, `full_models.caption_sound`,
`full_models.fusion` and `full_models.score_emotion`.

An answer does not depend on who else is in the batch: rows are padded on the left and masked, and where a temperature
is set each row draws its own noise from its own seed (the Gumbel-max way: adding Gumbel noise to logits / temperature
and taking the largest is a draw from their softmax). This holds to the last word in fp32; in half precision kernels
round differently for different batches, so that words whose chances are nearly equal may change places there.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from edge_models.triton_model import Invalid
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    GenerationConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen3ForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)

from full_models.sentences import Ending, finish, may_stop, plain
from full_models.weights import BadChoice, Choices, MissingWeights, Weights
from full_models.writing import Asking, Message

SAMPLE_RATE: Final = 16_000
SHORTEST_SOUND: Final = SAMPLE_RATE // 2
"""Samples that a sound is padded to at least: below 7 frames of 10 ms Qwen2-Audio's placeholder is a single token,
and transformers then takes another way of putting sound into the text."""

_SEEN_WORDS: Final = 64
"""How many of the last tokens are read to see whether a sentence has ended: more than any abbreviation needs."""

Medium = Image.Image | NDArray[np.float32]
"""A picture, or mono sound at 16 kHz of at most 30 s."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one row is asked: a conversation, and what its last user turn shows or plays (None: nothing)."""

    messages: Sequence[Message]
    medium: Medium | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """An answer.

    Attributes:
        text: what was said; with `Asking.sentences` one paragraph of plain sentences.
        ending: how it came to its last sentence (`full_models.sentences.Ending`); empty without `sentences`.
        tokens: how many tokens were made.
        cut: the last limit ended it.
    """

    text: str
    ending: Ending | str
    tokens: int
    cut: bool


class _SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Adds each row's own Gumbel noise to its logits over temperature, so that the largest is a seeded draw."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, device: torch.device) -> None:
        self._generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature
        self._top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits = scores.float() / self._temperature
        if self._top_p < 1:
            ordered, places = logits.sort(dim=-1, descending=True)
            chances = ordered.softmax(-1)
            # A word stays while those before it have not yet made up top_p; the likeliest always stays.
            out = chances.cumsum(-1) - chances >= self._top_p
            logits = logits.masked_fill(out.gather(-1, places.argsort(-1)), -torch.inf)
        noise = torch.stack(
            [
                torch.rand(logits.shape[-1], generator=generator, device=logits.device, dtype=torch.float32)
                for generator in self._generators
            ]
        )
        tiny = torch.finfo(torch.float32).tiny
        return logits - torch.log(-torch.log(noise.clamp(tiny, 1 - 2**-24)))


class _Repetition(LogitsProcessor):  # type: ignore[misc]
    """Lowers words that the answer already holds. The library's own way counts the question's words and the padding
    too, so that a row's answer would depend on how long the others are."""

    def __init__(self, prompt: int, penalty: float) -> None:
        self._prompt = prompt
        self._penalty = penalty

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids[:, self._prompt :]
        logits = scores.gather(1, said)
        return scores.scatter(1, said, torch.where(logits < 0, logits * self._penalty, logits / self._penalty))


class _SentenceEnd(StoppingCriteria):  # type: ignore[misc]
    """Stops a row at the first end of a sentence after the first limit, and remembers where."""

    def __init__(self, tokenizer: Any, prompt: int, tokens: int, rows: int) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._tokens = tokens
        self.stopped: list[int | None] = [None] * rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        made = input_ids.shape[1] - self._prompt
        if made >= self._tokens:
            for row, stopped in enumerate(self.stopped):
                if stopped is None:
                    last = input_ids[row, self._prompt :][-_SEEN_WORDS:]
                    if may_stop(plain(self._tokenizer.decode(last, skip_special_tokens=True))):
                        self.stopped[row] = made
        return torch.tensor([place is not None for place in self.stopped], device=input_ids.device)


class Speaker(ABC):
    """A loaded model that answers questions.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: of the model; padding is set to the left here.
        batch: the most rows it takes at once; halved by itself where the GPU's memory does not do.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch = batch
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        ends = model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self._ends = sorted({*ends, tokenizer.eos_token_id})
        # Whatever lies beside the weights (penalties, samplers) would be filled in silently otherwise.
        model.generation_config = GenerationConfig(eos_token_id=self._ends, pad_token_id=tokenizer.pad_token_id)
        self._special = sorted(
            {str(each) for each in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())},
            key=len,
            reverse=True,
        )

    @abstractmethod
    def prepare(self, questions: Sequence[Question]) -> Mapping[str, torch.Tensor]:
        """The model's tensors of these questions, padded on the left, on the CPU."""

    def say(self, questions: Sequence[Question], asking: Asking | Sequence[Asking]) -> list[Said | Invalid]:
        """Answer each question; a question that can never be answered gets an `Invalid` of its own.

        Args:
            asking: for all, or one for each; those that are alike share batches.
        """
        wanted = [asking] * len(questions) if isinstance(asking, Asking) else list(asking)
        answers: list[Said | Invalid] = [Invalid("not asked")] * len(questions)
        groups: dict[Asking, list[int]] = {}
        for place, each in enumerate(wanted):
            groups.setdefault(replace(each, seed=0), []).append(place)
        for places in groups.values():
            for start in range(0, len(places), self.batch):
                chosen = places[start : start + self.batch]
                said = self._within_memory(
                    [questions[place] for place in chosen], [wanted[place] for place in chosen]
                )
                for place, answer in zip(chosen, said, strict=True):
                    answers[place] = answer
        return answers

    def clean(self, text: str) -> str:
        """A stranger's text without the model's own control words, so that it cannot leave its place in the chat."""
        for word in self._special:
            text = text.replace(word, " ")
        return text

    def _cleaned(self, question: Question) -> list[dict[str, str]]:
        return [{"role": each["role"], "content": self.clean(each["content"])} for each in question.messages]

    def _within_memory(self, questions: Sequence[Question], asking: Sequence[Asking]) -> list[Said | Invalid]:
        try:
            answers: list[Said | Invalid] = self._answer(questions, asking)
            return answers
        except torch.cuda.OutOfMemoryError:
            if len(questions) == 1:
                raise
        torch.cuda.empty_cache()
        self.batch = half = max(1, len(questions) // 2)
        return [
            *self._within_memory(questions[:half], asking[:half]),
            *self._within_memory(questions[half:], asking[half:]),
        ]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _answer(self, questions: Sequence[Question], asking: Sequence[Asking]) -> list[Said | Invalid]:
        how = asking[0]
        tensors = self.prepare(questions)
        room = self._room() - how.tokens - how.continued
        lengths = tensors["attention_mask"].sum(-1).tolist()
        if max(lengths) > room:
            fitting = [place for place, length in enumerate(lengths) if length <= room]
            refusal = "{} tokens are asked about; the model reads at most {} before its answer"
            answers: list[Said | Invalid] = [Invalid(refusal.format(length, max(0, room))) for length in lengths]
            if fitting:
                said = self._answer([questions[each] for each in fitting], [asking[each] for each in fitting])
                for place, answer in zip(fitting, said, strict=True):
                    answers[place] = answer
            return answers
        device = self.model.device
        prompt = tensors["input_ids"].shape[1]
        ender = _SentenceEnd(self.tokenizer, prompt, how.tokens, len(questions))
        processors: list[LogitsProcessor] = []
        if how.repetition > 1:
            processors.append(_Repetition(prompt, how.repetition))
        if how.temperature > 0:
            seeds = [_seed(each.seed, question) for each, question in zip(asking, questions, strict=True)]
            processors.append(_SeededSampling(seeds, how.temperature, how.top_p, device))
        made = self.model.generate(
            **{
                name: tensor.to(device, self.model.dtype) if tensor.is_floating_point() else tensor.to(device)
                for name, tensor in tensors.items()
            },
            generation_config=GenerationConfig(
                max_new_tokens=how.tokens + how.continued,
                do_sample=False,
                eos_token_id=self._ends,
                pad_token_id=self.tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([ender] if how.sentences else []),
        )
        return [
            self._said(row[prompt:].tolist(), how, stopped)
            for row, stopped in zip(made.cpu(), ender.stopped, strict=True)
        ]

    def _said(self, tokens: Sequence[int], how: Asking, stopped: int | None) -> Said:
        count = next((place for place, token in enumerate(tokens) if token in self._ends), len(tokens))
        if stopped is not None and count < stopped:
            stopped = None  # it had ended by itself; what was looked at later was padding
        elif stopped is not None:
            count = stopped
        cut = stopped is None and count == how.tokens + how.continued
        text = self.tokenizer.decode(tokens[:count], skip_special_tokens=True)
        if not how.sentences:
            return Said(text.strip(), "", count, cut)
        finished, ending = finish(plain(text), cut=cut, went_on=stopped is not None or count > how.tokens)
        return Said(finished, ending, count, cut)

    def _room(self) -> int:
        text = self.model.config.get_text_config()
        return int(text.max_position_embeddings)


def _seed(seed: int, question: Question) -> int:
    """A seed for one row: the same for the same words and seed, whatever row it is."""
    digest = hashlib.sha256(str(seed).encode())
    for each in question.messages:
        digest.update(f"\0{each['role']}\0{each['content']}".encode())
    return int.from_bytes(digest.digest()[:7], "little")


class Writer(Speaker):
    """Qwen3 (Qwen3-4B in CMEAN, Qwen3-14B in ArtSound), its thinking switched off as in CMEAN."""

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str, batch: int) -> Writer:
        """Read a folder as published (config, safetensors, tokenizer with its chat template)."""
        return cls(_network(Qwen3ForCausalLM, folder, dtype, device), _tokenizer(folder), batch=batch)

    def prepare(self, questions: Sequence[Question]) -> Mapping[str, torch.Tensor]:
        """`input_ids` and `attention_mask`."""
        texts = [
            self.tokenizer.apply_chat_template(
                self._cleaned(question), tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for question in questions
        ]
        return _tensors(self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False))


class QwenPictures(Speaker):
    """Qwen2.5-VL: sees one picture a question.

    The library's own processor would want torchvision for the videos that are never shown here, so the placeholder is
    spread over the picture's tokens here: one for each merged patch (merge_size squared patches; Qwen2.5-VL report,
    section 2.1).
    """

    def __init__(self, model: Any, tokenizer: Any, pictures: Any, *, batch: int) -> None:
        super().__init__(model, tokenizer, batch=batch)
        self._pictures = pictures
        self._place = tokenizer.convert_ids_to_tokens(model.config.image_token_id)

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str, batch: int) -> QwenPictures:
        """Read a folder as published."""
        network = _network(Qwen2_5_VLForConditionalGeneration, folder, dtype, device)
        return cls(network, _tokenizer(folder), AutoImageProcessor.from_pretrained(folder), batch=batch)

    def prepare(self, questions: Sequence[Question]) -> Mapping[str, torch.Tensor]:
        """Token tensors, `pixel_values` of all pictures' patches and `image_grid_thw`, one row a picture."""
        seen = self._pictures(images=[question.medium for question in questions], return_tensors="pt")
        merged = (seen["image_grid_thw"].prod(-1) // self._pictures.merge_size**2).tolist()
        texts = []
        for question, count in zip(questions, merged, strict=True):
            text = self.tokenizer.apply_chat_template(
                _shown(self._cleaned(question), "image"), tokenize=False, add_generation_prompt=True
            )
            texts.append(text.replace(self._place, self._place * int(count)))
        tensors = _tensors(self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False))
        # 1 where a token stands for a piece of picture; the places in height and width are counted from it.
        kinds = (tensors["input_ids"] == self.model.config.image_token_id).long()
        return {**tensors, "mm_token_type_ids": kinds, **_tensors(seen)}


class LlavaPictures(Speaker):
    """LLaVA-1.6 (LLaVA-NeXT) on Mistral-7B: sees one picture a question, in tiles."""

    def __init__(self, model: Any, processor: Any, *, batch: int) -> None:
        super().__init__(model, processor.tokenizer, batch=batch)
        self._processor = processor
        if processor.patch_size is None:
            # Early revisions of the published processor leave these to the model's configuration.
            processor.patch_size = model.config.vision_config.patch_size
            processor.vision_feature_select_strategy = model.config.vision_feature_select_strategy
            processor.num_additional_image_tokens = 1

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str, batch: int) -> LlavaPictures:
        """Read a folder as published."""
        network = _network(LlavaNextForConditionalGeneration, folder, dtype, device)
        return cls(network, LlavaNextProcessor.from_pretrained(folder), batch=batch)

    def prepare(self, questions: Sequence[Question]) -> Mapping[str, torch.Tensor]:
        """Token tensors, `pixel_values` [n, tiles, 3, h, w] and `image_sizes`."""
        texts = [
            self._processor.apply_chat_template(
                _shown(_one_turn(self._cleaned(question)), "image"), tokenize=False, add_generation_prompt=True
            )
            for question in questions
        ]
        return _tensors(
            self._processor(
                images=[question.medium for question in questions],
                text=texts,
                padding=True,
                return_tensors="pt",
                add_special_tokens=not _begun(texts, self.tokenizer),
            )
        )


class QwenSounds(Speaker):
    """Qwen2-Audio: hears one stretch of at most 30 s a question."""

    def __init__(self, model: Any, processor: Any, *, batch: int) -> None:
        super().__init__(model, processor.tokenizer, batch=batch)
        self._processor = processor

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str, batch: int) -> QwenSounds:
        """Read a folder as published."""
        network = _network(Qwen2AudioForConditionalGeneration, folder, dtype, device)
        return cls(network, Qwen2AudioProcessor.from_pretrained(folder), batch=batch)

    def prepare(self, questions: Sequence[Question]) -> Mapping[str, torch.Tensor]:
        """Token tensors, `input_features` [n, mels, frames] and `feature_attention_mask`."""
        texts = [
            self._processor.apply_chat_template(
                _shown(self._cleaned(question), "audio"), tokenize=False, add_generation_prompt=True
            )
            for question in questions
        ]
        sounds = []
        for question in questions:
            sound = np.asarray(question.medium, np.float32)
            sounds.append(np.pad(sound, (0, max(0, SHORTEST_SOUND - len(sound)))))
        return _tensors(
            self._processor(
                text=texts,
                audio=sounds,
                sampling_rate=SAMPLE_RATE,
                padding=True,
                return_tensors="pt",
                add_special_tokens=not _begun(texts, self.tokenizer),
            )
        )


AnySpeaker = TypeVar("AnySpeaker", bound=Speaker)


def load(kind: type[AnySpeaker], choices: Choices, *, weights: Weights, batch: int) -> AnySpeaker:
    """A speaker as a model's settings want it: bf16 on a GPU and fp32 on a CPU unless `precision` says otherwise.

    Raises:
        MissingWeights: the folder lacks files, or they cannot be read.
    """
    device = choices.device()
    weights.file("config.json")
    loader: Callable[..., AnySpeaker] = kind.load  # type: ignore[attr-defined]
    try:
        dtype = choices.dtype("fp32" if device == "cpu" else "bf16")
        return loader(weights.folder, dtype=dtype, device=device, batch=choices.batch(batch))
    except (OSError, ValueError) as error:
        if isinstance(error, BadChoice):
            raise
        raise MissingWeights(
            f"{choices.model}: the weights {weights.name} in {weights.folder} cannot be read: {error}; fetch them "
            "again (promenade models fetch --profile full), or name a folder that holds them"
        ) from error


def _network(kind: Any, folder: Path, dtype: torch.dtype, device: str) -> Any:
    network, report = kind.from_pretrained(
        folder,
        dtype=dtype,
        device_map=device,
        attn_implementation="sdpa",
        local_files_only=True,
        output_loading_info=True,
    )
    # The library would fill what is missing with random numbers, and go on.
    faults = [*report.get("missing_keys", ()), *report.get("mismatched_keys", ())]
    if faults:
        raise ValueError(f"{len(faults)} tensors are missing or of another shape, {faults[0]} among them")
    return network.eval()


def _tokenizer(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    beside = folder / "chat_template.json"
    if tokenizer.chat_template is None and beside.is_file():
        # Where models of several media were published first.
        tokenizer.chat_template = json.loads(beside.read_text(encoding="utf-8"))["chat_template"]
    return tokenizer


def _tensors(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name: value for name, value in found.items() if isinstance(value, torch.Tensor) and name != "token_type_ids"
    }


def _shown(messages: Sequence[Mapping[str, str]], what: str) -> list[dict[str, Any]]:
    """Messages as templates of several media take them: the last user turn shows the medium, then says its words."""
    last = max(place for place, each in enumerate(messages) if each["role"] == "user")
    shaped: list[dict[str, Any]] = []
    for place, each in enumerate(messages):
        content: list[dict[str, str]] = [{"type": "text", "text": each["content"]}]
        if place == last:
            content.insert(0, {"type": what, what: ""} if what == "audio" else {"type": what})
        shaped.append({"role": each["role"], "content": content})
    return shaped


def _one_turn(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The system's words put before the first user turn: Mistral was taught no system role."""
    system = "\n".join(each["content"] for each in messages if each["role"] == "system")
    rest = [dict(each) for each in messages if each["role"] != "system"]
    if system and rest:
        rest[0]["content"] = f"{system}\n{rest[0]['content']}"
    return rest


def _begun(texts: Sequence[str], tokenizer: Any) -> bool:
    """Whether the template itself has set the token that begins a text."""
    begin = tokenizer.bos_token
    return bool(begin) and all(text.startswith(begin) for text in texts)
