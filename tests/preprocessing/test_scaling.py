from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import ClipIntensityPercentiles, NormalizeIntensity, ScaleIntensityRange

from pipeline import volumes
from pipeline.body import body_mask
from pipeline.errors import CaseError, UsageError
from pipeline.preprocessing import intensity
from tests.preprocessing.phantom import oblique_affine

CT_HEAD_WINDOWS = {"brain": (40.0, 80.0), "bone": (600.0, 2800.0), "soft_tissue": (40.0, 400.0)}
CT_THORAX_WINDOWS = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0)}
SHAPE = (6, 5, 4)
AFFINE = oblique_affine(SHAPE, np.array([0.7, 1.3, 2.9]))


def volume(array: np.ndarray) -> MetaTensor:
    return volumes.volume(array, AFFINE)


def random_image(channels: int = 1) -> MetaTensor:
    rng = np.random.default_rng(5)
    return volume((rng.gamma(2.0, 100.0, (channels, *SHAPE)) - 50).astype(np.float32))


def random_mask() -> MetaTensor:
    return volume((np.random.default_rng(6).random(SHAPE) > 0.6).astype(np.uint8))


def assert_same_place(result: MetaTensor, image: MetaTensor) -> None:
    np.testing.assert_array_equal(volumes.affine_of(result), volumes.affine_of(image))
    assert result.meta["space"] == "RAS"
    assert result.dtype.is_floating_point and result.element_size() == 4


def test_windows_at_exact_hounsfield_units() -> None:
    """Each expected value is (HU - level) / width + 1/2, by hand."""
    hu = np.array([-1000, -801, -600, 0, 20, 40, 80, 240, 600, 3000], dtype=np.int16)
    image = volume(np.resize(hu, SHAPE))
    head = intensity.window_channels(image, CT_HEAD_WINDOWS)
    thorax = intensity.window_channels(image, CT_THORAX_WINDOWS)
    expected = {
        "brain": [0, 0, 0, 0, 0.25, 0.5, 1, 1, 1, 1],
        "bone": [0, 0, 1 / 14, 2 / 7, 41 / 140, 0.3, 11 / 35, 13 / 35, 0.5, 1],
        "soft_tissue": [0, 0, 0, 0.4, 0.45, 0.5, 0.6, 1, 1, 1],
        "lung": [7 / 30, 549 / 1500, 0.5, 0.9, 137 / 150, 139 / 150, 143 / 150, 1, 1, 1],
        "mediastinum": [0, 0, 0, 0.4, 0.45, 0.5, 0.6, 1, 1, 1],
    }
    found = dict(zip(head.meta["channels"] + thorax.meta["channels"], [*head.numpy(), *thorax.numpy()], strict=True))
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].ravel()[: len(hu)], values, atol=1e-6, err_msg=name)
    assert head.shape == (3, *SHAPE)
    assert_same_place(head, image)
    assert "channels" not in image.meta


def test_windows_equal_monai() -> None:
    image = random_image()
    ours = intensity.window_channels(image, {"a": (40, 400), "b": (100, 75)})
    theirs = [
        ScaleIntensityRange(-160, 240, 0, 1, clip=True)(image),
        ScaleIntensityRange(62.5, 137.5, 0, 1, clip=True)(image),
    ]
    np.testing.assert_allclose(ours.numpy(), np.concatenate([part.numpy() for part in theirs]), atol=1e-6)


def test_zscore_over_the_mask_and_applied_everywhere() -> None:
    image, mask = random_image(channels=2), random_mask()
    inside = mask.numpy()[0] > 0
    result = intensity.foreground_zscore(image, mask)
    for before, after in zip(image.numpy().astype(np.float64), result.numpy(), strict=True):
        assert after[inside].mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
        assert after[inside].std(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(after, (before - before[inside].mean()) / before[inside].std(), atol=1e-5)
    assert_same_place(result, image)


def test_zscore_does_not_depend_on_the_air_around(head) -> None:
    """Twice as much air moves the z-scores over the whole image, but hardly those over the foreground."""
    image = head.scanned()
    air = np.abs(np.random.default_rng(1).normal(0, 12, head.body.shape)).astype(np.float32)
    wide = volumes.volume(np.concatenate([image.numpy()[0], air]), head.affine)

    def moved(zscore: Callable[[MetaTensor], MetaTensor]) -> float:
        return float(np.abs(zscore(wide).numpy()[0, : len(air)] - zscore(image).numpy()[0])[head.body].max())

    assert moved(NormalizeIntensity()) > 0.4
    assert moved(intensity.foreground_zscore) < 0.04
    inside = body_mask(image, "MR").numpy()[0] > 0
    assert intensity.foreground_zscore(image).numpy()[0][inside].mean() == pytest.approx(0, abs=1e-4)


def test_percentiles_of_the_image_equal_monai() -> None:
    image = random_image()
    ours = intensity.clip_percentiles(image, 2.0, 95.0)
    theirs = ClipIntensityPercentiles(lower=2.0, upper=95.0)(image)
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs), rtol=1e-5)
    assert_same_place(ours, image)


def test_percentiles_within_a_mask_clip_each_channel_by_its_own() -> None:
    image, mask = random_image(channels=2), random_mask()
    result = intensity.clip_percentiles(image, 10.0, 90.0, mask).numpy()
    for before, after in zip(image.numpy(), result, strict=True):
        low, high = np.percentile(before[mask.numpy()[0] > 0], [10, 90])
        np.testing.assert_allclose(after, before.clip(low, high), rtol=1e-5)


def test_rescale_maps_the_extremes_of_each_channel() -> None:
    image = random_image(channels=2)
    result = intensity.rescale_unit(image)
    for before, after in zip(image.numpy(), result.numpy(), strict=True):
        assert after.flat[before.argmin()] == 0 and after.flat[before.argmax()] == 1
        np.testing.assert_allclose(after * np.ptp(before) + before.min(), before, atol=1e-3)
    assert_same_place(result, image)


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_images_without_contrast_or_finite_voxels_are_refused(value: float) -> None:
    blank = volume(np.full(SHAPE, value, dtype=np.float32))
    mask = random_mask()
    calls = [
        lambda: intensity.window_channels(blank, CT_HEAD_WINDOWS),
        lambda: intensity.foreground_zscore(blank),
        lambda: intensity.foreground_zscore(blank, mask),
        lambda: intensity.rescale_unit(blank),
    ]
    for call in calls:
        with pytest.raises(CaseError) as caught:
            call()
        assert caught.value.code == "E_BLANK"


def test_masks_that_do_not_fit_are_refused() -> None:
    image = random_image()
    empty, elsewhere = volume(np.zeros(SHAPE, dtype=np.uint8)), volumes.volume(random_mask().as_tensor(), np.eye(4))
    for mask, code in ((empty, "E_BLANK"), (elsewhere, "E_GRID")):
        for function in (intensity.foreground_zscore, intensity.clip_percentiles):
            with pytest.raises(CaseError) as caught:
                function(image, mask=mask)
            assert caught.value.code == code


@pytest.mark.parametrize("windows", [{}, {"brain": (40, 0)}, {"brain": (40, -80)}, {"brain": (40,)}])
def test_windows_that_are_none_are_refused_when_they_are_configured(windows: dict) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        intensity.WindowChannelsd("ct", windows)


@pytest.mark.parametrize("limits", [(99.5, 0.5), (-1, 50), (5, 101)])
def test_percentiles_out_of_order_are_refused_when_they_are_configured(limits: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        intensity.ClipPercentilesd("mr", *limits)


def test_dictionary_transforms_equal_their_functions() -> None:
    image, mask = random_image(), random_mask()
    case = {"case_id": "c", "mr": image, "mask": mask}
    windows = {"odd": (33.0, 210.0)}
    pairs = [
        (intensity.WindowChannelsd("mr", windows), intensity.window_channels(image, windows)),
        (intensity.ForegroundZScored("mr", "mask"), intensity.foreground_zscore(image, mask)),
        (intensity.ClipPercentilesd("mr", 5, 80, "mask"), intensity.clip_percentiles(image, 5, 80, mask)),
        (intensity.RescaleUnitd("mr"), intensity.rescale_unit(image)),
    ]
    for transform, expected in pairs:
        result = transform(case)
        np.testing.assert_array_equal(result["mr"].numpy(), expected.numpy())
        assert_same_place(result["mr"], image)
        assert case["mr"] is image and result["case_id"] == "c"
        with pytest.raises(KeyError):
            transform({"case_id": "c", "mask": mask})
        transform.allow_missing_keys = True
        assert set(transform({"case_id": "c", "mask": mask})) == {"case_id", "mask"}
