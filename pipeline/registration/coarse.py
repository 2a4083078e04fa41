"""Both images at about 6 mm (a small body finer): a pose is scored in under a millisecond, the best one near it found.

Everything here is in ITK's LPS millimetres, and imports neither torch nor itk: it runs in the registration's child
process. Poses map points of the fixed image to points of the moving image, as ITK's resampling takes them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, apply, lps_affine
from pipeline.registration.similarity import BINS, bin_indices, nmi_of_histogram, robust_limits

COARSE_MM = 6.0
#: So many voxels of a body tell where it lies; one of less than some 0.4 litres is looked at on finer ones.
LEAST_BODY_VOXELS = 2000
#: An axis keeps as many voxels as this, if it has them: a slab of one slice could hardly be turned.
LEAST_ALONG = 4
#: The coarse moving image is interpolated once, to at most this spacing, and then read at the nearest voxel.
LOOKUP_MM = 3.0
MAX_POINTS = 8000
#: Below this fraction of the smaller body a pose compares too little to be scored.
LEAST_OVERLAP = 0.3
#: At 6 mm the search looks this far around first, and ends when it moves by less; or after as many poses.
REACH_MM = 10.0
STILL_MM = 0.3
MOST_POSES = 200


class CoarsePair:
    """Both images at about 6 mm, ready to score poses.

    Args:
        fixed: fixed image.
        moving: moving image.
        fixed_mask: body of the fixed image with a rim of air, on its grid.
        moving_mask: body of the moving image, on its grid.

    Attributes:
        centre: centre of gravity of the fixed body, LPS mm.
        spacing_mm: what the voxels are brought near to, where they are finer.
    """

    def __init__(self, fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image, moving_mask: sitk.Image) -> None:
        self.spacing_mm = coarse_spacing_mm(min(map(body_mm3, (fixed_mask, moving_mask))))
        coarse_fixed, coarse_moving = (shrink(image, self.spacing_mm) for image in (fixed, moving))
        points, values = _masked_points(coarse_fixed, fixed_mask)
        body_points, body_values = _masked_points(coarse_moving, moving_mask)
        step = -(-len(points) // MAX_POINTS)
        self._points = points[::step]
        self._columns = np.ascontiguousarray(self._points.T, np.float32)
        self.centre: FloatArray = self._points.mean(axis=0)
        self._rows = bin_indices(values[::step], robust_limits(values[::step])) * (BINS + 1)
        limits = (float(sitk.GetArrayViewFromImage(coarse_moving).min()), robust_limits(body_values)[1])
        self._lookup = _Lookup(coarse_moving, limits)
        per_point = np.prod(coarse_moving.GetSpacing()) / (np.prod(coarse_fixed.GetSpacing()) * step)
        self._least = LEAST_OVERLAP * min(len(self._points), float(len(body_points) * per_point))
        self._radius_mm = float(np.sqrt(((self._points - self.centre) ** 2).sum(axis=1).mean()))

    def overlap(self, matrix: FloatArray) -> bool:
        """Whether a pose brings enough of the fixed body into the moving image to be scored."""
        return bool((self._lookup.bins(matrix, self._columns) < BINS).sum() >= self._least)

    def score(self, matrix: FloatArray) -> float:
        """Normalised mutual information over the fixed body inside the moving image; -inf for too little overlap."""
        pairs = self._rows + self._lookup.bins(matrix, self._columns)
        counts = np.bincount(pairs, minlength=BINS * (BINS + 1)).reshape(BINS, BINS + 1)[:, :BINS]
        return nmi_of_histogram(counts) if counts.sum() >= max(self._least, 1) else float("-inf")

    def climb(self, matrix: FloatArray) -> tuple[FloatArray, float]:
        """Search for the best pose around one that can be scored.

        Args:
            matrix: 4 x 4; a mirrored one stays mirrored.

        Returns:
            The pose that was found, and its score.

        Source: Nelder and Mead, Comput J 7(4), 1965; it needs no derivatives, and a turn is counted by how far it moves
            the body (mm), as a shift is.
        """

        def moved(numbers: FloatArray) -> FloatArray:
            step = np.eye(4)
            step[:3, :3] = Rotation.from_rotvec(numbers[:3] / self._radius_mm).as_matrix()
            step[:3, 3] = self.centre + numbers[3:] - step[:3, :3] @ self.centre
            return matrix @ step

        scale = self.spacing_mm / COARSE_MM
        simplex = np.vstack([np.zeros(6), scale * REACH_MM * np.eye(6)])
        options = {"initial_simplex": simplex, "xatol": scale * STILL_MM, "fatol": 1e-4, "maxfev": MOST_POSES}
        # 0 is worse than any score: too little overlap
        found = minimize(lambda n: -max(self.score(moved(n)), 0.0), simplex[0], method="Nelder-Mead", options=options)
        return moved(found.x), -float(found.fun)

    def apart_mm(self, a: FloatArray, b: FloatArray) -> float:
        """Mean distance (mm) over the fixed body between where two poses send its points."""
        return float(np.linalg.norm(apply(a, self._points) - apply(b, self._points), axis=1).mean())


class _Lookup:
    """The moving image's bins on a grid of voxels, with a rim that says: outside.

    Args:
        image: the moving image, coarse.
        limits: lower and upper edge of the bins.
    """

    def __init__(self, image: sitk.Image, limits: tuple[float, float]) -> None:
        size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
        parts = np.maximum(1, np.ceil(spacing / LOOKUP_MM)).astype(int)
        self._size = (size - 1) * parts + 1
        grid = (self._size.tolist(), sitk.Transform(), sitk.sitkLinear)
        fine = sitk.Resample(image, *grid, image.GetOrigin(), (spacing / parts).tolist(), image.GetDirection())
        voxels = sitk.GetArrayViewFromImage(fine).transpose(2, 1, 0)
        bins = np.pad(bin_indices(voxels, limits).astype(np.uint8), 1, constant_values=BINS)
        self._bins = bins.ravel()
        self._strides = bins.shape[1] * bins.shape[2], bins.shape[2]
        self._to_index = np.linalg.inv(index_to_world(fine))
        self._to_index[:3, 3] += 1.5  # one for the rim, and a half to round by cutting off

    def bins(self, matrix: FloatArray, points: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """The bins where a pose sends points, (3, N) mm; `BINS` outside the image."""
        onto = (self._to_index @ matrix).astype(np.float32)
        index = onto[:3, :3] @ points + onto[:3, 3:]
        i, j, k = (np.clip(row, 0, size + 1).astype(np.int64) for row, size in zip(index, self._size, strict=True))
        return np.asarray(self._bins[i * self._strides[0] + j * self._strides[1] + k])


def coarse_spacing_mm(smaller_mm3: float) -> float:
    """The voxel size (mm) to search at, by the volume (mm³) of the smaller body."""
    return float(min(COARSE_MM, np.cbrt(smaller_mm3 / LEAST_BODY_VOXELS)))


def body_mm3(mask: sitk.Image) -> float:
    """Volume (mm³) of what a mask covers."""
    return float((sitk.GetArrayViewFromImage(mask) > 0).sum() * np.prod(mask.GetSpacing()))


def shrink(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average blocks of voxels so that each axis comes near to a spacing (mm), or keeps `LEAST_ALONG` voxels.

    Finer grids only, never coarser ones.
    """
    wanted = [max(1, round(spacing_mm / spacing)) for spacing in image.GetSpacing()]
    most = [max(1, size // LEAST_ALONG) for size in image.GetSize()]
    return sitk.BinShrink(image, [min(factors) for factors in zip(wanted, most, strict=True)])


def index_to_world(image: sitk.Image) -> FloatArray:
    """4 x 4, voxel index to LPS mm."""
    return lps_affine(image.GetOrigin(), image.GetSpacing(), image.GetDirection())


def _masked_points(image: sitk.Image, mask: sitk.Image) -> tuple[FloatArray, FloatArray]:
    """World points (N, 3) LPS mm and values (N,) of the voxels that a mask covers; the mask may have another grid."""
    onto = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    inside = sitk.GetArrayViewFromImage(onto) > 0
    points = apply(index_to_world(image), np.argwhere(inside)[:, ::-1].astype(np.float64))
    return points, sitk.GetArrayViewFromImage(image)[inside].astype(np.float64)
