"""Pairs as the image fusion network learns from them: read, stacked, cut to patches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from torch import Tensor

from pipeline.errors import CaseError
from pipeline.geometry import off_grid
from pipeline.image_fusion.pictures import Floats, affine_at, read_image, windowed

Data = Mapping[Hashable, Any]
#: A patch is drawn around a voxel that is brighter than this in a source, if one is hit in so many draws.
SHOWS, DRAWS = 0.05, 20


class ReadPaird(Transform):
    """Read two images on one grid, and make `image` (windows + 1, …) of them: the first's windows, and the second.

    Args:
        keys: of the two files, such as `ct` and `mr`: pictures, or volumes (`.nii`, `.nii.gz`) with the first in HU.
        windows: level and width of each window of the first, in HU, or of 0 to 1 for pictures.

    Raises:
        CaseError: E_MISSING_ROLE when one of them is not there; E_GRID when their grids differ; E_NIFTI, E_NOT_SCALAR,
            E_BLANK.
        UsageError: E_CONFIG for a window that is none.
    """

    def __init__(self, keys: Sequence[str], windows: Sequence[Sequence[float]]) -> None:
        self.keys, self.windows = tuple(keys), windows

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Read."""
        missing = [key for key in self.keys if key not in data]
        if missing:
            raise CaseError("E_MISSING_ROLE", f"Expected {' and '.join(self.keys)}, got no {missing[0]}.")
        first, second = (read_image(data[key], key == self.keys[0]) for key in self.keys)
        require_one_grid((first, data[self.keys[0]]), (second, data[self.keys[1]]))
        stacked = np.concatenate([windowed(first, self.windows), second[None]])
        return {**data, "image": torch.from_numpy(stacked)}


def require_one_grid(*images: tuple[Floats, Any]) -> None:
    """Raise E_GRID unless images (with the files that they are of) lie where the first one lies."""
    (shape, affine), *others = (((*image.shape, 1)[:3], affine_at(path)) for image, path in images)
    for other, place in others:
        if wrong := off_grid(shape, affine, other, place):
            raise CaseError("E_GRID", f"Expected images on one grid, got {wrong}.")


class PatchOfPaird(Randomizable, Transform):
    """Cut a patch out of `image` where it shows something; a patch of two sides out of an axial slice of a volume.

    Images that are smaller than the patch are continued by 0.

    Args:
        size: voxels along each side.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = tuple(size)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Cut."""
        image = data["image"]
        for _ in range(DRAWS):
            place = [int(self.R.randint(side)) for side in image.shape[1:]]
            if float(image[(slice(None), *place)][[0, -1]].max()) > SHOWS:
                break
        if image.ndim == 4 and len(self.size) == 2:
            image, place = image[..., place[-1]], place[:-1]
        return {**data, "image": cut(image, place, self.size)}


class MiddleOfPaird(Transform):
    """What a network is judged by: the picture itself, the axial slice of a volume that shows most, or a middle patch.

    Args:
        size: as that of `PatchOfPaird`.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = tuple(size)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Take it."""
        image = data["image"]
        if image.ndim == 4 and len(self.size) == 2:
            image = image[..., int(image[-1].sum((0, 1)).argmax())]
        elif image.ndim == 4:
            image = cut(image, [side // 2 for side in image.shape[1:]], self.size)
        return {**data, "image": image}


def cut(image: Tensor, place: Sequence[int], size: Sequence[int]) -> Tensor:
    """The patch (C, *size) around a place of an image (C, …), within it; 0 where the image is smaller."""
    patch = image.new_zeros((image.shape[0], *size))
    starts = [
        max(0, min(at - side // 2, whole - side)) for at, side, whole in zip(place, size, image.shape[1:], strict=True)
    ]
    part = image[(slice(None), *(slice(start, start + side) for start, side in zip(starts, size, strict=True)))]
    patch[tuple(slice(side) for side in part.shape)] = part
    return patch
