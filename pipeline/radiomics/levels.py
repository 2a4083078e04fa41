"""Grey levels of a region as one padded row of numbers, and texture matrices as lists of their cells.

A step from a voxel to a neighbour is one distance in the padded row, whatever the direction: pairs and runs are made by
shifting the row. Padding is 0, which is no level, so nothing reaches over an edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Steps (slice, row, column) to half of the neighbours: within a slice, then to the next slice.
IN_PLANE = ((0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1))
DIRECTIONS = (*IN_PLANE, *((1, row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)))
#: A matrix of more possible cells than this, and than its entries, is made by sorting.
_DENSE_CELLS, _DENSE_PART = 1 << 16, 4


@dataclass(frozen=True)
class Levels:
    """The grey levels of a region, or of many volumes that lie one above the other.

    Attributes:
        ranks: (K, I, J), slices first, padded: number of the level among those present, from 1; 0 outside the region.
        values: (m + 1,) the level of each rank, int64; that of 0 is 0.
        bins: how many levels there can be.
        pad: width of the padding, voxels.
        volumes: how many there are, of as many slices each, padding included.
    """

    ranks: Array
    values: Array
    bins: int
    pad: int
    volumes: int = 1

    @classmethod
    def of(cls, levels: Array, bins: int, distance: int = 1) -> Levels:
        """Of levels (I, J, K), whole numbers from 1, 0 outside; `distance` is the farthest neighbour's, voxels."""
        present = np.bincount(levels.ravel(), minlength=bins + 1) > 0
        present[0] = True
        values = np.flatnonzero(present)
        rank_of = (np.cumsum(present) - 1).astype(np.min_scalar_type(len(values)))
        return cls(np.pad(np.moveaxis(rank_of[levels], 2, 0), distance), values, bins, distance)

    @property
    def row(self) -> Array:
        """The padded ranks as one row."""
        return self.ranks.ravel()

    @property
    def plane(self) -> int:
        """How many voxels a padded slice has."""
        return self.ranks.shape[1] * self.ranks.shape[2]

    @property
    def depth(self) -> int:
        """How many slices a volume has, padding included."""
        return len(self.ranks) // self.volumes

    def plane_of(self, voxels: Array, direction: int) -> Array:
        """The `Cells.plane` of voxels, which are places in the row."""
        if direction < len(IN_PLANE):
            return voxels // self.plane
        return voxels // (self.plane * self.depth) * self.depth

    def step(self, offset: tuple[int, ...]) -> int:
        """The distance in the padded row of a step (slice, row, column)."""
        return offset[0] * self.plane + offset[1] * self.ranks.shape[2] + offset[2]


@dataclass(frozen=True)
class Cells:
    """Cells of matrices that are not zero, (n,) each.

    Attributes:
        plane: slice; that of the volume's first one where the cell is of no slice alone.
        direction: number in `DIRECTIONS`; 0 where there is none.
        row: rank of the grey level.
        column: rank of the other level, length, size, distance or dependence.
        count: how often.
    """

    plane: Array
    direction: Array
    row: Array
    column: Array
    count: Array

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Several as one."""
        names = ("plane", "direction", "row", "column", "count")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def grouped(self, aggregation: str, levels: Levels) -> Matrices:
        """The matrices of an aggregation, merged or side by side, of each volume."""
        kept = slice(None) if aggregation.startswith("3D") else self.direction < len(IN_PLANE)
        plane, direction, depth = self.plane[kept], self.direction[kept], levels.depth
        volume, among = plane // depth, len(DIRECTIONS)
        group, share = {
            "2D_avg": (plane * among + direction, depth * among),
            "2D_comb": (plane, depth),
            "2_5D_avg": (volume * among + direction, among),
            "3D_avg": (volume * among + direction, among),
        }.get(aggregation, (volume, 1))
        return Matrices.of(group, self.row[kept], self.column[kept], self.count[kept], share)


@dataclass(frozen=True)
class Matrices:
    """Matrices side by side: of each cell that is not zero, its matrix, row, column and count, (n,) each.

    Attributes:
        number: how many matrices there are; none of them is empty.
        volume: (number,) the volume that each is of.
    """

    group: Array
    row: Array
    column: Array
    count: Floats
    number: int
    volume: Array

    @classmethod
    def of(cls, group: Array, row: Array, column: Array, count: Array, share: int = 1) -> Matrices:
        """Equal cells are added up; matrices without any are left out; so many in a row share a volume."""
        sizes = tuple(int(item.max(initial=0)) + 1 for item in (group, row, column))
        keys = (group.astype(np.int64) * sizes[1] + row) * sizes[2] + column
        (group, row, column), total = tally(keys, sizes, count)
        used = np.bincount(group) > 0
        volume = np.flatnonzero(used) // share
        return cls((np.cumsum(used) - 1)[group], row, column, total.astype(np.float64), len(volume), volume)

    def sums(self, weights: Floats) -> Floats:
        """Of a value of each cell: its sum over each matrix, (number,)."""
        return added(self.group, weights, self.number)

    def marginal(self, key: Array, weights: Floats) -> tuple[Array, Array, Floats]:
        """Sums over the cells of each matrix that share a key: matrix, key and sum of each."""
        size = int(key.max(initial=0)) + 1
        (group, found), total = tally(self.group.astype(np.int64) * size + key, (self.number, size), weights)
        return group, found, total


def tally(keys: Array, shape: tuple[int, ...], weights: Array | None = None) -> tuple[tuple[Array, ...], Array]:
    """Count flat indices of a matrix, which is never made where it were large.

    Args:
        keys: (n,) int64.
        shape: of the matrix.
        weights: (n,) what each key counts; 1 by default.

    Returns:
        Indices along each axis of the cells that are not zero, in order, and their counts.
    """
    size = int(np.prod([float(item) for item in shape]))
    if size <= max(_DENSE_CELLS, _DENSE_PART * len(keys)):
        total = np.bincount(keys, weights, size)
        cells = np.flatnonzero(total)
        return np.unravel_index(cells, shape), total[cells]
    cells, inverse, total = np.unique(keys, return_inverse=True, return_counts=True)
    total = total if weights is None else np.bincount(inverse, weights)
    used = np.flatnonzero(total)
    return np.unravel_index(cells[used], shape), total[used]


def added(index: Array, values: Floats, size: int) -> Floats:
    """Of values (n,): their sum at each index, (size,)."""
    return np.asarray(np.bincount(index, values, size), np.float64)


def mean_defined(values: dict[str, Floats], volume: Array, volumes: int) -> dict[str, Floats]:
    """The mean of each feature over the matrices of a volume in which it is defined; NaN where it is in none.

    Args:
        values: (number,) of the matrices, by name.
        volume: (number,) that each matrix is of.
        volumes: how many there are.

    Returns:
        (volumes,) each.
    """
    means = {}
    for name, each in values.items():
        defined = np.isfinite(each)
        where = volume[defined]
        with np.errstate(invalid="ignore"):
            means[name] = added(where, each[defined], volumes) / np.bincount(where, minlength=volumes)
    return means
