"""How well a feature tells regions apart when image and mask are perturbed: the intraclass correlation ICC(1,1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import fdtri

from pipeline.radiomics.features import extract
from pipeline.radiomics.levels import Array, Floats
from pipeline.radiomics.perturbation import Perturbations, perturbed
from pipeline.radiomics.settings import Settings

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Agreement:
    """How much of a feature's variance is between regions, and not between versions of one region.

    Attributes:
        icc: ICC(1,1), at most 1; below 0 where versions of one region differ more than regions do.
        low: lower end of its 95 % interval.
        high: upper end.
        regions: how many it is of.
    """

    icc: float
    low: float
    high: float
    regions: int


def icc(values: Floats) -> Agreement | None:
    """ICC(1,1): one-way random effects, a single measurement; with its 95 % interval.

    Args:
        values: (regions, repeats); a region that lacks a repeat (NaN) is left out.

    Returns:
        None with fewer than two regions or repeats, or where all values are one.

    Source: Shrout, Fleiss 1979, Psychological Bulletin 86, table 3 and equation 7; McGraw, Wong 1996, Psychological
        Methods 1, table 7.
    """
    kept = values[np.isfinite(values).all(axis=1)]
    regions, repeats = kept.shape
    if regions < 2 or repeats < 2:
        return None
    means = kept.mean(axis=1)
    between = repeats * means.var(ddof=1)
    within = ((kept - means[:, None]) ** 2).sum() / (regions * (repeats - 1))
    # what rounding leaves of equal values is no variance
    least = (1e-12 * np.abs(kept).max()) ** 2
    if max(between, within) <= least:
        return None
    if within <= least:
        return Agreement(1.0, 1.0, 1.0, regions)
    tail, free = 0.975, (regions - 1, regions * (repeats - 1))
    ratio = between / within
    ends = ratio / fdtri(*free, tail), ratio * fdtri(*free[::-1], tail)
    estimate, low, high = ((value - 1) / (value + repeats - 1) for value in (ratio, *ends))
    return Agreement(float(estimate), float(low), float(high), regions)


def agreements(regions: Sequence[Sequence[Values]]) -> dict[str, Agreement | None]:
    """The agreement of every feature.

    Args:
        regions: of each region its versions' features, as `perturbed_features` gives them; all have as many.

    Returns:
        Tag -> agreement, None where there is none; in the order of the first version's tags.
    """
    tags = list(regions[0][0]) if regions and regions[0] else []
    return {tag: icc(np.array([[_number(row.get(tag)) for row in rows] for rows in regions])) for tag in tags}


def perturbed_features(
    image: Array,
    mask: Array,
    affine: npt.ArrayLike,
    settings: Settings,
    perturbations: Perturbations | None = None,
    label: int = 1,
    device: str = "cpu",
) -> list[dict[str, float | None]]:
    """The features of every version of a region.

    Arguments as in `extract`, and `perturbations`: what is done to image and mask; by default rotation, volume and
    contour, ten versions.

    Raises:
        CaseError: those of `extract` and `perturbed`.
    """
    versions = perturbed(image, mask, affine, perturbations or Perturbations(), label)
    return [extract(item.image, item.mask, item.affine, settings, device=device).values for item in versions]


def _number(value: float | None) -> float:
    return np.nan if value is None else value
