"""Series, patients, acquisitions and modalities that are mixed, or torn apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage

from pipeline.simulation.dicom import make_uid
from tests.phantoms.faults.editing import (
    axes_of,
    brighten,
    copy,
    decimal_strings,
    edit,
    in_order,
    paint,
    position_of,
    put,
    set_instance_uid,
    set_values,
)

#: What each volume more of a series is brighter than the one before, in stored units.
STEP = 100


def second_series(folder: Path) -> list[Path]:
    """Add a whole second series of the same study, 100 units brighter, its file names between the first's."""

    def change(slice_: Dataset) -> None:
        slice_.SeriesNumber = int(slice_.SeriesNumber) + 1
        slice_.SeriesDescription = f"{slice_.SeriesDescription} 2"
        slice_.SeriesInstanceUID = make_uid(slice_.SeriesInstanceUID, "second")
        set_instance_uid(slice_, "second")
        brighten(slice_, STEP)

    return edit([copy(path) for path in in_order(folder)], change)


def second_patient(folder: Path, interleaved: bool = False) -> list[Path]:
    """Give the second half of the slices, or every second one, to another patient; study and series UID stay.

    The other patient's slices are 100 units brighter, so a volume that mixes the two shows it.
    """
    paths = in_order(folder)
    paths = paths[1::2] if interleaved else paths[len(paths) // 2 :]

    def change(slice_: Dataset) -> None:
        slice_.PatientID = f"{slice_.PatientID}-X"
        slice_.PatientName = "Simulated^Other"
        brighten(slice_, STEP)

    return edit(paths, change)


def contradicting(folder: Path, interleaved: bool = False, **values: object) -> list[Path]:
    """Give the second half of the slices, or every second one, header values that contradict the others'.

    They are 100 units brighter, so a volume that mixes the two shows it.
    """
    paths = in_order(folder)
    paths = paths[1::2] if interleaved else paths[len(paths) // 2 :]

    def change(slice_: Dataset) -> None:
        set_values(slice_, values)
        brighten(slice_, STEP)

    return edit(paths, change)


def blanked_uids(folder: Path) -> list[Path]:
    """Take every UID of the slices out, as some de-identifiers do."""

    def change(slice_: Dataset) -> None:
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(slice_, keyword, "")

    return edit(in_order(folder), change)


def several_volumes(folder: Path, values: Mapping[str, Sequence[object]]) -> list[Path]:
    """Put several volumes under one series UID at the same positions, each 100 units brighter than the one before.

    Args:
        folder: of a clean series.
        values: by DICOM keyword, one value for each volume; an empty one leaves the element out.
    """
    originals = in_order(folder)
    count = len(next(iter(values.values())))
    files = [originals if number == 0 else [copy(path, f"V{number}") for path in originals] for number in range(count)]
    for number, paths in enumerate(files):
        own = {keyword: listed[number] for keyword, listed in values.items()}

        def change(slice_: Dataset, number: int = number, own: dict[str, object] = own) -> None:
            slice_.InstanceNumber = int(slice_.InstanceNumber) + number * len(originals)
            set_values(slice_, {keyword: value for keyword, value in own.items() if value != ""})
            if number:
                set_instance_uid(slice_, f"volume {number}")
                brighten(slice_, STEP * number)

        edit(paths, change)
    return [path for paths in files for path in paths]


def second_block(folder: Path, gap_mm: float = 0.0, spacing_factor: float = 1.0, turned: bool = False) -> list[Path]:
    """Add a second block of slices of a position phantom under the same series UID.

    Args:
        folder: of a clean series.
        gap_mm: how far above the first block it lies, along the normal.
        spacing_factor: by how much its pixels are larger.
        turned: its rows and columns lie in another plane: the columns run along the first block's normal.
    """
    paths = in_order(folder)
    first, last = (_position(paths[index]) for index in (0, -1))
    shift = (last - first) * len(paths) / (len(paths) - 1)

    def change(slice_: Dataset) -> None:
        row, column, normal = axes_of(slice_)
        number = int(slice_.InstanceNumber) - 1
        slice_.InstanceNumber = int(slice_.InstanceNumber) + len(paths)
        set_instance_uid(slice_, "block")
        if turned:
            slice_.ImageOrientationPatient = decimal_strings([*row, *normal])
            put(slice_, first + number * np.linalg.norm(last - first) / (len(paths) - 1) * column)
        else:
            put(slice_, position_of(slice_) + shift + gap_mm * normal)
        slice_.PixelSpacing = decimal_strings(float(value) * spacing_factor for value in slice_.PixelSpacing)
        paint(slice_)

    return edit([copy(path) for path in paths], change)


def two_uids(folder: Path, interleaved: bool = False) -> list[Path]:
    """Give the second half of one acquisition, or every second slice, a SeriesInstanceUID of its own."""
    paths = in_order(folder)
    paths = paths[1::2] if interleaved else paths[len(paths) // 2 :]

    def change(slice_: Dataset) -> None:
        slice_.SeriesInstanceUID = make_uid(slice_.SeriesInstanceUID, "torn off")

    return edit(paths, change)


def localizer_inside(folder: Path, same_plane: bool = False) -> list[Path]:
    """Add three localizer images of a position phantom under the series' UID.

    They lie in planes of their own, or in the stack's with pixels twice as large.
    """
    paths = in_order(folder)
    centre = _position(paths[len(paths) // 2])

    def change(slice_: Dataset) -> None:
        row, column, normal = axes_of(slice_)
        number = int(slice_.InstanceNumber)
        slice_.InstanceNumber = 1000 + number
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        set_instance_uid(slice_, "localizer")
        if same_plane:
            slice_.PixelSpacing = decimal_strings(2 * float(value) for value in slice_.PixelSpacing)
        else:
            slice_.ImageOrientationPatient = decimal_strings([*(row, column)[number % 2], *normal])
            put(slice_, centre + 10.0 * number * column)
        paint(slice_)

    return edit([copy(path, "L") for path in paths[:3]], change)


def mixed_modality(folder: Path) -> list[Path]:
    """Declare the second half of a CT series MR, with values that are 100 units brighter."""
    paths = in_order(folder)

    def change(slice_: Dataset) -> None:
        slice_.Modality = "MR"
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = MRImageStorage
        brighten(slice_, STEP)

    return edit(paths[len(paths) // 2 :], change)


def _position(path: Path) -> np.ndarray:
    return position_of(dcmread(path, stop_before_pixels=True))
