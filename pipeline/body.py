"""Where the patient is in an image: the body mask that registration, preprocessing and cropping share.

The inside counts: air in sinuses, bowel and lungs, and dark bone in MR belong to the body.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from monai.data import MetaTensor
from scipy import ndimage
from skimage.filters import threshold_li, threshold_otsu

from pipeline.errors import CaseError
from pipeline.geometry import orientation_of, spacing_mm
from pipeline.volumes import affine_of, to_sitk, volume

#: Halfway from air (-1000 HU) to water would be -500; -300 keeps clothes, blankets and the couch's foam outside.
CT_THRESHOLD_HU = -300.0
#: Takes single-voxel noise away before the threshold.
SMOOTHING_MM = 0.7
#: Opens away the shells of a CT couch, some 2 mm thin, that touch the patient's back.
COUCH_RADIUS_MM = 2.0
#: Closes nostrils and ear canals, and the gap that cortical bone leaves between brain and scalp in MR.
CLOSING_RADIUS_MM = 5.0
#: These show uptake, many times higher in a tumour than in the body: the body is where there is this part of the usual
#: uptake. Source: benchmarks/verdict_limits.py, 33 patients.
UPTAKE = frozenset({"PT", "NM"})
PART_OF_UPTAKE = 1 / 3
#: Ratio images (MP2RAGE) are noise of full strength where there is no signal: at the rim voxels differ from their
#: neighbours by more than this part of the image's range. Others differ by half of it at most.
NOISY_AIR = 0.12
#: Over how many voxels noise is looked at, and how many an axis needs to have a rim.
ROUGHNESS_VOXELS, LEAST_ALONG_RIM = 1.5, 16
#: A piece with less than this fraction of the largest one's voxels is not kept; both legs of a thigh scan are.
SMALLEST_PIECE = 0.25

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]


def body_mask(image: MetaTensor, modality: str) -> MetaTensor:
    """The patient against the air around, with the cavities inside filled.

    Threshold of the lightly smoothed image (-300 HU for CT, a part of the usual uptake for PET, otherwise Li's minimum
    cross-entropy; where the air is noise of full strength, what is quiet), opening for CT (the couch's shells),
    closing, filling of every axial slice, and the largest pieces. The radii are in mm, so voxels may be anisotropic;
    one slice alone works, too. Outside CT the image has to show some air: without it the threshold parts bright from
    dark tissue. (Otsu's does so even with air: it loses muscle beside bright fat, and the scalp in FLAIR.)

    Args:
        image: (1, I, J, K); HU when the modality is CT.
        modality: DICOM Modality; `CT`, or any other such as `MR`.

    Returns:
        (1, I, J, K) uint8 on the image's grid: 1 in the body, 0 outside.

    Raises:
        CaseError: E_BLANK when the image is constant or not finite, or nothing in it is body; E_GRID when it has more
            than one channel.

    Source: Li and Tam, Pattern Recognition Letters 19(8), 1998.
    """
    values = finite_values(image)
    tissue = _tissue(values, spacing_mm(affine_of(image)), modality)
    mask = to_sitk(volume(tissue.astype(np.uint8), affine_of(image)))
    if modality == "CT":
        mask = sitk.BinaryMorphologicalOpening(mask, _radius_voxels(mask, COUCH_RADIUS_MM), sitk.sitkBall)
    mask = sitk.BinaryMorphologicalClosing(mask, _radius_voxels(mask, CLOSING_RADIUS_MM), sitk.sitkBall)
    filled = _fill_axial(sitk.GetArrayFromImage(mask).transpose(2, 1, 0) > 0, _axial_axis(image))
    body = _largest_pieces(filled)
    if not body.any():
        raise CaseError("E_BLANK", f"Expected a body in the {modality} image, got nothing above the threshold.")
    return volume(body.astype(np.uint8), affine_of(image))


def finite_values(image: MetaTensor) -> npt.NDArray[np.float32]:
    """The voxels of a one-channel image as (I, J, K) float32.

    Raises:
        CaseError: E_GRID when it has more than one channel; E_BLANK when it is constant or not finite.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise CaseError("E_GRID", f"Expected a one-channel volume (1, I, J, K), got shape {tuple(image.shape)}.")
    values = np.asarray(image.detach().cpu().numpy()[0], dtype=np.float32)
    if not np.isfinite(values).all():
        raise CaseError("E_BLANK", f"Expected finite voxels, got {int((~np.isfinite(values)).sum())} that are not.")
    if values.min() == values.max():
        raise CaseError("E_BLANK", f"Expected an image with contrast, got {float(values.flat[0])} in every voxel.")
    return values


def _tissue(values: Values, spacing: npt.NDArray[np.float64], modality: str) -> Mask:
    smooth = ndimage.gaussian_filter(values, SMOOTHING_MM / spacing, mode="nearest")
    if modality == "CT":
        return np.asarray(smooth > CT_THRESHOLD_HU)
    if modality in UPTAKE:
        return np.asarray(smooth > PART_OF_UPTAKE * _usual_uptake(smooth))
    quiet = _quiet(values)
    shown = smooth[quiet]
    # A few very bright voxels (fat, vessels, fluid) would pull the threshold up into tissue.
    return np.asarray(quiet & (smooth > threshold_li(np.minimum(shown, np.percentile(shown, 99.0)))))


def _quiet(values: Values) -> Mask:
    """Where the image is no noise of full strength; everywhere, unless its rim is (and there is one)."""
    rim = _rim(values.shape)
    rough = ndimage.gaussian_filter(np.abs(values - ndimage.uniform_filter(values, 3)), ROUGHNESS_VOXELS)
    loud = NOISY_AIR * np.ptp(np.percentile(values, (1, 99)))
    noisy = rim.any() and np.percentile(rough[rim], 25) > loud
    return np.asarray(rough < threshold_otsu(rough)) if noisy else np.ones(values.shape, np.bool_)


def _usual_uptake(values: Values) -> float:
    """The median of what stands out of the air, on a logarithmic scale: a hot tumour does not change it."""
    positive = np.maximum(values, 0)
    if not positive.any():
        return float("inf")  # no uptake at all: no body
    unit = np.median(positive[positive > 0])
    return float(np.median(values[values > unit * np.expm1(threshold_li(np.log1p(positive / unit)))]))


def _rim(shape: tuple[int, ...]) -> Mask:
    """The two outermost voxels on each side, but not of an axis that has few."""
    inner = tuple(slice(2, -2) if size > LEAST_ALONG_RIM else slice(None) for size in shape)
    rim = np.ones(shape, np.bool_)
    rim[inner] = False
    return rim


def _radius_voxels(mask: Any, radius_mm: float) -> list[int]:
    return [round(radius_mm / spacing) for spacing in mask.GetSpacing()]


def _axial_axis(image: MetaTensor) -> int:
    """The voxel axis that runs nearest to feet-head."""
    letters = orientation_of(affine_of(image))
    return next(axis for axis, letter in enumerate(letters) if letter in "SI")


def _fill_axial(mask: Mask, axis: int) -> Mask:
    """Fill what is closed within a slice; this fills what is closed in three dimensions, too."""
    within = np.moveaxis(ndimage.generate_binary_structure(3, 1), axis, 0)
    within[[0, 2]] = False  # no way leads from slice to slice
    gaps, count = ndimage.label(~mask, np.moveaxis(within, 0, axis))
    slices = np.moveaxis(gaps, axis, 0)
    is_open = np.zeros(count + 1, np.bool_)
    for edge in (slices[:, 0], slices[:, -1], slices[:, :, 0], slices[:, :, -1]):
        is_open[edge] = True
    is_open[0] = False  # the body itself
    return np.asarray(~is_open[gaps])


def _largest_pieces(mask: Mask) -> Mask:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= max(1.0, SMALLEST_PIECE * sizes.max()))[labels])
