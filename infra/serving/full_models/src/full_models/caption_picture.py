"""What a captioner of pictures is shown and asked: Qwen2.5-VL (CMEAN) or LLaVA-1.6-Mistral (ArtSound).

The caption stage says which part is to be described and what it wants to know; here each captioner gets its persona
and, where the catalogue knows something, what people say of the work. Which captioner answers is a setting. Running
it is left to `full_models.chat`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_models.triton_model import Invalid
from PIL import Image, UnidentifiedImageError

from full_models import chat
from full_models.chat import LlavaPictures, Question, QwenPictures, Said, Speaker
from full_models.weights import BadChoice, Choices
from full_models.writing import Asking, asking_of

REPETITION: Final = 1.05
"""See `Asking.repetition`; the value that Qwen2.5-VL is published with (generation_config.json). Without it a model
that takes the likeliest word each time may say the same sentence again and again."""

MOST_SIDE: Final = 16_384
"""Pixels; as the pipeline's own limit of a picture's side."""

LONGEST_SHAPE: Final = 100
"""Times the longer side may be longer than the shorter: Qwen2.5-VL's preprocessing refuses 200."""


@dataclass(frozen=True, slots=True)
class Captioner:
    """One of the captioners that can be chosen.

    Attributes:
        kind: the class that loads and runs it.
        weights: as published.
        pixels: the most pixels of a picture it is shown; the aspect is kept.
        persona: who it is and what it writes about, in the system's place.
        wish: what is asked where the caller asks nothing.
    """

    kind: type[Speaker]
    weights: str
    pixels: int
    persona: str
    wish: str


CAPTIONERS: Final[Mapping[str, Captioner]] = {
    "qwen2.5-vl": Captioner(
        kind=QwenPictures,
        weights="Qwen/Qwen2.5-VL-7B-Instruct",
        # CMEAN, section 4.1: shown at 448 x 448. The centre crop of the paper, which loses the edges, is left out.
        pixels=448 * 448,
        persona=(
            "You look at works of art and put into words what you see and what it does to a viewer. You speak of "
            "what is shown, of colours and light, of how the picture is composed, and above all of the feelings it "
            "stirs. You write flowing prose in English, in whole sentences, without headings or lists, in at most "
            "200 words."
        ),
        wish="Describe this picture: what it shows, its colours, its composition, and the feelings it stirs.",
    ),
    "llava-1.6": Captioner(
        kind=LlavaPictures,
        weights="llava-hf/llava-v1.6-mistral-7b-hf",
        # The largest square that its tiles cover (2 x 2 of 336, and the whole); more would be thrown away.
        pixels=672 * 672,
        persona=(
            "You know art well and write short, dense descriptions of it: the subject, the mood or feeling it "
            "carries, technique and style, and the period or school it may belong to. Write whole sentences in "
            "English, without headings or lists, in at most 120 words."
        ),
        wish="Describe this work of art.",
    ),
}

_FACTS: Final = (
    ("title", "its title is “{}”"),
    ("artist", "it is by {}"),
    ("year", "it was made in {}"),
    ("style", "its style is called {}"),
    ("genre", "its genre is {}"),
)
"""What of a catalogue is told, and how. (CMEAN's code puts the same facts beside its prompt.)"""


def known(catalogue: Mapping[str, Any]) -> str:
    """What people say of an item, as one sentence to be put into a prompt; empty where nobody said anything."""
    facts = [
        wording.format(" ".join(str(catalogue[field]).split()))
        for field, wording in _FACTS
        if str(catalogue.get(field) or "").strip()
    ]
    return f"What is known of it: {'; '.join(facts)}." if facts else ""


def read_catalogue(text: str) -> dict[str, Any]:
    """The catalogue's JSON object; empty text is an empty catalogue.

    Raises:
        Invalid: it is something else.
    """
    if not text.strip():
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("CATALOGUE is not JSON") from None
    if not isinstance(given, dict):
        raise Invalid("CATALOGUE is not a JSON object")
    return given


def opened(encoded: bytes, pixels: int) -> Image.Image:
    """The picture in RGB, made smaller where it has more pixels than `pixels`, its aspect kept.

    Raises:
        Invalid: it is empty, cannot be decoded, is too large, or is too long and thin to be seen.
    """
    if not encoded:
        raise Invalid("IMAGE is empty: this captioner looks at the picture; its profile must say that it reads media")
    try:
        found = Image.open(io.BytesIO(encoded))
        width, height = found.size
        if max(width, height) > MOST_SIDE:
            raise Invalid(f"IMAGE has {width}x{height} pixels; a side may have at most {MOST_SIDE}")
        if max(width, height) > LONGEST_SHAPE * min(width, height):
            raise Invalid(f"IMAGE has {width}x{height} pixels: it is too long and thin to be seen")
        image = found.convert("RGB")
    except Invalid:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Invalid("IMAGE cannot be decoded as a picture") from None
    if width * height <= pixels:
        return image
    scale = math.sqrt(pixels / (width * height))
    return image.resize(
        (max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BICUBIC, reducing_gap=3.0
    )


class PictureCaptions:
    """The chosen captioner, loaded.

    Args:
        speaker: the loaded model.
        captioner: what it is asked.
        asking: limits, temperature, seed.
        pixels: the most pixels that are shown.
    """

    def __init__(self, speaker: Speaker, captioner: Captioner, asking: Asking, pixels: int) -> None:
        self._speaker = speaker
        self._captioner = captioner
        self._asking = asking
        self._pixels = pixels

    @classmethod
    def load(cls, choices: Choices) -> PictureCaptions:
        """As the settings `captioner`, `weights`, `precision`, `device`, `batch`, `pixels` and `asking_of`'s say.

        Raises:
            BadChoice: a setting cannot be used.
            MissingWeights: the weights are not there.
        """
        name = choices.text("captioner", "qwen2.5-vl")
        if name not in CAPTIONERS:
            raise BadChoice(f"captioner of {choices.model} is {name!r}: give one of {', '.join(CAPTIONERS)}")
        captioner = CAPTIONERS[name]
        weights = choices.weights(default=captioner.weights)
        speaker = chat.load(captioner.kind, choices, weights=weights, batch=8)
        # 512 tokens as in CMEAN, and as many again at most to end the sentence.
        asking = asking_of(choices, tokens=512, continued=512, repetition=REPETITION, sentences=True)
        return cls(speaker, captioner, asking, choices.number("pixels", captioner.pixels, lowest=28 * 28))

    def question(self, encoded: bytes, prompt: str, catalogue: str) -> Question:
        """What is shown and asked for one part.

        Args:
            encoded: the picture, or the part of it, as a file's bytes.
            prompt: what the caller wants described; empty: the captioner's own wish.
            catalogue: JSON.

        Raises:
            Invalid: the picture or the catalogue cannot be read.
        """
        facts = known(read_catalogue(catalogue))
        asked = prompt.strip() or self._captioner.wish
        messages = (
            {"role": "system", "content": self._captioner.persona},
            {"role": "user", "content": f"{facts}\n{asked}" if facts else asked},
        )
        return Question(messages, opened(encoded, self._pixels))

    def describe(self, questions: Sequence[Question]) -> list[Said | Invalid]:
        """A caption for each, ending at a sentence; `Invalid` where the captioner said no word."""
        return [
            Invalid("the captioner answered without a word") if isinstance(each, Said) and not each.text else each
            for each in self._speaker.say(questions, self._asking)
        ]
