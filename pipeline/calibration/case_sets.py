"""Sets of classes of whole cases, as a calibration file keeps them.

They are scored by the model's own probabilities, not by the calibrated ones. The calibration map is fitted on the same
cases, and a score that has seen the cases which choose the threshold promises nothing; the model's own has not, so that
all cases count for the threshold and none has to be put aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest

from pipeline.calibration.conformal import (
    ALL,
    ClassSets,
    Floats,
    ScoreRule,
    conformal_quantile,
    conformity_scores,
    fewest_cases,
    require_alpha,
)
from pipeline.calibration.rows import Logits, Rows, table_of
from pipeline.errors import UsageError

FOLDS = 5
LEVEL = 0.95


@dataclass(frozen=True)
class SetsCheck:
    """What the sets of held-out cases are like: each case's threshold comes from the cases of the other folds.

    Attributes:
        cases: how many.
        covered: of how many all sets hold the true class.
        low: lower end of the 95 % interval (Wilson) of the share of such cases.
        high: upper end.
        sizes: how many rows have a set of 0, 1, … all classes.
    """

    cases: int
    covered: int
    low: float
    high: float
    sizes: tuple[int, ...]


def rule_of(name: str) -> ScoreRule:
    """The rule without chance: the same case gets the same set, whoever asks and when.

    Raises:
        UsageError: E_CONFORMAL.
    """
    return ScoreRule(name, randomised=False)  # type: ignore[arg-type]


def fit_case_sets(rows: Rows, alpha: float, rule: ScoreRule) -> ClassSets:
    """Calibrate sets of classes; the case is the unit, and counts as held where the sets of all its rows are right.

    Args:
        rows: of cases that the model was not trained on.
        alpha: how often a case may be missed, in (0, 1).
        rule: not randomised.

    Raises:
        UsageError: E_CONFORMAL for a level that is none or that takes more cases than there are.
    """
    require_alpha(alpha)
    if rows.case_count < fewest_cases(alpha):
        message = f"Expected at least {fewest_cases(alpha)} cases for sets that miss {alpha:g}, got {rows.case_count}."
        raise UsageError("E_CONFORMAL", message, "Use more cases, or a larger level (--sets, set_level).")
    worst = _case_scores(rows, rule)
    return ClassSets(rule, alpha, {ALL: conformal_quantile(worst, alpha)}, {ALL: len(worst)})


def sets_of(sets: ClassSets, logits: Logits) -> npt.NDArray[np.bool_]:
    """Which classes are not excluded: (N, C) of logits (N, C), or (N,) for the log-odds of class 1 of two."""
    return sets.predict(_own_probabilities(table_of(logits)))


def check_sets(rows: Rows, alpha: float, rule: ScoreRule) -> SetsCheck:
    """Cross-fit the thresholds over folds of cases, and count.

    Source: of the interval: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    worst, numbers = _case_scores(rows, rule), _case_numbers(rows)
    fold = np.random.default_rng(0).permutation(len(worst)) % FOLDS
    cuts = np.array([conformal_quantile(worst[fold != number], alpha) for number in range(FOLDS)])[fold]
    covered = int((worst <= cuts).sum())
    held = conformity_scores(_own_probabilities(rows.logits), rule) <= cuts[numbers][:, None]
    interval = binomtest(covered, len(worst)).proportion_ci(LEVEL, "wilson")
    sizes = np.bincount(held.sum(axis=1), minlength=rows.classes + 1)
    return SetsCheck(len(worst), covered, float(interval.low), float(interval.high), tuple(sizes.tolist()))


def _case_scores(rows: Rows, rule: ScoreRule) -> Floats:
    """Of each case the largest score of a true class: a threshold above it holds all of them."""
    scores = conformity_scores(_own_probabilities(rows.logits), rule)[np.arange(len(rows.labels)), rows.labels.numpy()]
    worst = np.full(rows.case_count, -np.inf)
    np.maximum.at(worst, _case_numbers(rows), scores)
    return worst


def _case_numbers(rows: Rows) -> npt.NDArray[np.int64]:
    return np.unique(rows.cases.numpy(), return_inverse=True)[1].astype(np.int64)


def _own_probabilities(table: torch.Tensor) -> Floats:
    return np.asarray(torch.softmax(table.double(), 1).numpy())
