"""What all methods of calibration share: fit, apply to rows or volumes, JSON."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from pipeline.calibration.optimise import log_softmax, mean_nll
from pipeline.calibration.record import About, CalibrationWarning, FitRecord
from pipeline.calibration.rows import (
    COLUMN_ROWS,
    PIECE_VALUES,
    Logits,
    Rows,
    as_tensor,
    look_like_probabilities,
    refuse_probabilities,
)
from pipeline.errors import UsageError

FORMAT = "tandem-calibration-1"
Fit = tuple[dict[str, Any], list[str]]


@dataclass(frozen=True)
class Calibration(ABC):
    """A fitted map from logits to calibrated probabilities.

    A method's class adds its parameters as fields (numbers, and tuples of numbers) and says how they are found and
    how they act.

    Attributes:
        record: how it came to be.
    """

    record: FitRecord
    name: ClassVar[str]

    @property
    def in_words(self) -> str:
        """What stands beside a probability: the method, and the data, cases and date on which it was fitted."""
        record = self.record.to_json()
        return f"{self.name}: {record['data']}, {record['cases']} cases, {record['date']}"

    @classmethod
    @abstractmethod
    def find(cls, rows: Rows, **settings: Any) -> Fit:
        """The parameters by field name, and notes for the reader."""

    @abstractmethod
    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated log-probabilities (n, C) of logits (n, C), float64."""

    @classmethod
    def fit(
        cls,
        logits: Logits,
        labels: npt.ArrayLike | torch.Tensor,
        about: About,
        cases: Sequence[object] | npt.NDArray[Any] | None = None,
        weights: npt.ArrayLike | None = None,
        **settings: Any,
    ) -> Self:
        """Fit on logits of cases that the model was not trained on.

        Args:
            logits: (N, C), or (N,) for the log-odds of class 1 of two; any floating type, numpy or torch.
            labels: (N,) whole numbers 0 … C - 1.
            about: data, date and source.
            cases: (N,) names of the cases that the rows belong to; None where every row is a case.
            weights: (N,) positive; None where every row counts the same.
            settings: of the method.

        Raises:
            UsageError: E_ROWS, E_LABEL, E_CAL_NONFINITE, E_CAL_PROBABILITIES, E_CAL_CLASS_ABSENT, E_CAL_TOO_FEW,
                E_CAL_CLASSES, E_CAL_NO_FIT.
        """
        fitted = cls.fit_rows(Rows.of(logits, labels, cases, weights), about, **settings)
        for note in fitted.record.notes:
            warnings.warn(note, CalibrationWarning, stacklevel=2)
        return fitted

    @classmethod
    def fit_rows(cls, rows: Rows, about: About, **settings: Any) -> Self:
        """The same for rows that are checked already; the notes are not warned about."""
        require_enough(rows)
        parameters, notes = cls.find(rows, **settings)
        before = mean_nll(rows, log_softmax)
        counts = (len(rows.labels), rows.case_count, rows.classes)
        draft = cls(FitRecord(about, *counts, before, before), **parameters)
        after = mean_nll(rows, draft.log_probabilities)
        return cls(FitRecord(about, *counts, before, after, tuple(notes)), **parameters)

    def apply(self, logits: Logits) -> Any:
        """Turn logits into calibrated probabilities.

        Args:
            logits: rows (N, C) or (N,), or a volume (C, I, J, K) (or other spatial axes), where C = 1 and (N,) are
                the log-odds of class 1 of two.

        Returns:
            Probabilities of the same shape, of the kind that came in (numpy, torch, MetaTensor with its affine);
            float64 for float64, else float32. Beside the result, memory is bounded.

        Raises:
            UsageError: E_CAL_CLASSES when the calibration is of another number of classes; E_ROWS,
                E_CAL_NONFINITE, E_CAL_PROBABILITIES.
        """
        tensor = as_tensor(logits)
        if tensor.ndim == 0 or tensor.numel() == 0:
            raise UsageError("E_ROWS", f"Expected logits, got an array of shape {tuple(tensor.shape)}.")
        result = torch.empty(tensor.shape, dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)
        # (C, n): a view of volumes and, transposed, of rows
        source, target = (_by_class(item) for item in (tensor, result))
        if self.record.classes != max(2, len(source)):
            given = f"got logits of {max(2, len(source))} (shape {tuple(tensor.shape)})"
            raise UsageError("E_CAL_CLASSES", f"Expected logits of {self.record.classes} classes, {given}.")
        self._fill(source, target)
        return _like(result, logits)

    def sets(self, logits: Logits) -> npt.NDArray[np.bool_] | None:
        """Which classes are not excluded: (N, C) of rows as `apply` takes them; None where no sets were fitted.

        Raises:
            UsageError: E_ROWS, E_CAL_NONFINITE, E_CAL_PROBABILITIES.
        """
        return None if self.record.sets is None else self.record.sets.predict(logits)

    def _fill(self, source: torch.Tensor, target: torch.Tensor) -> None:
        step = max(1, PIECE_VALUES // self.record.classes)
        suspect = len(source) > 1 or source.shape[1] >= COLUMN_ROWS
        for start in range(0, source.shape[1], step):
            piece = source[:, start : start + step].double().T
            # a sum is finite only where all of its terms are, and costs less than to look at each
            if not bool(torch.isfinite(piece.sum())):
                raise UsageError("E_CAL_NONFINITE", "Expected finite logits, got NaN or infinity.")
            suspect = suspect and look_like_probabilities(piece)
            pair = piece if len(source) > 1 else torch.cat([torch.zeros_like(piece), piece], dim=1)
            found = self.log_probabilities(pair).exp_().T
            target[:, start : start + step] = found if len(source) > 1 else found[1:]
        if suspect:
            refuse_probabilities()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: method, parameters, and how the calibration came to be."""
        named = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "record"}
        return {"format": FORMAT, "method": self.name, **self.record.to_json(), "parameters": named}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave.

        Raises:
            UsageError: E_CAL_FILE when the data are not a calibration of this method; E_CAL_TRAINING.
        """
        try:
            if (data["format"], data["method"]) != (FORMAT, cls.name):
                raise ValueError(f"expected {FORMAT} {cls.name}")
            parameters = {name: _frozen(value) for name, value in data["parameters"].items()}
            read = cls(FitRecord.from_json(data), **parameters)
            zeros = torch.zeros(1, read.record.classes, dtype=torch.float64)
            if not bool(torch.isfinite(read.log_probabilities(zeros)).all()):
                raise ValueError("parameters that are not finite")
            return read
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UsageError("E_CAL_FILE", f"Expected a {cls.name} calibration, got: {error}.") from error


def require_enough(rows: Rows) -> None:
    """Refuse what no method can be fitted on.

    Raises:
        UsageError: E_CAL_TOO_FEW, E_CAL_CLASS_ABSENT.
    """
    if rows.case_count < 2:
        raise UsageError("E_CAL_TOO_FEW", f"Expected at least 2 cases, got {rows.case_count}.")
    absent = np.flatnonzero(rows.cases_of_class() == 0)
    if len(absent):
        names = ", ".join(map(str, absent[:10]))
        raise UsageError("E_CAL_CLASS_ABSENT", f"Expected rows of all {rows.classes} classes, got none of {names}.")


def _by_class(tensor: torch.Tensor) -> torch.Tensor:
    """(C, n) of rows (N, C) or (N,), or of a volume (C, …): a view."""
    if tensor.ndim == 1:
        return tensor[None]
    return tensor.T if tensor.ndim == 2 else tensor.flatten(1)


def _like(result: torch.Tensor, given: Logits) -> Any:
    if not isinstance(given, torch.Tensor):
        return result.numpy()
    meta = getattr(given, "meta", None)  # of a MetaTensor, the affine among it; for rows alone MONAI is not loaded
    kind: Any = type(given)
    return result if meta is None else kind(result, meta=dict(meta))


def _frozen(value: Any) -> Any:
    """Lists, which JSON knows, as tuples, which do not change."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
