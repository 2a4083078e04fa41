"""Means, variances and covariances within windows: separable, and of whole windows only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.image_fusion.images import Array, Floats, pieces

#: Kernels of fewer weights, and matrices of more rows, take longer by what is quicker otherwise.
_SHORT, _FEW = 5, 160


def box(side: int) -> Floats:
    """Equal weights, whose sum is 1."""
    return np.full(side, 1 / side)


def gaussian(side: int, sigma: float) -> Floats:
    """A Gaussian's weights, whose sum is 1."""
    weights = np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def averaged(image: Array, weights: Floats) -> Array:
    """The mean in each window that lies whole in the image, with weights (m,) along each axis; as `filtered`."""
    return filtered(image, [weights] * image.ndim)


def filtered(image: Array, kernels: list[Floats], step: int = 1) -> Array:
    """The correlation with kernels where they lie whole in the image.

    Args:
        image: of any number of axes, each of n voxels, n >= m.
        kernels: one (m,) for each axis.
        step: voxels from a window to the next.

    Returns:
        Each axis of n - m + 1 voxels, or of every `step`th of them.
    """
    for axis, weights in enumerate(kernels):
        image = _along(image, weights, axis, step)
    return image


def _along(image: Array, weights: Floats, axis: int, step: int) -> Array:
    size, count = image.shape[axis], len(weights)
    if axis == 0 and count >= _SHORT and size <= _FEW:
        # the product with a matrix that has the weights beside its diagonal reads the image's lines one after another
        band = sum(np.eye(size - count + 1, size, place) * weight for place, weight in enumerate(weights))
        return np.asarray(np.tensordot(np.asarray(band)[::step], image, 1))
    if count >= _SHORT and (weights == weights[0]).all():  # a running sum
        whole = ndimage.uniform_filter1d(image, count, axis, mode="constant") * (count * weights[0])
    else:
        whole = ndimage.correlate1d(image, weights, axis, mode="constant")
    first = count // 2
    return np.asarray(whole)[(slice(None),) * axis + (slice(first, first + size - count + 1, step),)]


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
