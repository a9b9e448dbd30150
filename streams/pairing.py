"""What the runner does for the pair stage: commands of one exhibition in, revisions of its pairing out.

Saved before announced: a revision lies in the log before `PairingChanged` is published, and the last revision is
published again when an exhibition is taken over, so a crash between the two loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from infra.metrics import PAIR_SIMILARITY, PAIRS, STAGE_EVENTS
from infra.records import Records, pairing_revision_key, version_text
from schemas.events import PairingChanged, PairingCommand, decode, new_trace
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
            revision = await self._records.revision(item, state.latest)
            score = await self._records.newest_result(state, Stage.SCORE)
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


class PairHandler:
    """Runs the agents of the exhibitions whose partitions this process holds.

    Args:
        records: the truth.
        publish: announces events.
    """

    def __init__(self, records: Records, publish: Publish) -> None:
        self._records = records
        self._publish = publish
        self._agents: dict[str, ExhibitionPairing] = {}

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
        revision = await agent.refresh([command.item for command in commands])
        outcome = "repeated" if revision is None else "done"
        STAGE_EVENTS.labels(Stage.PAIR.value, outcome).inc(len(commands))
        if revision is not None:
            await self._announce(name, revision.number, commands[-1].trace)
            self._measure(agent)

    async def _agent(self, name: str) -> ExhibitionPairing | None:
        agent = self._agents.get(name)
        if agent is None:
            settings = next((each for each in await self._records.exhibitions() if each.name == name), None)
            if settings is None:
                log.warning("pair: no exhibition is called %r; its commands are dropped", name)
                return None
            agent = self._agents[name] = ExhibitionPairing(settings, self._records, RecordMembers(self._records))
        taken = await agent.take_over()
        if taken is not None:
            await self._announce(name, taken.number, new_trace())
            self._measure(agent)
        return agent

    async def _announce(self, name: str, number: int, trace: str) -> None:
        result = pairing_revision_key(name, number)
        await self._publish([PairingChanged(trace=trace, exhibition=name, number=number, result=result)])

    @staticmethod
    def _measure(agent: ExhibitionPairing) -> None:
        values = list(agent.state.pairs.values())
        PAIRS.labels(agent.settings.name).set(len(values))
        PAIR_SIMILARITY.labels(agent.settings.name).set(sum(values) / len(values) if values else 0.0)

    async def set_aside(self, delivery: Delivery, failure: Lasting) -> None:
        """A command that cannot be read."""
        await unreadable(self._records, self._publish, Stage.PAIR.value, delivery, failure)
