"""Reliability diagrams: frequency over confidence with bands, above the counts of their bins (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.sheet import DPI, rendered

SIZE_IN = (7.0, 4.3)
INK, QUIET, ACCENT, GRID = "#1d252c", "#5b6770", "#17566b", "#d5dade"


@dataclass(frozen=True)
class DiagramBin:
    """One bin.

    Attributes:
        lower: lower edge of the confidence.
        upper: upper edge.
        count: predictions in it.
        confidence: their mean confidence.
        frequency: how often they were right.
        frequency_low: lower end of the 95 % interval of the frequency.
        frequency_high: upper end.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    frequency: float
    frequency_low: float
    frequency_high: float


@dataclass(frozen=True)
class Diagram:
    """One reliability diagram.

    Attributes:
        title: above it.
        bins: those that hold something.
        ece: expected calibration error, printed in the diagram.
    """

    title: str
    bins: tuple[DiagramBin, ...]
    ece: float


def reliability_figure(diagrams: Sequence[Diagram]) -> bytes:
    """Draw diagrams side by side, each above the counts of its bins.

    Returns:
        PNG bytes; the same for the same input.
    """
    figure = Figure(figsize=SIZE_IN, dpi=DPI, facecolor="white")
    axes = figure.subplots(2, len(diagrams), sharex=True, height_ratios=(3, 1), squeeze=False)
    most = max(item.count for diagram in diagrams for item in diagram.bins)
    for column, diagram in enumerate(diagrams):
        _frequencies(axes[0, column], diagram)
        _counts(axes[1, column], diagram, most)
        # only the left column names what both share
        for row, name in enumerate(("How often right", "Predictions")):
            axes[row, column].set_ylabel(name if column == 0 else "", size=8, color=INK)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.93, bottom=0.11, wspace=0.14, hspace=0.09)
    return rendered(figure)


def _frequencies(axes: Axes, diagram: Diagram) -> None:
    x = [item.confidence for item in diagram.bins]
    y = [item.frequency for item in diagram.bins]
    below = [max(0.0, item.frequency - item.frequency_low) for item in diagram.bins]
    above = [max(0.0, item.frequency_high - item.frequency) for item in diagram.bins]
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.errorbar(x, y, yerr=[below, above], fmt="o-", color=ACCENT, ecolor=ACCENT, markersize=3.5, linewidth=1.0,
                  elinewidth=1.4, capsize=2.2)  # fmt: skip
    axes.set_title(diagram.title, size=9, weight="bold", color=INK, loc="left", parse_math=False)
    axes.text(0.04, 0.93, f"ECE {diagram.ece:.3f}", size=8, color=INK, va="top", transform=axes.transAxes)
    axes.set_ylim(-0.02, 1.02)
    _quiet(axes)


def _counts(axes: Axes, diagram: Diagram, most: int) -> None:
    edges = [item.lower for item in diagram.bins]
    widths = [item.upper - item.lower for item in diagram.bins]
    counts = [item.count for item in diagram.bins]
    axes.bar(edges, counts, widths, align="edge", color=ACCENT, alpha=0.75, edgecolor="white", linewidth=0.5)
    for item in diagram.bins:
        middle = (item.lower + item.upper) / 2
        axes.text(middle, item.count + most * 0.03, str(item.count), size=4.8, ha="center", color=QUIET)
    axes.set_ylim(0, most * 1.18)
    axes.set_xlim(0, 1)
    axes.set_xlabel("Confidence in the predicted class", size=8, color=INK)
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.tick_params(labelsize=7, color=GRID, labelcolor=QUIET)
    axes.grid(color=GRID, linewidth=0.4)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set(color=GRID, linewidth=0.6)
