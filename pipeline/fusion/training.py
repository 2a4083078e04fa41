"""Training on MONAI's engines: what a step is given, what is kept of each epoch, when it stops, how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.metrics import Average
from torch import Tensor, nn

from pipeline.console import echo, plainly
from pipeline.errors import UsageError
from pipeline.fusion.checkpoints import Checkpoints
from pipeline.fusion.network import FusionNet, Heads
from pipeline.fusion.parallel import shared
from pipeline.fusion.transfer import layer_wise_rates, load_encoder

TARGETS = ("label", "mask", "mask_known", "available")


class AllHeads(nn.Module):
    """The network with what every head says as its answer, which the loss asks for.

    Args:
        network: a `FusionNet`.
    """

    def __init__(self, network: FusionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, available: Tensor, table: Tensor | None = None) -> Heads:
        """Arguments as in `FusionNet.heads`."""
        return self.network.heads(image, available, table)


def learner(
    network: FusionNet, device: str | torch.device, encoder_weights: Mapping[str, str] | None = None
) -> nn.Module:
    """Bring a network to its device, and to the other processes where there are any.

    Args:
        network: to be trained.
        device: where.
        encoder_weights: modality -> local checkpoint from which its encoder starts (`pipeline.fusion.transfer`); of
            early and single fusion, which have one encoder, `all`.

    Raises:
        UsageError: E_WEIGHTS; E_MODALITY when no encoder has that name.
    """
    for name, path in (encoder_weights or {}).items():
        done = load_encoder(network.encoder_of(name), Path(path))
        echo(f"{name}: {len(done.loaded)} tensors taken over, {len(done.missing)} start anew.")
    return shared(AllHeads(network).to(device))


def parameter_groups(network: FusionNet, rate: float, decay: float = 1.0) -> list[dict[str, Any]]:
    """What an optimiser learns: all at one rate, or earlier stages of the encoders slower (`layer_wise_rates`)."""
    others = [child for name, child in network.named_children() if name != "encoders"]
    return layer_wise_rates(network.encoders, others, rate, decay)


def prepare_batch(
    batch: Mapping[str, Any], device: str | torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor], dict[str, Any]]:
    """What MONAI's engines give to the network (image; availability and table) and to the loss (targets)."""
    moved = {key: batch[key].to(device, non_blocking=non_blocking) for key in (*TARGETS, "image", "table")}
    return moved["image"], {key: moved[key] for key in TARGETS}, (moved["available"], moved["table"]), {}


class MeanLoss(Average):
    """The mean loss over the batches of a validation.

    Args:
        loss: see `pipeline.fusion.losses`.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(output_transform=lambda output: float(loss(output["pred"], output["label"])))


class Training:
    """A training as a command of its own; its checkpoints listen after all handlers of the trainer.

    Args:
        trainer: MONAI's `SupervisedTrainer`.
        checkpoints: keeps them, and goes on from the last one.
        resume: go on from the last checkpoint, where there is one.
    """

    def __init__(self, trainer: Any, checkpoints: Checkpoints, resume: bool = False) -> None:
        self.trainer, self.checkpoints, self.resume = trainer, checkpoints, resume
        checkpoints.attach(trainer)

    def run(self) -> None:
        """Train.

        Raises:
            SystemExit: 2 when it cannot go on; the message says why.
        """
        with plainly():
            start = self.checkpoints.restore(self.trainer) if self.resume else 0
            if start < self.trainer.state.max_epochs and not self.checkpoints.is_over:
                self.trainer.run()
            if not self.checkpoints.history:
                epochs = self.trainer.state.max_epochs
                raise UsageError("E_CONFIG", f"Expected max_epochs of one or more, got {epochs}.")
        echo(self.checkpoints.summary())
