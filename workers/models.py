"""What the capabilities mean: tensors out of media and words, and back.

Each capability is one model name with fixed tensors in every profile (see README, "Models"); this is the one
place where those tensors are spelled on the client's side. Inputs that the profile's model does not read are
sent empty.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from pydantic import ValidationError

from schemas.failures import Lasting, Passing
from schemas.media import Kind, parts_of
from schemas.profile import Profile
from schemas.records import CaptionBody, CaptionScores, Catalogue, Ending, Phrase, ScoreBody
from workers.contract import Array, Inference
from workers.media.parts import SoundPart

LOOK_SECONDS: Final = 0.8
"""Silence of the composer after which it is looked whether it lives. A supervisor needs about two seconds to bring a
dead process back; who looks later would find a living one, which knows nothing of the piece, and wait for ever."""

DECLARE: Final = {"declare": "version"}
"""The wishes of a question to a composer about its version alone (edge_models.music.serving)."""

PROBE_SECONDS: Final = 5.0
"""How long a living composer takes at most to refuse a question, on a busy machine."""

Part = bytes | SoundPart
"""One part as a model takes it: an encoded picture, or windows of sound."""


@dataclass(frozen=True, slots=True)
class MusicChunk:
    """What the composer made since the last one: float32 [n, 2] at 48 kHz in -1..1, and at the end its report."""

    samples: Array
    report: dict[str, Any] | None
    alive: bool = True
    """False where the composer said nothing, and only was found alive: silence that may come to an end by itself."""


@dataclass(frozen=True, slots=True)
class Said:
    """A caption of one part, its phrases, and how it came to end at a sentence."""

    text: str
    phrases: tuple[Phrase, ...]
    ending: Ending = ""


_SILENCE: Final = np.zeros((0, 2), np.float32)
_NO_SOUND: Final = SoundPart(np.zeros((1, 1), np.float32), np.zeros(1, np.int32))
_PROBE_SOUND: Final = SoundPart(np.zeros((1, 16_000), np.float32), np.full(1, 16_000, np.int32))
_PROBE_PICTURE: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATUlEQVR42u3PQQ0AAAgEIDX5RTeFDzdoQCepz6aeExAQEBAQEBAQ"
    "EBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELi3oiwCAJt186UAAAAASUVORK5CYII="
)
"""A grey PNG of 64x64 pixels."""
_SUFFIX: Final = {Kind.ARTWORK: "picture", Kind.TRACK: "sound"}


def capability(what: str, kind: Kind) -> str:
    """`measure` and a kind -> `measure_picture` or `measure_sound`."""
    return f"{what}_{_SUFFIX[kind]}"


def _bytes(values: Sequence[bytes | str]) -> Array:
    """Texts or bytes as a batch of one-element tensors, shape [n, 1]."""
    array = np.empty((len(values), 1), dtype=np.object_)
    for row, value in enumerate(values):
        array[row, 0] = value.encode() if isinstance(value, str) else value
    return array


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def _next(answers: AsyncGenerator[dict[str, Array], None]) -> dict[str, Array] | None:
    return await anext(answers, None)


def _json(value: Any, model: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError):
        raise Lasting(
            f"the model {model} answered with something that is not JSON.", "Build the models again."
        ) from None


def _finite(array: Array, model: str) -> Array:
    if not np.isfinite(array).all():
        raise Lasting(f"the model {model} answered with numbers that are not finite.", "See the model server's log.")
    return array


def _phrases(told: Any, model: str) -> tuple[tuple[Phrase, ...], Ending]:
    """`[[phrase, confidence], ...]`, alone or as `phrases` beside an `ending`."""
    ending: Ending = ""
    try:
        if isinstance(told, Mapping):
            told, ending = told["phrases"], told.get("ending", "")
        phrases = tuple(Phrase(text=str(text), confidence=float(confidence)) for text, confidence in told)
        if ending not in get_args(Ending):
            raise ValueError(ending)
    except (KeyError, TypeError, ValueError):
        raise Lasting(f"the model {model} answered with phrases that cannot be read.", "Build it again.") from None
    return phrases, ending


def _scores(told: Any, model: str) -> CaptionScores:
    """What a scorer says; words of its own beside the agreed ones are left out."""
    try:
        known = {name: told[name] for name in CaptionScores.model_fields if name in told}
        return CaptionScores.model_validate(known)
    except (TypeError, ValidationError):
        raise Lasting(
            f"the model {model} answered with scores that cannot be read.", "See the model server's log."
        ) from None


class Models:
    """The capabilities as typed calls.

    Args:
        inference: the model server.
        profile: which models it serves and what they read.
    """

    def __init__(self, inference: Inference, profile: Profile) -> None:
        self._inference = inference
        self._profile = profile

    def reads_media(self, *capabilities: str) -> bool:
        """True when one of these capabilities looks at pictures or sound in this profile."""
        return any(self._profile.reads(each, "media") for each in capabilities)

    async def measure(self, kind: Kind, parts: Sequence[Part]) -> tuple[list[dict[str, Any]], list[Array]]:
        """Measurements of each part, and the tag model's own vector of each part."""
        model = capability("measure", kind)
        answers = await self._media_call(model, kind, parts, {}, ("MEASUREMENTS", "VECTOR"))
        measurements = [_json(value, model) for value in answers["MEASUREMENTS"][:, 0]]
        return measurements, list(_finite(answers["VECTOR"], model).astype(np.float32))

    async def caption(
        self,
        kind: Kind,
        parts: Sequence[Part] | None,
        prompts: Sequence[str],
        catalogue: Catalogue,
        measurements: Sequence[dict[str, Any]],
        places: Sequence[int] | None = None,
    ) -> list[Said]:
        """A caption for each part; `parts` None where media is not read.

        Args:
            places: which of the five parts these are, 0 to 4; None: the first ones.

        Raises:
            Lasting: a caption is empty, or its phrases are not what was agreed.
        """
        model = capability("caption", kind)
        count = len(measurements)
        names = parts_of(kind)
        extra = {
            "PART": _bytes([names[place] for place in (range(count) if places is None else places)]),
            "PROMPT": _bytes(prompts),
            "CATALOGUE": _bytes([catalogue.model_dump_json(exclude_none=True)] * count),
            "MEASUREMENTS": _bytes([json.dumps(each) for each in measurements]),
        }
        answers = await self._media_call(model, kind, parts, extra, ("TEXT", "PHRASES"))
        said = []
        for text, told in zip(answers["TEXT"][:, 0], answers["PHRASES"][:, 0], strict=True):
            phrases, ending = _phrases(_json(told, model), model)
            said.append(Said(_text(text).strip(), phrases, ending))
        if not all(each.text for each in said):
            raise Lasting(f"the model {model} answered with an empty caption.", "See the model server's log.")
        return said

    async def score_caption(
        self, kind: Kind, parts: Sequence[Part] | None, texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[CaptionScores]:
        """How well each caption fits its part.

        Args:
            parts: the pictures; not looked at for tracks, or where the profile's model does not read media.
            texts: one caption for each part.
            references: of tracks, what was heard in the single passages of each part; empty for pictures.

        Raises:
            Lasting: the model refuses, or its answer is not what was agreed.
        """
        model = "score_caption"
        looks = kind is Kind.ARTWORK and parts is not None and self.reads_media(model)
        images = [part for part in parts or () if isinstance(part, bytes)] if looks else [b""] * len(texts)
        answers = await self._inference.infer(
            model,
            {
                "KIND": _bytes([kind.value] * len(texts)),
                "IMAGE": _bytes(images),
                "TEXT": _bytes(texts),
                "REFERENCES": _bytes([json.dumps(list(each), ensure_ascii=False) for each in references]),
            },
            ("SCORES",),
        )
        return [_scores(_json(value, model), model) for value in answers["SCORES"][:, 0]]

    async def score_emotion(
        self,
        kind: Kind,
        texts: Sequence[str],
        phrases: Sequence[Sequence[Phrase]],
        measurements: Sequence[dict[str, Any]],
    ) -> tuple[Array, Array, list[list[dict[str, Any]]]]:
        """RGB [5,3] in 0-255, valence-arousal [5,2] in [0,1], and the evidence of each part."""
        model = "score_emotion"
        spelled = [json.dumps([[each.text, each.confidence] for each in part]) for part in phrases]
        answers = await self._inference.infer(
            model,
            {
                "TEXTS": _bytes(texts).reshape(1, -1),
                "PHRASES": _bytes(spelled).reshape(1, -1),
                "MEASUREMENTS": _bytes([json.dumps(each) for each in measurements]).reshape(1, -1),
                "KIND": _bytes([kind.value]),
            },
            ("RGB", "VA", "EVIDENCE"),
        )
        rgb, va = _finite(answers["RGB"][0], model), _finite(answers["VA"][0], model)
        if rgb.shape != (len(texts), 3) or va.shape != (len(texts), 2):
            raise Lasting(f"the model {model} answered with shapes {rgb.shape} and {va.shape}.", "")
        evidence = [_json(value, model) for value in answers["EVIDENCE"][0]]
        return np.clip(rgb, 0, 255), np.clip(va, 0, 1), evidence

    async def va_medium(
        self, kind: Kind, parts: Sequence[Part] | None, measurements: Sequence[dict[str, Any]]
    ) -> Array:
        """Valence and arousal of each part as the medium itself reads, [n,2] in [0,1]."""
        model = capability("va", kind)
        extra = {"MEASUREMENTS": _bytes([json.dumps(each) for each in measurements])}
        answers = await self._media_call(model, kind, parts, extra, ("VA",))
        return np.clip(_finite(answers["VA"], model), 0, 1)

    async def embed(self, kind: Kind, parts: Sequence[Part] | None, texts: Sequence[str]) -> Array:
        """One vector of the joint space for each part, float32 [n, dimension]."""
        model = capability("embed", kind)
        answers = await self._media_call(model, kind, parts, {"TEXT": _bytes(texts)}, ("VECTOR",))
        return _finite(answers["VECTOR"], model).astype(np.float32)

    async def embed_text(self, texts: Sequence[str]) -> Array:
        """Vectors of free texts in the joint space, float32 [n, dimension]."""
        answers = await self._inference.infer("embed_text", {"TEXT": _bytes(texts)}, ("VECTOR",))
        return _finite(answers["VECTOR"], "embed_text").astype(np.float32)

    async def compose(
        self,
        model: str,
        score: ScoreBody,
        said: CaptionBody,
        vector: Array,
        *,
        seconds: float,
        seed: int,
        wishes: Mapping[str, Any],
        live: bool,
        stall_seconds: float,
    ) -> AsyncGenerator[MusicChunk, None]:
        """Music for a picture as it is made; closing the generator cancels it.

        Silence is looked into: a chunk without sound comes every `LOOK_SECONDS` of it, once the model was found
        alive. (The server never ends the answer of a model whose process died.)

        Args:
            model: of the composer (`Profile.composers`).
            score, said: results of the picture.
            vector: the picture's, in the profile's `composer_space`.
            live: a person waits; background requests wait for live ones between chunks.
            stall_seconds: silence after which it is given up although the model lives.

        Yields:
            Chunks of sound; the last one has the report. A composer that works for long before it can be heard
            sends chunks without sound meanwhile.

        Raises:
            Passing: the model is away, or its process died.
            Lasting: the model refuses the question, or its answer is not what was agreed.
        """
        inputs: dict[str, Array] = {
            "RGB": np.asarray(score.rgb, np.float32),
            "VA": np.asarray(score.va, np.float32),
            "MEASUREMENTS": _bytes([json.dumps(each) for each in said.measurements])[:, 0],
            "TEXTS": _bytes(said.texts)[:, 0],
            "VECTOR": np.asarray(vector, np.float32),
            "SECONDS": np.array([seconds], np.float32),
            "SEED": np.array([seed], np.int64),
            "WISHES": _bytes([json.dumps(dict(wishes))])[:, 0],
            "LIVE": np.array([live]),
        }
        answers = self._inference.stream(model, inputs, ("SAMPLES", "REPORT"), stall_seconds=stall_seconds)
        following: asyncio.Task[dict[str, Array] | None] | None = None
        report: dict[str, Any] | None = None
        try:
            while True:
                following = following or asyncio.create_task(_next(answers))
                done, _ = await asyncio.wait({following}, timeout=LOOK_SECONDS)
                if not done:
                    try:
                        await self.answers(model)
                    except Passing as trouble:
                        raise Passing(trouble.part, trouble.reason, suspect=True) from None
                    yield MusicChunk(_SILENCE, None, alive=False)
                    continue
                finished, following = following, None
                answer = finished.result()
                if answer is None:
                    break
                samples = answer.get("SAMPLES", _SILENCE).astype(np.float32, copy=False)
                text = answer["REPORT"].reshape(-1)[0] if "REPORT" in answer and answer["REPORT"].size else b""
                if text:
                    report = _json(text, model)
                yield MusicChunk(samples, report)
            if not isinstance(report, dict):
                raise Lasting(f"the model {model} ended without its report.", "See the model server's log.")
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await answers.aclose()

    async def declared(self, model: str) -> str:
        """The version that a composer says it composes as, settings and weights of its server included.

        Raises:
            Passing: the model is away.
            Lasting: it does not say.
        """
        asked = {**_nothing_to_compose(), "WISHES": _bytes([json.dumps(DECLARE)])[:, 0]}
        async for answer in self._inference.stream(model, asked, ("REPORT",), stall_seconds=PROBE_SECONDS):
            text = answer["REPORT"].reshape(-1)[0] if "REPORT" in answer and answer["REPORT"].size else b""
            if text:
                report = _json(text, model)
                if isinstance(report, dict) and report.get("version"):
                    return str(report["version"])
        raise Lasting(f"the model {model} did not say its version.", "See the model server's log.")

    async def answers(self, name: str) -> None:
        """Return when the model of a capability answers, be it with a refusal.

        It is asked about the smallest input there is, so that the models behind it are reached too.

        Raises:
            Passing: its process is away.
        """
        kind = Kind.TRACK if name.endswith("_sound") else Kind.ARTWORK
        part: Part = _PROBE_SOUND if kind is Kind.TRACK else _PROBE_PICTURE
        try:
            match name.split("_")[0]:
                case "measure":
                    await self.measure(kind, [part])
                case "caption":
                    await self.caption(kind, [part], [""], Catalogue(), [{}])
                case "va":
                    # Such a model tells by the medium's presence which reading is expected of it.
                    await self.va_medium(kind, [part] if self.reads_media(name) else None, [{}])
                case "embed":
                    await self.embed(kind, [part], ["a"])
                case "score" if name == "score_caption":
                    await self.score_caption(kind, [part], ["a"], [[]])
                case "score":
                    await self.score_emotion(kind, ["a"] * len(parts_of(kind)), [()] * 5, [{}] * 5)
                case "compose":
                    # No music is so short: it refuses at once.
                    asked = _nothing_to_compose()
                    refusal = self._inference.stream(name, asked, ("REPORT",), stall_seconds=PROBE_SECONDS)
                    async for _ in refusal:
                        pass
                case _:
                    raise ValueError(f"there is no way to ask {name} yet")
        except Lasting:
            return

    async def _media_call(
        self,
        model: str,
        kind: Kind,
        parts: Sequence[Part] | None,
        extra: dict[str, Array],
        outputs: tuple[str, ...],
    ) -> dict[str, Array]:
        """One call over parts of one item; parts of sound with unlike shapes go in calls of their own."""
        if kind is Kind.ARTWORK:
            count = len(next(iter(extra.values()))) if parts is None else len(parts)
            images = [b""] * count if parts is None else [part for part in parts if isinstance(part, bytes)]
            return await self._inference.infer(model, {"IMAGE": _bytes(images), **extra}, outputs)
        count = len(next(iter(extra.values()))) if parts is None else len(parts)
        sounds = [_NO_SOUND] * count if parts is None else [part for part in parts if isinstance(part, SoundPart)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, sound in enumerate(sounds):
            groups.setdefault(sound.windows.shape, []).append(index)

        async def call(chosen: list[int]) -> dict[str, Array]:
            return await self._inference.infer(
                model,
                {
                    "SOUND": np.stack([sounds[index].windows for index in chosen]),
                    "LENGTHS": np.stack([sounds[index].lengths for index in chosen]),
                    **{name: array[chosen] for name, array in extra.items()},
                },
                outputs,
            )

        chosen_groups = list(groups.values())
        answers = await asyncio.gather(*map(call, chosen_groups))
        order = np.argsort(np.concatenate([np.asarray(chosen) for chosen in chosen_groups]))
        return {name: np.concatenate([answer[name] for answer in answers])[order] for name in outputs}


def _nothing_to_compose() -> dict[str, Array]:
    """A composer's tensors for a piece without length."""
    empty = np.zeros((5, 3), np.float32)
    return {
        "RGB": empty,
        "VA": empty[:, :2],
        "MEASUREMENTS": _bytes(["{}"] * 5)[:, 0],
        "TEXTS": _bytes([""] * 5)[:, 0],
        "VECTOR": np.zeros(1, np.float32),
        "SECONDS": np.zeros(1, np.float32),
        "SEED": np.zeros(1, np.int64),
        "WISHES": _bytes(["{}"])[:, 0],
        "LIVE": np.array([False]),
    }


def pack(vector: Array) -> str:
    """A vector as little-endian float32 in base64, as records keep it."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode()


def unpack(text: str, rows: int | None = None) -> Array:
    """Read back `pack`; with `rows`, as a matrix of so many rows.

    Raises:
        Lasting: it is not base64 of whole float32 numbers.
    """
    try:
        flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except ValueError:
        raise Lasting("a stored vector cannot be read.", "Withdraw the item and ingest it again.") from None
    return flat if rows is None else flat.reshape(rows, -1)
