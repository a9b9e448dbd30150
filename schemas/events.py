"""Events: small notes that something happened, keyed by media id, with references and never with content.

An event carries ids, numbers and object keys; no bytes, captions or vectors travel. Its JSON is at most
64 KiB, checked before publishing because not every broker refuses larger ones. Each class has a fixed `type`
and a `schema_version`; readers refuse what they do not know, with a reason that says what was found.
"""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from schemas.failures import Lasting
from schemas.faults import first_fault
from schemas.media import CollectionName, ComposerName, ItemId, PieceId
from schemas.records import EDGE_COMPOSER, MusicRecord, Stage, now

MAXIMUM_EVENT_BYTES: Final = 64 * 1024
TOPIC_PREFIX: Final = "promenade."

HIGHEST_NUMBER: Final = 999_999
"""Highest generation or revision: keys of the object store give each six digits, so that they sort as numbers do."""


def new_trace() -> str:
    """A fresh trace id: 32 hexadecimal digits that follow an item through all stages."""
    return uuid.uuid4().hex


class Event(BaseModel):
    """What all events share."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    topic: ClassVar[str]

    schema_version: Literal[1] = 1
    trace: str = Field(pattern=r"^[0-9a-f]{32}$")
    happened: AwareDatetime = Field(default_factory=now)

    def key(self) -> str:
        """The key by which the broker orders events."""
        raise NotImplementedError


class ItemEvent(Event):
    """Something happened to one revision of one item."""

    item: ItemId
    generation: int = Field(ge=0, le=HIGHEST_NUMBER)
    revision: int = Field(ge=1, le=HIGHEST_NUMBER)

    def key(self) -> str:
        """Events of one item stay in order: keyed by the item's id."""
        return self.item


class Arrived(ItemEvent):
    """An item is complete in the object store and waits to be captioned."""

    topic: ClassVar[str] = TOPIC_PREFIX + "arrived"
    type: Literal["arrived"] = "arrived"


class Captioned(ItemEvent):
    """The caption stage wrote `result` (an object key)."""

    topic: ClassVar[str] = TOPIC_PREFIX + "captioned"
    type: Literal["captioned"] = "captioned"
    result: str = Field(min_length=1, max_length=1024)


class Scored(ItemEvent):
    """The score stage wrote `result`."""

    topic: ClassVar[str] = TOPIC_PREFIX + "scored"
    type: Literal["scored"] = "scored"
    result: str = Field(min_length=1, max_length=1024)


class Embedded(ItemEvent):
    """The embed stage wrote `result`."""

    topic: ClassVar[str] = TOPIC_PREFIX + "embedded"
    type: Literal["embedded"] = "embedded"
    result: str = Field(min_length=1, max_length=1024)


class Indexed(ItemEvent):
    """The item's vectors are in the vector store; `result` says in which spaces."""

    topic: ClassVar[str] = TOPIC_PREFIX + "indexed"
    type: Literal["indexed"] = "indexed"
    result: str = Field(min_length=1, max_length=1024)


class PairingCommand(Event):
    """To one exhibition's agent. Keyed by exhibition, so their order is one order.

    `item-ready` and `item-left` name an item. The others carry nothing, because the settings in the store are what
    counts: `changed` (read the settings: made, changed, pinned, unpinned), `hang` (it is the hour at which the
    wall moves), `deleted` (forget the exhibition if it has no settings any more).
    """

    topic: ClassVar[str] = TOPIC_PREFIX + "pairing"
    type: Literal["pairing"] = "pairing"
    exhibition: CollectionName
    what: Literal["item-ready", "item-left", "changed", "hang", "deleted"]
    item: ItemId | None = None
    generation: int = Field(default=0, ge=0, le=HIGHEST_NUMBER)
    revision: int = Field(default=1, ge=1, le=HIGHEST_NUMBER)

    @model_validator(mode="after")
    def _item_where_due(self) -> Self:
        if (self.item is None) == self.what.startswith("item-"):
            raise ValueError("item-ready and item-left name an item; the other commands name none")
        return self

    def key(self) -> str:
        """Keyed by exhibition."""
        return self.exhibition


class PairingChanged(Event):
    """Revision `number` of an exhibition's pairing was written under `result`."""

    topic: ClassVar[str] = TOPIC_PREFIX + "pairing-changed"
    type: Literal["pairing-changed"] = "pairing-changed"
    exhibition: CollectionName
    number: int = Field(ge=1, le=10**12 - 1)
    result: str = Field(min_length=1, max_length=1024)

    def key(self) -> str:
        """Keyed by exhibition."""
        return self.exhibition


class MusicRequested(ItemEvent):
    """A piece of music for this revision of a picture is wanted; `request` (an object key) says how."""

    topic: ClassVar[str] = TOPIC_PREFIX + "music-requested"
    type: Literal["music-requested"] = "music-requested"
    piece: PieceId
    composer: ComposerName = EDGE_COMPOSER
    request: str = Field(min_length=1, max_length=1024)


class MusicComposed(ItemEvent):
    """A piece of music for this revision of a picture is complete; `result` is its record's key."""

    topic: ClassVar[str] = TOPIC_PREFIX + "music-composed"
    type: Literal["music-composed"] = "music-composed"
    piece: PieceId
    composer: ComposerName = EDGE_COMPOSER
    picture_score: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="ImageBind's cosine of picture and piece; None: that space is not served",
    )
    track_score: float | None = Field(
        default=None, ge=-1, le=1, description="the same of the piece and the track that hung beside the picture"
    )
    result: str = Field(min_length=1, max_length=1024)

    @classmethod
    def of(cls, record: MusicRecord, key: str, trace: str) -> Self:
        """What says that a piece is complete, whose record lies under `key`."""
        near = {to: record.listened(to) for to in ("picture", "track")}
        scores = {
            f"{to}_score": min(1.0, max(-1.0, each.similarity)) for to, each in near.items() if each is not None
        }
        return cls(
            trace=trace,
            item=record.artwork,
            generation=record.generation,
            revision=record.revision,
            piece=record.piece,
            composer=record.composer,
            result=key,
            **scores,
        )


class DeadLettered(Event):
    """Something was set aside; `result` is the dead letter's object key."""

    topic: ClassVar[str] = TOPIC_PREFIX + "dead-letters"
    type: Literal["dead-lettered"] = "dead-lettered"
    item: str = Field(default="", max_length=80)
    stage: str = Field(max_length=40)
    result: str = Field(min_length=1, max_length=1024)

    def key(self) -> str:
        """Keyed by item, or by the reference where there is none."""
        return self.item or self.result


class Withdrawn(Event):
    """A curator took an item down; its tombstone is already in the record."""

    topic: ClassVar[str] = TOPIC_PREFIX + "withdrawn"
    type: Literal["withdrawn"] = "withdrawn"
    item: ItemId
    generation: int = Field(ge=0, le=HIGHEST_NUMBER)

    def key(self) -> str:
        """Keyed by item."""
        return self.item


AnyEvent = Annotated[
    Arrived
    | Captioned
    | Scored
    | Embedded
    | Indexed
    | PairingCommand
    | PairingChanged
    | MusicRequested
    | MusicComposed
    | DeadLettered
    | Withdrawn,
    Field(discriminator="type"),
]

EVENT_TYPES: Final[tuple[type[Event], ...]] = (
    Arrived,
    Captioned,
    Scored,
    Embedded,
    Indexed,
    PairingCommand,
    PairingChanged,
    MusicRequested,
    MusicComposed,
    DeadLettered,
    Withdrawn,
)
"""Every event, in the order of the way; each class names its topic."""

EVENT_OF_STAGE: Final[dict[Stage, tuple[type[Event], type[Event]]]] = {
    Stage.CAPTION: (Arrived, Captioned),
    Stage.SCORE: (Captioned, Scored),
    Stage.EMBED: (Scored, Embedded),
    Stage.INDEX: (Embedded, Indexed),
    Stage.PAIR: (PairingCommand, PairingChanged),
    Stage.COMPOSE: (MusicRequested, MusicComposed),
}
"""Stage -> the event that it waits for and the event that it makes."""

_ADAPTER: TypeAdapter[Event] = TypeAdapter(AnyEvent)


def encode(event: Event) -> bytes:
    """The event as UTF-8 JSON.

    Raises:
        Lasting: it is larger than `MAXIMUM_EVENT_BYTES`.
    """
    content = event.model_dump_json().encode()
    if len(content) > MAXIMUM_EVENT_BYTES:
        raise Lasting(
            f"event {type(event).__name__} has {len(content)} bytes, more than {MAXIMUM_EVENT_BYTES}.",
            "Events carry references only; put content into the object store.",
        )
    return content


def decode(content: bytes | None, expected: type[Event]) -> Event:
    """Read an event of one class from a topic's value.

    Raises:
        Lasting: too large, not JSON, another schema version, unknown type, or fields that do not fit; the
            reason names the first thing that is wrong.
    """
    if not content:
        raise Lasting("the event is empty.", "Send a JSON object of the documented schema.")
    if len(content) > MAXIMUM_EVENT_BYTES:
        raise Lasting(
            f"the event has {len(content)} bytes, more than {MAXIMUM_EVENT_BYTES}.",
            "Events carry references only; put content into the object store.",
        )
    try:
        plain: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Lasting(f"the event is not JSON: {error}.", "Send a UTF-8 JSON object.") from None
    if not isinstance(plain, dict):
        raise Lasting("the event is JSON but not an object.", "Send a JSON object of the documented schema.")
    if plain.get("schema_version", 1) != 1:
        raise Lasting(
            f"the event has schema version {str(plain.get('schema_version'))[:40]!r}; this reader knows 1.",
            "Update this worker, or send version 1.",
        )
    try:
        event = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        where, words = first_fault(error)
        where = where or "event"
        raise Lasting(
            f"the event does not fit its schema at {where[:100]}: {words[:300]}.",
            "See schemas/json for the schema.",
        ) from None
    if not isinstance(event, expected):
        raise Lasting(
            f"the event is a {type(event).__name__}, but this topic holds {expected.__name__}.",
            f"Send it to {type(event).topic}.",
        )
    return event
