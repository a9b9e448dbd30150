"""How long a person waits for the first sound while the house composes for itself, beside the wait when it idles.

    python -m benchmarks.waiting [--rounds 8] [--queued 100] [--json]

An embedded stack is the worker: it composes 180 s pieces in the background, and so many more are queued. This process
is the web process: it asks for a person's pieces over the composer's stream and cancels each after its first sound.
The same machine and the same process measure both, so that only their difference says something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from gallery.music import LiveMusic
from promenade.samples import made
from promenade.worker import clients_of
from schemas.events import Event
from tests.running import House
from workers.compose import Place, Question, Studio
from workers.contract import Tools


async def _publish(events: Sequence[Event]) -> None:
    return None


async def _ask(question: Question, place: Place, trace: str) -> None:
    return None


async def _undo(item: str, generation: int) -> None:
    return None


async def measure(house: House, artwork: str, folder: Path, rounds: int, queued: int) -> dict[str, Any]:
    """Seconds to the first sound: idle, and with a background piece under way and others queued."""
    clients = clients_of(house.settings)
    studio = Studio(clients.records, Tools(clients.inference, clients.profile), folder)
    live = LiveMusic(clients.records, studio, _publish, _ask, _undo)

    async def first_sound(seed: int) -> float:
        begun = time.monotonic()
        piece = await live.begin(await studio.question(artwork, 60, seed), None)
        await piece.spool.begun()
        seconds = time.monotonic() - begun
        if not piece.spool.frames:
            raise RuntimeError(f"no sound: {piece.reason}")
        await live.cancel(piece)
        return seconds

    async def composing(client: httpx.AsyncClient) -> bool:
        return bool((await client.get("/api/waiting")).json()["compose"]["in_flight"])

    try:
        cold = await first_sound(10_000)
        idle = [await first_sound(20_000 + number) for number in range(rounds)]
        address = f"http://127.0.0.1:{house.first_port}"
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=60) as client:
            for seed in range(queued + 1):
                body = {"artwork": artwork, "seconds": 180, "seed": seed, "background": True}
                (await client.post("/api/music", json=body)).raise_for_status()
            while not await composing(client):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.2)
            await asyncio.sleep(3.0)
            busy = []
            for number in range(rounds):
                busy.append(await first_sound(30_000 + number))
                # The background piece takes its turn again.
                await asyncio.sleep(1.0)
            waiting = len((await client.get("/api/music")).json()["waiting"])
    finally:
        await live.close()
        await clients.inference.close()
        clients.objects.close()
    return {
        "cold": cold,
        "idle": idle,
        "busy": busy,
        "median idle": statistics.median(idle),
        "median busy": statistics.median(busy),
        "later by (median)": statistics.median(busy) - statistics.median(idle),
        "later by (worst)": max(busy) - max(idle),
        "background pieces still wanted": waiting,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Start a stack, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--queued", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="promenade-waiting-") as text:
        folder = Path(text)
        house = House(folder / "data")
        made(folder / "files", 2, 1, seed=9)
        house.up()
        try:
            house("ingest", folder / "files" / "manifest.csv", "--collection", "spring")
            artwork = str(house.json("pairs")["pairs"][0]["artwork"]["id"])
            found = asyncio.run(measure(house, artwork, folder / "spool", chosen.rounds, chosen.queued))
        finally:
            house.close()
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        values = value if isinstance(value, list) else [value]
        print(f"{name:<32}" + "  ".join(f"{each:.2f}" if isinstance(each, float) else str(each) for each in values))


if __name__ == "__main__":
    main()
