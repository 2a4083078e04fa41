"""Which roles of a case share a frame of reference: only their headers say how they lie to each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import MapTransform

from pipeline.cases import Series
from pipeline.dicom.series.radiograph import is_radiograph


def frame_uid(series: Series) -> str:
    """FrameOfReferenceUID (0020,0052) of a series; empty where it has none or more than one, and for radiographs."""
    found = {instance.tags.get("FrameOfReferenceUID", "") for instance in series.instances}
    return found.pop() if len(found) == 1 and not is_radiograph(series) else ""


def frame_numbers(series: Mapping[str, Series]) -> dict[str, int]:
    """Number the frames of reference of a case's roles, so that their UIDs need not be kept.

    Returns:
        role -> number from 1, the same for roles of one frame; without the roles whose frame is not known.

    Source: DICOM PS3.3 C.7.4.1.1.1: images of one frame of reference are spatially related to each other.
    """
    uids = {role: uid for role, item in series.items() if (uid := frame_uid(item))}
    numbers = {uid: number for number, uid in enumerate(dict.fromkeys(uids.values()), start=1)}
    return {role: numbers[uid] for role, uid in uids.items()}


class Framesd(MapTransform):
    """Add `frames` to a case (see `frame_numbers`); its roles, the keys, hold `Series`."""

    def __init__(self, keys: Sequence[str] | str) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return {"frames": "measure?"}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its `frames`."""
        return {**data, "frames": frame_numbers({str(key): data[key] for key in self.key_iterator(dict(data))})}
