"""An analytic head that looks different in CT and MR: asymmetric, on oblique and anisotropic grids, in known poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, apply
from pipeline.volumes import affine_of, volume

# centre (mm, RAS), radii (mm), angles (degrees), CT (HU), MR: later ones lie over earlier ones.
SHAPES = (
    ((0, 0, 0), (78, 96, 86), (0, 0, 0), -90.0, 900.0),  # scalp
    ((0, 0, 1), (73, 91, 81), (0, 0, 0), 60.0, 350.0),  # muscle
    ((0, 0, 3), (69, 87, 77), (0, 0, 0), 1100.0, 40.0),  # skull
    ((0, 0, 4), (62, 80, 70), (0, 0, 0), 38.0, 420.0),  # gray matter
    ((2, 3, 10), (50, 66, 52), (8, 0, 5), 30.0, 620.0),  # white matter
    ((12, 6, 16), (9, 30, 12), (0, 10, 15), 8.0, 130.0),  # the right ventricle is larger
    ((-11, 0, 14), (7, 22, 9), (0, -10, -20), 8.0, 130.0),
    ((22, 34, 22), (12, 9, 14), (20, 0, 0), 55.0, 820.0),  # lesion
    ((-20, -50, -30), (22, 16, 14), (0, 0, 10), 42.0, 500.0),  # cerebellum, left only
    ((-30, 78, -18), (13, 13, 13), (0, 0, 0), 15.0, 150.0),  # eyes
    ((28, 79, -18), (13, 13, 13), (0, 0, 0), 15.0, 150.0),
    ((0, 98, -30), (10, 18, 14), (-20, 0, 0), 20.0, 500.0),  # nose
    ((3, 62, -42), (14, 22, 12), (0, 0, 0), -950.0, 5.0),  # sinus
    ((-80, -6, -14), (6, 14, 20), (0, 0, 15), 20.0, 450.0),  # one ear
)
AIR = {"CT": -1000.0, "MR": 0.0}


@dataclass(frozen=True)
class HeadPair:
    """A CT and an MR of one head, and the true 4 x 4 RAS matrix from CT to MR points."""

    ct: MetaTensor
    mr: MetaTensor
    truth: FloatArray

    def errors_mm(self, matrix: FloatArray) -> FloatArray:
        """Target registration error (mm) at points of the head."""
        points = apply(affine_of(self.ct), np.argwhere(self.ct.numpy()[0] > -300)[::7])
        return np.asarray(np.linalg.norm(apply(matrix, points) - apply(self.truth, points), axis=1))


def rigid(angles_deg: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> FloatArray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def oblique_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    angles_deg: tuple[float, float, float],
    centre_mm: tuple[float, float, float],
) -> FloatArray:
    """Affine of a turned grid around a centre; its first axis runs to the left, as in DICOM."""
    affine = rigid(angles_deg, (0, 0, 0)) @ np.diag([-spacing_mm[0], spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def scan(modality: str, shape: tuple[int, int, int], affine: FloatArray, pose: FloatArray, seed: int) -> MetaTensor:
    """Image the head on a grid; `pose` maps the grid's world to the head's own. Partial volume by 2 x 2 x 2 points."""
    index = np.indices(shape).reshape(3, -1).T.astype(float)
    values = np.zeros(len(index))
    for offset in np.array(np.meshgrid(*[(-0.25, 0.25)] * 3)).reshape(3, -1).T:
        values += _paint(apply(pose @ affine, index + offset), modality) / 8
    rng = np.random.default_rng(seed)
    image = values.reshape(shape)
    if modality == "CT":
        return volume((image + rng.normal(0, 12, shape)).astype(np.float32), affine)
    bias = 1 + 0.2 * np.linspace(-1, 1, shape[0])[:, None, None] - 0.15 * np.linspace(-1, 1, shape[1])[None, :, None]
    noisy = np.hypot(image * bias + rng.normal(0, 20, shape), rng.normal(0, 20, shape))
    return volume(noisy.astype(np.float32), affine)


def head_pair(angles_deg: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> HeadPair:
    """A pair at about 4 mm: the MR head is turned and moved against the CT head."""
    truth = rigid(angles_deg, shift_mm)
    ct_shape, mr_shape = (48, 56, 42), (54, 46, 56)
    ct_affine = oblique_grid(ct_shape, (3.8, 4.0, 4.6), (5, -8, 12), (3, -4, 2))
    mr_affine = oblique_grid(
        mr_shape, (4.0, 4.4, 3.8), (-7, 4, -6), (-5 + shift_mm[0], 8 + shift_mm[1], 3 + shift_mm[2])
    )
    ct = scan("CT", ct_shape, ct_affine, np.eye(4), seed=1)
    return HeadPair(ct, scan("MR", mr_shape, mr_affine, np.linalg.inv(truth), seed=2), truth)


def _paint(points: FloatArray, modality: str) -> FloatArray:
    values = np.full(len(points), AIR[modality])
    for centre, radii, angles_deg, hounsfield, signal in SHAPES:
        turned = (points - np.array(centre)) @ rigid(angles_deg, (0, 0, 0))[:3, :3] / np.array(radii)
        values[(turned**2).sum(axis=1) < 1] = hounsfield if modality == "CT" else signal
    return values
