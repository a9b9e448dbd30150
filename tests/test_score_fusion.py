"""The fused valence and arousal, and the plain words for a feeling: what must hold of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.feelings import feeling_words
from workers.score import SCORED_WEIGHT, fuse

unit = st.floats(0, 1, allow_nan=False)
points = st.lists(st.tuples(unit, unit), min_size=5, max_size=5)


@given(points, points)
def test_each_part_is_fused_by_itself_with_the_stated_weight(
    scored: list[tuple[float, float]], medium: list[tuple[float, float]]
) -> None:
    fused = fuse(np.array(scored), np.array(medium))
    assert fused.shape == (5, 2)
    for one, two, three in zip(scored, medium, fused, strict=True):
        for axis in range(2):
            assert np.isclose(three[axis], SCORED_WEIGHT * one[axis] + (1 - SCORED_WEIGHT) * two[axis])
            assert min(one[axis], two[axis]) - 1e-9 <= three[axis] <= max(one[axis], two[axis]) + 1e-9


def test_readings_that_agree_are_left_alone() -> None:
    same = np.array([[0.2, 0.9]] * 5)
    assert np.allclose(fuse(same, same), same)


@given(st.tuples(*[st.floats(0, 255)] * 3), st.tuples(unit, unit))
def test_every_feeling_has_words(rgb: tuple[float, float, float], va: tuple[float, float]) -> None:
    words = feeling_words(rgb, va).split(", ")
    assert 1 <= len(words) <= 2 and all(words)


def test_the_corners_of_the_plane_have_the_words_one_expects() -> None:
    grey = (100.0, 100.0, 100.0)
    assert feeling_words(grey, (0.9, 0.9)) == "joyful"
    assert feeling_words(grey, (0.9, 0.1)) == "serene"
    assert feeling_words(grey, (0.1, 0.1)) == "gloomy"
    assert feeling_words(grey, (0.1, 0.9)) == "tense"


def test_a_channel_is_named_only_when_it_stands_out() -> None:
    assert feeling_words((200.0, 100.0, 60.0), (0.5, 0.5)).endswith("full of movement")
    assert feeling_words((60.0, 90.0, 200.0), (0.5, 0.5)).endswith("nostalgic")
    assert ", " not in feeling_words((100.0, 104.0, 98.0), (0.5, 0.5))
