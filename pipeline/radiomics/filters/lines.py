"""Convolution along an axis as the product with a matrix: exact at every boundary, and fast wherever products are.

A matrix (n, n) maps a line of n voxels to its response. Only its columns that are not zero are multiplied with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.radiomics.filters.base import Boundary
from pipeline.radiomics.levels import Array, Floats

if TYPE_CHECKING:
    from torch import Tensor

#: So many voxels of a line at a time.
_BAND = 32


def extended(index: Array, size: int, boundary: Boundary) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Which voxel of a line stands at an index, that may lie beyond its ends; and where there is one at all."""
    known = np.ones(index.shape, np.bool_)
    match boundary:
        case "zero":
            known = (index >= 0) & (index < size)
            return index.clip(0, size - 1), known
        case "nearest":
            return index.clip(0, size - 1), known
        case "periodic":
            return index % size, known
        case "mirror":
            turned = index % (2 * size)
            return np.minimum(turned, 2 * size - 1 - turned), known


def convolution(kernel: Floats, size: int, boundary: Boundary, step: int = 1) -> Floats:
    """The matrix (size, size) of a convolution with a kernel.

    Args:
        kernel: (m,); its middle is m // 2.
        size: of the line, voxels.
        boundary: beyond the line.
        step: voxels between the kernel's values (à trous).
    """
    matrix, rows = np.zeros((size, size)), np.arange(size)
    for place, value in enumerate(kernel):
        columns, known = extended(rows - (place - len(kernel) // 2) * step, size, boundary)
        matrix[rows[known], columns[known]] += value
    return matrix


def along(image: Tensor, matrix: Floats, axis: int) -> Tensor:
    """The image (I, J, K) with each of its lines along an axis mapped by a matrix (m, n): n becomes m."""
    found = image.new_empty([*image.shape[:axis], len(matrix), *image.shape[axis + 1 :]])
    for first in range(0, len(matrix), _BAND):
        rows = matrix[first : first + _BAND]
        used = np.flatnonzero(rows.any(axis=0))
        start, stop = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        part = image.new_tensor(rows[:, start:stop])
        source = image.narrow(axis, start, stop - start)
        target = found.narrow(axis, first, len(rows))
        target.copy_(_product(source, part, axis))
    return found


def _product(source: Tensor, part: Tensor, axis: int) -> Tensor:
    if axis == 2:
        return source @ part.T
    if axis == 1:
        return part @ source
    return (part @ source.reshape(len(source), -1)).reshape(len(part), *source.shape[1:])


def separable(image: Tensor, matrices: Sequence[Floats]) -> Tensor:
    """The image with its lines along the first axes mapped, one matrix for each."""
    for axis, matrix in enumerate(matrices):
        image = along(image, matrix, axis)
    return image
