"""Interpolation, resegmentation, grey levels, statistics and the intensity-volume histogram."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import CaseError, UsageError
from pipeline.radiomics import PRESETS, Bins, Settings, extract, names, preset
from pipeline.radiomics.intensity import histogram, statistics, volume_histogram
from pipeline.radiomics.prepare import Grid, grey_levels, prepared, resegmented

WHOLE = Settings(ivh_bins=None)


def test_grids_share_their_centre_and_cover_the_image() -> None:
    grid = Grid((10, 7, 4), (1.0, 1.0, 3.0), (2.0, 1.5, 2.0))
    assert grid.new_shape == (5, 5, 6)
    middle = (np.array(grid.new_shape) - 1) / 2
    assert grid.position(middle) == pytest.approx([4.5, 3, 1.5])
    assert grid.position(middle + 1) - grid.position(middle) == pytest.approx([2, 1.5, 2 / 3])


@pytest.mark.parametrize(("order", "inner"), [(1, slice(1, -1)), (3, slice(3, -3))])
def test_a_ramp_stays_a_ramp(order: int, inner: slice) -> None:
    grid = Grid((30, 28, 26), (1.0, 1.0, 3.0), (1.7, 0.8, 2.0))
    index = np.indices(grid.shape)
    image = 2.0 * index[0] - index[1] + 0.5 * index[2]
    whole = tuple(slice(0, size) for size in grid.new_shape)
    found = grid.resampled(image, whole, order)
    at = np.moveaxis(grid.position(np.moveaxis(np.indices(grid.new_shape), 0, -1)), -1, 0)
    wanted = 2.0 * at[0] - at[1] + 0.5 * at[2]
    assert found[inner, inner, inner] == pytest.approx(wanted[inner, inner, inner], abs=0.06 if order == 3 else 1e-9)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_part_is_the_part_of_the_whole(order: int) -> None:
    grid = Grid((60, 50, 40), (1.0, 1.0, 2.0), (1.3, 1.3, 1.3))
    image = np.random.default_rng(0).normal(size=grid.shape)
    window = (slice(20, 24), slice(15, 20), slice(28, 33))
    whole = grid.resampled(image, tuple(slice(0, size) for size in grid.new_shape), order)
    assert grid.resampled(image, window, order) == pytest.approx(whole[window], abs=1e-8)


def test_masks_are_cut_at_a_half_and_values_rounded() -> None:
    image = np.zeros((8, 8, 8))
    image[:, :, 4:] = 10.4
    mask = np.zeros(image.shape, bool)
    mask[2:6, 2:6, 2:6] = True
    settings = Settings(spacing_mm=(0.5, 0.5, 0.5), whole_numbers=True)
    region = prepared(image, mask, np.ones(3), settings)
    assert region.shape_mask.sum() == pytest.approx(4**3 * 8, rel=0.1)
    assert set(np.unique(region.values)) <= {0, 3, 8, 10}
    kept = prepared(image, mask, np.ones(3), Settings(spacing_mm=(None, None, None)))
    assert kept.shape_mask.sum() == 64 and kept.values.max() == 10.4


def test_range_then_outliers() -> None:
    image = np.array([[[0.0, 1, 2, 3, 4, 5, 30, 1000, -1000]]])
    mask = np.ones(image.shape, bool)
    assert resegmented(image, mask, Settings(range=(0, 100))).sum() == 7
    both = resegmented(image, mask, Settings(range=(0, 100), outliers_sd=2))
    assert image[both].max() == 5
    assert resegmented(image, mask, Settings(range=(None, -2000), outliers_sd=1)).sum() == 0


def test_bins_of_a_number_and_of_a_width() -> None:
    values = np.array([-3.0, 0, 7, 12, 17])
    assert grey_levels(values, Bins(number=4), None)[0].tolist() == [1, 1, 3, 4, 4]
    assert grey_levels(values, Bins(width=5), None)[0].tolist() == [1, 1, 3, 4, 5]
    assert grey_levels(values, Bins(width=5), -10.0)[0].tolist() == [2, 3, 4, 5, 6]
    assert grey_levels(values, Bins(width=5, start="multiple"), -10.0)[0].tolist() == [1, 2, 3, 4, 5]
    assert grey_levels(np.array([2.0, 5]), None, None)[0].tolist() == [2, 5]
    levels, bins = grey_levels(np.full(3, 4.0), Bins(number=8), None)
    assert levels.tolist() == [1, 1, 1] and bins == 1


def test_statistics_are_those_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2, 30, 500)
    found = statistics(values)
    assert found["skew"] == pytest.approx(stats.skew(values))
    assert found["kurt"] == pytest.approx(stats.kurtosis(values))
    assert found["iqr"] == pytest.approx(stats.iqr(values))
    assert found["cov"] == pytest.approx(stats.variation(values))
    assert found["rms"] ** 2 * 500 == pytest.approx(found["energy"])
    assert found["medad"] == pytest.approx(np.abs(values - np.median(values)).mean())


def test_the_histogram() -> None:
    levels = np.repeat([1, 2, 3, 5], [2, 6, 6, 2])
    found = histogram(levels, 5)
    assert found["mode"] == 3  # of two as high the one nearer to the mean, 2.625
    assert found["entropy"] == pytest.approx(2 * 0.125 * 3 + 2 * 0.375 * np.log2(8 / 3))
    assert found["uniformity"] == pytest.approx(2 * 0.125**2 + 2 * 0.375**2)
    assert (found["max_grad"], found["max_grad_g"], found["min_grad"], found["min_grad_g"]) == (4, 1, -3, 3)


def test_the_intensity_volume_histogram() -> None:
    values = np.repeat([1.0, 3, 4, 6], [50, 1, 16, 7])
    found = volume_histogram(values, WHOLE)
    assert found["v10"] == pytest.approx(24 / 74) and found["v90"] == pytest.approx(7 / 74)
    assert (found["i10"], found["i90"]) == (5, 2)
    volume = np.array([74, 24, 24, 23, 7, 7]) / 74
    assert found["auc"] == pytest.approx(np.trapezoid(volume, np.linspace(0, 1, 6)))
    ranged = volume_histogram(values, Settings(range=(0, 10), ivh_bins=Bins(width=2)))
    assert ranged["i90"] == 3 and ranged["v90"] == 0


def test_names_are_complete_and_unlike() -> None:
    found = names()
    assert len(found) == 487
    named = [name.pyradiomics for name in found.values() if name.pyradiomics]
    assert len(named) == len(set(named)) == 101
    assert found["cm_corr_3D_avg"].code == "NI2N" and found["cm_corr_3D_avg"].aggregation == "ITBB"
    assert found["cm_corr_3D_avg"].pyradiomics == "glcm_Correlation" and not found["cm_corr_3D_comb"].pyradiomics


def test_presets_measure_what_they_say() -> None:
    assert preset("ibsi_ct").bins == Bins(width=25)
    image = np.random.default_rng(2).normal(100, 60, (12, 12, 12))
    for settings in PRESETS.values():
        found = extract(image, np.ones(image.shape, np.uint8), np.eye(4), settings).values
        assert found and found["stat_mean"] is not None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"distanse": 2}, "did you mean `distance`"),
        ({"bins": {"widht": 2}}, "did you mean `width`"),
        ({"bins": {"width": 0}}, "bins.width"),
        ({"bins": {"width": -25}}, "bins.width"),
        ({"bins": {"width": float("nan")}}, "bins.width"),
        ({"bins": {"number": 70_000}}, "bins.number"),
        ({"bins": {"number": 32, "width": 2}}, "not both"),
        ({"families": ["morf"]}, "did you mean `morph`"),
        ({"aggregations": ["3D_avrg"]}, "did you mean `3D_avg`"),
        ({"interpolation": "cubik"}, "did you mean `cubic`"),
        ({"range": [400, -1000]}, "rise"),
        ({"spacing_mm": [1, 0, 1]}, "spacing_mm"),
        ({"range": [float("nan"), 3]}, "range.0"),
        ({"range": [0, float("inf")]}, "range.1"),
        ({"spacing_mm": [1, float("nan"), 1]}, "spacing_mm.1"),
        ({"outliers_sd": float("inf")}, "outliers_sd"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match="E_CONFIG") as caught:
        Settings.read(values)
    assert words in caught.value.message


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean `ibsi_ct`"):
        preset("ibsi-ct")


def test_too_fine_a_grid_is_refused_before_it_is_made() -> None:
    image = np.zeros((40, 40, 40))
    with pytest.raises(CaseError, match="536,870,912 voxels") as caught:
        extract(image, np.ones(image.shape, np.uint8), np.eye(4), Settings(spacing_mm=(0.01, 0.01, 0.01)))
    assert caught.value.code == "E_CONFIG" and "spacing_mm" in caught.value.remedy


def test_too_many_bins_are_refused_before_anything_is_made() -> None:
    image = np.array([[[0.0, 1e9]]])
    with pytest.raises(CaseError, match="E_CONFIG"):
        extract(image, np.ones(image.shape, np.uint8), np.eye(4), Settings(bins=Bins(width=1)))
    with pytest.raises(CaseError, match="E_CONFIG"):
        grey_levels(np.array([0.5, 2]), None, None)
    with pytest.raises(CaseError, match="E_CONFIG"):
        volume_histogram(np.array([0.5, 2]), WHOLE)
    with pytest.raises(CaseError, match="E_CONFIG"):
        volume_histogram(np.array([1.0, 2]), Settings(range=(0, 1e9), ivh_bins=Bins(width=1)))
