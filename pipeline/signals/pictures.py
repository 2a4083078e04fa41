"""Pictures of one plane, grey: PNG, JPEG, TIFF, BMP, and NIfTI of one slice, such as ingest makes of radiographs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from pipeline.endings import VOLUMES
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import check_affine, spacing_mm
from pipeline.grey import DARK, DARK_NOTE, check_size, read_grey

Floats = npt.NDArray[np.float32]

#: Black and white by the picture's own values: the darkest and the brightest of so many percent do not decide.
PERCENTILES = (0.5, 99.5)
_WHITE = "Say `intensity: percentiles`, or `intensity: [low, high]` in the values of the file."


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        values: (1, I, J), as stored. I runs along a row, from left to right as it is seen (to the patient's left in a
            radiograph from the front); J down a column, from top to bottom.
        spacing_mm: pixel size along I and J; (1, 1) where the file has none.
        white: the value that is white, where 0 is black; None where the file does not say so.
        flags: what was done to it (codes `N_...`).
    """

    values: Floats
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    white: float | None = None
    flags: tuple[str, ...] = ()


def read_picture(path: str | Path) -> Picture:
    """Read a picture by its name: NIfTI of one slice, or any that `pipeline.grey.read_grey` reads.

    A radiograph is the same array as a PNG of it and as what ingest has made of its DICOM file.

    Raises:
        CaseError: E_NIFTI, E_AFFINE when a NIfTI file cannot be read; E_BLANK when the picture has one value; others as
            `pipeline.grey.read_grey`.
    """
    if str(path).lower().endswith(VOLUMES):
        found = _read_slice(path)
    else:
        seen = read_grey(path)
        found = Picture(np.ascontiguousarray(seen.values.T)[None], white=seen.white, flags=seen.flags)
    low, high = float(found.values.min()), float(found.values.max())
    if low == high:
        raise CaseError("E_BLANK", f"Expected a picture with contrast, got {low:g} in every pixel.")
    return found


def _read_slice(path: str | Path) -> Picture:
    try:
        image: Any = nib.load(path)
        sides, flat = _plane(image.shape)
        if image.get_data_dtype().kind not in "buif":
            raise CaseError("E_NOT_SCALAR", "Expected a picture of one channel, got colours or complex numbers.")
        check_size(sides)
        stored = np.asarray(image.dataobj, dtype=np.float32).reshape((*image.shape, 1)[:3])
        black, white = (float(image.header[key]) for key in ("cal_min", "cal_max"))
    except (OSError, ImageFileError, EOFError, ValueError, zlib.error) as error:
        raise CaseError("E_NIFTI", "Expected a picture (NIfTI), but it cannot be read.") from error
    if not np.isfinite(stored).all():
        raise CaseError("E_NIFTI", "Expected finite values, got NaN or infinity.")
    affine = check_affine(image.affine)
    # to the left, to the back, down: as radiographs from the front, and slices, are hung
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPI"))
    values, steps = apply_orientation(stored, turn), spacing_mm(affine)
    place = int(turn[flat, 0])
    mm = [float(steps[int(np.flatnonzero(turn[:, 0] == axis)[0])]) for axis in range(3) if axis != place]
    values = np.ascontiguousarray(values.squeeze(place))[None]
    # what ingest has made of a picture says what is white in it; of a radiograph of DICOM it does not know
    return Picture(values, (mm[0], mm[1]), white if white > black == 0 else None)


def _plane(shape: tuple[int, ...]) -> tuple[tuple[int, int], int]:
    """The two sides of an image of one slice, in voxels, and which axis it is flat along."""
    whole = (*shape, 1)[:3]
    flat = 2 if whole[2] == 1 else whole.index(1) if 1 in whole else -1
    if flat < 0 or len(shape) < 2 or any(side != 1 for side in shape[3:]):
        what = f"Expected an image of one slice, got a volume of {' x '.join(map(str, shape))} voxels."
        raise CaseError("E_PICTURE", what, "Say `kind: volume`, or name the slice that is meant.")
    one, other = (side for axis, side in enumerate(whole) if axis != flat)
    return (one, other), flat


def levelled(picture: Picture, intensity: str | Sequence[float] = "full") -> tuple[Floats, tuple[str, ...]]:
    """The picture from 0, black, to 1, white.

    Args:
        picture: as it is stored.
        intensity: `full`: by the bits of the file; brightness keeps its meaning from picture to picture.
            `percentiles`: by the picture's own values (`PERCENTILES`), for radiographs, whose scale each device
            chooses; how bright a picture is as a whole then says nothing. Or what is black and what is white, in the
            values of the file.

    Returns:
        (1, I, J), and flags.

    Raises:
        CaseError: E_PICTURE for `full` where the file does not say what is white; E_BLANK where no contrast is left.
    """
    if intensity == "full":
        if picture.white is None:
            raise CaseError("E_PICTURE", "Expected a file that says what is white, got NIfTI, which does not.", _WHITE)
        low, high = 0.0, picture.white
    elif intensity == "percentiles":
        low, high = (float(value) for value in np.percentile(picture.values, PERCENTILES))
    else:
        low, high = (float(value) for value in intensity)
    if low == high:
        raise CaseError("E_BLANK", f"Expected a picture with contrast, got {low:g} in nearly every pixel.", _WHITE)
    found = np.clip((picture.values - np.float32(low)) / np.float32(high - low), 0, 1)
    return found, (DARK_NOTE,) if float(found.max()) < DARK else ()


def check_intensity(intensity: str | Sequence[float]) -> None:
    """Refuse what is no way to find black and white.

    Raises:
        UsageError: E_OPTION.
    """
    known = intensity in ("full", "percentiles")
    numbers = [] if isinstance(intensity, str) else list(intensity)
    if not known and (len(numbers) != 2 or not np.isfinite(numbers).all() or numbers[0] >= numbers[1]):
        raise UsageError("E_OPTION", f"Expected intensity full, percentiles or [low, high], got {intensity}.")


def fitted(values: Floats, spacing_mm: Sequence[float], size: Sequence[int]) -> torch.Tensor:
    """Bring a picture to a size as a whole, smoothed as far as it shrinks, with black on both sides of what is short.

    Args:
        values: (1, I, J), from 0 (black).
        spacing_mm: along I and J: what a picture shows is as wide as its pixels are, never stretched.
        size: (I, J) of the result.

    Returns:
        (1, *size) float32. The picture's sides are rounded to whole pixels.

    Raises:
        CaseError: E_SIZE when it is so long that its short side would be less than a pixel.
    """
    sides = np.asarray(values.shape[1:]) * np.asarray(spacing_mm, dtype=np.float64)
    wanted = sides * (np.asarray(size) / sides).min()
    if wanted.min() < 1:
        what = f"Expected a picture that is seen at {size[0]} x {size[1]}, got {values.shape[1]} x {values.shape[2]}."
        raise CaseError("E_SIZE", what, "Cut it to the part that is meant.")
    inner = [int(side) for side in np.rint(wanted)]
    image = torch.from_numpy(values)[None]
    if inner != list(values.shape[1:]):
        image = torch.nn.functional.interpolate(image, inner, mode="bilinear", antialias=True)
    left, top = ((whole - part) // 2 for whole, part in zip(size, inner, strict=True))
    found = torch.zeros((1, *size))
    found[:, left : left + inner[0], top : top + inner[1]] = image[0]
    return found
