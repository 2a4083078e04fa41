"""Temperature, Platt and vector scaling: maps of the logits with few parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.calibration.base import Calibration, Fit
from pipeline.calibration.optimise import (
    events_note,
    log_softmax,
    minimise,
    temperature_error,
    temperature_note,
    weighted_nll,
)
from pipeline.calibration.rows import Rows
from pipeline.errors import UsageError

#: A mean likelihood so close to certainty says that the classes are separated, and that the likelihood has no maximum.
SEPARATED_NLL = 1e-5


@dataclass(frozen=True)
class Temperature(Calibration):
    """softmax(z / T). Keeps the order of the classes, so that no decision changes.

    Source: Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", section 4.2.

    Attributes:
        temperature: T; above 1 the model was overconfident.
        relative_error: standard error of T over T, with cases as independent units.
    """

    temperature: float
    relative_error: float
    name: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        """Refuse what is no temperature.

        Raises:
            ValueError: when T is not a positive number.
        """
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a temperature of {self.temperature}")

    @classmethod
    def find(cls, rows: Rows, **settings: Any) -> Fit:
        """1 / T of the largest likelihood, and its standard error."""
        inverse = find_inverse_temperature(rows)
        error = temperature_error(rows, inverse)
        return {"temperature": 1 / inverse, "relative_error": error}, temperature_note(rows, error)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-softmax of z / T."""
        return log_softmax(logits / self.temperature)


@dataclass(frozen=True)
class Platt(Calibration):
    """sigmoid(slope (z1 - z0) + intercept), for two classes.

    Source: Platt 1999, "Probabilistic outputs for support vector machines": the targets are (n1 + 1) / (n1 + 2) and
    1 / (n0 + 2), so that separated classes do not run away; with Lin, Lin, Weng 2007 on how to compute it.

    Attributes:
        slope: of the log-odds.
        intercept: of the log-odds.
    """

    slope: float
    intercept: float
    name: ClassVar[str] = "platt"

    @classmethod
    def find(cls, rows: Rows, **settings: Any) -> Fit:
        """Slope and intercept of the largest likelihood of Platt's targets."""
        if rows.classes != 2:
            raise UsageError("E_CAL_CLASSES", f"Expected two classes for platt scaling, got {rows.classes}.")
        ones = int(rows.labels.sum())
        zeros = len(rows.labels) - ones
        high, low = (ones + 1) / (ones + 2), 1 / (zeros + 2)
        unit = logit_scale(rows)

        def parts(parameters: torch.Tensor) -> Iterator[torch.Tensor]:
            for logits, labels, weights in rows.pieces():
                odds = (logits[:, 1] - logits[:, 0]) / unit * parameters[0] + parameters[1]
                target = torch.where(labels == 1, high, low).double()
                yield torch.nn.functional.binary_cross_entropy_with_logits(odds, target, weights, reduction="sum")

        slope, intercept = minimise(parts, torch.tensor([1.0, 0.0], dtype=torch.float64), cls.name).tolist()
        return {"slope": slope / unit, "intercept": intercept}, events_note(rows, cls.name, 2)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of both classes."""
        odds = self.slope * (logits[:, 1] - logits[:, 0]) + self.intercept
        return torch.nn.functional.logsigmoid(torch.stack([-odds, odds], dim=1))


@dataclass(frozen=True)
class Vector(Calibration):
    """softmax(w z + b) with one w and one b for each class.

    Source: Guo, Pleiss, Sun, Weinberger 2017, section 4.2.

    Attributes:
        scale: w, (C,).
        offset: b, (C,), with the sum 0 (only differences matter).
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    name: ClassVar[str] = "vector"

    @classmethod
    def find(cls, rows: Rows, **settings: Any) -> Fit:
        """Scales and offsets of the largest likelihood, from those of temperature scaling."""
        inverse, count = find_inverse_temperature(rows), rows.classes

        def parts(parameters: torch.Tensor) -> Iterator[torch.Tensor]:
            for logits, labels, weights in rows.pieces():
                scaled = logits * inverse * parameters[:count] + parameters[count:]
                yield weighted_nll(scaled, labels, weights)

        start = torch.cat([torch.ones(count), torch.zeros(count)]).double()
        found = minimise(parts, start, cls.name)
        with torch.no_grad():
            require_overlap(float(sum(parts(found))), cls.name)
        offset = found[count:] - found[count:].mean()
        parameters = {"scale": tuple((found[:count] * inverse).tolist()), "offset": tuple(offset.tolist())}
        return parameters, events_note(rows, cls.name, 2)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-softmax of w z + b."""
        scale, offset = (torch.tensor(item, dtype=torch.float64) for item in (self.scale, self.offset))
        return log_softmax(logits * scale + offset)


def find_inverse_temperature(rows: Rows) -> float:
    """1 / T of the largest likelihood.

    Raises:
        UsageError: E_CAL_NO_FIT where the likelihood has no maximum: every prediction is right (T falls to 0), or the
            logits say nothing about the classes, or the opposite (T grows without end).
    """
    always_right, slope_at_zero = True, 0.0
    for logits, labels, weights in rows.pieces():
        true = logits.gather(1, labels[:, None])[:, 0]
        always_right = always_right and bool((true >= logits.amax(dim=1)).all())
        slope_at_zero += float((weights * (logits.mean(dim=1) - true)).sum())
    if slope_at_zero >= 0:
        raise UsageError("E_CAL_NO_FIT", "Expected logits that speak for the true class, got the opposite or none.")
    if always_right:
        raise UsageError("E_CAL_NO_FIT", "Expected some wrong predictions, got none: nothing bounds the confidence.")
    unit = logit_scale(rows)

    def parts(parameters: torch.Tensor) -> Iterator[torch.Tensor]:
        for logits, labels, weights in rows.pieces():
            # as in `weighted_nll`, but without a gradient of the logits' size for the true class's term
            inverse, true = parameters[0].exp() / unit, logits.gather(1, labels[:, None])[:, 0]
            yield (weights * ((logits * inverse).logsumexp(dim=1) - inverse * true)).sum()

    found = minimise(parts, torch.zeros(1, dtype=torch.float64), Temperature.name)
    return math.exp(float(found[0])) / unit


def logit_scale(rows: Rows) -> float:
    """Root mean square of the logits about their row's mean: a search that starts there needs few steps.

    Raises:
        UsageError: E_CAL_NO_FIT when every row holds one value only.
    """
    total = 0.0
    for logits, _, weights in rows.pieces():
        total += float((weights * logits.var(dim=1, unbiased=False)).sum())
    if total <= 0:
        raise UsageError("E_CAL_NO_FIT", "Expected logits that tell classes apart, got the same value for all.")
    return math.sqrt(total)


def require_overlap(nll: float, name: str) -> None:
    """Refuse a fit that has driven the likelihood to certainty.

    Raises:
        UsageError: E_CAL_NO_FIT.
    """
    if nll < SEPARATED_NLL:
        raise UsageError("E_CAL_NO_FIT", f"Expected classes that overlap, got classes that {name} scaling separates.")
