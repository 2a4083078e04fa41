"""A sheet of pictures on black, all at one scale in mm: rows are planes, columns what is compared (matplotlib, Agg)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

#: Width and height that an A4 page leaves to a sheet, upright and lying.
PAGES_IN = ((7.0, 8.8), (10.4, 6.1))
DPI = 180
#: No picture is wider than this, so that a sheet of one column does not fill a page.
CELL_IN = 2.6
TITLE_IN, HEADER_IN, LABEL_IN, GAP_IN = 0.34, 0.23, 0.27, 0.07
#: Below the columns, where they have colour scales: the strip, and all with its two lines of text.
STRIP_IN, SCALE_IN = 0.09, 0.48
BAR_LENGTHS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
PAPER, INK, LETTER, EDGE = "#000000", "#d5d9dd", "#ffd866", "#3a4046"
OUTLINE = [withStroke(linewidth=1.6, foreground="black")]


@dataclass(frozen=True)
class Tile:
    """One picture.

    Attributes:
        pixels: (rows, columns) grey or (rows, columns, 3) RGB, in [0, 1]; row 0 at the top.
        size_mm: height and width.
        letters: at the left, right, top and bottom edge.
    """

    pixels: npt.NDArray
    size_mm: tuple[float, float]
    letters: str


@dataclass(frozen=True)
class Scale:
    """What the colours of a column mean.

    Attributes:
        colours: (N, 3) RGB in [0, 1], from the low to the high end.
        low: the value at the low end, as text.
        high: the value at the high end, as text.
        unit: of both, in words.
    """

    colours: npt.NDArray
    low: str
    high: str
    unit: str


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a sheet lie, in inches; `footer` is left for colour scales."""

    scale: float
    rows: tuple[float, ...]
    columns: tuple[float, ...]
    footer: float = 0.0

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the sheet."""
        width = LABEL_IN + sum(self.columns) + GAP_IN * len(self.columns)
        return width, TITLE_IN + HEADER_IN + sum(self.rows) + GAP_IN * len(self.rows) + self.footer

    def box(self, row: int, column: int, size_mm: tuple[float, float]) -> tuple[float, float, float, float]:
        """Left, bottom, width, height of a picture in fractions of the sheet, centred in its cell."""
        width, height = self.size
        tall, wide = size_mm[0] * self.scale, size_mm[1] * self.scale
        left = LABEL_IN + sum(self.columns[:column]) + GAP_IN * column + (self.columns[column] - wide) / 2
        top = TITLE_IN + HEADER_IN + sum(self.rows[:row]) + GAP_IN * row + (self.rows[row] - tall) / 2
        return left / width, 1 - (top + tall) / height, wide / width, tall / height


def layout(sizes_mm: Sequence[Sequence[tuple[float, float]]], footer: float = 0.0) -> Layout:
    """Choose the largest scale at which all pictures fit a page, upright or lying; it is the same for every picture.

    Args:
        sizes_mm: heights and widths of the pictures, one sequence a row.
        footer: height that is left below them, inches.
    """
    heights = [max(size[0] for size in row) for row in sizes_mm]
    widths = [max(row[column][1] for row in sizes_mm) for column in range(len(sizes_mm[0]))]
    taken_width = LABEL_IN + GAP_IN * len(widths)
    taken_height = TITLE_IN + HEADER_IN + GAP_IN * len(heights) + footer
    fitting = [
        min((width - taken_width) / sum(widths), (height - taken_height) / sum(heights)) for width, height in PAGES_IN
    ]
    scale = min(max(fitting), CELL_IN / max(widths))
    return Layout(scale, tuple(mm * scale for mm in heights), tuple(mm * scale for mm in widths), footer)


def draw(
    rows: Sequence[Sequence[Tile]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    scales: Sequence[Scale] = (),
) -> bytes:
    """Draw a sheet.

    Args:
        rows: pictures, one sequence a row.
        row_names: at the left.
        column_names: above.
        title: above all.
        scales: below, one a column, where colours stand for numbers.

    Returns:
        PNG bytes; the same for the same input.
    """
    plan = layout([[tile.size_mm for tile in row] for row in rows], SCALE_IN if scales else 0.0)
    figure = Figure(figsize=plan.size, dpi=DPI, facecolor=PAPER)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            _picture(figure, plan.box(row, column, tile.size_mm), tile, plan.scale, bar=column == 0)
    _names(figure, plan, row_names, column_names, title)
    for column, scale in enumerate(scales):
        _colour_scale(figure, plan, column, scale)
    return rendered(figure)


def rendered(figure: Figure) -> bytes:
    """PNG bytes of a figure; the same for the same figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return png(np.asarray(canvas.buffer_rgba())[..., :3])


def png(pixels: npt.NDArray) -> bytes:
    """PNG bytes of (rows, columns, 3) uint8."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


def _picture(figure: Figure, box: tuple[float, float, float, float], tile: Tile, scale: float, bar: bool) -> None:
    axes = figure.add_axes(box)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=EDGE, linewidth=0.6)
    height, width = tile.size_mm
    # The extent in mm gives the scale bar and the aspect; pixels are square in mm already.
    axes.imshow(tile.pixels, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="antialiased")
    left, right, top, bottom = list(tile.letters)
    pad_mm = 0.045 / scale
    _letter(axes, pad_mm, height / 2, left, "left", "center")
    _letter(axes, width - pad_mm, height / 2, right, "right", "center")
    _letter(axes, width / 2, pad_mm, top, "center", "top")
    _letter(axes, width / 2, height - pad_mm, bottom, "center", "bottom")
    if bar:
        _scale_bar(axes, tile.size_mm, scale)


def _letter(axes: Axes, x: float, y: float, text: str, across: str, up: str) -> None:
    axes.text(
        x, y, text, ha=across, va=up, color=LETTER, size=8, weight="bold", family="DejaVu Sans", path_effects=OUTLINE
    )


def bar_length_mm(width_mm: float) -> int:
    """The longest round length that takes no more than a third of a picture's width."""
    return max((length for length in BAR_LENGTHS_MM if length <= width_mm / 3), default=BAR_LENGTHS_MM[0])


def _scale_bar(axes: Axes, size_mm: tuple[float, float], scale: float) -> None:
    height, width = size_mm
    length, x, y = bar_length_mm(width), 0.08 / scale, height - 0.1 / scale
    bar = axes.plot([x, x + length], [y, y], color="white", linewidth=1.6, solid_capstyle="butt")[0]
    bar.set_path_effects([withStroke(linewidth=3.0, foreground="black")])
    axes.text(
        x,
        y - 0.045 / scale,
        f"{length} mm",
        ha="left",
        va="bottom",
        color="white",
        size=7.5,
        family="DejaVu Sans",
        path_effects=OUTLINE,
    )
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def _names(figure: Figure, plan: Layout, rows: Sequence[str], columns: Sequence[str], title: str) -> None:
    width, height = plan.size
    style: dict[str, Any] = {"color": INK, "family": "DejaVu Sans", "parse_math": False}
    figure.text(0.08 / width, 1 - 0.09 / height, title, va="top", size=10.5, weight="bold", **style)
    for column, name in enumerate(columns):
        left = LABEL_IN + sum(plan.columns[:column]) + GAP_IN * column
        x = (left + plan.columns[column] / 2) / width
        figure.text(x, 1 - (TITLE_IN + HEADER_IN / 2) / height, name, ha="center", va="center", size=9, **style)
    for row, name in enumerate(rows):
        top = TITLE_IN + HEADER_IN + sum(plan.rows[:row]) + GAP_IN * row
        y = 1 - (top + plan.rows[row] / 2) / height
        figure.text(LABEL_IN / 2 / width, y, name, ha="center", va="center", rotation=90, size=9, **style)


def _colour_scale(figure: Figure, plan: Layout, column: int, scale: Scale) -> None:
    width, height = plan.size
    left = LABEL_IN + sum(plan.columns[:column]) + GAP_IN * column
    wide, top = plan.columns[column], SCALE_IN - STRIP_IN
    axes = figure.add_axes((left / width, (top - 0.03) / height, wide / width, STRIP_IN / height))
    axes.imshow(scale.colours[None], aspect="auto", interpolation="bilinear")
    axes.set_axis_off()
    style: dict[str, Any] = {"color": INK, "family": "DejaVu Sans", "parse_math": False, "size": 7.5}
    for x, text, side in ((left, scale.low, "left"), (left + wide, scale.high, "right")):
        figure.text(x / width, (top - 0.06) / height, text, ha=side, va="top", **style)
    figure.text((left + wide / 2) / width, (top - 0.2) / height, scale.unit, ha="center", va="top", **style)
