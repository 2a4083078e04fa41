"""How the data set is encoded: transfer syntaxes, and data sets that burst their reader."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from pipeline.errors import CaseError
from tests.phantoms.faults.editing import edit, in_order, middle
from tests.phantoms.faults.files import dataset_offset

_MIB = 1 << 20


def compressed(folder: Path, syntax: UID) -> list[Path]:
    """Compress every slice without loss: RLE, JPEG-LS or JPEG 2000 by pydicom's encoders, JPEG by GDCM.

    Raises:
        CaseError: E_DECODE when GDCM refuses.
    """
    if syntax != JPEGLosslessSV1:
        return edit(in_order(folder), lambda slice_: slice_.compress(syntax, generate_instance_uid=False))
    paths = in_order(folder)
    for path in paths:
        _compress_jpeg(path)
    return paths


def _compress_jpeg(path: Path) -> None:
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    read = reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    changed = read and change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not (changed and writer.Write()):
        raise CaseError("E_DECODE", "GDCM cannot compress a slice as JPEG lossless.")


def implicit(folder: Path) -> list[Path]:
    """Write every slice without value representations: implicit VR little endian."""
    return _rewritten(folder, ImplicitVRLittleEndian)


def deflated(folder: Path) -> list[Path]:
    """Deflate every slice's data set. Source: DICOM PS3.5 A.5."""
    return _rewritten(folder, DeflatedExplicitVRLittleEndian)


def big_endian(folder: Path) -> list[Path]:
    """Write every slice big endian, pixels included (retired, but archives hold it). Source: DICOM PS3.5 A.3."""

    def change(slice_: Dataset) -> None:
        slice_.PixelData = np.frombuffer(slice_.PixelData, "<u2").byteswap().tobytes()

    return _rewritten(folder, ExplicitVRBigEndian, change)


def deflate_bomb(folder: Path, mib: int = 1024) -> list[Path]:
    """Deflate one slice with a private element of zeros in it that inflates to `mib` MiB from about 1 KiB each."""
    (path,) = _write_as(middle(folder), DeflatedExplicitVRLittleEndian)
    data, meta = path.read_bytes(), dcmread(path, stop_before_pixels=True).file_meta
    start = dataset_offset(meta)
    element = struct.pack("<HH2sHL", 0x7FE3, 0x0011, b"OB", 0, mib * _MIB)
    creator = struct.pack("<HH2sH", 0x7FE3, 0x0010, b"LO", 6) + b"ZEROS "
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    inflated = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    packed = packer.compress(inflated + creator + element) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(_MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it can be repeated
    path.write_bytes(data[:start] + packed + zeros * mib + packer.flush(zlib.Z_FINISH))
    return [path]


def nested_bomb(folder: Path, levels: int = 20_000) -> list[Path]:
    """Put a sequence in one slice that nests `levels` deep: 400 KB at 20,000. Source: DICOM PS3.5 7.5.2."""
    path = middle(folder)
    data, meta = path.read_bytes(), dcmread(path, stop_before_pixels=True).file_meta
    start, endless = dataset_offset(meta), 0xFFFFFFFF
    language_code_sequence = struct.pack("<HH2sHL", 0x0008, 0x0006, b"SQ", 0, endless)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, endless)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    path.write_bytes(data[:start] + (language_code_sequence + item) * levels + ends * levels + data[start:])
    return [path]


def _rewritten(folder: Path, syntax: UID, change: Callable[[Dataset], None] | None = None) -> list[Path]:
    return [written for path in in_order(folder) for written in _write_as(path, syntax, change)]


def _write_as(path: Path, syntax: UID, change: Callable[[Dataset], None] | None = None) -> list[Path]:
    slice_ = dcmread(path)
    slice_.decode()
    for _ in slice_.iterall():  # takes every element out of its raw bytes
        pass
    if change is not None:
        change(slice_)
    slice_.file_meta.TransferSyntaxUID = syntax
    encoding = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    dcmwrite(path, slice_, **encoding, force_encoding=True)  # it was decoded above
    return [path]
