"""Encoders of the image fusion network, in 2D and 3D; the names of their tensors are those of the published weights.

An encoder says how many channels (`channels`) and which stride (`strides`) each level has, from fine to coarse.
"""

from __future__ import annotations

import difflib

import torch
from monai.networks.layers.factories import Conv, Norm
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError

#: Mean and deviation of grey pictures that the published weights were learned with.
#: Source: torchvision, means and deviations of the three colours in ImageNet, averaged; efficientnet-lite: 127 and 128.
OF_RESNET, OF_EFFICIENTNET = (0.449, 0.226), (127 / 255, 128 / 255)
#: Channels of `small` at the strides 1, 2, 4, 8.
SMALL = (8, 12, 16, 16)
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
#: After which blocks of lite0 a level ends: the last of each stride.
LITE0_ENDS = (0, 2, 4, 10, 15)
MOST_LEVELS = 4


class SmallEncoder(nn.Module):
    """Plain convolutions, the first at full resolution; for processors. Arguments as in `build_encoder`."""

    def __init__(self, spatial_dims: int, in_channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.strides = list(SMALL[:levels]), [1, 2, 4, 8][:levels]
        conv, inputs = Conv[Conv.CONV, spatial_dims], [in_channels, *self.channels]
        self.stages = nn.ModuleList(
            nn.Sequential(conv(inputs[i], inputs[i + 1], 3, 2 if i else 1, 1), nn.LeakyReLU(0.1)) for i in range(levels)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features (B, channels, …) of every level of an image (B, C, …) whose sides are multiples of the strides."""
        features: list[Tensor] = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


class ResNetEncoder(nn.Module):
    """MONAI's ResNet-34 in the layout of torchvision, whose weights it takes. Arguments as in `build_encoder`.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016.
    """

    def __init__(self, spatial_dims: int, in_channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.strides = [64, 64, 128, 256, 512][: levels + 1], [2, 4, 8, 16, 32][: levels + 1]
        net = ResNet(
            "basic",
            [3, 4, 6, 3],
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
        self.backbone = nn.ModuleDict(dict(list(stages.items())[:levels]))
        self.maxpool = net.maxpool
        self.mean, self.deviation = OF_RESNET

    def forward(self, image: Tensor) -> list[Tensor]:
        """As `SmallEncoder.forward`; the first level is the stem's, half as fine as the image."""
        image = (image - self.mean) / self.deviation
        image = torch.relu(self.net["bn1"](self.net["conv1"](image)))
        features = [image]
        image = self.maxpool(image)
        for stage in self.backbone.values():
            image = stage(image)
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
    """EfficientNet-Lite0, named as the published weights are. Arguments as in `build_encoder`.

    Source: Tan and Le, EfficientNet, ICML 2019; Liu, EfficientNet-Lite, 2020: ReLU6, and no squeeze and excitation.
    """

    def __init__(self, spatial_dims: int, in_channels: int, levels: int) -> None:
        super().__init__()
        self.ends = list(LITE0_ENDS[: levels + 1])
        self.channels, self.strides = [16, 24, 40, 112, 320][: levels + 1], [2, 4, 8, 16, 32][: levels + 1]
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
        """As `SmallEncoder.forward`; the first level is half as fine as the image."""
        image = functional.pad((image - self.mean) / self.deviation, self.pads)
        image = functional.relu6(self._bn0(self._conv_stem(image)))
        features: list[Tensor] = []
        for number, block in enumerate(self._blocks):
            image = block(image)
            if number in self.ends:
                features.append(image)
        return features


def _norm(spatial_dims: int, channels: int) -> nn.Module:
    found: nn.Module = Norm[Norm.BATCH, spatial_dims](channels, eps=1e-3, momentum=0.01)
    return found


ENCODERS: dict[str, type[nn.Module]] = {
    "small": SmallEncoder,
    "resnet34": ResNetEncoder,
    "efficientnet_lite0": EfficientNetEncoder,
}


def build_encoder(name: str, spatial_dims: int, in_channels: int, levels: int) -> nn.Module:
    """Make an encoder.

    Args:
        name: one of `ENCODERS`.
        spatial_dims: 2 or 3.
        in_channels: of the image.
        levels: how many scales there are for attention, from 2 to 4.

    Raises:
        UsageError: E_CONFIG.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        raise UsageError("E_CONFIG", f"Expected one of {', '.join(ENCODERS)} as the encoder, got {name}{hint}")
    if spatial_dims not in (2, 3) or not 2 <= levels <= MOST_LEVELS:
        raise UsageError(
            "E_CONFIG", f"Expected 2 or 3 dimensions and 2 to {MOST_LEVELS} levels, got {spatial_dims} and {levels}."
        )
    return ENCODERS[name](spatial_dims, in_channels, levels)
