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
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from pipeline.store.sections import Axis
from pipeline.words import clean

#: Width and height that an A4 page leaves to a sheet, upright and lying.
PAGES_IN = ((7.0, 8.8), (10.4, 6.1))
DPI = 180
#: No picture is wider than this, so that a sheet of one column does not fill a page.
CELL_IN = 2.6
TITLE_IN, HEADER_IN, LABEL_IN, GAP_IN = 0.34, 0.38, 0.4, 0.07
#: Below the columns, where they have colour scales: the strip, and all with its two lines of text.
STRIP_IN, SCALE_IN = 0.09, 0.48
#: Half the time of zlib's default, for a fifth more bytes.
PNG_LEVEL = 3
#: Between the edge of a picture and the letters in it.
PAD_IN = 0.045
#: A line of the legend, the square before a name, and the width of a letter.
LEGEND_IN, SWATCH_IN, LETTER_IN = 0.2, 0.1, 0.068
LEGEND_NAMES = 24
#: The title: points, and where it begins; one that does not fit is made smaller.
TITLE_SIZE, TITLE_LEFT_IN = 10.5, 0.08
BAR_LENGTHS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
PAPER, INK, LETTER, EDGE = "#000000", "#d5d9dd", "#ffd866", "#3a4046"
STYLE: dict[str, Any] = {"color": INK, "family": "DejaVu Sans", "parse_math": False}
OUTLINE = [withStroke(linewidth=1.6, foreground="black")]


@dataclass(frozen=True)
class Tile:
    """One picture.

    Attributes:
        pixels: (rows, columns) grey or (rows, columns, 3) RGB, in [0, 1]; row 0 at the top.
        size_mm: height and width.
        letters: at the left, right, top and bottom edge; none where there are axes.
        axes: across and up, of a picture that lies nowhere in a patient: they take the place of letters and scale bar.
    """

    pixels: npt.NDArray
    size_mm: tuple[float, float]
    letters: str
    axes: Sequence[Axis] = ()


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
class Swatch:
    """What a colour stands for: RGB in [0, 1]."""

    name: str
    colour: npt.NDArray


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a sheet lie, in inches; `footer` is left for colour scales and the legend."""

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
        """Left, top, width, height of a picture, inches from the sheet's upper left corner, centred in its cell."""
        tall, wide = size_mm[0] * self.scale, size_mm[1] * self.scale
        return self.left(column) + (self.columns[column] - wide) / 2, self.middle(row) - tall / 2, wide, tall

    def left(self, column: int) -> float:
        """Where a column starts."""
        return LABEL_IN + sum(self.columns[:column]) + GAP_IN * column

    def middle(self, row: int) -> float:
        """Where the middle of a row is."""
        return TITLE_IN + HEADER_IN + sum(self.rows[:row]) + GAP_IN * row + self.rows[row] / 2


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
    notes: Sequence[str] = (),
    scales: Sequence[Scale | None] = (),
    legend: Sequence[Swatch] = (),
) -> bytes:
    """Draw a sheet.

    Args:
        rows: pictures, one sequence a row.
        row_names: at the left; of two lines, the second one is smaller.
        column_names: above.
        title: above all.
        notes: below the names of the columns, small.
        scales: below, one a column, where colours stand for numbers.
        legend: below all, where colours stand for names.

    Returns:
        PNG bytes; the same for the same input.
    """
    scales_in = SCALE_IN if any(scales) else 0.0
    sizes = [[tile.size_mm for tile in row] for row in rows]
    lines = _lines(legend, layout(sizes).size[0])
    plan = layout(sizes, scales_in + LEGEND_IN * len(lines))
    figure = Figure(figsize=plan.size, dpi=DPI, facecolor=PAPER)
    axes = _paper(figure, plan.size)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            _picture(axes, plan.box(row, column, tile.size_mm), tile, plan.scale, bar=column == 0)
    _names(axes, plan, row_names, column_names, title)
    for column, note in enumerate(notes):
        _column_text(axes, plan, column, TITLE_IN + 0.3, note, 7)
    for column, scale in enumerate(scales):
        if scale:
            _colour_scale(axes, plan, column, scale)
    for number, line in enumerate(reversed(lines)):
        _legend_line(axes, line, plan.size[1] - (number + 0.5) * LEGEND_IN)
    return rendered(figure)


def _paper(figure: Figure, size: tuple[float, float]) -> Axes:
    """All of a sheet in inches from its upper left corner: axes of their own for each picture take half the time."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), autoscale_on=False)
    return axes


def draw_outline(
    axes: Axes, inside: npt.NDArray[np.bool_], colour: str, dash: Any = "-", linewidth: float = 1.4
) -> None:
    """Draw the edge of what is set in a plane (rows, columns), if it has one."""
    if inside.any() and not inside.all():
        style: dict[str, Any] = {"colors": [colour], "linestyles": [dash], "linewidths": linewidth}
        axes.contour(inside.astype(float), levels=[0.5], **style)


def rendered(figure: Figure) -> bytes:
    """PNG bytes of a figure; the same for the same figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return png(np.asarray(canvas.buffer_rgba())[..., :3])


def png(pixels: npt.NDArray) -> bytes:
    """PNG bytes of (rows, columns, 3) uint8."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=PNG_LEVEL)
    return stream.getvalue()


def _picture(axes: Axes, box: tuple[float, float, float, float], tile: Tile, scale: float, bar: bool) -> None:
    left, top, wide, tall = box
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "antialiased"}
    axes.imshow(tile.pixels, cmap="gray", vmin=0, vmax=1, extent=(left, left + wide, top + tall, top), **style)
    axes.add_patch(Rectangle((left, top), wide, tall, fill=False, edgecolor=EDGE, linewidth=0.6))
    if tile.axes:
        _ticks(axes, box, tile.axes)
        return
    x, y = left + wide / 2, top + tall / 2
    at_left, at_right, at_top, at_bottom = list(tile.letters)
    _letter(axes, left + PAD_IN, y, at_left, "left", "center")
    _letter(axes, left + wide - PAD_IN, y, at_right, "right", "center")
    _letter(axes, x, top + PAD_IN, at_top, "center", "top")
    _letter(axes, x, top + tall - PAD_IN, at_bottom, "center", "bottom")
    if bar:
        _scale_bar(axes, left + 0.08, top + tall - 0.1, bar_length_mm(tile.size_mm[1]), scale)


def _ticks(axes: Axes, box: tuple[float, float, float, float], named: Sequence[Axis]) -> None:
    """Ticks and their texts inside the picture, along its lower and its left edge."""
    left, top, wide, tall = box
    style: dict[str, Any] = {"color": LETTER, "size": 7, "family": "DejaVu Sans", "path_effects": OUTLINE}
    bottom = top + tall
    across, up = named
    for place, text in across.ticks:
        x = left + place * wide
        axes.plot([x, x], [bottom, bottom - PAD_IN], color=LETTER, linewidth=1.0)
        axes.text(x, bottom - 1.5 * PAD_IN, clean(text), ha=_side(place), va="bottom", **style)
    for place, text in up.ticks:
        y = bottom - place * tall
        axes.plot([left, left + PAD_IN], [y, y], color=LETTER, linewidth=1.0)
        axes.text(left + 1.5 * PAD_IN, y, clean(text), ha="left", va=_up(place), **style)


def _side(place: float) -> str:
    """How a text stands at a tick: inside the picture at both ends."""
    return "left" if place < 0.08 else "right" if place > 0.92 else "center"


def _up(place: float) -> str:
    """As `_side`, of a tick at the left."""
    return "bottom" if place < 0.04 else "top" if place > 0.96 else "center"


def _letter(axes: Axes, x: float, y: float, text: str, across: str, up: str) -> None:
    axes.text(
        x, y, text, ha=across, va=up, color=LETTER, size=8, weight="bold", family="DejaVu Sans", path_effects=OUTLINE
    )


def bar_length_mm(width_mm: float) -> int:
    """The longest round length that takes no more than a third of a picture's width."""
    return max((length for length in BAR_LENGTHS_MM if length <= width_mm / 3), default=BAR_LENGTHS_MM[0])


def _scale_bar(axes: Axes, x: float, y: float, length_mm: int, scale: float) -> None:
    style: dict[str, Any] = {"color": "white", "size": 7.5, "family": "DejaVu Sans", "path_effects": OUTLINE}
    bar = axes.plot([x, x + length_mm * scale], [y, y], color="white", linewidth=1.6, solid_capstyle="butt")[0]
    bar.set_path_effects([withStroke(linewidth=3.0, foreground="black")])
    axes.text(x, y - PAD_IN, f"{length_mm} mm", ha="left", va="bottom", **style)


def _names(axes: Axes, plan: Layout, rows: Sequence[str], columns: Sequence[str], title: str) -> None:
    heading, size = axes.text(TITLE_LEFT_IN, 0.09, title, va="top", size=TITLE_SIZE, weight="bold", **STYLE), TITLE_SIZE
    while heading.get_window_extent().width > DPI * (plan.size[0] - 2 * TITLE_LEFT_IN) and size > 1:
        size *= 0.95
        heading.set_fontsize(size)
    for column, name in enumerate(columns):
        _column_text(axes, plan, column, TITLE_IN + 0.12, name, 9)
    for row, names in enumerate(rows):
        for name, x, size in zip(names.split("\n"), (0.12, 0.29), (9, 7), strict=False):
            axes.text(x, plan.middle(row), name, ha="center", va="center", rotation=90, size=size, **STYLE)


def _column_text(axes: Axes, plan: Layout, column: int, down_in: float, text: str, size: float) -> None:
    """A text in the middle of a column, `down_in` below the sheet's top."""
    x = plan.left(column) + plan.columns[column] / 2
    axes.text(x, down_in, text, ha="center", va="center", size=size, **STYLE)


def _colour_scale(axes: Axes, plan: Layout, column: int, scale: Scale) -> None:
    inset = plan.columns[column] * 0.08
    left, wide = plan.left(column) + inset, plan.columns[column] - 2 * inset
    top = plan.size[1] - plan.footer + 0.03
    extent = (left, left + wide, top + STRIP_IN, top)
    axes.imshow(scale.colours[None], aspect="auto", interpolation="bilinear", extent=extent)
    below = top + STRIP_IN + 0.03
    for x, text, side in ((left, scale.low, "left"), (left + wide, scale.high, "right")):
        axes.text(x, below, text, ha=side, va="top", size=7.5, **STYLE)
    axes.text(left + wide / 2, below + 0.14, scale.unit, ha="center", va="top", size=7.5, **STYLE)


def _lines(legend: Sequence[Swatch], width_in: float) -> list[list[tuple[float, Swatch | None, str]]]:
    """The legend in lines: where an entry starts, inches, its colour and its text."""
    entries: list[tuple[Swatch | None, str]] = [(item, item.name) for item in legend[:LEGEND_NAMES]]
    if len(legend) > LEGEND_NAMES:
        entries.append((None, f"and {len(legend) - LEGEND_NAMES} more"))
    lines: list[list[tuple[float, Swatch | None, str]]] = []
    at = width_in
    for swatch, text in entries:
        wide = len(text) * LETTER_IN + SWATCH_IN + 0.3
        if at + wide > width_in:
            lines, at = [*lines, []], LABEL_IN
        lines[-1].append((at, swatch, text))
        at += wide
    return lines


def _legend_line(axes: Axes, line: Sequence[tuple[float, Swatch | None, str]], y: float) -> None:
    for at, swatch, text in line:
        if swatch:
            square = Rectangle((at, y - SWATCH_IN / 2), SWATCH_IN, SWATCH_IN, linewidth=0, color=tuple(swatch.colour))
            axes.add_patch(square)
        axes.text(at + SWATCH_IN + 0.06, y, text, va="center_baseline", size=7.5, **STYLE)
