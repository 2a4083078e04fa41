"""Cases drawn again with replacement, and labels drawn again from the predicted probabilities, many at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.calibration.binning import FloatArray, IntArray

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
