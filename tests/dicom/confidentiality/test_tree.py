"""A whole tree: what is copied, what stays behind, and that the copies still belong together."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset, FileDataset, dcmread, dcmwrite, uid

from pipeline.commands.deidentify import show
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import deidentify_tree
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.store.pseudonyms import LONGEST_SHIFT_DAYS, Pseudonyms
from tests.dicom.confidentiality.deidentified import changed, copies, private_rows, table, write
from tests.phantoms.phantom import position_phantom


def test_every_image_is_copied_under_a_pseudonym(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), len(found.outcomes)) == (12, 12)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
    rows = table(tmp_path / "out")
    assert len(rows) == 12 and {row["verdict"] for row in rows} == {"copied"}
    for row in rows:
        path = tmp_path / "out" / row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        data = dcmread(path)
        assert data.PatientID == data.PatientName == row["patient"] == path.relative_to(tmp_path / "out").parts[0]
        assert data.PatientIdentityRemoved == "YES" and data.PatientBirthDate == ""
        assert data.preamble == b"\0" * 128
        assert data.file_meta.ImplementationVersionName.startswith("TANDEM")
    links = private_rows(tandem_home)
    assert {row["patient_id"] for row in links} == {"P1", "P2"}
    assert len({row["patient"] for row in links}) == 2


def test_pixels_geometry_and_syntax_are_untouched(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    deidentify_tree(tree, tmp_path / "out", Options())
    for row in private_rows(tandem_home):
        source, copy = dcmread(row["source"]), dcmread(tmp_path / "out" / row["file"])
        assert copy.PixelData == source.PixelData
        assert copy.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
        for keyword in (
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns"),
            *("RescaleSlope", "RescaleIntercept", "Modality", "ImageType", "InstanceNumber", "EchoTime", "KVP"),
            *("ConvolutionKernel", "BodyPartExamined", "PatientPosition", "SOPClassUID"),
        ):
            assert copy.get(keyword) == source.get(keyword), keyword


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_other_encodings_are_copied_as_they_are(syntax: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in")[0]
    data = dcmread(path)
    if syntax == uid.RLELossless:
        data.compress(syntax)
    elif syntax == uid.ExplicitVRBigEndian:
        data.PixelData = data.pixel_array.astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "in").mkdir()
    little = syntax != uid.ExplicitVRBigEndian
    data = _converted(data, syntax == uid.ImplicitVRLittleEndian, little)
    data.save_as(tmp_path / "in" / "a", enforce_file_format=True)
    source = dcmread(tmp_path / "in" / "a")
    deidentify_tree(tmp_path / "in", tmp_path / "out", Options())
    (copy,) = copies(tmp_path / "out")
    assert copy.PixelData == source.PixelData and copy.file_meta.TransferSyntaxUID == syntax
    assert (copy.pixel_array == source.pixel_array).all()


def _converted(data: FileDataset, implicit: bool, little: bool) -> FileDataset:
    fresh = FileDataset("", {}, file_meta=data.file_meta, is_implicit_VR=implicit, is_little_endian=little)
    fresh.preamble = data.preamble
    for element in data:
        fresh.add(element)
    return fresh


def test_references_between_objects_resolve(tmp_path: Path) -> None:
    """A structure set and an image that refer to a series' instances find them among the copies."""
    paths = write(tmp_path / "in" / "ct")
    slices = [dcmread(path) for path in paths]
    plan = dcmread(paths[0])
    del plan.PixelData, plan.Rows, plan.Columns
    plan.SOPClassUID = plan.file_meta.MediaStorageSOPClassUID = uid.RTStructureSetStorage
    plan.SOPInstanceUID = plan.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    plan.SeriesInstanceUID, plan.Modality = "1.2.3.5", "RTSTRUCT"
    study, series, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(item) for item in slices]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", plan.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    plan.ReferencedFrameOfReferenceSequence = [frame]
    plan.save_as(tmp_path / "in" / "rs.dcm", enforce_file_format=True)
    changed(paths[1], SourceImageSequence=[_reference(slices[0])])
    deidentify_tree(tmp_path / "in", tmp_path / "out", Options())
    found = copies(tmp_path / "out")
    images = {data.SOPInstanceUID: data for data in found if data.Modality == "CT"}
    (structures,) = [data for data in found if data.Modality == "RTSTRUCT"]
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == set(images)
    any_image = next(iter(images.values()))
    assert series.SeriesInstanceUID == any_image.SeriesInstanceUID
    assert study.ReferencedSOPInstanceUID == any_image.StudyInstanceUID == structures.StudyInstanceUID
    assert frame.FrameOfReferenceUID == any_image.FrameOfReferenceUID
    derived = [data for data in images.values() if "SourceImageSequence" in data]
    assert derived[0].SourceImageSequence[0].ReferencedSOPInstanceUID in images
    hospital = {str(value) for item in slices for value in (item.SOPInstanceUID, item.SeriesInstanceUID)}
    assert not hospital & {str(element.value) for data in found for element in data.iterall() if element.VR == "UI"}


def _reference(data: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    return item


def test_a_hundred_thousand_uids_do_not_collide(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path / "out", tmp_path / "key")
    made = {names.uid(f"1.2.840.113619.2.{number}") for number in range(100_000)}
    assert len(made) == 100_000
    assert all(uid.UID(text).is_valid and len(text) <= 44 for text in made)
    assert names.uid("1.2.3") == Pseudonyms(tmp_path / "other", tmp_path / "key").uid("1.2.3")
    assert names.uid("1.2.3") != Pseudonyms(tmp_path / "out", tmp_path / "key 2").uid("1.2.3")


def test_the_shift_is_never_zero_and_never_forward(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path / "out", tmp_path / "key")
    shifts = [names.days(f"P{number}") for number in range(20_000)]
    assert min(shifts) >= 1 and max(shifts) <= LONGEST_SHIFT_DAYS
    assert len(set(shifts)) > 3600  # of 3652 days, 20,000 draws leave out about 15


def test_intervals_are_exact_over_leap_days(tmp_path: Path) -> None:
    days = [
        date(2019, 12, 31),
        date(2020, 2, 28),
        date(2020, 2, 29),
        date(2020, 3, 1),
        date(2024, 2, 29),
        date(2100, 3, 1),
    ]
    for number, day in enumerate(days):
        text = f"{day:%Y%m%d}"
        paths = write(tmp_path / "in" / str(number), study=str(number), date=text, patient_id="P1")
        changed(paths[0], AcquisitionDateTime=f"{text}101500.5")
    deidentify_tree(tmp_path / "in", tmp_path / "out", Options(shift_dates=True))
    found = sorted({_day(data.StudyDate) for data in copies(tmp_path / "out")})
    assert [(b - a).days for a, b in pairwise(found)] == [(b - a).days for a, b in pairwise(days)]
    assert 1 <= (days[0] - found[0]).days <= LONGEST_SHIFT_DAYS
    for data in copies(tmp_path / "out"):
        assert data.StudyDate == data.SeriesDate == data.AcquisitionDate == data.ContentDate
        assert data.StudyTime == "101500"
        if "AcquisitionDateTime" in data:
            assert data.AcquisitionDateTime == f"{data.StudyDate}101500.5"


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


# What stays behind


def test_what_may_show_a_name_stays_behind(tmp_path: Path) -> None:
    cases = {
        "secondary capture": ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, "E_SCREENSHOT"),
        "ultrasound": ({"SOPClassUID": uid.UltrasoundImageStorage}, "E_BURNED_IN"),
        "video": ({"SOPClassUID": uid.VideoEndoscopicImageStorage}, "E_BURNED_IN"),
        "pdf": ({"SOPClassUID": uid.EncapsulatedPDFStorage}, "E_FREE_TEXT"),
        "report": ({"SOPClassUID": uid.BasicTextSRStorage}, "E_FREE_TEXT"),
        "key objects": ({"SOPClassUID": uid.KeyObjectSelectionDocumentStorage}, "E_FREE_TEXT"),
        "presentation": ({"SOPClassUID": uid.GrayscaleSoftcopyPresentationStateStorage}, "E_FREE_TEXT"),
        "private class": ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "E_FREE_TEXT"),
        "burned in": ({"BurnedInAnnotation": "YES"}, "E_BURNED_IN"),
        "dose sheet": ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"]}, "E_SCREENSHOT"),
        "screen save": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "E_SCREENSHOT"),
        "converted": ({"ConversionType": "WSD"}, "E_SCREENSHOT"),
        "sheet by software": ({"SoftwareVersions": ["VA44A", "CT_SOM5 PROT"]}, "E_SCREENSHOT"),
        "sheet by type": ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "E_SCREENSHOT"),
        "sheet by name": ({"SeriesDescription": "Patient Protocol"}, "E_SCREENSHOT"),
        "dose by name": ({"SeriesDescription": "Dose Report"}, "E_SCREENSHOT"),
        "dose by comment": ({"CommentsOnRadiationDose": "TOTAL DLP=512 mGycm"}, "E_SCREENSHOT"),
        "captured": ({"SecondaryCaptureDeviceManufacturer": "Vital Images"}, "E_SCREENSHOT"),
        "capture date": ({"DateOfSecondaryCapture": "20240115"}, "E_SCREENSHOT"),
        "a page": ({"ImagePositionPatient": None, "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}, "E_SCREENSHOT"),
        "colour": ({"PhotometricInterpretation": "RGB"}, "E_SCREENSHOT"),
        "radiograph": ({"SOPClassUID": uid.ComputedRadiographyImageStorage}, "E_BURNED_IN"),
    }
    for number, (name, (values, _)) in enumerate(cases.items()):
        path = write(tmp_path / "in" / name, study=str(number))[0]
        changed(path, **values)
        for other in set((tmp_path / "in" / name).iterdir()) - {path}:
            other.unlink()
    overlay = write(tmp_path / "in" / "overlay", study="overlay")[0]
    data = dcmread(overlay)
    data.add_new(0x60000102, "US", 12)
    data.save_as(overlay)
    found = deidentify_tree(tmp_path / "in", tmp_path / "out", Options())
    codes = {item.source.path.parent.name: item.code for item in found.outcomes if item.verdict == "quarantined"}
    assert codes == {**{name: code for name, (_, code) in cases.items()}, "overlay": "E_BURNED_IN"}
    assert len(copies(tmp_path / "out")) == 3  # the overlay's neighbours
    rows = [row for row in table(tmp_path / "out") if row["verdict"] == "quarantined"]
    assert len(rows) == len(codes) and all(row["reason"] and not row["file"] for row in rows)


@pytest.mark.parametrize(
    "values",
    [
        {"SeriesDescription": "SnapShot Freeze 70% low dose", "ProtocolName": "Radiation planning"},
        {"CommentsOnRadiationDose": "", "SoftwareVersions": "VA44A", "ImageComments": "report follows"},
    ],
)
def test_slices_that_only_sound_like_a_sheet_are_copied(values: dict[str, str], tmp_path: Path) -> None:
    changed(write(tmp_path / "in")[0], **values)
    assert deidentify_tree(tmp_path / "in", tmp_path / "out", Options()).count("copied") == 4


#: Stored bits, highest bit, signed, and what lies in the other bits of a cell of 16.
@pytest.mark.parametrize(
    ("stored", "high", "signed", "stray"),
    [(12, 11, False, 0x8000), (12, 11, True, 0x1000), (12, 15, False, 0x0001), (15, 14, True, 0x8000)],
)
@pytest.mark.parametrize("big", [False, True])
def test_a_name_in_unused_bits_is_cleared(
    stored: int, high: int, signed: bool, stray: int, big: bool, tmp_path: Path
) -> None:
    """The bits of an overlay whose group was stripped: every stored value stays, and so does padding."""
    path = write(tmp_path / "in")[0]
    data = dcmread(path)
    low = -(1 << (stored - 1)) if signed else 0
    truth = np.random.default_rng(stored).integers(low, low + (1 << stored), (data.Rows, data.Columns))
    plain = (truth << (high + 1 - stored)) & 0xFFFF
    words = plain.copy()
    words[2:5] ^= stray  # against the sign, too
    words[0] = plain[0] = 63536
    data.BitsStored, data.HighBit, data.PixelRepresentation = stored, high, int(signed)
    data.add(DataElement(0x00280120, "SS" if signed else "US", -2000 if signed else 63536))
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian if big else uid.ExplicitVRLittleEndian
    data.PixelData = words.astype(">u2" if big else "<u2").tobytes()
    data["PixelData"].VR = "OW"
    dcmwrite(path, data, little_endian=not big, implicit_vr=False)
    (outcome,) = (
        item
        for item in deidentify_tree(tmp_path / "in", tmp_path / "out", Options()).outcomes
        if item.source.path == path
    )
    copy = np.frombuffer(dcmread(tmp_path / "out" / outcome.output).PixelData, ">u2" if big else "<u2")
    np.testing.assert_array_equal(copy.reshape(words.shape), plain)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("stray", [0, 0x8000])
def test_a_name_in_unused_bits_of_compressed_pixels_is_refused(syntax: uid.UID, stray: int, tmp_path: Path) -> None:
    (path,) = write_series(position_phantom(shape=(40, 36, 2)), tmp_path / "in", SeriesHeader())[:1]
    data = dcmread(path)
    words = np.random.default_rng(3).integers(0, 4096, (data.Rows, data.Columns)).astype("<u2")
    words[2:5] |= stray
    data.PixelData, data.PixelRepresentation, data.BitsStored, data.HighBit = words.tobytes(), 0, 16, 15
    data.compress(syntax, generate_instance_uid=False)
    data.BitsStored, data.HighBit = 12, 11
    data.save_as(path, enforce_file_format=True)
    (outcome,) = (
        item
        for item in deidentify_tree(tmp_path / "in", tmp_path / "out", Options()).outcomes
        if item.source.path == path
    )
    assert (outcome.verdict, outcome.code) == (("quarantined", "E_BURNED_IN") if stray else ("copied", ""))


def test_pipes_and_sockets_are_no_files(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe.dcm")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "s"))
        found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), found.count("failed"), found.count("not DICOM")) == (12, 0, 2)


def test_copies_that_were_deleted_are_made_again(tree: Path, tmp_path: Path) -> None:
    """With other options, too: the private table beside the key is no copy."""
    deidentify_tree(tree, tmp_path / "out", Options())
    shutil.rmtree(tmp_path / "out")
    found = deidentify_tree(tree, tmp_path / "out", Options(shift_dates=True))
    assert (found.count("copied"), found.reused) == (12, 0)
    for path in (tmp_path / "out").glob("deidentified.*"):
        path.unlink()
    with pytest.raises(UsageError, match="E_OPTION"):
        deidentify_tree(tree, tmp_path / "out", Options())


def test_a_radiograph_that_says_it_is_clean_is_copied(tmp_path: Path) -> None:
    path = write(tmp_path / "in")[0]
    changed(path, SOPClassUID=uid.ComputedRadiographyImageStorage, BurnedInAnnotation="NO")
    found = deidentify_tree(tmp_path / "in", tmp_path / "out", Options())
    assert found.count("copied") == 4
    assert sum(data.get("BurnedInAnnotation") == "NO" for data in copies(tmp_path / "out")) == 1


def test_reports_are_copied_without_their_texts_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "in")[0]
    text, number = Dataset(), Dataset()
    text.ValueType, text.TextValue = "TEXT", "Doe has a fracture"
    number.ValueType, number.MeasuredValueSequence = "NUM", [Dataset()]
    number.MeasuredValueSequence[0].NumericValue = "12.5"
    changed(path, SOPClassUID=uid.BasicTextSRStorage, ContentSequence=[text, number], Modality="SR")
    deidentify_tree(tmp_path / "in", tmp_path / "out", Options(clean_structured_content=True))
    (report,) = [data for data in copies(tmp_path / "out") if data.Modality == "SR"]
    assert report.ContentSequence[0].TextValue == "REMOVED"
    assert report.ContentSequence[1].MeasuredValueSequence[0].NumericValue == 12.5


def test_broken_files_are_reported_and_the_rest_is_done(tree: Path, tmp_path: Path) -> None:
    paths = sorted((tree / "Jane" / "ct").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:-30])
    paths[1].write_bytes(paths[1].read_bytes()[:400])
    changed(paths[2], SOPInstanceUID="")
    (tree / "note.txt").write_text("Doe")
    (tree / "empty.dcm").write_bytes(b"")
    (tree / "gone.dcm").symlink_to(tree / "nowhere")
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), found.count("failed"), found.count("not DICOM")) == (9, 5, 1)
    assert found.codes()["E_PIXEL_LENGTH"] == 1 and found.codes()["E_UNREADABLE"] == 1
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".tmp")]


def test_every_entry_has_a_verdict_and_a_damaged_slice_is_not_something_else(tree: Path, tmp_path: Path) -> None:
    """A slice of which zeros are left; a folder in Latin-1; a loop, a pipe, a companion of macOS, a linked folder."""
    zeroed, *_ = sorted((tree / "Jane" / "ct").iterdir())
    zeroed.write_bytes(bytes(3000))
    (tree / "John" / "mr").rename(tree / "John" / os.fsdecode(b"M\xfcller"))
    (tree / "loop").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    (tree / "Jane" / "ct" / f"._{zeroed.name}").write_bytes(b"\0\x05\x16\x07" + bytes(200))
    write(tmp_path / "store", patient_id="P9")
    (tree / "linked").symlink_to(tmp_path / "store")
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), found.count("failed"), found.count("not DICOM")) == (15, 1, 3)
    (lost,) = [row for row in found.outcomes if row.verdict == "failed"]
    assert (lost.source.path, lost.code) == (zeroed, "E_HEADER")
    again = deidentify_tree(tree, tmp_path / "out", Options())
    assert again.reused == 15 and len(table(tmp_path / "out")) == 16


def test_copies_of_withdrawn_files_are_counted(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deidentify_tree(tree, tmp_path / "out", Options())
    shutil.rmtree(tree / "Jane")
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), found.gone) == (8, 4)
    show(found, tmp_path / "out")
    assert "4 copies of an earlier run stay whose files are no longer in the input" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("options", [Options(), Options(shift_dates=True, retain_patient_characteristics=True)])
def test_no_copy_breaks_a_rule_that_its_source_kept(
    tree: Path, tmp_path: Path, tandem_home: Path, options: Options
) -> None:
    deidentify_tree(tree, tmp_path / "out", options)
    rows = {row["series_uid"]: row for row in private_rows(tandem_home)}
    assert len(rows) == 3
    for row in rows.values():
        assert errors(tmp_path / "out" / row["file"]) <= errors(Path(row["source"]))


def errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")}


def test_headers_of_noise_never_stop_the_run(tmp_path: Path) -> None:
    """Bytes flipped at random in a header: every file gets a verdict, and no name stays in a copy."""
    chance = random.Random(7)
    path = write(tmp_path / "clean", patient_name="CANARYBIRD^X", patient_id="CANARYBIRD")[0]
    whole = path.read_bytes()
    (tmp_path / "in").mkdir()
    for number in range(60):
        data = bytearray(whole)
        for _ in range(8):
            data[chance.randrange(132, 1200)] = chance.randrange(256)
        (tmp_path / "in" / f"{number}").write_bytes(data)
    found = deidentify_tree(tmp_path / "in", tmp_path / "out", Options(), overwrite=True)
    assert len(found.outcomes) == 60
    assert not any(b"CANARYBIRD" in copy.read_bytes() for copy in (tmp_path / "out").rglob("*") if copy.is_file())
