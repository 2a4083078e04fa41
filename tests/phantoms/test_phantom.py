from __future__ import annotations

import numpy as np
import pytest

from pipeline import geometry, volumes
from tests.phantoms.phantom import expected_values, position_error, position_phantom


def test_values_at_points_computed_by_hand() -> None:
    image = position_phantom((3, 4, 5), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), (10.0, -20.0, 30.0))
    # voxel (1, 2, 3) lies at RAS (11, -16, 39), which is LPS (-11, 16, 39): -11 + 2 * 16 + 4 * 39
    assert image[0, 1, 2, 3] == pytest.approx(177.0)
    turned = position_phantom((3, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 90.0), (0.0, 0.0, 0.0))
    # a quarter turn about z takes voxel (2, 0, 0) to RAS (0, 2, 0), which is LPS (0, -2, 0)
    assert turned[0, 2, 0, 0] == pytest.approx(-4.0, abs=1e-5)


def test_default_is_oblique_anisotropic_and_fits_16_bits() -> None:
    image = position_phantom()
    affine = volumes.affine_of(image)
    assert np.abs(affine[:3, :3]).min() > 0.05
    assert geometry.spacing_mm(affine) == pytest.approx([0.9, 1.1, 2.5])
    assert len(set(image.shape[1:])) == 3
    gradient_per_mm = np.array([-1.0, -2.0, 4.0]) @ affine[:3, :3] / [0.9, 1.1, 2.5]
    assert np.abs(gradient_per_mm).min() > 2.0
    assert float(image.min()) >= -1024 and float(image.max()) < 32767
    assert position_error(image) < 1e-3


def test_every_error_of_geometry_or_value_shows() -> None:
    image = position_phantom()
    values, affine = image.numpy()[0], volumes.affine_of(image)
    for axis in range(3):
        assert position_error(volumes.volume(np.flip(values, axis), affine)) > 10
    moved = affine.copy()
    moved[2, 3] += 1.0
    assert position_error(volumes.volume(values, moved)) == pytest.approx(4.0, abs=1e-3)
    one_wrong = values.copy()
    one_wrong[3, 4, 5] += 7.0
    assert position_error(volumes.volume(one_wrong, affine)) == pytest.approx(7.0, abs=1e-3)


def test_expected_values_take_a_sheared_affine() -> None:
    affine = np.array([[1.0, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    # voxel (1, 1, 2): RAS (2, 1, 4), LPS (-2, -1, 4)
    assert expected_values((2, 2, 3), affine)[1, 1, 2] == pytest.approx(-2 - 2 + 16)
