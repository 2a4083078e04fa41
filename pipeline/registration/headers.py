"""The quality of an alignment that the images' headers give: measured at the scale of the voxels, without a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, affine_of, spacing_mm
from pipeline.registration.quality import PERTURBATION_MM, Pair, QualityLimits, judge, measure

#: Images that were never fitted to each other agree to within some voxels of the coarser one: PET of 5 mm voxels is
#: smooth over 10 mm, and its mutual information with CT changes only beyond.
VOXELS = 2.0

Limits = TypeVar("Limits", bound=QualityLimits)


def header_quality(pair: Pair, images: tuple[MetaTensor, MetaTensor], limits: QualityLimits) -> dict[str, Any]:
    """Measure and judge the alignment that the headers give.

    No second start can confirm it, which is no finding. Parts of the body that match better elsewhere (breath, the
    distortion of diffusion images) are a warning, and only beyond the voxels' scale: no search promised more.

    Args:
        pair: the images.
        images: the same, fixed and moving.
        limits: see `QualityLimits`.

    Returns:
        See `pipeline.registration.quality.measure`; and `nmi_peak_step_mm`, the shift at which NMI has to fall.
    """
    step_mm = max(PERTURBATION_MM, voxels_mm(images))
    measured = measure(pair, [np.eye(4)], None, limits)
    numbers = {k: v for k, v in measured.items() if k not in ("start_disagreement_mm", "verdict", "reason")}
    numbers |= {"nmi_peak_fraction": _peak(pair, step_mm), "nmi_peak_step_mm": step_mm}
    verdict, reasons = judge(numbers, at_voxel_scale(limits, images))
    return {**numbers, "transform": "headers", "verdict": verdict, "reason": " ".join(reasons)}


def at_voxel_scale(limits: Limits, images: tuple[MetaTensor, MetaTensor]) -> Limits:
    """Limits by which parts that match better elsewhere are only a warning, and only beyond the voxels' scale."""
    part_mm = max(limits.local_shift_pass_mm, voxels_mm(images))
    return replace(limits, local_shift_pass_mm=part_mm, local_shift_warn_mm=float("inf"))


def voxels_mm(images: tuple[MetaTensor, MetaTensor]) -> float:
    """How far apart images that were never fitted to each other may lie, mm."""
    return round(VOXELS * max(float(spacing_mm(affine_of(image)).max()) for image in images), 1)


def _peak(pair: Pair, step_mm: float) -> float | None:
    """Which fraction of 12 shifts, and turns that move the body as far, lowers NMI."""
    best = pair.nmi(np.eye(4))
    if best is None:
        return None
    scores = [pair.nmi(pose) for pose in _around(pair.points, step_mm)]
    return float(np.mean([score is None or score < best for score in scores]))


def _around(points: FloatArray, step_mm: float) -> list[FloatArray]:
    centre = points.mean(axis=0)
    radius_mm = float(np.sqrt(((points - centre) ** 2).sum(axis=1).mean()))
    steps = []
    for axis in step_mm * np.vstack([np.eye(3), -np.eye(3)]):
        shift, turn = np.eye(4), np.eye(4)
        shift[:3, 3] = axis
        turn[:3, :3] = Rotation.from_rotvec(axis / radius_mm).as_matrix()
        turn[:3, 3] = centre - turn[:3, :3] @ centre
        steps += [shift, turn]
    return steps
