"""The supervisor as a process of its own: `python -m promenade.supervisor`, settings from the environment.

`promenade up --detach` starts it. `--parts store,broker` keeps only some parts alive.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from promenade.supervisor.embedded import embedded_settings
from promenade.supervisor.errors import StackError
from promenade.supervisor.supervise import up


def main() -> int:
    """Run until told to stop; 1, with the error as the last line, where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m promenade.supervisor", description=__doc__)
    parser.add_argument("--data", type=Path, default=None, help="data folder (default: PROMENADE_DATA)")
    parser.add_argument("--ports-from", type=int, default=None, help="lay all ports out from this one on")
    parser.add_argument("--parts", default=None, help="only these parts, separated by commas")
    options = parser.parse_args()
    try:
        settings = embedded_settings(options.data, first_port=options.ports_from)
        up(settings, which=options.parts.split(",") if options.parts else None)
    except (StackError, ValueError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
