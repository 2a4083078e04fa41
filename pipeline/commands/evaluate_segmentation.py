"""`tandem evaluate segmentation`: folders of label images in; tables, charts, worst cases as pictures and a PDF out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cases import Document
from pipeline.columns import PATIENT, read_rows
from pipeline.commands.convert import read
from pipeline.commands.segmentation_content import dice_charts, report_content, with_interval, worst_charts
from pipeline.commands.segmentation_judged import ENDING, Regions, SegmentationEvaluation, evaluate_cases
from pipeline.console import echo
from pipeline.errors import CaseError, UsageError
from pipeline.evaluation.results import Settings
from pipeline.evaluation.segmentation import MEASURES
from pipeline.report.segmentation import SegmentationContent, segmentation_pdf
from pipeline.report.slices import voxels
from pipeline.store.files import run_lock


def evaluate_segmentation(  # noqa: PLR0913 - each is an option of the command
    predictions: Sequence[str | Path],
    truth: str | Path,
    out: str | Path,
    images: str | Path | None = None,
    cases: str | Path | None = None,
    name: Sequence[str] = (),
    label: Sequence[str] = (),
    tolerance: float = 1.0,
    seed: int = 0,
    resamples: int = 2000,
) -> SegmentationEvaluation:
    """Judge label images, and compare several models on the same cases: `tandem evaluate segmentation`.

    Writes `cases.csv`, `means.csv`, `differences.csv` where there are several models, charts, and `report.pdf`.

    Args:
        predictions: a folder of `case.nii.gz` for each model.
        truth: the folder of the true label images; every one of them is judged.
        out: the folder to write to.
        images: a folder of `case_0000.nii.gz` or `case.nii.gz` for the pictures; `imagesTr` beside `labelsTr` when left
            out.
        cases: a CSV with `case_id` and `patient_id`; without it every case is a patient of its own.
        name: one for each model; the folders' names when left out.
        label: `NAME=VALUE` or `NAME=VALUE,VALUE` for each region; those of dataset.json in or above `truth` when left
            out, else every value of the truth.
        tolerance: of NSD, mm.
        seed: of the resamples.
        resamples: of the bootstrap.

    Raises:
        UsageError: E_NO_CASES, E_NAMES, E_OPTION, E_LABEL, E_TABLE, E_NIFTI; E_OUT, E_BUSY, E_DISK.
    """
    folders = _models([Path(folder) for folder in predictions], name)
    files = {path.name.removesuffix(ENDING): path for path in sorted(Path(truth).glob(f"*{ENDING}"))}
    if not files:
        raise UsageError("E_NO_CASES", f"Expected label images (*{ENDING}) in {truth}, got none.", "Check the path.")
    if not tolerance > 0:
        raise UsageError("E_OPTION", f"Expected a tolerance above 0 mm, got {tolerance:g}.")
    regions = _regions(label, Path(truth), files)
    whose = _patients(cases)
    patients = tuple(whose.get(case, case) for case in files)
    with run_lock(Path(out)):
        found = evaluate_cases(folders, files, regions, patients, (tolerance, Settings(resamples=resamples, seed=seed)))
        if len(found.failed) == len(files) * len(folders):
            first = next(iter(found.failed.values()))
            raise UsageError(first.code, f"No case could be judged. {first.message}", first.remedy)
        charts = (*dice_charts(found), *worst_charts(found, folders, files, _images(images, Path(truth))))
        try:
            _write(found, report_content(found, charts, tolerance, resamples), Path(out))
        except CaseError as error:
            raise UsageError(error.code, error.message) from error
    return found


def show(found: SegmentationEvaluation, out: Path) -> int:
    """Say what was found; the exit code."""
    for (model, case), fault in found.failed.items():
        echo(f"{model}: {case}: {fault.code}: {fault.message}", error=True)
    for (model, region), items in found.means.items():
        dice = next(item for item in items if item.measure == "dice")
        echo(f"{model}: {region}: Dice {with_interval(dice)}")
    echo(f"Report: {out / 'report.pdf'}")
    return int(bool(found.failed))


def _models(folders: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    called = tuple(names) or tuple(folder.resolve().name for folder in folders)
    if not folders or len(called) != len(folders) or len(set(called)) != len(called):
        got = ", ".join(called) or "none"
        raise UsageError(
            "E_NAMES", f"Expected {max(1, len(folders))} different names of models, got {got}.", "Use --name."
        )
    return dict(zip(called, folders, strict=True))


def _regions(given: Sequence[str], truth: Path, files: Mapping[str, Path]) -> Regions:
    about = next((path for path in (truth / "dataset.json", truth.parent / "dataset.json") if path.is_file()), None)
    try:
        if given:
            parts = [item.rpartition("=")[::2] for item in given]
            return Regions({name or values: tuple(map(int, values.split(","))) for name, values in parts})
        if about is not None:
            labels = dict(json.loads(about.read_text(encoding="utf-8"))["labels"])
            ignored = labels.pop("ignore", None)
            values = {str(name): tuple(of) if isinstance(of, list) else (int(of),) for name, of in labels.items()}
            return Regions({name: of for name, of in values.items() if of != (0,)}, ignored)
    except (ValueError, KeyError, TypeError) as error:
        what = "Expected labels as NAME=VALUE, or a dataset.json of nnU-Net with them, got others."
        raise UsageError("E_OPTION", what) from error
    found: set[int] = set()
    for path in files.values():
        try:
            found |= set(np.unique(voxels(read(path)[0])).tolist())
        except CaseError:  # the case is going to say so
            continue
    if not found - {0}:
        raise UsageError("E_LABEL", f"Expected labels in {truth}, got none.")
    return Regions({f"label {value:g}": (int(value),) for value in sorted(found - {0})})


def _patients(cases: str | Path | None) -> dict[str, str]:
    rows = read_rows(Path(cases), ["case_id", PATIENT]) if cases else []
    return {row["case_id"]: row[PATIENT] for row in rows}


def _images(given: str | Path | None, truth: Path) -> Path | None:
    if given is not None:
        return Path(given)
    beside = truth.with_name(truth.name.replace("labels", "images"))
    return beside if beside != truth and beside.is_dir() else None


def _write(found: SegmentationEvaluation, content: SegmentationContent, out: Path) -> None:
    from pipeline.store.artifacts import save

    rows = [
        {"model": model, "case_id": case, "patient_id": patient, "region": region}
        | {name: _or_none(values[name][row]) for name in MEASURES}
        | {"code": found.failed[model, case].code if (model, case) in found.failed else ""}
        for model, of in found.values.items()
        for region, values in of.items()
        for row, (case, patient) in enumerate(zip(found.case_ids, found.patients, strict=True))
    ]
    means = [
        {"model": model, "region": region, **vars(item)}
        for (model, region), items in found.means.items()
        for item in items
    ]
    tables = {"cases": rows, "means": means}
    differences = [{"region": region, **vars(item)} for region, items in found.comparisons.items() for item in items]
    tables |= {"differences": differences} if differences else {}
    for former in [*out.glob("worst_*.png"), *out.glob("dice_*.png"), out / "differences.csv"]:
        former.unlink(missing_ok=True)
    for name, table in tables.items():
        save(name, "table", pd.DataFrame(table), out)
    for chart in content.charts:
        save(chart.key, "document", Document(".png", chart.png), out)
    save("report", "document", Document(".pdf", segmentation_pdf(content)), out)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
