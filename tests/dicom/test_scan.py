from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from pipeline.dicom.header import NotDicomError, read_header
from pipeline.dicom.scan import scan, walk
from pipeline.errors import UsageError
from pipeline.simulation import faults
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.simulation.phantom import position_phantom


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_series(position_phantom(shape=(12, 10, 6)), tmp_path / "series", SeriesHeader(seed="scan"))


def test_the_header_agrees_with_pydicom(files: list[Path]) -> None:
    for path in files:
        header, truth = read_header(path, ["PatientName"]), pydicom.dcmread(path)
        instance = header.instance
        assert header.series_uid == truth.SeriesInstanceUID
        assert instance.position == pytest.approx([float(value) for value in truth.ImagePositionPatient])
        assert instance.orientation == pytest.approx([float(value) for value in truth.ImageOrientationPatient])
        assert instance.spacing_mm == pytest.approx([float(value) for value in truth.PixelSpacing])
        assert (instance.rows, instance.columns) == (truth.Rows, truth.Columns) == (10, 12)
        assert (instance.slope, instance.intercept) == (1.0, -1024.0)
        assert instance.tags["PatientName"] == str(truth.PatientName)
        assert instance.fault is None


def test_no_folder_no_file_no_dicom(tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match="E_EMPTY"):
            scan(folder)
    for index in range(3):
        (tmp_path / f"{index}.txt").write_text("a text that is long enough to be taken for something else " * 9)
    with pytest.raises(UsageError, match=r"E_NO_DICOM: .*3 files, none of them DICOM"):
        scan(tmp_path)


def test_clutter_is_counted_and_nothing_else(files: list[Path]) -> None:
    faults.clutter(files[0].parent)
    found = scan(files[0].parent)
    assert sorted(path.name for path in found.others) == ["Thumbs.db", "key.jpg", "readme.txt"]
    assert [instance.path.name for instance in found.rejected] == ["DICOMDIR"]
    assert [len(series.instances) for series in found.series] == [6]


def test_an_unreadable_file_is_named_and_the_rest_is_read(files: list[Path]) -> None:
    (files[0].parent / "dangling.dcm").symlink_to("nowhere.dcm")
    found = scan(files[0].parent)
    assert [(item.path.name, item.fault.code) for item in found.unreadable] == [("dangling.dcm", "E_UNREADABLE")]
    assert len(found.series[0].instances) == 6


def test_links_to_folders_are_not_entered(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "series" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert sorted(walk(tmp_path)) == sorted(files)


def test_the_tree_is_not_written_to(files: list[Path]) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    scan(files[0].parent)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before
    assert sorted(files[0].parent.iterdir()) == sorted(files)


@pytest.mark.parametrize("text", ["0,9\\0,9", "NaN\\1", "1", "1\\2\\3", "1e999\\1", "0x1\\1", "1_0\\1", "abc\\1"])
def test_wrong_numbers_are_not_guessed(files: list[Path], text: str) -> None:
    slice_ = pydicom.dcmread(files[0])
    faults._set_raw(slice_, "PixelSpacing", text)
    slice_.save_as(files[0], enforce_file_format=True)
    instance = read_header(files[0]).instance
    assert instance.fault is not None and instance.fault.code == "E_BAD_DS"
    assert instance.spacing_mm is None


def test_a_text_that_starts_like_dicom_is_not_dicom(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x08\x00" + b"plain text " * 100)
    with pytest.raises(NotDicomError):
        read_header(path)


def test_patients_without_an_id_are_kept_apart_by_study(files: list[Path]) -> None:
    for path in files:
        slice_ = pydicom.dcmread(path)
        slice_.PatientID = ""
        slice_.save_as(path, enforce_file_format=True)
    (series,) = scan(files[0].parent).series
    assert series.patient_id == f"study {series.study_uid}"
    assert series.notes == ("N_NO_PATIENT_ID",)
