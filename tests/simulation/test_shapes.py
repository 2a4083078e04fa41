"""Ellipsoids and warps against geometry worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.simulation.head import Ellipsoid
from pipeline.simulation.subject import Warp, random_warp


def test_distance_from_a_sphere_is_exact() -> None:
    points = np.random.default_rng(1).normal(0, 20, (200, 3))
    expected = np.linalg.norm(points - [1, 2, 3], axis=1) - 8
    assert Ellipsoid((1, 2, 3), (8, 8, 8)).distance_mm(points) == pytest.approx(expected)
    assert Ellipsoid((1, 2, 3), (8, 8, 8)).distance_mm([[1, 2, 3]]) == pytest.approx([-8])


def test_distance_along_the_axes_of_a_turned_ellipsoid_is_exact() -> None:
    shape = Ellipsoid((5, 0, 0), (10, 4, 2), (0, 0, 90))  # a quarter turn about z: the long axis lies along y
    points = [[5, 13, 0], [5, 9, 0], [8, 0, 0], [5, 0, -2.5]]
    assert shape.distance_mm(points) == pytest.approx([3, -1, -1, 0.5])


def test_constant_coefficients_move_everything_alike() -> None:
    warp = Warp(np.stack([np.full((11, 11, 11), value) for value in (1.0, -2.0, 3.0)]), 40.0)
    points = np.random.default_rng(2).uniform(-120, 120, (50, 3))
    assert warp(points) - points == pytest.approx(np.tile([1.0, -2.0, 3.0], (50, 1)))


def test_one_coefficient_is_a_cubic_b_spline() -> None:
    coefficients = np.zeros((3, 11, 11, 11))
    coefficients[0, 5, 5, 5] = 27.0  # the control point at the origin
    warp = Warp(coefficients, 40.0)
    # the basis is (2/3)^3 at its own point, and 1/6 along an axis at the neighbouring one
    assert warp([[0, 0, 0], [40, 0, 0], [80, 0, 0]])[:, 0] == pytest.approx([8.0, 40 + 2.0, 80.0])


def test_inverse_undoes_the_warp() -> None:
    warp = random_warp(np.random.default_rng(3))
    points = np.random.default_rng(4).uniform(-100, 100, (300, 3))
    assert np.abs(warp(warp.inverse(points)) - points).max() < 1e-6
    assert np.abs(warp(points) - points).max() > 3


def test_size_of_the_displacement_and_no_folding() -> None:
    points = np.random.default_rng(5).uniform(-100, 100, (2000, 3))
    warps = [random_warp(np.random.default_rng(seed), displacement_mm=3.0) for seed in range(20)]
    moves = np.concatenate([warp(points) - points for warp in warps])
    assert moves.std() == pytest.approx(3.0, rel=0.1)
    steps = [np.stack([(warp(points + step) - warp(points)) / 0.01 for step in np.eye(3) * 0.01], -1) for warp in warps]
    assert np.linalg.det(np.concatenate(steps)).min() > 0.2
