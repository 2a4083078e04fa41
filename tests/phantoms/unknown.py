"""Write sequences as archives do that do not know them: as UN, in implicit VR little endian (DICOM PS3.5 6.2.2)."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info, write_sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

_UNDEFINED = 0xFFFFFFFF


def write_unknown(path: Path, depth: int = 0, undefined: bool = False, little: bool = True) -> int:
    """Rewrite a file in explicit VR with its sequences as UN.

    Args:
        path: the file; its pixel data are left as they are.
        depth: 0: the data set's own sequences; 1: those in their items.
        undefined: without their length, up to a delimiter.
        little: the byte order of all else.

    Returns:
        How many bytes the largest one takes.
    """
    data = dcmread(path)
    sizes = [0]
    body = _encoded(data, depth, undefined, little, sizes)
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    meta = _stream(False, True)
    write_file_meta_info(meta, data.file_meta)
    path.write_bytes(bytes(128) + b"DICM" + meta.getvalue() + body)
    return max(sizes)


def _encoded(data: Dataset, depth: int, undefined: bool, little: bool, sizes: list[int]) -> bytes:
    order, parts = "<" if little else ">", []
    for element in data:
        if element.VR != "SQ":
            one, stream = Dataset(), _stream(False, little)
            one.add(element)
            write_dataset(stream, one)
            parts.append(stream.getvalue())
            continue
        value, vr = (_implicit(element), b"UN") if depth == 0 else (b"", b"SQ")
        if depth:
            items = [_encoded(item, depth - 1, undefined, little, sizes) for item in element.value]
            value = b"".join(struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
        sizes.append(len(value))
        without = undefined and depth == 0
        head = struct.pack(f"{order}HH2sHL", element.tag.group, element.tag.element, vr, 0, _UNDEFINED)
        length = struct.pack(f"{order}L", _UNDEFINED if without else len(value))
        end = struct.pack(f"{order}HHL", 0xFFFE, 0xE0DD, 0) if without else b""
        parts.append(head[:-4] + length + value + end)
    return b"".join(parts)


def _implicit(element: DataElement) -> bytes:
    stream = _stream(True, True)
    write_sequence(stream, element, ["iso8859"])
    return stream.getvalue()


def _stream(implicit: bool, little: bool) -> DicomBytesIO:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    return stream
