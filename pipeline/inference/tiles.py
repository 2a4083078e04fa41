"""Tiles of an image: in groups, mirrored, and put together again by weighted means, with little memory traffic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
#: Where a tile lies in an image (C, I, J, K): a slice or a number for each of the last axes.
Box = tuple[slice | int, ...]


def groups(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Groups of about the same size: a single tile costs a processor up to three times its share of two."""
    count = math.ceil(len(items) / most)
    for number in range(count):
        yield items[number * len(items) // count : (number + 1) * len(items) // count]


def mirrors(axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Along which axes an image is mirrored: none, each, each two, all."""
    return tuple(some for size in range(len(axes) + 1) for some in itertools.combinations(axes, size))


def mirrored(forward: Callable[[Tensor], Tensor], tiles: Tensor, axes: Sequence[int]) -> Tensor:
    """The mean logits (B, labels, …) of tiles (B, C, …) and of their mirror images along some of their axes."""
    total = forward(tiles)
    for some in mirrors(axes)[1:]:
        total = total + forward(tiles.flip(some)).flip(some)
    return total / 2 ** len(axes)


class TileSum:
    """Sums of tiles, float32, and how much of them lies on each voxel.

    Args:
        labels: logits of a voxel.
        shape: of the image, without channels.
        weight: of each voxel of a tile.
    """

    def __init__(self, labels: int, shape: Sequence[int], weight: Tensor) -> None:
        self.weight = weight
        self.total = torch.zeros((labels, *shape), device=weight.device)
        self.norm = torch.zeros(tuple(shape), device=weight.device)

    def add(self, boxes: Sequence[Box], logits: Tensor) -> None:
        """Add tiles (B, labels, …) at their places."""
        for box, tile in zip(boxes, logits, strict=True):
            self.total[(slice(None), *box)].addcmul_(tile, self.weight)
            self.norm[box] += self.weight

    def mean(self) -> Tensor:
        """The weighted mean (labels, …); 0 where there was no tile. It takes the place of the sums."""
        return self.total.div_(self.norm.clamp(min=torch.finfo(self.norm.dtype).tiny))
