"""Words, verdicts, tables, and what stages say: only that, and all of it."""

import datetime
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.cases import Fault, Record, Verdict
from pipeline.errors import CaseError
from pipeline.report.content import case_content
from pipeline.report.tables import volumes
from pipeline.report.verdict import case_verdict
from pipeline.store import records as store
from pipeline.store.files import sha256_file
from pipeline.store.sections import SECTIONS
from pipeline.words import clean, in_words, measure_text, number_text


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """What is said is looked at here, not how pictures look."""
    for name in ("draw_columns", "thumbnail"):
        monkeypatch.setattr(f"pipeline.report.pictures.{name}", lambda *_: b"")
    monkeypatch.setattr("pipeline.report.pictures.scrollable", lambda *_: ())


FOUND = "What was found"
TODAY = datetime.date(2026, 11, 28)


@pytest.mark.parametrize(
    ("key", "value", "name", "text"),
    [
        ("mr_start_disagreement_mm", 0.41234, "MR start disagreement", "0.4123 mm"),
        ("rotation_deg", 9.0, "Rotation", "9°"),
        ("ct_body_volume_ml", 2211.34, "CT body volume", "2211 mL"),
        ("seconds", 3.21, "Time", "3.21 s"),
        ("ct_median_hu", -41.0, "CT median", "-41 HU"),
        ("mr_nmi_after", 1.14321, "MR NMI after", "1.143"),
        ("mr_nmi_after", None, "MR NMI after", "not available"),
        ("shift_mm", math.nan, "Shift", "not available"),
        ("shift_mm", np.float32(2.5), "Shift", "2.5 mm"),
        ("shift_mm", 0, "Shift", "0 mm"),
        ("shift_mm", 8e-14, "Shift", "0 mm"),
        ("shift_mm", -9.9e-7, "Shift", "0 mm"),
        ("shift_mm", np.float32(3e-9), "Shift", "0 mm"),
        ("shift_mm", 1.1e-6, "Shift", "1.100e-06 mm"),
        ("p_value", 8e-14, "P value", "8.000e-14"),
        ("slices", 1200, "Slices", "1200"),
        ("bias_corrected", False, "Bias corrected", "no"),
        ("counts", {"done": 2, "size_mb": 1.5}, "Counts", "Done 2, Size 1.5 MB"),
    ],
)
def test_measures_in_words(key, value, name, text):
    assert in_words(key) == name
    assert measure_text(key, value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(123456.7, "123457"), (0.000123, "0.000123"), (1e-7, "1.000e-07"), (-0.05, "-0.05"), (100.0, "100"), (0.0, "0")],
)
def test_numbers(value, text):
    assert number_text(value) == text


def test_control_characters_do_not_reach_the_reader():
    assert clean("a\u202eb\x00c\nd") == "a b c d"


def done(grade=None, *reasons):
    return Record("CASE-1", "align", "", "done", verdict=Verdict(grade, reasons) if grade else None)


FAILED = Record("CASE-1", "measure", "", "failed", error=Fault("E_REGISTER", "No overlap.", "Check both images."))


@pytest.mark.parametrize(
    ("records", "word", "reasons"),
    [
        ([done()], "done", ("All stages finished.",)),
        ([done("pass", "Starts agree.")], "done", ("All stages finished.", "Starts agree.")),
        ([done("warn", "1.8 mm"), done("pass", "well")], "warning", ("1.8 mm", "well")),
        ([done("warn", "1.8 mm"), done("fail", "far")], "failed", ("far", "1.8 mm")),
        ([done("pass", "well"), FAILED], "failed", ("No overlap.",)),
        ([done("fail", "far"), FAILED], "failed", ("No overlap.", "far")),
        ([], "failed", ("No stage has left a record for this case: its work was broken off, or never begun.",)),
    ],
)
def test_verdict(records, word, reasons):
    verdict = case_verdict(records)
    assert (verdict.word, verdict.reasons) == (word, reasons)


def test_what_has_failed_says_what_becomes_of_it():
    assert case_verdict([done("fail", "far")]).remedy.endswith("run again.")
    assert case_verdict([done("fail", "far")]).headline == "Failed verdict: not fit for use"
    assert (
        case_verdict([]).headline == "Failed" and case_verdict([done("warn", "x")]).headline == "Done, with a warning"
    )
    unfit = replace(done(), verdict=Verdict("fail", ("far",), ("mr_aligned",)))
    assert case_verdict([unfit]).remedy.endswith("run again. Later stages go on without it.")
    assert case_verdict([done("warn", "1.8 mm")]).remedy.startswith("Look at its pictures")
    assert case_verdict([done("pass", "well")]).remedy == ""


def test_a_stage_that_stopped_gives_code_remedy_and_its_name():
    verdict = case_verdict([done(), FAILED])
    assert (verdict.code, verdict.remedy, verdict.headline) == (
        "E_REGISTER",
        "Check both images.",
        "Failed in the measure stage",
    )


def parts_of(records, folder):
    return {part.title: part for part in case_content("CASE-1", records, folder, TODAY).parts}


def tables_of(records, folder):
    return {table.title: table.rows for table in parts_of(records, folder)["Provenance"].tables}


def test_the_first_page_has_verdict_answers_date_and_the_highest_picture(records, tmp_path):
    records[1] = replace(records[1], verdict=Verdict("warn", ("1.8 mm apart.",)))
    content = case_content("CASE-1", records, tmp_path, TODAY)
    assert (content.verdict.word, content.date) == ("warning", "2026-11-28")
    assert content.stages == (
        ("ingest", "done", "done"),
        ("register", "warning", "warning"),
        ("toybox", "done", "done"),
    )
    assert [(item.label, item.value, item.note) for item in content.answers] == [("Tumour", "1.3 mL", "CT 900 HU")]
    assert content.first.key == "mr_after"
    twice = [replace(item, answers={"Tumour": "1.3 mL"} if item.stage != "register" else {}) for item in records]
    assert [item.label for item in case_content("CASE-1", twice, tmp_path, TODAY).answers] == ["Tumour (ingest)"]


def test_sections_come_in_the_order_of_the_stages_before_what_every_case_has(records, tmp_path):
    titles = ["MR aligned to CT", "What the toy found"]
    fixed = ["Provenance", "Notes from the stages", "All measures"]
    assert list(parts_of(records, tmp_path)) == titles + fixed
    assert list(parts_of([records[0], records[2], records[1]], tmp_path)) == titles[::-1] + fixed


def test_a_picture_without_its_images_is_named_and_left_out(records, tmp_path):
    toy = parts_of(records, tmp_path)["What the toy found"]
    assert [picture.key for group in toy.groups for picture in group] == ["toy_map"]
    assert toy.sentences == ("Three bricks.", "There is no picture “A picture of nothing”: its images are not there.")
    records[2] = replace(records[2], artifacts=tuple(item for item in records[2].artifacts if item.key != "heat"))
    assert parts_of(records, tmp_path)["What the toy found"].groups == ()


def test_pictures_before_and_after_are_one_group(records, tmp_path):
    (group,) = parts_of(records, tmp_path)["MR aligned to CT"].groups
    assert [picture.key for picture in group] == ["mr_before", "mr_after"]


def test_a_stage_that_failed_says_nothing(records, tmp_path):
    records[1] = replace(records[1], status="failed", error=Fault("E_X", "no", ""))
    assert "MR aligned to CT" not in parts_of(records, tmp_path)


@pytest.mark.parametrize("key", ["ct", SECTIONS])
def test_a_file_that_was_changed_is_refused(records, tmp_path, key):
    item = next(item for item in records[0].artifacts if item.key == key)
    path = tmp_path / item.path
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CaseError, match="E_CHANGED"):
        case_content("CASE-1", records, tmp_path, TODAY)


def test_volumes_and_notes(records, tmp_path):
    records[1] = replace(records[1], verdict=Verdict("fail", ("far",), ("mr_aligned",)))
    rows = {row[0]: row[1:] for row in tables_of(records, tmp_path)["Volumes"]}
    # Rotations by 4°, -6°, 8° about x, y, z: the tilt of an axis is the arc cosine of its own direction's component.
    axes = Rotation.from_euler("xyz", (4, -6, 8), degrees=True).as_matrix()
    tilt = f"RAS, tilted {np.degrees(np.arccos(np.diag(axes))).max():.0f}°"
    assert rows["CT"] == ("40 × 44 × 30", "2.00 × 1.50 × 3.00", tilt, "80 × 66 × 90", "note 1")
    assert rows["MR"][-1] == "–"
    assert rows["MR aligned"][-1] == "not fit for use"
    assert parts_of(records, tmp_path)["Notes from the stages"].sentences == ("1. N_PREAMBLE: ct had none.",)


def test_of_a_picture_that_lies_nowhere_in_a_patient_nothing_is_told_in_mm(records):
    found = {row[0]: row[1:] for row in volumes(records, {"ct": "CT seen"}, (), {"ct"}).rows}
    assert found["CT seen"] == ("40 × 44 × 30", "–", "–", "–", "–")
    assert found["MR"][1].count("×") == 2


def test_all_measures_but_the_time(records, tmp_path):
    (table,) = parts_of(records, tmp_path)["All measures"].tables
    assert table.rows == (
        ("ingest", "Files read", "83"),
        ("register", "MR inverse error", "0 mm"),
        ("register", "Counts done", "2"),
    )


def test_provenance(records, tmp_path):
    judged = replace(records[2], verdict=Verdict("fail", ("far",)))
    assert tables_of([*records[:2], judged], tmp_path)["Stages"][2][1] == "done, verdict failed"
    tables = tables_of(records, tmp_path)
    assert tables["Stages"][1] == ("register", "done", "14.87 s", records[1].key[:12], "–")
    digest = next(item.sha256 for item in records[1].artifacts if item.key == "mr_aligned")
    assert ("register", "mr_aligned", "image", digest[:12]) in tables["Outputs"]
    assert tables["Software"] == (("itk-elastix", "0.25.4"),)
    assert tables["Stages"][2][2] == "not available"


def test_quarantined(quarantined, tmp_path):
    content = case_content("CASE-2", quarantined, tmp_path, TODAY)
    assert (content.verdict.word, content.verdict.code, content.verdict.stage) == ("quarantined", "E_GAP", "ingest")
    assert content.verdict.remedy == "Export the missing slices again."
    assert content.first is None and content.pictures == ()
    assert content.parts[0].title == "Provenance"  # no table of what was found


@pytest.mark.parametrize("text", ["series;case_id;modality\n1;CASE-2;CT\n", "a,b\n", "", "\0"])
def test_a_table_that_is_not_ingest_s_says_nothing_of_a_case(quarantined, tmp_path, text):
    """A person may have opened it in a spreadsheet, and saved it."""
    assert found_of(quarantined, tmp_path) == []
    (tmp_path / "series.csv").write_text(text)
    assert found_of(quarantined, tmp_path) == []
    (tmp_path / "series.csv").write_bytes(b"\xef\xbb\xbf" + DICOM_TABLE.encode())
    assert len(rows_of(quarantined, tmp_path)) == 3


DICOM_TABLE = """\
series,part,case_id,modality,instances,rows,columns,pixel_spacing_mm,slice_step_mm,role,verdict,code,reason
series-1,,CASE-2,CT,64,85,80,3 x 3,,,set aside,E_GAP,1 of 65 slices are missing.
series-2,b 50,CASE-2,MR,57,76,83,3 x 3.3,3.6,mr,chosen,,
series-3,,CASE-1,MR,1,52,50,5 x 5,,,not chosen,,mr: too few
series-4,,CASE-1,RTSTRUCT,1,0,0,,,tumour_ct,chosen,,
series-5,,CASE-2,RTSTRUCT,1,0,0,,,,not an image,E_NOT_IMAGE,ct: modality RTSTRUCT instead of CT
"""
FILES_TABLE = """\
series,case_id,modality,voxels,voxel_size_mm,role,verdict,code,reason,notes
file-1,CASE-2,MR,12 x 13 x 14,2 x 2 x 3,mr,set aside,E_NIFTI,It is cut short.,
file-2,CASE-2,,,,,not chosen,,its path fits no `files` of the spec,
"""


def found_of(records, folder):
    case_id = records[0].case_id
    found = store.series_of(folder, case_id) or ()
    return [p for p in case_content(case_id, records, folder, TODAY, {}, found).parts if p.title == FOUND]


def rows_of(records, folder):
    (part,) = found_of(records, folder)
    return part.tables[0].rows


def test_a_case_that_stopped_at_once_says_what_there_was(records, quarantined, tmp_path):
    (tmp_path / "series.csv").write_text(DICOM_TABLE)
    found = store.series_of(tmp_path, "CASE-2")
    assert case_content("CASE-2", quarantined, tmp_path, TODAY, {}, found).parts[0].title == FOUND
    assert rows_of(quarantined, tmp_path) == (
        ("series-2, b 50", "MR", "83 × 76 × 57", "3 × 3.3 × 3.6", "mr", "–"),
        ("series-1", "CT", "80 × 85 × 64", "3 × 3", "set aside E_GAP", "1 of 65 slices are missing."),
        ("series-5", "RTSTRUCT", "–", "–", "not an image", "–"),
    )
    assert rows_of(records, tmp_path) == (
        ("series-4", "RTSTRUCT", "–", "–", "tumour_ct"),
        ("series-3", "MR", "50 × 52 × 1", "5 × 5", "not chosen"),
    )
    (tmp_path / "series.csv").write_text(FILES_TABLE)  # another ingest, whose table is read anew
    assert rows_of(quarantined, tmp_path) == (
        ("file-1", "MR", "12 × 13 × 14", "2 × 2 × 3", "set aside E_NIFTI", "It is cut short."),
        ("file-2", "–", "–", "–", "not chosen", "its path fits no `files` of the spec"),
    )


def test_sections_on_the_disk_that_are_none_are_a_defect(records, tmp_path):
    item = next(item for item in records[2].artifacts if item.key == SECTIONS)
    path = tmp_path / item.path
    path.write_text(json.dumps({"sections": 3}))
    others = [other for other in records[2].artifacts if other is not item]
    records[2] = replace(records[2], artifacts=(*others, replace(item, sha256=sha256_file(path))))
    with pytest.raises(CaseError, match="E_INTERNAL"):
        case_content("CASE-1", records, tmp_path, TODAY)
