"""Single tiles on a processor: what PyTorch says of them, by the convolutions that it takes for two."""

from __future__ import annotations

import torch
from torch import nn
from torch.profiler import profile

from pipeline.inference.thin import for_single_tiles

TILE = torch.randn(1, 1, 20, 24, 20, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.InstanceNorm3d(8, affine=True),
        nn.Conv3d(8, 8, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
        nn.Conv3d(8, 8, 3, padding=2, dilation=2, groups=4),
        nn.Conv3d(8, 8, 3, padding="same"),
        nn.Conv3d(8, 8, 3, padding=1, padding_mode="replicate"),
        nn.ConvTranspose3d(8, 4, 2, 2),
        nn.Conv3d(4, 3, 1),
    ).eval()


def test_a_single_tile_gets_the_same_logits_by_the_same_weights() -> None:
    plain = network()
    fast = for_single_tiles(plain)
    with torch.inference_mode():
        wanted, found = plain(TILE), fast(TILE)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert [item.data_ptr() for item in fast.parameters()] == [item.data_ptr() for item in plain.parameters()]
    assert [type(layer) for layer in plain] == [type(layer) for layer in network()]  # nothing of it was changed


def test_a_single_tile_is_convolved_as_two_are() -> None:
    fast = for_single_tiles(network()[:4])
    with profile() as seen, torch.inference_mode():
        fast(TILE)
    names = {event.key for event in seen.key_averages()}
    assert "aten::mkldnn_convolution" in names and not [name for name in names if "slow_conv3d" in name]
