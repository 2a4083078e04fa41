"""The methods by name, from the simplest to the most flexible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.calibration.base import Calibration
from pipeline.calibration.matrix import Dirichlet, Matrix
from pipeline.calibration.one_vs_rest import Beta, Isotonic
from pipeline.calibration.scaling import Platt, Temperature, Vector
from pipeline.errors import UsageError

METHODS: dict[str, type[Calibration]] = {
    method.name: method for method in (Temperature, Platt, Vector, Beta, Dirichlet, Matrix, Isotonic)
}


def method_of(name: str) -> type[Calibration]:
    """The class of a method.

    Raises:
        UsageError: E_CAL_METHOD.
    """
    if name not in METHODS:
        raise UsageError("E_CAL_METHOD", f"Expected one of {', '.join(METHODS)}, got {name!r}.")
    return METHODS[name]


def from_json(data: Mapping[str, Any]) -> Calibration:
    """Read a calibration of any method back from what its `to_json` gave.

    Raises:
        UsageError: E_CAL_FILE, E_CAL_METHOD, E_CAL_TRAINING.
    """
    if not isinstance(data, Mapping) or "method" not in data:
        raise UsageError("E_CAL_FILE", "Expected a calibration as JSON with a method, got something else.")
    return method_of(str(data["method"])).from_json(data)
