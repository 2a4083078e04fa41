"""The families of features of a prepared region; what several of them need is made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.radiomics.cooccurrence import cooccurrence, cooccurrence_cells
from pipeline.radiomics.differences import differences, tone_features
from pipeline.radiomics.emphasis import (
    DEPENDENCES,
    DISTANCES,
    RUNS,
    SIZES,
    Zones,
    dependence_cells,
    emphasis,
    run_cells,
    zones_in_slices,
    zones_in_space,
)
from pipeline.radiomics.flags import in_one_slice
from pipeline.radiomics.intensity import histogram, statistics, volume_histogram
from pipeline.radiomics.levels import Array, Levels
from pipeline.radiomics.morphology import morphology
from pipeline.radiomics.prepare import Region, grey_levels
from pipeline.radiomics.settings import Settings
from pipeline.radiomics.spatial import autocorrelation, peaks

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
        texture = {"cm": self._pairs, "rlm": self._runs, "szm": self._sizes, "dzm": self._distances}
        texture |= {"ngt": self._differences, "ngl": self._dependences}
        return {f"{name}_{kind}": value for kind, found in texture[family]() for name, value in found.items()}

    @cached_property
    def graded(self) -> tuple[Array, int]:
        """Grey levels of the region's values (n,), and how many there can be."""
        return grey_levels(self.tight.values, self.settings.bins, self.settings.measured_range[0])

    @cached_property
    def _levels(self) -> Levels:
        found, bins = self.graded
        grid = np.zeros(self.tight.image.shape, np.int32)
        grid[self.tight.value_mask] = found
        return Levels.of(grid, bins, self.settings.distance)

    @cached_property
    def _aggregations(self) -> list[str]:
        """Those that there are: a region in one slice has none in three dimensions."""
        flat = in_one_slice(self.tight.value_mask)
        return [name for name in self.settings.aggregations if not (flat and name.startswith("3D"))]

    @cached_property
    def _undirected(self) -> list[str]:
        """Those of matrices without directions."""
        return list(dict.fromkeys(name.rsplit("_", 1)[0] for name in self._aggregations))

    @cached_property
    def _zones(self) -> dict[str, Zones]:
        edge = np.pad(np.moveaxis(self.tight.shape_mask, 2, 0), self._levels.pad)
        wanted = self._undirected
        found = {"3D": zones_in_space(self._levels, edge)} if "3D" in wanted else {}
        if flat := [kind for kind in wanted if kind != "3D"]:
            found |= dict.fromkeys(flat, zones_in_slices(self._levels, edge))
        return found

    def _pairs(self) -> Iterator[tuple[str, Named]]:
        cells = cooccurrence_cells(self._levels, self.settings.distance)
        for kind in self._aggregations:
            yield kind, cooccurrence(cells, self._levels, kind)

    def _runs(self) -> Iterator[tuple[str, Named]]:
        cells = run_cells(self._levels)
        for kind in self._aggregations:
            yield kind, emphasis(cells.grouped(kind), self._levels, RUNS)

    def _sizes(self) -> Iterator[tuple[str, Named]]:
        for kind, zones in self._zones.items():
            yield kind, emphasis(zones.sizes().grouped(f"{kind}_comb"), self._levels, SIZES)

    def _distances(self) -> Iterator[tuple[str, Named]]:
        for kind, zones in self._zones.items():
            matrices = zones.distances().grouped(f"{kind}_comb")
            yield kind, emphasis(matrices, self._levels, DISTANCES, zones.voxels(f"{kind}_comb"))

    def _differences(self) -> Iterator[tuple[str, Named]]:
        in_slices, in_space = differences(self._levels, self.settings.distance)
        each = {"2D": in_slices, "2_5D": in_slices.merged(), "3D": in_space}
        for kind in self._undirected:
            yield kind, tone_features(each[kind], self._levels)

    def _dependences(self) -> Iterator[tuple[str, Named]]:
        in_slices, in_space = dependence_cells(self._levels, self.settings.distance, self.settings.alpha)
        for kind in self._undirected:
            cells = in_space if kind == "3D" else in_slices
            matrices = cells.grouped(f"{kind}_comb")
            yield kind, emphasis(matrices, self._levels, DEPENDENCES, matrices.sums(matrices.count))
