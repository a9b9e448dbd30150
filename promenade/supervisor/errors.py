"""What can stop the embedded stack from starting, in words for the person at the terminal."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """The embedded stack cannot do what was asked; the text says what, where and what to do next."""


class StackBusy(StackError):
    """Somebody else holds the data folder."""


class PortTaken(StackError):
    """A port that the stack needs is in use."""


class PartFailed(StackError):
    """A part did not become ready."""


class SecretsUnsafe(StackError):
    """The secrets could have been read or replaced by others, or do not parse."""


def check_folder(data: Path) -> None:
    """Raise StackError where `data`, or what it should lie in, is there and no folder."""
    for place in (data, *data.parents):
        if place.exists():
            if not place.is_dir():
                raise StackError(f"{place} is a file, not a folder: give the data folder with --data.")
            return
