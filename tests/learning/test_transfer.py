"""Weights from elsewhere: inflated kernels answer as the flat ones, stems keep their scale, strangers are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.parts import ResNetEncoder
from pipeline.learning.encoders import UnetEncoder
from pipeline.learning.transfer import fit_stem, freeze, inflate, layer_wise_rates, load_encoder


def test_an_inflated_kernel_answers_as_the_flat_one() -> None:
    kernel, picture = torch.randn(4, 2, 3, 5), torch.randn(1, 2, 9, 11)
    volume = picture[:, :, None].repeat(1, 1, 7, 1, 1)
    flat, solid = functional.conv2d(picture, kernel), functional.conv3d(volume, inflate(kernel, 3))
    assert torch.allclose(solid, flat[:, :, None].expand_as(solid), atol=1e-5)


def test_a_grey_stem_answers_as_the_coloured_one_on_grey_pictures() -> None:
    kernel, grey = torch.randn(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    expected = functional.conv2d(grey.repeat(1, 3, 1, 1), kernel)
    assert torch.allclose(functional.conv2d(grey, fit_stem(kernel, 1)), expected, atol=1e-5)
    assert torch.allclose(functional.conv2d(grey.repeat(1, 2, 1, 1), fit_stem(kernel, 2)), expected, atol=1e-5)


def test_a_local_checkpoint_is_taken_over(tmp_path: Path) -> None:
    """In the layout of MedicalNet: under `state_dict`, with `module.` before every name, and an unused classifier."""
    source, target = ResNetEncoder(1), ResNetEncoder(1)
    state = {f"module.{name.removeprefix('net.')}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**state, "module.fc.weight": torch.zeros(2, 512)}}, tmp_path / "weights.pth")
    done = load_encoder(target, tmp_path / "weights.pth")
    assert done.unused == ("fc.weight",) and done.missing == () and len(done.loaded) == len(source.state_dict())
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


def test_a_flat_coloured_checkpoint_is_inflated(tmp_path: Path) -> None:
    target = ResNetEncoder(2)
    stem = torch.randn(64, 3, 7, 7)
    torch.save({"conv1.weight": stem}, tmp_path / "weights.pth")
    done = load_encoder(target, tmp_path / "weights.pth")
    assert done.loaded == ("net.conv1.weight",) and len(done.missing) > 10
    assert torch.allclose(target.net.conv1.weight.sum((1, 2)), stem.sum(1), atol=1e-4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"stages.0.conv1.conv.weight": torch.zeros(3, 1, 3, 3, 3)}, "another architecture"),
        ({"other.weight": torch.zeros(3)}, "none that it has a place for"),
        ([torch.zeros(3)], "named tensors"),
    ],
)
def test_strangers_are_refused(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=f"E_WEIGHTS.*{words}"):
        load_encoder(UnetEncoder(3, 1, 8, 3), tmp_path / "weights.pth")


def test_files_that_are_not_the_expected_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(UsageError, match=r"E_INPUT: .*weights.pth does not exist"):
        load_encoder(UnetEncoder(3, 1, 8, 3), path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*not a checkpoint"):
        load_encoder(UnetEncoder(3, 1, 8, 3), path)
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*not the expected ones"):
        load_encoder(UnetEncoder(3, 1, 8, 3), path, sha256="0" * 64)


def test_earlier_stages_learn_slower() -> None:
    encoder, head = UnetEncoder(3, 1, 8, 3), nn.Linear(2, 2)
    groups = layer_wise_rates([encoder], [head], rate=0.01, decay=0.5)
    assert [group["lr"] for group in groups] == [0.01, 0.0025, 0.005, 0.01]
    assert sum(len(group["params"]) for group in groups) == len([*encoder.parameters(), *head.parameters()])
    with pytest.raises(UsageError, match="E_CONFIG"):
        layer_wise_rates([encoder], [head], rate=0.01, decay=1.5)


def test_frozen_parts_do_not_learn() -> None:
    encoder = UnetEncoder(3, 1, 8, 3)
    freeze([encoder], True)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    freeze([encoder], False)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
