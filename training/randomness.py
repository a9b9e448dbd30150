"""Randomness that depends on nothing but names: the same seed and step give the same numbers, whatever ran before.

So a run that was killed goes on bit for bit, one that is spread over several processes draws the same batch, and a
validation sees the same noise each time.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *names: object) -> torch.Generator:
    """A generator on the CPU for this purpose: the same for the same seed and names."""
    text = "\n".join(str(name) for name in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


class Order:
    """Which rows each step sees: every epoch a fresh order of all rows, one epoch after the other, batches full.

    Args:
        rows: how many there are.
        batch: rows a step.
        seed: of the orders.
        name: tells apart several orders of one seed.

    Raises ValueError where there are no rows.
    """

    def __init__(self, rows: int, batch: int, seed: int, name: str = "order") -> None:
        if rows < 1:
            raise ValueError("there is nothing to train on: no row is left in this part of the data set")
        self.rows, self.batch, self.seed, self.name = rows, batch, seed, name
        self._epochs: dict[int, Tensor] = {}

    def _epoch(self, number: int) -> Tensor:
        if number not in self._epochs:
            if len(self._epochs) > 1:
                self._epochs.pop(min(self._epochs))
            drawn = generator(self.seed, self.name, number)
            self._epochs[number] = torch.randperm(self.rows, generator=drawn)
        return self._epochs[number]

    def step(self, step: int) -> Tensor:
        """Indices [batch] of the rows of a step (from 0)."""
        first = step * self.batch
        pieces: list[Tensor] = []
        wanted = self.batch
        while wanted:
            epoch, inside = divmod(first, self.rows)
            piece = self._epoch(epoch)[inside : inside + wanted]
            pieces.append(piece)
            first += len(piece)
            wanted -= len(piece)
        return torch.cat(pieces)
