"""DeLong's variance of areas under ROC curves in O(N log N), its interval and its paired test.

Cases have to be independent: one case a patient.

Source: DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44; Sun, Xu 2014, IEEE Signal Processing Letters 21, "Fast
implementation of DeLong's algorithm" (mid-ranks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.predictions import Floats


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curves of M models on the same cases.

    Attributes:
        values: (M,).
        covariance: (M, M); NaN with fewer than two positives or two negatives.
    """

    values: Floats
    covariance: Floats


def delong(scores: npt.ArrayLike, positive: npt.ArrayLike) -> Areas:
    """Areas and their covariance.

    Args:
        scores: (M, N), or (N,) for one model.
        positive: (N,) bool; at least one is, and one is not.
    """
    table, mask = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(positive, dtype=bool)
    first, second = table[:, mask], table[:, ~mask]
    m, n = first.shape[1], second.shape[1]
    ranks = rankdata(np.hstack([first, second]), axis=1)
    over = (ranks[:, :m] - rankdata(first, axis=1)) / n
    under = 1 - (ranks[:, m:] - rankdata(second, axis=1)) / m
    if m < 2 or n < 2:
        return Areas(over.mean(axis=1), np.full((len(table), len(table)), np.nan))
    covariance = np.atleast_2d(np.cov(over)) / m + np.atleast_2d(np.cov(under)) / n
    return Areas(over.mean(axis=1), covariance)


def delong_interval(area: float, variance: float, confidence: float = 0.95) -> Interval:
    """A normal interval on the logit scale, taken back: it stays within [0, 1] and is not symmetric.

    Args:
        area: under the curve.
        variance: DeLong's.
        confidence: such as 0.95.

    Source: Pepe 2003, The Statistical Evaluation of Medical Tests for Classification and Prediction, chapter 5.
    """
    if not variance > 0 or not 0 < area < 1:
        return Interval(note="DeLong's variance is 0 or needs two cases of either kind")
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return Interval(float(low), float(high), "DeLong, logit scale")


def delong_test(areas: Areas, first: int, second: int) -> tuple[float, float | None]:
    """Compare two correlated areas.

    Returns:
        The standard error of their difference, and the two-sided p value; None where the error is 0 or undefined.
    """
    block = areas.covariance[np.ix_([first, second], [first, second])]
    variance = float(block[0, 0] + block[1, 1] - 2 * block[0, 1])
    # Two models with the same ranks differ by rounding alone.
    if not variance > 1e-15:
        return (0.0 if variance == variance else float("nan")), None
    error = variance**0.5
    return error, float(2 * norm.sf(abs(areas.values[first] - areas.values[second]) / error))
