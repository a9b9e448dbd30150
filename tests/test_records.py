"""Records: names of objects tell the state, numbers are made once, a takedown hurts only its own generations."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.objects import ObjectInfo
from infra.records import (
    ITEMS,
    ItemState,
    Records,
    dead_key,
    media_key,
    membership_key,
    parse_version,
    rendition_key,
    result_key,
    revision_key,
    states_from,
    tombstone_key,
    version_text,
)
from schemas.failures import Lasting
from schemas.media import Kind
from schemas.records import (
    Catalogue,
    ExhibitionSettings,
    IndexBody,
    Membership,
    Provenance,
    Result,
    Stage,
    Tombstone,
    now,
)
from streams.exhibitions import delete, settings_of
from tests.stack_fixtures import Published, Reached, everything_of, made_item, put_item

VERSIONS = st.tuples(st.integers(0, 999_999), st.integers(1, 999_999))


@given(VERSIONS, VERSIONS)
def test_versions_sort_as_text_as_they_do_as_numbers(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert parse_version(version_text(one)) == one
    assert (version_text(one) < version_text(other)) is (one < other)


KEYS = st.one_of(
    st.builds(lambda item, version: revision_key(item, version), st.just("I"), VERSIONS),
    st.builds(lambda version, stage: result_key("I", version, stage, "d"), VERSIONS, st.sampled_from(Stage)),
    st.builds(lambda version: dead_key("I", version, "caption"), VERSIONS),
    st.builds(lambda generation: tombstone_key("I", generation), st.integers(0, 99)),
    st.builds(lambda generation: membership_key("I", generation, "spring"), st.integers(0, 99)),
    st.text(max_size=30).map(lambda text: f"items/I/{text}"),
    st.sampled_from(
        ["items/I/revisions/x.json", "items/I/results/caption/1/d.json", "items/I/results/?/0.1/d.json", "items/I"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(KEYS, max_size=12))
def test_a_state_can_be_read_from_any_names_and_foreign_ones_are_passed_over(keys: list[str]) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    state = ItemState("I")
    for key in keys:
        state.add(ObjectInfo(key, 1, moment))
    state.close()
    assert state.alive is (state.latest is not None and state.latest[0] > state.buried)
    assert all(isinstance(stage, Stage) for _, stage in state.results)


def test_one_listing_of_all_items_tells_each_state() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    items = sorted(made_item(f"{number}") for number in range(5))
    keys = sorted(
        key
        for item in items
        for key in (revision_key(item, (0, 1)), membership_key(item, 0, "a"), f"{ITEMS}{item}/odd")
    )
    states = states_from(ObjectInfo(key, 1, moment) for key in keys)
    assert [state.item for state in states] == items
    assert all(state.latest == (0, 1) and state.memberships == {"a"} for state in states)
    assert states_from([]) == []


@pytest.mark.stack
async def test_of_many_writers_of_a_revision_one_wins_and_the_last_facts_get_a_revision(
    object_store: Reached, records: Records
) -> None:
    item = await put_item(records, "a", collections=("c0",), catalogue=Catalogue(title="first"))
    clients = [object_store.objects() for _ in range(4)]
    try:

        async def join(number: int) -> None:
            mine = Records(clients[number])
            await mine.put_membership(
                Membership(
                    item=item,
                    collection=f"c{number + 1}",
                    catalogue=Catalogue(year=f"{number}"),
                    generation=0,
                    added=now(),
                )
            )
            await mine.refresh_revision(item, now())

        await asyncio.gather(*map(join, range(4)))
    finally:
        for client in clients:
            client.close()
    state = await records.state(item)
    assert state.latest is not None
    latest = await records.revision(item, state.latest)
    assert latest.collections == ("c0", "c1", "c2", "c3", "c4")
    assert latest.catalogue.title == "first"
    assert await records.refresh_revision(item, now()) is None


@pytest.mark.stack
async def test_a_result_is_written_once_and_the_first_one_stays(records: Records) -> None:
    item = await put_item(records, "a")

    def answer(space: str) -> Result:
        return Result(
            item=item,
            generation=0,
            revision=1,
            digest="a" * 32,
            provenance=Provenance(models={}, profile="edge", made=now(), seconds=0),
            body=IndexBody(spaces=(space,)),
        )

    key, first = await records.write_result(answer("one"))
    again, second = await Records(records.objects).write_result(answer("two"))
    assert (first, second, key == again) == (True, False, True)
    for reader in (records, Records(records.objects)):
        assert (await reader.result(key)).body == IndexBody(spaces=("one",))


@pytest.mark.stack
async def test_an_erasure_takes_all_of_its_generations_and_nothing_of_later_ones_or_of_others(
    records: Records,
) -> None:
    item, other = await put_item(records, "a"), await put_item(records, "b")
    await put_item(records, "a", generation=1)
    await records.objects.put(result_key(item, (0, 1), Stage.CAPTION, "d" * 32), b"{}")
    await records.objects.put(dead_key(item, (0, 1), "score"), b"{}")
    await records.objects.put(f"{ITEMS}{item}/put-here-by-other-hands.json", b"{}")
    assert await records.erase(item) == 0
    assert await records.bury(Tombstone(item=item, generation=0, made=now()))
    assert not await records.bury(Tombstone(item=item, generation=0, made=now()))
    assert await records.erase(item) > 0
    assert set(await everything_of(records, item)) == {
        tombstone_key(item, 0),
        media_key(item, 1),
        rendition_key(item, 1, "picture.jpg"),
        membership_key(item, 1, "spring"),
        revision_key(item, (1, 1)),
        f"{ITEMS}{item}/put-here-by-other-hands.json",
    }
    assert len(await everything_of(records, other)) == 4
    assert (await records.state(item)).alive
    await records.bury(Tombstone(item=item, generation=1, made=now()))
    await records.erase(item)
    # Nothing lives any more: now foreign names go as well.
    assert sorted(await everything_of(records, item)) == [tombstone_key(item, 0), tombstone_key(item, 1)]
    assert await records.erase(item) == 0


@pytest.mark.stack
async def test_a_picture_and_a_track_of_the_same_bytes_do_not_share_a_takedown(records: Records) -> None:
    """Identity is bytes and kind; both cannot be true of one file, but a takedown must not guess."""
    item = await put_item(records, "a")
    await records.bury(Tombstone(item=made_item("a", Kind.TRACK), generation=0, made=now()))
    assert (await records.state(item)).alive


@pytest.mark.stack
async def test_an_object_changed_by_other_hands_is_lasting_trouble_that_names_it(records: Records) -> None:
    item = await put_item(records, "a")
    key = revision_key(item, (0, 1))
    for content in (b"", b"{}", b"\xff", b'{"schema_version": 2}'):
        await records.objects.put(key, content)
        with pytest.raises(Lasting, match=key):
            await Records(records.objects).revision(item, (0, 1))


@pytest.mark.stack
async def test_the_default_exhibition_is_there_before_anybody_made_one(records: Records) -> None:
    assert [each.name for each in await records.exhibitions()] == ["default"]
    wall = ExhibitionSettings(name="a-wall", collections=("spring",))
    await records.objects.put("exhibitions/a-wall/settings.json", wall.model_dump_json().encode())
    assert await records.exhibitions() == [wall, ExhibitionSettings(name="default")]


@pytest.mark.stack
async def test_an_exhibition_that_cannot_be_read_harms_no_other_and_can_be_deleted(
    records: Records, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    broken = json.loads(ExhibitionSettings(name="broken").model_dump_json()) | {"threshold": None}
    await records.objects.put("exhibitions/broken/settings/000001.json", json.dumps(broken).encode())
    assert [each.name for each in await records.exhibitions()] == ["default"]
    assert "broken" in caplog.text
    # It is not taken for one that was deleted.
    assert await records.deleted_exhibitions() == []
    with pytest.raises(Lasting, match="threshold"):
        await settings_of(records, "broken")
    await delete(records, published, "broken")
    assert await records.objects.list("exhibitions/broken/") == []


@pytest.mark.stack
async def test_memory_of_immutable_objects_is_bounded(object_store: Reached, records: Records) -> None:
    small = Records(records.objects, remembered=3)
    for number in range(6):
        item = await put_item(records, f"{number}")
        await small.revision(item, (0, 1))
    assert len(small._memory) == 3


def test_what_a_takedown_left_is_seen_though_a_later_generation_lives() -> None:
    item = "artwork-" + "a" * 64
    keys = [
        f"items/{item}/tombstones/000000.json",
        f"items/{item}/revisions/000000.000001.json",
        f"items/{item}/results/caption/000000.000001/{'0' * 32}.json",
        f"items/{item}/revisions/000001.000001.json",
        f"items/{item}/memberships/000001/spring.json",
    ]
    (state,) = states_from(ObjectInfo(key, 1, now()) for key in sorted(keys))
    assert state.alive
    assert sorted(Records.left_behind(state)) == sorted(keys[1:3])
