"""Encoders in 2D and 3D; the names of their tensors are those of the published weights, which `load_encoder` takes.

An encoder says how many channels (`channels`) and which stride (`strides`) each of its levels has, and gives a map of
features a level, from fine to coarse. The published architectures look at images of 0 (black) to 1 (white), those that
`build_encoder` makes at images of -1 to 1, as streams are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from monai.networks.blocks import UnetResBlock
from monai.networks.layers.factories import Conv
from monai.networks.layers.factories import Norm as Norms
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError

Normalisation = Literal["batch", "instance"]
LEAST_LEVELS, MOST_LEVELS = 2, 5
#: Channels of each level of `unet` as multiples of the width.
GROWTH = (1, 2, 4, 8, 10)
#: Mean and deviation of grey pictures that the published weights were learned with.
#: Source: torchvision, means and deviations of the three colours in ImageNet, averaged; efficientnet-lite: 127 and 128.
OF_TORCHVISION, OF_EFFICIENTNET = (0.449, 0.226), (127 / 255, 128 / 255)
#: Block, blocks a stage, channels of the stem and of each stage. Source: He et al., CVPR 2016, table 1.
RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 64, 128, 256, 512)),
    "resnet34": ("basic", (3, 4, 6, 3), (64, 64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (64, 256, 512, 1024, 2048)),
}
#: Layers a block, growth, channels of the stem. Source: Huang et al., CVPR 2017, table 1 (121).
DENSE_LAYERS, DENSE_GROWTH, DENSE_STEM = (6, 12, 24, 16), 32, 64
DENSE_CHANNELS = (64, 256, 512, 1024, 1024)
#: After which modules of the DenseNet a level ends: the stem, the blocks, the last normalisation and what follows it.
DENSE_ENDS = (2, 4, 6, 8, 12)
#: Channels of lite0's stem.
STEM = 32
#: Repeats, kernel, stride, expansion, channels. Source: Liu, EfficientNet-Lite, 2020 (lite0), blocks 1 to 7.
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LITE0_CHANNELS = (16, 24, 40, 112, 320)
#: After which blocks of lite0 a level ends: the last of each stride.
LITE0_ENDS = (0, 2, 4, 10, 15)


class UnetEncoder(nn.Module):
    """Residual blocks; each level but the first halves the grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        width: channels of the first level; `GROWTH` times it on the others.
        levels: how many, from 2 to 5.
        norm: `instance`, which takes a map's own brightness away, or `batch`, which keeps it: a map of one voxel has
            nothing else.

    Raises:
        UsageError: E_CONFIG for another number of levels, or a width below 1.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, width: int, levels: int = 5, norm: Normalisation = "instance"
    ) -> None:
        super().__init__()
        require_levels(levels)
        if width < 1:
            raise UsageError("E_CONFIG", f"Expected a width of 1 or more, got {width}.")
        self.channels = [width * growth for growth in GROWTH[:levels]]
        self.strides = [2**level for level in range(levels)]
        self.first_stride = 1
        self.layers = [f"stages.{level}" for level in range(levels)]
        self.stages = nn.ModuleList(
            UnetResBlock(
                spatial_dims, before, after, 3, 2 if level else 1, instance_norm(after) if norm == "instance" else norm
            )
            for level, (before, after) in enumerate(pairwise([in_channels, *self.channels]))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode.

        Args:
            image: (B, C, …), each side a multiple of 2 ** (levels - 1).

        Returns:
            Features of every level: (B, channels, …), each side that of the image divided by 2 ** level.
        """
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


def instance_norm(channels: int) -> tuple[str, dict[str, int]]:
    """Instance normalisation as MONAI's blocks take it.

    A group normalisation with a channel a group is the same formula with the same parameters, and faster on processors.
    """
    return "group", {"num_groups": channels}


class ResNetEncoder(nn.Module):
    """MONAI's ResNet in the layout of torchvision, whose weights it takes.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        levels: how many, from 2 to 5; the first is the stem's, half as fine as the image.
        name: one of `RESNETS`.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016.
    """

    def __init__(self, spatial_dims: int, in_channels: int, levels: int = 5, name: str = "resnet34") -> None:
        super().__init__()
        require_levels(levels)
        block, blocks, channels = RESNETS[name]
        self.channels, self.strides = list(channels[:levels]), [2, 4, 8, 16, 32][:levels]
        net = ResNet(
            block,
            list(blocks),
            [64, 128, 256, 512],
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=7,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
            feed_forward=False,
        )
        # these two names are taken off when weights are taken over: what is left are torchvision's names
        self.net = nn.ModuleDict({"conv1": net.conv1, "bn1": net.bn1})
        stages = {"layer1": net.layer1, "layer2": net.layer2, "layer3": net.layer3, "layer4": net.layer4}
        self.backbone = nn.ModuleDict(dict(list(stages.items())[: levels - 1]))
        self.maxpool = net.maxpool
        self.mean, self.deviation = OF_TORCHVISION

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features (B, channels, …) of every level of an image (B, C, …) of 0 to 1."""
        image = (image - self.mean) / self.deviation
        image = torch.relu(self.net["bn1"](self.net["conv1"](image)))
        features = [image]
        image = self.maxpool(image)
        for stage in self.backbone.values():
            image = stage(image)
            features.append(image)
        return features


class DenseNetEncoder(nn.Module):
    """MONAI's DenseNet-121, which is torchvision's, whose weights it takes. Arguments as in `ResNetEncoder`.

    A level is what a dense block gives; the coarsest is normalised and rectified, as torchvision's classifier sees it.

    Source: Huang et al., Densely connected convolutional networks, CVPR 2017.
    """

    def __init__(self, spatial_dims: int, in_channels: int, levels: int = 5) -> None:
        super().__init__()
        require_levels(levels)
        net = DenseNet(spatial_dims, in_channels, 1, DENSE_STEM, DENSE_GROWTH, DENSE_LAYERS)
        self.channels, self.strides = list(DENSE_CHANNELS[:levels]), [2, 4, 8, 16, 32][:levels]
        self.ends = list(DENSE_ENDS[:levels])
        net.features.add_module("relu5", nn.ReLU())
        self.features = net.features[: self.ends[-1] + 1]
        self.mean, self.deviation = OF_TORCHVISION

    def forward(self, image: Tensor) -> list[Tensor]:
        """As `ResNetEncoder.forward`."""
        image = (image - self.mean) / self.deviation
        features: list[Tensor] = []
        for number, module in enumerate(self.features):
            image = module(image)
            if number in self.ends:
                features.append(image)
        return features


class InvertedBottleneck(nn.Module):
    """Widen, look around channel by channel, narrow; the tensors are named as the published weights are.

    MONAI's `MBConvBlock` cannot be exported without squeeze and excitation, which this encoder does not have.

    Args:
        spatial_dims: 2 or 3.
        inputs: channels.
        outputs: channels.
        kernel: side of the middle convolution.
        stride: of the middle convolution.
        expansion: how much wider the middle is; 1 for no widening.

    Source: Sandler et al., MobileNetV2, CVPR 2018, table 1.
    """

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        conv, wide = Conv[Conv.CONV, spatial_dims], inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = conv(inputs, wide, 1, bias=False), _norm(spatial_dims, wide)
        else:
            self._expand_conv, self._bn0 = nn.Identity(), nn.Identity()
        # TensorFlow's `same`: with a stride of 2 an even side is continued by one voxel more at its end
        self.pads = [(kernel - stride) // 2, (kernel - stride + 1) // 2] * spatial_dims
        self._depthwise_conv = conv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(spatial_dims, wide)
        self._project_conv, self._bn2 = conv(wide, outputs, 1, bias=False), _norm(spatial_dims, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, inputs, …), each side a multiple of the stride -> (B, outputs, …)."""
        wide = image
        if self.expands:
            wide = functional.relu6(self._bn0(self._expand_conv(wide)))
        wide = functional.relu6(self._bn1(self._depthwise_conv(functional.pad(wide, self.pads))))
        found = self._bn2(self._project_conv(wide))
        return found + image if self.adds else found


class EfficientNetEncoder(nn.Module):
    """EfficientNet-Lite0, named as the published weights are. Arguments as in `ResNetEncoder`.

    Source: Tan and Le, EfficientNet, ICML 2019; Liu, EfficientNet-Lite, 2020: ReLU6, and no squeeze and excitation.
    """

    def __init__(self, spatial_dims: int, in_channels: int, levels: int = 5) -> None:
        super().__init__()
        require_levels(levels)
        self.ends = list(LITE0_ENDS[:levels])
        self.channels, self.strides = list(LITE0_CHANNELS[:levels]), [2, 4, 8, 16, 32][:levels]
        self.pads = [0, 1] * spatial_dims
        self._conv_stem = Conv[Conv.CONV, spatial_dims](in_channels, STEM, 3, 2, bias=False)
        self._bn0 = _norm(spatial_dims, STEM)
        shapes = [
            (kernel, 1 if again else stride, wider, channels)
            for repeats, kernel, stride, wider, channels in LITE0
            for again in range(repeats)
        ]
        inputs = [STEM, *(channels for *_, channels in shapes)]
        self._blocks = nn.ModuleList(
            InvertedBottleneck(spatial_dims, before, channels, kernel, stride, wider)
            for before, (kernel, stride, wider, channels) in zip(inputs, shapes[: self.ends[-1] + 1], strict=False)
        )
        self.mean, self.deviation = OF_EFFICIENTNET

    def forward(self, image: Tensor) -> list[Tensor]:
        """As `ResNetEncoder.forward`."""
        image = functional.pad((image - self.mean) / self.deviation, self.pads)
        image = functional.relu6(self._bn0(self._conv_stem(image)))
        features: list[Tensor] = []
        for number, block in enumerate(self._blocks):
            image = block(image)
            if number in self.ends:
                features.append(image)
        return features


def _norm(spatial_dims: int, channels: int) -> nn.Module:
    found: nn.Module = Norms[Norms.BATCH, spatial_dims](channels, eps=1e-3, momentum=0.01)
    return found


#: The published architectures, whose width is their own: spatial_dims, in_channels and levels make one.
PUBLISHED: dict[str, Callable[[int, int, int], nn.Module]] = {
    "resnet18": lambda dims, channels, levels: ResNetEncoder(dims, channels, levels, "resnet18"),
    "resnet34": lambda dims, channels, levels: ResNetEncoder(dims, channels, levels, "resnet34"),
    "resnet50": lambda dims, channels, levels: ResNetEncoder(dims, channels, levels, "resnet50"),
    "densenet121": DenseNetEncoder,
    "efficientnet_lite0": EfficientNetEncoder,
}
ENCODERS = ("unet", *PUBLISHED)


def build_encoder(name: str, spatial_dims: int, in_channels: int, width: int, levels: int) -> nn.Module:
    """Make an encoder of a stream, whose black is -1 and whose white is 1; with batch normalisation.

    Args:
        name: one of `ENCODERS`.
        spatial_dims: 2 or 3.
        in_channels: of the image.
        width: channels of the first level of `unet`; the published architectures have their own.
        levels: how many maps `unet` gives, from 2 to 5, the finest first; the published architectures give 5.

    Raises:
        UsageError: E_CONFIG.
    """
    require_name(name, ENCODERS)
    if spatial_dims not in (2, 3):
        raise UsageError("E_CONFIG", f"Expected 2 or 3 dimensions, got {spatial_dims}.")
    if name == "unet":
        return UnetEncoder(spatial_dims, in_channels, width, levels, "batch")
    encoder = PUBLISHED[name](spatial_dims, in_channels, MOST_LEVELS)
    # what was learned from 0 to 1 sees the same of -1 to 1
    encoder.mean, encoder.deviation = 2 * encoder.mean - 1, 2 * encoder.deviation  # type: ignore[assignment, operator]
    return encoder


def require_name(name: str, names: tuple[str, ...]) -> None:
    """Raise E_CONFIG unless an encoder is among those there are."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        raise UsageError("E_CONFIG", f"Expected one of {', '.join(names)} as the encoder, got {name}{hint}")


def require_levels(levels: int) -> None:
    """Raise E_CONFIG unless an encoder can have so many levels."""
    if not LEAST_LEVELS <= levels <= MOST_LEVELS:
        raise UsageError("E_CONFIG", f"Expected {LEAST_LEVELS} to {MOST_LEVELS} levels, got {levels}.")
