"""Nested cross-validation by patient: whatever a signature is made of is learned from training cases alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from benchmarks.signature.regression import weights_of
from benchmarks.signature.selection import Method, Training
from benchmarks.signature.table import Cohort, Flags, Floats, Ints
from pipeline.evaluation.measures import ratio
from pipeline.spec.explain import Model


class Design(Model):
    """How a signature is learned and judged.

    Attributes:
        select: how features are chosen.
        sizes: how many features it may have; the inner folds choose.
        ridge: how far weights are drawn to 0; the inner folds choose.
        least_apart: of features that correlate by more (Spearman), one is kept.
        folds: of the patients, each judged by what the others have taught.
        inner_folds: of each training part, to choose by.
        repeats: of it all, with other folds.
        permutations: of the outcome, for the null; 0 for none.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the chance.
    """

    select: Method = "mrmr"
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    ridge: tuple[float, ...] = (1.0,)
    least_apart: float = Field(default=0.9, gt=0, le=1)
    folds: int = Field(default=5, ge=2)
    inner_folds: int = Field(default=3, ge=2)
    repeats: int = Field(default=5, ge=1)
    permutations: int = Field(default=200, ge=0)
    resamples: int = Field(default=2000, ge=100)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.sizes or not self.ridge or min(self.sizes) < 1 or min(self.ridge) <= 0:
            raise ValueError("sizes must be 1 or more, and ridge above 0")
        return self


@dataclass(frozen=True, eq=False)
class Fitted:
    """A signature: a weighted sum of standardised features.

    Attributes:
        training: what the training cases have taught before.
        columns: (k,) the features' numbers, in the order in which they were chosen.
        weights: (k,) of the standardised features.
        ridge: with which they were fitted.
    """

    training: Training
    columns: Ints
    weights: Floats
    ridge: float

    def scores(self, cohort: Cohort) -> Floats:
        """Of other cases (n,): the higher, the likelier or sooner the event."""
        return self.training.ready(cohort)[:, self.columns] @ self.weights


@dataclass(frozen=True, eq=False)
class Nested:
    """Scores of cases by signatures that have not seen their patients.

    Attributes:
        scores: (N, R), one column a repeat.
        folds: (N, R); scores of two folds are of two signatures, and are not compared.
        chosen: (R x folds, F) which features each signature has.
    """

    scores: Floats
    folds: Ints
    chosen: Flags

    def concordance(self, cohort: Cohort) -> Concordance:
        """Of all repeats together."""
        return Concordance.of(cohort.outcome.pairs(), self.scores, self.folds)


@dataclass(frozen=True, eq=False)
class Concordance:
    """Pairs of cases of one fold, and how many of them the scores put right, summed over repeats.

    Attributes:
        right: (N, N); of a pair whose scores are equal, a half.
        pairs: (N, N).
    """

    right: Floats
    pairs: Floats

    @classmethod
    def of(cls, pairs: Flags, scores: Floats, folds: Ints) -> Concordance:
        """Of scores and folds (N, R)."""
        right, counted = np.zeros(pairs.shape), np.zeros(pairs.shape)
        for score, fold in zip(scores.T, folds.T, strict=True):
            compared = pairs & (fold[:, None] == fold)
            right += compared * ((score[:, None] > score) + 0.5 * (score[:, None] == score))
            counted += compared
        return cls(right, counted)

    @property
    def value(self) -> float:
        """AUROC, or C index; NaN without any pair."""
        return float(ratio(self.right.sum(), self.pairs.sum()))

    def weighted(self, weights: Floats) -> Floats:
        """(B,) under weights (B, N) of the cases."""
        return ratio(((weights @ self.right) * weights).sum(1), ((weights @ self.pairs) * weights).sum(1))


def nested(cohort: Cohort, design: Design, given: Ints | None = None) -> Nested:
    """Score every case by signatures of other patients, once a repeat.

    Args:
        cohort: features and outcome.
        design: how.
        given: (N, R) folds, those of another; they are dealt when left out.

    Raises:
        UsageError: E_TABLE, E_BATCH.
    """
    shape = len(cohort.case_ids), design.repeats
    scores, folds, chosen = np.zeros(shape), np.zeros(shape, np.int64), []
    for repeat in range(design.repeats):
        rng = np.random.default_rng([design.seed, repeat])
        folds[:, repeat] = dealt(cohort, design.folds, rng) if given is None else given[:, repeat]
        for number in range(design.folds):
            held = folds[:, repeat] == number
            fitted = tuned(cohort.of(~held), design, rng)
            scores[held, repeat] = fitted.scores(cohort.of(held))
            chosen.append(np.isin(np.arange(len(cohort.features)), fitted.columns))
    return Nested(scores, folds, np.array(chosen))


def tuned(cohort: Cohort, design: Design, rng: np.random.Generator) -> Fitted:
    """Fit a signature on training cases; how many features and which ridge it has, folds of these cases choose."""
    options = [(size, ridge) for size in sorted(design.sizes) for ridge in sorted(design.ridge, reverse=True)]
    best = options[0]
    if len(options) > 1 and len(cohort.features) > 1:
        fold = dealt(cohort, design.inner_folds, rng)
        scores = np.zeros((len(options), len(fold)))
        for number in range(design.inner_folds):
            held = fold == number
            others = cohort.of(held)
            for row, fitted in enumerate(_candidates(cohort.of(~held), design, options)):
                scores[row, held] = fitted.scores(others)
        pairs = cohort.outcome.pairs()
        values = [Concordance.of(pairs, score[:, None], fold[:, None]).value for score in scores]
        best = options[int(np.nanargmax(values))]  # the first of equals has the fewest features
    return _candidates(cohort, design, [best])[0]


def _candidates(cohort: Cohort, design: Design, options: Sequence[tuple[int, float]]) -> list[Fitted]:
    training = Training.of(cohort)
    order = training.order(design.select, max(size for size, _ in options), design.least_apart)
    found: dict[tuple[int, float], Fitted] = {}
    for size, ridge in options:
        columns = order[:size]
        key = len(columns), ridge
        if key not in found:
            weights = weights_of(training.table[:, columns], cohort.outcome, ridge)
            found[key] = Fitted(training, columns, weights, ridge)
    return [found[min(size, len(order)), ridge] for size, ridge in options]


def dealt(cohort: Cohort, folds: int, rng: np.random.Generator) -> Ints:
    """A fold for every case (N,), from 0: patients stay whole, and each fold has its part of events and batches."""
    _, patients = np.unique(cohort.patients, return_inverse=True)
    strata = cohort.outcome.event.astype(np.int64)
    if cohort.batches:
        strata += 2 * np.unique(cohort.batches, return_inverse=True)[1]
    of_patient = np.full(patients.max() + 1, -1)
    np.maximum.at(of_patient, patients, strata)
    order = rng.permutation(len(of_patient))
    order = order[np.argsort(of_patient[order], kind="stable")]
    fold = np.empty(len(order), np.int64)
    fold[order] = (np.arange(len(order)) + rng.integers(folds)) % folds
    return fold[patients]
