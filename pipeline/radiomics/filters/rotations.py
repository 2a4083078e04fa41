"""A separable filter turned by all right angles, and its responses pooled. Source: IBSI 2, rotation invariance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from math import factorial, prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.radiomics.filters.base import Pooling
from pipeline.radiomics.filters.lines import along, separable
from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Letter(NamedTuple):
    """One letter of a separable filter: its matrix along each axis of the image, all of one kernel."""

    name: str
    matrices: tuple[Floats, ...]


def pooled(image: Tensor, letters: Sequence[Letter], pooling: Pooling | None) -> Tensor:
    """The response to a separable filter, or to all its turns.

    Args:
        image: (I, J, K).
        letters: one for each of the first axes.
        pooling: None does not turn.
    """
    if pooling is None:
        return separable(image, [letter.matrices[axis] for axis, letter in enumerate(letters)])
    return _averaged(image, letters) if pooling == "average" else _highest(image, letters)


def _averaged(image: Tensor, letters: Sequence[Letter]) -> Tensor:
    """The mean over the turns (4 in a plane, 24 in space).

    A turn permutes axes and flips some, so that the signs of both multiply to 1. The sum over the flips of all axes is
    a product of the kernels' even parts; with the flips' sign as weight, one of their odd parts. Where two letters are
    equal the odd part's permutations cancel.
    """
    total = image.new_zeros(image.shape)
    for order, (sign, count) in _orders(letters).items():
        for parity, weight in ((1, count), (-1, sign)):
            matrices = [_part(letters[number].matrices[axis], parity) for axis, number in enumerate(order)]
            if weight and all(matrix.any() for matrix in matrices):
                total += separable(image, matrices) * (weight / factorial(len(letters)))
    return total


def _part(matrix: Floats, parity: int) -> Floats:
    """The even (1) or odd (-1) part of a matrix; what is left by rounding is none."""
    part = (matrix + parity * matrix[::-1, ::-1]) / 2
    return np.where(np.abs(part) > 1e-12 * np.abs(matrix).max(), part, 0.0)


def _orders(letters: Sequence[Letter]) -> dict[tuple[int, ...], tuple[int, int]]:
    """The orders of the letters that differ: the sum of the signs of equal ones, and how many there are."""
    found: dict[tuple[str, ...], tuple[tuple[int, ...], int, int]] = {}
    for order in permutations(range(len(letters))):
        names = tuple(letters[number].name for number in order)
        first, sign, count = found.get(names, (order, 0, 0))
        found[names] = first, sign + _sign(order), count + 1
    return {first: (sign, count) for first, sign, count in found.values()}


def _sign(order: Sequence[int]) -> int:
    return round(np.linalg.det(np.eye(len(order))[list(order)]))


def _highest(image: Tensor, letters: Sequence[Letter]) -> Tensor:
    """The highest response of all turns; those that differ by their sign only are computed once."""
    responses = (response * sign for response, signs in _branches(image, 0, _turned(letters)) for sign in signs)
    found = next(responses)
    for each in responses:
        found = found.maximum(each)
    return found


class Line(NamedTuple):
    """A letter along an axis: its name, whether it is flipped, its sign (an odd kernel's flip is -1 times itself)."""

    name: str
    is_flipped: bool
    sign: int
    matrix: Floats


def _turned(letters: Sequence[Letter]) -> list[list[Line]]:
    """All turns, a line for each axis."""
    return [
        [_line(letters[number], axis, flips[axis]) for axis, number in enumerate(order)]
        for order in permutations(range(len(letters)))
        for flips in product((1, -1), repeat=len(letters))
        if _sign(order) * prod(flips) == 1
    ]


def _line(letter: Letter, axis: int, flip: int) -> Line:
    matrix = letter.matrices[axis]
    turned = np.ascontiguousarray(matrix[::-1, ::-1])
    for sign in (1, -1):
        if flip == 1 or np.allclose(turned, sign * matrix, rtol=0, atol=1e-12 * np.abs(matrix).max()):
            return Line(letter.name, False, sign, matrix)
    return Line(letter.name, True, 1, turned)


def _branches(image: Tensor, axis: int, turns: list[list[Line]]) -> Iterator[tuple[Tensor, set[int]]]:
    """The responses that differ, and their signs: what turns share along the first axes is computed once."""
    if axis == len(turns[0]):
        yield image, {prod(line.sign for line in turn) for turn in turns}
        return
    for key in dict.fromkeys(turn[axis][:2] for turn in turns):
        same = [turn for turn in turns if turn[axis][:2] == key]
        yield from _branches(along(image, same[0][axis].matrix, axis), axis + 1, same)
