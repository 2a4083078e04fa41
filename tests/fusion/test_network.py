"""The network's promises: what is missing has no influence, the modes compare fairly, every export says the same."""

from __future__ import annotations

import math
from pathlib import Path

import onnxruntime
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.fusion.network import BLOCKS, MODES, FusionNet, product_of_experts
from pipeline.fusion.parts import GatedBlock


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def small(**options: object) -> FusionNet:
    return FusionNet(["ct", "mr", "pet"], **{"width": 8, "levels": 3, **options}).eval()  # type: ignore[arg-type]


IMAGE = torch.randn(2, 3, 12, 8, 8, generator=torch.Generator().manual_seed(1))
SOME = torch.tensor([[True, False, True], [True, True, True]])


def test_the_modes_have_one_budget() -> None:
    sizes = [sum(p.numel() for p in FusionNet(["ct", "mr"], mode=mode).parameters()) for mode in MODES]
    assert all(9.0e6 <= size <= 11.0e6 for size in sizes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("classes", "labels", "shape"), [(2, 4, (2, 6, 12, 8, 8)), (3, 0, (2, 3)), (0, 2, (2, 2, 12, 8, 8))]
)
def test_every_logit_is_a_channel(mode: str, classes: int, labels: int, shape: tuple[int, ...]) -> None:
    net = small(mode=mode, classes=classes, labels=labels)
    logits = net(IMAGE)
    heads = net.heads(IMAGE)
    assert logits.shape == shape
    if labels:
        assert torch.equal(logits[:, :labels], heads.voxels)
        assert torch.equal(logits[:, labels:].amax((2, 3, 4)), heads.classes)
    else:
        assert torch.equal(logits, heads.classes)


@pytest.mark.parametrize("options", [*({"block": block} for block in BLOCKS), {"mode": "early"}, {"mode": "late"}])
def test_what_is_missing_has_no_influence(options: dict[str, str]) -> None:
    net = small(**options)
    with torch.no_grad():
        expected = net(IMAGE, SOME)
        junk = IMAGE.clone()
        junk[0, 1] = math.nan
        assert torch.equal(net(junk, SOME), expected)
        assert not torch.allclose(net(IMAGE), expected)
        assert torch.allclose(net(IMAGE)[1], expected[1], atol=1e-5)


def test_single_looks_at_one_modality_alone() -> None:
    image = IMAGE.clone().requires_grad_()
    small(mode="single", only="mr")(image).sum().backward()
    assert image.grad is not None
    assert (image.grad[:, [0, 2]] == 0).all() and (image.grad[:, 1] != 0).any()


def test_late_fusion_without_the_others_is_the_one_modality() -> None:
    net = small(mode="late")
    with torch.no_grad():
        heads = net.heads(IMAGE, torch.tensor([[False, True, False]] * 2))
    assert torch.allclose(heads.classes, torch.log_softmax(heads.classes_each[:, 1], 1), atol=1e-6)
    assert torch.allclose(heads.voxels, torch.log_softmax(heads.voxels_each[:, 1], 1), atol=1e-6)


def test_the_product_of_experts_is_the_normalised_geometric_mean() -> None:
    """(.9, .1) and (.6, .4): sqrt(.54) : sqrt(.04) = .786 : .214."""
    logits = torch.log(torch.tensor([[[0.9, 0.1], [0.6, 0.4]]])) + 7.0
    both = torch.softmax(product_of_experts(logits, torch.tensor([[True, True]])), 1)
    assert both[0, 0].item() == pytest.approx(math.sqrt(0.54) / (math.sqrt(0.54) + math.sqrt(0.04)), abs=1e-6)
    first = torch.softmax(product_of_experts(logits, torch.tensor([[True, False]])), 1)
    assert first[0, 0].item() == pytest.approx(0.9, abs=1e-6)


def test_gates_share_out_one() -> None:
    block = GatedBlock(3, 8)
    features = torch.randn(2, 3, 8, 4, 4, 4)
    weights = block.weights(features, SOME)
    assert torch.allclose(weights.sum(1), torch.ones(2, 1, 4, 4, 4), atol=1e-6)
    assert (weights[0, 1] == 0).all() and (weights[1] > 0).all()


def test_the_script_says_what_the_network_says(tmp_path: Path) -> None:
    for options in ({"block": "cross_attention", "deep": 1}, {"mode": "late", "deep": 1}, {"mode": "early"}):
        net = small(**options)
        torch.jit.save(torch.jit.script(net), tmp_path / "net.ts")
        loaded = torch.jit.load(tmp_path / "net.ts")
        with torch.no_grad():
            assert torch.allclose(loaded(IMAGE, SOME), net(IMAGE, SOME), atol=1e-5)
            assert torch.allclose(loaded.heads(IMAGE).classes, net.heads(IMAGE).classes, atol=1e-5)


def test_onnx_says_what_the_network_says(tmp_path: Path) -> None:
    net = small()
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (IMAGE,), str(path), input_names=["image"], output_names=["logits"], dynamo=False)
    (logits,) = onnxruntime.InferenceSession(str(path)).run(None, {"image": IMAGE.numpy()})
    with torch.no_grad():
        assert abs(logits - net(IMAGE).numpy()).max() < 1e-4


def test_a_table_joins_the_classes_and_may_have_holes() -> None:
    net = small(table_features=4)
    table = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.0, math.nan, 0.0, 0.0]])
    with torch.no_grad():
        logits = net.heads(IMAGE, None, table).classes
        assert torch.isfinite(logits).all()
        other = net.heads(IMAGE, None, table + 1.0).classes
        absent = net.heads(IMAGE).classes
        unknown = net.heads(IMAGE, None, torch.full((2, 4), math.nan)).classes
    assert not torch.allclose(logits, other)
    assert torch.equal(absent, unknown)


def test_deep_supervision_maps_lie_on_coarser_grids() -> None:
    deep = small(deep=1).heads(IMAGE).deep
    assert [tuple(item.shape[2:]) for item in deep] == [(6, 4, 4)]


def test_a_residual_encoder_gives_the_image_s_grid() -> None:
    net = FusionNet(["ct", "mr"], encoder="resnet10").eval()
    with torch.no_grad():
        assert net(torch.randn(1, 2, 64, 32, 64)).shape == (1, 4, 64, 32, 64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "middle"}, "one of single, early"),
        ({"block": "sum"}, "one of concat"),
        ({"modalities": ["ct"], "mode": "late"}, "two or more modalities"),
        ({"modalities": ["ct", "ct"]}, "names of their own"),
        ({"only": "us"}, "`only` to be one of ct, mr"),
        ({"classes": 1}, "two or more classes"),
        ({"classes": 0, "labels": 0}, "two or more classes"),
        ({"levels": 6}, "2 to 5 levels"),
        ({"encoder": "vgg"}, "one of resnet10"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=f"E_CONFIG.*{words}"):
        FusionNet(**{"modalities": ["ct", "mr"], **options})  # type: ignore[arg-type]
