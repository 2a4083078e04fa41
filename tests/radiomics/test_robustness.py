"""Perturbations with known outcomes, and the intraclass correlation of published and simulated values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import CaseError
from pipeline.radiomics import Settings
from pipeline.radiomics.configurations import Configuration
from pipeline.radiomics.perturbation import (
    Perturbations,
    noise_level,
    perturbed,
    rotation,
    supervoxels,
    with_contour,
    with_volume,
)
from pipeline.radiomics.robustness import agreements, icc, perturbed_features
from pipeline.radiomics.table import Row, with_versions

Floats = npt.NDArray[np.float64]
#: Six targets rated by four judges. Source: Shrout, Fleiss 1979, table 2.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
SPACING = np.array([1.0, 1.5, 3.0])
AFFINE = np.diag([*SPACING, 1.0])


def ellipsoid(
    radii_mm: tuple[float, float, float] = (14, 11, 12), shape: tuple[int, int, int] = (44, 32, 20)
) -> Floats:
    """Off the middle of the grid."""
    axes = [
        (np.arange(size) - size / 2 - 0.3) * step / radius
        for size, step, radius in zip(shape, SPACING, radii_mm, strict=True)
    ]
    return (sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= 1).astype(np.uint8)


MASK = ellipsoid()
NOISE = np.random.default_rng(0).normal(size=MASK.shape)
IMAGE = 100 + 40 * MASK + 5 * NOISE


def test_icc_of_the_published_example() -> None:
    """Shrout and Fleiss give .17; the interval as pingouin 0.7 gives it."""
    found = icc(RATINGS)
    assert found is not None and found.regions == 6
    assert (found.icc, found.low, found.high) == pytest.approx((0.1657, -0.1329, 0.7226), abs=5e-5)


@pytest.mark.parametrize("true", [0.2, 0.8])
def test_icc_of_simulated_regions_and_how_often_its_interval_holds_the_truth(true: float) -> None:
    rng = np.random.default_rng(1)
    found = [
        icc(np.sqrt(true) * rng.normal(size=(20, 1)) + np.sqrt(1 - true) * rng.normal(size=(20, 10)))
        for _ in range(1000)
    ]
    assert np.mean([item.icc for item in found if item]) == pytest.approx(true, abs=0.03)
    held = np.mean([item.low <= true <= item.high for item in found if item])
    assert held == pytest.approx(0.95, abs=0.02)  # three standard errors


def test_icc_where_there_is_none() -> None:
    assert icc(RATINGS[:1]) is None and icc(RATINGS[:, :1]) is None and icc(np.full((5, 4), 1 / 3)) is None
    assert icc(np.where(np.arange(6)[:, None] > 0, np.nan, RATINGS)) is None
    same = icc(np.repeat([[0.1], [0.2], [0.7]], 4, 1))
    assert same is not None and (same.icc, same.low, same.high) == (1, 1, 1)


def test_agreements_leave_out_regions_without_a_value() -> None:
    rows = [[{"a": value, "b": None, "c": 1.0} for value in line] for line in RATINGS]
    rows[0][2] = {"a": None, "b": None, "c": 1.0}
    found = agreements(rows)
    assert found == {"a": icc(RATINGS[1:]), "b": None, "c": None}
    assert agreements([]) == {} and agreements([[]]) == {}


def test_nothing_asked_for_changes_nothing() -> None:
    still = Perturbations(
        chain=("rotation", "translation", "noise", "volume"),
        rotation_deg=0,
        translation_voxels=0,
        noise=0,
        volume_fraction=0,
        versions=3,
    )
    for item in perturbed(IMAGE, MASK, AFFINE, still):
        start = np.rint(np.linalg.solve(AFFINE, item.affine[:, 3])[:3]).astype(int)
        box = tuple(slice(a, a + size) for a, size in zip(start, item.image.shape, strict=True))
        np.testing.assert_array_equal(item.image, IMAGE[box])
        np.testing.assert_array_equal(item.mask, MASK[box])
        assert item.mask.sum() == MASK.sum() and item.image.shape < IMAGE.shape


def test_the_same_content_gives_the_same_versions_wherever_it_lies() -> None:
    wanted = Perturbations(chain=("rotation", "translation", "noise", "volume", "contour"), versions=3)
    first, again = perturbed(IMAGE, MASK, AFFINE, wanted), perturbed(IMAGE, MASK * 3, AFFINE, wanted, label=3)
    wide = [np.pad(item, 40, mode="edge") for item in (IMAGE, MASK)]
    far = perturbed(*wide, AFFINE, Perturbations(versions=3))
    wider = [np.pad(item, ((9, 0), (0, 5), (7, 3)), mode="edge") for item in wide]
    for one, two in zip(far, perturbed(*wider, AFFINE, Perturbations(versions=3)), strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.mask, two.mask)
    other = perturbed(IMAGE, MASK, AFFINE, Perturbations(chain=wanted.chain, versions=3, seed=1))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.mask, two.mask)
        assert (one.mask != three.mask).any()
    assert len({item.mask.tobytes() for item in first}) == 3


@pytest.mark.parametrize("fraction", [-0.3, -0.05, 0.05, 0.3])
def test_volume_reaches_its_fraction_at_the_surface(fraction: float) -> None:
    mask, count = MASK.astype(bool), int(MASK.sum())
    found = with_volume(mask, fraction, SPACING, np.random.default_rng(0))
    assert found.sum() == round((1 + fraction) * count)
    assert (found >= mask).all() if fraction > 0 else (found <= mask).all()
    # a scaled ellipsoid of that volume differs by a rim only
    scaled = ellipsoid(tuple(radius * (1 + fraction) ** (1 / 3) for radius in (14, 11, 12))).astype(bool)
    assert 2 * (found & scaled).sum() / (found.sum() + scaled.sum()) > 0.93
    one = np.zeros((5, 5, 5), bool)
    one[2, 2, 2] = True
    np.testing.assert_array_equal(with_volume(one, -0.9, SPACING, np.random.default_rng(0)), one)


def test_volumes_are_spread_evenly_over_their_range() -> None:
    found = perturbed(IMAGE, MASK, AFFINE, Perturbations(chain=("volume",), volume_fraction=0.3, versions=10))
    growth = sorted(item.mask.sum() / MASK.sum() - 1 for item in found)
    np.testing.assert_allclose(growth, 0.3 * np.linspace(-0.9, 0.9, 10), atol=1e-3)


def test_a_turn_is_one_in_mm_about_the_regions_middle() -> None:
    """A point to the side of the middle goes round it; the grid's voxels are no squares."""
    matrix = rotation(30, 2, SPACING)
    turn = matrix * SPACING[:, None] / SPACING
    np.testing.assert_allclose(turn @ [1, 0, 0], [np.sqrt(3) / 2, 0.5, 0])
    mask = ellipsoid((17, 6, 12))
    versions = perturbed(IMAGE, mask, AFFINE, Perturbations(chain=("rotation",), rotation_deg=40, versions=2))
    angles = []
    for item in versions:
        points = np.argwhere(item.mask) * SPACING + item.affine[:3, 3]
        np.testing.assert_allclose(points.mean(0), (np.argwhere(mask) * SPACING).mean(0), atol=0.2)
        assert item.mask.sum() == pytest.approx(mask.sum(), rel=0.02)
        _, vectors = np.linalg.eigh(np.cov(points.T))
        angles.append(np.rad2deg(np.arctan(vectors[1, 2] / vectors[0, 2])))
    np.testing.assert_allclose(sorted(angles), [-20, 20], atol=0.5)  # half of the range, to either side


def test_a_shift_moves_image_and_mask_together() -> None:
    ramp = np.tensordot(np.indices(MASK.shape), [1.0, 10.0, 100.0], (0, 0))
    for item in perturbed(
        ramp, MASK, AFFINE, Perturbations(chain=("translation",), translation_voxels=0.8, versions=4)
    ):
        start = np.linalg.solve(AFFINE, item.affine[:, 3])[:3]
        index = np.indices(item.mask.shape).reshape(3, -1).T + start
        inner = (slice(7, -7),) * 3  # a spline bends at the edge
        apart = (item.image - (index @ [1.0, 10.0, 100.0]).reshape(item.mask.shape))[inner]
        np.testing.assert_allclose(apart, apart.mean(), atol=0.1)  # one shift everywhere
        assert np.abs(apart.mean()) > 1
        assert item.mask.sum() == pytest.approx(MASK.sum(), rel=0.05)


def test_noise_level_is_found_whatever_the_image_shows() -> None:
    assert noise_level(IMAGE) == pytest.approx(5, rel=0.05)
    plane = np.tensordot(np.indices((40, 40, 9)), [3.0, -2.0, 5.0], (0, 0))
    rng = np.random.default_rng(2)
    assert noise_level(plane + rng.normal(0, 0.7, plane.shape)) == pytest.approx(0.7, rel=0.05)
    padded = np.pad(rng.normal(0, 2, (40, 40, 9)), ((0, 60), (0, 0), (0, 0)))
    assert noise_level(padded) == pytest.approx(2, rel=0.08)
    assert noise_level(np.full((5, 5, 5), 3.0)) == 0


def test_noise_of_the_images_level_is_added() -> None:
    for item in perturbed(IMAGE, MASK, AFFINE, Perturbations(chain=("noise",), noise=2, versions=2)):
        start = np.rint(np.linalg.solve(AFFINE, item.affine[:, 3])[:3]).astype(int)
        box = tuple(slice(a, a + size) for a, size in zip(start, item.image.shape, strict=True))
        assert (item.image - IMAGE[box]).std() == pytest.approx(10, rel=0.06)


def test_contours_follow_supervoxels() -> None:
    parts, mask = supervoxels(IMAGE, SPACING, 250.0), MASK.astype(bool)
    drawn = [with_contour(mask, parts, np.random.default_rng(seed)) for seed in range(20)]
    share = np.bincount(parts[mask], minlength=parts.max() + 1) / np.bincount(parts.ravel())
    for found in drawn:
        whole = np.bincount(parts[found], minlength=parts.max() + 1) / np.bincount(parts.ravel())
        assert set(whole) == {0, 1} and (whole[share >= 0.9] == 1).all() and (whole[share < 0.2] == 0).all()
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.6
    assert np.mean([found.sum() for found in drawn]) == pytest.approx(mask.sum(), rel=0.15)
    unsure = (share >= 0.2) & (share < 0.9)
    assert unsure.any() and len({found.tobytes() for found in drawn}) > 1
    one = np.zeros(MASK.shape, bool)
    one[20, 15, 9] = True  # a small part of its supervoxel
    np.testing.assert_array_equal(with_contour(one, parts, np.random.default_rng(0)), one)


def test_a_region_small_beside_its_supervoxels_is_flagged() -> None:
    """One of 3.5 ml has 14 supervoxels of 250 mm³; of a tenth of that 140, which follow its contour closely."""
    small, settings = ellipsoid((10, 9, 9)), Settings(families=("morph",))
    row = Row("a", "ct", "mask", 1, "", Configuration("c", settings), {"morph_volume": 1.0})
    found = {
        size: with_versions(row, IMAGE, small, AFFINE, Perturbations(chain=("contour",), supervoxel_mm3=size))
        for size in (250.0, 25.0)
    }
    flags = {size: item.flags for size, item in found.items()}
    spread = {size: np.std([item["morph_volume"] for item in row.versions]) for size, row in found.items()}
    assert flags == {250.0: ("few_supervoxels",), 25.0: ()} and spread[25.0] < spread[250.0] / 2


def test_volume_is_robust_and_what_only_noise_makes_is_not() -> None:
    """Spheres of several sizes, each of one intensity with noise of one level: texture tells them by chance only."""
    rng = np.random.default_rng(3)
    regions = []
    for radius in (8, 10, 12, 14):
        mask = ellipsoid((radius, radius, radius))
        image = 50 + rng.normal(size=MASK.shape)
        settings = Settings(families=("morph", "stat"))
        wanted = Perturbations(chain=("rotation", "noise"), versions=5)
        regions.append(perturbed_features(image, mask, AFFINE, settings, wanted))
    found = agreements(regions)
    volume, skewness = found["morph_volume"], found["stat_skew"]
    assert volume is not None and volume.low > 0.9 and volume.regions == 4
    assert skewness is not None and skewness.icc < 0.6 and skewness.low < 0.3


def test_an_image_of_one_slice_is_turned_in_it() -> None:
    wanted = Perturbations(chain=("rotation", "volume", "contour", "noise"), versions=3)
    for item in perturbed(IMAGE[:, :, 9:10], MASK[:, :, 9:10], AFFINE, wanted):
        assert item.image.shape[2] == 1 and item.mask.any()


def test_what_cannot_be_perturbed_is_refused() -> None:
    with pytest.raises(CaseError, match="E_LABEL"):
        perturbed(IMAGE, MASK, AFFINE, Perturbations(), label=2)
    with pytest.raises(CaseError, match="E_NIFTI"):
        perturbed(np.where(MASK, IMAGE, np.nan), MASK, AFFINE, Perturbations())
    for bad in ({"versions": 1}, {"chain": ("noise", "noise")}, {"chain": ("shear",)}, {"volume_fraction": 1.0}):
        with pytest.raises(ValueError, match=r"versions|once|chain|volume_fraction"):
            Perturbations(**bad)  # type: ignore[arg-type]
