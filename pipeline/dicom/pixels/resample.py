"""Bring slices that lean or are unevenly spaced onto an upright, even grid, by their true positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dicom.series.stack import FloatArray, Stack

Array = npt.NDArray[Any]

#: A position that misses the last pixel by this part of one is on it.
_EDGE = 1e-3
#: A slice that misses its place on an even grid by this part of a step is near it.
_NEAR = 0.25


def straighten(
    values: Array, stack: Stack, spacing_mm: tuple[float, float], outside: float
) -> tuple[Array, FloatArray]:
    """Undo the shear of a stack of leaning slices.

    Every slice is moved in its own plane, by linear interpolation, to where it lies. The grid grows so that none of
    them is cut.

    Args:
        values: (slices, rows, columns).
        stack: where the slices lie.
        spacing_mm: between rows, between columns.
        outside: the value where there is no slice.

    Returns:
        (slices, rows, columns), float32; and the position of the first slice's first pixel, LPS mm.
    """
    moved = stack.sideways_mm / np.array([spacing_mm[1], spacing_mm[0]])  # in columns, in rows
    first = np.floor(moved.min(axis=0) + _EDGE)
    more = (np.ceil(moved.max(axis=0) - _EDGE) - first).astype(int)
    columns, rows = int(values.shape[2] + more[0]), int(values.shape[1] + more[1])
    result = np.empty((len(values), rows, columns), dtype=np.float32)
    for index, (right, down) in enumerate(moved - first):
        wide = _moved(values[index].astype(np.float64), float(right), columns, outside)
        result[index] = _moved(wide.T, float(down), rows, outside).T
    corner = stack.positions[0] + first[0] * spacing_mm[1] * stack.row + first[1] * spacing_mm[0] * stack.column
    return result, corner


def _moved(lines: Array, by: float, size: int, outside: float) -> Array:
    """Move lines (N, length) to the right by a part of a pixel and more, into lines of `size`."""
    at = np.arange(size) - by
    low = np.clip(np.floor(at + _EDGE), 0, lines.shape[1] - 2).astype(int)
    weight = np.clip(at - low, 0, 1)
    moved = lines[:, low] * (1 - weight) + lines[:, low + 1] * weight
    moved[:, (at < -_EDGE) | (at > lines.shape[1] - 1 + _EDGE)] = outside
    return np.asarray(moved)


def even_out(values: Array, stack: Stack) -> Array:
    """Interpolate unevenly spaced slices onto even steps, linearly between their true positions.

    The first and the last slice keep their places. Where every slice lies near its own place of an even grid of as
    many slices, that grid is taken: interpolation then hardly blurs. Else the steps are at most the smallest of the
    series, so that no slice lies between two of the grid's unseen.

    Args:
        values: (slices, rows, columns).
        stack: where the slices lie.

    Returns:
        (more slices, rows, columns), float32.
    """
    intervals = len(values) - 1
    even = np.linspace(stack.along_mm[0], stack.along_mm[-1], intervals + 1)
    if np.abs(stack.along_mm - even).max() > _NEAR * stack.step_mm:
        intervals = int(np.ceil(stack.extent_mm / stack.steps_mm.min() - _EDGE))
        even = np.linspace(stack.along_mm[0], stack.along_mm[-1], intervals + 1)
    at = np.interp(even, stack.along_mm, np.arange(len(values)))
    result = np.empty((len(at), *values.shape[1:]), dtype=np.float32)
    for index, place in enumerate(at):
        low = min(int(place), len(values) - 2)
        weight = np.float32(place - low)
        result[index] = values[low] * (1 - weight) + values[low + 1] * weight
    return result
