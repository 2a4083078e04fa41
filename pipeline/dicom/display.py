"""The grey values a radiograph is meant to be seen with. Runs in a process of its own (`pipeline.dicom.sandbox`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from pipeline.cases import Instance

Array = npt.NDArray[Any]


def displayed(task: tuple[Instance, Array]) -> tuple[Array, bool]:
    """Apply the modality's and the display's lookup tables; what to apply stands in parts of the header not kept.

    Args:
        task: the image and its stored values, (rows, columns).

    Returns:
        (rows, columns), float32; and whether a lookup table or window of the display was applied. Of several the
        first one counts. Source: DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT).
    """
    instance, stored = task
    header = dcmread(instance.path, stop_before_pixels=True, force=True)
    values = apply_modality_lut(stored, header)
    windowed = bool(header.get("VOILUTSequence")) or header.get("WindowCenter") is not None
    if windowed:
        values = apply_voi_lut(values, header)
    return np.asarray(values, dtype=np.float32), windowed
