"""A whole image: a slice is what the network says of it; tiles are those of MONAI's window; black ones are left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion import applying
from pipeline.image_fusion.applying import apply_network
from pipeline.image_fusion.metrics import measure
from pipeline.image_fusion.network import Attention, ImageFusionNet, Joined
from pipeline.image_fusion.pictures import windowed
from pipeline.image_fusion.thin import ThinAttention, ThinJoined, for_processor
from pipeline.image_fusion.weights import load_trained
from pipeline.shipped import shipped
from pipeline.store.files import sha256_file
from tests.image_fusion.conftest import head


def network_of(spatial_dims: int) -> ImageFusionNet:
    torch.manual_seed(3)
    network = ImageFusionNet(spatial_dims, windows=2).eval()
    nn.init.normal_(network.head.weight, std=2.0)
    return network


def images(*sides: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((2, *sides), dtype=np.float32), rng.random(sides, dtype=np.float32)


def as_tensor(windows: np.ndarray, mr: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([windows, mr[None]]))[None]


@torch.no_grad()
def test_a_picture_is_what_the_network_says_of_it() -> None:
    network, (windows, mr) = network_of(2), images(37, 50)
    found, parts = apply_network(network, windows, mr), network.parts(as_tensor(windows, mr))
    assert found.fused.shape == (37, 50) and found.attention.shape == (4, 37, 50)
    assert np.allclose(found.fused, parts.fused[0, 0], atol=1e-5)
    assert np.allclose(found.weights, parts.weights[0], atol=1e-5)
    assert np.allclose(found.residual, parts.residual[0, 0], atol=1e-5)
    assert np.allclose(found.attention, parts.attention[0], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["small", "resnet34"])
@pytest.mark.parametrize("sides", [(37, 50), (33, 20, 27)])
def test_what_a_processor_counts_is_the_network(encoder: str, sides: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    network = ImageFusionNet(len(sides), encoder, windows=2).eval()
    nn.init.normal_(network.head.weight, std=2.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image = as_tensor(*images(*sides))
    torch.testing.assert_close(for_processor(network)(image), network(image), atol=2e-5, rtol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_processor_looks_at_no_more_than_its_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    network, (windows, mr) = network_of(2), images(32, 32, 5)
    plain = ImageFusionNet.forward

    def forward(self: ImageFusionNet, image: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape))
        return plain(self, image)

    monkeypatch.setattr(ImageFusionNet, "forward", forward)
    monkeypatch.setattr(applying, "PROCESSOR_VOXELS", 2 * 32 * 32 + 5)
    apply_network(network, windows, mr, batch=4)
    assert [shape[0] for shape in seen] == [1, 2, 2]
    seen.clear()
    apply_network(network_of(3), *images(32, 32, 40), tile=(32, 32, 16), overlap=0.0, batch=4)  # 3 tiles of 2^14 voxels
    assert [shape[0] for shape in seen] == [1, 1, 1]


def test_a_processor_uses_the_faster_form() -> None:
    example = torch.zeros(1, 3, 32, 32)
    kinds = {type(module) for module in applying._forward(network_of(2), example, "torch").modules()}
    assert {ThinJoined, ThinAttention} <= kinds and not {Joined, Attention} & kinds


def test_the_faster_form_shares_what_it_does_not_change() -> None:
    network = ImageFusionNet(2, "resnet34")
    own = {item.data_ptr() for item in network.encoders.parameters()}
    kept = {item.data_ptr() for item in for_processor(network).encoders.parameters()}
    assert own == kept


@torch.no_grad()
def test_slices_are_seen_one_by_one_and_black_ones_are_not() -> None:
    network, (windows, mr) = network_of(2), images(32, 40, 5)
    windows[..., 3], mr[..., 3] = 0, 0
    found = apply_network(network, windows, mr, batch=2)
    assert found.fused.shape == (32, 40, 5) and not found.fused[..., 3].any() and not found.weights[..., 3].any()
    for number in (0, 4):
        alone = apply_network(network, windows[..., number], mr[..., number])
        assert np.allclose(found.fused[..., number], alone.fused, atol=1e-5)


@torch.no_grad()
def test_tiles_are_those_of_monais_sliding_window() -> None:
    """Where a source shows anything; tiles that are black in both are left out."""
    network, (windows, mr) = network_of(3), images(20, 34, 17)
    windows[:, :, 16:], mr[:, 16:] = 0, 0
    image, seen = as_tensor(windows, mr), []
    expected = sliding_window_inference(image, (16, 16, 16), 2, network, 0.25, mode="gaussian")[0].numpy()
    network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    found = apply_network(network, windows, mr, tile=(16, 16, 16), batch=3)
    for part, theirs in ((found.fused[None], expected[:1]), (found.weights, expected[1:6])):
        assert np.allclose(part[:, :, :16], theirs[:, :, :16], atol=1e-5)
    assert sum(seen) == 2 * 2 * 2  # of twelve
    assert np.allclose(found.weights[:, :, :16].sum(0), 1, atol=1e-5) and not found.fused[:, 28:].any()


@torch.no_grad()
def test_a_tile_is_never_larger_than_the_image() -> None:
    network, (windows, mr) = network_of(3), images(11, 9, 1)
    whole = network.parts(as_tensor(windows, mr))
    assert np.allclose(apply_network(network, windows, mr).fused, whole.fused[0, 0], atol=1e-5)
    flat = apply_network(network, windows[..., 0], mr[..., 0])
    assert np.allclose(flat.fused, whole.fused[0, 0, ..., 0], atol=1e-5)


@pytest.mark.parametrize("sides", [(20, 24), (18, 20, 16)], ids=["slices", "tiles"])
def test_openvino_says_the_same(sides: tuple[int, ...]) -> None:
    pytest.importorskip("openvino")
    network, (windows, mr) = network_of(len(sides)), images(*sides)
    ours, theirs = (apply_network(network, windows, mr, (16, 16, 16), engine=name) for name in ("torch", "openvino"))
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    network, (windows, mr) = network_of(2), images(16, 16)
    with pytest.raises(CaseError, match=r"E_GRID: Expected CT and MR on one grid, got \(16, 16\) and \(16, 15\)"):
        apply_network(network, windows, mr[:, :15])
    with pytest.raises(UsageError, match="E_CONFIG: Expected the network's 2 windows, got 1"):
        apply_network(network, windows[:1], mr)
    with pytest.raises(UsageError, match="E_CONFIG: Expected an overlap in"):
        apply_network(network, windows, mr, overlap=1.0)
    with pytest.raises(UsageError, match="E_CONFIG: Expected torch or openvino as the engine, got onnx"):
        apply_network(network, windows, mr, engine="onnx")  # type: ignore[arg-type]


def test_the_shipped_weights_fuse_pictures_and_say_what_they_are() -> None:
    """Learned from simulated heads alone; what CT shows of bone and MR of the brain is in the fused picture."""
    path = shipped("bundles", "fuse_image", "models", "heads.pt")
    assert path.stat().st_size < 500_000
    trained = load_trained(path, sha256=sha256_file(path))
    assert len(trained.training_cases) == 12 and all(name.startswith("head-") for name in trained.training_cases)
    assert set(trained.preparation.learned_measures) == {"SSIM", "Qabf", "VIF", "bone", "soft"}
    ct, mr = (values.astype(np.float32) for values in head(5, 96, 88))
    hu = windowed(500 * ct - 100, trained.preparation.windows)
    fused = apply_network(trained.network, hu, mr).fused
    measures = measure(fused, hu[0], mr, top=1.0)
    assert measures["bone"] > 0.9 and measures["soft"] > 0.9
