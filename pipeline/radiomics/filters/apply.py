"""A filter applied to an array, and the part of an image that it needs."""

from __future__ import annotations

import numpy as np

from pipeline.errors import CaseError, UsageError
from pipeline.radiomics.filters.base import Filter
from pipeline.radiomics.levels import Array, Floats


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


Window = tuple[slice, slice, slice]


def needed(window: Window, shape: tuple[int, ...], spacing_mm: Floats, chosen: Filter) -> Window:
    """The part of an image on which the response in a window is that of the whole image.

    Args:
        window: where the response is wanted.
        shape: of the image.
        spacing_mm: (3,).
        chosen: the filter.
    """
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
