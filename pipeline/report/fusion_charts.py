"""The charts of methods that fuse images: measures, how they go together, edges, and what a network looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.curves import COLOURS, FONT, GRID, INK, QUIET, shortened
from pipeline.report.sheet import DPI, rendered

Pictures = Mapping[str, npt.NDArray[Any]]
#: A mean and the ends of its interval, None where there is none.
Mean = tuple[float, float | None, float | None]
#: Panels or pictures side by side.
ACROSS = 3


def measures_chart(measures: Mapping[str, Mapping[str, Mean]], title: str) -> bytes:
    """Means of measures with their intervals, a panel a measure, a line a method.

    Args:
        measures: measure -> method -> mean and interval; methods in the order in which they are drawn from the top.
        title: above all.

    Returns:
        PNG bytes; the same for the same input.
    """
    rows = -(-len(measures) // ACROSS)
    methods = list(next(iter(measures.values())))
    figure = _figure(9.6, 0.6 + rows * (0.7 + 0.2 * len(methods)), title)
    panels = figure.subplots(rows, ACROSS, squeeze=False, sharey=True)
    for axes in panels.flat[len(measures) :]:
        axes.set_visible(False)
    for axes, (name, values) in zip(panels.flat, measures.items(), strict=False):
        _means(axes, name, values)
    panels[0, 0].set_yticks(range(len(methods)), [shortened(name, 18) for name in methods], family=FONT, size=8)
    panels[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    return rendered(figure)


def correlation_chart(names: Sequence[str], matrix: npt.NDArray[np.float64], title: str) -> bytes:
    """A matrix of correlations from -1 to 1, with its numbers; NaN stays empty.

    Args:
        names: of rows and columns.
        matrix: (N, N).
        title: above it.

    Returns:
        PNG bytes; the same for the same input.
    """
    side = 2.2 + 0.34 * len(names)
    figure = _figure(side, 0.9 * side, title)
    axes = figure.add_subplot()
    shown = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.argwhere(np.isfinite(matrix)):
        value = matrix[row, column]
        shade = "white" if abs(value) > 0.6 else INK
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", size=6.5, color=shade, family=FONT)
    axes.set_xticks(range(len(names)), names, rotation=90, size=8, family=FONT)
    axes.set_yticks(range(len(names)), names, size=8, family=FONT)
    figure.colorbar(shown, shrink=0.6).ax.tick_params(labelsize=8)
    return rendered(figure)


def pictures_chart(rows: Sequence[Pictures], notes: Mapping[str, str], title: str, across: int = 0) -> bytes:
    """Pictures side by side, a further row below each for what was made of them.

    Args:
        rows: name -> (rows, columns); one row has one scale of grey, from 0 to its largest value, or to 1.
        notes: name -> what is written below the last row's picture.
        title: above all.
        across: so many side by side, where one row is to be broken; 0: all.

    Returns:
        PNG bytes; the same for the same input.
    """
    count = across or len(rows[0])
    lines = [
        (dict(list(row.items())[start : start + count]), max(1.0, *(float(item.max()) for item in row.values())))
        for row in rows
        for start in range(0, len(row), count)
    ]
    tall, wide = next(iter(rows[0].values())).shape
    figure = _figure(1.45 * count, 0.5 + len(lines) * (0.3 + 1.4 * tall / wide), title)
    panels = figure.subplots(len(lines), count, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, (pictures, top) in zip(panels, lines, strict=True):
        for axes, (name, picture) in zip(line, pictures.items(), strict=False):
            axes.imshow(picture, cmap="gray", vmin=min(0.0, float(picture.min())), vmax=top)
            axes.set_title(shortened(name, 20), size=8, color=INK, family=FONT, parse_math=False)
    for axes, name in zip(panels[-1], lines[-1][0], strict=False):
        axes.text(0.5, -0.03, notes.get(name, ""), ha="center", va="top", size=7, color=QUIET, transform=axes.transAxes)
    return rendered(figure)


def _figure(wide: float, tall: float, title: str) -> Figure:
    figure = Figure(figsize=(wide, tall), dpi=DPI, facecolor="white", layout="constrained")
    figure.suptitle(title, color=INK, size=10, weight="bold", family=FONT, x=0.01, ha="left", parse_math=False)
    return figure


def _means(axes: Axes, name: str, values: Mapping[str, Mean]) -> None:
    axes.set_title(name, size=9, color=INK, family=FONT, loc="left", parse_math=False)
    axes.grid(color=GRID, linewidth=0.6, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=8)
    for spine in axes.spines.values():
        spine.set(color=QUIET, linewidth=0.6)
    for place, (mean, low, high) in enumerate(values.values()):
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.2)
        axes.plot(mean, place, "o", color=COLOURS[0], markersize=4)
