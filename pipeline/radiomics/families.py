"""The families of features of a prepared region; what several of them need is made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.radiomics.intensity import histogram, statistics, volume_histogram
from pipeline.radiomics.levels import Array, Levels
from pipeline.radiomics.morphology import morphology
from pipeline.radiomics.prepare import Region, grey_levels
from pipeline.radiomics.settings import Settings
from pipeline.radiomics.spatial import autocorrelation, peaks
from pipeline.radiomics.textures import Textures

Named = dict[str, float]


@dataclass(frozen=True)
class Measurements:
    """The features of a region.

    Attributes:
        region: prepared, its shape not empty.
        settings: what to measure.
        flat: whether the image is one slice: shape and peaks, which need a third dimension, are left out.
    """

    region: Region
    settings: Settings
    flat: bool = False

    @cached_property
    def tight(self) -> Region:
        """The region without a margin."""
        return self.region.cut()

    def of(self, family: str) -> Named:
        """A family's features, by their tags without the family; NaN or absent where undefined."""
        if self.flat and family in ("morph", "loc"):
            return {}
        if family == "morph":
            plain = self.tight.unfiltered
            return {**morphology(plain), **autocorrelation(plain)}
        values = self.tight.values
        if not values.size:
            return {}
        match family:
            case "loc":
                return peaks(self.region)
            case "stat":
                return statistics(values)
            case "ih":
                return histogram(*self.graded)
            case "ivh":
                return volume_histogram(values, self.settings)
        return {name: float(value[0]) for name, value in self._textures.of(family).items()}

    @cached_property
    def graded(self) -> tuple[Array, int]:
        """Grey levels of the region's values (n,), and how many there can be."""
        return grey_levels(self.tight.values, self.settings.bins, self.settings.measured_range[0])

    @cached_property
    def _textures(self) -> Textures:
        found, bins = self.graded
        grid = np.zeros(self.tight.image.shape, np.int32)
        grid[self.tight.value_mask] = found
        levels = Levels.of(grid, bins, self.settings.distance)
        return Textures(levels, np.pad(np.moveaxis(self.tight.shape_mask, 2, 0), levels.pad), self.settings)
