"""Encoders: an image to features on several levels, from fine to coarse.

Each says how many channels a level has (`channels`) and which of its modules gives it (`layers`).
"""

from __future__ import annotations

from monai.networks.blocks import UnetResBlock
from monai.networks.nets.resnet import ResNetFeatures
from torch import Tensor, nn

from pipeline.errors import UsageError

#: Channels of each level as multiples of the width.
GROWTH = (1, 2, 4, 8, 10)
RESNETS = ("resnet10", "resnet18", "resnet34")
#: Of MONAI's (and MedicalNet's) ResNets without bottleneck, from the stem to the last stage.
RESNET_CHANNELS = (64, 64, 128, 256, 512)


class UnetEncoder(nn.Module):
    """Residual blocks with instance normalisation; each level but the first halves the grid.

    Args:
        in_channels: of the image.
        width: channels of the first level; `GROWTH` times it on the others.
        levels: how many, from 2 to 5.

    Raises:
        UsageError: E_CONFIG for another number of levels.
    """

    def __init__(self, in_channels: int, width: int, levels: int = 5) -> None:
        super().__init__()
        if not 2 <= levels <= len(GROWTH):
            raise UsageError("E_CONFIG", f"Expected 2 to {len(GROWTH)} levels, got {levels}.")
        self.channels = [width * growth for growth in GROWTH[:levels]]
        self.first_stride = 1
        self.layers = [f"stages.{level}" for level in range(levels)]
        inputs = [in_channels, *self.channels[:-1]]
        self.stages = nn.ModuleList(
            [
                UnetResBlock(
                    3,
                    inputs[level],
                    self.channels[level],
                    3,
                    1 if level == 0 else 2,
                    instance_norm(self.channels[level]),
                )
                for level in range(levels)
            ]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode.

        Args:
            image: (B, C, I, J, K), each side a multiple of 2 ** (levels - 1).

        Returns:
            Features of every level: (B, channels, I / 2 ** level, …).
        """
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


class ResNetEncoder(nn.Module):
    """MONAI's 3D ResNet, whose weights may be MedicalNet's (from a local file: `pipeline.fusion.transfer`).

    Args:
        in_channels: of the image.
        name: one of `RESNETS`.

    Raises:
        UsageError: E_CONFIG for another name.

    Source: Chen, Ma and Zheng, Med3D: Transfer learning for 3D medical image analysis, arXiv 1904.00625.
    """

    def __init__(self, in_channels: int, name: str = "resnet10") -> None:
        super().__init__()
        if name not in RESNETS:
            raise UsageError("E_CONFIG", f"Expected one of {', '.join(RESNETS)} as the encoder, got {name}.")
        self.channels = list(RESNET_CHANNELS)
        self.first_stride = 2
        self.layers = ["net.act", *(f"net.layer{stage}" for stage in range(1, 5))]
        self.net = ResNetFeatures(name, pretrained=False, spatial_dims=3, in_channels=in_channels)
        del self.net.avgpool, self.net.fc  # of the classifier, which is not asked for

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode (B, C, I, J, K), each side a multiple of 32; the first level is already half as fine as the image."""
        features: list[Tensor] = self.net(image)
        return features


def instance_norm(channels: int) -> tuple[str, dict[str, int]]:
    """Instance normalisation as MONAI's blocks take it.

    A group normalisation with a channel a group is the same formula with the same parameters, and faster on processors.
    """
    return "group", {"num_groups": channels}


def build_encoder(encoder: str, in_channels: int, width: int, levels: int) -> UnetEncoder | ResNetEncoder:
    """Make an encoder by its name: `unet`, or one of `RESNETS` (whose width and levels are given)."""
    if encoder == "unet":
        return UnetEncoder(in_channels, width, levels)
    return ResNetEncoder(in_channels, encoder)
