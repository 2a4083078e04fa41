"""Which roles share a frame of reference, told by numbers."""

from __future__ import annotations

from pathlib import Path

import pydicom

from pipeline.cases import Series
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.series.frames import Framesd, frame_numbers
from pipeline.dicom.series.gate import candidates
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom


def series(folder: Path, number: int, frame: str) -> Series:
    folder = folder / str(number)
    write_series(position_phantom(shape=(6, 5, 4)), folder, SeriesHeader(series_number=number, frame=frame))
    (found,) = candidates(scan(folder).series)
    return found


def test_roles_of_one_frame_have_one_number_and_no_uid_is_kept(tmp_path: Path) -> None:
    case = {"mr": series(tmp_path, 1, "b"), "ct": series(tmp_path, 2, "a"), "pet": series(tmp_path, 3, "a")}
    done = Framesd(["ct", "pet", "mr", "us"])({**case, "case_id": "x"})
    assert done["frames"] == {"ct": 1, "pet": 1, "mr": 2}
    assert done["ct"] is case["ct"]


def test_a_frame_that_is_not_known_has_no_number(tmp_path: Path) -> None:
    known, without, mixed = (series(tmp_path, number, "a") for number in (1, 2, 3))
    for item, files in ((without, without.files), (mixed, mixed.files[:1])):
        for path in files:
            image = pydicom.dcmread(path)
            image.FrameOfReferenceUID = "" if item is without else "2.25.1"
            image.save_as(path)
    read = {name: candidates(scan(tmp_path / str(n)).series)[0] for n, name in enumerate(("ct", "pet", "mr"), start=1)}
    assert known.files
    assert frame_numbers(read) == {"ct": 1}
