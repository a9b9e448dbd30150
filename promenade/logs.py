"""What worker processes log, and how often: a broker that is away must not fill the disk with one sentence."""

from __future__ import annotations

import logging
import os
import time
from typing import Final

EVERY_SECONDS: Final = 10.0


class Seldom(logging.Filter):
    """Lets the same words of other people's libraries through once in ten seconds.

    Clients of a broker that is away say so some fifty times a second, each time as an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record whose words were let through a moment ago."""
        if not record.name.startswith(("aiokafka", "kafka", "faust", "mode")):
            return True
        key, moment = (record.name, str(record.msg)), time.monotonic()
        if moment - self._said.get(key, float("-inf")) < EVERY_SECONDS:
            return False
        self._said[key] = moment
        return True


def begin_logging() -> None:
    """Log to standard error as PROMENADE_LOG says (WARNING where it says nothing)."""
    logging.basicConfig(
        level=os.environ.get("PROMENADE_LOG", "WARNING"), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(Seldom())
