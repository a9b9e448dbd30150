"""Bad input through the real stream: bad files, bad manifests and bad events among a hundred good items.

Everything bad ends as a good item after all, as a refusal, or as a dead letter, each with a plain reason; every
good item comes through, with the worker that began. What a single bad file does to the decoder is told in
`test_bad_media`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from kafka import KafkaProducer

from schemas.events import Arrived, Captioned, Embedded, Event, PairingCommand, Scored, Withdrawn, new_trace
from streams.sources import printable
from tests.bad_corpus import Case, encoded, make_corpus, picture, sound, tone
from tests.patience import patient
from tests.running import House, need_everything, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(patient(300))]

GOOD_PICTURES, GOOD_TRACKS = 94, 6
NOBODY = "artwork-" + "0" * 63 + "1"


@dataclass
class Found:
    """What became of everything."""

    house: House
    cases: list[Case]
    reports: dict[str, dict[str, Any]]
    good: set[str]
    before: dict[str, Any]
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)


def make_good(folder: Path) -> None:
    folder.mkdir()
    for number in range(GOOD_PICTURES):
        content = encoded(picture(seed=1000 + number), "JPEG", quality=88)
        (folder / f"good-{number:03d}.jpg").write_bytes(content)
    for number in range(GOOD_TRACKS):
        (folder / f"good-{number}.wav").write_bytes(sound(tone(2.0, hertz=200.0 + 70 * number), 16_000, "WAV"))


def make_rows(folder: Path) -> dict[str, str]:
    """A CSV and a JSON-lines manifest with good and bad rows; report's beginning -> words of its reason."""
    folder.mkdir()
    for number in range(4):
        (folder / f"row {number}, good.jpg").write_bytes(encoded(picture(seed=2000 + number), "JPEG"))
    (folder.parent / "beside.jpg").write_bytes(encoded(picture(seed=2100), "JPEG"))
    rows = [
        "file,title,artist,colour",
        '"row 0, good.jpg",A title,Somebody,blue',
        ",no file,,",
        '"row 0, good.jpg",named twice,,',
        "../beside.jpg,outside,,",
        "/etc/hostname,absolute,,",
        "gone.jpg,not there,,",
        f'"row 1, good.jpg",{"long " * 2000},,',
        "three,values,only",
        '"row 2, good.jpg","Títle “with” signs; 木",,',
    ]
    (folder / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    lines = [
        json.dumps({"File": "row 3, good.jpg", "title": "line\u2028separator", "year": 1901}),
        "{not json",
        '["row 3, good.jpg"]',
        '{"file": null}',
        '{"file": "a\\u0000b.jpg"}',
        "[" * 100_000,
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "rows.csv line 3": "names no file",
        "rows.csv line 4": "same file as line 2",
        "rows.csv line 5": "outside the manifest's folder",
        "rows.csv line 6": "outside the manifest's folder",
        "gone.jpg": "no such file",
        "rows.csv line 8": "title has 9,999 characters; 500 characters are the most",
        "rows.csv line 9": "3 values for 4 columns",
        "rows.jsonl line 2": "not JSON",
        "rows.jsonl line 3": "not a JSON object",
        "rows.jsonl line 4": "names no file",
        "rows.jsonl line 5": "cannot exist",
        "rows.jsonl line 6": "not JSON",
    }


def bad_manifests(folder: Path) -> dict[str, str]:
    """Manifests that cannot be taken at all: file -> words of the reason."""
    folder.mkdir()
    contents: dict[str, bytes] = {
        "no-file-column.csv": b"picture,title\na.jpg,x\n",
        "latin.csv": "file,title\na.jpg,Dürer\n".encode("latin-1"),
        "utf16.csv": "file,title\na.jpg,x\n".encode("utf-16"),
        "empty.csv": b"",
        "fake.parquet": b"PAR1 but nothing behind it",
        "no-file-column.jsonl": b'{"picture": "a.jpg"}\n',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    table = pyarrow.table({"title": ["x"]})
    pyarrow.parquet.write_table(table, folder / "no-file-column.parquet")
    return {
        "no-file-column.csv": "no column called file",
        "latin.csv": "not UTF-8",
        "utf16.csv": "not UTF-8",
        "empty.csv": "no column called file",
        "fake.parquet": "not a Parquet file",
        "no-file-column.jsonl": "no column called file",
        "no-file-column.parquet": "no column called file",
    }


def bad_events(known: str) -> list[tuple[str, type[Event], bytes | None, str]]:
    """(what is bad, whose topic it is sent to, value, words of the reason)."""

    def made(model: type[Event], **changes: Any) -> bytes:
        sound_event = {
            "schema_version": 1,
            "trace": new_trace(),
            "happened": "2026-01-01T00:00:00Z",
            "type": model.model_fields["type"].default,
            "item": NOBODY,
            "generation": 0,
            "revision": 1,
        }
        plain = {name: value for name, value in {**sound_event, **changes}.items() if value is not ...}
        return json.dumps(plain).encode()

    cases: list[tuple[str, type[Event], bytes | None, str]] = [
        ("nothing", Arrived, None, "empty"),
        ("no bytes", Scored, b"", "empty"),
        ("words", Arrived, b"please caption my picture", "not JSON"),
        ("noise", Captioned, bytes(range(256)), "not JSON"),
        ("cut off", Embedded, made(Embedded, result="x")[:60], "not JSON"),
        ("nested without end", Arrived, b"[" * 50_000, "not JSON"),
        ("a list", Arrived, b"[1, 2]", "not an object"),
        ("null", PairingCommand, b"null", "not an object"),
        ("another version", Arrived, made(Arrived, schema_version=2), "version '2'"),
        ("version in words", Captioned, made(Captioned, schema_version="one"), "version 'one'"),
        ("unknown type", Arrived, made(Arrived, type="departed"), "does not fit its schema"),
        ("no type", Arrived, made(Arrived, type=...), "does not fit its schema"),
        ("another topic's", Scored, made(Arrived), "this topic holds Scored"),
        ("a field too many", Arrived, made(Arrived, caption="a red boat"), "caption"),
        ("a field missing", Captioned, made(Captioned), "result"),
        ("an id that is none", Arrived, made(Arrived, item="mona-lisa"), "item"),
        ("an id that climbs", Withdrawn, made(Withdrawn, item="../../secrets", revision=...), "item"),
        ("a negative generation", Arrived, made(Arrived, generation=-1), "generation"),
        ("a huge revision", Arrived, made(Arrived, revision=10**12), "revision"),
        ("a time without zone", Arrived, made(Arrived, happened="2026-01-01T00:00:00"), "happened"),
        (
            "an exhibition with a path",
            PairingCommand,
            made(PairingCommand, exhibition="../x", what="item-ready"),
            "exh",
        ),
        ("more than 64 KiB", Arrived, made(Arrived, trace="f" * 70_000), "more than 65536"),
        ("5 MB", Arrived, b"x" * 5_000_000, "more than 65536"),
        ("an item that is not there", Arrived, made(Arrived), "no record"),
        ("an item that is not there, captioned", Captioned, made(Captioned, result="items/x"), "no record"),
        ("a revision that is not there", Arrived, made(Arrived, item=known, revision=7), "latest is 0.1"),
        (
            "a generation that is not there",
            Scored,
            made(Scored, item=known, generation=3, result="x"),
            "latest is 0.1",
        ),
    ]
    return cases


def send(house: House, events: list[tuple[str, type[Event], bytes | None, str]]) -> dict[str, tuple[str, str]]:
    """Publish; what is bad -> (`sent`, reference) or (`refused`, the broker's words)."""
    producer = KafkaProducer(
        bootstrap_servers=house.settings.brokers, max_request_size=16_000_000, acks="all", enable_idempotence=False
    )
    found: dict[str, tuple[str, str]] = {}
    try:
        for what, model, value, _ in events:
            try:
                placed = producer.send(model.topic, value=value, key=b"bad").get(timeout=30)
                found[what] = ("sent", f"{placed.topic}-{placed.partition}-{placed.offset}")
            except Exception as error:
                found[what] = ("refused", type(error).__name__)
    finally:
        producer.close(timeout=5)
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    need_everything()
    house = House(tmp_path_factory.mktemp("house") / "data")
    house.up()
    try:
        yield house
    finally:
        print(house.logs())
        house.close()


@pytest.fixture(scope="module")
def found(house: House, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Everything brought in at once, bad events sent into the middle of it."""
    folder = tmp_path_factory.mktemp("corpus")
    make_good(folder / "good")
    (folder / "bad").mkdir()
    # A folder named like a picture is a folder: what lies in it is brought in, which is nothing.
    cases = [case for case in make_corpus(folder / "bad") if case.name != "folder named .jpg"]
    # Hidden files of a folder are passed over, and some are not there at all: these are named one by one.
    named = [case.path for case in cases if case.path.name.startswith(".") or not _listed(case.path)]
    make_rows(folder / "rows")
    state = house.state.parts["worker"]
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        job = pool.submit(
            house.json,
            "ingest",
            folder / "good",
            folder / "bad",
            folder / "rows" / "rows.csv",
            folder / "rows" / "rows.jsonl",
            "--collection",
            "mixed",
            *named,
            expect=(3,),
        )
        until(
            "the stream is at work",
            lambda: job.done() or house.get("/api/status").json()["stages"][0]["done"] >= 10,
            90,
            house.logs,
        )
        if job.done():
            raise AssertionError(f"the ingest ended at once: {job.result()}")
        known = next(key.split("/")[1] for key in house.all_keys("items/"))
        events = bad_events(known)
        sent = send(house, events)
        reports = job.result()
    print(f"{len(reports)} files in {time.monotonic() - begun:.1f} s")
    result = Found(
        house, cases, {report["file"]: report for report in reports}, set(), {"pid": state.pid, "events": events}
    )
    result.before["sent"] = sent
    return result


def _listed(path: Path) -> bool:
    return path.name in {each.name for each in path.parent.iterdir()}


def test_every_bad_file_has_its_end_and_its_reason(found: Found) -> None:
    assert len(found.cases) >= 60
    wrong = []
    for case in found.cases:
        report = found.reports.get(printable(case.path.name))
        if report is None:
            wrong.append(f"{case.name}: no report")
        elif case.expectation == "refused":
            plain = report["outcome"] == "refused" and case.reason_contains.lower() in report["reason"].lower()
            if not plain or not report["advice"]:
                wrong.append(f"{case.name}: {report}")
        elif report["outcome"] not in ("new", "joined", "known", "changed"):
            wrong.append(f"{case.name}: {report}")
    assert not wrong, "\n".join(wrong)


def test_every_good_item_comes_through(found: Found) -> None:
    good = [report for name, report in found.reports.items() if re.fullmatch(r"good-\d+\.(jpg|wav)", name)]
    assert len(good) == GOOD_PICTURES + GOOD_TRACKS
    assert {report["outcome"] for report in good} == {"new"}
    letters = found.house.json("dead-letters", "list")
    brought = {report["item"] for report in found.reports.values() if report["item"]}
    assert [
        letter
        for letter in letters
        if letter["item"] in brought and letter["generation"] == 0 and letter["revision"] == 1
    ] == [], letters
    counts = found.house.json("status")["counts"]
    for stage in counts["stages"]:
        assert (stage["done"], stage["waiting"], stage["failed"]) == (len(brought), 0, 0), counts
    pairs = found.house.json("pairs")["pairs"]
    assert len(pairs) == sum(item.startswith("track") for item in brought)
    # The worker that began is the one that ended: nothing killed it.
    parts = found.house.state.parts
    assert parts["worker"].pid == found.before["pid"]
    assert {name: part.restarts for name, part in parts.items()} == dict.fromkeys(parts, 0)


def test_every_bad_row_is_named_with_its_line(found: Found, tmp_path: Path) -> None:
    for beginning, words in make_rows(tmp_path / "rows").items():
        report = next((each for name, each in found.reports.items() if name.startswith(beginning)), None)
        assert report is not None, (beginning, sorted(found.reports))
        assert report["outcome"] == "refused", report
        assert words in report["reason"], report
    titles = {
        name: found.house.json("show", report["item"])["catalogue"]
        for name, report in found.reports.items()
        if name.startswith("row ") and report["item"]
    }
    assert titles["row 2, good.jpg"] == {"title": "Títle “with” signs; 木"}
    assert titles["row 3, good.jpg"] == {"title": "line separator", "year": "1901"}


def test_every_bad_event_is_set_aside_with_its_reason(found: Found) -> None:
    house, sent = found.house, found.before["sent"]
    events: list[tuple[str, type[Event], bytes | None, str]] = found.before["events"]
    assert len(found.cases) + len(events) >= 80
    waiting = {what: place for what, (how, place) in sent.items() if how == "sent"}
    # Only what no broker should carry may be refused by it.
    assert set(sent) - set(waiting) <= {"5 MB", "more than 64 KiB"}, sent

    def letters() -> dict[str, Mapping[str, Any]]:
        # The same item may be set aside at the same stage and revision once only; the newest letter stays.
        return {letter["key"]: letter for letter in house.json("dead-letters", "list")}

    def missing() -> list[str]:
        texts = list(letters().items())
        lacking = []
        for what, _, _, words in events:
            if what not in waiting:
                continue
            place = waiting[what]
            mine = [letter for key, letter in texts if f"/{place}-" in key] or [
                letter for key, letter in texts if key.startswith("items/") and words in letter["reason"]
            ]
            if not mine or not any(words in letter["reason"] for letter in mine):
                lacking.append(f"{what}: {mine}")
        return lacking

    until("every bad event has its dead letter", lambda: not missing(), 60, lambda: f"{missing()}\n{house.logs()}")
    for key, letter in letters().items():
        assert letter["reason"].strip()
        assert letter["stage"]
        if key.startswith("dead/"):
            # It cannot be read, so it cannot be announced again: that is said, and it can be dropped.
            continue
    unreadable = next(key for key in letters() if key.startswith("dead/events/"))
    assert "could not be read" in house("dead-letters", "retry", unreadable, expect=(1,)).err
    shown = json.loads(house("dead-letters", "show", unreadable).out)
    assert shown["reason"] == letters()[unreadable]["reason"]
    house("dead-letters", "drop", "--all")
    assert house.json("dead-letters", "list") == []
    # What was said of items that never were is gone with their letters.
    assert not any(NOBODY in key for key in house.all_keys())


def test_every_bad_manifest_is_refused_as_a_whole(found: Found, tmp_path: Path) -> None:
    manifests = bad_manifests(tmp_path / "manifests")

    def refused(name: str) -> str:
        said = found.house("ingest", tmp_path / "manifests" / name, "--collection", "mixed", expect=(1,))
        assert "Traceback" not in said.err
        return said.err

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(manifests, pool.map(refused, manifests), strict=True))
    for name, words in manifests.items():
        assert words in answers[name], answers[name]
        assert name in answers[name]
