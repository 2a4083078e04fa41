"""Filters that a network can contain and a loss can be learned through: torch, 2D and 3D, the same along every axis.

An image is (B, C, I, J) or (B, C, I, J, K); each channel is filtered by itself. Borders are mirrored, as in SciPy.
"""

from __future__ import annotations

import torch
from torch import Tensor


def along(image: Tensor, axis: int, taps: list[float], dilation: int = 1, padded: bool = True) -> Tensor:
    """Correlate with taps along one spatial axis.

    Args:
        image: (B, C, …).
        axis: of the spatial ones, from 0.
        taps: an odd number of them.
        dilation: voxels from a tap to the next.
        padded: False leaves the borders out, so that the axis gets shorter.
    """
    reach = (len(taps) // 2) * dilation
    if padded:
        image = _continued(image, axis + 2, reach)
    size = image.shape[axis + 2] - 2 * reach
    if len(taps) > 7:
        return _by_matrix(image, axis + 2, taps, dilation, size)
    # sums of shifted images take a fifth of the time of a convolution of one channel, there and back
    total = torch.zeros_like(image.narrow(axis + 2, 0, size))
    for number, tap in enumerate(taps):
        if tap != 0.0:
            total = total.add(image.narrow(axis + 2, number * dilation, size), alpha=tap)
    return total


def _continued(image: Tensor, axis: int, reach: int) -> Tensor:
    """An image mirrored at its borders, however short the axis is."""
    size = image.shape[axis]
    places = torch.arange(-reach, size + reach, device=image.device).remainder(2 * size)
    return image.index_select(axis, torch.where(places < size, places, 2 * size - 1 - places))


def _by_matrix(image: Tensor, axis: int, taps: list[float], dilation: int, size: int) -> Tensor:
    """Many taps: the product with a matrix that has them beside its diagonal, which is faster still."""
    places = torch.arange(image.shape[axis], device=image.device)
    beside = places[:, None] - places[:size][None]
    band = torch.zeros_like(beside, dtype=image.dtype)
    for number, tap in enumerate(taps):
        band = band + tap * (beside == number * dilation).to(image.dtype)
    return torch.matmul(image.transpose(axis, -1), band).transpose(axis, -1)


def separable(image: Tensor, taps: list[float], dilation: int = 1, padded: bool = True) -> Tensor:
    """Correlate with the same taps along every spatial axis; arguments as in `along`."""
    for axis in range(image.ndim - 2):
        image = along(image, axis, taps, dilation, padded)
    return image


def mean_filter(image: Tensor, side: int, padded: bool = True) -> Tensor:
    """The mean over a box of `side` voxels (odd)."""
    return separable(image, [1.0 / side] * side, 1, padded)


def sobel(image: Tensor) -> list[Tensor]:
    """The gradient along each spatial axis by Sobel's masks, each (B, C, …): a ramp of 1 a voxel has the gradient 1."""
    found: list[Tensor] = []
    for axis in range(image.ndim - 2):
        part = image
        for other in range(image.ndim - 2):
            part = along(part, other, [-0.5, 0.0, 0.5] if other == axis else [0.25, 0.5, 0.25])
        found.append(part)
    return found


def magnitude(parts: list[Tensor], least: float = 0.0) -> Tensor:
    """The length of a gradient; with `least` above 0 it can be differentiated where the gradient is 0."""
    total = parts[0] ** 2
    for part in parts[1:]:
        total = total + part**2
    return torch.sqrt(total + least * least)


def laplacian(image: Tensor) -> Tensor:
    """The sum of the second differences along the spatial axes."""
    total = along(image, 0, [1.0, -2.0, 1.0])
    for axis in range(1, image.ndim - 2):
        total = total + along(image, axis, [1.0, -2.0, 1.0])
    return total
