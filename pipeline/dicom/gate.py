"""The geometry gate: is a series one volume, and where does it lie? Judged on headers alone, before any pixel is read.

What is not certain is refused with a reason: a volume in the wrong place is worse than none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.cases import Fault, Instance, Series
from pipeline.errors import QuarantineError
from pipeline.storage import sha256_file

FloatArray = npt.NDArray[np.float64]

#: Slice distances count as equal within this part of their median, or this many mm, whichever is more.
STEP_TOLERANCE, STEP_TOLERANCE_MM = 0.02, 0.05
#: Direction cosines may miss unit length and right angles by this much; slices may drift sideways by this many mm.
DIRECTION_TOLERANCE, SHIFT_TOLERANCE_MM = 1e-3, 0.5
#: Two slices nearer than this are at one position.
SAME_POSITION_MM = 1e-3


def judge(series: Series) -> Series:
    """Pass a series through the gate.

    Args:
        series: as scanned.

    Returns:
        The series with its instances in order along the slice normal; or with `fault` saying why it is no volume.
    """
    if series.fault is not None:
        return series
    try:
        _require_images(series)
        _require_all_files(series)
        series = _drop_copies(series)
        _require_positions(series)
        _require_one_grid(series)
        ordered = _in_order(series)
        _require_even_steps(ordered)
        _require_rescale(ordered)
    except QuarantineError as error:
        return replace(series, fault=Fault(error.code, error.message, error.remedy))
    return ordered


def _require_images(series: Series) -> None:
    first = (series.instances or series.rejected)[0]
    if not (first.rows and first.columns):
        raise QuarantineError("E_NOT_IMAGE", f"The series holds {series.modality or 'no modality'}, not images.")
    for instance in series.instances:
        tags = instance.tags
        if tags.get("NumberOfFrames", "1") not in ("", "0", "1"):
            raise QuarantineError("E_MULTIFRAME", f"Expected one frame a file, got {tags['NumberOfFrames']}.")
        if tags.get("SamplesPerPixel", "1") not in ("", "1") or tags["PhotometricInterpretation"] != "MONOCHROME2":
            kind = tags["PhotometricInterpretation"] or "none"
            raise QuarantineError("E_NOT_SCALAR", f"Expected MONOCHROME2 images, got {kind}.")


def _require_all_files(series: Series) -> None:
    """A rejected file is a missing slice, wherever it lay: at an end it would shorten the volume, silently."""
    if not series.rejected:
        return
    faults = [instance.fault for instance in series.rejected if instance.fault]
    if any(fault.code == "E_BAD_DS" for fault in faults):
        wrong = next(fault for fault in faults if fault.code == "E_BAD_DS")
        raise QuarantineError("E_BAD_DS", f"{len(series.rejected)} files have wrong numbers: {wrong.message}")
    total = len(series.rejected) + len(series.instances)
    codes = ", ".join(sorted({fault.code for fault in faults}))
    raise QuarantineError("E_GAP", f"{len(series.rejected)} of {total} slices were rejected ({codes}).")


def _drop_copies(series: Series) -> Series:
    """Keep one of several identical copies of an instance."""
    by_uid: defaultdict[str, list[Instance]] = defaultdict(list)
    for instance in series.instances:
        by_uid[instance.sop_uid].append(instance)
    copies = [same for same in by_uid.values() if len(same) > 1]
    for same in copies:
        if len({sha256_file(instance.path) for instance in same}) > 1:
            raise QuarantineError("E_DUP_SOP", f"{len(same)} different files have one SOPInstanceUID.")
    if not copies:
        return series
    kept = tuple(same[0] for same in by_uid.values())
    return replace(series, instances=kept, notes=(*series.notes, "N_COPIES_DROPPED"))


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
    if np.abs(spacings - spacings[0]).max() > 1e-4 * spacings[0].min():
        raise QuarantineError("E_MIXED_GRID", "Expected one PixelSpacing, got several.")
    if np.abs(directions - directions[0]).max() > DIRECTION_TOLERANCE:
        raise QuarantineError("E_MIXED_GRID", "Expected one orientation, got several.")
    axes = np.asarray(first.orientation).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > DIRECTION_TOLERANCE:
        raise QuarantineError("E_NO_GEOMETRY", "ImageOrientationPatient is not two unit vectors at a right angle.")


def normal_of(instance: Instance) -> FloatArray:
    """The unit normal of a slice, LPS: row direction x column direction (DICOM PS3.3 C.7.6.2.1.1)."""
    axes = np.asarray(instance.orientation).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    return np.asarray(normal / np.linalg.norm(normal))


def _in_order(series: Series) -> Series:
    """Sort by position along the normal: instance numbers and file names are not trusted."""
    normal = normal_of(series.instances[0])
    along = sorted(series.instances, key=lambda instance: float(np.dot(np.asarray(instance.position), normal)))
    return replace(series, instances=tuple(along))


def _require_even_steps(series: Series) -> None:
    normal = normal_of(series.instances[0])
    positions = np.array([instance.position for instance in series.instances], dtype=float)
    steps = np.diff(positions @ normal)
    if steps.min() < SAME_POSITION_MM:
        same = int((steps < SAME_POSITION_MM).sum()) + 1
        raise QuarantineError("E_DUP_POS", f"{same} of {len(positions)} slices share a position with another one.")
    median = float(np.median(steps))
    uneven = np.abs(steps - median) > max(STEP_TOLERANCE * median, STEP_TOLERANCE_MM)
    if uneven.any():
        _refuse_uneven(series, steps, int(np.argmax(uneven)))
    sideways = np.diff(positions, axis=0) - steps[:, None] * normal
    drift = np.linalg.norm(sideways.sum(axis=0))
    if drift > max(DIRECTION_TOLERANCE * steps.sum(), SAME_POSITION_MM):
        angle_deg = float(np.degrees(np.arctan2(drift, steps.sum())))
        raise QuarantineError("E_TILT", f"The slices are sheared by {angle_deg:.1f} degrees (gantry tilt).")
    if np.linalg.norm(sideways, axis=1).max() > SHIFT_TOLERANCE_MM:
        raise QuarantineError("E_MIXED_GRID", "A slice is shifted sideways against its neighbours.")


def _refuse_uneven(series: Series, steps: FloatArray, where: int) -> None:
    smallest = float(steps.min())
    multiples = steps / smallest
    position = series.instances[where].position
    z = position[2] if position else 0.0
    if np.abs(multiples - np.round(multiples)).max() <= max(2 * STEP_TOLERANCE, 2 * STEP_TOLERANCE_MM / smallest):
        missing = int(np.round(multiples).sum()) - len(steps)
        total = len(series.instances) + missing
        raise QuarantineError("E_GAP", f"{missing} of {total} slices are missing near z = {z:.1f} mm.")
    raise QuarantineError("E_IRREGULAR", f"Slice distances vary from {steps.min():.2f} to {steps.max():.2f} mm.")


def _require_rescale(series: Series) -> None:
    for instance in series.instances:
        if instance.slope == 0:
            raise QuarantineError("E_RESCALE", "Expected a RescaleSlope other than 0.")
        if series.modality == "CT" and (instance.slope is None or instance.intercept is None):
            raise QuarantineError("E_RESCALE", "Expected a CT with RescaleSlope and RescaleIntercept.")
