from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.geometry import apply, same_grid
from pipeline.registration.transforms import outside_value, resample_image, resample_labels
from pipeline.volumes import affine_of, transform_from_matrix, volume
from tests.registration.phantom import HeadPair, oblique_grid, rigid

MOTION = rigid((11, -7, 5), (6, -9, 4))


@pytest.fixture
def labels(pair: HeadPair) -> torch.Tensor:
    values = pair.mr.numpy()
    marks = np.select([values > 700, values > 300, values > 100], [9, 4, 2], 0).astype(np.uint8)
    return volume(marks, affine_of(pair.mr))


def test_a_resampled_image_equals_another_implementation(pair: HeadPair) -> None:
    moved = resample_image(pair.mr, pair.ct, transform_from_matrix(MOTION), outside=-5.0)
    assert same_grid(moved.shape, affine_of(moved), pair.ct.shape, affine_of(pair.ct))
    assert moved.dtype == torch.float32
    index = np.argwhere(np.ones(pair.ct.shape[1:], bool))
    world = apply(MOTION, apply(affine_of(pair.ct), index))
    source = apply(np.linalg.inv(affine_of(pair.mr)), world)
    expected = ndimage.map_coordinates(pair.mr.numpy()[0], source.T, np.float64, order=1, mode="mirror")
    size = np.array(pair.mr.shape[1:])
    inside = ((source >= 0) & (source <= size - 1)).all(axis=1)
    assert inside.sum() > 10_000
    np.testing.assert_allclose(moved.numpy()[0].ravel()[inside], expected[inside], atol=0.05)
    outside = ((source < -1) | (source > size)).any(axis=1)
    assert outside.sum() > 1000
    assert (moved.numpy()[0].ravel()[outside] == -5.0).all()


def test_a_linear_ramp_moves_exactly() -> None:
    """Linear interpolation is exact on HU = x + 2 y + 4 z."""
    shape, affine = (24, 20, 18), oblique_grid((24, 20, 18), (2.0, 3.0, 4.0), (12, -20, 8), (5, 9, -3))
    weights = np.array([1.0, 2.0, 4.0])
    values = (apply(affine, np.argwhere(np.ones(shape, bool))) @ weights).reshape(shape)
    grid = volume(np.zeros((8, 7, 6)), oblique_grid((8, 7, 6), (2.5, 2.0, 3.0), (0, 15, -9), (4, 8, -2)))
    motion = rigid((4, 3, -6), (2, -1, 3))
    moved = resample_image(volume(values, affine), grid, transform_from_matrix(motion), outside=-1000.0)
    expected = apply(motion, apply(affine_of(grid), np.argwhere(np.ones((8, 7, 6), bool)))) @ weights
    np.testing.assert_allclose(moved.numpy().ravel(), expected, atol=1e-3)


def test_labels_go_by_nearest_neighbour(pair: HeadPair, labels: torch.Tensor) -> None:
    moved = resample_labels(labels, pair.ct, transform_from_matrix(MOTION))
    assert moved.dtype == torch.uint8
    assert set(np.unique(moved.numpy())) == {0, 2, 4, 9}
    world = apply(MOTION, apply(affine_of(pair.ct), np.argwhere(np.ones(pair.ct.shape[1:], bool))))
    source = apply(np.linalg.inv(affine_of(labels)), world)
    nearest = np.round(source).astype(int)
    inside = ((nearest >= 0) & (nearest < labels.shape[1:])).all(axis=1)
    clear = inside & (np.abs(source - nearest) < 0.49).all(axis=1)  # no tie that may be rounded either way
    expected = labels.numpy()[0][tuple(nearest[clear].T)]
    np.testing.assert_array_equal(moved.numpy()[0].ravel()[clear], expected)


def test_labels_have_to_be_whole_numbers(pair: HeadPair) -> None:
    with pytest.raises(CaseError, match="fractions") as caught:
        resample_labels(pair.mr, pair.ct, sitk.Transform())
    assert caught.value.code == "E_DTYPE"


def test_a_label_that_was_not_there_is_refused(
    pair: HeadPair, labels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sitk, "sitkNearestNeighbor", sitk.sitkLinear)
    with pytest.raises(CaseError, match="got also") as caught:
        resample_labels(labels, pair.ct, transform_from_matrix(MOTION))
    assert caught.value.code == "E_DTYPE"


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_a_saved_transform_resamples_identically(pair: HeadPair, tmp_path: Path, suffix: str) -> None:
    transform = transform_from_matrix(MOTION)
    path = str(tmp_path / f"mr{suffix}")
    sitk.WriteTransform(transform, path)
    before = resample_image(pair.mr, pair.ct, transform, outside=0.0)
    after = resample_image(pair.mr, pair.ct, sitk.ReadTransform(path), outside=0.0)
    assert torch.equal(before.as_tensor(), after.as_tensor())


def test_what_was_not_acquired_is_air_in_ct_and_the_minimum_elsewhere(pair: HeadPair) -> None:
    assert outside_value(pair.ct, "CT") == -1000.0
    assert outside_value(pair.mr, "MR") == float(pair.mr.min())
