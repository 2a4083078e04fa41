"""The class that the fusion network gives a case, in a few words: for tables of all cases. No heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_in_words(measures: Mapping[str, Any]) -> str:
    """Such as `kind_b, 0.87, calibrated`; empty where the stage `fuse` has given no class.

    Args:
        measures: of its record.
    """
    if "fused_class" not in measures:
        return ""
    calibrated = "calibrated" if measures.get("fused_class_calibrated") else "not calibrated"
    return f"{measures['fused_class']}, {float(measures['fused_class_probability']):.2f}, {calibrated}"
