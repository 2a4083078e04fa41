"""Images as they are fused: pictures and volumes, grey, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from pipeline.body import body_mask
from pipeline.endings import VOLUMES
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import spacing_mm
from pipeline.grey import read_grey
from pipeline.volumes import volume

Floats = npt.NDArray[np.float32]

#: The brightest voxels of MR, such as fat beside a coil, do not decide the scale of all others.
BRIGHTEST_PERCENT = 99.5
#: The body and its brightness are found on so coarse a grid: they take no more voxels.
COARSE_MM = 2.0


def is_volume(path: str | Path) -> bool:
    """Whether a file is a volume by its name; all others are pictures."""
    return str(path).lower().endswith(VOLUMES)


def read_picture(path: str | Path) -> Floats:
    """Read a grey picture of 8 or 16 bits; in colours it may be saved, if they are the same.

    Returns:
        (rows, columns), 0 to 1.

    Raises:
        CaseError: as `pipeline.grey.read_grey`, with the file's name: a pair has two.
    """
    try:
        found = read_grey(path)
    except CaseError as error:
        raise CaseError(error.code, f"{Path(path).name}: {error.message}", error.remedy) from error
    return found.values / np.float32(found.white)


def read_volume(path: str | Path, ct: bool) -> Floats:
    """Read a volume: HU of CT as they are, others scaled to 0 to 1 (`scaled`).

    Returns:
        (I, J, K), its axes nearest to right, front and head, however they are stored: slices are axial ones.

    Raises:
        CaseError: E_NIFTI when it cannot be read; E_BLANK when it is constant or not finite.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        values = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, ImageFileError, EOFError) as error:
        raise CaseError("E_NIFTI", f"Expected a volume at {path}, but it cannot be read.") from error
    if values.ndim != 3:
        raise CaseError("E_GRID", f"Expected a volume (I, J, K), got shape {values.shape}.")
    return values if ct else scaled(values, np.asarray(image.affine, dtype=np.float64))


def read_image(path: str | Path, ct: bool) -> Floats:
    """Read a picture or a volume, as its name says; `ct` as in `read_volume`."""
    return read_volume(path, ct) if is_volume(path) else read_picture(path)


def affine_at(path: str | Path) -> npt.NDArray[np.float64]:
    """Where an image as it is read lies, 4 x 4, RAS mm; a picture lies nowhere, which is the unit matrix."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).affine if is_volume(path) else np.eye(4), np.float64)


def scaled(values: Floats, affine: npt.NDArray[np.float64]) -> Floats:
    """MR (I, J, K) from 0 to 1: 0 stays 0, and 1 is the brightness that few voxels of the body are above.

    Raises:
        CaseError: E_BLANK when it is constant or not finite, or shows no body.
    """
    every, inside = coarse_body(values, affine, "MR")
    brightest = np.float32(np.percentile(values[every][inside], BRIGHTEST_PERCENT))
    found = np.divide(values, brightest, dtype=np.float32)
    return np.clip(found, 0.0, 1.0, out=found)


def coarse_body(
    values: Floats, affine: npt.NDArray[np.float64], modality: str
) -> tuple[tuple[slice, ...], npt.NDArray[np.bool_]]:
    """Every so many voxels of a volume (I, J, K), as slices, and which of these voxels are of the body.

    Raises:
        CaseError: E_BLANK when it shows no body.
    """
    step = np.maximum(1, COARSE_MM // spacing_mm(affine)).astype(int)
    every = tuple(slice(None, None, int(size)) for size in step)
    return every, body_mask(volume(values[every][None], affine @ np.diag([*step, 1.0])), modality).numpy()[0] > 0


def windowed(values: Floats, windows: Sequence[Sequence[float]]) -> Floats:
    """One channel a window: 0 at and below level - width / 2, 1 at and above level + width / 2.

    Args:
        values: of any shape.
        windows: level and width of each, in the unit of the values.

    Returns:
        (len(windows), …), 0 to 1.

    Raises:
        UsageError: E_CONFIG for a window that is no level and a width above 0, or none at all.
    """
    if not windows or any(len(window) != 2 or window[1] <= 0 for window in windows):
        raise UsageError("E_CONFIG", f"Expected windows of a level and a width above 0, got {list(windows)}.")
    return np.stack([np.clip((values - level) / width + 0.5, 0.0, 1.0) for level, width in windows]).astype(np.float32)
