"""Trees to de-identify, and what lies in a folder of copies."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

from pydicom import FileDataset, dcmread

from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom

SMALL = (12, 10, 4)


def write(folder: Path, **header: object) -> list[Path]:
    return write_series(position_phantom(shape=SMALL), folder, SeriesHeader(**header))


def changed(path: Path, **values: object) -> FileDataset:
    """Change attributes of a file in place."""
    data = dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return data


def copies(out: Path) -> list[FileDataset]:
    return [dcmread(path) for path in sorted(out.rglob("*.dcm"))]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "deidentified.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def private_rows(home: Path) -> list[dict[str, str]]:
    (path,) = (home / "links").glob("*/deidentified.csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
