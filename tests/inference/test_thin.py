"""Convolutions with few features on a processor: what PyTorch says, in another form."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.profiler import profile

from pipeline.inference import thin
from pipeline.inference.thin import Thin, for_thin_layers, suits


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize(
    ("inputs", "outputs", "sides", "shape"),
    [
        (2, 1, (7, 7, 7), (9, 8, 4)),  # shorter than what is counted at once
        (20, 8, (3, 3, 3), (5, 6, 7)),  # inputs in two parts
        (3, 5, (1, 3, 5), (4, 5, 11)),
        (9, 2, (3, 3), (6, 13)),
        (4, 24, (3, 3), (5, 5)),  # wide enough as it is
    ],
)
def test_neighbours_counted_together_are_the_convolution(
    lanes: int,
    inputs: int,
    outputs: int,
    sides: Sequence[int],
    shape: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thin, "lanes", lambda: lanes)
    torch.manual_seed(0)
    convolution = nn.Conv3d if len(sides) == 3 else nn.Conv2d
    layer = convolution(inputs, outputs, tuple(sides), padding=tuple(side // 2 for side in sides))
    image = torch.randn(2, inputs, *shape)
    with torch.inference_mode():
        torch.testing.assert_close(Thin(layer)(image), layer(image), atol=1e-5, rtol=1e-5)


def test_only_what_keeps_the_sides_is_changed() -> None:
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.Conv3d(4, 4, 3, stride=2, padding=1),
        nn.Conv3d(4, 4, 3, padding=2, dilation=2),
        nn.Conv3d(4, 4, 3, padding=1, groups=2),
        nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
        nn.Conv3d(4, 4, 3, padding="same"),
        nn.Conv3d(4, 4, 3),
        nn.Conv3d(4, 2, 1),
    ).eval()
    assert [suits(layer) for layer in network] == [True] + [False] * 6 + [True]
    fast = for_thin_layers(network, {})
    assert [type(layer) is Thin for layer in fast] == [True] + [False] * 7  # a kernel of one voxel has no neighbours
    assert [type(layer) for layer in network] == [nn.Conv3d] * 8
    image = torch.randn(1, 1, 14, 16, 18, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(fast(image), network(image), atol=1e-5, rtol=1e-5)


def test_a_single_image_goes_through_onednn() -> None:
    layer = Thin(nn.Conv3d(1, 8, 3, padding=1))
    with profile() as seen, torch.inference_mode():
        layer(torch.zeros(1, 1, 20, 20, 20))
    names = {event.key for event in seen.key_averages()}
    assert "aten::mkldnn_convolution" in names and not [name for name in names if "slow_conv3d" in name]
