"""Slices of a volume as a radiologist looks at them: orientation, windows, checkerboards and overlays. Plain arrays.

The volume's axes I, J, K run to the patient's right, front and head (RAS+). Pictures have row 0 at the top and column 0
at the left; the patient's right is at the left of axial and coronal pictures, the front at the left of sagittal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from monai.data import MetaTensor
from PIL import Image
from scipy.ndimage import binary_erosion

from pipeline.body import body_mask
from pipeline.errors import CaseError
from pipeline.geometry import same_grid, spacing_mm
from pipeline.volumes import affine_of, from_sitk, to_sitk, volume

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
    rows, columns = _pixel_shape(image.shape, spacing_mm, pixel_mm)
    picture = Image.fromarray(np.asarray(image, np.float32))  # faster than scikit-image
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR), np.float64)


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


#: A body is found on a coarser grid: a box to 4 mm is enough for a picture, and 60 times as fast.
COARSE_MM = 4.0
MARGIN_MM = 8.0


def voxels(image: MetaTensor, channel: int = 0) -> npt.NDArray:
    """One channel's voxels, (I, J, K)."""
    return np.asarray(image.detach().cpu().numpy()[channel])


def through_headers(moving: MetaTensor, grid: MetaTensor, labels: bool = False) -> MetaTensor:
    """Put an image on another's grid by the headers alone: the identity in world space, as a viewer would.

    Args:
        moving: (1, I, J, K).
        grid: (C, I, J, K) whose grid is wanted.
        labels: the values are labels: each voxel takes the nearest one's, and 0 outside the field of view.

    Returns:
        (1, I, J, K) on that grid: the image itself where it is there already; else interpolated linearly, with its
        minimum outside its field of view.
    """
    if same_grid(moving.shape, affine_of(moving), grid.shape, affine_of(grid)):
        return moving
    values = np.nan_to_num(voxels(moving).astype(np.float32))
    source, target = to_sitk(volume(values, affine_of(moving))), to_sitk(grid[:1])
    how, outside = (sitk.sitkNearestNeighbor, 0.0) if labels else (sitk.sitkLinear, float(values.min()))
    return from_sitk(sitk.Resample(source, target, sitk.Transform(), how, outside))


def body_frame(fixed: MetaTensor, modality: str, moving: MetaTensor | None = None) -> Frame:
    """The box around the patient and the planes through its centre.

    Where the moving image shows none of the centre, the planes run through the middle of what it shows of the box: a
    comparison needs both images.

    Args:
        fixed: (C, I, J, K), canonical axes.
        modality: DICOM Modality of the fixed image.
        moving: (1, I, J, K) on the fixed grid.

    Returns:
        The frame; of the whole grid when nothing in the fixed image is body.
    """
    shape = np.asarray(fixed.shape[-3:])
    low, high = _body_box(fixed, modality)
    margin = np.ceil(MARGIN_MM / spacing_mm(affine_of(fixed))).astype(int)
    centre = (low + high) // 2
    if moving is not None:
        shown_low, shown_high = box_of(voxels(moving) > np.nanmin(voxels(moving)))
        centre = _shared_centre(centre, np.maximum(low, shown_low), np.minimum(high, shown_high))
    return Frame(
        triple(np.clip(centre, 0, shape - 1)),
        triple(np.maximum(low - margin, 0)),
        triple(np.minimum(high + margin, shape)),
    )


def _shared_centre(centre: npt.NDArray, low: npt.NDArray, high: npt.NDArray) -> npt.NDArray:
    apart = np.any(low >= high)
    inside = np.all((centre >= low) & (centre < high))
    return centre if apart or inside else (low + high) // 2


def _body_box(image: MetaTensor, modality: str) -> tuple[npt.NDArray, npt.NDArray]:
    """First voxel and voxel after the last one of the body, each (3,)."""
    step = np.maximum(1, COARSE_MM // spacing_mm(affine_of(image))).astype(int)
    coarse = np.nan_to_num(voxels(image).astype(np.float32))[:: step[0], :: step[1], :: step[2]]
    affine = affine_of(image) @ np.diag([*step, 1.0])
    try:
        mask = voxels(body_mask(volume(coarse, affine), modality)) > 0
    except CaseError:
        # A blank image is a finding that the report has to show, not a reason to have no report.
        mask = np.ones(coarse.shape, bool)
    low, high = box_of(mask)
    return low * step, np.minimum(high * step, image.shape[-3:])


def box_of(mask: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    """First and after-last index of what is set, each (3,); of the whole array where nothing is."""
    if not mask.any():
        return np.zeros(3, int), np.asarray(mask.shape)
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([span[0] for span in spans]), np.array([span[-1] + 1 for span in spans])


def triple(index: npt.NDArray) -> Triple:
    """An index (3,) as whole numbers of Python's."""
    return int(index[0]), int(index[1]), int(index[2])
