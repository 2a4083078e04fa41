"""Voxels: what of a segmentation's logits a calibration is fitted and judged on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt, find_objects

from pipeline.calibration.base import Calibration
from pipeline.calibration.binning import BINS, confidence_and_hits, make_bins
from pipeline.calibration.methods import method_of
from pipeline.calibration.record import About
from pipeline.calibration.rows import case_weights
from pipeline.errors import UsageError
from pipeline.geometry import spacing_mm
from pipeline.volumes import affine_of, require_same_grid

Mask = npt.NDArray[np.bool_]

#: Far background is right and sure of it, and there is so much of it that it would drown what matters.
MARGIN_MM = 10.0
MAX_VOXELS = 50_000


@dataclass(frozen=True)
class Region:
    """Which voxels of a case count.

    Attributes:
        margin_mm: how far the foreground is dilated.
        max_voxels: a random sample of so many voxels a case is fitted on.
        seed: of the sample.
    """

    margin_mm: float = MARGIN_MM
    max_voxels: int = MAX_VOXELS
    seed: int = 0


def dilated_foreground(labels: MetaTensor, margin_mm: float = MARGIN_MM) -> Mask:
    """The voxels that lie within a distance of the foreground (labels above 0).

    Args:
        labels: (1, I, J, K).
        margin_mm: distance between voxel centres.

    Returns:
        (I, J, K); empty where there is no foreground.
    """
    inside = np.asarray(labels[0].numpy()) > 0
    mask = np.zeros(inside.shape, dtype=bool)
    if not inside.any():
        return mask
    spacing = spacing_mm(affine_of(labels))
    reach = np.ceil(margin_mm / spacing).astype(int)
    (box,) = find_objects(inside.astype(np.uint8))
    # a distance is only needed in the foreground's box and the margin around it
    around = tuple(
        slice(max(0, part.start - grow), part.stop + grow) for part, grow in zip(box, reach.tolist(), strict=True)
    )
    mask[around] = distance_transform_edt(~inside[around], sampling=spacing) <= margin_mm
    return mask


def fit_voxels(
    method: str,
    volumes: Iterable[tuple[MetaTensor, MetaTensor]],
    about: About,
    region: Region = Region(),
    **settings: Any,
) -> Calibration:
    """Fit on the dilated foreground of several cases; every case counts the same, however large its foreground.

    Args:
        method: a name of `METHODS`.
        volumes: of each case, logits (C, I, J, K) and labels (1, I, J, K) on one grid; one after the other in memory.
        about: data, date and source.
        region: which voxels count.
        settings: of the method.

    Raises:
        CaseError: E_GRID when logits and labels are not on one grid.
        UsageError: E_CAL_TOO_FEW when fewer than two cases hold foreground; those of `Calibration.fit`.
    """
    random = np.random.default_rng(region.seed)
    logits, labels, cases = [], [], []
    for number, (scores, truth) in enumerate(volumes):
        require_same_grid(scores, truth, ("the logits", "the labels"))
        places = np.flatnonzero(dilated_foreground(truth, region.margin_mm))
        if len(places) > region.max_voxels:
            places = np.sort(random.choice(places, region.max_voxels, replace=False))
        chosen = torch.from_numpy(places)
        logits.append(scores.as_tensor().flatten(1)[:, chosen].T.contiguous())
        labels.append(truth.as_tensor().flatten()[chosen])
        cases.append(np.full(len(places), number))
    names = np.concatenate([np.empty(0, dtype=int), *cases])
    if len(np.unique(names)) < 2:
        raise UsageError("E_CAL_TOO_FEW", f"Expected 2 cases with foreground, got {len(np.unique(names))}.")
    return method_of(method).fit(torch.cat(logits), torch.cat(labels), about, names, case_weights(names), **settings)


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
