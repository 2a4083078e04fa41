"""What the network is given: channels in order, what is missing said, patches where they should be, balanced draws."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import CaseError
from pipeline.fusion.data import (
    CheckMaskd,
    DropModalitiesd,
    FindBodyd,
    ForNetworkd,
    PatchAtLesiond,
    PatchAtRandomd,
    StackModalitiesd,
)
from pipeline.learning.sampling import BalancedCases
from pipeline.learning.table import Row
from pipeline.volumes import volume
from tests.phantoms.mechanism_files import AFFINE

SHAPE = (8, 6, 10)


def image(value: float, affine: np.ndarray = AFFINE) -> MetaTensor:
    return volume(np.full(SHAPE, value, dtype=np.float32), affine)


def mask(*voxels: tuple[int, int, int]) -> MetaTensor:
    array = np.zeros(SHAPE, dtype=np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    return volume(array, AFFINE)


def test_modalities_become_channels_in_the_network_s_order() -> None:
    case = StackModalitiesd(["ct", "mr", "pet"])({"pet": image(3), "ct": image(1), "case_id": "a"})
    assert case["image"].shape == (3, *SHAPE) and case["image"].mean((1, 2, 3)).tolist() == [1, 0, 3]
    assert case["available"].tolist() == [True, False, True]
    assert np.array_equal(case["image"].affine, AFFINE) and "ct" not in case and case["case_id"] == "a"


def test_unaligned_modalities_are_refused() -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    with pytest.raises(CaseError, match=r"E_GRID.*ct and mr .* voxels, corners up to 0.5 mm apart"):
        StackModalitiesd(["ct", "mr"])({"ct": image(1), "mr": image(1, moved)})
    with pytest.raises(CaseError, match=r"E_GRID.*one channel of ct, got 2"):
        StackModalitiesd(["ct"])({"ct": volume(np.zeros((2, *SHAPE)), AFFINE)})
    with pytest.raises(CaseError, match="E_MISSING_ROLE"):
        StackModalitiesd(["ct", "mr"])({"case_id": "a"})


def test_masks_are_checked_and_their_absence_is_said() -> None:
    known = CheckMaskd(2)({"image": image(1), "mask": mask((1, 2, 3))})
    assert bool(known["mask_known"]) and int(known["mask"].sum()) == 1
    absent = CheckMaskd(2)({"image": image(1)})
    assert not bool(absent["mask_known"]) and absent["mask"].shape == (1, *SHAPE) and int(absent["mask"].sum()) == 0
    with pytest.raises(CaseError, match=r"E_LABEL.*0 to 1, got up to 2"):
        CheckMaskd(2)({"image": image(1), "mask": mask((1, 1, 1)) * 2})
    with pytest.raises(CaseError, match="E_GRID"):
        CheckMaskd(2)({"image": image(1), "mask": mask((1, 1, 1))[:, :4]})
    with pytest.raises(CaseError, match=r"E_GRID.*one channel of the mask, got 2"):
        CheckMaskd(2)({"image": image(1), "mask": volume(np.zeros((2, *SHAPE), np.uint8), AFFINE)})


def test_the_body_is_that_of_the_first_image_that_is_there() -> None:
    """As CT the body is what lies above -300 HU; as MR what is bright against the rest."""
    array = np.full((24, 24, 24), -1000, dtype=np.float32)
    array[4:20, 5:19, 6:18] = 40
    array[8:12, 8:12, 8:12] = 3000
    find = FindBodyd(["ct", "mr"], ["ct"])
    body = find({"ct": volume(array, np.eye(4)), "mr": image(1)})["body"]
    inside = np.zeros(array.shape, dtype=bool)
    inside[4:20, 5:19, 6:18] = True
    overlap = 2 * (inside & (body.numpy()[0] > 0)).sum() / (inside.sum() + int(body.sum()))
    assert overlap > 0.95
    assert find({"mr": volume(array, np.eye(4))})["body"].shape == (1, 24, 24, 24)
    assert "body" not in find({"case_id": "a"})


def test_dropout_hides_at_its_rate_and_never_all() -> None:
    """Each of two is hidden with p = .3, and of the .09 in which both would be, one stays: each is there in .745."""
    drop = DropModalitiesd(0.3)
    drop.set_random_state(1)
    there = torch.stack([drop({"available": torch.tensor([True, True])})["available"] for _ in range(4000)])
    assert bool(there.any(1).all())
    assert there.float().mean(0).tolist() == pytest.approx([0.745, 0.745], abs=0.025)
    assert there.all(1).float().mean().item() == pytest.approx(0.49, abs=0.025)
    only = [drop({"available": torch.tensor([False, True, False])})["available"].tolist() for _ in range(50)]
    assert only == [[False, True, False]] * 50


def test_the_validation_patch_lies_around_the_lesion_and_inside() -> None:
    places = volume(np.indices(SHAPE).astype(np.float32)[:, ...], AFFINE)
    case: dict[Any, Any] = {"image": places, "mask": mask((5, 3, 8), (7, 3, 8))}
    patch = PatchAtLesiond([4, 4, 4])(case)
    assert patch["image"].shape == (3, 4, 4, 4) and int(patch["mask"].sum()) == 2
    assert patch["image"][:, 0, 0, 0].tolist() == [4, 1, 6]
    empty = PatchAtLesiond([4, 4, 4])({"image": places, "mask": mask()})
    assert empty["image"][:, 0, 0, 0].tolist() == [2, 1, 3]


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0)])
def test_training_patches_lie_around_the_lesion_as_often_as_asked(share: float, expected: float) -> None:
    crop = PatchAtRandomd([1, 1, 1], share)
    crop.set_random_state(3)
    hits = [int(crop({"image": image(1), "mask": mask((5, 3, 8))})["mask"].sum()) for _ in range(20)]
    assert np.mean(hits) == expected


def test_patches_follow_their_seed() -> None:
    def draws() -> list[float]:
        places = volume(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), AFFINE)
        return [float(crop({"image": places, "mask": mask((5, 3, 8))})["image"][0, 0, 0, 0]) for _ in range(8)]

    crop = PatchAtRandomd([2, 2, 2], 0.5)
    crop.set_random_state(3)
    first = draws()
    crop.set_random_state(3)
    assert draws() == first and len(set(first)) > 1


def test_the_network_is_given_plain_tensors() -> None:
    case = ForNetworkd(2)({"image": image(1), "mask": mask(), "mask_known": torch.tensor(True), "label": 1, "mr": "x"})
    assert type(case["image"]) is torch.Tensor and "mr" not in case and case["label"].item() == 1
    assert torch.isnan(case["table"]).all() and case["table"].shape == (2,)


def rows(labels: list[int]) -> list[Row]:
    return [Row(str(n), str(n), {"ct": Path("x")}, label, None, (), None) for n, label in enumerate(labels)]


def test_classes_are_drawn_equally_often_and_the_same_every_time() -> None:
    labels = [0] * 90 + [1] * 10
    sampler = BalancedCases(rows(labels), seed=1, draws=4000)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 4000
    assert Counter(labels[index] for index in drawn)[1] / 4000 == pytest.approx(0.5, abs=0.03)
    assert list(sampler) == drawn
    sampler.set_epoch(2)
    assert list(sampler) != drawn
