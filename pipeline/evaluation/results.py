"""What is evaluated, and what an evaluation found: plain frozen data, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.probabilities import class_labels, class_probabilities, group_indices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Settings:
    """How an evaluation is made.

    Attributes:
        specificity: at which sensitivity is read, in [0, 1].
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    specificity: float = 0.9
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """One measure of one model.

    Attributes:
        measure: its name.
        of: the class, `all classes` or `macro average`.
        value: None where it is undefined.
        low: lower end of the interval, or None.
        high: upper end, or None.
        method: how the interval was made.
        note: why something is missing, or what to know about it.
    """

    measure: str
    of: str
    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """How good one model is.

    Attributes:
        model: its name.
        case_count: number of cases.
        patient_count: number of patients, the unit of the bootstrap.
        prevalences: class -> part of the cases.
        estimates: the measures.
        confusion: (K, K) numbers of cases, true class along the rows.
        settings: how it was made.
    """

    model: str
    case_count: int
    patient_count: int
    prevalences: dict[str, float]
    estimates: tuple[Estimate, ...]
    confusion: tuple[tuple[int, ...], ...]
    settings: Settings = field(default_factory=Settings)

    def estimate(self, measure: str, of: str, method: str = "") -> Estimate:
        """Find an estimate; of two that differ in the interval, the one whose method begins with `method`.

        Raises:
            KeyError: when there is none.
        """
        for found in self.estimates:
            if (found.measure, found.of) == (measure, of) and found.method.startswith(method):
                return found
        raise KeyError((measure, of, method))


@dataclass(frozen=True)
class Comparison:
    """One measure of two models on the same cases.

    Attributes:
        measure: its name.
        of: the class, `all classes` or `macro average`.
        first: a model.
        second: another model.
        difference: the first's value less the second's; None where one is undefined.
        low: lower end of the interval of the difference, or None.
        high: upper end, or None.
        p_value: two-sided; None where it is undefined.
        p_holm: the same after Holm's correction over all pairs of models, for this measure and method.
        method: how interval and p value were made.
        note: why something is missing, or what to know about it.
    """

    measure: str
    of: str
    first: str
    second: str
    difference: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    method: str = ""
    note: str = ""


def evaluation_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """One row a model and measure: `model, measure, class, value, low, high, confidence, method, note` and counts."""
    import pandas as pd

    rows = [
        {
            "model": item.model,
            "measure": found.measure,
            "class": found.of,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "confidence": item.settings.confidence,
            "method": found.method,
            "prevalence": item.prevalences.get(found.of),
            "cases": item.case_count,
            "patients": item.patient_count,
            "note": found.note,
        }
        for item in evaluations
        for found in item.estimates
    ]
    return pd.DataFrame(rows)


def comparison_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row a pair of models and measure, with the fields of `Comparison` as columns."""
    import pandas as pd

    return pd.DataFrame([asdict(item) for item in comparisons]).rename(columns={"of": "class"})


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
