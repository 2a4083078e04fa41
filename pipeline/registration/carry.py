"""Masks on the native grids of other images than they were drawn on: carried by the saved alignments."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from monai.transforms import Transform

from pipeline.registration.dictionary import aligned_key
from pipeline.registration.transforms import resample_labels
from pipeline.spec.spec import Spec


@dataclass(frozen=True)
class Carried:
    """A mask that is wanted on another image's grid.

    Attributes:
        key: of the carried mask.
        mask: its key.
        of: the role on whose grid it lies.
        role: the role on whose grid it is wanted.
    """

    key: str
    mask: str
    of: str
    role: str


def mask_keys(spec: Spec) -> dict[tuple[str, str], str]:
    """Mask and role -> key of the mask on the native grid of that role's image, where it was drawn on another."""
    pairs = [(mask, role, of) for role in spec.radiomics.images for mask, of in spec.measured_in(role).items()]
    return {
        (mask, role): aligned_key(mask) if role == spec.fixed else f"{mask}_on_{role}"
        for mask, role, of in pairs
        if of != role
    }


def aligned_masks(spec: Spec) -> dict[str, str]:
    """The masks that registration has brought onto the fixed grid: key -> kind."""
    return {key: "label?" for (_, role), key in mask_keys(spec).items() if role == spec.fixed}


def masks_to_carry(spec: Spec) -> list[Carried]:
    """The masks that are wanted on moving images' own grids, and were drawn on another image."""
    found = [(key, mask, role) for (mask, role), key in mask_keys(spec).items() if role != spec.fixed]
    return [Carried(key, mask, spec.measurable_masks[mask], role) for key, mask, role in found]


def transform_kinds(carried: Iterable[Carried], fixed: str) -> dict[str, str]:
    """What carrying reads of registration: key -> kind."""
    moving = {role for item in carried for role in (item.of, item.role) if role != fixed}
    kinds = {"transform": "transform?", "inverse": "transform?", "quality": "measure?"}
    return {f"{role}_{name}": kind for role in sorted(moving) for name, kind in kinds.items()}


class CarryLabelsd(Transform):
    """Carry label images onto the grids of other images: `<mask>_on_<role>`, nearest neighbour, never twice resampled.

    A mask whose alignment has failed, or was never made, is not carried: the key is then not in the case.

    Args:
        carried: which.
        fixed: the role that stays in place.
    """

    def __init__(self, carried: Iterable[Carried], fixed: str) -> None:
        self.carried, self.fixed = tuple(carried), fixed

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return {item.key: "label?" for item in self.carried}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Carry the masks of a case.

        Args:
            data: label images (1, I, J, K) and images (1, I, J, K); of each moving role the paths of its `_transform`,
                `_inverse` and `_quality`.

        Raises:
            CaseError: E_DTYPE when a mask holds fractions.
        """
        case = dict(data)
        for item in self.carried:
            if item.mask in case and item.role in case and (way := self._way(case, item)):
                case[item.key] = resample_labels(case[item.mask], case[item.role], sitk.CompositeTransform(way))
        return case

    def _way(self, case: Mapping[Hashable, Any], item: Carried) -> list[sitk.Transform]:
        """From points of the wanted grid to those of the mask; the last is applied first. Empty where there is none."""
        steps = [f"{item.of}_transform"] if item.of != self.fixed else []
        steps += [f"{item.role}_inverse"] if item.role != self.fixed else []
        moving = [role for role in (item.of, item.role) if role != self.fixed]
        if not all(_has_passed(case, role) for role in moving) or not all(step in case for step in steps):
            return []
        return [sitk.ReadTransform(str(case[step])) for step in steps]


def _has_passed(case: Mapping[Hashable, Any], role: str) -> bool:
    path = case.get(f"{role}_quality")
    return path is not None and json.loads(Path(path).read_text(encoding="utf-8"))["verdict"] != "fail"
