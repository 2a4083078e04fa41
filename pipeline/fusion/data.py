"""Cases as the fusion network takes them: modalities stacked as channels, what is missing said, patches drawn."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    LoadImaged,
    MapTransform,
    RandCropByPosNegLabeld,
    Randomizable,
    RandomizableTransform,
    Transform,
)
from nibabel.filebasedimages import ImageFileError

from pipeline.body import body_mask
from pipeline.errors import CaseError, UsageError
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.resample import GRID_AFFINE
from pipeline.geometry import spacing_mm
from pipeline.learning.table import Standard, read_numbers
from pipeline.volumes import affine_of, require_same_grid, volume

Data = Mapping[Hashable, Any]
#: What the network and the loss are given of a case.
KEYS = ("image", "available", "mask", "mask_known", "label", "table", "case_id")


class StackModalitiesd(MapTransform):
    """Make one `image` (M, I, J, K) of the modalities, in their order, and say in `available` (M,) which are there.

    What is missing becomes zeros. The case keeps its other entries; the single images go.

    Args:
        keys: the images, in the order of the network's modalities.

    Raises:
        CaseError: E_MISSING_ROLE when none is there; E_GRID when they are not on one grid, or one has several channels.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Stack."""
        case = dict(data)
        images: dict[Hashable, MetaTensor] = {key: case.pop(key) for key in self.keys if key in case}
        if not images:
            raise CaseError("E_MISSING_ROLE", f"Expected one of {', '.join(map(str, self.keys))}, got none.")
        first_key, first = next(iter(images.items()))
        for key, image in images.items():
            if image.shape[0] != 1:
                raise CaseError("E_GRID", f"Expected one channel of {key}, got {image.shape[0]}.")
            require_same_grid(first, image, (str(first_key), str(key)))
        zeros = torch.zeros_like(first.as_tensor(), dtype=torch.float32)
        channels = [images[key].as_tensor().float() if key in images else zeros for key in self.keys]
        case["image"] = volume(torch.cat(channels), affine_of(first))
        case["available"] = torch.tensor([key in images for key in self.keys])
        return case


class FindBodyd(Transform):
    """Add `body`, the body mask (`pipeline.body`) of the first image that is there, before it is normalised."""

    def __init__(self, keys: Sequence[str], ct_keys: Sequence[str]) -> None:
        self.keys, self.ct_keys = tuple(keys), tuple(ct_keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Find."""
        first = next((key for key in self.keys if key in data), None)
        if first is None:
            return dict(data)
        return {**data, "body": body_mask(data[first], "CT" if first in self.ct_keys else "MR")}


class CheckMaskd(Transform):
    """See that the voxel labels lie on the image's grid and are known; a case without a mask gets an empty one.

    `mask_known` says whether there was one.

    Args:
        labels: how many labels there are, background included; 0 where no voxel is learned.

    Raises:
        CaseError: E_GRID for another grid or several channels; E_LABEL for a label that does not exist.
    """

    def __init__(self, labels: int) -> None:
        self.labels = labels

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Check."""
        case = dict(data)
        mask, image = case.get("mask"), case["image"]
        case["mask_known"] = torch.tensor(mask is not None and self.labels > 0)
        if mask is None:
            case["mask"] = volume(torch.zeros((1, *image.shape[1:]), dtype=torch.uint8), affine_of(image))
            return case
        require_same_grid(image, mask, ("the images", "the mask"))
        if mask.shape[0] != 1:
            raise CaseError("E_GRID", f"Expected one channel of the mask, got {mask.shape[0]}.")
        found = np.unique(mask.numpy())
        if self.labels and not np.isin(found, np.arange(self.labels)).all():
            raise CaseError("E_LABEL", f"Expected voxel labels 0 to {self.labels - 1}, got up to {found.max():g}.")
        case["mask"] = volume(mask.as_tensor().to(torch.uint8), affine_of(image))
        return case


class ReadImagesd(LoadImaged):
    """MONAI's `LoadImaged`, which says in one sentence what cannot be read.

    Raises:
        CaseError: E_NIFTI.
    """

    def __call__(self, data: Data, reader: Any = None) -> dict[Hashable, Any]:
        """Read."""
        try:
            return dict(super().__call__(data, reader))
        except Exception as error:
            known = _unreadable(error)
            if known is None:
                raise
            raise known from error


def _unreadable(error: BaseException) -> CaseError | None:
    """What to say when a file that a table names could not be read as an image; None for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        damaged = isinstance(cause, EOFError | zlib.error | ImageFileError)
        # the system's own errors, such as a full disk, have a number
        damaged = damaged or (isinstance(cause, OSError) and cause.errno is None)
        if damaged or str(cause).startswith("LoadImage cannot find a suitable reader"):
            reason = str(cause).splitlines()[0].rstrip(".")
            return CaseError("E_NIFTI", f"An image of the table cannot be read: {reason}.")
        cause = cause.__cause__
    return None


class PatchAtRandomd(Randomizable, Transform):
    """Draw one patch, as often around a foreground voxel of the mask as `lesion_share` says.

    Args:
        size: voxels along each side; smaller images are padded with zeros first by the chain.
        lesion_share: from 0 to 1.
    """

    def __init__(self, size: Sequence[int], lesion_share: float = 0.5) -> None:
        self.crop = RandCropByPosNegLabeld(
            ("image", "mask"), label_key="mask", spatial_size=size, pos=lesion_share, neg=1 - lesion_share
        )

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> PatchAtRandomd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.crop.set_random_state(seed, state)
        return self

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Crop."""
        return dict(self.crop(data)[0])


class PatchAtLesiond(Transform):
    """Take the one patch (`size` voxels) around the middle of the mask's foreground, or of the image: no chance."""

    def __init__(self, size: Sequence[int]) -> None:
        self.size = tuple(size)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Crop."""
        case = dict(data)
        shape = case["image"].shape[1:]
        places = case["mask"].as_tensor()[0].nonzero().double()
        middle = places.mean(0) if len(places) else torch.tensor(shape).double() / 2
        starts = [
            int(min(max(0, round(float(c)) - side // 2), total - side))
            for c, side, total in zip(middle, self.size, shape, strict=True)
        ]
        box = (slice(None), *(slice(start, start + side) for start, side in zip(starts, self.size, strict=True)))
        return {**case, "image": case["image"][box], "mask": case["mask"][box]}


class DropModalitiesd(RandomizableTransform):
    """Hide modalities by chance, so that the network learns to do without; one that is there always stays.

    Args:
        prob: that each modality is hidden.

    Source: modality dropout: Neverova et al., ModDrop, IEEE TPAMI 38(8), 2016.
    """

    def __init__(self, prob: float = 0.3) -> None:
        super().__init__(prob=1.0)
        self.prob_each = prob

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Hide."""
        case = dict(data)
        available = case["available"].clone()
        draws = self.R.random_sample(len(available) + 1)
        hidden = torch.from_numpy(draws[:-1] < self.prob_each)
        if bool((hidden | ~available).all()):
            there = available.nonzero().flatten()
            hidden[there[int(draws[-1] * len(there))]] = False
        case["available"] = available & ~hidden
        return case


class ForNetworkd(Transform):
    """Keep what the network and the loss are given, as plain tensors.

    Args:
        table_features: how many further numbers the network takes; a case without them gets NaN.
    """

    def __init__(self, table_features: int = 0) -> None:
        self.table_features = table_features

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Select."""
        table = data.get("table", np.full(self.table_features, np.nan, dtype=np.float32))
        case: dict[Hashable, Any] = {key: data[key] for key in KEYS if key in data}
        case["table"] = torch.as_tensor(table, dtype=torch.float32)
        case["label"] = torch.tensor(int(data.get("label", -1)))
        return {key: item.as_tensor() if isinstance(item, MetaTensor) else item for key, item in case.items()}


#: A voxel side that departs by more than this factor from all of the training is another kind of image.
FAR = 1.25


class AddTabled(Transform):
    """Add `table` (columns,), a case's further numbers, standardised as in training; an empty cell becomes NaN.

    Args:
        path: a CSV with `case_id` and the columns of `standard`; others are not looked at.

    Raises:
        UsageError: E_TABLE when there is none, it cannot be read or lacks a column, or the network takes no table.
        CaseError: E_TABLE when it has no row of the case.
    """

    def __init__(self, path: str, standard: Standard) -> None:
        if not standard.columns:
            raise UsageError("E_TABLE", f"Expected no table: the network was trained without one, got {path}.")
        if not path:
            raise UsageError("E_TABLE", f"Expected a table_file with {', '.join(standard.columns)}, got none.")
        self.standard, self.numbers = standard, read_numbers(Path(path), standard.columns)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Add."""
        name = data["case_id"]
        if name not in self.numbers:
            raise CaseError("E_TABLE", f"Expected a row of {name} in the table of further numbers, got none.")
        return {**data, "table": torch.tensor(self.standard(self.numbers[name]), dtype=torch.float32)}


class FlagOutOfDomaind(Transform):
    """Say in `flags` what the network had to do without, and whether its images were of another kind than it knows.

    Args:
        preparation: of the network.
        sees: the modalities that the network looks at; all when empty.
    """

    def __init__(self, preparation: Preparation, sees: Sequence[str] = ()) -> None:
        self.preparation, self.sees = preparation, tuple(sees or preparation.modalities)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Look."""
        there = zip(self.preparation.modalities, data["available"].tolist(), strict=True)
        missing = [name for name, is_there in there if name in self.sees and not is_there]
        why = "there is no aligned image of it" if GRID_AFFINE in data else "the case has none"  # streams share no grid
        flags = [f"N_NOT_FUSED: {name}: {why}" for name in missing]
        strange = self._strange(spacing_mm(data[GRID_AFFINE].numpy())) if GRID_AFFINE in data else []
        return {**data, "flags": [*data.get("flags", ()), *flags, *strange]}

    def _strange(self, sides: Any) -> list[str]:
        """Nothing, or a note: voxels too large for what was learned; on their own grid also voxels too small."""
        if not self.preparation.seen_mm:
            return []
        low, high = self.preparation.seen_mm
        fine = not self.preparation.spacing_mm and sides.min() < low / FAR
        if not fine and sides.max() <= high * FAR:
            return []
        got = " × ".join(f"{side:.2f}" for side in sides)
        return [
            f"N_UNSEEN_VOXELS: voxels of {got} mm, but the network has learned from sides of {low:.2f} to {high:.2f}"
        ]
