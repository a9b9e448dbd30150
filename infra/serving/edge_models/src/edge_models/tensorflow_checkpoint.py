"""Read the variables of a TensorFlow V2 checkpoint (.index and .data files) without TensorFlow.

The .index file is a sorted string table (as in LevelDB, without compression) of protobuf messages
(tensorflow/core/protobuf/tensor_bundle.proto): each names a variable's type, shape, offset and size in the .data
file. Only float32 variables in one .data file are read; others are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_MAGIC = 0xDB4775248B80FB57
_FLOAT32 = 1


def read(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Name -> array, for every float32 variable.

    Raises:
        ValueError: not a checkpoint, compressed, or cut short.
    """
    try:
        return _read(index, data)
    except (IndexError, struct.error) as error:
        raise ValueError("the checkpoint is cut short or damaged") from error


def _read(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    footer = index[-48:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("not the index of a TensorFlow checkpoint")
    _, at = _number(footer, 0)  # meta index: offset, size
    _, at = _number(footer, at)
    start, at = _number(footer, at)
    size, at = _number(footer, at)
    variables: dict[str, npt.NDArray[np.float32]] = {}
    for _, handle in _entries(index, start, size):
        block_start, after = _number(handle, 0)
        block_size, _ = _number(handle, after)
        for key, value in _entries(index, block_start, block_size):
            fields = _fields(value)
            if not key or fields.get(1, [0])[0] != _FLOAT32:
                continue  # the header, or a variable of another type
            shape = [_fields(part).get(1, [0])[0] for part in _fields(fields[2][0]).get(2, [])] if 2 in fields else []
            offset, length = fields.get(4, [0])[0], fields.get(5, [0])[0]
            if offset + length > len(data):
                raise ValueError(f"variable {key.decode()} lies outside the data file")
            variables[key.decode()] = np.frombuffer(data[offset : offset + length], "<f4").reshape(shape)
    return variables


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _entries(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; keys share prefixes with the key before."""
    if table[start + size] != 0:
        raise ValueError("the checkpoint's index is compressed, which is not read here")
    block = table[start : start + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _number(block, at)
        own, at = _number(block, at)
        length, at = _number(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _fields(data: bytes) -> dict[int, list]:  # type: ignore[type-arg]  # numbers and byte strings mixed, by wire type
    """Field number -> values of a protobuf message."""
    at = 0
    fields: dict[int, list] = {}  # type: ignore[type-arg]
    while at < len(data):
        tag, at = _number(data, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, at = _number(data, at)
        elif wire == 2:
            length, at = _number(data, at)
            value, at = data[at : at + length], at + length
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, at = data[at : at + width], at + width
        else:
            raise ValueError(f"a protobuf field of wire type {wire}")
        fields.setdefault(number, []).append(value)
    return fields
