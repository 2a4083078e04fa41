"""Maps of a feature: at each voxel of a region, its value in the cube around it.

As in PyRadiomics' voxel-based extraction, grey levels are those of the whole region, and of a cube only voxels of the
region count. The cubes of some voxels at a time lie one above the other, so that one pass makes all their matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.errors import UsageError
from pipeline.geometry import check_affine
from pipeline.radiomics.features import Upright
from pipeline.radiomics.glossary import AGGREGATION_CODES, tags
from pipeline.radiomics.intensity import histogram, statistics
from pipeline.radiomics.levels import DIRECTIONS, Array, Floats, Levels
from pipeline.radiomics.prepare import Grid, Region, grey_levels, prepared
from pipeline.radiomics.settings import AGGREGATIONS, FAMILIES, Aggregation, Settings
from pipeline.radiomics.textures import Found, Textures
from pipeline.spec.explain import did_you_mean

#: Shape, peaks and volume fractions are of a region, not of a small cube.
MAP_FAMILIES = tuple(name for name in FAMILIES if name not in ("morph", "loc", "ivh"))
#: The most that a cube's matrices and features take, by measurement: bytes for each of its voxels and directions, and
#: for each slice and level.
_CELL_BYTES, _LEVEL_BYTES = 350, 32


@dataclass(frozen=True)
class Maps:
    """Maps of features.

    Attributes:
        values: IBSI's tag -> (I, J, K) float32; NaN outside the region and where the feature is undefined.
        affine: 4 x 4, RAS mm, of the maps: the image's, or that of the grid that the settings interpolate to.
    """

    values: dict[str, npt.NDArray[np.float32]]
    affine: Floats


def feature_maps(
    image: Array,
    mask: Array,
    affine: npt.ArrayLike,
    settings: Settings,
    wanted: Sequence[str],
    radius_voxels: int = 1,
    label: int = 1,
    memory_mb: float = 256.0,
) -> Maps:
    """Map features of texture, of statistics or of the histogram.

    Args:
        image: (I, J, K), original intensities.
        mask: (I, J, K), whole numbers.
        affine: 4 x 4, RAS mm; slices are as in `extract`.
        settings: how the region is prepared, and `distance` and `alpha`; their families and aggregations do not matter.
        wanted: IBSI's tags.
        radius_voxels: the cube has 2 * radius + 1 voxels along each axis of the settings' grid.
        label: value of the region in the mask.
        memory_mb: about how much is used beside images and maps; one cube is measured at least. The values do not
            depend on it.

    Returns:
        The maps, on the settings' grid.

    Raises:
        UsageError: E_CONFIG for a tag that has no map, with the nearest one, or a radius or memory that is not above 0.
        CaseError: as `extract`.
    """
    require_maps(wanted, radius_voxels, memory_mb)
    upright = Upright.of(image, mask, affine, label)
    grid = Grid.of(upright.image.shape, upright.spacing_mm, settings)
    maps = {tag: np.full(grid.new_shape, np.nan, np.float32) for tag in wanted}
    if upright.mask.any():
        region = prepared(upright.image, upright.mask, upright.spacing_mm, settings)
        window = grid.around(upright.mask, 0.0)
        if region.value_mask.any():
            asked = settings.model_copy(update={"aggregations": _aggregations(wanted)})
            for voxels, found in Cubes(region, asked, radius_voxels).measured(wanted, memory_mb):
                for tag, values in found.items():
                    maps[tag][window][tuple(voxels.T)] = values
    back = np.argsort(upright.order)
    return Maps(
        {tag: values.transpose(back) for tag, values in maps.items()},
        check_affine(affine) @ grid.affine[np.ix_([*back, 3], [*back, 3])],
    )


def require_maps(wanted: Sequence[str], radius_voxels: int, memory_mb: float = 1.0) -> None:
    """Refuse what no map can be made of.

    Raises:
        UsageError: E_CONFIG for a tag that has no map, with the nearest one, or a radius or memory that is not above 0.
    """
    known = tags(MAP_FAMILIES, AGGREGATIONS)
    for tag in wanted:
        if tag not in known:
            near = did_you_mean(tag, known) or "."
            raise UsageError("E_CONFIG", f"Expected the tag of a feature that has a map, got {tag}{near}")
    for name, value in (("a radius", radius_voxels), ("memory in MB", memory_mb)):
        if not value > 0:
            raise UsageError("E_CONFIG", f"Expected {name} above 0, got {value:g}.")


def _aggregations(wanted: Sequence[str]) -> tuple[Aggregation, ...]:
    """Those that the tags end in; a tag without directions stands for one with them."""
    ends = tuple(AGGREGATION_CODES)
    found = {next((end for end in ends if tag.endswith(f"_{end}")), "") for tag in wanted}
    return tuple(name for name in AGGREGATIONS if name in found or name.removesuffix("_comb") in found)


@dataclass(frozen=True)
class Cubes:
    """The cubes around the voxels of a region, in float64.

    Attributes:
        region: with values.
        settings: with the aggregations that are wanted.
        radius: voxels.
    """

    region: Region
    settings: Settings
    radius: int

    def measured(self, wanted: Sequence[str], memory_mb: float) -> Iterator[tuple[Array, Found]]:
        """Voxels (n, 3) of the region, and the values there, (n,), some voxels at a time."""
        voxels = np.argwhere(self.region.value_mask)
        families = dict.fromkeys(tag.split("_")[0] for tag in wanted)
        for first in range(0, len(voxels), size := self._together(memory_mb)):
            some = voxels[first : first + size]
            textures = self._textures(some)
            found = {
                f"{family}_{name}": values
                for family in families
                for name, values in self._of(family, some, textures).items()
            }
            yield some, {tag: found[tag] for tag in wanted if tag in found}

    def _of(self, family: str, voxels: Array, textures: Textures) -> Found:
        if family not in ("stat", "ih"):
            return textures.of(family)
        if family == "stat":
            return self._each(voxels, self.region.image, statistics)
        return self._each(voxels, self._grid, lambda levels: histogram(levels, self._graded[1]))

    def _each(self, voxels: Array, values: Array, measure: Callable[[Array], dict[str, float]]) -> Found:
        """What is measured of the values in each cube."""
        inside = self._cut(self.region.value_mask, voxels)
        found = [measure(cube[mask]) for cube, mask in zip(self._cut(values, voxels), inside, strict=True)]
        return {name: np.array([item[name] for item in found]) for name in found[0]}

    @cached_property
    def _graded(self) -> tuple[Array, int]:
        return grey_levels(self.region.values, self.settings.bins, self.settings.measured_range[0])

    @cached_property
    def _grid(self) -> Array:
        """Levels of the whole region, (I, J, K); 0 outside."""
        grid = np.zeros(self.region.image.shape, np.int32)
        grid[self.region.value_mask] = self._graded[0]
        return grid

    @cached_property
    def _whole(self) -> Levels:
        return Levels.of(self._grid, self._graded[1], 0)

    @cached_property
    def _reach(self) -> list[int]:
        """How far a cube reaches along I, J, K: no farther than the region."""
        return [min(self.radius, size - 1) for size in self.region.cut().image.shape]

    def _textures(self, voxels: Array) -> Textures:
        whole, pad = self._whole, self.settings.distance
        ranks, mask = (
            _piled(self._cut(item, voxels), pad) for item in (np.moveaxis(whole.ranks, 0, 2), self.region.shape_mask)
        )
        return Textures(Levels(ranks, whole.values, whole.bins, pad, len(voxels)), mask, self.settings)

    def _cut(self, values: Array, voxels: Array) -> Array:
        """The cubes of an array (I, J, K), (n, i, j, k); 0 beyond its edge."""
        padded = np.pad(values, [(reach, reach) for reach in self._reach])
        return sliding_window_view(padded, [2 * reach + 1 for reach in self._reach])[tuple(voxels.T)]

    def _together(self, memory_mb: float) -> int:
        """How many cubes are measured at a time."""
        sides = np.array([2 * reach + 1 for reach in self._reach])
        cells = sides.prod() * len(DIRECTIONS) * _CELL_BYTES
        levels = (sides[2] + 2 * self.settings.distance) * len(self._whole.values) * _LEVEL_BYTES
        return max(1, int(memory_mb * 2**20 / (cells + levels)))


def _piled(cubes: Array, pad: int) -> Array:
    """Cubes (n, i, j, k) one above the other, padded: (K, I, J)."""
    padded = np.pad(np.moveaxis(cubes, 3, 1), ((0, 0), *[(pad, pad)] * 3))
    return padded.reshape(-1, *padded.shape[2:])
