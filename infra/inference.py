"""The model server: one Triton, spoken to with `tritonclient` over gRPC.

A call names a capability and hands over tensors as numpy arrays; text and bytes travel as object arrays. What
the tensors mean is left to `workers.models`. Trouble is told apart here: the server or a model that is away is
`Passing`; a tensor that the model refuses is `Lasting`; a model whose process died during the call is `Passing`
with `suspect`, because the item may have killed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from infra.metrics import (
    MODEL_COMPUTE_SECONDS,
    MODEL_FAILURES,
    MODEL_QUEUE_SECONDS,
    MODEL_REQUESTS,
    MODEL_SECONDS,
)
from schemas.failures import Lasting, Passing

PART: Final = "model server"
Array = np.ndarray[Any, np.dtype[Any]]

_CALL_SECONDS: Final = 120.0
"""A call that takes longer is given up and tried again: the longest honest one (four windows of sound behind a
full queue) takes about 20 s on 2 slow cores; a process that hangs would otherwise hold the partition for ever."""

_CHANNEL: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Come back within a second or two of the server's return; gRPC's own default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1500),
]

_DEAD_STUB: Final = ("stub process", "is not healthy", "shared memory region")
_AWAY_CODES: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_EXHAUSTED")


class Inference:
    """A Triton server.

    Args:
        url: `host:port` of its gRPC endpoint.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = None

    def _connected(self) -> Any:
        # Made on first use: a gRPC channel belongs to the event loop that it was made in.
        if self._client is None:
            self._client = triton.InferenceServerClient(self.url, channel_args=list(_CHANNEL))
        return self._client

    async def close(self) -> None:
        """Close the channel."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One call.

        Args:
            model: name of the capability's model.
            inputs: tensor name -> array; the first dimension is the batch. Texts: object arrays of bytes.
            outputs: names of the wanted tensors.

        Returns:
            Output name -> array, the batch first.

        Raises:
            Passing: the server or the model is away (`suspect` when the model's process died in the call).
            Lasting: the model refuses the tensors, or answers with a fault of its own.
        """
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        try:
            with MODEL_SECONDS.labels(model).time():
                answer = await self._connected().infer(model, tensors, outputs=wanted, client_timeout=_CALL_SECONDS)
        except InferenceServerException as error:
            raise self._trouble(model, error) from None
        except (TimeoutError, grpc.RpcError, OSError) as error:
            MODEL_FAILURES.labels(model, "passing").inc()
            raise Passing(PART, f"{self.url} does not answer ({type(error).__name__})") from None
        found: dict[str, Array] = {}
        for name in outputs:
            array = answer.as_numpy(name)
            if array is None:
                MODEL_FAILURES.labels(model, "lasting").inc()
                raise Lasting(f"the model {model} answered without {name}.", "Build the models again.")
            found[name] = array
        return found

    def _trouble(self, model: str, error: InferenceServerException) -> Passing | Lasting:
        message = str(error.message() or "")
        status = str(error.status() or "")
        lowered = message.lower()
        if "invalid: " in message:
            MODEL_FAILURES.labels(model, "lasting").inc()
            return Lasting(f"the model {model} refuses it: {message.split('invalid: ', 1)[1].strip()}")
        if "unavailable: " in message:
            MODEL_FAILURES.labels(model, "passing").inc()
            return Passing(PART, f"the model {model} waits for one that it calls")
        if any(sign in lowered for sign in _DEAD_STUB):
            MODEL_FAILURES.labels(model, "passing").inc()
            return Passing(PART, f"the process of model {model} died and is being restarted", suspect=True)
        if any(code in status for code in _AWAY_CODES):
            MODEL_FAILURES.labels(model, "passing").inc()
            return Passing(PART, f"{self.url} does not answer ({status.removeprefix('StatusCode.').lower()})")
        if (
            "unknown model" in lowered
            or "is not ready" in lowered
            or "no available" in lowered
            or "NOT_FOUND" in status
        ):
            MODEL_FAILURES.labels(model, "passing").inc()
            return Passing(PART, f"the model {model} is not loaded (yet)")
        MODEL_FAILURES.labels(model, "lasting").inc()
        return Lasting(f"the model {model} failed: {message[:300]}", "See the model server's log.")

    async def ready(self, models: Sequence[str]) -> None:
        """Return when the server and all these models are ready.

        Raises:
            Passing: naming what is not.
        """
        try:
            client = self._connected()
            if not await client.is_server_ready(client_timeout=2):
                raise Passing(PART, f"{self.url} is starting")
            for model in models:
                if not await client.is_model_ready(model, client_timeout=2):
                    raise Passing(PART, f"the model {model} is not ready")
        except (TimeoutError, InferenceServerException, grpc.RpcError, OSError):
            raise Passing(PART, f"{self.url} does not answer") from None

    async def read_statistics(self) -> None:
        """Copy the server's own statistics (requests, queue and compute seconds per model) into the metrics.

        The server being away is no fault here: the metrics then keep their last values.
        """
        try:
            answer = await self._connected().get_inference_statistics(as_json=True, client_timeout=2)
        except (TimeoutError, InferenceServerException, grpc.RpcError, OSError):
            return
        for entry in answer.get("model_stats", []):
            name, stats = entry["name"], entry.get("inference_stats", {})
            seconds = {key: float(value.get("ns", 0)) / 1e9 for key, value in stats.items()}
            MODEL_REQUESTS.labels(name).set(float(stats.get("success", {}).get("count", 0)))
            MODEL_QUEUE_SECONDS.labels(name).set(seconds.get("queue", 0.0))
            MODEL_COMPUTE_SECONDS.labels(name).set(
                seconds.get("compute_input", 0.0)
                + seconds.get("compute_infer", 0.0)
                + seconds.get("compute_output", 0.0)
            )
