"""The image fusion network: it mixes candidates at each voxel, and says how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.image_fusion.candidates import CANDIDATES, candidates
from pipeline.image_fusion.encoders import build_encoder

#: Reduction of the channel attention's bottleneck. Source: Hu, Shen and Sun, CVPR 2018, table 10.
SQUEEZE = 4
#: Side of the spatial attention's kernel. Source: Woo et al., CBAM, ECCV 2018, section 4.1.
SPATIAL_KERNEL = 7
#: No level of the decoder is wider.
WIDEST = 64


class Parts(NamedTuple):
    """What the network says.

    Attributes:
        fused: the picture (B, 1, …), 0 to 1.
        weights: of the candidates, in their order (B, 5, …): 0 to 1, with the sum 1.
        residual: what was added to their sum (B, 1, …).
        attention: of the scales, from fine to coarse (B, levels, …), each on the image's grid, 0 to 1.
    """

    fused: Tensor
    weights: Tensor
    residual: Tensor
    attention: Tensor


class ImageFusionNet(nn.Module):
    """One picture of CT and MR.

    An encoder a modality; at each scale channel and spatial attention over the features of both; a U-Net decoder with
    skips, the last of them at full resolution. What it gives is a mean of candidates (`candidates`), weighted at each
    voxel, plus a residual that is no larger than a part of the larger source: black stays black. Before it has learned,
    the weights are the same everywhere and there is no residual.

    Args:
        spatial_dims: 2 or 3.
        encoder: `small`, `resnet34` or `efficientnet_lite0`.
        levels: scales with attention, 2 to 4.
        windows: channels of the CT; the first is the one that is fused, the others are looked at.
        residual: the largest residual, as a part of the larger source; 0 for none.
        start: how much more than another the a-trous candidate counts at the start, as a logit.

    Raises:
        UsageError: E_CONFIG for an argument that makes no network.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        encoder: str = "small",
        levels: int = 4,
        windows: int = 3,
        residual: float = 0.05,
        start: float = 1.0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if windows < 1 or not 0 <= residual <= 1:
            raise UsageError(
                "E_CONFIG", f"Expected a window or more and a residual of 0 to 1, got {windows} and {residual:g}."
            )
        #: The arguments as JSON: what a checkpoint keeps of the network's architecture.
        self.definition = json.dumps(given)
        self.spatial_dims, self.windows, self.most_residual = spatial_dims, windows, residual
        #: Channels of what `forward` gives.
        self.outputs = 1 + len(CANDIDATES) + 1 + levels
        inputs = (windows, 1)
        self.encoders = nn.ModuleList(build_encoder(encoder, spatial_dims, count, levels) for count in inputs)
        first = self.encoders[0]
        channels: list[int] = first.channels  # type: ignore[assignment]
        self.stride = int(first.strides[-1])  # type: ignore[index]
        widths = [min(count, WIDEST) for count in channels]
        plain = len(channels) - levels
        self.mixes = nn.ModuleList(
            Attention(spatial_dims, 2 * count, width, level >= plain)
            for level, (count, width) in enumerate(zip(channels, widths, strict=True))
        )
        self.ups = nn.ModuleList(
            Joined(spatial_dims, widths[level + 1], widths[level], widths[level])
            for level in range(len(widths) - 2, -1, -1)
        )
        self.full = _block(spatial_dims, windows + 1 + len(CANDIDATES), widths[0])
        self.last = Joined(spatial_dims, widths[0], widths[0], widths[0])
        self.head = Conv[Conv.CONV, spatial_dims](widths[0], len(CANDIDATES) + 1, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.bias[CANDIDATES.index("atrous")] = start

    def forward(self, image: Tensor) -> Tensor:
        """Everything as channels of one tensor, so that any inferer can use the network.

        Args:
            image: (B, windows + 1, …), 0 to 1: the CT's windows, the first of which is fused, and MR. Sides may be any.

        Returns:
            (B, 1 + 5 + 1 + levels, …): fused, weights, residual, attention, as in `Parts`.
        """
        parts = self.parts(image)
        return torch.cat([parts.fused, parts.weights, parts.residual, parts.attention], 1)

    @torch.jit.export
    def parts(self, image: Tensor) -> Parts:
        """What is said, named; arguments as in `forward`."""
        ct, mr = image[:, :1], image[:, -1:]
        mixed = candidates(ct, mr)
        padded = self._padded(torch.cat([image, mixed], 1))
        features, attention = self._mixed(padded[:, : self.windows + 1])
        decoded = features[-1]
        level = len(features) - 1
        for up in self.ups:
            level -= 1
            decoded = up(decoded, features[level])
        full = self.full(padded)
        last = self.last(decoded, full)
        # features of one length: else they grow until one candidate is chosen everywhere, and no gradient is left
        last = last * torch.rsqrt((last * last).mean(1, keepdim=True) + 1e-4)
        said = _cut(self.head(last), image)
        weights = torch.softmax(said[:, :-1], 1)
        residual = self.most_residual * torch.tanh(said[:, -1:]) * torch.maximum(ct, mr)
        fused = ((weights * mixed).sum(1, keepdim=True) + residual).clamp(0.0, 1.0)
        maps = torch.cat([onto(level_map, full) for level_map in attention], 1)
        return Parts(fused, weights, residual, _cut(maps, image))

    def _mixed(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The features of both modalities on every level, and the spatial attention of those that have one."""
        streams: list[list[Tensor]] = []
        for number, encoder in enumerate(self.encoders):
            streams.append(encoder(image[:, -1:] if number else image[:, :-1]))
        features: list[Tensor] = []
        attention: list[Tensor] = []
        for number, mix in enumerate(self.mixes):
            found, places = mix(torch.cat([streams[0][number], streams[1][number]], 1))
            features.append(found)
            if mix.attends:
                attention.append(places)
        return features, attention

    def _padded(self, image: Tensor) -> Tensor:
        """The image with its last values repeated, until every side is a multiple of the encoder's stride."""
        pads: list[int] = []
        for axis in range(image.ndim - 1, 1, -1):
            pads.append(0)
            pads.append(-image.shape[axis] % self.stride)
        return functional.pad(image, pads, mode="replicate")

    @torch.jit.ignore
    def require_patch(self, patch: Sequence[int]) -> None:
        """Raise E_CONFIG unless a patch has a side for each axis, each of them the encoder's stride or more."""
        if len(patch) != self.spatial_dims or min(patch) < self.stride:
            what = f"Expected a patch of {self.spatial_dims} sides of {self.stride} or more, got {list(patch)}."
            raise UsageError("E_CONFIG", what)


class Attention(nn.Module):
    """Weigh channels, then places (CBAM), and mix them to fewer.

    Args:
        spatial_dims: 2 or 3.
        inputs: channels of both modalities together.
        outputs: channels of the result.
        attends: False mixes alone; the attention is then 1 everywhere.

    Source: Woo et al., CBAM: Convolutional block attention module, ECCV 2018, equations 2 and 3.
    """

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, attends: bool = True) -> None:
        super().__init__()
        self.attends = attends
        conv, hidden = Conv[Conv.CONV, spatial_dims], max(1, inputs // SQUEEZE)
        self.channel = nn.Sequential()
        self.spatial = nn.Sequential()
        if attends:
            self.channel = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, inputs))
            self.spatial = nn.Sequential(conv(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2))
        self.mix = nn.Sequential(conv(inputs, outputs, 1), nn.LeakyReLU(0.1, inplace=True))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, inputs, …) -> (B, outputs, …), and the attention of places (B, 1, …)."""
        places = torch.ones_like(features[:, :1])
        if self.attends:
            flat = features.flatten(2)
            weights = torch.sigmoid(self.channel(flat.mean(2)) + self.channel(flat.amax(2)))
            for _ in range(features.ndim - 2):
                weights = weights.unsqueeze(-1)
            features = features * weights
            summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
            places = torch.sigmoid(self.spatial(summary))
        return self.mix(features * places), places


def _block(spatial_dims: int, inputs: int, outputs: int) -> nn.Sequential:
    """A convolution of 3 voxels a side, and its activation."""
    layer = Conv[Conv.CONV, spatial_dims](inputs, outputs, 3, padding=1)
    return nn.Sequential(layer, nn.LeakyReLU(0.1, inplace=True))


class Joined(nn.Sequential):
    """A block over the features of a coarser level, brought onto the grid of a finer one, and over that one's.

    Args:
        spatial_dims: 2 or 3.
        coarse: channels of the coarser level.
        fine: channels of the finer one.
        outputs: channels of the result.
    """

    def __init__(self, spatial_dims: int, coarse: int, fine: int, outputs: int) -> None:
        super().__init__(*_block(spatial_dims, coarse + fine, outputs))
        self.coarse = coarse

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:  # type: ignore[override]
        """Features (B, …) of both levels -> (B, outputs, …) of the finer one."""
        image = torch.cat([onto(coarse, fine), fine], 1)
        for layer in self:
            image = layer(image)
        return image


def onto(coarse: Tensor, fine: Tensor) -> Tensor:
    """A coarse level on the grid of a finer one; nearest neighbours, whose gradients are summed in one order."""
    return functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")


def _cut(image: Tensor, like: Tensor) -> Tensor:
    """Without what was padded."""
    for axis in range(2, like.ndim):
        image = image.narrow(axis, 0, like.shape[axis])
    return image
