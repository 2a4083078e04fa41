"""An oblique, anisotropic, asymmetric head of nested ellipsoids: scalp, skull, grey matter, white matter, ventricle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline import volumes

SHAPE = (100, 104, 62)
SPACING_MM = np.array([1.9, 2.1, 3.0])
#: centre and half axes (RAS mm), signal as T1: from the outside in, each over the one before.
TISSUES = {
    "scalp": ((4.0, -3.0, 2.0), (78.0, 92.0, 76.0), 1.2),
    "skull": ((4.0, -3.0, 2.0), (73.0, 87.0, 71.0), 0.1),
    "grey": ((4.0, -3.0, 2.0), (67.0, 81.0, 65.0), 0.75),
    "white": ((7.0, -6.0, 4.0), (57.0, 70.0, 54.0), 1.0),
    "ventricle": ((-12.0, 10.0, 8.0), (12.0, 22.0, 10.0), 0.3),
}


def oblique_affine(shape: tuple[int, ...], spacing_mm: np.ndarray) -> np.ndarray:
    """Turned about all three axes, with the grid's centre at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [9, -7, 12], degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def world(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """RAS position of each voxel, (3, I, J, K), mm."""
    return np.einsum("ab,bijk->aijk", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]


def ellipsoid(points: np.ndarray, centre: tuple[float, ...], half_axes: tuple[float, ...]) -> np.ndarray:
    offset = (points - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(half_axes, (3, 1, 1, 1))
    return (offset**2).sum(axis=0) <= 1


@dataclass(frozen=True)
class Head:
    clean: np.ndarray  # signal from 0 to 400
    body: np.ndarray
    white: np.ndarray
    points: np.ndarray
    affine: np.ndarray

    def image(self, array: np.ndarray) -> MetaTensor:
        return volumes.volume(array.astype(np.float32), self.affine)

    def scanned(self, field: np.ndarray | float = 1.0, noise: float = 12.0) -> MetaTensor:
        """A magnitude image: the signal times a bias field, with Rician noise."""
        rng = np.random.default_rng(20)
        real, imaginary = rng.normal(0.0, noise, (2, *self.clean.shape))
        return self.image(np.hypot(self.clean * field + real, imaginary))

    def bias(self, strength: float) -> np.ndarray:
        """A smooth field, 1 - strength to 1 + strength over the head."""
        x, y, z = self.points / 100.0
        raw = 0.8 * x - 0.5 * y + 0.6 * z + 0.7 * x * y - 0.5 * z**2
        low, high = raw[self.body].min(), raw[self.body].max()
        return 1 + strength * (2 * (raw - low) / (high - low) - 1)


def make_head() -> Head:
    affine = oblique_affine(SHAPE, SPACING_MM)
    points = world(SHAPE, affine)
    signal = np.zeros(SHAPE)
    for centre, half_axes, value in TISSUES.values():
        signal[ellipsoid(points, centre, half_axes)] = value
    inside = {name: ellipsoid(points, centre, half_axes) for name, (centre, half_axes, _) in TISSUES.items()}
    white = ndimage.binary_erosion(inside["white"] & ~inside["ventricle"], iterations=2)
    return Head(400 * ndimage.gaussian_filter(signal, 0.6), inside["scalp"], white, points, affine)
