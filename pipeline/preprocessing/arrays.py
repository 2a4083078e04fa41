"""Between MetaTensors and the arrays that NumPy, SciPy, SimpleITK and scikit-image work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type

from pipeline.errors import CaseError
from pipeline.volumes import require_same_grid


def finite_channels(image: MetaTensor) -> npt.NDArray[np.float64]:
    """The voxels of an image as (C, I, J, K) float64.

    Raises:
        CaseError: E_GRID when it is not (C, I, J, K); E_BLANK when a voxel is not finite.
    """
    values = np.asarray(image.detach().cpu().numpy(), dtype=np.float64)
    if values.ndim != 4:
        raise CaseError("E_GRID", f"Expected a volume (C, I, J, K), got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise CaseError("E_BLANK", f"Expected finite voxels, got {int((~np.isfinite(values)).sum())} that are not.")
    return values


def inside_of(image: MetaTensor, mask: MetaTensor) -> npt.NDArray[np.bool_]:
    """A mask as (I, J, K) bool, once it is known to fit the image.

    Raises:
        CaseError: E_GRID when it has another grid than the image; E_BLANK when it is empty.
    """
    require_same_grid(image, mask, ("the image", "the mask"))
    inside = np.asarray(mask.detach().cpu().numpy()[0] > 0)
    if not inside.any():
        raise CaseError("E_BLANK", "Expected a mask with some foreground, got an empty one.")
    return inside


def like(values: npt.NDArray[Any], image: MetaTensor) -> MetaTensor:
    """Values (C, I, J, K), or (I, J, K) for one channel, as float32 with the image's affine and metadata."""
    channels = values if values.ndim == 4 else values[None]
    result: MetaTensor = convert_to_dst_type(channels, image, dtype=torch.float32)[0]
    return result
