"""Lesions with known borders, placed at random in the white matter of the simulated head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline import geometry
from pipeline.errors import CaseError
from pipeline.simulation.ellipsoids import Ellipsoid
from pipeline.simulation.head import HeadTemplate
from pipeline.simulation.tissues import TISSUES, Tissue

FloatArray = npt.NDArray[np.float64]

#: Semi-axes of a lesion, mm.
RADII_MM = (5.0, 11.0)
#: How far a lesion's attenuation departs from white matter's, up or down.
CONTRAST_HU = (15.0, 30.0)
_WHITE_SHARE = 0.9
_DEPTH_MM = 12.0
_APART_MM = 5.0


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid of a tissue of its own, in MNI space."""

    shape: Ellipsoid
    tissue: Tissue


def random_lesions(template: HeadTemplate, rng: np.random.Generator, count: int) -> tuple[Lesion, ...]:
    """Draw lesions that do not touch, with centres deep in the white matter.

    Args:
        template: the head.
        rng: the source of chance.
        count: how many.

    Raises:
        CaseError: E_INPUT when so many do not fit.
    """
    white = geometry.apply(template.white.affine, np.argwhere(template.white.values >= _WHITE_SHARE))
    seats = rng.permutation(white[template.brain_distance_mm(white) <= -_DEPTH_MM])
    lesions: list[Lesion] = []
    for seat in seats:
        if len(lesions) == count:
            break
        if all(np.linalg.norm(seat - other.shape.centre_mm) > 2 * RADII_MM[1] + _APART_MM for other in lesions):
            lesions.append(_random_lesion(seat, rng))
    if len(lesions) < count:
        raise CaseError("E_INPUT", f"Expected room for {count} lesions in the white matter, got {len(lesions)}.")
    return tuple(lesions)


def lesion_labels(lesions: Sequence[Lesion], points: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """1 where a point (N, 3) lies in a lesion, 0 elsewhere; shape (N,)."""
    labels = np.zeros(len(np.asarray(points)), dtype=np.uint8)
    for lesion in lesions:
        labels[lesion.shape.distance_mm(points) <= 0] = 1
    return labels


def lesion_shares(lesion: Lesion, points: npt.ArrayLike, edge_mm: float) -> FloatArray:
    """What share of a voxel of size `edge_mm` at each point (N, 3) the lesion fills; shape (N,)."""
    return np.clip(0.5 - lesion.shape.distance_mm(points) / edge_mm, 0.0, 1.0)


def _random_lesion(centre_mm: FloatArray, rng: np.random.Generator) -> Lesion:
    radii, angles = rng.uniform(*RADII_MM, 3), rng.uniform(0.0, 180.0, 3)
    hu = TISSUES["white"].hu + rng.choice([-1.0, 1.0]) * rng.uniform(*CONTRAST_HU)
    # More water than white matter: darker in T1, brighter in T2 weighting.
    tissue = Tissue(hu, rng.uniform(0.85, 0.95), rng.uniform(1100.0, 1600.0), rng.uniform(110.0, 180.0))
    return Lesion(Ellipsoid(_triple(centre_mm), _triple(radii), _triple(angles)), tissue)


def _triple(values: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
