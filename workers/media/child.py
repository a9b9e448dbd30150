"""The decoding child: `python -m workers.media.child LIMITS PARENT`. One request at a time.

It serves until its standard input ends, bounds its own memory and processor time, opens files itself (regular
files only), and answers with a rendition or a plain reason. It dies with its parent. Killing it when it hangs,
and replacing it, are left to the pool.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import resource
import signal
import stat
import sys
from typing import Any, BinaryIO, Final

from schemas.failures import Lasting
from workers.media import detect, wire
from workers.media.limits import Limits

_PR_SET_PDEATHSIG: Final = 1
_TIRED_BYTES: Final = 128 * 1024 * 1024
"""A child that still holds this much leaves after its answer, so that idle children stay small."""


def main() -> None:
    """Serve requests from standard input to standard output."""
    limits = Limits(**json.loads(sys.argv[1]))
    _bind_to(int(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    # Libraries that print must not break the talk.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while True:
        prefix = requests.read(wire.PREFIX.size)
        if len(prefix) < wire.PREFIX.size:
            return
        head_length, body_length = wire.PREFIX.unpack(prefix)
        head = wire.unpack_head(requests.read(head_length))
        _allow_processor_seconds(limits.processor_seconds)
        try:
            answer, body = _answer(head, requests, body_length, limits)
        except Lasting as refusal:
            answer, body = {"reason": refusal.reason, "advice": refusal.advice}, b""
        except MemoryError:
            answer, body = {"memory": True}, b""
        except Exception as defect:
            answer, body = {"defect": f"{type(defect).__name__}: {defect}"[:500]}, b""
        answer["last"] = _resident_bytes() > _TIRED_BYTES + len(body)
        _send(answers, wire.pack(answer, len(body)))
        _send(answers, body)
        if answer["last"]:
            return
        del body


def _bind_to(parent: int) -> None:
    """Die when the parent does, also in the middle of a file."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides


def _allow_processor_seconds(seconds: int) -> None:
    """This file may use so many more seconds of processor time; the kernel ends the child after that (SIGXCPU)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.RLIM_INFINITY))


def _answer(
    head: dict[str, Any], requests: BinaryIO, body_length: int, limits: Limits
) -> tuple[dict[str, Any], bytes]:
    if head.get("bytes"):
        descriptor = os.memfd_create("original")
        left = body_length
        while left:
            block = requests.read(min(left, 1 << 20))
            if not block:
                raise EOFError("the request ends early")
            _send(descriptor, block)
            left -= len(block)
    else:
        descriptor = open_regular(head["path"])
    with os.fdopen(descriptor, "rb", buffering=1 << 16) as file:
        size = os.fstat(descriptor).st_size
        if size > limits.maximum_bytes:
            raise Lasting(
                f"the file has {size / 2**20:.0f} MiB, more than {limits.maximum_bytes / 2**20:.0f}.",
                "Bring a smaller version.",
            )
        file.seek(0)
        try:
            sha256 = hashlib.sha256()
            while block := file.read(1 << 20):
                sha256.update(block)
            file.seek(0)
            form = detect.detect(file.read(detect.HEAD_BYTES))
        except OSError as trouble:
            raise Lasting(f"the file cannot be read: {os.strerror(trouble.errno or 5)}.", "Check the disk.") from None
        file.seek(0)
        if head.get("listening"):
            if form in detect.PICTURES:
                raise Lasting("this is a picture, and nothing to listen to.", "Name a track.")
            from workers.media.sounds import listening_copy

            return {"sha256": sha256.hexdigest()}, listening_copy(file, form, limits, head["listening"])
        if form in detect.PICTURES:
            from workers.media.pictures import prepare_picture

            kind = "artwork"
            facts, rendition = prepare_picture(file, form, limits)
        else:
            from workers.media.sounds import prepare_sound

            kind = "track"
            facts, rendition = prepare_sound(file, form, limits)
    note = detect.mismatch(head.get("name", ""), form)
    if note:
        facts["notes"].insert(0, note)
    facts |= {"format": form, "byte_count": size}
    return {"kind": kind, "sha256": sha256.hexdigest(), "facts": facts}, rendition


def open_regular(path: str) -> int:
    """A descriptor of a regular file; links are followed, pipes and devices refused without waiting for them."""
    try:
        # NONBLOCK: opening a pipe that nobody writes to returns at once.
        descriptor = os.open(os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as trouble:
        number = trouble.errno if isinstance(trouble, OSError) else None
        reasons = {
            errno.ENOENT: "there is no such file.",
            errno.ELOOP: "its symbolic links lead in a circle.",
            errno.EACCES: "the file may not be read by this user.",
            errno.ENAMETOOLONG: "its name is longer than the file system allows.",
            errno.ENXIO: "this is a socket or a device, not a regular file.",
            errno.ENOTDIR: "a part of its path is not a folder.",
        }
        raise Lasting(
            reasons.get(number or 0, "the file cannot be opened."), "Check the path and its rights."
        ) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise Lasting(f"this is {what}, not a regular file.", "Name the files themselves.")
    return descriptor


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib is not loaded otherwise
        return int(statm.read().split()[1]) * resource.getpagesize()


def _send(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()
