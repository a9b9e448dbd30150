"""The pipeline as one table that reads top to bottom: what waits for which event, how much at once.

    ingest -> Arrived -> caption -> Captioned -> score -> Scored -> embed -> Embedded -> index -> Indexed
                                                                                            |
                                                        one command for each exhibition ----+-> pair -> PairingChanged

The pair stage and the carrying out of takedowns have handlers of their own (`streams.pairing`, `streams.upkeep`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers import caption, embed, index, score
from workers.contract import StageWork


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table: a stage, most items in a batch, batches at once."""

    work: StageWork
    batch: int
    concurrency: int


PIPELINE: Final = (
    # Captioning is where the time goes: several small batches keep the cores busy (a batch is as slow as its slowest
    # item) without holding many pictures in memory.
    Entry(caption.STAGE, batch=2, concurrency=4),
    Entry(score.STAGE, batch=8, concurrency=2),
    Entry(embed.STAGE, batch=8, concurrency=2),
    # The vector store takes a batch in one write.
    Entry(index.STAGE, batch=32, concurrency=1),
)
