"""compose_music in the edge profile: reads tensors, composes in a thread for each request, sends blocks as they come.

What a piece is and how it sounds is left to `edge_models.music`; whose turn it is, to its `turns.Turns`. The large
imports, the bank and the network are read a little after the start, or with the first piece if that comes before: so
the server is ready sooner, and the first person does not wait for them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edge_models.triton_model import Array, Unavailable, message, strings

FILES = ("bank.sf2", "tinysoundfont.so", "performance_rnn.onnx")
# Seconds that unloading waits for pieces in the making: each stops between two pieces of work.
PATIENCE = 10.0
# Seconds from the start after which the tools are read: other models are starting until then.
WARM_AFTER = 8.0


class TritonPythonModel:
    """Decoupled: see config.pbtxt for tensors. Each response but the last has SAMPLES [n, 2] and an empty REPORT; the
    last has SAMPLES [0, 2] and the REPORT, JSON (`edge_models.music.report`).

    MEASUREMENTS are measure_picture's, TEXTS captions (not looked at in this profile), VECTOR the picture's in
    picture-tags-1; WISHES a JSON object of "instruments" (a family), "key" ("D minor"), "tempo" (beats a minute).
    LIVE says that a person waits: such a piece goes before all that are made in the background.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by the model server when the model is loaded."""
        from edge_models.music import asking
        from edge_models.music.turns import Turns

        self._folder = Path(args["model_repository"]) / args["model_version"]
        for name in FILES:
            if not (self._folder / name).exists():
                raise FileNotFoundError(f"{self._folder / name} is not built; run: promenade models build")
        parameters = json.loads(args["model_config"]).get("parameters") or {}
        self._version = parameters["version"]["string_value"]
        self._read = asking.read
        self._inputs = asking.INPUTS
        self._turns = Turns()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._tools: tuple[Any, Any] | None = None
        self._warming = threading.Timer(WARM_AFTER, self._warm)
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
                    name: np.array(server.get_input_tensor_by_name(request, name).as_numpy()) for name in self._inputs
                }
                ask, live = self._read(tensors)
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

    def _compose(self, sender: Sender, ask: Any, live: bool, ticket: object) -> None:
        from edge_models.music.turns import Stopped

        try:
            with self._turns.turn(ticket, live, sender.gone) as rest:
                from edge_models.music import engine

                bank, composer = self._ready()
                for part in engine.compose(ask, bank, composer, self._version, rest):
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
            self._ready()

    def _ready(self) -> tuple[Any, Any]:
        """The bank and the composer, made once."""
        from edge_models.music import engine, synthesis

        with self._making:
            if self._tools is None:
                self._tools = synthesis.Bank(self._folder), engine.PictureComposer(self._folder)
            return self._tools


class Sender:
    """One request's way back: sends until the last response, and after that nothing."""

    def __init__(self, server: Any, request: Any) -> None:
        self._server = server
        self._sender = request.get_response_sender()
        self._wanted = set(request.requested_output_names())
        self._done = False
        self._looked = 0.0

    def gone(self) -> bool:
        """True when the client has cancelled or left; the server is asked ten times a second at most."""
        now = time.monotonic()
        if now - self._looked < 0.1:
            return False
        self._looked = now
        return bool(self._sender.is_cancelled())

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
            self._server.Logger.log_warn(f"compose_music could not say why a piece ended ({error}): {trouble}")

    def _finish(self, response: Any, last: bool) -> None:
        flags = self._server.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self._done = self._done or last
        self._sender.send(response, flags=flags)
