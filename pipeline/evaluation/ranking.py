"""Measures of how well scores rank positives before negatives, for many resamples of the cases at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.predictions import Floats


@dataclass(frozen=True)
class Ranking:
    """How many cases reach each threshold, in falling order of the threshold, for B weightings of the cases.

    Attributes:
        thresholds: (U,) the distinct scores, falling.
        hits: (B, U) weight of the positives that reach it.
        false_alarms: (B, U) weight of the negatives that reach it.
    """

    thresholds: Floats
    hits: Floats
    false_alarms: Floats

    @property
    def positives(self) -> Floats:
        """(B,) weight of all positives."""
        return self.hits[:, -1]

    @property
    def negatives(self) -> Floats:
        """(B,) weight of all negatives."""
        return self.false_alarms[:, -1]


def rank(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Ranking:
    """Count at every distinct score.

    Args:
        scores: (N,).
        positive: (N,).
        weights: (B, N), how often each case counts.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1])
    taken = weights[:, order]
    hits = np.add.reduceat(taken * positive[order], starts, axis=1).cumsum(axis=1)
    return Ranking(ordered[starts], hits, np.add.reduceat(taken, starts, axis=1).cumsum(axis=1) - hits)


def auroc(ranking: Ranking) -> Floats:
    """Area under the ROC curve by trapezoids: ties count one half.

    Returns:
        (B,), NaN where a class is absent.

    Source: Bamber 1975; equal to the Mann-Whitney statistic.
    """
    before = np.pad(ranking.hits, ((0, 0), (1, 0)))[:, :-1]
    steps = np.diff(ranking.false_alarms, axis=1, prepend=0.0)
    return ratio((steps * (before + ranking.hits)).sum(axis=1) / 2, ranking.positives * ranking.negatives)


def average_precision(ranking: Ranking) -> Floats:
    """Precision averaged over the steps of recall, without interpolation.

    Returns:
        (B,), NaN where there is no positive.

    Source: scikit-learn, `average_precision_score`.
    """
    precision = ranking.hits / np.maximum(ranking.hits + ranking.false_alarms, 1e-300)
    steps = np.diff(ranking.hits, axis=1, prepend=0.0)
    return ratio((steps * precision).sum(axis=1), ranking.positives)


def sensitivity_at(ranking: Ranking, specificity: float) -> Floats:
    """The highest sensitivity of a threshold whose specificity is at least the one asked for; no interpolation.

    Args:
        ranking: the counts.
        specificity: in [0, 1].

    Returns:
        (B,), NaN where a class is absent.
    """
    allowed = (1.0 - specificity) * ranking.negatives[:, None] + 1e-9
    best = np.where(ranking.false_alarms <= allowed, ranking.hits, 0.0).max(axis=1)
    return ratio(np.where(ranking.negatives > 0, best, np.nan), ranking.positives)


def sensitivities(ranking: Ranking, false_positive_rates: Floats) -> Floats:
    """The ROC curve read at given rates of false positives, as a step function.

    Args:
        ranking: the counts.
        false_positive_rates: (F,), in [0, 1].

    Returns:
        (B, F), NaN where a class is absent.
    """
    read = np.empty((len(ranking.hits), len(false_positive_rates)))
    for row, (hits, false_alarms) in enumerate(zip(ranking.hits, ranking.false_alarms, strict=True)):
        reached = np.searchsorted(false_alarms, false_positive_rates * false_alarms[-1] + 1e-9, side="right")
        read[row] = np.concatenate([[0.0], hits])[reached]
    present = np.where(ranking.negatives > 0, ranking.positives, 0.0)
    return ratio(read, np.broadcast_to(present[:, None], read.shape))


def ratio(above: Floats, below: Floats) -> Floats:
    """A quotient that is NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
