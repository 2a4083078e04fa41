from __future__ import annotations

import os
import struct
from pathlib import Path

import pydicom
import pytest

import pipeline.dicom.headers.scan
from pipeline.dicom.headers.encoding import NotDicomError
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.headers.scan import scan
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.store.files import walk
from tests.phantoms import faults
from tests.phantoms.faults.editing import set_raw
from tests.phantoms.phantom import position_phantom


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_series(position_phantom(shape=(12, 10, 6)), tmp_path / "series", SeriesHeader(seed="scan"))


def test_the_header_agrees_with_pydicom(files: list[Path]) -> None:
    for path in files:
        header, truth = read_header(path, ["PatientName"]), pydicom.dcmread(path)
        (instance,) = header.instances
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
    (tmp_path / "ct.nii.gz").write_bytes(bytes(400))
    with pytest.raises(UsageError, match=r"E_NO_DICOM: .* NIfTI files: give the roles of the data spec `files`"):
        scan(tmp_path)


def test_clutter_is_counted_and_nothing_else(files: list[Path]) -> None:
    faults.clutter(files[0].parent)
    found = scan(files[0].parent)
    assert sorted(path.name for path in found.others) == ["DICOMDIR", "Thumbs.db", "key.jpg", "readme.txt"]
    assert found.rejected == ()
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
    set_raw(slice_, "PixelSpacing", text)
    slice_.save_as(files[0], enforce_file_format=True)
    (instance,) = read_header(files[0]).instances
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


def test_many_files_are_read_in_the_order_of_their_paths_by_several_workers(tmp_path: Path) -> None:
    for number in range(5):
        header = SeriesHeader(seed="many", series_number=number + 2)
        write_series(position_phantom(shape=(4, 4, 60)), tmp_path / f"{number}", header)
    found = scan(tmp_path).series
    assert found == scan(tmp_path).series
    assert [len(series.instances) for series in found] == [60] * 5
    for series in found:
        paths = [instance.path for instance in series.instances]
        assert paths == sorted(paths)
        for instance in series.instances[::20]:
            truth = pydicom.dcmread(instance.path)
            assert instance.sop_uid == truth.SOPInstanceUID
            assert instance.position == tuple(float(value) for value in truth.ImagePositionPatient)


def test_each_modality_of_a_mixed_series_is_set_aside_on_its_own(files: list[Path]) -> None:
    for path in files[:2]:
        slice_ = pydicom.dcmread(path)
        slice_.Modality = "MR"
        slice_.save_as(path, enforce_file_format=True)
    series = scan(files[0].parent).series
    assert [(item.modality, len(item.instances)) for item in series] == [("CT", 4), ("MR", 2)]
    for item in series:
        assert item.fault is not None and item.fault.code == "E_MIXED_MODALITY"
        assert "2 modalities" in item.fault.message


def test_a_report_under_the_images_uid_does_not_spoil_them(files: list[Path]) -> None:
    report = pydicom.dcmread(files[0])
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.save_as(files[0].parent / "report", enforce_file_format=True)
    series = scan(files[0].parent).series
    assert [(item.modality, len(item.instances), item.fault) for item in series] == [("CT", 6, None), ("SR", 1, None)]


def test_two_patients_under_one_series_uid_are_not_mixed(files: list[Path]) -> None:
    slice_ = pydicom.dcmread(files[0])
    slice_.PatientID = "SIM-0002"
    slice_.save_as(files[0], enforce_file_format=True)
    series = scan(files[0].parent).series
    assert sorted(len(item.instances) for item in series) == [1, 5]
    assert {item.fault.code for item in series if item.fault} == {"E_UID_COLLISION"}
    assert all(item.fault for item in series)


def test_a_broken_header_among_the_files_of_one_series_is_that_series_lost_slice(files: list[Path]) -> None:
    """Else a volume without its last slice would pass for a whole one."""
    last = max(files, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:400])
    found = scan(files[0].parent)
    assert found.rejected == ()
    (series,) = found.series
    assert [instance.path for instance in series.rejected] == [last]
    assert series.rejected[0].fault is not None and series.rejected[0].fault.code == "E_HEADER"


def test_a_broken_header_among_several_series_belongs_to_none(files: list[Path]) -> None:
    faults.second_series(files[0].parent)
    files[0].write_bytes(files[0].read_bytes()[:400])
    found = scan(files[0].parent)
    assert [instance.path for instance in found.rejected] == [files[0]]
    assert sorted(len(series.instances) for series in found.series) == [5, 6]


def test_a_pipe_does_not_hang_the_scan(files: list[Path]) -> None:
    os.mkfifo(files[0].parent / "pipe")
    found = scan(files[0].parent)
    assert [path.name for path in found.others] == ["pipe"]
    assert len(found.series[0].instances) == 6


def test_a_file_that_takes_too_long_costs_that_file_alone(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence of two million items: as many objects."""
    monkeypatch.setattr(pipeline.dicom.headers.scan, "HEADER_TIMEOUT_S", 2.0)
    data = files[0].read_bytes()
    start = data.index(b"\x08\x00\x08\x00CS")
    head = struct.pack("<HH2sHL", 0x0008, 0x0006, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    files[0].write_bytes(data[:start] + head + item * 2_000_000 + end + data[start:])
    found = scan(files[0].parent)
    (series,) = found.series
    assert len(series.instances) == 5
    (lost,) = series.rejected
    assert lost.path == files[0]
    assert lost.fault is not None and lost.fault.code == "E_LIMIT"
