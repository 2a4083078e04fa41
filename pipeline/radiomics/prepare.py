"""From an image and a mask to a region: interpolation, rounding, filters, resegmentation, levels. Source: IBSI 2."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.geometry import orientation_of
from pipeline.radiomics.filters.base import Window, filtered, needed, within
from pipeline.radiomics.levels import Array, Floats
from pipeline.radiomics.settings import MOST_BINS, Bins, Settings

Mask = npt.NDArray[np.bool_]

#: A half that rounding has made a little less is a half still.
HALF = 0.5 - 1e-9
_ORDERS = {"nearest": 0, "linear": 1, "cubic": 3}
#: More voxels than this are refused before they are made: 4 GiB of real numbers.
MOST_VOXELS = 2**29
#: A spline's value depends on voxels no farther than this (by 1e-9).
_SPLINE_REACH = 16


@dataclass(frozen=True)
class Region:
    """A prepared part of an image, cut out with a margin.

    Attributes:
        image: (I, J, K) float64; K are the slices.
        shape_mask: where the region is; IBSI's morphological mask.
        value_mask: where its values are measured: without what was resegmented away; IBSI's intensity mask.
        spacing_mm: (3,).
        before: the image before it was filtered, where it was.
    """

    image: Floats
    shape_mask: Mask
    value_mask: Mask
    spacing_mm: Floats
    before: Floats | None = None

    @cached_property
    def values(self) -> Floats:
        """Of the voxels whose values are measured, (n,)."""
        return self.image[self.value_mask]

    @property
    def unfiltered(self) -> Region:
        """As it was before the filter."""
        return self if self.before is None else replace(self, image=self.before, before=None)

    def cut(self) -> Region:
        """Without a margin; the shape is not empty."""
        (box,) = ndimage.find_objects(self.shape_mask.astype(np.uint8))
        before = None if self.before is None else self.before[box]
        return Region(self.image[box], self.shape_mask[box], self.value_mask[box], self.spacing_mm, before)


def slice_axis(shape: tuple[int, ...], affine: Floats) -> int:
    """The axis across the slices: the image's only one of size 1, else that nearest to head and foot (RAS mm)."""
    thin = [number for number, size in enumerate(shape) if size == 1]
    upright = [number for number, letter in enumerate(orientation_of(affine)) if letter in "SI"]
    return thin[0] if len(thin) == 1 else upright[0]


def prepared(
    image: Array, mask: Mask, spacing_mm: Floats, settings: Settings, margin_mm: float = 0.0, device: str = "cpu"
) -> Region:
    """Interpolate, round, resegment and filter.

    Args:
        image: (I, J, K), K slices.
        mask: the same shape, with at least one voxel.
        spacing_mm: (3,).
        settings: what to do.
        margin_mm: how much around the region is kept.
        device: torch's name of where the filter is computed.

    Raises:
        CaseError: E_NIFTI when a value of the region, or of where a filter reaches, is not finite; E_CONFIG when
            `spacing_mm` is so small that the grid would have more than `MOST_VOXELS` voxels.
        UsageError: E_OPTION when there is no such device.
    """
    grid, chosen = Grid.of(image.shape, spacing_mm, settings), settings.filter
    step = np.array(grid.wanted_mm)
    window = grid.around(mask, margin_mm)
    # the whole image is filtered; what is farther than the filter reaches makes no difference
    outer = needed(window, grid.new_shape, step, chosen) if chosen else window
    _require_possible(outer)
    around = grid.interpolated(image, outer, settings)
    values = around[within(window, outer)]
    inside = mask[window] if grid.is_native else grid.resampled(mask, window, 1) >= HALF
    if not np.isfinite(values[inside]).all():
        raise CaseError("E_NIFTI", "Expected finite values in and next to the region, got NaN or infinity.")
    region = Region(values, inside, resegmented(values, inside, settings), step)
    if chosen is None:
        return region
    response = filtered(around, step, chosen, device)[within(window, outer)]
    return replace(region, image=np.ascontiguousarray(response), before=values)


def _require_possible(window: Window) -> None:
    """Refuse a grid that memory would not hold."""
    sides = [part.stop - part.start for part in window]
    if math.prod(sides) > MOST_VOXELS:
        what = f"Expected at most {MOST_VOXELS:,} voxels around a region, got {' x '.join(map(str, sides))}."
        raise CaseError("E_CONFIG", what, "Make spacing_mm larger, or the region smaller.")


@dataclass(frozen=True)
class Grid:
    """A grid and the one to interpolate to; their centres are one. Source: IBSI 2.4 (VTM2).

    Attributes:
        shape: of the first.
        spacing_mm: of the first.
        wanted_mm: of the second.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    wanted_mm: tuple[float, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing_mm: Floats, settings: Settings) -> Grid:
        """From an image's own grid to that of settings."""
        own = tuple(map(float, spacing_mm))
        wanted = tuple(new or old for new, old in zip(settings.spacing_mm or (None,) * 3, own, strict=True))
        return cls(tuple(shape), own, wanted)

    @property
    def is_native(self) -> bool:
        """Whether both are one."""
        return bool(np.allclose(self.spacing_mm, self.wanted_mm, rtol=1e-6, atol=0))

    @property
    def new_shape(self) -> tuple[int, int, int]:
        """Of the second grid: it covers the first."""
        sizes = np.array(self.shape) * self.spacing_mm / self.wanted_mm
        i, j, k = np.ceil(np.round(sizes, 6)).astype(int).tolist()
        return i, j, k

    @property
    def affine(self) -> Floats:
        """From voxels of the second grid to voxels of the first, 4 x 4."""
        return np.vstack([np.column_stack([np.diag(self._step), self.position(np.zeros(3))]), (0, 0, 0, 1)])

    @property
    def _step(self) -> Floats:
        return np.divide(self.wanted_mm, self.spacing_mm)

    def position(self, index: Array) -> Floats:
        """Where voxels of the second grid lie in the first: (…, 3) voxels of both."""
        return (np.array(self.shape) - 1) / 2 + (index - (np.array(self.new_shape) - 1) / 2) * self._step

    def around(self, mask: Mask, margin_mm: float) -> Window:
        """The part of the second grid that holds a mask of the first, with a margin and a voxel more."""
        lines = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        bounds = np.array([(line[0], line[-1]) for line in lines])
        scale = np.divide(self.spacing_mm, self.wanted_mm)
        middle, new_middle = ((np.array(shape) - 1) / 2 for shape in (self.shape, self.new_shape))
        margin = np.divide(margin_mm, self.wanted_mm) + 1
        low = np.floor((bounds[:, 0] - 1 - middle) * scale + new_middle - margin)
        high = np.ceil((bounds[:, 1] + 1 - middle) * scale + new_middle + margin) + 1
        i, j, k = (
            slice(max(0, int(start)), min(size, int(stop)))
            for start, stop, size in zip(low, high, self.new_shape, strict=True)
        )
        return i, j, k

    def interpolated(self, image: Array, window: Window, settings: Settings) -> Floats:
        """The image on a part of the second grid, rounded where the settings say so."""
        if self.is_native:
            values = image[window].astype(np.float64)
        else:
            values = self.resampled(image, window, _ORDERS[settings.interpolation])
        return np.rint(values) if settings.whole_numbers else values

    def resampled(self, image: Array, window: Window, order: int) -> Floats:
        """The image on a part of the second grid; beyond the first one's edge the outermost value goes on.

        The order is that of the spline: 0 nearest, 1 linear, 3 cubic.
        """
        if order == 0:
            index = (
                self.position(np.arange(max(self.new_shape))[:, None])[item, axis] for axis, item in enumerate(window)
            )
            # a position half way between is no matter of rounding
            near = (np.floor(np.round(line, 6) + 0.5).astype(int) for line in index)
            inside = (line.clip(0, size - 1) for line, size in zip(near, image.shape, strict=True))
            return image[np.ix_(*inside)].astype(np.float64)
        start, stop = (np.array([getattr(item, end) for item in window]) for end in ("start", "stop"))
        first, last = self.position(start), self.position(stop - 1)
        # only what the spline needs
        low = np.maximum(0, np.floor(first).astype(int) - _SPLINE_REACH)
        high = np.ceil(last).astype(int) + _SPLINE_REACH + 1
        part = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float64)
        shape = tuple((stop - start).tolist())
        return ndimage.affine_transform(part, self._step, first - low, shape, order=order, mode="nearest")


def resegmented(image: Floats, mask: Mask, settings: Settings) -> Mask:
    """The mask without values out of range, then without outliers. Source: IBSI 2.5 (USB3, 7ACA)."""
    low, high = settings.range
    kept = mask.copy()
    if low is not None:
        kept &= image >= low
    if high is not None:
        kept &= image <= high
    if settings.outliers_sd is not None and kept.any():
        values = image[kept]
        kept &= np.abs(image - values.mean()) <= settings.outliers_sd * values.std()
    return kept


def grey_levels(values: Floats, bins: Bins | None, low: float | None) -> tuple[Array, int]:
    """Levels from 1 of values (n,), and how many there can be.

    Args:
        values: finite, at least one.
        bins: None takes whole numbers from 1 as they are.
        low: lower end of the range, if there is one.

    Raises:
        CaseError: E_CONFIG when there were more than `MOST_BINS`, or values are no levels.
    """
    least, most = float(values.min()), float(values.max())
    if bins is None:
        if least < 1 or (values != np.rint(values)).any():
            raise CaseError("E_CONFIG", f"Expected bins, or values that are whole numbers from 1, got {least:.6g}.")
        levels, count = values, most
    elif bins.width is not None:
        least = first_edge(least, bins, low)
        levels = np.floor((values - least) / bins.width) + 1
        count = np.floor((most - least) / bins.width) + 1
    else:
        count = float(bins.number or 1) if most > least else 1.0
        part = count * (values - least) / max(most - least, np.finfo(float).tiny)
        levels = np.minimum(np.floor(part) + 1, count)
    require_few(count)
    return levels.astype(np.int64), int(count)


def require_few(bins: float) -> None:
    """Refuse more than `MOST_BINS`.

    Raises:
        CaseError: E_CONFIG.
    """
    if bins > MOST_BINS:
        raise CaseError("E_CONFIG", f"Expected at most {MOST_BINS} bins, got {bins:.0f}: widen them.")


def first_edge(least: float, bins: Bins, low: float | None) -> float:
    """Where the first bin of a fixed width begins."""
    if bins.start == "multiple" and bins.width is not None:
        return float(np.floor(least / bins.width) * bins.width)
    return least if low is None else low
