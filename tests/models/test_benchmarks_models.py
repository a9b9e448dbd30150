"""The benchmark of the full profile's networks runs where there is no GPU, and says what it did not measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import models


@pytest.mark.parametrize("section", ["imagebind", "captions"])
def test_a_section_compares_two_ways_in_one_run(section: str, tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    models.main(["--device", "cpu", "--section", section, "--rounds", "1", "--output", str(report)])
    rows = [line.split("|") for line in report.read_text().splitlines() if line.startswith("| ")]
    rates = [float(row[2]) for row in rows if row[2].strip().replace(".", "").isdigit()]
    assert rates[0] == 1.0
    assert len(rates) >= 2 and all(rate > 0 for rate in rates)
    assert "at a tiny size" in report.read_text()


def test_the_papers_way_and_ours_are_measured_on_the_same_piece() -> None:
    machine = models.Machine("cpu")
    model = models.audioldm2(machine, "tiny", machine.half)
    condition, negative = models.listened(model, machine, 1)
    seconds = machine.seconds / 10
    paper = models.as_the_paper(model, condition, negative, seconds, 2)
    mine = models.ours(model, condition, negative, seconds)
    samples = round(seconds * model.sampling_rate)
    assert paper.shape[1] >= samples
    assert sum(chunk.shape[1] for chunk in mine) == samples
