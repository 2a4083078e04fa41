"""Folds that keep a case whole and the classes in proportion."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.calibration.rows import Rows
from pipeline.errors import UsageError

Indices = npt.NDArray[np.int64]


def grouped_folds(rows: Rows, folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Split rows for cross-validation.

    Args:
        rows: what to split.
        folds: how many.
        seed: of the shuffling.

    Returns:
        For each fold, row numbers to fit on and row numbers held out; a case is on one side only,
        and the classes are spread evenly.

    Raises:
        UsageError: E_CAL_TOO_FEW when a class has fewer cases than there are folds.
    """
    rarest = int(rows.cases_of_class().min())
    if rarest < folds:
        raise UsageError("E_CAL_TOO_FEW", f"Expected {folds} cases of each class for {folds} folds, got {rarest}.")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # it warns by counts of rows where the check above has counted cases
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros(len(rows.labels)), rows.labels.numpy(), rows.cases.numpy()))
