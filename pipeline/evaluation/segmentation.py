"""Segmentations judged case by case, and compared: overlap, surfaces, volume, lesions; means with patient intervals.

What a case cannot tell is NaN, left out of the mean, and counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from pipeline.errors import UsageError
from pipeline.evaluation.classification import bootstrap_p_value, holm_corrected
from pipeline.evaluation.intervals import BCA_BELOW, bootstrap_interval, leave_one_out
from pipeline.evaluation.results import Comparison, Estimate, Floats, Settings
from pipeline.probabilities import group_indices, group_resamples

Mask = npt.NDArray[np.bool_]
NAN = float("nan")
#: What `judged` measures of a region.
MEASURES = ("dice", "iou", "nsd", "hd95_mm", "volume_error_ml", "volume_error_percent", "lesion_f1")


@dataclass(frozen=True)
class Overlap:
    """How well a predicted region agrees with the true one.

    Attributes:
        dice: from 0 to 1.
        iou: intersection over union (Jaccard), from 0 to 1.
        nsd: normalised surface Dice at the declared tolerance, from 0 to 1.
        hd95_mm: the larger of both directions' 95th percentile of the surface distance.
    """

    dice: float
    iou: float
    nsd: float
    hd95_mm: float


def overlap(predicted: Mask, truth: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> Overlap:
    """Judge one region of one case.

    Where both are empty nothing can be judged: NaN. Where one is empty: Dice, IoU and NSD 0, and as HD95 the image's
    diagonal (MONAI gives NaN, which a mean would drop).

    Args:
        predicted: (I, J, K).
        truth: (I, J, K).
        spacing_mm: of the voxels along I, J, K.
        tolerance_mm: how far apart surfaces may be that count as the same.

    Raises:
        UsageError: E_ROWS when the shapes differ.

    Source: NSD: Nikolov et al., J Med Internet Res 23(7), 2021 (MONAI with `use_subvoxels`, which is DeepMind's).
    """
    if predicted.shape != truth.shape:
        raise UsageError("E_ROWS", f"Expected masks of one shape, got {predicted.shape} and {truth.shape}.")
    sizes = int(predicted.sum()), int(truth.sum())
    if not any(sizes):
        return Overlap(NAN, NAN, NAN, NAN)
    if not all(sizes):
        return Overlap(0.0, 0.0, 0.0, float(np.linalg.norm(np.asarray(truth.shape) * np.asarray(spacing_mm))))
    pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
    spacing = [float(side) for side in spacing_mm]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges")  # of an argument of its own
        surface = compute_surface_dice(
            *pair, [tolerance_mm], include_background=True, spacing=spacing, use_subvoxels=True
        )
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    common = int((predicted & truth).sum())
    dice, iou = 2 * common / sum(sizes), common / (sum(sizes) - common)
    return Overlap(dice, iou, float(surface[0, 0]), float(distance[0, 0]))


def judged(predicted: Mask, truth: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> dict[str, float]:
    """All of `MEASURES` of one region of one case; arguments as those of `overlap`.

    Errors of the volume are predicted less true; the second one in percent of the true volume, NaN where that is 0.

    Raises:
        UsageError: E_ROWS when the shapes differ.
    """
    found = overlap(predicted, truth, spacing_mm, tolerance_mm)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    error, size = int(predicted.sum()) - int(truth.sum()), int(truth.sum())
    percent = 100 * error / size if size else NAN
    values = (found.dice, found.iou, found.nsd, found.hd95_mm, error * voxel_ml, percent, lesion_f1(predicted, truth))
    return dict(zip(MEASURES, values, strict=True))


def lesion_f1(predicted: Mask, truth: Mask) -> float:
    """F1 of lesions: pieces that touch at faces, edges or corners, found where they share a voxel with the other mask.

    Recall is the part of the true lesions that are found, precision the part of the predicted ones that are true. NaN
    where both masks are empty, 0 where one is. One predicted piece may find several lesions.

    Args:
        predicted: (I, J, K).
        truth: (I, J, K).

    Source: Carass et al., NeuroImage 148, 2017 (lesion-wise true and false positive rates: any overlap counts).
    """
    recall, precision = _found_part(truth, predicted), _found_part(predicted, truth)
    if np.isnan(recall) and np.isnan(precision):
        return NAN
    total = np.nan_to_num(recall) + np.nan_to_num(precision)
    return float(2 * np.nan_to_num(recall) * np.nan_to_num(precision) / total) if total else 0.0


def _found_part(pieces: Mask, other: Mask) -> float:
    """The part of the pieces of a mask that share a voxel with another one; NaN where there are none."""
    numbers, count = ndimage.label(pieces, np.ones((3, 3, 3)))
    return len(np.unique(numbers[pieces & other])) / count if count else NAN


def mean_over_cases(measure: str, values: Floats, patients: Sequence[object], settings: Settings) -> Estimate:
    """The mean of a measure over the cases that tell it, with an interval over resampled patients (BCa where few).

    Args:
        measure: its name.
        values: (N,), NaN where a case does not tell it.
        patients: N names.
        settings: confidence, resamples, seed.

    Returns:
        `of` is `all cases`; the note says how many were left out.
    """
    groups = _groups(values, patients)
    told = np.isfinite(values)
    note = "" if told.all() else f"{int((~told).sum())} of {len(values)} cases do not tell it"
    if not told.any():
        return Estimate(measure, "all cases", None, note=note)
    mean = float(values[told].mean())
    if groups.max() < 1:
        return Estimate(measure, "all cases", mean, note="an interval takes at least two patients")
    without = _means(values, leave_one_out(groups)) if groups.max() + 1 < BCA_BELOW else None
    found = bootstrap_interval(mean, _resampled(values, groups, settings), without, settings.confidence)
    notes = "; ".join(text for text in (note, found.note) if text)
    return Estimate(measure, "all cases", mean, found.low, found.high, found.method, notes)


def compare_means(
    measure: str,
    values: Mapping[str, Floats],
    pairs: Sequence[tuple[str, str]],
    patients: Sequence[object],
    settings: Settings,
) -> tuple[Comparison, ...]:
    """Paired differences of means, over the cases that both tell, on resampled patients; Holm over the pairs given.

    Args:
        measure: its name.
        values: model -> (N,), the same cases in the same order.
        pairs: of models; decided on before the figures were seen.
        patients: N names.
        settings: confidence, resamples, seed.

    Returns:
        One a pair: the first's mean less the second's, percentile interval, p value.
    """
    found = [_paired(measure, values[one] - values[other], (one, other), patients, settings) for one, other in pairs]
    return tuple(holm_corrected(found))


def _paired(
    measure: str, differences: Floats, pair: tuple[str, str], patients: Sequence[object], settings: Settings
) -> Comparison:
    groups = _groups(differences, patients)
    told = np.isfinite(differences)
    if not told.any() or groups.max() < 1:
        return Comparison(measure, "all cases", *pair, None, note="it takes two patients with cases that both tell")
    mean = float(differences[told].mean())
    drawn = _resampled(differences, groups, settings)
    interval = bootstrap_interval(mean, drawn, None, settings.confidence)
    left_out = "" if told.all() else f"{int((~told).sum())} cases are not told by both"
    note = "; ".join(text for text in (left_out, interval.note) if text)
    if interval.low is None:
        return Comparison(measure, "all cases", *pair, mean, note=note)
    p_value = bootstrap_p_value(drawn[np.isfinite(drawn)])
    return Comparison(
        measure, "all cases", *pair, mean, interval.low, interval.high, p_value, None, interval.method, note
    )


def _groups(values: Floats, patients: Sequence[object]) -> npt.NDArray[np.int64]:
    if len(values) != len(patients) or not len(values):
        raise UsageError("E_ROWS", f"Expected a patient for each of {len(values)} cases, got {len(patients)}.")
    return np.asarray(group_indices(patients, len(values)), dtype=np.int64)


def _resampled(values: Floats, groups: npt.NDArray[np.int64], settings: Settings) -> Floats:
    """(B,) means on the same patients for the same settings, so that models can be paired."""
    random = np.random.default_rng(settings.seed)
    blocks = group_resamples(groups, settings.resamples, random)
    return np.concatenate([_means(values, weights) for weights in blocks])


def _means(values: Floats, weights: Floats) -> Floats:
    """(B,) weighted means over the finite values; NaN where none has any weight."""
    told = np.isfinite(values)
    totals = weights[:, told].sum(1)
    sums = weights[:, told] @ values[told]
    return np.divide(sums, totals, out=np.full(len(weights), np.nan), where=totals > 0)
