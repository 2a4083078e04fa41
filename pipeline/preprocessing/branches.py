"""Images under keys of their own, to be prepared in a way of their own; and how a report shows what became of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from pipeline.geometry import same_grid
from pipeline.store.sections import Display, Panel, Picture, Section, Sections
from pipeline.volumes import affine_of
from pipeline.words import clean, in_words

PANELS_A_PICTURE = 4


class Branchd(Transform):
    """Copy the image of each role to `<role>_<name>`, which later transforms change and the stage writes.

    Args:
        images: key -> kind of the roles' images, as the stage reads them; one that a case lacks is left out.
        roles: whose images they are, in the same order.
        name: of the branch.
        may_lack: an image that every case has may still be left out before.
    """

    def __init__(self, images: Mapping[str, str], roles: Sequence[str], name: str, may_lack: bool = False) -> None:
        self.copies = {f"{role}_{name}": image for role, image in zip(roles, images, strict=True)}
        kinds = [images[image] for image in self.copies.values()]
        self.keys, self.kinds = list(self.copies), ["image?" if may_lack else kind for kind in kinds]

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return dict(zip(self.keys, self.kinds, strict=True))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Copy the images that the case has."""
        return {**data, **{copy: data[image].clone() for copy, image in self.copies.items() if image in data}}


class LeaveMapsd(Transform):
    """Take out the images that ingest found to be maps of a quantity, or no HU, though their roles name no unit.

    Filters, normalisation and windows in HU would change what such a map measures.

    Args:
        images: key -> kind of the roles' images, as the stage reads them.
        roles: whose images they are, in the same order.
    """

    def __init__(self, images: Mapping[str, str], roles: Sequence[str]) -> None:
        self.images = dict(zip(roles, images, strict=True))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case without them."""
        flags = [flag for record in data.get("records") or () for flag in record.flags]
        codes = ("N_QUANTITATIVE", "N_NOT_HU")
        left_out = {
            image
            for role, image in self.images.items()
            if any(flag.startswith(f"{code}: {role}:") for flag in flags for code in codes)
        }
        return {key: value for key, value in data.items() if key not in left_out}


class ShowPreparedd(Transform):
    """Change nothing, and show prepared images to the reader of a case: each channel, side by side.

    Args:
        keys: of images with values in [0, 1].
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case as it is."""
        return dict(data)

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """Pictures of all channels, those of one grid together."""
        pictures: list[Picture] = []
        for group in self._grids(case):
            panels = [panel for key in group for panel in _panels(key, case)]
            for start in range(0, len(panels), PANELS_A_PICTURE):
                number = len(pictures) + 1
                title = "Prepared images" if number == 1 else f"Prepared images, continued ({number})"
                caption = "Each channel from 0 to 1, through the middle of the body."
                shown = tuple(panels[start : start + PANELS_A_PICTURE])
                pictures.append(Picture(f"prepared_{number}", title, caption, shown, rank=1))
        displays = tuple(Display(key, in_words(key), "", (0.0, 1.0)) for key in self.keys if key in case)
        return Sections((Section("Prepared images", (), (), tuple(pictures)),) if pictures else (), (), displays)

    def _grids(self, case: Mapping[Hashable, Any]) -> list[list[str]]:
        """The keys that the case has, those whose images lie on one grid together."""
        groups: list[list[str]] = []
        for key in (key for key in self.keys if key in case):
            same = next((group for group in groups if _on_one_grid(case[group[0]], case[key])), None)
            if same is None:
                groups.append([key])
            else:
                same.append(key)
        return groups


def _on_one_grid(a: MetaTensor, b: MetaTensor) -> bool:
    return same_grid(a.shape, affine_of(a), b.shape, affine_of(b))


def _panels(key: str, case: Mapping[Hashable, Any]) -> list[Panel]:
    """One panel a channel; the channels' names are the measure `<key>_channels`, where there is one."""
    count = case[key].shape[0]
    recorded = [name for name in str((case.get("measures") or {}).get(f"{key}_channels", "")).split(", ") if name]
    if len(recorded) == count:
        names = [f"{in_words(key.rsplit('_', 1)[0])} {clean(name).replace('_', ' ')}" for name in recorded]
    else:
        names = [in_words(key)] if count == 1 else [f"{in_words(key)} {number + 1}" for number in range(count)]
    return [Panel(name, key, channel) for channel, name in enumerate(names)]
