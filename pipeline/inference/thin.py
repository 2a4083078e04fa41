"""Networks in forms that take a processor less time, and say the same: single tiles, and layers of few features.

PyTorch leaves oneDNN aside for a single image with few features, and takes up to twice as long. oneDNN itself counts
the features of a voxel in the lanes of one vector: with 16 lanes, a layer of 8 features wastes half of them, one of a
single feature nearly all. Here neighbours along the last axis are counted as features of one voxel: the weights are
repeated, each time one voxel further on, and the layer strides. The sums are the same but for added zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

Swap = Callable[[Any], nn.Module]
Layer = nn.Conv2d | nn.Conv3d
#: More neighbours than this are not counted together, nor more input features than this at once: both got slower.
MOST_NEIGHBOURS, MOST_INPUTS = 8, 16


def lanes() -> int:
    """Numbers of float32 in a vector of this processor, as PyTorch uses it."""
    return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def for_thin_layers(network: nn.Module, swaps: Mapping[type[nn.Module], Swap]) -> nn.Module:
    """A network on a processor that gives the same in less time; for float32. What is not changed shares the weights.

    Args:
        network: its convolutions with few outputs become `Thin`.
        swaps: what takes the place of the network's own kinds of modules.
    """
    found = _copied(network)
    _swap(found, swaps)
    return found


def for_single_tiles(network: nn.Module) -> nn.Module:
    """A network on a processor that is as fast a tile with one tile as with two; it shares the weights. For float32."""
    found = _copied(network)
    for module in found.modules():
        if type(module) is nn.Conv3d and max(module.kernel_size) > 1:
            plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
            module.__class__ = _OneDnnConv3d if plain else nn.Conv3d
    return found


def _copied(network: nn.Module) -> nn.Module:
    """A copy that shares the weights."""
    return copy.deepcopy(network, {id(item): item for item in (*network.parameters(), *network.buffers())})


def _swap(module: nn.Module, swaps: Mapping[type[nn.Module], Swap]) -> None:
    for name, child in list(module.named_children()):
        if suits(child) and neighbours(child) > 1:
            setattr(module, name, Thin(child))
            continue
        if type(child) in swaps:
            child = swaps[type(child)](child)
            setattr(module, name, child)
        _swap(child, swaps)


def suits(layer: nn.Module) -> TypeGuard[Layer]:
    """Whether a layer is a convolution that keeps the image's sides, without stride, dilation or groups."""
    if not isinstance(layer, nn.Conv2d | nn.Conv3d) or isinstance(layer.padding, str):
        return False
    same = all(side == 2 * reach + 1 for side, reach in zip(layer.kernel_size, layer.padding, strict=True))
    return same and set(layer.stride) == set(layer.dilation) == {layer.groups} == {1} and layer.padding_mode == "zeros"


def neighbours(layer: Layer) -> int:
    """How many voxels of a row of a layer's output are best counted together."""
    return min(MOST_NEIGHBOURS, max(1, lanes() // layer.out_channels)) if layer.kernel_size[-1] > 1 else 1


class Thin(nn.Module):
    """What a convolution gives, some voxels of a row at once.

    Args:
        layer: one that `suits`.
        inputs: those of the layer's inputs that the image has; all of them, unless given.
        bias: whether the layer's own is added.
    """

    def __init__(self, layer: Layer, inputs: slice = slice(None), bias: bool = True) -> None:
        super().__init__()
        count = neighbours(layer)
        self.count, self.padding = count, [side // 2 for side in layer.kernel_size]
        weight, reach = layer.weight.detach()[:, inputs], layer.kernel_size[-1]
        moved = weight.new_zeros((len(weight), count, *weight.shape[1:-1], reach + count - 1))
        for place in range(count):
            moved[:, place, ..., place : place + reach] = weight
        moved = moved.flatten(0, 1)
        parts = -(-moved.shape[1] // MOST_INPUTS)
        self.weights = nn.ParameterList(part.contiguous() for part in moved.chunk(parts, 1))
        own = layer.bias if bias else None
        self.bias = None if own is None else nn.Parameter(own.detach().repeat_interleave(count))
        self.stride = (*[1] * (weight.ndim - 3), count)

    def forward(self, image: Tensor) -> Tensor:
        """Argument and answer as the layer's."""
        size = image.shape[-1]
        if size % self.count:
            image = functional.pad(image, (0, -size % self.count))
        parts = image.chunk(len(self.weights), 1)
        total = convolved(parts[0], self.weights[0], self.bias, self.stride, self.padding)
        for part, weight in zip(parts[1:], self.weights[1:], strict=True):
            total.add_(convolved(part, weight, None, self.stride, self.padding))
        return rows(total, self.count)[..., :size]


class _OneDnnConv3d(nn.Conv3d):
    """Convolves by oneDNN whatever the batch is."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)  # `for_single_tiles` leaves those as they are
        return convolved(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def convolved(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (),
    groups: int = 1,
) -> Tensor:
    """A convolution by oneDNN where there is one; arguments as those of torch.convolution."""
    axes = weight.ndim - 2
    dilation = dilation or [1] * axes
    if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        return torch.mkldnn_convolution(image, weight, bias, padding, stride, dilation, groups)
    return torch.convolution(image, weight, bias, stride, padding, dilation, False, [0] * axes, groups)


def rows(image: Tensor, count: int) -> Tensor:
    """Voxels of a row that were counted as features (B, outputs x count, …, K) -> (B, outputs, …, K x count)."""
    return image.unflatten(1, (-1, count)).movedim(2, -1).flatten(-2)
