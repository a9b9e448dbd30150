"""What captioners of sound hear and are asked: Qwen2-Audio (CMEAN), LP-MusicCaps (ArtSound), or both.

A part of a track comes as windows of at most 30 s. Qwen2-Audio hears each whole window; LP-MusicCaps hears chunks of
10 s, the tail kept: the last chunk is the window's last 10 s. Where that gives several texts, Qwen3 (the model
`write_text`) fuses them into one; where it gives one, that one is the caption. Running networks is left to
`full_models.chat` and `networks.music_captioner`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from edge_models.triton_model import Array, Call, Invalid
from numpy.typing import NDArray

from full_models import chat, fusion
from full_models.caption_picture import REPETITION, known, read_catalogue
from full_models.chat import SAMPLE_RATE, Question, QwenSounds, Said, Speaker
from full_models.sentences import Ending, finish, plain
from full_models.weights import BadChoice, Choices, MissingWeights
from full_models.writing import MODEL, Asking, asking_of, write
from networks import music_captioner
from networks.checkpoints import CheckpointError

CAPTIONERS: Final = ("qwen2-audio", "lp-musiccaps", "both")

CHUNK_SECONDS: Final = 10
"""Of LP-MusicCaps: its network takes exactly 10 s (its paper, section 4.2)."""

REMEMBERED: Final = 4096
"""Chunk captions that are kept in memory: a caption that is asked for again, with a prompt that names its fault, is
fused anew of the same chunks, which beam search would describe with the same words."""

_PERSONA: Final = (
    "You listen to music closely and put into words what you hear and what it does to a listener. You speak of "
    "instruments and voices, of tempo and rhythm, of timbre, above all of the feelings the music stirs, and of a "
    "place or a scene that it brings to mind. You write flowing prose in English, in whole sentences, without "
    "headings or lists, in at most 120 words."
)
_WISH: Final = (
    "Describe this music: instruments, tempo, timbre, the feelings it stirs, and a scene it brings to mind."
)

Sound = NDArray[np.float32]


class ChunkCaptioner(Protocol):
    """LP-MusicCaps, as `networks.music_captioner` gives it."""

    def caption(self, chunks: Sound) -> list[str]:
        """One text for each chunk of float32 [n, 160000], mono 16 kHz."""
        ...


@dataclass(frozen=True, slots=True)
class Heard:
    """One row to be captioned.

    Attributes:
        windows: float32 [samples] each, mono 16 kHz in -1..1, only what is valid.
        prompt: what the caller wants described.
        facts: what people say of the recording, as a sentence.
    """

    windows: tuple[Sound, ...]
    prompt: str
    facts: str


@dataclass(frozen=True, slots=True)
class SoundCaption:
    """A caption and how it was made.

    Attributes:
        text: one paragraph of whole sentences.
        ending: see `full_models.sentences.Ending`.
        stretches: the texts that it was fused from, in order; empty where nothing was fused.
    """

    text: str
    ending: Ending | str
    stretches: tuple[str, ...]


def windows_of(sound: Array, lengths: Array) -> tuple[Sound, ...]:
    """The valid samples of each window.

    Args:
        sound: float32 [W, N] in -1..1 at 16 kHz.
        lengths: int32 [W], valid samples.

    Raises:
        Invalid: shapes do not fit, a length is out of range, nothing is valid, or a sample is not finite.
    """
    if sound.ndim != 2 or lengths.shape != sound.shape[:1]:
        raise Invalid(f"SOUND {list(sound.shape)} and LENGTHS {list(lengths.shape)} do not fit: give [W,N] and [W]")
    if sound.shape[1] > 30 * SAMPLE_RATE:
        raise Invalid(f"a window of SOUND has {sound.shape[1]} samples; at most 30 s ({30 * SAMPLE_RATE}) are heard")
    if (lengths < 0).any() or (lengths > sound.shape[1]).any():
        raise Invalid(f"LENGTHS lie in 0-{sound.shape[1]}, the samples of a window")
    windows = tuple(
        np.ascontiguousarray(row[:length], np.float32) for row, length in zip(sound, lengths, strict=True) if length
    )
    if not windows or max(len(each) for each in windows) < 2:
        raise Invalid("SOUND holds no sound: this captioner listens; its profile must say that it reads media")
    if not all(np.isfinite(each).all() for each in windows):
        raise Invalid("SOUND holds a sample that is not finite")
    return windows


def chunks_of(window: Sound, samples: int = CHUNK_SECONDS * SAMPLE_RATE) -> Sound:
    """Chunks of exactly `samples`, [n, samples], that together hold every sample of the window.

    Consecutive ones from the start; what is left over lies in a last chunk that ends with the window and begins
    inside the chunk before (LP-MusicCaps' own code drops it). A window shorter than a chunk is padded with silence.
    """
    if len(window) <= samples:
        return np.pad(window, (0, samples - len(window)))[None]
    starts = list(range(0, len(window) - samples + 1, samples))
    if starts[-1] + samples < len(window):
        starts.append(len(window) - samples)
    return np.stack([window[start : start + samples] for start in starts])


class SoundCaptions:
    """The chosen captioners, loaded.

    Args:
        speaker: Qwen2-Audio, or None.
        chunks: LP-MusicCaps, or None.
        asking: limits, temperature and seed of Qwen2-Audio and of the fused text.
        batch: chunks that LP-MusicCaps takes at once.
        call: asks other served models.
        writer: the model that fuses.
    """

    def __init__(
        self,
        speaker: Speaker | None,
        chunks: ChunkCaptioner | None,
        asking: Asking,
        batch: int,
        call: Call,
        writer: str = MODEL,
    ) -> None:
        self._speaker = speaker
        self._chunks = chunks
        self._asking = asking
        self._batch = batch
        self._call = call
        self._writer = writer
        self._remembered: OrderedDict[bytes, str] = OrderedDict()

    @classmethod
    def load(cls, choices: Choices, call: Call) -> SoundCaptions:
        """As the settings say: `captioner`, `weights` (Qwen2-Audio), `weights_chunks` (LP-MusicCaps), `writer`, ...

        Raises:
            BadChoice: a setting cannot be used.
            MissingWeights: weights are not there.
        """
        name = choices.text("captioner", "qwen2-audio")
        if name not in CAPTIONERS:
            raise BadChoice(f"captioner of {choices.model} is {name!r}: give one of {', '.join(CAPTIONERS)}")
        speaker = None
        if name != "lp-musiccaps":
            weights = choices.weights(default="Qwen/Qwen2-Audio-7B-Instruct")
            speaker = chat.load(QwenSounds, choices, weights=weights, batch=8)
        return cls(
            speaker,
            _load_chunks(choices) if name != "qwen2-audio" else None,
            asking_of(choices, tokens=512, continued=512, repetition=REPETITION, sentences=True),
            choices.batch(8),
            call,
            choices.text("writer", MODEL),
        )

    def heard(self, sound: Array, lengths: Array, prompt: str, catalogue: str) -> Heard:
        """One row, read.

        Raises:
            Invalid: it cannot be.
        """
        return Heard(windows_of(sound, lengths), prompt.strip(), known(read_catalogue(catalogue)))

    def describe(self, rows: Sequence[Heard]) -> list[SoundCaption | Invalid]:
        """A caption for each row; all windows and chunks of all rows share batches."""
        captions: list[SoundCaption | Invalid] = []
        to_fuse: list[int] = []
        for place, (listened, chunked) in enumerate(zip(self._listened(rows), self._chunked(rows), strict=True)):
            if isinstance(listened, Invalid):
                captions.append(listened)
                continue
            # Window by window, so that notes stand in the order of the recording whoever made them.
            said = [
                each
                for pair in zip(listened, chunked, strict=True)
                for window in pair
                for each in window
                if each.text
            ]
            if len(said) == 1:
                captions.append(SoundCaption(said[0].text, said[0].ending, ()))
            elif said:
                captions.append(SoundCaption("", "", tuple(each.text for each in said)))
                to_fuse.append(place)
            else:
                captions.append(Invalid("the captioners answered without a word"))
        conversations = [
            fusion.messages(caption.stretches, rows[place].prompt, rows[place].facts)
            for place in to_fuse
            if isinstance(caption := captions[place], SoundCaption)
        ]
        for place, written in zip(to_fuse, write(self._call, conversations, self._asking, self._writer), strict=True):
            caption = captions[place]
            if isinstance(written, Invalid):
                captions[place] = written
            elif not written.text:
                captions[place] = Invalid("the writer fused the descriptions into nothing")
            elif isinstance(caption, SoundCaption):
                captions[place] = SoundCaption(written.text, written.ending, caption.stretches)
        return captions

    def _listened(self, rows: Sequence[Heard]) -> list[list[list[Said]] | Invalid]:
        """What Qwen2-Audio says: for each row a list for each of its windows."""
        if self._speaker is None:
            return [[[] for _ in row.windows] for row in rows]
        questions, owners = [], []
        for place, row in enumerate(rows):
            asked = row.prompt or _WISH
            messages = (
                {"role": "system", "content": _PERSONA},
                {"role": "user", "content": f"{row.facts}\n{asked}" if row.facts else asked},
            )
            for window in row.windows:
                questions.append(Question(messages, window))
                owners.append(place)
        answers: list[list[list[Said]] | Invalid] = [[] for _ in rows]
        for place, said in zip(owners, self._speaker.say(questions, self._asking), strict=True):
            before = answers[place]
            if isinstance(before, list):
                answers[place] = said if isinstance(said, Invalid) else [*before, [said]]
        return answers

    def _chunked(self, rows: Sequence[Heard]) -> list[list[list[Said]]]:
        """What LP-MusicCaps says: for each row a list for each of its windows, with a text for each chunk."""
        if self._chunks is None:
            return [[[] for _ in row.windows] for row in rows]
        cut = [
            [[(hashlib.sha256(chunk).digest(), chunk) for chunk in chunks_of(window)] for window in row.windows]
            for row in rows
        ]
        every = {name: chunk for row in cut for window in row for name, chunk in window}
        texts = {name: self._remembered[name] for name in every if name in self._remembered}
        fresh = [(name, chunk) for name, chunk in every.items() if name not in texts]
        for start in range(0, len(fresh), self._batch):
            chosen = fresh[start : start + self._batch]
            said = self._chunks.caption(np.stack([chunk for _, chunk in chosen]))
            texts.update({name: text for (name, _), text in zip(chosen, said, strict=True)})
        for name in every:
            self._remembered[name] = texts[name]
            self._remembered.move_to_end(name)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return [[[_ended(texts[name]) for name, _ in window] for window in row] for row in cut]


def _named(chunks: Sound) -> list[tuple[bytes, Sound]]:
    return [(hashlib.sha256(chunk.tobytes()).digest(), chunk) for chunk in chunks]


def _load_chunks(choices: Choices) -> ChunkCaptioner:
    """LP-MusicCaps (`weights_chunks`) with the tokeniser of BART (`weights_words`)."""
    checkpoint = choices.weights("weights_chunks", default="seungheondoh/lp-music-caps")
    words = choices.weights("weights_words", default="facebook/bart-base")
    device = choices.device()
    try:
        return music_captioner.load(
            checkpoint.folder,
            words.folder,
            dtype=choices.dtype("fp32" if device == "cpu" else "bf16"),
            device=device,
        )
    except CheckpointError as error:
        raise MissingWeights(f"{choices.model}: {error}; run: promenade models fetch --profile full") from error


def _ended(text: str) -> Said:
    """A chunk's caption as a sentence; LP-MusicCaps often leaves out the full stop."""
    finished, ending = finish(plain(text), cut=False, went_on=False)
    return Said(finished, ending, 0, False)
