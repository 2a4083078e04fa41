"""IBSI's texture matrices and features in plain loops, as the manual writes them: slow, and easy to check by eye."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Step = tuple[int, int, int]

STEPS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
FLAT_STEPS = [step for step in STEPS if step[2] == 0]
EMPHASIS = "small large low high small_low small_high large_low large_high level_nu level_nun column_nu column_nun"
EMPHASIS_NAMES = [*EMPHASIS.split(), "percentage", "level_var", "column_var", "entropy", "energy"]


def voxels(levels: Array) -> Iterator[Step]:
    """Indices of a region's voxels: levels (I, J, K) are 0 outside."""
    return ((i, j, k) for i, j, k in np.ndindex(levels.shape) if levels[i, j, k])


def at(levels: Array, voxel: Step, step: Step, times: int = 1) -> int:
    """The level some steps from a voxel; 0 outside."""
    place = [a + times * b for a, b in zip(voxel, step, strict=True)]
    inside = all(0 <= a < size for a, size in zip(place, levels.shape, strict=True))
    return int(levels[tuple(place)]) if inside else 0


def slice_of(levels: Array, k: int) -> Array:
    """A slice alone, in the whole grid."""
    alone = np.zeros_like(levels)
    alone[:, :, k] = levels[:, :, k]
    return alone


def by_aggregation(levels: Array, one: Callable[[Array, Step], Array]) -> dict[str, list[Array]]:
    """The matrices of all aggregations, of what makes one matrix of levels and a direction."""
    slices = [slice_of(levels, k) for k in range(levels.shape[2])]
    each = [[one(part, step) for step in FLAT_STEPS] for part in slices if part.any()]
    space = [one(levels, step) for step in STEPS]
    return {
        "2D_avg": [matrix for row in each for matrix in row],
        "2D_comb": [sum(row[1:], row[0]) for row in each],
        "2_5D_avg": [sum(column[1:], column[0]) for column in zip(*each, strict=True)],
        "2_5D_comb": [sum(matrix for row in each for matrix in row)],
        "3D_avg": space,
        "3D_comb": [sum(space[1:], space[0])],
    }


def undirected(levels: Array, one: Callable[[Array, bool], Array]) -> dict[str, list[Array]]:
    """The matrices of slices, merged slices and space, of what makes one of levels (flat or not)."""
    each = [one(part, True) for part in (slice_of(levels, k) for k in range(levels.shape[2])) if part.any()]
    return {"2D": each, "2_5D": [sum(each[1:], each[0])], "3D": [one(levels, False)]}


def pairs(levels: Array, step: Step, distance: int = 1) -> Array:
    """The co-occurrence matrix, symmetric."""
    matrix = np.zeros((10, 10))
    for voxel in voxels(levels):
        a, b = levels[voxel], at(levels, voxel, step, distance)
        if b:
            matrix[a, b] += 1
            matrix[b, a] += 1
    return matrix


def runs(levels: Array, step: Step) -> Array:
    """Levels against run lengths."""
    matrix = np.zeros((10, max(levels.shape) + 1))
    for voxel in voxels(levels):
        if at(levels, voxel, step, -1) != levels[voxel]:
            length = 1
            while at(levels, voxel, step, length) == levels[voxel]:
                length += 1
            matrix[levels[voxel], length] += 1
    return matrix


def zones(levels: Array, mask: Array, flat: bool) -> list[tuple[int, int, int]]:
    """Level, size and distance of each zone; to its mask's edge, or out of the image."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    steps = [step for step in product((-1, 0, 1), repeat=3) if any(step) and not (flat and step[2])]
    seen, found = set(), []
    for start in voxels(levels):
        if start in seen:
            continue
        zone, front = {start}, [start]
        while front:
            voxel = front.pop()
            for step in steps:
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near not in zone and at(levels, voxel, step) == levels[start]:
                    zone.add(near)
                    front.append(near)
        seen |= zone
        found.append((int(levels[start]), len(zone), min(to_edge(outside, voxel, flat) for voxel in zone)))
    return found


def to_edge(outside: Array, voxel: Step, flat: bool) -> int:
    """How many steps over faces lead to the nearest voxel outside."""
    near = outside[outside[:, 2] == voxel[2]] if flat else outside
    return int(np.abs(near - voxel).sum(1).min())


def as_matrix(found: list[tuple[int, int, int]], column: int) -> Array:
    """Zones as levels against sizes (1) or distances (2)."""
    matrix = np.zeros((10, 300))
    for zone in found:
        matrix[zone[0], zone[column]] += 1
    return matrix


def near(levels: Array, voxel: Step, distance: int, flat: bool) -> list[int]:
    """Levels of the neighbours in the region."""
    steps = product(range(-distance, distance + 1), repeat=3)
    found = [at(levels, voxel, step) for step in steps if any(step) and not (flat and step[2])]
    return [level for level in found if level]


def dependences(levels: Array, flat: bool, distance: int = 1, alpha: int = 0) -> Array:
    """Levels against 1 + how many neighbours differ by no more than alpha."""
    matrix = np.zeros((10, 300))
    for voxel in voxels(levels):
        alike = [level for level in near(levels, voxel, distance, flat) if abs(level - levels[voxel]) <= alpha]
        matrix[levels[voxel], 1 + len(alike)] += 1
    return matrix


def tones(levels: Array, flat: bool, distance: int = 1) -> Array:
    """For each level: how many voxels have neighbours, and the summed differences to their means, (10, 2)."""
    matrix = np.zeros((10, 2))
    for voxel in voxels(levels):
        if beside := near(levels, voxel, distance, flat):
            matrix[levels[voxel]] += 1, abs(levels[voxel] - np.mean(beside))
    return matrix


def emphasis_features(matrix: Array, voxel_count: float) -> dict[str, float]:
    """What runs, zones and dependences share, by `EMPHASIS_NAMES`."""
    total, values = matrix.sum(), dict.fromkeys(EMPHASIS_NAMES, 0.0)
    cells = [(i, j, matrix[i, j]) for i, j in np.argwhere(matrix)]
    mean_i, mean_j = (sum(cell[axis] * cell[2] for cell in cells) / total for axis in (0, 1))
    for i, j, count in cells:
        p = count / total
        terms = (1 / j**2, j**2, 1 / i**2, i**2, 1 / (i * j) ** 2, (i / j) ** 2, (j / i) ** 2, (i * j) ** 2)
        for name, term in zip(EMPHASIS_NAMES, terms, strict=False):
            values[name] += p * term
        values["level_var"] += p * (i - mean_i) ** 2
        values["column_var"] += p * (j - mean_j) ** 2
        values["entropy"] -= p * np.log2(p)
        values["energy"] += p**2
    for name, axis in (("level", 1), ("column", 0)):
        squares = (matrix.sum(axis) ** 2).sum()
        values[f"{name}_nu"], values[f"{name}_nun"] = squares / total, squares / total**2
    return values | {"percentage": total / voxel_count}


def pair_features(matrix: Array, bins: int) -> dict[str, float]:
    """All features of a co-occurrence matrix, by their definitions."""
    p = matrix / matrix.sum()
    row, column = p.sum(1), p.sum(0)
    cells = [(int(i), int(j), float(p[i, j])) for i, j in np.argwhere(p)]
    apart, together = np.zeros(len(p)), np.zeros(2 * len(p))
    for i, j, part in cells:
        apart[abs(i - j)] += part
        together[i + j] += part
    levels = np.arange(len(p))
    mean, sd = (levels * row).sum(), np.sqrt((row * (levels - (levels * row).sum()) ** 2).sum())
    difference, total = (np.arange(len(item)) @ item for item in (apart, together))
    hxy1 = -sum(part * np.log2(row[i] * column[j]) for i, j, part in cells)
    product_of = np.outer(row, column)
    hx, hxy, hxy2 = entropy(row), entropy(p), entropy(product_of)

    def over(term: Callable[[int, int], float]) -> float:
        return sum(part * term(i, j) for i, j, part in cells)

    return {
        "joint_max": p.max(),
        "joint_avg": mean,
        "joint_var": over(lambda i, j: (i - mean) ** 2),
        "joint_entr": hxy,
        "diff_avg": difference,
        "diff_var": (np.arange(len(apart)) - difference) ** 2 @ apart,
        "diff_entr": entropy(apart),
        "sum_avg": total,
        "sum_var": (np.arange(len(together)) - total) ** 2 @ together,
        "sum_entr": entropy(together),
        "energy": (p**2).sum(),
        "contrast": over(lambda i, j: (i - j) ** 2),
        "dissimilarity": over(lambda i, j: abs(i - j)),
        "inv_diff": over(lambda i, j: 1 / (1 + abs(i - j))),
        "inv_diff_norm": over(lambda i, j: 1 / (1 + abs(i - j) / bins)),
        "inv_diff_mom": over(lambda i, j: 1 / (1 + (i - j) ** 2)),
        "inv_diff_mom_norm": over(lambda i, j: 1 / (1 + (i - j) ** 2 / bins**2)),
        "inv_var": over(lambda i, j: 1 / (i - j) ** 2 if i != j else 0),
        "corr": over(lambda i, j: (i - mean) * (j - mean)) / sd**2 if sd > 1e-9 else np.nan,
        "auto_corr": over(lambda i, j: i * j),
        "clust_tend": over(lambda i, j: (i + j - 2 * mean) ** 2),
        "clust_shade": over(lambda i, j: (i + j - 2 * mean) ** 3),
        "clust_prom": over(lambda i, j: (i + j - 2 * mean) ** 4),
        "info_corr1": (hxy - hxy1) / hx if hx > 1e-9 else np.nan,
        "info_corr2": np.sqrt(max(0.0, 1 - np.exp(-2 * (hxy2 - hxy)))),
    }


def entropy(p: Array) -> float:
    """In bits."""
    return float(-sum(part * np.log2(part) for part in p.ravel() if part))


def tone_features(matrix: Array) -> dict[str, float]:
    """All features of counts and differences (10, 2), by their definitions."""
    count = matrix[:, 0].sum()
    cells = [(i, n / count, s) for i, (n, s) in enumerate(matrix) if n]
    both = [(a, b) for a in cells for b in cells]
    levels, total = len(cells), matrix[:, 1].sum()
    coarse = sum(p * s for _, p, s in cells)
    contrast = sum(a[1] * b[1] * (a[0] - b[0]) ** 2 for a, b in both)
    busy = sum(abs(a[0] * a[1] - b[0] * b[1]) for a, b in both)
    complexity = sum(abs(a[0] - b[0]) * (a[1] * a[2] + b[1] * b[2]) / (a[1] + b[1]) for a, b in both)
    strength = sum((a[1] + b[1]) * (a[0] - b[0]) ** 2 for a, b in both)
    return {
        "coarseness": 1 / coarse if coarse else np.nan,
        "contrast": contrast / (levels * (levels - 1)) * total / count if levels > 1 else np.nan,
        "busyness": coarse / busy if busy else np.nan,
        "complexity": complexity / count,
        "strength": strength / total if total else np.nan,
    }


def mean_of(features: list[dict[str, float]]) -> dict[str, float]:
    """The mean over the matrices in which each feature is defined."""
    return {name: float(np.nanmean([item[name] for item in features])) for name in features[0]}
