"""Decision curves, ROC and precision-recall curves, and the confusion matrix of one model: what figures show."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.measures import rank, ratio, sensitivities
from pipeline.evaluation.results import Floats, Predictions
from pipeline.probabilities import group_resamples

#: Rates of false positives at which the band around a ROC curve is read.
RATES: Floats = np.linspace(0, 1, 101)
#: Probabilities at which decision curves are drawn.
RISKS: Floats = np.arange(1, 100) / 100


@dataclass(frozen=True)
class Curve:
    """A curve, with a band where it has one.

    Attributes:
        x: (P,) such as the rate of false positives.
        y: (P,) such as the sensitivity.
        band_x: (Q,), empty where there is no band.
        low: (Q,) lower edge.
        high: (Q,) upper edge.
    """

    x: Floats
    y: Floats
    band_x: Floats = field(default_factory=lambda: np.empty(0))
    low: Floats = field(default_factory=lambda: np.empty(0))
    high: Floats = field(default_factory=lambda: np.empty(0))


def roc_curve(
    found: Predictions, index: int, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Curve | None:
    """A class's ROC curve with a pointwise band of percentiles from resampled patients.

    Args:
        found: the predictions.
        index: the class that counts as positive.
        resamples: how many.
        confidence: of every point of the band, not of the whole curve.
        seed: of the resamples.

    Returns:
        The curve from (0, 0) to (1, 1), or None where the class or the rest is absent.
    """
    scores, positive = found.probabilities[:, index], found.labels == index
    whole = rank(scores, positive, np.ones((1, len(scores))))
    if not whole.positives[0] or not whole.negatives[0]:
        return None
    blocks = group_resamples(found.patients, resamples, np.random.default_rng(seed))
    read = np.vstack([sensitivities(rank(scores, positive, weights), RATES) for weights in blocks])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    kept = read[np.isfinite(read).all(axis=1)]
    low, high = np.quantile(kept, tails, axis=0) if len(kept) else (np.full(len(RATES), np.nan),) * 2
    x = np.concatenate([[0.0], whole.false_alarms[0] / whole.negatives[0]])
    return Curve(x, np.concatenate([[0.0], whole.hits[0] / whole.positives[0]]), RATES, low, high)


def precision_recall_curve(found: Predictions, index: int) -> Curve | None:
    """A class's precision over its recall; None where the class is absent."""
    whole = rank(found.probabilities[:, index], found.labels == index, np.ones((1, len(found.labels))))
    if not whole.positives[0]:
        return None
    hits, marked = whole.hits[0], whole.hits[0] + whole.false_alarms[0]
    return Curve(hits / whole.positives[0], hits / marked)


def net_benefit(probabilities: npt.ArrayLike, positive: npt.ArrayLike, risks: npt.ArrayLike = RISKS) -> Floats:
    """Net benefit of treating the cases whose probability reaches a threshold.

    Args:
        probabilities: (N,) of the positive class; all 1 for treating everybody.
        positive: (N,) bool.
        risks: (T,) thresholds, in (0, 1).

    Returns:
        (T,) true positives less false positives, weighed by the odds of the threshold, per case.

    Source: Vickers, Elkin 2006, Medical Decision Making 26, "Decision curve analysis".
    """
    scores, mask = np.asarray(probabilities, dtype=np.float64), np.asarray(positive, dtype=bool)
    cuts = np.asarray(risks, dtype=np.float64)
    hits = _reaching(scores[mask], cuts) / len(scores)
    false_alarms = _reaching(scores[~mask], cuts) / len(scores)
    return hits - false_alarms * cuts / (1 - cuts)


def decision_curve(found: Predictions, index: int) -> Curve:
    """A class's net benefit over the probability at which one would treat."""
    return Curve(RISKS, net_benefit(found.probabilities[:, index], found.labels == index))


def treat_all(found: Predictions, index: int) -> Curve:
    """The net benefit of treating every case as if it were of this class."""
    return Curve(RISKS, net_benefit(np.ones(len(found.labels)), found.labels == index))


def confusion_matrix(found: Predictions) -> npt.NDArray[np.int64]:
    """(K, K) numbers of cases, true class along the rows and most probable class along the columns."""
    counts = np.zeros((len(found.classes),) * 2, dtype=np.int64)
    np.add.at(counts, (found.labels, found.predicted), 1)
    return counts


def prevalences(found: Predictions) -> Floats:
    """(K,) part of the cases that belongs to each class."""
    counts = np.bincount(found.labels, minlength=len(found.classes)).astype(np.float64)
    return ratio(counts, np.full(len(counts), float(len(found.labels))))


def _reaching(scores: Floats, cuts: Floats) -> Floats:
    return (len(scores) - np.searchsorted(np.sort(scores), cuts, side="left")).astype(np.float64)
