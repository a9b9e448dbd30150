"""Music on the embedded stack, through the command line and the API: asked, heard, kept, found, taken down; and what
killing its processes leaves.

The stack runs with the stand-in composer (see tests.music_standin), whose pace and troubles a test decides; the real
composer's way through the whole stack has a test of its own at the end.
"""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from promenade.samples import made
from tests.music_standin import profile
from tests.patience import patient
from tests.running import House, need_everything, until
from tests.serving_fixtures import REPOSITORY
from workers.spool import FRAME_BYTES, RATE

pytestmark = [pytest.mark.stack, pytest.mark.timeout(patient(240))]

PICTURES, TRACKS = 5, 3


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A stack with the stand-in composer."""
    need_everything()
    before = os.environ.get("PROMENADE_PROFILE")
    os.environ["PROMENADE_PROFILE"] = str(profile(tmp_path_factory.mktemp("profile")))
    house = House(tmp_path_factory.mktemp("house") / "data")
    try:
        house.up()
        yield house
    finally:
        print(house.logs())
        house.close()
        if before is None:
            del os.environ["PROMENADE_PROFILE"]
        else:
            os.environ["PROMENADE_PROFILE"] = before
        assert house.left_running() == []


@pytest.fixture(scope="module")
def pairs(house: House, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What hangs, best first."""
    folder = tmp_path_factory.mktemp("spring")
    made(folder, PICTURES, TRACKS, seed=5)
    house("ingest", folder / "manifest.csv", "--collection", "spring")
    found: list[dict[str, Any]] = house.json("pairs")["pairs"]
    assert len(found) == TRACKS
    return found


def address(house: House) -> str:
    return f"http://127.0.0.1:{house.first_port}"


def post(house: House, **body: Any) -> httpx.Response:
    return httpx.post(f"{address(house)}/api/music", json=body, timeout=patient(30), trust_env=False)


def keys_of(house: House, artwork: str, piece: str) -> set[str]:
    """Names in a piece's folder."""
    return {key.rpartition("/")[2] for key in house.all_keys(f"items/{artwork}/music/") if f"/{piece}/" in key}


WHOLE = {"piece.wav", "piece.ogg", "record.json"}


def test_ordinary_ingest_composes_nothing(house: House, pairs: list[dict[str, Any]]) -> None:
    assert house.json("music", "list") == []
    assert house.json("exhibition", "show", "default")["music"] == "on request"
    assert house.json("status")["counts"]["music"] == {"kept": 0, "waiting": 0, "failed": 0}
    assert "no music is composed" not in house("status").out


def test_a_person_composes_finds_and_deletes(house: House, pairs: list[dict[str, Any]], tmp_path: Path) -> None:
    artwork, track = pairs[0]["artwork"]["id"], pairs[0]["track"]["id"]
    for form in ("wav", "ogg"):
        out = tmp_path / f"piece.{form}"
        record = house.json(
            "compose", artwork[:16], "--seconds", "6", "--seed", "7", "--wish", "tempo=90", "--out", str(out)
        )
        assert (record["artwork"], record["track"], record["seed"]) == (artwork, track, 7)
        assert record["wishes"] == {"tempo": 90.0}
        assert len(record["similarities"]) >= 8
        with soundfile.SoundFile(out) as sound:
            assert (sound.samplerate, sound.channels, sound.frames) == (RATE, 2, 6 * RATE)
    # The second time it was there already.
    assert [each["piece"] for each in house.json("music", "list")] == [record["piece"]]
    assert house.json("music", "list", "--artwork", artwork[:16]) == house.json("music", "list")
    assert house.json("music", "show", record["piece"][:10])["report"]["key"] == "D"
    assert record["piece"] in house("music", "list").out
    assert "seed 7" in house("music", "show", record["piece"]).out
    assert house.json("music", "delete", record["piece"]) == {"piece": record["piece"], "state": "deleted"}
    assert house.json("music", "list") == []
    assert "no pieces begin" in house("music", "show", record["piece"], expect=(1,)).err


def test_every_composer_side_by_side(house: House, pairs: list[dict[str, Any]], tmp_path: Path) -> None:
    artwork = pairs[1]["artwork"]["id"]
    asked = ("compose", artwork, "--composer", "all", "--seconds", "5")
    made = house.json(*asked, "--out", str(tmp_path / "piece.wav"))
    assert [each["composer"] for each in made] == ["edge", "second"]
    assert len({each["piece"] for each in made}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["piece-edge.wav", "piece-second.wav"]
    said = house(*asked).out
    assert all(each["piece"] in said and each["composer"] in said for each in made)
    assert house.json("compose", artwork, "--composer", "second", "--seconds", "5")["piece"] == made[1]["piece"]
    assert "there are edge, second" in house("compose", artwork, "--composer", "third", expect=(1,)).err
    # Where one composer refuses what another makes, the others are heard all the same; here both refuse.
    refused = house("compose", artwork, "--composer", "all", "--wish", "smell=roses", expect=(1,)).err
    assert "edge: " in refused and "second: " in refused
    assert house.json("exhibition", "change", "default", "--composer", "second")["composer"] == "second"
    assert "by second" in house("exhibition", "show", "default").out
    assert house.json("exhibition", "change", "default", "--composer", "none")["composer"] is None
    assert "no composer 'third'" in house("exhibition", "change", "default", "--composer", "third", expect=(1,)).err
    for each in made:
        house("music", "delete", each["piece"])


def test_what_cannot_be_composed_is_said_in_plain_words(house: House, pairs: list[dict[str, Any]]) -> None:
    artwork, track = pairs[0]["artwork"]["id"], pairs[0]["track"]["id"]
    for arguments, words in (
        ((track,), "for pictures"),
        ((artwork, "--wish", "loud"), "--wish reads like"),
        ((artwork, "--seconds", "5", "--wish", "smell=roses"), "nobody knows smell"),
        (("artwork-" + "0" * 64,), "not here"),
    ):
        said = house("compose", *arguments, expect=(1,))
        assert words in said.err and "Traceback" not in said.err
    house("compose", artwork, "--seconds", "2", expect=(2,))
    house("compose", artwork, "--out", "piece.mp3", expect=(2,))
    said = house("play", pairs[2]["artwork"]["id"], expect=(1,)).err
    # Which of the two depends on the machine.
    assert "nothing was composed" in said or "nothing here plays sound" in said


def test_a_piece_is_heard_while_it_is_made(house: House, pairs: list[dict[str, Any]]) -> None:
    asked = post(house, artwork=pairs[0]["artwork"]["id"], seconds=12, wishes={"pace": 6}).json()
    begun = time.monotonic()
    first: float | None = None
    heard = 0
    with httpx.stream("GET", f"{address(house)}{asked['stream']}", timeout=patient(30), trust_env=False) as sound:
        for part in sound.iter_bytes():
            first = first or time.monotonic() - begun
            heard += len(part)
    whole = time.monotonic() - begun
    assert first is not None and first < whole / 2
    assert heard > 12 * RATE * FRAME_BYTES
    record = until(
        "kept",
        lambda: (answer := house.get(f"/api/music/{asked['piece']}")).status_code == 200 and answer.json(),
        60,
    )
    assert record["asked"] == "live"
    metrics = house.get("/metrics").text
    for name in ("first_chunk_seconds_count", "real_time_factor_count", "queue_seconds_count", "pieces_total"):
        assert f'promenade_music_{name}{{asked="live"' in metrics, name
    assert "promenade_music_live 0.0" in metrics


def test_a_composer_that_dies_gives_the_track_and_comes_back(house: House, pairs: list[dict[str, Any]]) -> None:
    artwork, track = pairs[0]["artwork"]["id"], pairs[0]["track"]["id"]
    asked = post(house, artwork=artwork, seconds=20, wishes={"die_after": 2, "pace": 20}).json()

    def ended() -> Any:
        answer = house.get(f"/api/music/{asked['piece']}")
        return answer.status_code == 503 and answer.json()

    failed = until("told of the dead composer", ended, 60)
    assert failed["instead"] == {"track": track, "audio": f"/api/items/{track}/audio"}
    assert "died" in failed["detail"] or "does not answer" in failed["detail"] or "not loaded" in failed["detail"]
    with soundfile.SoundFile(io.BytesIO(house.get(failed["instead"]["audio"]).content)) as sound:
        assert sound.frames > 0

    # The supervisor mends it, and music is composed again; whoever asks before that is told, and asks once more.
    def again() -> bool:
        post(house, artwork=artwork, seconds=5, seed=77)
        return any(each["seed"] == 77 for each in house.json("music", "list"))

    until("a piece again", again, 120)


def background(house: House, artwork: str, **how: Any) -> str:
    """Queue a piece; its id."""
    answer = post(house, artwork=artwork, background=True, **how)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["piece"])


def composing(house: House) -> bool:
    return bool(house.get("/api/waiting").json()["compose"]["in_flight"])


def test_a_worker_killed_while_it_composes_leaves_one_piece_and_nothing_else(
    house: House, pairs: list[dict[str, Any]]
) -> None:
    artwork = pairs[0]["artwork"]["id"]
    before = {each["piece"] for each in house.json("music", "list")}
    piece = background(house, artwork, seconds=30, wishes={"pace": 5})
    until("it is composed", lambda: composing(house), 60)
    time.sleep(1.0)
    pid = house.state.parts["worker"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("the piece", lambda: piece in {each["piece"] for each in house.json("music", "list")}, 150)
    assert {each["piece"] for each in house.json("music", "list")} == before | {piece}
    assert keys_of(house, artwork, piece) == WHOLE | {"request.json"}
    assert list((house.data / "spool").iterdir()) == []
    assert house.json("dead-letters", "list") == []


def test_a_withdrawal_while_it_is_composed_wins(house: House, pairs: list[dict[str, Any]]) -> None:
    artwork = pairs[2]["artwork"]["id"]
    piece = background(house, artwork, seconds=40, wishes={"pace": 5})
    until("it is composed", lambda: composing(house), 60)
    house("withdraw", artwork)
    until("it ends", lambda: not composing(house), 60)
    until(
        "nothing is left",
        lambda: house.all_keys(f"items/{artwork}/") == [f"items/{artwork}/tombstones/000000.json"],
        60,
    )
    assert house.get(f"/api/music/{piece}").status_code == 404
    assert all(each["artwork"] != artwork for each in house.json("music", "list"))


def test_a_wall_that_always_wants_music_gets_it(house: House, pairs: list[dict[str, Any]]) -> None:
    hung = {pair["artwork"]["id"] for pair in house.json("pairs")["pairs"]}
    assert hung
    assert house.json("exhibition", "change", "default", "--music", "always")["music"] == "always"

    def composed() -> bool:
        return hung <= {each["artwork"] for each in house.json("music", "list") if each["asked_seconds"] == 60}

    until("every picture on the wall has its music", composed, 120, lambda: house("status").out)
    said = house("exhibition", "change", "default", "--music", "sometimes", expect=(1,))
    assert "never" in said.err
    house("exhibition", "change", "default", "--music", "on request")


def test_pieces_are_found_with_nothing_up(house: House, pairs: list[dict[str, Any]]) -> None:
    before = house.json("music", "list")
    assert before
    house.down()
    assert house.json("music", "list") == before
    assert "nothing runs" in house("compose", before[0]["artwork"], expect=(1,)).err
    house.up()
    assert house.json("music", "list") == before


@pytest.mark.timeout(patient(420))
def test_the_real_composer_goes_the_whole_way(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMENADE_PROFILE", str(REPOSITORY.with_suffix(".toml")))
    need_everything()
    if not (REPOSITORY / "compose_music" / "1" / "model.py").exists():
        pytest.skip("the composer is not built: promenade models build")
    house = House(tmp_path_factory.mktemp("real") / "data")
    folder = tmp_path_factory.mktemp("two")
    made(folder, 2, 1, seed=9)
    try:
        house.up()
        house("ingest", folder / "manifest.csv", "--collection", "spring")
        house.json("exhibition", "change", "default", "--music", "always")
        hung = {pair["artwork"]["id"]: pair["track"]["id"] for pair in house.json("pairs")["pairs"]}
        until("its piece", lambda: len(house.json("music", "list")) == 1, 200, lambda: house("status").out)
        for record in house.json("music", "list"):
            assert hung[record["artwork"]] == record["track"]
            assert record["report"]["sections"] and record["feelings"]["words"]
            assert abs(record["seconds"] - 60) < 1
        # The same question again makes the same samples.
        artwork = next(iter(hung))
        first = house.json("compose", artwork, "--seconds", "8", "--seed", "3")
        wav = house.get(f"/api/music/{first['piece']}.wav").content
        house("music", "delete", first["piece"])
        again = house.json("compose", artwork, "--seconds", "8", "--seed", "3")
        assert again["piece"] == first["piece"]
        assert house.get(f"/api/music/{first['piece']}.wav").content == wav
    finally:
        print(house.logs())
        house.close()
    assert house.left_running() == []
