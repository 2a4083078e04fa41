"""Compare what Tandem makes of a folder of DICOM with what others have made of it, voxel by voxel."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from pipeline.cases import Series
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.pixels.volume import read
from pipeline.dicom.series.gate import candidates
from pipeline.errors import QuarantineError
from pipeline.volumes import affine_of

FloatArray = npt.NDArray[np.float64]

#: Two affines are one when no corner of the grid moves by more than this.
SAME_PLACE_MM = 1e-2
#: Values that a reader has scaled may differ by this part of their range: dcm2niix keeps six digits of a slope.
SAME_VALUE = 1e-5


@dataclass(frozen=True)
class Volume:
    """Voxels (I, J, K) on the axes that are nearest to RAS+, and their RAS affine in mm.

    Attributes:
        rounding: by how much the values may be off for the way they were stored.
    """

    values: FloatArray
    affine: FloatArray
    rounding: float = 0.0


@dataclass(frozen=True)
class Part:
    """One series, or one part of a series that had to be split, as ingest leaves it.

    Attributes:
        series: after the geometry gate.
        volume: what was read; None where it was refused.
        code: why it was refused; empty where it was read.
    """

    series: Series
    volume: Volume | None
    code: str


def parts_of(folder: Path) -> list[Part]:
    """Everything that ingest finds in a folder, in its order."""
    return [_read(series) for series in candidates(scan(folder).series)]


def _read(series: Series) -> Part:
    if series.fault is not None:
        return Part(series, None, series.fault.code)
    try:
        image = read(series).image
    except QuarantineError as error:
        return Part(series, None, error.code)
    return Part(series, canonical(image.numpy()[0], affine_of(image)), "")


def canonical(values: npt.ArrayLike, affine: npt.ArrayLike, rounding: float = 0.0) -> Volume:
    """A volume with its axes flipped and swapped to RAS+; no voxel is resampled."""
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(values, np.float64), affine))
    return Volume(np.asarray(image.dataobj), image.affine, rounding)


def references_of(path: Path) -> list[Volume]:
    """The volumes of a NIfTI file: one, or one for each time point, echo or direction of a 4D file."""
    image = nib.load(path)
    values = np.asarray(image.dataobj) * display_scale(path)
    stack = values if values.ndim == 4 else values[..., None]
    exact = np.issubdtype(values.dtype, np.integer)
    rounding = 0.0 if exact else SAME_VALUE * float(np.ptp(values))
    return [canonical(stack[..., index], image.affine, rounding) for index in range(stack.shape[3])]


def display_scale(path: Path) -> float | int:
    """What turns the values that dcm2niix writes for Philips into those of the standard's rescale.

    It divides them by Philips' private scale slope, and says so: value = display value / (rescale slope x scale slope).
    """
    sidecar = path.with_suffix(".json")
    facts = json.loads(sidecar.read_text()) if sidecar.is_file() else {}
    if not facts.get("UsePhilipsFloatNotDisplayScaling"):
        return 1
    return float(facts["PhilipsRescaleSlope"]) * float(facts["PhilipsScaleSlope"])


def difference(volume: Volume, reference: Volume) -> str:
    """What differs first, with its figure; empty when nothing does."""
    if volume.values.shape != reference.values.shape:
        return f"shape {volume.values.shape} instead of {reference.values.shape}"
    last = np.subtract(volume.values.shape, 1)
    corners = np.array([[*np.multiply(corner, last), 1] for corner in np.ndindex(2, 2, 2)])
    apart_mm = np.linalg.norm(corners @ (volume.affine - reference.affine).T[:, :3], axis=1).max()
    if apart_mm > SAME_PLACE_MM:
        return f"a corner lies {apart_mm:.3g} mm apart"
    apart = np.abs(volume.values - reference.values).max()
    return "" if apart <= reference.rounding else f"values differ by up to {apart:.6g}"


def pairs(parts: list[Part], references: list[Volume]) -> dict[int, int]:
    """Which part equals which reference, by their indices; each reference is used once."""
    found: dict[int, int] = {}
    for index, part in enumerate(parts):
        free = [number for number in range(len(references)) if number not in found.values()]
        equal = (n for n in free if part.volume is not None and not difference(part.volume, references[n]))
        number = next(equal, None)
        if number is not None:
            found[index] = number
    return found


def folder_of(path: Path, scratch: Path) -> Path:
    """The folder itself; for a single file one that holds a copy of it alone."""
    if path.is_dir():
        return path
    shutil.copy(path, scratch)
    return scratch
