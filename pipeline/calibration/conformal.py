"""Sets of classes that hold the true one with a stated probability: split conformal prediction, the case as the unit.

The guarantee is marginal: on average over calibration sets and new cases that are exchangeable with them. It says
nothing about one patient, nor about a class or a subgroup.

Sets are scored by the model's own probabilities, not by the calibrated ones. The calibration map is fitted on the same
cases, and a score that has seen the cases which choose the threshold promises nothing; the model's own has not, so that
all cases count for the threshold and none has to be put aside.

Source: Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World; Angelopoulos, Bates 2021, "A gentle
introduction to conformal prediction", arXiv 2107.07511.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta, binomtest

from pipeline.calibration.rows import Logits, Rows, table_of
from pipeline.errors import UsageError

Floats = npt.NDArray[np.float64]
METHODS = ("lac", "aps", "raps")
FOLDS, LEVEL = 5, 0.95


@dataclass(frozen=True)
class ScoreRule:
    """How unusual a class is for a row: the score that conformal prediction cuts. No rule has a part by chance.

    Attributes:
        method: `lac`: 1 - p of the class (Sadinle, Lei, Wasserman 2019): the smallest sets, unequal over cases.
            `aps`: the probability of all classes down to this one (Romano, Sesia, Candès 2020): adapts to hard cases.
            `raps`: `aps` plus a penalty for long sets (Angelopoulos, Bates, Malik, Jordan 2021).
        penalty: of `raps`, for each rank beyond `free_ranks` (lambda in the paper).
        free_ranks: of `raps`, how many classes a set may hold without a penalty (k_reg in the paper).
    """

    method: str = "lac"
    penalty: float = 0.01
    free_ranks: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no rule.

        Raises:
            UsageError: E_CONFORMAL.
        """
        if self.method not in METHODS:
            raise UsageError("E_CONFORMAL", f"Expected the method lac, aps or raps, got {self.method!r}.")
        if self.penalty < 0 or self.free_ranks < 0:
            raise UsageError("E_CONFORMAL", "Expected a penalty and a number of free ranks that are not negative.")


@dataclass(frozen=True)
class ClassSets:
    """A fitted conformal predictor of classes.

    Attributes:
        rule: the score.
        alpha: how often the sets of a case may miss a true class.
        threshold: the largest score that a class in a set may have.
        cases: number of calibration cases.
    """

    rule: ScoreRule
    alpha: float
    threshold: float
    cases: int

    def predict(self, logits: Logits) -> npt.NDArray[np.bool_]:
        """Which classes are not excluded; a set may be empty: no class looks like the calibration cases.

        Args:
            logits: (N, C), or (N,) for the log-odds of class 1 of two.

        Returns:
            (N, C).
        """
        return conformity_scores(_own_probabilities(table_of(logits)), self.rule) <= self.threshold

    def guarantee(self) -> str:
        """What the sets promise, in words.

        Source: of the range over calibration sets: Vovk 2012, Conditional validity of inductive conformal predictors.
        """
        misses = math.floor(round((self.cases + 1) * self.alpha, 9))
        low, high = beta.ppf([0.05, 0.95], self.cases + 1 - misses, misses)
        return (
            f"Calibrated on n = {self.cases} cases: for new cases that are exchangeable with them, the sets hold the "
            f"true class in at least {100 * (1 - self.alpha):.4g} % of cases, on average over calibration sets. One "
            f"calibration set of this size gives between {100 * low:.3g} and {100 * high:.3g} % in nine of ten draws, "
            "where scores have no ties."
        )

    def in_short(self) -> str:
        """The level and the number of calibration cases, for where there is no room for `guarantee`."""
        return f"{100 * (1 - self.alpha):.4g} % of cases' sets hold the true class, on average; n = {self.cases}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassSets:
        """Read back what `to_json` gave.

        Raises:
            KeyError, TypeError: when the data are not a conformal predictor.
        """
        return cls(ScoreRule(**data["rule"]), float(data["alpha"]), float(data["threshold"]), int(data["cases"]))


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


def fit_sets(rows: Rows, alpha: float, rule: ScoreRule) -> ClassSets:
    """Calibrate sets of classes; the case is the unit, and counts as held where the sets of all its rows are right.

    Args:
        rows: of cases that the model was not trained on.
        alpha: how often a case may be missed, in (0, 1).
        rule: the score.

    Raises:
        UsageError: E_CONFORMAL for a level that is none or that takes more cases than there are.
    """
    require_alpha(alpha)
    if rows.case_count < fewest_cases(alpha):
        message = f"Expected at least {fewest_cases(alpha)} cases for sets that miss {alpha:g}, got {rows.case_count}."
        raise UsageError("E_CONFORMAL", message, "Use more cases, or a larger level (--sets, set_level).")
    worst = _case_scores(rows, rule)
    return ClassSets(rule, alpha, conformal_quantile(worst, alpha), len(worst))


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


def conformity_scores(probabilities: Floats, rule: ScoreRule) -> Floats:
    """The score of every class, (N, K), of rows of probabilities (N, K); a set holds the classes with the low ones."""
    if rule.method == "lac":
        return 1.0 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    down_to = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    if rule.method == "raps":
        ranks = np.arange(1, down_to.shape[1] + 1)
        down_to = down_to + rule.penalty * np.maximum(ranks - rule.free_ranks, 0)
    scores = np.empty_like(down_to)
    np.put_along_axis(scores, order, down_to, axis=1)
    return scores


def conformal_quantile(scores: Floats, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of n scores; infinite where there is none, as for n < 1 / alpha - 1."""
    rank = math.ceil(round((len(scores) + 1) * (1 - alpha), 9))
    return math.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def fewest_cases(alpha: float) -> int:
    """How many calibration cases a guarantee at alpha takes: the smallest n with 1 / (n + 1) <= alpha."""
    return math.ceil(round(1 / alpha - 1, 9))


def require_alpha(alpha: float) -> None:
    """Refuse a level that is none.

    Raises:
        UsageError: E_CONFORMAL.
    """
    if not 0 < alpha < 1:
        raise UsageError("E_CONFORMAL", f"Expected alpha between 0 and 1, got {alpha}.")


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
