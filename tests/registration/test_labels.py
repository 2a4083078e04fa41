from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.registration import AlignmentLimits
from pipeline.registration.findings import judge_labels, label_numbers
from pipeline.volumes import transform_from_matrix, volume
from tests.registration.phantom import oblique_grid, rigid

LIMITS = AlignmentLimits()
POSE = rigid((7, -5, 11), (12, -9, 20))


def box(
    shape: tuple[int, int, int], affine: np.ndarray, centre_mm: np.ndarray, value: int, half_mm: float
) -> MetaTensor:
    """A cube about a centre, along the axes of the world."""
    index = np.indices(shape).reshape(3, -1).T
    points = index @ affine[:3, :3].T + affine[:3, 3]
    inside = (np.abs(points - centre_mm) <= half_mm).all(axis=1).reshape(shape)
    return volume((inside * value).astype(np.uint8), affine)


@pytest.fixture
def grids() -> tuple[np.ndarray, np.ndarray]:
    fixed = oblique_grid((40, 44, 36), (2.0, 2.0, 2.5), (4, -6, 10), (5, 3, -2))
    moving = POSE @ oblique_grid((38, 42, 40), (2.2, 1.8, 2.1), (-3, 5, 2), (5, 3, -2))
    return fixed, moving


@pytest.mark.parametrize("apart", [(0.0, 0, 0), (0, 4, 0), (3, -2, 6)])
def test_distance_and_dice_of_cubes_that_are_known(
    grids: tuple[np.ndarray, np.ndarray], apart: tuple[float, float, float]
) -> None:
    """The moving cube lies where the pose sends the fixed one, moved by a known way; two cubes' Dice is a product."""
    half = 15.0
    centre = np.array([6.0, 2.0, -1.0])
    fixed = box((40, 44, 36), grids[0], centre, 1, half)
    shape = (38, 42, 40)
    index = np.indices(shape).reshape(3, -1).T
    seen = np.linalg.inv(POSE) @ grids[1]
    points = index @ seen[:3, :3].T + seen[:3, 3]
    inside = (np.abs(points - centre - apart) <= half).all(axis=1).reshape(shape)
    moving = volume((inside * 3).astype(np.uint8), grids[1])
    found = label_numbers([((fixed, 1), (moving, 3))], transform_from_matrix(POSE))
    assert found["label_distance_mm"] == pytest.approx(np.linalg.norm(apart), abs=0.4)
    middle = POSE[:3, :3] @ (centre + apart) + POSE[:3, 3]
    assert found["label_distance_before_mm"] == pytest.approx(np.linalg.norm(middle - centre), abs=0.4)
    assert found["label_dice"] == pytest.approx(np.prod(1 - np.abs(apart) / (2 * half)), abs=0.06)


def test_the_worst_of_several_regions_counts(grids: tuple[np.ndarray, np.ndarray]) -> None:
    near, far = (box((40, 44, 36), grids[0], np.array(centre), 1, 8.0) for centre in ((0.0, 0, 0), (10.0, 0, 0)))
    same, apart = ((near, 1), (near, 1)), ((near, 1), (far, 1))
    found = label_numbers([same, apart], sitk.Transform(3, sitk.sitkIdentity))
    assert found["label_distance_mm"] == pytest.approx(10.0, abs=0.3)
    assert found["label_distance_before_mm"] == found["label_distance_mm"] and found["label_dice"] < 0.5


def test_an_empty_region_is_not_compared(grids: tuple[np.ndarray, np.ndarray]) -> None:
    drawn = box((40, 44, 36), grids[0], np.zeros(3), 1, 8.0)
    empty = volume(np.zeros((40, 44, 36), np.uint8), grids[0])
    assert label_numbers([((drawn, 1), (empty, 1))], sitk.Transform(3, sitk.sitkIdentity)) == {}


@pytest.mark.parametrize(("apart_mm", "kinds"), [(5.0, []), (5.1, ["warn"]), (60.0, ["warn"])])
def test_labels_that_lie_apart_are_a_warning_and_never_a_failure(apart_mm: float, kinds: list[str]) -> None:
    numbers = {"label_distance_mm": apart_mm, "label_distance_before_mm": 3.14, "label_dice": 0.5}
    found = judge_labels(numbers, LIMITS)
    assert [kind for kind, _ in found] == kinds
    assert all(f"{apart_mm:.1f} mm apart" in text and "3.1 mm by the headers" in text for _, text in found)


@pytest.mark.parametrize(("apart_mm", "before_mm", "kinds"), [(3.45, 0.0, ["warn"]), (3.0, 0.6, []), (1.0, 4.9, [])])
def test_a_label_that_the_alignment_has_moved_away_is_a_warning(
    apart_mm: float, before_mm: float, kinds: list[str]
) -> None:
    numbers = {"label_distance_mm": apart_mm, "label_distance_before_mm": before_mm, "label_dice": 0.9}
    found = judge_labels(numbers, LIMITS)
    assert [kind for kind, _ in found] == kinds
    assert all("3.5 mm apart" in text or "3.4 mm apart" in text for _, text in found)


def test_no_common_label_no_finding() -> None:
    assert judge_labels({}, LIMITS) == []
