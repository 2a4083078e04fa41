"""The loss against values that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceCELoss

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet, Heads
from pipeline.fusion.training import FusionLoss

NOTHING = torch.zeros(2, 1, 0)


def heads(voxels: torch.Tensor | None = None, classes: torch.Tensor | None = None, **more: object) -> Heads:
    flat = torch.zeros(2, 0, 4, 4, 4) if voxels is None else voxels
    return Heads(
        flat,
        torch.zeros(2, 0) if classes is None else classes,
        more.get("deep", []),  # type: ignore[arg-type]
        more.get("voxels_each", flat[:, None, :0]),  # type: ignore[arg-type]
        more.get("classes_each", NOTHING),  # type: ignore[arg-type]
    )


def targets(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    mask = torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8)
    mask[:, :, :2] = 1
    known = {"label": torch.tensor([0, 1]), "mask": mask, "mask_known": torch.tensor([True, True])}
    return {**known, "available": torch.ones(2, 2, dtype=torch.bool), **more}


LOGITS = torch.log(torch.tensor([[0.8, 0.2], [0.4, 0.6]]))
VOXELS = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))


def test_the_class_loss_is_the_cross_entropy() -> None:
    assert FusionLoss()(heads(classes=LOGITS), targets()).item() == pytest.approx(-math.log(0.8 * 0.6) / 2)


def test_classes_are_weighted() -> None:
    """torch divides by the sum of the weights: (-log .8 - 3 log .6) / 4."""
    found = FusionLoss(class_weights=[1, 3])(heads(classes=LOGITS), targets()).item()
    assert found == pytest.approx(-(math.log(0.8) + 3 * math.log(0.6)) / 4)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0]])
def test_other_weights_than_classes_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match=f"E_CONFIG.*Expected 2 class_weights, got {len(weights)}"):
        FusionLoss(weights)(heads(classes=torch.zeros(2, 2)), targets(label=torch.tensor([0, 1])))


def test_what_is_not_known_does_not_count() -> None:
    loss = FusionLoss()
    found = loss(heads(classes=LOGITS), targets(label=torch.tensor([-1, 1]))).item()
    assert found == pytest.approx(-math.log(0.6))
    first = loss(heads(VOXELS), targets(mask_known=torch.tensor([True, False])))
    truth = targets()["mask"][:1]
    expected = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(VOXELS[:1], truth)
    assert first.item() == pytest.approx(expected.item())
    nothing = targets(mask_known=torch.tensor([False, False]), label=torch.tensor([-1, -1]))
    assert loss(heads(VOXELS, LOGITS), nothing).item() == 0


def test_a_perfect_segmentation_costs_nothing_and_its_opposite_much() -> None:
    truth = targets()["mask"].float()
    perfect = torch.cat([-20 * truth, 20 * truth - 10], 1) * 2
    assert FusionLoss()(heads(perfect), targets()).item() == pytest.approx(0, abs=1e-3)
    assert FusionLoss()(heads(-perfect), targets()).item() > 1 + 15


def test_coarser_maps_count_by_halves() -> None:
    """Weights 1, 1/2, 1/4 over their sum; the coarse truth is the nearest voxel's."""
    coarse, coarser = VOXELS[:, :, ::2, ::2, ::2], VOXELS[:, :, ::4, ::4, ::4]
    loss = FusionLoss()

    def alone(maps: torch.Tensor, step: int) -> float:
        mask = targets()["mask"].float()
        truth = torch.nn.functional.interpolate(mask, size=maps.shape[2:], mode="nearest-exact")
        assert truth.shape[2] == 4 // step
        return float(loss(heads(maps), targets(mask=truth)))

    expected = (alone(VOXELS, 1) + alone(coarse, 2) / 2 + alone(coarser, 4) / 4) / 1.75
    assert loss(heads(VOXELS, deep=[coarse, coarser]), targets()).item() == pytest.approx(expected, rel=1e-5)


def test_late_fusion_learns_each_modality_by_itself() -> None:
    """The first modality says LOGITS, the second nothing (log 2); where the second is missing it does not count."""
    each = torch.stack([LOGITS, torch.zeros(2, 2)], 1)
    loss = FusionLoss()
    first = -math.log(0.8 * 0.6) / 2
    both = loss(heads(classes=LOGITS.mean(1, keepdim=True).expand(2, 2), classes_each=each), targets()).item()
    assert both == pytest.approx((first + math.log(2)) / 2)
    there = torch.tensor([[True, False], [True, False]])
    assert loss(heads(classes=LOGITS, classes_each=each), targets(available=there)).item() == pytest.approx(first)


@pytest.mark.parametrize("mode", ["early", "intermediate", "late"])
def test_every_weight_learns_from_it(mode: str) -> None:
    torch.manual_seed(2)
    net = FusionNet(["ct", "mr"], mode=mode, width=8, levels=3, deep=1)  # type: ignore[arg-type]
    truth = {**targets(), "mask": targets()["mask"].repeat_interleave(2, 2).repeat(1, 1, 1, 2, 2)}
    FusionLoss()(net.heads(torch.randn(2, 2, 8, 8, 8)), truth).backward()
    without = [name for name, item in net.named_parameters() if item.grad is None or not item.grad.abs().sum() > 0]
    # a gate's bias alone: a softmax over modalities does not change with what all of them have in common
    assert all(".bias" in name for name in without), without
