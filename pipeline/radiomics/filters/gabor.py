"""Gabor filters in planes. Source: IBSI 2 (Q88H)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.fft import next_fast_len

from pipeline.errors import CaseError
from pipeline.radiomics.filters.base import Boundary, Filter, Pooling, Reach
from pipeline.radiomics.filters.lines import extended
from pipeline.radiomics.levels import Array, Floats

if TYPE_CHECKING:
    from torch import Tensor

Complex = npt.NDArray[np.complex128]
#: So many values of slices at a time: they and what is made of them stay in the processor's cache.
_CHUNK = 2**20
#: Wider kernels are refused before anything is made.
_MOST = 1024
_PLANES = ((0, 1), (0, 2), (1, 2))


class Gabor(Filter):
    """The magnitude of the response to a wave under a Gaussian, in planes.

    Attributes:
        dimensions: in slices, or the mean over the three orthogonal planes.
        sigma_mm: width of the Gaussian along the wave.
        wavelength_mm: of the wave.
        gamma: the Gaussian's width along the wave over that across it.
        theta_deg: the wave's direction, from the plane's first axis against its second.
        step_deg: the responses to a whole turn in such steps, from `theta_deg` on, are pooled; None does not turn.
        pooling: how.
        cutoff_sigma: where the kernel ends, in standard deviations of its wider direction.
        boundary: what lies beyond the image's edge.
    """

    kind: Literal["gabor"] = "gabor"
    sigma_mm: float = Field(gt=0, allow_inf_nan=False)
    wavelength_mm: float = Field(gt=0, allow_inf_nan=False)
    gamma: float = Field(default=1, gt=0, allow_inf_nan=False)
    theta_deg: float = Field(default=0, ge=-360, le=360)
    step_deg: float | None = Field(default=None, gt=0, le=180)
    pooling: Pooling = "average"
    cutoff_sigma: float = Field(default=4, gt=0, le=20)
    boundary: Boundary = "mirror"

    @model_validator(mode="after")
    def _whole_turn(self) -> Self:
        if self.step_deg and abs(360 / self.step_deg - round(360 / self.step_deg)) > 1e-6:
            raise ValueError(f"step_deg must divide 360, got {self.step_deg}")
        return self

    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """To the cut."""
        return self._reach(*self._halves(spacing_mm))

    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The magnitude, pooled over angles, averaged over planes.

        Raises:
            CaseError: E_CONFIG when the kernel is wider than any image.
        """
        if max(self._halves(spacing_mm)) > _MOST:
            raise CaseError("E_CONFIG", f"Expected a Gabor filter of at most {_MOST} voxels to each side, got more.")
        planes = _PLANES if self.axes == 3 else _PLANES[:1]
        total = image.new_zeros(image.shape)
        for plane in planes:
            (across,) = {0, 1, 2} - set(plane)
            found = total.permute(across, *plane)
            found += self._in_plane(image.permute(across, *plane), spacing_mm[list(plane)]) / len(planes)
        return total

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Those whose magnitudes differ: half a turn brings back the same."""
        turns = np.arange(round(360 / self.step_deg)) * self.step_deg if self.step_deg else np.zeros(1)
        return tuple(float(angle) for angle in np.unique(np.round((self.theta_deg + turns) % 180, 6) % 180))

    def kernel(self, angle_deg: float, spacing_mm: Floats) -> Complex:
        """The kernel of a plane, its middle in the middle."""
        halves = zip(self._halves(spacing_mm), spacing_mm, strict=True)
        first, second = np.meshgrid(*(np.arange(-half, half + 1) * step for half, step in halves), indexing="ij")
        cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        ahead, aside = first * cosine + second * sine, second * cosine - first * sine
        width = (ahead**2 + (self.gamma * aside) ** 2) / (2 * self.sigma_mm**2)
        return np.asarray(np.exp(2j * np.pi * ahead / self.wavelength_mm - width))

    def _halves(self, spacing_mm: Floats) -> list[int]:
        wider = self.cutoff_sigma * self.sigma_mm * max(1, 1 / self.gamma)
        return [int(wider / step + 0.5) for step in spacing_mm]

    def _in_plane(self, slices: Tensor, spacing_mm: Floats) -> Tensor:
        """Of slices (n, a, b), a chunk of them at a time."""
        import torch

        sides = list(zip(slices.shape[1:], self._halves(spacing_mm), strict=True))
        shape = [next_fast_len(size + 2 * half) for size, half in sides]
        beyond = [extended(np.arange(-half, size + half), size, self.boundary) for size, half in sides]
        spectra = [slices.new_tensor(_spectrum(self.kernel(each, spacing_mm), shape)) for each in self.angles_deg]
        inside = [slice(half, half + size) for size, half in sides]
        found, count = slices.new_empty(slices.shape), max(1, _CHUNK // int(np.prod(shape)))
        for part, target in zip(slices.split(count), found.split(count), strict=True):
            waves = torch.fft.fft2(_padded(part, beyond), s=shape)
            target.copy_(self._pooled(torch.fft.ifft2(waves * one)[:, *inside].abs() for one in spectra))
        return found

    def _pooled(self, magnitudes: Iterator[Tensor]) -> Tensor:
        found = next(magnitudes)
        for each in magnitudes:
            found = found.add_(each) if self.pooling == "average" else found.maximum(each)
        return found / len(self.angles_deg) if self.pooling == "average" else found


def _padded(slices: Tensor, index: Sequence[tuple[Array, Array]]) -> Tensor:
    """Slices (n, a, b) with what lies beyond their edges."""
    for axis, (places, known) in enumerate(index, 1):
        slices = slices.index_select(axis, slices.new_tensor(places).long())
        shape = [1] * axis + [-1] + [1] * (2 - axis)
        slices = slices * slices.new_tensor(known).reshape(shape)
    return slices


def _spectrum(kernel: Complex, shape: Sequence[int]) -> Floats:
    """Of a kernel with its middle moved to the first voxel: real, since the kernel's opposite is its conjugate."""
    whole = np.zeros(tuple(shape), np.complex128)
    whole[: kernel.shape[0], : kernel.shape[1]] = kernel
    middle = [-(side // 2) for side in kernel.shape]
    return np.asarray(np.fft.fft2(np.roll(whole, middle, (0, 1))).real)
