"""Slices of a volume as a radiologist looks at them: orientation, windows, checkerboards and overlays. Plain arrays.

The volume's axes I, J, K run to the patient's right, front and head (RAS+). Pictures have row 0 at the top and column 0
at the left; the patient's right is at the left of axial and coronal pictures, the front at the left of sagittal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion
from skimage.transform import resize

FloatArray = npt.NDArray[np.floating]
Triple = tuple[int, int, int]

#: Plane -> the axis that it is perpendicular to.
PLANES: dict[str, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
#: Plane -> letters at the left, right, top and bottom edge.
LETTERS: dict[str, str] = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
#: How thick an outline is.
OUTLINE_PIXELS = 2


@dataclass(frozen=True)
class Frame:
    """What of a grid is drawn: the point that the three planes share, and the box to which they are cropped.

    Attributes:
        centre: voxel index (i, j, k) of the planes.
        low: first voxel of the box.
        high: voxel after the last one of the box.
    """

    centre: Triple
    low: Triple
    high: Triple


def plane_slice(array: npt.NDArray, plane: str, frame: Frame) -> npt.NDArray:
    """Cut one plane out of a volume, radiological display.

    Args:
        array: (I, J, K), axes to the patient's right, front and head.
        plane: `axial`, `coronal` or `sagittal`.
        frame: where the plane lies and how it is cropped.

    Returns:
        (rows, columns); axial: (J, I) from front to back and from right to left; coronal: (K, I) from head to feet and
        from right to left; sagittal: (K, J) from head to feet and from front to back.
    """
    axis = PLANES[plane]
    index: list[slice | int] = [slice(low, high) for low, high in zip(frame.low, frame.high, strict=True)]
    index[axis] = frame.centre[axis]
    # The remaining two axes become (column, row), both against their direction.
    return array[tuple(index)].T[::-1, ::-1]


def plane_spacing(spacing_mm: npt.ArrayLike, plane: str) -> tuple[float, float]:
    """Distance between rows and between columns of a plane's picture, mm, from the spacing along I, J, K."""
    between_columns, between_rows = np.delete(np.asarray(spacing_mm, float), PLANES[plane])
    return float(between_rows), float(between_columns)


def to_pixels(image: FloatArray, spacing_mm: tuple[float, float], pixel_mm: float) -> FloatArray:
    """Interpolate a picture linearly to square pixels, so that its sides are in physical proportion.

    Args:
        image: (rows, columns).
        spacing_mm: between rows, between columns.
        pixel_mm: side of a pixel.
    """
    shape = _pixel_shape(image.shape, spacing_mm, pixel_mm)
    return np.asarray(resize(image, shape, order=1, mode="edge", anti_aliasing=True, preserve_range=True))


def to_label_pixels(labels: npt.NDArray, spacing_mm: tuple[float, float], pixel_mm: float) -> npt.NDArray:
    """A picture of labels in the same pixels as `to_pixels` gives: each has the label of the voxel that it lies in."""
    shape = _pixel_shape(labels.shape, spacing_mm, pixel_mm)
    rows, columns = (
        ((np.arange(pixels) + 0.5) * size / pixels).astype(int)
        for pixels, size in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def _pixel_shape(shape: tuple[int, ...], spacing_mm: tuple[float, float], pixel_mm: float) -> list[int]:
    return [max(1, round(size * mm / pixel_mm)) for size, mm in zip(shape, spacing_mm, strict=True)]


def outline(inside: npt.NDArray) -> npt.NDArray[np.bool_]:
    """The outermost pixels inside a region; where the picture cuts it there is no edge.

    Args:
        inside: (rows, columns), True in the region.
    """
    return np.asarray(inside & ~binary_erosion(inside, iterations=OUTLINE_PIXELS, border_value=1))


def windowed(image: npt.NDArray, window: tuple[float, float]) -> FloatArray:
    """Values as grey in [0, 1]: 0 at and below the window's low end, 1 at and above its high end; not finite is 0."""
    low, high = window
    finite = np.nan_to_num(np.asarray(image, np.float64), nan=low, posinf=high, neginf=low)
    return np.clip((finite - low) / max(high - low, np.finfo(float).tiny), 0.0, 1.0)


def robust_window(array: npt.NDArray, percentiles: tuple[float, float] = (1.0, 99.5)) -> tuple[float, float]:
    """Window from percentiles of the voxels above the minimum, so that padding and empty air do not weigh.

    Returns:
        Low and high end; (minimum, minimum + 1) for a constant image.
    """
    finite = array[np.isfinite(array)]
    lowest = float(finite.min()) if finite.size else 0.0
    inside = finite[finite > lowest]
    if not inside.size:
        return lowest, lowest + 1.0
    low, high = np.percentile(inside, percentiles)
    return (float(low), float(high)) if high > low else (lowest, float(inside.max()))


def checkerboard(first: npt.NDArray, second: npt.NDArray, tile: int) -> npt.NDArray:
    """Alternate square tiles of two pictures; the tile at the top left is the first picture's.

    Args:
        first: (rows, columns, 3).
        second: (rows, columns, 3).
        tile: side in pixels.
    """
    row, column = np.indices(first.shape[:2])
    return np.where(((row // tile + column // tile) % 2 == 0)[..., None], first, second)


def overlay(below: FloatArray, moving: FloatArray, colours: FloatArray, alpha: float = 0.65) -> FloatArray:
    """Lay a picture in colour over another; where it is dark it is transparent.

    Args:
        below: (rows, columns, 3) in [0, 1].
        moving: (rows, columns) in [0, 1].
        colours: (N, 3) RGB in [0, 1], from dark to bright.
        alpha: opacity of the brightest colour.

    Returns:
        (rows, columns, 3) in [0, 1].
    """
    colour = colours[np.round(moving * (len(colours) - 1)).astype(int)]
    weight = (alpha * moving)[..., None]
    return below * (1 - weight) + colour * weight
