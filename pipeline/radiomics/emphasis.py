"""Runs, zones and dependences: matrices of grey levels against a length, size, distance or count.

Source: IBSI 3.7 (GLRLM, TP0I), 3.8 (GLSZM, 9SAK), 3.9 (GLDZM, VMDZ), 3.11 (NGLDM, REK0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import ndimage
from skimage import measure

from pipeline.radiomics.levels import (
    DIRECTIONS,
    IN_PLANE,
    Array,
    Cells,
    Floats,
    Levels,
    Matrices,
    added,
    mean_defined,
    tally,
)

#: The names of what `emphasis` gives, in its order, by family.
RUNS, SIZES, DISTANCES, DEPENDENCES = (
    names.split()
    for names in (
        "sre lre lgre hgre srlge srhge lrlge lrhge glnu glnu_norm rlnu rlnu_norm r_perc gl_var rl_var rl_entr",
        "sze lze lgze hgze szlge szhge lzlge lzhge glnu glnu_norm zsnu zsnu_norm z_perc gl_var zs_var zs_entr",
        "sde lde lgze hgze sdlge sdhge ldlge ldhge glnu glnu_norm zdnu zdnu_norm z_perc gl_var zd_var zd_entr",
        "lde hde lgce hgce ldlge ldhge hdlge hdhge glnu glnu_norm dcnu dcnu_norm dc_perc gl_var dc_var dc_entr "
        "dc_energy",
    )
)


def emphasis(matrices: Matrices, levels: Levels, names: list[str], voxels: Floats | None = None) -> dict[str, Floats]:
    """The features that all these matrices share, means over the matrices, (volumes,).

    Args:
        matrices: columns are lengths, sizes, distances or counts, from 1.
        levels: of the region.
        names: of the features, in order.
        voxels: (number,) how many voxels each matrix is of; the sum of counts times columns by default.
    """
    group, sums = matrices.group, matrices.sums
    i, j = levels.values[matrices.row].astype(np.float64), matrices.column.astype(np.float64)
    total = sums(matrices.count)
    p = matrices.count / total[group]
    low, high, small, large = 1 / i**2, i**2, 1 / j**2, j**2
    by_level, by_column = (matrices.marginal(key, p) for key in (matrices.row, matrices.column))
    level_squares, column_squares = (added(where, part**2, matrices.number) for where, _, part in (by_level, by_column))
    values: tuple[Floats, ...] = (
        *(sums(p * weight) for weight in (small, large, low, high)),
        *(sums(p * weight) for weight in (small * low, small * high, large * low, large * high)),
        *(level_squares * total, level_squares, column_squares * total, column_squares),
        total / (sums(matrices.count * j) if voxels is None else voxels),
        *(sums(p * (value - sums(p * value)[group]) ** 2) for value in (i, j)),
        -sums(p * np.log2(p)),
        sums(p**2),
    )
    return mean_defined(dict(zip(names, values, strict=False)), matrices.volume, levels.volumes)


def run_cells(levels: Levels) -> Cells:
    """Runs of equal levels along each direction; columns are lengths, voxels.

    Each voxel is a run at first. Only longer ones, which are few, are followed: each takes away those of its voxels.
    """
    row = levels.row
    inside = np.flatnonzero(row)
    within, across = (
        _counted(levels.plane_of(inside, number), number, row[inside], np.ones_like(inside))
        for number in (0, len(IN_PLANE))
    )
    parts = []
    for number, direction in enumerate(DIRECTIONS):
        step = levels.step(direction)
        same = (row[step:] == row[:-step]) & (row[step:] > 0)
        starts = step + np.flatnonzero(same[step:] & ~same[:-step])
        level, lengths = row[starts], np.full_like(starts, 2)
        going, place = np.arange(len(starts)), starts + 2 * step
        while (on := row[place] == level[going]).any():
            going, place = going[on], place[on] + step
            lengths[going] += 1
        longer = _counted(levels.plane_of(starts, number), number, level, lengths)
        alone = within if number < len(IN_PLANE) else across
        parts += [
            replace(alone, direction=np.full_like(alone.direction, number)),
            longer,
            replace(longer, column=np.ones_like(longer.column), count=-longer.column * longer.count),
        ]
    return Cells.joined(parts)


def _counted(plane: Array, direction: int, row: Array, column: Array) -> Cells:
    shape = tuple(int(item.max(initial=0)) + 1 for item in (plane, row, column))
    keys = (plane.astype(np.int64) * shape[1] + row) * shape[2] + column
    (plane, row, column), count = tally(keys, shape)
    return Cells(plane, np.full(len(plane), direction), row, column, count)


@dataclass(frozen=True)
class Zones:
    """Connected voxels of one level, (n,) each: `Cells.plane`, rank, voxels, distance to the edge."""

    plane: Array
    row: Array
    size: Array
    distance: Array

    def sizes(self) -> Cells:
        """Cells of the size zone matrices."""
        return _counted(self.plane, 0, self.row, self.size)

    def distances(self) -> Cells:
        """Cells of the distance zone matrices."""
        return _counted(self.plane, 0, self.row, self.distance)

    def voxels(self, aggregation: str, levels: Levels) -> Floats:
        """How many voxels each matrix of an aggregation is of."""
        group = self.plane if aggregation == "2D_comb" else self.plane // levels.depth
        each = added(group, self.size.astype(np.float64), len(levels.ranks))
        return each[each > 0]


def zones(levels: Levels, shape_mask: Array, flat: bool) -> Zones:
    """Zones: neighbours touch at a side or a corner; the distance to the edge goes by sides.

    Args:
        levels: of the region.
        shape_mask: (K, I, J), padded as they are.
        flat: whether neighbours lie within a slice.
    """
    ranks = levels.ranks
    if flat:  # slices below each other make a picture; the padding keeps them apart
        ranks, shape_mask = (item.reshape(-1, item.shape[2]) for item in (ranks, shape_mask))
    inside = np.flatnonzero(ranks)
    zone = measure.label(ranks, background=0, connectivity=ranks.ndim).ravel()[inside] - 1
    size = np.bincount(zone)
    row, least, plane = np.zeros_like(size), np.zeros_like(size), np.zeros_like(size)
    row[zone] = ranks.ravel()[inside]
    plane[zone] = levels.plane_of(inside, 0 if flat else len(IN_PLANE))
    edge = ndimage.distance_transform_cdt(shape_mask, "taxicab").ravel()[inside]
    # of several values written to one place the last one stays: the smallest
    farthest_first = np.argsort(-edge.astype(np.int16), kind="stable")
    least[zone[farthest_first]] = edge[farthest_first]
    return Zones(plane, row, size, least)


def dependence_cells(levels: Levels, distance: int, alpha: int) -> tuple[Cells, Cells]:
    """Neighbours within a Chebyshev distance whose level differs by at most alpha; columns are 1 + their number.

    Returns:
        Of each slice, and in three dimensions.
    """
    row = levels.row
    values = row if alpha == 0 else np.where(row > 0, levels.values[row], -alpha - 1).astype(np.int32)
    found = np.ones(row.size, np.min_scalar_type((2 * distance + 1) ** 3))
    inside = np.flatnonzero(row)
    # half of the neighbours: steps that lead forward; those within the slice come first
    steps = [item for item in product(range(distance + 1), *[range(-distance, distance + 1)] * 2) if item > (0, 0, 0)]
    cells = []
    for own in (True, False):
        for step in (levels.step(item) for item in steps if (item[0] == 0) == own):
            a, b = values[:-step], values[step:]
            alike = a == b if alpha == 0 else np.abs(a - b) <= alpha
            found[:-step] += alike
            found[step:] += alike
        plane = levels.plane_of(inside, 0 if own else len(IN_PLANE))
        cells.append(_counted(plane, 0, row[inside], found[inside]))
    return cells[0], cells[1]
