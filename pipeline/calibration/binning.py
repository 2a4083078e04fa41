"""Bins of confidence, and what stands in them: the data of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from pipeline.errors import UsageError
from pipeline.probabilities import ReliabilityBin, class_labels, class_probabilities

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Scheme = Literal["equal_width", "equal_mass"]

#: As in Guo et al. 2017.
BINS = 15
#: Confidence level of bands and intervals.
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Bins:
    """Values sorted into bins.

    monai.metrics.calibration_binning does this too, in float32: its counts stop at 2^24, so that a bin of a whole
    volume comes out wrong, and it walks over one set of labels at a time, where a null distribution needs a thousand.

    Attributes:
        edges: (B + 1,) rising; a bin holds what is above its lower edge, and its upper edge.
        index: (N,) the bin of each value.
    """

    edges: FloatArray
    index: IntArray

    @property
    def count(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1

    def members(self) -> FloatArray:
        """(N, B): 1 where a value lies in a bin. A product with it sums many sets of values by bins at once."""
        return np.equal(self.index[:, None], np.arange(self.count)).astype(np.float64)

    def sums(self, values: FloatArray) -> FloatArray:
        """Sums of values (N,) by bins, (B,)."""
        return np.asarray(np.bincount(self.index, weights=values, minlength=self.count))


def make_bins(values: FloatArray, bins: int = BINS, scheme: Scheme = "equal_width") -> Bins:
    """Sort values in [0, 1] into bins.

    Args:
        values: (N,).
        bins: how many; equal values stay together, so that equal-mass bins may be fewer.
        scheme: `equal_width`, (left, right] as in Guo et al. 2017 and MONAI; `equal_mass`, between quantiles (Nguyen,
            O'Connor 2015).

    Raises:
        UsageError: E_CAL_METHOD when there is less than one bin or the scheme is unknown.
    """
    if bins < 1 or scheme not in ("equal_width", "equal_mass"):
        raise UsageError("E_CAL_METHOD", f"Expected one or more equal_width or equal_mass bins, got {bins} {scheme}.")
    edges = np.linspace(0, 1, bins + 1)
    if scheme == "equal_mass":
        inner = np.quantile(values, edges[1:-1], method="inverted_cdf")
        # a cut at the largest value would leave an empty bin above it
        inner = np.unique(inner[inner < values.max(initial=1.0)])
        edges = np.concatenate([[min(0.0, values.min(initial=0.0))], inner[inner > 0], [1.0]])
    return Bins(edges, np.searchsorted(edges[1:-1], values, side="left").astype(np.int64))


def confidence_and_hits(probabilities: FloatArray, labels: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The largest probability of each row, and whether its class is the true one, each (N,)."""
    top = probabilities.argmax(axis=1)
    return probabilities[np.arange(len(top)), top], top == labels


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The data of a reliability diagram of the predicted class, whichever it is.

    Args:
        probabilities: (N, C), or (N,) of class 1 of two.
        labels: (N,).
        bins: how many, equally wide.

    Returns:
        The bins that hold something, with Wilson's 95 % intervals. Source: Wilson 1927; Brown, Cai, DasGupta 2001,
        "Interval estimation for a binomial proportion".

    Raises:
        UsageError: E_ROWS, E_LABEL, E_PROBABILITY; E_CAL_METHOD when there is less than one bin.
    """
    table = class_probabilities(probabilities)
    truth = class_labels(labels, table.shape)
    confidence, hits = confidence_and_hits(table, truth)
    sorted_in = make_bins(confidence, bins)
    counts, right, total = (sorted_in.sums(item) for item in (np.ones(len(truth)), hits.astype(float), confidence))
    return tuple(
        _bin(sorted_in.edges[number : number + 2], int(counts[number]), int(right[number]), total[number])
        for number in np.flatnonzero(counts)
    )


def _bin(edges: FloatArray, count: int, right: int, total: float) -> ReliabilityBin:
    band = binomtest(right, count).proportion_ci(LEVEL, method="wilson")
    lower, upper = edges.tolist()
    return ReliabilityBin(lower, upper, count, float(total) / count, right / count, float(band.low), float(band.high))
