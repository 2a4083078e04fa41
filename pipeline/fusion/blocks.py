"""How features of several modalities become one: five blocks with one signature.

A block takes the features of all modalities, stacked, and which of them are there. What is not there has no influence
on the result, whatever its features hold.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import ChannelSELayer
from torch import Tensor, nn

#: Reduction of the squeeze-and-excitation bottleneck. Source: Hu, Shen and Sun, CVPR 2018, table 10.
SQUEEZE = 4
#: Side of the spatial attention's kernel. Source: Woo et al., CBAM, ECCV 2018, section 4.1.
SPATIAL_KERNEL = 7


class ConcatBlock(nn.Module):
    """Concatenate the modalities and mix them by one 1 x 1 x 1 convolution.

    Args:
        modalities: how many there are.
        channels: of each modality's features, and of the result.
    """

    def __init__(self, modalities: int, channels: int) -> None:
        super().__init__()
        self.mix = _mix(modalities * channels, channels)

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """Fuse.

        Args:
            features: (B, M, C, I, J, K).
            available: (B, M), True where a modality is there.

        Returns:
            (B, C, I, J, K).
        """
        return self.mix(masked(features, available).flatten(1, 2))


class SqueezeBlock(nn.Module):
    """Concatenate, weigh the channels by squeeze and excitation, mix. Arguments as in `ConcatBlock`."""

    def __init__(self, modalities: int, channels: int) -> None:
        super().__init__()
        self.squeeze = ChannelSELayer(3, modalities * channels, r=SQUEEZE)
        self.mix = _mix(modalities * channels, channels)

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """Fuse; arguments and result as in `ConcatBlock.forward`."""
        return self.mix(self.squeeze(masked(features, available).flatten(1, 2)))


class AttentionBlock(nn.Module):
    """Concatenate, weigh channels, then places (CBAM), mix. Arguments as in `ConcatBlock`.

    Source: Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, equations 2 and 3.
    """

    def __init__(self, modalities: int, channels: int) -> None:
        super().__init__()
        joined = modalities * channels
        self.channel = nn.Sequential(
            nn.Linear(joined, max(1, joined // SQUEEZE)), nn.ReLU(), nn.Linear(max(1, joined // SQUEEZE), joined)
        )
        self.spatial = nn.Conv3d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2)
        self.mix = _mix(joined, channels)

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """Fuse; arguments and result as in `ConcatBlock.forward`."""
        joined = masked(features, available).flatten(1, 2)
        weights = torch.sigmoid(self.channel(joined.mean((2, 3, 4))) + self.channel(joined.amax((2, 3, 4))))
        joined = joined * weights[:, :, None, None, None]
        places = torch.cat([joined.mean(1, keepdim=True), joined.amax(1, keepdim=True)], 1)
        return self.mix(joined * torch.sigmoid(self.spatial(places)))


class GatedBlock(nn.Module):
    """At each place, weigh the modalities that are there by a softmax, and pass on their mean and their variance.

    The mean says what the modalities agree on, the variance where they differ: a product of two features, which a sum
    alone cannot show, is in it. With one modality the mean is its features and the variance is 0. Arguments as in
    `ConcatBlock`.

    Source: mean and variance of a varying number of modalities: Havaei et al., HeMIS, MICCAI 2016.
    """

    def __init__(self, modalities: int, channels: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList([nn.Conv3d(channels, 1, 1) for _ in range(modalities)])
        self.squeeze = ChannelSELayer(3, 2 * channels, r=SQUEEZE)
        self.mix = _mix(2 * channels, channels)

    def weights(self, features: Tensor, available: Tensor) -> Tensor:
        """How much each modality counts at each place: (B, M, 1, I, J, K), with the sum 1 over M."""
        scores = torch.stack([gate(features[:, m]) for m, gate in enumerate(self.gates)], 1)
        return torch.softmax(scores.masked_fill(~_as_wide(available), float("-inf")), 1)

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """Fuse; arguments and result as in `ConcatBlock.forward`."""
        features = masked(features, available)
        weights = self.weights(features, available)
        mean = _weighted_sum(weights, features)
        variance = _weighted_sum(weights, (features - mean[:, None]) ** 2)
        return self.mix(self.squeeze(torch.cat([mean, variance], 1)))


class CrossAttentionBlock(nn.Module):
    """Let every place of a modality ask all places of the modalities that are there; then mix. For coarse levels only.

    The attention's memory grows with the square of the number of voxels. Arguments as in `ConcatBlock`; `channels` is a
    multiple of `heads`.

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.
    """

    def __init__(self, modalities: int, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.names = nn.Parameter(torch.zeros(modalities, 1, channels))
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mix = _mix(modalities * channels, channels)
        nn.init.normal_(self.names, std=0.02)

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """Fuse; arguments and result as in `ConcatBlock.forward`."""
        batch, modalities, channels, i, j, k = features.shape
        tokens = masked(features, available).flatten(3).permute(0, 1, 3, 2)  # (B, M, places, C)
        named = (self.norm(tokens) + self.names).flatten(1, 2)
        ignored = (~available)[:, :, None].expand(batch, modalities, i * j * k).flatten(1)
        seen = self.attention(named, named, named, key_padding_mask=ignored, need_weights=False)[0]
        tokens = tokens + seen.reshape(batch, modalities, i * j * k, channels)
        fused = tokens.permute(0, 1, 3, 2).reshape(batch, modalities, channels, i, j, k)
        return self.mix(masked(fused, available).flatten(1, 2))


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Over the modalities (dimension 1), one by one: a sum along a dimension of two or three is slow on processors."""
    total = weights[:, 0] * features[:, 0]
    for m in range(1, features.shape[1]):
        total = total + weights[:, m] * features[:, m]
    return total


def masked(features: Tensor, available: Tensor) -> Tensor:
    """Features (B, M, …) with zeros, not NaN or leftovers, where a modality is not there."""
    wide = available
    while wide.ndim < features.ndim:
        wide = wide.unsqueeze(-1)
    return torch.where(wide, features, torch.zeros_like(features))


def _as_wide(available: Tensor) -> Tensor:
    return available[:, :, None, None, None, None]


def _mix(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, bias=False), nn.GroupNorm(outputs, outputs), nn.LeakyReLU(0.01))
