"""Run the served models in one process, without the model server: for tests and for plain scripts.

The same `model.py` files answer, from the same repository folder; the networks run in onnxruntime sessions of this
process. Needs onnxruntime.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_models import configuration
from edge_models.triton_model import Array, Invalid, RowModel


class LocalModels:
    """The models of a repository, each loaded when first called.

    Args:
        repository: a model repository folder (model_repository/edge), built.
        threads: onnxruntime's threads inside one run; 0 leaves its default (all cores).
    """

    def __init__(self, repository: Path, threads: int = 0) -> None:
        self.repository = repository
        self.threads = threads
        self._models: dict[str, RowModel] = {}
        self._sessions: dict[str, Any] = {}
        self._lock = threading.RLock()

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Answer one request (tensors with the batch dimension), as the model server would.

        Raises:
            Invalid: the model refuses a row.
            FileNotFoundError: the repository has no such model, or it is not built.
        """
        if (self._folder(model) / "model.py").exists():
            (outcome,) = self._model(model).answer_requests([inputs])
            if isinstance(outcome, Exception):
                raise outcome
            return {name: outcome[name] for name in outputs or outcome}
        session = self._session(model)
        names = list(outputs) if outputs else [output.name for output in session.get_outputs()]
        try:
            values = session.run(names, dict(inputs))
        except Exception as error:
            if type(error).__name__ == "InvalidArgument":
                raise Invalid(f"model {model} refuses these tensors: {error}") from error
            raise
        return dict(zip(names, values, strict=True))

    def _folder(self, model: str) -> Path:
        versions = [int(path.name) for path in (self.repository / model).glob("*") if path.name.isdigit()]
        if not versions:
            raise FileNotFoundError(f"{self.repository} has no model {model}")
        return self.repository / model / str(max(versions))

    def _model(self, name: str) -> RowModel:
        with self._lock:
            if name not in self._models:
                folder = self._folder(name)
                specification = importlib.util.spec_from_file_location(f"served_{name}", folder / "model.py")
                if specification is None or specification.loader is None:
                    raise FileNotFoundError(folder / "model.py")
                module = importlib.util.module_from_spec(specification)
                # Dataclasses look their module up by name.
                sys.modules[specification.name] = module
                specification.loader.exec_module(module)
                model: RowModel = module.TritonPythonModel()
                fields = configuration.read(folder.parent / "config.pbtxt")
                model.start(folder, configuration.parameters(fields), self.infer)
                self._models[name] = model
            return self._models[name]

    def _session(self, name: str) -> Any:
        import onnxruntime

        with self._lock:
            if name not in self._sessions:
                path = self._folder(name) / "model.onnx"
                if not path.exists():
                    raise FileNotFoundError(f"{path} is not built; run: promenade models build")
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = self.threads
                self._sessions[name] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[name]
