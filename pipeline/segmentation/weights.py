"""Checkpoints of nnU-Net, read without trusting them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import UsageError


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint; of what a pickle could run, numpy's scalars alone are allowed.

    Raises:
        UsageError: E_WEIGHTS when it cannot be read, holds code, or is no checkpoint of nnU-Net.
    """
    numpy_types = [np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"] if code != "V"}]
    scalar: Any = np.float64(0).__reduce__()[0]
    allowed = [(scalar, "numpy.core.multiarray.scalar"), scalar, *numpy_types]
    try:
        with torch.serialization.safe_globals(allowed):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise UsageError(
            "E_WEIGHTS", f"Expected a checkpoint that holds no code at {path.name}, got another."
        ) from error
    if not isinstance(found, dict) or not {"network_weights", "init_args"} <= found.keys():
        raise UsageError("E_WEIGHTS", f"Expected a checkpoint of nnU-Net at {path.name}, got another file.")
    return found


def find_model(name_or_path: str) -> Path:
    """The folder of a model.

    Raises:
        UsageError: E_WEIGHTS.
    """
    path = Path(name_or_path)
    if not (path / "plans.json").is_file():
        raise UsageError("E_WEIGHTS", f"Expected a model's folder with plans.json, got {name_or_path}.")
    return path
