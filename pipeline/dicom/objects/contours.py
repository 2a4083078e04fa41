"""Contours of an RTSTRUCT as a mask: which voxel centres lie inside the closed planar contours of a region."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from pipeline import geometry
from pipeline.dicom.objects.objects import read_object, referenced_series, refused_if_broken
from pipeline.errors import QuarantineError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Contours that enclose an area (DICOM PS3.3 C.8.8.6.1); POINT, OPEN_PLANAR and OPEN_NONPLANAR enclose none.
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
#: In slice steps: a contour may rise and fall by this much, and its distance to its slice may vary by this much between
#: contours. More is a contour of another plane or of another slice spacing; less is rounding.
PLANE_TOLERANCE = 0.25
#: In slice steps: contours that lie further from their slices are drawn beside them, which a flag says.
OFFSET_SEEN = 0.1
#: Voxel coordinates are rounded to this many decimals, so that noise does not decide on which side of a contour a voxel
#: lies whose centre it runs through.
DECIMALS = 6
_CONTOUR_DATA = 0x30060050


@dataclass(frozen=True)
class Region:
    """The contours of one region of interest.

    Attributes:
        name: ROIName (3006,0026): the hospital's free text.
        closed: vertices of each closed contour, (N, 3), LPS mm.
        others: how many points, open and degenerate contours there are beside them.
        frames: UIDs of the frames of reference that it names: its own (3006,0024), and those of the images that its
            contours name; where there are none, all of the structure set. Of more than one none is certain.
    """

    name: str
    closed: tuple[FloatArray, ...] = ()
    others: int = 0
    frames: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Filled:
    """A region on a grid.

    Attributes:
        mask: (I, J, K).
        flags: what a reader has to know (codes `N_...` with a sentence).
    """

    mask: BoolArray
    flags: tuple[str, ...] = ()


def read_regions(path: Path, patterns: Collection[str] = ("",)) -> list[Region]:
    """Read regions of an RTSTRUCT.

    Args:
        path: the file.
        patterns: regular expressions; a region is read when one of them is found in its name.

    Raises:
        QuarantineError: E_MASK when the file is cut or broken, a contour's numbers cannot be read, or a region's number
            is another's, too.
    """
    with refused_if_broken("structure set"):
        return _regions(read_object(path), patterns)


def _regions(dataset: Dataset, patterns: Collection[str]) -> list[Region]:
    wanted = [
        item
        for item in dataset.get("StructureSetROISequence", [])
        if any(re.search(pattern, str(item.get("ROIName", ""))) for pattern in patterns)
    ]
    drawn = dataset.get("ROIContourSequence", [])
    for items, key in ((dataset.get("StructureSetROISequence", []), "ROINumber"), (drawn, "ReferencedROINumber")):
        count = Counter(int(item[key].value) for item in items)
        if any(count[int(item.ROINumber)] > 1 for item in wanted):
            raise QuarantineError("E_MASK", f"Two regions have one {key}: which contours are whose is not known.")
    contours = {int(item.ReferencedROINumber): item for item in drawn}
    images = {
        str(image.ReferencedSOPInstanceUID): frame
        for frame, series in referenced_series(dataset)
        for image in series.get("ContourImageSequence", [])
    }
    items = dataset.get("ReferencedFrameOfReferenceSequence", [])
    frames = frozenset(str(item.get("FrameOfReferenceUID", "")) for item in items) - {""}
    regions = [_region(item, contours.get(int(item.ROINumber), Dataset()), images) for item in wanted]
    return [region if region.frames else replace(region, frames=frames) for region in regions]


def _region(roi: Dataset, item: Dataset, image_frames: Mapping[str, str]) -> Region:
    closed, others, frames = {}, 0, {str(roi.get("ReferencedFrameOfReferenceUID", "") or "")}
    for contour in item.get("ContourSequence", None) or []:
        images = contour.get("ContourImageSequence", None) or []
        frames |= {image_frames.get(str(image.get("ReferencedSOPInstanceUID", "")), "") for image in images}
        points = _points(contour)
        if contour.get("ContourGeometricType", "") in CLOSED and len(points) > 2:
            closed[points.tobytes()] = points  # a contour that is listed twice would cancel itself out
        else:
            others += 1
    return Region(str(roi.get("ROIName", "")), tuple(closed.values()), others, frozenset(frames - {""}))


def _points(contour: Dataset) -> FloatArray:
    """The vertices of a contour, (N, 3), LPS mm; read in one go, as pydicom's decimal strings take seconds."""
    raw: Any = contour.get_item(_CONTOUR_DATA).value if _CONTOUR_DATA in contour else b""
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else "\\".join(map(str, raw or ()))
    try:
        numbers = np.array([part for part in text.strip(" \0").split("\\") if part], dtype=np.float64)
    except ValueError as error:
        raise QuarantineError("E_MASK", "A contour holds something that is no number.") from error
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise QuarantineError("E_MASK", f"Expected finite triples of coordinates in a contour, got {len(numbers)}.")
    return numbers.reshape(-1, 3)


def fill(region: Region, shape: Sequence[int], affine: npt.ArrayLike) -> Filled:
    """Fill a region's closed contours: a voxel belongs to it when its centre lies inside.

    Contours of one slice are combined by exclusive or (even-odd), so a hole comes out whether it is a contour of its
    own or joined to the outer one by a keyhole, whatever sense either runs in.

    Args:
        region: with its contours in LPS mm.
        shape: voxels along I, J, K; K runs across the slices.
        affine: 4 x 4, voxel index to RAS mm.

    Raises:
        QuarantineError: E_MASK when contours lie in other planes than the slices, or outside of the volume.

    Source: DICOM PS3.3 C.8.8.6.3 (holes and XOR).
    """
    mask = np.zeros(tuple(shape[-3:]), dtype=np.bool_)
    to_voxel = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ geometry.LPS_RAS
    contours = [geometry.apply(to_voxel, points) for points in region.closed]
    slices, flags = _slices_of(contours, mask.shape[2]) if contours else (np.zeros(0, int), [])
    by_slice: defaultdict[int, list[FloatArray]] = defaultdict(list)
    for k, contour in zip(slices, contours, strict=True):
        by_slice[int(k)].append(np.round(contour[:, :2], DECIMALS))
    for k, polygons in by_slice.items():
        mask[:, :, k] = inside(polygons, mask.shape[0], mask.shape[1])
    if region.others:
        flags.append(f"N_OPEN_CONTOURS: {region.others} points and open contours were left out")
    if contours and _reach_beyond(contours, mask.shape):
        flags.append("N_MASK_CUT: contours reach beyond the image and were cut at its edge")
    return Filled(mask, tuple(flags))


def inside(polygons: Sequence[FloatArray], width: int, height: int) -> BoolArray:
    """Which whole-numbered points lie inside an odd number of closed polygons.

    Every edge flips all points of a row from where it crosses the row on. A point on an edge counts as inside where the
    polygon lies towards greater x (or y), and as outside else: neighbouring polygons share no point and lose none.

    Args:
        polygons: vertices (x, y), each (N, 2).
        width: points 0 … width - 1 along x.
        height: points 0 … height - 1 along y.

    Returns:
        (width, height).
    """
    starts = np.concatenate(polygons)
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    first = np.clip(np.ceil(low), 0, height).astype(int)
    counts = np.clip(np.ceil(high), 0, height).astype(int) - first
    edge = np.repeat(np.arange(len(starts)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (ends[edge, 0] - starts[edge, 0]) / (ends[edge, 1] - starts[edge, 1])
    crossing = np.round(starts[edge, 0] + (row - starts[edge, 1]) * slope, DECIMALS)
    flips = np.zeros((width + 1, height), dtype=np.int32)
    np.add.at(flips, (np.clip(np.ceil(crossing), 0, width).astype(int), row), 1)
    return np.asarray(np.cumsum(flips[:width], axis=0) % 2 == 1)


def _slices_of(contours: Sequence[FloatArray], slices: int) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The slice of each contour, and what is to be said about their places.

    Raises:
        QuarantineError: E_MASK.
    """
    lowest = np.array([points[:, 2].min() for points in contours])
    highest = np.array([points[:, 2].max() for points in contours])
    if (highest - lowest).max() > PLANE_TOLERANCE:
        tilted = int((highest - lowest > PLANE_TOLERANCE).sum())
        raise QuarantineError("E_MASK", f"{tilted} of {len(contours)} contours do not lie in the planes of the slices.")
    heights = (lowest + highest) / 2
    offset = _common_offset(heights)
    nearest = np.rint(heights - offset).astype(np.int64)
    if np.ptp(heights - nearest) > PLANE_TOLERANCE:
        raise QuarantineError("E_MASK", "The contours lie between the slices: they were drawn on another spacing.")
    outside = int(((nearest < 0) | (nearest >= slices)).sum())
    if outside:
        raise QuarantineError("E_MASK", f"{outside} of {len(contours)} contours lie beyond the ends of the image.")
    flags = []
    if abs(offset) > OFFSET_SEEN:
        flags.append(f"N_CONTOUR_OFFSET: the contours lie {abs(offset):.2f} slice steps beside the slices")
    empty = int(np.ptp(nearest)) + 1 - len(np.unique(nearest))
    if empty:
        flags.append(f"N_CONTOUR_GAPS: {empty} slices between the first and the last contour have none")
    return nearest, flags


def _common_offset(heights: FloatArray) -> float:
    """By how many steps all contours lie beside their slices, from -0.5 to 0.5: the mean angle on a step's circle."""
    turn = np.exp(2j * np.pi * heights).mean()
    return float(np.angle(turn) / (2 * np.pi))


def _reach_beyond(contours: Sequence[FloatArray], shape: Sequence[int]) -> bool:
    points = np.concatenate(contours)[:, :2]
    return bool((points < -0.5).any() or (points > np.asarray(shape[:2]) - 0.5).any())
