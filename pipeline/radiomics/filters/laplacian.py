"""The Laplacian of a Gaussian. Source: IBSI 2 (L6PA)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline.radiomics.filters.base import Boundary, Reach
from pipeline.radiomics.filters.lines import along, convolution
from pipeline.radiomics.filters.riesz import RieszFilter
from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor


class LaplacianOfGaussian(RieszFilter):
    """Where the image, smoothed, is darker (above 0) or brighter (below 0) than around.

    Its unit is the image's per voxel²; where voxels have unequal sides, per the square of their geometric mean.

    Attributes:
        sigma_mm: width of the Gaussian.
        cutoff_sigma: where the kernel ends.
        boundary: what lies beyond the image's edge.
    """

    kind: Literal["log"] = "log"
    sigma_mm: float = Field(gt=0, allow_inf_nan=False)
    cutoff_sigma: float = Field(default=4, gt=0, le=20)
    boundary: Boundary = "mirror"

    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """To the cut."""
        return None if self.riesz else self._reach(*(self._half(step) for step in spacing_mm))

    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The sum of the second derivatives; along each axis a Gaussian or its second derivative."""
        side = float(np.prod(spacing_mm[: self.axes]) ** (1 / self.axes))
        smooth, found = image, None
        for axis in range(self.axes):
            gaussian, second = self._kernels(spacing_mm[axis], side)
            even, curved = (convolution(item, image.shape[axis], self.boundary) for item in (gaussian, second))
            curve = along(smooth, curved, axis)
            found = curve if found is None else along(found, even, axis) + curve
            if axis < self.axes - 1:
                smooth = along(smooth, even, axis)
        assert found is not None
        return self._transformed(found, spacing_mm)

    def _half(self, step: float) -> int:
        return int(self.cutoff_sigma * self.sigma_mm / step + 0.5)

    def _kernels(self, step: float, side: float) -> tuple[Floats, Floats]:
        """A Gaussian and its second derivative, sampled; neither is made to sum to 1 or 0."""
        sigma = self.sigma_mm / step
        place = np.arange(-self._half(step), self._half(step) + 1)
        gaussian = np.exp(-((place / sigma) ** 2) / 2) / (np.sqrt(2 * np.pi) * sigma)
        return gaussian, gaussian * (place**2 / sigma**2 - 1) / sigma**2 * (side / step) ** 2
