"""What can stop the embedded stack from starting, in words for the person at the terminal."""

from __future__ import annotations


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
