"""Settings of one process: where the parts answer, with which credentials, and what runs where.

Every field is read from the environment as PROMENADE_<NAME>. The composition root of a process makes one
`Settings` and hands values on; nobody else reads the environment. Ports and secrets of the embedded stack are
worked out by `promenade.supervisor.embedded_settings`, which leaves a `Settings` that looks like any other:
the code below the front door cannot tell whether its parts are embedded or external.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.failures import Refused
from schemas.faults import fault_text

CLONE: Final = Path(__file__).resolve().parent.parent
EMBEDDED_FIRST_PORT: Final = 7610
HIGHEST_FIRST_PORT: Final = 55490
LOOPBACK: Final = "127.0.0.1"
FULL_PROFILE: Final = "full"

BrokerSecurity = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as (host, port); raises ValueError saying what was found. `[::1]:80` is understood."""
    host, colon, port = address.strip().rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not host:port with a port from 1 to 65535, for example 127.0.0.1:7611")
    return host.strip("[]"), int(port)


class WrongSettings(Refused):
    """A setting does not fit; the text names its PROMENADE_ variable and quotes no credential."""


class Settings(BaseSettings):
    """What one process needs to know; see each field. Unknown PROMENADE_ variables are left alone.

    Raises:
        WrongSettings: a value does not fit, or two contradict each other.
    """

    # Inputs stay out of error texts: where two fields contradict each other, credentials would be quoted.
    model_config = SettingsConfigDict(
        env_prefix="PROMENADE_", extra="ignore", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    def __init__(self, **values: Any) -> None:
        # Said here once, for every command and process alike, instead of wherever settings are made.
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise WrongSettings(_in_words(error)) from None

    data: Path = Field(Path("promenade-data"), description="The one data folder of this machine's stack.")

    broker: str = Field("127.0.0.1:7611", description="Kafka brokers as host:port, separated by commas.")
    broker_security: BrokerSecurity = "PLAINTEXT"
    broker_user: str | None = None
    broker_password: SecretStr | None = None
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of each stage's topic, fixed at creation.")
    replication: int = Field(
        -1, ge=-1, description="Copies of each topic, fixed at creation; -1: as the broker says."
    )
    group: str = Field("promenade", min_length=1, description="The consumer group that all workers share.")

    s3_endpoint: str = Field("127.0.0.1:7612", description="Object store as host:port, without a scheme.")
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None
    s3_secure: bool = Field(False, description="Speak TLS with the object store.")
    s3_region: str = "us-east-1"
    bucket: str = Field("promenade", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    log_bucket: str = Field(
        "promenade-log",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="Where the embedded broker keeps its log; external brokers do not use it.",
    )

    inference: str = Field("127.0.0.1:7614", description="Triton's gRPC address as host:port.")

    qdrant_url: str | None = Field(None, description="Qdrant server; none means local mode in <data>/qdrant.")
    qdrant_api_key: SecretStr | None = None

    http_host: str = LOOPBACK
    http_port: int = Field(EMBEDDED_FIRST_PORT, ge=1, le=65535)
    api: str | None = Field(
        None, description="Web address of the API that commands ask; none means http_host and http_port."
    )

    profile: Path = Field(CLONE / "model_repository" / "edge.toml", description="Models, versions and spaces.")
    serving: Path | None = Field(
        None,
        description="Virtual environment of the embedded Triton (numpy < 2); none means .models where the profile is "
        "full.toml, which needs torch, and .serving otherwise.",
    )
    towers: bool | None = Field(
        None,
        description="Whether MMVA's towers, trained and exported here, read valence and arousal in the full profile; "
        "none: wherever they are made. The embedded stack settles it at its start.",
    )
    weights: Path = Field(
        CLONE / "weights", description="Where `promenade models fetch` puts the full profile's weights."
    )
    reconcile_seconds: float = Field(300.0, gt=0, description="Announce again what made no progress this long.")

    # Ports of the embedded stack. External parts are named by broker, s3_endpoint and inference above.
    broker_port: int = Field(EMBEDDED_FIRST_PORT + 1, ge=1, le=65535)
    s3_port: int = Field(EMBEDDED_FIRST_PORT + 2, ge=1, le=65535)
    triton_http_port: int = Field(EMBEDDED_FIRST_PORT + 3, ge=1, le=65535)
    triton_grpc_port: int = Field(EMBEDDED_FIRST_PORT + 4, ge=1, le=65535)
    triton_metrics_port: int = Field(EMBEDDED_FIRST_PORT + 5, ge=1, le=65535)
    store_first_port: int = Field(
        EMBEDDED_FIRST_PORT + 10,
        ge=1,
        le=55500,
        description="First of eight ports in a row for the embedded object store's inner servers; a ninth lies "
        "10000 above the last of them.",
    )

    @field_validator("broker")
    @classmethod
    def _brokers_are_addresses(cls, value: str) -> str:
        addresses = [address.strip() for address in value.split(",") if address.strip()]
        if not addresses:
            raise ValueError("broker is empty: give host:port, several separated by commas")
        for address in addresses:
            split_address(address)
        return ",".join(addresses)

    @field_validator("replication")
    @classmethod
    def _copies_are_some(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 copies of a topic keep nothing: give 1 or more, or -1 for what the broker says")
        return value

    @field_validator("s3_endpoint", "inference")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        split_address(value)
        return value.strip()

    @field_validator("api", "qdrant_url")
    @classmethod
    def _is_a_web_address(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not a web address: give for example http://127.0.0.1:6333")
        return value.strip().rstrip("/")

    @model_validator(mode="after")
    def _credentials_come_in_pairs(self) -> Self:
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            raise ValueError("give both PROMENADE_S3_ACCESS_KEY and PROMENADE_S3_SECRET_KEY, or neither")
        if self.broker_security.startswith("SASL") and (self.broker_user is None or self.broker_password is None):
            raise ValueError(
                f"PROMENADE_BROKER_SECURITY={self.broker_security} needs PROMENADE_BROKER_USER and "
                "PROMENADE_BROKER_PASSWORD"
            )
        return self

    @property
    def api_address(self) -> str:
        """Where commands find the API."""
        return self.api or f"http://{self.http_host}:{self.http_port}"

    @property
    def brokers(self) -> list[str]:
        """The Kafka brokers, each host:port."""
        return self.broker.split(",")

    @property
    def store_inner_ports(self) -> range:
        """The eight ports in a row of the embedded object store's inner servers."""
        return range(self.store_first_port, self.store_first_port + 8)

    @property
    def is_full(self) -> bool:
        """True for the full profile, whose models are torch networks with weights of their own."""
        return self.profile.stem == FULL_PROFILE

    @property
    def serving_environment(self) -> Path:
        """The virtual environment that the embedded model server runs in."""
        return self.serving or CLONE / (".models" if self.is_full else ".serving")

    def embedded_ports(self) -> dict[str, int]:
        """The ports that people and clients of the embedded stack use, by name."""
        return {
            "http": self.http_port,
            "broker": self.broker_port,
            "s3": self.s3_port,
            "triton_http": self.triton_http_port,
            "triton_grpc": self.triton_grpc_port,
            "triton_metrics": self.triton_metrics_port,
        }

    def environment(self, *, secrets: bool) -> dict[str, str]:
        """These settings as PROMENADE_ variables, so that a child process reads the very same ones.

        secrets: whether credentials are among them. They belong in the environment of the worker alone, and
        never on a command line, where every user of the machine can read them.
        """
        variables: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, SecretStr):
                if not secrets:
                    continue
                text = value.get_secret_value()
            elif isinstance(value, bool):
                text = "true" if value else "false"
            elif isinstance(value, Path):
                text = str(value.resolve())
            else:
                text = str(value)
            variables[variable(name)] = text
        return variables


def variable(name: str) -> str:
    """The environment variable that a field of `Settings` is read from."""
    return f"PROMENADE_{name.upper()}"


def _in_words(error: ValidationError) -> str:
    """What does not fit, as one sentence with the names of the variables."""
    told = []
    for fault in error.errors(include_url=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if name not in Settings.model_fields:
            # Settings that contradict each other: the text names them, and the input holds every credential.
            told.append(fault_text({**fault, "input": None}))
            continue
        field = Settings.model_fields[name]
        if _holds(field, SecretStr):
            told.append(f"{variable(name)}: it is not text")
        else:
            told.append(f"{variable(name)}: {fault_text(fault, _expected(field))}")
    return "; ".join(told) + "."


def _holds(field: FieldInfo, kind: type) -> bool:
    return field.annotation is kind or kind in get_args(field.annotation)


def _expected(field: FieldInfo) -> str:
    """What a field takes, in words; empty where its own validators say it better."""
    for entry in field.metadata:
        if getattr(entry, "pattern", None) is not None:
            return "a name of 3 to 63 lower-case letters, digits, dots and hyphens, with no dot or hyphen at its ends"
    if _holds(field, bool):
        return "true or false"
    if not _holds(field, int) and not _holds(field, float):
        return ""
    number = "a whole number" if _holds(field, int) else "a number"
    limits = {
        name: getattr(entry, name) for entry in field.metadata for name in ("ge", "gt", "le") if hasattr(entry, name)
    }
    if {"ge", "le"} <= limits.keys():
        return f"{number} from {limits['ge']} to {limits['le']}"
    if "ge" in limits:
        return f"{number}, {limits['ge']} or more"
    return f"{number} above {limits['gt']}" if "gt" in limits else number


def ports_from(first: int) -> dict[str, int]:
    """The embedded stack's ports laid out from `first` on, as fields of `Settings` (20 ports are used up).

    Raises ValueError where they would not fit below 65536 or need a privileged port.
    """
    if not 1024 <= first <= HIGHEST_FIRST_PORT:
        raise ValueError(f"ports cannot start at {first}: give a number from 1024 to {HIGHEST_FIRST_PORT}")
    names = ("http_port", "broker_port", "s3_port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
    return {name: first + offset for offset, name in enumerate(names)} | {"store_first_port": first + 10}
