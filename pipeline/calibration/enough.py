"""How many cases a method needs, by rules with a source, and the sentence that says so when there are too few."""

from __future__ import annotations

import math

import numpy as np
import torch

from pipeline.calibration.optimise import log_softmax
from pipeline.calibration.rows import Rows

#: A temperature is known well enough when its standard error is a tenth of it.
RELATIVE_ERROR = 0.10
#: Cases of the rarest class for each parameter that is fitted for a class. Source: Peduzzi et al. 1996, "A simulation
#: study of the number of events per variable in logistic regression analysis" (two classes); de Jong et al. 2019,
#: "Sample size considerations and predictive performance of multinomial logistic prediction models" (several).
EVENTS_PER_PARAMETER = 10
#: Cases below which isotonic regression fits noise. Source: Niculescu-Mizil, Caruana 2005, "Predicting good
#: probabilities with supervised learning", section 5 and figure 7.
ISOTONIC_CASES = 1000


def temperature_error(rows: Rows, inverse: float) -> float:
    """Standard error of ln T, asymptotic, with the case as the unit that is independent.

    With s = -ln T and u_i = d nll_i / ds: sqrt(sum over cases of (sum of w_i u_i)^2) / sum of w_i d^2 nll_i / ds^2.

    Args:
        rows: what T was fitted on.
        inverse: 1 / T.

    Returns:
        The standard error of T over T.

    Source: White 1982, "Maximum likelihood estimation of misspecified models"; Liang, Zeger 1986 (clusters).
    """
    scores = torch.empty(len(rows.labels), dtype=torch.float64)
    curvature, start = 0.0, 0
    for logits, labels, weights in rows.pieces():
        scaled = logits * inverse
        shares = log_softmax(scaled).exp()
        mean = (shares * scaled).sum(dim=1)
        true = scaled.gather(1, labels[:, None])[:, 0]
        scores[start : start + len(labels)] = weights * (mean - true)
        # the second derivative by s is the variance, plus the first derivative, whose sum is 0 at the optimum
        curvature += float((weights * (shares * (scaled - mean[:, None]) ** 2).sum(dim=1)).sum())
        start += len(labels)
    by_case = np.bincount(rows.cases.numpy(), weights=scores.numpy())
    return float(np.sqrt((by_case**2).sum()) / curvature) if curvature > 0 else math.inf


def temperature_note(rows: Rows, relative_error: float) -> list[str]:
    """The sentence when T is known to less than a tenth; its error falls with the root of the number of cases."""
    if relative_error <= RELATIVE_ERROR:
        return []
    # an outcome without any curvature leaves no number to name
    needed = f"about {math.ceil(rows.case_count * (relative_error / RELATIVE_ERROR) ** 2)}"
    return [
        f"Too few cases: temperature scaling on {rows.case_count} cases knows T to {100 * relative_error:.0f} % only; "
        f"{needed if math.isfinite(relative_error) else 'more'} cases would bring that to {100 * RELATIVE_ERROR:.0f} %."
    ]


def events_note(rows: Rows, name: str, parameters: int) -> list[str]:
    """The sentence when the rarest class has fewer than ten cases for each parameter of a class."""
    counts = rows.cases_of_class()
    rarest, needed = int(counts.min()), EVENTS_PER_PARAMETER * parameters
    if rarest >= needed:
        return []
    total = math.ceil(rows.case_count * needed / rarest)
    return [
        f"Too few cases: {name} scaling fits {parameters} parameters a class and wants {needed} cases of each class, "
        f"but class {int(counts.argmin())} has {rarest}; about {total} cases of the same mix would do."
    ]


def isotonic_note(rows: Rows) -> list[str]:
    """The sentence when there are fewer cases than isotonic regression needs."""
    if rows.case_count >= ISOTONIC_CASES:
        return []
    return [
        f"Too few cases: isotonic regression on {rows.case_count} cases fits noise; {ISOTONIC_CASES} cases would do."
    ]
