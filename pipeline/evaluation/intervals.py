"""Intervals with the patient as the unit: bootstrap (percentile; BCa where patients are few), and DeLong's.

DeLong's variance of areas under ROC curves, in O(N log N), takes independent cases: one case a patient.

Source: DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44; Sun, Xu 2014, IEEE Signal Processing Letters 21, "Fast
implementation of DeLong's algorithm" (mid-ranks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from pipeline.evaluation.results import Floats

#: Below this number of patients the intervals are BCa: with 100 patients, percentiles hold an AUROC of 0.95 in 91 % of
#: simulations instead of 95 %, with 200 in 94 % (docs/benchmarks/statistics.md).
BCA_BELOW = 200
#: An interval is withheld where more than this part of the resamples leaves the measure undefined.
MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class Interval:
    """An interval, or the reason why there is none.

    Attributes:
        low: lower end, or None.
        high: upper end, or None.
        method: how it was made; empty where there is none.
        note: why it is missing, or what to know about it.
    """

    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str = ""


def leave_one_out(patients: npt.NDArray[np.int64]) -> Floats:
    """(G, N) weights, each row without one patient."""
    return (np.arange(int(patients.max()) + 1)[:, None] != patients).astype(np.float64)


def bootstrap_interval(
    estimate: float, replicates: Floats, jackknife: Floats | None, confidence: float = 0.95
) -> Interval:
    """The interval that a bootstrap gives.

    Args:
        estimate: the measure on all cases.
        replicates: (B,) the measure on the resamples; NaN where it is undefined.
        jackknife: (G,) the measure without each patient, for BCa; None for percentiles.
        confidence: such as 0.95.
    """
    defined = replicates[np.isfinite(replicates)]
    lost = len(replicates) - len(defined)
    if lost > MOST_UNDEFINED * len(replicates):
        return Interval(note=f"undefined in {lost} of {len(replicates)} resamples")
    if np.ptp(defined) < 1e-12:
        return Interval(note="all resamples give the same value: the bootstrap cannot say how uncertain it is")
    note = f"undefined in {lost} of {len(replicates)} resamples, which were left out" if lost else ""
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if jackknife is None:
        low, high = np.quantile(defined, tails)
        return Interval(float(low), float(high), "percentile bootstrap", note)
    levels = bca_levels(estimate, defined, jackknife, tails)
    if not np.isfinite(levels).all():
        return Interval(note="undefined without one of the patients, or on one side of all resamples")
    low, high = np.quantile(defined, levels)
    return Interval(float(low), float(high), "BCa bootstrap", note)


def bca_levels(estimate: float, replicates: Floats, jackknife: Floats, tails: Floats) -> Floats:
    """The percentiles that bias-corrected and accelerated intervals are read at.

    Args:
        estimate: the measure on all cases.
        replicates: (B,) finite.
        jackknife: (G,) the measure without each patient.
        tails: (2,) the nominal levels.

    Returns:
        (2,), NaN where they are undefined.

    Source: Efron 1987, JASA 82, "Better bootstrap confidence intervals", equations 2.3 and 6.6; ties count one half.
    """
    below = np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2
    deviation = jackknife.mean() - jackknife
    spread = (deviation**2).sum()
    if not (0 < below < 1 and np.isfinite(spread) and spread > 0):
        return np.full(2, np.nan)
    acceleration = (deviation**3).sum() / (6 * spread**1.5)
    bias = norm.ppf(below)
    shifted = bias + norm.ppf(tails)
    return norm.cdf(bias + shifted / (1 - acceleration * shifted))


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
