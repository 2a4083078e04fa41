"""Where to start a rigid registration: many poses scored by mutual information at about 6 mm, the best few kept.

Everything here is in ITK's LPS millimetres, and imports neither torch nor itk: it runs in the registration's child
process. Poses map points of the fixed image to points of the moving image, as ITK's resampling takes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from pipeline.registration.similarity import SampledPair, apply, robust_limits

FloatArray = npt.NDArray[np.float64]

COARSE_MM = 6.0
MAX_POINTS = 8000
#: A start is refined from at most 10 degrees away from the next of these on each axis.
WIDE_DEGREES = (-40.0, -20.0, 0.0, 20.0, 40.0)
NEAR_DEGREES = (-15.0, 0.0, 15.0)
#: Two starts closer than this (mean over the body) count as one.
APART_MM = 10.0
#: Below this fraction of the smaller body a pose compares too little to be scored.
LEAST_OVERLAP = 0.3


@dataclass(frozen=True)
class Start:
    """A pose to start from.

    Attributes:
        name: where it comes from.
        matrix: 4 x 4 LPS, mm, from fixed to moving points.
        score: normalised mutual information at about 6 mm.
        number: its rank among the chosen starts.
    """

    name: str
    matrix: FloatArray
    score: float = float("nan")
    number: int = 0


class CoarsePair:
    """Both images at about 6 mm, ready to score poses.

    Args:
        fixed: fixed image.
        moving: moving image.
        fixed_mask: body of the fixed image with a rim of air, on its grid.
        moving_mask: body of the moving image, on its grid.
    """

    def __init__(self, fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image, moving_mask: sitk.Image) -> None:
        coarse_fixed, coarse_moving = shrink(fixed, COARSE_MM), shrink(moving, COARSE_MM)
        points, values = _masked_points(coarse_fixed, fixed_mask)
        body_points, body_values = _masked_points(coarse_moving, moving_mask)
        step = -(-len(points) // MAX_POINTS)
        voxels = sitk.GetArrayFromImage(coarse_moving).astype(np.float32).transpose(2, 1, 0)
        limits = (float(voxels.min()), robust_limits(body_values)[1])
        self._pair = SampledPair(points[::step], values[::step], voxels, _index_to_world(coarse_moving), limits)
        per_point = np.prod(coarse_moving.GetSpacing()) / (np.prod(coarse_fixed.GetSpacing()) * step)
        self._least = LEAST_OVERLAP * min(len(self._pair.points), float(len(body_points) * per_point))

    @property
    def centre(self) -> FloatArray:
        """Centre of gravity of the fixed body, LPS mm."""
        return np.asarray(self._pair.points.mean(axis=0))

    def overlap(self, matrix: FloatArray) -> bool:
        """Whether a pose brings enough of the fixed body into the moving image to be scored."""
        return bool(self._pair.inside(matrix).sum() >= self._least)

    def score(self, matrix: FloatArray) -> float:
        """Normalised mutual information over the fixed body inside the moving image; -inf for too little overlap."""
        score = self._pair.score(matrix, self._least)
        return float("-inf") if score is None else score

    def apart_mm(self, a: FloatArray, b: FloatArray) -> float:
        """Mean distance (mm) over the fixed body between where two poses send its points."""
        return float(np.linalg.norm(apply(a, self._pair.points) - apply(b, self._pair.points), axis=1).mean())


def best_starts(
    pair: CoarsePair, fixed_mask: sitk.Image, moving_mask: sitk.Image, count: int, known: Sequence[Start] = ()
) -> list[Start]:
    """Choose the poses that are worth refining.

    Args:
        pair: scores the poses.
        fixed_mask: body of the fixed image.
        moving_mask: body of the moving image.
        count: how many to keep at most.
        known: poses that someone has given, such as the landmarks'.

    Returns:
        At most `count`, at least `APART_MM` from each other, best first; what is known and the headers' alignment are
        always among them where both images overlap there. Empty when no pose has enough overlap.
    """
    poses = [*known, *candidates(pair, fixed_mask, moving_mask)]
    scored = [replace(s, score=pair.score(s.matrix)) for s in poses]
    first = [*(s.name for s in known), "header"]
    ranked = sorted((s for s in scored if np.isfinite(s.score)), key=lambda s: (_rank(s.name, first), -s.score))
    kept: list[Start] = []
    for start in ranked:
        if len(kept) < count and all(pair.apart_mm(start.matrix, other.matrix) >= APART_MM for other in kept):
            kept.append(start)
    kept.sort(key=lambda s: -s.score)
    return [replace(start, number=number) for number, start in enumerate(kept)]


def _rank(name: str, first: Sequence[str]) -> int:
    return first.index(name) if name in first else len(first)


def candidates(pair: CoarsePair, fixed_mask: sitk.Image, moving_mask: sitk.Image) -> Iterator[Start]:
    """All poses to score: the headers' own and near it; 125 rotations about centres of gravity and of the boxes."""
    middle = pair.centre
    identity = np.eye(4)
    if pair.overlap(identity):
        yield Start("header", identity)
        for rotation in _rotations(NEAR_DEGREES):
            yield Start("header, turned", _pose(rotation, middle, middle))
    for name, centre in (("centre of gravity", _gravity), ("centre of the box", _box_centre)):
        fixed_centre, moving_centre = centre(fixed_mask), centre(moving_mask)
        for rotation in _rotations(WIDE_DEGREES):
            yield Start(name, _pose(rotation, fixed_centre, moving_centre))


def shrink(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average blocks of voxels so that each axis comes near to a spacing (mm); finer grids only, never coarser."""
    wanted = [max(1, round(spacing_mm / spacing)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, [min(factor, size) for factor, size in zip(wanted, image.GetSize(), strict=True)])


def _rotations(degrees: Sequence[float]) -> Iterator[FloatArray]:
    for angles in itertools.product(degrees, repeat=3):
        yield Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


def _pose(rotation: FloatArray, fixed_centre: FloatArray, moving_centre: FloatArray) -> FloatArray:
    """Turn about the fixed centre, then bring it onto the moving centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = moving_centre - rotation @ fixed_centre
    return matrix


def _gravity(mask: sitk.Image) -> FloatArray:
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0).mean(axis=0)[::-1]
    return np.array(mask.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def _box_centre(mask: sitk.Image) -> FloatArray:
    inside = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)
    index = (inside.min(axis=0) + inside.max(axis=0))[::-1] / 2
    return np.array(mask.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def _masked_points(image: sitk.Image, mask: sitk.Image) -> tuple[FloatArray, FloatArray]:
    """World points (N, 3) LPS mm and values (N,) of the voxels that a mask covers; the mask may have another grid."""
    onto = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    inside = sitk.GetArrayViewFromImage(onto) > 0
    points = apply(_index_to_world(image), np.argwhere(inside)[:, ::-1].astype(np.float64))
    return points, sitk.GetArrayViewFromImage(image)[inside].astype(np.float64)


def _index_to_world(image: sitk.Image) -> FloatArray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix
