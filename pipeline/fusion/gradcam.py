"""Which places of each modality speak for the class: Grad-CAM of every encoder, with the gradient of each place."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from monai.visualize import GradCAM
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.explained_case import ExplainedCase
from pipeline.fusion.network import FusionNet
from pipeline.fusion.tiles import Box

#: What the one encoder of early fusion looks at.
TOGETHER = "together"


class PlaceGradCAM(GradCAM):
    """MONAI's `GradCAM` of several layers at once, with the gradient of each place instead of its mean over places.

    The mean is what Grad-CAM weighs channels by. It says nothing before an instance normalisation, which takes away
    whatever is added to all places of a channel: there the mean is 0, whatever the network has learned. Where the
    gradient is the same at all places, as before a global mean, both are the same.

    Source: HiResCAM: Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
        neural networks, arXiv 2011.08891, equation 6.
    """

    def compute_map(  # type: ignore[no-untyped-def]
        self, x: Tensor, class_idx: int | None = None, retain_graph: bool = False, layer_idx: int = -1, **kwargs
    ) -> Tensor:
        """A channel (B, layers, …) for each target layer, all of one shape; `layer_idx` is not looked at."""
        _, features, gradients = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **kwargs)
        maps = [(one * slope).sum(1, keepdim=True) for one, slope in zip(features, gradients, strict=True)]
        return torch.relu(torch.cat(maps, 1)).detach()


class _ClassScore(nn.Module):
    """A weighted sum of the class logits: (B, 1)."""

    def __init__(self, network: FusionNet, direction: Tensor) -> None:
        super().__init__()
        self.network, self.direction = network, direction

    def forward(self, image: Tensor, available: Tensor, table: Tensor | None = None) -> Tensor:
        return (self.network.class_logits(image, available, table) * self.direction).sum(1, keepdim=True)


def streams_of(network: FusionNet) -> tuple[str, ...]:
    """What each encoder looks at: a modality, or `together` where one sees all."""
    if network.mode == "single":
        return (network.modalities[network.only],)
    return (TOGETHER,) if network.mode == "early" else tuple(network.modalities)


def log_odds_direction(logits: Tensor, chosen: int) -> Tensor:
    """How the log-odds of a class against all others change with each logit: the gradient (classes,).

    Args:
        logits: (classes,).
        chosen: the class.
    """
    others = torch.ones_like(logits, dtype=torch.bool)
    others[chosen] = False
    direction = torch.ones_like(logits)
    direction[others] = -torch.softmax(logits[others], 0)
    return direction


def gradcam_maps(explained: ExplainedCase, chosen: int, level: int = 0) -> Tensor:
    """What each place of each stream adds to the log-odds of a class, where it adds something.

    Of the tiles that make the class of the case, each with the share that it has in it; tiles that overlap add up.

    Args:
        explained: the case, as the network has seen it.
        chosen: the class.
        level: of the encoders: 0 is the finest, through which all that the class head sees has come; -1 the coarsest,
            which misses what the head takes from finer ones.

    Returns:
        (streams, I, J, K) of `streams_of`, at least 0: feature times gradient, to first order a contribution to the
        log-odds, for each place of the level's grid, linear between them. 0 where no counted tile lies, and for a
        missing modality.

    Raises:
        UsageError: E_EXPLAIN for a level that there is not.
    """
    layers = [f"network.encoders.{number}.{name}" for number, name in enumerate(_layers(explained.network, level))]
    # A copy, because MONAI's hooks stay on the network for good.
    network = deepcopy(explained.network).requires_grad_(True)
    score = _ClassScore(network, log_odds_direction(explained.logits(), chosen))
    cam = PlaceGradCAM(score, layers, postprocessing=nn.Identity())
    more: dict[str, Any] = {"available": explained.available[None], "table": explained.table}

    def parts() -> Iterator[tuple[Box, Tensor]]:
        with torch.enable_grad():
            for _, share, box, tile in explained.tiles(explained.image):
                yield box, share * cam(tile.clone().requires_grad_(True), class_idx=0, **more)[0]

    return explained.assembled(parts(), len(layers))


def check_level(network: FusionNet, level: int) -> None:
    """See that the encoders have a level.

    Raises:
        UsageError: E_EXPLAIN.
    """
    count = len(network.encoders[0].layers)  # type: ignore[arg-type]
    if not -count <= level < count:
        there = f"0 to {count - 1}, or -1 for the coarsest"
        raise UsageError("E_EXPLAIN", f"Expected a level of the encoders as gradcam_level ({there}), got {level}.")


def _layers(network: FusionNet, level: int) -> list[str]:
    """The module of each encoder, below it, that gives a level's features."""
    check_level(network, level)
    return [encoder.layers[level] for encoder in network.encoders]  # type: ignore[index, misc]
