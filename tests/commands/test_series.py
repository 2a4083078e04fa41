"""`tandem series` against trees whose series are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import api
from pipeline.commands.series import faults
from pipeline.dicom.series.select import select
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Spec, load_spec
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import call

CT = SeriesHeader(series_description="HEAD 3.0 [Br38] (a+b)", kernel="Br38")
MR = SeriesHeader(
    modality="MR", study="2", series_number=4, series_description="t1 'mprage'", tr_ms=1900, te_ms=2.5, date="20240229"
)


def write(root: Path, header: SeriesHeader, slices: int) -> SeriesHeader:
    name = f"{header.patient_id}-{header.study}-{header.series_number}"
    write_series(position_phantom((12, 10, slices), angles_deg=(0, 0, 0)), root / name, header)
    return header


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, dict[str, set[str]]]:
    """Two patients with distractors; the series of each modality that a draft has to choose, by role."""
    root, truth = tmp_path / "dicom", {"ct": set(), "mr": set()}
    for patient in ("SIM-1", "SIM-2"):
        ct, mr = replace(CT, patient_id=patient), replace(MR, patient_id=patient)
        truth["ct"].add(write(root, ct, 9).series_uid)
        write(root, replace(ct, series_number=3, series_description="LUNG", kernel="Br60"), 6)
        scout = replace(ct, series_number=1, series_description="Topogram", image_type=("ORIGINAL", "LOCALIZER"))
        write(root, scout, 11)
        truth["mr"].add(write(root, mr, 8).series_uid)
        write(root, replace(mr, series_number=5, series_description="t2"), 8 if patient == "SIM-1" else 5)
    return root, truth


def chosen(root: Path, spec: Spec) -> dict[str, set[str]]:
    found = select([row.series for row in api.series(root)], spec, lambda item: item.patient_id)
    assert not any(case.fault for case in found.cases)
    return {role: {case.series[role].series_uid for case in found.cases} for role in spec.roles}


def test_a_series_is_described_as_it_was_written(tree: tuple[Path, dict[str, set[str]]]) -> None:
    rows = api.series(tree[0])
    assert [row.patient for row in rows] == [1] * 5 + [2] * 5
    assert [row.number for row in rows[:5]] == ["1", "2", "3", "4", "5"]
    ct, mr = rows[1], rows[3]
    assert (ct.modality, ct.description, ct.images) == ("CT", "HEAD 3.0 [Br38] (a+b)", 9)
    assert (ct.matrix, ct.plane, ct.details, ct.date, ct.fault) == ((10, 12), "axial", "Br38", "2024-01-15", "")
    assert ct.spacing_mm == pytest.approx((1.1, 0.9, 2.5))
    assert (mr.description, mr.date, mr.details) == ("t1 'mprage'", "2024-02-29", "TR 1900 ms, TE 2.5 ms")


def test_the_draft_chooses_the_very_series(tree: tuple[Path, dict[str, set[str]]], tmp_path: Path) -> None:
    spec = api.draft_spec(api.series(tree[0]), tmp_path / "my_study.yaml")
    assert load_spec(tmp_path / "my_study.yaml") == spec and spec.name == "my_study"
    assert chosen(tree[0], spec) == tree[1]
    assert spec.fixed == "ct" and spec.moving == ["mr"] and spec.case == "patient"
    assert spec.roles["ct"].unit == "HU" and spec.roles["ct"].orientation == "axial"


def test_the_screen_shows_it_and_the_folder_stays_as_it_is(tree: tuple[Path, dict[str, set[str]]]) -> None:
    before = sorted(path for path in tree[0].parent.rglob("*"))
    done = call("series", "-i", tree[0])
    lines = done.out.splitlines()
    assert done.code == 0 and len(lines) == 11
    assert "HEAD 3.0 [Br38] (a+b)" in lines[2] and "10 x 12" in lines[2] and "1.1 x 0.9 x 2.5" in lines[2]
    assert "Private" in done.err and "Private" not in done.out
    assert sorted(path for path in tree[0].parent.rglob("*")) == before


def test_a_fault_is_shown(tmp_path: Path) -> None:
    write(tmp_path, CT, 9)
    api.series(tmp_path)[0].series.instances[4].path.unlink()
    (row,) = api.series(tmp_path)
    assert row.fault.startswith("E_GAP: ") and row.images == 8
    with pytest.raises(UsageError, match="E_NO_CASES"):
        api.draft_spec([row], tmp_path / "x.yaml")


def test_follow_ups_make_a_study_the_case(tmp_path: Path) -> None:
    for study in ("1", "2"):
        for header in (CT, MR):
            write(tmp_path / "in", replace(header, study=study), 7)
    found = api.series(tmp_path / "in")
    spec = api.draft_spec(found, tmp_path / "follow_up.yaml")
    assert spec.case == "study" and not faults(found, spec)
    assert len(faults(found, spec.model_copy(update={"case": "patient"}))) == 1


def test_patients_of_two_protocols_share_a_role(tmp_path: Path) -> None:
    for patient, name in (("A", "AX T1"), ("B", "t1_mprage"), ("C", "AX T1")):
        write(tmp_path / "in", replace(MR, patient_id=patient, series_description=name), 7)
    spec = api.draft_spec(api.series(tmp_path / "in"), tmp_path / "two.yaml")
    assert [rule.matches for rule in spec.roles["mr"].any] == ["^AX T1$", "^t1_mprage$"]
    assert spec.register_ is None and len(chosen(tmp_path / "in", spec)["mr"]) == 3


def test_what_it_cannot_tell_apart_is_said(tmp_path: Path) -> None:
    for number in (4, 5):
        write(tmp_path / "in", replace(MR, series_number=number), 7)
    done = call("series", tmp_path / "in", "--draft", tmp_path / "twice.yaml")
    assert (
        done.code == 1
        and done.err.count("Patient 1: E_AMBIGUOUS") == 1
        and load_spec(tmp_path / "twice.yaml").name == "twice"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("there.yaml", "there.yaml exists. Give another."),
        ("My Study.yaml", "Give a name such as my_study.yaml"),
        ("spec.txt", "Give a name such as my_study.yaml"),
        ("none/spec.yaml", "in a folder that exists"),
    ],
)
def test_no_file_is_overwritten_and_a_name_has_to_be_one(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    write(tmp_path / "in", CT, 5)
    done = call("series", tmp_path / "in", "--draft", tmp_path / name)
    assert (
        done.code == 2 and "E_OUT" in done.err and words in done.err and (tmp_path / "there.yaml").read_text() == "mine"
    )
