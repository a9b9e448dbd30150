"""What was removed leaves the disk: the embedded object store frees the room of removed objects only when told to.

SeaweedFS appends objects to large files ("volumes") and marks them there when they are removed; their bytes stay
until the volume is written anew without them. It does so by itself where much of a volume is removed. A takedown asks
for more: here every volume that holds anything removed is written anew, at once. Before that, what no object refers
to is removed too: a store that is killed forgets which bytes it was about to mark (seen with 4.48).

Whoever calls this is alone with the store: bytes that somebody is just writing belong to no object yet. For the
store's own notes, which it may write at any time, there is `WRITTEN_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from promenade.settings import LOOPBACK
from promenade.supervisor.errors import StackError
from promenade.supervisor.parts import StorePart, weed_program
from promenade.supervisor.processes import MARK, base_environment, http_get

WRITTEN_SECONDS: Final = 5
"""Bytes younger than this are left alone by the search for bytes without an object."""

SEARCH_SECONDS: Final = 600.0
"""How long that search may take; it reads every name and every index entry: seconds for 100,000 objects."""

VACUUM_SECONDS: Final = 3600.0
"""How long writing volumes anew may take: all that is kept in them is copied once."""

_ANY_GARBAGE: Final = "0.000000001"
"""The share of a volume that must be removed before it is written anew: any."""


async def vacuum_store(part: StorePart) -> int:
    """Write every volume of a running embedded store anew that holds anything removed; bytes that the disk got back.

    Raises:
        StackError: it could not be done; nothing is lost, and it may be repeated.
    """
    before = await asyncio.to_thread(_size, part.folder)
    await _remove_unreferred(part)
    deadline = time.monotonic() + VACUUM_SECONDS
    ports = part.ports()
    while True:
        answer = await http_get(
            ports["master.port"], f"/vol/vacuum?garbageThreshold={_ANY_GARBAGE}", timeout=VACUUM_SECONDS
        )
        left = await _removed_bytes(ports["volume.port"])
        if answer is not None and left == 0:
            break
        if time.monotonic() > deadline or answer is None:
            raise StackError(
                f"the object store did not free what was removed ({left} bytes are left); is the disk full? It needs "
                "room for a second copy of its largest file. Compact again once that is mended."
            )
        # Another vacuum, the store's own, may be at work.
        await asyncio.sleep(1.0)
    return before - await asyncio.to_thread(_size, part.folder)


async def _removed_bytes(port: int) -> int:
    """Bytes in all volumes that belong to removed objects."""
    status = await http_get(port, "/status", timeout=10.0)
    if status is None:
        raise StackError("the object store does not tell how much of what was removed it still holds.")
    volumes: list[dict[str, Any]] = json.loads(status)["Volumes"] or []
    return sum(int(volume["DeletedByteCount"]) for volume in volumes)


async def _remove_unreferred(part: StorePart) -> None:
    """Mark as removed what lies in volumes and belongs to no object, by the store's own program."""
    ports = part.ports()
    # What was written and removed just before the store stopped is older than the youngest bytes then, too.
    await asyncio.sleep(WRITTEN_SECONDS + 1)
    script = f"lock\nvolume.fsck -reallyDeleteFromVolume -forcePurging -cutoffTimeAgo={WRITTEN_SECONDS}s\nunlock\n"
    with tempfile.TemporaryDirectory(dir=part.folder.parent / "run") as scratch:
        process = await asyncio.create_subprocess_exec(
            str(weed_program()),
            "shell",
            f"-master={LOOPBACK}:{ports['master.port']}.{ports['master.port.grpc']}",
            f"-filer={LOOPBACK}:{ports['filer.port']}.{ports['filer.port.grpc']}",
            # It keeps what was typed, and copies of indexes, in the folder for temporary files.
            env={**base_environment(), "TMPDIR": scratch, MARK: str(part.folder.parent)},
            cwd=scratch,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SEARCH_SECONDS):
                output, _ = await process.communicate(script.encode())
        except TimeoutError:
            raise StackError(
                f"the object store's search for bytes without an object took more than {SEARCH_SECONDS:.0f} s."
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    told = output.decode(errors="replace")
    # Its exit status is 0 in any case.
    if not re.search(r"^total \d+ directories, \d+ files", told, re.MULTILINE) or re.search(r"\berror\b", told):
        raise StackError(f"the object store's search for bytes without an object failed: {told.strip()[-500:]}")


def _size(folder: Path) -> int:
    """Bytes of the store's volumes on the disk."""
    return sum(path.stat().st_size for path in folder.glob("*.dat"))
