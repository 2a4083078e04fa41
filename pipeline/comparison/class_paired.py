"""Cases that were made of one class's files: their streams are independent given the class, and late fusion is best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from pipeline.errors import UsageError

Floats = npt.NDArray[np.float64]
#: Printed in the place of a winner.
NO_WINNER = (
    "N_CLASS_PAIRED: the cases of this table were made of one class's files and are no patients. Their streams are "
    "independent given the class, and Bayes' rule is late fusion: the streams' log-posteriors summed, less (M - 1) log "
    "priors. No strategy of fusion can beat it on such cases, whatever it finds in real patients: no winner is named."
)


def late_log_posterior(
    log_posteriors: Floats, log_priors: Floats, available: npt.NDArray[np.bool_] | None = None
) -> Floats:
    """Bayes' rule for streams that are independent given the class.

    Args:
        log_posteriors: (N, M, K), of each stream alone; up to a constant of each stream, so that calibrated logits will
            do.
        log_priors: (K,), of the classes where the streams have learned.
        available: (N, M); a stream that is missing says nothing. All when None.

    Returns:
        (N, K), normalised; the prior for a case without any stream.

    Raises:
        UsageError: E_ROWS when the shapes do not fit.
    """
    if log_posteriors.ndim != 3 or log_priors.shape != log_posteriors.shape[2:]:
        got = f"{log_posteriors.shape} and {log_priors.shape}"
        raise UsageError("E_ROWS", f"Expected log-posteriors (N, M, K) and log priors (K,), got {got}.")
    there = np.ones(log_posteriors.shape[:2], bool) if available is None else available
    if there.shape != log_posteriors.shape[:2]:
        raise UsageError("E_ROWS", f"Expected available {log_posteriors.shape[:2]}, got {there.shape}.")
    prior = log_softmax(log_priors)
    told = log_softmax(log_posteriors, axis=2) - prior
    return np.asarray(log_softmax(prior + np.where(there[..., None], told, 0.0).sum(1), axis=1))
