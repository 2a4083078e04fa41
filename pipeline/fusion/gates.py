"""How much each modality counts at each place: the softmax gates of gated fusion as maps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional

from pipeline.fusion.blocks import GatedBlock, masked
from pipeline.fusion.explained_case import ExplainedCase
from pipeline.fusion.network import FusionNet
from pipeline.fusion.tiles import Box, padded_to


def gated_blocks(network: FusionNet) -> list[GatedBlock]:
    """The blocks with gates, from fine to coarse; none in other than intermediate fusion, or with other blocks."""
    return [block for block in network.fusions if isinstance(block, GatedBlock)]


def tile_gates(network: FusionNet, tiles: Tensor, available: Tensor) -> Tensor:
    """The mean over the levels of the gates, each interpolated linearly to the tile's grid.

    Args:
        network: with gates.
        tiles: (B, M, I, J, K).
        available: (B, M).

    Returns:
        (B, M, I, J, K), at least 0, with the sum 1 over M; 0 for a missing modality.
    """
    kept: list[Tensor] = []

    def keep(block: GatedBlock, inputs: tuple[Tensor, Tensor]) -> None:
        features, there = inputs
        kept.append(block.weights(masked(features, there), there)[:, :, 0])

    handles = [block.register_forward_pre_hook(keep) for block in gated_blocks(network)]
    try:
        network.class_logits(tiles, available)
    finally:
        for handle in handles:
            handle.remove()
    size = list(tiles.shape[2:])
    levels = [functional.interpolate(gates.float(), size, mode="trilinear", align_corners=False) for gates in kept]
    return torch.stack(levels).mean(0)


@torch.inference_mode()
def gate_maps(explained: ExplainedCase) -> Tensor:
    """The gates of the whole image, put together from all tiles as its logits are.

    Returns:
        (M, I, J, K): where a tile lies, the sum over M is 1; elsewhere, outside the body, 0.
    """
    weight = compute_importance_map(
        explained.inferer.patch, mode="gaussian", sigma_scale=0.125, device=explained.image.device
    )
    padded, count = padded_to(explained.image, explained.inferer.patch), len(explained.image)

    def parts() -> Iterator[tuple[Box, Tensor]]:
        for box in explained.found.boxes:
            gates = tile_gates(explained.network, padded[(slice(None), *box)][None], explained.available[None])[0]
            yield box, torch.cat([gates, torch.ones_like(gates[:1])]) * weight

    total = explained.assembled(parts(), count + 1)
    return total[:count] / total[count:].clamp(min=torch.finfo(torch.float32).tiny)
