"""The network is a convex mix of candidates and a bounded residual; its encoders are those of the published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.image_fusion.baselines import fuse
from pipeline.image_fusion.candidates import CANDIDATES, candidates
from pipeline.image_fusion.encoders import SmallEncoder, build_encoder
from pipeline.image_fusion.filters import along, sobel
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.learning.transfer import load_encoder


def seeded(*arguments: object, **named: object) -> ImageFusionNet:
    torch.manual_seed(3)
    return ImageFusionNet(*arguments, **named).eval()  # type: ignore[arg-type]


def image(*sides: int, seed: int = 1) -> Tensor:
    return torch.rand((1, 4, *sides), generator=torch.Generator().manual_seed(seed))


def moved(network: ImageFusionNet) -> ImageFusionNet:
    """A network whose head says something, as after a training."""
    with torch.no_grad():
        network.head.weight.normal_(std=2.0)
    return network


@pytest.mark.parametrize("sides", [(40, 56), (16, 24, 8)], ids=["2D", "3D"])
@torch.no_grad()
def test_it_starts_as_the_same_mix_everywhere(sides: tuple[int, ...]) -> None:
    """Weights by the start's logits alone, no residual: the a-trous candidate counts e times as much as another."""
    given = image(*sides)
    parts = seeded(len(sides), start=1.0).parts(given)
    shares = torch.tensor([float(np.e) if name == "atrous" else 1.0 for name in CANDIDATES])
    shares = (shares / shares.sum()).reshape(1, -1, *[1] * len(sides))
    assert torch.allclose(parts.weights, shares.expand_as(parts.weights), atol=1e-6)
    assert not parts.residual.any()
    assert torch.allclose(
        parts.fused, (shares * candidates(given[:, :1], given[:, -1:])).sum(1, keepdim=True), atol=1e-6
    )


@pytest.mark.parametrize("sides", [(40, 56), (16, 24, 8)], ids=["2D", "3D"])
@torch.no_grad()
def test_weights_are_convex_and_the_residual_is_bounded(sides: tuple[int, ...]) -> None:
    given = image(*sides)
    given[:, :, :5] = 0
    parts = moved(seeded(len(sides), residual=0.1)).parts(given)
    larger = torch.maximum(given[:, :1], given[:, -1:])
    assert parts.weights.min() >= 0 and torch.allclose(parts.weights.sum(1), torch.ones(()), atol=1e-5)
    assert parts.weights.std() > 0.05
    assert (parts.residual.abs() <= 0.1 * larger).all() and parts.residual.abs().max() > 0.01
    mixed = (parts.weights * candidates(given[:, :1], given[:, -1:])).sum(1, keepdim=True)
    assert torch.allclose(parts.fused, (mixed + parts.residual).clamp(0, 1), atol=1e-6)
    assert parts.attention.shape == (1, 4, *sides) and 0 < parts.attention.min() <= parts.attention.max() < 1


@torch.no_grad()
def test_what_is_black_in_both_stays_black() -> None:
    parts = moved(seeded(2, residual=0.5)).parts(torch.zeros(1, 4, 32, 32))
    assert not parts.fused.any()


@pytest.mark.parametrize(("encoder", "stride"), [("small", 8), ("resnet34", 32), ("efficientnet_lite0", 32)])
@torch.no_grad()
def test_sides_that_do_not_fit_are_padded_and_cut_back(encoder: str, stride: int) -> None:
    """As if the image had been continued by its last values before; candidates are those of the image itself."""
    network, given = moved(seeded(2, encoder)), image(37, 50)
    assert network.stride == stride
    parts = network.parts(given)
    assert parts.fused.shape == (1, 1, 37, 50)
    pads = [0, -50 % stride, 0, -37 % stride]
    continued = nn.functional.pad(given, pads, mode="replicate")
    inner = network.parts(continued).weights[:, :, :25, :38]
    assert torch.allclose(parts.weights[:, :, :25, :38], inner, atol=0.2)
    fitting = image(stride, 2 * stride)
    assert torch.equal(network._padded(fitting), fitting)
    assert torch.equal(network._padded(given), continued)


@pytest.mark.parametrize("encoder", ["small", "efficientnet_lite0"])
@torch.no_grad()
def test_it_says_the_same_twice_and_as_one_tensor_and_exported(encoder: str) -> None:
    network, given = moved(seeded(2, encoder)), image(45, 64)
    first, parts = network(given), network.parts(given)
    assert torch.equal(first, network(given))
    assert torch.equal(first, torch.cat(list(parts), 1)) and first.shape[1] == 1 + 5 + 1 + 4
    assert torch.equal(torch.jit.script(network)(given), first)


@torch.no_grad()
def test_it_does_not_look_at_other_cases_of_the_batch() -> None:
    network, pair = moved(seeded(2)), torch.cat([image(32, 32), image(32, 32, seed=2)])
    assert torch.allclose(network(pair)[1:], network(pair[1:]), atol=1e-5)


@pytest.mark.parametrize("sides", [(20, 28), (12, 14, 10)], ids=["2D", "3D"])
def test_candidates_turn_with_the_image(sides: tuple[int, ...]) -> None:
    given = image(*sides)
    ct, mr = given[:, :1], given[:, -1:]
    found = candidates(ct, mr)
    for axis in range(2, 2 + len(sides)):
        assert torch.allclose(candidates(ct.flip(axis), mr.flip(axis)).flip(axis), found, atol=1e-5)
    order = (0, 1, *reversed(range(2, 2 + len(sides))))
    turned = candidates(ct.permute(order), mr.permute(order)).permute(order)
    assert torch.allclose(turned, found, atol=1e-5)


@pytest.mark.parametrize("sides", [(30, 26), (12, 14, 3)], ids=["2D", "3D"])
def test_candidates_are_the_classical_methods(sides: tuple[int, ...]) -> None:
    """Written for arrays and for an exported network: the same pictures, up to the borders, however near they are."""
    given = image(*sides)
    given[:, :, :8] = 0
    given[:, :, 9, 9] = 1  # the classical methods end where the brightest voxel does
    for name, found in zip(CANDIDATES, candidates(given[:, :1], given[:, -1:])[0], strict=True):
        assert np.allclose(found, fuse(given[0, 0].numpy(), given[0, -1].numpy(), name), atol=2e-5), name


def test_filters_are_those_of_scipy() -> None:
    picture = torch.rand(1, 1, 12, 15, dtype=torch.float64)
    taps = [0.1, 0.4, 0.3, 0.2, 0.0]
    expected = ndimage.correlate1d(picture[0, 0].numpy(), [0.1, 0, 0.4, 0, 0.3, 0, 0.2, 0, 0], axis=1, mode="reflect")
    assert np.allclose(along(picture, 1, taps, 2)[0, 0], expected)
    many = list(np.random.default_rng(0).random(9))
    expected = ndimage.correlate1d(picture[0, 0].numpy(), many, axis=0, mode="reflect")
    assert np.allclose(along(picture, 0, many)[0, 0], expected)
    for axis, part in enumerate(sobel(picture)):
        assert np.allclose(8 * part[0, 0], ndimage.sobel(picture[0, 0].numpy(), axis, mode="reflect"))


@torch.no_grad()
def test_a_flat_encoder_becomes_a_solid_one(tmp_path: Path) -> None:
    """On a volume that is the same in every slice the inflated stem answers as the flat one, but for the ends."""
    flat, solid = SmallEncoder(2, 1, 2), SmallEncoder(3, 1, 2)
    torch.save(flat.state_dict(), tmp_path / "flat.pt")
    load_encoder(solid, tmp_path / "flat.pt")
    picture = torch.rand(1, 1, 16, 16)
    volume = picture[:, :, None].expand(-1, -1, 8, -1, -1)
    assert torch.allclose(solid(volume)[0][:, :, 4], flat(picture)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"encoder": "resnet43"},
            "one of small, resnet34, efficientnet_lite0 as the encoder, got resnet43: did you mean",
        ),
        ({"levels": 5}, "2 to 4 levels, got 2 and 5"),
        ({"spatial_dims": 4}, "2 or 3 dimensions"),
        ({"windows": 0}, "a window or more"),
        ({"residual": 1.5}, "a residual of 0 to 1, got 3 and 1.5"),
    ],
)
def test_what_makes_no_network_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=f"E_CONFIG: .*{words}"):
        ImageFusionNet(**arguments)  # type: ignore[arg-type]


def test_patches_are_checked() -> None:
    ImageFusionNet(2).require_patch([72, 70])
    for patch in ([72, 72, 72], [72, 4]):
        with pytest.raises(UsageError, match="E_CONFIG: Expected a patch of 2 sides of 8 or more"):
            ImageFusionNet(2).require_patch(patch)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_fewer_levels_take_the_finest(levels: int) -> None:
    for name in ("small", "resnet34", "efficientnet_lite0"):
        encoder = build_encoder(name, 2, 1, levels)
        features = encoder.eval()(torch.rand(1, 1, 64, 64))
        assert [item.shape[1] for item in features] == encoder.channels
        assert [64 // item.shape[2] for item in features] == encoder.strides
        assert len(features) == levels + (name != "small")
