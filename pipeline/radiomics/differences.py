"""Neighbourhood grey tone differences: a level against the mean of its neighbours. Source: IBSI 3.10 (IPET)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.radiomics.levels import Array, Floats, Levels, added, mean_defined

_ROWS = 256


@dataclass(frozen=True)
class Differences:
    """Of each slice or volume, and rank, (n, m + 1): voxels with neighbours, and the differences' sum."""

    count: Floats
    total: Floats

    def merged(self, volumes: int) -> Differences:
        """The slices of each volume as one matrix."""
        return Differences(*(item.reshape(volumes, -1, item.shape[1]).sum(1) for item in (self.count, self.total)))


def differences(levels: Levels, distance: int, flat: bool) -> Differences:
    """The matrices of each slice, or those in three dimensions, of neighbours within a Chebyshev distance."""
    own = levels.values.astype(np.int32)[levels.ranks]
    inside = levels.ranks > 0
    near, weight = (_box(_box(item, distance, 1), distance, 2) for item in (own, inside.astype(own.dtype)))
    if flat:
        return _matrix(levels, inside, near - own, weight - 1)
    near, weight = (_box(item, distance, 0) for item in (near, weight))
    return _matrix(levels, inside, near - own, weight - 1).merged(levels.volumes)


def _box(values: Array, distance: int, axis: int) -> Array:
    """Sums over neighbours along an axis; the padding keeps them inside."""
    total = values.copy()
    along, sums = np.moveaxis(values, axis, 0), np.moveaxis(total, axis, 0)
    for step in range(1, distance + 1):
        sums[step:] += along[:-step]
        sums[:-step] += along[step:]
    return total


def _matrix(levels: Levels, inside: Array, near: Array, weight: Array) -> Differences:
    used = np.flatnonzero(inside & (weight > 0))
    rank = levels.row[used]
    apart = np.abs(levels.values[rank] - near.ravel()[used] / weight.ravel()[used])
    shape = len(levels.ranks), len(levels.values)
    key = used // levels.plane * shape[1] + rank
    size = shape[0] * shape[1]
    return Differences(*(added(key, item, size).reshape(shape) for item in (np.ones_like(apart), apart)))


def tone_features(matrices: Differences, levels: Levels) -> dict[str, Floats]:
    """The five features, means over the matrices, (volumes,); NaN where undefined, as in a region of one level."""
    used = np.flatnonzero(matrices.count.any(1))
    each = [_features(matrices.count[index], matrices.total[index], levels.values) for index in used]
    values = {name: np.array([item[name] for item in each]) for name in (each[0] if each else ())}
    return mean_defined(values, used * levels.volumes // len(matrices.count), levels.volumes)


def _features(count: Floats, total: Floats, values: Array) -> dict[str, float]:
    present = count > 0
    n, i, s = count.sum(), values[present].astype(np.float64), total[present]
    p, levels = count[present] / n, int(present.sum())
    changes = np.sort(i * p)
    # |a - b| over all pairs, by their order; (i - j)^2 by its terms
    apart = 2 * float((changes * (2 * np.arange(levels) - levels + 1)).sum())
    mean, weighted = i.mean(), float((p * (levels * (i**2 - 2 * i * i.mean()) + (i**2).sum())).sum())
    spread = float((p * (i - (p * i).sum()) ** 2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "coarseness": 1 / (p * s).sum(),
            "contrast": np.float64(2 * spread) / (levels * (levels - 1)) * s.sum() / n,
            "busyness": (p * s).sum() / np.float64(apart),
            "complexity": _complexity(i, p, s) / n,
            "strength": np.float64(2 * weighted) / s.sum() if mean else np.nan,
        }


def _complexity(i: Floats, p: Floats, s: Floats) -> float:
    """The sum over all pairs of levels, some rows at a time."""
    total = 0.0
    for first in range(0, len(i), _ROWS):
        rows = slice(first, first + _ROWS)
        shared = (p[rows] * s[rows])[:, None] + p * s
        total += float((np.abs(i[rows, None] - i) * shared / (p[rows, None] + p)).sum())
    return total
