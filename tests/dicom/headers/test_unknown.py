"""Sequences of any length that an archive has stored as UN are read, and de-identified, as what they are."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.dicom.confidentiality.file import Outcome
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import deidentify_tree
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.objects.objects import read_object
from pipeline.simulation.dicom import SeriesHeader
from tests.dicom.confidentiality.deidentified import copies, write
from tests.phantoms.enhanced import write_enhanced
from tests.phantoms.phantom import position_phantom
from tests.phantoms.unknown import write_unknown

NAME = "CANARY^BIRD"
SHORT, LONG = 300, 70_000


def enhanced(folder: Path, length: int) -> Path:
    """An enhanced MR of six frames; a text in its shared and per-frame groups makes them as long as wanted."""
    path = write_enhanced(
        [position_phantom(shape=(12, 10, 6)) + 1000], folder / "x.dcm", SeriesHeader(modality="MR", patient_name=NAME)
    )
    data = pydicom.dcmread(path)
    for groups in (data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence[0]):
        groups.TextValue = f"{NAME} " * (length // 12)
        next(iter(groups))[0].TextValue = groups.TextValue
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("length", [SHORT, LONG])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(("undefined", "little"), [(False, True), (True, True), (False, False)])
def test_frames_are_where_they_were(tmp_path: Path, length: int, depth: int, undefined: bool, little: bool) -> None:
    path = enhanced(tmp_path, length)
    truth = [item.PlanePositionSequence[0].ImagePositionPatient for item in groups_of(pydicom.dcmread(path))]
    assert write_unknown(path, depth, undefined, little) > length - 12
    instances = read_header(path).instances
    assert [instance.fault for instance in instances] == [None] * 6
    np.testing.assert_array_equal([instance.position for instance in instances], np.array(truth, float))
    whole = read_object(path)
    assert len(whole.PerFrameFunctionalGroupsSequence) == 6


def groups_of(data: pydicom.Dataset) -> pydicom.Sequence:
    return data.PerFrameFunctionalGroupsSequence


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("undefined", [False, True])
def test_a_copy_has_the_frames_places_and_not_the_name(tmp_path: Path, depth: int, undefined: bool) -> None:
    (tmp_path / "in").mkdir()
    path = enhanced(tmp_path / "in", LONG)
    source = pydicom.dcmread(path)
    write_unknown(path, depth, undefined)
    found = deidentify_tree(tmp_path / "in", tmp_path / "out", Options())
    assert [row.verdict for row in found.outcomes] == ["copied"]
    (copy,) = copies(tmp_path / "out")
    for mine, theirs in zip(groups_of(copy), groups_of(source), strict=True):
        assert mine.PlanePositionSequence == theirs.PlanePositionSequence
    shared = [data.SharedFunctionalGroupsSequence[0] for data in (copy, source)]
    assert shared[0].PixelMeasuresSequence[0].PixelSpacing == shared[1].PixelMeasuresSequence[0].PixelSpacing
    (written,) = (tmp_path / "out").rglob("*.dcm")
    assert b"CANARY" not in written.read_bytes()


def test_bytes_that_are_no_sequence_are_refused_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = enhanced(tmp_path / "in", LONG)
    write_unknown(path)
    data, tag = path.read_bytes(), struct.pack("<HH2sHL", 0x5200, 0x9230, b"UN", 0, 0)[:8]
    start = data.index(tag) + 12
    path.write_bytes(data[:start] + b"no items" + data[start + 8 :])
    (instance,) = read_header(path).instances
    assert instance.fault is not None and instance.fault.code == "E_HEADER"
    (row,) = deidentify_tree(tmp_path / "in", tmp_path / "out", Options()).outcomes
    assert (row.verdict, row.code) == ("failed", "E_HEADER")


def outcome_with(tmp_path: Path, keyword: str, vr: str, value: bytes) -> Outcome:
    """What becomes of a slice whose header has these bytes, where BitsAllocated is BitsStored."""
    path = write(tmp_path / "in")[0]
    data = pydicom.dcmread(path)
    data.BitsStored, data.HighBit = 16, 15
    tag = pydicom.tag.Tag(keyword)
    data[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
    data.save_as(path, enforce_file_format=True)
    found = {row.source.path: row for row in deidentify_tree(tmp_path / "in", tmp_path / "out", Options()).outcomes}
    return found[path]


def test_a_file_is_left_out_where_its_copy_would_lack_what_places_it(tmp_path: Path) -> None:
    found = outcome_with(tmp_path, "PixelSpacing", "DS", b"0,9\\0,9 ")
    assert (found.verdict, found.code) == ("failed", "E_HEADER")
    assert found.reason == "The value of PixelSpacing is not of its form."


@pytest.mark.parametrize(("keyword", "value"), [("HighBit", 15), ("PixelPaddingValue", 63536)])
def test_what_the_pixels_are_read_by_is_kept_though_its_kind_is_unknown(
    tmp_path: Path, keyword: str, value: int
) -> None:
    found = outcome_with(tmp_path, keyword, "UN", struct.pack("<H", value))
    assert found.verdict == "copied" and pydicom.dcmread(tmp_path / "out" / found.output)[keyword].value == value


def test_bare_files_are_dicom_or_named_as_what_they_are(tmp_path: Path) -> None:
    """Without preamble but with its prefix; with file meta information alone; ACR-NEMA, which has no UIDs."""
    slice_, *others = write(tmp_path / "in")
    for other in others:
        other.unlink()
    prefixed, meta, acr = (slice_.with_name(name) for name in ("prefixed", "meta", "old"))
    data = pydicom.dcmread(slice_)
    for path, number, cut in ((prefixed, 7, 128), (meta, 8, 132)):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        data.save_as(path, enforce_file_format=True)
        path.write_bytes(path.read_bytes()[cut:])
    for path in (prefixed, meta):
        (instance,) = read_header(path).instances
        assert (instance.fault, instance.notes) == (None, ("N_NO_PREAMBLE",))
        assert instance.pixels is not None and instance.rows == 10
        stored = np.frombuffer(path.read_bytes(), "<u2", 120, instance.pixels.offset)
        np.testing.assert_array_equal(stored, data.pixel_array.ravel())
    acr.write_bytes(acr_nema())
    (instance,) = read_header(acr).instances
    assert instance.fault is not None and instance.fault.code == "E_HEADER" and "ACR-NEMA" in instance.fault.message
    rows = {row.source.path.name: row for row in deidentify_tree(tmp_path / "in", tmp_path / "out", Options()).outcomes}
    assert (rows["prefixed"].verdict, rows["meta"].verdict) == ("copied", "copied")
    assert (rows["old"].verdict, rows["old"].code) == ("failed", "E_HEADER")


def acr_nema() -> bytes:
    """A data set of 1988: implicit VR little endian, group lengths, a recognition code, no UID."""
    elements = [
        (0x0008, 0x0000, struct.pack("<L", 40)),
        (0x0008, 0x0010, b"ACR-NEMA 2.0"),
        (0x0008, 0x0060, b"CT"),
        (0x0010, 0x0010, b"CANARY^BIRD "),
        (0x0028, 0x0010, struct.pack("<H", 4)),
        (0x0028, 0x0011, struct.pack("<H", 4)),
        (0x0028, 0x0100, struct.pack("<H", 16)),
        (0x7FE0, 0x0010, bytes(32)),
    ]
    return b"".join(struct.pack("<HHL", group, tag, len(value)) + value for group, tag, value in elements)
