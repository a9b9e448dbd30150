"""What the runner does for the pair stage: commands of one exhibition in, revisions of its pairing out.

Saved before announced: a revision lies in the log before `PairingChanged` is published, and the last revision is
published again when an exhibition is taken over, so a crash between the two loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.metrics import PAIR_SIMILARITY, PAIRS, STAGE_EVENTS
from infra.objects import NotFound
from infra.records import Records, pairing_revision_key, version_text
from schemas.events import PairingChanged, PairingCommand, decode
from schemas.failures import Lasting
from schemas.records import ExhibitionSettings, Stage
from streams.items import Publish, unreadable
from streams.runner import Delivery
from workers.index import emotion_vectors
from workers.pair import ExhibitionPairing, Ready

log = logging.getLogger(__name__)


def wants(settings: ExhibitionSettings, collections: Sequence[str]) -> bool:
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

        async def one(item: str) -> tuple[str, Ready] | None:
            state = await self._records.state(item)
            if not state.alive or state.latest is None or state.done(Stage.INDEX) is None:
                return None
            try:
                revision = await self._records.revision(item, state.latest)
                score = await self._records.newest_result(state, Stage.SCORE)
            except NotFound:
                # A takedown went by between the listing and the reading.
                return None
            if score is None or not wants(settings, revision.collections):
                return None
            vector = emotion_vectors(score)[settings.space]
            return item, Ready(f"{version_text(state.latest)}", revision.sequence, vector)

        found: dict[str, Ready] = {}
        for start in range(0, len(items), 64):
            for entry in await asyncio.gather(*map(one, items[start : start + 64])):
                if entry is not None:
                    found[entry[0]] = entry[1]
        return found


@dataclass(slots=True)
class _Agent:
    """An exhibition in hand, and the last of its revisions that the broker was told of."""

    pairing: ExhibitionPairing
    announced: int = 0


class PairHandler:
    """Runs the agents of the exhibitions whose partitions this process holds.

    Args:
        records: the truth.
        publish: announces events.
    """

    def __init__(self, records: Records, publish: Publish) -> None:
        self._records = records
        self._publish = publish
        self._agents: dict[str, _Agent] = {}

    def partitions_moved(self) -> None:
        """Somebody else may have written meanwhile: read every exhibition anew at its next command."""
        self._agents.clear()

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
        agent = await self._agent(name)
        if agent is None:
            STAGE_EVENTS.labels(Stage.PAIR.value, "dropped").inc(len(commands))
            return
        # An earlier try may have written a revision and then found the broker away.
        await self._announce(agent, commands[-1].trace)
        revision = await agent.pairing.refresh([command.item for command in commands])
        outcome = "repeated" if revision is None else "done"
        STAGE_EVENTS.labels(Stage.PAIR.value, outcome).inc(len(commands))
        await self._announce(agent, commands[-1].trace)

    async def _agent(self, name: str) -> _Agent | None:
        agent = self._agents.get(name)
        if agent is None:
            settings = next((each for each in await self._records.exhibitions() if each.name == name), None)
            if settings is None:
                log.warning("pair: no exhibition is called %r; its commands are dropped", name)
                return None
            agent = self._agents[name] = _Agent(
                ExhibitionPairing(settings, self._records, RecordMembers(self._records))
            )
        taken = await agent.pairing.take_over()
        if taken is not None:
            # The last revision of the owner before may never have been announced: it died, or the broker was away.
            agent.announced = max(0, taken.number - 2)
        return agent

    async def _announce(self, agent: _Agent, trace: str) -> None:
        """Publish what was written since the last announcement; nothing when there is nothing new."""
        name, last = agent.pairing.settings.name, agent.pairing.state.number
        events = [
            PairingChanged(trace=trace, exhibition=name, number=number, result=pairing_revision_key(name, number))
            for number in range(agent.announced + 1, last + 1)
        ]
        if events:
            await self._publish(events)
            agent.announced = last
            self._measure(agent.pairing)

    @staticmethod
    def _measure(agent: ExhibitionPairing) -> None:
        values = list(agent.state.pairs.values())
        PAIRS.labels(agent.settings.name).set(len(values))
        PAIR_SIMILARITY.labels(agent.settings.name).set(sum(values) / len(values) if values else 0.0)

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """A command that cannot be read."""
        await unreadable(self._records, self._publish, Stage.PAIR.value, delivery, failure)
