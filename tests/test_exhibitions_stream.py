"""Exhibitions with the stream around them: made, changed, deleted, killed at any moment; several side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from gallery.views import exhibition_view, exhibitions_view, item_view, pairs_view, status_view
from promenade.pairing.truth import judge_exhibition
from schemas.events import Event, PairingChanged, PairingCommand
from schemas.failures import Passing, Refused
from schemas.media import Kind, split_item_id
from schemas.records import ExhibitionSettings
from streams import exhibitions, upkeep
from streams.pairing import PairHandler, RecordMembers
from tests.made_world import PROFILE, Died, HookedObjects, World
from tests.stack_fixtures import put_item
from tests.test_exhibitions_pairing import assert_exact
from workers.pair import ExhibitionPairing, PairingState, Ready, read_state

pytestmark = pytest.mark.stack


def settings(name: str, **values: Any) -> ExhibitionSettings:
    return ExhibitionSettings.model_validate({"name": name, **values})


async def fill(world: World, count: int = 4, collections: tuple[str, ...] = ("spring",), name: str = "") -> list[str]:
    """So many artworks and tracks, brought in and indexed."""
    items: list[str] = []
    for number in range(count):
        for kind in Kind:
            items.append(
                await put_item(
                    world.records, f"{name}{kind.value}{number}", kind, collections=collections, sequence=len(items)
                )
            )
            await world.announce(items[-1])
    await calm(world)
    return items


async def calm(world: World) -> None:
    """Till nothing is left to do, aside or not."""
    while world.published.events:
        await world.settle()
        await world.pairing.settled()


async def create(world: World, **values: Any) -> ExhibitionSettings:
    made, _ = await exhibitions.create(world.records, world.publish, settings(**values))
    await calm(world)
    return made


async def change(world: World, name: str, **values: Any) -> ExhibitionSettings:
    made = await exhibitions.change(
        world.records, world.publish, name, lambda present: exhibitions.updated(present, values)
    )
    await calm(world)
    return made


async def present_in(world: World, made: ExhibitionSettings) -> tuple[PairingState, Mapping[str, Ready]]:
    """What the log says, and what the records say of every complete item."""
    everything = [state.item for state in await world.records.all_states()]
    return await read_state(world.records, made.home), await RecordMembers(world.records).ready(everything, made)


async def test_a_new_exhibition_gets_everything_that_is_indexed_and_what_comes_later(world: World) -> None:
    await fill(world, 3)
    await fill(world, 2, ("autumn",), "other")
    made = await create(world, name="best", collections=["spring"], space="rgb", rule="optimal")
    state, present = await present_in(world, made)
    assert len(state.members) == 6
    assert_exact(state, present)
    later = await put_item(world.records, "later", Kind.TRACK)
    await world.announce(later)
    await calm(world)
    state, present = await present_in(world, made)
    assert later in state.members
    assert_exact(state, present)
    # An item hangs in as many exhibitions as want it.
    hung = next(item for pair in state.hung for item in pair)
    assert set((await item_view(world.records, hung)).partners) == {"best", "default"}
    view = await exhibition_view(world.records, "best")
    assert (view.artworks, view.tracks, view.pairs, view.hung, view.pairing_anew) == (3, 4, 3, 3, False)
    assert [each.name for each in await exhibitions_view(world.records)] == ["best", "default"]
    assert (await status_view(world.records)).finished


@pytest.mark.parametrize("space", ["rgb", "rgb15", "rgb-2", "va", "caption-minilm-1", "mix"])
async def test_every_space_pairs_and_shows_lift_and_percentile(world: World, space: str) -> None:
    await fill(world, 4)
    mix = (("rgb15", 0.5), ("va", 0.25), ("caption-minilm-1", 0.25)) if space == "mix" else ()
    made = await create(world, name="best", space=space, mix=mix, rule="optimal")
    state, present = await present_in(world, made)
    assert len(state.pairs) == 4
    assert_exact(state, present)
    view = await pairs_view(world.records, "best")
    assert (view.space, view.rule, len(view.pairs)) == (space, "optimal", 4)
    assert view.lift is None or view.lift == pytest.approx(view.mean_similarity / view.chance_similarity, rel=1e-4)  # type: ignore[operator]
    assert all(0 <= pair.percentile <= 100 for pair in view.pairs)
    assert {(pair.artwork.id, pair.track.id): pair.similarity for pair in view.pairs} == {
        pair: round(similarity, 6) for pair, similarity in state.hung.items()
    }
    assert (view.sigma is not None) == (space in ("va", "mix"))


async def test_a_change_of_space_and_rule_comes_into_force_in_one_revision(world: World) -> None:
    await fill(world, 5)
    made = await create(world, name="best", space="rgb")
    before = await read_state(world.records, made.home)
    changed = await change(world, "best", space="va", rule="greedy")
    state, present = await present_in(world, changed)
    assert state.basis is not None
    assert state.basis.fits(changed)
    assert_exact(state, present)
    revisions = await world.records.pairing_log(made.home, before.number)
    assert [each.number for each in revisions if each.basis is not None] == [state.number]
    announced = [
        event.number for event in world.everything if isinstance(event, PairingChanged) and event.exhibition == "best"
    ]
    assert sorted(set(announced)) == list(range(1, state.number + 1))


async def test_while_one_exhibition_is_paired_anew_the_commands_of_another_are_carried_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world, 3)
    await create(world, name="best", space="rgb")
    prepare, go_on = ExhibitionPairing.prepare, asyncio.Event()

    async def slow(agent: ExhibitionPairing) -> Any:
        await go_on.wait()
        return await prepare(agent)

    monkeypatch.setattr(ExhibitionPairing, "prepare", slow)
    await exhibitions.change(
        world.records, world.publish, "best", lambda present: exhibitions.updated(present, {"rule": "optimal"})
    )
    await world.settle()
    later = await put_item(world.records, "later", Kind.TRACK)
    await world.announce(later)
    await world.settle()
    for name in ("best", "default"):
        view = await exhibition_view(world.records, name)
        assert view.pairing_anew == (name == "best")
        assert view.tracks == 4
    assert not (await status_view(world.records)).finished
    assert (await pairs_view(world.records, "best")).rule == "stable"
    go_on.set()
    await calm_aside(world)
    view = await exhibition_view(world.records, "best")
    assert (view.pairing_anew, view.tracks) == (False, 4)
    assert (await pairs_view(world.records, "best")).rule == "optimal"


async def calm_aside(world: World) -> None:
    await world.pairing.settled()
    await calm(world)


async def test_collections_of_an_exhibition_may_change(world: World) -> None:
    spring = await fill(world, 2)
    autumn = await fill(world, 2, ("autumn",), "other")
    made = await create(world, name="best", collections=["spring"])
    assert set((await read_state(world.records, made.home)).members) == set(spring)
    made = await change(world, "best", collections=["autumn"])
    state, present = await present_in(world, made)
    assert set(state.members) == set(autumn)
    assert_exact(state, present)
    revisions = await world.records.pairing_log(made.home, 0)
    parted = [each.why for revision in revisions for each in revision.hung or () if each.what == "parted"]
    assert {why.split(":")[0] for why in parted if "displaced" not in why} == {"no longer in its collections"}
    made = await change(world, "best", collections=None)
    assert set((await read_state(world.records, made.home)).members) == {*spring, *autumn}


async def test_a_pinned_pair_hangs_until_it_is_unpinned(world: World) -> None:
    items = await fill(world, 3)
    made = await create(world, name="best", threshold=9.0)
    pairs = (await read_state(world.records, made.home)).pairs
    artwork = next(item for item in items if split_item_id(item)[0] is Kind.ARTWORK)
    track = next(item for item in items if split_item_id(item)[0] is Kind.TRACK and (artwork, item) not in pairs)
    await exhibitions.change(world.records, world.publish, "best", exhibitions.pinned(artwork, track))
    await calm(world)
    view = await pairs_view(world.records, "best")
    assert [(pair.artwork.id, pair.track.id) for pair in view.pairs if pair.pinned] == [(artwork, track)]
    made = await exhibitions.change(world.records, world.publish, "best", exhibitions.unpinned(artwork, track))
    await calm(world)
    state, present = await present_in(world, made)
    assert_exact(state, present)
    assert state.pairs == pairs


async def test_of_two_curators_at_once_neither_undoes_the_other(world: World) -> None:
    await create(world, name="best")
    names: list[dict[str, Any]] = [{"threshold": 0.5}, {"floor": 0.25}, {"hour": 4}]
    await asyncio.gather(*(change(world, "best", **each) for each in names))
    made = await exhibitions.settings_of(world.records, "best")
    assert (made.threshold, made.floor, made.hour, made.number) == (0.5, 0.25, 4, 4)


async def test_a_deleted_exhibition_leaves_nothing_and_one_made_anew_begins_at_the_beginning(world: World) -> None:
    items = await fill(world, 3)
    first = await create(world, name="best", space="rgb")
    stale = ExhibitionPairing(first, world.records, RecordMembers(world.records))
    await exhibitions.delete(world.records, world.publish, "best")
    await calm(world)
    assert await world.records.objects.list("exhibitions/best/") == []
    assert [each.name for each in await world.records.exhibitions()] == ["default"]
    with pytest.raises(Refused, match="no exhibition"):
        await pairs_view(world.records, "best")
    second = await create(world, name="best", space="va")
    # A paused owner of the one before wakes up and writes: nobody reads that, and it is swept away.
    await stale.take_over()
    await stale.refresh(items)
    state, present = await present_in(world, second)
    assert state.number < 20
    assert_exact(state, present)
    assert [each.space for each in await exhibitions_view(world.records)] == ["va", "rgb15"]


async def test_one_deleted_and_made_again_at_once_leaves_nothing_of_the_first(world: World) -> None:
    items = await fill(world, 3)
    first = await create(world, name="best", space="rgb")
    await exhibitions.delete(world.records, world.publish, "best")
    second, _ = await exhibitions.create(world.records, world.publish, settings("best", space="va"))
    await calm(world)
    assert await world.records.objects.list(f"exhibitions/{first.home}/") == []
    assert set((await read_state(world.records, second.home)).members) == set(items)
    assert await world.records.deleted_exhibitions() == []
    # A paused owner of the first one wakes up and writes: reconcile has it swept away.
    stale = ExhibitionPairing(first, world.records, RecordMembers(world.records))
    await stale.take_over()
    assert await world.records.deleted_exhibitions() == ["best"]
    before = await read_state(world.records, second.home)
    assert await upkeep.Reconciler(world.records, world.publish, 300).run_once(at_once=True) == {"pair": 1}
    await calm(world)
    assert await world.records.objects.list(f"exhibitions/{first.home}/") == []
    assert await world.records.deleted_exhibitions() == []
    assert await read_state(world.records, second.home) == before


async def test_what_cannot_be_is_refused(world: World) -> None:
    await create(world, name="best")
    with pytest.raises(Refused, match="already"):
        await create(world, name="best")
    with pytest.raises(Refused, match="always there"):
        await create(world, name="default")
    with pytest.raises(Refused, match="always there"):
        await exhibitions.delete(world.records, world.publish, "default")
    for work in (exhibitions.delete(world.records, world.publish, "none"), change(world, "none", rule="greedy")):
        with pytest.raises(Refused, match="no exhibition called 'none'; there are best, default"):
            await work
    assert await world.records.exhibition("../default") is None


async def test_commands_that_were_lost_are_sent_again_by_reconcile(world: World) -> None:
    await fill(world, 3)

    async def lost(events: Any) -> None:
        return None

    made, _ = await exhibitions.create(world.records, lost, settings("best", space="rgb"))
    assert (await read_state(world.records, made.home)).members == {}
    assert not (await status_view(world.records)).finished
    reconciler = upkeep.Reconciler(world.records, world.publish, 300)
    assert await reconciler.run_once(at_once=True) == {"pair": 6}
    await calm(world)
    for values in ({"rule": "optimal"}, {"space": "va"}):
        made = await exhibitions.change(
            world.records,
            lost,
            "best",
            lambda present, values=values: exhibitions.updated(present, values),  # type: ignore[misc]
        )
        assert await reconciler.run_once(at_once=True) == {"pair": 1}
        await calm(world)
        state, present = await present_in(world, made)
        assert_exact(state, present)
    await exhibitions.delete(world.records, lost, "best")
    assert await reconciler.run_once(at_once=True) == {"pair": 1}
    await calm(world)
    assert await world.records.objects.list("exhibitions/best/") == []
    assert await reconciler.run_once(at_once=True) == {}


async def test_killed_at_any_call_an_exhibition_is_what_its_settings_ask_in_the_end(
    world: World,
) -> None:
    """Every seventh call of a new item and a change of space, rule and pins is the last one in its turn."""
    items = await fill(world, 3)
    objects = world.records.objects
    assert isinstance(objects, HookedObjects)
    artwork, track = items[0], items[1]
    round_, done = 0, False
    while not done:
        name = f"best{round_}"
        made = await create(world, name=name, space="rgb")
        late = await put_item(world.records, f"late{round_}", Kind.TRACK)
        await world.announce(late)
        await world.settle(until=PairingCommand)
        how = {"space": "va", "rule": "optimal", "pins": [(artwork, track)]}
        made = await exhibitions.change(
            world.records,
            world.publish,
            name,
            lambda present, how=how: exhibitions.updated(present, how),  # type: ignore[misc]
        )
        commands: list[Event] = [event for event in world.published.take() if isinstance(event, PairingCommand)]
        objects.arm(2 + 7 * round_, objects.die)
        try:
            for event in commands:
                await world.handle(event)
            await world.pairing.settled()
            done = not objects.dead
        except Died:
            pass
        await world.pairing.close()
        objects.disarm()
        world.restart()
        # What was not acknowledged comes again; what was lost between settings and log is seen by reconcile.
        for event in commands:
            await world.handle(event)
        await upkeep.Reconciler(world.records, world.publish, 300).run_once(at_once=True)
        await calm_aside(world)
        state, present = await present_in(world, made)
        assert state.basis is not None
        assert state.basis.fits(made)
        assert late in state.members
        assert_exact(state, present)
        assert state.hung == state.pairs
        assert (artwork, track) in state.hung
        log = await world.records.pairing_log(made.home, 0)
        assert [each.number for each in log] == list(range(1, len(log) + 1))
        await exhibitions.delete(world.records, world.publish, name)
        await calm(world)
        round_ += 1
    assert round_ > 3


@pytest.mark.parametrize(("space", "judged"), [("mix", 4), ("rgb-2", 4), ("va", 3)])
async def test_an_exhibition_is_judged_in_the_space_that_it_is_paired_in(
    world: World, space: str, judged: int
) -> None:
    await fill(world, 5)
    mix = (("rgb15", 1.0), ("va", 1.0)) if space == "mix" else ()
    made = await create(world, name="best", space=space, mix=mix, rule="optimal")
    state = await read_state(world.records, made.home)
    found = await judge_exhibition(world.records, PROFILE, "best")
    assert (found.space, found.rule, found.evaluation.pairs) == (space, "optimal", 5)
    assert found.evaluation.mean == pytest.approx(sum(state.pairs.values()) / 5, abs=1e-6)
    assert sum(each.name.startswith("judged in") for each in found.evaluation.baselines) == judged


async def test_no_revision_stays_unannounced_however_often_owners_die_while_the_broker_is_away(world: World) -> None:
    items = await fill(world, 2)
    made = await create(world, name="best", space="rgb")
    publish = world.publish

    async def away(events: Any) -> None:
        raise Passing("broker", "away")

    for round_ in range(3):
        world.pairing = PairHandler(world.records, away)
        await world.records.put_exhibition(made := made.model_copy(update={"number": round_ + 2, "threshold": 0.1}))
        for _ in range(2):
            with pytest.raises(Passing):
                await world.pairing.handle([world.delivery(exhibitions.command("best", "item-ready", items[0]))])
    world.restart()
    world.pairing = PairHandler(world.records, publish)
    await world.pairing.handle([world.delivery(exhibitions.command("best", "changed"))])
    state = await read_state(world.records, made.home)
    told = {e.number for e in world.everything if isinstance(e, PairingChanged) and e.exhibition == "best"}
    assert told == set(range(1, state.number + 1))
