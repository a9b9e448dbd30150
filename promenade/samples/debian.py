"""Gets a package from the distribution's own archive, through `apt-get download`, without being root, and unpacks it.

apt knows the mirrors, the signatures and the checksums, so no address stands here. Where the lists of packages are
missing they are fetched: by root into their usual place, by anyone else into a folder of their own. The package (an
`ar` archive with a tar inside) is read here, so that dpkg is not needed. What is in the package is left to
`paintings`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from promenade.samples.catalogue import Progress, SamplesUnavailable

_LARGEST_PACKAGE: Final = 1024 * 1024 * 1024


def download(package: str, preferred_version: str, folder: Path, progress: Progress) -> tuple[Path, str]:
    """Download a package into `folder`; returns the `.deb` and its version.

    The preferred version is taken where the archive has it, else whatever the distribution offers.

    Raises:
        SamplesUnavailable: no apt, no such package, no network, or the wrong checksum; the text says which.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise SamplesUnavailable("there is no apt-get on this machine (it is not Debian or Ubuntu)")
    options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else ["-o", "Debug::NoLocking=1"]
    reason = _try_download(apt, options, package, preferred_version, folder, progress)
    if reason is not None:
        progress(f"apt does not offer {package} yet ({reason}); fetching the lists of packages")
        if os.geteuid() != 0:
            options = [*options, *_private_lists(folder)]
        # Its exit status is not asked: one broken source among many must not hide that the package is there now.
        _run([apt, *options, "update"], folder, timeout=300)
        reason = _try_download(apt, options, package, preferred_version, folder, progress)
    if reason is not None:
        raise SamplesUnavailable(f"apt could not download {package}: {reason}")
    found = sorted(folder.glob(f"{package}_*.deb"))
    if not found:
        raise SamplesUnavailable(f"apt said that it downloaded {package}, but there is no file")
    version = found[-1].name.split("_")[1].replace("%3a", ":")
    _check(apt, options, package, version, found[-1], progress)
    return found[-1], version


def unpack(package: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The wanted files of a Debian package, by their path without a leading `./`.

    Raises:
        SamplesUnavailable: the package is broken or lacks one of them.
    """
    members = set(wanted)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_member(package.read_bytes())), mode="r:*") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if path in members and member.isfile():
                    stream = archive.extractfile(member)
                    found[path] = stream.read() if stream is not None else b""
                if len(found) == len(members):
                    break
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise SamplesUnavailable(f"the package {package.name} cannot be unpacked: {error}") from error
    missing = sorted(members - found.keys())
    if missing:
        raise SamplesUnavailable(f"the package {package.name} holds no {', '.join(missing)}")
    return found


def _data_member(archive: bytes) -> bytes:
    """The tar (xz or gz; zstd is unpacked here, tarfile cannot) out of the `ar` archive that a package is."""
    if archive[:8] != b"!<arch>\n":
        raise ValueError("it is not a Debian package")
    position = 8
    while position + 60 <= len(archive):
        header = archive[position : position + 60]
        name = header[:16].decode("ascii", errors="replace").strip().rstrip("/")
        try:
            size = int(header[48:58])
        except ValueError as error:
            raise ValueError("a member of the package has no length") from error
        start = position + 60
        if start + size > len(archive):
            raise ValueError(f"{name} is cut short")
        if name.startswith("data.tar"):
            content = archive[start : start + size]
            return _unpack_zstd(content) if name.endswith(".zst") else content
        position = start + size + size % 2
    raise ValueError("it has no data.tar")


def _unpack_zstd(content: bytes) -> bytes:
    import pyarrow  # a default dependency, and the one that brings zstd

    with pyarrow.CompressedInputStream(pyarrow.py_buffer(content), "zstd") as stream:
        unpacked: bytes = stream.read(_LARGEST_PACKAGE)
    return unpacked


def _try_download(
    apt: str, options: list[str], package: str, preferred: str, folder: Path, progress: Progress
) -> str | None:
    """None when it worked, else the last thing apt said."""
    said = ""
    for wanted in (f"{package}={preferred}", package):
        progress(f"asking apt for {wanted}")
        done = _run([apt, *options, "download", wanted], folder, timeout=600)
        if done is None:
            return "it took longer than 10 minutes"
        if done.returncode == 0:
            return None
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        said = (errors or done.stderr.splitlines() or ["it gave no reason"])[-1].removeprefix("E:").strip()
    return said


def _private_lists(folder: Path) -> list[str]:
    """apt options that keep lists and cache below `folder`, so that no root is needed."""
    lists, cache = folder / "lists", folder / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]


def _check(apt: str, options: list[str], package: str, version: str, file: Path, progress: Progress) -> None:
    """Compare the file with the SHA-256 in apt's signed metadata, where apt-cache is there to ask."""
    query = Path(apt).with_name("apt-cache")
    if not query.exists():
        return
    done = _run([str(query), *options, "show", f"{package}={version}"], file.parent, timeout=60)
    match = re.search(r"^SHA256: ([0-9a-f]{64})$", done.stdout, re.MULTILINE) if done is not None else None
    if match is None:
        return
    if hashlib.sha256(file.read_bytes()).hexdigest() != match[1]:
        raise SamplesUnavailable(f"{file.name} does not have the checksum that the archive states; try again")
    progress(f"{file.name}: checksum as the archive states it")


def _run(command: list[str], folder: Path, timeout: float) -> subprocess.CompletedProcess[str] | None:
    """None when it took too long."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(  # noqa: S603 - fixed words and a path that shutil.which found
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
