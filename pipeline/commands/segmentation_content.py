"""What the report of an evaluation of segmentations says: tables, every case's Dice, the worst cases as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from pipeline.commands.convert import read
from pipeline.commands.evaluate_segmentation import ENDING, SegmentationEvaluation, read_labels
from pipeline.evaluation.results import Comparison, Estimate
from pipeline.report.classification import interval, number, p_text
from pipeline.report.curves import Chart
from pipeline.report.paper import PlainTable
from pipeline.report.segmentation import EVALUATION_TITLE, Mean, SegmentationContent, case_chart, outline_chart
from pipeline.report.slices import voxels
from pipeline.volumes import affine_of, oriented, volume
from pipeline.words import counted

#: How many of the worst cases are drawn.
WORST = 3
#: Measure -> its column and the number of its decimals.
COLUMNS = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "nsd": ("NSD", 3),
    "hd95_mm": ("HD95, mm", 1),
    "volume_error_ml": ("Volume error, mL", 2),
    "volume_error_percent": ("Volume error, %", 1),
    "lesion_f1": ("Lesion F1", 3),
}


def dice_charts(found: SegmentationEvaluation) -> list[Chart]:
    """Every case's Dice, one chart a region."""
    charts = []
    for place, region in enumerate(found.regions.values, start=1):
        values = {model: of[region]["dice"].tolist() for model, of in found.values.items()}
        means = {model: _mean(found.means[model, region]) for model in found.values}
        charts.append(case_chart(f"dice_{place}", f"Dice of {region}", values, means))
    return charts


def worst_charts(
    found: SegmentationEvaluation, folders: Mapping[str, Path], files: Mapping[str, Path], images: Path | None
) -> list[Chart]:
    """The cases with the lowest mean Dice of the first model over the regions, outlined."""
    first = next(iter(found.values.values()))
    told = np.array([numbers["dice"] for numbers in first.values()])
    judged_cases = np.flatnonzero(np.isfinite(told).any(axis=0))
    mean = np.nanmean(told[:, judged_cases], axis=0)
    charts = []
    for place, at in enumerate(judged_cases[np.argsort(mean, kind="stable")][:WORST], start=1):
        case = found.case_ids[at]
        truth = read_labels(files[case])
        shown = {
            model: read_labels(folder / files[case].name)
            for model, folder in folders.items()
            if (model, case) not in found.failed
        }
        title = f"{case}: Dice {number(float(np.nanmean(told[:, at])))}"
        behind = _shown_images(images, case)
        window = None if behind else (0.0, 1.0)
        masks = {model: _judged(item, found) for model, item in shown.items()}
        behind = behind or {"the truth (no image given)": _greys(truth)}
        charts.append(outline_chart(f"worst_{place}", title, behind, _judged(truth, found), masks, window))
    return charts


def _judged(labels: MetaTensor, found: SegmentationEvaluation) -> MetaTensor:
    """1 where a region is."""
    inside = np.isin(voxels(labels), [value for value in found.regions.known if value])
    return volume(inside.astype(np.uint8), affine_of(labels))


def _shown_images(folder: Path | None, case: str) -> dict[str, MetaTensor]:
    """The case's images, where there are any."""
    paths = sorted(folder.glob(f"{case}_[0-9][0-9][0-9][0-9]{ENDING}")) if folder else []
    paths = paths or ([folder / f"{case}{ENDING}"] if folder and (folder / f"{case}{ENDING}").is_file() else [])
    return {f"channel {place}": oriented(read(path)[0]) for place, path in enumerate(paths[:4])}


def _greys(labels: MetaTensor) -> MetaTensor:
    """Labels as greys, all of which part from black."""
    values = labels.numpy().astype(np.float32)
    return volume(np.where(values > 0, 0.4 + 0.6 * values / max(1.0, float(values.max())), 0), affine_of(labels))


def report_content(
    found: SegmentationEvaluation, charts: Sequence[Chart], tolerance: float, resamples: int
) -> SegmentationContent:
    """All that the report says."""
    patients = len(set(found.patients))
    summary = [f"{counted(len(found.case_ids), 'case')} of {counted(patients, 'patient')}."]
    if found.failed:
        summary.append(f"{counted(len(found.failed), 'prediction')} could not be judged: no mean holds them.")
    tables = [_table(found, region) for region in found.regions.values]
    tables += [_differences(region, items) for region, items in found.comparisons.items()]
    if found.failed:
        rows = tuple((case, model, fault.code, fault.message) for (model, case), fault in found.failed.items())
        tables.append(PlainTable("Not judged", ("Case", "Model", "Code", "Why"), rows))
    return SegmentationContent(
        ", ".join(found.values),
        tuple(summary),
        tuple(tables),
        tuple(charts),
        _methods(tolerance, resamples),
        EVALUATION_TITLE,
    )


def _methods(tolerance: float, resamples: int) -> tuple[str, ...]:
    return (
        f"Means are over cases; intervals are 95 % intervals from {resamples} resamples of the patients, each with all "
        "of their cases (bias-corrected where patients are few). Differences are paired over the same resamples; p "
        "after Holm's correction over the pairs of a region and measure.",
        f"IoU: voxels of both over voxels of either. NSD: normalised surface Dice at {tolerance:g} mm. HD95: the "
        "larger of both directions' 95th percentile of the surface distance. Where both masks are empty nothing can be "
        "judged; where one is, Dice, IoU, NSD and lesion F1 are 0 and HD95 is the image's diagonal.",
        "Volume errors are predicted less true. Lesions are pieces that touch at faces, edges or corners; one that "
        "shares a voxel with the other mask is found. The worst cases are those with the lowest mean Dice of the first "
        "model.",
    )


def _table(found: SegmentationEvaluation, region: str) -> PlainTable:
    rows = []
    for model in found.values:
        items = {item.measure: item for item in found.means[model, region]}
        rows.append((model, *(with_interval(items[name], decimals) for name, (_, decimals) in COLUMNS.items())))
    return PlainTable(f"Region: {region}", ("Model", *(title for title, _ in COLUMNS.values())), tuple(rows))


def _differences(region: str, items: Sequence[Comparison]) -> PlainTable:
    rows = tuple(
        (
            f"{item.first} less {item.second}",
            COLUMNS[item.measure][0],
            number(item.difference, signed=True),
            interval(item.low, item.high),
            p_text(item.p_holm),
            item.note,
        )
        for item in items
    )
    return PlainTable(
        f"Differences: {region}", ("Models", "Measure", "Difference", "Interval", "p (Holm)", "Note"), rows
    )


def with_interval(item: Estimate, decimals: int = 3) -> str:
    """A mean with its interval, as text; why there is none, where there is none."""
    if item.value is None:
        return item.note
    ends = (
        f" ({item.low:.{decimals}f} to {item.high:.{decimals}f})"
        if item.low is not None and item.high is not None
        else ""
    )
    return f"{item.value:.{decimals}f}{ends}".replace("-", "−")


def _mean(items: Sequence[Estimate]) -> Mean:
    dice = next(item for item in items if item.measure == "dice")
    return Mean(dice.value, dice.low, dice.high)
