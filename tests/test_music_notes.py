"""What must hold of every piece that is written: as properties over moods, lengths, wishes and seeds.

The plan and the theory are tried with a made player (quick, and wilder than the network); one story runs the built
network where it is there.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edge_models.music import harmony, performance_rnn, plan, writing
from edge_models.music.performance_rnn import EVENTS, LAYERS, TIME_SHIFT, UNITS, VELOCITY, Floats, Integers, Step
from edge_models.music.score import Ask, Note, Passage, Plan
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import finished
from tests.serving_fixtures import REPOSITORY

NETWORK = REPOSITORY / "compose_music" / "1" / "performance_rnn.onnx"
SILENCE = 1.2
"""Seconds without a note sounding that no piece may have inside."""

Piece = tuple[Plan, list[Passage]]


def made_player(event: Integers, control: Floats, hidden: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
    """Plays keys in the middle of the piano, moves on now and then, and never lets go by itself."""
    logits = np.full((len(event), EVENTS), -30.0)
    logits[:, 25:65] = 0.0
    logits[:, VELOCITY + 8 : VELOCITY + 24] = -2.0
    logits[:, TIME_SHIFT + 12 : TIME_SHIFT + 28] = 0.8 - 0.15 * np.argmax(control[:, :12], axis=1)[:, None]
    return logits, hidden, np.zeros((LAYERS, len(event), UNITS), dtype=np.float32)


def silent_player(event: Integers, control: Floats, hidden: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
    """Only lets time go by."""
    logits = np.full((len(event), EVENTS), -30.0)
    logits[:, TIME_SHIFT:] = 0.0
    return logits, hidden, np.zeros((LAYERS, len(event), UNITS), dtype=np.float32)


def ask(
    valence: float = 0.5,
    arousal: float = 0.5,
    rgb: tuple[float, float, float] = (150, 110, 60),
    seconds: float = 24,
    seed: int = 1,
    spread: float = 0.0,
    tags: tuple[str, ...] = (),
    palette: tuple[str, ...] = ("ochre",),
    **wishes: Any,
) -> Ask:
    """A picture whose parts feel the same, or differ by up to `spread`."""
    turns = np.array([[1, -1], [-1, 1], [1, 1], [-1, -1], [0, 0]], dtype=np.float32)
    measurement = {
        "palette": [{"name": name, "rgb": [0, 0, 0], "share": 0.9 / len(palette)} for name in palette],
        "tags": [{"name": name, "confidence": 0.5} for name in tags],
        "light": {"brightness": 0.5, "contrast": 0.5},
        "colour": {"warmth": 0.0},
    }
    return Ask(
        rgb=np.array([rgb] * 5, dtype=np.float32),
        va=np.clip(np.array([[valence, arousal]] * 5, dtype=np.float32) + spread * turns, 0, 1).astype(np.float32),
        measurements=[measurement] * 5,
        vector=np.zeros(8, dtype=np.float32),
        seconds=seconds,
        seed=seed,
        **wishes,
    )


def write(asked: Ask, step: Step = made_player) -> Piece:
    made = plan.make_plan(asked)
    memory = writing.Memory(step)
    return made, [writing.write_section(made, number, memory) for number in range(len(made.sections))]


def pitched(piece: Piece) -> list[Note]:
    made, passages = piece
    return [note for passage in passages for note in passage.notes if made.voices[note.voice].family != "drums"]


def every(piece: Piece) -> list[Note]:
    return [note for passage in piece[1] for note in passage.notes]


def onsets(piece: Piece, number: int) -> int:
    """A voice starting to play; a chord of one voice is one (its notes start within 40 ms)."""
    found = 0
    by_voice: dict[int, list[float]] = {}
    for note in piece[1][number].notes:
        by_voice.setdefault(note.voice, []).append(note.start)
    for starts in by_voice.values():
        starts.sort()
        found += 1 + sum(b - a > 0.04 for a, b in itertools.pairwise(starts))
    return found


feelings = st.floats(0, 1, width=32)
asks = st.builds(
    ask,
    valence=feelings,
    arousal=feelings,
    rgb=st.tuples(*[st.floats(0, 255, width=32)] * 3),
    seconds=st.sampled_from([5.0, 5.7, 8.0, 12.0, 20.0, 33.0]),
    seed=st.integers(0, 2**40),
    spread=st.sampled_from([0.0, 0.1, 0.3]),
    tags=st.sampled_from([(), ("seashore",), ("church",), ("restaurant", "stage")]),
    palette=st.sampled_from([("ochre",), ("black", "umber"), ("white", "silver grey")]),
    instruments=st.sampled_from([None, None, *plan.FAMILIES]),
    key=st.sampled_from([None, None, ("Bb", "major"), ("F#", "phrygian"), ("D", "dorian"), ("C", "lydian")]),
    tempo=st.sampled_from([None, None, None, 40.0, 92.0, 200.0]),
)
pieces = settings(max_examples=20, deadline=None, derandomize=True)


@pieces
@given(asks)
def test_every_piece_keeps_the_rules_of_playing(asked: Ask) -> None:
    piece = made, passages = write(asked)
    notes = every(piece)
    assert [passage.number for passage in passages] == list(range(len(made.sections)))
    # Ranges; who may play; where notes lie; nothing sticks.
    for section, passage in zip(made.sections, passages, strict=True):
        assert len(section.voices) >= 3
        assert list(passage.notes) == sorted(passage.notes, key=lambda one: (one.start, one.voice, one.pitch))
        for note in passage.notes:
            voice = made.voices[note.voice]
            assert note.voice in section.voices
            assert voice.family == "drums" or voice.low <= note.pitch <= voice.high
            assert section.start - 1e-9 <= note.start < section.start + section.seconds
            assert 0.03 <= note.seconds <= 16 and 1 <= note.velocity <= 127
    assert max(note.start + note.seconds for note in notes) <= made.seconds - 0.2
    # Notes of the key of their passage, but for those marked.
    for passage in passages:
        scale = harmony.key(*passage.key).scale
        for note in passage.notes:
            if made.voices[note.voice].family != "drums":
                assert note.passing == (note.pitch % 12 not in scale)
    assert sum(note.passing for note in notes) <= 0.25 * len(notes)
    # One voice never strikes a key that it still holds, over the joins as well.
    for _, group in itertools.groupby(
        sorted(notes, key=lambda one: (one.voice, one.pitch, one.start)), key=lambda one: (one.voice, one.pitch)
    ):
        for before, after in itertools.pairwise(group):
            assert before.start + before.seconds <= after.start + 1e-9
    # Never silent for long.
    sounding = 0.0
    for note in sorted(pitched(piece), key=lambda one: one.start):
        assert note.start - sounding <= SILENCE
        sounding = max(sounding, note.start + note.seconds)
    assert made.seconds - sounding <= 2.0


@pieces
@given(asks)
def test_sections_follow_each_other_and_fill_the_time(asked: Ask) -> None:
    made = plan.make_plan(asked)
    assert 1 <= len(made.sections) <= 4
    assert len(made.sections) == 4 or asked.tempo is not None
    time = 0.0
    for section in made.sections:
        assert section.start == pytest.approx(time) and section.beats >= 1
        time += section.seconds
    left = made.seconds - time
    assert 0.5 <= left <= 0.08 * made.seconds + 1.2 + 60 / made.tempo
    assert all(0 <= section.dynamics <= 1 and section.density > 0 for section in made.sections)
    if asked.tempo is not None:
        assert {section.tempo for section in made.sections} == {asked.tempo}
    if asked.key is not None:
        assert harmony.key(made.tonic, made.mode) == harmony.key(*asked.key)
    if asked.instruments is not None:
        leads = {made.voices[section.voices[0]].family for section in made.sections}
        assert leads == {plan.LEADS.get(asked.instruments, asked.instruments)}
    if asked.instruments == "drums":
        assert any(voice.family == "drums" for voice in made.voices)


@pieces
@given(asks.filter(lambda one: one.tempo is None and one.seconds >= 20))
def test_each_section_has_about_the_onsets_it_was_planned_with(asked: Ask) -> None:
    piece = made, _ = write(asked)
    for number, section in enumerate(made.sections):
        wanted = section.density * section.seconds
        # Six more or fewer: pick-ups and suspensions weigh in short, still sections.
        assert abs(onsets(piece, number) - wanted) <= max(0.3 * wanted, 6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("player", [made_player, silent_player])
def test_equal_fragments_still_make_sections_of_their_own(seed: int, player: Step) -> None:
    made, passages = write(ask(seed=seed, seconds=30), player)
    shapes = {
        tuple((round(note.start - section.start, 1), note.pitch, note.voice) for note in passage.notes)
        for section, passage in zip(made.sections, passages, strict=True)
    }
    tunes = {
        tuple(note.pitch for note in passage.notes if note.voice == section.voices[0])
        for section, passage in zip(made.sections, passages, strict=True)
    }
    assert len(shapes) == len(tunes) == 4


long_asks = st.builds(
    ask,
    valence=feelings,
    arousal=feelings,
    rgb=st.tuples(*[st.floats(0, 255, width=32)] * 3),
    seconds=st.sampled_from([30.0, 45.0, 60.0]),
    seed=st.integers(0, 2**40),
    spread=st.sampled_from([0.0, 0.1, 0.3]),
    instruments=st.sampled_from([None, None, None, *plan.FAMILIES]),
)


@pieces
@given(long_asks)
def test_the_theme_comes_back_in_every_section_and_in_the_closing(asked: Ask) -> None:
    made, passages = write(asked)
    theme = finished.theme(made, passages)
    assert len(theme) >= 3
    for passage in passages[1:]:
        # Where a section begins with all of the theme, it is heard there.
        if passage.theme >= len(theme):
            starts = finished.returns(theme, finished.tune(made, passage))
            assert starts and starts[0] < 1 / 3
    sections = made.sections[1:]
    span = theme[-1][0] + made.meter
    room = [section.beats >= span for section in sections]
    stated = [passage.theme >= len(theme) for passage in passages[1:]]
    assert all(there or not wide for there, wide in zip(stated, room, strict=True))
    assert asked.seconds < 45 or all(room)
    # The end remembers the beginning: a long last section states it again in its second part.
    if made.sections[-1].beats >= 8 * made.meter:
        starts = finished.returns(theme, finished.tune(made, passages[-1]))
        assert starts[-1] >= 0.3 * made.sections[-1].beats


def test_another_piece_does_not_have_the_theme() -> None:
    written = [write(ask(0.6, 0.5, seconds=45, seed=seed)) for seed in range(6)]
    themes = [finished.theme(*piece) for piece in written]
    foreign = [
        bool(finished.returns(theme, finished.tune(made, passage)))
        for number, theme in enumerate(themes)
        for other, (made, passages) in enumerate(written) if other != number
        for passage in passages
    ]  # fmt: skip
    assert np.mean(foreign) < 0.2


def test_the_same_ask_is_the_same_piece_and_other_seeds_and_pictures_are_others() -> None:
    asked = ask(seconds=12)
    assert write(asked) == write(asked)
    other_vector = replace(asked, vector=np.ones(8, dtype=np.float32))
    for other in (replace(asked, seed=2), other_vector, replace(asked, rgb=asked.rgb + 1)):
        assert every(write(other)) != every(write(asked))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("valence", [0.2, 0.8])
def test_more_arousal_is_faster_denser_and_louder(valence: float, seed: int) -> None:
    levels = [write(ask(valence, arousal, seconds=24, seed=seed)) for arousal in (0.2, 0.45, 0.65, 0.85)]
    for quiet, lively in itertools.pairwise(levels):
        assert np.mean([one.tempo for one in quiet[0].sections]) < np.mean([one.tempo for one in lively[0].sections])
        assert len(every(quiet)) < len(every(lively))
        assert sum(onsets(quiet, number) for number in range(4)) < sum(onsets(lively, number) for number in range(4))
        assert np.mean([one.velocity for one in every(quiet)]) < np.mean([one.velocity for one in every(lively)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arousal", [0.2, 0.8])
def test_more_valence_is_major_like_and_higher(arousal: float, seed: int) -> None:
    levels = [write(ask(valence, arousal, seconds=24, seed=seed)) for valence in (0.15, 0.4, 0.6, 0.85)]
    assert [made.mode in harmony.MAJOR_LIKE for made, _ in levels] == [False, False, True, True]
    for low, high in itertools.pairwise(levels):
        assert low[0].sections[0].register < high[0].sections[0].register
    lowest, highest = (np.mean([note.pitch for note in pitched(piece)]) for piece in (levels[0], levels[-1]))
    assert lowest + 4 < highest


def test_valence_changes_how_it_is_played_and_with_what() -> None:
    cheers = {one.name: one.cheer for one in plan.INSTRUMENTS}

    def means(valence: float) -> tuple[float, ...]:
        cheer, triads, width, short = [], [], [], []
        for seed in range(8):
            made, passages = write(ask(valence, 0.5, seconds=30, seed=seed, key=("D", "dorian")))
            cheer += [cheers[voice.name] for voice in made.voices if voice.family != "drums"]
            kinds = [name[1:].removeprefix("#").replace("maj", "") for one in passages for _, name in one.chords]
            triads += [not kind.startswith(("m", "dim")) for kind in kinds]
            tune = [pitch for passage in passages for _, pitch in finished.tune(made, passage)]
            width += list(np.abs(np.diff(tune)))
            short += [
                note.seconds for passage in passages for note in passage.notes
                if made.voices[note.voice].role == "bass"
            ]  # fmt: skip
        return float(np.mean(cheer)), float(np.mean(triads)), float(np.mean(width)), -float(np.mean(short))

    for sad, happy in zip(means(0.2), means(0.8), strict=True):
        assert sad < happy


def test_calm_holds_notes_and_movement_shortens_them() -> None:
    def held(rgb: tuple[float, float, float]) -> float:
        made, passages = write(ask(0.55, 0.5, rgb, seconds=30))
        return float(np.mean([
            note.seconds * section.tempo / 60
            for section, passage in zip(made.sections, passages, strict=True)
            for note in passage.notes if made.voices[note.voice].role in ("melody", "bass")
        ]))  # fmt: skip

    assert held((250, 10, 60)) < held((30, 240, 60))


def test_what_is_seen_brings_its_instruments() -> None:
    def names(**seen: Any) -> set[str]:
        return {voice.name for seed in range(6) for voice in plan.make_plan(ask(0.5, 0.35, seed=seed, **seen)).voices}

    sea = {"harp", "flute", "vibraphone", "slow strings"}
    assert len(names(tags=("seashore",)) & sea) > len(names(tags=("church",)) & sea)
    assert names(tags=("church",)) & {"organ", "choir"}
    dark = {"cello", "bassoon", "horn", "English horn", "contrabass"}
    assert len(names(palette=("black", "umber")) & dark) >= len(names(palette=("white",)) & dark)


def test_drums_play_where_it_moves_and_not_where_it_is_still() -> None:
    assert any(voice.family == "drums" for voice in plan.make_plan(ask(0.6, 0.85, (230, 60, 40))).voices)
    assert not any(voice.family == "drums" for voice in plan.make_plan(ask(0.6, 0.2, (60, 200, 90))).voices)


def test_the_piece_closes_on_its_tonic_and_rings_out() -> None:
    for seed in range(6):
        made, passages = piece = write(ask(0.6, 0.4, seconds=20, seed=seed))
        home = harmony.key(made.tonic, made.mode)
        assert passages[0].key == passages[-1].key == home.name
        assert passages[-1].chords[-1][1].rstrip("m") == made.tonic
        ends = [note for note in pitched(piece) if note.start + note.seconds > made.seconds - 2]
        bass = [note for note in ends if made.voices[note.voice].role == "bass"]
        tune = [note for note in ends if made.voices[note.voice].role == "melody"]
        assert {note.pitch % 12 for note in (*bass, *tune)} == {home.tonic}


def test_sections_join_with_a_pick_up_or_a_held_note() -> None:
    for seed in range(6):
        made, passages = write(ask(0.6, 0.45, seconds=40, seed=seed, spread=0.1))
        for before, after in itertools.pairwise(passages):
            join = made.sections[after.number].start
            leader = made.sections[before.number].voices[0]
            held = any(note.start + note.seconds > join + 0.05 for note in before.notes)
            led = any(note.voice == leader and join - 60 / made.tempo <= note.start < join for note in before.notes)
            assert held or led
            assert min(note.start for note in after.notes) < join + 0.1


def test_the_first_section_needs_a_stated_amount_of_the_network() -> None:
    calls = 0

    def counting(event: Integers, control: Floats, hidden: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
        nonlocal calls
        calls += 1
        return made_player(event, control, hidden, start)

    made = plan.make_plan(ask(seconds=180))
    memory = writing.Memory(counting)
    writing.write_section(made, 0, memory)
    assert calls <= writing.FIRST_STEPS + 1
    for number in (1, 2, 3):
        writing.write_section(made, number, memory)
    assert calls <= writing.FIRST_STEPS + 3 * writing.STEPS + 4


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seconds": 4.9}, "seconds must be"),
        ({"seconds": 181}, "seconds must be"),
        ({"seed": -1}, "seed"),
        ({"tempo": 10.0}, "tempo must be"),
        ({"instruments": "kazoo"}, "no family"),
        ({"key": ("H", "minor")}, "no tonic"),
        ({"key": ("D", "happy")}, "no mode"),
    ],
)
def test_a_wish_that_cannot_be_followed_is_refused_in_plain_words(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan.make_plan(ask(**wrong))


# Harmony by itself.

keys = st.builds(harmony.Key, st.integers(0, 11), st.sampled_from(sorted(harmony.SCALES)))


@given(keys, st.integers(20, 110))
def test_degrees_and_pitches_agree(key: harmony.Key, pitch: int) -> None:
    near = key.pitch(key.degree(pitch))
    assert abs(near - pitch) <= 1 and near % 12 in key.scale
    assert (near == pitch) == (pitch % 12 in key.scale)


@given(keys)
def test_a_relative_key_has_the_same_notes(key: harmony.Key) -> None:
    assert set(key.relative().scale) == set(key.scale) and key.relative().relative() == key
    assert (key.mode in harmony.MAJOR_LIKE) != (key.relative().mode in harmony.MAJOR_LIKE)


@settings(deadline=None)
@given(keys, st.integers(1, 9), st.sampled_from(["half", "full", "plagal", "open"]), st.integers(0, 500))
def test_progressions_end_as_they_should_and_always_move(
    key: harmony.Key, slots: int, cadence: str, seed: int
) -> None:
    chords = harmony.progression(key, slots, cadence, 0.5, 0.5, np.random.default_rng(seed))
    assert len(chords) == slots
    if cadence in ("full", "plagal"):
        assert chords[-1].root == key.tonic
    if cadence == "half":
        assert chords[-1].root != key.tonic
    for before, after in itertools.pairwise(chords):
        assert before.name != after.name or slots > 4
    for chord in chords:
        assert set(chord.foreign) == {value for value in chord.classes if value not in key.scale}
        assert all(share == 0 or number in {*key.scale, *chord.classes}
                   for number, share in enumerate(harmony.shares(key, chord)))  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(keys, st.integers(0, 100))
def test_held_chords_move_by_small_steps(key: harmony.Key, seed: int) -> None:
    chords = harmony.progression(key, 6, "full", 0.4, 0.2, np.random.default_rng(seed))
    before: tuple[int, ...] = ()
    for chord in chords:
        pitches = harmony.voicing(chord, before, 3, 50, 72)
        assert {pitch % 12 for pitch in pitches} <= set(chord.classes)
        assert chord.classes[1] in {pitch % 12 for pitch in pitches}
        if before:
            assert max(abs(new - old) for old, new in zip(before, pitches, strict=True)) <= 7
        before = pitches


@pytest.mark.skipif(not NETWORK.is_file(), reason=f"{NETWORK} is not built: promenade models build")
def test_the_network_plays_the_motif_that_all_sections_vary() -> None:
    step = performance_rnn.onnx_step(NETWORK)
    made, passages = write(ask(0.6, 0.5, seconds=40, seed=3), step)
    memory = writing.Memory(step)
    assert writing.write_section(made, 0, memory) == passages[0]
    assert memory.motif is not None and len(memory.motif.tones) >= 3
    assert len({tone.degree for tone in memory.motif.tones}) >= 2
    # Heard, not made up: another seed has another motif.
    other = writing.Memory(step)
    writing.write_section(plan.make_plan(ask(0.6, 0.5, seconds=40, seed=4)), 0, other)
    assert other.motif != memory.motif
