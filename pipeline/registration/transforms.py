"""Carry images and labels through a saved transform: a registration is never run again to apply it."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.errors import CaseError
from pipeline.geometry import LPS_RAS, FloatArray, apply, itk_geometry
from pipeline.registration.warp import Warp
from pipeline.volumes import affine_of, from_sitk, matrix_from_transform, to_sitk, transform_from_matrix, volume

AIR_HU = -1000.0
#: The way forth and back is measured in as many points.
CONSISTENCY_POINTS = 2000


def outside_value(image: MetaTensor, modality: str) -> float:
    """What an image shows where it was not acquired: air (-1000 HU) for CT, otherwise its smallest value."""
    return AIR_HU if modality == "CT" else float(image.min())


def resample_image(moving: MetaTensor, grid: MetaTensor, transform: sitk.Transform, outside: float) -> MetaTensor:
    """Resample an image onto another grid by linear interpolation.

    Args:
        moving: (1, I, J, K).
        grid: any volume that has the wanted grid.
        transform: LPS mm, from points of the grid to points of the moving image.
        outside: value where the moving image shows nothing.

    Returns:
        (1, I, J, K) float32 on the grid.

    Raises:
        CaseError: E_GRID when the image has more than one channel.
    """
    source = sitk.Cast(to_sitk(moving), sitk.sitkFloat32)
    return _resample(source, grid, transform, sitk.sitkLinear, outside)


def resample_labels(labels: MetaTensor, grid: MetaTensor, transform: sitk.Transform) -> MetaTensor:
    """Resample a label volume onto another grid by nearest neighbour.

    Args:
        labels: (1, I, J, K) whole numbers, 0 is background.
        grid: any volume that has the wanted grid.
        transform: LPS mm, from points of the grid to points of the label volume.

    Returns:
        (1, I, J, K) on the grid, in the labels' own type; no value that was not there before, but small labels may be
        lost.

    Raises:
        CaseError: E_DTYPE when a value is not a whole number, or one appears that is not a label.
    """
    values = np.unique(labels.numpy())
    if (values != np.round(values)).any():
        raise CaseError("E_DTYPE", "Expected labels as whole numbers, got fractions.")
    result = _resample(to_sitk(labels), grid, transform, sitk.sitkNearestNeighbor, 0.0)
    strangers = np.setdiff1d(np.unique(result.numpy()), np.append(values, 0))
    if strangers.size:
        raise CaseError("E_DTYPE", f"Expected the labels {values.tolist()}, got also {strangers.tolist()}.")
    return result


def compose(after: list[sitk.Transform], before: list[sitk.Transform]) -> list[sitk.Transform]:
    """One way out of two; linear maps alone become one linear map.

    Args:
        after: the second way, from what the first one leads to; of several parts the last is applied first.
        before: the first way, likewise.
    """
    parts = [*after, *before]
    if not all(part.IsLinear() for part in parts):
        return parts
    matrix = np.eye(4)
    for part in parts:
        matrix = matrix @ matrix_from_transform(part)
    return [transform_from_matrix(matrix)]


def back_and_forth_mm(warp: Warp, inverse: sitk.Transform, points: FloatArray, moving: MetaTensor) -> float | None:
    """How far (mm, at most) points end from where they were, through a map and its stored inverse.

    Args:
        warp: from fixed to moving points.
        inverse: the way back, LPS mm.
        points: of the fixed image, (N, 3) RAS mm.
        moving: the moving image; points outside its field of view do not count.

    Returns:
        None when no point lies in the moving image.
    """
    chosen = points[:: -(-len(points) // CONSISTENCY_POINTS)]
    moved = warp(chosen)
    index = apply(np.linalg.inv(affine_of(moving)), moved)
    seen = ((index >= 0) & (index <= np.array(moving.shape[1:]) - 1)).all(axis=1)
    if not seen.any():
        return None
    back = np.array([inverse.TransformPoint(point.tolist()) for point in apply(LPS_RAS, moved[seen])])
    return float(np.linalg.norm(apply(LPS_RAS, back) - chosen[seen], axis=1).max())


def _resample(
    source: sitk.Image, grid: MetaTensor, transform: sitk.Transform, interpolator: int, outside: float
) -> MetaTensor:
    resampler = sitk.ResampleImageFilter()
    origin, spacing, direction = itk_geometry(affine_of(grid))
    resampler.SetSize([int(size) for size in grid.shape[-3:]])
    resampler.SetOutputOrigin(origin)
    resampler.SetOutputSpacing(spacing)
    resampler.SetOutputDirection(direction)
    resampler.SetTransform(transform)
    resampler.SetInterpolator(interpolator)
    resampler.SetDefaultPixelValue(outside)
    # The grid's own affine, not the one that came back through ITK: equal grids stay equal to the last bit.
    return volume(from_sitk(resampler.Execute(source)).numpy(), affine_of(grid))
