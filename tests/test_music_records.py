"""Where pieces of music lie in the record, and what the names of their objects tell."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from infra.records import ItemState, Records, compose_letter, piece_key, states_from
from schemas.failures import Lasting, Refused
from schemas.media import Kind
from schemas.records import DeadLetter, MusicRecord, MusicRequest, Provenance, Tombstone, now
from tests.stack_fixtures import made_item, put_item
from workers.compose import beside_chance, checked_wishes
from workers.spool import FRAME_BYTES, RATE, Spool, wav_header


def piece_of(artwork: str, number: int = 0) -> str:
    return artwork.split("-")[1][:8] + f"{number:012x}"


def request(artwork: str, number: int = 0, generation: int = 0) -> MusicRequest:
    piece = piece_of(artwork, number)
    return MusicRequest(piece=piece, artwork=artwork, generation=generation, revision=1, seconds=5, made=now())


def record(artwork: str, number: int = 0, generation: int = 0) -> MusicRecord:
    return MusicRecord(
        piece=piece_of(artwork, number),
        artwork=artwork,
        generation=generation,
        revision=1,
        seconds=5,
        asked_seconds=5,
        seed=number,
        asked="live",
        report={},
        sizes={"wav": 4, "ogg": 4},
        first_chunk_seconds=0.5,
        compose_seconds=1,
        real_time_factor=0.2,
        provenance=Provenance(models={}, profile="edge", made=now(), seconds=1),
    )


async def keep(records: Records, kept: MusicRecord) -> None:
    """Sound and record of a piece."""
    for form in ("wav", "ogg"):
        await records.objects.put(piece_key(kept.artwork, kept.generation, kept.piece, f"piece.{form}"), b"RIFF")
    await records.write_piece(kept)


async def test_a_piece_is_wanted_until_it_is_complete_or_set_aside(records: Records) -> None:
    artwork = await put_item(records, "sea")
    await records.write_request(request(artwork, 1))
    await records.write_request(request(artwork, 2))
    assert set((await records.state(artwork)).wanted_pieces()) == {piece_of(artwork, 1), piece_of(artwork, 2)}
    await keep(records, record(artwork, 1))
    letter = DeadLetter(item=artwork, revision=1, stage="compose", reason="no strings", reference="x", made=now())
    await records.set_aside(letter, compose_letter(piece_of(artwork, 2)))
    state = await records.state(artwork)
    assert state.wanted_pieces() == []
    assert state.pieces() == [piece_of(artwork, 1)]
    assert [each.piece for each in await records.all_pieces()] == [piece_of(artwork, 1)]


async def test_the_first_record_of_a_piece_stays(records: Records) -> None:
    artwork = await put_item(records, "sea")
    first = record(artwork)
    assert (await records.write_piece(first))[1]
    assert not (await records.write_piece(first.model_copy(update={"asked": "background"})))[1]
    found = await records.piece(artwork, 0, first.piece)
    assert found is not None and found.asked == "live"


async def test_sound_without_a_record_is_no_piece(records: Records) -> None:
    artwork = await put_item(records, "sea")
    await records.objects.put(piece_key(artwork, 0, piece_of(artwork), "piece.wav"), b"half")
    assert await records.pieces(artwork) == []


async def test_a_piece_is_found_by_its_id_alone(records: Records) -> None:
    artwork, other = await put_item(records, "sea"), await put_item(records, "night")
    await keep(records, record(artwork, 1))
    await keep(records, record(other, 1))
    found = await records.find_piece(piece_of(artwork, 1))
    assert found is not None and found[0].item == artwork
    assert found[1] == {"piece.wav", "piece.ogg", "record.json"}
    assert await records.find_piece(piece_of(artwork, 2)) is None


async def test_a_takedown_removes_the_music_of_its_generation_and_of_no_later_one(records: Records) -> None:
    artwork = await put_item(records, "sea")
    await keep(records, record(artwork, 1))
    await records.bury(Tombstone(item=artwork, generation=0, made=now()))
    await put_item(records, "sea", generation=1)
    await keep(records, record(artwork, 1, generation=1))
    await records.erase(artwork)
    left = [info.key for info in await records.objects.list(f"items/{artwork}/music/")]
    assert left and all(key.startswith(f"items/{artwork}/music/000001/") for key in left)
    assert [each.generation for each in await records.pieces(artwork)] == [1]


async def test_a_deleted_piece_leaves_a_mark_until_somebody_wants_it_again(records: Records) -> None:
    artwork = await put_item(records, "sea")
    await records.write_request(request(artwork))
    await keep(records, record(artwork))
    place = (artwork, 0, piece_of(artwork))
    await records.delete_piece(*place)
    assert await records.piece_names(*place) == {"deleted.json"}
    assert await records.pieces(artwork) == [] and (await records.state(artwork)).wanted_pieces() == []
    await records.want_again(*place)
    assert await records.piece_names(*place) == set()


def test_strange_names_below_music_are_passed_over() -> None:
    artwork = made_item("sea", Kind.ARTWORK)
    assert states_from([]) == []
    assert ItemState(artwork).pieces() == [] and ItemState(artwork).wanted_pieces() == []


# -- the spool ---------------------------------------------------------------------------------------------


def tone(seconds: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    moments = np.arange(int(seconds * RATE)) / RATE
    return np.stack([np.sin(moments * 2764.6), np.cos(moments * 2764.6)], axis=1).astype(np.float32) / 3


def test_the_header_has_the_same_length_whether_or_not_the_end_is_known() -> None:
    tags = {"INAM": "Night Café", "ICMT": "odd"}
    growing, whole = wav_header(None, tags), wav_header(48_000, tags)
    assert len(growing) == len(whole)
    assert struct.unpack("<I", whole[4:8])[0] == len(whole) - 8 + 48_000 * FRAME_BYTES
    assert struct.unpack("<I", growing[-4:])[0] == 0xFFFFFFFF


async def test_a_spool_is_the_sound_in_every_form(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 3, {"INAM": "Tone", "ICMT": "a"})
    sound = tone(3)
    for start in range(0, len(sound), RATE):
        spool.write(sound[start : start + RATE])
    spool.finish()
    wav = b"".join([part async for part in spool.listen()])
    decoded, rate = soundfile.read(io.BytesIO(wav))
    assert rate == RATE and np.abs(decoded - sound).max() < 1 / 32_000
    mono, rate = soundfile.read(io.BytesIO(spool.to_rendition()))
    assert rate == 16_000 and abs(len(mono) - 48_000) <= 1
    expected = sound.mean(axis=1)[::3]
    assert np.abs(mono[2000:-2000] - expected[2000 : len(mono) - 2000]).max() < 0.01
    ogg = spool.to_ogg(tmp_path / "spool")
    ogg.seek(0)
    assert soundfile.info(io.BytesIO(ogg.read())).frames == 3 * RATE
    ogg.close()
    spool.close()
    # Nameless files: nothing is left over, however the process ends.
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("bad", [np.zeros((5,)), np.zeros((5, 1)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_what_is_no_sound_is_refused(tmp_path: Path, bad: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    spool = Spool(tmp_path, 5, {})
    with pytest.raises(Lasting):
        spool.write(bad.astype(np.float32))
    assert spool.frames == 0
    spool.close()


# -- words and numbers -------------------------------------------------------------------------------------


def test_wishes_are_short_words_and_numbers() -> None:
    assert checked_wishes({"tempo": 96, "key": "D minor"}) == {"tempo": 96.0, "key": "D minor"}
    for bad in ({"": 1}, {"a" * 41: 1}, {"key": "x" * 201}, {"loud": True}, {"tempo": 1e12}, {"tempo": float("nan")}):
        with pytest.raises(Refused):
            checked_wishes(bad)


def test_similarity_stands_beside_all_pairs_of_different_items() -> None:
    from schemas.spaces import RGB

    left = {name: {"rgb": np.array(value, np.float32)} for name, value in {"a": [1, 0, 0], "b": [0, 1, 0]}.items()}
    right = {name: {"rgb": np.array(value, np.float32)} for name, value in {"c": [1, 0, 0], "d": [0, 0, 1]}.items()}
    (found,) = beside_chance("picture", left["a"], {"rgb": np.array([2, 0, 0], np.float32)}, left, right, [RGB])
    # Of the four pairs one is alike; the others have nothing in common.
    assert (found.similarity, found.chance, found.percentile) == (1.0, 0.25, 87.5)
    (among,) = beside_chance("track", right["c"], {"rgb": np.array([1, 0, 0], np.float32)}, right, right, [RGB])
    # No item is compared with itself.
    assert among.chance == 0.0
    (alone,) = beside_chance("picture", left["a"], {"rgb": np.array([2, 0, 0], np.float32)}, {}, {}, [RGB])
    assert alone.chance is None and alone.percentile is None
