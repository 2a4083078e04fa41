"""Files that are cut, broken, mislabelled, or no part of the series at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage, SecondaryCaptureImageStorage

from pipeline.simulation.dicom import make_uid
from tests.phantoms.faults.editing import edit, in_order, middle, set_raw

_PREAMBLE_BYTES = 132
_META_LENGTH_BYTES = 12  # the element (0002,0000) itself
_HEADER_CUT_BYTES = 500  # behind the file meta information, before the patient's and the slice's attributes


def truncated_pixels(folder: Path, last: bool = False) -> list[Path]:
    """Cut one file, the middle or the last, in the middle of its pixels; the length field still promises them all."""
    path = in_order(folder)[-1] if last else middle(folder)
    pixel_bytes = len(dcmread(path).PixelData)
    return _cut(path, path.stat().st_size - pixel_bytes // 2)


def truncated_header(folder: Path, last: bool = False) -> list[Path]:
    """Cut one file, the middle or the last, inside its header, before its geometry."""
    return _cut(in_order(folder)[-1] if last else middle(folder), _HEADER_CUT_BYTES)


def empty_file(folder: Path, last: bool = False) -> list[Path]:
    """Leave nothing of one file, the middle or the last, but its name."""
    return _cut(in_order(folder)[-1] if last else middle(folder), 0)


def zeroed_file(folder: Path) -> list[Path]:
    """Leave nothing of the last file but its name and its length, as a disk does that never wrote it."""
    path = in_order(folder)[-1]
    path.write_bytes(bytes(path.stat().st_size))
    return [path]


def short_pixels(folder: Path, everywhere: bool = False) -> list[Path]:
    """Keep half of a slice's PixelData, or every one's, with a length that agrees: rows times columns promise more."""

    def change(slice_: Dataset) -> None:
        slice_.PixelData = slice_.PixelData[: len(slice_.PixelData) // 4 * 2]

    return edit(in_order(folder) if everywhere else [middle(folder)], change)


def huge_matrix(folder: Path, size: int = 60_000, everywhere: bool = False) -> list[Path]:
    """Write a size as Rows (0028,0010) and Columns (0028,0011) for which there are no pixels."""

    def change(slice_: Dataset) -> None:
        slice_.Rows = slice_.Columns = size

    return edit(in_order(folder) if everywhere else [middle(folder)], change)


def no_preamble(folder: Path, prefix: bool = False) -> list[Path]:
    """Strip the 128 bytes of preamble, and the prefix `DICM` too, from every file. Source: DICOM PS3.10 7.1."""
    paths = in_order(folder)
    for path in paths:
        path.write_bytes(path.read_bytes()[_PREAMBLE_BYTES - (4 if prefix else 0) :])
    return paths


def acr_nema(folder: Path) -> list[Path]:
    """Write every slice as before DICOM: no file meta information, no UID, implicit VR, and a recognition code."""
    paths = in_order(folder)
    for path in paths:
        slice_ = dcmread(path)
        for element in [element for element in slice_ if element.VR in ("UI", "SQ")]:
            del slice_[element.tag]
        slice_.RecognitionCode = "ACR-NEMA 2.0"
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = True, True
        write_dataset(stream, slice_)
        path.write_bytes(stream.getvalue())
    return paths


def declared_syntax(folder: Path, uid: str, everywhere: bool = True) -> list[Path]:
    """Write another TransferSyntaxUID (0002,0010) in the file meta information; the data set stays as it is."""
    paths = in_order(folder) if everywhere else [middle(folder)]
    for path in paths:
        data, meta = path.read_bytes(), dcmread(path, stop_before_pixels=True).file_meta
        rest = data[dataset_offset(meta) :]
        meta.TransferSyntaxUID = UID(uid)
        buffer = DicomBytesIO()
        write_file_meta_info(buffer, meta)
        path.write_bytes(data[:_PREAMBLE_BYTES] + buffer.getvalue() + rest)
    return paths


def dataset_offset(meta: FileMetaDataset) -> int:
    """Where the data set starts in a file with preamble, in bytes."""
    return _PREAMBLE_BYTES + _META_LENGTH_BYTES + int(meta.FileMetaInformationGroupLength)


def secondary_capture(folder: Path) -> list[Path]:
    """Declare every slice a Secondary Capture: a picture of a screen, whatever geometry it claims."""

    def change(slice_: Dataset) -> None:
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage

    return edit(in_order(folder), change)


def clutter(folder: Path) -> list[Path]:
    """Add what lies about in hospital exports: a text, a JPEG, Thumbs.db, and a DICOMDIR that points outside."""
    text, picture, thumbs, index = (folder / name for name in ("readme.txt", "key.jpg", "Thumbs.db", "DICOMDIR"))
    text.write_text("Exported for the referring physician.\n", encoding="utf-8")
    ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    sitk.WriteImage(sitk.GetImageFromArray(ramp), str(picture))
    thumbs.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))  # an OLE2 file starts so
    _write_dicomdir(index)
    return [text, picture, thumbs, index]


def _write_dicomdir(path: Path) -> None:
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = 0
    record.RecordInUseFlag = 0xFFFF
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType = "IMAGE"
    set_raw(record, "ReferencedFileID", "..\\..\\OUTSIDE")
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = make_uid("dicomdir")
    index.FileSetID = "EXPORT"
    index.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    index.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    index.FileSetConsistencyFlag = 0
    index.DirectoryRecordSequence = [record]
    index.save_as(path, enforce_file_format=True)


def _cut(path: Path, length: int) -> list[Path]:
    path.write_bytes(path.read_bytes()[:length])
    return [path]
