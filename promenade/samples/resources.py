"""Reads Qt resource files (`.rcc`) without Qt: the tree of names, and each file's bytes.

The format (Qt's `rcc` tool, versions 1 to 3), all numbers big-endian: a header `qres`, version, and the offsets of
the tree, the data and the names; from version 3 on, flags for the whole file. A tree node is 14 bytes, from version
2 on 22 (with a time stamp): name offset (u32), flags (u16), then for a folder the count and first index of its
children (u32, u32), for a file territory and language (u16, u16) and its data offset (u32). A name is its length
(u16), a hash (u32) and UTF-16; data is its length (u32) and the bytes, of which zlib-compressed ones start with the
unpacked length (u32). Everything is checked against the file's bounds, so a broken file ends in a `BrokenResources`.
What the files mean is left to the caller.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

_COMPRESSED_ZLIB: Final = 1
_FOLDER: Final = 2
_COMPRESSED_ZSTD: Final = 4
_DEEPEST: Final = 64
_LARGEST_FILE: Final = 256 * 1024 * 1024


class BrokenResources(ValueError):
    """The bytes are not a whole, readable Qt resource file."""


class Resources:
    """The files of one resource file.

    Args:
        content: the bytes of the `.rcc` file.
        name: what errors call it.

    Raises:
        BrokenResources: not a resource file, of an unknown version, cut short, or with a tree that makes no sense.
    """

    def __init__(self, content: bytes, name: str = "resource file") -> None:
        self._content = content
        self._name = name
        if content[:4] != b"qres":
            raise BrokenResources(f"{name}: not a Qt resource file (it does not start with 'qres')")
        version, self._tree, self._data, self._names = self._numbers(">IIII", 4, "header")
        if not 1 <= version <= 3:
            raise BrokenResources(f"{name}: version {version} of the Qt resource format; versions 1 to 3 are known")
        self._node_size = 22 if version >= 2 else 14
        self._files: dict[str, tuple[int, int]] = {}
        self._walk(0, "", 0, set())

    def names(self) -> list[str]:
        """Paths of all files, sorted, without a leading slash."""
        return sorted(self._files)

    def read(self, path: str) -> bytes:
        """The unpacked bytes of one file.

        Raises:
            KeyError: there is no such file.
            BrokenResources: its data are cut short or do not unpack.
        """
        flags, offset = self._files[path]
        start = self._data + offset
        (length,) = self._numbers(">I", start, f"data of {path}")
        packed = self._slice(start + 4, length, f"data of {path}")
        if flags & _COMPRESSED_ZSTD:
            return self._unpack_zstd(packed, path)
        if flags & _COMPRESSED_ZLIB:
            return self._unpack_zlib(packed, path)
        return packed

    def text(self, path: str) -> str:
        """One file as UTF-8 text; see `read`."""
        return self.read(path).decode("utf-8", errors="replace")

    def _unpack_zlib(self, packed: bytes, path: str) -> bytes:
        if len(packed) < 4:
            raise BrokenResources(f"{self._name}: data of {path}: no room for the unpacked length")
        (expected,) = struct.unpack(">I", packed[:4])
        if expected > _LARGEST_FILE:
            raise BrokenResources(f"{self._name}: data of {path}: says that it unpacks to {expected} bytes")
        try:
            unpacked = zlib.decompressobj().decompress(packed[4:], expected + 1)
        except zlib.error as error:
            raise BrokenResources(f"{self._name}: data of {path} do not unpack: {error}") from error
        if len(unpacked) != expected:
            raise BrokenResources(
                f"{self._name}: data of {path}: {len(unpacked)} bytes unpacked, {expected} expected"
            )
        return unpacked

    def _unpack_zstd(self, packed: bytes, path: str) -> bytes:
        import pyarrow  # a default dependency, and the one that brings zstd; only newer packages need it

        try:
            with pyarrow.CompressedInputStream(pyarrow.py_buffer(packed), "zstd") as stream:
                unpacked: bytes = stream.read(_LARGEST_FILE + 1)
        except (OSError, pyarrow.ArrowException) as error:
            raise BrokenResources(f"{self._name}: data of {path} do not unpack: {error}") from error
        if len(unpacked) > _LARGEST_FILE:
            raise BrokenResources(f"{self._name}: data of {path}: larger than {_LARGEST_FILE} bytes")
        return unpacked

    def _walk(self, index: int, folder: str, depth: int, seen: set[int]) -> None:
        # A node met twice would mean a loop in the tree, which a broken or malicious file can hold.
        if index in seen or depth > _DEEPEST:
            raise BrokenResources(f"{self._name}: the tree runs in a circle at node {index}")
        seen.add(index)
        start = self._tree + index * self._node_size
        self._slice(start, self._node_size, f"tree node {index}")
        name_offset, flags = self._numbers(">IH", start, f"tree node {index}")
        path = folder
        if index:
            name = self._text(name_offset)
            if name in {"", ".", ".."} or "/" in name or "\0" in name:
                raise BrokenResources(f"{self._name}: tree node {index} has the impossible name {name!r}")
            path = f"{folder}/{name}" if folder else name
        if flags & _FOLDER:
            count, first = self._numbers(">II", start + 6, f"tree node {index}")
            if count > len(self._content) // self._node_size:
                raise BrokenResources(f"{self._name}: folder {path or '/'} claims {count} entries")
            for child in range(first, first + count):
                self._walk(child, path, depth + 1, seen)
        else:
            (offset,) = self._numbers(">I", start + 10, f"tree node {index}")
            self._files[path] = (flags, offset)

    def _text(self, offset: int) -> str:
        start = self._names + offset
        (length,) = self._numbers(">H", start, "a name")
        return self._slice(start + 6, 2 * length, "a name").decode("utf-16-be", errors="replace")

    def _numbers(self, form: str, start: int, what: str) -> tuple[int, ...]:
        return struct.unpack(form, self._slice(start, struct.calcsize(form), what))

    def _slice(self, start: int, length: int, what: str) -> bytes:
        end = start + length
        if end > len(self._content):
            size = len(self._content)
            raise BrokenResources(f"{self._name}: {what} ends at byte {end}, but the file has only {size}")
        return self._content[start:end]
