"""Read one DICOM file's header: what the pipeline needs of it, or why the file is rejected."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.filereader import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.cases import Fault, Instance
from pipeline.errors import REMEDIES

#: Read of every file, whatever the spec asks.
# fmt: off
BASE_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "Modality", "SeriesDescription", "ImageType", "FrameOfReferenceUID", "PhotometricInterpretation",
    "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "PixelRepresentation", "Units",
)
GEOMETRY_TAGS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "RescaleSlope",
    "RescaleIntercept",
)
# fmt: on

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA = (0x7FE0, 0x0010)
#: A data set without preamble starts with an element of group 0002 or 0008, little endian.
_BARE_STARTS = (b"\x02\x00", b"\x08\x00")


@dataclass(frozen=True)
class Header:
    """A DICOM file: its identifiers, and the instance as far as it could be read."""

    patient_id: str
    study_uid: str
    series_uid: str
    instance: Instance


class NotDicomError(Exception):
    """The file is something else."""


class _BadNumberError(ValueError):
    pass


def read_header(path: Path, tags: Iterable[str] = ()) -> Header:
    """Read a file's header, without its pixels.

    Args:
        path: any file.
        tags: DICOM keywords whose values the data spec's rules look at.

    Returns:
        The header; `instance.fault` says why the file has to be rejected, if it has to.

    Raises:
        NotDicomError: the file is not DICOM.
        OSError: the file cannot be read.
    """
    wanted = [*BASE_TAGS, *GEOMETRY_TAGS, *tags]
    with path.open("rb") as stream:
        bare = _sniff(stream)
        try:
            dataset = dcmread(stream, stop_before_pixels=True, force=bare, specific_tags=wanted)
            fault = _check_pixels(dataset, stream, path)
        except Exception as error:  # pydicom raises many kinds on broken headers; all mean one thing
            if bare:
                raise NotDicomError from error
            return _broken(path, f"The header cannot be read ({type(error).__name__}).")
    if bare and "SOPClassUID" not in dataset:
        raise NotDicomError
    return _header(path, dataset, list(tags), fault, ("N_NO_PREAMBLE",) if bare else ())


def _sniff(stream: BinaryIO) -> bool:
    """Whether the file is a bare data set, without preamble.

    Raises:
        NotDicomError: it is no DICOM at all.
    """
    start = stream.read(132)
    stream.seek(0)
    if start[128:132] == b"DICM":
        return False
    if start[:2] in _BARE_STARTS and len(start) == 132:
        return True
    raise NotDicomError


def _broken(path: Path, message: str) -> Header:
    nothing = Instance(path, "", None, None, None, 0, 0, None, None, fault=_fault("E_HEADER", message))
    return Header("", "", "", nothing)


def _fault(code: str, message: str) -> Fault:
    return Fault(code, message, REMEDIES[code])


def _header(path: Path, dataset: FileDataset, tags: list[str], fault: Fault | None, notes: tuple[str, ...]) -> Header:
    texts = {tag: _text(dataset, tag) for tag in [*BASE_TAGS, *tags]}
    missing = [tag for tag in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID") if not texts[tag]]
    if missing:
        return _broken(path, f"The header has no {', '.join(missing)}.")
    issuer = f"{texts['IssuerOfPatientID']}/" if texts["IssuerOfPatientID"] else ""
    patient = f"{issuer}{texts['PatientID']}" if texts["PatientID"] else f"study {texts['StudyInstanceUID']}"
    notes = notes if texts["PatientID"] else (*notes, "N_NO_PATIENT_ID")
    values: dict[str, tuple[float, ...] | None] = {}
    for tag, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        try:
            values[tag] = _numbers(dataset, tag, count)
        except _BadNumberError:
            values[tag], fault = None, fault or _fault("E_BAD_DS", f"{tag} does not hold {count} finite numbers.")
    for tag in ("RescaleSlope", "RescaleIntercept"):
        try:
            values[tag] = _numbers(dataset, tag, 1)
        except _BadNumberError:
            values[tag], fault = None, fault or _fault("E_BAD_DS", f"{tag} does not hold a finite number.")
    instance = Instance(
        path=path,
        sop_uid=texts["SOPInstanceUID"],
        position=values["ImagePositionPatient"],  # type: ignore[arg-type]  # the counts were asked for above
        orientation=values["ImageOrientationPatient"],  # type: ignore[arg-type]
        spacing_mm=values["PixelSpacing"],  # type: ignore[arg-type]
        rows=_integer(dataset, "Rows"),
        columns=_integer(dataset, "Columns"),
        slope=_first(values["RescaleSlope"]),
        intercept=_first(values["RescaleIntercept"]),
        tags={**texts, "TransferSyntaxUID": str(_transfer_syntax(dataset))},
        notes=notes,
        fault=fault,
    )
    return Header(patient, texts["StudyInstanceUID"], texts["SeriesInstanceUID"], instance)


def _text(dataset: FileDataset, keyword: str) -> str:
    """A header value as text; several values joined by a backslash, as they stand in the file."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, pydicom.multival.MultiValue):
        return "\\".join(str(item) for item in value)
    return str(value).strip()


def _numbers(dataset: FileDataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The numbers of a decimal string, read strictly: readers that accept `0,9` get it silently wrong.

    Raises:
        _BadNumberError: it does not hold `count` finite numbers.
    """
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return None
    raw = dataset.get_item(tag).value
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else _joined(raw)
    parts = [part.strip(" \0") for part in text.split("\\")]
    if parts == [""]:
        return None
    if len(parts) != count or not all(_NUMBER.fullmatch(part) for part in parts):
        raise _BadNumberError(keyword)
    numbers = tuple(float(part) for part in parts)
    if not all(math.isfinite(number) for number in numbers):
        raise _BadNumberError(keyword)
    return numbers


def _joined(value: object) -> str:
    values = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    return "" if value is None else "\\".join(str(item) for item in values)


def _integer(dataset: FileDataset, keyword: str) -> int:
    value = dataset.get(keyword)
    return value if isinstance(value, int) else 0


def _first(values: tuple[float, ...] | None) -> float | None:
    return values[0] if values else None


def _transfer_syntax(dataset: FileDataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    return UID(meta.TransferSyntaxUID) if meta is not None and "TransferSyntaxUID" in meta else ImplicitVRLittleEndian


def _check_pixels(dataset: FileDataset, stream: BinaryIO, path: Path) -> Fault | None:
    """Compare the length of the pixel data with the image's size and with the file's, without reading them.

    A short pixel element makes some readers return values of uninitialised memory (DICOM PS3.5, 8.1.1).
    """
    rows, columns, bits = (_integer(dataset, tag) for tag in ("Rows", "Columns", "BitsAllocated"))
    if not (rows and columns and bits):
        return None
    syntax = _transfer_syntax(dataset)
    if syntax == DeflatedExplicitVRLittleEndian:
        return _fault("E_DECODE", "The data set is deflated, which is not read.")
    length, start = _pixel_element(stream, syntax)
    if length is None:
        return _fault("E_PIXEL_LENGTH", "The file has no pixel data.")
    if syntax.is_encapsulated or length == _UNDEFINED_LENGTH:
        return None
    frames = int(_text(dataset, "NumberOfFrames") or 1)
    needed = (rows * columns * bits * frames * max(_integer(dataset, "SamplesPerPixel"), 1) + 7) // 8
    held = min(length, path.stat().st_size - start)
    if held < needed:
        return _fault("E_PIXEL_LENGTH", f"Expected {needed} bytes of pixel data, got {held}.")
    return None


def _pixel_element(stream: BinaryIO, syntax: UID) -> tuple[int | None, int]:
    """Length of the pixel element at which pydicom has stopped, and where its value starts."""
    order = "<" if syntax.is_little_endian else ">"
    head = stream.read(12)
    if len(head) < 12 or struct.unpack(f"{order}HH", head[:4]) != _PIXEL_DATA:
        return None, stream.tell()
    if syntax.is_implicit_VR:
        return struct.unpack(f"{order}L", head[4:8])[0], stream.tell() - 4
    return struct.unpack(f"{order}L", head[8:12])[0], stream.tell()
