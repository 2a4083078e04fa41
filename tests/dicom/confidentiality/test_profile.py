"""Every row of the standard's table, every value representation and every option, on one data set each."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import Dataset, config, dcmread, dcmwrite
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.dicom.confidentiality.cleaner import Cleaner, Subject
from pipeline.dicom.confidentiality.codes import known
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.profile import Action, action_for

PLANTED: dict[str, object] = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UC", "UT", "PN", "AE"), "CANARY BIRD"),
    **dict.fromkeys(("OB", "OW", "UN", "OB or OW"), b"CANARY BIRD!"),
    "UR": "https://canary.bird/x",
    "CS": "CANARY",
    "DA": "19710314",
    "TM": "071317.123",
    "DT": "19710314071317",
    "AS": "093Y",
    "DS": "71.314",
    "IS": "71314",
    "UI": "1.2.3.71314",
    "FD": 71.314,
    "US": 7131,
    "US or SS": 7131,
}


def subject(**changes: object) -> Subject:
    return replace(Subject("patient-1", 100, lambda uid: f"2.25.{sum(map(ord, uid))}"), **changes)


def cleaned(
    dataset: Dataset, options: Options | None = None, syntax: str = ExplicitVRLittleEndian, **changes: object
) -> Dataset:
    """Write, read, clean, write and read a data set: what a file on disk would go through."""
    implicit = syntax == ImplicitVRLittleEndian
    with config.disable_value_validation():
        read = through_bytes(dataset, implicit)
        Cleaner(options or Options(), subject(**changes)).clean(read)
        return through_bytes(read, implicit)


def through_bytes(dataset: Dataset, implicit: bool) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2"
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def planted(tag: int) -> Dataset:
    dataset = Dataset()
    vr = dictionary_VR(tag)
    with config.disable_value_validation():
        if vr == "SQ":
            item = Dataset()
            item.PatientComments = "CANARY BIRD"
            item.TextValue = "CANARY BIRD"
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "CANARY", "99BIRD", "CANARY BIRD"
            item.ReferencedSOPInstanceUID = "1.2.3.71314"
            dataset.add(DataElement(tag, vr, Sequence([item])))
        else:
            dataset.add(DataElement(tag, vr.split(" or ")[0], PLANTED[vr]))
    return dataset


ROWS = sorted((row[0] << 16) | row[1] for row in table.ALL_TAGS if len(row) == 2 and row[0] >= 0x0008)
KNOWN_ROWS = [tag for tag in ROWS if tag in DicomDictionary]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_is_planted_in_a_row_of_the_table_is_gone(syntax: str) -> None:
    assert len(KNOWN_ROWS) > 600
    for tag in KNOWN_ROWS:
        data = planted(tag)
        before = through_bytes(data, syntax == ImplicitVRLittleEndian)
        result = cleaned(data, syntax=syntax)
        text = str(result).upper()
        assert any(secret in str(before).upper() for secret in ("CANARY", "71", "093Y")), keyword_for_tag(tag)
        for secret in ("CANARY", "BIRD", "71314", "710314", "071317", "71.314", "7131", "093Y"):
            assert secret not in text, keyword_for_tag(tag)


def test_removed_emptied_replaced_as_the_table_says() -> None:
    for rows, expected in ((table.X_TAGS, "gone"), (table.Z_TAGS, "empty"), (table.D_TAGS, "filled")):
        for row in rows:
            tag = (row[0] << 16) | row[1]
            if tag not in KNOWN_ROWS or dictionary_VR(tag) in ("SQ", "UI"):
                continue
            result = cleaned(planted(tag))
            found = "gone" if tag not in result else "filled" if result[tag].value else "empty"
            assert found == expected, keyword_for_tag(tag)


def test_an_attribute_that_nothing_knows_is_removed() -> None:
    """Every text, date and byte attribute of the dictionary that no table and no rule names is gone."""
    rows = set(ROWS)
    others = [
        tag for tag, entry in DicomDictionary.items() if tag not in rows and tag >= 0x00080000 and entry[0] in PLANTED
    ]
    kept = set()
    for tag in others:
        vr = dictionary_VR(tag)
        result = cleaned(planted(tag))
        text = str(result).upper()
        if vr in ("DS", "IS", "FD", "US", "US or SS") or (vr == "CS" and "CANARY" in text):
            kept.add(vr)
        elif vr in ("OB", "OW", "OB or OW"):
            assert action_for(tag, Options()) is Action.KEEP or tag not in result, keyword_for_tag(tag)
        else:
            assert not any(secret in text for secret in ("CANARY", "BIRD", "71314", "710314")), keyword_for_tag(tag)
    assert kept == {"DS", "IS", "FD", "US", "US or SS", "CS"}


def test_curves_overlays_group_lengths_and_unknown_tags_are_removed() -> None:
    data = Dataset()
    data.add_new(0x50020010, "US", 1)
    data.add_new(0x60000010, "US", 4)
    data.add_new(0x60001500, "LO", "CANARY")
    data.add_new(0x601E3000, "OW", b"CANARY!!")
    data.add_new(0x00080000, "UL", 10)
    data.add_new(0x0018FFF0, "LO", "CANARY")
    data.add_new(0xFFFCFFFC, "OB", b"CANARY")
    data.Rows = 4
    assert [element.keyword for element in cleaned(data)] == ["Rows"]


def test_text_in_the_place_of_a_number_or_code_is_removed() -> None:
    data = Dataset()
    for keyword, vr, value in (
        ("SliceThickness", "DS", b"Doe 3.0 "),
        ("InstanceNumber", "IS", b"12 Doe"),
        ("EchoTime", "LO", b"Doe "),  # stated as text, a number in the dictionary
        ("PatientPosition", "CS", b"Doe, John "),
        ("RepetitionTime", "DS", b"500\\1e3 "),
        ("MRAcquisitionType", "CS", b"2D"),
    ):
        tag = Tag(tag_for_keyword(keyword))
        data[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    assert {element.keyword for element in cleaned(data)} == {"RepetitionTime", "MRAcquisitionType"}


def test_bytes_that_stand_for_numbers_are_removed() -> None:
    data = Dataset()
    tag = Tag(tag_for_keyword("AcquisitionMatrix"))
    data[tag] = RawDataElement(tag, "UN", 4, b"Doe!", 0, False, True)
    Cleaner(Options(), subject()).clean(data)
    assert tag not in data


def test_a_code_string_may_not_hold_the_patients_name() -> None:
    data = Dataset()
    data.Modality, data.ScanOptions = "MR", ["FS", "SMITH_1"]
    data.ViewPosition = "AP"
    result = cleaned(data, banned=frozenset(("SMITH", "MR")))
    assert "ScanOptions" not in result and result.ViewPosition == "AP" and result.Modality == "MR"


def test_public_codes_get_their_public_meaning_and_others_go() -> None:
    public, srt, own = Dataset(), Dataset(), Dataset()
    public.CodeValue, public.CodingSchemeDesignator, public.CodeMeaning = "12738006", "SCT", "CANARY"
    srt.CodeValue, srt.CodingSchemeDesignator, srt.CodeMeaning = "T-A0100", "SRT", "CANARY"
    own.CodeValue, own.CodingSchemeDesignator, own.CodeMeaning = "CANARY", "99HOSP", "CANARY"
    data = Dataset()
    data.AnatomicRegionSequence = [public, srt, own]
    found = [(i.CodeValue, i.CodingSchemeDesignator, i.CodeMeaning) for i in cleaned(data).AnatomicRegionSequence]
    assert found[0][:2] == ("12738006", "SCT") and found[0][2].lower().startswith("brain")
    assert found[1][:2] == ("T-A0100", "SRT") and "CANARY" not in found[1]
    assert found[2] == ("REMOVED", "99TANDEM", "Removed")


@pytest.mark.parametrize("unit", ["mm", "g/ml{SUVbw}", "{SUVbw}g/ml", "Bq/ml", "[hnsf'U]", "um2/s", "1", "10*-6.mm2/s"])
def test_units_stay(unit: str) -> None:
    code = known(unit, "UCUM")
    assert code is not None and code.value == unit


@pytest.mark.parametrize("text", ["{CANARY}", "Doe", "SMITH", "19710314", ""])
def test_what_is_no_unit_goes(text: str) -> None:
    assert known(text, "UCUM") is None


def of(keyword: str, value: object) -> Dataset:
    data = Dataset()
    setattr(data, keyword, value)
    return data


@pytest.mark.parametrize(
    ("option", "keyword", "value", "kept"),
    [
        ("retain_dates", "StudyDate", "20240229", "20240229"),
        ("retain_dates", "SeriesTime", "101500.5", "101500.5"),
        ("retain_dates", "AcquisitionDateTime", "20240229101500+0100", "20240229101500+0100"),
        ("retain_dates", "StudyDate", "Doe 2024", None),
        ("retain_dates", "PatientBirthDate", "19710314", None),
        ("shift_dates", "StudyDate", "20240229", "20231121"),
        ("shift_dates", "StudyDate", "2024.02.29", "20231121"),
        ("shift_dates", "AcquisitionDateTime", "20240229101500.25", "20231121101500.25"),
        ("shift_dates", "SeriesTime", "101500", "101500"),
        ("shift_dates", "StudyDate", "20240230", None),
        ("shift_dates", "PatientBirthDate", "19710314", None),
        ("retain_device", "DeviceSerialNumber", "SN 1", "SN 1"),
        ("retain_institution", "InstitutionName", "General", "General"),
        ("retain_patient_characteristics", "PatientSex", "F", "F"),
        ("retain_patient_characteristics", "PatientAge", "063Y", "063Y"),
        ("retain_patient_characteristics", "PatientAge", "090Y", "090Y"),
        ("retain_patient_characteristics", "PatientAge", "101Y", "090Y"),
        ("retain_patient_characteristics", "PatientAge", "101M", "101M"),
        ("retain_patient_characteristics", "PatientWeight", "70.5", 70.5),
        ("retain_uids", "StudyInstanceUID", "1.2.3", "1.2.3"),
        ("clean_descriptors", "SeriesDescription", "Ax T1 +C John Doe 3.0mm", "AX T1 +C 3.0MM"),
        ("clean_descriptors", "SeriesDescription", "John 14.03.1971", None),
        ("clean_descriptors", "ROIName", "GTV Doe", "GTV"),
        ("clean_descriptors", "StructureSetLabel", "Doe", "UNKNOWN"),
    ],
)
def test_an_option_keeps_what_it_names_and_nothing_else_does(
    option: str, keyword: str, value: str, kept: object
) -> None:
    found = cleaned(of(keyword, value), Options(**{option: True})).get(keyword) or None
    assert found == kept
    assert cleaned(of(keyword, value)).get(keyword) != value


def test_the_basic_profile_shows_no_date_of_the_patient() -> None:
    data = Dataset()
    data.StudyDate, data.SeriesDate, data.SeriesTime, data.AcquisitionDate = (
        "20240229",
        "20240229",
        "101500",
        "20240229",
    )
    result = cleaned(data)
    assert (result.StudyDate, result.AcquisitionDate) == ("", "")
    assert (result.SeriesDate, result.SeriesTime) == ("19000101", "000000")  # type 1 in PET: may not be empty


def test_safe_private_attributes_need_creator_representation_and_option() -> None:
    data = Dataset()
    block = data.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.000412")
    block.add_new(0x03, "LO", "CANARY")
    false = data.private_block(0x7053, "CANARY", create=True)
    false.add_new(0x00, "DS", "0.5")
    with config.disable_value_validation():
        data.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x27, "SH", "CANARY:1")
        data.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "LO", "1000")
    item = Dataset()
    item.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", 1000.0)
    data.ReferencedImageSequence = [item]
    kept = cleaned(data, Options(retain_safe_private=True))
    assert [(e.tag, e.value) for e in kept if e.tag.is_private] == [
        (0x70530010, "Philips PET Private Group"),
        (0x70531000, 0.000412),
    ]
    assert kept.ReferencedImageSequence[0].get_private_item(0x2001, 0x03, "Philips Imaging DD 001").value == 1000.0
    basic = cleaned(data)
    assert not any(element.tag.is_private for element in basic.iterall())


def test_what_was_done_is_written_in_codes_of_the_standard() -> None:
    data = Dataset()
    earlier = Dataset()
    earlier.CodeValue, earlier.CodingSchemeDesignator, earlier.CodeMeaning = "113101", "DCM", "Clean Pixel Data Option"
    data.DeidentificationMethodCodeSequence = [earlier]
    options = Options(shift_dates=True, retain_device=True, retain_patient_characteristics=True)
    Cleaner(options, subject()).mark(data)
    codes = [item.CodeValue for item in data.DeidentificationMethodCodeSequence]
    assert codes == ["113101", "113100", "113107", "113108", "113109"]  # CID 7050
    assert data.PatientIdentityRemoved == "YES" and data.LongitudinalTemporalInformationModified == "MODIFIED"
    assert data.PatientName == data.PatientID == "patient-1"
    assert all(len(value) <= 64 for value in data.DeidentificationMethod)


def test_the_codes_of_all_options() -> None:
    names = {
        "retain_uids": "113110",
        "retain_dates": "113106",
        "shift_dates": "113107",
        "retain_device": "113109",
        "retain_institution": "113112",
        "retain_patient_characteristics": "113108",
        "retain_safe_private": "113111",
        "clean_descriptors": "113105",
        "clean_structured_content": "113104",
    }
    for name, code in names.items():
        assert [item.value for item in Options(**{name: True}).codes()] == ["113100", code]


def test_public_uids_stay() -> None:
    data = Dataset()
    data.SOPClassUID, data.FrameOfReferenceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    result = cleaned(data)
    assert result.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert result.FrameOfReferenceUID == subject().uid("1.2.3.4")
    assert tag_for_keyword("FrameOfReferenceUID") in result
