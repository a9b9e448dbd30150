"""The external mode: parts that somebody else runs, named by settings alone, and several worker processes on them.

The parts are the embedded ones, started apart from any supervisor, on their own ports and with their own
credentials; the workers know them from PROMENADE_ variables only. Also here: what happens when a part is away.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from promenade.clients import objects_of
from promenade.samples import made
from promenade.supervisor.processes import free_ports
from tests.patience import patient
from tests.running import Said, clean_environment, command, dump_records, need_everything, started, until
from tests.stack_fixtures import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(patient(300))]

PARTS = {"models": "model server", "store": "object store", "broker": "broker"}
AWAY_SECONDS = [pytest.param(8.0, id="8s"), pytest.param(30.0, id="30s", marks=pytest.mark.soak)]


class Worker:
    """A worker process."""

    def __init__(self, outside: Outside, name: str, stages: str | None) -> None:
        self.port = free_ports(1)
        self.log = outside.folder / f"{name}.log"
        self.outside = outside
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                started("worker", *(["--stages", stages] if stages else [])),
                env={**outside.environment, "PROMENADE_HTTP_PORT": str(self.port)},
                cwd=outside.folder,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> httpx.Response | None:
        """Ask it; None when it does not answer."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=patient(15), trust_env=False)
        except httpx.HTTPError:
            return None

    def ready(self) -> bool:
        """True when it consumes and reaches every part."""
        assert self.process.poll() is None, self.log.read_text()
        answer = self.get("/ready")
        return answer is not None and answer.status_code == 200

    def done(self, stage: str) -> float:
        """Items that it has brought through a stage itself."""
        answer = self.get("/metrics")
        found = re.search(
            rf'promenade_stage_events_total{{outcome="done",stage="{stage}"}} ([0-9.]+)',
            answer.text if answer else "",
        )
        return float(found[1]) if found else 0.0

    def waits_for(self) -> dict[str, set[str]]:
        """Stage -> parts that it waits for."""
        answer = self.get("/api/waiting")
        return {
            stage: {each["part"] for each in entry["waiting_for"]}
            for stage, entry in (answer.json() if answer else {}).items()
            if entry["waiting_for"]
        }

    def end(self, number: signal.Signals) -> tuple[int, float]:
        """Send a signal; exit status and seconds until the end."""
        begun = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(timeout=patient(60))
        return status, time.monotonic() - begun


class Outside:
    """The parts, and the workers that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = Stack(folder / "parts", ("store", "broker", "models"))
        settings = self.stack.settings
        self.environment = {
            **clean_environment(),
            **settings.environment(secrets=True),
            "PROMENADE_DATA": str(folder / "worker-data"),
            # Marks that killed workers left are swept by the others after this time.
            "PROMENADE_RECONCILE_SECONDS": "20",
            "PROMENADE_LOG": "INFO",
        }
        self.workers: list[Worker] = []

    def __call__(self, *arguments: str | Path, **options: Any) -> Said:
        """A command of a person who has set the same variables."""
        environment = {**self.environment}
        if self.workers:
            environment["PROMENADE_HTTP_PORT"] = str(self.workers[-1].port)
        return command(*arguments, environment=environment, **options)

    def worker(self, name: str, stages: str | None = None) -> Worker:
        """Start one."""
        self.workers.append(Worker(self, name, stages))
        return self.workers[-1]

    def ready(self) -> None:
        """Wait until all workers are."""
        for worker in self.workers:
            until(f"{worker.log.stem} is ready", worker.ready, 90, self.logs)

    def logs(self) -> str:
        """What the workers said last."""
        return "\n".join(
            f"--- {path.name} ---\n" + "\n".join(path.read_text(errors="replace").splitlines()[-40:])
            for path in sorted(self.folder.glob("*.log"))
        )

    def status(self) -> dict[str, Any]:
        """Counts out of the records."""
        counts: dict[str, Any] = json.loads(self("status", "--json").out)["counts"]
        return counts

    def records(self) -> dict[str, Any]:
        """Everything in the object store."""

        async def work() -> dict[str, Any]:
            objects = objects_of(self.stack.settings)
            try:
                return await dump_records(objects)
            finally:
                objects.close()

        return asyncio.run(work())

    def dismiss(self) -> None:
        """End all workers."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.workers.clear()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Parts that nobody supervises."""
    need_everything()
    outside = Outside(tmp_path_factory.mktemp("outside"))
    try:
        yield outside
    finally:
        outside.dismiss()
        outside.stack.close()


@pytest.fixture
def crew(outside: Outside) -> Iterator[Outside]:
    """The parts, all of them up; workers end with the test."""
    yield outside
    outside.dismiss()
    for part, runner in outside.stack.parts.runners.items():
        if not runner.running:
            outside.stack.wait(outside.stack.parts.start(part))


def check_whole(outside: Outside, folder: Path, collection: str) -> None:
    """Every file of the collection is through, once, and nothing is left over."""
    found = until(
        "attempt marks are swept",
        lambda: not (found := outside.records())["attempt marks"] and found,
        90,
        lambda: f"{outside.records()['attempt marks']}\n{outside.logs()}",
    )
    mine = {item: entry for item, entry in found["items"].items() if collection in entry["memberships"]}
    files = [path for path in folder.iterdir() if path.suffix in (".jpg", ".flac")]
    assert len(mine) == len(files)
    for item, entry in mine.items():
        assert entry.keys() >= {"caption", "score", "embed", "index"}, (item, outside.logs())
        assert found["members"][item] == "000000.000001"
        keys = sorted(
            key.split("/")[2] + key.split("/")[3][:1] for key in found["keys"] if key.startswith(f"items/{item}/")
        )
        assert keys == ["memberships0", "resultsc", "resultse", "resultsi", "resultss", "revisions0"]
    assert found["dead letters"] == []
    pairs = [pair.split() for pair in found["pairs"]]
    assert len(pairs) == min(sum(item[0] == kind for item in found["members"]) for kind in "at")
    assert len({artwork for artwork, _ in pairs}) == len({track for _, track in pairs}) == len(pairs)


def brought_in(folder: Path, pictures: int, tracks: int, seed: int) -> Path:
    made(folder, pictures, tracks, seed=seed)
    return folder


def test_workers_share_the_work_and_two_may_go_midway(crew: Outside, tmp_path: Path) -> None:
    files = brought_in(tmp_path / "files", 40, 8, 21)
    assert "topics" in crew("prepare").err
    assert "0 made" in crew("prepare").err
    first = crew.worker("first", "caption,score,embed")
    second = crew.worker("second", "caption,score,embed")
    last = crew.worker("last", "index,pair")
    crew.ready()
    ingest = subprocess.Popen(
        started("ingest", str(files), "--collection", "shared"),
        env={**crew.environment, "PROMENADE_HTTP_PORT": str(last.port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(
            "both have captioned", lambda: first.done("caption") >= 3 and second.done("caption") >= 3, 90, crew.logs
        )
        assert first.done("index") == second.done("index") == last.done("caption") == 0
        assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
        until("the other goes on", lambda: second.done("caption") >= 8, 90, crew.logs)
        crew.worker("third", "caption,score,embed")
        status, seconds = second.end(signal.SIGTERM)
        print(f"a worker at work stopped in {seconds:.1f} s")
        assert (status, seconds < patient(10)) == (0, True), crew.logs()
        said, _ = ingest.communicate(timeout=patient(150))
    except BaseException:
        ingest.kill()
        print(ingest.communicate()[0], crew.logs())
        raise
    assert ingest.returncode == 0, said
    # The process that holds the index answers searches; the others say that they cannot.
    answer = last.get("/api/search?text=a quiet sea&kind=track")
    assert answer is None or answer.status_code in (200, 503)
    check_whole(crew, files, "shared")


@pytest.mark.parametrize("seconds", AWAY_SECONDS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_away_is_waited_for_visibly(crew: Outside, tmp_path: Path, part: str, seconds: float) -> None:
    files = brought_in(tmp_path / "files", 24, 2, int(31 + 3 * seconds + list(PARTS).index(part)))
    collection = f"away-{part}-{seconds:.0f}"
    crew("prepare")
    worker = crew.worker(collection)
    crew.ready()
    # The models stand still while the files come in, so that there is work in hand when the part goes.
    crew.stack.wait(crew.stack.parts.pause("models"))
    crew("ingest", files, "--collection", collection, "--no-wait")
    until("events are in hand", lambda: in_hand(worker), 60, crew.logs)
    if part == "models":
        crew.stack.wait(crew.stack.parts.resume("models"))
    crew.stack.wait(crew.stack.parts.kill(part))
    if part != "models":
        crew.stack.wait(crew.stack.parts.resume("models"))
    gone = time.monotonic()
    waiting = until(
        f"a stage waits for the {PARTS[part]}",
        lambda: (found := worker.waits_for()) and any(PARTS[part] in parts for parts in found.values()) and found,
        60,
        crew.logs,
    )
    print(f"{part} away: {waiting} after {time.monotonic() - gone:.1f} s")
    told = json.loads(crew("status", "--json").out)
    assert any(
        each["part"] == PARTS[part] and each["reason"]
        for entry in told["waiting"].values()
        for each in entry["waiting_for"]
    ), told
    assert PARTS[part] in crew("status", expect=(0, 1)).out
    assert worker.get("/health") is not None
    if part != "broker":
        answer = worker.get("/ready")
        assert answer is not None
        assert answer.status_code == 503
    time.sleep(max(0.0, seconds - (time.monotonic() - gone)))
    assert worker.process.poll() is None, crew.logs()
    crew.stack.wait(crew.stack.parts.start(part))
    back = time.monotonic()
    until("the stages go on by themselves", lambda: _through(crew, worker), 100, crew.logs)
    print(f"{part}: all through {time.monotonic() - back:.1f} s after it was back")
    assert worker.waits_for() == {}
    check_whole(crew, files, collection)


def in_hand(worker: Worker) -> bool:
    answer = worker.get("/api/waiting")
    return answer is not None and any(stage["in_flight"] for stage in answer.json().values())


def _through(crew: Outside, worker: Worker) -> bool:
    answer = worker.get("/api/status")
    if answer is None or answer.status_code != 200:
        return False
    return not any(stage["waiting"] for stage in answer.json()["stages"])


def waiting_worker(crew: Outside, files: Path, collection: str) -> Worker:
    """A worker that has events in hand and waits for the models, which are away."""
    crew("prepare")
    worker = crew.worker(collection)
    crew.ready()
    crew.stack.wait(crew.stack.parts.kill("models"))
    crew("ingest", files, "--collection", collection, "--no-wait")
    until("it waits", lambda: "model server" in worker.waits_for().get("caption", ()), 60, crew.logs)
    return worker


def test_a_stop_during_a_wait_is_quick_and_loses_nothing(crew: Outside, tmp_path: Path) -> None:
    files = brought_in(tmp_path / "files", 8, 1, 41)
    worker = waiting_worker(crew, files, "stopped")
    status, seconds = worker.end(signal.SIGTERM)
    print(f"a waiting worker stopped in {seconds:.1f} s")
    assert (status, seconds < patient(10)) == (0, True), crew.logs()
    crew.workers.clear()
    crew.stack.wait(crew.stack.parts.start("models"))
    worker = crew.worker("stopped-again")
    crew.ready()
    until("all is through", lambda: _through(crew, worker), 100, crew.logs)
    check_whole(crew, files, "stopped")


def test_a_rebalance_during_a_wait_loses_nothing(crew: Outside, tmp_path: Path) -> None:
    files = brought_in(tmp_path / "files", 16, 2, 51)
    worker = waiting_worker(crew, files, "rebalanced")
    other = crew.worker("rebalanced-other", "caption,score,embed")
    until(
        "the other waits too, for what was the first one's",
        lambda: "model server" in other.waits_for().get("caption", ()),
        60,
        crew.logs,
    )
    crew.stack.wait(crew.stack.parts.start("models"))
    until("all is through", lambda: _through(crew, worker), 100, crew.logs)
    assert other.done("caption") > 0
    check_whole(crew, files, "rebalanced")


@pytest.mark.parametrize("leader_first", [False, True], ids=["leader last", "leader first"])
def test_workers_that_stop_together_leave_a_group_that_others_can_join(crew: Outside, leader_first: bool) -> None:
    crew("prepare")
    workers = [crew.worker(f"leaving-{leader_first}-{number}", "caption,score,embed") for number in range(2)]
    crew.ready()
    leads = [worker for worker in workers if "Elected group leader" in worker.log.read_text()]
    assert leads, crew.logs()
    # The one that was elected last leads.
    leader = max(leads, key=lambda worker: re.findall(r"(\S+ \S+) INFO .*Elected group", worker.log.read_text())[-1])
    follower = workers[1 - workers.index(leader)]
    order = (leader, follower) if leader_first else (follower, leader)
    for worker in order:
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert [worker.process.wait(timeout=patient(20)) for worker in order] == [0, 0], crew.logs()
    crew.workers.clear()
    crew.worker(f"joining-{leader_first}")
    crew.ready()


def test_an_ingest_that_begins_while_the_store_is_away_waits_for_it(crew: Outside, tmp_path: Path) -> None:
    files = brought_in(tmp_path / "files", 2, 1, 61)
    crew("prepare")
    crew.stack.wait(crew.stack.parts.kill("store"))
    # A short command says what is away, and ends.
    assert "the object store is away: " in crew("reconcile", expect=(1,)).err
    log = tmp_path / "ingest.log"
    with log.open("w") as said:
        ingest = subprocess.Popen(
            started("ingest", str(files), "--collection", "early", "--no-wait"),
            env=crew.environment,
            stdout=said,
            stderr=said,
        )
    try:
        until("it says so", lambda: "waiting for the object store: " in log.read_text(), 60, log.read_text)
        crew.stack.wait(crew.stack.parts.start("store"))
        assert ingest.wait(timeout=patient(60)) == 0, log.read_text()
    finally:
        ingest.kill()
    found = crew.records()["items"]
    assert sum("early" in entry["memberships"] for entry in found.values()) == 3
