"""Read the tensors of a torch state-dict file without torch. Running the network is left to others.

Both layouts are read: the zip file (torch 1.6 and later) and the older row of pickles. Only tensors, numbers, strings
and containers can come out: any other name in the pickle is refused, so a file cannot make this process run code.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass
class _Tensor:
    """A tensor whose numbers are read later: a strided window on a storage."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


class _StorageKind(str):
    """Name of a storage type."""


class _Unpickler(pickle.Unpickler):
    """Knows containers and tensors, and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.kinds: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _parameter
        if module == "torch" and name in _STORAGES:
            return _StorageKind(name)
        raise pickle.UnpicklingError(
            f"the file names {module}.{name}, which a file of tensors does not need; refused"
        )

    def persistent_load(self, identity: Any) -> str:
        # ("storage", kind, key, device, number of elements[, view])
        if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
            raise pickle.UnpicklingError("the file refers to something that is not a storage; refused")
        self.kinds[str(identity[2])] = _STORAGES[str(identity[1])]
        return str(identity[2])


def read(path: Path, inside: str | None = None) -> dict[str, npt.NDArray[Any]]:
    """Name -> array, for every tensor at the top level of the state dict, or of its entry `inside`.

    Raises:
        pickle.UnpicklingError: the file names something other than tensors and containers.
        ValueError: the file is not a torch state dict.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(found) != 1:
                raise ValueError(f"{path} is a zip file, but not one that torch wrote (no data.pkl)")
            unpickler = _Unpickler(io.BytesIO(archive.read(found[0])))
            state = unpickler.load()
            root = found[0].removesuffix("data.pkl")
            raw = {key: archive.read(f"{root}data/{key}") for key in unpickler.kinds}
            kinds = unpickler.kinds
    else:
        with path.open("rb") as file:
            for _ in range(3):  # magic number, protocol, system
                _Unpickler(file).load()
            unpickler = _Unpickler(file)
            state = unpickler.load()
            kinds = unpickler.kinds
            raw = {}
            for key in _Unpickler(file).load():
                (count,) = struct.unpack("<q", file.read(8))
                raw[str(key)] = file.read(count * np.dtype(kinds[str(key)]).itemsize)
    if inside is not None and isinstance(state, dict):
        state = state.get(inside)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return {
        name: _array(raw[value.storage], kinds[value.storage], value)
        for name, value in state.items()
        if isinstance(value, _Tensor)
    }


def _array(data: bytes, kind: str, tensor: _Tensor) -> npt.NDArray[Any]:
    flat = np.frombuffer(data, dtype=kind)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and not 0 <= last < len(flat):
        raise ValueError("a tensor lies outside its storage; the file is damaged")
    strides = [step * flat.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
