"""Plant one known fault in the folder of a clean series, in place.

Every function takes a folder that `write_series` filled, chooses its slices without chance (the middle one by
InstanceNumber unless said otherwise), and returns the files that it changed, added or removed. The numbers in the
docstrings are DICOM tags.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage
from scipy import ndimage

from pipeline.errors import CaseError
from pipeline.simulation.dicom import decimal_string, make_uid

_PREAMBLE_BYTES = 132
_HEADER_CUT_BYTES = 500  # behind the file meta information, before the patient's and the slice's attributes


# Slices that are missing, or there twice


def missing_slice(folder: Path, count: int = 1) -> list[Path]:
    """Remove `count` neighbouring slices from the middle."""
    paths = _in_order(folder)
    first = (len(paths) - count) // 2
    gone = paths[first : first + count]
    for path in gone:
        path.unlink()
    return gone


def duplicate_file(folder: Path) -> list[Path]:
    """Copy one file to a second name: the same instance twice, byte for byte."""
    return [_copy(_middle(folder))]


def duplicate_sop(folder: Path) -> list[Path]:
    """Add a file that claims one slice's SOPInstanceUID but holds other values."""
    copy = _copy(_middle(folder))
    _edit([copy], lambda slice_: _set_pixels(slice_, slice_.pixel_array + 50))
    return [copy]


def duplicate_position(folder: Path) -> list[Path]:
    """Add a slice at a position that is taken, with a SOPInstanceUID and values of its own."""
    copy = _copy(_middle(folder))

    def change(slice_: Dataset) -> None:
        slice_.InstanceNumber = int(slice_.InstanceNumber) + 1000
        _set_instance_uid(slice_, "duplicate")
        _set_pixels(slice_, slice_.pixel_array + 50)

    _edit([copy], change)
    return [copy]


# Series and patients that are mixed


def second_series(folder: Path) -> list[Path]:
    """Add a whole second series of the same study, 100 units brighter, its file names between the first's."""
    copies = [_copy(path) for path in _in_order(folder)]

    def change(slice_: Dataset) -> None:
        slice_.SeriesNumber = int(slice_.SeriesNumber) + 1
        slice_.SeriesDescription = f"{slice_.SeriesDescription} 2"
        slice_.SeriesInstanceUID = make_uid(slice_.SeriesInstanceUID, "second")
        _set_instance_uid(slice_, "second")
        _set_pixels(slice_, slice_.pixel_array + 100)

    _edit(copies, change)
    return copies


def second_patient(folder: Path) -> list[Path]:
    """Give the second half of the slices to another patient; study and series UID stay."""
    paths = _in_order(folder)
    paths = paths[len(paths) // 2 :]

    def change(slice_: Dataset) -> None:
        slice_.PatientID = f"{slice_.PatientID}-X"
        slice_.PatientName = "Simulated^Other"

    _edit(paths, change)
    return paths


# Geometry


def gantry_tilt(folder: Path, angle_deg: float = 12.0) -> list[Path]:
    """Shift each slice along its columns by its distance from the middle times tan(angle), as a tilted gantry does.

    The content moves with it (linear interpolation, edge rows repeated), so every voxel still shows what lies at its
    position. GantryDetectorTilt (0018,1120) says the angle.
    """
    paths = _in_order(folder)
    middle = np.asarray(dcmread(paths[len(paths) // 2], stop_before_pixels=True).ImagePositionPatient, float)

    def change(slice_: Dataset) -> None:
        row, column = np.asarray(slice_.ImageOrientationPatient, float).reshape(2, 3)
        position = np.asarray(slice_.ImagePositionPatient, float)
        shift_mm = float((position - middle) @ np.cross(row, column)) * np.tan(np.radians(angle_deg))
        rows = shift_mm / float(slice_.PixelSpacing[0])
        moved = ndimage.shift(slice_.pixel_array.astype(float), (-rows, 0), order=1, mode="nearest")
        _set_pixels(slice_, np.rint(moved))
        slice_.ImagePositionPatient = _decimal_strings(position + shift_mm * column)
        slice_.GantryDetectorTilt = f"{angle_deg:g}"

    _edit(paths, change)
    return paths


def other_orientation(folder: Path) -> list[Path]:
    """Turn one slice by 90 degrees: its columns run along the stack's normal."""

    def change(slice_: Dataset) -> None:
        row, column = np.asarray(slice_.ImageOrientationPatient, float).reshape(2, 3)
        slice_.ImageOrientationPatient = _decimal_strings([*row, *np.cross(row, column)])

    return _edit([_middle(folder)], change)


def skewed_axes(folder: Path, angle_deg: float = 1.0) -> list[Path]:
    """Turn every slice's column direction towards its row direction: the two are no longer orthogonal."""

    def change(slice_: Dataset) -> None:
        row, column = np.asarray(slice_.ImageOrientationPatient, float).reshape(2, 3)
        angle = np.radians(angle_deg)
        slice_.ImageOrientationPatient = _decimal_strings([*row, *(np.cos(angle) * column + np.sin(angle) * row)])

    return _edit(_in_order(folder), change)


def shifted_in_plane(folder: Path, shift_mm: float = 3.0) -> list[Path]:
    """Move one slice's ImagePositionPatient (0020,0032) along its rows."""

    def change(slice_: Dataset) -> None:
        row = np.asarray(slice_.ImageOrientationPatient, float)[:3]
        slice_.ImagePositionPatient = _decimal_strings(np.asarray(slice_.ImagePositionPatient, float) + shift_mm * row)

    return _edit([_middle(folder)], change)


def equal_positions(folder: Path) -> list[Path]:
    """Give every slice the first one's ImagePositionPatient (0020,0032)."""
    paths = _in_order(folder)
    first = dcmread(paths[0], stop_before_pixels=True).ImagePositionPatient
    return _edit(paths, lambda slice_: setattr(slice_, "ImagePositionPatient", first))


def missing_geometry(folder: Path, keyword: str = "ImagePositionPatient", everywhere: bool = False) -> list[Path]:
    """Delete ImagePositionPatient (0020,0032) or ImageOrientationPatient (0020,0037) from one slice, or from all."""
    paths = _in_order(folder) if everywhere else [_middle(folder)]
    return _edit(paths, lambda slice_: delattr(slice_, keyword))


def nan_position(folder: Path) -> list[Path]:
    """Write NaN as the first number of one slice's ImagePositionPatient (0020,0032)."""
    path = _middle(folder)
    _, y, z = dcmread(path, stop_before_pixels=True).ImagePositionPatient
    return _edit([path], lambda slice_: _set_raw(slice_, "ImagePositionPatient", f"NaN\\{y}\\{z}"))


def zero_spacing(folder: Path) -> list[Path]:
    """Write 0 as PixelSpacing (0028,0030) of every slice."""
    return _edit(_in_order(folder), lambda slice_: setattr(slice_, "PixelSpacing", ["0", "0"]))


def comma_decimal(folder: Path) -> list[Path]:
    r"""Write PixelSpacing (0028,0030) of every slice with a decimal comma: `0,9\0,9` for 0.9 mm."""

    def change(slice_: Dataset) -> None:
        text = "\\".join(str(value) if "." in str(value) else f"{value}.0" for value in slice_.PixelSpacing)
        _set_raw(slice_, "PixelSpacing", text.replace(".", ","))

    return _edit(_in_order(folder), change)


def other_matrix(folder: Path, fewer: int = 4) -> list[Path]:
    """Cut the last `fewer` rows and columns off one slice."""
    return _edit([_middle(folder)], lambda slice_: _set_pixels(slice_, slice_.pixel_array[:-fewer, :-fewer]))


def shuffled_numbers(folder: Path) -> list[Path]:
    """Deal InstanceNumbers (0020,0013) and file names anew, in an order that is not that of the positions."""
    paths = _in_order(folder)
    order = np.random.default_rng(22).permutation(len(paths))
    numbers = [int(dcmread(path, stop_before_pixels=True).InstanceNumber) for path in paths]
    names = sorted(paths)
    for path in paths:
        path.rename(_aside(path))
    for path, new in zip(paths, order, strict=True):
        slice_ = dcmread(_aside(path))
        slice_.InstanceNumber = numbers[new]
        slice_.save_as(names[new], enforce_file_format=True)
        _aside(path).unlink()
    return names


def lying_thickness(folder: Path, factor: float = 3.0) -> list[Path]:
    """Multiply SliceThickness (0018,0050) of every slice; the positions stay."""

    def change(slice_: Dataset) -> None:
        slice_.SliceThickness = decimal_string(float(slice_.SliceThickness) * factor)

    return _edit(_in_order(folder), change)


# Pixel data and files


def truncated_pixels(folder: Path) -> list[Path]:
    """Cut one file in the middle of its pixel data; the length field still promises all of them."""
    path = _middle(folder)
    pixel_bytes = len(dcmread(path).PixelData)
    return _cut(path, path.stat().st_size - pixel_bytes // 2)


def truncated_header(folder: Path) -> list[Path]:
    """Cut one file inside its header, before its geometry."""
    return _cut(_middle(folder), _HEADER_CUT_BYTES)


def empty_file(folder: Path) -> list[Path]:
    """Leave nothing of one file but its name."""
    return _cut(_middle(folder), 0)


def short_pixels(folder: Path) -> list[Path]:
    """Keep half of one slice's PixelData with a length field that agrees: rows times columns promise more."""

    def change(slice_: Dataset) -> None:
        slice_.PixelData = slice_.PixelData[: len(slice_.PixelData) // 4 * 2]

    return _edit([_middle(folder)], change)


def no_preamble(folder: Path) -> list[Path]:
    """Strip the 128 bytes of preamble and `DICM` from every file. Source: DICOM PS3.10 7.1."""
    paths = _in_order(folder)
    for path in paths:
        path.write_bytes(path.read_bytes()[_PREAMBLE_BYTES:])
    return paths


def changing_rescale(folder: Path) -> list[Path]:
    """Encode each slice with a RescaleSlope and RescaleIntercept of its own; the values they give stay the same.

    Raises:
        CaseError: E_DTYPE when a slice's range does not fit 16 bits at slope 0.25.
    """
    slopes = (1.0, 0.5, 0.25)

    def change(slice_: Dataset) -> None:
        number = int(slice_.InstanceNumber)
        values = slice_.pixel_array * float(slice_.get("RescaleSlope", 1)) + float(slice_.get("RescaleIntercept", 0))
        slope, intercept = slopes[number % 3], np.floor(values.min()) - number % 5
        stored = (values - intercept) / slope
        if stored.max() > np.iinfo(np.int16).max:
            raise CaseError("E_DTYPE", f"Expected a range below 8192 in each slice, got up to {np.ptp(values):g}.")
        _set_pixels(slice_, np.rint(stored))
        slice_.RescaleSlope, slice_.RescaleIntercept = f"{slope:g}", f"{intercept:.0f}"

    return _edit(_in_order(folder), change)


def monochrome1(folder: Path) -> list[Path]:
    """Declare every slice MONOCHROME1: low values white."""
    return _edit(_in_order(folder), lambda slice_: setattr(slice_, "PhotometricInterpretation", "MONOCHROME1"))


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
    _set_raw(record, "ReferencedFileID", "..\\..\\OUTSIDE")
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


# Helpers


def _in_order(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return sorted(paths, key=lambda path: int(dcmread(path, specific_tags=["InstanceNumber"]).InstanceNumber))


def _middle(folder: Path) -> Path:
    paths = _in_order(folder)
    return paths[len(paths) // 2]


def _copy(path: Path) -> Path:
    return Path(shutil.copyfile(path, path.with_name(f"{path.name}B")))


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.aside")


def _edit(paths: Iterable[Path], change: Callable[[Dataset], None]) -> list[Path]:
    edited = list(paths)
    for path in edited:
        slice_ = dcmread(path)
        change(slice_)
        slice_.save_as(path, enforce_file_format=True)
    return edited


def _cut(path: Path, length: int) -> list[Path]:
    path.write_bytes(path.read_bytes()[:length])
    return [path]


def _set_instance_uid(slice_: Dataset, suffix: str) -> None:
    slice_.SOPInstanceUID = make_uid(slice_.SOPInstanceUID, suffix)
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID


def _set_pixels(slice_: Dataset, rows: np.ndarray) -> None:
    kind = "<i2" if slice_.PixelRepresentation else "<u2"
    slice_.Rows, slice_.Columns = rows.shape
    slice_.PixelData = np.ascontiguousarray(rows.astype(kind)).tobytes()


def _set_raw(slice_: Dataset, keyword: str, text: str) -> None:
    """Put a value in the dataset that pydicom would refuse; it is written as it stands."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise KeyError(keyword)
    data = text.encode("ascii")
    data += b" " * (len(data) % 2)
    slice_[number] = RawDataElement(Tag(number), dictionary_VR(number), len(data), data, 0, False, True)


def _decimal_strings(values: Iterable[float]) -> list[str]:
    return [decimal_string(value) for value in values]
