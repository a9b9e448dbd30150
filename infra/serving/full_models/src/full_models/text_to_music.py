"""Composers that find words for a picture and have compose_music (AudioLDM 2) make music of them.

One copy of the networks serves all of them: the words travel as the wish "prompt" of a piece by text alone, and its
chunks are handed on as they come. Which words is left to the subclasses.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from edge_models.music.serving import DECLARE, ComposerModel
from edge_models.music.turns import Rest, Turns
from edge_models.triton_model import Array, Invalid, Unavailable, strings

from full_models.music_wishes import WISHES, Wanted, read

MUSIC: Final = "compose_music"
FOLLOWED: Final = tuple(name for name in WISHES if name not in ("prompt", "conditioning", "ticket"))
"""Wishes that are handed on: how the music is made, not for which words."""


class Stream(Protocol):
    """Asks a served model that answers in pieces: each response's tensors, as they come.

    Raises:
        Invalid: it refuses.
        Unavailable: it is away.
    """

    def __call__(
        self, model: str, inputs: Mapping[str, Array], outputs: tuple[str, ...]
    ) -> Iterator[dict[str, Array]]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its own tensors, which are asked on."""

    wanted: Wanted
    tensors: Mapping[str, Array]
    live: bool


class TextComposer(ComposerModel):
    """Base of a composer that goes through words."""

    name: str
    """Of the composer, for the report."""
    stream: Stream

    def start(self, *args: Any, **how: Any) -> None:
        """See `ComposerModel`."""
        self.stream = how.pop("stream", streamed)
        super().start(*args, **how)

    def places(self) -> Turns:
        """The music itself is made elsewhere, one piece after another."""
        return Turns(live=4, background=2)

    def read(self, tensors: Mapping[str, Array]) -> tuple[Asked, bool]:
        """See `music_wishes`."""
        wanted, live = read(tensors, FOLLOWED)
        return Asked(wanted, tensors, live), live

    def declared(self) -> str:
        """See `ComposerModel`: this model's own version, and what the one that makes the music declares."""
        nothing = {
            "RGB": np.zeros((5, 3), np.float32),
            "VA": np.zeros((5, 2), np.float32),
            "MEASUREMENTS": strings(*["{}"] * 5),
            "TEXTS": strings(*[""] * 5),
            "VECTOR": np.zeros(1, np.float32),
            "SECONDS": np.zeros(1, np.float32),
            "SEED": np.zeros(1, np.int64),
            "WISHES": strings(json.dumps(DECLARE)),
            "LIVE": np.array([False]),
        }
        for answer in self.stream(MUSIC, nothing, ("REPORT",)):
            text = answer["REPORT"].reshape(-1)[0]
            if text:
                return self._with(json.loads(text)["version"])
        raise Unavailable(f"the model {MUSIC} did not declare its version")

    def _with(self, music: str) -> str:
        return f"{self.version}; {MUSIC} {music}"

    def words(self, wanted: Wanted, tools: Any, rest: Rest) -> tuple[str, dict[str, Any]]:
        """The prompt for a picture, and what the report says of how it was found.

        Raises:
            Invalid, Unavailable: as everywhere.
        """
        raise NotImplementedError

    def compose(self, ask: Asked, tools: Any, rest: Rest) -> Iterator[Array | Mapping[str, Any]]:
        """See `ComposerModel`."""
        prompt, found = self.words(ask.wanted, tools, rest)
        rest()
        ticket = uuid.uuid4().hex
        wishes = {**ask.wanted.wishes, "conditioning": "text", "prompt": prompt, "ticket": ticket}
        inputs = {**ask.tensors, "WISHES": strings(json.dumps(wishes))}
        report: dict[str, Any] | None = None
        try:
            for answer in self.stream(MUSIC, inputs, ("SAMPLES", "REPORT")):
                rest()
                if len(answer["SAMPLES"]):
                    yield answer["SAMPLES"]
                text = answer["REPORT"].reshape(-1)[0]
                report = json.loads(text) if text else report
        except BaseException:
            self._give_up(ask.tensors, ticket)
            raise
        if report is None:
            raise Unavailable(f"the model {MUSIC} ended without its report")
        music = report["version"]
        yield {**report, "version": self._with(music), "model": self.name, "music_version": music, **found}

    def _give_up(self, tensors: Mapping[str, Array], ticket: str) -> None:
        """Tell the other model that nobody wants the piece any more: a question without sound, which it refuses."""
        inputs = {
            **tensors,
            "SECONDS": np.zeros(1, np.float32),
            "WISHES": strings(json.dumps({"ticket": ticket})),
            "LIVE": np.array([False]),
        }
        with contextlib.suppress(Exception):
            for _ in self.stream(MUSIC, inputs, ("REPORT",)):
                pass


def streamed(model: str, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> Iterator[dict[str, Array]]:
    """`Stream` inside the model server."""
    import triton_python_backend_utils as server

    request = server.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[server.Tensor(name, np.ascontiguousarray(value)) for name, value in inputs.items()],
    )
    for response in request.exec(decoupled=True):
        if response.has_error():
            reason = response.error().message()
            if "invalid: " in reason:
                raise Invalid(reason.split("invalid: ", 1)[1])
            raise Unavailable(f"model {model}: {reason}")
        tensors = {name: server.get_output_tensor_by_name(response, name) for name in outputs}
        if any(tensor is None for tensor in tensors.values()):
            # The last response of a stream may be empty.
            continue
        yield {name: np.array(tensor.as_numpy()) for name, tensor in tensors.items()}
