"""Voxels: what of a segmentation's logits a calibration is fitted and judged on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt, find_objects

from pipeline.geometry import spacing_mm
from pipeline.volumes import affine_of

Mask = npt.NDArray[np.bool_]

#: Far background is right and sure of it, and there is so much of it that it would drown what matters.
MARGIN_MM = 10.0


def dilated_foreground(labels: MetaTensor, margin_mm: float = MARGIN_MM) -> Mask:
    """The voxels that lie within a distance of the foreground (labels above 0).

    Args:
        labels: (1, I, J, K).
        margin_mm: distance between voxel centres.

    Returns:
        (I, J, K); empty where there is no foreground.
    """
    inside = np.asarray(labels[0].numpy()) > 0
    mask = np.zeros(inside.shape, dtype=bool)
    if not inside.any():
        return mask
    spacing = spacing_mm(affine_of(labels))
    reach = np.ceil(margin_mm / spacing).astype(int)
    (box,) = find_objects(inside.astype(np.uint8))
    # a distance is only needed in the foreground's box and the margin around it
    around = tuple(
        slice(max(0, part.start - grow), part.stop + grow) for part, grow in zip(box, reach.tolist(), strict=True)
    )
    mask[around] = distance_transform_edt(~inside[around], sampling=spacing) <= margin_mm
    return mask
