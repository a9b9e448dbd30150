"""Whose turn it is, among pieces that are made at the same time: a person's before those of the background.

Nothing of music is in here, and nothing large is imported: the served model holds it from its start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_models.triton_model import Unavailable

Rest = Callable[[], None]
"""Called between two pieces of work: may wait, and may raise `Stopped`."""


class Stopped(Exception):
    """Nobody wants the piece any more; raised where it waits."""


class Turns:
    """Whose turn it is, among pieces made at the same time by threads of one process.

    A background piece works only while no person's piece is being made or waits for a place. So many of each kind are
    made at once; others wait for a place, and beyond `waiting` they are refused.

    Args:
        live, background: places of each kind.
        waiting: how many may wait for a place, both kinds together.
    """

    def __init__(self, live: int = 8, background: int = 2, waiting: int = 256) -> None:
        self._places = {True: live, False: background}
        self._working = {True: 0, False: 0}
        self._queues: dict[bool, list[object]] = {True: [], False: []}
        self._waiting = waiting
        self._changed = threading.Condition()
        self._closed = False

    def join(self, live: bool) -> object:
        """Get in line; the answer is the ticket for `turn`.

        Raises:
            Unavailable: the line is full.
        """
        ticket = object()
        with self._changed:
            if sum(map(len, self._queues.values())) >= self._waiting + self._free(live):
                raise Unavailable(
                    f"{sum(self._working.values())} pieces are being made and {self._waiting} wait; "
                    "ask again when some are done"
                )
            self._queues[live].append(ticket)
        return ticket

    def _free(self, live: bool) -> int:
        return self._places[live] - self._working[live]

    @contextmanager
    def turn(self, ticket: object, live: bool, stopped: Callable[[], bool]) -> Iterator[Rest]:
        """Wait for a place and hold it; the answer is the piece's `rest`.

        Raises:
            Stopped: `stopped()` became true meanwhile, or `close` was called; `rest` raises it too.
        """
        try:
            with self._changed:
                self._wait(stopped, lambda: self._queues[live][0] is ticket and self._free(live) > 0, 1.0)
                self._working[live] += 1
        finally:
            with self._changed:
                self._queues[live].remove(ticket)
                self._changed.notify_all()
        try:
            yield lambda: self._rest(live, stopped)
        finally:
            with self._changed:
                self._working[live] -= 1
                self._changed.notify_all()

    def _rest(self, live: bool, stopped: Callable[[], bool]) -> None:
        # Hand over the interpreter: another thread may have waited for it since long.
        time.sleep(0)
        with self._changed:
            self._wait(stopped, lambda: live or not (self._working[True] or self._queues[True]), 0.2)

    def _wait(self, stopped: Callable[[], bool], until: Callable[[], bool], patience: float) -> None:
        while True:
            if self._closed or stopped():
                raise Stopped
            if until():
                return
            # Woken by changes; the time limit is for `stopped`, which tells nobody and may be costly to ask.
            self._changed.wait(patience)

    def close(self) -> None:
        """Stop all, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
