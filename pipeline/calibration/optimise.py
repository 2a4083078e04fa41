"""Maximum likelihood by LBFGS in float64, over data that are walked over in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from pipeline.calibration.rows import Rows
from pipeline.errors import UsageError

#: Loss of some of the rows (or a penalty) as a function of the parameters: the losses of the parts add up.
Parts = Callable[[torch.Tensor], Iterator[torch.Tensor]]

ITERATIONS = 500
#: The gradient of a mean loss at which the search ends, and above which it has not found the minimum.
GRADIENT_END, GRADIENT_FAILED = 1e-7, 1e-5


def minimise(parts: Parts, start: torch.Tensor, name: str) -> torch.Tensor:
    """Find the parameters with the smallest sum of losses (LBFGS, strong Wolfe conditions).

    Args:
        parts: yields the losses of the parts; each is differentiated and let go of before the next one is made.
        start: (P,) float64.
        name: of the method, for the message.

    Returns:
        (P,) float64.

    Raises:
        UsageError: E_CAL_NO_FIT when no minimum was found.
    """
    parameters = start.detach().clone().requires_grad_(True)
    search = torch.optim.LBFGS(
        [parameters],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT_END,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        search.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for part in parts(parameters):
            part.backward()
            total += part.detach()
        return total

    with one_thread():
        search.step(closure)
        closure()
    steepest = float(parameters.grad.abs().max()) if parameters.grad is not None else torch.inf
    if not steepest <= GRADIENT_FAILED:
        raise UsageError("E_CAL_NO_FIT", f"Expected {name} scaling to settle, got a gradient of {steepest:.1e}.")
    return parameters.detach()


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
