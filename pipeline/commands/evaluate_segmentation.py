"""`tandem evaluate segmentation`: folders of label images in; tables, charts, worst cases as pictures and a PDF out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.cases import Document, Fault
from pipeline.commands.convert import read, read_patients
from pipeline.console import echo
from pipeline.errors import CaseError, UsageError
from pipeline.evaluation.results import Comparison, Estimate, Floats, Settings
from pipeline.evaluation.segmentation import MEASURES, NAN, compare_means, judged, mean_over_cases
from pipeline.geometry import spacing_mm
from pipeline.report.segmentation import SegmentationContent, segmentation_pdf
from pipeline.report.slices import voxels
from pipeline.store.files import run_lock
from pipeline.volumes import affine_of, oriented, require_same_grid

if TYPE_CHECKING:
    from monai.data import MetaTensor

ENDING = ".nii.gz"


@dataclass(frozen=True)
class Regions:
    """What is judged: name -> values in the label images; voxels of `ignored` in the truth are not."""

    values: Mapping[str, tuple[int, ...]]
    ignored: int | None = None

    def masks(self, labels: npt.NDArray[Any], judged_at: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.bool_]]:
        """Name -> mask (I, J, K)."""
        return {name: np.isin(labels, values) & judged_at for name, values in self.values.items()}

    @property
    def known(self) -> list[int]:
        """All values that a label image may hold."""
        return sorted({0, *(value for of in self.values.values() for value in of)})


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation:
    """What an evaluation has found.

    Attributes:
        case_ids: N names, sorted.
        patients: of each case.
        regions: what was judged.
        values: model -> region -> measure -> (N,), NaN where a case does not tell it.
        failed: (model, case) -> why it could not be judged.
        means: (model, region) -> one estimate a measure.
        comparisons: region -> paired differences of the models' Dice and NSD.
    """

    case_ids: tuple[str, ...]
    patients: tuple[str, ...]
    regions: Regions
    values: Mapping[str, Mapping[str, Mapping[str, Floats]]]
    failed: Mapping[tuple[str, str], Fault]
    means: Mapping[tuple[str, str], tuple[Estimate, ...]]
    comparisons: Mapping[str, tuple[Comparison, ...]]


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
    from pipeline.commands.segmentation_content import dice_charts, report_content, worst_charts

    folders = _models([Path(folder) for folder in predictions], name)
    files = {path.name.removesuffix(ENDING): path for path in sorted(Path(truth).glob(f"*{ENDING}"))}
    if not files:
        raise UsageError("E_NO_CASES", f"Expected label images (*{ENDING}) in {truth}, got none.", "Check the path.")
    if not tolerance > 0:
        raise UsageError("E_OPTION", f"Expected a tolerance above 0 mm, got {tolerance:g}.")
    regions = _regions(label, Path(truth), files)
    whose = read_patients(cases)
    patients = tuple(whose.get(case, case) for case in files)
    with run_lock(Path(out)):
        found = _evaluate(folders, files, regions, patients, tolerance, Settings(resamples=resamples, seed=seed))
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
    from pipeline.commands.segmentation_content import with_interval

    for (model, case), fault in found.failed.items():
        echo(f"{model}: {case}: {fault.code}: {fault.message}", error=True)
    for (model, region), items in found.means.items():
        dice, iou = (next(item for item in items if item.measure == name) for name in ("dice", "iou"))
        echo(f"{model}: {region}: Dice {with_interval(dice)}, IoU {with_interval(iou)}")
    echo(f"Report: {out / 'report.pdf'}")
    return int(bool(found.failed))


def _evaluate(
    folders: Mapping[str, Path],
    files: Mapping[str, Path],
    regions: Regions,
    patients: tuple[str, ...],
    tolerance: float,
    settings: Settings,
) -> SegmentationEvaluation:
    """Judge every case of every model, and compare the models; the tolerance is in mm."""
    failed: dict[tuple[str, str], Fault] = {}
    values = {
        model: {region: {name: np.full(len(files), NAN) for name in MEASURES} for region in regions.values}
        for model in folders
    }
    for row, (case, path) in enumerate(files.items()):
        for model, folder in folders.items():
            try:
                measured = _judge(folder / path.name, path, regions, tolerance)
            except CaseError as error:
                failed[model, case] = Fault.from_error(error)
                continue
            for region, numbers in measured.items():
                for name, value in numbers.items():
                    values[model][region][name][row] = value
    means = {
        (model, region): tuple(
            mean_over_cases(name, values[model][region][name], patients, settings) for name in MEASURES
        )
        for model in folders
        for region in regions.values
    }
    pairs = list(combinations(folders, 2))
    compare = partial(compare_means, pairs=pairs, patients=patients, settings=settings)
    comparisons = {
        region: tuple(
            item for name in ("dice", "nsd") for item in compare(name, {m: values[m][region][name] for m in folders})
        )
        for region in (regions.values if pairs else ())
    }
    return SegmentationEvaluation(tuple(files), patients, regions, values, failed, means, comparisons)


def _judge(predicted: Path, truth: Path, regions: Regions, tolerance: float) -> dict[str, dict[str, float]]:
    """Region -> measures of one case.

    Raises:
        CaseError: E_INPUT when there is no prediction; E_NIFTI, E_GRID, E_LABEL.
    """
    true, given = read_labels(truth), read_labels(predicted)
    require_same_grid(true, given, ("the truth", "the prediction"))
    judged_at = np.ones(true.shape[1:], bool)
    if regions.ignored is not None:
        judged_at = voxels(true) != regions.ignored
    strange = np.setdiff1d(
        np.concatenate([np.unique(voxels(true)[judged_at]), np.unique(voxels(given))]), regions.known
    )
    if strange.size:
        wanted, got = (", ".join(f"{value:g}" for value in part) for part in (regions.known, strange[:5]))
        raise CaseError("E_LABEL", f"Expected the labels {wanted}, got {got} too.")
    sides = spacing_mm(affine_of(true)).tolist()
    masks, true_masks = (regions.masks(voxels(image), judged_at) for image in (given, true))
    return {region: judged(masks[region], true_masks[region], sides, tolerance) for region in regions.values}


def read_labels(path: Path) -> MetaTensor:
    """A label image, RAS+."""
    if not path.is_file():
        raise CaseError("E_INPUT", f"Expected a prediction {path.name}, got none.", "Predict it, or check the names.")
    return oriented(read(path)[0])


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


def _images(given: str | Path | None, truth: Path) -> Path | None:
    if given is not None:
        return Path(given)
    beside = truth.with_name(truth.name.replace("labels", "images"))
    return beside if beside != truth and beside.is_dir() else None


def _write(found: SegmentationEvaluation, content: SegmentationContent, out: Path) -> None:
    from pipeline.store.artifacts import save

    rows = [
        {"model": model, "case_id": case, "patient_id": patient, "region": region}
        | {name: values[name][row] for name in MEASURES}
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
