"""What a comparison of segmentations is written as: tables, a chart of every case, an example, a PDF, Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from benchmarks.segmentation_comparison import MEASURES, SegmentationComparison, cases_in, read_kept
from pipeline.cases import Document
from pipeline.comparison.classification import judged_folders
from pipeline.comparison.trials import Protocol, Trial, Variant
from pipeline.evaluation.results import Comparison, Estimate
from pipeline.learning.table import read_table
from pipeline.report.classification import interval, number, p_text
from pipeline.report.curves import Chart
from pipeline.report.paper import PlainTable
from pipeline.report.segmentation import Mean, SegmentationContent, case_chart, outline_chart, segmentation_pdf
from pipeline.store.artifacts import save
from pipeline.volumes import affine_of, volume

CALIBRATION_COLUMNS = {
    "ece": "ECE, network's own",
    "ece_calibrated": "ECE, with T",
    "nll": "NLL, network's own",
    "nll_calibrated": "NLL, with T",
}


def write_report(found: SegmentationComparison, content: SegmentationContent, out: Path) -> None:
    """Write cases.csv, means.csv, differences.csv, the charts and report.pdf.

    Raises:
        CaseError: E_VERIFY when the disk does not hold what was written.
    """
    tables = {"cases": case_frame(found), "means": mean_frame(found), "differences": difference_frame(found)}
    for name, frame in tables.items():
        save(name, "table", frame, out)
    for chart in content.charts:
        save(chart.key, "document", Document(".png", chart.png), out)
    save("report", "document", Document(".pdf", segmentation_pdf(content)), out)


def tables_of(found: SegmentationComparison) -> list[PlainTable]:
    """Means with intervals, calibration, differences, cost."""
    return [_overlaps(found), _calibrations(found), *_differences(found), _costs(found)]


def markdown(tables: Sequence[PlainTable]) -> str:
    """The tables as a section of a Markdown page, each with its heading and its note."""
    parts = ["## Figures"]
    for item in tables:
        parts += [f"### {item.heading}", markdown_table(item.columns, item.rows), *([item.note] if item.note else [])]
    return "\n\n".join(parts)


def dice_chart(found: SegmentationComparison) -> Chart:
    """Every case's Dice, one line a variant."""
    values = {item.name: item.values["dice"].tolist() for item in found.variants}
    means = {name: _mean(_of(estimates, "dice")) for name, estimates in found.means.items()}
    return case_chart("dice", "Dice of every case", values, means)


def example_chart(
    found: SegmentationComparison,
    protocol: Protocol,
    variants: Sequence[Variant],
    folds: Sequence[int],
    modalities: Sequence[str],
) -> Chart:
    """The case whose mean Dice over some variants is the median one, with their outlines.

    Args:
        found: the comparison.
        protocol: of its trials.
        variants: those that are drawn; all are done.
        folds: as compared.
        modalities: which images are shown.
    """
    shown = [item for item in found.variants if item.name in {variant.name for variant in variants}]
    mean = np.mean([np.nan_to_num(item.values["dice"]) for item in shown], axis=0)
    case_id = shown[0].case_ids[int(np.argsort(mean, kind="stable")[len(mean) // 2])]
    kept = {variant.name: _kept(protocol, variant, folds, case_id) for variant in variants}
    predicted = {
        name: volume(logits.as_tensor().argmax(0, keepdim=True), affine_of(logits))
        for name, (logits, _) in kept.items()
    }
    table = Path(protocol.settings["dataset_dir"]) / protocol.settings.get("table_name", "cases.csv")
    row = next(row for row in read_table(table, modalities, 0) if row.case_id == case_id)
    images = {}
    for name, path in row.images.items():
        image = nib.load(path)
        images[name.upper()] = volume(np.asarray(image.dataobj, np.float32)[None], image.affine)
    truth = next(iter(kept.values()))[1]
    return outline_chart("example", "The case with the median Dice", images, truth, predicted)


def case_frame(found: SegmentationComparison) -> pd.DataFrame:
    """One row a variant and case."""
    rows: list[dict[str, Any]] = []
    for item in found.variants:
        for index, case_id in enumerate(item.case_ids):
            values = {name: _or_none(item.values[name][index]) for name in MEASURES}
            rows.append({"variant": item.name, "case_id": case_id, **values})
    return pd.DataFrame(rows)


def mean_frame(found: SegmentationComparison) -> pd.DataFrame:
    """One row a variant and measure."""
    return pd.DataFrame([{"variant": name, **vars(item)} for name, items in found.means.items() for item in items])


def difference_frame(found: SegmentationComparison) -> pd.DataFrame:
    """One row a family, pair and measure."""
    rows = [{"family": name, **vars(item)} for name, items in found.families.items() for item in items]
    return pd.DataFrame(rows, columns=["family", *Comparison.__dataclass_fields__])


def _overlaps(found: SegmentationComparison) -> PlainTable:
    rows = []
    for name, items in found.means.items():
        shares = (_with_interval(_of(items, measure)) for measure in ("dice", "iou", "nsd"))
        rows.append((name, *shares, _with_interval(_of(items, "hd95_mm"), decimals=1)))
    cases = len(found.variants[0].case_ids)
    note = f"{cases} cases, each judged once; mean and 95 % interval over patients (bias-corrected bootstrap)."
    left = f" Left out, because a trial is not done: {', '.join(found.left_out)}." if found.left_out else ""
    return PlainTable("Overlap", ("Variant", "Dice", "IoU", "NSD", "HD95, mm"), tuple(rows), note + left)


def _calibrations(found: SegmentationComparison) -> PlainTable:
    rows = []
    for item in found.variants:
        parts = [_with_interval(_of(found.means[item.name], name)) for name in CALIBRATION_COLUMNS]
        low, high = min(item.temperatures), max(item.temperatures)
        rows.append((item.name, *parts, f"{low:.2f} to {high:.2f}"))
    note = (
        "Expected calibration error, and negative log-likelihood in nats a voxel, within 10 mm of the true foreground "
        "of each case; then the mean over cases with its interval. T, the temperature of a fold, is fitted on the "
        "held-out voxels of the other folds."
    )
    columns = ("Variant", *CALIBRATION_COLUMNS.values(), "T of the folds")
    return PlainTable("Calibration of voxels", columns, tuple(rows), note)


def _differences(found: SegmentationComparison) -> list[PlainTable]:
    tables = []
    for name, items in found.families.items():
        rows = tuple(
            (
                f"{item.first} less {item.second}",
                {"dice": "Dice", "ece_calibrated": "ECE, with T"}[item.measure],
                number(item.difference, signed=True),
                interval(item.low, item.high),
                p_text(item.p_holm),
            )
            for item in items
        )
        note = "Paired over the same resampled patients; p after Holm's correction over the pairs of the table."
        columns = ("Variants", "Measure", "Difference", "95 % interval", "p (Holm)")
        tables.append(PlainTable(f"Differences: {name.lower()}", columns, rows, note))
    return tables


def _costs(found: SegmentationComparison) -> PlainTable:
    rows = tuple(
        (item.name, f"{item.parameters:,}", f"{item.flops / 1e6:,.0f}", f"{item.seconds:.0f}")
        for item in found.variants
    )
    minutes = sum(item.seconds * len(item.temperatures) for item in found.variants) / 60
    note = (
        "Processor time of one fold's training and judgement, on one thread of a machine with other work; "
        f"{minutes:.0f} minutes for all of them."
    )
    return PlainTable("Cost", ("Variant", "Parameters", "MFLOP a patch", "Seconds a fold"), rows, note)


def _kept(protocol: Protocol, variant: Variant, folds: Sequence[int], case_id: str) -> Any:
    folders = judged_folders(protocol, [Trial(variant, 0, fold) for fold in folds])
    return next(read_kept(folder, case_id) for folder in folders if case_id in cases_in(folder))


def _of(items: Sequence[Estimate], measure: str) -> Estimate:
    return next(item for item in items if item.measure == measure)


def _mean(item: Estimate) -> Mean:
    return Mean(item.value, item.low, item.high)


def _with_interval(item: Estimate, decimals: int = 3) -> str:
    if item.value is None:
        return item.note
    value = f"{item.value:.{decimals}f}"
    if item.low is None or item.high is None:
        return f"{value} ({item.note})"
    return f"{value} ({item.low:.{decimals}f} to {item.high:.{decimals}f})"


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, one line a row."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
