"""Logistic regression out of fold, its penalty chosen by the training cases alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Inverse penalties that are tried, weakest last; folds of patients that choose one.
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
INNER_FOLDS = 3
#: A class that the training cases lack has this probability.
LEAST = 1e-6


def out_of_fold(
    features: Floats, labels: Ints, folds: Ints, patients: Ints, classes: int, judged: Sequence[int] = ()
) -> Floats:
    """The probability of each class of every case, from a regression that has learned from the other folds.

    Features are standardised by the training cases; what a case lacks (NaN) is their mean. The penalty with the least
    negative log-likelihood over inner folds of patients is taken.

    Args:
        features: (N, F).
        labels: (N,) 0 … K - 1.
        folds: (N,).
        patients: (N,) numbers of the patients.
        classes: K.
        judged: folds whose cases are judged; all when empty.

    Returns:
        (N, K), rows with the sum 1; NaN of cases that are not judged.

    Raises:
        UsageError: E_FOLD when there is one fold only, or fewer than two patients of a class to learn from.
    """
    if len(np.unique(folds)) < 2:
        raise UsageError("E_FOLD", "Expected two folds or more, got one.")
    found = np.full((len(labels), classes), np.nan)
    for fold in judged or np.unique(folds):
        inside = folds == fold
        rest = ~inside
        least = min(len(np.unique(patients[rest & (labels == label)])) for label in range(classes))
        if least < 2:
            raise UsageError("E_FOLD", f"Expected two patients of every class beside fold {fold}, got {least} of one.")
        learned, seen = _turned(*_standardised(features[rest], features[inside]))
        penalty = _chosen(learned, labels[rest], patients[rest], classes, min(INNER_FOLDS, least))
        found[inside] = _fitted(learned, labels[rest], seen, classes, penalty)
    return found


def _chosen(features: Floats, labels: Ints, patients: Ints, classes: int, folds: int) -> float:
    losses = np.zeros(len(INVERSE_PENALTIES))
    for learned, seen in _inner(labels, patients, folds):
        for place, penalty in enumerate(INVERSE_PENALTIES):
            chances = _fitted(features[learned], labels[learned], features[seen], classes, penalty)
            losses[place] -= np.log(chances[np.arange(len(seen)), labels[seen]]).sum()
    return INVERSE_PENALTIES[int(losses.argmin())]


def _inner(labels: Ints, patients: Ints, folds: int) -> Iterator[tuple[Ints, Ints]]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    parts: Iterator[tuple[Ints, Ints]] = splitter.split(np.zeros(len(labels)), labels, patients)
    return (part for part in parts if len(np.unique(labels[part[0]])) > 1)


def _fitted(features: Floats, labels: Ints, seen: Floats, classes: int, penalty: float) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, solver="newton-cholesky").fit(features, labels)
    chances = np.full((len(seen), classes), LEAST)
    chances[:, model.classes_] = np.maximum(model.predict_proba(seen), LEAST)
    return np.asarray(chances / chances.sum(1, keepdims=True))


def _turned(training: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Both turned onto the directions that the first spans: what a penalty by length gives is the same, and fewer."""
    directions = np.linalg.svd(training, full_matrices=False)[2]
    return training @ directions.T, others @ directions.T


def _standardised(training: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Both by mean and deviation of the first; features without any spread are left out."""
    known = np.isfinite(training)
    counts = np.maximum(known.sum(0), 1)
    mean = np.where(known, training, 0.0).sum(0) / counts
    spread = np.sqrt((np.where(known, training - mean, 0.0) ** 2).sum(0) / counts)
    kept = spread > 1e-9 * np.maximum(1.0, np.abs(mean))
    return tuple(  # type: ignore[return-value]
        np.where(np.isfinite(part), (part - mean) / np.where(kept, spread, 1.0), 0.0)[:, kept]
        for part in (training, others)
    )
