"""All features of one region of one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.errors import CaseError
from pipeline.geometry import check_affine, same_grid, spacing_mm
from pipeline.radiomics.flags import level_flags, mask_flags, region_flags
from pipeline.radiomics.intensity import histogram, statistics, volume_histogram
from pipeline.radiomics.levels import Array, Floats, Levels
from pipeline.radiomics.morphology import morphology
from pipeline.radiomics.prepare import Mask, Region, grey_levels, prepared, slice_axis
from pipeline.radiomics.settings import Settings
from pipeline.radiomics.spatial import PEAK_RADIUS_MM, autocorrelation, peaks
from pipeline.radiomics.textures import Textures


@dataclass(frozen=True)
class Features:
    """What was measured of a region.

    Attributes:
        values: IBSI's tag -> value in its unit; None where there is none, never 0 instead.
        flags: keys of `FLAGS`.
    """

    values: dict[str, float | None]
    flags: tuple[str, ...]


def extract(
    image: Array,
    mask: Array,
    affine: npt.ArrayLike,
    settings: Settings,
    label: int = 1,
    mask_affine: npt.ArrayLike | None = None,
    device: str = "cpu",
) -> Features:
    """Measure the features of one region.

    Args:
        image: (I, J, K), original intensities.
        mask: (I, J, K), whole numbers.
        affine: 4 x 4, RAS mm; slices are those across the axis nearest to head and foot, or the image's only one.
        settings: how to prepare, and what to measure.
        label: value of the region in the mask.
        mask_affine: the mask's own, if it is known.
        device: torch's name of where filters are computed, such as `cpu` or `cuda:1`.

    Returns:
        Every feature that the settings ask for.

    Raises:
        CaseError: E_GRID when image and mask are on two grids; E_LABEL when the mask's values are not whole numbers,
            or are all others than the label; E_NIFTI when a value of the region is not finite; E_CONFIG when the
            values would need too many bins; E_AFFINE.
        UsageError: E_OPTION when a filter needs a device that there is not.
    """
    upright = Upright.of(image, mask, affine, label, mask_affine)
    return _measured(upright.image, upright.mask, upright.spacing_mm, settings, device)


@dataclass(frozen=True)
class Upright:
    """An image and a region with slices as the last axis.

    Attributes:
        image: (I, J, K).
        mask: (I, J, K), where the label is.
        spacing_mm: (3,).
        order: which axis of the original each of the three is.
    """

    image: Array
    mask: Mask
    spacing_mm: Floats
    order: list[int]

    @classmethod
    def of(
        cls, image: Array, mask: Array, affine: npt.ArrayLike, label: int, mask_affine: npt.ArrayLike | None = None
    ) -> Upright:
        """What `extract` gets; it raises what that raises."""
        matrix = check_affine(affine)
        other = matrix if mask_affine is None else mask_affine
        if image.ndim != 3 or image.shape != mask.shape or not same_grid(image.shape, matrix, mask.shape, other):
            words = f"Expected image and mask on one grid, got {image.shape} and {mask.shape} voxels."
            raise CaseError("E_GRID", words)
        axis = slice_axis(image.shape, matrix)
        order = [number for number in range(3) if number != axis] + [axis]
        inside = _labelled(mask, label).transpose(order)
        return cls(image.transpose(order), inside, spacing_mm(matrix)[order], order)


def _labelled(mask: Array, label: int) -> Mask:
    inside = np.asarray(mask == label)
    if not inside.any() and mask.any():
        raise CaseError("E_LABEL", f"Expected label {label} in the mask, got others only.")
    if mask.dtype.kind == "f" and (mask != np.rint(mask)).any():
        raise CaseError("E_LABEL", "Expected whole numbers in the mask, got others.")
    return inside


def _measured(image: Array, mask: Mask, spacing: Floats, settings: Settings, device: str) -> Features:
    nothing: dict[str, float | None] = dict.fromkeys(settings.tags)
    if not mask.any():
        return Features(nothing, ("empty",))
    margin = PEAK_RADIUS_MM if "loc" in settings.families else 0.0
    region = prepared(image, mask, spacing, settings, margin, device)
    if not region.shape_mask.any():
        return Features(nothing, ("empty",))
    measurements = Measurements(region, settings, flat=image.shape[2] == 1)
    flags = [*mask_flags(mask), *region_flags(measurements.tight)]
    found = {
        f"{family}_{name}": value for family in settings.families for name, value in measurements.of(family).items()
    }
    if measurements.tight.values.size and set(settings.families) - {"morph", "loc", "stat", "ivh"}:
        flags += level_flags(measurements.graded[0])
    values = {tag: float(found[tag]) if np.isfinite(found.get(tag, np.nan)) else None for tag in nothing}
    return Features(values, tuple(flags))


@dataclass(frozen=True)
class Measurements:
    """The families of features of a prepared region; what several of them need is made once.

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

    def of(self, family: str) -> dict[str, float]:
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
