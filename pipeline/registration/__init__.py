"""Rigid registration by elastix in a child process, a verdict on it, and resampling through its transform.

The public names are imported when they are first used, so that `import pipeline.registration` costs nothing.
"""

from __future__ import annotations

from typing import Any

from pipeline.lazy import resolve

_HOMES = {
    "QualityLimits": "quality",
    "Registerd": "dictionary",
    "Registration": "elastix",
    "RegistrationSettings": "elastix",
    "judge": "quality",
    "register_rigid": "elastix",
    "resample_image": "transforms",
    "resample_labels": "transforms",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)
