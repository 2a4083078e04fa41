"""Laws' kernels and their energy. Source: IBSI 2 (JTXT); Laws 1980."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.radiomics.filters.base import Boundary, Filter, Pooling, Reach
from pipeline.radiomics.filters.lines import convolution
from pipeline.radiomics.filters.mean import averaged
from pipeline.radiomics.filters.rotations import Letter, pooled
from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Literal["L3", "E3", "S3", "L5", "E5", "S5", "W5", "R5"]
#: Level, edge, spot, wave and ripple; each is divided by its length.
KERNELS: dict[str, tuple[int, ...]] = {
    "L3": (1, 2, 1),
    "E3": (-1, 0, 1),
    "S3": (-1, 2, -1),
    "L5": (1, 4, 6, 4, 1),
    "E5": (-1, -2, 0, 2, 1),
    "S5": (-1, 0, 2, 0, -1),
    "W5": (-1, 2, 0, -2, 1),
    "R5": (1, -4, 6, -4, 1),
}


class Laws(Filter):
    """A product of one-dimensional kernels.

    Attributes:
        kernels: along I, J and, in three dimensions, K.
        rotations: how the responses to all turns become one; None does not turn.
        energy_voxels: the response's absolute values are averaged over so many voxels to each side (Chebyshev);
            None leaves the response.
        boundary: what lies beyond the edge of image and response.
    """

    kind: Literal["laws"] = "laws"
    kernels: tuple[Kernel, ...]
    rotations: Pooling | None = None
    energy_voxels: int | None = Field(default=None, ge=1, le=127)
    boundary: Boundary = "mirror"

    @model_validator(mode="after")
    def _one_for_each_axis(self) -> Self:
        if len(self.kernels) != self.axes:
            raise ValueError(f"kernels must be {self.axes} for {self.dimensions}, got {len(self.kernels)}")
        return self

    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """Half the longest kernel, and the energy's distance."""
        return self._reach(max(int(name[1]) for name in self.kernels) // 2 + (self.energy_voxels or 0))

    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The response, or its energy."""
        found = pooled(image, [self._letter(name, image) for name in self.kernels], self.rotations)
        if self.energy_voxels is None:
            return found
        return averaged(found.abs(), 2 * self.energy_voxels + 1, self.axes, self.boundary)

    def _letter(self, name: str, image: Tensor) -> Letter:
        kernel = np.array(KERNELS[name]) / np.linalg.norm(KERNELS[name])
        return Letter(name, tuple(convolution(kernel, side, self.boundary) for side in image.shape[: self.axes]))
