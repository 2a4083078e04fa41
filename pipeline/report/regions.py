"""The pages of measured regions: each over its image, its histogram, what was measured, as PDF and as a web page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from monai.data import MetaTensor
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Spacer

from pipeline import __version__
from pipeline.geometry import spacing_mm
from pipeline.report.curves import COLOURS, FONT, GRID, INK, QUIET
from pipeline.report.html import render
from pipeline.report.paper import TEXT_WIDTH, build, mm, paragraph, picture, table
from pipeline.report.sheet import DPI, draw_outline, rendered
from pipeline.report.slices import (
    Frame,
    box_of,
    plane_slice,
    plane_spacing,
    robust_window,
    triple,
    voxels,
    windowed,
)
from pipeline.volumes import affine_of, oriented, require_same_grid
from pipeline.words import clean

TITLE = "Tandem radiomics"
COLUMNS = ("Feature", "Value", "Percentile in the cohort")
WIDTHS = (0.44, 0.3, 0.26)
#: How much of the image is shown around a region.
MARGIN_MM = 25.0
BINS = 64
OUTLINE_COLOUR = "#f0e442"


@dataclass(frozen=True)
class RegionPage:
    """What is said of one region.

    Attributes:
        name: whose, of which image, in which mask.
        how: a sentence on how it was measured.
        flags: sentences that a reader has to know.
        rows: texts: feature, value, percentile.
        png: the region over its image, with its histogram; empty where there is none.
    """

    name: str
    how: str
    flags: tuple[str, ...]
    rows: tuple[tuple[str, str, str], ...]
    png: bytes = b""


def draw_region(
    image: MetaTensor, label: MetaTensor, value: int, unit: str = "", window: tuple[float, float] | None = None
) -> bytes:
    """Draw a region's outline over its image in three planes through its middle, and the histogram of its values.

    Args:
        image: (1, I, J, K).
        label: (1, I, J, K) on its grid; the planes run through the slice with the most of the region.
        value: of the region.
        unit: of the image's values.
        window: of the display; robust percentiles of what is shown when left out.

    Returns:
        PNG bytes, the same for the same input; empty where the region has no voxel.

    Raises:
        CaseError: E_GRID.
    """
    require_same_grid(image, label, ("the image", "the mask"))
    image, label = oriented(image), oriented(label)
    values, inside = voxels(image), voxels(label) == value
    if not inside.any():
        return b""
    sides = spacing_mm(affine_of(image))
    frame = frame_around(inside, sides)
    box = tuple(slice(low, high) for low, high in zip(frame.low, frame.high, strict=True))
    shown = window or robust_window(values[box])
    figure = Figure(figsize=(9.6, 2.7), dpi=DPI, facecolor="white", layout="constrained")
    *planes, chart = figure.subplots(1, 4)
    for axes, plane in zip(planes, ("axial", "coronal", "sagittal"), strict=True):
        rows, columns = plane_spacing(sides, plane)
        axes.imshow(windowed(plane_slice(values, plane, frame), shown), "gray", vmin=0, vmax=1, aspect=rows / columns)
        draw_outline(axes, plane_slice(inside, plane, frame), OUTLINE_COLOUR, linewidth=1.2)
        axes.set_title(plane, size=8, color=QUIET, family=FONT)
        axes.set_axis_off()
    _histogram(chart, values[inside], unit)
    return rendered(figure)


def frame_around(inside: npt.NDArray[np.bool_], sides_mm: npt.NDArray[np.float64]) -> Frame:
    """A region's box with a margin, and the planes with the most of it.

    Args:
        inside: (I, J, K), not empty.
        sides_mm: of a voxel, (3,).
    """
    low, high = box_of(inside)
    margin = np.ceil(MARGIN_MM / sides_mm).astype(int)
    most = [inside.sum(axis=tuple({0, 1, 2} - {axis})).argmax() for axis in range(3)]
    return Frame(
        triple(np.array(most)), triple(np.maximum(low - margin, 0)), triple(np.minimum(high + margin, inside.shape))
    )


def regions_pdf(pages: Sequence[RegionPage], summary: Sequence[str]) -> bytes:
    """Lay regions out on A4, one after the other.

    Returns:
        PDF bytes; the same for the same content.
    """
    story: list[Flowable] = [paragraph(TITLE, "title"), Spacer(0, 2 * mm)]
    story += [paragraph(sentence, "lead") for sentence in summary]
    for page in pages:
        head: list[Flowable] = [paragraph(page.name, "heading"), *(paragraph(text, "strong") for text in page.flags)]
        head += [Spacer(0, 1.5 * mm), picture(page.png, TEXT_WIDTH)] if page.png else []
        story += [CondPageBreak(90 * mm), KeepTogether([*head, paragraph(page.how, "caption")])]
        story += [table(COLUMNS, page.rows, WIDTHS)] if page.rows else []
    return build(story, TITLE, f"{len(pages)} regions", f"Tandem {__version__}")


def regions_page(pages: Sequence[RegionPage], summary: Sequence[str]) -> bytes:
    """Lay regions out as one self-contained web page.

    Returns:
        HTML bytes, UTF-8; the same for the same content.
    """
    return render(
        "regions.html",
        __version__,
        title=TITLE,
        summary=[clean(sentence) for sentence in summary],
        columns=COLUMNS,
        pages=pages,
    )


def _histogram(axes: Any, values: npt.NDArray[Any], unit: str) -> None:
    axes.hist(values[np.isfinite(values)], bins=BINS, color=COLOURS[0])
    axes.set_xlabel(", ".join(filter(None, ("Value in the region", unit))), size=8, color=INK)
    axes.set_ylabel("Voxels", size=8, color=INK)
    axes.tick_params(colors=QUIET, labelsize=7)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
