"""MONAI's networks in nnU-Net's place: the same plans, folds, inputs and outputs; the tensors' axes are the plans'."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks import nets

Sides = Sequence[Sequence[int]]


class DynUNet(nets.DynUNet):
    """MONAI's DynUNet with the kernels, strides and features of the plans, and one output."""

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sides,
        strides: Sides,
        deep_supervision: bool = False,
    ) -> None:
        dims, up = len(strides[0]), strides[1:]
        shape = (dims, input_channels, num_classes, kernel_sizes, strides, up)
        super().__init__(*shape, filters=list(features_per_stage), res_block=True)


class SegResNet(nets.SegResNet):
    """MONAI's SegResNet of as many levels as the plans have; it halves along every axis."""

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sides,
        strides: Sides,
        deep_supervision: bool = False,
    ) -> None:
        levels = len(strides)
        down, up = (1, *[2] * (levels - 2), 4)[:levels], (1,) * (levels - 1)
        super().__init__(
            len(strides[0]), features_per_stage[0], input_channels, num_classes, blocks_down=down, blocks_up=up
        )
