"""The only converter of volumes: MetaTensor, SimpleITK, ITK.

Inside Tandem a volume is a `MetaTensor` of shape (C, I, J, K) with a float64 RAS affine in mm (`pipeline.geometry`).
SimpleITK's and ITK's images are LPS and their arrays (k, j, i): both are met only here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from pipeline.errors import CaseError
from pipeline.geometry import (
    LPS_RAS,
    FloatArray,
    apply,
    check_affine,
    corners,
    itk_geometry,
    lps_affine,
    matrix_of,
    orientation_of,
    same_grid,
)

#: Of an image's `meta`: the value that is white, where 0 is black; in its NIfTI file, `cal_max`.
WHITE = "white"


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


def oriented(image: MetaTensor, code: str = "RAS") -> MetaTensor:
    """An image (C, I, J, K) with its axes flipped and in the order that is nearest to the letters, where the axes run.

    No value changes; an image whose axes run so is given as it is.
    """
    if orientation_of(affine_of(image)) == code:
        return image
    from monai.transforms import Orientation

    turned = Orientation(axcodes=code, labels=(("L", "R"), ("P", "A"), ("I", "S")))(image)
    return volume(turned.as_tensor().contiguous(), affine_of(turned))


def require_same_grid(a: MetaTensor, b: MetaTensor, names: tuple[str, str]) -> None:
    """Refuse two images that do not share a grid.

    Raises:
        CaseError: E_GRID.
    """
    if not same_grid(a.shape, affine_of(a), b.shape, affine_of(b)):
        got = f"{tuple(a.shape[-3:])} and {tuple(b.shape[-3:])} voxels"
        apart = np.linalg.norm(corners(a.shape, affine_of(a)) - corners(b.shape, affine_of(b)), axis=1).max()
        got += f", corners up to {apart:.3g} mm apart"
        raise CaseError("E_GRID", f"Expected {names[0]} and {names[1]} on one grid, got {got}.")


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
    affine = lps_affine(image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    return volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_RAS @ affine)


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
    matrix, probe = matrix_of(transform.TransformPoint), [100.0, 100.0, 100.0]
    if np.abs(apply(matrix, [probe]) - transform.TransformPoint(probe)).max() > 1e-6:
        raise CaseError("E_AFFINE", "Expected a linear transform, got one that bends space.")
    return LPS_RAS @ matrix @ LPS_RAS
