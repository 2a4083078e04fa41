"""Class probabilities, labels and groups as they come in: checked once, at the door, and given one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError

#: Rows may miss a sum of 1 by this much: probabilities written with three decimals pass, logits and scores do not.
SUM_TOLERANCE = 2e-3


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Attributes:
        lower: lower edge of the confidence.
        upper: upper edge.
        count: predictions in the bin.
        confidence: their mean confidence.
        frequency: how often they were right.
        frequency_low: lower end of Wilson's 95 % interval of the frequency.
        frequency_high: upper end.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    frequency: float
    frequency_low: float
    frequency_high: float


def class_probabilities(values: npt.ArrayLike, name: str = "The probabilities") -> npt.NDArray[np.float64]:
    """Check class probabilities and give them the shape of one column a class.

    Args:
        values: (N, K), rows that sum to 1; or (N,) or (N, 1), the probability of class 1 of two.
        name: what messages call them.

    Returns:
        (N, K) float64, K >= 2; the rows are not rescaled.

    Raises:
        UsageError: E_ROWS when there is no row or another number of axes; E_PROBABILITY when a value is not finite,
            lies outside [0, 1], or a row does not sum to 1.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or array.size == 0:
        raise UsageError("E_ROWS", f"{name}: expected one row a case and one column a class, got shape {array.shape}.")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0]) + 1
        raise UsageError("E_PROBABILITY", f"{name}: expected finite numbers, got NaN or infinity in row {row}.")
    if array.min() < 0 or array.max() > 1:
        row = int(np.argwhere((array < 0) | (array > 1))[0][0]) + 1
        raise UsageError("E_PROBABILITY", f"{name}: expected values in [0, 1], got another in row {row}.")
    if array.ndim == 1 or array.shape[1] == 1:
        return np.column_stack([1 - array.ravel(), array.ravel()])
    sums = array.sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > SUM_TOLERANCE:
        got = f"{sums[worst]:.4g} in row {worst + 1}"
        raise UsageError("E_PROBABILITY", f"{name}: expected rows that sum to 1, got {got}.")
    return array


def class_labels(values: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Check true classes against the shape of the probabilities that they belong to.

    Args:
        values: (N,) or (N, 1), whole numbers 0 … K - 1.
        shape: (N, K) of the probabilities.

    Returns:
        (N,) int64.

    Raises:
        UsageError: E_ROWS when there is not one label a row; E_LABEL when one is no class.
    """
    array = np.asarray(values)
    if array.shape not in ((shape[0],), (shape[0], 1)):
        raise UsageError("E_ROWS", f"Expected {shape[0]} labels, one a row, got an array of shape {array.shape}.")
    array = array.ravel()
    if array.dtype.kind not in "iufb":
        raise UsageError("E_LABEL", f"Expected whole numbers as labels, got values of type {array.dtype}.")
    outside = ~np.isin(array, np.arange(shape[1]))
    if outside.any():
        row = int(outside.argmax())
        raise UsageError("E_LABEL", f"Expected labels 0 … {shape[1] - 1}, got {array[row]} in row {row + 1}.")
    return array.astype(np.int64)


def group_indices(groups: Sequence[object] | npt.NDArray[Any] | None, count: int) -> npt.NDArray[np.int64]:
    """Number the groups (patients, sites) that rows belong to, in the order in which they first appear.

    Args:
        groups: one name a row; None where every row is a group of its own.
        count: number of rows.

    Returns:
        (N,) int64, 0 … number of groups - 1.

    Raises:
        UsageError: E_ROWS when there is not one name a row.
    """
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise UsageError("E_ROWS", f"Expected {count} names of cases or groups, one a row, got {len(groups)}.")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(map(str, groups)))}
    return np.array([numbers[str(name)] for name in groups], dtype=np.int64)


def group_resamples(
    groups: npt.NDArray[np.int64], resamples: int, generator: np.random.Generator, at_once: int = 4_000_000
) -> Iterator[npt.NDArray[np.float64]]:
    """Draw groups (patients, cases) with replacement, each with all of its rows: a bootstrap.

    Args:
        groups: (N,) numbers 0 … number of groups - 1.
        resamples: how many times.
        generator: of the random numbers.
        at_once: so many numbers are in one block: 32 MB.

    Yields:
        Blocks (B, N) of how often each row counts; what is drawn does not depend on their size.
    """
    count = int(groups.max()) + 1
    step = max(1, at_once // len(groups))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, groups].astype(np.float64)
