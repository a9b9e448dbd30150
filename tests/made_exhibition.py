"""A made exhibition in the records: pictures, tracks, what stages know of them, pairs that hang, a piece of music.

Real pictures and real sounds, but no model and no pipeline: for tests of what people see.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from infra.records import Records, media_key, piece_key, rendition_key, version_text
from schemas.media import RENDITION_NAMES, Kind, MediaFacts
from schemas.records import (
    CaptionBody,
    Catalogue,
    Membership,
    MusicFeelings,
    MusicRecord,
    MusicSimilarity,
    PairChange,
    PairingBasis,
    PairingRevision,
    Phrase,
    Provenance,
    Result,
    Revision,
    ScoreBody,
    now,
)
from tests.stack_fixtures import made_item

PALETTE = [
    {"name": "ochre", "rgb": [200, 150, 40], "share": 0.6},
    {"name": "night blue", "rgb": [20, 30, 90], "share": 0.4},
]
SECONDS = 2.0


def picture_bytes(seed: int = 0, width: int = 640, height: int = 400) -> bytes:
    """A JPEG with a gradient of its own."""
    generator = np.random.default_rng(seed)
    across, down = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    ends = generator.uniform(0, 255, (3, 3))
    pixels = ends[0] + (ends[1] - ends[0]) * across + (ends[2] - ends[0]) * down
    content = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(content, "JPEG", quality=85)
    return content.getvalue()


def sound_bytes(form: str = "OGG", hertz: float = 440.0, seconds: float = SECONDS) -> bytes:
    """A soft tone in stereo at 48 kHz: WAV, FLAC, OGG (Opus)."""
    times = np.arange(int(48_000 * seconds)) / 48_000
    tone = (0.2 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
    content = io.BytesIO()
    subtype = {"OGG": "OPUS", "WAV": "PCM_16", "FLAC": "PCM_16"}[form]
    soundfile.write(content, np.stack([tone, tone], axis=1), 48_000, format=form, subtype=subtype)
    return content.getvalue()


def provenance() -> Provenance:
    """Made by nobody, just now."""
    return Provenance(models={"score_emotion": "made-1"}, profile="made", made=now(), seconds=0.1)


async def put_whole_item(
    records: Records,
    name: str,
    kind: Kind,
    *,
    catalogue: Catalogue | None = None,
    feeling: float = 0.5,
    form: str = "OGG",
) -> str:
    """An item with its media, its rendition, captions and scores.

    Args:
        name: makes the id.
        feeling: in [0,1], turns its colours and its place in the plane.
        form: of a track.
    """
    item = made_item(name, kind)
    said = catalogue or Catalogue(title=name)
    media = picture_bytes(len(name)) if kind is Kind.ARTWORK else sound_bytes(form)
    await records.objects.put(media_key(item, 0), media)
    await records.objects.put(rendition_key(item, 0, RENDITION_NAMES[kind]), media)
    await records.put_membership(
        Membership(item=item, collection="spring", catalogue=said, generation=0, added=now())
    )
    facts: dict[str, Any] = (
        {"format": "JPEG", "width": 640, "height": 400}
        if kind is Kind.ARTWORK
        else {"format": form, "seconds": SECONDS, "sample_rate": 48_000, "channels": 2}
    )
    await records.create_revision(
        Revision(
            item=item,
            kind=kind,
            generation=0,
            revision=1,
            sequence=0,
            media=MediaFacts(byte_count=len(media), **facts),
            catalogue=said,
            collections=("spring",),
            made=now(),
        )
    )
    captions = CaptionBody(
        texts=tuple(f"Caption of {part}." for part in ("one", "two", "three", "four", "all")),
        phrases=((Phrase(text="calm", confidence=0.5),),) * 5,
        measurements=({"palette": PALETTE},) * 5,
        tag_vector=base64.b64encode(np.zeros(4, np.float32).tobytes()).decode(),
    )
    rgb = tuple((40 + 200 * feeling, 220 - 150 * feeling, 60 + 10.0 * place) for place in range(5))
    va = tuple((0.2 + 0.6 * feeling, 0.8 - 0.5 * feeling) for _ in range(5))
    scores = ScoreBody(
        rgb=rgb,
        va=va,
        va_scored=va,
        va_medium=va,
        evidence=(({"source": "word", "what": "lantern", "effect": {}},),) * 5,
    )
    for digest, body in (("a" * 32, captions), ("b" * 32, scores)):
        await records.write_result(
            Result(item=item, generation=0, revision=1, digest=digest, provenance=provenance(), body=body)
        )
    return item


async def hang(
    records: Records, pairs: Sequence[tuple[str, str]], alone: Sequence[str] = (), exhibition: str = "default"
) -> None:
    """Hang pairs by hand, as the pair stage would in the space rgb15: artwork, track; the first is the most alike."""
    members = [item for pair in pairs for item in pair] + list(alone)
    await records.append_pairing(
        PairingRevision(
            exhibition=exhibition,
            number=1,
            owner="made",
            joined=tuple(f"{item}@{version_text((0, 1))}" for item in members),
            changes=tuple(
                PairChange(
                    artwork=artwork, track=track, similarity=0.99 - 0.01 * place, what="formed", why="by a test"
                )
                for place, (artwork, track) in enumerate(pairs)
            ),
            basis=PairingBasis(space="rgb15", rule="stable"),
            made=now(),
        )
    )


async def put_piece(
    records: Records,
    artwork: str,
    track: str | None,
    number: int = 1,
    title: str = "Night music",
    composer: str = "edge",
    scores: tuple[float, float] | None = None,
) -> MusicRecord:
    """A piece of music for a picture, with its sound.

    Args:
        scores: ImageBind's, of picture and piece and of track and piece; None: that space is not served.
    """
    piece = f"{artwork.split('-')[1][:8]}{number:012x}"
    content = sound_bytes("OGG", 330.0)
    await records.objects.put(piece_key(artwork, 0, piece, "piece.ogg"), content)
    record = MusicRecord(
        piece=piece,
        artwork=artwork,
        generation=0,
        revision=1,
        track=track,
        title=title,
        seconds=SECONDS,
        asked_seconds=5.0,
        seed=7,
        composer=composer,
        asked="live",
        report={
            "key": "D",
            "mode": "minor",
            "tempo": 96.4,
            "instruments": [{"name": "Cello", "family": "strings"}, {"name": "Harp", "family": "strings"}],
        },
        sizes={"wav": 1000, "ogg": len(content)},
        first_chunk_seconds=0.5,
        compose_seconds=1.0,
        real_time_factor=0.2,
        provenance=provenance(),
        feelings=MusicFeelings(rgb=(100, 150, 80), va=(0.6, 0.3), words="serene, calm"),
        similarities=(
            MusicSimilarity(to="picture", space="rgb15", similarity=0.97, chance=0.91, percentile=88.0),
            MusicSimilarity(to="track", space="va", similarity=0.7),
            *(
                MusicSimilarity(
                    to=to, space="imagebind-1", similarity=scores[place], chance=0.04 + 0.1 * place, percentile=61.0
                )
                for place, to in enumerate(("picture", "track"))
                if scores is not None
            ),
        ),
        listening_space=None if scores is None else "imagebind-1",
    )
    await records.write_piece(record)
    return record
