"""Acquisitions that were repeated, as after the patient moved: which of them a radiologist would read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.cases import Series
from pipeline.dicom.series.stack import along_mm, is_placed, normal_of, number

#: What repetitions of one protocol share as text …
_SAME = (
    *("SeriesDescription", "ProtocolName", "SequenceName", "ScanningSequence", "ImageType", "Manufacturer"),
    *("ConvolutionKernel", "ContrastBolusAgent", "TemporalPositionIdentifier", "TriggerTime", "Units", "RescaleType"),
)
#: … and as numbers, within this part of them: scanners adjust angles to the patient (and the repetition time to the
#: number of slices, so that it is not asked).
_NEAR = ("EchoTime", "InversionTime", "FlipAngle", "DiffusionBValue", "SliceThickness")
NEAR = 0.1
#: Steps of the slices are planned, and agree within this part of them.
SAME_STEP = 0.02
#: A scan is repeated once or twice; more of one protocol are time points.
MOST = 3
#: A repetition may be planned anew, turned by this much …
TURNED_DEG = 10.0
#: … and shares at least this part of the shorter stack.
SHARED = 0.8


def latest(series: Sequence[Series]) -> int | None:
    """Which of several series that the gate has passed is the latest complete one of repeated acquisitions.

    Returns:
        Its index; None where they are not repetitions of one protocol in one study, or where no time orders them.
    """
    first, *others = series
    if not 0 < len(others) < MOST or len({item.series_uid for item in series}) < len(series):
        return None
    if not all(_repeats(first, other) for other in others):
        return None
    most = max(len(item.instances) for item in series)
    whole = [index for index, item in enumerate(series) if len(item.instances) == most]
    times = {index: _times(series[index]) for index in whole}
    for level in (0, 1):  # when it was acquired; of one acquisition, when it was processed
        if all(times[index][level] for index in whole):
            last = max(times[index][level] for index in whole)
            whole = [index for index in whole if times[index][level] == last]
    return whole[0] if len(whole) == 1 else None


def _repeats(a: Series, b: Series) -> bool:
    one, other = a.instances[0], b.instances[0]
    if (a.study_uid, a.modality, a.part) != (b.study_uid, b.modality, b.part):
        return False
    if any(one.tags.get(tag, "") != other.tags.get(tag, "") for tag in _SAME):
        return False
    if not all(_near(number(one, tag), number(other, tag)) for tag in _NEAR):
        return False
    return (one.rows, one.columns) == (other.rows, other.columns) and _lie_together(a, b)


def _near(a: float, b: float, tolerance: float = NEAR) -> bool:
    return bool((np.isnan(a) and np.isnan(b)) or abs(a - b) <= tolerance * max(abs(a), abs(b)))


def _lie_together(a: Series, b: Series) -> bool:
    """Whether pixels, steps and directions agree, and the stacks lie in one place."""
    one, other = a.instances[0], b.instances[0]
    if not (is_placed(one) and is_placed(other)):
        return False
    if not np.allclose(one.spacing_mm or (), other.spacing_mm or (), rtol=1e-3):
        return False
    if float(normal_of(one) @ normal_of(other)) < np.cos(np.radians(TURNED_DEG)):
        return False
    along = [along_mm([one, *item.instances])[1:] for item in (a, b)]
    steps = [float(np.ptp(places)) / max(len(places) - 1, 1) for places in along]
    shared = min(places.max() for places in along) - max(places.min() for places in along)
    aside = np.linalg.norm(np.cross(normal_of(one), np.subtract(other.position or (), one.position or ())))
    field_mm = max(one.rows, one.columns) * max(one.spacing_mm or (0.0,))
    near = shared >= SHARED * min(float(np.ptp(places)) for places in along) and aside <= (1 - SHARED) * field_mm
    return bool(near and _near(steps[0], steps[1], SAME_STEP))


def _times(series: Series) -> tuple[str, str]:
    """When the first slice was acquired, and when the series was made; empty where that is not known."""
    acquired = [
        item.tags.get("AcquisitionDateTime") or _moment(item.tags, "AcquisitionDate", "AcquisitionTime")
        for item in series.instances
    ]
    made = [_moment(item.tags, "SeriesDate", "SeriesTime") for item in series.instances]
    return (min(acquired), min(made))


def _moment(tags: Mapping[str, str], day: str, time: str) -> str:
    """A date and time that sorts, empty where the time is missing."""
    date = tags.get(day) or tags.get("StudyDate", "")
    return f"{date}{tags[time]}" if tags.get(time) else ""
