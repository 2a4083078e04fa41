"""The texture features of one volume, or of many that lie one above the other."""

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
    zones,
)
from pipeline.radiomics.levels import Array, Floats, Levels
from pipeline.radiomics.settings import Settings

Found = dict[str, Floats]


@dataclass(frozen=True)
class Textures:
    """Features of texture; what several families need is made once.

    Attributes:
        levels: of the volumes.
        shape_mask: (K, I, J), padded as the levels are; distances of zones go to its edge.
        settings: distance, alpha and aggregations.
    """

    levels: Levels
    shape_mask: Array
    settings: Settings

    def of(self, family: str) -> Found:
        """A family's features, (volumes,), by their tags without the family; NaN or absent where undefined."""
        texture = {"cm": self._pairs, "rlm": self._runs, "szm": self._sizes, "dzm": self._distances}
        texture |= {"ngt": self._differences, "ngl": self._dependences}
        return {
            f"{name}_{kind}": np.where(self._flat & kind.startswith("3D"), np.nan, value)
            for kind, found in texture[family]()
            for name, value in found.items()
        }

    @cached_property
    def _flat(self) -> Array:
        """(volumes,) whether a volume's region lies in one slice: it has nothing in three dimensions."""
        return np.asarray(self.levels.ranks.any((1, 2)).reshape(self.levels.volumes, -1).sum(1) == 1)

    @cached_property
    def _aggregations(self) -> list[str]:
        """Those that any volume has."""
        return [name for name in self.settings.aggregations if not (self._flat.all() and name.startswith("3D"))]

    @cached_property
    def _undirected(self) -> list[str]:
        """Those of matrices without directions."""
        return list(dict.fromkeys(name.rsplit("_", 1)[0] for name in self._aggregations))

    @cached_property
    def _zones(self) -> dict[str, Zones]:
        flat = [kind for kind in self._undirected if kind != "3D"]
        found = {"3D": zones(self.levels, self.shape_mask, False)} if "3D" in self._undirected else {}
        return {**found, **(dict.fromkeys(flat, zones(self.levels, self.shape_mask, True)) if flat else {})}

    def _pairs(self) -> Iterator[tuple[str, Found]]:
        cells = cooccurrence_cells(self.levels, self.settings.distance)
        for kind in self._aggregations:
            yield kind, cooccurrence(cells, self.levels, kind)

    def _runs(self) -> Iterator[tuple[str, Found]]:
        cells = run_cells(self.levels)
        for kind in self._aggregations:
            yield kind, emphasis(cells.grouped(kind, self.levels), self.levels, RUNS)

    def _sizes(self) -> Iterator[tuple[str, Found]]:
        for kind, found in self._zones.items():
            yield kind, emphasis(found.sizes().grouped(f"{kind}_comb", self.levels), self.levels, SIZES)

    def _distances(self) -> Iterator[tuple[str, Found]]:
        for kind, found in self._zones.items():
            matrices = found.distances().grouped(f"{kind}_comb", self.levels)
            yield kind, emphasis(matrices, self.levels, DISTANCES, found.voxels(f"{kind}_comb", self.levels))

    def _differences(self) -> Iterator[tuple[str, Found]]:
        made = {
            flat: differences(self.levels, self.settings.distance, flat)
            for flat in {kind != "3D" for kind in self._undirected}
        }
        for kind in self._undirected:
            matrices = made[kind != "3D"]
            yield kind, tone_features(matrices.merged(self.levels.volumes) if kind == "2_5D" else matrices, self.levels)

    def _dependences(self) -> Iterator[tuple[str, Found]]:
        in_slices, in_space = dependence_cells(self.levels, self.settings.distance, self.settings.alpha)
        for kind in self._undirected:
            cells = in_space if kind == "3D" else in_slices
            matrices = cells.grouped(f"{kind}_comb", self.levels)
            yield kind, emphasis(matrices, self.levels, DEPENDENCES, matrices.sums(matrices.count))
