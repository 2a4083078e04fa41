"""The simulated cohort through the whole pipeline, against its truth: alignment, quarantine, resume, privacy."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from pipeline.cases import Record
from pipeline.commands.demo import alignment_errors
from tests.tandem_process import tandem
from tests.whole_run import SOUND, SPEC, WholeRun

#: The sound heads and the faulty one, the small head, and the hospital's patient.
ALL = SOUND + 3
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(whole_run: WholeRun) -> dict[str, list[Record]]:
    return whole_run.found


@pytest.fixture(scope="module")
def patients(whole_run: WholeRun) -> dict[str, str]:
    """Case id -> patient id, from the private table that only the key's owner can read."""
    (table,) = (whole_run.home / "links").rglob("series.csv")
    return dict(pd.read_csv(table)[["case_id", "patient_id"]].itertuples(index=False))


def test_the_faulty_case_is_quarantined_and_the_others_are_done(
    whole_run: WholeRun, found: dict[str, list[Record]], patients: dict[str, str]
) -> None:
    assert whole_run.run.code == 1, whole_run.run.err
    expected = {patient.patient_id: patient.expected_code for patient in whole_run.heads.patients}
    assert len(found) == ALL
    for case_id, case in found.items():
        codes = [record.error.code for record in case if record.error]
        code = expected.get(patients[case_id])
        assert codes == ([code] if code else [])
    assert f"ingest: {ALL - 1} done, 1 quarantined" in whole_run.run.out
    assert f"report: {ALL} done" in whole_run.run.out


def test_alignment_is_right_to_half_a_millimetre(whole_run: WholeRun, found: dict[str, list[Record]]) -> None:
    """Target registration error over anatomical landmarks against the simulated truth, at 3 mm voxels."""
    errors = alignment_errors(whole_run.heads.truth.parent, whole_run.out, whole_run.home)
    assert len(errors) == SOUND
    assert np.mean([error.mean_mm for error in errors.values()]) <= 0.5, errors
    assert max(error.max_mm for error in errors.values()) <= 1.0, errors
    for case_id in errors:
        register = next(record for record in found[case_id] if record.stage == "register")
        assert register.verdict is not None and register.verdict.grade == "pass"


def test_a_second_run_does_no_work(whole_run: WholeRun) -> None:
    out = whole_run.out
    before = {path: path.stat().st_mtime_ns for path in (out / "cases").rglob("*") if path.is_file()}
    again = tandem(whole_run.home, "run", whole_run.dicom, "--spec", SPEC, "--out", out)
    assert again.code == 1
    for stage, cases in (("register", ALL - 1), ("preprocess", ALL - 1), ("report", ALL)):
        assert f"{stage}: {cases} done ({cases} already" in again.out
    after = {path: path.stat().st_mtime_ns for path in (out / "cases").rglob("*") if path.is_file()}
    changed = {path for path in after if after[path] != before.get(path)}
    assert all(path.name == "record.json" and path.parent.name == "ingest" for path in changed)


def test_the_report_is_there_for_every_case(whole_run: WholeRun, found: dict[str, list[Record]]) -> None:
    page = (whole_run.out / "report.html").read_text()
    for case_id, case in found.items():
        report = next(record for record in case if record.stage == "report")
        made = {item.key: whole_run.out / item.path for item in report.artifacts}
        assert made["report_pdf"].read_bytes().startswith(b"%PDF")
        assert "Not a medical device" in re.sub(r"\s+", " ", made["report_page"].read_text())
        assert f"cases/{case_id}/report/report_page.html" in page
    assert "E_GAP" in page


def test_no_patient_gets_out(whole_run: WholeRun, patients: dict[str, str]) -> None:
    """Identifiers, names and the input's path are in no output, no name and no message."""
    secrets = {*patients.values(), "Simulated", str(whole_run.dicom), "2.25."}
    assert len(secrets) == ALL + 3
    for path in (path for path in whole_run.out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
        assert not [secret for secret in secrets if secret in str(path.relative_to(whole_run.out))], path
    assert not [secret for secret in secrets if secret in whole_run.run.out + whole_run.run.err]


def test_status_says_the_same(whole_run: WholeRun) -> None:
    shown = tandem(whole_run.home, "status", whole_run.out)
    assert shown.code == 1
    counts, cases = shown.out.split("verdict  code")[0], shown.out.split(" case ", 1)[1]
    assert cases.count("done") == (ALL - 1) * 4 + 1 and cases.count("E_GAP") == 1
    assert "E_GAP 1" in counts
