"""What every explanation of a case is made of: Grad-CAM, gates and occlusion, tile by tile, as the network looked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from monai.data.utils import compute_importance_map
from monai.visualize import GradCAM, OcclusionSensitivity
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.checkpoint_file import Network
from pipeline.fusion.network import FusionNet
from pipeline.fusion.parts import GatedBlock, masked
from pipeline.fusion.tiles import Box, Tiled, TiledInferer, padded_to, without_padding

#: What the one encoder of early fusion looks at.
TOGETHER = "together"


@dataclass(frozen=True)
class ExplainedCase:
    """A network, a case, and what the one says of the other.

    Attributes:
        network: on the image's device, evaluating.
        image: (M, I, J, K), zeros where a modality is missing.
        available: (M,) bool.
        inside: (I, J, K) bool, True in the body.
        found: of all tiles.
        table: (1, features), where the network was made for a table and the case has one.
    """

    network: FusionNet
    inferer: TiledInferer
    image: Tensor
    available: Tensor
    inside: Tensor
    found: Tiled
    table: Tensor | None = None

    def logits(self) -> Tensor:
        """The class logits of the case (classes,)."""
        return self.inferer.pooled(self.found)

    def class_logits(self, tiles: Tensor) -> Tensor:
        """The class logits (B, classes) of tiles (B, M, …) of this case."""
        there = self.available[None].expand(len(tiles), -1)
        table = None if self.table is None else self.table.expand(len(tiles), -1)
        return self.network.class_logits(tiles, there, table)

    def counted(self) -> list[tuple[int, float]]:
        """Number and share of the tiles that make the class, largest share first.

        With `top_k` these are all that count; with `attention` the `top_k` that count most.
        """
        shares = self.inferer.shares(self.found)
        best = shares.topk(min(self.inferer.top_k, len(shares))).indices.tolist()
        return [(number, float(shares[number])) for number in best if shares[number] > 0]

    def tiles(self, image: Tensor) -> Iterator[tuple[int, float, Box, Tensor]]:
        """Number, share, place and content (1, C, tile) of the tiles of an image (C, I, J, K) that make the class."""
        padded = padded_to(image, self.inferer.patch)
        for number, share in self.counted():
            box = self.found.boxes[number]
            yield number, share, box, padded[(slice(None), *box)][None]

    def assembled(self, parts: Iterable[tuple[Box, Tensor]], channels: int) -> Tensor:
        """The sum of tiles (channels, tile), each at its place: (channels, I, J, K)."""
        shape = self.image.shape[1:]
        total = padded_to(torch.zeros((channels, *shape), device=self.image.device), self.inferer.patch)
        for box, part in parts:
            total[(slice(None), *box)] += part
        return without_padding(total, shape)


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


def streams_of(network: Network) -> tuple[str, ...]:
    """What each encoder looks at: a modality, or `together` where one sees all."""
    if network.mode == "single":
        return (network.modalities[network.only],)
    return (TOGETHER,) if network.mode == "early" else tuple(network.modalities)


def log_odds_direction(logits: Tensor, chosen: int) -> Tensor:
    """How the log-odds of a class against all others change with each logit (classes,): the gradient (classes,)."""
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


def check_level(count: int, level: int) -> None:
    """Raise E_EXPLAIN unless encoders of so many levels have one."""
    if not -count <= level < count:
        there = f"0 to {count - 1}, or -1 for the coarsest"
        raise UsageError("E_EXPLAIN", f"Expected a level of the encoders as gradcam_level ({there}), got {level}.")


def _layers(network: FusionNet, level: int) -> list[str]:
    """The module of each encoder, below it, that gives a level's features."""
    encoders: list[Any] = list(network.encoders)
    check_level(len(encoders[0].layers), level)
    return [encoder.layers[level] for encoder in encoders]


def gated_blocks(network: FusionNet) -> list[GatedBlock]:
    """The blocks with gates, from fine to coarse; none in other than intermediate fusion, or with other blocks."""
    return [block for block in network.fusions if isinstance(block, GatedBlock)]


def tile_gates(network: FusionNet, tiles: Tensor, available: Tensor) -> Tensor:
    """The mean over the levels of the gates, each interpolated linearly to the grid of the tiles (B, M, I, J, K).

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


def logits_without(explained: ExplainedCase) -> dict[str, Tensor]:
    """The class logits (classes,) of the case without each modality that is there, as if it had never been taken.

    All tiles are looked at again, so other tiles may make the class. With one modality alone there is nothing to take
    away, and nothing is given.
    """
    found: dict[str, Tensor] = {}
    if int(explained.available.sum()) < 2:
        return found
    for number, name in enumerate(explained.network.modalities):
        if bool(explained.available[number]):
            available = explained.available.clone()
            available[number] = False
            tiles = explained.inferer.tiles(
                explained.image, explained.network, available, explained.inside, explained.table
            )
            found[name] = replace(explained, available=available, found=tiles).logits()
    return found


class _FromBaseline(nn.Module):
    """The class logits of a baseline to which something is added: MONAI occludes with one number, here with 0."""

    def __init__(self, explained: ExplainedCase, baseline: Tensor) -> None:
        super().__init__()
        self.explained, self.baseline = explained, baseline

    def forward(self, difference: Tensor) -> Tensor:
        return self.explained.class_logits(self.baseline + difference)


def baseline_of(explained: ExplainedCase) -> Tensor:
    """The image (M, I, J, K) with the mean of each modality's body in the body: what is put where it is occluded."""
    means = explained.image[:, explained.inside].mean(1)
    return torch.where(explained.inside, means[:, None, None, None], explained.image)


def occluded_logits(explained: ExplainedCase, parts: int = 4) -> Tensor:
    """The class logits (classes, I, J, K) when a block around each voxel shows the body's mean in every modality.

    The tiles that make the class are occluded block by block (`monai.visualize.OcclusionSensitivity`), with `parts`
    blocks along each side; their shares in the class are held. A block of air changes nothing.
    """
    block = [max(1, side // parts) for side in explained.inferer.patch]
    baselines = {number: tile for number, _, _, tile in explained.tiles(baseline_of(explained))}

    @torch.inference_mode()
    def changes() -> Iterator[tuple[Box, Tensor]]:
        for number, share, box, tile in explained.tiles(explained.image):
            network = _FromBaseline(explained, baselines[number])
            occlusion = OcclusionSensitivity(
                network, block, explained.inferer.batch, verbose=False, mode=0.0, overlap=0.0, activate=False
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # MONAI's own indexing
                occluded = occlusion(tile - baselines[number])[0][0]
            whole = explained.class_logits(tile)[0]
            yield box, share * (occluded - whole[:, None, None, None])

    logits = explained.logits()
    return logits[:, None, None, None] + explained.assembled(changes(), len(logits))
