"""Notes to finished sound: the bank's player, the room, loudness, limiter, turns, and what is asked.

Notes are made here by a stand-in that knows no music, so that sound is tried with every kind of piece: sparse, dense,
growing, sudden. An independent meter (pyloudnorm) says how loud the results are. What real pieces sound like is
tested below, with the composer itself.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from edge_models.music import asking, engine, loudness, mastering
from edge_models.music.score import SAMPLE_RATE, Ask, Note, Passage, Plan, Section, Voice
from edge_models.music.synthesis import BANK, PLAYER, Bank, Desk
from edge_models.music.turns import Stopped, Turns
from edge_models.triton_model import Invalid, Unavailable

from benchmarks import finished
from benchmarks.finished import integrated
from benchmarks.music import Reader
from promenade import samples
from promenade.samples.catalogue import read_manifest
from tests.serving_fixtures import REPOSITORY, missing

FOLDER = REPOSITORY / "compose_music" / "1"
Sound = npt.NDArray[np.float32]

built = pytest.mark.skipif(
    not all((FOLDER / name).exists() for name in (BANK, PLAYER)),
    reason="the bank and its player are not built (promenade models build)",
)

PIANO = Voice("piano", "piano", 0, "melody", 48, 84, 0.0, 0.0, 0.3)
STRINGS = Voice("strings", "strings", 48, "harmony", 40, 76, 0.3, -3.0, 0.6)
DRUMS = Voice("drum kit", "drums", 0, "rhythm", 35, 59, 0.0, -2.0, 0.2)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return Bank(FOLDER)


def ask_for(seconds: float, seed: int = 1) -> Ask:
    return Ask(np.zeros((5, 3)), np.zeros((5, 2)), [{}] * 5, np.zeros(1), seconds, seed)  # type: ignore[arg-type]


class Noodler:
    """Writes notes without music: `rate` onsets a second, sections growing by `growth`, voices as given."""

    def __init__(self, voices: tuple[Voice, ...], rate: float, growth: float, dynamics: tuple[float, ...]) -> None:
        self.voices, self.rate, self.growth, self.dynamics = voices, rate, growth, dynamics

    def plan(self, ask: Ask) -> Plan:
        each = (ask.seconds - 1.0) / len(self.dynamics)
        players = tuple(range(len(self.voices)))
        sections = tuple(
            Section(
                f"part-{number}", number * each, each, 90, int(each * 1.5), self.rate, dynamics, 0, 0.5, 0.5, 0.5,
                0.5, 0.5, players,
            )
            for number, dynamics in enumerate(self.dynamics)
        )  # fmt: skip
        return Plan("C", "major", 90, 4, self.voices, sections, ask.seconds, ask.seed)

    def begin(self, plan: Plan) -> Callable[[int], Passage]:
        random = np.random.default_rng(plan.seed)

        def write(number: int) -> Passage:
            section = plan.sections[number]
            notes = []
            now = section.start
            while now < section.start + section.seconds:
                share = (now - section.start) / section.seconds
                sounding = len(self.voices) if share > 0.5 or not self.growth else 1
                for voice in range(sounding):
                    pitch = int(random.integers(plan.voices[voice].low, plan.voices[voice].high))
                    velocity = int(min(127, 30 + 60 * section.dynamics + self.growth * share))
                    notes.append(Note(now, float(random.uniform(0.1, 3.0)), pitch, velocity, voice))
                now += float(random.uniform(0.5, 1.5)) / self.rate
            return Passage(
                number, ("C", "major"), (), tuple(sorted(notes, key=lambda n: (n.start, n.voice, n.pitch)))
            )

        return write


def made(bank: Bank, ask: Ask, composer: engine.Composer) -> tuple[Sound, dict[str, Any]]:
    """A whole piece [samples, 2] and its report."""
    *blocks, report = engine.compose(ask, bank, composer, "1")
    assert isinstance(report, dict)
    return np.concatenate(blocks), report  # type: ignore[arg-type]


# Measuring.


@pytest.mark.parametrize("kind", ["noise", "tones", "bursts"])
def test_loudness_is_what_an_independent_meter_says(kind: str) -> None:
    random = np.random.default_rng(5)
    seconds = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    if kind == "tones":
        sound = 0.2 * np.stack([np.sin(2 * np.pi * 997 * seconds), np.sin(2 * np.pi * 60 * seconds)])
    else:
        sound = 0.1 * random.standard_normal((2, len(seconds)))
    if kind == "bursts":
        sound *= np.where(seconds % 2 < 0.7, 1.0, 0.003)
    meter = loudness.Meter(SAMPLE_RATE)
    for start in range(0, sound.shape[1], SAMPLE_RATE):
        meter.hear(sound[:, start : start + SAMPLE_RATE].astype(np.float32))
    assert meter.loudness == pytest.approx(integrated(sound.T), abs=0.05)


def test_a_peak_between_samples_is_seen() -> None:
    # A quarter of the rate, between its peaks: samples reach .707 of it only.
    wave = np.sin(2 * np.pi * np.arange(2 * SAMPLE_RATE) / 4 + np.pi / 4).astype(np.float32)
    wave[:4800] *= np.linspace(0, 1, 4800, dtype=np.float32)
    wave[-4800:] *= np.linspace(1, 0, 4800, dtype=np.float32)
    meter = loudness.Meter(SAMPLE_RATE)
    for half in np.split(np.stack([wave, wave]), 2, axis=1):
        meter.hear(half)
    assert np.abs(wave).max() < 0.71
    assert meter.true_peak == pytest.approx(0.0, abs=0.1)


def test_a_click_is_heard_and_a_sudden_note_is_none() -> None:
    random = np.random.default_rng(6)
    seconds = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    struck = np.exp(-8 * (seconds % 0.5)) * (0.2 * np.sin(2 * np.pi * 440 * seconds))
    struck += 0.05 * np.exp(-60 * (seconds % 0.5)) * random.standard_normal(len(seconds))
    sound = np.stack([struck, struck], axis=1)
    assert finished.clicks(sound) == []
    broken = sound.copy()
    broken[70_000:] += 0.03
    found = finished.clicks(broken)
    assert found
    assert all(abs(at - 70_000) < 100 for at in found)


# The bank.


@built
def test_a_note_begins_on_its_sample(bank: Bank) -> None:
    sound = bank.play(PIANO, [Note(10.25, 0.5, 60, 90, 0)], 10.0)
    first = int(np.flatnonzero(np.abs(sound).max(axis=0) > 0)[0])
    assert 0.25 * SAMPLE_RATE <= first < 0.25 * SAMPLE_RATE + 96


@built
@pytest.mark.parametrize("voice", [PIANO, STRINGS, DRUMS])
def test_what_is_played_does_not_depend_on_what_else_is(bank: Bank, voice: Voice) -> None:
    notes = [Note(0.1 * step, 0.3, 48 + 3 * step, 60 + 5 * step, 0) for step in range(4)]
    alone = bank.play(voice, notes, 0.0)
    results: list[Sound] = []

    def again() -> None:
        for _ in range(3):
            results.append(bank.play(voice, notes, 0.0))
            bank.play(STRINGS, [Note(0.0, 0.4, 50, 100, 0)], 0.0)

    threads = [threading.Thread(target=again) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 9
    assert all(np.array_equal(alone, result) for result in results)


@built
def test_notes_played_in_windows_sum_to_the_notes_played_at_once(bank: Bank) -> None:
    notes = [Note(0.37 * step, 1.1, 50 + step, 80, 0) for step in range(8)]
    whole = bank.play(PIANO, notes, 0.0)
    desk = Desk()
    taken = []
    for window in range(4):
        desk.add(bank.play(PIANO, [note for note in notes if int(note.start) == window], float(window)), 0.0)
        taken.append(desk.take(SAMPLE_RATE)[0])
    joined = np.concatenate(taken, axis=1)
    # The player moves envelopes on in steps of 64 samples counted from its last event, so they are not bit-equal.
    difference = joined - whole[:, : joined.shape[1]]
    assert np.sqrt((difference**2).mean()) < 0.02 * np.sqrt((joined**2).mean())


@built
def test_any_two_instruments_are_about_equally_loud(bank: Bank) -> None:
    found = []
    for program, family in (
        (0, "piano"),
        (11, "mallets"),
        (40, "strings"),
        (48, "strings"),
        (56, "brass"),
        (73, "winds"),
    ):
        voice = Voice("one", family, program, "melody", 55, 79, 0.0, 0.0, 0.0)
        sound = bank.play(voice, [Note(0.0, 0.6, 67, 80, 0)], 0.0)[:, : int(0.6 * SAMPLE_RATE)]
        found.append(loudness.decibels(loudness.energy(sound)))
    assert max(found) - min(found) < 6.0, found


@built
def test_pan_and_gain_place_a_voice(bank: Bank) -> None:
    notes = [Note(0.0, 0.5, 60, 90, 0)]
    power = {}
    for pan, gain in ((-1.0, 0.0), (0.0, 0.0), (0.0, -6.0), (1.0, 0.0)):
        power[pan, gain] = (bank.play(Voice("p", "piano", 0, "melody", 48, 84, pan, gain, 0.0), notes, 0.0) ** 2).sum(
            1
        )
    assert power[-1.0, 0.0][0] > 100 * power[-1.0, 0.0][1]
    assert power[1.0, 0.0][1] > 100 * power[1.0, 0.0][0]
    middle = power[0.0, 0.0]
    assert 0.3 < middle[0] / middle[1] < 3
    assert power[0.0, -6.0].sum() == pytest.approx(middle.sum() * 10**-0.6, rel=1e-3)


@built
def test_every_note_of_the_bank_ends(bank: Bank) -> None:
    for program in range(0, 128, 3):
        voice = Voice("one", "any", program, "melody", 50, 70, 0.0, 0.0, 0.0)
        sound = bank.play(voice, [Note(0.0, 0.2, 60, 100, 0)], 0.0)
        assert np.abs(sound[:, -1]).max() < 1e-5, program
        assert sound.shape[1] < 6 * SAMPLE_RATE, program


# The master.


def streamed(limiter: mastering.Limiter, sound: Sound) -> Sound:
    """What the limiter makes of a sound [2, whole blocks]."""
    blocks = np.split(sound, sound.shape[1] // mastering.BLOCK, axis=1)
    nothing = np.zeros((2, mastering.BLOCK), np.float32)
    return np.concatenate([limiter.limit(block) for block in [*blocks, nothing]][1:], axis=1)


def test_the_limiter_leaves_what_is_soft_enough() -> None:
    random = np.random.default_rng(2)
    sound = (0.1 * random.standard_normal((2, 3 * mastering.BLOCK))).clip(-0.5, 0.5).astype(np.float32)
    np.testing.assert_array_equal(streamed(mastering.Limiter(), sound), sound)


@pytest.mark.parametrize("level", [1.0, 2.5, 6.0])
def test_no_true_peak_passes_the_limiter(level: float) -> None:
    random = np.random.default_rng(2)
    seconds = np.arange(4 * mastering.BLOCK) / SAMPLE_RATE
    sound = level * np.sin(2 * np.pi * 220 * seconds) * (0.2 + 0.8 * (seconds % 0.7 < 0.1))
    sound = np.stack([sound, 0.8 * sound + 0.2 * level * random.standard_normal(len(seconds))]).astype(np.float32)
    # A burst that begins on the border of two blocks.
    sound[:, 2 * mastering.BLOCK : 2 * mastering.BLOCK + 40] *= 2
    limited = streamed(mastering.Limiter(), sound)
    fine = loudness.oversampled(np.pad(limited, ((0, 0), (512, 512))))
    assert np.abs(fine).max() < 10 ** (-1 / 20)
    gain = limited[0] / np.where(np.abs(sound[0]) > 1e-3, sound[0], np.nan)
    steps = np.abs(np.diff(gain))
    assert np.nanmax(steps) < 0.02, "the gain jumps"


@pytest.mark.parametrize("seconds", [5.0, 5.3, 12.0, 31.7])
@pytest.mark.parametrize(
    ("voices", "rate", "growth", "dynamics"),
    [
        ((PIANO,), 1.5, 0.0, (0.2, 0.9, 0.1, 0.5)),
        ((PIANO, STRINGS), 4.0, 0.0, (1.0, 0.0, 1.0, 0.0)),
        ((STRINGS, PIANO, DRUMS), 6.0, 40.0, (0.3, 0.5, 0.7, 1.0)),
        ((DRUMS,), 3.0, 0.0, (0.8, 0.8, 0.8, 0.8)),
    ],
    ids=["sparse piano", "sudden", "growing", "drums alone"],
)
@built
def test_any_piece_leaves_at_its_level_without_clicks(
    bank: Bank, seconds: float, voices: tuple[Voice, ...], rate: float, growth: float, dynamics: tuple[float, ...]
) -> None:
    sound, report = made(bank, ask_for(seconds), Noodler(voices, rate, growth, dynamics))
    assert sound.shape == (round(seconds * SAMPLE_RATE), 2)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert integrated(sound) == pytest.approx(-16.0, abs=1.0)
    assert report["loudness"] == pytest.approx(integrated(sound), abs=0.15)
    fine = loudness.oversampled(np.pad(sound.T, ((0, 0), (512, 512))))
    assert 20 * np.log10(np.abs(fine).max()) < -1.0
    assert report["true_peak"] == pytest.approx(20 * np.log10(np.abs(fine).max()), abs=0.1)
    assert np.abs(sound.mean(axis=0)).max() < 1e-3, "DC"
    assert np.abs(sound[-24:]).max() < 1e-3, "the end is cut"
    assert finished.clicks(sound) == []
    # Blocks meet without a seam.
    second = np.abs(np.diff(sound, n=2, axis=0)).max(axis=1)
    seams = np.array([second[at - 3 : at + 2].max() for at in range(SAMPLE_RATE, len(second), SAMPLE_RATE)])
    assert np.median(seams) < np.quantile(second, 0.95)


@built
def test_louder_sections_are_louder(bank: Bank) -> None:
    sound, _ = made(bank, ask_for(41.0), Noodler((PIANO, STRINGS), 4.0, 0.0, (0.1, 0.9, 0.1, 0.9)))
    soft, loud, softer, louder = (
        integrated(sound[(10 * n + 3) * SAMPLE_RATE : (10 * n + 9) * SAMPLE_RATE]) for n in range(4)
    )
    assert loud - soft > 3
    assert louder - softer > 3


@built
def test_the_same_piece_has_the_same_samples(bank: Bank) -> None:
    noodler = Noodler((PIANO, STRINGS, DRUMS), 5.0, 10.0, (0.3, 0.8, 0.5, 0.6))
    first, _ = made(bank, ask_for(12.0, 7), noodler)
    second, _ = made(Bank(FOLDER), ask_for(12.0, 7), noodler)
    other, _ = made(bank, ask_for(12.0, 8), noodler)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@built
def test_a_piece_is_made_as_it_is_asked_for(bank: Bank) -> None:
    """The first block comes before the piece is written, and no section is kept."""
    noodler = Noodler((PIANO,), 2.0, 0.0, (0.5,) * 4)
    written: list[int] = []

    class Watched:
        def plan(self, ask: Ask) -> Plan:
            return noodler.plan(ask)

        def begin(self, plan: Plan) -> Callable[[int], Passage]:
            write = noodler.begin(plan)

            def watched(number: int) -> Passage:
                written.append(number)
                return write(number)

            return watched

    blocks = engine.compose(ask_for(120.0), bank, Watched(), "1")
    next(blocks)
    assert written == [0]


@built
def test_a_piece_stops_where_rest_says_so(bank: Bank) -> None:
    calls = itertools.count()

    def rest() -> None:
        if next(calls) > 60:
            raise Stopped

    blocks = engine.compose(ask_for(180.0), bank, Noodler((PIANO,), 2.0, 0.0, (0.5,) * 4), "1", rest)
    with pytest.raises(Stopped):
        list(blocks)


# Turns.


def worker(turns: Turns, live: bool, done: list[str], name: str, steps: int = 20) -> threading.Thread:
    ticket = turns.join(live)

    def work() -> None:
        with turns.turn(ticket, live, lambda: False) as rest:
            for _ in range(steps):
                time.sleep(0.002)
                rest()
        done.append(name)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_person_goes_before_the_background() -> None:
    turns = Turns()
    done: list[str] = []
    threads = [worker(turns, False, done, f"background {number}", 50) for number in range(3)]
    threads += [worker(turns, True, done, f"person {number}", 100) for number in range(2)]
    for thread in threads:
        thread.join(30)
    assert sorted(done[:2]) == ["person 0", "person 1"]
    assert len(done) == 5


def test_more_than_the_places_wait_in_order() -> None:
    turns = Turns(live=1, background=1)
    done: list[str] = []
    threads = [worker(turns, True, done, str(number)) for number in range(5)]
    for thread in threads:
        thread.join(30)
    assert done == ["0", "1", "2", "3", "4"]


def test_a_full_line_is_refused() -> None:
    turns = Turns(live=1, background=1, waiting=2)
    for _ in range(3):
        turns.join(False)
    with pytest.raises(Unavailable, match="ask again"):
        turns.join(False)


def test_who_waits_can_leave_and_is_forgotten() -> None:
    turns = Turns(live=1, background=1)
    held = turns.join(False)
    left = turns.join(False)
    with turns.turn(held, False, lambda: False):
        until = time.monotonic() + 0.3
        with pytest.raises(Stopped), turns.turn(left, False, lambda: time.monotonic() > until):
            raise AssertionError("there was no place")
    after = turns.join(False)
    with turns.turn(after, False, lambda: False) as rest:
        rest()


def test_closing_stops_those_who_work_and_those_who_wait() -> None:
    turns = Turns(live=1, background=1)
    stopped: list[bool] = []

    def piece(live: bool) -> None:
        try:
            with turns.turn(turns.join(live), live, lambda: False) as rest:
                while True:
                    time.sleep(0.005)
                    rest()
        except Stopped:
            stopped.append(live)

    threads = [threading.Thread(target=piece, args=(live,)) for live in (True, False, True, False)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    turns.close()
    for thread in threads:
        thread.join(10)
    assert len(stopped) == 4


# What is asked.


def tensors(**changed: Any) -> dict[str, Any]:
    """Good tensors, but for what is changed."""

    def texts(*values: str | bytes) -> npt.NDArray[Any]:
        array = np.empty(len(values), dtype=object)
        for index, value in enumerate(values):
            array[index] = value.encode() if isinstance(value, str) else value
        return array

    good: dict[str, Any] = {
        "RGB": np.full((5, 3), 90, np.float32),
        "VA": np.full((5, 2), 0.5, np.float32),
        "MEASUREMENTS": texts(*["{}"] * 5),
        "TEXTS": texts(*["a picture"] * 5),
        "VECTOR": np.zeros(1280, np.float32),
        "SECONDS": np.array([20], np.float32),
        "SEED": np.array([3], np.int64),
        "WISHES": texts("{}"),
        "LIVE": np.array([True]),
    }
    for name, value in changed.items():
        good[name] = texts(*value) if isinstance(value, tuple) else value
    return good


def test_what_is_asked_is_read() -> None:
    wishes = '{"instruments": "strings", "key": "D minor", "tempo": 84, "mood": null}'
    ask, live = asking.read(
        tensors(WISHES=(wishes,), LIVE=np.array([False]), MEASUREMENTS=("", "null", "{}", "{}", "{}"))
    )
    assert (ask.instruments, ask.key, ask.tempo, ask.seconds, ask.seed) == ("strings", ("D", "minor"), 84.0, 20.0, 3)
    assert live is False
    assert list(ask.measurements) == [{}] * 5


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"SECONDS": np.array([3], np.float32)}, "seconds must be between 5 and 180, not 3"),
        ({"SECONDS": np.array([np.nan], np.float32)}, "seconds must be between 5 and 180"),
        ({"SEED": np.array([-1])}, "seed must be 0 or more, not -1"),
        ({"RGB": np.full((5, 3), 300, np.float32)}, "RGB .* outside 0 to 255"),
        ({"VA": np.full((5, 2), np.nan, np.float32)}, "VA .* not finite"),
        ({"VA": np.zeros((4, 2), np.float32)}, "VA has shape"),
        ({"VECTOR": np.array([np.inf], np.float32)}, "VECTOR .* not finite"),
        ({"MEASUREMENTS": ("[]",) * 5}, "MEASUREMENTS.0. is not a JSON object"),
        ({"MEASUREMENTS": ("{}",) * 4}, "five are expected"),
        ({"TEXTS": (b"\xff",) * 5}, "TEXTS.0. is not UTF-8"),
        ({"WISHES": ('{"mood": "sad"}',)}, "'mood' is not known here"),
        ({"WISHES": ('{"tempo": "fast"}',)}, '"tempo" is a number'),
        ({"WISHES": ('{"tempo": 1e400}',)}, '"tempo" is a number'),
        ({"WISHES": ('{"tempo": ' + "9" * 400 + "}",)}, '"tempo" is a number'),
        ({"WISHES": ('{"key": "very sad indeed"}',)}, '"key" is a tonic'),
        ({"WISHES": ('{"instruments": 3}',)}, '"instruments" is the name'),
        ({"WISHES": ("[" * 50_000,)}, "WISHES is JSON nested too deeply"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_plain_words(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        asking.read(tensors(**changed))


# Whole pieces of the composer's own, for made pictures understood by the pipeline's models.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Ask]:
    """What the composer is told of five painted pictures."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("pictures")
    manifest = samples.made(folder, pictures=5, tracks=0, seed=3).manifest
    reader = Reader(REPOSITORY)
    return [reader.ask(folder, row, 20.0, 1)[0] for row in read_manifest(manifest)]


@pytest.mark.parametrize("number", range(5))
def test_a_picture_s_piece_sounds_finished(bank: Bank, pictures: list[Ask], number: int) -> None:
    composer = engine.PictureComposer(FOLDER)
    ask = pictures[number]
    sound, report = made(bank, ask, composer)
    heard = finished.heard(sound)
    assert len(sound) == 20 * SAMPLE_RATE
    assert heard.loudness == pytest.approx(-16.0, abs=1.0)
    assert heard.true_peak < -1.0
    assert heard.clicks == ()
    assert heard.silence <= 1.5
    assert heard.offset < 1e-3
    assert heard.end < 1e-3
    plan = composer.plan(ask)
    write = composer.begin(plan)
    written = finished.written(plan, [write(index) for index in range(len(plan.sections))])
    assert written.stuck == 0
    assert written.in_key == 1.0
    assert written.passing < 0.15
    assert written.voices >= min(3, written.ensemble)
    assert written.alike < 0.9
    assert report["notes"] == written.notes
    assert (report["key"], report["mode"]) == (plan.tonic, plan.mode)


def test_different_pictures_have_different_pieces(bank: Bank, pictures: list[Ask]) -> None:
    composer = engine.PictureComposer(FOLDER)
    notes = set()
    for ask in pictures:
        plan = composer.plan(ask)
        notes.add(composer.begin(plan)(0).notes)
    assert len(notes) == len(pictures)


@pytest.mark.parametrize("seconds", [5.0, 180.0])
def test_the_shortest_and_the_longest_piece_are_finished_too(bank: Bank, pictures: list[Ask], seconds: float) -> None:
    ask = replace(pictures[0], seconds=seconds)
    sound, _ = made(bank, ask, engine.PictureComposer(FOLDER))
    heard = finished.heard(sound)
    assert len(sound) == seconds * SAMPLE_RATE
    assert heard.loudness == pytest.approx(-16.0, abs=1.0)
    assert heard.true_peak < -1.0
    assert heard.silence <= 1.5
    assert heard.clicks == ()
