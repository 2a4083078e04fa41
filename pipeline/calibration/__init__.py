"""Calibrated probabilities, and sets and masks with stated guarantees.

The public names are imported when they are first used, so that `import pipeline.calibration` costs nothing.
"""

from __future__ import annotations

from typing import Any

from pipeline.lazy import resolve

_HOMES = {
    "METHODS": "methods",
    "About": "record",
    "Beta": "one_vs_rest",
    "BrierParts": "metrics",
    "Calibration": "base",
    "CalibrationWarning": "record",
    "Comparison": "comparison",
    "Dirichlet": "matrix",
    "FitRecord": "record",
    "Isotonic": "one_vs_rest",
    "MEASURES": "metrics",
    "Matrix": "matrix",
    "Measure": "metrics",
    "Platt": "scaling",
    "Region": "voxelwise",
    "ReliabilityBin": "binning",
    "Resampling": "metrics",
    "Temperature": "scaling",
    "Vector": "scaling",
    "brier_parts": "metrics",
    "case_ece": "voxelwise",
    "case_weights": "rows",
    "compare": "comparison",
    "dilated_foreground": "voxelwise",
    "fit_voxels": "voxelwise",
    "from_json": "methods",
    "measures": "metrics",
    "reliability": "binning",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)
