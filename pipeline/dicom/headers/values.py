"""Values of a data set as text and as strictly read numbers."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pipeline.cases import Fault

#: tag -> keyword and value representation
Names = Mapping[int, tuple[str, str]]

#: The elements that say where an image lies and what its values mean.
PLANE_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
_PLANE = tuple(
    zip(("position", "orientation", "spacing_mm", "slope", "intercept"), PLANE_TAGS, (3, 6, 2, 1, 1), strict=True)
)

#: What SNOMED CT's codes were called before. Source: DICOM PS3.16 Annex O.
SNOMED_RT = ("SRT", "SNM3", "99SDM")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI", "UC"})
#: A longer value of what the pipeline looks at is the sign of a broken header.
_LONGEST_BYTES = 2**20


class BadNumberError(ValueError):
    """A value that should be numbers is not."""


class BadValueError(ValueError):
    """A value is longer than it can be."""


def names_of(keywords: Iterable[str]) -> dict[int, tuple[str, str]]:
    """Tags, keywords and value representations of the keywords that the DICOM dictionary has."""
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    return {tag: (keyword, dictionary_VR(tag)) for keyword, tag in tags.items() if tag is not None}


def texts(dataset: Dataset, names: Names, signed: bool = False) -> dict[str, str]:
    """The values that a data set has of some elements, as text.

    Args:
        dataset: as read; no element needs to have been converted.
        names: the elements.
        signed: PixelRepresentation is 1: what may be US or SS is SS.

    Returns:
        keyword -> text, several values joined by a backslash as they stand in a file; without what is missing.

    Raises:
        BadValueError: a value is longer than 1 MiB.
    """
    found = {}
    for tag in dataset.keys():  # noqa: SIM118 - a Dataset itself iterates over converted elements
        if (name := names.get(tag)) is not None:
            found[name[0]] = _text(dataset, tag, name[1], signed)
    return found


def _text(dataset: Dataset, tag: int, vr: str, signed: bool) -> str:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
        if len(raw.value) > _LONGEST_BYTES:
            raise BadValueError
        vr = raw.VR if raw.VR not in (None, "UN") else vr
        if vr in ("US or SS", "US or SS or OW"):
            vr = "SS" if signed else "US"
        if vr in _BINARY:
            return _unpacked(raw.value, _BINARY[vr], raw.is_little_endian or raw.VR == "UN")
        if vr in _TEXT and raw.value.isascii() and b"\x1b" not in raw.value:
            return "\\".join(part.strip(" \0\n\r\t") for part in raw.value.decode("ascii").split("\\"))
    return _converted(dataset, tag)


def _unpacked(value: bytes, kind: str, little: bool) -> str:
    count = len(value) // struct.calcsize(f"<{kind}")
    numbers = struct.unpack_from(f"{'<' if little else '>'}{count}{kind}", value)
    return "\\".join(repr(number) for number in numbers)


def _converted(dataset: Dataset, tag: int) -> str:
    """What pydicom makes of a value; empty where it can make nothing of it."""
    try:
        value = dataset[tag].value
        items = value if isinstance(value, list | tuple | MultiValue) else [value]
        return "" if value is None else "\\".join(str(item).strip() for item in items)
    except Exception:  # noqa: BLE001 - pydicom raises many kinds; a value that is none satisfies no rule
        return ""


def numbers(text: str, count: int) -> tuple[float, ...] | None:
    """The numbers of a text, read strictly: readers that accept `0,9` get it silently wrong.

    Returns:
        `count` finite numbers; None where the text is empty.

    Raises:
        BadNumberError: it does not hold `count` finite numbers.
    """
    if not text:
        return None
    parts = text.split("\\")
    if len(parts) != count or not all(_NUMBER.fullmatch(part) for part in parts):
        raise BadNumberError
    found = tuple(float(part) for part in parts)
    if not all(math.isfinite(number) for number in found):
        raise BadNumberError
    return found


def integer(text: str) -> int | None:
    """A whole number; None where the text is none."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else None


def plane(values: Mapping[str, str]) -> tuple[dict[str, Any], Fault | None]:
    """Where an image lies and what its values mean, from the texts of `PLANE_TAGS`.

    Returns:
        `Instance`'s attributes position, orientation, spacing_mm, slope and intercept, None where one is missing or
        wrong; and E_BAD_DS for the first one that is wrong.
    """
    found: dict[str, Any] = {}
    fault = None
    for attribute, tag, count in _PLANE:
        try:
            value = numbers(values.get(tag, ""), count)
            found[attribute] = value[0] if value and count == 1 else value
        except BadNumberError:
            what = "a finite number" if count == 1 else f"{count} finite numbers"
            found[attribute] = None
            fault = fault or Fault.of("E_BAD_DS", f"{tag} does not hold {what}.")
    return found, fault
