"""Maximum likelihood by LBFGS in float64, over data that are walked over in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from pipeline.calibration.rows import Rows
from pipeline.errors import UsageError

#: Loss of some of the rows (or a penalty) as a function of the parameters: the losses of the parts add up.
Parts = Callable[[torch.Tensor], Iterator[torch.Tensor]]

ITERATIONS = 500
#: The gradient of a mean loss at which the search ends, and above which it has not found the minimum.
GRADIENT_END, GRADIENT_FAILED = 1e-7, 1e-5


def minimise(parts: Parts, start: torch.Tensor, name: str) -> torch.Tensor:
    """Find the parameters with the smallest sum of losses (L-BFGS-B).

    Args:
        parts: yields the losses of the parts; each is differentiated and let go of before the next one is made.
        start: (P,) float64.
        name: of the method, for the message.

    Returns:
        (P,) float64.

    Raises:
        UsageError: E_CAL_NO_FIT when no minimum was found.
    """
    gradient = torch.zeros_like(start)

    def closure(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        parameters = torch.tensor(values, requires_grad=True)
        total = 0.0
        for part in parts(parameters):
            part.backward()
            total += float(part.detach())
        gradient.copy_(torch.zeros_like(start) if parameters.grad is None else parameters.grad)
        return total, gradient.numpy().copy()

    ends = {"maxiter": ITERATIONS, "gtol": GRADIENT_END, "ftol": 0, "maxcor": 20, "maxfun": 2 * ITERATIONS}
    with one_thread():
        found = minimize(closure, start.numpy(), jac=True, method="L-BFGS-B", options=ends).x
        closure(found)
    require_settled(gradient, name)
    return torch.from_numpy(found)


def require_settled(gradient: torch.Tensor, name: str) -> None:
    """Refuse what is no minimum of a mean loss.

    Raises:
        UsageError: E_CAL_NO_FIT.
    """
    steepest = float(gradient.abs().max())
    if not steepest <= GRADIENT_FAILED:
        raise UsageError("E_CAL_NO_FIT", f"Expected {name} scaling to settle, got a gradient of {steepest:.1e}.")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread: on steps this small, several spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def weighted_nll(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of weight times -ln p of the true class, in nats.

    Args:
        logits: (n, C), log-probabilities among them.
        labels: (n,).
        weights: (n,).
    """
    return (weights * (logits.logsumexp(dim=1) - logits.gather(1, labels[:, None])[:, 0])).sum()


def mean_nll(rows: Rows, log_probabilities: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Weighted mean of -ln p of the true class over all rows, in nats."""
    with torch.no_grad():
        return sum(
            float(weighted_nll(log_probabilities(logits), labels, weights)) for logits, labels, weights in rows.pieces()
        )


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (n, C) of logits (n, C).

    torch.log_softmax copies what is not contiguous and is five times slower on the few classes of a volume.
    """
    return logits - logits.logsumexp(dim=1, keepdim=True)


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
    few = f"Too few cases: temperature scaling on {rows.case_count} cases leaves its T"
    if math.isinf(relative_error):  # an outcome without any curvature leaves no number to name
        return [f"{few} open."]
    needed = math.ceil(rows.case_count * (relative_error / RELATIVE_ERROR) ** 2)
    spread, wanted = f"{100 * relative_error:.0f} %", f"{100 * RELATIVE_ERROR:.0f} %"
    return [f"{few} uncertain by {spread}; about {needed} cases would bring that to {wanted}."]


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
