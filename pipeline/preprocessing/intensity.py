"""CT windows, and MR intensities on a common scale. The grid is never changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from pipeline.body import body_mask, finite_values
from pipeline.errors import CaseError, UsageError
from pipeline.volumes import require_same_grid


def finite_channels(image: MetaTensor) -> npt.NDArray[np.float64]:
    """The voxels of an image as (C, I, J, K) float64.

    Raises:
        CaseError: E_GRID when it is not (C, I, J, K); E_BLANK when a voxel is not finite.
    """
    values = np.asarray(image.detach().cpu().numpy(), dtype=np.float64)
    if values.ndim != 4:
        raise CaseError("E_GRID", f"Expected a volume (C, I, J, K), got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise CaseError("E_BLANK", f"Expected finite voxels, got {int((~np.isfinite(values)).sum())} that are not.")
    return values


def inside_of(image: MetaTensor, mask: MetaTensor) -> npt.NDArray[np.bool_]:
    """A mask as (I, J, K) bool, once it is known to fit the image.

    Raises:
        CaseError: E_GRID when it has another grid than the image; E_BLANK when it is empty.
    """
    require_same_grid(image, mask, ("the image", "the mask"))
    inside = np.asarray(mask.detach().cpu().numpy()[0] > 0)
    if not inside.any():
        raise CaseError("E_BLANK", "Expected a mask with some foreground, got an empty one.")
    return inside


def like(values: npt.NDArray[Any], image: MetaTensor) -> MetaTensor:
    """Values (C, I, J, K), or (I, J, K) for one channel, as float32 with the image's affine and metadata."""
    channels = values if values.ndim == 4 else values[None]
    result: MetaTensor = convert_to_dst_type(channels, image, dtype=torch.float32)[0]
    return result


def window_channels(image: MetaTensor, windows: Mapping[str, Sequence[float]]) -> MetaTensor:
    """One channel for each CT window: 0 at and below level - width / 2, 1 at and above level + width / 2.

    Args:
        image: (1, I, J, K), HU.
        windows: name -> (level, width) in HU, such as `{"brain": (40, 80)}`; the channels follow their order.

    Returns:
        (len(windows), I, J, K) float32 in [0, 1]; `meta["channels"]` holds the windows' names.

    Raises:
        UsageError: E_CONFIG when a window is not a level and a positive width, or there is none.
        CaseError: E_GRID when the image has more than one channel; E_BLANK when it is constant or not finite.

    Source: DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT.
    """
    check_windows(windows)
    values = finite_values(image)
    channels = [np.clip((values - level) / width + 0.5, 0.0, 1.0) for level, width in windows.values()]
    result = like(np.stack(channels), image)
    result.meta["channels"] = list(windows)
    return result


def foreground_zscore(image: MetaTensor, mask: MetaTensor | None = None) -> MetaTensor:
    """Shift and scale each channel to mean 0 and standard deviation 1 over the foreground.

    The air around would otherwise decide the mean and the standard deviation by how much of it the field of view holds.
    They are *measured* over the foreground and *applied* to every voxel: the order of intensities is kept, and the mask
    draws no edge into the image. The air so lands below the darkest tissue, not at 0.

    Args:
        image: (C, I, J, K).
        mask: (1, I, J, K), not 0 in the foreground; `body_mask` of the image as MR when it is left out.

    Returns:
        (C, I, J, K) float32, in standard deviations.

    Raises:
        CaseError: E_BLANK when the foreground is empty, constant or not finite; E_GRID when the mask has another grid,
            or when there is none and the image has more than one channel.
    """
    values = finite_channels(image)
    inside = inside_of(image, body_mask(image, "MR") if mask is None else mask)
    means = values[:, inside].mean(axis=1)
    deviations = values[:, inside].std(axis=1)
    if deviations.min() == 0:
        raise CaseError("E_BLANK", "Expected a foreground with contrast, got one value only.")
    return like((values - means[:, None, None, None]) / deviations[:, None, None, None], image)


def clip_percentiles(
    image: MetaTensor, lower: float = 0.5, upper: float = 99.5, mask: MetaTensor | None = None
) -> MetaTensor:
    """Clip each channel to two of its percentiles.

    Args:
        image: (C, I, J, K).
        lower: percentile, 0 to 100.
        upper: percentile, 0 to 100, above `lower`.
        mask: (1, I, J, K): the percentiles are taken where it is not 0; over the whole image when it is left out.

    Returns:
        (C, I, J, K) float32, in the image's unit.

    Raises:
        UsageError: E_CONFIG when the percentiles are not in order.
        CaseError: E_BLANK when the mask is empty or the image not finite; E_GRID when the mask has another grid.
    """
    check_percentiles(lower, upper)
    values = finite_channels(image)
    picked = values.reshape(len(values), -1) if mask is None else values[:, inside_of(image, mask)]
    low, high = np.percentile(picked, [lower, upper], axis=1)
    return like(np.clip(values, low[:, None, None, None], high[:, None, None, None]), image)


def rescale_unit(image: MetaTensor) -> MetaTensor:
    """Map each channel linearly to [0, 1], its minimum to 0 and its maximum to 1.

    Args:
        image: (C, I, J, K).

    Returns:
        (C, I, J, K) float32 in [0, 1].

    Raises:
        CaseError: E_BLANK when a channel is constant or not finite.
    """
    values = finite_channels(image)
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    if (low == high).any():
        raise CaseError("E_BLANK", "Expected an image with contrast, got a channel with one value only.")
    return like((values - low) / (high - low), image)


def check_windows(windows: Mapping[str, Sequence[float]]) -> None:
    """Raise E_CONFIG for windows that are not named pairs of level and positive width."""
    if not windows:
        raise UsageError("E_CONFIG", "Expected at least one CT window, got none.")
    for name, window in windows.items():
        if len(window) != 2 or not np.isfinite(window).all() or window[1] <= 0:
            raise UsageError("E_CONFIG", f"Expected window {name} as level and positive width, got {list(window)}.")


def check_percentiles(lower: float, upper: float) -> None:
    """Raise E_CONFIG for percentiles that are out of order."""
    if not 0 <= lower < upper <= 100:
        raise UsageError("E_CONFIG", f"Expected percentiles 0 <= lower < upper <= 100, got {lower} and {upper}.")


class ChangeEachd(MapTransform, ABC):
    """What changes each of its images by itself."""

    @abstractmethod
    def changed(self, image: MetaTensor, case: Mapping[Hashable, Any]) -> MetaTensor:
        """The image that takes an image's place in the case."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change each image."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self.changed(case[key], case)
        return case


class WindowChannelsd(MapTransform):
    """Replace CT images by their windows; see `window_channels`.

    The case's measures gain `<key>_channels`, the windows' names, which a NIfTI file cannot hold.

    Args:
        keys: the CT images.
        windows: name -> (level, width) in HU.
    """

    def __init__(
        self, keys: Sequence[str] | str, windows: Mapping[str, Sequence[float]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_windows(windows)
        self.windows = dict(windows)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Window each image."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = window_channels(case[key], self.windows)
            case["measures"] = {**(case.get("measures") or {}), f"{key}_channels": ", ".join(self.windows)}
        return case


class ForegroundZScored(ChangeEachd):
    """Give images foreground mean 0 and standard deviation 1; see `foreground_zscore`.

    Args:
        keys: the images.
        mask_key: the case's foreground mask; each image's own body mask when it is left out.
    """

    def __init__(
        self, keys: Sequence[str] | str, mask_key: str | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key

    def changed(self, image: MetaTensor, case: Mapping[Hashable, Any]) -> MetaTensor:
        """Normalised."""
        return foreground_zscore(image, None if self.mask_key is None else case[self.mask_key])


class ClipPercentilesd(ChangeEachd):
    """Clip images to percentiles; see `clip_percentiles`.

    Args:
        keys: the images.
        lower: percentile, 0 to 100.
        upper: percentile, 0 to 100.
        mask_key: the mask within which the percentiles are taken; the whole image when it is left out.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        lower: float = 0.5,
        upper: float = 99.5,
        mask_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_percentiles(lower, upper)
        self.lower, self.upper, self.mask_key = lower, upper, mask_key

    def changed(self, image: MetaTensor, case: Mapping[Hashable, Any]) -> MetaTensor:
        """Clipped."""
        mask = None if self.mask_key is None else case[self.mask_key]
        return clip_percentiles(image, self.lower, self.upper, mask)


class RescaleUnitd(ChangeEachd):
    """Map images to [0, 1]; see `rescale_unit`.

    Args:
        keys: the images.
    """

    def changed(self, image: MetaTensor, case: Mapping[Hashable, Any]) -> MetaTensor:
        """Rescaled."""
        return rescale_unit(image)
