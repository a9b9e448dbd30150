"""Several processes on this machine that share each step of a training: one a GPU, or a few on a CPU.

Each is told its place as torch.distributed and accelerate read it (RANK, WORLD_SIZE, MASTER_ADDR and so on). Started
here rather than by torch's or accelerate's launcher: `accelerate launch --cpu` starts one process whatever number is
asked for (without MPI); both print their own trace below what a process said, so that the last line no longer says
why; and their processes outlive a launcher that is killed, holding the run's folder.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

STARTED: Final = "PROMENADE_TRAINING_STARTED"
"""Set in a process that was started here; its standard input ends when the one that started it does."""

PATIENCE: Final = 30.0
"""Seconds that processes get to stop in order."""


def shared() -> bool:
    """Whether this process is one of several, whoever started them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def together(count: int, arguments: Sequence[str]) -> int:
    """Run `python -m training` with these arguments in `count` processes; the first failure ends them all.

    Returns their exit status: 0, or that of the first one that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    processes = [
        subprocess.Popen(  # noqa: S603 - our own module in our own environment
            [sys.executable, "-m", "training", *arguments],
            stdin=subprocess.PIPE,
            env={**threads, **os.environ, **places, STARTED: "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    try:
        return _first_end(processes)
    except KeyboardInterrupt:
        # Who pressed Ctrl-C has told them as well: they end by themselves.
        _stop(processes, ask=False)
        return 130
    finally:
        _stop(processes)


def _first_end(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all ended well, or one did not."""
    while True:
        ends = [process.poll() for process in processes]
        failed = next((end for end in ends if end), None)
        if failed is not None or None not in ends:
            return abs(failed or 0)
        time.sleep(0.05)


def _stop(processes: Sequence[subprocess.Popen[bytes]], ask: bool = True) -> None:
    for process in processes:
        if ask and process.poll() is None:
            process.terminate()
    until = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_starter() -> None:
    """In a process that was started here: end when the one that started it is gone, however it went."""
    if STARTED not in os.environ:
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="starter", daemon=True).start()
