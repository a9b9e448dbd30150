"""The main job on the real embedded parts, through the command line: in, understood, paired, found, taken down.

One stack serves most tests, in the order in which they stand here; each brings in files of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from promenade.samples import made
from tests.patience import patient
from tests.running import House, clean_environment, command, differences, need_everything, started, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(patient(240))]

PICTURES, TRACKS = 10, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More files than any one test needs, painted and composed."""
    folder = tmp_path_factory.mktemp("files")
    made(folder, 24, 6, seed=11)
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A stack that is up, with nothing in it at first."""
    need_everything()
    house = House(tmp_path_factory.mktemp("house") / "data")
    print(f"ready after {house.up():.1f} s")
    try:
        yield house
    finally:
        print(house.logs())
        house.close()
        assert house.left_running() == []


def chosen(files: Path, folder: Path, *names: str) -> Path:
    """A folder of its own with some of the files."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(files / name, folder / name)
    return folder


def ids(reports: list[dict[str, Any]]) -> list[str]:
    return [report["item"] for report in reports]


@pytest.fixture(scope="module")
def spring(house: House, files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The reports of a first collection, brought in by its manifest."""
    folder = tmp_path_factory.mktemp("spring")
    made(folder, PICTURES, TRACKS, seed=11)
    reports: list[dict[str, Any]] = house.json("ingest", folder / "manifest.csv", "--collection", "spring")
    return reports


def test_what_is_brought_in_is_understood_and_paired(house: House, spring: list[dict[str, Any]]) -> None:
    assert [report["outcome"] for report in spring] == ["new"] * (PICTURES + TRACKS)
    assert len(set(ids(spring))) == PICTURES + TRACKS

    status = house.json("status")
    assert status["stack"]["phase"] == "up"
    assert {name for name, part in status["stack"]["parts"].items() if part["phase"] == "ready"} == {
        "store",
        "broker",
        "models",
        "worker",
    }
    counts = status["counts"]
    for stage in counts["stages"]:
        assert (stage["done"], stage["waiting"], stage["failed"]) == (PICTURES + TRACKS, 0, 0), stage
    assert counts["collections"]["spring"] == {"artwork": PICTURES, "track": TRACKS}
    assert counts["dead_letters"] == 0
    assert counts["pairs"] == {"default": TRACKS}

    pairs = house.json("pairs")
    assert len(pairs["pairs"]) == TRACKS
    assert len({pair["artwork"]["id"] for pair in pairs["pairs"]}) == TRACKS
    assert {pair["track"]["id"] for pair in pairs["pairs"]} == {each for each in ids(spring) if each[0] == "t"}
    assert pairs["unpaired_artworks"] == PICTURES - TRACKS
    similarities = [pair["similarity"] for pair in pairs["pairs"]]
    assert similarities == sorted(similarities, reverse=True)
    assert pairs["mean_similarity"] >= pairs["chance_similarity"]
    assert house.get("/api/pairs").json() == pairs


def test_an_item_is_shown_whole(house: House, spring: list[dict[str, Any]]) -> None:
    for kind in ("artwork", "track"):
        item = next(each for each in ids(spring) if each.startswith(kind))
        # Enough of its beginning names it.
        view = house.json("show", item[: len(kind) + 13])
        assert view["id"] == item
        assert view["stages"] == dict.fromkeys(("caption", "score", "embed", "index"), "done")
        assert view["collections"] == ["spring"]
        assert view["catalogue"]["title"]
        assert len(view["parts"]) == 5
        for part in view["parts"]:
            assert len(part["caption"].split()) >= 4
            assert all(0 <= channel <= 255 for channel in part["rgb"])
            assert 0 <= part["valence"] <= 1
            assert 0 <= part["arousal"] <= 1
        for stage, models in (("caption", f"caption_{'picture' if kind == 'artwork' else 'sound'}"),):
            assert view["provenance"][stage]["models"][models]
        assert house.get(f"/api/items/{item}").json() == view
    text = house("show", item).out
    assert view["catalogue"]["title"] in text


def test_words_find_pictures_and_tracks(house: House, spring: list[dict[str, Any]]) -> None:
    found = house.json("search", "a dark, calm picture with little movement", "--limit", "3")
    assert set(found) == {"artwork", "track"}
    for kind, hits in found.items():
        assert len(hits) == 3
        assert all(hit["item"].startswith(kind) and hit["item"] in ids(spring) for hit in hits)
        assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
        assert hits[0]["similarity"] > hits[0]["chance"] and hits[0]["percentile"] > 50, "the best beats most others"
    only = house.json("search", "music", "--kind", "track", "--limit", "1")
    assert list(only) == ["track"]
    caption = house.json("show", spring[0]["item"])["parts"][-1]["caption"]
    kind = spring[0]["item"].split("-")[0]
    # Its own caption finds the item first of all.
    assert house.json("search", caption, "--kind", kind, "--limit", "1")[kind][0]["item"] == spring[0]["item"]


def test_an_item_has_others_of_its_kind_that_are_like_it(house: House, spring: list[dict[str, Any]]) -> None:
    item = next(report["item"] for report in spring if report["item"].startswith("artwork"))
    found = house.json("similar", item, "--limit", "3")
    assert len(found) == 3 and item not in [hit["item"] for hit in found]
    assert all(hit["item"].startswith("artwork") and hit["item"] in ids(spring) for hit in found)
    assert [hit["similarity"] for hit in found] == sorted((hit["similarity"] for hit in found), reverse=True)
    assert house.get(f"/api/similar/artwork-{'0' * 64}").status_code == 404


def test_bringing_the_same_in_again_changes_nothing(house: House, files: Path, spring: list[dict[str, Any]]) -> None:
    keys = house.all_keys()
    names = [report["file"] for report in spring]
    folder = files.parent / "once-more"
    folder.mkdir()
    for name in names:
        shutil.copy(files / Path(name).name, folder)
    shutil.copy(files / "manifest.csv", folder / "all.csv")
    rows = (folder / "all.csv").read_text().splitlines()
    kept = [rows[0], *(row for row in rows[1:] if row.split(",")[0] in names)]
    (folder / "manifest.csv").write_text("\n".join(kept) + "\n")
    (folder / "all.csv").unlink()
    reports = house.json("ingest", folder, "--collection", "spring")
    assert {report["outcome"] for report in reports} == {"known"}
    assert house.all_keys() == keys


def test_the_same_bytes_in_two_collections_are_one_item(
    house: House, files: Path, spring: list[dict[str, Any]]
) -> None:
    folder = files.parent / "twice"
    first = Path(spring[0]["file"]).name
    chosen(files, folder, first)
    (folder / "manifest.jsonl").write_text(
        json.dumps({"file": first, "title": "An earlier title", "artist": "Somebody Else", "licence": "CC0"}) + "\n"
    )
    reports = house.json("ingest", folder, "--collection", "autumn")
    assert [(each["item"], each["outcome"]) for each in reports] == [(spring[0]["item"], "joined")]
    view = house.json("show", spring[0]["item"])
    assert view["collections"] == ["autumn", "spring"]
    counts = house.json("status")["counts"]
    assert sum(counts["items"].values()) == PICTURES + TRACKS
    assert counts["collections"]["autumn"]["artwork"] + counts["collections"]["autumn"]["track"] == 1

    # Leaving a collection is no takedown: the item stays, in the other one, as it was before.
    said = house("collection", "remove", "autumn", spring[0]["item"])
    assert "left autumn" in said.err
    until(
        "the item is understood anew",
        lambda: (
            house.get("/api/status").json()["stages"][-1]["waiting"] == 0
            and house.get(f"/api/items/{spring[0]['item']}").json()["stages"]["index"] == "done"
        ),
        60,
        house.logs,
    )
    view = house.json("show", spring[0]["item"])
    assert view["collections"] == ["spring"]
    assert "autumn" not in house.json("status")["counts"]["collections"]
    house("collection", "remove", "autumn", spring[0]["item"], expect=(1,))


def test_what_is_withdrawn_is_gone_everywhere_and_stays_away(house: House, files: Path) -> None:
    names = ["picture-00021.jpg", "track-0005.flac"]
    folder = chosen(files, files.parent / "regretted", *names)
    before = house.json("pairs")
    reports = house.json("ingest", folder, "--collection", "regretted")
    assert {each["outcome"] for each in reports} == {"new"}
    for item in ids(reports):
        said = house("withdraw", item, "--reason", "the painter asked for it")
        assert item in said.err
    until(
        "the stores forget",
        lambda: (
            all(
                [key for key in house.all_keys() if item.split("-")[1] in key]
                == [f"items/{item}/tombstones/000000.json"]
                for item in ids(reports)
            )
            and house.get("/api/status").json()["stages"][-1]["waiting"] == 0
        ),
        60,
        lambda: "\n".join(house.all_keys()) + house.logs(),
    )
    assert house.json("pairs")["pairs"] == before["pairs"]
    for item in ids(reports):
        kind = item.split("-")[0]
        hits = house.json("search", "anything at all", "--kind", kind, "--limit", "100")[kind]
        assert item not in [hit["item"] for hit in hits]
        assert "was withdrawn" in house("show", item, expect=(1,)).err
        assert "withdrawn before" in house("withdraw", item, expect=(1,)).err

    # A second ingest does not bring it back by mistake ...
    refused = house.json("ingest", folder, "--collection", "regretted", expect=(3,))
    assert {each["outcome"] for each in refused} == {"withdrawn"}
    assert all("--again" in each["advice"] for each in refused)
    # ... a deliberate one does, as a new generation.
    again = house.json("ingest", folder, "--collection", "regretted", "--again")
    assert {each["outcome"] for each in again} == {"new"}
    assert sorted(ids(again)) == sorted(ids(reports))
    for item in ids(again):
        view = house.json("show", item)
        assert view["version"].startswith("000001.")
        assert view["stages"]["index"] == "done"


def test_a_folder_that_fills_up_is_watched(house: House, files: Path) -> None:
    folder = files.parent / "inbox"
    folder.mkdir()
    shutil.copy(files / "picture-00022.jpg", folder)
    watcher = subprocess.Popen(
        started("watch", str(folder), "--collection", "inbox", "--data", str(house.data)),
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:

        def there() -> int:
            counts = house.get("/api/status").json()["collections"].get("inbox", {"artwork": 0, "track": 0})
            return int(counts["artwork"] + counts["track"])

        until("what lay there is brought in", lambda: there() == 1, 60, house.logs)
        (folder / "later").mkdir()
        content = (files / "picture-00023.jpg").read_bytes()
        with (folder / "later" / "slow.jpg").open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            until("a while passes", lambda: True, 1)
            file.write(content[len(content) // 2 :])
        (folder / "track.part").write_bytes((files / "track-0006.flac").read_bytes())
        (folder / "track.part").rename(folder / "track.flac")
        until("what came later is brought in", lambda: there() == 3, 60, house.logs)
    finally:
        watcher.send_signal(signal.SIGINT)
        _, said = watcher.communicate(timeout=patient(30))
    assert watcher.returncode in (0, 130), said
    assert "Traceback" not in said
    assert there() == 3


def test_nothing_was_set_aside_and_reconcile_finds_nothing(house: House, spring: list[dict[str, Any]]) -> None:
    house.settle()
    assert house.json("dead-letters", "list") == []
    assert house.json("reconcile") == {}
    assert house.all_keys("attempts/") == []


def test_health_readiness_and_metrics_are_there(house: House, spring: list[dict[str, Any]]) -> None:
    assert house.get("/health").status_code == 200
    ready = house.get("/ready")
    assert (ready.status_code, ready.json()["missing"]) == (200, {})
    page = house.get("/metrics").text
    for stage in ("caption", "score", "embed", "index", "pair"):
        done = re.search(rf'promenade_stage_events_total{{outcome="done",stage="{stage}"}} ([0-9.]+)', page)
        assert done is not None, page[:3000]
        assert float(done[1]) >= 1
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert families["promenade_model_requests"].type == "counter"
    served, mean = families["promenade_model_requests"], families["promenade_model_batch_items"]
    requests = {each.labels["model"]: each.value for each in served.samples}
    assert requests["caption_picture"] >= PICTURES
    sizes = {each.name: each.value for each in mean.samples if each.labels == {"model": "caption_picture"}}
    # A request holds an item or more, and an execution a request or more.
    assert sizes["promenade_model_batch_items_count"] <= requests["caption_picture"]
    assert sizes["promenade_model_batch_items_sum"] >= requests["caption_picture"]
    assert house.get("/api/items/artwork-0").status_code == 404
    assert house.get("/api/search").status_code == 422


def test_a_second_up_says_what_holds_the_folder(house: House, spring: list[dict[str, Any]]) -> None:
    said = house("up", "--detach", expect=(1,))
    assert str(house.state.pid) in said.err
    assert "promenade down" in said.err
    said = house("compact", expect=(1,))
    assert "promenade down" in said.err


def test_usage_errors_end_with_2(house: House) -> None:
    assert "no name for a collection" in house("ingest", ".", "--collection", "Übung", expect=(2,)).err
    house("dead-letters", "retry", expect=(2,))
    house("show", expect=(2,))
    assert "is no item id" in house("show", "../../etc", expect=(1,)).err


def test_reading_works_with_the_stack_down_and_changing_says_so(house: House, spring: list[dict[str, Any]]) -> None:
    pairs, item = house.json("pairs"), house.json("show", spring[0]["item"])
    counts = house.json("status")["counts"]
    print(f"stopped after {house.down():.1f} s")
    assert house.left_running() == []
    assert house.json("pairs") == pairs
    assert house.json("show", spring[0]["item"]) == item
    status = house.json("status")
    assert status["stack"]["alive"] is False
    assert [{**each, "per_second": 0} for each in status["counts"]["stages"]] == [
        {**each, "per_second": 0} for each in counts["stages"]
    ]
    assert house.json("dead-letters", "list") == []
    assert "nothing runs" in house("status").out
    for arguments in (["search", "sea"], ["ingest", "."], ["withdraw", spring[0]["item"]], ["reconcile"]):
        more = ["--collection", "spring"] if arguments[0] == "ingest" else []
        assert "promenade up" in house(*arguments, *more, expect=(1,)).err
    assert house.left_running() == []


def test_compacting_forgets_the_events_and_nothing_else(
    house: House, files: Path, spring: list[dict[str, Any]]
) -> None:
    """Runs with the stack down, as the test before left it."""
    before = house.dump()
    said = house("compact", "--json")
    assert "topics removed" in said.err
    told = json.loads(said.out)
    assert told["removed"] == told["made"] != []
    print(f"ready after {house.up():.1f} s")
    # The old work is not done again, new work is done.
    folder = chosen(files, files.parent / "after", "picture-00024.jpg")
    reports = house.json("ingest", folder, "--collection", "after")
    assert {each["outcome"] for each in reports} == {"new"}
    assert house.json("show", reports[0]["item"])["stages"]["index"] == "done"
    house("withdraw", reports[0]["item"])
    until(
        "the stores forget",
        lambda: len([key for key in house.all_keys() if reports[0]["item"].split("-")[1] in key]) == 1,
        60,
        house.logs,
    )
    # The records go before the exhibitions have heard of it.
    house.settle()
    house.down()
    # A second time, everything that was ever written of the picture leaves the disk; nothing else does.
    original = (folder / "picture-00024.jpg").read_bytes()
    trace = original[len(original) // 2 :][:64]
    assert files_with(house.data, trace) != []
    assert json.loads(house("compact", "--json").out)["freed_bytes"] >= len(original)
    assert files_with(house.data, trace) == []
    after = house.dump()
    after["items"].pop(reports[0]["item"])
    after["keys"].remove(f"items/{reports[0]['item']}/tombstones/000000.json")
    assert differences(before, after) == []


def files_with(folder: Path, trace: bytes) -> list[Path]:
    """Every file below the folder that holds these bytes."""
    return [path for path in folder.rglob("*") if path.is_file() and trace in path.read_bytes()]


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    for arguments in (["pairs"], ["status"], ["show", "artwork-0000"], ["dead-letters", "list"]):
        said = command(*arguments, data=tmp_path / "nothing", expect=(1,))
        assert "promenade up" in said.err
        assert "Traceback" not in said.err
    assert not (tmp_path / "nothing").exists()
