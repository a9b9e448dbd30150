"""Ingest on the real object store: one item for the same bytes, resumable at every write, nothing half-announced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.objects import Objects, Refusing
from infra.records import Records, media_key, rendition_key, revision_key
from schemas.events import Arrived
from schemas.failures import Lasting, Passing
from schemas.media import Kind, digest_of, item_id
from schemas.records import Catalogue, Stage, merged_catalogue
from streams.ingest import Ingest, Outcome, Report, Source, load_rendition, patiently
from streams.upkeep import Reconciler, withdraw
from tests.made_world import HookedObjects, World, picture
from tests.stack_fixtures import Published, Reached, everything_of
from workers.media.pool import DecoderPool

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def colours() -> list[bytes]:
    """Pictures that differ."""
    return [picture((number * 20, 40, 90)) for number in range(12)]


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    async with DecoderPool(workers=2) as decoders:
        yield decoders


@pytest.fixture
def ingest(records: Records, pool: DecoderPool, published: Published) -> Ingest:
    return Ingest(records, pool, published)


def source(content: bytes, name: str = "a.jpg", **catalogue: str) -> Source:
    async def read() -> bytes:
        return content

    return Source(name, read, Catalogue.model_validate(catalogue))


def identity(content: bytes) -> str:
    return item_id(Kind.ARTWORK, digest_of(content))


async def test_a_new_file_is_stored_recorded_and_then_announced(
    ingest: Ingest, records: Records, published: Published, tmp_path: Path, colours: list[bytes]
) -> None:
    path = tmp_path / "sea.jpg"
    path.write_bytes(colours[0])
    report = await ingest.add(Source("sea.jpg", path, Catalogue(title="Sea")), "spring")
    item = identity(colours[0])
    assert (report.outcome, report.item, report.name) == (Outcome.NEW, item, "sea.jpg")
    assert await records.objects.get(media_key(item, 0)) == colours[0]
    assert (await records.objects.get(rendition_key(item, 0, "picture.jpg")))[:2] == b"\xff\xd8"
    revision = await records.revision(item, (0, 1))
    assert revision.catalogue == Catalogue(title="Sea")
    assert revision.collections == ("spring",)
    assert (revision.media.width, revision.media.height, revision.media.format) == (64, 64, "JPEG")
    (event,) = published.events
    assert isinstance(event, Arrived)
    assert (event.item, event.generation, event.revision) == (item, 0, 1)


async def test_the_same_bytes_are_one_item_with_two_memberships_and_a_merged_catalogue(
    ingest: Ingest, records: Records, published: Published, colours: list[bytes]
) -> None:
    content = colours[0]
    await ingest.add(source(content, "a.jpg", title="Sea", artist="Ada"), "spring")
    report = await ingest.add(source(content, "b.jpg", title="The sea", year="1890"), "autumn")
    assert report.outcome is Outcome.JOINED
    item = identity(content)
    assert [info.key for info in await records.objects.list("media/")] == [media_key(item, 0)]
    state = await records.state(item)
    assert state.memberships == {"spring", "autumn"}
    assert state.latest == (0, 2)
    revision = await records.revision(item, (0, 2))
    # The collection that had it first says the title; the later one adds the year.
    assert revision.catalogue == Catalogue(title="Sea", artist="Ada", year="1890")
    assert revision.catalogue == merged_catalogue(await records.memberships(state))
    assert revision.collections == ("autumn", "spring")
    autumn = await records.membership(item, 0, "autumn")
    assert autumn is not None
    assert autumn.catalogue == Catalogue(title="The sea", year="1890")
    assert [event.revision for event in published.of(Arrived)] == [1, 2]  # type: ignore[attr-defined]
    first = await records.revision(item, (0, 1))
    assert revision.sequence == first.sequence


async def test_the_same_file_again_changes_nothing(
    ingest: Ingest, records: Records, published: Published, colours: list[bytes]
) -> None:
    await ingest.add(source(colours[0], title="Sea"), "spring")
    before = {info.key for info in await records.objects.list("")}
    assert (await ingest.add(source(colours[0], title="Sea"), "spring")).outcome is Outcome.KNOWN
    assert {info.key for info in await records.objects.list("")} == before


async def test_a_changed_catalogue_makes_the_next_revision(
    ingest: Ingest, records: Records, published: Published, colours: list[bytes]
) -> None:
    await ingest.add(source(colours[0], title="Sea"), "spring")
    published.take()
    assert (await ingest.add(source(colours[0], title="Lake"), "spring")).outcome is Outcome.CHANGED
    assert (await records.revision(identity(colours[0]), (0, 2))).catalogue == Catalogue(title="Lake")
    (event,) = published.of(Arrived)
    assert event.revision == 2  # type: ignore[attr-defined]


async def test_the_same_bytes_twice_at_once_are_one_item(
    ingest: Ingest, records: Records, published: Published, colours: list[bytes]
) -> None:
    async def files() -> AsyncIterator[Source]:
        for number in range(6):
            yield source(colours[0], f"{number}.jpg", title="Sea")

    reports = [report async for report in ingest.add_all(files(), "spring")]
    assert sorted(report.outcome for report in reports) == ["known"] * 5 + ["new"]
    assert (await records.state(identity(colours[0]))).latest == (0, 1)


async def test_two_processes_at_once_make_one_item_in_both_collections(
    object_store: Reached, objects: Objects, pool: DecoderPool, colours: list[bytes]
) -> None:
    clients = [object_store.objects() for _ in range(3)]
    told = [Published() for _ in clients]
    try:
        ingests = [Ingest(Records(client), pool, publish) for client, publish in zip(clients, told, strict=True)]
        for content in colours[:4]:
            reports = await asyncio.gather(
                *(each.add(source(content, title=f"{n}"), f"collection-{n}") for n, each in enumerate(ingests))
            )
            assert [report.outcome for report in reports].count(Outcome.NEW) == 1
            records = Records(objects)
            state = await records.state(identity(content))
            assert state.latest is not None
            latest = await records.revision(identity(content), state.latest)
            assert latest.collections == ("collection-0", "collection-1", "collection-2")
            assert latest.catalogue == merged_catalogue(await records.memberships(state))
            announced = {event.revision for each in told for event in each.take()}  # type: ignore[attr-defined]
            assert state.latest[1] in announced
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("known", [False, True], ids=["a new file", "a known file with another catalogue"])
async def test_it_goes_on_after_a_crash_before_any_write(
    object_store: Reached, objects: Objects, pool: DecoderPool, colours: list[bytes], known: bool
) -> None:
    """Trouble at the n-th call to the store, for every n; the second try ends as if there had been no trouble."""
    hooked = HookedObjects(object_store.endpoint, object_store.access_key, object_store.secret_key, objects.bucket)
    records = Records(objects)

    async def away() -> None:
        raise Passing("object store", "away")

    shapes: set[tuple[str, ...]] = set()
    try:
        for number in range(1, 40):
            content = picture((number * 6, 10, 200 if known else 100))
            item = identity(content)
            if known:
                await Ingest(records, pool, Published()).add(source(content, title="before"), "spring")
            hooked.arm(number, away)
            published = Published()
            try:
                await Ingest(Records(hooked), pool, published).add(source(content, title="Sea"), "spring")
                crashed = False
            except Passing:
                crashed = True
            hooked.disarm()
            for event in published.events:
                # Announced only what is complete.
                assert await objects.exists(revision_key(item, (event.generation, event.revision)))  # type: ignore[attr-defined]
            await Ingest(Records(hooked), pool, published).add(source(content, title="Sea"), "spring")
            state = await records.state(item)
            assert state.latest == (0, 2 if known else 1)
            latest = await records.revision(item, state.latest)
            assert latest.catalogue == Catalogue(title="Sea")
            assert any(event.revision == state.latest[1] for event in published.events)  # type: ignore[attr-defined]
            shapes.add(tuple(sorted(key.replace(item, "").replace(digest_of(content), "") for key in state.keys)))
            if not crashed:
                break
        assert number > 5
        assert len(shapes) == 1
    finally:
        hooked.close()


async def test_a_broker_away_after_the_record_was_written_costs_only_a_second_try(
    records: Records, pool: DecoderPool, published: Published, colours: list[bytes]
) -> None:
    async def away(events: object) -> None:
        raise Passing("broker", "away")

    with pytest.raises(Passing):
        await Ingest(records, pool, away).add(source(colours[0]), "spring")
    report = await Ingest(records, pool, published).add(source(colours[0]), "spring")
    assert report.outcome is Outcome.KNOWN
    assert len(published.of(Arrived)) == 1


async def test_what_was_withdrawn_comes_back_only_deliberately_and_as_a_new_generation(
    world: World, pool: DecoderPool, colours: list[bytes]
) -> None:
    item, file = identity(colours[0]), source(colours[0], title="Sea")
    plain, again = Ingest(world.records, pool, world.publish), Ingest(world.records, pool, world.publish, again=True)
    await plain.add(file, "spring")
    await world.settle()
    await withdraw(world.records, world.publish, item, "")
    # Before and after the takedown was carried out.
    for _ in range(2):
        report = await plain.add(file, "spring")
        assert report.outcome is Outcome.WITHDRAWN
        assert "--again" in report.advice
        await world.settle()
    assert len(await everything_of(world.records, item)) == 1
    assert (await again.add(file, "spring")).outcome is Outcome.NEW
    await world.settle()
    state = await world.records.state(item)
    assert (state.latest, state.buried, state.alive) == ((1, 1), 0, True)
    assert state.done(Stage.INDEX) is not None
    assert await world.points() == {(item, 1)}
    assert (await again.add(file, "spring")).outcome is Outcome.KNOWN


async def test_a_takedown_in_the_middle_of_an_ingest_is_no_defect(
    object_store: Reached, world: World, pool: DecoderPool
) -> None:
    """At every call to the store; afterwards the item is gone, or (had it begun again) whole."""
    hooked = world.records.objects
    assert isinstance(hooked, HookedObjects)
    for number in range(1, 12):
        content = picture((number * 20, 77, 10))
        item = identity(content)
        ingest = Ingest(world.records, pool, world.publish)
        await ingest.add(source(content, title="before"), "spring")
        await world.settle()

        async def take_down(item: str = item) -> None:
            await withdraw(world.records, world.publish, item, "")
            await world.settle()

        hooked.arm(number, take_down)
        report = await ingest.add(source(content, title="after"), "spring")
        happened = hooked.disarm() >= number
        assert report.outcome in (Outcome.CHANGED, Outcome.WITHDRAWN, Outcome.NEW)
        if not happened:
            break
        await world.settle()

        await Reconciler(world.records, world.publish, 0).run_once(at_once=True)
        await world.settle()
        assert [key for key in await everything_of(world.records, item) if "/tombstones/" not in key] == [], number
    assert number > 4


@pytest.mark.parametrize("again", [False, True])
async def test_a_takedown_that_races_the_creation_of_an_item_wins(
    world: World, pool: DecoderPool, again: bool
) -> None:
    """At every call of an ingest another process brings the same bytes in and they are taken down, to the end."""
    hooked = world.records.objects
    assert isinstance(hooked, HookedObjects)
    for number in range(1, 20):
        content = picture((number * 12, 30, 140))
        item = identity(content)
        if again:
            await Ingest(world.records, pool, world.publish).add(source(content), "autumn")
            await withdraw(world.records, world.publish, item, "")
            await world.settle()

        async def come_and_go(content: bytes = content, item: str = item) -> None:
            await Ingest(world.records, pool, world.publish, again=again).add(source(content), "autumn")
            await withdraw(world.records, world.publish, item, "")
            await world.settle()

        hooked.arm(number, come_and_go)
        # With --again, an ingest that looks only after the takedown rightly brings the item back.
        report = await Ingest(world.records, pool, world.publish, again=again).add(source(content), "spring")
        if hooked.disarm() < number:
            assert report.outcome is Outcome.NEW
            break
        late = again and number == 1
        assert report.outcome is (Outcome.NEW if late else Outcome.WITHDRAWN), number
        left = [key for key in await everything_of(world.records, item) if "/tombstones/" not in key]
        assert bool(left) is late, number
        assert not any(isinstance(event, Arrived) for event in world.published.events) or late
        await world.settle()
    assert number > 7


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jpg", b"", "empty"),
        ("words.txt", b"only words", ""),
        ("half.jpg", picture()[:200], ""),
    ],
)
async def test_a_bad_file_is_refused_in_plain_words_and_leaves_nothing(
    ingest: Ingest, records: Records, published: Published, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    report = await ingest.add(Source(name, path), "spring")
    assert report.outcome is Outcome.REFUSED
    assert words in report.reason
    assert report.reason.endswith(".")
    assert "Traceback" not in report.reason
    assert published.events == []
    assert await records.objects.list("") == []


async def test_a_folder_a_pipe_and_a_missing_file_are_refused(ingest: Ingest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "regular"), (tmp_path / "pipe", "regular"), (tmp_path / "none", "no such file")):
        report = await ingest.add(Source(path.name, path), "spring")
        assert report.outcome is Outcome.REFUSED
        assert words in report.reason


async def test_trouble_with_one_file_never_stops_the_others(
    ingest: Ingest, published: Published, colours: list[bytes]
) -> None:
    async def files() -> AsyncIterator[Source | Report]:
        for number, content in enumerate(colours[:5]):
            yield source(content, f"{number}.jpg")
            yield source(b"not a picture %d" % number, f"bad-{number}")
        yield Report("row 7", Outcome.REFUSED, reason="it names no file.")

    reports = [report async for report in ingest.add_all(files(), "spring")]
    assert sorted(report.outcome for report in reports) == ["new"] * 5 + ["refused"] * 6
    assert len(published.of(Arrived)) == 5


async def test_arrival_is_numbered_in_the_order_of_coming(
    ingest: Ingest, records: Records, colours: list[bytes]
) -> None:
    for content in colours[:4]:
        await ingest.add(source(content), "spring")
    numbers = [(await records.revision(identity(content), (0, 1))).sequence for content in colours[:4]]
    assert numbers == sorted(set(numbers))


async def test_a_missing_rendition_is_made_again_from_the_original(
    ingest: Ingest, records: Records, pool: DecoderPool, colours: list[bytes]
) -> None:
    item = (await ingest.add(source(colours[0]), "spring")).item
    key = rendition_key(item, 0, "picture.jpg")
    before = await records.objects.get(key)
    await records.objects.delete([key])
    assert await load_rendition(records, pool, item, 0) == before
    assert await records.objects.get(key) == before
    await records.objects.delete([key])
    await records.objects.put(media_key(item, 0), colours[1])
    with pytest.raises(Lasting, match="not what its name says"):
        await load_rendition(records, pool, item, 0)
    await records.objects.delete([media_key(item, 0)])
    with pytest.raises(Lasting, match="missing"):
        await load_rendition(records, pool, item, 0)


async def test_patience_says_what_it_waits_for() -> None:
    tries = 0
    said: list[str] = []

    async def work() -> Report:
        nonlocal tries
        tries += 1
        if tries < 2:
            raise Passing("object store", "does not answer")
        return Report("a", Outcome.NEW)

    assert (await patiently(work, said.append)).outcome is Outcome.NEW
    assert said == ["waiting for the object store: does not answer"]
    tries = -10
    with pytest.raises(Passing):
        await patiently(work, said.append, limit_seconds=-1)


async def test_patience_with_a_store_that_refuses_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a person can mend a wrong key, so the person hears of it."""
    monkeypatch.setattr("streams.ingest.REFUSAL_SECONDS", 0.1)
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)
        raise Refusing("object store", "it refuses: the key")

    with pytest.raises(Refusing):
        await patiently(work, lambda _: None)
    assert len(calls) == 2


async def test_a_store_that_refuses_for_a_moment_after_it_was_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.ingest.REFUSAL_SECONDS", 0.1)
    answers: list[Passing | None] = [Passing("object store", "away"), Refusing("object store", "starting"), None]

    async def work() -> str:
        trouble = answers.pop(0)
        if trouble is not None:
            raise trouble
        return "done"

    assert await patiently(work, lambda _: None) == "done"


async def test_the_same_file_without_catalogue_data_takes_nothing_away(
    ingest: Ingest, records: Records, published: Published, colours: list[bytes]
) -> None:
    await ingest.add(source(colours[0], title="Sea"), "spring")
    assert (await ingest.add(source(colours[0]), "spring")).outcome is Outcome.KNOWN
    assert (await records.revision(identity(colours[0]), (0, 1))).catalogue == Catalogue(title="Sea")
    assert (await records.state(identity(colours[0]))).latest == (0, 1)


async def test_a_file_is_reported_when_it_is_done_though_the_next_one_never_comes(
    ingest: Ingest, colours: list[bytes]
) -> None:
    never = asyncio.Event()

    async def sources() -> AsyncIterator[Source | Report]:
        yield source(colours[0])
        await never.wait()

    reports = ingest.add_all(sources(), "spring")
    report = await asyncio.wait_for(anext(reports), 60)
    assert report.outcome is Outcome.NEW
    await reports.aclose()  # type: ignore[attr-defined]
