"""Segmentations of the fusion network's variants, compared; no case is judged by a network that has learned from it.

The trials keep their logits (`keep_logits` of evaluate.yaml). Probabilities are calibrated by one temperature for each
fold, fitted on the held-out voxels of the other folds, so that no case calibrates itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from pipeline.calibration.binning import BINS, confidence_and_hits, make_bins
from pipeline.calibration.record import About
from pipeline.calibration.rows import MARGIN_MM, Rows, dilated_foreground
from pipeline.calibration.scaling import Temperature
from pipeline.commands.fuse import LOGITS
from pipeline.comparison.classification import Ints, judged_folders, load, require_once
from pipeline.comparison.trials import Protocol, Trial, Variant, all_done, read_trial
from pipeline.errors import UsageError
from pipeline.evaluation.results import Comparison, Estimate, Floats, Settings
from pipeline.evaluation.segmentation import NAN, compare_means, mean_over_cases, overlap
from pipeline.geometry import spacing_mm
from pipeline.probabilities import group_indices
from pipeline.volumes import affine_of, require_same_grid, volume

#: What is measured of a case; ECE and NLL (nats a voxel) within 10 mm of the true foreground, raw and calibrated.
MEASURES = ("dice", "iou", "nsd", "hd95_mm", "ece", "ece_calibrated", "nll", "nll_calibrated")


@dataclass(frozen=True, eq=False)
class VariantScores:
    """One variant.

    Attributes:
        name: of the variant.
        case_ids: N names, sorted.
        values: measure -> (N,), NaN where a case does not tell it.
        temperatures: of each fold.
        parameters: of one network.
        flops: of one patch.
        seconds: of one training and its judgement, processor time, mean over the folds.
    """

    name: str
    case_ids: tuple[str, ...]
    values: Mapping[str, Floats]
    temperatures: tuple[float, ...]
    parameters: int
    flops: int
    seconds: float


@dataclass(frozen=True, eq=False)
class SegmentationComparison:
    """What a comparison has found.

    Attributes:
        variants: those whose trials are all done.
        left_out: names of the others.
        means: variant -> one estimate a measure.
        families: name -> paired differences, Holm's correction within each measure of a family.
    """

    variants: tuple[VariantScores, ...]
    left_out: tuple[str, ...]
    means: Mapping[str, tuple[Estimate, ...]]
    families: Mapping[str, tuple[Comparison, ...]]


def compare_segmentations(
    protocol: Protocol,
    variants: Sequence[Variant],
    folds: Sequence[int],
    families: Mapping[str, Sequence[tuple[str, str]]],
    tolerance_mm: float,
    patients: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> SegmentationComparison:
    """Judge and compare variants.

    Args:
        protocol: of the trials, of seed 0.
        variants: to compare; those with a trial that is not done are left out, and named.
        folds: whose cases are put together.
        families: name -> pairs of variants whose Dice and ECE are compared, decided on beforehand.
        tolerance_mm: of NSD.
        patients: case -> patient, the unit that is resampled; every case is a patient of its own when None.
        settings: of the bootstrap.

    Raises:
        UsageError: E_FOLD for a single fold; E_NO_CASES when no variant is done; E_ROWS when variants were judged by
            other cases.
    """
    chosen = settings or Settings()
    if len(folds) < 2:
        raise UsageError("E_FOLD", f"Expected two or more folds, each calibrated by the others, got {len(folds)}.")
    whole = [item for item in variants if all_done(protocol, item, [0], folds)]
    if not whole:
        raise UsageError("E_NO_CASES", "Expected a variant whose trials are all done, got none.", "See trial.json.")
    found = tuple(judge(protocol, item, folds, tolerance_mm) for item in whole)
    cases = found[0].case_ids
    strangers = [item.name for item in found if item.case_ids != cases]
    if strangers:
        raise UsageError("E_ROWS", f"Expected the same cases for every variant, got others for {strangers[0]}.")
    units = [(patients or {}).get(case, case) for case in cases]
    means = {
        item.name: tuple(mean_over_cases(name, item.values[name], units, chosen) for name in MEASURES) for item in found
    }
    tests = {name: _compared(found, pairs, units, chosen) for name, pairs in families.items()}
    return SegmentationComparison(found, tuple(item.name for item in variants if item not in whole), means, tests)


def judge(protocol: Protocol, variant: Variant, folds: Sequence[int], tolerance_mm: float) -> VariantScores:
    """Measure every case of the folds.

    Raises:
        UsageError: E_NO_CASES, E_TABLE, E_ROWS; E_CAL_… when a temperature cannot be fitted.
    """
    trials = [Trial(variant, 0, fold) for fold in folds]
    folders = judged_folders(protocol, trials)
    calibrations = [_temperature([other for other in folders if other != folder]) for folder in folders]
    rows: dict[str, dict[str, float]] = {}
    for folder, calibration in zip(folders, calibrations, strict=True):
        for case_id in cases_in(folder):
            rows[case_id] = _measured(*read_kept(folder, case_id), calibration, tolerance_mm)
    names = tuple(sorted(rows))
    records = [read_trial(protocol, trial) for trial in trials]
    return VariantScores(
        variant.name,
        names,
        {name: np.array([rows[case][name] for case in names]) for name in MEASURES},
        tuple(item.temperature for item in calibrations),
        int(records[0]["parameters"]),
        int(records[0]["flops"]),
        float(np.mean([sum(record["seconds"].values()) for record in records])),
    )


def cases_in(folder: Path) -> list[str]:
    """The cases whose logits a judgement has kept.

    Raises:
        UsageError: E_TABLE when there are none.
    """
    masks = sorted((folder / LOGITS).glob("*_mask.nii.gz"))
    if not masks:
        raise UsageError("E_TABLE", f"Expected logits of whole cases in {folder / LOGITS}, got none.")
    return [path.name.removesuffix("_mask.nii.gz") for path in masks]


def read_kept(folder: Path, case_id: str) -> tuple[MetaTensor, MetaTensor]:
    """A case's voxel logits (labels, I, J, K) and its mask (1, I, J, K), as a judgement has kept them."""
    logits, mask = (nib.load(folder / LOGITS / f"{case_id}{part}.nii.gz") for part in ("", "_mask"))
    channels = np.moveaxis(np.asarray(logits.dataobj, np.float32), -1, 0)
    return volume(channels, logits.affine), volume(np.asarray(mask.dataobj, np.uint8)[None], mask.affine)


def case_weights(cases: Sequence[object] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Weights with which every case counts the same, however many rows (voxels) it has.

    Args:
        cases: (N,) names.

    Returns:
        (N,) with the sum 1.
    """
    numbers = group_indices(cases, len(cases))
    counts = np.bincount(numbers)
    return np.asarray(1.0 / (counts[numbers] * len(counts)))


def _temperature(folders: Sequence[Path]) -> Temperature:
    """Every case counts the same. How well it is known, the table shows: it is fitted once for each fold."""
    found = voxel_logits(folders)
    about = About("held-out voxels of the other folds", datetime.now(UTC).date().isoformat(), "out_of_fold")
    weights = case_weights(found.case_ids)
    return Temperature.fit_rows(Rows.of(found.logits, found.labels, found.case_ids, weights), about)


def _measured(logits: MetaTensor, mask: MetaTensor, calibration: Temperature, tolerance_mm: float) -> dict[str, float]:
    predicted = logits.as_tensor().argmax(0).numpy() > 0
    truth = mask.as_tensor()[0].numpy() > 0
    found = overlap(predicted, truth, spacing_mm(affine_of(mask)).tolist(), tolerance_mm)
    result = {"dice": found.dice, "iou": found.iou, "nsd": found.nsd, "hd95_mm": found.hd95_mm}
    own = volume(logits.as_tensor().double().softmax(0), affine_of(logits))
    for suffix, chances in (("", own), ("_calibrated", calibration.apply(logits))):
        error = case_ece(chances, mask)
        result |= {f"ece{suffix}": NAN if error is None else error, f"nll{suffix}": _nll(chances, mask)}
    return result


def _nll(chances: MetaTensor, mask: MetaTensor) -> float:
    """Mean negative log-likelihood within 10 mm of the true foreground, nats; NaN where there is none."""
    near = torch.from_numpy(dilated_foreground(mask))
    if not bool(near.any()):
        return NAN
    truth = mask.as_tensor()[0][near].long()
    of_truth = chances.as_tensor()[:, near].double().gather(0, truth[None])
    return float(-of_truth.clamp(min=torch.finfo(torch.float32).tiny).log().mean())


def _compared(
    found: Sequence[VariantScores], pairs: Sequence[tuple[str, str]], units: Sequence[str], settings: Settings
) -> tuple[Comparison, ...]:
    """Pairs of which both are done."""
    names = {item.name for item in found}
    there = [pair for pair in pairs if set(pair) <= names]
    tests: list[Comparison] = []
    for measure in ("dice", "ece_calibrated"):
        values = {item.name: item.values[measure] for item in found}
        tests += compare_means(measure, values, there, units, settings)
    return tuple(tests)


def case_ece(
    probabilities: MetaTensor, labels: MetaTensor, bins: int = BINS, margin_mm: float = MARGIN_MM
) -> float | None:
    """ECE of the predicted class over the dilated foreground of one case; average it over cases, not over voxels.

    Args:
        probabilities: (C, I, J, K), or (1, I, J, K) of class 1 of two.
        labels: (1, I, J, K) on the same grid.
        bins: equal-width.
        margin_mm: how far the foreground is dilated.

    Returns:
        The error; None where there is no foreground.

    Raises:
        CaseError: E_GRID.
    """
    require_same_grid(probabilities, labels, ("the probabilities", "the labels"))
    places = torch.from_numpy(np.flatnonzero(dilated_foreground(labels, margin_mm)))
    if not len(places):
        return None
    chances = probabilities.as_tensor().flatten(1)[:, places].double().numpy().T
    if chances.shape[1] == 1:
        chances = np.concatenate([1 - chances, chances], axis=1)
    confidence, hits = confidence_and_hits(chances, labels.as_tensor().flatten()[places].long().numpy())
    # bins sum the gaps of their rows in float64, however many there are
    return float(np.abs(make_bins(confidence, bins).sums(confidence - hits)).sum() / len(places))


@dataclass(frozen=True, eq=False)
class VoxelLogits:
    """Voxel logits within 10 mm of the foreground, equally many of each case.

    Attributes:
        case_ids: (N,) the case of each voxel.
        labels: (N,).
        logits: (N, labels).
    """

    case_ids: Any
    labels: Ints
    logits: Floats


def voxel_logits(folders: Sequence[Path]) -> VoxelLogits:
    """Put the voxel logits of several folds together.

    Raises:
        UsageError: E_ROWS when a case comes twice; E_TABLE when there are no voxels.
    """
    parts = [{name: load(folder / f"voxel_{name}.npy") for name in ("cases", "labels", "logits")} for folder in folders]
    require_once([name for part in parts for name in np.unique(part["cases"]).tolist()])
    whole = {name: np.concatenate([part[name] for part in parts]) for name in ("cases", "labels", "logits")}
    return VoxelLogits(whole["cases"], whole["labels"].astype(np.int64), whole["logits"].astype(np.float64))
