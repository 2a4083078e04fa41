"""Make the masks that a data spec asks for: regions of an RTSTRUCT or SEG as a label image on a role's grid."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pipeline import geometry, volumes
from pipeline.cases import Series
from pipeline.dicom.objects import contours, segments
from pipeline.errors import QuarantineError, flag_of, told_of
from pipeline.label_measures import label_measures
from pipeline.spec.spec import Mask, kinds

#: A pattern that is searched in the regions' names -> what matches, on the grid.
Drawer = Callable[[str], contours.Filled]


@dataclass(frozen=True)
class LabelImage:
    """The regions of one object on a grid.

    Attributes:
        image: (1, I, J, K), uint8: 0, and 1, 2 … in the order of the labels.
        source: what it was drawn from: `RTSTRUCT`, or `SEG` with its type and threshold.
        flags: what a reader has to know (codes `N_...` with a sentence).
    """

    image: MetaTensor
    source: str
    flags: tuple[str, ...]


def read_mask(source: Series, labels: Mapping[str, str], grid: MetaTensor) -> LabelImage:
    """Draw the regions of one object as a label image.

    Args:
        source: an RTSTRUCT or SEG series of one instance; its FrameOfReferenceUID is the image's, or empty.
        labels: label name -> regular expression that is searched in the names of its regions; those that match one
            label are united. Where labels overlap, the later one has the voxel.
        grid: the image on whose voxels the mask lies, (1, I, J, K), slices along K.

    Raises:
        QuarantineError: E_MASK, E_GRID, E_MASK_ROI when the object cannot be drawn on the grid.
    """
    shape, affine = tuple(grid.shape[1:]), volumes.affine_of(grid)
    draw, words = _opened(source, labels.values(), shape, affine)
    values = np.zeros(shape, dtype=np.uint8)
    flags: list[str] = []
    shared = 0
    for value, (label, pattern) in enumerate(labels.items(), start=1):
        filled = draw(pattern)
        shared += int(np.count_nonzero(values[filled.mask]))
        values[filled.mask] = value
        flags += [flag_of(label, flag) for flag in filled.flags]
        if not filled.mask.any():
            flags.append(f"N_MASK_EMPTY: {label}: the region has no voxel")
    if shared:
        flags.append(f"N_MASK_OVERLAP: {shared} voxels belong to several labels; the later label has them")
    return LabelImage(volumes.volume(values, affine), words, tuple(flags))


def _opened(
    source: Series, patterns: Collection[str], shape: Sequence[int], affine: geometry.FloatArray
) -> tuple[Drawer, str]:
    """How the regions of an object are drawn, and what it is in words."""
    instance = source.instances[0]
    if source.modality == "RTSTRUCT":
        regions = contours.read_regions(instance.path, patterns)
        frame = instance.tags.get("FrameOfReferenceUID", "")
        return partial(_draw_regions, regions, frame=frame, shape=shape, affine=affine), "RTSTRUCT"
    found = segments.read_segmentation(instance)
    words = f"SEG {found.kind}" + (f", from {segments.THRESHOLD:g} on" if found.kind == "FRACTIONAL" else "")
    return partial(_draw_segments, found, shape=shape, affine=affine), words


def _draw_regions(
    regions: Sequence[contours.Region], pattern: str, frame: str, shape: Sequence[int], affine: geometry.FloatArray
) -> contours.Filled:
    named = [region for region in regions if re.search(pattern, region.name)]
    if any(len(region.frames) > 1 for region in named):
        raise QuarantineError("E_MASK", f"Expected one frame of reference of what matches /{pattern}/, got several.")
    matching = [region for region in named if not frame or not region.frames or frame in region.frames]
    if named and not matching:
        reason = f"The region that matches /{pattern}/ lies in another frame of reference than the image."
        raise QuarantineError("E_MASK_ROI", reason)
    if not any(region.closed for region in matching):
        raise QuarantineError("E_MASK_ROI", f"No region with closed contours matches /{pattern}/.")
    filled = [contours.fill(region, shape, affine) for region in matching]
    united = reduce(np.logical_or, (item.mask for item in filled))
    flags = list(dict.fromkeys(flag for item in filled for flag in item.flags))
    if left_out := len(named) - len(matching):
        flags.append(f"N_OTHER_FRAME: {left_out} regions lie in another frame of reference and were left out")
    return contours.Filled(united, tuple(flags))


def _draw_segments(
    segmentation: segments.Segmentation, pattern: str, shape: Sequence[int], affine: geometry.FloatArray
) -> contours.Filled:
    matching = [number for number, label in segmentation.labels.items() if re.search(pattern, label)]
    if not matching:
        raise QuarantineError("E_MASK_ROI", f"No segment matches /{pattern}/.")
    return contours.Filled(segments.place(segmentation, matching, shape, affine))


class ReadMasksd(MapTransform):
    """Draw the masks of a case on the images of their roles, which have been read and not yet turned.

    Args:
        masks: name -> what the data spec says of it.
        needed: those of them that every case has.
    """

    def __init__(self, masks: Mapping[str, Mask], needed: Collection[str] = ()) -> None:
        super().__init__(list(masks), allow_missing_keys=True)
        self.masks, self.needed = dict(masks), frozenset(needed) & masks.keys()

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return kinds(self.masks, "label", self.needed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each mask's `Series` by its label image; add its measures and flags to the case's."""
        case = dict(data)
        for key in self.key_iterator(case):
            name, mask = str(key), self.masks[str(key)]
            with told_of(name):
                drawn = read_mask(case[key], mask.labels, case[mask.of])
            measures = label_measures(name, drawn.image, mask.label_values, drawn.source)
            case[key] = drawn.image
            case["measures"] = {**case.get("measures", {}), **measures}
            case["flags"] = [*case.get("flags", ()), *(flag_of(name, flag) for flag in drawn.flags)]
        return case
