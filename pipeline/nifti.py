"""Is a NIfTI file that comes from outside fit to use? Readers differ on what is not, and do not say so."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.geometry import check_affine

#: How far apart (mm) the two affines of a file may put a corner voxel.
AFFINE_TOLERANCE_MM = 0.1


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI file that is not one scalar volume in one certain place, reading it whole.

    Raises:
        UsageError: E_NIFTI with what is wrong.
    """
    try:
        image = nib.load(path)
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, gzip and zlib raise many kinds; all mean that the file cannot be read
        raise UsageError("E_NIFTI", f"{path} cannot be read whole ({type(error).__name__}).") from error
    problem = _problem(image, values)
    if problem:
        raise UsageError("E_NIFTI", f"{path}: {problem}.")


def _problem(image: nib.Nifti1Image, values: np.ndarray) -> str:
    if values.ndim != 3 or values.dtype.kind not in "iuf":
        return f"expected one scalar volume, got shape {values.shape} of {values.dtype}"
    if not np.isfinite(values).all():
        return "expected finite values, got NaN or infinity"
    sform, scode = image.get_sform(coded=True)
    qform, qcode = image.get_qform(coded=True)
    if not scode and not qcode:
        return "neither sform nor qform says where the volume lies"
    if scode and qcode:
        corner = np.array([*(size - 1 for size in values.shape), 1])
        apart = max(np.abs((sform - qform) @ corner).max(), np.abs((sform - qform)[:, 3]).max())
        if apart > AFFINE_TOLERANCE_MM:
            return f"its sform and qform differ by {apart:.1f} mm"
    try:
        check_affine(sform if scode else qform)
    except PipelineError as error:
        return error.message.rstrip(".")
    return ""
