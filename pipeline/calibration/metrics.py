"""Calibration measured: each figure with the interval of its data and the null interval of a perfect model.

A plug-in calibration error is positive even for a perfect model, the more so the fewer cases there are. So no figure
stands alone: a bootstrap over cases says how well it is known, and the null interval what a perfectly calibrated model
with these very probabilities would show at this number of cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pipeline.calibration.binning import BINS, LEVEL, FloatArray, IntArray
from pipeline.calibration.kernels import Kernel, brier, ece, ece_debiased, nll
from pipeline.errors import UsageError
from pipeline.probabilities import class_labels, class_probabilities, group_indices, group_resamples

#: Values that are held at once: 16 MB of float64.
DRAWN_VALUES = 1 << 21
Interval = Literal["percentile", "normal", "basic"]


@dataclass(frozen=True)
class Kind:
    """A kind of measure.

    Means over rows take `percentile` intervals. Others are absolute or squared differences: chance adds to them, and
    adds once more in every resample, so that percentiles lie too high. Debiased ones take the resamples' standard
    deviation about the value (`normal`); the rest [2 value - q(.975), 2 value - q(.025)] (`basic`), which turns the
    bias round.

    Attributes:
        kernel: makes the kernel of probabilities (N, C) and a number of bins.
        interval: how its interval is made.

    Source: Davison, Hinkley 1997, "Bootstrap methods and their application", chapter 5.
    """

    kernel: Callable[[FloatArray, int], Kernel]
    interval: Interval


#: Those that all methods are judged by.
MEASURES: dict[str, Kind] = {
    "nll": Kind(lambda probabilities, bins: nll(probabilities), "percentile"),
    "brier": Kind(lambda probabilities, bins: brier(probabilities), "percentile"),
    "ece": Kind(ece, "basic"),
    "ece_debiased": Kind(ece_debiased, "normal"),
}


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        resamples: bootstrap resamples of the cases, and redraws of the labels for the null.
        seed: of the random numbers.
    """

    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Measure:
    """One measure of calibration.

    Attributes:
        name: of its kind.
        value: of the data.
        low: lower end of the bootstrap interval over cases, made as its `Kind` says.
        high: upper end.
        null_low: lower end of the interval that a perfectly calibrated model with the same probabilities would show.
        null_high: upper end.
    """

    name: str
    value: float
    low: float
    high: float
    null_low: float
    null_high: float


def measures(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    cases: Sequence[object] | npt.NDArray[Any] | None = None,
    *,
    kinds: Mapping[str, Kind] = MEASURES,
    resampling: Resampling = Resampling(),
) -> tuple[Measure, ...]:
    """Measure calibration.

    Args:
        probabilities: (N, C), or (N,) of class 1 of two.
        labels: (N,).
        cases: (N,) names of the cases that the rows belong to, the units of the bootstrap; None: every row is one.
        kinds: name -> kind of each measure.
        resampling: number of resamples, and seed.

    Returns:
        One for each kind. See `Measure`; docs/benchmarks/calibration.md says how often the intervals cover.

    Raises:
        UsageError: E_ROWS, E_LABEL, E_PROBABILITY; E_CAL_TOO_FEW when there is one case only.
    """
    table = class_probabilities(probabilities)
    truth = class_labels(labels, table.shape)
    groups = group_indices(cases, len(truth))
    if groups.max() < 1:
        raise UsageError("E_CAL_TOO_FEW", "Expected at least 2 cases for intervals, got 1.")
    one = np.ones((1, len(truth)))
    kernels = {name: kind.kernel(table, BINS) for name, kind in kinds.items()}
    resamples = group_resamples(groups, resampling.resamples, np.random.default_rng(resampling.seed), DRAWN_VALUES)
    boots = [{name: kernel(weights, truth[None]) for name, kernel in kernels.items()} for weights in resamples]
    redrawn = drawn_labels(table, resampling.resamples, resampling.seed + 1)
    nulls = [{name: kernel(one, perfect) for name, kernel in kernels.items()} for perfect in redrawn]
    found = []
    for name, kind in kinds.items():
        value = float(kernels[name](one, truth[None])[0])
        boot, null = (np.concatenate([row[name] for row in rows]) for rows in (boots, nulls))
        found.append(_measure(name, kind.interval, value, boot, null))
    return tuple(found)


def _measure(name: str, interval: Interval, value: float, boot: FloatArray, null: FloatArray) -> Measure:
    """Of the data's value, and the values of bootstrap and null (R,)."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    # order statistics: between an infinite NLL and another there is no interpolation
    low, high = np.quantile(boot, tails, method="inverted_cdf").tolist()
    if interval == "normal":
        reach = float(ndtri(tails[1]) * boot.std())
        low, high = value - reach, value + reach
    elif interval == "basic":
        low, high = max(0.0, 2 * value - high), 2 * value - low
    null_low, null_high = np.quantile(null, tails, method="inverted_cdf").tolist()
    return Measure(name, value, low, high, null_low, null_high)


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
    step = max(1, DRAWN_VALUES // len(probabilities))
    for start in range(0, resamples, step):
        uniform = random.random((min(step, resamples - start), len(probabilities)))
        if cuts.shape[1] <= 32:
            yield sum((uniform >= cuts[:, number] for number in range(cuts.shape[1])), np.zeros(1, np.int64))
        else:
            yield np.stack(
                [np.searchsorted(row, column, side="right") for row, column in zip(cuts, uniform.T, strict=True)], 1
            )
