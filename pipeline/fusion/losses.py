"""What the fusion network learns from: Dice and cross-entropy of voxels, cross-entropy of the case's class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.network import Heads
from pipeline.fusion.table import UNKNOWN

Targets = Mapping[str, Tensor]


class FusionLoss(nn.Module):
    """The weighted sum of what each head has got wrong.

    Late fusion learns each modality's own network by itself: the loss is their mean over the modalities that are there.

    Args:
        class_weights: of the classes in the cross-entropy; all 1 when empty.
        voxel_share: how much the voxels count.
        class_share: how much the class counts.
        deep_decay: how much a coarser map counts in relation to the one above it.

    Source: deep supervision with halved weights: Isensee et al., nnU-Net, Nature Methods 18, 2021, supplement 4.
    """

    def __init__(
        self,
        class_weights: Sequence[float] = (),
        voxel_share: float = 1.0,
        class_share: float = 1.0,
        deep_decay: float = 0.5,
    ) -> None:
        super().__init__()
        self.class_weights = torch.tensor(class_weights, dtype=torch.float32) if len(class_weights) else None
        self.voxel_share, self.class_share, self.deep_decay = voxel_share, class_share, deep_decay
        self.voxels = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def forward(self, heads: Heads, targets: Targets) -> Tensor:
        """The loss of a batch.

        Args:
            heads: what the network says.
            targets: `label` (B,), -1 where it is unknown; `mask` (B, 1, I, J, K); `mask_known` (B,); `available`
                (B, M).

        Returns:
            A number; 0 where nothing of the batch is known.

        Raises:
            UsageError: E_CONFIG when there are not as many class weights as classes.
        """
        total = heads.voxels.sum() * 0 + heads.classes.sum() * 0
        if heads.voxels.shape[1]:
            total = total + self.voxel_share * self._voxel_loss(heads, targets)
        if heads.classes.shape[1]:
            total = total + self.class_share * self._class_loss(heads, targets)
        return total

    def _voxel_loss(self, heads: Heads, targets: Targets) -> Tensor:
        known, mask = targets["mask_known"], targets["mask"]
        if heads.voxels_each.shape[2]:
            finest = self._each(heads.voxels_each, targets["available"], known, mask)
        else:
            finest = self._one_map(heads.voxels, mask, known)
        weights = [self.deep_decay**level for level in range(1 + len(heads.deep))]
        maps = [finest, *(self._one_map(coarse, mask, known) for coarse in heads.deep)]
        return torch.stack([w * part for w, part in zip(weights, maps, strict=True)]).sum() / sum(weights)

    def _class_loss(self, heads: Heads, targets: Targets) -> Tensor:
        known, label = targets["label"] != UNKNOWN, targets["label"]
        if heads.classes_each.shape[2]:
            return self._each(heads.classes_each, targets["available"], known, label)
        return self._one_class(heads.classes, label, known)

    def _each(self, logits: Tensor, available: Tensor, known: Tensor, truth: Tensor) -> Tensor:
        """The mean over the modalities that some case of the batch has."""
        one = self._one_class if truth.ndim == 1 else self._one_map
        there = [m for m in range(logits.shape[1]) if bool((available[:, m] & known).any())]
        if not there:
            return logits.sum() * 0
        return torch.stack([one(logits[:, m], truth, available[:, m] & known) for m in there]).mean()

    def _one_map(self, logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
        if not bool(known.any()):
            return logits.sum() * 0
        truth = mask[known].to(torch.float32)
        if truth.shape[2:] != logits.shape[2:]:
            truth = functional.interpolate(truth, size=logits.shape[2:], mode="nearest-exact")
        loss: Tensor = self.voxels(logits[known].float(), truth)
        return loss

    def _one_class(self, logits: Tensor, label: Tensor, known: Tensor) -> Tensor:
        if not bool(known.any()):
            return logits.sum() * 0
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        if weights is not None and len(weights) != logits.shape[1]:
            raise UsageError("E_CONFIG", f"Expected {logits.shape[1]} class_weights, got {len(weights)}.")
        return functional.cross_entropy(logits[known].float(), label[known], weights)
