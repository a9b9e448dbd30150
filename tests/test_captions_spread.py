"""The command that says how far the scores of the product's own captions spread."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_models import spread
from PIL import Image

from tests.made_media import made_picture
from tests.serving_fixtures import REPOSITORY, missing


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_spread_of_unlike_pictures_is_printed_for_every_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers", reason="text vectors need the package tokenizers")
    for mood in ("sad", "lively"):
        Image.fromarray(made_picture(mood, side=128, seed=5)).save(tmp_path / f"{mood}.png")
    (tmp_path / "manifest.csv").write_text("file,kind,title\nsad.png,artwork,Rain\n", encoding="utf-8")
    assert spread.main([str(tmp_path), "--repository", str(REPOSITORY)]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows[:5]] == [["2 pictures, whole", channel] for channel in spread.CHANNELS]
    assert len(rows) == 10
    for _, _, mean, deviation, least, most in rows[:5]:
        assert float(least) <= float(mean) <= float(most) and float(deviation) > 0


def test_a_folder_without_media_is_said_to_hold_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spread.main([str(tmp_path), "--repository", str(REPOSITORY)]) == 2
    assert "no picture or recording found" in capsys.readouterr().err
