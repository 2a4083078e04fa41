"""What of a volume is shown: canonical axes, the box around the patient, an image on another grid by its header."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from monai.data import MetaTensor
from monai.transforms import Orientation

from pipeline.body import body_mask
from pipeline.errors import CaseError
from pipeline.geometry import orientation_of, same_grid, spacing_mm
from pipeline.report.slices import Frame, Triple
from pipeline.volumes import affine_of, from_sitk, to_sitk, volume

#: A body is found on a coarser grid: a box to 4 mm is enough for a picture, and 60 times as fast.
COARSE_MM = 4.0
MARGIN_MM = 8.0


def canonical(image: MetaTensor) -> MetaTensor:
    """The image with its axes nearest to right, front and head; a letter at the wrong side is the worst of errors."""
    if orientation_of(affine_of(image)) == "RAS":
        return image
    return Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(image)


def voxels(image: MetaTensor, channel: int = 0) -> npt.NDArray:
    """One channel's voxels, (I, J, K)."""
    return np.asarray(image.detach().cpu().numpy()[channel])


def through_headers(moving: MetaTensor, grid: MetaTensor, labels: bool = False) -> MetaTensor:
    """Put an image on another's grid by the headers alone: the identity in world space, as a viewer would.

    Args:
        moving: (1, I, J, K).
        grid: (C, I, J, K) whose grid is wanted.
        labels: the values are labels: each voxel takes the nearest one's, and 0 outside the field of view.

    Returns:
        (1, I, J, K) on that grid: the image itself where it is there already; else interpolated linearly, with its
        minimum outside its field of view.
    """
    if same_grid(moving.shape, affine_of(moving), grid.shape, affine_of(grid)):
        return moving
    values = np.nan_to_num(voxels(moving).astype(np.float32))
    source, target = to_sitk(volume(values, affine_of(moving))), to_sitk(grid[:1])
    how, outside = (sitk.sitkNearestNeighbor, 0.0) if labels else (sitk.sitkLinear, float(values.min()))
    return from_sitk(sitk.Resample(source, target, sitk.Transform(), how, outside))


def body_frame(fixed: MetaTensor, modality: str, moving: MetaTensor | None = None) -> Frame:
    """The box around the patient and the planes through its centre.

    Where the moving image shows none of the centre, the planes run through the middle of what it shows of the box: a
    comparison needs both images.

    Args:
        fixed: (C, I, J, K), canonical axes.
        modality: DICOM Modality of the fixed image.
        moving: (1, I, J, K) on the fixed grid.

    Returns:
        The frame; of the whole grid when nothing in the fixed image is body.
    """
    shape = np.asarray(fixed.shape[-3:])
    low, high = _body_box(fixed, modality)
    margin = np.ceil(MARGIN_MM / spacing_mm(affine_of(fixed))).astype(int)
    centre = (low + high) // 2
    if moving is not None:
        shown_low, shown_high = _box(voxels(moving) > np.nanmin(voxels(moving)))
        centre = _shared_centre(centre, np.maximum(low, shown_low), np.minimum(high, shown_high))
    return Frame(
        _triple(np.clip(centre, 0, shape - 1)),
        _triple(np.maximum(low - margin, 0)),
        _triple(np.minimum(high + margin, shape)),
    )


def _shared_centre(centre: npt.NDArray, low: npt.NDArray, high: npt.NDArray) -> npt.NDArray:
    apart = np.any(low >= high)
    inside = np.all((centre >= low) & (centre < high))
    return centre if apart or inside else (low + high) // 2


def _body_box(image: MetaTensor, modality: str) -> tuple[npt.NDArray, npt.NDArray]:
    """First voxel and voxel after the last one of the body, each (3,)."""
    step = np.maximum(1, COARSE_MM // spacing_mm(affine_of(image))).astype(int)
    coarse = np.nan_to_num(voxels(image).astype(np.float32))[:: step[0], :: step[1], :: step[2]]
    affine = affine_of(image) @ np.diag([*step, 1.0])
    try:
        mask = voxels(body_mask(volume(coarse, affine), modality)) > 0
    except CaseError:
        # A blank image is a finding that the report has to show, not a reason to have no report.
        mask = np.ones(coarse.shape, bool)
    low, high = _box(mask)
    return low * step, np.minimum(high * step, image.shape[-3:])


def _box(mask: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    """First and after-last index of what is set, each (3,); of the whole array where nothing is."""
    if not mask.any():
        return np.zeros(3, int), np.asarray(mask.shape)
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([span[0] for span in spans]), np.array([span[-1] + 1 for span in spans])


def _triple(index: npt.NDArray) -> Triple:
    return int(index[0]), int(index[1]), int(index[2])
