"""The candidates that the network mixes at each voxel, counted in torch so that an exported network holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.image_fusion.filters import magnitude, mean_filter, separable, sobel

#: In the order of the network's weights.
CANDIDATES = ("ct", "mr", "max", "atrous", "gradient")


def candidates(ct: Tensor, mr: Tensor) -> Tensor:
    """Five fused images, none of which is learned.

    Args:
        ct: (B, 1, …), 0 to 1.
        mr: likewise, on the same grid.

    Returns:
        (B, 5, …) in the order of `CANDIDATES`: both sources, the larger of them, `atrous`, and of each voxel the one
        with more gradient energy around it.
    """
    stronger = torch.where(energy(ct, 5) >= energy(mr, 5), ct, mr)
    return torch.cat([ct, mr, torch.maximum(ct, mr), atrous(ct, mr), stronger], 1)


def atrous(ct: Tensor, mr: Tensor) -> Tensor:
    """The larger of both bases, and at each voxel of two detail levels that of the source with more gradient energy.

    Source: Starck and Murtagh, Image restoration with noise suppression using the wavelet transform, A&A 288, 1994 (the
    B3 spline, with holes that double from level to level).
    """
    total = torch.zeros_like(ct)
    for holes in [1, 2]:
        ct_base = separable(ct, [0.0625, 0.25, 0.375, 0.25, 0.0625], holes)
        mr_base = separable(mr, [0.0625, 0.25, 0.375, 0.25, 0.0625], holes)
        first, second = ct - ct_base, mr - mr_base
        total = total + torch.where(energy(ct, 3) >= energy(mr, 3), first, second)
        ct, mr = ct_base, mr_base
    return (total + torch.maximum(ct, mr)).clamp(0.0, 1.0)


def energy(image: Tensor, side: int) -> Tensor:
    """The squared gradient (Sobel), its mean over a box of `side` voxels."""
    return mean_filter(magnitude(sobel(image)) ** 2, side)
