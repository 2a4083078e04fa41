"""Filters against their definitions, against scipy and PyWavelets, and against all turns made one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pywt
import torch
from scipy import ndimage

from pipeline.errors import CaseError, UsageError
from pipeline.radiomics import Bins, Settings, extract
from pipeline.radiomics.filters import (
    Filter,
    Gabor,
    LaplacianOfGaussian,
    Laws,
    Mean,
    Riesz,
    SeparableWavelet,
    Simoncelli,
    filtered,
    needed,
)
from pipeline.radiomics.filters.lines import convolution
from pipeline.radiomics.filters.simoncelli import band
from pipeline.radiomics.prepare import prepared

Array = npt.NDArray[np.float64]

SCIPY = {"zero": "constant", "nearest": "nearest", "periodic": "wrap", "mirror": "reflect"}
EVEN, ONE_MM = np.full(3, 2.0), np.ones(3)
LOCAL: tuple[Filter, ...] = (
    Mean(size=5, boundary="zero"),
    LaplacianOfGaussian(sigma_mm=1.5, boundary="nearest"),
    Laws(kernels=("L5", "E5", "S3"), rotations="max", energy_voxels=2, boundary="periodic"),
    Laws(kernels=("E5", "R5"), dimensions="2D"),
    Gabor(sigma_mm=1.5, wavelength_mm=3, gamma=1.5, step_deg=45),
    Gabor(sigma_mm=1.5, wavelength_mm=3, theta_deg=20, dimensions="2D", boundary="nearest"),
    SeparableWavelet(wavelet="db2", bands="LHL", rotations="average", boundary="zero"),
    SeparableWavelet(wavelet="haar", bands="HH", level=2, dimensions="2D", boundary="periodic"),
)
GLOBAL: tuple[Filter, ...] = (
    Simoncelli(level=2),
    Simoncelli(dimensions="2D", riesz=Riesz(order=(1, 0))),
    LaplacianOfGaussian(sigma_mm=2, riesz=Riesz(order=(0, 2, 0), steering_mm=2)),
    SeparableWavelet(wavelet="db3", bands="HLL", level=2, decimated=True),
)


def noise(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape)


def wave(shape: tuple[int, ...], cycles: tuple[int, ...]) -> Array:
    """The phase of a plane wave, so many cycles along each axis."""
    index = np.indices(shape)
    return sum(2 * np.pi * count * index[axis] / shape[axis] for axis, count in enumerate(cycles))


# convolution


@pytest.mark.parametrize("boundary", SCIPY)
@pytest.mark.parametrize(("kernel", "size"), [(7, 20), (4, 20), (9, 3), (6, 1)])
def test_a_matrix_is_a_convolution_with_every_boundary(boundary: Any, kernel: int, size: int) -> None:
    weights, line = noise(kernel), noise(40)[:size]
    wanted = ndimage.convolve1d(line, weights, mode=SCIPY[boundary])
    assert convolution(weights, size, boundary) @ line == pytest.approx(wanted, abs=1e-12)


def test_the_mean() -> None:
    image = noise(12, 9, 7)
    assert filtered(image, EVEN, Mean(size=3)) == pytest.approx(ndimage.uniform_filter(image, 3, mode="reflect"))
    flat = filtered(image, EVEN, Mean(size=3, dimensions="2D", boundary="zero"))
    assert flat == pytest.approx(ndimage.uniform_filter(image, (3, 3, 1), mode="constant"))


def test_the_laplacian_of_a_gaussian_is_its_formula() -> None:
    image = np.zeros((41, 41, 41))
    image[20, 20, 20] = 1
    found = filtered(image, np.full(3, 0.5), LaplacianOfGaussian(sigma_mm=1.5))
    squared, variance = sum((np.indices(image.shape) - 20.0) ** 2), 9.0
    wanted = (squared / variance**2 - 3 / variance) * np.exp(-squared / (2 * variance)) / (2 * np.pi * variance) ** 1.5
    wanted[np.abs(np.indices(image.shape) - 20).max(axis=0) > 12] = 0
    assert found == pytest.approx(wanted, abs=1e-15)


def test_the_laplacian_of_a_gaussian_is_that_of_scipy_where_its_gaussian_sums_to_one() -> None:
    image = ndimage.gaussian_filter(noise(40, 30, 20), 2) * 100
    for boundary, mode in SCIPY.items():
        found = filtered(image, ONE_MM, LaplacianOfGaussian(sigma_mm=2, boundary=boundary))
        wanted = ndimage.gaussian_laplace(image, 2, mode=mode, truncate=4)
        assert np.abs(found - wanted).max() < 2e-3 * np.ptp(wanted)


def test_the_laplacian_follows_the_millimetres() -> None:
    at = np.indices((60, 60, 60)) * np.array([1.0, 1.0, 2.0]).reshape(3, 1, 1, 1)
    blob = np.exp(-sum((axis - middle) ** 2 for axis, middle in zip(at, (30, 30, 60), strict=True)) / (2 * 5**2))
    found = filtered(blob, np.array([1.0, 1.0, 2.0]), LaplacianOfGaussian(sigma_mm=3))
    # of two Gaussians the variances add; per voxel² of sides of 2^(1/3) mm
    width = 3**2 + 5**2
    wanted = -3 / width * (25 / width) ** 1.5 * 2 ** (2 / 3)
    assert found[30, 30, 30] == pytest.approx(wanted, rel=2e-3)


def test_laws_kernels_are_products_of_unit_vectors() -> None:
    image = np.zeros((11, 11, 11))
    image[5, 5, 5] = 1
    found = filtered(image, EVEN, Laws(kernels=("E5", "L3", "S5"), boundary="zero"))
    e5, l3, s5 = (np.array(item) for item in ([-1, -2, 0, 2, 1], [0, 1, 2, 1, 0], [-1, 0, 2, 0, -1]))
    wanted = np.einsum("i,j,k->ijk", e5, l3, s5) / np.sqrt(10 * 6 * 6)
    assert found[3:8, 3:8, 3:8] == pytest.approx(wanted)
    assert (found**2).sum() == pytest.approx(1)


def test_the_energy_is_the_mean_of_absolute_values() -> None:
    image = noise(12, 11, 10)
    plain = filtered(image, EVEN, Laws(kernels=("E5", "L5", "S5"), boundary="nearest"))
    energy = filtered(image, EVEN, Laws(kernels=("E5", "L5", "S5"), energy_voxels=2, boundary="nearest"))
    assert energy == pytest.approx(ndimage.uniform_filter(np.abs(plain), 5, mode="nearest"))


@pytest.mark.parametrize(
    ("chosen", "value"),
    [
        (Mean(size=7), 3.0),
        (Laws(kernels=("L5", "L3", "L5")), 3 * (16 / np.sqrt(70)) ** 2 * 4 / np.sqrt(6)),
        (Laws(kernels=("L5", "E5", "L5"), rotations="max"), 0.0),
        (SeparableWavelet(wavelet="db4", bands="LLL", level=2), 3 * 8.0),
        (SeparableWavelet(wavelet="coif2", bands="LH", dimensions="2D"), 0.0),
        (Gabor(sigma_mm=4, wavelength_mm=4, cutoff_sigma=6), 0.0),
        (Simoncelli(level=3), 0.0),
        (Simoncelli(riesz=Riesz(order=(1, 1, 0))), 0.0),
    ],
)
def test_what_is_constant_stays_so(chosen: Filter, value: float) -> None:
    assert filtered(np.full((24, 20, 16), 3.0), ONE_MM, chosen) == pytest.approx(value, abs=1e-6)


# wavelets


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db3", "coif1"])
@pytest.mark.parametrize("level", [1, 2])
def test_wavelets_are_those_of_pywavelets(wavelet: Any, level: int) -> None:
    image = noise(16, 16, 8)
    wanted = pywt.swtn(image, wavelet, level)[0]
    for letters in product("LH", repeat=3):
        chosen = SeparableWavelet(wavelet=wavelet, bands="".join(letters), level=level, boundary="periodic")
        key = "".join(letters).replace("L", "a").replace("H", "d")
        assert filtered(image, EVEN, chosen) == pytest.approx(wanted[key], abs=1e-12)


def test_decimated_wavelets_are_those_of_pywavelets() -> None:
    image = noise(24, 32, 16)
    wanted = pywt.wavedecn(image, "db2", "periodization", level=2)[1]["dad"]
    chosen = SeparableWavelet(wavelet="db2", bands="HLH", level=2, decimated=True, boundary="periodic")
    blocks = wanted.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    assert filtered(image, EVEN, chosen) == pytest.approx(blocks, abs=1e-12)


# Gabor


def test_the_magnitude_of_a_wave_is_known() -> None:
    angle, sigma, length, gamma = np.deg2rad(30), 5.0, 4.0, 1.5
    first, second, _ = np.indices((90, 80, 2)) * 0.5
    image = 7 * np.cos(2 * np.pi * (first * np.cos(angle) + second * np.sin(angle)) / length + 0.3)
    shared: dict[str, Any] = {"sigma_mm": sigma, "wavelength_mm": length, "gamma": gamma, "dimensions": "2D"}
    spacing = np.full(3, 0.5)
    inner = (slice(40, 50), slice(35, 45))
    found = filtered(image, spacing, Gabor(theta_deg=30, cutoff_sigma=6, **shared))[inner]
    # half the wave's amplitude times the Gaussian's sum
    assert found == pytest.approx(7 / 2 * 2 * np.pi * (sigma / 0.5) ** 2 / gamma, rel=1e-5)
    assert filtered(image, spacing, Gabor(theta_deg=120, cutoff_sigma=6, **shared))[inner].max() < 1e-4 * found.max()
    turned = filtered(image, spacing, Gabor(theta_deg=-60, step_deg=90, cutoff_sigma=6, **shared))[inner]
    assert turned == pytest.approx(found / 2, rel=1e-4)


@pytest.mark.parametrize("boundary", SCIPY)
def test_gabor_is_a_convolution_with_its_kernel(boundary: Any) -> None:
    image = noise(17, 12, 3)
    chosen = Gabor(sigma_mm=3, wavelength_mm=5, gamma=0.8, theta_deg=25, dimensions="2D", boundary=boundary)
    kernel = chosen.kernel(25, np.full(2, 2.0))
    parts = [ndimage.convolve(image, part[:, :, None], mode=SCIPY[boundary]) for part in (kernel.real, kernel.imag)]
    assert filtered(image, EVEN, chosen) == pytest.approx(np.hypot(*parts), abs=1e-10)


def test_gabor_is_pooled_over_angles_and_averaged_over_planes() -> None:
    image, shared = noise(12, 11, 10), {"sigma_mm": 2.0, "wavelength_mm": 4.0, "gamma": 1.5}

    def flat(picture: Array, angle: float) -> Array:
        return filtered(picture, ONE_MM, Gabor(**shared, theta_deg=angle, dimensions="2D"))

    each = [flat(image, angle) for angle in range(0, 360, 45)]
    averaged = Gabor(**shared, step_deg=45, dimensions="2D")
    assert averaged.angles_deg == (0, 45, 90, 135)
    assert filtered(image, ONE_MM, averaged) == pytest.approx(np.mean(each, axis=0))
    highest = filtered(image, ONE_MM, Gabor(**shared, step_deg=45, pooling="max", dimensions="2D"))
    assert highest == pytest.approx(np.max(each, axis=0))
    planes = [
        flat(image.transpose(order), 20).transpose(np.argsort(order)) for order in ((0, 1, 2), (0, 2, 1), (1, 2, 0))
    ]
    assert filtered(image, ONE_MM, Gabor(**shared, theta_deg=20)) == pytest.approx(np.mean(planes, axis=0))


# frequencies


def test_the_bands_of_simoncelli_share_out_all_energy() -> None:
    radius = torch.linspace(2**-6, 0.5, 200, dtype=torch.float64)
    assert sum(band(radius, level) ** 2 for level in range(1, 9)).numpy() == pytest.approx(1)
    assert band(torch.tensor([0.2, 0.5, 1, 1.01]), 1).numpy() == pytest.approx([0, 1, 0, 0], abs=1e-6)


def test_a_wave_in_the_middle_of_a_band_passes_it() -> None:
    image = np.cos(wave((65, 33, 17), (16, 0, 0)))
    assert filtered(image, EVEN, Simoncelli(level=1)) == pytest.approx(image, abs=1e-9)
    assert filtered(image, EVEN, Simoncelli(level=3)) == pytest.approx(0, abs=1e-9)
    assert filtered(image, EVEN, Simoncelli(level=1, dimensions="2D")) == pytest.approx(image, abs=1e-9)


def test_the_riesz_transform_of_a_cosine_is_a_sine() -> None:
    phase = wave((20, 16, 12), (3, 0, 0))
    image = torch.from_numpy(np.cos(phase))
    assert Riesz(order=(1, 0, 0)).of(image, EVEN).numpy() == pytest.approx(np.sin(phase), abs=1e-12)
    assert Riesz(order=(0, 1, 0)).of(image, EVEN).numpy() == pytest.approx(0, abs=1e-12)
    assert Riesz(order=(2, 0, 0)).of(image, EVEN).numpy() == pytest.approx(-np.cos(phase), abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_transforms_of_one_order_share_out_all_energy(total: int) -> None:
    image = noise(15, 13, 11)
    image -= image.mean()
    orders = [order for order in product(range(total + 1), repeat=3) if sum(order) == total]
    parts = [Riesz(order=order).of(torch.from_numpy(image), EVEN).numpy() for order in orders]
    assert sum((part**2).sum() for part in parts) == pytest.approx((image**2).sum())


def test_steering_finds_the_direction_of_a_wave() -> None:
    image = torch.from_numpy(np.cos(wave((24, 24, 24), (3, 4, 2))))
    along = Riesz(order=(2, 0, 0), steering_mm=4).of(image, EVEN)
    assert along.numpy() == pytest.approx(-image.numpy(), abs=1e-9)
    for order in ((0, 2, 0), (0, 0, 2)):
        assert Riesz(order=order, steering_mm=4).of(image, EVEN).numpy() == pytest.approx(0, abs=1e-9)
    flat = torch.from_numpy(np.cos(wave((24, 20, 3), (3, 4, 0))))
    assert Riesz(order=(2, 0), steering_mm=4).of(flat, EVEN).numpy() == pytest.approx(-flat.numpy(), abs=1e-9)


def test_a_steered_response_turns_with_the_image() -> None:
    image, chosen = noise(14, 14, 14), LaplacianOfGaussian(sigma_mm=3, riesz=Riesz(order=(0, 2, 0), steering_mm=4))
    found = filtered(image, EVEN, chosen)
    for turned, back in turns(3):
        assert back(filtered(turned(image), EVEN, chosen)) == pytest.approx(found, abs=1e-9)
    plain = LaplacianOfGaussian(sigma_mm=3, riesz=Riesz(order=(0, 2, 0)))
    other = filtered(image.transpose(1, 0, 2), EVEN, plain).transpose(1, 0, 2)
    assert np.abs(other - filtered(image, EVEN, plain)).max() > 0.1 * np.ptp(other)


# turns


def turns(axes: int) -> Iterator[tuple[Any, Any]]:
    """All turns by right angles of arrays, and the turns back."""
    for order in permutations(range(axes)):
        for flips in product((1, -1), repeat=axes):
            if np.linalg.det(np.eye(axes)[list(order)] * flips) > 0:
                whole, steps = (*order, 2)[:3], tuple(slice(None, None, flip) for flip in flips)

                def turned(image: Array, whole: Any = whole, steps: Any = steps) -> Array:
                    return np.ascontiguousarray(image.transpose(whole)[steps])

                def back(image: Array, whole: Any = whole, steps: Any = steps) -> Array:
                    return np.asarray(image[steps].transpose(np.argsort(whole)))

                yield turned, back


TURNED: tuple[Filter, ...] = (
    Laws(kernels=("E5", "W5", "E3")),
    Laws(kernels=("L5", "S3", "R5"), boundary="zero"),
    Laws(kernels=("L5", "E5"), dimensions="2D", boundary="periodic"),
    SeparableWavelet(wavelet="db3", bands="LHL"),
    SeparableWavelet(wavelet="db2", bands="HHL", level=2, boundary="nearest"),
    SeparableWavelet(wavelet="db2", bands="LH", dimensions="2D"),
    SeparableWavelet(wavelet="db2", bands="LHH", decimated=True),
)


@pytest.mark.parametrize("chosen", TURNED)
def test_pooling_is_over_all_turns(chosen: Filter) -> None:
    image = noise(12, 12, 12)
    each = [back(filtered(turned(image), EVEN, chosen)) for turned, back in turns(chosen.axes)]
    assert len(each) == (24 if chosen.axes == 3 else 4)
    average, highest = (chosen.model_copy(update={"rotations": name}) for name in ("average", "max"))
    assert filtered(image, EVEN, average) == pytest.approx(np.mean(each, axis=0), abs=1e-12)
    assert filtered(image, EVEN, highest) == pytest.approx(np.max(each, axis=0), abs=1e-12)


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
