"""The measures of a classifier, for many resamples of the cases at once.

One function gives the estimate (all weights 1), the bootstrap (weights drawn) and the jackknife (weights 0 for one
patient).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.results import ALL, MACRO, Floats, Predictions


@dataclass(frozen=True)
class Ranking:
    """How many cases reach each of the U distinct scores, in falling order, for B weightings of the cases.

    Attributes:
        hits: (B, U) weight of the positives that reach it.
        false_alarms: (B, U) weight of the negatives that reach it.
    """

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
    return Ranking(hits, np.add.reduceat(taken, starts, axis=1).cumsum(axis=1) - hits)


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


#: A measure and what it is of: a class, `ALL` or `MACRO`.
Key = tuple[str, str]


def measure_values(found: Predictions, weights: Floats, specificity: float = 0.9) -> dict[Key, Floats]:
    """All measures under B weightings of the cases.

    Args:
        found: the predictions.
        weights: (B, N), how often each case counts.
        specificity: at which sensitivity is read, in [0, 1].

    Returns:
        (measure, class) -> (B,), NaN where the measure is undefined. With more than two classes, each class is scored
        against the rest, and the macro average is the plain mean over classes, undefined where one of them is.
    """
    values = _of_all(found, weights)
    single = {
        index: _of_ranking(found, index, weights, specificity) | _of_decisions(found, index, weights)
        for index in found.scored
    }
    values |= {(name, found.classes[index]): value for index, named in single.items() for name, value in named.items()}
    if len(found.classes) > 2:
        names = next(iter(single.values()))
        values |= {(name, MACRO): np.mean([named[name] for named in single.values()], axis=0) for name in names}
    return values


def undefined_reason(found: Predictions, key: Key) -> str:
    """Why a measure has no value on these predictions, in words."""
    name, of = key
    if name == "negative_log_likelihood":
        return "a true class was given the probability 0, so it is infinite"
    affected = found.scored if of == MACRO else (found.classes.index(of),)
    reasons = [_class_reason(found, index, name) for index in affected]
    return "; ".join(reason for reason in reasons if reason)


def _class_reason(found: Predictions, index: int, name: str) -> str:
    present, named = found.labels == index, found.classes[index]
    if name == "precision":
        return "" if (found.predicted == index).any() else f"{named} is never predicted"
    if not present.any():
        return f"no case is {named}"
    if present.all() and (name == "auroc" or name.startswith("sensitivity_at")):
        return f"every case is {named}"
    return ""


def _of_all(found: Predictions, weights: Floats) -> dict[Key, Floats]:
    """Accuracy; Brier score; negative log-likelihood in nats.

    The Brier score of two classes is the squared error of class 1, in [0, 1]; of more, the sum over classes, in [0, 2].

    Source: Brier 1950, Monthly Weather Review 78.
    """
    total = weights.sum(axis=1)
    own = found.probabilities[np.arange(len(found.labels)), found.labels]
    error = found.probabilities - np.eye(len(found.classes))[found.labels]
    squared = error[:, 1] ** 2 if len(found.classes) == 2 else (error**2).sum(axis=1)
    likelihood = -np.log(own) if own.min() > 0 else np.full(len(own), np.nan)
    columns = {"accuracy": found.predicted == found.labels, "brier": squared, "negative_log_likelihood": likelihood}
    return {(name, ALL): ratio(weights @ column.astype(np.float64), total) for name, column in columns.items()}


def _of_ranking(found: Predictions, index: int, weights: Floats, specificity: float) -> dict[str, Floats]:
    ranking = rank(found.probabilities[:, index], found.labels == index, weights)
    return {
        "auroc": auroc(ranking),
        "average_precision": average_precision(ranking),
        f"sensitivity_at_specificity_{specificity:g}": sensitivity_at(ranking, specificity),
    }


def _of_decisions(found: Predictions, index: int, weights: Floats) -> dict[str, Floats]:
    """Precision, recall and F1 of the most probable class; recall of class 0 of two is the specificity."""
    actual, predicted = found.labels == index, found.predicted == index
    hits = weights @ (actual & predicted).astype(np.float64)
    of_actual, of_predicted = weights @ actual.astype(np.float64), weights @ predicted.astype(np.float64)
    return {
        "precision": ratio(hits, of_predicted),
        "recall": ratio(hits, of_actual),
        "f1": ratio(2 * hits, of_actual + of_predicted),
    }
