"""The image fusion network in a form that takes a processor less time: the same sums in another order."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.image_fusion.network import Attention, ImageFusionNet, Joined, onto
from pipeline.inference.thin import Layer, Thin, convolved, for_single_tiles, for_thin_layers, rows


def for_processor(network: ImageFusionNet) -> nn.Module:
    """A copy of a network for inference on a processor; what it says is the same to six digits; float32."""
    return for_single_tiles(for_thin_layers(network, {Joined: ThinJoined, Attention: ThinAttention}))


class ThinAttention(nn.Module):
    """What `Attention` gives, with less memory written: features are weighed in place, places after the mixing."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attends, self.channel, self.spatial = attention.attends, attention.channel, attention.spatial
        mix, self.after = attention.mix
        assert isinstance(mix, Layer) and mix.bias is not None  # for mypy
        self.bias = nn.Parameter(mix.bias.detach().reshape(1, -1, *[1] * (mix.weight.ndim - 2)))
        mix.bias = None
        self.mix = mix

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Argument and answer as those of `Attention`; the argument is overwritten."""
        places = torch.ones_like(features[:, :1])
        if self.attends:
            flat = features.flatten(2)
            weights = torch.sigmoid(self.channel(flat.mean(2)) + self.channel(flat.amax(2)))
            flat.mul_(weights[:, :, None])
            summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
            places = torch.sigmoid(self.spatial(summary))
        return self.after(torch.addcmul(self.bias, self.mix(features), places)), places


class ThinJoined(nn.Module):
    """What `Joined` gives: each level is convolved by itself, the coarser one as `Risen`.

    Args:
        joined: the block.
    """

    def __init__(self, joined: Joined) -> None:
        super().__init__()
        layer, *after = joined
        assert isinstance(layer, Layer)  # for mypy
        coarse = slice(joined.coarse)
        self.alike, self.risen = Thin(layer, coarse), Risen(layer, coarse)
        self.fine = Thin(layer, slice(joined.coarse, None), bias=False)
        self.after = nn.Sequential(*after)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Arguments and answer as those of `Joined`."""
        double = [2 * side for side in coarse.shape[2:]] == list(fine.shape[2:])
        found: Tensor = self.risen(coarse) if double else self.alike(onto(coarse, fine))
        answer: Tensor = self.after(found.add_(self.fine(fine)))
        return answer


class Risen(nn.Module):
    """What a convolution of 3 voxels a side gives of an image whose voxels were doubled along each axis.

    Two of a row's three weights then meet the same voxel, and are added; each place of a finer voxel in the coarser one
    has weights of its own.

    Args:
        layer: nn.Conv2d or nn.Conv3d that keeps the image's sides.
        inputs: those of the layer's inputs that the image has.
    """

    def __init__(self, layer: Layer, inputs: slice) -> None:
        super().__init__()
        weight = layer.weight.detach()[:, inputs]
        self.axes, self.outputs = weight.ndim - 2, len(weight)
        # place of the finer voxel, coarser voxel (before, own, next), the layer's weight
        sums = weight.new_tensor([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]])
        # both places along the last axis are outputs of one convolution, as neighbours are in `Thin`
        both = torch.stack([weight @ place.T for place in sums], 1).flatten(0, 1)
        self.places = list(itertools.product(range(2), repeat=self.axes - 1))
        self.weights = nn.ParameterList()
        for places in self.places:
            part = both
            for axis, place in enumerate(places, 2):
                part = (part.movedim(axis, -1) @ sums[place, place : place + 2].T).movedim(-1, axis)
            self.weights.append(nn.Parameter(part.contiguous()))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().repeat_interleave(2))

    def forward(self, image: Tensor) -> Tensor:
        """An image (B, inputs, …) -> (B, outputs, …), its sides doubled."""
        padded = functional.pad(image, [1] * (2 * self.axes))
        found = image.new_empty((len(image), self.outputs, *(2 * side for side in image.shape[2:])))
        for places, weight in zip(self.places, self.weights, strict=True):
            seen, box = padded, [slice(None), slice(None)]
            for axis, place in enumerate(places, 2):
                seen = seen.narrow(axis, place, image.shape[axis] + 1)
                box.append(slice(place, None, 2))
            found[tuple(box)] = rows(convolved(seen, weight, self.bias, [1] * self.axes, [0] * self.axes), 2)
        return found
