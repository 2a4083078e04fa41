"""The stored values of frames: plain bytes as an array, or decoded, in a process of its own, as codecs crash."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.cases import Instance, Pixels
from pipeline.dicom.headers.encoding import open_dataset
from pipeline.errors import QuarantineError

Array = npt.NDArray[Any]

_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)


def read_frame(
    stream: BinaryIO, pixels: Pixels, rows: int, columns: int, frame: int, padding: tuple[int, int] | None = None
) -> Array:
    """The stored values of one frame, (rows, columns), as integers (or floats) of the machine's byte order.

    Args:
        stream: the file; of a deflated one, its inflated data set.
        pixels: how the values lie in it.
        rows: of the stored frame.
        columns: of the stored frame.
        frame: its number, from 0.
        padding: first and last of the values that are kept though they may use more bits than are stored.

    Raises:
        QuarantineError: E_PIXEL_LENGTH when the file ends before the frame does, E_DECODE for odd sample sizes.

    Source: DICOM PS3.5 8.1.1 (cells of BitsAllocated), 8.2 and A.3 (big endian).
    """
    if pixels.bits_allocated not in (8, 16, 32, 64):
        got = f"{pixels.bits_allocated} ({UID(pixels.syntax).name})"
        raise QuarantineError("E_DECODE", f"Expected samples of 8, 16, 32 or 64 bits, got {got}.")
    width = pixels.bits_allocated // 8
    size = rows * columns * width
    big = pixels.syntax == ExplicitVRBigEndian
    if big and width == 1 and _is_in_words(stream, pixels.offset):
        raw = _swapped(_read(stream, pixels.offset, (frame + 1) * size + (frame + 1) * size % 2))[frame * size :]
    else:
        raw = _read(stream, pixels.offset + frame * size, size)
    kind = "f" if pixels.floating else "i" if pixels.signed else "u"
    values = np.frombuffer(raw, dtype=f"{'>' if big else '<'}{kind}{width}", count=rows * columns)
    native = values.astype(values.dtype.newbyteorder("="), copy=False).reshape(rows, columns)
    return native if pixels.floating else _used_bits(native, pixels, padding)


def _read(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    raw = stream.read(size)
    if len(raw) < size:
        raise QuarantineError("E_PIXEL_LENGTH", f"Expected {size} bytes of pixel data, got {len(raw)}.")
    return raw


def _is_in_words(stream: BinaryIO, offset: int) -> bool:
    """Whether 8-bit samples are kept in 16-bit words (VR OW): big endian swaps them. Source: DICOM PS3.5 A.3."""
    stream.seek(offset - 8)
    return stream.read(2) == b"OW"


def _swapped(raw: bytes) -> bytes:
    return np.frombuffer(raw, dtype=np.uint16).byteswap().tobytes()


def _used_bits(values: Array, pixels: Pixels, padding: tuple[int, int] | None) -> Array:
    """Take out what lies above and below the stored bits, and let the sign run on. Source: DICOM PS3.5 8.1.1."""
    above = pixels.bits_allocated - 1 - pixels.high_bit
    unused = pixels.bits_allocated - pixels.bits_stored
    if unused <= 0:
        return values
    used = np.asarray((values << above) >> unused)
    if padding is not None:
        kept = (values >= padding[0]) & (values <= padding[1])
        used[kept] = values[kept]
    return used


@dataclass(frozen=True)
class Frames:
    """Some frames of one file.

    Attributes:
        path: the file.
        pixels: how they lie in it.
        rows: of a stored frame.
        columns: of a stored frame.
        numbers: which frames, from 0.
        padding: see `read_frame`.
    """

    path: Path
    pixels: Pixels
    rows: int
    columns: int
    numbers: tuple[int, ...]
    padding: tuple[int, int] | None = None


def decode(frames: Frames) -> Array:
    """The stored values of frames, (frames, rows, columns); pydicom tries each of its plugins until one succeeds.

    What lies above the stored bits is taken out here, and not by pydicom, which looks at it in few syntaxes alone.

    Raises:
        QuarantineError: as `read_frame` and `_decoded_bits`.
        Exception: of many kinds, when none can.
    """
    pixels = frames.pixels
    with frames.path.open("rb") as file:
        if pixels.syntax == DeflatedExplicitVRLittleEndian:
            stream = open_dataset(file).stream
            size = frames.rows, frames.columns
            return np.stack([read_frame(stream, pixels, *size, number, frames.padding) for number in frames.numbers])
        file.seek(pixels.offset)
        encoded = io.BytesIO(file.read())
    options = {
        "rows": frames.rows,
        "columns": frames.columns,
        "number_of_frames": pixels.frames,
        "samples_per_pixel": pixels.samples,
        "photometric_interpretation": pixels.photometric,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
    }
    decoder = get_decoder(UID(pixels.syntax))
    found = decoder.iter_array(encoded, indices=frames.numbers, raw=True, **options)  # type: ignore[arg-type]
    values = np.stack([values for values, _ in found])
    return _decoded_bits(values, encoded.getbuffer(), pixels, frames.padding)


def _decoded_bits(values: Array, encoded: memoryview, pixels: Pixels, padding: tuple[int, int] | None) -> Array:
    """Take out what a codec has kept above the stored bits.

    RLE keeps whole cells. All others keep samples, whose highest stored bit is BitsStored - 1 whatever HighBit says.

    Raises:
        QuarantineError: E_DECODE where the stored bits cannot be told from others: HighBit is another bit, or the codec
            was lossy, which mixes both.

    Source: DICOM PS3.5 8.1.1, 8.2 (one cell holds one sample; HighBit is BitsStored - 1), A.4.
    """
    if values.dtype.itemsize * 8 != pixels.bits_allocated or pixels.syntax == RLELossless:
        return _used_bits(values, pixels, padding) if pixels.syntax == RLELossless else values
    used = _used_bits(values, replace(pixels, high_bit=pixels.bits_stored - 1), padding)
    rest = values >> min(pixels.bits_stored, pixels.bits_allocated - 1)
    mixed = pixels.high_bit != pixels.bits_stored - 1 or _is_lossy(encoded, pixels.syntax)
    if mixed and ((used != values) & (rest != 0) & (rest != -1)).any():
        what = f"Expected compressed samples of {pixels.bits_stored} bits, got larger ones"
        raise QuarantineError("E_DECODE", f"{what} ({UID(pixels.syntax).name}, HighBit {pixels.high_bit}).")
    return used


def _is_lossy(encoded: memoryview, syntax: str) -> bool:
    """Of JPEG 2000 the first code stream says it: 1 stands for the reversible transform (ITU-T T.800 A.6.1)."""
    place = bytes(encoded[: 2**17]).find(b"\xff\x52") if syntax in JPEG2000TransferSyntaxes else -1
    return syntax in _LOSSY or (place >= 0 and encoded[place + 13] != 1)


def displayed(task: tuple[Instance, Array]) -> tuple[Array, bool]:
    """Apply the modality's and the display's lookup tables; what to apply stands in parts of the header not kept.

    Args:
        task: the image and its stored values, (rows, columns).

    Returns:
        (rows, columns), float32; and whether a lookup table or window of the display was applied. Of several the
        first one counts. Source: DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT).
    """
    instance, stored = task
    header = dcmread(instance.path, stop_before_pixels=True, force=True)
    values = apply_modality_lut(stored, header)
    windowed = bool(header.get("VOILUTSequence")) or header.get("WindowCenter") is not None
    if windowed:
        values = apply_voi_lut(values, header)
    return np.asarray(values, dtype=np.float32), windowed
