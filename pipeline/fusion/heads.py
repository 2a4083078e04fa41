"""What becomes of fused features: voxel logits by a U-Net decoder, class logits by pooling over every level."""

from __future__ import annotations

import torch
from monai.networks.blocks import UnetUpBlock
from torch import Tensor, nn
from torch.nn import functional

from pipeline.fusion.encoders import instance_norm


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


class ClassHead(nn.Module):
    """Mean and largest value of every channel on every level, and a table of features of the case, to class logits.

    Every level, because what two modalities say together may be visible in fine texture alone.

    Args:
        channels: of the features on each level.
        classes: how many logits.
        table_features: how many numbers of a table come with each case; 0 for none. They should be standardised; NaN
            means that one is missing.
        dropout: of the pooled features.
    """

    def __init__(self, channels: list[int], classes: int, table_features: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = min(32, 4 * table_features)
        self.table = nn.Sequential(nn.Linear(max(1, 2 * table_features), max(1, hidden)), nn.LeakyReLU(0.01))
        self.table_features = table_features
        if table_features == 0:
            self.table = nn.Sequential()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * sum(channels) + hidden, classes)

    def forward(self, features: list[Tensor], table: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            features: of every level, each (B, channels, …).
            table: (B, table_features), where the head was made for a table.

        Returns:
            (B, classes).
        """
        pooled = [level.mean((2, 3, 4)) for level in features] + [level.amax((2, 3, 4)) for level in features]
        if self.table_features > 0:
            if table is None:
                table = torch.full((features[0].shape[0], self.table_features), float("nan"), device=features[0].device)
            missing = torch.isnan(table)
            known = torch.where(missing, torch.zeros_like(table), table)
            pooled.append(self.table(torch.cat([known, missing.to(known.dtype)], 1)))
        return self.out(self.dropout(torch.cat(pooled, 1)))
