"""What a reader of a row of features has to know about its region."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.radiomics.levels import Array
from pipeline.radiomics.prepare import Mask, Region

#: Below so many voxels texture and shape mostly tell the region's size.
FEW_VOXELS = 75
#: Below so many levels texture is coarse.
FEW_BINS = 8

#: Flag -> what it says.
FLAGS: dict[str, str] = {
    "empty": "The region has no voxel; there are no values.",
    "resegmented_away": "No value of the region lies in the range; only shape was measured.",
    "one_voxel": "The region is one voxel.",
    "one_slice": "The region lies in one slice: texture in three dimensions was not measured.",
    "few_voxels": f"The region has less than {FEW_VOXELS} voxels.",
    "several_parts": "The region has parts that do not touch, not even at a corner.",
    "at_border": "The region touches the image's edge and may go on beyond it.",
    "one_intensity": "The region holds one value only.",
    "few_bins": f"The region's values fall into less than {FEW_BINS} bins.",
    "not_perturbed": "The region could not be perturbed; it does not count for how well features agree.",
    "few_supervoxels": "The region is small beside the parts by which contours are randomised (supervoxel_mm3): how "
    "well its features agree is of the contour more than of the feature.",
    "carried": "The mask was drawn on another image and carried here by their alignment.",
    "not_aligned": "The mask was drawn on another image whose alignment has failed; there are no values.",
}


def mask_flags(mask: Mask) -> list[str]:
    """Of a mask (I, J, K) on the image's own grid, not empty."""
    ends = [np.moveaxis(mask, axis, 0)[[0, -1]].any() for axis, size in enumerate(mask.shape) if size > 1]
    return ["at_border"] if any(ends) else []


def region_flags(region: Region) -> list[str]:
    """Of a prepared region whose shape is not empty."""
    voxels = int(region.shape_mask.sum())
    found = {
        "resegmented_away": not region.value_mask.any(),
        "one_voxel": voxels == 1,
        "one_slice": region.shape_mask.any(axis=(0, 1)).sum() == 1,
        "few_voxels": voxels < FEW_VOXELS,
        "several_parts": ndimage.label(region.shape_mask, np.ones((3, 3, 3)))[1] > 1,
        "one_intensity": region.value_mask.any() and np.ptp(region.values) == 0,
    }
    return [name for name, holds in found.items() if holds]


def level_flags(levels: Array) -> list[str]:
    """Of grey levels (n,)."""
    return ["few_bins"] if np.count_nonzero(np.bincount(levels)) < FEW_BINS else []
