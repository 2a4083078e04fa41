"""ComBat: the shift and the spread that a scanner or centre gives to features, estimated on some cases and taken out.

Each feature's batch effect is drawn towards what the batch does to all features (parametric empirical Bayes), so that
small batches do no harm.

Source: Johnson, Li, Rabinovic 2007, Biostatistics 8, "Adjusting batch effects in microarray expression data using
empirical Bayes methods", section 3; for images Fortin et al. 2018, NeuroImage 167.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.radiomics.levels import Floats
from pipeline.spec.explain import did_you_mean

#: A batch of fewer training cases is refused: its spread would be a guess.
LEAST_CASES = 5
#: The estimates are repeated until no one changes by more, relative; and so often at most.
_TOLERANCE, _MOST_STEPS = 1e-9, 10_000


@dataclass(frozen=True, eq=False)
class Combat:
    """What batches do to F features; made by `fit_combat`.

    Attributes:
        batches: B names, in order.
        harmonised: (F,) bool; the others are left as they are: in some batch they have fewer than two values, or one
            value only.
        mean: (F,) over the training cases.
        deviation: (F,) of the training cases about batch means and covariates.
        effects: (C, F) of the covariates, which are kept.
        shift: (B, F) of each batch, in deviations.
        spread: (B, F) variance of each batch, in squared deviations.
    """

    batches: tuple[str, ...]
    harmonised: npt.NDArray[np.bool_]
    mean: Floats
    deviation: Floats
    effects: Floats
    shift: Floats
    spread: Floats

    def apply(self, values: Floats, batches: Sequence[str], covariates: Floats | None = None) -> Floats:
        """Take the batch effects out of cases, of the training or others; nothing is estimated from them.

        Args:
            values: (N, F); NaN stays NaN.
            batches: N names.
            covariates: (N, C), those that it was fitted with.

        Returns:
            (N, F).

        Raises:
            UsageError: E_BATCH for a batch that the training cases did not have, or other covariates.
        """
        at = [_place(name, self.batches) for name in batches]
        kept = self.mean + _checked(covariates, len(values), len(self.effects)) @ self.effects
        standard = (values - kept) / self.deviation
        plain = (standard - self.shift[at]) / np.sqrt(self.spread[at])
        return np.where(self.harmonised, plain * self.deviation + kept, values)


def fit_combat(values: Floats, batches: Sequence[str], covariates: Floats | None = None) -> Combat:
    """Estimate what batches do to features, on training cases alone.

    Args:
        values: (N, F); NaN where there is no value: a feature is fitted on the cases that have it.
        batches: N names.
        covariates: (N, C) what is no matter of the batch and has to be kept, such as a stage; finite.

    Raises:
        UsageError: E_BATCH for fewer than two batches, a batch of fewer than `LEAST_CASES` cases, covariates that
            batches determine, or fewer than two features that vary in every batch; E_ROWS.
    """
    names = tuple(sorted(set(batches)))
    if len(batches) != len(values):
        raise UsageError("E_ROWS", f"Expected a batch for each of {len(values)} cases, got {len(batches)}.")
    member = np.array([[name == own for own in names] for name in batches], float).reshape(len(values), -1)
    _require_batches(names, member)
    design = np.hstack([member, _checked(covariates, len(values), None)])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UsageError("E_BATCH", "Expected covariates that differ within batches, got some that batches determine.")
    known = np.isfinite(values)
    usable = _varied(values, known, member)
    if usable.sum() < 2:
        got = f"got {int(usable.sum())} of {values.shape[1]}"
        raise UsageError("E_BATCH", f"Expected two or more features that vary in every batch, {got}.")
    mean, deviation, effects = _standard(values, known, design, member.shape[1], usable)
    usable &= deviation > 0
    standard = np.where(known, (values - mean - design[:, len(names) :] @ effects) / deviation, np.nan)
    shift, spread = np.zeros((len(names), len(usable))), np.ones((len(names), len(usable)))
    for number in range(len(names)):
        shift[number, usable], spread[number, usable] = _drawn(standard[member[:, number] > 0][:, usable])
    return Combat(names, usable, mean, deviation, effects, shift, spread)


def _require_batches(names: Sequence[str], member: Floats) -> None:
    if len(names) < 2:
        raise UsageError("E_BATCH", f"Expected two or more batches, got {', '.join(names) or 'none'}.")
    few = [f"{name} {count:g}" for name, count in zip(names, member.sum(0), strict=True) if count < LEAST_CASES]
    if few:
        got = ", ".join(few)
        raise UsageError("E_BATCH", f"Expected {LEAST_CASES} or more training cases of each batch, got of {got}.")


def _place(name: str, batches: Sequence[str]) -> int:
    if name in batches:
        return batches.index(name)
    near = did_you_mean(name, batches) or "."
    raise UsageError("E_BATCH", f"Expected a batch of the training cases ({', '.join(batches)}), got {name}{near}")


def _checked(covariates: Floats | None, cases: int, count: int | None) -> Floats:
    """Covariates (N, C); none where there are none."""
    found = np.zeros((cases, 0)) if covariates is None else np.asarray(covariates, float)
    if found.shape != (cases, found.shape[1] if count is None else count) or not np.isfinite(found).all():
        wanted = f"({cases}, {'C' if count is None else count})"
        raise UsageError("E_BATCH", f"Expected covariates {wanted}, all finite, got {found.shape} or gaps in them.")
    return found


def _varied(values: Floats, known: npt.NDArray[np.bool_], member: Floats) -> npt.NDArray[np.bool_]:
    """Which features have two different values or more in every batch, (F,)."""
    low, high = np.where(known, values, np.inf), np.where(known, values, -np.inf)
    inside = [member[:, number] > 0 for number in range(member.shape[1])]
    return np.all([low[rows].min(0) < high[rows].max(0) for rows in inside], axis=0)


def _standard(
    values: Floats, known: npt.NDArray[np.bool_], design: Floats, batches: int, usable: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Mean, deviation (F,) and effects of covariates (C, F): least squares over the cases that have the feature."""
    features = values.shape[1]
    mean, deviation, effects = np.zeros(features), np.ones(features), np.zeros((design.shape[1] - batches, features))
    patterns, group = np.unique(known[:, usable], axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        columns = np.flatnonzero(usable)[group.ravel() == number]
        wanted, own = values[np.ix_(rows, columns)], design[rows]
        found, _, rank, _ = np.linalg.lstsq(own, wanted, rcond=None)
        mean[columns] = own[:, :batches].mean(0) @ found[:batches]
        effects[:, columns] = found[batches:]
        spread = np.sqrt(((wanted - own @ found) ** 2).mean(0))
        # without its own fit, or with nothing left beside it, a feature has no scale
        deviation[columns] = np.where((rank == own.shape[1]) & (spread > 1e-9 * np.abs(wanted).max(0)), spread, np.nan)
    return mean, deviation, effects


def _drawn(standard: Floats) -> tuple[Floats, Floats]:
    """Shift and variance (F,) of one batch's standardised values (n, F), drawn towards those of all features."""
    count = np.isfinite(standard).sum(0)
    own_shift, own_spread = np.nanmean(standard, 0), np.nanvar(standard, 0, ddof=1)
    about, between = own_shift.mean(), own_shift.var(ddof=1)
    usual, scatter = own_spread.mean(), own_spread.var(ddof=1)
    shift, spread = own_shift, own_spread
    for _ in range(_MOST_STEPS):
        before = shift, spread
        shift = (count * between * own_shift + spread * about) / (count * between + spread)
        squares = np.nansum((standard - shift) ** 2, 0)
        # the mean of the inverse gamma distribution, prior by moments; written so that no scatter is no division by 0
        spread = (scatter * squares / 2 + usual * scatter + usual**3) / (scatter * (count / 2 + 1) + usual**2)
        change = max(np.abs(shift - before[0]).max(), np.abs(spread / before[1] - 1).max())
        if change < _TOLERANCE:
            break
    return shift, spread
