"""Affines, grids and orientations as plain numbers: RAS and LPS, DICOM's and ITK's. Loads neither torch nor ITK.

Inside Tandem an affine is float64, RAS, in mm, and maps a voxel index (i, j, k) to a point; x grows to the right of the
patient, y to the front, z to the head. DICOM and ITK use LPS: both are met only here and in `pipeline.volumes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import CaseError

FloatArray = npt.NDArray[np.float64]

#: RAS <-> LPS: x and y change sign. The matrix is its own inverse.
LPS_RAS: FloatArray = np.diag([-1.0, -1.0, 1.0, 1.0])

#: How far two grids may differ and still be one: fraction of a voxel at the grid's corners.
GRID_TOLERANCE_VOXELS = 1e-3
#: How far a mask's corners may lie from its image's: headers of other programs are rounded; fraction of the smallest
#: voxel side.
MASK_TOLERANCE_VOXELS = 0.05


def check_affine(affine: npt.ArrayLike) -> FloatArray:
    """Return the affine as float64 if it is usable.

    Raises:
        CaseError: E_AFFINE when it is not 4 x 4, not finite, singular, or its axes are not orthogonal (1e-3).
    """
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise CaseError("E_AFFINE", f"Expected a finite 4 x 4 affine, got shape {matrix.shape}.")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0:
        raise CaseError("E_AFFINE", "The affine has an axis of length 0.")
    axes = matrix[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise CaseError("E_AFFINE", "The affine's axes are not orthogonal: it shears.")
    return matrix


def affine_from_dicom(
    orientation: Sequence[float],
    spacing_mm: Sequence[float],
    first: Sequence[float],
    last: Sequence[float],
    slices: int,
) -> FloatArray:
    """RAS affine of a stack of DICOM slices.

    Args:
        orientation: ImageOrientationPatient, 6 direction cosines in LPS: along a row, then along a column.
        spacing_mm: PixelSpacing: between rows, then between columns.
        first: ImagePositionPatient of the first slice, LPS mm.
        last: ImagePositionPatient of the last slice, LPS mm.
        slices: how many slices there are.

    Returns:
        4 x 4 for voxel indices (column, row, slice), mm. Source: DICOM PS3.3 C.7.6.2.1.1.
    """
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    affine = np.eye(4)
    affine[:3, 0] = row * spacing_mm[1]
    affine[:3, 1] = column * spacing_mm[0]
    affine[:3, 2] = (np.asarray(last, float) - np.asarray(first, float)) / (slices - 1)
    affine[:3, 3] = first
    return LPS_RAS @ affine


def spacing_mm(affine: npt.ArrayLike) -> FloatArray:
    """Voxel size along I, J, K in mm, shape (3,)."""
    return np.asarray(np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0))


def orientation_of(affine: npt.ArrayLike) -> str:
    """The three letters of the nearest axes, such as `RAS`."""
    import nibabel as nib

    return "".join(nib.aff2axcodes(np.asarray(affine, float)))


def apply(matrix: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """Map points of shape (N, 3) by a 4 x 4 matrix."""
    homogeneous = np.asarray(matrix, float)
    return np.asarray(np.asarray(points, float) @ homogeneous[:3, :3].T + homogeneous[:3, 3])


def corners(shape: Sequence[int], affine: npt.ArrayLike) -> FloatArray:
    """World positions (RAS mm) of the centres of a grid's eight corner voxels, shape (8, 3)."""
    index = np.array(np.meshgrid(*[(0, size - 1) for size in shape[-3:]], indexing="ij")).reshape(3, -1).T
    return apply(affine, index)


def same_grid(shape_a: Sequence[int], affine_a: npt.ArrayLike, shape_b: Sequence[int], affine_b: npt.ArrayLike) -> bool:
    """Whether two grids have one shape and their corners agree within `GRID_TOLERANCE_VOXELS`."""
    if tuple(shape_a[-3:]) != tuple(shape_b[-3:]):
        return False
    apart = np.linalg.norm(corners(shape_a, affine_a) - corners(shape_b, affine_b), axis=1).max()
    return bool(apart <= GRID_TOLERANCE_VOXELS * spacing_mm(affine_a).min())


def off_grid(shape: Sequence[int], affine: npt.ArrayLike, mask_shape: Sequence[int], mask_affine: npt.ArrayLike) -> str:
    """What parts a mask's grid from its image's, such as `one that lies 1.20 mm off`; empty where they are one.

    They are where they have one shape and their corners agree within `MASK_TOLERANCE_VOXELS`.
    """
    if tuple(shape[-3:]) != tuple(mask_shape[-3:]):
        return f"{tuple(shape[-3:])} and {tuple(mask_shape[-3:])} voxels"
    apart = float(np.linalg.norm(corners(shape, affine) - corners(shape, mask_affine), axis=1).max())
    return f"one that lies {apart:.2f} mm off" if apart > MASK_TOLERANCE_VOXELS * spacing_mm(affine).min() else ""


def itk_geometry(affine: npt.ArrayLike) -> tuple[list[float], list[float], list[float]]:
    """Origin (mm), spacing (mm) and direction cosines (9, row-major) in LPS, as ITK and SimpleITK take them."""
    lps = LPS_RAS @ check_affine(affine)
    spacing = spacing_mm(lps)
    return lps[:3, 3].tolist(), spacing.tolist(), (lps[:3, :3] / spacing).ravel().tolist()


def lps_affine(origin: npt.ArrayLike, spacing: npt.ArrayLike, direction: npt.ArrayLike) -> FloatArray:
    """4 x 4, voxel index to LPS mm, of what `itk_geometry` gives."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine


def matrix_of(sent: Callable[[list[float]], Any]) -> FloatArray:
    """The 4 x 4 matrix of a linear map, by where it sends the origin and the points 100 mm along each axis."""
    origin = np.array(sent([0.0, 0.0, 0.0]))
    matrix = np.eye(4)
    for axis, point in enumerate(100.0 * np.eye(3)):
        matrix[:3, axis] = (np.array(sent(point.tolist())) - origin) / 100.0
    matrix[:3, 3] = origin
    return matrix


def cross(orientation: Sequence[float]) -> tuple[float, float, float]:
    """Row direction x column direction of ImageOrientationPatient, as long as they are (DICOM PS3.3 C.7.6.2.1.1).

    `np.cross` itself takes ten times as long for one pair.
    """
    a, b, c, d, e, f = orientation
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def moved(position: Sequence[float], direction: Sequence[float], offset_mm: float) -> tuple[float, float, float]:
    """A position moved along a direction of unit length, mm."""
    x, y, z = (start + offset_mm * along for start, along in zip(position, direction, strict=True))
    return (x, y, z)
