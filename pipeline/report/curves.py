"""The charts of a classifier's report: ROC, precision-recall, decision curves, confusion matrices (matplotlib, Agg)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.probabilities import ReliabilityBin
from pipeline.report.sheet import DPI, rendered
from pipeline.words import clean

Kind = Literal["roc", "precision_recall", "decision", "loss"]
Numbers = Sequence[float]

#: Of a chart, two of which stand side by side, and of the reliability before and after.
SIZE_IN, RELIABILITY_IN = (4.6, 4.3), (7.0, 4.3)
INK, QUIET, ACCENT, GRID, RIM = "#1d252c", "#5b6770", "#17566b", "#e3e7ea", "#d5dade"
FONT = "DejaVu Sans"
#: Okabe and Ito's colours, which most colour-blind readers tell apart; dashes tell them apart in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (8, 2)), (0, (3, 1, 1, 1)))
TITLES: dict[Kind, str] = {
    "roc": "ROC curve",
    "precision_recall": "Precision and recall",
    "decision": "Decision curve",
    "loss": "Loss",
}
AXES: dict[Kind, tuple[str, str]] = {
    "roc": ("1 − specificity", "Sensitivity"),
    "precision_recall": ("Recall", "Precision"),
    "decision": ("Probability from which one would treat", "Net benefit per case"),
    "loss": ("Epoch", "Mean loss"),
}
#: Longest name in a legend or beside an axis.
LONGEST = 28


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: in the legend.
        x: (P,).
        y: (P,).
        band_x: (Q,); empty without a band.
        low: (Q,) lower edge of the band.
        high: (Q,) upper edge of the band.
        reference: whether it is a thin grey line to compare with, such as treating everybody.
    """

    name: str
    x: Numbers
    y: Numbers
    band_x: Numbers = ()
    low: Numbers = ()
    high: Numbers = ()
    reference: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves on common axes.

    Attributes:
        kind: which axes.
        of: the class that counts as positive; of `loss`, whose loss it is.
        lines: what is drawn.
        caption: what a reader has to know.
    """

    kind: Kind
    of: str
    lines: tuple[Line, ...]
    caption: str


@dataclass(frozen=True)
class Confusion:
    """Numbers of cases by true and predicted class.

    Attributes:
        model: whose predictions.
        classes: K names.
        counts: (K, K), true class along the rows.
    """

    model: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        key: file name without its suffix.
        title: a heading.
        caption: what it shows.
        png: the file's bytes.
    """

    key: str
    title: str
    caption: str
    png: bytes


def panel_chart(panel: Panel, key: str) -> Chart:
    """Draw curves.

    Returns:
        The chart; the same bytes for the same input.
    """
    title = f"{TITLES[panel.kind]}: {shortened(panel.of)}"
    figure, axes = _canvas(title)
    plain = [line for line in panel.lines if not line.reference]
    for line in panel.lines:
        _draw(axes, line, plain.index(line) if line in plain else -1, stepped=panel.kind == "precision_recall")
    across, up = AXES[panel.kind]
    axes.set_xlabel(across, color=INK, size=9)
    axes.set_ylabel(up, color=INK, size=9)
    _limit(axes, panel)
    _legend(axes, panel)
    return Chart(key, title, panel.caption, rendered(figure))


def confusion_chart(confusion: Confusion, key: str) -> Chart:
    """Draw a confusion matrix: numbers of cases, shaded by their part of the true class.

    Returns:
        The chart; the same bytes for the same input.
    """
    counts = np.asarray(confusion.counts, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    parts = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    title = f"Confusion matrix: {shortened(confusion.model)}"
    figure, axes = _canvas(title)
    axes.grid(visible=False)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    size = max(6.0, 11.0 - len(counts))
    for row, column in np.ndindex(*counts.shape):
        shade = "white" if parts[row, column] > 0.55 else INK
        share = f"\n{100 * parts[row, column]:.0f} %" if totals[row, 0] else ""
        text = f"{int(counts[row, column])}{share}"
        axes.text(column, row, text, ha="center", va="center", color=shade, size=size, family=FONT)
    names = [shortened(name, 14) for name in confusion.classes]
    style: dict[str, Any] = {"size": 8, "family": FONT, "parse_math": False}
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0, **style)
    axes.set_yticks(range(len(names)), names, **style)
    axes.set_xlabel("Most probable class", color=INK, size=9)
    axes.set_ylabel("True class", color=INK, size=9)
    caption = "Numbers of cases; the percentages and the shades are parts of the true class."
    return Chart(key, title, caption, rendered(figure))


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name that fits beside a chart."""
    text = clean(name)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, color=INK, size=10, weight="bold", family=FONT, loc="left", parse_math=False)
    axes.tick_params(colors=QUIET, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set(color=QUIET, linewidth=0.6)
    return figure, axes


def _draw(axes: Axes, line: Line, number: int, stepped: bool) -> None:
    # Precision and recall are steps between thresholds: a straight line would promise what no threshold gives.
    how: dict[str, Any] = {"drawstyle": "steps-pre"} if stepped and not line.reference else {}
    name = shortened(line.name)
    if line.reference:
        axes.plot(line.x, line.y, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label=name)
        return
    # beyond six lines the colours come again, each with another dash
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[(number + number // len(COLOURS)) % len(DASHES)]
    if len(line.band_x):
        axes.fill_between(line.band_x, line.low, line.high, color=colour, alpha=0.14, linewidth=0)
    axes.plot(line.x, line.y, color=colour, linewidth=1.6, linestyle=dash, label=name, **how)


def _limit(axes: Axes, panel: Panel) -> None:
    """Rates run from 0 to 1; net benefit from a little below 0 to its largest value; losses from 0 on."""
    if panel.kind == "loss":
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    axes.set_xlim(-0.01, 1.01)
    if panel.kind != "decision":
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        return
    top = max((max(line.y) for line in panel.lines if len(line.y)), default=0.0)
    top = top if top > 0 else 0.05
    axes.set_ylim(-0.25 * top, 1.08 * top)


def _legend(axes: Axes, panel: Panel) -> None:
    place: Any = {
        "roc": "lower right",
        "precision_recall": "lower left",
        "decision": "upper right",
        "loss": "upper right",
    }[panel.kind]
    legend = axes.legend(
        loc=place, fontsize=8, frameon=True, framealpha=0.85, edgecolor=GRID, prop={"family": FONT, "size": 8}
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(INK)


@dataclass(frozen=True)
class Diagram:
    """One reliability diagram.

    Attributes:
        title: above it.
        bins: those that hold something.
        ece: expected calibration error, printed in the diagram.
    """

    title: str
    bins: tuple[ReliabilityBin, ...]
    ece: float


def reliability_figure(diagrams: Sequence[Diagram]) -> bytes:
    """Draw diagrams side by side, each above the counts of its bins.

    Returns:
        PNG bytes; the same for the same input.
    """
    figure = Figure(figsize=RELIABILITY_IN, dpi=DPI, facecolor="white")
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
    axes.tick_params(labelsize=7, color=RIM, labelcolor=QUIET)
    axes.grid(color=RIM, linewidth=0.4)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set(color=RIM, linewidth=0.6)
