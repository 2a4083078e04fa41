"""The frames of a multi-frame file, each as an image of its own, with the geometry and values that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from pipeline.cases import Instance
from pipeline.dicom.headers.values import PLANE_TAGS, BadNumberError, names_of, numbers, plane, texts
from pipeline.errors import QuarantineError
from pipeline.geometry import cross, moved

_SHARED, _PER_FRAME, _DIMENSIONS = 0x52009229, 0x52009230, 0x00209222
_OFFSETS, _DOSE_SCALING = 0x3004000C, 0x3004000E
_INCREMENT, _SLICES, _DETECTORS = 0x00280009, 0x00540080, 0x00540022
#: What has to be read of a file beside its values to find its frames.
FRAME_GROUPS = (_SHARED, _PER_FRAME, _DIMENSIONS, _OFFSETS, _DOSE_SCALING, _INCREMENT, _SLICES, _DETECTORS)

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
#: More frames than any image has; a file may claim four thousand million.
_MOST_FRAMES = 100_000

# The functional groups of DICOM PS3.3 C.7.6.16.2 and of the enhanced CT, MR and PET image that say something here.
# fmt: off
_GROUPS = names_of((
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
    "RealWorldValueMappingSequence", "FrameContentSequence", "CTImageFrameTypeSequence", "MRImageFrameTypeSequence",
    "PETFrameTypeSequence", "CTReconstructionSequence", "MREchoSequence", "MRDiffusionSequence", "MRModifierSequence",
    "MRTimingAndRelatedParametersSequence", "CardiacSynchronizationSequence", "TemporalPositionSequence",
    "FrameAnatomySequence",
))
# fmt: on
#: What a frame calls otherwise than a single-frame image does.
_SAME = {
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
}
#: What only frames have, and what tells the frames at one position apart.
_ONLY_FRAMES = (
    *("StackID", "InStackPositionNumber", "TemporalPositionTimeOffset", "FrameReferenceDateTime"),
    *("DimensionIndexValues", "RealWorldValueSlope", "RealWorldValueIntercept"),
)
_REAL_WORLD = tag_for_keyword("RealWorldValueMappingSequence")
_SPATIAL = {tag_for_keyword(name) for name in ("ImagePositionPatient", "InStackPositionNumber", "SliceLocation")}


def frames_of(base: Instance, dataset: Dataset) -> tuple[Instance, ...]:
    """One instance for each frame of a file.

    Frames have their own geometry in the functional groups of enhanced objects (DICOM PS3.3 C.7.6.16), in the offsets
    of a dose grid (C.8.8.3.2), or in the slices of a reconstructed nuclear medicine volume (C.8.4.15).

    Args:
        base: the file as one image.
        dataset: its values, `FRAME_GROUPS` among them.

    Returns:
        In the order of the file. A file of one frame, a segmentation, and a file whose frames have no certain place
        stay one instance.

    Raises:
        QuarantineError: E_MULTIFRAME when there are not as many places as frames.
    """
    if base.pixels is None or base.tags["SOPClassUID"] in _SEGMENTATIONS:
        return (base,)
    if _PER_FRAME in dataset:
        return _enhanced(base, dataset, base.pixels.frames)
    if base.pixels.frames == 1:
        return (base,)
    positions = _dose_positions(base, dataset) or _nuclear_positions(base, dataset)
    if positions is None:
        return (base,)
    base, along = positions
    _require_count(len(along), base)
    first, normal = base.position or (0.0, 0.0, 0.0), cross(base.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    one = replace(base, tags={**base.tags, "NumberOfFrames": "1"})
    return tuple(replace(one, frame=k, position=moved(first, normal, offset)) for k, offset in enumerate(along))


def _require_count(places: int, base: Instance) -> None:
    frames = base.pixels.frames if base.pixels else 0
    if places != frames or frames > _MOST_FRAMES:
        raise QuarantineError("E_MULTIFRAME", f"Expected the places of {frames} frames, got {places}.")


def _enhanced(base: Instance, dataset: Dataset, frames: int) -> tuple[Instance, ...]:
    places = _items(dataset, _PER_FRAME)
    _require_count(len(places), base)
    wanted = names_of([*base.tags, *_SAME, *_ONLY_FRAMES, *PLANE_TAGS])
    shared: dict[str, str] = {}
    for item in _items(dataset, _SHARED):
        shared |= _flat(item, wanted)
    keep = _not_spatial(dataset)
    return tuple(_frame(base, k, shared | _flat(item, wanted), keep) for k, item in enumerate(places))


def _flat(groups: Dataset, wanted: Mapping[int, tuple[str, str]]) -> dict[str, str]:
    """The values of the first item of each functional group, by keyword."""
    found: dict[str, str] = {}
    for tag in groups.keys():  # noqa: SIM118 - a Dataset itself iterates over converted elements
        if tag not in _GROUPS or not (items := groups[tag].value):
            continue
        if len(items) > 1 and tag == _REAL_WORLD:  # several meanings of one value: none is certain
            continue
        found |= texts(items[0], wanted)
    return found


def _frame(base: Instance, number: int, values: dict[str, str], keep: list[int]) -> Instance:
    if "RescaleSlope" not in values and "RealWorldValueSlope" in values:
        values["RescaleSlope"] = values["RealWorldValueSlope"]
        values["RescaleIntercept"] = values.get("RealWorldValueIntercept", "0")
    geometry, fault = plane(values)
    own = {_SAME.get(name, name): text for name, text in values.items() if text and name not in PLANE_TAGS}
    indices = values.get("DimensionIndexValues", "").split("\\")
    own["DimensionIndexValues"] = "\\".join(indices[k] for k in keep if k < len(indices))
    changes: dict[str, Any] = {name: value for name, value in geometry.items() if value is not None}
    tags = {**base.tags, **own, "NumberOfFrames": "1"}
    return replace(base, frame=number, tags=tags, fault=fault, **changes)


def _not_spatial(dataset: Dataset) -> list[int]:
    """Which of the dimension indices do not count places."""
    items = _items(dataset, _DIMENSIONS)
    return [k for k, item in enumerate(items) if item.get("DimensionIndexPointer") not in _SPATIAL]


def _dose_positions(base: Instance, dataset: Dataset) -> tuple[Instance, list[float]] | None:
    """Offsets in mm along the normal, and the dose's scaling. Source: DICOM PS3.3 C.8.8.3.2."""
    offsets = _numbers(dataset, _OFFSETS)
    if base.tags["Modality"] != "RTDOSE" or base.orientation is None or base.position is None or not offsets:
        return None
    scaling = _numbers(dataset, _DOSE_SCALING)
    if len(scaling) != 1:
        return None
    if offsets[0] != 0:  # the planes' z itself, which only axial planes have
        if abs(abs(base.orientation[0]) - 1) > 1e-6 or abs(offsets[0] - base.position[2]) > 1e-3:
            return None
        if abs(base.orientation[4] - base.orientation[0]) > 1e-6:
            return None
        offsets = [offset - offsets[0] for offset in offsets]
    return replace(base, slope=scaling[0], intercept=0.0), offsets


def _nuclear_positions(base: Instance, dataset: Dataset) -> tuple[Instance, list[float]] | None:
    """Slices of a reconstruction, one frame each. Source: DICOM PS3.3 C.8.4.8 and C.8.4.15."""
    step = _values(base.tags["SpacingBetweenSlices"])
    order = _numbers(dataset, _SLICES)
    increment = dataset.get(_INCREMENT)
    if "RECON TOMO" not in base.tags["ImageType"] or len(step) != 1 or increment is None or increment.value != _SLICES:
        return None
    if order != list(range(1, len(order) + 1)) or not (detectors := _items(dataset, _DETECTORS)):
        return None
    detector = texts(detectors[0], names_of(PLANE_TAGS[:2]))
    geometry, fault = plane(detector)
    if fault is not None or geometry["position"] is None or geometry["orientation"] is None:
        return None
    placed = replace(base, position=geometry["position"], orientation=geometry["orientation"])
    return placed, [k * step[0] for k in range(len(order))]


def _items(dataset: Dataset, tag: int) -> Sequence[Dataset]:
    return (dataset[tag].value or ()) if tag in dataset else ()


def _numbers(dataset: Dataset, tag: int) -> list[float]:
    return _values(texts(dataset, {tag: ("", dictionary_VR(tag))}).get("", ""))


def _values(text: str) -> list[float]:
    """All numbers of a text; none where it is not made of numbers."""
    try:
        return list(numbers(text, text.count("\\") + 1) or ())
    except BadNumberError:
        return []
