"""Grey level co-occurrence: how often two levels stand at a distance from each other. Source: IBSI 3.6 (LFYI)."""

from __future__ import annotations

import numpy as np

from pipeline.radiomics.levels import DIRECTIONS, IN_PLANE, Cells, Floats, Levels, Matrices, added, mean_defined, tally


def cooccurrence_cells(levels: Levels, distance: int) -> Cells:
    """The pairs of each direction and slice, each pair counted both ways.

    Args:
        levels: padded by at least `distance`.
        distance: Chebyshev, voxels.
    """
    row, shape = levels.row, (len(levels.ranks), *[len(levels.values)] * 2)
    inside = np.flatnonzero(row)
    # whole numbers: slice, level, and a place for the other one
    within, across = (
        (levels.plane_of(inside, number) * shape[1] + row[inside]) * shape[2] for number in (0, len(IN_PLANE))
    )
    parts = []
    for number, direction in enumerate(DIRECTIONS):
        other = row[inside + distance * levels.step(direction)]
        (plane, a, b), count = tally((within if number < len(IN_PLANE) else across) + other, shape)
        plane, a, b, count = (item[b > 0] for item in (plane, a, b, count))
        there = Cells(plane, np.full(len(a), number), a, b, count)
        parts += [there, Cells(there.plane, there.direction, b, a, count)]
    return Cells.joined(parts)


def cooccurrence(cells: Cells, levels: Levels, aggregation: str) -> dict[str, Floats]:
    """The 25 features of an aggregation, (volumes,), by their names without prefix and suffix; NaN where undefined."""
    matrices = cells.grouped(aggregation, levels)
    return mean_defined(_features(matrices, levels), matrices.volume, levels.volumes)


def _features(matrices: Matrices, levels: Levels) -> dict[str, Floats]:
    """Of each matrix, (number,). They are symmetric: both marginals are one."""
    group, sums = matrices.group, matrices.sums
    p = matrices.count / sums(matrices.count)[group]
    i, j = (levels.values[rank].astype(np.float64) for rank in (matrices.row, matrices.column))
    apart, bins = np.abs(i - j), levels.bins
    mean = sums(p * i)
    from_i, from_j = i - mean[group], j - mean[group]
    variance, both = sums(p * from_i**2), from_i + from_j
    unequal = np.divide(p, apart**2, out=np.zeros_like(p), where=apart > 0)
    highest = np.zeros(matrices.number)
    np.maximum.at(highest, group, p)
    difference = sums(p * apart)
    entropy = _entropy(matrices.number, group, p)
    marginal, sum_p, apart_p = (matrices.marginal(key.astype(np.int64), p) for key in (i, i + j, apart))
    alone = _entropy(matrices.number, marginal[0], marginal[2])
    tendency = sums(p * both**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = sums(p * from_i * from_j) / variance
        # in a symmetric matrix both joint entropies of the marginals are twice the marginal's
        information = (entropy - 2 * alone) / alone
    return {
        "joint_max": highest,
        "joint_avg": mean,
        "joint_var": variance,
        "joint_entr": entropy,
        "diff_avg": difference,
        "diff_var": sums(p * (apart - difference[group]) ** 2),
        "diff_entr": _entropy(matrices.number, apart_p[0], apart_p[2]),
        "sum_avg": 2 * mean,
        "sum_var": tendency,
        "sum_entr": _entropy(matrices.number, sum_p[0], sum_p[2]),
        "energy": sums(p**2),
        "contrast": sums(p * apart**2),
        "dissimilarity": difference,
        "inv_diff": sums(p / (1 + apart)),
        "inv_diff_norm": sums(p / (1 + apart / bins)),
        "inv_diff_mom": sums(p / (1 + apart**2)),
        "inv_diff_mom_norm": sums(p / (1 + (apart / bins) ** 2)),
        "inv_var": sums(unequal),
        "corr": correlation,
        "auto_corr": sums(p * i * j),
        "clust_tend": tendency,
        "clust_shade": sums(p * both**3),
        "clust_prom": sums(p * both**4),
        "info_corr1": information,
        "info_corr2": np.sqrt(np.maximum(0, 1 - np.exp(-2 * (2 * alone - entropy)))),
    }


def _entropy(number: int, group: Floats, p: Floats) -> Floats:
    return -added(group, p * np.log2(p), number)
