"""The only converter of conventions: RAS and LPS, DICOM, MetaTensor, SimpleITK, ITK; grids and orientations.

Inside Tandem a volume is a `MetaTensor` of shape (C, I, J, K) with a float64 RAS affine in mm that maps a voxel index
(i, j, k) to a point; x grows to the right of the patient, y to the front, z to the head. DICOM and ITK use LPS, and
SimpleITK's arrays are (k, j, i): both are met only here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from pipeline.errors import CaseError

FloatArray = npt.NDArray[np.float64]

#: RAS <-> LPS: x and y change sign. The matrix is its own inverse.
LPS_RAS: FloatArray = np.diag([-1.0, -1.0, 1.0, 1.0])

#: How far two grids may differ and still be one: fraction of a voxel at the grid's corners.
GRID_TOLERANCE_VOXELS = 1e-3


def volume(array: npt.ArrayLike | torch.Tensor, affine: npt.ArrayLike) -> MetaTensor:
    """Make a MetaTensor of an array.

    Args:
        array: shape (I, J, K) or (C, I, J, K).
        affine: 4 x 4, RAS, mm.

    Returns:
        (C, I, J, K) with `affine` float64 and `meta["space"] = "RAS"`.
    """
    tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(_forward(np.asarray(array)))
    if tensor.ndim == 3:
        tensor = tensor[None]
    checked = check_affine(affine)
    return MetaTensor(tensor, affine=torch.from_numpy(checked), meta={"space": "RAS"})


def _forward(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, copied only where torch cannot share its memory: read backwards, or not to be written to."""
    return array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()


def affine_of(image: MetaTensor) -> FloatArray:
    """The RAS affine of a MetaTensor as float64, 4 x 4, mm."""
    return np.asarray(image.affine, dtype=np.float64)


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


def require_same_grid(a: MetaTensor, b: MetaTensor, names: tuple[str, str]) -> None:
    """Refuse two images that do not share a grid.

    Raises:
        CaseError: E_GRID.
    """
    if not same_grid(a.shape, affine_of(a), b.shape, affine_of(b)):
        sizes = f"{tuple(a.shape[-3:])} and {tuple(b.shape[-3:])}"
        raise CaseError("E_GRID", f"Expected {names[0]} and {names[1]} on one grid, got {sizes} voxels.")


def to_sitk(image: MetaTensor) -> sitk.Image:
    """A one-channel MetaTensor (1, I, J, K), RAS, as a SimpleITK image, LPS.

    Raises:
        CaseError: E_GRID when the image has more than one channel.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise CaseError("E_GRID", f"Expected a one-channel volume (1, I, J, K), got shape {tuple(image.shape)}.")
    result = sitk.GetImageFromArray(np.ascontiguousarray(image.numpy()[0].transpose(2, 1, 0)))
    origin, spacing, direction = itk_geometry(affine_of(image))
    result.SetOrigin(origin)
    result.SetSpacing(spacing)
    result.SetDirection(direction)
    return result


def from_sitk(image: sitk.Image) -> MetaTensor:
    """A three-dimensional scalar SimpleITK image, LPS, as a MetaTensor (1, I, J, K), RAS."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_RAS @ affine)


def itk_geometry(affine: npt.ArrayLike) -> tuple[list[float], list[float], list[float]]:
    """Origin (mm), spacing (mm) and direction cosines (9, row-major) in LPS, as ITK and SimpleITK take them."""
    lps = LPS_RAS @ check_affine(affine)
    spacing = spacing_mm(lps)
    return lps[:3, 3].tolist(), spacing.tolist(), (lps[:3, :3] / spacing).ravel().tolist()


def to_itk(image: MetaTensor) -> Any:
    """A one-channel MetaTensor (1, I, J, K), RAS, as an ITK image of float32, LPS."""
    import itk

    array = np.ascontiguousarray(image.numpy()[0].transpose(2, 1, 0), dtype=np.float32)
    result = itk.image_from_array(array)
    origin, spacing, direction = itk_geometry(affine_of(image))
    result.SetOrigin(origin)
    result.SetSpacing(spacing)
    result.SetDirection(itk.matrix_from_array(np.asarray(direction).reshape(3, 3)))
    return result


def transform_from_matrix(matrix: npt.ArrayLike) -> sitk.AffineTransform:
    """A 4 x 4 RAS matrix (mm to mm) as a SimpleITK affine transform in LPS."""
    lps = LPS_RAS @ np.asarray(matrix, float) @ LPS_RAS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def matrix_from_transform(transform: sitk.Transform) -> FloatArray:
    """The 4 x 4 RAS matrix (mm to mm) of a linear SimpleITK transform in LPS.

    Raises:
        CaseError: E_AFFINE when the transform is not linear.
    """
    origin = np.zeros(3)
    probes = np.vstack([origin, np.eye(3) * 100.0, [[100.0, 100.0, 100.0]]])
    mapped = np.array([transform.TransformPoint(point.tolist()) for point in probes])
    matrix = np.eye(4)
    matrix[:3, :3] = (mapped[1:4] - mapped[0]).T / 100.0
    matrix[:3, 3] = mapped[0]
    if np.abs(apply(matrix, probes[4:]) - mapped[4:]).max() > 1e-6:
        raise CaseError("E_AFFINE", "Expected a linear transform, got one that bends space.")
    return LPS_RAS @ matrix @ LPS_RAS
