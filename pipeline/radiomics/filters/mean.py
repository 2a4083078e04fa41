"""The mean over a neighbourhood. Source: IBSI 2 (S60F)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from pipeline.radiomics.filters.base import Boundary, Filter, Reach
from pipeline.radiomics.filters.lines import convolution, separable
from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Mean(Filter):
    """The mean over a square or a cube.

    Attributes:
        size: of its side, voxels, odd.
        boundary: what lies beyond the image's edge.
    """

    kind: Literal["mean"] = "mean"
    size: int = Field(default=5, ge=1, le=255)
    boundary: Boundary = "mirror"

    @field_validator("size")
    @classmethod
    def _has_a_middle(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"must be odd, got {size}")
        return size

    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """Half a side."""
        return self._reach(self.size // 2)

    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The mean round each voxel."""
        return averaged(image, self.size, self.axes, self.boundary)


def averaged(image: Tensor, size: int, axes: int, boundary: Boundary) -> Tensor:
    """The mean over a square or a cube of so many voxels round each."""
    kernel = np.full(size, 1 / size)
    return separable(image, [convolution(kernel, side, boundary) for side in image.shape[:axes]])
