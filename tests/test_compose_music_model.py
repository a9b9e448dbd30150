"""compose_music through the real model server: streamed blocks, turns, cancelling, refusals.

What a piece is made of and how it sounds is tested beside its own code (tests/test_music_*.py).
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from infra.serving import triton
from promenade.profile import read_profile
from tests.patience import deadline, patient
from tests.serving_fixtures import REPOSITORY, Served, missing, serve

MODEL = "compose_music"
RATE = 48_000

Array = npt.NDArray[Any]

pytestmark = pytest.mark.timeout(patient(240))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of compose_music alone: what is asked of it here would keep others waiting."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with serve(tmp_path_factory.mktemp("composer"), [MODEL]) as running:
        yield running


def texts(*values: str | bytes) -> Array:
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value.encode() if isinstance(value, str) else value
    return array


def asked(
    seconds: float = 8, seed: int = 1, live: bool = True, wishes: str = "{}", **changed: Array
) -> dict[str, Any]:
    """The tensors of a request."""
    random = np.random.default_rng(4)
    return {
        "RGB": random.uniform(20, 230, (5, 3)).astype(np.float32),
        "VA": random.uniform(0.2, 0.8, (5, 2)).astype(np.float32),
        "MEASUREMENTS": texts(*["{}"] * 5),
        "TEXTS": texts(*["a picture"] * 5),
        "VECTOR": random.standard_normal(1280).astype(np.float32),
        "SECONDS": np.array([seconds], np.float32),
        "SEED": np.array([seed], np.int64),
        "WISHES": texts(wishes),
        "LIVE": np.array([live]),
        **changed,
    }


class Piece:
    """One request, and what came back so far."""

    def __init__(self, served: Served, tensors: dict[str, Any]) -> None:
        self.client = grpc.InferenceServerClient(served.url)
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))
        self.blocks: list[Array] = []
        self.report: dict[str, Any] | None = None
        self.asked_at = time.monotonic()
        self.first_after: float | None = None
        self.client.async_stream_infer(MODEL, served.tensors(tensors), enable_empty_final_response=True)

    def more(self, timeout: float = 120) -> bool:
        """Take one answer; False after the last. Raises what the model refused with."""
        result, error = self.answers.get(timeout=timeout)
        if error is not None:
            self.client.stop_stream()
            raise error
        samples, report = result.as_numpy("SAMPLES"), result.as_numpy("REPORT")
        if samples is not None and len(samples):
            if self.first_after is None:
                self.first_after = time.monotonic() - self.asked_at
            self.blocks.append(samples)
        if report is not None and report[0]:
            self.report = json.loads(report[0])
        last = bool(result.get_response().parameters["triton_final_response"].bool_param)
        if last:
            self.client.stop_stream()
        return not last

    def whole(self) -> Array:
        """All samples."""
        while self.more():
            pass
        return np.concatenate(self.blocks)

    def cancel(self) -> None:
        """Leave in the middle."""
        self.client.stop_stream(cancel_requests=True)


def piece(served: Served, **wanted: Any) -> Array:
    return Piece(served, asked(**wanted)).whole()


@pytest.mark.parametrize("seconds", [5.0, 7.25])
def test_blocks_add_up_to_the_seconds_asked_for(served: Served, seconds: float) -> None:
    one = Piece(served, asked(seconds))
    sound = one.whole()
    assert sound.shape == (round(seconds * RATE), 2)
    assert sound.dtype == np.float32
    assert all(len(block) <= RATE for block in one.blocks)
    assert np.abs(sound).max() < 1
    assert np.abs(sound).max() > 0.05


def test_the_last_answer_reports_on_the_piece(served: Served) -> None:
    one = Piece(served, asked(8, 5, wishes='{"key": "D minor", "instruments": "strings"}'))
    one.whole()
    report = one.report
    assert report is not None
    version = read_profile(REPOSITORY.with_suffix(".toml")).version(MODEL)
    assert (report["model"], report["version"], report["seed"], report["seconds"]) == (MODEL, version, 5, 8.0)
    assert (report["key"], report["mode"]) == ("D", "minor")
    assert "strings" in {instrument["family"] for instrument in report["instruments"]}
    assert [section["part"] for section in report["sections"]] == [
        "top-left",
        "top-right",
        "bottom-left",
        "bottom-right",
    ]
    assert report["loudness"] == pytest.approx(-16, abs=1)
    assert report["true_peak"] < -1
    assert report["notes"] > 0
    assert 0 < report["first_chunk_seconds"] <= report["made_seconds"]


def test_the_same_question_has_the_same_samples_whatever_else_is_made(served: Served) -> None:
    alone = piece(served, seed=3)
    beside = [
        Piece(served, asked(seed=seed, live=live)) for seed, live in ((3, True), (9, False), (3, False), (4, True))
    ]
    sounds = [one.whole() for one in beside]
    np.testing.assert_array_equal(sounds[0], alone)
    np.testing.assert_array_equal(sounds[2], alone)
    assert not np.array_equal(sounds[3], alone)


def test_blocks_come_before_the_piece_is_done(served: Served) -> None:
    one = Piece(served, asked(60))
    while one.first_after is None:
        one.more()
    assert one.report is None
    first = time.monotonic()
    one.whole()
    assert one.report is not None
    assert time.monotonic() - first > one.first_after / 4, "the first block waited for nearly all of the piece"


def test_a_person_goes_before_the_background(served: Served) -> None:
    background = [Piece(served, asked(120, seed, live=False)) for seed in range(3)]
    while background[0].first_after is None:
        background[0].more()
    person = Piece(served, asked(30))
    person.whole()
    waiting = [one.answers.qsize() for one in background]
    assert person.report is not None
    assert any(one.report is None for one in background)
    for one in background:
        one.cancel()
    # A background piece makes 120 blocks; while a person's 30 were made, at most what was under way went on.
    assert sum(waiting) < 3 * 120


def test_a_background_piece_waits_while_a_person_is_served(served: Served) -> None:
    background = Piece(served, asked(180, live=False))
    while background.first_after is None:
        background.more()
    person = Piece(served, asked(60))
    while person.first_after is None:
        person.more()
    before = background.answers.qsize()
    while not person.answers.empty() or len(person.blocks) < 50:
        person.more()
    # A composer that waits for long says now and then that it lives, without a sound.
    meanwhile = [result.as_numpy("SAMPLES") for result, _ in list(background.answers.queue)[before:]]
    background.cancel()
    person.whole()
    heard = sum(1 for samples in meanwhile if len(samples))
    assert heard <= 2, "the background went on while a person waited"


def test_a_cancelled_piece_gives_its_place_back(served: Served) -> None:
    pieces = [Piece(served, asked(180, seed, live=False)) for seed in range(6)]
    while pieces[0].first_after is None:
        pieces[0].more()
    for one in pieces:
        one.cancel()
    # Both background places are free again: this one is made at once, not after six of three minutes.
    started = time.monotonic()
    after = Piece(served, asked(5, live=False))
    after.whole()
    long = Piece(served, asked(180, live=False))
    again = time.monotonic()
    long.whole()
    assert after.first_after is not None
    assert after.first_after < max(5.0, 2 * (time.monotonic() - again)), time.monotonic() - started


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"SECONDS": np.array([3], np.float32)}, "invalid: seconds must be between 5 and 180, not 3"),
        ({"SECONDS": np.array([np.nan], np.float32)}, "invalid: seconds"),
        ({"SEED": np.array([-4], np.int64)}, "invalid: seed must be 0 or more"),
        ({"VA": np.full((5, 2), 1.5, np.float32)}, "invalid: VA"),
        ({"RGB": np.full((5, 3), np.nan, np.float32)}, "invalid: RGB"),
        ({"MEASUREMENTS": texts(*["not json"] * 5)}, "invalid: MEASUREMENTS"),
        ({"WISHES": texts('{"mood": "sad"}')}, "invalid: the wish 'mood'"),
        ({"WISHES": texts('{"instruments": "kazoos"}')}, "invalid: .*kazoos"),
        ({"WISHES": texts('{"key": "H minor"}')}, "invalid: .*H"),
        ({"WISHES": texts('{"tempo": 900}')}, "invalid: tempo"),
    ],
)
def test_what_cannot_be_composed_is_refused_and_the_model_stays_well(
    served: Served, changed: dict[str, Array], reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=reason):
        Piece(served, {**asked(), **changed}).whole()
    assert len(piece(served, seconds=5)) == 5 * RATE


def test_a_tensor_of_the_wrong_shape_is_refused(served: Served) -> None:
    with pytest.raises(InferenceServerException, match="shape"):
        Piece(served, asked(VA=np.zeros((4, 2), np.float32))).whole()


def test_unloading_in_the_middle_of_a_piece_leaves_no_process(served: Served) -> None:
    one = Piece(served, asked(60))
    while one.first_after is None:
        one.more()
    one.cancel()
    before = triton.stubs(served.process)[MODEL]
    triton.heal(served.ports, MODEL)
    until = deadline(30)
    while (now := triton.stubs(served.process).get(MODEL)) in (None, before) and time.monotonic() < until:
        time.sleep(0.1)
    assert now not in (None, before)
    assert len(piece(served, seconds=5)) == 5 * RATE
