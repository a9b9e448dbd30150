"""A model-server backend "onnxruntime" in Python, for the CPU: serves folders that hold only model.onnx and a config.

No published wheel carries the server's own onnxruntime backend, so the embedded stack puts this one in its place; the
same repository folder is served unchanged by the real one in a container, where this file is never mounted.

Several requests of one batch run together; if that run fails, each is run alone, so that one bad tensor fails its own
request only. Parameters read from config.pbtxt: intra_op_thread_count and inter_op_thread_count, as the real backend
does, and rows_per_run (0, the default: all rows at once), which the real one ignores: a network with large inner
tensors is run on few rows at a time, which takes less memory and, on a CPU, less time. What the models mean is left
to those who call them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as server

_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int8)": "TYPE_INT8",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
}
_DEFAULT_BATCH = 4
"""max_batch_size of a model without a config, as in the real backend."""


class TritonPythonModel:
    """One ONNX model and its session."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Fill in inputs and outputs where config.pbtxt names none."""
        given = config.as_dict()
        if given["input"] and given["output"]:
            return config
        path = Path(server.get_model_dir()) / (given.get("default_model_filename") or "model.onnx")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        growing = all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors)
        if growing and not given["max_batch_size"]:
            config.set_max_batch_size(_DEFAULT_BATCH)
        batched = config.as_dict()["max_batch_size"] > 0

        def described(tensor: Any) -> dict[str, Any]:
            dims = [size if isinstance(size, int) else -1 for size in tensor.shape[1 if batched else 0 :]]
            return {"name": tensor.name, "data_type": _TYPES[tensor.type], "dims": dims}

        for tensor in session.get_inputs():
            config.add_input(described(tensor))
        for tensor in session.get_outputs():
            config.add_output(described(tensor))
        if batched:
            config.set_dynamic_batching()
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the session."""
        configuration = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in (configuration.get("parameters") or {}).items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "0"))
        options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "0"))
        # Idle threads sleep: several models share few cores, and a spinning thread takes a core from the others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Memory grows by what a run needs, not by powers of two, and batches of many shapes leave no plan behind.
        options.enable_mem_pattern = False
        path = Path(args["model_repository"]) / args["model_version"]
        path /= configuration.get("default_model_filename") or "model.onnx"
        if not path.exists():
            raise server.TritonModelException(f"{path} is not built; run: promenade models build")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=[("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})]
        )
        self._inputs = [one["name"] for one in configuration["input"]]
        self._outputs = [one["name"] for one in configuration["output"]]
        self._batched = configuration["max_batch_size"] > 0
        self._rows = int(parameters.get("rows_per_run", "0")) if self._batched else 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request."""
        given = [
            {name: server.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        answers: list[list[Any] | str] = []
        if self._batched and len(given) > 1:
            try:
                joined = self._run({name: np.concatenate([one[name] for one in given]) for name in self._inputs})
                ends = np.cumsum([len(one[self._inputs[0]]) for one in given])[:-1]
                answers = [list(parts) for parts in zip(*(np.split(tensor, ends) for tensor in joined), strict=True)]
            except Exception as error:
                server.Logger.log_verbose(f"a joined run failed ({error}); each request runs alone")
        if not answers:
            answers = [self._alone(one) for one in given]
        responses = []
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, str):
                responses.append(server.InferenceResponse(error=server.TritonError(answer)))
                continue
            wanted = set(request.requested_output_names())
            responses.append(
                server.InferenceResponse(
                    [
                        server.Tensor(name, np.ascontiguousarray(tensor))
                        for name, tensor in zip(self._outputs, answer, strict=True)
                        if name in wanted
                    ]
                )
            )
        return responses

    def _run(self, inputs: dict[str, Any]) -> list[Any]:
        count = len(inputs[self._inputs[0]])
        step = self._rows or count
        if count <= step:
            answered: list[Any] = self._session.run(self._outputs, inputs)
            return answered
        runs = [
            self._session.run(self._outputs, {name: value[start : start + step] for name, value in inputs.items()})
            for start in range(0, count, step)
        ]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _alone(self, inputs: dict[str, Any]) -> list[Any] | str:
        try:
            return self._run(inputs)
        except Exception as error:
            # onnxruntime's own word for tensors it cannot take; anything else may be a fault of this machine.
            refused = type(error).__name__ in ("InvalidArgument", "Fail", "RuntimeException")
            return f"{'invalid' if refused else 'failed'}: the network cannot take these tensors: {error}"
