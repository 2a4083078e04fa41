"""Measures of fusion that a network can learn through: SSIM, Q^AB/F, SCD and VIF, 2D and 3D.

They are the measures of `metrics` but for what cannot be differentiated. A picture is (B, 1, I, J) or (B, 1, I, J, K),
0 to 1; each function gives the mean over the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.image_fusion.edges import DIRECTION, STRENGTH
from pipeline.image_fusion.filters import magnitude, mean_filter, separable, sobel
from pipeline.image_fusion.structure import SSIM_K1, SSIM_K2, SSIM_SIDE, VIF_NOISE, VIF_SIDES

TINY = 1e-6


def ssim(first: Tensor, second: Tensor, data_range: float = 1.0) -> Tensor:
    """The structural similarity, a uniform window of 7.

    Args:
        first: (B, 1, …).
        second: likewise.
        data_range: of the values; 2 / 255 is that of the evaluator, which takes 2 for pictures of 0 to 255.

    Source: Wang et al., IEEE TIP 13(4), 2004, equation 13.
    """
    count = SSIM_SIDE ** (first.ndim - 2)
    joined = torch.cat([first, second, first * first, second * second, first * second], 1)
    means = mean_filter(joined, SSIM_SIDE, padded=False)
    a, b = means[:, 0], means[:, 1]
    sample = count / (count - 1)  # unbiased variances, as scikit-image has them
    var_a, var_b, both = (sample * (means[:, 2 + n] - part) for n, part in enumerate((a * a, b * b, a * b)))
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    return ((2 * a * b + c1) * (2 * both + c2) / ((a * a + b * b + c1) * (var_a + var_b + c2))).mean()


def qabf(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """How much of the sources' edges is in the fused picture, 0 to 1.

    The angle is that between two gradients as lines: an edge that is turned round counts as kept.

    Source: Xydeas and Petrovic, Objective image fusion performance measure, Electronics Letters 36(4), 2000.
    """
    edges = sobel(fused)
    strength = magnitude(edges, TINY)
    total, weight = torch.zeros_like(fused), torch.zeros_like(fused)
    for source in (ct, mr):
        theirs = sobel(source)
        length = magnitude(theirs, TINY)
        total = total + _preserved(theirs, length, edges, strength) * length
        weight = weight + length
    axes = list(range(1, fused.ndim))
    return (total.sum(axes) / weight.sum(axes)).mean()


def _preserved(theirs: list[Tensor], length: Tensor, edges: list[Tensor], strength: Tensor) -> Tensor:
    """How much of a source's edge is kept at each voxel."""
    part = torch.minimum(length, strength) / torch.maximum(length, strength)
    dot = theirs[0] * edges[0]
    for own, other in zip(theirs[1:], edges[1:], strict=True):
        dot = dot + own * other
    across = torch.sqrt((length * length * strength * strength - dot * dot).clamp(min=0.0) + TINY**4)
    turned = 1 - torch.atan2(across, dot.abs() + TINY**2) / (math.pi / 2)
    return _sigmoid(part, STRENGTH) * _sigmoid(turned, DIRECTION)


def _sigmoid(values: Tensor, constants: tuple[float, float, float]) -> Tensor:
    gain, steepness, middle = constants
    return gain * torch.sigmoid(steepness * (values - middle))


def scd(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """The sum of the correlations of differences: of CT with what differs from MR, and the reverse, -2 to 2.

    Each picture's correlation counts 0 where it is undefined: a source that is flat, a copy of the other one.

    Source: Aslantas and Bendes, A new image quality metric for image fusion, AEU 69(12), 2015.
    """
    return (_correlation(fused - mr, ct) + _correlation(fused - ct, mr)).mean()


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, of each picture of a batch."""
    a, b = first.flatten(1), second.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).mean(1) / torch.sqrt(a.square().mean(1) * b.square().mean(1) + TINY**2)


def vif(reference: Tensor, distorted: Tensor) -> Tensor:
    """The visual information fidelity of a picture with regard to a reference, pixel domain, as `piq.vif_p` has it.

    Scales at which a picture would have no voxel left are left out.

    Source: Sheikh and Bovik, Image information and visual quality, IEEE TIP 15(2), 2006.
    """
    pair = torch.cat([reference, distorted], 1) * 255
    kept, whole = pair.new_zeros(len(pair)), pair.new_zeros(len(pair))
    for scale, side in enumerate(VIF_SIDES):
        taps = _gaussian(side)
        if scale:
            pair = _halved(separable(pair, taps, padded=False))
        if min(pair.shape[2:]) < side:
            break
        gain, noise, variance = _channel(pair, taps)
        axes = list(range(1, variance.ndim))
        kept = kept + torch.log10(1 + gain * gain * variance / (noise + VIF_NOISE)).sum(axes)
        whole = whole + torch.log10(1 + variance / VIF_NOISE).sum(axes)
    return ((kept + 1e-8) / (whole + 1e-8)).mean()


def _channel(pair: Tensor, taps: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Gain and noise of the channel from the reference to the distorted picture, and the reference's variance."""
    x, y = pair[:, 0], pair[:, 1]
    means = separable(torch.stack([x, y, x * x, y * y, x * y], 1), taps, padded=False)
    mean_x, mean_y = means[:, 0], means[:, 1]
    variance = (means[:, 2] - mean_x * mean_x).clamp(min=0.0)
    other = (means[:, 3] - mean_y * mean_y).clamp(min=0.0)
    both = means[:, 4] - mean_x * mean_y
    gain = both / (variance + 1e-8)
    noise = other - gain * both
    flat, still = variance < 1e-8, other < 1e-8
    gain, noise = torch.where(flat, 0.0, gain), torch.where(flat, other, noise)
    variance = torch.where(flat, 0.0, variance)
    gain, noise = torch.where(still, 0.0, gain), torch.where(still, 0.0, noise)
    noise, gain = torch.where(gain < 0, other, noise), gain.clamp(min=0.0)
    return gain, noise.clamp(min=1e-8), variance


def _halved(image: Tensor) -> Tensor:
    """Every second voxel along every axis."""
    return image[:, :, ::2, ::2] if image.ndim == 4 else image[:, :, ::2, ::2, ::2]


def _gaussian(side: int) -> list[float]:
    """A Gaussian whose deviation is a fifth of its side, with the sum 1."""
    values = [math.exp(-((place - side // 2) ** 2) / (2 * (side / 5) ** 2)) for place in range(side)]
    return [value / sum(values) for value in values]
