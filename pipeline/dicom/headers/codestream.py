"""Recognise compressed pixel data by their bytes."""

from __future__ import annotations

import struct

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

#: So much of a code stream is looked at: JPEG may have up to 64 KiB of other segments before the frame header.
LOOK_BYTES = 2**17

_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_J2K = (JPEG2000Lossless, JPEG2000)
_HTJ2K = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
_BY_FRAME_HEADER = {
    0xC0: (JPEGBaseline8Bit, JPEGExtended12Bit),
    0xC1: (JPEGExtended12Bit,),
    0xC3: (JPEGLosslessSV1, JPEGLossless),
    0xF7: (JPEGLSLossless, JPEGLSNearLossless),
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
            return (RLELossless,)
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
