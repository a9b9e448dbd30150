"""The base of every Python model: rows in, rows out, errors kept apart. What a model answers is left to the models.

A model's `model.py` holds a class `TritonPythonModel(RowModel)` that names its inputs and outputs and answers rows.
The server may join several requests into one call; each request may hold several rows. All rows are answered in one
`answer`, so that inner networks see large batches; a row that is refused fails its own request only.

Outside the server the same class is run by `edge_models.local`, which hands in another `call`.

Errors, by the first word of their message:
* `invalid: ...`  the row cannot be answered, now or later; the message says why in plain words;
* `unavailable: ...`  a model that this one calls did not answer; trying again may help;
* `failed: ...`  anything else (a fault of the model's code).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Row = Mapping[str, Array]
Given = TypeVar("Given")
Made = TypeVar("Made")


class Invalid(ValueError):
    """This row can never be answered. The text is plain words for the person who sent it."""


class Unavailable(RuntimeError):
    """A model that this one needs did not answer; it may later."""


class Call(Protocol):
    """Calls another served model: tensors with the batch dimension in, the named outputs back.

    Raises:
        Invalid: the other model refused the tensors.
        Unavailable: the other model did not answer.
    """

    def __call__(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]: ...


class RowModel:
    """Base of a model. Subclasses set `inputs` and `outputs`, and define `answer`, and `load` if they need files."""

    inputs: ClassVar[tuple[str, ...]]
    """Names of the input tensors, as in config.pbtxt."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Names of inputs that a request may leave out (`optional: true` there); its rows do not hold them then."""
    outputs: ClassVar[Mapping[str, type]]
    """Name -> numpy type of each output; `object` for BYTES."""

    folder: Path
    """The version folder, with the model's built files."""
    parameters: Mapping[str, str]
    """`parameters` of config.pbtxt."""
    call: Call

    def load(self) -> None:
        """Read files from `self.folder`; runs once before the first row."""

    def answer(self, rows: Sequence[Row]) -> Sequence[Row | Invalid]:
        """One answer a row, in order: its output tensors (no batch dimension), or why the row is refused.

        BYTES come as arrays of `bytes` objects and may be given back as `bytes` or `str`.

        Raises:
            Invalid: every row is refused.
            Unavailable: a model that this one calls did not answer.
        """
        raise NotImplementedError

    # The model server's entry points.

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by the model server when the model is loaded."""
        configuration = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in (configuration.get("parameters") or {}).items()}
        self.start(Path(args["model_repository"]) / args["model_version"], parameters, call_served)

    def start(self, folder: Path, parameters: Mapping[str, str], call: Call) -> None:
        """Make the model ready, inside the server or outside."""
        self.folder, self.parameters, self.call = folder, parameters, call
        self.load()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by the model server with the requests of one batch; one response a request."""
        import triton_python_backend_utils as server  # only there inside a stub

        answers: list[dict[str, Array] | Exception] = self.answer_requests(
            [
                {
                    name: tensor.as_numpy()
                    for name in (*self.inputs, *self.optional)
                    if (tensor := server.get_input_tensor_by_name(request, name)) is not None
                }
                for request in requests
            ]
        )
        responses = []
        for request, answered in zip(requests, answers, strict=True):
            if isinstance(answered, Exception):
                responses.append(server.InferenceResponse(error=server.TritonError(message(answered))))
                continue
            wanted = set(request.requested_output_names())
            tensors = [server.Tensor(name, value) for name, value in answered.items() if name in wanted]
            responses.append(server.InferenceResponse(tensors))
        return responses

    def answer_requests(self, requests: Sequence[Mapping[str, Array]]) -> list[dict[str, Array] | Exception]:
        """Answer requests of one or more rows each (tensors with batch dimension); one outcome a request."""
        counts = [len(request[self.inputs[0]]) for request in requests]
        rows = [
            {name: request[name][index] for name in (*self.inputs, *self.optional) if name in request}
            for request, count in zip(requests, counts, strict=True)
            for index in range(count)
        ]
        try:
            answers: Sequence[Row | Exception] = self.answer(rows)
            if len(answers) != len(rows):
                raise RuntimeError(f"{len(answers)} answers to {len(rows)} rows")
        except Exception as error:
            answers = [error] * len(rows)
        outcomes: list[dict[str, Array] | Exception] = []
        start = 0
        for count in counts:
            outcomes.append(self._join(answers[start : start + count]))
            start += count
        return outcomes

    def _join(self, answers: Sequence[Row | Exception]) -> dict[str, Array] | Exception:
        for number, answered in enumerate(answers):
            if isinstance(answered, Exception):
                if isinstance(answered, Invalid) and len(answers) > 1:
                    return Invalid(f"row {number} of {len(answers)}: {answered}")
                return answered
        try:
            joined: dict[str, Array] = {}
            for name, kind in self.outputs.items():
                values = [answered[name] for answered in answers if not isinstance(answered, Exception)]
                if kind is object:
                    joined[name] = np.stack([_bytes_array(value) for value in values])
                else:
                    joined[name] = np.ascontiguousarray(np.stack([np.asarray(value, dtype=kind) for value in values]))
        except Exception as error:
            return error
        return joined


def each(function: Callable[[Given], Made], rows: Sequence[Given]) -> list[Made | Invalid]:
    """Answer row by row; a row whose function raises Invalid is refused, the others are answered."""
    answers: list[Made | Invalid] = []
    for row in rows:
        try:
            answers.append(function(row))
        except Invalid as refusal:
            answers.append(refusal)
    return answers


def text(value: Array, name: str, longest: int = 65536) -> str:
    """The one text of a BYTES[1] tensor.

    Raises:
        Invalid: not UTF-8, or longer than `longest` bytes.
    """
    data = blob(value, name)
    if len(data) > longest:
        raise Invalid(f"{name} has {len(data)} bytes; at most {longest} are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{name} is not UTF-8 (byte {error.start}); send UTF-8 text") from None


def blob(value: Array, name: str) -> bytes:
    """The one byte string of a BYTES[1] tensor.

    Raises:
        Invalid: the tensor does not hold exactly one.
    """
    values = value.reshape(-1)
    if len(values) != 1:
        raise Invalid(f"{name} holds {len(values)} values; one is expected")
    one = values[0]
    return one.encode("utf-8") if isinstance(one, str) else bytes(one)


def parsed(value: Array, name: str, longest: int = 1 << 20) -> Any:
    """The JSON value of a BYTES[1] tensor.

    Raises:
        Invalid: not UTF-8, not JSON, or too long.
    """
    try:
        return json.loads(text(value, name, longest))
    except json.JSONDecodeError as error:
        raise Invalid(f"{name} is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Invalid(f"{name} is JSON nested too deeply") from None


def finite(value: Array, name: str) -> Array:
    """The tensor itself, once all its numbers are finite.

    Raises:
        Invalid: a number is not finite.
    """
    if not np.isfinite(value).all():
        raise Invalid(f"{name} holds a number that is not finite")
    return value


def strings(*values: str | bytes) -> Array:
    """A BYTES tensor (no batch dimension) of these values."""
    return _bytes_array(list(values))


def message(error: Exception) -> str:
    """What the client reads: the kind of trouble first."""
    if isinstance(error, Invalid):
        return f"invalid: {error}"
    if isinstance(error, Unavailable):
        return f"unavailable: {error}"
    return f"failed: {type(error).__name__}: {error}"


def _bytes_array(value: Any) -> Array:
    given = [value] if isinstance(value, str | bytes) else list(np.asarray(value, dtype=object).reshape(-1))
    array = np.empty(len(given), dtype=object)
    for index, one in enumerate(given):
        array[index] = one.encode("utf-8") if isinstance(one, str) else bytes(one)
    return array


def call_served(model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
    """`Call` inside the model server."""
    import triton_python_backend_utils as server

    request = server.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[server.Tensor(name, np.ascontiguousarray(value)) for name, value in inputs.items()],
    )
    response = request.exec()
    if response.has_error():
        reason = response.error().message()
        if "invalid: " in reason:
            raise Invalid(reason.split("invalid: ", 1)[1])
        raise Unavailable(f"model {model}: {reason}")
    return {name: server.get_output_tensor_by_name(response, name).as_numpy() for name in outputs}
