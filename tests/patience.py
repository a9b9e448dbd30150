"""How long tests wait before they call something hung.

Deadlines are written for two cores that nobody else uses. On a machine that is shared everything may take several
times as long, and a test that then fails says nothing of the code; one that waits longer than it must says it later.
"""

from __future__ import annotations

import time
from typing import Final

SLOWEST: Final = 3.0
"""How many times slower than two quiet cores a machine may be."""


def patient(seconds: float) -> float:
    """A time limit for the slowest machine, from one for two quiet cores; both in seconds."""
    return SLOWEST * seconds


def deadline(seconds: float) -> float:
    """When (`time.monotonic`) that much time is over on the slowest machine."""
    return time.monotonic() + patient(seconds)
