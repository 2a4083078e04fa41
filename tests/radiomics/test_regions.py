"""Regions that are odd: what cannot be measured is nothing, never zero, and a flag says why; bad input has its code."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import CaseError
from pipeline.radiomics import FLAGS, Bins, Features, Settings, extract, tags

IMAGE = np.random.default_rng(3).normal(50, 20, (12, 11, 10))
SETTINGS = Settings()
EVERYTHING = tags(SETTINGS.families, SETTINGS.aggregations)


def region(*box: slice) -> npt.NDArray[np.uint8]:
    mask = np.zeros(IMAGE.shape, np.uint8)
    mask[box] = 1
    return mask


INSIDE = region(slice(2, 9), slice(2, 9), slice(2, 8))


def measured(
    mask: npt.NDArray[np.uint8], image: npt.NDArray[np.float64] = IMAGE, settings: Settings = SETTINGS
) -> Features:
    found = extract(image, mask, np.eye(4), settings)
    assert list(found.values) == EVERYTHING
    assert all(value is None or math.isfinite(value) for value in found.values.values())
    assert set(found.flags) <= set(FLAGS)
    return found


def nothing_of(found: Features) -> set[str]:
    return {tag.split("_")[0] for tag in found.values} - {
        tag.split("_")[0] for tag, value in found.values.items() if value is not None
    }


def test_an_ordinary_region_has_every_feature_and_no_flag() -> None:
    found = measured(INSIDE)
    assert not found.flags and None not in found.values.values()


def test_an_empty_region() -> None:
    found = measured(np.zeros_like(INSIDE))
    assert found.flags == ("empty",) and set(found.values.values()) == {None}


def test_a_region_that_interpolation_loses() -> None:
    found = measured(region(slice(5, 6), slice(5, 6), slice(5, 6)), settings=Settings(spacing_mm=(7, 7, 7)))
    assert found.flags == ("empty",) and set(found.values.values()) == {None}


def test_a_region_resegmented_away() -> None:
    found = measured(INSIDE, settings=Settings(range=(1e6, None)))
    assert found.flags == ("resegmented_away",)
    assert nothing_of(found) == {tag.split("_")[0] for tag in EVERYTHING} - {"morph"}
    assert found.values["morph_vol_approx"] == INSIDE.sum() and found.values["morph_moran_i"] is None


def test_one_voxel() -> None:
    found = measured(region(slice(5, 6), slice(5, 6), slice(5, 6)))
    assert set(found.flags) == {"one_voxel", "one_slice", "few_voxels", "one_intensity", "few_bins"}
    assert nothing_of(found) == {"cm", "ngt"}
    for tag in ("morph_pca_least_axis", "morph_pca_elongation", "morph_moran_i", "stat_skew", "ih_max_grad", "ivh_v10"):
        assert found.values[tag] is None, tag
    assert found.values["morph_vol_approx"] == 1 and found.values["stat_mean"] == IMAGE[5, 5, 5]


def test_one_slice() -> None:
    found = measured(region(slice(1, 11), slice(1, 10), slice(5, 6)))
    assert found.flags == ("one_slice",)
    for tag, value in found.values.items():
        flat = tag in ("morph_pca_least_axis", "morph_pca_flatness") or "_dens_aee" in tag
        assert (value is None) == ("_3D" in tag or flat), tag


def test_an_image_of_one_slice() -> None:
    found = extract(IMAGE[:, :, :1], INSIDE[:, :, 4:5], np.eye(4), SETTINGS)
    upright = extract(IMAGE[:, :, :1].transpose(2, 0, 1), INSIDE[:, :, 4:5].transpose(2, 0, 1), np.eye(4), SETTINGS)
    assert found == upright and found.flags == ("one_slice", "few_voxels")
    for tag, value in found.values.items():
        assert (value is None) == (tag.startswith(("morph", "loc")) or "_3D" in tag), tag


def test_a_constant_region() -> None:
    found = measured(INSIDE, np.full(IMAGE.shape, 7.0))
    assert found.flags == ("one_intensity", "few_bins")
    assert found.values["stat_var"] == 0 and found.values["cm_joint_max_3D_comb"] == 1
    for tag in ("stat_skew", "stat_kurt", "morph_moran_i", "cm_corr_3D_comb", "ngt_busyness_3D", "ngt_coarseness_3D"):
        assert found.values[tag] is None, tag


def test_flags_of_place_and_size() -> None:
    parts = region(slice(2, 7), slice(2, 7), slice(2, 6))
    parts[8:10, 8:10, 8] = 1
    assert measured(parts).flags == ("several_parts",)
    assert measured(region(slice(0, 7), slice(2, 9), slice(2, 8))).flags == ("at_border",)
    assert measured(region(slice(2, 6), slice(2, 6), slice(2, 6))).flags == ("few_voxels",)
    assert measured(INSIDE, settings=Settings(bins=Bins(number=4))).flags == ("few_bins",)


def test_a_value_at_the_ranges_upper_end_is_of_the_last_bin() -> None:
    settings = Settings(families=("ivh",), range=(0, 100), ivh_bins=Bins(width=2.5))
    image = np.where(IMAGE > 60, 100.0, 0.0)
    values = extract(image, INSIDE, np.eye(4), settings).values
    upper = (image[INSIDE > 0] == 100).mean()
    assert values["ivh_v10"] == values["ivh_v90"] == pytest.approx(upper)
    assert extract(image * 0.99, INSIDE, np.eye(4), settings).values == values


def test_slices_are_those_across_the_axis_to_the_head() -> None:
    affine = np.array([[0.0, 0, 2, 5], [1, 0, 0, 6], [0, 3, 0, 7], [0, 0, 0, 1]])  # the second axis runs to the head
    turned = extract(IMAGE.transpose(1, 2, 0), INSIDE.transpose(1, 2, 0), affine, SETTINGS)
    upright = extract(IMAGE, INSIDE, np.diag([2.0, 1, 3, 1]), SETTINGS)
    assert turned.values == pytest.approx(upright.values, rel=1e-9)


def test_another_label() -> None:
    assert extract(IMAGE, INSIDE * 3, np.eye(4), SETTINGS, label=3).values == measured(INSIDE).values


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("E_GRID", {"mask": INSIDE[:-1]}),
        ("E_GRID", {"mask_affine": np.diag([1, 1, 1.1, 1])}),
        ("E_LABEL", {"label": 2}),
        ("E_LABEL", {"mask": INSIDE * 1.0 + 0.5 * (IMAGE > 80)}),
        ("E_NIFTI", {"image": np.where(INSIDE, np.nan, IMAGE)}),
        ("E_NIFTI", {"image": np.where(INSIDE, np.inf, IMAGE)}),
        ("E_AFFINE", {"affine": np.zeros((4, 4))}),
    ],
)
def test_bad_input_has_its_code(code: str, change: dict[str, object]) -> None:
    given: dict[str, object] = {"image": IMAGE, "mask": INSIDE, "affine": np.eye(4), "settings": SETTINGS}
    with pytest.raises(CaseError) as caught:
        extract(**(given | change))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_values_that_are_not_finite_elsewhere_are_no_matter() -> None:
    image = np.where(INSIDE, IMAGE, np.nan)
    assert measured(INSIDE, image).values["stat_mean"] == measured(INSIDE).values["stat_mean"]
