from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.geometry import LPS_RAS, apply
from pipeline.registration.transforms import back_and_forth_mm, compose, resample_labels
from pipeline.registration.warp import Spline, Warp, as_transform, inverse_grid, invert
from pipeline.volumes import affine_of, transform_from_matrix, volume
from tests.registration.phantom import oblique_grid, rigid

CONTROL_MM = 12.0
AFFINE = oblique_grid((30, 26, 22), (2.0, 3.0, 4.0), (8, -12, 20), (5, -4, 3))
GRID = volume(np.zeros((30, 26, 22), np.float32), AFFINE)
MOTION = rigid((6, -4, 9), (5, -3, 7))


def control_points() -> tuple[np.ndarray, np.ndarray]:
    """The fixed parameters of control points that reach beyond the grid, turned as it is, and where they lie (LPS)."""
    matrix = LPS_RAS @ AFFINE
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    size = np.array([11, 13, 14])
    centre = apply(matrix, [[14.5, 12.5, 10.5]])[0]
    origin = centre - axes @ (CONTROL_MM * (size - 1) / 2)
    fixed = np.concatenate([size, origin, np.full(3, CONTROL_MM), axes.ravel()])
    index = np.indices(size[::-1]).reshape(3, -1)[::-1].T  # the first axis runs fastest
    return fixed, origin + index * CONTROL_MM @ axes.T


def waves(amplitude_mm: float) -> Spline:
    fixed, points = control_points()
    numbers = amplitude_mm * np.sin(points[:, [1, 2, 0]] / 18.0 + [0.3, 1.1, 2.0])
    return Spline(fixed, numbers.T.ravel())


def inner_points(count: int = 400) -> np.ndarray:
    return apply(AFFINE, np.random.default_rng(1).uniform(2, [27, 23, 19], (count, 3)))


def test_a_map_is_what_itk_makes_of_its_transforms() -> None:
    warp = Warp(MOTION, waves(3.0))
    points = apply(AFFINE, np.random.default_rng(0).uniform(-15, 45, (3000, 3)))  # also where no control points are
    transform = as_transform(warp.transforms)
    expected = np.array([transform.TransformPoint(point.tolist()) for point in apply(LPS_RAS, points)])
    np.testing.assert_allclose(apply(LPS_RAS, warp(points)), expected, atol=1e-9)
    bent = np.linalg.norm(warp(points) - apply(MOTION, points), axis=1) > 1e-6
    assert 0.1 < bent.mean() < 0.9


def test_the_jacobian_of_a_linear_map_is_its_determinant() -> None:
    matrix = MOTION @ np.diag([1.2, 0.9, 1.1, 1.0])
    np.testing.assert_allclose(Warp(matrix).jacobian(inner_points()), 1.2 * 0.9 * 1.1, rtol=1e-9)


def test_the_jacobian_of_an_analytic_field() -> None:
    """Control points displaced by a linear field give that field, whose determinant is known; the motion adds none."""
    fixed, points = control_points()
    slope = np.array([[0.15, 0.05, 0.0], [-0.1, -0.2, 0.02], [0.0, 0.04, 0.1]])
    warp = Warp(MOTION, Spline(fixed, (points @ slope.T).T.ravel()))
    np.testing.assert_allclose(warp.jacobian(inner_points()), np.linalg.det(np.eye(3) + slope), rtol=1e-6)


def test_the_jacobian_agrees_with_simpleitk_and_shows_folding() -> None:
    strong = waves(22.0)
    points = inner_points(2000)
    field = sitk.TransformToDisplacementField(
        strong.transform, sitk.sitkVectorFloat64, (121, 121, 121), (-60, -60, -60), (1.0, 1.0, 1.0)
    )
    determinants = sitk.DisplacementFieldJacobianDeterminant(field)
    inside = (np.abs(apply(LPS_RAS, points)) < 55).all(axis=1)
    index = np.round(apply(LPS_RAS, points[inside])).astype(int)
    expected = np.array([determinants[tuple(int(n) + 60 for n in place)] for place in index])
    found = Warp(np.eye(4), strong).jacobian(apply(LPS_RAS, index.astype(float)))
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert (found <= 0).mean() > 0.02
    assert (Warp(np.eye(4), waves(3.0)).jacobian(points) > 0).all()


def test_a_displacement_is_undone_by_its_inverse() -> None:
    spline = waves(4.0)
    points = apply(LPS_RAS, inner_points())
    forth = points + spline.displacements(points)
    np.testing.assert_allclose(forth + invert(spline, forth), points, atol=5e-3)
    assert np.linalg.norm(forth - points, axis=1).max() > 4


def test_the_stored_inverse_of_a_bending_map_leads_back_within_half_a_millimetre() -> None:
    warp = Warp(MOTION, waves(4.0))
    back = as_transform(warp.inverse(GRID))
    points = inner_points()
    lps = np.array([back.TransformPoint(point.tolist()) for point in apply(LPS_RAS, warp(points))])
    apart = np.linalg.norm(apply(LPS_RAS, lps) - points, axis=1)
    assert apart.max() <= 0.5
    assert back_and_forth_mm(warp, back, points, volume(GRID.numpy(), MOTION @ AFFINE)) == pytest.approx(apart.max())


def test_the_inverse_of_a_linear_map_is_exact() -> None:
    (back,) = Warp(MOTION).inverse(GRID)
    assert back_and_forth_mm(Warp(MOTION), back, inner_points(), volume(GRID.numpy(), MOTION @ AFFINE)) < 1e-9


def test_nothing_to_measure_where_no_point_is_seen() -> None:
    assert back_and_forth_mm(Warp(rigid((0, 0, 0), (900, 0, 0))), sitk.Transform(), inner_points(), GRID) is None


def test_the_inverses_grid_covers_the_image_and_is_not_finer_than_needed() -> None:
    fine = volume(np.zeros((41, 30, 11), np.float32), np.diag([0.5, 0.7, 3.0, 1.0]))
    shape, affine = inverse_grid(fine)
    np.testing.assert_allclose(np.diag(affine)[:3], [2.0, 1.4, 3.0])
    assert ((np.array(shape) - 1) * np.diag(affine)[:3] >= [20.0, 20.3, 30.0]).all()
    assert shape == (11, 16, 11)


def test_two_linear_ways_become_one() -> None:
    second = rigid((-20, 3, 14), (1, 2, 3))
    (one,) = compose([transform_from_matrix(second)], [transform_from_matrix(MOTION)])
    points = inner_points(20)
    found = np.array([one.TransformPoint(point.tolist()) for point in apply(LPS_RAS, points)])
    np.testing.assert_allclose(apply(LPS_RAS, found), apply(second, apply(MOTION, points)), atol=1e-9)


def test_a_bending_way_stays_in_its_place() -> None:
    warp = Warp(MOTION, waves(3.0))
    second = rigid((-20, 3, 14), (1, 2, 3))
    way = as_transform(compose([transform_from_matrix(second)], warp.transforms))
    points = inner_points(50)
    found = np.array([way.TransformPoint(point.tolist()) for point in apply(LPS_RAS, points)])
    np.testing.assert_allclose(apply(LPS_RAS, found), apply(second, warp(points)), atol=1e-9)


def test_labels_go_through_a_bending_map() -> None:
    """A ball that was bent away comes back where it was: Dice with the ball itself."""
    warp = Warp(MOTION, waves(4.0))
    index = np.indices(GRID.shape[1:]).reshape(3, -1).T
    centre = apply(AFFINE, [[15, 13, 11]])[0]
    ball = (np.linalg.norm(apply(AFFINE, index) - centre, axis=1) < 20).reshape(GRID.shape[1:])
    marks = volume(ball.astype(np.uint8) * 7, AFFINE)
    # the fixed image's ball, drawn in the moving image's space by the way back
    space = volume(
        np.zeros((60, 70, 60), np.uint8), oblique_grid((60, 70, 60), (1.5, 1.5, 1.5), (0, 0, 0), tuple(centre))
    )
    moving = resample_labels(marks, space, as_transform(warp.inverse(GRID)))
    again = resample_labels(moving, GRID, as_transform(warp.transforms))
    both = (again.numpy()[0] == 7) & ball
    assert set(np.unique(again.numpy())) == {0, 7}
    assert 2 * both.sum() / ((again.numpy()[0] == 7).sum() + ball.sum()) > 0.93
    unbent = resample_labels(moving, GRID, transform_from_matrix(MOTION))
    assert 2 * ((unbent.numpy()[0] == 7) & ball).sum() / ((unbent.numpy() == 7).sum() + ball.sum()) < 0.93
    assert affine_of(again).tolist() == AFFINE.tolist()
