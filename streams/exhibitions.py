"""What curators do with exhibitions: make, change, delete, pin; and what an agent must be told about items.

Settings go into the store first, under the next number, so that two curators cannot undo each other unseen; the
command that follows on the pairing topic only says "look". A command that is lost is sent again by reconcile, which
compares the settings with what the pairing's log says. Who may do this, and how it is asked for, is left to others.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from infra.records import DEFAULT_EXHIBITION, ItemState, Records, version_text
from schemas.events import Event, ItemEvent, PairingCommand, new_trace
from schemas.failures import Lasting, Refused
from schemas.faults import explained
from schemas.media import Kind, split_item_id
from schemas.profile import Profile
from schemas.records import EVERY_COMPOSER, ExhibitionSettings, Revision, Stage, now
from streams.items import Publish
from streams.pairing import wants
from workers.pair import PairingState, check_settings, read_state
from workers.pairing.spaces import EMOTION_NAMES, pairing_space


def command(
    exhibition: str, what: str, item: str | None = None, version: tuple[int, int] = (0, 1), trace: str | None = None
) -> PairingCommand:
    """A command to an exhibition's agent; a new trace begins where none is given."""
    return PairingCommand.model_validate(
        {
            "trace": trace or new_trace(),
            "exhibition": exhibition,
            "what": what,
            "item": item,
            "generation": version[0],
            "revision": version[1],
        }
    )


def item_commands(
    settings: ExhibitionSettings,
    pairing: PairingState,
    states: Sequence[ItemState],
    moment: datetime,
    patience: float = 0.0,
) -> list[Event]:
    """What the agent must be told so that its members are the right ones.

    Args:
        settings: of the exhibition.
        pairing: what its log says.
        states: every living item's.
        moment: the present.
        patience: seconds that an item must have been indexed; younger ones are on their way.
    """
    events: list[Event] = []
    alive = set()
    for state in states:
        if not state.alive or state.latest is None:
            continue
        alive.add(state.item)
        finished = state.done(Stage.INDEX)
        if finished is None:
            continue
        wanted = wants(settings, state.memberships)
        member = pairing.members.get(state.item)
        if (member == version_text(state.latest)) if wanted else member is None:
            continue
        if patience and (moment - finished).total_seconds() < patience:
            continue
        events.append(command(settings.name, "item-ready" if wanted else "item-left", state.item, state.latest))
    events += [command(settings.name, "item-left", item) for item in pairing.members if item not in alive]
    return events


async def ready_commands(records: Records, written: Sequence[tuple[Revision, ItemEvent]]) -> list[Event]:
    """What each exhibition is told of items that were just indexed.

    The exhibitions are read after the results were written: whoever makes one from now on finds the items.
    """
    exhibitions = await records.exhibitions()
    return [
        command(
            exhibition.name,
            "item-ready" if wants(exhibition, revision.collections) else "item-left",
            event.item,
            (event.generation, event.revision),
            event.trace,
        )
        for revision, event in written
        for exhibition in exhibitions
    ]


async def tell(records: Records, publish: Publish, settings: ExhibitionSettings) -> int:
    """Tell an exhibition's agent of new settings and of every item that they concern; how many items."""
    pairing = await read_state(records, settings.home)
    items = item_commands(settings, pairing, await records.all_states(), now())
    await publish([command(settings.name, "changed"), *items])
    return len(items)


def check(settings: ExhibitionSettings, profile: Profile) -> None:
    """Whether an exhibition can be paired so with what the profile serves.

    Raises:
        Refused: in plain words, what cannot be.
    """
    if settings.floor is not None and not -1 <= settings.floor <= 1:
        raise Refused(f"the floor {settings.floor:g} is no similarity: those lie between -1 and 1.")
    try:
        check_settings(settings)
        space = pairing_space(settings.space, settings.mix)
    except ValueError as error:
        raise Refused(f"{error}.") from None
    composers = profile.served_composers()
    if settings.composer not in (None, EVERY_COMPOSER, *composers):
        raise Refused(
            f"the profile {profile.name!r} serves no composer {settings.composer!r}; "
            f"there are {', '.join(composers) or 'none'}."
        )
    both = {space.name for space in profile.all_spaces() if set(space.kinds) == set(Kind)} | set(EMOTION_NAMES)
    forms = {kind: {each.name for each in profile.all_spaces() if kind in each.kinds} for kind in Kind}
    for component in space.components:
        plain = component.artwork == component.track
        for kind in Kind:
            name = component.vector_name(kind)
            if name in both or (not plain and name in forms[kind]):
                continue
            raise Refused(
                f"nothing fills the space {name!r} for every {kind.value} in the profile {profile.name!r}; "
                f"there are {', '.join(sorted(both))}."
            )


async def create(records: Records, publish: Publish, settings: ExhibitionSettings) -> tuple[ExhibitionSettings, int]:
    """Make an exhibition and announce every item that is ready for it.

    Returns:
        The settings as written, and how many items were announced.

    Raises:
        Refused: there is one of that name.
    """
    name = settings.name
    if name == DEFAULT_EXHIBITION:
        raise Refused(
            f"the exhibition {DEFAULT_EXHIBITION!r} is always there; `promenade exhibition change` changes it."
        )
    made = settings.model_copy(update={"number": 1, "creation": uuid.uuid4().hex[:8]})
    if await records.exhibition(name) is not None or not await records.put_exhibition(made):
        raise Refused(
            f"there is an exhibition {settings.name!r} already; `promenade exhibition change` changes it, "
            "`delete` removes it."
        )
    return made, await tell(records, publish, made)


async def change(
    records: Records, publish: Publish, name: str, how: Callable[[ExhibitionSettings], ExhibitionSettings]
) -> ExhibitionSettings:
    """Change an exhibition's settings; of two curators at once, the later one changes what the earlier one wrote.

    Args:
        how: the new settings out of the present ones; may raise `Refused`, and may be called again.

    Returns:
        The settings as they are now. The agent is told even when nothing changed.

    Raises:
        Refused: there is no such exhibition, or `how` refused.
    """
    while True:
        present = await settings_of(records, name)
        wanted = how(present)
        if wanted == present:
            break
        wanted = wanted.model_copy(update={"number": present.number + 1})
        if await records.put_exhibition(wanted):
            break
    await tell(records, publish, wanted)
    return wanted


async def waited_for(records: Records, settings: ExhibitionSettings, pair: tuple[str, str]) -> list[str]:
    """Which items of a pinned pair are not in the exhibition, or not understood yet."""
    if pair not in settings.pins:
        return []
    states = [await records.state(item) for item in pair]
    return [
        state.item
        for state in states
        if not state.alive or state.done(Stage.INDEX) is None or not wants(settings, state.memberships)
    ]


async def settings_of(records: Records, name: str) -> ExhibitionSettings:
    """The settings of an exhibition.

    Raises:
        Refused: there is none of that name.
    """
    settings = await records.exhibition(name)
    if settings is None:
        known = ", ".join(each.name for each in await records.exhibitions())
        raise Refused(f"there is no exhibition called {name!r}; there are {known}.")
    return settings


async def delete(records: Records, publish: Publish, name: str) -> None:
    """Delete an exhibition: settings now, log and snapshots by its agent. The items stay.

    Raises:
        Refused: there is none of that name, or it is the default one.
    """
    if name == DEFAULT_EXHIBITION:
        raise Refused(f"the exhibition {DEFAULT_EXHIBITION!r} is always there; it can be changed but not deleted.")
    # Settings that cannot be read can still be deleted.
    with contextlib.suppress(Lasting):
        await settings_of(records, name)
    await records.delete_exhibition(name)
    await publish([command(name, "deleted")])


def pinned(artwork: str, track: str) -> Callable[[ExhibitionSettings], ExhibitionSettings]:
    """For `change`: fix a pair."""
    if split_item_id(artwork)[0] is not Kind.ARTWORK or split_item_id(track)[0] is not Kind.TRACK:
        raise Refused("a pin names an artwork, then a track.")

    def how(settings: ExhibitionSettings) -> ExhibitionSettings:
        if (artwork, track) in settings.pins:
            return settings
        for pin in settings.pins:
            if artwork in pin or track in pin:
                raise Refused(
                    f"{pin[0]} and {pin[1]} are pinned to each other; `promenade exhibition unpin` them first."
                )
        return settings.model_copy(update={"pins": tuple(sorted([*settings.pins, (artwork, track)]))})

    return how


def unpinned(artwork: str, track: str) -> Callable[[ExhibitionSettings], ExhibitionSettings]:
    """For `change`: let the rule decide about a pair again."""

    def how(settings: ExhibitionSettings) -> ExhibitionSettings:
        if (artwork, track) not in settings.pins:
            raise Refused(f"{artwork} and {track} are not pinned to each other in {settings.name!r}.")
        return settings.model_copy(update={"pins": tuple(pin for pin in settings.pins if pin != (artwork, track))})

    return how


def updated(settings: ExhibitionSettings, changes: dict[str, Any]) -> ExhibitionSettings:
    """The settings with other values, checked like those of a document.

    Raises:
        Refused: a value does not fit.
    """
    try:
        return ExhibitionSettings.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        raise Refused(explained(error)) from None
