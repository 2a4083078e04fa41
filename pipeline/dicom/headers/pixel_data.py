"""Find the pixel data of a file, what they really are, and whether they are all there. Nothing is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from pydicom import uid as uids

from pipeline.cases import Pixels
from pipeline.dicom.headers.encoding import Encoded
from pipeline.dicom.headers.values import integer
from pipeline.errors import QuarantineError

#: A frame of more pixels is refused before anything is allocated for it; the largest radiographs have a quarter.
MOST_PIXELS = 2**27

_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
_NATIVE = (
    uids.ImplicitVRLittleEndian,
    uids.ExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
    uids.DeflatedExplicitVRLittleEndian,
)


@dataclass(frozen=True)
class Element:
    """The pixel element at which the reading of the header has stopped: its tag, length and its value's place."""

    tag: int
    length: int
    offset: int


def find_pixels(texts: Mapping[str, str], element: Element | None, encoded: Encoded) -> tuple[Pixels | None, bool]:
    """Say by the values of its header how the pixel values of a file lie in it.

    Returns:
        None for a file that holds no image; and whether the file declares another transfer syntax than it has.

    Raises:
        QuarantineError: E_SIZE, E_HEADER, E_PIXEL_LENGTH or E_DECODE when the file has to be rejected.
    """
    rows, columns = (integer(texts.get(name, "")) or 0 for name in ("Rows", "Columns"))
    if not (rows and columns):
        if element is not None:
            raise QuarantineError("E_HEADER", "The header has pixel data, but no Rows and Columns.")
        return None, False
    if rows * columns > MOST_PIXELS:
        raise QuarantineError("E_SIZE", f"Expected at most {MOST_PIXELS} pixels a frame, got {rows} x {columns}.")
    if element is None:
        raise QuarantineError("E_PIXEL_LENGTH", "The file has no pixel data.")
    pixels = _layout(texts, element, encoded)
    declared = encoded.declared if encoded.declared in uids.AllTransferSyntaxes else ""
    if _is_encapsulated(element, encoded.stream, declared):
        syntax = _encapsulated(element.offset, pixels.frames, encoded, declared)
        pixels = replace(pixels, length=None, syntax=syntax)
    else:
        _require_length(pixels, rows * columns, encoded)
    if encoded.declared and not declared and pixels.length is not None:
        raise QuarantineError(
            "E_DECODE", f"The transfer syntax {_named(encoded)} is unknown, and the pixel data do not tell it."
        )
    return pixels, bool(encoded.declared) and pixels.syntax != encoded.declared


def _named(encoded: Encoded) -> str:
    """The declared transfer syntax, for a message: its name, else its number."""
    if not re.fullmatch(r"[0-9.]{1,64}", encoded.declared):
        return "of no valid UID" if encoded.declared else "none is declared"
    return uids.UID(encoded.declared).name


def _layout(texts: Mapping[str, str], element: Element, encoded: Encoded) -> Pixels:
    bits = _FLOAT_BITS.get(element.tag) or integer(texts.get("BitsAllocated", "")) or 0
    stored = integer(texts.get("BitsStored", "")) or bits
    high = integer(texts.get("HighBit", ""))
    high = stored - 1 if high is None else high
    floating = element.tag in _FLOAT_BITS
    if bits not in (1, 8, 16, 32, 64) or not (floating or stored - 1 <= high < bits):
        raise QuarantineError("E_HEADER", f"{stored} bits up to bit {high} do not fit {bits} allocated ones.")
    return Pixels(
        offset=element.offset,
        length=element.length,
        syntax=_native_syntax(encoded),
        bits_allocated=bits,
        bits_stored=bits if floating else stored,
        high_bit=bits - 1 if floating else high,
        signed=texts.get("PixelRepresentation") == "1",
        samples=integer(texts.get("SamplesPerPixel", "")) or 1,
        photometric=texts.get("PhotometricInterpretation", ""),
        frames=max(integer(texts.get("NumberOfFrames", "")) or 1, 1),
        floating=floating,
    )


def _native_syntax(encoded: Encoded) -> str:
    if encoded.deflated:
        return str(uids.DeflatedExplicitVRLittleEndian)
    if encoded.implicit:
        return str(uids.ImplicitVRLittleEndian)
    return str(uids.ExplicitVRLittleEndian if encoded.little else uids.ExplicitVRBigEndian)


def _is_encapsulated(element: Element, stream: BinaryIO, declared: str) -> bool:
    if element.length == _UNDEFINED_LENGTH or declared in ("", *_NATIVE):
        return element.length == _UNDEFINED_LENGTH
    stream.seek(element.offset)
    return stream.read(4) == _ITEM


def _require_length(pixels: Pixels, area: int, encoded: Encoded) -> None:
    """A short pixel element makes some readers return values of uninitialised memory (DICOM PS3.5, 8.1.1)."""
    needed = (area * pixels.samples * pixels.frames * pixels.bits_allocated + 7) // 8
    if pixels.photometric == "YBR_FULL_422":
        needed = needed // 3 * 2  # two pixels share their colour (DICOM PS3.3 C.7.6.3.1.2)
    held = min(pixels.length or 0, encoded.size - pixels.offset)
    if held < needed:
        raise QuarantineError("E_PIXEL_LENGTH", f"Expected {needed} bytes of pixel data, got {held}.")


def _encapsulated(offset: int, frames: int, encoded: Encoded, declared: str) -> str:
    """Walk the fragments, which have to be all there, and name the transfer syntax of the first."""
    stream, first, count = encoded.stream, b"", -1
    stream.seek(offset)
    while len(head := stream.read(8)) == 8 and head[:4] == _ITEM:
        (length,) = struct.unpack("<L", head[4:])
        start = stream.tell()
        if start + length > encoded.size:
            raise QuarantineError("E_PIXEL_LENGTH", "The compressed pixel data are cut.")
        if count == 0:
            first = stream.read(min(length, LOOK_BYTES))
        count += 1
        stream.seek(start + length)
    found = syntaxes_of(first)
    if head[:4] not in (_DELIMITER, b"") or count < (frames if found else 1):
        raise QuarantineError(
            "E_PIXEL_LENGTH", f"Expected the compressed data of {frames} frames, got {max(count, 0)}."
        )
    if declared in found or (not found and declared and declared not in _NATIVE):
        return declared
    if not found:
        raise QuarantineError(
            "E_DECODE", f"The pixel data ({_named(encoded)}) are compressed in a way that is not known."
        )
    return str(found[0])


#: So much of a code stream is looked at: JPEG may have up to 64 KiB of other segments before the frame header.
LOOK_BYTES = 2**17

_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_J2K = (uids.JPEG2000Lossless, uids.JPEG2000)
_HTJ2K = (uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL, uids.HTJ2K)
_BY_FRAME_HEADER = {
    0xC0: (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit),
    0xC1: (uids.JPEGExtended12Bit,),
    0xC3: (uids.JPEGLosslessSV1, uids.JPEGLossless),
    0xF7: (uids.JPEGLSLossless, uids.JPEGLSNearLossless),
}


def syntaxes_of(data: bytes) -> tuple[str, ...]:
    """UIDs of the transfer syntaxes that a frame's first bytes can belong to, the likeliest first; empty if unknown.

    Source: ITU-T T.81 B.1 (JPEG markers), T.87 C.1 (JPEG-LS), T.800 A.2 and T.814 (JPEG 2000, HTJ2K), DICOM PS3.5 G.5.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if data[:4] == b"\xff\x4f\xff\x51":
        return _HTJ2K if b"\xff\x50" in data[4:200] else _J2K
    if data[:8] == _JP2_SIGNATURE:
        return _J2K
    if len(data) >= 64:
        segments, first = struct.unpack_from("<2L", data)
        if 1 <= segments <= 15 and first == 64:
            return (uids.RLELossless,)
    return ()


def _jpeg(data: bytes) -> tuple[str, ...]:
    """Walk the marker segments up to the frame header."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _BY_FRAME_HEADER:
            return _BY_FRAME_HEADER[marker]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return ()
