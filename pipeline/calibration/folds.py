"""Folds for cross-validation that keep the rows of a case together.

A file of its own: scikit-learn takes a second to load, and a calibration that is applied needs no folds.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.calibration.rows import Rows
from pipeline.errors import UsageError

Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]


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
    splitter = _Folds(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # it warns by counts of rows where the check above has counted cases
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros(len(rows.labels)), rows.labels.numpy(), rows.cases.numpy()))


class _Folds(StratifiedGroupKFold):
    """scikit-learn's folds, to the row: it looks for each case's fold fold by fold, which takes seconds for thousands.

    Should scikit-learn no longer ask here, its folds are the same, later.
    """

    def _find_best_fold(self, y_counts_per_fold: Counts, y_cnt: Indices, group_y_counts: Counts) -> int:
        """The fold whose taking the case leaves the classes spread most evenly; of equal ones, the smallest."""
        folds, classes = y_counts_per_fold.shape
        shares = (y_counts_per_fold + np.eye(folds)[:, :, None] * group_y_counts) / y_cnt
        # np.std's own steps, without its checks
        shares -= np.add.reduce(shares, axis=1, keepdims=True) / folds
        spread = np.sqrt(np.add.reduce(np.multiply(shares, shares, out=shares), axis=1) / folds)
        uneven = (np.add.reduce(spread, axis=1) / classes).tolist()
        sizes, best = np.add.reduce(y_counts_per_fold, axis=1).tolist(), 0
        for fold in range(1, folds):
            # as np.isclose
            near = abs(uneven[fold] - uneven[best]) <= 1e-8 + 1e-5 * abs(uneven[best])
            if uneven[fold] < uneven[best] or (near and sizes[fold] < sizes[best]):
                best = fold
        return best
