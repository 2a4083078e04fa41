"""Read a radiograph as it is meant to be seen: its lookup tables or window applied, bright where little passes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from pipeline import geometry, volumes
from pipeline.cases import Instance
from pipeline.dicom.pixels.decode import displayed
from pipeline.dicom.pixels.pixels import checked, stored_values
from pipeline.dicom.sandbox import Sandbox
from pipeline.dicom.series.radiograph import pixel_spacing_mm
from pipeline.dicom.series.stack import number


def read_projection(instance: Instance) -> tuple[MetaTensor, tuple[str, ...]]:
    """Read a radiograph that the gate has passed.

    Returns:
        (1, columns, rows, 1), float32, in the values of its own display. Its affine has the pixel size in mm, a
        thickness of 1, and no place in the patient: the origin is the first pixel, the plane is the axial one. And
        what was done to its values.

    Raises:
        QuarantineError: as `pipeline.dicom.pixels.pixels.stored_values`.
    """
    ((_, stored),) = stored_values([instance])
    with Sandbox(displayed) as box:
        (found,) = box.map([(instance, np.ascontiguousarray(stored))])
    values, windowed = checked(found, instance)
    inverted = instance.tags.get("PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        values = values.max() + values.min() - values
    rows_mm, columns_mm = pixel_spacing_mm(instance)[0]
    affine = geometry.LPS_RAS @ np.diag([columns_mm, rows_mm, 1.0, 1.0])
    image = volumes.volume(torch.from_numpy(values[None]).permute(2, 1, 0), affine)
    return image, ("N_WINDOWED",) if windowed else ()


def geometry_of(instance: Instance) -> dict[str, Any]:
    """How a radiograph was taken, as far as its header says.

    Returns:
        `detector_spacing_mm` (along a row and down a column, at the detector), `source_to_detector_mm`,
        `source_to_patient_mm`, `view` (ViewPosition, such as AP).

    Source: DICOM PS3.3 C.8.11.4 (ImagerPixelSpacing), C.8.7.5 (the distances), C.8.1.1 (ViewPosition).
    """
    found: dict[str, Any] = {}
    with suppress(ValueError):  # not given, or not two numbers: the size in the patient's plane is another one
        rows_mm, columns_mm = map(float, instance.tags.get("ImagerPixelSpacing", "").split("\\"))
        found["detector_spacing_mm"] = [columns_mm, rows_mm]
    for name, keyword in (("detector", "DistanceSourceToDetector"), ("patient", "DistanceSourceToPatient")):
        distance_mm = number(instance, keyword)
        if distance_mm > 0:
            found[f"source_to_{name}_mm"] = distance_mm
    view = instance.tags.get("ViewPosition", "")
    return {**found, "view": view} if view else found
