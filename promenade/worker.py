"""The composition root of a worker process: builds the clients once, hands them to the chosen stages, and runs
Faust and the HTTP API in one event loop.

Any process may run any stages; the ones that write to the vector store (index, and with it withdraw) and pair
belong in one process where the vector store is a local folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import uvicorn

from gallery.api import Reach, make_api
from gallery.music import LiveMusic
from infra.broker import Connection, Topics, reachable
from infra.inference import Inference
from infra.metrics import CaptionMetrics
from infra.objects import Objects
from infra.records import Records
from infra.vectors import Vectors
from promenade.clients import connection_of, objects_of
from promenade.profile import read_profile
from promenade.settings import Settings
from schemas.events import EVENT_OF_STAGE, Event, MusicRequested, PairingCommand, Withdrawn
from schemas.failures import Passing, Refused
from schemas.profile import Profile
from schemas.records import Stage
from streams.application import Application
from streams.compose import Asker, ComposeHandler
from streams.exhibitions import ready_commands
from streams.ingest import load_rendition
from streams.items import ItemHandler
from streams.pairing import PairHandler
from streams.pipeline import PIPELINE
from streams.runner import StageRunner
from streams.upkeep import WITHDRAW, Reconciler, WithdrawHandler, mend_index, undo_and_tell
from workers.compose import Studio
from workers.contract import Tools
from workers.media.pool import DecoderPool

log = logging.getLogger(__name__)

ALL_STAGES: Final = tuple(stage.value for stage in Stage)
STANDSTILL_SECONDS: Final = 180.0
"""A consumer that takes nothing although its items were announced again this long ago stands still (seen with
Kafka consumers after a rebalance); the process then ends itself and is started anew."""


@dataclass(slots=True)
class Clients:
    """The outside parts of one process."""

    objects: Objects
    records: Records
    inference: Inference
    profile: Profile
    connection: Connection


def clients_of(settings: Settings) -> Clients:
    """Build the clients of a process."""
    objects = objects_of(settings)
    profile = read_profile(settings.profile, settings.towers)
    return Clients(
        objects,
        Records(objects),
        Inference(settings.inference, profile.patience()),
        profile,
        connection_of(settings),
    )


def vectors_of(settings: Settings, profile: Profile) -> Vectors:
    """The vector store's client: a server where one is named, the data folder otherwise."""
    key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
    if settings.qdrant_url is not None:
        return Vectors(profile.all_spaces(), url=settings.qdrant_url, api_key=key)
    return Vectors(profile.all_spaces(), folder=settings.data / "qdrant")


def chosen_stages(text: str | None) -> tuple[Stage, ...]:
    """`caption,score` as stages; None means all.

    Raises:
        Refused: an unknown name.
    """
    if text is None:
        return tuple(Stage)
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ALL_STAGES]
    if unknown:
        raise Refused(f"there is no stage called {unknown[0]!r}; choose from {', '.join(ALL_STAGES)}.")
    return tuple(stage for stage in Stage if stage.value in names)


async def until_it_works(what: str, work: Any, stop: asyncio.Event, state: dict[str, str]) -> None:
    """Do the work again while a part is away; what is waited for is visible in `state`."""
    wait = 0.1
    while not stop.is_set():
        try:
            await work()
            state.pop(what, None)
            return
        except Passing as trouble:
            state[what] = str(trouble)
            log.info("waiting to %s: %s", what, trouble)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)
            wait = min(wait * 1.5, 2.0)


class WorkerProcess:
    """One worker: its stages, its upkeep, its HTTP API.

    Args:
        settings: where the parts are.
        stages: which stages it runs.
    """

    def __init__(self, settings: Settings, stages: Sequence[Stage]) -> None:
        self.settings = settings
        self.stages = tuple(stages)
        self.starting: dict[str, str] = {}
        self.runners: dict[str, StageRunner] = {}
        self._stop = asyncio.Event()
        self._failed: str | None = None
        self._clients = clients_of(settings)
        self._pool = DecoderPool(workers=2)
        self._vectors = (
            vectors_of(settings, self._clients.profile)
            if Stage.INDEX in self.stages or settings.qdrant_url is not None
            else None
        )
        self._application = self._compose()

    # -- composition ---------------------------------------------------------------------------------------

    def _compose(self) -> Application:
        clients = self._clients
        records = clients.records
        tools = Tools(clients.inference, clients.profile, self._vectors, CaptionMetrics())
        self._studio = Studio(records, tools, self.settings.data / "spool")
        asker = Asker(records, self._studio)
        withdraw = None if self._vectors is None else WithdrawHandler(records, self._vectors, self._publish)
        undo = undo_and_tell(records, self._publish) if withdraw is None else withdraw.undo

        async def load(item: str, generation: int) -> bytes:
            return await load_rendition(records, self._pool, item, generation)

        topics: dict[str, StageRunner] = {}
        self._handlers: list[ItemHandler] = []
        for entry in PIPELINE:
            stage = entry.work.stage
            if stage not in self.stages:
                continue
            more = {"more": lambda written: ready_commands(records, written)} if stage is Stage.INDEX else {}
            handler = ItemHandler(entry.work, records, tools, self._publish, load, undo, **more)
            self._handlers.append(handler)
            runner = StageRunner(stage.value, handler, batch=entry.batch, concurrency=entry.concurrency)
            topics[EVENT_OF_STAGE[stage][0].topic] = self.runners[stage.value] = runner
        way = list(self.runners.values())
        for place, runner in enumerate(way):
            runner.give_way_to(*way[place + 1 :])
        self._pair: PairHandler | None = None
        if Stage.PAIR in self.stages:
            self._pair = PairHandler(records, self._publish, asker.wall)
            runner = StageRunner(Stage.PAIR.value, self._pair, batch=64, concurrency=1, together=True)
            topics[PairingCommand.topic] = self.runners[Stage.PAIR.value] = runner
        if Stage.COMPOSE in self.stages:
            composer = ComposeHandler(records, self._studio, tools, self._publish, undo)
            # One at a time: the composer makes several at once, but those are for people who wait.
            runner = StageRunner(Stage.COMPOSE.value, composer, batch=1, concurrency=1)
            topics[MusicRequested.topic] = self.runners[Stage.COMPOSE.value] = runner
        self._ask_music = asker.wall
        self._live = LiveMusic(records, self._studio, self._publish, asker.ask, undo)
        if withdraw is not None and Stage.INDEX in self.stages:
            runner = StageRunner(WITHDRAW, withdraw, batch=16, concurrency=1)
            topics[Withdrawn.topic] = self.runners[WITHDRAW] = runner
        return Application(
            clients.connection,
            self.settings.group,
            topics,
            self.settings.partitions,
            self.settings.data / "faust",
            moved=() if self._pair is None else (self._pair.partitions_moved,),
        )

    async def _publish(self, events: Sequence[Event]) -> None:
        await self._application.publish(events)

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until told to stop; the process's exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        server = uvicorn.Server(
            uvicorn.Config(
                make_api(self._reach()),
                host=self.settings.http_host,
                port=self.settings.http_port,
                log_level="warning",
                access_log=False,
                lifespan="off",
            )
        )
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        serving = asyncio.create_task(server.serve(), name="http")
        upkeep: list[asyncio.Task[None]] = []
        try:
            await self._start()
            upkeep = [
                asyncio.create_task(self._reconcile_for_ever(), name="reconcile"),
                asyncio.create_task(self._watch(), name="watch"),
            ]
            while not self._stop.is_set():
                if serving.done():
                    self._failed = "the HTTP server stopped; is its port taken?"
                    self._stop.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), 0.5)
        finally:
            for task in upkeep:
                task.cancel()
            await asyncio.gather(*upkeep, return_exceptions=True)
            await self._shut_down()
            server.should_exit = True
            with contextlib.suppress(TimeoutError, asyncio.CancelledError, SystemExit):
                await asyncio.wait_for(serving, 1.0)
        if self._failed:
            log.error("%s", self._failed)
            return 1
        return 0

    async def _start(self) -> None:
        clients = self._clients
        self.starting["start"] = "starting"
        await until_it_works("reach the object store", clients.objects.ping, self._stop, self.starting)
        topics = Topics(clients.connection)

        async def prepare_topics() -> None:
            await asyncio.to_thread(topics.prepare, self.settings.partitions, self.settings.replication)

        await until_it_works("reach the broker", prepare_topics, self._stop, self.starting)
        if self._vectors is not None:
            await until_it_works("open the vector store", self._vectors.prepare, self._stop, self.starting)
        for handler in self._handlers:
            await until_it_works("read the record", handler.load_marks, self._stop, self.starting)
        if self._stop.is_set():
            return
        for runner in self.runners.values():
            runner.start()
        await self._application.start()
        if self._vectors is not None and Stage.INDEX in self.stages:
            await self._mend_index()
        self.starting.pop("start", None)
        log.info("stages %s are consuming", ", ".join(self.runners))

    async def _mend_index(self) -> None:
        assert self._vectors is not None
        try:
            removed, announced = await mend_index(self._clients.records, self._vectors, self._publish)
        except Passing as trouble:
            log.warning("the index was not compared with the records: %s", trouble)
            return
        if removed or announced:
            log.warning("the index was mended: %d strays removed, %d items indexed again", removed, announced)

    async def _shut_down(self) -> None:
        # Runners first: what they hold goes back unacknowledged at once; then the group is left.
        await asyncio.gather(*(runner.stop(grace=2.0) for runner in self.runners.values()))
        await self._live.close()
        if self._pair is not None:
            await self._pair.close()
        with contextlib.suppress(Exception, asyncio.TimeoutError):
            await asyncio.wait_for(self._application.stop(), 4.0)
        await self._pool.close()
        if self._vectors is not None:
            await self._vectors.close()
        await self._clients.inference.close()
        self._clients.objects.close()

    async def _reconcile_for_ever(self) -> None:
        patience = self.settings.reconcile_seconds
        reconciler = Reconciler(self._clients.records, self._publish, patience, self._ask_music)
        announced_at: float | None = None
        took = 0.0
        while True:
            # A look at every record costs more the more there are: at most a twentieth of the time goes into it.
            await asyncio.sleep(max(min(60.0, max(1.0, patience / 5)), 19 * took))
            begun = time.monotonic()
            try:
                counts = await reconciler.run_once()
            except Passing as trouble:
                log.info("reconcile waits: %s", trouble)
                continue
            except Exception:
                log.exception("reconcile failed; it goes on with the next round")
                continue
            took = time.monotonic() - begun
            mine = sum(number for name, number in counts.items() if name in self.runners)
            if mine and announced_at is None:
                announced_at = time.monotonic()
            taken = max((runner.last_finished for runner in self.runners.values()), default=0.0)
            waiting = any(runner.waiting or runner.in_flight for runner in self.runners.values())
            if announced_at is not None and (taken > announced_at or waiting or not mine):
                announced_at = None
            if announced_at is not None and time.monotonic() - announced_at > STANDSTILL_SECONDS:
                self._failed = "the stream stands still although work was announced again; starting anew"
                self._stop.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            crash = self._application.crash
            if crash is not None:
                self._failed = f"the stream stopped by itself: {type(crash).__name__}: {crash}"
                self._stop.set()

    # -- what the API may ask ------------------------------------------------------------------------------

    def _reach(self) -> Reach:
        return Reach(
            records=self._clients.records,
            profile=self._clients.profile,
            inference=self._clients.inference,
            vectors=self._vectors,
            runners=self.runners,
            ready=self._readiness,
            music=self._live,
        )

    async def _readiness(self) -> dict[str, str]:
        """What is not ready, by name; empty when all is."""
        missing = dict(self.starting)
        if not self._application.consuming:
            missing.setdefault("broker", "not consuming yet")
        needed = sorted(
            set(self._clients.profile.models)
            if any(stage in self.stages for stage in (Stage.CAPTION, Stage.SCORE, Stage.EMBED, Stage.COMPOSE))
            else set()
        )
        for part, check in (
            ("models", self._clients.inference.ready(needed)),
            ("objects", self._clients.objects.ping()),
            ("broker", reachable(self._clients.connection)),
        ):
            try:
                await check
            except Passing as trouble:
                missing[part] = str(trouble)
        return missing


def run_worker(settings: Settings, stages: Sequence[Stage]) -> int:
    """Run a worker in this process until SIGTERM or SIGINT; its exit status."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

    async def main() -> int:
        return await WorkerProcess(settings, stages).run()

    return asyncio.run(main())
