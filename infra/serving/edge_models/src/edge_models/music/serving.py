"""A composer behind the model server: a thread for each request, turns between them, chunks sent as they are made.

`ComposerModel` is the base of every model with compose_music's tensors, in both profiles; `EdgeComposer` is the edge
profile's. What a piece is and how it sounds is left to the subclasses; whose turn it is, to `turns.Turns`. Large
imports, banks and networks are read a little after the start, or with the first piece if that comes before: so the
server is ready sooner, and the first person does not wait for them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edge_models.music import asking
from edge_models.music.turns import Rest, Stopped, Turns
from edge_models.triton_model import Array, Call, Unavailable, call_served, message, strings

Result = TypeVar("Result")

PATIENCE = 10.0
"""Seconds that unloading waits for pieces in the making: each stops between two pieces of work."""
WARM_AFTER = 8.0
"""Seconds from the start after which the tools are read: other models are starting until then."""
LOOK_SECONDS = 0.05
"""How often work in a thread of its own is looked after."""
DECLARE = {"declare": "version"}
"""The wishes of a question about the version alone; its report has nothing else."""
SIGN_SECONDS = 4.0
"""A composer that works for longer without a sound sends a chunk without sound, so that it is not taken for dead."""


class ComposerModel:
    """Base of a composer. Decoupled: see config.pbtxt for tensors. Each response but the last has SAMPLES [n, 2] and
    an empty REPORT; the last has SAMPLES [0, 2] and the REPORT, JSON.

    MEASUREMENTS are measure_picture's, TEXTS captions, VECTOR the picture's in the profile's `composer_space`; WISHES
    a JSON object. LIVE says that a person waits: such a piece goes before all that are made in the background. WISHES
    of {"declare": "version"} ask for no music: the REPORT then holds the version of what would be made, and it alone.
    """

    folder: Path
    """The version folder."""
    parameters: Mapping[str, str]
    """`parameters` of config.pbtxt."""
    version: str
    call: Call

    def declared(self) -> str:
        """The version of what this server makes of a question: the same question and version, the same samples.

        Raises:
            Unavailable: a model that this one asks did not answer.
        """
        return self.version

    def places(self) -> Turns:
        """How many pieces are made at once."""
        return Turns()

    def check(self) -> None:
        """Raise FileNotFoundError where something that was to be built or fetched is missing. Runs at the start."""

    def tools(self) -> Any:
        """What pieces are made with; read once, in whichever thread comes first."""
        return None

    def read(self, tensors: Mapping[str, Array]) -> tuple[Any, bool]:
        """What is asked for, and whether a person waits for it.

        Raises:
            Invalid: it cannot be composed for, in plain words. This is asked often, and must be quick.
        """
        raise NotImplementedError

    def compose(self, ask: Any, tools: Any, rest: Rest) -> Iterator[Array | Mapping[str, Any]]:
        """Blocks of sound [n, 2] at 48 kHz as they are made, then the report.

        Args:
            rest: to be called between pieces of work; may wait, and may raise `Stopped`.

        Raises:
            Invalid, Unavailable: as `triton_model` says.
        """
        raise NotImplementedError

    # The model server's entry points.

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by the model server when the model is loaded."""
        configuration = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in (configuration.get("parameters") or {}).items()}
        self.start(Path(args["model_repository"]) / args["model_version"], parameters, call_served)

    def start(self, folder: Path, parameters: Mapping[str, str], call: Call, warm_after: float = WARM_AFTER) -> None:
        """Make the model ready, inside the server or outside."""
        self.folder, self.parameters, self.call = folder, parameters, call
        self.version = parameters["version"]
        self.check()
        self._turns = self.places()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._made: Any = None
        self._ready = False
        self._warming = threading.Timer(warm_after, self._warm)
        self._warming.daemon = True
        self._warming.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Called by the model server; answers go through each request's own sender, from its own thread."""
        import triton_python_backend_utils as server

        for request in requests:
            sender = Sender(server, request)
            try:
                # Copied: the request's memory is the server's again when this returns.
                tensors = {
                    name: np.array(server.get_input_tensor_by_name(request, name).as_numpy())
                    for name in asking.INPUTS
                }
                if declaration_asked(tensors):
                    threading.Thread(target=self._declare, args=(sender,), daemon=True).start()
                    continue
                ask, live = self.read(tensors)
                ticket = self._turns.join(live)
            except Exception as error:
                sender.fail(error)
                continue
            thread = threading.Thread(target=self._compose, args=(sender, ask, live, ticket), daemon=True)
            with self._lock:
                self._threads.add(thread)
            thread.start()

    def finalize(self) -> None:
        """Called by the model server when the model is unloaded: pieces in the making are given up."""
        self._warming.cancel()
        self._turns.close()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(PATIENCE)

    def given_up(self, ask: Any) -> Callable[[], bool]:
        """Says whether a piece was given up by other means than by its client, who may be another model."""
        return lambda: False

    def _declare(self, sender: Sender) -> None:
        try:
            report = json.dumps({"version": self.declared()}).encode()
            sender.send(np.zeros((0, 2), np.float32), report, last=True)
        except Exception as error:
            sender.fail(error)

    def _compose(self, sender: Sender, ask: Any, live: bool, ticket: object) -> None:
        elsewhere = self.given_up(ask)
        try:
            with self._turns.turn(ticket, live, lambda: sender.gone() or elsewhere()) as rest:
                tools = self._made if self._ready else while_resting(self._tools, rest)
                for part in self.compose(ask, tools, rest):
                    if isinstance(part, np.ndarray):
                        sender.send(part, b"")
                    else:
                        sender.send(np.zeros((0, 2), np.float32), json.dumps(part).encode(), last=True)
        except Stopped:
            sender.fail(Unavailable("the piece was given up: it was cancelled, or the model is being unloaded"))
        except Exception as error:
            sender.fail(error)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _warm(self) -> None:
        # A failure is told to whoever asks for a piece, which tries again.
        with contextlib.suppress(Exception):
            self._tools()

    def _tools(self) -> Any:
        with self._making:
            if not self._ready:
                self._made = self.tools()
                self._ready = True
            return self._made


def declaration_asked(tensors: Mapping[str, Array]) -> bool:
    """Whether a question is about the version alone: WISHES are {"declare": "version"}."""
    said = tensors["WISHES"].reshape(-1)
    return len(said) == 1 and len(said[0]) < 64 and b"declare" in bytes(said[0]) and json.loads(said[0]) == DECLARE


def while_resting(work: Callable[[], Result], rest: Rest) -> Result:
    """What `work` answers, in a thread of its own, while `rest` is called: for work that takes long in one piece.

    Raises:
        Stopped: `rest` said so; the work goes on, and its answer is forgotten.
        Exception: whatever the work raised.
    """
    found: list[Result] = []
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # raised again below, where somebody waits for it
            trouble.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        rest()
        thread.join(LOOK_SECONDS)
    if trouble:
        raise trouble[0]
    return found[0]


class EdgeComposer(ComposerModel):
    """The composer of the edge profile: see `engine`. TEXTS and VECTOR are not looked at; WISHES are "instruments" (a
    family), "key" ("D minor") and "tempo" (beats a minute). Its REPORT is `report`'s.
    """

    files = ("bank.sf2", "tinysoundfont.so", "performance_rnn.onnx")

    def check(self) -> None:
        """See `ComposerModel`."""
        for name in self.files:
            if not (self.folder / name).exists():
                raise FileNotFoundError(f"{self.folder / name} is not built; run: promenade models build")

    def tools(self) -> Any:
        """The bank and the composer."""
        from edge_models.music import engine, synthesis

        return synthesis.Bank(self.folder), engine.PictureComposer(self.folder)

    def read(self, tensors: Mapping[str, Array]) -> tuple[Any, bool]:
        """See `asking`."""
        return asking.read(tensors)

    def compose(self, ask: Any, tools: Any, rest: Rest) -> Iterator[Array | Mapping[str, Any]]:
        """See `engine`."""
        from edge_models.music import engine

        yield from engine.compose(ask, *tools, self.version, rest)


class Sender:
    """One request's way back: sends until the last response, and after that nothing."""

    def __init__(self, server: Any, request: Any) -> None:
        self._server = server
        self._sender = request.get_response_sender()
        self._wanted = set(request.requested_output_names())
        self._done = False
        self._looked = 0.0
        self._spoke = time.monotonic()

    def gone(self) -> bool:
        """True when the client has cancelled or left; the server is asked ten times a second at most.

        It is asked between pieces of work, so this is where a long silence is broken, too.
        """
        now = time.monotonic()
        if now - self._looked < 0.1:
            return False
        self._looked = now
        if self._sender.is_cancelled():
            return True
        if now - self._spoke > SIGN_SECONDS:
            self.send(np.zeros((0, 2), np.float32), b"")
        return False

    def send(self, samples: Array, report: bytes, last: bool = False) -> None:
        """One response."""
        values = {"SAMPLES": samples, "REPORT": strings(report)}
        tensors = [self._server.Tensor(name, value) for name, value in values.items() if name in self._wanted]
        self._finish(self._server.InferenceResponse(tensors), last)

    def fail(self, error: Exception) -> None:
        """The last response, with the reason."""
        if self._done:
            return
        response = self._server.InferenceResponse(error=self._server.TritonError(message(error)))
        try:
            self._finish(response, last=True)
        except Exception as trouble:  # nobody is there to be told
            self._server.Logger.log_warn(f"a composer could not say why a piece ended ({error}): {trouble}")

    def _finish(self, response: Any, last: bool) -> None:
        flags = self._server.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self._done = self._done or last
        self._sender.send(response, flags=flags)
        self._spoke = time.monotonic()
