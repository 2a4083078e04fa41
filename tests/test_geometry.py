from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from pipeline import geometry, volumes
from pipeline.errors import CaseError

ROTATION = Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix()
SPACING = np.array([0.7, 1.3, 2.9])


def oblique() -> np.ndarray:
    """An oblique, anisotropic affine: nothing in it is symmetric, so that every flip shows."""
    affine = np.eye(4)
    affine[:3, :3] = ROTATION * SPACING
    affine[:3, 3] = (-31.0, 12.5, 140.0)
    return affine


def ramp() -> np.ndarray:
    return np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def test_a_voxel_keeps_its_place_in_sitk() -> None:
    """The world position of each voxel, and the value there, are the same for SimpleITK (LPS) and for us (RAS)."""
    array, affine = ramp(), oblique()
    image = volumes.to_sitk(volumes.volume(array, affine))
    for index in itertools.product(range(3), range(4), range(5)):
        ras = affine @ [*index, 1]
        lps = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(lps, [-ras[0], -ras[1], ras[2]], atol=1e-9)
        assert image.GetPixel(*index) == array[index]


def test_to_sitk_and_back_is_exact() -> None:
    back = volumes.from_sitk(volumes.to_sitk(volumes.volume(ramp(), oblique())))
    assert np.array_equal(back.numpy()[0], ramp())
    np.testing.assert_allclose(volumes.affine_of(back), oblique(), atol=1e-12)
    assert back.meta["space"] == "RAS"


def test_affine_from_dicom_follows_the_standard() -> None:
    """DICOM PS3.3 C.7.6.2.1.1, written out for one voxel: P = S + X*di*i + Y*dj*j, in LPS."""
    row, column = ROTATION[:, 0], ROTATION[:, 1]
    first, step = np.array([10.0, -20.0, 30.0]), ROTATION[:, 2] * 2.5
    affine = geometry.affine_from_dicom([*row, *column], (0.8, 0.5), first, first + 6 * step, 7)
    i, j, k = 11, 4, 3  # column, row, slice
    lps = first + row * 0.5 * i + column * 0.8 * j + step * k
    np.testing.assert_allclose(affine @ [i, j, k, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-9)


def test_orientation_and_spacing_agree_with_nibabel() -> None:
    affine = oblique()[:, [1, 2, 0, 3]] @ np.diag([-1, 1, 1, 1])
    assert geometry.orientation_of(affine) == "".join(nib.aff2axcodes(affine))
    np.testing.assert_allclose(geometry.spacing_mm(affine), SPACING[[1, 2, 0]])


@pytest.mark.parametrize(("shift_voxels", "same"), [(0.0, True), (5e-4, True), (5e-3, False), (1.0, False)])
def test_same_grid_has_a_tolerance(shift_voxels: float, same: bool) -> None:
    moved = oblique()
    moved[:3, 3] += shift_voxels * SPACING.min()
    assert geometry.same_grid((3, 4, 5), oblique(), (3, 4, 5), moved) is same
    assert not geometry.same_grid((3, 4, 5), oblique(), (3, 4, 6), oblique())


def test_a_mirrored_grid_is_another_grid() -> None:
    mirrored = oblique() @ np.diag([-1, 1, 1, 1])
    mirrored[:3, 3] += oblique()[:3, 0] * 2
    with pytest.raises(CaseError, match="E_GRID"):
        volumes.require_same_grid(volumes.volume(ramp(), oblique()), volumes.volume(ramp(), mirrored), ("ct", "mr"))


@pytest.mark.parametrize(
    "affine",
    [np.eye(3), np.full((4, 4), np.nan), np.diag([1, 0, 1, 1]), np.array([[1, 0.1, 0, 0], *np.eye(4)[1:]])],
    ids=["3x3", "nan", "flat", "sheared"],
)
def test_unusable_affines_are_refused(affine: np.ndarray) -> None:
    with pytest.raises(CaseError, match="E_AFFINE"):
        geometry.check_affine(affine)


def test_a_transform_maps_as_its_matrix_does() -> None:
    matrix = oblique() @ np.diag([1 / 0.7, 1 / 1.3, 1 / 2.9, 1])
    transform = volumes.transform_from_matrix(matrix)
    point_ras = np.array([12.0, -7.0, 33.0])
    lps = np.array(transform.TransformPoint((point_ras * [-1, -1, 1]).tolist()))
    np.testing.assert_allclose(lps * [-1, -1, 1], (matrix @ [*point_ras, 1])[:3], atol=1e-9)
    np.testing.assert_allclose(volumes.matrix_from_transform(transform), matrix, atol=1e-9)


def test_a_bending_transform_has_no_matrix() -> None:
    bspline = sitk.BSplineTransformInitializer(sitk.Image(20, 20, 20, sitk.sitkUInt8), [3, 3, 3])
    bspline.SetParameters(np.random.default_rng(0).normal(0, 3, len(bspline.GetParameters())).tolist())
    with pytest.raises(CaseError, match="E_AFFINE"):
        volumes.matrix_from_transform(bspline)
