"""infra/prometheus: the scrape configuration is valid, asks every service, and Prometheus starts with its secret.

promtool and prometheus come from Debian's package `prometheus`; without it those checks are skipped, loudly.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.patience import patient

TOP = Path(__file__).resolve().parent.parent
CONFIG = TOP / "infra" / "prometheus" / "prometheus.yml"
START = TOP / "infra" / "prometheus" / "start"
KEY_FILE = "/run/prometheus/qdrant_key"
# Where each service answers with metrics inside the network.
METRICS_PORTS = {"worker": 7610, "api": 7610, "triton": 8002, "qdrant": 6333, "minio": 9000, "kafka-exporter": 9308}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus): infra/prometheus NOT checked with it")
    return found


def local_config(folder: Path, port: int = 9090) -> Path:
    """The configuration with the key file of the container's memory file system moved into `folder`."""
    text = CONFIG.read_text()
    assert KEY_FILE in text
    target = folder / "prometheus.yml"
    target.write_text(
        text.replace(KEY_FILE, str(folder / "qdrant_key")).replace("127.0.0.1:9090", f"127.0.0.1:{port}")
    )
    return target


@pytest.fixture(scope="module")
def jobs() -> list[dict[str, Any]]:
    document: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    found: list[dict[str, Any]] = document["scrape_configs"]
    return found


def targets_of(job: dict[str, Any]) -> list[tuple[str, int]]:
    """Every (host, port) a job asks, whether listed or looked up by name."""
    found = []
    for group in job.get("static_configs", []):
        for target in group["targets"]:
            host, _, port = target.rpartition(":")
            found.append((host, int(port)))
    for group in job.get("dns_sd_configs", []):
        found += [(name, int(group["port"])) for name in group["names"]]
    return found


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "qdrant_key").write_text("key")
    checked = subprocess.run(
        [tool("promtool"), "check", "config", str(local_config(tmp_path))], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout + checked.stderr


def test_every_target_is_a_service_at_its_port_and_every_service_is_asked(jobs: list[dict[str, Any]]) -> None:
    services = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]
    names = set(services)
    for service in services.values():
        networks = service["networks"]
        if isinstance(networks, dict):
            names |= {alias for network in networks.values() for alias in (network or {}).get("aliases", [])}
    asked = {target for job in jobs for target in targets_of(job) if target[0] != "127.0.0.1"}
    assert {host for host, _ in asked} <= names
    assert asked == set(METRICS_PORTS.items())


def test_scaled_workers_are_found_by_name(jobs: list[dict[str, Any]]) -> None:
    (job,) = [job for job in jobs if job["job_name"] == "promenade"]
    (lookup,) = job["dns_sd_configs"]
    assert set(lookup["names"]) == {"worker", "api"}
    assert lookup["type"] == "A"


def test_the_configuration_holds_no_secret(jobs: list[dict[str, Any]]) -> None:
    (qdrant,) = [job for job in jobs if job["job_name"] == "qdrant"]
    assert qdrant["authorization"] == {"type": "Bearer", "credentials_file": KEY_FILE}
    assert "credentials:" not in CONFIG.read_text()
    assert "password" not in CONFIG.read_text()


def test_the_start_script_wants_the_key(tmp_path: Path) -> None:
    refused = subprocess.run(
        ["sh", str(START)], capture_output=True, text=True, timeout=30, env={"PATH": os.environ["PATH"]}
    )
    assert refused.returncode == 2
    assert "make-env" in refused.stderr


def test_the_start_script_hides_the_key_and_passes_its_arguments_on(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    environment = {"PATH": os.environ["PATH"], "QDRANT_READ_ONLY_KEY": "reader", "QDRANT_KEY_FILE": str(key_file)}
    shown = subprocess.run(
        ["sh", str(START), "-c", 'echo "$0 [${QDRANT_READ_ONLY_KEY-gone}]"', "argument"],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment | {"PROMETHEUS": shutil.which("sh") or "/bin/sh"},
    )
    assert shown.stdout == "argument [gone]\n", shown.stderr
    assert key_file.read_text() == "reader"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_prometheus_starts_by_the_script_with_the_configuration(tmp_path: Path) -> None:
    prometheus = tool("prometheus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = local_config(tmp_path, port)
    environment = {
        "PATH": os.environ["PATH"],
        "PROMETHEUS": prometheus,
        "QDRANT_READ_ONLY_KEY": "reader",
        "QDRANT_KEY_FILE": str(tmp_path / "qdrant_key"),
    }
    command = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]["prometheus"]["command"]
    moved = [
        argument.replace("/etc/prometheus/prometheus.yml", str(config)).replace("=/prometheus", f"={tmp_path}/data")
        for argument in command
    ]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", str(START), *moved, f"--web.listen-address=127.0.0.1:{port}"],
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + patient(60)
            ready = False
            while not ready and time.monotonic() < deadline and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
                        ready = answer.status == 200
                except OSError:
                    time.sleep(0.1)
            assert ready, log.read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status/config", timeout=5) as answer:
                assert b"kafka-exporter" in answer.read()
        finally:
            process.terminate()
            assert process.wait(timeout=patient(20)) == 0
