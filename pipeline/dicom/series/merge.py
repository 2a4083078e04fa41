"""Put one acquisition together that was stored as several series, so that each of them is a part of the volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.cases import Instance, Series
from pipeline.dicom.series.stack import SAME_POSITION_MM, STEP_TOLERANCE, STEP_TOLERANCE_MM, Stack, stack_of

#: What all series of one acquisition share; a value that differs makes them two.
_SHARED_TAGS = (
    "FrameOfReferenceUID",
    "SOPClassUID",
    "SeriesDescription",
    "ImageType",
    "ConvolutionKernel",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "SliceThickness",
    "Manufacturer",
)


def merge(series: Sequence[Series]) -> list[Series]:
    """Join series that continue or interleave each other exactly.

    Args:
        series: after `split`.

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
    whole = _stack(everything)
    if whole.steps_mm.min() <= SAME_POSITION_MM or np.ptp(whole.steps_mm) > _tolerance_mm(whole):
        return None
    if whole.stray_mm.max() > STEP_TOLERANCE_MM:
        return None
    notes = tuple(sorted({note for member in members for note in member.notes}))
    return replace(members[0], instances=tuple(everything), notes=(*notes, "N_MERGED"))


def _are_stations(members: Sequence[Series]) -> bool:
    """Whether the series were acquired one after the other: each at one time, and the times differ."""
    times = [{instance.tags.get("AcquisitionTime", "") for instance in member.instances} for member in members]
    return all(len(time) == 1 for time in times) and len(set.union(*times)) > 1


def _stack(instances: Sequence[Instance]) -> Stack:
    normal = stack_of(instances).along_mm
    return stack_of([instances[index] for index in np.argsort(normal, kind="stable")])


def _tolerance_mm(stack: Stack) -> float:
    return max(STEP_TOLERANCE * stack.step_mm, STEP_TOLERANCE_MM)
