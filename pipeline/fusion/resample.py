"""To the voxel size that a network was trained at, and back onto the grid that the images came on."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Spacing, SpatialResample
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from pipeline.errors import CaseError, UsageError
from pipeline.geometry import FloatArray, spacing_mm
from pipeline.learning.table import Row
from pipeline.volumes import affine_of, oriented, require_same_grid, volume

#: Where a case keeps the grid that its images came on: affine (4, 4) and shape (3,).
GRID_AFFINE, GRID_SHAPE = "grid_affine", "grid_shape"


class ToSpacingd(MapTransform):
    """Bring a case's images, all on one grid, to the network's voxel size, and keep the grid that they came on.

    Images are interpolated linearly; where voxels grow they are smoothed first, so that fine detail does not turn into
    noise (aliasing). Masks take the nearest voxel. Beyond the border its values go on.

    Args:
        keys: the images; those that are missing are passed over.
        spacing_mm: along the axes I, J, K, after they were brought into their order; empty: voxels stay as they are.
        label_keys: the masks among the keys.
        orientation: where the axes I, J, K run, such as `RAS` or `LPS`: a network knows heads one way up; empty: as
            they come.

    Raises:
        UsageError: E_CONFIG for a spacing or an orientation that is none.
        CaseError: E_GRID when the images are not on one grid.
    """

    def __init__(
        self,
        keys: Sequence[str],
        spacing_mm: Sequence[float] = (),
        label_keys: Sequence[str] = (),
        orientation: str = "",
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.spacing_mm, self.label_keys = spacing_of(spacing_mm), tuple(label_keys)
        self.orientation = orientation_code(orientation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample."""
        case = dict(data)
        there = [key for key in self.keys if key in case]
        if not there:
            return case
        first = case[there[0]]
        for key in there:
            require_same_grid(first, case[key], (str(there[0]), str(key)))
        case[GRID_AFFINE] = torch.from_numpy(affine_of(first))
        case[GRID_SHAPE] = torch.tensor(first.shape[-3:])
        for key in there:
            if self.orientation:
                case[key] = oriented(case[key], self.orientation)
            if self.spacing_mm:
                case[key] = to_spacing(case[key], self.spacing_mm, nearest=key in self.label_keys)
        return case


def orientation_code(letters: str) -> str:
    """Letters of an orientation, checked: one of R and L, of A and P, of S and I, in any order; or none.

    Raises:
        UsageError: E_CONFIG.
    """
    code = letters.upper()
    pairs = ["".join(sorted(pair)) for pair in ("RL", "AP", "SI")]
    used = sorted(next((pair for pair in pairs if letter in pair), "") for letter in code)
    if code and used != sorted(pairs):
        raise UsageError("E_CONFIG", f"Expected an orientation such as RAS or LPS, got {letters}.")
    return code


def spacing_of(numbers: Sequence[float]) -> tuple[float, ...]:
    """A voxel size as three numbers in mm, or none, of none, one for all axes, or three.

    Raises:
        UsageError: E_CONFIG.
    """
    sizes = tuple(float(number) for number in numbers)
    if len(sizes) not in (0, 1, 3) or not all(0 < size < np.inf for size in sizes):
        raise UsageError("E_CONFIG", f"Expected 1 or 3 voxel sizes above 0 mm as spacing_mm, got {list(numbers)}.")
    return sizes * 3 if len(sizes) == 1 else sizes


def to_spacing(image: MetaTensor, spacing: Sequence[float], nearest: bool = False) -> MetaTensor:
    """An image (C, I, J, K) with voxels of another size, its axes and its first voxel's centre kept.

    Args:
        image: any type.
        spacing: mm along its axes.
        nearest: take the nearest voxel: for labels, whose type is kept; images become float32.

    Source: standard deviation of the smoothing, (f - 1) / 2 voxels where voxels grow by f: scikit-image's and MONAI's
        `resize`.
    """
    kind = image.dtype if nearest else torch.float32
    growth = np.asarray(spacing) / spacing_mm(affine_of(image))
    sigmas = np.maximum(0.0, (growth - 1) / 2)
    source = image.float()
    if not nearest and sigmas.any():
        # scipy's, because MONAI's smoothing takes what lies beyond the border for 0: in HU that is water
        smooth = ndimage.gaussian_filter(source.numpy(), (0.0, *sigmas), mode="nearest")
        source = volume(smooth, affine_of(image))
    resample = Spacing(tuple(spacing), mode="nearest" if nearest else "bilinear", padding_mode="border")
    found = resample(source)
    return volume(found.as_tensor().to(kind), np.asarray(found.affine, dtype=np.float64))


def onto_grid(image: MetaTensor, affine: FloatArray, shape: Sequence[int]) -> MetaTensor:
    """Probabilities (C, I, J, K) on another grid: linear between voxels, so that their sum stays 1.

    Beyond the image's border its values go on.

    Args:
        image: on any grid.
        affine: of the other grid, 4 x 4, RAS mm.
        shape: of the other grid.

    Raises:
        CaseError: E_GRID when what comes out does not lie on that grid.
    """
    shape = tuple(int(side) for side in shape)
    if tuple(image.shape[1:]) == shape and np.array_equal(affine_of(image), affine):
        return image
    resample = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float32)
    found = resample(image, dst_affine=torch.from_numpy(affine), spatial_size=shape)
    result = volume(found.as_tensor(), affine)
    require_same_grid(found, result, ("the network's answer", "the fixed image"))
    if tuple(result.shape[1:]) != shape:
        raise CaseError("E_GRID", f"Expected {shape} voxels, got {tuple(result.shape[1:])}.")
    return result


def seen_mm(rows: Sequence[Row]) -> list[float]:
    """The smallest and the largest voxel side of cases' images, from their headers, mm.

    Raises:
        CaseError: E_NIFTI when one cannot be read.
    """
    paths = [path for row in rows for path in row.images.values()]
    sides = np.array([spacing_mm(_affine_in(path)) for path in paths])
    return [float(sides.min()), float(sides.max())]


def _affine_in(path: Path) -> FloatArray:
    try:
        return np.asarray(nib.load(path).affine, dtype=np.float64)
    except (ImageFileError, OSError, EOFError, zlib.error) as error:
        raise CaseError("E_NIFTI", f"An image of the table cannot be read: {path.name}.") from error
