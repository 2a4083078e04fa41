"""Encoders of the image fusion network, in 2D and 3D: a plain one for processors, and two published ones."""

from __future__ import annotations

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.learning.encoders import PUBLISHED, require_name

#: Channels of `small` at the strides 1, 2, 4, 8.
SMALL = (8, 12, 16, 16)
MOST_LEVELS = 4
ENCODERS = ("small", "resnet34", "efficientnet_lite0")


class SmallEncoder(nn.Module):
    """Plain convolutions, the first at full resolution; for processors. Arguments as in `build_encoder`."""

    def __init__(self, spatial_dims: int, in_channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.strides = list(SMALL[:levels]), [1, 2, 4, 8][:levels]
        conv, inputs = Conv[Conv.CONV, spatial_dims], [in_channels, *self.channels]
        self.stages = nn.ModuleList(
            nn.Sequential(conv(inputs[i], inputs[i + 1], 3, 2 if i else 1, 1), nn.LeakyReLU(0.1, inplace=True))
            for i in range(levels)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features (B, channels, …) of every level of an image (B, C, …) whose sides are multiples of the strides."""
        features: list[Tensor] = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


def build_encoder(name: str, spatial_dims: int, in_channels: int, levels: int) -> nn.Module:
    """Make an encoder.

    Args:
        name: one of `ENCODERS`.
        spatial_dims: 2 or 3.
        in_channels: of the image.
        levels: how many scales there are for attention, from 2 to 4. The published encoders have one more, the finest.

    Raises:
        UsageError: E_CONFIG.
    """
    require_name(name, ENCODERS)
    if spatial_dims not in (2, 3) or not 2 <= levels <= MOST_LEVELS:
        raise UsageError(
            "E_CONFIG", f"Expected 2 or 3 dimensions and 2 to {MOST_LEVELS} levels, got {spatial_dims} and {levels}."
        )
    if name == "small":
        return SmallEncoder(spatial_dims, in_channels, levels)
    return PUBLISHED[name](spatial_dims, in_channels, levels + 1)
