from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

import pipeline.dicom.headers.scan
from pipeline.dicom.headers.encoding import NotDicomError
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.headers.scan import read_task, scan
from pipeline.dicom.series.gate import candidates
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms import faults
from tests.phantoms.faults.editing import set_raw
from tests.phantoms.phantom import position_phantom
from tests.store.test_files import refusing


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
    assert sorted(item.path.name for item in found.others) == ["DICOMDIR", "Thumbs.db", "key.jpg", "readme.txt"]
    assert found.rejected == ()
    assert [len(series.instances) for series in found.series] == [6]


def test_an_unreadable_file_is_named_and_the_rest_is_read(files: list[Path]) -> None:
    (files[0].parent / "dangling.dcm").symlink_to("nowhere.dcm")
    found = scan(files[0].parent)
    assert [(item.path.name, item.fault.code) for item in found.unreadable] == [("dangling.dcm", "E_UNREADABLE")]
    assert len(found.series[0].instances) == 6


def test_folders_that_are_links_are_read_once_and_loops_are_counted(tmp_path: Path, files: list[Path]) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for link, target in {"a": tmp_path / "series", "b": tmp_path / "series", "loop": root, "up": tmp_path}.items():
        (root / link).symlink_to(target, target_is_directory=True)
    found = scan(root)
    assert [len(series.instances) for series in found.series] == [6]
    assert found.series[0].notes == () and {path.parent for path in found.series[0].files} == {root / "a"}
    links = {item.path.name: item.fault.message for item in found.others if item.fault}
    assert links == dict.fromkeys(("b", "loop", "up"), "a link to a folder that is read elsewhere")


@pytest.mark.usefixtures("quick")
def test_a_folder_that_cannot_be_opened_is_unreadable(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    closed = files[0].parent / "closed.1"
    closed.mkdir()
    monkeypatch.setattr(os, "scandir", refusing(closed, os.scandir))
    found = scan(files[0].parent)
    (fault,) = [item.fault for item in found.unreadable if item.path == closed]
    assert fault is not None and fault.code == "E_UNREADABLE"
    assert fault.message == "The folder cannot be read (Permission denied)."
    assert len(found.series[0].instances) == 6 and found.series[0].rejected == ()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are read without a child process."""
    monkeypatch.setattr(pipeline.dicom.headers.scan, "_read_all", in_this_process)


def in_this_process(paths: list[Path], tags: tuple[str, ...], _readers: int) -> Iterator[object]:
    for path in paths:
        try:
            yield read_task((path, tags))
        except (NotDicomError, OSError) as error:
            yield error


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


#: What is left of a slice after a broken transfer or disk.
DAMAGES = {
    "cut": lambda whole: whole[:400],
    "cut early": lambda whole: whole[:100],
    "empty": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "first page": lambda whole: bytes(4096) + whole[4096:],
    "a page of the web": lambda whole: b"<html>404 Not Found</html>" * 20,
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("named_apart", [True, False])
def test_a_damaged_slice_among_two_series_is_lost_to_one_or_flagged_in_both(
    tmp_path: Path, damage: str, named_apart: bool
) -> None:
    """Names say which series it was of, such as CT0006 among CT0001 to CT0005; where both are called alike, no one."""
    root, last = tmp_path / "in", Path()
    root.mkdir()
    for number, prefix in enumerate(("CT", "MR") if named_apart else ("IM1", "IM2"), start=2):
        header = SeriesHeader(seed="two", series_number=number)
        for k, path in enumerate(sorted(write_series(position_phantom(shape=(12, 10, 6)), tmp_path / prefix, header))):
            last = path.rename(root / f"{prefix}{k:04d}")
    last.write_bytes(DAMAGES[damage](last.read_bytes()))
    found = scan(root)
    one, other = sorted(found.series, key=lambda series: len(series.instances))
    assert (len(one.instances), len(other.instances)) == (5, 6)
    assert other.rejected == () and found.others == ()
    if named_apart:
        assert [(item.path, item.fault.code) for item in one.rejected if item.fault] == [(last, "E_HEADER")]
        assert found.rejected == () and (*one.notes, *other.notes) == ()
    else:
        assert [item.path for item in found.rejected] == [last] and one.rejected == ()
        assert one.notes == other.notes == ("N_FILES_LOST",)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ending", [".gz", ".part"])
def test_a_slice_that_is_packed_or_half_sent_is_lost_and_one_that_is_there_too_is_not(
    files: list[Path], ending: str
) -> None:
    packed = files[3].with_name(f"{files[3].name}{ending}")
    packed.write_bytes(gzip.compress(files[3].read_bytes()))
    assert scan(files[0].parent).series[0].rejected == ()
    files[3].unlink()
    assert [item.path for item in scan(files[0].parent).series[0].rejected] == [packed]


@pytest.mark.usefixtures("quick")
def test_a_slice_that_cannot_be_opened_is_lost_to_its_series(files: list[Path]) -> None:
    files[3].unlink()
    files[3].symlink_to("nowhere")
    found = scan(files[0].parent)
    (lost,) = found.series[0].rejected
    assert (lost.path, lost.fault.code if lost.fault else "") == (files[3], "E_UNREADABLE")
    assert [item.path for item in found.unreadable] == [files[3]]


@pytest.mark.usefixtures("quick")
def test_companions_of_macos_previews_and_marks_are_no_slices(files: list[Path]) -> None:
    """Files that lie beside every slice, or are called otherwise than the slices, have lost none."""
    folder = files[0].parent
    for path in files:
        path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(100))
        path.with_name(f"{path.name}.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    for name in ("VERSION", ".gitkeep", ".IM0099", "DICOMDIR.txt"):
        (folder / name).write_bytes(b"")
    found = scan(folder)
    assert found.rejected == () and found.series[0].rejected == () and found.series[0].notes == ()
    assert len(found.series[0].instances) == 6 and len(found.others) == 16
    said = {item.fault.message for item in found.others if item.fault and item.path.name.startswith("._")}
    assert said == {"a companion file of macOS"}


@pytest.mark.usefixtures("quick")
def test_what_is_named_dicom_but_is_none_is_rejected_by_name(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.dcm").write_bytes(b"")
    found = scan(tmp_path)
    assert [(item.path.name, item.fault.code) for item in found.rejected if item.fault] == [("1.dcm", "E_HEADER")]


def test_a_pipe_does_not_hang_the_scan(files: list[Path]) -> None:
    os.mkfifo(files[0].parent / "pipe")
    found = scan(files[0].parent)
    assert [(item.path.name, item.fault.message) for item in found.others] == [("pipe", "a pipe, a socket or a device")]
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


def blank(folder: Path, value: str, *keywords: str) -> None:
    for path in folder.rglob("IM*"):
        slice_ = pydicom.dcmread(path)
        for keyword in keywords or ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(slice_, keyword, value)
        slice_.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("value", ["", "0", "0.0.0", "REMOVED"])
def test_blanked_uids_are_replaced_by_the_folder_and_said(tmp_path: Path, value: str) -> None:
    """Two series of one folder and one of another: three series, whose places are whole."""
    for number, (folder, modality) in enumerate((("a", "CT"), ("a", "MR"), ("b", "CT")), start=1):
        header = SeriesHeader(modality=modality, series_number=number)
        for path in write_series(position_phantom(shape=(12, 10, 6)), tmp_path / modality / str(number), header):
            (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "in" / folder / f"{path.name}-{number}")
    blank(tmp_path / "in", value)
    found = candidates(scan(tmp_path / "in").series)
    assert sorted((item.modality, len(item.instances)) for item in found) == [("CT", 6), ("CT", 6), ("MR", 6)]
    assert all(item.fault is None and item.notes == ("N_NO_UID",) for item in found)
    assert {item.patient_id for item in found} == {"SIM-0001"}
    assert {item.tags["FrameOfReferenceUID"] for series in found for item in series.instances} == {""}


def test_a_blanked_instance_uid_alone_leaves_the_series_together(tmp_path: Path) -> None:
    for number, path in enumerate(write_series(position_phantom(shape=(12, 10, 6)), tmp_path / "x")):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        path.rename(tmp_path / "in" / str(number) / "IM")
    blank(tmp_path / "in", "", "SOPInstanceUID", "StudyInstanceUID")
    (series,) = candidates(scan(tmp_path / "in").series)
    assert (series.fault, len(series.instances), series.notes) == (None, 6, ("N_NO_UID",))


def test_a_gap_among_blanked_files_is_still_one(files: list[Path]) -> None:
    blank(files[0].parent, "")
    files[2].unlink()
    (series,) = candidates(scan(files[0].parent).series)
    assert series.fault is not None and series.fault.code == "E_GAP"
