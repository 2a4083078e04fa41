"""Headers of many files as plain values: what the files of a series share stands there, and lies in memory, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pipeline.cases import Fault, Instance, Pixels
from pipeline.dicom.headers.encoding import NotDicomError
from pipeline.dicom.headers.header import Header

#: What is known of a file once it was read: nothing of it can change while the file does not.
Known = Header | NotDicomError

_OWNERS = ("patient_id", "study_uid", "series_uid")
_FIELDS = tuple(field.name for field in fields(Instance) if field.name not in ("path", "tags"))
_PARTS = {"fault": Fault, "pixels": Pixels}


def pack(found: Sequence[Known]) -> dict[str, Any]:
    """Headers as JSON types: `files` has the number of images of each file, or the text of what it is instead.

    Every value is a column over the files, or over the images: of one item where all are the same.
    """
    headers = [item for item in found if isinstance(item, Header)]
    images = [image for header in headers for image in header.instances]
    tags = dict.fromkeys(name for image in images for name in image.tags)
    return {
        "files": [len(item.instances) if isinstance(item, Header) else str(item) for item in found],
        "owners": {name: _column([getattr(header, name) for header in headers]) for name in _OWNERS},
        "fields": {name: _column([getattr(image, name) for image in images]) for name in _FIELDS},
        "tags": {name: _column([image.tags.get(name) for image in images]) for name in tags},
    }


def unpack(packed: Mapping[str, Any], paths: Sequence[Path | None]) -> Iterator[Known]:
    """The headers out of what `pack` gave.

    Args:
        packed: as `pack` gave it, or as JSON gave that back.
        paths: of its files; None for one that is left out.
    """
    owners, shared_owners = _rows(packed["owners"])
    rows, shared = _rows({name: _restored(name, column) for name, column in packed["fields"].items()})
    tags, shared_tags = _rows(packed["tags"])
    header = image = 0
    for path, count in zip(paths, packed["files"], strict=True):
        if isinstance(count, str):
            if path is not None:
                yield NotDicomError(*filter(None, (count,)))
            continue
        if path is not None:
            images = range(image, image + count)
            made = [Instance(path, tags=_tags(tags, k, shared_tags), **_at(rows, k, shared)) for k in images]
            yield Header(instances=tuple(made), **_at(owners, header, shared_owners))
        header, image = header + 1, image + count


def _column(values: list[Any]) -> list[Any]:
    """The values as JSON types; one where all are the same. -0.0 is not 0.0."""
    if len(set(values)) == 1 and (isinstance(values[0], str) or len(set(map(repr, values))) == 1):
        values = values[:1]
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    return [getattr(value, field.name) for field in fields(value)] if isinstance(value, Fault | Pixels) else value


def _restored(name: str, column: list[Any]) -> list[Any]:
    """The values of a field out of JSON's: tuples, faults and pixels."""
    if name not in _PARTS:
        return [tuple(value) if isinstance(value, list) else value for value in column]
    read = lru_cache(maxsize=None)(_PARTS[name])
    return [read(*value) if value else None for value in column]


def _rows(columns: Mapping[str, list[Any]]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The columns whose values differ, and the values of the others; equal texts are one object."""
    share = cast(Callable[[Any, Any], Any], {}.setdefault)
    same = {name: column[0] for name, column in columns.items() if len(column) == 1}
    rows = {name: column for name, column in columns.items() if len(column) > 1}
    return {n: [share(v, v) for v in c] if isinstance(c[0], str) else c for n, c in rows.items()}, same


def _at(columns: Mapping[str, list[Any]], index: int, same: Mapping[str, Any]) -> dict[str, Any]:
    return {**same, **{name: column[index] for name, column in columns.items()}}


def _tags(columns: Mapping[str, list[str | None]], index: int, same: Mapping[str, str]) -> dict[str, str]:
    """The tags of one image: an enhanced one may have some that others lack."""
    return {**same, **{name: value for name, column in columns.items() if (value := column[index]) is not None}}
