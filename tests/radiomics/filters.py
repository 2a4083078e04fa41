"""Filters of every kind: those that reach so far, and those that need the whole image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.radiomics.filters import (
    Filter,
    Gabor,
    LaplacianOfGaussian,
    Laws,
    Mean,
    Riesz,
    SeparableWavelet,
    Simoncelli,
)

Array = npt.NDArray[np.float64]
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
