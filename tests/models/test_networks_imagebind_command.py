"""The command that takes ImageBind through its exported ONNX, at a tiny size: the same steps as there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import imagebind_onnx


def test_the_command_goes_the_whole_way_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report.md"
    assert imagebind_onnx.main(["--size", "tiny", "--only", "audio", "--rounds", "1", "--output", str(output)]) == 0
    report = output.read_text()
    assert report == capsys.readouterr().out
    (row,) = (line for line in report.splitlines() if line.startswith("| sounds"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 12
    assert all(float(cell.split()[0]) >= 0 for cell in cells[1:])
    assert float(cells[2]) > 0
    assert float(cells[11]) < 1e-4, "onnxruntime and torch agree"
    assert "tiny size, random weights" in report


def test_a_step_that_fails_ends_the_command(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"serve .* ended with 1"):
        imagebind_onnx.alone("--step", "serve", "--repository", str(tmp_path), "--only", "audio")
