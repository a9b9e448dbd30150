"""The supervisor of the embedded stack: starts, watches and stops the parts on one machine, on loopback.

What the command line and tests use is named here. What a part does inside is the part's own; how Triton is
launched is `infra.serving`'s; what the worker does is `promenade.worker`'s.
"""

from promenade.supervisor.embedded import embedded_parts, embedded_settings
from promenade.supervisor.errors import PartFailed, PortTaken, SecretsUnsafe, StackBusy, StackError
from promenade.supervisor.separate import SeparateParts, borrowed_object_store, separate_settings, start_parts
from promenade.supervisor.state import PartState, StackState, stack_state
from promenade.supervisor.supervise import down, up
from promenade.supervisor.vacuum import vacuum_store

__all__ = [
    "PartFailed",
    "PartState",
    "PortTaken",
    "SecretsUnsafe",
    "SeparateParts",
    "StackBusy",
    "StackError",
    "StackState",
    "borrowed_object_store",
    "down",
    "embedded_parts",
    "embedded_settings",
    "separate_settings",
    "stack_state",
    "start_parts",
    "up",
    "vacuum_store",
]
