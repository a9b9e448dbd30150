"""Sample collections: real paintings and recordings where Debian's archive can be reached, made ones where not.

`fetch` takes 30 pictures and 9 recordings out of the package gcompris-qt-data; `made` paints and composes a
collection of its own; `collection` tries the first and falls back to the second, saying why. Nothing of the media
is part of Promenade: they lie in the folder that the caller names, and fetched ones also in the cache of the user.
Ingesting them is left to the command line.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from promenade.samples import debian, makers, paintings
from promenade.samples.catalogue import (
    MANIFEST,
    Collection,
    Progress,
    Row,
    SamplesUnavailable,
    described,
    read_manifest,
    write_manifest,
)
from promenade.samples.resources import BrokenResources

__all__ = ["Collection", "Progress", "SamplesUnavailable", "collection", "fetch", "made"]

PACKAGE: Final = "gcompris-qt-data"
PREFERRED_VERSION: Final = "3.1-2"
_LAYOUT: Final = "1"
"""Raised when what is made of the package changes, so that an older cache is not taken for it."""

_FILES: Final = tuple(
    f"usr/share/gcompris-qt/rcc/{name}.rcc" for name in ("paintings", "details", "explore_world_music")
)


def fetch(folder: Path, progress: Progress = lambda line: None) -> Collection:
    """The real sample collection, as files and a manifest in `folder` (made where missing).

    The first call downloads about 44 MB through apt and takes some ten seconds; later calls copy from
    `$XDG_CACHE_HOME/promenade/samples` (`~/.cache` by default) and need no network.

    Raises:
        SamplesUnavailable: it cannot be had; the text says why in plain words.
    """
    cache = _cache() / f"{PACKAGE}-{_LAYOUT}"
    if not _whole(cache):
        shutil.rmtree(cache, ignore_errors=True)
        _build(cache, progress)
    rows = read_manifest(cache / MANIFEST)
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*(row.file for row in rows), "LICENCES.txt"]:
        if not (folder / name).is_file() or (folder / name).stat().st_size != (cache / name).stat().st_size:
            shutil.copyfile(cache / name, folder / name)
    manifest = write_manifest(folder, rows)
    result = described(folder, manifest, rows, (cache / "origin.txt").read_text(encoding="utf-8").strip())
    progress(f"{result.pictures} pictures and {result.tracks} recordings lie in {folder}")
    return result


def made(
    folder: Path,
    pictures: int = 30,
    tracks: int = 9,
    seed: int = 1,
    progress: Progress = lambda line: None,
) -> Collection:
    """A collection painted and composed by Promenade itself, as files and a manifest in `folder`.

    The same seed gives the same bytes, and a larger number only adds to a smaller one. A picture is 320-512 pixels
    a side (JPEG), a track 8-20 seconds of mono at 22,050 Hz (FLAC).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for number in range(pictures):
        rows.append(makers.write_picture(folder, number, seed))
        if (number + 1) % 500 == 0:
            progress(f"{number + 1} of {pictures} pictures painted")
    for number in range(tracks):
        rows.append(makers.write_track(folder, number, seed))
        if (number + 1) % 50 == 0:
            progress(f"{number + 1} of {tracks} tracks composed")
    manifest = write_manifest(folder, rows)
    progress(f"{pictures} made pictures and {tracks} made tracks lie in {folder}")
    return described(folder, manifest, rows, f"painted and composed by Promenade itself (seed {seed}), CC0")


def collection(folder: Path, progress: Progress = lambda line: None) -> Collection:
    """The real sample collection where it can be had, else a made one; `origin` and `progress` say which and why."""
    try:
        return fetch(folder, progress)
    except SamplesUnavailable as error:
        progress(f"The sample paintings and recordings cannot be had: {error}.")
        progress("Promenade paints and composes a small collection of its own instead.")
        own = made(folder, progress=progress)
        origin = f"{own.origin}, because the sample paintings and recordings cannot be had: {error}"
        return Collection(own.folder, own.manifest, own.pictures, own.tracks, origin)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "promenade" / "samples"


def _whole(cache: Path) -> bool:
    """Whether every file that the cached manifest names is there (people do tidy up caches)."""
    try:
        names = [row.file for row in read_manifest(cache / MANIFEST)]
    except (OSError, ValueError):
        return False
    return all((cache / name).is_file() for name in [*names, "LICENCES.txt", "origin.txt"])


def _build(cache: Path, progress: Progress) -> None:
    """Fill the cache in one step: a half-built one is never seen, and a second builder's result is as good."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=cache.parent, prefix="unfinished-")
    except OSError as error:
        raise SamplesUnavailable(f"the cache folder {cache.parent} cannot be written: {error}") from error
    with temporary as name:
        work, ready = Path(name), Path(name) / "ready"
        ready.mkdir()
        package, version = debian.download(PACKAGE, PREFERRED_VERSION, work, progress)
        progress(f"unpacking {package.name}")
        files = debian.unpack(package, _FILES)
        art, details, music = (files[path] for path in _FILES)
        progress("putting the jigsaw pictures together")
        try:
            rows = paintings.write_paintings(art, ready) + paintings.write_details(details, ready)
            rows += paintings.write_music(music, ready)
            (ready / "LICENCES.txt").write_text(paintings.credits(art, details, music), encoding="utf-8")
        except (BrokenResources, KeyError, OSError) as error:
            raise SamplesUnavailable(f"{package.name} cannot be read: {error}") from error
        origin = f"paintings, prints and recordings from the package {PACKAGE} {version} (GCompris)"
        (ready / "origin.txt").write_text(origin + "\n", encoding="utf-8")
        write_manifest(ready, rows)
        try:
            ready.rename(cache)
        except OSError as error:
            if not _whole(cache):
                raise SamplesUnavailable(f"the cache folder {cache} cannot be written: {error}") from error
