"""Filters against their definitions, against scipy and PyWavelets, and against all turns made one by one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from scipy import ndimage

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
)
from pipeline.radiomics.filters.lines import convolution
from pipeline.radiomics.filters.simoncelli import band
from tests.radiomics.filters import EVEN, ONE_MM, Array, noise

SCIPY = {"zero": "constant", "nearest": "nearest", "periodic": "wrap", "mirror": "reflect"}


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
