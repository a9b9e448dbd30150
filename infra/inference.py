"""The model server: one Triton, spoken to with `tritonclient` over gRPC.

A call names a capability and hands over tensors as numpy arrays; text and bytes travel as object arrays. What
the tensors mean is left to `workers.models`. Trouble is told apart here: the server or a model that is away is
`Passing`; a tensor that the model refuses is `Lasting`; a model whose process died during the call is `Passing`
with `suspect`, because the item may have killed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from infra.metrics import MODEL_FAILURES, MODEL_IN_FLIGHT, MODEL_SECONDS, SERVER_STATISTICS, ModelStatistics
from schemas.failures import Declined, Lasting, Passing

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


def _tensors(inputs: Mapping[str, Array]) -> list[Any]:
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


class Inference:
    """A Triton server.

    Args:
        url: `host:port` of its gRPC endpoint.
        patience: model -> seconds after which a call is given up, for those that take longer than most.
    """

    def __init__(self, url: str, patience: Mapping[str, float] | None = None) -> None:
        self.url = url
        self._patience = dict(patience or {})
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
        tensors = _tensors(inputs)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        seconds = self._patience.get(model, _CALL_SECONDS)
        try:
            with MODEL_IN_FLIGHT.labels(model).track_inprogress(), MODEL_SECONDS.labels(model).time():
                answer = await self._connected().infer(model, tensors, outputs=wanted, client_timeout=seconds)
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

    async def stream(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, stall_seconds: float
    ) -> AsyncGenerator[dict[str, Array], None]:
        """One request to a model that answers in pieces; each as it comes. Closing the generator cancels the request.

        Args:
            model, inputs, outputs: as for `infer`.
            stall_seconds: silence after which the request is given up.

        Raises:
            Passing, Lasting: as `infer`; also after some answers.
        """

        async def request() -> AsyncGenerator[dict[str, Any], None]:
            wanted = [triton.InferRequestedOutput(name) for name in outputs]
            yield {"model_name": model, "inputs": _tensors(inputs), "outputs": wanted}

        answers = None
        try:
            answers = self._connected().stream_infer(request())
            while True:
                try:
                    answer, error = await asyncio.wait_for(anext(answers), stall_seconds)
                except StopAsyncIteration:
                    return
                if error is not None:
                    raise error
                yield {name: array for name in outputs if (array := answer.as_numpy(name)) is not None}
        except InferenceServerException as error:
            raise self._trouble(model, error) from None
        except TimeoutError:
            MODEL_FAILURES.labels(model, "passing").inc()
            raise Passing(PART, f"the model {model} was silent for {stall_seconds:.0f} s", suspect=True) from None
        except grpc.RpcError as error:
            code = error.code().name if hasattr(error, "code") else ""
            details = (error.details() or "") if hasattr(error, "details") else ""
            raise self._trouble(model, InferenceServerException(details, f"StatusCode.{code}")) from None
        except OSError as error:
            MODEL_FAILURES.labels(model, "passing").inc()
            raise Passing(PART, f"{self.url} does not answer ({type(error).__name__})") from None
        finally:
            if answers is not None:
                answers.cancel()

    def _trouble(self, model: str, error: InferenceServerException) -> Passing | Lasting:
        message = str(error.message() or "")
        status = str(error.status() or "")
        lowered = message.lower()
        if "invalid: " in message:
            MODEL_FAILURES.labels(model, "lasting").inc()
            return Declined(f"the model {model} refuses it: {message.split('invalid: ', 1)[1].strip()}")
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
        """Copy the server's own statistics (requests, batches, queue and compute seconds) into the metrics.

        The server being away is no fault here: the metrics then keep their last values.
        """
        try:
            answer = await self._connected().get_inference_statistics(as_json=True, client_timeout=2)
        except (TimeoutError, InferenceServerException, grpc.RpcError, OSError):
            return
        SERVER_STATISTICS.models = statistics_of(answer)


def statistics_of(answer: Mapping[str, Any]) -> dict[str, ModelStatistics]:
    """Triton's statistics by model, versions of a model taken together.

    Args:
        answer: ModelStatisticsResponse as JSON: numbers of 64 bits are strings, zeros are left out.
    """
    found: dict[str, ModelStatistics] = {}
    for entry in answer.get("model_stats", []):
        stats = entry.get("inference_stats", {})
        seconds = {key: float(value.get("ns", 0)) / 1e9 for key, value in stats.items()}
        known = found.get(entry["name"], ModelStatistics())
        batches = dict(known.batches)
        for each in entry.get("batch_stats", []):
            size = int(each.get("batch_size", 0))
            batches[size] = batches.get(size, 0) + int(each.get("compute_infer", {}).get("count", 0))
        found[entry["name"]] = ModelStatistics(
            requests=known.requests + int(stats.get("success", {}).get("count", 0)),
            queue=known.queue + seconds.get("queue", 0.0),
            compute=known.compute
            + sum(seconds.get(name, 0.0) for name in ("compute_input", "compute_infer", "compute_output")),
            batches=batches,
        )
    return found
