"""A random smooth deformation that makes every simulated head another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

#: The control points reach this far from the origin in every direction.
_REACH_MM = 200.0


@dataclass(frozen=True)
class Warp:
    """A displacement field of cubic B-splines on a cubic control grid centred on the origin.

    Attributes:
        coefficients_mm: shape (3, n, n, n), displacement along x, y, z, mm.
        spacing_mm: distance between control points.
    """

    coefficients_mm: FloatArray
    spacing_mm: float

    def __call__(self, points: npt.ArrayLike) -> FloatArray:
        """Move points.

        Args:
            points: (N, 3), mm.

        Returns:
            (N, 3), mm.
        """
        start = np.asarray(points, dtype=np.float64)
        centre = (self.coefficients_mm.shape[1] - 1) / 2.0
        index = start.T / self.spacing_mm + centre
        # prefilter=False: these are B-spline coefficients already, not samples to interpolate.
        moves = [
            ndimage.map_coordinates(axis, index, order=3, mode="nearest", prefilter=False)
            for axis in self.coefficients_mm
        ]
        return np.asarray(start + np.stack(moves, axis=1))

    def inverse(self, points: npt.ArrayLike, iterations: int = 30) -> FloatArray:
        """Find the points that the warp moves to the given ones, by fixed-point iteration.

        Args:
            points: (N, 3), mm.
            iterations: each one shrinks the error by the field's steepest slope, about 0.3.

        Returns:
            (N, 3), mm.
        """
        target = np.asarray(points, dtype=np.float64)
        guess = target.copy()
        for _ in range(iterations):
            guess = guess - (self(guess) - target)
        return guess


def random_warp(rng: np.random.Generator, spacing_mm: float = 40.0, displacement_mm: float = 3.0) -> Warp:
    """Draw a warp.

    Args:
        rng: the source of chance.
        spacing_mm: distance between control points.
        displacement_mm: standard deviation of the displacement along each axis.

    Returns:
        The warp. Independent coefficients of standard deviation s give a field of standard deviation about 0.33 s:
        the cubic B-spline's squares sum to 151/315 on average over a cell, to the power 3/2 in three dimensions.
    """
    count = 2 * int(np.ceil(_REACH_MM / spacing_mm)) + 1
    scale = displacement_mm / (151.0 / 315.0) ** 1.5
    return Warp(rng.normal(0.0, scale, (3, count, count, count)), spacing_mm)
