"""The parts of the fusion network: encoders, blocks that make one of the features of several modalities, heads.

An encoder says how many channels a level has (`channels`) and which of its modules gives it (`layers`). A block takes
the features of all modalities, stacked, and which of them are there. What is not there has no influence on the result,
whatever its features hold.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import ChannelSELayer, UnetUpBlock
from monai.networks.nets.resnet import ResNetFeatures
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.learning.encoders import UnetEncoder, instance_norm

RESNETS = ("resnet10", "resnet18", "resnet34")
#: Of MONAI's (and MedicalNet's) ResNets without bottleneck, from the stem to the last stage.
RESNET_CHANNELS = (64, 64, 128, 256, 512)


class ResNetEncoder(nn.Module):
    """MONAI's 3D ResNet, whose weights may be MedicalNet's (from a local file: `load_encoder`).

    Args:
        in_channels: of the image.
        name: one of `RESNETS`.

    Raises:
        UsageError: E_CONFIG for another name.

    Source: Chen, Ma and Zheng, Med3D: Transfer learning for 3D medical image analysis, arXiv 1904.00625.
    """

    def __init__(self, in_channels: int, name: str = "resnet10") -> None:
        super().__init__()
        if name not in RESNETS:
            raise UsageError("E_CONFIG", f"Expected one of {', '.join(RESNETS)} as the encoder, got {name}.")
        self.channels = list(RESNET_CHANNELS)
        self.first_stride = 2
        self.layers = ["net.act", *(f"net.layer{stage}" for stage in range(1, 5))]
        self.net = ResNetFeatures(name, pretrained=False, spatial_dims=3, in_channels=in_channels)
        del self.net.avgpool, self.net.fc  # of the classifier, which is not asked for

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode (B, C, I, J, K), each side a multiple of 32; the first level is already half as fine as the image."""
        features: list[Tensor] = self.net(image)
        return features


def build_encoder(encoder: str, in_channels: int, width: int, levels: int) -> UnetEncoder | ResNetEncoder:
    """Make an encoder by its name: `unet`, or one of `RESNETS` (whose width and levels are given)."""
    if encoder == "unet":
        return UnetEncoder(3, in_channels, width, levels)
    return ResNetEncoder(in_channels, encoder)


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
        return torch.softmax(scores.masked_fill(~widened(available, scores), float("-inf")), 1)

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
    return torch.where(widened(available, features), features, torch.zeros_like(features))


def widened(available: Tensor, like: Tensor) -> Tensor:
    """What (B, M) holds, with as many dimensions as other tensors (B, M, …)."""
    while available.ndim < like.ndim:
        available = available.unsqueeze(-1)
    return available


def _mix(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, bias=False), nn.GroupNorm(outputs, outputs), nn.LeakyReLU(0.01))


class VoxelHead(nn.Module):
    """A U-Net decoder with a logit map for every label; coarser maps beside it for deep supervision.

    Args:
        channels: of the features on each level, from fine to coarse.
        labels: how many logits a voxel has.
        first_stride: how much coarser than the image the finest level is.
        deep: how many coarser maps are made too.
    """

    def __init__(self, channels: list[int], labels: int, first_stride: int = 1, deep: int = 0) -> None:
        super().__init__()
        steps = list(range(len(channels) - 2, -1, -1))
        self.ups = nn.ModuleList(
            [UnetUpBlock(3, channels[s + 1], channels[s], 3, 1, 2, instance_norm(channels[s])) for s in steps]
        )
        self.maps = nn.ModuleList([nn.Conv3d(channels[s], labels, 1) for s in steps if s <= deep])
        self.first_map = len(steps) - len(self.maps)
        self.first_stride = first_stride

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decode.

        Args:
            features: from fine to coarse, each (B, channels, …).

        Returns:
            Logits (B, labels, I, J, K) on the image's grid, then the coarser maps, each on its level's grid.
        """
        level = len(features) - 1
        decoded = features[level]
        inner: list[Tensor] = []
        for up in self.ups:
            level -= 1
            decoded = up(decoded, features[level])
            inner.append(decoded)
        result: list[Tensor] = []
        for number, head in enumerate(self.maps):
            result.insert(0, head(inner[self.first_map + number]))
        if self.first_stride > 1:
            result[0] = functional.interpolate(
                result[0], scale_factor=float(self.first_stride), mode="trilinear", align_corners=False
            )
        return result


class VectorHead(nn.Module):
    """One row of numbers a case, and a table of features of the case, to class logits.

    Args:
        inputs: numbers of a row.
        classes: how many logits.
        table_features: how many numbers of a table come with each case; 0 for none. They should be standardised; NaN
            means that one is missing.
        dropout: of the row.
    """

    def __init__(self, inputs: int, classes: int, table_features: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = min(32, 4 * table_features)
        self.table = nn.Sequential(nn.Linear(max(1, 2 * table_features), max(1, hidden)), nn.LeakyReLU(0.01))
        self.table_features = table_features
        if table_features == 0:
            self.table = nn.Sequential()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(inputs + hidden, classes)

    def forward(self, row: Tensor, table: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            row: (B, inputs).
            table: (B, table_features), where the head was made for a table.

        Returns:
            (B, classes).
        """
        return self.said([row], table)

    def said(self, parts: list[Tensor], table: Tensor | None) -> Tensor:
        """Of a row in parts, each (B, …)."""
        if self.table_features > 0:
            if table is None:
                table = torch.full((parts[0].shape[0], self.table_features), float("nan"), device=parts[0].device)
            missing = torch.isnan(table)
            known = torch.where(missing, torch.zeros_like(table), table)
            parts = parts + [self.table(torch.cat([known, missing.to(known.dtype)], 1))]  # noqa: RUF005 - TorchScript
        return self.out(self.dropout(torch.cat(parts, 1)))


class ClassHead(VectorHead):
    """Mean and largest value of every channel on every level, and a table of features of the case, to class logits.

    Every level, because what two modalities say together may be visible in fine texture alone.

    Args:
        channels: of the features on each level.
        classes: how many logits.
        table_features: as in `VectorHead`.
        dropout: of the pooled features.
    """

    def __init__(self, channels: list[int], classes: int, table_features: int = 0, dropout: float = 0.1) -> None:
        super().__init__(2 * sum(channels), classes, table_features, dropout)

    def forward(self, features: list[Tensor], table: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Classify.

        Args:
            features: of every level, each (B, channels, …).
            table: (B, table_features), where the head was made for a table.

        Returns:
            (B, classes).
        """
        return self.said(
            [level.mean((2, 3, 4)) for level in features] + [level.amax((2, 3, 4)) for level in features], table
        )
