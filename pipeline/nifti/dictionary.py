"""Read the NIfTI files of a case: images, and the masks on their grids."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation, Transform

from pipeline import geometry, volumes
from pipeline.cases import NiftiFile
from pipeline.errors import QuarantineError, flag_of, told_of
from pipeline.label_measures import label_measures
from pipeline.nifti.volume import Nifti, image_of, read_nifti, refusal
from pipeline.spec.spec import Mask, kinds


class RefuseSetAsided(Transform):
    """Refuse a case that was set aside when its files were found, with its reason; whatever kinds its files are of."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case as it is.

        Raises:
            QuarantineError: the case's fault.
        """
        fault = data.get("fault")
        if fault is not None:
            raise fault.as_error()
        return dict(data)


class ReadFilesd(MapTransform):
    """Read the NIfTI files of a case's roles and masks; what is no `NiftiFile` is left as it is.

    Args:
        keys: the roles.
        masks: name -> the spec's mask.
        needed: the roles and masks that every case has.
    """

    def __init__(self, keys: Sequence[str] | str, masks: Mapping[str, Mask], needed: Collection[str] = ()) -> None:
        super().__init__([*keys, *masks], allow_missing_keys=True)
        self.masks, self.needed = dict(masks), frozenset(needed)
        self._orient = Orientation(axcodes="RAS", labels=None)

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        roles = (str(key) for key in self.keys if key not in self.masks)
        return kinds(roles, "image", self.needed) | kinds(self.masks, "label", self.needed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each file by its volume, RAS+, masks as label images; a case that was set aside is refused."""
        case = RefuseSetAsided()(data)
        for key in self.key_iterator(case):
            if isinstance(case[key], NiftiFile):
                case[key] = self._read(str(key), case)
        return case

    def _read(self, key: str, case: dict[Hashable, Any]) -> MetaTensor:
        with told_of(key):
            volume = read_nifti(case[key].path)
            if key in self.masks:
                return self._mask(key, volume, case)
            if min(volume.values.shape) < 2:
                raise refusal(f"Expected a volume, got {volume.values.shape} voxels.")
            image = self._orient(image_of(volume))
        case["flags"] = [*case.get("flags", ()), *(flag_of(key, note) for note in volume.notes)]
        return image

    def _mask(self, key: str, volume: Nifti, case: dict[Hashable, Any]) -> MetaTensor:
        mask = self.masks[key]
        label = on_grid_of(self._orient(label_of(volume, mask.values)), case[mask.of], mask.of)
        measures = label_measures(key, label, mask.values, "NIfTI")
        empty = [name for name in mask.values if not measures[f"{key}_{name}_volume_ml"]]
        case["flags"] = [*case.get("flags", ()), *(f"N_MASK_EMPTY: {key}: {name} has no voxel" for name in empty)]
        case["measures"] = {**case.get("measures", {}), **measures}
        return label


def label_of(volume: Nifti, values: Mapping[str, int]) -> MetaTensor:
    """The volume as a label image (1, I, J, K), uint8 or uint16, values kept.

    Args:
        volume: the file's.
        values: label name -> value; 0 is the background.

    Raises:
        QuarantineError: E_NIFTI when it holds other values.
    """
    found = np.unique(volume.values)
    strange = [f"{value:g}" for value in found.tolist() if value not in {0, *values.values()}]
    if strange:
        wanted = ", ".join(map(str, sorted(values.values())))
        raise refusal(f"Expected the values 0, {wanted}, got {', '.join(strange[:5])} too.")
    kind = np.uint8 if max(values.values()) <= 255 else np.uint16
    return volumes.volume(volume.values.astype(kind), volume.affine)


def on_grid_of(mask: MetaTensor, image: MetaTensor, name: str) -> MetaTensor:
    """The mask with exactly its image's affine, if both lie on one grid but for the rounding of their headers.

    Raises:
        QuarantineError: E_GRID.
    """
    grid = volumes.affine_of(image)
    if wrong := geometry.off_grid(image.shape, grid, mask.shape, volumes.affine_of(mask)):
        raise QuarantineError("E_GRID", f"Expected the grid of {name}, got {wrong}.")
    return volumes.volume(mask.as_tensor(), grid)


class ReadNatived(MapTransform):
    """Read NIfTI files whole and checked, on the grids that they come on; keys that a case lacks are passed over."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by its volume (1, I, J, K).

        Raises:
            QuarantineError: E_NIFTI when a file is damaged or holds NaN.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            with told_of(str(key)):
                case[key] = image_of(read_nifti(case[key]))
        return case
