"""Shape, place and peaks, against spheres, boxes and double loops; and what turning and scaling leave as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from pipeline.radiomics import Bins, Settings, extract, tags
from pipeline.radiomics.enclosing import ellipsoid_size, least_box, least_ellipsoid
from pipeline.radiomics.prepare import Region
from pipeline.radiomics.spatial import PEAK_RADIUS_MM, autocorrelation

SPACING = (1.0, 1.5, 2.5)
SHAPE = Settings(families=("morph", "loc"))


def affine(spacing: tuple[float, ...] = SPACING) -> npt.NDArray[np.float64]:
    return np.diag([*spacing, 1.0])


def blob(
    seed: int = 0, shape: tuple[int, int, int] = (22, 19, 15)
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """A smooth image and a region of several pieces and holes, well within it."""
    random = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(random.normal(size=shape), 1) * 100
    mask = ndimage.gaussian_filter(random.normal(size=shape), 1.5) > 0
    return image, np.pad(mask[2:-2, 2:-2, 2:-2], 2).astype(np.uint8)


def measured(
    image: npt.NDArray[np.float64], mask: npt.NDArray[np.uint8], spacing: tuple[float, ...]
) -> dict[str, float]:
    values = extract(image, mask, affine(spacing), Settings(bins=Bins(number=16))).values
    return {
        tag: value for tag, value in values.items() if "_2D" not in tag and "_2_5D" not in tag and value is not None
    }


@pytest.mark.parametrize("seed", range(3))
def test_flips_and_turns_change_nothing(seed: int) -> None:
    image, mask = blob(seed)
    before = measured(image, mask, SPACING)
    assert len(before) == len(tags(Settings().families, ("3D_avg", "3D_comb")))
    for axis in range(3):
        assert measured(np.flip(image, axis), np.flip(mask, axis), SPACING) == pytest.approx(before, rel=1e-9)
    for axes in ((0, 1), (1, 2), (0, 2)):
        spacing = list(SPACING)
        spacing[axes[0]], spacing[axes[1]] = spacing[axes[1]], spacing[axes[0]]
        turned = measured(np.rot90(image, axes=axes), np.rot90(mask, axes=axes), tuple(spacing))
        assert turned == pytest.approx(before, rel=1e-9)


def test_lengths_areas_and_volumes_follow_the_spacing() -> None:
    image, mask = blob()
    small, large = (extract(image, mask, affine(spacing), SHAPE).values for spacing in ((1, 2, 3), (2, 4, 6)))
    powers = {"morph_volume": 3, "morph_vol_approx": 3, "morph_integ_int": 3, "morph_area_mesh": 2, "morph_av": -1}
    powers |= dict.fromkeys(
        [f"morph_{name}" for name in ("com", "diam", *(f"pca_{axis}_axis" for axis in ("maj", "min", "least")))], 1
    )
    for tag in tags(("morph",), ()):
        assert large[tag] == pytest.approx((small[tag] or 0) * 2 ** powers.get(tag, 0), rel=1e-9), tag


def test_a_sphere() -> None:
    radius, spacing = 20.0, (1.0, 1.0, 2.0)
    grid = np.meshgrid(*(np.arange(-23, 24) * step for step in (1, 1)), np.arange(-12, 13) * 2.0, indexing="ij")
    mask = (sum(axis**2 for axis in grid) <= radius**2).astype(np.uint8)
    found = extract(np.ones(mask.shape), mask, affine(spacing), SHAPE).values
    volume = 4 / 3 * np.pi * radius**3
    assert found["morph_volume"] == pytest.approx(volume, rel=0.01)
    assert found["morph_vol_approx"] == pytest.approx(volume, rel=0.01)
    assert found["morph_diam"] == pytest.approx(2 * radius + spacing[2], rel=0.01)
    for axis in ("maj", "min", "least"):
        assert found[f"morph_pca_{axis}_axis"] == pytest.approx(4 * radius / 5**0.5, rel=0.01)
    assert found["morph_vol_dens_mvee"] == pytest.approx(1, rel=0.12)
    assert found["morph_com"] == pytest.approx(0, abs=1e-9)
    assert found["loc_peak_glob"] == pytest.approx(1)


def test_a_box() -> None:
    mask = np.zeros((14, 12, 9), np.uint8)
    mask[2:12, 2:10, 2:7] = 1
    found = extract(np.full(mask.shape, 3.0), mask, affine(), SHAPE).values
    sides = np.array([10, 8, 5]) * SPACING
    volume, area = sides.prod(), 2 * (sides.prod() / sides).sum()
    assert found["morph_vol_approx"] == pytest.approx(volume)
    assert found["morph_vol_dens_aabb"] == pytest.approx((found["morph_volume"] or 0) / volume)
    assert found["morph_area_dens_ombb"] == pytest.approx((found["morph_area_mesh"] or 0) / area)
    assert found["morph_vol_dens_conv_hull"] == pytest.approx(1)
    assert found["morph_integ_int"] == pytest.approx(3 * (found["morph_volume"] or 0))
    least = 4 * np.sqrt((10**2 - 1) / 12 * 400 / 399) * SPACING[0]
    assert found["morph_pca_least_axis"] == pytest.approx(least)


def test_boxes_and_ellipsoids_of_turned_points() -> None:
    random = np.random.default_rng(4)
    turn = Rotation.random(random_state=5).as_matrix()
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * (2.0, 3.0, 7.0)
    inner = random.uniform(-1, 1, (50, 3)) * (2.0, 3.0, 7.0)
    points = np.vstack([corners, inner]) @ turn.T + 11
    assert np.sort(least_box(ConvexHull(points))) == pytest.approx([4, 6, 14])
    assert least_ellipsoid(points) == pytest.approx(np.sqrt(3) * np.array([2, 3, 7]), rel=1e-8)


def test_the_least_ellipsoid_holds_every_point_and_no_smaller_one_is_near() -> None:
    points = np.random.default_rng(6).normal(size=(300, 3)) * (1, 4, 9)
    axes = least_ellipsoid(points)
    hull = points[ConvexHull(points).vertices]
    assert least_ellipsoid(hull) == pytest.approx(axes, rel=1e-7)
    sphere = cdist(points, points).max() / 2
    assert ellipsoid_size(axes)[0] < ellipsoid_size((sphere, sphere, sphere))[0]
    assert axes[2] >= np.ptp(points, axis=0).max() / 2


def test_the_area_of_an_ellipsoid_is_the_series_that_ibsi_prints() -> None:
    assert ellipsoid_size((3, 3, 3))[1] == pytest.approx(4 * np.pi * 9)
    a, b, c = 5.0, 4.0, 2.0
    alpha, beta = np.sqrt(1 - (b / a) ** 2), np.sqrt(1 - (c / a) ** 2)
    at = (alpha**2 + beta**2) / (2 * alpha * beta)
    series = sum((alpha * beta) ** n / (1 - 4 * n**2) * eval_legendre(n, at) for n in range(21))
    assert ellipsoid_size((c, a, b))[1] == pytest.approx(4 * np.pi * a * b * series)


def test_moran_and_geary_are_the_double_loop() -> None:
    random = np.random.default_rng(7)
    mask = random.random((17, 16, 14)) < 0.55
    image = ndimage.gaussian_filter(random.normal(size=mask.shape), 1) + 40
    points, x = np.argwhere(mask) * SPACING, image[mask]
    assert len(x) > 2000
    distance = cdist(points, points)
    weight = np.divide(1, distance, out=np.zeros_like(distance), where=distance > 0)
    away, n = x - x.mean(), len(x)
    moran = n / weight.sum() * (away @ weight @ away) / (away @ away)
    geary = (n - 1) / (2 * weight.sum()) * (weight * (x[:, None] - x) ** 2).sum() / (away @ away)
    found = autocorrelation(Region(image, mask, mask, np.array(SPACING)))
    assert found["moran_i"] == pytest.approx(moran, rel=1e-9)
    assert found["geary_c"] == pytest.approx(geary, rel=1e-12)


@pytest.mark.parametrize("inset", [0, 8])
def test_peaks_are_means_over_spheres_of_the_whole_image(inset: int) -> None:
    random = np.random.default_rng(8)
    image = random.normal(size=(24, 22, 20))
    image[12, 11, 9] = np.nan
    mask = np.zeros(image.shape, np.uint8)
    mask[inset : 24 - inset : 3, inset : 22 - inset : 2, inset : 20 - inset] = 1
    mask[12, 11, 9] = 0
    points = np.argwhere(np.ones(image.shape)) * SPACING
    centres = np.argwhere(mask) * SPACING
    means = [np.nanmean(image.ravel()[near]) for near in cdist(centres, points) <= PEAK_RADIUS_MM]
    found = extract(image, mask, affine(), Settings(families=("loc",))).values
    assert found["loc_peak_glob"] == pytest.approx(max(means))
    assert found["loc_peak_loc"] == pytest.approx(means[int(image[mask == 1].argmax())])
