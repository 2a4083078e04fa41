"""How the measures of a cohort are distributed, and which cases are unlike the others, for the page of the cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.words import in_words, number_text, unit_of, with_unit

#: Of fewer cases than this nobody can say what is usual.
LEAST_CASES = 10
BINS = 24
#: Modified z-score from which a value is marked.
#: Source: B. Iglewicz, D. C. Hoaglin, How to Detect and Handle Outliers, ASQC 1993, 3.3.
FAR = 3.5
_TO_SIGMA = 0.6745
#: How long something took depends on the machine: it is shown, but marks no case.
_TIMES = "_seconds"


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: from `low` to below `high` (None: all beyond), its cases, and whether they are outliers."""

    low: float | None
    high: float | None
    cases: int
    far: bool


@dataclass(frozen=True)
class Distribution:
    """A measure over the cases of a cohort.

    Attributes:
        column: its name in `cases.csv`.
        values: one a case; NaN where there is none.
        far: which of the cases are outliers.
        bars: the histogram of all others, and a bar on each side for outliers.
    """

    column: str
    values: npt.NDArray[np.float64]
    far: npt.NDArray[np.bool_]
    bars: tuple[Bar, ...]

    @property
    def title(self) -> str:
        """The measure in words, with its unit."""
        unit = unit_of(self.column)
        return f"{in_words(self.column)}{f' ({unit})' if unit else ''}"

    @property
    def summary(self) -> str:
        """Median, quartiles, number of cases and of outliers in words."""
        low, middle, high = (number_text(float(q)) for q in np.nanpercentile(self.values, (25, 50, 75)))
        said = f"median {with_unit(middle, unit_of(self.column))} ({low} to {high}), {self.cases} cases"
        return said + (f", {int(self.far.sum())} unusual" if self.far.any() else "")

    @property
    def cases(self) -> int:
        """How many cases have a value."""
        return int(np.isfinite(self.values).sum())

    def note(self, index: int) -> str:
        """What is unusual about a case, such as `MR NMI 0.12 (low)`."""
        value = float(self.values[index])
        side = "high" if value > np.nanmedian(self.values) else "low"
        return f"{in_words(self.column)} {with_unit(number_text(value), unit_of(self.column))} ({side})"


def distributions(rows: Sequence[Mapping[str, float]]) -> list[Distribution]:
    """The distribution of every measure that `LEAST_CASES` have and that is not the same for all.

    Args:
        rows: column -> finite number, one mapping a case.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    found = [_of(name, np.array([row.get(name, np.nan) for row in rows], dtype=float)) for name in names]
    return sorted(filter(None, found), key=lambda item: item.column.endswith(_TIMES))


def _of(column: str, values: npt.NDArray[np.float64]) -> Distribution | None:
    known = values[np.isfinite(values)]
    if len(known) < LEAST_CASES or known.min() == known.max():
        return None
    far = np.zeros(len(values), bool) if column.endswith(_TIMES) else outliers(values)
    return Distribution(column, values, far, tuple(_bars(values, far)))


def outliers(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which values are far from the median, in median absolute deviations.

    None where more than half of the values are the same: there is no spread by which to judge.

    Args:
        values: (N,), NaN where there is none.
    """
    middle = np.nanmedian(values)
    spread = np.nanmedian(np.abs(values - middle))
    if spread == 0:
        return np.zeros(len(values), bool)
    score: npt.NDArray[np.float64] = _TO_SIGMA * np.abs(values - middle) / spread
    return np.nan_to_num(score) > FAR


def _bars(values: npt.NDArray[np.float64], far: npt.NDArray[np.bool_]) -> list[Bar]:
    usual = values[np.isfinite(values) & ~far]
    counts, edges = np.histogram(usual, BINS)
    bars = [Bar(float(a), float(b), int(n), False) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    last = Bar(bars[-1].low, float(np.nextafter(edges[-1], np.inf)), bars[-1].cases, False)
    below, above = int((values[far] < edges[0]).sum()), int((values[far] > edges[-1]).sum())
    return [Bar(None, float(edges[0]), below, True), *bars[:-1], last, Bar(last.high, None, above, True)]
