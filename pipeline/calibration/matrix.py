"""Matrix and Dirichlet scaling with off-diagonal and intercept regularisation (ODIR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from pipeline.calibration.base import Calibration, Fit
from pipeline.calibration.newton import Regression, newton
from pipeline.calibration.optimise import events_note, log_softmax, weighted_nll
from pipeline.calibration.rows import Rows
from pipeline.calibration.scaling import find_inverse_temperature, require_overlap

#: Strengths that cross-validation chooses from: from next to none to next to a diagonal matrix without offsets.
PENALTIES = (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)
INNER_FOLDS = 3


@dataclass(frozen=True)
class Matrix(Calibration):
    """softmax(W z + b).

    Fitted by mean NLL + penalty (mean of squared off-diagonal elements + mean of squared offsets), from W = I / T. The
    penalty weighs W in units of 1 / T, so that it means the same whatever the size of the logits.

    Source: Guo, Pleiss, Sun, Weinberger 2017, section 4.2 (matrix scaling); Kull, Perello-Nieto, Kängsepp, Silva Filho,
    Song, Flach 2019, "Beyond temperature scaling", section 3 (ODIR, with one strength for both terms).

    Attributes:
        weight: W, (C, C): row k gives the logit of class k.
        offset: b, (C,).
        penalty: strength of the regularisation.
    """

    weight: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]
    penalty: float
    name: ClassVar[str] = "matrix"

    @classmethod
    def find(cls, rows: Rows, penalty: float | None = None, **settings: Any) -> Fit:
        """Matrix and offsets.

        Args:
            rows: what to fit on.
            penalty: strength of the regularisation; None chooses it by cross-validation grouped by case; 0 is plain
                matrix scaling, which overfits and is noted.
            settings: none further.
        """
        inverse = find_inverse_temperature(rows)
        strength = choose_penalty(rows, inverse, cls.name) if penalty is None else penalty
        found = solve(rows, inverse, strength, start_matrix(rows.classes), cls.name)
        require_overlap(_loss(rows, inverse, found), cls.name)
        weight, offset = found[:, :-1] * inverse, found[:, -1]
        if strength == 0:
            # neither the columns' sums nor the offsets' sum reach the probabilities: leave them at 1 / T and 0
            offset = offset - offset.mean()
        parameters = {"weight": _nested(weight), "offset": tuple(offset.tolist()), "penalty": float(strength)}
        return parameters, _notes(rows, cls.name, strength)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-softmax of W z + b."""
        weight, offset = (torch.tensor(item, dtype=torch.float64) for item in (self.weight, self.offset))
        return log_softmax(logits @ weight.T + offset)


@dataclass(frozen=True)
class Dirichlet(Matrix):
    """softmax(W ln p + b) of the model's probabilities p, with ODIR, from W = I / T.

    Unlike matrix scaling it does not depend on a constant that is added to a row of logits, which a softmax forgets.

    Source: Kull et al. 2019, sections 3 and 3.1 (linear parametrisation).
    """

    name: ClassVar[str] = "dirichlet"

    @classmethod
    def find(cls, rows: Rows, penalty: float | None = None, **settings: Any) -> Fit:
        """Matrix and offsets on log-probabilities; see `Matrix.find`."""
        logs = torch.cat([log_softmax(logits) for logits, _, _ in rows.pieces()])
        return super().find(Rows(logs, rows.labels, rows.cases, rows.weights), penalty, **settings)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-softmax of W ln p + b."""
        return super().log_probabilities(log_softmax(logits))


def start_matrix(classes: int) -> torch.Tensor:
    """W = I and b = 0 as one (C, C + 1), in units of 1 / T."""
    return torch.cat([torch.eye(classes), torch.zeros(classes, 1)], dim=1).double()


def solve(rows: Rows, inverse: float, penalty: float, start: torch.Tensor, name: str) -> torch.Tensor:
    """Minimise mean NLL + penalty.

    Args:
        rows: what to fit on.
        inverse: 1 / T, by which the logits are scaled first.
        penalty: strength of ODIR.
        start: (C, C + 1), W and b side by side.
        name: of the method, for messages.

    Returns:
        (C, C + 1).
    """
    count = rows.classes
    shrunk = (1 - torch.eye(count, count + 1).double()) / (count * (count - 1))
    shrunk[:, -1] = 1 / count
    return newton(Regression(rows, inverse, penalty * shrunk), start, name)


def choose_penalty(rows: Rows, inverse: float, name: str) -> float:
    """The strength with the lowest NLL on held-out cases; each starts from the solution of the stronger one before."""
    from pipeline.calibration.folds import grouped_folds

    losses = np.zeros(len(PENALTIES))
    for fitted_on, held_out in grouped_folds(rows, INNER_FOLDS, seed=0):
        inside, outside = rows.take(fitted_on), rows.take(held_out)
        found = start_matrix(rows.classes)
        for number, penalty in enumerate(PENALTIES):
            found = solve(inside, inverse, penalty, found, name)
            losses[number] += _loss(outside, inverse, found)
    return PENALTIES[int(losses.argmin())]


def _loss(rows: Rows, inverse: float, matrix: torch.Tensor) -> float:
    with torch.no_grad():
        return sum(
            float(weighted_nll((logits * inverse) @ matrix[:, :-1].T + matrix[:, -1], labels, weights))
            for logits, labels, weights in rows.pieces()
        )


def _notes(rows: Rows, name: str, penalty: float) -> list[str]:
    if penalty > 0:
        # what a strong penalty leaves free: the diagonal and the offsets
        return events_note(rows, name, 2)
    overfits = f"Unregularised {name} scaling overfits (Guo 2017, table 1): leave the penalty to cross-validation."
    return [overfits, *events_note(rows, name, rows.classes + 1)]


def _nested(matrix: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
