"""How the embedded model server is put together, started, looked after and cleaned up after.

Pure functions over folders, ports and process tables; when to start, restart or give up is left to the supervisor.
The server is NVIDIA Triton as published in a wheel (no container), in an environment of its own (numpy below 2). Its
"onnxruntime" backend is a Python file of ours (see onnxruntime_backend/model.py); everything else is its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

_HERE = Path(__file__).resolve().parent
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the server's Python backend keeps its segments
_MEBIBYTE = 1 << 20
STUB_SECONDS = 120
"""How long a Python model may take to import what it needs, on a busy machine."""
_UNLOADING_SECONDS = 1.0
"""How long `heal` waits for the dead instance to go; see there."""


class ServingError(Exception):
    """The model server cannot be put together; the text says what is missing and what to do."""


@dataclass(frozen=True)
class Ports:
    """The server's three ports, all on 127.0.0.1."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True)
class Installation:
    """What `prepare` found and put together."""

    environment: Path
    """The serving environment (a virtual environment)."""
    site_packages: Path
    backends: Path
    libpython: Path
    """Folder that holds libpython3.11.so.1.0, which the Python stubs load."""
    folder: Path
    """Where caches of this installation may be written."""


@dataclass(frozen=True)
class Launch:
    """How to start the server: the command and its whole environment."""

    arguments: list[str]
    environment: dict[str, str]
    region_prefix: str
    """How the names of its shared-memory segments begin; see `clean_after`."""


def prepare(environment: Path, folder: Path) -> Installation:
    """Assemble the backend folder under `folder`, and find (or fetch) libpython. Cheap when already done.

    Raises:
        ServingError: the environment lacks the server, or libpython can neither be found nor fetched.
    """
    environment, folder = environment.absolute(), folder.absolute()
    found = sorted(environment.glob("lib/python3.*/site-packages/pytriton/tritonserver/bin/tritonserver"))
    if not found:
        raise ServingError(
            f"{environment} has no model server. Make the serving environment first: make setup "
            "(or install locks/serving.txt and locks/triton.txt into it)."
        )
    server = found[0].parent.parent
    site_packages = server.parent.parent
    version = site_packages.parent.name.removeprefix("python")
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise ServingError(f"the model server has no Python stub for Python {version}; use Python 3.11")
    backends = folder / "backends"
    for source in (*(server / "backends" / "python").glob("*.*"), stub):
        _copy(source, backends / "python" / source.name)
    for source in (_HERE / "onnxruntime_backend").glob("*.py"):
        _copy(source, backends / "onnxruntime" / source.name)
    libpython = _libpython(environment / "bin" / "python", version, folder)
    return Installation(environment, site_packages, backends, libpython, folder)


def region_prefix(folder: Path) -> str:
    """How the shared-memory segments of the server of this folder are named; the same after every start."""
    return f"promenade-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]}-"


def launch(installation: Installation, repository: Path, ports: Ports, *, stub_seconds: int = STUB_SECONDS) -> Launch:
    """The command that serves `repository` on loopback. Models may be loaded and unloaded while it runs (`heal`).

    Args:
        installation: what `prepare` found.
        repository: the model repository.
        ports: where it listens.
        stub_seconds: how long a model's process may take to start; those of the full profile read gigabytes.
    """
    site_packages = installation.site_packages
    prefix = region_prefix(installation.folder)
    arguments = [
        str(site_packages / "pytriton/tritonserver/bin/tritonserver"),
        f"--model-repository={repository.absolute()}",
        f"--backend-directory={installation.backends}",
        "--model-control-mode=explicit",
        "--load-model=*",
        # Every config here is complete; completing them would start each stub twice.
        "--disable-auto-complete-config",
        f"--model-load-thread-count={max(2, os.cpu_count() or 2)}",
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        "--http-thread-count=2",
        "--allow-gpu-metrics=false",
        "--exit-timeout-secs=3",
        "--pinned-memory-pool-byte-size=0",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        # One MiB a stub at first, one more whenever a batch needs it.
        f"--backend-config=python,shm-default-byte-size={_MEBIBYTE}",
        f"--backend-config=python,shm-growth-byte-size={_MEBIBYTE}",
        # A stub that imports its libraries on a busy machine is slow, not dead.
        f"--backend-config=python,stub-timeout-seconds={stub_seconds}",
    ]
    inherited = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER")
    environment = {name: os.environ[name] for name in inherited if name in os.environ}
    environment |= {
        "PATH": f"{installation.environment / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "LD_LIBRARY_PATH": f"{site_packages / 'nvidia_pytriton.libs'}:{installation.libpython}",
        "PYTHONNOUSERSITE": "1",
        # Compiled files go beside the installation, so that the model repository stays as it was built.
        "PYTHONPYCACHEPREFIX": str(installation.folder / "compiled"),
        # The stubs share few cores; each model says in its config how many threads it takes.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # The server has many threads; without this each keeps freed memory for itself.
        "MALLOC_ARENA_MAX": "2",
    }
    return Launch(arguments, environment, prefix)


def ready(ports: Ports, timeout: float = 2.0) -> bool:
    """True when the server answers and all loaded models are ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports.http}/v2/health/ready", timeout=timeout) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def _copy(source: Path, target: Path) -> None:
    """Copy unless the target is the same file already (size and time)."""
    if target.exists():
        one, other = source.stat(), target.stat()
        if (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy2(source, part)
    part.replace(target)


def _libpython(python: Path, version: str, folder: Path) -> Path:
    """The folder of libpython<version>.so.1.0: beside the interpreter, or fetched from Debian's package."""
    name = f"libpython{version}.so.1.0"
    script = "import sysconfig as s; print(s.get_config_var('LIBDIR')); print(s.get_config_var('MULTIARCH') or '')"
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True)  # noqa: S603
    library, architecture = done.stdout.split("\n")[:2]
    fetched = folder / "libpython"
    candidates = [Path(library), Path(library) / architecture, Path("/usr/lib") / architecture]
    candidates.append(fetched / "usr/lib" / architecture)
    for candidate in candidates:
        if (candidate / name).exists():
            return candidate
    # A bare Debian python3.11 has no shared library; its package can be unpacked without being root.
    advice = f"Install it (as root: apt-get install libpython{version}) and start again."
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise ServingError(f"{name} was not found, and this is no Debian to fetch it from. {advice}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["apt-get", "download", "-q", f"libpython{version}"],  # noqa: S607 - the system's own
            cwd=part,
            capture_output=True,
            text=True,
            check=False,
        )
        packages = list(Path(part).glob("*.deb"))
        if done.returncode or not packages:
            raise ServingError(
                f"{name} was not found, and its package could not be fetched: {done.stderr.strip()[-300:]}. {advice}"
            )
        unpack = ["dpkg", "-x", str(packages[0]), str(fetched)]
        subprocess.run(unpack, check=True, capture_output=True)  # noqa: S603 - as above
    if not (candidates[-1] / name).exists():
        raise ServingError(f"the fetched package holds no {name}. {advice}")
    return candidates[-1]


def stubs(server: int) -> dict[str, int]:
    """Model -> process id of its living Python stub, of the server with this process id.

    Every model of ours runs in a stub (also those of the "onnxruntime" backend), one instance each. Raises nothing
    when the server is gone: there are no stubs then.
    """
    found: dict[str, int] = {}
    try:
        children = psutil.Process(server).children()
    except psutil.NoSuchProcess:
        return found
    for child in children:
        try:
            words = child.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # a dead stub that nobody has waited for counts as gone
            continue
        if words and Path(words[0]).name == "triton_python_backend_stub":
            # ... <model file> ... <instance name, as in embed_text_0_0> ...
            model = Path(words[1]).parent.parent.name
            found[model] = child.pid
    return found


def unhealthy_models(server: int, ports: Ports) -> list[str]:
    """Models that do not answer although the server runs: not loaded, or their stub has died.

    The server itself does not notice a dead stub: it calls the model ready and answers each request with "Stub
    process ... is not healthy", for ever, and its own load command does nothing for it. So the process table is
    asked.

    Raises:
        OSError: the server does not answer.
    """
    index = _ask(ports, "/v2/repository/index")
    alive = stubs(server)
    return sorted(entry["name"] for entry in index if entry.get("state") != "READY" or entry["name"] not in alive)


def heal(ports: Ports, model: str, timeout: float = 30.0) -> None:
    """Bring back one model whose stub died: unload, then load (under a second for most). Others go on meanwhile.

    A stub that died in the middle of a request leaves the old instance "UNLOADING" for ever (seen with this server);
    loading works beside it. Such a server needs its whole exit timeout to stop.

    Raises:
        OSError: the server does not answer.
        ServingError: the server cannot load the model; restart the server.
    """
    try:
        _ask(ports, f"/v2/repository/models/{model}/unload", timeout)
        until = time.monotonic() + _UNLOADING_SECONDS
        while time.monotonic() < until and any(
            entry["name"] == model and entry.get("state") in ("READY", "UNLOADING")
            for entry in _ask(ports, "/v2/repository/index", timeout)
        ):
            time.sleep(0.05)
        _ask(ports, f"/v2/repository/models/{model}/load", timeout)
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:300]
        raise ServingError(f"model {model} cannot be loaded again: {reason}; restart the model server") from error


def clean_after(prefix: str, wait: float = 5.0) -> tuple[int, int]:
    """End what a server that is gone left behind: its stubs and its shared-memory segments. Returns how many of each.

    `prefix` is `region_prefix(folder)`; only processes of the stub program that carry it, and only segments named by
    it, are touched. Call it after the server's end and before its next start, never while it runs. Stubs notice by
    themselves that their server is gone, within about 4 s; segments stay until they are removed.
    """
    left = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if (
            len(words) > 2
            and Path(words[0]).name == "triton_python_backend_stub"
            and any(word.startswith(prefix) for word in words[2:4])
        ):
            left.append(process)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=wait)
    removed = 0
    for segment in _SHARED_MEMORY.glob(f"{prefix}*"):
        segment.unlink(missing_ok=True)
        removed += 1
    return len(left), removed


def _ask(ports: Ports, path: str, timeout: float = 5.0) -> list[dict[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{ports.http}{path}", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - loopback
        body = answer.read()
    parsed: list[dict[str, str]] = json.loads(body) if body else []
    return parsed
