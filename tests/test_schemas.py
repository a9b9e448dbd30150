"""Events and records as they are written down: exported schemas, old documents, round trips, and bad events."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas import events as of_events
from schemas.events import EVENT_OF_STAGE, EVENT_TYPES, MAXIMUM_EVENT_BYTES, Arrived, Event, Scored, decode, encode
from schemas.export import FOLDER, RECORDS, breaking_changes, exported, text_of
from schemas.failures import Lasting
from schemas.media import Kind, item_id, split_item_id
from schemas.records import Catalogue, Membership, Stage, inputs_digest, merged_catalogue

MODELS: dict[str, type[BaseModel]] = {f"events/{model.__name__}": model for model in EVENT_TYPES} | {
    f"records/{model.__name__}": model for model in RECORDS
}
EXPORTED = exported()
SAMPLES: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "samples" / "version-1.json").read_text())

# -- exported schemas ------------------------------------------------------------------------------------------


def test_the_exported_schemas_are_those_of_the_code() -> None:
    for name, schema in exported().items():
        path = FOLDER / name
        assert path.exists(), f"{name} is not exported: run `python -m schemas.export`"
        problems = breaking_changes(json.loads(path.read_text()), schema)
        assert not problems, f"{name} breaks old documents, give it a new schema_version: {problems}"
        assert path.read_text() == text_of(schema), f"{name} changed: run `python -m schemas.export`"
    present = {
        str(path.relative_to(FOLDER)) for folder in ("events", "records") for path in FOLDER.glob(f"{folder}/*")
    }
    assert present == set(exported())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_documents_of_version_1_are_still_read(name: str) -> None:
    assert SAMPLES[name], "every event and record has samples"
    for document in SAMPLES[name]:
        jsonschema.validate(document, exported()[f"{name}.json"])
        read = MODELS[name].model_validate_json(json.dumps(document))
        written = json.loads(read.model_dump_json())
        for field, value in document.items():
            if not isinstance(value, dict | list | float):
                assert written[field] == value, field
        assert MODELS[name].model_validate_json(read.model_dump_json()) == read


def changed(name: str, change: Any) -> dict[str, Any]:
    schema = copy.deepcopy(exported()[name])
    change(schema)
    return schema


def _require(schema: dict[str, Any]) -> None:
    schema["properties"]["colour"] = {"type": "string"}
    schema["required"].append("colour")


BREAKING: list[tuple[str, Any]] = [
    ("colour is required now", _require),
    ("trace was removed", lambda schema: schema["properties"].pop("trace")),
    ("type was", lambda schema: schema["properties"]["revision"].update(type="string")),
    ("required now", lambda schema: schema["required"].append("happened")),
    ("pattern", lambda schema: schema["properties"]["trace"].update(pattern="^[0-9a-f]{64}$")),
    ("maximum", lambda schema: schema["properties"]["generation"].update(maximum=9)),
    ("minimum", lambda schema: schema["properties"]["generation"].update(minimum=1)),
    ("no longer allowed", lambda schema: schema["properties"]["type"].update(const="came")),
    ("maxLength", lambda schema: schema["properties"]["item"].update(maxLength=10)),
]


@pytest.mark.parametrize(("words", "change"), BREAKING, ids=[words for words, _ in BREAKING])
def test_a_change_that_breaks_old_documents_is_found(words: str, change: Any) -> None:
    name = "events/Arrived.json"
    problems = breaking_changes(exported()[name], changed(name, change))
    assert any(words in problem for problem in problems), problems


def test_a_change_deep_inside_a_record_is_found() -> None:
    def lose_an_answer(schema: dict[str, Any]) -> None:
        schema["properties"]["body"]["oneOf"].pop(0)

    def shorter(schema: dict[str, Any]) -> None:
        schema["$defs"]["ScoreBody"]["properties"]["rgb"]["maxItems"] = 4

    for change in (lose_an_answer, shorter):
        assert breaking_changes(exported()["records/Result.json"], changed("records/Result.json", change))

    def no_null(schema: dict[str, Any]) -> None:
        schema["$defs"]["Catalogue"]["properties"]["title"]["anyOf"].pop()

    assert breaking_changes(exported()["records/Membership.json"], changed("records/Membership.json", no_null))


def test_a_change_that_only_allows_more_is_no_break() -> None:
    def more(schema: dict[str, Any]) -> None:
        schema["properties"]["colour"] = {"type": "string"}
        schema["properties"]["generation"].pop("maximum")
        schema["required"].remove("revision")
        schema["properties"]["revision"]["type"] = "number"
        schema["title"] = "Another"

    assert breaking_changes(exported()["events/Arrived.json"], changed("events/Arrived.json", more)) == []
    for schema in exported().values():
        assert breaking_changes(schema, schema) == []


# -- events ----------------------------------------------------------------------------------------------------

ITEMS = st.builds(item_id, st.sampled_from(Kind), st.text("0123456789abcdef", min_size=64, max_size=64))
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=63)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "trace": st.text("0123456789abcdef", min_size=32, max_size=32),
    "happened": MOMENTS,
    "item": ITEMS,
    "generation": st.integers(0, 999_999),
    "revision": st.integers(1, 999_999),
    "number": st.integers(1, 10**12 - 1),
    "result": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=99),
    "request": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=99),
    "piece": st.text("0123456789abcdef", min_size=20, max_size=20),
    "composer": st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,39}\Z"),
    "picture_score": st.none() | st.floats(-1, 1),
    "track_score": st.none() | st.floats(-1, 1),
    "exhibition": st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,62}\Z"),
    "what": st.sampled_from(["item-ready", "item-left"]),
    "stage": TEXT.map(lambda text: text[:40]),
}


def event_strategy(model: type[Event]) -> st.SearchStrategy[Event]:
    return st.fixed_dictionaries(
        {name: FIELDS[name] for name in model.model_fields if name not in ("type", "schema_version")}
    ).map(model.model_validate)


EVENTS = st.one_of([event_strategy(model) for model in EVENT_TYPES])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    content = encode(event)
    assert len(content) <= MAXIMUM_EVENT_BYTES
    assert decode(content, type(event)) == event
    jsonschema.validate(json.loads(content), EXPORTED[f"events/{type(event).__name__}.json"])
    assert event.key()


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(
            lambda value: json.dumps(value).encode()
        ),
        st.dictionaries(
            st.sampled_from(["type", "item", "schema_version", "trace", "revision", "x"]),
            st.none() | st.integers() | st.text() | st.just("arrived"),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_arrives_is_an_event_or_a_plain_refusal(content: bytes) -> None:
    try:
        event = decode(content, Arrived)
    except Lasting as failure:
        assert failure.reason.endswith(".")
        assert failure.advice
        assert len(failure.reason) < 1000
    else:
        assert isinstance(event, Arrived)


GOOD = json.loads(encode(Arrived(trace="0" * 32, item=item_id(Kind.TRACK, "a" * 64), generation=0, revision=1)))


def bad(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({field: value for field, value in GOOD.items() if field != name}).encode()


BAD: list[tuple[str, bytes | None, str]] = [
    ("nothing", None, "empty"),
    ("empty", b"", "empty"),
    ("not JSON", b"{'type': arrived}", "not JSON"),
    ("not text", b"\xff\xfe\x00\x81", "not JSON"),
    ("a list", b"[1, 2]", "not an object"),
    ("a number", b"7", "not an object"),
    ("deep nesting", b"[" * 60_000, "not JSON"),
    ("deep objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not JSON"),
    ("five megabytes", b'{"x": "' + b"a" * 5_000_000 + b'"}', "more than 65536"),
    ("no type", without("type"), "schema"),
    ("another type", bad(type="vanished"), "vanished"),
    ("a very long type", bad(type="v" * 50_000), "schema"),
    ("version 2", bad(schema_version=2), "schema version '2'; this reader knows 1"),
    ("version as text", bad(schema_version="1"), "schema version '1'"),
    ("no version at all but null", bad(schema_version=None), "schema version 'None'"),
    ("a field too many", bad(colour="red"), "colour"),
    ("no item", without("item"), "item"),
    ("a strange item", bad(item="artwork-../../etc/passwd"), "item"),
    ("an item with a line break", bad(item=GOOD["item"] + "\n"), "item"),
    ("a negative revision", bad(revision=-1), "revision"),
    ("a revision of 4000 digits", bad(revision=10**4000), "revision"),
    ("a revision of 10,000 digits", b'{"revision": ' + b"1" * 10_000 + b"}", "not JSON"),
    ("a broken revision", bad(revision=1.5), "revision"),
    ("a revision that is not a number", bad(revision=float("nan")), "revision"),
    ("no zone in the time", bad(happened="2026-11-21T04:00:00"), "happened"),
    ("no time in the time", bad(happened="yesterday"), "happened"),
    ("half a letter", b'{"type": "arrived", "trace": "\\ud800"}', "schema"),
    (
        "another event",
        encode(Scored(trace="0" * 32, item=GOOD["item"], generation=0, revision=1, result="r")),
        "topic",
    ),
]


@pytest.mark.parametrize(("content", "words"), [(each[1], each[2]) for each in BAD], ids=[each[0] for each in BAD])
def test_a_bad_event_is_refused_with_a_plain_reason(content: bytes | None, words: str) -> None:
    with pytest.raises(Lasting) as caught:
        decode(content, Arrived)
    assert words in caught.value.reason
    assert caught.value.reason.endswith(".")
    assert len(caught.value.reason) < 600
    assert "Traceback" not in caught.value.reason


def test_an_event_beyond_the_limit_is_never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    event = Scored(trace="0" * 32, item=GOOD["item"], generation=0, revision=1, result="r" * 1024)
    monkeypatch.setattr(of_events, "MAXIMUM_EVENT_BYTES", 1024)
    with pytest.raises(Lasting, match="more than 1024"):
        encode(event)


def test_no_event_can_be_larger_than_the_limit() -> None:
    for model in EVENT_TYPES:
        widest = {
            "trace": "0" * 32,
            "item": GOOD["item"],
            "generation": 999_999,
            "revision": 999_999,
            "number": 10**12 - 1,
            # The letter that takes most room in JSON: six bytes as an escape.
            "result": "\x01" * 1024,
            "request": "\x01" * 1024,
            "piece": "f" * 20,
            "exhibition": "e" * 63,
            "what": "item-ready",
            "stage": "\x01" * 40,
        }
        event = model.model_validate({name: widest[name] for name in model.model_fields if name in widest})
        assert len(encode(event)) < MAXIMUM_EVENT_BYTES / 4


def test_every_event_has_a_topic_and_a_type_of_its_own() -> None:
    assert len({model.topic for model in EVENT_TYPES}) == len(EVENT_TYPES)
    assert len({model.model_fields["type"].default for model in EVENT_TYPES}) == len(EVENT_TYPES)
    assert set(EVENT_OF_STAGE) == set(Stage)


# -- records ---------------------------------------------------------------------------------------------------


@given(ITEMS)
def test_an_item_id_tells_its_kind_and_digest(item: str) -> None:
    kind, digest = split_item_id(item)
    assert item_id(kind, digest) == item


@pytest.mark.parametrize(
    "text", ["", "artwork-", "poem-" + "a" * 64, "artwork-" + "A" * 64, "artwork-" + "a" * 64 + "\n"]
)
def test_what_is_no_item_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an item id"):
        split_item_id(text)


CATALOGUES = st.builds(
    Catalogue,
    **{name: st.none() | st.sampled_from(["one", "two", "three"]) for name in Catalogue.model_fields},
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(CATALOGUES, st.integers(0, 3)), max_size=5), st.randoms(use_true_random=False))
def test_the_collection_that_has_an_item_longest_says_what_it_is(
    said: list[tuple[Catalogue, int]], chance: Any
) -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017
    memberships = [
        Membership(
            item=item_id(Kind.TRACK, "a" * 64),
            collection=f"collection-{number}",
            catalogue=catalogue,
            generation=0,
            added=start + timedelta(days=days),
        )
        for number, (catalogue, days) in enumerate(said)
    ]
    merged = merged_catalogue(memberships)
    for field in Catalogue.model_fields:
        spoken = [
            (each.added, each.collection, getattr(each.catalogue, field))
            for each in memberships
            if getattr(each.catalogue, field) is not None
        ]
        assert getattr(merged, field) == (min(spoken)[2] if spoken else None)
    chance.shuffle(memberships)
    assert merged_catalogue(memberships) == merged


def test_a_digest_depends_on_the_values_and_not_on_their_order() -> None:
    assert inputs_digest({"a": 1, "b": [1, 2]}) == inputs_digest({"b": [1, 2], "a": 1})
    assert inputs_digest({"a": 1, "b": [1, 2]}) != inputs_digest({"a": 1, "b": [2, 1]})
    assert inputs_digest({"a": None}) != inputs_digest({})
    assert inputs_digest({"a": "1"}) != inputs_digest({"a": 1})
