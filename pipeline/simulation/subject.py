"""One simulated patient: a head of its own, how it lies in the CT, and how in the MR."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline import geometry, volumes
from pipeline.simulation.head import HEAD_CENTRE_MM, HeadTemplate, tissue_fractions
from pipeline.simulation.lesions import Lesion, lesion_labels, lesion_shares, random_lesions
from pipeline.simulation.tissues import TISSUES, Mixture, Sequence, Tissue, attenuation_hu, ct_scan, mr_scan, mr_signal
from pipeline.simulation.warp import Warp, random_warp

FloatArray = npt.NDArray[np.float64]
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
