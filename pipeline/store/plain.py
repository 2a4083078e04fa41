"""Measures and tables of contents as JSON. Loads no image library: nnU-Net's processes use it, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import CaseError
from pipeline.store.files import save_text


def as_json(value: Any) -> str:
    """Readable JSON: keys in their order, numpy numbers as plain ones, NaN refused."""
    return json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise CaseError("E_DTYPE", f"Expected plain numbers, texts and lists in a measure, got {type(value).__name__}.")


def plain(value: Mapping[str, Any]) -> Any:
    """A measure as the plain JSON types in which it is going to be stored.

    Raises:
        CaseError: E_DTYPE when it holds something else, NaN or infinity.
    """
    return json.loads(measure(value))


def measure(value: Mapping[str, Any]) -> str:
    """The text of a measure; raises as `plain` does."""
    try:
        return as_json(value)
    except ValueError as error:
        raise CaseError("E_DTYPE", "Expected finite numbers (or null) in a measure, got NaN or infinity.") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON, wholly or not at all."""
    save_text(path, as_json(value))
