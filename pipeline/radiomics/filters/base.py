"""What all filters have in common, and how one is applied.

Source: IBSI 2, the reference manual on convolutional filters (arXiv 2006.05470).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import CaseError, UsageError
from pipeline.radiomics.levels import Array, Floats
from pipeline.spec.explain import Model

if TYPE_CHECKING:
    from torch import Tensor

#: Beyond the image's edge: zeros; the outermost value; the image again; the image mirrored, its edge voxels twice.
Boundary = Literal["zero", "nearest", "periodic", "mirror"]
#: How many voxels along I, J, K a response depends on, to each side.
Reach = tuple[int, int, int]
#: A part of an image.
Window = tuple[slice, slice, slice]
#: How the responses to all turns of a filter by right angles become one.
Pooling = Literal["average", "max"]


class Filter(Model, ABC):
    """A filter of an image.

    Attributes:
        dimensions: of slices, or of the volume.
    """

    dimensions: Literal["2D", "3D"] = "3D"

    @property
    def axes(self) -> int:
        """How many axes it works along: the first two, or all three."""
        return int(self.dimensions[0])

    @property
    def wraps(self) -> bool:
        """Whether voxels at one edge of the image count at the opposite one."""
        return getattr(self, "boundary", "periodic") == "periodic"

    @abstractmethod
    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """How far a voxel's response depends on others; None where it depends on the whole image."""

    @abstractmethod
    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The filtered image.

        Args:
            image: (I, J, K), real; K slices.
            spacing_mm: (3,).

        Returns:
            (I, J, K), real, of the same type and on the same device.
        """

    def _reach(self, *sides: int) -> Reach:
        """Along each axis that it works along: one number for all, or one for each."""
        each = (sides * 3)[:3] if len(sides) == 1 else sides
        i, j, k = (*each[: self.axes], 0, 0)[:3]
        return i, j, k


def filtered(image: Array, spacing_mm: Floats, chosen: Filter, device: str = "cpu") -> Floats:
    """The response of an image to a filter, in double precision.

    Args:
        image: (I, J, K), finite; K slices.
        spacing_mm: (3,).
        chosen: the filter.
        device: torch's name of where it is computed, such as `cpu` or `cuda:1`.

    Returns:
        (I, J, K) float64.

    Raises:
        CaseError: E_NIFTI when a value is not finite: it would spread.
        UsageError: E_OPTION when there is no such device.
    """
    import torch

    if not np.isfinite(image).all():
        raise CaseError("E_NIFTI", "Expected finite values wherever the filter reaches, got NaN or infinity.")
    values = torch.from_numpy(np.ascontiguousarray(image, np.float64))
    try:
        placed = values.to(device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UsageError("E_OPTION", f"Expected a device that torch has here, got {device}: {error}") from error
    return np.asarray(chosen.response(placed, spacing_mm).cpu().numpy())


def needed(window: Window, shape: tuple[int, ...], spacing_mm: Floats, chosen: Filter) -> Window:
    """The part of an image of a shape on which the response in a window is that of the whole image."""
    reach = chosen.reach_voxels(spacing_mm)
    i, j, k = (
        slice(0, size) if reach is None else _wider(item, size, reach[axis], chosen.wraps)
        for axis, (item, size) in enumerate(zip(window, shape, strict=True))
    )
    return i, j, k


def _wider(item: slice, size: int, reach: int, wraps: bool) -> slice:
    start, stop = item.start - reach, item.stop + reach
    if wraps and reach and (start < 0 or stop > size):
        return slice(0, size)
    return slice(max(0, start), min(size, stop))


def within(window: Window, outer: Window) -> Window:
    """A window as a part of another."""
    i, j, k = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(window, outer, strict=True))
    return i, j, k
