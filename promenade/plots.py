"""Pictures of measurements, PNG and SVG: the distributions of a pairing beside what chance gives.

matplotlib is an optional part (`plots`); who calls asks `can_draw` first. No figure is computed here but histograms.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from promenade.pairing.truth import PAIRED, RANDOM, Judged, pairs_of
from schemas.failures import Refused
from workers.pairing.evaluation import Baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_INSTALL: Final = "to draw, install the optional part `plots`: pip install '.[plots]' in the clone of Promenade"
_INK, _GREY, _PALE = "#222222", "#6b6b6b", "#d9d9d9"
# Okabe and Ito's colours, told apart by every kind of colour vision; every row is named as well.
_PAIRS, _OTHER, _CHANCE = "#0072B2", "#E69F00", "#8c8c8c"
_FEW: Final = 60
"""Up to this many values each is drawn by itself, as a tick under its histogram."""


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_pairing(judged: Judged, folder: Path, stem: str) -> list[Path]:
    """Draw the distributions of similarity, and the means beside their baselines.

    Args:
        judged: a pairing with at least one pair.
        folder: made where it is missing.
        stem: name of the files without suffix.

    Returns:
        The files written: PNG, then SVG. The same figures give the same bytes.

    Raises:
        Refused: a file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, baselines = judged.distributions, judged.evaluation.baselines
    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans", "font.size": 10, "text.color": _INK, "axes.edgecolor": _GREY,
        "axes.labelcolor": _INK, "xtick.color": _GREY, "ytick.color": _INK, "svg.hashsalt": "promenade",
        "svg.fonttype": "none",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        heights = [0.95 * len(rows) + 0.3, 0.5 * max(1, len(baselines)) + 0.3]
        figure = Figure(figsize=(9.6, sum(heights) + 2.5), facecolor="white")
        FigureCanvasAgg(figure)
        total = figure.get_figheight()
        figure.text(0.02, 1 - 0.32 / total, _heading(judged), fontsize=13, fontweight="bold", va="center")
        figure.text(0.02, 1 - 0.60 / total, _subheading(judged), fontsize=9.5, color=_GREY, va="center")
        left, width = 0.27, 0.71
        bottom = (heights[1] + 1.55) / total
        upper = figure.add_axes((left, bottom, width, heights[0] / total))
        lower = figure.add_axes((left, 0.62 / total, width - 0.22, heights[1] / total))
        _draw_rows(upper, judged)
        _draw_baselines(lower, baselines)
        written = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": "Promenade"})):
                path = folder / f"{stem}.{suffix}"
                figure.savefig(path, dpi=160, metadata=metadata)
                written.append(path)
        except OSError as error:
            raise Refused(f"{error.filename or folder} cannot be written: {error.strerror or error}.") from None
    return written


def _heading(judged: Judged) -> str:
    return f"How similar are the pairs? ({judged.title})"


def _subheading(judged: Judged) -> str:
    return f"{judged.evaluation.pairs:,} pairs, {judged.made_by}. Histograms: each scaled to its highest bin."


def _draw_rows(axes: Axes, judged: Judged) -> None:
    """One histogram a row over one axis, each scaled to its own highest bin, with median and 5th percentile."""
    rows = list(judged.distributions.items())
    every = np.concatenate([values for _, values in rows])
    low, high = _limits(every)
    fewest = min(len(values) for _, values in rows)
    bins = np.linspace(every.min() - 1e-9, every.max() + 1e-9, (25 if fewest <= _FEW else 60) + 1)
    for place, (label, values) in enumerate(reversed(rows)):
        colour = _PAIRS if label == PAIRED else _CHANCE if label == RANDOM else _OTHER
        counts, _ = np.histogram(values, bins)
        axes.stairs(place + 0.72 * counts / max(1, counts.max()), bins, baseline=place, fill=True, color=colour)
        axes.plot([low, high], [place, place], color=_GREY, linewidth=0.6)
        if len(values) <= _FEW:
            axes.vlines(values, place - 0.09, place - 0.01, color=colour, linewidth=1)
        median, fifth = np.median(values), np.percentile(values, 5)
        axes.vlines(median, place, place + 0.8, color=_INK, linewidth=1.4)
        axes.vlines(fifth, place, place + 0.8, color=_INK, linewidth=1.1, linestyle=(0, (2, 2)))
        axes.annotate(
            _wrapped(label), (0, place + 0.48), xycoords=("axes fraction", "data"), xytext=(-10, 0),
            textcoords="offset points", ha="right", va="center",
        )  # fmt: skip
        axes.annotate(
            f"median {median:.3f}, 5th percentile {fifth:.3f},\nlowest {values.min():.3f}",
            (0, place + 0.1), xycoords=("axes fraction", "data"), xytext=(-10, 0), textcoords="offset points",
            ha="right", va="center", fontsize=8, color=_GREY,
        )  # fmt: skip
    axes.set_yticks([])
    axes.set_xlim(low, high)
    axes.set_ylim(-0.12, len(rows) - 0.05)
    unit = f" ({judged.unit})" if judged.unit else ""
    _finish(axes, f"similarity{unit}; solid line: median, dashed line: 5th percentile")


def _draw_baselines(axes: Axes, baselines: tuple[Baseline, ...]) -> None:
    """Each baseline as its mean with two spreads either side, the pairs as a dot, and the lift in words."""
    if not baselines:
        axes.set_axis_off()
        axes.text(0, 0.5, "There is no baseline: the vectors or the rule are not known.", color=_GREY)
        return
    ends = [each.observed for each in baselines] + [
        each.mean + side * 2 * (each.spread or 0) for each in baselines if each.mean is not None for side in (-1, 1)
    ]
    low, high = min(ends), max(ends)
    margin = 0.06 * ((high - low) or 0.1)
    legend = {"baseline: mean ± 2 spreads", "the pairs: mean"}

    def once(label: str) -> str | None:
        """A label for the first mark of its kind, so that the legend has each once."""
        if label not in legend:
            return None
        legend.remove(label)
        return label

    for place, each in enumerate(reversed(baselines)):
        if each.mean is not None:
            axes.plot(
                [each.mean, each.observed], [place, place], color=_PALE, linewidth=3, zorder=1, solid_capstyle="butt"
            )
            axes.errorbar(
                each.mean, place, xerr=2 * (each.spread or 0), color=_CHANCE, ecolor=_CHANCE, elinewidth=1.6,
                capsize=4, marker="D", markersize=6, zorder=2, label=once("baseline: mean ± 2 spreads"),
            )  # fmt: skip
        axes.plot(each.observed, place, "o", color=_PAIRS, markersize=8, zorder=3, label=once("the pairs: mean"))
        axes.annotate(
            said_of(each), (1, place), xycoords=("axes fraction", "data"), xytext=(10, 0),
            textcoords="offset points", fontsize=8.5, va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(baselines)), [_wrapped(each.name) for each in reversed(baselines)])
    axes.set_ylim(-0.6, len(baselines) - 0.4)
    axes.set_xlim(low - margin, high + margin)
    _finish(axes, "mean similarity, each row in the space it names")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0.2)


def said_of(baseline: Baseline) -> str:
    """Lift and distance from chance in a few words, and below them how many pairs the baseline has."""
    parts = [] if baseline.lift is None else [f"lift {baseline.lift:.3f}"]
    if baseline.deviations is not None:
        above = "above" if baseline.deviations >= 0 else "below"
        parts.append(f"{abs(baseline.deviations):,.1f} spreads {above}")
    if baseline.mean is None:
        parts = ["the baseline paired nothing"]
    left_out = f"\n({baseline.empty} of {baseline.repeats} runs: none)" if baseline.empty else ""
    first = ", ".join(parts) or "no ratio: the baseline does not vary"
    return f"{first}\nbaseline of {pairs_of(baseline)} pairs{left_out}"


def _limits(values: Any) -> tuple[float, float]:
    """The axis: from the lowest value to the highest, with a little air."""
    low, high = float(values.min()), float(values.max())
    air = 0.03 * (high - low) or 0.05
    return low - air, high + air


def _wrapped(label: str) -> str:
    """A label in lines of at most 26 letters."""
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > 26:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _finish(axes: Axes, label: str) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_PALE, linewidth=0.5, zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(label, fontsize=9)
