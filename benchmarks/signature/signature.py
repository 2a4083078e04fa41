"""A radiomics signature: how good it is beside single features and beside chance, and how stable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.signature.nested import Concordance, Design, Fitted, Nested, nested, tuned
from benchmarks.signature.table import Cohort, Flags, Floats, Ints
from pipeline.errors import UsageError
from pipeline.evaluation.intervals import (
    BCA_BELOW,
    Interval,
    bootstrap_interval,
    leave_one_out,
)
from pipeline.probabilities import group_resamples
from pipeline.spec.explain import did_you_mean

SIGNATURE = "signature"


@dataclass(frozen=True)
class Measured:
    """How good something is.

    Attributes:
        name: `signature`, or the column.
        value: AUROC or C index, over pairs of one fold.
        interval: of it, patients resampled.
        less: what the signature has more, with its interval; None of the signature itself.
        less_interval: likewise.
    """

    name: str
    value: float
    interval: Interval
    less: float | None = None
    less_interval: Interval | None = None


@dataclass(frozen=True, eq=False)
class Signature:
    """What was found.

    Attributes:
        cohort: the cases.
        design: how it was made.
        measured: the signature, then each single feature beside it.
        nested: its scores.
        null: (permutations,) AUROC or C index of shuffled outcomes.
        p_value: of the null, one-sided; None without permutations.
        stability: of the choice of features, at most 1; None where it is undefined.
        final: the signature of all cases.
    """

    cohort: Cohort
    design: Design
    measured: tuple[Measured, ...]
    nested: Nested
    null: Floats
    p_value: float | None
    stability: float | None
    final: Fitted

    @property
    def chosen(self) -> Floats:
        """(F,) the part of the signatures that have each feature."""
        return self.nested.chosen.mean(0)

    @property
    def missing(self) -> Ints:
        """(F,) how many cases lack each feature, and had the training cases' median."""
        return np.isnan(self.cohort.values).sum(0)


def signature(cohort: Cohort, design: Design, baselines: Sequence[str] = ()) -> Signature:
    """Learn and judge a signature.

    Args:
        cohort: features and outcome.
        design: how.
        baselines: features that are judged alone, on the same pairs of cases, such as the volume. Nothing is learned
            for them, not even their direction: below .5, low values go with the event.

    Raises:
        UsageError: E_FOLD for too few patients of a class; E_TABLE for a baseline that is no feature, or no feature
            that varies; E_BATCH.
    """
    _require_cases(cohort, design)
    columns = [_column(name, cohort) for name in baselines]
    found = nested(cohort, design)
    null = permutation_null(cohort, design)
    judged = found.concordance(cohort)
    p_value = (1 + int((null >= judged.value).sum())) / (len(null) + 1) if len(null) else None
    beside = [Concordance.of(cohort.outcome.pairs(), _alone(cohort, at, design), found.folds) for at in columns]
    measured = _measured([SIGNATURE, *baselines], [judged, *beside], cohort, design)
    final = tuned(cohort, design, np.random.default_rng([design.seed, design.repeats]))
    return Signature(cohort, design, measured, found, null, p_value, stability(found.chosen), final)


def shuffled(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    """The cohort with the outcomes of other patients; those of a patient's cases stay together.

    Where each patient has one outcome, patients change it with any other; else with patients of as many cases.
    """
    groups = [np.flatnonzero(cohort.patients == number) for number in np.unique(cohort.patients)]
    whole = all(_is_one(cohort, rows) for rows in groups)
    sizes = np.array([1 if whole else len(rows) for rows in groups])
    order = np.empty(len(cohort.case_ids), np.int64)
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        for own, other in zip(members, rng.permutation(members), strict=True):
            order[groups[own]] = groups[other][0] if whole else groups[other]
    return cohort.with_outcome_of(order)


def permutation_null(cohort: Cohort, design: Design) -> Floats:
    """(permutations,) AUROC or C index of the whole procedure where features tell nothing of the outcome."""
    rng = np.random.default_rng([design.seed, 1 << 20])
    found = []
    for _ in range(design.permutations):
        other = shuffled(cohort, rng)
        found.append(nested(other, design).concordance(other).value)
    return np.array(found)


def stability(chosen: Flags) -> float | None:
    """How alike choices of features are: 1 where all are one, 0 as by chance. None where none or all are chosen.

    Args:
        chosen: (M, F), which features each of M choices has.

    Source: Nogueira, Sechidis, Brown 2018, Journal of Machine Learning Research 18, equation 4.
    """
    choices, features = chosen.shape
    share = chosen.mean(0)
    usual = share.sum() / features
    if choices < 2 or not 0 < usual < 1:
        return None
    spread = (choices / (choices - 1) * share * (1 - share)).mean()
    return float(1 - spread / (usual * (1 - usual)))


def _measured(
    names: Sequence[str], found: Sequence[Concordance], cohort: Cohort, design: Design
) -> tuple[Measured, ...]:
    """The measures with intervals; all on the same resamples of the patients, so that differences are paired."""
    rng = np.random.default_rng([design.seed, 1 << 21])
    blocks = list(group_resamples(cohort.patients, design.resamples, rng))
    drawn = [np.concatenate([item.weighted(weights) for weights in blocks]) for item in found]
    few = 1 < cohort.patients.max() + 1 < BCA_BELOW
    without = [item.weighted(leave_one_out(cohort.patients)) if few else None for item in found]
    intervals = [
        bootstrap_interval(item.value, replicates, left, design.confidence)
        for item, replicates, left in zip(found, drawn, without, strict=True)
    ]
    first = Measured(names[0], found[0].value, intervals[0])
    others = [
        Measured(
            name,
            item.value,
            own,
            found[0].value - item.value,
            bootstrap_interval(found[0].value - item.value, drawn[0] - replicates, None, design.confidence),
        )
        for name, item, own, replicates in zip(names[1:], found[1:], intervals[1:], drawn[1:], strict=True)
    ]
    return (first, *others)


def _require_cases(cohort: Cohort, design: Design) -> None:
    event = np.zeros(cohort.patients.max() + 1, bool)
    np.logical_or.at(event, cohort.patients, cohort.outcome.event)
    kinds = {"with the event" if cohort.outcome.time is not None else "of class 1": int(event.sum())}
    if cohort.outcome.time is None:
        kinds["of class 0"] = int((~event).sum())
    # what is left for training after one fold has to fill the inner folds
    least = max(design.folds, -(-design.inner_folds * design.folds // (design.folds - 1)))
    for kind, count in kinds.items():
        if count < least:
            what = f"Expected {least} or more patients {kind} for {design.folds} folds, got {count}."
            raise UsageError("E_FOLD", what)


def _column(name: str, cohort: Cohort) -> int:
    if name not in cohort.features:
        near = did_you_mean(name, cohort.features) or "."
        raise UsageError("E_TABLE", f"Expected the feature {name} as baseline, got none{near}", "Correct the name.")
    return cohort.features.index(name)


def _alone(cohort: Cohort, column: int, design: Design) -> Floats:
    """One feature as the scores of every repeat, (N, R); its median where it is missing."""
    values = cohort.values[:, column]
    filled = np.where(np.isnan(values), np.nanmedian(values), values)
    return np.repeat(filled[:, None], design.repeats, axis=1)


def _is_one(cohort: Cohort, rows: Ints) -> bool:
    event, time = cohort.outcome.event[rows], cohort.outcome.time
    return bool((event == event[0]).all() and (time is None or (time[rows] == time[rows[0]]).all()))
