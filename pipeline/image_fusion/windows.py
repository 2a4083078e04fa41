"""Means, variances and covariances within windows: separable, and of whole windows only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.image_fusion.images import Array, Floats, pieces


def box(side: int) -> Floats:
    """Equal weights, whose sum is 1."""
    return np.full(side, 1 / side)


def gaussian(side: int, sigma: float) -> Floats:
    """A Gaussian's weights, whose sum is 1."""
    weights = np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def averaged(image: Array, weights: Floats, step: int = 1) -> Array:
    """The weighted mean in each window that lies whole in the image.

    Args:
        image: of any number of axes, each of n voxels, n >= m.
        weights: (m,) along each axis.
        step: voxels from a window to the next.

    Returns:
        Each axis of n - m + 1 voxels, or of every `step`th of them.
    """
    return filtered(image, [weights] * image.ndim, step)


def filtered(image: Array, kernels: list[Floats], step: int = 1) -> Array:
    """The correlation with a kernel for each axis, where the kernels lie whole in the image; as `averaged`."""
    for axis, weights in enumerate(kernels):
        first = len(weights) // 2
        stop = first + image.shape[axis] - len(weights) + 1
        whole = ndimage.correlate1d(image, weights, axis, mode="constant")
        image = whole[(slice(None),) * axis + (slice(first, stop, step),)]
    return image


@dataclass(frozen=True)
class Side:
    """A source in windows beside the fused image.

    Attributes:
        mean: of the source.
        variance: of the source, >= 0.
        covariance: of the source with the fused image.
    """

    mean: Floats
    variance: Floats
    covariance: Floats


@dataclass(frozen=True)
class Windows:
    """The fused image and the sources in windows.

    Attributes:
        mean: of the fused image.
        variance: of the fused image, >= 0.
        sides: one for each source.
    """

    mean: Floats
    variance: Floats
    sides: list[Side]


def windows(fused: Array, sources: list[Array], weights: Floats) -> Iterator[Windows]:
    """Statistics of all windows, part after part.

    In double precision: of bright and even voxels the variance is a difference of two large numbers, which single
    precision leaves wrong by some thousandths, the size of the constants of SSIM.

    Args:
        fused: the fused image.
        sources: of the same shape.
        weights: (m,) along each axis; their sum is 1.
    """
    for f, *parts in pieces([fused, *sources], len(weights)):
        mean, variance = _moments(f, weights)
        yield Windows(mean, variance, [_side(f, mean, part, weights) for part in parts])


def _moments(image: Floats, weights: Floats) -> tuple[Floats, Floats]:
    mean = averaged(image, weights)
    square = averaged(image * image, weights)
    square -= mean * mean
    return mean, np.maximum(square, 0, out=square)


def _side(fused: Floats, fused_mean: Floats, source: Floats, weights: Floats) -> Side:
    mean, variance = _moments(source, weights)
    covariance = averaged(fused * source, weights)
    covariance -= fused_mean * mean
    return Side(mean, variance, covariance)
