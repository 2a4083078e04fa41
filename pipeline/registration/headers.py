"""The quality of an alignment that the images' headers give: measured at the scale of the voxels, without a search."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from monai.data import MetaTensor

from pipeline.geometry import FloatArray, spacing_mm
from pipeline.registration.quality import PERTURBATION_MM, Pair, QualityLimits, measure_known
from pipeline.volumes import affine_of

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
        limits: see `QualityLimits` and `at_voxel_scale`.

    Returns:
        See `pipeline.registration.quality.measure`; and `nmi_peak_step_mm`, the shift at which NMI has to fall.
    """
    step_mm = max(PERTURBATION_MM, voxels_mm(images))
    turn_degrees = float(np.degrees(step_mm / _radius_mm(pair.points)))  # moves the body as far as the shift
    quality = measure_known(pair, np.eye(4), limits, (step_mm, turn_degrees))
    return {**quality, "nmi_peak_step_mm": step_mm, "transform": "headers", "header_kept": True}


def at_voxel_scale(limits: Limits, images: tuple[MetaTensor, MetaTensor]) -> Limits:
    """Limits by which parts that match better elsewhere are only a warning, and only beyond the voxels' scale."""
    part_mm = max(limits.local_shift_pass_mm, voxels_mm(images))
    return replace(limits, local_shift_pass_mm=part_mm, local_shift_warn_mm=float("inf"))


def voxels_mm(images: tuple[MetaTensor, MetaTensor]) -> float:
    """How far apart images that were never fitted to each other may lie, mm."""
    return round(VOXELS * max(float(spacing_mm(affine_of(image)).max()) for image in images), 1)


def _radius_mm(points: FloatArray) -> float:
    """How far points (N, 3) lie from their centre: root mean square, mm."""
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))


UNKNOWN = "Nothing says whether the two images share a frame of reference."


def share_frame(case: Mapping[Hashable, Any], fixed: str, moving: str) -> bool | None:
    """Whether two images share a frame of reference; None where nothing says so.

    Args:
        case: with `frames`, the path of what ingest wrote (role -> number of its frame), where DICOM said it.
        fixed: the role that the other one is aligned with.
        moving: the role that is aligned.
    """
    path = case.get("frames")
    numbers = {} if path is None else json.loads(Path(path).read_text())
    if fixed not in numbers or moving not in numbers:
        return None
    return bool(numbers[fixed] == numbers[moving])
