"""Is what a reader made of a position phantom's files right? Judged by the values at the positions that it claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tests.phantoms.phantom import expected_values

FloatArray = npt.NDArray[np.float64]
Judgement = Literal["right", "incomplete", "wrong"]

#: Values are rounded to whole HU when they are written, and positions have at most 16 characters.
ROUNDING_HU = 0.51
#: How near a sample a voxel has to be for it not to be lost, in the sample's own voxels.
NEAR_VOXELS = 0.75
#: How far off NIfTI's affines, of 32 bits, may put a voxel.
NIFTI_VOXELS = 1e-3
#: A volume is whole when it holds at least this part of its samples; one end slice of 20 less is 0.95.
WHOLE = 0.96


@dataclass(frozen=True)
class Truth:
    """One volume that a series holds.

    Attributes:
        shape: of its samples along I, J, K.
        affine: 4 x 4, voxel index to RAS mm; may shear.
        offset_hu: what its values are above the position phantom's.
        border_voxels: how near its border a resampled volume may mix its values with what lies outside.
        padded_above_hu: samples whose value would be more than this are padding.
        padding: what padding has to be read as: air in CT, HU.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    offset_hu: float = 0.0
    border_voxels: float = 0.0
    padded_above_hu: float = np.inf
    padding: float = -1000.0


def error_hu(values: FloatArray, affine: FloatArray, truth: Truth) -> float:
    """The largest error of a volume against one truth.

    Voxels within the truth's grid have to hold the value of their position. Beyond it a volume may be filled with one
    value, its least; any other has to be right there too.

    Args:
        values: (I, J, K), HU.
        affine: 4 x 4, voxel index to RAS mm; may shear.
        truth: what the volume should be.

    Returns:
        HU; infinite where the volume holds NaN or does not touch the truth's grid.
    """
    if values.ndim != 3 or not np.isfinite(values).all():
        return float("inf")
    expected = expected_values(values.shape, affine)
    sought = np.where(expected > truth.padded_above_hu, truth.padding, expected + truth.offset_hu)
    beyond = _beyond(values.shape, affine, truth)
    ignored = np.abs(beyond) < truth.border_voxels
    ignored |= np.abs(expected - truth.padded_above_hu) < 1.0  # whether these were padded depends on rounding
    outside = (beyond > 0) & (values == values.min())
    if not (beyond <= 0).any():
        return float("inf")
    return float(np.abs(values - sought)[~(ignored | outside)].max(initial=0.0))


def coverage(shape: Sequence[int], affine: FloatArray, truth: Truth) -> float:
    """The part of a truth's samples near which (`NEAR_VOXELS`) a grid has a voxel, from 0 to 1."""
    samples = _indices(truth.shape)
    index = _map(np.linalg.inv(affine) @ truth.affine, samples)
    nearest = np.clip(np.rint(index), 0, np.asarray(shape) - 1)
    apart = np.abs(_map(np.linalg.inv(truth.affine) @ affine, nearest) - samples)
    return float((apart <= NEAR_VOXELS).all(axis=-1).mean())


def judge_volumes(
    volumes: Sequence[tuple[FloatArray, FloatArray]], truths: Sequence[Truth], tolerance_hu: float = ROUNDING_HU
) -> Judgement:
    """Judge all that a reader gave for a series.

    Args:
        volumes: each (I, J, K) in HU, and its RAS affine.
        truths: the volumes that the series holds.
        tolerance_hu: how far a right voxel may be from the truth.

    Returns:
        `right`: each truth is there, and beside them nothing but stray slices that are right too; `incomplete`: all
        is right as far as it goes, but something is missing; `wrong`: a voxel somewhere does not hold what lies there.
    """
    fits = [[error_hu(*volume, truth) <= tolerance_hu for truth in truths] for volume in volumes]
    strays = [not any(row) for row in fits]
    if any(stray and _stray_error_hu(*volumes[i], truths) > tolerance_hu for i, stray in enumerate(strays)):
        return "wrong"
    whole = {
        number
        for number, truth in enumerate(truths)
        for volume, row in zip(volumes, fits, strict=True)
        if row[number] and coverage(volume[0].shape, volume[1], truth) >= WHOLE
    }
    return "right" if len(whole) == len(truths) else "incomplete"


def _stray_error_hu(values: FloatArray, affine: FloatArray, truths: Sequence[Truth]) -> float:
    """The error of slices that belong to no truth, such as a localizer's."""
    if values.ndim != 3 or not np.isfinite(values).all():
        return float("inf")
    apart = values - expected_values(values.shape, affine)
    return min(float(np.abs(apart - truth.offset_hu).max()) for truth in truths)


def _beyond(shape: Sequence[int], affine: FloatArray, truth: Truth) -> FloatArray:
    """How far each voxel lies beyond the truth's outermost samples, in its voxels; negative inside."""
    index = _map(np.linalg.inv(truth.affine) @ affine, _indices(shape))
    last = np.asarray(truth.shape, dtype=float) - 1
    return np.asarray(np.maximum(-index, index - last).max(axis=-1) - NIFTI_VOXELS)


def _indices(shape: Sequence[int]) -> FloatArray:
    return np.stack(np.meshgrid(*[np.arange(size, dtype=float) for size in shape], indexing="ij"), axis=-1)


def _map(matrix: FloatArray, points: FloatArray) -> FloatArray:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])
