"""Training of the image fusion network: what a step is given, what the network answers, what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.metrics import Metric, MetricsLambda
from torch import Tensor, nn

from pipeline.console import echo
from pipeline.image_fusion.losses import Answer, ImageFusionLoss, consistency
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.learning.checkpoint_file import read_checkpoint, restore
from pipeline.learning.training import shared
from pipeline.learning.transfer import load_given


class Answering(nn.Module):
    """The network with what the loss asks for as its answer.

    Args:
        network: that learns.
        consistent: whether the features of the fused picture are asked for; else their distance is 0.
    """

    def __init__(self, network: ImageFusionNet, consistent: bool = True) -> None:
        super().__init__()
        self.network, self.consistent = network, consistent

    def forward(self, image: Tensor) -> Answer:
        """Argument as that of `ImageFusionNet.forward`."""
        fused = self.network.parts(image).fused
        if not self.consistent:
            return Answer(fused, fused.new_zeros(()))
        return Answer(fused, consistency(self.network.encoders, fused, sources_of(image)))


def learner(
    network: ImageFusionNet,
    loss: ImageFusionLoss,
    device: str | torch.device,
    weights: str = "",
    encoder_weights: str = "",
    encoder_sha256: str = "",
) -> nn.Module:
    """Bring a network to its device, from where it starts.

    Args:
        network: that learns.
        loss: by which it learns.
        device: where.
        weights: a checkpoint of the first phase, from which all of it starts.
        encoder_weights: a local file from which both encoders start, or `pretrained`: colour stems become sums
            (`load_given`).
        encoder_sha256: that file's expected hash; not asked when empty.

    Raises:
        UsageError: E_WEIGHTS, E_EXTRA, E_CHECKPOINT.
    """
    if encoder_weights:
        for encoder in network.encoders:
            done = load_given(encoder, encoder_weights, encoder_sha256)
        echo(f"{len(done.loaded)} tensors of each encoder taken over, {len(done.missing)} start anew.")
    if weights:
        restore(network, read_checkpoint(weights))
    if network.spatial_dims == 2:  # convolutions of few channels take half the time on processors
        network.to(memory_format=torch.channels_last)
    return shared(Answering(network, loss.weights["consistency"] > 0).to(device))


def sources_of(image: Tensor) -> Tensor:
    """What is fused (B, 2, …) of what the network is given: the first window, and the other modality."""
    return torch.cat([image[:, :1], image[:, -1:]], 1)


def prepare_batch(
    batch: Mapping[str, Any], device: str | torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor]:
    """What MONAI's engines give to the network, and to the loss."""
    image = torch.as_tensor(batch["image"]).to(device, non_blocking=non_blocking)
    return image, sources_of(image)


class MeanTerms(Metric):
    """The mean of each term of the loss over the batches of a validation, under the term's name."""

    def __init__(self, loss: ImageFusionLoss) -> None:
        self.loss = loss
        super().__init__(output_transform=lambda output: (output["pred"], output["label"]))

    def reset(self) -> None:
        """Forget what was seen."""
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def update(self, output: tuple[Answer, Tensor]) -> None:
        """See a batch."""
        for name, term in self.loss.terms(*output).items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + term.detach().cpu().double()
        self.count += 1

    def compute(self) -> dict[str, float]:
        """Term -> mean."""
        return {name: float(total) / max(1, self.count) for name, total in self.sums.items()}


class TotalOfTerms(MetricsLambda):
    """The loss, of the terms that were measured: they are counted once for both."""

    def __init__(self, terms: MeanTerms) -> None:
        weights = terms.loss.weights
        super().__init__(lambda found: sum(weights[name] * value for name, value in found.items()), terms)
