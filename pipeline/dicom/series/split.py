"""Take a series apart that holds several volumes: other grids first, then what repeats at the same positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.grids import Grid, grids_of, name_grids
from pipeline.dicom.series.radiograph import is_radiograph, one_by_one
from pipeline.dicom.series.repeats import Volume, drop_copies, volumes_of
from pipeline.dicom.series.stack import along_mm
from pipeline.errors import REMEDIES

#: A part of no more slices beside one that has more than twice as many is no volume: it is strayed from it, or a
#: localizer.
STRAY_SLICES = 3


def split(series: Series) -> list[Series]:
    """Take a series apart into volumes.

    Args:
        series: as scanned.

    Returns:
        The parts, each with its `part` and the note N_SPLIT; the series alone where it is one volume, or where
        nothing tells its volumes apart. Radiographs are parts of their own, one an image.
    """
    series = drop_copies(series)
    if series.fault is not None:
        return [series]
    if is_radiograph(series):
        return one_by_one(series)
    placed = [item for item in (*series.instances, *series.rejected) if _is_placed(item)]
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


def _is_placed(instance: Instance) -> bool:
    return not (instance.position is None or instance.orientation is None or instance.spacing_mm is None)


def _part(series: Series, grid: str, volume: Volume, beside: Sequence[Instance]) -> Series:
    """One volume as a series of its own; a file whose place is unknown may be missing in any of them."""
    members = [*volume.instances, *beside]
    fault = None
    if volume.missing:
        total = len(volume.instances) + volume.missing
        message = f"{volume.missing} of {total} slices are missing: the other volumes of the series have them."
        fault = Fault("E_GAP", message, REMEDIES["E_GAP"])
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
    return replace(part, fault=part.fault or Fault("E_SINGLE_SLICE", message, REMEDIES["E_SINGLE_SLICE"]))


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
    return replace(part, fault=part.fault or Fault("E_GAP", message, REMEDIES["E_GAP"]))
