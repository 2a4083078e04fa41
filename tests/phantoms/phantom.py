"""The position phantom: every voxel's value tells where it lies, so any error of geometry or value shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline import volumes

FloatArray = npt.NDArray[np.float64]


def position_phantom(
    shape: Sequence[int] = (32, 28, 20),
    spacing_mm: Sequence[float] = (0.9, 1.1, 2.5),
    angles_deg: Sequence[float] = (-12.0, 8.0, 17.0),
    origin_mm: Sequence[float] = (-31.7, 12.3, 44.1),
) -> MetaTensor:
    """Make a volume whose value is x + 2y + 4z HU, with (x, y, z) the voxel centre's LPS position in mm.

    The default is oblique, anisotropic and asymmetric, its values fit the range of CT, and they change by more than
    2 HU/mm along each of its axes.

    Args:
        shape: voxels along I, J, K.
        spacing_mm: voxel size along I, J, K.
        angles_deg: rotation of the grid about the fixed x, y, z axes (RAS), in this order.
        origin_mm: RAS position of the centre of voxel (0, 0, 0).

    Returns:
        (1, I, J, K), float32, not rounded.
    """
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() * np.asarray(spacing_mm)
    affine[:3, 3] = origin_mm
    return volumes.volume(expected_values(shape, affine).astype(np.float32), affine)


def expected_values(shape: Sequence[int], affine: npt.ArrayLike) -> FloatArray:
    """The values that a position phantom has on any grid, sheared ones included.

    This is the oracle: the change from RAS to LPS is written out here, independent of `pipeline.geometry`.

    Args:
        shape: voxels along I, J, K.
        affine: 4 x 4, voxel index to RAS mm.

    Returns:
        (I, J, K), HU.
    """
    a = np.asarray(affine, dtype=np.float64)
    i, j, k = np.meshgrid(*[np.arange(size, dtype=np.float64) for size in shape], indexing="ij")
    x_left = -(a[0, 0] * i + a[0, 1] * j + a[0, 2] * k + a[0, 3])
    y_posterior = -(a[1, 0] * i + a[1, 1] * j + a[1, 2] * k + a[1, 3])
    z_superior = a[2, 0] * i + a[2, 1] * j + a[2, 2] * k + a[2, 3]
    return np.asarray(x_left + 2.0 * y_posterior + 4.0 * z_superior)


def position_error(image: MetaTensor) -> float:
    """The largest absolute difference in HU between a position phantom and what its affine says it should show.

    Args:
        image: (1, I, J, K), RAS.

    Returns:
        The error over all voxels; at most 0.5 (plus float32 rounding) for values that were rounded to integers.
    """
    values = np.asarray(image.numpy()[0], dtype=np.float64)
    expected = expected_values(values.shape, np.asarray(image.affine, dtype=np.float64))
    return float(np.abs(values - expected).max())
