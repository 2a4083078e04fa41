"""Tell volumes apart that lie at the same positions: time points, echoes, kernels, diffusion weightings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.identity import DATE_TAGS
from pipeline.dicom.series.stack import SAME_POSITION_MM, number, sorted_stack, stack_of
from pipeline.store.files import sha256_file

IntArray = npt.NDArray[np.int64]

#: A time point that has this part of the positions is whole enough to say that the element counts time points.
WHOLE = 0.9
#: Blocks of one series are apart when there is room for more slices than this between them.
BLOCK_GAP_SLICES = 2


@dataclass(frozen=True)
class Volume:
    """Slices that belong together.

    Attributes:
        name: such as `time 2 of 8`; empty for all there is.
        instances: its slices.
        missing: how many slices the other time points have and it has not.
        cut: the instance numbers leave room for more slices in every volume.
    """

    name: str
    instances: tuple[Instance, ...]
    missing: int = 0
    cut: bool = False


@dataclass(frozen=True)
class _Key:
    """A header element that may tell volumes apart.

    Attributes:
        tag: DICOM keyword.
        word: what it counts, for the part's name.
        shown: the part is named by the element's value instead of a number.
        through: it numbers all slices without a hole, or it says nothing.
    """

    tag: str
    word: str
    shown: bool = False
    through: bool = False


#: What the image shows, or where, differs: a volume may have fewer slices than another one.
_CONTRASTS = (
    _Key("FrameOfReferenceUID", "frame"),
    _Key("EchoTime", "echo"),
    _Key("EchoNumbers", "echo"),
    _Key("ConvolutionKernel", "kernel", shown=True),
    _Key("DiffusionBValue", "b", shown=True),
    _Key("InversionTime", "inversion"),
    _Key("ComplexImageComponent", "component", shown=True),
    _Key("ImageType", "type"),
)
#: The same again: all volumes have the same slices.
_COUNTERS = (
    _Key("TemporalPositionIdentifier", "time"),
    _Key("TemporalPositionIndex", "time"),
    _Key("AcquisitionNumber", "acquisition"),
)
#: A time that each slice has of its own: at every position the first is of the first volume, and so on.
_TIMES = (_Key("AcquisitionDateTime", "time"), _Key("AcquisitionTime", "time"), _Key("TriggerTime", "phase"))
#: What says little by itself (when an image was made, its number, its place in a multi-frame file): only whole
#: ranges, volume after volume (or position after position, where all is numbered through), count.
_RANGES = (
    _Key("ContentTime", "time"),
    _Key("InstanceNumber", "volume", through=True),
    _Key("", "volume", through=True),
)
#: The last resort: an examination of another day under the same UIDs.
_DATES = tuple(_Key(tag, "date") for tag in DATE_TAGS)
#: What may set blocks of one series apart that lie at different places.
_BLOCKS = tuple(
    _Key(tag, "block") for tag in ("FrameOfReferenceUID", "AcquisitionNumber", "ConvolutionKernel", "ImageType")
)


def volumes_of(instances: Sequence[Instance]) -> list[Volume]:
    """Sort slices of one grid, all with position and orientation, into volumes in which no position repeats.

    Returns:
        The volumes in the order of what tells them apart. What nothing tells apart stays together.
    """
    members = np.array(instances, dtype=object)
    slots = _slots(instances)
    if len(slots) == slots.max() + 1:
        return _blocks(instances)
    return list(_resolve(members, slots)) if slots.max() > 0 else [Volume("", tuple(members))]


def _slots(instances: Sequence[Instance]) -> IntArray:
    """The number of the position at which each slice lies, from 0."""
    along = stack_of(instances).along_mm
    order = np.argsort(along, kind="stable")
    slots = np.empty(len(along), dtype=np.int64)
    slots[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_POSITION_MM)])
    return slots


def _resolve(members: npt.NDArray[np.object_], slots: IntArray) -> Iterator[Volume]:
    """Split by the first element that leaves no repetition, else by one that leaves fewer, and go on with its parts."""
    most = int(np.bincount(slots).max())
    if most == 1:
        yield Volume("", tuple(members))
        return
    choices = [*_divisions(members, slots, most)]
    for names, codes in choices:
        if _repeats(slots, codes) == 1:
            yield from _volumes(members, slots, names, codes)
            return
    fewer = [choice for choice in choices if _repeats(slots, choice[1]) < most]
    if not fewer:
        yield Volume("", tuple(members))
        return
    names, codes = fewer[0]
    for index, name in enumerate(names):
        inside = codes == index
        _, among = np.unique(slots[inside], return_inverse=True)
        for part in _resolve(members[inside], among):
            yield replace(part, name=", ".join(filter(None, (name, part.name))))


def _divisions(members: npt.NDArray[np.object_], slots: IntArray, most: int) -> Iterator[tuple[list[str], IntArray]]:
    """Every way to divide slices: the names of the parts, and each slice's part.

    The order of times or numbers divides only what is of one contrast: a scanner may take them in turn.
    """
    contrasts = []
    for key in (*_COUNTERS[:2], *_CONTRASTS, *_COUNTERS[2:]):
        names, codes = _by_value(members, key)
        counts_all = key not in _COUNTERS or _mostly_whole(slots, codes)
        if 1 < len(names) <= most and counts_all:
            contrasts += [codes] if key in _CONTRASTS else []
            yield names, codes
    for key in (*_TIMES, *_RANGES):
        ranks = _by_rank(members, slots, key)
        if ranks is not None and all(_is_constant(codes, ranks) for codes in contrasts):
            yield [f"{key.word} {index} of {most}" for index in range(1, most + 1)], ranks
    for key in _DATES:
        names, codes = _by_value(members, key)
        if 1 < len(names) <= most:
            yield names, codes


def _by_value(members: npt.NDArray[np.object_], key: _Key) -> tuple[list[str], IntArray]:
    values = np.array([instance.tags.get(key.tag, "") for instance in members])
    found, codes = np.unique(values, return_inverse=True)
    numbers = np.array([_as_number(value) for value in found])
    order = np.argsort(numbers, kind="stable") if np.isfinite(numbers).all() else np.arange(len(found))
    rank = np.empty(len(found), dtype=np.int64)
    rank[order] = np.arange(len(found))
    names = [f"{key.word} {_plain(str(value))}" for value in found[order]]
    if not key.shown or len(set(names)) < len(names):
        names = [f"{key.word} {index} of {len(found)}" for index in range(1, len(found) + 1)]
    return names, rank[codes]


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _plain(value: str) -> str:
    """A header's text fit for a table: it is the hospital's own."""
    return re.sub(r"[^A-Za-z0-9.+-]+", " ", value)[:16].strip() or "none"


def _by_rank(members: npt.NDArray[np.object_], slots: IntArray, key: _Key) -> IntArray | None:
    """Each slice's rank among those at its position; None where the element does not order them all."""
    numbers = np.array([number(item, key.tag) if key.tag else _frame_number(item) for item in members])
    counts = np.bincount(slots)
    if counts.min() != counts.max() or not np.isfinite(numbers).all():
        return None
    order = np.lexsort((numbers, slots))
    table = numbers[order].reshape(-1, counts.max())  # positions x ranks
    strides = np.diff(table, axis=1)
    if (strides <= 0).any():
        return None
    if key.through and np.ptp(numbers) != len(numbers) - 1 and not (_is_echo_planar(members) and np.ptp(strides) == 0):
        return None
    if key in _RANGES and not (_in_turn(table) or (key.through and _in_turn(table[np.argsort(table[:, 0])].T))):
        return None
    ranks = np.empty(len(slots), dtype=np.int64)
    ranks[order] = np.tile(np.arange(counts.max()), len(counts))
    return ranks


def _is_echo_planar(members: npt.NDArray[np.object_]) -> bool:
    """Whether the scanner repeats the positions by design, as for perfusion, diffusion and functional imaging.

    Then numbers that are missing in all volumes alike are those of slices that were not exported.
    """
    return all("EP" in instance.tags.get("ScanningSequence", "").split("\\") for instance in members)


def _in_turn(table: npt.NDArray[np.float64]) -> bool:
    """Whether all numbers of a column lie below those of the next."""
    return bool((table[:, :-1].max(axis=0) < table[:, 1:].min(axis=0)).all())


def _frame_number(instance: Instance) -> float:
    """The number of a frame within its file; NaN for a file of its own."""
    return float(instance.frame) if instance.pixels is not None and instance.pixels.frames > 1 else float("nan")


def _repeats(slots: IntArray, codes: IntArray) -> int:
    """How many slices of one part lie at one position, at most."""
    return int(np.unique(slots * (codes.max() + 1) + codes, return_counts=True)[1].max())


def _is_constant(codes: IntArray, parts: IntArray) -> bool:
    """Whether each part has one code."""
    return len(np.unique(parts * (codes.max() + 1) + codes)) == parts.max() + 1


def _mostly_whole(slots: IntArray, codes: IntArray) -> bool:
    """Whether more than half of the parts have (nearly) all positions."""
    pairs = np.unique(slots * (codes.max() + 1) + codes)
    held = np.bincount(pairs % (codes.max() + 1))
    return float(np.mean(held >= WHOLE * (slots.max() + 1))) > 0.5


def _volumes(
    members: npt.NDArray[np.object_], slots: IntArray, names: Sequence[str], codes: IntArray
) -> Iterator[Volume]:
    contrast = {key.word for key in _CONTRASTS}
    numbers = np.array([number(instance, "InstanceNumber") for instance in members])
    cut = names[0].startswith("volume ") and bool(np.ptp(numbers) >= len(numbers))
    for index, name in enumerate(names):
        inside = codes == index
        lacking = 0 if name.split()[0] in contrast else int(slots.max()) + 1 - int(inside.sum())
        yield Volume(name, tuple(members[inside]), lacking, cut)


def _blocks(instances: Sequence[Instance]) -> list[Volume]:
    """Blocks of one series that lie apart, such as neck and pelvis, where an element says which is which."""
    whole = [Volume("", tuple(instances))]
    if len(instances) < 4:
        return whole
    stack = sorted_stack(instances)
    members = np.array(stack.instances, dtype=object)
    missing = stack.missing if stack.uneven else np.zeros(len(members) - 1, dtype=np.int64)
    borders = np.flatnonzero(missing > BLOCK_GAP_SLICES)
    if not len(borders) or len(borders) < np.count_nonzero(missing):
        return whole
    blocks = np.concatenate([[0], np.cumsum(missing > 0)])
    if np.bincount(blocks).min() < 2 or not any(
        _is_same_division(_by_value(members, key)[1], blocks) for key in _BLOCKS
    ):
        return whole
    total = int(blocks.max()) + 1
    return [Volume(f"block {index + 1} of {total}", tuple(members[blocks == index])) for index in range(total)]


def _is_same_division(codes: IntArray, blocks: IntArray) -> bool:
    pairs = set(zip(codes.tolist(), blocks.tolist(), strict=True))
    return len(pairs) == len(set(codes.tolist())) == len(set(blocks.tolist()))


def drop_copies(series: Series) -> Series:
    """Keep one of several identical copies of an instance.

    Returns:
        The series with each instance once; or with the fault E_DUP_SOP, where files of different content claim to be
        one instance: nothing says which of them is right; or E_UNREADABLE, where one cannot be read any more.
    """
    if len({(instance.sop_uid, instance.frame) for instance in series.instances}) == len(series.instances):
        return series
    by_uid: defaultdict[tuple[str, int], list[Instance]] = defaultdict(list)
    for instance in series.instances:
        by_uid[instance.sop_uid, instance.frame].append(instance)
    copies = [same for same in by_uid.values() if len(same) > 1]
    try:
        hashes = {path: sha256_file(path) for path in {instance.path for same in copies for instance in same}}
    except OSError as error:
        message = f"A copy of a file cannot be read any more ({error.strerror})."
        return replace(series, fault=Fault.of("E_UNREADABLE", message))
    for same in copies:
        if len({hashes[instance.path] for instance in same}) > 1:
            message = f"{len(same)} different files have one SOPInstanceUID."
            return replace(series, fault=Fault.of("E_DUP_SOP", message))
    kept = tuple(same[0] for same in by_uid.values())
    return replace(series, instances=kept, notes=(*series.notes, "N_COPIES_DROPPED"))
