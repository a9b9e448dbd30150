"""Where files come from: folders, manifests, an S3 prefix, a folder that fills up. Nothing is left out silently."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from minio import Minio

from infra.objects import Objects
from schemas.failures import Lasting, Refused
from streams.ingest import Outcome, Report, Source
from streams.sources import SETTLED_SECONDS, from_bucket, from_manifest, from_paths, from_watched, printable
from tests.stack_fixtures import Reached


async def all_of(found: AsyncIterator[Source | Report]) -> tuple[list[Source], list[Report]]:
    sources: list[Source] = []
    reports: list[Report] = []
    async for each in found:
        if isinstance(each, Source):
            sources.append(each)
        else:
            reports.append(each)
    return sources, reports


def names(sources: list[Source]) -> list[str]:
    return [each.name for each in sources]


async def test_a_folder_gives_every_file_below_it_in_order_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "deep/er/c.wav", ".hidden.jpg", ".git/x.jpg", "deep/Thumbs.db", "odd 'né\n.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    sources, reports = await all_of(from_paths([tmp_path]))
    assert names(sources) == ["a.jpg", "b.jpg", "odd 'né\\n.png", "deep/er/c.wav"]
    assert reports == []


async def test_a_name_that_is_not_utf_8_can_be_shown_and_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(path)).write_bytes(b"x")
    (source,), _ = await all_of(from_paths([tmp_path]))
    assert source.name == "caf\\xe9.jpg"
    source.name.encode()
    assert isinstance(source.content, Path)
    assert source.content.read_bytes() == b"x"
    assert printable("a\x1b[31m") == "a\\x1b[31m"


async def test_a_link_that_leads_in_a_circle_is_no_trap(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    sources, _ = await all_of(from_paths([tmp_path]))
    assert names(sources) == ["a.jpg"]


async def test_a_folder_with_a_manifest_of_its_own_is_brought_in_by_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "b.jpg").write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("file,title\na.jpg,Sea\n")
    sources, _ = await all_of(from_paths([tmp_path]))
    assert [(each.name, each.catalogue.title) for each in sources] == [("a.jpg", "Sea")]


ROWS: list[dict[str, Any]] = [
    {"file": "a.jpg", "title": "Sea, calm", "artist": 'Ada "the" Brush', "year": "1890"},
    {"file": "deep/b.jpg", "title": "日本", "artist": "", "year": None},
]


def write(path: Path, rows: list[dict[str, Any]], form: str) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", "utf-8")
        return
    separator = {"csv": ",", "semicolons": ";", "tabs": "\t", "bom": ",", "crlf": ","}[form]

    def quoted(value: Any) -> str:
        return '"' + str(value or "").replace('"', '""') + '"'

    lines = [separator.join(columns)] + [separator.join(quoted(row.get(each)) for each in columns) for row in rows]
    text = ("\r\n" if form == "crlf" else "\n").join(lines) + "\n"
    path.write_bytes(text.encode("utf-8-sig" if form == "bom" else "utf-8"))


@pytest.mark.parametrize("form", ["csv", "semicolons", "tabs", "bom", "crlf", "parquet", "jsonl"])
async def test_a_manifest_says_the_same_in_every_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"list.{form if form in ('parquet', 'jsonl') else 'csv'}"
    write(path, ROWS, form)
    sources, reports = await all_of(from_manifest(path))
    assert reports == []
    assert [(each.name, each.content) for each in sources] == [
        ("a.jpg", tmp_path / "a.jpg"),
        ("deep/b.jpg", tmp_path / "deep" / "b.jpg"),
    ]
    assert [each.catalogue.model_dump(exclude_none=True) for each in sources] == [
        {"title": "Sea, calm", "artist": 'Ada "the" Brush', "year": "1890"},
        {"title": "日本"},
    ]


async def test_numbers_and_further_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"File": "a.jpg", "YEAR": 1890, "price": {"x": [1]}, "title": "  two\\n lines "}\n')
    (source,), _ = await all_of(from_manifest(path))
    assert source.catalogue.model_dump(exclude_none=True) == {"title": "two lines", "year": "1890"}


async def test_a_title_with_a_line_separator_is_one_title(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"file": "a.jpg", "title": "one\u2028two\x85three"}\n', "utf-8")
    sources, reports = await all_of(from_manifest(path))
    assert reports == []
    assert sources[0].catalogue.title == "one two three"


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
async def test_a_bad_row_is_told_with_its_line_and_the_others_come(tmp_path: Path, form: str) -> None:
    (tmp_path.parent / "outside.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(tmp_path.parent / "outside.jpg")
    rows = [
        {"file": "good.jpg", "title": "one"},
        {"file": "../outside.jpg", "title": "up"},
        {"file": "/etc/passwd", "title": "away"},
        {"file": "link.jpg", "title": "by a link"},
        {"file": "good.jpg", "title": "again"},
        {"file": "./deep/../good.jpg", "title": "again under another name"},
        {"file": "", "title": "nothing"},
        {"file": "long.jpg", "title": "x" * 600},
        {"file": "x" * 5000, "title": "long name"},
        {"file": "last.jpg", "title": "two"},
    ]
    path = tmp_path / f"list.{form}"
    write(path, rows, form)
    sources, reports = await all_of(from_manifest(path))
    assert names(sources) == ["good.jpg", "last.jpg"]
    assert len(reports) == 8
    assert all(each.outcome is Outcome.REFUSED and each.reason.endswith(".") for each in reports)
    first = 2 if form == "csv" else 1
    for report, (line, words) in zip(
        reports,
        [
            (1, "outside"),
            (2, "outside"),
            (3, "outside"),
            (4, "same file"),
            (5, "same file"),
            (6, "names no file"),
            (7, "title has 600 characters; 500 characters are the most"),
            (8, "cannot exist"),
        ],
        strict=True,
    ):
        assert f"line {line + first}" in report.name
        assert words in report.reason


async def test_rows_that_cannot_be_read_at_all_are_told(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(
        '{"file": "a.jpg"}\n\n{"file": \n[1]\n'
        + "[" * 5000
        + '\n{"file": "\\ud800.jpg"}\n{"file": "b.jpg", "title": "\\ud800"}'
        '\n{"file": "nul\\u0000.jpg"}\n{"file": "c.jpg"}'
    )
    sources, reports = await all_of(from_manifest(path))
    assert names(sources) == ["a.jpg", "c.jpg"]
    assert [report.name.split()[-1] for report in reports] == ["3", "4", "5", "6", "7", "8"]
    assert reports[4].reason == "its title is not valid text."
    table = tmp_path / "list.csv"
    table.write_text('file,title\na.jpg,one\nb.jpg,one,two\nc.jpg\n\nd.jpg,"never\nended\n')
    sources, reports = await all_of(from_manifest(table))
    assert names(sources) == ["a.jpg"]
    assert "3 values for 2 columns" in reports[0].reason
    assert "1 values for 2 columns" in reports[1].reason
    assert "breaks off" in reports[2].reason


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", b"picture,title\na.jpg,Sea\n", "no column called file; its columns are: picture, title"),
        ("list.csv", b"", "no column called file; its columns are: none"),
        ("list.csv", "file,title\na.jpg,Caf\xe9\n".encode("latin-1"), "not UTF-8 (line 2)"),
        ("list.csv", "file,title\na.jpg,x\n".encode("utf-16"), "not UTF-8"),
        ("list.jsonl", b'{"name": "a.jpg"}\n', "no column called file"),
        ("list.parquet", b"file,title\n", "not a Parquet file"),
        ("list.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "not a Parquet file"),
    ],
)
async def test_a_manifest_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused) as caught:
        await all_of(from_manifest(tmp_path / name))
    assert words in str(caught.value)
    with pytest.raises(Refused, match="cannot be read"):
        await all_of(from_manifest(tmp_path / f"no-{name}"))


@pytest.mark.stack
async def test_an_s3_prefix_gives_its_objects_and_refuses_the_too_large(
    object_store: Reached, objects: Objects
) -> None:
    for key, size in (("in/a.jpg", 10), ("in/deep/b ü.jpg", 20), ("in/large.jpg", 200), ("out/c.jpg", 10)):
        await objects.put(key, b"x" * size)
    client = Minio(
        object_store.endpoint, access_key=object_store.access_key, secret_key=object_store.secret_key, secure=False
    )
    sources, reports = await all_of(from_bucket(client, objects.bucket, "in/", 100))
    assert names(sources) == ["in/a.jpg", "in/deep/b ü.jpg"]
    assert [report.name for report in reports] == ["in/large.jpg"]
    read = sources[1].content
    assert not isinstance(read, Path)
    assert await read() == b"x" * 20
    await objects.delete(["in/deep/b ü.jpg"])
    with pytest.raises(Lasting, match="cannot be read"):
        await read()
    with pytest.raises(Refused, match="cannot be listed"):
        await all_of(from_bucket(client, "no-such-bucket-here", "in/", 100))


async def test_a_watched_folder_gives_each_file_once_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "before.jpg").write_bytes(b"x")
    stop = asyncio.Event()
    taken: list[tuple[str, int]] = []

    async def watch() -> None:
        async for source in from_watched(tmp_path, stop):
            assert isinstance(source.content, Path)
            taken.append((source.name, source.content.stat().st_size))

    async def slowly() -> None:
        """A writer that pauses for less than a file needs to count as complete."""
        with (tmp_path / "slow.wav").open("wb") as file:
            for _ in range(6):
                file.write(b"x" * 1000)
                file.flush()
                await asyncio.sleep(SETTLED_SECONDS * 0.4)

    async def wait_for(count: int) -> None:
        while len(taken) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async with asyncio.timeout(30):
        watching = asyncio.create_task(watch())
        await wait_for(1)
        writing = asyncio.create_task(slowly())
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "new.jpg").write_bytes(b"y")
        (tmp_path / ".part").write_bytes(b"z" * 7)
        (tmp_path / ".part").rename(tmp_path / "moved.jpg")
        (tmp_path / ".hidden.jpg").write_bytes(b"x")
        (tmp_path / "gone.jpg").write_bytes(b"x")
        (tmp_path / "gone.jpg").unlink()
        await writing
        await wait_for(4)
        os.utime(tmp_path / "before.jpg")
        (tmp_path / "before.jpg").write_bytes(b"changed")
        await wait_for(5)
        stop.set()
        await watching
    assert taken[0] == ("before.jpg", 1)
    assert sorted(taken[1:4]) == [("deep/new.jpg", 1), ("moved.jpg", 7), ("slow.wav", 6000)]
    assert taken[4:] == [("before.jpg", 7)]


async def test_a_folder_that_cannot_be_looked_into_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may look everywhere, so the system's answer is made here.
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = [each async for each in from_paths([tmp_path])]
    refused = [each for each in found if isinstance(each, Report)]
    assert [each.name for each in found if isinstance(each, Source)] == ["a.png"]
    assert len(refused) == 1 and "Permission denied" in refused[0].reason and refused[0].name.endswith("closed")
