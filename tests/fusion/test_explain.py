"""Explanations against what is known of networks that are simple enough to know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.explain import Explaind
from pipeline.fusion.explanations import (
    ExplainedCase,
    baseline_of,
    gate_maps,
    gradcam_maps,
    log_odds_direction,
    logits_without,
    occluded_logits,
)
from pipeline.fusion.network import FusionNet, Heads
from pipeline.fusion.parts import GatedBlock
from pipeline.fusion.resample import GRID_AFFINE, GRID_SHAPE
from pipeline.fusion.tiles import TiledInferer
from pipeline.simulation.kinds import ADDITIVE_CUE
from pipeline.volumes import volume
from tests.phantoms.mechanisms import BRIGHTNESS, CUE_BRIGHTNESS, mechanism_cases

NAMES = ["ct", "mr"]
SIDE = 16


class Reader(FusionNet):
    """A network whose class logits are 0 and a known weighting of its tile (M, I, J, K), plus a constant."""

    def __init__(self, weights: Tensor, constant: float = 0.0) -> None:
        super().__init__(NAMES, labels=0, width=4, levels=2)
        self.known, self.constant = weights, constant

    def class_logits(self, image: Tensor, available: Tensor, table: Tensor | None = None) -> Tensor:
        there = available[:, :, None, None, None]
        logit = (torch.where(there, image, torch.zeros_like(image)) * self.known).sum((1, 2, 3, 4)) + self.constant
        return torch.stack([torch.zeros_like(logit), logit], 1)

    def heads(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Heads:
        there = torch.ones(image.shape[:2], dtype=torch.bool) if available is None else available
        none = image.new_zeros(0)
        voxels = image.new_zeros([len(image), 0, *image.shape[2:]])
        return Heads(voxels, self.class_logits(image, there), [], none, none)


def small(seed: int = 0, **options: Any) -> FusionNet:
    torch.manual_seed(seed)
    return FusionNet(NAMES, **{"width": 8, "levels": 3, **options}).eval()


def look_at(
    network: FusionNet, image: Tensor, top_k: int = 3, there: tuple[bool, bool] = (True, True)
) -> ExplainedCase:
    inferer = TiledInferer((SIDE,) * 3, top_k=top_k)
    available, inside = torch.tensor(there), torch.ones(image.shape[1:], dtype=torch.bool)
    return ExplainedCase(network, inferer, image, available, inside, inferer.tiles(image, network, available, inside))


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn((2, *(shape or (SIDE,) * 3)), generator=torch.Generator().manual_seed(seed))


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_behind_a_global_mean_gradcam_is_the_class_activation_map() -> None:
    """And so equals MONAI's own, and what is worked out by hand from the head's weights."""
    network = small(mode="early", class_levels=1)
    head, channels = network.class_heads[0], network.encoders[0].channels[-1]
    with torch.no_grad():
        head.out.weight[:, channels:] = 0  # the largest values: what is left is linear in the mean
    image = picture()
    look = look_at(network, image)
    features = network.encoders[0](image[None])[-1][0].detach()
    weights = head.out.weight[1, :channels] - head.out.weight[0, :channels]
    by_hand = torch.relu((weights[:, None, None, None] * features).sum(0)) / features[0].numel()
    expected = functional.interpolate(by_hand[None, None], (SIDE,) * 3, mode="trilinear")[0, 0]
    found = gradcam_maps(look, chosen=1, level=-1)
    assert found.shape == (1, SIDE, SIDE, SIDE)
    assert torch.allclose(found[0], expected, atol=1e-7) and float(found.max()) > 1e-5
    assert torch.allclose(found[0], monai_s(network, image, "encoders.0.stages.2"), atol=1e-7)


class LogOdds(nn.Module):
    def __init__(self, network: FusionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        classes = self.network.heads(image).classes
        return (classes[:, 1] - classes[:, 0])[:, None]


def monai_s(network: FusionNet, image: Tensor, layer: str) -> Tensor:
    cam = GradCAM(LogOdds(network), f"network.{layer}", postprocessing=nn.Identity())
    return cam(image[None].clone().requires_grad_(True), class_idx=0)[0, 0].detach()


def test_the_mean_gradient_vanishes_before_a_normalisation_and_the_map_does_not() -> None:
    """Why the gradient of each place is taken: what is added to a whole channel is normalised away."""
    network, image = small(block="concat"), picture()
    found = gradcam_maps(look_at(network, image), chosen=1, level=-1)
    classic = monai_s(network, image, "encoders.0.stages.2")
    assert float(found[0].max()) > 1e-3 and float(classic.max()) < 1e-4 * float(found[0].max())


@pytest.mark.parametrize("level", [0, -1])
@pytest.mark.parametrize("options", [{}, {"block": "cross_attention"}, {"mode": "late"}])
def test_the_map_says_how_the_log_odds_change_with_a_feature(options: dict[str, Any], level: int) -> None:
    """A feature that is scaled by 1 + h at one place changes the log-odds by h times the contribution of the place."""
    network, image, step = small(**options).double(), picture().double(), 1e-4
    contribution = gradcam_maps(look_at(network, image), chosen=1, level=level)
    stride = 1 if level == 0 else 4
    place = np.unravel_index(int(contribution[1].argmax()), contribution[1].shape)
    at = tuple(int(index) // stride for index in place)

    def scale(factor: float) -> float:
        def change(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[(slice(None), slice(None), *at)] *= factor
            return output

        handle = network.encoders[1].stages[level].register_forward_hook(change)
        classes = network.class_logits(image[None], torch.ones(1, 2, dtype=torch.bool))[0]
        handle.remove()
        return float((classes[1] - classes[0]).detach())

    odds = (scale(1 + step) - scale(1 - step)) / (2 * step)
    if level == 0:  # on the coarser level the map is interpolated between places
        assert odds == pytest.approx(float(contribution[1][place]), rel=1e-4)
    assert odds > 0


def test_tiles_count_with_their_share_and_add_up() -> None:
    """Two tiles that make the class: each place holds a half of what its tile alone would show."""
    network, image = small(mode="early"), picture(2 * SIDE, SIDE, SIDE)
    look = look_at(network, image, top_k=2)
    chosen = look.counted()
    assert [share for _, share in chosen] == [0.5, 0.5] and len(look.found.boxes) == 3
    expected = torch.zeros(1, *image.shape[1:])
    for number, _ in chosen:
        box = (slice(None), *look.found.boxes[number])
        expected[box] += 0.5 * gradcam_maps(look_at(network, image[box]), chosen=1)
    assert torch.allclose(gradcam_maps(look, chosen=1), expected, atol=1e-6)


def test_the_direction_is_the_gradient_of_the_log_odds() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    odds = torch.softmax(logits, 0)[2] / (1 - torch.softmax(logits, 0)[2])
    (gradient,) = torch.autograd.grad(odds.log(), logits)
    assert torch.allclose(log_odds_direction(logits.detach(), 2), gradient)


@pytest.mark.parametrize("options", [{}, {"mode": "late"}, {"block": "concat"}])
def test_a_missing_modality_has_no_map_and_the_network_stays_as_it_was(options: dict[str, Any]) -> None:
    network = small(**options)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    image = picture()
    image[1] = 0
    maps = gradcam_maps(look_at(network, image, there=(True, False)), chosen=1)
    assert float(maps[0].max()) > 0 and float(maps[1].abs().max()) == 0
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


# ---- gates -----------------------------------------------------------------------------------------------------------


def test_gates_are_what_their_scores_say_and_sum_to_one() -> None:
    network = small()
    for block in network.fusions:
        assert isinstance(block, GatedBlock)
        for gate, bias in zip(block.gates, (np.log(3.0), 0.0), strict=True):
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, bias)
    maps = gate_maps(look_at(network, picture(20, SIDE, SIDE)))
    assert torch.allclose(maps[0], torch.full_like(maps[0], 0.75), atol=1e-5)
    assert torch.allclose(maps[1], torch.full_like(maps[1], 0.25), atol=1e-5)


@pytest.mark.parametrize("block", ["gated", "cross_attention"])
def test_gates_of_a_missing_modality_are_zero(block: str) -> None:
    network, image = small(block=block), picture(12, 20, SIDE)
    maps = gate_maps(look_at(network, image))
    assert maps.shape == image.shape and torch.allclose(maps.sum(0), torch.ones(image.shape[1:]), atol=1e-5)
    assert float(maps.std()) > 0.01 and float(maps.min()) > 0
    image[0] = 0
    alone = gate_maps(look_at(network, image, there=(False, True)))
    assert float(alone[0].abs().max()) == 0 and torch.allclose(alone[1], torch.ones_like(alone[1]), atol=1e-5)


# ---- occlusion -------------------------------------------------------------------------------------------------------


def test_occluded_blocks_change_the_logits_by_what_they_held() -> None:
    """Of a linear network: the sum of weight times (mean of the body less the voxel), block by block, tile by tile."""
    weights = torch.randn(2, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) / SIDE**3
    image = picture(2 * SIDE, SIDE, SIDE)
    network = Reader(weights)
    inferer = TiledInferer((SIDE,) * 3, overlap=0, top_k=2)
    available, inside = torch.tensor([True, True]), torch.ones(image.shape[1:], dtype=torch.bool)
    inside[:, :, :4] = False
    look = ExplainedCase(network, inferer, image, available, inside, inferer.tiles(image, network, available, inside))
    found = occluded_logits(look, parts=4)
    baseline = torch.where(inside, image[:, inside].mean(1)[:, None, None, None], image)
    assert torch.allclose(baseline_of(look), baseline)
    held = ((baseline - image) * weights.repeat(1, 2, 1, 1)).sum(0)
    blocks = functional.avg_pool3d(held[None, None], 4)[0, 0] * 4**3
    change = 0.5 * blocks.repeat_interleave(4, 0).repeat_interleave(4, 1).repeat_interleave(4, 2)
    whole = look.logits()
    assert torch.allclose(found[1] - whole[1], change, atol=1e-6) and float(change.abs().max()) > 1e-3
    assert float((found[1] - whole[1])[:, :, :4].abs().max()) < 1e-6  # air


@pytest.mark.parametrize("number", range(4))
def test_the_map_peaks_in_the_ellipsoid_that_holds_the_cue(number: int) -> None:
    """The ideal reader of the additive mechanism; its probability is the true posterior but for the voxels' noise."""
    cases = mechanism_cases("additive", 4, seed=5, size=SIDE)
    mask, image = torch.from_numpy(cases.masks[number]) > 0, torch.from_numpy(cases.images[number])
    gain = 2 * ADDITIVE_CUE / CUE_BRIGHTNESS
    network = Reader(gain * mask.float().expand(2, -1, -1, -1) / mask.sum(), -2 * gain * BRIGHTNESS)
    found = explained(network, image, "occlusion")
    chances = torch.softmax(look_at(network, image).logits(), 0)
    assert float(chances[1]) == pytest.approx(cases.posterior[number], abs=0.15)
    # where the class lives on brightness, darker blocks take it away; where it lives on its absence, they add to it
    change = found["fused_occlusion"].as_tensor()[0].abs()
    block = change == change.max()
    assert float(mask[block].float().mean()) > 0.5
    reached = functional.max_pool3d(mask.float()[None, None], 4)[0, 0]
    reached = reached.repeat_interleave(4, 0).repeat_interleave(4, 1).repeat_interleave(4, 2) > 0
    assert float(change[~reached].max()) < 1e-6


def test_a_modality_that_the_network_ignores_changes_nothing_and_the_other_all() -> None:
    network, image = small(mode="single", only="ct"), picture()
    look = look_at(network, image)
    without = logits_without(look)
    assert torch.equal(without["mr"], look.logits()) and not torch.allclose(without["ct"], look.logits(), atol=1e-3)
    measures = explained(network, image, "occlusion")["measures"]
    assert measures["fused_class_probability_change_without_mr"] == 0
    whole, hidden = (float(torch.softmax(z, 0)[look.logits().argmax()]) for z in (look.logits(), without["ct"]))
    assert measures["fused_class_probability_without_ct"] == pytest.approx(hidden, abs=1e-6)
    assert measures["fused_class_probability_change_without_ct"] == pytest.approx(hidden - whole, abs=2e-6)


def test_without_a_modality_is_what_the_stage_says_when_it_is_missing() -> None:
    network, image = small(), picture(20, SIDE, SIDE)
    without = logits_without(look_at(network, image))["mr"]
    image[1] = 0
    assert torch.equal(without, look_at(network, image, there=(True, False)).logits())
    assert logits_without(look_at(network, image, there=(True, False))) == {}


# ---- the transform ---------------------------------------------------------------------------------------------------

GRID = np.diag([2.0, -2.0, 3.0, 1.0])


def explained(network: FusionNet, image: Tensor, *methods: str, **options: Any) -> dict[Any, Any]:
    made = Explaind(methods, network, TiledInferer((SIDE,) * 3), ["benign", "malignant"], **options)
    return made({"image": volume(image, GRID), "available": torch.tensor([True, True]), "measures": {"before": 1}})


class Halved:
    """A calibration: half the logits."""

    def apply(self, logits: Any) -> Any:
        return torch.softmax(logits / 2, 0 if logits.ndim > 2 else 1)


def test_the_transform_adds_maps_on_the_grid_and_measures() -> None:
    network, image = small(), picture(20, SIDE, SIDE)
    case = explained(network, image, "occlusion", "gradcam", "gates", calibration=Halved())
    for key, channels in (("fused_gradcam", 2), ("fused_gates", 2), ("fused_occlusion", 1)):
        assert case[key].shape == (channels, 20, SIDE, SIDE) and np.allclose(case[key].affine, GRID)
    measures, look = case["measures"], look_at(network, image)
    chosen = int(look.logits().argmax())
    assert measures["before"] == 1 and measures["fused_explained_class"] == ["benign", "malignant"][chosen]
    assert measures["fused_explained_tiles"] == "2 of 2"
    assert measures["fused_gate_share_ct"] + measures["fused_gate_share_mr"] == pytest.approx(1, abs=1e-3)
    assert measures["fused_gradcam_share_ct"] + measures["fused_gradcam_share_mr"] == pytest.approx(1, abs=1e-3)
    assert measures["fused_gates_channels"] == measures["fused_gradcam_channels"] == "ct, mr"
    calibrated = torch.softmax(look.logits() / 2, 0)[chosen]
    expected = calibrated - torch.softmax(occluded_logits(look) / 2, 0)[chosen]
    assert torch.allclose(case["fused_occlusion"].as_tensor()[0], expected, atol=1e-6)


def test_maps_go_back_onto_the_grid_that_the_images_came_on() -> None:
    """From 2 mm to 1 mm along the first axis: every second voxel is one of the network's, the others lie between."""
    fine = GRID @ np.diag([0.5, 1, 1, 1])
    grid = {GRID_AFFINE: torch.from_numpy(fine), GRID_SHAPE: torch.tensor([39, SIDE, SIDE])}
    case = {"image": volume(picture(20, SIDE, SIDE), GRID), "available": torch.tensor([True, True])}
    made = Explaind(["gates"], small(), TiledInferer((SIDE,) * 3), ["a", "b"])
    coarse, found = made(case)["fused_gates"], made({**case, **grid})["fused_gates"]
    assert found.shape == (2, 39, SIDE, SIDE) and np.allclose(found.affine, fine)
    assert torch.allclose(found.as_tensor()[:, ::2], coarse.as_tensor(), atol=1e-5)
    assert torch.allclose(found.as_tensor()[:, 1], coarse.as_tensor()[:, :2].mean(1), atol=1e-5)
    assert torch.allclose(found.as_tensor().sum(0), torch.ones(39, SIDE, SIDE), atol=1e-5)


def test_nothing_is_asked_and_nothing_is_done() -> None:
    case = explained(small(), picture())
    assert set(case) == {"image", "available", "measures"} and case["measures"] == {"before": 1}


@pytest.mark.parametrize(
    ("methods", "options", "more", "words"),
    [
        (["saliency"], {}, {}, "gradcam, gates, occlusion in explain, got saliency"),
        (["gates"], {"block": "concat"}, {}, "with gates"),
        (["gates"], {"mode": "late"}, {}, "with gates"),
        (["gradcam"], {"classes": 0}, {}, "with classes"),
        (["gradcam"], {}, {"gradcam_level": 3}, "gradcam_level"),
        (["gradcam"], {}, {"gradcam_level": -4}, "gradcam_level"),
        (["occlusion"], {}, {"occlusion_parts": 0}, "occlusion_parts"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    methods: list[str], options: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Explaind(methods, small(**options), TiledInferer((SIDE,) * 3), ["a", "b"], **more)
    assert raised.value.code == "E_EXPLAIN" and words in raised.value.message
