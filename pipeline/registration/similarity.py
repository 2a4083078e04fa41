"""How much two images tell about each other: normalised mutual information. Imports neither torch nor itk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.geometry import FloatArray, apply

#: A 4 x 4 matrix, or a function of points (N, 3), from fixed to moving world, mm.
Pose = FloatArray | Callable[[FloatArray], FloatArray]
BINS = 32


def bin_indices(values: npt.ArrayLike, limits: tuple[float, float], bins: int = BINS) -> npt.NDArray[np.int64]:
    """Put values into equally wide bins.

    Args:
        values: any shape; what lies outside the limits goes into the first or last bin.
        limits: lower edge of the first and upper edge of the last bin.
        bins: how many.

    Returns:
        Bin numbers from 0 to bins - 1, the shape of `values`; all 0 when the limits are equal.
    """
    low, high = limits
    scaled = (np.asarray(values, np.float64) - low) * (bins / (high - low) if high > low else 0.0)
    return np.clip(scaled, 0, bins - 1).astype(np.int64)


def robust_limits(values: npt.ArrayLike) -> tuple[float, float]:
    """The 0.5th and 99.5th percentile: a few hot voxels (metal, vessels) must not squeeze all tissue into one bin."""
    low, high = np.percentile(np.asarray(values, np.float64), [0.5, 99.5])
    return float(low), float(high)


def normalised_mutual_information(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], bins: int = BINS) -> float:
    """Normalised mutual information (H(A) + H(B)) / H(A, B) of paired bin numbers.

    Args:
        a: bin numbers of one image at N points, shape (N,), 0 to bins - 1.
        b: bin numbers of the other image at the same points.
        bins: how many bins each image has.

    Returns:
        1 when the two are independent, 2 when each determines the other; 1 when both are constant.

    Source: Studholme, Hill and Hawkes, Pattern Recognition 32(1), 1999.
    """
    return nmi_of_histogram(np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins))


def nmi_of_histogram(counts: npt.NDArray[np.int64]) -> float:
    """Normalised mutual information of a joint histogram, shape (bins, bins); see `normalised_mutual_information`."""
    joint = counts / counts.sum()
    together = _entropy(joint)
    return (_entropy(joint.sum(1)) + _entropy(joint.sum(0))) / together if together > 0 else 1.0


def _entropy(probabilities: FloatArray) -> float:
    present = probabilities[probabilities > 0]
    return float(-(present * np.log(present)).sum())


class SampledPair:
    """A fixed image at points of its body, and a moving image to be read there for any pose.

    World coordinates may be RAS or LPS, as long as all arguments agree.

    Args:
        points: world positions in the fixed image, shape (N, 3), mm.
        fixed_values: the fixed image at the points, shape (N,).
        moving: the moving image's voxels along I, J, K.
        moving_affine: 4 x 4, the moving image's voxel index to world, mm.
        moving_limits: lower and upper edge of the bins for the moving image.
    """

    def __init__(
        self,
        points: FloatArray,
        fixed_values: FloatArray,
        moving: npt.NDArray[np.float32],
        moving_affine: FloatArray,
        moving_limits: tuple[float, float],
    ) -> None:
        self.points = points
        self.fixed_bins = bin_indices(fixed_values, robust_limits(fixed_values))
        self._moving = moving
        self.to_index: FloatArray = np.asarray(np.linalg.inv(moving_affine), np.float64)
        self._limits = moving_limits

    def inside(self, pose: Pose) -> npt.NDArray[np.bool_]:
        """Which of the points, shape (N,), a pose brings into the moving image."""
        return self._inside(self._indices(pose))

    def moving_bins(
        self, pose: Pose, shifts: FloatArray | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The moving image where a pose sends the points.

        Args:
            pose: see `Pose`.
            shifts: how far each point is moved before, shape (N, 3), mm.

        Returns:
            Bin numbers (N,), and which points (N,) lie inside the moving image: the others' bins mean nothing.
        """
        indices = self._indices(pose, shifts)
        values = ndimage.map_coordinates(self._moving, indices.T, order=1, mode="nearest")
        return bin_indices(values, self._limits), self._inside(indices)

    def score(self, pose: Pose, least: float = 1) -> float | None:
        """Normalised mutual information at the points inside the moving image.

        Args:
            pose: see `Pose`.
            least: how many points have to lie inside.

        Returns:
            From 1 to 2, or None when fewer points than `least` lie inside.
        """
        indices = self._indices(pose)
        inside = self._inside(indices)
        if inside.sum() < max(least, 1):
            return None
        values = ndimage.map_coordinates(self._moving, indices[inside].T, order=1)
        return normalised_mutual_information(self.fixed_bins[inside], bin_indices(values, self._limits))

    def _indices(self, pose: Pose, shifts: FloatArray | None = None) -> FloatArray:
        points = self.points if shifts is None else self.points + shifts
        if callable(pose):
            return apply(self.to_index, pose(points))
        return apply(np.asarray(self.to_index @ pose, np.float64), points)

    def _inside(self, indices: FloatArray) -> npt.NDArray[np.bool_]:
        return np.asarray(((indices >= 0) & (indices <= np.array(self._moving.shape) - 1)).all(axis=1))
