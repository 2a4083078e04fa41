"""A hospital's tree of many small DICOM files, made fast: one file's bytes with other identifiers and positions.

    .venv/bin/python -m benchmarks.index_data TREE [--files 50000] [--first 0]

Studies have `SERIES` series of `SLICES` slices. In one of ten something is wrong with each series: `FAULTS`, in turn.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
import typer

from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom

SERIES, SLICES = 2, 25
#: Rows and columns: 1 kB of pixels.
SHAPE = (16, 32, 2)
#: One study of so many is faulty.
FAULTY = 10
_UID, _PATIENT, _NUMBER, _PLACE = "2.25.1{:038d}", "SIM-{:08d}", "{:06d}", "{:012.4f}"

Files = dict[str, bytes]


class Template:
    """The bytes of one slice, with places for what differs between slices."""

    def __init__(self, folder: Path) -> None:
        path = write_series(position_phantom(SHAPE), folder, SeriesHeader(patient_id=_PATIENT.format(0)))[0]
        dataset = pydicom.dcmread(path)
        for number, keyword in enumerate(("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"), start=1):
            setattr(dataset, keyword, _UID.format(number))
        dataset.FrameOfReferenceUID = dataset.StudyInstanceUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber, dataset.SeriesNumber = _NUMBER.format(1), _NUMBER.format(2)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = ["0", "0", _PLACE.format(0)]
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        self._data = buffer.getvalue()

    def slice(self, study: int, series: int, number: int) -> bytes:
        """One slice of 3 mm."""
        serial = (study * SERIES + series) * 1000 + number
        changes = {
            _UID.format(1): _UID.format(10**12 + serial),
            _UID.format(2): _UID.format(2 * 10**12 + study * SERIES + series),
            _UID.format(3): _UID.format(3 * 10**12 + study),
            _PATIENT.format(0): _PATIENT.format(study),
            _PLACE.format(0): _PLACE.format(3.0 * number),
        }
        data = self._data
        for old, new in changes.items():
            data = data.replace(old.encode(), new.encode())
        first, second = (f"\x20\0{element}\0IS\x06\0" for element in ("\x13", "\x11"))
        data = data.replace(f"{first}{_NUMBER.format(1)}".encode(), f"{first}{_NUMBER.format(number)}".encode())
        return data.replace(f"{second}{_NUMBER.format(2)}".encode(), f"{second}{_NUMBER.format(series)}".encode())


def _cut(files: Files) -> None:
    files["IM0010"] = files["IM0010"][:-100]


def _cut_header(files: Files) -> None:
    files["IM0010"] = files["IM0010"][:600]


def _empty(files: Files) -> None:
    files["IM0010"] = b""


def _zeros(files: Files) -> None:
    files["IM0010"] = bytes(len(files["IM0010"]))


def _gap(files: Files) -> None:
    del files["IM0010"]


def _copies(files: Files) -> None:
    files["COPY0010"] = files["IM0010"]


def _two_of_one(files: Files) -> None:
    files["OTHER0010"] = files["IM0010"][:-2] + b"\1\1"


def _same_place(files: Files) -> None:
    _edit(files, "IM0011", _PLACE.format(33.0), _PLACE.format(30.0))


def _no_number(files: Files) -> None:
    _edit(files, "IM0010", _PLACE.format(30.0), "0000030,0000")


def _sheared(files: Files) -> None:
    _edit(files, "IM0010", "0\\0\\" + _PLACE.format(30.0), "9\\0\\" + _PLACE.format(30.0))


def _not_scalar(files: Files) -> None:
    for name in files:
        _edit(files, name, "MONOCHROME2", "PALETTE_COL")


def _clutter(files: Files) -> None:
    files["Thumbs.db"], files["IM0099.txt"] = b"\xd0\xcf\x11\xe0" + bytes(500), b"a text " * 99


def _no_dicom(files: Files) -> None:
    files["lost.dcm"] = b"no DICOM at all " * 32


def _person(files: Files) -> None:
    _edit(files, "IM0010", "Simulated^One", "Another^Woman")


FAULTS: tuple[Callable[[Files], None], ...] = (
    *(_cut, _cut_header, _empty, _zeros, _gap, _copies, _two_of_one, _same_place, _no_number, _sheared),
    *(_not_scalar, _clutter, _no_dicom, _person),
)


def _edit(files: Files, name: str, old: str, new: str) -> None:
    if old.encode() not in files[name] or len(old) != len(new):
        raise ValueError(f"{name} does not hold {old!r}, or {new!r} is of another length")
    files[name] = files[name].replace(old.encode(), new.encode())


def write_study(template: Template, root: Path, study: int) -> int:
    """Write one study, faulty or not by its number.

    Returns:
        How many files it has.
    """
    count = 0
    for series in range(SERIES):
        files = {f"IM{k:04d}": template.slice(study, series, k) for k in range(1, SLICES + 1)}
        if study % FAULTY == FAULTY - 1:
            FAULTS[(study // FAULTY * SERIES + series) % len(FAULTS)](files)
        folder = root / f"patient{study:05d}" / f"series{series}"
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        count += len(files)
    return count


def write_tree(root: Path, files: int, scratch: Path, first: int = 0) -> int:
    """Write so many files, in whole studies; the number of the next study."""
    template, written, study = Template(scratch), 0, first
    while written < files:
        written += write_study(template, root, study)
        study += 1
    return study


def main(tree: Path, files: int = 50_000, first: int = 0) -> None:
    """Write a tree, or more of one: from which study on."""
    write_tree(tree, files, tree.with_name(f"{tree.name}-template"), first)


if __name__ == "__main__":
    typer.run(main)
