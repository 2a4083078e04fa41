"""Separable wavelets: Haar, Daubechies, Coiflets. Source: IBSI 2 (25BO); Mallat 1989; Shensa 1992 (à trous)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.radiomics.filters.base import Boundary, Filter, Pooling, Reach
from pipeline.radiomics.filters.lines import convolution
from pipeline.radiomics.filters.rotations import Letter, pooled
from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor

Wavelet = Literal[
    "haar", "db2", "db3", "db4", "db5", "db6", "db7", "db8", "db9", "db10", "coif1", "coif2", "coif3", "coif4", "coif5"
]


class SeparableWavelet(Filter):
    """A band of a wavelet decomposition.

    Attributes:
        wavelet: whose kernels.
        bands: low-pass (L) or high-pass (H) along I, J and, in three dimensions, K, as in LHL.
        level: of the decomposition; the levels before are low-pass along all axes.
        rotations: how the responses to all turns become one; None does not turn.
        decimated: keep only every second value at each level; each then stands for its block of 2^level voxels.
        boundary: what lies beyond the edge, of the image and of each level.
    """

    kind: Literal["wavelet"] = "wavelet"
    wavelet: Wavelet
    bands: str = Field(pattern="^[LH]{2,3}$")
    level: int = Field(default=1, ge=1, le=8)
    rotations: Pooling | None = None
    decimated: bool = False
    boundary: Boundary = "mirror"

    @model_validator(mode="after")
    def _one_for_each_axis(self) -> Self:
        if len(self.bands) != self.axes:
            raise ValueError(f"bands must be {self.axes} for {self.dimensions}, got {self.bands}")
        return self

    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """The kernels of all levels; blocks are those of the whole image."""
        return None if self.decimated else self._reach(len(kernels(self.wavelet)[0]) // 2 * (2**self.level - 1))

    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The band."""
        sides = tuple(image.shape[: self.axes])
        letters = {
            band: Letter(band, tuple(self._matrix(kernel, side) for side in sides))
            for band, kernel in zip("LH", kernels(self.wavelet), strict=True)
        }
        return pooled(image, [letters[band] for band in self.bands], self.rotations)

    def _matrix(self, last: Floats, size: int) -> Floats:
        """Of all levels along an axis: low-pass, and a last kernel."""
        low, matrix = kernels(self.wavelet)[0], np.eye(size)
        for level in range(self.level):
            kernel = last if level == self.level - 1 else low
            if self.decimated:
                matrix = convolution(kernel, len(matrix), self.boundary)[::2] @ matrix
            else:
                matrix = convolution(kernel, size, self.boundary, 2**level) @ matrix
        return matrix.repeat(2**self.level, axis=0)[:size] if self.decimated else matrix


def kernels(wavelet: str) -> tuple[Floats, Floats]:
    """The low-pass and the high-pass kernel of a decomposition."""
    import pywt

    found = pywt.Wavelet(wavelet)
    return np.array(found.dec_lo), np.array(found.dec_hi)
