"""Beta and isotonic calibration: each class against the rest, then normalised to the sum 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression

from pipeline.calibration.base import Calibration, Fit
from pipeline.calibration.optimise import events_note, isotonic_note, log_softmax, minimise
from pipeline.calibration.rows import Rows
from pipeline.calibration.scaling import logit_scale, require_overlap
from pipeline.errors import UsageError


@dataclass(frozen=True)
class Beta(Calibration):
    """sigmoid(a ln p - b ln(1 - p) + c) with a, b >= 0, for each class against the rest.

    Source: Kull, Silva Filho, Flach 2017, "Beta calibration", sections 3 and 4 (a negative a or b is set to 0 and the
    others are fitted again).

    Attributes:
        curves: (a, b, c) of class 1 where there are two classes, else of every class.
    """

    curves: tuple[tuple[float, float, float], ...]
    name: ClassVar[str] = "beta"

    @classmethod
    def find(cls, rows: Rows, **settings: Any) -> Fit:
        """The three parameters of each curve, of the largest likelihood."""
        curves = tuple(_beta_curve(rows, number) for number in _modelled(rows.classes))
        return {"curves": curves}, events_note(rows, cls.name, 3)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Normalised log-probabilities (n, C)."""
        inside, outside = log_odds_parts(logits)
        odds = []
        for number, (a, b, c) in zip(_modelled(self.record.classes), self.curves, strict=True):
            odds.append(a * inside[:, number] - b * outside[:, number] + c)
        return _normalised(torch.nn.functional.logsigmoid(torch.stack(odds, dim=1)), torch.stack(odds, dim=1))


@dataclass(frozen=True)
class Isotonic(Calibration):
    """The monotone step function with the least squared error, for each class against the rest; linear between steps.

    Its ends are held between 1 / (n + 2) and (n + 1) / (n + 2): n cases prove no certainty (rule of succession), and a
    probability of 0 would cost an infinite likelihood when it is wrong.

    Source: Zadrozny, Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates"
    (scikit-learn's IsotonicRegression).

    Attributes:
        curves: (probabilities in, probabilities out) of class 1 where there are two classes, else of every class.
    """

    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    name: ClassVar[str] = "isotonic"

    @classmethod
    def find(cls, rows: Rows, **settings: Any) -> Fit:
        """The steps of each curve."""
        probabilities = torch.cat([log_softmax(logits).exp() for logits, _, _ in rows.pieces()]).numpy()
        curves = tuple(_isotonic_curve(probabilities, rows, number) for number in _modelled(rows.classes))
        return {"curves": curves}, isotonic_note(rows)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Normalised log-probabilities (n, C)."""
        probabilities = log_softmax(logits).exp().numpy()
        found = [
            np.interp(probabilities[:, number], steps, values)
            for number, (steps, values) in zip(_modelled(self.record.classes), self.curves, strict=True)
        ]
        chances = torch.from_numpy(np.stack(found, axis=1))
        return _normalised(chances.log(), torch.logit(chances))


def log_odds_parts(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logarithms of p and 1 - p of every class, each (n, C), exact where p is next to 0 or 1.

    1 - p loses all digits where p is next to 1, which only the largest logit of a row can be: there, 1 - p is the sum
    of the others.
    """
    total = logits.logsumexp(dim=1, keepdim=True)
    inside = logits - total
    top = logits.argmax(dim=1, keepdim=True)
    rest = logits.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True) - total
    outside = torch.log1p(-inside.exp().clamp(max=0.5)).scatter(1, top, rest)
    return inside, outside


def _modelled(classes: int) -> Sequence[int]:
    """The classes that have a curve: of two, the second says all."""
    return (1,) if classes == 2 else range(classes)


def _normalised(logs: torch.Tensor, odds: torch.Tensor) -> torch.Tensor:
    if logs.shape[1] == 1:
        return torch.nn.functional.logsigmoid(torch.cat([-odds, odds], dim=1))
    return log_softmax(logs)


def _beta_curve(rows: Rows, number: int) -> tuple[float, float, float]:
    used = [True, True]
    while True:
        a, b, c = _logistic(rows, number, used)
        if a >= 0 and b >= 0:
            return a, b, c
        # as the paper does: first a, then b
        used[0 if a < 0 else 1] = False


def _logistic(rows: Rows, number: int, used: Sequence[bool]) -> tuple[float, float, float]:
    """Logistic regression on ln p and -ln(1 - p), without the terms that are not used."""
    unit = logit_scale(rows)
    mask = torch.tensor([*used, True], dtype=torch.float64)

    def parts(parameters: torch.Tensor) -> Iterator[torch.Tensor]:
        free = parameters * mask
        for logits, labels, weights in rows.pieces():
            inside, outside = log_odds_parts(logits)
            odds = (free[0] * inside[:, number] - free[1] * outside[:, number]) / unit + free[2]
            target = (labels == number).double()
            yield torch.nn.functional.binary_cross_entropy_with_logits(odds, target, weights, reduction="sum")

    found = minimise(parts, mask * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), Beta.name) * mask
    with torch.no_grad():
        require_overlap(float(sum(parts(found))), Beta.name)
    a, b, c = found.tolist()
    return a / unit, b / unit, c


def _isotonic_curve(probabilities: np.ndarray, rows: Rows, number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    hits = (rows.labels == number).numpy()
    if rows.classes == 2 and np.ptp(probabilities[:, number]) == 0:
        raise UsageError("E_CAL_NO_FIT", "Expected logits that tell classes apart, got the same value for all.")
    count = rows.case_count
    model = IsotonicRegression(y_min=1 / (count + 2), y_max=(count + 1) / (count + 2), out_of_bounds="clip")
    model.fit(probabilities[:, number], hits.astype(np.float64), sample_weight=rows.weights.numpy())
    return tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist())
