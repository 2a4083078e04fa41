"""Where to start a rigid registration: many poses scored by mutual information at about 6 mm, the best few kept.

Everything here is in ITK's LPS millimetres. Poses map points of the fixed image to points of the moving image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray
from pipeline.registration.coarse import CoarsePair

#: A start is searched from at most 10 degrees away from the next of these on each axis.
WIDE_DEGREES = (-40.0, -20.0, 0.0, 20.0, 40.0)
NEAR_DEGREES = (-15.0, 0.0, 15.0)
#: Two starts closer than this (mean over the body) count as one.
APART_MM = 10.0


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
    names = "centre of gravity", "centre of the box"
    for name, fixed_centre, moving_centre in zip(names, _centres(fixed_mask), _centres(moving_mask), strict=True):
        for rotation in _rotations(WIDE_DEGREES):
            yield Start(name, _pose(rotation, fixed_centre, moving_centre))


def _rotations(degrees: Sequence[float]) -> Iterator[FloatArray]:
    for angles in itertools.product(degrees, repeat=3):
        yield Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


def _pose(rotation: FloatArray, fixed_centre: FloatArray, moving_centre: FloatArray) -> FloatArray:
    """Turn about the fixed centre, then bring it onto the moving centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = moving_centre - rotation @ fixed_centre
    return matrix


def _centres(mask: sitk.Image) -> tuple[FloatArray, FloatArray]:
    """Centre of gravity of a body, and centre of the box around it; LPS mm."""
    inside = sitk.GetArrayViewFromImage(mask) > 0
    gravity, box = [], []
    for axes in ((0, 1), (0, 2), (1, 2)):  # the array runs along z, y, x
        profile = inside.sum(axis=axes)
        gravity.append(float(np.average(np.arange(len(profile)), weights=profile)))
        box.append(float(np.flatnonzero(profile)[[0, -1]].mean()))
    points = (mask.TransformContinuousIndexToPhysicalPoint(index) for index in (gravity, box))
    first, second = map(np.array, points)
    return first, second
