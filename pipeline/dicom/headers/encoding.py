"""Open a file as DICOM and find out how its data set is really encoded: by its first bytes, not by what it declares."""

from __future__ import annotations

import hashlib
import io
import mmap
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.hooks import hooks, raw_element_value, raw_element_vr
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage
from pydicom.valuerep import STANDARD_VR

#: A deflated data set may grow to this; one that grows further is no image of ours, but may fill the memory.
INFLATED_BYTES = 2**28

#: A data set without preamble starts with an element of group 0002 or 0008.
_BARE_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
#: Files may have lost the preamble, but not the prefix behind it.
PREFIX, _PREAMBLE_BYTES = b"DICM", 132
_ITEM = b"\xfe\xff\x00\xe0"


class NotDicomError(Exception):
    """The file is something else; its text says what, where that is known."""


class TooLargeError(Exception):
    """The data set grows beyond `INFLATED_BYTES` when it is inflated."""


@dataclass(frozen=True)
class Encoded:
    """A file that is open at the first element of its data set.

    Attributes:
        file: as it was opened.
        stream: the file's content; of a deflated file, its inflated data set (DICOM PS3.5 A.5).
        size: of the stream in bytes.
        declared: TransferSyntaxUID (0002,0010), empty where it is missing.
        implicit: the elements have no value representation.
        little: the byte order is little endian.
        deflated: the file's data set is deflated.
        bare: the file has no preamble.
        certain: it says of itself that it is DICOM: by the prefix, or by file meta information.
    """

    file: BinaryIO
    stream: BinaryIO
    size: int
    declared: str
    implicit: bool
    little: bool
    deflated: bool
    bare: bool
    certain: bool


def open_dataset(file: BinaryIO) -> Encoded:
    """Find the data set of a file, which is open at its start.

    Raises:
        NotDicomError: it is no DICOM, or a DICOMDIR, which says of other files what need not be true.
        TooLargeError: it is deflated and grows beyond `INFLATED_BYTES`.
    """
    start = file.read(_PREAMBLE_BYTES)
    bare = start[128:] != PREFIX
    prefixed = bare and start.startswith(PREFIX)
    if len(start) < _PREAMBLE_BYTES or (bare and not prefixed and start[:2] not in _BARE_STARTS):
        raise NotDicomError
    # a map never gives more than the file holds, whatever length an element claims
    stream = cast(BinaryIO, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    size = len(cast(mmap.mmap, stream))
    stream.seek((len(PREFIX) if prefixed else 0) if bare else _PREAMBLE_BYTES)
    declared = _declared(stream)
    deflated = False
    if declared == DeflatedExplicitVRLittleEndian:
        inflated = _inflate_rest(stream)
        if inflated is not None:
            stream, size, deflated = io.BytesIO(inflated), len(inflated), True
    implicit, little = _look(stream)
    certain = prefixed or not bare or bool(declared)
    return Encoded(file, stream, size, declared, implicit, little, deflated, bare, certain)


def header_digest(file: BinaryIO, pixels: int, deflated: bool) -> str:
    """A digest of a file's bytes before its pixel values; of all of them where it is deflated.

    Args:
        file: open.
        pixels: `Pixels.offset`.
        deflated: where that counts elsewhere.
    """
    file.seek(0)
    return hashlib.sha256(file.read(-1 if deflated else pixels)).hexdigest()[:16]


def _declared(stream: BinaryIO) -> str:
    """Read the file meta information, up to the data set."""
    meta = read_dataset(stream, False, True, stop_when=_behind_meta)
    storage = str(meta.get("MediaStorageSOPClassUID", ""))
    if storage == MediaStorageDirectoryStorage:
        raise NotDicomError("an index of DICOM files")
    return str(meta.get("TransferSyntaxUID") or "").strip()


def _behind_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _inflate_rest(stream: BinaryIO) -> bytes | None:
    """The rest of a stream inflated; None where it is not deflated, and then the stream stays where it was."""
    start = stream.tell()
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = machine.decompress(stream.read(), INFLATED_BYTES)
    except zlib.error:
        stream.seek(start)
        return None
    if machine.unconsumed_tail:
        raise TooLargeError
    return inflated


def _look(stream: BinaryIO) -> tuple[bool, bool]:
    """Whether a data set is in implicit VR, and whether in little endian, from its first element.

    Its group is below 0x0100 in the true byte order, and an explicit VR is two capital letters.
    """
    start = stream.tell()
    first = stream.read(6)
    stream.seek(start)
    little = not (first[:1] == b"\0" and first[1:2] != b"\0")
    return not (first[4:].isalpha() and first[4:].isupper()), little


def _known_vr(raw: RawDataElement, data: dict[str, Any], **more: Any) -> None:
    """An element's representation; pydicom leaves one of 64 KiB and more UN, also where the dictionary knows it."""
    raw_element_vr(raw, data, **more)
    if data["VR"] == "UN" and not raw.tag.is_private and dictionary_has_tag(raw.tag):
        data["VR"] = dictionary_VR(raw.tag)


def _known_value(raw: RawDataElement, data: dict[str, Any], **more: Any) -> None:
    """The value of an element that was stored as UN is in implicit VR little endian, whatever the file's encoding.

    Source: DICOM PS3.5 6.2.2, note 2. Some writers keep the explicit VR, which the first element of an item shows.
    """
    if raw.VR == "UN" and isinstance(raw.value, bytes):
        raw = raw._replace(is_implicit_VR=raw.value[12:14].decode("latin-1") not in STANDARD_VR, is_little_endian=True)
        if data["VR"] == "SQ" and raw.value and raw.value[:4] != _ITEM:
            raise ValueError("an unknown value in the place of a sequence")
    raw_element_value(raw, data, **more)


hooks.register_callback("raw_element_vr", _known_vr)
hooks.register_callback("raw_element_value", _known_value)
