"""compose_music of the full profile: Art2Mus, music from the picture itself.

The picture's vector becomes tokens (image aligner), AudioLDM 2's GPT-2 goes on from them, the UNet denoises under
guidance, VAE and vocoder make sound of it (Rinaldi et al. 2026, sections 4 and 5; the networks are `networks.aligner`
and `networks.audioldm2`). Picture alone is the paper's way; text alone is AudioLDM 2 as published, which the other
composers of this profile ask for; both together puts the picture's tokens behind the text's.

Three candidates are made of the first window and the one whose ImageBind vector is nearest to the picture's goes on
(section 5). A piece longer than a window is made of windows that overlap, and is sent window by window.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from edge_models.music.serving import ComposerModel
from edge_models.music.turns import Rest, Turns
from edge_models.triton_model import Array, Call, Invalid, parsed, strings

from full_models.music_wishes import FIXED_PROMPT, NEGATIVE_PROMPT, WHOLE, Wanted, read
from full_models.weights import BadChoice, Choices, MissingWeights

if TYPE_CHECKING:
    import torch

    from networks.aligner import ImageAligner
    from networks.audioldm2 import AudioLDM2

DECLARED: Final = ("precision", "conditioning", "solver", "steps", "guidance", "negative", "candidates")
"""Settings that change what a piece sounds like; where the server's differ from config.pbtxt, its version says so."""
RERANKER: Final = "embed_sound"
"""Served beside this model: ImageBind, which compares a sound with the picture's vector."""
_SPREAD: Final = 0x9E3779B97F4A7C15
"""Between the seeds of two candidates, so that no other piece's seeds are met."""
_REMEMBERED: Final = 256


class Art2Mus:
    """The networks, and a piece out of them. One piece at a time: whoever calls sees to that.

    Args:
        model: AudioLDM 2.
        aligner: makes tokens of the picture's vector; None: only text can be composed for.
        call: other served models, for the reranking.
        missing: why there is no aligner.
    """

    def __init__(
        self,
        model: AudioLDM2,
        aligner: ImageAligner | None,
        call: Call,
        missing: str = "no weights of the image aligner are set",
    ) -> None:
        self.model = model
        self.aligner = aligner
        self._call = call
        self._missing = missing

    @classmethod
    def load(cls, choices: Choices, call: Call) -> Art2Mus:
        """Read the weights that the settings name.

        Raises:
            MissingWeights, BadChoice: see `full_models.weights`. Without the image aligner's weights there is music
                for texts all the same.
            FileNotFoundError, networks.checkpoints.CheckpointError: what was found is something else.
        """
        from networks.aligner import ImageAligner
        from networks.audioldm2 import AudioLDM2
        from networks.checkpoints import read_checkpoint

        device = choices.device()
        model = AudioLDM2.from_folder(choices.weights().folder, precision=choices.precision("fp32"), device=device)
        if choices.text("compiled", "no") == "yes":
            model.faster()
            model.unet = OneThread(model.unet)
        try:
            file = _checkpoint(choices)
        except MissingWeights as reason:
            # The other composers of this profile need text alone, so this is told to those who ask for pictures.
            return cls(model, None, call, str(reason))
        if file is None:
            return cls(model, None, call)
        token_size = int(model.language_model.config.n_embd)
        aligner = ImageAligner.from_state(read_checkpoint(file), token_size=token_size).to(device)
        return cls(model, aligner, call)

    def tokens(self, vector: Array) -> torch.Tensor:
        """A picture's vector [D] -> tokens [1, N, 768].

        Raises:
            Invalid: there is no aligner, or the vector is of another space than the aligner learned.
        """
        import torch

        if self.aligner is None:
            raise Invalid(f"a picture cannot be composed for, only text: {self._missing}")
        if len(vector) != self.aligner.vector_size:
            raise Invalid(
                f"VECTOR holds {len(vector)} numbers, and the image aligner takes {self.aligner.vector_size}: the "
                "profile's composer_space and the aligner's weights do not belong together"
            )
        given = torch.from_numpy(np.asarray(vector, np.float32))[None].to(next(self.aligner.parameters()).device)
        with torch.inference_mode():
            tokens: torch.Tensor = self.aligner(given)
        return tokens

    def pieces(self, wanted: Wanted, how: Mapping[str, Any], rest: Rest, told: dict[str, Any]) -> Iterator[Array]:
        """The network's own sound, block by block: float32 [n] at its own rate, `seconds` in all.

        Args:
            how: conditioning, prompt, negative, guidance, steps, solver, candidates: all of them.
            told: gets the candidates' scores and which one was chosen.

        Raises:
            Invalid: see `tokens`.
        """
        from networks.audioldm2 import Settings

        picture = how["conditioning"] != "text"
        tokens = self.tokens(wanted.vector) if picture else None
        condition, negative = self.model.conditions(
            [how["prompt"]], [how["negative"]], tokens, text_in_language_model=how["conditioning"] == "both"
        )
        rest()
        count = how["candidates"]
        seeds = [(wanted.seed + number * _SPREAD) % (1 << 63) for number in range(count)]

        def choose(sounds: torch.Tensor) -> int:
            scores = self._scores(wanted.vector, sounds.numpy())
            told["scores"] = [round(score, 6) for score in scores]
            told["chosen"] = int(np.argmax(scores))
            return int(told["chosen"])

        blocks = self.model.compose(
            condition.repeated(count),
            negative.repeated(count),
            wanted.seconds,
            seeds,
            Settings(steps=how["steps"], guidance=how["guidance"], solver=how["solver"]),
            choose=choose if count > 1 else None,
            rest=rest,
        )
        for block in blocks:
            yield block[0].numpy()
            rest()

    def rehearse(self, how: Mapping[str, Any]) -> None:
        """Run two windows of nothing in particular: the first with as many candidates as pieces have, then one."""
        from networks.audioldm2 import Settings

        condition, negative = self.model.conditions([FIXED_PROMPT], [how["negative"]])
        count = how["candidates"]
        settings = Settings(steps=2, guidance=how["guidance"], solver=how["solver"])
        for _ in self.model.compose(
            condition.repeated(count),
            negative.repeated(count),
            1.5 * settings.window_seconds,
            list(range(count)),
            settings,
            choose=lambda sounds: 0,
        ):
            pass

    def _scores(self, vector: Array, sounds: Array) -> list[float]:
        """ImageBind's cosine of each candidate [samples] with the picture (IBSc; Rinaldi et al. 2026, section 5)."""
        count, samples = sounds.shape
        found = self._call(
            RERANKER,
            {
                "SOUND": np.ascontiguousarray(sounds[:, None, :], np.float32),
                "LENGTHS": np.full((count, 1), samples, np.int32),
                "TEXT": strings(*[""] * count).reshape(-1, 1),
            },
            ["VECTOR"],
        )["VECTOR"]
        if found.shape[1] != len(vector):
            raise Invalid(
                f"candidates cannot be ranked: {RERANKER} answers with {found.shape[1]} numbers and VECTOR holds "
                f"{len(vector)}; wish for one candidate"
            )
        lengths = np.linalg.norm(found, axis=1) * (np.linalg.norm(vector) or 1.0)
        return [float(value) for value in found @ vector / np.maximum(lengths, 1e-12)]


class OneThread:
    """A compiled network that is always run by the same thread, whoever asks.

    CUDA graphs belong to the thread that recorded them and answer in a buffer that the next run overwrites; here a
    person's piece may come between two steps of another one, from another thread. So runs are handed to one thread,
    and the answer is copied.

    Args:
        network: answers with a tuple whose first tensor is what counts.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._thread = ThreadPoolExecutor(1, "compiled network")

    def __call__(self, *values: Any, **named: Any) -> tuple[torch.Tensor, ...]:
        """One run."""
        return self._thread.submit(self._run, values, named).result()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def _run(self, values: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        import torch

        # The mode is a thread's own.
        with torch.inference_mode():
            return (self._network(*values, **named)[0].clone(),)


def _checkpoint(choices: Choices) -> Path | None:
    """The image aligner's file; None where the setting says that there is to be none.

    Raises:
        MissingWeights: it is not there.
    """
    if choices.text("weights_aligner", "none") == "none":
        return None
    found = choices.weights("weights_aligner")
    patterns = ("*.safetensors", "*.pt", "*.pth", "*.bin")
    files = sorted(path for pattern in patterns for path in found.folder.glob(pattern))
    if not files:
        raise MissingWeights(f"the weights {found.name} in {found.folder} hold no checkpoint of the image aligner")
    return files[0]


class Art2MusModel(ComposerModel):
    """The served model. WISHES: "conditioning" (picture, text, both), "prompt", "negative", "guidance", "steps",
    "solver" (ddim, fast), "candidates"; what is missing is a parameter of config.pbtxt, by default the paper's.

    REPORT: {"version", "model", "seed", "seconds", "conditioning", "prompt" (None for a picture alone), "text" (what
    FLAN-T5 was given), "negative", "guidance", "steps", "solver", "candidates", "scores" (their ImageBind cosines),
    "chosen", "tokens", "gain" (dB), "loudness" (LUFS), "true_peak" (dBTP), "made_seconds", "first_chunk_seconds"}.

    Settings (`full_models.weights`): weights, weights_aligner, precision, device, compiled (yes: the UNet is compiled
    at the first piece), and those of the wishes.
    """

    _tickets: OrderedDict[str, bool]
    """Ticket -> whether its piece was given up; the newest ones."""

    def places(self) -> Turns:
        """One piece of each kind: the networks take the whole device."""
        return Turns(live=1, background=1)

    def check(self) -> None:
        """Weights are looked for at once, so that the server's start says what is missing; they are read later."""
        self._choices = Choices(Path(self.folder).parent.name, self.parameters, self.folder)
        self._choices.weights()
        self.defaults()
        # The networks themselves are read later, but these are the ones.
        self.version = self._choices.declared(self.version, DECLARED, ("weights", "weights_aligner"))
        self._tickets = OrderedDict()

    def defaults(self) -> dict[str, Any]:
        """What is done where nobody wishes otherwise.

        Raises:
            BadChoice: a setting makes no sense.
        """
        choices = self._choices
        found: dict[str, Any] = {
            "conditioning": choices.text("conditioning", "picture"),
            "negative": choices.text("negative", NEGATIVE_PROMPT),
            "solver": choices.text("solver", "ddim"),
            "steps": choices.number("steps", 200),
            "candidates": choices.number("candidates", 3),
        }
        try:
            found["guidance"] = float(choices.text("guidance", "3.5"))
        except ValueError:
            raise BadChoice(f"guidance of {choices.model} is {choices.text('guidance')!r}: give a number") from None
        for name, allowed in (("conditioning", ("picture", "text", "both")), ("solver", ("ddim", "fast"))):
            if found[name] not in allowed:
                raise BadChoice(f"{name} of {choices.model} is {found[name]!r}: give one of {', '.join(allowed)}")
        return found

    def tools(self) -> Art2Mus:
        """The networks; compiled ones have run once with the shapes of a piece, which is when they are compiled."""
        made = Art2Mus.load(self._choices, self.call)
        if self._choices.text("compiled", "no") == "yes":
            made.rehearse(self.defaults())
        return made

    def read(self, tensors: Mapping[str, Array]) -> tuple[Wanted, bool]:
        """See `music_wishes`. A question without sound that names a ticket gives that ticket's piece up."""
        self._heed(tensors)
        return read(tensors)

    def how(self, wanted: Wanted) -> dict[str, Any]:
        """All that a piece is made by: wishes, then settings, then the paper's figures."""
        how = self.defaults() | {name: value for name, value in wanted.wishes.items() if name != "ticket"}
        how |= {name: int(how[name]) for name in ("steps", "candidates")}
        if not how.get("prompt"):
            how["prompt"] = FIXED_PROMPT if how["conditioning"] == "picture" else wanted.texts[WHOLE]
        if not how["prompt"].strip():
            raise Invalid("there is no text to compose for: the picture has no caption, and no prompt was wished for")
        return how

    def compose(self, ask: Wanted, tools: Art2Mus, rest: Rest) -> Iterator[Array | Mapping[str, Any]]:
        """See `ComposerModel`."""
        from full_models.finishing import Finisher

        started = time.monotonic()
        how = self.how(ask)
        told: dict[str, Any] = {}
        finisher = Finisher(ask.seconds, tools.model.sampling_rate)
        first: float | None = None
        for sound in tools.pieces(ask, how, rest, told):
            for block in finisher.take(sound):
                first = time.monotonic() - started if first is None else first
                yield block
        for block in finisher.end():
            first = time.monotonic() - started if first is None else first
            yield block
        yield {
            "version": self.version,
            "model": "art2mus",
            "seed": ask.seed,
            "seconds": round(ask.seconds, 6),
            **how,
            # Said as what was asked for only where it was: the fixed sentence is the same for every picture.
            "prompt": None if how["conditioning"] == "picture" else how["prompt"],
            "text": how["prompt"],
            "scores": told.get("scores", []),
            "chosen": told.get("chosen", 0),
            "tokens": 0 if tools.aligner is None or how["conditioning"] == "text" else tools.aligner.tokens,
            "gain": round(finisher.gain, 2),
            "loudness": round(finisher.loudness, 2),
            "true_peak": round(finisher.true_peak, 2),
            "made_seconds": round(time.monotonic() - started, 3),
            "first_chunk_seconds": round(first or 0.0, 3),
        }

    # A composer that asks this one (`text_to_music`) cannot cancel its request: the server's own cancelling does not
    # reach through a model that asks another. So it names a ticket, and gives the ticket up.

    def given_up(self, ask: Wanted) -> Callable[[], bool]:
        """See `ComposerModel`."""
        ticket = ask.wishes.get("ticket")
        return lambda: ticket is not None and self._tickets.get(ticket, False)

    def _heed(self, tensors: Mapping[str, Array]) -> None:
        seconds = tensors["SECONDS"].reshape(-1)
        if len(seconds) == 1 and math.isfinite(seconds[0]) and seconds[0] == 0:
            wishes = parsed(tensors["WISHES"], "WISHES")
            ticket = wishes.get("ticket") if isinstance(wishes, dict) else None
            if isinstance(ticket, str) and ticket:
                self._tickets[ticket[:32]] = True
                while len(self._tickets) > _REMEMBERED:
                    self._tickets.popitem(last=False)
