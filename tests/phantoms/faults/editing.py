"""Change the files of a written series in place: what the planted faults have in common."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from pipeline.simulation.dicom import decimal_string, make_uid
from tests.phantoms.phantom import expected_values


def in_order(folder: Path) -> list[Path]:
    """The folder's files in the order of InstanceNumber (0020,0013)."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return sorted(paths, key=lambda path: int(dcmread(path, specific_tags=["InstanceNumber"]).InstanceNumber))


def middle(folder: Path) -> Path:
    """The middle file by InstanceNumber."""
    paths = in_order(folder)
    return paths[len(paths) // 2]


def copy(path: Path, mark: str = "B") -> Path:
    """Copy a file to a second name beside it."""
    return Path(shutil.copyfile(path, path.with_name(f"{path.name}{mark}")))


def edit(paths: Iterable[Path], change: Callable[[Dataset], None]) -> list[Path]:
    """Read each file, change its dataset and write it again."""
    edited = list(paths)
    for path in edited:
        slice_ = dcmread(path)
        change(slice_)
        slice_.save_as(path, enforce_file_format=True)
    return edited


def set_everywhere(folder: Path, **values: object) -> list[Path]:
    """Give every file the same values, by DICOM keyword."""
    return edit(in_order(folder), lambda slice_: set_values(slice_, values))


def set_values(slice_: Dataset, values: dict[str, object]) -> None:
    """Set several elements by DICOM keyword."""
    for keyword, value in values.items():
        setattr(slice_, keyword, value)


def set_instance_uid(slice_: Dataset, suffix: str) -> None:
    """Give a slice a SOPInstanceUID (0008,0018) of its own."""
    slice_.SOPInstanceUID = make_uid(slice_.SOPInstanceUID, suffix)
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID


def set_pixels(slice_: Dataset, rows: npt.ArrayLike) -> None:
    """Replace the stored values, (rows, columns), in the slice's own kind of 16 bits."""
    kind = "<i2" if slice_.PixelRepresentation else "<u2"
    stored = np.asarray(rows)
    if slice_.PixelRepresentation or stored.max() >= 1 << slice_.BitsStored:
        slice_.BitsStored, slice_.HighBit = 16, 15
    slice_.Rows, slice_.Columns = stored.shape
    slice_.PixelData = np.ascontiguousarray(stored.astype(kind)).tobytes()


def brighten(slice_: Dataset, by: float) -> None:
    """Add a constant to the stored values, so that slices of two volumes can be told apart."""
    set_pixels(slice_, slice_.pixel_array + by)


def position_of(slice_: Dataset) -> npt.NDArray[np.float64]:
    """ImagePositionPatient (0020,0032), LPS mm."""
    return np.asarray(slice_.ImagePositionPatient, dtype=float)


def axes_of(slice_: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Direction along a row, along a column, and their normal, LPS."""
    row, column = np.asarray(slice_.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return row, column, np.cross(row, column)


def put(slice_: Dataset, position: npt.ArrayLike) -> None:
    """Set ImagePositionPatient (0020,0032), LPS mm; the values stay."""
    slice_.ImagePositionPatient = decimal_strings(np.asarray(position, dtype=float))


def seen_at_position(slice_: Dataset) -> npt.NDArray[np.float64]:
    """What a position phantom's slice has to show where its header puts it, (rows, columns), HU, not rounded."""
    row, column, _ = axes_of(slice_)
    lps = np.eye(4)
    lps[:3, 0] = row * float(slice_.PixelSpacing[1])
    lps[:3, 1] = column * float(slice_.PixelSpacing[0])
    lps[:3, 3] = position_of(slice_)
    shape = (slice_.Columns, slice_.Rows, 1)
    return np.asarray(expected_values(shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)[:, :, 0].T)


def paint(slice_: Dataset) -> None:
    """Give a position phantom's slice the values that belong to where its header now puts it."""
    stored = (seen_at_position(slice_) - float(slice_.get("RescaleIntercept", 0))) / float(
        slice_.get("RescaleSlope", 1)
    )
    set_pixels(slice_, np.rint(stored))


def set_raw(slice_: Dataset, keyword: str, text: str) -> None:
    """Put a value in the dataset that pydicom would refuse; it is written as it stands."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise KeyError(keyword)
    data = text.encode("ascii")
    data += b" " * (len(data) % 2)
    slice_[number] = RawDataElement(Tag(number), dictionary_VR(number), len(data), data, 0, False, True)


def decimal_strings(values: Iterable[float]) -> list[str]:
    """Numbers as DS. Source: DICOM PS3.5 6.2."""
    return [decimal_string(value) for value in values]
