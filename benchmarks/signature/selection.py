"""What a signature learns from its training cases: what they are, and which are chosen. It sees no others."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from benchmarks.signature.table import Cohort, Floats, Ints
from pipeline.errors import UsageError
from pipeline.radiomics.harmonisation import Combat, fit_combat

Method = Literal["mrmr", "l1"]
#: A feature that has one and the same value in more than this part of the training cases does not vary.
_MOSTLY_ONE = 0.95


@dataclass(frozen=True, eq=False)
class Training:
    """Training cases made ready: harmonised, gaps filled with the median, standardised.

    Attributes:
        cohort: the training cases.
        combat: what was fitted on them; None without batches.
        medians: (F,) of the training cases; NaN where none has the feature.
        mean: (F,).
        deviation: (F,); 0 where the feature does not vary.
        table: (N, F) standardised.
    """

    cohort: Cohort
    combat: Combat | None
    medians: Floats
    mean: Floats
    deviation: Floats
    table: Floats

    @classmethod
    def of(cls, cohort: Cohort) -> Training:
        """Estimate all that is estimated from the cases before features are chosen."""
        combat = fit_combat(cohort.values, cohort.batches) if cohort.batches else None
        values = cohort.values if combat is None else combat.apply(cohort.values, cohort.batches)
        gaps = np.isnan(values)
        if gaps.any():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a feature that no case has
                medians = np.nanmedian(values, 0)
            values = np.where(gaps, medians, values)
        else:
            medians = np.median(values, 0)
        mean, deviation = values.mean(0), values.std(0)
        one = (values == np.median(values, 0)).mean(0) > _MOSTLY_ONE
        constant = one | ~(deviation > 1e-12 * np.abs(values).max(0))
        deviation = np.where(constant, 0.0, deviation)
        table = np.divide(values - mean, deviation, out=np.zeros_like(values), where=~constant)
        return cls(cohort, combat, medians, mean, deviation, table)

    def ready(self, cohort: Cohort) -> Floats:
        """Other cases made ready by what the training cases have taught, (n, F)."""
        values = cohort.values if self.combat is None else self.combat.apply(cohort.values, cohort.batches)
        filled = np.where(np.isnan(values), self.medians, values) - self.mean
        return np.divide(filled, self.deviation, out=np.zeros_like(filled), where=self.deviation > 0)

    @cached_property
    def ranks(self) -> Floats:
        """(N, F) of each feature that varies, standardised: what one far value does not rule; 0 where it does not."""
        ranks = rankdata(self.table, axis=0)
        ranks -= ranks.mean(0)
        spread = ranks.std(0)
        return np.divide(ranks, spread, out=np.zeros_like(ranks), where=(spread > 0) & (self.deviation > 0))

    def order(self, method: Method, most: int, least_apart: float) -> Ints:
        """Features in the order in which they are chosen, (at most `most`,).

        Args:
            method: `mrmr` takes what tells most of the outcome and least of what is chosen already (F-test and
                correlation, their quotient: Ding, Peng 2005, J Bioinform Comput Biol 3, FCQ); `l1` takes features as
                they enter the lasso's path (Efron et al. 2004, Annals of Statistics 32).
            most: how many.
            least_apart: of features that correlate by more than this, only the one nearest to the outcome is kept.
        """
        response = self.cohort.outcome.response()
        response = (response - response.mean()) / (response.std() or 1.0)
        told = self.ranks.T @ response / len(response)
        kept = self._apart(np.abs(told), least_apart)
        if method == "l1":
            return kept[_lasso_order(self.ranks[:, kept], response, most)]
        squared = np.minimum(told[kept] ** 2, 1 - 1e-9)
        return kept[_mrmr(self.ranks[:, kept], squared / (1 - squared), most)]

    def _apart(self, told: Floats, limit: float) -> Ints:
        """Features that vary without those that correlate with one which tells more of the outcome."""
        varied = np.flatnonzero(self.deviation > 0)
        by_worth = varied[np.argsort(-told[varied], kind="stable")]
        if not by_worth.size:
            raise UsageError("E_TABLE", "Expected features that differ between the training cases, got none.")
        ranks = self.ranks[:, by_worth]
        alike = np.abs(ranks.T @ ranks) > limit * len(ranks)
        free, kept = np.ones(len(by_worth), bool), []
        for number in range(len(by_worth)):
            if free[number]:
                kept.append(number)
                free &= ~alike[number]
        return by_worth[kept]


def _mrmr(ranks: Floats, worth: Floats, most: int) -> Ints:
    """Columns of standardised ranks (N, m) in the order of worth (m,) over mean correlation with those before."""
    chosen, alike = [int(worth.argmax())], np.zeros(len(worth))
    while len(chosen) < min(most, len(worth)):
        alike += np.abs(ranks.T @ ranks[:, chosen[-1]]) / len(ranks)
        # what correlates with nothing is not worth any number of others
        score = worth / np.maximum(alike / len(chosen), 0.01)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
    return np.array(chosen)


def _lasso_order(ranks: Floats, response: Floats, most: int) -> Ints:
    from sklearn.linear_model import lars_path

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says when it stops early, which is no matter: the order is wanted
        _, active, _ = lars_path(ranks, response, method="lasso", max_iter=2 * most)
    return np.array(active[:most] or [int(np.abs(ranks.T @ response).argmax())], dtype=np.int64)
