"""The sample collections: reading Qt resource files, rebuilding jigsaws, labels, the made collection, the fallback.

The resource files are written by the test itself. Only the last test wants the real package; it skips where that
cannot be had and is not cached.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from promenade import samples
from promenade.samples import debian, paintings
from promenade.samples.catalogue import COLUMNS, Row, SamplesUnavailable, read_manifest, write_manifest
from promenade.samples.resources import BrokenResources, Resources


def resource_file(files: dict[str, bytes], pack: str = "", version: int = 3) -> bytes:
    """A Qt resource file of these files (paths with folders); a folder's children lie side by side, as rcc has it."""
    root: dict[str, object] = {}
    for path, content in files.items():
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})  # type: ignore[assignment]
        place[name] = content
    names, data, nodes = b"", b"", []
    waiting: list[tuple[str, object]] = [("", root)]
    following = 1
    while waiting:
        name, entry = waiting.pop(0)
        offset, names = len(names), names + struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(entry, dict):
            node = struct.pack(">IHII", offset, 2, len(entry), following)
            following += len(entry)
            waiting += list(entry.items())
        else:
            assert isinstance(entry, bytes)
            flags, stored = 0, entry
            if pack == "zlib":
                flags, stored = 1, struct.pack(">I", len(entry)) + zlib.compress(entry)
            elif pack == "zstd":
                import pyarrow

                flags, stored = 4, pyarrow.compress(entry, "zstd", asbytes=True)
            node = struct.pack(">IHHHI", offset, flags, 0, 1, len(data))
            data += struct.pack(">I", len(stored)) + stored
        nodes.append(node + (b"\0" * 8 if version >= 2 else b""))
    start = 24 if version >= 3 else 20
    header = struct.pack(">4sIIII", b"qres", version, start + len(data) + len(names), start, start + len(data)) + (
        struct.pack(">I", 0) if version >= 3 else b""
    )
    return header + data + names + b"".join(nodes)


FILES = {"a/b/one.txt": b"one " * 50, "a/two.txt": b"", "größe.txt": "Maß".encode()}


@pytest.mark.parametrize(("pack", "version"), list(itertools.product(["", "zlib", "zstd"], [1, 2, 3])))
def test_every_file_of_a_resource_file_is_read_back(pack: str, version: int) -> None:
    resources = Resources(resource_file(FILES, pack, version))
    assert resources.names() == sorted(FILES)
    assert {name: resources.read(name) for name in resources.names()} == FILES
    assert resources.text("größe.txt") == "Maß"


def read_everything(content: bytes) -> None:
    resources = Resources(content)
    for name in resources.names():
        resources.read(name)


@pytest.mark.parametrize("pack", ["", "zlib"])
def test_a_resource_file_cut_short_anywhere_says_so(pack: str) -> None:
    whole = resource_file(FILES, pack)
    for length in range(len(whole)):
        with pytest.raises(BrokenResources):
            read_everything(whole[:length])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_resource_file_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(resource_file(FILES, data.draw(st.sampled_from(["", "zlib", "zstd"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_everything(bytes(content))
    except BrokenResources as error:
        assert "resource file" in str(error)


def test_a_tree_that_runs_in_a_circle_is_refused() -> None:
    content = bytearray(resource_file({"folder/file": b"x"}))
    tree = struct.unpack(">I", content[8:12])[0]
    struct.pack_into(">II", content, tree + 22 + 6, 1, 0)  # the folder's only child is the root again
    with pytest.raises(BrokenResources, match="circle"):
        Resources(bytes(content))


def test_a_name_that_leaves_the_folder_is_refused() -> None:
    content = resource_file({"xx": b"1"}).replace("xx".encode("utf-16-be"), "..".encode("utf-16-be"))
    with pytest.raises(BrokenResources, match="impossible name"):
        Resources(content)


def jigsaw(picture: np.ndarray, off: list[tuple[int, int]]) -> list[paintings.Tile]:
    """Four tiles with a soft wavy seam between them, placed wrongly by `off` pixels each."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    seam_x = np.clip((columns - width / 2 - 8 * np.sin(rows / 9)) + 0.5, 0, 1)
    seam_y = np.clip((rows - height / 2 - 8 * np.sin(columns / 11)) + 0.5, 0, 1)
    tiles = []
    for (right, down), (dy, dx) in zip(itertools.product((0, 1), repeat=2), off, strict=True):
        alpha = (seam_x if right else 1 - seam_x) * (seam_y if down else 1 - seam_y)
        image = Image.fromarray(np.dstack([picture, np.round(255 * alpha)]).astype(np.uint8), "RGBA")
        left, top, end, bottom = image.getchannel("A").getbbox() or (0, 0, width, height)
        centre = ((left + end) / 2 + 10 + dx, (top + bottom) / 2 + 10 + dy)
        tiles.append(paintings.Tile(image.crop((left, top, end, bottom)), centre[0] / 320, centre[1] / 260))
    return tiles


@pytest.mark.parametrize(
    "off", [[(0, 0)] * 4, [(0, 0), (1, 0), (0, -1), (-1, 1)], [(0, 0), (2, 1), (0, -1), (1, -2)]]
)
def test_jigsaw_tiles_become_one_picture_without_seams(off: list[tuple[int, int]]) -> None:
    height, width = 240, 300
    rows, columns = np.mgrid[:height, :width]
    picture = np.dstack([120 + 90 * np.sin(rows / 13), 130 + 80 * np.cos(columns / 17), 60 + rows / 2]).astype(
        np.uint8
    )
    built = np.asarray(paintings.assemble(jigsaw(picture, off), 320, 260)).astype(int)
    assert abs(built.shape[0] - height) <= 2 and abs(built.shape[1] - width) <= 2
    # The whole may sit a pixel or two aside; inside it nothing may differ more than a one-pixel shift explains.
    best = min(
        np.abs(built[6 + dy : 224 + dy, 6 + dx : 284 + dx] - picture[6:224, 6:284]).max()
        for dy, dx in itertools.product(range(-3, 4), repeat=2)
    )
    assert best <= 16


def test_tiles_that_hang_over_the_edge_of_the_board_are_kept_whole() -> None:
    tile = Image.new("RGBA", (60, 40), (200, 10, 10, 255))
    tiles = [paintings.Tile(tile, 20 / 100, 0.5), paintings.Tile(tile, 80 / 100, 0.5)]
    assert paintings.assemble(tiles, 100, 60).size == (120, 40)


@pytest.mark.parametrize(
    ("text", "artist", "title", "year"),
    [
        (
            "Vincent van Gogh, Entrance Hall of Saint-Paul Hospital - 1889",
            "Vincent van Gogh",
            "Entrance Hall of Saint-Paul Hospital",
            "1889",
        ),
        ("Katsushika Hokusai, Kazusa sea Route - 1830.", "Katsushika Hokusai", "Kazusa Sea Route", "1830"),
        ("Katsushika Hokusa, Poppies - 1833-1834", "Katsushika Hokusai", "Poppies", "1833-1834"),
        ("Leonardo da Vinci, Mona Lisa - 1503-19", "Leonardo da Vinci", "Mona Lisa", "1503-1519"),
        (
            "Vincent van Gogh, Portrait of Pere Tanguy 1887-8",
            "Vincent van Gogh",
            "Portrait of Pere Tanguy",
            "1887-1888",
        ),
        ("Katsushika Hokusai, Woman holding a fan", "Katsushika Hokusai", "Woman holding a fan", ""),
        (
            "Utagawa Hiroshige, The Benzaiten Shrine at Inokashira in Snow - 1760-70",
            "Utagawa Hiroshige",
            "The Benzaiten Shrine at Inokashira in Snow",
            "",
        ),
        ("Anna Painter, Hill, in spring, 1901", "Anna Painter", "Hill, in spring", "1901"),
        ("Untitled", "", "Untitled", ""),
    ],
)
def test_a_label_is_taken_apart(text: str, artist: str, title: str, year: str) -> None:
    assert paintings.parse_label(text) == paintings.Label(artist, title, year)


def test_licences_are_read_block_by_block() -> None:
    readme = (
        "Copyright: A\nLicense: CC-BY 3.0\nFiles:\none.ogg\n\nCopyright: B\nLicense: Public Domain\nFiles:\n"
        "two.ogg\nthree.webp\nComment: see four.ogg there\n\nLicense: GPLv3 or later\n  five.webp\n"
    )
    assert paintings.parse_licences(readme) == {
        "one.ogg": "CC-BY-3.0",
        "two.ogg": "Public domain",
        "three.webp": "Public domain",
        "five.webp": "GPL-3.0-or-later",
    }


def package(path: Path, files: dict[str, bytes]) -> Path:
    """A Debian package of these files."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    blob = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", inner.getvalue())):
        blob += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        blob += b"\n" * (len(content) % 2)
    path.write_bytes(blob)
    return path


def test_the_wanted_files_of_a_package_are_unpacked(tmp_path: Path) -> None:
    file = package(tmp_path / "x.deb", {"usr/a": b"alpha", "usr/b": b"beta", "usr/c": b"c"})
    assert debian.unpack(file, ["usr/b", "usr/a"]) == {"usr/a": b"alpha", "usr/b": b"beta"}
    with pytest.raises(SamplesUnavailable, match="holds no usr/z"):
        debian.unpack(file, ["usr/z"])


def test_a_broken_package_says_so(tmp_path: Path) -> None:
    file = package(tmp_path / "x.deb", {"usr/a": b"alpha" * 100})
    whole = file.read_bytes()
    for length in [0, 5, 40, 100, 150, len(whole) - 40]:
        file.write_bytes(whole[:length])
        with pytest.raises(SamplesUnavailable, match=r"x\.deb"):
            debian.unpack(file, ["usr/a"])


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_seed_makes_the_same_bytes_and_more_only_adds(tmp_path: Path) -> None:
    samples.made(tmp_path / "one", pictures=8, tracks=2, seed=3)
    samples.made(tmp_path / "same", pictures=8, tracks=2, seed=3)
    samples.made(tmp_path / "more", pictures=10, tracks=3, seed=3)
    samples.made(tmp_path / "other", pictures=8, tracks=2, seed=4)
    one, same, more, other = (contents(tmp_path / name) for name in ("one", "same", "more", "other"))
    assert one == same
    media = {name: digest for name, digest in one.items() if name != "manifest.csv"}
    assert media.items() <= more.items()
    assert not set(media.values()) & set(other.values())


def test_made_pictures_and_tracks_differ_from_each_other(tmp_path: Path) -> None:
    made = samples.made(tmp_path, pictures=40, tracks=8)
    rows = read_manifest(made.manifest)
    assert (made.pictures, made.tracks) == (40, 8) and len(rows) == 48
    assert len(set(contents(tmp_path).values())) == 49
    light, colour, detail = [], [], []
    for row in rows[:40]:
        with Image.open(tmp_path / row.file) as image:
            assert min(image.size) >= 320 and max(image.size) <= 512
            pixels = np.asarray(image.convert("HSV")).astype(float)
        light.append(pixels[..., 2].mean() / 255)
        colour.append(pixels[..., 1].mean() / 255)
        detail.append(np.abs(np.diff(pixels[..., 2], axis=0)).mean())
    assert np.std(light) > 0.12 and np.std(colour) > 0.12 and np.std(detail) > 1
    for row in rows[40:]:
        sound, rate = soundfile.read(tmp_path / row.file)
        assert 7.9 <= len(sound) / rate <= 20.1 and 0.02 < np.sqrt(np.mean(sound**2)) < 0.7
        assert np.abs(sound).max() <= 0.95
    assert {row.licence for row in rows} == {"CC0-1.0"} and len({row.title for row in rows}) == 48


def test_without_apt_a_collection_is_made_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said: list[str] = []
    result = samples.collection(tmp_path / "out", said.append)
    assert (result.pictures, result.tracks) == (30, 9)
    assert "no apt-get" in result.origin and any("of its own" in line for line in said)
    assert all((result.folder / row.file).is_file() for row in read_manifest(result.manifest))
    assert not list((tmp_path / "cache" / "promenade" / "samples").iterdir())  # nothing half-built stays


def test_an_apt_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SamplesUnavailable, match="Unable to locate package"):
        samples.fetch(tmp_path / "out")


def fill_cache(cache: Path) -> None:
    """A cached collection of one picture and one recording."""
    cache.mkdir(parents=True)
    for name in ("a.jpg", "b.ogg", "LICENCES.txt", "origin.txt"):
        (cache / name).write_text(name)
    write_manifest(cache, [Row("a.jpg", "artwork", "A"), Row("b.ogg", "track", "B")])


def test_a_cached_collection_needs_no_apt_and_a_damaged_cache_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = tmp_path / "cache" / "promenade" / "samples" / "gcompris-qt-data-1"
    fill_cache(cache)
    result = samples.fetch(tmp_path / "out")
    assert (result.pictures, result.tracks) == (1, 1) and (tmp_path / "out" / "b.ogg").read_text() == "b.ogg"
    (cache / "b.ogg").unlink()
    with pytest.raises(SamplesUnavailable, match="apt"):
        samples.fetch(tmp_path / "out")


def test_the_real_collection_is_whole(tmp_path: Path) -> None:
    try:
        result = samples.fetch(tmp_path)
    except SamplesUnavailable as error:
        pytest.skip(f"the package of samples cannot be had here: {error}")
    rows = read_manifest(result.manifest)
    assert (result.pictures, result.tracks) == (30, 9)
    assert result.manifest.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert all(row.title and row.artist and row.licence for row in rows)
    assert sum(bool(row.year) for row in rows if row.kind == "artwork") >= 27
    for row in rows:
        if row.kind == "artwork":
            with Image.open(tmp_path / row.file) as image:
                assert min(image.convert("RGB").size) >= 300
        else:
            assert 10 < soundfile.info(tmp_path / row.file).duration < 90
