"""What the runner does for the pair stage: commands of one exhibition in, revisions of its pairing out.

Saved before announced: a revision lies in the log before `PairingChanged` is published, and the last revision is
published again when an exhibition is taken over, so a crash between the two loses nothing.

An exhibition's settings are read from the store with every batch of commands, so the commands need not carry them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from infra.metrics import PAIR_SIMILARITY, PAIRS, PAIRS_HUNG, STAGE_EVENTS
from infra.objects import NotFound
from infra.records import Records, pairing_revision_key, version_text
from schemas.events import Event, PairingChanged, PairingCommand, decode
from schemas.failures import Lasting, Passing
from schemas.records import ExhibitionSettings, Stage
from streams.compose import AskMusic, newly_hung
from streams.items import Publish, unreadable
from streams.runner import Delivery
from workers.pair import ExhibitionPairing, Ready, check_settings
from workers.pairing.spaces import item_vectors, space_of

log = logging.getLogger(__name__)

_ASKED_TOGETHER: Final = 64
"""Pictures of a wall whose music is asked for before the questions are announced."""
_SIDE_BY_SIDE: Final = 8
"""Pictures that are looked at at the same time: each costs some calls to the store, which answers several at once."""


def wants(settings: ExhibitionSettings, collections: Collection[str]) -> bool:
    """True when an item in these collections hangs in the exhibition; an item in no collection hangs nowhere."""
    if settings.collections is None:
        return bool(collections)
    return any(each in settings.collections for each in collections)


class RecordMembers:
    """Vectors out of the records, as `workers.pair.Members` wants them."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def ready(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, Ready]:
        """See `workers.pair.Members`."""
        needs_embedding = space_of(settings).needs_embedding

        async def one(item: str) -> tuple[str, Ready] | None:
            state = await self._records.state(item)
            if not state.alive or state.latest is None or state.done(Stage.INDEX) is None:
                return None
            try:
                revision = await self._records.revision(item, state.latest)
                score = await self._records.newest_result(state, Stage.SCORE)
                embedded = await self._records.newest_result(state, Stage.EMBED) if needs_embedding else None
            except NotFound:
                # A takedown went by between the listing and the reading.
                return None
            if score is None or not wants(settings, revision.collections):
                return None
            return item, Ready(version_text(state.latest), revision.sequence, item_vectors(score, embedded))

        found: dict[str, Ready] = {}
        for start in range(0, len(items), 64):
            for entry in await asyncio.gather(*map(one, items[start : start + 64])):
                if entry is not None:
                    found[entry[0]] = entry[1]
        return found

    async def why_left(self, items: Sequence[str], settings: ExhibitionSettings) -> Mapping[str, str]:
        """See `workers.pair.Members`."""

        async def one(item: str) -> str:
            state = await self._records.state(item)
            if not state.alive or state.latest is None:
                return "withdrawn"
            try:
                revision = await self._records.revision(item, state.latest)
            except NotFound:
                return "withdrawn"
            return "being read anew" if wants(settings, revision.collections) else "no longer in its collections"

        found: dict[str, str] = {}
        for start in range(0, len(items), 64):
            some = items[start : start + 64]
            found |= dict(zip(some, await asyncio.gather(*map(one, some)), strict=True))
        return found


@dataclass(slots=True)
class _Agent:
    """An exhibition in hand, and the last of its revisions that the broker was told of."""

    pairing: ExhibitionPairing
    announced: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while commands are carried out, and for the switch of a pairing made anew aside."""
    anew: asyncio.Task[None] | None = None
    asking: asyncio.Task[None] | None = None
    """Asks for the music of all that hung when the policy changed."""

    def tasks(self) -> list[asyncio.Task[None]]:
        """What goes on aside."""
        return [task for task in (self.anew, self.asking) if task is not None]


class PairHandler:
    """Runs the agents of the exhibitions whose partitions this process holds.

    Args:
        records: the truth.
        publish: announces events.
        ask_music: says which music the wall wants; None: nobody composes here.
    """

    def __init__(self, records: Records, publish: Publish, ask_music: AskMusic | None = None) -> None:
        self._records = records
        self._publish = publish
        self._ask_music = ask_music
        self._agents: dict[str, _Agent] = {}

    def partitions_moved(self) -> None:
        """Somebody else may have written meanwhile: read every exhibition anew at its next command."""
        for agent in self._agents.values():
            for task in agent.tasks():
                task.cancel()
        self._agents.clear()

    async def settled(self) -> None:
        """Return when nothing goes on aside: no exhibition is paired anew, no wall's music asked for."""
        while tasks := [task for agent in self._agents.values() for task in agent.tasks()]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """End what goes on aside; it begins again at the next start."""
        tasks = [task for agent in self._agents.values() for task in agent.tasks()]
        self.partitions_moved()
        await asyncio.gather(*tasks, return_exceptions=True)

    def alone(self, delivery: Delivery) -> bool:
        """Commands are never under suspicion: nothing foreign is decoded here."""
        return False

    async def probe(self) -> None:
        """No model is asked here."""

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """See `streams.runner.Handler`."""
        by_exhibition: dict[str, list[PairingCommand]] = {}
        for delivery in batch:
            try:
                event = decode(delivery.value, PairingCommand)
            except Lasting as failure:
                await self.set_aside(delivery, failure)
                continue
            assert isinstance(event, PairingCommand)
            delivery.happened = event.happened
            by_exhibition.setdefault(event.exhibition, []).append(event)
        for name, commands in by_exhibition.items():
            await self._refresh(name, commands)

    async def _refresh(self, name: str, commands: Sequence[PairingCommand]) -> None:
        settings = await self._settings(name)
        if settings is None:
            STAGE_EVENTS.labels(Stage.PAIR.value, "dropped").inc(len(commands))
            return
        agent = self._agents.get(name)
        if any(command.what == "deleted" for command in commands):
            await self._erase(name)
        if agent is None or agent.pairing.settings.creation != settings.creation:
            self._drop(name)
            # It may have been deleted and made again before any command came.
            await self._erase(name)
            agent = self._agents[name] = _Agent(
                ExhibitionPairing(settings, self._records, RecordMembers(self._records))
            )
        trace = commands[-1].trace
        async with agent.lock:
            agent.pairing.settings = settings
            await self._take_over(agent, trace)
            # An earlier try may have written a revision and then found the broker away.
            await self._announce(agent, trace)
            revision = await agent.pairing.refresh([command.item for command in commands if command.item is not None])
            outcome = "repeated" if revision is None else "done"
            STAGE_EVENTS.labels(Stage.PAIR.value, outcome).inc(len(commands))
            await self._announce(agent, trace)
            if any(command.what == "changed" for command in commands):
                self._ask_for_all(agent, settings, trace)
        if agent.pairing.stale and agent.anew is None and self._agents.get(name) is agent:
            agent.anew = asyncio.create_task(self._pair_anew(agent, trace), name=f"pair {name} anew")

    async def _take_over(self, agent: _Agent, trace: str) -> None:
        """Hold the exhibition; nothing is written while its last revision may be unannounced.

        The owner before may have died, or the broker may have been away, between a write and its announcement. So
        whatever happens, and however often, at most the last revision is unannounced, and that one is announced
        again here.
        """
        if agent.pairing.held:
            return
        settings = agent.pairing.settings
        last = await self._records.last_pairing(settings.home)
        if last > agent.announced:
            # With the music that this revision asked for: the same question is the same piece.
            hung = newly_hung(await self._records.pairing_log(settings.home, last - 1))
            wanted = await self._music(settings, hung.items(), trace)
            await self._publish([_changed(settings, last, trace), *wanted])
            agent.announced = last
        taken = await agent.pairing.take_over()
        if taken is not None:
            # Somebody may have written one more in between.
            agent.announced = max(agent.announced, taken.number - 2)

    async def _settings(self, name: str) -> ExhibitionSettings | None:
        """The exhibition's settings, or None when there is nothing to work by; what a deleted one left goes."""
        settings = await self._records.exhibition(name)
        if settings is None:
            self._drop(name)
            await self._erase(name)
            return None
        try:
            check_settings(settings)
        except ValueError as error:
            log.warning("pair: the exhibition %r waits for settings that can be used: %s", name, error)
            return None
        return settings

    async def _erase(self, name: str) -> None:
        if await self._records.erase_pairing(name):
            log.info("pair: an exhibition %r was deleted; its log is gone", name)

    def _drop(self, name: str) -> None:
        agent = self._agents.pop(name, None)
        if agent is None:
            return
        for task in agent.tasks():
            task.cancel()
        for metric in (PAIRS, PAIRS_HUNG, PAIR_SIMILARITY):
            with contextlib.suppress(KeyError):
                metric.remove(name)

    async def _pair_anew(self, agent: _Agent, trace: str) -> None:
        """Pair an exhibition anew while its commands, and other exhibitions', go on; then switch in one revision.

        What goes wrong here is begun again by the next command: reconcile sends one while settings and log differ.
        """
        name = agent.pairing.settings.name
        try:
            while agent.pairing.stale:
                prepared = await agent.pairing.prepare()
                async with agent.lock:
                    await self._announce(agent, trace)
                    revision = await agent.pairing.switch(prepared)
                    if revision is not None:
                        log.info("pair: %s: %s", name, prepared.reason)
                    await self._announce(agent, trace)
        except Passing as trouble:
            log.info("pair: %s is paired anew later: %s", name, trouble)
        except Exception:
            log.exception("pair: pairing %s anew failed; the next command tries again", name)
        finally:
            agent.anew = None

    async def _announce(self, agent: _Agent, trace: str) -> None:
        """Publish what was written since the last announcement; nothing when there is nothing new."""
        settings, last = agent.pairing.settings, agent.pairing.state.number
        events: list[Event] = [_changed(settings, number, trace) for number in range(agent.announced + 1, last + 1)]
        if events:
            if self._ask_music is not None and settings.music == "always":
                revisions = await self._records.pairing_log(settings.home, agent.announced)
                events += await self._music(settings, newly_hung(revisions).items(), trace)
            await self._publish(events)
            agent.announced = last
            self._measure(agent.pairing)

    def _ask_for_all(self, agent: _Agent, settings: ExhibitionSettings, trace: str) -> None:
        """Ask for the music of all that hangs, aside: the policy may be a new one, and a wall may be large.

        What does not come about here is asked for by reconcile.
        """
        if agent.asking is not None:
            agent.asking.cancel()
            agent.asking = None
        if self._ask_music is None or settings.music != "always":
            return
        hung = list(agent.pairing.state.hung)

        async def ask() -> None:
            try:
                for start in range(0, len(hung), _ASKED_TOGETHER):
                    await self._publish(await self._music(settings, hung[start : start + _ASKED_TOGETHER], trace))
            except Passing as trouble:
                log.info("pair: the music of %s is asked for later: %s", settings.name, trouble)
            except Exception:
                log.exception("pair: asking for the music of %s failed; reconcile asks again", settings.name)
            finally:
                if agent.asking is asyncio.current_task():
                    agent.asking = None

        agent.asking = asyncio.create_task(ask(), name=f"ask for the music of {settings.name}")

    async def _music(
        self, settings: ExhibitionSettings, hung: Iterable[tuple[str, str]], trace: str
    ) -> Sequence[Event]:
        """The music that these pictures, with their tracks, ask for."""
        if self._ask_music is None or settings.music != "always":
            return []
        ask, wanted = self._ask_music, list(hung)
        shares = [wanted[first::_SIDE_BY_SIDE] for first in range(min(_SIDE_BY_SIDE, len(wanted)))]
        found = await asyncio.gather(*(ask(settings, dict(share), trace) for share in shares))
        return [event for events in found for event in events]

    @staticmethod
    def _measure(agent: ExhibitionPairing) -> None:
        values = list(agent.state.pairs.values())
        PAIRS.labels(agent.settings.name).set(len(values))
        PAIRS_HUNG.labels(agent.settings.name).set(len(agent.state.hung))
        PAIR_SIMILARITY.labels(agent.settings.name).set(sum(values) / len(values) if values else 0.0)

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """A command that cannot be read."""
        await unreadable(self._records, self._publish, Stage.PAIR.value, delivery, failure)


def _changed(settings: ExhibitionSettings, number: int, trace: str) -> PairingChanged:
    return PairingChanged(
        trace=trace, exhibition=settings.name, number=number, result=pairing_revision_key(settings.home, number)
    )
