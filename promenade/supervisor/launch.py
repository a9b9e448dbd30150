"""A tiny launcher: ties a part's life to its supervisor's, then becomes the part.

Run as `python -I -S launch.py <supervisor's pid> <program> <arguments...>`. The kernel sends SIGKILL to this
process when the supervisor dies, even by kill -9; the setting survives exec, and the process keeps its pid. A
launcher instead of `preexec_fn`, because Python code between fork and exec may deadlock in a process that has
threads. It imports nothing of ours: it must start in milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arm the death signal, make sure that the supervisor still lives, and become the part."""
    supervisor = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"cannot tie this process to its supervisor: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != supervisor:
        sys.exit(f"the supervisor (pid {supervisor}) is gone already: not starting {sys.argv[2]}")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - becoming the part is this file's purpose
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[2]}: {error.strerror}")


if __name__ == "__main__":
    main()
