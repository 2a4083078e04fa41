"""Image and mask as another scan and another reader might have given them: turned, shifted, noisier, drawn otherwise.

Source: Zwanenburg et al. 2019, Scientific Reports 9:614, "Assessing robustness of radiomic features by image
perturbation". There features that were robust to rotation, volume and contour together (RVC) were robust between test
and retest, too. Here a version is interpolated once; mask and noise are changed on the image's own grid before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, model_validator
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.geometry import check_affine, spacing_mm
from pipeline.radiomics.levels import Array, Floats
from pipeline.radiomics.prepare import HALF, Mask, slice_axis
from pipeline.radiomics.spatial import PEAK_RADIUS_MM
from pipeline.spec.explain import Model

Change = Literal["rotation", "translation", "noise", "volume", "contour"]
#: A supervoxel with this part of it in the region always stays, and with less than the lower one never.
ALWAYS, NEVER = 0.9, 0.2
#: Supervoxels have so many voxels at least.
SUPERVOXEL_VOXELS = 20
#: A region of fewer supervoxels is another one after its contour was randomised.
FEW_SUPERVOXELS = 20
#: A normal distribution's quartile: the median of its absolute values, in standard deviations.
_MEDIAN = 0.6745
#: Around what is asked for, voxels.
_SPARE = 3


class Perturbations(Model):
    """What is done to image and mask, how far, and how often.

    Attributes:
        chain: what is done to each version, all of it together.
        versions: how many there are; each parameter has as many values, spread evenly over its range.
        rotation_deg: about the axis across the slices, up to so much to either side.
        translation_voxels: along each axis, up to so much to either side.
        noise: normal, of so many times the standard deviation that the image's own noise has.
        volume_fraction: the region grows or shrinks by up to so much of its volume.
        supervoxel_mm3: of the parts that a randomised contour takes or leaves; the source has 250, for tumours of some
            centilitres.
        seed: of the chance.
    """

    chain: tuple[Change, ...] = ("rotation", "volume", "contour")
    versions: int = Field(default=10, ge=2, le=1000)
    rotation_deg: float = Field(default=10.0, ge=0, le=45)
    translation_voxels: float = Field(default=0.5, ge=0, le=2)
    noise: FiniteFloat = Field(default=1.0, ge=0)
    volume_fraction: float = Field(default=0.2, ge=0, lt=1)
    supervoxel_mm3: FiniteFloat = Field(default=250.0, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.chain)) < len(self.chain):
            raise ValueError(f"each change can be made once, got {', '.join(self.chain)}")
        return self

    def is_coarse_for(self, volume_mm3: float) -> bool:
        """Whether a region has so few supervoxels that its randomised contours say little of it."""
        return "contour" in self.chain and volume_mm3 < FEW_SUPERVOXELS * self.supervoxel_mm3


@dataclass(frozen=True, eq=False)
class Version:
    """A perturbed region with what is around it.

    Attributes:
        image: (I, J, K) float64, a part of the image.
        mask: (I, J, K) uint8, 1 in the region.
        affine: 4 x 4, RAS mm.
    """

    image: Floats
    mask: npt.NDArray[np.uint8]
    affine: Floats


def perturbed(
    image: Array, mask: Array, affine: npt.ArrayLike, perturbations: Perturbations, label: int = 1
) -> list[Version]:
    """Perturb a region; the same image, mask and description always give the same versions.

    Args:
        image: (I, J, K).
        mask: (I, J, K), with at least one voxel of the label.
        affine: 4 x 4, RAS mm.
        perturbations: what is done.
        label: the region's value.

    Returns:
        As many versions as were asked for, each on its part of the image's grid.

    Raises:
        CaseError: E_LABEL without a voxel of the label; E_NIFTI when a value near the region is not finite; E_AFFINE.
    """
    matrix = check_affine(affine)
    inside = np.asarray(mask == label)
    if not inside.any():
        raise CaseError("E_LABEL", f"Expected voxels of the label {label}, got none.")
    axis = slice_axis(image.shape, matrix)
    spacing = spacing_mm(matrix)
    box = _box(inside, spacing, axis, perturbations)
    start = np.array([item.start for item in box])
    place = matrix.copy()
    place[:3, 3] += matrix[:3, :3] @ start
    part, region = image[box].astype(np.float64), inside[box]
    if not np.isfinite(part).all():
        raise CaseError("E_NIFTI", "Expected finite values around the region, got NaN or infinity.")
    return [Version(values, drawn, place) for values, drawn in _versions(part, region, spacing, axis, perturbations)]


def noise_level(image: Floats, axis: int = 2) -> float:
    """The standard deviation of an image's noise; 0 of an image without any.

    Args:
        image: (I, J, K).
        axis: across the slices.

    Source: the operator of Immerkær 1996, Computer Vision and Image Understanding 64, which no plane and no straight
        edge along the axes moves; the median in place of the mean (Donoho, Johnstone 1994), so that structure counts
        little. Voxels that it does not move at all, such as padding, are left out.
    """
    found = image
    for number in {0, 1, 2} - {axis}:
        found = np.diff(found, 2, number)
    moved = np.abs(found[found != 0])
    return float(np.median(moved)) / (6 * _MEDIAN) if moved.size else 0.0


def with_volume(mask: Mask, fraction: float, spacing: Floats, rng: np.random.Generator) -> Mask:
    """The region grown (above 0) or shrunk by a fraction of its volume, at its surface, to a voxel; one stays.

    Args:
        mask: (I, J, K), not empty.
        fraction: such as .2 or -.2.
        spacing: (3,) mm.
        rng: which of the voxels as far from the surface are taken.
    """
    wanted = max(1, round((1 + fraction) * int(mask.sum())))
    depth = ndimage.distance_transform_edt(~mask, spacing) - ndimage.distance_transform_edt(mask, spacing)
    # chance decides between voxels as deep, and between no others
    key = (np.round(depth, 5) + 1e-6 * rng.random(mask.shape)).ravel()
    found = np.zeros(mask.size, bool)
    found[np.argpartition(key, wanted - 1)[:wanted]] = True
    return found.reshape(mask.shape)


def supervoxels(image: Floats, spacing: Floats, volume_mm3: float) -> Array:
    """A label for each voxel (I, J, K), from 0: compact parts of alike intensity (SLIC), of about a volume each.

    Source: Achanta et al. 2012, IEEE TPAMI 34, as in scikit-image.
    """
    from skimage.segmentation import slic

    size = max(SUPERVOXEL_VOXELS, volume_mm3 / float(np.prod(spacing)))
    low, high = np.percentile(image, [0.5, 99.5])
    plain = np.clip((image - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    found = slic(plain, max(1, round(image.size / size)), compactness=0.05, spacing=spacing, channel_axis=None)
    return np.asarray(found - found.min())


def with_contour(mask: Mask, parts: Array, rng: np.random.Generator) -> Mask:
    """The region as supervoxels: each is taken with the chance that is the part of it in the region.

    Args:
        mask: (I, J, K), not empty.
        parts: (I, J, K) of `supervoxels`.
        rng: of the chance.

    Returns:
        (I, J, K); the mask itself where chance takes no supervoxel.
    """
    share = np.bincount(parts[mask], minlength=int(parts.max()) + 1) / np.bincount(parts.ravel())
    taken = (share >= ALWAYS) | ((share >= NEVER) & (rng.random(len(share)) < share))
    found = taken[parts]
    return found if found.any() else mask


def moved(image: Floats, mask: Mask, turn: Floats, shift: Floats) -> tuple[Floats, Mask]:
    """Turn about the region's middle and shift, in one interpolation: cubic of the image, linear of the mask, at .5.

    Args:
        image: (I, J, K); beyond its edge the outermost value goes on.
        mask: (I, J, K), not empty.
        turn: (3, 3), voxels to voxels; its inverse is applied.
        shift: (3,) voxels.
    """
    middle = np.argwhere(mask).mean(0)
    offset = middle - turn @ (middle + shift)
    values = ndimage.affine_transform(image, turn, offset, order=3, mode="nearest")
    return values, ndimage.affine_transform(mask.astype(np.float64), turn, offset, order=1, mode="nearest") >= HALF


def _versions(
    image: Floats, mask: Mask, spacing: Floats, axis: int, wanted: Perturbations
) -> list[tuple[Floats, npt.NDArray[np.uint8]]]:
    rng = np.random.default_rng([wanted.seed, _seed(image, mask)])
    # one column a parameter: each of its values once, in an order of its own
    steps = (2 * np.arange(wanted.versions) + 1) / wanted.versions - 1
    angle, growth, *shift = (rng.permutation(steps) for _ in range(5))
    level = noise_level(image, axis) * wanted.noise if "noise" in wanted.chain else 0.0
    parts = supervoxels(image, spacing, wanted.supervoxel_mm3) if "contour" in wanted.chain else None
    found = []
    for number in range(wanted.versions):
        values = image + level * rng.normal(size=image.shape) if level else image
        region = mask if parts is None else with_contour(mask, parts, rng)
        if "volume" in wanted.chain and wanted.volume_fraction:
            region = with_volume(region, growth[number] * wanted.volume_fraction, spacing, rng)
        degrees = angle[number] * wanted.rotation_deg if "rotation" in wanted.chain else 0.0
        along = np.array([item[number] for item in shift]) * wanted.translation_voxels
        along *= "translation" in wanted.chain
        if degrees or along.any():
            values, region = moved(values, region, rotation(degrees, axis, spacing), along)
        found.append((values, region.astype(np.uint8)))
    return found


def rotation(degrees: float, axis: int, spacing: Floats) -> Floats:
    """(3, 3) from voxels to voxels of a turn about an axis of the grid, whose voxels need not be cubes."""
    first, second = sorted({0, 1, 2} - {axis})
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(3)
    turn[np.ix_([first, second], [first, second])] = [[cosine, -sine], [sine, cosine]]
    return turn * spacing / spacing[:, None]


def _seed(image: Floats, mask: Mask) -> int:
    """A number of the content alone."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(np.ascontiguousarray(mask).tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def _box(inside: Mask, spacing: Floats, axis: int, wanted: Perturbations) -> tuple[slice, slice, slice]:
    """The part of the grid that is needed: the region as far as it can reach, and what is measured round it."""
    (tight,) = ndimage.find_objects(inside.astype(np.uint8))
    sides = np.array([item.stop - item.start for item in tight]) * spacing
    margin = np.full(3, PEAK_RADIUS_MM)
    if "volume" in wanted.chain:  # a sphere's radius, or a slab's half, grows so far at most
        margin += sides.min() / 2 * wanted.volume_fraction
    if "contour" in wanted.chain:
        margin += wanted.supervoxel_mm3 ** (1 / 3)
    if "rotation" in wanted.chain:
        across = np.array([number != axis for number in range(3)])
        margin += across * np.sin(np.deg2rad(wanted.rotation_deg)) * np.linalg.norm(sides[across]) / 2
    shift = wanted.translation_voxels if "translation" in wanted.chain else 0.0
    reach = np.ceil(margin / spacing + shift).astype(int) + _SPARE
    i, j, k = (
        slice(max(0, item.start - more), min(size, item.stop + more))
        for item, more, size in zip(tight, reach.tolist(), inside.shape, strict=True)
    )
    return i, j, k
