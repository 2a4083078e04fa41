"""Structure sets and segmentations of a patient: to which series they refer, and which of them makes a spec's mask."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from pipeline.cases import Case, Fault, Series
from pipeline.dicom.objects.objects import read_object, referenced_series
from pipeline.dicom.sandbox import Sandbox
from pipeline.dicom.series.identity import contradiction
from pipeline.dicom.series.select import Choice, Selection
from pipeline.dicom.series.stack import frame_uids
from pipeline.spec.spec import Mask, Spec

MODALITIES = ("RTSTRUCT", "SEG")
#: Objects that a process of the sandbox is given at once.
_CHUNK = 16
#: Faults of a series' identity. All others say that it holds no image volume, which is no matter here.
_IDENTITY = ("E_UID_COLLISION", "E_MIXED_MODALITY", "E_DUP_SOP")
# fmt: off
_TAGS = (
    "FrameOfReferenceUID", "ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "StructureSetDate",
    "StructureSetTime", "StructureSetROISequence", "ContentDate", "ContentTime", "SegmentSequence",
)
# fmt: on


@dataclass(frozen=True)
class MaskObject:
    """An RTSTRUCT or SEG file, as far as it matters for choosing it.

    Attributes:
        series: its series, with this instance alone.
        regions: of each region or segment its name, the hospital's free text, which never reaches an output, and the
            UID of its frame of reference, empty where it names none.
        series_uids: of the series that it names.
        sop_uids: of the images that it names.
        frames: UIDs of its frames of reference.
        written: date and time of its content; sorts in time.
    """

    series: Series
    regions: tuple[tuple[str, str], ...]
    series_uids: frozenset[str]
    sop_uids: frozenset[str]
    frames: frozenset[str]
    written: str

    @property
    def names(self) -> list[str]:
        """The names of all its regions."""
        return [name for name, _ in self.regions]

    def within(self, frames: Collection[str]) -> list[str]:
        """The names of the regions that do not say that they lie in another frame of reference."""
        return [name for name, frame in self.regions if not frames or not frame or frame in frames]


@dataclass(frozen=True)
class Masked:
    """The selection with the masks' objects, the series that make them without their fault, and all objects."""

    selection: Selection
    series: tuple[Series, ...]
    objects: tuple[MaskObject, ...]


def attach_masks(series: Sequence[Series], selection: Selection, spec: Spec) -> Masked:
    """Give each case the objects that make its masks, under the masks' names.

    Args:
        series: of the whole tree, in the order of the selection's choices.
        selection: of the series that play the roles.
        spec: says which masks there are.

    Returns:
        The cases with a `Series` for each mask. A case whose required mask is missing or ambiguous has it as its fault.
    """
    if not spec.masks:
        return Masked(selection, tuple(series), ())
    found = _Found(series)
    cases = tuple(_with_masks(case, found, spec) for case in selection.cases)
    choices, cleared = [], []
    for item, choice in zip(series, selection.choices, strict=True):
        outcome = found.outcome(item, choice)
        choices.append(outcome)
        cleared.append(replace(item, fault=None) if item.modality in MODALITIES and outcome.role else item)
    return Masked(Selection(cases, tuple(choices)), tuple(cleared), tuple(found.all))


class _Found:
    """The objects of all patients, and what became of each of their series."""

    def __init__(self, series: Sequence[Series]) -> None:
        tasks = [task for item in series if item.modality in MODALITIES for task in _one_by_one(item)]
        self.all = read_objects(tasks)
        self.broken = Counter(task.patient_id for task in tasks)
        self.broken.subtract(found.series.patient_id for found in self.all)
        self._verdicts: defaultdict[tuple[str, str], list[Choice]] = defaultdict(list)

    def of_patient(self, patient_id: str) -> list[MaskObject]:
        return [found for found in self.all if found.series.patient_id == patient_id]

    def say(self, found: MaskObject, choice: Choice) -> None:
        self._verdicts[found.series.patient_id, found.series.series_uid].append(choice)

    def outcome(self, series: Series, choice: Choice) -> Choice:
        """What became of a series: the masks that it makes, else why it makes none."""
        verdicts = self._verdicts.get((series.patient_id, series.series_uid), ())
        if series.modality not in MODALITIES or not verdicts:
            return choice
        roles = sorted({verdict.role for verdict in verdicts if verdict.role})
        reasons = "; ".join(dict.fromkeys(verdict.reason for verdict in verdicts if verdict.reason))
        return Choice(verdicts[0].case_id, ", ".join(roles), "" if roles else reasons)


def _one_by_one(series: Series) -> list[Series]:
    """Each file of a series by itself, with its own fault, or with the one that the series has for its identity."""
    fault = series.fault if series.fault is not None and series.fault.code in _IDENTITY else None
    return [
        replace(series, instances=(item,), rejected=(), fault=fault or item.fault)
        for item in (*series.instances, *series.rejected)
    ]


def read_objects(tasks: Sequence[Series]) -> list[MaskObject]:
    """The objects among RTSTRUCT and SEG series of one instance each that have no fault and can be read."""
    sound = [task for task in tasks if task.fault is None]
    if not sound:
        return []
    with Sandbox(describe_object, chunk=_CHUNK) as box:
        return [found for found in box.map(sound) if isinstance(found, MaskObject)]


def describe_object(series: Series) -> MaskObject:
    """What an object of one instance refers to. Runs in a process of its own, as all first looks at foreign files do.

    Raises:
        Exception: of many kinds, when it is cut or broken.
    """
    dataset = read_object(series.instances[0].path, _TAGS)
    series_uids, sop_uids = _referenced(dataset)
    return MaskObject(
        series=series,
        regions=tuple(_regions(dataset)),
        series_uids=frozenset(series_uids),
        sop_uids=frozenset(sop_uids),
        frames=frozenset(_frames(dataset)),
        written=" ".join(_text(dataset, f"StructureSet{part}", f"Content{part}") for part in ("Date", "Time")),
    )


def _text(dataset: Dataset, *keywords: str) -> str:
    return next((str(dataset.get(keyword)) for keyword in keywords if dataset.get(keyword)), "")


def _regions(dataset: Dataset) -> Iterable[tuple[str, str]]:
    """Name of each region or segment, and its ReferencedFrameOfReferenceUID (3006,0024), which segments have not."""
    for item in dataset.get("StructureSetROISequence", []):
        yield str(item.get("ROIName", "")), str(item.get("ReferencedFrameOfReferenceUID", "") or "")
    yield from ((str(item.get("SegmentLabel", "")), "") for item in dataset.get("SegmentSequence", []))


def _frames(dataset: Dataset) -> Iterable[str]:
    items = [dataset, *dataset.get("ReferencedFrameOfReferenceSequence", [])]
    return (str(item.FrameOfReferenceUID) for item in items if item.get("FrameOfReferenceUID"))


def _referenced(dataset: Dataset) -> tuple[set[str], set[str]]:
    """UIDs of the series and of the images that an object names.

    Source: DICOM PS3.3 C.12.1.1.3.1 (Common Instance Reference Module).
    """
    in_frames = [(item, "ContourImageSequence") for _, item in referenced_series(dataset)]
    common = [(item, "ReferencedInstanceSequence") for item in dataset.get("ReferencedSeriesSequence", [])]
    items = [*in_frames, *common]
    series = {str(item.SeriesInstanceUID) for item, _ in items if item.get("SeriesInstanceUID")}
    images = {str(image.ReferencedSOPInstanceUID) for item, key in items for image in item.get(key, [])}
    return series, images


def reference(found: MaskObject, series: Series) -> int:
    """How surely an object refers to a series: 3 names it, 2 names its images, 1 shares its space and names no other.

    Returns:
        0 when it does not, or when both say that they lie in different frames of reference.
    """
    frames = frame_uids(series.instances)
    if frames and found.frames and not frames & found.frames:
        return 0
    if series.series_uid in found.series_uids:
        return 3
    if any(instance.sop_uid in found.sop_uids for instance in series.instances):
        return 2
    return int(not found.series_uids and not found.sop_uids and bool(frames & found.frames))


def _with_masks(case: Case, found: _Found, spec: Spec) -> Case:
    for name, mask in spec.masks.items():
        target = case.series.get(mask.of)
        if target is None or case.fault is not None:
            continue
        objects = found.of_patient(target.patient_id)
        chosen, fault, reasons = _choose(objects, target, mask, found.broken[target.patient_id])
        for item, reason in zip(objects, reasons, strict=True):
            found.say(item, Choice(case.case_id, "" if reason else name, f"{name}: {reason}" if reason else ""))
        if chosen is not None:
            series = {**case.series, name: _drawn_on(chosen.series, target)}
            case = replace(case, series=series, fault=contradiction((target, chosen.series)))
        elif mask.required or fault.code == "E_AMBIGUOUS":
            case = replace(case, fault=replace(fault, message=f"{name}: {fault.message}"))
        else:
            case = replace(case, flags=(*case.flags, f"N_NO_MASK: {name}: {fault.message}"))
    return case


def _drawn_on(source: Series, target: Series) -> Series:
    """An object's series with the target's frame of reference in place of its own: regions of others are left out."""
    (item,), frames = source.instances, frame_uids(target.instances)
    tags = {**item.tags, "FrameOfReferenceUID": frames.pop() if len(frames) == 1 else ""}
    return replace(source, instances=(replace(item, tags=tags),))


def _choose(
    objects: Sequence[MaskObject], target: Series, mask: Mask, broken: int
) -> tuple[MaskObject | None, Fault, list[str]]:
    """The one object that makes a mask, else the fault; and for each object why it does not, empty for the chosen."""
    strengths = [reference(found, target) for found in objects]
    strongest = max(strengths, default=0)
    referring = [found for found, strength in zip(objects, strengths, strict=True) if 0 < strength == strongest]
    frames = frame_uids(target.instances)
    names = {id(found): found.within(frames) for found in referring}
    lacking = {key: missing_labels(mask.labels, within) for key, within in names.items()}
    fitting = [found for found in referring if not lacking[id(found)]]
    best = _best(fitting, mask)
    reasons = []
    for found in objects:
        if id(found) not in lacking:
            reasons.append(f"does not refer to the series of {mask.of}")
        elif lacking[id(found)]:
            elsewhere = " in the images' frame of reference" if len(names[id(found)]) < len(found.names) else ""
            reasons.append(f"no region for {', '.join(lacking[id(found)])}{elsewhere}")
        elif found not in best:
            reasons.append("another object is newer")
        else:
            reasons.append("" if len(best) == 1 else "ambiguous with another object")
    return (best[0] if len(best) == 1 else None), _fault(referring, best, mask, broken, frames), reasons


def missing_labels(labels: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """The labels for which no name matches."""
    return [label for label, pattern in labels.items() if not any(re.search(pattern, name) for name in names)]


def _best(fitting: Sequence[MaskObject], mask: Mask) -> list[MaskObject]:
    """What is left after copies of one instance are dropped, and after the mask's preference."""
    distinct = list({found.series.instances[0].sop_uid: found for found in fitting}.values())
    if mask.prefer is None or len(distinct) < 2:
        return distinct
    latest = max(found.written for found in distinct)
    return [found for found in distinct if found.written == latest]


def _fault(
    referring: Sequence[MaskObject], best: Sequence[MaskObject], mask: Mask, broken: int, frames: Collection[str]
) -> Fault:
    if best:
        message = f"{len(best)} structure sets or segmentations fit equally well."
        return Fault("E_AMBIGUOUS", message, "Sharpen the mask's `labels`, or give it `prefer: latest`.")
    if not referring and broken:
        message = f"{broken} structure sets or segmentations cannot be read, and no other refers to {mask.of}."
        return Fault.of("E_MASK", message)
    if not referring:
        return Fault.of("E_MASK_ROI", f"No structure set or segmentation refers to the series of {mask.of}.")
    least = min((missing_labels(mask.labels, found.within(frames)) for found in referring), key=len)
    asked = ", ".join(f"{label} /{mask.labels[label]}/" for label in least)
    message = f"None of {len(referring)} structure sets or segmentations has a region for {asked}"
    elsewhere = any(not missing_labels({label: mask.labels[label] for label in least}, f.names) for f in referring)
    message += " in the frame of reference of the images, but in another." if elsewhere else "."
    return Fault.of("E_MASK_ROI", message)
