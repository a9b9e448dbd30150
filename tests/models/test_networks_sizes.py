"""Each network at its published size: names, shapes and totals beside the published figures, without memory."""

from __future__ import annotations

import pytest
import torch

from networks import sizes


@pytest.mark.parametrize("name", sorted(sizes.PUBLISHED))
def test_a_network_is_as_large_as_published(name: str) -> None:
    counted = sizes.count(name)
    assert counted.faults == ()
    assert counted.agrees, f"{counted.amount:,.0f}, not {sizes.PUBLISHED[name].figure:,.0f}"


def test_a_figure_that_differs_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = sizes.Published(
        lambda: torch.nn.Linear(2, 3), 10, 0.5, "made up here", {"weight": (3, 2), "bias": (4,), "gain": (1,)}
    )
    monkeypatch.setattr(sizes, "PUBLISHED", {"wrong": wrong})
    counted = sizes.count("wrong")
    assert (counted.parameters, counted.agrees) == (9, False)
    assert counted.faults == ("bias is (3,), not (4,)", "gain is missing, not (1,)")
    assert sizes.main() == 1
    assert "differs from 10" in capsys.readouterr().out


def test_tiny_parts_are_the_published_parts_made_small() -> None:
    with torch.device("meta"):
        published, tiny = sizes.audioldm2_parts("published"), sizes.audioldm2_parts("tiny")
    assert published.keys() == tiny.keys()
    assert {name: type(part) for name, part in published.items()} == {name: type(part) for name, part in tiny.items()}
    small = sum(value.numel() for name, part in tiny.items() if name != "scheduler" for value in part.parameters())
    assert small < 500_000
