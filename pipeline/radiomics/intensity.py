"""Statistics of values, the histogram of grey levels and the intensity-volume histogram. Source: IBSI 3.3, 3.4, 3.5."""

from __future__ import annotations

import numpy as np

from pipeline.errors import CaseError
from pipeline.radiomics.levels import Array, Floats
from pipeline.radiomics.prepare import first_edge, grey_levels, require_few
from pipeline.radiomics.settings import Bins, Settings


def statistics(values: Floats) -> dict[str, float]:
    """The 18 statistics of values (n,), n >= 1 (UHIW); NaN where undefined. Kurtosis is 0 for a normal distribution."""
    return {
        **_shared(values),
        "energy": float(values @ values),
        "rms": float(np.sqrt(values @ values / values.size)),
    }


def _shared(values: Floats) -> dict[str, float]:
    """What statistics and histogram have in common."""
    p10, p25, median, p75, p90 = np.percentile(values, (10, 25, 50, 75, 90))
    mean = float(values.mean())
    away = values - mean
    squares = away * away
    variance, middle = float(squares.mean()), values[(values >= p10) & (values <= p90)]
    lowest, highest = float(values.min()), float(values.max())
    return {
        "mean": mean,
        "var": variance,
        "skew": _ratio(float((squares * away).mean()), variance**1.5),
        "kurt": _ratio(float((squares * squares).mean()), variance**2) - 3,
        "median": median,
        "min": lowest,
        "p10": p10,
        "p90": p90,
        "max": highest,
        "iqr": p75 - p25,
        "range": highest - lowest,
        "mad": float(np.abs(away).mean()),
        "rmad": float(np.abs(middle - middle.mean()).mean()) if middle.size else np.nan,
        "medad": float(np.abs(values - median).mean()),
        "cov": _ratio(variance**0.5, mean),
        "qcod": _ratio(p75 - p25, p75 + p25),
    }


def histogram(levels: Array, bins: int) -> dict[str, float]:
    """The 23 features of grey levels (n,), from 1 (ZVCW); NaN where undefined."""
    values = levels.astype(np.float64)
    counts = np.bincount(levels, minlength=bins + 1)[1:].astype(np.float64)
    p = counts[counts > 0] / values.size
    shared = _shared(values)
    most = np.flatnonzero(counts == counts.max()) + 1.0
    gradient = np.gradient(counts) if bins > 1 else np.full(1, np.nan)
    steepest, falling = int(gradient.argmax()), int(gradient.argmin())
    return {
        **shared,
        "mode": float(most[np.abs(most - shared["mean"]).argmin()]),
        "entropy": float(-(p * np.log2(p)).sum()),
        "uniformity": float((p**2).sum()),
        "max_grad": float(gradient[steepest]),
        "max_grad_g": steepest + 1.0 if bins > 1 else np.nan,
        "min_grad": float(gradient[falling]),
        "min_grad_g": falling + 1.0 if bins > 1 else np.nan,
    }


def volume_histogram(values: Floats, settings: Settings) -> dict[str, float]:
    """The seven features of the intensity-volume histogram (P88C); NaN where undefined.

    Args:
        values: (n,), n >= 1.
        settings: `ivh_bins` of a width stand for their middles, those of a number for their ranks; without bins
            every whole number is one. The range's upper end is the histogram's where it is given.

    Raises:
        CaseError: E_CONFIG, as `grey_levels`; without bins also where values are not whole numbers.
    """
    low, high = settings.measured_range
    if settings.ivh_bins is None and (values != np.rint(values)).any():
        raise CaseError("E_CONFIG", "Expected ivh_bins, or values that are whole numbers.")
    bins = settings.ivh_bins or Bins(width=1)
    ranks, count = grey_levels(values, bins, low)
    start, width = 1.0, 1.0
    if bins.width is not None:
        width = bins.width
        start = first_edge(float(values.min()), bins, low) + (width / 2 if settings.ivh_bins else 0)
        count = count if high is None else int((high - start) / width + 1e-9) + 1
        require_few(count)
    ranks = np.minimum(ranks, count)  # the range's upper end is of the last bin
    steps = start + width * np.arange(count)
    volume = np.bincount(ranks, minlength=count + 1)[:0:-1].cumsum()[::-1] / values.size
    share = np.arange(count) / (count - 1) if count > 1 else np.full(1, np.nan)
    v10, v90 = (float(volume[share >= part - 1e-12][0]) if count > 1 else np.nan for part in (0.1, 0.9))
    i10, i90 = (float(np.append(steps[volume <= part], steps[-1] + width)[0]) for part in (0.1, 0.9))
    return {
        "v10": v10,
        "v90": v90,
        "i10": i10,
        "i90": i90,
        "diff_v10_v90": v10 - v90,
        "diff_i10_i90": i10 - i90,
        "auc": float(np.trapezoid(volume, share)),
    }


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else np.nan
