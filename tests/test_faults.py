"""kill -9 of every process of the embedded stack, at random moments of an ingest: nothing is lost, nothing doubled,
nothing left over.

The same files go through an undisturbed stack first; afterwards both folders are compared as a whole (records,
objects, vectors, pairs). The short form kills each process once; `make soak` goes ten rounds
(PROMENADE_SOAK_ROUNDS, PROMENADE_SOAK_ITEMS, PROMENADE_SOAK_SEED set it otherwise).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from infra.serving import triton
from promenade.samples import made
from promenade.supervisor import stack_state
from tests.patience import patient
from tests.running import House, clean_environment, differences, need_everything, started, until

pytestmark = pytest.mark.stack

VICTIMS: Final = ("worker", "broker", "store", "models", "stub", "supervisor")
STUBS: Final = ("measure_picture", "measure_sound", "caption_picture", "score_emotion", "embed_picture", "minilm")
"""Model processes that the ingest of pictures and tracks cannot do without."""


def wave_folders(folder: Path, waves: int, items: int) -> list[Path]:
    """Different files for each wave: about one track for four pictures."""
    tracks = max(1, items // 5)
    found = []
    for wave in range(waves):
        place = folder / f"wave-{wave}"
        made(place, items - tracks, tracks, seed=100 + wave)
        found.append(place)
    return found


def undisturbed(house: House, waves: list[Path]) -> dict[str, Any]:
    """What the files become when nothing happens to any process."""
    print(f"undisturbed: ready after {house.up():.1f} s")
    begun = time.monotonic()
    house("ingest", *waves, "--collection", "soak", timeout=900)
    print(f"undisturbed: {len(waves)} waves in {time.monotonic() - begun:.1f} s")
    house.down()
    assert house.left_running() == []
    return house.dump()


def kill(house: House, victim: str, chance: random.Random) -> str:
    """SIGKILL to one process of the stack; says which."""
    state = house.state
    if victim == "supervisor":
        os.kill(state.pid, signal.SIGKILL)
        return f"supervisor {state.pid}"
    if victim == "stub":
        server = state.parts["models"].pid
        found = triton.stubs(server) if server else {}
        model = chance.choice([name for name in STUBS if name in found])
        os.kill(found[model], signal.SIGKILL)
        return f"stub of {model} {found[model]}"
    pid = state.parts[victim].pid
    assert pid is not None, f"{victim} does not run: {state}"
    os.kill(pid, signal.SIGKILL)
    return f"{victim} {pid}"


def disturbed_wave(house: House, wave: Path, victim: str, chance: random.Random) -> None:
    """Bring a wave in and kill a process at a random moment of it; returns when all of it is through."""
    moment = chance.uniform(0.8, 4.5)
    ingest = subprocess.Popen(
        started("ingest", str(wave), "--collection", "soak", "--data", str(house.data)),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        time.sleep(moment)
        begun = time.monotonic()
        killed = kill(house, victim, chance)
        if victim == "supervisor":
            # All parts end with it; the ingest waits meanwhile.
            until("the supervisor is gone", lambda: not house.state.alive, 20)
            print(f"  ready after {house.up():.1f} s")
        said, _ = ingest.communicate(timeout=patient(170))
    except BaseException:
        ingest.kill()
        said, _ = ingest.communicate()
        print(f"killed {victim} after {moment:.2f} s; ingest said:\n{said}\n{house.logs()}")
        raise
    if ingest.returncode != 0:
        # It had not begun yet, and says so; whoever runs it again goes on where it stopped.
        assert "nothing runs" in said, f"{said}\n{house.logs()}"
        print(f"  the ingest had not begun: {said.strip()}")
        until("all parts are there again", lambda: _all_ready(house), 90, house.logs)
        house("ingest", wave, "--collection", "soak")
    print(f"  killed {killed} {moment:.2f} s after the ingest began; through {time.monotonic() - begun:.1f} s later")


def check_same(house: House, expected: dict[str, Any]) -> None:
    """Stop the stack and compare what lies in its folder."""
    until("the supervisor tells of all parts", lambda: _all_ready(house), 90, house.logs)
    print(f"  stopped after {house.down():.1f} s")
    assert house.left_running() == []
    found = house.dump()
    unlike = differences(expected, found)
    if unlike:
        print(house.logs(80))
    assert unlike == []
    assert found["dead letters"] == []
    assert found["attempt marks"] == []


def _all_ready(house: House) -> bool:
    state = stack_state(house.data)
    return state is not None and all(part.phase == "ready" for part in state.parts.values())


def one_round(folder: Path, waves: list[Path], expected: dict[str, Any], seed: int) -> None:
    """A fresh stack, each process killed once in random order, then the comparison."""
    chance = random.Random(seed)
    victims = chance.sample(VICTIMS, len(VICTIMS))
    print(f"seed {seed}: {', '.join(victims)}")
    house = House(folder)
    try:
        print(f"  ready after {house.up():.1f} s")
        for wave, victim in zip(waves, victims, strict=True):
            disturbed_wave(house, wave, victim, chance)
        check_same(house, expected)
    finally:
        house.close()


@pytest.fixture
def closing() -> Iterator[list[House]]:
    houses: list[House] = []
    yield houses
    for house in houses:
        house.close()


@pytest.mark.timeout(patient(420))
def test_each_process_may_be_killed_once(tmp_path: Path, closing: list[House]) -> None:
    need_everything()
    seed = int(os.environ.get("PROMENADE_SOAK_SEED", random.SystemRandom().randrange(10**6)))
    waves = wave_folders(tmp_path, len(VICTIMS), 6)
    closing.append(House(tmp_path / "undisturbed"))
    expected = undisturbed(closing[0], waves)
    one_round(tmp_path / "disturbed", waves, expected, seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_rounds_of_kills_leave_no_trace(tmp_path: Path, closing: list[House]) -> None:
    need_everything()
    rounds = int(os.environ.get("PROMENADE_SOAK_ROUNDS", "10"))
    items = int(os.environ.get("PROMENADE_SOAK_ITEMS", "60"))
    seed = int(os.environ.get("PROMENADE_SOAK_SEED", random.SystemRandom().randrange(10**6)))
    waves = wave_folders(tmp_path, len(VICTIMS), max(2, items // len(VICTIMS)))
    closing.append(House(tmp_path / "undisturbed"))
    expected = undisturbed(closing[0], waves)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}")
        one_round(tmp_path / f"round-{number}", waves, expected, seed + number)
