from __future__ import annotations

import numpy as np
import pytest

from pipeline import volumes
from pipeline.body import body_mask
from pipeline.errors import CaseError
from tests.preprocessing.phantom import ellipsoid, oblique_affine, world

SHAPE = (88, 96, 52)
SPACING_MM = np.array([1.7, 1.5, 2.8])
AFFINE = oblique_affine(SHAPE, SPACING_MM)
POINTS = world(SHAPE, AFFINE)
BODY = ellipsoid(POINTS, (6.0, -4.0, 3.0), (50.0, 44.0, 52.0))


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def ct(couch: bool = False) -> np.ndarray:
    """A body with a large sinus that a 6 mm channel opens to the front; a couch of 2 mm shells touches the back."""
    x, y, z = POINTS
    hu = np.full(SHAPE, -1000.0)
    if couch:
        top = np.abs(y + 50.0) <= 1.0
        bottom = np.abs(y + 66.0) <= 1.0
        hu[top | bottom] = 200.0
        hu[(y < -51.0) & (y > -65.0)] = -930.0
    hu[BODY] = 45.0
    hu[ellipsoid(POINTS, (10.0, 5.0, -6.0), (18.0, 14.0, 16.0))] = -1000.0
    hu[BODY & (y > 5.0) & ((x - 10.0) ** 2 + (z + 6.0) ** 2 < 9.0)] = -1000.0
    return hu + np.random.default_rng(1).normal(0, 30, SHAPE)


def mr() -> np.ndarray:
    """Dark bone and bright fat in the body, Rician noise around."""
    signal = np.where(BODY, 180.0, 0.0)
    signal[ellipsoid(POINTS, (-10.0, 5.0, -6.0), (20.0, 12.0, 15.0))] = 10.0
    signal[ellipsoid(POINTS, (25.0, -15.0, 10.0), (9.0, 14.0, 12.0))] = 900.0
    real, imaginary = np.random.default_rng(2).normal(0, 15, (2, *SHAPE))
    return np.hypot(signal + real, imaginary)


def masked(values: np.ndarray, modality: str, affine: np.ndarray = AFFINE) -> np.ndarray:
    mask = body_mask(volumes.volume(values.astype(np.float32), affine), modality)
    assert mask.shape == (1, *values.shape) and str(mask.dtype) == "torch.uint8"
    np.testing.assert_array_equal(volumes.affine_of(mask), affine)
    return mask.numpy()[0] > 0


@pytest.mark.parametrize("couch", [False, True])
def test_ct_body_with_an_open_sinus_and_a_couch(couch: bool) -> None:
    mask = masked(ct(couch), "CT")
    assert dice(mask, BODY) > 0.98
    sinus = ellipsoid(POINTS, (10.0, 5.0, -6.0), (18.0, 14.0, 16.0))
    assert mask[sinus].all()


def test_mr_body_with_dark_bone_and_bright_fat() -> None:
    mask = masked(mr(), "MR")
    assert dice(mask, BODY) > 0.98
    assert mask[ellipsoid(POINTS, (-10.0, 5.0, -6.0), (18.0, 10.0, 13.0))].all()


@pytest.mark.parametrize("unit", [1.0, 4000.0])  # SUV, Bq/ml
def test_the_pet_s_body_is_more_than_its_tumour(unit: float) -> None:
    rng = np.random.default_rng(3)
    tumour = ellipsoid(POINTS, (-8.0, 6.0, -4.0), (26.0, 24.0, 30.0))
    uptake = np.where(BODY, 0.6, 0.02) * rng.gamma(20, 1 / 20, SHAPE)
    uptake[tumour] = 25.0
    mask = masked(unit * uptake, "PT")
    assert dice(mask, BODY) > 0.97


@pytest.mark.parametrize("pad", [0, 20])
def test_air_that_is_noise_of_full_strength_is_no_body(pad: int) -> None:
    """MP2RAGE: a ratio image, whose noise is as high as its signal where nothing gives any."""
    values = 700.0 + 12 * np.clip(mr(), 0, 250)
    values[~BODY] = np.random.default_rng(4).uniform(0, 4095, int((~BODY).sum()))
    wide = np.pad(values, pad)
    outside = np.pad(~BODY, pad, constant_values=True) & (wide == 0)
    wide[outside] = np.random.default_rng(5).uniform(0, 4095, int(outside.sum()))
    affine = AFFINE.copy()
    affine[:3, 3] -= AFFINE[:3, :3] @ np.full(3, pad)
    assert dice(masked(wide, "MR", affine), np.pad(BODY, pad)) > 0.95


def test_an_image_too_small_for_a_rim_has_a_body() -> None:
    """Every axis has too few voxels for a rim in which the air's noise could be looked at."""
    values = np.zeros((16, 12, 8), np.float32)
    values[4:12, 3:9, 2:6] = 100.0
    assert dice(masked(values, "MR"), values > 0) > 0.9


def test_the_threshold_is_at_minus_300_hu() -> None:
    outside = ellipsoid(POINTS, (6.0, -4.0, 3.0), (60.0, 60.0, 60.0)) & ~BODY
    for hu, expected in ((-340.0, BODY), (-260.0, BODY | outside)):
        values = np.where(BODY, 45.0, np.where(outside, hu, -1000.0))
        assert dice(masked(values, "CT"), expected) > 0.97


def test_both_legs_are_kept_and_a_small_thing_is_not() -> None:
    left = ellipsoid(POINTS, (-32.0, 0.0, 0.0), (26.0, 30.0, 300.0))
    right = ellipsoid(POINTS, (34.0, 5.0, 0.0), (22.0, 26.0, 300.0))
    small = ellipsoid(POINTS, (0.0, 55.0, 0.0), (9.0, 9.0, 20.0))
    mask = masked(np.where(left | right | small, 40.0, -1000.0), "CT")
    assert dice(mask, left | right) > 0.97
    assert not mask[small].any()


def test_lungs_that_leave_the_volume_are_filled_whatever_the_order_of_the_axes() -> None:
    """A tube of air from the first to the last axial slice is closed only within the slices."""
    body = ellipsoid(POINTS, (5.0, -3.0, 0.0), (50.0, 45.0, 1000.0))
    tube = ellipsoid(POINTS, (12.0, -5.0, 0.0), (18.0, 15.0, 400.0))
    values = np.where(body & ~tube, 40.0, -1000.0)
    mask = masked(values, "CT")
    assert dice(mask, body) > 0.98 and mask[tube].all()
    order = [2, 0, 1]
    turned = masked(values.transpose(order), "CT", AFFINE[:, [*order, 3]])
    np.testing.assert_array_equal(turned, mask.transpose(order))


def test_a_single_slice_works() -> None:
    middle = slice(26, 27)
    assert dice(masked(ct()[:, :, middle], "CT"), BODY[:, :, middle]) > 0.97
    assert dice(masked(mr()[:, :, middle], "MR"), BODY[:, :, middle]) > 0.97


@pytest.mark.parametrize(
    ("values", "modality", "code"),
    [
        (np.full((6, 7, 8), 3.0), "MR", "E_BLANK"),
        (np.where(np.arange(336).reshape(6, 7, 8) == 9, np.nan, 1.0), "MR", "E_BLANK"),
        (-1000 + np.random.default_rng(0).normal(0, 20, (20, 18, 16)), "CT", "E_BLANK"),
        (np.random.default_rng(0).random((2, 6, 7, 8)), "MR", "E_GRID"),
    ],
)
def test_what_has_no_body_is_refused(values: np.ndarray, modality: str, code: str) -> None:
    with pytest.raises(CaseError) as caught:
        body_mask(volumes.volume(values, np.eye(4)), modality)
    assert caught.value.code == code
