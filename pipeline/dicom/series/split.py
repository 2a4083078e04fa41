"""Take a series apart that holds several volumes, and put one volume together that was stored as several series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.radiograph import is_radiograph, one_by_one
from pipeline.dicom.series.repeats import Volume, drop_copies, volumes_of
from pipeline.dicom.series.stack import (
    DIRECTION_TOLERANCE,
    SAME_POSITION_MM,
    STEP_TOLERANCE_MM,
    along_mm,
    is_placed,
    sorted_stack,
)

#: Pixel spacings count as equal within this part of them.
SPACING_TOLERANCE = 1e-4


class Grid(NamedTuple):
    """What the slices of one volume share.

    Attributes:
        localizer: ImageType (0008,0008) says LOCALIZER.
        kind: SOPClassUID: a screenshot among slices is no slice.
        orientation: ImageOrientationPatient.
        matrix: rows and columns.
        spacing_mm: PixelSpacing.
    """

    localizer: bool
    kind: str
    orientation: tuple[float, ...]
    matrix: tuple[int, int]
    spacing_mm: tuple[float, ...]

    def differs(self, other: Grid) -> str:
        """What differs between two grids, in a word; empty where they are one."""
        if self.localizer != other.localizer:
            return "localizer"
        if self.kind != other.kind:
            return "kind"
        if np.abs(np.subtract(self.orientation, other.orientation)).max() > DIRECTION_TOLERANCE:
            return "orientation"
        if self.matrix != other.matrix:
            return "matrix"
        apart = np.abs(np.subtract(self.spacing_mm, other.spacing_mm)).max()
        return "spacing" if apart > SPACING_TOLERANCE * min(other.spacing_mm) else ""


def grids_of(instances: Sequence[Instance]) -> list[tuple[Grid, list[Instance]]]:
    """Instances, all with orientation and spacing, by grid, the largest group first."""
    groups: list[tuple[Grid, list[Instance]]] = []
    known: dict[Grid, int] = {}
    for instance in instances:
        grid = _grid(instance)
        if grid not in known:
            same = (index for index, (other, _) in enumerate(groups) if not grid.differs(other))
            known[grid] = next(same, len(groups))
            if known[grid] == len(groups):
                groups.append((grid, []))
        groups[known[grid]][1].append(instance)
    return sorted(groups, key=lambda group: (group[0].localizer, -len(group[1]), group[0]))


def name_grids(grids: Sequence[Grid]) -> list[str]:
    """Each grid's name among the others, such as `orientation 2 of 3`; empty where there is one alone."""
    if len(grids) == 1:
        return [""]
    words = {grid.differs(other) for grid in grids for other in grids} - {""}
    word = words.pop() if len(words) == 1 else "grid"
    return [f"{word} {index} of {len(grids)}" for index in range(1, len(grids) + 1)]


def _grid(instance: Instance) -> Grid:
    return Grid(
        "LOCALIZER" in instance.tags.get("ImageType", "").split("\\"),
        instance.tags.get("SOPClassUID", ""),
        instance.orientation or (),
        (instance.rows, instance.columns),
        instance.spacing_mm or (),
    )


#: A part of no more slices beside one that has more than twice as many is no volume: it is strayed from it, or a
#: localizer.
STRAY_SLICES = 3


def split(series: Series) -> list[Series]:
    """Take a series, as scanned, apart into volumes.

    Returns:
        The parts, each with its `part` and the note N_SPLIT; the series alone where it is one volume, or where
        nothing tells its volumes apart. Radiographs are parts of their own, one an image.
    """
    series = drop_copies(series)
    if series.fault is not None:
        return [series]
    if is_radiograph(series):
        return one_by_one(series)
    placed = [item for item in (*series.instances, *series.rejected) if is_placed(item)]
    grids = [grid for grid in grids_of(placed) if any(item.fault is None for item in grid[1])]
    if not grids:
        return [series]
    names, kept = name_grids([grid for grid, _ in grids]), {id(item) for _, members in grids for item in members}
    unplaced = [item for item in series.instances if id(item) not in kept]
    lost = [item for item in series.rejected if id(item) not in kept]
    parts: list[Series] = []
    for index, (name, (grid, members)) in enumerate(zip(names, grids, strict=True)):
        beside = [*unplaced, *lost] if index == 0 else lost
        stray = index > 0 and (grid.localizer != grids[0][0].localizer or _are_few(members, grids[0][1]))
        found = [_part(series, name, volume, beside) for volume in volumes_of(members)]
        parts += [_as_stray(part) for part in found] if stray else found
    if len(parts) == 1:
        return [replace(series, fault=parts[0].fault)]
    strays = [grid for grid in grids[1:] if _are_few(grid[1], grids[0][1])]
    if any(_continues(grids[0], stray) for stray in strays):
        parts = [_lacking(part) if part.part.startswith(names[0]) else part for part in parts]
    return parts


def _part(series: Series, grid: str, volume: Volume, beside: Sequence[Instance]) -> Series:
    """One volume as a series of its own; a file whose place is unknown may be missing in any of them."""
    members = [*volume.instances, *beside]
    fault = None
    if volume.missing:
        total = len(volume.instances) + volume.missing
        message = f"{volume.missing} of {total} slices are missing: the other volumes of the series have them."
        fault = Fault.of("E_GAP", message)
    return replace(
        series,
        instances=tuple(item for item in members if item.fault is None),
        rejected=tuple(item for item in members if item.fault is not None),
        notes=(*series.notes, "N_SPLIT", *(("N_ENDS_MISSING",) if volume.cut else ())),
        part=", ".join(filter(None, (grid, volume.name))),
        fault=fault,
    )


def _are_few(members: Sequence[Instance], main: Sequence[Instance]) -> bool:
    return len(members) <= STRAY_SLICES and len(members) < len(main) / 2


def _as_stray(part: Series) -> Series:
    message = f"Expected a volume, got {len(part.instances)} slices beside those of the series' own volume."
    return replace(part, fault=part.fault or Fault.of("E_SINGLE_SLICE", message))


def _continues(main: tuple[Grid, Sequence[Instance]], stray: tuple[Grid, Sequence[Instance]]) -> bool:
    """Whether a stray slice lies where the next one of the stack would: then the stack has lost it at its end.

    A slice lost in the middle leaves a gap, which the gate sees.
    """
    if stray[0].localizer != main[0].localizer or stray[0].kind != main[0].kind:
        return False
    axis = along_mm(main[1])
    step = float(np.median(np.diff(np.unique(axis)))) if np.ptp(axis) > 0 else 0.0
    first = main[1][0]
    where = along_mm([first, *stray[1]])[1:]
    beyond = np.maximum(axis.min() - where, where - axis.max())
    aside = np.array([item.position for item in stray[1]], float) - np.asarray(first.position, float)
    field_mm = max(first.rows, first.columns) * max(first.spacing_mm or (0.0,))
    near = np.linalg.norm(aside, axis=1) <= field_mm + np.ptp(axis)
    return bool((near & (beyond > 0) & (beyond < 1.5 * step)).any())


def _lacking(part: Series) -> Series:
    message = "A slice at the end of the stack differs in size, spacing or orientation: it is missing."
    return replace(part, fault=part.fault or Fault.of("E_GAP", message))


#: What all series of one acquisition share; a value that differs makes them two.
_SHARED_TAGS = (
    *("FrameOfReferenceUID", "SOPClassUID", "SeriesDescription", "ImageType", "ConvolutionKernel", "EchoTime"),
    *("EchoNumbers", "InversionTime", "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber"),
    *("SliceThickness", "Manufacturer"),
)


def merge(series: Sequence[Series]) -> list[Series]:
    """Join series, after `split`, that continue or interleave each other exactly.

    Returns:
        The series; of those that were joined one, under the first one's UID, with the note N_MERGED.
    """
    groups: defaultdict[Hashable, list[Series]] = defaultdict(list)
    for index, item in enumerate(series):
        groups[_shared(item) or index].append(item)
    result: list[Series] = []
    for members in groups.values():
        joined = _joined(members) if len(members) > 1 else None
        result += [joined] if joined is not None else members
    return result


def _shared(series: Series) -> Hashable | None:
    """What has to be equal; None for a series that cannot be a part of another."""
    if series.fault is not None or series.part or series.rejected or len(series.instances) < 2:
        return None
    first = series.instances[0]
    if not first.tags.get("FrameOfReferenceUID") or any(item.position is None for item in series.instances):
        return None
    if first.orientation is None or first.spacing_mm is None:
        return None
    orientation = tuple(np.round(first.orientation, 3) + 0.0)
    grid = (orientation, tuple(np.round(first.spacing_mm, 4)), first.rows, first.columns)
    owner = (series.patient_id, series.study_uid, series.modality)
    return (*owner, *grid, *(first.tags.get(tag, "") for tag in _SHARED_TAGS))


def _joined(members: Sequence[Series]) -> Series | None:
    """The members as one series where together, and only together, they are one even stack."""
    everything = [instance for member in members for instance in member.instances]
    numbers = [instance.tags.get("InstanceNumber", "") for instance in everything]
    if len(set(numbers)) < len(numbers) or _are_stations(members):
        return None
    whole = sorted_stack(everything)
    if whole.steps_mm.min() <= SAME_POSITION_MM or np.ptp(whole.steps_mm) > whole.tolerance_mm:
        return None
    if whole.stray_mm.max() > STEP_TOLERANCE_MM:
        return None
    notes = tuple(sorted({note for member in members for note in member.notes}))
    return replace(members[0], instances=tuple(everything), notes=(*notes, "N_MERGED"))


def _are_stations(members: Sequence[Series]) -> bool:
    """Whether the series were acquired one after the other: each at one time, and the times differ."""
    times = [{instance.tags.get("AcquisitionTime", "") for instance in member.instances} for member in members]
    return all(len(time) == 1 for time in times) and len(set.union(*times)) > 1
