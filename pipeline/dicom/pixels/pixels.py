"""The stored pixel values of instances: every file is opened once, compressed ones in a process of their own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pipeline.cases import Fault, Instance, Pixels
from pipeline.dicom.headers.encoding import header_digest
from pipeline.dicom.pixels.decode import Frames, decode, read_frame
from pipeline.dicom.sandbox import Sandbox
from pipeline.errors import CaseError, QuarantineError

Array = npt.NDArray[Any]

#: Frames of one file that are decoded at once hold about this much.
_TASK_BYTES = 2**24
_PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def stored_values(instances: Sequence[Instance]) -> Iterator[tuple[int, Array]]:
    """Read the stored values (before any rescale) of images or frames with one sample a pixel.

    Yields:
        The index of an instance in `instances` and its values, (rows, columns). Not in order: file by file.

    Raises:
        QuarantineError: E_PIXEL_LENGTH when a file is cut, E_DECODE when no codec reads it, E_LIMIT or E_CRASH when
            decoding it took too much, or ended the process that did.
        CaseError: E_CHANGED when a file is not the one whose header was read.
        OSError: a file cannot be read any more.
    """
    files: defaultdict[Path, list[int]] = defaultdict(list)
    for index, instance in enumerate(instances):
        files[instance.path].append(index)
    compressed = {}
    for path, indices in files.items():
        _require_same(instances[indices[0]])
        if _pixels(instances[indices[0]]).syntax in _PLAIN:
            yield from _native(instances, path, indices)
        else:
            compressed[path] = indices
    if compressed:
        yield from _decoded(instances, compressed)


def _require_same(instance: Instance) -> None:
    """Refuse a file that has changed since its header was read: its pixels would be put where another's lay."""
    pixels = _pixels(instance)
    if not instance.header:
        return
    with instance.path.open("rb") as file:
        digest = header_digest(file, pixels.offset, pixels.syntax == DeflatedExplicitVRLittleEndian)
    if digest != instance.header:
        remedy = "Run again when nothing writes to the input; if it says so again, delete headers.jsonl beside the key."
        raise CaseError("E_CHANGED", "A file of the series is not the one whose header was read.", remedy)


def _pixels(instance: Instance) -> Pixels:
    if instance.pixels is None:
        raise QuarantineError("E_PIXEL_LENGTH", "A slice has no pixel data.")
    return instance.pixels


def _native(instances: Sequence[Instance], path: Path, indices: Iterable[int]) -> Iterator[tuple[int, Array]]:
    with path.open("rb") as stream:
        for index in indices:
            instance = instances[index]
            pixels = _pixels(instance)
            stored = read_frame(stream, pixels, *_stored_size(instance), _frame(instance), padding_of(instance))
            yield index, _tile(stored, instance)


def _decoded(instances: Sequence[Instance], files: Mapping[Path, list[int]]) -> Iterator[tuple[int, Array]]:
    """Decode in other processes; a task is some frames of one file."""
    groups = [group for indices in files.values() for group in _groups(instances, indices)]
    tasks = [_task(instances, group) for group in groups]
    with Sandbox(decode, workers=min(len(tasks), os.cpu_count() or 1)) as box:
        for group, task, found in zip(groups, tasks, box.map(tasks), strict=True):
            stored = _of_size(checked(found, instances[group[0]]), task)
            for index in group:
                yield index, _tile(stored[task.numbers.index(_frame(instances[index]))], instances[index])


def _groups(instances: Sequence[Instance], indices: Sequence[int]) -> Iterator[list[int]]:
    first = instances[indices[0]]
    if _pixels(first).tiles > 1:
        yield list(indices)
        return
    count = max(1, _TASK_BYTES // (first.rows * first.columns * max(_pixels(first).bits_allocated // 8, 1)))
    for start in range(0, len(indices), count):
        yield list(indices[start : start + count])


def _task(instances: Sequence[Instance], group: Sequence[int]) -> Frames:
    first = instances[group[0]]
    pixels = _pixels(first)
    numbers = tuple(sorted({_frame(instances[index]) for index in group}))
    return Frames(first.path, pixels, *_stored_size(first), numbers, padding_of(first))


def _stored_size(instance: Instance) -> tuple[int, int]:
    """Rows and columns of the stored frame."""
    tiles = _pixels(instance).tiles
    return instance.rows * tiles, instance.columns * tiles


def _frame(instance: Instance) -> int:
    """The number of the stored frame; all images of a mosaic lie in the first."""
    return 0 if _pixels(instance).tiles > 1 else instance.frame


def _tile(stored: Array, instance: Instance) -> Array:
    """An instance's own part of the stored frame."""
    tiles = _pixels(instance).tiles
    if tiles == 1:
        return stored
    down, right = divmod(instance.frame, tiles)
    top, left = down * instance.rows, right * instance.columns
    return stored[top : top + instance.rows, left : left + instance.columns]


def checked(found: Any, instance: Instance) -> Any:
    """What a process of the sandbox answered.

    Raises:
        QuarantineError: what it refused, or E_DECODE for any other error.
    """
    if isinstance(found, Fault):
        raise found.as_error()
    if isinstance(found, QuarantineError):
        raise found
    if isinstance(found, Exception):
        name, reason = UID(_pixels(instance).syntax).name, type(found).__name__.removesuffix("Error")
        raise QuarantineError("E_DECODE", f"A slice's pixels ({name}) cannot be decoded: {reason}.") from found
    return found


def _of_size(stored: Array, task: Frames) -> Array:
    if stored.shape != (len(task.numbers), task.rows, task.columns):
        expected = f"{task.rows} x {task.columns}"
        raise QuarantineError("E_PIXEL_LENGTH", f"Expected images of {expected} pixels, got {stored.shape[1:]}.")
    return stored


def padding_of(instance: Instance) -> tuple[int, int] | None:
    """The first and last stored value that are padding, or None where the header names none.

    Source: DICOM PS3.3 C.7.5.1.1.2: PixelPaddingValue (0028,0120), alone or up to PixelPaddingRangeLimit (0028,0121).
    """
    if instance.pixels is None or instance.pixels.floating:
        return None
    first = _stored_number(instance.tags.get("PixelPaddingValue", ""), instance.pixels)
    last = _stored_number(instance.tags.get("PixelPaddingRangeLimit", ""), instance.pixels)
    if first is None:
        return None
    return min(first, first if last is None else last), max(first, first if last is None else last)


def _stored_number(text: str, pixels: Pixels) -> int | None:
    """A header's stored value, read as the pixels are: 63536 in a signed image of 16 bits is -2000."""
    try:
        number = int(text) % (1 << pixels.bits_allocated)
    except ValueError:
        return None
    return number - (1 << pixels.bits_allocated) if pixels.signed and number >> (pixels.bits_allocated - 1) else number
