"""Filters in settings and regions: where they come in, what they reach, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.errors import CaseError, UsageError
from pipeline.radiomics import Bins, Settings, extract
from pipeline.radiomics.filters import (
    Filter,
    Gabor,
    LaplacianOfGaussian,
    Mean,
    filtered,
    needed,
)
from pipeline.radiomics.prepare import prepared
from tests.radiomics.filters import EVEN, GLOBAL, LOCAL, noise

# regions


def region(*low: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros((40, 38, 36), np.uint8)
    mask[tuple(slice(start, start + 4) for start in low)] = 1
    return mask


@pytest.mark.parametrize("chosen", LOCAL + GLOBAL)
@pytest.mark.parametrize("mask", [region(15, 16, 17), region(0, 20, 32), region(36, 1, 15)])
def test_a_part_has_the_values_of_the_whole(chosen: Filter, mask: npt.NDArray[np.uint8]) -> None:
    image = noise(*mask.shape) * 100
    found = prepared(image, mask == 1, EVEN, Settings(filter=chosen))
    whole = filtered(image, EVEN, chosen)
    assert found.values == pytest.approx(whole[mask == 1], rel=0, abs=1e-12 * np.ptp(whole))


def test_only_what_a_filter_reaches_is_filtered() -> None:
    window, shape = (slice(10, 14), slice(0, 4), slice(20, 22)), (40, 38, 36)
    assert needed(window, shape, EVEN, LOCAL[0]) == (slice(8, 16), slice(0, 6), slice(18, 24))
    assert needed(window, shape, EVEN, LOCAL[3]) == (slice(8, 16), slice(0, 6), slice(20, 22))
    assert needed(window, shape, EVEN, LOCAL[2])[1] == slice(0, 38)
    for chosen in GLOBAL:
        assert needed(window, shape, EVEN, chosen) == (slice(0, 40), slice(0, 38), slice(0, 36))


def test_interpolation_comes_before_and_the_region_is_the_unfiltered_ones() -> None:
    rng = np.random.default_rng(3)
    image, mask = rng.normal(0, 300, (20, 20, 12)), region(0, 0, 0)[:20, :20, :12]
    mask[4:14, 5:15, 3:9] = 1
    shared: dict[str, Any] = {"spacing_mm": (2, 2, 2), "whole_numbers": True, "range": (-200, 300), "outliers_sd": 2}
    plain = prepared(image, mask == 1, np.array([1.0, 1.0, 3.0]), Settings(**shared), margin_mm=1e3)
    chosen = LaplacianOfGaussian(sigma_mm=2)
    found = prepared(image, mask == 1, np.array([1.0, 1.0, 3.0]), Settings(filter=chosen, **shared), margin_mm=1e3)
    assert (found.value_mask == plain.value_mask).all() and not plain.value_mask.all()
    assert (found.unfiltered.image == plain.image).all() and (plain.image == np.rint(plain.image)).all()
    assert found.image == pytest.approx(filtered(plain.image, EVEN, chosen))


def test_shape_is_that_of_the_unfiltered_image_and_bins_are_those_of_the_response() -> None:
    image, mask = noise(20, 20, 20) * 100 + 50, np.zeros((20, 20, 20), np.uint8)
    mask[3:16, 4:17, 5:15] = 1
    shared: dict[str, Any] = {"range": (0, 400), "bins": Bins(width=20), "ivh_bins": Bins(width=5)}
    plain = extract(image, mask, np.eye(4), Settings(**shared)).values
    settings = Settings.read({**shared, "filter": {"kind": "laws", "kernels": ["E5", "L5", "E5"]}})
    found = extract(image, mask, np.eye(4), settings, device="cpu").values
    assert {tag: found[tag] for tag in found if tag.startswith("morph")} == pytest.approx(
        {tag: plain[tag] for tag in plain if tag.startswith("morph")}, nan_ok=True
    )
    assert settings.filter is not None
    response = filtered(image, np.ones(3), settings.filter)[(mask == 1) & (image >= 0) & (image <= 400)]
    assert found["stat_mean"] == pytest.approx(response.mean()) and found["stat_min"] == response.min() < 0
    levels = np.floor((response - response.min()) / 20) + 1
    assert found["ih_mean"] == pytest.approx(levels.mean()) and found["ih_max"] == levels.max()


@pytest.mark.parametrize("chosen", LOCAL + GLOBAL)
def test_a_response_stays_where_and_what_the_image_is(chosen: Filter) -> None:
    """No device but the processor is at hand: one without memory refuses as well to mix with another's tensors."""
    image = torch.empty((12, 11, 10), device="meta", dtype=torch.float32)
    found = chosen.response(image, EVEN)
    assert found.device.type == "meta" and found.dtype == torch.float32 and found.shape == image.shape


def test_single_precision_would_do() -> None:
    image = noise(24, 24, 24) * 300
    for chosen in LOCAL + GLOBAL:
        wanted = filtered(image, EVEN, chosen)
        found = chosen.response(torch.from_numpy(image).float(), EVEN).numpy()
        assert np.abs(found - wanted).max() < 1e-4 * np.ptp(wanted)


# what is refused


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "lgo"}, "did you mean `log`"),
        ({"sigma_mm": 2}, "kind"),
        ({"kind": "log", "sigma": 2}, "did you mean `sigma_mm`"),
        ({"kind": "log"}, "filter.log.sigma_mm"),
        ({"kind": "log", "sigma_mm": 0}, "sigma_mm"),
        ({"kind": "log", "sigma_mm": float("inf")}, "sigma_mm"),
        ({"kind": "log", "sigma_mm": 2, "boundary": "miror"}, "did you mean `mirror`"),
        ({"kind": "log", "sigma_mm": 2, "riesz": {"odrer": [1, 0, 0]}}, "did you mean `order`"),
        ({"kind": "log", "sigma_mm": 2, "riesz": {"order": [1, 0]}}, "riesz.order must be 3"),
        ({"kind": "simoncelli", "riesz": {"order": [0, 0, 0]}}, "at least 1"),
        ({"kind": "simoncelli", "riesz": {"order": [1, 0, 1], "steering_mm": 2}}, "even"),
        ({"kind": "simoncelli", "boundary": "mirror"}, "no key"),
        ({"kind": "mean", "size": 4}, "odd"),
        ({"kind": "laws", "kernels": ["L5", "E5", "Q5"]}, "filter.laws.kernels.2"),
        ({"kind": "laws", "kernels": ["L5", "E5"]}, "kernels must be 3"),
        ({"kind": "wavelet", "wavelet": "db33", "bands": "LHL"}, "did you mean `db3`"),
        ({"kind": "wavelet", "wavelet": "haar", "bands": "LXL"}, "bands"),
        ({"kind": "wavelet", "wavelet": "haar", "bands": "LHL", "dimensions": "2D"}, "bands must be 2"),
        ({"kind": "wavelet", "wavelet": "haar", "bands": "LHL", "level": 0}, "level"),
        ({"kind": "wavelet", "wavelet": "haar", "bands": "LHL", "rotations": "averge"}, "did you mean `average`"),
        ({"kind": "gabor", "sigma_mm": 2, "wavelength_mm": 2, "step_deg": 50}, "divide 360"),
        ({"kind": "gabor", "sigma_mm": 2, "wavelenght_mm": 2}, "wavelength_mm"),
    ],
)
def test_impossible_filters_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match="E_CONFIG") as caught:
        Settings.read({"filter": values})
    assert words in caught.value.message


def test_what_cannot_be_filtered_is_refused() -> None:
    image = noise(40, 38, 36)
    image[20, 19, 30] = np.nan
    chosen = Settings(filter=LaplacianOfGaussian(sigma_mm=1.5))
    assert np.isfinite(prepared(image, region(5, 16, 17) == 1, EVEN, chosen).values).all()
    with pytest.raises(CaseError, match="E_NIFTI"):
        prepared(image, region(20, 19, 24) == 1, EVEN, chosen)
    with pytest.raises(UsageError, match="E_OPTION"):
        filtered(np.zeros((3, 3, 3)), EVEN, Mean(), device="cdua:7")
    with pytest.raises(CaseError, match="E_CONFIG"):
        filtered(np.zeros((3, 3, 3)), EVEN, Gabor(sigma_mm=5000, wavelength_mm=2))


def test_settings_load_neither_torch_nor_pywavelets() -> None:
    names = "{'torch', 'pywt'}"
    code = f"import sys, pipeline.radiomics as r; r.Settings; r.extract; assert not {names} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
