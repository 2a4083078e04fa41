"""Segments of a DICOM SEG as masks, each frame placed where its geometry says, voxel by voxel and exactly."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.uid import UID

from pipeline import geometry
from pipeline.cases import Instance
from pipeline.dicom.objects.objects import read_object, refused_if_broken
from pipeline.dicom.pixels.pixels import stored_values
from pipeline.errors import QuarantineError
from pipeline.words import counted

BoolArray = npt.NDArray[np.bool_]

#: A FRACTIONAL segment holds a voxel from this part of MaximumFractionalValue on (probability or occupancy).
THRESHOLD = 0.5
#: In voxels: how far a frame's pixels may miss the voxels of the grid. More is another grid; less is rounding.
GRID_TOLERANCE = 0.05


@dataclass(frozen=True)
class Frame:
    """One frame of a SEG.

    Attributes:
        number: of the frame within the file, from 0.
        segment: number of the segment that it shows; None where the pixel values are the segments' numbers.
        affine: 4 x 4, pixel (column, row, 0) to LPS mm. The third column is the unit normal.
    """

    number: int
    segment: int | None
    affine: geometry.FloatArray


@dataclass(frozen=True)
class Segmentation:
    """A SEG object without its pixels.

    Attributes:
        instance: the file, as scanned.
        kind: SegmentationType (0062,0001): BINARY, FRACTIONAL or LABELMAP.
        labels: SegmentNumber (0062,0004) -> SegmentLabel (0062,0005): free text.
        frames: in the order of the file.
        maximum: MaximumFractionalValue (0062,000E).
    """

    instance: Instance
    kind: str
    labels: dict[int, str]
    frames: tuple[Frame, ...]
    maximum: int


def read_segmentation(instance: Instance) -> Segmentation:
    """Read what a SEG object holds, without its pixels.

    Raises:
        QuarantineError: E_MASK when it is broken, two segments have one number, or a frame does not say which
            segment it shows, or where it lies.
    """
    with refused_if_broken("segmentation"):
        dataset = read_object(instance.path)
    kind = str(dataset.get("SegmentationType", ""))
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise QuarantineError(
            "E_MASK", f"Expected a BINARY, FRACTIONAL or LABELMAP segmentation, got {kind or 'none'}."
        )
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence", [])
    try:
        frames = tuple(_frame(number, group, shared, kind) for number, group in enumerate(per_frame))
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise QuarantineError("E_MASK", "A frame of the segmentation has no segment number or no geometry.") from error
    labels = labels_of(dataset)
    if len(labels) < len(dataset.get("SegmentSequence", [])):
        raise QuarantineError("E_MASK", "Two segments have one SegmentNumber: which frames are whose is not known.")
    maximum = int(dataset.get("MaximumFractionalValue", 0) or 0)
    if kind == "FRACTIONAL" and maximum <= 0:
        raise QuarantineError("E_MASK", "The segmentation is FRACTIONAL and has no MaximumFractionalValue.")
    return Segmentation(instance, kind, labels, frames, maximum)


def labels_of(dataset: Dataset) -> dict[int, str]:
    """Number and label of each segment."""
    segments = dataset.get("SegmentSequence", [])
    return {int(segment.SegmentNumber): str(segment.get("SegmentLabel", "")) for segment in segments}


def _frame(number: int, group: Dataset, shared: Dataset, kind: str) -> Frame:
    plane = _functional("PlaneOrientationSequence", group, shared).ImageOrientationPatient
    position = _functional("PlanePositionSequence", group, shared).ImagePositionPatient
    spacing = _functional("PixelMeasuresSequence", group, shared).PixelSpacing
    row, column = np.asarray(plane[:3], float), np.asarray(plane[3:], float)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * float(spacing[1]), column * float(spacing[0]), np.cross(row, column)], axis=1)
    affine[:3, 3] = np.asarray(position, float)
    if kind == "LABELMAP":
        return Frame(number, None, affine)
    segment = _functional("SegmentIdentificationSequence", group, shared).ReferencedSegmentNumber
    return Frame(number, int(segment), affine)


def _functional(keyword: str, group: Dataset, shared: Dataset) -> Dataset:
    """A functional group of a frame, or the one that all frames share."""
    return _first(group, keyword) if group.get(keyword) else _first(shared, keyword)


def _first(dataset: Dataset, keyword: str) -> Dataset:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else Dataset()


def place(
    segmentation: Segmentation, segments: Collection[int], shape: Sequence[int], affine: npt.ArrayLike
) -> BoolArray:
    """Put the frames of some segments onto a grid; nothing is resampled.

    The object may hold some of the grid's slices only, in any order, and its planes may run along other axes of the
    grid: a frame is placed wherever each of its pixels meets one voxel.

    Args:
        segmentation: the object.
        segments: numbers of the segments that are united.
        shape: voxels along I, J, K.
        affine: 4 x 4, voxel index to RAS mm.

    Returns:
        (I, J, K).

    Raises:
        QuarantineError: E_GRID when a frame that shows something is not on the grid or reaches beyond it, E_MASK when
            its pixels cannot be read.

    Source: DICOM PS3.3 C.8.20.2 (Segmentation Image Module), C.7.6.2.1.1 (plane geometry).
    """
    mask = np.zeros(tuple(shape[-3:]), dtype=np.bool_)
    to_voxel = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ geometry.LPS_RAS
    for frame, pixels in _decoded(segmentation, segments):
        shown = _shown(segmentation, segments, pixels)
        if shown.any():
            _put(mask, shown.T, to_voxel @ frame.affine)
    return mask


def _decoded(segmentation: Segmentation, segments: Collection[int]) -> Iterator[tuple[Frame, npt.NDArray[Any]]]:
    """The wanted frames with their pixels, (rows, columns)."""
    wanted = [frame for frame in segmentation.frames if frame.segment is None or frame.segment in segments]
    instance = segmentation.instance
    if not wanted:
        return
    if instance.pixels is None:
        raise QuarantineError("E_MASK", "The segmentation has no pixel data.")
    if UID(instance.pixels.syntax).is_encapsulated:
        for index, values in stored_values([replace(instance, frame=frame.number) for frame in wanted]):
            yield wanted[index], values
        return
    try:
        dataset = read_object(instance.path, pixels=True)
        dataset.file_meta.TransferSyntaxUID = UID(instance.pixels.syntax)
        yield from zip(wanted, iter_pixels(dataset, indices=[frame.number for frame in wanted]), strict=True)
    except Exception as error:  # pydicom raises many kinds; all mean that the pixels are not to be had
        raise QuarantineError(
            "E_MASK", f"The segmentation's pixels cannot be read ({type(error).__name__})."
        ) from error


def _shown(segmentation: Segmentation, segments: Collection[int], pixels: npt.NDArray[Any]) -> BoolArray:
    if segmentation.kind == "LABELMAP":
        return np.isin(pixels, list(segments))
    if segmentation.kind == "FRACTIONAL":
        return np.asarray(pixels >= THRESHOLD * segmentation.maximum)
    return np.asarray(pixels > 0)


def _put(mask: BoolArray, shown: BoolArray, to_voxel: geometry.FloatArray) -> None:
    """Mark a frame's pixels (columns, rows) in the mask.

    Raises:
        QuarantineError: E_GRID.
    """
    size = np.array([*shown.shape, 1])
    corners = geometry.apply(to_voxel, [(i, j, 0) for i in (0, size[0] - 1) for j in (0, size[1] - 1)])
    steps = np.rint(to_voxel[:3, :2])
    origin = np.rint(to_voxel[:3, 3])
    exact = [origin + i * steps[:, 0] + j * steps[:, 1] for i in (0, size[0] - 1) for j in (0, size[1] - 1)]
    along_axes = (np.abs(steps).sum(axis=0) == 1).all() and np.abs(steps).sum(axis=1).max() == 1
    off = float(np.abs(corners - exact).max())
    if not along_axes or off > GRID_TOLERANCE:
        how = f"up to {off:.2g} voxels beside them" if along_axes else "its pixels are turned or of another size"
        what = f"The segmentation does not lie on the voxels of the image that it refers to: {how}."
        raise QuarantineError("E_GRID", what)
    columns, rows = np.nonzero(shown)
    voxels = (origin[:, None] + steps @ np.stack([columns, rows])).astype(np.int64)
    over = int(np.maximum(-voxels, voxels - np.array(mask.shape)[:, None] + 1).max(initial=0))
    if over > 0:
        beyond = counted(over, "voxel")
        raise QuarantineError("E_GRID", f"The segmentation reaches {beyond} beyond the image that it refers to.")
    mask[tuple(voxels)] = True
