"""Simoncelli's wavelets: not separable, alike in all directions. Source: IBSI 2 (PRT7); Simoncelli and Freeman 1995."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline.radiomics.filters.base import Reach
from pipeline.radiomics.filters.riesz import RieszFilter, crossed, radius, spectrum, synthesis
from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Simoncelli(RieszFilter):
    """A band of frequencies, from a quarter of 2^(1 - level) times the highest of an axis to the whole.

    The image is periodic to it. Frequencies are those of voxels: in three dimensions they should have equal sides.

    Attributes:
        level: of the decomposition; 1 holds the finest details.
    """

    kind: Literal["simoncelli"] = "simoncelli"
    level: int = Field(default=1, ge=1, le=8)

    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """Everywhere."""
        return None

    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The band, or its transform."""
        lines = [_line(size) for size in image.shape[: self.axes]]
        # a real response has one factor at a frequency and at its opposite
        opposite = [np.roll(line[::-1], 1) for line in lines]
        factor = band(radius(crossed(lines, image)), self.level)
        factor.add_(band(radius(crossed(opposite, image)), self.level)).div_(2)
        factor[0, 0, 0] = 0
        found = synthesis(spectrum(image, self.axes).mul_(factor), image, self.axes)
        return self._transformed(found, spacing_mm)


def _line(size: int) -> Floats:
    """IBSI's frequencies of an axis: from -1 to 1, both included; an even number of voxels has none at 0.

    Levels 2 and 3 of IBSI's reference maps agree with them to 1e-7, with a spectrum's own to 8 % only.
    """
    return np.fft.ifftshift(np.linspace(-1, 1, size)) if size > 1 else np.zeros(1)


def band(radius: Tensor, level: int) -> Tensor:
    """What is left of frequencies so far from 0, (…) in 0 to 1; the squares of all levels sum to 1 up to a half."""
    octaves = (radius * 2**level).clamp_(min=1e-9).log2_()
    return (octaves.abs() <= 1) * octaves.mul_(np.pi / 2).cos_()
