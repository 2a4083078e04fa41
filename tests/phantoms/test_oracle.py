"""The oracle finds every error of geometry or value that a reader can make, and only those."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import volumes
from tests.phantoms.oracle import FloatArray, Truth, coverage, error_hu, judge_volumes
from tests.phantoms.phantom import expected_values, position_phantom

SHAPE = (12, 10, 8)
Volume = tuple[FloatArray, FloatArray]


@pytest.fixture
def volume() -> Volume:
    image = position_phantom(SHAPE)
    return np.rint(image.numpy()[0].astype(float)), volumes.affine_of(image)


@pytest.fixture
def truth(volume: Volume) -> Truth:
    return Truth(SHAPE, volume[1])


def moved(affine: FloatArray, axis: int, by_voxels: float) -> FloatArray:
    result = affine.copy()
    result[:3, 3] += by_voxels * affine[:3, axis]
    return result


def test_the_volume_itself_is_right_in_any_orientation(volume: Volume, truth: Truth) -> None:
    values, affine = volume
    assert judge_volumes([volume], [truth]) == "right"
    flip = affine.copy()
    flip[:3, 0], flip[:3, 3] = -affine[:3, 0], affine[:3, 3] + 11 * affine[:3, 0]
    assert judge_volumes([(values[::-1], flip)], [truth]) == "right"
    assert judge_volumes([(values.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])], [truth]) == "right"


def test_errors_of_geometry_are_wrong(volume: Volume, truth: Truth) -> None:
    values, affine = volume
    stretched = affine.copy()
    stretched[:3, 2] *= 1.05
    for wrong in [moved(affine, axis, 0.5) for axis in range(3)] + [stretched, affine[:, [1, 0, 2, 3]]]:
        assert judge_volumes([(values, wrong)], [truth]) == "wrong"
    assert judge_volumes([(values[::-1], affine)], [truth]) == "wrong"


def test_errors_of_value_are_wrong(volume: Volume, truth: Truth) -> None:
    values, affine = volume
    for voxel in ((0, 0, 0), (5, 4, 3), (11, 9, 7)):
        one = values.copy()
        one[voxel] += 2
        assert judge_volumes([(one, affine)], [truth]) == "wrong"
    assert judge_volumes([(np.full_like(values, np.nan), affine)], [truth]) == "wrong"
    assert judge_volumes([(values + 100, affine)], [truth]) == "wrong"


def test_half_a_volume_is_incomplete_and_two_are_told_apart(volume: Volume, truth: Truth) -> None:
    values, affine = volume
    assert judge_volumes([(values[:, :, :4], affine)], [truth]) == "incomplete"
    second = Truth(SHAPE, affine, offset_hu=100.0)
    assert judge_volumes([volume], [truth, second]) == "incomplete"
    assert judge_volumes([(values + 100, affine), volume], [truth, second]) == "right"
    mixed = values.copy()
    mixed[:, :, 4:] += 100
    assert judge_volumes([(mixed, affine)], [truth, second]) == "wrong"


def test_a_stray_slice_beside_the_volume_has_to_be_right_too(volume: Volume, truth: Truth) -> None:
    affine = volumes.affine_of(position_phantom((9, 7, 1), angles_deg=(60.0, 5.0, 20.0)))
    stray = np.rint(expected_values((9, 7, 1), affine))
    assert judge_volumes([volume, (stray, affine)], [truth]) == "right"
    assert judge_volumes([volume, (stray, moved(affine, 0, 2))], [truth]) == "wrong"


def test_what_lies_beyond_may_be_filled_with_one_value_only(volume: Volume, truth: Truth) -> None:
    values, affine = volume
    wide = np.pad(values, ((3, 0), (0, 0), (0, 0)), constant_values=-1000.0)
    assert judge_volumes([(wide, moved(affine, 0, -3))], [truth]) == "right"
    wide[1, 2, 3] = 40.0
    assert judge_volumes([(wide, moved(affine, 0, -3))], [truth]) == "wrong"


def test_padding_has_to_be_air(volume: Volume) -> None:
    values, affine = volume
    padded = Truth(SHAPE, affine, padded_above_hu=150.0)
    air = np.where(expected_values(SHAPE, affine) > 150.0, -1000.0, values)
    assert (air == -1000.0).sum() > 50
    assert judge_volumes([(air, affine)], [padded]) == "right"
    assert judge_volumes([(np.where(air == -1000.0, 62512.0, air), affine)], [padded]) == "wrong"


def test_a_sheared_stack_is_judged_in_its_own_grid() -> None:
    sheared = volumes.affine_of(position_phantom(SHAPE))
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    truth = Truth(SHAPE, sheared)
    values = np.rint(expected_values(SHAPE, sheared))
    assert error_hu(values, sheared, truth) <= 0.5
    straight = sheared.copy()
    straight[:3, 2] -= 0.4 * sheared[:3, 1]
    assert error_hu(values, straight, truth) > 3


def test_coverage_counts_samples(volume: Volume, truth: Truth) -> None:
    assert coverage(SHAPE, volume[1], truth) == 1.0
    assert coverage((12, 10, 6), volume[1], truth) == pytest.approx(0.75)
    assert coverage(SHAPE, moved(volume[1], 0, 3), truth) == pytest.approx(0.75)
