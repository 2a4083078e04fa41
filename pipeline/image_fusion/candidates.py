"""The candidates that the network mixes at each voxel, counted in torch so that an exported network holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.image_fusion.filters import separable, sobel

#: In the order of the network's weights; names of `baselines.BASELINES`.
CANDIDATES = ("ct", "mr", "max", "atrous", "gradient")


def candidates(ct: Tensor, mr: Tensor) -> Tensor:
    """Five fused images, none of which is learned: those of `baselines`, within the range of both sources.

    Args:
        ct: (B, 1, …), 0 to 1.
        mr: likewise, on the same grid.

    Returns:
        (B, 5, …) in the order of `CANDIDATES`.

    Source: as `baselines.atrous` and `baselines.gradient`, whose constants these are.
    """
    both = torch.cat([ct, mr], 1)
    weight, bases = _gradient_weight(both), _smoothed(both)
    details = both - bases
    atrous = bases.amax(1, keepdim=True) + _mixed(weight, details[:, :1], details[:, 1:])
    larger = torch.maximum(ct, mr)
    return torch.cat([ct, mr, larger, atrous.clamp(0.0, 1.0), _mixed(weight, ct, mr)], 1)


def _smoothed(image: Tensor) -> Tensor:
    for holes in [1, 2]:
        image = separable(image, [0.0625, 0.25, 0.375, 0.25, 0.0625], holes)
    return image


def _mixed(weight: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    return mr + weight * (ct - mr)


def _gradient_weight(both: Tensor) -> Tensor:
    """CT's part: the energy of its gradient to the power of 4, over the sum with MR's; a half where both are even."""
    energy = _energy(both)
    total = energy.sum(1, keepdim=True)
    parts = torch.where(total > 0, energy / total, 0.5) ** 4
    return parts[:, :1] / parts.sum(1, keepdim=True)


def _energy(image: Tensor) -> Tensor:
    """The squared gradient (Sobel), over a neighbourhood: a Gaussian of one voxel, up to four."""
    total = torch.zeros_like(image)
    for part in sobel(image):
        total = total + part**2
    near = torch.exp(-0.5 * torch.arange(-4.0, 5.0) ** 2)
    taps: list[float] = (near / near.sum()).tolist()
    return separable(total, taps)
