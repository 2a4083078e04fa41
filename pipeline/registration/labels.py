"""How far corresponding labels of two aligned images lie apart: a check on the alignment, and on the labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.geometry import LPS_RAS, FloatArray, apply
from pipeline.registration.findings import AlignmentLimits
from pipeline.registration.quality import Findings
from pipeline.registration.transforms import resample_labels
from pipeline.volumes import affine_of

#: The centroid of as many points of a region, evenly drawn, is known to a fraction of a voxel.
MOST_POINTS = 2000

#: A region of the fixed image and the same of the moving one, each with its value: (1, I, J, K) on any grid.
Regions = tuple[tuple[MetaTensor, int], tuple[MetaTensor, int]]


def label_numbers(common: Iterable[Regions], transform: sitk.Transform) -> dict[str, Any]:
    """Measure how well labels that were drawn on both images agree.

    Args:
        common: the regions that both images have; those of which one is empty do not count.
        transform: LPS mm, from points of the fixed to points of the moving image.

    Returns:
        `label_distance_mm` (between the centroids, the largest of all regions) and `label_dice` (the smallest); empty
        when there is no region to compare.
    """
    distances, dices = [], []
    for (fixed, fixed_value), (moving, moving_value) in common:
        own, other = fixed.numpy()[0] == fixed_value, moving.numpy()[0] == moving_value
        if own.any() and other.any():
            apart = _centroid(fixed, own, transform) - _centroid(moving, other)
            distances.append(float(np.linalg.norm(apart)))
            moved = resample_labels(moving, fixed, transform).numpy()[0] == moving_value
            dices.append(2.0 * float((own & moved).sum()) / float(own.sum() + moved.sum()))
    return {"label_distance_mm": max(distances), "label_dice": min(dices)} if distances else {}


def judge_labels(numbers: dict[str, Any], limits: AlignmentLimits) -> Findings:
    """Labels that lie apart are a warning: whether they or the alignment are wrong they do not say."""
    apart_mm = numbers.get("label_distance_mm", 0.0)
    if apart_mm <= limits.label_distance_pass_mm:
        return []
    text = f"The same label lies {apart_mm:.1f} mm apart in the two images (limit {limits.label_distance_pass_mm:g} mm)"
    return [("warn", f"{text}: it or the alignment is wrong.")]


def _centroid(image: MetaTensor, region: Any, transform: sitk.Transform | None = None) -> FloatArray:
    """The middle of a region where a transform sends it, LPS mm, shape (3,)."""
    index = np.argwhere(region)
    points = apply(LPS_RAS @ affine_of(image), index[:: -(-len(index) // MOST_POINTS)].astype(np.float64))
    if transform is not None:
        points = np.array([transform.TransformPoint(point.tolist()) for point in points])
    return np.asarray(points.mean(axis=0))
