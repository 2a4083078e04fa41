"""Words, verdicts and tables."""

import math

import numpy as np
import pytest

from pipeline.cases import Fault, Record
from pipeline.report.content import case_content
from pipeline.report.verdict import case_verdict
from pipeline.words import clean, in_words, measure_text, number_text


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


QUALITY = {"verdict": "pass", "reason": "Two starts agree."}
DONE = Record("CASE-1", "ingest", "", "done")
FAILED = Record("CASE-1", "register", "", "failed", error=Fault("E_REGISTER", "No overlap.", "Check both images."))


@pytest.mark.parametrize(
    ("records", "qualities", "word", "reason"),
    [
        ([DONE], {}, "done", "All stages finished (ingest), and no images were aligned."),
        (
            [DONE],
            {"mr": QUALITY},
            "done",
            "All stages finished (ingest), and every alignment passed its quality check.",
        ),
        ([DONE], {"mr": {"verdict": "warn", "reason": "1.8 mm"}}, "warning", "Alignment of MR: 1.8 mm"),
        ([DONE], {"mr": {"verdict": "fail", "reason": "far"}}, "failed", "Alignment of MR: far"),
        ([DONE], {"mr": None}, "warning", "The alignment of MR has no quality verdict."),
        ([DONE], {"mr": {"verdict": "good"}}, "warning", "The alignment of MR has no quality verdict."),
        ([DONE, FAILED], {"mr": QUALITY}, "failed", "No overlap."),
        ([], {}, "warning", "No stage has left a record for this case."),
    ],
)
def test_verdict(records, qualities, word, reason):
    verdict = case_verdict(records, qualities)
    assert (verdict.word, verdict.reasons[0]) == (word, reason)


def test_volumes_and_notes(case):
    content = case_content(case)
    rows = {row.name: row for row in content.volumes}
    assert list(rows) == ["CT", "CT windows", "MR", "MR aligned to CT"]
    assert rows["CT"].voxels == "40 × 44 × 30"
    assert rows["CT"].spacing == "2.00 × 1.50 × 3.00"
    assert rows["CT"].field_of_view == "80 × 66 × 90"
    # Rotations by 4°, -6°, 8° about x, y, z: the tilt of an axis is the arc cosine of its own direction's component.
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_euler("xyz", (4, -6, 8), degrees=True).as_matrix()
    assert rows["CT"].orientation == f"RAS, tilted {np.degrees(np.arccos(np.diag(axes))).max():.0f}°"
    assert rows["CT windows"].voxels == "40 × 44 × 30, 2 channels"
    assert rows["CT"].remarks == "note 1"
    assert rows["MR"].remarks == "–"
    assert rows["MR aligned to CT"].remarks == "Pass"
    assert content.notes == ("N_PREAMBLE: ct had none.",)


def test_measures_are_grouped_and_not_repeated(case):
    case["records"][1].measures["mr_rotation_deg"] = 9.03
    content = case_content(case)
    groups = {stage: {item.name: (item.value, item.unit) for item in measures} for stage, measures in content.measures}
    assert groups == {
        "ingest": {"Files read": ("83", "")},
        "preprocess": {
            "CT windows channels": ("soft_tissue, bone", ""),
            "CT body volume": ("2211", "mL"),
            "CT median": ("-41", "HU"),
            "MR bias CV": ("not available", ""),
        },
    }
    assert [item.text for item in content.qualities[0].measures] == ["0.4123 mm", "9.03°"]


def test_quality_from_a_record(case):
    case["records"][1].measures["mr_quality"] = case.pop("mr_quality") | {"verdict": "fail"}
    content = case_content(case)
    assert content.verdict.word == "failed"
    assert content.qualities[0].label == "Fail"


def test_without_images_the_records_tell_the_geometry(case):
    kept = {key: case[key] for key in ("case_id", "records", "mr_quality")}
    content = case_content(kept)
    assert [(row.name, row.voxels) for row in content.volumes] == [("MR aligned to CT", "40 × 44 × 30")]
    assert content.gaps == ("There are no alignment pictures: this case has no CT image.",)
    assert content.pictures == ()


def test_an_image_that_was_not_aligned_is_named(case):
    del case["mr_aligned"]
    assert case_content(case).gaps == ("There is no picture of MR after alignment: it was not aligned.",)


def test_provenance(case):
    content = case_content(case)
    register = content.stages[1]
    assert (register.stage, register.status, register.seconds) == ("register", "done", "14.87 s")
    assert register.key == case["records"][1].key[:12]
    assert [(row.name, row.sha256) for row in content.outputs] == [("mr_aligned", "ab12cd34ef56")]
    assert content.versions == (("itk-elastix", "0.25.4"),)
    assert content.stages[2].seconds == "not available"


def test_quarantined(quarantined):
    verdict = case_content(quarantined).verdict
    assert (verdict.word, verdict.code, verdict.stage) == ("quarantined", "E_GAP", "ingest")
    assert verdict.remedy == "Export the missing slices again."
