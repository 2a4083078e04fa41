"""Ellipsoids: the shape of lesions and of the head's simple parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid.

    Attributes:
        centre_mm: x, y, z.
        radii_mm: semi-axes.
        angles_deg: rotation about the fixed x, y, z axes, in this order.
    """

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def distance_mm(self, points: npt.ArrayLike) -> FloatArray:
        """Distance from the surface, negative inside: exact on the surface, to first order near it.

        Args:
            points: (N, 3), mm.

        Returns:
            (N,), mm.

        Source: G. Taubin, "Distance approximations for rasterizing implicit curves", ACM TOG 1994: f / |grad f|
            with f = |q| - 1.
        """
        rotation = Rotation.from_euler("xyz", self.angles_deg, degrees=True).as_matrix()
        local = (np.asarray(points, dtype=np.float64) - self.centre_mm) @ rotation
        scaled = local / self.radii_mm
        steep = scaled / self.radii_mm
        length, slope = (np.sqrt(np.einsum("nd,nd->n", vector, vector)) for vector in (scaled, steep))
        centre = slope == 0  # at the very centre the gradient vanishes; the distance is the smallest semi-axis
        near = length * (length - 1.0) / np.where(centre, 1.0, slope)
        return np.asarray(np.where(centre, -min(self.radii_mm), near))
