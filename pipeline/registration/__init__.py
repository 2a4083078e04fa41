"""Alignment by elastix in a child process or by landmarks, a verdict on it, and resampling through its transform.

The public names are imported when they are first used, so that `import pipeline.registration` costs nothing.
"""

from __future__ import annotations

from typing import Any

from pipeline.lazy import resolve

_HOMES = {
    "AlignRadiographd": "xray_dictionary",
    "AlignmentLimits": "findings",
    "Landmarks": "landmarks",
    "Method": "methods",
    "Registerd": "dictionary",
    "Registration": "elastix",
    "RegistrationSettings": "elastix",
    "Side": "request",
    "method": "methods",
    "read_landmarks": "landmarks",
    "register": "elastix",
    "resample_image": "transforms",
    "resample_labels": "transforms",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)
