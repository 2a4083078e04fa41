"""What is evaluated: probabilities, true classes, and the patients that the cases belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.probabilities import class_labels, class_probabilities, group_indices

Floats = npt.NDArray[np.float64]
#: What a measure is of, beside single classes.
ALL, MACRO = "all classes", "macro average"


@dataclass(frozen=True)
class Predictions:
    """One model's predictions; made by `predictions`, which checks them.

    Attributes:
        probabilities: (N, K) float64.
        labels: (N,) true classes, 0 … K - 1.
        patients: (N,) number of the patient that each case belongs to: the unit that is resampled.
        classes: their K names.
    """

    probabilities: Floats
    labels: npt.NDArray[np.int64]
    patients: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(N,) the most probable class; the lower one of two that are equally probable."""
        return self.probabilities.argmax(axis=1)

    @property
    def scored(self) -> tuple[int, ...]:
        """The classes that are scored one against the rest: class 1 alone of two."""
        return (1,) if len(self.classes) == 2 else tuple(range(len(self.classes)))

    @property
    def patient_count(self) -> int:
        """Number of patients."""
        return int(self.patients.max()) + 1

    @property
    def one_case_each(self) -> bool:
        """Whether no patient has a second case, so that cases are independent."""
        return self.patient_count == len(self.labels)


def predictions(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: Sequence[object] | None = None,
    classes: Sequence[str] = (),
    name: str = "The probabilities",
) -> Predictions:
    """Check predictions and put them together.

    Args:
        probabilities: (N, K), rows that sum to 1; or (N,), the probability of class 1 of two.
        labels: (N,) true classes, 0 … K - 1.
        patients: the patient of each case; None where every case is a patient of its own.
        classes: K names; `class 0` … when left out.
        name: what messages call the probabilities.

    Raises:
        UsageError: E_PROBABILITY, E_LABEL, E_ROWS, or E_NAMES when the names are not one a class.
    """
    table = class_probabilities(probabilities, name)
    names = tuple(classes) or tuple(f"class {index}" for index in range(table.shape[1]))
    if len(set(names)) != table.shape[1] or len(names) != table.shape[1] or {ALL, MACRO} & set(names):
        raise UsageError("E_NAMES", f"Expected {table.shape[1]} different names of classes, got {', '.join(names)}.")
    return Predictions(table, class_labels(labels, table.shape), group_indices(patients, len(table)), names)
