"""Calibration measured: each figure with the interval of its data and the null interval of a perfect model.

A plug-in calibration error is positive even for a perfect model, the more so the fewer cases there are. So no figure
stands alone: a bootstrap over cases says how well it is known, and the null interval what a perfectly calibrated model
with these very probabilities would show at this number of cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pipeline.calibration import kernels
from pipeline.calibration.binning import BINS, LEVEL, FloatArray, IntArray
from pipeline.calibration.kernels import Kernel
from pipeline.errors import UsageError
from pipeline.probabilities import class_labels, class_probabilities, group_indices

#: name -> kernel for probabilities and a number of bins.
MEASURES: dict[str, Callable[[FloatArray, int], Kernel]] = {
    "nll": lambda probabilities, bins: kernels.nll(probabilities),
    "brier": lambda probabilities, bins: kernels.brier(probabilities),
    "ece": kernels.ece,
    "ece_equal_mass": partial(kernels.ece, scheme="equal_mass"),
    "ece_debiased": kernels.ece_debiased,
    "squared_error_debiased": kernels.squared_error_debiased,
    "ece_classwise": kernels.ece_classwise,
    "ks": lambda probabilities, bins: kernels.kolmogorov_smirnov(probabilities),
    "mce": kernels.mce,
    "brier_reliability": kernels.brier_reliability,
    "brier_resolution": kernels.brier_resolution,
    "brier_uncertainty": kernels.brier_uncertainty,
}
#: Means over rows take percentile intervals, and so does KS, whose bias is small. The others are absolute or squared
#: differences: chance adds to them, and adds once more in every resample, so that percentiles lie too high. Debiased
#: ones take the resamples' standard deviation about the value (normal interval); the rest
#: [2 value - q(.975), 2 value - q(.025)] (basic interval), which turns the bias round. Source: Davison, Hinkley 1997,
#: "Bootstrap methods and their application", chapter 5.
PERCENTILE = ("nll", "brier", "ks")
NORMAL = ("ece_debiased", "squared_error_debiased")


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        bins: of the binned measures.
        resamples: bootstrap resamples of the cases, and redraws of the labels for the null.
        seed: of the random numbers.
        level: of the intervals.
    """

    bins: int = BINS
    resamples: int = 1000
    seed: int = 0
    level: float = LEVEL


@dataclass(frozen=True)
class Measure:
    """One measure of calibration.

    Attributes:
        name: a key of `MEASURES`.
        value: of the data.
        low: lower end of the bootstrap interval over cases: percentile, normal or basic, as `PERCENTILE`
            and `NORMAL` say.
        high: upper end.
        null_low: lower end of the interval that a perfectly calibrated model with the same probabilities would show.
        null_high: upper end.
        null_mean: the mean of the same.
    """

    name: str
    value: float
    low: float
    high: float
    null_low: float
    null_high: float
    null_mean: float


def measures(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    cases: Sequence[object] | npt.NDArray[Any] | None = None,
    names: Sequence[str] = tuple(MEASURES),
    resampling: Resampling = Resampling(),
) -> tuple[Measure, ...]:
    """Measure calibration.

    Args:
        probabilities: (N, C), or (N,) of class 1 of two.
        labels: (N,).
        cases: (N,) names of the cases that the rows belong to, the units of the bootstrap; None: every row is one.
        names: which measures.
        resampling: number of bins and resamples, seed, level.

    Returns:
        One for each name. See `Measure`; docs/benchmarks/calibration.md says how often the intervals cover.

    Raises:
        UsageError: E_ROWS, E_LABEL, E_PROBABILITY, E_CAL_METHOD; E_CAL_TOO_FEW when there is one case only.
    """
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        raise UsageError("E_CAL_METHOD", f"Expected measures among {', '.join(MEASURES)}, got {unknown[0]!r}.")
    table = class_probabilities(probabilities)
    truth = class_labels(labels, table.shape)
    groups = group_indices(cases, len(truth))
    if groups.max() < 1:
        raise UsageError("E_CAL_TOO_FEW", "Expected at least 2 cases for intervals, got 1.")
    return _measured(table, truth, groups, {name: MEASURES[name](table, resampling.bins) for name in names}, resampling)


@dataclass(frozen=True, eq=False)
class _Draws:
    """Values of one measure: of the data, of the bootstrap, of the null."""

    value: float
    boot: list[FloatArray] = field(default_factory=list)
    null: list[FloatArray] = field(default_factory=list)


def _measured(
    table: FloatArray, truth: IntArray, groups: IntArray, chosen: dict[str, Kernel], resampling: Resampling
) -> tuple[Measure, ...]:
    one = np.ones((1, len(truth)))
    draws = {name: _Draws(float(kernel(one, truth[None])[0])) for name, kernel in chosen.items()}
    for weights in drawn_weights(groups, resampling.resamples, resampling.seed):
        for name, kernel in chosen.items():
            draws[name].boot.append(kernel(weights, truth[None]))
    for labels in drawn_labels(table, resampling.resamples, resampling.seed + 1):
        for name, kernel in chosen.items():
            draws[name].null.append(kernel(one, labels))
    return tuple(_measure(name, item, resampling.level) for name, item in draws.items())


def _measure(name: str, draws: _Draws, level: float) -> Measure:
    tails = [(1 - level) / 2, (1 + level) / 2]
    boot, null = np.concatenate(draws.boot), np.concatenate(draws.null)
    # order statistics: between an infinite NLL and another there is no interpolation
    low, high = np.quantile(boot, tails, method="inverted_cdf").tolist()
    if name in NORMAL:
        reach = float(ndtri(tails[1]) * boot.std())
        low, high = draws.value - reach, draws.value + reach
    elif name not in PERCENTILE:
        low, high = max(0.0, 2 * draws.value - high), 2 * draws.value - low
    null_low, null_high = np.quantile(null, tails, method="inverted_cdf").tolist()
    return Measure(name, draws.value, low, high, null_low, null_high, float(null.mean()))


#: Values that are held at once: 16 MB of float64.
DRAWN_VALUES = 1 << 21


def drawn_weights(cases: IntArray, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each row is drawn when its case is drawn: whole cases, with replacement.

    Args:
        cases: (N,) numbers 0 … number of cases - 1.
        resamples: how many in all.
        seed: of the random numbers.

    Yields:
        (r, N), a few of the resamples at a time.
    """
    random = np.random.default_rng(seed)
    count = int(cases.max()) + 1
    single = len(cases) == count and bool((cases == np.arange(count)).all())
    for size in _sizes(resamples, len(cases)):
        drawn = random.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        yield times if single else times[:, cases]


def drawn_labels(probabilities: FloatArray, resamples: int, seed: int) -> Iterator[IntArray]:
    """Labels as they would come if the probabilities were true: a perfectly calibrated model's.

    Args:
        probabilities: (N, C).
        resamples: how many in all.
        seed: of the random numbers.

    Yields:
        (r, N), a few of the draws at a time.
    """
    random = np.random.default_rng(seed)
    # the last class takes what rounding leaves of the sum
    cuts = np.cumsum(probabilities, axis=1)[:, :-1]
    cuts = cuts / probabilities.sum(axis=1, keepdims=True)
    for size in _sizes(resamples, len(probabilities)):
        uniform = random.random((size, len(probabilities)))
        if cuts.shape[1] <= 32:
            yield sum((uniform >= cuts[:, number] for number in range(cuts.shape[1])), np.zeros(1, np.int64))
        else:
            yield np.stack(
                [np.searchsorted(row, column, side="right") for row, column in zip(cuts, uniform.T, strict=True)], 1
            )


def _sizes(resamples: int, rows: int) -> Iterator[int]:
    step = max(1, DRAWN_VALUES // rows)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
