"""The report of segmentations judged: tables, a chart of every case, outlines on single cases, as a PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from monai.data import MetaTensor
from reportlab.lib.units import mm
from reportlab.platypus import CondPageBreak, Flowable, Spacer

from pipeline import __version__
from pipeline.geometry import spacing_mm
from pipeline.report.curves import COLOURS, DASHES, FONT, GRID, INK, QUIET, Chart
from pipeline.report.paper import TEXT_WIDTH, PlainTable, build, paragraph, picture
from pipeline.report.sheet import DPI, draw_outline, rendered
from pipeline.report.slices import Frame, plane_slice, plane_spacing, robust_window, voxels, windowed
from pipeline.volumes import affine_of, oriented, require_same_grid
from pipeline.words import clean

TITLE = "Tandem comparison of segmentations"
EVALUATION_TITLE = "Tandem evaluation of segmentations"
TRUTH_COLOUR = "#f0e442"
#: Of a picture.
HIGHEST = 95 * mm


@dataclass(frozen=True)
class SegmentationContent:
    """All that the report says.

    Attributes:
        name: what was compared, as the heading.
        summary: sentences under it.
        tables: of texts.
        charts: with captions.
        methods: sentences on how the numbers were made.
        title: above the heading, and on every page.
    """

    name: str
    summary: tuple[str, ...]
    tables: tuple[PlainTable, ...]
    charts: tuple[Chart, ...]
    methods: tuple[str, ...]
    title: str = TITLE


@dataclass(frozen=True)
class Mean:
    """Where a mean is drawn; both ends of its interval, or None."""

    value: float | None
    low: float | None
    high: float | None


def case_chart(key: str, title: str, values: Mapping[str, Sequence[float]], means: Mapping[str, Mean]) -> Chart:
    """Draw every case as a dot, one line a model, with the mean and its interval.

    Args:
        key: file name without its suffix.
        title: above the chart.
        values: model -> a value of each case, NaN where it has none; from 0 to 1.
        means: model -> mean and interval.
    """
    figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(values)), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for row, (name, numbers) in enumerate(values.items()):
        axes.plot(numbers, [row] * len(numbers), "o", color=COLOURS[0], alpha=0.3, markersize=4, markeredgewidth=0)
        mean = means[name]
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [row, row], color=INK, linewidth=2.2)
        if mean.value is not None:
            axes.plot([mean.value], [row], "D", color=INK, markersize=5)
    axes.set_yticks(range(len(values)), [clean(name) for name in values], size=8, family=FONT, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_title(title, color=INK, size=10, weight="bold", family=FONT, loc="left", parse_math=False)
    axes.tick_params(colors=QUIET, labelsize=8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    caption = "A dot is a case; the diamond is the mean, the bar its 95 % interval over patients."
    return Chart(key, title, caption, rendered(figure))


def outline_chart(
    key: str,
    title: str,
    images: Mapping[str, MetaTensor],
    truth: MetaTensor,
    predicted: Mapping[str, MetaTensor],
    window: tuple[float, float] | None = None,
) -> Chart:
    """Draw the axial plane with the most of the truth, in each image, with the outline of the truth and of predictions.

    Where there is no truth, the plane with the most of the first prediction.

    Args:
        key: file name without its suffix.
        title: above the chart.
        images: name -> (1, I, J, K), all on one grid, whatever the order of its axes.
        truth: (1, I, J, K), not 0 inside.
        predicted: model -> (1, I, J, K), not 0 inside.
        window: black and white of the images; each one's robust percentiles when left out.

    Raises:
        CaseError: E_GRID when something is on another grid.
    """
    truth = oriented(truth)
    images, predicted = ({name: oriented(item) for name, item in group.items()} for group in (images, predicted))
    for name, item in (*images.items(), *predicted.items()):
        require_same_grid(truth, item, ("the mask", name))
    inside = next((mask for mask in (voxels(item) > 0 for item in (truth, *predicted.values())) if mask.any()), None)
    inside = voxels(truth) > 0 if inside is None else inside
    frame = Frame((0, 0, int(inside.sum((0, 1)).argmax())), (0, 0, 0), inside.shape)
    spacing = plane_spacing(spacing_mm(affine_of(truth)), "axial")
    figure = Figure(figsize=(3.0 * len(images), 3.9), dpi=DPI, facecolor="white", layout="constrained")
    figure.suptitle(title, color=INK, size=10, weight="bold", family=FONT)
    outlines: list[tuple[str, MetaTensor, str, Any]] = [("truth", truth, TRUTH_COLOUR, "-")]
    outlines += [
        (name, mask, COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)])
        for number, (name, mask) in enumerate(predicted.items())
    ]
    for axes, (name, image) in zip(figure.subplots(1, len(images), squeeze=False)[0], images.items(), strict=True):
        shown = voxels(image)
        pixels = windowed(plane_slice(shown, "axial", frame), window or robust_window(shown))
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, aspect=spacing[0] / spacing[1])
        axes.set_title(name, size=9, color=INK, family=FONT)
        axes.set_axis_off()
        for _, mask, colour, dash in outlines:
            draw_outline(axes, plane_slice(voxels(mask) > 0, "axial", frame), colour, dash)
    handles = [Line2D([], [], color=colour, linestyle=dash, label=clean(name)) for name, _, colour, dash in outlines]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, facecolor="#777777")
    return Chart(key, title, "One axial plane of one case; the patient's right is at the left.", rendered(figure))


def segmentation_pdf(content: SegmentationContent) -> bytes:
    """Lay a comparison out on A4.

    Returns:
        PDF bytes; the same for the same content.
    """
    story: list[Flowable] = [paragraph(content.title, "kicker"), paragraph(content.name, "title"), Spacer(0, 2 * mm)]
    story += [paragraph(sentence, "lead") for sentence in content.summary]
    for item in content.tables:
        story += item.laid()
    for chart in content.charts:
        image = picture(chart.png, TEXT_WIDTH, HIGHEST)
        story += [CondPageBreak(image.drawHeight + 20 * mm), image, paragraph(chart.caption, "caption")]
    story += [CondPageBreak(40 * mm), paragraph("How the numbers were made", "heading")]
    story += [paragraph(sentence, "body") for sentence in content.methods]
    return build(story, content.title, clean(content.name), f"Tandem {__version__}")
