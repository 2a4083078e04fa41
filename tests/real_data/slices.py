"""An oracle of our own: DICOM slices as pydicom reads them, asked at the points of a volume's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.misc
from scipy.ndimage import map_coordinates

from tests.real_data.references import Volume

FloatArray = npt.NDArray[np.float64]
LPS = np.array([-1.0, -1.0, 1.0])
#: A point that is nearer to a pixel's centre than this part of its size lies on it: headers give 1e-6 mm.
ON_A_PIXEL = 1e-4
#: A slice may lie so far off the layer that it is compared with: PET positions are rounded at every bed position.
OFF_PLANE_MM = 0.06


@dataclass(frozen=True)
class Slice:
    """One slice: values (rows, columns) in real-world units, and where it lies in RAS mm."""

    values: FloatArray
    position: FloatArray
    row: FloatArray
    column: FloatArray
    spacing_mm: tuple[float, float]


def slices_of(*files: Path) -> list[Slice]:
    """The slices of single-frame and enhanced multi-frame files."""
    return [found for path in files for found in _of_file(pydicom.dcmread(path))]


def images_below(folder: Path) -> list[Path]:
    """The DICOM files of a folder that hold an image with a place."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and pydicom.misc.is_dicom(path)]
    return [path for path in files if "ImagePositionPatient" in pydicom.dcmread(path, stop_before_pixels=True)]


def _of_file(dataset: pydicom.Dataset) -> list[Slice]:
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return [_slice(dataset.pixel_array, [dataset])]
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    groups = dataset.PerFrameFunctionalGroupsSequence
    frames = dataset.pixel_array.reshape(len(groups), dataset.Rows, dataset.Columns)
    return [_slice(values, _items(shared, group)) for values, group in zip(frames, groups, strict=True)]


def _items(shared: list[pydicom.Dataset], group: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The items of a frame's own functional groups, then those of the shared ones."""
    return [
        element.value[0] for groups in (group, *shared) for element in groups if element.VR == "SQ" and element.value
    ]


def _slice(stored: npt.NDArray[np.generic], items: list[pydicom.Dataset]) -> Slice:
    axes = np.array(_value(items, "ImageOrientationPatient"), float).reshape(2, 3) * LPS
    spacing = _value(items, "PixelSpacing")
    slope, intercept = (
        float(_value(items, f"Rescale{name}", default)) for name, default in (("Slope", 1), ("Intercept", 0))
    )
    position = np.array(_value(items, "ImagePositionPatient"), float) * LPS
    return Slice(stored * slope + intercept, position, axes[0], axes[1], (float(spacing[0]), float(spacing[1])))


def _value(items: list[pydicom.Dataset], keyword: str, default: Any = None) -> Any:
    return next((item[keyword].value for item in items if keyword in item), default)


def worst_error(volume: Volume, slices: list[Slice]) -> float:
    """The largest difference between a volume and slices, where the slices have values.

    Args:
        volume: each of its layers across `slices` lies in the plane of one of them.
        slices: interpolated linearly within their plane, where the grid's points fall between their pixels.

    Returns:
        In the unit of the values; infinite when a slice has no layer, or fewer than half of its points are on the grid.
    """
    normal = np.cross(slices[0].row, slices[0].column)
    across = int(np.argmax(np.abs(normal @ volume.affine[:3, :3])))
    return max(_error(volume, one, across, normal) for one in slices)


def _error(volume: Volume, one: Slice, across: int, normal: FloatArray) -> float:
    step = volume.affine[:3, across] @ normal
    layer = ((one.position - volume.affine[:3, 3]) @ normal) / step
    index = round(layer)
    if not 0 <= index < volume.values.shape[across] or abs(layer - index) * abs(step) > OFF_PLANE_MM:
        return float("inf")
    shape = [1 if axis == across else size for axis, size in enumerate(volume.values.shape)]
    points = np.indices(shape).reshape(3, -1)
    points[across] = index
    offsets = (volume.affine[:3, :3] @ points).T + volume.affine[:3, 3] - one.position
    pixels = np.array([offsets @ one.column / one.spacing_mm[0], offsets @ one.row / one.spacing_mm[1]])
    whole = np.round(pixels)
    pixels = np.where(np.abs(pixels - whole) < ON_A_PIXEL, whole, pixels)
    wanted = map_coordinates(one.values, pixels, order=1, cval=np.nan)
    error = np.abs(volume.values[tuple(points)] - wanted)
    return float(np.nanmax(error)) if np.isfinite(error).sum() > one.values.size / 2 else float("inf")
