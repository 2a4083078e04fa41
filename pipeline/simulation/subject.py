"""One simulated patient: a head of its own with lesions, how it lies in the CT, and how in the MR."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline import geometry, volumes
from pipeline.errors import CaseError
from pipeline.simulation.head import HEAD_CENTRE_MM, Ellipsoid, HeadTemplate, tissue_fractions
from pipeline.simulation.tissues import TISSUES, Mixture, Sequence, Tissue, attenuation_hu, ct_scan, mr_scan, mr_signal

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
        """Move points (N, 3), mm."""
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


def lesion_labels(lesions: Many[Lesion], points: npt.ArrayLike) -> npt.NDArray[np.uint8]:
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


#: From tissues and their shares (N,) in voxels to the voxels' values (N,).
Look = Callable[[Mixture], FloatArray]

# How far heads lie off the CT's centre and axes, as careful technologists leave them.
_CT_ANGLE_DEG = 4.0
_CT_SHIFT_MM = 20.0
# Voxels are rendered in blocks of about this many, which bounds the memory.
_BLOCK_VOXELS = 500_000
_LANDMARK_STEP_MM = 30.0
_LANDMARK_DEPTH_MM = 3.0


@dataclass(frozen=True)
class Subject:
    """One patient.

    Attributes:
        template: the head that all patients share.
        warp: the patient's own shape: template pose (patient axes, mm) -> MNI point with the same tissue.
        lesions: in MNI space.
        ct_pose: 4 x 4, template pose to CT world, RAS mm.
        ct_to_mr: 4 x 4, CT world to MR world, RAS mm: the true registration.
    """

    template: HeadTemplate
    warp: Warp
    lesions: tuple[Lesion, ...]
    ct_pose: FloatArray
    ct_to_mr: FloatArray

    @property
    def centre_ct(self) -> FloatArray:
        """The middle of the head in CT world, RAS mm, shape (3,)."""
        return geometry.apply(self.ct_pose, [HEAD_CENTRE_MM])[0]

    @property
    def centre_mr(self) -> FloatArray:
        """The middle of the head in MR world, RAS mm, shape (3,)."""
        return geometry.apply(self.ct_to_mr, [self.centre_ct])[0]

    def scan_ct(self, shape: Many[int], affine: npt.ArrayLike, rng: np.random.Generator) -> MetaTensor:
        """A CT image (1, I, J, K) in HU on a grid of CT world (RAS mm): sampled once, blurred, with noise."""
        attenuation = self._render(shape, affine, self.ct_pose, attenuation_hu)
        return volumes.volume(ct_scan(attenuation, rng), affine)

    def scan_mr(
        self, shape: Many[int], affine: npt.ArrayLike, sequence: Sequence, rng: np.random.Generator
    ) -> MetaTensor:
        """An MR image (1, I, J, K) on a grid of MR world (RAS mm): sampled once, with bias and Rician noise."""
        signal = self._render(shape, affine, self.ct_to_mr @ self.ct_pose, partial(mr_signal, sequence=sequence))
        return volumes.volume(mr_scan(signal, rng), affine)

    def labels_ct(self, shape: Many[int], affine: npt.ArrayLike) -> MetaTensor:
        """Lesions (1) and background (0) on a grid of CT world, (1, I, J, K), uint8."""
        labels = [lesion_labels(self.lesions, points) for points in self._anatomy(shape, affine, self.ct_pose)]
        return volumes.volume(np.concatenate(labels).reshape(shape), affine)

    def anatomy_ct(self, shape: Many[int], affine: npt.ArrayLike) -> MetaTensor:
        """Lesions (2), what else lies within the brain's smoothed surface (1), and background, as `labels_ct`."""
        labels = [
            np.maximum(self.template.brain_distance_mm(points) < 0, 2 * lesion_labels(self.lesions, points))
            for points in self._anatomy(shape, affine, self.ct_pose)
        ]
        return volumes.volume(np.concatenate(labels).reshape(shape), affine)

    def landmarks_ct(self) -> FloatArray:
        """The same anatomical points in every patient, a lattice in the brain: in CT world, (N, 3), RAS mm."""
        axis = np.arange(-120.0, 121.0, _LANDMARK_STEP_MM)
        lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        inside = self.template.brain_distance_mm(lattice) < -_LANDMARK_DEPTH_MM
        return geometry.apply(self.ct_pose, self.warp.inverse(lattice[inside]))

    def _anatomy(self, shape: Many[int], affine: npt.ArrayLike, pose: FloatArray) -> Iterator[FloatArray]:
        """MNI points (N, 3) of a grid's voxels, block by block: through grid, pose and warp in one go."""
        matrix = np.linalg.inv(pose) @ np.asarray(affine, dtype=np.float64)
        for planes in np.array_split(np.arange(shape[0]), math.ceil(math.prod(shape) / _BLOCK_VOXELS)):
            index = np.stack(np.meshgrid(planes, *map(np.arange, shape[1:]), indexing="ij"), axis=-1)
            yield self.warp(geometry.apply(matrix, index.reshape(-1, 3)))

    def _render(self, shape: Many[int], affine: npt.ArrayLike, pose: FloatArray, look: Look) -> FloatArray:
        """An image (I, J, K) of how the mixture of tissues in each voxel looks, before any scanner."""
        edge_mm = _edge_mm(affine)
        blocks = [look(self._mixture(points, edge_mm)) for points in self._anatomy(shape, affine, pose)]
        return np.concatenate(blocks).reshape(shape)

    def _mixture(self, points: FloatArray, edge_mm: float) -> list[tuple[Tissue, FloatArray]]:
        healthy = tissue_fractions(self.template, points, edge_mm)
        ill = [(lesion.tissue, lesion_shares(lesion, points, edge_mm)) for lesion in self.lesions]
        rest = 1.0 - sum((share for _, share in ill), np.zeros(len(points)))
        return [*((TISSUES[name], share * rest) for name, share in healthy.items()), *ill]


def random_subject(
    template: HeadTemplate, rng: np.random.Generator, max_angle_deg: float, max_shift_mm: float, lesions: int
) -> Subject:
    """Draw a patient.

    Args:
        template: the head.
        rng: the source of chance.
        max_angle_deg: the MR head is turned about the head's middle by up to this about each axis against the CT head.
        max_shift_mm: and its middle is moved by up to this along each axis.
        lesions: how many lesions.
    """
    warp = random_warp(rng)
    ct_pose = random_rigid(rng, np.asarray(HEAD_CENTRE_MM), _CT_ANGLE_DEG, _CT_SHIFT_MM)
    centre_ct = geometry.apply(ct_pose, [HEAD_CENTRE_MM])[0]
    ct_to_mr = random_rigid(rng, centre_ct, max_angle_deg, max_shift_mm)
    return Subject(template, warp, random_lesions(template, rng, lesions), ct_pose, ct_to_mr)


def random_rigid(
    rng: np.random.Generator, centre_mm: npt.ArrayLike, max_angle_deg: float, max_shift_mm: float
) -> FloatArray:
    """A 4 x 4 rigid motion: uniform angles about each axis through the centre, then uniform shifts along each axis."""
    centre = np.asarray(centre_mm, dtype=np.float64)
    matrix = np.eye(4)
    angles = rng.uniform(-max_angle_deg, max_angle_deg, 3)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + rng.uniform(-max_shift_mm, max_shift_mm, 3)
    return matrix


def _edge_mm(affine: npt.ArrayLike) -> float:
    """The voxel's size as one number: the side of the cube of the same volume."""
    return float(np.abs(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3])) ** (1 / 3))
