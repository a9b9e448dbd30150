"""Commands of `promenade` for tests without the second that each would take to read its modules: a process that has
read them already (the standard library's fork server) is forked for each.

What a person would see stays: a process of its own with its own arguments, environment, folder, output and exit
status. What differs: the modules were read once, before the command's environment was set, so that what Python itself
takes from an environment does not count; standard input is empty; and the process ends without taking the
interpreter down in order. Tests of how a process starts or ends say `fresh` (see tests.running.command).
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_SERVER: Final = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["promenade.cli"])


def run_warm(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([python, "-m", "promenade.cli", *arguments], capture_output=True, text=True)`."""
    with tempfile.TemporaryDirectory(prefix="command-") as folder:
        outputs = [Path(folder) / name for name in ("out", "err")]
        process = _SERVER.Process(
            target=_become, args=(list(arguments), dict(environment), str(Path.cwd()), *map(str, outputs))
        )
        process.start()
        try:
            process.join(timeout)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(["promenade", *arguments], timeout)
        except BaseException:
            process.kill()
            process.join()
            raise
        status = process.exitcode
        assert status is not None
        out, err = (path.read_text() if path.exists() else "" for path in outputs)
        return subprocess.CompletedProcess(["promenade", *arguments], status, out, err)


def _become(arguments: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> None:
    """In the forked process: be the command."""
    from promenade import cli

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    # The width was chosen for the server's own output, which may be a terminal.
    cli.console.width = 160
    sys.argv = [cli.__file__, *arguments]
    cli.main()
