"""The embedded stack as settings and parts: ports and secrets worked out, parts put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promenade.profile import trained_here
from promenade.settings import LOOPBACK, Settings, ports_from
from promenade.supervisor.errors import StackError
from promenade.supervisor.parts import BrokerPart, ModelsPart, Part, StorePart, WorkerPart, store_folder
from promenade.supervisor.secrets import load_or_make_secrets
from promenade.supervisor.state import stack_state


def embedded_settings(data: Path | None = None, *, first_port: int | None = None, **changes: Any) -> Settings:
    """Settings of the embedded stack in `data`; makes the folder and its secrets on the first call.

    data: the data folder; None takes PROMENADE_DATA or ./promenade-data.
    first_port: lay all ports out from here on (20 of them). Otherwise a running stack's ports are taken, then
    PROMENADE_*_PORT, then the defaults.
    changes: any other field of `Settings`.
    Raises SecretsUnsafe, StackError for ports that do not fit or a folder that cannot be one, and WrongSettings.
    """
    base = Settings(**changes) if data is None else Settings(data=data, **changes)
    folder = base.data.resolve()
    ports: dict[str, int] = {}
    if first_port is not None:
        try:
            ports = ports_from(first_port)
        except ValueError as error:
            raise StackError(str(error)) from None
    else:
        state = stack_state(folder)
        if state is not None and state.alive:
            ports = {f"{name}_port": port for name, port in state.ports.items()}
            ports["store_first_port"] = state.store_first_port
    changes = {**ports, **changes}
    placed = Settings(**{**changes, "data": folder})
    secrets = load_or_make_secrets(folder)
    towers = base.towers
    if towers is None and base.is_full:
        # Settled once, so that parts that are started again later do not differ from the others.
        towers = trained_here(base.profile) is not None
    return Settings(
        **{
            **changes,
            "towers": towers,
            "data": folder,
            "broker": f"{LOOPBACK}:{placed.broker_port}",
            "broker_security": "PLAINTEXT",
            "replication": 1,
            "s3_endpoint": f"{LOOPBACK}:{placed.s3_port}",
            "s3_access_key": secrets.s3_access_key,
            "s3_secret_key": secrets.s3_secret_key,
            "s3_secure": False,
            "inference": f"{LOOPBACK}:{placed.triton_grpc_port}",
            "http_host": LOOPBACK,
        }
    )


def chosen_parts(settings: Settings, which: Sequence[str] | None = None) -> list[Part]:
    """The parts of the embedded stack that are named in `which`, or all. Raises StackError for an unknown name."""
    parts = embedded_parts(settings)
    unknown = set(which or ()) - {part.name for part in parts}
    if unknown:
        known = ", ".join(part.name for part in parts)
        raise StackError(f"there is no part called {', '.join(sorted(unknown))}; the parts are {known}")
    return [part for part in parts if which is None or part.name in which]


def embedded_parts(settings: Settings) -> list[Part]:
    """The parts of the embedded stack, in the order in which they are shown."""
    data = settings.data.resolve()
    return [
        StorePart(settings=settings, folder=store_folder(data)),
        BrokerPart(settings=settings),
        ModelsPart(settings=settings, folder=data / "models"),
        WorkerPart(settings=settings),
    ]
