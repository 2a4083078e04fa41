"""The geometry gate: is a series one volume, and where does it lie? Judged on headers alone, before any pixel is read.

What is not certain is refused with a reason: a volume in the wrong place is worse than none. What can be put right by
the headers is marked with a note, and the reader does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.identity import require_one_identity
from pipeline.dicom.series.radiograph import is_radiograph, judge_radiograph, require_measured
from pipeline.dicom.series.repeats import drop_copies
from pipeline.dicom.series.split import SPACING_TOLERANCE, merge, split
from pipeline.dicom.series.stack import DIRECTION_TOLERANCE, SAME_POSITION_MM, STEP_RANGE, Stack, number, sorted_stack
from pipeline.errors import QuarantineError


def candidates(series: Iterable[Series]) -> list[Series]:
    """Every volume (or radiograph) of a tree as scanned, with its verdict.

    Returns:
        One series a volume: the parts of a series that held several (`Series.part`), one for several series that
        held one volume; each with its instances in order of position, or with the fault that makes it unfit.
    """
    return [judge(part) for part in merge([part for item in series for part in split(item)])]


#: A slice may lie this far beside the line of the others, in its plane.
SHIFT_TOLERANCE_MM = 0.5
#: No gantry leans further (the widest tilt that is built is 30 degrees): the positions are wrong.
TILT_LIMIT_DEG = 45.0
#: Nor further than this many times the picture's own width: the upright grid would be mostly air.
FIELDS = 2.0


def judge(series: Series) -> Series:
    """Pass a series, a part of what `split` gave or as scanned, through the gate.

    Returns:
        The series with its instances in order along the slice normal, and notes of what the reader will repair; or
        with `fault` saying why it is no volume.
    """
    series = drop_copies(series)
    if series.fault is not None:
        return series
    if is_radiograph(series):
        return judge_radiograph(series)
    try:
        _require_images(series)
        known = require_one_identity(series.instances)
        require_measured(series.instances)
        _require_all_files(series)
        _require_positions(series)
        _require_one_grid(series)
        stack = sorted_stack(series.instances)
        ordered = replace(series, instances=tuple(stack.instances))
        notes = (*known, *_even_steps(ordered, stack), *_straight(ordered.instances[0], stack), *_ends(ordered))
        _require_rescale(ordered)
    except QuarantineError as error:
        return replace(series, fault=Fault.from_error(error))
    return replace(ordered, notes=(*ordered.notes, *notes))


def _require_images(series: Series) -> None:
    for instance in series.instances:
        tags = instance.tags
        if series.modality == "SEG" or not (instance.rows and instance.columns):
            raise QuarantineError("E_NOT_IMAGE", f"The series holds {series.modality or 'no modality'}, not images.")
        if tags.get("NumberOfFrames", "1") not in ("", "0", "1"):  # of frames that were taken apart it is 1
            raise QuarantineError("E_MULTIFRAME", f"Expected frames with places, got {tags['NumberOfFrames']} without.")
        if tags.get("SamplesPerPixel", "1") not in ("", "1") or tags["PhotometricInterpretation"] != "MONOCHROME2":
            kind = tags["PhotometricInterpretation"] or "none"
            raise QuarantineError("E_NOT_SCALAR", f"Expected MONOCHROME2 images, got {kind}.")


def _require_all_files(series: Series) -> None:
    """A rejected file is a missing slice, wherever it lay: at an end it would shorten the volume, silently."""
    if not series.rejected:
        return
    faults = [instance.fault for instance in series.rejected if instance.fault]
    codes = sorted({fault.code for fault in faults})
    if "E_BAD_DS" in codes:
        wrong = next(fault for fault in faults if fault.code == "E_BAD_DS")
        raise QuarantineError("E_BAD_DS", f"{len(series.rejected)} files have wrong numbers: {wrong.message}")
    total = len(series.rejected) + len(series.instances)
    raise QuarantineError("E_GAP", f"{len(series.rejected)} of {total} slices were rejected ({', '.join(codes)}).")


def _require_positions(series: Series) -> None:
    for attribute, name in (
        ("position", "ImagePositionPatient"),
        ("orientation", "ImageOrientationPatient"),
        ("spacing_mm", "PixelSpacing"),
    ):
        missing = sum(getattr(instance, attribute) is None for instance in series.instances)
        if missing == len(series.instances):
            raise QuarantineError("E_NO_GEOMETRY", f"No slice has {name}.")
        if missing:
            raise QuarantineError("E_GAP", f"{missing} of {len(series.instances)} slices have no {name}.")
    if any(min(instance.spacing_mm or (0,)) <= 0 for instance in series.instances):
        raise QuarantineError("E_NO_GEOMETRY", "Expected PixelSpacing above 0.")
    if len(series.instances) < 2:
        raise QuarantineError("E_SINGLE_SLICE", "Expected a volume, got a single slice.")


def _require_one_grid(series: Series) -> None:
    first = series.instances[0]
    directions = np.array([instance.orientation for instance in series.instances])
    spacings = np.array([instance.spacing_mm for instance in series.instances])
    sizes = {(instance.rows, instance.columns) for instance in series.instances}
    if len(sizes) > 1:
        raise QuarantineError("E_MIXED_GRID", f"Expected one image size, got {len(sizes)}.")
    if np.abs(spacings - spacings[0]).max() > SPACING_TOLERANCE * spacings[0].min():
        raise QuarantineError("E_MIXED_GRID", "Expected one PixelSpacing, got several.")
    if np.abs(directions - directions[0]).max() > 2 * DIRECTION_TOLERANCE:
        raise QuarantineError("E_MIXED_GRID", "Expected one orientation, got several.")
    axes = np.asarray(first.orientation).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > DIRECTION_TOLERANCE:
        raise QuarantineError("E_NO_GEOMETRY", "ImageOrientationPatient is not two unit vectors at a right angle.")


def _even_steps(series: Series, stack: Stack) -> tuple[str, ...]:
    steps = stack.steps_mm
    if steps.min() < SAME_POSITION_MM:
        same = int((steps < SAME_POSITION_MM).sum()) + 1
        raise QuarantineError("E_DUP_POS", f"{same} of {len(steps) + 1} slices share a position with another one.")
    if not stack.uneven:
        return ()
    missing = stack.missing
    if missing.any():
        gap = int(np.argmax(missing))
        beside = [item.position[2] for item in series.instances[gap : gap + 2] if item.position]
        total = len(series.instances) + int(missing.sum())
        where = f" near z = {sum(beside) / len(beside):.1f} mm" if beside else ""
        raise QuarantineError("E_GAP", f"{missing.sum()} of {total} slices are missing{where}.")
    if steps.max() > STEP_RANGE * stack.step_mm or steps.min() < stack.step_mm / STEP_RANGE:
        raise QuarantineError("E_IRREGULAR", f"Slice distances vary from {steps.min():.2f} to {steps.max():.2f} mm.")
    return ("N_RESAMPLED",)


def _straight(first: Instance, stack: Stack) -> tuple[str, ...]:
    if stack.stray_mm.max() > SHIFT_TOLERANCE_MM:
        raise QuarantineError("E_MIXED_GRID", "A slice is shifted sideways against its neighbours.")
    angle_deg = stack.tilt_deg
    field_mm = FIELDS * np.multiply((first.columns, first.rows), (first.spacing_mm or (0.0, 0.0))[::-1])
    if abs(angle_deg) > TILT_LIMIT_DEG or (angle_deg and (np.ptp(stack.sideways_mm, axis=0) > field_mm).any()):
        raise QuarantineError("E_TILT", f"The slices are sheared by {angle_deg:.1f} degrees, too far to be upright.")
    return ("N_TILT_CORRECTED",) if angle_deg else ()


def _ends(series: Series) -> tuple[str, ...]:
    """Whether the acquisition had more images; parts of a series cannot tell, as it may have counted all of them."""
    planned = np.array([number(instance, "ImagesInAcquisition") for instance in series.instances])
    acquisitions = {instance.tags.get("AcquisitionNumber", "") for instance in series.instances}
    if series.part or len(acquisitions) > 1 or not np.isfinite(planned).all():
        return ()
    return ("N_ENDS_MISSING",) if planned.max() > len(series.instances) else ()


def _require_rescale(series: Series) -> None:
    for instance in series.instances:
        if instance.slope == 0:
            raise QuarantineError("E_RESCALE", "Expected a RescaleSlope other than 0.")
        if series.modality == "CT" and (instance.slope is None or instance.intercept is None):
            raise QuarantineError("E_RESCALE", "Expected a CT with RescaleSlope and RescaleIntercept.")
