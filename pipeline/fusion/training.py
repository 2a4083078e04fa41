"""Training of the fusion network: what a step is given, and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional

from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.fusion.checkpoint_file import Network
from pipeline.fusion.network import Heads
from pipeline.fusion.stream_net import StreamNet
from pipeline.learning.table import UNKNOWN
from pipeline.learning.training import shared
from pipeline.learning.transfer import layer_wise_rates, load_given

TARGETS = ("label", "mask", "mask_known", "available")


class AllHeads(nn.Module):
    """The network with what every head says as its answer, which the loss asks for.

    Args:
        network: of either kind.
        of_features: whether it is given what its encoders say (`StreamNet.features`), which do not learn, not images.
    """

    def __init__(self, network: Network, of_features: bool = False) -> None:
        super().__init__()
        self.network, self.of_features = network, of_features

    def forward(self, image: Tensor, available: Tensor, table: Tensor | None = None) -> Heads:
        """Arguments as in the network's `heads`."""
        if self.of_features and isinstance(self.network, StreamNet):
            return self.network.heads_of_features(image, available, table)
        return self.network.heads(image, available, table)


def learner(
    network: Network,
    device: str | torch.device,
    encoder_weights: Mapping[str, str] | None = None,
    encoder_sha256: Mapping[str, str] | None = None,
    of_features: bool = False,
) -> nn.Module:
    """Bring a network to its device, and to the other processes where there are any.

    With `encoder_weights` (modality -> local checkpoint, or `pretrained`) encoders start from those (`load_given`);
    `all` names the one encoder of early and single fusion. `encoder_sha256` (modality -> hash) is what files must have.
    `of_features` as in `AllHeads`.

    Raises:
        UsageError: E_WEIGHTS; E_EXTRA; E_MODALITY when no encoder has that name; E_CONFIG for a hash of no file.
    """
    given, hashes = dict(encoder_weights or {}), dict(encoder_sha256 or {})
    strange = sorted(hashes.keys() - given.keys())
    if strange:
        raise UsageError("E_CONFIG", f"Expected encoder_weights of {strange[0]} beside its encoder_sha256, got none.")
    for name, path in given.items():
        done = load_given(network.encoder_of(name), path, hashes.get(name, ""))
        echo(f"{name}: {len(done.loaded)} tensors taken over, {len(done.missing)} start anew.")
    return shared(AllHeads(network, of_features).to(device))


def parameter_groups(network: Network, rate: float, decay: float = 1.0) -> list[dict[str, Any]]:
    """What an optimiser learns: all at one rate, or earlier stages of the encoders slower (`layer_wise_rates`)."""
    others = [child for name, child in network.named_children() if name != "encoders"]
    return layer_wise_rates(network.encoders, others, rate, decay)


def prepare_batch(
    batch: Mapping[str, Any], device: str | torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor], dict[str, Any]]:
    """What MONAI's engines give to the network (image; availability and table) and to the loss (targets)."""
    there = [key for key in (*TARGETS, "image", "table") if key in batch]  # streams have no mask
    moved = {key: batch[key].to(device, non_blocking=non_blocking) for key in there}
    targets = {key: moved[key] for key in TARGETS if key in moved}
    return moved["image"], targets, (moved["available"], moved["table"]), {}


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
            targets: `label` (B,), -1 where it is unknown; `available` (B, M); where the network says something of
                voxels, `mask` (B, 1, I, J, K) and `mask_known` (B,).

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
