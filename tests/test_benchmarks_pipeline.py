"""The pipeline benchmark's own arithmetic: a benchmark that counts wrongly would flatter us."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.notebook import paired
from benchmarks.pipeline import end_rates, ratios, slope, total, verdict
from benchmarks.stack import Sample
from schemas.media import Kind, digest_of, item_id
from workers.pairing.rules import StableRule
from workers.pairing.similarity import Cosine


def test_the_plain_script_pairs_as_the_stable_rule_does() -> None:
    """Both must do the same job, or their times are not comparable."""
    random = np.random.default_rng(5)
    lines = [
        {
            "file": item_id(kind, digest_of(bytes([number]))),
            "kind": kind.value,
            "rgb": json.dumps(random.uniform(0, 255, (5, 3)).tolist()),
        }
        for kind, count in ((Kind.ARTWORK, 12), (Kind.TRACK, 7))
        for number in range(count)
    ]
    rule = StableRule(Cosine())
    for line in lines:
        rule.join(Kind(line["kind"]), line["file"], np.ravel(json.loads(line["rgb"])))
    expected = {(artwork, track): similarity for artwork, (track, similarity) in rule.pairs().items()}
    found = {(artwork, track): similarity for artwork, track, similarity in paired(lines)}
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair], abs=2e-7) for pair in found)


def test_memory_that_grows_steadily_has_its_own_slope() -> None:
    """5 MB a second over 100 s with 200 items are 2,500 MB for each 1,000 items, however noisy the beginning."""
    looks = [
        Sample(float(moment), {"worker": int((100 if moment < 15 else 300 + 5 * moment) * 1e6)}, {})
        for moment in range(101)
    ]
    assert slope(looks, "worker", 200)["slope"] == pytest.approx(2500, rel=1e-6)
    assert slope(looks, None, 200)["most"] == pytest.approx(800)


def test_a_run_that_slows_down_shows_at_its_end() -> None:
    """Ten items a second at first, five at the end."""
    arrivals = [number / 10 for number in range(200)]
    arrivals += [arrivals[-1] + (number + 1) / 5 for number in range(200)]
    first, last = end_rates(arrivals)
    assert first == pytest.approx(10, rel=0.01)
    assert last == pytest.approx(5, rel=0.01)


def test_ratios_are_of_medians_and_verdicts_say_which_side() -> None:
    """One slow round must not decide."""
    found = {
        "script": [{"wall": wall} for wall in (10.0, 11.0, 90.0)],
        "tuned": [{"wall": wall} for wall in (5.5, 5.0, 40.0)],
        "pipeline": [{"wall": wall} for wall in (6.6, 6.6, 60.0)],
    }
    assert ratios(found) == pytest.approx((0.6, 1.2))
    assert "reached" in verdict(1.2, 1.25)
    assert "missed" in verdict(1.26, 1.25)
    assert "missed" in verdict(0.89, 0.9, below=False)
    assert total({"a": 1.0, "b": 2.0}) == total(3.0)
