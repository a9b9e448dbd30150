"""The record of an item: the one truth from which everything else can be rebuilt.

A record is a handful of small JSON objects under `items/<id>/` in the object store. Facts by people
(memberships) change by conditional writes; facts by stages (results) are immutable, and the first one written
for the same inputs and model version wins. All the objects' *names* together tell the state of an item, so one
listing is enough for `status` and for the check before each step.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from schemas.media import CollectionName, ComposerName, ItemId, Kind, MediaFacts, PieceId

# JSON has no word for infinity: it would be written as null, which no reader takes for a number.
STORED = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stage(StrEnum):
    """The stages of the way, in order."""

    CAPTION = "caption"
    SCORE = "score"
    EMBED = "embed"
    INDEX = "index"
    PAIR = "pair"
    COMPOSE = "compose"


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


class Catalogue(BaseModel):
    """What people say of an item: all optional, plain text, at most 500 characters each."""

    model_config = STORED

    title: str | None = Field(default=None, max_length=500)
    artist: str | None = Field(default=None, max_length=500)
    year: str | None = Field(default=None, max_length=500)
    style: str | None = Field(default=None, max_length=500)
    genre: str | None = Field(default=None, max_length=500)
    licence: str | None = Field(default=None, max_length=500)

    def is_empty(self) -> bool:
        """True when nobody said anything."""
        return not self.model_dump(exclude_none=True)


class Membership(BaseModel):
    """One item in one collection, with that collection's own catalogue data."""

    model_config = STORED

    schema_version: Literal[1] = 1
    item: ItemId
    collection: CollectionName
    catalogue: Catalogue = Catalogue()
    source: str = Field(default="", max_length=2000, description="file name or URL it came from, for people")
    generation: int = Field(ge=0)
    added: datetime


def merged_catalogue(memberships: list[Membership]) -> Catalogue:
    """The one catalogue that feeds the caption.

    Rule: field by field, the value of the collection that has the item longest wins (ties: collection name);
    an empty field is filled by the next one. So a later collection adds facts but never changes them.
    """
    merged: dict[str, str] = {}
    for membership in sorted(memberships, key=lambda each: (each.added, each.collection)):
        for field, value in membership.catalogue.model_dump(exclude_none=True).items():
            merged.setdefault(field, value)
    return Catalogue.model_validate(merged)


class Revision(BaseModel):
    """One numbered state of an item's facts by people; a changed catalogue or membership makes the next number.

    Written by If-None-Match under its number, so two writers cannot both make the same revision.
    """

    model_config = STORED

    schema_version: Literal[1] = 1
    item: ItemId
    kind: Kind
    generation: int = Field(ge=0, description="raised by a deliberate ingest after a withdrawal")
    revision: int = Field(ge=1)
    sequence: int = Field(
        ge=0, description="order of arrival: microseconds since 1970 at the first ingest; ties by id"
    )
    media: MediaFacts
    catalogue: Catalogue
    collections: tuple[CollectionName, ...] = Field(default=(), description="that hold the item, sorted by name")
    made: datetime


class Tombstone(BaseModel):
    """The item was taken down: nothing of this generation or an earlier one may be written any more."""

    model_config = STORED

    schema_version: Literal[1] = 1
    item: ItemId
    generation: int = Field(ge=0)
    reason: str = Field(default="", max_length=2000)
    made: datetime


class Provenance(BaseModel):
    """Who made a result, when, and how long it took."""

    model_config = STORED

    models: dict[str, str] = Field(description="capability -> model version")
    profile: str = Field(description="name of the profile that served the models")
    made: datetime
    seconds: float = Field(ge=0, description="wall time of the work on the batch, divided by its items")


class Phrase(BaseModel):
    """A phrase of a caption with the confidence of the measurement behind it, in [0,1]."""

    model_config = STORED

    text: str
    confidence: float = Field(ge=0, le=1)


class CaptionScores(BaseModel):
    """How well a caption fits its part, as `score_caption` says (ArtSound, section 3.2, equations 1 and 2)."""

    model_config = STORED

    score: FiniteFloat = Field(description="ICScore of a picture, ACScore of a track; good ones are near 1")
    parts: dict[str, FiniteFloat] = Field(
        default={}, description="what the score was made of: clip_score, pac_score; rouge_1, bert_score"
    )
    truncated: bool = Field(default=False, description="some of the caption was not looked at")
    sentences: int = Field(default=0, ge=0, description="that were scored one by one; 0: it was scored as a whole")
    weakest: str = Field(default="", description="the sentence that fits least, where sentences were scored")


class CaptionAttempt(BaseModel):
    """One caption that was tried for a part."""

    model_config = STORED

    text: str
    scores: CaptionScores
    fault: str = Field(default="", description="why it did not pass, as the next prompt named it; empty: it passed")


class CaptionGate(BaseModel):
    """What was tried for one part, in order; the one with the highest score is kept."""

    model_config = STORED

    attempts: tuple[CaptionAttempt, ...] = Field(
        description="empty: there was nothing to score the caption against, and it was kept as it came"
    )
    kept: int = Field(default=0, ge=0, description="place among the attempts, from 0")
    passed: bool
    stopped: str = Field(default="", description="why nobody asked once more although that was allowed")


class CaptionGates(BaseModel):
    """The gates that five captions went through, fragments 1-4 then the whole."""

    model_config = STORED

    threshold: float
    regenerations: int
    parts: tuple[CaptionGate, ...] = Field(min_length=5, max_length=5)


Ending = Literal["complete", "continued", "trimmed", "closed", ""]
"""How a caption came to end at a sentence: by itself; by going on where it was cut; by leaving out what was begun; by
a full stop set behind it. Empty: the model does not tell."""


class CaptionBody(BaseModel):
    """Five captions with what was measured, fragments 1-4 then the whole."""

    model_config = STORED

    stage: Literal["caption"] = "caption"
    texts: tuple[str, str, str, str, str]
    phrases: tuple[tuple[Phrase, ...], ...] = Field(min_length=5, max_length=5)
    measurements: tuple[dict[str, Any], ...] = Field(min_length=5, max_length=5)
    tag_vector: str = Field(description="the tag model's own vector of the whole: little-endian float32, base64")
    gates: CaptionGates | None = Field(default=None, description="None: the profile serves no score_caption")
    endings: tuple[Ending, ...] = Field(default=(), max_length=5, description="of each text; empty: nobody tells")


class ScoreBody(BaseModel):
    """Five RGB (movement, calm, nostalgia; 0-255) and five valence-arousal points in [0,1]^2 with evidence.

    `va` is the fusion of two readings, both kept: `va_scored` by the model that scores the texts (on the edge
    profile it leans on the measurements as well), `va_medium` by the model that looks at the medium.
    """

    model_config = STORED

    stage: Literal["score"] = "score"
    rgb: tuple[tuple[float, float, float], ...] = Field(min_length=5, max_length=5)
    va: tuple[tuple[float, float], ...] = Field(min_length=5, max_length=5)
    va_scored: tuple[tuple[float, float], ...] = Field(min_length=5, max_length=5)
    va_medium: tuple[tuple[float, float], ...] = Field(min_length=5, max_length=5)
    evidence: tuple[tuple[dict[str, Any], ...], ...] = Field(min_length=5, max_length=5)


class EmbedBody(BaseModel):
    """Vectors by space: the whole, and the five parts where the space has them.

    Each value is little-endian float32 in base64; `parts` holds fragments 1-4 then the whole, one after another.
    """

    model_config = STORED

    stage: Literal["embed"] = "embed"
    vectors: dict[str, str]
    parts: dict[str, str] = {}


class IndexBody(BaseModel):
    """The item's point is in the vector store under these spaces."""

    model_config = STORED

    stage: Literal["index"] = "index"
    spaces: tuple[str, ...]


Body = CaptionBody | ScoreBody | EmbedBody | IndexBody


class Result(BaseModel):
    """One immutable result of one stage for one revision of one item."""

    model_config = STORED

    schema_version: Literal[1] = 1
    item: ItemId
    generation: int = Field(ge=0)
    revision: int = Field(ge=1)
    digest: str = Field(pattern=r"^[0-9a-f]{32}$", description="hash of the inputs and the model versions")
    provenance: Provenance
    body: Body = Field(discriminator="stage")


class DeadLetter(BaseModel):
    """An item (or an unreadable event) set aside, with the reason and what can be done."""

    model_config = STORED

    schema_version: Literal[1] = 1
    item: str = Field(default="", description="item id; empty when the event could not be read")
    generation: int = 0
    revision: int = 0
    stage: str
    reason: str
    advice: str = ""
    reference: str = Field(description="where the thing lies: an object key, or topic/partition/offset")
    event: dict[str, Any] | None = Field(default=None, description="the event to announce again on retry")
    made: datetime


class ExhibitionSettings(BaseModel):
    """A named set of collections with the space to pair in and the rule to pair by.

    Numbered like an item's revisions: creating the next number is compare and set, so no two curators undo each
    other unseen.
    """

    model_config = STORED

    schema_version: Literal[1] = 1
    name: CollectionName
    collections: tuple[str, ...] | None = Field(default=None, description="None: every collection")
    space: str = Field(default="rgb15", description="as workers.pairing.spaces spells it")
    rule: str = "stable"
    number: int = Field(default=0, ge=0, description="of these settings; 0: nobody set them")
    creation: str = Field(
        default="",
        pattern=r"^[a-z0-9]{0,32}$",
        description="a fresh word for each creation: an exhibition made again under an old name has a log of its own",
    )
    mix: tuple[tuple[str, float], ...] = Field(
        default=(), description="where the space is `mix`: pairing space and weight, each calibrated first"
    )
    floor: float | None = Field(default=None, description="similarity below which items stay free")
    pins: tuple[tuple[ItemId, ItemId], ...] = Field(default=(), description="artwork and track that a person fixed")
    threshold: float = Field(
        default=0.0,
        ge=0,
        description="gain in total similarity that an exchange must bring before the wall follows; 0: it always does",
    )
    hour: int | None = Field(
        default=None, ge=0, le=23, description="hour of the day (UTC) in which the wall follows whatever it gains"
    )
    music: Literal["never", "on request", "always"] = Field(
        default="on request", description="when music is composed for the pictures that hang"
    )
    composer: ComposerName | None = Field(
        default=None, description="who composes for this wall; all: each of them; None: the profile's first one"
    )

    @property
    def home(self) -> str:
        """Folder of the pairing's log and snapshots below `exhibitions/`."""
        return f"{self.name}/{self.creation}" if self.creation else self.name


SHORTEST_PIECE: Final = 5.0
LONGEST_PIECE: Final = 180.0
"""Seconds of a piece of music."""

DEFAULT_SECONDS: Final = 60.0
"""Length of a piece where nobody asks for another: four sections of 15 s, long enough for a phrase and its answer."""

HIGHEST_SEED: Final = 2**53 - 1
"""The highest whole number that every reader of JSON keeps exactly."""

EDGE_COMPOSER: Final = "edge"
"""Who composed the pieces and requests that name no composer: they are older than the choice."""

EVERY_COMPOSER: Final = "all"
"""In the place of a composer's name: each of them."""

Wish = str | float
"""What is wished for: a family of instruments, a key, a tempo."""


class MusicRequest(BaseModel):
    """What was asked for when a piece was wanted in the background. Immutable: the first one for a piece stays."""

    model_config = STORED

    schema_version: Literal[1] = 1
    piece: PieceId
    artwork: ItemId
    generation: int = Field(ge=0)
    revision: int = Field(ge=1)
    exhibition: CollectionName | None = Field(default=None, description="on whose wall the picture hangs")
    track: ItemId | None = Field(default=None, description="that it was paired with when this was asked")
    seconds: float = Field(ge=SHORTEST_PIECE, le=LONGEST_PIECE)
    seed: int = Field(default=0, ge=0, le=HIGHEST_SEED)
    wishes: dict[str, Wish] = {}
    composer: ComposerName = EDGE_COMPOSER
    asked: Literal["background", "live"] = "background"
    made: datetime


class MusicFeelings(BaseModel):
    """What a piece makes people feel, by the models that a track goes through: the whole, and its four parts."""

    model_config = STORED

    rgb: tuple[float, float, float] = Field(description="movement, calm, nostalgia, 0-255")
    va: tuple[float, float] = Field(description="valence and arousal in [0,1]")
    words: str
    rgb_parts: tuple[tuple[float, float, float], ...] = Field(default=(), description="part-1 to part-4, the whole")
    va_parts: tuple[tuple[float, float], ...] = Field(default=(), description="part-1 to part-4, the whole")


class MusicSimilarity(BaseModel):
    """How near a piece is to its picture or to the track paired with it, in one space, beside chance."""

    model_config = STORED

    to: Literal["picture", "track"]
    space: str
    similarity: float
    chance: float | None = Field(
        default=None,
        description="mean similarity of the exhibition's pictures (or other tracks) with its tracks; None: too few",
    )
    percentile: float | None = Field(
        default=None, description="share of those pairs that are less similar, in percent, equal ones counted half"
    )


class MusicRecord(BaseModel):
    """A piece of music: how it came to be and what it is like. Written last, so a piece that has one is complete."""

    model_config = STORED

    schema_version: Literal[1] = 1
    piece: PieceId
    artwork: ItemId
    generation: int = Field(ge=0)
    revision: int = Field(ge=1)
    exhibition: CollectionName | None = None
    track: ItemId | None = Field(default=None, description="that the picture was paired with when it was composed")
    title: str = ""
    seconds: float = Field(ge=0, description="of the sound itself")
    asked_seconds: float = Field(ge=SHORTEST_PIECE, le=LONGEST_PIECE)
    seed: int = Field(ge=0)
    wishes: dict[str, Wish] = {}
    composer: ComposerName = EDGE_COMPOSER
    asked: Literal["background", "live"]
    report: dict[str, Any] = Field(description="of the composer: key, mode, tempo, sections, instruments, loudness")
    sizes: dict[str, int] = Field(description="wav, ogg: bytes")
    queue_seconds: float | None = Field(default=None, ge=0, description="from the request to its start")
    first_chunk_seconds: float = Field(ge=0, description="from the call to the first sound")
    compose_seconds: float = Field(ge=0, description="from the call to the last sound")
    real_time_factor: float = Field(ge=0, description="compose_seconds for each second of sound")
    provenance: Provenance
    feelings: MusicFeelings | None = None
    similarities: tuple[MusicSimilarity, ...] = ()
    listening_space: str | None = Field(
        default=None,
        description="among the similarities, the space that compares a picture and a sound directly (ImageBind); "
        "None: the profile served none",
    )

    def listened(self, to: str) -> MusicSimilarity | None:
        """The score picture-music or track-music: ImageBind's cosine, where it was served (Art2Mus, IBSc)."""
        for each in self.similarities:
            if (each.to, each.space) == (to, self.listening_space):
                return each
        return None


class PairChange(BaseModel):
    """One pair formed, parted, or only given another similarity (rescored), and why."""

    model_config = STORED

    artwork: ItemId
    track: ItemId
    similarity: float
    what: Literal["formed", "parted", "rescored"]
    why: str = Field(description="formed by arrival of ..., displaced by ..., withdrawn ..., pinned, re-paired ...")


class PairingConstants(BaseModel):
    """What a pairing took from its items when it was last paired as a whole, and keeps until they drift by 5%."""

    model_config = STORED

    sigma: float | None = Field(default=None, description="MMVA's sigma; None: the space has no va")
    calibrations: dict[str, tuple[tuple[int, int], ...]] = Field(
        default={},
        description="of a mix: pairing space -> rising points (similarity, share of all possible pairs that are less "
        "similar), both in units of 1e-7; straight lines between them",
    )
    dimensions: tuple[int, ...] = Field(default=(), description="of a mix: numbers in each component's vectors")


class PairingBasis(BaseModel):
    """By what a target pairing is exact: space, rule, floor and the constants."""

    model_config = STORED

    space: str
    rule: str
    floor: float | None = None
    mix: tuple[tuple[str, float], ...] = ()
    constants: PairingConstants = PairingConstants()

    def fits(self, settings: ExhibitionSettings) -> bool:
        """True when the settings ask for just this."""
        asked = (settings.space, settings.rule, settings.floor, settings.mix)
        return (self.space, self.rule, self.floor, self.mix) == asked


class PairingRevision(BaseModel):
    """One numbered step of an exhibition's pairing: who came, who left, which pairs changed.

    Written with If-None-Match under the next number: of two writers only one can continue the log, so a paused
    old owner cannot write after a new one took over.
    """

    model_config = STORED

    schema_version: Literal[1] = 1
    exhibition: str
    number: int = Field(ge=1)
    owner: str = Field(description="the writer's own random name")
    joined: tuple[str, ...] = Field(default=(), description="item@generation.revision")
    left: tuple[str, ...] = ()
    changes: tuple[PairChange, ...] = Field(default=(), description="of the target pairing, exact by the rule")
    hung: tuple[PairChange, ...] | None = Field(
        default=None, description="changes of what the wall shows; None: the same as those of the target"
    )
    basis: PairingBasis | None = Field(default=None, description="by what it is paired from here on; None: as before")
    pins: tuple[tuple[ItemId, ItemId], ...] | None = Field(default=None, description="from here on; None: as before")
    made: datetime


class PairingSnapshot(BaseModel):
    """The whole state of an exhibition's pairing after revision `number`, so that a start need not read the log."""

    model_config = STORED

    schema_version: Literal[1] = 1
    exhibition: str
    number: int = Field(ge=0)
    members: dict[str, str] = Field(description="item id -> generation.revision whose vectors it is paired by")
    pairs: tuple[tuple[str, str, float], ...] = Field(description="target pairing: artwork, track, similarity")
    hung: tuple[tuple[str, str, float], ...] | None = Field(default=None, description="the wall; None: as the target")
    basis: PairingBasis | None = None
    pins: tuple[tuple[ItemId, ItemId], ...] = ()
    made: datetime


def inputs_digest(inputs: Any) -> str:
    """128 bits of SHA-256 over the canonical JSON of a stage's inputs, in hexadecimal (32 characters)."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
